"""The baselines that are fitted directly: logistic regression on pooled vectors and on n-grams."""

import itertools
import json

import numpy as np
import pytest
from conftest import embed, invoke, refusal, texts, write_dataset
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

import spacelite
from spacelite import heads
from spacelite.cache.store import Cache
from spacelite.heads import linear, logistic, ngrams
from spacelite.heads.logistic import Problems
from spacelite.heads.ngrams import NGrams, special_ids
from spacelite.inference import explanation, prediction, transfer
from spacelite.runs import store as runs
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL
from spacelite.training import loop
from spacelite.training.config import TrainingConfig


def some(classes, count=150, width=6, seed=0):
    """Standard normal features, and labels that depend on them."""
    random = np.random.RandomState(seed)
    inputs = random.normal(size=(count, width))
    scores = inputs @ random.normal(size=(width, classes)) + 2 * random.normal(
        size=(count, classes)
    )
    return inputs, scores.argmax(axis=1)


def scikit_learns(inputs, labels, C, class_weights="none"):
    """Weights and biases of scikit-learn's LogisticRegression at its optimum."""
    balanced = None if class_weights == "none" else class_weights
    model = LogisticRegression(C=C, tol=1e-10, max_iter=100_000, class_weight=balanced)
    return model.fit(inputs, labels)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("C", [0.01, 1, 30])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_optimum_is_scikit_learns(classes, C, class_weights, sparse):
    from scipy.sparse import csr_array

    inputs, labels = some(classes)
    model = scikit_learns(inputs, labels, C, class_weights)
    given = csr_array(inputs * (np.abs(inputs) > 0.5)) if sparse else inputs
    if sparse:
        model = scikit_learns(given, labels, C, class_weights)
    problems = SINGLE_LABEL.problems(labels, classes)
    found = logistic.fit(given, Problems(problems, classes, class_weights), C)
    probabilities = SINGLE_LABEL.probabilities(inputs @ found.weight.T + found.bias)
    assert probabilities == pytest.approx(model.predict_proba(inputs), abs=1e-4)
    if classes > 2:
        assert found.weight == pytest.approx(model.coef_, abs=1e-4)
    else:
        assert found.weight[1] - found.weight[0] == pytest.approx(model.coef_[0], abs=1e-4)


def test_several_labels_are_one_problem_each():
    inputs, _ = some(2)
    labels = (inputs[:, :3] + np.random.RandomState(1).normal(size=(150, 3)) > 0.5).astype(int)
    labels = np.concatenate([labels, np.zeros((150, 1), int), np.ones((150, 1), int)], axis=1)
    found = logistic.fit(inputs, Problems(MULTI_LABEL.problems(labels, 5), 5), 0.5)
    for c in range(3):
        model = scikit_learns(inputs, labels[:, c], 0.5)
        assert found.weight[c] == pytest.approx(model.coef_[0], abs=1e-4)
        assert found.bias[c] == pytest.approx(model.intercept_[0], abs=1e-4)
    assert not found.weight[3:].any() and found.bias[3] < -4 and found.bias[4] > 4


def test_a_class_without_training_examples_is_never_predicted():
    inputs, labels = some(2)
    found = logistic.fit(inputs, Problems(SINGLE_LABEL.problems(labels * 2, 4), 4), 1.0)
    logits = inputs @ found.weight.T + found.bias
    assert set(logits.argmax(axis=1)) <= {0, 2} and np.isfinite(logits).all()


@pytest.mark.parametrize("several", [False, True])
def test_cross_validation_chooses_what_scikit_learn_would(several):
    inputs, labels = some(3, count=400)
    among, task = (0.001, 0.01, 0.1, 1.0, 100.0), SINGLE_LABEL
    if several:
        labels, task = np.stack([labels == 0, labels == 1], axis=1).astype(int), MULTI_LABEL
    classes = labels.shape[1] if several else 3
    problems = task.problems(labels, classes)
    fold = logistic.folds(np.stack([own for _, own in problems], axis=1))
    for _, own in problems:  # every fold has its share of each class
        for value in np.unique(own):
            counts = np.bincount(fold[own == value], minlength=3)
            assert counts.max() - counts.min() <= 3
    losses = []
    for C in among:
        total = 0.0
        for number in range(3):
            held = fold == number
            for _, own in problems:
                model = scikit_learns(inputs[~held], own[~held], C)
                chances = model.predict_proba(inputs[held])
                total -= np.log(chances[np.arange(held.sum()), own[held]]).sum()
        losses.append(total)
    chosen = logistic.choose(inputs, Problems(problems, classes), among)
    assert chosen == among[int(np.argmin(losses))]


def test_with_too_few_examples_for_folds_the_middle_value_is_taken():
    inputs, labels = some(2, count=4)
    problems = Problems(SINGLE_LABEL.problems(labels, 2), 2)
    assert logistic.choose(inputs, problems, (1, 2, 3)) == 2


# N-grams.


def ids_of(rows):
    """Token ids end to end and offsets of texts, between 101 and 102."""
    framed = [[101, *row, 102] for row in rows]
    return np.concatenate(framed).astype(np.int32), np.cumsum([0, *map(len, framed)])


def words(ids, offsets):
    """Texts whose words are their token ids, without the special ones."""
    parts = [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)]
    return [" ".join(f"w{token}" for token in part if token not in (0, 101, 102)) for part in parts]


def random_rows(count, seed, longest=12, vocabulary=30):
    random = np.random.RandomState(seed)
    return [random.randint(200, 200 + vocabulary, random.randint(1, longest)) for _ in range(count)]


def test_tfidf_is_scikit_learns():
    train, new = ids_of(random_rows(80, 0)), ids_of([*random_rows(20, 1, vocabulary=40), [999]])
    theirs = TfidfVectorizer(ngram_range=(1, 2), min_df=2, token_pattern=r"\S+")
    theirs.fit(words(*train))
    ngrams = NGrams.of(*train)
    assert len(ngrams.keys) == len(theirs.vocabulary_) and (np.diff(ngrams.keys) > 0).all()
    names = [
        f"w{key}" if key < 2**32 else f"w{(key >> 32) - 1} w{key & (2**32 - 1)}"
        for key in ngrams.keys.tolist()
    ]
    order = [theirs.vocabulary_[name] for name in names]
    assert ngrams.idf == pytest.approx(theirs.idf_[order], abs=1e-6)
    for ids, offsets in (train, new):
        expected = theirs.transform(words(ids, offsets)).toarray()[:, order]
        assert ngrams.matrix(ids, offsets).toarray() == pytest.approx(expected, abs=1e-6)
    assert not expected[-1].any()  # no n-gram of it is known


def test_parts_of_tokens_sum_to_the_logits():
    ids, offsets = ids_of([*random_rows(40, 0), [999]])
    ngrams = NGrams.of(ids, offsets)
    weight = np.random.RandomState(2).normal(size=(3, len(ngrams.keys)))
    parts = ngrams.parts(ids, offsets, weight)
    logits = ngrams.matrix(ids, offsets) @ weight.T
    assert np.add.reduceat(parts, offsets[:-1], axis=0) == pytest.approx(logits, abs=1e-12)
    assert ngrams.logits(ids, offsets, weight) == pytest.approx(logits, abs=1e-12)
    assert not parts[np.isin(ids, [101, 102, 999])].any()


def test_half_of_a_pair_goes_to_each_of_its_tokens():
    train = ids_of([[7, 8], [7, 8], [9]])
    ngrams = NGrams.of(*train)
    assert len(ngrams.keys) == 3  # 7, 8 and the pair; 9 is in one text only
    only_the_pair = (ngrams.keys > 2**32)[None].astype(float)
    ids, offsets = ids_of([[8, 7, 8, 7]])
    parts = ngrams.parts(ids, offsets, only_the_pair)[:, 0]
    assert parts[2] == parts[3] > 0 and np.count_nonzero(parts) == 2


def test_special_tokens_are_told_by_where_they_stand():
    rows = random_rows(30, 0)
    assert special_ids(*ids_of(rows)).tolist() == [101, 102]
    ids = np.zeros((30, 20), np.int32)  # padded on the right with 0; one text is cut off
    for line, row in zip(ids, rows, strict=True):
        line[: len(row) + 2] = [101, *row, 102]
    ids[0] = [101, *np.arange(200, 218), 102]
    assert special_ids(ids.ravel(), np.arange(31) * 20).tolist() == [0, 101, 102]
    left = np.array([[5] * (18 - len(row)) + [*row, 3, 4] for row in rows], np.int32)
    assert special_ids(left.ravel(), np.arange(31) * 20).tolist() == [3, 4, 5]  # as XLNet's
    assert special_ids(*ids_of([[7]])).size == 0


# As heads.


@pytest.fixture(scope="module", params=["two", "three", "several"])
def cached(request, tmp_path_factory, bert):
    """A cache of 90 + 30 + 30 texts: of two or three labels, or several at once."""
    folder = tmp_path_factory.mktemp("baselines")
    sizes = {"train": 90, "validation": 30, "test": 30}
    classes = 2 if request.param == "two" else 3
    data = write_dataset(folder / "data", sizes, classes=classes, longest=12)
    if request.param == "several":
        for path in data.iterdir():
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            for row in rows:
                named = [word for word in ("good", "bad") if word in row["text"]]
                row["label"] = named or ["plain"]
            path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    path = embed(
        backbone=str(bert), dataset=str(data), cache_dir=folder, dtype="float32", device="cpu"
    ).path
    with Cache(path) as cache:
        yield folder, cache


def fitted(folder, cache, config, **training):
    """The run of one head."""
    given, saved = TrainingConfig(**training), []
    save = lambda head: saved.append(runs.save(folder, cache, head, given))  # noqa: E731
    loop.train(cache, [config], given, cache_dir=folder, save=save)
    return saved[0]


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_tfidf_runs_are_scikit_learns_pipeline(cached, class_weights):
    folder, cache = cached
    run = fitted(folder, cache, heads.config("tfidf"), class_weights=class_weights)
    C = run.record.cross_validated["C"]
    assert C in ngrams.STRENGTHS and runs.load(run.folder).record == run.record
    split = cache.splits["train"]
    ids = split.read_token_ids()
    special = [2, 3]  # [CLS] and [SEP] of the tiny backbone
    assert special_ids(ids, split.offsets).tolist() == special

    def known(split):
        return [
            " ".join(f"w{token}" for token in split.read_token_ids(a, b) if token not in special)
            for a, b in itertools.pairwise(split.offsets)
        ]

    theirs = TfidfVectorizer(ngram_range=(1, 2), min_df=2, token_pattern=r"\S+")
    inputs = theirs.fit_transform(known(split))
    for name in ("validation", "test"):
        new = theirs.transform(known(cache.splits[name]))
        found = run.record.task.probabilities(inference_logits(run, cache, name))
        if split.labels.ndim == 1:
            model = scikit_learns(inputs, split.labels, C, class_weights)
            assert found == pytest.approx(model.predict_proba(new), abs=1e-4)
        else:
            for c, own in enumerate(split.labels.T):
                model = scikit_learns(inputs, own, C, class_weights)
                assert found[:, c] == pytest.approx(model.predict_proba(new)[:, 1], abs=2e-4)
    count = len(theirs.vocabulary_) + 1
    assert run.record.train_params == count * len(run.record.label_names)
    size = (run.folder / "head.safetensors").stat().st_size
    assert size < 1000 + len(theirs.vocabulary_) * (8 + 4 + 4 * len(run.record.label_names))


@pytest.mark.parametrize(("name", "settings"), [("tfidf", {}), ("additive", {"blocks": "ngrams"})])
def test_a_prediction_without_torch_is_the_same_to_the_bit(cached, name, settings):
    folder, cache = cached
    run = fitted(folder, cache, heads.config(name, **settings))
    split = cache.splits["test"]
    ids, kind = split.read_token_ids(), heads.kind(run.head.kind)
    logits = kind.logits_of_ids(run.head, run.parameters, ids, split.offsets)
    assert logits.dtype == np.float32
    assert np.array_equal(logits, inference_logits(run, cache, "test"))
    weight = run.parameters["classifier.weight" if name == "tfidf" else "ngrams.weight"]
    table = NGrams.from_head(run.parameters, sublinear=name == "additive")
    expected = table.matrix(ids, split.offsets) @ weight.T.astype(float)
    assert logits == pytest.approx(expected + run.parameters["classifier.bias"], abs=1e-6)


def inference_logits(run, cache, split):
    with np.load(run.folder / "predictions.npz") as arrays:
        return arrays[f"{split}/logits"]


def test_logreg_with_auto_is_a_plain_linear_layer(cached):
    folder, cache = cached
    run = fitted(folder, cache, heads.config("logreg", pooling="mean", C="auto"))
    C = run.record.cross_validated["C"]
    assert C in linear.STRENGTHS and set(run.parameters) == {"classifier.weight", "classifier.bias"}

    def means(name):
        split = cache.splits[name]
        hidden = split.read_hidden(0, len(split)).astype(np.float64)
        return np.add.reduceat(hidden, split.offsets[:-1]) / split.lengths[:, None]

    train, labels = means("train"), cache.splits["train"].labels
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    for name in ("validation", "test"):
        inputs = (means(name) - mean) / deviation
        found = run.record.task.probabilities(inference_logits(run, cache, name))
        own = [labels] if labels.ndim == 1 else labels.T
        for c, one in enumerate(own):
            model = scikit_learns((train - mean) / deviation, one, C)
            expected = model.predict_proba(inputs)
            wanted = found if labels.ndim == 1 else np.stack([1 - found[:, c], found[:, c]], axis=1)
            assert wanted == pytest.approx(expected, abs=2e-4)


def test_constant_dimensions_get_weight_0():
    import torch

    from spacelite.heads.base import Objective

    inputs, labels = some(3)
    inputs[:, 2] = 0.1 + 1e-8 * np.random.RandomState(0).normal(size=150)

    class Given:
        weights = None

    given = Given()
    given.labels = torch.from_numpy(labels)
    given.features = lambda pooling: torch.from_numpy(inputs).float()
    found = heads.kind("logreg").fit(
        heads.config("logreg", C="auto"), given, Objective(SINGLE_LABEL, 3), "none"
    )
    weight = found.parameters["classifier.weight"]
    assert not weight[:, 2].any() and weight[:, [0, 1, 3, 4, 5]].all()
    assert found.cross_validated["C"] in linear.STRENGTHS


def test_older_logreg_runs_keep_their_ids(cached):
    _, cache = cached
    fit = TrainingConfig().for_fitting()
    plain = runs.run_id(cache.spec, heads.config("logreg"), fit)
    assert plain == runs.run_id(cache.spec, heads.config("logreg", C=1.0), fit)
    assert plain != runs.run_id(cache.spec, heads.config("logreg", C="auto"), fit)
    assert "C" not in heads.config("logreg").hashed()


def test_tfidf_predicts_and_explains_texts(cached, bert):
    folder, cache = cached
    run = fitted(folder, cache, heads.config("tfidf"))
    given = [*texts(20, seed=9, longest=12), "zzz qqq", "good"]
    found = prediction.Predictor(run, str(bert), device="cpu").predict(given).probabilities
    # In another order and alone, and of the cache's own texts: the same.
    alone = prediction.Predictor(run, str(bert), device="cpu").predict(given[-1:]).probabilities
    assert alone[0] == pytest.approx(found[-1], abs=1e-7)
    for text, expected in zip(given, found, strict=True):
        explained = explanation.explain_text(run, text, backbone=str(bert), device="cpu")
        assert explained.difference < 1e-5
        assert explained.probabilities == pytest.approx(expected.tolist(), abs=1e-6)
    example = explanation.explain_example(run, cache, "train:3", backbone=str(bert))
    assert example.difference < 1e-5


def test_tfidf_is_evaluated_on_other_data(cached, bert, tmp_path):
    folder, cache = cached
    run = fitted(folder, cache, heads.config("tfidf"))
    _, predictions = transfer.evaluate(run, cache)
    for name in ("validation", "test"):
        expected = inference_logits(run, cache, name)
        assert predictions[name].logits == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", ["-1", "0", "high"])
def test_a_wrong_C_is_refused(value, cached, tmp_path):
    _, cache = cached
    given = float(value) if value != "high" else value
    message = refusal(loop.train, cache, [heads.config("tfidf", C=given)], TrainingConfig())
    assert message.endswith("give a number above 0, or auto") and message.startswith("C=")


# Beside every head.


@pytest.fixture
def place(tmp_path, bert):
    """A folder with a cache of 60 + 20 + 20 texts of two labels."""
    data = write_dataset(tmp_path / "data", {"train": 60, "validation": 20, "test": 20}, longest=12)
    embed(backbone=str(bert), dataset=str(data), cache_dir=tmp_path, device="cpu")
    return tmp_path


def trained(place, **options):
    return spacelite.train(cache_dir=place, epochs=1, progress=False, **options)


@pytest.mark.usefixtures("with_baselines")
def test_baselines_are_fitted_once_for_a_cache(place, bert, monkeypatch):
    fits = []
    for kind in (ngrams.TfidfHead, linear.LogregHead):
        usual = kind.fit

        def fit(cls, config, *given, usual=usual):
            fits.append(config.name)
            return usual(config, *given)

        monkeypatch.setattr(kind, "fit", classmethod(fit))
    first = trained(place)
    names = [run.record.system for run in first]
    assert names == ["space", "linear (first)", "tfidf", "logreg (mean)"] and first.before == 0
    assert fits == ["tfidf", "logreg (mean)"]
    second = trained(place, head="space", latent=5, name="mine")
    assert [run.record.system for run in second] == ["space L=5", "tfidf", "logreg (mean)"]
    assert second.before == 2 and len(fits) == 2
    assert [run.id for run in second][1:] == [run.id for run in first][2:]
    assert [run.name for run in second] == ["mine", None, None]
    # One that is damaged is fitted again; one that is asked for stands where it is asked for.
    (first[2].run.folder / "head.safetensors").write_bytes(b"")
    third = trained(place, head=["logreg", "space"], pooling="mean")
    assert [run.record.system for run in third] == ["logreg (mean)", "space", "tfidf"]
    assert fits[2:] == ["logreg (mean)", "tfidf"] and third.before == 0
    assert third[0].id == first[3].id
    assert third[2].predict(["good film"], backbone=str(bert))[0]["label"] in ("0", "1")
    text = spacelite.report(cache_dir=place, examples=False, progress=False).text()
    assert "tfidf" in text and "logreg (mean)" in text
    assert "Cross-validation on train chose C: " in text


@pytest.mark.usefixtures("with_baselines")
def test_baselines_can_be_left_out(place):
    assert [run.record.system for run in trained(place, baselines=False, head="space")] == ["space"]
    command = ["train", "--cache-dir", str(place), "--head", "space", "--epochs", "1"]
    done = invoke(*command, "--no-baselines")
    assert "1 head trained" in done.stdout and "tfidf" not in done.stdout
    done = invoke(*command)
    assert "3 heads trained" in done.stdout and "tfidf" in done.stdout
    done = invoke(*command)
    assert "1 head trained" in done.stdout and "tfidf" in done.stdout
    assert "(the baselines are from an earlier training)" in " ".join(done.stdout.split())


def test_the_option_C(place):
    command = ["train", "--cache-dir", str(place), "--head", "logreg,tfidf", "--json"]
    done = invoke(*command, "--C", "0.5,auto")
    settings = [
        (each["head"], each["settings"]["C"], each["cross_validated"])
        for each in json.loads(done.stdout)
    ]
    assert [one[:2] for one in settings] == [
        ("logreg", 0.5), ("logreg", "auto"), ("tfidf", 0.5), ("tfidf", "auto"),
    ]  # fmt: skip
    assert [list(one[2]) for one in settings] == [[], ["C"], [], ["C"]]
    plain = json.loads(invoke(*command).stdout)
    assert [each["settings"]["C"] for each in plain] == ["auto", "auto"]
    refused = invoke(*command, "--C", "-1")
    assert refused.exit_code == 1 and "--C -1: give a number above 0, or auto" in refused.stderr


@pytest.mark.usefixtures("with_baselines")
def test_texts_without_a_common_ngram_are_no_error(tmp_path, bert):
    given = ["good film", "bad plot", "slow scene", "fine story", "dull acted", "loved well"]
    cache = spacelite.embed(
        texts=given, labels=["a", "b"] * 3, backbone=bert, cache_dir=tmp_path, progress=False
    )
    runs = spacelite.train(cache, head="space", epochs=1, progress=False)
    assert [run.record.system for run in runs] == ["space", "tfidf", "logreg (mean)"]
    assert runs[1].record.train_params == 2
    assert np.isfinite(runs[1].predict(given).probabilities).all()
    assert runs[1].explain("good film").explanation.difference < 1e-6
