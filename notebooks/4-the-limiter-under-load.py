# %% [markdown]
# # The limiter under load
#
# A burst of calls, a quota that is too small for it. Bare, the provider does the queueing: with 429s, retries and
# calls that fail. With a limiter the queue is yours: in order, with a place for each call, and nothing is refused.
#
# The provider is a simulated one on this machine, with a sliding window of twelve seconds instead of a minute.

# %%
import asyncio
import time

import openai
from tqdm.auto import tqdm

import figures
from dispatch_core import LimitExceeded, TokenLimiter, Usage
from dispatch_core.simulate import Simulator, SimulatorConfig

quota = {"rpm": 200, "tpm": 60_000, "window": 12.0}
provider = Simulator(SimulatorConfig(**quota, latency=0.5)).start()

# 60 calls within six seconds; the quota is 40 in any twelve.
prompts = [f"Summarise ticket {number} of the help desk in two sentences." for number in range(60)]
spacing = 0.1


async def send(client, prompt):
    """One request, no retries: its status, its headers, its tokens."""
    messages = [{"role": "user", "content": prompt}]
    try:
        raw = await client.chat.completions.with_raw_response.create(model="sim", messages=messages, max_tokens=120)
    except openai.APIStatusError as refused:
        return refused.status_code, refused.response.headers, None
    used = raw.parse().usage
    return raw.status_code, raw.headers, Usage(used.prompt_tokens, used.completion_tokens)


async def burst(call, name):
    """All prompts, one every `spacing` seconds, whatever became of those before."""
    async with openai.AsyncOpenAI(base_url=provider.url, api_key="none", max_retries=0) as client:
        # The first call opens a connection; it is not measured.
        await send(client, "Is anybody there?")
        provider.reset()
        with tqdm(total=len(prompts), desc=name) as bar:
            start = time.perf_counter()

            async def one(number, prompt):
                await asyncio.sleep(number * spacing)
                called = await call(client, prompt, start)
                bar.update()
                return called

            return await asyncio.gather(*(one(number, prompt) for number, prompt in enumerate(prompts)))


# %% [markdown]
# ## Bare: retry, a little later each time
#
# What an SDK does: up to two retries, after half a second and after one.


# %%
async def bare(client, prompt, start):
    asked = time.perf_counter() - start
    refused = []
    for pause in (0.5, 1.0, None):
        status, _, _ = await send(client, prompt)
        if status != 429:
            break
        refused.append(time.perf_counter() - start)
        if pause is not None:
            await asyncio.sleep(pause)
    return figures.Call(asked, asked, time.perf_counter() - start, refused, failed=status == 429)


bare_calls = await burst(bare, "bare")
bare_stats = provider.stats()

# %% [markdown]
# ## Dispatched: reserve, send, settle
#
# The reservation waits for its turn. Settling gives back what was estimated too high, so that the next may go.

# %%
limiter = TokenLimiter(**quota)
print("one call is estimated at", limiter.estimate(prompts[0], max_tokens=120))
samples = []


async def dispatched(client, prompt, start):
    asked = time.perf_counter() - start
    refused = []
    async with limiter.reserve(prompt, max_tokens=120) as reservation:
        sent = time.perf_counter() - start
        status, headers, usage = await send(client, prompt)
        while reservation.throttled(status, headers):
            refused.append(time.perf_counter() - start)
            await reservation.aagain()
            status, headers, usage = await send(client, prompt)
        reservation.settle(usage, headers)
    return figures.Call(asked, sent, time.perf_counter() - start, refused)


async def sampled(start):
    while True:
        now = limiter.stats()
        samples.append((time.perf_counter() - start, now.waiting, now.open, now.gauges["requests"].used))
        await asyncio.sleep(0.05)


sampling = asyncio.create_task(sampled(time.perf_counter()))
calls = await burst(dispatched, "dispatched")
sampling.cancel()
stats = provider.stats()

# %%
for name, seen, its in (("bare", bare_stats, bare_calls), ("dispatched", stats, calls)):
    done = [call.done - call.asked for call in its if not call.failed]
    print(f"{name}: {seen.rejected_429} of {seen.requests} requests were refused,")
    print(f"    {len(its) - len(done)} of {len(its)} calls failed, the slowest answer took {max(done):.1f} s")

# %% [markdown]
# ## The queue, call by call

# %%
figures.queue_timeline({"bare": bare_calls, "dispatched": calls})

# %% [markdown]
# Bare, the first get everything at once, and the last nothing. With the limiter everyone is served, in the order of
# asking; faster than the quota is nothing.
#
# Should a 429 stand on the right, too, then this very process stalled: the limiter frees a place a tenth of a second
# after the provider would, and the place of a request that left later than that is not free yet. `throttled` gives
# the reservation back, and the call goes again before all who came later.
#
# ## The same from inside

# %%
figures.gauge_timeline(samples, limit=limiter.stats().gauges["requests"].limit)

# %%
limiter.stats()

# %% [markdown]
# ## Not everybody can wait
#
# `eta` says how long a call made now would wait, behind all who wait already; one of another `priority` goes before
# them. With a `timeout` a call is refused at once if its turn would come later.


# %%
async def in_line():
    async with limiter.reserve(20, max_tokens=120) as reservation:
        reservation.settle(Usage(20, 60))


line = [asyncio.create_task(in_line()) for _ in range(60)]
while not limiter.stats().waiting:
    await asyncio.sleep(0)
print(f"{limiter.stats().waiting} calls wait; one more would wait {limiter.eta(20, max_tokens=120):.1f} s,")
print(f"with a priority before theirs {limiter.eta(20, max_tokens=120, priority=-1):.1f} s")
try:
    async with limiter.reserve(20, max_tokens=120, timeout=0.5):
        pass
except LimitExceeded as refusal:
    print("refused:", refusal)
for task in line:
    task.cancel()

# %% [markdown]
# ## A 429 all the same?
#
# Somebody else uses your key, or the limits you gave were too high. The limiter reads what the provider said: how
# long to wait, which quota is exhausted, and whether waiting helps at all.

# %%
limiter.throttled(
    429,
    {"retry-after-ms": "1500"},
    {"error": {"code": "rate_limit_exceeded", "message": "Rate limit reached on tokens per min (TPM)"}},
)

# %%
limiter.throttled(429, {}, {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}})

# %% [markdown]
# ## Synchronous code is limited by the same object
#
# `with` instead of `async with`: threads, event loops and this notebook's cells wait in one queue.

# %%
from concurrent.futures import ThreadPoolExecutor

sync_client = openai.OpenAI(base_url=provider.url, api_key="none", max_retries=0)


def ask(prompt):
    with limiter.reserve(prompt, max_tokens=120) as reservation:
        reply = sync_client.chat.completions.create(
            model="sim", messages=[{"role": "user", "content": prompt}], max_tokens=120
        )
        reservation.settle(Usage(reply.usage.prompt_tokens, reply.usage.completion_tokens))
        return reply.usage.total_tokens


print("a loop is running here:", asyncio.get_running_loop().is_running())
provider.reset()
with ThreadPoolExecutor(8) as threads:
    tokens = list(threads.map(ask, prompts[:12]))
print(f"{len(tokens)} answers through threads, {sum(tokens)} tokens, {provider.stats().rejected_429} × 429")

# %%
sync_client.close()
provider.stop()
