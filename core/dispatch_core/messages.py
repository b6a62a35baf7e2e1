"""A conversation as compressors see it: plain frozen values, which the fronts make of their own and back.

A part holds the text of one content block, and ``source`` the block itself; what is no text (a picture, a tool call)
is a part of the kind ``"other"`` and stays as it is. Compressors change texts and leave messages out; they never add,
reorder or merge parts, so that a front finds its own objects again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
Kind: TypeAlias = Literal["text", "context", "question", "other"]
Count: TypeAlias = Callable[[str], int]
"""A text's tokens."""


@dataclass(frozen=True, slots=True)
class Part:
    """One content block.

    ``kind`` says what the text is, if somebody knows: retrieved ``"context"``, the ``"question"``, or only
    ``"text"``, in which context may still be recognised. ``"other"`` is no text; ``tokens`` is what it counts.
    """

    text: str = ""
    kind: Kind = "text"
    tokens: int = 0
    source: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. ``calls`` are the ids of the tool calls it makes, ``answers`` those whose results it brings.

    ``tokens`` counts what is in no part, such as the arguments of tool calls. ``source`` is the front's own message.
    """

    role: Role
    parts: tuple[Part, ...] = ()
    calls: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    tokens: int = 0
    source: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, role: Role, text: str, kind: Kind = "text") -> Message:
        """A message of one text."""
        return cls(role, (Part(text, kind),))

    @property
    def text(self) -> str:
        """The texts of its parts, a line break between two."""
        return "\n".join(part.text for part in self.parts if part.kind != "other")


@dataclass(frozen=True, slots=True)
class Compressed:
    """What is left of a conversation, its size before and after in tokens, and the texts that were left out, in the
    order in which they stood."""

    messages: tuple[Message, ...]
    tokens_before: int
    tokens_after: int
    dropped: tuple[str, ...] = field(default=(), repr=False)

    @property
    def saved(self) -> float:
        """The share of the tokens that was saved, from 0 to 1."""
        return 1 - self.tokens_after / self.tokens_before if self.tokens_before else 0.0
