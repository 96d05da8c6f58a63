"""The attention block of additive heads: units on each token, averaged by attention.

Every class has a query q and L units of its own. A unit is gelu(u . x + b) of a token x; the
weights of a text's tokens in the mean of a class's units are the softmax of q . x over the text
(attention-based pooling: Ilse, Tomczak & Welling 2018). The logits are a linear layer on these
means, and so are sums over tokens. Training begins with queries of 0: plain means.

Gradients are computed by explicit formulas, as those of concept spaces are. Shapes: K heads, C
classes, E members of an ensemble, L units of a class and a member, d hidden width, B examples, n
tokens in all of them together.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from typing_extensions import override

from spacelite.heads.base import (
    Batch,
    Parameters,
    Scratch,
    Shapes,
    TokenBlock,
    Tokens,
    segment_sum,
)
from spacelite.lazy import np, torch
from spacelite.types import Array

UNITS, BIAS, QUERIES = "attention.units", "attention.units.bias", "attention.queries"


class AttentionBlock(TokenBlock):
    """K blocks with the same L. Of a token's columns, the first are its K C E L units, ordered by
    head, then by class, and the others what the K C E queries give."""

    # A bias of a query would change nothing: the softmax is of differences.
    READING: ClassVar[dict[str, str | None]] = {UNITS: BIAS, QUERIES: None}

    @classmethod
    @override
    def saved(cls, config: Any, classes: int, width: int) -> Shapes:
        return {
            UNITS: (classes, config.dimensions, width),
            BIAS: (classes, config.dimensions),
            QUERIES: (classes, config.ensemble, width),
            "classifier.weight": (classes, classes * config.dimensions),
        }

    # Each token's share in the logits.

    @classmethod
    @override
    def token_shares(cls, config: Any, parameters: dict[str, Array], tokens: Tokens) -> Array:
        from scipy.special import erf

        hidden, starts, lengths = tokens.hidden, tokens.offsets[:-1], np.diff(tokens.offsets)

        def read(name: str) -> Array:
            weight = parameters[name]
            products: Array = hidden @ weight.reshape(-1, weight.shape[-1]).T.astype(hidden.dtype)
            return products

        given = read(UNITS) + parameters[BIAS].reshape(-1).astype(hidden.dtype)
        units = given / 2 * (1 + erf(given / np.sqrt(2)))
        scores = read(QUERIES)
        powers = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts), lengths, axis=0))
        attention = powers / np.repeat(np.add.reduceat(powers, starts), lengths, axis=0)
        averaged = units.reshape(*attention.shape, -1) * attention[:, :, None]
        weight = parameters["classifier.weight"].astype(hidden.dtype)
        shares: Array = averaged.reshape(len(hidden), -1) @ weight.T
        return shares

    # Running K blocks.

    @property
    @override
    def columns(self) -> int:
        return sum(self.parameters[name].flatten(0, 2).shape[0] for name in (UNITS, QUERIES))

    @override
    def begin(self, batch: Batch) -> None:
        super().begin(batch)
        projections = [self.reading[name].flatten(0, 2) for name in (UNITS, QUERIES)]
        self._projection = torch.cat(projections)  # (columns, d)
        self._shift = self.reading[BIAS].flatten()  # (K C E L,)
        self._means = self._shift.new_empty(len(batch.lengths), len(self._shift))
        self._logit_gradients = torch.empty_like(self.logits)

    @property
    @override
    def of_examples(self) -> list[torch.Tensor]:
        return [self.logits, self._means, self._logit_gradients]

    @override
    def zero_gradients(self) -> Parameters:
        """Those of what reads tokens: `end` computes the classifier's."""
        return {
            "projection": torch.zeros_like(self._projection),
            BIAS: torch.zeros_like(self._shift),
        }

    @override
    def run_group(
        self,
        first: int,
        group: Batch,
        hidden: torch.Tensor,
        scratch: Scratch,
        gradients: Parameters | None,
    ) -> None:
        rows, columns = slice(first, first + len(group.lengths)), len(self._shift)
        fresh = partial(scratch.tensor, device=hidden.device, dtype=hidden.dtype)
        example = group.examples_of(len(hidden))
        projected = fresh("projected", (len(hidden), len(self._projection)))
        torch.mm(hidden, self._projection.T, out=projected)
        given = projected[:, :columns].add_(self._shift)
        attention = softmax(projected[:, columns:], group.lengths, example)  # (n, K C E)
        by_query = (len(hidden), attention.shape[1], -1)
        units = torch.nn.functional.gelu(given).view(by_query)
        averaged = fresh("averaged", units.shape)
        torch.mul(units, attention[:, :, None], out=averaged)
        means = segment_sum(averaged.flatten(1), group.lengths)
        logits = self.logits_of(means, rows)
        self._means[rows], self.logits[:, rows] = means, logits
        if gradients is None:
            return

        logit_gradients = group.logit_gradients(logits)
        self._logit_gradients[:, rows] = logit_gradients
        of_means = torch.bmm(logit_gradients, self.parameters["classifier.weight"])
        of_means = of_means.transpose(0, 1).reshape(len(means), attention.shape[1], -1)
        of_units = averaged  # dloss/dmean of each token's example, then times its attention
        torch.index_select(of_means, 0, example, out=of_units)
        # dloss/d(q . x) = attention * (dloss/dmean . its units - dloss/dmean . mean)
        of_mean = (of_means * means.view_as(of_means)).sum(dim=2)
        of_queries = units.mul_(of_units).sum(dim=2).sub_(of_mean[example]).mul_(attention)
        of_units.mul_(attention[:, :, None])
        torch.ops.aten.gelu_backward.grad_input(of_units.flatten(1), given, grad_input=given)
        projected[:, columns:] = of_queries
        gradients["projection"].addmm_(projected.T, hidden)
        gradients[BIAS] += given.sum(dim=0)

    @override
    def end(self, batch: Batch, gradients: Parameters | None) -> None:
        if gradients is not None:
            projection, columns = gradients["projection"], len(self._shift)
            parts = (projection[:columns], gradients[BIAS], projection[columns:])
            gradients = {
                name: part.view_as(self.parameters[name])
                for name, part in zip((UNITS, BIAS, QUERIES), parts, strict=True)
            }
        super().end(batch, gradients)
        if gradients is not None:
            self.classifier_gradients(self._logit_gradients, self.by_head(self._means))


def softmax(scores: torch.Tensor, lengths: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    """The softmax over the tokens of each example, (n, p), of their scores, (n, p); `example` is
    the index of each token's example, (n,)."""
    index = example[:, None].expand_as(scores)
    largest = scores.new_full((len(lengths), scores.shape[1]), -torch.inf)
    largest = largest.scatter_reduce_(0, index, scores, "amax")
    powers = torch.exp(scores - largest[example])
    return powers / segment_sum(powers, lengths)[example]
