"""Cross-validation: folds against scikit-learn, heads against training them alone, figures against
scikit-learn's metrics, the corrected t-test against its formula."""

import csv
import json

import numpy as np
import pytest
from conftest import embed, invoke, refusal, texts, write_dataset
from scipy import stats
from sklearn import metrics as sk
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

import spacelite
from spacelite import heads
from spacelite.cache.store import Cache
from spacelite.metrics.significance import resampled
from spacelite.studies.cross_validation import cross_validate, divide
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL
from spacelite.training.config import TrainingConfig
from spacelite.training.loop import Member, train_weighted

TRAINING = TrainingConfig(epochs=3, batch_size=16)
CONFIGS = [
    heads.config("space", learning_rate=0.02), heads.config("space", inter=0.2, learning_rate=0.02),
    heads.config("linear", pooling="mean", learning_rate=0.02),
    heads.config("logreg", pooling="mean", C=0.5), heads.config("tfidf", C=2.0),
    heads.config("additive", blocks="mean+ngrams"),
]  # fmt: skip


@pytest.fixture(scope="module")
def cache(bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cv")
    data = write_dataset(folder / "data", {"train": 120, "validation": 10}, classes=3, longest=12)
    done = embed(backbone=str(bert), dataset=str(data), cache_dir=folder, device="cpu")
    with Cache(done.path) as opened:
        yield opened


@pytest.fixture(scope="module")
def found(cache):
    return cross_validate(cache, CONFIGS, TRAINING, folds=4, repeats=2, seed=3)


def test_folds_are_those_of_scikit_learn(cache):
    labels = cache.splits["train"].labels
    own = divide(labels, cache.task, cache.label_names, count=5, repeats=3, seed=7)
    groups = np.random.default_rng(0).integers(0, 30, len(labels))
    grouped = divide(
        labels, cache.task, cache.label_names, count=5, repeats=3, seed=7, groups=groups
    )
    for repeat in range(3):
        options = {"n_splits": 5, "shuffle": True, "random_state": 7 + repeat}
        for number, (_, held) in enumerate(StratifiedKFold(**options).split(labels, labels)):
            assert np.array_equal(np.flatnonzero(own[repeat] == number), held)
        maker = StratifiedGroupKFold(**options)
        for number, (_, held) in enumerate(maker.split(labels, labels, groups)):
            assert np.array_equal(np.flatnonzero(grouped[repeat] == number), held)
        for group in np.unique(groups):
            assert len(np.unique(grouped[repeat][groups == group])) == 1
    labels = np.random.default_rng(1).integers(0, 2, (40, 3))
    several = divide(labels, MULTI_LABEL, ["a", "b", "c"], count=4)
    assert np.bincount(several[0]).tolist() == [10] * 4


def test_texts_that_repeat_are_in_one_fold(caplog):
    """Alone and with groups: what is connected by either stays together."""
    caplog.set_level("INFO")
    labels = np.arange(60) % 2
    same = np.arange(60) // 6 * 2 + labels  # each text three times
    plain = {"labels": labels, "task": SINGLE_LABEL, "label_names": ["a", "b"], "count": 3}
    fold = divide(**plain, repeats=2, same=same)
    for repeat in fold:
        assert all(len({*repeat[same == number]}) == 1 for number in range(20))
    assert "40 of 60 training texts repeat another one and are kept in one fold" in caplog.text
    groups = np.where(np.arange(60) < 54, np.arange(60), np.arange(60) % 6)  # the last as the first
    joined = np.where(same >= 18, same - 18, same)
    (fold,) = divide(**plain, same=same, groups=groups)
    assert all(len({*fold[joined == number]}) == 1 for number in range(18))
    assert np.array_equal(divide(**plain, same=np.arange(60)), divide(**plain))
    assert "the examples have 2 different texts, and each" in refusal(
        divide, **plain, same=same % 2
    )
    alone = refusal(divide, **{**plain, "labels": np.arange(60) // 59})
    assert "label 'b' has 1 training example, and each fold needs one: give more examples" in alone
    divide(**plain, groups=np.arange(60))
    assert "every training example has a group of its own" in caplog.text


def test_texts_that_repeat_tell_nothing_about_random_labels(bert, tmp_path):
    """Copies of a text, whatever their case, in training would tell its label."""
    own = [f"{text} {number:b}" for number, text in enumerate(texts(60, seed=5))]
    labels = np.random.default_rng(0).integers(0, 2, 60).tolist() * 3
    there = {"backbone": bert, "device": "cpu", "cache_dir": tmp_path, "progress": False}
    frame = {"train": (own * 2 + [text.upper() for text in own], labels),
             "validation": (["nice"], [0])}  # fmt: skip
    cache = spacelite.embed(frame, **there)
    options = {"head": "tfidf", "baselines": False, "progress": False}
    found = spacelite.cross_validate(cache, **options, groups=[n % 30 for n in range(180)])
    folds = found.result.fold[0].reshape(3, 2, 30)
    assert (folds == folds[0, 0]).all()
    assert "180 training examples, divided into 5 folds, each of 30 groups in one fold." in str(
        found
    )
    found = spacelite.cross_validate(cache, **options)
    assert (found.result.fold[0].reshape(3, 60) == found.result.fold[0][:60]).all()
    assert found.result.named["tfidf"].mean("accuracy") < 0.75
    assert spacelite.audit(cache, head="tfidf", progress=False).result.accuracy < 0.75


def test_a_fold_is_scored_by_the_head_that_did_not_see_it(cache, found):
    labels = cache.splits["train"].labels
    for config in CONFIGS[:3]:
        (system,) = [one for one in found.systems if one.head == config]
        for repeat, number in ((0, 1), (1, 3)):
            held = found.fold[repeat] == number
            member = Member(config, (~held).astype(np.float32))
            (alone,) = train_weighted(cache, [member], TRAINING)
            np.testing.assert_allclose(
                system.logits[repeat, held], alone.logits[held], rtol=1e-3, atol=1e-4
            )
    for system in found.systems:
        for repeat in range(2):
            for number in range(4):
                held = found.fold[repeat] == number
                logits, own = system.logits[repeat, held], labels[held]
                chances = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(float)
                chances /= chances.sum(axis=1, keepdims=True)
                predicted = logits.argmax(axis=1)
                expected = {
                    "accuracy": sk.accuracy_score(own, predicted),
                    "f1_macro": sk.f1_score(own, predicted, average="macro", zero_division=0),
                    "ce": sk.log_loss(own, chances, labels=[0, 1, 2]),
                }
                for name, value in expected.items():
                    assert system.figures[name][repeat, number] == pytest.approx(value, abs=1e-5)


def test_baselines_are_fitted_to_what_they_may_see(cache, found):
    """Logistic regression on means, and on TF-IDF of which the vocabulary and weights are those of
    the other folds alone."""
    split = cache.splits["train"]
    bounds = list(zip(split.offsets[:-1], split.offsets[1:], strict=True))
    hidden = split.read_hidden(0, len(split)).astype(np.float64)
    means = np.array([hidden[low:high].mean(axis=0) for low, high in bounds])
    ids = split.read_token_ids()
    words = [" ".join(f"w{one}" for one in ids[low + 1 : high - 1]) for low, high in bounds]
    systems = {one.head.kind: one for one in found.systems}
    for repeat, number in ((0, 0), (1, 2)):
        seen, held = found.fold[repeat] != number, found.fold[repeat] == number
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, token_pattern=r"\S+")
        rows = vectorizer.fit_transform([words[example] for example in np.flatnonzero(seen)])
        new = vectorizer.transform([words[example] for example in np.flatnonzero(held)])
        for kind, train, test, strength in (
            ("logreg", means[seen], means[held], 0.5), ("tfidf", rows, new, 2.0),
        ):  # fmt: skip
            model = LogisticRegression(C=strength, max_iter=5000, tol=1e-8)
            model.fit(train, split.labels[seen])
            logits = systems[kind].logits[repeat, held]
            logits = logits - logits.mean(axis=1, keepdims=True)
            expected = model.decision_function(test)
            expected = expected - expected.mean(axis=1, keepdims=True)
            np.testing.assert_allclose(logits, expected, atol=5e-3)


def test_the_corrected_t_test_is_its_formula():
    random = np.random.default_rng(4)
    for count, folds_each in ((5, 5), (10, 5), (20, 10)):
        values = random.normal(0.02, 0.03, count)
        share = 1 / folds_each
        difference, p = resampled(values, share)
        error = np.sqrt(values.var(ddof=1) * (1 / count + share / (1 - share)))
        t = values.mean() / error
        assert difference.value == pytest.approx(values.mean())
        assert p == pytest.approx(2 * stats.t.sf(abs(t), count - 1))
        low, high = stats.t.interval(0.95, count - 1, values.mean(), error)
        assert difference.interval == pytest.approx((low, high))
    assert resampled(np.zeros(5), 0.2)[1] == 1 and resampled(np.full(5, 0.1), 0.2)[1] == 0


def test_the_test_errs_less_often_than_the_plain_one():
    """Two equal systems on data that are drawn anew: overlapping training sets make the plain
    t-test err too often."""
    random = np.random.default_rng(5)
    wrong, plain = 0, 0
    for _ in range(400):
        shared = random.normal(0, 0.5)  # what all folds of a data set have in common
        values = shared + random.normal(0, 1, 10)
        wrong += resampled(values, 0.2)[1] < 0.05
        plain += stats.ttest_1samp(values, 0).pvalue < 0.05
    assert wrong < plain / 2 and wrong < 0.08 * 400


def test_python_and_the_command_say_the_same(cache, tmp_path, with_baselines):
    options = {"folds": 3, "head": ["space", "logreg"], "pooling": "mean", "inter": [0, 0.2]}
    found = spacelite.cross_validate(
        str(cache.path), **options, epochs=2, batch_size=16, progress=False, cache_dir=tmp_path
    )
    assert list(found.figures()) == [name for name, _ in found.result.named.items()]
    assert {"space", "space + inter 0.2", "logreg (mean)", "tfidf"} == set(found.figures())
    chances = found.probabilities()["tfidf"]
    assert chances.shape == (1, 120, 3) and chances.sum(axis=2) == pytest.approx(1)
    command = [
        "cv", "--cache", str(cache.path), "--folds", "3", "--head", "space,logreg", "--pooling",
        "mean", "--inter", "0,0.2", "--epochs", "2", "--batch-size", "16", "--cache-dir",
        str(tmp_path),
    ]  # fmt: skip
    done = invoke(*command, "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    for system in printed["systems"]:
        expected = found.figures("f1_macro")[system["system"]]
        assert np.array(system["folds"]["f1_macro"]) == pytest.approx(expected)
    assert printed["folds"] == 3 and printed["baseline"] in found.figures()
    shown = invoke(*command, env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    text = " ".join(shown.split())
    assert "Means ± standard deviations over 3 held-out folds: 120 training examples" in text
    assert "corrected resampled t-test" in text and "It is the best of 2 heads" in text
    assert not list(tmp_path.glob("runs/*"))
    assert "held-out folds" in str(found) and "<table" in found._repr_html_()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"folds": 1}, "folds=1: give a whole number from 2 to 1,000"),
        ({"repeats": 0}, "repeats=0: give a whole number from 1 to 1,000"),
        ({"seed": -1}, "seed=-1: give a whole number from 0"),
        ({"folds": 80}, "training examples, and each fold needs one: use fewer folds"),
        ({"groups": [1, 2]}, "there are 120 training examples (of 120 rows of data) and 2 val"),
        ({"groups": [0] * 60 + [1] * 60}, "the examples have 2 groups, and each fold needs one"),
        ({"head": "forest"}, "choose from space"),
        ({"head": "logreg", "pooling": "nowhere"}, "pooling=nowhere"),
        ({"epochs": 0}, "epochs=0"),
    ],
)
def test_what_cannot_be_done_is_one_line(options, said, cache, tmp_path, caplog):
    caplog.set_level("INFO")
    message = refusal(
        spacelite.cross_validate, str(cache.path), cache_dir=tmp_path, progress=False, **options
    )
    assert said in message
    assert "fitting" not in caplog.text, "settings are checked before anything begins"


def test_a_group_that_holds_a_label_is_refused(bert, tmp_path):
    own = texts(40, seed=8)
    labels = ["a"] * 10 + ["b"] * 30
    there = {"backbone": bert, "device": "cpu", "cache_dir": tmp_path, "progress": False}
    cache = spacelite.embed({"train": (own, labels), "validation": (own[:2], ["a", "b"])}, **there)
    groups = [0] * 10 + list(range(1, 31))
    message = refusal(
        spacelite.cross_validate, cache, groups=groups, folds=2, epochs=1, progress=False
    )
    assert "have the same label, of which its head would learn nothing: use other" in message


def test_predictions_of_unseen_examples_are_written(cache, found, tmp_path):
    out = tmp_path / "held out.csv"
    spacelite.CrossValidated(found, spacelite.find_cache(cache.path)).save(out)
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels, names = cache.splits["train"].labels, cache.label_names
    assert [int(row["index"]) for row in rows] == list(range(120))
    assert [int(row["row"]) for row in rows] == list(range(1, 121))
    assert {row["file"] for row in rows} == {"train.jsonl"}
    assert [row["label"] for row in rows] == [names[label] for label in labels]
    for repeat in range(2):
        said = f" (repeat {repeat + 1})"
        assert [int(row[f"fold{said}"]) for row in rows] == found.fold[repeat].tolist()
        for head, system in found.named.items():
            logits = system.logits[repeat].astype(float)
            chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            for number, name in enumerate(names):
                own = [float(row[f"{head}{said} probability_{name}"]) for row in rows]
                assert own == pytest.approx(chances[:, number], abs=1e-6)
            predicted = [row[f"{head}{said} predicted"] for row in rows]
            assert predicted == [names[label] for label in chances.argmax(axis=1)]
            right = np.array([row["label"] for row in rows]) == predicted
            figures = [right[found.fold[repeat] == fold].mean() for fold in range(4)]
            assert figures == pytest.approx(system.figures["accuracy"][repeat])
    assert len(rows[0]) == 4 + 2 * (1 + len(CONFIGS) * 4)


def test_the_command_writes_predictions(cache, tmp_path):
    out = tmp_path / "held.csv"
    command = ["cv", "--cache", str(cache.path), "--folds", "3", "--head", "logreg",
               "--cache-dir", str(tmp_path), "--out"]  # fmt: skip
    done = invoke(*command, out)
    assert done.exit_code == 0, done.output
    assert f"written to {out}" in done.stdout
    header, *lines = out.read_text().splitlines()
    assert header == (
        "index,file,row,label,fold,logreg (first) predicted,logreg (first) probability_0,"
        "logreg (first) probability_1,logreg (first) probability_2"
    )
    assert len(lines) == 120
    refused = invoke(*command, tmp_path / "no" / "f.csv")
    assert refused.exit_code == 1 and "there is no folder" in refused.stderr


def test_predictions_of_several_labels_have_semicolons(bert, tmp_path):
    own = texts(30, seed=2)
    labels = [[name for name in ("a", "film") if name in text.split()] for text in own]
    there = {"backbone": bert, "device": "cpu", "cache_dir": tmp_path, "progress": False}
    cache = spacelite.embed(texts=own, labels=labels, **there)
    found = spacelite.cross_validate(
        cache, head="logreg", folds=2, baselines=False, progress=False, device="cpu"
    )
    found.save(tmp_path / "held.csv")
    with (tmp_path / "held.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with cache.open() as opened:
        expected = [opened.task.label_names(one, opened.label_names)
                    for one in opened.splits["train"].labels]  # fmt: skip
    assert [row["labels"] for row in rows] == [";".join(one) for one in expected]
    assert any(";" in row["labels"] for row in rows)
    for row in rows:
        given = [name for name in ("a", "film") if float(row[f"logreg (first) probability_{name}"])
                 > 0.5]  # fmt: skip
        assert row["logreg (first) predicted"] == ";".join(given)
    assert "cannot be written" in refusal(found.save, tmp_path / "no" / "f.csv")


def test_the_preset_and_class_weights(cache_path, tmp_path):
    """Heads on top of others, with the settings of the preset but for early stopping; what is given
    beside a preset that chooses it is refused."""
    from spacelite.api.results import EmbeddedDataset

    cache = EmbeddedDataset(cache_path, tmp_path)
    options = {"folds": 3, "baselines": False, "progress": False}
    found = spacelite.cross_validate(cache, preset="best", **options)
    (system,) = found.result.systems
    assert system.head.blocks == "layers+ngrams+attention" and system.head.latent == 32
    assert np.isfinite(system.logits).all()
    message = refusal(spacelite.cross_validate, cache, preset="best", latent=3, **options)
    assert "latent=3: preset=best chooses this itself" in message
    plain = spacelite.cross_validate(cache, head="linear", **options)
    weighted = spacelite.cross_validate(cache, head="linear", class_weights="balanced", **options)
    assert plain.figures("ce")["linear (first)"].tolist() != (
        weighted.figures("ce")["linear (first)"].tolist()
    )
    several = spacelite.cross_validate(cache, head="space", ensemble=2, **options)
    assert "ensemble" in str(several) or several.result.systems[0].head.ensemble == 2


def test_seeds_are_systems_of_their_own(cache):
    result = spacelite.cross_validate(
        str(cache.path), head="linear", seeds=2, epochs=2, folds=3, progress=False
    ).result
    assert {"linear (first), seed 0", "linear (first), seed 1"} <= result.named.keys()
    assert len(result.named) == len(result.systems)
    assert result.sentences
