"""A data set as the rest of the library sees it: splits of texts and labels."""

from __future__ import annotations

import hashlib
import itertools
import logging
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from mmap import MADV_DONTNEED, mmap
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from spacelite.errors import SpaceliteError
from spacelite.lazy import pyarrow as pa
from spacelite.tasks import Task, find_task

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
SPLIT_ALIASES = {"valid": "validation", "val": "validation", "dev": "validation"}
SEED = 42  # of all random splits and samples, as in the published protocol
VALIDATION_SHARE = 0.1  # of the training texts, where a data set has no validation split
LABELS_NAMED = 5  # in a message
AT_ONCE = 1000  # values of a column that are Python objects at a time
DROPPED = dict.fromkeys([*range(33), 127])  # ascii control characters and the space

Labels: TypeAlias = "npt.NDArray[Any]"  # as the task has them: int64, or float64 for numbers
Digests = npt.NDArray[np.void]
DIGEST = np.dtype("V16")  # a hash of 16 bytes

PAIR = ("text", "text_pair")  # columns of pairs that have no other names, as transformers has them


class Pair(NamedTuple):
    """Two texts that are read together, such as a premise and a hypothesis. Swapped they are
    another pair."""

    first: str
    second: str


# What a backbone reads of one example. `Table.texts` makes it from a row, `as_bytes`, `folded` and
# `beginning` say when two are the same, and `tokenizer.tokenize` encodes it.
Text: TypeAlias = str | Pair


@dataclass(frozen=True)
class Source:
    """Where an example comes from."""

    # The name of a file, inside its folder if the data set is a folder; or the name of the data
    # set, with its split in brackets, if it was not read from files.
    file: str
    row: int  # counted from 1; the header of a csv file is not counted

    def __str__(self) -> str:
        return f"{self.file}, row {self.row:,}"


@dataclass(frozen=True)
class Sources:
    """Where the N examples of a split come from, as `Source` says it of one."""

    files: tuple[str, ...]
    file: npt.NDArray[np.int64]  # index of each example's file in `files`, (N,)
    row: npt.NDArray[np.int64]  # row of each example in its file, counted from 1, (N,)
    sizes: tuple[int, ...] = ()  # rows of each file, used or not; empty if that is not known

    @classmethod
    def of_files(cls, sizes: Sequence[tuple[str, int]]) -> Sources:
        """The sources of all rows of some files, given each file's name and number of rows."""
        counts = [count for _, count in sizes]
        return cls(
            tuple(name for name, _ in sizes),
            np.repeat(np.arange(len(sizes)), counts).astype(np.int64),
            np.concatenate([np.arange(1, count + 1) for count in counts]).astype(np.int64),
            tuple(counts),
        )

    @classmethod
    def joined(cls, parts: Sequence[Sources]) -> Sources:
        """The sources of several parts of a split, one after another, which were read from the same
        files."""
        return replace(
            parts[0],
            file=np.concatenate([part.file for part in parts]),
            row=np.concatenate([part.row for part in parts]),
        )

    def take(self, rows: npt.NDArray[np.int64]) -> Sources:
        """The sources of the examples at the indices `rows`, in that order."""
        return replace(self, file=self.file[rows], row=self.row[rows])

    @property
    def index(self) -> npt.NDArray[np.int64]:
        """The index of each example's row among the rows of all files, (N,)."""
        starts = np.cumsum([0, *self.sizes[:-1]])
        return starts[self.file] + self.row - 1

    def __getitem__(self, example: int) -> Source:
        return Source(self.files[self.file[example]], int(self.row[example]))

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, eq=False)
class Column(Sequence[Any]):
    """N values of a column of Arrow arrays, of which few at a time are Python objects. A slice is a
    list."""

    arrays: pa.ChunkedArray
    rows: npt.NDArray[np.int64] | None = None  # of the values in `arrays`, (N,); None: all
    # Files on disk that hold the arrays. What was read of them is not kept in memory.
    mapped: tuple[mmap, ...] = ()

    def take(self, rows: npt.NDArray[np.int64]) -> Column:
        """The values at the indices `rows`, in that order."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    @override
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [*self.take(np.arange(len(self))[at])]
        return self._read(np.array([range(len(self))[at]]))[0]

    @override
    def __iter__(self) -> Iterator[Any]:
        for first in range(0, len(self), AT_ONCE):
            yield from self._read(np.arange(first, min(first + AT_ONCE, len(self))))

    @override
    def __len__(self) -> int:
        return len(self.arrays) if self.rows is None else len(self.rows)

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.cumsum([0, *map(len, self.arrays.iterchunks())])[:-1]

    def _read(self, indices: npt.NDArray[np.int64]) -> list[Any]:
        values = list[Any]()
        rows = indices if self.rows is None else self.rows[indices]
        array_of = np.searchsorted(self._starts, rows, side="right") - 1
        # Runs of rows in the same array.
        for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(array_of)) + 1):
            number = int(array_of[run[0]])
            # Not pa.array(), which imports pandas to see whether its argument comes from there.
            chosen = pa.py_buffer(rows[run] - self._starts[number])
            within = pa.Array.from_buffers(pa.int64(), len(run), [None, chosen])
            values += self.arrays.chunk(number).take(within).to_pylist()
        for file in self.mapped:
            file.madvise(MADV_DONTNEED)
        return values


@dataclass(frozen=True, eq=False)
class Pairs(Sequence[Pair]):
    """N pairs of texts, from two columns. A slice is a list."""

    first: Column
    second: Column

    def take(self, rows: npt.NDArray[np.int64]) -> Pairs:
        """The pairs at the indices `rows`, in that order."""
        return Pairs(self.first.take(rows), self.second.take(rows))

    @overload
    def __getitem__(self, at: int) -> Pair: ...
    @overload
    def __getitem__(self, at: slice) -> list[Pair]: ...
    @override
    def __getitem__(self, at: int | slice) -> Pair | list[Pair]:
        if isinstance(at, slice):
            return [*map(Pair, self.first[at], self.second[at])]
        return Pair(self.first[at], self.second[at])

    @override
    def __iter__(self) -> Iterator[Pair]:
        return map(Pair, self.first, self.second)

    @override
    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Table:
    """One split as read from its source."""

    rows: pa.Table
    class_names: dict[str, tuple[str, ...]]  # of a column's labels 0..C-1, if the source gives them
    origin: str  # where the table comes from, for messages
    sources: Sources | None = None  # of its rows; None: in this order from `origin`
    # Columns of a JSON file that are not in `rows`, since their values have no common type, with
    # what to say if one is asked for.
    mixed: Mapping[str, SpaceliteError] = field(default_factory=dict)
    mapped: tuple[mmap, ...] = ()  # as in `Column`
    chosen: npt.NDArray[np.int64] | None = None  # those of `rows` that are in the split; None: all
    are_pairs: bool = False  # whether the texts were given as pairs, which are the columns PAIR

    @property
    def names(self) -> list[str]:
        """The names of all columns."""
        return [*self.rows.column_names, *self.mixed]

    @property
    def source_rows(self) -> Sources:
        """Where each row comes from."""
        return (
            Sources.of_files([(self.origin, len(self))]) if self.sources is None else self.sources
        )

    @property
    def row_numbers(self) -> npt.NDArray[np.int64]:
        """The rows as messages name them, counted from 1: as in the file, if it is a single one."""
        if self.sources is None or len(self.sources.files) > 1:
            return np.arange(1, len(self) + 1)
        return self.sources.row

    def column(self, name: str) -> Column:
        """The values of a column. Raises SpaceliteError if they have no common type."""
        if name in self.mixed:
            raise self.mixed[name]
        return Column(self.rows.column(name), self.chosen, self.mapped)

    def texts(self, names: Sequence[str]) -> Sequence[Text]:
        """The texts of a column, or the pairs of two."""
        columns = [*map(self.column, names)]
        return columns[0] if len(columns) == 1 else Pairs(*columns)

    def take(self, rows: npt.NDArray[np.int64]) -> Table:
        """The rows at the indices `rows`, in that order."""
        chosen = rows if self.chosen is None else self.chosen[rows]
        return replace(self, chosen=chosen, sources=self.source_rows.take(rows))

    def __len__(self) -> int:
        return self.rows.num_rows if self.chosen is None else len(self.chosen)

    def is_string(self, column: str) -> bool:
        """Whether the column's type is one of Arrow's string types."""
        if column in self.mixed:
            return False
        kind = self.rows.schema.field(column).type
        return bool(
            pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
            or pa.types.is_string_view(kind)
        )


@dataclass(frozen=True)
class Split:
    """N texts and their labels."""

    texts: Sequence[Text]
    # (N,) int64 of 0..C-1; (N, C) int64 of 0 and 1 in a multi-label task; (N,) float64 of numbers
    labels: Labels
    sources: Sources | None = None  # where the examples come from; None if that is not known

    def part(self, first: int, last: int) -> Split:
        """The examples first:last."""
        rows = np.arange(len(self))[first:last]
        sources = None if self.sources is None else self.sources.take(rows)
        return Split(self.texts[first:last], self.labels[first:last], sources)

    def take(self, rows: npt.NDArray[np.int64]) -> Split:
        """The examples at the indices `rows`, in that order."""
        sources = None if self.sources is None else self.sources.take(rows)
        texts = self.texts
        if isinstance(texts, Column | Pairs):
            return Split(texts.take(rows), self.labels[rows], sources)
        return Split([texts[i] for i in rows], self.labels[rows], sources)

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TextDataset:
    """A data set ready to embed."""

    name: str
    splits: dict[str, Split]  # train, validation and, if there is one, test, in this order
    label_names: tuple[str, ...]  # of labels 0..C-1
    path: str | None = None  # in full; None if it was read from no file or folder
    quoting: str = "standard"  # how csv files in it were read
    # That the texts were read from, of pairs both with a comma between them; None if they had none.
    text_column: str | None = None
    task_name: str | None = None  # in TASKS; None for classification

    @property
    def are_pairs(self) -> bool:
        """Whether its examples are pairs of texts."""
        return isinstance(next(iter(self.splits.values())).texts[0], Pair)

    @property
    def task(self) -> Task:
        """What the labels mean."""
        return find_task(self.task_name, next(iter(self.splits.values())).labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of every split's name, texts and labels: the same texts and labels in the same
        order give the same fingerprint, whatever their source."""
        digest = hashlib.sha256()
        for name, split in self.splits.items():
            digest.update(f"{name}:{len(split)}\n".encode())
            for text in split.texts:
                digest.update(as_bytes(text))
            labels = split.labels.astype(np.dtype(self.task.label_type).newbyteorder("<"))
            digest.update(labels.tobytes())
        return digest.hexdigest()


def lacking(labels: Mapping[str, Labels], task: Task, names: Sequence[str]) -> str:
    """Which labels of training other splits have no example of, in words; "" if there are none."""
    counts = {split: task.label_counts(of, len(names)) for split, of in labels.items()}
    parts = []
    for split, of in counts.items():
        without = np.flatnonzero((of == 0) & (counts["train"] > 0))
        missing = [repr(names[label]) for label in without.tolist()]
        if missing:
            more = f" and {len(missing) - LABELS_NAMED:,} more" * (len(missing) > LABELS_NAMED)
            parts.append(f"{split} has no example of {', '.join(missing[:LABELS_NAMED])}{more}")
    return f"{'; '.join(parts)}: its figures say nothing of such a label" if parts else ""


def as_bytes(text: Text) -> bytes:
    """A text as bytes that no other has, nor several one after another."""
    if isinstance(text, Pair):
        return b"\xff" * 8 + b"".join(map(as_bytes, text))  # no text is so long
    encoded = text.encode("utf-8", "surrogatepass")
    return len(encoded).to_bytes(8, "little") + encoded


def folded(text: Text) -> str:
    """A text without case, accents, spaces and invisible characters, which many tokenizers drop:
    texts that differ in nothing else are the same. The two of a pair have a line break between
    them."""
    if isinstance(text, Pair):
        return "\n".join(map(folded, text))
    if text.isascii():
        return text.lower().translate(DROPPED)
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(
        part for part in parts if unicodedata.category(part) not in ("Mn", "Cc", "Cf", "Zs")
    )


def beginning(text: Text, tokens: int) -> str:
    """The beginning of a text, as `folded`, of which every character is before the cut if it is cut
    off at so many tokens: each of a pair keeps at least about half of them."""
    if isinstance(text, Pair):
        return "\n".join(beginning(part, tokens // 2) for part in text)
    return folded(text)[: tokens // 2]


def named(text: Text) -> dict[str, str]:
    """A text by its name, and of a pair both by theirs, as in PAIR."""
    return dict(zip(PAIR, text if isinstance(text, Pair) else [text], strict=False))


def joined(text: Text, between: str = " | ") -> str:
    """A text as tables show it: of a pair both, with a bar `between` them."""
    return between.join(text) if isinstance(text, Pair) else text


def text_digests(texts: Iterable[Text]) -> Digests:
    """What identifies each of N texts, as `folded`, (N,)."""
    return digests(folded(text).encode("utf-8", "surrogatepass") for text in texts)


def digests(contents: Iterable[bytes | memoryview]) -> Digests:
    """A hash of each of N contents, (N,)."""
    hashed = bytearray()
    for content in contents:
        hashed += blake2b(content, digest_size=DIGEST.itemsize).digest()
    of_all: Digests = np.ndarray(len(hashed) // DIGEST.itemsize, DIGEST, hashed)
    return of_all


def groups(of: Digests) -> npt.NDArray[np.int64]:
    """A number for each of N digests, which equal ones share, in the order in which they first
    occur, (N,)."""
    order = np.argsort(of.view("S16"), kind="stable")
    ordered = of[order]
    begins = np.append(True, ordered[1:] != ordered[:-1])[: len(of)]
    del ordered
    # Each group's number is the rank of its first example among those of all groups.
    firsts = order[begins]
    rank = np.empty(len(firsts), np.int64)
    rank[np.argsort(firsts)] = np.arange(len(firsts))
    numbers = np.empty(len(of), np.int64)
    numbers[order] = rank[np.cumsum(begins) - 1]
    return numbers


def occur_in(own: Digests, known: Digests) -> npt.NDArray[np.bool_]:
    """Which of N digests are among others, (N,)."""
    numbers = groups(np.concatenate([known, own]))
    return np.isin(numbers[len(known) :], numbers[: len(known)])


def without_leaks(dataset: TextDataset) -> TextDataset:
    """The data set without training examples whose text, as `folded`, occurs in another split."""
    train = dataset.splits["train"]
    others = (split.texts for name, split in dataset.splits.items() if name != "train")
    held = text_digests(itertools.chain.from_iterable(others))
    kept = ~occur_in(text_digests(train.texts), held)
    dropped = int((~kept).sum())
    if dropped == len(train):
        raise SpaceliteError(
            f"every training text of {dataset.name} also occurs in validation or test: leave "
            "drop_leaks=True out, or give other training data",
            ["drop_leaks"],
        )
    single = dropped == 1
    log.info(
        "%s of %s training examples %s left out: %s also in validation or test",
        f"{dropped:,}", f"{len(train):,}", "was" if single else "were",
        "its text is" if single else "their texts are",
    )  # fmt: skip
    splits = {**dataset.splits, "train": train.take(np.flatnonzero(kept))}
    return replace(dataset, splits=splits)


def drawn(dataset: TextDataset, shares: Mapping[str, float]) -> tuple[TextDataset, int]:
    """The data set with `validation`, `test` or both drawn from its train split, given the share of
    the texts that each gets; and the number of texts that stay in train for their labels' sake.

    A seeded hash makes a number in [0, 1) of each text, as `folded`. Validation gets the texts with
    numbers below its share, test those with numbers above 1 less its share: each text alone decides
    where it is, whatever other rows there are, and all examples of a text are together. There are
    two exceptions. The last training text of a label stays, which is the one that is least beyond
    the limit; and a split without texts gets the nearest one that may leave train.

    Raises SpaceliteError if no text may leave train.
    """
    split_of, kept = _split_of(dataset, shares)
    train, splits = dataset.splits["train"], dict(dataset.splits)
    for number, split in enumerate(("train", *shares)):
        splits[split] = train.take(np.flatnonzero(split_of == number))
    return replace(dataset, splits={name: splits[name] for name in SPLITS if name in splits}), kept


def _split_of(
    dataset: TextDataset, shares: Mapping[str, float]
) -> tuple[npt.NDArray[np.int8], int]:
    """Where `drawn` puts each of the N training examples: 0 for train, then the number of the split
    in `shares`, (N,); and the number of texts that stay for their labels' sake."""
    train, classes = dataset.splits["train"], len(dataset.label_names)
    numbers = np.empty(len(train))

    def contents() -> Iterator[bytes]:
        for example, text in enumerate(train.texts):
            content = folded(text).encode("utf-8", "surrogatepass")
            numbers[example] = _number(content)
            yield content

    text_of = groups(digests(contents()))  # the number of each example's text
    examples = np.argsort(text_of, kind="stable")
    bounds = np.append(0, np.cumsum(np.bincount(text_of)))  # of each text's own in `examples`
    numbers = numbers[examples[bounds[:-1]]]
    left = np.append(dataset.task.label_counts(train.labels, classes), len(train))
    split_of, kept = np.zeros(len(numbers), np.int8), 0
    for number, (split, share) in enumerate(shares.items(), 1):
        # How far each text is beyond the limit; negative in train.
        beyond = share - numbers if split == "validation" else numbers - (1 - share)
        order, chosen = np.argsort(-beyond, kind="stable"), False
        for text in order[split_of[order] == 0]:
            if chosen and beyond[text] <= 0:
                break
            own = examples[bounds[text] : bounds[text + 1]]
            of_text = np.append(dataset.task.label_counts(train.labels[own], classes), len(own))
            if not ((of_text == left) & (left > 0)).any():  # the last one of a label, or of all
                left -= of_text
                split_of[text], chosen = number, True
        if not chosen:
            raise SpaceliteError(
                f"{dataset.name} has too few different training texts to draw a {split} split from "
                f"them: a label must keep one; add texts, or give a {split} split"
            )
        kept += int((beyond[split_of == 0] > 0).sum())
    return split_of[text_of], kept


def _number(text: bytes) -> float:
    """A number in [0, 1) that a text, as `folded`, always gets."""
    digest = blake2b(f"{SEED} ".encode() + text, digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53  # as many bits as a float holds


def stratified_sample(labels: Labels, task: Task, size: int) -> npt.NDArray[np.int64]:
    """Sorted indices of a seeded random sample that keeps label proportions to within one example.

    Every label gets its share rounded down; what is left goes to the largest remainders.
    scikit-learn's stratified split refuses labels that occur only once and samples that leave fewer
    examples than classes; both are allowed here. Multi-label samples are not stratified.
    """
    random = np.random.RandomState(SEED)  # its stream is frozen across numpy versions
    strata = task.strata(labels)
    classes, counts = np.unique(strata, return_counts=True)
    size = min(size, len(labels))
    sizes, remainders = np.divmod(counts * size, len(labels))
    sizes[np.argsort(-remainders, kind="stable")[: size - sizes.sum()]] += 1
    rows = [
        random.permutation(np.flatnonzero(strata == stratum))[:part]
        for stratum, part in zip(classes, sizes, strict=True)
    ]
    return np.sort(np.concatenate(rows)).astype(np.int64)


def standard_split(name: str) -> str:
    """The standard name of a split: validation for val, valid and dev; others in lower case."""
    return SPLIT_ALIASES.get(name.lower(), name.lower())
