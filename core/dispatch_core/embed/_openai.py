"""Clients of OpenAI's SDK: a blocking one, and an asynchronous one for each event loop."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from dispatch_core._fork import renew_in_child
from dispatch_core._keeper import closed_with_loop
from dispatch_core.errors import ConfigError, EmbeddingError, MissingExtra

if TYPE_CHECKING:
    import openai

    Client: TypeAlias = openai.OpenAI
    AsyncClient: TypeAlias = openai.AsyncOpenAI


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the API: an embedding, base64 or numbers, and its place for each text; tokens, 0 if unknown."""

    embeddings: list[tuple[int | None, Any]]
    tokens: int
    headers: Mapping[str, str]


class Clients:
    """Makes the clients when they are needed, of ``settings``, or uses those that the caller gave.

    With a blocking client alone, asynchronous calls run it in threads.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        client: Client | None,
        async_client: AsyncClient | None,
        *,
        retries: int | None,
    ) -> None:
        if client is None and async_client is not None:
            raise ConfigError("an asynchronous client alone cannot serve blocking calls: give a synchronous one too")
        self._settings = settings
        self._given: Client | None = _with(client, retries)
        self._async_given: AsyncClient | None = _with(async_client, retries)
        self._abandoned: list[Any] = []
        self._client: Client | None = None
        self._keepers: dict[asyncio.AbstractEventLoop, tuple[AsyncClient, AsyncGenerator[None, None]]] = {}
        self.start_anew()
        renew_in_child(self)

    def start_anew(self) -> None:
        """A forked child must not use the parent's connections; nor close them, which the servers would hear."""
        self._lock = threading.Lock()
        self._abandoned += [self._client, self._keepers]
        self._client, self._keepers = None, {}

    def ask(self, request: Mapping[str, Any]) -> Reply:
        return _reply(self._blocking().embeddings.with_raw_response.create(**request))

    async def aask(self, request: Mapping[str, Any]) -> Reply:
        if self._given is not None and self._async_given is None:
            return await asyncio.to_thread(self.ask, request)
        client = self._async_given or await self._here()
        return _reply(await client.embeddings.with_raw_response.create(**request))

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        _, keeper = self._keepers.pop(asyncio.get_running_loop(), (None, None))
        if keeper is not None:
            await keeper.aclose()
        self.close()

    def _blocking(self) -> Client:
        if self._given is not None:
            return self._given
        with self._lock:
            made: Client = self._client or _made("OpenAI", self._settings)
            self._client = made
            return made

    async def _here(self) -> AsyncClient:
        """The client of the running loop; its connections cannot serve another loop."""
        loop = asyncio.get_running_loop()
        client, keeper = self._keepers.get(loop, (None, None))
        if client is None:
            client = _made("AsyncOpenAI", self._settings)
            keeper = closed_with_loop(client.close)
            await anext(keeper)
            with self._lock:
                for ended in [known for known in self._keepers if known.is_closed()]:
                    del self._keepers[ended]
                self._keepers[loop] = client, keeper
        return client


def _with(client: Any, retries: int | None) -> Any:
    return client if client is None or retries is None else client.with_options(max_retries=retries)


def _made(kind: str, settings: Mapping[str, Any]) -> Any:
    if importlib.util.find_spec("openai") is None:
        raise MissingExtra("OpenAIEmbedder", "openai")
    import openai

    try:
        return getattr(openai, kind)(**settings)
    except openai.OpenAIError as error:
        raise EmbeddingError("no client of OpenAI can be made: give an api_key, or set OPENAI_API_KEY") from error


def _reply(raw: Any) -> Reply:
    body = raw.parse()
    used = getattr(body.usage, "prompt_tokens", 0) if getattr(body, "usage", None) is not None else 0
    embeddings = [(getattr(one, "index", None), one.embedding) for one in body.data]
    return Reply(embeddings, int(used or 0), {str(name).lower(): str(value) for name, value in raw.headers.items()})
