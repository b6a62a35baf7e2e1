"""From LangChain's cache key to a question: what is compared by meaning, and what must match exactly.

LangChain hands a cache the messages as JSON and the model's parameters as a string. Embedding that envelope makes
every prompt look alike; only the text of the last human turn is compared by meaning, all else is exact scope.
"""

from __future__ import annotations

import json
from typing import Any

from langchain_core.language_models import BaseChatModel, BaseLanguageModel, LanguageModelInput
from langchain_core.load import dumps

from dispatch_core import keys
from dispatch_core.types import Query

_UNSTABLE = ("<class '", " object at 0x", "<function ")
_TOOLS = tuple(f"{quote}{name}{quote}" for name in ("tools", "functions") for quote in "'\"")
_REPEATED = frozenset({"tool_calls", "refusal", "parsed"})


def query_of(prompt: str, llm_string: str, namespace: str) -> Query | None:
    """The question of a call, or None if it has no stable identity and must go past the cache.

    A schema class appears in ``llm_string`` only by its name: another schema of that name would be answered wrongly.
    """
    if any(mark in llm_string for mark in _UNSTABLE):
        return None
    messages = _messages(prompt)
    if messages is None:
        return _query(prompt, [], llm_string, namespace, semantic=_without_tools(llm_string))
    try:
        turns = [_turn(message) for message in messages]
    except (KeyError, TypeError, AttributeError):
        return None
    return _of_turns(turns, llm_string, namespace)


def call_of(question: LanguageModelInput, model: BaseLanguageModel[Any]) -> tuple[str, str]:
    """The two strings that LangChain hands a cache for a call of this model without further arguments."""
    told: Any = model
    prompt = told._convert_input(question)
    if not isinstance(model, BaseChatModel):
        return prompt.to_string(), str(sorted({**told.dict(), "stop": None}.items()))
    messages = [message.model_copy(update={"id": None}) for message in prompt.to_messages()]
    return dumps(messages), told._get_llm_string(stop=None)


def _of_turns(turns: list[dict[str, Any]], llm_string: str, namespace: str) -> Query:
    last = turns[-1] if turns else {}
    text = _plain_text(last.get("content"))
    if last.get("type") != "human" or text is None:
        return _query(json.dumps(turns, sort_keys=True), [], llm_string, namespace, semantic=False)
    plain = not last.get("additional_kwargs") and not any(turn["type"] == "tool" for turn in turns)
    semantic = plain and _without_tools(llm_string)
    others: list[Any] = [*turns[:-1], {name: value for name, value in last.items() if name != "content"}]
    return _query(text, others, llm_string, namespace, semantic=semantic)


def _query(text: str, turns: list[Any], llm_string: str, namespace: str, *, semantic: bool) -> Query:
    scope = keys.scope_digest({"front": "langchain", "turns": turns, "model": llm_string})
    return Query(text, scope, namespace, semantic)


def _without_tools(llm_string: str) -> bool:
    return not any(mark in llm_string for mark in _TOOLS)


def _messages(prompt: str) -> list[dict[str, Any]] | None:
    """The serialised messages of a chat model's prompt; None for the plain prompt of a completion model."""
    if not prompt.startswith('[{"lc"'):
        return None
    try:
        parsed = json.loads(prompt)
    except ValueError:
        return None
    return parsed if isinstance(parsed, list) else None


def _turn(message: dict[str, Any]) -> dict[str, Any]:
    """What identifies a message: no ids, no usage, no metadata, which change when an answer came from a cache."""
    fields = message["kwargs"]
    turn = {"type": fields["type"], "content": _without_ids(fields["content"])}
    for name in ("name", "status", "role"):
        if fields.get(name):
            turn[name] = fields[name]
    extras = {name: value for name, value in (fields.get("additional_kwargs") or {}).items() if value is not None}
    if fields["type"] == "ai":
        # What an answer carries besides: ids that change when it came from a cache, and the calls once more.
        extras = {name: value for name, value in extras.items() if name not in _REPEATED}
    if extras:
        turn["additional_kwargs"] = extras
    calls = [{"name": call["name"], "args": call["args"]} for call in fields.get("tool_calls") or []]
    if calls:
        turn["tool_calls"] = calls
    return turn


def _without_ids(content: Any) -> Any:
    """Blocks of an answer without the ids in them, which are new each time it comes from a cache."""
    if isinstance(content, list):
        return [_without_ids(block) for block in content]
    if isinstance(content, dict):
        return {name: _without_ids(value) for name, value in content.items() if name not in ("id", "tool_use_id")}
    return content


def _plain_text(content: Any) -> str | None:
    """The text of a content, None if it holds anything but text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts: list[str] = []
    for block in content:
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str):
            texts.append(block["text"])
        else:
            return None
    return "\n".join(texts)
