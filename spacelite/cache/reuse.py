"""Hidden states that need not be computed: those of texts that another cache of the same backbone
and settings holds, and of texts that occur in a data set more than once.

Two texts are the same here if their token ids are: the backbone sees nothing else. A file beside
the cache records what was copied from where, so that a run that is continued keeps its plan.
"""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spacelite import npz
from spacelite.cache.spec import CacheSpec
from spacelite.cache.split import NO_NUMBERS, Checked, Dataset, digest
from spacelite.cache.store import Cache, cache_of, is_cache, read_arrays, side_file, written
from spacelite.data.splits import SPLITS
from spacelite.errors import SpaceliteError
from spacelite.types import Array

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Where the hidden states of the N examples of a cache come from, all splits in one sequence;
    arrays are (N,) int64."""

    caches: tuple[str, ...]  # names of those that hidden states are copied from
    cache: Array  # index in `caches`; -1 for an example that is not copied from another cache
    split: Array  # the split of its text there, an index in SPLITS
    row: Array  # the index of its text in that split
    first: Array  # the first example with the same token ids: the only one that is computed

    @classmethod
    def of_all(cls, examples: int) -> Plan:
        """Every example is computed."""
        none = np.full(examples, -1, np.int64)
        return cls((), none, none, none, np.arange(examples))

    @property
    def computed(self) -> Array:
        """The examples that are run through the backbone, in order."""
        return np.flatnonzero((self.cache < 0) & (self.first == np.arange(len(self.first))))

    @property
    def copied(self) -> Array:
        """The examples that are copied from other caches, in order."""
        return np.flatnonzero(self.cache >= 0)

    @property
    def repeated(self) -> Array:
        """The examples that are copies of an earlier example of the same cache, in order."""
        return np.flatnonzero((self.cache < 0) & (self.first < np.arange(len(self.first))))

    @property
    def sources(self) -> dict[str, int]:
        """How many examples are copied from each cache."""
        counts = np.bincount(self.cache[self.copied], minlength=len(self.caches)).tolist()
        return {name: count for name, count in zip(self.caches, counts, strict=True) if count}

    def same(self) -> dict[int, list[int]]:
        """The examples that are written with each computed one, itself first."""
        same = {example: [example] for example in self.computed.tolist()}
        for example in self.repeated.tolist():
            same[int(self.first[example])].append(example)
        return same

    def without(self, examples: Sequence[int]) -> Plan:
        """The plan in which these examples are computed: they could not be copied."""
        cache = self.cache.copy()
        cache[list(examples)] = -1
        # An example that is computed must be the first of its kind that is.
        chosen: dict[int, int] = {}
        first = self.first.copy()
        for example in np.flatnonzero(cache < 0).tolist():
            first[example] = chosen.setdefault(int(self.first[example]), example)
        return replace(self, cache=cache, first=first)


def find(path: Path, spec: CacheSpec, ids: Sequence[Array], *, with_layers: bool) -> Plan:
    """Find the texts of a cache, of which the token ids are given (of pairs that these do not tell
    apart with more, as `Tokenized.identities`), in the finished part of those
    other caches of its folder whose spec is the same but for the data set."""
    plan, own = Plan.of_all(len(ids)), cache_of(path)
    first: dict[bytes, int] = {}
    for example, text in enumerate(ids):
        plan.first[example] = first.setdefault(digest(text), example)
    if spec.skip_first:  # other caches lack first tokens, in which texts may differ
        return plan
    names: list[str] = []
    source: dict[int, tuple[int, int, int]] = {}  # first example -> cache, split, row
    others = [other for other in own.parent.glob("*.h5") if other != own and is_cache(other)]
    for other in sorted(others, key=lambda other: (-written(other).stat().st_mtime, other.name)):
        if len(source) == len(first):
            break
        try:
            with Cache(other) as cache:
                if not cache.spec.embeds_like(spec):
                    continue
                places = {
                    first[key]: (len(names), SPLITS.index(split), row)
                    for split, row, key in _digests(cache, with_layers)
                    if key in first and first[key] not in source
                }
        except SpaceliteError as error:
            log.info("%s", error)
            continue
        if places:
            names.append(other.stem)
            source |= places
    if not source:
        return plan
    none = (-1, -1, -1)
    columns = np.array([source.get(first, none) for first in plan.first.tolist()], np.int64).T
    return replace(
        plan, caches=tuple(names), **dict(zip(("cache", "split", "row"), columns, strict=True))
    )


def _digests(cache: Cache, with_layers: bool) -> Iterator[tuple[str, int, bytes]]:
    """The texts of a cache whose hidden states are there: split, index and digest."""
    if with_layers and cache.layers is None:
        return
    for name, datasets in cache.datasets(layers=with_layers).items():
        split = cache.splits[name]
        done = np.logical_and.reduce([dataset.done == 1 for dataset in datasets.values()])
        if not done.any() or not split.index_is_intact():
            continue  # of damaged token ids, others were embedded
        digests = split.digests()
        for row in np.flatnonzero(done).tolist():
            yield name, row, digests[row].tobytes()


def copies(
    folder: Path,
    spec: CacheSpec,
    plan: Plan,
    examples: Array,
    ids: Sequence[Array],
    *,
    with_layers: bool,
) -> Iterator[tuple[int, dict[str, Checked] | None]]:
    """What each of these examples of a plan, of which the token ids are given, consists of in the
    other cache, by the names of the datasets; None if it cannot be copied any more. `spec` is that
    of the cache to copy into, in the same folder."""
    for number, name in enumerate(plan.caches):
        chosen = examples[plan.cache[examples] == number]
        # In the order of the other file.
        chosen = chosen[np.lexsort((plan.row[chosen], plan.split[chosen]))]
        with ExitStack() as stack:
            try:
                cache = stack.enter_context(Cache(folder / f"{name}.h5"))
                if not cache.spec.embeds_like(spec):
                    raise SpaceliteError(f"{cache.path} was embedded with other settings")
                datasets = cache.datasets(layers=with_layers)
                known = {
                    name: (split.offsets.tolist(), split.read_token_ids())
                    for name, split in cache.splits.items()
                    if split.index_is_intact()
                }
            except SpaceliteError as error:
                log.info("%s", error)
                yield from ((example, None) for example in chosen.tolist())
                continue
            for example in chosen.tolist():
                split, row = SPLITS[plan.split[example]], int(plan.row[example])
                offsets, token_ids = known.get(split, ([], NO_NUMBERS))
                same = row + 1 < len(offsets) and np.array_equal(
                    token_ids[offsets[row] : offsets[row + 1]], ids[example]
                )
                yield example, _values(datasets[split], row) if same else None


def _values(datasets: Mapping[str, Dataset], row: int) -> dict[str, Checked] | None:
    """What an example consists of, if it is done and intact."""
    values = {}
    for name, dataset in datasets.items():
        if not dataset.done[row]:
            return None
        content = dataset.content(row)
        if zlib.crc32(content) != dataset.crc32[row]:
            return None
        array = np.frombuffer(content, dataset.dtype).reshape(-1, *dataset.shape[1:])
        values[name] = Checked(array, int(dataset.crc32[row]))
    return values


def write(path: Path, key: str, plan: Plan) -> None:
    """Record the plan of a cache. Raises SpaceliteError if the file cannot be written."""
    file = side_file(path, "reuse")
    try:
        npz.write(
            file,
            {
                "key": np.array(key),
                "caches": np.array(plan.caches, np.str_),
                "sources": np.stack([plan.cache, plan.split, plan.row, plan.first]),
            },
        )
    except OSError as error:
        raise SpaceliteError(
            f"writing {file} failed: {error.strerror}; fix that and embed again"
        ) from error


def read(path: Path, key: str, examples: int) -> Plan:
    """The plan of a cache of N examples. A cache without one was computed as a whole; if the file
    is damaged, that is assumed and logged."""
    file = side_file(path, "reuse")
    if not file.exists():
        return Plan.of_all(examples)
    try:
        damage = "{} is damaged ({}): what is missing is computed"
        with read_arrays(file, key, "key|caches|sources", damage) as arrays:
            caches = arrays.read("caches", "U", None).tolist()
            plan = Plan(tuple(caches), *arrays.read("sources", "i", 4, examples))
            _check(plan, examples)
    except SpaceliteError as error:
        log.warning("%s", error)
        return Plan.of_all(examples)
    return plan


def sources(cache: Cache) -> dict[str, int]:
    """How many examples of a cache were copied from each other one."""
    counts: Counter[str] = Counter()
    for part in cache.file.parts:
        examples = sum(
            place.shape[0] for name, place in part.places.items() if name.endswith("/done")
        )
        counts.update(read(part.path, cache.key, examples).sources)
    return dict(counts)


def _check(plan: Plan, examples: int) -> None:
    """Raise ValueError if a plan that was read cannot be that of N examples."""
    order = np.arange(examples)
    if any(Path(name).name != name for name in plan.caches):
        raise ValueError("it names caches of other folders")
    copied = plan.cache >= 0
    if (
        (plan.cache >= len(plan.caches)).any()
        or not np.isin(plan.split[copied], range(len(SPLITS))).all()
        or (plan.row[copied] < 0).any()
        or (plan.first < 0).any()
        or (plan.first > order).any()
        or not np.isin(plan.first[plan.repeated], plan.computed).all()
    ):
        raise ValueError("it refers to missing examples")
