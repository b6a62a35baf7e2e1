"""Rows of `RedisNearStore`, and those that were read a moment ago."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes import made

from dispatch_core.stores import _packed
from dispatch_core.stores._packed import Recent, entry, row

VECTOR = np.ones(384, np.float32)


def test_a_row_that_is_still_the_same_is_not_read_again(monkeypatch):
    recent, kept = Recent(), made("a", tags=["tag"])
    raw = row(kept, VECTOR)
    assert recent.fresh(kept.id, raw, 0.0) == kept
    monkeypatch.setattr(_packed, "entry", lambda *_: pytest.fail("was read again"))
    assert recent.fresh(kept.id, bytes(bytearray(raw)), 0.0) == kept


def test_a_row_that_changed_is_read(monkeypatch):
    recent, old = Recent(), made("a", payload=b"old", expires=10.0)
    recent.fresh(old.id, row(old, None), 0.0)
    for changed in (replace(old, payload=b"new"), replace(old, expires=20.0), replace(old, tombstone=True)):
        assert recent.fresh(old.id, row(changed, None), 0.0) == changed
    assert recent.fresh(old.id, None, 0.0) is None
    assert recent.fresh(old.id, b"D2", 0.0) is None


def test_what_is_remembered_still_expires():
    recent, kept = Recent(), made("a", expires=10.0)
    raw = row(kept, None)
    assert [recent.fresh(kept.id, raw, now) for now in (0.0, 9.9, 10.0)] == [kept, kept, None]


def test_no_more_is_remembered_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(_packed, "_ROOM", 10_000)
    recent = Recent()
    for number in range(100):
        kept = made(f"{number}", payload=b"x" * (20_000 if number % 7 == 0 else 1_000))
        assert recent.fresh(kept.id, row(kept, None), 0.0) == kept
        assert sum(2 * len(raw) for raw, _ in recent._kept.values()) <= 10_000


def test_a_row_of_another_kind_is_no_entry():
    raw = row(made("a"), VECTOR)
    for other in (None, b"", raw[:40], b"D0" + raw[2:]):
        assert entry("a", other) is None
