"""A stand-in for RediSearch, for the logic of its store: FT.* over the hashes of a server without it.

It knows the few queries that the store asks, and no more: whether a real RediSearch understands them only a real one
can tell (`DISPATCH_TEST_REDISEARCH_URL`).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from dispatch_core import RediSearchStore, StoreError
from dispatch_core._flow import Flow

_INDEXES = "double:indexes"
_NEAREST = re.compile(
    r"\(@scope:\{(?P<scope>.+?)\}(?: @ends:\[\((?P<now>\S+) \+inf\])?\)"
    r"=>\[KNN (?P<limit>\d+) @(?P<field>vector\d+) \$vector EF_RUNTIME \d+ AS distance\]"
)
_MARKED = re.compile(r"(?:@namespace:\{(?P<namespace>.+?)\})? ?(?:@labels:\{(?P<labels>[0-9a-f|]+)\})?")
# Of each of the entries: its key, then these of its fields.
_READ = """
local found = {}
for _, key in ipairs(redis.call('SMEMBERS', ARGV[1])) do
  found[#found + 1] = {key, unpack(redis.call('HMGET', key, unpack(ARGV, 2)))}
end
return found
"""


class DoubleStore(RediSearchStore):
    """A store whose server learned FT.*."""

    def __init__(self, url: str, *, prefix: str, timeout: float) -> None:
        super().__init__(url, prefix=prefix, timeout=timeout)
        self._redis = _Learned(self._redis, f"double:{prefix}")  # type: ignore[assignment]


class _Learned:
    def __init__(self, connections: Any, entries: str) -> None:
        self._inner = connections
        self._entries = entries
        self._turn = 0
        self.close, self.aclose = connections.close, connections.aclose

    def send(self, *commands: tuple[Any, ...]) -> Flow[list[Any]]:
        if not commands[0][0].startswith("FT."):
            if commands[0][0] == "EVALSHA" and commands[0][5] == "put":
                yield from self._inner.send(("SADD", self._entries, commands[0][3]))
            return (yield from self._inner.send(*commands))
        [(name, index, *words)] = commands
        [made] = yield from self._inner.send(("HEXISTS", _INDEXES, index))
        if name == "FT.CREATE":
            if made:
                raise StoreError("Redis failed: ResponseError: Index already exists")
            return (yield from self._inner.send(("HSET", _INDEXES, index, 1)))
        if not made:
            raise StoreError(f"Redis failed: ResponseError: {index}: no such index")
        if name == "FT.INFO":
            return [[b"indexing", b"0", b"percent_indexed", b"1", b"hash_indexing_failures", b"0"]]
        return [(yield from self._search(words))]

    def _search(self, words: list[Any]) -> Flow[Any]:
        query, count = words[0], words[2]
        names = words[3 : 3 + count]
        start, most = words[words.index("LIMIT") + 1 :][:2]
        nearest = _NEAREST.fullmatch(query)
        if nearest is not None:
            vector = words[words.index("PARAMS") + 3]
            found = yield from self._nearest(nearest, np.frombuffer(vector, "<f4"))
        else:
            marked = _MARKED.fullmatch(query)
            assert marked is not None, query
            found = yield from self._marked(marked)
        rows, page = [], found[start : start + most]
        read = (yield from self._inner.send(*(("HMGET", key, *names) for key, _ in page))) if page else []
        for (key, distance), values in zip(page, read, strict=True):
            row = {name.encode(): value for name, value in zip(names, values, strict=True) if value is not None}
            rows.append((key, row | ({} if distance is None else {b"distance": b"%.12g" % distance})))
        return self._reply(rows, len(found))

    def _nearest(self, query: re.Match[str], vector: Any) -> Flow[list[tuple[bytes, float]]]:
        [entries] = yield from self._inner.send(("EVAL", _READ, 0, self._entries, "scope", "ends", query["field"]))
        found = [
            (key, 1 - float(np.frombuffer(blob, "<f4") @ vector))
            for key, scope, ends, blob in entries
            if scope == query["scope"].encode()
            and blob
            and (query["now"] is None or float(ends) > float(query["now"]))
        ]
        return sorted(found, key=lambda pair: pair[1])[: int(query["limit"])]

    def _marked(self, query: re.Match[str]) -> Flow[list[tuple[bytes, None]]]:
        [entries] = yield from self._inner.send(("EVAL", _READ, 0, self._entries, "namespace", "labels"))
        namespace = re.sub(r"\\(.)", r"\1", query["namespace"] or "").encode()
        wanted = set((query["labels"] or "").encode().split(b"|")) - {b""}
        return [
            (key, None)
            for key, owner, labels in sorted(entries)
            if (not namespace or owner == namespace) and (not wanted or wanted & set((labels or b"").split(b",")))
        ]

    def _reply(self, rows: list[tuple[bytes, dict[bytes, bytes]]], total: int) -> Any:
        """Of one protocol and of the other in turn."""
        self._turn += 1
        if self._turn % 2:
            flat = [[part for pair in row.items() for part in pair] for _, row in rows]
            return [total, *(part for (key, _), row in zip(rows, flat, strict=True) for part in (key, row))]
        items = [{b"id": key, b"extra_attributes": row, b"values": []} for key, row in rows]
        return {b"attributes": [], b"results": items, b"warning": [], b"total_results": total, b"format": b"STRING"}
