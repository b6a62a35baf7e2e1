"""The connections to upstreams. The only file here that needs aiohttp."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import aiohttp
from yarl import URL

from dispatch_core.limit.verdict import verdict_of
from dispatch_gateway import config
from dispatch_gateway.admission import Deployment
from dispatch_gateway.tenants import Tenant
from dispatch_gateway.wire import Wire

LOST = (aiohttp.ClientError, TimeoutError, OSError)
"""What a connection to an upstream raises when it cannot be made or is lost."""

_MOST = 1024 * 1024
_ASKED = ("openai-beta", "anthropic-beta", "anthropic-version")
"""Of a caller's headers, what an answer depends on. They go along, and are part of the exact scope."""

_TOLD = ("x-", "openai-", "anthropic-", "retry-after", "request-id")
_QUOTAS = ("x-ratelimit-", "anthropic-ratelimit-")
_OURS = (*_QUOTAS, "x-dispatch-", "x-forwarded-", "x-accel-", "x-sendfile")
"""The last two are orders to a web server in front."""
_ANTHROPIC_VERSION = "2023-06-01"


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as the upstream worded it."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def refused(self) -> bool:
        """For its rate or its budget: elsewhere there may be some left."""
        return verdict_of(self.status, self.headers, self.body, now=time.time()) is not None


class Upstreams:
    """One session for all deployments of a gateway, on the event loop that it was opened on."""

    def __init__(self, timeouts: config.Timeouts) -> None:
        self._timeouts = timeouts
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._timeouts.connect, sock_read=self._timeouts.read
        )
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60, ttl_dns_cache=60)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(
        self, deployment: Deployment, wire: Wire, body: bytes, tenant: Tenant, asked: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Send a call. Raises one of `LOST`."""
        url = _url(deployment.settings.base_url + wire.path)
        headers = {**credentials(deployment, tenant), **asked, "content-type": "application/json"}
        return await self._open().post(url, data=body, headers=headers, allow_redirects=False)

    async def get(self, deployment: Deployment, path: str, tenant: Tenant) -> tuple[int, bytes]:
        """A small resource and its status. Raises one of `LOST`."""
        url = deployment.settings.base_url + path
        headers = credentials(deployment, tenant)
        async with self._open().get(url, headers=headers, allow_redirects=False) as response:
            return response.status, await _beginning(response)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the gateway is not running")
        return self._session


@lru_cache(maxsize=256)
def _url(text: str) -> URL:
    return URL(text)


async def failure_of(response: aiohttp.ClientResponse) -> Failure:
    """The error of a response, closed afterwards."""
    try:
        body = await _beginning(response)
    except LOST:
        body = b""
    finally:
        response.close()
    return Failure(response.status, body, plain(response.headers))


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """A body up to a size that no error or list has."""
    body = b""
    async for piece in response.content.iter_any():
        body += piece
        if len(body) >= _MOST:
            break
    return body[:_MOST]


def credentials(deployment: Deployment, tenant: Tenant) -> dict[str, str]:
    """The headers that say who asks an upstream."""
    key = deployment.settings.api_key
    secret = tenant.credential if key is None else key.get_secret_value()
    if deployment.settings.provider == "anthropic":
        return {"anthropic-version": _ANTHROPIC_VERSION, **({"x-api-key": secret} if secret else {})}
    return {"authorization": f"Bearer {secret}"} if secret else {}


def asked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in _ASKED if name in headers}


def told_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Of an upstream's `plain` headers, what the caller is told: nothing of its quotas, which are not his."""
    return {name: value for name, value in headers.items() if name.startswith(_TOLD) and not name.startswith(_OURS)}


def told_and_limits(headers: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Of an upstream's headers, in any case, what the caller is told, and what is for its limiter: its quotas."""
    told, limits = {}, {}
    for given, value in headers.items():
        name = given.lower()
        if name.startswith(_TOLD):
            if name.startswith(_QUOTAS):
                limits[name] = value
            elif not name.startswith(_OURS):
                told[name] = value
    return told, limits


def plain(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def json_of(body: bytes) -> Any:
    """What a body says; None if that is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
