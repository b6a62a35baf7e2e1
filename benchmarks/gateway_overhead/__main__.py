"""``python -m benchmarks.gateway_overhead``: what the gateway adds to a call."""

from __future__ import annotations

import argparse
import asyncio

from benchmarks.gateway_overhead import hits, misses


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway_overhead", description=__doc__)
    parser.add_argument("--requests", type=int, default=1500, help="in each pass (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="passes of each arm, the first not counted")
    parser.add_argument("--in-flight", type=int, default=50, help="calls at once (default: %(default)s)")
    parser.add_argument(
        "--latency", type=float, default=0.1, help="of the upstream, in seconds (default: %(default)s)"
    )
    options = parser.parse_args()
    told = {"requests": options.requests, "rounds": options.rounds, "in_flight": options.in_flight}
    for spread, said in ((0.25, "25 % more or less"), (0.0, "exactly: who asks at once is answered at once")):
        slow = misses.measured(options.latency, spread=spread, **told)
        print(f"{options.in_flight} in flight; an upstream that takes {options.latency * 1000:.0f} ms, {said}")
        print(misses.latencies(slow))
    print(f"{options.in_flight} in flight; an upstream that takes no time")
    print(misses.rates(misses.measured(0.0, **told)))
    print(asyncio.run(hits.measured(options.rounds)))


if __name__ == "__main__":
    main()
