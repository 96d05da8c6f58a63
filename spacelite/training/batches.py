"""Cache -> ragged batches: the tokens of some examples end to end, never padded.

A split is resident (held in its stored dtype, in memory or on the GPU) if the resident splits of
its cache together take at most 60% of the free memory. Other splits are streamed: in each epoch,
their blocks of neighbouring examples are shuffled and read into a window of memory, several at a
time, and the examples within a window are shuffled. While a window is used, the next one is read.

Each of several ranks holds or reads a part of every split: neighbouring examples, about as many
tokens as the others. The order of the examples does not depend on the number of ranks.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from spacelite import ranks
from spacelite.cache.dtypes import StoredType, varies
from spacelite.cache.split import CachedSplit, TokenRows, spans, tokens_of
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.heads.base import Scratch
from spacelite.heads.config import HeadConfig
from spacelite.heads.pooling import POOLINGS
from spacelite.tasks import Task, find_task
from spacelite.training import memory
from spacelite.types import Array

log = logging.getLogger(__name__)

BLOCKS_PER_WINDOW = 1024  # more mix the examples better, but each is a read of its own
PIECE = 2**28  # bytes that are read at a time when a split is copied to a GPU


@dataclass(frozen=True)
class ArrayData:
    """Examples that heads are trained on as on a cache: the splits train and, if there is one,
    validation, in memory or, where one is too large, in a cache. `means_width` is that of the
    means of all layers side by side, 0 without any; `task_name` is that in TASKS, None for
    classification."""

    splits: Mapping[str, CachedSplit | TokenRows]
    label_names: list[str]
    means_width: int = 0
    task_name: str | None = None

    @property
    def task(self) -> Task:
        """What the labels mean."""
        task = find_task(self.task_name, next(iter(self.splits.values())).labels)
        return task.trained_on(self.splits["train"].labels) if "train" in self.splits else task

    @property
    def tokens(self) -> int:
        """Number of tokens in all splits."""
        return sum(split.tokens for split in self.splits.values())

    def layers_width(self) -> int:
        """As that of a cache. Raises SpaceliteError if there are no layer means."""
        if not self.means_width:
            raise SpaceliteError("these hidden states come without the means of all layers")
        return self.means_width


TrainingData = Cache | ArrayData  # what heads are trained on


class TokenSplit:
    """A split whose hidden states can be read by heads: N examples of width d, with their `lengths`
    (N,) and `labels` on the device. They are `resident` in memory or on the GPU, or streamed. Rank
    r holds those of the examples bounds[r]:bounds[r + 1]; `held` are those of this rank."""

    weights: Array | None = None  # all examples weigh 1

    def __init__(
        self,
        split: CachedSplit | TokenRows,
        name: str = "",
        device: str = "cpu",
        budget: float = math.inf,
    ) -> None:
        """Read the split into memory if it fits into `budget` bytes, those of all ranks together;
        otherwise it is streamed."""
        self.name = name
        self.device = device
        self.width = split.width
        self.lengths = split.lengths
        self.labels = torch.from_numpy(split.labels).to(device)
        self._split = split
        cuts = np.arange(ranks.size() + 1) * split.tokens / ranks.size()
        self.bounds: Array = np.searchsorted(split.offsets, cuts)
        self.held = slice(*self.bounds[ranks.rank() :][:2].tolist())
        self._starts = split.offsets[:-1]  # each example's first row in the file
        self._features: dict[str, torch.Tensor] = {}
        self._token_ids: Array | None = None
        self.bytes = split.tokens * split.stored.row_bytes(split.width)
        self.resident = isinstance(split, TokenRows) or self.bytes <= budget
        if isinstance(split, TokenRows) or self.resident:
            self._tokens = _read_all(split, self.held, device)
            self._starts = self._starts - split.offsets[self.held.start]  # in memory
        else:
            self._stream = Stream(split, self.held, device)

    def __len__(self) -> int:
        return len(self.lengths)

    def shuffled(self, seed: int, epoch: int) -> Array:
        """The order of the examples in an epoch, (N,). It depends only on the seed, the epoch, and
        whether the split is streamed."""
        random = np.random.default_rng([seed, epoch])
        return random.permutation(len(self)) if self.resident else self._stream.shuffled(random)

    def in_order(self) -> Array:
        """All examples in the order of the file."""
        if not self.resident:
            self._stream.in_order()
        return np.arange(len(self))

    def chunks(self, tokens: int) -> list[Array]:
        """All examples in pieces of about so many tokens, of which each rank holds its share."""
        self.in_order()
        of_ranks = []
        for first, last in itertools.pairwise(self.bounds.tolist()):
            ends, step = np.cumsum(self.lengths[first:last]), tokens // ranks.size()
            cuts = np.searchsorted(ends, np.arange(step, ends[-1] if len(ends) else 0, step))
            of_ranks.append(np.split(np.arange(first, last), np.unique(cuts)))
        none = np.arange(0)
        pieces = map(np.concatenate, itertools.zip_longest(*of_ranks, fillvalue=none))
        return [piece for piece in pieces if len(piece)]

    def dealt(self, examples: Array) -> tuple[Array, slice]:
        """An order of `examples` in which those of a rank are neighbours, and where in it those of
        this rank are."""
        holder = np.searchsorted(self.bounds[1:], examples, side="right")
        order = np.argsort(holder, kind="stable")
        first, last = np.searchsorted(holder[order], [ranks.rank(), ranks.rank() + 1]).tolist()
        return order, slice(first, last)

    def load(self, examples: Array) -> None:
        """Read the tokens of `examples`; to be called before `gather`, from a single thread."""
        if not self.resident:
            self._stream.load(examples)

    def release(self) -> None:
        """Free what `load` has read, at the end of a pass over the split."""
        if not self.resident:
            self._stream.release()

    def gather(self, examples: Array, scratch: Scratch) -> torch.Tensor:
        """The tokens of loaded `examples` end to end, (n, d) float32; valid until `scratch` is used
        for the next ones."""
        return self._rows(examples, self._starts[examples], self.lengths[examples], scratch)

    def groups(self, examples: Array, workers: int, columns: int = 1) -> list[tuple[int, int]]:
        """Cut `examples` into groups first:last of about as many tokens as `memory.group_tokens`
        says for these `columns` per token. Every worker gets the same number of groups."""
        if not len(examples):
            return []
        ends = np.cumsum(self.lengths[examples])
        total = int(ends[-1])
        most = memory.group_tokens(self.device, columns)
        useful = max(1, min(workers, total // memory.FEWEST_TOKENS))
        count = math.ceil(total / most / useful) * useful
        cuts = np.searchsorted(ends, np.arange(1, count) * total / count) + 1
        bounds = np.unique([0, *cuts.clip(max=len(examples)), len(examples)]).tolist()
        return list(itertools.pairwise(bounds))

    def token_ids(self, examples: Array | None = None) -> tuple[Array, Array]:
        """The token ids of `examples` (by default of all) end to end, (n,), and their offsets."""
        if self._token_ids is None:
            self._token_ids = self._split.read_token_ids()
        if examples is None:
            return self._token_ids, self._split.offsets
        rows = tokens_of(self._split.offsets, examples)
        return self._token_ids[rows], np.concatenate([[0], np.cumsum(self.lengths[examples])])

    def features(self, pooling: str) -> torch.Tensor:
        """One vector per example, (N, d) float32, by a pooling from POOLINGS; computed once. Means
        of all layers stay as they are stored, (N, layers * d) float16, for they are large. Raises
        SpaceliteError if the pooling needs a pooler and the backbone has none, or layer means that
        the cache lacks."""
        if pooling not in self._features:
            if POOLINGS[pooling].from_backbone:
                self._features[pooling] = torch.from_numpy(self._split.pooled).to(self.device)
            elif POOLINGS[pooling].from_layers:
                self._features[pooling] = torch.from_numpy(self._split.layer_means).to(self.device)
            else:
                self.pool([pooling])
        return self._features[pooling]

    def pool(self, names: Sequence[str]) -> None:
        """Compute the features by several poolings of tokens in one pass over them."""
        rows, scratch = self.in_order()[self.held], Scratch()
        vectors = [torch.zeros(len(self), self.width, device=self.device) for _ in names]
        for first, last in self.groups(rows, 1):
            examples = rows[first:last]
            part = slice(examples[0], examples[-1] + 1)
            self.load(examples)
            lengths = torch.from_numpy(self.lengths[examples]).to(self.device)
            for name, of_pooling in zip(names, vectors, strict=True):
                pooling = POOLINGS[name]
                if pooling.pool is not None:
                    of_pooling[part] = pooling.pool(self.gather(examples, scratch), lengths)
                    continue
                offset = 0 if pooling.position == 0 else self.lengths[examples] - 1
                starts, single = self._starts[examples] + offset, np.ones(len(examples), np.int64)
                of_pooling[part] = self._rows(examples, starts, single, scratch)
        self.release()
        ranks.add_up(vectors)
        self._features |= dict(zip(names, vectors, strict=True))

    @cached_property
    def standardisation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """As `standardised`, of all examples."""
        return self.standardised(np.arange(len(self)))

    def standardised(self, rows: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean of the hidden states of all tokens of the examples `rows`, (d,), and the inverse
        of their standard deviation, (d,), or 0 where it is no more than rounding."""
        self.in_order()
        rows = rows[(rows >= self.held.start) & (rows < self.held.stop)]
        scratch, of_held = Scratch(), Deviations.none(self.width, self.device)
        for first, last in self.groups(rows, 1):
            self.load(rows[first:last])
            hidden = self.gather(rows[first:last], scratch)
            mean = hidden.mean(dim=0)
            squares = hidden.sub_(mean).square_().sum(dim=0)
            of_held.add(len(hidden), mean.double(), squares.double())
        self.release()
        of_all = Deviations.none(self.width, self.device)
        counts = ranks.gather(torch.tensor([of_held.count]))
        of_ranks = ranks.gather(of_held.mean), ranks.gather(of_held.squares)
        for count, *of_rank in zip(counts.flatten().tolist(), *of_ranks, strict=True):
            of_all.add(count, *of_rank)
        mean, squares = of_all.mean, of_all.squares
        deviation = (squares / of_all.count).sqrt()
        scale = torch.where(varies(mean, deviation), 1 / deviation, 0)
        return mean.float(), scale.float()

    def _rows(
        self, examples: Array, starts: Array, lengths: Array, scratch: Scratch
    ) -> torch.Tensor:
        """Rows starts[i] : starts[i] + lengths[i] of the file for all i, float32; each run of rows
        belongs to examples[i], which is loaded."""
        if self.resident:
            return take(self._tokens, starts, lengths, scratch, self._split.stored)
        return self._stream.rows(examples, starts, lengths, scratch)


def check_ready(data: TrainingData, configs: Iterable[HeadConfig]) -> None:
    """Raise SpaceliteError if heads cannot be trained on these data: the cache is unfinished or
    damaged, or they lack what heads read."""
    if isinstance(data, Cache):
        data.require_complete()
        data.check_index()
    for config in configs:
        if config.reads_ids and isinstance(data, Cache):
            data.require_token_ids(config.name)
        if "first" in config.poolings and isinstance(data, Cache) and data.spec.skip_first:
            raise SpaceliteError(
                f"pooling=first: cache {data.name} was embedded with skip_first=True, which leaves "
                "the first token out: choose another pooling",
                ["pooling", "skip_first"],
            )
        if any(POOLINGS[pooling].from_backbone for pooling in config.poolings):
            data.splits["train"].require_pooler()
        if config.reads_layers:
            data.layers_width()


def open_splits(data: TrainingData, device: str) -> dict[str, TokenSplit]:
    """All splits, train first. A split is resident if it fits beside those before it."""
    # The least of all ranks: the order of the examples depends on it.
    budgets = torch.tensor([memory.resident_budget(device)], dtype=torch.float64)
    budget = float(ranks.gather(budgets).min())
    splits = {}
    for name, split in data.splits.items():
        if isinstance(split, TokenRows):  # it is in memory
            splits[name] = TokenSplit(split, name, device)
            continue
        splits[name] = TokenSplit(split, name, device, budget)
        budget -= splits[name].bytes if splits[name].resident else 0
    if isinstance(data, Cache):
        sizes: dict[bool, list[str]] = {}
        for opened in splits.values():
            size = f"{opened.name} {opened.bytes / 1e6:,.0f} MB"
            sizes.setdefault(opened.resident, []).append(size)
        for resident, named in sizes.items():
            where = "in memory" if resident else "streamed from the file in shuffled blocks"
            log.info("hidden states %s: %s", where, ", ".join(named))
    return splits


def input_width(config: HeadConfig, data: TrainingData) -> int:
    """The width of what a head reads. Raises SpaceliteError if the head needs layer means that the
    data lack."""
    layers_width = data.layers_width() if config.reads_layers else 0
    width = next(split.width for split in data.splits.values())
    return config.input_width(width, layers_width)


def _read_all(split: CachedSplit | TokenRows, held: slice, device: str) -> torch.Tensor:
    """All hidden states of the examples `held`, on the device in their stored dtype."""
    if device == "cpu":
        return torch.from_numpy(split.read_examples(held.start, held.stop))
    # In pieces: the machine may have less memory than its GPU.
    empty = torch.from_numpy(split.read_examples(0, 0))
    offsets = split.offsets[held.start : held.stop + 1]
    count = int(offsets[-1] - offsets[0])
    tokens = torch.empty((count, empty.shape[1]), dtype=empty.dtype, device=device)
    rows = max(1, PIECE // split.stored.row_bytes(split.width))
    for first, last in spans(offsets, rows):
        start, stop = offsets[[first, last]] - offsets[0]
        hidden = split.read_examples(held.start + first, held.start + last)
        tokens[start:stop] = torch.from_numpy(hidden).to(device)
    return tokens


@dataclass
class Deviations:
    """How many vectors there are, their mean, and the sums of the squares of their deviations from
    it, (d,) float64 each."""

    count: int
    mean: torch.Tensor
    squares: torch.Tensor

    @classmethod
    def none(cls, width: int, device: str) -> Deviations:
        """Those of no vectors."""
        return cls(0, *torch.zeros(2, width, dtype=torch.float64, device=device))

    def add(self, count: int, mean: torch.Tensor, squares: torch.Tensor) -> None:
        """Add other vectors, as Chan, Golub & LeVeque (1983) do."""
        if not count:
            return
        total, step = self.count + count, mean - self.mean
        self.squares += squares + step**2 * (self.count * count / total)
        self.mean += step * (count / total)
        self.count = total


class Stream:
    """A split that is read from the file window by window; a window consists of several blocks, of
    which only the examples `held` are read."""

    def __init__(self, split: CachedSplit, held: slice, device: str) -> None:
        self._split = split
        self._held = held
        self._device = device
        self._offsets = split.offsets
        rows = max(1, memory.WINDOW // split.stored.row_bytes(split.width))
        blocks = math.ceil(split.tokens / max(1, rows // BLOCKS_PER_WINDOW))
        cuts = np.searchsorted(self._offsets, np.arange(blocks + 1) * split.tokens / blocks)
        self._blocks = np.unique(cuts)  # examples blocks[i]:blocks[i+1] are block i
        self._block_of = np.repeat(np.arange(len(self._blocks) - 1), np.diff(self._blocks))
        self._shift = np.zeros(len(split), np.int64)  # row in the window - row in the file
        self._loaded: dict[int, torch.Tensor] = {}
        self._ahead: dict[int, Future[torch.Tensor]] = {}  # the window that is being read
        self.in_order()

    def in_order(self) -> None:
        """Plan the windows in the order of the file."""
        self._plan(np.arange(len(self._blocks) - 1))

    def shuffled(self, random: np.random.Generator) -> Array:
        """Plan windows of shuffled blocks; return the examples in the order of the pass."""
        self._plan(random.permutation(len(self._blocks) - 1))
        return np.concatenate([random.permutation(self._examples(w)) for w in self._windows])

    def _plan(self, order: Array) -> None:
        cuts = range(BLOCKS_PER_WINDOW, len(order), BLOCKS_PER_WINDOW)
        self._windows = [np.sort(blocks) for blocks in np.split(order, cuts)]
        window_of_block = np.empty(len(order), np.int64)
        for number, blocks in enumerate(self._windows):
            window_of_block[blocks] = number
        self._window_of = window_of_block[self._block_of]
        self.release()

    def release(self) -> None:
        """Free all windows."""
        self._forget()
        self._loaded.clear()

    def _forget(self) -> None:
        wait(self._ahead.values())  # it changes `_shift`
        self._ahead.clear()

    def _examples(self, blocks: Array) -> Array:
        return np.concatenate(
            [np.arange(self._blocks[b], self._blocks[b + 1]) for b in blocks.tolist()]
        )

    def load(self, examples: Array) -> None:
        """Hold the windows that the examples are in, and read the one after them meanwhile."""
        needed = np.unique(self._window_of[examples]).tolist()
        for number in [number for number in self._loaded if number not in needed]:
            del self._loaded[number]
        for number in needed:
            if number not in self._loaded:
                ahead = self._ahead.pop(number, None)
                self._loaded[number] = self._read(number) if ahead is None else ahead.result()
        following = needed[-1] + 1
        if following not in self._ahead:
            self._forget()
        # Where memory is short, it is read when it is needed.
        if not self._ahead and following < len(self._windows) and memory.free_for_window():
            self._ahead[following] = self._reader.submit(self._read, following)

    @cached_property
    def _reader(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "read ahead")

    def _read(self, window: int) -> torch.Tensor:
        blocks = self._windows[window]
        bounds = (self._blocks[blocks], self._blocks[blocks + 1])
        firsts, lasts = (at.clip(self._held.start, self._held.stop).tolist() for at in bounds)
        parts = [part for part in zip(firsts, lasts, strict=True) if part[0] < part[1]]
        rows = self._split.read_parts(parts)
        end = 0
        for first, last in parts:
            start, stop = self._offsets[[first, last]].tolist()
            self._shift[first:last] = end - start
            end += stop - start
        return torch.from_numpy(rows).to(self._device)

    def rows(
        self, examples: Array, starts: Array, lengths: Array, scratch: Scratch
    ) -> torch.Tensor:
        """As `TokenSplit._rows`."""
        windows, starts = self._window_of[examples], starts + self._shift[examples]
        cuts = np.flatnonzero(np.diff(windows)) + 1
        if not len(cuts):
            tokens = self._loaded[int(windows[0])]
            return take(tokens, starts, lengths, scratch, self._split.stored)
        pieces = zip(*(np.split(part, cuts) for part in (windows, starts, lengths)), strict=True)
        return torch.cat(
            [
                take(self._loaded[int(window[0])], first, length, Scratch(), self._split.stored)
                for window, first, length in pieces
            ]
        )


def take(
    tokens: torch.Tensor, starts: Array, lengths: Array, scratch: Scratch, stored: StoredType
) -> torch.Tensor:
    """The rows starts[i] : starts[i] + lengths[i] of `tokens` for all i, float32."""
    before = np.cumsum(lengths) - lengths
    total = int(before[-1] + lengths[-1])
    index = torch.from_numpy(np.repeat(starts - before, lengths) + np.arange(total))
    rows = scratch.tensor("stored", (total, tokens.shape[1]), tokens.device, tokens.dtype)
    torch.index_select(tokens, 0, index.to(tokens.device), out=rows)
    return _to_float32(rows, scratch, stored)


def _to_float32(rows: torch.Tensor, scratch: Scratch, stored: StoredType) -> torch.Tensor:
    if stored.plain and rows.dtype == torch.float32:
        return rows
    shape = (len(rows), stored.hidden_width(rows.shape[1]))
    return stored.widen(rows, scratch.tensor("hidden", shape, rows.device, torch.float32))
