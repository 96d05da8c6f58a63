"""A data set as the rest of the library sees it: splits of texts and labels."""

from __future__ import annotations

import hashlib
import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from spacelite.errors import SpaceliteError
from spacelite.tasks import task_of

log = logging.getLogger(__name__)

SEED = 42  # of all random splits and samples, as in the published protocol
DROPPED = dict.fromkeys([*range(33), 127])  # ascii control characters and the space

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """Where an example comes from.

    Attributes:
        file: The name of a file, inside its folder if the data set is a folder; or the name of the
            data set, with its split in brackets, if it was not read from files.
        row: The row in that file, counted from 1. The header of a csv file is not counted.
    """

    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}, row {self.row:,}"


@dataclass(frozen=True)
class Sources:
    """Where the N examples of a split come from.

    Attributes:
        files: The files, as in `Source`.
        file: Index of each example's file in `files`, (N,) int64.
        row: Row of each example in its file, counted from 1, (N,) int64.
    """

    files: tuple[str, ...]
    file: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]

    @classmethod
    def of_files(cls, sizes: Sequence[tuple[str, int]]) -> Sources:
        """The sources of all rows of some files, given each file's name and number of rows."""
        counts = [count for _, count in sizes]
        return cls(
            tuple(name for name, _ in sizes),
            np.repeat(np.arange(len(sizes)), counts).astype(np.int64),
            np.concatenate([np.arange(1, count + 1) for count in counts]).astype(np.int64),
        )

    def take(self, rows: npt.NDArray[np.int64]) -> Sources:
        """The sources of the examples at the indices `rows`, in that order."""
        return Sources(self.files, self.file[rows], self.row[rows])

    def __getitem__(self, example: int) -> Source:
        return Source(self.files[self.file[example]], int(self.row[example]))

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Split:
    """Texts and their labels.

    Attributes:
        texts: N texts.
        labels: (N,) int64 of 0..C-1; (N, C) int64 of 0 and 1 in a multi-label task.
        sources: Where the examples come from; None if that is not known.
    """

    texts: list[str]
    labels: Labels
    sources: Sources | None = None

    def take(self, rows: npt.NDArray[np.int64]) -> Split:
        """The examples at the indices `rows`, in that order."""
        sources = None if self.sources is None else self.sources.take(rows)
        return Split([self.texts[i] for i in rows], self.labels[rows], sources)

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TextDataset:
    """A data set ready to embed.

    Attributes:
        name: Name of the data set.
        splits: The splits by name: train, validation and, if there is one, test, in this order.
        label_names: The names of labels 0..C-1.
        path: The file or folder that it was read from, in full; None if it was read from none.
    """

    name: str
    splits: dict[str, Split]
    label_names: tuple[str, ...]
    path: str | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of every split's name, texts and labels: the same texts and labels in the same
        order give the same fingerprint, whatever their source."""
        digest = hashlib.sha256()
        for name, split in self.splits.items():
            digest.update(f"{name}:{len(split)}\n".encode())
            for text in split.texts:
                encoded = text.encode("utf-8", "surrogatepass")
                digest.update(len(encoded).to_bytes(8, "little"))
                digest.update(encoded)
            digest.update(split.labels.astype("<i8").tobytes())
        return digest.hexdigest()


def folded(text: str) -> str:
    """A text without case, accents, spaces and invisible characters, which many tokenizers drop:
    texts that differ in nothing else are the same."""
    if text.isascii():
        return text.lower().translate(DROPPED)
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(
        each for each in parts if unicodedata.category(each) not in ("Mn", "Cc", "Cf", "Zs")
    )


def without_leaks(dataset: TextDataset) -> TextDataset:
    """The data set without the training examples whose text, as `folded`, also stands in another
    split. Raises SpaceliteError if none is left."""
    train = dataset.splits["train"]
    held = {
        folded(text)
        for name, split in dataset.splits.items()
        for text in split.texts
        if name != "train"
    }
    kept = np.array([folded(text) not in held for text in train.texts], bool)
    dropped = int((~kept).sum())
    if dropped == len(train):
        raise SpaceliteError(
            f"every training text of {dataset.name} also stands in validation or test: leave "
            "drop_leaks=True out, or give other training data",
            ["drop_leaks"],
        )
    one = dropped == 1
    log.info(
        "%s of %s training examples %s left out: %s also in validation or test",
        f"{dropped:,}", f"{len(train):,}", "was" if one else "were",
        "its text is" if one else "their texts are",
    )  # fmt: skip
    splits = {**dataset.splits, "train": train.take(np.flatnonzero(kept))}
    return replace(dataset, splits=splits)


def stratified_sample(labels: Labels, size: int) -> npt.NDArray[np.int64]:
    """Sorted indices of a seeded random sample that keeps label proportions to within one example.

    Every label gets its share rounded down; what is left goes to the largest remainders.
    scikit-learn's stratified split refuses labels that occur only once and samples that leave fewer
    examples than classes; both are allowed here.

    Args:
        labels: (N,), or (N, C) in a multi-label task, where the sample is not stratified.
        size: Number of examples; if there are fewer, all are taken.

    Returns:
        The indices of the sample, int64.
    """
    random = np.random.RandomState(SEED)  # its stream is frozen across numpy versions
    strata = task_of(labels).strata(labels)
    classes, counts = np.unique(strata, return_counts=True)
    size = min(size, len(labels))
    shares, remainders = np.divmod(counts * size, len(labels))
    shares[np.argsort(-remainders, kind="stable")[: size - shares.sum()]] += 1
    rows = [
        random.permutation(np.flatnonzero(strata == stratum))[:share]
        for stratum, share in zip(classes, shares, strict=True)
    ]
    return np.sort(np.concatenate(rows)).astype(np.int64)
