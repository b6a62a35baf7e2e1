"""What is asked of the provider: the requests, the scenarios, and the numbers they are built from.

Prompts are lognormal (median 300 tokens, σ 1.2, cut to 50–10,000: mean about 590, P99 about 4,900), answers lognormal
below ``max_tokens`` 1024 (median 400, σ 0.5: mean about 440). An answer takes a time to first token of 0.35 s
(lognormal) plus 400 tokens a second: 1.45 s on average. 100 clients that never think ask for 3.5 times the 1,174,000
tokens a minute; the 1,540 requests a minute are 1.36 times what those tokens allow, so the tokens bind. What is free
in that, the length and the speed of answers, was chosen so that an ideal server's queue (the oracle) gives a P99 of
7 s.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from benchmarks.limiter.styles import STYLES, Style

RPM = 1_540
TPM = 1_174_000
MAX_TOKENS = 1_024
BIG_SHARE = 0.18

_PROMPT_MEDIAN, _PROMPT_SIGMA, _PROMPT_RANGE = 300.0, 1.2, (50, 10_000)
_OUTPUT_MEDIAN, _OUTPUT_SIGMA = 400.0, 0.5
_FIRST_TOKEN, _FIRST_TOKEN_SIGMA, _TOKENS_PER_SECOND = 0.35, 0.4, 400.0
# English prose has 4.4 bytes a token: the estimate of utf-8 bytes ÷ 4 starts 10 % too high, until it is corrected.
_BYTES_PER_TOKEN = 4.4
_FILLER = "tokens " * 400_000


@dataclass(frozen=True, slots=True)
class Request:
    """One call. Clients know ``text`` and ``max_tokens``; the real numbers are the provider's and the tokenizer's."""

    client: int
    prompt_tokens: int
    output_tokens: int
    size: int
    service: float
    max_tokens: int = MAX_TOKENS

    @property
    def text(self) -> str:
        return _FILLER[: self.size]

    @property
    def estimate(self) -> int:
        """What a client without a tokenizer reckons: utf-8 bytes ÷ 4, and all of ``max_tokens``."""
        return self.size // 4 + self.max_tokens

    @property
    def reserved(self) -> int:
        return self.prompt_tokens + self.max_tokens

    @property
    def actual(self) -> int:
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One world to measure limiters in. Seconds, tokens, and shares of the quota.

    ``think`` is the mean pause of a closed-loop client; ``open_rate`` replaces the clients by Poisson arrivals at
    that multiple of the token quota. ``configured`` is the limit that the limiter is told, ÷ the real one;
    ``foreign`` the share of the token quota that another tenant asks for; ``noise`` is σ of the logarithm of the text
    size per token. ``big_share`` of the calls have a prompt of 18 % of the minute; ``big`` is the reservation from
    which a call counts as big. The first ``warmup`` seconds are not measured: a bucket's saved-up minute is spent
    then, and whoever learns does so.
    """

    name: str
    title: str
    styles: tuple[Style, ...] = STYLES
    limiters: tuple[str, ...] | None = None
    clients: int = 100
    think: float = 0.0
    open_rate: float | None = None
    timeout: float | None = None
    configured: float = 1.0
    foreign: float = 0.0
    noise: float = 0.10
    big_share: float = 0.0
    big: int = 5_000
    rpm: int = RPM
    tpm: int = TPM
    warmup: float = 120.0
    measured: float = 600.0


_COMPARED = ("ours", "backoff", "article", "langchain", "llama-index", "oracle")

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(name="closed", title="100 closed-loop clients, demand 3.5 × the quota"),
    Scenario(
        name="article",
        title="the article's regime: 100 users, demand 1.2 × the quota",
        styles=("sliding",),
        limiters=_COMPARED,
        think=2.9,
    ),
    Scenario(
        name="wrong-limit",
        title="the limit configured twice too high; ten seconds to learn",
        limiters=("ours",),
        configured=2.0,
        warmup=10.0,
    ),
    Scenario(
        name="foreign",
        title="another tenant asks for 30 % of the quota; four minutes to learn",
        limiters=("ours", "oracle"),
        foreign=0.3,
        warmup=240.0,
    ),
    Scenario(
        name="open",
        title="open loop at 1.5 × the quota, refused when the turn is more than 2 s away",
        limiters=("ours",),
        open_rate=1.5,
        timeout=2.0,
    ),
    Scenario(
        name="big",
        title="2 calls in 1,000 with a prompt of 18 % of the minute",
        limiters=("ours", "oracle"),
        big_share=0.002,
        big=int(BIG_SHARE * TPM),
    ),
    Scenario(
        name="noise",
        title="estimates with σ 15 % noise",
        styles=("sliding", "second"),
        limiters=("ours",),
        noise=0.15,
    ),
)


def quick(scenario: Scenario) -> Scenario:
    """The same world, measured for one minute."""
    return replace(scenario, measured=60.0)


def requests(scenario: Scenario, seed: int, client: int) -> Iterator[Request]:
    """The endless requests of one client: the same for every limiter and every style."""
    rng = random.Random(f"{seed}/{client}")
    while True:
        yield _draw(scenario, rng, client)


def _draw(scenario: Scenario, rng: random.Random, client: int) -> Request:
    low, high = _PROMPT_RANGE
    prompt = round(min(high, max(low, rng.lognormvariate(math.log(_PROMPT_MEDIAN), _PROMPT_SIGMA))))
    output = MAX_TOKENS + 1
    while output > MAX_TOKENS:
        output = max(1, round(rng.lognormvariate(math.log(_OUTPUT_MEDIAN), _OUTPUT_SIGMA)))
    first = rng.lognormvariate(math.log(_FIRST_TOKEN), _FIRST_TOKEN_SIGMA)
    noise = math.exp(rng.gauss(0.0, 1.0) * scenario.noise)
    if rng.random() < scenario.big_share:
        prompt = round(BIG_SHARE * scenario.tpm)
    size = max(1, min(len(_FILLER), round(prompt * _BYTES_PER_TOKEN * noise)))
    return Request(client, prompt, output, size, first + output / _TOKENS_PER_SECOND)


@dataclass(frozen=True, slots=True)
class Means:
    """Averages over many requests: tokens really used, tokens reserved, seconds of service."""

    actual: float
    reserved: float
    service: float


@cache
def means(scenario: Scenario, count: int = 20_000) -> Means:
    stream = requests(scenario, 0, -1)
    drawn = [next(stream) for _ in range(count)]
    return Means(
        sum(r.actual for r in drawn) / count,
        sum(r.reserved for r in drawn) / count,
        sum(r.service for r in drawn) / count,
    )
