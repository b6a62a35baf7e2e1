"""General English in tables: words that mean the same, words that mean the opposite, kinds of names.

Written from knowledge of the language, not from any data set. Every table is read through stems.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeVar

from dispatch_core.guards.opposites import ANTONYMS
from dispatch_core.guards.words import positive, same_word, stem, word_set

T = TypeVar("T")

_SYNONYMS = """
undo revert rollback | support service help | purpose meaning point | lose remove | couch sofa settee |
buy purchase acquire order | get obtain acquire receive gain find fetch | get become | return refund |
cancel terminate close end stop unsubscribe | remove delete erase clear drop eliminate uninstall |
change modify edit update alter adjust amend | change switch swap replace exchange |
change convert transform turn | convert translate transform turn parse |
create make build produce generate construct write develop | start begin commence launch initiate |
stop end finish quit halt cease | stop prevent avoid block | fix repair solve resolve correct troubleshoot debug |
error issue problem bug trouble exception failure fault | find locate discover search seek identify detect |
check verify confirm validate see view determine know | show display view see present print list |
help assist support aid | contact reach call phone message email | phone cellphone mobile telephone smartphone |
phone call | reset recover restore retrieve change | restart reboot | install setup configure |
setup configure establish create | register join enroll enrol subscribe apply | account profile |
login access enter | send transfer move | send mail ship deliver post | delivery shipping shipment |
ship deliver dispatch | package parcel shipment order delivery | track follow trace monitor | purchase order |
pay settle | payment transaction charge | cost price fee charge rate | money cash funds |
salary pay wage income earnings | earn make | job work employment career position occupation |
company firm business organization corporation employer | big large huge great | small little tiny |
fast quick rapid speedy quickly | easy simple straightforward | hard difficult tough challenging |
good great nice decent excellent effective | best top greatest ideal perfect | bad poor terrible awful |
important significant crucial essential vital necessary | correct right proper accurate valid | wrong incorrect |
way method approach technique mean manner option procedure process step tip strategy | reason cause |
difference distinction | meaning definition | mean define stand represent signify |
explain describe clarify elaborate | example sample instance | use utilize utilise employ apply | begin learn |
learn study | improve enhance better boost increase develop | increase raise grow boost expand |
decrease reduce lower cut lessen minimize shrink drop | lose reduce drop shed | gain increase | lose miss |
choose pick select decide | allow permit enable let | forbid prohibit ban disallow | enable activate |
disable deactivate | run execute launch start | run operate | invoke call run | function method |
folder directory | file document | image picture photo photograph | video clip movie | movie film | film cinema |
book novel | car automobile vehicle | house home apartment | apartment flat | kid child |
people person human man | guy man | woman lady girl | boy guy | student pupil | teacher instructor tutor |
doctor physician | lawyer attorney | country nation | city town | store shop | shop buy |
trip travel journey visit vacation holiday | travel go visit | tourist traveler | hotel accommodation |
place spot location site destination area | fly travel | airplane plane aircraft | road street |
live reside stay | keep maintain retain store save preserve | save store keep | backup save | sleep rest |
eat consume | food meal dish | drink beverage | happy glad cheerful | sad unhappy depressed | angry mad upset |
afraid scared frightened fear | love like enjoy adore | hate dislike | think believe feel consider |
opinion view thought | say tell speak talk state | speak talk converse | ask question query inquire |
answer reply respond response solution | request ask | application app program software | computer pc laptop |
laptop notebook | website site webpage portal | internet web online | picture image | password passcode |
email mail | free gratis | cheap inexpensive affordable low-cost economical | expensive costly pricey |
rich wealthy | poor needy | beautiful pretty attractive | ugly unattractive | smart intelligent clever |
stupid dumb idiot | strong powerful | weak feeble | safe secure | dangerous unsafe risky harmful | healthy fit |
ill sick unwell | illness disease sickness disorder | medicine drug medication remedy |
treatment cure remedy therapy | pain ache | weight fat | exercise workout training | diet nutrition | fat weight |
broken damaged faulty defective | work function operate | happen occur | possible feasible |
allowed permitted legal | illegal unlawful | rule law regulation policy | policy terms | guarantee warranty |
insurance cover | begin open start | close shut | open launch start | available accessible | require need |
requirement prerequisite | eligible qualify | limit maximum cap restriction | minimum least | maximum most |
amount quantity number sum | total sum | average mean | entire whole complete full | complete finish |
several many multiple various | type kind sort category | sort order arrange rank | part component piece |
feature function characteristic | property attribute | characteristic trait quality | list enumerate |
array list | string text | variable parameter argument | loop iterate | merge combine join concatenate |
split divide separate | compare contrast | count number | duplicate copy clone | copy duplicate replicate |
paste insert | add insert append include | attach add | calculate compute determine | measure calculate |
test check try | deploy release publish | publish post upload | post upload share | download get |
load import read | open read | write save | connect link join | connection link |
fight combat battle war conflict | kill murder | die perish | win beat defeat | event occasion |
party celebration | present gift | friend buddy | girlfriend partner | marry wed | job role | boss manager |
coworker colleague | meeting appointment | book reserve schedule | reservation booking | schedule plan |
delay postpone reschedule | late delayed | early soon | wait delay | time duration | period duration |
daily everyday | often frequently | usually normally generally typically commonly | really actually truly |
currently presently now nowadays | main primary chief major principal | famous popular known renowned |
common popular frequent | new latest recent | old ancient | modern contemporary | current latest present |
future upcoming | tip advice suggestion recommendation hint | suggest recommend advise | guide tutorial |
course class lesson | school college university institute | university college | degree qualification |
exam test examination | score mark grade result | prepare study | preparation study prep | pass clear crack |
crack hack | essay article | subject topic | idea concept notion | goal aim objective purpose target |
benefit advantage pro | disadvantage drawback con downside | effect impact influence consequence result |
affect influence impact | reach achieve attain accomplish | success achievement | deal handle cope manage |
manage control handle | overcome conquer beat | face encounter | experience undergo | try attempt | view watch |
watch see | look appear seem | look see | hear listen | wear dress | clothes clothing apparel garment |
shoe footwear | sofa couch | trash garbage rubbish bin | lift elevator | gas petrol gasoline fuel |
vacation leave | autumn fall | soccer football | movie show | claim request | complaint claim | submit file send |
upload submit | bill invoice | receipt invoice proof | statement bill | discount coupon promo voucher |
code coupon | voucher coupon | subscription plan membership | member subscriber | customer client user |
user people | staff employee personnel worker | hire recruit employ | fire dismiss sack terminate |
resign quit leave | leave depart exit | arrive reach come | stay remain | wish want desire like | hope wish |
dream aspiration | hide conceal | reveal disclose | secret hidden | real genuine authentic true actual |
fake counterfeit false | original genuine | unique special | strange weird odd unusual |
funny hilarious humorous | interesting fascinating | boring dull | quiet silent | loud noisy | clean wash |
wash rinse | dirty filthy | hot warm | cold cool chilly | wet damp | empty vacant | rent lease hire | lend loan |
borrow loan | loan credit | invest put | stock share | profit gain | grow cultivate | plant grow | tree plant |
animal pet | dog puppy | cat kitten | baby infant newborn | pregnant expecting | stain mark spot |
smell odor scent | taste flavor | color colour shade | skin complexion | pimple acne |
transfer move send migrate | move relocate migrate | relocate shift | shift move | rename change | lock block |
blocked locked suspended banned disabled | suspend block deactivate ban | deactivate close delete |
unblock unlock reactivate | activate unlock | declined rejected refused denied | decline reject refuse deny |
accept approve | approve authorize | extend prolong lengthen renew | prolong renew | damage harm hurt injure |
protect defend guard secure | attack assault | steal rob | stolen lost | missing lost | charge bill debit |
withdraw take | deposit put add | topup load add recharge | balance amount | rate percentage | speed rate |
topic theme | size dimension | length duration | start origin | beginning start | end finish | ending end |
goodbye farewell | nowadays today | gym fitness | slim thin skinny | fat obese overweight | tall high |
short brief | summary overview | summarise summarize outline recap | write compose draft | draft write |
letter note | poem verse | word term | phrase expression | sentence line | synonym equivalent | language tongue |
accent pronunciation | cost price expensive pricey | cost expense | old age | big large size huge | tall high height |
heavy weight weigh | fast quick speed | far distance | deep depth | wide width | long length duration time |
often frequency | die extinct death dead | exist real existence | improve raise | worth worthwhile |
symptom sign indication | dictionary dict | integer int | string str | repository repo | configuration config |
information info | mathematics math maths | temperature temp | document doc docs | refrigerator fridge |
university uni | advertisement ad advert | resume cv | administrator admin | environment env | parameter param |
marijuana weed cannabis | rotate spin | deal cope overcome | become turn | period menstruation | healthy health |
fluent fluently | migrate immigrate emigrate | lead cause | substitute alternative replacement | extremely very |
tired exhausted fatigued | huge enormous giant | couple pair | leak leaky | faucet tap | candy sweet |
cookie biscuit | apartment flat condo | attorney lawyer advocate | pharmacy chemist drugstore | jumper sweater |
torch flashlight | everybody everyone | bacterium bacteria | affect effect | exit leave quit
"""

KINDS: dict[str, str] = {
    "colour": "red blue green yellow black white pink purple brown grey gray beige violet turquoise maroon navy",
    "size": "xs s m l xl xxl xxxl small medium large",
    "country": """usa uk india china japan germany france italy spain russia brazil canada australia mexico pakistan
        bangladesh nepal srilanka indonesia malaysia singapore thailand vietnam philippines southkorea
        northkorea korea taiwan iran iraq israel egypt turkey greece portugal poland sweden norway denmark
        finland netherlands belgium austria switzerland ireland scotland england wales ukraine romania hungary
        argentina chile colombia peru nigeria kenya ethiopia ghana southafrica morocco newzealand uae dubai
        qatar kuwait oman saudiarabia syria afghanistan lebanon cuba venezuela croatia serbia bulgaria slovakia
        slovenia estonia latvia lithuania iceland europe asia africa eu""",
    "city": """london paris berlin munich hamburg frankfurt madrid barcelona rome milan vienna zurich geneva amsterdam
        brussels prague budapest warsaw moscow istanbul athens lisbon dublin edinburgh manchester newyork boston
        chicago losangeles sanfrancisco seattle houston dallas austin miami denver atlanta toronto vancouver
        montreal sydney melbourne tokyo osaka kyoto seoul beijing shanghai shenzhen hongkong taipei bangkok
        jakarta manila mumbai delhi newdelhi bangalore bengaluru hyderabad chennai kolkata pune cairo nairobi
        lagos texas california florida""",
    "language": """english french spanish german italian portuguese russian chinese mandarin cantonese japanese korean
        arabic hindi urdu bengali tamil telugu turkish dutch swedish polish greek hebrew latin danish norwegian
        finnish czech hungarian vietnamese thai indonesian american british indian canadian australian mexican
        brazilian irish pakistani european asian african""",
    "code": """python java javascript typescript ruby perl php scala kotlin swift rust golang go haskell matlab c c++
        c# f# r lua julia fortran cobol bash powershell sql html css xml json yaml csv toml pdf docx excel""",
    "library": """react angular vue svelte django flask fastapi rails laravel spring numpy pandas tensorflow pytorch
        keras jquery bootstrap tailwind""",
    "store": "mysql postgresql sqlite mongodb redis cassandra oracle mariadb elasticsearch dynamodb snowflake",
    "cloud": "aws azure gcp heroku vercel netlify digitalocean docker podman kubernetes",
    "tool": "git github gitlab bitbucket npm yarn pnpm pip conda maven gradle vim emacs vscode pycharm intellij jira",
    "browser": "chrome firefox safari edge opera brave",
    "currency": "dollar euro gbp yen rupee yuan franc usd eur inr jpy cny cad aud chf bitcoin ethereum dogecoin",
    "payment": """visa mastercard amex paypal klarna stripe venmo zelle wise revolut payoneer skrill alipay wechat
        paytm applepay googlepay maestro discover""",
    "system": "windows linux ubuntu debian fedora macos android ios iphone ipad mac",
    "brand": """google apple microsoft amazon facebook twitter instagram whatsapp snapchat tiktok linkedin youtube
        netflix spotify telegram reddit quora samsung nokia sony dell lenovo hp asus acer huawei xiaomi toyota
        honda ford bmw audi tesla uber lyft ebay walmart gmail yahoo hotmail outlook dropbox slack zoom skype
        discord""",
    "religion": "christian muslim islam hindu hinduism jewish judaism buddhist buddhism sikh christianity atheist",
    "planet": "mercury venus earth mars jupiter saturn uranus neptune pluto moon sun",
    "compass": "north south east west northern southern eastern western",
    "frequency": "hourly daily weekly monthly quarterly yearly annually annual biweekly",
    "channel": "email sms phone fax chat",
    "animal": "dog cat horse cow pig chicken rabbit hamster bird fish snake goat sheep parrot",
    "sport": "football cricket basketball baseball tennis golf hockey rugby volleyball badminton boxing chess",
    "instrument": "guitar piano violin drum flute ukulele cello saxophone",
    "drink": "coffee tea milk water beer wine whiskey vodka juice",
}
# Kinds whose members, in any case, are names of something: said on one side only, the answer is about it.
NAMING = word_set("country city language code library store cloud tool payment system brand")
# Members that are common words too, and so name nothing on their own.
_COMMON = word_set("""
    turkey chile go c r swift rust spring express oracle edge brave opera safari discover wise visa apple ford
    amazon windows polish austin zoom slack outlook pip flask excel rails vue snowflake telegram stripe perl
    american english latin docker git chrome yarn reading nice oman mac europe asia africa earth
    """)
_SAME_NAME = {
    "american": "usa", "america": "usa", "british": "uk", "britain": "uk", "indian": "india", "chinese": "china",
    "french": "france", "german": "germany", "italian": "italy", "spanish": "spain", "japanese": "japan",
    "russian": "russia", "canadian": "canada", "australian": "australia", "mexican": "mexico",
    "brazilian": "brazil", "turkish": "turkey", "pakistani": "pakistan", "korean": "korea", "irish": "ireland",
    "european": "europe", "asian": "asia", "african": "africa", "greek": "greece", "bengaluru": "bangalore",
    "golang": "go", "js": "javascript", "ts": "typescript", "mandarin": "chinese", "grey": "gray", "usd": "dollar",
    "eur": "euro", "gbp": "pound", "inr": "rupee", "annual": "yearly", "annually": "yearly",
    "delhi": "newdelhi", "py": "python", "pg": "postgresql", "csharp": "c#", "cpp": "c++", "fb": "facebook",
    "insta": "instagram", "osx": "macos", "muslim": "islam", "hindu": "hinduism", "buddhist": "buddhism",
    "jewish": "judaism", "christian": "christianity", "bucks": "dollar", "northern": "north", "southern": "south",
    "eastern": "east", "western": "west",
}  # fmt: skip


def _sets(text: str) -> list[list[str]]:
    return [group.split() for group in text.split("|")]


def _gathered(pairs: Iterable[tuple[str, T]]) -> dict[str, frozenset[T]]:
    """All that is said of each word."""
    gathered: dict[str, set[T]] = defaultdict(set)
    for word, thing in pairs:
        gathered[word].add(thing)
    return {word: frozenset(things) for word, things in gathered.items()}


_MEANINGS = _gathered((stem(member), number) for number, members in enumerate(_sets(_SYNONYMS)) for member in members)
_SIDES = _gathered(
    (stem(member), (number, bool(right)))
    for number, pair in enumerate(ANTONYMS.split("|"))
    for right, side in enumerate(pair.split("/"))
    for member in side.split()
)
_KIND_OF = _gathered(
    (word, kind)
    for kind, members in KINDS.items()
    for member in members.split()
    for word in (member, _SAME_NAME.get(member, member))
)


def member(word: str) -> str:
    """A word of a closed class without its plural: ``member("cats") == "cat"``; any other word is left alone."""
    single = word.removesuffix("s")
    return single if word not in _KIND_OF and single in _KIND_OF else word


def canonical(word: str) -> str:
    """One spelling for a thing with several names: ``canonical("american") == canonical("americans") == "usa"``."""
    word = member(word)
    return _SAME_NAME.get(word, word)


@lru_cache(maxsize=16384)
def kinds(word: str) -> frozenset[str]:
    """The closed classes a word belongs to; its plural belongs to them as well."""
    return _KIND_OF.get(member(word), frozenset())


def naming(word: str) -> bool:
    """Is the word, in lower case and alone, certainly a name?"""
    return word not in _COMMON and not NAMING.isdisjoint(_KIND_OF.get(word, ()))


@lru_cache(maxsize=16384)
def sides(word: str) -> frozenset[tuple[int, bool]]:
    """The pairs of opposites a word belongs to, and on which side."""
    return _of(word, _SIDES)


@lru_cache(maxsize=16384)
def meanings(word: str) -> frozenset[int]:
    """The numbers of the synonym sets a word belongs to."""
    return _of(word, _MEANINGS)


def _of(word: str, sets: Mapping[str, frozenset[T]]) -> frozenset[T]:
    found = sets.get(stem(word))
    if found is None and word.endswith(("er", "est")):
        found = sets.get(positive(word))
    return found or frozenset()


@lru_cache(maxsize=16384)
def name(word: str) -> str:
    """One key for a word, its forms and its synonyms: an exchanged synonym should not hide exchanged roles."""
    word = canonical(word)
    found = meanings(word)
    return f"={min(found)}" if found else stem(word)


@lru_cache(maxsize=16384)
def everyday(word: str) -> bool:
    """Is it an ordinary word of the language, and so, capitalised, not a name?"""
    return (bool(meanings(word)) or bool(sides(word))) and not kinds(word)


class _Sense(NamedTuple):
    word: str
    meanings: frozenset[int]
    stem: str
    kinds: frozenset[str]


@lru_cache(maxsize=16384)
def _sense(word: str) -> _Sense:
    word = canonical(word)
    return _Sense(word, meanings(word), stem(word), kinds(word))


def alike(a: str, b: str) -> bool:
    """May one stand for the other without changing the answer? Symmetric, not transitive."""
    (a, its, a_stem, a_kinds), (b, others, b_stem, b_kinds) = _sense(a), _sense(b)
    if a == b or not its.isdisjoint(others):
        return True
    # Most pairs are seen to be two words by their first letters.
    if a_stem != b_stem and (a[:1] != b[:1] or not same_word(a, b)):
        return False
    # Two members of one closed class are never typos of each other: Austria, Australia.
    return a_kinds.isdisjoint(b_kinds)
