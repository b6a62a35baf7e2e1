"""Do two answers that were worded anew say the same? By their embeddings, and by their numbers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from hashlib import blake2b

import numpy as np

from dispatch_core.eligible import why_unreadable
from dispatch_core.equivalence import same_entry, spoken
from dispatch_core.errors import ConfigError
from dispatch_core.guards import figures, literals, refusal
from dispatch_core.ports import Embedder
from dispatch_core.types import Entry, Vector

_NOTHING: Vector = np.empty(0, np.float32)
_FACTS = (figures.number, figures.unit, figures.date, literals.code)


class AnswersAlike:
    """An `Equivalence` for answers of free text: embeddings at a cosine of ``at_least``, and no other facts in them.

    Numbers, units, dates and identifiers must agree, for embeddings hardly see them. Answers that say more than text
    (tools, images), or that the encoder cannot read (longer than its window, words it does not know), are the same
    only if they are equal: two with a long beginning in common would look alike. The vectors of the last ``size``
    answers are kept, so that an answer is embedded once; policies that use it decide off the event loop. Raises what
    ``embedder`` raises.

    How near answers to one question are depends on the model that gives them: look at pairs of your own before you
    rely on it. It is not transitive, as an equivalence should be; near answers make it err.
    """

    slow = True
    """To compare may mean to embed."""

    def __init__(self, embedder: Embedder, *, at_least: float = 0.9, size: int = 10_000) -> None:
        if not 0.0 < at_least <= 1.0:
            raise ConfigError(f"at_least is a cosine similarity in (0, 1], got {at_least}")
        if size < 1:
            raise ConfigError(f"size must be at least 1, got {size}")
        self._embedder = embedder
        self._at_least = at_least
        self._size = size
        self._lock = threading.Lock()
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()

    def __call__(self, a: Entry, b: Entry) -> bool:
        if same_entry(a, b):
            return True
        texts = spoken(a.payload), spoken(b.payload)
        if texts[0] is None or texts[1] is None or refusal(texts[0], texts[1], _FACTS) is not None:
            return False
        one, other = self._vector(texts[0]), self._vector(texts[1])
        return len(one) == len(other) > 0 and float(one @ other) >= self._at_least

    def _vector(self, text: str) -> Vector:
        """Without dimensions, if the encoder cannot read the text."""
        key = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        with self._lock:
            known = self._vectors.get(key)
            if known is not None:
                self._vectors.move_to_end(key)
                return known
        embedder = self._embedder
        readable = text.strip() and why_unreadable(embedder.fit(text), embedder.max_tokens) is None
        vector: Vector = embedder.embed([text])[0] if readable else _NOTHING
        with self._lock:
            self._vectors[key] = vector
            while len(self._vectors) > self._size:
                self._vectors.popitem(last=False)
        return vector
