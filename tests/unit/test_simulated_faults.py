"""Which requests a fault strikes: dice that are seeded, counts and times."""

from __future__ import annotations

from dispatch_core.simulate import Fault
from dispatch_core.simulate.faults import Faults


def test_a_share_of_the_requests_is_struck_and_the_same_ones_for_the_same_seed() -> None:
    def struck(seed: int) -> list[bool]:
        faults = Faults([Fault(kind="error", share=0.3)], seed=seed)
        return [faults.strike(0.0) is not None for _ in range(1000)]

    assert struck(1) == struck(1) != struck(2)
    assert 250 < sum(struck(1)) < 350


def test_a_fault_ends_after_its_count_and_after_its_time() -> None:
    faults = Faults()
    faults.replace([Fault(kind="error", count=2), Fault(kind="break", lasting=10.0)], now=100.0)
    kinds = [fault and fault.kind for fault in (faults.strike(100.0 + 4 * step) for step in range(5))]
    assert kinds == ["error", "error", "break", None, None]
    assert faults.live(109.9) == [Fault(kind="break", lasting=10.0)]
    assert faults.live(110.0) == []


def test_the_first_fault_that_applies_strikes() -> None:
    faults = Faults([Fault(kind="rate_limit", share=0.5), Fault(kind="stall")], seed=3)
    kinds = [fault.kind for _ in range(100) if (fault := faults.strike(0.0))]
    assert len(kinds) == 100
    assert 30 < kinds.count("rate_limit") < 70
