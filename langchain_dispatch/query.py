"""From LangChain's cache key to a question: what is compared by meaning, and what must match exactly.

LangChain hands a cache the messages as JSON and the model's parameters as a string. Embedding that envelope makes
every prompt look alike; only the text of the last human turn is compared by meaning, all else is exact scope.
"""

from __future__ import annotations

import json
from typing import Any

from langchain_core.language_models import BaseChatModel, BaseLanguageModel, LanguageModelInput
from langchain_core.load import dumps
from langchain_core.messages import BaseMessage

from dispatch_core import keys
from dispatch_core.types import Query
from langchain_dispatch.shape import NO_SHAPE, Shape
from langchain_dispatch.turns import canonical_turns, messages_of, plain_text

_UNSTABLE = ("<class '", " object at 0x", "<function ")
_EXACT = tuple(f"{quote}{name}{quote}" for name in ("tools", "functions", "response_format") for quote in "'\"")


def query_of(prompt: str, llm_string: str, namespace: str, shape: Shape = NO_SHAPE) -> Query | None:
    """The question of a call, or None if it has no stable identity and must go past the cache.

    A schema class appears in ``llm_string`` only by its name: unless the ``shape`` of the call tells its fields,
    another schema of that name would be answered wrongly.
    """
    facts: dict[str, Any] = {"front": "langchain", "model": shape.unnamed(llm_string)}
    if any(mark in facts["model"] for mark in _UNSTABLE):
        return None
    exact = bool(shape) or any(mark in llm_string for mark in _EXACT)
    messages = messages_of(prompt)
    try:
        if shape:
            facts["shape"] = shape.facts()
        if messages is None:
            return Query(prompt, keys.scope_digest({**facts, "turns": []}), namespace, not exact)
        text, turns, semantic = _asked(canonical_turns(messages))
        return Query(text, keys.scope_digest({**facts, "turns": turns}), namespace, semantic and not exact)
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


def _asked(turns: list[dict[str, Any]]) -> tuple[str, list[Any], bool]:
    """The text of the question, all else that was said, and whether the text may be compared by meaning."""
    last = turns[-1] if turns else {}
    text = plain_text(last.get("content"))
    if last.get("type") != "human" or text is None:
        return json.dumps(turns, sort_keys=True), [], False
    plain = not last.get("additional_kwargs") and not any(turn["type"] == "tool" for turn in turns)
    others = [*turns[:-1], {name: value for name, value in last.items() if name != "content"}]
    return text, others, plain
