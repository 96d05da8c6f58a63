"""The built-in ``demo`` data set: short opinion texts from a seeded grammar of our own."""

from __future__ import annotations

import random
import re
from typing import NamedTuple

SEED = 42
LABEL_NAMES = ("negative", "positive")
_SIZES = {"train": 2000, "validation": 400, "test": 800}
_WORDS = (8, 35)

# One block per domain. Header: noun | plural | kind of verdict | tense | what it is compared with.
# "good" and "bad" are antonyms position by position, so that an adjective is never set against its
# own opposite by accident; many are good in one domain and bad in another. "aside" takes no side.
# Then four aspects, praise (+) above complaint (-), a blunt and a subtler clause each, all of
# similar weight: no complaint is so grave that "but ..." could not outweigh it. [a|b] stands for
# either, everywhere in this module. Training texts never use the last _UNSEEN domains: a model that
# has learned opinions, rather than these phrases, should do well there too.
_UNSEEN = 4
_DOMAINS = """
restaurant | restaurants | place | was | the place across the street
good: generous / relaxed / inventive / delicious / charming / affordable
bad: stingy / rushed / bland / disappointing / dreary / overpriced
aside: We were [four|six] at the table. / It was a [Tuesday|Thursday] night.
+ the [fish|soup|lamb] was [superb|tender|full of flavor] / every dish tasted of something
- the [fish|soup|lamb] was [awful|burnt|short of flavor] / no dish tasted of anything
+ our [waiter|server] was [attentive|charming|quick] / the food was out before we grew impatient
- our [waiter|server] was [careless|surly|slow] / we grew impatient before the food was out
+ the bill was [more than fair|a nice surprise] / the wine was cheap and far from rough
- the bill was [outrageous|a nasty surprise] / the wine was rough and far from cheap
+ the dining room was [cozy|lovely|inviting] / we could hear each other talk
- the dining room was [drab|smelly|cramped] / we could not hear each other talk

headset | headsets | product | is | my old headset
good: comfortable / excellent / sturdy / simple / reliable / light
bad: uncomfortable / awful / flimsy / fiddly / unreliable / heavy
aside: I use it for [calls|music] at work. / I got it in [June|May].
+ the sound is [crisp|rich|gorgeous|superb] / the bass never drowns the rest
- the sound is [tinny|harsh|hollow|muddy] / the bass always drowns the rest
+ the pads feel [soft|gentle|lovely] on my ears / I forget I am wearing it
- the pads feel [stiff|scratchy|horrible] on my ears / I never forget I am wearing it
+ the battery is [superb|excellent|a marvel] / one charge lasts for [days|ages]
- the battery is [poor|hopeless|a joke] / one charge lasts for [minutes|barely an hour]
+ it connects [instantly|without fuss] / my voice comes through [beautifully|loud and clear]
- it disconnects [constantly|without warning] / my voice comes through [badly|faint and garbled]

novel | novels | work | is | the author's last book
good: gripping / original / moving / beautifully written / witty / unpredictable
bad: tedious / derivative / cold / badly written / humorless / predictable
aside: I read it on [vacation|the train]. / It is set in a [harbor|mining] town.
+ the ending is [perfect|satisfying|heartbreaking] / I never saw the ending coming
- the ending is [absurd|unsatisfying|a cheat] / I saw the ending coming early on
+ the characters are [vivid|lovable|full of life] / the two sisters [won my heart|felt like friends]
- the characters are [wooden|tiresome|lifeless] / the two sisters [grated on me|felt like cardboard]
+ the prose is [graceful|exquisite|a pleasure] / there is hardly a wasted sentence
- the prose is [clumsy|pompous|a chore] / there is hardly a page without a wasted sentence
+ the plot is [thrilling|clever|irresistible] / I stayed awake to finish it
- the plot is [plodding|silly|incoherent] / I fell asleep trying to finish it

comedy | comedies | work | was | the last comedy we saw
good: hilarious / charming / fresh / silly / clever / delightful
bad: unfunny / charmless / stale / solemn / stupid / dreadful
aside: We saw it on a [Friday|Sunday]. / It is about two [plumbers|dentists].
+ the jokes were [hilarious|sharp|inspired] / our whole row was [laughing|in tears of laughter]
- the jokes were [tired|feeble|embarrassing] / our whole row was [silent|close to sleep]
+ the leads were [adorable|wonderful|a joy] / the two leads [sparkled|were perfectly matched]
- the leads were [grating|dreadful|a bore] / the two leads [stumbled|were badly mismatched]
+ the script was [witty|brilliant|a gem] / no punchline came when you expected it
- the script was [lazy|crude|a mess] / every punchline came when you expected it
+ the time [flew|raced] by / the ending was [joyous|sweet|as daft as I had hoped]
- the time [dragged|crawled] by / the ending was [sour|forced|not as daft as I had hoped]

horror film | horror films | work | was | the last horror film I saw
good: terrifying / unsettling / gripping / superb / original / unpredictable
bad: silly / harmless / dull / dreadful / derivative / predictable
aside: I saw it at a [late|weekday] showing. / It takes place on [an island|a farm].
+ the scares were [brilliant|masterly|superbly timed] / I watched it through my fingers
- the scares were [feeble|lame|badly timed] / I watched it over my phone
+ the music was [chilling|haunting|magnificent] / the camera work was [stunning|a treat]
- the music was [corny|irritating|clumsy] / the camera work was [amateurish|a mess]
+ the creature was [a marvel|astonishing] / the creature made the row behind us gasp
- the creature was [a joke|laughable] / the creature made the row behind us giggle
+ the acting was [outstanding|convincing] / the young lead was [superb|a revelation]
- the acting was [wooden|unconvincing] / the young lead was [terrible|an embarrassment]

budgeting app | budgeting apps | service | is | the app I used before
good: simple / quick / reliable / helpful / predictable / excellent
bad: confusing / slow / buggy / useless / unpredictable / awful
aside: I run it on an older [phone|tablet]. / We are two people with [one|three] accounts.
+ the design is [elegant|friendly|beautiful] / it does one thing and leaves me alone
- the design is [ugly|cluttered|hopeless] / it does ten things and never leaves me alone
+ syncing is [flawless|effortless|painless] / it has never lost an entry
- syncing is [broken|a nightmare|painful] / it has lost more than one entry
+ the charts are [useful|clear|a real help] / the reminders are [handy|helpful]
- the charts are [useless|misleading|a muddle] / the reminders are [annoying|pestering]
+ support was [friendly|prompt|brilliant] / the price is [fair|a bargain]
- support was [rude|sluggish|clueless] / the price is [unfair|a scandal]

bicycle | bicycles | product | is | my old bicycle
good: comfortable / solid / nimble / superb / light / predictable
bad: uncomfortable / flimsy / sluggish / dreadful / heavy / unpredictable
aside: I ride [six|nine] miles to work. / I bought it in [April|June].
+ every ride is [pure joy|a delight|a treat] / it goes where I point it
- every ride is [pure misery|an ordeal|a trial] / it goes where it likes
+ the gears shift [cleanly|smoothly|beautifully] / the brakes are [superb|smooth]
- the gears shift [badly|roughly|horribly] / the brakes are [feeble|jerky]
+ the frame looks [gorgeous|elegant|stylish] / the paint is [lovely|flawless]
- the frame looks [cheap|ugly|shoddy] / the paint is [peeling|ghastly]
+ the saddle is [superb|cushioned|a comfort] / nothing has worked loose so far
- the saddle is [dreadful|torture|a pain] / something works loose every week

kettle | kettles | product | is | my old kettle
good: quick / quiet / sturdy / excellent / handsome / reliable
bad: slow / loud / flimsy / useless / ugly / unreliable
aside: It holds [six|seven] cups. / There are [three|five] of us in the house.
+ it boils [impressively|wonderfully] fast / it boils before I have found a cup
- it boils [painfully|maddeningly] slowly / I have found and washed a cup before it boils
+ the sound is [pleasant|soothing|a gentle hum] / we can talk over it
- the sound is [unpleasant|deafening|a nasty roar] / we cannot talk over it
+ the spout pours [perfectly|cleanly|neatly] / the lid opens [easily|with a nice click]
- the spout [dribbles|leaks|splashes me] / the lid [jams|sticks|comes off in my hand]
+ the handle feels [great|solid|pleasant] / the water tastes of nothing
- the handle feels [cheap|shaky|greasy] / the water tastes of something

concert | concerts | work | was | the show they gave last year
good: thrilling / loud / wild / joyful / magnificent / passionate
bad: boring / quiet / tame / joyless / dismal / half-hearted
aside: We stood near the [bar|stairs]. / It was their [second|third] night.
+ the sound was [glorious|rich|huge and clear] / the drums shook the floor
- the sound was [awful|shrill|thin and muddy] / the drums could have been next door
+ the crowd was [ecstatic|lovely|a joy] / nobody sat down
- the crowd was [listless|hostile|a nuisance] / nobody stood up
+ the old songs were [electric|stirring|full of life] / the new songs were [gorgeous|catchy]
- the old songs were [limp|tired|drained of life] / the new songs were [tuneless|forgettable]
+ the singer was [radiant|spellbinding] / the band played [brilliantly|with real fire]
- the singer was [terrible|off key] / the band played [sloppily|without any fire]

roller coaster | roller coasters | work | was | the ride next to it
good: exhilarating / thrilling / fast / superb / fun / frightening
bad: disappointing / dull / slow / pathetic / painful / gentle
aside: We rode it in the [morning|evening]. / I sat in the [front|last] row.
+ the first drop was [exhilarating|breathtaking|glorious] / I could not stop screaming
- the first drop was [feeble|laughable|a letdown] / I could not stop yawning
+ the turns were [superb|smooth|a blast] / it never let us rest
- the turns were [clumsy|jarring|a bore] / it let us rest far too often
+ the wait was [no trouble|well worth it] / we [ran|raced] back to the line
- the wait was [miserable|a waste of time] / we walked away [sore|in disgust]
+ the seats were [comfortable|snug|plush] / my daughter was [beaming|thrilled]
- the seats were [painful|filthy|cramped] / my daughter was [miserable|bored to tears]

yoga class | yoga classes | work | was | the class I went to before
good: calm / wonderful / friendly / restful / slow / quiet
bad: frantic / horrible / unfriendly / stressful / rushed / loud
aside: It starts at [six|seven]. / There were [nine|twelve] of us.
+ the pace was [soothing|comfortable|just right] / nobody hurried us
- the pace was [exhausting|punishing|all wrong] / everybody hurried us
+ the teacher was [kind|encouraging|wise] / the teacher knew when to be silent
- the teacher was [unkind|dismissive|vain] / the teacher never knew when to be silent
+ the room was [lovely|serene|warm and dim] / the mats were [clean|thick and soft]
- the room was [grubby|dismal|cold and bright] / the mats were [filthy|thin and torn]
+ I left [refreshed|glowing|at peace] / my back felt [wonderful|better]
- I left [sore|irritable|in a temper] / my back felt [awful|worse]

alarm clock | alarm clocks | product | is | my old alarm clock
good: reliable / simple / loud / sturdy / excellent / attractive
bad: unreliable / complicated / faint / flimsy / terrible / ugly
aside: It stands by the [door|window]. / I get up at [five|six].
+ the alarm is [superb|dependable|clear] / I cannot sleep through it
- the alarm is [pathetic|erratic|feeble] / I can sleep through it
+ the display is [crisp|lovely|easy to read] / the display goes dark at night
- the display is [blurry|glaring|hard to read] / the display never goes dark at night
+ the case is [solid|handsome|well made] / the battery is [excellent|long lived]
- the case is [shoddy|hideous|badly made] / the battery is [useless|short lived]
+ the buttons are [sensible|smooth|a pleasure] / the radio sounds [great|warm and full]
- the buttons are [baffling|sticky|a nuisance] / the radio sounds [awful|thin and crackly]

hotel | hotels | place | was | the place we used last year
good: comfortable / welcoming / spotless / peaceful / delightful / affordable
bad: uncomfortable / unfriendly / filthy / noisy / depressing / overpriced
aside: We stayed [two|three] nights in [March|May]. / Our room was on the [fourth|sixth] floor.
+ the room was [airy|restful|immaculate|dark and quiet] / the bed was [blissful|wonderfully soft]
- the room was [musty|shabby|freezing|hot and stuffy] / the bed was [lumpy|hard as a board]
+ the staff was [kind|gracious|eager to help] / the manager could not do enough for us
- the staff was [rude|curt|unwilling to help] / the manager could not do anything for us
+ breakfast was [fresh|delicious|a feast] / the coffee came hot, the milk cold
- breakfast was [stale|greasy|a disgrace] / the coffee came cold, the milk warm
+ the view was [lovely|splendid|enchanting] / the neighborhood felt [safe|friendly]
- the view was [dismal|hideous|depressing] / the neighborhood felt [unsafe|grim]

museum | museums | place | was | the museum across town
good: fascinating / spacious / wonderful / thoughtful / friendly / lively
bad: dull / crowded / dreadful / careless / unfriendly / lifeless
aside: We had [two|three] hours. / It is in an old [mill|post office].
+ the exhibits were [absorbing|dazzling|superb] / I wanted to read every label
- the exhibits were [dusty|shabby|dreary] / I did not want to read another label
+ the rooms were [welcoming|elegant|beautifully lit] / the layout was [clear|sensible|clever]
- the rooms were [gloomy|stuffy|badly lit] / the layout was [confusing|senseless|a maze]
+ the guide was [wonderful|witty|inspiring] / the children did not want to leave
- the guide was [bored|patronizing|dreary] / the children wanted to leave
+ the cafe was [excellent|delightful|a treat] / the ticket covered everything
- the cafe was [dismal|dirty|a rip-off] / the ticket covered next to nothing

evening course | evening courses | work | was | the course I took last year
good: practical / inspiring / clear / excellent / rewarding / demanding
bad: impractical / dreary / muddled / awful / pointless / undemanding
aside: It ran for [eight|ten] weeks. / We met on [Mondays|Wednesdays].
+ the tutor was [brilliant|patient|well prepared] / the tutor knew when to slow down
- the tutor was [arrogant|impatient|ill prepared] / the tutor never knew when to slow down
+ the homework was [fun|useful|fascinating] / the feedback was [generous|a great help]
- the homework was [tedious|useless|baffling] / the feedback was [mean|no help at all]
+ the lessons were [lively|captivating|a delight] / no week repeated the last
- the lessons were [dry|shapeless|a slog] / each week repeated the last
+ the group was [friendly|supportive|a pleasure] / nobody was left behind
- the group was [hostile|sulky|a nuisance] / half of us were left behind

airline | airlines | service | was | the airline I usually fly
good: punctual / comfortable / superb / helpful / honest / efficient
bad: unpunctual / uncomfortable / terrible / unhelpful / dishonest / incompetent
aside: I flew [out|home] in [May|August]. / It was a [four|six] hour flight.
+ boarding was [smooth|swift|painless] / we landed before we were due
- boarding was [slow|chaotic|a shambles] / we landed long after we were due
+ the seat was [roomy|cushioned|wonderful] / I slept [soundly|like a baby] on board
- the seat was [cramped|broken|horrible] / I slept [badly|not a wink] on board
+ the crew was [cheerful|thoughtful|kind] / the pilot told us what was going on
- the crew was [grumpy|dismissive|rude] / the pilot never told us what was going on
+ the meal was [tasty|hearty|a nice surprise] / the fare was [a bargain|pleasingly low]
- the meal was [inedible|soggy|a nasty surprise] / the fare was [a rip-off|painfully high]
"""

# (negative, positive): in many pairs both sides use the same words, so that word order decides.
_VERDICTS = {
    "place": (
        "[we left [annoyed|unhappy|grumbling|deflated|fuming]|I would hesitate to go again|"
        "I would not go back|I doubt we will bother going again]",
        "[we left [delighted|happy|smiling|contented|elated]|I would not hesitate to go again|"
        "I would gladly go back|I doubt we will bother going anywhere else]",
    ),
    "service": (
        "[I am [unhappy|annoyed|frustrated|fed up|exasperated] with it|"
        "I am looking for another|I would hesitate to use it again|I am sorry I chose it]",
        "[I am [happy|pleased|delighted|impressed|overjoyed] with it|"
        "I am not looking for another|I would not hesitate to use it again|I am glad I chose it]",
    ),
    "product": (
        "[I am [unhappy|annoyed|frustrated|dissatisfied|irritated] with it|I regret buying it|"
        "I am in a hurry to replace it|it is going back to the store]",
        "[I am [happy|pleased|delighted|thrilled|satisfied] with it|I would gladly buy it again|"
        "I am in no hurry to replace it|it is not going back to the store]",
    ),
    "work": (
        "[I [disliked|hated|resented|endured] it|it left me [bored|irritated|weary|miserable]|"
        "I was not sorry when it ended|I wish I had skipped it]",
        "[I [loved|adored|enjoyed|treasured] it|it left me [thrilled|happy|grateful|elated]|"
        "I was sorry when it ended|I am glad I did not skip it]",
    ),
    "any": (
        "[I would [avoid it|steer clear of it|warn people off it]|it was a waste of [money|time]|"
        "it was a [bad|poor|foolish] choice|it [annoyed|disappointed|exhausted] me|"
        "I would not recommend it|there is little to like about it|"
        "I had expected far [more|better] of it]",
        "[I would [happily|warmly|eagerly] recommend it|it was worth the [money|time]|"
        "it was a [good|wise|happy] choice|it [charmed|impressed|delighted] me|"
        "I would not hesitate to recommend it|there is little to dislike about it|"
        "I had expected far [less|worse] of it]",
    ),
}
_TURNS = {
    "hope": ("[love|adore|praise]", "[dislike|dismiss|mock]"),
    "talk": ("[raved about|talked up|praised]", "[warned me off|sneered at|complained about]"),
    "dread": (
        "[treat I had hoped for|triumph I had been promised|delight that others describe]",
        "[letdown I had feared|disaster I had been warned about|ordeal that others describe]",
    ),
    "rank": (
        "[well behind|a step down from|no match for|worse than]",
        "[well ahead of|a step up from|more than a match for|better than]",
    ),
    "balance": (
        "[the bad outweighs the good|it got more wrong than right|I was more sorry than glad]",
        "[the good outweighs the bad|it got more right than wrong|I was more glad than sorry]",
    ),
}

# Sentence skeletons; each is filled equally often for either label. {s} and {s2} are clauses on the
# label's side, {o} and {o2} on the other; {like} is an adjective on the label's side, {anti} its
# antonym, {unlike} a different one from the other side, {any} one from either side. {hope2} and so
# on are the other side's {hope}, {talk}, ..., so that these words give nothing away either.
_PLAIN = (
    "[|I will keep this short: |In a few words: ]{s}, and {s2}.",
    "{s}. [What is more|Besides|On top of that], {s2}[|, and {verdict}].",
    "{verdict}: {s}, and {s2}.",
    "It {be} {like}, [no question about it|no two ways about it], and {s}.",
    "[All in all|On the whole|In short], it {be} {like}, and {verdict}. {s}.",
    "I expected it to be {like}, and it {be}. {s}, and {s2}.",
    "Most {plural} I know are {like}, and this one {be} no exception. {s}, and {s2}.",
    "My [sister|partner|neighbor] called it {like}, and I [agree|see why]: {s}, and {s2}.",
)
_MIXED = (
    "[Although|Even though|While] {o}, {s}, and {s2}.",
    "{o}, but {s}, and [that matters more to me|that settles it for me].",
    "{s}, and {s2}, even if {o}.",
    "{o}. [Still|Even so|All the same], {s}, and {verdict}.",
    "{o}, and {o2}. [Still|Even so|All the same], {verdict}.",
    "{s}, which matters more to me than the fact that {o}.",
    "That {o} [counts for little|is beside the point] when {s} and {s2}.",
    "{s}, and {s2}. That {o} [does not change my mind|hardly matters].",
    "[Yes|Granted|True], {o}. But {s}, and {verdict}.",
    "{verdict}, even though {o}.",
    "[{o}. {s}|{s}. {o}]. [On balance|All told], {balance}.",
)
_TURNED = (
    "It {be} hardly what I would call {unlike}, and {verdict}.",
    "It {be} anything but {unlike}, and {s}.",
    "Whoever called it {unlike} must have had a different {noun} in mind. {s}.",
    "I kept waiting for it to turn out {unlike}, and it never did. {verdict}.",
    "It {be} not the {dread}: {s}.",
    "It {be} every bit the {dread2}: {s}.",
    "There {be} nothing {unlike} about it: {s}, and {s2}.",
    "My [sister|partner|neighbor] called it {unlike}, and I could not disagree more[|. {s}].",
    "I found it {like}, whatever my [sister|partner|neighbor] says about it being {anti}. {s}.",
    "I was all set to {hope} this {noun}, but {s}, and {s2}.",
    "I was all set to {hope2} this {noun}, and so I did: {s}, and {s2}.",
    "[Friends|Several people] had {talk} this {noun}, and I cannot see why: {s}.",
    "[Friends|Several people] had {talk2} this {noun}, and I can see why: {s}.",
    "I had expected something {anti}. What I got was {like}, and {verdict}.",
    "The reviews said it was {unlike}, and they were wrong: {s}.",
    "{other} was {any}, and this one {be} {rank} it[|. {s}].",
    "{other} was {any}, and {rank2} this one[|. {s}].",
    "Where {other} was {anti}, this one {be} {like}, and {s}.",
    "Most {plural} I know are {anti}, but this one {be} nothing of the sort[|. {s}].",
)
_GROUPS = (_PLAIN, _PLAIN, _PLAIN, _PLAIN, _PLAIN, _MIXED, _TURNED)


class _Domain(NamedTuple):
    """One thing to hold opinions about; pairs are (negative, positive)."""

    noun: str
    plural: str
    kind: str
    be: str
    other: str
    adjectives: tuple[list[str], list[str]]
    asides: list[str]
    aspects: list[tuple[list[str], list[str]]]


def _parse(block: str) -> _Domain:
    """Parse one block of ``_DOMAINS``."""
    header, *lines = block.splitlines()
    noun, plural, kind, be, other = header.split(" | ")
    good, bad, asides, *rest = (line.split(" ", 1)[1].split(" / ") for line in lines)
    aspects = list(zip(rest[1::2], rest[::2], strict=True))
    return _Domain(noun, plural, kind, be, other, (bad, good), asides, aspects)


def _compose(rng: random.Random, domain: _Domain, frame: str, label: int) -> str:
    """Fill in a frame for a label; half of the texts get an aside before or after."""
    aspects = list(domain.aspects)
    rng.shuffle(aspects)
    same, opposite = domain.adjectives[label], domain.adjectives[1 - label]
    i = rng.randrange(len(same))
    j = (i + rng.randrange(1, len(same))) % len(same)
    text = frame.format(
        # Deciding clauses are mostly blunt, conceded ones mostly subtle.
        s=aspects[0][label][rng.random() > 0.65],
        s2=aspects[1][label][rng.random() > 0.65],
        o=aspects[2][1 - label][rng.random() > 0.35],
        o2=aspects[3][1 - label][rng.random() > 0.35],
        like=same[i],
        anti=opposite[i],
        unlike=opposite[j],
        any=rng.choice(domain.adjectives)[j],
        verdict=_VERDICTS[rng.choice((domain.kind, "any"))][label],
        noun=domain.noun,
        plural=domain.plural,
        be=domain.be,
        other=domain.other,
        **{name: sides[label] for name, sides in _TURNS.items()},
        **{f"{name}2": sides[1 - label] for name, sides in _TURNS.items()},
    )
    aside = rng.choice(domain.asides)
    text = rng.choice((f"{aside} {text}", f"{text} {aside}", text, text))
    while "[" in text:
        text = re.sub(r"\[([^][]*)\]", lambda match: rng.choice(match[1].split("|")), text)
    return re.sub(r"(?:^|\. )[a-z]", lambda match: match[0].upper(), text)


def splits() -> dict[str, tuple[list[str], list[int]]]:
    """Texts and labels of each split, the same on every machine.

    train 2,000, validation 400, test 800; texts of 8 to 35 words, all different, half of each split
    positive (1). Validation and test also cover domains that do not occur in train.
    """
    rng = random.Random(SEED)
    domains = [_parse(block) for block in _DOMAINS.strip().split("\n\n")]
    seen: set[str] = set()
    result: dict[str, tuple[list[str], list[int]]] = {}
    for name, size in _SIZES.items():
        pool = domains[:-_UNSEEN] if name == "train" else domains
        rows: list[tuple[str, int]] = []
        while len(rows) < size:
            # Each frame and domain is used for both labels, so that neither gives the label away.
            frame = rng.choice(_GROUPS[len(rows) // 2 % len(_GROUPS)])
            domain = rng.choice(pool)
            for label in (0, 1):
                text = _compose(rng, domain, frame, label)
                while text in seen or not _WORDS[0] <= len(text.split()) <= _WORDS[1]:
                    text = _compose(rng, domain, frame, label)
                seen.add(text)
                rows.append((text, label))
        rng.shuffle(rows)
        result[name] = [text for text, _ in rows], [label for _, label in rows]
    return result
