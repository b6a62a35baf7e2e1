# %% [markdown]
# # The gateway
#
# Cache and limiter as a service of their own: whatever speaks OpenAI's protocol, in any language, changes its
# `base_url` and nothing else. Here a gateway runs as a process of its own, in front of a simulated provider, and the
# `openai` SDK asks it. Nothing leaves your machine.

# %%
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_urlsafe

import openai
from IPython.display import HTML
from tqdm.auto import tqdm

import figures
import traffic
from benchmarks.demo.trace import ANSWERS, HANDBOOK
from dispatch_core.simulate import Simulator, SimulatorConfig
from dispatch_gateway.config import hash_of

askings = traffic.help_desk(100)
folder = tempfile.TemporaryDirectory()
meanings = traffic.written([*askings, *traffic.english()], Path(folder.name))

quota = {"rpm": 360, "tpm": 60_000, "window": 10.0}
provider = Simulator(SimulatorConfig(**quota, groups=meanings, answers=ANSWERS, latency=0.5)).start()

# %% [markdown]
# ## Settings
#
# One file. Secrets and addresses come from the environment; of a virtual key only the hash is kept. What is misspelt
# is refused at the start, with its path.

# %%
settings = """
listen: {port: 0}                 # any free one, on this machine only
timeouts: {queue: 20}             # nobody waits longer for his turn
models:
  "*":
    - name: provider
      base_url: ${PROVIDER}
      api_key: provider-key       # what the provider knows; callers never see it
      limits: {rpm: 360, tpm: 60000, window: 10}
keys:
  - {name: desk, hash: "${DESK}", namespace: desk}
  - {name: shop, hash: "${SHOP}", namespace: shop}
  - {name: trial, hash: "${TRIAL}", namespace: trial, limits: {rpm: 3, burst: 60}}
"""
keys = {name: f"dk-{token_urlsafe(32)}" for name in ("desk", "shop", "trial")}
environment = {**os.environ, "PROVIDER": provider.url, **{name.upper(): hash_of(key) for name, key in keys.items()}}


def started(settings, name="dispatch"):
    """A gateway with these settings, and its address."""
    file, log = Path(folder.name, f"{name}.yaml"), Path(folder.name, f"{name}.log")
    file.write_text(settings)
    # dispatcher serve -c dispatch.yaml
    command = [sys.executable, "-m", "dispatch_core", "serve", "-c", str(file)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log.open("w"), text=True)
    return process, process.stdout.readline().split()[-1]


gateway, url = started(settings)
print("serving" if url.startswith("http://127.0.0.1:") else "not serving")

# %% [markdown]
# ## Asked by the SDK, unchanged
#
# Each answer says in its headers where it came from (`Cache-Status` is RFC 9211's), how old it is and what it
# saved. A hit costs nothing: its `usage` is zero.

# %%
client = openai.OpenAI(base_url=url, api_key=keys["desk"])
SHOWN = ("cache-status", "age", "x-dispatch-similarity", "x-dispatch-tokens-saved")


def asked(text, client=client, **options):
    """The answer to a question with its headers."""
    body = {"model": "sim-large", "messages": [{"role": "user", "content": text}], **options}
    raw = client.chat.completions.with_raw_response.create(**body)
    return raw.parse(), raw.headers


def table(rows):
    """Rows of a heading and cells, as HTML."""
    lines = ["".join(f"<td style='text-align:left'>{cell}</td>" for cell in row) for row in rows]
    return HTML("<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>")


first = "What are the opening hours of the Ghent store on weekdays?"
rows = [("<b>question</b>", "<b>tokens billed</b>", *(f"<b>{name}</b>" for name in SHOWN))]
for text in (
    first,
    first,
    "On weekdays, what are the opening hours of the Ghent store?",
    first.replace("Ghent", "Lyon"),
):
    answer, headers = asked(text)
    rows.append((text, answer.usage.total_tokens, *(headers.get(name, "") for name in SHOWN)))
table(rows)

# %% [markdown]
# The second is the first to the letter, the third in other words; the fourth only looks the same, and a guard saw it.
#
# A stream is served from the same entry, and replayed as a stream:

# %%
messages = [{"role": "user", "content": first}]
stream = client.chat.completions.create(model="sim-large", messages=messages, stream=True)
print(stream.response.headers["cache-status"])
pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
print(len(pieces), "pieces:", "".join(pieces))

# %% [markdown]
# ## Two keys never share
#
# Each virtual key has a namespace. What one was answered, another pays for anew, were the question the same.

# %%
shop = openai.OpenAI(base_url=url, api_key=keys["shop"])
for name, its in (("desk", client), ("shop", shop), ("shop", shop)):
    print(f"{name}: {asked(first, its)[1]['cache-status']}")
try:
    asked(first, openai.OpenAI(base_url=url, api_key="dk-somebody-else", max_retries=0))
except openai.AuthenticationError as refused:
    print("somebody else:", refused.status_code, refused.code)

# %% [markdown]
# ## A 429 that says when to come back
#
# The key `trial` may ask three times a minute. Who would have to wait longer than `timeouts.queue` is told at once,
# in the headers that SDKs heed. The provider heard nothing of it.

# %%
trial = openai.OpenAI(base_url=url, api_key=keys["trial"], max_retries=0)
provider.reset()
for number in range(4):
    try:
        asked(f"What does repair number {number} cost?", trial)
        print("answered")
    except openai.RateLimitError as refused:
        told = refused.response.headers
print({name: told[name] for name in ("retry-after", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests")})
print(provider.stats().requests, "requests reached the provider,", provider.stats().rejected_429, "× 429")

# %% [markdown]
# ## A morning at the help desk
#
# Popular questions in many wordings, faster than the quota allows: straight to the provider, then through the
# gateway. It is the same code both times, with the SDK's own retries; `base_url` is another.

# %%
rate = 15.0
repeated = traffic.repeats(askings)
print(f"{len(askings)} askings, {sum(repeated)} of them ask what was asked before, in any words")


def looked():
    """What the status page shows."""
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/status") as response:
        return json.load(response)


async def measured(base_url, key, name):
    async with openai.AsyncOpenAI(base_url=base_url, api_key=key) as client:

        async def ask(text):
            messages = [{"role": "user", "content": text}]
            raw = await client.chat.completions.with_raw_response.create(model="sim-large", messages=messages)
            answer = raw.parse()
            return answer.choices[0].message.content, answer.usage.total_tokens, raw.headers.get("cache-status", "")

        provider.reset()
        with tqdm(total=len(askings), desc=name) as bar:
            asked = await traffic.replay(askings, ask, rate=rate, on_done=bar.update)
        return asked, provider.stats()


async def sampled(start):
    """Waiting, under way and used, every tenth of a second."""
    while True:
        seen = await asyncio.to_thread(looked)
        used = next(one["used"] for one in seen["limits"] if (one["owner"], one["limit"]) == ("provider", "requests"))
        samples.append((time.perf_counter() - start, seen["waiting"], seen["under_way"] - seen["waiting"], used))
        await asyncio.sleep(0.1)


samples = []
bare, bare_bill = await measured(provider.url, "none", "bare")
sampling = asyncio.create_task(sampled(time.perf_counter()))
dispatched, bill = await measured(url, keys["desk"], "through the gateway")
sampling.cancel()
arms = {"bare": bare, "through the gateway": dispatched}


# %%
def summary(asked, bill):
    answered = [one for one in asked if one.reply is not None]
    wrong = sum(one.reply[0] != traffic.RIGHT[one.question.group] for one in answered)
    tokens = bill.prompt_tokens + bill.completion_tokens
    return (
        f"{bill.rejected_429:5} {len(asked) - len(answered):7} {tokens:9,} {tokens / len(answered):11.1f} {wrong:6}"
    )


print("             429s  failed    tokens  per answer  wrong")
print("bare       ", summary(bare, bare_bill))
print("gateway    ", summary(dispatched, bill))

# %%
figures.latency_histogram({name: [one.seconds for one in asked if one.reply] for name, asked in arms.items()})

# %% [markdown]
# On the left are hits: HTTP, the embedding and the lookup. On the right are, bare, the SDK's retries; through the
# gateway, the queue before the quota. Calls that failed are in no bar, and only the bare ones did.

# %%
billed = {name: [0 if one.reply is None else one.reply[1] for one in asked] for name, asked in arms.items()}
figures.cumulative_tokens(billed)

# %%
figures.gauge_timeline(samples, limit=quota["rpm"] * quota["window"] / 60)

# %% [markdown]
# ## What those see who operate it
#
# `/` is a page with these numbers, `dispatcher top` shows them in a terminal; `/metrics` is for Prometheus. Of each
# request there is a line in the log, without a word of its prompt, its answer or its key.

# %%
with urllib.request.urlopen(f"{url.removesuffix('/v1')}/metrics") as response:
    for line in response.read().decode().splitlines():
        if re.match(r"dispatch_(requests|tokens)_total|dispatch_queue_wait_seconds_(sum|count)", line):
            print(line)
print()
print(Path(folder.name, "dispatch.log").read_text().splitlines()[-1])

# %%
gateway.terminate()
print("told to stop, it finished what was under way and ended with", gateway.wait(30))

# %% [markdown]
# ## Shorter prompts
#
# The gateway can take out of a prompt what the question can do without: after the cache was asked, before tokens are
# reserved. To see what is left, a parrot stands in for the provider: it answers with what it was sent. The context is
# the whole handbook of the bike shop, and each model keeps another share of it.


# %%
class Parrot(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
        message = {"role": "assistant", "content": sent["messages"][-1]["content"]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = json.dumps({"object": "chat.completion", "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *said):
        pass


parrot = ThreadingHTTPServer(("127.0.0.1", 0), Parrot)
threading.Thread(target=parrot.serve_forever, daemon=True).start()
shares = (0.3, 0.1, 0.05, 0.02)
settings = f"""
listen: {{port: 0}}
models:
  "*": [{{base_url: "http://127.0.0.1:{parrot.server_port}/v1"}}]
compression:
""" + "".join(f'  "keep-{share}": {{steps: [lossless, extractive: {{share: {share}}}]}}\n' for share in shares)
gateway, url = started(settings, "shorter")

# %%
client = openai.OpenAI(base_url=url, api_key="any")
handbook = "\n\n".join(file.read_text() for file in sorted(HANDBOOK.iterdir()))


def about(question):
    return f"<documents>\n{handbook}\n</documents>\nQuestion: {question}"


began = time.perf_counter()
answer, headers = asked(about(first), client, model="keep-0.05")
seconds = time.perf_counter() - began
print(f"{headers['x-dispatch-compressed']} tokens; it took {seconds:.1f} s to embed every sentence, once\n")
print(answer.choices[0].message.content)

# %% [markdown]
# A caller who wants his prompt whole says so: `x-dispatch-compression: off`.
#
# Which share will do? Of every fourth question whose right answer holds numbers: are they all in what is left? Some
# would be by chance: the lower line asks for the numbers of the question before.

# %%
NUMBER = re.compile(r"\d+(?:[.:,]\d+)*")
asking = {question.group: question.text for question in reversed(traffic.english())}
facts = {group: set(NUMBER.findall(traffic.RIGHT[group])) for group in asking}
known = set(NUMBER.findall(handbook))
groups = [group for group in asking if facts[group] and facts[group] <= known][::4]


def left_of(group, share):
    """The numbers in what is left of a prompt, and its tokens before and after."""
    # One of them was asked above, and a hit is not shortened.
    anew = {"cache-control": "no-cache"}
    answer, headers = asked(about(asking[group]), client, model=f"keep-{share}", extra_headers=anew)
    before, after = map(int, headers["x-dispatch-compressed"].split(";to="))
    return set(NUMBER.findall(answer.choices[0].message.content)), before, after


curves = {"of the question": [], "by chance": []}
with tqdm(total=len(shares) * len(groups)) as bar:
    for share in shares:
        left = []
        for group in groups:
            left.append(left_of(group, share))
            bar.update()
        tokens = sum(after for _, _, after in left) / len(left)
        for name, others in (("of the question", groups), ("by chance", [*groups[-1:], *groups[:-1]])):
            survived = sum(facts[group] <= numbers for group, (numbers, _, _) in zip(others, left, strict=True))
            curves[name].append((tokens, survived / len(left)))
whole = left[0][1]
print(f"{len(groups)} questions, each with {whole:,} tokens of context and question")
for share, (tokens, survived) in zip(shares, curves["of the question"], strict=True):
    print(f"  {share:4.0%} to be kept: {tokens:5,.0f} tokens sent, the facts survive {survived:.0%} of the time")
figures.facts_kept(curves, whole=whole)

# %% [markdown]
# What is left out, the model does not know: count on your own documents before you choose. It is never on by
# default.

# %%
gateway.terminate()
gateway.wait(30)
parrot.shutdown()
parrot.server_close()
provider.stop()
folder.cleanup()
