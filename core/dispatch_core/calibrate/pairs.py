"""Labelled pairs, judged one by one: would the second question be answered with what is stored for the first?"""

from __future__ import annotations

import numpy as np

from dispatch_core.calibrate.log import Pairs
from dispatch_core.calibrate.progress import Advance
from dispatch_core.calibrate.replay import Outcome, numbered
from dispatch_core.calibrate.vectors import Embedded
from dispatch_core.policy import Policy
from dispatch_core.types import Entry, Match, Usage


def questions(pairs: Pairs) -> list[str]:
    """The different questions, in the order in which `judge` wants their vectors."""
    return numbered([*pairs.one, *pairs.other])[1]


def judge(pairs: Pairs, embedded: Embedded, policy: Policy, advance: Advance = lambda more: None) -> Outcome:
    """Each pair on its own, as if nothing else were stored. ``embedded`` is of `questions`."""
    size = len(pairs.one)
    numbers, _ = numbered([*pairs.one, *pairs.other])
    served = np.full(size, -1, dtype=np.int32)
    for pair in range(size):
        ends = numbers[pair], numbers[size + pair]
        if embedded.readable[list(ends)].all():
            score = float(np.clip(embedded.vectors[ends[0]] @ embedded.vectors[ends[1]], -1.0, 1.0))
            stored = Match(Entry(str(pair), "", "", pairs.one[pair], b"", Usage(), 0.0), score)
            hit = policy.decide(pairs.other[pair], [stored]).hit
            served[pair] = -1 if hit is None else pair
    advance(size)
    wrong = (served >= 0) & ~np.array(pairs.same, dtype=np.bool_)
    return Outcome(served, np.zeros(size, dtype=np.bool_), wrong)
