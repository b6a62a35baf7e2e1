"""Does the right answer depend on the moment, or on who asks? Rules for English and Chinese; pure.

A rule that fires too often costs hits, one that fires too seldom serves what was right for another moment or another
person. These look for the forms of such questions, not for words alone; and how something is done, why it is so or
what is allowed stays the same, whenever and by whomever it is asked.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cached_property, lru_cache

LONGEST = 1000
"""In characters. A longer text is no plain question: the rules see nothing in it."""


class _Forms:
    """Any of the forms, one a line; ``<NAME>`` in them stands for a part.

    Compiled at the first search: all together that takes as long as the import of a small package.
    """

    def __init__(self, lines: str, **parts: str) -> None:
        for name, part in parts.items():
            lines = lines.replace(f"<{name}>", f"(?:{part})")
        self._lines = lines

    @cached_property
    def search(self) -> Callable[[str], re.Match[str] | None]:
        return re.compile("|".join(line.strip() for line in self._lines.strip().splitlines())).search


# What is mentioned and not meant: quotations, code, calls of functions, translations.
_QUOTES = frozenset("\"“「『`'(")
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|「[^」]*」|『[^』]*』|`[^`]*`|(?<!\w)'[^']*'(?!\w)|\b\w{1,40}\([^()]*\)")
_OTHER = _Forms(r"""
    \btranslat|\bmeaning of\b|\bsynonym|\bwhat (?:does|do|did) .*\bmean\b
    \bhow (?:do|would|can) (?:you|i|we) (?:say|write|spell|pronounce)\b
    \bin (?:english|french|german|spanish|italian|chinese|japanese)\b
    \bhow (?:do|can|could|should|would|might|must) (?:i|we|you|one|people)\b|\bhow (?:am|are) (?:i|we) |\bhow to\b
    \bhow (?:is|are|was|were) .*\b(?:calculated|computed|determined|set|defined|measured|decided|done|made)\b
    \bhow long (?:does|do|will|would|should|is|can|may) (?:it|i|we|they|one)\b
    \bwhy\b|\bhow come\b|\bwhat (?:do|should|can|could|must) (?:i|we) do\b|\bwhat (?:happens|if)\b
    \bwhere (?:do|can|could|should) (?:i|we)\b|\b(?:can|could|may|should|must) (?:i|we)\b
    \bam i (?:allowed|able|supposed)\b|\bis it (?:possible|allowed|ok|safe)\b|\bdo (?:i|we) (?:have|need) to\b
    \bwhat(?: is| are|'s) (?:an?|the (?:difference|meaning|purpose))\b
    """)
"""Asks for a word, a way, a reason, a permission, a notion: those are neither volatile nor personal."""

_NOW = r"right now|just now|currently|at (?:the|this) moment|at this time|at present|as of (?:now|today)|nowadays"
_DAY = r"today|tonight|tomorrow|yesterday|this (?:morning|afternoon|evening|week|weekend|month)"
_CURRENT = (
    r"current|latest|newest|most recent|live|real[- ]?time|up[- ]to[- ]date|(?:today|tonight|tomorrow|this week)'s"
)
_VARIES = (
    r"prices?|rates?|quotes?|values?|scores?|standings|rankings?|results?|status|news|headlines?|versions?|releases?"
    r"|updates?|developments|weather|temperature|forecasts?|conditions?|traffic|time|date|day|year|population|president"
    r"|prime minister|chancellor|mayor|ceo|champions?|holders?|record|inflation|events?|offers?|deals?|promotions?"
    r"|specials?|menu|models?|wait(?:ing)? times?|delays?|outages?"
)
_MONEY = r"dollars?|euros?|pounds?|yen|yuan|rupees?|pesos?|francs?|rmb|usd|eur|gbp|jpy|cny|inr|chf|cad|aud"
_GOODS = r"bitcoins?|btc|ethereum|eth|crypto(?:currenc(?:y|ies))?|gold|silver|(?:crude )?oil|gas(?:oline)?|petrol"
_COMING = r"train|bus|tram|ferry|flight|game|match|race|election|eclipse|full moon|holiday|episode"
_VOLATILE = _Forms(
    r"""
    \bwhat(?: is|'s)? (?:the )?(?:time|date|day|year)(?: is it| is today| today)?(?: now)?(?: in [\w ]+)?\s*\??$
    \bwhat (?:time|day|date|month|year) is (?:it|today)\b|\bdo you (?:have|know) the time\b|\btoday's date\b
    \b(?!(?:latest|newest|most recent) (?:time|date|day|year)\b)<CURRENT> (?:[\w'-]+ ){0,2}?<VARIES>\b
    \b(?:how|what)(?: is| are|'s| will)(?: be)? the (?:weather|traffic|temperature outside|forecast)\b
    \bweather (?:forecast|report|outlook) (?:for|in)\b|\bwill it (?:rain|snow|storm|freeze)\b
    \bis it (?:raining|snowing|sunny|windy|cold|hot) (?:in|outside|out)\b
    \bexchange rates? (?:between|from|for|of|to)\b|\b(?:stock|share)s? (?:price|quote|value)s? (?:of|for)\b
    \b(?:price|value|cost) of (?:an? |one )?(?:(?:share|ounce|barrel|gallon|litre)s? of )?<GOODS>\b
    \bhow much (?:is|are|does) (?:an? |one |the )?<GOODS>\b
    \bhow (?:much|many) (?:is|are) (?:an?|one|[\d.,]+) (?:[a-z]+ )?<MONEY> (?:in|to|worth in) (?:[a-z]+ )?<MONEY>\b
    \bhow many <MONEY> (?:is|are|in|to|for|make|makes) (?:an? |one )?(?:[\d.,]+ )?<MONEY>\b
    \bhow (?:many|much) (?:days|weeks|months|hours|minutes|time)(?: is| are)?(?: there)?(?: left)? (?:until|till)\b
    \b(?:when|what time)(?: is|'s| does| will) the next (?:(?!time\b)\w+ ){0,2}?<COMING>\b
    \bwho is (?:winning|leading|ahead|playing|performing)\b|\bwho won (?:last night|the (?:game|match|race) last)\b
    \bwhat(?: is|'s) (?:happening|going on|new|on (?:tv|sale)) (?:in|at|around|right)\b|\b(?:any|breaking) news\b
    """,
    CURRENT=_CURRENT, VARIES=_VARIES, MONEY=_MONEY, GOODS=_GOODS, COMING=_COMING,
)  # fmt: skip
_CLIMATE = _Forms(r"""
    \b(?:in|during) (?:the )?(?:january|february|march|april|may|june|july|august|september)\b
    \b(?:in|during) (?:the )?(?:october|november|december|spring|summer|autumn|fall|winter|rainy season|dry season)\b
    """)
# A question for facts of a moment; what somebody tells of himself, or assumes, is none.
_MOMENTS = frozenset(
    ("now", "currently", "moment", "time", "present", "nowadays", "today", "tonight", "tomorrow", "yesterday", "this")
)
_MOMENT = _Forms(r"\b(?:<NOW>|<DAY>)\b(?!'s)|\bnow\s*[?!.]*$", NOW=_NOW, DAY=_DAY)
_TOLD = _Forms(
    r"""
    \b(?:i|we)(?:'m|'ve|'d|'ll)?(?: \w+){0,6} (?:<NOW>|<DAY>)\b|\b(?:<NOW>|<DAY>),? (?:i|we)\b
    \bmy (?:\w+ ){0,3}(?:is|are|was|were) (?:<NOW>|<DAY>)\b|\b(?:if|when|whenever) .*\b(?:<NOW>|<DAY>|now)\b
    """,
    NOW=_NOW,
    DAY=_DAY,
)
_GREETING = r"(?:hi|hello|hey|please|so|and|ok|okay|can|could|would|will)?,? ?(?:you )?"
_ASKS = _Forms(
    r"""
    \?
    ^<GREETING>(?:tell me|show me|give me|check|find|any|what|who|where|when|which|how)\b
    ^<GREETING>(?:is|are|was|were|do|does|did|has|have|will)\b
    ^(?=\S+ \S)(?!.*\b(?:i|my|we|our|is|are|was|were|has|have|had)\b).{1,60}$
    """,
    GREETING=_GREETING,
)

_FIRST_PERSON = frozenset(("i", "my"))
_MY = r"my (?!own\b)(?:[\w'-]+ ){0,2}?"
_RECORD = (
    r"orders?|packages?|parcels?|deliver(?:y|ies)|shipments?|refunds?|balances?|bills?|invoices?|transactions?|payments?"
    r"|statements?|appointments?|bookings?|reservations?|flights?|tickets?|claims?|applications?|subscriptions?|loans?"
    r"|points|miles|schedules?|calendar|meetings?|reminders?|messages?|emails?|grades?|(?:test )?results?|salary"
    r"|prescriptions?|paychecks?|paycheques?|(?:vacation|leave|sick) days|credit (?:score|limit)|location|repairs?"
    r"|luggage|baggage|(?:shopping|to[- ]?do) list|tracking number|order (?:number|status|total)"
)
_DONE = (
    r"ship(?:ped)?|sent|dispatched|deliver(?:ed)?|arrived?|com(?:e|ing)|processed|confirmed|received|approved|accepted"
    r"|rejected|cancell?ed|refunded|posted|cleared|go(?:ne)? through|went through|on (?:its|the|their) way|ready|due"
    r"|expired?|renew(?:ed|s)?|paid|booked|scheduled|overdue|delayed|lost|here|still (?:open|valid|active|pending)"
    r"|land(?:ed)?|leave"
)
_PERSONAL = _Forms(
    r"""
    \bwhere(?: is|'s| are) <MY>(?:<RECORD>|card|money|driver|bike|car|phone)\b(?! (?:history|page|settings))
    \b(?:what|when|how (?:much|high))(?: is|'s| are| was| were) <MY><RECORD>\b
    \b(?:status|balance|whereabouts|total|amount) of <MY><RECORD>\b|\b<MY>account balance\b
    ^(?:please |(?:can|could|would) you )*<DO> (?:me )?(?:all )?<MY><RECORD>\b
    \b(?:has|have|did|is|are|was|were|will) <MY><RECORD> (?:\w+ ){0,3}?<DONE>\b
    \b(?:when|what day|what time) (?:will|does|did|is|are) <MY><RECORD> (?:\w+ ){0,3}?(?:<DONE>|start|end|be)\b
    \b(?:when|what|where|which \w+|how (?:much|many|often)(?: \w+){0,3}?) (?:did|have) i\b(?! (?:get|got) to\b)
    ^(?:did|have) i\b(?! (?:to|got to)\b)
    \bhow (?:much|many)(?: [\w'-]+){0,3}? (?:do i (?:still )?(?:have|owe|earn)|am i (?:owed|paying))\b(?! to\b)
    ^do i <STILL>?(?:have (?:any|an? \w+ (?:today|tomorrow|due|booked|scheduled)|\w+ left)|owe)\b
    \bam i <STILL>?(?:booked|registered|enrolled|scheduled|signed up|subscribed|overdrawn|logged in)\b
    \bwho am i\b(?! (?:speaking|talking|chatting|dealing))|\bwhere am i\b(?! (?:able|allowed))|\bhow old am i\b
    \bwhat(?: is|'s) my (?:name|age|ip|location|address)\b|\bmy (?:last|latest|next|upcoming|previous) <RECORD>\b
    """,
    MY=_MY, RECORD=_RECORD, DONE=_DONE, STILL="still |already |currently ",
    DO="check|show|tell|give|read|list|look up|track|find|cancel|reschedule|confirm|pay",
)  # fmt: skip

_HAN = re.compile(r"[\u3400-\u9fff]")
_ZH_OTHER = _Forms(r"""
    怎么(?!样)|如何|怎样才|为什么|为何|为啥|能不能|可不可以|是否可以|我.{0,20}?(?:可以|能).{0,20}?吗
    区别|原理|什么意思|翻译|英文|英语
    """)
_ZH_VOLATILE = _Forms(
    r"""
    <NOW>(?!的?(?:密码|文件|窗口|页面|目录|用户|电流))|几点了
    最新的?.{0,8}?(?:消息|新闻|版本|进展|价格|行情|动态|比分|政策|型号)|实时.{0,4}?(?:价格|行情|汇率|路况|股价|比分)
    天气(?:怎么样|好吗)|下[雨雪]吗|(?:汇率|股价|油价|金价|币价)(?:是|现在)?多少
    <MONEY>(?:等于|兑|换|能换).{0,4}(?:多少|<MONEY>)|还有(?:多少天|几天|多久)(?:到|过|才)
    下一?[班趟场](?:车|火车|地铁|公交|飞机|航班|比赛)?.{0,6}(?:几点|什么时候|何时)
    """,
    NOW="现在|当前|目前|此刻|眼下|[今明后昨]天|今日|今[晚早]|昨晚|[本这]周|这?个?周末|本月",
    MONEY="美元|欧元|英镑|日元|人民币",
)
_ZH_TOLD = re.compile(
    r"我(?:们)?.{0,6}(?:现在|目前|今天|昨天|昨晚|今早|明天|当前)|(?:现在|目前|今天|昨天|昨晚)我|如果|假如"
)
_ZH_ASKS = re.compile(r"\?|吗|呢|什么|多少|几|谁|哪|怎么样")
_ZH_PERSONAL = _Forms(
    r"""
    我的?.{0,6}?<RECORD>.{0,6}?(?:到哪|在哪|哪儿|哪里|什么时候|何时|几点|多少|状态|还剩|还有)
    我的?.{0,6}?<RECORD>.{0,6}?(?:发货|发出|到了|到账|好了|完成|通过|到期|过期)
    (?:查|查询|查看|查一下|看看|告诉我|取消|追踪)(?:一下)?我的?.{0,6}?<RECORD>
    我(?:还|一共|总共|现在)?(?:有|剩|欠|花了|消费了)(?:了)?多少|我(?:有没有|是不是|是否)(?:已经)?.{1,12}(?:过|了)
    我(?:上次|最近一次|下次|下一次).{0,10}(?:什么时候|何时|多少|几点|是什么)
    我叫什么|我是谁|我的(?:名字|地址|手机号)是
    """,
    RECORD="订单|快递|包裹|物流|退款|余额|账单|发票|积分|预约|预订|机票|车票|航班|工资|成绩|话费|流量|套餐|贷款|欠款|理赔"
    "|申请|会员|年假|日程|行李|维修单|优惠券",
)

_NONE: frozenset[str] = frozenset()
_NO_MARKS = str.maketrans("?!.,;:()", " " * 8)


def volatile(text: str) -> bool:
    """Whether the right answer changes with the moment: the time, the weather, prices, what is so "right now".

    >>> volatile("What is the weather like in Oslo?"), volatile("What is the current in a 5 ohm resistor?")
    (True, False)
    """
    return "volatile" in circumstances(text)


def personal(text: str) -> bool:
    """Whether the right answer depends on who asks: his orders, his balance, what he did.

    >>> personal("Where is my package?"), personal("How do I change my password?")
    (True, False)
    """
    return "personal" in circumstances(text)


def circumstances(text: str) -> frozenset[str]:
    """What the right answer depends on: "volatile", "personal", both or nothing."""
    # A memo of long texts would fill the memory.
    return _NONE if len(text) > LONGEST else _circumstances(text)


@lru_cache(maxsize=16_384)
def _circumstances(text: str) -> frozenset[str]:
    plain = unicodedata.normalize("NFKC", text).replace("’", "'").casefold()
    if not _QUOTES.isdisjoint(plain):
        plain = _QUOTED.sub(" ", plain)
    plain = " ".join(plain.split())
    return frozenset(_chinese(plain) if _HAN.search(plain) else _english(plain))


def _english(plain: str) -> list[str]:
    words = set(plain.translate(_NO_MARKS).split())
    found = []
    # Few texts have the words without which an expression need not be tried.
    moment = _VOLATILE.search(plain) or (not words.isdisjoint(_MOMENTS) and _of_a_moment(plain))
    if moment and _ASKS.search(plain) and not _CLIMATE.search(plain):
        found.append("volatile")
    if not words.isdisjoint(_FIRST_PERSON) and _PERSONAL.search(plain):
        found.append("personal")
    return [] if found and _OTHER.search(plain) else found


def _of_a_moment(plain: str) -> bool:
    return bool(_MOMENT.search(plain) and not _TOLD.search(plain))


def _chinese(plain: str) -> list[str]:
    if _ZH_OTHER.search(plain):
        return []
    found = []
    if _ZH_VOLATILE.search(plain) and not _ZH_TOLD.search(plain) and _ZH_ASKS.search(plain):
        found.append("volatile")
    if _ZH_PERSONAL.search(plain):
        found.append("personal")
    return found
