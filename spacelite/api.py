"""What Python users call: the functions of the command line, in the same words, and the objects
that they give back."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy.typing as npt

from spacelite import inference, reports
from spacelite import runs as saved_runs
from spacelite.cache import Cache, CacheState, backbone_settings
from spacelite.cache import embed as embed_into
from spacelite.cache import folder as caches
from spacelite.errors import SpaceliteError
from spacelite.heads.grid import grid, seed_list
from spacelite.heads.pooling import default_pooling
from spacelite.inference import Explanation
from spacelite.metrics.scores import METRICS
from spacelite.progress import OnProgress, reporting
from spacelite.reports.document.blocks import Table
from spacelite.reports.document.runs_table import runs_table
from spacelite.reports.render import explained, forms, fragment, plain
from spacelite.runs import Run, RunRecord, TransferRecord, figure
from spacelite.training import TrainingConfig

log = logging.getLogger(__name__)

CACHE_DIR = "cache"
Progress = bool | OnProgress
Array = npt.NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True)
class EmbeddedDataset:
    """A data set's hidden states on disk.

    Attributes:
        path: The cache file.
        cache_dir: The folder of caches and runs.
        hit: Whether it was there already.
        seconds: How long `embed` took.
    """

    path: Path
    cache_dir: Path
    hit: bool = True
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The cache's name."""
        return self.path.stem

    @property
    def state(self) -> CacheState:
        """Sizes of the file and its splits."""
        return caches.state(self.path)

    def open(self) -> Cache:
        """The cache, open for reading; use it as a context manager."""
        return Cache(self.path)

    def __repr__(self) -> str:
        state = self.state
        splits = ", ".join(f"{count:,} {name}" for name, count in state.splits)
        return f"<{self.name}: {state.examples:,} examples ({splits}), {state.tokens:,} tokens>"

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"


def embed(
    dataset: Any = None,
    *,
    backbone: str = "minilm",
    texts: Sequence[str] | None = None,
    labels: Sequence[Any] | None = None,
    name: str | None = None,
    cache_dir: str | Path = CACHE_DIR,
    max_length: int = 256,
    dtype: str = "float16",
    layer: int = -1,
    padding: str = "none",
    limit: int | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    revision: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    data_dir: str | Path | None = None,
    progress: Progress = True,
) -> EmbeddedDataset:
    """Run a frozen backbone once over a data set and keep every token's hidden state.

    A finished cache of the same texts, labels and settings is returned at once.

    Args:
        dataset: A known data set's name (`imdb`, `hatexplain`, `hatexplain:2`, `demo`), a hub name,
            a file or a folder; a pandas DataFrame, a `datasets.DatasetDict`, or
            {"train": (texts, labels), ...}.
        backbone: A hub name, a local folder, or `minilm`.
        texts: In place of `dataset`: N texts, all of them training data.
        labels: One for each of `texts`: numbers or strings, or lists of them (multi-label).
        name: What data without a name are called.
        cache_dir: The folder of caches and runs.
        max_length: Tokens per text at most; the rest is cut off.
        dtype: The stored number type, `float16` or `float32`.
        layer: Which hidden states: -1 the last layer's, 0 the embeddings'.
        padding: `none`, or `max_length` to cache and count padded positions too.
        limit: Examples per split at most: a seeded, stratified sample.
        device: Where the backbone runs: `auto`, `cpu`, `cuda`, ...
        tokens_per_batch: Tokens in a forward pass at most.
        revision: Commit, branch or tag of a hub backbone.
        text_column: The column of the texts, where its name does not show it.
        label_column: The column of the labels, where its name does not show it.
        data_dir: A folder with data sets by name, searched before the hub.
        progress: True for bars, False for none, or a function of (phase, done, total).

    Returns:
        The finished cache.

    Raises:
        SpaceliteError: Whatever can be mended: the message says how.
    """
    folder = Path(cache_dir)
    with reporting(progress) as on_progress:
        done = embed_into(
            dataset=dataset,
            backbone=backbone,
            texts=texts,
            labels=labels,
            name=name,
            cache_dir=folder,
            max_length=max_length,
            dtype=dtype,
            layer=layer,
            padding=padding,
            limit=limit,
            device=device,
            tokens_per_batch=tokens_per_batch,
            revision=revision,
            text_column=text_column,
            label_column=label_column,
            data_dir=None if data_dir is None else Path(data_dir),
            on_progress=on_progress,
        )
    return EmbeddedDataset(done.path, folder, done.hit, done.seconds)


def find_cache(name: str | None = None, cache_dir: str | Path = CACHE_DIR) -> EmbeddedDataset:
    """A cache that is there already.

    Args:
        name: Its name, the beginning of it, or its path; the newest complete one unless given.
        cache_dir: The folder of caches and runs.

    Raises:
        SpaceliteError: There is none, or more than one.
    """
    folder = Path(cache_dir)
    path = caches.find(folder, name) if name else caches.newest_complete(folder)
    return EmbeddedDataset(path, folder)


def train(
    cache: EmbeddedDataset | str | None = None,
    *,
    head: str | Sequence[str] = ("space", "linear"),
    inter: float | Sequence[float] = 0.0,
    intra: float | Sequence[float] = 0.0,
    latent: int | Sequence[int] = 3,
    learning_rate: float | Sequence[float] = 2e-4,
    weight_decay: float | Sequence[float] = 0.01,
    pooling: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] = 1,
    epochs: int = 15,
    batch_size: int = 256,
    data_seed: int = 0,
    schedule: str = "constant",
    clip_norm: float | None = None,
    class_weights: str = "none",
    patience: int | None = None,
    monitor: str = "f1_macro",
    device: str = "auto",
    resume: bool = False,
    cache_dir: str | Path | None = None,
    progress: Progress = True,
    **settings: Any,
) -> Runs:
    """Train heads on a cache, all in one pass over the tokens per epoch, and save each as a run.

    Lists are combined: every combination is a head.

    Args:
        cache: What `embed` returned, or a cache's name; the newest complete one unless given.
        head: Kinds of heads: `space`, `linear`, `mlp`, `logreg`.
        inter: Weights of the inter-space loss.
        intra: Weights of the intra-space loss.
        latent: Dimensions of a concept space.
        learning_rate: Adam's learning rates.
        weight_decay: Adam's L2 penalties.
        pooling: The baselines' vectors: `first`, `last`, `mean`, `pooler`; the classification token
            unless given.
        seeds: K for the seeds 0 to K-1, or a list of seeds.
        epochs: Passes over the training split.
        batch_size: Examples per update.
        data_seed: Of the order of the examples.
        schedule: Of the learning rate: `constant` or `cosine`.
        clip_norm: The largest norm of a head's gradient.
        class_weights: `none` or `balanced`.
        patience: Stop a head after so many epochs without a better `monitor`.
        monitor: The validation metric that `patience` watches.
        device: `auto`, `cpu`, `cuda`, ...
        resume: Continue an interrupted training of the same settings.
        cache_dir: The folder of caches and runs; the cache's own unless given.
        progress: True for bars, False for none, or a function of (phase, done, total).
        settings: Those of other kinds of heads, by their names.

    Returns:
        The runs; its `stopped` names the heads that diverged.

    Raises:
        SpaceliteError: Whatever can be mended: the message says how.
    """
    from spacelite.backbones import resolve_device
    from spacelite.training import checkpoints, loop

    if not isinstance(cache, EmbeddedDataset):
        cache = find_cache(cache, cache_dir or CACHE_DIR)
    folder = Path(cache_dir or cache.cache_dir)
    training = TrainingConfig(
        epochs=epochs,
        batch_size=batch_size,
        data_seed=data_seed,
        schedule=schedule,
        clip_norm=clip_norm,
        class_weights=class_weights,
        patience=patience,
        monitor=monitor,
    )
    saved: list[Run] = []
    with cache.open() as opened:
        if pooling is None:
            pooling = default_pooling(opened.padding_side)
        named = {
            "inter": inter, "intra": intra, "latent": latent, "pooling": pooling, **settings,
            "learning_rate": learning_rate, "weight_decay": weight_decay, "seed": seed_list(seeds),
        }  # fmt: skip
        configs = grid(_listed(head), {key: _listed(value) for key, value in named.items()})
        loop.check(configs, training)
        if resume and not checkpoints.checkpoint_path(folder, opened, configs, training).exists():
            log.info("nothing to resume: training from the start")
        saved_runs.prepare(folder)
        with reporting(progress) as on_progress:
            results = loop.train(
                opened,
                configs,
                training,
                device=resolve_device(device),
                cache_dir=folder,
                resume=resume,
                save=lambda done: saved.append(saved_runs.save(folder, opened, done, training)),
                on_progress=lambda done, total: on_progress("train", done, total),
            )
    stopped = [result.config.description for result in results if result.stopped is not None]
    return Runs([TrainedRun(run, folder) for run in saved], stopped)


def _listed(value: Any) -> list[Any]:
    """One value or several, each once."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return [value]
    return list(dict.fromkeys(value))


def load_run(name: str | Path, cache_dir: str | Path = CACHE_DIR) -> TrainedRun:
    """A saved run.

    Args:
        name: Its id, a part of it that no other has, or its folder.
        cache_dir: The folder of caches and runs.

    Raises:
        SpaceliteError: There is none, or more than one.
    """
    return TrainedRun(saved_runs.find(Path(cache_dir), str(name)), Path(cache_dir))


def load_runs(cache_dir: str | Path = CACHE_DIR) -> Runs:
    """All saved runs, oldest first.

    Args:
        cache_dir: The folder of caches and runs.
    """
    return Runs([TrainedRun(run, Path(cache_dir)) for run in saved_runs.load_all(Path(cache_dir))])


def report(
    runs: Runs | None = None,
    *,
    cache_dir: str | Path = CACHE_DIR,
    examples: bool = True,
    backbone: str | None = None,
    progress: Progress = True,
) -> reports.Report:
    """Compare runs, and the published figures with them.

    Args:
        runs: The runs; all of `cache_dir` unless given.
        cache_dir: The folder of caches and runs, where no runs are given.
        examples: Also show words and texts of the data.
        backbone: Where the runs' backbone lies, if it was a local folder.
        progress: True for bars, False for none, or a function of (phase, done, total).

    Returns:
        The report: print it, or `save` it as a page.

    Raises:
        SpaceliteError: There is no run.
    """
    runs = load_runs(cache_dir) if runs is None else runs
    if not runs:
        raise SpaceliteError(f"{cache_dir} holds no run: train one first", ["cache_dir"])
    with reporting(progress) as on_progress:
        return reports.build(
            runs[0].cache_dir,
            [run.run for run in runs],
            with_examples=examples,
            backbone=backbone,
            on_progress=lambda done, total: on_progress("report", done, total),
        )


class Runs(Sequence["TrainedRun"]):
    """Runs, as `train` returns them: a sequence that prints as a table.

    Attributes:
        stopped: Descriptions of the heads that diverged and were not saved.
    """

    def __init__(self, runs: Sequence[TrainedRun], stopped: Sequence[str] = ()) -> None:
        self._runs, self.stopped = list(runs), list(stopped)

    @overload
    def __getitem__(self, index: int) -> TrainedRun: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> TrainedRun | Runs:
        if isinstance(index, slice):
            return Runs(self._runs[index])
        return self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[TrainedRun]:
        return iter(self._runs)

    def best(self, metric: str = "f1_macro") -> TrainedRun:
        """The run with the best figure on the validation split.

        Args:
            metric: One of METRICS.

        Raises:
            SpaceliteError: There is no such metric, or no run.
        """
        if metric not in METRICS:
            raise SpaceliteError(f"metric={metric}: choose from {', '.join(METRICS)}", ["metric"])
        values = [(figure(run.metrics["validation"], metric), run) for run in self._runs]
        known = [(value, run) for value, run in values if value is not None]
        if not known:
            raise SpaceliteError("there is no run to choose from: train one first")
        choose = max if METRICS[metric].higher_is_better else min
        return choose(known, key=lambda pair: pair[0])[1]

    def table(self) -> Table:
        """The table that is printed."""
        return runs_table([run.run for run in self._runs])

    def __str__(self) -> str:
        return plain.table(self.table()) if self._runs else "no runs"

    def __repr__(self) -> str:
        return f"<{len(self)} runs>"

    def _repr_html_(self) -> str:
        return fragment.table(self.table()) if self._runs else "no runs"


@dataclass(frozen=True)
class TrainedRun:
    """A saved run: its head classifies and explains texts.

    Attributes:
        run: What is on disk.
        cache_dir: The folder of caches and runs.
    """

    run: Run
    cache_dir: Path

    @property
    def id(self) -> str:
        """The run's name."""
        return self.run.id

    @property
    def record(self) -> RunRecord:
        """Settings, metrics and all else that `run.json` holds."""
        return self.run.record

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Every metric by split."""
        return self.run.record.metrics

    def predict(
        self,
        texts: Sequence[str],
        *,
        backbone: str | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
        progress: Progress = True,
    ) -> TextPredictions:
        """Classify texts.

        Args:
            texts: N texts.
            backbone: Where the run's backbone lies, if it was a local folder.
            device: Where the backbone runs.
            tokens_per_batch: Tokens in a forward pass at most.
            progress: True for bars, False for none, or a function of (phase, done, total).

        Raises:
            SpaceliteError: A text is empty, or the backbone is not the run's.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        with reporting(progress) as on_progress:
            probabilities = inference.predict(
                self.run,
                texts,
                backbone=backbone,
                device=device,
                tokens_per_batch=tokens_per_batch,
                on_progress=on_progress,
            )
        return TextPredictions(texts, probabilities, self.record)

    def explain(
        self,
        text: str | None = None,
        *,
        example: str | None = None,
        label: str | None = None,
        backbone: str | None = None,
        device: str = "auto",
    ) -> TextExplanation:
        """Show which words mattered for a prediction.

        Args:
            text: The text.
            example: In place of a text: one of the run's cache, as `test:17`.
            label: The label that is explained; the predicted one unless given.
            backbone: Where the run's backbone lies, if it was a local folder.
            device: Where the backbone runs.

        Raises:
            SpaceliteError: The head's logits are not a sum over tokens, there is no such example or
                label, or the backbone is not the run's.
        """
        if (text is None) == (example is None):
            raise SpaceliteError("give one of a text and example", ["example"])
        inference.require_shares(self.run)
        names = self.record.label_names
        if label is not None and label not in names:
            raise SpaceliteError(f"label={label}: choose from {', '.join(names)}", ["label"])
        if example is not None:
            path = caches.find(self.cache_dir, self.record.cache, exact=True)
            with Cache(path) as cache:
                found = inference.explain_example(self.run, cache, example, backbone=backbone)
        else:
            found = inference.explain_text(self.run, str(text), backbone=backbone, device=device)
        shown = names.index(label) if label is not None else found.predicted
        return TextExplanation(found, shown, self.run, example)

    def evaluate(
        self,
        dataset: Any = None,
        *,
        cache: EmbeddedDataset | str | None = None,
        labels: dict[str, str] | Sequence[str] | None = None,
        backbone: str | None = None,
        limit: int | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
        text_column: str | None = None,
        label_column: str | None = None,
        data_dir: str | Path | None = None,
        progress: Progress = True,
    ) -> Evaluation:
        """Evaluate the head on another data set, and keep the figures with the run.

        Args:
            dataset: What is embedded, as in `embed`.
            cache: In place of `dataset`: a cache that is there already.
            labels: The data set's label names -> the run's, or pairs "data=run"; by default labels
                of the same names are the same, others are matched by their numbers.
            backbone: Where the run's backbone lies, if it was a local folder.
            limit: Examples per split at most, of `dataset`.
            device: `auto`, `cpu`, `cuda`, ...
            tokens_per_batch: Tokens in a forward pass at most.
            text_column: As in `embed`.
            label_column: As in `embed`.
            data_dir: As in `embed`.
            progress: True for bars, False for none, or a function of (phase, done, total).

        Raises:
            SpaceliteError: Hidden states or labels do not fit, or whatever `embed` raises.
        """
        from spacelite.backbones import resolve_device

        if (dataset is None) == (cache is None):
            raise SpaceliteError("give one of dataset and cache", ["dataset", "cache"])
        if cache is not None and limit is not None:
            raise SpaceliteError(
                "limit is for dataset: a cache has the examples that it has", ["limit", "dataset"]
            )
        if dataset is not None:
            cache = embed(
                dataset,
                cache_dir=self.cache_dir,
                limit=limit,
                device=device,
                tokens_per_batch=tokens_per_batch,
                text_column=text_column,
                label_column=label_column,
                data_dir=data_dir,
                progress=progress,
                **backbone_settings(self.record.spec, backbone),
            )
        elif not isinstance(cache, EmbeddedDataset):
            cache = find_cache(cache, self.cache_dir)
        assert isinstance(cache, EmbeddedDataset)  # noqa: S101
        with cache.open() as opened, reporting(progress) as on_progress:
            mapping = dict(labels) if isinstance(labels, dict) else None
            if labels and mapping is None:
                mapping = inference.parse_mapping(
                    list(labels), opened.label_names, self.record.label_names
                )
            record, predictions = inference.evaluate(
                self.run,
                opened,
                mapping,
                device=resolve_device(device),
                on_progress=lambda done, total: on_progress("evaluate", done, total),
            )
        self.run.save_transfer(record, predictions)
        return Evaluation(self.run, record)

    def __repr__(self) -> str:
        return f"<run {self.id}: {self.record.head.description}>"

    def _repr_html_(self) -> str:
        return fragment.table(runs_table([self.run]))


@dataclass(frozen=True)
class TextPredictions(Sequence[dict[str, Any]]):
    """Predictions for texts: a sequence of {"text", "label" or "labels", "probabilities"}.

    Attributes:
        texts: N texts.
        probabilities: (N, C) float64; of a multi-label run each label's own.
        record: The run's.
    """

    texts: list[str]
    probabilities: Array
    record: RunRecord

    @property
    def labels(self) -> list[list[str]]:
        """The predicted label names of each text: one, or any number of a multi-label run."""
        task, names = self.record.task, self.record.label_names
        return [task.label_names(one, names) for one in task.decide_probable(self.probabilities)]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What the sequence holds, and `--json` prints."""
        names = self.record.label_names
        return [
            {
                "text": text,
                **self.record.task.as_json(labels),
                "probabilities": dict(zip(names, row, strict=True)),
            }
            for text, labels, row in zip(
                self.texts, self.labels, self.probabilities.tolist(), strict=True
            )
        ]

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.texts)

    def table(self) -> Table:
        """The table that is printed."""
        from spacelite.reports.document.blocks import Cell, Line

        lines = []
        for row, labels in zip(self.rows, self.labels, strict=True):
            values = ", ".join(f"{row['probabilities'][name]:.3f}" for name in labels)
            cells = (", ".join(labels) or "–", values or "–", row["text"])
            lines.append(Line([Cell(text) for text in cells]))
        return Table("Predictions", ["Label", "Probability", "Text"], lines, "predictions")

    def __str__(self) -> str:
        return plain.table(self.table())

    def _repr_html_(self) -> str:
        return fragment.table(self.table())


@dataclass(frozen=True)
class TextExplanation:
    """A prediction and each word's exact share in it.

    Attributes:
        explanation: The shares in every label's logit.
        label: The number of the label that is shown.
        run: The run.
        example: The example's location, where it is one of the run's cache.
    """

    explanation: Explanation
    label: int
    run: Run
    example: str | None = field(default=None)

    @property
    def words(self) -> list[tuple[str, float]]:
        """The text's words with their shares in the shown label's logit."""
        words = self.explanation.words
        return [(word.text, word.contributions[self.label]) for word in words]

    def save(self, path: str | Path) -> Path:
        """Write a page: the text, every word's share, and the tokens in the concept spaces.

        Args:
            path: The file.

        Raises:
            SpaceliteError: It cannot be written.
        """
        record = self.run.record
        about = f"{record.system}, trained on {record.spec.dataset}: run {self.run.id}"
        about += f"; example {self.example}." if self.example is not None else "."
        latent = getattr(record.head, "latent", None)
        forms.save_page(Path(path), explained.page(self.explanation, self.label, latent, about))
        return Path(path)

    def __str__(self) -> str:
        found = self.explanation
        text = " ".join(
            f"{word.text}({word.contribution:+.2f})" if word.side else word.text
            for word in found.marked(self.label)
        )
        predicted = found.labels[found.predicted]
        return f"{predicted} ({found.probabilities[found.predicted]:.3f}): {text}"

    def _repr_html_(self) -> str:
        found = self.explanation
        predicted = escape(found.labels[found.predicted])
        chance = found.probabilities[found.predicted]
        return (
            f"<div><b>{predicted}</b> ({chance:.3f}); words for and against "
            f"<b>{escape(found.labels[self.label])}</b>:"
            f"{fragment.marked_text(found.marked(self.label))}</div>"
        )


@dataclass(frozen=True)
class Evaluation:
    """A run's metrics on another data set.

    Attributes:
        run: The run.
        record: What was measured, and which of its labels is which of the run's.
    """

    run: Run
    record: TransferRecord

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Every metric by split."""
        return self.record.metrics

    def table(self) -> Table:
        """The table that is printed."""
        from spacelite.reports.document.blocks import Cell, Line
        from spacelite.reports.document.wording import decimals

        lines = []
        for split, scores in self.record.metrics.items():
            values = [figure(scores, name) for name in METRICS]
            figures = ["–" if value is None else decimals(value, 4) for value in values]
            cells = (split, f"{self.record.examples[split]:,}", *figures)
            lines.append(Line([Cell(text) for text in cells]))
        headings = [metric.heading for metric in METRICS.values()]
        return Table("Evaluation", ["Split", "Examples", *headings], lines, "evaluation")

    def __str__(self) -> str:
        return plain.table(self.table())

    def _repr_html_(self) -> str:
        return fragment.table(self.table())
