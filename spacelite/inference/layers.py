"""The hidden states of all layers for one text, of which a cache holds only the means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import backbones
from spacelite.backbones import BackboneFiles, Tokenized, shared
from spacelite.cache.dtypes import stored_type
from spacelite.inference import prediction
from spacelite.inference.prediction import OnProgress
from spacelite.runs import Run

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LayerStates:
    """The hidden states of all layers for one text.

    Attributes:
        ids: Token ids, (n,).
        hidden: Hidden states of the run's layer in the stored type, n rows.
        states: Hidden states of all layers side by side, (n, layers * d) float32, so that their
            mean over all n tokens is that of the text's own tokens: those of padding are 0, and the
            others are scaled accordingly.
    """

    ids: Array
    hidden: Array
    states: Array

    def logits(self, run: Run, *, rounded: bool = False) -> Array:
        """A head's logits (C,), from the means of these states.

        Args:
            run: The run.
            rounded: Whether the means are rounded as in a cache.
        """
        means = self.states.mean(axis=0, dtype=np.float64)
        means = means.astype(np.float16 if rounded else np.float32)
        hidden, ids = self.hidden[None], self.ids[None]
        only: Array = prediction.head_logits(run, hidden, None, means[None], ids)[0]
        return only


def of_text(
    run: Run,
    text: str,
    files: BackboneFiles,
    *,
    device: str = "auto",
    on_progress: OnProgress = lambda phase, done, total: None,
) -> LayerStates:
    """Run a text through the backbone. Raises SpaceliteError if it is empty."""
    tokens = prediction.tokenized(run, files, [text], on_progress)
    return _states(run, tokens, files, device, on_progress)


def of_ids(
    run: Run,
    ids: Array,
    files: BackboneFiles,
    *,
    device: str = "auto",
    on_progress: OnProgress = lambda phase, done, total: None,
) -> LayerStates:
    """Run the tokens of a cached text through the backbone."""
    spec = run.record.spec
    tokens = backbones.from_ids(files, ids, max_length=spec.max_length, padding=spec.padding)
    return _states(run, tokens, files, device, on_progress)


def _states(
    run: Run, tokens: Tokenized, files: BackboneFiles, device: str, on_progress: OnProgress
) -> LayerStates:
    import torch

    on_progress("embed", 0, len(tokens.ids[0]))
    device = backbones.resolve_device(device)
    spec = run.record.spec
    model = shared.loaded(files, layer=spec.layer, device=device, all_layers=True)
    ids, types, masks = tokens.ids, tokens.type_ids, tokens.masks
    found = model.hidden_states(
        ids[0][None],
        None if types is None else types[0][None],
        None if masks is None else masks[0][None],
    )
    states: Array = torch.cat([one[0].float() for one in found.layers or ()], dim=1).cpu().numpy()
    if masks is not None:
        states = states * (masks[0] * (len(ids[0]) / masks[0].sum()))[:, None].astype(np.float32)
    on_progress("embed", len(ids[0]), len(ids[0]))
    return LayerStates(ids[0], stored_type(spec.dtype).encode(found.hidden)[0], states)
