"""The table of limiters under test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from benchmarks.limiter.adapters import Adapter, Backoff, Ours, Settings, Straight
from benchmarks.limiter.article import Article
from benchmarks.limiter.peers import AioLimiter, LangChain, Limits, LlamaIndex, ThrottledPy, TokenThrottle


@dataclass(frozen=True, slots=True)
class Limiter:
    """``package`` is the distribution it needs, None if none; the oracle stands behind the network, not before it.

    One that is ``slow`` takes minutes of real time a run and is measured only when asked for by name. One that
    ``polls`` hardly depends on the seed and takes five times as long as the others: one seed must do.
    """

    title: str
    build: Callable[[Settings], Adapter]
    package: str | None = None
    oracle: bool = False
    slow: bool = False
    polls: bool = False

    @property
    def installed(self) -> bool:
        if self.package is None:
            return True
        try:
            version(self.package)
        except PackageNotFoundError:
            return False
        return True


LIMITERS: Mapping[str, Limiter] = {
    "ours": Limiter("dispatch_core.TokenLimiter", Ours),
    "backoff": Limiter("backoff, 6 tries", Backoff),
    "article": Limiter("the article's limiter", Article),
    "langchain": Limiter("LangChain, true mean", LangChain, "langchain-core", polls=True),
    "llama-index": Limiter("llama-index as integrated", LlamaIndex, "llama-index-core"),
    "aiolimiter": Limiter("aiolimiter ×2", AioLimiter, "aiolimiter"),
    "limits": Limiter("limits", Limits, "limits", polls=True),
    "throttled-py": Limiter("throttled-py", ThrottledPy, "throttled-py", polls=True),
    "token-throttle": Limiter("token-throttle", TokenThrottle, "token-throttle", slow=True),
    "oracle": Limiter("oracle", Straight, oracle=True),
}
