"""Guards see a condition, a measure or an opposite that was added or exchanged, and let other words for it pass."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatch_core.guards import refusal
from dispatch_core.guards.reading import scan

REFUSED = [
    # for whom, where, behind the same preposition
    ("What are the best chess openings for beginners?", "What are the best chess openings for experts?", "antonym"),
    ("What is the best laptop for students?", "What is the best laptop?", "substitution"),
    ("How can I exercise at home?", "How can I exercise?", "substitution"),
    ("How do I become a cook in the navy?", "How do I become a cook in the air force?", "substitution"),
    ("What should I wear for a funeral?", "What should I wear for a school play?", "substitution"),
    ("What are good gifts for a mother?", "What are good gifts for a mother in law?", "substitution"),
    # measures
    ("Is 20 mg of it safe?", "Is 20 mcg of it safe?", "unit"),
    ("Are 3 teaspoons of salt too much?", "Are 3 tablespoons of salt too much?", "unit"),
    ("How many cups are in 4 pints?", "How many cups are in 4 gallons?", "unit"),
    ("What is the meaning of error 0x80070057?", "What is the meaning of error 0x80070005?", "code"),
    # denied by a verb
    ("Why did they join the union?", "Why did they refuse to join the union?", "negation"),
    ("How do I keep apples from turning brown?", "How do I turn apples brown?", "negation"),
    ("What if I forget to renew my visa?", "What if I renew my visa?", "negation"),
    ("What is the safest town in Peru?", "What is the most dangerous town in Peru?", "antonym"),
    # opposites by their form
    ("What is prepaid power?", "What is postpaid power?", "antonym"),
    ("Is the film overrated?", "Is the film underrated?", "antonym"),
    ("What causes hypothermia?", "What causes hyperthermia?", "antonym"),
    ("What are the rights of a stepfather?", "What are the rights of a stepmother?", "antonym"),
    ("How do I stay awake at night?", "How do I stay asleep at night?", "antonym"),
]

ALLOWED = [
    # a way, whoever goes it
    ("How do I cope with stress?", "How can one cope with stress?"),
    ("How do I remove wine stains from a shirt?", "How can wine stains be removed from a shirt?"),
    ("How do I calculate a mortgage?", "How is a mortgage calculated?"),
    ("How do people save money?", "How can I save money?"),
    ("How long does it take to learn Dutch?", "How much time does it take to learn Dutch?"),
    # one word for another, of another kind
    ("How old is the moon?", "What is the age of the moon?"),
    ("How tall is the Eiffel Tower?", "What is the height of the Eiffel Tower?"),
    ("What is the cost of living in Lisbon?", "How expensive is it to live in Lisbon?"),
    ("Who invented the telephone?", "Who was the inventor of the telephone?"),
    ("How can I get admission to the academy?", "How do I get admitted to the academy?"),
    ("What are the symptoms of flu?", "What are the signs of flu?"),
    ("How do I merge two dictionaries?", "How can I combine two dicts?"),
    ("Why did they lose World War 2?", "Why did they lose WWII?"),
    ("Can I recover deleted messages?", "Is there a way to get back deleted messages?"),
    # plurals of names
    ("Is a Mac better than a PC?", "Are Macs better than a PC?"),
    ("Where can I buy bitcoin?", "How do I buy bitcoins?"),
    # denied in other words, asked for in other words
    ("Which foods should I avoid with gout?", "Which foods should I not eat with gout?"),
    ("How do I keep avocados from turning brown?", "How do I stop avocados from going brown?"),
    ("Do I need a lawyer for a will?", "Is a lawyer necessary for a will?"),
    ("Is it good to have multiple cards?", "Is it good to have many cards?"),
    ("How do I get over a breakup?", "How do I get over a break up?"),
    # conditions that add nothing
    ("Where can I watch films?", "Where can I watch films at any time?"),
    ("How do I prepare for class 10 exams?", "How do I prepare for 10th exams?"),
]


@pytest.mark.parametrize(("asked", "stored", "reason"), REFUSED)
def test_another_condition_is_refused_with_its_reason(asked: str, stored: str, reason: str) -> None:
    assert refusal(asked, stored) == reason
    assert refusal(stored, asked) == reason


@pytest.mark.parametrize(("asked", "stored"), ALLOWED)
def test_the_same_in_other_words_passes(asked: str, stored: str) -> None:
    assert refusal(asked, stored) is None
    assert refusal(stored, asked) is None


@given(st.lists(st.text("aB1x.,-_/$%?'()é ", max_size=8), max_size=8))
@example(["0x1F", "$5", "5 %", "e.g.", "end.How"])
def test_words_are_read_alike_alone_and_in_a_text(words: list[str]) -> None:
    text = " ".join(words)
    # The percent sign, which may belong to a figure, has the text read as a whole.
    assert [token[:3] for token in scan(text)] == [token[:3] for token in scan(f"{text} x %")][:-1]
