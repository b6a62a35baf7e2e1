"""What must not hurt: malformed, huge and slow requests, injected headers, callers from web pages."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from gateways import Client, Gateway, eventually, to
from upstreams import Upstream, answers, sse, streams

ASKING = {"model": "m", "messages": [{"role": "user", "content": "How do I greet a cat?"}]}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def gateway(upstream: Upstream) -> Iterator[Gateway]:
    with Gateway({"models": to(upstream.url), "max_body": 100_000, "timeouts": {"total": 5}}) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def sent(session: Any, gateway: Gateway, data: bytes, path: str = "/chat/completions", **headers: str) -> Any:
    plain = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with session.post(gateway.url + path, data=data, headers=plain) as response:
        return response.status, json.loads(await response.read())


MALFORMED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"\xff\xfe",
    b"[" * 50_000,
    b'{"model": "m"}',
    b'{"model": 7, "messages": []}',
    b'{"model": "", "messages": [{"role": "user", "content": "x"}]}',
    b'{"model": "m", "messages": []}',
    b'{"model": "m", "messages": {"role": "user"}}',
    b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": "yes"}',
    b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "stream_options": 1}',
    b'{"model": "m", "messages": [1], "n": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("data", MALFORMED)
async def test_a_malformed_body_is_a_400_in_openais_form(
    gateway: Gateway, upstream: Upstream, session: Any, data: bytes
) -> None:
    status, body = await sent(session, gateway, data)
    assert (status, set(body["error"])) == (400, {"message", "type", "param", "code"})
    assert not upstream.seen


@pytest.mark.parametrize("message", [7, None, {}, {"role": 1}, {"role": "user", "content": {"deep": [[[]]]}}])
async def test_a_message_that_only_the_upstream_may_understand_goes_there(
    gateway: Gateway, upstream: Upstream, session: Any, message: Any
) -> None:
    status, _ = await sent(session, gateway, json.dumps({"model": "m", "messages": [message]}).encode())
    assert (status, len(upstream.seen)) == (200, 1)


async def test_a_huge_body_is_refused_however_it_comes(gateway: Gateway, upstream: Upstream, session: Any) -> None:
    status, body = await sent(session, gateway, b"x" * 200_000)
    assert (status, body["error"]["code"]) == (413, "request_too_large")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"x" * 1_000

    headers = {"content-type": "application/json"}
    async with session.post(f"{gateway.url}/chat/completions", data=pieces(), headers=headers) as response:
        assert response.status == 413
    assert not upstream.seen


async def test_a_body_that_never_ends_is_given_up(upstream: Upstream) -> None:
    with Gateway({"models": to(upstream.url), "timeouts": {"total": 0.2}}) as gateway:
        host, port = gateway.root.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: 100\r\n\r\n".encode() + b'{"model"')
        assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 504")
        writer.transport.abort()
        await eventually(lambda: not gateway.server.server_state.connections)


async def test_a_caller_who_does_not_read_is_given_up(upstream: Upstream) -> None:
    upstream.usual = streams(*[sse({"choices": [], "filler": "x" * 100_000})] * 1_000)
    with Gateway({"models": to(upstream.url), "timeouts": {"total": 2.0}}) as gateway:
        host, port = gateway.root.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1_000)
        body = json.dumps({**ASKING, "stream": True}).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await eventually(lambda: len(upstream.seen) == 1)
        await eventually(lambda: gateway.service.under_way == 0)
        assert await asyncio.to_thread(upstream.seen[0].left.wait, 30)
        writer.transport.abort()
        await eventually(lambda: not gateway.server.server_state.connections)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/v1/nothing", "POST", 404), ("/v1/chat/completions", "GET", 405), ("/v1/models", "POST", 405)],
)
async def test_what_is_not_there_is_an_error_in_openais_form(
    gateway: Gateway, session: Any, path: str, method: str, status: int
) -> None:
    async with session.request(method, gateway.root + path) as response:
        assert (response.status, "message" in (await response.json())["error"]) == (status, True)


async def test_headers_cannot_be_smuggled_by_what_a_caller_or_an_upstream_says(
    gateway: Gateway, upstream: Upstream, session: Any
) -> None:
    evil = "m\r\nx-evil: 1"
    upstream.usual = answers(
        {"error": {"message": evil}}, 400, set_cookie="a=b", x_request_id="fine", x_accel_redirect="/etc/passwd"
    )
    client = Client(session, gateway.url)
    _, headers, _ = await client.ask({**ASKING, "model": evil, "cache": {"namespace": evil, "tags": [evil]}})
    assert "x-evil" not in headers
    assert "set-cookie" not in headers
    assert "x-accel-redirect" not in headers
    assert headers["x-request-id"] == "fine"


async def test_a_web_page_cannot_use_what_listens_for_this_machine(
    gateway: Gateway, upstream: Upstream, session: Any
) -> None:
    data = json.dumps(ASKING).encode()
    for origin in ("https://evil.example", "null", "http://localhost.evil.example", "http://[", ""):
        assert (await sent(session, gateway, data, origin=origin))[0] == 403
    assert (await sent(session, gateway, data, host="evil.example:80"))[0] == 403
    assert (await sent(session, gateway, data, content_type="text/plain"))[0] == 415
    assert not upstream.seen
    assert (await sent(session, gateway, data, origin=gateway.root))[0] == 200
    for host in ("localhost", "[::1]", "[::1]:80", "127.0.0.1:1", "127.0.0.2:80"):
        assert (await sent(session, gateway, data, host=host))[0] == 200


async def test_no_answer_of_an_upstream_breaks_the_gateway(
    gateway: Gateway, upstream: Upstream, session: Any
) -> None:
    odd: list[Any] = [
        b"",
        b"not json",
        b"\xff",
        b"[" * 5_000,
        [],
        {"choices": None},
        {"choices": [None]},
        {"choices": [{"message": None, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": 7}, "finish_reason": "stop"}], "usage": {"prompt_tokens": "many"}},
        {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": -1e300}},
    ]
    for number, body in enumerate(odd):
        upstream.next(answers(body))
        asked = {"model": "m", "messages": [{"role": "user", "content": f"Number {number}?"}]}
        async with session.post(f"{gateway.url}/chat/completions", json=asked) as response:
            assert response.status == 200
            await response.read()
    assert (await Client(session, gateway.url).ask(ASKING))[0] == 200


async def test_a_redirect_is_not_followed_with_a_key_in_hand(
    gateway: Gateway, upstream: Upstream, session: Any
) -> None:
    upstream.next(answers({}, 307, location="https://evil.example/"))
    status, headers, body = await Client(session, gateway.url).ask(ASKING)
    assert (status, body["error"]["code"], "location" in headers) == (502, "upstream_error", False)


@pytest.mark.parametrize(
    "choices",
    [
        7,
        [None],
        [{"delta": 7}],
        [{"delta": {"tool_calls": [{"index": "x", "function": 3}]}}],
        [{"delta": {}, "logprobs": {"content": [1]}}, {"delta": {}, "logprobs": {"content": 2}}] * 2,
        [{"delta": {"content": {"a": 1}}}, {"delta": {"content": "b"}}, {"delta": {"content": ["c"]}}],
    ],
)
async def test_events_of_a_shape_that_is_not_known_are_passed_on_and_not_kept(
    gateway: Gateway, upstream: Upstream, session: Any, choices: Any
) -> None:
    ending = [sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), b"data: [DONE]\n\n"]
    events = [sse({"choices": choices}), *ending]
    for _ in range(2):
        upstream.next(streams(*events))
        _, _, text = await Client(session, gateway.url).ask({**ASKING, "stream": True})
        assert text == b"".join(events).decode()
    assert len(upstream.seen) == 2


async def test_a_thousand_requests_of_noise_leave_it_as_it_was(
    gateway: Gateway, upstream: Upstream, session: Any
) -> None:
    dice = random.Random(7)
    seeds = [json.dumps(ASKING).encode(), *MALFORMED[1:]]

    async def one() -> None:
        data = bytearray(dice.choice(seeds)[:2_000])
        for _ in range(dice.randrange(4)):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        path = dice.choice(["/chat/completions", "/completions", "/embeddings"])
        status, body = await sent(session, gateway, bytes(data), path)
        assert status in (200, 400, 404)
        assert "choices" in body or "error" in body or "data" in body

    for _ in range(20):
        await asyncio.gather(*(one() for _ in range(50)))
    await eventually(lambda: gateway.service.under_way == 0)
    assert (await Client(session, gateway.url).ask(ASKING))[0] == 200
