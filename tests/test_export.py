"""Exports against `predict` and `explain`: by the library that each is for, without spacelite."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import processes
import pytest
import yaml
from conftest import invoke, refusal, save_backbone, texts, wordpiece, write_dataset

import spacelite
from spacelite.export import export as exports
from spacelite.export import form as forms
from spacelite.export import graph as graphs
from spacelite.export.export import FORMS, Exported
from spacelite.export.form import Source
from spacelite.export.onnx import loaded

ROOT = Path(__file__).parent.parent
# Long, short, of words that are not known, and in other scripts.
ODD = [
    " ".join(texts(60, seed=3)), "a", "zzz", "这部电影很好", "a good 🎉 film 😀",
    "naïve cafés\tand films", "GOOD film , was not boring !", *texts(12, seed=9),
]  # fmt: skip
EPOCHS = {"epochs": 3, "learning_rate": 0.05}

# What an exported program says of texts, in a process without spacelite, torch and transformers.
ALONE = """
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("spacelite", "torch", "transformers", "onnx", "pandas"):
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
folder, texts, explain = sys.argv[1], json.load(open(sys.argv[2])), sys.argv[3] == "True"
sys.path.insert(0, folder)
from classify import Classifier
classifier = Classifier(folder)
print(json.dumps([classifier.predict(texts), [classifier.explain(t) for t in texts if explain]]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    sizes = {"train": 60, "validation": 20, "test": 20}
    return write_dataset(tmp_path_factory.mktemp("exports") / "data", sizes, classes=3)


@pytest.fixture(scope="module")
def cache_dir(data):
    return data.parent / "cache"


def embedded(data, cache_dir, backbone, **settings):
    return spacelite.embed(
        str(data), backbone=backbone, cache_dir=cache_dir, device="cpu", progress=False, **settings
    )


def trained(cache, head, **settings):
    if head not in ("logreg", "tfidf") and settings.get("blocks") != "layers+ngrams":
        settings = {**EPOCHS, **settings}
    (run,) = spacelite.train(cache, head=head, progress=False, **settings)
    return run


@pytest.fixture(scope="module")
def best(data, cache_dir, bert):
    """A run of everything that an additive head may read, and its export."""
    cache = embedded(data, cache_dir, bert)
    run = trained(cache, "additive", blocks="layers+ngrams+attention", max_ngram=3, ensemble=2)
    return run, run.export("onnx", data.parent / "best", progress=False)


@pytest.fixture(scope="module")
def tfidf(data, cache_dir, bert):
    return trained(embedded(data, cache_dir, bert), "tfidf")


def compare(run, folder, tmp_path, *, explained=True):
    """Compare an export with `predict` and `explain`, on odd texts."""
    written = tmp_path / "texts.json"
    written.write_text(json.dumps(ODD))
    done = processes.run(ALONE, folder, written, explained, fresh=True)
    assert done.returncode == 0, done.stderr
    predictions, explanations = json.loads(done.stdout)
    expected = run.predict(ODD, progress=False)
    for given, wanted in zip(predictions, expected, strict=True):
        close = {name: pytest.approx(value, abs=1e-4) for name, value in
                 wanted["probabilities"].items()}  # fmt: skip
        assert given == {**wanted, "probabilities": close}
    for text, given in zip(ODD, explanations, strict=False):
        wanted = run.explain(text, progress=False).explanation
        for name in ("text", "special", "tokens", "unknown"):
            assert [word[name] for word in given["words"]] == [
                getattr(word, name) for word in wanted.words
            ]
        shares = np.array([word["contributions"] for word in given["words"]])
        whole = np.array([word.contributions for word in wanted.words])
        np.testing.assert_allclose(shares, whole, atol=1e-3)
        assert given["predicted"] == wanted.given and given["difference"] < 1e-3
        np.testing.assert_allclose(given["bias"], wanted.bias, atol=1e-6)
    assert explained == bool(explanations)


def test_an_export_alone_predicts_and_explains_as_the_run_does(best, tmp_path):
    run, exported = best
    compare(run, exported.path, tmp_path)


def test_the_folder_is_complete_and_says_how_near_it_is(best):
    run, exported = best
    folder = exported.path
    assert {path.name for path in folder.iterdir()} == set(exported.files) >= {
        "model.onnx", "tokenizer.json", "classifier.json", "arrays.npz", "classify.py",
        "verified.json", "requirements.txt", "Dockerfile",
    }  # fmt: skip
    verified = json.loads((folder / "verified.json").read_text())
    assert verified["run"] == run.id and (verified["split"], verified["texts"]) == ("test", 20)
    assert verified["largest_difference"] == exported.difference < 1e-4
    assert "torch" not in (folder / "requirements.txt").read_text()
    assert exported.bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert f"{exported.difference:.1e}" in str(exported) and exported.as_json()["form"] == "onnx"
    # Neither the exporter's stack traces nor other names of this machine.
    for path in folder.iterdir():
        for name in (ROOT, folder, Path(np.__file__).parent.parent):
            assert str(name).encode() not in path.read_bytes(), path.name


def test_a_damaged_graph_is_not_run(best, tmp_path):
    folder = shutil.copytree(best[1].path, tmp_path / "copy")
    module = loaded(folder / "classify.py")
    whole = (folder / "model.onnx").read_bytes()
    for place in (10, len(whole) // 2, len(whole) - 1):
        flipped = bytes([whole[place] ^ 64])
        (folder / "model.onnx").write_bytes(whole[:place] + flipped + whole[place + 1 :])
        with pytest.raises(module.ClassifierError, match=r"model\.onnx is damaged, or was changed"):
            module.Classifier(folder)
    content = json.loads((folder / "classifier.json").read_text())
    (folder / "classifier.json").write_text(json.dumps({**content, "model": None}))
    with pytest.raises(module.ClassifierError, match=r"classifier\.json is damaged"):
        module.Classifier(folder)


def test_onnxruntime_keeps_no_usage_data(best, tmp_path):
    program = [sys.executable, "-B", str(best[1].path / "classify.py"), "a text"]
    home = {**os.environ, "HOME": str(tmp_path)}
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        home.pop(name, None)
    subprocess.run(program, env=home, check=True, capture_output=True)
    assert [*tmp_path.rglob("*")] == []


def test_the_graph_takes_batches_that_are_padded(best):
    import onnxruntime
    from tokenizers import Tokenizer

    _, exported = best
    tokenizer = Tokenizer.from_file(str(exported.path / "tokenizer.json"))
    session = onnxruntime.InferenceSession(exported.path / "model.onnx")
    some = [tokenizer.encode(text) for text in texts(5, seed=4)]
    longest = max(len(one.ids) for one in some)
    of_ngrams = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)

    def rows(name):
        values = [getattr(one, name) for one in some]
        return np.array([row + [0] * (longest - len(row)) for row in values], np.int64)

    names = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    given = {**{name: rows(of) for name, of in names.items()}, "ngram_logits": of_ngrams}
    logits, probabilities, shares = session.run(None, given)
    powers = np.exp(logits)
    np.testing.assert_allclose(probabilities, powers / powers.sum(1, keepdims=True), atol=1e-6)
    for row, one in enumerate(some):
        alone = {name: value[row : row + 1, : len(one.ids)] for name, value in given.items()}
        alone["ngram_logits"] = of_ngrams[row : row + 1]
        (expected, _, of_tokens) = session.run(None, alone)
        np.testing.assert_allclose(logits[row], expected[0], atol=1e-4)
        np.testing.assert_allclose(shares[row, : len(one.ids)], of_tokens[0], atol=1e-4)
        assert (shares[row, len(one.ids) :] == 0).all()


WINDOWS = {"windows": True, "max_length": 12, "prefix": "good plot "}
PADDED = {"padding": "max_length", "max_length": 24}
KINDS = [
    ("space", {"ensemble": 2}, {}),
    ("space", {}, {"dtype": "int8"}),
    ("space", {}, {"dtype": "int4"}),
    ("linear", {"pooling": "first"}, {"dtype": "bfloat16"}),
    ("linear", {"pooling": "last"}, {"layer": 1}),
    ("linear", {"pooling": "pooler"}, {}),
    ("mlp", {"pooling": "mean"}, {"reduce": 6}),
    ("logreg", {"pooling": "layers"}, {"skip_first": True}),
    ("additive", {"blocks": "mean+ngrams+space"}, PADDED),
    ("additive", {"blocks": "mean+attention", "ensemble": 2}, PADDED),
    ("additive", {"blocks": "layers+ngrams+attention"}, WINDOWS),
    ("additive", {"blocks": "layers+ngrams"}, {**WINDOWS, "skip_first": True}),
]  # fmt: skip


def kind_ids(value):
    return "-".join(map(str, value.values())) if isinstance(value, dict) else value


@pytest.mark.parametrize(("head", "settings", "how"), KINDS, ids=kind_ids)
def test_the_module_gives_what_predict_and_explain_give(head, settings, how, data, cache_dir, bert):
    import torch

    from spacelite.export.model import model_of

    run = trained(embedded(data, cache_dir, bert, **how), head, **settings)
    source = Source(run.run, None)
    module, tokens = model_of(source), source.predictor.tokenize(ODD)
    expected = run.predict(ODD, progress=False).probabilities
    for number, text in enumerate(ODD):
        given = {
            name: torch.from_numpy(of_texts[number][None].astype(np.int64))
            for name, of_texts in (("input_ids", tokens.ids), ("attention_mask", tokens.masks),
                                   ("token_type_ids", tokens.type_ids))
            if of_texts is not None
        }  # fmt: skip
        length = len(tokens.ids[number])
        if tokens.windows is not None:
            windows, places = tokens.windows.of(length)
            given = {name: rows[0][windows] for name, rows in given.items()}
            given["places"] = torch.from_numpy(places[tokens.skipped(length) :])[None]
        output = module(**given, output_shares=True)
        np.testing.assert_allclose(output.probabilities[0], expected[number], atol=1e-5)
        if output.shares is None:
            assert head == "mlp" or settings["pooling"] in ("first", "last", "pooler")
            continue
        words = run.explain(text, progress=False).explanation.words
        of_tokens = output.shares[0, -len(tokens.kept[number]) :].numpy()
        of_words = np.array([of_tokens[word.tokens].sum(axis=0) for word in words])
        np.testing.assert_allclose(of_words, [word.contributions for word in words], atol=1e-4)
        total = of_tokens.sum(axis=0) + module.bias.numpy()
        np.testing.assert_allclose(total, output.logits[0], atol=1e-3)


def test_heads_of_token_ids_are_exported_without_a_graph(tfidf, tmp_path, monkeypatch):
    monkeypatch.setattr(forms.importlib.util, "find_spec", lambda name: None)  # nor what it needs
    exported = tfidf.export("onnx", tmp_path / "out", progress=False)
    assert "model.onnx" not in exported.files and exported.difference < 1e-6
    assert "onnxruntime" not in (tmp_path / "out" / "requirements.txt").read_text()
    monkeypatch.undo()
    compare(tfidf, exported.path, tmp_path)


def test_multi_label_runs_keep_their_thresholds(tmp_path, bert):
    rows = [
        {"text": text, "labels": [word for word in ("good", "film", "slow") if word in text]}
        for text in texts(90, seed=5)
    ]
    for split, part in (("train", rows[:60]), ("validation", rows[60:75]), ("test", rows[75:])):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)) + "\n")
    cache = embedded(tmp_path, tmp_path / "cache", bert)
    (run,) = spacelite.train(cache, head="tfidf", threshold="f1", progress=False)
    assert len(run.record.thresholds) == 3
    exported = run.export("onnx", tmp_path / "out", progress=False)
    compare(run, exported.path, tmp_path)


# Refusals.


def test_what_exists_is_never_touched(tfidf, tmp_path):
    file, folder, link = tmp_path / "file", tmp_path / "folder", tmp_path / "link"
    file.write_text("mine")
    folder.mkdir()
    link.symlink_to(tmp_path / "nowhere")
    for out in (file, folder, link):
        assert f"{out} exists" in refusal(tfidf.export, "onnx", out, progress=False)
    assert file.read_text() == "mine" and not any(folder.iterdir())


def test_what_a_killed_export_left_is_cleared_away(tfidf, tmp_path):
    left = tmp_path / ".out.4194305.partial"  # no process has this number
    left.mkdir()
    (left / "model.onnx").write_text("half")
    exported = tfidf.export("onnx", tmp_path / "out", progress=False)
    assert [*tmp_path.iterdir()] == [exported.path]


def test_a_full_disk_leaves_nothing_behind(tfidf, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exports.files, "write_json", full)
    message = refusal(tfidf.export, "onnx", tmp_path / "out", progress=False)
    assert "No space left" in message and "choose another folder" in message
    assert [*tmp_path.iterdir()] == []


def test_what_does_not_reproduce_predict_is_refused(tfidf, tmp_path, monkeypatch):
    real = FORMS["onnx"].probabilities
    for moved in (0.001, np.nan):
        monkeypatch.setattr(
            type(FORMS["onnx"]), "probabilities",
            lambda self, *given, moved=moved: real(*given) + moved,
        )  # fmt: skip
        message = refusal(tfidf.export, "onnx", tmp_path / "out", progress=False)
        assert "differ from those of predict" in message
    assert [*tmp_path.iterdir()] == []


def test_a_graph_that_gives_something_else_is_refused(best):
    run, exported = best
    source = Source(run.run, None)
    module, inputs = graphs.model_of(source), graphs.Inputs.of(source)
    graphs._check(source, module, inputs, exported.path / "model.onnx")
    module.bias[0] += 0.01
    message = refusal(graphs._check, source, module, inputs, exported.path / "model.onnx")
    assert "an ONNX graph (with 1 texts, probabilities differ by " in message


def test_a_package_that_is_missing_is_named_before_anything_is_computed(
    best, tmp_path, monkeypatch
):
    real = forms.importlib.util.find_spec
    monkeypatch.setattr(
        forms.importlib.util, "find_spec",
        lambda name: None if name == "onnxscript" else real(name),
    )  # fmt: skip
    run, _ = best
    message = refusal(run.export, "onnx", tmp_path / "out", progress=False)
    assert "to=onnx needs onnxscript: pip install 'spacelite[export]'" in message


def test_another_backbone_is_refused(tfidf, tmp_path):
    other = save_backbone("bert", tmp_path / "other", seed=1)
    message = refusal(tfidf.export, "onnx", tmp_path / "out", backbone=other, progress=False)
    assert "is not the backbone that run" in message


def test_options_without_effect_are_refused(tfidf, tmp_path):
    message = refusal(tfidf.export, "onnx", tmp_path / "o", quantize="int8", progress=False)
    assert "quantize=int8 has no effect on run" in message
    message = refusal(tfidf.export, "onnx", tmp_path / "o", quantize="int2", progress=False)
    assert "int8" in message
    assert "onnx" in refusal(tfidf.export, "onx", tmp_path / "o", progress=False)


def test_without_texts_there_is_nothing_to_compare(data, bert, tmp_path):
    cache = embedded(data, tmp_path / "cache", bert)
    run = trained(cache, "tfidf")
    for path in (tmp_path / "cache" / "embeddings").glob("*.texts.npz"):
        path.unlink()
    message = refusal(run.export, "onnx", tmp_path / "out", progress=False)
    assert "has no texts of test or validation" in message
    whole = write_dataset(tmp_path / "two", {"train": 40, "validation": 20})
    run = trained(embedded(whole, tmp_path / "cache", bert), "tfidf")
    exported = run.export("onnx", tmp_path / "out", progress=False)
    assert exported.split == "validation" and "those of validation were compared" in str(exported)


def test_a_head_of_an_extension_is_refused(tfidf, monkeypatch, tmp_path):
    monkeypatch.setattr("spacelite.export.model.KINDS", ("space",))
    message = refusal(tfidf.export, "onnx", tmp_path / "out", progress=False)
    assert "heads of the kind tfidf are an extension" in message


def test_the_command_prints_what_was_written(tfidf, cache_dir, tmp_path):
    def export(*options):
        given = [tfidf.id, "--to", "onnx", "--cache-dir", cache_dir, *options]
        return invoke("export", *given)

    done = export("--out", tmp_path / "one")
    assert done.exit_code == 0 and "compared with predict on 20 texts of test" in done.stdout
    done = export("--out", tmp_path / "two", "--json")
    assert json.loads(done.stdout)["path"] == str(tmp_path / "two")
    done = export("--out", tmp_path / "two", "--quantize", "int8")
    assert done.exit_code == 1 and done.stderr.startswith("error: --quantize int8 has no effect")
    assert "exists: give another folder" in export("--out", tmp_path / "two").stderr


# int8.


def test_the_cost_of_rounded_weights_is_that_of_the_whole_split(tfidf, data, cache_dir):
    """Against scikit-learn, for probabilities that are moved by hand."""
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    real = exports.RealTexts.of(tfidf.run, cache_dir)
    source = Source(tfidf.run, None)
    before = source.predictor.predict(real.some(None)).probabilities
    after = before[:, ::-1] * 0.5 + before * 0.5

    class Moved:
        def probabilities(self, source, folder, texts):
            return after

    cost, predictions = exports.measured(real, source, Moved(), cache_dir)
    assert predictions.probabilities == pytest.approx(after)
    for values, given in ((before, cost.before), (after, cost.after)):
        guess = values.argmax(axis=1)
        assert given["accuracy"] == pytest.approx(accuracy_score(real.labels, guess))
        assert given["f1_macro"] == pytest.approx(f1_score(real.labels, guess, average="macro"))
        assert given["ce"] == pytest.approx(log_loss(real.labels, values), abs=1e-6)
    for name, difference in cost.differences.items():
        assert difference.value == pytest.approx(cost.after[name] - cost.before[name])
        assert difference.interval[0] <= difference.value <= difference.interval[1]
    assert "cost on 20 examples of test" in str(cost)


def test_int8_rounds_the_backbone_and_not_the_head(best, tmp_path):
    import onnx

    run, exported = best
    shutil.copytree(exported.path, tmp_path / "int8")
    FORMS["onnx"].quantize(tmp_path / "int8", "int8")
    assert {path.name for path in (tmp_path / "int8").iterdir()} == set(exported.files)
    whole, rounded = (
        onnx.load(folder / "model.onnx") for folder in (exported.path, tmp_path / "int8")
    )
    names = [weight.name for weight in rounded.graph.initializer]
    assert any("blocks" in name and "units" in name for name in names)
    assert not [name for name in names if "blocks" in name and name.endswith("_quantized")]
    assert len(rounded.SerializeToString()) < len(whole.SerializeToString())
    assert "MatMulInteger" in {node.op_type for node in rounded.graph.node}
    given = FORMS["onnx"].probabilities(Source(run.run, None), tmp_path / "int8", ODD)
    expected = run.predict(ODD, progress=False).probabilities
    assert 0 < np.abs(given - expected).max() < 0.2


def test_the_card_of_rounded_weights_has_their_own_figures(best, data, tmp_path, monkeypatch):
    """Against scikit-learn, for weights that are rounded so badly that labels change."""
    from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score
    from test_card import tables

    run, exported = best
    form, right = type(FORMS["onnx"]), FORMS["onnx"].probabilities

    def write(self, source, folder):  # as it was written, which takes a while
        shutil.copytree(exported.path, folder, dirs_exist_ok=True)
        return []

    def probabilities(self, source, folder, texts):
        given = right(source, folder, texts)
        rounded = (folder / "rounded").exists()
        return 0.6 * given[:, [1, 2, 0]] + 0.4 * given if rounded else given

    monkeypatch.setattr(form, "write", write)
    monkeypatch.setattr(form, "probabilities", probabilities)
    monkeypatch.setattr(form, "quantize", lambda self, folder, to: (folder / "rounded").touch())
    done = run.export("onnx", tmp_path / "out", quantize="int8", progress=False)
    card = (done.path / "README.md").read_text()

    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    labels = np.array([run.labels.index(str(row["label"])) for row in rows])
    whole = run.predict([row["text"] for row in rows], progress=False).probabilities
    given = 0.6 * whole[:, [1, 2, 0]] + 0.4 * whole
    guess = given.argmax(axis=1)
    assert (guess != whole.argmax(axis=1)).any()
    expected = {
        "Accuracy": accuracy_score(labels, guess),
        "Macro F1": f1_score(labels, guess, average="macro"),
        "CE": log_loss(labels, given, labels=[0, 1, 2]),
        "AUROC": roc_auc_score(labels, given, multi_class="ovr"),
    }
    assert "On the 20 examples of test, rounding the weights changed accuracy: " in card
    figures, by_label, counts, beside = tables(card)
    cells = {row[0]: row[1:] for row in figures}
    assert cells["Metric"] == ["Value", "95% interval", "Before rounding"]
    for name, value in expected.items():
        assert float(cells[name][0]) == pytest.approx(value, abs=1.1e-4)
    for name, metric in (("Accuracy", "accuracy"), ("CE", "ce"), ("AUROC", "auroc")):
        assert cells[name][2] == f"{run.metrics['test'][metric]:.4f}"
    f1 = f1_score(labels, guess, average=None)
    assert [float(row[3]) for row in by_label[1:]] == pytest.approx(f1.tolist(), abs=1e-4)
    for number, row in enumerate(counts[1:]):
        of_label = np.bincount(guess[labels == number], minlength=3)
        assert [int(cell) for cell in row[1:]] == of_label.tolist()
    (own,) = [row for row in beside if "(this one)" in row[0]]
    assert own[1] == cells["Accuracy"][0]
    front = yaml.safe_load(card.split("---\n")[1])
    ((result,),) = [entry["results"] for entry in front["model-index"]]
    assert [of["value"] for of in result["metrics"]] == [
        float(cells[name][0]) for name in ("Accuracy", "Macro F1", "AUROC")
    ]


def test_the_code_of_the_page_runs(best, tmp_path, monkeypatch):
    """In the order of the page, with what its command writes."""
    _, exported = best
    (tmp_path / "classifier").symlink_to(exported.path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "classify", raising=False)
    page = (ROOT / "docs" / "guide" / "export.md").read_text().split("\n## onnx\n")[1]
    code = re.findall(r"```python\n(.*?)```", page.split("\n## ")[0], re.DOTALL)
    assert code
    for block in code:
        exec(compile(block, "export.md", "exec"), {})
    monkeypatch.delitem(sys.modules, "classify")


def test_what_was_exported_counts_in_english():
    one, two = (Exported(Path("out"), "onnx", {}, 0.1, 6, "test", count, ()) for count in (1, 2))
    assert "1 of them is decided" in str(one) and "2 of them are decided" in str(two)


# What takes long.

slow = pytest.mark.slow


@slow
@pytest.mark.parametrize(("head", "settings", "how"), KINDS, ids=kind_ids)
def test_every_kind_of_head_is_exported(head, settings, how, data, cache_dir, bert, tmp_path):
    run = trained(embedded(data, cache_dir, bert, **how), head, **settings)
    exported = run.export("onnx", tmp_path / "out", progress=False)
    assert exported.difference < 1e-4 and exported.decisions == 0
    additive = json.loads((exported.path / "classifier.json").read_text())["additive"]
    assert additive == (
        head != "mlp" and settings.get("pooling") not in ("first", "last", "pooler")
    )
    compare(run, exported.path, tmp_path, explained=additive)


@slow
@pytest.mark.parametrize(
    "architecture",
    ["bert", "distilbert", "roberta", "mpnet", "xlnet", "modernbert", "gpt2", "llama", "t5"],
)
def test_every_architecture_is_exported(architecture, data, tmp_path):
    """Of tiny random ones: additive heads that read all layers, and a last or first token."""
    import test_architectures

    folder = tmp_path / architecture
    if architecture == "xlnet":  # its own tokenizer pads on the left
        save_backbone("xlnet", folder)
    else:
        folder.mkdir()
        size = wordpiece(folder)
        test_architectures.save(architecture, folder, vocab_size=size)
    cache = embedded(data, tmp_path / "cache", folder, max_length=64)
    run = trained(cache, "additive", blocks="layers+ngrams+space")
    compare(run, run.export("onnx", tmp_path / "out", progress=False).path, tmp_path)
    pooled = trained(cache, "linear")  # the pooling that the backbone is made for
    exported = pooled.export("onnx", tmp_path / "pooled", progress=False)
    compare(pooled, exported.path, tmp_path, explained=False)


@slow
def test_thresholds_of_several_labels_in_a_graph(tmp_path, bert):
    rows = [
        {"text": text, "labels": [word for word in ("good", "film", "slow") if word in text]}
        for text in texts(90, seed=5)
    ]
    for split, part in (("train", rows[:60]), ("validation", rows[60:75]), ("test", rows[75:])):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)) + "\n")
    cache = embedded(tmp_path, tmp_path / "cache", bert)
    (run,) = spacelite.train(cache, head="space", threshold="f1", progress=False, **EPOCHS)
    exported = run.export("onnx", tmp_path / "out", quantize=None, progress=False)
    assert len(run.record.thresholds) == 3
    compare(run, exported.path, tmp_path)


@slow
def test_runs_of_half_precision_are_compared_in_float32(data, tmp_path, distilbert):
    cache = embedded(data, tmp_path / "cache", distilbert, precision="bfloat16")
    run = trained(cache, "space")
    exported = run.export("onnx", tmp_path / "out", progress=False)
    assert "were embedded in bfloat16; the form computes in float32" in str(exported)
    assert exported.difference < 1e-4


@slow
def test_int8_is_exported_with_its_cost(data, cache_dir, distilbert, tmp_path):
    run = trained(embedded(data, cache_dir, distilbert), "space")
    exported = run.export("onnx", tmp_path / "out", quantize="int8", progress=False)
    verified = json.loads((exported.path / "verified.json").read_text())
    assert verified["quantize"] == "int8" and verified["tolerance"] is None
    assert verified["cost"]["examples"] == 20 and 0 < exported.difference < 0.2
    assert set(verified["cost"]["differences"]) == {"accuracy", "f1_macro", "ce"}
    assert "cost on 20 examples of test:" in str(exported)


@slow
def test_weights_that_are_too_large_for_a_graph_lie_beside_it(
    data, cache_dir, distilbert, tmp_path, monkeypatch
):
    monkeypatch.setattr(graphs, "LARGEST", 1000)
    run = trained(embedded(data, cache_dir, distilbert), "space")
    exported = run.export("onnx", tmp_path / "out", progress=False)
    assert exported.files["model.onnx.data"] > 1000
    sealed = json.loads((exported.path / "classifier.json").read_text())["files"]
    assert sealed["model.onnx.data"]["bytes"] == exported.files["model.onnx.data"]
    compare(run, exported.path, tmp_path)
    moved = shutil.move(exported.path, tmp_path / "moved")
    FORMS["onnx"].quantize(Path(moved), "int8")
    assert np.isfinite(FORMS["onnx"].probabilities(Source(run.run, None), Path(moved), ODD)).all()


@slow
def test_a_backbone_that_cannot_be_translated_is_refused(data, tmp_path, capfd):
    """Longformer's attention depends on what is in the mask."""
    import test_architectures

    folder = tmp_path / "longformer"
    folder.mkdir()
    test_architectures.save("longformer", folder, vocab_size=wordpiece(folder))
    run = trained(embedded(data, tmp_path / "cache", folder, max_length=64), "space")
    message = refusal(run.export, "onnx", tmp_path / "out", progress=False)
    assert "longformer cannot be translated into an ONNX graph" in message
    assert "forward" not in capfd.readouterr().err  # the exporter would print it
    assert not (tmp_path / "out").exists() and not [*tmp_path.glob(".out*")]


@slow
@pytest.mark.minilm
@pytest.mark.timeout(900)
def test_the_program_runs_in_an_environment_of_its_own(tmp_path, real_data, capsys):
    """In a fresh environment with what requirements.txt names and nothing else, on 200 real
    texts."""
    cache = spacelite.embed(
        str(real_data / "hatexplain"), backbone="minilm", cache_dir=tmp_path / "cache", limit=300,
        device="cpu", progress=False,
    )  # fmt: skip
    run = trained(cache, "additive", blocks="layers+ngrams+attention")
    exported = run.export("onnx", tmp_path / "out", progress=False)
    assert exported.texts == 200 and exported.difference < 1e-4
    some = [*exports.RealTexts.of(run.run, tmp_path / "cache").some(), *ODD, " ".join(ODD * 40)]
    some = [" ".join(text.split()) for text in some]  # a text per line
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    installed = subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check",
         "-c", str(ROOT / "constraints.txt"), "-r", str(exported.path / "requirements.txt")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if installed.returncode:
        pytest.skip(f"no packages can be installed here: {installed.stderr[-200:]}")
    (tmp_path / "texts.txt").write_text("\n".join(some))
    program = [str(python), "-I", str(exported.path / "classify.py")]
    begun = time.perf_counter()
    subprocess.run([*program, "a text"], check=True, capture_output=True)
    ready = time.perf_counter() - begun
    done = subprocess.run(
        [*program, "--json", "--explain", "--file", str(tmp_path / "texts.txt")], check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    documents = json.loads(done.stdout)
    given = [list(one["probabilities"].values()) for one in documents]
    expected = run.predict(some, progress=False)
    np.testing.assert_allclose(given, expected.probabilities, atol=1e-4)
    farthest = 0.0
    for text, one in zip(some, documents, strict=True):
        words = run.explain(text, progress=False).explanation.words
        assert [word["text"] for word in one["words"]] == [word.text for word in words]
        shares = [np.array([word.contributions for word in words])]
        shares.append(np.array([word["contributions"] for word in one["words"]]))
        farthest = max(farthest, float(np.abs(shares[0] - shares[1]).max()))
    assert farthest < 1e-3
    absent = "import torch"
    assert subprocess.run([str(python), "-c", absent], capture_output=True).returncode == 1
    size = sum(path.stat().st_size for path in environment.rglob("*") if path.is_file())
    with capsys.disabled():
        print(f"\none text from start to end: {ready:.2f} s; the environment: {size / 1e6:.0f} MB")
        print(f"probabilities: {np.abs(given - expected.probabilities).max():.1e}; {farthest:.1e}")
