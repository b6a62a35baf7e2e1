"""The benchmark of scaling starts what it says and finds what is shared."""

from __future__ import annotations

import pytest

from benchmarks.scaling import cluster, gateways


def test_caches_of_several_prefixes_lie_on_the_nodes_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ENTRIES", 20)
    monkeypatch.setattr(cluster, "CALLS", 20)
    monkeypatch.setattr(cluster, "ROUNDS", 1)
    measured = cluster.measured()
    assert measured.caches == [2, 1, 1]
    assert min(*measured.single, *measured.cluster) > 0


def test_two_gateways_share_answers_and_the_call_for_an_equal_question(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUESTIONS", "PAIRS", "HITS"):
        monkeypatch.setattr(gateways, name, 10)
    found, calls, _ = gateways.shared()
    assert (found, calls) == (10, 1.0)
