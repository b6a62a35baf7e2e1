"""Does an answer say nothing? "I don't know" fits every question: that many have it says nothing about the next."""

from __future__ import annotations

import re
from functools import lru_cache

from dispatch_core.equivalence import spoken
from dispatch_core.types import Entry

_LONGEST = 600
"""Characters. Who says more than that has something to say."""

_NOTHING = re.compile(
    r"""
    ^\W*(?:i\s?(?:'m|am)\s(?:very\s|so\s|really\s)?sorry|sorry|unfortunately|my\sapologies|i\sapologi[sz]e)\b
    | \bi\s(?:do\snot|don't|cannot|can't|could\snot|couldn't|was\snot\sable|wasn't\sable|am\snot\sable|am\sunable)
      \s(?:to\s)?(?:currently\s|really\s)?(?:know|have|find|help|answer|assist|provide|access|see|tell|determine)\b
    | \bas\san\s(?:ai|artificial|language)\b
    | \b(?:no|not\senough|insufficient)\s(?:relevant\s|such\s|further\s)?(?:information|data|context|results?)\b
    | \b(?:is|are)(?:\snot|n't)\s(?:mentioned|provided|specified|given|stated|available|included)\b
    | \b(?:does|do)(?:\snot|n't)\s(?:mention|contain|provide|specify|include|say|state)\b
    | \b(?:out\sof|beyond|outside)\s(?:my|the)\s(?:scope|knowledge)\b | ^\W*(?:n/?a|unknown|none|null|no\sanswer)\W*$
    | 抱歉|对不起|很遗憾|无法(?:回答|提供|确定|找到|判断)|不(?:知道|清楚|确定)
    | (?:没有|未)(?:找到|提供|提及|相关)|作为(?:一个)?(?:AI|人工智能)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def says_nothing(entry: Entry) -> bool:
    """Whether the stored answer is a refusal or an excuse, in English or Chinese."""
    return _says_nothing(entry.payload)


@lru_cache(maxsize=2048)
def _says_nothing(payload: bytes) -> bool:
    text = spoken(payload)
    return text is not None and len(text) <= _LONGEST and _NOTHING.search(text.replace("’", "'")) is not None
