"""The simulated provider's embeddings over real HTTP, as OpenAI's client sees them."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from fakes import in_another_process
from small_book import written_to

from dispatch_core.simulate import Simulator, SimulatorConfig, count

SMALL = "text-embedding-3-small"
FRANCE = ["What is the capital of France?", "which city is France's  capital?"]
ITALY = "What is the capital of Italy?"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    questions: Path
    questions, answers = written_to(tmp_path_factory.mktemp("simulator"))
    with Simulator(SimulatorConfig(groups=questions, answers=answers, latency=0.0)) as running:
        yield running


@pytest.fixture
def client(simulator: Simulator) -> Iterator[openai.OpenAI]:
    simulator.reset()
    with openai.OpenAI(base_url=simulator.url, api_key="any", max_retries=0) as made:
        yield made


def rows(client: openai.OpenAI, given: Any, **options: Any) -> np.ndarray:
    done = client.embeddings.create(**{"model": SMALL, "input": given, **options})
    return np.array([one.embedding for one in done.data])


@pytest.mark.parametrize(("model", "size"), [(SMALL, 1536), ("text-embedding-3-large", 3072), ("other", 1536)])
def test_every_text_gets_a_unit_vector_of_the_model(client: openai.OpenAI, model: str, size: int) -> None:
    done = client.embeddings.create(model=model, input=["one", "two"])
    assert (done.object, done.model) == ("list", model)
    assert [(one.object, one.index, len(one.embedding)) for one in done.data] == [
        ("embedding", 0, size),
        ("embedding", 1, size),
    ]
    assert np.linalg.norm([one.embedding for one in done.data], axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_the_tokens_are_counted_and_charged(client: openai.OpenAI, simulator: Simulator) -> None:
    done = client.embeddings.create(model=SMALL, input=["How are you?", "Fine."])
    tokens = count("How are you?") + count("Fine.")
    assert (done.usage.prompt_tokens, done.usage.total_tokens) == (tokens, tokens)
    stats = simulator.stats()
    assert (stats.requests, stats.admitted, stats.prompt_tokens, stats.completion_tokens) == (1, 1, tokens, 0)


def test_both_encodings_carry_the_same_numbers(client: openai.OpenAI) -> None:
    plain = rows(client, "one", encoding_format="float")
    assert np.allclose(plain, rows(client, "one"), atol=1e-7)


def test_texts_of_one_meaning_lie_close_whatever_their_words(client: openai.OpenAI) -> None:
    one, same, other = rows(client, [*FRANCE, ITALY])
    assert one @ same > 0.8
    assert one @ other < 0.5


def test_texts_that_nobody_listed_lie_as_close_as_their_words(client: openai.OpenAI) -> None:
    one, near, far = rows(client, ["reset my password", "how to reset a password", "boil an egg"])
    assert one @ near > one @ far + 0.2


def test_a_shorter_vector_is_the_beginning_of_the_whole_one(client: openai.OpenAI) -> None:
    [whole], [short] = rows(client, "one"), rows(client, "one", dimensions=256)
    assert short.shape == (256,)
    assert np.allclose(short, whole[:256] / np.linalg.norm(whole[:256]), atol=1e-6)


def test_models_have_spaces_of_their_own(client: openai.OpenAI) -> None:
    [small], [other] = rows(client, "one"), rows(client, "one", model="other")
    assert abs(small @ other) < 0.2


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2, 3]]], ids=["one array", "arrays"])
def test_tokens_may_be_sent_instead_of_texts(client: openai.OpenAI, tokens: Any) -> None:
    done = client.embeddings.create(model=SMALL, input=tokens)
    assert (len(done.data), done.usage.prompt_tokens) == (1, 3)
    assert np.array_equal(rows(client, tokens), rows(client, [[1, 2, 3]]))


def test_a_batch_answers_as_each_text_alone(client: openai.OpenAI) -> None:
    texts = ["one", ITALY, "three"]
    assert np.allclose(rows(client, texts), [rows(client, text)[0] for text in texts], atol=1e-6)


def test_another_process_gives_the_same_vector(client: openai.OpenAI) -> None:
    code = """
from dispatch_core.simulate import AnswerBook
from dispatch_core.simulate.embeddings import parse_embedding, vectors
asked = parse_embedding(b'{"model": "text-embedding-3-small", "input": "one"}')
print(*vectors(asked, AnswerBook({}, {}))[0, :3])
"""
    [row] = rows(client, "one")
    assert np.array(in_another_process(code).split(), dtype=float) == pytest.approx(row[:3], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": ""}, "no empty string"),
        ({"input": ["one", ""]}, "no empty string"),
        ({"input": []}, "at least one element"),
        ({"input": [[]]}, "no empty string or array"),
        ({"input": ["one", [1]]}, "strings only, or arrays of tokens only"),
        ({"input": [[1, "one"]]}, "tokens"),
        ({"input": 7}, "a string, or an array"),
        ({"input": None}, "Missing required parameter: 'input'"),
        ({"input": ["a"] * 2049}, "maximum length 2048"),
        ({"input": "a " * 8193}, "maximum context length is 8192 tokens, however you requested 8193"),
        ({"input": [[1] * 8193]}, "8193"),
        ({"input": [[1] * 8000] * 38}, "Requested 304000 tokens, max 300000"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "dimensions": 1537}, "from 1 to 1536"),
        ({"input": "a", "dimensions": 0}, "from 1 to 1536"),
        ({"input": "a", "model": "text-embedding-ada-002", "dimensions": 256}, "does not support specifying"),
        ({"input": "a", "model": ""}, "you must provide a model"),
    ],
)
def test_what_the_api_refuses_is_refused(
    client: openai.OpenAI, simulator: Simulator, options: Any, message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        client.embeddings.create(**{"model": SMALL, **options})
    assert simulator.stats().admitted == 0


def test_the_largest_request_is_answered(client: openai.OpenAI) -> None:
    done = client.embeddings.create(model=SMALL, input=["a"] * 2048, dimensions=4)
    assert [one.index for one in done.data] == list(range(2048))
    assert client.embeddings.create(model=SMALL, input=[[7] * 8192], dimensions=4).usage.prompt_tokens == 8192


def test_the_quota_is_that_of_chats_and_so_is_its_refusal() -> None:
    with (
        Simulator(SimulatorConfig(latency=0.0, tpm=10, window=3600.0)) as running,
        openai.OpenAI(base_url=running.url, api_key="any", max_retries=0) as client,
    ):
        create = client.embeddings.with_raw_response.create
        assert create(model=SMALL, input=[[1] * 400]).headers["x-ratelimit-remaining-tokens"] == "200"
        with pytest.raises(openai.RateLimitError) as caught:
            create(model=SMALL, input=[[1] * 300])
        assert caught.value.code == "rate_limit_exceeded"
        assert int(caught.value.response.headers["retry-after-ms"]) > 0
        with pytest.raises(openai.RateLimitError, match="Limit 600, Used 400"):
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], max_tokens=300)
        assert running.stats().rejected_429 == 2


def test_a_key_is_needed_where_it_is_needed() -> None:
    with Simulator(SimulatorConfig(latency=0.0, require_key=True)) as running:
        asked = urllib.request.Request(f"{running.url}/embeddings", data=b'{"model": "m", "input": "one"}')
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(asked)
        refused.value.close()


def test_the_time_it_takes_is_always_the_same_and_grows_with_the_tokens() -> None:
    from dispatch_core.simulate.text import draw_embedding_time

    def took(prompt: str, tokens: int = 5, **options: Any) -> float:
        return draw_embedding_time(prompt, tokens, **{"seed": 0, "scale": 1.0, **options})

    assert took("one") == took("one") > 0
    assert took("one", scale=2.0) == pytest.approx(2 * took("one"))
    assert took("one", scale=0.0) == 0
    assert took("one", 100_000) == pytest.approx(took("one", 0) + 1.0)
    assert len({took(str(number)) for number in range(9)}) == 9
