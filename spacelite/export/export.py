"""spacelite export: a run in another form, which is there once it gave what `predict` gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from spacelite import files
from spacelite.cache import texts
from spacelite.cache.store import Cache
from spacelite.data.splits import joined
from spacelite.document import with_sign
from spacelite.errors import SpaceliteError
from spacelite.export.card import CARD, RoundedRun, cross_entropies, model_card
from spacelite.export.form import TOLERANCE, Form, Source, largest
from spacelite.export.onnx import OnnxForm
from spacelite.export.safetensors import SafetensorsForm
from spacelite.export.sentence_transformers import SentenceTransformersForm
from spacelite.export.transformers import TransformersForm
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.scores import METRICS, Scores
from spacelite.metrics.significance import Difference, resampled_mean
from spacelite.progress import OnProgress
from spacelite.runs.store import EXPORTED, PREDICTIONS, Run, find_cache, version
from spacelite.settings import one_of, optional, require
from spacelite.tasks import SINGLE_LABEL
from spacelite.types import Array

FORMS: dict[str, Form] = {
    "onnx": OnnxForm(),
    "sentence-transformers": SentenceTransformersForm(),
    "transformers": TransformersForm(),
    "safetensors": SafetensorsForm(),
}

FORMAT = 1  # of verified.json
COMPARED = 200  # texts
SPLITS = ("test", "validation")  # whose texts are compared: those of the first that is there
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Cost:
    """What rounded weights cost on N examples of a split."""

    split: str
    examples: int
    before: dict[str, float]  # metrics of `predict`
    after: dict[str, float]
    differences: dict[str, Difference]  # after minus before, with 95% intervals

    def __str__(self) -> str:
        """The metrics before and after, a line for each."""
        lines = [
            f"{METRICS[name].in_words}: {self.before[name]:.4f} -> {self.after[name]:.4f} "
            f"(difference {with_sign(difference.value, 4)}, 95% interval "
            f"{' to '.join(with_sign(end, 4) for end in difference.interval)})"
            for name, difference in self.differences.items()
        ]
        return "\n".join([f"cost on {self.examples:,} examples of {self.split}:", *lines])


@dataclass(frozen=True)
class Exported:
    """A run in another form, on disk.

    Attributes:
        path: Its folder.
        form: One of FORMS.
        files: Bytes by name.
        difference: The largest between a probability by the form and by `predict`.
        texts: The number of texts that were compared, of `split`.
        decisions: How many of them the form decides otherwise: ties, but with `quantize`.
        notes: What to know of it, in sentences.
        cost: What rounded weights cost; None without `quantize`.
    """

    path: Path
    form: str
    files: dict[str, int]
    difference: float
    texts: int
    split: str
    decisions: int
    notes: tuple[str, ...]
    cost: Cost | None = None

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(self.files.values())

    @property
    def comparison(self) -> str:
        """What was compared, in words; for a copy of the head, that nothing was."""
        if not self.texts:
            return "the run's own head, bit for bit"
        return (
            f"compared with predict on {self.texts:,} texts of {self.split}: probabilities differ "
            f"by at most {self.difference:.1e}"
        )

    @property
    def measured(self) -> str:
        """What was compared, with the cost of rounded weights, in one line."""
        if self.cost is None:
            return self.comparison
        _, *differences = str(self.cost).splitlines()
        return (
            f"{self.comparison}. On the {self.cost.examples:,} examples of {self.cost.split}, "
            f"rounding the weights changed {'; '.join(differences)}"
        )

    def as_json(self) -> dict[str, Any]:
        """What `export --json` prints."""
        return {**asdict(self), "path": str(self.path), "bytes": self.bytes}

    def __str__(self) -> str:
        """What was written, and how near it is to `predict`."""
        size = files.human_bytes(self.bytes)
        lines = [f"{self.path}: {self.form}, {len(self.files)} files, {size}"]
        lines.append(self.comparison)
        if self.decisions:
            are = "is" if self.decisions == 1 else "are"
            lines.append(f"{self.decisions} of them {are} decided otherwise")
        return "\n".join([*lines, *self.notes, *([] if self.cost is None else [str(self.cost)])])


def export(
    run: Run,
    to: str,
    out: Path,
    *,
    cache_dir: Path | None = None,
    quantize: str | None = None,
    backbone: str | None = None,
    known_backbone: str | None = None,
    repository: str | None = None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Exported:
    """Write a run in a form of FORMS to a new folder `out`, once it has the probabilities that
    `predict` gives; with `quantize`, which costs accuracy, once it was measured how much. The model
    card shows how it is used from there, or from a `repository` of the hub. `known_backbone` is
    the folder of the backbone if no other was given.

    Raises SpaceliteError if there is no such form, the run is damaged or cannot take it, a package
    or the run's backbone or texts are missing, `out` exists or cannot be written, or probabilities
    differ.
    """
    require("to", to, one_of(*FORMS))
    form = FORMS[to]
    if quantize is not None and not form.quantizations:
        raise SpaceliteError(f"quantize={quantize} has no effect on to={to}", ["quantize", "to"])
    require("quantize", quantize, optional(one_of(*form.quantizations)))
    if backbone is not None and form.is_copy:
        raise SpaceliteError(
            f"backbone={backbone} has no effect on to={to}, which does not read the backbone: "
            "leave it out",
            ["backbone", "to"],
        )
    run.require()
    if quantize is not None and run.head.reads_only_ids:
        raise SpaceliteError(
            f"quantize={quantize} has no effect on run {run.id}: its head reads token ids alone, "
            "and has no backbone whose weights could be rounded",
            ["quantize"],
        )
    if not run.record.task.has_probabilities:
        raise SpaceliteError(
            f"run {run.id} predicts numbers, which no export does: use predict or serve"
        )
    if run.record.spec.pairs and not form.is_copy:
        raise SpaceliteError(
            f"run {run.id} reads pairs of texts, and to={to} single ones: give to=safetensors",
            ["to"],
        )
    reason = form.refusal(run)
    if reason is not None:
        raise SpaceliteError(f"run {run.id} cannot be exported to={to}: {reason}", ["to"])
    form.require(run)
    if out.exists() or out.is_symlink():
        raise SpaceliteError(f"{out} exists: give another folder, or delete it", ["out"])
    if problems := run.problems():
        raise SpaceliteError(problems[0])
    runs = cache_dir or run.folder.parent.parent
    real = None if form.is_copy else RealTexts.of(run, runs)
    some = [] if real is None else real.some()
    source = Source(run, backbone or known_backbone, some, on_progress)
    if real is not None:
        _ = source.expected  # before anything is written
    with files.writing(out, "; choose another folder"), files.atomic_folder(out) as folder:
        on_progress("export", 0, 2)
        notes = [*form.write(source, folder), *missing_notes(run, quantize)]
        exported, rounded = Exported(out, to, {}, 0.0, 0, "", 0, tuple(notes)), None
        if real is not None:
            on_progress("export", 1, 2)
            exported = compared(exported, form, source, real, folder)
        if real is not None and quantize is not None:
            form.quantize(folder, quantize)
            exported, rounded = with_cost(exported, form, source, real, folder)
        on_progress("export", 2, 2)
        use = form.use(run, repository or out.name, folder)
        card = model_card(run, form, exported.measured, use, runs, rounded)
        (folder / CARD).write_text(card, "utf-8")
        write_verified(folder / EXPORTED, exported, run, quantize)
        sizes = {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    exported.files.update(sizes)
    return exported


def compared(
    exported: Exported, form: Form, source: Source, real: RealTexts, folder: Path
) -> Exported:
    """An export with what the files of its folder give beside what `predict` gives. Raises
    SpaceliteError if probabilities differ."""
    run, given = source.run, form.probabilities(source, folder, source.texts)
    difference = largest(given, source.expected)
    if not difference <= TOLERANCE:
        raise SpaceliteError(
            f"run {run.id} cannot be exported to={form.name}: its probabilities differ from those "
            f"of predict by up to {difference:.1e} on {len(source.texts)} texts of {real.split}: "
            f"{form.inexact(run) or 'choose another form'}",
            ["to"],
        )
    return replace(
        exported,
        difference=difference,
        texts=len(source.texts),
        split=real.split,
        decisions=changed(run, given, source.expected),
        notes=(*real.notes, *precision_notes(source), *exported.notes),
    )


def with_cost(
    exported: Exported, form: Form, source: Source, real: RealTexts, folder: Path
) -> tuple[Exported, RoundedRun]:
    """An export whose weights were rounded since, with what that costs, and the run as it is
    then."""
    run, given = source.run, form.probabilities(source, folder, source.texts)
    cost, predictions = measured(real, source, form, folder)
    exported = replace(
        exported,
        difference=largest(given, source.expected),
        decisions=changed(run, given, source.expected),
        cost=cost,
    )
    return exported, RoundedRun.of(run, real.split, predictions, all_scores(predictions))


def missing_notes(run: Run, quantize: str | None) -> list[str]:
    """That the card lacks what is computed from predictions, if they were not saved; those of
    rounded weights are at hand."""
    if quantize is not None or run.predictions() is not None:
        return []
    return [
        f"run {run.id} has no {PREDICTIONS}, as an older version saved it: its card has no "
        "intervals and no figures by label"
    ]


def precision_notes(source: Source) -> list[str]:
    """In which number type the backbone computes, if that of the run's data is another."""
    precision = source.run.record.spec.precision
    if precision == "float32" or not source.has_backbone:
        return []
    return [
        f"the run's data were embedded in {precision}; the form computes in float32, and was "
        "compared with predict in float32"
    ]


@dataclass(frozen=True)
class RealTexts:
    """The texts of a split of a run's own data."""

    split: str
    written: texts.CachedTexts
    labels: Array
    notes: list[str]

    @classmethod
    def of(cls, run: Run, cache_dir: Path) -> RealTexts:
        """Those of the test split, or of validation if there are none. Raises SpaceliteError if
        there is no text of either."""
        with Cache(find_cache(run, cache_dir)) as cache:
            for split in SPLITS:
                written = texts.read(cache, split) if split in cache.splits else None
                if written is None or not len(cache.splits[split]):
                    continue
                labels = np.asarray(cache.splits[split].labels)
                note = f"there are no texts of test: those of {split} were compared"
                return cls(split, written, labels, [note] if split != SPLITS[0] else [])
            raise SpaceliteError(
                f"cache {cache.name} has no texts of {' or '.join(SPLITS)} that an export could be "
                "compared with predict on: run its embed command again, which writes them"
            )

    def some(self, most: int | None = COMPARED) -> list[str]:
        """At most so many of them, evenly spread; all by None."""
        count = len(self.labels) if most is None else min(most, len(self.labels))
        rows = np.linspace(0, len(self.labels) - 1, count).round().astype(int)
        return [joined(self.written.text(row)) for row in rows.tolist()]


def changed(run: Run, given: Array, expected: Array) -> int:
    """How many texts are decided otherwise."""
    record = run.record
    ours, theirs = (
        record.task.given(values, record.label_names, None, record.decision_thresholds)
        for values in (given, expected)
    )
    return sum(one != other for one, other in zip(ours, theirs, strict=True))


def measured(real: RealTexts, source: Source, form: Form, folder: Path) -> tuple[Cost, Predictions]:
    """What the files of a folder cost on a whole split, compared with `predict`, and what they
    predict there."""
    whole = real.some(most=None)
    predicted = source.predictor.predict(whole, source.on_progress).probabilities
    given = form.probabilities(source, folder, whole)
    ours, theirs = (
        predictions_of(values, real.labels, source.run) for values in (given, predicted)
    )
    each = cross_entropies(ours) - cross_entropies(theirs)
    differences = {
        "accuracy": ours.task.compare(ours, theirs).difference,
        "f1_macro": ours.task.second_difference(ours, theirs),
        "ce": Difference(float(each.mean()), resampled_mean(each)),
    }
    before, after = (
        {name: float(of[name] or 0.0) for name in differences}
        for of in map(all_scores, (theirs, ours))
    )
    return Cost(real.split, len(real.labels), before, after, differences), ours


def predictions_of(probabilities: Array, labels: Array, run: Run) -> Predictions:
    """Predictions that have these probabilities, (N, C)."""
    task = run.record.task
    chances = np.clip(probabilities, 1e-15, 1 - 1e-15)
    logits = np.log(chances)
    if task is not SINGLE_LABEL:
        logits -= np.log1p(-chances)
    rows = np.arange(len(labels))
    limits = run.record.decision_thresholds
    return Predictions(rows, labels, logits, task, thresholds=limits)


def all_scores(predictions: Predictions) -> Scores:
    """Every metric of predictions but the loss, which has the head's penalties."""
    from spacelite.training import engine

    every = engine.metrics_of(predictions)
    return {name: value for name, value in every.items() if name != "loss"}


def write_verified(path: Path, exported: Exported, run: Run, quantize: str | None) -> None:
    """Write how near an export is to `predict`. Raises OSError."""
    content = {
        "format": FORMAT,
        "form": exported.form,
        "run": run.id,
        "split": exported.split,
        "texts": exported.texts,
        "largest_difference": exported.difference,
        "tolerance": None if quantize else TOLERANCE,
        "decided_otherwise": exported.decisions,
        "quantize": quantize,
        "cost": None if exported.cost is None else files.finite(asdict(exported.cost)),
        "versions": {name: version(name) for name in ("spacelite", *LIBRARIES)},
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    files.write_json(path, content)
