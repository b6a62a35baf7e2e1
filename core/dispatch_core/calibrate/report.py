"""The report as text for a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from textwrap import fill
from typing import Any

from dispatch_core.calibrate.calibration import Report
from dispatch_core.calibrate.choose import CONFIDENCE, Choice, Figures, Recommendation, Verdict, hits_needed

_WIDTH = 96
_SORTED = 0.5
"""Share of questions with the answer of the question before from which a file looks sorted."""
_WORDED_ANEW = 0.9
"""Different answers per question from which hardly any two answers will be the same by text."""
_COLUMNS = (7, 20, 8)
_HEADS = ("hits %", "wrong % of hits", "of all")


def as_text(report: Report) -> str:
    """What a person reads."""
    return "\n\n".join([_about(report), _table(report), _recommended(report)])


def _about(report: Report) -> str:
    source = report.source
    columns = ", ".join(source.columns)
    if report.pairwise:
        what = f"{report.asked:,} labelled pairs of {report.questions:,} questions, judged pair by pair"
    else:
        what = f"{report.asked:,} questions ({report.questions:,} different), {report.answers:,} different answers"
    lines = [f"{source.name}: {what}", f"columns: {columns}; embedded with {report.embedder}"]
    if report.same_cosine is not None:
        lines.append(
            f"answers are the same by text, or from a cosine of {report.same_cosine:g} on with the same numbers"
        )
    if source.skipped:
        reasons = [
            f"{number:,} × {why} (first in line {source.first[why]})" for why, number in source.skipped.items()
        ]
        lines.append(f"skipped {sum(source.skipped.values()):,} of {source.rows:,} rows: {'; '.join(reasons)}")
    if source.more:
        lines.append(f"only the first {source.rows:,} rows were read; --limit reads more")
    if report.exact_only:
        reasons = [f"{number:,} × {why}" for why, number in report.exact_only.items()]
        lines.append(f"never compared by meaning: {', '.join(reasons)}")
    if not report.pairwise:
        exact = report.exact
        wrong = f", {_percent(exact.per_hit)} of these with another answer" if exact.hits else ""
        lines.append(f"exact matching alone answers {_percent(exact.hit_rate)} of the questions{wrong}")
    return "\n".join([lines[0], *(_paragraph(line) for line in lines[1:] + _warnings(report))])


def _warnings(report: Report) -> list[str]:
    warnings = []
    if report.runs > _SORTED and report.answers > 1:
        warnings.append(
            f"CAREFUL: {_percent(report.runs)} of the questions have the answer of the question before them. If the "
            "file is sorted by answers, it is no order of asking: use --shuffle"
        )
    if report.same_cosine is None and report.answers > _WORDED_ANEW * report.questions and not report.pairwise:
        warnings.append(
            "CAREFUL: nearly every question has an answer of its own wording, and nearly every hit counts as wrong; "
            "--same-answer cosine sees through wording"
        )
    if report.answers == 1:
        warnings.append("CAREFUL: all questions have the same answer, so no hit can be wrong")
    if report.contradictions:
        warnings.append(
            f"{report.contradictions:,} pairs are labelled different, but a chain of duplicates joins them"
        )
    if report.embedder.startswith("hashing-"):
        warnings.append("CAREFUL: the hashing embedder is for tests; these figures say nothing about a real one")
    return warnings


def _table(report: Report) -> str:
    lines = [
        "What each policy answers from similar questions, at its loosest setting with so few wrong answers",
        "",
        f"{'':<24}{'chosen on all':^35}  {'chosen on a half, seen on the other':^35}".rstrip(),
        f"{'wrong hits':<24}{_cells(_HEADS)}  {_cells(_HEADS)}",
    ]
    for target, choices in groupby(report.choices, lambda choice: choice.target):
        lines += [
            _row(f"≤ {100 * target:g} %" if number == 0 else "", choice) for number, choice in enumerate(choices)
        ]
    of = "pairs" if report.pairwise else "questions"
    lines += [
        "",
        f"hits: {of} that the policy answers with what was stored for another, in % of all",
        "wrong: hits with another answer than the file has, in % of the hits (95 % interval), and of all",
    ]
    return "\n".join(lines)


def _row(target: str, choice: Choice) -> str:
    if choice.trial is None:
        return f"{target:<8}{choice.family.title:<16}   no setting is good enough"
    name = f"{choice.family.title} {choice.trial.setting:g}"
    return f"{target:<8}{name:<16}{_figures(choice.trial.all)}  {_figures(choice.held_out)}"


def _figures(figures: Figures) -> str:
    if not figures.hits:
        return _cells(("0.0", "–", "–"))
    low, high = (100 * bound for bound in figures.interval)
    per_hit = f"{100 * figures.per_hit:.2f} ({low:.2f}–{high:.2f})"
    return _cells((f"{100 * figures.hit_rate:.1f}", per_hit, f"{100 * figures.per_request:.2f}"))


def _cells(cells: tuple[str, ...]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, _COLUMNS, strict=True))


def _recommended(report: Report) -> str:
    found = report.recommendation
    head = f"Recommended for at most {100 * found.max_error:g} % wrong answers among the hits"
    if found.verdict is Verdict.RECOMMENDED:
        return "\n".join([head, "", f"    {paste(found)}", "", *_promise(report)])
    closest = ""
    if found.trial is not None:
        whole = found.trial.all
        closest = (
            f" Closest came {found.trial.code}: {whole.wrong:,} wrong of {whole.hits:,} hits, "
            f"interval up to {_percent(whole.interval[1])}."
        )
    why = f"Exact matching: {found.verdict}.{closest}"
    if found.verdict is Verdict.TOO_FEW_HITS:
        needed = hits_needed(found.max_error)
        why += (
            f" Each half of the questions has to show it alone, which takes {needed:,} hits in all or more, and few "
            "of them wrong: a longer log, or a larger --max-error."
        )
    return "\n".join([head, "", f"    {paste(found)}", "", _paragraph(why)])


def paste(found: Recommendation) -> str:
    """The line to paste. Without an embedder a cache matches exactly."""
    if found.verdict is Verdict.RECOMMENDED and found.trial is not None:
        return f"SemanticCache(..., policy={found.trial.code})"
    return "SemanticCache(None, ...)  # exact matching"


def _promise(report: Report) -> list[str]:
    found = report.recommendation
    assert found.trial is not None
    assert found.tested is not None
    whole, tested = found.trial.all, found.tested
    low, high = tested.interval
    answered = f"It answers {_percent(whole.hit_rate)} of the questions"
    if found.trial.exact:
        answered += f", {_percent((whole.hits + found.trial.exact) / whole.asked)} together with exact matching"
    if report.pairwise:
        answered = f"It joins {_percent(whole.hit_rate)} of the pairs, which is no hit rate: pairs were picked"
    return [
        _paragraph(
            f"{answered}. Tested on questions that did not choose it: {tested.wrong:,} wrong of {tested.hits:,} "
            f"hits, {_percent(tested.per_hit, 2)} ({_percent(low, 2)} to {_percent(high, 2)})."
        ),
        _paragraph(
            f"The promise: with {100 * CONFIDENCE:g} % confidence at most {100 * found.max_error:g} % of its hits "
            "are wrong, as long as questions come as they do in this file and about as many, its answers are right, "
            f"and the embedder stays {report.embedder}."
        ),
    ]


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _paragraph(text: str) -> str:
    return fill(
        text, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def as_data(report: Report) -> Mapping[str, Any]:
    """The same for programs: shares from 0 to 1, counts, and every setting tried."""
    found, source = report.recommendation, report.source
    return {
        "source": {
            "name": source.name,
            "columns": list(source.columns),
            "rows": source.rows,
            "skipped": dict(source.skipped),
            "more": source.more,
        },
        "embedder": report.embedder,
        "pairwise": report.pairwise,
        "asked": report.asked,
        "questions": report.questions,
        "answers": report.answers,
        "exact": _counts(report.exact),
        "exact_only": dict(report.exact_only),
        "runs": report.runs,
        "contradictions": report.contradictions,
        "same_cosine": report.same_cosine,
        "settings": [
            {"policy": trial.code, "exact_hits": trial.exact, **_counts(trial.all)} for trial in report.trials
        ],
        "choices": [
            {
                "max_error": choice.target,
                "family": choice.family.title,
                "policy": choice.trial.code if choice.trial else None,
                "chosen_on_all": _counts(choice.trial.all) if choice.trial else None,
                "held_out": _counts(choice.held_out),
            }
            for choice in report.choices
        ],
        "recommendation": {
            "verdict": found.verdict.value,
            "max_error": found.max_error,
            "confidence": CONFIDENCE,
            "policy": found.trial.code if found.trial and found.verdict is Verdict.RECOMMENDED else None,
            "paste": paste(found),
            "tested": _counts(found.tested) if found.tested else None,
        },
    }


def _counts(figures: Figures) -> Mapping[str, Any]:
    low, high = figures.interval
    return {
        "asked": figures.asked,
        "hits": figures.hits,
        "wrong": figures.wrong,
        "hit_rate": figures.hit_rate,
        "error_per_hit": figures.per_hit,
        "interval": [low, high],
        "error_per_request": figures.per_request,
    }
