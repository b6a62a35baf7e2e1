"""What is asked of whom: the demand, the provider's quota and pace. Declared in the output of every run.

The article reports 8.5 % 429s, a mean of 3.8 s and a P99 of 12 s for 100 users of the bare program. `ARTICLE` was
chosen by the bare program alone, to come near that mean: the demand is 1.13 times the tokens a minute, and a call
takes 1 s on average when nothing is in its way. Retrying until there is an answer lets a queue grow for as long as
the trace lasts: means of 5.0 s in the open loop and 3.3 s with Locust, P99s of 28 and 18 s. A program that never
retries loses 17 % of its calls there, more than the article's: arrivals are as uneven as Poisson's. A prompt is a
question with a chapter of context, so that tokens run out long before requests do, as in the tiers of all providers.
The quota of a minute is counted over a sliding window of ten seconds, so that a trace of 80 s sees several windows.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.demo.provider import Quota


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """``rate`` is arrivals per second, ``latency`` scales the provider's times, ``think`` is in seconds, on average,
    ``tokens`` is what an answer costs the bare program, prompt included.

    ``repeats`` is the share of arrivals that ask what an earlier one has asked, ``verbatim`` the share of those in
    the words of the earlier one.
    """

    name: str
    quota: Quota
    latency: float
    rate: float
    arrivals: int
    repeats: float = 0.30
    verbatim: float = 0.0
    tokens: int = 865
    users: int = 100
    think: float = 10.0

    def __str__(self) -> str:
        quota = self.quota
        demand = self.rate * 60 * self.tokens / quota.tpm
        return (
            f"{self.arrivals} arrivals at {self.rate:g} a second of {self.tokens} tokens each ({demand:.2f} x the "
            f"tokens a minute), {self.repeats:.0%} repeats by meaning of which {self.verbatim:.0%} verbatim; the "
            f"provider allows {quota.rpm} requests and {quota.tpm:,} tokens a minute, counted over "
            f"{quota.window:g} s (sliding), and takes {self.latency:g} x its usual times; Locust: {self.users} users "
            f"who think for {self.think:g} s"
        )


ARTICLE = Regime(
    name="article",
    quota=Quota(rpm=1000, tpm=230_000, window=10.0),
    latency=1.5,
    rate=5.0,
    arrivals=400,
    think=18.7,
)
QUICK = Regime(
    name="quick",
    quota=Quota(rpm=3000, tpm=690_000, window=5.0),
    latency=0.2,
    rate=15.0,
    arrivals=200,
    think=6.5,
)
