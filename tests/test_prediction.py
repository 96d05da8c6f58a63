"""Predictions against the cached hidden states; where texts come from and how they are printed."""

import csv
import io
import itertools
import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import embed, invoke, refusal, save_backbone, train_and_save
from safetensors.torch import load_file

from spacelite import files, heads
from spacelite.cache.store import Cache
from spacelite.data import loading as data
from spacelite.inference import prediction
from spacelite.training.config import TrainingConfig

HEADS = [
    heads.config("space", latent=3, inter=0.2, intra=0.001, learning_rate=0.05),
    heads.config("mlp", pooling="first", learning_rate=0.01),
    heads.config("linear", pooling="mean", learning_rate=0.05),
    heads.config("linear", pooling="last", learning_rate=0.05),
    heads.config("linear", pooling="pooler", learning_rate=0.05),
    heads.config("logreg", pooling="mean"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory, bert, reviews):
    """A cache of half-precision hidden states and a run of each head on it."""
    folder = tmp_path_factory.mktemp("predict")
    path = embed(backbone=str(bert), dataset=str(reviews), cache_dir=folder, device="cpu").path
    with Cache(path) as cache:
        saved = train_and_save(folder, cache, HEADS, TrainingConfig(epochs=3, batch_size=16))
    return folder, path, saved


def from_the_cache(run, path):
    """The logits of the test split, from the files alone."""
    weights = {
        name: value.double() for name, value in load_file(run.folder / "head.safetensors").items()
    }
    with h5py.File(path) as file:
        group = file["test"]
        tokens = torch.from_numpy(group["tokens"][...].astype(np.float64))
        parts = [tokens[a:b] for a, b in itertools.pairwise(group["offsets"][...])]
        pooled = torch.from_numpy(group["pooled"][...]).double()
    head = run.head
    if head.kind == "space":
        s = [torch.tanh(torch.einsum("cld,td->tcl", weights["concept_spaces"], x)) for x in parts]
        features = torch.stack([x.mean(dim=0).flatten() for x in s])
    else:
        pool = {"first": lambda x: x[0], "last": lambda x: x[-1], "mean": lambda x: x.mean(dim=0)}
        features = (
            pooled if head.pooling == "pooler"
            else torch.stack([pool[head.pooling](x) for x in parts])
        )  # fmt: skip
    if head.kind == "mlp":
        layer = weights["pre_classifier.weight"], weights["pre_classifier.bias"]
        features = F.relu(F.linear(features, *layer))
    return F.linear(features, weights["classifier.weight"], weights["classifier.bias"])


@pytest.mark.parametrize("index", range(len(HEADS)), ids=[head.name for head in HEADS])
def test_a_text_of_the_cache_gets_what_its_cached_hidden_states_give(index, place, bert, reviews):
    _, path, saved = place
    texts = data.read(str(reviews)).splits["test"].texts
    expected = from_the_cache(saved[index], path).softmax(dim=1)
    assert expected.std() > 0.001  # the head tells texts apart
    for tokens_per_batch in (None, 7):
        predictor = prediction.Predictor(
            saved[index], str(bert), device="cpu", tokens_per_batch=tokens_per_batch
        )
        probabilities = predictor.predict(texts).probabilities
        np.testing.assert_allclose(probabilities, expected, atol=1e-3)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    # A text among others is the text alone.
    alone = prediction.Predictor(saved[index], str(bert), device="cpu").predict(texts[3:4])
    np.testing.assert_allclose(alone.probabilities[0], probabilities[3], atol=1e-3)


def test_other_backbones_and_empty_texts_are_refused(place, bert, tmp_path):
    run = place[2][0]
    other = save_backbone("bert", tmp_path / "tiny-bert", seed=1)
    message = refusal(prediction.Predictor, run, str(other))
    assert f"{other} is not the backbone that run {run.id} was trained on (tiny-bert)" in message
    assert "name its folder with backbone" in message
    predict = prediction.Predictor(run, str(bert)).predict
    assert "text 2 is empty" in refusal(predict, ["a", " "])
    assert "there is no text" in refusal(predict, [])
    moved = replace(run, record=replace(run.record, backbone_folder=str(other)))
    assert "cannot be reached" in refusal(prediction.Predictor, moved)  # a hub name


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_the_commands_name_the_option_for_the_backbone(command, place, bert, tmp_path):
    folder, _, saved = place
    other = save_backbone("bert", tmp_path / "tiny-bert", seed=1)
    there = [command, saved[0].id, "good film", "--cache-dir", folder]
    for options, words in (
        (["--backbone", other], f"{other} is not the backbone that run {saved[0].id} was trained"),
        ([], f"the backbone of run {saved[0].id} is not found; if it is a local folder, name it"),
    ):
        if not options:  # as if the folder had moved
            record = saved[0].folder / "run.json"
            content = json.loads(record.read_text())
            assert content.pop("backbone_folder") == str(bert)
            copied = tmp_path / "elsewhere" / saved[0].folder.name
            shutil.copytree(saved[0].folder, copied)
            files.write_json(copied / "run.json", content)
            there[1] = copied
        result = invoke(*there, *options)
        assert result.exit_code == 1 and result.stdout == ""
        assert result.stderr.startswith(f"error: {words}") and result.stderr.count("\n") == 1
        assert "with --backbone" in result.stderr


def test_texts_from_arguments_a_file_and_standard_input_are_the_same(place, bert, tmp_path):
    folder, _, saved = place
    texts = ["good film, well acted", "a \u2028 dull plot", 'say "no"']
    command = ["predict", saved[0].id, "--backbone", bert, "--cache-dir", folder]
    file = tmp_path / "texts.txt"
    file.write_bytes("\r\n".join(texts).encode("utf-8-sig") + b"\r\n")
    one = invoke(*command, *texts, "--json")
    assert one.exit_code == 0, one.output
    rows = json.loads(one.stdout)
    assert [row["text"] for row in rows] == texts
    for row in rows:
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)
    assert invoke(*command, "--file", file, "--json").stdout == one.stdout
    lines = "\n".join(texts)
    assert invoke(*command, "--json", input=lines).stdout == one.stdout
    table = list(csv.DictReader(io.StringIO(invoke(*command, "--csv", input=lines).stdout)))
    assert [row["text"] for row in table] == texts
    for line, row in zip(table, rows, strict=True):
        assert line["label"] == row["label"]
        probabilities = {name: float(line[name]) for name in ("0", "1")}
        assert probabilities == pytest.approx(row["probabilities"], rel=1e-5)
    shown = invoke(*command, *texts, env={"COLUMNS": "60"})
    assert "good film, well acted" in shown.stdout and "Probability" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "content", "words"),
    [
        (["--file", "absent.txt"], "", "absent.txt cannot be read: No such file"),
        (["--file", "absent.txt", "text"], "", "give texts or --file, not both"),
        (["--csv", "--json", "text"], "", "give --csv or --json, not both"),
        ([], "good\n\nbad\n", "line 2 is empty"),
        ([], b"caf\xe9\n", "the texts are not UTF-8 (byte 3)"),
        ([], "", "line 1 is empty"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, content, words, place):
    folder, _, saved = place
    result = invoke("predict", saved[0].id, *arguments, "--cache-dir", folder, input=content)
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("error: ") and words in result.stderr
    assert result.stderr.count("\n") == 1


def test_several_labels_have_a_probability_each(bert, tmp_path):
    rows = [
        {"text": "good film" if i % 2 else "bad plot", "label": ["fine"] if i % 2 else []}
        for i in range(40)
    ]
    for i, row in enumerate(rows):
        row["label"] += ["long"] if i % 4 == 1 else []
    (tmp_path / "data").mkdir()
    for split in ("train", "validation", "test"):
        (tmp_path / "data" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    there = ["--cache-dir", tmp_path]
    invoke("embed", "--backbone", bert, "--dataset", tmp_path / "data", *there)
    invoke("train", "--head", "logreg", "--pooling", "mean", *there)
    command = ["predict", "logreg", "good film", "bad plot", "--backbone", bert, *there]
    good, bad = json.loads(invoke(*command, "--json").stdout)
    assert "fine" in good["labels"] and bad["labels"] == []
    assert good["probabilities"]["fine"] > 0.7 > 0.3 > bad["probabilities"]["fine"]
    assert invoke(*command, "--csv").stdout.startswith("text,labels,unknown,fine,long\n")
    assert "–" in invoke(*command).stdout


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_what_is_not_read_is_said(command, place, bert):
    folder, _, saved = place
    there = ["--backbone", bert, "--cache-dir", folder, "--json"]
    long = "good film " * 200
    result = invoke(command, saved[0].id, long, *there)
    assert "1 of 1 text is longer than 256 tokens: the rest is ignored" in result.stderr
    json.loads(result.stdout)
    assert "longer" not in invoke(command, saved[0].id, "good film", *there).stderr
