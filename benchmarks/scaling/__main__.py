"""``python -m benchmarks.scaling``: a cluster of Redis beside one, two gateways beside one (some four minutes)."""

from __future__ import annotations

import argparse

from benchmarks.scaling import cluster, gateways


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--only", choices=["cluster", "gateways"])
    only = parser.parse_args().only
    if only != "gateways":
        single, many, caches = cluster.measured()
        print(f"an exact hit: {single.exact:.0f} µs on one Redis, {many.exact / single.exact:.2f} of it on a cluster")
        print(f"a near one:   {single.near:.0f} µs on one Redis, {many.near / single.near:.2f} of it on a cluster")
        print(f"{len(cluster.PREFIXES)} caches on the nodes of the cluster: {caches}")
    if only != "cluster":
        found, calls, hit = gateways.shared()
        print(f"answers of one gateway that another one finds: {found} of {gateways.QUESTIONS}")
        print(f"calls for a question asked of both at once: {calls:.2f}")
        print(f"processor time of a gateway for an exact hit: {hit:.2f} ms")
        for count in (1, 2):
            spent = gateways.spent(count)
            print(f"{count} before a quota: {spent.share:.1%} used, {spent.refused} 429s, answered {spent.answered}")


if __name__ == "__main__":
    main()
