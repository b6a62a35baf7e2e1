"""Hundreds of hostile requests to a gateway in a process of its own, or ``DISPATCH_TEST_HOSTILE`` of them.

Whatever comes, it answers in time and in the form of the API, gives nobody what is another's, holds no place in a
quota in the end, and works on.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import aiohttp
import pytest
import schemathesis
from gateways import Client, Process, deployment
from hostile import PATHS, UNFRAMED, Heard, Hostile, Shot, fired
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
from small_book import PARIS, written_to

from dispatch_core.simulate import Simulator, SimulatorConfig
from dispatch_gateway.config import hash_of

MANY = int(os.environ.get("DISPATCH_TEST_HOSTILE", "600"))
GENERATED = 300
KEYS = {name: f"key-of-{name}-0123456789" for name in ("ann", "bob", "cat")}
MAX_BODY = 200_000
UNASKED = ("/", "/metrics", "/status", "/openapi.json", "/health/live", "/health/ready")
"""Pages that take nothing, so that nothing can be wrong with what they are given."""

PATIENCE = 60.0
MOST_MEMORY = 200.0
QUICK = partial(
    settings, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
CHECKS = [content_type_conformance, response_headers_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    groups, answers = written_to(tmp_path_factory.mktemp("provider"))
    with Simulator(SimulatorConfig(groups=groups, answers=answers, latency=0.0)) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Ann's answers are stored; Bob asks for nothing but stored ones; Cat has too little quota."""
    limits = {"rpm": 10**7, "tpm": 10**10, "concurrency": 100}
    settings = {
        "models": {
            "*": [
                deployment(provider.url, name="o", limits=limits),
                deployment(provider.url, name="a", provider="anthropic", limits=limits),
            ]
        },
        "cache": {"embedder": "none"},
        "compression": {"*": {"steps": ["lossless", {"history": {"tokens": 9}}], "roles": ["tool"]}},
        "keys": [
            {"name": "ann", "hash": hash_of(KEYS["ann"]), "namespace": "ann", "limits": limits},
            {"name": "bob", "hash": hash_of(KEYS["bob"]), "namespace": "bob", "limits": limits},
            {"name": "cat", "hash": hash_of(KEYS["cat"]), "namespace": "cat", "limits": {"rpm": 30, "burst": 1.0}},
        ],
        "timeouts": {"total": 20.0, "queue": 0.05},
        "max_body": MAX_BODY,
    }
    with Process(tmp_path_factory.mktemp("gateway"), settings) as running:
        yield running


def is_an_error(path: str, body: Any) -> bool:
    """In the form of the API of this path."""
    told = body.get("error", {}) if isinstance(body, dict) else {}
    anthropic = path.startswith("/v1/messages")
    if (
        not isinstance(told, dict)
        or not isinstance(told.get("message"), str)
        or not isinstance(told.get("type"), str)
    ):
        return False
    # What is no HTTP has no path.
    return (body.get("type") == "error") == anthropic or told["message"] == "This is no valid HTTP request."


def wrong(shot: Shot, heard: Heard) -> Iterator[str]:
    """What should not have been answered like that."""
    if heard.status == 0:
        if shot.about != UNFRAMED:
            yield "no answer"
        return
    if "x-evil" in heard.headers:
        yield "an injected header"
    if heard.status >= 500 and (heard.status != 504 or b"only-if-cached" not in shot.head + shot.body):
        yield "an error of the gateway's own"
    if shot.about == "wrong key" and heard.status not in (400, 401):
        yield "a wrong key got in"
    if heard.status >= 400 and not shot.head.startswith(b"HEAD") and not is_an_error(shot.path, heard.json()):
        yield "an error in another form"
    if heard.status == 429 and not {"retry-after", "retry-after-ms"} <= heard.headers.keys():
        yield "a refusal that does not say for how long"
    if shot.key == "bob":
        if PARIS.encode() in heard.body or (heard.status == 200 and shot.path in PATHS):
            yield "an answer of another's"
        if heard.status == 200 and shot.path.startswith("/v1/cache") and heard.json() != {"deleted": 0}:
            yield "an entry of another's is gone"


async def settled(session: aiohttp.ClientSession, root: str) -> dict[str, Any]:
    """The status page, when nothing is under way any longer."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with session.get(f"{root}/status") as response:
                shown: dict[str, Any] = await response.json()
            held = [one["used"] for one in shown["limits"] if one["limit"] == "concurrency"]
            if not shown["under_way"] and not shown["waiting"] and not any(held):
                return shown
            await asyncio.sleep(0.05)


async def test_hostile_requests_are_answered_in_form_and_leave_nothing_behind(
    gateway: Process, provider: Simulator
) -> None:
    port = int(gateway.root.rsplit(":", 1)[1])
    hostile = Hostile(KEYS, seed=7, max_body=MAX_BODY, thief="bob")
    seen: Counter[tuple[str, int]] = Counter()
    faults: list[tuple[str, Shot, Heard]] = []
    gate = asyncio.Semaphore(20)
    async with aiohttp.ClientSession() as session:
        client = Client(session, gateway.url)
        for path in PATHS:
            ours = {"authorization": f"Bearer {KEYS['ann']}"}
            assert (await client.ask(hostile.asking(path), path.removeprefix("/v1"), **ours))[0] == 200
        before = gateway.memory()

        async def one() -> None:
            async with gate:
                shot = hostile.shot()
                heard = await asyncio.wait_for(fired(shot, port), PATIENCE)
            seen[shot.about, heard.status] += 1
            faults.extend((fault, shot, heard) for fault in wrong(shot, heard))

        for start in range(0, MANY, 200):
            await asyncio.gather(*(one() for _ in range(min(200, MANY - start))))
        shown = await settled(session, gateway.root)
        # What was Ann's is still hers.
        status, headers, _ = await client.ask(
            hostile.asking(PATHS[0]), cache_control="only-if-cached", authorization=f"Bearer {KEYS['ann']}"
        )
    assert (status, "hit" in headers["cache-status"]) == (200, True)
    assert not faults, faults[0]
    assert {status for _, status in seen} >= {200, 400, 401, 404, 405, 413, 415, 429, 504}
    assert gateway.memory() - before < MOST_MEMORY
    log = gateway.log()
    assert not any(secret in log for secret in KEYS.values())
    assert "unexpected" not in log
    assert "Traceback" not in log
    print(f"\n{seen.total()} hostile requests: {dict(sorted(seen.items()))}", shown["outcomes"])
    print(f"memory {before:.0f} -> {gateway.memory():.0f} MB, upstream {provider.stats().by_status}")


def generated(gateway: Process) -> Iterator[tuple[Any, GenerationMode, int]]:
    """Every operation, with how many requests to make of it that keep to its description or do not."""
    described = schemathesis.openapi.from_url(f"{gateway.root}/openapi.json")
    described.validate()
    operations = [one.ok() for one in described.get_all_operations()]
    share = GENERATED // (2 * (len(operations) + 16))
    for operation in operations:
        for mode in GenerationMode:
            if mode is GenerationMode.POSITIVE or operation.path not in UNASKED:
                yield operation, mode, share * (5 if operation.method == "post" else 1)


def test_requests_made_from_its_own_description_are_answered_as_that_says(
    gateway: Process, provider: Simulator
) -> None:
    seen: Counter[tuple[str, int]] = Counter()
    faults: list[tuple[str, Any, int, str]] = []

    def ask(case: Any) -> None:
        key = KEYS["bob" if case.method == "DELETE" else "ann"]
        response = case.call(headers={"authorization": f"Bearer {key}"}, timeout=PATIENCE)
        seen[case.operation.label, response.status_code] += 1
        status, body = response.status_code, response.text
        cached = "only-if-cached" in f"{case.headers} {case.body}"
        if status >= 500 and not (status == 504 and cached):
            faults.append(("an error of the gateway's own", case, status, body))
        try:
            case.validate_response(response, checks=CHECKS)
        except FailureGroup as group:
            faults.extend((str(failure), case, status, body) for failure in group.exceptions)

    for operation, mode, many in generated(gateway):
        cases = operation.as_strategy(generation_mode=mode)
        seed(7)(QUICK(max_examples=many)(given(cases)(ask)))()
    assert not faults, faults[0]
    assert {200, 400, 404} <= {status for _, status in seen}
    print(f"\n{seen.total()} requests made from the description: {dict(sorted(seen.items()))}")
