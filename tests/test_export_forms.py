"""The forms sentence-transformers and transformers, loaded back by those libraries in a process
that cannot import spacelite, beside `predict`."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import embed, refusal, save_backbone, texts, wordpiece
from test_architectures import save

import spacelite

SAMPLE = [
    *texts(6, seed=9),
    " ".join(texts(8, seed=3)),  # more tokens than any backbone here takes
    ".",
    "a",
    "电影很好看，情节也不错。",
    "loved it 😀👍🏽 very good",
    "zzz qqq [SEP] <s> good",
    "  The\tFILM\n was  gréat!  ",
]
# Kinds of backbones with a tokenizer of their own, and others.
OWN = ("bert", "distilbert", "xlnet")
OTHERS = ("roberta", "mpnet", "modernbert", "electra", "deberta-v2", "albert", "llama")
STOCK_ALONE = ("electra", "deberta-v2", "albert")  # of which only the stock classes are tried

LOADED = """
import json, sys
sys.modules["spacelite"] = None  # an import of it fails
wanted, result = json.load(sys.stdin), {}
import logging, torch, transformers
transformers.utils.logging.set_verbosity_error()
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
texts = wanted["texts"]
for folder, form in wanted["folders"].items():
    if form == "sentence-transformers":
        model = SentenceTransformer(folder, device="cpu")
        logits = model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
        config = model[0].model.config
        thresholds = getattr(config, "thresholds", {})
        several = wanted["several"][folder]
        probabilities = logits.sigmoid() if several else logits.softmax(-1)
        result[folder] = {
            "labels": config.labels, "probabilities": probabilities.tolist(),
            "thresholds": thresholds,
            "modules": sorted({type(module).__module__.split(".")[0] for module in model}),
        }
        continue
    own = wanted["own"][folder]
    classify = pipeline("text-classification", folder, trust_remote_code=own)
    labels = list(classify.model.config.id2label.values())
    rows = classify(texts, truncation=True, top_k=None)
    padded = classify(texts, truncation=True, padding=True, top_k=None, batch_size=4)
    result[folder] = {
        "labels": labels, "class": type(classify.model).__name__,
        "thresholds": getattr(classify.model.config, "thresholds", {}),
        **{
            name: [[{s["label"]: s["score"] for s in row}[label] for label in labels] for row in of]
            for name, of in (("probabilities", rows), ("padded", padded))
        },
        "code": type(classify.model).__module__,
    }
    if not own:
        _, info = AutoModelForSequenceClassification.from_pretrained(
            folder, output_loading_info=True
        )
        result[folder]["missing"] = sorted(map(str, info["missing_keys"]))
print(json.dumps(result))
"""


def loaded(
    exports: dict, several: dict | None = None, home: Path | None = None, sample=SAMPLE
) -> dict:
    """What the libraries give for texts from folders -> their forms, in a process without
    spacelite."""
    wanted = {
        "texts": sample,
        "folders": {str(folder): form for folder, form in exports.items()},
        "own": {str(folder): (folder / "modeling_spacelite.py").exists() for folder in exports},
        "several": {str(folder): bool((several or {}).get(folder)) for folder in exports},
    }
    environment = {**os.environ, "HF_MODULES_CACHE": str(home), "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", LOADED], input=json.dumps(wanted), text=True, check=False,
        capture_output=True, env=environment, cwd=home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {Path(name): of for name, of in json.loads(done.stdout.splitlines()[-1]).items()}


def backbone(kind: str, folder: Path) -> Path:
    """A tiny backbone of a kind."""
    if kind in OWN:
        return save_backbone(kind, folder / f"tiny-{kind}")
    path = folder / f"tiny-{kind}"
    save(kind, path, vocab_size=wordpiece(path), pad_token_id=0, max_position_embeddings=64)
    return path


def trained(kind: str, folder: Path, data: Path, heads, dtype: str = "float32", **options):
    """The runs of several calls of `train` on one cache, and the folder of their backbone."""
    where = backbone(kind, folder)
    cache_dir = folder / "cache"
    settings = {"max_length": 24, "layers": True, **options}
    cache = embed(
        backbone=str(where), dataset=str(data), cache_dir=cache_dir, device="cpu", dtype=dtype,
        **settings,
    )  # fmt: skip
    common = {"cache_dir": cache_dir, "progress": False, "baselines": False}
    of_epochs = {"epochs": 3, "learning_rate": 0.05}
    return where, [
        run
        for head in heads
        for run in spacelite.train(
            cache.path,
            **common,
            **({} if head["head"] in ("tfidf", "logreg") else of_epochs),
            **head,
        )
    ]


def beside_predict(groups, forms, folder, sample=SAMPLE):
    """Export the runs of each (folder of a backbone, runs) in forms, and load all back. For each
    (system, form): what was loaded, whose probabilities are those of `predict`; or why it was
    refused."""
    exports, refused, of = {}, {}, {}
    for where, runs in groups:
        for run in runs:
            for form in forms:
                out = folder / f"{len(of) + len(refused)}-{form}"
                try:
                    exported = run.export(form, out, backbone=where, progress=False)
                except spacelite.SpaceliteError as error:
                    refused[run.record.system, form] = str(error)
                    assert not out.exists() and not list(folder.glob(f".{out.name}*"))
                    continue
                assert exported.difference <= 1e-4
                exports[out], of[out] = form, (run, where)
    several = {out: run.record.task.label_dimensions > 1 for out, (run, _) in of.items()}
    result = {}
    for out, given in loaded(exports, several, folder, sample).items():
        form, (run, where) = exports[out], of[out]
        expected = run.predict(sample, backbone=where, device="cpu", progress=False).probabilities
        assert tuple(given["labels"]) == run.labels
        assert given["thresholds"] == run.record.thresholds
        # Means of layers are stored as float16, whatever hidden states are.
        most = 4e-4 if form == "sentence-transformers" and run.run.head.reads_layers else 1e-4
        for name in {"probabilities", "padded"} & given.keys():
            differs = np.abs(np.array(given[name]) - expected).max()
            assert differs < most, (run.record.system, form, name)
        assert (run.record.system, form) not in result
        result[run.record.system, form] = given
    return result, refused


FORMS = ("sentence-transformers", "transformers")
EVERY = [
    {"head": ["space"], "ensemble": 2},
    {"head": ["linear"], "pooling": ["first", "mean", "max", "pooler", "layers"]},
    {"head": "logreg", "pooling": "first"},
    {"head": "additive", "blocks": ["mean+space", "layers+space"]},
    {"head": "additive", "blocks": "layers+ngrams+attention"},
    {"head": "tfidf"},
]
MORE = [
    {"head": ["mlp", "logreg"], "pooling": ["mean", "pooler", "layers"]},
    {"head": "additive", "blocks": ["mean", "layers", "space", "attention", "mean+ngrams"]},
]


def of_several_labels(folder: Path) -> Path:
    """A data set whose texts have any number of labels with odd names."""
    rows = [
        {"text": text, "label": [name for name in ('"q"', "a|b", "日本") if len(text) % len(name)]}
        for text in texts(60, longest=12)
    ]
    folder.mkdir()
    for split, part in (("train", rows[:40]), ("validation", rows[40:50]), ("test", rows[50:])):
        lines = [json.dumps(row) for row in part]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def every(tmp_path_factory, reviews):
    """Every kind of head on a tiny BERT with a pooler, and two on a tiny DistilBERT for texts of
    several labels, in both forms."""
    folder = tmp_path_factory.mktemp("every")
    bert = trained("bert", folder, reviews, EVERY)
    data = of_several_labels(folder / "labels")
    heads = [{"head": "mlp", "threshold": "f1"}, {"head": "space", "latent": 2}]
    several = trained("distilbert", folder, data, heads)
    return [*bert[1], *several[1]], *beside_predict([bert, several], FORMS, folder)


def test_every_head_is_exported_or_says_why_not(every):
    runs, given, refused = every
    assert {run.record.task.name for run in runs} == {"single-label", "multi-label"}
    assert {run.record.system for run in runs} == {system for system, _ in [*given, *refused]}
    assert set(refused) == {
        ("tfidf", "transformers"), ("tfidf", "sentence-transformers"),
        ("additive (layers+ngrams+attention)", "sentence-transformers"),
    }  # fmt: skip
    assert all(message.endswith("take the form onnx") for message in refused.values())


def test_sentence_transformers_needs_no_code_of_others(every):
    _, given, _ = every
    of_form = [of for (_, form), of in given.items() if form == "sentence-transformers"]
    assert of_form
    assert all(of["modules"] == ["sentence_transformers"] for of in of_form)


def test_classes_of_transformers_are_taken_where_they_are_exact(every):
    _, given, _ = every
    bert, distilbert = "BertForSequenceClassification", "DistilBertForSequenceClassification"
    stock = {
        "linear (first)": bert, "linear (pooler)": bert, "logreg (first)": bert,
        "mlp (first)": distilbert,
    }  # fmt: skip
    for (system, form), of in given.items():
        if form == "transformers" and system in stock:
            assert of["class"] == stock[system]
            assert of["missing"] == [] and of["code"].startswith("transformers.models.")
        elif form == "transformers":
            assert of["class"] == "SpaceliteForSequenceClassification"
            assert of["code"].startswith("transformers_modules.")


def test_a_model_with_a_head_that_is_not_trained_does_not_load_in_silence(tmp_path, reviews, capfd):
    """Whatever folder of these forms is opened as another class, transformers says what it lacks,
    or refuses."""
    from transformers import AutoModelForSequenceClassification

    where, (linear, space) = trained(
        "bert", tmp_path, reviews, [{"head": ["linear", "space"], "pooling": "first"}]
    )
    stock = linear.export("transformers", tmp_path / "stock", backbone=where, progress=False)
    own = space.export("transformers", tmp_path / "own", backbone=where, progress=False)
    modules = space.export(
        "sentence-transformers", tmp_path / "modules", backbone=where, progress=False
    )
    assert "no code has to be trusted" in str(stock)
    assert "trust_remote_code=True runs modeling_spacelite.py" in str(own)
    assert "trust_remote_code" not in (stock.path / "README.md").read_text()
    assert "trust_remote_code=True" in (own.path / "README.md").read_text()

    def info(folder):
        return AutoModelForSequenceClassification.from_pretrained(
            folder, output_loading_info=True, trust_remote_code=False
        )[1]

    assert not info(stock.path)["missing_keys"] and not info(stock.path)["unexpected_keys"]
    with pytest.raises(ValueError, match="trust_remote_code"):
        info(own.path)
    # The backbone alone: labels that a made-up head would take for its own are not in its config.
    assert sorted(info(modules.path)["missing_keys"]) == ["classifier.bias", "classifier.weight"]
    assert "id2label" not in json.loads((modules.path / "config.json").read_text())


def test_exports_name_no_folder_of_this_machine(tmp_path, reviews):
    where, runs = trained(
        "bert", tmp_path, reviews, [{"head": ["linear", "space"], "pooling": "first"}]
    )
    for run in runs:
        for form in (*FORMS, "safetensors"):
            out, read = tmp_path / f"{run.id}-{form}", None if form == "safetensors" else where
            done = run.export(form, out, backbone=read, progress=False)
            for path in done.path.rglob("*"):
                content = path.read_bytes() if path.is_file() else b""
                assert str(tmp_path).encode() not in content, path


@pytest.mark.slow
def test_further_heads(tmp_path, reviews):
    where, runs = trained("bert", tmp_path, reviews, MORE)
    given, refused = beside_predict([(where, runs)], FORMS, tmp_path)
    assert set(refused) == {
        (f"additive ({blocks})", FORMS[0]) for blocks in ("mean+ngrams", "attention")
    }
    assert len(given) == 2 * len(runs) - 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["distilbert", "xlnet", *OTHERS])
def test_backbones_of_many_kinds(kind, tmp_path, reviews):
    ends = "last" if kind in ("xlnet", "llama") else "first"
    heads = [
        {"head": ["linear", "mlp"], "pooling": [ends, "mean"]},
        {"head": ["space", "linear"], "pooling": "layers"},
        {"head": "additive", "blocks": "mean+space", "latent": 4},
    ]
    forms = FORMS
    if kind in STOCK_ALONE:
        heads, forms = [{"head": ["linear", "mlp"], "pooling": ends}], ["transformers"]
    where, runs = trained(kind, tmp_path, reviews, heads)
    given, refused = beside_predict([(where, runs)], forms, tmp_path)
    assert refused == {}
    stock = {
        system: of["class"]
        for (system, form), of in given.items()
        if form == "transformers" and not of["class"].startswith("Spacelite")
    }
    both = {"distilbert": "DistilBert", "xlnet": "XLNet", "deberta-v2": "DebertaV2"}
    one = {"roberta": "Roberta", "mpnet": "MPNet", "electra": "Electra", "albert": "Albert"}
    name = f"{(both | one).get(kind)}ForSequenceClassification"
    expected = {f"linear ({ends})": name} if kind in both | one else {}
    expected |= {f"mlp ({ends})": name} if kind in both else {}
    assert stock == expected


@pytest.mark.slow
@pytest.mark.minilm
def test_minilm_on_real_texts(tmp_path, real_data):
    cache = spacelite.embed(
        str(real_data / "hatexplain"), backbone="minilm", cache_dir=tmp_path / "cache", limit=200,
        dtype="float32", device="cpu", progress=False,
    )  # fmt: skip
    options = {"baselines": False, "progress": False, "epochs": 3}
    runs = [
        *spacelite.train(cache, head=["space", "linear"], **options),
        *spacelite.train(cache, head="additive", blocks="layers+ngrams+attention", **options),
    ]
    sample = [*cache["test"].texts][:200] + SAMPLE[6:]
    assert len(sample) > 200
    given, refused = beside_predict([(None, runs)], FORMS, tmp_path, sample)
    assert len(given) == 5 and len(refused) == 1  # n-grams have no stock module


@pytest.mark.slow
@pytest.mark.parametrize("layer", [0, 1])
def test_other_layers_prefixes_and_reductions(layer, tmp_path, reviews):
    heads = [{"head": ["linear", "mlp", "space"], "pooling": "mean"}]
    where, runs = trained(
        "distilbert", tmp_path, reviews, heads, layer=layer, prefix="the story: ", reduce=8
    )
    given, refused = beside_predict([(where, runs)], FORMS[:1], tmp_path)
    assert refused == {} and len(given) == len(runs)
    message = refusal(runs[0].export, "transformers", tmp_path / "out", backbone=where)
    assert "prefix, which pipelines do not add" in message


def test_what_stock_modules_cannot_do_is_refused_with_the_form_that_can(tmp_path, reviews, bert):
    def refused(form, **options):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        where, (run,) = trained(
            "distilbert", folder, reviews, [{"head": "linear", "pooling": "mean"}], **options
        )
        message = refusal(run.export, form, folder / "out", backbone=where, progress=False)
        assert not (folder / "out").exists()
        return message

    windows = {"windows": True, "stride": 4, "max_length": 16}
    for form in FORMS:
        assert "in windows" in refused(form, **windows)
        assert "counts padding as tokens" in refused(form, padding="max_length")
    assert "leaves out the first token" in refused(FORMS[0], skip_first=True)


def test_stored_types_that_round_are_not_exact_with_stock_modules(tmp_path, reviews):
    where, (run,) = trained(
        "bert", tmp_path, reviews, [{"head": "linear", "pooling": "first"}], dtype="int4"
    )
    message = refusal(run.export, FORMS[0], tmp_path / "st", backbone=where, progress=False)
    assert "predict rounds hidden states to int4" in message
    assert "dtype=float32" in message and message.endswith("take the form onnx")
    done = run.export("transformers", tmp_path / "own", backbone=where, progress=False)
    assert done.difference < 1e-4
    assert "no class of transformers rounds hidden states to int4" in str(done)
    files = {path.name for path in done.path.iterdir()}
    assert files == {
        "README.md", "config.json", "model.safetensors", "modeling_spacelite.py", "tokenizer.json",
        "tokenizer_config.json", "verified.json",
    }  # fmt: skip


def test_a_missing_package_names_its_extra(tmp_path, reviews, monkeypatch):
    import importlib.util

    where, (run,) = trained("bert", tmp_path, reviews, [{"head": "space"}])
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec",
        lambda name, *more: None if name == "sentence_transformers" else find(name, *more),
    )  # fmt: skip
    message = refusal(run.export, FORMS[0], tmp_path / "out", backbone=where, progress=False)
    assert message.endswith("pip install 'spacelite[sentence-transformers]'")
    shutil.rmtree(tmp_path / "cache")


def test_the_code_of_the_page_runs(tmp_path, reviews):
    """In a process that cannot import spacelite."""
    page = (Path(__file__).parent.parent / "docs" / "guide" / "export.md").read_text("utf-8")
    where, (run,) = trained("bert", tmp_path, reviews, [{"head": "space"}])
    code = ['import sys; sys.modules["spacelite"] = None']
    for form in FORMS:
        section = page.split(f"## {form}\n")[1].split("\n## ")[0]
        (out,) = re.findall(f"--to {form} --out (\\w+)", section)
        run.export(form, tmp_path / out, backbone=where, progress=False)
        code += re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(code) == 3
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)], text=True, check=False, capture_output=True,
        cwd=tmp_path, env={**os.environ, "HF_MODULES_CACHE": str(tmp_path), "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = done.stdout.splitlines()[-2:]
    assert sum(ast.literal_eval(first).values()) == pytest.approx(1)
    assert ast.literal_eval(first).keys() == set(run.labels)
    rows = ast.literal_eval(second)
    rows = rows[0] if isinstance(rows[0], list) else rows
    for row in rows:
        assert row["score"] == pytest.approx(ast.literal_eval(first)[row["label"]], abs=1e-4)
