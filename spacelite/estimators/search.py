"""A grid search with cross-validation in which all settings and all folds train in one pass.

Shapes: N examples, C classes, F folds, S combinations of settings.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    RegressorMixin,
    clone,
    is_classifier,
)
from sklearn.metrics import check_scoring
from sklearn.model_selection import ParameterGrid, check_cv
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from spacelite.estimators.classifiers import Decisions, Numbers, TextEstimator
from spacelite.estimators.inputs import Prepared, check_parameters
from spacelite.heads import HeadConfig
from spacelite.progress import OnProgress, Progress, reporting
from spacelite.studies.cross_validation import train_on_each
from spacelite.tasks import REGRESSION
from spacelite.training.config import TrainingConfig
from spacelite.types import Array


class SpaceSearchCV(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """The grid search of scikit-learn's GridSearchCV for the classifiers and regressors of this
    package: the heads of all combinations and all folds train together, in one pass over the tokens
    per epoch. Combinations that differ in how texts are embedded or in epochs, batch size or
    schedule take a pass each.

    A fold's head sees the batches of all examples less those that are held out of it, and batches
    are larger by as much, so that it has as many updates of as many examples as if it were trained
    alone; the figures are those of GridSearchCV but for the order of the examples.

    Args:
        estimator: A classifier or regressor of this package.
        param_grid: Parameter -> values to try, or a list of such dictionaries.
        scoring: As in GridSearchCV: None (accuracy, R2 of a regressor), a name, a function, or
            several of them.
        cv: As in GridSearchCV: a number of folds, or an object that divides the examples.
        refit: Whether the best combination is trained on all examples at the end; with several
            metrics the name of the one that decides.
        progress: True for bars, False for none, or a function called with (phase, done, total).

    Attributes:
        cv_results_: As in GridSearchCV; times are those of a pass divided by its heads.
        best_index_: Index of the best combination.
        best_params_: Its parameters.
        best_score_: Its mean score.
        best_estimator_: The estimator with them, trained on all examples.
        classes_: Its labels, of a classifier.
        n_splits_: F.
        scorer_: The scoring function, or several by name.
        multimetric_: Whether there are several metrics.
        refit_time_: Seconds of the last training.
    """

    def __init__(
        self,
        estimator: Any,
        param_grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]],
        *,
        scoring: Any = None,
        cv: Any = 5,
        refit: bool | str = True,
        progress: Progress = False,
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.scoring = scoring
        self.cv = cv
        self.refit = refit
        self.progress = progress

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, groups: Any = None) -> Self:
        """Try all combinations, and train the best one.

        Args:
            X: N texts, or hidden states, as for the estimator.
            y: N labels, (N, C) of 0 and 1, or N numbers.
            sample_weight: The weight of each example in training, (N,); scores do not use it.
            groups: The group of each example, for a `cv` that needs it.

        Raises:
            ValueError: X, y or a parameter cannot be used, or a fold lacks a class.
            SpaceliteError: The backbone cannot be used, or disk or memory are full.
        """
        if not isinstance(self.estimator, TextEstimator):
            raise ValueError(
                f"estimator={self.estimator!r}: SpaceSearchCV searches classifiers and regressors "
                "of spacelite; use GridSearchCV for others"
            )
        check_parameters(self)
        candidates = list(ParameterGrid(self.param_grid))
        estimators = [clone(self.estimator).set_params(**params) for params in candidates]
        divider = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        splits = list(divider.split(X, y, groups))
        self.scorer_ = check_scoring(self.estimator, self.scoring)
        with reporting(self.progress) as on_progress:
            passes = self._passes(estimators, X, y, sample_weight, splits)
            logits = [one_pass.run(on_progress) for one_pass in passes]
        scores, seconds = {}, {}
        for one_pass, of_pass in zip(passes, logits, strict=True):
            for number, of_folds in of_pass.items():
                pairs = zip(one_pass.folds, of_folds, strict=True)
                scores[number] = [self._scores(fold, values, X, y) for fold, values in pairs]
                seconds[number] = one_pass.seconds
        self.n_splits_ = len(splits)
        self.multimetric_ = isinstance(scores[0][0][0], dict)
        numbers = range(len(candidates))
        self.cv_results_ = _table(
            candidates, [scores[number] for number in numbers], [seconds[n] for n in numbers]
        )
        self._choose(candidates, X, y, sample_weight)
        return self

    def _passes(
        self,
        estimators: Sequence[TextEstimator],
        X: Any,
        y: Any,
        sample_weight: Any,
        splits: Sequence[tuple[Array, Array]],
    ) -> list[_Pass]:
        """The combinations, those that share a pass together."""
        prepared: dict[Any, Prepared] = {}
        passes: dict[Any, _Pass] = {}
        for number, estimator in enumerate(estimators):
            if estimator.validation_share is not None:
                raise ValueError(
                    "validation_fraction cannot be used with SpaceSearchCV, which trains all folds "
                    "for the same number of epochs: leave it out"
                )
            embedding = estimator._encoder()
            if embedding not in prepared:
                prepared[embedding] = Prepared(estimator, X, y, sample_weight, keep_all=True)
            data = prepared[embedding]
            folds = [_Fold(data, train, test) for train, test in splits]
            examples = round(float(np.mean([len(fold.seen) for fold in folds])))
            config, training = estimator._configured(data, examples)
            # Of all examples a head sees so many: batches are larger by as much.
            size = round(training.batch_size * len(data.rows) / examples)
            training = replace(training, batch_size=max(1, size))
            key = embedding, training
            passes.setdefault(key, _Pass(data, training, folds)).configs[number] = config
        return list(passes.values())

    def _scores(self, fold: _Fold, logits: Array, X: Any, y: Any) -> tuple[Any, float]:
        """The score of a fold's head, or several by name, and the seconds that took."""
        started = time.perf_counter()
        kind = _Judged if is_classifier(self.estimator) else _JudgedNumbers
        judged = kind(fold.data, logits[fold.test])
        of_fold = _safe_indexing(X, fold.test), _safe_indexing(y, fold.test)
        return self.scorer_(judged, *of_fold), time.perf_counter() - started

    def _choose(self, candidates: Sequence[Any], X: Any, y: Any, sample_weight: Any) -> None:
        if self.refit is False:
            return
        name = "score"
        if self.multimetric_:
            name = str(self.refit)
            if f"rank_test_{name}" not in self.cv_results_:
                raise ValueError(
                    f"refit={self.refit!r}: with several metrics, name the one that decides, or "
                    "give refit=False"
                )
        self.best_index_ = int(self.cv_results_[f"rank_test_{name}"].argmin())
        self.best_params_ = candidates[self.best_index_]
        self.best_score_ = float(self.cv_results_[f"mean_test_{name}"][self.best_index_])
        started = time.perf_counter()
        self.best_estimator_ = clone(self.estimator).set_params(**self.best_params_)
        self.best_estimator_.fit(X, y, sample_weight)
        self.refit_time_ = time.perf_counter() - started
        for name in ("classes_", "n_features_in_"):
            if hasattr(self.best_estimator_, name):
                setattr(self, name, getattr(self.best_estimator_, name))

    @property
    def _best(self) -> Any:
        check_is_fitted(self, "best_estimator_")
        return self.best_estimator_

    def predict(self, X: Any) -> Array:
        """The labels, or numbers, by the best estimator."""
        found: Array = self._best.predict(X)
        return found

    def predict_proba(self, X: Any) -> Array:
        """The probabilities by the best classifier, (N, C)."""
        found: Array = self._best.predict_proba(X)
        return found

    def decision_function(self, X: Any) -> Array:
        """The logits by the best classifier."""
        found: Array = self._best.decision_function(X)
        return found

    def explain(self, text: str | Sequence[str], label: Any = None) -> Any:
        """Which words of a text mattered to the best estimator."""
        return self._best.explain(text, *([] if label is None else [label]))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The score of the best estimator by `scoring`."""
        del sample_weight  # as in GridSearchCV
        score = self.scorer_(self._best, X, y)
        return float(score[self.refit] if self.multimetric_ else score)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = self.estimator.__sklearn_tags__()
        tags.estimator_type, tags.input_tags = inner.estimator_type, inner.input_tags
        tags.classifier_tags, tags.regressor_tags = inner.classifier_tags, inner.regressor_tags
        tags.target_tags = inner.target_tags
        return tags


class _Fold:
    """The examples of a fold: those that its heads are trained on (seen), and those held out."""

    def __init__(self, data: Prepared, train: Array, test: Array) -> None:
        self.data, self.test = data, test
        self.seen = train if data.weights is None else train[data.weights[train] > 0]
        values = data.labels.values[self.seen]
        if not data.labels.several and len(np.unique(values)) < 2:
            what = "number" if data.labels.task is REGRESSION else "class"
            raise ValueError(
                f"a fold's training examples all have one {what}: give fewer folds, or folds that "
                "are stratified or shuffled"
            )

    def weights(self) -> Array:
        """The weight of each example for the fold's heads."""
        weights = np.zeros(len(self.data.rows))
        weights[self.seen] = 1.0
        return weights if self.data.weights is None else weights * self.data.weights


@dataclass
class _Pass:
    """Combinations of settings that train in one pass: the config of each, by its number."""

    data: Prepared
    training: TrainingConfig
    folds: list[_Fold]
    configs: dict[int, HeadConfig] = field(default_factory=dict)
    seconds: float = 0.0  # of one head

    def run(self, on_progress: OnProgress) -> dict[int, list[Array]]:
        """Train all heads: of each combination the logits (N, C) of each fold's head."""
        started = time.perf_counter()
        weights = [fold.weights() for fold in self.folds]
        data, device = self.data.data, self.data.device
        configs = list(dict.fromkeys(self.configs.values()))
        logits = train_on_each(
            data, configs, weights, self.training, device=device, on_progress=on_progress
        )
        self.seconds = (time.perf_counter() - started) / len(self.configs) / len(self.folds)
        return {number: logits[config] for number, config in self.configs.items()}


class _Judged(Decisions, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fold's head as a scorer sees it: a fitted classifier, whose logits for the examples that
    are held out are known."""

    def __init__(self, data: Prepared, logits: Array) -> None:
        self.data, self.logits = data, logits
        self.classes_, self.several_ = data.labels.classes, data.labels.several

    def _logits(self, X: Any) -> Array:
        return self.logits


class _JudgedNumbers(Numbers, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """The same of a regressor."""

    def __init__(self, data: Prepared, logits: Array) -> None:
        self.data, self.logits = data, logits

    def _logits(self, X: Any) -> Array:
        return self.logits


def _table(
    candidates: Sequence[Mapping[str, Any]],
    scores: Sequence[Sequence[tuple[Any, float]]],
    seconds: Sequence[float],
) -> dict[str, Any]:
    """`cv_results_`, as GridSearchCV has them."""
    score_times = [[taken for _, taken in of_folds] for of_folds in scores]
    table: dict[str, Any] = {
        "mean_fit_time": np.array(seconds),
        "std_fit_time": np.zeros(len(seconds)),
        "mean_score_time": np.mean(score_times, axis=1),
        "std_score_time": np.std(score_times, axis=1),
    }
    for name in dict.fromkeys(name for params in candidates for name in params):
        column = np.ma.MaskedArray(np.empty(len(candidates), object), mask=True)
        for number, params in enumerate(candidates):
            if name in params:
                column[number] = params[name]
        table[f"param_{name}"] = column
    table["params"] = list(candidates)
    several = isinstance(scores[0][0][0], dict)
    for name in scores[0][0][0] if several else ["score"]:
        values = np.array(
            [[score[name] if several else score for score, _ in of_folds] for of_folds in scores],
            float,
        )
        for fold, of_fold in enumerate(values.T):
            table[f"split{fold}_test_{name}"] = of_fold
        mean = table[f"mean_test_{name}"] = values.mean(axis=1)
        table[f"std_test_{name}"] = values.std(axis=1)
        known = np.where(np.isnan(mean), -np.inf, mean)
        table[f"rank_test_{name}"] = rankdata(-known, method="min").astype(np.int32)
    return table
