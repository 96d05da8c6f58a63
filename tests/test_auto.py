"""Settings that the size of the training set chooses ("auto")."""

import json
import math

import pytest
from conftest import invoke, refusal

import spacelite
from spacelite import files
from spacelite.training import plan
from spacelite.training.config import TrainingConfig


@pytest.fixture
def there(cache_path, tmp_path):
    return ["--cache", str(cache_path), "--cache-dir", str(tmp_path)]


def command(*arguments):
    return invoke("train", *arguments)


def records(folder):
    paths = sorted((folder / "runs").glob("[!.]*/run.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


@pytest.mark.parametrize(
    ("examples", "batch_size", "epochs"),
    [
        (1, 16, 300), (16, 16, 300), (60, 16, 150), (100, 16, 86), (300, 16, 32), (1000, 64, 38),
        (3000, 128, 25), (15_383, 256, 15), (25_000, 256, 15), (10**7, 256, 15),
    ],
)  # fmt: skip
def test_the_rule(examples, batch_size, epochs):
    assert plan.good_batch_size(examples) == batch_size
    assert plan.good_epochs(examples, batch_size) == epochs
    updates = epochs * math.ceil(examples / batch_size)
    assert updates >= 600 or epochs == 300


def test_only_what_is_auto_is_chosen():
    def resolved(**asked):
        training, values, chosen = plan.resolve(asked, 100)
        return [training.epochs, training.batch_size, values["learning_rate"]], chosen

    values, chosen = resolved(epochs="auto", batch_size=50, learning_rate=[2e-4, "auto"])
    assert values == [300, 50, [2e-4, 1e-3]]
    assert chosen == {"epochs": 300, "learning_rate": 1e-3}
    sentence = plan.Plan([], TrainingConfig(), chosen).sentence
    assert sentence == "300 epochs, learning rate 0.001"
    values, chosen = resolved(epochs=3, batch_size=7, learning_rate=[1e-3, "auto"])
    assert values == [3, 7, [1e-3]]
    values, chosen = resolved(epochs=3, batch_size=7, learning_rate=[1e-2])
    assert chosen == {} and plan.Plan([], TrainingConfig(), chosen).sentence == ""


def test_a_run_has_the_id_of_the_chosen_numbers_and_says_what_was_chosen(there, tmp_path):
    options = ["--epochs", "auto", "--batch-size", "auto", "--lr", "auto,0.5", "--head"]
    done = command(*there, *options, "linear,logreg")
    assert done.exit_code == 0, done.output
    words = "auto, for 60 training examples: 150 epochs, batches of 16, learning rate 0.001"
    assert words in done.output
    found = records(tmp_path)
    chosen = {(r["head"], r["settings"]["learning_rate"]): r["chosen"] for r in found.values()}
    size = {"epochs": "auto", "batch_size": "auto"}
    assert chosen == {
        ("linear", 1e-3): {**size, "learning_rate": "auto"},
        ("linear", 0.5): size,
        ("logreg", None): {},
    }
    numbers = ["--epochs", 150, "--batch-size", 16, "--lr", "0.001,0.5", "--head", "linear"]
    done = command(*there, *numbers)
    assert done.exit_code == 0 and "auto" not in done.output, done.output
    again = records(tmp_path)
    assert set(again) == set(found)
    assert {each["settings"]["epochs"] for each in again.values()} == {150, None}
    assert [each["chosen"] for each in again.values()] == [{}, {}, {}]


def test_python_takes_auto_too(cache_path, tmp_path):
    cache = spacelite.find_cache(cache_path, tmp_path)
    (run,) = spacelite.train(
        cache, head="linear", epochs="auto", batch_size="auto", learning_rate="auto",
        cache_dir=tmp_path, progress=False,
    )  # fmt: skip
    assert run.record.training.epochs == 150 and run.record.training.batch_size == 16
    assert run.record.head.learning_rate == 1e-3
    loaded = spacelite.load_run(run.id, tmp_path)
    assert loaded.record.chosen == dict.fromkeys(("epochs", "batch_size", "learning_rate"), "auto")
    path = run.run.folder / "run.json"
    content = json.loads(path.read_text())
    del content["chosen"]  # as an earlier version wrote it
    files.write_json(path, content)
    assert spacelite.load_run(run.id, tmp_path).record.chosen == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--epochs", "many"], "--epochs many: give a whole number, or auto"),
        (["--batch-size", "1.5"], "--batch-size 1.5: give a whole number, or auto"),
        (["--lr", "high"], "--lr high: 'high' is not a number"),
        (["--batch-size", "0", "--epochs", "auto"], "--batch-size 0: give a whole number"),
    ],
)
def test_other_words_are_refused(options, said, there, tmp_path):
    done = command(*there, *options)
    assert done.exit_code == 1 and said in done.stderr, done.output
    assert not records(tmp_path)


def test_other_words_are_refused_in_python(cache_path, tmp_path):
    cache = spacelite.find_cache(cache_path, tmp_path)
    for name in ("epochs", "batch_size", "learning_rate"):
        said = refusal(spacelite.train, cache, cache_dir=tmp_path, **{name: "more"})
        assert said == f"{name}='more': give a number, or 'auto'"
