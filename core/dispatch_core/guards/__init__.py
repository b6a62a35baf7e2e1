"""Cheap, pure reasons to say no to a neighbour: close in meaning, but with another answer.

An embedding hardly sees a negation, a number or an exchanged name. A guard reads both texts and names the difference
that changes the answer, or finds none. Guards are symmetric, keep nothing between calls but bounded memos,
and are silent on texts of a language that is not theirs.

====================  ======================================================================
reason                the texts differ in
====================  ======================================================================
``language``          anything, in a script that no guard reads
``quote`` ``code``    what was quoted; identifiers, paths, flags, addresses
``number`` ``unit``   numbers, in any spelling; what the same number counts
``date``              weekday, month, time of day; last, this or next week
``negation``          whether something is denied, in some languages of Europe too
``antonym``           one of two opposites: open, close; paid, unpaid; zoom in, zoom out
``question-word``     the kind of answer: when, where, who, why, how much ...
``modality``          what must, should, can or might be
``quantifier``        of how many: all, some, only; "this or that" against this alone
``entity``            a name (Polish, not polish), or a member of a closed class (colours, countries ...)
``swap``              who does what to whom, what turns into what
``substitution``      one word of otherwise equal sentences, not by a synonym; "for kids", "at home"
====================  ======================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dispatch_core.guards import (
    casing,
    chinese,
    constraint,
    english,
    figures,
    foreign,
    lacking,
    literals,
    modality,
    names,
    order,
    quantity,
    roles,
    swap,
    template,
)

Guard = Callable[[str, str], str | None]

ENGLISH: tuple[Guard, ...] = (
    english.negation,
    lacking.lacking,
    english.antonym,
    english.question_word,
    modality.modality,
    quantity.quantifier,
    names.entity,
    casing.casing,
    names.substitution,
    constraint.constraint,
    swap.swap,
    roles.roles,
    order.order,
)
CHINESE: tuple[Guard, ...] = (
    chinese.negation,
    chinese.antonym,
    chinese.question_word,
    chinese.entity,
    chinese.swap,
    chinese.substitution,
)
# Quotations, identifiers and numbers are written alike in most languages.
ANY_LANGUAGE: tuple[Guard, ...] = (
    foreign.language,
    literals.quote,
    literals.code,
    figures.number,
    figures.unit,
    figures.date,
    foreign.denial,
)
# These ask whether two texts have anything in common, so a shared preamble could satisfy them; the others count.
_HIDEABLE: tuple[Guard, ...] = (
    english.question_word,
    modality.modality,
    swap.swap,
    roles.roles,
    order.order,
    chinese.antonym,
    chinese.question_word,
    chinese.swap,
    chinese.substitution,
)


def difference(asked: str, stored: str) -> str | None:
    """The reason to refuse what is left of two long texts when the sentences they share are taken away."""
    parts = template.rest(asked, stored)
    return None if parts is None else refusal(*parts, guards=_HIDEABLE)


DEFAULT_GUARDS: tuple[Guard, ...] = (*ANY_LANGUAGE, *ENGLISH, *CHINESE, difference)
# Of these the others have nothing to say where one of the texts is in ASCII.
_OF_ASCII = (*ANY_LANGUAGE, *ENGLISH, difference)


def refusal(asked: str, stored: str, guards: Sequence[Guard] = DEFAULT_GUARDS) -> str | None:
    """The reason code of the first guard that refuses to answer ``asked`` with what ``stored`` was answered, or None.

    Symmetric in the two texts whenever the guards are.
    """
    if guards is DEFAULT_GUARDS and (asked.isascii() or stored.isascii()):
        guards = _OF_ASCII
    for guard in guards:
        reason = guard(asked, stored)
        if reason is not None:
            return reason
    return None


def read(text: str, guards: Sequence[Guard] = DEFAULT_GUARDS) -> None:
    """Read a text that others will be compared with: what guards remember of it they need not read again."""
    refusal(text, text, guards)


__all__ = ["ANY_LANGUAGE", "CHINESE", "DEFAULT_GUARDS", "ENGLISH", "Guard", "read", "refusal"]
