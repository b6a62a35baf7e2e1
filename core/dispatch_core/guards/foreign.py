"""Languages that no other guard reads: what is not understood is no hit, and a "not" is known in some of them."""

from __future__ import annotations

import re
from functools import lru_cache

from dispatch_core.guards.phrases import said
from dispatch_core.guards.reading import folded
from dispatch_core.guards.words import word_set

# One sign is enough: nobody writes kana or hangul within Chinese or English but to quote it.
_JAPANESE_OR_KOREAN = re.compile("[\u3040-\u30ff\u1100-\u11ff\uac00-\ud7af]")
# Greek to Georgian and on to the scripts of South-East Asia; a formula's letter or two is no language.
_OTHER = re.compile("[\u0370-\u1dff\u2d00-\u2dff\ua640-\ua69f]")
_MOST = 0.25

# Of each language, words that deny and mean nothing else in English or in another one.
_DENYING = word_set("""
    nicht kein keine keinen keinem keiner keines niemals niemand ohne nirgends
    pas jamais aucun aucune sans
    nunca jamás tampoco ningún ninguna ninguno
    senza nessun nessuna nessuno
    não sem nenhum nenhuma
    niet geen nooit zonder
    inte ikke ingen utan uden uten aldrig aldri
    nie nigdy żaden żadna bez není nelze
    değil olmadan
""")
_WORD = re.compile(r"\w+")


@lru_cache(maxsize=4096)
def _unread(text: str) -> bool:
    if _JAPANESE_OR_KOREAN.search(text):
        return True
    strange = len(_OTHER.findall(text))
    return strange > _MOST * sum(map(str.isalpha, text)) if strange else False


def language(asked: str, stored: str) -> str | None:
    """``language``: a text is in a script in which no guard would see a "not" or an opposite."""
    if asked.isascii() and stored.isascii():
        return None
    return "language" if _said(asked) != _said(stored) and (_unread(asked) or _unread(stored)) else None


@lru_cache(maxsize=4096)
def _said(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(folded(text)))


@lru_cache(maxsize=4096)
def _denials(text: str) -> int:
    return 0 if _DENYING.isdisjoint(said(text)) else sum(word in _DENYING for word in _said(text))


def denial(asked: str, stored: str) -> str | None:
    """``negation``: one text denies what the other asserts, in a language of Europe other than English."""
    return "negation" if _denials(asked) % 2 != _denials(stored) % 2 else None
