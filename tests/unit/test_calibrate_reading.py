"""What `dispatcher calibrate` reads: logs and pairs in every shape; and what it says of a file that it cannot."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest

from dispatch_core import ConfigError
from dispatch_core.calibrate import Columns, Log, Pairs, read

COLUMNS_OF_LOGS = [("question", "answer"), ("Query", "Response"), ("prompt", "output"), ("text", "category")]
COLUMNS_OF_PAIRS = [
    ("question1", "question2", "is_duplicate"),
    ("sentence1", "sentence2", "label"),
    ("a", "b", "same"),
]


@pytest.fixture
def written(tmp_path):
    """Writes bytes or text into a file of this name."""

    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("columns", COLUMNS_OF_LOGS)
@pytest.mark.parametrize(("name", "mark"), [("log.csv", ","), ("log.CSV", ";"), ("log.tsv", "\t"), ("log.csv", "\t")])
def test_a_table_of_questions_and_answers_is_a_log(written, columns, name, mark):
    rows = [["id", *columns], ["1", "Who?", "Me."], ["2", "Why?", "Because."]]
    log = read(written(name, "\n".join(mark.join(row) for row in rows)))
    assert isinstance(log, Log)
    assert (list(log.questions), list(log.answers)) == (["Who?", "Why?"], ["Me.", "Because."])
    assert log.source.columns == columns


@pytest.mark.parametrize("columns", COLUMNS_OF_PAIRS)
@pytest.mark.parametrize("name", ["pairs.csv", "pairs.jsonl"])
def test_two_questions_and_a_label_are_pairs(written, columns, name):
    rows = [("Who?", "Who is it?", "1"), ("Who?", "Why?", "0"), ("Where?", "In which place?", "true")]
    lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    if name.endswith("csv"):
        lines = [",".join(row) for row in (columns, *rows)]
    pairs = read(written(name, "\n".join(lines)))
    assert isinstance(pairs, Pairs)
    assert list(zip(pairs.one, pairs.other, strict=True)) == [row[:2] for row in rows]
    assert pairs.same == [True, False, True]


def test_a_byte_order_mark_windows_line_ends_and_quoted_line_breaks_are_no_part_of_a_text(written):
    content = '\ufeffquestion,answer\r\n"Who, then?","Me,\r\nI think."\r\n\r\n  Why?  ,Because.\r\n'
    log = read(written("log.csv", content))
    assert list(log.questions) == ["Who, then?", "Why?"]
    assert list(log.answers) == ["Me,\nI think.", "Because."]


def test_json_values_that_are_no_texts_become_texts(written):
    lines = ['{"query": "How many?", "response": 4}', '{"query": "Which?", "response": {"id": [1, 2]}}']
    lines.append('{"query": "\\ud800?", "response": true}')
    assert list(read(written("log.ndjson", "\n".join(lines))).answers) == ["4", '{"id": [1, 2]}', "true"]


def test_standard_input_is_json_lines(monkeypatch):
    content = io.BytesIO('\ufeff{"question": "Who?", "answer": "Me."}\n'.encode())
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=content))
    log = read(None)
    assert (list(log.questions), log.source.name) == (["Who?"], "standard input")


def test_columns_can_be_named(written):
    path = written("log.csv", "question,answer,asked,said\nno,no,Who?,Me.\n")
    assert read(path, columns=Columns(question="asked", answer="said")).questions == ["Who?"]
    assert read(path, columns=Columns(answer="said")).source.columns == ("question", "said")
    path = written("pairs.csv", "left,right,alike\nWho?,Who is it?,yes\n")
    pairs = read(path, columns=Columns(question="left", other="right", same="alike"))
    assert (pairs.one, pairs.other, pairs.same) == (["Who?"], ["Who is it?"], [True])


def test_bad_rows_are_counted_by_reason_with_the_line_of_the_first(written):
    rows = ["question,answer", "Who?,Me.", " ,Me.", "Who?", "Why?,", "When?,Now,or never", ",Me."]
    source = read(written("log.csv", "\n".join(rows))).source
    skipped = {"empty question": 2, "no answer": 1, "empty answer": 1, "more fields than columns": 1}
    assert source.skipped == skipped
    assert [source.first[reason] for reason in skipped] == [3, 4, 5, 6]
    assert (source.rows, source.more) == (6, False)


def test_bad_lines_and_labels_are_counted_too(written):
    lines = ['{"query": "Who?", "answer": "Me."}', "[1]", "{", "", '{"query": null, "answer": "x"}', '{"query": "y"}']
    source = read(written("log.jsonl", "\n".join(lines))).source
    assert source.skipped == {"not a JSON object": 2, "empty query": 1, "no answer": 1}
    rows = ["question1,question2,is_duplicate", "a,b,1", "a,b,perhaps", "a,a,1"]
    source = read(written("pairs.csv", "\n".join(rows))).source
    assert source.skipped == {"is_duplicate is neither yes nor no": 1, "a question paired with itself": 1}


def test_a_quote_that_nothing_closes_is_a_bad_row_with_its_line(written):
    lines = ["question,answer", "Who?,Me.", 'Why?,"Because', *["x" * 1_000] * 140, "When?,Now."]
    source = read(written("log.csv", "\n".join(lines))).source
    reason = "a quote that nothing closes within 131,072 characters"
    assert source.skipped[reason] == 1
    assert source.first[reason] == 3


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("log.csv", b"question,answer\nWho?,Me.\nWo?,M\xfcnchen\n", r"log\.csv, line 3 is not UTF-8: byte 0xfc at 6"),
        ("log.csv", "question,answer\n".encode("utf-16"), "line 1 is not UTF-8.*looks like UTF-16"),
        ("log.jsonl", b'{"query": "\xff"}', "line 1 is not UTF-8"),
        ("log.csv", "", "has no rows"),
        ("log.jsonl", "\n", "has no rows"),
        ("log.jsonl", "[]", r"columns \(none\)"),
        ("log.csv", "question,answer\n", "has no rows"),
        ("log.csv", "question,answer\n,x\n,y\n", r"no good row: empty question \(2\)"),
        ("log.csv", "one,two\nx,y\n", "has columns one, two: name those .* --question and --answer"),
        ("log.csv", "x" * 140_000, "the first line of a table names its columns"),
        ("log.xlsx", "", r"none of \.csv, \.tsv, \.jsonl"),
        ("log.json", "[]", "one object a line"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(written, name, content, says):
    with pytest.raises(ConfigError, match=says):
        read(written(name, content))


def test_a_missing_file_a_folder_and_columns_that_are_not_there_are_refused(written, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "folder.csv")
    path = written("log.csv", "question,answer\nWho?,Me.\n")
    with pytest.raises(ConfigError, match="no column 'asked'; it has question, answer"):
        read(path, columns=Columns(question="asked"))
    with pytest.raises(ConfigError, match="not both"):
        read(path, columns=Columns(answer="answer", same="label"))
    with pytest.raises(ConfigError, match="at least 1"):
        read(path, limit=0)


@pytest.mark.parametrize(("limit", "more"), [(3, True), (4, False), (5, False)])
def test_rows_beyond_the_limit_are_not_read_and_the_source_says_so(written, limit, more):
    log = read(written("log.csv", "question,answer\na,1\nb,2\n,\nd,4\n"), limit=limit)
    assert log.source.more is more
    assert log.source.rows == min(limit, 4)


def test_a_chain_of_duplicates_has_one_answer(written):
    rows = ["question1,question2,is_duplicate", "a,b,1", "b,c,1", "c,d,0", "e,f,0", "a,c,0"]
    pairs = read(written("pairs.csv", "\n".join(rows)))
    log = pairs.log()
    answers = dict(zip(log.questions, log.answers, strict=True))
    assert list(log.questions) == ["a", "b", "c", "d", "e", "f"]
    assert answers["a"] == answers["b"] == answers["c"]
    assert len(set(answers.values())) == 4
    assert pairs.contradictions == 1
