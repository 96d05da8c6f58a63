"""Objects of the Python interface in a session: short forms, lists of runs, reports as files."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from html import escape

import numpy as np
import pytest
from conftest import NASTY_LABELS, invoke, refusal

import spacelite
from spacelite.backbones import model
from spacelite.document import Mistakes, Table
from spacelite.reports.render import markup
from spacelite.visible import visible


@pytest.fixture(scope="module")
def runs(report_dir, tmp_path_factory):
    own = tmp_path_factory.mktemp("objects") / "cache"
    shutil.copytree(report_dir, own)
    return spacelite.load_runs(own)


@pytest.fixture(scope="module")
def best(runs, bert):
    """A space head of the data set whose label names are hostile."""
    return next(
        run for run in runs
        if run.record.head.kind == "space" and run.record.spec.dataset == "labels"
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(runs, bert):
    return spacelite.report(runs, backbone=bert, progress=False)


# Short forms: one line, whatever the object holds.


def test_predictions_are_counted_by_label(best, bert):
    given = ["a good film"] * 3 + ["a dull film \x1b[31m"]
    found = best.predict(given, backbone=bert, progress=False)
    assert str(found).splitlines()[0].split() == ["Label", "Probability", "Text"]
    short = repr(found)
    assert short.startswith("<labels of 4 texts: ") and short.endswith(f"; {best.id}>")
    counts = re.findall(r"(\d+) (?:<script|a\||naïve)", short)
    assert sum(map(int, counts)) == 4 and "array(" not in short
    undecided = best.predict(given[:1], backbone=bert, min_probability=1.0, progress=False)
    assert repr(undecided) == f"<labels of 1 text: 1 no label; {best.id}>"


def test_a_notebook_shows_both_ends_of_many_predictions(best, bert):
    given = [f"a good film {number}." for number in range(300)]
    found = best.predict(given, backbone=bert, progress=False)
    html = found._repr_html_()
    shown = re.findall(r"film (\d+)\.", html)
    assert shown == [*map(str, range(5)), *map(str, range(295, 300))] and "…" in html
    assert "300 texts; to_frame() has all of them." in html and len(html) < 10_000
    assert len(str(found).splitlines()) >= 300
    some = dataclasses.replace(found, texts=given[:60], probabilities=found.probabilities[:60])
    assert len(re.findall(r"film (\d+)\.", some._repr_html_())) == 60


def test_explanations_and_evaluations_have_short_forms(best, bert, runs):
    explained = best.explain("a good film " + "very " * 50, backbone=bert)
    name = NASTY_LABELS[explained.label]
    assert re.fullmatch(
        rf"<words of 'a good film .*…' for {re.escape(name)}; predicted .* \(0\.\d{{3}}\)>",
        repr(explained),
    )
    assert len(repr(explained)) < 300
    example = best.explain(example="test:3", backbone=bert)
    assert repr(example).startswith("<words of test:3 for ")
    cache = spacelite.find_cache(best.record.cache, best.cache_dir)
    evaluation = best.evaluate(cache=cache, progress=False)
    accuracy = evaluation.metrics["test"]["accuracy"]
    assert repr(evaluation).startswith(f"<run {best.id} evaluated on labels: accuracy train 0.")
    assert repr(evaluation).endswith(f"test {accuracy:.4f}>")


def test_reports_runs_and_caches_have_short_forms(report, runs, best):
    assert re.fullmatch(r"<report of \d+ systems: imdb, [^\n]*; labels, [^\n]*>", repr(report))
    assert repr(runs[:1]) == f"<1 run: {runs[0].record.system}>"
    assert repr(runs).startswith(f"<{len(runs)} runs: {runs[0].record.system}, ")
    assert repr(spacelite.Runs()) == "<0 runs>" and str(spacelite.Runs()) == "no runs"
    with spacelite.find_cache(best.record.cache, best.cache_dir).open() as cache:
        assert repr(cache).startswith(f"<cache {cache.path}: 60 train, 20 validation, 40 test, ")


# Lists of runs.


def test_lists_of_runs_are_added_and_sliced(runs):
    halves = runs[:2] + runs[2:]
    assert isinstance(halves, spacelite.Runs) and list(halves) == list(runs)
    assert list(runs[:1] + [runs[1]]) == list(runs[:2]) == list([runs[0]] + runs[1:2])  # noqa: RUF005
    stopped = spacelite.Runs(list(runs[:1]), ["space"], "x") + spacelite.Runs(
        list(runs[1:2]), ["linear"], "x"
    )
    assert (stopped.stopped, stopped.baseline) == (["space", "linear"], "x")
    assert (stopped + runs[2:]).baseline == ""
    with pytest.raises(TypeError):
        runs + 1


def test_the_best_of_no_run_is_an_error_that_says_so(runs):
    said = refusal(spacelite.Runs([]).best)
    assert said == "there is no run to choose from: this list of runs is empty"


# Reports as files.


@pytest.mark.parametrize(
    ("name", "form"),
    [("a/report.md", "markdown"), ("b.tex", "latex"), ("c.JSON", "json"), ("d.txt", "text")],
)
def test_a_path_with_the_suffix_of_a_form_is_that_file(name, form, report, tmp_path):
    path = report.save(tmp_path / name)
    assert path == tmp_path / name and path.read_text() == report.text(form)
    assert report.save(str(path), form) == path


@pytest.mark.slow
def test_a_page_that_is_a_single_file_needs_no_other(report, tmp_path):
    path = report.save(tmp_path / "page.html")
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]
    page = re.sub(r"<script>.*?</script>", "", path.read_text(), flags=re.DOTALL)
    assert page.startswith("<!doctype html>") and not re.search(r'(src|href)="[^#"]', page)
    folder = tmp_path / "folder.html"
    folder.mkdir()  # it may be called like a file
    assert report.save(folder) == folder / "index.html"
    assert 'href="curves-1.svg"' in (folder / "index.html").read_text()


def test_a_form_and_a_file_of_another_are_refused(report, report_dir, tmp_path):
    said = refusal(report.save, tmp_path / "page.html", "markdown")
    assert said.startswith("format=markdown: page.html is the name of a file of format html: ")
    assert not list(tmp_path.iterdir())
    page = tmp_path / "page.html"
    there = ["report", "--cache-dir", str(report_dir), "--no-examples", "--out"]
    refused = invoke(*there, page, "--format", "text")
    assert refused.exit_code == 1 and "is the name of a file of format html" in refused.stderr
    assert not list(tmp_path.iterdir())
    for name, begins in (("page.html", "<!doctype html>"), ("all.json", "{")):
        written = invoke(*there, tmp_path / name)
        assert written.exit_code == 0 and f"{name} written" in written.stderr.replace("\n", "")
        assert (tmp_path / name).read_text().startswith(begins)
    assert json.loads((tmp_path / "all.json").read_text())["parts"]


# The report as text and in a notebook.


def test_text_names_what_each_table_is_of(report):
    text, blocks = report.text(), report.blocks()
    tables = [block for block in blocks if isinstance(block, Table) and block.captioned]
    assert {table.kind for table in tables} >= {"confusion", "classes", "words", "pairs"}
    for table in tables:
        caption = " ".join(f"Table: {table.caption}".split())
        above, _, text = text.partition(markup.Plain().columns(table))
        assert " ".join(above.split()).endswith(caption)


def test_mistakes_show_in_text_which_words_matter(report):
    (mistakes, *_) = (block for block in report.blocks() if isinstance(block, Mistakes))
    one = mistakes.items[0]
    strongest = int(np.argmax(np.abs(one.shares)))
    share = f"{visible(one.words[strongest])}({one.shares[strongest]:+.2f})"
    text = " ".join(report.text().split())
    place = " ".join(f"- {one.place}, {visible(one.label)}".split())
    assert place in text and share in text[text.index(place) :]


def test_a_notebook_shows_captions_curves_and_mistakes(report):
    html, blocks = report._repr_html_(), report.blocks()
    for block in blocks:
        if isinstance(block, Table) and block.captioned:
            caption = escape(block.caption)
            assert f">{caption}</caption>" in html or f"<summary>{caption}</summary>" in html
        elif isinstance(block, Mistakes):
            for one in block.items:
                assert escape(one.place) in html
    assert "After the last epoch" in html
    # No heading stands right above another of its level, or of a higher one.
    levels = [int(level) for level in re.findall(r"</h(\d)>(?=<h\d>)", html)]
    below = [int(level) for level in re.findall(r"</h\d><h(\d)>", html)]
    assert all(low > high for high, low in zip(levels, below, strict=True))


# Finding caches.


def test_errors_about_caches_name_a_few_near_ones(runs, tmp_path):
    cache = spacelite.find_cache(runs[0].record.cache, runs[0].cache_dir)
    folder = tmp_path / "cache" / "embeddings"
    folder.mkdir(parents=True)
    names = [f"tiny--other{number}--0000" for number in range(9)] + ["tiny--imdb--1234"]
    for name in names:
        shutil.copy(cache.path, folder / f"{name}.h5")
    said = refusal(spacelite.train, "tiny--imdb--1243", cache_dir=tmp_path / "cache")
    assert re.search(r"it holds tiny--imdb--1234, \S+, \S+ and 7 more; if .* with cache_dir$", said)
    several = refusal(spacelite.find_cache, "tiny", tmp_path / "cache")
    assert several.count("tiny--") == 3 and " and 7 more)" in several


def test_a_cache_of_another_folder_is_hinted_at(runs, tmp_path):
    said = refusal(spacelite.train, runs[0].record.cache, cache_dir=tmp_path)
    assert said.endswith("or name the folder that holds the cache with cache_dir")
    there = ["train", "--cache", runs[0].record.cache, "--cache-dir", str(tmp_path)]
    assert invoke(*there).stderr.rstrip().endswith("with --cache-dir")


# Progress.


def test_explaining_shows_progress_while_the_backbone_is_loaded(best, bert, capfd, monkeypatch):
    calls = []
    load = model.Backbone
    model.forget()

    def loaded(*args, **kwargs):
        calls.append("loaded")
        return load(*args, **kwargs)

    monkeypatch.setattr(model, "Backbone", loaded)
    best.explain("a good film", backbone=bert, progress=lambda *each: calls.append(each))
    assert calls[calls.index("loaded") - 1] == ("embed", 0, 5)
    assert calls[0] == ("tokenize", 1, 1) and calls[-1] == ("embed", 5, 5)
    capfd.readouterr()
    best.explain("a good film", backbone=bert, progress=False)
    assert capfd.readouterr().err == ""
    best.explain("a good film", backbone=bert)
    assert "embedding" in capfd.readouterr().err
