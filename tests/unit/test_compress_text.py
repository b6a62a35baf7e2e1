"""How a context is taken apart: sentences, units, frames, white space, JSON, repetitions."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from conversations import DOORS, LLAMAINDEX

from dispatch_core import ConfigError
from dispatch_core.compress import FRAMES, Frame
from dispatch_core.compress.frames import TAGS, segments_of, tags_of
from dispatch_core.compress.known import question_in
from dispatch_core.compress.lossless import tidied
from dispatch_core.compress.repeats import without_repeats
from dispatch_core.compress.sentences import sentences
from dispatch_core.compress.spaces import narrowed
from dispatch_core.compress.units import joined, units_of

LANGCHAIN_STUFF = (
    "Use the following pieces of context to answer the question at the end. If you don't know the answer, just say "
    "that you don't know, don't try to make up an answer.\n\n{context}\n\nQuestion: {question}\nHelpful Answer:"
)
LANGCHAIN_CHAT = (
    "Use the following pieces of context to answer the user's question. \nIf you don't know the answer, just say "
    "that you don't know, don't try to make up an answer.\n----------------\n{context}"
)
LANGCHAIN_TUTORIAL = (
    "You are an assistant for question-answering tasks. Use the following pieces of retrieved context to answer the "
    "question. If you don't know the answer, say that you don't know. Use three sentences maximum and keep the "
    "answer concise.\n\n{context}"
)
LANGCHAIN_HUB = (
    "You are an assistant for question-answering tasks. Use the following pieces of retrieved context to answer the "
    "question. If you don't know the answer, just say that you don't know. Use three sentences maximum and keep the "
    "answer concise.\nQuestion: {question} \nContext: {context} \nAnswer:"
)


@pytest.mark.parametrize(
    "parts",
    [
        ["It is warm.", "Nobody came!", "Why?", "Because."],
        ["It costs 3.50 euros, i.e. half of 7.00.", "Dr. A. B. Smith paid."],
        ["The U.S. team, Inc. and Ltd. came on 3. Mai 1990.", "See Fig. 4 and No. 12 there."],
        ["He asked (why? when?) twice.", "Then he left [see p. 5. And 6].", "So did we."],
        ["Read https://a.example/b?c=1.2&d=x. y first.", "Or www.example.com.", "Or not."],
        ["So it was shown [12, 13].", "And again.[4–6]", "See (Lee et al., 2020) too."],
        ["Set `a. B` and go.", "Use v1.2.3.", "Or 1. Both work."],
        ["„Wirklich? Nein.“ fragte sie.", "„So.“", "Es gilt z. B. Abs. 3 bzw. Nr. 4."],
        ["Wait... what?", "Yes...", "No."],
    ],
)
def test_sentences_end_where_they_end_and_not_in_abbreviations_numbers_brackets_and_links(parts: list[str]) -> None:
    text = " ".join(parts)
    assert [text[start:end] for start, end in sentences(text)] == parts


def test_sentences_of_chinese_and_japanese_need_no_space() -> None:
    text = "价格是3.5元。“真的吗？我不信！”他说。あれは何ですか？本です。"
    assert [text[start:end] for start, end in sentences(text)] == [
        "价格是3.5元。",
        "“真的吗？我不信！”",
        "他说。",
        "あれは何ですか？",
        "本です。",
    ]


def test_units_joined_are_the_text() -> None:
    for text in (DOORS, "", " \n", "a", "\n\n a.  b! \n", "```\nopen", "| a |\n| b |", "# x", "{", "[1] a. B.\n\n\n"):
        before, units = units_of(text)
        assert joined(before, units, [True] * len(units)) == text


def test_code_formulas_and_json_are_one_unit_each() -> None:
    blocks = [
        "```python\nx = 1. \n\ny = 2\n```",
        "    def f():\n    return 1",
        '{"a": 1,\n\n "b": 2}',
        "$$\nx. Y\n$$",
    ]
    blocks += ["~~~~\n```\n~~~\n~~~~", "<pre>\na. B\n\nc\n</pre>"]
    _, units = units_of("A word.\n\n" + "\n\n".join(blocks) + "\n\nAnother word.")
    assert [unit.text for unit in units[1:-1]] == blocks


def test_a_fence_that_is_never_closed_runs_to_the_end() -> None:
    _, units = units_of("Look:\n```\na. B. C.\n\nd")
    assert [unit.text for unit in units] == ["Look:", "```\na. B. C.\n\nd"]


def test_rows_need_the_head_of_their_table_and_items_the_words_before_them() -> None:
    _, units = units_of("# Fees\n\nThey are:\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n")
    needs = {unit.text: [units[one].text for one in unit.parents] for unit in units}
    assert needs["- two"] == ["# Fees", "They are:"]
    assert needs["| 3 | 4 |"] == ["# Fees", "| a | b |\n|---|---|"]


def test_metadata_belong_to_the_chunk_below_them() -> None:
    _, units = units_of("page_label: 3\nfile_path: a/b.md\n\nOne. Two.\n\nfile_path: c.md\n\nThree.")
    above = {unit.text: [units[one].text for one in unit.parents] for unit in units}
    assert above["Two."] == ["page_label: 3\nfile_path: a/b.md"]
    assert above["Three."] == ["file_path: c.md"]


def test_a_headline_right_above_another_one_is_the_title_of_what_follows() -> None:
    """Two documents one after another, as LlamaIndex joins them."""
    text = "Guide to Ulm\n\nFood\n\nSoup is good.\n\nBeds\n\nThree inns.\n\nCalw: a guide\n\nFood\n\nTry the bread."
    _, units = units_of(text)
    above = {unit.text: [units[one].text for one in unit.parents] for unit in units}
    assert above["Three inns."] == ["Guide to Ulm", "Beds"]
    assert above["Try the bread."] == ["Calw: a guide", "Food"]
    # What has a name and a value may be an answer.
    assert [unit.text for unit in units if unit.label] == ["Guide to Ulm", "Food", "Beds", "Food"]


@pytest.mark.parametrize(
    "table",
    [
        "Model   Pages   Price\nMerlin X1    10   390 euros\nKite 9   30   330 euros",
        "model,pages,price\nMerlin X1,10,390\nKite 9,30,330",
        "Modell;Preis\nMerlin X1;390,00\nKite 9;330,00",
        "model\tprice\nMerlin X1\t390\nKite 9\t330",
    ],
)
def test_rows_of_columns_need_their_head_as_well(table: str) -> None:
    _, units = units_of(f"Prices of this year.\n\n{table}\n\nThey may change. We tell you.")
    lines = table.splitlines()
    assert [unit.text for unit in units[1:4]] == lines
    assert [unit.label for unit in units[1:4]] == [True, False, False]
    assert [units[one].text for one in units[3].parents] == lines[:1]


def test_columns_without_a_head_are_rows_and_wrapped_prose_is_not_in_columns() -> None:
    assert not any(unit.label for unit in units_of("1,2,3\n4,5,6\n7,8,9")[1])
    typed = "The first of them costs 1,000 euros.  It is\nold, but at 2,500 euros still in use.  Its\nheir is 3,000."
    assert [unit.text for unit in units_of(typed)[1]] == [
        "The first of them costs 1,000 euros.",
        "It is\nold, but at 2,500 euros still in use.",
        "Its\nheir is 3,000.",
    ]


@pytest.mark.parametrize("name", ["name", "Name", "名称"])
def test_a_record_of_names_and_values_stays_together_and_is_nobody_s_metadata(name: str) -> None:
    records = [f"{name}: {what}\nprice: {price}" for what, price in (("Osprey 5", 520), ("Kite", 330))]
    _, units = units_of("\n\n".join([*records, "Prices may change."]))
    assert [(unit.text, unit.label) for unit in units] == [(one, False) for one in [*records, "Prices may change."]]


def test_a_question_and_its_answer_stay_together_and_the_turns_of_a_chat_do_not() -> None:
    asked = "Q: May I bring a dog?\nA: A small one."
    assert units_of(f"{asked}\n\nQ: Is there wifi?\nA: Yes.")[1][0].text == asked
    chat = "Ann: Hello.\nBen: Hello, Ann.\nAnn: When do we eat?\nBen: At one."
    assert [unit.text for unit in units_of(chat)[1]] == chat.splitlines()


def test_lines_that_were_wrapped_are_one_paragraph_and_short_lines_are_not() -> None:
    wrapped = "This sentence was broken by an editor after about\nsixty characters, as is common. Then\ncame another."
    assert [unit.text for unit in units_of(wrapped)[1]] == [
        "This sentence was broken by an editor after about\nsixty characters, as is common.",
        "Then\ncame another.",
    ]
    assert [unit.text for unit in units_of("Name Ann\nAge 7\nTown Ulm")[1]] == ["Name Ann", "Age 7", "Town Ulm"]


@pytest.mark.parametrize("template", [LLAMAINDEX, LANGCHAIN_STUFF, LANGCHAIN_HUB])
def test_the_frameworks_prompts_show_their_context_and_question(template: str) -> None:
    found = segments_of(template.format(context=DOORS, question="Why?\nReally?"), FRAMES)
    assert "".join(text for _, text in found) == template.format(context=DOORS, question="Why?\nReally?")
    assert [text.strip() for kind, text in found if kind == "context"] == [DOORS]
    assert [text.strip() for kind, text in found if kind == "question"] == ["Why?\nReally?"]


@pytest.mark.parametrize("template", [LANGCHAIN_CHAT, LANGCHAIN_TUTORIAL])
def test_a_system_prompt_shows_its_context(template: str) -> None:
    found = segments_of(template.format(context=DOORS), FRAMES)
    assert [text.strip() for kind, text in found if kind == "context"] == [DOORS]


def test_the_templates_of_the_installed_frameworks_are_recognised() -> None:
    from llama_index.core.chat_engine.context import DEFAULT_CONTEXT_TEMPLATE
    from llama_index.core.prompts import default_prompts

    names = ("DEFAULT_TEXT_QA_PROMPT_TMPL", "DEFAULT_TREE_SUMMARIZE_TMPL", "DEFAULT_REFINE_PROMPT_TMPL")
    templates = [*(getattr(default_prompts, name) for name in names), default_prompts.DEFAULT_SUMMARY_PROMPT_TMPL]
    fields = dict.fromkeys(("context_str", "context_msg"), DOORS)
    for template in (*templates, DEFAULT_CONTEXT_TEMPLATE):
        found = segments_of(template.format(**fields, query_str="Why?", existing_answer="So."), FRAMES)
        assert [text.strip() for kind, text in found if kind == "context"] == [DOORS], template


def test_a_document_that_holds_the_words_of_the_frame_is_all_context() -> None:
    inner = LLAMAINDEX.format(context="inner", question="inner?")
    found = segments_of(LLAMAINDEX.format(context=inner + "\nmore", question="outer?"), FRAMES)
    assert [text.strip() for kind, text in found if kind == "context"] == [inner + "\nmore"]
    assert [text.strip() for kind, text in found if kind == "question"] == ["outer?"]


def test_tags_show_context_and_nothing_else_does() -> None:
    text = "Read <document id='1'>One.</document> and <context>Two.</context>: which?"
    assert segments_of(text, FRAMES) == [
        ("text", "Read <document id='1'>"),
        ("context", "One."),
        ("text", "</document> and <context>"),
        ("context", "Two."),
        ("text", "</context>: which?"),
    ]
    assert segments_of("A long text. " * 99, FRAMES) == [("text", "A long text. " * 99)]


def test_a_million_tags_that_nobody_closes_are_text() -> None:
    text = "<context>" * 1_000_000
    assert segments_of(text, FRAMES) == [("text", text)]
    assert question_in(text) == (text, [])
    assert [said for kind, said in segments_of(f"{text}</context>", []) if kind == "context"] == [text[9:]]


def test_tags_of_ones_own_have_their_names_to_the_letter() -> None:
    text = "<kb src='a'>One.</kb> <kb-id>7</kb-id> <kb.x>Two.</kb.x> <context>Three.</context>"
    held = [said for kind, said in segments_of(text, [], tags_of(["kb", "kb.x"])) if kind == "context"]
    assert held == ["One.", "Two."]
    assert [kind for kind, _ in segments_of(text, [], tags_of([*TAGS, "kb"]))].count("context") == 2
    assert segments_of(text, [], tags_of([])) == [("text", text)]


@pytest.mark.parametrize("tags", ["context", ["<context>"], ["a b"], [""], ["1st"], [7]])
def test_what_is_no_name_is_no_tag(tags: Any) -> None:
    with pytest.raises(ConfigError, match="tags are names"):
        tags_of(tags)


def test_a_template_of_ones_own_is_a_frame() -> None:
    frame = Frame("Facts:\n{facts}\n\nTask: {task} ({tone})", context="facts", question="task")
    assert frame.segments("Hi. Facts:  \nA.\nB.\n\nTask: Why? (kind) Bye.") == [
        ("text", "Hi. Facts:  \n"),
        ("context", "A.\nB."),
        ("text", "\n\nTask: "),
        ("question", "Why?"),
        ("text", " ("),
        ("text", "kind"),
        ("text", ")"),
        ("text", " Bye."),
    ]
    assert frame.segments("Facts: none") is None
    assert frame.segments("Facts:\n \n\nTask: Why? (kind)") is None


@pytest.mark.parametrize(
    "template", ["no field", "{context}", "a {context} b {docs}", "{context}{question} x", "{", "{} x"]
)
def test_a_template_that_shows_no_context_is_refused(template: str) -> None:
    with pytest.raises(ConfigError, match="frame"):
        Frame(template)


def test_white_space_that_says_nothing_goes() -> None:
    assert narrowed("One.  Two. \n\n\n\nThree.\t\n") == "One. Two.\n\nThree.\n"
    assert narrowed("It's 5\" wide.  It isn't 6\".") == "It's 5\" wide.  It isn't 6\"."
    assert narrowed("He said \"no\".  She didn't.  The dogs' bowl") == "He said \"no\". She didn't. The dogs' bowl"
    assert narrowed("| a    | b |\n|------|---|\n| long | 2 |") == "| a | b |\n|------|---|\n| long | 2 |"


@pytest.mark.parametrize(
    "text",
    [
        "name     price\napple        3\npear        12",
        "    indented  code",
        "use `a  b` here",
        "How many spaces are in 'a   b'?",
        'Why is {"id": "x  y"} not found?',
        "Is “New  York” one word?",
        "a\tb  c\td",
        "- item\n  - nested\n    - deeper",
    ],
)
def test_white_space_that_says_something_stays(text: str) -> None:
    assert narrowed(text) == text


def test_json_is_written_on_one_line_to_the_letter_and_fences_are_left_alone() -> None:
    value = '{\n  "a": 1.10,\n  "a": [1e400,  true],\n  "b": "x  \\" y\\n"\n}'
    fenced = f"```json\n{value}\n```"
    assert tidied(f"Look:\n{value}\n\n{fenced}\n[1] a  citation") == (
        f'Look:\n{{"a":1.10,"a":[1e400,true],"b":"x  \\" y\\n"}}\n\n{fenced}\n[1] a citation'
    )
    assert json.loads(tidied('[\n{"ü": "  "}\n]')) == [{"ü": "  "}]


def test_what_only_looks_like_json_stays() -> None:
    for text in ("{x:  1,\n y: 2}", '{"a": 1,\n"b": 2} and more', '[\n"open"'):
        assert json.dumps(tidied(text).replace("  ", " ")) == json.dumps(text.replace("  ", " "))


CHUNK = "The warranty covers two years from the day of purchase, and nothing that was repaired by others is ours."
LONG = f"{CHUNK} {CHUNK.replace('two', 'ten')} It ends when the thing is sold to somebody else, whoever that may be."


def test_a_passage_that_follows_itself_is_left_out() -> None:
    assert without_repeats(f"A\n\n{CHUNK}\n\n{CHUNK}\n\nB") == (f"A\n\n{CHUNK}\n\nB", (CHUNK,))


def test_a_passage_that_follows_itself_twice_is_left_out_twice() -> None:
    short = "A paragraph of some fifty characters, more or less."
    left, dropped = without_repeats("\n\n".join([short] * 6))
    assert left.split("\n\n")[:2] == [short] * 2
    assert len(dropped) == 2
    assert without_repeats(left) == (left, ())


def test_a_passage_that_stands_elsewhere_above_leaves_a_mark() -> None:
    left, dropped = without_repeats(f"# Pen\n\n{LONG}\n\n# Ink\n\n{LONG}\n\nEnd")
    assert left == f"# Pen\n\n{LONG}\n\n# Ink\n\n[as above: “The warranty covers two years from the…”]\n\nEnd"
    assert dropped == (LONG,)


def test_short_passages_may_come_twice_and_so_may_code() -> None:
    code = "```\n" + "x = 1\n" * 60 + "```"
    for text in ("Yes.\n\nYes.\n\nNo.\n\nYes.", f"{code}\n\nA\n\n{code}"):
        assert without_repeats(text) == (text, ())


HOSTILE = [
    "(",
    "a. ",
    "[\n",
    "\n",
    "a  b\n",
    "`. ",
    "1. a\n",
    "|\n",
    '{"a":\n',
    "a: b\n",
    "a: b\n\n",
    "a\n\n",
    "a,b,c\n",
    "“a. ",
    "?",
    "<context>",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_texts_take_no_more_than_their_length(piece: str) -> None:
    def took(text: str) -> float:
        started = time.thread_time()
        tidied(text)
        units_of(text)
        segments_of(text, FRAMES)
        return time.thread_time() - started

    half = min(took(piece * 1_500) for _ in range(2))
    assert min(took(piece * 3_000) for _ in range(2)) < 8 * half + 0.05
