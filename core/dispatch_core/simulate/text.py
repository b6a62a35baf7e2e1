"""How the simulator counts, cuts and paces text. Pure functions.

The counter is the simulator's own and deliberately not ``bytes / 4``, so that a client which estimates by
bytes is off by a realistic amount:

- a run of word characters counts one token per six characters, rounded up;
- a Chinese, Japanese or Korean character counts one;
- any other character that is not white space (punctuation, symbols) counts one;
- a conversation adds four tokens per message and three for the reply's start (see `request`).
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

PIECE_TOKENS = 4
FIRST_TOKEN_MEDIAN = 0.45
FIRST_TOKEN_SIGMA = 0.35
TOKENS_PER_SECOND = (60.0, 110.0)
EMBEDDING_MEDIAN = 0.12
EMBEDDING_TOKENS_PER_SECOND = 100_000.0

_CJK = r"\u3040-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]{{1,6}}|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Piece:
    """What one streamed event carries."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one answer comes: seconds to its first token, then tokens per second."""

    first: float
    rate: float

    def due(self, tokens: int) -> float:
        """Seconds after admission at which `tokens` tokens have been produced beyond the first moment."""
        return self.first + tokens / self.rate


def digest(text: str) -> str:
    """A short hash of `text` that is the same in every process (32 hexadecimal digits)."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def count(text: str) -> int:
    """Tokens in `text`."""
    return len(_TOKEN.findall(text))


def cut(text: str, tokens: int) -> str:
    """The longest prefix of `text` that has at most `tokens` tokens, without trailing white space if cut."""
    for number, match in enumerate(_TOKEN.finditer(text)):
        if number == tokens:
            return text[: match.start()].rstrip()
    return text


def split(text: str, size: int = PIECE_TOKENS) -> Iterator[Piece]:
    """`text` in pieces of `size` tokens; joined they are `text`, and their counts add up to its count."""
    start = 0
    ends = [match.end() for match in _TOKEN.finditer(text)]
    for index in range(size, len(ends), size):
        yield Piece(text[start : ends[index - 1]], size)
        start = ends[index - 1]
    if text:
        yield Piece(text[start:], (len(ends) - 1) % size + 1 if ends else 0)


def draw_pace(prompt: str, *, seed: int, scale: float) -> Pace:
    """The pace of the answer to `prompt`: always the same for one prompt, seed and scale.

    Time to the first token is lognormal (median 0.45 s, sigma 0.35), the rate uniform between 60 and 110
    tokens per second. ``scale`` stretches all times; 0 answers at once.
    """
    if scale == 0:
        return Pace(0.0, math.inf)
    dice = random.Random(f"{seed}:{digest(prompt)}")
    first = dice.lognormvariate(math.log(FIRST_TOKEN_MEDIAN), FIRST_TOKEN_SIGMA)
    return Pace(first * scale, dice.uniform(*TOKENS_PER_SECOND) / scale)


def draw_embedding_time(prompt: str, tokens: int, *, seed: int, scale: float) -> float:
    """Seconds that embedding takes: always the same for one prompt, seed and scale.

    Lognormal (median 0.12 s, sigma 0.35) for the way there and back, and 10 µs for each token.
    """
    if scale == 0:
        return 0.0
    dice = random.Random(f"{seed}:embedding:{digest(prompt)}")
    travel = dice.lognormvariate(math.log(EMBEDDING_MEDIAN), FIRST_TOKEN_SIGMA)
    return (travel + tokens / EMBEDDING_TOKENS_PER_SECOND) * scale
