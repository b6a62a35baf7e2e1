"""A request of a caller, understood, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dispatch_core import Ticket
from dispatch_core.keys import scope_digest
from dispatch_core.spans import Spans
from dispatch_core.types import Match, Query
from dispatch_gateway.admission import Account, Admission, Admissions, Deployment, Fare
from dispatch_gateway.caches import Caches
from dispatch_gateway.compression import Shortener
from dispatch_gateway.config import Settings
from dispatch_gateway.control import Control
from dispatch_gateway.meters import Meters, Outcome
from dispatch_gateway.tenants import Tenant
from dispatch_gateway.upstream import Upstreams
from dispatch_gateway.wire import Call, Wire

_UNREADABLE = (ValueError, TypeError, LookupError)


@dataclass(frozen=True, slots=True)
class Services:
    """What all exchanges share."""

    settings: Settings
    upstreams: Upstreams
    admissions: Admissions
    caches: Caches
    meters: Meters
    spans: Spans | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, understood. Of the caller's ``headers``, those ``asked`` go along; the ``shortener`` is that of
    the model, whether he wants it or not."""

    wire: Wire
    call: Call
    control: Control
    tenant: Tenant
    account: Account
    pool: Sequence[Deployment]
    asked: Mapping[str, str]
    headers: Mapping[str, str]
    shortener: Shortener | None = None

    def query(self) -> Query | None:
        """What the cache is asked; None for a call that goes past it."""
        call, control, tenant = self.call, self.control, self.tenant
        if call.past is not None:
            return None
        facts = {"model": call.model, "headers": self.asked, "asked": call.facts}
        if tenant.credential is not None and any(one.settings.api_key is None for one in self.pool):
            facts["credential"] = tenant.account
        if self.shortener is not None and not control.whole:
            # Who has his prompt sent whole, by his own wish or by the settings, gets no answer to a shorter one.
            facts["shortened"] = True
        return Query(
            call.text,
            scope_digest(facts),
            tenant.narrowed(control.namespace),
            call.semantic and not (control.threshold or 0.0) >= 1.0,
            tags=(tenant.tag(), *(tenant.tag(tag) for tag in control.tags)),
        )

    def fare(self, admissions: Admissions) -> Fare:
        call = self.call
        cost = admissions.estimate(call.prompt, max_tokens=call.max_tokens, model=call.model)
        return Fare.of(cost, self.tenant, self.account, self.pool)

    def replay(self, found: Match) -> bytes:
        """A stored answer as the caller wants it. Raises ValueError, TypeError or LookupError for one that another
        version wrote."""
        replayed = self.wire.streamed if self.call.stream else self.wire.whole
        return replayed(self.call, found.entry.payload)

    def replayed(self, found: Match) -> bytes | None:
        """`replay`, or None for what another version wrote."""
        try:
            return self.replay(found)
        except _UNREADABLE:
            return None


@dataclass(slots=True)
class Course:
    """What became of an ask. ``upstream`` and ``queued`` are the seconds that it spent elsewhere, ``outcome`` what it
    came to; ``why`` is RFC 9211's reason for going to the upstream; ``prompt`` are the tokens of one that was
    shortened, before and after."""

    outcome: Outcome = "rejected"
    deployment: str = ""
    upstream: float = 0.0
    queued: float = 0.0
    why: str = "miss"
    detail: str = ""
    prompt: tuple[int, int] | None = None

    @property
    def left_out(self) -> int:
        """Tokens that a shorter prompt spares, as far as they can be estimated."""
        return 0 if self.prompt is None else self.prompt[0] - self.prompt[1]


def admission_of(ticket: Ticket) -> Admission:
    """The place in the quota that a ticket of the gateway's dispatcher holds."""
    reservation = ticket.reservation
    assert isinstance(reservation, Admission)
    return reservation
