"""Identity: what is the same text, and what can never be taken for another."""

from __future__ import annotations

import pytest
from fakes import in_another_process
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.keys import canonical, digest, entry_id, full_scope, namespace_digest, scope_digest

ANY_TEXT = st.text(st.characters(), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(ANY_TEXT, max_size=4), st.lists(ANY_TEXT, max_size=4))
def test_parts_never_run_together(one, other):
    assert (digest(*one) == digest(*other)) is (one == other)


@pytest.mark.parametrize(
    ("one", "other"), [(("ab", "c"), ("a", "bc")), (("a",), ("a", "")), ((), ("",)), (("a\x00", "b"), ("a", "\x00b"))]
)
def test_the_border_of_parts_is_part_of_the_digest(one, other):
    assert digest(*one) != digest(*other)


@given(ANY_TEXT)
def test_the_canonical_form_is_its_own(text):
    assert canonical(canonical(text)) == canonical(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("e\u0301", "\u00e9"),
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("a\r\r\nb", "a\n\nb"),
        ("  a\t\n", "a"),
    ],
)
def test_spellings_of_one_text_are_one_text(one, other):
    assert canonical(one) == canonical(other)
    assert entry_id("scope", one) == entry_id("scope", other)


@pytest.mark.parametrize(("one", "other"), [("a b", "a  b"), ("A", "a"), ("a\nb", "a b"), ("ﬁ", "fi"), ("²", "2")])
def test_texts_that_a_model_may_read_differently_stay_apart(one, other):
    assert entry_id("scope", one) != entry_id("scope", other)


@given(st.dictionaries(ANY_TEXT, JSON, max_size=5))
def test_the_order_of_keys_does_not_matter(facts):
    backwards = dict(reversed(list(facts.items())))
    assert scope_digest({"outer": facts}) == scope_digest({"outer": backwards})


@pytest.mark.parametrize(("one", "other"), [({"a": 1}, {"a": 2}), ([1, 2], [2, 1]), ({"t": 0}, {"t": 0.0}), ("1", 1)])
def test_other_facts_are_another_scope(one, other):
    assert scope_digest(one) != scope_digest(other)


@pytest.mark.parametrize("fact", [object(), {1, 2}, b"bytes", {"tool": print}, {("a", "b"): 1}])
def test_what_json_cannot_express_is_refused(fact):
    with pytest.raises(TypeError):
        scope_digest(fact)


def test_digests_are_the_same_in_every_process():
    code = "from dispatch_core.keys import *; print(scope_digest({'b': [1, None], 'a': 'é'}), entry_id('s', 'é'))"
    assert in_another_process(code).split() == [scope_digest({"a": "é", "b": [1, None]}), entry_id("s", "é")]


def test_a_namespace_cannot_be_guessed_without_the_secret():
    digests = {namespace_digest("acme"), namespace_digest("acme", b"one"), namespace_digest("acme", b"two" * 20)}
    assert len(digests) == 3
    assert not any("acme" in digest for digest in digests)


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_a_scope_of_one_kind_is_never_a_digest_of_another(a, b, c):
    assert len({full_scope(a, b, c), entry_id(a, b), namespace_digest(a), scope_digest(a)}) == 4
