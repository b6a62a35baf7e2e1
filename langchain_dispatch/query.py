"""From LangChain's cache key to a question: what is compared by meaning, and what must match exactly.

LangChain hands a cache the messages as JSON and the model's parameters as a string. Embedding that envelope makes
every prompt look alike; only the text of the last human turn is compared by meaning, all else is exact scope. Where
that turn is a known prompt of retrieval, only the question in it is: the context around it must match exactly.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from langchain_core.language_models import BaseChatModel, BaseLanguageModel, LanguageModelInput
from langchain_core.load import dumps
from langchain_core.messages import BaseMessage

from dispatch_core import keys
from dispatch_core.compress.known import question_in
from dispatch_core.types import Query
from langchain_dispatch.shape import NO_SHAPE, Shape
from langchain_dispatch.turns import canonical_turns, messages_of, plain_text, plain_turns

_UNSTABLE = ("<class '", " object at 0x", "<function ")
_SHORT = 4096
_EXACT = tuple(f"{quote}{name}{quote}" for name in ("tools", "functions", "response_format") for quote in "'\"")


def query_of(prompt: str, llm_string: str, namespace: str, shape: Shape = NO_SHAPE) -> Query | None:
    """The question of a call, or None if it has no stable identity and must go past the cache.

    A schema class appears in ``llm_string`` only by its name: unless the ``shape`` of the call tells its fields,
    another schema of that name would be answered wrongly.
    """
    messages = messages_of(prompt)
    try:
        if messages is None:
            return _query((prompt, [], True), llm_string, namespace, shape)
        return _query(_asked(canonical_turns(messages)), llm_string, namespace, shape)
    except (KeyError, TypeError, AttributeError):
        return None


def query_of_messages(
    messages: list[BaseMessage], llm_string: str, namespace: str, shape: Shape = NO_SHAPE
) -> Query | None:
    """The same `query_of` for messages that nobody serialised yet."""
    turns = plain_turns(messages)
    if turns is None:
        return query_of(prompt_of(messages), llm_string, namespace, shape)
    try:
        return _query(_asked(turns), llm_string, namespace, shape)
    except (KeyError, TypeError, AttributeError):
        return None


def prompt_of(messages: list[BaseMessage]) -> str:
    """The messages as LangChain hands them to a cache."""
    return dumps([message.model_copy(update={"id": None}) if message.id else message for message in messages])


def call_of(question: LanguageModelInput, model: BaseLanguageModel[Any]) -> tuple[str, str]:
    """The two strings that LangChain hands a cache for a call of this model without further arguments."""
    told: Any = model
    prompt = told._convert_input(question)
    if not isinstance(model, BaseChatModel):
        return prompt.to_string(), str(sorted({**told.dict(), "stop": None}.items()))
    return prompt_of(prompt.to_messages()), told._get_llm_string(stop=None)


def _query(asked: tuple[str, list[Any], bool], llm_string: str, namespace: str, shape: Shape) -> Query | None:
    text, turns, semantic = asked
    model = shape.unnamed(llm_string)
    if any(mark in model for mark in _UNSTABLE):
        return None
    if shape:
        scope = keys.scope_digest({**_facts(model, turns), "shape": shape.facts()})
        return Query(text, scope, namespace, False)
    exact = any(mark in llm_string for mark in _EXACT)
    return Query(text, _scope(model, turns), namespace, semantic and not exact)


def _scope(model: str, turns: list[Any]) -> str:
    said = json.dumps(turns)
    return _known_scope(model, said) if len(said) < _SHORT else keys.scope_digest(_facts(model, turns))


@lru_cache(maxsize=1024)
def _known_scope(model: str, turns: str) -> str:
    """Most questions differ in nothing but their text."""
    return keys.scope_digest(_facts(model, json.loads(turns)))


def _facts(model: str, turns: list[Any]) -> dict[str, Any]:
    return {"front": "langchain", "model": model, "turns": turns}


def _asked(turns: list[dict[str, Any]]) -> tuple[str, list[Any], bool]:
    """The text of the question, all else that was said, and whether the text may be compared by meaning."""
    last = turns[-1] if turns else {}
    text = plain_text(last.get("content"))
    if last.get("type") != "human" or text is None:
        # The question that all this is about still tells whether it may be answered from a cache at all.
        said = (plain_text(turn.get("content")) for turn in reversed(turns) if turn.get("type") == "human")
        return next(said, None) or "", turns, False
    plain = not last.get("additional_kwargs") and not any(turn["type"] == "tool" for turn in turns)
    others = [*turns[:-1], {name: value for name, value in last.items() if name != "content"}]
    question, around = question_in(text)
    return question, [*others, *around], plain
