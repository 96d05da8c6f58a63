"""The base classes of all heads, and what they are given: batches, examples, tokens.

An object of a class is K heads of one kind whose parameters have the same shapes, trained side by
side. Batches are ragged: the tokens of several examples end to end, never padded.

Shapes: K heads, C classes, d hidden width, B examples of a batch, N examples in all, n or T tokens
in all of them together.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, TypeVar

from typing_extensions import override

from spacelite.heads.config import HeadConfig
from spacelite.lazy import np, torch
from spacelite.tasks import Task
from spacelite.tasks.base import Unit
from spacelite.types import Array

Parameters: TypeAlias = "dict[str, torch.Tensor]"  # by name
Shapes = dict[str, tuple[int, ...]]
# Lengths in shapes that only the parameters tell; each is the same wherever it stands.
ANY, ANY_OTHER = -1, -2
MEAN, SCALE = "tokens.mean", "tokens.scale"
H = TypeVar("H", bound="Head")


@dataclass(frozen=True)
class Batch:
    """B examples whose loss is computed together, or a part of them."""

    lengths: torch.Tensor  # tokens per example, (B,) int64
    tokens: torch.Tensor  # the same as floats, (B, 1)
    labels: torch.Tensor  # (B,) or (B, C), as the task has them
    # 1 for the classes that an example has, else 0, or the numbers to predict, (B, C); (K, B, C) if
    # they are standardised for each head.
    targets: torch.Tensor
    # Of the loss's terms, (B, 1) or (B, C); (K, B, ...) if heads have their own.
    weights: torch.Tensor
    sample_weights: torch.Tensor  # of each example for each head, (K, B), or for all, (1, B)
    weight: torch.Tensor  # the sum of all weights over the whole batch, (K, 1, 1) or (1, 1, 1)
    task: Task

    def weighted(self, sample_weights: torch.Tensor, class_weights: torch.Tensor | None) -> Batch:
        """The batch as K heads see it that give examples weights (K, B), and have class weights
        (K, ...) as `Task.weights` takes them, or those of the batch."""
        weights = self.weights
        if class_weights is not None:
            per_head = [
                self.task.weights(self.labels, self.targets, of_head) for of_head in class_weights
            ]
            weights = torch.stack(per_head)
        weight = at_least_one(weight_of(sample_weights, weights)).to(weights).view(-1, 1, 1)
        return replace(self, sample_weights=sample_weights, weights=weights, weight=weight)

    def standardised(self, unit: Unit) -> Batch:
        """The batch with the targets of each head in its unit."""
        return replace(self, targets=unit.standardised(self.labels).to(self.targets))

    def part(self, first: int, last: int) -> Batch:
        """Examples first:last; `weight` is still that of the whole batch."""
        return self.some(slice(first, last))

    def some(self, rows: slice | torch.Tensor) -> Batch:
        """Some of the examples; `weight` is still that of the whole batch."""
        return Batch(
            self.lengths[rows],
            self.tokens[rows],
            self.labels[rows],
            self.targets[..., rows, :],
            self.weights[..., rows, :],
            self.sample_weights[:, rows],
            self.weight,
            self.task,
        )

    def examples_of(self, tokens: int) -> torch.Tensor:
        """The index of the example of each token, (n,), of which there are `tokens`."""
        numbers = torch.arange(len(self.lengths), device=self.lengths.device)
        return numbers.repeat_interleave(self.lengths, output_size=tokens)

    def logit_gradients(self, logits: torch.Tensor) -> torch.Tensor:
        """The gradient of the batch's weighted mean loss with respect to `logits` (K, B, C)."""
        residuals = self.task.residuals(logits, self.targets).mul_(self.weights)
        return residuals.mul_(self.sample_weights[:, :, None]).div_(self.weight)


def weight_of(sample_weights: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The sum of the weights of a batch for each head, (K,) or (1,) float64, from those of its
    examples (K, B) or (1, B) and of the terms of the loss."""
    return (sample_weights.double() * weights.double().sum(dim=-1)).sum(dim=1)


def at_least_one(counts: torch.Tensor) -> torch.Tensor:
    """Numbers of terms to divide by: 1 where there are none."""
    return torch.where(counts > 0, counts, 1)


@dataclass(frozen=True)
class Objective:
    """What is minimised: the loss of a task with C classes, of which each may have a weight, as
    `Task.weights` takes them."""

    task: Task
    classes: int
    class_weights: torch.Tensor | None = None

    @classmethod
    def balanced(
        cls, task: Task, labels: torch.Tensor, classes: int, weights: torch.Tensor | None = None
    ) -> Objective:
        """The objective with class weights that give every class the same total weight, the
        examples having `weights` (N,), by default 1."""
        return cls(task, classes, task.balanced_weights(labels, classes, weights))

    def batch(
        self, lengths: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype | None = None
    ) -> Batch:
        """One batch of examples with these `lengths` and `labels` (default `dtype`: float32)."""
        dtype = dtype or torch.float32
        targets = self.task.targets(labels, self.classes, dtype)
        weights = self.task.weights(labels, targets, self.class_weights)
        alike = weights.new_ones(1, len(labels))
        return Batch(
            lengths=lengths,
            tokens=lengths.to(dtype).view(-1, 1),
            labels=labels,
            targets=targets,
            weights=weights,
            sample_weights=alike,
            weight=weight_of(alike, weights).to(weights).view(1, 1, 1),
            task=self.task,
        )


class Scratch:
    """A thread's working memory, reused for every group: fresh memory costs a page fault for every
    four kilobytes, which takes longer than most operations on it."""

    def __init__(self) -> None:
        self._memory: dict[str, torch.Tensor] = {}

    def tensor(
        self, name: str, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype
    ) -> torch.Tensor:
        """An uninitialised tensor, valid until the same name is requested again."""
        size = math.prod(shape)
        memory = self._memory.get(name)
        if memory is None or len(memory) < size or memory.dtype != dtype:
            memory = torch.empty(size + size // 8, dtype=dtype, device=device)
            self._memory[name] = memory
        return memory[:size].view(shape)


def segment_sum(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Sums of consecutive runs of rows: (n, p) values, (B,) lengths >= 1 with sum n -> (B, p).

    embedding_bag, applied to the rows in order, has by far the fastest CPU kernel for this. It is
    called directly because its wrapper in torch.nn.functional takes longer than the kernel.
    """
    rows = torch.arange(len(values), device=values.device)
    return torch.embedding_bag(values, rows, lengths.cumsum(0).sub_(lengths))[0]


class Examples(Protocol):
    """The examples that a head is fitted to or trained on."""

    labels: torch.Tensor  # (N,) or (N, C)
    weights: Array | None  # of the examples in the loss, (N,) float64 above 0; None if all are 1

    def features(self, pooling: str) -> torch.Tensor:
        """One vector per example, (N, d), by a pooling."""
        ...

    def token_ids(self) -> tuple[Array, Array]:
        """The token ids of all examples end to end, (T,), and their offsets, (N + 1,)."""
        ...

    @property
    def standardisation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean of the hidden states of all tokens, (d,), and the inverse of their standard
        deviation, (d,), or 0 where it is no more than rounding."""
        ...


class Split(Protocol):
    """The examples of a split, of which heads are given a batch at a time."""

    name: str

    def features(self, pooling: str) -> torch.Tensor:
        """As in `Examples`."""
        ...

    def token_ids(self, examples: Array | None = None) -> tuple[Array, Array]:
        """The token ids of some examples end to end, and their offsets."""
        ...


def vectors_of(split: Split, pooling: str, rows: Array) -> torch.Tensor:
    """One vector per example of `rows`, (B, p), as float32 where they are stored as float16."""
    features = split.features(pooling)
    vectors = features[torch.from_numpy(rows).to(features.device)]
    return vectors.float() if vectors.dtype == torch.float16 else vectors


class Tokens(NamedTuple):
    """The tokens of N texts end to end, T in all."""

    hidden: Array  # hidden states in the cached layer, (T, d)
    ids: Array  # (T,)
    offsets: Array  # index of each text's first token, and at the end T, (N + 1,)
    layers: Array | None = None  # hidden states in all layers side by side, (T, layers * d)

    def read(self, all_layers: bool) -> Array:
        """The hidden states of all layers, or of the cached one."""
        if not all_layers:
            return self.hidden
        if self.layers is None:
            raise ValueError("the hidden states of all layers are not given")
        return self.layers

    def averaged(self, values: Array) -> Array:
        """What each token adds to the mean over its text, in place: (T, C) divided by the lengths
        of the texts."""
        lengths = np.diff(self.offsets)
        values /= np.repeat(lengths, lengths)[:, None]
        return values


class Fitted(NamedTuple):
    """A head that was fitted directly, the settings that cross-validation chose, and the logits
    (N, C) of each training example by a fit that it was held out of, if the kind has them."""

    parameters: Parameters
    cross_validated: dict[str, float]
    held: torch.Tensor | None = None


@dataclass
class Totals:
    """Sums over examples, from which the losses and metrics of K heads are computed: (K,) float64
    each, of the weights that each head gives the examples."""

    confusion: torch.Tensor  # confusion matrices, (K, ...), in the task's layout
    ce: torch.Tensor  # the plain loss, such as the cross-entropy, without weights of its terms
    weighted_ce: torch.Tensor  # with them
    correct: torch.Tensor  # examples that are predicted correctly
    examples: torch.Tensor
    terms: torch.Tensor  # of the loss
    weight: torch.Tensor  # of these terms

    @classmethod
    def zeros(cls, heads: int, objective: Objective) -> Totals:
        """Totals of no examples."""
        shape = objective.task.confusion_shape(objective.classes)
        confusion = torch.zeros(heads, *shape, dtype=torch.float64)
        return cls(confusion, *torch.zeros(6, heads, dtype=torch.float64))

    def losses(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted and plain mean loss of everything added, as one batch, (K,) each."""
        return self.weighted_ce / self.weight, self.ce / self.terms

    def add(self, logits: torch.Tensor, batch: Batch) -> None:
        """Add a batch, whose `logits` are (K, B, C)."""
        task, weights = batch.task, batch.sample_weights
        terms = task.loss_terms(logits, batch.labels, batch.targets).double()
        terms *= weights[:, :, None]
        self.ce += terms.sum(dim=(1, 2)).cpu()
        self.weighted_ce += (terms * batch.weights).sum(dim=(1, 2)).cpu()
        correct, confusion = task.count(logits, batch.labels, batch.targets, weights)
        self.correct += correct
        self.confusion += confusion
        examples = weights.double().sum(dim=1).cpu()
        self.examples += examples
        self.terms += examples * terms.shape[2]
        self.weight += weight_of(weights, batch.weights).cpu()


class Head(ABC):
    """K heads of one kind, with their parameters stacked along a first dimension K.

    A kind of head is a subclass, mostly of TokenHead (which reads every token) or of PooledHead
    (which reads one vector per example). It defines everything about the kind: its config, the
    names and shapes of its parameters, its forward pass and gradient, and each token's share in its
    logits.
    """

    config_type: ClassVar[type[HeadConfig]]
    # Parameters that are looked up and not trained, such as a table of n-grams.
    TABLES: ClassVar[tuple[str, ...]] = ()
    ADDITIVE: ClassVar[bool] = False  # whether the logits of every head are a sum over tokens

    def __init__(
        self, configs: Sequence[HeadConfig], parameters: Parameters, objective: Objective
    ) -> None:
        self.configs: list[Any] = list(configs)
        self.parameters = parameters  # (K, ...) each, by their names in `head.safetensors`
        self.objective = objective
        self.gradients: Parameters = {}  # of the last training batch, like `parameters`
        self.logits: torch.Tensor = torch.empty(0)  # of the last batch, (K, B, C)
        # The weight of each training example for each head, (K, N); None if all are 1.
        self.sample_weights: torch.Tensor | None = None
        # With these, the class weights of each head, (K, ...); None for those of the objective.
        self.class_weights: torch.Tensor | None = None
        # In training, the unit of each head's targets and logits; None for that of the labels.
        self.unit: Unit | None = None
        # By split, the logits on top of which a part of a head is trained, (N, C), or (K, N, C) if
        # each has its own.
        self.starts: dict[str, torch.Tensor] = {}
        self.clear()  # `totals`: of all batches since then

    # What defines a kind of head.

    @classmethod
    def in_training(cls, config: Any) -> type[Head]:
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
    def joined(cls, members: Sequence[Parameters]) -> Parameters:
        """The parameters of one head, whose logits are the mean of those of its members, as they
        are saved."""
        (trained,) = members
        return trained

    @classmethod
    def stack_key(cls, config: Any) -> tuple[object, ...]:
        """Heads with the same key can share a stack: the kind, and every setting that the forward
        pass cannot vary from head to head."""
        settings = config.settings()
        apart = ("seed", "learning_rate", "weight_decay")
        return (config.kind, *(value for name, value in settings.items() if name not in apart))

    @classmethod
    def stack_order(cls, config: Any) -> int:
        """Heads of one stack are sorted by this number."""
        return 0

    @classmethod
    def stack(
        cls: type[H],
        configs: Sequence[HeadConfig],
        parameters: Sequence[Parameters],
        objective: Objective,
        device: str = "cpu",
    ) -> H:
        """Combine heads with the same `stack_key`, in their `stack_order`, and the parameters of
        each into one stack."""
        stacked = {
            name: torch.stack([of_head[name] for of_head in parameters]).to(device)
            for name in parameters[0]
        }
        return cls(configs, stacked, objective)

    @classmethod
    def fit(cls, config: Any, train: Examples, objective: Objective, class_weights: str) -> Fitted:
        """Fit the parameters of one head, for kinds that are not trained in epochs."""
        raise NotImplementedError(f"{config.name} is trained in epochs")

    @classmethod
    def fitting_bytes(cls, config: Any, examples: int, width: int) -> int:
        """An estimate of the memory that `fit` takes beside the hidden states; `width` is that of
        what the head reads."""
        return 0

    @classmethod
    def rescaled(cls, parameters: Parameters, factor: float, shift: float) -> Parameters:
        """The parameters of the head whose logits are these times `factor`, plus `shift`."""
        scaled = dict(parameters)
        for name, added in (("classifier.weight", 0.0), ("classifier.bias", shift)):
            scaled[name] = (parameters[name].double() * factor + added).float()
        return scaled

    # Each token's share in the logits, in numpy: reports do not need torch.

    @classmethod
    def not_additive(cls, config: Any) -> str | None:
        """A message that says why the logits are not a sum over tokens; None if they are:
        logits = bias + mean over tokens of `token_logits`."""
        return None if cls.ADDITIVE else f"the logits of {config.name} are not a sum over tokens"

    @classmethod
    def token_logits(cls, config: Any, parameters: dict[str, Array], hidden: Array) -> Array:
        """What each token contributes, n times its share in the logits: from hidden states (n, d),
        of all layers side by side if the head reads these, (n, C) in their dtype."""
        raise NotImplementedError(cls.not_additive(config))

    @classmethod
    def token_shares(cls, config: Any, parameters: dict[str, Array], tokens: Tokens) -> Array:
        """Each token's share in the logits of its text, (T, C); with the bias, they sum to the
        logits of a text."""
        hidden = tokens.read(config.reads_layers)
        return tokens.averaged(cls.token_logits(config, parameters, hidden))

    @classmethod
    def block_shares(
        cls, config: Any, parameters: dict[str, Array], tokens: Tokens
    ) -> dict[str, Array]:
        """The shares of the tokens by block, (T, C) each, for a kind that consists of blocks; their
        sum is what `token_shares` returns."""
        return {}

    @classmethod
    def logits_of_ids(
        cls, config: Any, parameters: dict[str, Array], ids: Array, offsets: Array
    ) -> Array:
        """The logits (N, C) float32 of N texts, for a head that reads only their token ids: in
        numpy, so that texts are classified without torch."""
        raise NotImplementedError(f"{config.name} reads hidden states")

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

    def plan(
        self, split: Split, rows: Array, batch: Batch, train: tuple[int, int] | None
    ) -> Callable[[], None] | None:
        """Read what the heads need of the examples `rows` beside the hidden states of their tokens;
        return what is left to be run in one thread, if anything. `train` are the numbers of the
        epoch and of the batch, for dropout; None in evaluation."""
        return None

    def finish(self, batch: Batch) -> None:  # noqa: B027 - most kinds have nothing left to do
        """Called when all threads have finished a batch."""

    @property
    def trained(self) -> Parameters:
        """The parameters that are trained: all but TABLES."""
        return {name: value for name, value in self.parameters.items() if name not in self.TABLES}

    def clear(self) -> None:
        """Reset the totals."""
        self.totals = Totals.zeros(len(self.configs), self.objective)

    def losses(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and CE, (K,) each, of everything counted since `clear`, as one batch. The loss
        includes the class weights; the CE never does."""
        return self.totals.losses()

    def head_parameters(self, head: int) -> Parameters:
        """A copy of the parameters of one head, on the CPU."""
        return {name: value[head].cpu().clone() for name, value in self.parameters.items()}

    def forward_ids(self, ids: Array, offsets: Array) -> torch.Tensor:
        """`logits_of_ids` of B texts by each head, (K, B, C)."""
        logits = []
        for head, config in enumerate(self.configs):
            of_head = {name: value[head].cpu().numpy() for name, value in self.parameters.items()}
            logits.append(torch.from_numpy(self.logits_of_ids(config, of_head, ids, offsets)))
        return torch.stack(logits).to(self.parameters["classifier.bias"].device)

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

    # Added to the logits of a batch, (B, C), or (K, B, C) if each head has its own.
    added: torch.Tensor | None = None

    @classmethod
    @override
    def joined(cls, members: Sequence[Parameters]) -> Parameters:
        """Of an ensemble, (C, m, ...) each, side by side."""
        if len(members) == 1:
            return members[0]
        merged = {}
        for name, value in members[0].items():
            parts = [member[name] for member in members]
            if name == "classifier.weight":
                by_class = [part.view(len(part), len(part), -1) for part in parts]
                merged[name] = torch.cat(by_class, dim=2).flatten(1) / len(members)
            elif name == "classifier.bias":
                merged[name] = torch.stack(parts).mean(0)
            else:
                merged[name] = value if name in cls.TABLES else torch.cat(parts, dim=1)
        return merged

    @property
    @override
    def of_tokens(self) -> TokenHead | None:
        return self

    def forward(self, parameters: Parameters, hidden: torch.Tensor, group: Batch) -> torch.Tensor:
        """Logits (K, B, C) of the examples of a `group`, whose tokens are `hidden` (n, d)."""
        raise NotImplementedError

    def by_head(self, columns: torch.Tensor) -> torch.Tensor:
        """(B, K p) -> (K, B, p)."""
        return columns.view(len(columns), len(self.configs), -1).transpose(0, 1)

    def logits_of(self, columns: torch.Tensor, rows: slice) -> torch.Tensor:
        """The linear layer `classifier` on the columns (B, K p) of some examples of a batch, plus
        what is `added` to theirs, (K, B, C)."""
        logits = self.classify(self.by_head(columns))
        return logits if self.added is None else logits.add_(self.added[..., rows, :])

    @property
    def columns(self) -> int:
        """How many values are computed per token: the more, the fewer tokens per group."""
        return len(self.configs) * self.objective.classes

    def begin(self, batch: Batch) -> None:
        """Prepare what the groups of a batch share."""
        shape = len(self.configs), len(batch.labels), self.objective.classes
        self.logits = next(iter(self.parameters.values())).new_empty(shape)

    @property
    def of_examples(self) -> list[torch.Tensor]:
        """What `begin` leaves to the groups to fill in, each the rows of its examples: several
        ranks, of which each runs a part of the groups, add it up."""
        return [self.logits]

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
        """Run forward and, in training, backward on a group of a batch's examples, the first of
        which is number `first` of the batch, and whose tokens are `hidden` (n, d). A thread writes
        only the rows of its own examples, and adds to its own gradients, from `zero_gradients`;
        None in evaluation."""
        rows = slice(first, first + len(group.lengths))
        if gradients is None:
            with torch.no_grad():
                self.logits[:, rows] = self.forward(self.parameters, hidden, group)
            return
        leaves = {name: value.detach().requires_grad_() for name, value in self.parameters.items()}
        logits = self.forward(leaves, hidden, group)
        self.logits[:, rows] = logits.detach()
        logit_gradients = group.logit_gradients(logits.detach())
        computed = torch.autograd.grad(logits, list(leaves.values()), logit_gradients)
        for name, gradient in zip(leaves, computed, strict=True):
            gradients[name] += gradient

    def end(self, batch: Batch, gradients: Parameters | None) -> None:
        """Add the batch to the totals. `gradients` are the sums over all threads; None in
        evaluation."""
        self.totals.add(self.logits, batch)
        if gradients is not None:
            self.gradients = gradients


class TokenBlock(TokenHead):
    """K blocks of additive heads that read every token, trained in epochs on top of the logits of
    the other blocks (`starts`), which for training examples are those of held-out examples.

    In training, they read standardised hidden states z = (x - mean) * scale: Adam moves all weights
    by steps of one size, which suits only dimensions of one size. What is saved reads hidden states
    as they are (`folded`).
    """

    TABLES: ClassVar[tuple[str, ...]] = (MEAN, SCALE)
    # The weights that read hidden states, (C, m, d) each, and the names of their biases, (C, m).
    READING: ClassVar[dict[str, str | None]]

    @classmethod
    @abstractmethod
    def saved(cls, config: Any, classes: int, width: int) -> Shapes:
        """Names and shapes of the parameters in a saved head, without its bias; first those that
        training begins with at random."""

    @classmethod
    @override
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        tables: Shapes = dict.fromkeys(cls.TABLES, (width,))
        return {**cls.saved(config, classes, width), "classifier.bias": (classes,), **tables}

    @classmethod
    @override
    def initial(cls, config: Any, classes: int, width: int) -> Parameters:
        """The first parameter as in any head; all others are 0, so that before training the logits
        are those of the other blocks. TABLES are left to be filled in."""
        first, *others = super().initial(config, classes, width).items()
        return dict([first, *((name, torch.zeros_like(value)) for name, value in others)])

    @classmethod
    @override
    def filled(cls, parameters: Parameters, train: Examples) -> Parameters:
        mean, scale = train.standardisation
        return {**parameters, MEAN: mean.cpu(), SCALE: scale.cpu()}

    @classmethod
    def folded(cls, parameters: Parameters) -> Parameters:
        """The parameters of one trained block (no dimension K), reading hidden states that are not
        standardised."""
        mean, scale = parameters[MEAN].double(), parameters[SCALE].double()
        folded = {name: value for name, value in parameters.items() if name not in cls.TABLES}
        for name, bias in cls.READING.items():
            weight = parameters[name].double() * scale
            folded[name] = weight.float()
            if bias is not None:
                folded[bias] = (parameters[bias].double() - weight @ mean).float()
        return folded

    @classmethod
    @override
    def joined(cls, members: Sequence[Parameters]) -> Parameters:
        return cls.folded(super().joined(members))

    def __init__(
        self, configs: Sequence[HeadConfig], parameters: Parameters, objective: Objective
    ) -> None:
        super().__init__(configs, parameters, objective)
        self.reading: Parameters = {}  # those of READING, for hidden states as they are

    @override
    def plan(
        self, split: Split, rows: Array, batch: Batch, train: tuple[int, int] | None
    ) -> Callable[[], None] | None:
        if self.starts:
            start = self.starts[split.name]
            self.added = start[..., torch.from_numpy(rows).to(start.device), :]
        return None

    @override
    def begin(self, batch: Batch) -> None:
        """Fold the standardisation into the weights: that costs less than to standardise tokens."""
        super().begin(batch)
        for name, bias in self.READING.items():
            weight = self.parameters[name]
            if MEAN in self.parameters:
                weight = weight * self.parameters[SCALE][:, None, None]
            self.reading[name] = weight
            if bias is not None:
                shift = self.parameters[bias]
                if MEAN in self.parameters:
                    shift = shift - torch.einsum("kcmd,kd->kcm", weight, self.parameters[MEAN])
                self.reading[bias] = shift

    @override
    def end(self, batch: Batch, gradients: Parameters | None) -> None:
        """The gradients of what is folded become those of the parameters: a weight is W * scale,
        its bias b - W * scale . mean."""
        super().end(batch, gradients)
        if gradients is None or MEAN not in self.parameters:
            return
        mean, scale = (self.parameters[name][:, None, None] for name in (MEAN, SCALE))
        for name, bias in self.READING.items():
            gradient = self.gradients[name]
            if bias is not None:
                gradient = gradient - self.gradients[bias][..., None] * mean
            self.gradients[name] = gradient * scale


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
