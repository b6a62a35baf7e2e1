"""How sure is a share? Clopper–Pearson, exact for any number of trials; pure and without SciPy.

Clopper and Pearson (1934): the shares that an exact binomial test does not reject. The binomial tail is an incomplete
beta function, a continued fraction of about ``sqrt(trials)`` terms at worst: a million trials take a millisecond.
"""

from __future__ import annotations

import math

from dispatch_core.errors import ConfigError

_TINY = 1e-300
_PRECISE = 1e-14
_NEAR = 1e-7
"""After a step of Newton that is relatively so short, the error is its square."""
_STEPS = 100


def clopper_pearson(events: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided interval of the share behind so many events in so many trials. (0, 1) without trials.

    >>> low, high = clopper_pearson(20, 2_000)
    >>> f"{low:.2%} to {high:.2%}"
    '0.61% to 1.54%'
    """
    one_side = (1 + confidence) / 2
    low = 1 - upper_bound(trials - events, trials, one_side) if events else 0.0
    return low, upper_bound(events, trials, one_side)


def upper_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """The share that is exceeded with probability ``1 - confidence`` at most. One-sided; 1 without trials.

    Raises `ConfigError` for more events than trials and for a confidence outside (0, 1).

    >>> f"{upper_bound(0, 300):.2%}"
    '0.99%'
    """
    if not 0 <= events <= trials:
        raise ConfigError(f"events are from 0 to the number of trials, got {events} of {trials}")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is a probability in (0, 1), got {confidence}")
    if events == trials:
        return 1.0
    if events == 0:
        return -math.expm1(math.log1p(-confidence) / trials)
    low, high = events / trials, 1.0
    # About where a normal distribution would end; from there Newton's method needs a few steps.
    spread = math.sqrt(-2 * math.log1p(-confidence) * (events + 1)) / trials
    share = min(low + spread, (low + high) / 2)
    for _ in range(_STEPS):
        off = at_most(events, trials, share) - (1 - confidence)
        low, high = (share, high) if off > 0 else (low, share)
        slope = _density(events + 1, trials - events, share)
        step = off / slope if slope else math.inf
        if not low < share + step < high:
            share = (low + high) / 2
            continue
        share += step
        if abs(step) <= _NEAR * min(share, 1 - share):
            break
    return share


def at_most(events: int, trials: int, share: float) -> float:
    """The probability of at most so many events, where each trial is one with probability ``share``."""
    if events < 0:
        return 0.0
    if share <= 0.0 or events >= trials:
        return 1.0
    if share >= 1.0:
        return 0.0
    a, b = events + 1, trials - events
    # The fraction converges on the side of the mean on which the tail is.
    if share * (trials + 3) < a + 1:
        return 1.0 - _density(a, b, share) * share * (1 - share) / a * _fraction(a, b, share)
    return _density(a, b, share) * share * (1 - share) / b * _fraction(b, a, 1 - share)


def _density(a: int, b: int, share: float) -> float:
    """Of the beta distribution."""
    log = (a - 1) * math.log(share) + (b - 1) * math.log1p(-share)
    return math.exp(log + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))


def _fraction(a: int, b: int, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    c = 1.0
    d = 1.0 / _off_zero(1.0 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 20 + 10 * math.isqrt(a + b)):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _off_zero(1.0 + term * d)
            c = _off_zero(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < _PRECISE:
            break
    return value


def _off_zero(number: float) -> float:
    return number if abs(number) > _TINY else _TINY
