"""Who calls: virtual keys, what each may do, and the names under which his entries are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit

from dispatch_core.keys import digest
from dispatch_gateway.config import ANY_MODEL, Key, Settings, hash_of, loopback, same_hash
from dispatch_gateway.errors import ApiError

_HINT = "You need to provide your key in an Authorization header (Authorization: Bearer KEY)."


@dataclass(frozen=True, slots=True)
class Tenant:
    """A caller: ``name`` is that of his key, "" without any. ``credential`` goes along to upstreams without a key."""

    name: str = ""
    namespace: str = ""
    priority: float = 0
    models: tuple[str, ...] = (ANY_MODEL,)
    credential: str | None = field(default=None, repr=False)

    @property
    def account(self) -> str:
        """What tells his credential from others', and does not give it away."""
        return "" if self.credential is None else digest("credential", self.credential)

    def may_use(self, model: str) -> bool:
        return ANY_MODEL in self.models or model in self.models

    def narrowed(self, namespace: str) -> str:
        """The namespace of his entries: his own, or one inside it that no other tenant can name."""
        return json.dumps([self.namespace, namespace]) if namespace else self.namespace

    def tag(self, *name: str) -> str:
        """A tag of his alone; without a name, that of all his entries."""
        return _tag(self.namespace, *name)


_NOBODY = Tenant()


@lru_cache(maxsize=4096)
def _tag(namespace: str, *name: str) -> str:
    return digest("tenant", namespace, *name)


class Door:
    """Lets callers in."""

    def __init__(self, settings: Settings) -> None:
        self._keys: Sequence[Key] = settings.keys
        self._locked = settings.authenticates
        self._local = settings.listen.loopback and settings.auth == "auto" and not settings.keys

    def tenant(self, headers: Mapping[str, str]) -> Tenant:
        """Who sent a request with these headers. Raises `ApiError` 401, or 403 for what a web page sent here."""
        given = _credential(headers)
        if not self._locked:
            if self._local and not _from_here(headers):
                raise ApiError(403, "This gateway answers local programs only.", code="forbidden_host")
            # Without a key of its own, an upstream answers to the caller's: his answers are his alone.
            return _NOBODY if given is None else Tenant(credential=given)
        if given is None:
            raise ApiError(401, f"You didn't provide an API key. {_HINT}", code="missing_api_key")
        offered, found = hash_of(given), None
        for key in self._keys:
            # All of them, whichever it is.
            if same_hash(offered, key.digest):
                found = key
        if found is None:
            raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
        return Tenant(found.name, found.namespace, found.priority, found.models)


def _credential(headers: Mapping[str, str]) -> str | None:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    given = key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
    return given or None


def _from_here(headers: Mapping[str, str]) -> bool:
    """A web page may send requests to this machine, under a name of its own."""
    origin = headers.get("origin")
    return _local(f"//{headers.get('host', '')}") and (origin is None or _local(origin))


# Few names, and of few bytes: a head is never longer than 64 kB.
@lru_cache(maxsize=64)
def _local(url: str) -> bool:
    try:
        return loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False
