"""The simulated provider over real HTTP: completions of plain text, as OpenAI's client sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from small_book import PARIS, written_to

from dispatch_core.simulate import Simulator, SimulatorConfig, count

CAPITAL = "What is the capital of France?"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    groups, answers = written_to(tmp_path_factory.mktemp("simulator"))
    with Simulator(SimulatorConfig(groups=groups, answers=answers, latency=0.0)) as running:
        yield running


@pytest.fixture
def client(shared: Simulator) -> Iterator[openai.OpenAI]:
    assert shared.wait_idle(30)
    shared.reset()
    with openai.OpenAI(base_url=shared.url, api_key="any", max_retries=0) as made:
        yield made


@pytest.mark.parametrize("prompt", [CAPITAL, [CAPITAL]])
def test_a_completion_has_the_answer_and_the_usage(client: openai.OpenAI, prompt: Any) -> None:
    done = client.completions.create(model="m", prompt=prompt, n=2)
    assert [(one.index, one.text, one.finish_reason) for one in done.choices] == [(i, PARIS, "stop") for i in (0, 1)]
    assert (done.object, done.id.startswith("cmpl-")) == ("text_completion", True)
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (count(CAPITAL), 2 * count(PARIS))


def test_tokens_are_a_prompt_and_a_completion_is_short_unless_more_is_asked_for(client: openai.OpenAI) -> None:
    done = client.completions.create(model="m", prompt=[[1, 2, 3]])
    assert (done.choices[0].finish_reason, done.usage and done.usage.completion_tokens) == ("length", 16)
    longer = client.completions.create(model="m", prompt=[1, 2, 3], max_tokens=1000)
    assert longer.choices[0].finish_reason == "stop"
    assert longer.choices[0].text.startswith(done.choices[0].text)


def test_a_stream_carries_the_same_answer_in_pieces(client: openai.OpenAI) -> None:
    options: Any = {"stream_options": {"include_usage": True}}
    *chunks, last = client.completions.create(model="m", prompt=CAPITAL, stream=True, **options)
    assert "".join(chunk.choices[0].text for chunk in chunks) == PARIS
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.completion_tokens == count(PARIS)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ["one", "two"]}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": "Hi", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "Hi", "n": 0}, "n"),
        ({"prompt": "Hi", "stream": "yes"}, "stream"),
    ],
)
def test_a_request_that_makes_no_sense_is_a_400_naming_the_parameter(
    client: openai.OpenAI, body: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/completions", body={"model": "m", **body}, cast_to=object)
    assert caught.value.param == param
