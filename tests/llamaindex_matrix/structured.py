"""Structured output and tool calls."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.program import FunctionCallingProgram, LLMTextCompletionProgram
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel

from llamaindex_matrix.bench import Bench, says, scenario

GROUP = "structured"
WHO = PromptTemplate("Who is {name}?")
MODES = (PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION)

says("Here's a JSON schema to follow", '{"name": "Ann", "age": 41}')


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ADD = FunctionTool.from_defaults(fn=add)


def _shown(given: Any) -> str:
    return str(given.model_dump_json())


def _of_mode(mode: PydanticProgramMode) -> None:
    @scenario(GROUP, f"structured_predict, {mode.value}")
    async def _predict(b: Bench) -> Any:
        return b.model(pydantic_program_mode=mode).structured_predict(Person, WHO, name="Ann")

    @scenario(GROUP, f"astructured_predict, {mode.value}")
    async def _apredict(b: Bench) -> Any:
        return await b.model(pydantic_program_mode=mode).astructured_predict(Person, WHO, name="Ann")

    @scenario(GROUP, f"stream_structured_predict, {mode.value}")
    async def _stream(b: Bench) -> Any:
        llm = b.model(pydantic_program_mode=mode)
        return _shown(list(llm.stream_structured_predict(Person, WHO, {}, name="Ann"))[-1])

    @scenario(GROUP, f"astream_structured_predict, {mode.value}")
    async def _astream(b: Bench) -> Any:
        llm = b.model(pydantic_program_mode=mode)
        partials = await llm.astream_structured_predict(Person, WHO, {}, name="Ann")
        return _shown([partial async for partial in partials][-1])


for each in MODES:
    _of_mode(each)


@scenario(GROUP, "as_structured_llm, chat")
async def _structured_chat(b: Bench) -> Any:
    return b.llm.as_structured_llm(Person).chat([ChatMessage(role="user", content="Who is Ann?")]).raw


@scenario(GROUP, "as_structured_llm, achat")
async def _structured_achat(b: Bench) -> Any:
    return (await b.llm.as_structured_llm(Person).achat([ChatMessage(role="user", content="Who is Ann?")])).raw


@scenario(GROUP, "as_structured_llm, complete")
async def _structured_complete(b: Bench) -> Any:
    return b.llm.as_structured_llm(Person).complete("Who is Ann?").text


@scenario(GROUP, "as_structured_llm, stream_chat")
async def _structured_stream(b: Bench) -> Any:
    chunks = b.llm.as_structured_llm(Person).stream_chat([ChatMessage(role="user", content="Who is Ann?")])
    return _shown(list(chunks)[-1].raw)


@scenario(GROUP, "a program of function calls")
async def _program(b: Bench) -> Any:
    program = FunctionCallingProgram.from_defaults(Person, prompt_template_str="Who is {name}?", llm=b.llm)
    return program(name="Ann")


@scenario(GROUP, "a program of text")
async def _text_program(b: Bench) -> Any:
    program = LLMTextCompletionProgram.from_defaults(
        PydanticOutputParser(Person), prompt_template_str="Who is {name}?", llm=b.llm
    )
    return program(name="Ann")


@scenario(GROUP, "predict_and_call")
async def _predict_and_call(b: Bench) -> Any:
    return b.llm.predict_and_call([ADD], "add 1 and 2", tool_required=True).sources


@scenario(GROUP, "apredict_and_call")
async def _apredict_and_call(b: Bench) -> Any:
    return (await b.llm.apredict_and_call([ADD], "add 1 and 2", tool_required=True)).sources


@scenario(GROUP, "chat_with_tools")
async def _chat_with_tools(b: Bench) -> Any:
    response = b.llm.chat_with_tools([ADD], user_msg="add 1 and 2", tool_required=True)
    return [(call.tool_name, call.tool_kwargs) for call in b.llm.get_tool_calls_from_response(response)]


@scenario(GROUP, "astream_chat_with_tools")
async def _astream_chat_with_tools(b: Bench) -> Any:
    chunks = await b.llm.astream_chat_with_tools([ADD], user_msg="add 1 and 2", tool_required=True)
    response = [chunk async for chunk in chunks][-1]
    return [(call.tool_name, call.tool_kwargs) for call in b.llm.get_tool_calls_from_response(response)]
