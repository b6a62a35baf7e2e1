"""What SDKs are asked through a gateway, and gateways with the simulated provider behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateways import Gateway, deployment
from small_book import written_to

from dispatch_core.simulate import Simulator, SimulatorConfig
from dispatch_gateway.config import hash_of

QUESTION = "What is the capital of France?"
KEY = "key-of-ann-0123456789"
PARAMETERS: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "look", "parameters": PARAMETERS}}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}


def asking(text: str = QUESTION) -> list[Any]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


def simulated(folder: Path) -> Simulator:
    """A provider that knows a few answers, and takes no time."""
    groups, answers = written_to(folder)
    return Simulator(SimulatorConfig(groups=groups, answers=answers, latency=0.0))


def gateway_to(provider: Simulator, **settings: Any) -> Gateway:
    """A gateway that asks the provider in either protocol."""
    return Gateway({"models": {"*": both(provider)}, **settings})


def both(provider: Simulator, **settings: Any) -> list[dict[str, Any]]:
    return [
        deployment(provider.url, name="openai", **settings),
        deployment(provider.url, name="anthropic", provider="anthropic", **settings),
    ]


def locked_to(provider: Simulator) -> Gateway:
    """One that knows one key, which may use the model "m" alone, and once a minute."""
    limits = {"rpm": 1, "burst": 60}
    key = {"name": "ann", "hash": hash_of(KEY), "models": ["m"], "limits": limits}
    return gateway_to(provider, keys=[key], timeouts={"queue": 0.01})


def eager_to(provider: Simulator) -> Gateway:
    """One that refuses at once what would have to wait for a tenth of a second."""
    return Gateway({"models": {"*": both(provider, limits={"rpm": 600, "burst": 0.1})}, "timeouts": {"queue": 0.01}})
