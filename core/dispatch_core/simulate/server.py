"""The simulator's handlers: count, ask the quota, let a fault strike, deliver."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from dispatch_core.errors import ConfigError
from dispatch_core.simulate import reply as wire
from dispatch_core.simulate.answers import AnswerBook
from dispatch_core.simulate.completions import ChatCompletions
from dispatch_core.simulate.config import SimulatorConfig
from dispatch_core.simulate.delivery import BrokenOff, Delivery, hang_up, server_error, silence, stream, whole
from dispatch_core.simulate.dialect import Dialect, Exchange
from dispatch_core.simulate.embeddings import embedding_list, parse_embedding, vectors
from dispatch_core.simulate.faults import Fault, Faults
from dispatch_core.simulate.ledger import BROKEN_OFF, CLIENT_GONE, Ledger, Stats, Tally
from dispatch_core.simulate.messages import Messages
from dispatch_core.simulate.quota import Admission, Quota, Rejection
from dispatch_core.simulate.request import ApiError
from dispatch_core.simulate.text import draw_embedding_time, draw_pace
from dispatch_core.simulate.text_completions import TextCompletions
from dispatch_core.simulate.web import MAX_BODY, authorise, require_version, speak_json

GROUP_HEADER = "x-simulated-group"
FAULT_HEADER = "x-simulated-fault"

log = logging.getLogger(__name__)


class Provider:
    """The handlers of one simulated provider, on one event loop; any thread may read the ledger."""

    def __init__(self, config: SimulatorConfig, book: AnswerBook, ledger: Ledger, faults: Faults) -> None:
        self._config = config
        self._book = book
        self._ledger = ledger
        self._faults = faults
        self._created = int(time.time())
        self._numbers = itertools.count(1)
        self._quota = self._fresh_quota()
        self._completions: Dialect = ChatCompletions()
        self._texts: Dialect = TextCompletions()
        self._messages: Dialect = Messages()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY, middlewares=[speak_json])
        add = app.router
        add.add_post("/v1/chat/completions", self.chat)
        add.add_post("/v1/completions", self.complete)
        add.add_post("/v1/messages", self.messages)
        add.add_post("/v1/embeddings", self.embeddings)
        add.add_get("/v1/models", self.models)
        add.add_get("/health", self.health)
        add.add_get("/stats", self.stats)
        add.add_post("/reset", self.reset_all)
        add.add_get("/faults", self.list_faults)
        add.add_post("/faults", self.set_faults)
        add.add_delete("/faults", self.clear_faults)
        return app

    def reset(self) -> None:
        """Zero the counters, fill the quota, set the faults of the start. Requests in flight keep the old quota."""
        self._ledger.reset()
        self._quota = self._fresh_quota()
        self._faults.replace(self._config.faults, time.monotonic())

    def _fresh_quota(self) -> Quota:
        limits = self._config
        return Quota(
            rpm=limits.rpm,
            tpm=limits.tpm,
            itpm=limits.itpm,
            otpm=limits.otpm,
            window=limits.window,
            style=limits.style,
            start=time.monotonic(),
        )

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response(_stats_json(self._ledger.snapshot()))

    async def reset_all(self, request: web.Request) -> web.Response:
        self.reset()
        return web.json_response(_stats_json(self._ledger.snapshot()))

    async def list_faults(self, request: web.Request) -> web.Response:
        return web.json_response([asdict(fault) for fault in self._faults.live(time.monotonic())])

    async def set_faults(self, request: web.Request) -> web.Response:
        """Set one fault or a list of them instead of those before."""
        try:
            told: Any = json.loads(await request.read())
            faults = [Fault.of(one) for one in (told if isinstance(told, list) else [told])]
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ApiError(400, f"Expected a fault or a list of faults: {error}") from error
        self._faults.replace(faults, time.monotonic())
        return await self.list_faults(request)

    async def clear_faults(self, request: web.Request) -> web.Response:
        self._faults.replace((), time.monotonic())
        return web.json_response([])

    async def models(self, request: web.Request) -> web.Response:
        authorise(request, self._config)
        return web.json_response(wire.models(self._config.models, self._created))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._counted(request, lambda tally: self._answer(request, tally, self._completions))

    async def complete(self, request: web.Request) -> web.StreamResponse:
        return await self._counted(request, lambda tally: self._answer(request, tally, self._texts))

    async def messages(self, request: web.Request) -> web.StreamResponse:
        async def versioned(tally: Tally) -> web.StreamResponse:
            require_version(request)
            return await self._answer(request, tally, self._messages)

        return await self._counted(request, versioned)

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        return await self._counted(request, lambda tally: self._embed(request, tally))

    async def _counted(
        self, request: web.Request, handle: Callable[[Tally], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        tally = self._ledger.arrive()
        status = CLIENT_GONE
        try:
            answer = await handle(tally)
            status = answer.status
            return answer
        except (ApiError, web.HTTPException) as error:
            status = error.status
            raise
        except BrokenOff:
            status = BROKEN_OFF
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

    async def _answer(self, request: web.Request, tally: Tally, dialect: Dialect) -> web.StreamResponse:
        authorise(request, self._config)
        chat = dialect.parse(await request.read())
        reply = wire.compose(chat, self._book, grounded=self._config.grounded)
        quota, now = self._quota, time.monotonic()
        fault = self._struck(request, tally, now)
        identity = f"{dialect.identity}{self._created:x}{next(self._numbers):08x}"
        exchange = Exchange(chat, reply, identity, int(time.time()))
        admission, headers = self._admitted(dialect, exchange, tally, now)
        pace = draw_pace(chat.prompt, seed=self._config.seed, scale=self._config.latency)
        delivery = Delivery(
            dialect=dialect,
            exchange=exchange,
            pace=fault.slowed(pace) if fault else pace,
            headers={**headers, GROUP_HEADER: _header_safe(reply.group)},
            start=now,
            fault=fault,
        )
        try:
            return await (stream if chat.stream else whole)(request, delivery)
        finally:
            made = delivery.produced
            prompt, total = chat.prompt_tokens, chat.prompt_tokens + made
            quota.settle(admission, total, time.monotonic(), input_tokens=prompt, output_tokens=made)
            self._ledger.settle(tally, prompt, made)

    async def _embed(self, request: web.Request, tally: Tally) -> web.StreamResponse:
        authorise(request, self._config)
        wanted = parse_embedding(await request.read())
        now = time.monotonic()
        fault = self._struck(request, tally, now)
        verdict = self._quota.admit(wanted.tokens, now, input_tokens=wanted.tokens)
        levels = self._quota.levels(now)
        if isinstance(verdict, Rejection):
            raise wire.refusal(verdict, wanted.model, levels)
        self._ledger.admit(tally)
        try:
            if fault is not None:
                await _befall(request, fault)
            seed, scale = self._config.seed, self._config.latency
            took = draw_embedding_time("\n".join(wanted.texts), wanted.tokens, seed=seed, scale=scale)
            body = embedding_list(wanted, vectors(wanted, self._book))
            await asyncio.sleep(max(0.0, now + took - time.monotonic()))
            return web.json_response(body, headers=wire.limit_headers(levels))
        finally:
            self._ledger.settle(tally, wanted.tokens, 0)

    def _struck(self, request: web.Request, tally: Tally, now: float) -> Fault | None:
        """The fault this request meets. Raises the 429 of a ``rate_limit``, which is never admitted."""
        told = request.headers.get(FAULT_HEADER)
        try:
            fault = Fault.parse(told) if told else self._faults.strike(now)
        except ConfigError as error:
            raise ApiError(400, f"{FAULT_HEADER}: {error}") from error
        if fault is not None:
            self._ledger.strike(tally)
            if fault.kind == "rate_limit":
                raise wire.throttled(fault.seconds)
        return fault

    def _admitted(
        self, dialect: Dialect, exchange: Exchange, tally: Tally, now: float
    ) -> tuple[Admission, dict[str, str]]:
        """What the quota charged, and the headers that tell where it stands. Raises the 429 of a refusal."""
        chat = exchange.chat
        verdict = self._quota.admit(dialect.reserved(chat), now, input_tokens=chat.prompt_tokens)
        levels = self._quota.levels(now)
        if isinstance(verdict, Rejection):
            raise dialect.refusal(verdict, chat.model, levels, time.time())
        self._ledger.admit(tally)
        return verdict, dialect.limits(levels, time.time())


async def _befall(request: web.Request, fault: Fault) -> None:
    """What a fault does to an answer that has no tokens, before it leaves."""
    match fault.kind:
        case "break":
            raise hang_up(request)
        case "error":
            raise server_error(fault)
        case _:
            await silence(fault.seconds)


def _stats_json(stats: Stats) -> dict[str, Any]:
    by_status = {str(code): number for code, number in stats.by_status.items()}
    return {**asdict(stats), "by_status": by_status, "cpu_seconds": time.process_time()}


def _header_safe(text: str) -> str:
    """A group id as a header value; characters a header cannot carry become ``?``."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)


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
