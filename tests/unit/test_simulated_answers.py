"""What the simulated provider answers to whom, how it counts and how fast it is; nothing of it over a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_book import ANSWERS, PARIS, RAG, written_to

from dispatch_core.errors import ConfigError
from dispatch_core.simulate import AnswerBook, count, draw_pace
from dispatch_core.simulate.reply import NOT_TOLD, compose
from dispatch_core.simulate.request import parse_chat
from dispatch_core.simulate.text import cut, split


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return written_to(tmp_path_factory.mktemp("simulator"))


@pytest.fixture(scope="module")
def book(files: tuple[Path, Path]) -> AnswerBook:
    return AnswerBook.load(*files)


@pytest.mark.parametrize(
    ("prompt", "group"),
    [
        ("What is the capital of France?", "paris"),
        ("  what IS the\n capital   of france? ", "paris"),
        ("Which city is France's capital?", "paris"),
        ("如何重置密码？", "重置"),
        (RAG.format("What is the capital of France?"), "paris"),
        ("Q: What is the capital of Italy?\nA: Rome\nQuestion: What is the capital of France?\nA:", "paris"),
        ("Be kind.\nWhat is the capital of Italy?\nWhat is the capital of France?\n\nThank you.", "paris"),
    ],
)
def test_a_prompt_belongs_to_the_group_of_its_question(book: AnswerBook, prompt: str, group: str) -> None:
    assert book.group_of(prompt) == group


def test_an_unknown_question_is_a_group_of_its_own_with_an_answer_of_its_own(book: AnswerBook) -> None:
    questions = [f"What about number {number}?" for number in range(300)]
    groups = [book.group_of(question) for question in questions]
    answers = {book.answer(group) for group in groups}
    assert len(set(groups)) == len(answers) == len(questions)
    assert all(20 <= count(answer) <= 80 for answer in answers)
    assert book.group_of(RAG.format(questions[0].upper())) == groups[0]
    assert not answers & {row["answer"] for row in ANSWERS}


def test_an_answer_is_judged_by_the_group_of_its_question(book: AnswerBook) -> None:
    assert book.judge("Which city is France's capital?", PARIS)
    assert book.judge(RAG.format("Which city is France's capital?"), f" {PARIS}\n")
    assert not book.judge("What is the capital of Italy?", PARIS)
    assert not book.judge("What is the capital of Spain?", PARIS)
    assert not book.judge("What is the capital of France?", "The capital of France")


def test_a_grounded_model_knows_what_its_prompt_says(book: AnswerBook) -> None:
    def said(context: str, question: str) -> str:
        turns = [{"role": "system", "content": context}, {"role": "user", "content": question}]
        chat = parse_chat(json.dumps({"model": "m", "messages": turns}).encode())
        return compose(chat, book, grounded=True).text

    capital = "What is the capital of France?"
    assert said(f"We were told:\n{PARIS}\nAnd more.", capital) == PARIS
    assert said("We were told nothing.", capital) == NOT_TOLD
    assert said("We were told nothing.", "Who are you?") == book.answer(book.group_of("Who are you?"))


def test_one_question_in_two_groups_is_an_error() -> None:
    with pytest.raises(ConfigError, match="two groups"):
        AnswerBook({"Who?": "one", "who? ": "two"}, {})


def test_a_line_that_is_no_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"group": "a", "answer": "b"}\n\n["group"]\n')
    with pytest.raises(ConfigError, match=r"answers\.jsonl:3"):
        AnswerBook.load(None, path)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("  \n", 0),
        ("word", 1),
        ("words!", 2),
        ("letters", 2),
        ("internationalization", 4),
        ("如何重置密码？", 7),
        ("a, b", 3),
        ("GPU显卡", 3),
        ("don't", 3),
        ("naïve café", 2),
    ],
)
def test_tokens_are_word_pieces_characters_and_punctuation(text: str, tokens: int) -> None:
    assert count(text) == tokens


@pytest.mark.parametrize("text", ["", " ", "one", PARIS, "在设置页面点击重置密码。", "internationalization " * 9])
def test_pieces_join_to_the_text_and_prefixes_count_what_was_asked(text: str) -> None:
    pieces = list(split(text))
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.tokens for piece in pieces] == [count(piece.text) for piece in pieces]
    assert sum(piece.tokens for piece in pieces) == count(text)
    for limit in range(count(text)):
        assert count(cut(text, limit)) == limit
    assert cut(text, count(text)) == text


def test_the_pace_is_that_of_the_prompt_the_seed_and_the_scale() -> None:
    one = draw_pace("prompt", seed=1, scale=1.0)
    assert one == draw_pace("prompt", seed=1, scale=1.0)
    assert one not in (draw_pace("prompt", seed=2, scale=1.0), draw_pace("other", seed=1, scale=1.0))
    assert draw_pace("prompt", seed=1, scale=2.0).due(100) == pytest.approx(2 * one.due(100))
    assert draw_pace("prompt", seed=1, scale=0.0).due(10**9) == 0.0


def test_paces_are_spread_as_promised() -> None:
    paces = [draw_pace(str(number), seed=0, scale=1.0) for number in range(4000)]
    firsts = sorted(pace.first for pace in paces)
    assert firsts[2000] == pytest.approx(0.45, rel=0.05)
    assert firsts[3364] / firsts[2000] == pytest.approx(2.718**0.35, rel=0.06), "one sigma above the median"
    assert 60 <= min(pace.rate for pace in paces) < 61
    assert 109 < max(pace.rate for pace in paces) <= 110
