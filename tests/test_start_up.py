"""Commands import what they need: importing is most of what a short one takes."""

import gc
import json

import processes
import pytest
from conftest import write_dataset

import spacelite
from spacelite.lazy import importing

HEAVY = ("torch", "transformers", "datasets", "sklearn", "scipy", "pandas", "matplotlib", "plotly")
AFTER_EACH = """
import json, sys
from pathlib import Path
from spacelite.backbones import model
from spacelite_cli.app import app
model.DEVICES = Path("no GPU")
loaded = {}
for command in %r:
    try:
        app(command)
    except SystemExit as end:
        assert not end.code, command
    loaded[command[0]] = [name for name in %r if name in sys.modules]
print("loaded:", json.dumps(loaded))
"""


@pytest.fixture(scope="module")
def place(bert, tmp_path_factory):
    """A folder with a cache of a csv file, and runs called `run-1` (space) and `run-2` (tfidf)."""
    folder = tmp_path_factory.mktemp("start")
    write_dataset(folder, {"train": 80})
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    lines = ["text,label", *(f'"{row["text"]}",{row["label"]}' for row in rows)]
    (folder / "posts.csv").write_text("\n".join(lines))
    cache = spacelite.embed(
        dataset=folder / "posts.csv", backbone=bert, cache_dir=folder, device="cpu", progress=False
    )
    spacelite.train(cache, head=["space", "tfidf"], epochs=1, name="run", baselines=False,
                    progress=False)  # fmt: skip
    return folder


def loaded(*commands: list[str]) -> dict[str, list[str]]:
    """The large packages that are imported once a command has run, in one process after another;
    by the command's name."""
    done = processes.run(AFTER_EACH % (commands, HEAVY), fresh=True)
    assert "loaded: " in done.stdout, done.stderr
    return json.loads(done.stdout.rpartition("loaded: ")[2])


def test_what_needs_no_backbone_imports_no_large_package(place, bert):
    there = ["--cache-dir", str(place)]
    text, backbone = ["run-2", "good film, bad plot"], ["--backbone", str(bert)]
    after = loaded(
        ["runs", "list", *there],
        ["cache", "list", *there],
        ["predict", *text, *backbone, *there],
        ["explain", *text, *backbone, *there],
        ["embed", "--dataset", str(place / "posts.csv"), *backbone, *there],
    )
    assert after == {"runs": [], "cache": [], "predict": [], "explain": [], "embed": []}


@pytest.mark.slow
def test_a_prediction_imports_what_its_backbone_needs(place, bert):
    command = ["predict", "run-1", "good film", "--backbone", str(bert), "--cache-dir", str(place)]
    (imported,) = loaded(command).values()
    # scipy is among what transformers imports.
    assert {*imported} - {"scipy"} == {"torch", "transformers"}


def test_the_garbage_collector_is_as_it_was_after_imports():
    def imported() -> None:
        with importing():
            assert not gc.isenabled()
            raise ImportError

    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            with pytest.raises(ImportError):
                imported()
            assert gc.isenabled() is enabled
        finally:
            gc.enable()
