"""Which columns of a table are read, and what is said about it."""

from __future__ import annotations

import logging

import pandas as pd
import pytest
from conftest import refusal, texts

import spacelite
from spacelite.data import loading as data

TEXTS = texts(20, seed=3)
LABELS = ["bad", "good"] * 10


def said(caplog, given, **options):
    caplog.clear()
    with caplog.at_level(logging.INFO, "spacelite"):
        found = data.read(given, **options)
    return found, [(each.levelname, each.message) for each in caplog.records
                   if "column" in each.message]  # fmt: skip


def test_the_chosen_columns_are_logged_once(caplog, tmp_path):
    rows = pd.DataFrame({"id": range(20), "opinion": TEXTS, "sentiment": LABELS})
    line = "texts: the texts are column 'opinion', the labels column 'sentiment'"
    assert said(caplog, rows)[1] == [("INFO", line)]
    assert said(caplog, {"train": rows, "test": rows[:4]})[1] == [("INFO", line)]
    rows.to_csv(tmp_path / "rows.csv", index=False)
    path = str(tmp_path / "rows.csv")
    assert said(caplog, path, text_column="opinion")[1] == [
        ("INFO", line.replace("texts", "rows", 1))
    ]
    named = {"text_column": "opinion", "label_column": "sentiment"}
    assert said(caplog, rows, **named)[1] == []
    # Nothing was chosen where there are no others.
    assert said(caplog, {"train": (TEXTS, LABELS)})[1] == []
    assert said(caplog, pd.DataFrame({"text": TEXTS, "label": LABELS}))[1] == []


def test_a_remaining_column_that_looks_like_no_label_is_a_warning(caplog):
    numbers = {"test": pd.DataFrame({"text": TEXTS, "id": range(20)})}
    _, messages = said(caplog, numbers, training=False)
    assert [level for level, _ in messages] == ["INFO", "WARNING"]
    assert messages[1][1].startswith(
        "texts: column 'id' was taken for the labels, as the only one left, but it has 20 "
        "different values in 20 rows: name the right one with label_column"
    )
    for rows, options in (
        (numbers, {"label_column": "id"}),
        (pd.DataFrame({"text": TEXTS, "verdict": LABELS}), {}),
        (pd.DataFrame({"text": TEXTS, "label": range(20)}), {}),
        (pd.DataFrame({"text": TEXTS[:4], "verdict": list("abcd")}), {}),
        (pd.DataFrame({"text": TEXTS, "verdict": [[label] for label in LABELS]}), {}),
    ):
        messages = said(caplog, rows, training=False, **options)[1]
        assert "WARNING" not in [level for level, _ in messages]


@pytest.mark.parametrize("convert", [int, "int64"])
def test_columns_may_have_numbers_for_names(bert, tmp_path, convert):
    frame = pd.DataFrame({0: LABELS, 1: TEXTS})
    names = frame.columns.astype("int64")
    names = [int(name) for name in names] if convert is int else list(names)
    there = {"backbone": bert, "cache_dir": tmp_path, "progress": False}
    found = spacelite.embed(frame, text_column=names[1], label_column=names[0], **there)
    with found.open() as cache:
        assert cache.label_names == ["bad", "good"]
    assert spacelite.embed(frame, text_column="1", label_column="0", **there).hit
    wrong = refusal(spacelite.embed, frame, text_column=7, label_column=0, **there)
    assert "has no column '7'" in wrong
    assert refusal(spacelite.embed, frame, text_column=True, **there).startswith("text_column=True")


# Splits whose columns differ


def test_a_split_without_the_columns_of_the_others_is_refused(tmp_path, caplog):
    """The only column that is left is no substitute for the labels."""
    rows = pd.DataFrame({"id": range(20), "review": TEXTS, "sentiment": LABELS})
    (tmp_path / "d").mkdir()
    rows.to_csv(tmp_path / "d" / "train.csv", index=False)
    rows.drop(columns="sentiment").to_csv(tmp_path / "d" / "test.csv", index=False)
    message = refusal(data.read, str(tmp_path / "d"))
    assert message == (
        "test.csv has no column 'sentiment', which another split has: its columns are 'id', "
        "'review'; add it, or leave the split out"
    )
    given = {"train": rows, "test": rows.drop(columns="sentiment")}
    assert refusal(data.read, given).startswith("texts (test) has no column 'sentiment'")
    # A usual name is one, and which split has it is said.
    other = rows.rename(columns={"sentiment": "label"})
    _, lines = said(caplog, {"train": rows, "test": other})
    assert [line for _, line in lines] == [
        "texts (train): the texts are column 'review', the labels column 'sentiment'",
        "texts (test): the texts are column 'review', the labels column 'label'",
    ]
    # The columns of the first split come before a guess.
    both = rows.assign(text="other", label="x")
    found, _ = said(caplog, {"train": rows, "test": both})
    assert found.splits["test"].texts == TEXTS and found.label_names == ("bad", "good")


# What is in the data and not used


def test_files_and_splits_that_are_not_used_are_named(tmp_path, caplog):
    from datasets import Dataset, DatasetDict

    rows = pd.DataFrame({"text": TEXTS, "label": LABELS})
    for name in ("train.csv", "testing.csv", "Train_old.csv", "more/test.csv", ".old/test.csv",
                 "pictures/one.png"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        rows.to_csv(path, index=False)
    (tmp_path / "notes.txt").write_text("none")
    data.read(str(tmp_path))
    line = f"{tmp_path}: not used, since their names are no splits: "
    assert [one for one in caplog.messages if "not used" in one] == [
        line + "Train_old.csv, more/ and testing.csv"
    ]
    caplog.clear()
    own = Dataset.from_pandas(rows)
    data.read(DatasetDict(train=own, unsupervised=own))
    assert "texts: not used, as no train, validation or test split: unsupervised" in caplog.text


def test_a_column_of_splits_in_data_that_come_in_splits_is_said(tmp_path, caplog):
    rows = pd.DataFrame({"text": TEXTS, "label": LABELS, "Split": ["train"] * 10 + ["test"] * 10})
    rows.to_csv(tmp_path / "train.csv", index=False)
    for given, name in ((str(tmp_path), "train.csv"), ({"train": rows}, "texts (train)")):
        caplog.clear()
        assert "test" not in data.read(given).splits
        assert (
            f"{name}: column 'Split' names splits too, and is not used: these rows are all train"
        ) in caplog.messages
    caplog.clear()
    data.read({"train": rows.assign(Split="train"), "test": rows.assign(Split="left")})
    assert "names splits" not in caplog.text
    # In a single table it is recognised in any case.
    assert data.read(rows.rename(columns={"Split": "SPLIT"})).splits["test"].texts == TEXTS[10:]
