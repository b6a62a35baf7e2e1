"""The simulator as an object: a server on its own thread and event loop, so that any client may call it."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING

from dispatch_core.errors import MissingExtra
from dispatch_core.simulate.answers import AnswerBook
from dispatch_core.simulate.config import SimulatorConfig
from dispatch_core.simulate.faults import Fault, Faults
from dispatch_core.simulate.ledger import Ledger, Stats

if TYPE_CHECKING:
    from dispatch_core.simulate.server import Provider

START_TIMEOUT = 30.0


class Simulator:
    """A provider with the protocols of OpenAI and Anthropic on a local port.

    >>> with Simulator(SimulatorConfig(tpm=10_000)) as simulator:  # doctest: +SKIP
    ...     client = openai.OpenAI(base_url=simulator.url, api_key="any")

    Creating one raises `ConfigError` for files that make no sense; starting it `ConfigError` for limits that
    make none, `MissingExtra` without aiohttp, OSError when the port is taken. One object may be started again
    after it was stopped; its counters go on.
    """

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        self.config = config or SimulatorConfig()
        self.book = AnswerBook.load(self.config.groups, self.config.answers)
        self._ledger = Ledger()
        self._faults = Faults(self.config.faults, seed=self.config.seed, now=time.monotonic())
        self._provider: Provider | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The base URL for a client: ``http://HOST:PORT/v1``."""
        return f"{self.root}/v1"

    @property
    def root(self) -> str:
        """The URL that ``/health``, ``/stats``, ``/reset`` and ``/faults`` hang on; base URL of Anthropic's SDK."""
        if self._thread is None:
            raise RuntimeError("the simulator is not running")
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"http://{host}:{self._port}"

    def start(self) -> Simulator:
        """Listen; returns when connections are accepted. Starting a running simulator is an error."""
        if self._thread is not None:
            raise RuntimeError("the simulator is running already")
        try:
            from dispatch_core.simulate.server import Provider
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "aiohttp":
                raise
            raise MissingExtra("the simulator", "simulate") from error
        provider = Provider(self.config, self.book, self._ledger, self._faults)
        ready: Future[int] = Future()
        target, name = self._run, "dispatcher-simulator"
        thread = threading.Thread(target=target, args=(provider, ready), name=name, daemon=True)
        thread.start()
        try:
            self._port = ready.result(START_TIMEOUT)
        except BaseException:
            thread.join(START_TIMEOUT)
            raise
        self._provider, self._thread = provider, thread
        return self

    def _run(self, provider: Provider, ready: Future[int]) -> None:
        async def main() -> None:
            from dispatch_core.simulate.server import serve

            self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
            await serve(provider, self.config, ready.set_result, self._stopping)

        try:
            asyncio.run(main())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    def stop(self) -> None:
        """Cancel what is in flight and close the port. Stopping a stopped simulator is no error."""
        if self._thread is None or self._loop is None or self._stopping is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = self._loop = self._stopping = self._provider = None

    def stats(self) -> Stats:
        """The counters since the start or the last reset."""
        return self._ledger.snapshot()

    def inject(self, *faults: Fault) -> None:
        """Set `faults` instead of those before, from now on; none ends them all."""
        self._faults.replace(faults, time.monotonic())

    def reset(self) -> None:
        """Zero the counters, fill the quota, set the faults of the start; requests in flight keep the old quota."""
        if self._provider is None:
            self._ledger.reset()
        else:
            self._provider.reset()

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Block until no request is in flight; False when `timeout` seconds were not enough."""
        return self._ledger.wait_idle(timeout)

    def __enter__(self) -> Simulator:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
