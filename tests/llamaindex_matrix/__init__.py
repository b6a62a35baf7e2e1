"""The consumers of an LLM in LlamaIndex, each as a scenario: ``python -m llamaindex_matrix`` prints the table."""

from __future__ import annotations

from llamaindex_matrix import (  # noqa: F401
    agents,
    chat,
    direct,
    evaluation,
    extraction,
    query_engines,
    structured,
    synthesis,
)
from llamaindex_matrix.bench import SCENARIOS, Row, Scenario, World, scripted_provider

__all__ = ["SCENARIOS", "Row", "Scenario", "World", "scripted_provider"]
