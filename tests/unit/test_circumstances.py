"""Questions whose right answer depends on the moment or on who asks, and questions that only sound like it."""

from __future__ import annotations

import time

import pytest

from dispatch_core.circumstances import LONGEST, personal, volatile

VOLATILE = """
    What time is it?
    what time is it in Tokyo
    What's the time?
    What day is it today?
    what is today's date
    What is the weather like today?
    How's the weather in Lisbon?
    Will it rain tomorrow?
    Is it snowing in Oslo?
    weather forecast for Madrid this weekend
    What is the current price of gold?
    what's the latest version of Python
    What are the latest news headlines?
    Who is the current president of France?
    What is the exchange rate between the dollar and the euro?
    How much is one euro in dollars?
    how many yen to 100 usd
    What is the price of bitcoin?
    How much is a bitcoin?
    what is the stock price of Siemens
    Which of your stores are open right now?
    Is the service down at the moment?
    Are you open today?
    What films are on tonight?
    Who is winning the match?
    When is the next train to Ghent?
    How many days until Christmas?
    What's the traffic like on the ring road right now?
    Who is the prime minister now?
    which laptops are currently on sale
    What are this week's offers?
    Can you tell me the current temperature in Rome?
    现在几点了？
    今天星期几？
    今天天气怎么样
    明天北京会下雨吗
    美元兑人民币的汇率是多少
    苹果的最新股价是多少
    最新的新闻有哪些
    你们今天营业吗？
    现在油价多少
    下一班火车几点开？
    """

PERSONAL = """
    Where is my package?
    where's my order
    Where is my refund
    What is my balance?
    What's my account balance
    what is the status of my order
    Show me my last invoice
    check my balance
    Track my order
    please cancel my appointment
    Has my order shipped?
    has my payment been received yet
    Did my refund go through?
    Is my order on its way?
    When will my parcel arrive?
    When is my next appointment?
    When does my subscription end?
    Did I pay the invoice?
    Have I already used my voucher?
    How much do I owe?
    How many vacation days do I have left?
    How many points do I have?
    When did I last order?
    What did I buy in March?
    Am I enrolled in the course?
    What's my name?
    Who am I?
    What was my last order?
    Do I owe anything?
    Is my flight delayed?
    我的快递到哪了？
    我的订单什么时候发货
    我的余额是多少
    查一下我的订单
    我还剩多少积分
    我的退款到账了吗
    我叫什么名字
    我有没有交过押金
    我下次预约是什么时候
    """

NEITHER = """
    How do I change my password?
    Why was my card declined?
    What is the current in a 5 ohm resistor?
    What does NOW() return in SQL?
    what is the current limit of the charger
    How do I check my balance?
    How can I track my order?
    Where can I see my order history?
    where do I find my invoice
    Can I cancel my order?
    Can I return a bike that I bought yesterday?
    I ordered today, can I still change the address?
    My order has not arrived. What should I do?
    What do I do if my package is lost?
    What happens to my points when I close my account?
    How long does it take for my refund to arrive?
    Why is my balance negative?
    What is the difference between today and now in this context?
    How do you say "what time is it" in French?
    How do I say good morning in Japanese?
    Translate "where is my order" to German
    What does 'currently unavailable' mean?
    What is the weather like in Lisbon in May?
    How does the weather affect tyre pressure?
    Are your tents weather resistant?
    What is an exchange rate?
    How are exchange rates set?
    What is the latest time I can check in?
    Orders must be in by noon at the latest, is that right?
    Is the warranty valid if I am currently abroad?
    I am currently using the free plan, what does the paid plan add?
    What is alternating current?
    How is the current price of a bond calculated?
    Which stores are open on Sunday?
    What are your opening hours?
    Do I have to register?
    Do I need a receipt for a refund?
    Have I got to pay customs on parcels from abroad?
    Is my bike covered by the warranty when I race?
    Should I update my app now?
    Can I do it now?
    What should my tyre pressure be?
    What is the time complexity of quicksort?
    What is the date format in ISO 8601?
    how do I get the current date in Python
    Explain the theory of the present moment in Augustine
    Tell me about the history of today's Belgium
    The order of my arguments is wrong, isn't it?
    What is my options menu for?
    Who am I speaking to?
    When do my points expire?
    Is there a live chat?
    Does the charger have a live wire?
    如何修改我的密码？
    为什么我的卡被拒了
    怎么查询我的订单
    现在怎么取消订单
    我昨天买的自行车可以退吗
    汇率是怎么计算的
    “今天天气怎么样”用英语怎么说
    当前窗口怎么关闭
    5欧姆电阻中的电流是多少
    我的订单可以取消吗
    天气对轮胎有影响吗
    如果我的包裹丢了怎么办
    """


def lines(block: str) -> list[str]:
    return [line.strip() for line in block.strip().splitlines()]


@pytest.mark.parametrize("text", lines(VOLATILE))
def test_these_depend_on_the_moment(text):
    assert volatile(text)


@pytest.mark.parametrize("text", lines(PERSONAL))
def test_these_depend_on_who_asks(text):
    assert personal(text)


@pytest.mark.parametrize("text", lines(NEITHER))
def test_these_depend_on_neither(text):
    assert not volatile(text)
    assert not personal(text)


def test_a_question_may_depend_on_both():
    text = "When is my next appointment, and what is the weather today?"
    assert volatile(text)
    assert personal(text)


@pytest.mark.parametrize("text", ["", " ", "?", "now", "my", "\ud800", "I", "我", "'", '"', "(" * 500])
def test_no_text_is_too_odd(text):
    assert not volatile(text)
    assert not personal(text)


def test_spelling_and_politeness_make_no_difference():
    for text in ("WHERE IS MY PACKAGE", "hi, where’s my package please?", "  where is\u00a0my   package"):
        assert personal(text)


def test_a_long_text_is_no_plain_question():
    text = "Where is my package? "
    assert personal(text * (LONGEST // len(text)))
    assert not personal(text * (LONGEST // len(text) + 1))


@pytest.mark.parametrize(
    "piece",
    [
        "my ",
        "what is ",
        "how many ",
        "i have ",
        "how is ",
        "when ",
        "today ",
        "我的",
        "我可以",
        "'a",
        "the next ",
        "f(",
        "a",
    ],
)
def test_twice_the_length_takes_at_most_four_times_as_long(piece):
    def seconds(length: int) -> float:
        began = time.process_time()
        for number in range(10):
            volatile(f"{(piece * length)[: length - 3]}{number:3}")
        return time.process_time() - began

    seconds(LONGEST)
    assert seconds(LONGEST) < 6 * seconds(LONGEST // 2) + 0.05
