# %% [markdown]
# # RAG with LlamaIndex
#
# A query engine pays twice: for the question, and for the context that retrieval puts around it, which is most of the
# bill. Wrap the model, and everything built upon it is cached and limited; nothing else changes.
#
# The corpus is the handbook of a bike shop that does not exist; the provider is a simulated one on this machine.

# %%
import asyncio
import logging
import tempfile
from itertools import pairwise
from pathlib import Path

from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.llms.openai import OpenAI
from tqdm.auto import tqdm

import figures
import traffic
from benchmarks.demo.trace import ANSWERS, HANDBOOK
from dispatch_core import MemoEmbedder, MemoryStore, SemanticCache, TokenLimiter, default_embedder
from dispatch_core.simulate import Simulator, SimulatorConfig
from llamaindex_dispatch import DispatchLLM

askings = traffic.help_desk(90)
folder = tempfile.TemporaryDirectory()
meanings = traffic.written([*askings, *traffic.english()], Path(folder.name))
quota = {"rpm": 480, "tpm": 400_000, "window": 10.0}
provider = Simulator(SimulatorConfig(**quota, groups=meanings, answers=ANSWERS, latency=0.5)).start()

# %% [markdown]
# ## The index
#
# One encoder for retrieval and for the cache: with a memo between them, a question is embedded once. (If you have an
# `embed_model` of LlamaIndex already, `LlamaIndexEmbedder(embed_model)` makes the cache use it.)


# %%
class Encoder(BaseEmbedding):
    """Our encoder through LlamaIndex's interface."""

    encoder: object

    def _get_text_embedding(self, text):
        return self.encoder.embed([text])[0].tolist()

    def _get_text_embeddings(self, texts):
        return self.encoder.embed(texts).tolist()

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query):
        return (await self.encoder.aembed([query]))[0].tolist()


memo = MemoEmbedder(default_embedder())
documents = SimpleDirectoryReader(str(HANDBOOK)).load_data()
index = VectorStoreIndex.from_documents(documents, embed_model=Encoder(encoder=memo))
print(len(documents), "documents")


# %%
def provided(**settings):
    return OpenAI(model="gpt-4o-mini", api_base=provider.url, api_key="none", **settings)


def engine(llm):
    return index.as_query_engine(llm=llm, similarity_top_k=2)


# It warns of every retry; they are counted below.
logging.getLogger("llama_index.llms.openai").setLevel(logging.ERROR)
bare = engine(provided(max_retries=3))

# %% [markdown]
# ## Wrap the model

# %%
llm = DispatchLLM(
    provided(max_retries=0),
    cache=SemanticCache(memo, MemoryStore()),
    rate_limiter=TokenLimiter(**quota),
)
dispatched = engine(llm)

# %% [markdown]
# The question is compared by meaning; the retrieved context must be the same. Another wording that finds the same
# passages is a hit. These calls are synchronous, under the loop that Jupyter runs; nothing is patched.

# %%
print("a loop is running here:", asyncio.get_running_loop().is_running(), "\n")
for question in (
    "What are the opening hours of the Ghent store on weekdays?",
    "On weekdays, what are the opening hours of the Ghent store?",
    "What are the opening hours of the Lyon store on weekdays?",
):
    before = llm.dispatcher.stats()
    answer = dispatched.query(question)
    hit = llm.dispatcher.stats().hits > before.hits
    print(f"{question}\n  {answer}\n  {'from the cache' if hit else 'asked the model'}\n")

# %% [markdown]
# Asked asynchronously and at the same moment, equal questions are one call: the others wait for its answer.

# %%
provider.reset()
await asyncio.gather(*(dispatched.aquery("Which of your stores are open on Sunday?") for _ in range(5)))
print("asked 5 times, called", provider.stats().requests, "times")

# %% [markdown]
# ## When a document changes
#
# What was answered from the old handbook is not served for the new one: the context is part of the key. Say which
# versions answers rest on with `sources=`, or forget by `tags=`, where the text alone does not tell.

# %%
question = "What are the opening hours of the Ghent store on weekdays?"
node = next(iter(dispatched.retrieve(question))).node
old = node.get_content()
stored = index.docstore.get_node(node.node_id)
stored.set_content(old + " From next month on, all stores open an hour earlier.")
index.docstore.add_documents([stored])
print("the passage was changed:", dispatched.retrieve(question)[0].node.get_content() != old)
before = llm.dispatcher.stats()
dispatched.query(question)
print("from the cache" if llm.dispatcher.stats().hits > before.hits else "asked the model")
stored.set_content(old)
index.docstore.add_documents([stored])

# %% [markdown]
# ## A morning at the help desk
#
# Popular questions in many wordings, faster than the quota allows. The bare engine retries three times.

# %%
rate = 15.0
repeated = traffic.repeats(askings)
print(f"{len(askings)} askings, {sum(repeated)} of them ask what was asked before, in any words")


async def measured(engine, name):
    """What became of the askings, what the provider counted, and the tokens that it billed from answer to answer."""
    provider.reset()
    totals = [0]

    def done():
        bar.update()
        counted = provider.stats()
        totals.append(counted.prompt_tokens + counted.completion_tokens)

    with tqdm(total=len(askings), desc=name) as bar:
        asked = await traffic.replay(askings, engine.aquery, rate=rate, on_done=done)
    return asked, provider.stats(), [after - before for before, after in pairwise(totals)]


before, before_bill, before_tokens = await measured(bare, "bare")
llm.dispatcher.clear()
after, after_bill, after_tokens = await measured(dispatched, "dispatched")


# %%
def summary(asked, bill):
    answered = [one for one in asked if one.reply is not None]
    wrong = sum(str(one.reply) != traffic.RIGHT[one.question.group] for one in answered)
    tokens = bill.prompt_tokens + bill.completion_tokens
    return (
        f"{bill.rejected_429:5} {len(asked) - len(answered):7} {tokens:9,} {tokens / len(answered):11.0f} {wrong:6}"
    )


print("             429s  failed    tokens  per answer  wrong")
print("bare       ", summary(before, before_bill))
print("dispatched ", summary(after, after_bill))

# %%
figures.cumulative_tokens({"bare": before_tokens, "dispatched": after_tokens})

# %%
llm.dispatcher.stats()

# %% [markdown]
# Of the saved tokens most are context. What keeps the hit rate below the share of repeats: another wording may find
# other passages, and then the answer might be another one. A smaller `similarity_top_k`, or a re-ranker, makes the
# context of two wordings the same more often.

# %%
folder.cleanup()
provider.stop()

# %% [markdown]
# ## Into your own program
#
# ```python
# from llama_index.core import Settings
#
# Settings.llm = DispatchLLM(
#     OpenAI(model="gpt-4o-mini", max_retries=0),
#     cache=SemanticCache(default_embedder(), SQLiteStore("answers.db")),
#     rate_limiter=TokenLimiter(rpm=500, tpm=30_000),  # what your provider grants you
# )
# ```
