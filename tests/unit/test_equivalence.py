"""Do two stored answers say the same? Dress does not count; figures, signs, units and code do."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
from fakes import made
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ThinkingBlock,
    ToolCallBlock,
)

from dispatch_core.equivalence import clusters, normal_form, same_answer, same_entry
from langchain_dispatch.answers import encode
from llamaindex_dispatch.convert import CHAT, COMPLETION


def _same(one: bytes, other: bytes) -> bool:
    a, b = made("a", payload=one), made("b", payload=other)
    assert same_entry(a, b) == same_entry(b, a)
    return same_entry(a, b)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Yes.", "yes"),
        ("Open from 9 to 5.", "  open   from 9\nto 5 "),
        ("The store in Ghent", "store in Ghent."),
        ("A refund takes 5 days!", "refund takes 5 days"),
        ("**Paris** is the capital", "Paris is the capital"),
        ("Run `make test`", "Run make test"),
        ("# Answer\n- first\n- second", "Answer\nfirst\nsecond"),
        ("60,000 tokens", "60000 tokens"),
        ("1,234,567", "1234567"),
        ("“Quoted” words", '"Quoted" words'),
        ("１２ Euro", "12 Euro"),
        ("你好。", "你好。"),
        ("It costs 3.50, not more.", "it costs 3.50, not more"),
    ],
)
def test_dress_does_not_count(one, other):
    assert same_answer(one, other)
    assert same_answer(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5", "-5"),
        ("3.5", "35"),
        ("0.5", "5"),
        (".5", "5"),
        ("1,5", "15"),
        ("0,500", "0500"),
        ("$5", "€5"),
        ("5 %", "5"),
        ("10²", "102"),
        ("x₂", "x2"),
        ("5½", "51⁄2"),
        ("5 MW", "5 mW"),
        ("5 Mb", "5 MB"),
        ("It is 5'", 'It is 5"'),
        ("5!", "5"),
        ("> 5 days", "5 days"),
        ("- 5 degrees", "5 degrees"),
        ("2 * 3", "2 3"),
        ("C++", "C"),
        ("C#", "C"),
        ("x = [1]", "x = 1"),
        ("A", ""),
        ("A C", "C"),
        ("f(x)", "f x"),
        ("yes", "no"),
        ("!!!", "???"),
        ("```\nIf\n```", "```\nif\n```"),
        ("def f():\n    return A", "def f():\nreturn a"),
    ],
)
def test_what_changes_the_answer_counts(one, other):
    assert not same_answer(one, other)


@given(st.text(), st.text(), st.text())
def test_it_is_an_equivalence_relation(a, b, c):
    assert same_answer(a, a)
    assert same_answer(a, b) == same_answer(b, a)
    assert not (same_answer(a, b) and same_answer(b, c)) or same_answer(a, c)


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_other_numbers_are_other_answers(one, other):
    assert same_answer(f"It takes {one} days.", f"it takes {other:,} days") == (one == other)


@pytest.mark.parametrize("mark", [*"*`.,'\"#>-+!? \t\n1", "*a", "a*", "1,", ",111", ". ", " \n", "``", "'\"", "1'"])
def test_no_text_takes_long(mark):
    started = time.process_time()
    normal_form(mark * 16_000 + "x")
    normal_form("x" + mark * 16_000)
    assert time.process_time() - started < 1.0


# Payloads


def _generation(text, **facts) -> bytes:
    payload = encode([ChatGeneration(message=AIMessage(text, **facts))])
    assert payload is not None
    return payload


def test_two_replies_of_langchain_with_one_text_say_the_same():
    first = _generation("Paris.", id="run-1", response_metadata={"model_name": "a", "finish_reason": "stop"})
    second = _generation(
        "**Paris**", id="run-2", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    )
    assert _same(first, second)
    assert not _same(first, _generation("Rome.", id="run-1"))
    assert _same(
        encode([Generation(text="Paris.")]), encode([Generation(text="paris", generation_info={"n": "x" * 99})])
    )


def test_tool_calls_say_more_than_their_text():
    def call(city):
        return [{"name": "weather", "args": {"city": city}, "id": "1", "type": "tool_call"}]

    assert not _same(_generation("", tool_calls=call("Paris")), _generation("", tool_calls=call("Rome")))
    assert not _same(_generation("Wait", tool_calls=call("Paris")), _generation("Wait", tool_calls=call("Rome")))


def test_blocks_of_content_are_read_in_order():
    def blocks(*texts):
        return _generation([{"type": "text", "text": text} for text in texts])

    assert _same(blocks("One. ", "Two."), blocks("one ", "two"))
    assert not _same(blocks("One.", "Two."), blocks("Two.", "One."))
    assert not _same(
        _generation(
            [{"type": "tool_use", "id": "1", "name": "n", "input": {"a": 1}}, {"type": "text", "text": "So"}]
        ),
        _generation(
            [{"type": "tool_use", "id": "1", "name": "n", "input": {"a": 2}}, {"type": "text", "text": "So"}]
        ),
    )


def test_responses_of_llamaindex_with_one_text_say_the_same():
    def chat(text, *blocks):
        message = ChatMessage(role="assistant", content=text)
        message.blocks.extend(blocks)
        return CHAT.encode(ChatResponse(message=message))

    assert _same(chat("Paris."), chat("paris"))
    assert not _same(chat("Paris."), chat("Rome."))
    assert _same(chat("Paris.", ThinkingBlock(content="hm")), chat("Paris", ThinkingBlock(content="easy")))
    calls = [ToolCallBlock(tool_call_id="1", tool_name="f", tool_kwargs={"x": x}) for x in (1, 2)]
    assert not _same(chat("Paris.", calls[0]), chat("Paris.", calls[1]))
    complete = [COMPLETION.encode(CompletionResponse(text=text)) for text in ("Paris.", "paris", "Rome")]
    assert [_same(complete[0], other) for other in complete] == [True, True, False]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"", b"", True),
        (b"Paris.", b"paris", True),
        (b'"Paris."', b"paris", True),
        (b"5", b"6", False),
        (b"true", b"false", False),
        (b"\xff\xfe", b"\xff\xfe", True),
        (b"\xff\xfe", b"\xff\xff", False),
        (b"{}", b"[]", False),
        (b'{"answer":"Paris","source":"a long one"}', b'{"answer":"Rome","source":"a long one"}', False),
        (b'{"text":""}', b'{"text":" "}', False),
        (b'{"text":"a","image":"1"}', b'{"text":"a","image":"2"}', False),
        (b'{"text":"a","toolCalls":[1]}', b'{"text":"a","toolCalls":[2]}', False),
        (b'{"text":"a","tool_calls":[]}', b'{"text":"A."}', True),
        (b'{"text":"\\ud800"}', b'{"text":"\\ud801"}', False),
        (b"[" * 20_000, b"[" * 20_001, False),
        (b'{"a":' * 900 + b"1" + b"}" * 900, b"{}", False),
        (b"a" * 40_000, b"A" * 40_000, False),
    ],
)
def test_any_bytes_can_be_compared(one, other, same):
    assert _same(one, other) == same


@given(st.binary(), st.binary())
def test_no_bytes_raise(one, other):
    assert _same(one, one)
    _same(one, other)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "content", "type", "tool"]), inner, max_size=3)
    ),
)


@given(_JSON, _JSON)
def test_no_json_raises(one, other):
    assert _same(json.dumps(one).encode(), json.dumps(one, indent=1).encode()) in (True, False)
    _same(json.dumps(one).encode(), json.dumps(other).encode())


# Clusters


def _entries(answers):
    return [made(f"{number}", payload=answer.encode()) for number, answer in enumerate(answers)]


@given(st.lists(st.sampled_from(["yes", "Yes.", "no", "No!", "perhaps"]), max_size=8))
def test_entries_are_together_if_their_answers_are_the_same(answers):
    labels = clusters(_entries(answers))
    for one, label in enumerate(labels):
        assert label <= one
        for other in range(len(answers)):
            assert (label == labels[other]) == same_answer(answers[one], answers[other])


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8))
def test_comparisons_are_few(answers):
    asked = []

    def same(a, b):
        asked.append((a, b))
        return a.payload == b.payload

    labels = clusters(_entries(answers), same)
    assert len(asked) <= (len(answers) - 1) * len(set(answers))
    assert len(set(labels)) == len(set(answers))


def test_one_comparison_each_when_all_agree():
    asked = []
    assert clusters(_entries(["yes"] * 8), lambda a, b: not asked.append((a, b))) == [0] * 8
    assert len(asked) == 7
    assert all(one[0] is other[0] for one, other in pairwise(asked))
