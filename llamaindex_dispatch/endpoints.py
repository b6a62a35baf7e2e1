"""The eight calls of a model, each through the dispatcher and all under one rule of comparison."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

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
from dispatch_core.compress import Careful
from dispatch_core.types import Cost
from llamaindex_dispatch.convert import CHAT, COMPLETION
from llamaindex_dispatch.cost import expected
from llamaindex_dispatch.exchange import Ask, Exchange
from llamaindex_dispatch.identity import Compare, Identity, Prompt, Rule
from llamaindex_dispatch.model import watch
from llamaindex_dispatch.retries import RetryPolicy
from llamaindex_dispatch.sending import Sending

NAMES = (
    *("chat", "achat", "stream_chat", "astream_chat"),
    *("complete", "acomplete", "stream_complete", "astream_complete"),
)

C = TypeVar("C")
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
        careful: Careful | None = None,
    ) -> None:
        self._llm = llm
        self._dispatcher = dispatcher
        self._identity = identity
        self._rule = rule
        self._timeout = timeout
        self._retries = retries
        self._careful = careful

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return run(self._chat(messages, kwargs))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return await arun(self._chat(messages, kwargs))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        ask = self._ask(CHAT.name, list(messages), kwargs)
        return Exchange(self._dispatcher, CHAT, ask).stream(_call(self._llm.stream_chat, ask, kwargs))

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        ask = self._ask(CHAT.name, list(messages), kwargs)
        return Exchange(self._dispatcher, CHAT, ask).astream(_call(self._llm.astream_chat, ask, kwargs))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return run(self._complete(prompt, _options(formatted, kwargs)))

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return await arun(self._complete(prompt, _options(formatted, kwargs)))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        options = _options(formatted, kwargs)
        ask = self._ask(COMPLETION.name, prompt, options)
        return Exchange(self._dispatcher, COMPLETION, ask).stream(_call(self._llm.stream_complete, ask, options))

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        options = _options(formatted, kwargs)
        ask = self._ask(COMPLETION.name, prompt, options)
        return Exchange(self._dispatcher, COMPLETION, ask).astream(_call(self._llm.astream_complete, ask, options))

    def _chat(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> Flow[ChatResponse]:
        ask, llm = self._ask(CHAT.name, messages, kwargs), self._llm
        calls = _call(llm.chat, ask, kwargs), _call(llm.achat, ask, kwargs)
        return (yield from Exchange(self._dispatcher, CHAT, ask).answer(*calls))

    def _complete(self, prompt: str, options: Mapping[str, Any]) -> Flow[CompletionResponse]:
        ask, llm = self._ask(COMPLETION.name, prompt, options), self._llm
        calls = _call(llm.complete, ask, options), _call(llm.acomplete, ask, options)
        return (yield from Exchange(self._dispatcher, COMPLETION, ask).answer(*calls))

    def _ask(self, form: str, prompt: Prompt, options: Mapping[str, Any]) -> Ask:
        query = done = None
        if self._dispatcher.cache is not None and self._rule is not Compare.BYPASS:
            try:
                query = self._identity.query(self._llm, form, prompt, options, self._rule)
                done = watch(self._llm)
            except (TypeError, ValueError, RuntimeError) as reason:
                # The last: an object that holds itself, a class that has no schema.
                _log.debug("a call goes past the cache: %s", reason)
        limited = self._dispatcher.limiter is not None
        sending = Sending(prompt, self._careful, partial(self._price, options) if limited else None)
        return Ask(query, sending, self._timeout, done, self._retries, self._llm if limited else None)

    def _price(self, options: Mapping[str, Any], prompt: Prompt) -> Cost:
        llm, limiter = self._llm, self._dispatcher.limiter
        assert limiter is not None
        settings = getattr(llm, "additional_kwargs", None) or {}
        own = {"max_tokens": getattr(llm, "max_tokens", None)}
        return expected(limiter, prompt, options, settings, own, model=llm.metadata.model_name)


def _call(method: Callable[..., C], ask: Ask, options: Mapping[str, Any]) -> Callable[[], C]:
    """A call of the model with what is sent when it is made."""
    return lambda: method(ask.sending.prompt, **options)


def _options(formatted: bool, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"formatted": True, **kwargs} if formatted else kwargs
