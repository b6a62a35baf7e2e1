"""Which question is it? What is compared by meaning, and what must match exactly.

1. A template with a question in it (``query_str``): only the question is compared by meaning; the template filled
   with all else is exact scope. Embedding the whole would truncate the question away: two different questions in the
   default prompt over 353 tokens have cosine 1.0.
2. Any other template, and every structured or tool call: exactly.
3. A direct call: by meaning if the last user message is one line of plain text; everything before it exactly.
4. Images and documents: exactly, by their bytes. What has no stable form goes past the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ThinkingBlock
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import BasePromptTemplate, SelectorPromptTemplate

from dispatch_core import keys
from dispatch_core.eligible import MAX_CHARS
from dispatch_core.types import Query
from llamaindex_dispatch.facts import message_facts, option_facts, prompt_facts, text_facts
from llamaindex_dispatch.model import model_facts

Prompt: TypeAlias = str | Sequence[ChatMessage]

_QUESTION = "\ue000question\ue000"
"""Stands where the question was. Private-use characters: no prompt contains them by chance."""

_STRUCTURE = frozenset(
    {
        *("tools", "functions", "response_format", "output_cls", "response_model", "response_schema"),
        *("format", "json_mode", "json_schema", "guided_json"),
    }
)
_CALLS = frozenset({"tool_calls", "function_call", "tool_call_id"})
_TOOLS = (MessageRole.TOOL, MessageRole.FUNCTION)
_BYTES_PER_TOKEN = 4


class Compare(Enum):
    """How a call may be compared when no template says it better."""

    DIRECT = "by meaning if it is a plain question"
    EXACT = "exactly"
    BYPASS = "not at all"


@dataclass(frozen=True, slots=True)
class Filled:
    """A template's question, and the facts of the prompt with a mark where the question stood."""

    question: str
    blank: Any


Rule: TypeAlias = Compare | Filled


@dataclass(frozen=True, slots=True)
class Identity:
    """The settings of an identity: ``semantic_vars`` are names of template variables that hold the question, in order
    of preference; a question above ``max_semantic_tokens`` (about four bytes each) is matched exactly."""

    namespace: str
    semantic_vars: tuple[str, ...]
    max_semantic_tokens: int

    def rule(self, llm: LLM, prompt: BasePromptTemplate, args: Mapping[str, Any]) -> Rule:
        """How a filled template is compared."""
        template = prompt
        while isinstance(template, SelectorPromptTemplate):
            template = template.select(llm)
        given = {**template.kwargs, **args}
        name = next((name for name in self.semantic_vars if isinstance(given.get(name), str)), None)
        # Functions of the user that compute variables or parse the answer may look at the question.
        if name is None or template.function_mappings or template.output_parser or llm.output_parser:
            return Compare.EXACT
        blanked = {**args, name: _QUESTION}
        chat = llm.metadata.is_chat_model
        rendered = llm._get_messages(template, **blanked) if chat else llm._get_prompt(template, **blanked)
        try:
            blank = prompt_facts(rendered)
        except TypeError:
            return Compare.EXACT
        asks = _put("", blank) != blank
        return Filled(given[name], blank) if asks else Compare.EXACT

    def query(self, llm: LLM, form: str, prompt: Prompt, options: Mapping[str, Any], rule: Rule) -> Query:
        """The question that a call asks. Raises `TypeError` if it has no stable identity."""
        prompt_form = prompt_facts(prompt)
        model, asked = model_facts(llm), option_facts(options)
        shared = {"front": "llamaindex", "form": form, "model": model, "options": asked}
        structured = _structured(asked) or _structured(model["settings"]) or _structured(model["held"])
        filled = None if structured else _filled(prompt, prompt_form, rule)
        if filled is None or not self._comparable(filled.question):
            scope = keys.scope_digest({**shared, "prompt": prompt_form})
            return Query(_spoken(prompt), scope, self.namespace, semantic=False)
        return Query(filled.question, keys.scope_digest({**shared, "blank": filled.blank}), self.namespace)

    def _comparable(self, question: str) -> bool:
        short = len(question.encode("utf-8", "surrogatepass")) <= self.max_semantic_tokens * _BYTES_PER_TOKEN
        # An agent's observation looks like a question of the user but is the outcome of a tool.
        return short and bool(question.strip()) and not question.lstrip().startswith("Observation:")


def _spoken(prompt: Prompt) -> str:
    """What the user says at last, for rules that look at questions; nothing if it is no short text."""
    if isinstance(prompt, str):
        text: str | None = prompt
    else:
        text = next((message.content for message in reversed(prompt) if message.role == MessageRole.USER), None)
    return text if text is not None and len(text) <= MAX_CHARS else ""


def _structured(facts: Any) -> bool:
    """An option that shapes the answer, wherever a model or a call keeps it."""
    if isinstance(facts, dict):
        return any(
            bool(value) and (name.lstrip("_") in _STRUCTURE or _structured(value)) for name, value in facts.items()
        )
    return isinstance(facts, list) and any(map(_structured, facts))


def _filled(prompt: Prompt, facts: Any, rule: Rule) -> Filled | None:
    """The question and the rest of a prompt, None if the whole must match exactly."""
    if not isinstance(prompt, str) and not all(map(_ordinary, prompt)):
        return None
    if isinstance(rule, Filled):
        # Whatever the framework did to the prompt: it must still be the blank with the question put in.
        return rule if _put(rule.question, rule.blank) == facts else None
    if rule is Compare.DIRECT and isinstance(prompt, str):
        return Filled(prompt, _QUESTION) if _one_line(prompt) else None
    return _last_of(prompt, facts) if rule is Compare.DIRECT and not isinstance(prompt, str) else None


def _last_of(messages: Sequence[ChatMessage], facts: Any) -> Filled | None:
    """The last message of the user, if it is one line of plain text."""
    last = messages[-1] if messages else None
    if last is None or last.role != MessageRole.USER or len(last.blocks) != 1:
        return None
    block = last.blocks[0]
    if not isinstance(block, TextBlock) or not _one_line(block.text):
        return None
    role, _, extras = message_facts(last)
    return Filled(block.text, [*facts[:-1], [role, [text_facts(_QUESTION)], extras]])


def _ordinary(message: ChatMessage) -> bool:
    """Text of a person or a model; no tool, no image."""
    spoken = all(isinstance(block, TextBlock | ThinkingBlock) for block in message.blocks)
    return spoken and message.role not in _TOOLS and _CALLS.isdisjoint(message.additional_kwargs)


def _one_line(text: str) -> bool:
    return "\n" not in text.strip()


def _put(question: str, blank: Any) -> Any:
    if isinstance(blank, str):
        return blank.replace(_QUESTION, question)
    if isinstance(blank, list):
        return [_put(question, item) for item in blank]
    if isinstance(blank, dict):
        return {name: _put(question, item) for name, item in blank.items()}
    return blank
