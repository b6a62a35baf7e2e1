"""What a model is: its settings, and what it keeps in attributes that it does not show.

Custom models are often configured by private attributes, and adapters hold the model of another framework in one.
What JSON can express of them is part of the identity; a foreign model must say what it is, or its calls go past the
cache.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import fields, is_dataclass
from functools import cached_property
from inspect import isfunction
from pathlib import Path
from typing import Any

from llama_index.core.llms.llm import LLM
from pydantic import BaseModel

from llamaindex_dispatch import state
from llamaindex_dispatch.facts import bare, function_facts, header_facts, incidental, is_headers, option_facts, plain

_OPTIONS = ("additional_kwargs", "model_kwargs", "generate_kwargs")
_HEADERS = ("default_headers", "headers", "extra_headers")
_MACHINERY = re.compile(
    r"(^|_)(token|key|caches?|callbacks?|tokenizers?|locks?|loggers?|sessions?)$"
    r"|(^|_)(cache|callback|tokenizer)_|clients?$",
    re.IGNORECASE,
)
"""Names of attributes that hold what a model works with, and of secrets."""

_ASKED_BY = (
    *("invoke", "predict", "generate", "complete", "chat", "completion", "create_completion"),
    *("create_chat_completion", "generate_content", "generate_text"),
)
"""Methods of models: what has one of them answers in the place of the LLM that holds it."""

_NAMED_MODEL = re.compile(r"(^|_)(llm|model)$", re.IGNORECASE)
_DEPTH = 8
_NOTHING = object()

_log = logging.getLogger("llamaindex_dispatch")
_warned: set[str] = set()


def model_facts(llm: LLM) -> dict[str, Any]:
    """All settings of a model that may change its answers. Raises `TypeError` if it has no stable identity."""
    return _model_facts(llm, state.configured(llm, held_facts(llm)))


def held_facts(llm: LLM) -> dict[str, Any]:
    """What a model keeps in attributes that `to_dict` does not show. Raises `TypeError`."""
    return _held_facts(llm, _DEPTH)


def watch(llm: LLM) -> Callable[[], None]:
    """Called before a call of the model; what it gives is to be called afterwards."""
    before = held_facts(llm)

    def learn() -> None:
        try:
            state.learn(llm, before, held_facts(llm))
        except (TypeError, ValueError) as reason:
            _log.debug("a model changed into one that has no identity: %s", reason)

    return learn


def _model_facts(llm: LLM, held: Any) -> dict[str, Any]:
    settings = llm.to_dict()
    for name in _OPTIONS:
        if isinstance(settings.get(name), dict):
            settings[name] = option_facts(settings[name])
    return {
        "class": _class(llm),
        "settings": option_facts(settings),
        "held": held,
        "metadata": plain(llm.metadata.model_dump()),
        "prompt functions": [function_facts(llm.messages_to_prompt), function_facts(llm.completion_to_prompt)],
    }


def _held_facts(llm: LLM, depth: int) -> dict[str, Any]:
    shown = {*llm.to_dict(), *LLM.model_fields}
    hidden = {name: value for name, value in _attributes(llm) if name not in shown}
    for name in _HEADERS:
        headers = None if name in shown else getattr(llm, name, None)
        if isinstance(headers, Mapping):
            hidden[name] = headers
    return _described(hidden.items(), depth)


def _described(attributes: Iterable[tuple[str, Any]], depth: int) -> dict[str, Any]:
    """What has a form of the attributes; no value and no attribute are the same."""
    forms = {name: _form(name, value, depth) for name, value in attributes if not _skipped(name, value)}
    return {name: form for name, form in forms.items() if form is not _NOTHING}


def _skipped(name: str, value: Any) -> bool:
    return value is None or incidental(name.lstrip("_"), value) or _MACHINERY.search(name) is not None


def _form(name: str, value: Any, depth: int) -> Any:
    """The JSON form of an attribute, or `_NOTHING`. Raises `TypeError` for a model that does not say what it is."""
    if depth == 0:
        return _NOTHING
    if is_headers(name) and isinstance(value, Mapping):
        return header_facts(value) or _NOTHING
    try:
        return plain(bare(value))
    except TypeError:
        return _compound(name, value, depth)


def _compound(name: str, value: Any, depth: int) -> Any:
    if isinstance(value, LLM):
        return _model_facts(value, _held_facts(value, depth - 1))
    if isfunction(value):
        return function_facts(value)
    if isinstance(value, Path | Set):
        return _text_form(value)
    if isinstance(value, Mapping):
        return _described(((str(key), item) for key, item in value.items() if isinstance(key, str | int)), depth - 1)
    if isinstance(value, list | tuple):
        return _described(((f"{name} {index}", item) for index, item in enumerate(value)), depth - 1)
    return _object(name, value, depth)


def _text_form(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return sorted(value) if all(isinstance(item, str) for item in value) else _NOTHING


def _object(name: str, value: Any, depth: int) -> Any:
    answers = bool(_NAMED_MODEL.search(name)) or any(callable(getattr(type(value), one, None)) for one in _ASKED_BY)
    if isinstance(value, type) or not (answers or isinstance(value, BaseModel) or is_dataclass(value)):
        return _NOTHING
    described = _described(_attributes(value), depth - 1)
    if answers and not _tells_all(value, described):
        said = getattr(value, "_identifying_params", None)
        if not isinstance(said, Mapping) or not said:
            _warn(value)
            raise TypeError(f"{type(value).__name__} does not say what it is")
        described["_identifying_params"] = _described(said.items(), depth - 1)
    return {"class": _class(value), "attributes": described}


def _tells_all(value: Any, described: Mapping[str, Any]) -> bool:
    """Fields that were declared are what a model is made of; of any other object, all must have a form."""
    if isinstance(value, BaseModel) or is_dataclass(value):
        return bool(described)
    held = getattr(value, "__dict__", None)
    return held is not None and all(name in described or _skipped(name, one) for name, one in held.items())


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """The fields, the private attributes and what else was set on an instance, without what it computed itself."""
    if is_dataclass(value):
        yield from ((field.name, getattr(value, field.name, None)) for field in fields(value))
    if isinstance(value, BaseModel):
        yield from {**(value.model_extra or {}), **(value.__pydantic_private__ or {})}.items()
    declared = type(value).model_fields if isinstance(value, BaseModel) else ()
    for name, held in list(getattr(value, "__dict__", {}).items()):
        # Fields first: a class of pydantic is slow to say that it has no attribute of that name.
        if name in declared or not isinstance(getattr(type(value), name, None), cached_property):
            yield name, held


def _class(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _warn(model: Any) -> None:
    name = _class(model)
    if name not in _warned:
        _warned.add(name)
        _log.warning(
            "calls of %s go past the cache: nothing tells two of them apart; "
            "give it a dict `_identifying_params` of what decides its answers",
            name,
        )
