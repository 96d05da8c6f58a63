"""Labels that are numbers, from a csv file to a report."""

import csv
import json

import numpy as np
import pytest
import torch
from conftest import in_memory, invoke, refusal
from scipy import stats
from scipy.sparse import csr_array
from sklearn import metrics as sk
from sklearn.linear_model import Ridge

import spacelite
from spacelite import files, heads
from spacelite.cache.store import Cache
from spacelite.data import loading
from spacelite.heads import logistic
from spacelite.heads.base import Objective
from spacelite.tasks import ORDINAL, REGRESSION
from spacelite.tasks.base import Unit
from spacelite.tasks.regression import Numbers, sums_of
from spacelite.training import engine, loop
from spacelite.training.batches import ArrayData, TokenSplit
from spacelite.training.config import TrainingConfig

WORTH = {"good": 1.0, "great": 2.0, "loved": 1.5, "fine": 0.5, "bad": -1.0, "boring": -1.5,
         "dull": -1.0, "hated": -2.0}  # fmt: skip
OTHERS = [
    "a",
    "an",
    "and",
    "but",
    "film",
    "the",
    "plot",
    "scene",
    "story",
    "was",
    "well",
    "acted",
    "very",
]


def reviews(count=300, seed=0):
    """Reviews whose score, in a unit and around a mean of its own, depends on their words."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        words = random.choice([*OTHERS, *WORTH], random.integers(4, 16)).tolist()
        worth = np.mean([WORTH.get(word, 0) for word in words])
        rows.append((" ".join(words), round(250 + 40 * worth + random.normal(0, 2), 2)))
    return rows


def write(path, rows, heading=("text", "score")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([heading, *rows])
    return path


@pytest.fixture(scope="module")
def there(bert, tmp_path_factory):
    """A folder of caches with a cache of reviews, embedded from a csv file by the command line."""
    folder = tmp_path_factory.mktemp("regression")
    path = write(folder / "reviews.csv", reviews())
    result = invoke(
        "embed", "--backbone", bert, "--dataset", path, "--test-fraction", "0.2",
        "--dtype", "float32", "--device", "cpu", "--cache-dir", folder / "cache",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "are numbers, which heads learn to predict (--task regression)" in result.stderr
    assert "score (train): " in result.stdout and ", standard deviation " in result.stdout
    return folder / "cache"


@pytest.fixture(scope="module")
def cache(there):
    (path,) = (there / "embeddings").glob("*.h5")
    with Cache(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def ridge(there, cache):
    """A run of ridge regression on the mean, with C = 0.1."""
    (run,) = spacelite.train(
        cache.path, cache_dir=there, head="ridge", pooling="mean", C=0.1, progress=False
    )
    return run


def figures_of(labels, predicted):
    return {
        "mse": sk.mean_squared_error(labels, predicted),
        "rmse": sk.root_mean_squared_error(labels, predicted),
        "mae": sk.mean_absolute_error(labels, predicted),
        "r2": sk.r2_score(labels, predicted),
        "pearson": stats.pearsonr(labels, predicted).statistic,
        "spearman": stats.spearmanr(labels, predicted).statistic,
    }


def test_a_cache_holds_the_numbers(cache):
    known = dict(reviews())
    spec = cache.spec.as_json()
    assert (spec["task"], spec["label_names"]) == ("regression", ["score"])
    assert cache.task is REGRESSION
    labels = np.concatenate([split.labels for split in cache.splits.values()])
    assert labels.dtype == np.float64
    assert sorted(labels) == sorted(score for _, score in reviews()) and len(known) == 300


def test_metrics_equal_scikit_learn_and_scipy():
    random = np.random.default_rng(1)
    labels = random.normal(2000, 3, 200).round(1)  # far from 0, with ties
    predicted = labels + random.normal(0, 2, 200).round(1)
    scores = REGRESSION.scores(
        0.0, 0.0, 0.0, REGRESSION.confusion(labels, predicted, 1), labels, predicted[:, None]
    )
    expected = figures_of(labels, predicted)
    assert {name: scores[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    weights = torch.from_numpy(random.integers(0, 3, (1, 200)).astype(float))
    tensors = (torch.from_numpy(values) for values in (predicted[None, :, None], labels))
    logits, y = tensors
    _, sums = REGRESSION.count(logits, y, y[:, None], weights)
    of = Numbers(0.0, sums[0].numpy())
    repeated = np.repeat(np.arange(200), weights[0].long().numpy())
    expected = figures_of(labels[repeated], predicted[repeated])
    assert of.mse == pytest.approx(expected["mse"], rel=1e-9)
    assert of.r2 == pytest.approx(expected["r2"], rel=1e-6)
    assert of.pearson == pytest.approx(expected["pearson"], rel=1e-6)
    same = Numbers(0.0, sums_of(labels, np.full(200, 7.0)), labels, np.full(200, 7.0))
    assert same.pearson is None and same.spearman is None and same.r2 < 0
    hardly = labels.mean() + 1e-9 * (labels - labels.mean())
    assert Numbers(0.0, sums_of(labels, hardly)).pearson == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("loss", ["squared", "huber"])
@pytest.mark.parametrize(
    "config",
    [
        heads.config("linear", pooling="mean"),
        heads.config("mlp", pooling="mean"),
        heads.config("space", latent=4, intra=0.001),
    ],
    ids=lambda config: config.kind,
)
def test_gradients_equal_autograd(config, loss, cache):
    """In float64, of heads that give the examples weights, in the unit of each."""
    split = TokenSplit(in_memory(cache.splits["train"], np.arange(24)))
    labels = split.labels
    task = REGRESSION.losses[loss]
    objective = Objective(task, 1)
    parameters = heads.kind(config.kind).initial(config, 1, split.width)
    stack = engine.stacked({config: parameters}, objective, "cpu")[0]
    weights = torch.linspace(0.2, 2.0, 24)[None]
    stack.sample_weights = weights
    stack.unit = task.unit(labels, [weights[0]])
    mean = (weights[0].double() @ labels) / weights.double().sum()
    deviation = torch.sqrt(weights[0].double() @ (labels - mean) ** 2 / weights.double().sum())
    assert torch.allclose(torch.stack([*stack.unit]).flatten(), torch.stack([mean, deviation]))
    rows = np.arange(24)
    batch = engine.batch_of(split, rows, objective)
    torch.manual_seed(0)
    # A dropout rate of 0: the same forward pass without it.
    kind = type(stack)
    with pytest.MonkeyPatch.context() as patch:
        if config.kind == "mlp":
            patch.setattr(kind, "dropout", 0.0)
        engine.run_batch(split, [stack], rows, batch, engine.Workers(), (1, 0))
    leaves = {name: value.double().requires_grad_() for name, value in parameters.items()}
    hidden = torch.from_numpy(cache.splits["train"].read_hidden(0, 24)).double()
    lengths = split.lengths.tolist()
    texts = hidden.split(lengths)
    if config.kind == "space":
        coordinates = [torch.tanh(text @ leaves["concept_spaces"][0].T) for text in texts]
        inputs = torch.stack([part.mean(dim=0) for part in coordinates])
    else:
        inputs = torch.stack([text.mean(dim=0) for text in texts])
        if config.kind == "mlp":
            weight, bias = (leaves[f"pre_classifier.{part}"] for part in ("weight", "bias"))
            inputs = torch.relu(inputs @ weight.T + bias)
    output = (inputs @ leaves["classifier.weight"].T + leaves["classifier.bias"])[:, 0]
    target = (labels - mean) / deviation
    terms = (output - target) ** 2
    if loss == "huber":
        terms = 2 * torch.nn.functional.huber_loss(output, target, reduction="none")
    value = (weights[0] * terms).sum() / weights.sum()
    if config.kind == "space":
        of_texts = torch.stack([(1 / (part.var(dim=0) + 1e-9)).sum() for part in coordinates])
        value = value + config.intra * (weights[0] * of_texts).sum() / weights.sum()
    value.backward()
    assert float(stack.losses()[0][0]) == pytest.approx(float(value.detach()), rel=1e-5)
    for name, leaf in leaves.items():
        expected = leaf.grad.float()
        assert torch.allclose(stack.gradients[name][0], expected, rtol=1e-3, atol=1e-5), name


def test_ridge_equals_scikit_learn(ridge, cache):
    train, test = cache.splits["train"], cache.splits["test"]
    vectors = {
        name: np.stack([part.mean(axis=0) for part in np.split(
            split.read_hidden(0, len(split)).astype(np.float64), split.offsets[1:-1]
        )])
        for name, split in (("train", train), ("test", test))
    }  # fmt: skip
    model = Ridge(alpha=10).fit(vectors["train"], train.labels)
    predictions = ridge.run.predictions()
    assert predictions.logits[:, 0] == pytest.approx(model.predict(vectors["test"]), rel=1e-5)
    expected = figures_of(test.labels, predictions.logits[:, 0].astype(np.float64))
    assert {k: ridge.metrics["test"][k] for k in expected} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dense", [True, False])
def test_ridge_with_weights_and_held_out_logits_equals_scikit_learn(dense):
    random = np.random.default_rng(2)
    inputs = random.normal(size=(200, 12)) * (random.random((200, 12)) < 0.4)
    labels = 1e4 + inputs @ random.normal(size=12) + random.normal(0, 0.5, 200)
    weights = random.integers(0, 4, 200).astype(float)
    problems = logistic.Problems(REGRESSION.problems(labels, 1), 1, weights=weights)
    features = inputs if dense else csr_array(inputs)
    fit = logistic.fit(features, problems, 0.5)
    model = Ridge(alpha=2.0, tol=1e-10).fit(inputs, labels, sample_weight=weights)
    assert fit.weight[0] == pytest.approx(model.coef_, rel=1e-3, abs=1e-4)
    assert fit.bias[0] == pytest.approx(model.intercept_, rel=1e-6)
    crossed = logistic.cross_fit(features, problems, (0.05, 0.5, 5.0, 50.0))
    alpha, fold = 1 / crossed.strength, logistic.folds(labels[:, None], logistic.FOLDS)
    for number in range(logistic.FOLDS):
        held = fold == number
        model = Ridge(alpha=alpha).fit(inputs[~held], labels[~held], sample_weight=weights[~held])
        # The search stops where the error hardly falls.
        assert crossed.held[held, 0] == pytest.approx(model.predict(inputs[held]), abs=0.05)


def test_from_training_to_report(there, cache, bert, with_baselines):
    """Trained heads predict in the unit of the labels, better than the mean, and reports say so."""
    labels = cache.splits["test"].labels
    done = invoke(
        "train", "--head", "linear,space,mlp,additive", "--pooling", "mean", "--epochs", "20",
        "--blocks", "layers+ngrams+space",
        "--batch-size", "32", "--lr", "0.02", "--seeds", "2", "--patience", "20",
        "--cache-dir", there, "--cache", cache.name,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    mean = cache.splits["train"].labels.mean()
    rmse, mae = (
        of(labels, np.full(len(labels), mean))
        for of in (sk.root_mean_squared_error, sk.mean_absolute_error)
    )
    note = (
        f"Always predicting {mean:.6g}, the mean of training, gives RMSE {rmse:.2f} and MAE "
        f"{mae:.3f} on test."
    )
    assert note in " ".join(done.stdout.split())
    listed = invoke("runs", "list", "--cache-dir", there, "--json")
    rows = [row for row in json.loads(listed.stdout) if row["settings"].get("C") != 0.1]
    assert {row["head"] for row in rows} == {"linear", "space", "mlp", "additive", "ridge", "tfidf"}
    for row in rows:
        run = spacelite.load_run(row["id"], there)
        logits = run.run.predictions().logits[:, 0].astype(np.float64)
        expected = figures_of(labels, logits)
        found = {name: run.metrics["test"][name] for name in expected}
        assert found == pytest.approx(expected, rel=1e-6) and found["rmse"] < rmse
        assert not run.run.problems()
        history = run.run.history()
        if history:  # in the unit of the labels, by the best epoch, which RMSE chose
            best = min(history, key=lambda entry: entry["validation"]["rmse"])
            assert best["epoch"] == run.record.best_epoch
            assert best["validation"]["rmse"] == pytest.approx(
                run.metrics["validation"]["rmse"], rel=1e-3
            )
            assert 0 < history[-1]["train"]["mae"] < 60
            of = run.record.settings
            assert (of["monitor"], of["loss"]) == ("rmse", "squared")
    report = ["report", "--cache-dir", str(there)]
    shown = invoke(*report, env={"COLUMNS": "160"})
    text = " ".join(shown.stdout.split())
    assert shown.exit_code == 0 and "RMSE" in text and note in text
    for sentence in ("No head beats the best baseline", " in RMSE (95% interval", " in MAE (95%"):
        assert sentence in text
    whole = invoke(*report, "--format", "markdown", "--backbone", bert)
    assert whole.exit_code == 0, whole.output
    assert "Which labels are confused" not in whole.stdout and "accuracy" not in whole.stdout
    for part in ("How sure the figures are", "Curves", "raise and lower the pred", "largest err"):
        assert part in whole.stdout


def test_training_does_not_depend_on_the_unit(cache):
    """Labels in another unit give the same predictions in it, and each head of a fold is the head
    that it would be alone."""
    rows = {name: in_memory(cache.splits[name]) for name in ("train", "validation")}
    config = heads.config("space", learning_rate=0.02)
    training = TrainingConfig(epochs=3, batch_size=32, monitor="rmse")
    predicted = []
    for factor, shift in ((1.0, 0.0), (-0.001, 7.0)):
        moved = {
            name: type(split)(**{**vars(split), "labels": split.labels * factor + shift})
            for name, split in rows.items()
        }
        data = ArrayData(moved, ["score"], 0, "regression")
        (head,) = loop.train(data, [config], training)
        predicted.append((head.logits["validation"].numpy() - shift) / factor)
    # Adam's signs: a negative factor mirrors the classifier, not the rest.
    assert predicted[0].std() > 1
    for factor in (0.001,):
        moved = {
            name: type(split)(**{**vars(split), "labels": split.labels * factor})
            for name, split in rows.items()
        }
        (head,) = loop.train(ArrayData(moved, ["score"], 0, "regression"), [config], training)
        same = head.logits["validation"].numpy() / factor
        assert same == pytest.approx(predicted[0], rel=1e-4)
    weights = np.ones(len(rows["train"])), np.arange(len(rows["train"])) % 3 / 2
    data = ArrayData(rows, ["score"], 0, "regression")
    members = [loop.Member(config, of) for of in weights]
    together = loop.train_weighted(data, members, training)
    for member, learned in zip(members, together, strict=True):
        (alone,) = loop.train_weighted(data, [member], training)
        assert learned.logits == pytest.approx(alone.logits, rel=1e-4)


def test_a_unit_is_restored():
    unit = Unit(torch.tensor([5.0, 2.0]).double(), torch.tensor([2.0, 0.5]).double())
    labels = torch.tensor([1.0, 9.0]).double()
    standard = unit.standardised(labels)
    assert standard.tolist() == [[[-2], [2]], [[-2], [14]]]
    assert unit.restored(standard).tolist() == [[[1], [9]], [[1], [9]]]


def test_cross_validation_and_curves(there, cache):
    """They rank and compare by the RMSE, on the folds that are said; lower is better."""
    how = {"cache_dir": there, "epochs": 20, "batch_size": 32, "learning_rate": 0.02,
           "pooling": "mean", "device": "cpu", "progress": False}  # fmt: skip
    cv = spacelite.cross_validate(cache.path, head=["linear", "ridge", "tfidf"], folds=3, **how)
    figures = cv.figures()
    means = [values.mean() for values in figures.values()]
    assert len(means) == 3 and means == sorted(means)
    labels, result = cache.splits["train"].labels, cv.result
    for name, system in result.named.items():
        for number in range(3):
            held = result.fold[0] == number
            error = sk.root_mean_squared_error(labels[held], system.logits[0, held, 0])
            assert figures[name][0, number] == pytest.approx(error, rel=1e-5)
    # Stratified by quantiles: the folds have nearly the same mean.
    of_folds = [labels[result.fold[0] == number].mean() for number in range(3)]
    assert np.ptp(of_folds) < labels.std() / 5
    text = str(cv)
    assert "RMSE minus that of" in text and "in RMSE" in text and "accuracy" not in text
    content = json.loads(json.dumps(result.as_json()))
    assert type(result).from_json(content).task is REGRESSION
    curve = spacelite.learning_curve(
        cache.path, cache_dir=there, head="ridge", pooling="mean", device="cpu", progress=False,
        sizes=[20, 40, 80, 160, "all"], seeds=3,
    )  # fmt: skip
    rmse = curve.figures("rmse")["ridge (mean)"].mean(axis=1)
    assert rmse[-1] < rmse[0]
    said = str(curve)
    assert "RMSE on" in said and "accuracy" not in said
    assert "choose from rmse, mae, r2" in refusal(
        spacelite.learning_curve, cache.path, cache_dir=there, metric="auroc", progress=False
    )


def test_stars_are_read_both_ways(bert, tmp_path):
    """Ordinal labels: the metrics of numbers, and those of whole numbers, by scikit-learn."""
    rows = [(text, min(5, max(1, round((score - 200) / 20)))) for text, score in reviews(240, 3)]
    data = spacelite.embed(
        str(write(tmp_path / "stars.csv", rows, ("text", "stars"))), backbone=str(bert),
        task="ordinal", test_fraction=0.3, cache_dir=tmp_path, device="cpu", progress=False,
    )  # fmt: skip
    runs = spacelite.train(
        data, head=["ridge", "linear"], pooling="mean", loss="huber", epochs=20, batch_size=32,
        learning_rate=0.02, patience=20, progress=False,
    )  # fmt: skip
    for run in runs:
        assert run.record.task.name == "ordinal" and run.record.spec.task == "ordinal"
        predictions = run.run.predictions()
        labels, numbers = predictions.labels, predictions.logits[:, 0].astype(np.float64)
        nearest = np.clip(np.round(numbers), 1, 5)
        expected = figures_of(labels, numbers) | {
            "rounded_accuracy": sk.accuracy_score(labels, nearest),
            "within_one": float((np.abs(labels - nearest) <= 1).mean()),
            "kappa": sk.cohen_kappa_score(labels, nearest, weights="quadratic"),
        }
        found = run.metrics["test"]
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    # Which labels the data have tells nothing: 2.9 is no 1, even where the others are all 5.
    ends = ORDINAL.scores(0, 0, 0, None, np.array([1.0, 5.0]), np.array([[2.9], [3.2]]))
    assert (ends["rounded_accuracy"], ends["within_one"]) == (0, 0)
    with data.open() as opened:
        most = stats.mode(opened.splits["train"].labels).mode
    assert f"; {most:g}, the most frequent label, is right for 0." in runs.baseline
    assert "Kappa" in str(runs)
    halves = [(text, stars / 2) for text, stars in rows]
    said = refusal(loading.read, str(write(tmp_path / "halves.csv", halves)), task="ordinal")
    assert "which is no whole number" in said


def test_what_needs_classes_is_refused(there, cache, ridge):
    for command in (
        ["audit", "--cache", cache.name],
        ["export", ridge.id, "--to", "onnx", "--out", str(there / "exported")],
        ["push", ridge.id, "me/there"],
        ["runs", "show", ridge.id, "--threshold", "score=0.5"],
        ["eval", ridge.id, "--dataset", "demo"],
    ):
        result = invoke(*command, "--cache-dir", there)
        assert result.exit_code == 1 and result.stderr.startswith("error: "), result.output
        assert "this is a bug" not in result.stderr and result.stderr.count("\n") == 1
    mapped = ["eval", ridge.id, "--dataset", str(there.parent / "reviews.csv"), "--map", "a=b"]
    result = invoke(*mapped, "--cache-dir", there)
    assert "its labels are numbers, and --map" in result.stderr, result.stderr


def test_cache_info_says_where_numbers_lie(there, cache):
    command = ["cache", "info", cache.name, "--cache-dir", str(there)]
    labels = cache.splits["validation"].labels
    said = invoke(*command, terminal_width=200).stdout
    assert f"score: {labels.min():g} to {labels.max():g}, mean " in said
    of_splits = json.loads(invoke(*command, "--json").stdout)["splits"]
    assert of_splits["validation"]["labels"] == {"score": len(labels)}
    assert of_splits["validation"]["spread"] == cache.task.spread(labels)


def test_predictions_are_numbers(there, ridge, bert, tmp_path, cache):
    """In Python, printed, and in files; as the saved predictions of the test split are."""
    text = next(text for text, score in reviews() if score == cache.splits["test"].labels[0])
    expected = float(ridge.run.predictions().logits[0, 0])
    new = ridge.predict([text], backbone=str(bert), device="cpu", progress=False)
    assert new[0]["value"] == pytest.approx(expected, rel=1e-4) and "probabilities" not in new[0]
    assert new.table().columns == ["score", "Text"] and list(new.to_frame()["value"])
    assert "nor a probability" in refusal(
        lambda: ridge.predict([text], backbone=str(bert), device="cpu", progress=False,
                              min_probability=0.5).labels
    )  # fmt: skip
    command = ["predict", ridge.id, "--cache-dir", str(there), "--backbone", str(bert)]
    explained = ridge.explain(text, backbone=str(bert)).explanation
    total = explained.shares[:, 0].sum() + explained.bias_shown[0]
    assert total == pytest.approx(explained.logits[0]) == pytest.approx(expected, rel=1e-4)
    page = tmp_path / "explained.html"
    told = ["explain", ridge.id, text, "--cache-dir", str(there), "--backbone", str(bert)]
    shown = invoke(*told)
    assert shown.exit_code == 0 and "add up to the prediction to within" in shown.stdout
    assert invoke(*told, "--html", page).exit_code == 0
    assert "add up to the prediction" in (shown := page.read_text())
    assert "the logit" not in shown and "Probability" not in shown
    printed = invoke(*command, text)
    assert printed.exit_code == 0 and f"{expected:.4g}"[:4] in printed.stdout
    source = write(tmp_path / "new.csv", [(text, 1)], ("text", "other"))
    for suffix in (".csv", ".parquet", ".jsonl"):
        out = tmp_path / f"out{suffix}"
        done = invoke(*command, "--file", source, "--out", out)
        assert done.exit_code == 0 and "score of 1 text" in done.stdout, done.output
    with (tmp_path / "out.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["value"]) == pytest.approx(expected, rel=1e-4)
    assert [*row] == ["text", "other", "value", "unknown"]
    told = invoke(*command, text, "--csv")
    assert told.stdout.splitlines()[0] == "text,value,unknown"


def test_evaluation_on_other_numbers(ridge, bert, tmp_path):
    """Whole numbers are read as numbers, since the run predicts them."""
    rows = [(text, round(score)) for text, score in reviews(60, seed=5)]
    path = write(tmp_path / "others.csv", rows, ("text", "stars"))
    evaluated = ridge.evaluate(str(path), backbone=str(bert), device="cpu", progress=False)
    predictions = evaluated.run.predictions(evaluated.record)
    assert predictions.labels.tolist() == [stars for _, stars in rows]
    expected = figures_of(predictions.labels, predictions.logits[:, 0].astype(np.float64))
    found = evaluated.metrics["test"]
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert "RMSE" in str(evaluated) and "RMSE test" in repr(evaluated)


BAD = {
    "nan": ([("a film", "1.5"), ("the plot", "nan"), ("a scene", "2")], "row 2"),
    "infinite": ([("a film", "1.5"), ("the plot", "2"), ("a scene", "inf")], "row 3 has label"),
    "word": ([("a film", "1.5"), ("the plot", "many"), ("a scene", "2")], "row 2 has label 'many'"),
    "missing": ([("a film", "1.5"), ("the plot", ""), ("a scene", "2")], "row 2 has no 'score'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_number_is_refused_with_its_row(case, tmp_path):
    rows, said = BAD[case]
    path = write(tmp_path / "bad.csv", rows * 5 if case == "none" else rows)
    assert said in refusal(loading.read, str(path), task="regression")


def test_what_makes_no_regression(tmp_path):
    texts = [f"{text} {n}" for n, (text, _) in enumerate(reviews(40))]

    def read(labels, **options):
        return loading.read(texts=texts, labels=labels, **options)

    assert "the label 4.5 everywhere" in refusal(read, [4.5] * 40)
    stars = [n % 5 + 1 for n in range(40)]
    assert read(stars).label_names == ("1", "2", "3", "4", "5")
    numbers = read(stars, task="regression")
    assert numbers.splits["train"].labels.dtype == np.float64 and numbers.label_names == ("label",)
    assert "is a data set of one label per text" in refusal(read, stars, task="multi-label")
    assert "which is not a number" in refusal(read, ["good", "bad"] * 20, task="regression")
    assert "too large to square" in refusal(read, [1.5, -1e200] * 20, task="regression")
    assert "has no effect on numbers" in refusal(read, stars, task="regression", labels_as="text")
    halves = [n % 9 / 2 for n in range(40)]
    assert read(halves).task is REGRESSION
    assert len(read(list(map(str, halves)), labels_as="text").label_names) == 9
    assert "choose from single-label, multi-label, regression, ordinal" in refusal(
        read, stars, task="no"
    )


def test_predictions_of_stars_stay_on_the_scale_of_training(bert, tmp_path, monkeypatch, caplog):
    """Whatever labels the data have that a run is evaluated on. Older runs know no scale."""
    rows = [(text, 2 + (score > 250) + (score > 262)) for text, score in reviews(160, 5)]
    at = {"cache_dir": tmp_path, "progress": False}
    data = spacelite.embed(
        str(write(tmp_path / "stars.csv", rows, ("text", "stars"))), backbone=str(bert),
        task="ordinal", device="cpu", **at,
    )  # fmt: skip
    (run,) = spacelite.train(data, head="ridge", pooling="mean", C=100.0, baselines=False, **at)
    written = json.loads((run.run.folder / "run.json").read_text())
    assert written.pop("scale") == [2, 4] and written.pop("checksum")
    # Five times as far from 3: predictions leave the scale on both sides.
    apart = {name: 5 * value for name, value in run.run.parameters.items()}
    apart["classifier.bias"] = apart["classifier.bias"] - 12
    monkeypatch.setattr(type(run.run), "parameters", apart)
    texts = [text for text, _ in rows]
    predicted = run.predict(texts, progress=False)
    exact = predicted.probabilities[:, 0]
    assert exact.min() < 1.5 and exact.max() > 4.5
    expected = np.clip(np.round(exact), 2, 4)
    assert [row["value"] for row in predicted.rows] == expected.tolist()
    assert predicted.to_frame()["value"].tolist() == expected.tolist()
    low = texts[int(exact.argmin())]
    explained = run.explain(low, progress=False).explanation
    assert explained.as_json()["value"] == 2 and explained.prediction.startswith("stars 2 (")
    assert explained.as_json()["unrounded"] == pytest.approx(exact.min(), abs=1e-3)
    # Labels beyond the scale are said, and change no prediction.
    wider = [(text, [0, stars, 9][number % 3]) for number, (text, stars) in enumerate(rows)]
    path = str(write(tmp_path / "wider.csv", wider, ("text", "stars")))
    scores = run.evaluate(dataset=path, device="cpu", progress=False).metrics["test"]
    labels = np.array([stars for _, stars in wider])
    assert scores["rounded_accuracy"] == pytest.approx((labels == expected).mean())
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean((labels - exact) ** 2)), rel=1e-3)
    outside = int(((labels < 2) | (labels > 4)).sum())
    assert f"wider: {outside} of 160 labels, such as 0, are outside the scale" in caplog.text
    for scale, said in ([5, 2], "the lowest and the"), ([1], "the lowest"), ("2", "not a list"):
        files.write_json(run.run.folder / "run.json", {**written, "scale": scale})
        assert said in refusal(spacelite.load_run, run.run.folder)
    files.write_json(run.run.folder / "run.json", written)
    older = spacelite.load_run(run.run.folder)
    assert older.id == run.id and older.record.task.scale is None
    assert older.predict([low], progress=False)[0]["value"] == round(exact.min()) < 2


def test_settings_and_kinds_that_mean_nothing_are_refused(there, cache):
    def train(**settings):
        return refusal(spacelite.train, cache.path, cache_dir=there, progress=False, **settings)

    for name, value in (("class_weights", "balanced"), ("threshold", "f1"), ("inter", 0.5)):
        assert f"{name}=" in (said := train(**{name: value})) and "leave it out" in said
    assert "train ridge" in train(head="logreg")
    assert "squared, huber" in train(loss="absolute")
    assert "has no effect on ridge, trained without epochs" in train(head="ridge", loss="huber")


def test_a_metric_that_numbers_lack_is_refused_where_it_is_named(there, cache, ridge):
    """Defaults are replaced by the metrics of numbers; what a user names is not."""
    of = {"cache": cache.path, "cache_dir": there, "progress": False}
    runs, swept = spacelite.Runs([ridge]), spacelite.sweep(over="pooling", **of)
    cv = spacelite.cross_validate(head="ridge", baselines=False, **of)
    refused = {
        "monitor=ce": (spacelite.train, {"patience": 2, "monitor": "ce", **of}),
        "monitor=f1_macro": (spacelite.train, {"search": True, "monitor": "f1_macro", **of}),
        "metric=accuracy": (spacelite.learning_curve, {"metric": "accuracy", **of}),
        "metric=f1_macro": (spacelite.sweep, {"metric": "f1_macro", **of}),
        "metric=auroc": (runs.best, {"metric": "auroc"}),
        "metric=precision": (cv.figures, {"metric": "precision"}),
    }
    for named, (function, given) in refused.items():
        said = refusal(function, **given)
        assert said.startswith(f"{named}: for a number per text, choose from "), said
        assert "rmse, mae, r2" in said
    regressor = spacelite.LinearRegressor(monitor="accuracy", validation_fraction=0.5)
    with pytest.raises(ValueError, match="monitor=accuracy: for a number per text, choose from"):
        regressor.fit(np.eye(8), np.arange(8))
    assert (
        swept.result.metric == "rmse"
        and runs.best() is ridge
        and [*cv.figures()] == ["ridge (first)"]
    )
    (best,) = spacelite.train(preset="best", baselines=False, **of)
    assert best.record.training.monitor == "mse"


def test_classes_have_neither_ridge_nor_a_choice_of_losses(cache_path, tmp_path):
    def train(**settings):
        how = {"cache_dir": tmp_path, "progress": False, **settings}
        return refusal(spacelite.train, cache_path, **how)

    assert "head=ridge does not learn from one label per text: train logreg" in train(head="ridge")
    for loss in ("squared", "huber"):
        said = train(loss=loss)
        assert f"loss={loss} has no effect on one label per text" in said and "leave it" in said
