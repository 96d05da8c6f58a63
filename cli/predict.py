"""spacelite predict."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import spacelite
from spacelite.data import writers
from spacelite.errors import SpaceliteError

from . import console
from .options import CACHE_DIR, SECOND

if TYPE_CHECKING:
    from spacelite.api.runs import Columns
    from spacelite.data.readers import TextRows
    from spacelite.runs.record import RunRecord

    Batches = Iterator[list[dict[str, Any]]]
    Classify = Callable[..., Iterator[spacelite.TextPredictions]]


def predict(
    run: str,
    texts: list[str] | None = None,
    *,
    pair: str | None = None,
    file: Path | None = None,
    text_column: str | None = None,
    quoting: str = "standard",
    out: Path | None = None,
    as_csv: bool = False,
    min_probability: float | None = None,
    threshold: str | None = None,
    backbone: str | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Classify texts with a run's head.

    Options:
        texts: Texts. [default: the lines of standard input]
        pair TEXT: The second text, for a run that was trained on pairs of texts.
        file: Read the texts from this file: a csv, tsv, json, jsonl or parquet table, or any other
            file with a text per line.
        text_column: Name of the text column, or of two, A,B, for pairs. [default: that of the run's
            data, if the file has it]
        out: Write the rows with their predictions to this file, whose name ends in .csv, .tsv,
            .jsonl or .parquet.
        as_csv: Print a csv table: text, label, share of unknown tokens, each probability; if
            --file is a table, all its columns too.
        min_probability: Leave texts below this probability (0 to 1) unlabelled.
        threshold WISH: Decide by the thresholds that reach a figure on validation: precision=0.9,
            recall=0.95, accuracy=0.9; runs show --threshold shows what it costs.
    """
    arguments = locals()
    from spacelite.api.runs import PREDICTING

    if texts and file is not None:
        raise SpaceliteError("give texts or --file, not both")
    if as_csv and as_json:
        raise SpaceliteError("give --csv or --json, not both")
    if out is not None and as_csv:
        raise SpaceliteError(f"give --csv or --out, not both: the name of {out} says the form")
    if texts and len(texts) == 1 and os.path.isfile(texts[0]):  # noqa: PTH113 - Path's own raises
        raise SpaceliteError(
            f"{texts[0]} is a file: give --file {texts[0]} to classify its texts (the name itself "
            "can be given on standard input)"
        )
    if text_column is not None and file is None:
        raise SpaceliteError("--text-column needs --file with a table: texts have no columns")
    if quoting != "standard" and file is None:
        raise SpaceliteError("--quoting needs --file with a csv or tsv table")
    if pair is not None and (not texts or len(texts) > 1):
        raise SpaceliteError(
            "--pair needs one text before it; for several pairs give --file with two columns"
        )
    if out is not None:
        writers.check(out)
    loaded = spacelite.load_run(run, cache_dir)
    rows = _rows(texts, pair, file, text_column, quoting, loaded.record.text_column)
    if texts and pair is None and loaded.record.spec.pairs:
        raise SpaceliteError(f"run {loaded.id} was trained on pairs of texts: {SECOND}")
    loaded.require_kind(rows)
    how = {name: arguments[name] for name in PREDICTING if name in arguments}
    if out is not None:
        with console.progress() as on_progress:
            done = loaded.predict_rows(rows, out, progress=on_progress, **how)
        console.result(done, as_json)
        return
    if as_csv or as_json:
        classify = partial(loaded.predict_batches, total=rows.count, **how)
        form = "csv" if as_csv else "json"
        _print_stream(rows, classify, *loaded.decides(threshold, min_probability), form)
        return
    predictions = console.call(loaded.predict, arguments, texts=[rows.text(row) for row in rows])
    console.show(predictions.table())
    for note in predictions.notes:
        console.say(note)


def _rows(
    texts: list[str] | None,
    pair: str | None,
    file: Path | None,
    text_column: str | None,
    quoting: str,
    remembered: str | None,
) -> TextRows:
    """The texts of the command line, a file or standard input."""
    from spacelite.data import readers
    from spacelite.data.splits import Pair

    if file is not None:
        return readers.open_texts(file, text_column, quoting=quoting, remembered=remembered)
    if texts:
        given = texts if pair is None else [Pair(texts[0], pair)]
        return readers.given_texts(given, "the command line")
    if sys.stdin.isatty():
        raise SpaceliteError("give texts, --file, or lines on standard input")
    return readers.open_lines(sys.stdin.buffer)


def _print_stream(
    rows: TextRows, classify: Classify, record: RunRecord, minimum: float | None, form: str
) -> None:
    """Print predictions as they come. A table keeps its columns."""
    from spacelite.api.results import FilePredictions
    from spacelite.api.runs import Columns, with_predictions

    tally = FilePredictions(record, minimum)
    columns = Columns(rows, record) if rows.is_table else None
    written = writers.rounded if form == "csv" else dict
    # Where results appear on a terminal they show the progress, and bars would stand in between.
    stream, shown = sys.stdout, sys.stdout.isatty()
    with console.progress() as on_progress:
        classify = partial(classify, progress=False if shown else on_progress)

        def batches() -> Batches:
            for kept, predictions in with_predictions(rows, classify):
                tally.add(predictions)
                found = map(written, predictions)
                yield [*found] if columns is None else [*map(columns.row, kept, found)]

        texts = _csv(batches(), record, columns) if form == "csv" else _json(batches())
        for text in texts:
            # Not sys.stdout, which the bars replace while they are shown.
            console.write(text, form, stream)
            stream.flush()
    # Documents for other programs stay whole: what is said of them goes to standard error.
    for note in tally.notes:
        console.note(note)


def _csv(batches: Batches, record: RunRecord, columns: Columns | None) -> Iterator[str]:
    """The parts of a csv table; the first comes with the header."""
    from spacelite.data.splits import PAIR

    (label,) = record.task.as_json([])
    first = [*PAIR[: 1 + record.spec.pairs], label, "unknown"]
    lines: list[list[Any]] = [
        [*first, *record.probability_names] if columns is None else columns.names
    ]
    for batch in batches:
        for row in batch:
            if columns is None:
                lines.append(
                    [*(row[name] for name in first), *row.get("probabilities", {}).values()]
                )
            else:
                lines.append([row.get(name) for name in columns.names])
        yield writers.csv_lines(lines)
        lines = []


def _json(batches: Batches) -> Iterator[str]:
    """The parts of a JSON list, as `console.print_json` prints it."""
    before = "[\n"
    for batch in batches:
        texts = (console.json_text(document).replace("\n", "\n ") for document in batch)
        yield before + ",\n".join(f" {text}" for text in texts)
        before = ",\n"
    yield "\n]\n"
