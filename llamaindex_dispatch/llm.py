"""`DispatchLLM`: any LLM of LlamaIndex behind the dispatcher.

The eight endpoints go through `Endpoints`. Everything that LlamaIndex builds upon them (templates, structured output,
tool calls) runs in a *routed view*: a shallow copy of the wrapped model whose endpoints are ours. So the model's own
logic stays, and each of its provider calls comes back through the dispatcher.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import TokenAsyncGen, TokenGen
from pydantic import BaseModel, Field, PrivateAttr, SerializeAsAny

from dispatch_core import ConfigError, Dispatcher, SemanticCache
from dispatch_core.compress import Careful
from dispatch_core.ports import Compressor, Limiter
from llamaindex_dispatch import shared
from llamaindex_dispatch.endpoints import NAMES, Endpoints
from llamaindex_dispatch.identity import Compare, Identity, Rule
from llamaindex_dispatch.parts import core_limiter, dispatcher_of, patience_of
from llamaindex_dispatch.rate_limiter import TokenRateLimiter
from llamaindex_dispatch.restore import settings_in
from llamaindex_dispatch.retries import RetryPolicy

_FORWARDED = frozenset(
    {
        *("callback_manager", "system_prompt", "messages_to_prompt", "completion_to_prompt"),
        *("output_parser", "pydantic_program_mode", "query_wrapper_prompt"),
    }
)
"""Fields that every LLM has; the wrapper keeps no value of its own for them."""

_bypassing: ContextVar[frozenset[int]] = ContextVar("dispatch_bypassing", default=frozenset())


class DispatchLLM(LLM):
    """A model whose answers come from the cache when a question was answered before, and whose calls keep to a quota.

    ``cache`` is a `SemanticCache`, or a `Dispatcher` to share all of it. ``rate_limiter`` is a core limiter such as
    `dispatch_core.TokenLimiter`, or a `TokenRateLimiter`, whose timeout then holds. ``namespace`` keeps tenants
    apart. ``semantic_vars`` are the template variables that hold a question; ``max_semantic_tokens`` is the length,
    in estimated tokens, from which a question is matched exactly. With ``retries`` a failed call is made again, each
    attempt with a reservation of its own; set ``max_retries=0`` on the wrapped model then. A ``compressor`` makes a
    prompt shorter if the model must be asked: the cache looks for the whole one, the limiter reserves what is sent.
    A function-calling model gives a `DispatchFunctionCallingLLM`.

    A hit has ``raw=None`` and says so in ``additional_kwargs["dispatch"]``. Everything that this class does not have
    is read from, and written to, the wrapped model ``llm``. Raises TypeError for what cannot be wrapped,
    `ConfigError` for what is no cache or limiter, and at calls `LimitExceeded` and `RequestTooLarge`.
    """

    llm: SerializeAsAny[LLM]
    cache: Any = Field(default=None, exclude=True)
    rate_limiter: Any = Field(default=None, exclude=True)
    retries: Any = Field(default=None, exclude=True)
    compressor: Any = Field(default=None, exclude=True)
    namespace: str | None = None
    semantic_vars: tuple[str, ...] = ("query_str",)
    max_semantic_tokens: int = Field(default=200, ge=0)

    _dispatcher: Dispatcher = PrivateAttr()
    _careful: Careful | None = PrivateAttr()

    def __new__(cls, *args: Any, **kwargs: Any) -> DispatchLLM:
        llm = args[0] if args else kwargs.get("llm")
        calls_tools = isinstance(llm, FunctionCallingLLM) and llm.metadata.is_function_calling_model
        return super().__new__(DispatchFunctionCallingLLM if cls is DispatchLLM and calls_tools else cls)

    def __init__(
        self,
        llm: LLM,
        *,
        cache: SemanticCache | Dispatcher | None = None,
        rate_limiter: Limiter | TokenRateLimiter | None = None,
        retries: RetryPolicy | None = None,
        compressor: Compressor | None = None,
        namespace: str | None = None,
        semantic_vars: Sequence[str] = ("query_str",),
        max_semantic_tokens: int = 200,
    ) -> None:
        if isinstance(llm, StructuredLLM):
            raise TypeError("wrap the model inside: DispatchLLM(structured.llm).as_structured_llm(output_cls)")
        if not isinstance(llm, LLM):
            raise TypeError(f"DispatchLLM wraps an LLM of llama_index, not {type(llm).__name__}")
        if retries is not None and not isinstance(retries, RetryPolicy):
            raise ConfigError(f"retries= takes a RetryPolicy, not {type(retries).__name__}")
        dispatcher = dispatcher_of(cache, rate_limiter)
        careful = None if compressor is None else Careful(compressor)
        fields: dict[str, Any] = {
            "llm": llm,
            "cache": cache,
            "rate_limiter": rate_limiter,
            "retries": retries,
            "compressor": compressor,
            "namespace": namespace,
            "semantic_vars": tuple(semantic_vars),
            "max_semantic_tokens": max_semantic_tokens,
        }
        super().__init__(**fields, **{name: getattr(llm, name) for name in _FORWARDED})
        for name in _FORWARDED:
            del self.__dict__[name]
        self._dispatcher = dispatcher
        self._careful = careful
        if dispatcher.limiter is not None and core_limiter(getattr(llm, "rate_limiter", None)) is dispatcher.limiter:
            warnings.warn("the wrapped model has the same rate limiter: each call is charged twice", stacklevel=2)
        hidden: Any = getattr(llm, "max_retries", 0)
        if hidden and (self._dispatcher.limiter is not None or retries is not None):
            kind = type(llm).__name__
            past = "the rate limiter" if retries is None else "retries="
            warnings.warn(f"{kind} retries past {past}: set its max_retries=0, not {hidden}", stacklevel=2)

    @classmethod
    def class_name(cls) -> str:
        return "DispatchLLM"

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> DispatchLLM:
        """The model of a `to_dict`, which shows neither cache nor limiter nor retries: give them again, as in
        ``DispatchLLM.from_dict(data, cache=cache)``. Raises `ConfigError` for a wrapped model of a class that nobody
        imported; give it as ``llm=``."""
        return cls(**settings_in({**data, **kwargs}))

    @property
    def metadata(self) -> LLMMetadata:
        return self.llm.metadata

    @property
    def dispatcher(self) -> Dispatcher:
        """The dispatcher that all calls go through: ``llm.dispatcher.stats()``."""
        return self._dispatcher

    @contextmanager
    def bypass_cache(self) -> Iterator[None]:
        """Calls made inside ask the model, store nothing and still keep to the quota."""
        token = _bypassing.set(_bypassing.get() | {id(self)})
        try:
            yield
        finally:
            _bypassing.reset(token)

    def to_payload(self) -> dict[str, Any]:
        return self.llm.to_payload()

    # The endpoints

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._under(Compare.DIRECT).chat(messages, **kwargs)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return await self._under(Compare.DIRECT).achat(messages, **kwargs)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        return self._under(Compare.DIRECT).stream_chat(messages, **kwargs)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        return await self._under(Compare.DIRECT).astream_chat(messages, **kwargs)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return self._under(Compare.DIRECT).complete(prompt, formatted, **kwargs)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return await self._under(Compare.DIRECT).acomplete(prompt, formatted, **kwargs)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        return self._under(Compare.DIRECT).stream_complete(prompt, formatted, **kwargs)

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        return await self._under(Compare.DIRECT).astream_complete(prompt, formatted, **kwargs)

    # Templates: the question alone is compared by meaning

    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        return self._filled(prompt, prompt_args).predict(prompt, **prompt_args)

    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        return await self._filled(prompt, prompt_args).apredict(prompt, **prompt_args)

    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        return self._filled(prompt, prompt_args).stream(prompt, **prompt_args)

    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        return await self._filled(prompt, prompt_args).astream(prompt, **prompt_args)

    # Structured output and tools: exactly

    def structured_predict(self, *args: Any, **kwargs: Any) -> Any:
        return self._view(Compare.EXACT).structured_predict(*args, **kwargs)

    async def astructured_predict(self, *args: Any, **kwargs: Any) -> Any:
        return await self._view(Compare.EXACT).astructured_predict(*args, **kwargs)

    def stream_structured_predict(self, *args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        return self._view(Compare.EXACT).stream_structured_predict(*args, **kwargs)

    async def astream_structured_predict(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        return await self._view(Compare.EXACT).astream_structured_predict(*args, **kwargs)

    def predict_and_call(self, *args: Any, **kwargs: Any) -> Any:
        return self._view(Compare.EXACT).predict_and_call(*args, **kwargs)

    async def apredict_and_call(self, *args: Any, **kwargs: Any) -> Any:
        return await self._view(Compare.EXACT).apredict_and_call(*args, **kwargs)

    # Routing

    def _identity(self) -> Identity:
        return Identity(self.namespace or "", self.semantic_vars, self.max_semantic_tokens)

    def _under(self, rule: Rule) -> Endpoints:
        if id(self) in _bypassing.get():
            rule = Compare.BYPASS
        patience = patience_of(self.rate_limiter)
        return Endpoints(
            self.llm,
            self._dispatcher,
            self._identity(),
            rule,
            timeout=patience,
            retries=self.retries,
            careful=self._careful,
        )

    def _view(self, rule: Rule) -> LLM:
        """The wrapped model with our endpoints. The rule is bound to it: context variables are gone when the body of
        a lazy generator runs."""
        view = copy.copy(self.llm)
        endpoints = self._under(rule)
        for name in NAMES:
            object.__setattr__(view, name, getattr(endpoints, name))
        return view

    def _filled(self, prompt: BasePromptTemplate, prompt_args: dict[str, Any]) -> LLM:
        cached = self._dispatcher.cache is not None
        return self._view(self._identity().rule(self.llm, prompt, prompt_args) if cached else Compare.EXACT)

    # The rest belongs to the wrapped model

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)  # type: ignore[misc]
        except AttributeError:
            inner = self.__dict__.get("llm")
            if inner is None or name.startswith("__"):
                raise
            return getattr(inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        mine = name.startswith("_") or (name in type(self).model_fields and name not in _FORWARDED)
        if not mine:
            setattr(self.llm, name, value)
            return
        if name in ("cache", "rate_limiter"):
            # Made before anything is changed: what cannot work leaves all as it was.
            parts = {"cache": self.cache, "rate_limiter": self.rate_limiter, name: value}
            self._dispatcher = dispatcher_of(**parts)
        if name == "compressor":
            self._careful = None if value is None else Careful(value)
        super().__setattr__(name, value)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> DispatchLLM:
        memo = {} if memo is None else memo
        for kept in (self.cache, self.rate_limiter, self._dispatcher, self.compressor, self._careful):
            memo[id(kept)] = kept
        return super().__deepcopy__(memo)

    def __reduce__(self) -> tuple[Any, ...]:
        names = ("retries", "namespace", "semantic_vars", "max_semantic_tokens")
        settings = {name: getattr(self, name) for name in names}
        kept = (self.cache, self.rate_limiter, self._dispatcher, self.compressor)
        return _unpickled, (type(self), self.llm, settings, *map(shared.handle, kept))


class DispatchFunctionCallingLLM(DispatchLLM, FunctionCallingLLM):
    """A `DispatchLLM` around a function-calling model; made by `DispatchLLM`, for the framework asks by class."""

    def chat_with_tools(self, *args: Any, **kwargs: Any) -> ChatResponse:
        return self._tool_view().chat_with_tools(*args, **kwargs)

    async def achat_with_tools(self, *args: Any, **kwargs: Any) -> ChatResponse:
        return await self._tool_view().achat_with_tools(*args, **kwargs)

    def stream_chat_with_tools(self, *args: Any, **kwargs: Any) -> ChatResponseGen:
        return self._tool_view().stream_chat_with_tools(*args, **kwargs)

    async def astream_chat_with_tools(self, *args: Any, **kwargs: Any) -> ChatResponseAsyncGen:
        return await self._tool_view().astream_chat_with_tools(*args, **kwargs)

    def get_tool_calls_from_response(self, *args: Any, **kwargs: Any) -> list[ToolSelection]:
        return self._tool_model.get_tool_calls_from_response(*args, **kwargs)

    def _prepare_chat_with_tools(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self._tool_model._prepare_chat_with_tools(*args, **kwargs)

    def _prepare_chat_with_tools_compat(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self._tool_model._prepare_chat_with_tools_compat(*args, **kwargs)

    def _validate_chat_with_tools_response(self, *args: Any, **kwargs: Any) -> ChatResponse:
        return self._tool_model._validate_chat_with_tools_response(*args, **kwargs)

    def _tool_view(self) -> FunctionCallingLLM:
        return cast(FunctionCallingLLM, self._view(Compare.EXACT))

    @property
    def _tool_model(self) -> FunctionCallingLLM:
        return cast(FunctionCallingLLM, self.llm)


def _unpickled(kind: type[DispatchLLM], llm: LLM, settings: dict[str, Any], *handles: str | None) -> DispatchLLM:
    cache, rate_limiter, dispatcher, compressor = map(shared.found, handles)
    restored = kind(llm, compressor=compressor, **settings)
    # Past our own setter: the dispatcher is the one that had been made of these two.
    BaseModel.__setattr__(restored, "cache", cache)
    BaseModel.__setattr__(restored, "rate_limiter", rate_limiter)
    if dispatcher is not None:
        restored._dispatcher = dispatcher
    return restored
