"""Requests that nobody means well with, as the bytes that go over the wire, and what came back."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from http.client import parse_headers
from typing import Any

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages")
ONLY_CACHED = b"only-if-cached"
UNFRAMED = "unframed"
_ABSURD_AGES = ("-1", "1e9", "NaN", "9" * 400, "٣", "", '"', "0x10", " ", "1;2", "0", "inf", "-0", "\x7f")
_DIRECTIVES = ("no-cache", "no-store", "max-age", "max-stale", "private", "=", "", "stale-if-error", "no-transform")
_CURSED = ("\ud800", "\udfff\ud800", "\x00", "\r\nx-evil: 1", "\u202e", "𐍈" * 50, "%00", "../..", "{}", "' OR 1=1 --")
_NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "-1", "9" * 4400, "1.5", "true", "null", '"1"', "[1]", "{}", "0")
_KINDS_OF_BODY = (
    *("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", ""),
    *("application/json; charset=utf-16", "application/json;charset=latin-1", "application/vnd.x+json", "json"),
    *("APPLICATION/JSON", "application/json, text/plain", "application/\xff", "application/json\x00"),
)
_NAMES = (
    *(b"x-dispatch-namespace", b"x-dispatch-tags", b"x-dispatch-threshold", b"x-forwarded-for", b"x-simulated"),
    *(b"openai-beta", b"anthropic-version", b"anthropic-beta", b"traceparent", b"origin", b"host", b"cookie"),
    *(b"accept-encoding", b"expect", b"upgrade"),
)
_VALUES = (
    *(b"a\r\nx-evil: 1", b"a\nx-evil: 1", b"a\rx-evil: 1", b"a\r\n folded", b"\xff\xfe\x80", b"\x00", b"\x7f"),
    *("bob\u2028".encode(), b"1e400", b"nan", b",".join([b"t"] * 99), b"w" * 20_000, b"websocket", b"100-continue"),
    *(b"", b"\t", b"..."),
)
_PLACES = (
    *("/v1/models/" + "a" * 3_000, "/v1/models/%00%ff", "/v1/models/\u00fc", "//v1/models", "/v1/models?x=y"),
    *("/v1/cache?id=%ff&tag=1", "/v1/cache?namespace=%0d%0ax-evil:1", "/v1/cache?tag=" + "t" * 3_000),
    *("/v1/../status", "/%2e%2e/", "*", "http://evil.example/v1/models", "/v1/chat/completions/", "/v1/messages"),
    "/v1/messages/count_tokens",
)
_METHODS = ("GET", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "DELETE", "BREW", "get", "CONNECT")


@dataclass
class Shot:
    """One request: ``about`` says what is hostile in it, ``key`` is the name of its key, "" if it is wrong."""

    about: str
    head: bytes
    body: bytes
    path: str
    key: str = ""


@dataclass
class Heard:
    """An answer; status 0 if the connection was closed without any."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Hostile:
    """Draws shots, the same for the same seed. ``keys`` are the secrets by their names; those with the name ``thief``
    ask for what is stored, and for nothing else."""

    def __init__(self, keys: dict[str, str], *, seed: int, max_body: int, thief: str) -> None:
        self.dice = random.Random(seed)
        self._keys = keys
        self._max_body = max_body
        self._thief = thief
        self._kinds: list[Callable[[], Shot]] = [
            *(self.mutated, self.deep, self.huge, self.mistyped, self.numbers, self.surrogates, self.doubled),
            *(self.injected, self.cached, self.wrong_key, self.unframed, self.elsewhere),
        ]

    def shot(self) -> Shot:
        return self.dice.choice(self._kinds)()

    def asking(self, path: str, text: str = "What is the capital of France?") -> dict[str, Any]:
        """A request that is understood."""
        turn = [{"role": "user", "content": text}]
        return {
            "/v1/chat/completions": {"model": "m", "messages": turn},
            "/v1/completions": {"model": "m", "prompt": text},
            "/v1/embeddings": {"model": "e", "input": text},
            "/v1/messages": {"model": "c", "messages": turn, "max_tokens": 50},
        }[path]

    def mutated(self) -> Shot:
        """JSON with a few bytes that are others."""
        path = self._path()
        data = bytearray(json.dumps(self.asking(path)).encode())
        for _ in range(self.dice.randrange(1, 6)):
            place = self.dice.randrange(len(data))
            match self.dice.randrange(3):
                case 0:
                    data[place] = self.dice.randrange(256)
                case 1:
                    del data[place:]
                    data += b"\xff"
                case _:
                    data[place:place] = self.dice.choice([b'"', b"{", b"\\u", b"]", b"\x00", b"\xed\xa0\x80"])
        return self._posted("mutated", path, bytes(data))

    def deep(self) -> Shot:
        path, depth = self._path(), self.dice.choice([10, 100, 900, 1_100, 5_000, 20_000])
        opening, closing = self.dice.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"content":', b"}]")])
        nest = opening * depth + b"1" + closing * depth
        body = json.dumps({**self.asking(path), "@": 0})
        name = self.dice.choice(["messages", "prompt", "input", "tools", "cache", "metadata", "system", "x"])
        return self._posted("deep", path, body.replace('"@": 0', f'"{name}": @').encode().replace(b"@", nest))

    def huge(self) -> Shot:
        path, most = self._path(), self._max_body
        size = self.dice.choice([most - 200, most, most + 1, 2 * most])
        data = json.dumps(self.asking(path, "x " * (size // 2))).encode()
        match self.dice.randrange(3):
            case 0:
                return self._posted("huge", path, data)
            case 1:
                return self._posted("huge", path, data[:1_000], length=b"9" * self.dice.choice([8, 19, 25]))
            case _:
                return self._posted("huge", path, _in_chunks(data, 4_000), length=None)

    def mistyped(self) -> Shot:
        path = self._path()
        body = json.dumps(self.asking(path))
        data = self.dice.choice([body.encode("utf-16"), body.encode("utf-32"), b"\xef\xbb\xbf" + body.encode(),
                                 gzip.compress(body.encode()), body.encode()])  # fmt: skip
        kind = self.dice.choice(_KINDS_OF_BODY).encode("latin-1")
        encoding = self.dice.choice([b"gzip", b"br", b"identity", b"deflate, gzip", b"x" * 5_000])
        return self._posted("mistyped", path, data, (b"content-encoding", encoding), kind=kind)

    def numbers(self) -> Shot:
        path = self._path()
        names = (
            "n",
            "max_tokens",
            "temperature",
            "top_p",
            "seed",
            "stream",
            "logprobs",
            "dimensions",
            "model",
            "input",
        )
        wrong = {name: f"@{self.dice.choice(_NUMBERS)}@" for name in self.dice.sample(names, 2)}
        wishes = {name: f"@{self.dice.choice(_NUMBERS)}@" for name in ("ttl", "max-age", "threshold", "tags")}
        body = json.dumps({**self.asking(path), **wrong, **({"cache": wishes} if self.dice.random() < 0.5 else {})})
        return self._posted("numbers", path, body.replace('"@', "").replace('@"', "").replace('\\"', '"').encode())

    def surrogates(self) -> Shot:
        path, cursed = self._path(), self.dice.choice(_CURSED)
        body = self.asking(path, f"Who is {cursed}?")
        match self.dice.randrange(4):
            case 0:
                body["model"] = cursed
            case 1:
                body["cache"] = {"namespace": cursed, "tags": [cursed]}
            case 2:
                body[cursed] = {cursed: cursed}
            case _:
                body["stream"] = True
        return self._posted("surrogates", path, json.dumps(body).encode())

    def doubled(self) -> Shot:
        """A name that comes twice."""
        path = self._path()
        first, second = (json.dumps(self.asking(path, text))[1:-1] for text in ("Who am I?", "Who are you?"))
        extra = self.dice.choice(['"stream": true, "stream": 1', '"model": 1', '"cache": {"ttl": 1, "ttl": -1}'])
        return self._posted("doubled", path, "{{{}}}".format(", ".join([first, extra, second])).encode())

    def injected(self) -> Shot:
        path, name, value = self._path(), self.dice.choice(_NAMES), self.dice.choice(_VALUES)
        return self._posted("injected", path, self._plain(path), *[(name, value)] * self.dice.choice([1, 1, 2, 150]))

    def cached(self) -> Shot:
        """Absurd wishes."""
        path = self._path()
        parts = [
            f"{self.dice.choice(_DIRECTIVES)}{self.dice.choice(['', '=', '='])}{self.dice.choice(_ABSURD_AGES)}"
            for _ in range(self.dice.choice([1, 2, 5, 300]))
        ]
        wishes = ",".join(parts).encode("utf-8")
        return self._posted("cache-control", path, self._plain(path), (b"cache-control", wishes))

    def wrong_key(self) -> Shot:
        path, [right, *_] = self._path(), self._keys.values()
        key = self.dice.choice([right[:-1], right + "x", right.upper(), right * 500, "", " ", "\xff", "*", "null",
                                f"{right},{right}", f"{right}\t1", right[::-1]])  # fmt: skip
        name, value = self.dice.choice([("authorization", f"Bearer {key}"), ("authorization", f"Basic {right}"),
                                        ("x-api-key", key), ("authorization", right),
                                        ("cookie", f"key={right}")])  # fmt: skip
        head = [(name.encode(), value.encode("latin-1"))]
        return self._shot("wrong key", path, self._plain(path), head, key="")

    def unframed(self) -> Shot:
        """What is no HTTP, or two kinds of it at once."""
        path, body = self._path(), self._plain(self.dice.choice(PATHS))
        chunks = _in_chunks(body, 7)
        trailer = b"0\r\n" + b"x-evil: 1\r\n" * 50 + b"\r\n"
        both = (b"content-length", str(len(body)).encode())
        return self.dice.choice(
            [
                self._posted(UNFRAMED, path, body, length=b"-1"),
                self._posted(UNFRAMED, path, body, (b"content-length", b"3")),
                self._posted(UNFRAMED, path, b"zz\r\n" + body, length=None),
                self._posted(UNFRAMED, path, chunks, both, length=None),
                self._posted(UNFRAMED, path, chunks.removesuffix(b"0\r\n\r\n") + trailer, length=None),
                Shot(UNFRAMED, self.dice.randbytes(200), b"\r\n\r\n", "/"),
                Shot(UNFRAMED, b"GET / HTTP/9.9\r\n" + b"a" * 90_000, b"\r\n\r\n", "/"),
            ]
        )

    def elsewhere(self) -> Shot:
        """Other paths, queries and methods."""
        place, method = self.dice.choice(_PLACES), self.dice.choice(_METHODS)
        key = self._thief if method == "DELETE" else self.dice.choice([*self._keys])
        return self._shot("elsewhere", place, b"", [], key=key, method=method)

    def _path(self) -> str:
        return self.dice.choice(PATHS)

    def _plain(self, path: str) -> bytes:
        return json.dumps(self.asking(path)).encode()

    def _posted(self, about: str, path: str, body: bytes, *headers: tuple[bytes, bytes], **how: Any) -> Shot:
        key = self.dice.choice([*self._keys])
        return self._shot(about, path, body, list(headers), key=key, **how)

    def _shot(
        self,
        about: str,
        path: str,
        body: bytes,
        headers: list[tuple[bytes, bytes]],
        *,
        key: str,
        method: str = "POST",
        kind: bytes = b"application/json",
        length: bytes | None = b"",
    ) -> Shot:
        lines = [f"{method} {path} HTTP/1.1".encode()]
        if not any(name == b"host" for name, _ in headers):
            lines.append(b"host: localhost")
        if key:
            lines.append(f"authorization: Bearer {self._keys[key]}".encode())
        if kind:
            lines.append(b"content-type: " + kind)
        if length is None:
            lines.append(b"transfer-encoding: chunked")
        else:
            lines.append(b"content-length: " + (length or str(len(body)).encode()))
        if key == self._thief:
            lines.append(b"cache-control: " + ONLY_CACHED)
        lines += [name + b": " + value for name, value in headers]
        return Shot(about, b"\r\n".join(lines) + b"\r\n\r\n", body, path, key)


def _in_chunks(data: bytes, size: int) -> bytes:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def fired(shot: Shot, port: int) -> Heard:
    """The answer to a shot. Of what is no whole request nothing more comes, and nobody waits for an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(shot.head + shot.body)
        if shot.about == UNFRAMED:
            writer.write_eof()
        return await _heard(reader, bodiless=shot.head.startswith(b"HEAD "))
    except (ConnectionError, asyncio.IncompleteReadError):
        return Heard(0, {}, b"")
    finally:
        writer.transport.abort()


async def _heard(reader: asyncio.StreamReader, *, bodiless: bool) -> Heard:
    line = b" 100 "
    while b" 100 " in line:
        line, _, rest = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
    version, status, *_ = line.split()
    assert version == b"HTTP/1.1", line
    told = parse_headers(io.BytesIO(rest))
    headers = {name.lower(): value for name, value in told.items()}
    assert len(headers) == len(told), "no header comes twice"
    body = b""
    if "content-length" in headers and not bodiless:
        body = await reader.readexactly(int(headers["content-length"]))
    elif "transfer-encoding" in headers:
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
    return Heard(int(status), headers, body)
