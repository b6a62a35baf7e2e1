"""`LLMLinguaCompressor`: the prose of the context shortened word by word, by a small language model."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from dispatch_core.compress.frames import TAGS, Frame, frames_of, tags_of
from dispatch_core.compress.known import FRAMES
from dispatch_core.compress.layout import Layout, estimated, laid_out, tokens_of
from dispatch_core.compress.settings import check_budget, check_roles, check_share
from dispatch_core.compress.units import spans
from dispatch_core.errors import CompressionError, ConfigError, MissingExtra
from dispatch_core.messages import Compressed, Count, Message, Role

MODEL = "microsoft/llmlingua-2-bert-base-multilingual-cased-meetingbank"
_FORCED = ["\n", ".", "!", "?", ",", "。", "！", "？"]
_LEAST_RATE = 0.05


@runtime_checkable
class PromptCompressor(Protocol):
    """What is asked of ``llmlingua.PromptCompressor``."""

    def compress_prompt(self, context: list[str], **settings: Any) -> dict[str, Any]: ...


class LLMLinguaCompressor:
    """LLMLingua-2 (Pan et al., 2024) on the prose of the context; what context is says `Extractive`.

    Unlike sentences that are kept or left out, these lose words: answers may quote what nobody wrote. Digits stay;
    code, JSON, tables and headings are not shown to the model, nor are system prompt, question and other turns.

    ``model`` is a name of the hub, a path, or a ``llmlingua.PromptCompressor`` of yours; one that is named is loaded
    onto ``device`` at the first call. The aim is the budget of the call, or ``share`` of the tokens. The model runs
    in one thread at a time, off the event loop. Raises `ConfigError` for settings that cannot work, at the first call
    `MissingExtra` without llmlingua, and `CompressionError` if the model fails.
    """

    def __init__(
        self,
        model: str | PromptCompressor = MODEL,
        *,
        share: float = 0.5,
        device: str = "cpu",
        frames: Sequence[Frame | str] = FRAMES,
        tags: Collection[str] = TAGS,
        roles: Collection[Role] = (),
        count: Count | None = None,
    ) -> None:
        if not isinstance(model, str | PromptCompressor) or isinstance(model, type):
            raise ConfigError(f"model is a name or has compress_prompt, got {type(model).__name__}")
        self._given = model
        self._share = check_share(share)
        self._device = device
        self._frames = frames_of(frames)
        self._tagged = tags_of(tags)
        self._roles = check_roles(roles)
        self._count = count or estimated
        self._one = threading.Lock()

    def compress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        """See `Compressor`. What was left out is not told: it is words, not texts."""
        before = tokens_of(messages, self._count)
        aim = check_budget(budget) or round(before * self._share)
        layout = laid_out(messages, self._frames, self._roles, self._tagged)
        prose = {number: _pieces(layout.stretches[number].text) for number in layout.contexts()}
        size = sum(self._count(text) for pieces in prose.values() for text, ours in pieces if ours)
        if before <= aim or not size:
            return Compressed(tuple(messages), before, before)
        rate = max(_LEAST_RATE, 1 - (before - aim) / size)
        left = layout.filled(self._shortened(layout, prose, rate))
        return Compressed(left, before, tokens_of(left, self._count))

    async def acompress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        return await asyncio.to_thread(self.compress, messages, budget)

    def _shortened(self, layout: Layout, prose: dict[int, list[tuple[str, bool]]], rate: float) -> dict[int, str]:
        question = layout.question()
        with self._one:
            return {
                number: "".join(self._shorter(text, question, rate) if ours else text for text, ours in pieces)
                for number, pieces in prose.items()
            }

    def _shorter(self, text: str, question: str, rate: float) -> str:
        settings = {"force_tokens": _FORCED, "force_reserve_digit": True, "drop_consecutive": True}
        model = self._model
        try:
            found = model.compress_prompt([text], question=question, concate_question=False, rate=rate, **settings)
            shorter = str(found["compressed_prompt"]).strip()
        except Exception as error:
            raise CompressionError(f"LLMLingua could not compress {len(text)} characters") from error
        return shorter if shorter and self._count(shorter) < self._count(text) else text

    @cached_property
    def _model(self) -> PromptCompressor:
        if not isinstance(self._given, str):
            return self._given
        if importlib.util.find_spec("llmlingua") is None:
            raise MissingExtra("LLMLinguaCompressor", "compress")
        from llmlingua import PromptCompressor as Loaded

        try:
            loaded: PromptCompressor = Loaded(self._given, device_map=self._device, use_llmlingua2=True)
        except Exception as error:
            raise CompressionError(f"the model {self._given!r} could not be loaded") from error
        return loaded


def _pieces(text: str) -> list[tuple[str, bool]]:
    """The text in pieces, of each whether it is prose; white space is not."""
    pieces: list[tuple[str, bool]] = []
    done = 0
    for span in spans(text):
        if span.kind in ("prose", "item"):
            body = text[span.start : span.end]
            pieces += [(text[done : span.start], False), (body, True)]
            done = span.end
    return [*pieces, (text[done:], False)]
