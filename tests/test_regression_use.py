"""Heads of numbers in use: predict, explain, serve, and the scikit-learn regressors."""

import csv
import json
import pickle

import jsonschema
import numpy as np
import pandas as pd
import processes
import pytest
from conftest import WORDS, invoke, refusal
from sklearn.base import clone, is_regressor
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from starlette.testclient import TestClient

import spacelite
from spacelite import (
    AdditiveRegressor,
    FrozenEncoder,
    LinearRegressor,
    RidgeRegressor,
    SpaceClassifier,
    SpaceRegressor,
    SpaceSearchCV,
    TfidfRegressor,
)
from spacelite.cache.store import Cache
from spacelite.export import serve
from spacelite.export.serve import Limits, RunModel, Service
from spacelite.runs import store

WORTH = dict(zip(WORDS[:8], (1.9, 1.1, 0.6, 0.3, -0.4, -0.8, -1.3, -1.7), strict=True))


def products(count=160, seed=0):
    """Reviews of products and their ratings, such as 3.7: (texts, ratings)."""
    random = np.random.default_rng(seed)
    own = [" ".join(random.choice(WORDS, random.integers(3, 12))) for _ in range(count)]
    worth = [np.mean([WORTH.get(word, 0) for word in text.split()]) for text in own]
    return own, np.round(3.2 + 1.5 * np.array(worth) + random.normal(0, 0.05, count), 1)


@pytest.fixture(scope="module")
def options(bert, tmp_path_factory):
    """Where the tiny backbone is, and a folder of caches and runs."""
    return {"backbone": str(bert), "cache_dir": tmp_path_factory.mktemp("numbers")}


@pytest.fixture(scope="module")
def runs(options):
    """A run of each kind of head that explains itself, by the name of its head."""
    own, ratings = products()
    frame = pd.DataFrame({"review": own, "rating": ratings})
    cache = spacelite.embed(frame, label_column="rating", progress=False, **options)
    quick, found = {"epochs": 3, "batch_size": 32, "learning_rate": 0.02}, {}
    for head, settings in {
        "linear": {"pooling": "mean", **quick}, "space": {"latent": 3, **quick},
        "ridge": {"pooling": "mean"}, "tfidf": {},
        "additive": {"blocks": "layers+ngrams+space", **quick},
    }.items():  # fmt: skip
        (found[head],) = spacelite.train(
            cache, head=head, baselines=False, progress=False, **settings
        )
    return found


@pytest.fixture
def command(options):
    def run(*words, code=0):
        result = invoke(*words, "--cache-dir", options["cache_dir"])
        assert result.exit_code == code, result.output
        return result

    return run


def test_predictions_are_numbers(runs, command, tmp_path):
    """In every form, with all digits where programs read them, and without probabilities."""
    run = runs["ridge"]
    own, ratings = products(30, seed=1)
    found = run.predict(own, progress=False)
    values = found.probabilities[:, 0]
    assert np.corrcoef(values, ratings)[0, 1] > 0.5 and abs(values.mean() - 3.2) < 0.3
    assert found[0] == {"text": own[0], "value": values[0], "unknown": found[0]["unknown"]}
    frame = found.to_frame()
    assert list(frame.columns) == ["text", "value", "unknown"]
    assert frame["value"].dtype == float and frame["value"].tolist() == values.tolist()
    assert "rating" in str(found) and f"{values[0]:.6g}" in str(found)
    summary = f"{values.min():.6g} to {values.max():.6g}, mean {values.mean():.6g}"
    assert (
        f"<rating of 30 texts: {summary}" in repr(found)
        and "probability" not in found._repr_html_().lower()
    )
    file = tmp_path / "new.csv"
    with file.open("w", newline="") as opened:  # a column of the file has the result's name
        rows = [("value", "review"), *((f"v{n}", text) for n, text in enumerate(own))]
        csv.writer(opened).writerows(rows)
    for form in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"out.{form}"
        said = command("predict", run.id, "--file", file, "--out", out).stdout
        assert f"rating of 30 texts, written to {out}: {summary}" in " ".join(said.split())
        table = {
            "csv": pd.read_csv, "parquet": pd.read_parquet,
            "jsonl": lambda path: pd.read_json(path, lines=True),
        }[form](out)  # fmt: skip
        assert list(table.columns) == ["value", "review", "predicted_value", "unknown"]
        assert table["predicted_value"].to_numpy() == pytest.approx(values, rel=1e-5)
    done = json.loads(
        command("predict", run.id, "--file", file, "--out", tmp_path / "o.tsv", "--json").stdout
    )
    assert done["values"] == pytest.approx(
        {"least": values.min(), "most": values.max(), "mean": values.mean()}
    )
    assert "labels" not in done and "undecided" not in done
    printed = json.loads(command("predict", run.id, own[0], "--json").stdout)
    assert printed[0].keys() == {"text", "value", "unknown"}
    assert printed[0]["value"] == pytest.approx(values[0], rel=1e-6)
    assert command("predict", run.id, own[0], "--csv").stdout.startswith("text,value,unknown\n")


def test_what_needs_probabilities_is_refused(runs, command, tmp_path):
    run = runs["tfidf"]
    for words in (
        ("predict", run.id, "a film", "--min-probability", 0.5),
        ("predict", run.id, "a film", "--threshold", "precision=0.9"),
        ("runs", "show", run.id, "--threshold", "accuracy=0.9"),
    ):
        said = command(*words, code=1).stderr
        assert "which predicts numbers: they have neither labels" in " ".join(said.split())
        assert "bug" not in said
    assert "threshold=accuracy=0.9 has no effect on run" in refusal(run.threshold, accuracy=0.9)
    out = tmp_path / "exported"
    said = f"run {run.id} predicts numbers, which no export does: use predict or serve"
    assert refusal(run.export, "onnx", out) == said and not out.exists()
    shown = command("runs", "show", run.id).stdout
    assert "RMSE" in shown and "Loss" not in shown  # of a head that has none


def by_hand(run, hidden):
    """What each token (n, d) adds to a number, (n,), and the bias, in float64."""
    values = {name: value.astype(np.float64) for name, value in run.run.parameters.items()}
    weight, bias = values["classifier.weight"][0], values["classifier.bias"][0]
    inputs = hidden.astype(np.float64)
    if "concept_spaces" in values:
        inputs = np.tanh(inputs @ values["concept_spaces"][0].T)
    return inputs @ weight / len(inputs), bias


@pytest.mark.parametrize("head", ["linear", "space", "ridge", "tfidf", "additive"])
def test_shares_add_up_to_the_number(head, runs, options):
    run = runs[head]
    explained = run.explain(example="validation:3", progress=False, backbone=options["backbone"])
    result = explained.explanation
    number = run.run.predictions(split="validation").logits[3, 0]
    shares = np.array([word.contributions[0] for word in result.words])
    assert result.number == pytest.approx(number, rel=1e-4) and 1.5 < number < 5
    assert result.bias[0] + shares.sum() == pytest.approx(number, rel=1e-4)
    assert [share for _, share in explained.words] == shares.tolist()  # not less any mean
    with Cache(store.find_cache(run.run, options["cache_dir"])) as cache:
        split = cache.splits["validation"]
        assert result.example == [f"{split.labels[3]:.6g}"]
        hidden = split.read_hidden(3, 4)
    if head in ("linear", "space", "ridge"):
        expected, bias = by_hand(run, hidden)
        assert result.bias == pytest.approx([bias], rel=1e-6)
        of_words = [expected[word.tokens].sum() for word in result.words]
        assert shares == pytest.approx(of_words, rel=1e-6, abs=1e-9)
        assert len(result.spaces) == (head == "space")
    else:
        assert np.abs(shares).max() > 0.01


def test_explanations_speak_of_the_number(runs, command, options, tmp_path):
    run, page = runs["space"], tmp_path / "page.html"
    text = "loved the film but a boring plot"
    (number,) = run.predict([text], progress=False).probabilities[0]
    shown = command("explain", run.id, text, "--html", page)
    explained = run.explain(text, progress=False)
    found = [shown.stdout, page.read_text(), str(explained)]
    found += [repr(explained), explained._repr_html_()]
    for each in found:
        assert f"rating {number:.6g}" in each
        plain = each.partition("</style>")[2] or each
        for word in ("probability", "logit", " label", " against "):
            assert word not in plain.partition("<script")[0].lower(), word
    for part in ("adds to rating", "prediction", "what the word adds to the predicted rating"):
        assert part in shown.stdout
    assert "words that raise and lower rating" in found[2] and "Labelled" not in found[1]
    content = json.loads(command("explain", run.id, text, "--json").stdout)
    assert not content.keys() & {"label", "labels", "explained", "probabilities", "logits"}
    total = sum(content["bias"]) + sum(word["contributions"][0] for word in content["words"])
    assert content["value"] == pytest.approx(number) == pytest.approx(total, rel=1e-5)
    for label in ("rating", "good"):
        said = " ".join(command("explain", run.id, text, "--label", label, code=1).stderr.split())
        assert f"--label {label} has no effect on run {run.id}, which predicts numbers" in said


# The scikit-learn regressors.

REGRESSORS = {
    "linear": LinearRegressor, "space": SpaceRegressor, "additive": AdditiveRegressor,
    "ridge": RidgeRegressor, "tfidf": TfidfRegressor,
}  # fmt: skip


def test_ridge_is_that_of_scikit_learn(options):
    own, ratings = products()
    weights = np.arange(len(own)) % 3 / 2
    given = {"dtype": "float32", **options}
    found = RidgeRegressor(C=0.1, **given).fit(own, ratings, weights)
    kept = np.flatnonzero(weights)
    vectors = FrozenEncoder(**given).transform(own).astype(np.float64)
    model = Ridge(alpha=10).fit(vectors[kept], ratings[kept], weights[kept])
    predicted = found.predict(own)
    assert predicted.dtype == np.float64 and predicted.shape == (160,)
    assert predicted == pytest.approx(model.predict(vectors), rel=1e-4)
    assert found.score(own, ratings) == pytest.approx(r2_score(ratings, predicted))


@pytest.mark.parametrize("name", REGRESSORS)
def test_as_embed_and_train(name, options, tmp_path):
    own, ratings = products()
    quick = {"epochs": 4, "batch_size": 32, "learning_rate": 0.02}
    settings = {
        "linear": {"pooling": "mean", **quick}, "space": quick, "ridge": {"pooling": "mean"},
        "additive": {"blocks": "layers+ngrams+space", "loss": "huber", **quick}, "tfidf": {},
    }[name]  # fmt: skip
    found = clone(REGRESSORS[name](**settings, **options)).fit(own, ratings)
    cache = spacelite.embed(
        {"train": (own, list(ratings)), "validation": (own[:20], list(ratings[:20]))},
        backbone=options["backbone"], cache_dir=tmp_path, progress=False,
    )  # fmt: skip
    (run,) = spacelite.train(cache, head=name, baselines=False, progress=False, **settings)
    expected = run.predict(own, progress=False).probabilities[:, 0]
    assert found.predict(own) == pytest.approx(expected, abs=2e-3)
    same = pickle.loads(pickle.dumps(found)).explain(own[0]).explanation
    assert same.number == pytest.approx(expected[0], abs=2e-3) and same.labels == ["y"]
    assert same.shares.sum() + same.bias[0] == pytest.approx(same.number, rel=1e-5)


def test_regressors_in_pipelines_and_searches(options):
    own, ratings = products()
    named = pd.Series(ratings, name="rating")
    head = SpaceRegressor(epochs=3, batch_size=1000, learning_rate=0.02, **options)
    grid = {"latent": [2, 3], "loss": ["squared", "huber"]}
    how = {"cv": 3, "scoring": ["r2", "neg_mean_absolute_error"], "refit": "r2"}
    found = SpaceSearchCV(head, grid, **how).fit(own, named)
    expected = GridSearchCV(head, grid, **how).fit(own, named)
    for metric in how["scoring"]:
        of = f"mean_test_{metric}"
        assert found.cv_results_[of] == pytest.approx(expected.cv_results_[of], abs=5e-3)
    assert is_regressor(found) and not hasattr(found, "classes_")
    assert found.predict(own[:3]) == pytest.approx(expected.predict(own[:3]), abs=1e-3)
    assert "rating" in repr(found.explain(own[0]))
    plain = SpaceSearchCV(RidgeRegressor(**options), {"C": [1e-3, 1.0]}, cv=3).fit(own, ratings)
    assert plain.score(own, ratings) == pytest.approx(r2_score(ratings, plain.predict(own)))
    model = make_pipeline(FunctionTransformer(lambda X: X), TfidfRegressor(**options))
    scores = cross_val_score(model, own, ratings, cv=3)  # R2
    assert scores.min() > 0.3
    own, ratings = products(120, seed=4)
    held = SpaceRegressor(validation_fraction=0.2, patience=2, epochs=6, batch_size=16, **options)
    history = held.fit(own, ratings).history_
    assert all(entry["validation"]["rmse"] > 0 for entry in history)


@pytest.mark.parametrize(
    ("y", "said"),
    [
        ([3.5, 3.5, 3.5, 3.5], "RidgeRegressor needs two different numbers, and y has one number"),
        ([1.0, float("nan"), 2.0, 3.0], "Input y contains NaN"),
        ([1.0, float("inf"), 2.0, 3.0], "Input y contains infinity"),
        (["good", "bad", "good", "bad"], "could not convert string to float"),
        (np.ones((4, 2)), r"y should be a 1d array"),
        ([1.0, 2.0, 3.0], "inconsistent"),
        (None, "requires y"),
    ],
)
def test_bad_numbers(y, said, options):
    with pytest.raises(ValueError, match=said):
        RidgeRegressor(**options).fit(["a film", "bad", "good", "plot"], y)


def test_what_regressors_refuse(options):
    own, ratings = products(40)
    for given in ({"loss": "absolute"}, {"monitor": "accuracy1"}, {"latent": 0}):
        with pytest.raises(ValueError, match=next(iter(given))):
            SpaceRegressor(validation_fraction=0.2, **given, **options).fit(own, ratings)
    with pytest.raises(ValueError, match="two different numbers, and those with a weight above"):
        RidgeRegressor(**options).fit(own, ratings, [1.0] + [0.0] * 39)
    with pytest.raises(ValueError, match="training examples all have one number"):
        SpaceSearchCV(RidgeRegressor(**options), {"C": [1.0]}, cv=KFold(2)).fit(
            own, [1.0] * 20 + [2.0] * 20
        )
    assert set(SpaceClassifier().get_params()) - set(SpaceRegressor().get_params()) == {
        "class_weights", "inter",
    }  # fmt: skip


def test_numbers_are_served(runs):
    run = runs["additive"]
    own, _ = products(5, seed=2)
    expected = run.predict(own, progress=False).probabilities[:, 0]
    service = Service(RunModel(run.run, run.decides, device="cpu"), Limits())
    schemas = serve.openapi(Limits())["components"]
    with TestClient(service.app) as client:
        processes.until(lambda: service.worker.ready)
        answer = client.post("/predict", json={"texts": own, "explain": True}).json()
        about = client.get("/labels").json()
        asked = {"min_probability": 0.5}, {"threshold": "accuracy=0.9"}
        refused = [client.post("/predict", json={"text": "a film", **more}) for more in asked]
    for name, content in (("Predictions", answer), ("About", about)):
        of = {"$ref": f"#/components/schemas/{name}", "components": schemas}
        jsonschema.validate(content, of)
    for number, found in zip(expected, answer["predictions"], strict=True):
        assert found["value"] == pytest.approx(number, rel=1e-5) and "probabilities" not in found
        parts = found["explanation"]
        total = parts["bias"]["rating"] + sum(word["shares"]["rating"] for word in parts["words"])
        assert total == pytest.approx(parts["prediction"]["rating"], rel=1e-5)
        assert total == pytest.approx(number, rel=1e-4)
    assert (about["task"], about["labels"]) == ("regression", ["rating"])
    for response, name in zip(refused, ("min_probability", "threshold"), strict=True):
        assert response.status_code == 400
        assert f"{name}=" in response.json()["error"] and "\n" not in response.json()["error"]
