"""Token ids -> hidden states in batches: the plan, the stages of a batch, and smaller batches when
memory runs out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from spacelite import pipeline
from spacelite.backbones.model import Backbone
from spacelite.backbones.tokenizer import Tokenized
from spacelite.backbones.transfers import Fetched, Transfers
from spacelite.errors import SpaceliteError, is_out_of_memory
from spacelite.pipeline import Clock, Stage
from spacelite.settings import require, whole_number

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Result = TypeVar("Result")
Encode: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
Measure: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"

# On a CPU each thread runs batches of its own: that leaves no core waiting for another, and the
# hidden states of a batch do not depend on how many cores there are. More threads than this share a
# batch between some of them, because Python itself starts the operations of one at a time.
MOST_WORKERS = 16
CPU_TOKENS, GPU_TOKENS = 1024, 65536
FINISHERS = 2


class Output(NamedTuple):
    """What the forward passes of B texts of n tokens each give.

    Attributes:
        states: Hidden states of each layer that the backbone reads, (B, n, ...) as `encode` returns
            them.
        pooled: The pooler's outputs, (B, d) float32; None without a pooler.
        means: The means of all layers, (B, layers, d) float16; None unless the backbone keeps all
            layers.
        measured: Of each forward pass the number of tokens, and what `measure` returned for each
            layer.
    """

    states: list[Array]
    pooled: Array | None
    means: Array | None
    measured: list[tuple[int, list[Array]]]

    @property
    def hidden(self) -> Array:
        """Hidden states of the only layer, or of the first."""
        return self.states[0]


def default_budget(device: str) -> int:
    """Default tokens per forward pass: 1,024 on a CPU, of each thread; 65,536 on a GPU."""
    return CPU_TOKENS if device == "cpu" else GPU_TOKENS


def check_budget(tokens_per_batch: int | None) -> None:
    """Raise SpaceliteError unless this is a whole number of at least 1, or None."""
    if tokens_per_batch is None:
        return
    require("tokens_per_batch", tokens_per_batch, whole_number(1))


def plan_batches(lengths: Array, tokens_per_batch: int) -> Iterator[Array]:
    """Plan batches of examples of equal length, longest first, so that nothing is padded.

    The plan depends only on the lengths and the budget: a resumed run forms the same batches and so
    writes the same bytes. Equal lengths cost at most one small batch per length, and make an
    attention mask unnecessary.

    Args:
        lengths: Number of tokens of each example, (N,).
        tokens_per_batch: Maximum tokens per batch; a longer example is a batch of its own.

    Yields:
        The indices of the examples of each batch.
    """
    order = np.argsort(-lengths, kind="stable")
    for run in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        size = max(1, tokens_per_batch // int(lengths[run[0]]))
        for start in range(0, len(run), size):
            yield run[start : start + size]


class Forward:
    """Runs a backbone on batches, in stages that overlap: preparing, computing and finishing.

    Args:
        model: The backbone.
        tokens: The tokens of N texts.
        encode: Hidden states (B, n, d) float32 -> what is kept of them, on the same device.
        limit: Maximum tokens per forward pass. It is halved each time memory runs out.
        measure: Called with hidden states and what is kept of them; returns what is to be known
            about both, on the same device. None to measure nothing.
        clock: Measures the stages: `preparing`, `computing`, `finishing`, and on a GPU `launching`
            its operations.
    """

    def __init__(
        self,
        model: Backbone,
        tokens: Tokenized,
        encode: Encode,
        limit: int,
        *,
        measure: Measure | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.model, self.tokens, self.limit = model, tokens, limit
        self.encode, self.measure = encode, measure
        self.clock = clock or Clock()
        self._transfers = Transfers(model.device)

    def batches(
        self,
        batches: Iterable[Array],
        finish: Callable[[Array, Output], Result],
        *,
        sharing: bool = False,
    ) -> Iterator[Result]:
        """Run batches of texts of equal length.

        Args:
            batches: The indices of each batch's B texts.
            finish: Called with these and their output, in a thread of its own.
            sharing: Whether the threads of a CPU share a batch if there are fewer batches than
                threads. That is faster; the last bits then depend on the number of batches.

        Yields:
            What `finish` returns, in the order of the batches.

        Raises:
            SpaceliteError: Memory is too small for a single text.
        """
        import torch

        listed = list(batches)
        workers, each = self._threads(len(listed) if sharing else MOST_WORKERS)
        # A GPU computes while Python waits for its results.
        starting, waiting = ("computing", "finishing") if each else ("launching", "computing")
        begin = partial(torch.set_num_threads, each) if each else None
        stages = [
            Stage("preparing", self._prepared),
            Stage(starting, self._started, workers, begin),
            Stage(waiting, _joined),
            Stage("finishing", lambda given: finish(*given), FINISHERS),
        ]
        ahead = 2 * (workers + FINISHERS)  # batches on the way
        with _threads_restored:
            yield from pipeline.run(listed, stages, ahead=ahead, clock=self.clock)

    def _threads(self, most: int) -> tuple[int, int]:
        """How many batches are computed at once, and with how many threads each; the latter is 0 on
        a GPU."""
        import torch

        if self.model.device != "cpu":
            return 1, 0
        threads = torch.get_num_threads()
        workers = max(1, min(threads, most, MOST_WORKERS))
        return workers, threads // workers

    def _prepared(self, batch: Array) -> tuple[Array, list[Any]]:
        def stack(arrays: list[Array] | None) -> Any:
            if arrays is None:
                return None
            return self._transfers.ready(np.stack([arrays[example] for example in batch]))

        tokens = self.tokens
        return batch, [stack(tokens.ids), stack(tokens.type_ids), stack(tokens.masks)]

    def _started(self, prepared: tuple[Array, list[Any]]) -> tuple[Array, list[_Started]]:
        import torch

        batch, inputs = prepared
        length = len(self.tokens.ids[batch[0]])
        while True:
            size = max(1, self.limit // length)
            try:
                return batch, [
                    self._pass([one if one is None else one[low : low + size] for one in inputs])
                    for low in range(0, len(batch), size)
                ]
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise SpaceliteError(
                        f"memory is too small for one text of {length} tokens: use a smaller "
                        "max_length or backbone",
                        ["max_length", "backbone"],
                    ) from error
                smaller = max(length, min(self.limit, size * length) // 2)
                if smaller < self.limit:
                    self.limit = smaller
                    log.warning(
                        "out of memory: continuing with %s tokens per batch", f"{smaller:,}"
                    )
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()

    def _pass(self, inputs: list[Any]) -> _Started:
        """Run one forward pass, and start copying what is kept of it to host memory."""
        found = self.model.hidden_states(*inputs)
        states = [found.hidden, *found.others]
        rows = [self.encode(one) for one in states]
        measured = [
            self.measure(one, kept) for one, kept in zip(states, rows, strict=True) if self.measure
        ]
        means = None if found.layers is None else layer_means(found.layers, inputs[2])
        fetch = self._transfers.fetch
        return _Started(
            len(found.hidden) * found.hidden.shape[1],
            [fetch(one) for one in rows],
            None if found.pooled is None else fetch(found.pooled),
            None if means is None else fetch(means),
            [fetch(one) for one in measured],
        )


class _Started(NamedTuple):
    """A forward pass whose output is on its way to host memory."""

    tokens: int
    states: list[Fetched]
    pooled: Fetched | None
    means: Fetched | None
    measured: list[Fetched]


def _joined(started: tuple[Array, list[_Started]]) -> tuple[Array, Output]:
    """Wait for the forward passes of a batch."""
    batch, parts = started
    return batch, Output(
        [_end_to_end(layer) for layer in zip(*(part.states for part in parts), strict=True)],
        _if_any(part.pooled for part in parts),
        _if_any(part.means for part in parts),
        [(part.tokens, [one() for one in part.measured]) for part in parts if part.measured],
    )


def _end_to_end(fetched: Sequence[Fetched]) -> Array:
    there = [one() for one in fetched]
    return there[0] if len(there) == 1 else np.concatenate(there)


def _if_any(fetched: Iterable[Fetched | None]) -> Array | None:
    there = [one for one in fetched if one is not None]
    return _end_to_end(there) if there else None


def layer_means(layers: Sequence[torch.Tensor], masks: Array | torch.Tensor | None) -> torch.Tensor:
    """The mean of each layer over each text's own tokens, (B, layers, d) float16.

    Args:
        layers: Hidden states of each layer, (B, n, d).
        masks: 1 for tokens and 0 for padding, (B, n); None without padding.
    """
    import torch

    if masks is None:
        means = [states.mean(dim=1, dtype=torch.float32) for states in layers]
    else:
        weights = torch.as_tensor(masks, dtype=torch.float32, device=layers[0].device)
        weights = (weights / weights.sum(dim=1, keepdim=True))[:, None]
        means = [torch.bmm(weights, states.float())[:, 0] for states in layers]
    return torch.stack(means, dim=1).to(torch.float16)


class _ThreadsRestored:
    """A context in which threads set torch's number of threads, which sets it for others too.
    Whoever leaves it last, of all that run at once, gives torch as many as it had before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = self._before = 0

    def __enter__(self) -> None:
        import torch

        with self._lock:
            if not self._inside:
                self._before = torch.get_num_threads()
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        import torch

        with self._lock:
            self._inside -= 1
            if not self._inside:
                torch.set_num_threads(self._before)


_threads_restored = _ThreadsRestored()
