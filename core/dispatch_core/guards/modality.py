"""English: may I, should I, must I are three questions."""

from __future__ import annotations

from functools import lru_cache

from dispatch_core.guards.phrases import said, tokens
from dispatch_core.guards.reading import english
from dispatch_core.guards.words import word_set

_CAN, _SHOULD, _MUST, _MIGHT = "can", "should", "must", "might"
_MODALS = {
    "can": {_CAN}, "could": {_CAN, _MIGHT}, "may": {_CAN, _MIGHT}, "possible": {_CAN}, "allowed": {_CAN},
    "permitted": {_CAN}, "might": {_MIGHT}, "should": {_SHOULD}, "ought": {_SHOULD}, "advisable": {_SHOULD},
    "recommended": {_SHOULD}, "must": {_MUST}, "required": {_MUST}, "mandatory": {_MUST}, "obligatory": {_MUST},
    "compulsory": {_MUST}, "obliged": {_MUST}, "necessary": {_MUST},
}  # fmt: skip
_TO_BE_DONE = word_set("have has had having need needs needed got")
_SAYING = {*_MODALS, *_TO_BE_DONE}
# Behind "can you", "could someone" these ask the reader for an answer, not for a permission.
_ASKED_OF = word_set("you u we someone somebody anyone anybody")
_FAVOURS = word_set("""
    tell help explain show say advise give send assist clarify describe let guide share provide suggest recommend
    please know ask list walk check find point teach confirm clear elaborate kindly i
    """)
# A way, a place or a person to turn to is the same, whether one can, should or must go there.
_INDIFFERENT = word_set("how where who whom")


def _polite(words: list[str], at: int) -> bool:
    after = [w for w in words[at + 1 : at + 5] if w != "please"]
    asked_of = after[:1] and after[0] in _ASKED_OF and any(w in _FAVOURS for w in after[1:2])
    return bool(asked_of) or after[:2] == ["i", "ask"] or after[:2] == ["i", "know"]


@lru_cache(maxsize=4096)
def _modals(text: str) -> frozenset[str]:
    """What the text asks for: permission, advice, duty, likelihood; empty where it makes no difference."""
    if _SAYING.isdisjoint(said(text)) or not _INDIFFERENT.isdisjoint(said(text)):
        return frozenset()
    words = [t.word for t in tokens(text)]
    kinds: set[str] = set()
    for at, word in enumerate(words):
        if word in _MODALS and not _polite(words, at):
            # "What should I do" asks for a way as well.
            if "what" in words[max(0, at - 3) : at] and "do" in words[at + 1 : at + 4]:
                return frozenset()
            kinds |= _MODALS[word]
        elif word in _TO_BE_DONE and words[at + 1 : at + 2] == ["to"] and words[at - 1 : at] != ["want"]:
            if "what" in words[:at] and words[at + 2 : at + 3] == ["do"]:
                return frozenset()
            kinds.add(_MUST)
    return frozenset(kinds)


def modality(asked: str, stored: str) -> str | None:
    """``modality``: one text asks what must be done, the other what should, can or might be."""
    if not english(asked, stored):
        return None
    a, b = _modals(asked), _modals(stored)
    return "modality" if a and b and a.isdisjoint(b) else None
