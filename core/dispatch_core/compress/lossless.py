"""`Lossless`: the same facts in fewer tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dispatch_core.compress.frames import TAGS, Frame, frames_of, tags_of
from dispatch_core.compress.json_text import minified
from dispatch_core.compress.known import FRAMES
from dispatch_core.compress.layout import Layout, Stretch, estimated, laid_out, tokens_of
from dispatch_core.compress.repeats import without_repeats
from dispatch_core.compress.settings import check_roles
from dispatch_core.compress.spaces import narrowed
from dispatch_core.compress.units import spans
from dispatch_core.messages import Compressed, Count, Message, Role

_LEAST_CHUNK = 80
"""Characters from which a part of the context that is another one is a chunk that was retrieved twice."""


class Lossless:
    """Takes out white space that says nothing, the white space in JSON, and passages that a context holds twice.

    White space and JSON are seen to in context (see `Extractive` for what that is) and in all text of the ``roles``;
    repetitions in context and in results of tools, within one message. A passage that stands elsewhere above leaves a
    mark with its first words. Fenced and indented code, columns, indentation and the question of a frame stay as they
    are, and so do the numbers, strings and names of JSON to the letter. Twice compressed is once compressed. The
    budget plays no part: what costs nothing is always done.

    ``count`` counts tokens, estimated by default. Raises `ConfigError` for settings that cannot work.
    """

    def __init__(
        self,
        *,
        frames: Sequence[Frame | str] = FRAMES,
        tags: Collection[str] = TAGS,
        roles: Collection[Role] = ("user", "tool"),
        count: Count | None = None,
    ) -> None:
        self._frames = frames_of(frames)
        self._tagged = tags_of(tags)
        self._roles = check_roles(roles)
        self._count = count or estimated

    def compress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        """See `Compressor`."""
        layout = laid_out(messages, self._frames, tagged=self._tagged)
        before = tokens_of(messages, self._count)
        texts: dict[int, str] = {}
        dropped: list[str] = []
        seen: set[tuple[int, str]] = set()
        for number, stretch in enumerate(layout.stretches):
            text = self._tidied(layout, stretch)
            if self._retrieved(layout, stretch):
                text, repeated = _once(text, stretch, seen)
                dropped += repeated
            texts[number] = text
        left = layout.filled(texts)
        return Compressed(left, before, tokens_of(left, self._count), tuple(dropped))

    async def acompress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        return self.compress(messages, budget)

    def _tidied(self, layout: Layout, stretch: Stretch) -> str:
        ours = stretch.kind == "context" or layout.messages[stretch.message].role in self._roles
        return tidied(stretch.text) if ours and stretch.kind != "question" else stretch.text

    def _retrieved(self, layout: Layout, stretch: Stretch) -> bool:
        tool = layout.messages[stretch.message].role == "tool" and "tool" in self._roles
        return stretch.kind == "context" or (tool and stretch.kind == "text")


def tidied(text: str) -> str:
    """The text without white space that says nothing: its code as it is, its JSON on one line each."""
    kept: list[str] = []
    done = 0
    for span in spans(text):
        if span.kind in ("code", "json"):
            block = text[span.start : span.end]
            kept += [narrowed(text[done : span.start]), minified(block) if span.kind == "json" else block]
            done = span.end
    return "".join([*kept, narrowed(text[done:])])


def _once(text: str, stretch: Stretch, seen: set[tuple[int, str]]) -> tuple[str, tuple[str, ...]]:
    """Without its repetitions; empty if the message holds the same in another part."""
    whole = stretch.message, text.strip()
    if whole in seen and len(whole[1]) >= _LEAST_CHUNK:
        return "", (whole[1],)
    seen.add(whole)
    return without_repeats(text)
