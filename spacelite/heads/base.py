"""The base classes of all heads. An object is K heads of one kind whose parameters have the same
shapes, trained side by side.

Shapes: K heads, C classes, d hidden width, B examples, n tokens in all of them together.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from spacelite.heads.batch import Batch, Objective, Scratch
from spacelite.heads.config import HeadConfig
from spacelite.heads.examples import Examples, Fitted, Parameters, Tokens
from spacelite.lazy import torch

Array = npt.NDArray[Any]
Shapes = dict[str, tuple[int, ...]]
# Lengths in shapes that only the parameters tell; each is the same wherever it stands.
ANY, ANY_OTHER = -1, -2
H = TypeVar("H", bound="Head")


@dataclass
class Totals:
    """Sums over examples, from which the losses and metrics of K heads are computed.

    Attributes:
        ce: Cross-entropy without weights, (K,) float64.
        weighted_ce: Cross-entropy with the weights of its terms, (K,) float64.
        correct: Number of examples that are predicted correctly, (K,).
        confusion: Confusion matrices, (K, ...), in the task's layout.
        examples: Number of examples.
        terms: Number of terms of the cross-entropy.
        weight: Sum of the weights of these terms.

    Where each head gives examples weights of its own, all numbers are sums of these, and the last
    three (K,) too.
    """

    ce: torch.Tensor
    weighted_ce: torch.Tensor
    correct: torch.Tensor
    confusion: torch.Tensor
    examples: int | torch.Tensor = 0
    terms: int | torch.Tensor = 0
    weight: float | torch.Tensor = 0.0

    @classmethod
    def zeros(cls, heads: int, objective: Objective) -> Totals:
        """Totals of no examples."""
        ce, weighted_ce, correct = torch.zeros(3, heads, dtype=torch.float64)
        shape = objective.task.confusion_shape(objective.classes)
        return cls(ce, weighted_ce, correct, torch.zeros(heads, *shape, dtype=torch.float64))

    def add(self, logits: torch.Tensor, batch: Batch) -> None:
        """Add a batch, whose `logits` are (K, B, C)."""
        task = batch.task
        terms = task.cross_entropy(logits, batch.labels, batch.targets).double()
        if batch.shares is not None:
            terms *= batch.shares[:, :, None]
        self.ce += terms.sum(dim=(1, 2)).cpu()
        self.weighted_ce += (terms * batch.weights).sum(dim=(1, 2)).cpu()
        correct, confusion = task.count(logits, batch.labels, batch.shares)
        self.correct += correct
        self.confusion += confusion
        if batch.shares is None:
            self.examples += len(batch.labels)
            self.terms += terms[0].numel()
            self.weight += batch.weight
            return
        shares = batch.shares.double()
        examples = shares.sum(dim=1).cpu()
        self.examples = self.examples + examples
        self.terms = self.terms + examples * terms.shape[2]
        self.weight = self.weight + (shares * batch.weights.double().sum(dim=-1)).sum(dim=1).cpu()


class Head(ABC):
    """K heads of one kind, with their parameters stacked along a first dimension K.

    A kind of head is a subclass of TokenHead (which reads every token), of PooledHead (which reads
    one vector per example) or of IdHead (which reads token ids alone). It defines everything about
    the kind: its config, the names and shapes of its parameters, its forward pass and gradient, and
    each token's share in its logits.

    Attributes:
        configs: Configs of the K heads.
        parameters: Parameters, (K, ...) each, by their names in `head.safetensors`.
        objective: Task, number of classes and class weights.
        gradients: Gradients from the last training batch, like `parameters`.
        logits: Logits of the last batch, (K, B, C).
        shares: The weight of each training example for each head, (K, N); None if all are 1.
        class_weights: With `shares`, the class weights of each head, (K, ...); None if all have
            those of the objective.
        totals: Totals of all batches since `clear`.
    """

    config_type: ClassVar[type[HeadConfig]]
    # Parameters that are looked up and not trained, such as a table of n-grams.
    TABLES: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, configs: Sequence[HeadConfig], parameters: Parameters, objective: Objective
    ) -> None:
        self.configs = list(configs)
        self.parameters = parameters
        self.objective = objective
        self.gradients: Parameters = {}
        self.logits: torch.Tensor = torch.empty(0)
        self.shares: torch.Tensor | None = None
        self.class_weights: torch.Tensor | None = None
        self.clear()

    # What defines a kind of head.

    @classmethod
    def in_training(cls) -> type[Head]:
        """The kind that is trained in epochs, if only a part of this one is."""
        return cls

    @classmethod
    @abstractmethod
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        """Names and shapes of the parameters. The last dimension of the first one is `width`; each
        bias comes after its weight."""

    @classmethod
    def initial(cls, config: Any, classes: int, width: int) -> Parameters:
        """One head's parameters before training: torch.nn.Linear's initialisation, uniform in
        +-1 / sqrt(fan_in). They depend only on the seed and the shapes, not on which other heads
        are trained at the same time."""
        random = torch.Generator().manual_seed(config.seed)
        parameters, fan_in = {}, width
        for name, shape in cls.shapes(config, classes, width).items():
            fan_in = shape[-1] if len(shape) > 1 else fan_in
            uniform = torch.rand(shape, generator=random) * 2 - 1
            parameters[name] = uniform * (1 / math.sqrt(fan_in))
        return parameters

    @classmethod
    def filled(cls, parameters: Parameters, train: Examples) -> Parameters:
        """The parameters of one head before training, with TABLES filled in from the training
        examples."""
        return parameters

    @classmethod
    def merged(cls, members: Sequence[Parameters]) -> Parameters:
        """The parameters of one head whose logits are the mean of those of several."""
        raise NotImplementedError("only concept spaces are merged")

    @classmethod
    def joined(cls, config: Any, trained: Parameters, start: Parameters | None) -> Parameters:
        """The parameters of one head, from those that were trained in epochs and those of its
        start, if it has one."""
        return trained

    @classmethod
    def stack_key(cls, config: Any) -> tuple[object, ...]:
        """Heads with the same key can share a stack: the kind, and every setting that the forward
        pass cannot vary from head to head."""
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
        """Combine heads with the same `stack_key`, and the parameters of each, into one stack."""
        stacked = {
            name: torch.stack([own[name] for own in parameters]).to(device)
            for name in parameters[0]
        }
        return cls(configs, stacked, objective)

    @classmethod
    def fit(
        cls,
        config: Any,
        train: Examples,
        objective: Objective,
        class_weights: str,
    ) -> Fitted:
        """Fit the parameters of one head, for kinds that are not trained in epochs.

        Args:
            config: Config of the head.
            train: The training examples.
            objective: Task and number of classes.
            class_weights: `none` or `balanced`.
        """
        raise NotImplementedError(f"{config.name} is trained in epochs")

    @classmethod
    def fitting_bytes(cls, config: Any, examples: int, width: int) -> int:
        """An estimate of the memory that `fit` takes beside the hidden states.

        Args:
            config: Config of the head.
            examples: Number of training examples.
            width: The width of what the head reads.
        """
        return 0

    # Each token's share in the logits, in numpy: reports do not need torch.

    @classmethod
    def not_additive(cls, config: Any) -> str | None:
        """A message that says why the logits are not a sum over tokens; None if they are:
        logits = bias + mean over tokens of `token_logits`."""
        return f"the logits of {config.name} are not a sum over tokens"

    @classmethod
    def token_logits(cls, config: Any, parameters: dict[str, Array], hidden: Array) -> Array:
        """What each token contributes: n times its share in the logits.

        Args:
            config: Config of the head.
            parameters: Parameters of the head.
            hidden: Hidden states of the tokens, (n, d).

        Returns:
            (n, C), in the dtype of `hidden`.
        """
        raise NotImplementedError(cls.not_additive(config))

    @classmethod
    def token_shares(cls, config: Any, parameters: dict[str, Array], tokens: Tokens) -> Array:
        """Each token's share in the logits of its text.

        Args:
            config: Config of the head.
            parameters: Parameters of the head.
            tokens: Tokens of several texts.

        Returns:
            (T, C); with the bias, they sum to the logits of a text.
        """
        hidden = tokens.read(config.reads_layers)
        return tokens.averaged(cls.token_logits(config, parameters, hidden))

    @classmethod
    def block_shares(
        cls, config: Any, parameters: dict[str, Array], tokens: Tokens
    ) -> dict[str, Array]:
        """The shares of the tokens by block, (T, C) each, for a kind that consists of blocks; the
        arguments are those of `token_shares`, the sum over blocks is what it returns."""
        return {}

    @classmethod
    def bias(cls, parameters: dict[str, Array]) -> Array:
        """The part of the logits that comes from no token, (C,)."""
        return parameters["classifier.bias"]

    @classmethod
    def coordinates(cls, parameters: dict[str, Array], hidden: Array) -> Array | None:
        """Concept coordinates of hidden states (n, d), one class after another: (n, C L), in the
        dtype of `hidden`. None for a kind without concept spaces."""
        return None

    @classmethod
    def numbers_per_token(cls, config: Any, classes: int, width: int) -> int:
        """The largest number of values that `token_logits` holds per token at any time."""
        return width

    # Running K heads.

    @property
    def of_tokens(self) -> TokenHead | None:
        """The part of the heads that reads every token, if any."""
        return None

    @property
    def trained(self) -> Parameters:
        """The parameters that are trained: all but TABLES."""
        return {name: own for name, own in self.parameters.items() if name not in self.TABLES}

    def clear(self) -> None:
        """Reset the totals."""
        self.totals = Totals.zeros(len(self.configs), self.objective)

    def losses(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and CE, (K,) each, of everything counted since `clear`, as one batch. The loss
        includes the class weights; the CE never does."""
        return self.totals.weighted_ce / self.totals.weight, self.totals.ce / self.totals.terms

    def head_parameters(self, head: int) -> Parameters:
        """A copy of the parameters of one head, on the CPU."""
        return {name: value[head].cpu().clone() for name, value in self.parameters.items()}

    def classify(self, inputs: torch.Tensor) -> torch.Tensor:
        """The linear layer `classifier`: (K, B, p) -> logits (K, B, C)."""
        weight, bias = self.parameters["classifier.weight"], self.parameters["classifier.bias"]
        return torch.baddbmm(bias[:, None], inputs, weight.transpose(1, 2))

    def classifier_gradients(self, logit_gradients: torch.Tensor, inputs: torch.Tensor) -> None:
        """Set the gradients of the linear layer `classifier`, given the logit gradients (K, B, C)
        and the layer's inputs (K, B, p)."""
        gradients = self.gradients
        gradients["classifier.weight"] = torch.bmm(logit_gradients.transpose(1, 2), inputs)
        gradients["classifier.bias"] = logit_gradients.sum(dim=1)


class TokenHead(Head):
    """Heads that read every token. For each batch, `begin` is called, then `run_group` for each
    group of its examples, in several threads at once, then `end`.

    A subclass may define only `forward`: autograd then computes the gradient.
    """

    @property
    @override
    def of_tokens(self) -> TokenHead | None:
        return self

    def forward(self, parameters: Parameters, hidden: torch.Tensor, group: Batch) -> torch.Tensor:
        """Logits (K, B, C) of the examples of a `group`, whose tokens are `hidden` (n, d)."""
        raise NotImplementedError

    @property
    def columns(self) -> int:
        """How many values are computed per token: the more, the fewer tokens per group."""
        return len(self.configs) * self.objective.classes

    def begin(self, batch: Batch) -> None:
        """Prepare what the groups of a batch share."""
        shape = len(self.configs), len(batch.labels), self.objective.classes
        self.logits = next(iter(self.parameters.values())).new_empty(shape)

    def zero_gradients(self) -> Parameters:
        """Zeros for the gradients that a thread sums over its groups: by default, all of them."""
        return {name: torch.zeros_like(value) for name, value in self.parameters.items()}

    def run_group(
        self,
        first: int,
        group: Batch,
        hidden: torch.Tensor,
        scratch: Scratch,
        gradients: Parameters | None,
    ) -> None:
        """Run forward and, in training, backward on a group of a batch's examples.

        Args:
            first: Index in the batch of the group's first example. A thread writes only the rows
                of its own examples.
            group: Examples of the group.
            hidden: Hidden states of their tokens end to end, (n, d).
            scratch: Working memory of the thread.
            gradients: Gradients of the thread, from `zero_gradients`, to add to; None in
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
        """Add the batch to the totals. `gradients` are the sums over all threads; None in
        evaluation."""
        self.totals.add(self.logits, batch)
        if gradients is not None:
            self.gradients = gradients


def dropout_masks(
    configs: Sequence[Any], rate: float, shape: tuple[int, int], batch: tuple[int, int]
) -> torch.Tensor:
    """Dropout masks (K, *shape) of 0 and 1 / (1 - rate). A head's mask depends only on its seed and
    on `batch`, the numbers of the epoch and of the batch."""
    masks = []
    for config in configs:
        random = np.random.default_rng([config.seed, *batch])
        masks.append(torch.from_numpy(random.random(shape, np.float32) >= rate))
    return torch.stack(masks) / (1 - rate)
