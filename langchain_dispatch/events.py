"""`stream_events` of version 3, which asks neither a cache nor, before it, whether there is an answer at all.

LangChain announces the call, waits for the limiter and reads the model's ``_stream``. A view of the model has no
limiter and a ``_stream`` that looks into the cache first and waits for the limiter only if the model must be asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk

from dispatch_core.flight import asking_for, task_id
from langchain_dispatch import streams
from langchain_dispatch.answers import Answer
from langchain_dispatch.observer import observer
from langchain_dispatch.replay import replay

M = TypeVar("M", bound=BaseChatModel)


def caching(model: M, exchange: streams.AnyExchange | None, size: int | None) -> M:
    """A view of the model for one call; without an exchange it only waits for the limiter."""
    blocks, caller = model.output_version == "v1", task_id()

    def chunks(
        messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[Any]:
        def live() -> Iterator[ChatGenerationChunk]:
            if model.rate_limiter is not None:
                model.rate_limiter.acquire(blocking=True)
            yield from model._stream(messages, stop=stop, run_manager=run_manager, **kwargs)

        def again(answer: Answer) -> Iterator[ChatGenerationChunk]:
            for chunk in replay(answer, size):
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

        call = observer().current()
        try:
            made: Any = live() if exchange is None else streams.stream(exchange, live, again, blocks=blocks)
            with closing(made) as told:
                yield from told
        except GeneratorExit as error:
            # LangChain hears of an error, not of a reader who went away.
            if call is not None:
                observer().on_llm_error(error, run_id=call.run_id)
            raise

    async def achunks(
        messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        async def live() -> AsyncIterator[ChatGenerationChunk]:
            if model.rate_limiter is not None:
                await model.rate_limiter.aacquire(blocking=True)
            asked: Any = model._astream(messages, stop=stop, run_manager=run_manager, **kwargs)
            async with aclosing(asked) as plain:
                async for chunk in plain:
                    yield chunk

        async def again(answer: Answer) -> AsyncIterator[ChatGenerationChunk]:
            for chunk in replay(answer, size):
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

        # LangChain reads it in a task of its own.
        asking_for(caller)
        made: Any = live() if exchange is None else streams.astream(exchange, live, again, blocks=blocks)
        async with aclosing(made) as told:
            async for chunk in told:
                yield chunk

    view = model.model_copy(update={"rate_limiter": None})
    # A source of events of the model's own would be read in the place of these.
    own = {"_stream_chat_model_events": None, "_astream_chat_model_events": None}
    for name, value in {"_stream": chunks, "_astream": achunks, **own}.items():
        object.__setattr__(view, name, value)
    return view
