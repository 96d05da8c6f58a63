"""What one pass over the tokens uses of the machine: cores, the size of a group of tokens, and
memory, estimated before it starts."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spacelite import heads, ranks
from spacelite.errors import SpaceliteError, is_out_of_memory
from spacelite.heads.base import Head, TokenHead
from spacelite.heads.config import HeadConfig
from spacelite.memory import cores, free_memory
from spacelite.training.config import TrainingConfig

if TYPE_CHECKING:
    from spacelite.training.batches import TrainingData

MAX_THREADS = 8  # a batch does not have enough groups for more
TOKENS_PER_GROUP = 4096  # tokens processed at a time: their hidden states fit the CPU's cache
GPU_TOKENS_PER_GROUP = 65536  # enough to keep a GPU busy
LARGEST_GROUP = 2**22  # tokens times columns: limits the size of a group's results
FEWEST_TOKENS = 512  # a smaller group is not worth an extra thread
EVALUATION_TOKENS = 2**18  # tokens between two progress reports
RESIDENT_SHARE = 0.6  # of the free memory, for hidden states; splits that do not fit are streamed
# Bytes of one window of a streamed split; the windows that a batch's examples are in are held,
# usually one or two. Fixed, because the order of the examples depends on it and must not depend on
# the free memory.
WINDOW = 2**29
FLOAT = 4  # bytes of a float32
TENSOR = 15_000  # bytes of the objects that hold one parameter of one head, as measured with 1,000
EPOCH = 4096  # bytes of the metrics of one head and epoch
SHARE = 0.9  # of the free memory: estimates err, and other processes need some


# The machine.


def threads(device: str) -> int:
    """One thread per core that this process may use, at most MAX_THREADS; one alone for a GPU."""
    return 1 if device != "cpu" else min(MAX_THREADS, cores())


def group_tokens(device: str, columns: int) -> int:
    """The most tokens that are processed at a time, if `columns` are computed for each."""
    usual, largest = TOKENS_PER_GROUP, LARGEST_GROUP
    if device != "cpu":
        usual = GPU_TOKENS_PER_GROUP
        largest = LARGEST_GROUP * GPU_TOKENS_PER_GROUP // TOKENS_PER_GROUP
    return min(usual, max(FEWEST_TOKENS, largest // columns))


def resident_budget(device: str) -> float:
    """Bytes that hidden states may take, those of all ranks together: 60% of the free memory of
    each host, or of each GPU."""
    return RESIDENT_SHARE * free_memory(device) * ranks.size() / ranks.sharing(device)


def free_for_window() -> bool:
    """Whether there is memory for one more window of a streamed split, and as much beside it."""
    return free_memory("cpu") > 2 * WINDOW


# The heads.


def needed(
    configs: Sequence[HeadConfig],
    data: TrainingData,
    training: TrainingConfig,
    device: str,
    layers_width: int = 0,
) -> int:
    """An estimate of the memory in bytes that heads need in training, without the hidden states.
    `layers_width` is that of the means of all layers, if they are read."""
    classes, width = len(data.label_names), data.splits["train"].width
    lengths = [len(split) for split in data.splits.values()]
    examples, longest = sum(lengths), 1
    rows = (
        training.batch_size
    )  # examples whose results are held, also those of a step of evaluation
    for split in data.splits.values():
        shortest_mean = max(1.0, split.tokens / max(1, len(split)))
        rows = max(rows, min(len(split), math.ceil(EVALUATION_TOKENS / shortest_mean)))
        longest = max(longest, int(split.lengths.max(initial=1)))
    rows = min(rows, max(lengths))

    def shapes(config: HeadConfig) -> tuple[type[Head], tuple[tuple[int, ...], ...]]:
        whole = heads.kind(config.kind)
        kind = whole.in_training(config)
        # A part of a head reads one layer.
        of_input = config.input_width(width, layers_width) if kind is whole else width
        return kind, tuple(kind.shapes(config, classes, of_input).values())

    total, columns, workers = 0, 0, threads(device)
    members = [member for config in configs for member in config.members]
    for (kind, of_head), count in Counter(map(shapes, members)).items():
        parameters = sum(math.prod(shape) for shape in of_head)
        # Weights, two moments, gradients, and copies in the update and in the checkpoint; each
        # thread has its own gradients, which are stacked before they are added up.
        copies = 8.0
        own_columns = math.prod(of_head[0][:-1])
        if issubclass(kind, TokenHead):
            columns += count * own_columns
            copies = max(copies, 5.0 + 2 * workers)
            results = 3 * own_columns
        else:
            # The last layer reads features as they are, unless others come before it.
            results = 3 * of_head[-2][-1] if len(of_head) > 2 else 0
        # With early stopping, the weights of each head's best epoch are kept.
        values = (copies + (training.patience is not None)) * parameters
        # A row's results, its logits and their cross-entropy in double precision, and the logits of
        # all examples.
        values += rows * (results + 9 * classes) + 2 * examples * classes
        fixed = len(of_head) * TENSOR + training.epochs * EPOCH
        total += count * int(values * FLOAT + fixed)
    # Layer means in float16; those of the rows are copied and converted.
    total += layers_width * (2 * examples + (2 + FLOAT) * rows)
    if columns:  # working memory of all threads
        tokens = group_tokens(device, columns) + longest
        total += int(workers * tokens * (4 * columns + 2 * width) * FLOAT * 9 / 8)
    return total


def require(
    data: TrainingData, configs: Sequence[HeadConfig], training: TrainingConfig, device: str
) -> None:
    """Raise SpaceliteError if the heads need more memory than is free, before any is used."""
    trained = [config for config in configs if config.is_iterative]
    reads_layers = any(config.reads_layers for config in configs)
    layers_width = data.layers_width() if reads_layers else 0
    free = free_memory(device)
    budget = resident_budget(device)
    resident = streamed = 0
    for split in data.splits.values():
        size = split.tokens * split.stored.row_bytes(split.width)
        if resident + size <= budget:
            resident += size
        else:
            streamed = max(streamed, min(size, 2 * WINDOW))
    sharing = ranks.sharing(device)  # each has a part of the hidden states, and heads of its own
    left = max(0.0, SHARE * free - (resident + streamed) * sharing / ranks.size())
    for config in configs:
        fitted = config.start or config
        width = fitted.input_width(data.splits["train"].width, layers_width)
        size = heads.kind(fitted.kind).fitting_bytes(fitted, len(data.splits["train"]), width)
        if size > left:
            raise SpaceliteError(
                f"fitting {fitted.name} needs about {size / 1e9:,.1f} GB of memory, and "
                f"{left / 1e9:,.1f} GB is free beside the hidden states: free some, or "
                "embed fewer examples"
            )

    def of_first(count: int) -> int:
        return needed(trained[:count], data, training, device, layers_width)

    left /= sharing
    of_all = of_first(len(trained))
    if of_all <= left:
        return
    fitting = bisect.bisect(range(1, len(trained) + 1), left, key=of_first)
    advice = (
        f"train at most {fitting:,} at a time"
        if fitting
        else "give a smaller batch_size or fewer latent dimensions"
    )
    raise SpaceliteError(
        f"{len(trained):,} {'head needs' if len(trained) == 1 else 'heads need'} about "
        f"{of_all / 1e9:,.1f} GB of memory, and {left / 1e9:,.1f} GB is free beside the "
        f"hidden states: {advice}",
        ["batch_size"],
    )


@contextmanager
def shortage_explained(heads: int) -> Iterator[None]:
    """Raise SpaceliteError in place of an exception that means that memory ran out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise SpaceliteError(
            f"not enough memory for {heads} heads at once: train fewer at a time, with a "
            "smaller batch_size, or with fewer latent dimensions",
            ["batch_size"],
        ) from error
