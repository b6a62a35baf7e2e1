"""Answers that a parser cannot read: they are not given again."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import (
    BaseOutputParser,
    BaseTransformOutputParser,
    JsonOutputParser,
    PydanticOutputParser,
)
from langchain_core.output_parsers.openai_tools import PydanticToolsParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_models import QUESTION, asked, left_nothing, model_of, streamed
from pydantic import BaseModel, ConfigDict, ValidationError

from dispatch_core import HashingEmbedder
from dispatch_core.simulate import Simulator
from langchain_dispatch import SemanticCache, SemanticRedisCache, dispatch

CITY = "Tell me of Ghent in JSON"
PROMPT = ChatPromptTemplate.from_template("{q}")


class City(BaseModel):
    """The simulated provider, told no schema, answers something else."""

    name: str


class Strict(BaseModel):
    """A number that comes as the arguments of a tool call: as an integer, which this one does not take."""

    model_config = ConfigDict(strict=True)
    size: str


@pytest.fixture(params=["dispatch", "cache of the model"])
def made(request: pytest.FixtureRequest, cache: SemanticCache) -> Any:
    def with_cache(plain: Any) -> Any:
        return (
            dispatch(plain, cache=cache) if request.param == "dispatch" else plain.model_copy(update={"cache": cache})
        )

    return with_cache


def saying(*answers: str) -> FakeListChatModel:
    return FakeListChatModel(responses=list(answers))


async def test_json_that_lacks_what_the_schema_needs_is_asked_for_again(
    made: Any, form: str, provider: Simulator, cache: SemanticCache
) -> None:
    provider.reset()
    structured = made(model_of(provider)).with_structured_output(City, method="json_mode")
    for _ in range(2):
        with pytest.raises(OutputParserException):
            await asked(structured, form, CITY)
    assert provider.stats().requests == 2
    assert cache.stats().stored == 0, "nobody else is given it either"
    assert left_nothing(cache)


async def test_with_its_raw_form_it_is_asked_for_again_too(made: Any, form: str, provider: Simulator) -> None:
    provider.reset()
    structured = made(model_of(provider)).with_structured_output(City, method="json_mode", include_raw=True)
    answers = [await asked(structured, form, CITY) for _ in range(2)]
    assert all(isinstance(answer["parsing_error"], OutputParserException) for answer in answers)
    assert provider.stats().requests == 2


async def test_what_only_the_parser_finds_wrong_is_asked_for_again(
    made: Any, form: str, provider: Simulator, cache: SemanticCache
) -> None:
    provider.reset()
    schema = {"title": "Strict", "type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}
    wrong = {"type": "function", "function": {"name": "Strict", "parameters": schema}}
    chain = made(model_of(provider)).bind_tools([wrong], tool_choice="Strict") | PydanticToolsParser(tools=[Strict])
    for _ in range(3):
        with pytest.raises(ValidationError):
            await asked(chain, form, CITY)
    assert provider.stats().requests == 3
    assert left_nothing(cache)


async def test_a_chain_that_retries_gets_another_answer(made: Any, form: str, cache: SemanticCache) -> None:
    model = made(saying("no JSON", '{"name": "Ghent"}', "never asked"))
    chain = PROMPT | model | PydanticOutputParser(pydantic_object=City)
    retrying = chain.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    for _ in range(2):
        assert await asked(retrying, form, {"q": QUESTION}) == City(name="Ghent")
    assert left_nothing(cache)


async def test_a_stored_answer_that_another_parser_cannot_read_is_replaced(made: Any, form: str) -> None:
    model = made(saying("no JSON", '{"name": "Ghent"}', "never asked"))
    assert (await asked(model, form, QUESTION)).content == "no JSON"
    chain = model | JsonOutputParser()
    with pytest.raises(OutputParserException):
        await asked(chain, form, QUESTION)
    assert await asked(chain, form, QUESTION) == {"name": "Ghent"}
    assert (await asked(model, form, QUESTION)).content == '{"name": "Ghent"}'


class Whole(BaseOutputParser[str]):
    """Takes nothing but a yes, when all of it has come."""

    def parse(self, text: str) -> str:
        if text != "yes":
            raise OutputParserException(text)
        return text


class Piecewise(BaseTransformOutputParser[str]):
    """Takes no no, in whichever piece it comes."""

    def parse(self, text: str) -> str:
        if "n" in text:
            raise OutputParserException(text)
        return text


@pytest.mark.parametrize("parser", [Whole(), Piecewise()], ids=lambda parser: type(parser).__name__)
async def test_a_stream_that_cannot_be_parsed_is_not_replayed(parser: Any, form: str, cache: SemanticCache) -> None:
    model = dispatch(saying("no", "no, again", "yes", "never asked"), cache=cache)
    for _ in range(2):
        with pytest.raises(OutputParserException):
            await streamed(model | parser, form, QUESTION)
    for _ in range(2):
        assert "".join(await streamed(model | parser, form, QUESTION)) == "yes"  # type: ignore[arg-type]
    assert left_nothing(cache)


async def test_what_is_parsed_well_is_given_again(made: Any, form: str, provider: Simulator) -> None:
    provider.reset()
    structured = made(model_of(provider)).with_structured_output(City)
    answers = [await asked(structured, form, CITY) for _ in range(2)]
    assert answers[0] == answers[1]
    assert provider.stats().requests == 1


async def test_on_a_shared_store_too(form: str, redis_like_url: str) -> None:
    cache = SemanticRedisCache(redis_like_url, embedder=HashingEmbedder())
    chain = dispatch(saying("no JSON", '{"name": "Ghent"}', "never asked"), cache=cache) | JsonOutputParser()
    with pytest.raises(OutputParserException):
        await asked(chain, form, QUESTION)
    cache.flush()
    for _ in range(2):
        assert await asked(chain, form, QUESTION) == {"name": "Ghent"}
        cache.flush()
    await cache.aclose()
