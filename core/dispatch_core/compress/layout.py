"""The texts of a conversation by what they are: context, question, anything else. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from dispatch_core.compress.frames import TAGGED, Frame, Segment, segments_of
from dispatch_core.limit.count import TokenEstimator
from dispatch_core.messages import Count, Kind, Message, Part, Role

_NOTHING_LEFT = "…"
_estimator = TokenEstimator()


def estimated(text: str) -> int:
    """A text's tokens as a limiter estimates them before it has learned: UTF-8 bytes ÷ 4, in every script."""
    return _estimator.estimate(text, max_tokens=0, model="").input_tokens if text else 0


def tokens_of(messages: Sequence[Message], count: Count) -> int:
    """The tokens of all messages together."""
    return sum(message.tokens + sum(part_tokens(part, count) for part in message.parts) for message in messages)


def part_tokens(part: Part, count: Count) -> int:
    return part.tokens if part.kind == "other" else count(part.text)


@dataclass(frozen=True, slots=True)
class Stretch:
    """One segment of one part: where it is, what it is, and its text."""

    message: int
    part: int
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Layout:
    """All stretches of a conversation in order; those of a part are its text."""

    messages: Sequence[Message]
    stretches: Sequence[Stretch]

    def contexts(self) -> list[int]:
        """The numbers of the stretches that hold context."""
        return [number for number, stretch in enumerate(self.stretches) if stretch.kind == "context"]

    def question(self, *, before: int = 0) -> str:
        """What the user asks last, or so many questions ``before``: the question of the frame or part, else all he
        says that is no context."""
        for at in range(len(self.messages) - 1, -1, -1):
            if self.messages[at].role == "user":
                said = [one for one in self.stretches if one.message == at and one.kind != "context"]
                asked = [one.text for one in said if one.kind == "question"] or [one.text for one in said]
                text = "\n".join(asked).strip()
                if text and not before:
                    return text
                before -= bool(text)
        return ""

    def filled(self, texts: Mapping[int, str]) -> tuple[Message, ...]:
        """The messages with these stretches replaced; a message in which nothing changed is the same object."""
        changed = {number for number, text in texts.items() if text != self.stretches[number].text}
        parts: dict[tuple[int, int], list[str]] = {}
        touched = {(self.stretches[number].message, self.stretches[number].part) for number in changed}
        for number, stretch in enumerate(self.stretches):
            place = stretch.message, stretch.part
            if place in touched:
                parts.setdefault(place, []).append(texts[number] if number in changed else stretch.text)
        made = list(self.messages)
        for (message, part), pieces in parts.items():
            held = list(made[message].parts)
            held[part] = replace(held[part], text="".join(pieces))
            if not any(one.kind == "other" or one.text.strip() for one in held):
                # A provider takes no message without anything in it.
                held[part] = replace(held[part], text=_NOTHING_LEFT)
            made[message] = replace(made[message], parts=tuple(held))
        return tuple(made)


def laid_out(
    messages: Sequence[Message],
    frames: Sequence[Frame],
    roles: Collection[Role] = (),
    tagged: re.Pattern[str] = TAGGED,
) -> Layout:
    """Find the context of the messages; all text of the ``roles`` counts as context."""
    stretches: list[Stretch] = []
    for number, message in enumerate(messages):
        for at, part in enumerate(message.parts):
            if part.kind != "other":
                found = _segments(message, part, frames, roles, tagged)
                stretches += [Stretch(number, at, kind, text) for kind, text in found]
    return Layout(messages, stretches)


def _segments(
    message: Message, part: Part, frames: Sequence[Frame], roles: Collection[Role], tagged: re.Pattern[str]
) -> list[Segment]:
    if part.kind != "text":
        return [(part.kind, part.text)]
    if message.role in roles:
        return [("context", part.text)]
    # What a model said is nobody's template.
    return segments_of(part.text, frames, tagged) if message.role != "assistant" else [("text", part.text)]
