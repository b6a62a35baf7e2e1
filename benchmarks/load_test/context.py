"""What the program puts around a question: the chapter of the shop's answers that it belongs to.

Retrieval is perfect and the same in every arm: all wordings of a question get one chapter, and the chapter holds the
answer, among others of its kind. Whether it is still there when the prompt reaches the provider, the provider checks.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.demo.trace import load_answers, load_questions

CHAPTER = 60
"""Answers in a chapter: about 800 tokens."""


def contexts() -> Callable[[str], str]:
    """From a question to its chapter; a question that is in no list gets the first one."""
    answers = load_answers()
    groups = list(answers)
    chapters = [
        "\n".join(answers[group] for group in groups[start : start + CHAPTER])
        for start in range(0, len(groups), CHAPTER)
    ]
    places = {group: number // CHAPTER for number, group in enumerate(groups)}
    chapter_of = {question.text: chapters[places[question.group]] for question in load_questions()}
    return lambda question: chapter_of.get(question, chapters[0])


def sentences() -> list[str]:
    """All that stands in the chapters."""
    return list(load_answers().values())
