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
