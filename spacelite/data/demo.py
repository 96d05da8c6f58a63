"""The built-in ``demo`` data set: short opinion texts from a seeded grammar of our own.

The grammar is in demo.json. [a|b] stands for either, everywhere. Pairs are (negative, positive).

``domains`` are things to hold opinions about, with two lists of adjectives that are antonyms
position by position, so that an adjective is never set against its own opposite by accident; many
are good in one domain and bad in another. ``asides`` take no side. Of the four ``aspects`` each
side has a blunt and a subtler clause, all of similar weight: no complaint is so grave that "but
..." could not outweigh it. In many ``verdicts`` both sides use the same words, so that word order
decides.

``plain``, ``mixed`` and ``reversed`` are sentence skeletons, filled equally often for either label.
{s} and {s2} are clauses on the label's side, {o} and {o2} on the other; {like} is an adjective on
the label's side, {anti} its antonym, {unlike} a different one from the other side, {any} one from
either side. {hope2} and so on are the other side's {hope}, {talk}, ... of ``turns``, so that these
words give nothing away either.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

SEED = 42
LABEL_NAMES = ("negative", "positive")
_SIZES = {"train": 2000, "validation": 400, "test": 800}
_WORDS = (8, 35)
# Training texts never use the last domains: a model that has learned opinions, rather than these
# phrases, should do well there too.
_UNSEEN = 4


def _compose(
    rng: random.Random, grammar: dict[str, Any], domain: dict[str, Any], frame: str, label: int
) -> str:
    """Fill in a frame for a label; half of the texts get an aside before or after."""
    aspects = list(domain["aspects"])
    rng.shuffle(aspects)
    same, opposite = domain["adjectives"][label], domain["adjectives"][1 - label]
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
        any=rng.choice(domain["adjectives"])[j],
        verdict=grammar["verdicts"][rng.choice((domain["kind"], "any"))][label],
        **{name: domain[name] for name in ("noun", "plural", "be", "other")},
        **{name: sides[label] for name, sides in grammar["turns"].items()},
        **{f"{name}2": sides[1 - label] for name, sides in grammar["turns"].items()},
    )
    aside = rng.choice(domain["asides"])
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
    grammar = json.loads(Path(__file__).with_name("demo.json").read_text("utf-8"))
    domains = grammar["domains"]
    # Plain frames make up five of seven.
    groups = [grammar["plain"]] * 5 + [grammar["mixed"], grammar["reversed"]]
    seen: set[str] = set()
    result: dict[str, tuple[list[str], list[int]]] = {}
    for name, size in _SIZES.items():
        pool = domains[:-_UNSEEN] if name == "train" else domains
        rows: list[tuple[str, int]] = []
        while len(rows) < size:
            # Each frame and domain is used for both labels, so that neither gives the label away.
            frame = rng.choice(groups[len(rows) // 2 % len(groups)])
            domain = rng.choice(pool)
            for label in (0, 1):
                text = _compose(rng, grammar, domain, frame, label)
                while text in seen or not _WORDS[0] <= len(text.split()) <= _WORDS[1]:
                    text = _compose(rng, grammar, domain, frame, label)
                seen.add(text)
                rows.append((text, label))
        rng.shuffle(rows)
        result[name] = [text for text, _ in rows], [label for _, label in rows]
    return result
