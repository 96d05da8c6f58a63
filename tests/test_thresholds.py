"""Decision thresholds: chosen on validation, saved with a run, used wherever it decides."""

import json

import numpy as np
import pytest
from conftest import refusal, texts, write_dataset
from sklearn.metrics import accuracy_score, f1_score
from spacelite_cli.app import app
from typer.testing import CliRunner

import spacelite
from spacelite.api.results import EmbeddedDataset
from spacelite.metrics.thresholds import best_threshold, candidates
from spacelite.runs.store import load
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL
from spacelite.training.config import TrainingConfig

QUIET = {"device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def cache(cache_path, tmp_path_factory):
    return EmbeddedDataset(cache_path, tmp_path_factory.mktemp("thresholds"))


@pytest.fixture(scope="module")
def runs(cache):
    heads = ["space", "linear", "logreg", "tfidf"]
    return spacelite.train(cache, head=heads, epochs=8, learning_rate=0.05, threshold="f1", **QUIET)


@pytest.fixture(scope="module")
def tagged(tmp_path_factory, bert):
    """A cache of texts with any of three labels: rare, usual and never there in validation."""
    folder = tmp_path_factory.mktemp("tagged")
    rows = {}
    for number, (split, size) in enumerate({"train": 60, "validation": 30, "test": 30}.items()):
        rows[split] = [
            {
                "text": text,
                "labels": [
                    name
                    for name, has in (
                        ("rare", text.count("good") > 2),
                        ("usual", "film" in text),
                        ("absent", split == "train" and "slow" in text),
                    )
                    if has
                ],
            }
            for text in texts(size, seed=number)
        ]
        lines = "\n".join(map(json.dumps, rows[split]))
        (folder / f"{split}.jsonl").write_text(lines + "\n")
    return spacelite.embed(str(folder), backbone=str(bert), cache_dir=folder / "cache", **QUIET)


def figure(metric, labels, predicted):
    if metric == "accuracy":
        return accuracy_score(labels, predicted)
    return f1_score(labels, predicted, average="macro", zero_division=0)


@pytest.mark.parametrize("metric", ["f1_macro", "accuracy"])
@pytest.mark.parametrize("seed", range(12))
def test_no_threshold_is_better_than_the_chosen_one(metric, seed):
    """All that there are, by brute force with scikit-learn; of the best the nearest to 0.5."""
    random = np.random.default_rng(seed)
    size = int(random.integers(1, 40))
    labels = (random.random(size) < random.choice([0.1, 0.4, 0.9])).astype(int)
    chances = random.random(size) ** 2
    if seed % 3 == 0:  # with ties, and the ends
        chances = np.round(chances, 1)
    found = best_threshold(chances, labels > 0, metric)
    tried = np.unique([0.5, *chances, *((np.unique(chances)[1:] + np.unique(chances)[:-1]) / 2),
                       chances.min() / 2, (chances.max() + 1) / 2])  # fmt: skip
    figures = np.array([figure(metric, labels, (chances > each).astype(int)) for each in tried])
    own = figure(metric, labels, (chances > found).astype(int))
    assert own == pytest.approx(figures.max(), abs=1e-12)
    best = [each for each in candidates(chances) if figure(
        metric, labels, (chances > each).astype(int)) >= own - 1e-9]  # fmt: skip
    assert abs(found - 0.5) == pytest.approx(min(abs(each - 0.5) for each in best))


@pytest.mark.parametrize("metric", ["f1_macro", "accuracy"])
@pytest.mark.parametrize("seed", range(6))
def test_a_label_by_itself_counts_only_where_it_is_given_or_there(metric, seed):
    random = np.random.default_rng(seed)
    has, chances = random.random(50) < 0.2, np.round(random.random(50), 2)
    found = best_threshold(chances, has, metric, alone=True)
    score = accuracy_score if metric == "accuracy" else f1_score
    figures = [
        score(has, chances > each, **({} if metric == "accuracy" else {"zero_division": 0}))
        for each in candidates(chances)
    ]
    assert score(has, chances > found) == pytest.approx(max(figures), abs=1e-12)


def test_thresholds_where_nothing_can_be_chosen_are_one_half():
    assert best_threshold(np.array([0.1, np.nan]), np.array([True, False]), "f1_macro") == 0.5
    chances = np.array([0.2, 0.7])
    nobody = np.array([False, False])
    assert best_threshold(chances, nobody, "f1_macro", alone=True) == 0.5  # F1 is 0 everywhere
    # A head that separates the two anyway keeps the usual threshold.
    assert best_threshold(chances, np.array([False, True]), "f1_macro") == 0.5
    everybody = np.array([1.0, 1.0])
    assert best_threshold(everybody, nobody, "accuracy") == 1.0


def test_neighbouring_floats_are_told_apart():
    low = 0.3
    chances = np.array([low, np.nextafter(low, 1)])
    found = best_threshold(chances, np.array([False, True]), "accuracy")
    assert (chances > found).tolist() == [False, True]


def test_tasks_decide_by_thresholds():
    logits = np.array([[2.0, 1.5], [0.0, 3.0], [3.0, 0.0]])
    chances = SINGLE_LABEL.probabilities(logits)
    limits = np.array([0.3])
    assert SINGLE_LABEL.decide(logits).tolist() == [0, 1, 0]
    assert SINGLE_LABEL.decide(logits, limits).tolist() == [1, 1, 0]
    assert SINGLE_LABEL.decide(logits[0], limits) == 1
    predicted = SINGLE_LABEL.decide_from_probabilities(chances, limits)
    assert SINGLE_LABEL.confidence(chances, predicted) == pytest.approx(
        [chances[0, 1], chances[1, 1], chances[2, 0]]
    )
    assert SINGLE_LABEL.threshold_labels(["no", "yes"]) == ["yes"]
    assert SINGLE_LABEL.threshold_labels(["a", "b", "c"]) == []
    several = MULTI_LABEL.probabilities(logits)
    limits = np.array([0.9, 0.1])
    predicted = MULTI_LABEL.decide(logits, limits)
    assert predicted.tolist() == [[0, 1], [0, 1], [1, 1]]
    expected = np.where(predicted, several, 1 - several).prod(axis=1)
    assert MULTI_LABEL.confidence(several, predicted) == pytest.approx(expected)
    assert MULTI_LABEL.threshold_labels(["a", "b", "c"]) == ["a", "b", "c"]


def test_a_run_has_the_metrics_of_its_threshold_on_every_split(cache, runs):
    differs = 0
    plain = spacelite.train(cache, head=["space", "linear", "logreg", "tfidf"], epochs=8,
                            learning_rate=0.05, **QUIET)  # fmt: skip
    for run, before in zip(runs, plain, strict=True):
        record = run.record
        assert record.id != before.record.id and record.training.threshold == "f1_macro"
        ((label, value),) = record.thresholds.items()
        assert label == record.label_names[1] and 0 <= value <= 1
        assert list(record.metrics) == ["train", "validation", "test"]
        with np.load(run.run.folder / "predictions.npz") as saved:
            for split in ("validation", "test"):
                logits, labels = saved[f"{split}/logits"], saved[f"{split}/label"]
                chances = SINGLE_LABEL.probabilities(logits)[:, 1]
                predicted = (chances > value).astype(int)
                own = record.metrics[split]
                assert own["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
                assert own["f1_macro"] == pytest.approx(figure("f1", labels, predicted))
                if split == "validation":
                    every = [
                        figure("f1", labels, (chances > each).astype(int))
                        for each in candidates(chances)
                    ]
                    assert own["f1_macro"] == pytest.approx(max(every))
                # What does not depend on decisions stays as it is.
                for name in ("loss", "ce", "auroc"):
                    assert own[name] == pytest.approx(before.metrics[split][name])
        differs += record.metrics["test"] != before.metrics["test"]
        parameters, others = run.run.parameters, before.run.parameters
        assert all(np.array_equal(parameters[name], others[name]) for name in parameters)
        assert run.run.history() == before.run.history()
    assert differs, "the fixture has heads whose threshold is not 0.5"


def test_the_reports_see_what_the_threshold_decides(runs):
    from spacelite.reports.analysis.groups import grouped

    for run in runs:
        saved = run.run.predictions()  # it would be refused if its accuracy were another
        value = run.record.decision_thresholds[0]
        assert np.array_equal(saved.predicted, saved.probabilities[:, 1] > value)
        assert saved.confidence == pytest.approx(
            np.where(saved.predicted, saved.probabilities[:, 1], saved.probabilities[:, 0])
        )
    (group,) = grouped([run.run for run in runs])
    notes = [note for note in group.section.notes if "threshold" in note]
    assert "threshold for f1_macro" in group.section.subtitle
    assert len(notes) == 1 and "were chosen on validation for macro F1" in notes[0]
    spacelite.report(runs, progress=False).text()


def test_every_prediction_uses_the_threshold(cache, runs, bert, reviews):
    given = texts(40, seed=9)
    changed = 0
    for run in runs:
        found = run.predict(given, backbone=bert, **QUIET)
        limit, names = run.record.decision_thresholds[0], run.record.label_names
        expected = [names[int(row[1] > limit)] for row in found.probabilities]
        assert [row["label"] for row in found] == expected
        assert all(row["thresholds"] == {names[1]: limit} for row in found)
        changed += expected != [names[int(row.argmax())] for row in found.probabilities]
        evaluated = run.evaluate(cache=cache, **QUIET)
        for split in ("validation", "test"):
            for name, value in run.metrics[split].items():
                assert evaluated.metrics[split][name] == pytest.approx(value, abs=1e-6)
        (transfer,) = run.run.transfers()
        there = run.run.predictions(transfer)
        assert np.array_equal(there.predicted, run.run.predictions().predicted)
    assert changed


def test_explanations_show_the_label_that_is_given(runs, bert, tmp_path):
    (space,) = [run for run in runs if run.record.head.kind == "space"]
    given = texts(40, seed=9)
    labels = [row["label"] for row in space.predict(given, backbone=bert, **QUIET)]
    for text, label in list(zip(given, labels, strict=True))[:10]:
        found = space.explain(text, backbone=bert, **QUIET)
        assert found.explanation.given == [label]
        assert space.record.label_names[found.label] == label
        assert found.explanation.as_json()["thresholds"] == space.record.thresholds
        assert found.explanation.prediction.startswith(label)
        value = space.record.decision_thresholds[0]
        assert found.explanation.decided == f"Decided by the run's threshold: 1 above {value:.4f}."
        assert f"1 above {value:.4f}." in found.save(tmp_path / "page.html").read_text()


def test_multi_label_runs_have_a_threshold_for_each_label(tagged, bert):
    (run,) = spacelite.train(tagged, head="linear", pooling="mean", epochs=10, learning_rate=0.05,
                             batch_size=8, threshold="f1", **QUIET)  # fmt: skip
    names = list(run.record.label_names)
    assert list(run.record.thresholds) == names
    assert run.record.thresholds["absent"] == 0.5
    with np.load(run.run.folder / "predictions.npz") as saved:
        labels, logits = saved["validation/label"], saved["validation/logits"]
    chances = MULTI_LABEL.probabilities(logits)
    best = []
    for label, own in enumerate(chances.T):
        scores = [
            f1_score(labels[:, label], own > each, zero_division=0) for each in candidates(own)
        ]
        best.append(max(scores))
    assert run.metrics["validation"]["f1_macro"] == pytest.approx(np.mean(best))
    (row,) = run.predict(["a good film"], backbone=bert, **QUIET).rows
    given = [name for name in names if row["probabilities"][name] > row["thresholds"][name]]
    assert row["labels"] == given
    assert load(run.run.folder).record == run.record
    (accurate,) = spacelite.train(tagged, head="logreg", pooling="mean", threshold="accuracy",
                                  **QUIET)  # fmt: skip
    assert accurate.record.training.threshold == "accuracy"


def test_searches_choose_by_the_figures_that_are_saved(cache):
    (run,) = spacelite.train(cache, head="linear", pooling=["first", "mean"], search=True,
                             learning_rate=0.05, weight_decay=0.0, epochs=4, threshold="f1",
                             **QUIET)  # fmt: skip
    both = spacelite.train(cache, head="linear", pooling=["first", "mean"], learning_rate=0.05,
                           weight_decay=0.0, epochs=4, threshold="f1", **QUIET)  # fmt: skip
    assert run.id in [each.id for each in both]
    assert list(run.metrics) == ["train", "validation", "test"]


def test_without_a_threshold_nothing_changes(cache, bert):
    """The id of a run, and what is hashed, are those from before there were thresholds."""
    plain = TrainingConfig()
    assert "threshold" not in {**plain.hashed(), **plain.saved(), **plain.for_fitting().saved()}
    assert TrainingConfig(threshold="f1") == TrainingConfig(threshold="f1_macro")
    assert TrainingConfig(threshold="f1").hashed()["threshold"] == "f1_macro"
    (run,) = spacelite.train(cache, head="logreg", **QUIET)
    content = json.loads((run.run.folder / "run.json").read_text())
    assert "thresholds" not in content and "threshold" not in content["settings"]
    assert load(run.run.folder).record == run.record
    assert run.record.thresholds == {} and run.record.decision_thresholds is None
    assert "thresholds" not in run.predict(["a good film"], backbone=bert, **QUIET)[0]


@pytest.mark.parametrize(
    "thresholds", [{}, {"0": 0.5}, {"1": 1.5}, {"1": "0.5"}, None, {"1": 0.5, "0": 0.5}], ids=str
)
def test_damaged_thresholds_are_refused(cache, tmp_path, thresholds):
    (run,) = spacelite.train(cache, head="logreg", threshold="f1", cache_dir=tmp_path, **QUIET)
    path = run.run.folder / "run.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "thresholds": thresholds}))
    assert "is damaged (thresholds" in refusal(load, run.run.folder)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("precision", "threshold=precision: it is highest where hardly any example is given the "
                      "label, which is of no use; choose f1 or accuracy"),
        ("recall", "threshold=recall: it is highest where every example is given the label"),
        ("auroc", "threshold=auroc: no threshold changes it"),
        ("0.5", "threshold=0.5: choose f1 or accuracy"),
        (0.5, "threshold=0.5: choose f1 or accuracy"),
        (["f1"], "threshold=['f1']: choose f1 or accuracy"),
    ],
)  # fmt: skip
def test_other_metrics_are_refused(cache, value, said):
    assert refusal(spacelite.train, cache, threshold=value, **QUIET).startswith(said)


def test_three_labels_of_which_a_text_has_one_have_no_threshold(tmp_path, bert):
    data = write_dataset(tmp_path / "three", {"train": 30, "validation": 12}, classes=3)
    made = spacelite.embed(str(data), backbone=str(bert), cache_dir=tmp_path / "cache", **QUIET)
    message = refusal(spacelite.train, made, head="linear", threshold="f1", **QUIET)
    assert message == (
        "threshold=f1_macro: a text has one of 3 labels, and a threshold decides between two: "
        "leave threshold out"
    )
    assert not (tmp_path / "cache" / "runs").exists()


def test_the_commands_show_thresholds(cache, tmp_path, bert):
    def spacelite_command(*arguments):
        done = CliRunner().invoke(app, [*map(str, arguments), "--cache-dir", str(tmp_path)])
        assert done.exit_code == 0, done.output
        return done

    model = ["--backbone", bert, "--device", "cpu"]
    there = ["--cache", cache.path, "--device", "cpu", "--head", "logreg"]
    done = spacelite_command("train", *there, "--threshold", "f1", "--name", "sharp")
    run = spacelite.load_run("sharp", tmp_path)
    ((label, value),) = run.record.thresholds.items()
    printed = " ".join(done.stdout.split())
    assert (
        f"Decision thresholds, chosen on validation for macro F1: sharp {value:.4f}; figures on "
        "validation are therefore optimistic (the thresholds fit those examples), figures on test "
        "are not." in printed
    )
    assert "decision thresholds are chosen on validation for macro F1" in done.stderr
    about = spacelite_command("runs", "show", "sharp").stdout.split()
    assert about[about.index("thresholds") + 1 :][:2] == [label, f"{value:.4f}"]
    shown = json.loads(spacelite_command("runs", "show", "sharp", "--json").stdout)
    assert shown["thresholds"] == {label: value}
    predicted = spacelite_command("predict", "sharp", "a good film", *model, "--json")
    assert json.loads(predicted.stdout)[0]["thresholds"] == {label: value}
    refused = CliRunner().invoke(app, ["train", *map(str, there), "--threshold", "recall"])
    assert refused.exit_code == 1 and "--threshold recall: it is highest" in refused.stderr
    plain = spacelite_command("predict", "sharp", "a good film", *model)
    assert f"Decided by the run's threshold: {label} above {value:.4f}." in plain.stdout
    sure = spacelite_command("predict", "sharp", "a good film", *model, "--min-probability", "1")
    assert "left undecided: the predicted label has a probability below 1." in sure.stdout
