"""`dispatch(model)`: the same model, with a cache and a limiter of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import cache as memoised
from typing import Any, ClassVar, SupportsIndex, TypeVar, cast

from langchain_core.caches import BaseCache
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, BaseLLM, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import Runnable, RunnableConfig

from dispatch_core import TokenLimiter
from dispatch_core.compress import Careful
from dispatch_core.errors import ConfigError
from dispatch_core.flight import waiting_for_others
from dispatch_core.limit import RetryPolicy
from dispatch_core.ports import Compressor
from langchain_dispatch import streams
from langchain_dispatch.answers import Answer
from langchain_dispatch.call import Call
from langchain_dispatch.compression import compressing, preparing, shortening
from langchain_dispatch.events import caching
from langchain_dispatch.given import is_configurable, limited
from langchain_dispatch.observer import observer
from langchain_dispatch.rate_limiter import as_rate_limiter
from langchain_dispatch.replay import atold, replay, replaying, told, unheard
from langchain_dispatch.retries import retried

M = TypeVar("M", bound=Runnable[Any, Any])


def dispatch(
    model: M,
    *,
    cache: BaseCache | bool | None = None,
    rate_limiter: BaseRateLimiter | TokenLimiter | None = None,
    stream_chunk: int | None = None,
    retries: RetryPolicy | None = None,
    compressor: Compressor | None = None,
) -> M:
    """A copy of a model with the given cache and limiter: streams are cached too, ``with_config`` takes a
    ``rate_limiter``, and where a stale answer is at hand it is given instead of the provider's error.

    The result is an instance of the model's own class: ``bind_tools``, ``with_structured_output``, serialisation
    and tracing are the model's. What is not given stays as the model has it. A stream is cached
    by the model's cache or the global one, under the entry of ``invoke``, once it was read to its end. It is replayed
    in chunks of ``stream_chunk`` characters; else in those in which it came, of which only a `SemanticCache` knows.

    The limiter of a config is found wherever LangChain leaves it: after ``bind_tools``, and on a chain, a function or
    an agent around the model; one that comes from around takes the place of no limiter that the model has.

    With ``retries`` a failed call is made again, each attempt with a reservation of its own; set ``max_retries=0`` on
    the model then, for an SDK's own retries ask no limiter.

    A ``compressor`` makes a prompt shorter if the model must be asked: the cache looks for the whole one, the limiter
    reserves what is sent. A compressor that fails leaves the prompt as it is.

    What ``init_chat_model()`` leaves to be chosen by a config is dispatched when it is chosen, and each model has
    answers of its own. A completion model (`BaseLLM`) gets the cache, for its ``invoke``. Raises TypeError for a
    limiter of a completion model, which LangChain would ignore, for retries of one, and for what is no model.

    >>> from langchain_core.language_models import FakeListChatModel
    >>> from dispatch_core import HashingEmbedder
    >>> from langchain_dispatch import SemanticCache, TokenRateLimiter
    >>> model = dispatch(FakeListChatModel(responses=["hello", "never asked"]),
    ...     cache=SemanticCache(embedder=HashingEmbedder()))
    >>> "|".join(chunk.content for chunk in model.stream("How do I greet a cat?"))
    'h|e|l|l|o'
    >>> "|".join(chunk.content for chunk in model.stream("How do I greet a cat?"))
    'h|e|l|l|o'
    >>> model.with_config(rate_limiter=TokenRateLimiter(rpm=60)).invoke("How do I greet a cat?").content
    'hello'
    """
    if isinstance(model, BaseLLM):
        if rate_limiter is not None:
            raise TypeError(f"LangChain asks no rate limiter for a completion model such as {type(model).__name__}")
        if retries is not None or compressor is not None:
            what = "retries are" if retries is not None else "a compressor is"
            raise TypeError(f"{what} for chat models, not for a completion model such as {type(model).__name__}")
        return model if cache is None else model.model_copy(update={"cache": cache})
    if stream_chunk is not None and (not isinstance(stream_chunk, int) or stream_chunk < 1):
        raise ConfigError(f"stream_chunk is a positive number of characters, got {stream_chunk!r}")
    settings = {
        "stream_chunk": stream_chunk,
        "retries": retries,
        "compressor": None if compressor is None else Careful(compressor),
    }
    limiter = None if rate_limiter is None else as_rate_limiter(rate_limiter)
    given = {"cache": cache, "rate_limiter": limiter}
    update = {name: value for name, value in given.items() if value is not None}
    if is_configurable(model):
        from langchain_dispatch.configurable import dispatched

        chosen: Any = model
        return cast("M", dispatched(chosen, {**update, **settings, "compressor": compressor}))
    if not isinstance(model, BaseChatModel):
        raise TypeError(f"dispatch takes a chat model or a completion model, got {type(model).__name__}")
    observer()
    copy = model.model_copy(update=update)
    # Not a new object built from fields: private clients and other state of the model's must come along.
    object.__setattr__(copy, "__class__", _class_for(type(model), **settings))
    return copy


@dataclass(frozen=True, slots=True)
class _Settings:
    """What a class made by `dispatch` was made of: settings live in the class, so that no copy of a model loses them
    and no key or trace shows them."""

    base: type[BaseChatModel]
    stream_chunk: int | None = None
    retries: RetryPolicy | None = None
    compressor: Careful | None = None


class _Dispatched:
    """What `dispatch` adds to a model's class."""

    dispatched: ClassVar[_Settings]

    def with_config(
        self,
        config: RunnableConfig | None = None,
        *,
        rate_limiter: BaseRateLimiter | TokenLimiter | None = None,
        **kwargs: Any,
    ) -> Runnable[Any, Any]:
        """As in LangChain, and ``rate_limiter`` limits this model; LangChain itself would ignore it silently."""
        model = cast("BaseChatModel", self)
        if rate_limiter is not None:
            model = model.model_copy(update={"rate_limiter": as_rate_limiter(rate_limiter)})
        if not config and not kwargs:
            return model
        return cast("Runnable[Any, Any]", _plain(model).with_config(config, **kwargs))

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return _plain(_ready(self, config)).invoke(input, config, **kwargs)

    async def ainvoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        # LangChain asks in a task of its own, which must not wait for a stream that the caller is in the middle of.
        with waiting_for_others():
            return await _plain(_ready(self, config)).ainvoke(input, config, **kwargs)

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        model, size = _ready(self, config), self.dispatched.stream_chunk

        def live() -> Iterator[AIMessageChunk]:
            return _plain(model).stream(input, config, stop=stop, **kwargs)  # type: ignore[no-any-return]

        def again(answer: Answer) -> Iterator[AIMessageChunk]:
            if unheard(model, config):
                return told(answer, config, size)
            return _plain(replaying(model, answer, size)).stream(input, config, stop=stop, **kwargs)  # type: ignore[no-any-return]

        exchange = _exchange(model, input, stop, kwargs, asynchronous=False)
        yield from live() if exchange is None else streams.stream(exchange, live, again)

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        model, size = _ready(self, config), self.dispatched.stream_chunk

        def live() -> Any:
            return _plain(model).astream(input, config, stop=stop, **kwargs)

        def again(answer: Answer) -> Any:
            if unheard(model, config):
                return atold(answer, config, size)
            return _plain(replaying(model, answer, size)).astream(input, config, stop=stop, **kwargs)

        exchange = _exchange(model, input, stop, kwargs, asynchronous=True)
        cached: Any = live() if exchange is None else streams.astream(exchange, live, again)
        async with aclosing(cached) as chunks:
            async for chunk in chunks:
                yield chunk

    def stream_events(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, version: Any = "v2", **kwargs: Any
    ) -> Any:
        model = _of_events(cast("BaseChatModel", self), version, input, config, kwargs)
        return _plain(model).stream_events(input, config, version=version, **kwargs)

    def astream_events(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, version: Any = "v2", **kwargs: Any
    ) -> Any:
        model = _of_events(cast("BaseChatModel", self), version, input, config, kwargs)
        return _plain(model).astream_events(input, config, version=version, **kwargs)

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        model, call = cast("BaseChatModel", self), _call_of(run_manager)
        plain = _plain(model)._generate_with_cache
        try:
            result: ChatResult = plain(messages, stop=stop, run_manager=run_manager, **kwargs)
        except Exception as error:
            result = _old_answer(call, error)
        if run_manager is not None:
            for chunk in _tokens(model, call, result, async_api=False, run_manager=run_manager, **kwargs):
                run_manager.on_llm_new_token(cast("str", chunk.message.content), chunk=chunk)
        return result

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        model, call = cast("BaseChatModel", self), _call_of(run_manager)
        plain = _plain(model)._agenerate_with_cache
        try:
            result: ChatResult = await plain(messages, stop=stop, run_manager=run_manager, **kwargs)
        except Exception as error:
            result = _old_answer(call, error)
        if run_manager is not None:
            for chunk in _tokens(model, call, result, async_api=True, run_manager=run_manager, **kwargs):
                await run_manager.on_llm_new_token(cast("str", chunk.message.content), chunk=chunk)
        return result

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        reduced: Any = super().__reduce_ex__(protocol)
        return (_empty, (self.dispatched,), *reduced[2:])


def _ready(model: _Dispatched, config: RunnableConfig | None) -> BaseChatModel:
    """The model with the limiter that holds for this call."""
    return shortening(limited(cast("BaseChatModel", model), config), model.dispatched.compressor)


def _plain(model: BaseChatModel) -> Any:
    """The model with its own methods: ours would be found again by name."""
    return super(_Dispatched, model)


def _exchange(
    model: BaseChatModel, question: Any, stop: list[str] | None, kwargs: dict[str, Any], *, asynchronous: bool
) -> streams.AnyExchange | None:
    """None where LangChain does not stream: that is an invoke, with its own lookup."""
    if not model._should_stream(async_api=asynchronous, **{**kwargs, "stream": True}):
        return None
    return streams.exchange_of(model, question, stop, kwargs)


def _of_events(model: Any, version: str, question: Any, config: RunnableConfig | None, kwargs: dict[str, Any]) -> Any:
    """The model that LangChain asks for events: those of earlier versions are made of its ``astream``."""
    if version != "v3":
        return model
    model = _ready(model, config)
    arguments = {name: value for name, value in kwargs.items() if name != "stop"}
    exchange = streams.exchange_of(model, question, kwargs.get("stop"), arguments)
    return caching(model, exchange, model.dispatched.stream_chunk)


def _call_of(run_manager: Any) -> Call | None:
    return None if run_manager is None else observer().started(run_manager.run_id)


def _old_answer(call: Call | None, error: Exception) -> ChatResult:
    """What others are served while this call should have refreshed it. Raises the error if there is nothing."""
    exchange = None if call is None else call.exchange
    answer = None if exchange is None else exchange.stale()
    if call is None or exchange is None or answer is None:
        raise error
    observer().on_llm_error(error, run_id=call.run_id)
    exchange.found = answer
    return ChatResult(generations=[_chat(generation) for generation in answer.generations])


def _tokens(model: Any, call: Call | None, result: ChatResult, **how: Any) -> Iterator[ChatGenerationChunk]:
    """What those hear of an answer from the cache who listen to a call as it streams; LangChain is silent there."""
    answer = None if call is None or call.exchange is None else call.exchange.found
    # Listeners to the newer events are told by LangChain itself; releases before 1.4 know none.
    newer = getattr(model, "_should_use_protocol_streaming", None)
    if answer is None or (newer is not None and newer(**how)) or not model._should_stream(**how):
        return
    for chunk in replay(answer, model.dispatched.stream_chunk):
        # The message that follows counts as heard.
        chunk.message.id = result.generations[0].message.id
        yield chunk


def _chat(generation: Generation) -> ChatGeneration:
    return (
        generation if isinstance(generation, ChatGeneration) else ChatGeneration(message=AIMessage(generation.text))
    )


def _class_for(kind: type[BaseChatModel], **given: Any) -> type[BaseChatModel]:
    settings = vars(kind).get("dispatched") or _Settings(kind)
    return _made(replace(settings, **{name: value for name, value in given.items() if value is not None}))


@memoised
def _made(settings: _Settings) -> type[BaseChatModel]:
    base = settings.base
    # Name and module stay, for they are part of LangChain's serialised form and so of every cache key.
    names: dict[str, Any] = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
    }
    if settings.retries is not None:
        names |= retried(base, settings.retries)
    if settings.compressor is not None:
        names |= compressing(base, names, preparing(settings.compressor))
    made = cast("type[BaseChatModel]", type(base.__name__, (_Dispatched, base), names))
    type.__setattr__(made, "dispatched", settings)
    return made


def _empty(settings: _Settings) -> BaseChatModel:
    """An unpickled model before it gets its state."""
    made = _made(settings)
    return made.__new__(made)
