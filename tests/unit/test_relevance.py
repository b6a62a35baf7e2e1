"""Which units matter for a question, by their words alone: what they share, what stands above and before them."""

from __future__ import annotations

import numpy as np

from dispatch_core.compress.relevance import Weights, relevance
from dispatch_core.compress.units import units_of

FILLER = [f"Each {thing} has a neighbour who cares." for thing in ("yard", "roof", "lamp", "well", "barn", "shed")]
PLACES = [
    ("Waterworks of Auental", "5 euros"),
    ("Waterworks of Birkenau", "7 euros"),
    ("Waterworks of Calw", "9 euros"),
]


def ranked(text: str, question: str, *, earlier: str = "", weights: Weights = Weights()) -> list[str]:  # noqa: B008
    """The units, best first, as an embedder that knows nothing leaves them."""
    _, units = units_of(text)
    scores = relevance(question, units, np.zeros(2), np.zeros((len(units), 2)), weights, earlier=earlier)
    return [units[at].text for at in np.argsort(-scores, kind="stable")]


def test_the_name_of_a_document_counts_for_every_section_of_it() -> None:
    parts = [f"{name}\n\nVisits\n\nTours take an hour.\n\nTickets\n\nAdults pay {fee}." for name, fee in PLACES]
    assert ranked("\n\n".join(parts), "What do adults pay at the Waterworks of Birkenau?")[0] == "Adults pay 7 euros."


def test_the_answer_to_a_question_in_the_context_ranks_right_behind_it() -> None:
    talk = "\n".join([*(f"Ann: {one}" for one in FILLER), "Ann: When is bread delivered?", "Ben: Half past six."])
    for between in ("", "\n\n"):
        text = talk.replace("\nBen", f"{between}\nBen")
        assert ranked(text, "When is the bread delivered?")[:2] == [
            "Ann: When is bread delivered?",
            "Ben: Half past six.",
        ]
    assert ranked(talk, "When is the bread delivered?", weights=Weights(reply=0.0))[1] != "Ben: Half past six."


def test_a_sentence_counts_that_goes_on_with_a_name_from_the_best_one() -> None:
    found = ["The Leeds office is run by Ada Quill.", "Ada Quill answers on 0555 1234."]
    text = "\n\n".join([found[0], *FILLER, found[1]])
    assert ranked(text, "Whom do I call to reach the manager in Leeds?")[:2] == found
    assert ranked(text, "Whom do I call to reach the manager in Leeds?", weights=Weights(links=0.0))[1] != found[1]


def test_what_the_question_leaves_unsaid_is_taken_from_the_one_before() -> None:
    text = "\n\n".join([*FILLER, "The Merlin X2 sells for 410 euros."])
    assert ranked(text, "And how much is it?", earlier="Do you have the Merlin X2?")[0].startswith("The Merlin X2")
    assert not ranked(text, "And how much is it?")[0].startswith("The Merlin X2")
