"""The scikit-learn estimators on texts: classifiers, regressors, and the encoder.

Parameters are the settings of `spacelite.train` and `spacelite.embed`, by the same names: each is a
field of the class that uses it. Shapes: N examples, T tokens in all of them, d width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from spacelite import files, heads, settings
from spacelite.api.arguments import known_label
from spacelite.api.results import TextExplanation
from spacelite.cache.encoding import Encoder
from spacelite.cache.split import TokenRows
from spacelite.data.columns import as_pair
from spacelite.data.splits import Pair, Text
from spacelite.errors import SpaceliteError
from spacelite.estimators.inputs import Labels, Prepared, as_value_error, check_parameters, read
from spacelite.heads.additive import AdditiveConfig
from spacelite.heads.base import Objective
from spacelite.heads.config import HeadConfig
from spacelite.heads.pooling import POOLINGS, known_pooling
from spacelite.heads.space import SpaceConfig
from spacelite.inference import explanation
from spacelite.progress import OnProgress, Progress, reporting
from spacelite.runs.record import RunRecord
from spacelite.runs.store import Run
from spacelite.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Task
from spacelite.training import engine, loop, plan
from spacelite.training.batches import TokenSplit
from spacelite.training.config import FitConfig, TrainingConfig
from spacelite.types import Array

PREDICTED_AT_ONCE = 4096  # texts whose hidden states are held in prediction
LARGEST_RANDOM_SEED = 2**31 - 1


@dataclass(kw_only=True, eq=False, repr=False)
class Embedding(BaseEstimator):  # type: ignore[misc]
    """An estimator that embeds texts.

    Args:
        backbone: A hub name, a local folder, or `minilm`.
        revision: Commit, branch or tag of a hub backbone.
        layer: Layer of the hidden states: -1 the last, 0 the embedding layer.
        max_length: Maximum tokens per text; the rest is cut off.
        dtype: Number type in which hidden states are stored: `float16`, `bfloat16`, `float32`,
            `int8` or `int4`.
        padding: `none`, or `max_length` to pad every text and count padded positions as tokens.
        prefix: What each text is read with, such as `query: ` for E5.
        windows: Whether texts of more than `max_length` tokens are run in overlapping windows of as
            many rather than cut off.
        stride: Tokens between the beginnings of two windows. Default: half of `max_length`.
        skip_first: Whether the first token of each text is run with the others but not kept, for
            models that make it an attention sink. The pooling `first` is then the second token.
        precision: Number type of the backbone's forward pass: `float32`, `bfloat16`, `float16`, or
            `auto` for float32 on a CPU and half precision on a GPU.
        device: `auto`, `cpu`, `cuda`, ...
        tokens_per_batch: Maximum tokens per forward pass.
        cache_dir: Folder in which hidden states of texts are kept, so that none is embedded twice:
            `auto` for that of the variable `SPACELITE_CACHE`, else `cache`; None to keep nothing.
        progress: True for bars, False for none, or a function called with (phase, done, total).
    """

    backbone: str = Encoder.backbone
    revision: str | None = Encoder.revision
    layer: int = Encoder.layer
    max_length: int = Encoder.max_length
    dtype: str = Encoder.dtype
    padding: str = Encoder.padding
    prefix: str = Encoder.prefix
    windows: bool = Encoder.windows
    stride: int | None = Encoder.stride
    skip_first: bool = Encoder.skip_first
    precision: str = Encoder.precision
    device: str = Encoder.device
    tokens_per_batch: int | None = Encoder.tokens_per_batch
    cache_dir: str | Path | None = "auto"
    progress: Progress = False

    _own_parameters: ClassVar[str]  # what the class documents itself

    def __init_subclass__(cls, **options: Any) -> None:
        """A class documents its own parameters; those that it inherits follow them."""
        super().__init_subclass__(**options)
        documented, _, cls._own_parameters = (cls.__doc__ or "").partition("Args:\n")
        _, _, of_all = (Embedding.__doc__ or "").partition("Args:\n")
        every = (vars(base).get("_own_parameters", "").rstrip() for base in cls.__mro__)
        cls.__doc__ = f"{documented}Args:\n{chr(10).join(filter(None, every))}\n{of_all}"

    def _encoder(self) -> Encoder:
        """How texts are embedded."""
        # There is no train split to fit axes on.
        names = {field.name for field in fields(Encoder)} - {"reduce"}
        values = {name: getattr(self, name) for name in names}
        values["backbone"] = str(self.backbone)
        if self.cache_dir is not None:
            given = None if self.cache_dir == "auto" else self.cache_dir
            values["cache_dir"] = files.cache_folder(given)
        return Encoder(**values)


class Decisions:
    """What follows from the logits of a classifier, which has `classes_`; `several_` says whether
    an example may have several of them."""

    classes_: Array
    several_: bool

    def _logits(self, X: Any) -> Array:
        """The logits of N examples, (N, C) float32."""
        raise NotImplementedError

    @property
    def _task(self) -> Task:
        return MULTI_LABEL if self.several_ else SINGLE_LABEL

    def decision_function(self, X: Any) -> Array:
        """The logits, (N, C); with two classes, that of the second less that of the first, (N,)."""
        logits = self._logits(X)
        is_binary = len(self.classes_) == 2 and not self.several_
        return logits[:, 1] - logits[:, 0] if is_binary else logits

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, (N, C) float64; independent per label in a multi-label
        task."""
        logits = self._logits(X)
        return self._task.probabilities(logits)

    def predict(self, X: Any) -> Array:
        """The labels, (N,); 0 and 1, (N, C), in a multi-label task."""
        logits = self._logits(X)
        decided: Array = self._task.decide(logits)
        return decided if self.several_ else self.classes_[decided]


class Numbers:
    """What follows from the output of a regressor."""

    def _logits(self, X: Any) -> Array:
        """The predicted numbers of N examples, (N, 1) float32."""
        raise NotImplementedError

    def predict(self, X: Any) -> Array:
        """The predicted numbers, (N,) float64, in the unit of y."""
        return self._logits(X)[:, 0].astype(np.float64)


@dataclass(kw_only=True, eq=False, repr=False)
class TextEstimator(Embedding):
    """A head on the hidden states of a frozen backbone.

    X is a list, an array, a Series or a single column of N texts; a list of N pairs of texts, or
    two columns, (N, 2); or hidden states: N arrays (n, d), or one vector for each example, (N, d),
    in which case no backbone is needed.
    """

    kind: ClassVar[str]  # of the head

    def _labels(self, y: Any) -> Labels:
        """y as it is trained on. Raises ValueError if it cannot be used."""
        raise NotImplementedError

    @property
    def _task(self) -> Task:
        raise NotImplementedError

    @property
    def _names(self) -> list[str]:
        """What the head's outputs are of."""
        raise NotImplementedError

    def _keep(self, labels: Labels) -> None:
        """Remember what was fitted to."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the head.

        Args:
            X: N texts, or hidden states.
            y: N labels, or (N, C) of 0 and 1; of a regressor N numbers.
            sample_weight: The weight of each example in the loss, (N,), at least 0. An example of
                weight 0 is left out.

        Raises:
            ValueError: X, y, a weight or a parameter cannot be used.
            SpaceliteError: The backbone cannot be used, or disk or memory are full.
        """
        prepared = Prepared(self, X, y, sample_weight)
        config, training = self._configured(prepared, len(prepared.rows))
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
        self._keep(prepared.labels)
        self.config_, self.training_ = config, training
        self.parameters_ = {name: value.cpu().numpy() for name, value in trained.parameters.items()}
        self.encoder_: Any = prepared.encoder
        self.of_pairs_ = prepared.of_pairs
        files = None if prepared.encoder is None else prepared.encoder.files
        self.backbone_ = None if files is None else (files.version, files.tokenizer_hash)
        self.history_ = trained.history
        self.n_iter_ = sum(entry["epoch"] > 0 for entry in trained.history)
        return self

    def _configured(self, prepared: Prepared, count: int) -> tuple[HeadConfig, TrainingConfig]:
        """The head that is trained on so many examples, and how. Raises ValueError if a parameter
        is invalid, or the head needs texts."""
        asked = {name: getattr(self, name) for name in plan.declared() if hasattr(self, name)}
        if "pooling" in asked and asked["pooling"] is None:
            asked["pooling"] = prepared.pooling
        if hasattr(self, "random_state"):
            asked["seed"] = asked["data_seed"] = self._seed()
        # Of heads that are not trained in epochs these two have no effect.
        asked = {"epochs": 1, "batch_size": 1, **asked, "patience": None}
        with as_value_error():
            config, training = plan.plan_one(self.kind, asked, count)
            if prepared.encoder is None and (config.reads_ids or config.reads_layers):
                raise ValueError(
                    f"{type(self).__name__} ({config.name}) needs texts: hidden states of one "
                    "layer say nothing about tokens' ids and other layers"
                )
            monitor = prepared.labels.task.metric(asked.get("monitor"), training.monitor, "monitor")
            patience = self._patience(training.epochs)
            training = replace(training, patience=patience, monitor=monitor)
            settings.check(training)
        return config, training

    def _patience(self, epochs: int) -> int | None:
        """After how many epochs without a better one training stops. Without a validation part none
        is better; with one, the best epoch is kept."""
        patience: int | None = getattr(self, "patience", None)
        if self.validation_share is not None:
            return epochs if patience is None else patience
        for name in ("monitor", "patience"):
            default = getattr(type(self), name, None)
            if (value := getattr(self, name, default)) != default:
                raise ValueError(
                    f"{name}={value} needs a part of the examples to compare epochs on: give "
                    "validation_fraction, such as 0.1, or leave it out"
                )
        return None

    def _embed(self, texts: list[Text], encoder: Encoder, on_progress: OnProgress) -> TokenRows:
        """The hidden states of texts; of a head that does not read them, only the token ids."""
        of_ngrams = getattr(self, "blocks", None) == "ngrams"
        needed = not (of_ngrams or heads.config(self.kind).reads_only_ids)
        return encoder.encode(texts, on_progress, states=needed)

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

    def _logits(self, X: Any) -> Array:
        check_is_fitted(self)
        check_parameters(self)
        inputs = read(self, X, reset=False)
        if isinstance(inputs, TokenRows) != (self.encoder_ is None):
            fitted = "hidden states" if self.encoder_ is None else "texts"
            raise ValueError(f"{type(self).__name__} was fitted on {fitted}: give it {fitted}")
        objective = Objective(self._task, len(self._names))
        predict = partial(engine.predict, self.config_, self.parameters_, objective)
        if isinstance(inputs, TokenRows):
            return predict(inputs)
        if isinstance(inputs[0], Pair) != self._reads_pairs:
            fitted = "pairs of texts" if self._reads_pairs else "single texts"
            raise ValueError(f"{type(self).__name__} was fitted on {fitted}: give it {fitted}")
        encoder, logits = self._fitted_encoder(), []
        with reporting(self.progress) as on_progress:
            for start in range(0, len(inputs), PREDICTED_AT_ONCE):
                texts = inputs[start : start + PREDICTED_AT_ONCE]
                logits.append(predict(self._embed(texts, encoder, on_progress)))
        return np.concatenate(logits)

    @property
    def _reads_pairs(self) -> bool:
        return getattr(self, "of_pairs_", False)  # which pickles of older versions lack

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

    def _explained(self, text: str | Sequence[str], label: str | None) -> TextExplanation:
        check_is_fitted(self)
        if self.encoder_ is None:
            raise ValueError("fitted on hidden states: there are no words to explain")
        if label is not None:
            with as_value_error():
                label = known_label(label, self._names)
        encoder = self._fitted_encoder()
        run = self._as_run(encoder, self._names)
        explanation.require_shares(run)
        explained = explanation.explain_text(
            run, as_pair(text), backbone=encoder.backbone, device=encoder.device
        )
        return TextExplanation.of(explained, run, label)

    def _as_run(self, encoder: Encoder, names: list[str]) -> Run:
        """The head as a run that is not on disk."""
        record = RunRecord(
            id=type(self).__name__, head=self.config_, training=self.training_, cache="",
            cache_key="", spec=encoder.spec(dataset="texts in memory", pairs=self._reads_pairs),
            label_names=tuple(names), task=self._task, examples={},
            average=self._task.average(len(names)), train_params=0, metrics={}, seconds=0.0,
            created="",
        )  # fmt: skip
        return Run.in_memory(record, self.parameters_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        reads_ids = heads.config(self.kind).reads_only_ids
        # An array of hidden states may have two or three dimensions; texts have one.
        tags.input_tags.two_d_array = tags.input_tags.three_d_array = not reads_ids
        tags.input_tags.one_d_array = reads_ids
        tags.target_tags.required = True
        return tags


@dataclass(kw_only=True, eq=False, repr=False)
class TextClassifier(ClassifierMixin, TextEstimator, Decisions):  # type: ignore[misc]
    """A classifier of texts: a head on the hidden states of a frozen backbone.

    X is as for `TextEstimator`. y has N labels, or is a multi-label indicator (N, C) of 0 and 1.

    Attributes:
        classes_: The labels, (C,); the columns' numbers in a multi-label task.
        parameters_: The parameters of the head by name.
        history_: The metrics of each epoch.
        n_iter_: Number of epochs that were trained; 0 for a head that is fitted directly.
        n_features_in_: d, if X was hidden states.

    Args:
        class_weights: `none`, or `balanced`: every class has the same total weight in the loss.
    """

    class_weights: str = FitConfig.class_weights

    _task = Decisions._task

    @property
    def _names(self) -> list[str]:
        return [str(name) for name in self.classes_]

    def _labels(self, y: Any) -> Labels:
        return Labels.of(self, y)

    def _keep(self, labels: Labels) -> None:
        self.classes_, self.several_ = labels.classes, labels.several

    def explain(self, text: str | Sequence[str], label: Any = None) -> TextExplanation:
        """Show which words of a text mattered, exactly.

        Args:
            text: The text, or the two of a pair.
            label: The label to explain. Default: the predicted one, or each of several.

        Raises:
            ValueError: There is no such label, or the classifier was fitted on hidden states.
            SpaceliteError: The head's logits are not a sum over tokens, or the text is empty.
        """
        return self._explained(text, None if label is None else str(label))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@dataclass(kw_only=True, eq=False, repr=False)
class TextRegressor(RegressorMixin, TextEstimator, Numbers):  # type: ignore[misc]
    """A regressor of texts: a head on the hidden states of a frozen backbone, which predicts a
    number per text. X is as for `TextEstimator`; y has N numbers.

    Attributes:
        name_: What the numbers are called in explanations: the name of y, if it was a Series.
        parameters_: The parameters of the head by name, in the unit of y.
        history_: The metrics of each epoch.
        n_iter_: Number of epochs that were trained; 0 for a head that is fitted directly.
        n_features_in_: d, if X was hidden states.
    """

    @property
    def _task(self) -> Task:
        return REGRESSION

    @property
    def _names(self) -> list[str]:
        return [self.name_]

    def _labels(self, y: Any) -> Labels:
        return Labels.of_numbers(self, y)

    def _keep(self, labels: Labels) -> None:
        (self.name_,) = map(str, labels.classes)

    def explain(self, text: str | Sequence[str]) -> TextExplanation:
        """Show what each word of a text adds to the predicted number, exactly.

        Args:
            text: The text, or the two of a pair.

        Raises:
            ValueError: The regressor was fitted on hidden states.
            SpaceliteError: The head's output is not a sum over tokens, or the text is empty.
        """
        return self._explained(text, None)


@dataclass(kw_only=True, eq=False, repr=False)
class Trained(TextEstimator):
    """A head that is trained in epochs.

    Args:
        learning_rate: Learning rate of Adam, or "auto".
        weight_decay: L2 penalty of Adam.
        epochs: Number of passes over the examples, or "auto".
        batch_size: Examples per update, or "auto".
        schedule: Schedule of the learning rate: `constant` or `cosine`.
        clip_norm: Maximum norm of the head's gradient; None for no clipping.
        validation_fraction: The part of the examples, held out at random, on which the best epoch
            is chosen; None to train on all and keep the last epoch.
        patience: Stop after this many epochs without a better one.
        monitor: Metric of the held-out part by which epochs are compared.
        random_state: Seed of the head's initialisation and of the order of the examples.
    """

    learning_rate: float | str = "auto"
    weight_decay: float = SpaceConfig.weight_decay
    epochs: int | str = "auto"
    batch_size: int | str = "auto"
    schedule: str = TrainingConfig.schedule
    clip_norm: float | None = TrainingConfig.clip_norm
    validation_fraction: float | None = None
    patience: int | None = TrainingConfig.patience
    monitor: str = TrainingConfig.monitor
    random_state: Any = 0


@dataclass(kw_only=True, eq=False, repr=False)
class TrainedClassifier(TextClassifier, Trained):
    """A classifier whose head is trained in epochs."""


@dataclass(kw_only=True, eq=False, repr=False)
class TrainedRegressor(TextRegressor, Trained):
    """A regressor whose head is trained in epochs.

    Args:
        loss: `squared`, or `huber`, which counts errors beyond a standard deviation of y linearly.
    """

    loss: str = "squared"
    monitor: str = "rmse"


@dataclass(kw_only=True, eq=False, repr=False)
class Space(TextEstimator):
    """Concept spaces.

    Args:
        latent: Number of dimensions of a concept space.
        intra: Weight of the intra-space loss.
        scaling: Scaling of hidden states: `none`, or `standard`, to mean 0 and variance 1.
        ensemble: Number of members, which are merged into one head.
    """

    kind = "space"

    latent: int = SpaceConfig.latent
    intra: float = SpaceConfig.intra
    scaling: str = SpaceConfig.scaling
    ensemble: int = SpaceConfig.ensemble


@dataclass(kw_only=True, eq=False, repr=False)
class SpaceClassifier(TrainedClassifier, Space):
    """A small concept space for each class (Tytarenko & Amin, arXiv:2401.16638).

    Args:
        inter: Weight of the inter-space loss.
    """

    inter: float = SpaceConfig.inter


@dataclass(kw_only=True, eq=False, repr=False)
class SpaceRegressor(TrainedRegressor, Space):
    """A small concept space for the number."""


@dataclass(kw_only=True, eq=False, repr=False)
class Linear(TextEstimator):
    """A linear layer on one vector per text, trained with Adam.

    Args:
        pooling: How the tokens become one vector: `first`, `last`, `mean`, `max`, `pooler`,
            or `layers`.
            Default: the classification token.
    """

    kind = "linear"

    pooling: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class LinearClassifier(TrainedClassifier, Linear):
    """A linear layer on one vector per text, trained with Adam."""


@dataclass(kw_only=True, eq=False, repr=False)
class LinearRegressor(TrainedRegressor, Linear):
    """A linear layer on one vector per text, trained with Adam."""


@dataclass(kw_only=True, eq=False, repr=False)
class MLPClassifier(TrainedClassifier):
    """Two linear layers on one vector per text, trained with Adam.

    Args:
        pooling: How the tokens become one vector: `first`, `last`, `mean`, `max`, `pooler`,
            or `layers`.
            Default: the classification token.
    """

    kind = "mlp"

    pooling: str | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class Additive(TextEstimator):
    """Linear layers on the means of all layers and on n-grams, and a block that reads every token.

    Args:
        blocks: What is added up, joined by `+`: `layers`, `mean`, `ngrams`, and `space` or
            `attention`. Only these two are trained in epochs: without one of them, all settings of
            the training have no effect.
        max_ngram: Tokens of the longest n-grams, 2 or 3.
        latent: Number of dimensions of a concept space, or of units of the block `attention`.
        ensemble: Number of members of `space` or `attention`, which are merged into one.
    """

    kind = "additive"

    blocks: str = AdditiveConfig.blocks
    max_ngram: int = AdditiveConfig.max_ngram
    latent: int = AdditiveConfig.latent
    ensemble: int = AdditiveConfig.ensemble


@dataclass(kw_only=True, eq=False, repr=False)
class AdditiveClassifier(TrainedClassifier, Additive):
    """What is recommended: linear layers on the means of all layers and on n-grams, and, with the
    block `attention`, units on tokens on top of them.
    """


@dataclass(kw_only=True, eq=False, repr=False)
class AdditiveRegressor(TrainedRegressor, Additive):
    """What is recommended: ridge regression on the means of all layers and on n-grams, and, with
    the block `attention`, units on tokens on top of it.
    """


@dataclass(kw_only=True, eq=False, repr=False)
class LogregClassifier(TextClassifier):
    """Logistic regression on one vector per text.

    Args:
        pooling: How the tokens become one vector: `first`, `last`, `mean`, `max`, `pooler`,
            or `layers`.
        C: Strength of the L2 penalty, as in scikit-learn: the smaller, the stronger; "auto" chooses
            it by cross-validation, on standardised vectors.
    """

    kind = "logreg"

    pooling: str | None = "mean"
    C: float | str = "auto"


@dataclass(kw_only=True, eq=False, repr=False)
class RidgeRegressor(TextRegressor):
    """Ridge regression on one vector per text.

    Args:
        pooling: How the tokens become one vector: `first`, `last`, `mean`, `max`, `pooler`,
            or `layers`.
        C: The inverse of the L2 penalty (`alpha` of scikit-learn's Ridge is 1 / C): the smaller,
            the stronger; "auto" chooses it by cross-validation, on standardised vectors.
    """

    kind = "ridge"

    pooling: str | None = "mean"
    C: float | str = "auto"


@dataclass(kw_only=True, eq=False, repr=False)
class Tfidf(TextEstimator):
    """A linear layer on TF-IDF of n-grams of token ids.

    Args:
        C: Strength of the L2 penalty; "auto" chooses it by cross-validation.
    """

    kind = "tfidf"

    C: float | str = "auto"


@dataclass(kw_only=True, eq=False, repr=False)
class TfidfClassifier(TextClassifier, Tfidf):
    """Logistic regression on TF-IDF of 1- and 2-grams of token ids. It reads token ids alone."""


@dataclass(kw_only=True, eq=False, repr=False)
class TfidfRegressor(TextRegressor, Tfidf):
    """Ridge regression on TF-IDF of 1- and 2-grams of token ids. It reads token ids alone."""


@dataclass(kw_only=True, eq=False, repr=False)
class FrozenEncoder(TransformerMixin, Embedding):  # type: ignore[misc]
    """A frozen backbone as a transformer: one vector per text. There is nothing to fit.

    Args:
        pooling: How the tokens become one vector: `first`, `last`, `mean`, `max`, `pooler`, or
            `layers` (the means of all layers side by side). None: the classification token.
            `pooler` and `layers` do not depend on `layer`.
    """

    pooling: str | None = "mean"

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the texts; nothing is computed. Raises ValueError if they cannot be used."""
        self._texts(X)
        return self

    def transform(self, X: Any) -> Array:
        """The vectors of N texts, (N, d) float32; (N, layers * d) with `layers`.

        Raises:
            ValueError: A text is missing or empty, or a parameter is invalid.
            SpaceliteError: The backbone cannot be used, or disk or memory are full.
        """
        return self._vectors(self._texts(X))

    def _vectors(self, texts: list[Text]) -> Array:
        with as_value_error():
            settings.require("pooling", self.pooling or "first", known_pooling)
        with reporting(self.progress) as on_progress:
            rows = self._encoder().encode(texts, on_progress)
        pooling = self.pooling or rows.pooling
        if POOLINGS[pooling].from_backbone:
            rows.require_pooler()
        return TokenSplit(rows).features(pooling).float().numpy()

    def _texts(self, X: Any) -> list[Text]:
        check_parameters(self)
        inputs = read(self, X, reset=True)
        if isinstance(inputs, TokenRows):
            raise ValueError("X has numbers: FrozenEncoder needs texts")
        return inputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Names of the vectors' dimensions, `frozenencoder0`, ..."""
        width = self._vectors(["a text"]).shape[1]  # which the backbone alone tells
        return np.array([f"frozenencoder{number}" for number in range(width)], object)
