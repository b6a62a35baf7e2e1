"""How many tokens a text costs: the estimate, what it learns, how far it trusts itself, and the exact count."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.errors import MissingExtra
from dispatch_core.limit.count import TokenEstimator
from dispatch_core.limit.tokenizer import tiktoken_counter
from dispatch_core.types import Cost, Usage

CHINESE = (
    "大型语言模型通过预测下一个词来生成文本。语义缓存会把相似的问题映射到同一个答案，从而节省费用并缩短等待时间。"
    "限流器则保证请求的速率不超过服务商规定的上限。"
)
ENGLISH = (
    "A limiter keeps the rate of calls below what the provider allows, and a cache answers what was asked before. "
)


@pytest.fixture(scope="module")
def count():
    pytest.importorskip("tiktoken")
    pytest.importorskip("llama_index.core")
    return tiktoken_counter()


def _estimate(estimator, text, model="m"):
    return estimator.estimate(text, max_tokens=0, model=model)


def _learned(factors, tokens=1_000):
    """An estimator after costs of ``tokens`` whose usage was ``factor`` times the estimate."""
    estimator = TokenEstimator()
    for factor in factors:
        estimator.learn(Cost(tokens, 0, "m", weight=float(tokens)), Usage(round(tokens * factor), 0))
    return estimator


# The estimate


@pytest.mark.parametrize("text", [ENGLISH * 20, CHINESE * 20])
def test_the_first_guess_is_fair_in_every_script(text, count):
    assert _estimate(TokenEstimator(), text).input_tokens == pytest.approx(count(text), rel=0.45)


def test_characters_would_be_far_too_few_where_bytes_are_not(count):
    exact = count(CHINESE * 20)
    assert len(CHINESE * 20) / 4 < exact / 2
    assert _estimate(TokenEstimator(), CHINESE * 20).input_tokens > exact * 0.9


@pytest.mark.parametrize("text", ["", "\ud800", "😀", "<|endoftext|>", "\x00"])
def test_every_text_costs_at_least_a_token(text):
    assert _estimate(TokenEstimator(), text).input_tokens >= 1
    assert _estimate(TokenEstimator(count=len), text).input_tokens >= 1


@pytest.mark.parametrize("unit", ["x", "你", "😀", "\ud800", "<|endoftext|>"])
def test_the_estimate_is_linear_up_to_a_megabyte(unit):
    small, large = (_estimate(TokenEstimator(), unit * times).weight for times in (1_000, 100_000))
    assert large == 100 * small


# What it learns about itself


def test_before_anything_was_seen_the_spread_is_a_guess():
    estimator = TokenEstimator()
    assert estimator.spread("m") == 0.15
    _estimate(estimator, "x" * 400)
    assert estimator.spread("m") == 0.15


def test_the_first_errors_are_averaged_plainly():
    assert _learned([1.2]).spread("m") == pytest.approx(0.2)
    assert _learned([0.8]).spread("m") == pytest.approx(0.2)
    assert _learned([1.3, 1.0]).spread("m") == pytest.approx((0.09 / 2) ** 0.5)
    assert _learned([1.3, 1.0, 1.0, 1.0]).spread("m") == pytest.approx((0.09 / 4) ** 0.5)


def test_later_errors_move_the_average():
    assert _learned([1.1] * 50 + [1.3] * 50).spread("m") == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("sigma", [0.05, 0.15, 0.4])
def test_the_spread_finds_the_noise_of_the_estimate(sigma):
    noise = random.Random(7)
    estimator, found = TokenEstimator(), []
    for _ in range(600):
        cost = _estimate(estimator, "x" * 40_000)
        estimator.learn(cost, Usage(max(1, round(6_000 * noise.gauss(1, sigma))), 0))
        found.append(estimator.spread("m"))
    assert sum(found[100:]) / 500 == pytest.approx(sigma, rel=0.35)


def test_a_perfect_estimate_keeps_a_little_doubt():
    assert _learned([1.0] * 100).spread("m") == 0.01


def test_one_absurd_usage_is_soon_forgotten():
    assert _learned([1e9]).spread("m") == 1.0
    assert _learned([1.0] * 50 + [1e9] + [1.0] * 50).spread("m") < 0.05


def test_every_model_has_its_own_spread():
    estimator = _learned([1.5])
    assert (estimator.spread("m"), estimator.spread("another")) == (pytest.approx(0.5), 0.15)


@pytest.mark.parametrize(
    ("cost", "usage"),
    [
        (Cost(100, 0, "m", weight=0.0), Usage(500, 0)),
        (Cost(1, 0, "m", weight=0.25), Usage(500, 0)),
        (Cost(0, 0, "m", weight=100.0), Usage(500, 0)),
        (Cost(100, 0, "m", weight=100.0), Usage(0, 50)),
    ],
)
def test_what_was_not_estimated_or_not_reported_teaches_no_spread(cost, usage):
    estimator = TokenEstimator()
    estimator.learn(cost, usage)
    assert estimator.spread("m") == 0.15


@given(
    st.lists(
        st.tuples(st.integers(0, 10**12), st.floats(0, 1e12), st.integers(-5, 10**18), st.integers(-5, 10**18)),
        max_size=30,
    )
)
def test_no_usage_drives_the_spread_out_of_its_bounds(seen):
    estimator = TokenEstimator()
    for tokens, weight, used, answered in seen:
        estimator.learn(Cost(tokens, 0, "m", weight), Usage(used, answered))
    assert 0.01 <= estimator.spread("m") <= 1.0


# A tokenizer in place of the estimate


def test_a_given_tokenizer_counts_and_leaves_nothing_to_learn():
    estimator = TokenEstimator(count=len)
    for _ in range(20):
        cost = estimator.estimate("hello", max_tokens=7, model="m")
        assert cost == Cost(5, 7, "m", weight=0.0)
        estimator.learn(cost, Usage(50, 7))
    assert estimator.spread("m") == 0.15


def test_answers_are_learned_beside_a_tokenizer_too():
    estimator = TokenEstimator(count=len, default_output=100)
    estimator.learn(estimator.estimate("hello", max_tokens=None, model="m"), Usage(5, 40))
    assert estimator.estimate("hello", max_tokens=None, model="m") == Cost(5, 40, "m", guess=True)


# The exact count


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("hello world", 2), ("😀", 1), ("\ud800", 1), ("<|endoftext|>", 7), ("<|endoftext|>" * 2, 13)],
)
def test_any_text_is_counted_as_text(text, tokens, count):
    assert count(text) == pytest.approx(tokens, abs=1)


def test_the_count_serves_an_estimator(count):
    cost = TokenEstimator(count=count).estimate(ENGLISH, max_tokens=5, model="gpt-4o")
    assert cost == Cost(count(ENGLISH), 5, "gpt-4o")


@pytest.mark.parametrize("text", [" " * 1_000_000, "^" * 1_000_000, "word " * 200_000, "你" * 300_000])
def test_a_megabyte_is_counted_in_pieces_that_add_little(text, count):
    piece = count(text[:10_000])
    assert count(text) == pytest.approx(piece * len(text) / 10_000, rel=0.01)


@given(text=st.text("aZ é你😀\n\t\x00<|>\ud800\udfff'\u200d1"))
def test_no_text_fails_to_be_counted(text, count):
    assert 0 <= count(text) <= max(1, len(text.encode("utf-8", "surrogatepass")))


@pytest.mark.usefixtures("count")
def test_an_unknown_model_is_counted_as_the_newest_known():
    assert tiktoken_counter("my-own-model")("hello world") == tiktoken_counter("gpt-4o")("hello world")
    assert tiktoken_counter("gpt-4")(CHINESE) > tiktoken_counter("gpt-4o")(CHINESE)


def test_threads_count_alike(count):
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: tiktoken_counter()(ENGLISH), range(16))) == {count(ENGLISH)}


def _recorded_loads(monkeypatch):
    """Where tiktoken would look for a vocabulary, at each load."""
    tiktoken, seen = pytest.importorskip("tiktoken"), []
    load = tiktoken.get_encoding

    def get_encoding(name):
        seen.append(os.environ.get("TIKTOKEN_CACHE_DIR"))
        return load(name)

    monkeypatch.setattr(tiktoken, "get_encoding", get_encoding)
    return seen


@pytest.mark.usefixtures("count")
def test_the_bundled_vocabulary_is_used_for_the_load_only(monkeypatch):
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    seen = _recorded_loads(monkeypatch)
    tiktoken_counter()
    assert seen[0] is not None
    assert seen[0].endswith(os.path.join("core", "_static", "tiktoken_cache"))
    assert "TIKTOKEN_CACHE_DIR" not in os.environ


@pytest.mark.usefixtures("count")
def test_the_bundled_vocabulary_is_found_without_importing_its_owner():
    code = (
        "import sys; from dispatch_core.limit.tokenizer import tiktoken_counter; "
        "print(tiktoken_counter()('hello world'), any(name.startswith('llama_index') for name in sys.modules))"
    )
    env = {
        name: value for name, value in os.environ.items() if name not in {"TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"}
    }
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    ran = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.split() == ["2", "False"]


@pytest.mark.usefixtures("count")
@pytest.mark.parametrize("name", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"])
def test_a_chosen_cache_is_left_alone(name, monkeypatch, tmp_path):
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.setenv(name, str(tmp_path))
    seen = _recorded_loads(monkeypatch)
    tiktoken_counter()
    assert seen == [os.environ.get("TIKTOKEN_CACHE_DIR")]
    assert os.environ[name] == str(tmp_path)


def test_without_tiktoken_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(MissingExtra, match=r"pip install 'ai-dispatcher\[tiktoken\]'") as missing:
        tiktoken_counter()
    assert missing.value.extra == "tiktoken"


@pytest.mark.usefixtures("count")
def test_a_load_that_fails_gives_back_variable_and_lock(monkeypatch):
    tiktoken = pytest.importorskip("tiktoken")

    def fail(name):
        raise OSError("no network")

    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(tiktoken, "get_encoding", fail)
        with pytest.raises(OSError, match="no network"):
            tiktoken_counter()
    assert "TIKTOKEN_CACHE_DIR" not in os.environ
    thread = threading.Thread(target=tiktoken_counter, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
