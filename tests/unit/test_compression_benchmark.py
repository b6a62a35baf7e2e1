"""The benchmark of compression measures what it says, and sees a word that is missing."""

from __future__ import annotations

import pytest

from benchmarks.compression.__main__ import _same, _untidy, main
from benchmarks.compression.prompts import questions
from dispatch_core import HashingEmbedder, Lossless


def test_every_answer_stands_in_its_context_once_or_more_and_no_topic_is_in_both_halves() -> None:
    asked = list(questions())
    assert all(one.answer in one.line and one.line in one.context for one in asked)
    halves = {(one.topic, one.half) for one in asked}
    assert len(halves) == len({topic for topic, _ in halves})
    assert {one.language for one in asked if one.half == "report"} == {"en", "de", "zh"}


def test_a_word_that_is_missing_anywhere_is_seen() -> None:
    for one in [*questions("develop")][::60]:
        context = _untidy(one)
        left = Lossless().compress(one.messages(context))
        text = left.messages[1].text
        assert left.saved > 0.05
        assert _same(one, context, text)
        for lost in (one.line, one.context.split()[-1], '"id"', one.text):
            assert not _same(one, context, text.replace(lost, ""))


def test_its_tables_are_made_with_any_embedder(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--halves", "develop", "--every", "90", "--quick", "--lost"], HashingEmbedder())
    told = capsys.readouterr().out
    assert "develop: 5 questions about 5 kinds of documents" in told
    assert "the words of 5 of 5 prompts unchanged" in told
