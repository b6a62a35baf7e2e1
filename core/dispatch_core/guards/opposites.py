"""Opposites: in tables, by a prefix (paid, unpaid), by a particle (zoom in, zoom out), by a stance (for, against)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from dispatch_core.guards.reading import Token
from dispatch_core.guards.words import stem, word_set

ANTONYMS = """
open opening / close closing shut |
increase raise grow boost expand gain / decrease reduce lower cut lessen shrink |
buy purchase buyer / sell seller | send / receive | before / after |
cheap affordable inexpensive / expensive costly pricey |
minimum min minimize smallest / maximum max maximize largest | lowest / highest | upload / download |
login / logout | front / rear back | left / right | right correct true / wrong incorrect false |
start begin / stop end finish | add insert append include / remove delete drop exclude |
deposit / withdraw withdrawal | import / export | encrypt encryption / decrypt decryption | encode / decode |
with / without | enable activate / disable deactivate | install / uninstall remove | create / delete destroy |
lock / unlock | block / unblock | freeze / unfreeze defrost | win / lose |
accept approve / reject decline refuse deny | allow permit / forbid prohibit ban disallow block | lend / borrow |
push / pull | compress zip / decompress unzip extract | serialize / deserialize | connect / disconnect |
mount / unmount | subscribe / unsubscribe cancel | follow / unfollow | hide / show unhide reveal display |
credit / debit | arrive arrival come / leave depart departure | pickup collect / delivery deliver dropoff |
hire recruit / fire dismiss | marry marriage / divorce | upgrade / downgrade | ascending / descending |
asc / desc | public / private | client / server | input / output | read / write | inner / outer |
internal / external | synchronous sync / asynchronous async | local / remote global | mutable / immutable |
static / dynamic | horizontal / vertical | row / column | first / last | next / previous last |
top upper / bottom lower | inside indoor / outside outdoor | above over / below under beneath |
ancient old / modern | rich wealthy / poor | strong / weak | fast quick rapid / slow | fastest / slowest |
easy simple / hard difficult complex | happy / sad unhappy | safe / dangerous unsafe risky | high / low |
big large huge / small little tiny | bigger / smaller | thick / thin | wide / narrow | deep / shallow |
full / empty | dry / wet | early / late | hot warm / cold cool | light bright / dark | light / heavy |
loud / quiet silent | introvert / extrovert | online / offline | manual / automatic | paid / free |
physical / virtual digital | domestic / international | student / teacher professor |
employee worker / employer boss | borrower / lender | landlord / tenant | parent / child kid | doctor / patient |
prefix / suffix | singular / plural | positive / negative | plus / minus | multiply / divide | odd / even |
always / never | everybody everyone / nobody | more / less fewer | most / least | majority / minority |
symptom / treatment cure | question / answer | cause / effect cure | pass / fail | expand / collapse |
hardware / software | sunrise / sunset | day / night | bride / groom | birth / death | born / die | host / guest |
wholesale / retail | gross / net | fixed / variable | single / married | single / double multiple |
inbound incoming / outbound outgoing | checkin / checkout | best good great / worst bad terrible |
pro advantage benefit / con disadvantage drawback | love like / hate dislike | long / short | young / old |
new / old | tall / short | boy / girl | man male / woman female | husband / wife | father dad / mother mom mum |
son / daughter | brother / sister | boyfriend / girlfriend | uncle / aunt | king / queen | he him his / she her |
masculine / feminine | many / few | success succeed / failure fail | legal lawful / illegal unlawful |
valid / invalid | possible / impossible | healthy / unhealthy | visible / invisible | known / unknown |
attach / detach | merge join combine / split separate divide | join / leave quit | war / peace | friend / enemy |
ally / enemy | supply / demand | export / import | save / spend | profit / loss | asset / liability |
cash / card | inhale / exhale | fall / rise | ascend / descend | up / down | mute / unmute | pause / resume |
undo / redo | forward / backward reverse | clockwise / counterclockwise anticlockwise | breakfast / dinner lunch |
lunch / dinner | summer / winter | sender / recipient receiver | veg vegetarian / nonveg |
acid acidic / base basic alkaline | liquid / solid gas | raw / cooked | conductor / insulator | predator / prey |
victory / defeat | optimist / pessimist | amateur / professional | junior / senior | theory / practice |
front-end / back-end | frontend / backend | entry entrance / exit | strength / weakness | pack / unpack |
wrap / unwrap | load / unload | register enroll / unregister unenroll | pin / unpin | archive / unarchive |
tighten / loosen | widen / narrow | strengthen / weaken | lengthen / shorten | heat / cool | melt / freeze |
lift / lower | promote / demote | before / during | during / after | now immediately / later | optin / cancel |
infavour support supporter / against oppose opposed opponent |
beginner novice newbie starter / expert advanced professional | awake / asleep | sharpen / blur |
remember / forget | attract attracted / repel repelled | natural / artificial synthetic | rural / urban |
alive / dead | adult grownup / minor child kid | permanent / temporary | major / minor | mild / severe |
acute / chronic | benign / malignant | truth / lie | rent lease / buy own purchase | oily / dry | spicy / bland |
thaw / freeze | civilian / military | liberal / conservative | concave / convex | maternal / paternal |
sunny / rainy cloudy | sour bitter / sweet | smooth / rough | tight / loose | lazy / hardworking | guilty / innocent |
abroad overseas / home domestic | import imported / homemade | heaven / hell | lead leader / follow follower |
whisper / shout | teach / learn | hit / miss | arrest / release | admit / deny | praise / criticize |
include / exclude | laugh / cry | absent / present | nephew / niece | actor / actress | prince / princess |
grandson / granddaughter | grandfather grandpa / grandmother grandma
"""

_PREFIXES = ("un", "non")
# Here the prefix is a part of the word, or the words have nothing to do with each other.
_NO_PREFIX = word_set("unless union unions unit units unique unto none nonetheless nonsense")
_IN_ACTIVE = {
    prefix + word: word
    for prefix, words in {
        "in": "active accurate complete consistent compatible correct valid visible secure sufficient eligible formal"
        " direct dependent adequate appropriate convenient expensive",
        "dis": "agree appear connect approve honest similar satisfied continue advantage",
        "ir": "regular relevant reversible responsible",
        "il": "legal legible logical literate",
        "im": "possible mature mutable proper perfect polite",
        "ab": "normal",
    }.items()
    for word in words.split()
}
PARTICLES = {"in": "out", "out": "in", "on": "off", "off": "on", "up": "down", "down": "up"}
_NONE: frozenset[str] = frozenset()
_STANCE = frozenset(
    map(
        stem,
        word_set("""
        argument argue vote case evidence reason campaign opinion point side rule decide stand speak petition
        """),
    )
)


@lru_cache(maxsize=16384)
def bared(word: str) -> str | None:
    """The word without its denying prefix: ``bared("unpaid") == "paid"``."""
    if word in _IN_ACTIVE:
        return _IN_ACTIVE[word]
    if word in _NO_PREFIX:
        return None
    for prefix in _PREFIXES:
        rest = word.removeprefix(prefix)
        if rest != word and len(rest) >= 3:
            return rest
    return None


_MIRRORED = (
    ("over", "under"), ("hyper", "hypo"), ("macro", "micro"), ("pre", "post"), ("up", "down"), ("in", "out"),
    ("inter", "intra"), ("anti", "pro"), ("mono", "poly"), ("endo", "exo"), ("im", "ex"), ("in", "ex"), ("in", "de"),
)  # fmt: skip
_GENDERED = (
    ("father", "mother"),
    ("son", "daughter"),
    ("brother", "sister"),
    ("man", "woman"),
    ("boy", "girl"),
    ("men", "women"),
)


_MIRRORED_HEADS = tuple(head for pair in _MIRRORED for head in pair)
_GENDERED_TAILS = tuple(tail for pair in _GENDERED for tail in pair)


def mirrored(word: str) -> tuple[str, ...]:
    """What the word would be with the opposite prefix, or of the other sex: "overrated", "stepmother".

    They need not be words; it only tells when the other text has one of them.
    """
    out = []
    if word.startswith(_MIRRORED_HEADS):
        for pair in _MIRRORED:
            for one, other in (pair, pair[::-1]):
                rest = word.removeprefix(one)
                if rest != word and len(rest) >= 3:
                    out.append(other + rest)
    if word.endswith(_GENDERED_TAILS):
        for pair in _GENDERED:
            for one, other in (pair, pair[::-1]):
                if word.endswith(one) and len(word) > len(one) and not (one == "man" and word.endswith("woman")):
                    out.append(word.removesuffix(one) + other)
    return tuple(out)


@lru_cache(maxsize=16384)
def turns(word: str) -> frozenset[str]:
    """The stems of all that would be an opposite of the word by its form alone."""
    base, others = bared(word), mirrored(word)
    if base is None and not others:
        return _NONE
    return frozenset(map(stem, (*others, *(() if base is None else (base,)))))


def denied(here: Counter[str], there: Counter[str]) -> bool:
    """Does one text say "unpaid", "prepaid" where the other says "paid", "postpaid"? Words as they were typed."""
    more, less = here - there, there - here
    bases = {stem(word) for word in less}
    return any(not turns(word).isdisjoint(bases) for word in more)


def particles(found: Sequence[Token]) -> list[tuple[str, str]]:
    """The verbs, or what stands between, with the particle behind them: (zoom, in)."""
    return [
        (stem(found[at - 1].word), token.word)
        for at, token in enumerate(found)
        if at and token.word in PARTICLES and found[at - 1].word and not token.clause
    ]


def turned(here: Sequence[tuple[str, str]], there: Sequence[tuple[str, str]]) -> bool:
    """Does a verb that goes in here go out there?"""
    less = Counter(there) - Counter(here)
    return any((verb, PARTICLES[particle]) in less for verb, particle in Counter(here) - Counter(there))


def stance(found: tuple[Token, ...], at: int) -> str:
    """The word, or, of an argument "for" something, that it is in favour."""
    word = found[at].word
    argued = word == "for" and at > 0 and stem(found[at - 1].word) in _STANCE
    return "infavour" if argued else word
