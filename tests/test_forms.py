"""The report as markdown, LaTeX, JSON and text, and as files."""

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import NASTY_LABELS, invoke, refusal
from markdown_it import MarkdownIt

from spacelite.document import Cell, Line, Table, decimals, with_sign
from spacelite.reports.document.sections import report_blocks
from spacelite.reports.render import markup, page, plots
from spacelite.reports.report import Report
from spacelite.runs.record import RunRecord


@pytest.fixture(scope="module")
def blocks(findings):
    return report_blocks(findings)


def tables(blocks):
    return [block for block in blocks if isinstance(block, Table)]


def test_markdown_renders_as_tables_with_every_figure(blocks):
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(markup.markdown(blocks))
    found, cells = [], None
    for token in tokens:
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            cells = []
        elif token.type == "inline" and cells is not None:
            cells.append("".join(child.content for child in token.children))
        elif token.type == "tr_close":
            found[-1].append(cells)
            cells = None
    expected = [
        [
            [" ".join(name.split()) for name in table.columns],
            *([" ".join(f"{cell.text} {cell.std}".split()) for cell in line.cells]
              for line in table.lines),
        ]
        for table in tables(blocks)
    ]  # fmt: skip
    assert found == expected
    assert len(found) > 30
    bold = [token for token in tokens if token.type == "inline"
            and any(child.type == "strong_open" for child in token.children)]  # fmt: skip
    assert bold


def test_markdown_shows_hostile_names_as_text(blocks):
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(
        markup.markdown(blocks)
    )  # fmt: skip
    assert "<script" not in html and "&lt;script&gt;window.owned=1&lt;/script&gt;" in html


def test_text_lines_up_the_cells_of_every_table(blocks):
    text = markup.plain(blocks)
    for table in tables(blocks):
        shown = markup.Plain().columns(table)
        assert shown in text
        head, _, *rows = shown.splitlines()
        assert re.split(r"  +", head) == table.columns
        for row, line in zip(rows, table.lines, strict=True):
            cells = [" ".join(f"{cell.text} {cell.std}".split()) for cell in line.cells]
            assert re.split(r"  +", row) == [cell for cell in cells if cell]
        # Numbers end where their column's heading ends.
        for name in table.columns[1:]:
            if name in ("Loss", "Accuracy", "Examples", "Count"):
                end = re.search(rf"(?<=  ){name}(?=  |$)", head).end()
                assert all(re.fullmatch(r"\S(  .*)?", row[end - 1 :]) for row in rows)


def test_json_holds_the_same_figures(findings):
    content = json.loads(Report(findings).text("json"))
    assert [part["section"]["title"] for part in content["parts"]] == [
        part.section.title for part in findings.parts
    ]
    for part, made in zip(content["parts"], findings.parts, strict=True):
        for row, expected in zip(part["section"]["rows"], made.section.rows, strict=True):
            assert row["figures"]["accuracy"]["mean"] == expected.figures["accuracy"].mean
        assert len(part["analysis"]["pairs"]) == len(made.analysis.pairs)
        assert part["examples"]["words"].keys() == made.examples.words.keys()
    assert NASTY_LABELS[2] in content["parts"][-1]["analysis"]["label_names"]


def compiled(folder, text):
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex: install texlive-latex-recommended")
    (folder / "report.tex").write_text(text)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"],
        cwd=folder, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert (folder / "report.pdf").stat().st_size > 10_000
    return done.stdout


@pytest.mark.slow
@pytest.mark.latex
def test_latex_compiles_with_booktabs(blocks, tmp_path):
    text = markup.latex(blocks)
    assert text.count("\\toprule") == text.count("\\bottomrule") == len(tables(blocks))
    log = compiled(tmp_path, text)
    assert "Undefined" not in log and "Missing" not in log


@pytest.mark.slow
@pytest.mark.latex
def test_latex_shows_any_text(tmp_path):
    names = [*NASTY_LABELS, "~^{}#%&_$\\", "\\end{document}", "\\input{/etc/passwd}", "😀 ﷽ \u202e",
             "a\x00b\x07", "Ω≈ç√∫ – ± → “x”", "%", "\\write18{touch owned}", "[x]",
             "*"]  # fmt: skip
    lines = [Line([Cell(name), Cell(name, best=True), Cell(name)]) for name in names]
    table = Table("any text: " + NASTY_LABELS[1], ["a", "b", NASTY_LABELS[0]], lines)
    compiled(tmp_path, markup.latex([table]))
    assert not (tmp_path / "owned").exists()


@pytest.mark.slow
@pytest.mark.latex
def test_long_tables_go_on_over_pages(tmp_path):
    lines = [Line([Cell(f"system {i}"), Cell(f"{i}")]) for i in range(200)]
    log = compiled(tmp_path, markup.latex([Table("long", ["System", "Number"], lines)]))
    assert "Overfull \\vbox" not in log
    assert int(re.search(r"report\.pdf \((\d+) pages", log)[1]) >= 3


def test_long_tables_with_long_names_fit_the_width(tmp_path):
    name = "additive (layers+ngrams+space) L=32 + inter 0.2, learning rate 0.001, weight decay 0.01"
    figures = [Cell("0.6210", "± 0.0030")] * 8
    lines = [Line([Cell(f"{name}, epochs {i}"), *figures]) for i in range(30)]
    headings = ["System", *["Precision"] * 8]
    log = compiled(tmp_path, markup.latex([Table("long", headings, lines, "systems")]))
    assert "Overfull" not in log


def test_latex_keeps_what_its_font_has_elsewhere():
    """Else `--` would be a dash, `|` one as well, and straight quotes curly."""
    assert markup.Latex().escaped("a--b|c") == r"a-{}-{}b\textbar{}c"
    assert "``" not in markup.Latex().escaped("``") and "''" not in markup.Latex().escaped("''")
    assert markup.Latex().escaped('"') == r"\texttt{\char34}"


def test_many_labels_are_told_by_their_most_frequent_confusions(findings):
    part = findings.parts[0]
    names = [f"label {i}" for i in range(40)]
    counts = np.arange(1600).reshape(40, 40)
    system = dataclasses.replace(part.analysis.systems[0], confusion=counts.tolist())
    analysis = dataclasses.replace(part.analysis, systems=[system], label_names=names)
    (table,) = [
        block for block in report_blocks(
            dataclasses.replace(findings, parts=[dataclasses.replace(part, analysis=analysis)])
        ) if isinstance(block, Table) and block.kind == "confusion"
    ]  # fmt: skip
    assert table.columns == ["True", "Predicted", "Examples"] and len(table.lines) == 30
    wrong = {(t, p): counts[t, p] for t in range(40) for p in range(40) if t != p}
    for line, (t, p) in zip(table.lines, sorted(wrong, key=wrong.get, reverse=True), strict=False):
        assert [cell.text for cell in line.cells] == [names[t], names[p], f"{wrong[t, p]:,}"]


@pytest.mark.parametrize(
    ("form", "name", "begins"),
    [
        ("markdown", "report.md", "# spacelite report\n"),
        ("latex", "report.tex", "% The tables need"),
        ("json", "report.json", "{"),
        ("text", "report.txt", "Published tables\n================\n"),
    ],
)
def test_forms_are_written_or_printed_alike(form, name, begins, report_dir, bert, tmp_path):
    there = ["report", "--cache-dir", report_dir, "--backbone", bert, "--format", form]
    result = invoke(*there)
    assert result.exit_code == 0 and result.stdout.startswith(begins)
    written = invoke(*there, "--out", tmp_path / "a" / "b")
    assert written.stdout == "" and f"{name} written" in written.stderr.replace("\n", "")
    assert (tmp_path / "a" / "b" / name).read_text() == result.stdout
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [name]


@pytest.mark.slow
def test_the_page_and_its_figures_are_the_same_bytes_each_time(findings, tmp_path):
    """Also over a former report, whose other figures go."""
    path = Report(findings).save(tmp_path / "one", "html")
    assert path == tmp_path / "one" / "index.html"
    names = {path.name for path in (tmp_path / "one").iterdir()}
    curves, groups = 2, len(findings.parts)
    (program,) = (name for name in names if name.startswith("plotly-"))
    assert len(names) == 1 + 1 + 2 * (curves + groups)
    assert f'<script src="{program}"></script>' in path.read_text()
    again = tmp_path / "two"
    again.mkdir()
    for name in (*names, "curves-9.svg", "plotly-1.0.min.js", "notes.txt"):
        (again / name).write_text("mine")
    Report(findings).save(again, "html")
    assert {path.name for path in again.iterdir()} == names | {"notes.txt"}
    for name in names:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (again / name).read_bytes()
        if name.endswith(".svg"):
            assert b"<svg" in content[:1000] and b"<script" not in content
    assert path.stat().st_size < 2_000_000
    whole = Report(findings).save(tmp_path / "page.html").read_text()
    assert "<script src=" not in whole and "script-src 'unsafe-inline'" in whole
    assert (tmp_path / "one" / program).read_text() in whole
    assert [name.name for name in tmp_path.glob("page*")] == ["page.html"]


def test_a_page_without_figures_has_no_program():
    table = Table("<b>", ["a", "b"], [Line.of("<i>", "1")])
    content = page.report_page([table], files_beside=False)
    assert (
        plots.program()[1] not in content
        and len(content) < 30_000
        and "&lt;b&gt;" in content
        and "<script src=" not in content
    )


def test_a_folder_that_cannot_be_written_is_said_and_leaves_nothing_half(
    findings, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    for form in ("html", "markdown"):
        message = refusal(Report(findings).save, tmp_path / "file", form)
        assert "cannot be written" in message
    path = Report(findings).save(tmp_path, "markdown")
    before = path.read_bytes()
    whole = Path.write_bytes

    def full(self, content):
        whole(self, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left on device" in refusal(Report(findings).save, tmp_path, "markdown")
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "report.md"]


def test_what_cannot_be_is_refused(report_dir, tmp_path):
    there = ["report", "--cache-dir", report_dir]
    for options, said in (
        (["--format", "pdf"], "choose from terminal, markdown, latex, html, json, text"),
        (["--format", "html"], "name a folder"),
        (["--no-examples"], "--no-examples is about words and example texts, which the terminal"),
        (["--backbone", "b"], "--backbone is about words and example texts, which the terminal"),
        (["--out", tmp_path], "--out: choose --format"),
        (["--json", "--format", "html", "--out", tmp_path], "either --json or --format html"),
        (["--json", "--out", tmp_path], "--json prints"),
    ):
        result = invoke(*there, *options)
        assert result.exit_code == 1 and said in result.stderr
        assert re.fullmatch(r"error: [^\n]+\n", result.stderr)


def test_words_and_texts_can_be_left_out(report_dir, bert):
    there = ["report", "--cache-dir", report_dir, "--backbone", bert, "--format", "markdown"]
    whole, without = (invoke(*there, *more).stdout for more in ([], ["--no-examples"]))
    assert "Which words matter" in whole and "Which words matter" not in without
    assert "confident mistakes" not in without and "Which labels are confused" in without


def test_words_that_cannot_be_told_name_the_option_that_helps(report_dir, monkeypatch):
    """The library says `backbone=...`, the command `--backbone`."""
    absent = property(lambda record: None, lambda record, value: None)
    monkeypatch.setattr(RunRecord, "backbone_folder", absent, raising=False)  # as if it had moved
    result = invoke("report", "--cache-dir", report_dir, "--format", "markdown")
    assert result.exit_code == 0 and "Which words matter" not in result.stdout
    warnings = [line for line in result.stderr.splitlines() if line.startswith("no words for ")]
    assert len(warnings) == 3
    for warning in warnings:
        assert "--backbone" in warning and "backbone=" not in warning
        assert "the --backbone" not in warning  # where the word is no argument


@pytest.mark.parametrize("width", [80, 120])
def test_findings_stand_under_the_table_in_the_terminal(width, report_dir):
    result = invoke("report", "--cache-dir", report_dir, env={"COLUMNS": str(width)})
    shown = " ".join(result.stdout.split())
    assert "Each p is corrected by Holm's method for all 6 pairs" in shown
    assert re.search(r"(beats|is ahead).*95% interval", shown)
    assert "Embedding, once: " in shown
    assert max(map(len, result.stdout.splitlines())) <= width


def test_files_draw_the_figures_of_the_analysis(findings):
    analysis = findings.parts[0].analysis
    panels = plots._curves(analysis).axes
    metrics = ("loss", "accuracy", "f1_macro", "precision", "recall")
    assert len(panels) == 2 * len(metrics)
    for row, split in enumerate(("train", "validation")):
        for column, metric in enumerate(metrics):
            lines = panels[row * len(metrics) + column].lines
            assert [line.get_label() for line in lines] == [one.name for one in analysis.curves]
            for line, curve in zip(lines, analysis.curves, strict=True):
                assert line.get_xdata().tolist() == curve.epochs
                assert line.get_ydata().tolist() == curve.splits[split][metric][0]
    for panel, system in zip(plots._reliability(analysis).axes, analysis.systems, strict=True):
        assert " ".join(panel.get_title().split()).startswith(system.name)
        line = panel.lines[1]
        assert line.get_xdata().tolist() == system.calibration.confidence
        assert line.get_ydata().tolist() == system.calibration.accuracy


@pytest.mark.parametrize("systems", [1, 4])
def test_files_are_not_narrower_than_long_names(findings, systems):
    analysis = findings.parts[0].analysis
    name = "additive (layers+ngrams+space) L=32 + inter 0.2, layer -3, learning rate 0.001, " * 3
    long = dataclasses.replace(
        analysis,
        curves=[dataclasses.replace(one, name=name) for one in analysis.curves[:systems]],
        systems=[dataclasses.replace(one, name=name) for one in analysis.systems[:systems]],
    )
    for draw in (plots._curves, plots._reliability):
        figure = draw(long)
        figure.draw_without_rendering()
        texts = [panel.title for panel in figure.axes]
        texts += [text for legend in figure.legends for text in legend.get_texts()]
        for text in texts:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, text
            assert box.y0 >= 0 and box.y1 <= figure.bbox.y1, text
        shown = {" ".join(text.get_text().split()) for text in texts}
        assert any(one.startswith(name.strip()) for one in shown)


def test_equal_figures_are_printed_alike_whatever_their_rounding():
    for write in (decimals, with_sign):
        assert write(0.6675, 3) == write(0.6675000000000001, 3) == write(0.66749999999999987, 3)
    assert decimals(0.62105, 4) == f"{0.62105:.4f}" and decimals(5.4321e31, 4) == "5.4e+31"


def test_text_columns_stand_left_and_numbers_right_in_every_form():
    rows = [["space", "1,234", "0.51", "2.1 to 3.4", "2 fast", "< 0.001"],
            ["linear", "–", "−3.0", "-1.0 to 0.2", "7", "1"]]  # fmt: skip
    lines = [Line([Cell(text) for text in row]) for row in rows]
    table = Table("A table", ["System", "N", "Loss", "Range", "Note", "p"], lines)
    assert table.text_columns == [True, False, False, False, True, False]
    assert "| --- | ---: | ---: | ---: | --- | ---: |" in markup.markdown([table])
    assert "\\begin{tabular}{lrrrlr}" in markup.latex([table])
    assert (
        markup.Plain().columns(table).splitlines()[3]
        == "linear      –  −3.0  -1.0 to 0.2  7             1"
    )
    styles = re.findall("<td[^>]*text-align:(left|right)", markup.Fragment().columns(table))
    assert styles == ["left", "right", "right", "right", "left", "right"] * 2
    html = page.render("A page", [page.Element.of(table)])
    assert '<td class="text">2 fast</td>' in html and '<th scope="col" class="text">Note' in html
    assert "<td>1,234</td>" in html and "td.text { text-align: left; }" in html


@pytest.mark.parametrize("text", ["2nd", "5 - five", "-", "+ more", "<tag>", "1.2.3", "–"])
def test_only_numbers_and_dashes_make_a_column_of_numbers(text):
    table = Table("", ["a", "b"], [Line([Cell("x"), Cell(text)])])
    assert table.text_columns == [True, text not in ("-", "–")]
