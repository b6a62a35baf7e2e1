"""Numbers, units and dates: two questions about different amounts have different answers."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from dispatch_core.guards.numerals import with_digits
from dispatch_core.guards.phrases import said, tokens
from dispatch_core.guards.reading import Token, has_han
from dispatch_core.guards.words import word_set

_UNITS = {
    spelling: name
    for line in """
    km: km kms kilometer kilometers kilometre kilometres
    mile: mile miles mi
    meter: m meter meters metre metres mtr
    cm: cm cms centimeter centimeters centimetre centimetres
    mm: mm millimeter millimeters millimetre millimetres
    foot: ft foot feet
    inch: inch inches
    yard: yard yards yd
    kg: kg kgs kilo kilos kilogram kilograms
    gram: g gm gms gram grams
    lb: lb lbs pound pounds
    ounce: oz ounce ounces
    ton: ton tons tonne tonnes
    liter: liter liters litre litres ltr
    ml: milliliter milliliters millilitre millilitres
    gallon: gallon gallons
    pint: pint pints
    cup: cup cups
    teaspoon: teaspoon teaspoons tsp
    tablespoon: tablespoon tablespoons tbsp
    mg: mg mgs milligram milligrams
    mcg: mcg microgram micrograms
    acre: acre acres
    hectare: hectare hectares
    knot: knots
    century: century centuries
    celsius: celsius centigrade
    fahrenheit: fahrenheit
    second: sec secs second seconds
    minute: min mins minute minutes
    hour: h hr hrs hour hours
    day: day days
    week: week weeks wk wks
    month: month months
    year: year years yr yrs
    decade: decade decades
    dollar: dollar dollars usd bucks
    euro: euro euros eur
    gbp: gbp sterling quid
    yen: yen jpy
    rupee: rupee rupees inr rs
    yuan: yuan rmb cny
    percent: percent percentage
    byte: byte bytes
    kb: kb kilobyte kilobytes
    mb: mb megabyte megabytes
    gb: gb gigabyte gigabytes
    tb: tb terabyte terabytes
    mph: mph
    kmh: kmh kph
    kw: kw kilowatt kilowatts
    watt: watt watts
    volt: volt volts
    calorie: calorie calories kcal
    """.strip().splitlines()
    for name, _, spellings in [line.strip().partition(": ")]
    for spelling in spellings.split()
}
# One spelling, two units: "5 pounds" are weighed or paid, "5m" walked or waited.
_EITHER = frozenset({frozenset({"lb", "gbp"}), frozenset({"meter", "minute"}), frozenset({"meter", "month"})})
_CALENDAR = {
    spelling: day
    for line in """monday mon mondays|tuesday tue tues tuesdays|wednesday weds wednesdays|thursday thu thur thurs
    thursdays|friday fri fridays|saturday saturdays|sunday sundays|weekend weekends|weekday weekdays|january jan
    |february feb|march|april apr|may|june jun|july jul|august aug|september sep sept|october oct|november nov
    |december dec|morning mornings|afternoon afternoons|evening evenings|night nights overnight|noon midday|midnight
    |am|pm|tomorrow|yesterday|christmas xmas|easter|thanksgiving|halloween""".replace("\n", " ").split("|")
    for day, *others in [line.split()]
    for spelling in [day, *others]
}  # fmt: skip
# "Now" is when one asks: said or not, it changes little; but it is not tomorrow.
_NOW = {"today": "today", "tonight": "today", "now": "today", "currently": "today"}
_DATED = word_set("""
    in on of this next last until till by since from during early late mid before after every
    """)
_RELATIVE = {
    "last": "last ", "past": "last ", "previous": "last ", "this": "this ", "current": "this ", "next": "next ",
    "coming": "next ", "upcoming": "next ",
}  # fmt: skip
_SPANS = word_set("week month year quarter semester season term")
MEASURES = frozenset(_UNITS) | frozenset(_CALENDAR) | frozenset(_NOW)


class _Amounts(NamedTuple):
    hard: Counter[str]
    soft: Counter[str]
    unit_of: dict[str, frozenset[str]]
    units: frozenset[str]


_NO_AMOUNTS = _Amounts(Counter(), Counter(), {}, frozenset())


def _read(text: str) -> tuple[Token, ...]:
    return tokens(with_digits(text)) if has_han(text) else tokens(text)


@lru_cache(maxsize=4096)
def _amounts(text: str) -> _Amounts:
    found = _read(text)
    units = frozenset([_UNITS[t.word] for t in found if t.word in _UNITS and len(t.word) > 1])
    if "number" not in [t.kind for t in found]:
        return _NO_AMOUNTS._replace(units=units) if units else _NO_AMOUNTS
    hard, soft = Counter[str](), Counter[str]()
    unit_of: dict[str, frozenset[str]] = {}
    for at, token in enumerate(found):
        if token.kind != "number":
            continue
        (soft if token.soft else hard)[token.word] += 1
        after = found[at + 1].word if at + 1 < len(found) else ""
        if after in _UNITS and not found[at + 1].clause:
            unit_of[token.word] = unit_of.get(token.word, frozenset()) | {_UNITS[after]}
    return _Amounts(hard, soft, unit_of, units)


def number(asked: str, stored: str) -> str | None:
    """``number``: one text has a number the other has not. 60k, 60,000 and sixty thousand are one number."""
    a, b = _amounts(asked), _amounts(stored)
    if not a.hard and not b.hard:
        return None
    return "number" if a.hard - (b.hard + b.soft) or b.hard - (a.hard + a.soft) else None


def _differ(a: frozenset[str], b: frozenset[str]) -> bool:
    return bool(a) and bool(b) and not any(x == y or frozenset({x, y}) in _EITHER for x in a for y in b)


def unit(asked: str, stored: str) -> str | None:
    """``unit``: the same number of something else (5 km, 5 miles), or an answer wanted in another unit."""
    a, b = _amounts(asked), _amounts(stored)
    if not a.unit_of and not b.unit_of and a.units == b.units:
        return None
    if any(_differ(a.unit_of[n], b.unit_of[n]) for n in a.unit_of.keys() & b.unit_of.keys()):
        return "unit"
    return "unit" if _differ(a.units - b.units, b.units - a.units) else None


def _dated(found: tuple[Token, ...], at: int) -> bool:
    """Is this "may" or "march" a month, this "am" a time, this "morning" more than a greeting?"""
    word = found[at].word
    before = found[at - 1] if at else None
    numbered = any(0 <= n < len(found) and found[n].kind == "number" for n in (at - 1, at + 1))
    if word in {"am", "pm"}:
        return before is not None and before.kind == "number" and not found[at].clause
    if word in {"may", "march"}:
        return numbered or (before is not None and before.word in _DATED)
    return before is None or before.word != "good"


_UNDATED: tuple[Counter[str], bool, str] = (Counter(), False, "")
_DATING = {*_CALENDAR, *_NOW, *_RELATIVE}


@lru_cache(maxsize=4096)
def _calendar(text: str) -> tuple[Counter[str], bool, str]:
    if _DATING.isdisjoint(said(text)):
        return _UNDATED
    found = tokens(text)
    days = Counter(_CALENDAR[t.word] for at, t in enumerate(found) if t.word in _CALENDAR and _dated(found, at))
    spans = [
        _RELATIVE[a.word] + b.word.removesuffix("s")
        for a, b in pairwise(found)
        if a.word in _RELATIVE and b.word.removesuffix("s") in _SPANS
    ]
    return days, any(t.word in _NOW for t in found), " ".join(sorted(spans))


def date(asked: str, stored: str) -> str | None:
    """``date``: other days, months or times of day; "today" may be left out, but is not "tomorrow"."""
    (a, a_now, a_span), (b, b_now, b_span) = _calendar(asked), _calendar(stored)
    if not a and not b and a_span == b_span:
        return None
    # "This month" need not be said; "next month" must.
    if a_span != b_span and (any(said and said[:4] != "this" for said in (a_span, b_span)) or (a_span and b_span)):
        return "date"
    # A day said elsewhere in both texts hides nothing.
    if a - b and b - a:
        return "date"
    other = a.keys() ^ b.keys()
    # "Tonight" against "this night": naming the present covers the missing word.
    if not other or (a_now and b_now and other == {"night"}):
        return None
    return "date"
