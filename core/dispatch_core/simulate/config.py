"""What the simulator is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dispatch_core.errors import ConfigError
from dispatch_core.simulate.faults import Fault
from dispatch_core.simulate.quota import Style


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorConfig:
    """How a simulated provider listens, limits, answers and paces.

    ``port`` 0 takes a free port. ``rpm``, ``tpm``, ``itpm`` (input) and ``otpm`` (output tokens) are per minute
    (None: unlimited) and counted over ``window`` seconds in the given ``style``; one quota serves all models and
    keys, in either protocol. ``faults`` are those from the start on and after every reset. ``groups`` and
    ``answers`` are the JSON Lines files of `AnswerBook.load`; ``grounded`` models give a listed answer only if it
    stands in the prompt, and else say that they were not told. ``latency`` scales all times: 1.0 is
    realistic, 0.0 answers at once. ``seed`` changes the times drawn. ``models`` is what ``GET /v1/models``
    lists; any name is answered.
    """

    host: str = "127.0.0.1"
    port: int = 0
    rpm: int | None = None
    tpm: int | None = None
    itpm: int | None = None
    otpm: int | None = None
    window: float = 60.0
    style: Style = "sliding"
    groups: Path | None = None
    answers: Path | None = None
    grounded: bool = False
    latency: float = 1.0
    seed: int = 0
    require_key: bool = False
    log_requests: bool = False
    models: tuple[str, ...] = ("sim-large", "sim-small")
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.latency < float("inf"):
            raise ConfigError(f"latency must be a finite factor of at least 0, not {self.latency}")
