"""An answer from the cache as the chunks of a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from langchain_dispatch.answers import Answer, unspent, with_ids
from langchain_dispatch.pieces import chunks_of

M = TypeVar("M", bound=BaseChatModel)

_WITH_IDS = ("tool_call_chunks", "additional_kwargs", "content")


def replay(answer: Answer, size: int | None = None) -> Iterator[ChatGenerationChunk]:
    """Chunks of ``size`` characters, or as they once came. The first says that the answer is from the cache; tokens
    were spent for none."""
    generation = answer.generations[0]
    message = getattr(generation, "message", None) or AIMessage(generation.text)
    note = {"dispatch": dict(answer.note)}
    for fields in chunks_of(answer.pieces, message, size):
        yield ChatGenerationChunk(message=_chunk(fields, answer, message, note))
        note = {}


def replaying(model: M, answer: Answer, size: int | None = None) -> M:
    """A view of the model that streams the answer, asks nobody and needs no leave to do so."""

    def chunks(*args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        return replay(answer, size)

    async def achunks(*args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in replay(answer, size):
            yield chunk

    view = model.model_copy(update={"rate_limiter": None})
    object.__setattr__(view, "_stream", chunks)
    object.__setattr__(view, "_astream", achunks)
    return view


def _chunk(fields: dict[str, Any], answer: Answer, message: AIMessage, note: dict[str, Any]) -> AIMessageChunk:
    given: dict[str, Any] = {"content": "", **fields}
    if answer.ids:
        given |= {name: with_ids(given[name], answer.ids) for name in _WITH_IDS if name in given}
    metadata = {name: value for name, value in given.get("response_metadata", {}).items() if name != "dispatch"}
    if metadata or note:
        given["response_metadata"] = {**unspent(metadata), **note}
    if given.get("usage_metadata"):
        given["usage_metadata"] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    kwargs = given.get("additional_kwargs", {})
    if "parsed" in kwargs and "parsed" in message.additional_kwargs:
        given["additional_kwargs"] = {**kwargs, "parsed": message.additional_kwargs["parsed"]}
    return AIMessageChunk(**given)
