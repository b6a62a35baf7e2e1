"""``dispatcher simulate``: the simulator in the foreground, until a signal."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from dispatch_core.simulate.config import SimulatorConfig
from dispatch_core.simulate.faults import KINDS, Fault
from dispatch_core.simulate.quota import STYLES
from dispatch_core.simulate.simulator import Simulator

FAULT_HELP = (
    f"what goes wrong, as 'KIND; name=value; ...': {', '.join(KINDS)} with share, count, lasting, status, seconds, "
    "after_tokens; may be given several times, the first that applies strikes"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dispatcher simulate`` on `parser`."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=8089, help="port to listen on, 0 for a free one (default: %(default)s)")
    add("--rpm", type=int, help="requests per minute (default: unlimited)")
    add("--tpm", type=int, help="tokens per minute (default: unlimited)")
    add("--itpm", type=int, help="input tokens per minute (default: unlimited)")
    add("--otpm", type=int, help="output tokens per minute (default: unlimited)")
    add("--window", type=float, default=60.0, help="seconds the quota is counted over (default: %(default)s)")
    add("--style", choices=STYLES, default="sliding", help="how the quota is counted (default: %(default)s)")
    add("--questions", type=Path, metavar="FILE", help="JSON Lines of group and text")
    add("--answers", type=Path, metavar="FILE", help="JSON Lines of group and answer")
    add("--grounded", action="store_true", help="give a listed answer only if it stands in the prompt")
    add("--latency", type=float, default=1.0, help="factor on all times, 0 for none (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the times drawn (default: %(default)s)")
    add("--require-key", action="store_true", help="answer 401 to requests without an API key")
    add("--fault", action="append", default=[], metavar="FAULT", help=FAULT_HELP)
    add("--log-requests", action="store_true", help="log method, path and status of every request")


def run(namespace: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM, on the main thread; 0 when told to stop, 2 when it could not start."""
    done = threading.Event()
    if namespace.log_requests:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        config = SimulatorConfig(
            host=namespace.host,
            port=namespace.port,
            rpm=namespace.rpm,
            tpm=namespace.tpm,
            itpm=namespace.itpm,
            otpm=namespace.otpm,
            window=namespace.window,
            style=namespace.style,
            groups=namespace.questions,
            answers=namespace.answers,
            grounded=namespace.grounded,
            latency=namespace.latency,
            seed=namespace.seed,
            require_key=namespace.require_key,
            log_requests=namespace.log_requests,
            faults=tuple(map(Fault.parse, namespace.fault)),
        )
        simulator = Simulator(config).start()
    except (ImportError, OSError, ValueError) as error:
        print(f"dispatcher simulate: {error}", file=sys.stderr)
        return 2
    before = {number: signal.signal(number, lambda *_: done.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        print(f"simulated provider on {simulator.url} ({_limits(config)})", flush=True)
        done.wait()
    finally:
        simulator.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _limits(config: SimulatorConfig) -> str:
    counts = {
        "requests": config.rpm,
        "tokens": config.tpm,
        "input tokens": config.itpm,
        "output tokens": config.otpm,
    }
    limits = [f"{limit} {name} a minute" for name, limit in counts.items() if limit is not None]
    return f"{' and '.join(limits)}, {config.style}, window {config.window:g} s" if limits else "no limits"


def main(argv: Sequence[str] | None = None) -> int:
    """The command on its own: parse `argv` and `run`."""
    parser = argparse.ArgumentParser(prog="dispatcher simulate", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))
