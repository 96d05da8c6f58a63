"""Values of the wrong kind, given to every public function: one clear line, never a traceback."""

import inspect
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import refusal, texts

import spacelite

TEXTS = texts(40, seed=3)
LABELS = ["good" if text.count("good") % 2 else "bad" for text in TEXTS]

BAD = [
    None, 5, 2.5, True, -1, 10**30, float("nan"), b"x", "", "x", "x" * 300, "\0", "\ud800", ["x"],
    [1], [], {}, {"a": 1}, {1: 2}, object(), np.zeros(3), np.array(["a"]), Path("x"),
    pd.DataFrame({"a": [1]}), pd.Series(["a"]), str, (value for value in "ab"),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory, bert, reviews):
    """A folder with a cache and two runs, and calls of every public function that work."""
    folder = tmp_path_factory.mktemp("arguments")
    quiet = {"device": "cpu", "progress": False}
    embedding = {"backbone": str(bert), "cache_dir": folder, **quiet}
    cache = spacelite.embed(str(reviews), **embedding)
    runs = spacelite.train(cache, epochs=1, **quiet)
    run, page = runs[0], folder / "page.html"
    report = spacelite.report(runs, examples=False, progress=False)
    given = {"texts": TEXTS, "labels": LABELS}
    states, table = folder / "states.npy", folder / "table.csv"
    np.save(states, np.random.RandomState(0).randn(40, 4))
    pd.DataFrame({"label": LABELS}).to_csv(table, index=False)
    return {
        "cache": cache,
        "runs": runs,
        "calls": {
            "embed": (spacelite.embed, {"dataset": str(reviews), **embedding}),
            "embed texts": (spacelite.embed, {**given, **embedding}),
            "import": (
                spacelite.import_cache,
                {"source": states, "table": table, "cache_dir": folder, "progress": False},
            ),
            "find_cache": (spacelite.find_cache, {"name": cache.name, "cache_dir": folder}),
            "train": (spacelite.train, {"cache": cache, "head": "logreg", **quiet}),
            "cross_validate": (
                spacelite.cross_validate,
                {"cache": cache, "head": "logreg", "baselines": False, "folds": 2, **quiet},
            ),
            "save cross-validation": (
                spacelite.cross_validate(
                    cache, head="logreg", baselines=False, folds=2, **quiet
                ).save,
                {"path": page},
            ),
            "learning_curve": (
                spacelite.learning_curve,
                {
                    "cache": cache,
                    "head": "logreg",
                    "baselines": False,
                    "sizes": [8],
                    "seeds": 2,
                    **quiet,
                },
            ),
            "save curve": (
                spacelite.learning_curve(
                    cache, head="logreg", baselines=False, sizes=[8], **quiet
                ).save,
                {"path": page},
            ),
            "audit": (
                spacelite.audit,
                {"cache": cache, "head": "tfidf", "folds": 2, "device": "cpu"},
            ),
            "save audit": (
                spacelite.audit(cache, head="tfidf", folds=2, device="cpu").save,
                {"path": page},
            ),
            "load_run": (spacelite.load_run, {"name": run.id, "cache_dir": folder}),
            "load_runs": (spacelite.load_runs, {"cache_dir": folder}),
            "report": (spacelite.report, {"runs": runs, "examples": False, "progress": False}),
            "best": (runs.best, {}),
            "predict": (run.predict, {"texts": ["a good film"], **quiet}),
            "explain": (run.explain, {"text": "a good film", "device": "cpu"}),
            "explain example": (run.explain, {"example": "test:1", "device": "cpu"}),
            "evaluate": (run.evaluate, {"dataset": str(reviews), **quiet}),
            "evaluate cache": (run.evaluate, {"cache": cache, **quiet}),
            "save explanation": (run.explain("a good film").save, {"path": page}),
            "text of report": (report.text, {}),
        },
    }


CALLS = (
    "embed", "embed texts", "import", "find_cache", "train", "load_run", "load_runs", "report",
    "best", "predict", "explain", "explain example", "evaluate", "evaluate cache",
    "save explanation", "text of report", "cross_validate", "save cross-validation", "audit",
    "save audit", "learning_curve", "save curve",
)  # fmt: skip


# Many of the values are fine for some parameters, and the calls then train.
TRAIN = {"train", "cross_validate", "learning_curve"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in TRAIN)) for name in CALLS]
)
def test_values_of_the_wrong_kind_are_refused_in_one_line(made, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a value that is taken for a folder
    assert set(CALLS) == set(made["calls"])
    function, arguments = made["calls"][name]
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind == parameter.VAR_KEYWORD:
            continue
        for value in BAD:
            if parameter.name == "progress" and callable(value):
                continue  # the caller's own function
            if name == "train" and isinstance(value, int) and value > 5:
                continue  # a number of epochs that would take for ever
            try:
                function(**{**arguments, parameter.name: value})
            except spacelite.SpaceliteError as error:
                assert "\n" not in str(error)
                assert len(str(error)) < 700, error
            except Exception as error:
                pytest.fail(f"{name}({parameter.name}={value!r}) raises {error!r}")


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        ("train", {"cache": 5}, "cache=5: give what embed returned, or a cache's name or path"),
        ("train", {"cache": pd.DataFrame()}, "cache: give what .*, not a value of type DataFrame"),
        ("train", {"device": None}, "device=None: give 'auto', 'cpu' or 'cuda'"),
        ("embed", {"backbone": None}, "backbone=None: give a name or a path"),
        ("embed", {"cache_dir": 5}, "cache_dir=5: give the path of a folder"),
        ("embed", {"max_length": "5"}, "max_length='5': give a whole number"),
        ("embed", {"layer": 1.5}, "layer=1.5: give a whole number"),
        ("embed", {"limit": True}, "limit=True: give a whole number"),
        ("embed", {"progress": None}, "progress=None: give True, False or a function"),
        ("embed texts", {"name": 5}, r"name=5: give a name \(a string\)"),
        ("embed texts", {"name": "x" * 300}, "the cache's name would have .* a shorter name"),
        ("find_cache", {"name": 5}, "name=5: give a cache's name or its path"),
        ("report", {"runs": 5}, "runs=5: give runs or their ids"),
        ("report", {"runs": []}, "runs is empty: give at least one run"),
        ("best", {"metric": ["f1"]}, r"metric=\['f1'\]: give the name of a metric"),
        ("explain example", {"example": 3}, "example=3: give the split and .* example='test:17'"),
        ("explain example", {"example": None}, "give either a text to explain, or example="),
        ("evaluate", {"dataset": None}, "give either a data set to evaluate on, or cache="),
        ("evaluate", {"labels": 5}, 'labels=5: give {"their label": "the run\'s label"}'),
    ],
)
def test_messages_name_the_argument_and_what_it_takes(made, function, arguments, said):
    call, own = made["calls"][function]
    message = refusal(call, **{**own, **arguments})
    assert re.match(said, message), message


def test_paths_and_strings_are_accepted_alike(made, bert, reviews):
    cache, runs = made["cache"], made["runs"]
    again = spacelite.embed(
        reviews, backbone=bert, cache_dir=str(cache.cache_dir), limit=np.int64(60), device="cpu",
        progress=False,
    )  # fmt: skip
    assert again.hit and again.path == cache.path
    for given in (cache.path, str(cache.path), cache.name):
        found = spacelite.find_cache(given, str(cache.cache_dir))
        assert found.path == cache.path
        trained = spacelite.train(
            given, head="logreg", cache_dir=cache.cache_dir, device="cpu", progress=False
        )
        assert trained[0].record.cache == cache.name
    run = runs[0]
    for name in (run.id, run.run.folder, str(run.run.folder)):
        assert spacelite.load_run(name, cache.cache_dir) == run
    assert len(run.predict("a good film", backbone=bert, device="cpu", progress=False)) == 1


def test_a_report_takes_ids_as_well_as_runs(made):
    run, other = made["runs"][:2]
    quiet = {"examples": False, "progress": False}
    expected = spacelite.report([run, other], **quiet).as_json()
    folder = made["cache"].cache_dir
    given = [run.id, other.run.folder]
    assert spacelite.report(given, cache_dir=folder, **quiet).as_json() == expected
    assert spacelite.report(run.id, cache_dir=folder, **quiet).as_json() != expected
    assert "no run 'nothing'" in refusal(spacelite.report, "nothing", cache_dir=folder)


def test_runs_are_compared_by_id_and_folder(made):
    run, other = made["runs"][:2]
    loaded = spacelite.load_run(run.id, made["cache"].cache_dir)
    assert run == loaded and hash(run) == hash(loaded) and len({run, loaded, other}) == 2
    assert run != other and run != run.id


def test_evaluate_takes_what_embed_returned_and_labels_in_every_form(made):
    run, cache = made["runs"][0], made["cache"]
    expected = run.evaluate(cache=cache, device="cpu", progress=False).metrics
    for arguments in (
        {"dataset": cache},
        {"cache": cache.path},
        {"cache": cache, "labels": {0: 0, 1: 1}},
        {"cache": cache, "labels": ["0=0", "1=1"]},
    ):
        assert run.evaluate(**arguments, device="cpu", progress=False).metrics == expected
    turned = run.evaluate(cache=cache, labels={0: 1, 1: 0}, device="cpu", progress=False)
    assert turned.metrics != expected
    message = refusal(run.evaluate, cache=cache, labels="0=1", device="cpu", progress=False)
    assert "labels=0" not in message and "1" in message
