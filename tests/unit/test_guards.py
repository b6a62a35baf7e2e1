"""Guards refuse a neighbour whose answer would be another one, and let every rewording pass."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatch_core.guards import DEFAULT_GUARDS, refusal

REFUSED = [
    # number
    ("How do I invest 60k for ten years?", "How do I invest 50k for ten years?", "number"),
    ("Can I transfer sixty thousand dollars abroad?", "Can I transfer $70,000 abroad?", "number"),
    ("What happens in the first trimester?", "What happens in the third trimester?", "number"),
    ("Who won the 2014 world cup?", "Who won the 2018 world cup?", "number"),
    ("How do I tile a 2.5 m wall?", "How do I tile a 3.5 m wall?", "number"),
    ("Can I have two accounts?", "Can I have one account?", "number"),
    ("Is 5% interest on a loan high?", "Is 15% interest on a loan high?", "number"),
    ("How many eggs are in a dozen boxes?", "How many eggs are in two dozen boxes?", "number"),
    ("What can I cook in half an hour?", "What can I cook in two hours?", "number"),
    ("What is new in Python 3.11?", "What is new in Python 3.12?", "number"),
    ("Is the iPhone 12 waterproof?", "Is the iPhone 13 waterproof?", "number"),
    ("How does GPT-4 handle images?", "How does GPT handle images?", "number"),
    ("What does HTTP status 404 mean?", "What does HTTP status 403 mean?", "number"),
    ("Does the bus leave at 10:30?", "Does the bus leave at 10:45?", "number"),
    # unit
    ("How long does it take to run 10 km?", "How long does it take to run 10 miles?", "unit"),
    ("What can I buy for $500?", "What can I buy for €500?", "unit"),
    ("Can I return the shoes after 3 weeks?", "Can I return the shoes after 3 days?", "unit"),
    ("Is 70 kg a healthy weight?", "Is 70 lbs a healthy weight?", "unit"),
    ("How long is the warranty in months?", "How long is the warranty in weeks?", "unit"),
    # date
    ("Are you open on Monday?", "Are you open on Sunday?", "date"),
    ("What is the weather in March?", "What is the weather in May?", "date"),
    ("Can I pick it up in the morning?", "Can I pick it up in the evening?", "date"),
    ("Is the pharmacy open at 9 am?", "Is the pharmacy open at 9 pm?", "date"),
    ("Do you deliver parcels at the weekend?", "Do you deliver parcels?", "date"),
    ("Will it rain tomorrow?", "Will it rain today?", "date"),
    # a script that nobody reads here, and what denies elsewhere in Europe
    ("Как включить Bluetooth?", "Как выключить Bluetooth?", "language"),
    ("Bluetoothをオンにする方法", "Bluetoothをオフにする方法", "language"),
    ("비밀번호를 어떻게 재설정하나요?", "비밀번호 재설정 방법", "language"),
    ("كيف أعيد تعيين كلمة المرور؟", "How do I reset my password?", "language"),
    ("Kann ich mit Karte zahlen?", "Kann ich nicht mit Karte zahlen?", "negation"),
    ("Puis-je payer par carte ?", "Puis-je payer sans carte ?", "negation"),
    ("Posso pagar com cartão?", "Não posso pagar com cartão?", "negation"),
    ("Kan ik met kaart betalen?", "Kan ik niet met kaart betalen?", "negation"),
    ("¿Puedo pagar con tarjeta?", "¿No puedo pagar con tarjeta?", "negation"),
    ("Czy mogę płacić kartą?", "Czy nie mogę płacić kartą?", "negation"),
    # negation
    ("Why can't I log in?", "Why can I log in?", "negation"),
    ("Which foods should I not eat?", "Which foods should I eat?", "negation"),
    ("Why isnt my invoice showing?", "Why is my invoice showing?", "negation"),
    ("Can I travel with no passport?", "Can I travel on a passport?", "negation"),
    ("Is it possible to change my name?", "Is it impossible to change my name?", "negation"),
    ("How do I stop my dog from barking?", "How do I get my dog barking?", "negation"),
    ("Which planets have moons?", "Which planets have no moons?", "negation"),
    ("Who has never won an Oscar?", "Who has won an Oscar?", "negation"),
    ("Dont I qualify if I was rejected?", "Do I qualify if I was accepted?", "negation"),
    ("How do I avoid paying the fee?", "How do I pay the fee?", "negation"),
    # antonym
    ("How do I open a bank account?", "How do I close a bank account?", "antonym"),
    ("How can I increase my screen brightness?", "How can I reduce my screen brightness?", "antonym"),
    ("How do I turn on notifications?", "How do I turn notifications off?", "antonym"),
    ("When is the best time for buying gold?", "When is the best time to sell gold?", "antonym"),
    ("Should I stretch before running?", "Should I stretch after running?", "antonym"),
    ("What are the cheapest phones?", "What are the most expensive phones?", "antonym"),
    ("How do I find the minimum of a list?", "How do I find the maximum of a list?", "antonym"),
    ("Why is my upload so slow?", "Why is my download so slow?", "antonym"),
    ("How do I replace the front brakes?", "How do I replace the rear brakes?", "antonym"),
    ("How do I import contacts?", "How do I export contacts?", "antonym"),
    ("Can I withdraw cash here?", "Can I deposit cash here?", "antonym"),
    ("How do I sort ascending?", "How do I sort descending?", "antonym"),
    ("How do I encrypt a disk?", "How do I decrypt a disk?", "antonym"),
    ("Can I pay with a card?", "Can I pay without a card?", "negation"),
    ("What is a good gift for my husband?", "What is a good gift for my wife?", "antonym"),
    ("What are the advantages of solar power?", "What are the disadvantages of solar power?", "antonym"),
    # question word
    ("When was the bridge built?", "Where was the bridge built?", "question-word"),
    ("Who invented the telephone?", "When was the telephone invented?", "question-word"),
    ("How much water should I drink?", "How many times should I drink water?", "question-word"),
    ("How long is the flight?", "How far is the flight?", "question-word"),
    ("Why does bread rise?", "How does bread rise?", "question-word"),
    ("How often should I water a cactus?", "How much should I water a cactus?", "question-word"),
    ("Does the sky look blue?", "Why does the sky look blue?", "question-word"),
    # entity
    ("How do I get a visa for Japan?", "How do I get a visa for China?", "entity"),
    ("can i pay by paypal", "can i pay by klarna", "entity"),
    ("How do I install Docker on Windows?", "How do I install Docker on Ubuntu?", "entity"),
    ("What are the best laptops in India?", "What are the best laptops?", "entity"),
    ("how do i sort a list in python", "how do i sort a list in java", "entity"),
    ("Do you have this shirt in red?", "Do you have this shirt in blue?", "entity"),
    ("How do I make a bucket public in S3?", "How do I make a bucket public?", "entity"),
    ("What did Einstein say about time?", "What did Newton say about time?", "entity"),
    ("How many people speak French?", "How many people speak Spanish?", "entity"),
    ("How hot is Venus?", "How hot is Mars?", "entity"),
    ("How do I deploy on AWS?", "How do I deploy on GCP?", "entity"),
    ("What is the NATO budget?", "What is the budget?", "entity"),
    # substitution
    ("How do I cancel my flight?", "How do I cancel my hotel?", "substitution"),
    ("What is the capital gains tax?", "What is the capital gains form?", "substitution"),
    ("How do I clean a leather sofa?", "How do I clean a velvet sofa?", "substitution"),
    ("How do I peel a mango?", "How do I peel a pineapple?", "substitution"),
    ("Who wrote the national anthem?", "Who wrote the national constitution?", "substitution"),
    # quotations and code
    ('What does "carpe diem" mean?', 'What does "memento mori" mean?', "quote"),
    ("How do I say 'good night' in Korean?", "How do I say 'thank you' in Korean?", "quote"),
    ("What does user_id mean here?", "What does order_id mean here?", "code"),
    ("What does docker run --rm do?", "What does docker run --init do?", "code"),
    ("When is os.path.join() wrong?", "When is os.path.split() wrong?", "code"),
    ("Who may read /etc/passwd?", "Who may read /etc/shadow?", "code"),
    ("What is grep -v for?", "What is grep -V for?", "code"),
    ("How do I fix error E1234?", "How do I fix error E1235?", "entity"),
    ("How do I learn C++?", "How do I learn C#?", "code"),
    # Chinese
    ("六万元怎么投资", "7万元怎么投资", "number"),
    ("为什么我不能登录", "为什么我能登录", "negation"),
    ("怎么打开定位", "怎么关闭定位", "antonym"),
    ("在哪里买股票", "在哪里卖股票", "antonym"),
    ("这座桥是谁建的", "这座桥是什么时候建的", "question-word"),
    ("从北京到上海怎么走", "从上海到北京怎么走", "swap"),
    ("人民币换美元怎么算", "美元换人民币怎么算", "swap"),
    ("iPhone怎么截图", "小米怎么截图", "entity"),
    ("上海有什么好吃的", "成都有什么好吃的", "entity"),
    ("苹果怎么保存", "香蕉怎么保存", "substitution"),
    ("10公里要跑多久", "10英里要跑多久", "entity"),
    ("饭前能吃药吗", "饭后能吃药吗", "antonym"),
    # a name and its bigger brother
    ("What is the range of the Galaxy Plus?", "What is the range of the Galaxy?", "entity"),
    ("How loud is the Vento Mini?", "how loud is the vento", "entity"),
    # with and without
    ("Do you sell peanut-free snacks?", "Do you sell peanut snacks?", "negation"),
    ("How do I bake sugar free cookies?", "How do I bake sugar cookies?", "negation"),
    ("Do you sell fat yogurt?", "Do you sell low fat yogurt?", "negation"),
    ("Do you sell fat yogurt?", "Do you sell low-fat yogurt?", "negation"),
    ("How do I make sugar cookies?", "How do I make sugarless cookies?", "negation"),
    ("What is the toll road route?", "What is the toll-free road route?", "negation"),
    # what is given for what
    ("Can I give you a gift card and get cash?", "Can I pay cash and get a gift card?", "swap"),
    ("Can I return the phone and keep the case?", "Can I keep the phone and return the case?", "swap"),
    # quantifiers and alternatives
    ("Are some items refundable?", "Are all items refundable?", "quantifier"),
    ("Are most plans refundable?", "Are all plans refundable?", "quantifier"),
    ("Do only members get discounts?", "Do members get discounts?", "quantifier"),
    ("Do I always need a receipt?", "Do I need a receipt?", "quantifier"),
    ("Has it ever failed?", "Has it always failed?", "quantifier"),
    ("Can both parents sign?", "Can either parent sign?", "quantifier"),
    ("Does the tenant or landlord pay for repairs?", "Does the landlord pay for repairs?", "quantifier"),
    ("Is the free or paid plan required?", "Is the paid plan required?", "quantifier"),
    # opposites by stance and prefix
    ("What are the arguments for nuclear power?", "What are the arguments against nuclear power?", "antonym"),
    ("Are you in favour of the ban?", "Are you against the ban?", "antonym"),
    ("Which plans have ads?", "Which plans lack ads?", "negation"),
    ("What is the fee for members?", "What is the fee for non-members?", "antonym"),
    ("What is the policy for used goods?", "What is the policy for unused goods?", "antonym"),
    ("Where are paid invoices?", "Where are unpaid invoices?", "antonym"),
    ("How do verified accounts work?", "How do unverified accounts work?", "antonym"),
    ("Are residents taxed?", "Are nonresidents taxed?", "antonym"),
    # particles and time
    ("How do I zoom in?", "How do I zoom out?", "antonym"),
    ("How do I opt in?", "How do I opt out?", "antonym"),
    ("How do I back in the trailer?", "How do I back out the trailer?", "antonym"),
    ("How do I log in to the portal?", "How do I log out of the portal?", "antonym"),
    ("Can I eat before the test?", "Can I eat during the test?", "antonym"),
    ("Can I eat during the test?", "Can I eat after the test?", "antonym"),
    ("What are the sales this month?", "What are the sales last month?", "date"),
    ("Are you open next week?", "Are you open this week?", "date"),
    ("Can I pay now?", "Can I pay later?", "antonym"),
    # Roman numerals
    ("Who was Henry VIII?", "Who was Henry VII?", "number"),
    ("When was John Paul II born?", "When was John Paul I born?", "number"),
    ("Where can I watch Godfather Part II?", "Where can I watch Godfather Part III?", "number"),
    ("When did World War I start?", "When did World War II start?", "number"),
    ("who was louis xiv", "who was louis xvi", "number"),
    ("Which console is Rocky IV on?", "Which console is Rocky III on?", "number"),
    # modals
    ("Do I have to file a return?", "Should I file a return?", "modality"),
    ("Can I file a return?", "Should I file a return?", "modality"),
    ("Must I file a return?", "Can I file a return?", "modality"),
    ("Do employees have to wear a badge?", "Can employees wear a badge?", "modality"),
    ("Should the landlord repair the roof?", "Must the landlord repair the roof?", "modality"),
    ("Might the price change?", "Must the price change?", "modality"),
    # another word with a capital
    ("How do I clean Polish pottery?", "How do I polish pottery?", "entity"),
    ("How long do I roast Turkey?", "How long do I roast turkey?", "entity"),
    ("Where can I buy China plates?", "Where can I buy china plates?", "entity"),
    ("What can I do in Reading?", "What can I do in reading?", "entity"),
    ("Is there life on Mercury?", "Is there life on mercury?", "entity"),
    ("How do I find a Job quote?", "How do I find a job quote?", "entity"),
    # the rest of a template says the same word
    (
        "Context: returns of unused goods are free. Question: what is the policy for used goods?",
        "Context: returns of unused goods are free. Question: what is the policy for unused goods?",
        "antonym",
    ),
    (
        "Colours: red, blue. Question: is it sold in red?",
        "Colours: red, blue. Question: is it sold in blue?",
        "entity",
    ),
    (
        "Paris is bigger than Lyon. Question: how big is Paris?",
        "Paris is bigger than Lyon. Question: how big is Lyon?",
        "entity",
    ),
    (
        "We open on Monday and close on Sunday. Are you there on Monday?",
        "We open on Monday and close on Sunday. Are you there on Sunday?",
        "date",
    ),
    (
        "Rules: every visitor must wear a badge at all times. Question: can I smoke?",
        "Rules: every visitor must wear a badge at all times. Question: should I smoke?",
        "modality",
    ),
    (
        "Given a mango and a pineapple in my kitchen tell me how I peel a mango with a knife",
        "Given a mango and a pineapple in my kitchen tell me how I peel a pineapple with a knife",
        "substitution",
    ),
]

ALLOWED = [
    ("Привет, мир", "привет, мир"),
    ("Is there a gluten free menu?", "Do you have a gluten-free menu?"),
    ("Is delivery free?", "Is the delivery free of charge?"),
    ("How do I get a refund and cancel my order?", "How do I cancel my order and get a refund?"),
    ("Can I use a gift card to pay the fee?", "Can I pay the fee using a gift card?"),
    ("Was kostet das Abo?", "was kostet das Abo"),
    ("How is π defined?", "What is the definition of π?"),
    ("What does Premium cost?", "what does premium cost"),
    # politeness, contractions, case, punctuation
    ("How do I reset my password?", "how can i reset my password"),
    ("Could you please tell me how to cancel my order?", "How do I cancel my order?"),
    ("Hi, what's your return policy?", "what is your return policy"),
    ("WHAT IS THE CAPITAL OF FRANCE", "What is the capital of France?"),
    ("I'd like to know how to change my address, thanks!", "How do I change my address?"),
    ("Hello Maria, how do I export a report?", "How do I export a report?"),
    ("Good morning, where is my parcel?", "Where is my parcel?"),
    ("I don't know how to update the app", "How do I update the app?"),
    ("I'm not sure how to set up my printer", "How do I set up my printer?"),
    ("Why doesn't my card work?", "Why does my card not work?"),
    ("Why cant I log in?", "Why can't I log in?"),
    ("Why can not I sign in?", "Why can't I log in?"),
    ("Can't I just use my phone?", "Can I just use my phone?"),
    ("Isn't it possible to pay later?", "Is it possible to pay later?"),
    ("What is the way to delete my account?", "How do I delete my account?"),
    ("Is there a way to delete my account?", "How can I delete my account?"),
    # inflection, spelling, typos, word order
    ("How do I cancel subscriptions?", "How do I cancel my subscription?"),
    ("What's the best way of learning guitar?", "What is the best way to learn guitar?"),
    ("How do I chnage my email?", "How do I change my email?"),
    ("How do I recieve a refund?", "How do I receive a refund?"),
    ("What is the favourite colour of children?", "What is the favorite color of children?"),
    ("In Python, how do I sort a list?", "How do I sort a list in Python?"),
    ("For a cake, how much sugar do I need?", "How much sugar do I need for a cake?"),
    ("What is the order status?", "What is the status of the order?"),
    ("My payment was declined, why?", "Why was my payment rejected?"),
    ("How do I get the e-mail address changed?", "How do I change the email address?"),
    ("How do I organise my photos?", "How do I organize my photos?"),
    ("Which books are worth reading?", "Which book is worth reading?"),
    ("Was YouTube bought by Google?", "Did Google buy YouTube?"),
    ("Where is the nearest ATM?", "where's the nearest atm"),
    # synonyms
    ("Where can I buy stamps?", "Where can I purchase stamps?"),
    ("How do I send back an item?", "How do I return an item?"),
    ("How do I fix a leaking tap?", "How do I repair a leaking tap?"),
    ("How do I sign up for the newsletter?", "How do I register for the newsletter?"),
    ("How do I get rid of ants?", "How do I eliminate ants?"),
    ("What are some good ways to lose weight fast?", "What are the best methods to lose weight quickly?"),
    ("How can I improve my handwriting?", "How can I enhance my handwriting?"),
    ("How do I turn on dark mode?", "How do I enable dark mode?"),
    ("How do I switch off location?", "How do I disable location?"),
    ("What's the price of the basic plan?", "How much does the basic plan cost?"),
    ("How do I track my package?", "How do I track my parcel?"),
    ("Is it hard to learn chess?", "Is it difficult to learn chess?"),
    ("How do I choose a mattress?", "How do I pick a mattress?"),
    ("What is the meaning of recursion?", "What is the definition of recursion?"),
    ("How do I merge two dictionaries?", "How do I combine two dictionaries?"),
    ("How do I create a folder?", "How do I make a directory?"),
    ("What is the salary of a pilot?", "How much do pilots earn?"),
    # numbers, units, dates
    ("How do I invest 60k?", "How do I invest 60,000?"),
    ("How do I invest $60,000?", "How do I invest sixty thousand dollars?"),
    ("Can I have two accounts?", "Can I have 2 accounts?"),
    ("Is 1.50 enough of a tip?", "Is 1.5 enough of a tip?"),
    ("How far is 5 kilometres?", "How far is 5 km?"),
    ("How far is 5km?", "How far is 5 kms?"),
    ("What can I do in a year?", "What can I do in 1 year?"),
    ("Who was the 1st king of Norway?", "Who was the first king of Norway?"),
    ("How do I bake a dozen muffins?", "How do I bake 12 muffins?"),
    ("Is 50% a lot of tax?", "Is 50 percent a lot of tax?"),
    ("Is a hundred and twenty volts dangerous?", "Is 120 volts dangerous?"),
    ("Which one should I choose?", "Which should I choose?"),
    ("Are you open at 10:00 am?", "Are you open at 10am?"),
    ("Are you open on Mondays?", "Are you open on monday?"),
    ("What is the weather in Sept?", "What's the weather in September?"),
    ("May I bring a friend?", "Can I bring a friend?"),
    ("How do I survive with no money?", "How do I survive without money?"),
    ("How do I retire with 2.5 million?", "How do I retire with two and a half million?"),
    # names
    ("Is the iphone 12 waterproof?", "Is the iPhone 12 water-proof?"),
    ("How does gpt4 work?", "How does GPT-4 work?"),
    ("How do I get a Visa card?", "how do i get a visa card"),
    ("Who is the president of the United States?", "Who is the president of the USA?"),
    ("Who is the president of the US?", "Who is the American president?"),
    ("How do I open an SBI account?", "How do I open a State Bank of India account?"),
    ("What is machine learning?", "What is ML?"),
    ("Does pay pal charge fees?", "Does PayPal charge fees?"),
    ("What Is The Best Way To Learn Drawing?", "What is the best way to learn drawing?"),
    ("Is Node.js single threaded?", "Is node single threaded?"),
    # question words that agree
    ("Where can I buy bitcoin?", "How can I buy bitcoin?"),
    ("What time does the shop open?", "When does the shop open?"),
    ("What is the reason for tides?", "Why are there tides?"),
    ("How come the sky is blue?", "Why is the sky blue?"),
    ("How soon will it ship?", "When will it ship?"),
    ("Do you know where the museum is?", "Where is the museum?"),
    ("Which person invented the radio?", "Who invented the radio?"),
    ("Why do I get an error when I save?", "Why do I get an error if I save?"),
    # quotations and code
    ('What does "idempotent" mean?', "What does idempotent mean?"),
    ("What does `user_id` mean?", "what does user_id mean"),
    ("When should I call os.path.join()?", "When should I call os.path.join?"),
    ("What does docker run --rm do?", "what does `docker run --rm` do"),
    # Chinese
    ("如何重置密码？", "怎么重置密码"),
    ("请问怎么取消订单", "怎么取消订单？"),
    ("六万元怎么投资", "60000元怎么投资"),
    ("这个能不能退货", "这个可以退货吗"),
    ("是不是要签证", "是否需要签证"),
    ("在哪儿买邮票", "哪里可以购买邮票"),
    ("不知道怎么登录", "怎么登录"),
    ("iphone怎么截图", "iPhone 怎么截图？"),
    # quantifiers and alternatives that change nothing
    ("Do you have any vegan options?", "Do you have vegan options?"),
    ("Does the app work on all devices?", "Does the app work on every device?"),
    ("How do I delete all my data?", "How do I delete my data?"),
    ("Has anyone ever used this with Django?", "Has anyone used this with Django?"),
    ("What is the most popular plan?", "Which plan is most popular?"),
    ("Is it safe or dangerous to swim here?", "Is it safe to swim here?"),
    ("Is the app free or paid?", "Is the app free?"),
    ("How many days or weeks does it take?", "How many days does it take?"),
    # opposites that are none
    ("Where can I find insurance against theft?", "Where can I find insurance for theft?"),
    ("How do I protect my site against bots?", "How do I protect my site from bots?"),
    ("Why do I lack energy?", "Why do I have no energy?"),
    ("How do I join a union?", "How do I join the union?"),
    ("Which non-members may attend?", "Which nonmembers may attend?"),
    # particles and time
    ("How do I back up my data?", "How do I back my data up?"),
    ("How do I zoom in on a map?", "How can I zoom in on the map?"),
    ("What is the weather this week?", "What is the weather?"),
    ("Should I upgrade now?", "Should I upgrade?"),
    ("What happened last year?", "What happened in the last year?"),
    # Roman numerals
    ("Who was Henry the Eighth?", "Who was Henry VIII?"),
    ("When did World War II end?", "when did world war 2 end"),
    ("When did World War I end?", "When did World War One end?"),
    ("who was john paul ii", "Who was John Paul II?"),
    # modals
    ("Do I have to create an account?", "Must I create an account?"),
    ("May I change my address?", "Could I change my address?"),
    ("Could you tell me if I have to pay duty?", "Do I have to pay duty?"),
    ("How should I configure logging?", "How can I configure logging?"),
    ("What should I do if I lose my card?", "What can I do if I lose my card?"),
    ("Is it possible to get an extension?", "Can I get an extension?"),
    # capitals that change nothing
    ("How do I polish silver?", "how do i polish silver"),
    ("HOW LONG DO I ROAST TURKEY", "How long do I roast turkey?"),
    ("Is Turkey in Europe?", "is turkey in europe"),
    ("How do I reset my Apple ID?", "How do I reset my apple ID?"),
    # long texts that share most of what they say
    (
        "Context: returns of unused goods are free. Question: what is the policy for used goods?",
        "Context: returns of unused goods are free. Question: what's your policy for used goods?",
    ),
    ("My order is late. Where is my order?", "Where is my order? It is late."),
    (
        "Rules: every visitor must wear a badge at all times. Question: can I smoke?",
        "Rules: every visitor must wear a badge at all times. Question: may I smoke?",
    ),
    (
        "We sell red bikes and blue bikes in Ghent. Question: how do I order the red bike?",
        "We sell red bikes and blue bikes in Ghent. Question: how can I order a red bike?",
    ),
]

SPOKEN = """
how do i can not cancel my order two 2 60k sixty thousand Paris paris london from to than before after
when where why open close red blue S3 user_id --rm "x" python java 5 km miles monday is without , . ? 不
能 从 到 北京 上海 六万 half a dozen won't US us the state bank of india SBI turn on off
he her call boss must should all only some most
unused used zoom in out henry viii ii next week later or turkey polish against lack non my
"""
WORDS = SPOKEN.split()
sentences = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
anything = st.text(st.characters(), max_size=60)
plain = st.lists(
    st.sampled_from([w for w in WORDS if w[0] in string.ascii_letters and w not in {"US", "us", "SBI"}]),
    max_size=12,
).map(" ".join)


@pytest.mark.parametrize(("asked", "stored", "reason"), REFUSED)
def test_another_answer_is_refused_with_its_reason(asked: str, stored: str, reason: str) -> None:
    assert refusal(asked, stored) == reason
    assert refusal(stored, asked) == reason


@pytest.mark.parametrize(("asked", "stored"), ALLOWED)
def test_a_rewording_passes(asked: str, stored: str) -> None:
    assert refusal(asked, stored) is None
    assert refusal(stored, asked) is None


@pytest.mark.parametrize("text", sorted({text for pair in [*REFUSED, *ALLOWED] for text in pair[:2]}))
def test_a_question_typed_differently_is_the_same_question(text: str) -> None:
    for typed in (f"  {text.replace(' ', '   ')}\n", f"{text.rstrip('.?!？ ')} ?", text.rstrip(".?!？ ")):
        assert refusal(text, typed) is None


@given(sentences, sentences)
@example("trains required tuple? forgive read buy", "tuple? required trains invoices? read buy")
def test_guards_are_symmetric_on_sentences(a: str, b: str) -> None:
    for guard in DEFAULT_GUARDS:
        assert guard(a, b) == guard(b, a)


@given(anything, anything)
def test_guards_are_symmetric_and_never_raise_on_any_text(a: str, b: str) -> None:
    for guard in DEFAULT_GUARDS:
        assert guard(a, b) == guard(b, a)


@given(st.one_of(sentences, anything))
@example("cancel from order from cancel")
@example("users buy by, apps")
def test_a_text_is_never_refused_for_itself(text: str) -> None:
    assert refusal(text, text) is None


@given(plain)
def test_case_does_not_matter(text: str) -> None:
    assert refusal(text, text.lower()) is None
    assert refusal(text, text.upper()) is None


def test_lone_surrogates_are_read_like_any_character() -> None:
    assert refusal("price of \ud83d 5", "price of \udc00 6") == "number"


def test_very_long_numbers_and_texts_are_read() -> None:
    digits = "9" * 9000
    assert refusal(f"factor {digits}", f"factor {digits}8") == "number"
    assert refusal("/" * 5000 + "a" * 5000, "a." * 5000) is not None
    for run in ("two hundred and ", "million ", "99999999999999999999 thousand twenty five ", "九亿", "turn "):
        assert refusal(run * 900, run * 900) is None


def test_rules_of_a_language_are_silent_on_another() -> None:
    assert refusal("wie öffne ich ein Konto", "wie eröffne ich ein Konto", ()) is None
    assert all(guard("你不好", "you are not well") is None for guard in DEFAULT_GUARDS)


def test_the_callers_guards_are_asked_in_order() -> None:
    assert refusal("a", "b", [lambda a, b: None, lambda a, b: "mine", lambda a, b: "late"]) == "mine"


def test_white_space_without_end_says_nothing() -> None:
    asked = "How do I open a bank account for my child?"
    assert refusal(asked + "\n" * 100_000, f"{asked}\n", DEFAULT_GUARDS) is None
