"""New kinds of things from outside the library: an entry in a table, and everything knows it.

Each extension goes through train, resume, save, predict, explain (or its refusal), eval and report,
beside what is built in.
"""

import csv
import inspect
import io
import itertools
import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
import typer.testing
from conftest import invoke, refusal, texts, write_dataset
from sklearn.metrics import balanced_accuracy_score

import spacelite
from spacelite import heads
from spacelite.cache.dtypes import DTYPES, StoredType
from spacelite.data.known import KNOWN, KnownDataset
from spacelite.data.splits import Split
from spacelite.document import Cell, Heading, Line, Table
from spacelite.heads import Pooling, TokenHead, TrainedHeadConfig
from spacelite.heads.pooling import POOLINGS
from spacelite.metrics.scores import METRICS, Metric
from spacelite.reports.document.sections import SECTIONS, report_blocks
from spacelite.reports.render.forms import FORMS, Form
from spacelite.settings import positive, setting
from spacelite.tasks import TASKS
from spacelite.tasks.base import Task
from spacelite.training import memory, plan
from spacelite.training.optimizer import SCHEDULES, Adam

EPOCHS = 3


@pytest.fixture(scope="module")
def cache(tmp_path_factory, bert, reviews):
    return spacelite.embed(
        str(reviews), backbone=str(bert), cache_dir=tmp_path_factory.mktemp("extending"),
        dtype="float32", device="cpu", progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "other", {"train": 20, "test": 15})


def through_everything(cache, bert, other, cache_dir, **settings):
    """Train heads and use them in every way; the runs, and the text of their report."""
    arguments = {"epochs": EPOCHS, "batch_size": 16, "learning_rate": 0.05, **settings}
    whole = spacelite.train(cache, cache_dir=cache_dir / "whole", progress=False, **arguments)
    folder = cache_dir / "resumed"
    calls = 0

    def interrupt(phase, done, total):
        nonlocal calls
        calls += phase == "train" and done > 0.6 * total
        if calls:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spacelite.train(cache, cache_dir=folder, progress=interrupt, **arguments)
    assert not list(folder.glob("runs/*/run.json"))
    runs = spacelite.train(cache, cache_dir=folder, resume=True, progress=False, **arguments)
    assert len(runs) == len(whole) and not runs.stopped
    for run, uninterrupted in zip(runs, whole, strict=True):
        assert run.id == uninterrupted.id
        for name, values in run.run.parameters.items():
            assert (values == uninterrupted.run.parameters[name]).all(), name
        loaded = spacelite.load_run(run.id, folder)
        assert loaded.record == run.record
        given = ["a good film", "dull", "the plot was very slow but well acted"]
        predictions = loaded.predict(given, backbone=str(bert), progress=False)
        assert np.allclose(predictions.probabilities.sum(axis=1), 1)
        evaluation = loaded.evaluate(str(other), backbone=str(bert), progress=False)
        assert set(evaluation.metrics) == {"train", "validation", "test"}
        reasons = heads.kind(run.record.head.kind).not_additive(run.record.head)
        if reasons is None:
            explanation = loaded.explain(given[0], backbone=str(bert)).explanation
            assert explanation.difference < 1e-5
        else:
            assert reasons in refusal(loaded.explain, given[0], backbone=str(bert))
    text = spacelite.report(runs, backbone=str(bert), progress=False).text()
    assert all(run.record.system in text for run in runs)
    return runs, text


def tokens_of(cache, split):
    """The hidden states of each example of a split, (n, d) float64."""
    with cache.open() as opened:
        stored = opened.splits[split]
        offsets = stored.offsets.tolist()
        rows = stored.read_hidden(0, len(stored)).astype(np.float64)
    return [rows[first:last] for first, last in itertools.pairwise(offsets)]


def saved_logits(run, split="test"):
    assert run.record.split == split
    return run.run.predictions().logits


def test_a_pooling(cache, bert, other, tmp_path, monkeypatch):
    def root_mean_square(tokens, lengths):
        parts = tokens.split(lengths.tolist())
        return torch.stack([part.square().mean(dim=0).sqrt() for part in parts])

    monkeypatch.setitem(POOLINGS, "rms", Pooling(pool=root_mean_square))
    runs, text = through_everything(
        cache, bert, other, tmp_path, head=["space", "linear", "mlp", "logreg"],
        pooling=["rms", "max", "first"],
    )  # fmt: skip
    assert len(runs) == 1 + 3 + 3 + 3
    assert "linear (rms)" in text and "logreg (rms)" in text and "linear (first)" in text
    tokens = tokens_of(cache, "test")
    pooled = {
        "rms": np.stack([np.sqrt((of_text**2).mean(axis=0)) for of_text in tokens]),
        "max": np.stack([of_text.max(axis=0) for of_text in tokens]),
    }
    for run in runs:
        if run.record.system in ("linear (rms)", "logreg (rms)", "linear (max)", "logreg (max)"):
            vectors = pooled[run.run.head.pooling]
            weight, bias = (run.run.parameters[f"classifier.{x}"] for x in ("weight", "bias"))
            assert np.abs(vectors @ weight.T + bias - saved_logits(run)).max() < 1e-4


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(TrainedHeadConfig):
    kind: ClassVar[str] = "attention"

    temperature: float = setting(1.0, check=positive, words="temperature {:g}")


class AttentionHead(TokenHead):
    """A linear layer on a weighted mean of the tokens: softmax(q x_t), q learned."""

    config_type = AttentionConfig

    @classmethod
    def shapes(cls, config, classes, width):
        return {
            "query.weight": (1, width),
            "classifier.weight": (classes, width),
            "classifier.bias": (classes,),
        }

    def forward(self, parameters, hidden, group):
        parts = hidden.split(group.lengths.tolist())
        query, weight = parameters["query.weight"], parameters["classifier.weight"]
        heat = torch.tensor([config.temperature for config in self.configs])[:, None, None]
        pooled = torch.cat([torch.softmax(query @ x.T / heat, dim=2) @ x for x in parts], dim=1)
        return torch.baddbmm(parameters["classifier.bias"][:, None], pooled, weight.mT)


def test_a_kind_of_head(cache, bert, other, tmp_path, monkeypatch):
    monkeypatch.setitem(heads.KINDS, "attention", AttentionHead)
    runs, _text = through_everything(
        cache, bert, other, tmp_path, head=["attention", "space"], seeds=2
    )  # fmt: skip
    assert [run.record.system for run in runs] == ["attention"] * 2 + ["space"] * 2
    for run in runs[:2]:
        query, weight, bias = (
            run.run.parameters[name].astype(np.float64)
            for name in ("query.weight", "classifier.weight", "classifier.bias")
        )
        for tokens, logits in zip(tokens_of(cache, "test"), saved_logits(run), strict=True):
            scores = np.exp(tokens @ query[0])
            pooled = scores @ tokens / scores.sum()
            assert np.abs(weight @ pooled + bias - logits).max() < 1e-4
        # It has learned: autograd's gradient reached the query as well.
        first = AttentionHead.initial(run.record.head, len(bias), weight.shape[1])
        assert np.abs(first["query.weight"].numpy() - query).max() > 0.01
        history = run.run.history()
        assert history[-1]["train"]["ce"] < history[0]["train"]["ce"]
    # The command line knows it too.
    cli = invoke(
        "train", "--cache", cache.path, "--cache-dir", tmp_path / "cli",
        "--head", "attention", "--epochs", "1", "--json",
    )  # fmt: skip
    assert cli.exit_code == 0, cli.output
    assert json.loads(cli.stdout)[0]["system"] == "attention"


def test_a_setting_of_a_further_head_reaches_every_command(cache, tmp_path, monkeypatch):
    monkeypatch.setitem(heads.KINDS, "attention", AttentionHead)
    there = ["--cache", str(cache.path), "--cache-dir", str(tmp_path), "--head", "attention"]
    options = [*there, "--temperature", "0.5,2", "--epochs", "1", "--no-baselines", "--json"]
    systems = {
        "train": lambda done: [run["settings"]["temperature"] for run in done],
        "cv": lambda done: [one["settings"]["temperature"] for one in done["systems"]],
        "curve": lambda done: [one["settings"]["temperature"] for one in done["systems"]],
    }
    more = {"train": [], "cv": ["--folds", "2"], "curve": ["--sizes", "20", "--seeds", "1"]}
    for command, temperatures in systems.items():
        assert "--temperature" in invoke(command, "--help").output
        done = invoke(command, *options, *more[command])
        assert done.exit_code == 0, done.output
        assert sorted(temperatures(json.loads(done.stdout))) == [0.5, 2.0], command
    said = invoke("train", *there, "--temperature", "0")
    assert "--temperature 0: give a number above 0" in said.output
    quiet = {"head": "attention", "epochs": 1, "baselines": False, "progress": False}
    found = spacelite.cross_validate(cache, folds=2, temperature=[0.5, 2.0], **quiet)
    assert len(found.result.systems) == 2
    found = spacelite.learning_curve(cache, sizes=20, seeds=1, temperature=[0.5, 2.0], **quiet)
    assert len(found.result.systems) == 2
    for function in (spacelite.cross_validate, spacelite.learning_curve):
        said = refusal(function, cache, head="linear", temperature=2.0, progress=False)
        assert said == (
            "temperature=2 has no effect on linear: only attention uses it; leave it out, or add a "
            "head that uses it"
        )
        assert "has no such argument" in refusal(function, cache, patience=3, progress=False)


@pytest.mark.parametrize("name", ["train", "cross_validate", "learning_curve"])
def test_arguments_are_the_settings_that_are_declared(name):
    parameters = inspect.signature(getattr(spacelite, name)).parameters
    declared = plan.declared()
    assert declared.keys() - set(plan.WITHOUT.get(name, ())) == declared.keys() & parameters.keys()
    for argument, field in declared.items():
        default = parameters[argument].default if argument in parameters else None
        assert default in (None, field.default, field.metadata["help_default"]), argument


def test_a_schedule(cache, bert, other, tmp_path, monkeypatch):
    """A warm-up: refused before it is in the table; its factors reach Adam."""
    factors, update = [], Adam.update

    def warmup(update, updates):
        first = 0.1 * updates
        return min((update + 1) / first, (updates - update) / (updates - first))

    def recording(self, parameters, gradients, number, factor, *rest):
        factors.append(factor)
        return update(self, parameters, gradients, number, factor, *rest)

    arguments = {"cache_dir": tmp_path / "train", "epochs": 4, "batch_size": 8, "progress": False}
    message = refusal(spacelite.train, cache, schedule="warmup", **arguments)
    assert message == "schedule=warmup: choose from constant, cosine"
    monkeypatch.setitem(SCHEDULES, "warmup", warmup)
    monkeypatch.setattr(Adam, "update", recording)
    (run,) = spacelite.train(cache, head="space", schedule="warmup", **arguments)
    assert run.record.training.schedule == "warmup"
    assert factors == [warmup(number, len(factors)) for number in range(len(factors))]
    assert factors[0] < factors[2] and factors[-1] < factors[-3] and max(factors) > 0.8
    runs, text = through_everything(cache, bert, other, tmp_path, head="space", schedule="warmup")
    assert len(runs) == 1 and "warmup schedule" in text


def test_a_metric(cache, bert, other, tmp_path, monkeypatch):
    def balanced_accuracy(outcome):
        return float(outcome.per_class.recall[outcome.actual > 0].mean())

    older = spacelite.train(cache, cache_dir=tmp_path / "older", progress=False, epochs=1)
    metric = Metric("Balanced accuracy", "Bal.", balanced_accuracy, best_marked=True, curve=True)
    monkeypatch.setitem(METRICS, "balanced_accuracy", metric)
    runs, text = through_everything(
        cache, bert, other, tmp_path, monitor="balanced_accuracy", patience=9
    )
    assert "Balanced accuracy" in text
    for run in runs:
        predictions = run.run.predictions()
        expected = balanced_accuracy_score(predictions.labels, predictions.predicted)
        assert run.metrics["test"]["balanced_accuracy"] == pytest.approx(expected, abs=1e-12)
        assert all("balanced_accuracy" in epoch["validation"] for epoch in run.run.history())
    values = [run.metrics["validation"]["balanced_accuracy"] for run in runs]
    assert runs.best("balanced_accuracy").metrics["validation"]["balanced_accuracy"] == max(values)
    # Runs that were saved before it existed have a dash in its column.
    both = spacelite.Runs([*older, *runs])
    assert "Balanced accuracy" in spacelite.report(both, examples=False, progress=False).text()
    assert spacelite.report(older, examples=False, progress=False).text("markdown").count("–") == 2


def test_a_known_data_set(bert, other, tmp_path, monkeypatch):
    def make():
        sizes = {"train": 40, "validation": 15, "test": 15}
        made = {}
        for seed, (name, size) in enumerate(sizes.items()):
            lines = texts(size, seed)
            made[name] = Split(lines, np.array([line.count("film") % 2 for line in lines]))
        return made

    entry = KnownDataset(label_names=("no film", "film"), make=make)
    monkeypatch.setitem(KNOWN, "films", entry)
    merged = KnownDataset(label_names=("any",) * 1, of="films", merged={"any": ("no film", "film")})
    monkeypatch.setitem(KNOWN, "films:1", merged)
    known = spacelite.embed(
        "films", backbone=str(bert), cache_dir=tmp_path / "known", device="cpu", progress=False
    )
    assert known.name.startswith("tiny-bert--films--")
    again = spacelite.embed(
        "films", backbone=str(bert), cache_dir=tmp_path / "known", device="cpu", progress=False
    )
    assert again.hit and again.path == known.path
    with known.open() as opened:
        assert opened.label_names == ["no film", "film"]
        assert len(opened.splits["train"]) == 40
    mapped = {"0": "film", "1": "no film"}
    runs, text = through_everything(known, bert, other, tmp_path)
    assert "films, tiny-bert" in text
    evaluation = runs[0].evaluate(str(other), labels=mapped, backbone=str(bert), progress=False)
    assert evaluation.record.labels == mapped


def test_a_section_of_the_report(cache, bert, other, tmp_path, monkeypatch):
    def sizes(findings, number):
        rows = findings.section.rows
        lines = [Line([Cell(row.system), Cell(f"{row.train_params:,}")]) for row in rows]
        return [
            Heading(2, f"Sizes in part {number}"),
            Table("Trained parameters", ["System", "Parameters"], lines),
        ]

    monkeypatch.setitem(SECTIONS, "sizes", sizes)
    (run,) = spacelite.train(
        cache, head="linear", epochs=1, progress=False, baselines=False, cache_dir=tmp_path
    )
    report = spacelite.report(run, examples=False, progress=False)
    for form in ("text", "markdown", "latex"):
        text = report.text(form)
        assert "Sizes in part 1" in text and f"{run.run.record.train_params:,}" in text
    page = report.save(tmp_path / "page.html").read_text()
    assert ">Sizes in part 1</h3>" in page and "Trained parameters" in page


def test_a_form_of_the_report(cache, bert, other, tmp_path, monkeypatch):
    def as_csv(findings):
        out = io.StringIO()
        writer = csv.writer(out)
        for block in report_blocks(findings):
            if isinstance(block, Table) and block.kind == "systems":
                writer.writerow(block.columns)
                writer.writerows([cell.text for cell in line.cells] for line in block.lines)
        return out.getvalue()

    monkeypatch.setitem(FORMS, "csv", Form("systems.csv", as_csv))
    runs, _ = through_everything(cache, bert, other, tmp_path)
    report = spacelite.report(runs, examples=False, progress=False)
    rows = list(csv.reader(io.StringIO(report.text("csv"))))
    assert rows[0][0] == "System" and rows[1][0] == "space"
    saved = report.save(tmp_path / "out", "csv")
    assert saved.name == "systems.csv" and list(csv.reader(saved.open())) == rows
    folder = str(tmp_path / "resumed")
    cli = invoke("report", "--format", "csv", "--cache-dir", folder)
    assert cli.exit_code == 0, cli.output
    assert "linear (first)" in cli.stdout
    assert "choose from terminal, markdown" in refusal_of_cli(["report", "--format", "pdf"])


def refusal_of_cli(arguments):
    done = invoke(*arguments)
    assert done.exit_code == 1
    return done.stderr


def test_what_is_unknown_is_refused_with_what_there_is(cache, tmp_path):
    said = refusal(spacelite.train, cache, head="attention", cache_dir=tmp_path, progress=False)
    assert said == f"head=attention: choose from {', '.join(heads.KINDS)}"
    said = refusal(spacelite.train, cache, pooling="rms", cache_dir=tmp_path, progress=False)
    assert said == "pooling=rms: choose from first, last, mean, max, pooler, layers"
    said = refusal(spacelite.train, cache, temperature=2.0, cache_dir=tmp_path, progress=False)
    assert said == "temperature: no head of space, linear has this setting"


def test_a_stored_number_type_of_half_a_byte(bert, reviews, other, tmp_path, monkeypatch):
    """A row has d / 2 + 2 values, not d and a constant."""
    options = {"backbone": str(bert), "cache_dir": tmp_path, "device": "cpu", "progress": False}
    exact = spacelite.embed(str(reviews), dtype="float32", **options)
    small = spacelite.embed(str(reviews), dtype="int4", **options)
    assert small.rounded.median > 0.02
    with exact.open() as one, small.open() as two:
        exact_split, split = one.splits["test"], two.splits["test"]
        values, rounded = exact_split.read_hidden(0, 20), split.read_hidden(0, 20)
        assert split.width == exact_split.width == 16
        assert split.read_examples(0, 1).shape == (split.lengths[0], 16 // 2 + 2)
        step = np.abs(values).max(axis=1, keepdims=True) / 8
        assert (np.abs(values - rounded) <= 1.04 * step).all() and (values != rounded).any()
    settings = {"head": ["space", "linear"], "pooling": "mean"}
    runs, report = through_everything(small, bert, other, tmp_path, **settings)
    assert "linear (mean)" in report
    encode = {"backbone": str(bert), "dtype": "int4", "cache_dir": str(tmp_path / "texts")}
    first = spacelite.FrozenEncoder(**encode).fit_transform(["a good film", "a bad film"])
    assert np.array_equal(
        spacelite.FrozenEncoder(**encode).fit_transform(["a good film"])[0], first[0]
    )
    monkeypatch.setattr(memory, "RESIDENT_SHARE", 0)  # streamed from the file
    streamed = spacelite.train(
        small, cache_dir=tmp_path / "streamed", epochs=EPOCHS, batch_size=16, learning_rate=0.05,
        progress=False, **settings,
    )  # fmt: skip
    for run, same in zip(streamed, runs, strict=True):
        assert np.allclose(saved_logits(run), saved_logits(same), atol=1e-4)


SHARED = 2.0**-12  # one step for all values


def to_steps(hidden):
    """Whole numbers of steps, and behind them a number that says nothing."""
    return torch.nn.functional.pad((hidden / SHARED).round().to(torch.int32), (0, 1), value=7)


def test_a_stored_number_type(bert, reviews, other, tmp_path, monkeypatch):
    """Rows that are not the hidden states themselves are decoded wherever they are read."""
    steps = StoredType(
        "int32", to_steps, extra=1,
        widen=lambda rows, into: into.copy_(rows[:, :-1]).mul_(SHARED),
        read=lambda rows, into: np.multiply(rows[..., :-1], np.float32(SHARED), out=into,
                                            casting="same_kind"),
    )  # fmt: skip
    monkeypatch.setitem(DTYPES, "steps", steps)
    options = {"backbone": str(bert), "cache_dir": tmp_path, "device": "cpu", "progress": False}
    exact = spacelite.embed(str(reviews), dtype="float32", **options)
    small = spacelite.embed(str(reviews), dtype="steps", **options)
    with exact.open() as one, small.open() as two:
        values, width = one.splits["train"].read_hidden(0, 50), one.splits["train"].width
        rounded = two.splits["train"].read_hidden(0, 50)
        assert (
            two.splits["train"].width == width
            and two.splits["train"].datasets["tokens"].dtype == np.int32
        )
        assert (np.abs(values - rounded) <= 0.51 * SHARED).all() and (values != rounded).any()
    runs, report = through_everything(
        small, bert, other, tmp_path, head=["space", "linear", "logreg"], pooling="mean"
    )
    reference = spacelite.train(
        exact, cache_dir=tmp_path / "exact", head=["space", "linear", "logreg"], pooling="mean",
        epochs=EPOCHS, batch_size=16, learning_rate=0.05, progress=False,
    )  # fmt: skip
    for run, same in zip(runs, reference, strict=True):
        assert np.abs(saved_logits(run) - saved_logits(same)).max() < 0.1
    assert "logreg (mean)" in report
    monkeypatch.setattr(memory, "RESIDENT_SHARE", 0)  # streamed from the file
    streamed = spacelite.train(
        small, cache_dir=tmp_path / "streamed", head="logreg", pooling="mean", progress=False
    )
    logreg = next(run for run in runs if run.record.head.kind == "logreg")
    assert np.allclose(saved_logits(streamed[0]), saved_logits(logreg), atol=1e-4)


class Number(Task):
    """Regression: a text has one number, which is the only logit; half of the squared error."""

    name = "number"
    phrase = "a number per text"
    label_dimensions = 1
    label_type = "float64"
    fewest_present = 1
    beyond = ""

    def label_counts(self, labels, classes):
        return np.array([len(labels)])

    def strata(self, labels):
        return np.zeros(len(labels), np.int64)

    def check(self, labels, classes):
        return np.isfinite(labels).all()

    def label_names(self, label, names):
        return [f"{label:.3f}"]

    def as_json(self, names):
        return {"number": float(names[0]) if names else None}

    def targets(self, labels, classes, dtype):
        return labels[:, None].to(dtype)

    def balanced_weights(self, labels, classes, weights=None):
        return torch.ones(1)

    def weights(self, labels, targets, class_weights):
        return torch.ones_like(targets)

    def loss_terms(self, logits, labels, targets):
        return (logits - targets) ** 2 / 2

    def residuals(self, logits, targets):
        return logits - targets

    def count(self, logits, labels, targets, shares=None):
        weights = torch.ones_like(logits[:, :, 0]) if shares is None else shares
        near = (logits[:, :, 0].round() == labels.round()).to(weights)
        confusion = weights.sum(dim=1)[:, None, None]
        return (near * weights).sum(dim=1).cpu(), confusion.cpu()

    def confusion_shape(self, classes):
        return 1, 1

    def probabilities(self, logits):
        return np.asarray(logits, np.float64)

    def decide(self, logits, thresholds=None):
        return np.asarray(logits, np.float64)[..., 0]

    def decide_from_probabilities(self, probabilities, thresholds=None):
        return probabilities[..., 0]

    def threshold_labels(self, names):
        return []

    def best_thresholds(self, probabilities, labels, metric):
        raise NotImplementedError

    def correct(self, predicted, labels):
        return np.round(predicted) == np.round(labels)

    def confidence(self, probabilities, predicted):
        return np.ones(len(predicted))

    def decisions(self, probabilities, predicted, labels):
        return np.ones(len(labels)), self.correct(predicted, labels)

    def confusion(self, labels, predicted, classes):
        return np.array([[len(labels)]])

    def indicators(self, labels, classes):
        return np.ones((len(labels), 1))

    def in_macro(self, occurs):
        return np.ones_like(occurs)

    def centred(self, shares):
        return shares

    def average(self, classes):
        return "weighted"

    def class_counts(self, confusion):
        return confusion[0], confusion[0], confusion[0]

    def problems(self, labels, classes):
        raise NotImplementedError

    def map_labels(self, labels, numbers, classes):
        return labels

    def match(self, there, here, mapping):
        return np.zeros(1, np.int64)


def test_a_task(bert, tmp_path, monkeypatch):
    """The data set names its task; caches and runs record it, and heads learn its loss."""

    def make():
        made = {}
        for seed, (name, size) in enumerate({"train": 200, "validation": 40, "test": 40}.items()):
            lines = texts(size, seed)
            parts = [line.split() for line in lines]
            made[name] = Split(lines, np.array([8 * p.count("film") / len(p) for p in parts]))
        return made

    def squared_error(outcome):
        if outcome.labels is None or outcome.probabilities is None:
            return None
        return float(np.mean((outcome.probabilities[:, 0] - outcome.labels) ** 2))

    films = KnownDataset(label_names=("films",), make=make, task="number")
    monkeypatch.setitem(TASKS, "number", Number())
    monkeypatch.setitem(KNOWN, "counted", films)
    monkeypatch.setitem(
        METRICS,
        "squared_error",
        Metric("Sq. error", "Sq.", squared_error, higher_is_better=False, most=np.inf),
    )
    cache = spacelite.embed(
        "counted", backbone=str(bert), cache_dir=tmp_path, device="cpu", dtype="float32",
        progress=False,
    )  # fmt: skip
    with cache.open() as opened:
        assert opened.task is TASKS["number"] and opened.spec.as_json()["task"] == "number"
        labels = opened.splits["test"].labels
        assert labels.dtype == np.float64 and (labels % 1 > 0).any()
    run = spacelite.train(
        cache, head="linear", pooling="mean", epochs=60, batch_size=20, learning_rate=0.05,
        weight_decay=0.0, baselines=False, monitor="squared_error", patience=60, progress=False,
    )[0]  # fmt: skip
    run = spacelite.load_run(run.id, tmp_path)
    assert run.record.task is TASKS["number"]
    predictions = run.run.predictions()
    error = float(np.mean((predictions.logits[:, 0] - predictions.labels) ** 2))
    assert run.metrics["test"]["squared_error"] == pytest.approx(error)
    assert run.metrics["test"]["ce"] == pytest.approx(error / 2)
    assert error < 0.8 * labels.var()
    history = run.run.history()
    assert history[-1]["train"]["ce"] < 0.5 * history[0]["train"]["ce"]
    given = texts(40, 2)
    new = run.predict(given, backbone=str(bert), progress=False)
    assert new.probabilities[:, 0] == pytest.approx(predictions.logits[:, 0], abs=1e-4)
    assert new[0]["number"] == pytest.approx(new.probabilities[0, 0], abs=1e-3)


HEAD = """
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import typer.testing

from spacelite import heads
from spacelite.heads import TokenHead, TrainedHeadConfig
from spacelite.settings import positive, setting


@dataclass(frozen=True, kw_only=True)
class FirstConfig(TrainedHeadConfig):
    kind: ClassVar[str] = "imported"
    scale: float = setting(1.0, check=positive, words="scale {:g}")


class FirstHead(TokenHead):
    config_type = FirstConfig

    @classmethod
    def shapes(cls, config, classes, width):
        return {"classifier.weight": (classes, width), "classifier.bias": (classes,)}

    def forward(self, parameters, hidden, group):
        first = torch.stack([part[0] for part in hidden.split(group.lengths.tolist())])
        weight, bias = parameters["classifier.weight"], parameters["classifier.bias"]
        return torch.baddbmm(bias[:, None], first.expand(len(weight), -1, -1), weight.mT)


heads.KINDS["imported"] = FirstHead
"""


def test_the_command_line_imports_a_file_on_request(cache, tmp_path, monkeypatch):
    # The options of a command depend on what the same call imports.
    monkeypatch.setattr(typer.testing, "_get_command", typer.main.get_command)
    file = tmp_path / "my_head.py"
    file.write_text(HEAD)
    there = ["--cache-dir", tmp_path / "cache"]
    train = ["train", "--cache", cache.path, "--head", "imported", "--epochs", 1, "--json"]

    def command(*arguments):
        return invoke(*arguments, *there)

    assert "choose from space, linear" in command(*train).stderr, "nothing is imported unasked"
    try:
        trained = command("--import", file, *train, "--scale", 2)
        assert trained.exit_code == 0, trained.output
        (run,) = json.loads(trained.stdout)
        assert run["head"] == "imported" and run["settings"]["scale"] == 2
    finally:
        heads.KINDS.pop("imported", None)
    unknown = command("runs", "list")
    assert "('imported')" in unknown.stderr and "spacelite --import FILE" in unknown.stderr
    try:
        listed = command("--import", file, "runs", "list")
        assert run["id"].rpartition("--")[2] in listed.stdout and not listed.stderr
    finally:
        heads.KINDS.pop("imported", None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such Python file"),
        ("x = = 1", "SyntaxError: invalid syntax"),
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line(content, said, tmp_path):
    file = tmp_path / "my_head.py"
    if content is not None:
        file.write_text(content)
    result = invoke("--import", file, "runs", "list")
    assert result.exit_code == 1 and result.stderr.startswith(f"error: --import {file}: {said}")
    assert result.stderr.count("\n") == 1
    after = invoke("runs", "list", "--import", file)
    assert after.exit_code == 2 and "--import stands before the command" in after.stderr
