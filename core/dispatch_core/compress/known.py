"""The prompts of LangChain and LlamaIndex that put context into a message."""

from __future__ import annotations

from typing import Any

from dispatch_core.compress.frames import Frame, framed

FRAMES: tuple[Frame, ...] = tuple(
    map(
        Frame,
        (
            # LlamaIndex: text_qa, tree_summarize; refine, its chat form; the context chat engine; summary.
            "Context information is below.\n---------------------\n{context}\n---------------------\n"
            "Given the context information and not prior knowledge, answer the query.\nQuery: {query}\nAnswer:",
            "Context information from multiple sources is below.\n---------------------\n{context}\n"
            "---------------------\nGiven the information from multiple sources and not prior knowledge, "
            "answer the query.\nQuery: {query}\nAnswer:",
            "The original query is as follows: {query}\nWe have provided an existing answer: {existing_answer}\n"
            "We have the opportunity to refine the existing answer (only if needed) with some more context below.\n"
            "------------\n{context}\n------------\nGiven the new context, refine the original answer",
            "New Context: {context}\nQuery: {query}\nOriginal Answer: {existing_answer}\nNew Answer:",
            "Use the context information below to assist the user.\n--------------------\n{context}\n"
            "--------------------",
            "Try to include as many key details as possible.\n\n\n{context}\n\n\nSUMMARY:",
            # LangChain: the stuff prompts of RetrievalQA, the RAG prompt of the hub, those of the tutorials.
            "Use the following pieces of context to answer {how}\n\n{context}\n\nQuestion: {question}\n"
            "Helpful Answer:",
            "Use the following pieces of context to answer {how}\n----------------\n{context}",
            "Use the following pieces of retrieved context to answer {how}\nQuestion: {question}\n"
            "Context: {context}\nAnswer:",
            "Use the following pieces of retrieved context to answer {how}\n\n{context}\n\nQuestion: {question}",
            "Use the following pieces of retrieved context to answer {how}\n\n{context}",
            "Answer the question based only on the following context:\n{context}\n\nQuestion: {question}",
        ),
    )
)


def question_in(text: str) -> tuple[str, list[Any]]:
    """The question in a prompt that is one of `FRAMES`, and all else that the prompt says, as JSON; any other text
    is all question."""
    # All of them that have a question say this word, and most other texts do not.
    if "ontext" not in text:
        return text, []
    segments = framed(text, FRAMES) or []
    questions = [said for kind, said in segments if kind == "question"]
    if len(questions) != 1 or not questions[0].strip():
        return text, []
    return questions[0], [{"around": [[kind, "" if kind == "question" else said] for kind, said in segments]}]
