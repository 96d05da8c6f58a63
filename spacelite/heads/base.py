"""What every kind of head is: K heads of one kind whose parameters have the same shapes, trained
side by side. K heads, C classes, d hidden width; B examples, n tokens of all of them together."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from spacelite.heads.batch import Batch, Objective, Scratch
from spacelite.heads.config import HeadConfig
from spacelite.lazy import torch

Array = npt.NDArray[Any]
Parameters: TypeAlias = "dict[str, torch.Tensor]"  # by name
Shapes = dict[str, tuple[int, ...]]
H = TypeVar("H", bound="Head")


@dataclass
class Totals:
    """What K heads' losses and metrics are computed from, summed over examples.

    Attributes:
        ce: Cross-entropy, (K,) float64; `weighted_ce`: with the weights of its terms.
        correct: Examples that are predicted correctly, (K,).
        confusion: Confusion matrices, (K, ...), as the task lays them out.
        examples: How many; `terms` of the cross-entropy; `weight`: the sum of the terms' weights.
    """

    ce: torch.Tensor
    weighted_ce: torch.Tensor
    correct: torch.Tensor
    confusion: torch.Tensor
    examples: int = 0
    terms: int = 0
    weight: float = 0.0

    @classmethod
    def zeros(cls, heads: int, objective: Objective) -> Totals:
        """Nothing counted yet."""
        ce, weighted_ce, correct = torch.zeros(3, heads, dtype=torch.float64)
        shape = objective.task.confusion_shape(objective.classes)
        return cls(ce, weighted_ce, correct, torch.zeros(heads, *shape, dtype=torch.float64))

    def add(self, logits: torch.Tensor, batch: Batch) -> None:
        """Add the cross-entropy and the predictions of `logits` (K, B, C)."""
        task = batch.task
        terms = task.cross_entropy(logits, batch.labels, batch.targets).double()
        self.ce += terms.sum(dim=(1, 2)).cpu()
        self.weighted_ce += (terms * batch.weights).sum(dim=(1, 2)).cpu()
        self.correct += task.count_correct(logits, batch.labels)
        self.confusion += task.count_confusion(logits, batch.labels)
        self.examples += len(batch.labels)
        self.terms += terms[0].numel()
        self.weight += batch.weight


class Head(ABC):
    """K heads of one kind, their parameters stacked along a first dimension K.

    A kind of head is a subclass of TokenHead (it reads every token) or of PooledHead (it reads one
    vector per example), complete: its config, the names and shapes of its parameters, its forward
    pass and gradient, and each token's share in its logits.

    Attributes:
        configs: The K heads' configs.
        parameters: (K, ...) by the names they have in `head.safetensors`.
        gradients: Of the last batch that was trained on, like `parameters`.
        logits: Of the last batch, (K, B, C).
        totals: Of all batches since `clear`.
    """

    config_type: ClassVar[type[HeadConfig]]

    def __init__(
        self, configs: Sequence[HeadConfig], parameters: Parameters, objective: Objective
    ) -> None:
        self.configs = list(configs)
        self.parameters = parameters
        self.objective = objective
        self.gradients: Parameters = {}
        self.logits: torch.Tensor = torch.empty(0)
        self.clear()

    # What a kind is, without any parameters.

    @classmethod
    @abstractmethod
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        """The parameters' names and shapes. The last dimension of the first one is `width`; a
        bias follows the weight that it belongs to."""

    @classmethod
    def initial(cls, config: Any, classes: int, width: int) -> Parameters:
        """One head's parameters before training: torch.nn.Linear's initialisation, uniform in
        +-1 / sqrt(fan_in). A function of the seed and the shapes alone, whatever other heads are
        trained beside it."""
        random = torch.Generator().manual_seed(config.seed)
        parameters, fan_in = {}, width
        for name, shape in cls.shapes(config, classes, width).items():
            fan_in = shape[-1] if len(shape) > 1 else fan_in
            uniform = torch.rand(shape, generator=random) * 2 - 1
            parameters[name] = uniform * (1 / math.sqrt(fan_in))
        return parameters

    @classmethod
    def stack_key(cls, config: Any) -> tuple[object, ...]:
        """What heads of one stack have in common: whatever the forward pass does not keep apart
        for each head."""
        settings = config.settings()
        apart = ("seed", "learning_rate", "weight_decay")
        return (config.kind, *(value for name, value in settings.items() if name not in apart))

    @classmethod
    def stack(
        cls: type[H],
        configs: Sequence[HeadConfig],
        parameters: Sequence[Parameters],
        objective: Objective,
        device: str = "cpu",
    ) -> H:
        """Heads of one `stack_key`, each with its parameters, as one stack."""
        stacked = {
            name: torch.stack([own[name] for own in parameters]).to(device)
            for name in parameters[0]
        }
        return cls(configs, stacked, objective)

    @classmethod
    def fit(
        cls,
        config: Any,
        features: Callable[[str], torch.Tensor],
        labels: torch.Tensor,
        objective: Objective,
        class_weights: str,
    ) -> Parameters:
        """The parameters of one head that is fitted at once instead of being trained in epochs.

        Args:
            config: The head's.
            features: A pooling's name -> one vector per training example, (N, d).
            labels: (N,) or (N, C).
            objective: What they are labels of.
            class_weights: `none` or `balanced`.
        """
        raise NotImplementedError(f"{config.name} is trained in epochs")

    # Each token's share in the logits, numpy: reports need no torch.

    @classmethod
    def not_additive(cls, config: Any) -> str | None:
        """Why the logits are no sum over tokens, in words; None where they are:
        logits = bias + mean over tokens of `token_logits`."""
        return f"the logits of {config.name} are not a sum over tokens"

    @classmethod
    def token_logits(cls, config: Any, parameters: dict[str, Array], hidden: Array) -> Array:
        """What each token contributes: n times its share in the logits.

        Args:
            config: The head's.
            parameters: One head's.
            hidden: Hidden states (n, d).

        Returns:
            (n, C), in the number type of `hidden`.
        """
        raise NotImplementedError(cls.not_additive(config))

    @classmethod
    def bias(cls, parameters: dict[str, Array]) -> Array:
        """The part of the logits that is no token's, (C,)."""
        return parameters["classifier.bias"]

    @classmethod
    def coordinates(cls, parameters: dict[str, Array], hidden: Array) -> Array | None:
        """Concept coordinates of hidden states (n, d), those of each class side by side, (n, C L),
        in their number type; None for a kind without concept spaces."""
        return None

    @classmethod
    def numbers_per_token(cls, config: Any, classes: int, width: int) -> int:
        """The most numbers that `token_logits` holds of a token at once."""
        return width

    # Running K heads.

    def clear(self) -> None:
        """Forget what was counted."""
        self.totals = Totals.zeros(len(self.configs), self.objective)

    def losses(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(loss, CE), each (K,), of what was counted since `clear`, as one batch. The loss weighs
        the cross-entropy with the class weights, the CE beside it never does."""
        return self.totals.weighted_ce / self.totals.weight, self.totals.ce / self.totals.terms

    def one(self, head: int) -> Parameters:
        """A copy of the parameters of one head, on the CPU."""
        return {name: value[head].cpu().clone() for name, value in self.parameters.items()}

    def classify(self, inputs: torch.Tensor) -> torch.Tensor:
        """The linear layer `classifier`: (K, B, p) -> logits (K, B, C)."""
        weight, bias = self.parameters["classifier.weight"], self.parameters["classifier.bias"]
        return torch.baddbmm(bias[:, None], inputs, weight.transpose(1, 2))

    def classifier_gradients(self, logit_gradients: torch.Tensor, inputs: torch.Tensor) -> None:
        """The gradients of the linear layer `classifier`, of logit gradients (K, B, C) and its
        inputs (K, B, p)."""
        gradients = self.gradients
        gradients["classifier.weight"] = torch.bmm(logit_gradients.transpose(1, 2), inputs)
        gradients["classifier.bias"] = logit_gradients.sum(dim=1)


class TokenHead(Head):
    """Heads that read every token. A batch is `begin`, `run_group` for each group of its examples,
    by several threads at once, and `end`.

    A subclass may define `forward` alone: its gradient is then autograd's.
    """

    def forward(self, parameters: Parameters, hidden: torch.Tensor, group: Batch) -> torch.Tensor:
        """Logits (K, B, C) of the examples of a `group`, whose tokens are `hidden` (n, d)."""
        raise NotImplementedError

    @property
    def columns(self) -> int:
        """How many numbers are computed of each token: the more, the fewer tokens at a time."""
        return len(self.configs) * self.objective.classes

    def begin(self, batch: Batch) -> None:
        """Prepare what the groups of a batch share."""
        shape = len(self.configs), len(batch.labels), self.objective.classes
        self.logits = next(iter(self.parameters.values())).new_empty(shape)

    def zero_gradients(self) -> Parameters:
        """What a thread adds up over its groups while training: by default every gradient."""
        return {name: torch.zeros_like(value) for name, value in self.parameters.items()}

    def run_group(
        self,
        first: int,
        group: Batch,
        hidden: torch.Tensor,
        scratch: Scratch,
        gradients: Parameters | None,
    ) -> None:
        """Forward and, while training, backward of some examples of a batch.

        Args:
            first: The number of the first of them in the batch: a thread writes only the rows of
                its own examples.
            group: The examples.
            hidden: Their tokens end to end, (n, d).
            scratch: The thread's working memory.
            gradients: The thread's own, as `zero_gradients` gave them, to be added to; None in
                evaluation.
        """
        rows = slice(first, first + len(group.lengths))
        if gradients is None:
            with torch.no_grad():
                self.logits[:, rows] = self.forward(self.parameters, hidden, group)
            return
        leaves = {name: value.detach().requires_grad_() for name, value in self.parameters.items()}
        logits = self.forward(leaves, hidden, group)
        self.logits[:, rows] = logits.detach()
        logit_gradients = group.logit_gradients(logits.detach())
        found = torch.autograd.grad(logits, list(leaves.values()), logit_gradients)
        for name, gradient in zip(leaves, found, strict=True):
            gradients[name] += gradient

    def end(self, batch: Batch, gradients: Parameters | None) -> None:
        """Count the batch; while training, `gradients` are the sums over all threads."""
        self.totals.add(self.logits, batch)
        if gradients is not None:
            self.gradients = gradients


def dropout_masks(
    configs: Sequence[Any], rate: float, shape: tuple[int, int], batch: tuple[int, int]
) -> torch.Tensor:
    """Masks (K, B, d) of 0 and 1 / (1 - rate), each head's a function of its own seed and of the
    numbers of the epoch and of the batch."""
    masks = []
    for config in configs:
        random = np.random.default_rng([config.seed, *batch])
        masks.append(torch.from_numpy(random.random(shape, np.float32) >= rate))
    return torch.stack(masks) / (1 - rate)
