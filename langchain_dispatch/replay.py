"""An answer from the cache as the chunks of a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar
from uuid import uuid4

from langchain_core.callbacks import CallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.utils.utils import LC_ID_PREFIX

from langchain_dispatch.answers import Answer, unspent, with_ids
from langchain_dispatch.observer import observer
from langchain_dispatch.pieces import chunks_of

M = TypeVar("M", bound=BaseChatModel)

_WITH_IDS = ("tool_call_chunks", "additional_kwargs", "content")


def replay(answer: Answer, size: int | None = None) -> Iterator[ChatGenerationChunk]:
    """Chunks of ``size`` characters, or as they once came. The first says that the answer is from the cache; tokens
    were spent for none."""
    for message in _messages(answer, size):
        yield ChatGenerationChunk(message=message)


def _messages(answer: Answer, size: int | None) -> Iterator[AIMessageChunk]:
    note = {"dispatch": dict(answer.note)}
    for fields in chunks_of(answer.pieces, answer.fields, size):
        yield _chunk(fields, answer, note)
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


def unheard(model: BaseChatModel, config: RunnableConfig | None) -> bool:
    """Does nobody but us listen to this call? Then nothing is lost if LangChain does not tell of it."""
    if model.output_version == "v1":
        return False
    given = ensure_config(config).get("callbacks")
    hearing = CallbackManager.configure(given, model.callbacks, model.verbose).handlers
    return all(handler is observer() for handler in hearing)


def told(answer: Answer, config: RunnableConfig | None, size: int | None) -> Iterator[AIMessageChunk]:
    """What LangChain makes of the replay for its reader."""
    run_id = (config or {}).get("run_id") or uuid4()
    id = f"{LC_ID_PREFIX}-{run_id}"
    message = None
    for message in _messages(answer, size):
        message.id = id
        yield message
    if message is not None and not message.chunk_position:
        yield AIMessageChunk(content="" if isinstance(message.content, str) else [], chunk_position="last", id=id)


async def atold(answer: Answer, config: RunnableConfig | None, size: int | None) -> AsyncIterator[AIMessageChunk]:
    for message in told(answer, config, size):
        yield message


def _chunk(fields: dict[str, Any], answer: Answer, note: dict[str, Any]) -> AIMessageChunk:
    given: dict[str, Any] = {"content": "", **fields}
    if answer.ids:
        given |= {name: with_ids(given[name], answer.ids) for name in _WITH_IDS if name in given}
    metadata = {name: value for name, value in given.get("response_metadata", {}).items() if name != "dispatch"}
    if metadata or note:
        given["response_metadata"] = {**unspent(metadata), **note}
    if given.get("usage_metadata"):
        given["usage_metadata"] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    kwargs, whole = given.get("additional_kwargs", {}), answer.fields.get("additional_kwargs", {})
    if "parsed" in kwargs and "parsed" in whole:
        given["additional_kwargs"] = {**kwargs, "parsed": whole["parsed"]}
    return AIMessageChunk(**given)
