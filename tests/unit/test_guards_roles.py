"""Guards tell who does what to whom, and let a question be asked in another order."""

from __future__ import annotations

import pytest

from dispatch_core.guards import refusal

EXCHANGED = [
    # swap
    ("How do I get from Oxford to Bristol?", "How do I get from Bristol to Oxford?"),
    ("How do I convert pdf to word?", "How do I convert word to pdf?"),
    ("Is tea better than coffee?", "Is coffee better than tea?"),
    ("Can I use butter instead of oil?", "Can I use oil instead of butter?"),
    ("Why do cats chase dogs?", "Why do dogs chase cats?"),
    ("How do I replace tabs with spaces?", "How do I replace spaces with tabs?"),
    ("Cheap trains new york to los angeles", "Cheap trains los angeles to new york"),
    ("Did Google buy YouTube?", "Was Google bought by YouTube?"),
    ("How do I embed a video in a map?", "How do I embed a map in a video?"),
    # the same words, two of them exchanged
    ("Can I give you cash and get a voucher?", "Can I give you a voucher and get cash?"),
    (
        "What does it cost to land in Oslo and leave in Rome?",
        "What does it cost to land in Rome and leave in Oslo?",
    ),
    # pronouns on the other side of the verb
    ("Can my boss fire me?", "Can I fire my boss?"),
    ("Did she call him?", "Did he call her?"),
    ("I love you", "You love me"),
    ("Can my employer sue me?", "Can I sue my employer?"),
    ("Does my landlord owe me money?", "Do I owe my landlord money?"),
    ("Why does he ignore me?", "Why do I ignore him?"),
    ("Did they email us?", "Did we email them?"),
    # who did it, and to whom it was done
    ("Who killed Hamlet?", "Who did Hamlet kill?"),
    ("Which company acquired Slack?", "Which company did Slack acquire?"),
    ("Who called my sister?", "Who did my sister call?"),
    ("What causes inflation?", "What does inflation cause?"),
    ("What eats spiders?", "What do spiders eat?"),
    ("Who can sue the landlord?", "Who can the landlord sue?"),
    # the very same words in another order
    ("Are all cats mammals?", "Are all mammals cats?"),
    ("Is every square a rectangle?", "Is every rectangle a square?"),
    ("Who is my father's mother?", "Who is my mother's father?"),
    ("What is my wife's sister called?", "What is my sister's wife called?"),
    ("Are red mushrooms poisonous?", "Are poisonous mushrooms red?"),
    ("What is a house boat?", "What is a boat house?"),
    ("Can a nurse replace a doctor?", "Can a doctor replace a nurse?"),
    # the persons and all that goes with them
    ("my father thinks i am selfish what now", "i think my father is selfish what now"),
    ("What can I do if my tenant sues me?", "What can I do if I sue my tenant?"),
    ("How can I tell if my cat trusts me?", "How can I tell if I trust my cat?"),
    ("Is my brother taller than me?", "Am I taller than my brother?"),
    ("Does my bank have to pay me if I close the account?", "Do I have to pay my bank if I close the account?"),
    ("how do i tell my wife i lied to her", "how do i tell my wife she lied to me"),
    ("Should I tell him I miss him?", "Should he tell me he misses me?"),
    ("Why does nobody call me?", "Why do I call nobody?"),
    ("How do I forgive my sister for lying?", "How do I get my sister to forgive me for lying?"),
    ("Does my wife own half of my shares?", "Do I own half of my wife's shares?"),
    # comparison, cause, time, direction
    ("is rust faster than go for servers", "is go faster than rust for servers"),
    ("can i move from canada to france on a permit", "can i move from france to canada on a permit"),
    ("Can anxiety cause chest pain?", "Can chest pain cause anxiety?"),
    ("How does exercise affect sleep?", "How does sleep affect exercise?"),
    ("Do you shave before showering?", "Do you shower before shaving?"),
    ("How far ahead of France is Italy in design?", "How far ahead of Italy is France in design?"),
    ("What happens if you mix cement into sand?", "What happens if you mix sand into cement?"),
    ("Can I use a US licence in Canada?", "Can I use a Canadian licence in the US?"),
    ("Which countries sell gas to Poland?", "Which countries does Poland sell gas to?"),
    (
        "What is the length of the day and the weight of the sun?",
        "What is the length of the sun and the weight of the day?",
    ),
    ("What is the bus fare from Oslo to Bergen?", "What is the bus fare from Bergen to Oslo?"),
    # what is said of which
    ("Can a bad start have a good end?", "Can a good start have a bad end?"),
    ("Is it better to rent a small flat in a big town?", "Is it better to rent a big flat in a small town?"),
    ("Why do old towns have new walls?", "Why do new towns have old walls?"),
    (
        "What is the best way to turn a red square into a blue circle?",
        "What is the best way to turn a blue square into a red circle?",
    ),
]

SAME = [
    # the same words, a phrase moved or two things coordinated
    ("What are the opening hours in Ghent?", "In Ghent, what are the opening hours?"),
    ("Which is cheaper, tea or coffee?", "Which is cheaper, coffee or tea?"),
    ("Do you sell bikes and helmets?", "Do you sell helmets and bikes?"),
    # roles that do not matter
    ("What is the difference between tea and coffee?", "What is the difference between coffee and tea?"),
    ("How far is Leeds from York?", "How far is York from Leeds?"),
    ("Python vs Ruby", "ruby vs python"),
    ("Can I mix bleach and vinegar?", "Can I mix vinegar and bleach?"),
    ("Which is taller, a giraffe or an elephant?", "Which is taller, an elephant or a giraffe?"),
    # persons and objects that keep their roles
    ("Why did you charge me twice?", "Why was I charged twice?"),
    ("Can you send me the invoice?", "Can you send the invoice to me?"),
    ("How do I give my colleague access?", "How do I give access to my colleague?"),
    ("Can my wife use my card?", "Can my card be used by my wife?"),
    ("Which companies did Google buy?", "Which companies were bought by Google?"),
    ("Which features does the pro plan include?", "Which features are included in the pro plan?"),
    ("What does inflation mean?", "What means inflation?"),
    ("Who should I contact about billing?", "Who do I contact about billing?"),
    ("Why is my screen black after the update?", "After the update my screen is black, why?"),
    ("Is Paris the capital of France?", "Is the capital of France Paris?"),
    ("What free monthly trials do you have?", "What monthly free trials do you have?"),
    ("Are you open today?", "Today are you open?"),
    ("How do I quickly sort a list?", "How do I sort a list quickly?"),
    ("Who is the CEO of Apple?", "Who is Apple's CEO?"),
    # coordinated, symmetric, moved, turned into the passive
    ("should i learn rust or go first", "should i learn go or rust first"),
    ("Do dogs and cats get along well?", "Do cats and dogs get along well?"),
    ("How are tea and coffee different?", "How are coffee and tea different?"),
    ("How far from York is Leeds?", "How far from Leeds is York?"),
    ("Who would win between Superman and Batman?", "Who would win between Batman and Superman?"),
    ("How do I go by train from Rome to Bari?", "How do I go from Rome to Bari by train?"),
    ("How can I recover my stolen account?", "My account was stolen, how can I recover it?"),
    ("Why do my friends ignore me?", "Why am I ignored by my friends?"),
    ("When did World War II start?", "When did the Second World War begin?"),
    ("How do I get a US visa from India?", "How can an Indian get a US visa?"),
    ("My mother thinks I am lazy. What should I do?", "What should I do if my mother thinks I'm lazy?"),
    ("What is there to see in Rome in May?", "In May, what is there to see in Rome?"),
    ("How often should I dust the books during winter?", "During winter, how often should I dust the books?"),
    ("Am I too old to start at 30?", "At 30, am I too old to start?"),
    ("What is best for a family with a small car?", "With a small car, what is best for a family?"),
    ("Is it safe for children to swim here?", "Is it safe to swim here for children?"),
]


@pytest.mark.parametrize(("asked", "stored"), EXCHANGED)
def test_exchanged_roles_are_refused(asked: str, stored: str) -> None:
    assert refusal(asked, stored) == "swap"
    assert refusal(stored, asked) == "swap"


@pytest.mark.parametrize(("asked", "stored"), SAME)
def test_another_order_of_the_same_roles_passes(asked: str, stored: str) -> None:
    assert refusal(asked, stored) is None
    assert refusal(stored, asked) is None


@pytest.mark.parametrize("text", sorted({text for pair in [*EXCHANGED, *SAME] for text in pair}))
def test_a_question_typed_differently_is_the_same_question(text: str) -> None:
    assert refusal(text, f"  {text.rstrip('.? ')} ?") is None
