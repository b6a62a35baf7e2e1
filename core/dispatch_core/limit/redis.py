"""One quota for many processes, in Redis ≥ 7 or Valkey. I/O only: who waits, and what to do in an outage, is the
caller's."""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from struct import Struct, pack
from typing import TYPE_CHECKING, Any

from dispatch_core._flow import Flow, arun, step
from dispatch_core._fork import renew_in_child
from dispatch_core.errors import ConfigError, StoreError
from dispatch_core.keys import digest
from dispatch_core.limit.quota import Plan

if TYPE_CHECKING:
    import redis
    import redis.asyncio

    from dispatch_core.stores._wire import Wire


def _folded(script: str) -> str:
    """The script with the numbers in place of its constants: a constant that functions share costs every call."""
    values: dict[str, str] = {}
    for names, numbers in re.findall(_CONSTANTS, script, re.MULTILINE):
        values |= zip(re.split(r",\s*", names), re.split(r",\s*", numbers), strict=True)
    bare = re.sub(_CONSTANTS, lambda match: "\n" * match[0].count("\n"), script, flags=re.MULTILINE)
    return re.sub(r"\b[A-Z_]+\b", lambda match: values.get(match[0], match[0]), bare)


_CONSTANTS = r"^local ([A-Z_, ]+) = ([0-9][0-9,\s]*[0-9])$"
_SCRIPT = _folded(files("dispatch_core.limit").joinpath("quota.lua").read_text())
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_KINDS = {"window": 1.0, "bucket": 2.0, "slots": 3.0, "day": 4.0}
_EPOCH = 24
_BEAT = 1.0
_PAGE = 250


@dataclass(frozen=True, slots=True)
class Grant:
    """What Redis answered.

    ``lease``: the id to settle with, None for a refusal. ``wait``: seconds from now until the call may be sent or,
    after a refusal, until it is worth asking again. ``marks``: what each gauge has used (a bucket: its level) by
    then. ``epoch``: names this state; another one than before means that Redis lost the one before. ``replicas``:
    processes that asked during the last minute, this one included.
    """

    lease: str | None
    wait: float
    marks: tuple[float, ...]
    epoch: str
    replicas: int


class SharedQuota:
    """All who use the same ``name`` on the same server charge one quota; each call is one round trip of one script.

    A call that does not fit yet is granted in the future: charged at the instant it may be sent, so that calls go in
    the order in which Redis heard of them and nobody asks twice. Only the server's clock counts; one that was set
    back mints no credit. The gauges are given with every call and may differ from call to call in their numbers, not
    in number and kind: that raises `ConfigError`.

    A charge that is never settled stays as it was estimated. A slot is freed when its call is settled or, should the
    process die, ``lease`` seconds after it last renewed it: `reserve` renews the slots of this process by the way,
    `renew` those of one that has nothing to reserve. A charge can be settled for ``lease`` seconds after the longest
    window has let go of it; later its estimate stays.

    The first argument is a URL or a client; clients with ``decode_responses`` are refused. ``timeout`` is the
    deadline of a round trip in seconds, for clients made from a URL; a round trip that broke is tried once more, and
    may then have charged twice. Raises `StoreError` if Redis fails. `_flow.run` and `_flow.arun` drive the flows.
    """

    def __init__(
        self,
        url_or_client: str | redis.Redis,
        *,
        name: str,
        lease: float = 120.0,
        timeout: float = 0.25,
        async_client: redis.asyncio.Redis | None = None,
    ) -> None:
        # Importing redis costs 0.1 s: only who shares a quota pays it.
        from dispatch_core.stores._redis import Connections
        from dispatch_core.stores._wire import Wire

        if not isinstance(name, str) or not name:
            raise ConfigError(f"a shared quota needs a name, got {name!r}")
        for title, value in (("lease", lease), ("timeout", timeout)):
            if not 0 < value < math.inf:
                raise ConfigError(f"{title} must be a positive, finite number of seconds, got {value!r}")
        # A client of the caller's keeps the caller's settings, and all its calls go through it.
        self._wire: Wire | None = None
        if isinstance(url_or_client, str):
            self._redis = Connections(url_or_client, None, async_client, timeout=timeout)
            self._wire = Wire(url_or_client, timeout=timeout)
        else:
            self._redis = Connections(None, url_or_client, async_client, timeout=timeout)
        # A digest, so that no name can bring braces of its own into the hash tag.
        tag = f"{{dispatch:{digest('shared-quota', name)}}}"
        self._keys = tuple(f"{tag}:{name}".encode() for name in ("quota", "processes", "slots"))
        self._lease = lease
        self._encoded = _Encoded((), b"", b"", None, Struct("<"), Struct("<"))
        self._epoch = ""
        # Lets tests set the time; empty means the server's.
        self._time: bytes = b""
        self.start_anew()
        renew_in_child(self)

    def start_anew(self) -> None:
        """A forked child is a process of its own, and the open calls are its parent's."""
        self._process = secrets.token_hex(8)
        self._open: dict[str, None] = {}
        self._beat_due = self._renew_due = -math.inf

    def reserve(self, plans: Sequence[Plan], amounts: Sequence[float], *, horizon: float) -> Flow[Grant]:
        """Charge the amounts, one per plan, unless the call would have to wait for more than ``horizon`` seconds."""
        encoded = self._encoded
        if plans is not encoded.plans:
            encoded = self._encode(plans)
        if not horizon >= 0.0:
            raise ConfigError(f"the horizon must not be negative, got {horizon!r}")
        _check(amounts, encoded)
        asked = encoded.asked.pack(horizon, *amounts)
        plan_words = encoded.known if self._epoch else encoded.new
        now = time.monotonic()
        if now >= self._beat_due:
            self._beat_due = now + _BEAT
            words: tuple[Any, ...] = (self._process, plan_words, asked, *self._due(now))
        else:
            words = (b"", plan_words, asked)
        reply = yield from self._call(b"reserve", *words)
        number, wait, replicas, *marks = encoded.reply.unpack_from(reply, _EPOCH)
        epoch = reply[:_EPOCH].decode()
        if epoch != self._epoch:
            self._epoch = epoch
            self._beat_due = now
        lease = f"{epoch}{int(number)}" if number else None
        if lease is not None and encoded.slot is not None:
            self._open[lease] = None
        return Grant(lease, wait, tuple(marks), epoch, int(replicas))

    def settle(self, ended: Sequence[tuple[str, Sequence[float]]]) -> Flow[None]:
        """Rewrite charges to what was really used. Unknown leases are ignored; only the first time counts."""
        width = len(ended[0][1]) if ended else 0
        for _, amounts in ended:
            if len(amounts) != width:
                raise ConfigError(f"all charges of a quota have as many amounts, got {width} and {len(amounts)}")
            _finite(amounts)
        for lease, _ in ended:
            self._open.pop(lease, None)
        for start in range(0, len(ended), _PAGE):
            page = ended[start : start + _PAGE]
            after = [amount for _, amounts in page for amount in amounts]
            yield from self._call(b"settle", _packed(after), *(lease for lease, _ in page))

    def close_gate(self, seconds: float) -> Flow[None]:
        """Grant nobody on any process anything before so many seconds from now; a longer gate stays."""
        _finite((seconds,))
        yield from self._call(b"gate", _packed((seconds, _nonce())))

    def renew(self) -> Flow[None]:
        """Keep the slots of this process's open calls: due every ``lease`` / 2 seconds where nobody reserves."""
        leases = list(self._open)
        self._renew_due = time.monotonic() + self._lease / 3
        for start in range(0, len(leases), _PAGE):
            yield from self._call(b"renew", _packed((self._lease,)), *leases[start : start + _PAGE])

    def restore(self, plans: Sequence[Plan], charges: Sequence[tuple[float, Sequence[float]]]) -> Flow[list[str]]:
        """Charge anew, at their age in seconds, this process's own charges of a state that was lost.

        Returns the new leases in the same order, "" for a charge that nothing counts any more. An age is negative
        where a call was granted in the future; an ended call must hold 0 slots. To restore twice is to charge twice.
        """
        encoded = self._encode(plans)
        for age, amounts in charges:
            if not -math.inf < age < math.inf:
                raise ConfigError(f"an age must be finite, got {age!r}")
            _check(amounts, encoded)
        leases: list[str] = []
        for start in range(0, len(charges), _PAGE):
            listed = [number for age, amounts in charges[start : start + _PAGE] for number in (age, *amounts)]
            reply = yield from self._call(b"restore", b"", encoded.known, _packed(listed))
            leases += [lease.decode() for lease in reply]
        if encoded.slot is not None:
            for lease, (_, held) in zip(leases, charges, strict=True):
                if lease and held[encoded.slot]:
                    self._open[lease] = None
        return leases

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._redis.close()

    async def aclose(self) -> None:
        if self._wire is not None:
            self._wire.close()
        await self._redis.aclose()

    def _call(self, *words: Any) -> Flow[Any]:
        """The reply of the script, which the server remembers by its digest after the first time."""
        operation, *rest = words
        tail = (*self._keys, operation, self._time, *rest)
        try:
            reply = yield from self._send(("EVALSHA", _SHA, 3, *tail))
        except StoreError as error:
            if type(error.__cause__).__name__ != "NoScriptError":
                raise
            reply = yield from self._send(("EVAL", _SCRIPT, 3, *tail))
        if reply == b"kinds":
            raise ConfigError("a quota of this name is in use with limits of other kinds or another number of them")
        return reply

    def _send(self, command: tuple[Any, ...]) -> Flow[Any]:
        if self._wire is not None:
            return (yield from step(self._wire.send, self._asend, command))
        [reply] = yield from self._redis.send(command)
        return reply

    async def _asend(self, command: tuple[Any, ...]) -> Any:
        [reply] = await arun(self._redis.send(command))
        return reply

    def _encode(self, plans: Sequence[Plan]) -> _Encoded:
        """The plans as the script reads them, checked. They rarely change, so the last ones are remembered."""
        given = tuple(plans)
        if given and given == self._encoded.plans:
            return self._encoded
        slots = [index for index, plan in enumerate(given) if plan.kind == "slots"]
        if not given or len(slots) > 1:
            raise ConfigError("a shared quota needs at least one plan, and at most one of them for slots")
        numbers = [number for plan in given for number in _numbers(plan)]
        new, known = (_packed((self._lease, flag, _nonce(), *numbers)) for flag in (0.0, 1.0))
        reply, asked = Struct(f"<{3 + len(given)}d"), Struct(f"<{1 + len(given)}d")
        self._encoded = _Encoded(given, new, known, slots[0] if slots else None, asked, reply)
        return self._encoded

    def _due(self, now: float) -> Sequence[str]:
        if now < self._renew_due:
            return ()
        self._renew_due = now + self._lease / 3
        return list(self._open)[:_PAGE]


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Plans as the script reads them: ``new`` from a process that knew no state before, ``known`` from one that did.

    ``slot`` is the index of the plan for slots, ``asked`` and ``reply`` are the shapes of a request and its answer.
    """

    plans: tuple[Plan, ...]
    new: bytes
    known: bytes
    slot: int | None
    asked: Struct
    reply: Struct


def _numbers(plan: Plan) -> Sequence[float]:
    if plan.kind not in _KINDS:
        raise ConfigError(f"unknown kind of plan {plan.kind!r}: there are {', '.join(_KINDS)}")
    _finite((plan.capacity, plan.rate, plan.burst, plan.span))
    for name in {"window": ("rate", "span"), "bucket": ("rate",)}.get(plan.kind, ()):
        if not getattr(plan, name) > 0:
            raise ConfigError(f"the {name} of a {plan.kind} must be positive, got {getattr(plan, name)}")
    return (_KINDS[plan.kind], plan.capacity, plan.rate, plan.burst, plan.span)


def _check(amounts: Sequence[float], encoded: _Encoded) -> None:
    if len(amounts) != len(encoded.plans):
        raise ConfigError(f"{len(encoded.plans)} amounts are needed, one per plan, got {len(amounts)}")
    _finite(amounts)
    if encoded.slot is not None and amounts[encoded.slot] not in (0, 1):
        raise ConfigError(f"a call takes one slot or none, got {amounts[encoded.slot]!r}")


def _finite(numbers: Sequence[float]) -> None:
    for number in numbers:
        if not 0.0 <= number < math.inf:
            raise ConfigError(f"what a quota counts must not be negative and must be finite, got {number!r}")


def _packed(numbers: Sequence[float]) -> bytes:
    return pack(f"<{len(numbers)}d", *numbers)


def _nonce() -> float:
    return float(secrets.randbits(44))
