"""The sweep of what a probe reads: vectors, figures and intervals against numpy, scikit-learn and
scipy, a choice that test has no part in, the control task, and backbones with random weights."""

import itertools
import json
import re
from dataclasses import astuple, replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import invoke, refusal, texts, write_dataset
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

import spacelite
from spacelite import heads
from spacelite.api.results import EmbeddedDataset
from spacelite.cache.store import Cache
from spacelite.heads import linear
from spacelite.studies import probing
from spacelite.studies.probing import Sweep

QUIET = {"progress": False}
SIZES = {"train": 90, "validation": 40, "test": 40}
READINGS = [("mean", 0), ("mean", 1), ("mean", 2), ("first", 2), ("last", 2), ("max", 2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bert):
    """A cache of a tiny BERT, and those of two BERTs like it with random weights."""
    folder = tmp_path_factory.mktemp("sweep")
    data = write_dataset(folder / "posts", SIZES, classes=3, longest=9)
    for backbone in (f"random-7:{bert}", f"random:{bert}", bert):
        spacelite.embed(data, backbone=backbone, dtype="float32", cache_dir=folder, **QUIET)
    return folder


@pytest.fixture(scope="module")
def dataset(folder):
    (path,) = folder.glob("embeddings/tiny-bert--*.h5")
    return EmbeddedDataset(path, folder)


@pytest.fixture(scope="module")
def found(dataset):
    return spacelite.sweep(dataset, **QUIET)


def pooled(cache, split, pooling, layer):
    """What a probe reads, from the values in the file."""
    of_split = cache.splits[split]
    if pooling == "mean":
        return of_split.layer_means.reshape(len(of_split), 3, -1)[:, layer].astype(float)
    rows = of_split.read_hidden(0, len(of_split)).astype(float)
    parts = [rows[low:high] for low, high in itertools.pairwise(of_split.offsets.tolist())]
    pool = {"first": lambda x: x[0], "last": lambda x: x[-1], "max": lambda x: x.max(axis=0)}
    return np.stack([pool[pooling](part) for part in parts])


# Figures.


def test_probes_are_logistic_regressions(dataset, monkeypatch):
    """Predictions by scikit-learn on vectors from the file, and exact intervals: with 40 examples
    the jackknife leaves out one at a time."""
    fixed = heads.config("logreg", pooling="mean", C=0.5)
    monkeypatch.setattr(probing, "PROBE", fixed)
    swept = spacelite.sweep(dataset, **QUIET).result
    assert [(probe.pooling, probe.layer) for probe in swept.probes] == READINGS
    scores, correct = [], []
    with dataset.open() as cache:
        labels = {name: split.labels for name, split in cache.splits.items()}
        lengths = {name: split.lengths[:, None] for name, split in cache.splits.items()}
        vectors = [{name: pooled(cache, name, *of) for name in SIZES} for of in READINGS]
    nothing = {name: np.zeros((len(of), 1)) for name, of in labels.items()}
    for of in [*vectors, lengths, nothing]:
        model = LogisticRegression(C=0.5, max_iter=5000, tol=1e-8).fit(of["train"], labels["train"])
        scores.append(model.score(of["validation"], labels["validation"]))
        correct.append(model.predict(of["test"]) == labels["test"])
    every = [*swept.probes, *swept.baselines]
    assert [probe.validation for probe in every] == pytest.approx(scores)
    assert [probe.figure.value for probe in every] == pytest.approx([of.mean() for of in correct])
    assert swept.chosen == int(np.argmax(scores[: len(READINGS)]))
    quantile = student.ppf(0.975, len(labels["test"]) - 1)
    for probe, own in zip(every, correct, strict=True):
        behind = correct[swept.chosen].astype(float) - own
        for estimate, of_each in ((probe.figure, own), (probe.behind, behind)):
            half = quantile * np.std(of_each, ddof=1) / np.sqrt(len(of_each))
            assert astuple(estimate) == pytest.approx(
                (of_each.mean(), of_each.mean() - half, of_each.mean() + half)
            )
    share = np.bincount(labels["train"]).argmax()
    assert swept.baselines[1].figure.value == pytest.approx((labels["test"] == share).mean())


def test_c_is_chosen_on_train_and_vectors_are_standardised(found, dataset):
    """Each figure is that of scikit-learn's optimum at one of the strengths."""
    with dataset.open() as cache:
        labels = {name: split.labels for name, split in cache.splits.items()}
        for probe, of in zip(found.probes, READINGS, strict=True):
            inputs = {name: pooled(cache, name, *of) for name in SIZES}
            mean, deviation = inputs["train"].mean(axis=0), inputs["train"].std(axis=0)
            scale = np.where(deviation > 1e-6 * (1 + np.abs(mean)), deviation, np.inf)
            inputs = {name: (values - mean) / scale for name, values in inputs.items()}
            scores = []
            for strength in linear.STRENGTHS:
                model = LogisticRegression(C=strength, max_iter=5000, tol=1e-8)
                model.fit(inputs["train"], labels["train"])
                scores.append(
                    [model.score(inputs[name], labels[name]) for name in ("validation", "test")]
                )
            own = [probe.validation, probe.figure.value]
            assert any(own == pytest.approx(pair) for pair in scores)


def test_a_metric_that_is_no_mean_over_examples(dataset):
    swept = spacelite.sweep(dataset, "layers", metric="f1_macro", **QUIET).result
    with dataset.open() as cache:
        labels, train = cache.splits["test"].labels, cache.splits["train"].labels
        constant = np.full(len(labels), np.bincount(train).argmax())
    figures = [f1_score(labels, constant, average="macro", zero_division=0)]
    for out in range(len(labels)):
        kept = np.arange(len(labels)) != out
        of_kept = f1_score(labels[kept], constant[kept], average="macro", zero_division=0)
        figures.append(of_kept)
    count, without = len(labels), np.array(figures[1:])
    half = student.ppf(0.975, count - 1) * np.sqrt((count - 1) * without.var())
    nothing = swept.baselines[1].figure
    assert astuple(nothing) == pytest.approx((figures[0], figures[0] - half, figures[0] + half))
    assert len(swept.probes) == 3 and swept.metric == "f1_macro"


# Test has no part in the choice.


def test_labels_of_test_change_no_choice(found, dataset, monkeypatch):
    read, real = [], probing.vectors
    monkeypatch.setattr(
        probing, "vectors", lambda cache, split, *of: read.append(split) or real(cache, split, *of)
    )
    with dataset.open() as cache:
        permuted = np.random.default_rng(0).permutation(cache.splits["test"].labels)
        cache.splits["test"].labels = permuted
        other = probing.sweep(cache)
    assert other.chosen == found.result.chosen
    assert [probe.validation for probe in other.probes] == [
        probe.validation for probe in found.probes
    ]
    figures = [[probe.figure for probe in probes] for probes in (other.probes, found.probes)]
    assert figures[0] != figures[1]
    assert read[:3] == ["train", "validation", "test"]  # of the backbone; then of random weights


# The control task.


def test_control_labels_are_a_function_of_the_type():
    random = np.random.default_rng(1)
    types, labels = random.integers(0, 3000, 8000), random.choice(3, 500, p=[0.6, 0.3, 0.1])
    given = probing.control_labels(types, labels, 0)
    assert len({*zip(types.tolist(), given.tolist(), strict=True)}) == len({*types.tolist()})
    # Of whichever other texts there are, and in any order.
    part = random.permutation(8000)[:100]
    assert (probing.control_labels(types[part], labels, 0) == given[part]).all()
    assert (probing.control_labels(types, labels, 1) != given).mean() > 0.3
    # As frequent among types as the task's labels among texts.
    _, first = np.unique(types, return_index=True)
    shares = np.bincount(given[first], minlength=3) / len(first)
    assert np.abs(shares - np.bincount(labels) / 500).max() < 4 * np.sqrt(0.25 / len(first))
    several = np.eye(3, dtype=np.int64)[labels]
    assert (probing.control_labels(types, several, 0).argmax(axis=1) == given).all()


def test_the_type_of_a_text_is_its_first_word(folder, bert, dataset, found):
    written = [
        json.loads(line)["text"].split()[0]
        for line in (folder / "posts" / "train.jsonl").read_text().splitlines()
    ]
    held = [
        json.loads(line)["text"].split()[0]
        for line in (folder / "posts" / "test.jsonl").read_text().splitlines()
    ]
    with dataset.open() as cache:
        train = cache.splits["train"]
        assert probing.shared_beginning(train) == 1  # [CLS]
        types = probing.types_of(train, 1).tolist()
    assert len({*zip(types, written, strict=True)}) == len({*types}) == len({*written})
    assert found.result.types == len({*written})
    known = np.mean([word in written for word in held])
    assert found.result.known_types == pytest.approx(known)
    prefixed = spacelite.embed(
        folder / "posts", backbone=bert, prefix="the very ", cache_dir=folder / "prefixed", **QUIET
    )
    with prefixed.open() as cache:
        assert probing.shared_beginning(cache.splits["train"]) == 3  # with the prefix
        assert probing.types_of(cache.splits["train"], 3).tolist() == types


def test_selectivity_is_the_figure_less_that_of_the_control_task(found, dataset, monkeypatch):
    """With the labels of the control task in place of the data's, the control is the task."""
    with dataset.open() as cache:
        train = cache.splits["train"].labels.copy()
        for split in cache.splits.values():
            types = probing.types_of(split, 1)
            split.labels = probing.control_labels(types, train, 0)
        swept = probing.sweep(cache)
    for probe, own in zip(swept.probes, found.probes, strict=True):
        assert astuple(probe.figure) == pytest.approx(astuple(own.control))
        assert own.selectivity.value == pytest.approx(own.figure.value - own.control.value)
        assert own.beyond_random.value == pytest.approx(own.figure.value - own.random.value)


# Random weights.


def test_random_weights_have_caches_of_their_own(folder, dataset, found, bert, tmp_path):
    names = sorted(path.stem.rpartition("--")[0] for path in folder.glob("embeddings/*.h5"))
    assert names == ["random-7-tiny-bert--posts", "random-tiny-bert--posts", "tiny-bert--posts"]
    assert found.result.random.startswith("random-tiny-bert--posts--")  # the lowest seed
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    again = spacelite.embed(
        folder / "posts", backbone=f"random:{bert}", dtype="float32", cache_dir=tmp_path, **QUIET
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    hidden = {}
    for path in [again.path, *folder.glob("embeddings/*.h5")]:
        with Cache(path) as cache:
            hidden[path] = cache.splits["test"].read_hidden(0, 5)
            assert ("random" in path.stem) == cache.spec.backbone_version.startswith("random:")
    same = folder / "embeddings" / again.path.name
    assert (hidden.pop(again.path) == hidden[same]).all()
    for one, other in itertools.combinations(hidden.values(), 2):
        assert np.abs(one - other).max() > 0.1
    # A run on random weights predicts with them, found where they were.
    (run,) = spacelite.train(again, head="logreg", pooling="mean", baselines=False, **QUIET)
    rows = [json.loads(line) for line in (folder / "posts" / "test.jsonl").read_text().splitlines()]
    predicted = run.predict([row["text"] for row in rows], **QUIET)
    saved = run.run.predictions()
    assert np.abs(predicted.probabilities - saved.probabilities).max() < 1e-5
    assert "name the backbone after one random: alone" in refusal(
        spacelite.embed, "demo", backbone=f"random:random:{bert}", cache_dir=tmp_path, **QUIET
    )
    assert "there is no backbone folder" in refusal(
        spacelite.embed, "demo", backbone="random:./nowhere", cache_dir=tmp_path, **QUIET
    )


def test_other_caches_of_random_weights_are_not_compared(dataset, folder, bert):
    with dataset.open() as cache:
        spec = cache.spec
        (path,) = folder.glob("embeddings/random-7*.h5")
        with Cache(path) as random:
            assert probing._seed_of(random.spec, spec) == 7
            assert probing._seed_of(spec, spec) is None
            for other in ({"layer": 1}, {"dataset_hash": "0"}, {"backbone_version": "random:7:0"}):
                assert probing._seed_of(replace(random.spec, **other), spec) is None
            assert probing._seed_of(replace(random.spec, dtype="int8"), spec) == 7


# What readers get.


def test_what_is_said_and_saved(found, dataset, tmp_path):
    content = json.loads(json.dumps(found.as_json()))
    again = Sweep.from_json(content)
    assert again == found.result
    said = " ".join(found.sentences)
    assert "test was read once, after the choice" in said and "6 probes" in said
    assert f"Chosen: {found.choice.name}." in said and "90 training examples" in said
    assert "of 40 examples" in said and "random-tiny-bert" in said and " s." in said
    assert re.search(r"Of the 5 others, \d (is|are) worse on test", said)
    figures = [probe.figure.value for probe in found.probes]
    if max(figures) > found.choice.figure.value:
        more = 100 * (max(figures) - found.choice.figure.value)
        assert f"{more:.1f} (" in said and "Choosing by test itself would have taken" in said
    frame = found.to_frame()
    assert frame["chosen"].sum() == 1 and len(frame) == 8
    path = found.save(tmp_path / "probes.csv")
    assert pd.read_csv(path)["figure"].tolist() == pytest.approx(
        [of.figure.value for of in (*found.probes, *found.result.baselines)]
    )
    chart = found.chart()
    assert chart.series[0].sizes == [0, 1, 2] and not chart.logarithmic
    assert [series.name for series in chart.series] == [
        "the data's labels", "random weights", "control task", "reads the number of tokens",
        "reads nothing",
    ]  # fmt: skip
    low = [probe.figure.low for probe in found.probes[:3]]
    assert chart.series[0].band[1] == pytest.approx(low)
    assert "(chosen)" in str(found) and "<svg" in found._repr_html_()
    assert spacelite.sweep(dataset, **QUIET).result.probes == found.probes  # the last, in reports
    runs = spacelite.train(dataset, head="logreg", pooling="max", baselines=False, **QUIET)
    report = spacelite.report(runs, examples=False, **QUIET)
    for form in ("markdown", "latex", "text"):
        written = report.text(form)
        assert "What a probe should read" in written and "By spacelite sweep" in written
        assert found.choice.name in written
    page = report.save(tmp_path / "page", format="html")
    assert "layer: %{x:,}" in page.read_text() and "random weights" in page.read_text()
    assert any("layers-" in of.name for of in (tmp_path / "page").rglob("*.svg"))


def test_several_labels_and_no_test_split(bert, tmp_path):
    random = np.random.default_rng(0)
    labels = [
        [name for name in ("good", "dull", "slow") if random.random() < 0.5] for _ in range(80)
    ]
    cache = spacelite.embed(
        texts=texts(80, longest=8),
        labels=labels,
        backbone=bert,
        cache_dir=tmp_path,
        layers=False,
        **QUIET,
    )
    refused = refusal(spacelite.sweep, cache, **QUIET)
    assert "layers=True" in refused
    swept = spacelite.sweep(cache, "pooling", **QUIET)
    assert [probe.pooling for probe in swept.probes] == ["first", "last", "mean", "max"]
    assert swept.result.split == "validation" and swept.chart() is None
    assert swept.choice.validation == swept.choice.figure.value
    said = " ".join(swept.sentences)
    assert "there is no test split" in said and "no baseline of random weights" in said
    assert swept.choice.control is not None and swept.choice.random is None


def test_numbers_are_probed_by_ridge_regression(bert, tmp_path):
    """The choice is the lowest RMSE, and differences say how much lower it is."""
    data = {
        name: (written := texts(size, number, 9), [len(text) / 7 for text in written])
        for number, (name, size) in enumerate(SIZES.items())
    }
    cache = spacelite.embed(data, backbone=bert, task="regression", cache_dir=tmp_path, **QUIET)
    swept = spacelite.sweep(cache, metric="rmse", **QUIET)
    figures = [probe.validation for probe in swept.probes]
    assert swept.result.chosen == int(np.argmin(figures))
    train, test = (np.array(data[name][1]) for name in ("train", "test"))
    tokens, nothing = swept.result.baselines
    assert nothing.figure.value == pytest.approx(np.sqrt(((test - train.mean()) ** 2).mean()), 1e-5)
    assert tokens.figure.value < nothing.figure.value  # labels grow with the length
    assert nothing.behind.value == pytest.approx(nothing.figure.value - swept.choice.figure.value)
    assert swept.choice.selectivity.value == pytest.approx(
        swept.choice.control.value - swept.choice.figure.value
    )
    said = " ".join([str(swept), *swept.sentences])
    assert "compared by RMSE" in said and " in RMSE better" in said and "points" not in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"over": ["layers", "depth"]}, "not over depth: choose from layers, pooling"),
        ({"over": []}, "not over nothing"), ({"metric": "ce"}, "metric=ce: for one label per text"),
        ({"seed": -1}, "seed=-1: give a whole number"), ({"over": 3}, "over=3"),
    ],
)  # fmt: skip
def test_bad_settings(given, said, dataset):
    assert said in refusal(spacelite.sweep, dataset, **given, **QUIET)


def test_commands(found, folder, dataset, tmp_path):

    def command(*arguments):
        return invoke(*[*arguments, "--cache-dir", folder])

    of = ["--cache", dataset.name]
    plain = command("sweep", *of, "--out", tmp_path / "probes.csv")
    assert plain.exit_code == 0, plain.output
    shown = " ".join(plain.stdout.split())
    assert "layer 0, mean" in shown and "Selectivity" in shown and "● the data's labels" in shown
    assert len(pd.read_csv(tmp_path / "probes.csv")) == 8
    as_json = command("train", "--sweep", "layers,pooling", *of, "--monitor", "f1_macro", "--json")
    content = json.loads(as_json.stdout)
    assert content["metric"] == "f1_macro" and len(content["probes"]) == 6
    for options in (["--inter", "0.2"], ["--head", "mlp"], ["--no-baselines"]):
        refused = command("train", "--sweep", "layers", *of, *options)
        assert refused.exit_code == 1 and refused.stdout == ""
        assert f"{options[0]}: it has no effect with --sweep layers" in " ".join(
            refused.stderr.split()
        )
    assert "not over depth" in command("train", "--sweep", "depth", *of).stderr
