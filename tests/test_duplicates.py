"""Texts that occur in two splits or have more than one label: counted, and said to the reader."""

import itertools
import json
import logging
import unicodedata
from collections import defaultdict

import numpy as np
import pytest
from conftest import invoke, refusal, texts, train_and_save

import spacelite
from spacelite import heads
from spacelite.cache import texts as cached_texts
from spacelite.cache.store import Cache, side_file
from spacelite.data.splits import folded
from spacelite.inference import transfer
from spacelite.reports.analysis import content
from spacelite.runs import store as runs
from spacelite.training.config import TrainingConfig


def embed(data, bert, folder, **options):
    return spacelite.embed(
        data, backbone=str(bert), cache_dir=folder, device="cpu", progress=False, **options
    )


SPLITS = {
    # Capitals are all the same to this tokenizer, as the token ids show.
    "train": (["good film", "bad film", "the plot", "the plot", "a scene"], [1, 0, 0, 1, 0]),
    "validation": (["Good film", "a story", "very dull"], [1, 1, 0]),
    "test": (["good FILM", "good film", "bad film", "a story", "slow"], [1, 0, 0, 0, 0]),
}


@pytest.fixture(scope="module")
def leaking(bert, tmp_path_factory):
    """A cache whose splits share texts, with a run."""
    cache = embed(SPLITS, bert, tmp_path_factory.mktemp("leaking"), name="leaking")
    with cache.open() as opened:
        train_and_save(cache.cache_dir, opened, [heads.config("linear")], TrainingConfig(epochs=1))
    return cache


def test_texts_in_two_splits_and_with_two_labels_are_counted(leaking):
    assert leaking.duplicates.as_json() == {
        "shared": {"train/validation": 1, "train/test": 3, "validation/test": 3},
        "contradictory": {"train": 1, "validation": 0, "test": 1, "all": 3},
    }


@pytest.mark.parametrize("multi", [False, True])
def test_the_counts_are_those_of_a_count_by_hand(bert, tmp_path, multi):
    random = np.random.default_rng(0)
    splits = {}
    for seed, name in enumerate(("train", "validation", "test")):
        own = texts(150, seed=seed, longest=2)
        labels = random.integers(0, 2, 150).tolist()
        splits[name] = (own, [[f"l{x}", "other"] for x in labels] if multi else labels)
    found = embed(splits, bert, tmp_path).duplicates
    together = defaultdict(set)
    for own, labels in splits.values():
        for text, label in zip(own, labels, strict=True):
            together[text].add(str(label))
    assert found.contradictory["all"] == sum(len(labels) > 1 for labels in together.values()) > 0
    for one, other in itertools.combinations(splits, 2):
        known = set(splits[one][0])
        assert found.shared[one, other] == sum(text in known for text in splits[other][0])


def test_embed_says_it_in_one_line_each_also_of_a_cache_that_was_there(leaking, bert, caplog):
    caplog.set_level(logging.WARNING, "spacelite")
    assert embed(SPLITS, bert, leaking.cache_dir, name="leaking").hit
    assert caplog.messages == [
        "1 of 3 validation examples has a text of train, 3 of 5 test examples have a text of "
        "train: these were seen in training; 3 of 5 test examples have a text of validation: these "
        "were seen when settings were chosen, so the metrics are too optimistic",
        "3 texts have more than one label, each in another example: no classifier can get all of "
        "these examples right",
    ]


def test_embed_prints_the_counts_as_json(bert, tmp_path):
    file = tmp_path / "data.jsonl"
    rows = [
        {"text": text, "label": i % 2, "split": "dev" if i < 6 else "train"}
        for i, text in enumerate(["a film", "bad"] * 30)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    done = invoke(
        "embed", "--dataset", file, "--backbone", bert, "--device", "cpu",
        "--cache-dir", tmp_path, "--json",
    )  # fmt: skip
    assert json.loads(done.stdout)["duplicates"] == {
        "shared": {"train/validation": 6},
        "contradictory": {"train": 0, "validation": 0, "all": 0},
    }
    assert "6 of 6 validation examples have a text of train" in " ".join(done.stderr.split())


def test_data_without_duplicates_are_passed_over_in_silence(bert, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "spacelite")
    names = ("train", "validation", "test")
    words = (["good", "bad", "fine", "poor"], ["nice", "dull"], ["slow", "well"])
    splits = zip(names, words, strict=True)
    done = embed({name: (own, [1, 0] * (len(own) // 2)) for name, own in splits}, bert, tmp_path)
    assert caplog.messages == []
    assert done.duplicates.leaked == done.duplicates.contradicted == ""


FOREIGN = {
    # One [UNK] each to this tokenizer, which writes "Å" as "a".
    "train": (
        ["好", "фильм", "好 film", "good film", "Å film", "bad plot", "好"],
        [0, 1, 0, 1, 0, 1, 0],
    ),
    "validation": (["坏", "坏 film", "GOOD  film", "фильм"], [1, 0, 0, 1]),
    "test": (["坏", "Å film", "bad plot"], [0, 1, 1]),
}


def test_texts_that_are_mostly_unknown_are_compared_as_they_were_written(bert, tmp_path):
    cache = embed(FOREIGN, bert, tmp_path)
    assert cache.duplicates.as_json() == {
        "shared": {"train/validation": 2, "train/test": 2, "validation/test": 1},
        "contradictory": {"train": 0, "validation": 0, "test": 0, "all": 3},
    }
    # Without the texts, as in a cache of an older version, the messages say what was compared.
    side_file(cache.path, "texts").unlink()
    with cache.open() as opened:
        found = cached_texts.duplicates_of(opened)
    assert found.shared["train", "validation"] == 4 and not found.by_text
    assert "4 of 4 validation examples have the same tokens as a text of train" in found.leaked
    assert "texts of the same tokens have more than one label" in found.contradicted


def test_texts_that_are_cut_off_are_the_same_if_what_is_left_is(bert, tmp_path):
    own = {
        "train": (["good film " * 9 + "bad", "dull plot " * 9, "bad", "fine"], [0, 1, 1, 0]),
        "validation": (["good film " * 20, "dull plot " * 8 + "bad"], [0, 1]),
    }
    found = embed(own, bert, tmp_path, max_length=16).duplicates
    assert found.by_text and found.shared["train", "validation"] == 2


def notes(folder):
    found = content.build(folder, runs.load_all(folder), with_examples=False)
    return {part.section.title.split(",")[0]: part.section.notes for part in found.parts}


def test_the_report_says_it_under_the_table_and_of_transfers_too(leaking, bert, tmp_path):
    other = {"train": (["slow", "well"], [0, 1]), "test": (["good film", "nice plot"], [1, 0])}
    there = embed({**other, "validation": (["loved"], [1])}, bert, leaking.cache_dir, name="other")
    (run,) = runs.load_all(leaking.cache_dir)
    with Cache(there.path) as cache:
        run.save_transfer(*transfer.evaluate(run, cache))
    found = notes(leaking.cache_dir)
    assert found["leaking"][1].startswith("1 of 3 validation examples has a text of train")
    assert found["leaking"][2].startswith("3 texts have more than one label")
    assert found["leaking → other"][1:] == [
        "1 of 2 test examples of other has a text of the training data of the runs: these were "
        "seen in training, so the metrics of test are too optimistic."
    ]


def test_without_the_cache_the_report_has_no_such_note(leaking, bert, tmp_path):
    cache = embed(SPLITS, bert, tmp_path, name="leaking")
    with cache.open() as opened:
        train_and_save(tmp_path, opened, [heads.config("linear")], TrainingConfig(epochs=1))
    assert len(notes(tmp_path)["leaking"]) == 4  # the majority, two of duplicates, the updates
    cache.path.unlink()
    (updates,) = notes(tmp_path)["leaking"]  # which the runs say without the cache
    assert updates.startswith("The heads had only 1 update in")


def test_the_report_calls_an_evaluation_on_own_data_no_transfer(bert, tmp_path):
    cache = embed(SPLITS, bert, tmp_path, name="leaking")
    with cache.open() as opened:
        (run,) = train_and_save(
            tmp_path, opened, [heads.config("linear")], TrainingConfig(epochs=1)
        )
        run.save_transfer(*transfer.evaluate(run, opened))
    text = spacelite.report(cache_dir=tmp_path, examples=False, progress=False).text()
    assert "not a transfer, but the runs' own data (0 as 0, 1 as 1)" in " ".join(text.split())


def test_real_data_against_a_count_of_the_token_ids_themselves(real_data, bert, tmp_path):
    cache = embed("hatexplain", bert, tmp_path, data_dir=real_data, limit=300, max_length=16)
    with cache.open() as opened:
        found = cached_texts.find_duplicates(opened.splits)
        own = {
            name: [
                tuple(split.read_token_ids(start, stop))
                for start, stop in itertools.pairwise(split.offsets.tolist())
            ]
            for name, split in opened.splits.items()
        }
    for (one, other), count in found.shared.items():
        assert count == sum(ids in set(own[one]) for ids in own[other])


def test_leaks_are_left_out_of_train_alone(bert, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    cache = embed(SPLITS, bert, tmp_path, drop_leaks=True)
    with cache.open() as opened:
        assert {name: len(split) for name, split in opened.splits.items()} == {
            "train": 3, "validation": 3, "test": 5,
        }  # fmt: skip
        assert [cached_texts.read(opened, "train").text(i) for i in range(3)] == [
            "the plot", "the plot", "a scene",
        ]  # fmt: skip
    assert cache.labels == {"0": 2, "1": 1}
    assert cache.duplicates.shared == {
        ("train", "validation"): 0, ("train", "test"): 0, ("validation", "test"): 3,
    }  # fmt: skip
    assert "2 of 5 training examples were left out: their texts are also in" in caplog.text


def test_leaks_are_left_out_of_files_by_the_command(bert, tmp_path):
    for name, (own, labels) in SPLITS.items():
        rows = [{"text": text, "label": label} for text, label in zip(own, labels, strict=True)]
        (tmp_path / "leaky").mkdir(exist_ok=True)
        (tmp_path / "leaky" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    there = ["--backbone", str(bert), "--cache-dir", str(tmp_path / "c"), "--device", "cpu"]
    options = ["--dataset", str(tmp_path / "leaky"), "--drop-leaks", "--json", *there]
    done = invoke("embed", *options)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["splits"]["train"] == 3 and found["duplicates"]["shared"]["train/test"] == 0


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ((["Good film", "a  STORY"], [0, 1]), "also occurs in validation or test: leave drop_le"),
        ((["good film", "fine", "well"], [1, 0, 0]), "holds a single class"),
    ],
)
def test_too_little_left_to_train_on_is_refused(train, said, bert, tmp_path):
    splits = {**SPLITS, "train": train}
    assert said in refusal(embed, splits, bert, tmp_path / "cache", drop_leaks=True)
    assert not (tmp_path / "cache").exists()


def test_ascii_texts_are_folded_as_all_others():
    def slowly(text):
        parts = unicodedata.normalize("NFKD", text.casefold())
        return "".join(
            each for each in parts if unicodedata.category(each) not in ("Mn", "Cc", "Cf", "Zs")
        )

    every = "".join(map(chr, range(128)))
    assert folded(every) == slowly(every)
    assert folded("\u00c9t\u00e9 \u200b1") == "ete1" == folded("ETE\t1")
