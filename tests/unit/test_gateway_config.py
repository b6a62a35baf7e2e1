"""Settings of the gateway, and the files that come with it."""

from __future__ import annotations

import json
import re
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import in_another_process

from dispatch_core import HashingEmbedder
from dispatch_core.errors import ConfigError
from dispatch_gateway import settings_from
from dispatch_gateway.config import hash_of
from dispatch_gateway.service import Service

DEPLOY = Path(__file__).parents[2] / "deploy"
KEY = {"name": "ann", "hash": hash_of("a secret of some length")}


def read(tmp_path: Path, settings: Any, **env: str) -> Any:
    file = tmp_path / "d.yaml"
    file.write_text(yaml.safe_dump(settings) if not isinstance(settings, str) else settings, encoding="utf-8")
    return settings_from(file, env)


def test_without_a_file_the_environment_says_where_to_go() -> None:
    plain, own = (
        settings_from(None, {}),
        settings_from(None, {"OPENAI_BASE_URL": "http://x/v1/", "OPENAI_API_KEY": "k"}),
    )
    assert plain.models["*"][0].base_url == "https://api.openai.com/v1"
    assert plain.models["*"][0].api_key is None
    assert (plain.listen.host, plain.authenticates) == ("127.0.0.1", False)
    deployment = own.models["*"][0]
    assert deployment.base_url == "http://x/v1"
    assert deployment.api_key is not None
    assert deployment.api_key.get_secret_value() == "k"
    assert "'k'" not in repr(own)


@pytest.mark.parametrize(
    ("host", "shown"), [("::1", "[::1]"), ("127.0.0.2", "127.0.0.2"), ("localhost", "localhost")]
)
def test_where_it_listens_is_told_as_a_url(tmp_path: Path, host: str, shown: str) -> None:
    listen = read(tmp_path, {"listen": {"host": host}}).listen
    assert (listen.url(80), listen.loopback) == (f"http://{shown}:80/v1", True)


def test_a_file_without_models_leaves_them_to_the_environment(tmp_path: Path) -> None:
    deployment = read(tmp_path, {"keys": [KEY]}, OPENAI_BASE_URL="http://x/v1", OPENAI_API_KEY="k").models["*"][0]
    assert deployment.base_url == "http://x/v1"
    assert deployment.api_key is not None


def test_the_environment_fills_in_what_the_file_leaves_open(tmp_path: Path) -> None:
    settings = {"listen": {"port": "${PORT}"}, "cache": {"url": "${STORE:-memory://}"}}
    read_settings = read(tmp_path, settings, PORT="9000")
    assert (read_settings.listen.port, read_settings.cache.url) == (9000, "memory://")
    with pytest.raises(ConfigError, match=r"listen\.port: the environment variable PORT is not set"):
        read(tmp_path, settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"modells": {}}, "modells: there is no such setting"),
        ({"models": {"m": [{"limits": {"rpm": -1}}]}}, r"models\.m\[0\]\.limits\.rpm: .*greater than 0"),
        (
            {"models": {"m": [{"base_url": "api.openai.com"}]}},
            r"models\.m\[0\]\.base_url: a URL that starts with http",
        ),
        ({"models": {"m": []}}, r"models\.m: at least one deployment"),
        ({"keys": [{"name": "a"}]}, r"keys\[0\]: give either hash or key"),
        ({"keys": [{"name": "a", "hash": "md5:1"}]}, r"keys\[0\]: hash is sha256"),
        ({"keys": [{"name": "a", "key": "short"}]}, r"keys\[0\]: key has at least 16"),
        ({"keys": [KEY, {**KEY, "name": "bob"}]}, "keys: two have the same secret"),
        ({"keys": [KEY, {**KEY, "hash": hash_of("x")}]}, "keys: two have the same name"),
        ({"listen": {"host": "0.0.0.0"}}, r"keys: needed to listen on 0\.0\.0\.0"),
        ({"auth": "required"}, "keys: auth is required"),
        ({"cache": {"stale": 5}}, "cache: stale answers need a ttl"),
        ({"quota": {"redis": "memory://"}}, r"quota\.redis: a URL that starts with redis://"),
        ({"quota": {"redis": "redis+cluster://x"}}, r"quota\.redis: a URL that starts with redis://"),
        ({"compression": {"*": {"steps": []}}}, r"compression\.\*\.steps: .*at least 1"),
        ({"compression": {"*": {"steps": ["tidy"]}}}, r"compression\.\*\.steps\[0\]\.tidy: there is no such setting"),
        ({"compression": {"*": {"steps": [{}]}}}, r"compression\.\*\.steps\[0\]: one of lossless, extractive"),
        (
            {"compression": {"m": {"steps": ["lossless", {"extractive": {"share": 2}}]}}},
            r"compression\.m\.steps\[1\]\.extractive\.share: .*less than or equal to 1",
        ),
        ({"compression": {"*": {"steps": ["history"]}}}, r"compression\.\*: history needs tokens"),
        (
            {"compression": {"*": {"steps": ["lossless"], "frames": ["Use this: {context}", "{question}"]}}},
            r"compression\.\*\.frames\[1\]: a frame has one field for the context",
        ),
        (
            {"compression": {"*": {"steps": ["lossless"], "tags": ["<notes>"]}}},
            r"compression\.\*\.tags\[0\]: tags are names",
        ),
        (
            {"compression": {"*": {"steps": ["lossless"], "roles": ["robot"]}}},
            r"compression\.\*\.roles\[0\]: .*'system', 'user'",
        ),
        (
            {"compression": {"n": {"steps": ["lossless"]}}, "models": {"m": [{}]}},
            r"compression\.n: there is no such model",
        ),
        ("- a list", "expected names of settings"),
        ("a: [", "is no YAML"),
    ],
)
def test_what_cannot_work_is_told_with_its_path(tmp_path: Path, settings: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"d\.yaml:? .*{said}|{said}"):
        read(tmp_path, settings)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        settings_from(tmp_path / "none.yaml", {})


def test_secrets_are_in_no_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, {"keys": [{"name": "a", "key": "hush-hush"}], "models": {"m": [{"api_key": ["hush-hush"]}]}})
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        ({"url": "elsewhere://x"}, r"cache\.url: unknown store 'elsewhere'"),
        ({"url": "milvus+http://127.0.0.1:9", "lease": 5}, r"cache\.lease: lease needs a store that processes share"),
        ({"embedder": "no-such-model"}, r"cache\.embedder: the model 'no-such-model' could not be loaded"),
    ],
)
async def test_what_a_setting_names_and_is_not_there_is_told_with_its_path(
    tmp_path: Path, cache: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Service(read(tmp_path, {"cache": {"embedder": "none", **cache}}))


async def test_deployments_of_one_name_share_one_quota(tmp_path: Path) -> None:
    def settings(rpm: int) -> Any:
        places = [{"name": "account", "limits": {"rpm": limit}} for limit in (10, rpm)]
        models = {"a": places[:1], "b": places[1:]}
        return read(tmp_path, {"models": models, "cache": {"embedder": "none"}})

    service = Service(settings(10))
    (one,), (other,) = service.pools["a"], service.pools["b"]
    assert one.limiters[0] is other.limiters[0]
    with pytest.raises(ConfigError, match="share the name account"):
        Service(settings(20))


async def test_steps_that_cannot_work_here_are_told_at_the_start(tmp_path: Path, monkeypatch: Any) -> None:
    def started(*steps: Any) -> Service:
        quiet = {"cache": {"embedder": "none"}, "compression": {"m": {"steps": list(steps)}}}
        return Service(read(tmp_path, quiet))

    assert started("lossless", {"history": {"tokens": 99}}).compression.of("m") is not None
    with pytest.raises(ConfigError, match=r"^compression\.m\.steps\[1\]: extractive needs an embedding model"):
        started("lossless", "extractive")
    monkeypatch.setitem(sys.modules, "llmlingua", None)
    with pytest.raises(ConfigError, match=r"^compression\.m\.steps\[0\]: .*ai-dispatcher\[compress\]"):
        started("llmlingua")


async def test_a_model_of_a_step_is_loaded_at_the_start(tmp_path: Path, monkeypatch: Any) -> None:
    asked: list[dict[str, Any]] = []

    class Loaded:
        def __init__(self, name: str, *, device_map: str, use_llmlingua2: bool) -> None:
            if name == "broken":
                raise OSError("no such model")

        def compress_prompt(self, context: list[str], **settings: Any) -> dict[str, Any]:
            asked.append(settings)
            return {"compressed_prompt": context[0][:5]}

    package = types.ModuleType("llmlingua")
    package.__spec__ = ModuleSpec("llmlingua", None)
    package.PromptCompressor = Loaded  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "llmlingua", package)

    def settings(model: str) -> Any:
        steps = [{"llmlingua": {"model": model, "share": 0.4}}]
        return read(tmp_path, {"cache": {"embedder": "none"}, "compression": {"*": {"steps": steps}}})

    assert Service(settings("small")).compression.of("any") is not None
    assert len(asked) == 1
    with pytest.raises(ConfigError, match=r"^compression\.\*\.steps\[0\]: the model 'broken' could not be loaded"):
        Service(settings("broken"))


def test_one_step_may_be_given_as_it_is(tmp_path: Path) -> None:
    for step in ("lossless", {"history": {"tokens": 9}}):
        one, listed = (read(tmp_path, {"compression": {"*": {"steps": each}}}) for each in (step, [step]))
        assert one == listed


def test_what_is_switched_off_is_not_made_shorter(tmp_path: Path) -> None:
    text = "compression:\n  '*': {steps: [lossless]}\n  m: off\n  n: ~\n"
    settings = read(tmp_path, text)
    assert (settings.compression["m"], settings.compression["n"]) == (None, None)
    assert settings.compression["*"] is not None
    assert settings_from(None, {}).compression == {}, "never on by default"


async def test_the_example_is_valid() -> None:
    env = {"OPENAI_API_KEY": "k", "TEAM_A_HASH": KEY["hash"]}
    settings = settings_from(DEPLOY / "dispatch.yaml", env)
    Service(settings, embedder=HashingEmbedder())
    redis = settings_from(DEPLOY / "dispatch.yaml", {**env, "DISPATCH_REDIS": "redis://x:6379/0"})
    assert redis.quota.redis == redis.cache.url
    assert settings.authenticates
    assert len(settings.models["gpt-4o-mini"]) == 2
    assert settings.quota.redis is None


async def test_the_dashboard_asks_for_metrics_that_exist(tmp_path: Path) -> None:
    service = Service(read(tmp_path, {"cache": {"embedder": "none"}}))
    text = service.meters.exposition().decode()
    known = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {name.removesuffix("_bucket") for name in re.findall(r"dispatch_\w+", " ".join(asked))}
    assert named <= known
    assert len(named) == 7


def test_the_commands_are_there_without_the_extra_and_say_what_to_install() -> None:
    code = """
import sys
for name in ("starlette", "uvicorn", "aiohttp", "pydantic", "prometheus_client", "yaml", "rich"):
    sys.modules[name] = None
from dispatch_core.__main__ import main
print(main(["serve"]), main(["top"]))
"""
    assert in_another_process(code) == "2 2"
