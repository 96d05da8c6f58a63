"""Tokens that are unknown to the backbone: counted by embed, marked by predict."""

import csv
import io
import json
import logging

import numpy as np
import pytest
from conftest import invoke, train_and_save
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import spacelite
from spacelite import heads
from spacelite.backbones.files import BackboneFiles
from spacelite.backbones.tokenizer import SpecialIds, load_tokenizer, special_ids, unknown_shares
from spacelite.cache import texts
from spacelite.cache.store import side_file
from spacelite.reports.analysis import content
from spacelite.runs import store as runs
from spacelite.training.config import TrainingConfig

SPLITS = {
    "train": (["good film", "bad film", "фильм 好 film", "the 好"], [1, 0, 0, 1]),
    "validation": (["good film", "a story", "very dull", "a plot"], [1, 1, 0, 0]),
    "test": (["🙂 🙃", "good film"], [1, 0]),
}
SENTENCE = (
    "33% of the tokens of train are unknown to the backbone (2 of 4 texts mostly), 50% of the "
    "tokens of test are unknown to the backbone (1 of 2 texts mostly): all unknown words look the "
    "same to it; a backbone for the language and script of the texts knows more of them"
)


def embed(splits, bert, folder, name="foreign"):
    return spacelite.embed(
        splits, backbone=str(bert), cache_dir=folder, device="cpu", progress=False, name=name
    )


@pytest.fixture(scope="module")
def foreign(bert, tmp_path_factory):
    """A cache with many unknown tokens, and a run on it."""
    cache = embed(SPLITS, bert, tmp_path_factory.mktemp("foreign"))
    with cache.open() as opened:
        train_and_save(cache.cache_dir, opened, [heads.config("linear")], TrainingConfig(epochs=1))
    return cache


def test_embed_counts_unknown_tokens_by_split(foreign):
    counts = foreign.unknown.as_json()
    assert counts["validation"] == {"tokens": 8, "unknown": 0, "texts": 4, "mostly_unknown": 0}
    assert counts["test"] == {"tokens": 4, "unknown": 2, "texts": 2, "mostly_unknown": 1}
    with foreign.open() as cache:
        for name, split in cache.splits.items():
            ids = split.read_token_ids()
            assert counts[name]["unknown"] == int((ids == 1).sum())
            assert counts[name]["tokens"] == int((~np.isin(ids, [0, 2, 3, 4])).sum())


def test_padding_is_no_token_of_a_text(bert, tmp_path):
    padded = spacelite.embed(
        SPLITS, backbone=str(bert), cache_dir=tmp_path, device="cpu", progress=False, name="padded",
        padding="max_length", max_length=16,
    )  # fmt: skip
    assert padded.unknown.as_json()["test"] == {
        "tokens": 4, "unknown": 2, "texts": 2, "mostly_unknown": 1
    }  # fmt: skip


def test_embed_says_where_many_are_unknown_also_of_caches_of_older_versions(foreign, bert, caplog):
    caplog.set_level(logging.WARNING, "spacelite")
    beside = side_file(foreign.path, "unknown")
    for _ in range(2):
        again = embed(SPLITS, bert, foreign.cache_dir)
        assert again.hit and caplog.messages[-1] == SENTENCE
        assert again.unknown == foreign.unknown
        beside.unlink()  # as an older version left it
    assert embed(SPLITS, bert, foreign.cache_dir).unknown == foreign.unknown


def test_a_few_unknown_tokens_are_passed_over_in_silence(bert, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "spacelite")
    long = {
        "train": (["good film 好 " + "nice plot " * 20, "bad scene"] * 2, [1, 0] * 2),
        "validation": (["slow story", "dull story"], [1, 0]),
        "test": (["well acted", "boring plot"], [1, 0]),
    }
    cache = embed(long, bert, tmp_path)
    assert cache.unknown.splits["train"].unknown == 2 and caplog.messages == []


def test_the_report_says_it_and_a_damaged_file_beside_the_cache_is_as_none(foreign):
    def notes():
        found = runs.load_all(foreign.cache_dir)
        parts = content.build(foreign.cache_dir, found, with_examples=False).parts
        return parts[0].section.notes

    assert f"{SENTENCE}." in notes()
    beside = side_file(foreign.path, "unknown")
    kept = beside.read_text()
    beside.write_text('{"train": 3}')
    assert f"{SENTENCE}." not in notes() and len(notes()) > 0
    beside.write_text(kept)


def test_the_counts_go_with_the_cache(bert, tmp_path):
    cache = embed(SPLITS, bert, tmp_path)
    assert side_file(cache.path, "unknown").is_file()
    assert invoke("cache", "remove", cache.name, "--yes", "--cache-dir", tmp_path).exit_code == 0
    assert not list(cache.path.parent.glob("*.json"))


TEXTS = ["a good film", "好 好 film", "好", "bad 好 film"]
SHARES = [0, 2 / 3, 1, 1 / 3]


def test_predict_marks_texts_that_are_mostly_unknown(foreign, bert):
    run = spacelite.load_runs(foreign.cache_dir)[0]
    predictions = run.predict(TEXTS, backbone=str(bert), device="cpu", progress=False)
    np.testing.assert_allclose(predictions.unknown, SHARES)
    assert predictions.mostly_unknown == [1, 2]
    assert predictions[1]["unknown"] == pytest.approx(2 / 3)
    note = (
        "Unknown: at least half of the tokens of 2 of 4 texts are unknown to the backbone: their "
        "labels say little."
    )
    assert str(predictions).endswith(note) and "67%  好 好 film" in str(predictions)
    assert note in predictions._repr_html_()
    there = ["predict", run.id, *TEXTS, "--backbone", bert, "--cache-dir", foreign.cache_dir]
    shown = invoke(*there)
    assert note in shown.stdout and "67%" in shown.stdout and "33%" not in shown.stdout
    done = invoke(*there, "--json")
    assert [row["unknown"] for row in json.loads(done.stdout)] == pytest.approx(SHARES)
    assert note in " ".join(done.stderr.split())
    table = list(csv.DictReader(io.StringIO(invoke(*there, "--csv").stdout)))
    assert [float(row["unknown"]) for row in table] == pytest.approx(SHARES)
    known = invoke(*there[:2], "a good film", *there[-4:])
    assert "nknown" not in known.stdout


def test_what_the_tokenizer_reduces_to_nothing_is_unknown(foreign, bert):
    run = spacelite.load_runs(foreign.cache_dir)[0]
    found = run.predict(["\u0301", "film"], backbone=str(bert), device="cpu", progress=False)
    assert found.unknown.tolist() == [1, 0]


def saved(folder, **special):
    """A tokenizer of two words with these special tokens."""
    vocabulary = {"<unk>": 0, "good": 1, "<end>": 2}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    return BackboneFiles("tiny", folder, "", "")


def test_backbones_without_an_unknown_token_have_no_unknown_tokens(tmp_path):
    none = special_ids(load_tokenizer(saved(tmp_path / "none", eos_token="<end>")))
    assert none == SpecialIds(None, frozenset({2}))
    # As GPT-2, whose unknown token is the one that ends a text.
    shared = special_ids(
        load_tokenizer(saved(tmp_path / "both", eos_token="<end>", unk_token="<end>"))
    )
    assert shared == SpecialIds(None, frozenset({2}))
    own = special_ids(load_tokenizer(saved(tmp_path / "own", eos_token="<end>", unk_token="<unk>")))
    assert own == SpecialIds(0, frozenset({2}))
    ids, offsets = np.array([0, 1, 2]), np.array([0, 1, 3])
    assert unknown_shares(ids, offsets, own).tolist() == [1, 0]
    assert unknown_shares(ids, offsets, none).tolist() == [0, 0]


@pytest.mark.parametrize("wrong", ['"x"', "-1", "1e9", "true", "999999999", "null"])
def test_counts_that_cannot_be_are_as_none(foreign, wrong, caplog):
    path = side_file(foreign.path, "unknown")
    before = path.read_text()
    try:
        counts = json.loads(before)
        counts["train"]["unknown"] = json.loads(wrong)
        for content in (counts, {name: of for name, of in counts.items() if name != "checksum"}):
            path.write_text(json.dumps(content))
            caplog.clear()
            assert not texts.read_unknown(foreign.path).splits
            assert f"{path} is damaged" in caplog.text
    finally:
        path.write_text(before)
    assert texts.read_unknown(foreign.path).splits


def test_a_changed_digit_is_found_and_older_files_have_no_checksum(foreign, caplog):
    path = side_file(foreign.path, "unknown")
    before, kept = path.read_text(), texts.read_unknown(foreign.path)
    counts = json.loads(before)
    try:
        counts["train"]["tokens"] += 1
        path.write_text(json.dumps(counts))
        assert not texts.read_unknown(foreign.path).splits
        assert f"{path} is damaged (it does not match its checksum)" in caplog.text
        counts["train"]["tokens"] -= 1
        del counts["checksum"]
        path.write_text(json.dumps(counts))
        assert texts.read_unknown(foreign.path) == kept and kept.splits
    finally:
        path.write_text(before)
