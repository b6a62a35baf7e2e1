"""The gateway's HTTP server: uvicorn, told when to drain and when to read its settings anew."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn

from dispatch_core.errors import DispatchError
from dispatch_gateway.app import gateway
from dispatch_gateway.config import Settings
from dispatch_gateway.line import Line
from dispatch_gateway.service import Service

log = logging.getLogger("dispatch_gateway")

_BACKLOG = 2048
_YOUNG = 10_000
_LAST_WORDS = 1
_TICKS = 10
"""Of uvicorn's, in a second."""


class Server(uvicorn.Server):
    """Serves one gateway. ``ready`` is called with the port when connections are accepted.

    On the first signal to stop, calls under way are finished for as long as the settings say, new ones are refused
    with 503; then, or on a second signal, connections are closed.
    """

    def __init__(
        self, service: Service, *, ready: Callable[[int], None], reread: Callable[[], Settings] | None = None
    ) -> None:
        listen = service.settings.listen
        super().__init__(
            uvicorn.Config(
                gateway(service.settings, service),
                host=listen.host,
                port=listen.port,
                http=Line,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=_LAST_WORDS,
            )
        )
        self._service = service
        self._ready = ready
        self._reread = reread
        self._drained_by = 0.0
        self.cut_off = False
        self.told_to_reload = False

    def drain(self) -> None:
        """Begin to stop; a second time, stop. To be called from a signal handler or another thread."""
        if self._service.draining:
            self.cut_off = self._service.under_way > 0
            self.should_exit = True
            return
        self._drained_by = time.monotonic() + self._service.settings.timeouts.drain
        self._service.draining = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.drain()

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup()
        if not self.should_exit:
            self._ready(self.servers[0].sockets[0].getsockname()[1])

    async def on_tick(self, counter: int) -> bool:
        service = self._service
        if self.told_to_reload:
            self.told_to_reload = False
            self._reload()
        if service.draining and not self.should_exit:
            late = time.monotonic() >= self._drained_by
            self.cut_off = late and service.under_way > 0
            self.should_exit = late or not service.under_way
        if counter % _TICKS == 0:
            now, total = time.monotonic(), service.settings.timeouts.total
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, Line):
                    connection.ended_if_still(now, total)
        return await super().on_tick(counter)

    def _reload(self) -> None:
        """Settings that cannot work change nothing."""
        if self._reread is None:
            return
        try:
            needs_start = self._service.reload(self._reread())
        except DispatchError as error:
            log.error("settings were not taken over: %s", error)
            return
        log.info("keys, models and limits were read anew")
        if needs_start:
            log.warning("a new start is needed for: %s", ", ".join(needs_start))


def serve(settings: Settings, *, reread: Callable[[], Settings], reload_signal: signal.Signals | None) -> int:
    """Serve on the main thread until a signal: 0 when all calls were finished, else 1."""

    def ready(port: int) -> None:
        # What is here by now stays: it need not be looked through again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG)
        print(f"dispatcher serves {settings.listen.url(port)}", file=sys.stdout, flush=True)

    server = Server(Service(settings), ready=ready, reread=reread)

    def reload(number: int, frame: FrameType | None) -> None:
        server.told_to_reload = True

    before = None if reload_signal is None else signal.signal(reload_signal, reload)
    try:
        # It exits by itself, with a code of its own, when the port is taken.
        with suppress(SystemExit):
            server.run()
    finally:
        if reload_signal is not None:
            signal.signal(reload_signal, before)
    return int(server.cut_off or not server.started)
