"""A name, a path or Python objects -> a data set: splits, samples, checks.

Known data sets follow their protocol (`known`). Other data sets keep their splits; if there is no
validation split, it is drawn from train. Objects of pandas and datasets are recognised by the
names of their classes, without an import.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import hub
from spacelite.data import columns, readers
from spacelite.data.columns import Reading, is_missing
from spacelite.data.known import KNOWN, KnownDataset, by_hub_name
from spacelite.data.splits import (
    LABELS_NAMED,
    PAIR,
    SEED,
    SPLITS,
    VALIDATION_SHARE,
    Pair,
    Sources,
    Split,
    Table,
    Text,
    TextDataset,
    drawn,
    lacking,
    standard_split,
    stratified_sample,
    without_leaks,
)
from spacelite.errors import SpaceliteError, one_line
from spacelite.lazy import pyarrow as pa
from spacelite.settings import choose_from, or_meant
from spacelite.tasks import TASKS

NAME = "texts"  # default name of data passed as objects

log = logging.getLogger(__name__)

Rows = npt.NDArray[np.int64]


def read(
    dataset: Any = None,
    *,
    texts: Sequence[Any] | None = None,
    labels: Sequence[Any] | None = None,
    name: str | None = None,
    limit: int | None = None,
    data_dir: Path | None = None,
    test_fraction: float | None = None,
    drop_leaks: bool = False,
    training: bool = True,
    scratch: Path | None = None,
    **how: Any,
) -> TextDataset:
    """Read a data set, as `spacelite.embed`, which explains the arguments; `how` are those of
    `Reading`. Texts of large files lie on the disk of the folder `scratch` meanwhile.

    Data that are not for `training` may lack a train split, or have a single label or text; without
    named splits, they are the test split.
    """
    if (dataset is None) == (texts is None):
        raise SpaceliteError("give either dataset or texts", ["dataset", "texts"])
    if (texts is None) != (labels is None):
        problem = "labels go with texts" if texts is None else "texts need labels, one for each"
        raise SpaceliteError(f"{problem}: give both, or a dataset", ["dataset", "texts", "labels"])
    if isinstance(dataset, str | Path) and name is not None:
        raise SpaceliteError(
            f"name={name}: {dataset} has a name of its own; leave name out", ["name"]
        )
    if limit is not None and limit < 1:
        raise SpaceliteError(f"limit={limit}: give at least one example per split", ["limit"])
    reading, known = Reading(**how), None
    if isinstance(dataset, str | Path):
        data, known = _named(str(dataset), data_dir, reading, training, scratch)
    else:
        name = name or NAME
        readers.check_quoting(reading.quoting, name)
        found = _tables_of(dataset, name) if texts is None else _labelled(texts, labels, name)
        data = _numbered(name, found, reading, training)
    data = _completed(data, known, test_fraction, training)
    if drop_leaks:
        data = without_leaks(data)
    if training:
        _check_classes(data, warn=limit is None)
    if limit is None:
        return data
    samples = {
        key: split.take(stratified_sample(split.labels, data.task, limit))
        for key, split in data.splits.items()
    }
    data = replace(data, splits=samples)
    if training:
        _check_classes(data, limit, warn=True)
    return data


def with_labels(
    table: Table,
    path: Path,
    stand_ins: Sequence[str],
    reading: Reading,
    test_fraction: float | None = None,
) -> tuple[TextDataset, dict[str, Rows]]:
    """The labels of N rows, `table`, that were read from a file at `path`, as a data set; and the
    rows of each split. The texts are those of the column that is named or has a usual name. Without
    one, `stand_ins` (N,) are in their place."""
    if reading.text_column is None and not columns.has_texts(table):
        rows = table.rows.append_column(columns.STAND_IN, pa.array(stand_ins, pa.string()))
        table, reading = replace(table, rows=rows), replace(reading, text_column=columns.STAND_IN)
    path = path.resolve()
    data = _numbered(path.stem, table, reading, True, place=str(path))
    data = _completed(data, None, test_fraction, True)
    _check_classes(data, warn=True)
    of_splits = {
        split: positions(table.source_rows, part.sources)
        for split, part in data.splits.items()
        if part.sources is not None
    }
    return data, of_splits


# By name or path.


def _named(
    name: str, data_dir: Path | None, reading: Reading, training: bool, scratch: Path | None
) -> tuple[TextDataset, KnownDataset | None]:
    """A built-in data set, or that of a path, in `data_dir`, or on the hub, as it is divided there;
    and what is known of it."""
    known = KNOWN.get(name)
    if known is not None and known.make is not None:
        for field in fields(Reading):
            if (value := getattr(reading, field.name)) != field.default:
                raise SpaceliteError(
                    f"{field.name}={value} has no effect on {name}, a built-in data set: leave it "
                    "out",
                    [field.name],
                )
        splits = {
            split: replace(texts, sources=Sources.of_files([(f"{name} ({split})", len(texts))]))
            for split, texts in known.make().items()
        }
        return TextDataset(name, splits, known.label_names, task_name=known.task), known
    if data_dir is not None and not name.startswith((".", "/", "~")):
        if not data_dir.is_dir():
            raise SpaceliteError(f"data_dir={data_dir}: there is no such folder", ["data_dir"])
        if os.path.exists(data_dir / _split_name(name)[0]):  # noqa: PTH110 - as below
            name = str(data_dir / name)
    base, merging = _split_name(name)
    place = None
    found: Table | Mapping[str, Table]
    path = Path(os.path.expanduser(base))  # noqa: PTH111 - Path's own raises for ~nobody
    if os.path.exists(path):  # noqa: PTH110 - Path's own raises for over-long names
        place = str(path.resolve())
        base = path.resolve().stem if path.is_file() else path.resolve().name
        found = readers.from_path(path, training=training, quoting=reading.quoting, scratch=scratch)
        if path.is_file():
            found = found["train"]
        known = KNOWN.get(base)
    elif path.suffix.lower() in readers.SUFFIXES or base.startswith((".", "/", "~")):
        raise SpaceliteError(f"there is no file or folder {base}")
    else:
        readers.check_quoting(reading.quoting, base)
        _refuse_column(name, reading)  # before it is downloaded
        base, _, config = by_hub_name(base).partition(":")
        known = KNOWN.get(base)
        on_hub, revision = (base, None) if known is None else (str(known.hub), known.revision)
        try:
            found = from_hub(on_hub, config or None, revision)
        except SpaceliteError as error:
            if known is None:
                raise or_meant(error, base, KNOWN) from error
            raise SpaceliteError(f"{error}{known.hint}", error.arguments) from error
    data = _numbered(base, found, reading, training, known, place)
    if merging is None:
        return data, known
    if known is None or data.label_names != known.label_names:
        raise SpaceliteError(
            f"{name}: its labels are {', '.join(data.label_names)}, not "
            f"{', '.join(known.label_names if known else ())}: they cannot be merged"
        )
    merged = (merging.merged or {}).values()
    numbers = np.array(
        [next(new for new, olds in enumerate(merged) if old in olds) for old in data.label_names]
    )
    splits = {
        key: replace(split, labels=numbers[split.labels]) for key, split in data.splits.items()
    }
    name = name.rpartition("/")[2]
    return replace(data, name=name, splits=splits, label_names=merging.label_names), known


def _split_name(name: str) -> tuple[str, KnownDataset | None]:
    """Split a name such as `folder/hatexplain:2` into the data set to read, `folder/hatexplain`,
    and the known data set that merges its labels; other names are returned unchanged, with None."""
    last = name.rpartition("/")[2]
    known = KNOWN.get(last)
    if known is None or known.of is None:
        return name, None
    return name.removesuffix(last) + known.of, known


def from_hub(name: str, config: str | None = None, revision: str | None = None) -> dict[str, Table]:
    """The tables of a data set on the hub, or in the local hub cache if there is no network."""
    if hub.data_set_is_online(name, revision):
        location, revision_there = name, revision
    else:
        location, revision_there = str(hub.cached_data_set_folder(name, revision)), None

    import datasets

    try:
        loaded = datasets.load_dataset(location, config, revision=revision_there)
    except Exception as error:  # the builders raise whatever their formats raise
        problem = one_line(error).partition(" Example of usage: ")[0]  # of `datasets`, not ours
        remedy = f": dataset={name}:CONFIGURATION" if "Config name is missing" in problem else ""
        raise SpaceliteError(
            f"data set {name!r} cannot be loaded: {problem}{remedy}",
            ["dataset"] if remedy else [],
        ) from error
    return tables_of_datasets(loaded, name)


def tables_of_datasets(loaded: Mapping[str, Any], name: str) -> dict[str, Table]:
    """The tables of a `datasets.DatasetDict`; splits other than train, validation and test (imdb's
    `unsupervised`) are left out, which is logged."""
    left_out = [str(key) for key in loaded if standard_split(str(key)) not in SPLITS]
    if left_out:
        # What known data sets hold beside their splits is known too.
        level = logging.INFO if by_hub_name(name) in KNOWN else logging.WARNING
        log.log(
            level, "%s: not used, as no train, validation or test split: %s", name,
            ", ".join(left_out),
        )  # fmt: skip
    return {
        standard_split(str(key)): _table_of_dataset(split, f"{name} ({key})")
        for key, split in loaded.items()
        if str(key) not in left_out
    }


# From Python objects.


def _tables_of(dataset: Any, name: str) -> Table | dict[str, Table]:
    """The table of an object, or that of each split."""
    if _is(dataset, "datasets.DatasetDict"):
        return tables_of_datasets(dataset, name)
    if not isinstance(dataset, Mapping):
        return _table(dataset, name)
    tables: dict[str, Table] = {}
    for key, table in dataset.items():
        split = standard_split(str(key))
        if split not in SPLITS or split in tables:
            problem = "is given twice" if split in tables else "is unknown"
            raise SpaceliteError(
                f"split {key!r} {problem}: the splits are train, validation and test, each once"
            )
        tables[split] = _table(table, f"{name} ({key})")
    return tables


def _table(split: Any, origin: str) -> Table:
    """One split from any of the supported objects."""
    if _is(split, "pandas.DataFrame"):
        frame = split.rename(columns=str)
        readers.refuse_twice(origin, list(frame.columns))
        try:
            return Table(pa.Table.from_pandas(frame, preserve_index=False), {}, origin)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            values = {
                name: [None if is_missing(value) else _plain(value) for value in frame[name]]
                for name in frame.columns
            }
            return _typed(values, origin)
    if _is(split, "datasets.Dataset"):
        return _table_of_dataset(split, origin)
    if isinstance(split, tuple | list) and len(split) == 2:
        return _labelled(split[0], split[1], origin)
    raise SpaceliteError(
        f"{origin} cannot be read from a {type(split).__name__}: give a name or path, texts=[...] "
        "with labels=[...], a pandas DataFrame, a datasets.DatasetDict, or "
        '{"train": (texts, labels)}',
        ["texts", "labels"],
    )


def texts_of(
    table: Any, text_column: str | Sequence[str] | None = None, remembered: str | None = None
) -> list[Text] | None:
    """The texts of a DataFrame or a `datasets.Dataset`, whose columns are found as in a file
    (`readers.open_texts`); None if it is neither. Raises SpaceliteError if there are no such
    columns, or a row lacks its text."""
    if not (_is(table, "datasets.Dataset") or _is(table, "pandas.DataFrame")):
        return None
    found = _table(table, f"the {type(table).__name__}")
    names, strings = found.names, list(filter(found.is_string, found.names))
    wanted, _ = columns.wanted_columns(names, text_column, remembered)
    chosen = columns.find_texts(found.origin, names, strings, wanted)
    if text_column is None and len(names) > 1:
        log.info("%s", columns.texts_are(chosen))
    for name in chosen:
        columns.check_texts(found.origin, name, found.column(name), refuse_numbers=not wanted)
    return [*found.texts(chosen)]


def _is(value: Any, kind: str) -> bool:
    """Whether a value is an instance of the class `package.Name`, without importing the package."""
    package, _, name = kind.partition(".")
    return any(
        cls.__name__ == name and cls.__module__.partition(".")[0] == package
        for cls in type(value).__mro__
    )


def _labelled(texts: Any, labels: Any, origin: str) -> Table:
    """The table of texts, or pairs of them, and their labels."""
    texts, labels = _listed(texts, "texts", origin), _listed(labels, "labels", origin)
    if len(texts) != len(labels):
        raise SpaceliteError(
            f"{origin}: {len(texts):,} texts and {len(labels):,} labels: give one label (or list "
            "of labels) for each text"
        )
    if not any(isinstance(text, list) for text in texts):
        return _typed({"text": texts, "label": labels}, origin)
    pairs = [*map(columns.as_pair, texts)]
    single = next((row for row, pair in enumerate(pairs, 1) if not isinstance(pair, Pair)), None)
    if single is not None:
        raise SpaceliteError(
            f"{origin}: text {single:,} is no pair, and others are: give two texts for each "
            "example, or one"
        )
    values = dict(zip(PAIR, map(list, zip(*pairs, strict=True)), strict=True))
    return replace(_typed({**values, "label": labels}, origin), are_pairs=True)


def _typed(values: Mapping[str, list[Any]], origin: str) -> Table:
    """The table of some columns. One whose values have no single type is an error only if it is
    asked for."""
    rows, mixed = readers.typed(origin, values)
    if mixed and not rows.column_names:
        raise next(iter(mixed.values()))
    return Table(rows, {}, origin, mixed=mixed)


def _listed(values: Any, what: str, origin: str) -> list[Any]:
    """A sequence, array or Series as a list of plain Python objects."""
    if _is(values, "pandas.DataFrame") or _is(values, "datasets.Dataset"):
        raise SpaceliteError(
            f"{what} is a {type(values).__name__}: give one column, such as "
            f"{what}=df[{what.removesuffix('s')!r}]",
            [what],
        )
    listable = hasattr(values, "__len__") and not isinstance(values, str | bytes | Mapping | type)
    if not listable:
        raise SpaceliteError(
            f"{origin}: {what} must be a list or an array, not a {type(values).__name__}"
        )
    listed = values.tolist() if hasattr(values, "tolist") else values
    return [_plain(value) for value in listed]


def _plain(value: Any) -> Any:
    if _is(value, "pandas.NAType"):
        return None
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return list(value) if isinstance(value, tuple | set | frozenset) else value


def _table_of_dataset(dataset: Any, origin: str) -> Table:
    """The table of a `datasets.Dataset`, with the names of its class labels."""
    names = readers.class_names(dataset.features.arrow_schema)
    # Not `dataset.data`, which ignores selections and shuffles.
    return Table(dataset.with_format("arrow")[:], names, origin)


# Tables -> splits.


def _refuse_column(name: str, reading: Reading) -> None:
    """Refuse a column that names the split of each row where the data come in splits."""
    if reading.split_column is not None:
        raise SpaceliteError(
            f"split_column={reading.split_column}: {name} is no single table: a file or a "
            "DataFrame can have such a column; leave it out",
            ["split_column"],
        )


def _divided(
    found: Table | Mapping[str, Table], name: str, reading: Reading, training: bool
) -> dict[str, Table]:
    """The table of each split. A column may name the splits of a single table; without one, all
    rows are training data, or are there to be evaluated on."""
    if isinstance(found, Table):
        found = columns.by_split(found, reading) or {"train" if training else "test": found}
    else:
        _refuse_column(name, reading)
        columns.warn_of_splits(found, reading)
    if not found or (training and "train" not in found):
        there = ", ".join(found) or "nothing"
        raise SpaceliteError(f"data set {name!r} has no train split, only {there}: add one")
    return {split: found[split] for split in SPLITS if split in found}


def _numbered(
    name: str,
    found: Table | Mapping[str, Table],
    reading: Reading,
    training: bool,
    known: KnownDataset | None = None,
    place: str | None = None,
) -> TextDataset:
    """The texts and numbered labels of a single table, or of one for each split, which was read
    from the file or folder `place`."""
    tables = _divided(found, name, reading, training)
    if known is not None and known.prepare is not None:
        tables = {split: known.prepare(table) for split, table in tables.items()}
    class_names = known.label_names if known else ()
    parts: list[columns.Labelled] = []
    chosen: dict[str, columns.Found] = {}
    for split, table in tables.items():
        if not len(table):
            raise SpaceliteError(f"{table.origin} has no rows: it needs at least one text")
        like = next(iter(chosen.values()), None)
        text_names, label_name = chosen[split] = columns.find(
            table, reading.text_column, reading.label_column, like
        )
        tables[split] = table = columns.with_texts(table, text_names, reading.skip_empty)
        parts.append(columns.label_values(table, split, label_name, reading.label_separator))
        names = table.class_names.get(label_name, ())
        if names and known is None and names != (class_names or names):
            raise SpaceliteError(
                f"{table.origin} names its labels {names}, other splits {class_names}: "
                "give all splits the same label names"
            )
        class_names = class_names or names
    values = columns.Labelled.joined(parts)
    of_numbers = columns.task_of_numbers(values, reading, class_names, name, training=training)
    if reading.text_column is None or reading.label_column is None:
        for found_names in dict.fromkeys(chosen.values()):
            alike = [split for split in tables if chosen[split] == found_names]
            where = name if len(alike) == len(tables) else f"{name} ({', '.join(alike)})"
            numbers = [*map(SPLITS.index, alike)]
            pooled = values if alike == [*tables] else values.take(np.isin(values.split, numbers))
            named = reading.label_column is not None or of_numbers is not None
            columns.log_choice(where, tables[alike[-1]].names, *found_names, pooled, named)
    task: str | None = None  # of classification
    labels: npt.NDArray[Any]
    label_names: tuple[str, ...] = (label_name,)
    if of_numbers is not None:
        task, labels = of_numbers, columns.targets(values, TASKS[of_numbers], name)
    else:
        labels, label_names = columns.classes(values, reading, class_names, name, required=training)
    ends = np.cumsum([*map(len, tables.values())])
    splits = {
        split: Split(table.texts(chosen[split][0]), of_split, table.source_rows)
        for (split, table), of_split in zip(
            tables.items(), np.split(labels, ends[:-1]), strict=True
        )
    }
    text_column = ",".join(text_names)
    return TextDataset(name, splits, label_names, place, reading.quoting, text_column, task)


def _completed(
    data: TextDataset, known: KnownDataset | None, test_fraction: float | None, training: bool
) -> TextDataset:
    """The data set with the splits that it lacks: validation, if it is for training or has texts to
    draw it from, and the fraction of its texts that is asked for as test."""
    splits = data.splits
    if test_fraction is not None and "test" in splits:
        raise SpaceliteError(
            f"test_fraction={test_fraction:g}: {data.name} has a test split: leave test_fraction "
            "out",
            ["test_fraction"],
        )
    if "train" not in splits:
        return data
    shares = {} if "validation" in splits else {"validation": VALIDATION_SHARE}
    if shares and known is not None and known.validation is not None and "test" in splits:
        splits = known.validation(splits)
        return replace(data, splits={split: splits[split] for split in SPLITS})
    if test_fraction is not None:
        shares["test"] = test_fraction
    if shares:
        try:
            data, kept = drawn(data, shares)
        except SpaceliteError:
            if training:
                raise
            return replace(data, splits={"test": splits["train"]}) if len(splits) == 1 else data
        of = f"{sum(len(data.splits[split]) for split in ('train', *shares)):,}"
        parts = [f"{len(data.splits[split]):,} are used for {split}" for split in shares]
        stay = "" if not kept else f", but for {kept:,} that a label needs in train"
        log.log(
            logging.WARNING if "validation" in shares else logging.INFO,
            "%s has no %s split: of its %s training examples, %s; each text alone decides (seed "
            "%d)%s, so that added rows move none",
            data.name, " and no ".join(shares), of, " and ".join(parts), SEED, stay,
        )  # fmt: skip
    if "test" not in data.splits:
        log.warning("%s has no test split: reports show validation metrics", data.name)
    return data


def _check_classes(dataset: TextDataset, limit: int | None = None, *, warn: bool) -> None:
    """Refuse training data of a single class or number; warn of labels that are too rare to be
    learned."""
    labels = dataset.splits["train"].labels
    if dataset.task.of_numbers and not dataset.task.learnable(labels):
        raise SpaceliteError(
            f"the train split of {dataset.name} has the label {labels[0]:g} everywhere: there is "
            "nothing to learn; name another column with label_column",
            ["label_column"],
        )
    counts = dataset.task.label_counts(labels, len(dataset.label_names)).tolist()
    present = [name for name, count in zip(dataset.label_names, counts, strict=True) if count]
    if len(present) < dataset.task.fewest_present:
        sampled = "" if limit is None else f" with limit={limit}"
        raise SpaceliteError(
            f"the train split of {dataset.name} holds a single class ({present[0]!r}){sampled}: a "
            "classifier needs at least two",
            [] if limit is None else ["limit"],
        )
    if not warn:
        return
    if len(present) < len(dataset.label_names):
        never = ", ".join(map(repr, sorted(set(dataset.label_names) - set(present))))
        log.warning("%s: no training example has label %s", dataset.name, never)
    of_splits = {split: part.labels for split, part in dataset.splits.items()}
    if missing := lacking(of_splits, dataset.task, dataset.label_names):
        log.warning("%s: %s", dataset.name, missing)
    single = [name for name, count in zip(dataset.label_names, counts, strict=True) if count == 1]
    if single:
        what, have = ("label", "has") if len(single) == 1 else ("labels", "have")
        log.warning(
            "%s: the %s %s %s a single training example%s: too few to learn from; add more if you "
            "can",
            dataset.name, what, columns.listed([*map(repr, single)], LABELS_NAMED), have,
            "" if len(single) == 1 else " each",
        )  # fmt: skip


# A column that was not read when a data set was embedded.


def column_of_rows(
    path: Path,
    name: str,
    column: str,
    of: Sources,
    texts: Sequence[Text],
    argument: str,
    *,
    quoting: str = "standard",
) -> list[Any]:
    """The values of a column in the rows that N examples come from, as the file has them: strings
    in csv files, None for a missing one. The rows must still hold the examples' texts. `path` is
    what the data set was read from, with its `quoting`; `argument` names the column in messages."""
    if not os.path.exists(path):  # noqa: PTH110 - Path's own raises for over-long names
        raise SpaceliteError(
            f"{argument}={column}: {path}, from which {name} was embedded, is not there: put it "
            "back, or run embed with the place where it is now (what has been embedded is reused)",
            [argument],
        )
    known = KNOWN.get(name)
    if known is not None and known.of is not None:
        known = KNOWN[known.of]
    tables = readers.from_path(path, training=False, quoting=quoting).values()
    prepare = known.prepare if known is not None else None
    return _of_rows(tables, prepare, column, of, texts, argument)


def column_of_object(
    dataset: Any, name: str, column: str, of: Sources, texts: Sequence[Text], argument: str
) -> list[Any]:
    """The same for a data set that was passed as an object, such as a DataFrame."""
    tables = _tables_of(dataset, name)
    every = [tables] if isinstance(tables, Table) else tables.values()
    return _of_rows(every, None, column, of, texts, argument)


def _of_rows(
    tables: Iterable[Table],
    prepare: Callable[[Table], Table] | None,
    column: str,
    of: Sources,
    texts: Sequence[Text],
    argument: str,
) -> list[Any]:
    """The values of a column in the rows of some tables; `prepare` makes a table's texts."""
    about = f"{argument}={column}"
    values: list[Any] = [None] * len(of)
    seen = np.zeros(len(of), bool)
    for table in tables:
        at = positions(table.source_rows, of)
        examples = np.flatnonzero(at >= 0)
        if not len(examples):
            continue
        prepared = table if prepare is None else prepare(table)
        changed = _changed(prepared, of.take(examples), [texts[i] for i in examples.tolist()])
        _refuse_changed(about, argument, changed)
        if column not in table.names:
            raise SpaceliteError(
                f"{about}: {table.origin} has no such column: {choose_from(column, table.names)}",
                [argument],
            )
        in_table = table.column(column).take(at[examples])
        for example, value in zip(examples.tolist(), in_table, strict=True):
            values[example] = value
        seen[examples] = True
    _refuse_changed(about, argument, of.take(np.flatnonzero(~seen)))
    return values


def positions(there: Sources, wanted: Sources) -> Rows:
    """The index in `there` of each row of `wanted`, (N,); -1 for a row that is not there."""
    if not len(there) or not len(wanted):
        return np.full(len(wanted), -1, np.int64)
    numbers = {name: number for number, name in enumerate(there.files)}
    file = np.array([numbers.get(name, -1) for name in wanted.files], np.int64)[wanted.file]
    most = 1 + max(int(there.row.max()), int(wanted.row.max()))
    keys, asked = there.file * most + there.row, file * most + wanted.row
    order = np.argsort(keys, kind="stable")
    at = order[np.minimum(np.searchsorted(keys, asked, sorter=order), len(keys) - 1)]
    indices: Rows = np.where((file >= 0) & (keys[at] == asked), at, -1)
    return indices


def _changed(table: Table, of: Sources, texts: Sequence[Text]) -> Sources:
    """The rows of a table that lack the texts. Which column the texts were read from need not be
    known: no other holds them all."""
    at = positions(table.source_rows, of)
    if (at < 0).any():
        return of.take(np.flatnonzero(at < 0))
    if isinstance(texts[0], Pair):
        lacking = [_changed(table, of, half) for half in zip(*texts, strict=True)]
        return max(lacking, key=len)
    changed = np.arange(len(texts))  # in the column that is most like the texts
    for column in filter(table.is_string, table.rows.column_names):
        pairs = zip(texts, table.column(column).take(at), strict=True)
        differing = [i for i, (text, in_table) in enumerate(pairs) if in_table != text]
        if len(differing) < len(changed):
            changed = np.array(differing, np.int64)
    return of.take(changed)


def _refuse_changed(about: str, argument: str, changed: Sources) -> None:
    if not len(changed):
        return
    raise SpaceliteError(
        f"{about}: {changed[0]}{columns.and_more(changed)} does not hold the text that was "
        "embedded: the file has changed since; embed it again, or give the values as a list in "
        "Python",
        [argument],
    )
