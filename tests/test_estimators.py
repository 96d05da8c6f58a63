"""The scikit-learn estimators: scikit-learn's own checks, the same results as `embed` and `train`,
and everything around them that users of scikit-learn expect to work."""

import pickle
from unittest import SkipTest

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import WORDS, refusal, texts
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_array

import spacelite
from spacelite import (
    AdditiveClassifier,
    FrozenEncoder,
    LinearClassifier,
    LogregClassifier,
    MLPClassifier,
    SpaceClassifier,
    SpaceSearchCV,
    TfidfClassifier,
    TfidfRegressor,
)
from spacelite.settings import Config
from spacelite.training.config import TrainingConfig

QUICK = {"epochs": 3, "batch_size": 32}
CLASSIFIERS = {
    "space": SpaceClassifier, "linear": LinearClassifier, "mlp": MLPClassifier,
    "additive": AdditiveClassifier, "logreg": LogregClassifier, "tfidf": TfidfClassifier,
}  # fmt: skip

REGRESSORS = {
    "space": spacelite.SpaceRegressor, "linear": spacelite.LinearRegressor,
    "additive": spacelite.AdditiveRegressor, "ridge": spacelite.RidgeRegressor,
    "tfidf": TfidfRegressor,
}  # fmt: skip


@pytest.fixture(scope="module")
def options(bert, tmp_path_factory):
    """Where the tiny backbone is, and a store that the tests of this file share."""
    return {"backbone": str(bert), "cache_dir": str(tmp_path_factory.mktemp("store"))}


@pytest.fixture(scope="module")
def reviews_():
    """Texts that say what they are: (texts, labels)."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 120)
    words = np.array(WORDS)
    marks = np.array([words[:4], words[4:8]])
    found = [
        " ".join([*random.choice(words, random.integers(1, 8)), *random.choice(marks[label], 4)])
        for label in labels
    ]
    return found, np.array(["bad", "good"])[labels]


# scikit-learn's own checks.

BATCHES = (
    "examples are shuffled into batches by their index, so that removing or repeating one changes"
)
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": f"{BATCHES} all batches",
    "check_methods_sample_order_invariance": "float32: the last bits depend on the group of tokens",
    "check_methods_subset_invariance": "float32: the last bits depend on the group of tokens",
}
EXPECTED_FITTED = {
    "check_sample_weight_equivalence_on_dense_data": "C is chosen in folds, drawn by index",
}


class _OnTexts:
    """Makes a text of each row of numbers, so that the checks apply to classifiers of texts: a word
    for each feature, repeated the more, the larger its value."""

    def _read(self, X, reset):
        from sklearn.utils.validation import validate_data

        X = validate_data(self, X, reset=reset)
        low, high = (X.min(axis=0), X.max(axis=0)) if reset else self.range_
        if reset:
            self.range_ = low, high
        steps = np.round(6 * (X - low) / np.maximum(high - low, 1e-9)).clip(0, 6).astype(int)
        return [
            " ".join(["film", *(w for w, n in zip(WORDS, row, strict=False) for _ in range(n))])
            for row in steps
        ]

    def fit(self, X, y, sample_weight=None):
        return super().fit(self._read(X, True), y, sample_weight)

    def _logits(self, X):
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        return super()._logits(self._read(X, False))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = True, False
        tags.input_tags.one_d_array = tags.input_tags.string = False
        return tags


class TfidfOnTexts(_OnTexts, TfidfClassifier):
    """Texts, and a classifier that reads token ids."""


class TfidfNumbersOnTexts(_OnTexts, TfidfRegressor):
    """Texts, and a regressor that reads token ids."""


class AdditiveOnTexts(_OnTexts, AdditiveClassifier):
    """Texts, and the classifier that reads everything."""


def checks():
    for name, kind in [*CLASSIFIERS.items(), *REGRESSORS.items()]:
        if name == "additive":
            estimator, expected = kind(blocks="mean"), EXPECTED_FITTED
        elif name in ("logreg", "ridge"):
            estimator, expected = kind(), EXPECTED_FITTED
        elif name == "tfidf":
            continue
        else:
            estimator, expected = kind(), EXPECTED
        if name == "mlp":
            expected = {**EXPECTED, "check_classifiers_train": "as wide as X: two units, dropout"}
        for one, check in estimator_checks_generator(
            estimator, mark="skip", expected_failed_checks=expected
        ):
            marks = [pytest.mark.slow] * (name not in ("logreg", "ridge"))
            id_ = f"{kind.__name__}-{_name(check)}"
            yield pytest.param(one, check, id=id_, marks=marks)


def _name(check):
    function = check.func if hasattr(check, "func") else check
    return getattr(function, "__name__", str(function))


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_on_hidden_states(estimator, check):
    """One vector per example, which is what the checks give."""
    trains = ("check_classifiers_train", "check_regressors_train")
    if "epochs" in estimator.get_params():  # by default hundreds, on few examples
        quick = {"epochs": 3}
        if _name(check) in trains:  # again with read-only arrays and float32: quicker
            quick = {"epochs": 20, "learning_rate": 0.1, "batch_size": 100}
            quick = quick if check.keywords else {}
        estimator = clone(estimator).set_params(**quick)
    check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [TfidfOnTexts, AdditiveOnTexts, TfidfNumbersOnTexts])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_on_texts(kind, options):
    """As far as they apply to texts: the others are listed with the reason."""
    reasons = {
        **EXPECTED_FITTED,
        "check_parameters_default_constructible": "the backbone of the tests is no default",
        "check_do_not_raise_errors_in_init_or_set_param": "reads no X",
    }
    estimator = kind(**options)
    failed = {}
    for one, check in estimator_checks_generator(estimator):
        try:
            check(one)
        except SkipTest:
            continue  # it needs a package or a setting that is not there
        except Exception as error:
            failed[_name(check)] = repr(error)[:200]
    assert {name: error for name, error in failed.items() if name not in reasons} == {}


def test_parameters_are_the_settings():
    """Every setting of a head and of its training is a parameter, by its own name, and no other."""
    from dataclasses import fields

    from spacelite import heads
    from spacelite.cache.encoding import Encoder

    # There is no train split yet when texts are embedded.
    embedding = {each.name for each in fields(Encoder)} - {"reduce"} | {"progress"}
    for name, kind in [*CLASSIFIERS.items(), *REGRESSORS.items()]:
        config: type[Config] = heads.kind(name).config_type
        own = {each.name for each in fields(config)} - {"seed"}
        training = {"class_weights"}
        if any(each.name == "seed" for each in fields(config)):
            # scikit-learn gives weights to `fit`, and tunes thresholds from outside; classes have
            # one loss.
            elsewhere = {"data_seed", "sample_weight", "threshold", "loss"}
            training = {each.name for each in fields(TrainingConfig)} - elsewhere
            training |= {"random_state", "validation_fraction"}
        if kind is REGRESSORS.get(name):
            own -= {"inter"}  # of several concept spaces
            training = training - {"class_weights"} | ({"loss"} if len(training) > 1 else set())
        assert set(kind().get_params()) == own | training | embedding, name
        for setting in own - {"learning_rate", "C", "pooling"}:
            assert getattr(kind(), setting) == getattr(config(), setting)


# The same results as the library's own commands.


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_as_embed_and_train(name, reviews_, options, tmp_path):
    own, labels = reviews_
    settings = {"epochs": 4, "batch_size": 20, "learning_rate": 1e-2}
    given = settings if name in ("space", "linear", "mlp") else {}
    if name == "additive":
        given = {**settings, "blocks": "layers+ngrams+space", "random_state": 3}
    estimator = CLASSIFIERS[name](**given, **options).fit(own, labels)
    cache = spacelite.embed(
        {"train": (own, list(labels)), "validation": (own[:20], list(labels[:20]))},
        backbone=options["backbone"], cache_dir=tmp_path, progress=False,
    )  # fmt: skip
    extra = (
        {"seeds": [3], "blocks": "layers+ngrams+space", "data_seed": 3}
        if name == "additive"
        else {}
    )
    if name == "logreg":
        extra = {"pooling": "mean"}
    (run,) = spacelite.train(
        cache, head=name, baselines=False, progress=False, **extra, **(settings if given else {}),
    )  # fmt: skip
    expected = [each["probabilities"] for each in run.predict(own, progress=False).rows]
    expected = np.array([[each["bad"], each["good"]] for each in expected])
    np.testing.assert_allclose(estimator.predict_proba(own), expected, atol=3e-3)
    assert list(estimator.classes_) == ["bad", "good"]
    assert estimator.score(own, labels) == accuracy_score(labels, estimator.predict(own))
    np.testing.assert_allclose(
        estimator.decision_function(own),
        np.log(estimator.predict_proba(own)[:, 1] / estimator.predict_proba(own)[:, 0]),
        atol=1e-4,
    )


def test_the_encoder_against_plain_transformers(options, bert):
    from transformers import AutoModel, AutoTokenizer

    own = texts(30, seed=5)
    model, tokenizer = AutoModel.from_pretrained(bert), AutoTokenizer.from_pretrained(bert)
    found = {
        pooling: FrozenEncoder(pooling=pooling, dtype="float32", **options).transform(own)
        for pooling in ("first", "last", "mean", "pooler", "layers")
    }
    middle = FrozenEncoder(layer=1, dtype="float32", **options).transform(own)
    for row, text in enumerate(own):
        with torch.no_grad():
            out = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        hidden = out.last_hidden_state[0]
        expected = {
            "first": hidden[0], "last": hidden[-1], "mean": hidden.mean(0),
            "pooler": out.pooler_output[0],
            "layers": torch.cat([each[0].mean(0) for each in out.hidden_states]),
        }  # fmt: skip
        for pooling, value in expected.items():
            np.testing.assert_allclose(found[pooling][row], value.numpy(), atol=1e-3)
        np.testing.assert_allclose(middle[row], out.hidden_states[1][0].mean(0), atol=1e-5)


def test_hidden_states_without_a_backbone():
    """Lists of (n, d) arrays, and arrays (N, n, d); no backbone is looked for."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    centres = random.normal(size=(3, 8))
    arrays = [
        (centres[label] + 0.3 * random.normal(size=(random.integers(2, 7), 8))).astype(np.float32)
        for label in labels
    ]
    nowhere = {"backbone": "/nowhere", "cache_dir": "/nowhere/cache"}
    found = SpaceClassifier(**nowhere).fit(arrays, labels)
    assert found.score(arrays, labels) > 0.9 and found.n_features_in_ == 8
    cube = np.stack([one[:2] for one in arrays])
    assert SpaceClassifier(**nowhere).fit(cube, labels).predict(cube).shape == (90,)
    with pytest.raises(ValueError, match="8 features"):
        found.predict([one[:, :5] for one in arrays])
    with pytest.raises(ValueError, match="no words to explain"):
        found.explain("a film")
    for kind in (TfidfClassifier, AdditiveClassifier):
        with pytest.raises(ValueError, match="needs texts"):
            kind(**nowhere).fit(arrays, labels)


# Ordinary use.


@pytest.mark.slow
def test_in_pipelines_searches_and_calibration(reviews_, options):
    own, labels = reviews_
    head = SpaceClassifier(**QUICK, **options)
    scores = cross_val_score(make_pipeline(FunctionTransformer(lambda X: X), head), own, labels)
    assert scores.shape == (5,)
    model = make_pipeline(FrozenEncoder(**options), LogisticRegression(max_iter=500))
    assert model.fit(own, labels).score(own, labels) > 0.8
    calibrated = CalibratedClassifierCV(LinearClassifier(pooling="mean", **options), cv=3)
    probabilities = calibrated.fit(own, labels).predict_proba(own)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    grid = GridSearchCV(head, {"latent": [2, 3], "inter": [0, 0.1]}, cv=3).fit(own, labels)
    assert grid.best_estimator_.latent in (2, 3)
    # On the vectors of an encoder, too.
    model = make_pipeline(FrozenEncoder(**options), LinearClassifier())
    assert model.fit(own, labels).score(own, labels) > 0.8


FORMS = [
    list, tuple, np.array, pd.Series, lambda x: np.array(x, object),
    lambda x: pd.DataFrame({"text": x}), lambda x: np.array(x)[:, None],
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_texts(form, reviews_, options):
    own, labels = reviews_
    expected = TfidfClassifier(**options).fit(own, labels).predict_proba(own)
    found = TfidfClassifier(**options).fit(form(own), pd.Series(labels, index=range(5, 125)))
    np.testing.assert_array_equal(found.predict_proba(form(own)), expected)


@pytest.mark.parametrize("names", [[0, 1], [False, True], ["no", "yes"], [-3, 7]])
def test_labels_come_back_as_they_were(names, reviews_, options):
    own, labels = reviews_
    given = np.array(names)[(labels == "good").astype(int)]
    found = TfidfClassifier(**options).fit(own, given)
    assert found.classes_.tolist() == names and set(found.predict(own)) <= set(names)


def test_multi_label(reviews_, options):
    own, labels = reviews_
    y = np.stack([labels == "good", [len(text) > 40 for text in own], labels == "bad"], 1).astype(
        int
    )
    for kind in (SpaceClassifier, LogregClassifier):
        found = kind(**options).fit(own, y)
        assert found.predict(own).shape == y.shape == found.predict_proba(own).shape
        assert found.classes_.tolist() == [0, 1, 2]
        assert (found.predict(own)[:, 0] == y[:, 0]).mean() > 0.8
    assert 0 <= found.score(own, y) <= 1


def test_pickled_and_cloned(reviews_, options, calls):
    """A pickled estimator holds the head and the backbone's identity, not the backbone; no clone
    loads it again."""
    own, labels = reviews_
    found = SpaceClassifier(**QUICK, **options).fit(own, labels)
    content = pickle.dumps(found)
    assert len(content) < 20_000
    again = pickle.loads(content)
    calls.clear()
    np.testing.assert_array_equal(again.predict_proba(own), found.predict_proba(own))
    assert clone(found).fit(own, labels).predict(own).tolist() == found.predict(own).tolist()
    assert not calls  # every text is in the store


@pytest.mark.parametrize(
    ("kind", "modules"),
    [
        (SpaceClassifier, {"estimators.classifiers": "estimators.trained"}),
        (MLPClassifier, {"estimators.classifiers": "estimators.trained",
                         "heads.linear": "heads.mlp"}),
        (LogregClassifier, {"estimators.classifiers": "estimators.baselines",
                            "heads.linear": "heads.logreg"}),
        (TfidfClassifier, {"estimators.classifiers": "estimators.baselines",
                           "heads.ngrams": "heads.tfidf"}),
        (AdditiveClassifier, {"estimators.classifiers": "estimators.additive"}),
        (FrozenEncoder, {"estimators.classifiers": "estimators.encoder"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_pickles_of_earlier_versions(reviews_, options, kind, modules):
    """Classes were in other modules when they were pickled: 0.1.0 had a module for each kind."""
    own, labels = reviews_
    model = kind(**options).fit(own, labels)
    content = pickle.dumps(model, protocol=0)
    for now, before in modules.items():
        assert f"cspacelite.{now}\n".encode() in content
        content = content.replace(f"cspacelite.{now}\n".encode(), f"cspacelite.{before}\n".encode())
    again = pickle.loads(content)
    use = "transform" if kind is FrozenEncoder else "predict_proba"
    np.testing.assert_array_equal(getattr(again, use)(own), getattr(model, use)(own))


def test_joblib(reviews_, options, tmp_path):
    own, labels = reviews_
    found = AdditiveClassifier(**options).fit(own, labels)
    joblib.dump(found, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib")
    assert again.predict(own).tolist() == found.predict(own).tolist()


def test_another_backbone_is_refused(reviews_, options, distilbert):
    own, labels = reviews_
    found = SpaceClassifier(**QUICK, **options).fit(own, labels)
    found.set_params(backbone=str(distilbert))
    assert "is not the backbone that this SpaceClassifier was fitted with" in refusal(
        found.predict, own
    )


def test_progress_ends_where_all_is_in_a_cache(reviews_, options, tmp_path):
    own, labels = reviews_
    there = {"backbone": options["backbone"], "cache_dir": tmp_path}
    spacelite.embed(texts=own, labels=labels, progress=False, **there)
    calls = []
    FrozenEncoder(**there, progress=lambda *each: calls.append(each)).transform(own)
    _, done, total = [call for call in calls if call[0] == "embed"][-1]
    assert done == total > 0


def test_settings_of_now_do_not_change_what_was_fitted(reviews_, options):
    own, labels = reviews_
    found = SpaceClassifier(**QUICK, **options).fit(own, labels)
    before = found.predict_proba(own)
    found.set_params(max_length=4, latent=5, layer=0)
    np.testing.assert_array_equal(found.predict_proba(own), before)


def test_explanations(reviews_, options):
    own, labels = reviews_
    for kind in (SpaceClassifier, AdditiveClassifier, TfidfClassifier):
        found = kind(**options).fit(own, labels)
        explained = found.explain(own[0])
        assert explained.explanation.given == [str(found.predict(own[:1])[0])]
        assert explained.explanation.difference < 1e-3
        other = found.explain(own[0], label="bad")
        assert other.words and "bad" in str(other) and "<b>bad</b>" in other._repr_html_()
        with pytest.raises(ValueError, match="choose from bad, good"):
            found.explain(own[0], label="ugly")
    message = refusal(LinearClassifier(**QUICK, **options).fit(own, labels).explain, own[0])
    assert "mean" in message or "not a sum" in message


def test_validation_fraction(reviews_, options):
    """The best epoch of a part that is held out, and not the last one."""
    own, labels = reviews_
    given = {"epochs": 12, "batch_size": 8, "learning_rate": 0.5, "monitor": "ce", **options}
    found = SpaceClassifier(validation_fraction=0.3, **given).fit(own, labels)
    figures = [entry["validation"]["ce"] for entry in found.history_]
    assert len(figures) == 12 and found.n_iter_ == 12
    stopped = SpaceClassifier(validation_fraction=0.3, patience=1, **given).fit(own, labels)
    assert stopped.n_iter_ < 12
    with pytest.raises(ValueError, match="validation_fraction"):
        SpaceClassifier(patience=2, **options).fit(own, labels)
    given.pop("monitor")
    assert all("validation" not in e for e in SpaceClassifier(**given).fit(own, labels).history_)


def test_sample_weights(reviews_, options):
    """Weight 0 leaves an example out; other weights change the head."""
    own, labels = reviews_
    weights = np.where(np.arange(len(own)) % 3 == 0, 0.0, 1.0)
    kept = np.flatnonzero(weights)
    for kind in (SpaceClassifier, TfidfClassifier, AdditiveClassifier):
        found = kind(**options).fit(own, labels, weights).predict_proba(own)
        expected = kind(**options).fit([own[i] for i in kept], labels[kept]).predict_proba(own)
        np.testing.assert_array_equal(found, expected)
        heavy = kind(**options).fit(own, labels, weights * np.where(labels == "good", 9, 1))
        assert heavy.predict_proba(own)[:, 1].mean() > found[:, 1].mean()


# The search.


def grids():
    yield SpaceClassifier(epochs=3, batch_size=1000, learning_rate=0.01), {
        "latent": [2, 3], "inter": [0.0, 0.2], "random_state": [0, 1],
    }  # fmt: skip
    yield LogregClassifier(), [{"C": [0.1, 1.0]}, {"pooling": ["first", "last"]}]
    yield TfidfClassifier(), {"C": [0.5, 5.0], "class_weights": ["none", "balanced"]}
    yield AdditiveClassifier(epochs=2, batch_size=1000), {
        "blocks": ["mean", "mean+space"], "max_length": [8, 64],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("estimator", "grid"), list(grids()), ids=["space", "C", "tfidf", "blocks"]
)
def test_the_search_against_grid_search(estimator, grid, reviews_, options):
    """With all examples in one batch, the updates of a fold's head are those of a training of its
    own: the scores are GridSearchCV's."""
    own, labels = reviews_
    estimator.set_params(**options)
    scoring = ["accuracy", "neg_log_loss"]
    found = SpaceSearchCV(estimator, grid, cv=3, scoring=scoring, refit="neg_log_loss")
    found.fit(own, labels)
    expected = GridSearchCV(estimator, grid, cv=3, scoring=scoring, refit="neg_log_loss")
    expected.fit(own, labels)
    assert found.cv_results_.keys() == expected.cv_results_.keys()
    assert found.cv_results_["params"] == expected.cv_results_["params"]
    for name, value in expected.cv_results_.items():
        if "test_neg_log_loss" in name and "rank" not in name:
            np.testing.assert_allclose(found.cv_results_[name], value, atol=5e-3)
        if name.startswith("param_"):
            assert list(found.cv_results_[name]) == list(value)
    assert found.predict(own).tolist() == found.best_estimator_.predict(own).tolist()
    assert found.best_score_ == found.cv_results_["mean_test_neg_log_loss"].max()
    assert found.n_splits_ == 3 and found.multimetric_
    pd.DataFrame(found.cv_results_)
    assert found.score(own, labels) == pytest.approx(
        found.scorer_(found.best_estimator_, own, labels)["neg_log_loss"]
    )


def test_the_search_with_groups_weights_and_smaller_batches(reviews_, options):
    own, labels = reviews_
    estimator = SpaceClassifier(epochs=20, batch_size=32, **options)
    search = SpaceSearchCV(estimator, {"inter": [0, 0.1]}, cv=GroupKFold(3))
    groups = np.arange(len(own)) % 7
    search.fit(own, labels, np.where(np.arange(len(own)) % 5 == 0, 0, 2.0), groups=groups)
    assert 0.3 < search.best_score_ <= 1 and not search.multimetric_
    assert search.fit(pd.Series(own), pd.Series(labels), groups=groups).score(own, labels) > 0.5
    inner = cross_val_score(SpaceSearchCV(estimator, {"latent": [2, 3]}, cv=3), own, labels, cv=2)
    assert inner.shape == (2,)


def test_what_the_search_refuses(reviews_, options):
    own, labels = reviews_
    with pytest.raises(ValueError, match="use GridSearchCV"):
        SpaceSearchCV(LogisticRegression(), {"C": [1]}).fit(own, labels)
    head = SpaceClassifier(**QUICK, **options)
    with pytest.raises(ValueError, match="latent"):
        SpaceSearchCV(head, {"latent": [2, 0]}).fit(own, labels)
    with pytest.raises(ValueError, match="validation_fraction"):
        SpaceSearchCV(head, {"validation_fraction": [0.1]}).fit(own, labels)
    with pytest.raises(ValueError, match="refit=True"):
        SpaceSearchCV(head, {"latent": [2]}, scoring=["accuracy", "f1_macro"]).fit(own, labels)
    ordered = np.sort(labels)
    with pytest.raises(ValueError, match="a fold's training examples all have one class"):
        SpaceSearchCV(head, {"latent": [2]}, cv=KFold(2)).fit(own, ordered)
    with pytest.raises(ValueError, match="members in each class"):
        SpaceSearchCV(head, {"latent": [2]}, cv=100).fit(own, labels)


# Bad input.


@pytest.mark.parametrize(
    ("X", "said"),
    [
        (pd.Series(["good film", float("nan"), "bad film", "a plot"]), r"X\[1\] is missing"),
        (pd.Series(["good film", None, "bad film", "a plot"]), r"X\[1\] is missing"),
        (["good film", pd.NA, "bad film", "a plot"], r"X\[1\] is missing"),
        (["good film", 3, "bad film", "a plot"], r"X\[1\] is no string but of the type int"),
        (["good film", " ", "bad film", "a plot"], r"X\[1\] is empty"),
        (["good film", "\ud800", "bad film", "a plot"], r"X\[1\] is not valid Unicode"),
        (np.array([["a", "b", "c"], ["d", "e", "f"]]), r"X has the shape \(2, 3\)"),
        ([("a", "b"), "c"], r"X\[1\] is no pair of texts"),
        ([("a", "b"), ("c", None)], r"X\[1\] is a pair whose second text is missing"),
        ([("a", "b", "c"), ("a", "b", "c")], "could not convert"),
        (np.array([[["a"]], [["b"]]]), r"X has the shape \(2, 1, 1\): give one text"),
        (pd.DataFrame({"text": ["a", None]}), r"X\[1\] is missing"),
        (pd.DataFrame({"text": [None, None]}), r"X\[0\] is missing \(None\)"),
        ([None], r"X\[0\] is missing \(None\): leave it out"),
        ([float("nan")], r"X\[0\] is missing \(nan\)"),
        (pd.Series([pd.NA]), r"X\[0\] is missing \(<NA>\)"),
        (pd.Series([float("nan")]), r"X\[0\] is missing \(nan\)"),
        (np.array([None, "a"]), r"X\[0\] is missing \(None\)"),
        ([5], r"X\[0\] is no string but of the type int: give strings"),
        (np.array([5]), r"X has the shape \(1,\): give strings, or a vector"),
        (pd.Series([], dtype=object), "X is empty"),
        ("good film", "a single text"),
        (iter(["good", "bad", "a", "b"]), "X is a list_iterator: give a list of texts"),
        ({"text": ["good", "bad"]}, "X is a dict: give a list of texts"),
        ([], "X is empty"),
        ([b"good", b"bad", b"a", b"b"], r"X\[0\] is no string but of the type bytes"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "differ in width"),
        ([np.zeros((2, 3)), np.zeros((0, 3))], r"X\[1\] has no token"),
        ([np.zeros((2, 3)), np.full((2, 3), np.nan)], "NaN"),
    ],
)  # fmt: skip
def test_bad_texts(X, said, options):
    y = [0, 1, 0, 1] if isinstance(X, str) or not hasattr(X, "__len__") else [0, 1, 0, 1][: len(X)]
    with pytest.raises((ValueError, TypeError), match=said) as caught:
        SpaceClassifier(**options).fit(X, y)
    assert "\n" not in str(caught.value) or "NaN" in said  # scikit-learn's own


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (None, "requires y"),
        ([0, 0, 0, 0], "one class"),
        ([0, 1, 0], "inconsistent"),
        ([0, 1, float("nan"), 1], "NaN"),
        ([0.5, 1.2, 0.1, 3.7], "[Uu]nknown label type"),
        (["a", None, "b", "a"], "y|NoneType"),
        ([[0, 2], [1, 0], [1, 1], [0, 0]], r"y has the shape \(4, 2\)"),
    ],
)
def test_bad_labels(y, said, options):
    with pytest.raises((ValueError, TypeError), match=said):
        SpaceClassifier(**options).fit(["a film", "bad", "good", "plot"], y)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1, 1, 1, -1], "[Nn]egative"),
        ([0, 0, 0, 0], "zero"),
        ([1, 0, 1, 0], "have one class: 0"),
        ([1, 1, 1], "shape"),
        ([1, 1, 1, float("nan")], "NaN"),
        (["a", 1, 1, 1], "could not convert"),
    ],
)
def test_bad_weights(weights, said, options):
    with pytest.raises(ValueError, match=said):
        SpaceClassifier(**options).fit(["a film", "bad", "good", "plot"], [0, 1, 0, 1], weights)


@pytest.mark.parametrize(
    "given",
    [
        {"latent": 0}, {"inter": -1}, {"epochs": "many"}, {"batch_size": 0}, {"schedule": "step"},
        {"class_weights": {0: 1}}, {"learning_rate": "fast"}, {"monitor": "speed"},
        {"validation_fraction": 2.0}, {"random_state": "one"}, {"ensemble": 0},
    ],
)  # fmt: skip
def test_bad_parameters(given, reviews_, options):
    own, labels = reviews_
    with pytest.raises(ValueError):
        SpaceClassifier(**given, **options).fit(own, labels)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"validation_fraction": 2}, "validation_fraction=2: give a number between 0 and 1, or N"),
        ({"validation_fraction": 0}, "validation_fraction=0: give a number between"),
        ({"validation_fraction": "a"}, "validation_fraction='a': give a number between"),
        ({"validation_fraction": True}, "validation_fraction=True: give a number between"),
        (
            {"validation_fraction": 0.001},
            "validation_fraction=0.001 holds out 1 of 120 examples: e",
        ),
        ({"validation_fraction": 0.999}, "validation_fraction=0.999 holds out 120 of 120 example"),
        ({"cache_dir": 5}, "cache_dir=5: give the path of a folder"),
        ({"progress": "x"}, "progress='x': give True, False or a function"),
        ({"backbone": 5}, "backbone=5: give a name or a path"),
        ({"random_state": -1}, "random_state=-1: give a whole number from 0"),
        ({"random_state": "one"}, "random_state='one': give a whole number from 0"),
        ({"max_length": "x"}, "max_length='x': give a whole number"),
        (
            {"monitor": "accuracy"},
            "monitor=accuracy needs a part .* to compare epochs on: give validation_fraction",
        ),
    ],
    ids=str,
)
def test_what_is_said_of_bad_parameters(given, said, reviews_, options):
    own, labels = reviews_
    for estimator in (SpaceClassifier(**{**options, **given}), FrozenEncoder(**options)):
        known = {name: value for name, value in given.items() if name in estimator.get_params()}
        estimator.set_params(**known)
        if known:
            with pytest.raises(ValueError, match=said) as caught:
                estimator.fit(own, labels)
            assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="progress=3: give True"):
        SpaceSearchCV(SpaceClassifier(**options), {"latent": [2]}, progress=3).fit(own, labels)
    labels = ["other", *labels[1:]]
    with pytest.raises(ValueError, match="label other has a single example"):
        SpaceClassifier(validation_fraction=0.1, **options).fit(own, labels)


def test_labels_that_were_not_seen_count_as_errors(reviews_, options):
    own, labels = reviews_
    found = TfidfClassifier(**options).fit(own, labels)
    assert found.score(own[:4], ["other"] * 4) == 0


def test_bad_backbones_and_poolings(reviews_, options, tmp_path):
    own, labels = reviews_
    message = refusal(SpaceClassifier(backbone=str(tmp_path / "none")).fit, own, labels)
    assert "there is no backbone folder" in message
    with pytest.raises(ValueError, match="pooling=median"):
        FrozenEncoder(pooling="median", **options).fit_transform(own)
    with pytest.raises(ValueError, match="FrozenEncoder needs texts"):
        FrozenEncoder(**options).fit(np.zeros((3, 2)))
    assert "layer=9" in refusal(FrozenEncoder(layer=9, **options).transform, own)


def test_a_column_of_a_frame_is_transformed(reviews_, options):
    own, _ = reviews_
    frame = pd.DataFrame({"text": own, "other": range(len(own))})
    both = make_column_transformer((FrozenEncoder(**options), ["text"]), ("passthrough", ["other"]))
    found = both.fit_transform(frame)
    np.testing.assert_array_equal(found[:, :-1], FrozenEncoder(**options).transform(own))


def test_names_of_features(options):
    names = FrozenEncoder(**options).get_feature_names_out()
    assert len(names) == 16 and names[0] == "frozenencoder0"
    frame = FrozenEncoder(**options).set_output(transform="pandas").fit_transform(["a film"])
    assert list(frame.columns) == list(names)


def test_nothing_unexpected_is_needed_to_check_arrays():
    """`check_array` is what hidden states are read with."""
    assert check_array([[1.0]]).shape == (1, 1)
