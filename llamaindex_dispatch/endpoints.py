"""The eight calls of a model, each through the dispatcher and all under one rule of comparison."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
)
from llama_index.core.llms.llm import LLM

from dispatch_core import Dispatcher
from dispatch_core._flow import Flow, arun, run
from llamaindex_dispatch.convert import CHAT, COMPLETION
from llamaindex_dispatch.cost import expected
from llamaindex_dispatch.exchange import Ask, Exchange
from llamaindex_dispatch.identity import Compare, Identity, Prompt, Rule
from llamaindex_dispatch.model import watch
from llamaindex_dispatch.retries import RetryPolicy

NAMES = (
    *("chat", "achat", "stream_chat", "astream_chat"),
    *("complete", "acomplete", "stream_complete", "astream_complete"),
)

_log = logging.getLogger("llamaindex_dispatch")


class Endpoints:
    """Bound to one model, one dispatcher and one rule. The streams compute their question when they are called: what
    the caller changes before reading them no longer matters."""

    def __init__(
        self,
        llm: LLM,
        dispatcher: Dispatcher,
        identity: Identity,
        rule: Rule,
        *,
        timeout: float | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        self._llm = llm
        self._dispatcher = dispatcher
        self._identity = identity
        self._rule = rule
        self._timeout = timeout
        self._retries = retries

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return run(self._chat(messages, kwargs))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return await arun(self._chat(messages, kwargs))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        exchange = Exchange(self._dispatcher, CHAT, self._ask(CHAT.name, messages, kwargs))
        return exchange.stream(partial(self._llm.stream_chat, list(messages), **kwargs))

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        exchange = Exchange(self._dispatcher, CHAT, self._ask(CHAT.name, messages, kwargs))
        return exchange.astream(partial(self._llm.astream_chat, list(messages), **kwargs))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return run(self._complete(prompt, _options(formatted, kwargs)))

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return await arun(self._complete(prompt, _options(formatted, kwargs)))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        options = _options(formatted, kwargs)
        exchange = Exchange(self._dispatcher, COMPLETION, self._ask(COMPLETION.name, prompt, options))
        return exchange.stream(partial(self._llm.stream_complete, prompt, **options))

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        options = _options(formatted, kwargs)
        exchange = Exchange(self._dispatcher, COMPLETION, self._ask(COMPLETION.name, prompt, options))
        return exchange.astream(partial(self._llm.astream_complete, prompt, **options))

    def _chat(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> Flow[ChatResponse]:
        exchange = Exchange(self._dispatcher, CHAT, self._ask(CHAT.name, messages, kwargs))
        calls = partial(self._llm.chat, messages, **kwargs), partial(self._llm.achat, messages, **kwargs)
        return (yield from exchange.answer(*calls))

    def _complete(self, prompt: str, options: Mapping[str, Any]) -> Flow[CompletionResponse]:
        exchange = Exchange(self._dispatcher, COMPLETION, self._ask(COMPLETION.name, prompt, options))
        calls = partial(self._llm.complete, prompt, **options), partial(self._llm.acomplete, prompt, **options)
        return (yield from exchange.answer(*calls))

    def _ask(self, form: str, prompt: Prompt, options: Mapping[str, Any]) -> Ask:
        query = cost = done = None
        if self._dispatcher.cache is not None and self._rule is not Compare.BYPASS:
            try:
                query = self._identity.query(self._llm, form, prompt, options, self._rule)
                done = watch(self._llm)
            except (TypeError, ValueError) as reason:
                _log.debug("a call goes past the cache: %s", reason)
        limiter = self._dispatcher.limiter
        if limiter is not None:
            settings = getattr(self._llm, "additional_kwargs", None) or {}
            own = {"max_tokens": getattr(self._llm, "max_tokens", None)}
            cost = expected(limiter, prompt, options, settings, own, model=self._llm.metadata.model_name)
        return Ask(query, cost, self._timeout, done, self._retries, None if cost is None else self._llm)


def _options(formatted: bool, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"formatted": True, **kwargs} if formatted else kwargs
