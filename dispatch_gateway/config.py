"""The settings of a gateway: ``dispatch.yaml``, or none at all. Checked as a whole before anything starts."""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Mapping
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator

from dispatch_core.errors import ConfigError, MissingExtra
from dispatch_gateway.shortening import Shortening
from dispatch_gateway.strict import Positive, Strict

ANY_MODEL = "*"
_OPENAI = "https://api.openai.com/v1"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_SHORTEST_KEY = 16
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def _http(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("a URL that starts with http:// or https://")
    return url.rstrip("/")


def _redis(url: str | None) -> str | None:
    """A variable that is empty says nothing."""
    if url and url.partition("://")[0] not in ("redis", "rediss", "unix"):
        raise ValueError("a URL that starts with redis://, rediss:// or unix://")
    return url or None


def _off(given: object) -> object:
    """YAML's ``off`` is a boolean."""
    return None if given is False else given


class Listen(Strict):
    """Where to listen. Without keys only a loopback address will do."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)

    @property
    def loopback(self) -> bool:
        return loopback(self.host)

    def url(self, port: int) -> str:
        """Where clients find the gateway that listens on this port."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{port}/v1"


class Cache(Strict):
    """``url`` is a store of the core; ``embedder`` a model's name, "auto" (the local default, if its packages are
    installed) or "none" (exact matches only); ``ttl``, ``stale`` and ``lease`` are in seconds: for ``stale`` of them
    after its ``ttl`` an answer is served while one caller asks anew, or when the upstream fails."""

    enabled: bool = True
    url: str = "memory://"
    embedder: str = "auto"
    threshold: float = Field(default=0.92, ge=-1, le=1)
    ttl: Positive | None = None
    stale: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    lease: Positive | None = None
    namespace_secret: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _stale_after_something(self) -> Cache:
        if self.stale and self.ttl is None:
            raise ValueError("stale answers need a ttl")
        return self


class Limits(Strict):
    """Those of `dispatch_core.TokenLimiter`, any subset: per minute, per day, at once."""

    rpm: Positive | None = None
    tpm: Positive | None = None
    itpm: Positive | None = None
    otpm: Positive | None = None
    rpd: Positive | None = None
    tpd: Positive | None = None
    concurrency: Positive | None = None
    profile: Literal["window", "bucket", "openai", "anthropic", "azure", "deepseek", "gemini"] = "window"
    window: Positive = 60.0
    burst: Positive | Literal["auto"] = "auto"
    max_queue: int | None = Field(default=None, ge=0)

    @property
    def any(self) -> bool:
        return any(getattr(self, name) is not None for name in _DIMENSIONS)


_DIMENSIONS = ("rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "concurrency")


class Prices(Strict):
    """For a million tokens, in one currency for all."""

    input: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    output: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class Deployment(Strict):
    """One place that serves a model. ``model`` is its name there, if it is another. Without an ``api_key`` the
    caller's own goes along. Deployments with one ``name`` share one quota, whatever models they serve."""

    base_url: Annotated[str, AfterValidator(_http)] = _OPENAI
    api_key: SecretStr | None = None
    provider: Literal["openai", "anthropic"] = "openai"
    model: str | None = None
    name: str | None = Field(default=None, pattern=r"^[\w.@/*-]+$")
    limits: Limits = Limits()
    prices: Prices = Prices()
    stream_usage: bool = True


class Key(Strict):
    """A virtual key: its ``hash`` (``dispatcher serve --new-key`` makes both), or the ``key`` itself from the
    environment. A lower ``priority`` goes first; ``budget_per_day`` is in the currency of the prices."""

    name: str = Field(min_length=1, pattern=r"^[\w.@:-]+$")
    hash: str | None = None
    key: SecretStr | None = None
    namespace: str = Field(default="", pattern=r"^[\w.@:/-]*$")
    limits: Limits = Limits()
    budget_per_day: Positive | None = None
    priority: float = Field(default=0, allow_inf_nan=False)
    weight: Positive = 1.0
    models: tuple[str, ...] = (ANY_MODEL,)

    @model_validator(mode="after")
    def _one_secret(self) -> Key:
        if (self.hash is None) == (self.key is None):
            raise ValueError("give either hash or key")
        if self.hash is not None and not _HASH.fullmatch(self.hash):
            raise ValueError("hash is sha256: and 64 hexadecimal digits")
        if self.key is not None and len(self.key.get_secret_value()) < _SHORTEST_KEY:
            raise ValueError(f"key has at least {_SHORTEST_KEY} characters")
        return self

    @property
    def digest(self) -> str:
        return self.hash or hash_of("" if self.key is None else self.key.get_secret_value())


class Quota(Strict):
    """With ``redis`` all replicas share the limits; ``replicas`` is how many there are, for the time it is away."""

    redis: Annotated[str | None, AfterValidator(_redis)] = None
    replicas: int = Field(default=4, ge=1)


class Timeouts(Strict):
    """In seconds: to ``connect``, for the ``queue`` in front of a quota, of silence while an upstream answers
    (``read``), for a request as a ``total``, to ``drain`` at the end."""

    connect: Positive = 10.0
    read: Positive = 120.0
    queue: Positive = 60.0
    total: Positive = 600.0
    drain: Positive = 30.0


class Settings(Strict):
    """All of it. ``models`` maps the names that callers use to deployments, ``compression`` to what makes their
    prompts shorter; "*" stands for all others. ``retries`` is how often a refused call waits for another turn.
    ``auth`` "auto" asks for a key unless there is none and only this machine can connect. ``max_body`` is in
    bytes. ``tracing`` makes spans for the OpenTelemetry provider of the process (start it under
    ``opentelemetry-instrument``)."""

    listen: Listen = Listen()
    auth: Literal["auto", "required", "none"] = "auto"
    cache: Cache = Cache()
    quota: Quota = Quota()
    models: Mapping[str, tuple[Deployment, ...]] = Field(default_factory=lambda: {ANY_MODEL: (Deployment(),)})
    compression: Mapping[str, Annotated[Shortening | None, BeforeValidator(_off)]] = Field(default_factory=dict)
    keys: tuple[Key, ...] = ()
    timeouts: Timeouts = Timeouts()
    retries: int = Field(default=2, ge=0, le=10)
    tracing: bool = False
    max_body: int = Field(default=8 * 1024 * 1024, ge=1024)

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        for name, deployments in self.models.items():
            if not deployments:
                raise ValueError(f"models.{name}: at least one deployment")
        for name in self.compression:
            if name != ANY_MODEL and name not in self.models and ANY_MODEL not in self.models:
                raise ValueError(f"compression.{name}: there is no such model")
        for what, values in (
            ("name", [key.name for key in self.keys]),
            ("secret", [key.digest for key in self.keys]),
        ):
            if len(set(values)) < len(values):
                raise ValueError(f"keys: two have the same {what}")
        if self.auth == "auto" and not self.keys and not self.listen.loopback:
            raise ValueError(f"keys: needed to listen on {self.listen.host}; without any, only 127.0.0.1 will do")
        if self.auth == "required" and not self.keys:
            raise ValueError("keys: auth is required, and there is none")
        return self

    @property
    def authenticates(self) -> bool:
        return self.auth != "none" and bool(self.keys)


def settings_from(
    path: Path | str | None = None, env: Mapping[str, str] = os.environ, *, listen: Mapping[str, Any] | None = None
) -> Settings:
    """Read a YAML file, with ``${NAME}`` and ``${NAME:-default}`` from ``env``; without one, a gateway on loopback.
    Where no models are named, all are asked at ``OPENAI_BASE_URL`` with ``OPENAI_API_KEY``. ``listen`` goes before
    what the file says of that. Raises `ConfigError`, which names the path of the wrong key."""
    data: Any = {} if path is None else _filled(_read(path), env, "")
    if "models" not in data:
        upstream = {"base_url": env.get("OPENAI_BASE_URL") or _OPENAI, "api_key": env.get("OPENAI_API_KEY") or None}
        data = {**data, "models": {ANY_MODEL: [upstream]}}
    if listen and isinstance(data.get("listen", {}), dict):
        data = {**data, "listen": {**data.get("listen", {}), **listen}}
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        wrong = "; ".join(_said(dict(one)) for one in error.errors(include_url=False, include_input=False))
        raise ConfigError(f"{path or 'the environment'}: {wrong}") from None


def hash_of(key: str) -> str:
    """What is kept of a virtual key. A key has 256 random bits: no salt, no slow hash would add to that."""
    return "sha256:" + sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def loopback(host: str) -> bool:
    """Whether a name or an address is this machine's alone."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def same_hash(one: str, other: str) -> bool:
    """In a time that does not tell where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def _read(path: Path | str) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("dispatch.yaml", "gateway") from error
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict | None):
        raise ConfigError(f"{path}: expected names of settings, got {type(data).__name__}")
    return data or {}


def _said(error: Mapping[str, Any]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    text = {"extra_forbidden": "there is no such setting"}.get(error["type"], error["msg"])
    text = text.removeprefix("Value error, ")
    return f"{path}: {text}" if path else text


def _filled(value: Any, env: Mapping[str, str], path: str) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, env, f"{path}.{name}".lstrip(".")) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, env, f"{path}[{index}]") for index, inner in enumerate(value)]
    if not isinstance(value, str):
        return value

    def found(variable: re.Match[str]) -> str:
        name, default = variable.groups()
        if name not in env and default is None:
            raise ConfigError(f"{path}: the environment variable {name} is not set")
        return env.get(name) or default or ""

    return _VARIABLE.sub(found, value)
