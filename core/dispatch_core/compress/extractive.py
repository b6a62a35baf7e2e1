"""`Extractive`: of the retrieved context, the sentences that matter for the question."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.compress.frames import TAGS, Frame, frames_of, tags_of
from dispatch_core.compress.known import FRAMES
from dispatch_core.compress.layout import Layout, estimated, laid_out, tokens_of
from dispatch_core.compress.relevance import Weights, chosen, relevance
from dispatch_core.compress.settings import check_budget, check_roles, check_share
from dispatch_core.compress.units import Unit, joined, units_of
from dispatch_core.errors import ConfigError
from dispatch_core.messages import Compressed, Count, Message, Role
from dispatch_core.ports import Embedder

_HEAD = 2000
"""Characters of a text that are embedded; more does not fit the window of a small encoder."""


class Extractive:
    """Keeps the sentences of the context that matter for the question, as they are and in their order.

    Context is what a frame or tags show to be retrieved (`dispatch_core.compress.FRAMES`: the prompts of
    LangChain and LlamaIndex; ``tags``: ``<context>``, ``<documents>``, ``<document>``), parts of the kind
    ``"context"``, and all text of ``roles``, such as ``{"tool"}`` for agents whose tools retrieve prose. Nothing
    else is changed: not the system prompt around its context, not the question, no other turn. Without a question
    or a context all stays as it is.

    Sentences are ranked by their cosine to the question, by the rare words they share with it, with the question
    before it and with the best sentences, and by their headings and neighbours, and taken by maximal marginal
    relevance. A heading stays with what is kept below it, the head of a table with its rows. Code, formulas, JSON and
    records of names and values are kept whole or not at all; numbers, links and citations are never cut.

    The aim is the budget of the call, or ``share`` of the tokens (0 to 1); a prompt within it is not touched, nor is
    one of fewer than ``least`` tokens. The best sentence stays even if there is no room for it. ``embedder`` is that
    of the cache: it is asked once, for the question and all sentences; a `MemoEmbedder` asks only for those that are
    new. ``count`` counts tokens, estimated by default. Raises `ConfigError` for settings that cannot work, and
    `EmbeddingError` when the embedder fails.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        share: float = 0.5,
        least: int = 0,
        frames: Sequence[Frame | str] = FRAMES,
        tags: Collection[str] = TAGS,
        roles: Collection[Role] = (),
        weights: Weights = Weights(),  # noqa: B008  a frozen value
        count: Count | None = None,
    ) -> None:
        if not isinstance(embedder, Embedder):
            raise ConfigError(f"embedder has embed and aembed, got {type(embedder).__name__}")
        self._embedder = embedder
        self._share = check_share(share)
        self._least = least
        self._frames = frames_of(frames)
        self._tagged = tags_of(tags)
        self._roles = check_roles(roles)
        self._weights = weights
        self._count = count or estimated

    def compress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        """See `Compressor`. Embeds in the caller's thread."""
        return run(self._compress(messages, budget))

    async def acompress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        return await arun(self._compress(messages, budget))

    def _compress(self, messages: Sequence[Message], budget: int | None) -> Flow[Compressed]:
        before = tokens_of(messages, self._count)
        aim = check_budget(budget) or round(before * self._share)
        untouched = Compressed(tuple(messages), before, before)
        if before <= aim or before < self._least:
            return untouched
        layout = laid_out(messages, self._frames, self._roles, self._tagged)
        question = layout.question()
        choice = Choice.of(layout, self._count)
        if not question or not choice.units:
            return untouched
        texts = list(dict.fromkeys([question[:_HEAD], *(unit.text[:_HEAD] for unit in choice.units)]))
        vectors = yield from step(self._embedder.embed, self._embedder.aembed, texts)
        rows = {text: row for row, text in enumerate(texts)}
        held = vectors[np.array([rows[unit.text[:_HEAD]] for unit in choice.units])]
        earlier = layout.question(before=1)
        scores = relevance(question, choice.units, vectors[0], held, self._weights, earlier=earlier)
        room = aim - (before - choice.cost)
        kept = chosen(scores, held, choice.units, choice.costs, room=room, diversity=self._weights.diversity)
        return self._within(layout, choice, kept, before, aim)

    def _within(self, layout: Layout, choice: Choice, kept: list[list[int]], before: int, aim: int) -> Compressed:
        """Costs of single sentences do not add up to those of a text: the last chosen go until it fits."""
        while True:
            messages = layout.filled(choice.texts(kept))
            after = tokens_of(messages, self._count)
            if after <= aim or len(kept) <= 1:
                return Compressed(messages, before, after, choice.left_out(kept))
            over = after - aim
            while over > 0 and len(kept) > 1:
                over -= sum(choice.costs[number] for number in kept.pop())


@dataclass(frozen=True, slots=True)
class Choice:
    """The units of all contexts in one row: ``places`` says of each stretch where its units begin and end."""

    units: Sequence[Unit]
    costs: Sequence[int]
    places: Mapping[int, tuple[int, int, str]]

    @classmethod
    def of(cls, layout: Layout, count: Count) -> Choice:
        units: list[Unit] = []
        places: dict[int, tuple[int, int, str]] = {}
        for number in layout.contexts():
            before, found = units_of(layout.stretches[number].text)
            first = len(units)
            units += _moved(found, first, units[-1].block + 1) if units else found
            places[number] = first, len(units), before
        return cls(units, [count(unit.text + unit.gap) for unit in units], places)

    @property
    def cost(self) -> int:
        """The tokens of all that may be left out."""
        return sum(cost for unit, cost in zip(self.units, self.costs, strict=True) if not unit.fixed)

    def texts(self, kept: Sequence[Sequence[int]]) -> dict[int, str]:
        """The text of each stretch with the units that are kept."""
        stays = self._stays(kept)
        return {
            number: joined(before, self.units[first:last], stays[first:last])
            for number, (first, last, before) in self.places.items()
        }

    def left_out(self, kept: Sequence[Sequence[int]]) -> tuple[str, ...]:
        return tuple(unit.text for unit, stays in zip(self.units, self._stays(kept), strict=True) if not stays)

    def _stays(self, kept: Sequence[Sequence[int]]) -> list[bool]:
        chosen = {number for group in kept for number in group}
        return [unit.fixed or number in chosen for number, unit in enumerate(self.units)]


def _moved(units: Sequence[Unit], first: int, block: int) -> list[Unit]:
    """Units whose numbers begin with ``first``, and those of their paragraphs with ``block``."""
    return [
        replace(unit, parents=tuple(first + one for one in unit.parents), block=block + unit.block) for unit in units
    ]
