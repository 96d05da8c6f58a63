"""A head as linear maps that other libraries have, with the reduction of its hidden states in them.

Shapes: d hidden width, C classes, p inputs and q outputs of a map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spacelite.heads.space import BIAS
from spacelite.runs.store import Run
from spacelite.types import Array


@dataclass(frozen=True)
class Linear:
    """A linear map, weight (q, p) and bias (q,), and the activation after it: `tanh`, `relu` or
    none."""

    weight: Array
    bias: Array
    activation: str | None = None


def pooled(run: Run) -> list[Linear]:
    """The maps that a head on one vector per text consists of, the first one first."""
    known = run.parameters
    last = Linear(known["classifier.weight"], known["classifier.bias"])
    if "pre_classifier.weight" not in known:
        return [whole(run, last)]
    first = Linear(known["pre_classifier.weight"], known["pre_classifier.bias"], "relu")
    return [whole(run, first), last]


def concepts(run: Run) -> Linear:
    """The map from a hidden state to its concept coordinates, of all classes side by side."""
    spaces = run.parameters["concept_spaces"]
    weight = spaces.reshape(-1, spaces.shape[-1])
    bias = run.parameters.get(BIAS, np.zeros(len(weight), np.float32)).reshape(-1)
    return whole(run, Linear(weight, bias, "tanh"))


def whole(run: Run, of_reduced: Linear) -> Linear:
    """A map of reduced hidden states as one of whole ones; that of the means of layers, which are
    whole, stays as it is."""
    reduction = run.reduction
    if reduction is None or of_reduced.weight.shape[-1] != reduction.dimensions:
        return of_reduced
    weight = of_reduced.weight.astype(np.float64) @ reduction.axes
    bias = of_reduced.bias - weight @ reduction.mean
    return Linear(weight.astype(np.float32), bias.astype(np.float32), of_reduced.activation)
