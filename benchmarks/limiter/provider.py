"""The simulated provider: a network, a quota that says 429, and the time an answer takes. And the oracle.

Both take a `Request` and return a `Response` with the headers of OpenAI's API: ``x-ratelimit-*`` as they stood when
the request arrived, ``retry-after`` and ``retry-after-ms`` on a 429.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from benchmarks.limiter.workload import Request
from dispatch_core import Usage
from dispatch_core.simulate.quota import Admission, Quota, Rejection
from dispatch_core.simulate.reply import limit_headers

_JITTER_MEDIAN, _JITTER_SIGMA = 0.030, 0.5


@dataclass(frozen=True, slots=True)
class Response:
    """``decided`` is the instant at which the provider let the request in or refused it: for the measurement."""

    status: int
    decided: float
    headers: Mapping[str, str]
    usage: Usage | None = None


Send = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class Tally:
    """What the provider saw during the measured span, by the instant at which it decided."""

    begin: float
    end: float
    attempts: int = 0
    throttled: int = 0
    tokens: int = 0
    foreign_tokens: int = 0

    def rejected(self, at: float, foreign: bool) -> None:
        if self.begin <= at < self.end and not foreign:
            self.attempts += 1
            self.throttled += 1

    def admitted(self, at: float, tokens: int, foreign: bool) -> None:
        if not self.begin <= at < self.end:
            return
        if foreign:
            self.foreign_tokens += tokens
        else:
            self.attempts += 1
            self.tokens += tokens


class Provider:
    """Charges on arrival, answers after the time that the request says, then reconciles the charge."""

    def __init__(self, quota: Quota, tally: Tally, *, seed: int, clock: Callable[[], float]) -> None:
        self._quota = quota
        self._tally = tally
        self._rng = random.Random(f"network/{seed}")
        self._clock = clock

    async def send(self, request: Request, *, foreign: bool = False) -> Response:
        await self._travel()
        verdict = await self._decide(request)
        now = self._clock()
        headers = limit_headers(self._quota.levels(now))
        if isinstance(verdict, Rejection):
            self._tally.rejected(now, foreign)
            await self._travel()
            return Response(429, now, headers | _come_back(verdict))
        self._tally.admitted(now, request.actual, foreign)
        await asyncio.sleep(request.service)
        self._quota.settle(verdict, request.actual, self._clock())
        self._freed()
        await self._travel()
        return Response(200, now, headers, Usage(request.prompt_tokens, request.output_tokens))

    async def _decide(self, request: Request) -> Admission | Rejection:
        return self._quota.admit(request.reserved, self._clock())

    def _freed(self) -> None:
        """A charge was reconciled: there may be room now."""

    async def _travel(self) -> None:
        await asyncio.sleep(_JITTER_MEDIAN * math.exp(self._rng.gauss(0.0, _JITTER_SIGMA)))


class Oracle(Provider):
    """A provider that never rejects: whoever does not fit waits inside, first come, first served.

    No limiter outside can know as much, so none should do much better.
    """

    def __init__(self, quota: Quota, tally: Tally, *, seed: int, clock: Callable[[], float]) -> None:
        super().__init__(quota, tally, seed=seed, clock=clock)
        self._line: deque[tuple[Request, asyncio.Future[Admission | Rejection]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def _decide(self, request: Request) -> Admission | Rejection:
        turn: asyncio.Future[Admission | Rejection] = asyncio.get_running_loop().create_future()
        self._line.append((request, turn))
        if len(self._line) == 1:
            self._freed()
        return await turn

    def _freed(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._line:
            request, turn = self._line[0]
            if turn.done():
                self._line.popleft()
                continue
            verdict = self._quota.admit(request.reserved, self._clock())
            if isinstance(verdict, Rejection) and verdict.retry_after is not None:
                loop = asyncio.get_running_loop()
                # At least a microsecond, the grain of the quota's time.
                self._timer = loop.call_later(max(1e-6, verdict.retry_after), self._freed)
                return
            self._line.popleft()
            turn.set_result(verdict)


def _come_back(rejection: Rejection) -> dict[str, str]:
    if rejection.retry_after is None:
        return {}
    milliseconds = math.ceil(round(rejection.retry_after * 1000, 3))
    return {"retry-after": str(math.ceil(milliseconds / 1000)), "retry-after-ms": str(milliseconds)}
