"""Trained runs: what can be done with them, how saved ones are found, and their report."""

from __future__ import annotations

import functools
import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacelite import files
from spacelite.api.arguments import (
    CHOICE,
    LABELS,
    NAME,
    NAME_OR_PATH,
    REPOSITORY,
    checked,
    is_list,
    known_label,
    stream_of_texts,
    unusable,
)
from spacelite.api.results import (
    CACHE,
    EmbeddedDataset,
    Evaluation,
    FilePredictions,
    Runs,
    TextExplanation,
    TextPredictions,
)
from spacelite.api.thresholds import METRICS, ChosenThresholds, choose, from_text
from spacelite.cache import folder as caches
from spacelite.cache.embedding import embed as embed_into
from spacelite.cache.spec import Encoding
from spacelite.cache.store import Cache
from spacelite.data import loading, writers
from spacelite.data.columns import Reading, as_pair
from spacelite.data.readers import TextRows, open_texts
from spacelite.data.splits import Pair, Text, TextDataset
from spacelite.errors import SpaceliteError
from spacelite.inference import explanation, prediction
from spacelite.progress import Progress, reporting
from spacelite.reports.analysis import content
from spacelite.reports.document.tables import runs_table
from spacelite.reports.render import markup
from spacelite.reports.report import Report
from spacelite.runs import store
from spacelite.runs.record import RunRecord
from spacelite.runs.store import Run
from spacelite.settings import among

if TYPE_CHECKING:
    import pyarrow as pa

    from spacelite.export.export import Exported
    from spacelite.export.hub import Pushed

log = logging.getLogger(__name__)

# What `evaluate` needs beside `Reading` to read and embed a data set: without effect on a cache.
# (Not `data_dir`, which the environment may give.)
OF_DATASET = ("name", "limit", "backbone", "tokens_per_batch")
OF_PREDICTOR = ("backbone", "tokens_per_batch")  # those that faithfulness needs on a cache too
# The arguments of all methods that classify.
PREDICTING = (
    "backbone", "device", "tokens_per_batch", "min_probability", "threshold", "progress",
)  # fmt: skip

Classify = Callable[[Iterable[Text]], Iterator[TextPredictions]]


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

    def _predictor(
        self, backbone: str | Path | None, device: str, tokens_per_batch: int | None = None
    ) -> prediction.Predictor:
        return prediction.Predictor(
            self.run, self._backbone(backbone), device=device, tokens_per_batch=tokens_per_batch
        )

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
                have it. None removes the run's name.

        Returns:
            The run.

        Raises:
            SpaceliteError: A run cannot have such a name, another run has it, or it cannot be
                saved.
        """
        object.__setattr__(self, "run", store.rename(self.run, name))
        return self

    def remove(self) -> None:
        """Delete the run's folder.

        Raises:
            SpaceliteError: It cannot be deleted, or was already.
        """
        self.run.require()
        store.remove(self.run.folder)

    @property
    def record(self) -> RunRecord:
        """Settings, metrics and everything else in `run.json`."""
        return self.run.record

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Every metric by split."""
        return deepcopy(self.run.record.metrics)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the head and of its training."""
        return self.run.record.settings

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of labels 0 to C-1."""
        return self.run.record.label_names

    @property
    def history(self) -> list[dict[str, Any]]:
        """The number of each epoch, and every metric after it by split; empty for a head that is
        not trained in epochs."""
        return self.run.history()

    @checked()
    def threshold(
        self,
        *,
        precision: float | None = None,
        recall: float | None = None,
        accuracy: float | None = None,
        label: str | None = None,
    ) -> ChosenThresholds:
        """Choose thresholds for a wished figure on validation, and measure on test what they cost.
        Give one figure, above 0 and at most 1.

        Args:
            precision: Of one of two labels, or of each label where texts can have several: it is
                given above the lowest probability that reaches this. With more labels, as
                `accuracy`.
            recall: Of one of two labels, or of each label where texts can have several: it is given
                above the highest probability that reaches this.
            accuracy: Of the texts that keep a label: texts are left without one below the lowest
                probability that reaches this.
            label: Which of two labels precision or recall is that of. Default: class 1.

        Returns:
            The thresholds, which `predict` takes as `threshold`: print them to see their figures.

        Raises:
            SpaceliteError: Not one figure is given, the run's task has no such figure, or it is not
                reached on validation.
        """
        values = zip(METRICS, (precision, recall, accuracy), strict=True)
        wished = [(metric, value) for metric, value in values if value is not None]
        if len(wished) != 1:
            raise SpaceliteError(
                "give one of precision, recall and accuracy, such as precision=0.9"
            )
        ((metric, value),) = wished
        return choose(self.run, metric, prediction.check_share(metric, value), label)

    def decides(
        self, threshold: ChosenThresholds | str | None, min_probability: float | None
    ) -> tuple[RunRecord, float | None]:
        """The record whose decision thresholds decide, and the minimum probability; as `predict`
        takes them."""
        self.record.require_labels("threshold", threshold)
        self.record.require_labels("min_probability", min_probability)
        if threshold is None:
            share = min_probability
            return self.record, None if share is None else prediction.check_share(
                "min_probability", share
            )
        if min_probability is not None:
            raise SpaceliteError(
                "give threshold=... or min_probability=..., not both",
                ["threshold", "min_probability"],
            )
        if isinstance(threshold, str):
            threshold = from_text(self.run, threshold)
        if not isinstance(threshold, ChosenThresholds):
            raise unusable("threshold", threshold, "give what run.threshold(...) returned")
        if threshold.run.id != self.id:
            raise SpaceliteError(
                f"threshold: it was chosen for run {threshold.run.id}: choose one for {self.id}",
                ["threshold"],
            )
        return threshold.record, threshold.min_probability

    @checked()
    def load(self, *, backbone: str | Path | None = None, device: str = "auto") -> TrainedRun:
        """Load the head, its tokenizer and its backbone now, so that the first prediction does not
        wait for them. The process holds the two backbones that were used last, whichever run asks.

        Args:
            backbone: Folder of the run's backbone, if it was a local one.
            device: Device of the backbone.

        Returns:
            The run.

        Raises:
            SpaceliteError: The backbone is not found, or not the run's.
        """
        self._predictor(backbone, device).load()
        return self

    @checked()
    def predict(
        self,
        texts: Any,
        *,
        text_column: str | Sequence[str] | None = None,
        backbone: str | Path | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
        min_probability: float | None = None,
        threshold: ChosenThresholds | str | None = None,
        progress: Progress = True,
    ) -> TextPredictions:
        """Classify texts.

        Args:
            texts: N texts: a list, an array, a Series, a DataFrame or a `datasets.Dataset`. A run
                that was trained on pairs reads pairs: `[(premise, hypothesis), ...]`.
            text_column: Name of the text column of a DataFrame or Dataset, or the names of the two
                of pairs. Default: that of the run's data, if there is one of this name; otherwise
                it is recognised automatically.
            backbone: Folder of the run's backbone, if it was a local one.
            device: Device of the backbone.
            tokens_per_batch: Maximum tokens per forward pass.
            min_probability: Leave texts below this probability unlabelled: their label is None. In
                a multi-label run, only labels below it are left out.
            threshold: Decide by what `threshold` returned, or by a wish such as `precision=0.9`,
                `recall=0.95,label=spam` or `accuracy=0.9`.
            progress: True for bars, False for none, or a function called with (phase, done, total).

        Raises:
            SpaceliteError: A text is empty, there is no text column, or the backbone is not the
                run's.
        """
        record, minimum = self.decides(threshold, min_probability)
        index = texts.index if hasattr(texts, "iloc") else None
        texts = list(stream_of_texts(texts, text_column, self.record.text_column))
        predictor = self._predictor(backbone, device, tokens_per_batch)
        with reporting(progress) as on_progress:
            predicted = predictor.predict(texts, on_progress)
        prediction.warn_of_truncated(self.run, predicted.truncated, len(texts))
        return TextPredictions(
            texts, predicted.probabilities, predicted.unknown, record, minimum, index
        )

    @checked()
    def predict_batches(
        self,
        texts: Any,
        *,
        text_column: str | Sequence[str] | None = None,
        total: int | None = None,
        backbone: str | Path | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
        min_probability: float | None = None,
        threshold: ChosenThresholds | str | None = None,
        progress: Progress = True,
    ) -> Iterator[TextPredictions]:
        """Classify a stream of texts of any length: memory holds a batch of texts at a time.

        Args:
            texts: The texts: an iterable, which is read only as far as results are asked for, or
                what `predict` takes.
            text_column: As in `predict`.
            total: Their number, if it is known, for the progress.
            backbone: As in `predict`.
            device: As in `predict`.
            tokens_per_batch: As in `predict`.
            min_probability: As in `predict`.
            threshold: As in `predict`.
            progress: True for bars, False for none, or a function called with (phase, done, total).

        Returns:
            An iterator over the predictions of 100 texts, and then of 1,000 at a time, in the order
                of the texts. Fewer if texts are very long.

        Raises:
            SpaceliteError: A text is empty, or the backbone is not the run's.
        """
        record, minimum = self.decides(threshold, min_probability)
        predictor = self._predictor(backbone, device, tokens_per_batch)
        stream = stream_of_texts(texts, text_column, self.record.text_column)

        def batches() -> Iterator[TextPredictions]:
            with reporting(progress) as on_progress:
                for batch, predicted in predictor.predict_batches(
                    stream, total=total, on_progress=on_progress
                ):
                    yield TextPredictions(
                        batch, predicted.probabilities, predicted.unknown, record, minimum
                    )

        return batches()

    @checked()
    def predict_file(
        self,
        file: str | Path,
        out: str | Path,
        *,
        text_column: str | Sequence[str] | None = None,
        quoting: str = "standard",
        backbone: str | Path | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
        min_probability: float | None = None,
        threshold: ChosenThresholds | str | None = None,
        progress: Progress = True,
    ) -> FilePredictions:
        """Classify the texts of a file, and write its rows with the predictions to another.

        Args:
            file: A csv, tsv, json, jsonl or parquet file; every line of any other is a text.
            out: The file that is written once all is done: .csv, .tsv, .jsonl or .parquet. An
                existing one is replaced.
            text_column: Name of the text column, or the names of the two of pairs. Default: that of
                the run's data, if the file has it; otherwise it is recognised automatically.
            quoting: As in `embed`.
            backbone: As in `predict`.
            device: As in `predict`.
            tokens_per_batch: As in `predict`.
            min_probability: As in `predict`.
            threshold: As in `predict`.
            progress: True for bars, False for none, or a function called with (phase, done, total).

        Returns:
            How many texts were given which label.

        Raises:
            SpaceliteError: A file cannot be read or written, a text is empty, or the backbone is
                not the run's.
        """
        arguments = dict(locals())
        rows = open_texts(
            Path(file), text_column, quoting=quoting, remembered=self.record.text_column
        )
        return self.predict_rows(rows, Path(out), **{name: arguments[name] for name in PREDICTING})

    def predict_rows(self, rows: TextRows, out: Path, **options: Any) -> FilePredictions:
        """As `predict_file`, for a file that `open_texts` has opened."""
        writers.check(out, rows.origin)
        self.require_kind(rows)
        decides = self.decides(options.get("threshold"), options.get("min_probability"))
        tally = FilePredictions(*decides, out)
        classify = functools.partial(self.predict_batches, total=rows.count, **options)
        columns = Columns(rows, self.record)
        written = writers.rounded if out.suffix.lower() in writers.ROUNDED else dict
        with writers.writing(out, columns.names, columns.schema) as put:
            for kept, batch in with_predictions(rows, classify):
                put(list(map(columns.row, kept, map(written, batch))))
                tally.add(batch)
        return tally

    def require_kind(self, rows: TextRows) -> None:
        """Raise SpaceliteError if a file has single texts and the run reads pairs, or the other way
        round."""
        kind = "pairs of texts" if rows.are_pairs else "single ones"
        prediction.require_kind(self.run, f"{rows.origin} has {kind}", pairs=rows.are_pairs)

    @checked()
    def explain(
        self,
        text: str | Sequence[str] | None = None,
        *,
        example: str | None = None,
        label: str | None = None,
        backbone: str | Path | None = None,
        device: str = "auto",
        progress: Progress = True,
    ) -> TextExplanation:
        """Show which words mattered for a prediction.

        Args:
            text: The text to explain; the two of a pair as `(premise, hypothesis)`.
            example: In place of a text: an example of the run's cache, such as `test:17`.
            label: Label to explain. Default: the predicted one, or each of several.
            backbone: Folder of the run's backbone, if it was a local one.
            device: Device of the backbone.
            progress: True for bars, False for none, or a function called with (phase, done, total).

        Raises:
            SpaceliteError: The head's logits are not a sum over tokens, there is no such example or
                label, or the backbone is not the run's.
        """
        if (text is None) == (example is None):
            raise SpaceliteError(
                "give either a text to explain, or example=test:17 for an example of the run's "
                "cache",
                ["example"],
            )
        given = as_pair(text)
        if text is not None and not isinstance(given, str | Pair):
            raise unusable("text", text, "give one text (a string), or two as a pair")
        explanation.require_shares(self.run)
        folder = self._backbone(backbone)
        self.record.require_labels("label", label)
        label = None if label is None else known_label(label, self.labels)
        if example is not None:
            path = store.find_cache(self.run, self.cache_dir)
            with Cache(path) as cache, reporting(progress) as on_progress:
                explained = explanation.explain_example(
                    self.run, cache, example, backbone=folder, device=device,
                    on_progress=on_progress,
                )  # fmt: skip
        else:
            with reporting(progress) as on_progress:
                explained = explanation.explain_text(
                    self.run, given, backbone=folder, device=device, on_progress=on_progress
                )
        return TextExplanation.of(explained, self.run, label, example)

    @checked()
    def export(
        self,
        to: str,
        out: str | Path,
        *,
        quantize: str | None = None,
        backbone: str | Path | None = None,
        progress: Progress = True,
    ) -> Exported:
        """Write the run in a form that other programs load. It is there once it gave what `predict`
        gives on 200 texts of the run's own data.

        Args:
            to: The form: `onnx`, `sentence-transformers`, `transformers` or `safetensors`.
            out: The folder to write, which must not exist.
            quantize: `int8` to round the weights of an ONNX graph: what that costs is measured on
                the test split.
            backbone: Folder of the run's backbone, if it was a local one; not of `safetensors`.
            progress: True for bars, False for none, or a function called with (phase, done, total).

        Returns:
            What was written, and how near it is to `predict`: print it.

        Raises:
            SpaceliteError: There is no such form, the run cannot take it, a package or the run's
                backbone or texts are missing, `out` exists or cannot be written, or the form
                does not give what `predict` gives.
        """
        from spacelite.export.export import export

        with reporting(progress) as on_progress:
            return export(
                self.run, to, files.absolute(Path(out)), cache_dir=self.cache_dir,
                quantize=quantize, backbone=None if backbone is None else str(backbone),
                known_backbone=self.backbone, on_progress=on_progress,
            )  # fmt: skip

    @checked(repository=REPOSITORY, form=CHOICE)
    def push(
        self,
        repository: str,
        *,
        form: str = "safetensors",
        private: bool = False,
        dry_run: bool = False,
        backbone: str | Path | None = None,
        progress: Progress = True,
    ) -> Pushed:
        """Push the run, with its model card, to the Hugging Face hub. Of the backbone only its name
        and revision go there, unless the form holds it.

        Args:
            repository: The repository of models, OWNER/NAME, which is created if there is none.
            form: `safetensors`, which `pull` fetches, or another form of `export`.
            private: Whether a new repository is private.
            dry_run: Only say which files would go, and how large they are.
            backbone: Folder of the run's backbone, if it was a local one, for forms that hold it.
            progress: True for bars, False for none, or a function called with (phase, done, total).

        Returns:
            What was pushed, and where it is: print it.

        Raises:
            SpaceliteError: As `export`; or there is no token for the hub, it may not write there,
                or the hub cannot be reached.
        """
        from spacelite.export import hub

        with reporting(progress) as on_progress:
            return hub.push(
                self.run, repository, form=form, private=private, dry_run=dry_run,
                cache_dir=self.cache_dir, backbone=None if backbone is None else str(backbone),
                known_backbone=self.backbone, on_progress=on_progress,
            )  # fmt: skip

    @checked(cache=CACHE, labels=LABELS, against=NAME)
    def evaluate(
        self,
        dataset: Any = None,
        *,
        cache: EmbeddedDataset | str | Path | None = None,
        labels: dict[Any, Any] | Sequence[str] | str | None = None,
        name: str | None = None,
        backbone: str | Path | None = None,
        limit: int | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
        text_column: str | Sequence[str] | None = None,
        label_column: str | None = None,
        data_dir: str | Path | None = None,
        labels_as: str = "auto",
        label_separator: str | None = None,
        split_column: str | None = None,
        skip_empty: bool = False,
        quoting: str = "standard",
        rationales: Sequence[Any] | str | None = None,
        rationales_as: str = "auto",
        against: str | None = None,
        rationales_top: int | None = None,
        rationales_spread: float = 0.0,
        progress: Progress = True,
    ) -> Evaluation:
        """Evaluate the head on another data set, and save the metrics with the run.

        Args:
            dataset: Data set to embed and evaluate on, as in `embed`; or what `embed` returned.
            cache: In place of `dataset`: what `embed` returned, or a cache's name or path.
            labels: Data set's label name -> run's label name, or None to leave out its texts; or
                pairs "data=run", "data=". Default: labels are matched by name, or by number if no
                name is in both and one side's are numbers.
            name: Name of data passed as objects, under which reports show them. Default: `texts`.
            backbone: Folder of the run's backbone, if it was a local one.
            limit: Maximum examples per split of `dataset`.
            device: `auto`, `cpu`, `cuda`, ...
            tokens_per_batch: Maximum tokens per forward pass.
            text_column: As in `embed`.
            label_column: As in `embed`.
            data_dir: As in `embed`.
            labels_as: As in `embed`.
            label_separator: As in `embed`.
            split_column: As in `embed`.
            skip_empty: As in `embed`.
            quoting: As in `embed`.
            rationales: Name of the column with the words that people marked, with which the head's
                explanations are compared: for each text 0 or 1 for each word, or spans
                `[[start, end], ...]`. Or these as a list, one for each text of a single split.
            rationales_as: `mask`, or spans of `words` or `characters`. Default: `words` for spans
                if all end within the texts' words.
            against: The run's label that marked words speak against, such as `normal`. Default:
                they speak for the predicted label.
            rationales_top: Number of words that the F1s take, and that are removed or kept at once.
                Default: as many as are marked on average.
            rationales_spread: What the order of words takes from neighbours, since people mark
                spans: the share of each other word times this for each word of distance.
            progress: True for bars, False for none, or a function called with (phase, done, total).

        Raises:
            SpaceliteError: Hidden states or labels do not match the run's, the data cannot be
                embedded, or marks do not fit their texts.
        """
        arguments = dict(locals())
        from spacelite.api import rationales as people
        from spacelite.backbones.model import resolve_device
        from spacelite.inference import transfer

        self.run.require()
        wish = people.Wish.read(
            self.run, rationales, rationales_as, against, rationales_top, rationales_spread
        )
        if isinstance(dataset, EmbeddedDataset) and cache is None:
            dataset, cache = None, dataset
        if (dataset is None) == (cache is None):
            raise SpaceliteError(
                "give either a data set to evaluate on, or cache=... for one that has been "
                "embedded",
                ["cache"],
            )
        reading = among(arguments, Reading)
        task = self.record.task
        defaults = inspect.signature(self.evaluate).parameters
        for option in (*OF_DATASET, *reading):
            if wish is not None and option in OF_PREDICTOR:
                continue
            value = arguments[option]
            if cache is not None and value != defaults[option].default:
                raise SpaceliteError(
                    f"{option}={value} works with dataset=... only: a cache is evaluated as it is",
                    [option, "dataset"],
                )

        marked: people.Marked | None = None

        def read() -> TextDataset:
            nonlocal marked
            data = loading.read(
                dataset,
                name=name,
                limit=limit,
                data_dir=files.data_folder(data_dir),
                training=False,
                scratch=self.cache_dir,
                task=task.name if task.of_numbers else None,
                **reading,
            )
            kind = "pairs of texts" if data.are_pairs else "single ones"
            given = f"data set {data.name} has {kind}"
            prediction.require_kind(self.run, given, pairs=data.are_pairs)
            transfer.label_numbers(self.run, data.name, data.label_names, data.task, labels)
            if wish is not None:
                marked = people.read_data(wish, dataset, data)
            return data

        if dataset is not None:
            encoding = Encoding.like(
                self.record.spec,
                self._backbone(backbone),
                self.record.backbone_folder,
                reduce=self.run.reduction,
                device=device,
                tokens_per_batch=tokens_per_batch,
            )
            with reporting(progress) as on_progress:
                path = embed_into(
                    encoding,
                    read,
                    cache_dir=self.cache_dir,
                    layers=self.run.head.reads_layers or None,
                    command="eval",
                    on_progress=on_progress,
                ).path
        elif isinstance(cache, EmbeddedDataset):
            path = cache.path
        else:
            path = caches.find(self.cache_dir, str(cache))
        with Cache(path) as opened, reporting(progress) as on_progress:
            if wish is not None and marked is None:
                marked = people.read_cache(wish, opened)
            record, predictions = transfer.evaluate(
                self.run,
                opened,
                labels,
                device=resolve_device(device),
                on_progress=lambda done, total: on_progress("evaluate", done, total),
            )
            record = self.run.save_transfer(record, predictions)
            compared = None
            if wish is not None and marked is not None:
                compared = people.measure(
                    wish, self.run, marked, predictions, backbone=self._backbone(backbone),
                    device=device, tokens_per_batch=tokens_per_batch, on_progress=on_progress,
                )  # fmt: skip
                record = self.run.save_transfer(replace(record, rationales=compared), predictions)
        return Evaluation(self.run, record, compared)

    def __repr__(self) -> str:
        return f"<run {self.id}: {self.record.head.description}>"

    def _repr_html_(self) -> str:
        return markup.Fragment().columns(runs_table([self.run]))


class Columns:
    """The columns of the results: those of a file, then label, labels or value, the share of
    unknown tokens and the probability of each label, under names that the file does not have."""

    def __init__(self, rows: TextRows, record: RunRecord) -> None:
        self._rows, self._record = rows, record
        (usual,) = record.task.as_json([])
        wanted = [usual, "unknown", *(f"probability_{name}" for name in record.probability_names)]
        taken = {name.lower() for name in rows.columns}
        names = [_free(name, taken) for name in wanted]
        self.label, self.unknown, *self.probabilities = names
        others = [f"{old!r}: {new!r}" for old, new in zip(wanted, names, strict=True) if old != new]
        if others:
            log.info(
                "%s has columns with names of the results; these have others: %s",
                rows.origin, ", ".join(others),
            )  # fmt: skip

    @property
    def names(self) -> list[str]:
        """All columns in their order."""
        return [*self._rows.columns, self.label, self.unknown, *self.probabilities]

    def schema(self) -> pa.Schema:
        """The Arrow types of all columns."""
        added = {self.label: self._record.task.column_type, self.unknown: "double"}
        return writers.extended(
            self._rows.schema(), {**added, **dict.fromkeys(self.probabilities, "double")}
        )

    def row(self, kept: dict[str, Any], predicted: dict[str, Any]) -> dict[str, Any]:
        """A row of the results: one of the file, and one of `TextPredictions`."""
        (usual,) = self._record.task.as_json([])
        values = predicted.get("probabilities", {}).values()
        chances = dict(zip(self.probabilities, values, strict=True))
        return {**kept, self.label: predicted[usual], self.unknown: predicted["unknown"], **chances}


def _free(name: str, taken: set[str]) -> str:
    """The name, or one that no column has, whatever its letters' case."""
    tried, number = name, 1
    while tried.lower() in taken:
        tried = f"predicted_{name}" + (f"_{number}" if number > 1 else "")
        number += 1
    return tried


def with_predictions(
    rows: TextRows, classify: Classify
) -> Iterator[tuple[list[dict[str, Any]], TextPredictions]]:
    """Yield batches of a file's rows with their predictions, which `classify` yields for a stream
    of texts."""
    waiting: deque[dict[str, Any]] = deque()

    def texts() -> Iterator[Text]:
        for row in rows:
            waiting.append(row)
            yield rows.text(row)

    for batch in classify(texts()):
        yield [waiting.popleft() for _ in range(len(batch))], batch


@checked(name=replace(NAME_OR_PATH, needed="give a run's id or its folder"))
def load_run(name: str | Path, cache_dir: str | Path | None = None) -> TrainedRun:
    """Load a saved run.

    Args:
        name: The run's id, a part of it that no other run has, its name, or its folder.
        cache_dir: Folder of caches and runs. Default: that of the variable `SPACELITE_CACHE`, else
            `cache`.

    Raises:
        SpaceliteError: No run matches, or more than one.
    """
    folder = files.cache_folder(cache_dir)
    return TrainedRun(store.find(folder, str(name)), folder)


@checked(repository=REPOSITORY)
def pull(
    repository: str,
    *,
    revision: str | None = None,
    name: str | None = None,
    cache_dir: str | Path | None = None,
) -> TrainedRun:
    """Fetch a run that was pushed to the Hugging Face hub, and save it like one that was trained
    here. All of its files are checked, and nothing in them is run.

    Args:
        repository: The repository, OWNER/NAME.
        revision: A commit, branch or tag of it. Default: the newest.
        name: A name for the run. Default: the one that it was given, if no run here has it.
        cache_dir: Folder of caches and runs. Default: that of the variable `SPACELITE_CACHE`, else
            `cache`.

    Raises:
        SpaceliteError: There is no such repository, it holds no run, a file of it was changed,
            another run has its id or the name, or the hub cannot be reached.
    """
    from spacelite.export import hub

    folder = files.cache_folder(cache_dir)
    pulled = hub.pull(repository, folder, revision=revision, run_name=name)
    for note in pulled.notes:
        log.info("run %s: %s", pulled.run.id, note)
    return TrainedRun(pulled.run, folder)


@checked()
def load_runs(cache_dir: str | Path | None = None) -> Runs:
    """Load all saved runs, oldest first.

    Args:
        cache_dir: Folder of caches and runs. Default: that of the variable `SPACELITE_CACHE`, else
            `cache`.
    """
    folder = files.cache_folder(cache_dir)
    runs = [TrainedRun(run, folder) for run in store.load_all(folder)]
    return Runs(runs, cache_dir=folder)


@checked(cache=CACHE, dataset=NAME)
def report(
    runs: Sequence[TrainedRun | str | Path] | TrainedRun | str | Path | None = None,
    *,
    compare: Sequence[str] = (),
    cache: EmbeddedDataset | str | None = None,
    dataset: str | None = None,
    head: str | Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
    split: str | None = None,
    cache_dir: str | Path | None = None,
    examples: bool = True,
    backbone: str | Path | None = None,
    progress: Progress = True,
) -> Report:
    """Compare runs with each other and with the published figures.

    Args:
        runs: Runs to compare, or their ids. Default: all runs of `cache_dir`.
        compare: Names of the systems to compare, as the report's tables call them, or ids of runs.
            Default: all. Every p is corrected for all pairs of them.
        cache: A cache, or its name: only the runs on it.
        dataset: Name of a data set: only the runs on it.
        head: Kind(s) of heads: only these.
        where: Setting -> value(s): only runs with these. Heads that lack the setting are kept.
        split: Another split whose figures are shown too: `train` or `validation`.
        cache_dir: Folder of caches and runs, used if no runs are given, or ids.
        examples: Whether to show words and texts of the data.
        backbone: Folder of the runs' backbone, if it was a local one.
        progress: True for bars, False for none, or a function called with (phase, done, total).

    Returns:
        The report: print it, or `save` it as a page.

    Raises:
        SpaceliteError: There is no run, none fits the conditions, or the systems cannot be
            compared.
    """
    chosen = list(load_runs(cache_dir)) if runs is None else _chosen(runs, cache_dir)
    if not chosen:
        raise store.no_run(files.cache_folder(cache_dir))
    with reporting(progress) as on_progress:
        findings = content.build(
            chosen[0].cache_dir,
            [run.run for run in chosen],
            with_examples=examples,
            cache=cache.name if isinstance(cache, EmbeddedDataset) else cache,
            dataset=dataset,
            head=head,
            where=where,
            compare=compare,
            split=split,
            backbone=chosen[0].backbone if backbone is None else str(backbone),
            on_progress=lambda done, total: on_progress("report", done, total),
        )
    return Report(findings)


def _chosen(runs: Any, cache_dir: str | Path | None) -> list[TrainedRun]:
    """The runs that `report` is given. One that is given twice is one run, not two seeds."""
    needed = "give runs or their ids, such as frame['id']"
    if isinstance(runs, TrainedRun | str | Path):
        runs = [runs]
    if not is_list(runs):
        raise unusable("runs", runs, needed)
    chosen: dict[TrainedRun, None] = {}
    for run in runs:
        if not isinstance(run, TrainedRun | str | Path):
            raise unusable("runs", run, needed)
        chosen[run if isinstance(run, TrainedRun) else load_run(run, cache_dir)] = None
    if not chosen:
        raise SpaceliteError(
            "runs is empty: give at least one run, or leave runs out to compare all of cache_dir",
            ["runs", "cache_dir"],
        )
    return list(chosen)
