"""Pairs of texts, such as a premise and a hypothesis: encoded as plain transformers encodes them,
and taken through all that single texts go through."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import WORDS, _xlnet_tokenizer, invoke, refusal, texts, wordpiece
from test_architectures import save

import spacelite
from spacelite.backbones.plain_tokenizer import plain_tokenizer
from spacelite.cache import texts as cached_texts
from spacelite.cache.store import Cache
from spacelite.data import loading
from spacelite.data.splits import Pair, as_bytes, folded

CLS, SEP = "[CLS]", "[SEP]"


def template(*parts: str) -> list[dict]:
    """The parts of a tokenizer's template, such as `[CLS]:0` and `$A:0`."""
    kinds = {True: "Sequence", False: "SpecialToken"}
    return [
        {kinds[name.startswith("$")]: {"id": name.removeprefix("$"), "type_id": int(segment)}}
        for name, segment in (part.rsplit(":", 1) for part in parts)
    ]


# Backbone -> its post-processor of a pair; None for what a file without one does: a text follows
# the other.
BERT = template("[CLS]:0", "$A:0", "[SEP]:0", "$B:1", "[SEP]:1")
PAIRS = {
    "bert": BERT,
    "distilbert": BERT,
    "roberta": template("[CLS]:0", "$A:0", "[SEP]:0", "[SEP]:0", "$B:0", "[SEP]:0"),
    "xlnet": template("$A:0", "<sep>:0", "$B:1", "<sep>:1", "<cls>:2"),
    "t5, encoder alone": template("$A:0", "[SEP]:0", "$B:0", "[SEP]:0"),
    "gpt2": None,
}


def backbone(kind: str, folder):
    """A tiny model with a tokenizer that encodes pairs as its kind does."""
    size = _xlnet_tokenizer(folder) if kind == "xlnet" else wordpiece(folder)
    padding = {} if kind in ("xlnet", "gpt2") else {"pad_token_id": 0}
    save(kind, folder, vocab_size=size, **padding)
    path, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    content, config = json.loads(path.read_text()), json.loads(settings.read_text())
    if PAIRS[kind] is None:
        content["post_processor"] = None
    else:
        content["post_processor"]["pair"] = PAIRS[kind]
    if kind in ("bert", "distilbert"):
        config["tokenizer_class"] = {"bert": "BertTokenizer"}.get(kind, "DistilBertTokenizer")
    if kind not in ("bert", "xlnet"):
        config["model_input_names"] = ["input_ids", "attention_mask"]
    path.write_text(json.dumps(content))
    settings.write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return backbone("bert", tmp_path_factory.mktemp("backbones") / "pair-bert")


def inferences(count: int, seed: int = 0) -> list[tuple[str, str, str]]:
    """Premises and hypotheses that share their nouns or not, and the relation between the two: it
    is in the pair, and in neither text alone."""
    random = np.random.RandomState(seed)
    nouns, rest = (
        ["film", "plot", "story", "scene"],
        ["the", "was", "very", "well", "acted", "slow"],
    )
    rows = []
    for _ in range(count):
        one, other = random.choice(nouns, 2, replace=False)
        label = random.choice(["entailment", "contradiction"])
        second = one if label == "entailment" else other
        words = [" ".join(random.choice(rest, random.randint(1, 9))) for _ in range(2)]
        rows.append((f"the {one} {words[0]}", f"a {second} {words[1]}", label))
    return rows


@pytest.fixture(scope="module")
def nli(tmp_path_factory):
    """A folder of pairs: splits of csv, jsonl and parquet."""
    folder = tmp_path_factory.mktemp("data") / "nli"
    folder.mkdir()
    splits = {"train": 120, "validation": 30, "test": 30}
    for seed, (split, size) in enumerate(splits.items()):
        frame = pd.DataFrame(inferences(size, seed), columns=["premise", "hypothesis", "label"])
        if split == "train":
            frame.to_csv(folder / "train.csv", index=False)
        elif split == "test":
            frame.to_parquet(folder / "test.parquet")
        else:
            frame.to_json(folder / "validation.jsonl", orient="records", lines=True)
    return folder


COLUMNS = "premise,hypothesis"


@pytest.fixture(scope="module")
def cache(bert, nli, tmp_path_factory):
    return spacelite.embed(
        str(nli), backbone=bert, text_column=COLUMNS, cache_dir=tmp_path_factory.mktemp("cache"),
        dtype="float32", device="cpu", progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(cache):
    runs = spacelite.train(cache, head=["logreg"], pooling="mean", baselines=False, progress=False)
    return runs[0]


def plain_states(folder, pairs, max_length=256, layer=-1, padding=False):
    """The hidden states of pairs by plain transformers, each alone."""
    from transformers import AutoModel, AutoTokenizer, T5EncoderModel

    is_t5 = "T5EncoderModel" in (folder / "config.json").read_text()
    model = (T5EncoderModel if is_t5 else AutoModel).from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    states = []
    for first, second in pairs:
        given = tokenizer(
            first, second, truncation="longest_first", max_length=max_length, return_tensors="pt",
            padding="max_length" if padding else False,
        )  # fmt: skip
        with torch.inference_mode():
            states.append(model(**given, output_hidden_states=True).hidden_states[layer][0].numpy())
    return states


SOME = [
    ("the film was great", "a film"), ("a film", "the film was great"), ("good", "bad"),
    (" ".join(WORDS), "a b c"), ("not", " ".join(WORDS * 2)), (" ".join(WORDS), " ".join(WORDS)),
]  # fmt: skip


@pytest.mark.parametrize("kind", PAIRS)
def test_hidden_states_are_those_of_plain_transformers(kind, tmp_path, caplog):
    """Whole and cut off, the longer text first; padded; without the first token; of two layers."""
    folder = backbone(kind, tmp_path / "tiny")
    assert (plain_tokenizer(folder) is not None) == (kind != "gpt2")
    given = {
        "dataset": {"train": (SOME, [0, 1] * 3), "validation": (SOME[:2], [0, 1])},
        "backbone": folder, "dtype": "float32", "cache_dir": tmp_path, "device": "cpu",
        "progress": False, "reuse": False,
    }  # fmt: skip

    def compare(expected, embedded):
        for found, states in zip(embedded["train"], expected, strict=True):
            np.testing.assert_allclose(found[0], states, rtol=2e-4, atol=2e-5)
        assert embedded["validation"].texts == SOME[:2]
        assert [*map(type, embedded["train"].texts)] == [Pair] * 6

    compare(plain_states(folder, SOME), spacelite.embed(**given))
    special = 0 if PAIRS[kind] is None else len(PAIRS[kind]) - 2
    longer = sum(len(f"{a} {b}".split()) + special > 20 for a, b in SOME)
    with caplog.at_level("INFO"):
        two = spacelite.embed(**given, max_length=20, layer=[-1, 1])
    said = f"{longer} of 8 pairs are longer than 20 tokens and were cut off, the longer text first"
    assert said in caplog.text
    cut = plain_states(folder, SOME, 20)
    compare(cut, two)
    compare(plain_states(folder, SOME, 20, layer=1), two.others[0])
    skipped = spacelite.embed(**given, max_length=20, skip_first=True)
    compare([states[1:] for states in cut], skipped)
    if kind != "gpt2":
        padded = spacelite.embed(**given, max_length=60, padding="max_length")
        compare(plain_states(folder, SOME, 60, padding=True), padded)


def test_a_pair_is_neither_its_joined_texts_nor_the_swapped_pair(bert, tmp_path, calls):
    """For hashes, keys, stores and what is copied from other caches."""
    one, swapped = Pair("good film", "bad plot"), Pair("bad plot", "good film")
    moved = Pair("good film bad", "plot")
    for join in ("", " ", "\n", " | ", f" {SEP} "):
        assert folded(one) != folded(join.join(one))
        assert as_bytes(one) != as_bytes(join.join(one))
    assert len({*map(as_bytes, (one, swapped, moved))}) == 3
    assert len({*map(folded, (one, swapped, moved))}) == 3
    assert as_bytes(one) != as_bytes(one.first) + as_bytes(one.second)
    # The same token ids as the pair, but for BERT not the same segments.
    single, own = f"good film {SEP} bad plot", (f"good {SEP} film", "bad plot")
    given = {"labels": [0, 1], "backbone": bert, "cache_dir": tmp_path, "device": "cpu",
             "progress": False, "dtype": "float32", "padding": "none"}  # fmt: skip

    def embed(*texts, **settings):
        data = {"train": (list(texts), [0, 1]), "validation": (list(texts), [0, 1])}
        settings = {**given, **settings}
        del settings["labels"]
        return spacelite.embed(data, **settings)

    singles = embed(single, "a plot")
    pairs = embed(tuple(one), tuple(swapped))
    assert pairs.copied == 0 and pairs.name != singles.name
    states = plain_states(bert, [one])[0]
    assert np.abs(singles["train"].tokens(0) - states).max() > 0.1
    np.testing.assert_allclose(pairs["train"].tokens(0), states, atol=2e-5)
    # Pairs that hold separators of their own are never taken for others of the same ids.
    unclear = ("good", f"film {SEP} bad plot")
    again = embed(own, unclear)
    for number, pair in enumerate((own, unclear)):
        (states,) = plain_states(bert, [pair])
        np.testing.assert_allclose(again["train"].tokens(number), states, atol=2e-5)
    del calls[:]
    assert embed(tuple(one), ("a", "plot")).copied == 2
    assert sum(calls) == 1


def test_columns_of_pairs(nli, bert, tmp_path):
    """Their names, rows without one of the two texts, and settings that pairs cannot have."""
    given = {"backbone": bert, "cache_dir": tmp_path, "progress": False}
    read = lambda **how: loading.read(str(nli), **how)  # noqa: E731
    data, swapped = read(text_column=COLUMNS), read(text_column=("hypothesis", "premise"))
    assert data.are_pairs and data.text_column == COLUMNS
    assert [*data.splits["test"].texts] == [Pair(*row[:2]) for row in inferences(30, 2)]
    assert swapped.fingerprint != data.fingerprint
    assert swapped.splits["train"].texts[3] == data.splits["train"].texts[3][::-1]
    wrong = {
        "premise,hypotesis": "no column 'hypotesis' (did you mean 'hypothesis'?): its columns are "
        "'premise', 'hypothesis', 'label'",
        "premise,hypothesis,label": "name one column of texts, or two different ones",
        "premise,premise": "name one column of texts, or two different ones",
    }
    for named, said in wrong.items():
        assert said in refusal(read, text_column=named)
    said = refusal(read, text_column="premise,label", label_column="label")
    assert "text_column and label_column both name 'label'" in said
    frame = pd.DataFrame(inferences(40), columns=["a,b", "c", "label"])
    both = loading.read(frame, text_column="a,b,c")
    assert both.splits["train"].texts[0] == Pair(*frame.iloc[0, :2])
    assert not loading.read(frame, text_column="a,b").are_pairs
    # A missing half is what a missing text is.
    for missing in (None, float("nan"), "", " "):
        lacking = frame.astype(object)
        lacking.loc[2, "c"] = missing
        said = refusal(loading.read, lacking, text_column="a,b,c")
        assert "1 pair lacks a text (empty 'c': 1), the first in row 3: correct" in said
        kept = loading.read(lacking, text_column="a,b,c", skip_empty=True)
        assert sum(map(len, kept.splits.values())) == 39
    lacking.loc[[1, 2, 5], "a,b"] = ""  # both halves are counted at once, each pair once
    said = refusal(loading.read, lacking, text_column="a,b,c")
    assert "3 pairs lack a text (empty 'a,b': 3, 'c': 1), the first in row 2: correct" in said
    pairs = [row[:2] for row in inferences(8)]
    said = refusal(loading.read, texts=[*pairs, "a film"], labels=[0, 1, 0, 1, 0, 1, 0, 1, 1])
    assert said == (
        "texts: text 9 is no pair, and others are: give two texts for each example, or one"
    )
    said = refusal(loading.read, texts=[*pairs, ("a", None)], labels=[0, 1] * 4 + [1])
    assert "(empty 'text_pair': 1), the first in row 9" in said
    mixed = {"train": (pairs, [0, 1] * 4), "test": (["a", "b"], [0, 1])}
    assert "has single texts, another split has pairs of texts" in refusal(loading.read, mixed)
    for name, value in (("windows", True), ("prefix", "query: ")):
        said = refusal(spacelite.embed, texts=pairs, labels=[0, 1] * 4, **given, **{name: value})
        assert said.startswith(f"{name}={value} is for single texts, and these are pairs")
    said = refusal(spacelite.embed, texts=pairs, labels=[0, 1] * 4, **given, max_length=4)
    assert "takes 5 to" in said


def test_texts_of_pairs_are_kept(cache, nli):
    with Cache(cache.path) as opened:
        assert opened.spec.pairs and opened.spec.as_json()["pairs"] is True
        written = cached_texts.read(opened, "test")
        assert written.text(7) == Pair(*inferences(30, 2)[7][:2])
        assert cached_texts.recorded(cache.path, "text_column") == COLUMNS
        assert len({*cached_texts.numbered(opened, "train").tolist()}) > 100
    again = spacelite.embed(
        str(nli), backbone=cache.backbone, text_column=COLUMNS, cache_dir=cache.cache_dir,
        dtype="float32", device="cpu", progress=False,
    )  # fmt: skip
    assert again.hit


def test_predictions_for_pairs(run, cache, bert, nli, tmp_path, caplog):
    """In Python, of files and on the command line; single texts are refused, and the other way
    round."""
    pairs = [row[:2] for row in inferences(30, 2)]
    saved = run.run.predictions()
    wanted = run.record.task.probabilities(saved.logits)
    how = {"backbone": bert, "device": "cpu", "progress": False}
    found = run.predict(pairs, **how)
    np.testing.assert_allclose(found.probabilities, wanted, atol=1e-5)
    frame = pd.DataFrame(inferences(30, 2), columns=["premise", "hypothesis", "label"])
    arrays = (np.array(pairs), list(map(list, pairs)), frame, iter(pairs))
    for given in arrays:
        np.testing.assert_allclose(run.predict(given, **how).probabilities, wanted, atol=1e-5)
    swapped = run.predict(frame, text_column=["hypothesis", "premise"], **how)
    assert np.abs(swapped.probabilities - wanted).max() > 1e-3
    assert found[3] | {"text": pairs[3][0], "text_pair": pairs[3][1]} == found[3]
    assert [*found.to_frame().columns[:2]] == ["text", "text_pair"]
    assert " | ".join(pairs[0]) in str(found)
    out = tmp_path / "out.csv"
    run.predict_file(nli / "test.parquet", out, **how)
    table = pd.read_csv(out)
    assert [*table.columns[:3]] == ["premise", "hypothesis", "label"]
    of_first = table[f"probability_{run.labels[0]}"]
    np.testing.assert_allclose(of_first, wanted[:, 0], rtol=1e-4)
    single = tmp_path / "single.csv"
    single.write_text("text,label\na film,x\n")
    said = refusal(run.predict, ["a film"], **how)
    assert said == (
        f"run {run.id} was trained on pairs of texts, and text 1 is a single one: give two for "
        "each example, as (first, second) or in two columns (text_column=A,B)"
    )
    assert f"and {single} has single ones" in refusal(run.predict_file, single, out, **how)
    assert "data set single has single ones" in refusal(run.evaluate, str(single), backbone=bert)
    said = refusal(run.predict, [("a film", "")], **how)
    assert "text 1 is a pair whose second text is empty" in said
    assert "text 1 is no pair of texts" in refusal(run.predict, [("a", "b", "c")], **how)
    assert "give one text (a string), or two as a pair" in refusal(run.explain, ["a"], **how)
    with caplog.at_level("WARNING"):
        run.predict([(" ".join(WORDS * 9), "a film"), ("a", "plot")], **how)
    assert "1 of 2 pairs are longer than 128 tokens: the rest is ignored, of the" in caplog.text
    data = {"train": (texts(40), [0, 1] * 20)}
    (other,) = spacelite.train(
        spacelite.embed(data, backbone=bert, cache_dir=tmp_path, progress=False, device="cpu"),
        head="logreg", pooling="mean", progress=False,
    )  # fmt: skip
    said = refusal(other.predict, pairs, **how)
    assert "was trained on single texts, and text 1 is a pair: give a single text" in said
    assert "trained on single texts" in refusal(other.evaluate, cache=cache)
    assert "data set nli has pairs" in refusal(
        other.evaluate, str(nli), text_column=COLUMNS, backbone=bert
    )

    def command(*arguments):
        options = ["--backbone", str(bert), "--cache-dir", str(cache.cache_dir)]
        result = invoke(*arguments, *options)
        return result.exit_code, result.stdout, " ".join(result.stderr.split())

    first, second = pairs[0]
    code, printed, _ = command("predict", run.id, first, "--pair", second, "--json")
    (row,) = json.loads(printed)
    assert code == 0 and (row["text"], row["text_pair"]) == (first, second)
    assert row["probabilities"][run.labels[0]] == pytest.approx(wanted[0, 0], abs=1e-5)
    _, printed, _ = command("predict", run.id, first, "--pair", second, "--csv")
    assert printed.startswith("text,text_pair,label,unknown,")
    code, _, said = command("predict", run.id, first)
    assert code and "was trained on pairs of texts: give one text, and the second one with" in said
    code, _, said = command("explain", run.id, first)
    assert code and "give one text, and the second one with --pair" in said
    code, _, said = command("predict", run.id, first, first, "--pair", second)
    assert code and "--pair needs one text before it" in said
    _, printed, _ = command("explain", run.id, first, "--pair", second, "--json")
    assert json.loads(printed)["text"] == [first, second]
    code, printed, _ = command("explain", run.id, first, "--pair", second)
    assert code == 0 and " | " in printed and "(2)" in printed


def test_explanations_of_pairs(run, cache, bert, tmp_path):
    how = {"backbone": bert, "device": "cpu", "progress": False}
    pair = ("the film was Zzz", "a Film acted")
    explained = run.explain(pair, **how)
    found = explained.explanation
    total = np.asarray(found.bias) + np.sum([word.contributions for word in found.words], axis=0)
    np.testing.assert_allclose(total, found.logits, atol=1e-5)
    written = [(word.text, word.of_text) for word in found.words]
    assert written == [
        (CLS, None), ("the", 1), ("film", 1), ("was", 1), ("Zzz", 1), (SEP, None),
        ("a", 2), ("Film", 2), ("acted", 2), (SEP, None),
    ]  # fmt: skip
    assert " | a(" in str(explained)
    content = found.as_json()
    assert content["text"] == pair and content["words"][2]["of_text"] == 1
    page = explained.save(tmp_path / "page.html").read_text()
    assert "Film (2)" in page and "film (1)" in page and "which of the two texts" in page
    of_cache = run.explain(example="test:0", **how).explanation
    assert of_cache.text == Pair(*inferences(30, 2)[0][:2])
    assert {word.of_text for word in of_cache.words} == {None, 1, 2}
    # A head on all layers runs the backbone again, with the segments of the pair.
    (layers,) = spacelite.train(cache, head="logreg", pooling="layers", progress=False)
    of_layers = layers.explain(example="test:0", **how).explanation
    assert of_layers.difference < 1e-4 and of_layers.layer_difference < 0.05
    # Halves without a separator between them, or cut off, are told apart too.
    folder = backbone("gpt2", tmp_path / "gpt2")
    data = {"train": ([row[:2] for row in inferences(20)], [0, 1] * 10)}
    plain = spacelite.embed(data, backbone=folder, cache_dir=tmp_path, max_length=6, progress=False)
    (other,) = spacelite.train(plain, head="logreg", pooling="mean", progress=False)
    cut = other.explain(("the film was very very slow", "a plot"), device="cpu", progress=False)
    written = [(word.text, word.of_text) for word in cut.explanation.words]
    assert written[:4] == [(word, 1) for word in ("the", "film", "was", "very")]
    assert written[4:] == [("a", 2), ("plot", 2)]


def test_studies_and_reports_of_pairs(cache, run, bert, nli, tmp_path):
    """Cross-validation, learning curve, audit, evaluation and the report, and what they show."""
    how = {"backbone": bert, "progress": False}
    frame = pd.DataFrame(inferences(60, 9), columns=["premise", "hypothesis", "label"])
    frame.loc[:4, ["premise", "hypothesis"]] = [row[:2] for row in inferences(5)]  # of training
    evaluated = run.evaluate(frame, text_column=COLUMNS, name="others", **how)
    assert evaluated.seen_in_training == {"test": 5}
    saved = run.predict(frame.iloc[5:], device="cpu", **how)
    agrees = np.array([*map(str, frame.label[5:])]) == [given for (given,) in saved.labels]
    unseen = evaluated.metrics_unseen["test"]["accuracy"]
    assert unseen == pytest.approx(agrees.mean())
    settings = {"head": "logreg", "pooling": "mean", "folds": 3, "progress": False}
    cross = spacelite.cross_validate(cache, baselines=False, **settings)
    assert "logreg (mean)" in str(cross)
    curve = spacelite.learning_curve(
        cache, head="logreg", pooling="mean", baselines=False, progress=False
    )
    assert "logreg (mean)" in str(curve)
    found = spacelite.audit(cache, head="logreg", **how)
    for finding in found.findings:
        pair = inferences(120)[finding.index][:2]
        assert finding.text == " | ".join(pair)
    written = spacelite.report(run, backbone=bert, progress=False).text()
    saved = run.run.predictions()
    first = np.argmax(np.where(saved.correct, 0, saved.confidence))
    bare = re.sub(r"\([+-][\d.]+\)", "", " ".join(written.split()))  # without shares beside words
    premise, hypothesis, _ = inferences(30, 2)[first]
    assert f"{CLS} {premise} {SEP} | {hypothesis} {SEP}" in bare
    said = refusal(run.evaluate, frame, text_column=COLUMNS, rationales="marks", **how)
    assert f"rationales: run {run.id} reads pairs of texts" in said
    said = refusal(run.export, "onnx", tmp_path / "onnx")
    assert "reads pairs of texts" in said
    assert run.export("safetensors", tmp_path / "copy", progress=False).files
    assert "--pair" in (tmp_path / "copy" / "README.md").read_text()
    command = "--text-column premise,hypothesis"
    assert command in (tmp_path / "copy" / "README.md").read_text()


def test_pairs_in_shards(bert, nli, tmp_path):
    """Several files of a cache hold the pairs of one; a digest says where each pair is divided."""
    given = {
        "backbone": bert, "text_column": COLUMNS, "device": "cpu", "progress": False,
        "dtype": "float32",
    }  # fmt: skip
    whole = spacelite.embed(str(nli), cache_dir=tmp_path / "whole", **given)
    divided = spacelite.embed(str(nli), cache_dir=tmp_path / "parts", shard_size="60KB", **given)
    assert divided.path.is_dir() and divided.name == whole.name
    for split in ("train", "validation", "test"):
        assert divided[split].texts == whole[split].texts
        with Cache(whole.path) as one, Cache(divided.path) as other:
            assert cached_texts.split_digest(one, split) == cached_texts.split_digest(other, split)
    frame = pd.DataFrame(inferences(120), columns=["premise", "hypothesis", "label"])
    moved = frame.assign(
        premise=frame.premise + frame.hypothesis.str[:1], hypothesis=frame.hypothesis.str[1:]
    )
    digests = set()
    for data in (frame, moved):  # the same letters, and another border between the texts
        embedded = spacelite.embed(data, cache_dir=tmp_path / "moved", **given)
        with Cache(embedded.path) as opened:
            digests.add(cached_texts.split_digest(opened, "train"))
    assert len(digests) == 2


def test_estimators_of_pairs(bert, tmp_path):
    from sklearn.model_selection import cross_val_predict

    rows = inferences(60)
    pairs, labels = [row[:2] for row in rows], [row[2] for row in rows]
    how = {"backbone": bert, "cache_dir": tmp_path, "device": "cpu"}
    classifier = spacelite.LogregClassifier(**how).fit(pairs, labels)
    wanted = classifier.predict_proba(pairs)
    forms = (np.array(pairs), pd.DataFrame(pairs), [*map(list, pairs)], np.array(pairs, object))
    for form in forms:
        np.testing.assert_allclose(classifier.predict_proba(form), wanted, atol=1e-6)
    # The same figures as from plain transformers and scikit-learn's own mean.
    vectors = spacelite.FrozenEncoder(pooling="mean", **how).fit_transform(pairs)
    means = np.stack([states.mean(axis=0) for states in plain_states(bert, pairs)])
    np.testing.assert_allclose(vectors, means, atol=2e-3)
    assert len(cross_val_predict(classifier, pairs, labels, cv=3)) == 60
    explained = classifier.explain(pairs[0])
    assert {word.of_text for word in explained.explanation.words} == {None, 1, 2}
    with pytest.raises(ValueError, match="was fitted on pairs of texts: give it pairs of texts"):
        classifier.predict(["a film"])
    with pytest.raises(ValueError, match="was fitted on single texts: give it single texts"):
        spacelite.TfidfClassifier(**how).fit(texts(60), labels).predict(pairs)
