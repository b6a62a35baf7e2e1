# %% [markdown]
# # How far can the threshold go?
#
# A semantic cache that is too strict saves nothing; one that is too loose answers wrongly, in the confident voice of
# the right answer. Here both are measured, wrong hits are provoked on purpose, and the setting is chosen from a log.
#
# The data are 388 English questions to a bike shop that does not exist. The answer of each is known, and 74 of them
# are traps: they look like another question and need another answer.

# %%
import csv
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tqdm.auto import tqdm

import figures
import traffic
from dispatch_core import (
    Consensus,
    Guarded,
    MemoEmbedder,
    MemoryStore,
    Query,
    SemanticCache,
    Threshold,
    default_embedder,
)
from dispatch_core.calibrate import FAMILIES, as_text, calibrate, read
from dispatch_core.guards import refusal

questions = traffic.english()
embedder = MemoEmbedder(default_embedder())  # no text is embedded twice
embedder.embed([question.text for question in questions])  # a batch is faster than one by one
print(len(questions), "questions,", sum(question.kind == "hard_negative" for question in questions), "of them traps")

# %% [markdown]
# ## Wrong hits, on purpose
#
# The rule of most semantic caches: serve the nearest neighbour above a cosine. At 0.85, which many tutorials use:


# %%
def served(policy):
    """Asked one after another: what was served, and to which question."""
    cache = SemanticCache(embedder, MemoryStore(), policy=policy)
    hits = []
    for question in questions:
        found = cache.lookup(Query(question.text))
        if hasattr(found, "entry"):
            hits.append((found.score, question, found.entry))
        else:
            cache.store(found, question.group.encode())
    return hits


def wrong(hits):
    return [hit for hit in hits if hit[2].payload.decode() != hit[1].group]


loose = served(Threshold(0.85))
worst = sorted(wrong(loose), key=lambda hit: -hit[0])
print(f"{len(loose)} hits, {len(worst)} of them wrong ({len(worst) / len(loose):.0%}). The nearest ten:")
for score, asked, stored in worst[:10]:
    print(f"\n{score:.3f}  asked:              {asked.text}\n       got the answer to:  {stored.text}")

# %% [markdown]
# No threshold mends this: these wrong neighbours are nearer than most right ones. An embedding hardly sees a changed
# number, a name, a "not".
#
# ## Guards
#
# A guard reads both texts and names the difference that changes the answer. They are pure functions, in microseconds:

# %%
for score, asked, stored in worst[:10]:
    print(f"{score:.3f}  {refusal(asked.text, stored.text) or 'passes':<14} {asked.text}")

# %% [markdown]
# ## Guards, and what the neighbours say
#
# `Guarded` is the same threshold with guards. `Consensus`, the default, also asks the other neighbours: it refuses
# where an answer that repeats near by contradicts, and serves further away where four or more agree.

# %%
print("policy            hits  wrong")
for policy in (Threshold(0.85), Guarded(0.85), Consensus(0.85), Consensus()):
    hits = served(policy)
    print(f"{type(policy).__name__:<10} {policy.threshold:<6g} {len(hits):4}  {len(wrong(hits)):5}")

# %% [markdown]
# ## One question in the open
#
# `explain` shows what a lookup sees: the neighbours, which of them carry the same answer, and what the guards say.

# %%
cache = SemanticCache(embedder, MemoryStore())
for question in questions:
    cache.store(cache.unseen(Query(question.text)), question.group.encode())
cache.explain("What are the opening hours of the Freiburg store on weekdays?")

# %% [markdown]
# ## Your own log
#
# `dispatcher calibrate log.csv` does all this for a file of questions and answers, in the order of asking; as a
# function it is `calibrate`. Here the log is written first: 600 askings of the help desk, in any wording.


# %%
@contextmanager
def bar(title, total):
    with tqdm(total=total, desc=title) as shown:
        yield shown.update


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "log.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["question", "answer"])
        rows.writerows((asked.text, traffic.RIGHT[asked.group]) for asked in traffic.help_desk(600))
    log = read(path)

families = [FAMILIES[name] for name in ("threshold", "guarded", "consensus")]
report = calibrate(log, embedder, families=families, max_error=0.02, progress=bar)

# %% [markdown]
# ## The sweep
#
# Every threshold of every policy, over the whole log.

# %%
curves = {}
for trial in report.trials:
    figures_of = trial.all
    curves.setdefault(trial.family.title, []).append((trial.setting, figures_of.hit_rate, figures_of.per_hit))
figures.threshold_sweep(curves, default=0.92)

# %% [markdown]
# Read both panels together: the left one is what you save, the right one is what it costs in trust. (Where `Guarded`
# and `Consensus` run upon each other, no four questions of the log share an answer without being the same question.)
#
# ## What to paste
#
# Settings are chosen on one half of the log and tested on the other. If the log is too short to promise anything, the
# report says so, and how many hits it would take.

# %%
print(as_text(report).replace(str(path), "log.csv"))

# %% [markdown]
# Not sure that a log from last month speaks for next month? Run with `shadow=True`: everything is decided and
# compared with the answers that come, nothing is served, and `stats().wrong_hits` is measured on your traffic. Or
# give `policy=ErrorBounded(0.01)`, which finds the threshold while it runs, from the answers to what it asks.
