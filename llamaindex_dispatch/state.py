"""A model's notes about its own calls (counters, prompts seen) are not what it is.

They live in private attributes like settings do. What grew while a call of ours was under way is such a note, and
counts from then on as it was before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from llamaindex_dispatch.shared import Attached

Path: TypeAlias = tuple[str, ...]

_ABSENT = object()
_notes: Attached[dict[Path, Any]] = Attached(dict)


def configured(model: Any, held: Mapping[str, Any]) -> dict[str, Any]:
    """What a model holds, its notes put back to what they were before its first call."""
    facts: dict[str, Any] = {}
    for path, value in {**dict(_leaves(held)), **_notes.of(model)}.items():
        if value is not _ABSENT:
            _put(facts, path, value)
    return facts


def learn(model: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Tell notes from settings by what a call did to them."""
    if before == after:
        return
    old, new = dict(_leaves(before)), dict(_leaves(after))
    notes = _notes.of(model)
    for path in old.keys() | new.keys():
        was, now = old.get(path, _ABSENT), new.get(path, _ABSENT)
        if was != now and _noted(path, was, now):
            notes.setdefault(path, was)


def _noted(path: Path, was: Any, now: Any) -> bool:
    """Texts never are: they are what tenants and prompts are set by, perhaps while another call is under way."""
    if now is _ABSENT:
        return not isinstance(was, str)
    if was is _ABSENT:
        return len(path) > 1 or not isinstance(now, str)
    if isinstance(was, list) and isinstance(now, list):
        return len(now) > len(was)
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (was, now))
    return numbers and now > was


def _put(facts: dict[str, Any], path: Path, value: Any) -> None:
    for name in path[:-1]:
        inner = facts.get(name)
        if not isinstance(inner, dict):
            inner = facts[name] = {}
        facts = inner
    facts[path[-1]] = value


def _leaves(facts: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value
