"""A graph at work: texts in, unit vectors out. Which runtime runs the graph is not known here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from dispatch_core.embed.graph_folder import GraphFolder
from dispatch_core.embed.pooling import Floats, Ints, pooled, unit
from dispatch_core.embed.tokens import Tokens
from dispatch_core.errors import EmbeddingError
from dispatch_core.types import Fit, Matrix

POOLED_OUTPUT = "sentence_embedding"
"""Name of an output that is one vector per text."""

_TEXTS_AT_ONCE = 16
_TOKENS_AT_ONCE = 1024
_READS = {"input_ids", "attention_mask", "token_type_ids"}


class Graph(Protocol):
    """A graph that a runtime has loaded; ``run`` may be called by several threads at once."""

    @property
    def inputs(self) -> frozenset[str]: ...

    def run(self, feeds: Mapping[str, Ints]) -> Floats:
        """The output `POOLED_OUTPUT` if there is one, else the first."""
        ...


class GraphEncoder:
    """Tokenises, runs the graph, pools if the graph does not. Thread-safe."""

    def __init__(self, folder: GraphFolder, tokens: Tokens, graph: Graph) -> None:
        unknown = graph.inputs - _READS
        if unknown:
            raise EmbeddingError(f"{folder.graph} asks for inputs that are not known: {', '.join(sorted(unknown))}")
        self._pooling = folder.pooling
        self._tokens = tokens
        self._graph = graph
        self.max_tokens = tokens.max_tokens
        # Also the first run, which is slower than all others.
        self.dims = int(self._run([tokens.ids("")]).shape[1])

    def fit(self, text: str) -> Fit:
        return self._tokens.fit(text)

    def rows(self, texts: Sequence[str]) -> Matrix:
        """Shape ``(len(texts), dims)``."""
        ids = [self._tokens.ids(text) for text in texts]
        rows = np.empty((len(texts), self.dims), dtype=np.float32)
        for batch in batches([len(one) for one in ids]):
            rows[batch] = self._run([ids[position] for position in batch])
        return rows

    def _run(self, ids: Sequence[Sequence[int]]) -> Matrix:
        """Padding is masked out: a text has the same vector in any company."""
        longest = max(1, *(len(one) for one in ids))
        given = np.zeros((len(ids), longest), dtype=np.int64)
        mask = np.zeros_like(given)
        for position, one in enumerate(ids):
            given[position, : len(one)] = one
            mask[position, : len(one)] = 1
        feeds = {"input_ids": given, "attention_mask": mask, "token_type_ids": np.zeros_like(given)}
        out = self._graph.run({name: feeds[name] for name in self._graph.inputs})
        return unit(out if out.ndim == 2 else pooled(out, mask, self._pooling))


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Positions in groups of similar length, so that little of a group is padding."""
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        if len(batch) == _TEXTS_AT_ONCE or lengths[position] * (len(batch) + 1) > _TOKENS_AT_ONCE:
            if batch:
                yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
