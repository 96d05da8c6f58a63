"""The tfidf head: logistic regression on TF-IDF of 1- and 2-grams of token ids, a baseline that no
backbone is needed for. It is fitted at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt
from typing_extensions import override

from spacelite.heads import logistic
from spacelite.heads.base import Shapes
from spacelite.heads.batch import Objective
from spacelite.heads.config import HeadConfig
from spacelite.heads.examples import Examples, Fitted
from spacelite.heads.ids import IdHead, ngram_logits
from spacelite.heads.ngrams import NGrams
from spacelite.lazy import torch

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # values of C among which `auto` chooses

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class TfidfConfig(HeadConfig):
    """Logistic regression on TF-IDF of n-grams.

    Attributes:
        C: Strength of the L2 penalty, as in scikit-learn: the smaller, the stronger. `auto`: chosen
            by cross-validation on train.
    """

    kind: ClassVar[str] = "tfidf"
    is_baseline: ClassVar[bool] = True

    C: float | str = logistic.strength(logistic.AUTO)


class TfidfHead(IdHead):
    """A linear layer on TF-IDF. The n-grams are those that two training texts have; others, which
    only new texts have, add nothing."""

    config_type: ClassVar[type[HeadConfig]] = TfidfConfig
    TABLES: ClassVar[tuple[str, ...]] = ("ngrams.keys", "ngrams.idf")

    @classmethod
    @override
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        """`width` is the number of n-grams."""
        return {
            "ngrams.keys": (width,),
            "ngrams.idf": (width,),
            "classifier.weight": (classes, width),
            "classifier.bias": (classes,),
        }

    @classmethod
    @override
    def not_additive(cls, config: Any) -> str | None:
        return None

    @classmethod
    @override
    def fit(cls, config: Any, train: Examples, objective: Objective, class_weights: str) -> Fitted:
        ids, offsets = train.token_ids()
        ngrams = NGrams.of(ids, offsets)
        rows = ngrams.rows(ids, offsets)
        found = logistic.fit(
            logistic.sparse(rows.starts, rows.columns, rows.values, len(ngrams.keys)),
            objective.task.problems(train.labels.cpu().numpy(), objective.classes),
            objective.classes,
            config.C,
            STRENGTHS,
            class_weights,
            train.weights,
        )
        parameters = {
            "ngrams.keys": torch.from_numpy(ngrams.keys),
            "ngrams.idf": torch.from_numpy(ngrams.idf),
            "classifier.weight": torch.from_numpy(found.weight).float(),
            "classifier.bias": torch.from_numpy(found.bias).float(),
        }
        return Fitted(parameters, {"C": found.strength} if config.C == logistic.AUTO else {})

    @classmethod
    @override
    def token_parts(cls, parameters: dict[str, Array], ids: Array, offsets: Array) -> Array:
        return _ngrams(parameters).parts(ids, offsets, parameters["classifier.weight"])

    @override
    def forward(self, ids: Array, offsets: Array) -> torch.Tensor:
        logits = []
        for head in range(len(self.configs)):
            own = {name: value[head] for name, value in self.parameters.items()}
            ngrams = _ngrams({name: own[name].cpu().numpy() for name in self.TABLES})
            summed = ngram_logits(ngrams, own["classifier.weight"], ids, offsets)
            logits.append(summed + own["classifier.bias"])
        return torch.stack(logits)


def _ngrams(parameters: dict[str, Array]) -> NGrams:
    return NGrams(parameters["ngrams.keys"], parameters["ngrams.idf"])
