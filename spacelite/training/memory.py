"""The memory of one pass over the tokens: estimated before it starts, and what is said where it is
not enough."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from spacelite import heads
from spacelite.errors import SpaceliteError, is_out_of_memory
from spacelite.heads import Head, HeadConfig, TokenHead
from spacelite.training import batches, engine, machine
from spacelite.training.batches import TrainingData
from spacelite.training.config import TrainingConfig

FLOAT = 4  # bytes of a float32
TENSOR = 10_000  # bytes of the objects that hold one parameter of one head
EPOCH = 4096  # bytes of the metrics of one head and epoch
SHARE = 0.9  # of the free memory: estimates err, and other processes need some


@dataclass(frozen=True)
class Pass:
    """What the memory of a pass depends on, besides its heads.

    Attributes:
        classes: Number of classes.
        width: Width of the hidden states.
        examples: Number of examples in all splits.
        rows: Examples whose results are held at a time: those of a batch, or of a step of
            evaluation.
        longest: Tokens of the longest text.
        epochs: Number of epochs.
        early_stopping: Whether the weights of each head's best epoch are kept.
        threads: Number of threads.
        gpu: Whether the heads are trained on a GPU.
        layers: Number of layers whose means the heads read; 0 if they read none.
    """

    classes: int
    width: int
    examples: int
    rows: int
    longest: int
    epochs: int
    early_stopping: bool
    threads: int
    gpu: bool = False
    layers: int = 0

    @classmethod
    def of(cls, data: TrainingData, training: TrainingConfig, device: str, layers: int = 0) -> Pass:
        """The pass of a training, in which the means of some `layers` are read."""
        rows, longest = training.batch_size, 1
        for split in data.splits.values():
            shortest_mean = max(1.0, split.tokens / max(1, len(split)))
            step = math.ceil(engine.EVALUATION_TOKENS / shortest_mean)
            rows = max(rows, min(len(split), step))
            longest = max(longest, int(split.lengths.max(initial=1)))
        return cls(
            classes=len(data.label_names),
            width=data.splits["train"].width,
            examples=sum(len(split) for split in data.splits.values()),
            rows=min(rows, max(len(split) for split in data.splits.values())),
            longest=longest,
            epochs=training.epochs,
            early_stopping=training.patience is not None,
            threads=engine.threads(device),
            gpu=device != "cpu",
            layers=layers,
        )

    def bytes(self, configs: Sequence[HeadConfig]) -> int:
        """An estimate of the memory that heads need in training, without the hidden states."""
        total, columns = 0, 0
        members = [member for config in configs for member in config.members]
        for (kind, shapes), count in Counter(map(self._shape, members)).items():
            parameters = sum(math.prod(shape) for shape in shapes)
            # Weights, two moments, gradients, and copies in the update and in the checkpoint; each
            # thread has its own gradients, which are stacked before they are added up.
            copies = 8.0
            own_columns = math.prod(shapes[0][:-1])
            if issubclass(kind, TokenHead):
                columns += count * own_columns
                copies = max(copies, 5.0 + 2 * self.threads)
                results = 3 * own_columns
            else:
                # The last layer reads features as they are, unless others come before it.
                results = 3 * shapes[-2][-1] if len(shapes) > 2 else 0
            values = (copies + self.early_stopping) * parameters
            # A row's results, its logits and their cross-entropy in double precision, and the
            # logits of all examples.
            values += self.rows * (results + 9 * self.classes) + 2 * self.examples * self.classes
            fixed = len(shapes) * TENSOR + self.epochs * EPOCH
            total += count * int(values * FLOAT + fixed)
        # Layer means in float16; those of the rows are copied and converted.
        means = self.layers * self.width * (2 * self.examples + (2 + FLOAT) * self.rows)
        return total + means + self._scratch(columns)

    def _shape(self, config: HeadConfig) -> tuple[type[Head], tuple[tuple[int, ...], ...]]:
        whole = heads.kind(config.kind)
        kind = whole.in_training()
        # A part of a head reads one layer.
        width = config.input_width(self.width, self.layers) if kind is whole else self.width
        return kind, tuple(kind.shapes(config, self.classes, width).values())

    def _scratch(self, columns: int) -> int:
        """Working memory of all threads for heads that compute `columns` per token."""
        if not columns:
            return 0
        usual = batches.GPU_TOKENS_PER_GROUP if self.gpu else batches.TOKENS_PER_GROUP
        largest = batches.LARGEST_GROUP * usual // batches.TOKENS_PER_GROUP
        tokens = min(usual, max(batches.FEWEST_TOKENS, largest // columns)) + self.longest
        return int(self.threads * tokens * (4 * columns + 2 * self.width) * FLOAT * 9 / 8)

    def fitting(self, configs: Sequence[HeadConfig], free: float) -> int:
        """How many of the heads, in their order, need at most `free` bytes."""
        low, high = 0, len(configs)
        while low < high:
            middle = (low + high + 1) // 2
            if self.bytes(configs[:middle]) <= free:
                low = middle
            else:
                high = middle - 1
        return low


def require(
    data: TrainingData, configs: Sequence[HeadConfig], training: TrainingConfig, device: str
) -> None:
    """Raise SpaceliteError if the heads need more memory than is free, before any is used."""
    trained = [config for config in configs if config.is_iterative]
    reads_layers = any(config.reads_layers for config in configs)
    layers = data.layer_count() if reads_layers else 0
    one_pass = Pass.of(data, training, device, layers)
    free = machine.free_memory(device)
    budget = batches.RESIDENT_SHARE * free
    resident = 0
    for split in data.splits.values():
        size = split.tokens * split.stored.row_bytes(split.width)
        resident += size if resident + size <= budget else 0
    left = SHARE * free - resident
    for config in configs:
        fitted = config.start or config
        width = fitted.input_width(one_pass.width, layers)
        own = heads.kind(fitted.kind).fitting_bytes(fitted, len(data.splits["train"]), width)
        if own > left:
            raise SpaceliteError(
                f"fitting {fitted.name} needs about {own / 1e9:,.1f} GB of memory, and "
                f"{max(0.0, left) / 1e9:,.1f} GB is free beside the hidden states: free some, or "
                "embed fewer examples"
            )
    needed = one_pass.bytes(trained)
    if needed <= left:
        return
    fitting = one_pass.fitting(trained, left)
    advice = (
        f"train at most {fitting:,} at a time"
        if fitting
        else "give a smaller batch_size or fewer latent dimensions"
    )
    raise SpaceliteError(
        f"{len(trained):,} {'head needs' if len(trained) == 1 else 'heads need'} about "
        f"{needed / 1e9:,.1f} GB of memory, and {max(0.0, left) / 1e9:,.1f} GB is free beside the "
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
