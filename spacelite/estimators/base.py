"""What all classifiers share: fit, predict, explain.

Shapes: N examples, T tokens in all of them, d width, C classes.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from spacelite import heads
from spacelite.api.results import TextExplanation
from spacelite.cache.encoding import Encoder
from spacelite.cache.rows import TokenRows
from spacelite.errors import SpaceliteError
from spacelite.estimators.inputs import read
from spacelite.estimators.preparing import Prepared
from spacelite.heads.base import Objective
from spacelite.inference import explanation
from spacelite.progress import OnProgress, reporting
from spacelite.runs import Run, RunRecord
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL, Task
from spacelite.training import evaluation, loop

PREDICTED_AT_ONCE = 4096  # texts whose hidden states are held in prediction
LARGEST_RANDOM_SEED = 2**31 - 1

Array = npt.NDArray[Any]


class Encoding(BaseEstimator):  # type: ignore[misc]
    """An estimator that embeds texts. Its parameters are those of `spacelite.embed`."""

    def _encoder(self) -> Encoder:
        """How texts are embedded."""
        given = {each.name: getattr(self, each.name) for each in fields(Encoder)}
        folder = given.pop("cache_dir")
        backbone = str(given.pop("backbone"))
        return Encoder(
            **given, backbone=backbone, cache_dir=None if folder is None else Path(folder)
        )

    @property
    def _needs_states(self) -> bool:
        """Whether hidden states are needed; otherwise texts are only tokenized."""
        return True

    def _hidden_states(
        self, inputs: list[str] | TokenRows, encoder: Encoder | None, on_progress: OnProgress
    ) -> TokenRows:
        """The hidden states of texts, or those that were given."""
        if isinstance(inputs, TokenRows):
            return inputs
        encoder = encoder or self._encoder()
        return encoder.encode(inputs, on_progress, states=self._needs_states)


class TextClassifier(ClassifierMixin, Encoding):  # type: ignore[misc]
    """A classifier of texts: a head on the hidden states of a frozen backbone.

    X is a list, an array or a Series of N texts; or hidden states: N arrays (n, d), or one vector
    for each example, (N, d), in which case no backbone is needed. y has N labels, or is a
    multi-label indicator (N, C) of 0 and 1.

    Attributes:
        classes_: The labels, (C,); the columns' numbers in a multi-label task.
        parameters_: The parameters of the head by name.
        history_: The metrics of each epoch.
        n_iter_: Number of epochs that were trained; 0 for a head that is fitted at once.
        n_features_in_: d, if X was hidden states.
    """

    kind: ClassVar[str]  # of the head
    parameters_: dict[str, Array]

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the head.

        Args:
            X: N texts, or hidden states.
            y: N labels, or (N, C) of 0 and 1.
            sample_weight: The weight of each example in the loss, (N,), at least 0. An example of
                weight 0 is left out.

        Raises:
            ValueError: X, y, a weight or a parameter cannot be used.
            SpaceliteError: The backbone cannot be used, or disk or memory are full.
        """
        prepared = Prepared(self, X, y, sample_weight)
        config, training = prepared.configured(self, len(prepared.rows))
        data = prepared.data
        weights: Array | None = prepared.weights
        if self.validation_share is not None:
            kept, held = prepared.divided(self.validation_share, self._seed())
            parts = {"train": prepared.split.part(kept), "validation": prepared.split.part(held)}
            data = replace(data, splits=parts)
            weights = None if weights is None else weights[kept]
        with reporting(self.progress) as on_progress:
            (trained,) = loop.train(
                data, [config], training, device=prepared.device, weights=weights,
                on_progress=lambda done, total: on_progress("train", done, total),
            )  # fmt: skip
        if trained.stopped is not None:
            raise ValueError(
                f"the loss of {type(self).__name__} became infinite or NaN {trained.stopped}: give "
                "a smaller learning_rate"
            )
        prepared.keep(self, config, training, trained.parameters)
        self.history_ = trained.history
        self.n_iter_ = sum(entry["epoch"] > 0 for entry in trained.history)
        return self

    @property
    def _needs_states(self) -> bool:
        of_ngrams = getattr(self, "blocks", None) == "ngrams"
        return not (of_ngrams or issubclass(heads.kind(self.kind), heads.IdHead))

    @property
    def validation_share(self) -> float | None:
        """The part of the examples on which the best epoch is chosen; None to keep the last."""
        return getattr(self, "validation_fraction", None)

    def _seed(self) -> int:
        """The seed that `random_state` stands for."""
        state = getattr(self, "random_state", 0)
        if isinstance(state, int | np.integer) and not isinstance(state, bool):
            return int(state)
        return int(check_random_state(state).randint(LARGEST_RANDOM_SEED))

    @property
    def _task(self) -> Task:
        return MULTI_LABEL if self.several_ else SINGLE_LABEL

    def _logits(self, X: Any) -> Array:
        """The logits of N examples, (N, C) float32."""
        check_is_fitted(self)
        given = read(self, X, reset=False)
        if isinstance(given, TokenRows) != (self.encoder_ is None):
            fitted = "hidden states" if self.encoder_ is None else "texts"
            raise ValueError(f"{type(self).__name__} was fitted on {fitted}: give it {fitted}")
        parameters = {name: torch.from_numpy(own) for name, own in self.parameters_.items()}
        objective = Objective(self._task, len(self.classes_))
        if isinstance(given, TokenRows):
            return evaluation.predict(self.config_, parameters, objective, given)
        encoder, logits = self._fitted_encoder(), []
        with reporting(self.progress) as on_progress:
            for start in range(0, len(given), PREDICTED_AT_ONCE):
                texts = given[start : start + PREDICTED_AT_ONCE]
                rows = self._hidden_states(texts, encoder, on_progress)
                logits.append(evaluation.predict(self.config_, parameters, objective, rows))
        return np.concatenate(logits)

    def _fitted_encoder(self) -> Encoder:
        """How the texts were embedded in `fit`, with the folder and device of now. Raises
        SpaceliteError if the backbone is another one."""
        now = self._encoder()
        encoder: Encoder = replace(
            self.encoder_, backbone=now.backbone, revision=now.revision, device=now.device,
            tokens_per_batch=now.tokens_per_batch, cache_dir=now.cache_dir,
        )  # fmt: skip
        files = encoder.files
        if (files.version, files.tokenizer_hash) != self.backbone_:
            raise SpaceliteError(
                f"{files.folder} is not the backbone that this {type(self).__name__} was fitted "
                "with: set_params(backbone=FOLDER) names its folder",
            )
        return encoder

    def decision_function(self, X: Any) -> Array:
        """The logits, (N, C); with two classes, that of the second less that of the first, (N,)."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if self._is_binary else logits

    @property
    def _is_binary(self) -> bool:
        return len(self.classes_) == 2 and not self.several_

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, (N, C) float64; independent per label in a multi-label
        task."""
        logits = self._logits(X)
        return self._task.probabilities(logits)

    def predict(self, X: Any) -> Array:
        """The labels, (N,); 0 and 1, (N, C), in a multi-label task."""
        return self._labels(self._logits(X))

    def _labels(self, logits: Array) -> Array:
        decided: Array = self._task.decide(logits)
        return decided if self.several_ else self.classes_[decided]

    def explain(self, text: str, label: Any = None) -> TextExplanation:
        """Show which words of a text mattered, exactly.

        Args:
            text: The text.
            label: The label to explain. Default: the predicted one.

        Raises:
            ValueError: There is no such label, or the classifier was fitted on hidden states.
            SpaceliteError: The head's logits are not a sum over tokens, or the text is empty.
        """
        check_is_fitted(self)
        if self.encoder_ is None:
            raise ValueError("fitted on hidden states: there are no words to explain")
        names = [str(name) for name in self.classes_]
        if label is not None and str(label) not in names:
            raise ValueError(f"label={label!r}: choose from {', '.join(names)}")
        encoder = self._fitted_encoder()
        run = self._as_run(encoder, names)
        explanation.require_shares(run)
        found = explanation.explain_text(
            run, text, backbone=encoder.backbone, device=encoder.device
        )
        shown = found.predicted if label is None else names.index(str(label))
        return TextExplanation(found, shown, run)

    def _as_run(self, encoder: Encoder, names: list[str]) -> Run:
        """The head as a run that is not on disk."""
        record = RunRecord(
            id=type(self).__name__, head=self.config_, training=self.training_, cache="",
            cache_key="", spec=replace(encoder.spec(), dataset="texts in memory"),
            label_names=tuple(names), task=self._task, examples={},
            average=self._task.average(len(names)), train_params=0, metrics={}, seconds=0.0,
            created="",
        )  # fmt: skip
        return Run.in_memory(record, self.parameters_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.input_tags.string = True
        reads_ids = issubclass(heads.kind(self.kind), heads.IdHead)
        # An array of hidden states may have two or three dimensions; texts have one.
        tags.input_tags.two_d_array = tags.input_tags.three_d_array = not reads_ids
        tags.input_tags.one_d_array = reads_ids
        return tags
