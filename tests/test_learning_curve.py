"""The learning curve: subsets, figures against trainings on as many examples, the uncertainty of
its points, what is said and drawn."""

import itertools
import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
from conftest import in_memory, invoke, refusal

import spacelite
from spacelite import heads
from spacelite.api.results import EmbeddedDataset
from spacelite.cache.store import Cache
from spacelite.heads import additive
from spacelite.metrics.scores import METRICS
from spacelite.studies.learning_curve import (
    Curve,
    HeadCurve,
    apportioned,
    default_sizes,
    nested,
    validation_covariance,
)
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL
from spacelite.training import loop
from spacelite.training.batches import ArrayData
from spacelite.training.config import TrainingConfig

SIZES = [8, 16, 32, "all"]
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def dataset(cache_path, tmp_path_factory):
    return EmbeddedDataset(cache_path, tmp_path_factory.mktemp("curve"))


@pytest.fixture(scope="module")
def found(dataset):
    return spacelite.learning_curve(
        dataset, sizes=SIZES, seeds=3, head=["space", "additive"], epochs=2, batch_size=16, **QUIET
    )


# Subsets.


@pytest.mark.parametrize("seed", range(3))
def test_subsets_are_stratified_and_nested(seed):
    random = np.random.default_rng(seed)
    labels = random.choice(4, 500, p=[0.6, 0.3, 0.08, 0.02])
    counts = np.bincount(labels)
    drawn = nested(labels, SINGLE_LABEL, [4, 10, 50, 300], seed)
    for smaller, larger in itertools.pairwise(drawn):
        assert set(smaller) <= set(larger)
    for size, rows in zip([4, 10, 50, 300], drawn, strict=True):
        assert len(rows) == len(set(rows)) == size and (np.diff(rows) > 0).all()
        own = np.bincount(labels[rows], minlength=4)
        assert (own >= 1).all()
        if size >= 50:  # each label's share, as far as whole numbers allow
            assert (np.abs(own - size * counts / 500) < 1.01).all()
    other = nested(labels, SINGLE_LABEL, [50], seed + 1)[0]
    assert set(other) != set(drawn[2])


def test_shares_by_largest_remainders():
    """Against the definition: floors, then one more where most is left over."""
    counts = np.array([61, 27, 12])
    for size in range(3, 101):
        found = apportioned(counts, size, np.zeros(3, int))
        quotas = size * counts / 100
        expected = np.floor(quotas).astype(int)
        for index in np.argsort(-(quotas - expected), kind="stable")[: size - expected.sum()]:
            expected[index] += 1
        if (expected >= 1).all():
            assert found.tolist() == expected.tolist()


def test_several_labels_are_stratified_by_the_rarest():
    labels = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0], [0, 1, 1], [0, 1, 0]])
    assert MULTI_LABEL.fine_strata(labels).tolist() == [0, 1, 2, 3, 2, 1]


def test_default_sizes():
    assert default_sizes(15_383, 3) == [16, 64, 256, 1024, 4096, 15_383]
    assert default_sizes(1024, 100) == [256, 1024]
    assert default_sizes(10, 2) == [10]
    assert default_sizes(260, 2) == [16, 64, 128, 260] and default_sizes(260, 130) == [260]
    assert default_sizes(320, 2) == [16, 64, 256, 320]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([1000], "sizes=1000: the train split has 60 examples"),
        ([1], "sizes=1: the examples have 2 labels"),
        (["some"], "sizes='some': give whole numbers, or 'all'"),
        ([True], "sizes=True"), ([2.5], "sizes=2.5"), ([], "sizes=[]"), ([0], "sizes=0"),
    ],
)  # fmt: skip
def test_bad_sizes(sizes, said, dataset):
    assert said in refusal(spacelite.learning_curve, dataset, sizes=sizes, **QUIET)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seeds": 0}, "seeds"), ({"metric": "speed"}, "one label per text, choose from acc"),
        ({"metric": "ce"}, "metric=ce: for one label"), ({"head": "forest"}, "head=forest"),
        ({"preset": "best", "latent": 4}, "latent=4: preset=best chooses this itself"),
        ({"head": "linear", "epochs": "many"}, "epochs='many'"),
    ],
)  # fmt: skip
def test_bad_settings(given, said, dataset):
    assert said in refusal(spacelite.learning_curve, dataset, **given, **QUIET)


# Figures.


def test_figures_are_those_of_training_on_as_many_examples(found, dataset):
    """Heads that were trained on the subset's examples alone, evaluated by scikit-learn."""
    with dataset.open() as cache:
        train, validation = cache.splits["train"], cache.splits["validation"]
        names = list(found.result.named)
        for number, size in enumerate(found.sizes[:-1]):
            rows = nested(train.labels, SINGLE_LABEL, found.sizes[:-1], seed=1)[number]
            data = ArrayData(
                {"train": in_memory(train, rows), "test": in_memory(validation)}, ["0", "1"]
            )
            for name in names:
                head = found.result.named[name].head
                if head.reads_layers:
                    continue
                own = replace(head, seed=1) if hasattr(head, "seed") else head
                training = TrainingConfig(epochs=2, batch_size=16)
                (result,) = loop.train(data, [own], training)
                predicted = result.logits["test"].numpy().argmax(axis=1)
                for metric, function in (("accuracy", sk.accuracy_score), ("f1_macro", macro)):
                    expected = function(validation.labels, predicted)
                    value = found.figures(metric)[name][number, 1]
                    assert value == pytest.approx(expected, abs=1e-6), (name, size, metric)


def macro(labels, predicted):
    return sk.f1_score(labels, predicted, average="macro")


def test_all_examples_are_an_ordinary_training(found, dataset, tmp_path):
    runs = spacelite.train(
        dataset, head=["space", "additive"], seeds=3, epochs=2, batch_size=16,
        learning_rate="auto", baselines=False, cache_dir=tmp_path, **QUIET,
    )  # fmt: skip
    for run in runs:
        own = found.figures("accuracy")[run.record.system][-1]
        value = run.metrics["validation"]["accuracy"]
        assert own[run.record.seed] == pytest.approx(value, abs=1e-6)
    fitted = found.result.named["additive (layers+ngrams)"]
    assert fitted.drawn.tolist() == [3, 3, 3, 1] and np.isnan(fitted.deviation("accuracy")[-1])


def test_few_examples_are_fitted_in_their_own_space(monkeypatch):
    """The same head as in all dimensions, to what the search leaves over."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(30, 200)).astype(np.float32)
    labels = random.integers(0, 2, 30)

    class Given:
        weights = None

    import torch

    given = Given()
    given.labels = torch.from_numpy(labels)
    given.features = lambda pooling: torch.from_numpy(vectors)
    from spacelite.heads.base import Objective

    objective = Objective(SINGLE_LABEL, 2)
    config = heads.config("additive", blocks="mean")
    found = additive.AdditiveHead.fit(config, given, objective, "none").parameters
    monkeypatch.setattr(additive, "FEW", 10**9)
    expected = additive.AdditiveHead.fit(config, given, objective, "none").parameters
    logits = [
        vectors @ own["mean.weight"].numpy().T + own["classifier.bias"].numpy()
        for own in (found, expected)
    ]
    np.testing.assert_allclose(*logits, atol=2e-2)


# Uncertainty.


def test_the_covariance_of_accuracies_over_validation():
    """Of two heads, against the covariance of means of independent examples."""
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 2000)
    right = np.stack([random.random(2000) < 0.8, random.random(2000) < 0.6])
    right[1, :1000] = right[0, :1000]  # alike on half of the examples
    logits = np.zeros((2, 1, 2000, 2), np.float32)
    for head in range(2):
        predicted = np.where(right[head], labels, 1 - labels)
        logits[head, 0, np.arange(2000), predicted] = 1
    found = validation_covariance("accuracy", SINGLE_LABEL, labels, logits)
    np.testing.assert_allclose(found, np.cov(right) / 2000, rtol=0.5)
    assert found[0, 1] > 0


def curve(means, spread=0.0, seeds=5, covariance=1e-6, sizes=(16, 64, 256, 1024, 4096)):
    random = np.random.default_rng(0)
    values = np.array(means)[:, None] + spread * random.normal(size=(len(means), seeds))
    figures = dict.fromkeys(METRICS, values)
    system = HeadCurve(
        heads.config("space"), figures, np.eye(len(means)) * covariance, np.full(len(means), seeds)
    )
    return Curve(list(sizes), list(range(seeds)), 10**6, 2000, "accuracy", [system], 1.0)


def power(sizes, floor=0.2, scale=0.8, exponent=0.35):
    return 1 - floor - scale * np.array(sizes, float) ** -exponent


SHAPE = (16, 64, 256, 1024, 4096)


@pytest.mark.parametrize(
    ("means", "spread", "said"),
    [
        (power(SHAPE), 0.002, "would be worth about"),
        (np.full(5, 0.7), 0.002, "would hardly help"),
        (power(SHAPE, exponent=0.9), 0.02, "hardly help|may be worth nothing"),
        ([0.5, 0.9, 0.5, 0.9, 0.5], 0.001, "do not follow a power law"),
    ],
)
def test_what_is_said(means, spread, said):
    sentences = curve(means, spread).sentences
    assert re.search(said, sentences[1]), sentences
    assert sentences[0].startswith("Accuracy on 2,000 validation examples")


def test_what_is_said_of_a_true_gain():
    """Twice the labels: the sentence's numbers are those of the law."""
    of = curve(power(SHAPE), 1e-5).extrapolations["space"]
    expected = float(power([8192])[0] - power([4096])[0])
    assert of.gain.value == pytest.approx(expected, abs=2e-4)
    assert of.gain.interval[0] <= expected <= of.gain.interval[1]
    assert "8,192 in place of 4,096" in curve(power(SHAPE), 1e-5).sentences[1]


def test_too_few_sizes_or_seeds():
    short = curve(power([16, 64, 256]), sizes=(16, 64, 256))
    assert "is not extrapolated: that takes figures at 4 sizes" in short.sentences[1]
    alone = curve(power(SHAPE), seeds=1)
    assert "no telling how sure this is" in alone.sentences[1]


def test_a_curve_that_falls_is_said_to_fall():
    sentences = curve([0.6, 0.7, 0.75, 0.79, 0.70], 0.002).sentences
    assert any("got worse by" in one or "cost it" in one for one in sentences)


# Forms.


def test_printed_saved_and_drawn(found, tmp_path):
    shown = str(found)
    assert "Accuracy on validation" in shown and "additive (layers+ngrams)" in shown
    assert max(map(len, shown.split("\n\n")[1].splitlines())) <= 80
    assert "<table" in found._repr_html_()
    found.save(tmp_path / "curve.csv")
    rows = pd.read_csv(tmp_path / "curve.csv")
    assert len(rows) == 2 * 4 * 3 and set(METRICS) < set(rows.columns)
    own = rows[(rows["system"] == "space") & (rows["size"] == 16)]["accuracy"]
    np.testing.assert_allclose(own, found.figures()["space"][1], atol=1e-6)
    for name in ("curve.svg", "curve.png", "curve.html"):
        found.save_plot(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000
    assert "learning" in (tmp_path / "curve.html").read_text()
    assert "curve.gif" in refusal(found.save_plot, tmp_path / "curve.gif")
    assert json.dumps(found.as_json(), default=float)


def test_the_answer_comes_back_and_is_in_the_report(found, dataset):
    again = Curve.from_json(json.loads(json.dumps(found.result.as_json())))
    assert again.table() == found.result.table()
    assert again.sentences == found.result.sentences
    run = spacelite.train(
        dataset, head="linear", epochs=1, baselines=False, cache_dir=dataset.cache_dir, **QUIET
    )
    page = spacelite.report(run, examples=False, **QUIET)
    assert "What more labels would be worth" in page.text()
    assert "learning-curve-1" in {getattr(one, "name", "") for one in page.blocks()}
    folder = dataset.cache_dir / "out"
    page.save(folder)
    (drawn,) = folder.rglob("learning-curve-1.svg")
    assert drawn.stat().st_size > 5000


def test_progress_counts_up(dataset):
    seen = []
    spacelite.learning_curve(
        dataset, sizes=[8, 16], seeds=2, head="linear", epochs=1, baselines=False,
        progress=lambda *event: seen.append(event),
    )  # fmt: skip
    assert {phase for phase, *_ in seen} == {"curve"} and seen[-1][1] == seen[-1][2] == 48
    done = [count for _, count, _ in seen]
    assert done == sorted(done)


def test_the_command(cache_path, tmp_path):

    out, drawn = tmp_path / "curve.csv", tmp_path / "curve.svg"
    words = [
        "curve", "--cache", str(cache_path), "--cache-dir", str(tmp_path), "--sizes", "8,16,all",
        "--seeds", "2", "--head", "linear", "--epochs", "1", "--no-baselines",
    ]  # fmt: skip
    shown = invoke(*words, "--out", out, "--plot", drawn)
    assert shown.exit_code == 0 and "Test was not read." in " ".join(shown.output.split())
    assert out.is_file() and drawn.is_file()
    content = json.loads(invoke(*words, "--json").stdout)
    assert content["sizes"] == [8, 16, 60] and len(content["systems"]) == 1
    wrong = invoke(*words[:6], "8,many", *words[7:])
    assert wrong.exit_code and "--sizes" in wrong.stderr
    wrong = invoke(*words, "--plot", tmp_path / "curve.gif")
    assert wrong.exit_code and "curve.gif" in wrong.stderr


def test_multi_label(bert, tmp_path):
    from conftest import texts

    own = texts(80, seed=9)
    labels = [[name for name in ("good", "film") if name in text] for text in own]
    cache = spacelite.embed(
        texts=own, labels=labels, backbone=bert, cache_dir=tmp_path, progress=False
    )
    found = spacelite.learning_curve(
        cache, sizes=[16, 32, "all"], seeds=2, head="logreg", pooling="mean", baselines=False,
        **QUIET,
    )  # fmt: skip
    assert np.isfinite(found.figures()["logreg (mean)"]).all()


def test_test_is_not_read(cache_path, tmp_path, monkeypatch):
    from spacelite.cache.split import CachedSplit

    read = Counter()
    real = CachedSplit.read_examples

    def counting(self, *given, **named):
        read[self.name] += 1
        return real(self, *given, **named)

    monkeypatch.setattr(CachedSplit, "read_examples", counting)
    with Cache(cache_path):
        spacelite.learning_curve(
            EmbeddedDataset(cache_path, tmp_path), sizes=[8, 16], seeds=2, head="space", epochs=1,
            **QUIET,
        )  # fmt: skip
    assert read["validation"] == 1 and read["train"] and not read["test"]
