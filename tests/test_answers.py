"""Answers to questions about a cache: saved, read back as they were, and shown in reports."""

import json

import numpy as np
import pytest
from conftest import texts

import spacelite
from spacelite import files
from spacelite.studies import answers
from spacelite.studies.audit import Audit
from spacelite.studies.cross_validation import CrossValidation


@pytest.fixture(scope="module")
def asked(bert, tmp_path_factory):
    """(runs, cross-validation, audit) of a cache of which both questions were asked."""
    folder = tmp_path_factory.mktemp("asked")
    own = texts(120, seed=4) + ["a good film <b>"] * 2
    labels = [int("good" in text) for text in own[:-1]] + [0]
    cache = spacelite.embed(
        texts=own, labels=labels, backbone=bert, cache_dir=folder, progress=False
    )
    runs = spacelite.train(cache, epochs=2, progress=False)
    found = spacelite.cross_validate(cache, folds=3, epochs=2, inter=[0, 0.1], progress=False)
    return runs, found, spacelite.audit(cache, folds=3, progress=False)


def test_answers_come_back_as_they_were(asked):
    runs, found, audited = asked
    record, folder = runs[0].record, runs[0].cache_dir
    read = answers.of_cache(folder, record.cache, record.cache_key)
    kept = {one.kind: one.content for one in read}
    again = CrossValidation.from_json(kept["cv"])
    assert again.table() == found.result.table()
    assert again.sentences == found.result.sentences
    for name, system in found.result.named.items():
        for metric, values in system.figures.items():
            np.testing.assert_array_equal(again.named[name].figures[metric], values)
    again = Audit.from_json(kept["audit"])
    assert again.tables() == audited.tables()
    assert again.sentences == audited.result.sentences


@pytest.mark.parametrize("form", ["text", "markdown", "latex"])
def test_reports_show_them(form, asked):
    runs, *_ = asked
    shown = spacelite.report(runs, progress=False).text(form).replace("{}", "")
    assert "Cross-validation" in shown and "held-out folds" in shown
    assert "Labels that are probably wrong" in shown and "Near-duplicates" in shown
    assert "spacelite cv, last run on 20" in shown.replace("\\", "")
    without = spacelite.report(runs, examples=False, progress=False).text(form).replace("{}", "")
    assert "Cross-validation" in without and "Labels that are probably wrong" not in without
    compared = spacelite.report(runs, compare=["space", "linear (first)"], progress=False).text(
        form
    )
    assert "Cross-validation" not in compared


def test_the_page_escapes_what_the_data_hold(asked, tmp_path):
    runs, *_ = asked
    page = spacelite.report(runs, progress=False).save(tmp_path / "page.html").read_text()
    assert "a good film &lt;b&gt;" in page and "a good film <b>" not in page
    assert json.dumps(spacelite.report(runs, progress=False).as_json())


def test_what_cannot_be_read_is_left_out(asked, caplog, tmp_path):
    runs, *_ = asked
    record, folder = runs[0].record, runs[0].cache_dir
    path = answers.answer_path(folder, record.cache, "cv")
    before = path.read_text()
    try:
        digit = before.replace(": 0.", ": 1.", 1)  # a figure that is changed
        for content in ("{", '{"kind": "cv"}', digit, before.replace('"format": 1', '"format": 9')):
            path.write_text(content)
            caplog.clear()
            shown = spacelite.report(runs, progress=False).text()
            assert "Cross-validation" not in shown and "is left out" in caplog.text
        content = json.loads(before)["content"]
        first, second = content["systems"][:2]
        for change in (
            {"systems": [{**first, "folds": None}, second]},
            {"systems": [{**first, "folds": []}, second]},
            {"systems": [{**first, "settings": 1}, second]},
            {"systems": [{**first, "head": "oracle"}, second]},
        ):
            broken = {**json.loads(before), "content": {**content, **change}}
            files.write_json(path, broken)
            caplog.clear()
            assert "Cross-validation" not in spacelite.report(runs, progress=False).text()
            assert "the last cv is left out" in caplog.text
        # Of another cache with the same name.
        broken["cache_key"] = "0"
        files.write_json(path, broken)
        caplog.clear()
        assert "Cross-validation" not in spacelite.report(runs, progress=False).text()
        assert "left out" not in caplog.text
        # Of a kind that only a later version knows.
        later = json.loads(before)
        later["kind"] = "oracle"
        files.write_json(path, later)
        assert "oracle" not in spacelite.report(runs, progress=False).text()
    finally:
        path.write_text(before)


def test_a_folder_that_cannot_be_written_costs_no_answer(asked, monkeypatch, caplog):
    runs, *_ = asked

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(answers.files, "write_json", full)
    cache = spacelite.find_cache(runs[0].record.cache, runs[0].cache_dir)
    found = spacelite.cross_validate(cache, folds=3, head="linear", epochs=1, progress=False)
    assert found.figures() and "No space left on device" in caplog.text


def test_short_forms_are_short(asked):
    _, found, audited = asked
    assert repr(found) == f"<cross-validation of {len(found.result.systems)} systems on 3 folds>"
    assert repr(audited).startswith("<audit: ") and len(repr(audited)) < 60
    assert "held-out folds" in found._repr_html_() and "&lt;b&gt;" in audited._repr_html_()


def test_a_name_of_a_cache_is_no_pattern(asked, tmp_path):
    runs, *_ = asked
    record = runs[0].record
    assert answers.of_cache(runs[0].cache_dir, record.cache, record.cache_key)
    for name in ("*", "**x", "[a-"):
        assert answers.of_cache(runs[0].cache_dir, name, record.cache_key) == []
