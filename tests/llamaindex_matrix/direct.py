"""The model itself, templates, `Settings` and the prompt helper."""

from __future__ import annotations

from typing import Any

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.prompts import PromptTemplate, RichPromptTemplate
from llamaindex_models import FORMS

from llamaindex_matrix.bench import QUESTION, TEXTS, Bench, scenario

WHAT = PromptTemplate("Context: {context_str}\nQuery: {query_str}\nAnswer: ")
GROUP = "model"


def _form(ask: Any) -> Any:
    async def run(b: Bench) -> Any:
        response = await ask(b.llm, QUESTION)
        return getattr(response, "message", None) or response.text

    return run


for ask in FORMS:
    scenario(GROUP, ask.__name__)(_form(ask))


@scenario(GROUP, "chat with a history and a system prompt")
async def _history(b: Bench) -> Any:
    turns = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hello."), ("user", QUESTION)]
    return b.llm.chat([ChatMessage(role=role, content=text) for role, text in turns])


@scenario(GROUP, "a system prompt of the model's")
async def _system_prompt(b: Bench) -> Any:
    return b.model(system_prompt="Be brief.").predict(PromptTemplate("{query_str}"), query_str=QUESTION)


@scenario(GROUP, "predict")
async def _predict(b: Bench) -> Any:
    return b.llm.predict(WHAT, context_str=TEXTS[0], query_str=QUESTION)


@scenario(GROUP, "apredict")
async def _apredict(b: Bench) -> Any:
    return await b.llm.apredict(WHAT, context_str=TEXTS[0], query_str=QUESTION)


@scenario(GROUP, "stream")
async def _stream(b: Bench) -> Any:
    return "".join(b.llm.stream(WHAT, context_str=TEXTS[0], query_str=QUESTION))


@scenario(GROUP, "astream")
async def _astream(b: Bench) -> Any:
    tokens = await b.llm.astream(WHAT, context_str=TEXTS[0], query_str=QUESTION)
    return "".join([token async for token in tokens])


@scenario(GROUP, "a rich template")
async def _rich(b: Bench) -> Any:
    template = RichPromptTemplate("{% chat role='user' %}{{ context }}: {{ query_str }}{% endchat %}")
    return b.llm.predict(template, context=TEXTS[0], query_str=QUESTION)


@scenario(GROUP, "Settings.llm")
async def _settings(b: Bench) -> Any:
    Settings.llm = b.llm
    return VectorStoreIndex(b.nodes).as_query_engine(similarity_top_k=1).query(QUESTION)


@scenario(GROUP, "PromptHelper", calls=False)
async def _prompt_helper(b: Bench) -> Any:
    helper = PromptHelper.from_llm_metadata(b.llm.metadata)
    return helper.repack(WHAT, [text * 400 for text in TEXTS], llm=b.llm)


@scenario(GROUP, "the tokenizer and the context window", calls=False)
async def _metadata(b: Bench) -> Any:
    return b.llm.metadata
