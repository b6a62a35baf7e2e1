"""A simulated, rate-limited model provider: upstream of demos, tests and benchmarks.

It answers by meaning: questions of one group get one answer, and every response says which group it thought
it was asked (header ``x-simulated-group``, field ``system_fingerprint``), so a client can count wrong
answers. It enforces requests and tokens per minute, takes the time a model would, and fails on demand.
It speaks OpenAI's chat completions, completions and embeddings, and Anthropic's messages.

Importing this needs nothing; starting a `Simulator` needs ``pip install 'ai-dispatcher[simulate]'``.
"""

from __future__ import annotations

from dispatch_core.simulate.answers import AnswerBook
from dispatch_core.simulate.cli import add_arguments, main, run
from dispatch_core.simulate.config import SimulatorConfig
from dispatch_core.simulate.faults import Fault
from dispatch_core.simulate.ledger import Stats
from dispatch_core.simulate.quota import Admission, Level, Quota, Rejection, Style
from dispatch_core.simulate.simulator import Simulator
from dispatch_core.simulate.text import Pace, count, draw_pace

__all__ = [
    "Admission",
    "AnswerBook",
    "Fault",
    "Level",
    "Pace",
    "Quota",
    "Rejection",
    "Simulator",
    "SimulatorConfig",
    "Stats",
    "Style",
    "add_arguments",
    "count",
    "draw_pace",
    "main",
    "run",
]
