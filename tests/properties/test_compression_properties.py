"""What compressors promise for any text: nothing is cut in half, nothing changes its place, facts stay."""

from __future__ import annotations

import json
import re
from collections import Counter

from conversations import LLAMAINDEX, assistant, context_of, tool, user
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatch_core import Extractive, HashingEmbedder, History, Lossless, Message, Part
from dispatch_core.compress import estimated
from dispatch_core.compress.lossless import tidied
from dispatch_core.compress.sentences import sentences
from dispatch_core.compress.units import joined, units_of

WORDS = st.sampled_from(
    [
        *(
            "the",
            "harbour",
            "Ships",
            "e.g.",
            "Dr.",
            "z. B.",
            "it",
            "3.50",
            "1,000.25",
            "v2.1.0",
            "12.",
            "42",
            "No. 7",
        ),
        *(
            "https://a.example/b.c?d=1.5",
            "[12]",
            "(see p. 4. There)",
            "`x. y`",
            "10:30.",
            "U.S.",
            "A.",
            "end.",
            "Why?",
        ),
        *(
            "go!",
            "价格是3.5元。",
            "他说：“好的。走吧！”",
            "„Ja. Nein.“",
            "ann@b.example.",
            "and",
            "of",
            "Prices",
            "fell",
        ),
    ]
)
PROSE = st.lists(WORDS, min_size=1, max_size=25).map(" ".join)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
RECORDS = st.lists(VALUES, max_size=4) | st.dictionaries(st.text(max_size=5), VALUES, max_size=4)
CODE = st.lists(st.sampled_from(["x = 1.  ", "", "# A. B", "  y = [", "]", "``"]), max_size=5).map(
    lambda lines: "```py\n" + "\n".join(lines) + "\n```"
)
BLOCKS = st.one_of(
    PROSE,
    PROSE,
    PROSE,
    CODE,
    RECORDS.map(lambda value: json.dumps(value, indent=2)),
    st.sampled_from(["# Title", "## Part", "Fees", "- one. Two\n- three", "| a | b |\n|--|--|\n| 1 | 2.5 |", "---"]),
    st.sampled_from(
        ["Name: A. B\nfee: 2.5\nTown: Ulm", "a,b,c\n1,2.5,3\n4,5,6", "a\tb\n1\t2\n3\t4", "Ann: Hi.\nBen: Go! No."]
    ),
    st.sampled_from(["source: x.md", "a   b\nc   d", "<document>", "1. One.\n2. Two.", "[1] A. Lee (2020)."]),
)
TEXTS = st.lists(BLOCKS, max_size=8).map("\n\n".join)
ANY = TEXTS | st.text(alphabet=st.sampled_from('ab .!?\n\t|`-#[]{}()"1。：“”_~<>/$'), max_size=120)
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
FENCE = re.compile(r"^```py\n.*?^```$", re.DOTALL | re.MULTILINE)
PLAIN = settings(max_examples=60, deadline=None)


def extracted(context: str, share: float) -> str:
    prompt = LLAMAINDEX.format(context=context, question="What were the Prices of the harbour?")
    messages = [user(prompt)]
    done = Extractive(HashingEmbedder()).compress(messages, max(1, round(estimated(prompt) * share)))
    return context_of(done.messages[0]) if "-----" not in context else done.messages[0].text


@PLAIN
@given(ANY)
def test_sentences_cover_all_but_white_space_and_units_joined_are_the_text(text: str) -> None:
    spans = list(sentences(text))
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    assert edges == sorted(edges)
    assert not "".join(text[end:start] for end, start in zip(edges[::2], edges[1::2], strict=True)).strip()
    before, units = units_of(text)
    assert joined(before, units, [True] * len(units)) == text


@PLAIN
@given(TEXTS, st.floats(0.2, 0.95))
def test_no_number_and_no_fence_is_cut_in_half_and_the_order_stays(context: str, share: float) -> None:
    kept = extracted(context, share)
    whole = LLAMAINDEX.format(context=context, question="What were the Prices of the harbour?")
    assert not Counter(NUMBER.findall(kept)) - Counter(NUMBER.findall(whole))
    assert not Counter(FENCE.findall(kept)) - Counter(FENCE.findall(whole))
    assert kept.count("```py") == len(FENCE.findall(kept))
    for link in ("https://a.example/b.c?d=1.5", "(see p. 4. There)", "`x. y`"):
        assert kept.count(link[:8]) == kept.count(link)
    # What is left can be read off the whole from the left to the right.
    at = 0
    for word in kept.split():
        at = whole.index(word, at) + len(word)


RECORD = st.lists(st.integers(100, 999), min_size=2, max_size=6).map(
    lambda values: "\n".join(f"{chr(97 + at)}: {value}" for at, value in enumerate(values))
)
TABLE = st.lists(st.lists(st.integers(100, 999), min_size=3, max_size=3), min_size=2, max_size=6)


@PLAIN
@given(TEXTS, st.lists(RECORD, min_size=1, max_size=3), TABLE, st.floats(0.2, 0.95))
def test_a_record_is_kept_whole_or_not_at_all_and_no_row_without_its_head(
    context: str, records: list[str], table: list[list[int]], share: float
) -> None:
    rows = [",".join(map(str, row)) for row in table]
    whole = "\n\n".join(
        [context.replace(",", ";"), "That is all.", *records, "\n".join(["x,y,z", *rows]), "The end."]
    )
    kept = extracted(whole, share)
    names = [line for line in kept.splitlines() if re.fullmatch(r"[a-f]: \d{3}", line)]
    assert names == [line for block in kept.split("\n\n") if block in records for line in block.splitlines()]
    assert ("x,y,z" in kept) == any(row in kept.splitlines() for row in rows)


@PLAIN
@given(st.lists(PROSE, min_size=1, max_size=8).map("\n\n".join), st.integers(1, 400))
def test_the_budget_holds_wherever_more_than_one_sentence_is_left(context: str, budget: int) -> None:
    messages = [Message("user", (Part(context, "context"), Part("Which Prices fell?")))]
    done = Extractive(HashingEmbedder()).compress(messages, budget)
    assert done.tokens_after <= done.tokens_before
    # Besides its headings, no other unit is left.
    _, units = units_of(context)
    above = {number for unit in units for number in unit.parents}
    headings = {unit.text for number, unit in enumerate(units) if unit.label or number in above}
    alone = Counter(unit.text for unit in units if unit.text not in headings)
    left = Counter(unit.text for unit in units) - Counter(done.dropped)
    assert done.tokens_after <= budget or (left & alone).total() <= 1


@PLAIN
@given(ANY)
def test_lossless_twice_is_lossless_once(text: str) -> None:
    for messages in ([user(text)], [Message.of("user", text, "context")], [tool(text + "\n\n" + text, "c")]):
        once = Lossless().compress(messages)
        assert Lossless().compress(once.messages).messages == once.messages
        assert once.tokens_after <= once.tokens_before


@PLAIN
@given(TEXTS)
def test_tidying_changes_nothing_but_white_space_and_leaves_fences(text: str) -> None:
    left = tidied(text)
    assert "".join(left.split()) == "".join(text.split())
    assert FENCE.findall(left) == FENCE.findall(text)


@PLAIN
@given(RECORDS, st.integers(1, 4))
def test_json_says_the_same_after_it_was_minified(value: object, indent: int) -> None:
    written = json.dumps(value, indent=indent, ensure_ascii=False)
    left = tidied(f"Result:\n{written}\n\nEnd")
    body = left.removeprefix("Result:\n").removesuffix("\n\nEnd")
    assert json.loads(body) == value
    assert len(body) <= len(written)


@st.composite
def talks(draw: st.DrawFn) -> list[Message]:
    """Turns of a user, each with some calls of tools and their results, as models make them."""
    talk = [Message.of("system", "s" * draw(st.integers(0, 40)))] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 6))):
        talk.append(user("u" * draw(st.integers(1, 60))))
        for round_ in range(draw(st.integers(0, 2))):
            ids = [f"{turn}.{round_}.{number}" for number in range(draw(st.integers(1, 3)))]
            talk.append(assistant("", *ids))
            talk += [tool("r" * draw(st.integers(1, 60)), id) for id in draw(st.permutations(ids))]
        if draw(st.booleans()):
            talk.append(assistant("a" * draw(st.integers(1, 60))))
    return talk


@PLAIN
@given(talks(), st.integers(1, 150))
def test_history_parts_no_result_from_its_call_and_keeps_the_order(talk: list[Message], budget: int) -> None:
    done = History().compress(talk, budget)
    left = list(done.messages)
    called = {call for message in left for call in message.calls}
    assert {answer for message in left for answer in message.answers} == called
    led = [message for message in talk[:1] if message.role == "system"]
    assert left[: len(led)] == led
    assert left[len(led) :] == talk[len(talk) - len(left) + len(led) :]
    assert left[len(led)].role == "user"
    last = max(at for at, message in enumerate(talk) if message.role == "user")
    assert done.tokens_after <= budget or left == [*led, *talk[last:]]
