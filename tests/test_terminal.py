"""What reaches a terminal: no control characters of the data, tables of a readable width, and
nothing that an ascii-only terminal cannot show."""

import csv
import io
import json
import re
import sys

import processes
import pytest
from conftest import WORDS, invoke, refusal
from rich.text import Text
from spacelite_cli import console
from spacelite_cli.app import app
from spacelite_cli.report import Names
from typer.testing import CliRunner

import spacelite
from spacelite import SpaceliteError
from spacelite.document import Cell, Line, Table
from spacelite.inference import prediction
from spacelite.visible import HOSTILE, json_escaped, shortened, visible, visible_name

TITLE = "\x1b]0;hacked\x07"  # sets the title of a terminal
HOSTILE_LABELS = [f"{TITLE}bad", "[red]fair\nenough[/red]\u202e\x9b31m"]


@pytest.fixture(scope="module")
def hostile(bert, tmp_path_factory):
    """A data set whose file name, column names, labels and texts hold control characters and
    markup; the commands that use it, and what they printed."""
    folder = tmp_path_factory.mktemp("hostile")
    file = folder / f"{TITLE}[red]data.jsonl"
    rows = [
        {"text": f"{WORDS[i % 9]} film{TITLE} [red]{WORDS[i % 7]}[/red] \u202e {i}",
         "label": HOSTILE_LABELS[i % 2], f"more{TITLE}": 1}
        for i in range(40)
    ]  # fmt: skip
    file.write_text("\n".join(map(json.dumps, rows)))
    there = ["--cache-dir", folder / "cache"]
    model = ["--backbone", bert, *there]
    text = f"good{TITLE} [red]film[/red] \u202eplot\r\x08"
    commands = [
        ["embed", "--dataset", file, "--device", "cpu", *model],
        ["embed", "--dataset", file, "--text-column", "other", *model],
        ["embed", "--dataset", f"{file}{TITLE}", *model],
        ["train", "--head", "linear,logreg", "--pooling", "mean", "--epochs", "2", *there],
        ["predict", "logreg", text, "film", *model],
        ["predict", "logreg", "--file", f"{TITLE}.txt", *model],
        ["predict", f"{TITLE}none", text, *model],
        ["explain", "logreg", text, *model],
        ["explain", "logreg", text, "--label", HOSTILE_LABELS[0], *model],
        ["explain", "logreg", text, "--label", f"{TITLE}no", *model],
        ["report", *there],
        ["report", "--format", "text", "--backbone", bert, *there],
        ["report", "--format", "markdown", "--backbone", bert, *there],
        ["cache", "info", "tiny", *there],
        ["eval", "logreg", "--dataset", file, *model],
        ["eval", "logreg", "--dataset", file, *model,
         *(f"--map={visible_name(label)}={visible_name(label)}" for label in HOSTILE_LABELS)],
        ["eval", "logreg", "--dataset", file, *model, f"--map={TITLE}no={HOSTILE_LABELS[0]}"],
        ["runs", "show", "logreg", *there],
        ["audit", "--head", "tfidf", *model],
        ["cache", "list", *there],
        ["cache", "list", "--cache-dir", folder / TITLE],
        ["predict", "logreg", text, f"--{TITLE}"],
        ["predict", "logreg", text, "--json", *model],
        ["cache", "list", "--json", *there],
        ["report", "--json", "--backbone", bert, *there],
    ]  # fmt: skip
    done = []
    for arguments in commands:
        words = [str(argument) for argument in arguments]
        done.append((arguments, invoke(*words, env={"COLUMNS": "500"})))
    return done


def test_no_control_character_of_the_data_reaches_the_terminal(hostile):
    succeeded = {arguments[0] for arguments, result in hostile if result.exit_code == 0}
    assert succeeded == {
        "embed", "train", "predict", "explain", "report", "eval", "cache", "runs", "audit",
    }  # fmt: skip
    for arguments, result in hostile:
        assert not isinstance(result.exception, Exception) or result.exit_code == 1, arguments
        for stream in (result.stdout, result.stderr):
            assert HOSTILE.search(stream) is None, (arguments, stream)
        assert "unexpected" not in result.stderr, (arguments, result.stderr)


def test_they_are_visible_and_markup_is_text(hostile):
    predicted = next(r.stdout for a, r in hostile if a[0] == "predict" and r.exit_code == 0)
    assert "\\x1b]0;hacked" in predicted and "[red]film[/red]" in predicted
    assert "\\u202e" in predicted


def test_a_label_with_a_line_break_has_one_spelling(hostile):
    shown = set()
    for arguments, result in hostile:
        for stream in (result.stdout, result.stderr):
            if "--json" in arguments:
                continue
            text = stream.replace("\\\\n", "\\n")  # markdown escapes the backslash
            assert text.count("fair") == text.count(r"fair\nenough"), (arguments, stream)
            shown |= {(*arguments[:2],)} if r"fair\nenough" in text else set()
    assert {command for command, _ in shown} == {
        "embed", "explain", "report", "eval", "cache", "runs", "audit",
    }  # fmt: skip
    (mapped, wrong) = [result for arguments, result in hostile if "--map=" in str(arguments[-1])]
    assert mapped.exit_code == 0, mapped.output
    assert wrong.exit_code == 1 and "--map" in wrong.stderr and "labels=" not in wrong.stderr


def test_json_keeps_what_it_escapes(hostile):
    found = [result.stdout for arguments, result in hostile if "--json" in arguments]
    assert len(found) == 3
    predictions = json.loads(found[0])
    assert predictions[0]["text"] == f"good{TITLE} [red]film[/red] \u202eplot\r\x08"
    assert set(predictions[0]["probabilities"]) == set(HOSTILE_LABELS)


def test_csv_in_a_pipe_stays_as_it_is_and_is_visible_in_a_terminal(hostile, monkeypatch, capsys):
    console.write(f"a{TITLE}\n", "csv")
    assert capsys.readouterr().out == f"a{TITLE}\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    console.write(f"a{TITLE}\n", "csv")
    assert capsys.readouterr().out == "a\\x1b]0;hacked\\x07\n"


def test_in_a_terminal_only_the_styles_of_the_command_are_control_characters(tmp_path):
    """A pseudo-terminal, as a user has one."""
    code = (
        "from spacelite_cli import console\n"
        "from rich.text import Text\nfrom rich.table import Table\n"
        "console.show_messages()\n"
        "import logging\n"
        "evil = '\\x1b]0;hacked\\x07[red]x[/red]\\u202e'\n"
        "logging.getLogger('spacelite').warning('see %s', evil)\n"
        "console.out().print(Text.assemble((evil, 'bold'), evil))\n"
        "table = Table()\ntable.add_column(evil)\ntable.add_row(evil)\n"
        "console.out().print(table)\nconsole.fail(evil)\n"
    )
    environment = {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    with processes.terminal() as (terminal, output):
        process = processes.start(
            code, stdout=terminal, stderr=terminal, env=environment, fresh=True
        )
    assert process.wait().returncode == 0
    shown = output.all()
    assert "\x1b[1m" in shown and "\\x1b]0;hacked" in shown and "[red]x[/red]" in shown
    without_styles = re.sub(r"\x1b\[[\d;]*m", "", shown).replace("\r\n", "\n")
    assert HOSTILE.search(without_styles) is None


def test_the_styles_of_a_text_stay_where_they_were():
    text = Text.assemble(("a\x1bb", "bold"), "c", ("\x9bd", "red"))
    shown = console._safe_text(text)
    assert shown.plain == "a\\x1bbc\\x9bd"
    styles = [{str(one.style) for one in shown.spans if one.start <= i < one.end}
              for i in range(len(shown))]  # fmt: skip
    assert styles == [{"bold"}] * 6 + [set()] + [{"red"}] * 5
    assert console._safe_text(Text("plain")).plain == "plain"


def test_errors_and_printed_results_are_visible_in_python_too():
    assert str(SpaceliteError(f"{TITLE} is\nnot there")) == "\\x1b]0;hacked\\x07 is\\nnot there"
    assert visible("a\nb\tc") == "a\nb\tc"
    assert visible("\u200e\u200f\u061c") == r"\u200e\u200f\u061c"
    assert json.loads(json_escaped(json.dumps("\x7f\u202e\x9b", ensure_ascii=False))) == (
        "\x7f\u202e\x9b"
    )


# Long texts.


def test_a_text_is_shortened_to_one_line():
    assert shortened("a\n\n b\tc", 10) == "a b c"
    assert shortened("word " * 50, 12) == "word word w…"
    assert shortened(" " * 500 + "x", 10) == "…"


@pytest.mark.parametrize("width", [80, 120])
def test_long_texts_take_two_lines_of_the_table_at_most(width, bert, reviews, tmp_path):
    there = ["--backbone", bert, "--cache-dir", tmp_path]
    spacelite_command = CliRunner()

    def run(*arguments):
        return spacelite_command.invoke(
            app, [str(argument) for argument in arguments], env={"COLUMNS": str(width)}
        )

    run("embed", "--dataset", reviews, *there)
    run("train", "--head", "logreg", "--cache-dir", tmp_path)
    long = "good film and a story\nwell acted " * 40
    shown = run("predict", "logreg", long, "bad", "很好" * 200, *there).stdout
    lines = shown.split("Unknown: ")[0].splitlines()
    assert max(Text(line).cell_len for line in lines) <= width
    rule = next(number for number, line in enumerate(lines) if "──" in line)
    assert len([line for line in lines[rule + 1 :] if line.strip()]) <= 2 + 1 + 2
    assert shown.count("…") == 2
    printed = csv.DictReader(io.StringIO(run("predict", "logreg", long, "--csv", *there).stdout))
    assert next(printed)["text"] == long
    (run_,) = spacelite.load_runs(tmp_path)
    found = run_.predict([long], backbone=str(bert), progress=False)
    assert max(map(len, str(found).splitlines())) < 130 and found[0]["text"] == long


def test_the_last_column_of_a_wide_table_keeps_some_room(capsys):
    long = Table("T", ["Label", "Text"], [Line([Cell("x" * 100), Cell("word " * 60)])], "t")
    console.show(long)
    assert "…" in capsys.readouterr().out


# Paths and ids.


def test_intervals_are_below_figures_where_a_terminal_has_no_room_beside_them(capsys, monkeypatch):
    figures = ["0.402 ± 0.036", "0.324 ± 0.026", "−0.0673 (−0.251 to 0.116)"]
    wide = Table("", ["System", "RMSE", "MAE", "RMSE less than tfidf"],
                 [Line.of("linear (first)", *figures)])  # fmt: skip
    for columns, whole in ((80, figures), (60, [])):
        monkeypatch.setenv("COLUMNS", str(columns))
        console._console.cache_clear()
        console.show(wide)
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= columns
        assert all(figure in shown for figure in whole)
        for part in ("0.402", "± 0.036", "−0.0673", "(−0.251 to 0.116)"):
            assert part in shown
    console._console.cache_clear()


def test_paths_and_ids_are_whole_on_narrow_terminals(bert, reviews, tmp_path):
    folder = tmp_path / ("a folder with a name " * 6) / ("one" * 30)
    there = ["--cache-dir", folder]
    narrow = {"COLUMNS": "40"}

    def run(*arguments):
        done = invoke(*arguments, env=narrow)
        assert done.exit_code == 0, done.output
        return done.stdout

    run("embed", "--dataset", reviews, "--backbone", bert, *there)
    run("train", "--head", "linear", "--epochs", "1", "--no-baselines", *there)
    cache, (trained,) = spacelite.find_cache(None, folder), spacelite.load_runs(folder)
    record = trained.record
    info = run("cache", "info", cache.name, *there)
    shown = run("runs", "show", trained.id, *there)
    listed = run("cache", "list", *there)
    for text, part in (
        (info, str(cache.path)), (info, record.cache_key), (info, record.spec.backbone_version),
        (shown, str(trained.run.folder)), (shown, str(cache.path)), (shown, "weight decay 0.01"),
        (listed, cache.name),
    ):  # fmt: skip
        assert part in text
    evaluated = run("eval", trained.id, "--cache", cache.path, *there)
    for text in (shown, evaluated, info):
        assert "validation" in text
    for text in (shown, evaluated):
        assert max(len(line) for line in text.splitlines() if "Macro F1" in line) <= 40
        assert f"{record.metrics['test']['auroc']:.4f}" in text


# Arguments of predict.


@pytest.mark.parametrize("value", [0, -1, 2.5, "10", True])
def test_tokens_per_batch_is_a_whole_number_of_at_least_1(run, value):
    for call in (run.predict, prediction.Predictor):
        given = ["film"] if call == run.predict else run.run
        message = refusal(call, given, tokens_per_batch=value)
        assert message.startswith("tokens_per_batch=") and "give a whole number" in message


def test_predict_refuses_it_on_the_command_line_too(run):
    there = ["predict", run.id, "film", "--cache-dir", str(run.cache_dir)]
    done = invoke(*there, "--tokens-per-batch", "0")
    assert done.exit_code == 1
    assert done.stderr == "error: --tokens-per-batch 0: give a whole number of at least 1\n"
    assert invoke(*there, "--tokens-per-batch", "many").exit_code == 2


def test_what_is_no_text_is_refused_with_the_way_out(run, tmp_path, monkeypatch):
    assert refusal(run.predict, ["a", b"film"]) == (
        "text 2 is no string but of the type bytes: give strings (text.decode() makes one of bytes)"
    )
    assert refusal(run.predict, ["a", "fine \ud83d film"]) == (
        "text 2 is not valid Unicode: its character 6 is half of a pair (U+D83D); read the text "
        "again as UTF-8, or remove it"
    )
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "texts.txt"
    file.write_text("a good film\n")
    assert refusal(run.predict, file).startswith(f"{file} is a file: read it and give its texts")
    assert refusal(run.predict, "texts.txt").startswith("texts.txt is a file: read it")
    assert len(run.predict(["texts.txt"], progress=False)) == 1
    done = invoke("predict", run.id, "texts.txt", "--cache-dir", run.cache_dir)
    assert done.exit_code == 1 and "give --file texts.txt to classify its texts" in done.stderr


# min_probability


def test_a_label_below_the_minimum_is_not_given(run):
    texts = ["good film", "bad plot", "a story", "dull"]
    every = run.predict(texts, progress=False)
    highest = every.probabilities.max(axis=1)
    limit = float(sorted(highest)[2])
    some = run.predict(texts, min_probability=limit, progress=False)
    for given, before, top in zip(some, every, highest, strict=True):
        assert given["label"] == (before["label"] if top >= limit else None)
        assert given["probabilities"] == before["probabilities"]
    assert some.undecided == [i for i in range(4) if highest[i] < limit]
    note = f"2 of 4 texts are left undecided: no label has a probability of at least {limit:g}."
    assert str(some).endswith(note) and "–" in str(some)
    there = ["predict", run.id, *texts, "--cache-dir", str(run.cache_dir)]
    there += ["--backbone", run.backbone, "--min-probability", repr(limit)]
    shown = invoke(*there).stdout
    assert note in shown and " – " in shown
    done = invoke(*there, "--csv")
    assert note in " ".join(done.stderr.split())
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["label"] for row in rows] == [given["label"] or "" for given in some]


@pytest.mark.parametrize("value", [0, -0.1, 1.5, float("nan"), "0.5", True])
def test_a_minimum_that_is_no_probability_is_refused(run, value):
    message = refusal(run.predict, ["film"], min_probability=value)
    assert message == f"min_probability={value}: give a number above 0 and at most 1"


def test_with_several_labels_a_text_single_labels_are_left_out(bert, tmp_path):
    texts = ["good film", "bad plot", "good plot", "dull"] * 10
    labels = [["fine", "long"], ["long"], ["fine"], []] * 10
    cache = spacelite.embed(texts=texts, labels=labels, backbone=str(bert), cache_dir=tmp_path,
                            progress=False)  # fmt: skip
    run = spacelite.train(cache, head="logreg", pooling="mean", progress=False)[0]
    every = run.predict(texts[:4], progress=False)
    given = every.probabilities[0][every.probabilities[0] > 0.5]
    limit = float(given.min()) + 1e-9
    some = run.predict(texts[:4], min_probability=limit, progress=False)
    for names, row in zip(some.labels, some.probabilities, strict=True):
        expected = [n for n, p in zip(run.record.label_names, row, strict=True)
                    if p > 0.5 and p >= limit]  # fmt: skip
        assert names == expected
    assert 0 in some.undecided
    assert "left without a label that has a probability above one half but below" in str(some)


# An ascii-only terminal.


@pytest.fixture(scope="module")
def many_settings(cache_path, tmp_path_factory):
    """What `train` and `report` print at 80 columns of heads that differ in many settings."""
    there = ["--cache-dir", str(tmp_path_factory.mktemp("many"))]
    options = {"env": {"COLUMNS": "80"}, "catch_exceptions": False}
    console._console.cache_clear()  # an earlier test may have had another width
    train = [
        "train", "--cache", str(cache_path), *there, "--epochs", "2", "--head", "space,additive",
        "--blocks", "ngrams,ngrams+space", "--max-ngram", "2,3", "--ensemble", "1,2", "--lr",
        "0.001,0.01", "--weight-decay", "0,0.01", "--latent", "2,3",
    ]  # fmt: skip
    return [invoke(*command, **options).stdout for command in (train, ["report", *there])]


def test_every_figure_has_its_place_at_80_columns(many_settings):
    trained, report = (shown.splitlines() for shown in many_settings)
    for lines, last in (
        (trained, ["Run", "CE", "Acc.", "F1"]),
        (report, ["CE", "Acc.", "F1", "Seeds"]),
    ):
        assert max(len(line) for line in lines if line.startswith(" ")) <= 80
        (head,) = [line for line in lines if line.startswith(" System")]
        assert [name for name in head.split() if name in last][-len(last) :] == last


def test_names_hold_the_settings_that_differ(many_settings):
    trained, report = (" ".join(shown.split()) for shown in many_settings)
    for setting in ("learning rate 0.01", "weight decay 0", "ensemble 2", "max ngram 3"):
        assert f", {setting}" in trained and f", {setting}" in report
    assert " additive (ngrams+space) L=2, " in trained
    assert ".." not in report
    # One value of C for many systems: each named once.
    (chose,) = [line for line in report.split(". ") if "chose C of ngrams" in line]
    names = chose.partition(" for ")[2].split("; ")
    assert len(set(names)) == len(names) == 3


def test_names_wrap_between_blocks():
    found = Names(20, subsequent_indent="  ").wrap("additive (layers+ngrams+space), ensemble 2")
    assert found == ["additive (layers+", "  ngrams+space),", "  ensemble 2"]
    assert Names(20).wrap("a weight-decay of 1e-05") == ["a weight-decay of", "1e-05"]


@pytest.mark.slow
def test_an_ascii_only_terminal_gets_question_marks_and_no_error(run, tmp_path):
    there = ["--cache-dir", run.cache_dir]
    for arguments in (
        ["predict", run.id, "café 好", "a film", "--backbone", run.backbone, *there],
        ["explain", run.id, "a café film", "--backbone", run.backbone, *there],
        ["report", *there],
        ["report", "--format", "text", *there],
        ["cache", "list", *there],
    ):
        done = processes.spacelite(*arguments, env={"PYTHONIOENCODING": "ascii"}).wait()
        refused = "cannot be explained" in done.stderr
        assert done.returncode == (1 if refused else 0), done.stderr
        assert (done.stdout or done.stderr).isascii()
    done = processes.spacelite(
        "predict", run.id, "café 好", "--backbone", run.backbone, "--json", *there,
        env={"PYTHONIOENCODING": "ascii"}, fresh=True,
    ).wait()  # fmt: skip
    assert done.stdout.isascii() and json.loads(done.stdout)[0]["text"] == "café 好"


LONG = "the heads were saved in /tmp/a/path/that/is/longer/than/a/line/of/forty/columns and 12 more"


def test_a_terminal_gets_long_lines_broken_at_words_and_a_pipe_whole():
    code = (
        "from spacelite_cli import console\nfrom rich.text import Text\nimport logging\n"
        "console.show_messages()\n"
        f"long = {LONG!r}\n"
        "console.say(long)\nconsole.note(Text(long, style='bold'))\nconsole.fail(long)\n"
        "logging.getLogger('spacelite').warning('%s', long)\n"
    )
    environment = {"TERM": "xterm-256color", "COLUMNS": "40"}
    with processes.terminal() as (terminal, output):
        process = processes.start(
            code, stdout=terminal, stderr=terminal, env=environment, fresh=True
        )
    assert process.wait().returncode == 0
    broken = ["the heads were saved in", LONG.split()[5], "and 12 more"]
    lines = re.sub(r"\x1b\[[\d;]*m", "", output.all()).split("\r\n")
    assert lines == [*broken, *broken, f"error: {broken[0]}", *broken[1:], *broken, ""]
    done = processes.run(code, env=environment, fresh=True)
    assert (done.stdout, done.stderr) == (f"{LONG}\n", f"{LONG}\nerror: {LONG}\n{LONG}\n")


def test_pages_hold_no_control_characters(tmp_path):
    from spacelite.document import Cell, Heading, Line, Table
    from spacelite.reports.render import page

    bad = "a\x1b[31m\x07\u202e"
    html = page.report_page(
        [Heading(1, bad), Table(bad, [bad, "b"], [Line([Cell(bad), Cell(bad)])])]
    )
    assert not [mark for mark in "\x1b\x07\u202e" if mark in html]
    assert r"a\x1b[31m\x07\u202e" in html


def test_a_false_argument_is_the_option_that_leaves_out():
    error = SpaceliteError("leave them out with layers=False", ["layers"])
    assert error.for_options(lambda name: f"--{name}") == "leave them out with --no-layers"
    error = SpaceliteError("seeds: 1 of the seeds: is no number", ["seeds"])
    assert error.for_options(lambda name: f"--{name}") == "--seeds: 1 of the seeds: is no number"
    error = SpaceliteError("scaling=: choose from none, standard", ["scaling"])
    assert str(error) == "scaling='': choose from none, standard"
    assert error.for_options(lambda name: f"--{name}") == "--scaling '': choose from none, standard"
