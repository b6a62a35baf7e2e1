"""What is said to RediSearch and how its replies are read, of both protocols, as its documentation has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes import made, unit
from places import EAST, HERE, HOSTILE, NOW

from dispatch_core.keys import digest
from dispatch_core.stores import _redisearch_wire as wire

KEY = f"{{p}}:ft:e:{digest('a')}".encode()


def _stored(entry, vector=EAST) -> dict[bytes, bytes]:
    """The fields as the server gives them back."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in wire.fields(entry, vector)]
    return dict(zip(words[::2], words[1::2], strict=True))


def _flat(row: dict[bytes, bytes]) -> list[bytes]:
    return [part for pair in row.items() for part in pair]


def _resp3(*results) -> dict[bytes, object]:
    items = [{b"id": key, b"extra_attributes": row, b"values": []} for key, row in results]
    return {
        b"attributes": [],
        b"results": items,
        b"warning": [],
        b"total_results": len(items),
        b"format": b"STRING",
    }


# Replies


ROW = {b"namespace": b"ours", b"text": b"a question", b"payload": b"\x00\xff\r\n*3", b"distance": b"0.125"}


@pytest.mark.parametrize(
    "reply",
    [
        [1, KEY, _flat(ROW)],
        [1, KEY, ROW],
        [3, b"gone", None, KEY, _flat(ROW), None, None],
        [2, b"empty", [], KEY, _flat(ROW)],
        [2, b"partly", [b"distance", b"0.1"], KEY, _flat(ROW)],
        _resp3((KEY, ROW)),
        _resp3((b"gone", None), (KEY, ROW), (b"empty", {})),
        _resp3((KEY, _flat(ROW))),
        {name.decode(): value for name, value in _resp3((KEY, ROW)).items()},
    ],
    ids=[
        "resp2",
        "resp2 with maps",
        "expired",
        "emptied",
        "partial",
        "resp3",
        "resp3 expired",
        "resp3 flat",
        "names decoded",
    ],
)
def test_hits_are_read_from_either_protocol(reply):
    assert wire.hits(reply) == [(KEY, ROW)]


def test_names_that_a_client_decoded_are_names():
    decoded = {"id": KEY.decode(), "extra_attributes": {name.decode(): value for name, value in ROW.items()}}
    assert wire.hits({"results": [decoded], "total_results": 1}) == [(KEY, ROW)]


@pytest.mark.parametrize("reply", [[0], _resp3(), {b"total_results": 0, b"results": []}, {}])
def test_no_hits_are_no_hits(reply):
    assert wire.hits(reply) == []
    assert wire.size(reply) == 0


@pytest.mark.parametrize("reply", [[2, b"gone", None, KEY, _flat(ROW)], _resp3((b"gone", None), (KEY, ROW))])
def test_the_size_counts_what_expired_meanwhile(reply):
    assert wire.size(reply) == 2


@pytest.mark.parametrize(
    ("distance", "cosine"), [(b"0", 1.0), ("0.25", 0.75), (1.0, 0.0), (b"2", -1.0), (b"-1e-7", 1.0)]
)
def test_the_cosine_is_read_from_the_distance(distance, cosine):
    assert wire.cosine({b"distance": distance}) == cosine


@pytest.mark.parametrize("vector", [EAST, None])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_an_entry_comes_back_from_its_fields(text, vector):
    entry = replace(made("a", text=text, payload=b"\x00\xff", tags=[text, "b"], expires=NOW + 0.125), stale=NOW)
    assert wire.entry(KEY, "{p}:ft:e:", _stored(entry, vector)) == entry


def test_empty_fields_may_be_missing_from_a_reply():
    entry = made("a", text="", payload=b"")
    there = {name: value for name, value in _stored(entry).items() if value}
    assert wire.entry(KEY, "{p}:ft:e:", there) == entry


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ([b"indexing", b"0", b"percent_indexed", b"1", b"hash_indexing_failures", b"0"], (True, True)),
        ([b"indexing", b"1", b"percent_indexed", b"0.4", b"hash_indexing_failures", b"0"], (False, True)),
        ({b"indexing": 0, b"percent_indexed": 1.0, b"hash_indexing_failures": 2}, (True, False)),
        ({"indexing": 1, "percent_indexed": 0.0}, (False, True)),
        ([b"index_name", b"i", b"attributes", [[b"identifier", b"scope"]]], (True, True)),
    ],
)
def test_the_state_of_an_index_is_read_from_either_protocol(told, state):
    assert wire.indexed(told) == state


# Errors, as the versions word them


@pytest.mark.parametrize(
    "message",
    ["{p}:ft:i1:3: no such index", "Unknown Index name", "Unknown index name", "No such index {p}:ft:i1:3",
     "SEARCH_INDEX_NOT_FOUND Index not found: {p}:ft:i1:3"],
)  # fmt: skip
def test_a_missing_index_is_recognised(message):
    assert wire.is_missing(message)
    assert not wire.is_absent(message)


@pytest.mark.parametrize(
    "message", ["unknown command 'FT.SEARCH', with args beginning with: 'i' '*' ", "ERR unknown command `FT.SEARCH`"]
)
def test_a_missing_command_is_recognised(message):
    assert wire.is_absent(message)
    assert not wire.is_missing(message)


# Commands


def test_a_search_asks_the_whole_question():
    command = wire.nearest("i", EAST, scope=HERE, limit=8, now=NOW + 0.5, ef=64, timeout=250)
    assert command[:3] == (
        "FT.SEARCH",
        "i",
        f"(@scope:{{{HERE}}} @ends:[({int(NOW)}.5 +inf])=>[KNN 8 @vector3 $vector EF_RUNTIME 64 AS distance]",
    )
    words = command[3:]
    count = words[1]
    assert words[0] == "RETURN"
    assert {"payload", "text", "expires", "distance"} <= set(words[2 : 2 + count])
    assert {"vector3", "ends"}.isdisjoint(words[2 : 2 + count])
    assert words[2 + count :] == (
        *("SORTBY", "distance", "ASC", "LIMIT", 0, 8, "TIMEOUT", 250),
        *("PARAMS", 2, "vector", EAST.tobytes(), "DIALECT", 2),
    )


def test_a_wide_search_walks_as_wide():
    assert (
        "KNN 500 @vector3 $vector EF_RUNTIME 500 "
        in wire.nearest("i", EAST, scope=HERE, limit=500, now=None, ef=64, timeout=1)[2]
    )


def test_an_index_takes_its_entries_alone():
    command = wire.create("{p}:ft:i1:384", "{p}:ft:e:", 384)
    assert command[:8] == ("FT.CREATE", "{p}:ft:i1:384", "ON", "HASH", "PREFIX", 1, "{p}:ft:e:", "SCHEMA")
    vector = command[command.index("vector384") :]
    assert vector == (
        *("vector384", "VECTOR", "HNSW", 6),
        *("TYPE", "FLOAT32", "DIM", 384, "DISTANCE_METRIC", "COSINE"),
    )


def test_what_is_empty_stays_out_of_the_index():
    names = wire.fields(made("a"), None)[::2]
    assert not [name for name in names if name == "labels" or name.startswith("vector3")]
    names = wire.fields(made("a", tags=["t"]), unit(1, 0))[::2]
    assert {"labels", "vector2"} <= set(names)


def test_clearing_asks_for_namespace_and_any_of_the_tags():
    command = wire.marked("i", namespace="*", tags=["b", "a, }"], start=20, count=10)
    labels = "|".join(sorted([wire.label("a, }"), wire.label("b")]))
    assert command[:3] == ("FT.SEARCH", "i", f"@namespace:{{\\*}} @labels:{{{labels}}}")
    assert command[3:] == ("RETURN", 2, "namespace", "tags", "LIMIT", 20, 10, "TIMEOUT", 0, "DIALECT", 2)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(1.0, "1"), (1e22, "1" + "0" * 22), (0.000001, "0.000001"), pytest.param(NOW, f"{int(NOW)}", id="now")],
)
def test_instants_have_no_exponent(seconds, written):
    assert wire.number(seconds) == written
    assert float(wire.number(seconds)) == seconds


@pytest.mark.parametrize("tag", HOSTILE, ids=range(len(HOSTILE)))
def test_labels_are_plain_and_each_tag_has_its_own(tag):
    assert wire.label(tag).isalnum()
    assert len({wire.label(other) for other in HOSTILE}) == len(HOSTILE)


def test_every_sign_of_a_filter_is_escaped():
    assert wire.escaped("a-b c|d}{*\\\"'$@") == "a\\-b\\ c\\|d\\}\\{\\*\\\\\\\"\\'\\$\\@"
    assert wire.escaped(HERE) == HERE


def test_vectors_are_little_endian_float32():
    assert wire.blob(np.array([1.0, -2.0])) == b"\x00\x00\x80?\x00\x00\x00\xc0"
