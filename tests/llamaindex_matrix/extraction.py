"""Extractors of metadata, the ingestion pipeline and its cache, indices that are built with a model."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from llama_index.core import (
    Document,
    DocumentSummaryIndex,
    KeywordTableIndex,
    PropertyGraphIndex,
    TreeIndex,
    get_response_synthesizer,
)
from llama_index.core.extractors import (
    DocumentContextExtractor,
    KeywordExtractor,
    PydanticProgramExtractor,
    QuestionsAnsweredExtractor,
    SummaryExtractor,
    TitleExtractor,
)
from llama_index.core.indices.property_graph import (
    DynamicLLMPathExtractor,
    SchemaLLMPathExtractor,
    SimpleLLMPathExtractor,
)
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.storage.docstore import SimpleDocumentStore
from pydantic import BaseModel

from llamaindex_matrix.bench import QUESTION, TEXTS, Bench, says, scenario

GROUP = "extraction"

says("extract up to .* knowledge triplets", "(Bike, is returned at, Shop)\n(Shop, has, Rail)")


class Topic(BaseModel):
    """What a text is about."""

    subject: str


def _metadata(found: Any) -> Any:
    return [dict(sorted(one.metadata.items())) if hasattr(one, "metadata") else one for one in found]


async def _extracted(extractor: Any, b: Bench) -> Any:
    return _metadata(await extractor.acall(b.nodes))


@scenario(GROUP, "titles")
async def _titles(b: Bench) -> Any:
    return await _extracted(TitleExtractor(llm=b.llm, nodes=2, show_progress=False), b)


@scenario(GROUP, "keywords")
async def _keywords(b: Bench) -> Any:
    return await _extracted(KeywordExtractor(llm=b.llm, show_progress=False), b)


@scenario(GROUP, "questions that are answered")
async def _questions(b: Bench) -> Any:
    return await _extracted(QuestionsAnsweredExtractor(llm=b.llm, questions=2, show_progress=False), b)


@scenario(GROUP, "summaries")
async def _summaries(b: Bench) -> Any:
    return await _extracted(SummaryExtractor(llm=b.llm, show_progress=False), b)


@scenario(GROUP, "a pydantic program")
async def _program(b: Bench) -> Any:
    program = FunctionCallingProgram.from_defaults(Topic, prompt_template_str="{input}", llm=b.llm)
    return await _extracted(PydanticProgramExtractor(program=program, show_progress=False), b)


@scenario(GROUP, "the context within a document")
async def _context(b: Bench) -> Any:
    store = SimpleDocumentStore()
    store.add_documents([Document(text=" ".join(TEXTS), id_="handbook")])
    extractor = DocumentContextExtractor(docstore=store, llm=b.llm, show_progress=False)
    return _metadata(await extractor.acall(b.nodes))


@scenario(GROUP, "paths by a schema")
async def _schema(b: Bench) -> Any:
    kinds, relations = Literal["BIKE", "SHOP"], Literal["RETURNED_AT", "OPENS_AT"]
    extractor = SchemaLLMPathExtractor(
        llm=b.llm, possible_entities=kinds, possible_relations=relations, strict=False, num_workers=1
    )
    return [str(node.metadata) for node in await extractor.acall(b.nodes)]


@scenario(GROUP, "paths, simple")
async def _simple(b: Bench) -> Any:
    extractor = SimpleLLMPathExtractor(llm=b.llm, num_workers=1)
    return [str(node.metadata) for node in await extractor.acall(b.nodes)]


@scenario(GROUP, "paths, dynamic")
async def _dynamic(b: Bench) -> Any:
    extractor = DynamicLLMPathExtractor(llm=b.llm, num_workers=1)
    return [str(node.metadata) for node in await extractor.acall(b.nodes)]


@scenario(GROUP, "an ingestion pipeline")
async def _pipeline(b: Bench) -> Any:
    extractor = KeywordExtractor(llm=b.llm, show_progress=False)
    pipeline = IngestionPipeline(transformations=[SentenceSplitter(), extractor], disable_cache=True)
    return _metadata(await pipeline.arun(nodes=b.nodes))


@scenario(GROUP, "the cache of an ingestion pipeline")
async def _pipeline_cache(b: Bench) -> Any:
    """Its key is made of the extractor's ``to_dict``, and so of the model's: the second run asks nothing."""
    cache = IngestionCache()
    runs = []
    for _ in range(2):
        extractor = KeywordExtractor(llm=b.llm, show_progress=False)
        runs.append(_metadata(IngestionPipeline(transformations=[extractor], cache=cache).run(nodes=b.nodes)))
    one, other = (KeywordExtractor(llm=b.model(temperature=heat), show_progress=False) for heat in (0.1, 0.9))
    differ = get_transformation_hash(b.nodes, one) != get_transformation_hash(b.nodes, other)
    return runs[0], runs[0] == runs[1], differ


@scenario(GROUP, "a tree index")
async def _tree(b: Bench) -> Any:
    llm = b.llm
    return TreeIndex(b.nodes, llm=llm, num_children=2).as_query_engine(llm=llm, retriever_mode="root").query(QUESTION)


@scenario(GROUP, "a keyword table")
async def _table(b: Bench) -> Any:
    llm = b.llm
    return sorted(KeywordTableIndex(b.nodes, llm=llm).index_struct.table)


@scenario(GROUP, "an index of summaries")
async def _summary_index(b: Bench) -> Any:
    llm = b.llm
    synthesizer = get_response_synthesizer(response_mode=ResponseMode.TREE_SUMMARIZE, llm=llm)
    index = DocumentSummaryIndex(
        b.nodes, llm=llm, response_synthesizer=synthesizer, embed_model=b.embed, show_progress=False
    )
    return sorted(str(index.get_document_summary(id_)) for id_ in index.index_struct.doc_id_to_summary_id)


@scenario(GROUP, "a property graph")
async def _graph(b: Bench) -> Any:
    extractor = SimpleLLMPathExtractor(llm=b.llm, num_workers=1)

    def built() -> PropertyGraphIndex:
        return PropertyGraphIndex(b.nodes, llm=b.llm, kg_extractors=[extractor], embed_model=b.embed)

    # It starts a loop of its own.
    index = await asyncio.to_thread(built)
    return sorted(str(one) for one in index.property_graph_store.get_triplets(entity_names=["Bike", "Shop"]))
