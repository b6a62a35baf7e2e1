"""Clients of redis-py for every way there is to a Redis: one server, a cluster, behind sentinels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatch_core.errors import ConfigError

_PORT = 26379
_SCHEMES = re.compile(r"^(redis|rediss)\+(cluster|sentinel)://", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """A URL as redis-py reads it; ``kind`` is "server", "cluster" or "sentinel".

    Of a sentinel, ``sentinels`` are its hosts and ports, ``service`` is the name it watches, and ``url`` carries what
    is for the server itself: user, password, database and options.
    """

    kind: str
    url: str
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises `ConfigError`; its message never holds a password."""
        scheme = _SCHEMES.match(url)
        if scheme is None:
            return _checked(cls("server", url))
        plain, kind = scheme[1], scheme[2]
        split = urlsplit(url)
        if kind == "cluster":
            return _checked(cls(kind, urlunsplit(split._replace(scheme=plain))))
        login, _, hosts = split.netloc.rpartition("@")
        service, _, database = split.path.strip("/").partition("/")
        if not hosts or not service:
            raise ConfigError("a URL of sentinels is redis+sentinel://host:port,host:port/service/database")
        here = f"{login}@localhost" if login else "localhost"
        return _checked(
            cls(
                kind,
                urlunsplit(SplitResult(plain, here, f"/{database or 0}", split.query, "")),
                tuple(_host_and_port(host) for host in hosts.split(",")),
                unquote(service),
            )
        )

    def client(self, timeout: float) -> Any:
        """A client for threads. It tries nothing twice, for it would begin another deadline.

        That of a cluster connects at once, and raises as redis-py does.
        """
        options = _options(timeout, Retry(NoBackoff(), 0))
        if self.kind == "cluster":
            del options["timeout"]
            return redis.cluster.RedisCluster.from_url(self.url, **options)
        if self.kind == "sentinel":
            return self._watched(redis.sentinel.Sentinel, redis.connection, options)
        return redis.Redis(connection_pool=redis.BlockingConnectionPool.from_url(self.url, **options))

    def async_client(self, timeout: float) -> Any:
        """A client for one event loop."""
        options = _options(timeout, redis.asyncio.retry.Retry(NoBackoff(), 0))
        if self.kind == "cluster":
            del options["timeout"]
            return redis.asyncio.cluster.RedisCluster.from_url(self.url, **options)
        if self.kind == "sentinel":
            return self._watched(redis.asyncio.sentinel.Sentinel, redis.asyncio.connection, options)
        pool = redis.asyncio.BlockingConnectionPool.from_url(self.url, **options)
        return redis.asyncio.Redis(connection_pool=pool)

    def _watched(self, sentinel: Any, connection: Any, options: dict[str, Any]) -> Any:
        del options["timeout"]
        server = dict(connection.parse_url(self.url))
        for name in ("host", "port", "connection_class"):
            server.pop(name, None)
        if self.url.startswith("rediss:"):
            server["ssl"] = True
        asked = {name: value for name, value in options.items() if name.startswith("socket_")}
        # What watches a server that asks for TLS is asked over TLS as well; users and passwords are the server's.
        asked |= {name: value for name, value in server.items() if name.startswith("ssl")}
        watching = sentinel(self.sentinels, sentinel_kwargs=asked)
        return watching.master_for(self.service, **options, **server)


def async_like(client: Any) -> Any:
    """An asynchronous client with the settings of a synchronous one, for callers who gave only that."""
    if is_cluster(client):
        return _cluster_like(client)
    pool = client.connection_pool
    settings = pool_settings(client)
    for name in ("retry", "maint_notifications_config", "maint_notifications_pool_handler", "event_dispatcher"):
        settings.pop(name, None)
    if isinstance(pool, redis.sentinel.SentinelConnectionPool):
        return _watched_like(pool, settings)
    sync_class = getattr(pool, "connection_class", redis.Connection)
    async_class = getattr(redis.asyncio, sync_class.__name__, redis.asyncio.Connection)
    return redis.asyncio.Redis(
        connection_pool=redis.asyncio.BlockingConnectionPool(connection_class=async_class, **settings)
    )


def close(client: Any) -> None:
    """Close its connections, and those to sentinels."""
    if is_cluster(client):
        client.close()
        return
    client.connection_pool.disconnect()
    for watching in _sentinels(client):
        watching.connection_pool.disconnect()


async def aclose(client: Any) -> None:
    if is_cluster(client):
        await client.aclose()
        return
    await client.connection_pool.disconnect()
    for watching in _sentinels(client):
        await watching.connection_pool.disconnect()


def _sentinels(client: Any) -> list[Any]:
    return list(getattr(getattr(client.connection_pool, "sentinel_manager", None), "sentinels", ()))


def is_cluster(client: Any) -> bool:
    return isinstance(client, redis.cluster.RedisCluster | redis.asyncio.cluster.RedisCluster)


def pool_settings(client: Any) -> dict[str, Any]:
    """What the connections of a client are made with."""
    if is_cluster(client):
        manager = getattr(client, "nodes_manager", None)
        return dict(getattr(manager, "connection_kwargs", None) or getattr(client, "connection_kwargs", {}))
    pool = getattr(client, "connection_pool", None)
    return dict(getattr(pool, "connection_kwargs", {}))


_OF_A_CLUSTER = (
    *("username", "password", "client_name", "credential_provider", "protocol", "socket_timeout"),
    *("socket_connect_timeout", "socket_keepalive", "health_check_interval"),
)


def _cluster_like(client: Any) -> Any:
    settings = pool_settings(client)
    kept = {name: value for name, value in settings.items() if name in _OF_A_CLUSTER and value is not None}
    kept |= {name: value for name, value in settings.items() if name.startswith("ssl") and value is not None}
    if issubclass(settings.get("connection_class", redis.Connection), redis.SSLConnection):
        kept["ssl"] = True
    nodes = [redis.asyncio.cluster.ClusterNode(node.host, node.port) for node in client.get_nodes()]
    return redis.asyncio.cluster.RedisCluster(startup_nodes=nodes, **kept)


def _watched_like(pool: Any, settings: dict[str, Any]) -> Any:
    asked = [pool_settings(known) for known in pool.sentinel_manager.sentinels]
    sentinel: Any = redis.asyncio.sentinel.Sentinel
    watching = sentinel(
        [(known["host"], known["port"]) for known in asked],
        sentinel_kwargs={
            name: value for name, value in pool.sentinel_manager.sentinel_kwargs.items() if name != "retry"
        },
    )
    settings.pop("connection_pool", None)
    tls = issubclass(pool.connection_class, redis.SSLConnection)
    return watching.master_for(pool.service_name, **settings, **({"ssl": True} if tls else {}))


def _options(timeout: float, retry: Any) -> dict[str, Any]:
    return {**dict.fromkeys(("socket_timeout", "socket_connect_timeout", "timeout"), timeout), "retry": retry}


def _host_and_port(host: str) -> tuple[str, int]:
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        return host.strip("[]"), _PORT
    if not port.isdecimal():
        raise ConfigError(f"the port of a sentinel is a number, got {port!r}")
    return name.strip("[]"), int(port)


def _checked(address: Address) -> Address:
    connection: Any = redis.connection
    try:
        connection.parse_url(address.url)
    except ValueError as error:
        raise ConfigError(f"not a Redis URL: {error}") from error
    return address
