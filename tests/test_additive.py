"""The additive head: against scikit-learn, and through everything that a head goes through."""

import itertools
import json
import tracemalloc

import numpy as np
import processes
import pytest
import torch
from conftest import invoke, refusal, texts, write_dataset
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfVectorizer
from test_baselines import cached as cached
from test_baselines import fitted, ids_of, inference_logits, random_rows, words
from test_crossfit import centred, log_odds, scikit_learns

import spacelite
from spacelite import files, heads
from spacelite.cache.store import Cache
from spacelite.data import loading as data
from spacelite.heads import additive, logistic
from spacelite.heads.additive import known_blocks
from spacelite.heads.base import Objective
from spacelite.heads.ngrams import NGrams
from spacelite.inference import explanation, prediction, transfer
from spacelite.runs import store as runs
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL
from spacelite.training import memory

BLOCKS = ("layers", "mean", "ngrams", "layers+ngrams", "mean+ngrams")
QUIET = {"progress": False, "device": "cpu"}


# N-grams that count 1 + log(k).


def spelled(key):
    """The words of an n-gram's key."""
    if key >> 62:
        ids = [key >> 40 & 2**20 - 1, key >> 20 & 2**20 - 1, key & 2**20 - 1]
    else:
        ids = [key] if key < 2**32 else [(key >> 32) - 1, key & 2**32 - 1]
    return " ".join(f"w{token}" for token in ids)


@pytest.mark.parametrize("longest", [2, 3])
def test_sublinear_counts_are_scikit_learns(longest):
    train = ids_of(random_rows(80, 0, vocabulary=8))
    new = ids_of([*random_rows(20, 1, vocabulary=10), [999]])
    theirs = TfidfVectorizer(
        ngram_range=(1, longest), min_df=2, token_pattern=r"\S+", sublinear_tf=True
    ).fit(words(*train))
    ngrams = NGrams.of(*train, sublinear=True, longest=longest)
    order = [theirs.vocabulary_[spelled(key)] for key in ngrams.keys.tolist()]
    assert len(order) == len(theirs.vocabulary_) and ngrams.longest == longest
    for ids, offsets in (train, new):
        expected = theirs.transform(words(ids, offsets)).toarray()[:, order]
        assert ngrams.matrix(ids, offsets).toarray() == pytest.approx(expected, abs=1e-6)
        weight = np.random.RandomState(2).normal(size=(3, len(order)))
        parts = ngrams.parts(ids, offsets, weight)
        sums = np.add.reduceat(parts, offsets[:-1], axis=0)
        assert sums == pytest.approx(expected @ weight.T, abs=1e-6)


def test_a_longer_ngram_gives_each_of_its_tokens_an_equal_part():
    ngrams = NGrams.of(*ids_of([[7, 5, 8], [6, 7, 5, 8, 6], [5]]), longest=3)
    ids, offsets = ids_of([[9, 7, 5, 8, 5]])
    weight = np.zeros((1, len(ngrams.keys)))
    weight[0, -1] = 1.0  # of 7 5 8 alone
    value = ngrams.matrix(ids, offsets)[0, len(ngrams.keys) - 1]
    parts = ngrams.parts(ids, offsets, weight)[:, 0]
    assert parts == pytest.approx([0, 0, value / 3, value / 3, value / 3, 0, 0])


def test_ids_too_large_for_the_key_of_a_3gram_have_2grams_alone():
    large = 2**20 + 5
    rows = [[7, large, 8, 9, 4], [6, 7, large, 8, 9, 4, 6], [5]]
    ngrams = NGrams.of(*ids_of(rows), longest=3)
    names = [spelled(key) for key in ngrams.keys.tolist()]
    assert f"w7 w{large}" in names and "w8 w9 w4" in names
    assert sum(name.count(" ") == 2 for name in names) == 1


def test_each_time_that_an_ngram_occurs_gets_the_same_part():
    ngrams = NGrams.of(*ids_of([[7, 5], [6, 7]]), sublinear=True)
    ids, offsets = ids_of([[7, 9, 7, 7]])
    parts = ngrams.parts(ids, offsets, np.ones((1, 1)))[:, 0]
    assert parts == pytest.approx([0, 1 / 3, 0, 1 / 3, 1 / 3, 0])


# The fit.


def test_log_count_ratios_are_those_of_the_paper():
    random = np.random.RandomState(0)
    has = (random.uniform(size=(40, 5)) < 0.4).astype(float)
    labels, sample = random.randint(0, 3, 40), random.uniform(size=40) < 0.7
    goal = np.eye(3)[labels]
    found = additive.log_count_ratios(csr_array(has).T.tocsr(), sample, goal)
    for c in range(3):
        mine, theirs = has[sample & (labels == c)], has[sample & (labels != c)]
        p, q = 10 + mine.sum(axis=0), 10 + theirs.sum(axis=0)
        assert found[:, c] == pytest.approx(np.log((p / p.sum()) / (q / q.sum())), abs=1e-6)


@pytest.fixture
def closely(monkeypatch):
    monkeypatch.setattr(logistic, "ROUGHLY", 1e-12)
    monkeypatch.setattr(logistic, "CLOSELY", 1e-12)


def block_features(cache, name, split):
    """The features of a block, (N, p) float64, by other means than the head's."""
    own = cache.splits[split]
    if name == "layers":
        return own.layer_means.astype(np.float64)
    if name == "mean":
        hidden = own.read_hidden(0, len(own)).astype(np.float64)
        return np.add.reduceat(hidden, own.offsets[:-1]) / own.lengths[:, None]
    ids, special = own.read_token_ids(), [2, 3]
    return [
        " ".join(f"w{token}" for token in ids[a:b] if token not in special)
        for a, b in itertools.pairwise(own.offsets)
    ]


@pytest.mark.parametrize("of", BLOCKS)
@pytest.mark.parametrize("cached", ["two", "several"], indirect=True)
def test_the_head_is_scikit_learns_with_everything_written_out(cached, of, closely):
    """Blocks by scikit-learn on standardised or scaled columns, stacked by scikit-learn on
    out-of-fold logits; what the head saves is one linear layer that gives the same logits."""
    folder, cache = cached
    run = fitted(folder, cache, heads.config("additive", blocks=of))
    labels = cache.splits["train"].labels
    several = labels.ndim == 2
    own_labels = labels.T if several else [labels]
    fold = logistic.folds(labels if several else labels[:, None], logistic.FOLDS)
    held, new = [], []
    for name in of.split("+"):
        train, test = (block_features(cache, name, split) for split in ("train", "test"))
        if name == "ngrams":
            theirs = TfidfVectorizer(
                ngram_range=(1, 2), min_df=2, token_pattern=r"\S+", sublinear_tf=True
            )
            train, test = theirs.fit_transform(train).toarray(), theirs.transform(test).toarray()
        else:
            mean, deviation = train.mean(axis=0), train.std(axis=0)
            train, test = (train - mean) / deviation, (test - mean) / deviation
        C = run.record.cross_validated[f"C of {name}"]

        def scale(rows, own, features=train, name=name):
            if name != "ngrams":
                return np.ones(features.shape[1])
            having = [10 + (features[rows][own[rows] == k] > 0).sum(axis=0) for k in (1, 0)]
            ratio = np.log((having[0] / having[0].sum()) / (having[1] / having[1].sum()))
            return 0.05 + np.abs(ratio)

        of_train, of_test = [], []
        for own in own_labels:
            out = np.zeros((len(train), 2))
            for number in range(logistic.FOLDS):
                rows = fold != number
                s = scale(rows, own)
                model = scikit_learns(train[rows] * s, own[rows], C)
                out[~rows] = log_odds(model, train[~rows] * s)
            s = scale(np.ones(len(train), bool), own)
            model = scikit_learns(train * s, own, C)
            of_train.append(out)
            of_test.append(log_odds(model, test * s))
        if several:  # one logit a label, not two
            of_train = [2 * out[:, 1:] for out in of_train]
            of_test = [2 * out[:, 1:] for out in of_test]
        held.append(np.concatenate(of_train, axis=1))
        new.append(np.concatenate(of_test, axis=1))
    held, new = np.concatenate(held, axis=1), np.concatenate(new, axis=1)
    found = run.record.task.probabilities(inference_logits(run, cache, "test"))
    for c, own in enumerate(own_labels):
        expected = scikit_learns(held, own, additive.STACKED).predict_proba(new)
        mine = np.stack([1 - found[:, c], found[:, c]], axis=1) if several else found
        np.testing.assert_allclose(mine, expected, atol=2e-3)
    # What is saved is one linear layer.
    logits = run.parameters["classifier.bias"].astype(np.float64)
    for name in of.split("+"):
        weight = run.parameters[f"{name}.weight"].astype(np.float64)
        if name == "ngrams":
            split = cache.splits["test"]
            table = NGrams(run.parameters["ngrams.keys"], run.parameters["ngrams.idf"], True)
            logits = logits + table.matrix(split.read_token_ids(), split.offsets) @ weight.T
        else:
            logits = logits + block_features(cache, name, "test") @ weight.T
    np.testing.assert_allclose(logits, inference_logits(run, cache, "test"), atol=1e-4)


class Given:
    """Examples with these vectors and token ids."""

    weights = None

    def __init__(self, labels, vectors, ids=None):
        self.labels, self._vectors, self._ids = torch.from_numpy(labels), vectors, ids

    def features(self, pooling):
        return torch.from_numpy(self._vectors)

    def token_ids(self):
        return self._ids


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_constant_dimensions_get_weight_0(dtype):
    random = np.random.RandomState(0)
    vectors = random.normal(size=(80, 6)).astype(dtype)
    vectors[:, 2] = 0.1
    vectors[:, 4] = 300
    labels = (vectors[:, 0] > 0).astype(np.int64)
    found = heads.kind("additive").fit(
        heads.config("additive", blocks="mean"),
        Given(labels, vectors), Objective(SINGLE_LABEL, 2), "none",
    )  # fmt: skip
    weight = found.parameters["mean.weight"]
    assert not weight[:, [2, 4]].any() and weight[:, [0, 1, 3, 5]].all()
    assert all(value.isfinite().all() for value in found.parameters.values())
    logits = vectors.astype(float) @ weight.double().numpy().T
    logits = logits + found.parameters["classifier.bias"].double().numpy()
    assert (logits.argmax(axis=1) == labels).mean() > 0.8


def test_a_class_without_training_examples_is_never_predicted():
    random = np.random.RandomState(0)
    vectors = random.normal(size=(80, 6)).astype(np.float32)
    labels = np.where(vectors[:, 0] > 0, 2, 0).astype(np.int64)
    found = heads.kind("additive").fit(
        heads.config("additive", blocks="mean"),
        Given(labels, vectors), Objective(SINGLE_LABEL, 4), "balanced",
    )  # fmt: skip
    weight, bias = (found.parameters[n].numpy() for n in ("mean.weight", "classifier.bias"))
    logits = vectors @ weight.T + bias
    assert np.isfinite(logits).all() and set(logits.argmax(axis=1)) == {0, 2}


def test_a_label_of_one_example_is_not_turned_upside_down():
    random = np.random.RandomState(0)
    vectors = random.normal(size=(120, 6)).astype(np.float32)
    labels = np.where(vectors[:, 0] > 0, 1, 0).astype(np.int64)
    labels[7], vectors[7, 1:] = 2, 3
    found = heads.kind("additive").fit(
        heads.config("additive", blocks="mean"), Given(labels, vectors),
        Objective(SINGLE_LABEL, 3), "none",
    )  # fmt: skip
    weight, bias = (found.parameters[n].numpy() for n in ("mean.weight", "classifier.bias"))
    assert ((vectors @ weight.T + bias) @ [-0.5, -0.5, 1]).argmax() == 7


@pytest.mark.parametrize("count", [1, 3, 9, 12])
def test_few_examples(count):
    rows = random_rows(count, 0)
    random = np.random.RandomState(0)
    labels = np.arange(count) % 2
    found = heads.kind("additive").fit(
        heads.config("additive"),
        Given(labels, random.normal(size=(count, 5)).astype(np.float16), ids_of(rows)),
        Objective(SINGLE_LABEL, 2), "none",
    )  # fmt: skip
    assert all(value.double().isfinite().all() for value in found.parameters.values())
    several = heads.kind("additive").fit(
        heads.config("additive"),
        Given(np.stack([labels, 1 - labels, labels], axis=1),
              random.normal(size=(count, 5)).astype(np.float16), ids_of(rows)),
        Objective(MULTI_LABEL, 3), "none",
    )  # fmt: skip
    assert all(value.double().isfinite().all() for value in several.parameters.values())


# As any head.


@pytest.mark.parametrize("blocks", BLOCKS)
def test_texts_are_predicted_and_explained(cached, blocks, bert):
    folder, cache = cached
    run = fitted(folder, cache, heads.config("additive", blocks=blocks))
    assert run.record.system == f"additive ({blocks})"
    given = [*texts(12, seed=9, longest=12), "zzz qqq", "good"]
    found = prediction.Predictor(run, str(bert), device="cpu").predict(given).probabilities
    alone = prediction.Predictor(run, str(bert), device="cpu").predict(given[-1:]).probabilities
    assert alone[0] == pytest.approx(found[-1], abs=1e-5)
    for text, expected in zip(given, found, strict=True):
        explained = explanation.explain_text(run, text, backbone=str(bert), device="cpu")
        assert explained.difference < 1e-5
        assert explained.probabilities == pytest.approx(expected.tolist(), abs=2e-3)
    for number in range(0, 30, 7):
        example = explanation.explain_example(
            run, cache, f"test:{number}", backbone=str(bert), device="cpu"
        )
        assert example.difference < 1e-5
        saved = inference_logits(run, cache, "test")[number]
        assert example.logits == pytest.approx(saved.tolist(), abs=2e-2)
    # As the cached hidden states of the same texts.
    _, again = transfer.evaluate(run, cache)
    assert again["test"].logits == pytest.approx(inference_logits(run, cache, "test"), abs=1e-6)


@pytest.mark.parametrize("blocks", ["layers+ngrams", "mean+ngrams", "ngrams"])
@pytest.mark.parametrize("kind", ["bert", "xlnet"])
def test_padded_texts_are_explained(kind, blocks, request, reviews, tmp_path):
    backbone = request.getfixturevalue(kind)
    cache = spacelite.embed(
        reviews, backbone=backbone, cache_dir=tmp_path, padding="max_length", max_length=40, **QUIET
    )
    (run,) = spacelite.train(cache, head="additive", blocks=blocks, **QUIET)
    text = data.read(str(reviews)).splits["test"].texts[3]
    saved = run.run.predictions().logits[3]
    for what in ({"text": text}, {"example": "test:3"}):
        found = run.explain(**what, backbone=backbone, device="cpu").explanation
        assert found.difference < 1e-5
        assert found.logits == pytest.approx(saved.tolist(), abs=2e-2)


def test_a_saved_head_predicts_the_same_in_a_new_process(cached, bert):
    folder, cache = cached
    run = fitted(folder, cache, heads.config("additive"))
    given = ["good film", "zzz qqq", "good"]
    here = prediction.Predictor(run, str(bert), device="cpu").predict(given).probabilities
    script = (
        "import json, sys, spacelite\n"
        f"run = spacelite.load_run({run.id!r}, {str(folder)!r})\n"
        f"found = run.predict({given!r}, backbone={str(bert)!r}, device='cpu', progress=False)\n"
        "print(json.dumps(found.probabilities.tolist()))"
    )
    done = processes.run(script)
    assert np.array(json.loads(done.stdout)) == pytest.approx(here, abs=1e-7), done.stderr


def test_tables_that_do_not_go_together_are_damaged(cached):
    from safetensors.numpy import load_file, save_file

    folder, cache = cached
    run = fitted(folder, cache, heads.config("additive"))
    path = run.folder / "head.safetensors"
    good = load_file(path)
    assert runs.load(run.folder).parameters.keys() == good.keys()
    record = json.loads((run.folder / "run.json").read_text())
    record.pop("checksums", None)
    files.write_json(run.folder / "run.json", record)
    for name in ("ngrams.weight", "ngrams.keys", "classifier.bias"):
        save_file({**good, name: np.ascontiguousarray(good[name][..., 1:])}, path)
        message = refusal(lambda: runs.load(run.folder).parameters)
        assert "do not fit" in message
    size = sum(value.nbytes for value in good.values())
    count, classes = len(good["ngrams.keys"]), len(good["classifier.bias"])
    assert size == count * (12 + 4 * classes) + 4 * (classes * 48 + classes)
    assert run.record.train_params == classes * (count + 48 + 1)


@pytest.mark.parametrize("examples", [200, 4000])
@pytest.mark.parametrize(
    "config",
    [
        heads.config("additive", blocks="mean"),
        heads.config("logreg", pooling="mean", C="auto"),
        heads.config("logreg", pooling="mean", C=1.0),
    ],
    ids=lambda config: config.description,
)
def test_the_memory_of_a_fit_is_estimated(config, examples):
    random = np.random.RandomState(0)
    vectors = random.normal(size=(examples, 500)).astype(np.float16)
    labels = (vectors[:, 0] > 0).astype(np.int64)
    given = Given(labels, vectors)
    fit = heads.kind(config.kind).fit
    fit(config, Given(labels[:20], vectors[:20]), Objective(SINGLE_LABEL, 2), "none")  # imports
    tracemalloc.start()
    fit(config, given, Objective(SINGLE_LABEL, 2), "none")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.6 < heads.kind(config.kind).fitting_bytes(config, examples, 500) / peak < 1.8


def test_too_little_memory_is_said_before_the_fit(cached, monkeypatch):
    folder, cache = cached
    monkeypatch.setattr(memory, "free_memory", lambda device: 4 * 48 * 90)
    message = refusal(fitted, folder, cache, heads.config("additive"))
    assert message.startswith("fitting additive (layers+ngrams) needs about 0.0 GB of memory")


@pytest.fixture
def place(tmp_path, bert):
    data = write_dataset(tmp_path / "data", {"train": 60, "validation": 20, "test": 20}, longest=12)
    spacelite.embed(str(data), backbone=str(bert), cache_dir=tmp_path, **QUIET)
    return tmp_path


@pytest.mark.usefixtures("with_baselines")
def test_the_preset_beside_others_in_table_and_report(place, bert):
    done = invoke("train", "--preset", "best", "--cache-dir", place, "--json")
    assert done.exit_code == 0, done.stderr
    systems = [each["system"] for each in json.loads(done.stdout)]
    assert systems == ["additive (layers+ngrams+attention) L=32", "tfidf", "logreg (mean)"]
    (first, *_) = json.loads(done.stdout)
    assert set(first["cross_validated"]) == {"C of layers", "C of ngrams"}
    # By its settings it is the same run.
    again = spacelite.train(
        cache_dir=place, head="additive", blocks="layers+attention+ngrams", max_ngram=3, latent=32,
        learning_rate=1e-3, weight_decay=0, epochs=3, batch_size=128, schedule="cosine",
        patience=3, monitor="ce", **QUIET,
    )  # fmt: skip
    assert again[0].id == first["id"]
    text = spacelite.report(cache_dir=place, examples=False, progress=False).text()
    assert "additive (layers+ngrams+attention)" in text
    verdict = " ".join(text.split())
    # It is a head, which is compared with the baselines, and none of these.
    assert "the best baseline, tfidf" in verdict or "the best baseline, logreg" in verdict
    assert "additive" in invoke("runs", "list", "--cache-dir", place, "--json").stdout


def test_interrupted_training_is_continued(place):
    arguments = {"head": ["space", "additive"], "epochs": 3, "cache_dir": place, "device": "cpu"}

    def interrupt(phase, done, total):
        if phase == "train" and done > 0.5 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spacelite.train(progress=interrupt, **arguments)
    found = spacelite.train(resume=True, progress=False, **arguments)
    other = spacelite.train(fresh=True, progress=False, **arguments)
    for one, two in zip(found, other, strict=True):
        for name, value in one.run.parameters.items():
            np.testing.assert_array_equal(value, two.run.parameters[name])


def test_blocks_are_put_in_one_order(place):
    one = heads.config("additive", blocks="ngrams+layers")
    assert one == heads.config("additive") and "blocks" not in one.hashed()
    assert one.name == "additive (layers+ngrams)"
    twice = spacelite.train(
        cache_dir=place, head="additive", blocks=["ngrams+mean", "mean+ngrams"], **QUIET
    )
    assert [run.record.system for run in twice] == ["additive (mean+ngrams)"]
    some = spacelite.train(cache_dir=place, head="additive", blocks=["ngrams", "mean"], **QUIET)
    assert [run.record.system for run in some] == ["additive (ngrams)", "additive (mean)"]


@pytest.mark.parametrize("blocks", ["", "concept", "layers+layers", "layers+", "Layers", 3, None])
def test_wrong_blocks_are_refused(blocks, place):
    with Cache(next((place / "embeddings").glob("*.h5"))) as cache:
        message = refusal(fitted, place, cache, heads.config("additive", blocks=blocks))
    shown = "''" if blocks == "" else blocks
    assert message == (
        f"blocks={shown}: give layers, mean, ngrams, space or attention, or several as in "
        "layers+ngrams"
    )


def test_what_layers_hold_already_is_refused(place):
    done = invoke("train", "--head", "additive", "--blocks", "layers+mean", "--cache-dir", place)
    assert done.exit_code != 0
    assert "--blocks layers+mean: layers holds the mean already: leave mean out" in done.stderr


@pytest.mark.parametrize("wrong", [1, 4, "2", None])
def test_wrong_lengths_of_ngrams_are_refused(wrong, place):
    with Cache(next((place / "embeddings").glob("*.h5"))) as cache:
        message = refusal(fitted, place, cache, heads.config("additive", max_ngram=wrong))
    assert message == f"max_ngram={wrong!r}: give a whole number from 2 to 3"


def test_settings_without_an_effect_make_no_other_head():
    one = heads.config("additive", blocks="layers", max_ngram=3, seed=4, latent=8, ensemble=2)
    assert one == heads.config("additive", blocks="layers")
    assert one.hashed() == heads.config("additive", blocks="layers").hashed()
    assert heads.config("additive", max_ngram=3) != heads.config("additive")


def test_wrong_presets_are_refused(place):
    for arguments, said in (
        (["--preset", "worst"], "--preset worst: choose from best"),
        (["--preset", "best", "--head", "space"], "--head space: --preset best chooses"),
        (["--preset", "best", "--blocks", "mean"], "--blocks mean: --preset best chooses"),
        (["--preset", "best", "--epochs", "5"], "--epochs 5: --preset best chooses"),
        (["--preset", "best", "--max-ngram", "2,3"], "--max-ngram 2,3: --preset best chooses"),
        (
            ["--head", "space", "--blocks", "mean"],
            "--blocks mean has no effect on space",
        ),
    ):
        done = invoke("train", *arguments, "--cache-dir", place)
        assert done.exit_code != 0 and said in " ".join(done.stderr.split()), done.stderr


def test_a_cache_without_layer_means(bert, reviews, tmp_path):
    spacelite.embed(reviews, backbone=bert, cache_dir=tmp_path, layers=False, **QUIET)
    message = refusal(spacelite.train, cache_dir=tmp_path, preset="best", **QUIET)
    assert "has no layer means: run its embed command again with layers=True" in message
    (run,) = spacelite.train(cache_dir=tmp_path, head="additive", blocks="mean+ngrams", **QUIET)
    assert run.predict(["good"], backbone=bert, **QUIET)[0]["label"] in ("0", "1")


def test_the_defaults_hold_for_older_runs():
    assert heads.config("additive").hashed() == dict.fromkeys(heads.HeadConfig.ALWAYS_HASHED)
    assert heads.config_from("additive", {}) == heads.config("additive")
    assert known_blocks("layers+ngrams") is None
    assert centred(np.ones((2, 2))).sum() == 0
