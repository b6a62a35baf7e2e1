"""Fixed phrases as one word, and with them the finished tokens of a text."""

from __future__ import annotations

from functools import lru_cache

from dispatch_core.guards.numerals import read_numbers
from dispatch_core.guards.reading import Token, scan
from dispatch_core.guards.words import stem

_PHRASES = {
    tuple(spoken.split()): joined
    for line in """
    login: log in, sign in, log on, sign on, log into, sign into, log-in
    logout: log out, sign out, log off, sign off
    register: sign up
    return: send back, give back, bring back
    refund: money back
    remove: get rid of, take out, take off
    quit: give up
    search: look for, look up
    discover: find out
    setup: set up
    exercise: work out
    continue: carry on, go on, keep on
    postpone: put off
    optin: opt in
    infavour: in favour of, in favor of
    cancel: call off, opt out
    fail: break down
    many: a lot of, lots of, a number of, plenty of
    can: be able to, am able to, is able to, are able to
    insteadof: instead of, rather than
    recover: get back
    insteadof: in place of
    symptom: warning sign
    motherinlaw: mother in law
    fatherinlaw: father in law
    sisterinlaw: sister in law
    brotherinlaw: brother in law
    soninlaw: son in law
    daughterinlaw: daughter in law
    because: due to, owing to, because of, on account of
    without: with no, with out
    about: with regard to, in regards to, regarding
    before: prior to, ahead of
    to: in order to, so as to
    and: as well as, along with, together with
    email: e mail
    wifi: wi fi
    website: web site, web page, webpage
    cellphone: cell phone, mobile phone, smart phone
    online: on line
    percent: per cent
    nobody: no one
    everybody: every one
    checkin: check in
    checkout: check out
    usa: the us, united states of america, the united states, united states, u s a, u s
    uk: united kingdom, great britain, the united kingdom, u k
    uae: united arab emirates
    eu: european union
    newyork: new york city, new york, nyc
    losangeles: los angeles
    sanfrancisco: san francisco
    hongkong: hong kong
    newdelhi: new delhi
    southkorea: south korea
    northkorea: north korea
    southafrica: south africa
    saudiarabia: saudi arabia
    newzealand: new zealand
    srilanka: sri lanka
    ml: machine learning
    ai: artificial intelligence
    javascript: java script
    postgresql: postgres
    typescript: type script
    kubernetes: k8s
    googlepay: google pay, gpay
    applepay: apple pay
    paypal: pay pal
    youtube: you tube
    macos: mac os, os x
    playstation: play station
    """.strip().splitlines()
    for joined, _, spellings in [line.strip().partition(": ")]
    for spoken in spellings.split(", ")
}
_HEADS = {head: max(len(p) for p in _PHRASES if p[0] == head) for head in {p[0] for p in _PHRASES}}
# Verbs whose particle may stand behind the object: "turn the wifi off".
_SPLIT = {
    ("turn", "on"): "enable", ("turn", "off"): "disable", ("switch", "on"): "enable", ("switch", "off"): "disable",
    ("turn", "up"): "increase", ("turn", "down"): "decrease", ("send", "back"): "return",
    ("give", "back"): "return", ("log", "out"): "logout", ("sign", "out"): "logout", ("log", "in"): "login",
    ("sign", "in"): "login", ("set", "up"): "setup",
}  # fmt: skip
_SPLIT_VERBS = frozenset(verb for verb, _ in _SPLIT)
_VERB_FORMS = {
    "turned": "turn", "turning": "turn", "turns": "turn", "switched": "switch", "switching": "switch",
    "logging": "log", "logged": "log", "logs": "log", "signing": "sign", "signed": "sign", "signs": "sign",
    "looking": "look", "looked": "look", "sending": "send", "sent": "send", "getting": "get", "got": "get",
    "giving": "give", "gave": "give", "setting": "set", "working": "work", "finding": "find", "found": "find",
    "calling": "call", "called": "call", "putting": "put", "taking": "take", "checking": "check",
}  # fmt: skip
# Any other word begins no phrase, and most of these only before certain others.
_STARTS = {*_HEADS, *_VERB_FORMS, *_SPLIT_VERBS, "non"}
_SECONDS = {head: frozenset(p[1] for p in _PHRASES if p[0] == head and len(p) > 1) for head in _HEADS}
_ANYWHERE = {word for word in _STARTS if _VERB_FORMS.get(word, word) in _SPLIT_VERBS or (word,) in _PHRASES} | {"non"}


def _may_begin(found: list[Token], at: int) -> bool:
    word = found[at].word
    if word in _ANYWHERE:
        return True
    return at + 1 < len(found) and found[at + 1].word in _SECONDS.get(_VERB_FORMS.get(word, word), ())


def _joined(found: list[Token], at: int) -> tuple[str, int] | None:
    head = _VERB_FORMS.get(found[at].word, found[at].word)
    for length in range(min(_HEADS.get(head, 0), len(found) - at), 1, -1):
        window = found[at + 1 : at + length]
        # A phrase never spans a full stop or a comma.
        if not any(t.clause for t in window):
            joined = _PHRASES.get((head, *(t.word for t in window)))
            if joined:
                return joined, length
    single = _PHRASES.get((head,))
    return (single, 1) if single else None


def _particle(found: list[Token], at: int) -> tuple[str, int] | None:
    verb = _VERB_FORMS.get(found[at].word, found[at].word)
    if verb not in _SPLIT_VERBS:
        return None
    for near in range(at + 1, min(at + 5, len(found))):
        if found[near].clause:
            return None
        if (verb, found[near].word) in _SPLIT:
            return _SPLIT[verb, found[near].word], near
    return None


def _join(found: list[Token]) -> list[Token]:
    out: list[Token] = []
    at, dropped = 0, set[int]()
    while at < len(found):
        token = found[at]
        if at in dropped:
            at += 1
            continue
        if token.word not in _STARTS or not _may_begin(found, at):
            out.append(token)
            at += 1
            continue
        phrase = _joined(found, at) if token.kind == "word" else None
        split = _particle(found, at) if token.kind == "word" and not phrase else None
        if split:
            dropped.add(split[1])
            token = token._replace(word=split[0])
        elif phrase:
            named = any(t.surface[:1].isupper() for t in found[at + 1 : at + phrase[1]])
            surface = token.surface.capitalize() if named else token.surface
            token = token._replace(word=phrase[0], surface=surface)
        elif token.word == "non" and at + 1 < len(found) and found[at + 1].kind == "word":
            # "Non-members", "non members" and "nonmembers" are one word.
            token, phrase = token._replace(word=f"non{found[at + 1].word}"), ("", 2)
        out.append(token)
        at += phrase[1] if phrase else 1
    return out


@lru_cache(maxsize=4096)
def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a text: contractions opened, number words read, fixed phrases joined."""
    found = _join(read_numbers(scan(text)))
    # The country, where capitals tell it from the pronoun.
    if "US" in text and not text.isupper():
        found = [t._replace(word="usa") if t.surface == "US" and t.word == "us" else t for t in found]
    return tuple(found)


@lru_cache(maxsize=4096)
def said(text: str) -> frozenset[str]:
    """The words of its tokens. A guard none of whose words is among them need not read the text."""
    return frozenset([token.word for token in tokens(text)])


@lru_cache(maxsize=4096)
def stems(text: str) -> frozenset[str]:
    """The stems of its words."""
    return frozenset(map(stem, said(text)))
