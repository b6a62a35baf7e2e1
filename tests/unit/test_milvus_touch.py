"""A touch of an entry in a cluster of Milvus, here a stand-in: what others put meanwhile is not undone."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import made
from pymilvus.exceptions import MilvusException

from dispatch_core.stores import _document as document
from dispatch_core.stores.milvus import _Milvus

ID = document.name(made("a").id)


class Cluster:
    """Rows by id; ``meanwhile`` is what another process does before the next write."""

    def __init__(self, *, in_part: bool) -> None:
        self._in_part = in_part
        self.rows: dict[str, dict[str, Any]] = {}
        self.asked_in_part = 0
        self.meanwhile = lambda: None

    def get(self, _: str, *, ids: list[str], output_fields: list[str], **settings: Any) -> list[dict[str, Any]]:
        rows = [self.rows[id] for id in ids if id in self.rows]
        return [row if output_fields == ["*"] else {name: row[name] for name in output_fields} for row in rows]

    def upsert(
        self, _: str, rows: list[dict[str, Any]], *, timeout: float, partial_update: bool = False, **settings: Any
    ) -> None:
        self.meanwhile()
        self.asked_in_part += partial_update
        for row in rows:
            if partial_update and not (self._in_part and row["id"] in self.rows):
                refused = MilvusException(message="field missing")
                raise refused from refused  # as pymilvus does
            self.rows[row["id"]] = {**self.rows.get(row["id"], {}), **row} if partial_update else dict(row)


def _engine(cluster: Cluster) -> _Milvus:
    engine = _Milvus(cluster, "c_", 1.0, lite=False)  # type: ignore[arg-type]
    engine.put(2, made("a", payload=b"old", expires=10.0), [1.0, 0.0])  # type: ignore[arg-type]
    return engine


def _payload(cluster: Cluster) -> bytes:
    [body] = cluster.rows[ID]["body"]
    return document.entry(body, 1.0).payload


def test_a_touch_leaves_what_another_process_has_put_meanwhile():
    cluster = Cluster(in_part=True)
    engine = _engine(cluster)
    newer = dict(cluster.rows[ID], body=[document.body(made("a", payload=b"new"))], expires=15.0)
    cluster.meanwhile = lambda: cluster.rows.update({ID: newer})
    assert engine.touch(2, made("a").id, 20.0, now=5.0)
    assert (_payload(cluster), cluster.rows[ID]["expires"]) == (b"new", 20.0)


def test_a_server_that_writes_no_parts_is_asked_for_them_once():
    cluster = Cluster(in_part=False)
    engine = _engine(cluster)
    for expires in (20.0, 30.0):
        assert engine.touch(2, made("a").id, expires, now=5.0)
        assert cluster.rows[ID]["expires"] == expires
    assert cluster.asked_in_part == 1


def test_what_has_left_meanwhile_does_not_come_back():
    cluster = Cluster(in_part=True)
    engine = _engine(cluster)
    cluster.meanwhile = cluster.rows.clear
    assert engine.touch(2, made("a").id, 20.0, now=5.0)
    assert cluster.rows == {}
    assert not engine.touch(2, made("a").id, 20.0, now=5.0)


@pytest.mark.parametrize("now", [10.0, 11.0])
def test_what_is_over_stays_so(now):
    cluster = Cluster(in_part=True)
    engine = _engine(cluster)
    assert engine.touch(2, made("a").id, 20.0, now=now)
    assert cluster.rows[ID]["expires"] == 10.0


def test_a_server_that_does_not_answer_is_not_asked_in_another_way():
    cluster = Cluster(in_part=True)
    engine = _engine(cluster)

    def silent() -> None:
        raise MilvusException(message="deadline exceeded") from TimeoutError()

    cluster.meanwhile = silent
    for _ in range(2):
        with pytest.raises(MilvusException, match="deadline"):
            engine.touch(2, made("a").id, 20.0, now=5.0)
    assert cluster.rows[ID]["expires"] == 10.0
