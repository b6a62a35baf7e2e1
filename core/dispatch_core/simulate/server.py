"""The simulator's HTTP server. The only file here that needs aiohttp."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from dispatch_core.simulate import reply as wire
from dispatch_core.simulate.answers import AnswerBook
from dispatch_core.simulate.config import SimulatorConfig
from dispatch_core.simulate.embeddings import embedding_list, parse_embedding, vectors
from dispatch_core.simulate.ledger import CLIENT_GONE, Ledger, Stats, Tally
from dispatch_core.simulate.quota import Admission, Quota, Rejection
from dispatch_core.simulate.reply import Reply
from dispatch_core.simulate.request import ApiError, ChatRequest, parse_chat
from dispatch_core.simulate.text import Pace, draw_embedding_time, draw_pace, split

MAX_BODY = 8 * 1024 * 1024
GROUP_HEADER = "x-simulated-group"

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Delivery:
    """One admitted request on its way out. `produced` counts the completion tokens made so far."""

    chat: ChatRequest
    reply: Reply
    pace: Pace
    identity: str
    created: int
    headers: dict[str, str]
    start: float
    produced: int = 0


class Provider:
    """The handlers of one simulated provider, on one event loop; any thread may read the ledger."""

    def __init__(self, config: SimulatorConfig, book: AnswerBook, ledger: Ledger) -> None:
        self._config = config
        self._book = book
        self._ledger = ledger
        self._created = int(time.time())
        self._numbers = itertools.count(1)
        self._quota = self._fresh_quota()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY, middlewares=[speak_json])
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/embeddings", self.embeddings)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/health", self.health)
        app.router.add_get("/stats", self.stats)
        app.router.add_post("/reset", self.reset_all)
        return app

    def reset(self) -> None:
        """Zero the counters and fill the quota. Requests in flight settle against the old ones."""
        self._ledger.reset()
        self._quota = self._fresh_quota()

    def _fresh_quota(self) -> Quota:
        limits = self._config
        now = time.monotonic()
        return Quota(rpm=limits.rpm, tpm=limits.tpm, window=limits.window, style=limits.style, start=now)

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response(_stats_json(self._ledger.snapshot()))

    async def reset_all(self, request: web.Request) -> web.Response:
        self.reset()
        return web.json_response(_stats_json(self._ledger.snapshot()))

    async def models(self, request: web.Request) -> web.Response:
        self._authorise(request)
        return web.json_response(wire.models(self._config.models, self._created))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._counted(request, self._chat)

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        return await self._counted(request, self._embed)

    async def _counted(
        self, request: web.Request, handle: Callable[[web.Request, Tally], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        tally = self._ledger.arrive()
        status = CLIENT_GONE
        try:
            answer = await handle(request, tally)
            status = answer.status
            return answer
        except ApiError as error:
            status = error.status
            raise
        except web.HTTPException as error:
            status = error.status
            raise
        except ConnectionError:
            raise
        except Exception:
            status = 500
            raise
        finally:
            self._ledger.leave(tally, status)
            if self._config.log_requests:
                log.info("%s %s %d", request.method, request.path, status)

    async def _chat(self, request: web.Request, tally: Tally) -> web.StreamResponse:
        self._authorise(request)
        chat = parse_chat(await request.read())
        reply = wire.compose(chat, self._book)
        quota, now = self._quota, time.monotonic()
        admission, headers = self._admitted(chat.reserved, chat.model, tally, now)
        delivery = Delivery(
            chat=chat,
            reply=reply,
            pace=draw_pace(chat.prompt, seed=self._config.seed, scale=self._config.latency),
            identity=f"chatcmpl-{self._created:x}{next(self._numbers):08x}",
            created=int(time.time()),
            headers={**headers, GROUP_HEADER: _header_safe(reply.group)},
            start=now,
        )
        try:
            return await (_stream(request, delivery) if chat.stream else _whole(delivery))
        finally:
            quota.settle(admission, chat.prompt_tokens + delivery.produced, time.monotonic())
            self._ledger.settle(tally, chat.prompt_tokens, delivery.produced)

    async def _embed(self, request: web.Request, tally: Tally) -> web.StreamResponse:
        self._authorise(request)
        wanted = parse_embedding(await request.read())
        now = time.monotonic()
        _, headers = self._admitted(wanted.tokens, wanted.model, tally, now)
        try:
            seed, scale = self._config.seed, self._config.latency
            took = draw_embedding_time("\n".join(wanted.texts), wanted.tokens, seed=seed, scale=scale)
            body = embedding_list(wanted, vectors(wanted, self._book))
            await asyncio.sleep(max(0.0, now + took - time.monotonic()))
            return web.json_response(body, headers=headers)
        finally:
            self._ledger.settle(tally, wanted.tokens, 0)

    def _admitted(self, tokens: int, model: str, tally: Tally, now: float) -> tuple[Admission, dict[str, str]]:
        """What the quota charged, and the headers that tell where it stands. Raises the 429 of a refusal."""
        verdict = self._quota.admit(tokens, now)
        levels = self._quota.levels(now)
        if isinstance(verdict, Rejection):
            raise wire.refusal(verdict, model, levels)
        self._ledger.admit(tally)
        return verdict, wire.limit_headers(levels)

    def _authorise(self, request: web.Request) -> None:
        if not self._config.require_key:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.casefold() != "bearer" or not key.strip():
            message = "You didn't provide an API key. You need to provide it in an Authorization header "
            raise ApiError(401, f"{message}using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).")


async def _until(delivery: Delivery, tokens: int) -> None:
    """Sleep until `tokens` tokens of each choice are due."""
    delay = delivery.start + delivery.pace.due(tokens) - time.monotonic()
    if delay > 0:
        await asyncio.sleep(delay)


async def _whole(delivery: Delivery) -> web.Response:
    chat, reply = delivery.chat, delivery.reply
    try:
        await _until(delivery, reply.tokens)
        delivery.produced = reply.tokens * chat.n
    except asyncio.CancelledError:
        spent = time.monotonic() - delivery.start - delivery.pace.first
        delivery.produced = min(reply.tokens, max(0, int(spent * delivery.pace.rate))) * chat.n
        raise
    body = wire.completion(delivery.identity, delivery.created, chat, reply)
    return web.json_response(body, headers=delivery.headers)


class _Stream(web.StreamResponse):
    """A response whose last bytes leave when its handler is done: who has read the end finds the request counted."""

    def __init__(self, headers: dict[str, str], ending: bytes) -> None:
        super().__init__(headers=headers)
        self._ending = ending

    async def write_eof(self, data: bytes = b"") -> None:
        ending, self._ending = self._ending, b""
        await super().write_eof(ending + data)


async def _stream(request: web.Request, delivery: Delivery) -> web.StreamResponse:
    """Server-sent events, each when its tokens are due; events due at the same time leave in one write."""
    chat, reply = delivery.chat, delivery.reply
    response = _Stream({**delivery.headers, "cache-control": "no-cache"}, _ending(delivery).encode())
    response.content_type = "text/event-stream"
    response.charset = "utf-8"
    await _until(delivery, 0)
    await response.prepare(request)
    waiting: list[str] = []
    made = 0
    for tokens, events in _events(delivery):
        if delivery.start + delivery.pace.due(made) > time.monotonic():
            await response.write("".join(waiting).encode())
            waiting.clear()
            await _until(delivery, made)
        waiting.append(events)
        made += tokens
        delivery.produced = made * chat.n
    await response.write("".join(waiting).encode())
    await _until(delivery, reply.tokens)
    return response


def _events(delivery: Delivery) -> Iterator[tuple[int, str]]:
    """Tokens and events of the opening and of every piece, for all choices."""
    reply = delivery.reply
    yield 0, _chunks(delivery, wire.first_delta(delivery.identity, reply), None)
    for piece in split(reply.text):
        yield piece.tokens, _chunks(delivery, wire.next_delta(reply, piece.text), None)


def _ending(delivery: Delivery) -> str:
    closing = _chunks(delivery, {}, delivery.reply.finish)
    if delivery.chat.include_usage:
        used = wire.usage(delivery.chat, delivery.reply.tokens * delivery.chat.n)
        closing += _event({**_chunk_head(delivery), "choices": [], "usage": used})
    return closing + "data: [DONE]\n\n"


def _chunks(delivery: Delivery, delta: dict[str, Any], finish: str | None) -> str:
    base = _chunk_head(delivery)
    if delivery.chat.include_usage:
        base["usage"] = None
    choice = {"delta": delta, "logprobs": None, "finish_reason": finish}
    return "".join(_event({**base, "choices": [{"index": i, **choice}]}) for i in range(delivery.chat.n))


def _chunk_head(delivery: Delivery) -> dict[str, Any]:
    identity, created = delivery.identity, delivery.created
    return wire.head(identity, created, delivery.chat, delivery.reply, "chat.completion.chunk")


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"


def _stats_json(stats: Stats) -> dict[str, Any]:
    return {**asdict(stats), "by_status": {str(code): number for code, number in stats.by_status.items()}}


def _header_safe(text: str) -> str:
    """A group id as a header value; characters a header cannot carry become ``?``."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)


@web.middleware
async def speak_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in the shape of the API."""
    try:
        return await handler(request)
    except ApiError as error:
        return _error_response(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _error_response(_from_http(request, error))
    except ConnectionError:
        raise
    except Exception:
        log.exception("unexpected error in the simulator")
        return _error_response(ApiError(500, "The server had an error.", kind="server_error"))


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


def _error_response(error: ApiError) -> web.Response:
    return web.json_response(error.body, status=error.status, headers=error.headers)


async def serve(
    provider: Provider, config: SimulatorConfig, ready: Callable[[int], None], stop: asyncio.Event
) -> None:
    """Listen until `stop` is set; `ready` is called with the port. Requests in flight are then cancelled."""
    runner = web.AppRunner(
        provider.application(),
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,
        shutdown_timeout=0.05,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, config.host, config.port, backlog=1024)
        await site.start()
        ready(runner.addresses[0][1])
        await stop.wait()
    finally:
        await runner.cleanup()
