"""The RAG benchmark asks what it says, and sees an answer of another question."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks.demo.trace import load_answers
from benchmarks.rag import run as rag
from benchmarks.rag.__main__ import show
from benchmarks.rag.asked import load_look_alikes, load_wordings
from dispatch_core import SentenceTransformerEmbedder


def test_a_hundred_questions_are_asked_again_in_other_words() -> None:
    wordings = load_wordings()
    assert len({each.group for each in wordings}) == 100
    assert not {each.first for each in wordings} & {each.again for each in wordings}
    assert {each.group for each in wordings} <= load_answers().keys()
    assert len(load_look_alikes()) > 70


def test_what_is_typed_again_is_saved_and_no_answer_is_another_question_s(
    minilm: SentenceTransformerEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rag, "load_look_alikes", lambda: load_look_alikes()[:10])
    first, again, freely, look_alikes = rag.run(load_wordings()[:10], minilm)
    assert (first.dispatched.hits, first.saved) == (0, 0)
    assert again.dispatched.asked == 10
    assert again.saved >= 0.6
    assert freely.saved >= 0
    for outcome in (first, again, freely, look_alikes):
        assert outcome.bare.hits == outcome.bare.wrong == outcome.dispatched.wrong == 0
    shown = io.StringIO()
    show([first, again, freely, look_alikes], Console(file=shown, width=110))
    assert "typed again" in shown.getvalue()
