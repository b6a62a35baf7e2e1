# %% [markdown]
# # Five minutes with LangChain
#
# You have a chain that runs, a bill, and 429s. This notebook puts a semantic cache and a token-aware rate limiter
# into such a chain, without touching the chain, and measures what changes.
#
# Nothing here leaves your machine: the provider is a simulated one that speaks OpenAI's protocol, with a quota and
# realistic delays. For your own, leave out `base_url`.

# %%
import asyncio
import tempfile
from pathlib import Path

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from tqdm.auto import tqdm

import figures
import traffic
from benchmarks.demo.trace import ANSWERS
from dispatch_core.simulate import Simulator, SimulatorConfig
from langchain_dispatch import SemanticCache, TokenRateLimiter

askings = traffic.help_desk(150)
folder = tempfile.TemporaryDirectory()
meanings = traffic.written([*askings, *traffic.english()], Path(folder.name))

quota = {"rpm": 480, "tpm": 60_000, "window": 10.0}
provider = Simulator(SimulatorConfig(**quota, groups=meanings, answers=ANSWERS, latency=0.5)).start()

prompt = ChatPromptTemplate.from_messages(
    [
        ("system", "You answer customers of Lumen Cycles, a bike shop, in one or two sentences."),
        ("human", "{question}"),
    ]
)


def model(**settings):
    return ChatOpenAI(model="sim-large", base_url=provider.url, api_key="none", **settings)


# %% [markdown]
# ## The two lines
#
# A cache and a limiter are arguments that every LangChain chat model has. (`set_llm_cache(cache)` does it for all
# models at once.) The SDK's own retries would go past the limiter, so they are switched off.

# %%
cache = SemanticCache()
limiter = TokenRateLimiter(**quota)

llm = model(cache=cache, rate_limiter=limiter, max_retries=0)
chain = prompt | llm

# %% [markdown]
# The same question in other words is answered from the cache, a question that only looks the same is not. Each hit
# says so in its metadata. (The first call loads the encoder.)

# %%
for question in (
    "What are the opening hours of the Ghent store on weekdays?",
    "On weekdays, what are the opening hours of the Ghent store?",
    "What are the opening hours of the Lyon store on weekdays?",
):
    message = chain.invoke({"question": question})
    told = message.response_metadata.get("dispatch")
    print(f"{question}\n  {message.content}")
    print(f"  hit, cosine {told['similarity']:.3f}\n" if told else "  asked the model\n")

# %% [markdown]
# ## Why?
#
# `explain` says what a call would find, and why; it asks no model and changes nothing. This question is nearer to
# the first than many a repeat would be; a guard saw the opposite.

# %%
cache.explain(prompt.invoke({"question": "What are the closing hours of the Ghent store on weekdays?"}), llm)

# %% [markdown]
# ## In a notebook, sync and async are one cache
#
# Jupyter runs an event loop already. The calls above were synchronous all the same; these are not, and find the same
# answers. Nothing is patched (no `nest_asyncio`).

# %%
print("a loop is running here:", asyncio.get_running_loop().is_running())

again = {"question": "What are the opening hours of the Ghent store on weekdays?"}
print("sync :", chain.invoke(again).content)
print("async:", (await chain.ainvoke(again)).content)
print("batch:", [message.content[:24] + "…" for message in chain.batch([again, again])])

# %% [markdown]
# ## What does it change?
#
# Askings as a help desk gets them: a few meanings are popular, most are rare, each comes in any of its wordings, in
# lower case, with a "Hi!" or a "please". They arrive faster than the quota allows. The bare chain retries twice, as
# the SDK does by default; the dispatched one is the chain from above, with a cache that is empty again.

# %%
rate = 15.0
repeated = traffic.repeats(askings)
print(f"{len(askings)} askings, {rate * 60:.0f} a minute, where {quota['rpm']} a minute are allowed;")
print(f"{sum(repeated)} of them ask what was asked before, in any wording")


async def measured(chain, name):
    provider.reset()
    with tqdm(total=len(askings), desc=name) as bar:
        asked = await traffic.replay(
            askings, lambda text: chain.ainvoke({"question": text}), rate=rate, on_done=bar.update
        )
    return asked, provider.stats()


bare, bare_bill = await measured(prompt | model(), "bare")
cache.clear()
dispatched, bill = await measured(chain, "dispatched")


# %%
def summary(asked, bill):
    answered = [one for one in asked if one.reply is not None]
    wrong = sum(one.reply.content != traffic.RIGHT[one.question.group] for one in answered)
    tokens = bill.prompt_tokens + bill.completion_tokens
    return (
        f"{bill.rejected_429:5} {len(asked) - len(answered):7} {tokens:9,} {tokens / len(answered):11.1f} {wrong:6}"
    )


print("             429s  failed    tokens  per answer  wrong")
print("bare       ", summary(bare, bare_bill))
print("dispatched ", summary(dispatched, bill))

# %% [markdown]
# A wrong answer would be a cache hit that belongs to another question: the simulated provider itself is never wrong.


# %%
def is_hit(one):
    return one.reply is not None and "dispatch" in one.reply.response_metadata


texts = [question.text for question in askings]
shares = {
    "asked before, in any words": repeated,
    "answered by the cache": [is_hit(one) for one in dispatched],
    "asked before, in the same words": [text in texts[:number] for number, text in enumerate(texts)],
}
figures.rolling_hit_rate(shares)

# %% [markdown]
# The lowest line is all that a cache without meaning could do. The distance to the uppermost is what is worded too
# differently for the default: it would rather pay again than answer wrongly. Notebook 3 is about moving it.

# %%
figures.latency_histogram(
    {
        name: [one.seconds for one in asked if one.reply]
        for name, asked in (("bare", bare), ("dispatched", dispatched))
    }
)


# %% [markdown]
# On the left are hits: the question is embedded and looked up, and that is all. On the right are, bare, the retries;
# dispatched, the queue before the quota.


# %%
def billed(asked):
    return [0 if one.reply is None or is_hit(one) else one.reply.usage_metadata["total_tokens"] for one in asked]


figures.cumulative_tokens({"bare": billed(bare), "dispatched": billed(dispatched)})
# %% [markdown]
# Calls that failed bill nothing and answer nothing: compare the tokens per answer above, not the lines alone.
#
# ## The counters
#
# Both objects count while they work; in a notebook they show themselves.

# %%
cache.stats()

# %%
limiter.stats()

# %% [markdown]
# ## A wrong hit?
#
# Take it back by its `hit_id`: the question is asked anew, and so is what is like it.

# %%
chain.invoke(again)
question = {"question": "On weekdays, what are the opening hours of the Ghent store?"}
told = chain.invoke(question).response_metadata["dispatch"]
print("taken back:", cache.reject(told["hit_id"]))
print(
    "next time :", "from the cache" if "dispatch" in chain.invoke(question).response_metadata else "asked the model"
)

# %%
cache.close()
provider.stop()
folder.cleanup()

# %% [markdown]
# ## Into your own chain
#
# ```python
# from langchain_core.globals import set_llm_cache
# from langchain_dispatch import SemanticCache, TokenRateLimiter
#
# set_llm_cache(SemanticCache(store="sqlite:///answers.db"))  # survives a restart
# limiter = TokenRateLimiter(rpm=500, tpm=30_000)  # what your provider grants you
# model = ChatOpenAI(model="gpt-4o-mini", rate_limiter=limiter, max_retries=0)
# ```
