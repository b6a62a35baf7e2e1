"""How many tokens a text will cost, learned from what similar texts did cost.

The size of a text in UTF-8 bytes, divided by four, is a fair first guess in every script (characters ÷ 4 is 58 % too
low on Chinese) and costs nanoseconds; a moving average per model of actual ÷ guess corrects it, and another of the
squared errors says how far to trust it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from dispatch_core.types import Cost, Usage

_BYTES_PER_TOKEN = 4.0
_FIRST_OUTPUT = 256.0
_STEP, _PLAIN = 0.1, 10
_LOWEST, _HIGHEST = 0.2, 5.0
_FIRST_SPREAD, _LEAST_SPREAD, _WORST_ERROR = 0.15, 0.01, 1.0


@dataclass(slots=True)
class _Average:
    """A plain mean of the first values, then a moving one: the first guess must not linger."""

    value: float
    seen: int = 0

    def add(self, value: float) -> None:
        seen = self.seen = self.seen + 1
        self.value += (_STEP if seen > _PLAIN else 1.0 / seen) * (value - self.value)


class TokenEstimator:
    """Estimates for any thread, learns from one at a time.

    ``default_output`` is the answer length assumed before any answer was seen, in tokens. ``count``, a tokenizer,
    replaces the estimate of prompts by its count; it runs in the caller's thread.
    """

    def __init__(self, *, default_output: float = _FIRST_OUTPUT, count: Callable[[str], int] | None = None) -> None:
        self._count = count
        self._ratios: defaultdict[str, _Average] = defaultdict(lambda: _Average(1.0))
        self._outputs: defaultdict[str, _Average] = defaultdict(lambda: _Average(default_output))
        self._errors: defaultdict[str, _Average] = defaultdict(lambda: _Average(_FIRST_SPREAD**2))

    def estimate(self, text: str, *, max_tokens: int | None, model: str) -> Cost:
        """Expect the prompt plus ``max_tokens``, which providers reserve; without it, a typical answer."""
        if self._count is None:
            weight = len(text.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN
            tokens = round(weight * self._ratios[model].value)
        else:
            weight, tokens = 0.0, self._count(text)
        output = max_tokens if max_tokens is not None else self._outputs[model].value
        return Cost(max(1, tokens), max(0, round(output)), model, weight, guess=max_tokens is None)

    def spread(self, model: str) -> float:
        """The typical relative error of an estimated prompt: root mean square of actual ÷ estimate − 1, 0.01 to 1.

        0.15 before anything was seen. One error counts as 1 at most: a single absurd usage is soon forgotten.
        """
        errors = self._errors.get(model)
        return max(_LEAST_SPREAD, _FIRST_SPREAD if errors is None else math.sqrt(errors.value))

    def typical_output(self, model: str) -> float:
        """The length of an answer to expect, in tokens."""
        return self._outputs[model].value

    def learn(self, cost: Cost, usage: Usage) -> None:
        """One caller at a time."""
        used, model = usage.input_tokens, cost.model
        if cost.weight >= 1 and used > 0:
            ratio = used / cost.weight
            self._ratios[model].add(_LOWEST if ratio < _LOWEST else min(ratio, _HIGHEST))
            if cost.input_tokens > 0:
                error = min(used / cost.input_tokens - 1, _WORST_ERROR)
                self._errors[model].add(error * error)
        made = usage.output_tokens
        if made > 0:
            self._outputs[model].add(made)
