"""Trained runs: what `train` and `load_runs` return, and what can be done with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from spacelite import files, inference
from spacelite import runs as saved_runs
from spacelite.api.arguments import EXAMPLE, LABEL, LABELS, NAME, checked, list_of_texts
from spacelite.api.results import (
    CACHE,
    EmbeddedDataset,
    Evaluation,
    TextExplanation,
    TextPredictions,
)
from spacelite.cache import Cache, backbone_settings
from spacelite.cache import embed as embed_into
from spacelite.cache import folder as caches
from spacelite.errors import SpaceliteError
from spacelite.metrics.scores import METRICS
from spacelite.progress import Progress, reporting
from spacelite.reports.document.blocks import Table
from spacelite.reports.document.runs_table import runs_table
from spacelite.reports.render import fragment, plain
from spacelite.runs import Run, RunRecord, figure

MOST_KINDS = 4  # of heads, in the short form of runs


class Runs(Sequence["TrainedRun"]):
    """Runs, as `train` returns them: a sequence that prints as a table.

    Attributes:
        stopped: Descriptions of the heads that diverged and were not saved.
        baseline: What always predicting the most frequent training label achieves, in words; ""
            for runs that were not just trained.
        before: Number of baselines, the last of the runs, that an earlier training has fitted.
    """

    def __init__(
        self,
        runs: Sequence[TrainedRun] = (),
        stopped: Sequence[str] = (),
        baseline: str = "",
        before: int = 0,
    ) -> None:
        self._runs, self.stopped, self.baseline = list(runs), list(stopped), baseline
        self.before = before

    @overload
    def __getitem__(self, index: int) -> TrainedRun: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> TrainedRun | Runs:
        if isinstance(index, slice):
            return Runs(self._runs[index], baseline=self.baseline)
        return self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[TrainedRun]:
        return iter(self._runs)

    def __add__(self, other: Runs | list[TrainedRun]) -> Runs:
        if not isinstance(other, Runs | list):
            return NotImplemented
        more = other if isinstance(other, Runs) else Runs(other)
        baseline = self.baseline if self.baseline == more.baseline else ""
        return Runs([*self, *more], [*self.stopped, *more.stopped], baseline)

    def __radd__(self, other: list[TrainedRun]) -> Runs:
        return Runs(other) + self if isinstance(other, list) else NotImplemented

    @checked(metric=replace(NAME, needed="give the name of a metric"))
    def best(self, metric: str = "f1_macro") -> TrainedRun:
        """The run with the best value of a metric on the validation split.

        Args:
            metric: Name of the metric, one of METRICS.

        Raises:
            SpaceliteError: There is no such metric, or no run.
        """
        if metric not in METRICS:
            raise SpaceliteError(f"metric={metric}: choose from {', '.join(METRICS)}", ["metric"])
        values = [(figure(run.metrics.get("validation", {}), metric), run) for run in self._runs]
        known = [(value, run) for value, run in values if value is not None]
        if not self._runs:
            raise SpaceliteError("there is no run to choose from: this list of runs is empty")
        if not known:
            raise SpaceliteError(
                f"no run has a {metric} on the validation split: choose another metric", ["metric"]
            )
        choose = max if METRICS[metric].higher_is_better else min
        return choose(known, key=lambda pair: pair[0])[1]

    def table(self) -> Table:
        """The table as it is printed."""
        return runs_table([run.run for run in self._runs])

    def __str__(self) -> str:
        return plain.table(self.table()) if self._runs else "no runs"

    def __repr__(self) -> str:
        kinds = list(dict.fromkeys(run.record.system for run in self))
        shown = ", ".join(kinds[:MOST_KINDS]) + (", ..." if kinds[MOST_KINDS:] else "")
        return f"<{len(self)} run{'' if len(self) == 1 else 's'}{shown and f': {shown}'}>"

    def _repr_html_(self) -> str:
        return fragment.table(self.table()) if self._runs else "no runs"


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A saved run: its head classifies and explains texts. Two runs are equal if they have the same
    id and the same folder.

    Attributes:
        run: The run on disk.
        cache_dir: Folder of caches and runs.
        backbone: Folder of its backbone, if that is a local folder and known.
    """

    run: Run
    cache_dir: Path
    backbone: str | None = None

    @property
    def id(self) -> str:
        """The run's id."""
        return self.run.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrainedRun) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[str, Path]:
        return self.id, self.run.folder.resolve()

    def _backbone(self, given: str | Path | None) -> str | None:
        """The folder of the backbone, if it was given or is known."""
        return self.backbone if given is None else str(given)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cache_dir", files.absolute(self.cache_dir))

    @property
    def name(self) -> str | None:
        """The name that the run was given; None if it has none."""
        return self.run.name

    def rename(self, name: str | None) -> TrainedRun:
        """Give the run a name, which can be used in place of its id.

        Args:
            name: The name: letters, digits, dots, underscores and single dashes; no other run may
                have it. None takes the run's name away.

        Returns:
            The renamed run.

        Raises:
            SpaceliteError: A run cannot have such a name, another run has it, or it cannot be
                saved.
        """
        return replace(self, run=saved_runs.rename(self.run, name))

    def remove(self) -> None:
        """Delete the run's folder.

        Raises:
            SpaceliteError: It cannot be deleted.
        """
        saved_runs.remove(self.run.folder)

    @property
    def record(self) -> RunRecord:
        """Settings, metrics and everything else in `run.json`."""
        return self.run.record

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Every metric by split."""
        return self.run.record.metrics

    @checked()
    def predict(
        self,
        texts: Sequence[str],
        *,
        backbone: str | Path | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
        min_probability: float | None = None,
        progress: Progress = True,
    ) -> TextPredictions:
        """Classify texts.

        Args:
            texts: N texts.
            backbone: Folder of the run's backbone, if it was a local one.
            device: Device of the backbone.
            tokens_per_batch: Maximum tokens per forward pass.
            min_probability: Give no label that has a lower probability than this: the label is then
                None. In a multi-label run this takes single labels away.
            progress: True for bars, False for none, or a function called with (phase, done, total).

        Raises:
            SpaceliteError: A text is empty, or the backbone is not the run's.
        """
        minimum = inference.check_minimum(min_probability)
        inference.refuse_path(texts)
        texts = [texts] if isinstance(texts, str) else list_of_texts(texts)
        with reporting(progress) as on_progress:
            found = inference.predict(
                self.run,
                texts,
                backbone=self._backbone(backbone),
                device=device,
                tokens_per_batch=tokens_per_batch,
                on_progress=on_progress,
            )
        return TextPredictions(texts, found.probabilities, found.unknown, self.record, minimum)

    @checked(example=EXAMPLE, label=LABEL)
    def explain(
        self,
        text: str | None = None,
        *,
        example: str | None = None,
        label: str | None = None,
        backbone: str | Path | None = None,
        device: str = "auto",
        progress: Progress = True,
    ) -> TextExplanation:
        """Show which words mattered for a prediction.

        Args:
            text: The text to explain.
            example: In place of a text: an example of the run's cache, such as `test:17`.
            label: Label to explain. Default: the predicted one.
            backbone: Folder of the run's backbone, if it was a local one.
            device: Device of the backbone.
            progress: True for bars, False for none, or a function called with (phase, done, total).

        Raises:
            SpaceliteError: The head's logits are not a sum over tokens, there is no such example or
                label, or the backbone is not the run's.
        """
        if text is None and example is None:
            raise SpaceliteError(
                "nothing to explain: give a text, or example='test:17' for an example of the run's "
                "cache",
                ["example"],
            )
        if text is not None and example is not None:
            raise SpaceliteError("give either a text or example=..., not both", ["example"])
        inference.require_shares(self.run)
        folder = self._backbone(backbone)
        names = self.record.label_names
        if label is not None and label not in names:
            raise SpaceliteError(f"label={label}: choose from {', '.join(names)}", ["label"])
        if example is not None:
            path = saved_runs.find_cache(self.run, self.cache_dir)
            with Cache(path) as cache, reporting(progress) as on_progress:
                found = inference.explain_example(
                    self.run,
                    cache,
                    example,
                    backbone=folder,
                    device=device,
                    on_progress=on_progress,
                )
        elif text is not None:
            with reporting(progress) as on_progress:
                found = inference.explain_text(
                    self.run, text, backbone=folder, device=device, on_progress=on_progress
                )
        shown = names.index(label) if label is not None else found.predicted
        return TextExplanation(found, shown, self.run, example)

    @checked(cache=CACHE, labels=LABELS)
    def evaluate(
        self,
        dataset: Any = None,
        *,
        cache: EmbeddedDataset | str | Path | None = None,
        labels: dict[str, str] | Sequence[str] | str | None = None,
        backbone: str | Path | None = None,
        limit: int | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
        text_column: str | None = None,
        label_column: str | None = None,
        data_dir: str | Path | None = None,
        labels_as: str = "auto",
        skip_empty: bool = False,
        progress: Progress = True,
    ) -> Evaluation:
        """Evaluate the head on another data set, and save the metrics with the run.

        Args:
            dataset: Data set to embed and evaluate on, as in `embed`; or what `embed` returned.
            cache: In place of `dataset`: what `embed` returned, or a cache's name or path.
            labels: Data set's label name -> run's label name, or pairs "data=run".
                Default: labels are matched by name, or by number if no name is in both.
            backbone: Folder of the run's backbone, if it was a local one.
            limit: Maximum examples per split of `dataset`.
            device: `auto`, `cpu`, `cuda`, ...
            tokens_per_batch: Maximum tokens per forward pass.
            text_column: As in `embed`.
            label_column: As in `embed`.
            data_dir: As in `embed`.
            labels_as: As in `embed`.
            skip_empty: As in `embed`.
            progress: True for bars, False for none, or a function called with (phase, done, total).

        Raises:
            SpaceliteError: Hidden states or labels do not match the run's, or the data cannot be
                embedded.
        """
        from spacelite.backbones import resolve_device

        if isinstance(dataset, EmbeddedDataset) and cache is None:
            dataset, cache = None, dataset
        if dataset is None and cache is None:
            raise SpaceliteError(
                "nothing to evaluate on: give a data set, or cache=... for one that is embedded",
                ["dataset", "cache"],
            )
        if dataset is not None and cache is not None:
            raise SpaceliteError(
                "give either dataset=... or cache=..., not both", ["dataset", "cache"]
            )
        if cache is not None and limit is not None:
            raise SpaceliteError(
                f"limit={limit} works with dataset=... only: a cache is evaluated whole",
                ["limit", "dataset"],
            )
        if dataset is not None:
            with reporting(progress) as on_progress:
                path = embed_into(
                    dataset=dataset,
                    cache_dir=self.cache_dir,
                    layers=self.run.head.reads_layers or None,
                    limit=limit,
                    device=device,
                    tokens_per_batch=tokens_per_batch,
                    text_column=text_column,
                    label_column=label_column,
                    data_dir=None if data_dir is None else Path(data_dir),
                    labels_as=labels_as,
                    skip_empty=skip_empty,
                    training=False,
                    check=lambda texts: inference.label_numbers(
                        self.run,
                        texts.name,
                        texts.label_names,
                        next(iter(texts.splits.values())).labels,
                        labels,
                    ),
                    on_progress=on_progress,
                    **backbone_settings(self.record.spec, self._backbone(backbone)),
                ).path
        elif isinstance(cache, EmbeddedDataset):
            path = cache.path
        else:
            path = caches.find(self.cache_dir, str(cache))
        with Cache(path) as opened, reporting(progress) as on_progress:
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
