"""The README against the code: commands, options, modules, formats."""

import re
from pathlib import Path

import pytest
from spacelite_cli.app import app
from typer.main import get_command

from spacelite.cache import store

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands(command, path=()):
    """(words, parameters) of every command of the application."""
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, (*path, name))
    if not hasattr(command, "commands"):
        yield path, command.params


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_is_in_the_readme(words):
    if words[0] == "cache":
        assert f"`spacelite cache {words[1]}`" in README or f"`{words[1]}`" in README
    else:
        assert f"spacelite {words[0]}" in README


def test_every_option_in_the_readme_exists():
    options = {
        o for params in COMMANDS.values() for p in params for o in (*p.opts, *p.secondary_opts)
    }
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README))
    others = {"--check"}  # of ruff
    assert mentioned - others <= options


def test_every_option_has_help():
    for words, params in COMMANDS.items():
        for parameter in params:
            assert parameter.help, f"{' '.join(words)} {parameter.name}"


def test_the_module_tree_is_the_tree():
    tree = README.split("## Where things are")[1].split("\n## ")[0]
    listed = set(re.findall(r"^ {6}(\w+\.py)", tree, re.MULTILINE))
    assert listed == {path.name for path in (ROOT / "spacelite").glob("[!_]*.py")}
    for folder in ("report/", "cli/", "tests/", "cache/"):
        assert (folder in tree and (ROOT / folder).is_dir()) or folder == "report/"
    for path in (ROOT / "spacelite" / "report").glob("[!_]*.py"):
        assert path.name in tree


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

    with h5py.File(cache_path) as file:
        table = README.split("## The cache file")[1]
        for name, dataset in file["train"].items():
            row = next(line for line in table.splitlines() if line.startswith(f"| `{name}` |"))
            assert dataset.dtype.name in row
        for name in (*file.attrs, *file["train"].attrs):
            assert f"`{name}`" in table
    with store.Cache(cache_path) as cache:
        for field in cache.spec:
            assert field.split("_")[0] in table


def test_every_dependency_says_why():
    text = (ROOT / "pyproject.toml").read_text()
    block = text.split("dependencies = [")[1].split("[project.scripts]")[0]
    lines = [line for line in block.splitlines() if line.strip().startswith('"')]
    assert len(lines) > 12
    for line in lines:
        assert re.search(r'",\s+# \w', line), line
