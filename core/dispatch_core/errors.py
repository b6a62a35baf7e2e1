"""Every exception of the dispatcher.

DispatchError
├── ConfigError          a setting is wrong; also a ValueError
├── MissingExtra         an optional package is not installed; also an ImportError
├── StoreError           a vector store failed
│   └── DimensionMismatch    a vector of another length than the index holds
├── EmbeddingError       an embedder failed or returned something unusable
├── CompressionError     the model of a compressor failed
└── LimitError           a call was not admitted
    ├── LimitExceeded        its turn would come after the timeout, or the queue is full
    └── RequestTooLarge      it is larger than the limit and could never be admitted
"""

from __future__ import annotations


class DispatchError(Exception):
    """Base of all exceptions raised by the dispatcher."""


class ConfigError(DispatchError, ValueError):
    """A setting cannot work; the message names the setting and what would."""


class MissingExtra(DispatchError, ImportError):
    """A feature needs an optional dependency.

    Attributes: ``extra``, the name to install with ``pip install 'ai-dispatcher[extra]'``.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'ai-dispatcher[{extra}]'")
        self.extra = extra


class StoreError(DispatchError):
    """A vector store could not be read or written; the cause is chained."""


class DimensionMismatch(StoreError):
    """A vector has another length than the vectors of the index.

    Attributes: ``expected`` and ``actual``, in dimensions.
    """

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(
            f"the scope holds vectors of {expected} dimensions, this one has {actual}: "
            "two embedders with the same model name share a scope"
        )
        self.expected = expected
        self.actual = actual


class EmbeddingError(DispatchError):
    """A text could not be embedded; the cause is chained."""


class CompressionError(DispatchError):
    """A prompt could not be compressed; the cause is chained."""


class LimitError(DispatchError):
    """A call was not admitted by the limiter."""


class LimitExceeded(LimitError):
    """The call's turn does not come in time.

    Attributes: ``retry_after``, the estimated wait in seconds.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestTooLarge(LimitError):
    """One call asks for more tokens than the limit allows in a whole window; waiting would not help.

    Attributes: ``requested`` and ``limit``, in tokens.
    """

    def __init__(self, requested: int, limit: int) -> None:
        super().__init__(
            f"the request needs {requested} tokens, the limit is {limit} per window: "
            "shorten the prompt, lower max_tokens or raise the limit"
        )
        self.requested = requested
        self.limit = limit
