"""The audit of labels: confident learning against a plain loop, near-duplicates against brute
force, flipped labels found, and what users see."""

import csv
import json

import numpy as np
import pytest
from conftest import invoke, refusal

import spacelite
from spacelite import heads
from spacelite.cache.store import Cache
from spacelite.document import Table
from spacelite.heads.base import Tokens
from spacelite.studies.audit import Audit, Finding, audit_labels, conflicts, suspects
from spacelite.studies.cross_validation import divide
from spacelite.training.config import TrainingConfig
from spacelite.training.loop import Member, train_weighted

GOOD, BAD = ("great", "loved", "fine", "well"), ("dull", "hated", "slow", "awful")
FILL = ("film", "plot", "actor", "scene", "story", "the", "was", "a")


def plain(probabilities, labels):
    """Confident learning as it is written down, with loops."""
    classes = probabilities.shape[1]
    thresholds = {}
    for c in range(classes):
        own = [p[c] for p, label in zip(probabilities, labels, strict=True) if label == c]
        if own:
            thresholds[c] = sum(own) / len(own)
    found = []
    for i, p in enumerate(probabilities):
        reached = [c for c in thresholds if p[c] >= thresholds[c]]
        if reached:
            best = max(reached, key=lambda c: p[c])
            if best != labels[i]:
                found.append((p[labels[i]] - p[best], i, best))
    return [(i, best) for _, i, best in sorted(found)]


def test_confident_learning_is_what_the_paper_says():
    random = np.random.default_rng(0)
    for classes in (2, 3, 7):
        for _ in range(20):
            labels = random.integers(0, classes, 80)
            labels[labels == classes - 1] = 0  # a label that no example has
            chances = random.dirichlet(np.ones(classes) * 0.7, 80)
            found = suspects(chances, labels)
            assert [(one.example, one.suggested) for one in found] == plain(chances, labels)
            for one in found:
                assert one.own == chances[one.example, labels[one.example]]
                assert one.probability == chances[one.example, one.suggested]
                assert one.label == labels[one.example]


@pytest.mark.parametrize("several", [False, True])
def test_conflicts_are_those_of_brute_force(several):
    random = np.random.default_rng(1)
    base = random.normal(size=(300, 8)) + 5
    means = np.concatenate([base, base + random.normal(size=(300, 8)) * 0.02, base[:3]])
    labels = random.integers(0, 2, (603, 2) if several else 603)
    centred = means - means.mean(axis=0)
    expected = set()
    for i in range(len(means)):
        for j in range(i + 1, len(means)):
            cosine = centred[i] @ centred[j]
            cosine /= np.linalg.norm(centred[i]) * np.linalg.norm(centred[j])
            if cosine >= 0.999 and np.any(labels[i] != labels[j]):
                expected.add((i, j))
    found = conflicts(means, labels, 0.999)
    assert {(one.first, one.second) for one in found} == expected and expected
    cosines = [one.cosine for one in found]
    assert cosines == sorted(cosines, reverse=True) and max(cosines) <= 1


@pytest.fixture(scope="module")
def flipped(bert, tmp_path_factory):
    """A data set of two clear classes, 20 of 300 labels flipped, and its cache."""
    folder = tmp_path_factory.mktemp("flipped")
    random = np.random.default_rng(2)
    texts, labels = [], []
    for number in range(300):
        good = number % 2
        own = [*random.choice(GOOD if good else BAD, 3), *random.choice(FILL, 4)]
        random.shuffle(own)
        texts.append(" ".join(own))
        labels.append("good" if good else "bad")
    wrong = random.choice(300, 20, replace=False)
    given = list(labels)
    for number in wrong:
        given[number] = "bad" if labels[number] == "good" else "good"
    rows = [{"text": text, "label": label} for text, label in zip(texts, given, strict=True)]
    data = folder / "data"
    data.mkdir()
    (data / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (data / "validation.jsonl").write_text("\n".join(map(json.dumps, rows[:20])))
    cache = spacelite.embed(
        str(data), backbone=bert, device="cpu", cache_dir=folder / "cache", progress=False
    )
    return cache, set(wrong.tolist()), labels, data


@pytest.mark.parametrize("head", ["additive", "tfidf"])
def test_flipped_labels_are_found(head, flipped):
    cache, wrong, labels, _ = flipped
    found = spacelite.audit(cache, head=head).findings
    first = {one.index for one in found[: len(wrong)]}
    assert len(first & wrong) >= 0.8 * len(wrong)
    told = 0
    for one in found[: len(wrong)]:
        if one.index in wrong:
            assert one.suggested == labels[one.index] != one.label
            assert one.probability > one.own
            told += bool(set(one.words) & set(GOOD if one.suggested == "good" else BAD))
    assert told >= 0.8 * len(first & wrong), "the words that decided are among those named"


def test_words_and_probabilities_are_those_of_the_head_that_did_not_see_it(flipped):
    cache, _, _, _ = flipped
    config = heads.config("additive", blocks="mean+ngrams")
    with Cache(cache.path) as opened:
        found = audit_labels(opened, config, folds=4, seed=5, backbone=cache.backbone)
        split = opened.splits["train"]
        fold = divide(split.labels, opened.task, opened.label_names, count=4, seed=5)[0]
        for one in found.findings[:3]:
            seen = (fold != fold[one.index]).astype(float)
            (fit,) = train_weighted(opened, [Member(config, seen)], TrainingConfig())
            logits = fit.logits[one.index].astype(float)
            chances = np.exp(logits) / np.exp(logits).sum()
            suggested = opened.label_names.index(one.suggested)
            assert one.probability == pytest.approx(chances[suggested], abs=1e-5)
            low, high = split.offsets[one.index : one.index + 2]
            tokens = Tokens(
                split.read_hidden(one.index, one.index + 1).astype(float),
                split.read_token_ids(low, high), np.array([0, high - low]),
            )  # fmt: skip
            values = {name: value.numpy() for name, value in fit.parameters.items()}
            shares = heads.kind("additive").token_shares(config, values, tokens)
            total = shares.sum(axis=0) + values["classifier.bias"]
            np.testing.assert_allclose(total, logits, atol=1e-5)


def test_the_command_prints_writes_and_is_machine_clean(flipped, tmp_path):
    cache, wrong, _, data = flipped
    there = ["--cache", str(cache.path), "--backbone", str(cache.backbone)]
    out = tmp_path / "labels.csv"
    done = invoke("audit", *there, "--top", "5", "--out", out, env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    assert "1. " in done.stdout and " in place of " in done.stdout
    assert "train.jsonl, row " in done.stdout and "may have another label" in done.stdout
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = (data / "train.jsonl").read_text().splitlines()
    for row in rows:
        assert json.loads(lines[int(row["row"]) - 1])["text"] == row["text"]
        assert row["file"] == "train.jsonl" and int(row["row"]) == int(row["index"]) + 1
    assert len({int(row["index"]) for row in rows} & wrong) >= 16
    printed = json.loads(invoke("audit", *there, "--json").stdout)
    assert [one["index"] for one in printed["findings"]] == [int(row["index"]) for row in rows]
    found = spacelite.audit(cache)
    assert "Suggested" in str(found) and "<table" in found._repr_html_()
    folder = tmp_path / "no" / "such"
    assert refusal(found.save, folder / "f.csv").endswith(f"there is no folder {folder}")


@pytest.mark.parametrize(("count", "first"), [(21, "The first 20 of 21, by"), (20, "By")])
def test_a_report_says_in_which_order_findings_are(count, first):
    finding = Finding(0, None, "a film", "good", "bad", 0.9, 0.1)
    found = Audit(heads.config("tfidf"), 5, 100, 0.9, [finding] * count, [])
    (table,) = [block for block in found.report_blocks("", "") if isinstance(block, Table)]
    assert len(table.lines) == 20
    assert table.caption == (
        f"{first} how much more probable the suggested label is than the given one"
    )


def test_near_duplicates_with_other_labels_are_listed(bert, tmp_path):
    texts = ["a great film", "the plot was dull", "loved the actor"] * 6
    labels = ["x", "y", "x"] * 5 + ["y", "x", "x"]
    cache = spacelite.embed(
        {"train": (texts, labels), "validation": (texts[:2], labels[:2])}, backbone=bert,
        device="cpu", cache_dir=tmp_path, progress=False,
    )  # fmt: skip
    found = spacelite.audit(cache, folds=3).result
    named = {(one.index, other.index) for one, other, _ in found.pairs}
    assert {(0, 15), (3, 15), (1, 16)} <= named and len(named) == 10
    shown = " ".join(str(spacelite.audit(cache, folds=3)).split())
    assert "2 groups of texts, 12 in all, are nearly the same" in shown
    first, second = sorted(found.groups, key=lambda group: group[0].index % 3)
    assert {each.index for each in first} == {0, 3, 6, 9, 12, 15}
    assert {each.index for each in second} == {1, 4, 7, 10, 13, 16}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"head": "space"}, "head=space: choose from additive, tfidf, logreg"),
        ({"folds": 1}, "folds=1: give a whole number from 2 to 1,000"),
        ({"folds": 200}, "each fold needs one: use fewer folds"),
        ({"backbone": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line(options, said, flipped):
    assert said in refusal(spacelite.audit, flipped[0], **options)


def test_texts_with_several_labels_are_refused(bert, tmp_path):
    texts, labels = ["a film", "the plot", "dull"] * 4, [["a"], ["b"], ["a", "b"]] * 4
    cache = spacelite.embed(
        texts=texts, labels=labels, backbone=bert, device="cpu", cache_dir=tmp_path, progress=False
    )
    said = refusal(spacelite.audit, cache)
    assert said.startswith("an audit needs labels that are classes, a single one per text: cache")
