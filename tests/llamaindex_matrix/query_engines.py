"""The query engines, and the transforms, selectors and rerankers in front of them."""

from __future__ import annotations

from typing import Any

from llama_index.core import SummaryIndex
from llama_index.core.evaluation import GuidelineEvaluator, RelevancyEvaluator
from llama_index.core.indices.query.query_transform import (
    DecomposeQueryTransform,
    HyDEQueryTransform,
    StepDecomposeQueryTransform,
)
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.query_engine import (
    CitationQueryEngine,
    FLAREInstructQueryEngine,
    MultiStepQueryEngine,
    RetryGuidelineQueryEngine,
    RetryQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
    TransformQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.selectors import LLMMultiSelector, LLMSingleSelector, PydanticSingleSelector
from llama_index.core.tools import QueryEngineTool

from llamaindex_matrix.bench import QUESTION, Bench, says, scenario

GROUP = "query engine"

says("Some choices are given below.*(?:top choices|ANSWER FORMAT|choice)", '[{"choice": 1, "reason": "it fits"}]')
says(
    "generate a list of relevant sub-questions|<Tools>",
    '```json\n{"items": [{"sub_question": "Where do bikes go?", "tool_name": "handbook"},'
    ' {"sub_question": "When does Ghent open?", "tool_name": "handbook"}]}\n```',
)
says("A list of documents is shown below", "Doc: 2, Relevance: 9\nDoc: 1, Relevance: 3")
says("Your task is to evaluate if the response for the query", "NO, it is not.")
says("guidelines", '{"passing": false, "feedback": "It is long."}')
says("generate search queries|multiple search queries", "returning a bike\nwhere to leave a rental")


def _engine(b: Bench, **settings: Any) -> Any:
    return b.index.as_query_engine(llm=b.llm, **{"similarity_top_k": 1, **settings})


def _tool(b: Bench) -> QueryEngineTool:
    return QueryEngineTool.from_defaults(_engine(b), name="handbook", description="The handbook of the shop.")


@scenario(GROUP, "retriever")
async def _retriever(b: Bench) -> Any:
    return _engine(b).query(QUESTION)


@scenario(GROUP, "retriever, async")
async def _aretriever(b: Bench) -> Any:
    return await _engine(b).aquery(QUESTION)


@scenario(GROUP, "retriever, streamed")
async def _streamed(b: Bench) -> Any:
    return _engine(b, streaming=True).query(QUESTION).get_response()


@scenario(GROUP, "retriever, streamed and awaited")
async def _astreamed(b: Bench) -> Any:
    response = await b.index.as_query_engine(llm=b.llm, streaming=True, similarity_top_k=1).aquery(QUESTION)
    return "".join([token async for token in response.async_response_gen()])


@scenario(GROUP, "summary index")
async def _summary(b: Bench) -> Any:
    return SummaryIndex(b.nodes).as_query_engine(llm=b.llm).query(QUESTION)


@scenario(GROUP, "router, one choice")
async def _router(b: Bench) -> Any:
    llm, tools = b.llm, [_tool(b), _tool(b)]
    return RouterQueryEngine.from_defaults(tools, llm=llm, selector=LLMSingleSelector.from_defaults(llm)).query(
        QUESTION
    )


@scenario(GROUP, "router, several choices")
async def _router_many(b: Bench) -> Any:
    llm, tools = b.llm, [_tool(b), _tool(b)]
    selector = LLMMultiSelector.from_defaults(llm)
    return await RouterQueryEngine.from_defaults(tools, llm=llm, selector=selector).aquery(QUESTION)


@scenario(GROUP, "selector of function calls")
async def _pydantic_selector(b: Bench) -> Any:
    selector = PydanticSingleSelector.from_defaults(llm=b.llm)
    return selector.select(["The handbook.", "The price list."], QUESTION).selections


@scenario(GROUP, "sub-questions")
async def _sub_questions(b: Bench) -> Any:
    llm = b.llm
    generator = LLMQuestionGenerator.from_defaults(llm)
    engine = SubQuestionQueryEngine.from_defaults(
        [_tool(b)], llm=llm, question_gen=generator, verbose=False, use_async=False
    )
    return engine.query("Where do bikes go, and when does Ghent open?")


@scenario(GROUP, "citations")
async def _citations(b: Bench) -> Any:
    return CitationQueryEngine.from_args(b.index, llm=b.llm, similarity_top_k=2).query(QUESTION)


@scenario(GROUP, "step by step")
async def _steps(b: Bench) -> Any:
    llm = b.llm
    transform = StepDecomposeQueryTransform(llm, verbose=False)
    return MultiStepQueryEngine(_engine(b), transform, index_summary="The handbook", num_steps=1).query(QUESTION)


@scenario(GROUP, "retry")
async def _retry(b: Bench) -> Any:
    engine = _engine(b)
    return RetryQueryEngine(engine, RelevancyEvaluator(llm=b.llm), max_retries=1).query(QUESTION)


@scenario(GROUP, "retry by guidelines")
async def _guided(b: Bench) -> Any:
    evaluator = GuidelineEvaluator(llm=b.llm, guidelines="Be brief.")
    return RetryGuidelineQueryEngine(_engine(b), evaluator, max_retries=1, resynthesize_query=False).query(QUESTION)


@scenario(GROUP, "transform, a hypothetical document")
async def _hyde(b: Bench) -> Any:
    return TransformQueryEngine(_engine(b), HyDEQueryTransform(llm=b.llm)).query(QUESTION)


@scenario(GROUP, "transform, decomposed")
async def _decomposed(b: Bench) -> Any:
    transform = DecomposeQueryTransform(b.llm)
    engine = TransformQueryEngine(_engine(b), transform, transform_metadata={"index_summary": "The handbook"})
    return engine.query(QUESTION)


@scenario(GROUP, "FLARE")
async def _flare(b: Bench) -> Any:
    return FLAREInstructQueryEngine(_engine(b), llm=b.llm, max_iterations=2).query(QUESTION)


@scenario(GROUP, "reranked by the model")
async def _reranked(b: Bench) -> Any:
    rerank = LLMRerank(llm=b.llm, top_n=1)
    return _engine(b, similarity_top_k=3, node_postprocessors=[rerank]).query(QUESTION)


@scenario(GROUP, "fusion of several searches")
async def _fusion(b: Bench) -> Any:
    fusion = QueryFusionRetriever(
        [b.index.as_retriever(similarity_top_k=1)], llm=b.llm, num_queries=3, use_async=False, similarity_top_k=2
    )
    return [found.node.get_content() for found in fusion.retrieve(QUESTION)]
