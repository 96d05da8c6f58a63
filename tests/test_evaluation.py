"""Transfer to another data set: figures, label maps, refusals; the eval command."""

import itertools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import conftest
import h5py
import numpy as np
import processes
import pytest
from conftest import embed, invoke, refusal, train_and_save, write_dataset
from safetensors.numpy import load_file, save_file
from sklearn import metrics as sk

from spacelite import files, heads
from spacelite.cache import texts
from spacelite.cache.store import Cache, side_file
from spacelite.inference.transfer import evaluate, parse_mapping
from spacelite.runs import store as runs
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL
from spacelite.training.config import TrainingConfig

HEADS = [
    heads.config("space", latent=3, inter=0.2, intra=0.001, learning_rate=0.01),
    heads.config("mlp", pooling="first", learning_rate=0.01),
    heads.config("linear", pooling="mean", learning_rate=0.01),
    heads.config("logreg", pooling="mean"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory, cache_path):
    """A cache folder with a run of each kind of head, by kind."""
    folder = tmp_path_factory.mktemp("transfer")
    with Cache(cache_path) as cache:
        saved = train_and_save(folder, cache, HEADS, TrainingConfig(epochs=2, batch_size=16))
    return folder, {run.head.kind: run for run in saved}


def cached(folder, backbone, classes, name, **options):
    data = write_dataset(folder / name, {"train": 40, "validation": 9, "test": 17}, classes)
    return embed(backbone=str(backbone), dataset=str(data), cache_dir=folder, dtype="float32",
                 device="cpu", **options).path  # fmt: skip


def expected(run, path, split, numbers):
    """Metrics from the files alone, in float64."""
    weights = {
        k: v.astype(np.float64) for k, v in load_file(run.folder / "head.safetensors").items()
    }
    with h5py.File(path) as file:
        group = file[split]
        tokens = group["tokens"][...].astype(np.float64)
        parts = [tokens[a:b] for a, b in itertools.pairwise(group["offsets"][...])]
        labels = np.array(numbers)[group["labels"][...]]
    kind, extra = run.head.kind, 0.0
    if kind == "space":
        s = [np.tanh(np.einsum("cld,td->tcl", weights["concept_spaces"], x)) for x in parts]
        features = np.array([x.mean(axis=0).ravel() for x in s])
        match = np.concatenate([x[:, y].ravel() for x, y in zip(s, labels, strict=True)])
        other = np.concatenate([
            np.delete(x, y, axis=1).ravel() for x, y in zip(s, labels, strict=True)
        ])  # fmt: skip
        extra = 0.2 * ((1 - match).mean() + (1 + other).mean()) / 2
        extra += 0.001 * np.mean(
            [(1 / (x.var(axis=0, ddof=1) + 1e-9)).sum() for x in s if len(x) > 1]
        )
    else:
        features = np.array([x[0] if kind == "mlp" else x.mean(axis=0) for x in parts])
        if kind == "mlp":
            hidden = features @ weights["pre_classifier.weight"].T + weights["pre_classifier.bias"]
            features = np.maximum(hidden, 0)
    logits = features @ weights["classifier.weight"].T + weights["classifier.bias"]
    ce = sk.log_loss(labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True),
                     labels=range(logits.shape[1]))  # fmt: skip
    guesses = logits.argmax(axis=1)
    return {
        "loss": ce + extra, "ce": ce, "accuracy": sk.accuracy_score(labels, guesses),
        "f1_macro": sk.f1_score(labels, guesses, average="macro"),
        "precision": sk.precision_score(labels, guesses, zero_division=0),
        "recall": sk.recall_score(labels, guesses),
        "auroc": sk.roc_auc_score(labels, logits[:, 1] - logits[:, 0]),
    }  # fmt: skip


@pytest.mark.parametrize("kind", [head.kind for head in HEADS])
def test_figures_follow_from_the_weights_and_the_other_cache(kind, place, bert, tmp_path):
    run = place[1][kind]
    path = cached(tmp_path, bert, 2, "other")
    with Cache(path) as cache:
        record, predictions = evaluate(run, cache)
        assert set(predictions) == {"validation", "test"}
        for split, own in predictions.items():
            assert own.correct.mean() == record.metrics[split]["accuracy"]
            assert (own.labels == cache.splits[split].labels).all()
    assert record.labels == {"0": "0", "1": "1"} and record.dataset == "other"
    for split in ("train", "validation", "test"):
        assert record.metrics[split] == pytest.approx(expected(run, path, split, [0, 1]), abs=1e-5)


@pytest.fixture(scope="module")
def three(tmp_path_factory, bert):
    """A cache of data with three labels."""
    return cached(tmp_path_factory.mktemp("labels"), bert, 3, "three")


def test_labels_are_mapped(place, three):
    run = place[1]["space"]
    with Cache(three) as cache:
        record, _ = evaluate(run, cache, {"0": "1", "1": "0", "2": "1"})
        message = refusal(evaluate, run, cache)
        assert "three: the data have 3 labels (0, 1, 2), the run has 2 (0, 1)" in message
        assert message.endswith(
            "give the run's label for each of 0, 1, 2 with labels=..., or none, which leaves its "
            "texts out"
        )
        for mapping, words in (
            ({"9": "1", "1": "0", "2": "1"}, "there is no label '9'"),
            ({"0": "5", "1": "0", "2": "1"}, "there is no label '5'"),
            ({"0": "1", "1": "0"}, "'2' is not mapped"),
        ):
            message = refusal(evaluate, run, cache, mapping)
            assert words in message
            assert message.endswith(
                "map each label of the data (0, 1, 2) to one of the run's (0, 1) with labels=..., "
                "or to none, which leaves its texts out"
            )
    assert record.labels == {"0": "1", "1": "0", "2": "1"}
    wanted = expected(run, three, "test", [1, 0, 1])
    assert record.metrics["test"] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("mapping", [{"0": "1", "1": "0", "2": ""}, ["0=1", "1=0", "2="]], ids=str)
def test_texts_of_a_label_that_the_run_lacks_are_left_out(mapping, place, three, caplog):
    caplog.set_level("INFO")
    run = place[1]["mlp"]
    with Cache(three) as cache:
        record, predictions = evaluate(run, cache, mapping)
        stored = {name: split.labels for name, split in cache.splits.items()}
    assert record.labels == {"0": "1", "1": "0"}
    kept = {name: np.flatnonzero(labels < 2) for name, labels in stored.items()}
    assert record.examples == {name: len(rows) for name, rows in kept.items()}
    count = sum(len(labels) - len(kept[name]) for name, labels in stored.items())
    assert f"{count} texts of three with the label '2' are left out" in caplog.text
    for name, part in predictions.items():
        assert part.index.tolist() == kept[name].tolist() and len(part.rows) == len(part.index)
        assert part.labels.tolist() == (1 - stored[name][kept[name]]).tolist()
        guesses, scores = part.logits.argmax(axis=1), record.metrics[name]
        assert scores["accuracy"] == np.mean(guesses == part.labels) and scores["loss"] is None
        assert scores["f1_macro"] == pytest.approx(
            sk.f1_score(part.labels, guesses, average="macro"), abs=1e-6
        )
    run.save_transfer(record, predictions)
    (read,) = [one for one in run.transfers() if one.dataset == "three"]
    assert run.predictions(read).correct.mean() == record.metrics["test"]["accuracy"]
    with Cache(three) as cache:
        assert "no text of three is left" in refusal(
            evaluate, run, cache, dict.fromkeys(mapping if isinstance(mapping, dict) else "012", "")
        )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("neg", "pos"), "matched by number, 0 = neg, 1 = pos: labels=... gives others"),
        (("0", "1"), None),
    ],
)
def test_labels_that_are_matched_by_number_are_said(names, said, place, bert, tmp_path, caplog):
    run = renamed(place[1]["space"], *names)
    with Cache(cached(tmp_path, bert, 2, "plain")) as cache:
        evaluate(run, cache)
    assert (said or "matched") in caplog.text or said is None
    assert ("matched" in caplog.text) == (said is not None)


@pytest.mark.parametrize(("label", "given"), [(0, False), (1, True)])
def test_precision_and_recall_of_a_label_without_examples_are_left_out(
    label, given, place, bert, tmp_path, caplog
):
    run = place[1]["linear"]
    rows = [{"text": text, "label": label} for text in conftest.texts(8, seed=4)]
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    there = {"backbone": str(bert), "cache_dir": tmp_path, "dtype": "float32", "device": "cpu"}
    with Cache(embed(dataset=str(tmp_path / "one"), **there, training=False).path) as cache:
        record, _ = evaluate(run, cache)
    scores = record.metrics["test"]
    assert [scores[name] is not None for name in ("precision", "recall")] == [given, given]
    assert ("which are those of this label, are left out" in caplog.text) is not given
    assert scores["accuracy"] is not None and scores["f1_macro"] is not None


@pytest.mark.parametrize(
    ("task", "there", "here", "numbers"),
    [
        ("single", ["clean", "toxic"], ["offensive", "polite"], None),
        ("single", ["0", "1"], ["neg", "pos"], [0, 1]),
        ("single", ["neg", "pos"], ["1", "2"], [0, 1]),
        ("single", ["Pos ", "NEG"], ["neg", "pos"], [1, 0]),
        ("single", ["pos", "POS"], ["neg", "pos"], None),
        ("single", ["pos"], ["neg", "pos"], [1]),
        ("single", ["1", "2"], ["0", "1"], None),
        ("multi", ["Joy", "fear"], ["anger", "fear", "joy"], [2, 1]),
        ("multi", ["joy", "fear"], ["anger", "hate"], None),
        ("multi", ["0", "1"], ["anger", "hate"], [0, 1]),
    ],
)
def test_labels_match_by_name_or_by_number_where_one_side_has_numbers(task, there, here, numbers):
    task = {"single": SINGLE_LABEL, "multi": MULTI_LABEL}[task]
    found = task.match(there, here, None)
    assert isinstance(found, str) if numbers is None else found.tolist() == numbers


def test_pairs_of_labels_are_told_apart_by_the_labels_there_are():
    there, here = ["a b,c=d", "cat", "x"], ["pos", "n=eg"]
    pairs = ["a b,c=d=pos", "cat=n=eg", "x = pos"]
    assert parse_mapping(pairs, there, here) == {
        "a b,c=d": "pos", "cat": "n=eg", "x": "pos",
    }  # fmt: skip
    assert parse_mapping(["a b,c=d=", "x = "], there, here) == {"a b,c=d": "", "x": ""}
    for wrong, words in ((["a"], "labels=a: give \"their label=the"), (["=b"], "labels==b: give"),
                         (["a=b", "a=c"], "'a' is mapped twice"),
                         (["x=n=g"], "no '=' in it has a label of the data (a b,c=d")):  # fmt: skip
        assert words in refusal(parse_mapping, wrong, there, here)


def test_a_label_is_given_as_it_is_shown():
    there, here = ["line one\nline two", "b"], ["x\ty", "b=1"]
    assert parse_mapping([r"line one\nline two=x\ty", "b=b=1"], there, here) == {
        "line one\nline two": "x\ty", "b": "b=1",
    }  # fmt: skip
    assert parse_mapping(["line one\nline two=x\ty"], there, here) == {there[0]: here[0]}


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (
            [],
            "the data have 3 labels (0, 1, 2), the run has 2 (0, 1): give the run's label for "
            "each of 0, 1, 2 with --map ..., or none, which leaves its texts out",
        ),
        (["0=1", "1=0"], "'2' is not mapped; map each label of the data (0, 1, 2) to one of"),
        (["0=1", "1=0", "2=9"], "there is no label '9'; map each label of the data (0, 1, 2) to"),
        (["0=1", "0=0"], "--map 0=0: '0' is mapped twice"),
        (["0"], '--map 0: give "their label=the'),
    ],
)
def test_the_command_says_how_labels_are_mapped(pairs, words, place, three):
    folder, by_kind = place
    given = [word for pair in pairs for word in ("--map", pair)]
    result = invoke("eval", by_kind["space"].id, "--cache", three, *given, "--cache-dir", folder)
    assert result.exit_code == 1 and result.stderr.startswith("error: ")
    assert words in result.stderr and result.stderr.count("\n") == 1


def renamed(run, *names):
    """The run, its labels under other names."""
    return replace(run, record=replace(run.record, label_names=names))


def test_labels_that_share_some_names_only_need_a_map(place, bert, tmp_path):
    path = cached(tmp_path, bert, 2, "other")
    run = place[1]["space"]
    turned = renamed(run, "1", "9")
    with Cache(path) as cache:
        assert "give the run's label for each of 0, 1" in refusal(evaluate, turned, cache)


def without_checksums(folder):
    """Make a run like those of versions that kept no checksums."""
    content = json.loads((folder / "run.json").read_text())
    del content["checksums"]
    files.write_json(folder / "run.json", content)


def test_a_head_of_other_shapes_is_damaged(place, bert, tmp_path):
    path = cached(tmp_path, bert, 2, "other")
    copy = tmp_path / "copy"
    shutil.copytree(place[1]["space"].folder, copy)
    shutil.copy(place[1]["linear"].folder / "head.safetensors", copy)
    without_checksums(copy)
    with Cache(path) as cache:
        assert "do not fit a space + inter 0.2 + intra 0.001 head with 2 labels)" in refusal(
            evaluate, runs.load(copy), cache
        )


def test_labels_of_the_same_names_are_the_same_whatever_their_order(place, bert, tmp_path):
    folder = tmp_path / "words"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        rows = [{"text": f"film {i}", "label": ["bad", "good"][i % 2]} for i in range(12)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = embed(backbone=str(bert), dataset=str(folder), cache_dir=tmp_path).path
    run = place[1]["space"]
    with Cache(path) as cache:
        record, _ = evaluate(renamed(run, "good", "bad"), cache)
    assert record.labels == {"bad": "bad", "good": "good"}
    assert record.metrics["test"] == pytest.approx(expected(run, path, "test", [1, 0]), abs=1e-4)


def test_other_hidden_states_are_refused(place, distilbert, bert, tmp_path):
    run = place[1]["space"]
    for made, words in (
        (cached(tmp_path, distilbert, 2, "a"), ["backbone", "tiny-bert", "tiny-distilbert"]),
        (cached(tmp_path, bert, 2, "b", layer=1), ["the run's layer is -1, the cache's 1"]),
        (
            cached(tmp_path, bert, 2, "c", padding="max_length", max_length=40),
            ["the run's padding is none, the cache's max_length"],
        ),
    ):
        with Cache(made) as cache:
            message = refusal(evaluate, run, cache)
        assert all(word in message for word in words), message


def test_another_width_is_refused(place, bert, tmp_path):
    path = cached(tmp_path, bert, 2, "other")
    copy = tmp_path / "copy"
    shutil.copytree(place[1]["space"].folder, copy)
    parameters = load_file(copy / "head.safetensors")
    parameters["concept_spaces"] = np.ascontiguousarray(parameters["concept_spaces"][..., :5])
    save_file(parameters, copy / "head.safetensors")
    without_checksums(copy)
    with Cache(path) as cache:
        message = refusal(evaluate, runs.load(copy), cache)
    assert f"hidden states of width 5, cache {path.stem} has width 16" in message


def test_several_labels_and_one_label_do_not_mix(place, bert, tmp_path):
    rows = [{"text": text, "label": [0, 1][: i % 3]} for i, text in enumerate("abcdefgh" * 3)]
    folder = tmp_path / "several"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = embed(backbone=str(bert), dataset=str(folder), cache_dir=tmp_path).path
    with Cache(path) as cache:
        message = refusal(evaluate, place[1]["space"], cache)
    assert message.startswith("data set several and run ")
    assert message.endswith("the data have several labels per text, the run has one label per text")


def test_the_command_embeds_evaluates_and_the_report_shows_it(place, bert, tmp_path):
    folder, by_kind = place
    run = by_kind["space"]
    data = write_dataset(tmp_path / "more", {"train": 20, "validation": 9, "test": 12})
    there = ["--cache-dir", folder]
    command = ["eval", run.id[-8:], "--dataset", data, "--backbone", bert, *there]
    first = invoke(*command)
    assert first.exit_code == 0, first.output
    assert (
        "space + inter 0.2 + intra 0.001, trained on reviews" in first.stdout
        and "on more (0 as 0, 1 as 1)" in first.stdout
    )
    again = json.loads(invoke(*command, "--json").stdout)
    (path,) = (folder / "embeddings").glob("*more*.h5")
    assert again["cache"] == path.stem and again["run"] == run.id
    wanted = expected(run, path, "test", [0, 1])
    assert again["metrics"]["test"] == pytest.approx(wanted, abs=1e-3)
    (stored,) = run.transfers()
    assert {"run": run.id, **asdict(stored)} == again
    assert "reviews → more, tiny-bert, 2 epochs" in invoke("report", *there).stdout
    known = invoke("eval", run.id, "--cache", path.stem, "--json", *there)
    assert json.loads(known.stdout) == again


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give either a data set to evaluate on, or --cache ..."),
        (["--cache", "none"], "has no cache 'none'; it holds "),
        (
            ["--cache", "x", "--dataset", "y"],
            "give either a data set to evaluate on, or --cache ...",
        ),
        (["--cache", "x", "--limit", "5"], "--limit 5 works with --dataset ... only"),
        *(
            (["--cache", "x", option, value], f"{option} {value} works with --dataset ... only")
            for option, value in {
                "--label-separator": ";",
                "--split-column": "part",
                "--text-column": "text",
                "--label-column": "label",
                "--labels-as": "text",
                "--quoting": "none",
                "--backbone": "b",
                "--tokens-per-batch": "9",
            }.items()
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, words, place):
    folder, by_kind = place
    result = invoke("eval", by_kind["space"].id, *arguments, "--cache-dir", folder)
    assert result.exit_code == 1 and result.stderr.startswith("error: ")
    assert words in result.stderr and result.stderr.count("\n") == 1


def test_runs_are_found_by_what_is_only_theirs(place, tmp_path):
    folder, by_kind = place
    run = by_kind["space"]
    for name in (run.id, run.id[-8:], "space", str(run.folder)):
        assert runs.find(folder, name).id == run.id
    assert "4 runs have 'reviews' in their id" in refusal(runs.find, folder, "reviews")
    assert "there is no run 'x'" in refusal(runs.find, folder, "x")
    assert "holds no run" in refusal(runs.find, tmp_path, "x")
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "head.safetensors").write_bytes(b"no weights")
    (copy / "run.json").write_text((run.folder / "run.json").read_text())
    assert "is damaged" in refusal(lambda: runs.find(folder, str(copy)).parameters)


def test_what_a_killed_evaluation_left_is_no_result(place, bert, tmp_path):
    run = place[1]["mlp"]
    path = cached(tmp_path, bert, 2, "killed")
    with Cache(path) as cache:
        record, predictions = evaluate(run, cache)
    before = len(run.transfers())
    run.save_transfer(record, predictions)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom spacelite.runs import store as runs\n"
        "run, files = runs.load(Path(sys.argv[1])), int(sys.argv[2])\n"
        "(record,) = [one for one in run.transfers() if one.dataset == 'killed']\n"
        "replace, done = Path.replace, []\n"
        "def killed(self, target):\n"
        "    done.append(target)\n"
        "    return replace(self, target) if len(done) <= files else os._exit(9)\n"
        "Path.replace = killed\n"
        "run.save_transfer(record, {record.split: run.predictions(record)})\n"
    )
    folder = run.folder / "transfer"
    for written in (0, 1):  # that it has written
        assert processes.run(code, run.folder, written).returncode == 9
        assert list(folder.glob(".*--killed--*.partial"))
        assert len(run.transfers()) == before + 1
    run.save_transfer(record, predictions)
    assert not list(folder.glob("*.partial"))
    (transfer,) = [one for one in run.transfers() if one.dataset == "killed"]
    assert (run.predictions(transfer).logits == predictions["test"].logits).all()


def test_evaluations_at_once_leave_whole_files(place, bert, tmp_path):
    run = place[1]["linear"]
    path = cached(tmp_path, bert, 2, "crowd")
    with Cache(path) as cache:
        record, predictions = evaluate(run, cache)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(run.save_transfer, record, predictions) for _ in range(24)]:
            done.result()
    (transfer,) = [one for one in run.transfers() if one.dataset == "crowd"]
    assert run.predictions(transfer) is not None
    assert not list((run.folder / "transfer").glob("*.partial"))


def test_the_runs_own_data_are_named_as_such(place, cache_path, bert, caplog):
    folder, saved = place
    with Cache(cache_path) as cache:
        record, _ = evaluate(saved["linear"], cache)
    assert caplog.messages[0] == (
        f"reviews is the data set that run {saved['linear'].id} was trained on: this is not "
        "a transfer, and its train split was seen in training"
    )
    assert record.seen_in_training["train"] == 60 and "train example" not in caplog.text
    assert record.is_own(saved["linear"].record)
    caplog.clear()
    with Cache(cached(folder, bert, 2, "elsewhere")) as cache:
        evaluate(saved["linear"], cache)
    assert "was trained on" not in caplog.text


def partly_seen(folder, backbone):
    """A cache of which the runs were trained on all 30 texts of train, one of validation, and 12 of
    test, which are written otherwise."""
    trained = conftest.texts(60)
    new = [f"nice plot {text} well acted" for text in conftest.texts(20, seed=9)]
    splits = {
        "train": trained[:30],
        "validation": [trained[40], *new[:12]],
        "test": [*(f" {text.upper()}" for text in trained[48:]), *new[12:]],
    }
    folder.mkdir()
    for split, own in splits.items():
        rows = [{"text": text, "label": i % 2} for i, text in enumerate(own)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return embed(
        backbone=str(backbone), dataset=str(folder), cache_dir=folder, dtype="float32", device="cpu"
    ).path


@pytest.mark.parametrize("known", ["texts", "token ids"])
def test_texts_that_the_run_was_trained_on_are_counted_and_left_out(
    known, place, cache_path, bert, tmp_path, caplog
):
    run, path = place[1]["linear"], partly_seen(tmp_path / "partly", bert)
    if known == "token ids":
        side_file(path, "texts").unlink()
    caplog.clear()
    with Cache(path) as cache:
        record, predictions = evaluate(run, cache)
    assert record.seen_in_training == {"train": 30, "validation": 1, "test": 12}
    assert record.metrics_unseen.keys() == {"validation", "test"}
    test, scores = predictions["test"], record.metrics_unseen["test"]
    labels, logits = test.labels[12:], test.logits[12:].astype(np.float64)
    guesses = logits.argmax(axis=1)
    assert scores == pytest.approx({
        "loss": None, "ce": np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[range(8), labels]),
        "accuracy": sk.accuracy_score(labels, guesses),
        "f1_macro": sk.f1_score(labels, guesses, average="macro"),
        "precision": sk.precision_score(labels, guesses, zero_division=0),
        "recall": sk.recall_score(labels, guesses),
        "auroc": sk.roc_auc_score(labels, logits[:, 1] - logits[:, 0]),
    }, abs=1e-6)  # fmt: skip
    compared = "a text" if known == "texts" else "the same tokens as a text"
    assert caplog.messages == [
        "30 of 30 train, 1 of 13 validation and 12 of 20 test examples of partly have "
        f"{compared} of the training data of run {run.id}: these were seen in training, so the "
        "metrics of train, validation and test are too optimistic; of the other 8 test "
        f"examples: accuracy {scores['accuracy']:.4f} and macro F1 {scores['f1_macro']:.4f}"
    ]
    saved = run.save_transfer(record, predictions)
    assert [one for one in run.transfers() if one.dataset == "partly"] == [saved]


def test_texts_that_something_was_chosen_on_are_no_new_ones(
    place, cache_path, bert, tmp_path, caplog
):
    """Validation texts, where they chose the epoch, settings or thresholds."""
    run = place[1]["linear"]
    with Cache(cache_path) as cache:
        own = {split: texts.read(cache, split) for split in ("train", "validation")}
    seen = [own[split].text(example) for split in own for example in range(4)]
    new = [f"nice plot {text} well acted" for text in conftest.texts(4, seed=9)]
    rows = [{"text": text, "label": i % 2} for i, text in enumerate([*seen, *new])]
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    there = {"backbone": str(bert), "cache_dir": tmp_path, "dtype": "float32", "device": "cpu"}
    with Cache(embed(dataset=str(tmp_path / "chosen"), **there, training=False).path) as cache:
        plain, _ = evaluate(run, cache)
        assert not plain.is_own(run.record)
        assert plain.seen_in_training == {"test": 4} and plain.seen_in_choosing == {}
        assert "validation" not in caplog.text
        chosen = replace(run, record=replace(run.record, best_epoch=1))
        record, predictions = evaluate(chosen, cache)
    assert record.seen_in_training == {"test": 4} and record.seen_in_choosing == {"test": 4}
    assert caplog.messages[-1].startswith(
        f"4 of 12 test examples of chosen have a text of the training data of run {run.id}: these "
        "were seen in training, so the metrics of test are too optimistic; 4 of 12 test examples "
        f"of chosen have a text of the validation data of run {run.id}: these were seen when "
        "settings were chosen, so the metrics of test are too optimistic; of the other 4 test"
    )
    part = predictions["test"]
    guesses = part.logits[8:].argmax(axis=1)
    assert record.metrics_unseen["test"]["accuracy"] == np.mean(guesses == part.labels[8:])


def test_the_command_warns_of_texts_that_the_run_was_trained_on(place, bert, tmp_path):
    folder, saved = place
    path = partly_seen(tmp_path / "partly", bert)
    said = invoke("eval", saved["linear"].id, "--cache", path, "--cache-dir", folder)
    assert "12 of 20 test examples of partly have a text of the training data" in " ".join(
        said.stderr.split()
    )
    shown = invoke("runs", "show", saved["linear"].id, "--cache-dir", folder)
    assert (
        "Examples seen in training: 30 of 30 train, 1 of 13 validation, 12 of 20 test: the metrics"
    ) in " ".join(shown.stdout.split())
    said = invoke("eval", saved["linear"].id, "--cache", path, "--cache-dir", folder, "--json")
    answer = json.loads(said.stdout)
    assert answer["seen_in_training"] == {"train": 30, "validation": 1, "test": 12}
    assert answer["metrics_unseen"]["test"]["accuracy"] is not None


def test_a_run_whose_cache_is_gone_is_evaluated_with_a_warning(
    place, cache_path, bert, tmp_path, caplog
):
    run = place[1]["linear"]
    lost = replace(run, record=replace(run.record, cache="lost", cache_files=()))
    path = partly_seen(tmp_path / "partly", bert)
    caplog.clear()
    with Cache(path) as cache:
        record, _ = evaluate(lost, cache)
    assert record.seen_in_training is None and record.metrics_unseen == {}
    (said,) = caplog.messages
    assert said.startswith(
        f"it is not known which texts of partly run {run.id} was trained on: the "
    )
    assert "lost, is neither beside the run nor in" in said


def test_evaluations_of_older_versions_are_read(place, bert, tmp_path):
    run = place[1]["linear"]
    with Cache(partly_seen(tmp_path / "older", bert)) as cache:
        record, predictions = evaluate(run, cache)
    run.save_transfer(record, predictions)
    path = run.folder / "transfer" / f"{record.cache}.json"
    content = json.loads(path.read_text())
    del content["seen_in_training"], content["metrics_unseen"]
    files.write_json(path, content)
    (read,) = [one for one in run.transfers() if one.dataset == "older"]
    assert read.metrics == record.metrics
    assert read.seen_in_training is None and read.metrics_unseen == {}


def test_a_wrong_map_fails_before_anything_is_embedded(place, bert, tmp_path, monkeypatch):
    folder, saved = place
    data = write_dataset(tmp_path / "unread", {"train": 40, "validation": 9}, 3)
    monkeypatch.setattr("spacelite.cache.filling.tokenize", None)  # a call would fail
    there = ["--dataset", data, "--backbone", bert, "--cache-dir", folder, "--device", "cpu"]
    done = invoke("eval", saved["linear"].id, *there, "--map", "0=0", "--map", "7=1")
    assert done.exit_code == 1 and "there is no label '7'" in " ".join(done.stderr.split())
    done = invoke("eval", saved["linear"].id, *there)
    assert done.exit_code == 1 and "the data have 3 labels" in " ".join(done.stderr.split())
