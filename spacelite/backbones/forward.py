"""Token ids -> hidden states in batches: the plan, and smaller batches when memory runs out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from spacelite.backbones.model import Backbone
from spacelite.backbones.tokenizer import Tokenized
from spacelite.errors import SpaceliteError, is_out_of_memory
from spacelite.settings import require, whole_number

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Encode: TypeAlias = "Callable[[torch.Tensor], Array]"


class Output(NamedTuple):
    """What a forward pass of B texts of n tokens each gives.

    Attributes:
        hidden: Hidden states, (B, n, ...) as `encode` returns them.
        pooled: The pooler's outputs, (B, d) float32; None without a pooler.
        means: The means of all layers, (B, layers, d) float16; None unless the backbone keeps all
            layers.
        mean_seconds: How long computing these means took.
    """

    hidden: Array
    pooled: Array | None
    means: Array | None
    mean_seconds: float = 0.0


def default_budget(device: str) -> int:
    """Default tokens per forward pass: 4,096 on a CPU, 65,536 on a GPU."""
    return 4096 if device == "cpu" else 65536


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


def forward(
    model: Backbone,
    tokens: Tokenized,
    batch: Array,
    encode: Encode,
    limit: int,
) -> tuple[Output, int]:
    """Run the backbone on a batch of texts of equal length.

    Args:
        model: The backbone.
        tokens: The tokens of all texts.
        batch: The indices of the batch's B texts.
        encode: Converts hidden states (B, n, d) float32 to the array that is kept.
        limit: Maximum tokens per forward pass.

    Returns:
        The output, and the limit, halved each time memory ran out.

    Raises:
        SpaceliteError: Memory is too small for a single text.
    """
    import torch

    length = len(tokens.ids[batch[0]])
    while True:
        size = max(1, limit // length)
        try:
            parts = [
                _forward_once(model, tokens, batch[start : start + size], encode)
                for start in range(0, len(batch), size)
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
            limit = max(length, min(limit, size * length) // 2)
            log.warning("out of memory: continuing with %s tokens per batch", f"{limit:,}")
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        return _joined(parts), limit


def _joined(parts: Sequence[Output]) -> Output:
    pooled = [part.pooled for part in parts if part.pooled is not None]
    means = [part.means for part in parts if part.means is not None]
    return Output(
        np.concatenate([part.hidden for part in parts]),
        np.concatenate(pooled) if pooled else None,
        np.concatenate(means) if means else None,
        sum(part.mean_seconds for part in parts),
    )


def _forward_once(model: Backbone, tokens: Tokenized, batch: Array, encode: Encode) -> Output:
    def stack(arrays: list[Array] | None) -> Array | None:
        return None if arrays is None else np.stack([arrays[example] for example in batch])

    masks = stack(tokens.masks)
    hidden, pooled, layers = model.hidden_states(
        np.stack([tokens.ids[example] for example in batch]), stack(tokens.type_ids), masks
    )
    # First: it waits for the GPU, so that the time of the means is theirs alone.
    rows = encode(hidden)
    started = time.perf_counter()
    means = None if layers is None else layer_means(layers, masks)
    seconds = time.perf_counter() - started
    return Output(rows, None if pooled is None else pooled.cpu().numpy(), means, seconds)


def layer_means(layers: Sequence[torch.Tensor], masks: Array | None) -> Array:
    """The mean of each layer over each text's own tokens, (B, layers, d) float16.

    Args:
        layers: Hidden states of each layer, (B, n, d).
        masks: 1 for tokens and 0 for padding, (B, n); None without padding.
    """
    import torch

    if masks is None:
        means = [states.mean(dim=1, dtype=torch.float32) for states in layers]
    else:
        weights = torch.from_numpy(masks.astype(np.float32)).to(layers[0].device)
        weights = (weights / weights.sum(dim=1, keepdim=True))[:, None]
        means = [torch.bmm(weights, states.float())[:, 0] for states in layers]
    rounded: Array = torch.stack(means, dim=1).to(torch.float16).cpu().numpy()
    return rounded
