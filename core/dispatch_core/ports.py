"""What the core asks of its collaborators. Every call that may block has a twin with an `a` in front."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from dispatch_core.messages import Compressed, Message
from dispatch_core.types import Cost, Entry, Feedback, Fit, Match, Matrix, Memory, Usage, Vector


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into unit-length float32 vectors.

    ``model`` identifies the vector space: vectors of different models are never compared. ``max_tokens`` is the
    window after which the encoder truncates silently. Failures raise `EmbeddingError`.
    """

    @property
    def model(self) -> str: ...
    @property
    def dims(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Return shape ``(len(texts), dims)``."""
        ...

    async def aembed(self, texts: Sequence[str]) -> Matrix: ...

    def fit(self, text: str) -> Fit:
        """Count the text's tokens before truncation, and those the encoder does not know."""
        ...

    async def afit(self, text: str) -> Fit: ...


class VectorStore(Protocol):
    """Keeps entries, finds them by id and by the meaning of their text.

    ``now`` is in Unix seconds: an entry that has expired by then is not returned. Failures raise `StoreError`.
    """

    def get(self, id: str, *, now: float) -> Entry | None: ...
    async def aget(self, id: str, *, now: float) -> Entry | None: ...

    def search(self, vector: Vector, *, scope: str, limit: int, now: float) -> Sequence[Match]:
        """Return the nearest fresh entries of exactly this scope, best first."""
        ...

    async def asearch(self, vector: Vector, *, scope: str, limit: int, now: float) -> Sequence[Match]: ...

    def put(self, entry: Entry, vector: Vector | None) -> None:
        """Write or replace by id; without a vector the entry is found by id alone."""
        ...

    async def aput(self, entry: Entry, vector: Vector | None) -> None: ...

    def delete(self, id: str) -> None: ...
    async def adelete(self, id: str) -> None: ...

    def touch(self, id: str, *, expires: float | None, now: float) -> None:
        """Move the end of an entry's life; one that is gone, or has expired by ``now``, stays so."""
        ...

    async def atouch(self, id: str, *, expires: float | None, now: float) -> None: ...

    def clear(self, namespace: str | None = None, *, tags: Collection[str] = ()) -> int:
        """Forget one namespace (its digest), or everything this store holds; return how many entries that were.

        With ``tags``, of these only the entries that carry at least one of them. What others write meanwhile may
        stay, and is removed only if it is to be forgotten as it is by then.
        """
        ...

    async def aclear(self, namespace: str | None = None, *, tags: Collection[str] = ()) -> int: ...

    def close(self) -> None: ...
    async def aclose(self) -> None: ...


@runtime_checkable
class LeasingStore(Protocol):
    """What a store that processes share may offer besides: the right to do a thing alone, for a while.

    A lease is a promise among those who ask for it and protects nothing else. A store that lost it (flushed, evicted)
    gives it to the next who asks. Leases are no entries: `clear` leaves them. Failures raise `StoreError`.
    """

    def lease(self, id: str, *, owner: str, seconds: float) -> bool:
        """Take the lease, or renew one's own, from now on for so long; False if another owner holds it."""
        ...

    async def alease(self, id: str, *, owner: str, seconds: float) -> bool: ...

    def release(self, id: str, *, owner: str) -> None:
        """Give the lease back; nothing happens if the owner does not hold it (any more)."""
        ...

    async def arelease(self, id: str, *, owner: str) -> None: ...


@runtime_checkable
class MeasuredStore(Protocol):
    """What a store may offer besides: to say what its entries take."""

    def memory(self, *, samples: int = 0) -> Memory | None:
        """At once and from what this process knows; with ``samples`` its server or file is asked as well.

        Where that is a server, it says what so many of its entries take, and the rest is reckoned from them. None if
        this process knows nothing.
        """
        ...

    async def amemory(self, *, samples: int = 0) -> Memory | None: ...


class Reservation(Protocol):
    """A place in the quota: held from admission until it is settled or cancelled, whichever comes first."""

    @property
    def cost(self) -> Cost: ...

    def settle(
        self,
        usage: Usage | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        first_token: float | None = None,
    ) -> None:
        """Replace the estimate by the real usage; None keeps the estimate. Idempotent.

        ``headers`` are the response's, ``first_token`` is how many seconds after its start the answer began.
        """
        ...

    def cancel(self) -> None:
        """Give everything back: the request was never sent. Idempotent."""
        ...


class Limiter(Protocol):
    """Admits calls so that the provider's quota is used and never exceeded."""

    def estimate(self, text: str, *, max_tokens: int | None = None, model: str = "") -> Cost: ...

    def acquire(self, cost: Cost, *, timeout: float | None = None) -> Reservation:
        """Wait for a turn; raise `LimitExceeded` or `RequestTooLarge`."""
        ...

    async def aacquire(self, cost: Cost, *, timeout: float | None = None) -> Reservation: ...

    def observe(self, feedback: Feedback, reservation: Reservation | None = None) -> None:
        """Learn from a response of the provider. What a refused call had reserved is given back."""
        ...


@runtime_checkable
class Compressor(Protocol):
    """Makes a conversation shorter before it is sent. It is asked after the lookup in the cache, whose key is that of
    the whole conversation, and before tokens are reserved.

    What it does not understand stays as it is: no content raises an error. `EmbeddingError` if it needs an embedder
    that fails.
    """

    def compress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        """Aim at ``budget`` tokens for all messages together; None leaves the aim to the compressor's own settings.

        What may not be touched (system prompt, question) stays, even if it is larger than the budget.
        """
        ...

    async def acompress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed: ...
