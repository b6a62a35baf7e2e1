"""The gateway's description of itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from starlette.routing import Route
from starlette.testclient import TestClient

from dispatch_gateway import Settings, gateway
from dispatch_gateway.config import hash_of
from dispatch_gateway.openapi import OPERATIONS, document

KEY = "key-of-ann-0123456789"


def described(**settings: Any) -> dict[str, Any]:
    told = {"cache": {"enabled": False}, **settings}
    with TestClient(gateway(Settings.model_validate(told)), base_url="http://localhost") as client:
        body: dict[str, Any] = client.get("/openapi.json").json()
    return body


def test_it_describes_every_route_and_no_other() -> None:
    app = gateway(Settings.model_validate({"cache": {"enabled": False}}))
    routes = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods - {"HEAD"}
    }
    assert {(operation.path, operation.method) for operation in OPERATIONS} == routes


@pytest.mark.parametrize("guarded", [False, True])
def test_it_is_valid(guarded: bool) -> None:
    told = document(guarded=guarded)
    schemathesis.openapi.from_dict(told).validate()
    names = [one["operationId"] for path in told["paths"].values() for one in path.values()]
    assert len(set(names)) == len(names) == len(OPERATIONS)


def test_it_names_no_schema_that_is_not_there_and_has_none_that_is_not_named() -> None:
    told = document(guarded=True)
    text = json.dumps(told)
    for name in told["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text
    assert text.count('"$ref"') == sum(
        text.count(f'"$ref": "#/components/schemas/{name}"') for name in told["components"]["schemas"]
    )


def test_it_says_whether_a_key_is_needed() -> None:
    free = described()
    guarded = described(keys=[{"name": "ann", "hash": hash_of(KEY)}])
    path, open_path = "/v1/chat/completions", "/status"
    assert {} in free["paths"][path]["post"]["security"]
    assert guarded["paths"][path]["post"]["security"] == [{"bearer": []}, {"x-api-key": []}]
    assert guarded["paths"][open_path]["get"]["security"] == []
