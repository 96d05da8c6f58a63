"""The documentation against the code: commands, options, modules, formats, messages, examples."""

import ast
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from spacelite_cli.app import app
from typer.main import get_command

from spacelite.cache import store
from spacelite.cache.dtypes import DTYPES
from spacelite.data.known import KNOWN
from spacelite.heads import KINDS, POOLINGS
from spacelite.metrics.scores import METRICS
from spacelite.reports.document.sections import SECTIONS
from spacelite.reports.render.forms import FORMS
from spacelite.training.optimizer import SCHEDULES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = {path.relative_to(ROOT): path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))}
PAGES = {Path("README.md"): README, Path("CONTRIBUTING.md"): (ROOT / "CONTRIBUTING.md").read_text()}
PAGES |= DOCS
GUIDE = "\n".join(text for path, text in DOCS.items() if path.parent.name == "guide")


def commands(command, path=()):
    """(words, parameters) of every command of the application."""
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, (*path, name))
    if not hasattr(command, "commands"):
        yield path, command.params


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_is_in_the_readme_and_the_guide(words):
    if words[0] == "cache":
        assert "`spacelite cache" in README and "`spacelite cache" in GUIDE
        assert f"`{words[1]}`" in README or words[1] == "list"
    else:
        assert f"spacelite {words[0]}" in README
        assert words[0] == "demo" or f"spacelite {words[0]}" in GUIDE


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_option_in_the_pages_exists(page):
    options = {
        o for params in COMMANDS.values() for p in params for o in (*p.opts, *p.secondary_opts)
    }
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", PAGES[page]))
    # Of ruff and pytest, of every command, before every command, of campaigns, benchmarks,
    # torchrun, Slurm, of classify.py in an export.
    others = {"--check", "--cov", "--gpus", "--help", "--import", "--trials", "--explain"}
    others |= {"--against", "--embed", "--forms", "--heads", "--sizes", "--timed", "--types"}
    others |= {"--standalone", "--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint"}
    assert mentioned - others <= options


def test_every_option_has_help():
    for words, params in COMMANDS.items():
        for parameter in params:
            assert parameter.help, f"{' '.join(words)} {parameter.name}"


def test_help_and_guide_name_whatever_can_be_chosen():
    def option(command, name):
        return next(p.help for p in COMMANDS[command] if name in p.opts)

    for kind in KINDS:
        assert kind in option(("train",), "--head") and f"| `{kind}` |" in GUIDE
    for pooling in POOLINGS:
        assert pooling in option(("train",), "--pooling") and f"`{pooling}`" in GUIDE
    for form in FORMS:
        assert form in option(("report",), "--format") and f"`{form}`" in GUIDE
    for dataset in KNOWN:
        assert dataset in option(("embed",), "--dataset") and f"`{dataset}`" in GUIDE


def test_the_tree_in_the_readme_is_the_tree():
    tree = README.split("## Where things are")[1].split("\n## ")[0]
    listed = set(re.findall(r"^ {6}(\w+(?:\.py|/))", tree, re.MULTILINE))
    library = ROOT / "spacelite"
    modules = {path.name for path in library.glob("[!_]*.py")}
    packages = {path.parent.name + "/" for path in library.glob("*/__init__.py")}
    assert listed == modules | packages
    inner = set(re.findall(r"^ {8}(\w+/)", tree, re.MULTILINE))
    assert inner == {path.parent.name + "/" for path in library.glob("reports/*/__init__.py")}
    for folder in re.findall(r"^ {4}(\w+)/", tree, re.MULTILINE):
        assert (ROOT / folder).is_dir()


def test_the_wheel_has_every_package():
    text = (ROOT / "pyproject.toml").read_text().split("packages = [")[1].split("]")[0]
    listed = set(re.findall(r'"([\w.]+)"', text))
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "spacelite").rglob("__init__.py")
    }
    assert listed == found | {"spacelite_cli"}


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


def test_the_two_commands_are_complete_and_what_ci_runs():
    found = re.findall(r"^    (python3 -m venv .*)$", README, re.MULTILINE)
    install = "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e "
    assert found == [
        f"{install}'.[offline]' && .venv/bin/spacelite demo",
        f"{install}'.[offline,dev]' && .venv/bin/pytest",
    ]
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_the_cache_format_is_documented(cache_path):
    import h5py

    table = DOCS[Path("docs/formats.md")].split("## The cache file")[1].split("\n## ")[0]
    with h5py.File(cache_path) as file:
        for name, dataset in file["train"].items():
            row = next(line for line in table.splitlines() if line.startswith(f"| `{name}` |"))
            assert dataset.dtype.name in row
        for name in (*file.attrs, *file["train"].attrs):
            assert f"`{name}`" in table
    with store.Cache(cache_path) as cache:
        for field in cache.spec.as_json():
            assert field.split("_")[0] in table


def test_the_run_format_is_documented(report_dir):
    from spacelite.runs import store as runs

    page = DOCS[Path("docs/formats.md")].split("## The run folder")[1]
    run = runs.load_all(report_dir)[0]
    for name in run.record.as_json():
        assert f"`{name}`" in page, name
    for metric in METRICS:
        assert metric in page
    for path in run.folder.rglob("*"):
        if path.is_file() and path.parent == run.folder and path.name[0] != ".":
            assert f"`{path.name}`" in page, path.name


def messages():
    """Every text in the code, the parts of f-strings that are computed as `…`."""
    found = []
    for folder in ("spacelite", "cli"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (getattr(part, "value", None) for part in node.values)
                    found.append("".join(part if isinstance(part, str) else "…" for part in parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_the_documented_messages_are_those_of_the_code():
    """Dots in the table stand for whatever a message names."""
    known = messages()
    rows = re.findall(r"^\| (.+?) \| .+ \|$", DOCS[Path("docs/errors.md")], re.MULTILINE)
    rows = [row for row in rows if row not in ("message", "---")]
    assert len(rows) > 20
    for row in rows:
        for part in row.split("..."):
            words = part.strip(" '")
            assert any(words in text for text in known), f"{row}: {words!r}"


# The examples run as they stand.


def examples(page):
    """(code, the text that it prints, or None) of a page's Python blocks."""
    block = r"```python\n(.*?)```(?:\s*```text\n(.*?)```)?"
    return re.findall(block, DOCS[Path("docs") / page], re.DOTALL)


def like(text):
    """A printed text without what differs between machines: figures, ids, widths of columns."""
    text = re.sub(r"\b(?=[a-z]*\d)[0-9a-f]{8,10}\b", "ID", text)
    text = re.sub(r"[-+−]?\d[\d.,]*", "0", text)
    return re.sub(r"-{5,}", "---", re.sub(r"[ \t]+", " ", text)).strip()


@pytest.mark.slow
@pytest.mark.minilm
@pytest.mark.parametrize("page", ["python.md", "guide/sklearn.md"])
def test_the_code_of_a_page_prints_what_it_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace, logger = {}, logging.getLogger("spacelite")
    level = logger.level
    blocks = examples(page)
    assert len(blocks) > 4
    try:
        for code, expected in blocks:
            exec(compile(code, f"docs/{page}", "exec"), namespace)
            printed = capsys.readouterr().out
            if not expected:
                assert printed == "", code
                continue
            wanted = like(expected).split("...")
            at = 0
            for part in wanted:
                found = like(printed).find(part.strip(), at)
                assert found >= at, f"{code}\nprinted\n{printed}\nexpected\n{expected}"
                at = found + len(part.strip())
            if not expected.rstrip().endswith("..."):
                assert at == len(like(printed)), f"{code}\nprinted more\n{printed}"
    finally:
        logger.setLevel(level)
    if page == "python.md":
        assert (tmp_path / "report" / "index.html").is_file()
        assert (tmp_path / "explanation.html").is_file()


EXTENDED = (KINDS, POOLINGS, SCHEDULES, METRICS, KNOWN, DTYPES, SECTIONS, FORMS)


def test_the_extensions_on_the_page_work(cache_path, bert, reviews, tmp_path, monkeypatch):
    """What they do is tested in test_extending; here that the page's own code does it."""
    import spacelite
    from spacelite.api.results import EmbeddedDataset

    for table in EXTENDED:
        for name in list(table):
            monkeypatch.setitem(table, name, table[name])
    before = [dict(table) for table in EXTENDED]
    namespace = {"__name__": "extending"}
    try:
        for code, _ in examples("extending.md"):
            exec(compile(code, "docs/extending.md", "exec", dont_inherit=True), namespace)
        runs = spacelite.train(
            EmbeddedDataset(cache_path, tmp_path), head=["attention", "linear"], pooling="rms",
            schedule="warmup", epochs=2, progress=False,
        )  # fmt: skip
        text = spacelite.report(runs, examples=False, progress=False).text("csv")
        assert "How large the heads are" in spacelite.report(
            runs, examples=False, progress=False
        ).text()  # fmt: skip
        assert "Balanced accuracy" in text and "linear (rms)" in text and "attention" in text
        small = spacelite.embed(
            str(reviews), backbone=bert, dtype="float8", cache_dir=tmp_path, device="cpu",
            progress=False,
        )  # fmt: skip
        spacelite.train(small, epochs=1, cache_dir=tmp_path, progress=False)
        with store.Cache(cache_path) as exact, small.open() as rounded:
            hidden, found = (one.splits["test"].read_hidden(0, 20) for one in (exact, rounded))
        assert found.shape == hidden.shape and (found != hidden).any()
        assert (abs(found - hidden) <= np.maximum(2**-4 * abs(hidden), 2**-9)).all()
        assert KNOWN["ag_news"].label_names[2] == "business"
    finally:
        for table, former in zip(EXTENDED, before, strict=True):
            table.clear()
            table.update(former)


def test_every_place_that_is_named_for_extensions_is_there():
    rows = re.findall(r"^\| .+? \| (.+?) \| .+ \|$", DOCS[Path("docs/extending.md")], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(spacelite/[\w/.]+|cli/)`", row)}
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_between_pages_lead_somewhere(page):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page].replace("\n", " ")):
        if not target.startswith(("http", "#")):
            assert (folder / target.split("#")[0]).exists(), target


def test_every_dependency_says_why():
    text = (ROOT / "pyproject.toml").read_text()
    block = text.split("dependencies = [")[1].split("[project.urls]")[0]
    lines = [line for line in block.splitlines() if line.strip().startswith('"')]
    assert len(lines) > 12
    for line in lines:
        assert re.search(r'",\s+# \w', line), line
