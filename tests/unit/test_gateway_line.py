"""What the gateway writes to a connection, and when."""

from __future__ import annotations

from typing import Any

from dispatch_gateway.line import Joined

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Recorded:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def joined() -> tuple[Any, Recorded]:
    recorded = Recorded()
    transport: Any = recorded
    return Joined(transport), recorded


def test_the_head_of_an_answer_goes_with_its_body() -> None:
    transport, recorded = joined()
    for _ in range(2):
        transport.write(HEAD)
        transport.write(b"{}")
    assert recorded.written == [HEAD + b"{}"] * 2


def test_the_head_of_a_stream_and_all_that_is_no_head_goes_at_once() -> None:
    transport, recorded = joined()
    for data in (b"HTTP/1.1 100 Continue\r\n\r\n", STREAM, b"1\r\nx\r\n", HEAD[2:]):
        transport.write(data)
        assert recorded.written[-1] == data


def test_a_head_without_a_body_goes_when_the_answer_or_the_connection_ends() -> None:
    transport, recorded = joined()
    transport.write(HEAD)
    transport.flush()
    transport.flush()
    assert recorded.written == [HEAD]
    transport.write(HEAD)
    transport.close()
    assert recorded.written == [HEAD] * 2
    assert transport.is_closing()
