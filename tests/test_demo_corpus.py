"""The built-in demo texts: sizes, balance, fixed content, and frames that keep their label."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from spacelite.data import demo as demo_corpus

DIGEST = "2062807bbd001e79cdbed8721c04bc91c0f4e23045f3d4a3f6d722484489c11f"


@pytest.fixture(scope="module")
def splits():
    return demo_corpus.splits()


def test_sizes_and_labels(splits):
    assert demo_corpus.LABEL_NAMES == ("negative", "positive")
    sizes = {name: (len(texts), len(labels)) for name, (texts, labels) in splits.items()}
    assert sizes == {"train": (2000, 2000), "validation": (400, 400), "test": (800, 800)}


def test_classes_are_balanced_and_mixed(splits):
    for _, labels in splits.values():
        assert Counter(labels) == {0: len(labels) // 2, 1: len(labels) // 2}
        assert 0.3 < sum(labels[:100]) / 100 < 0.7  # shuffled: no run of one class


def test_no_text_occurs_twice(splits):
    texts = [text for texts, _ in splits.values() for text in texts]
    assert len(set(texts)) == len({text.lower() for text in texts}) == len(texts) == 3200


def test_content_is_fixed(splits):
    content = json.dumps(splits, sort_keys=True).encode()
    assert hashlib.sha256(content).hexdigest() == DIGEST
    assert demo_corpus.splits() == splits


def test_texts_are_finished_sentences_of_8_to_35_words(splits):
    for texts, _ in splits.values():
        for text in texts:
            assert 8 <= len(text.split()) <= 35
            assert re.fullmatch(r"[A-Z][A-Za-z0-9 ,:.'-]*\.", text), text
            assert not re.search(r"\. [a-z]|  |\.\.| [,.:]", text), text


def test_domain_tables_are_complete():
    grammar = json.loads(Path(demo_corpus.__file__).with_name("demo.json").read_text())
    for domain in grammar["domains"]:
        assert domain["kind"] in grammar["verdicts"]
        assert [len(side) for side in domain["adjectives"]] == [6, 6]
        assert [[len(side) for side in aspect] for aspect in domain["aspects"]] == [[2, 2]] * 4


def test_words_of_the_frames_do_not_give_the_label_away(splits):
    texts, labels = splits["train"]
    for word in ("but", "although", "still", "not", "anything", "hardly", "never", "even",
                 "expected", "called", "wrong", "most", "whoever", "counts", "yes"):  # fmt: skip
        sides = [y for text, y in zip(texts, labels, strict=True)
                 if re.search(rf"\b{word}\b", text, re.I)]  # fmt: skip
        if len(sides) >= 60:
            assert 0.35 < sum(sides) / len(sides) < 0.65, (word, len(sides))


def test_bags_of_words_do_not_solve_it(splits):
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    for longest, bound in ((1, 0.89), (2, 0.95)):
        counts = text.CountVectorizer(ngram_range=(1, longest), token_pattern=r"\b\w+\b")
        X = counts.fit_transform(splits["train"][0])
        head = linear.LogisticRegression(max_iter=2000).fit(X, splits["train"][1])
        accuracy = head.score(counts.transform(splits["test"][0]), splits["test"][1])
        assert 0.7 < accuracy < bound, (longest, accuracy)
