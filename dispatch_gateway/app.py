"""The gateway as an ASGI application."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dispatch_core.errors import StoreError
from dispatch_gateway import openai, openapi
from dispatch_gateway.chat import ChatWire
from dispatch_gateway.config import ANY_MODEL, Settings
from dispatch_gateway.endpoints import Endpoint
from dispatch_gateway.errors import ApiError
from dispatch_gateway.messages import MessagesWire
from dispatch_gateway.meters import CONTENT_TYPE
from dispatch_gateway.service import Service
from dispatch_gateway.texts import CompletionWire, EmbeddingWire
from dispatch_gateway.upstream import LOST, json_of
from dispatch_gateway.wire import Wire, dumped

_HEALTHY = 2.0
_PRIVATE = {"cache-control": "private, no-store"}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
_PAGE = {
    **_PRIVATE,
    "content-security-policy": f"{_POLICY}; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}


def gateway(settings: Settings, service: Service | None = None) -> Starlette:
    """An application to serve with any ASGI server, on one event loop. Raises `ConfigError` and `MissingExtra` for
    settings that cannot work."""
    service = service or Service(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await service.open()
        try:
            yield
        finally:
            await service.close()

    wires: tuple[Wire, ...] = (ChatWire(), CompletionWire(), EmbeddingWire(), MessagesWire())
    endpoints = {f"/v1{wire.path}": Endpoint(service, wire) for wire in wires}
    pages = _Pages(service)
    routes = [
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints.items()),
        Route("/v1/models", pages.models),
        Route("/v1/models/{name:path}", pages.model),
        Route("/v1/cache", pages.forget, methods=["DELETE"]),
        Route("/health/live", pages.live),
        Route("/health/ready", pages.ready),
        Route("/metrics", pages.metrics),
        Route("/status", pages.status),
        Route("/openapi.json", pages.described),
        Route("/", pages.page),
    ]
    handlers: dict[Any, Any] = {HTTPException: _no_such_page, ApiError: _refused, Exception: _failed}
    app = _App(endpoints, routes=routes, lifespan=lifespan, exception_handlers=handlers)
    # To a place that the caller named himself.
    app.router.redirect_slashes = False
    return app


class _App(Starlette):
    """Calls of models go straight to their endpoints, which answer whatever happens; all else is Starlette's."""

    def __init__(self, endpoints: Mapping[str, Endpoint], **settings: Any) -> None:
        super().__init__(**settings)
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        straight = scope["type"] == "http" and scope["method"] == "POST" and not self.user_middleware
        endpoint = self._endpoints.get(scope["path"]) if straight else None
        await (endpoint or super().__call__)(scope, receive, send)


class _Pages:
    """The small endpoints."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def models(self, request: Request) -> Response:
        """Those that are named in the settings, and what the upstream of all others lists."""
        return _json({"object": "list", "data": await self._listed(request)})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        for model in await self._listed(request):
            if model.get("id") == name:
                return _json(model)
        raise ApiError(404, "There is no such model.", param="model", code="model_not_found")

    async def _listed(self, request: Request) -> list[dict[str, Any]]:
        service = self._service
        tenant = service.door.tenant(request.headers)
        named = [name for name in service.pools if name != ANY_MODEL and tenant.may_use(name)]
        listed: list[dict[str, Any]] = [
            {"id": name, "object": "model", "created": int(service.started), "owned_by": "dispatcher"}
            for name in named
        ]
        for deployment in service.pools.get(ANY_MODEL, ())[:1]:
            try:
                status, body = await service.upstreams.get(deployment, "/models", tenant)
            except LOST as error:
                if not listed:
                    raise ApiError(502, "The upstream cannot be reached.", kind="api_error") from error
                break
            if status >= 400 and not listed:
                raise ApiError(status, f"The upstream answered with status {status}.", kind="api_error")
            said = json_of(body)
            more = said.get("data") if isinstance(said, dict) else None
            models = [model for model in more if isinstance(model, dict)] if isinstance(more, list) else []
            listed += [one for one in models if one.get("id") not in named and tenant.may_use(str(one.get("id")))]
        return listed

    async def forget(self, request: Request) -> Response:
        """Entries of the caller's own: one by ``id``, those with a ``tag``, one ``namespace``, or all."""
        service = self._service
        tenant = service.door.tenant(request.headers)
        asked = dict(request.query_params)
        unknown = asked.keys() - {"id", "tag", "namespace"}
        if unknown or len(asked) > 1:
            raise ApiError(400, "Give one of id, tag and namespace, or nothing to forget all of yours.")
        dispatcher, cache = service.caches.plain, service.caches.plain.cache
        if cache is None:
            return _json({"deleted": 0})
        try:
            if "id" in asked:
                store = cache.stored_in
                await dispatcher.aflush()
                entry = await store.aget(asked["id"], now=time.time())
                deleted = int(entry is not None and tenant.tag() in entry.tags)
                if deleted:
                    await store.adelete(asked["id"])
            elif "namespace" in asked:
                deleted = await dispatcher.aclear(tenant.narrowed(asked["namespace"]))
            else:
                tag = tenant.tag(asked["tag"]) if "tag" in asked else tenant.tag()
                deleted = await dispatcher.aclear(tags=[tag])
        except StoreError as error:
            raise ApiError(503, "The cache cannot be reached.", kind="api_error", code="cache_unavailable") from error
        return _json({"deleted": deleted})

    async def live(self, request: Request) -> Response:
        return _json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        service = self._service
        if service.draining:
            return _json({"status": "draining"}, 503)
        return _json({"status": "degraded" if await service.degraded(_HEALTHY) else "ok"})

    async def status(self, request: Request) -> Response:
        return _json(self._service.snapshot())

    async def described(self, request: Request) -> Response:
        return _json(openapi.document(guarded=self._service.settings.authenticates))

    async def page(self, request: Request) -> Response:
        return Response(_page(), headers=_PAGE, media_type="text/html")

    async def metrics(self, request: Request) -> Response:
        return Response(self._service.meters.exposition(), media_type=CONTENT_TYPE)


@lru_cache
def _page() -> bytes:
    return files("dispatch_gateway").joinpath("status.html").read_bytes()


def _json(value: Any, status: int = 200) -> Response:
    return Response(dumped(value), status, _PRIVATE, "application/json")


async def _no_such_page(request: Request, error: HTTPException) -> Response:
    said = {404: "There is no such endpoint.", 405: "Not allowed with this method."}.get(error.status_code, "Error.")
    return await _refused(request, ApiError(error.status_code, said, headers=error.headers))


async def _refused(request: Request, error: ApiError) -> Response:
    worded = MessagesWire().error if request.url.path.startswith("/v1/messages") else openai.error
    return Response(worded(error), error.status, {**_PRIVATE, **error.headers}, "application/json")


async def _failed(request: Request, error: Exception) -> Response:
    return await _refused(
        request, ApiError(500, "The gateway had an error.", kind="api_error", code="internal_error")
    )
