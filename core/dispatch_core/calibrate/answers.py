"""When are two answers of a log the same? By their text, or by the cosine of their embeddings as well."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from dispatch_core.calibrate.replay import Judge
from dispatch_core.equivalence import Equivalence, normal_form
from dispatch_core.guards import figures, refusal
from dispatch_core.types import Entry, Matrix

_FIGURES = (figures.number, figures.unit)


class Answers:
    """The answers of a log by the number of their asking; those with one `normal_form` are one answer."""

    def __init__(self, answers: Sequence[str]) -> None:
        forms: dict[str, int] = {}
        self.texts: list[str] = []
        self.number_of = []
        """Of each asking, which of `texts`, the different answers, is its own."""
        for answer in answers:
            form = normal_form(answer)
            if form not in forms:
                forms[form] = len(forms)
                self.texts.append(answer)
            self.number_of.append(forms[form])

    def by_text(self) -> Judge:
        number_of = self.number_of
        return lambda asked, served: number_of[asked] == number_of[served]

    def by_cosine(self, vectors: Matrix, threshold: float) -> Judge:
        """Same by text; or embeddings, the rows of ``vectors`` for `texts`, at least so near and no other numbers."""
        number_of, texts = self.number_of, self.texts

        @lru_cache(maxsize=2**18)
        def alike(one: int, other: int) -> bool:
            near = float(vectors[one] @ vectors[other]) >= threshold
            return near and refusal(texts[one], texts[other], _FIGURES) is None

        def right(asked: int, served: int) -> bool:
            one, other = sorted((number_of[asked], number_of[served]))
            return one == other or alike(one, other)

        return right

    @property
    def equivalence(self) -> Equivalence:
        """What `same_entry` says of the entries of a replay, whose ids are numbers of askings."""
        number_of = self.number_of

        def same(a: Entry, b: Entry) -> bool:
            return number_of[int(a.id)] == number_of[int(b.id)]

        return same
