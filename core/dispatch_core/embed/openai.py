"""Embeddings of OpenAI, and of every server that speaks its protocol."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dispatch_core._flow import Flow, arun, pause, run, step
from dispatch_core.embed._openai import Clients, Reply
from dispatch_core.embed._unit import unit_rows
from dispatch_core.errors import ConfigError, DispatchError, EmbeddingError, MissingExtra, RequestTooLarge
from dispatch_core.limit import TokenLimiter
from dispatch_core.limit.tokenizer import counter_at_hand
from dispatch_core.types import Fit, Matrix, Usage

if TYPE_CHECKING:
    from dispatch_core.embed._openai import AsyncClient, Client

_WHOLE: Mapping[str, int] = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
_FIXED = "text-embedding-ada-002"
_MOST_TEXTS = 2048
_MOST_TOKENS = 300_000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
_MOST_BYTES_PER_TOKEN, _RATHER_LESS = 6, 0.99
_BYTES_PER_TOKEN = 3
"""An estimate that is rather too many tokens than too few: English has 4.5 bytes in a token, Chinese 2.5."""

_COUNTED_AT_ONCE = 4000
"""Characters whose tokens are counted in less time than a thread takes to be woken."""


class OpenAIEmbedder:
    """An embedding model of OpenAI; with ``base_url``, of any server with this protocol.

    ``dimensions`` shortens the vectors of the third generation. ``client`` and ``async_client`` are the SDK's
    (`openai.OpenAI`, `openai.AzureOpenAI`, ...); without them they are made of ``base_url`` and ``api_key``, or of
    the environment. A ``limiter`` admits every request and learns from the answers; without one the SDK retries by
    itself. One request has at most ``max_batch`` texts. ``max_tokens`` is the model's window: what is longer is cut
    off. ``timeout``, in seconds, holds for each answer, and for a turn at the limiter; ``max_retries`` for refusals
    and failures that may pass.

    `model` names the vector space by the model and its dimensions, not by the server: of two servers that mean
    different things by one name, give the other's vectors another namespace.

    Raises `ConfigError` for settings that cannot work, `MissingExtra` without openai, and for everything else
    `EmbeddingError`, which never quotes a text.
    """

    def __init__(
        self,
        model: str = "text-embedding-3-small",
        *,
        dimensions: int | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        client: Client | None = None,
        async_client: AsyncClient | None = None,
        limiter: TokenLimiter | None = None,
        max_batch: int = _MOST_TEXTS,
        max_tokens: int = 8191,
        timeout: float = 10.0,
        max_retries: int = 2,
    ) -> None:
        _check_dimensions(model, dimensions)
        _check_patience(timeout, max_retries)
        if limiter is not None and not isinstance(limiter, TokenLimiter):
            raise ConfigError(f"limiter is a TokenLimiter, got {type(limiter).__name__}")
        if not 1 <= max_batch <= _MOST_TEXTS:
            raise ConfigError(f"max_batch is 1 to {_MOST_TEXTS}, got {max_batch}")
        if max_tokens < 1:
            raise ConfigError(f"max_tokens is at least 1, got {max_tokens}")
        if client is not None and (base_url is not None or api_key is not None):
            raise ConfigError("give either a client or its base_url and api_key, not both")
        self.max_tokens = max_tokens
        self._name = model
        self._dimensions = None if dimensions == _WHOLE.get(model) else dimensions
        self.model = f"openai:{model}" + (f":{self._dimensions}" if self._dimensions else "")
        self._dims = dimensions or _WHOLE.get(model)
        self._limiter = limiter
        self._max_batch = max_batch
        self._timeout = timeout
        self._retries = max_retries
        retries = 0 if limiter is not None else max_retries
        given = {"base_url": base_url, "api_key": api_key}
        settings = {"timeout": timeout, "max_retries": retries, **{k: v for k, v in given.items() if v is not None}}
        self._clients = Clients(settings, client, async_client, retries=0 if limiter is not None else None)

    @property
    def dims(self) -> int:
        """Known of OpenAI's models; of another it is learned from its first vector, at the cost of a call."""
        return self._dims or int(self.embed(["dimensions"]).shape[1])

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Return shape ``(len(texts), dims)``, float32, unit rows. Text beyond the window is cut off."""
        return run(self._embed(texts))

    async def aembed(self, texts: Sequence[str]) -> Matrix:
        return await arun(self._embed(texts))

    def fit(self, text: str) -> Fit:
        """Counted if tiktoken knows the model and has its vocabulary here; else estimated, rather too many."""
        return Fit(tokens=self._count(text))

    async def afit(self, text: str) -> Fit:
        if "_count" in self.__dict__ and len(text) <= _COUNTED_AT_ONCE:
            return self.fit(text)
        return await asyncio.to_thread(self.fit, text)

    def close(self) -> None:
        """Close the connections that were opened here; those of event loops close with their loop, or by `aclose`."""
        self._clients.close()

    async def aclose(self) -> None:
        await self._clients.aclose()

    @cached_property
    def _count(self) -> Callable[[str], int]:
        return counter_at_hand(self._name) or _estimated

    def _embed(self, texts: Sequence[str]) -> Flow[Matrix]:
        # Of a model whose dimensions nobody knows yet, even no text needs a vector to say how long none is.
        asked = list(texts) if texts or self._dims else ["dimensions"]
        try:
            rows = yield from self._in_batches([self._cut(text) for text in asked])
        except (EmbeddingError, MissingExtra):
            raise
        except Exception as error:
            raise EmbeddingError(f"{self.model} could not embed {len(asked)} texts: {_what(error)}") from error
        return rows[: len(texts)]

    def _in_batches(self, texts: list[str]) -> Flow[Matrix]:
        parts = [np.empty((0, self._dims or 0), dtype=np.float32)] if not texts else []
        for batch in _batches(texts, self._max_batch):
            rows = yield from self._rows(batch)
            parts.append(rows)
        return np.concatenate(parts)

    def _rows(self, texts: list[str]) -> Flow[Matrix]:
        try:
            reply = yield from self._admitted(texts)
        except RequestTooLarge:
            if len(texts) == 1:
                raise
            half = len(texts) // 2
            first = yield from self._rows(texts[:half])
            return np.concatenate([first, (yield from self._rows(texts[half:]))])
        rows = unit_rows(_in_order(reply, len(texts), self.model), len(texts), self.model)
        if self._dims not in (None, rows.shape[1]):
            raise EmbeddingError(f"{self.model} returned {rows.shape[1]} dimensions instead of {self._dims}")
        self._dims = rows.shape[1]
        return rows

    def _admitted(self, texts: list[str]) -> Flow[Reply]:
        """Ask when the limiter lets us; again after a refusal, in the turn that the limiter gives."""
        limiter = self._limiter
        if limiter is None:
            return (yield from self._ask(texts))
        cost = limiter.estimate("".join(texts), max_tokens=0, model=self._name)
        held = yield from step(limiter.acquire, limiter.aacquire, cost, timeout=self._timeout)
        try:
            for attempt in range(self._retries + 1):
                try:
                    reply = yield from self._ask(texts)
                except Exception as error:
                    refused = held.throttled(*_answer_of(error))
                    if attempt == self._retries or not (refused or _may_pass(error)):
                        raise
                    if not refused:
                        yield from pause(min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE))
                else:
                    held.settle(Usage(reply.tokens) if reply.tokens else None, reply.headers)
                    return reply
                yield from step(held.again, held.aagain)
            raise AssertionError("the last attempt returns or raises")
        finally:
            held.settle(None)

    def _ask(self, texts: list[str]) -> Flow[Reply]:
        request: dict[str, Any] = {"model": self._name, "input": texts, "encoding_format": "base64"}
        if self._dimensions:
            request["dimensions"] = self._dimensions
        return (yield from step(self._clients.ask, self._clients.aask, request))

    def _cut(self, text: str) -> str:
        """What the API takes: it refuses an empty text, and one beyond the window."""
        data = text.encode("utf-8", "surrogatepass")
        # No token is shorter than a byte, and no long text has more than six in one.
        if len(data) <= self.max_tokens:
            return text or " "
        size = _MOST_BYTES_PER_TOKEN * self.max_tokens
        if len(data) <= size and self._count(text) <= self.max_tokens:
            return text
        if self._count is _estimated:
            # An estimate may be too low, and what is refused is lost.
            size = self.max_tokens
        start = data[:size].decode("utf-8", "ignore")
        while size > self.max_tokens and (tokens := self._count(start)) > self.max_tokens:
            # A little less than its share: the density of tokens differs along a text.
            size = max(self.max_tokens, int(_RATHER_LESS * min(size, len(data)) * self.max_tokens / tokens))
            start = data[:size].decode("utf-8", "ignore")
        return start


def _check_dimensions(model: str, dimensions: int | None) -> None:
    whole = _WHOLE.get(model)
    if dimensions is None:
        return
    if model == _FIXED:
        raise ConfigError(f"{model} has no other dimensions than {whole}: leave them out")
    if not 1 <= dimensions <= (whole or dimensions):
        raise ConfigError(f"dimensions of {model} are 1 to {whole or 'what its server allows'}, got {dimensions}")


def _check_patience(timeout: float, max_retries: int) -> None:
    if not 0 < timeout < math.inf:
        raise ConfigError(f"timeout is a positive, finite number of seconds, got {timeout}")
    if max_retries < 0:
        raise ConfigError(f"max_retries is at least 0, got {max_retries}")


def _batches(texts: list[str], most: int) -> Iterator[list[str]]:
    """Requests of at most so many texts, and of fewer tokens than the API takes at once."""
    batch: list[str] = []
    tokens = 0
    for text in texts:
        # Twice what is likely: a request that is too large is refused as a whole.
        size = len(text.encode("utf-8", "surrogatepass")) // 2 + 1
        if batch and (len(batch) == most or tokens + size > _MOST_TOKENS):
            yield batch
            batch, tokens = [], 0
        batch.append(text)
        tokens += size
    if batch:
        yield batch


def _estimated(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN)


def _in_order(reply: Reply, count: int, model: str) -> list[Any]:
    """Each text's numbers. Servers that are merely compatible may send numbers for base64, and no places."""
    places = [at if place is None else place for at, (place, _) in enumerate(reply.embeddings)]
    if sorted(places) != list(range(count)):
        raise EmbeddingError(f"{model} returned {len(places)} embeddings for {count} texts, or not one for each")
    rows: list[Any] = [None] * count
    for place, (_, numbers) in zip(places, reply.embeddings, strict=True):
        rows[place] = _decoded(numbers) if isinstance(numbers, str) else numbers
    return rows


def _decoded(text: str) -> Any:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")


def _answer_of(error: BaseException) -> tuple[int, Mapping[str, str], object]:
    """Status, headers and body of the response that an SDK's error tells of; status 0 if there was none."""
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or {}
    status = getattr(error, "status_code", None)
    plain = {str(name).lower(): str(value) for name, value in headers.items()}
    return status if isinstance(status, int) else 0, plain, getattr(error, "body", None)


def _may_pass(error: BaseException) -> bool:
    """Whether asking once more may help: what the SDK itself would try again."""
    status, _, _ = _answer_of(error)
    lost = any(kind.__name__ == "APIConnectionError" for kind in type(error).__mro__)
    return lost or status in (408, 409) or status >= 500


def _what(error: Exception) -> str:
    """Our own errors never quote a text; of others, the kind must do."""
    status, _, _ = _answer_of(error)
    if isinstance(error, DispatchError):
        return str(error)
    return f"{type(error).__name__}, HTTP {status}" if status else type(error).__name__
