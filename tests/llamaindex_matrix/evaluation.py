"""The evaluators, one by one and in a batch."""

from __future__ import annotations

from typing import Any

from llama_index.core.evaluation import (
    AnswerRelevancyEvaluator,
    BatchEvalRunner,
    ContextRelevancyEvaluator,
    CorrectnessEvaluator,
    FaithfulnessEvaluator,
    GuidelineEvaluator,
    PairwiseComparisonEvaluator,
    RelevancyEvaluator,
)

from llamaindex_matrix.bench import QUESTION, TEXTS, Bench, says, scenario

GROUP = "evaluation"
ANSWER = "At any Lumen shop."

says("Your task is to evaluate if the response is relevant to the query", "It is.\n[RESULT] 2")
says("Your task is to evaluate if the retrieved context", "It is.\n[RESULT] 4")
says("Reference Answer", "4.0\nIt is nearly the same.")
says("tell if a given piece of information", "YES")
says("\\[\\[A\\]\\]|Assistant A", "A is better. [[A]]")


def _of_evaluator(name: str, made: Any) -> None:
    @scenario(GROUP, name)
    async def _evaluate(b: Bench) -> Any:
        found = await made(b.llm).aevaluate(
            query=QUESTION, response=ANSWER, contexts=list(TEXTS), reference="At the shops."
        )
        return found.score, found.passing, found.feedback


EVALUATORS = {
    "faithfulness": lambda llm: FaithfulnessEvaluator(llm=llm),
    "relevancy": lambda llm: RelevancyEvaluator(llm=llm),
    "correctness": lambda llm: CorrectnessEvaluator(llm=llm),
    "relevancy of the answer": lambda llm: AnswerRelevancyEvaluator(llm=llm),
    "relevancy of the context": lambda llm: ContextRelevancyEvaluator(llm=llm),
    "guidelines": lambda llm: GuidelineEvaluator(llm=llm, guidelines="Be brief."),
}

for evaluator_name, evaluator_made in EVALUATORS.items():
    _of_evaluator(evaluator_name, evaluator_made)


@scenario(GROUP, "a comparison of two")
async def _pairwise(b: Bench) -> Any:
    evaluator = PairwiseComparisonEvaluator(llm=b.llm, enforce_consensus=False)
    found = await evaluator.aevaluate(query=QUESTION, response=ANSWER, second_response="Nowhere.")
    return found.score, found.feedback


@scenario(GROUP, "a batch")
async def _batch(b: Bench) -> Any:
    runner = BatchEvalRunner({"relevancy": RelevancyEvaluator(llm=b.llm)}, workers=1)
    found = await runner.aevaluate_response_strs([QUESTION], [ANSWER], [list(TEXTS)])
    return [one.feedback for one in found["relevancy"]]
