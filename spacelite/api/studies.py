"""Studies as Python users call them, with the options of the command line: cross-validation, the
learning curve, the audit of labels, the sweep of what a probe reads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacelite import files, heads
from spacelite.api import columns
from spacelite.api.arguments import CHOICE, NAMES, checked
from spacelite.api.embedding import dataset_of
from spacelite.api.results import CACHE, EmbeddedDataset, meant_by
from spacelite.data import writers
from spacelite.document import Bullets, Chart, Table
from spacelite.errors import SpaceliteError
from spacelite.heads.config import HeadConfig, TrainedHeadConfig
from spacelite.lazy import pandas as pd
from spacelite.progress import Progress, reporting
from spacelite.reports.render import forms, markup, plots
from spacelite.settings import choose_from
from spacelite.studies import answers, cross_validation, probing
from spacelite.studies import audit as audits
from spacelite.studies import learning_curve as curves
from spacelite.studies.audit import Audit, Finding
from spacelite.studies.cross_validation import CrossValidation
from spacelite.studies.learning_curve import Curve
from spacelite.studies.probing import LAYERS, POOLING, Probe, Sweep
from spacelite.tasks import scored_by
from spacelite.training import plan
from spacelite.training.config import TrainingConfig
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.cache.store import Cache

log = logging.getLogger(__name__)

CSV = (".csv",)  # what studies are saved as


@dataclass(frozen=True, eq=False, repr=False)
class _Study:
    """How the result of a study is shown and saved."""

    result: Any
    cache: EmbeddedDataset

    def _csv_rows(self) -> list[Sequence[Any]]:
        rows: list[Sequence[Any]] = self.result.csv_rows()
        return rows

    @checked()
    def save(self, path: str | Path) -> Path:
        """Write everything to a file, whose name ends in .csv: of a learning curve a row for each
        system, size and seed, of an audit one for each finding, of a sweep one for each probe, of a
        cross-validation one for each training example.

        The rows of a cross-validation hold the predictions by the heads that did not see the
        example: `index`, `file`, `row` and its `label` (`labels` with semicolons between them in
        multi-label data). For each repeat there follow the example's `fold` and, of each head,
        `<head> predicted` and `<head> probability_<label>` of every label; with several repeats,
        `(repeat 2)` follows `fold` and the head's name.

        Returns:
            The file.

        Raises:
            SpaceliteError: The file cannot be written, or the cache is gone.
        """
        writers.check(Path(path), suffixes=CSV)
        with files.writing(Path(path)):
            files.write_bytes(Path(path), writers.csv_lines(self._csv_rows()).encode())
        return Path(path)

    def to_frame(self) -> pd.DataFrame:
        """A DataFrame of the rows that `save` writes. Where they are of examples, `row` is that of
        the data that were embedded, counted from 1 (`df.iloc[frame["row"] - 1]`), and labels are
        numbers or booleans where those of `predictions.to_frame()` are."""
        headings, *rows = self._csv_rows()
        frame = pd.DataFrame(rows, columns=list(headings))
        meant = meant_by(self._label_names())
        for name in headings:
            if name == "row":
                frame[name] = pd.array(frame[name].tolist(), "Int64")
            elif name == "labels" or ("labels" in headings and name.endswith(" predicted")):
                frame[name] = [[meant[label] for label in given] for given in frame[name]]
            elif name in ("label", "suggested") or name.endswith(" predicted"):
                one = (of if isinstance(of, str) else of[0] for of in frame[name])
                frame[name] = [meant[label] for label in one]
        return frame

    def _label_names(self) -> Sequence[str]:
        return ()

    def as_json(self) -> dict[str, Any]:
        """The figures as the command prints them with `--json`."""
        return {"cache": self.cache.name, **self.result.as_json(), "sentences": self.sentences}

    def tables(self) -> list[Table]:
        """The tables as they are printed."""
        tables: list[Table] = self.result.tables()
        return tables

    def chart(self) -> Chart | None:
        """What is drawn, if anything."""
        chart: Chart | None = self.result.chart()
        return chart

    @property
    def sentences(self) -> list[str]:
        """What was found, and how."""
        sentences: list[str] = self.result.sentences
        return sentences

    def __str__(self) -> str:
        chart = self.chart()
        drawn = [] if chart is None else [plots.in_characters(chart)]
        tables = map(markup.Plain().columns, self.tables())
        return "\n\n".join([*tables, *drawn, "\n".join(self.sentences)])

    def _repr_html_(self) -> str:
        chart, rest = self.chart(), markup.fragment([*self.tables(), Bullets(self.sentences)])
        if chart is None:
            return rest
        drawn = plots.learning_curve(chart, "svg").decode()
        return f"{drawn[drawn.index('<svg') :]}{rest}"


class _Comparison(_Study):
    """The same for a study that compares heads."""

    def table(self) -> Table:
        """The table as it is printed."""
        table: Table = self.result.table()
        return table

    def figures(self, metric: str | None = None) -> dict[str, Array]:
        """A metric of each head, by default accuracy or the RMSE, the best head first: on each
        held-out fold of a cross-validation, (repeats, folds); on validation, (sizes, seeds), of a
        learning curve."""
        systems = self.result.named
        figures = next(iter(systems.values())).figures
        task = scored_by(figures)
        metric = task.metric(metric, task.headline, among=figures)
        return {name: system.figures[metric] for name, system in systems.items()}


class CrossValidated(_Comparison):
    """What a cross-validation found.

    Attributes:
        result: The folds, and each head's logits and figures on the examples that it did not see.
        cache: The cache.
    """

    result: CrossValidation

    def probabilities(self) -> dict[str, Array]:
        """Each head's probabilities for the training examples, by the heads that did not see them,
        (repeats, N, C)."""
        with self.cache.open() as cache:
            task = cache.task
        return {
            name: task.probabilities(system.logits) for name, system in self.result.named.items()
        }

    def _csv_rows(self) -> list[Sequence[Any]]:
        with self.cache.open() as cache:
            return self.result.csv_rows(cache)

    def _label_names(self) -> Sequence[str]:
        with self.cache.open() as cache:
            return cache.label_names

    def __repr__(self) -> str:
        result = self.result
        times = "" if result.repeats == 1 else f", {result.repeats} times"
        return f"<cross-validation of {len(result.systems)} systems on {result.folds} folds{times}>"


@checked(cache=CACHE)
def cross_validate(
    cache: EmbeddedDataset | str | Path | None = None,
    *,
    folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    groups: Sequence[Any] | str | None = None,
    sample_weight: Sequence[float] | str | None = None,
    preset: str | None = None,
    head: str | Sequence[str] = ("space", "linear"),
    inter: float | Sequence[float] = 0.0,
    intra: float | Sequence[float] = 0.0,
    scaling: str | Sequence[str] = "none",
    latent: int | Sequence[int] | None = None,
    learning_rate: float | str | Sequence[float | str] | None = None,
    weight_decay: float | Sequence[float] | None = None,
    pooling: str | Sequence[str] | None = None,
    C: float | str | Sequence[float | str] = "auto",  # noqa: N803 - as in scikit-learn
    blocks: str | Sequence[str] | None = None,
    max_ngram: int | Sequence[int] | None = None,
    ensemble: int | Sequence[int] = 1,
    seeds: int | Sequence[int] = 1,
    epochs: int | str = 15,
    batch_size: int | str = 256,
    data_seed: int = 0,
    schedule: str = "constant",
    clip_norm: float | None = None,
    loss: str | None = None,
    class_weights: str = "none",
    baselines: bool = True,
    device: str = "auto",
    cache_dir: str | Path | None = None,
    progress: Progress = True,
    **settings: Any,
) -> CrossValidated:
    """Cross-validate heads on the train split of a cache: each is trained on all folds but one and
    evaluated on that one, all heads of all folds in one pass over the tokens per epoch.

    No run is saved; validation and test are not read. Reports of the cache show the last result.

    Args:
        cache: What `embed` returned, or a cache's name or path. Default: the one embedded last.
        folds: Number of folds, stratified by label.
        repeats: How many times to divide the examples into folds.
        seed: Seed of the division into folds.
        groups: The group of each training example: those of a group are in one fold. A list or the
            name of a column, as `sample_weight`.
        sample_weight: The weight of each training example in the losses, a list or the name of a
            column, as in `train`. Figures on held-out folds count each example once.
        preset: Settings that are recommended together, as in `train`, but for early stopping.
        head: Kind(s) of heads, as in `train`.
        inter: Weight(s) of the inter-space loss.
        intra: Weight(s) of the intra-space loss.
        scaling: Scaling(s) of the hidden states that space heads read, as in `train`.
        latent: Number(s) of dimensions of a concept space, or of units of the block `attention`.
            Default: 3.
        learning_rate: Learning rate(s) of Adam; "auto" means 0.001. Default: 2e-4.
        weight_decay: Weight decay(s), Adam's L2 penalty. Default: 0.01.
        pooling: Pooling(s) of the baselines. Default: the classification token.
        C: Strength(s) of the L2 penalty of logreg and tfidf; "auto" chooses it by cross-validation
            on the examples that a head sees.
        blocks: What additive heads add up, joined by +. Default: `layers+ngrams`.
        max_ngram: Tokens of the longest n-grams of the block `ngrams`, 2 or 3. Default: 2.
        ensemble: Member(s) of a head that reads every token, as in `train`.
        seeds: Number K of seeds of the heads, which are 0 to K-1; or the seeds themselves.
        epochs: Number of passes over the training split, or "auto", as in `train`.
        batch_size: Examples per update, or "auto", as in `train`.
        data_seed: Seed of the order of the examples.
        schedule: Schedule of the learning rate: `constant` or `cosine`.
        clip_norm: Maximum norm of a head's gradient; None for no clipping.
        loss: Loss of labels that are numbers: `squared` (default) or `huber`, which counts errors
            beyond a standard deviation of the training labels linearly.
        class_weights: `none`, or `balanced`: every class has the same total weight in the loss, by
            the examples that a head sees.
        baselines: Whether `tfidf` and `logreg` on the mean are fitted on the same folds.
        device: `auto`, `cpu`, `cuda`, ...
        cache_dir: Folder of caches and runs. Default: that of the cache.
        progress: True for bars, False for none, or a function called with (phase, done, total).
        settings: Settings of other kinds of heads, by name.

    Returns:
        The figures, which print themselves as a table.

    Raises:
        SpaceliteError: The cache or the settings cannot be used, or there are too few examples of a
            label, or groups, for so many folds.
    """
    arguments = dict(locals())
    from spacelite.backbones.model import resolve_device

    asked = plan.requested(cross_validate, arguments)
    for name in ("patience", "monitor"):  # there is no validation split to stop early by
        asked.pop(name, None)
    cache = dataset_of(cache, cache_dir)
    with cache.open() as opened, reporting(progress) as on_progress:
        opened.require_training()
        weights = columns.weights(opened, sample_weight)
        asked["sample_weight"] = weights.name
        planned = plan.plan(asked, opened, arguments=arguments)
        if planned.chosen:
            log.info("auto: %s", planned.sentence)
        configs = planned.configs
        beside = plan.baselines(opened) if baselines else []
        configs += [config for config in beside if config not in configs]
        result = cross_validation.cross_validate(
            opened,
            configs,
            planned.training,
            folds=folds,
            repeats=repeats,
            seed=seed,
            groups=columns.groups(opened, groups),
            weights=weights.values,
            device=resolve_device(device),
            on_progress=on_progress,
        )
        answers.keep(cache.cache_dir, opened, "cv", result.as_json())
        examples = len(opened.splits["train"])
    _warn_of_few_updates(examples * (folds - 1) // folds, planned.training, configs)
    return CrossValidated(result, cache)


def _warn_of_few_updates(
    examples: int, training: TrainingConfig, configs: Sequence[HeadConfig]
) -> None:
    """Log, as `train` does, that so many training examples gave heads too few updates."""
    # On top of others, few are enough.
    trained = [
        (config.learning_rate, ())
        for config in configs
        if isinstance(config, TrainedHeadConfig) and config.is_iterative and config.start is None
    ]
    few = plan.after_training(examples, training, trained)
    if few is not None:
        log.warning("with %s training examples, %s", f"{examples:,}", few)


# What stands for a setting that neither the caller nor a preset gives.
DEFAULTS: dict[str, Any] = {
    "head": "additive",
    "learning_rate": "auto",
    "epochs": "auto",
    "batch_size": "auto",
}


class LearningCurve(_Comparison):
    """How good heads are by number of training examples, and what more labels would be worth.

    Attributes:
        result: The figures, and what is extrapolated from them.
        cache: The cache.
    """

    result: Curve

    @property
    def sizes(self) -> list[int]:
        """The numbers of training examples, in ascending order."""
        return self.result.sizes

    @checked()
    def save_plot(self, path: str | Path) -> Path:
        """Draw the curve into an .svg, .png or .html file, which is returned. Raises SpaceliteError
        if it cannot be written."""
        forms.save_drawing(self.result, Path(path))
        return Path(path)

    def __repr__(self) -> str:
        sizes = f"{self.sizes[0]:,} to {self.sizes[-1]:,}"
        return f"<learning curve of {len(self.result.systems)} systems, {sizes} examples>"


@checked(cache=CACHE)
def learning_curve(
    cache: EmbeddedDataset | str | Path | None = None,
    *,
    sizes: int | str | Sequence[int | str] | None = None,
    seeds: int | Sequence[int] = 5,
    metric: str | None = None,
    preset: str | None = None,
    head: str | Sequence[str] | None = None,
    inter: float | Sequence[float] = 0.0,
    intra: float | Sequence[float] = 0.0,
    scaling: str | Sequence[str] = "none",
    latent: int | Sequence[int] | None = None,
    learning_rate: float | str | Sequence[float | str] | None = None,
    weight_decay: float | Sequence[float] | None = None,
    pooling: str | Sequence[str] | None = None,
    C: float | str | Sequence[float | str] = "auto",  # noqa: N803 - as in scikit-learn
    blocks: str | Sequence[str] | None = None,
    max_ngram: int | Sequence[int] | None = None,
    epochs: int | str | None = None,
    batch_size: int | str | None = None,
    data_seed: int = 0,
    schedule: str | None = None,
    clip_norm: float | None = None,
    loss: str | None = None,
    baselines: bool = True,
    device: str = "auto",
    cache_dir: str | Path | None = None,
    progress: Progress = True,
    **settings: Any,
) -> LearningCurve:
    """Train heads on subsets of the train split and evaluate them on validation: how good they are
    by number of training examples, and what twice as many would be worth.

    Subsets are stratified by label; those of a seed are each a part of the next. Figures are
    extrapolated by the power law error(n) = a + b n^-c (Cortes et al. 1993), whose 95% interval is
    that of a parametric bootstrap. No run is saved; test is not read.

    Args:
        cache: What `embed` returned, or a cache's name or path. Default: the one embedded last.
        sizes: Numbers of training examples; "all" means all of them. Default: 16, 64, 256, ... and
            all.
        seeds: Number S of seeds, which are 0 to S-1; or the seeds themselves. Each draws subsets,
            and is the seed of the heads that are trained on them.
        metric: The metric that is shown and extrapolated, such as `f1_macro`. Default: accuracy; of
            numbers, the RMSE.
        preset: Settings that are recommended together, as in `train`.
        head: Kind(s) of heads, as in `train`. Default: `additive`.
        inter: Weight(s) of the inter-space loss.
        intra: Weight(s) of the intra-space loss.
        scaling: Scaling(s) of the hidden states that space heads read, as in `train`.
        latent: Number(s) of dimensions of a concept space, or of units of the block `attention`.
            Default: 3.
        learning_rate: Learning rate(s) of Adam. Default: "auto", 0.001.
        weight_decay: Weight decay(s), Adam's L2 penalty. Default: 0.01.
        pooling: Pooling(s) of the baselines. Default: the classification token.
        C: Strength(s) of the L2 penalty of logreg and tfidf; "auto" chooses it by cross-validation
            on the subset.
        blocks: What additive heads add up, joined by +. Default: `layers+ngrams`; `mean+ngrams` if
            the cache has no layer means.
        max_ngram: Tokens of the longest n-grams of the block `ngrams`, 2 or 3. Default: 2.
        epochs: Number of passes over a subset. Default: "auto", chosen for each size.
        batch_size: Examples per update. Default: "auto", chosen for each size.
        data_seed: Seed of the order of the examples.
        schedule: Schedule of the learning rate, `constant` (the default) or `cosine`.
        clip_norm: Maximum norm of a head's gradient; None for no clipping.
        loss: Loss of labels that are numbers: `squared` (default) or `huber`, which counts errors
            beyond a standard deviation of the training labels linearly.
        baselines: Whether `tfidf` and `logreg` on the mean are fitted to the same subsets.
        device: `auto`, `cpu`, `cuda`, ...
        cache_dir: Folder of caches and runs. Default: that of the cache.
        progress: True for bars, False for none, or a function called with (phase, done, total).
        settings: Settings of other kinds of heads, by name.

    Returns:
        The figures, which print themselves as a table, a drawing, and in sentences.

    Raises:
        SpaceliteError: The cache or the settings cannot be used, a size is larger than the train
            split or smaller than the number of labels, or memory is too small.
    """
    arguments = dict(locals())
    from spacelite.backbones.model import resolve_device
    from spacelite.training.plan import listed, seed_list

    asked = {**plan.requested(learning_curve, arguments, DEFAULTS), "seeds": [0]}
    numbers = seed_list(seeds)
    cache = dataset_of(cache, cache_dir)
    with cache.open() as opened, reporting(progress) as on_progress:
        opened.require_training()
        metric = curves.curve_metric(metric, opened.task)
        if blocks is None and "additive" in asked["head"]:
            asked["blocks"] = _readable(asked.get("blocks", "layers+ngrams"), opened)
        wanted = curves.sizes_of(None if sizes is None else listed("sizes", sizes), opened)

        def training(size: int) -> TrainingConfig:
            return plan.plan(asked, opened, examples=size, arguments=arguments).training

        configs = plan.plan(asked, opened, arguments=arguments).configs
        beside = plan.baselines(opened) if baselines else []
        configs += [config for config in beside if config not in configs]
        result = curves.learning_curve(
            opened, configs, training, sizes=wanted, seeds=numbers, metric=metric,
            device=resolve_device(device), on_progress=on_progress,
        )  # fmt: skip
        answers.keep(cache.cache_dir, opened, "curve", result.as_json())
    few = [size for size in wanted if plan.few_updates(size, training(size)) is not None]
    for size in few[-1:]:
        _warn_of_few_updates(size, training(size), configs)
    return LearningCurve(result, cache)


def _readable(blocks: str, cache: Cache) -> str:
    """Blocks that read what a cache has, the mean in place of others; it is logged."""
    lacking, names = plan.lacking_blocks(cache), blocks.split("+")
    reasons = [reason for name, reason in lacking.items() if name in names]
    if not reasons:
        return blocks
    left = [name for name in names if name not in lacking and name != "mean"]
    hint = f"additive reads {' and '.join(['mean', *left])}: {', and '.join(reasons)}"
    log.info(SpaceliteError(hint, ["layers"]))
    return "+".join(["mean", *left])


@dataclass(frozen=True, eq=False, repr=False)
class LabelAudit(_Study):
    """What an audit of labels found.

    Attributes:
        result: The findings.
        cache: The cache.
        labels: The names of labels 0 to C-1.
    """

    result: Audit
    labels: tuple[str, ...] = ()

    def _label_names(self) -> Sequence[str]:
        return self.labels

    @property
    def findings(self) -> list[Finding]:
        """The examples whose label is probably wrong, most probably wrong first."""
        return self.result.findings

    def __repr__(self) -> str:
        result = self.result
        return f"<audit: {len(result.findings):,} of {result.examples:,} labels are suspected>"


@checked(cache=CACHE, head=CHOICE)
def audit(
    cache: EmbeddedDataset | str | Path | None = None,
    *,
    head: str = "additive",
    folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    backbone: str | Path | None = None,
    device: str = "auto",
    cache_dir: str | Path | None = None,
    progress: Progress = True,
) -> LabelAudit:
    """Find labels of the train split that are probably wrong: confident learning on probabilities
    of heads that did not see the example.

    Args:
        cache: What `embed` returned, or a cache's name or path. Default: the one embedded last.
        head: `additive` (means and n-grams of the tokens), `tfidf`, or `logreg` (on the mean).
        folds: Number of folds: each example is judged by a head that was fitted to the others.
        repeats: How many times to divide the examples into folds; probabilities are averaged.
        seed: Seed of the division into folds.
        backbone: Folder of the backbone, if it was a local one that has moved.
        device: `auto`, `cpu`, `cuda`, ...
        cache_dir: Folder of caches and runs. Default: that of the cache.
        progress: True for bars, False for none, or a function called with (phase, done, total).

    Returns:
        The findings, with the words that decided, and texts that are nearly the same and have
        different labels.

    Raises:
        SpaceliteError: A text of the data may have several labels, or there are too few examples of
            a label for so many folds.
    """
    from spacelite.backbones.model import resolve_device

    known: dict[str, dict[str, str]] = {
        "additive": {"blocks": "mean+ngrams"},
        "tfidf": {"C": "auto"},
        "logreg": {"pooling": "mean", "C": "auto"},
    }
    if head not in known:
        raise SpaceliteError(f"head={head}: {choose_from(head, known)}", ["head"])
    cache = dataset_of(cache, cache_dir)
    local = str(backbone) if backbone is not None else cache.backbone
    with cache.open() as opened, reporting(progress) as on_progress:
        opened.require_training()
        chosen = known[head]
        if "blocks" in chosen:
            chosen = {"blocks": _readable(chosen["blocks"], opened)}
        result = audits.audit_labels(
            opened, heads.config(head, **chosen), folds=folds, repeats=repeats, seed=seed,
            backbone=local, device=resolve_device(device), on_progress=on_progress,
        )  # fmt: skip
        answers.keep(cache.cache_dir, opened, "audit", result.as_json())
        labels = tuple(opened.label_names)
    return LabelAudit(result, cache, labels)


class LayerSweep(_Study):
    """Which layer and which pooling a linear probe should read.

    Attributes:
        result: The probes, and what stands beside them.
        cache: The cache.
    """

    result: Sweep

    @property
    def choice(self) -> Probe:
        """The probe that was chosen on validation, with its figures on test."""
        return self.result.choice

    @property
    def probes(self) -> list[Probe]:
        """All probes, in the order of layers."""
        return self.result.probes

    def __repr__(self) -> str:
        return f"<sweep of {len(self.probes)} probes: {self.choice.name}>"


@checked(cache=CACHE, over=NAMES)
def sweep(
    cache: EmbeddedDataset | str | Path | None = None,
    over: str | Sequence[str] = (LAYERS, POOLING),
    *,
    metric: str | None = None,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: Progress = True,
) -> LayerSweep:
    """Which layer, and which pooling of its tokens, a linear probe should read: chosen on
    validation, measured on test afterwards.

    A probe is a logistic regression on one vector per text. Beside each stand a control task
    (Hewitt & Liang 2019), in which a text's label is drawn at random by its first token, and the
    same probe on random weights, if the data are embedded with these too
    (`backbone="random:minilm"`). No run is saved. Reports of the cache show the last result.

    Args:
        cache: What `embed` returned, or a cache's name or path. Default: the one embedded last.
        over: What probes differ in: `layers` (the mean of each layer) and `pooling` (first, last,
            mean and max of the cached layer).
        metric: The metric that is compared and shown, such as `f1_macro`. Default: accuracy; of
            numbers, the RMSE.
        seed: Seed of the labels of the control task.
        cache_dir: Folder of caches and runs. Default: that of the cache.
        progress: True for bars, False for none, or a function called with (phase, done, total).

    Returns:
        The probes and the chosen one, which print themselves as tables and sentences.

    Raises:
        SpaceliteError: The cache cannot be used, or lacks the means of layers.
    """
    cache = dataset_of(cache, cache_dir)
    with cache.open() as opened, reporting(progress) as on_progress:
        opened.require_training()
        result = probing.sweep(
            opened, [over] if isinstance(over, str) else over, metric=metric, seed=seed,
            on_progress=on_progress,
        )  # fmt: skip
        answers.keep(cache.cache_dir, opened, "sweep", result.as_json())
    return LayerSweep(result, cache)
