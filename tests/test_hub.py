"""A local hub cache, laid out as the hub's client does, serves backbones and data sets offline."""

import fnmatch
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import processes
import pyarrow as pa
import pytest
import torch
from conftest import refusal, texts
from huggingface_hub import errors
from pyarrow import parquet
from sklearn.model_selection import train_test_split

from spacelite import hub
from spacelite.backbones.files import locate
from spacelite.backbones.model import Backbone
from spacelite.backbones.tokenizer import tokenize
from spacelite.data import loading as data

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """An empty hub cache; the variables that name it are read when the client is imported."""
    import datasets.config

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path / "hub"


def store(cache: Path, kind: str, name: str, files: dict, ref: str = "main") -> Path:
    """Put a repository into a hub cache: blobs, links to them in a snapshot, a reference to it."""
    root = cache / f"{kind}--{name.replace('/', '--')}"
    (root / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
    (root / "refs" / ref).write_text(COMMIT)
    (root / "blobs").mkdir()
    for number, (path, content) in enumerate(files.items()):
        blob, link = root / "blobs" / str(number), root / "snapshots" / COMMIT / path
        if isinstance(content, pa.Table):
            parquet.write_table(content, blob)
        else:
            blob.write_bytes(content if isinstance(content, bytes) else content.encode())
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return root


def files_of(folder: Path) -> dict:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# Backbones


@pytest.mark.parametrize(
    ("ref", "revision"),
    [("main", None), ("v1.0", "v1.0"), ("refs/pr/3", "refs/pr/3"), ("main", COMMIT)],
)
def test_a_cached_backbone_is_found_offline_under_its_commit(hub_cache, bert, ref, revision):
    store(hub_cache, "models", "org/tiny", files_of(bert), ref)
    found = locate("org/tiny", revision)
    local = locate(str(bert))
    assert found.name == "org/tiny"
    assert found.version == f"revision:{COMMIT}"
    assert found.tokenizer_hash == local.tokenizer_hash
    sample = texts(5)
    for mine, same in zip(
        tokenize(found, sample, max_length=16).ids,
        tokenize(local, sample, max_length=16).ids,
        strict=True,
    ):
        assert (mine == same).all()
    ids = np.array([[2, 5, 6, 3]], np.int32)
    mine, same = (
        Backbone(files, layer=-1, device="cpu").hidden_states(ids, None, None)
        for files in (found, local)
    )
    torch.testing.assert_close(mine, same)


def test_a_backbone_that_is_nowhere_is_refused_with_the_ways_out(hub_cache, bert):
    store(hub_cache, "models", "org/tiny", files_of(bert))
    for name, revision in (("org/other", None), ("org/tiny", "v2")):
        message = refusal(locate, name, revision)
        assert message.startswith(f"model {name!r} is not on this machine")
        for way_out in ("backbone=minilm", "a local folder", "HF_HOME"):
            assert way_out in message


def test_a_cached_backbone_with_pickled_weights_alone_is_refused(hub_cache, bert):
    files = files_of(bert)
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    store(hub_cache, "models", "org/old", files)
    assert "has no model.safetensors" in refusal(locate, "org/old")


def test_a_name_that_no_hub_takes_is_refused(hub_cache):
    assert "there is no backbone 'a/b/c'" in refusal(locate, "a/b/c")
    assert "there is no data set 'a/b/c'" in refusal(data.read, "a/b/c")


def test_only_files_without_code_are_fetched(monkeypatch, tmp_path):
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert hub.backbone_folder("org/tiny", "v1") == tmp_path
    assert (asked["name"], asked["revision"]) == ("org/tiny", "v1")

    def is_fetched(file):
        return any(fnmatch.fnmatch(file, pattern) for pattern in asked["allow_patterns"])

    wanted = ["config.json", "model.safetensors", "model-00001-of-00002.safetensors"]
    assert all(map(is_fetched, [*wanted, "tokenizer.json", "vocab.txt", "spiece.model"]))
    unwanted = ["pytorch_model.bin", "modeling_evil.py", "tf_model.h5", "training_args.bin"]
    assert not any(
        map(is_fetched, [*unwanted, "model.pkl", "onnx/model.onnx", "flax_model.msgpack"])
    )


# What the hub answers, where it can be reached


def answer(kind: type[Exception]) -> Exception:
    response = SimpleNamespace(headers={}, request=None, status_code=404)
    return kind("404 Client Error.\nSee the docs.", response=response)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (errors.RepositoryNotFoundError, "there is no {} 'org/x': no such folder here"),
        (errors.GatedRepoError, "there is no {} 'org/x': no such folder here"),
        (errors.RevisionNotFoundError, "{} 'org/x' has no revision 'v1' on the hub"),
        (
            errors.HfHubHTTPError,
            "the hub did not provide {} 'org/x': 404 Client Error. See the docs.",
        ),
    ],
)
def test_the_hubs_refusals_are_put_in_one_line(monkeypatch, kind, expected):
    def refuse(*args, **kwargs):
        raise answer(kind)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    assert refusal(hub.backbone_folder, "org/x", "v1").startswith(expected.format("backbone"))
    assert refusal(hub.data_set_is_online, "org/x", "v1").startswith(expected.format("data set"))


@pytest.mark.parametrize("answers", [True, False])
def test_a_data_set_is_online_where_the_hub_answers(monkeypatch, answers):
    def ask(self, name, revision=None, timeout=None):
        if not answers:
            raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", ask)
    assert hub.data_set_is_online("org/x", None) is answers


def test_an_online_data_set_is_asked_for_by_name_configuration_and_revision(monkeypatch):
    import datasets

    asked = []

    def load(*args, **options):
        asked.append((*args, options))
        columns = {"text": ["a", "b"], "label": [0, 1]}
        return {
            split: datasets.Dataset.from_dict(columns) for split in ("test", "dev", "train", "x")
        }

    monkeypatch.setattr(hub, "data_set_is_online", lambda name, revision: True)
    monkeypatch.setattr(datasets, "load_dataset", load)
    tables = data.from_hub("org/x", "small", "v1")
    assert asked == [("org/x", "small", {"revision": "v1"})]
    assert tables.keys() == {"train", "validation", "test"}
    assert list(data.read("org/x").splits) == ["train", "validation", "test"]


# Data sets


def rows(size: int, prefix: str, label: int | None = None) -> pa.Table:
    labels = [i % 2 if label is None else label for i in range(size)]
    return pa.table({"text": [f"{prefix} {i}" for i in range(size)], "label": labels})


IMDB_CARD = """---
dataset_info:
  config_name: plain_text
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': neg
          '1': pos
configs:
- config_name: plain_text
  default: true
  data_files:
  - split: train
    path: plain_text/train-*
  - split: test
    path: plain_text/test-*
  - split: unsupervised
    path: plain_text/unsupervised-*
---
"""


def store_imdb(cache: Path) -> dict[str, pa.Table]:
    tables = {"train": rows(12, "train"), "test": rows(21, "test")}
    everything = {**tables, "unsupervised": rows(5, "more", label=-1)}
    shards = {f"plain_text/{k}-00000-of-00001.parquet": table for k, table in everything.items()}
    store(cache, "datasets", "stanfordnlp/imdb", {"README.md": IMDB_CARD, **shards})
    return tables


def test_imdb_from_a_hub_cache_follows_the_published_protocol(hub_cache, tmp_path):
    tables = store_imdb(hub_cache)
    dataset = data.read("imdb")
    kept, validation = train_test_split(
        tables["test"].column("text").to_pylist(), test_size=0.2, random_state=42
    )
    assert list(dataset.splits) == ["train", "validation", "test"]
    assert dataset.splits["train"].texts == tables["train"].column("text").to_pylist()
    assert dataset.splits["test"].texts == kept
    assert dataset.splits["validation"].texts == validation
    assert (dataset.name, dataset.label_names) == ("imdb", ("negative", "positive"))

    local = tmp_path / "imdb"
    local.mkdir()
    for split, table in tables.items():
        parquet.write_table(table, local / f"{split}.parquet")
    assert data.read(str(local)).fingerprint == dataset.fingerprint


def test_any_other_hub_data_set_keeps_its_own_label_names_and_splits(hub_cache):
    store_imdb(hub_cache)
    dataset = data.read("stanfordnlp/imdb:plain_text")
    assert (dataset.name, dataset.label_names) == ("stanfordnlp/imdb", ("neg", "pos"))
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 10,
        "validation": 2,
        "test": 21,
    }


VOTES = [[0, 0, 2], [1, 1, 1], [2, 0, 2], [1, 2, 2], [0, 1, 2]]  # the last is a draw
TOKENS = [["i", "hate", "<user>"], ["hello"], ["so", "so"], ["a", "b"], ["who", "knows"]]


def hatexplain(form: str) -> pa.Table:
    """Rows as on the hub, where annotators have been a struct of lists and a list of structs."""
    target = [["None"], ["Women"], []]
    annotators: list = [
        {"label": votes, "annotator_id": [1, 2, 3], "target": target} for votes in VOTES
    ]
    if form == "list of structs":
        annotators = [
            [
                {"label": vote, "annotator_id": i, "target": target[i]}
                for i, vote in enumerate(struct["label"])
            ]
            for struct in annotators
        ]
    return pa.table(
        {
            "id": [f"{i}_gab" for i in range(len(VOTES))],
            "annotators": annotators,
            "rationales": [[[0, 1]]] * len(VOTES),
            "post_tokens": TOKENS,
        }
    )


def store_hatexplain(cache: Path, form: str = "struct of lists", ref="refs/convert/parquet"):
    splits = ("train", "validation", "test")
    files = {f"plain_text/{split}/0000.parquet": hatexplain(form) for split in splits}
    store(cache, "datasets", "Hate-speech-CNERG/hatexplain", files, ref)


@pytest.mark.parametrize("form", ["struct of lists", "list of structs"])
def test_hatexplain_rows_become_joined_tokens_and_the_majority_label(hub_cache, caplog, form):
    store_hatexplain(hub_cache, form)
    three, two = data.read("hatexplain"), data.read("hatexplain:2")
    assert three.label_names == ("hatespeech", "normal", "offensive")
    assert two.label_names == ("hateful or offensive", "normal")
    for split in ("train", "validation", "test"):
        assert three.splits[split].texts == ["i hate <user>", "hello", "so so", "a b"]
        assert three.splits[split].labels.tolist() == [0, 1, 2, 2]
        assert two.splits[split].labels.tolist() == [0, 1, 0, 0]
    assert "(train): 1 posts without a majority label are left out" in caplog.text


@pytest.mark.parametrize("name", ["hatexplain", "hatexplain:2"])
def test_hatexplain_without_its_converted_revision_says_how_to_give_a_folder(hub_cache, name):
    store_hatexplain(hub_cache, ref="main")
    message = refusal(data.read, name)
    assert "'Hate-speech-CNERG/hatexplain' is not on this machine" in message
    assert "or use a local folder named hatexplain with train, validation and test" in message
    assert "columns text and label (0 hatespeech, 1 normal, 2 offensive)" in message


@pytest.mark.parametrize("name", ["imdb", "org/other", "org/other:small"])
def test_a_data_set_that_is_nowhere_is_refused_with_the_ways_out(hub_cache, name):
    message = refusal(data.read, name)
    asked = "stanfordnlp/imdb" if name == "imdb" else "org/other"
    assert message.startswith(f"data set {asked!r} is not on this machine")
    for way_out in ("dataset=demo", "a local folder", "HF_HOME"):
        assert way_out in message


CONFIGS = """---
configs:
- config_name: large
  data_files: large/*
- config_name: small
  data_files: small/*
---
"""
CSV = "text,label\na,0\nb,1\nc,0\nd,1\n"


def test_a_data_set_of_several_configurations_needs_one_named(hub_cache):
    files = {"README.md": CONFIGS, "large/train.csv": CSV * 3, "small/train.csv": CSV}
    store(hub_cache, "datasets", "org/two", files)
    message = refusal(data.read, "org/two")
    assert "['large', 'small']" in message
    assert message.endswith("dataset=org/two:CONFIGURATION")
    assert "'none' not found" in refusal(data.read, "org/two:none")
    assert sum(map(len, data.read("org/two:small").splits.values())) == 4


def test_a_data_set_without_a_train_split_or_without_data_is_refused(hub_cache):
    store(hub_cache, "datasets", "org/test", {"test.csv": CSV})
    assert "'org/test' has no train split, only test" in refusal(data.read, "org/test")
    store(hub_cache, "datasets", "org/none", {"README.md": "Soon."})
    assert "'org/none' cannot be loaded" in refusal(data.read, "org/none")


def test_a_data_sets_loading_script_is_never_run(hub_cache, tmp_path):
    planted = tmp_path / "planted"
    store(hub_cache, "datasets", "org/script", {"script.py": f"open({str(planted)!r}, 'w')\n"})
    assert "'org/script' cannot be loaded" in refusal(data.read, "org/script")
    assert not planted.exists()


@pytest.mark.slow
def test_the_hub_cache_is_where_hf_home_points(tmp_path, bert):
    """In a process of its own: the client reads the variable when it is imported."""
    store_hatexplain(tmp_path / "hub")
    store(tmp_path / "hub", "models", "org/tiny", files_of(bert))
    code = (
        "from spacelite.data import loading as data\nfrom spacelite.backbones.files import locate\n"
        "print(locate('org/tiny').version)\n"
        "print(list(data.read('hatexplain').splits['test'].texts))\n"
    )
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": None, "HF_DATASETS_CACHE": None}
    done = processes.run(code, fresh=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"revision:{COMMIT}",
        "['i hate <user>', 'hello', 'so so', 'a b']",
    ]
