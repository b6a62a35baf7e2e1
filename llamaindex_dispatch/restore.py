"""A `DispatchLLM` from what its ``to_dict`` showed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llama_index.core.llms.llm import LLM
from llama_index.core.llms.loading import RECOGNIZED_LLMS

from dispatch_core import ConfigError

_SETTINGS = (
    *("cache", "rate_limiter", "retries", "compressor"),
    *("namespace", "semantic_vars", "max_semantic_tokens"),
)


def settings_in(data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a `DispatchLLM`, its wrapped model restored. Raises `ConfigError`."""
    return {"llm": _model_of(data.get("llm")), **{name: data[name] for name in _SETTINGS if name in data}}


def _model_of(shown: Any) -> Any:
    if not isinstance(shown, Mapping):
        return shown
    name = shown.get("class_name")
    imported: Iterator[Any] = _under(LLM)
    kind = RECOGNIZED_LLMS.get(str(name)) or next((one for one in imported if one.class_name() == name), None)
    if kind is None:
        raise ConfigError(f"no class of models named {name!r} is imported: give the wrapped model as llm=")
    return kind.from_dict(dict(shown))


def _under(kind: Any) -> Iterator[Any]:
    """Every class of models that was imported."""
    for one in kind.__subclasses__():
        yield one
        yield from _under(one)
