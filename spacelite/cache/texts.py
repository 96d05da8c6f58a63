"""The texts of a cached data set: as the user wrote them and where each comes from, how much of
them the backbone does not know, and which occur in the data set more than once.

They are kept in files beside the cache. Nothing that is computed depends on these: they are no part
of the cache's spec and key, and caches of older versions do not have them.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import operator
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from spacelite import files, npz
from spacelite.backbones.tokenizer import MOSTLY, SpecialIds, unknown_counts
from spacelite.cache.split import CachedSplit, SplitIndex, offsets_of
from spacelite.cache.store import READ_ONLY, Cache, parts, read_arrays, side_file
from spacelite.data.columns import listed
from spacelite.data.splits import (
    Digests,
    Pair,
    Source,
    Sources,
    Text,
    TextDataset,
    beginning,
    digests,
    folded,
    groups,
    joined,
    occur_in,
    text_digests,
)
from spacelite.errors import SpaceliteError, one_line
from spacelite.types import Array

log = logging.getLogger(__name__)


# A split with more than this share of unknown tokens, or of mostly unknown texts, is mentioned.
MANY_TOKENS, MANY_TEXTS = 0.05, 0.01
# How the data set was read: from which file or folder, how its csv files are quoted, and in which
# column the texts are; and the folder of a local backbone.
RECORDED = ("data", "quoting", "text_column", "backbone")
# Names of arrays.
KNOWN = rf"key|{'|'.join(RECORDED)}|\w+/(texts|offsets|seconds|files|file|row|sizes)"
DAMAGE = "{} is damaged ({}): it is not used; the embed command of the cache rewrites it"


@dataclass(frozen=True)
class CachedTexts:
    """The N texts of a split: in memory, or the file that has some of them is read again."""

    offsets: Array  # (N+1,) int64; text i is bytes offsets[i]:offsets[i+1] of all contents
    seconds: Array | None  # of pairs, which byte of a text the second one begins at, (N,) int64
    sources: Sources | None  # where they come from; None if that is not known

    def text(self, example: int) -> Text:
        """The text of an example, or the pair."""
        raise NotImplementedError

    def contents(self) -> Iterator[bytes]:
        """The texts end to end, in UTF-8, in pieces."""
        raise NotImplementedError

    def source(self, example: int) -> Source | None:
        """Where an example comes from; None if that is not known."""
        return None if self.sources is None else self.sources[example]


@dataclass(frozen=True)
class WholeTexts(CachedTexts):
    """The texts of one file."""

    content: bytes

    @override
    def text(self, example: int) -> Text:
        first, last = self.offsets[example : example + 2].tolist()
        written = self.content[first:last]
        if self.seconds is None:
            return written.decode()
        second = int(self.seconds[example])
        return Pair(written[:second].decode(), written[second:].decode())

    @override
    def contents(self) -> Iterator[bytes]:
        yield self.content


@dataclass(frozen=True)
class DividedTexts(CachedTexts):
    """The texts of several shards, of which `_read` keeps a few in memory."""

    parts: tuple[Callable[[], WholeTexts | None], ...]
    starts: list[int]  # the first example of each part, and at the end N

    @override
    def text(self, example: int) -> Text:
        at = bisect_right(self.starts, example) - 1
        return self._part(at).text(example - self.starts[at])

    @override
    def contents(self) -> Iterator[bytes]:
        for at in range(len(self.parts)):
            yield self._part(at).content

    def _part(self, at: int) -> WholeTexts:
        part = self.parts[at]()
        if part is None:
            raise SpaceliteError(
                "the texts of a cache were damaged while they were read: try again"
            )
        return part


def keep(path: Path, key: str, dataset: TextDataset, backbone: Path | None = None) -> None:
    """Write the texts of a cache, unless its file holds them, their sources and the folder of its
    local backbone already. The key says that the data set is the cached one. If the file cannot be
    written, this is logged: the cache can be used without it."""
    file = side_file(path, "texts")
    arrays: dict[str, Array] = {"key": np.array(key)}
    # The same data may be passed as objects later: where they were read from stays known.
    known = {name: recorded(path, name) for name in RECORDED}
    if dataset.path is not None or known["data"] is None:
        quoting = None if dataset.quoting == "standard" else dataset.quoting
        known |= {"data": dataset.path, "quoting": quoting, "text_column": dataset.text_column}
    if backbone is not None:
        known["backbone"] = str(backbone)
    arrays |= {name: np.array(value) for name, value in known.items() if value is not None}
    for name, split in dataset.splits.items():
        encoded = [joined(text, "").encode() for text in split.texts]
        arrays[f"{name}/texts"] = np.frombuffer(b"".join(encoded), np.uint8)
        arrays[f"{name}/offsets"] = offsets_of(np.array([len(text) for text in encoded]))
        if dataset.are_pairs:
            seconds = [len(text[0].encode()) for text in split.texts]
            arrays[f"{name}/seconds"] = np.array(seconds, np.int64)
        if split.sources is not None:
            arrays[f"{name}/files"] = np.array(split.sources.files)
            arrays[f"{name}/file"] = split.sources.file.astype(np.int32)
            arrays[f"{name}/row"] = split.sources.row
            arrays[f"{name}/sizes"] = np.array(split.sources.sizes, np.int64)
    try:
        if file.exists() and _holds(file, arrays):
            return
        npz.write(file, arrays, compressed=False)
    except OSError as error:
        level = logging.INFO if error.errno in READ_ONLY else logging.WARNING
        log.log(
            level,
            "%s cannot be written (%s): the cache works, but explain and report show neither "
            "texts as they were written nor where they come from",
            file, error.strerror or error,
        )  # fmt: skip


def _holds(file: Path, arrays: Mapping[str, Array]) -> bool:
    """Whether a file holds these arrays and no others."""
    try:
        with npz.opened(file, KNOWN) as kept:
            return kept.names == {*arrays} and all(
                np.array_equal(kept.read(name, values.dtype.kind, *values.shape), values)
                for name, values in arrays.items()
            )
    except ValueError:
        return False


def recorded(path: Path, name: str) -> str | None:
    """One of RECORDED of a cache file; None if it does not apply, or is not known, as for caches of
    older versions or, with a warning in the log, if it is damaged."""
    try:
        file = side_file(parts(path)[0], "texts")
        stat = file.stat()
        return _recorded(file, name, stat.st_mtime_ns, stat.st_size)
    except (OSError, SpaceliteError):
        return None


@lru_cache(maxsize=2 * len(RECORDED))
def _recorded(file: Path, name: str, modified: int, size: int) -> str | None:
    """As in `_read`, a file is read once, and its damage said once."""
    try:
        with npz.opened(file, KNOWN) as arrays:
            return str(arrays.read(name, "U")) if name in arrays else None
    except ValueError as error:
        log.warning("%s", DAMAGE.format(file, one_line(error, 80)))
        return None


def files_and_rows(cache: Cache, split: str) -> tuple[Array, Array] | tuple[None, None]:
    """The file's name (N,) and row (N,) of each example of a split, as predictions record them;
    None if they are not known."""
    texts = read(cache, split)
    if texts is None or texts.sources is None:
        return None, None
    return np.array(texts.sources.files)[texts.sources.file], texts.sources.row


def read(cache: Cache, split: str) -> CachedTexts | None:
    """The texts of a split; None if the cache has no file of them, as those of older versions, or,
    with a warning in the log, if that is damaged."""
    reads, known = [], []
    of_split = cache.file.of_split(split)
    for part in of_split:
        file, examples = side_file(part.path, "texts"), part.places[f"{split}/done"].shape[0]
        try:
            stat = file.stat()
        except OSError:
            return None
        reads.append(
            partial(_read, file, cache.key, split, examples, stat.st_mtime_ns, stat.st_size)
        )
        texts = reads[-1]()
        if texts is None or len(of_split) == 1:
            return texts
        known.append((texts.sources, np.diff(texts.offsets), texts.seconds))
    sources = [of_part for of_part, *_ in known if of_part is not None]
    seconds = [of_part for *_, of_part in known if of_part is not None]
    return DividedTexts(
        offsets_of(np.concatenate([lengths for _, lengths, _ in known])),
        np.concatenate(seconds) if len(seconds) == len(known) else None,
        Sources.joined(sources) if len(sources) == len(known) else None,
        tuple(reads),
        [*itertools.accumulate((len(lengths) for _, lengths, _ in known), initial=0)],
    )


def check(cache: Cache) -> None:
    """Say in the log if the files of a cache's texts are damaged."""
    for split in cache.splits:
        read(cache, split)
    for name in RECORDED:
        recorded(cache.path, name)
    read_unknown(cache.path)


def numbered(cache: Cache, split: str) -> Array:
    """A number for each text of a split, (N,) int64, which texts share that differ at most in case,
    accents and spaces; where the texts are not known, those of the same tokens."""
    written = read(cache, split)
    if written is None:
        return groups(cache.splits[split].digests())
    return groups(text_digests(map(written.text, range(len(cache.splits[split])))))


def split_digest(cache: Cache, split: str) -> str | None:
    """A hash of the texts and labels of a split in their order, hexadecimal; None if the cache has
    no file of its texts."""
    texts = read(cache, split)
    if texts is None:
        return None
    labels = np.asarray(cache.splits[split].labels, np.int64)
    content = hashlib.sha256()
    for part in texts.contents():
        content.update(part)
    arrays = [texts.offsets.astype(np.int64), labels]
    if texts.seconds is not None:
        arrays.append(texts.seconds.astype(np.int64))
    hashes = [content.digest(), *(hashlib.sha256(array.tobytes()).digest() for array in arrays)]
    return hashlib.sha256(b"".join(hashes)).hexdigest()


@lru_cache(maxsize=4)
def _read(
    file: Path, key: str, split: str, examples: int, modified: int, size: int
) -> WholeTexts | None:
    """The texts of a split. `modified` and `size` stand for the file's content, so that many
    examples of a file are read once, and a damaged file is named once."""
    try:
        return _load(file, key, split, examples)
    except SpaceliteError as error:
        log.warning("%s", error)
        return None


def _load(file: Path, key: str, split: str, examples: int) -> WholeTexts:
    """Raises SpaceliteError if the file is damaged or belongs to another cache."""
    with read_arrays(file, key, KNOWN, DAMAGE) as arrays:
        written = arrays.read(f"{split}/texts", "u", None)
        offsets, content = arrays.read(f"{split}/offsets", "i", examples + 1), written.tobytes()
        if (
            [*offsets[[0, -1]]] != [0, len(content)]
            or (offsets[1:] < offsets[:-1]).any()
            # A text does not begin within a character.
            or (written[offsets[offsets < len(content)]] & 0xC0 == 0x80).any()
        ):
            raise ValueError("it holds other texts")
        content.decode()
        seconds, sources = None, None
        if f"{split}/seconds" in arrays:
            seconds = arrays.read(f"{split}/seconds", "i", examples).astype(np.int64)
            begins = offsets[:-1] + seconds
            if (
                (seconds < 0).any()
                or (begins > offsets[1:]).any()
                or (written[begins[begins < len(content)]] & 0xC0 == 0x80).any()
            ):
                raise ValueError("it holds other pairs")
        if f"{split}/row" in arrays:
            names = tuple(arrays.read(f"{split}/files", "U", None).tolist())
            numbers = arrays.read(f"{split}/file", "i", examples).astype(np.int64)
            rows, sizes = arrays.read(f"{split}/row", "i", examples), tuple[int, ...]()
            if f"{split}/sizes" in arrays:
                sizes = tuple(arrays.read(f"{split}/sizes", "i", len(names)).tolist())
            if not 0 <= numbers.min() <= numbers.max() < len(names) or rows.min() < 1:
                raise ValueError("it holds the sources of other texts")
            sources = Sources(names, numbers, rows, sizes)
    return WholeTexts(offsets, seconds, sources, content)


# Unknown tokens.


@dataclass(frozen=True)
class SplitCounts:
    """How many tokens and texts of a split are unknown."""

    tokens: int  # without special ones such as [CLS]
    unknown: int
    texts: int
    mostly_unknown: int  # texts whose tokens are unknown by half or more

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be the counts of a split."""
        if (
            any(type(count) is not int or count < 0 for count in astuple(self))
            or self.unknown > self.tokens
            or self.mostly_unknown > self.texts
        ):
            raise ValueError(f"these are no counts: {self}")

    def __add__(self, other: SplitCounts) -> SplitCounts:
        return SplitCounts(*map(operator.add, astuple(self), astuple(other)))

    @property
    def many(self) -> bool:
        """Whether so much is unknown that the reader should know."""
        return (
            self.unknown > MANY_TOKENS * self.tokens
            or self.mostly_unknown > MANY_TEXTS * self.texts
        )


@dataclass(frozen=True)
class UnknownTokens:
    """How many tokens of each split are unknown to the backbone; empty if that is not known."""

    splits: dict[str, SplitCounts]

    def as_json(self) -> dict[str, dict[str, int]]:
        """The counts as `embed --json` prints them, by split."""
        return {name: asdict(counts) for name, counts in self.splits.items()}

    @property
    def sentence(self) -> str:
        """Where much is unknown, and what it means for the reader; "" where little is."""
        parts = [
            f"{100 * counts.unknown / max(counts.tokens, 1):.0f}% of the tokens of {name} are "
            f"unknown to the backbone ({counts.mostly_unknown:,} of {counts.texts:,} texts mostly)"
            for name, counts in self.splits.items()
            if counts.many
        ]
        if not parts:
            return ""
        return (
            f"{', '.join(parts)}: all unknown words look the same to it; a backbone for the "
            "language and script of the texts knows more of them"
        )


def count_unknown(splits: Mapping[str, SplitIndex], special: SpecialIds) -> UnknownTokens:
    """Count the unknown tokens of each split."""
    counts = {}
    for name, index in splits.items():
        unknown, tokens = unknown_counts(index.token_ids, index.offsets, special)
        mostly = int((unknown >= MOSTLY * tokens).sum())
        counts[name] = SplitCounts(int(tokens.sum()), int(unknown.sum()), len(tokens), mostly)
    return UnknownTokens(counts)


def write_unknown(path: Path, counts: UnknownTokens) -> None:
    """Keep the counts of a cache. Skipped in read-only folders."""
    try:
        files.write_json(side_file(path, "unknown"), counts.as_json())
    except OSError as error:
        log.info("%s cannot be written: %s", side_file(path, "unknown"), error.strerror)


def read_unknown(path: Path) -> UnknownTokens:
    """The counts of a cache; without splits if they were not kept or, with a warning in the log, if
    their file is damaged."""
    sums: dict[str, SplitCounts] = {}
    try:
        for part in parts(path):
            file = side_file(part, "unknown")
            content = files.read_json(file)
            content.pop(files.CHECKSUM, None)
            for name, of_part in content.items():
                counts = SplitCounts(**of_part)
                sums[name] = counts + sums[name] if name in sums else counts
    except (OSError, SpaceliteError):
        return UnknownTokens({})
    except (ValueError, TypeError, AttributeError) as error:
        log.warning("%s", DAMAGE.format(file, one_line(error, 80)))
        return UnknownTokens({})
    return UnknownTokens(sums)


# Duplicates.

COMPARED = {True: "a text", False: "the same tokens as a text"}  # by whether texts were compared
SEEN = {"train": "in training", "validation": "when settings were chosen"}  # by the split of a run


@dataclass(frozen=True)
class Duplicates:
    """How many texts occur in a data set more than once."""

    # For two splits, such as ("train", "test"): how many examples of the second have a text of the
    # first.
    shared: dict[tuple[str, str], int]
    examples: dict[str, int]  # their number, by split
    # How many different texts have more than one label, within each split and, as `all`, within and
    # across the splits.
    contradictory: dict[str, int]
    by_text: bool = True  # whether the texts themselves were compared, or only their token ids

    def as_json(self) -> dict[str, Any]:
        """The counts as `embed --json` prints them: {"shared": {"train/test": 3, ...}, ...}."""
        shared = {"/".join(pair): count for pair, count in self.shared.items()}
        return {"shared": shared, "contradictory": dict(self.contradictory)}

    @property
    def what(self) -> str:
        """What examples share, in words."""
        return COMPARED[self.by_text]

    @property
    def leaked(self) -> str:
        """What the texts in two splits mean for the reader; "" if there are none."""
        sentences = []
        for earlier, when in SEEN.items():
            parts = [
                f"{count:,} of {self.examples[later]:,} {later} examples "
                f"{'has' if count == 1 else 'have'} {self.what} of {earlier}"
                for (first, later), count in self.shared.items()
                if count and first == earlier
            ]
            if parts:
                sentences.append(f"{', '.join(parts)}: these were seen {when}")
        return f"{'; '.join(sentences)}, so the metrics are too optimistic" if sentences else ""

    @property
    def contradicted(self) -> str:
        """What texts with more than one label mean for the reader; "" if there are none."""
        count = self.contradictory.get("all", 0)
        if not count:
            return ""
        texts, have = ("text", "has") if count == 1 else ("texts", "have")
        same = "" if self.by_text else " of the same tokens"
        return (
            f"{count:,} {texts}{same} {have} more than one label, each in another "
            "example: no classifier can get all of these examples right"
        )


def duplicates_of(cache: Cache) -> Duplicates:
    """Count the texts of a cache that occur in two of its splits, and those that have more than one
    label."""
    texts = {name: read(cache, name) for name in cache.splits}
    return find_duplicates(cache.splits, texts, max_length=cache.spec.cut_at)


def find_duplicates(
    splits: Mapping[str, CachedSplit],
    texts: Mapping[str, CachedTexts | None] | None = None,
    *,
    max_length: int = 0,
) -> Duplicates:
    """Count the texts that occur in two splits, and those that have more than one label.

    Two texts are the same if their token ids are, which is all that the backbone sees of them, and,
    where the texts are known, if they differ at most in case, accents and spaces: texts of unknown
    words have the same token ids without being the same. Of texts of `max_length` tokens, only the
    beginning is compared.
    """
    bounds = np.cumsum([len(split) for split in splits.values()])[:-1]
    of_all = groups(np.concatenate([split.digests() for split in splits.values()]))
    known = {name: written for name, written in (texts or {}).items() if written is not None}
    by_text = len(known) == len(splits)
    if by_text:
        of_all = _separated(of_all, splits, known, max_length)
    numbers = dict(zip(splits, np.split(of_all, bounds), strict=True))
    every = np.concatenate([split.labels for split in splits.values()])
    _, labels = np.unique(every, axis=0, return_inverse=True)  # a number for each set of labels
    labels = labels.reshape(-1)
    contradictory = {
        name: _contradictory(numbers[name], part)
        for name, part in zip(splits, np.split(labels, bounds), strict=True)
    }
    contradictory["all"] = _contradictory(of_all, labels)
    return Duplicates(
        shared={
            (earlier, later): int(np.isin(numbers[later], numbers[earlier]).sum())
            for earlier, later in itertools.combinations(splits, 2)
        },
        examples={name: len(split) for name, split in splits.items()},
        contradictory=contradictory,
        by_text=by_text,
    )


def _separated(
    numbers: Array,
    splits: Mapping[str, CachedSplit],
    texts: Mapping[str, CachedTexts],
    max_length: int,
) -> Array:
    """The numbers of the texts of all splits, a different one for each different text of the same
    tokens."""
    several = (np.bincount(numbers) > 1)[numbers]

    def contents() -> Iterator[bytes]:
        first = 0
        for name, split in splits.items():
            lengths = split.lengths
            for example in np.flatnonzero(several[first : first + len(split)]).tolist():
                text = texts[name].text(example)
                cut = lengths[example] >= max_length
                compared = beginning(text, max_length) if cut else folded(text)
                yield f"{numbers[first + example]} {compared}".encode()
            first += len(split)

    separated: Array = numbers.copy()
    separated[several] = groups(digests(contents())) + len(numbers)
    return separated


def _contradictory(texts: Array, labels: Array) -> int:
    """How many different texts have more than one label."""
    pairs = np.unique(np.stack([texts, labels], axis=1), axis=0)
    return int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())


# Texts of the training data of a run.


@dataclass(frozen=True)
class Overlap:
    """Which examples of a data set have a text of the train or validation split of a run."""

    seen: dict[str, Array]  # by split, (N,) bool
    by_text: bool  # whether the texts themselves were compared, or only their token ids
    of: str = "train"

    @property
    def counts(self) -> dict[str, int]:
        """How many examples of each split these are."""
        return {split: int(seen.sum()) for split, seen in self.seen.items()}

    def sentence(self, dataset: str, runs: str) -> str:
        """What the overlap with the data of `runs` means for the reader; "" for none."""
        seen = {split: count for split, count in self.counts.items() if count}
        if not seen:
            return ""
        parts = [f"{count:,} of {len(self.seen[split]):,} {split}" for split, count in seen.items()]
        have = "has" if sum(seen.values()) == 1 else "have"
        return (
            f"{listed(parts, len(parts))} examples of {dataset} {have} {COMPARED[self.by_text]} of "
            f"the {'training' if self.of == 'train' else self.of} data of {runs}: these were seen "
            f"{SEEN[self.of]}, so the metrics of {listed([*seen], len(seen))} are too optimistic"
        )


def overlap(training: Cache, cache: Cache, *splits: str, of: str = "train") -> Overlap:
    """Find the examples of some splits of a cache (default: all) that have a text of the split `of`
    of another, of the same tokenizer.

    Texts are the same if they differ at most in case, accents and spaces; and of texts that are cut
    off, if the same tokens and beginning are left. Where the texts are not known, their token ids
    are compared. Raises SpaceliteError if the token ids of that split are damaged.
    """
    training.check_index(of)
    texts = {name: read(cache, name) for name in splits or cache.splits}
    written_there, limit = read(training, of), cache.spec.cut_at
    by_text = written_there is not None and None not in texts.values()

    def keys(split: CachedSplit, texts: CachedTexts | None) -> tuple[Digests, Digests, Array]:
        """Of all texts, and of those that are cut off by what is left; and which these are."""
        tokens = split.digests()
        if texts is None or not by_text:
            return tokens, tokens[:0], np.zeros(len(split), bool)
        cut = split.lengths >= limit
        beginnings = (
            tokens[example].tobytes() + beginning(texts.text(example), limit).encode()
            for example in np.flatnonzero(cut).tolist()
        )
        return text_digests(map(texts.text, range(len(split)))), digests(beginnings), cut

    known, known_cut, _ = keys(training.splits[of], written_there)

    def seen(split: CachedSplit, texts: CachedTexts | None) -> Array:
        own, own_cut, cut = keys(split, texts)
        found = occur_in(own, known)
        found[cut] |= occur_in(own_cut, known_cut)
        return found

    return Overlap(
        {name: seen(cache.splits[name], written) for name, written in texts.items()},
        by_text,
        of,
    )
