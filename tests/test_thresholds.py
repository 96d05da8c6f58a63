"""Decision thresholds: chosen on validation, saved with a run, used wherever it decides."""

import json

import numpy as np
import pytest
from conftest import invoke, refusal, texts, write_dataset
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

import spacelite
from spacelite import files
from spacelite.api.results import EmbeddedDataset
from spacelite.metrics.significance import of_proportion
from spacelite.metrics.thresholds import FEWEST, best_threshold, candidates, reaching
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
    files.write_json(path, {**content, "thresholds": thresholds})
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
        done = invoke(*arguments, "--cache-dir", tmp_path)
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
    refused = invoke("train", *there, "--threshold", "recall")
    assert refused.exit_code == 1 and "--threshold recall: it is highest" in refused.stderr
    plain = spacelite_command("predict", "sharp", "a good film", *model)
    assert f"Decided by the run's threshold: {label} above {value:.4f}." in plain.stdout
    sure = spacelite_command("predict", "sharp", "a good film", *model, "--min-probability", "1")
    assert "left undecided: the predicted label has a probability below 1." in sure.stdout


# Thresholds for a wished figure.


@pytest.mark.parametrize("metric", ["precision", "recall"])
@pytest.mark.parametrize("seed", range(10))
def test_a_wished_figure_is_reached_at_the_least_cost(metric, seed):
    """By brute force with scikit-learn: no other threshold that reaches it gives more (precision)
    or fewer (recall) examples the label."""
    random = np.random.default_rng(seed)
    has = random.random(60) < random.choice([0.05, 0.3, 0.6])
    chances = np.clip(0.4 * has + 0.6 * random.random(60), 0, 1)
    chances = np.round(chances, 1 if seed % 2 else 6)
    wish = float(random.choice([0.5, 0.8, 0.95]))
    score = precision_score if metric == "precision" else recall_score
    given = {}
    for threshold in candidates(chances):
        count = int((chances > threshold).sum())
        of = count if metric == "precision" else int(has.sum())
        if of >= FEWEST and score(has, chances > threshold, zero_division=0) >= wish:
            given[threshold] = count
    found = reaching(chances, has, metric, wish)
    if not given:
        assert found is None
        return
    best = max(given.values()) if metric == "precision" else min(given.values())
    assert int((chances > found).sum()) == best
    assert score(has, chances > found) >= wish


def test_nothing_is_reached_with_few_examples_or_broken_probabilities():
    nine, all_have = np.linspace(0.1, 0.9, FEWEST - 1), np.ones(FEWEST - 1, bool)
    assert reaching(nine, all_have, "precision", 0.5) is reaching(nine, all_have, "recall", 0.5)
    assert reaching(np.append(nine, 0.95), np.ones(FEWEST, bool), "precision", 1.0) < 0.1
    assert reaching(np.append(nine, np.nan), np.ones(FEWEST, bool), "recall", 0.5) is None


@pytest.mark.parametrize(("count", "of"), [(0, 7), (7, 7), (3, 40), (811, 1000)])
def test_the_interval_of_a_share_is_wilsons(count, of):
    expected = binomtest(count, of).proportion_ci(method="wilson")
    assert of_proportion(count, of) == pytest.approx((expected.low, expected.high), abs=1e-6)


def saved(run, split):
    """A run's labels and probabilities on a split, from its file."""
    with np.load(run.run.folder / "predictions.npz") as arrays:
        labels, logits = arrays[f"{split}/label"], arrays[f"{split}/logits"]
    return labels, run.record.task.probabilities(logits)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory, bert):
    """Runs on texts of one of two labels and of three, by words, with one label in eight wrong."""

    def train(classes):
        folder = tmp_path_factory.mktemp(f"noisy{classes}")
        random = np.random.default_rng(classes)
        for number, (split, size) in enumerate(
            {"train": 120, "validation": 80, "test": 90}.items()
        ):
            lines = []
            for text in texts(size, seed=number, longest=12):
                label = min(text.count("good") + text.count("film"), classes - 1)
                wrong = (label + 1) % classes
                lines.append(
                    {"text": text, "label": "abc"[wrong if random.random() < 1 / 8 else label]}
                )
            (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        cache = spacelite.embed(
            str(folder), backbone=str(bert), cache_dir=folder / "cache", **QUIET
        )
        (run,) = spacelite.train(cache, head="tfidf", **QUIET)
        return run

    return {classes: train(classes) for classes in (2, 3)}


@pytest.mark.parametrize("label", [None, "a", "b"])
@pytest.mark.parametrize("metric", ["precision", "recall"])
def test_one_of_two_labels_gets_the_wished_figure(noisy, bert, metric, label):
    run = noisy[2]
    chosen = run.threshold(**{metric: 0.9}, label=label)
    name, score = label or "b", precision_score if metric == "precision" else recall_score
    ((key, value),) = chosen.values.items()
    assert key == name and chosen.min_probability is None
    for split in ("validation", "test"):
        labels, chances = saved(run, split)
        has, given = labels == "ab".index(name), chances[:, "ab".index(name)] > value
        figures = chosen.as_json()["splits"][split][name]
        assert figures[metric] == pytest.approx(score(has, given))
        assert (figures["given"], figures["examples"]) == (given.sum(), len(labels))
        assert split == "test" or figures[metric] >= 0.9
    words = texts(30, seed=9)
    plain = run.predict(words, backbone=bert, **QUIET)
    cut = run.predict(words, backbone=bert, threshold=chosen, **QUIET)
    other = "ab"[1 - "ab".index(name)]
    above = plain.probabilities[:, "ab".index(name)] > value
    assert cut.labels == [[name if one else other] for one in above]
    text = f"{metric}=0.9" + (f",label={label}" if label else "")
    assert run.predict(words, backbone=bert, threshold=text, **QUIET).labels == cut.labels
    assert "optimistic" in str(chosen) and f"{metric}=0.9 of {run.id}: {name} {value:.4f}" in repr(
        chosen
    )


@pytest.mark.parametrize(
    ("classes", "metric"), [(2, "accuracy"), (3, "accuracy"), (3, "precision")]
)
def test_texts_are_left_without_a_label_until_the_rest_is_accurate(noisy, bert, classes, metric):
    run = noisy[classes]
    labels, chances = saved(run, "validation")
    usual = accuracy_score(labels, chances.argmax(1))
    wish = (1 + 3 * usual) / 4  # more than without a threshold
    chosen = run.threshold(**{metric: wish})
    least = chosen.min_probability
    correct, sure = chances.argmax(1) == labels, chances.max(1)
    assert correct[sure >= least].mean() >= wish
    lower = sorted(sure[sure < least])[::-1]
    assert all(correct[sure >= each].mean() < wish for each in lower)  # no lower one reaches it
    labels, chances = saved(run, "test")
    kept = chances.max(1) >= least
    assert chosen.coverage["test"] == pytest.approx(kept.mean())
    figures = chosen.as_json()["splits"]["test"]["any label"]
    assert figures["precision"] == pytest.approx((chances.argmax(1) == labels)[kept].mean())
    assert f"{kept.mean():.1%} of the 90 texts of test have a label." in str(chosen)
    words = texts(30, seed=9)
    plain = run.predict(words, backbone=bert, **QUIET)
    cut = run.predict(words, backbone=bert, threshold=chosen, **QUIET)
    assert [bool(given) for given in cut.labels] == (plain.probabilities.max(1) >= least).tolist()


def test_each_of_several_labels_gets_its_own_or_none(tagged, bert):
    (run,) = spacelite.train(tagged, head="tfidf", **QUIET)
    chosen = run.threshold(recall=0.9)
    labels, chances = saved(run, "validation")
    for number, name in enumerate(run.labels):
        value = chosen.values[name]
        if labels[:, number].sum() < FEWEST:
            assert value is None
        else:
            assert recall_score(labels[:, number], chances[:, number] > value) >= 0.9
    assert chosen.values["absent"] is None and chosen.values["usual"] is not None
    assert "not given: absent" in str(chosen) or "not given: absent, rare" in str(chosen)
    cut = run.predict(texts(30, seed=9), backbone=bert, threshold=chosen, **QUIET)
    assert not any("absent" in given for given in cut.labels)
    assert "Decided by the thresholds chosen for recall=0.9: absent never, " in str(cut)
    # In JSON and on disk the run stays what it was.
    assert chosen.record.as_json().keys() - run.record.as_json().keys() == {"thresholds"}
    usual = cut.probabilities[:, list(run.labels).index("usual")]
    assert ["usual" in given for given in cut.labels] == (usual > chosen.values["usual"]).tolist()
    assert "several labels" in refusal(run.threshold, accuracy=0.9)


def test_wishes_that_cannot_be_had_are_refused(noisy, runs):
    two, three = noisy[2], noisy[3]
    assert "give one of" in refusal(two.threshold)
    assert "give one of" in refusal(two.threshold, precision=0.9, recall=0.9)
    assert "above 0 and at most 1" in refusal(two.threshold, precision=1.5)
    assert refusal(two.threshold, precision=0.9, label="c") == "label=c: choose from a, b"
    assert "leave it out" in refusal(three.threshold, precision=0.9, label="a")
    assert "give accuracy" in refusal(three.threshold, recall=0.9)
    # The validation split has 20 texts, of which a random backbone's head gets some wrong.
    assert "is not reached on the 20 texts of validation: " in refusal(
        lambda: [run.threshold(precision=1.0) for run in runs]
    )
    chosen = two.threshold(recall=0.9)
    for options, said in (
        ({"threshold": chosen, "min_probability": 0.5}, "not both"),
        ({"threshold": 0.5}, "threshold=0.5: give what run.threshold(...) returned"),
        ({"threshold": "f1=0.5"}, "threshold=f1=0.5: give precision=0.9"),
        ({"threshold": "recall=2"}, "threshold=recall=2: give precision=0.9"),
        ({"threshold": noisy[3].threshold(accuracy=0.5)}, "it was chosen for run"),
    ):
        assert said in refusal(two.predict, ["good"], progress=False, **options)


def test_the_commands_reach_a_wished_figure(noisy, bert, tmp_path):
    run = noisy[3]
    there = ["--cache-dir", str(run.cache_dir)]

    def output(*arguments, code=0):
        done = invoke(*arguments, *there)
        assert done.exit_code == code, done.output
        return done.stdout if code == 0 else done.stderr

    chosen = run.threshold(accuracy=0.85)
    shown = output("runs", "show", run.id, "--threshold", "accuracy=0.85")
    assert f"{chosen.min_probability:.4f}" in shown and "optimistic" in shown
    document = json.loads(output("runs", "show", run.id, "--threshold", "accuracy=0.85", "--json"))
    assert document["threshold"] == json.loads(json.dumps(chosen.as_json()))
    (tmp_path / "texts.txt").write_text("\n".join(texts(20, seed=9)))
    how = ["predict", run.id, "--file", tmp_path / "texts.txt", "--threshold", "accuracy=0.85",
           "--backbone", bert]  # fmt: skip
    expected = run.predict(texts(20, seed=9), backbone=bert, threshold=chosen, **QUIET)
    labels = [row["label"] for row in expected]
    assert [row["label"] for row in json.loads(output(*how, "--json"))] == labels
    counted = json.loads(output(*how, "--out", tmp_path / "out.csv", "--json"))
    assert counted["undecided"] == len(expected.undecided) == labels.count(None)
    refused = output("predict", run.id, "good", "--threshold", "precision", code=1)
    assert "error: --threshold precision: give precision=0.9" in refused
