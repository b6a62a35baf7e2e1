"""What every endpoint shares: errors in the shape of the API asked, keys, and a number for every answer."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable

from aiohttp import web

from dispatch_core.simulate.completions import ChatCompletions
from dispatch_core.simulate.config import SimulatorConfig
from dispatch_core.simulate.dialect import Dialect
from dispatch_core.simulate.messages import Messages
from dispatch_core.simulate.request import ApiError

MAX_BODY = 8 * 1024 * 1024

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def speak_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in the shape of the API that was asked."""
    try:
        return await handler(request)
    except ApiError as error:
        return _response(request, error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _response(request, _from_http(request, error))
    except ConnectionError:
        raise
    except Exception:
        log.exception("unexpected error in the simulator")
        return _response(request, ApiError(500, "The server had an error.", kind="server_error"))


def authorise(request: web.Request, config: SimulatorConfig) -> None:
    """Raise the 401 of a request without a key, where one is required."""
    if not config.require_key or request.headers.get("x-api-key", "").strip():
        return
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.casefold() != "bearer" or not key.strip():
        message = "You didn't provide an API key. You need to provide it in an Authorization header "
        raise ApiError(401, f"{message}using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).")


def require_version(request: web.Request) -> None:
    """Raise the 400 of a request to Anthropic's API that does not say which version of it."""
    if "anthropic-version" not in request.headers:
        raise ApiError(400, "anthropic-version: header is required")


def _from_http(request: web.Request, error: web.HTTPException) -> ApiError:
    match error.status:
        case 404:
            return ApiError(404, f"Invalid URL ({request.method} {request.path})")
        case 405:
            return ApiError(405, f"Not allowed to {request.method} on {request.path}")
        case 413:
            return ApiError(413, f"The body is larger than {MAX_BODY} bytes.", code="request_too_large")
        case _:
            return ApiError(error.status, error.reason)


def _response(request: web.Request, error: ApiError) -> web.Response:
    dialect: Dialect = ChatCompletions()
    if request.path.startswith("/v1/messages"):
        dialect = Messages()
        error.headers.setdefault("request-id", f"req_{uuid.uuid4().hex}")
    return web.json_response(dialect.error(error), status=error.status, headers=error.headers)
