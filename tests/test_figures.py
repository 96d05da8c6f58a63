"""How figures in the unit of the labels are written, whatever that unit is."""

import re

import numpy as np
import pandas as pd
import pytest
from conftest import invoke
from spacelite_cli import console
from test_regression_use import products

import spacelite
from spacelite.document import Chart, Line, Series, Table, figure, of_label, rounded
from spacelite.reports.render import plots

MANTISSA = re.compile(r"[+−]?([\d,]*\d(?:\.\d+)?)(?:e-?\d+)?")


def test_a_figure_has_three_or_four_digits():
    for value in np.random.default_rng(0).uniform(1, 10, 60) * 10.0 ** np.arange(-30, 30):
        text = figure(value)
        digits = MANTISSA.fullmatch(text)[1].replace(",", "").replace(".", "").lstrip("0")
        assert 3 <= len(digits) <= 4 or 1e4 <= value < 1e7, text
        assert float(text.replace(",", "")) == pytest.approx(value, rel=5e-3)
        assert ("e" in text) == (not 1e-4 <= value < 9999999.5)
        assert of_label(value) == of_label(float(of_label(value)))
    shown = [figure(value) for value in (0.885, 12.345, 45230.4, 0.0, -1.2e-9, np.nan, np.inf)]
    assert shown == ["0.885", "12.35", "45,230", "0.000", "−1.20e-9", "–", "inf"]
    # Read together: a deviation with its mean, shares with their sum.
    assert (figure(0.0034, 1.263), figure(8.2e10, 9.42e11)) == ("0.003", "0.82e11")
    of_shares = [figure(of, 4.9e10, 2.5e12, signed=True) for of in (-4.9e10, 1.3e10, 2.5e12)]
    assert of_shares == ["−0.0490e12", "+0.0130e12", "+2.5000e12"]
    assert [of_label(of) for of in (3.7, 1234567.4, 3e-9, 1.25e12)] == [
        "3.7", "1234567", "3e-9", "1.25e12",
    ]  # fmt: skip
    assert [rounded(of) for of in (48816, 2.4e-7, 0.003, 0)] == ["5e4", "2e-7", "0.003", "0"]


@pytest.mark.parametrize("unit", [1e-9, 1e12])
def test_reports_read_in_every_unit(unit, bert, tmp_path):
    """No figure is 0 or a wall of digits, one system is best, words raise and lower, and nothing
    speaks of classes."""
    texts, ratings = products(90)
    frame = pd.DataFrame({"review": texts, "price": ratings * unit})
    cache = spacelite.embed(
        frame, label_column="price", backbone=str(bert), cache_dir=tmp_path, progress=False
    )
    spacelite.train(
        cache, head=["space", "ridge"], pooling="mean", epochs=3, learning_rate=0.02, seeds=2,
        baselines=False, progress=False,
    )  # fmt: skip
    runs = spacelite.load_runs(tmp_path)
    report = spacelite.report(runs, backbone=str(bert), progress=False)
    rows = report.findings.parts[0].section.rows
    assert sum("rmse" in row.best for row in rows) == 1
    forms = {name: report.text(name) for name in ("text", "markdown", "latex")}
    report.save(tmp_path / "page.html", format="html")
    page = (tmp_path / "page.html").read_text()
    forms["html"] = re.sub("<(script|style).*?</(script|style)>", "", page, flags=re.DOTALL)
    forms["terminal"] = invoke("report", "--cache-dir", tmp_path).stdout
    forms["runs"] = str(runs)
    (ridge,) = (run for run in runs if run.record.head.kind == "ridge")
    explained = ridge.explain(texts[0], progress=False)
    forms["words"] = str(explained)
    forms["explained"] = explained.save(tmp_path / "explained.html").read_text()
    for name, text in forms.items():
        for known in (cache.name, *(run.id for run in runs)):  # ids may be numbers
            text = text.replace(known, "").replace(known.rpartition("--")[2], "")
        assert not re.search(r"0\.00000|\d{7}|e[+]", text), name
        assert "e-9" in text or "e-10" in text or "e12" in text or "e11" in text, name
    for name in ("text", "markdown", "html"):
        assert "Words that raise price" in forms[name] and "Words that lower price" in forms[name]
        assert "error " in forms[name] and "that label" not in forms[name]
    assert "confusion" not in forms["terminal"] and "calibration" not in forms["terminal"]
    shares = [explained.explanation.written(of) for of in explained.explanation.shares[:, 0]]
    total = sum(float(of.replace("−", "-")) for of in shares)
    assert total == pytest.approx(explained.explanation.shares.sum(), abs=unit * 1e-3 * len(shares))


def test_what_a_few_examples_do_not_say(bert, tmp_path):
    """Of a single test example there are no intervals, and of equal labels no R²: a dash with its
    reason. No warning of numpy reaches the user."""
    texts, ratings = products(9)
    for number, labels in enumerate(([3.5], [2.5, 2.5])):
        data = {"train": 6, "validation": 2 - number, "test": len(labels)}
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, count in data.items():
            of = ratings if name == "train" else labels * count
            rows = {"text": texts[:count], "label": of[:count]}
            pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
        options = {"cache_dir": folder / "cache", "progress": False}
        cache = spacelite.embed(folder, backbone=str(bert), **options)
        spacelite.train(
            cache, head=["space", "linear", "tfidf"], pooling="mean", epochs=1, seeds=2,
            baselines=False, progress=False,
        )  # fmt: skip
        report = spacelite.report(**options).text("markdown")
        curve = spacelite.learning_curve(cache, head="linear", epochs=1, seeds=2, progress=False)
        sweep = spacelite.sweep(cache, progress=False)
        assert not re.search(r"\b(nan|inf)\b|– to –|± –", f"{report}{curve}{sweep}")
        assert ("From a single test example nothing can be said" in report) == (number == 0)
        assert "R² and correlations do not exist" in report
        assert ("(95% interval" in report) == (number > 0)


def test_a_mark_behind_others_is_said():
    series = [Series(name, [1, 2], [0.5, value], [0.0, 0.0]) for name, value in
              (("a", 0.4), ("b", 0.7), ("c", 0.7))]  # fmt: skip
    text = plots.in_characters(Chart("layers", "R", "", series, "layer", logarithmic=False))
    assert "■ b " in text and text.endswith("▲ c (behind ■ ●)")


@pytest.mark.parametrize("width", [60, 80])
def test_no_figure_is_cut_off(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    console._console.cache_clear()
    figure = "−0.123 (−1.234 to 0.567)"
    lines = [Line.of(f"layer {of}, last (chosen)", "0.123", figure, figure) for of in range(2)]
    console.show(Table("", ["Probe reads", "Validation", "Test (95%)", "RMSE above"], lines))
    console._console.cache_clear()
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width and shown.count("0.567)") == 4
