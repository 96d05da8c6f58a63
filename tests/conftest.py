"""Tiny backbones with random weights and tokenizers of their own, and tiny data sets."""

from __future__ import annotations

import gc
import json
import logging
import os
from functools import cache
from pathlib import Path

# Threads sleep while they wait for each other, and linear algebra has one: on tiny arrays most of
# the processors' time would go into waiting, and several times of it while other processes run.
# Read when numpy and torch are imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# The tests reach no network, whatever the machine they run on does.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import numpy as np
import processes
import pytest

# Files whose slowest test takes longest: begun first, so that no process is left alone with one.
SLOWEST = ("test_notebook", "test_wheel", "test_layers", "test_docs", "test_text_store")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The whole suite runs on every core (but takes up to 2 GB a process); named files in one
    process, where they begin sooner."""
    named = config.args_source == pytest.Config.ArgsSource.ARGS
    return 0 if named or os.cpu_count() == 1 else min(os.cpu_count() or 1, 4)


def pytest_configure(config: pytest.Config) -> None:
    """The workers of `pytest -n` share the process that forks."""
    if config.getoption("numprocesses") and processes.SERVER not in os.environ:
        processes.serve()


def pytest_collection_finish() -> None:
    """What was imported until now stays: the garbage collector need not look through it again and
    again."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest files first."""
    items.sort(key=lambda item: item.path.stem not in SLOWEST)


WORDS = [
    "a", "an", "and", "but", "bad", "boring", "dull", "film", "fine", "good", "great",
    "hardly", "not", "nice", "plot", "poor", "scene", "slow", "story", "the", "this",
    "very", "was", "well", "acted", "loved", "hated",
]  # fmt: skip


def texts(count: int, seed: int = 0, longest: int = 30) -> list[str]:
    """Random texts of 1 to `longest` known words."""
    random = np.random.RandomState(seed)
    return [" ".join(random.choice(WORDS, random.randint(1, longest + 1))) for _ in range(count)]


def refusal(call, *args, **kwargs) -> str:
    """The message of the SpaceliteError that a call raises: one line."""
    from spacelite.errors import SpaceliteError

    with pytest.raises(SpaceliteError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def invoke(*arguments, **options):
    """The result of a command line."""
    from spacelite_cli.app import app
    from typer.testing import CliRunner

    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


def wordpiece(folder: Path) -> int:
    """Save a tokenizer of WORDS and letters; its number of tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *WORDS, *"abcdefghijklmnopqrstuvwxyz", *("##" + c for c in "abcdefgstuyz")]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def _xlnet_tokenizer(folder: Path):
    """Pads on the left, ends in <cls> of segment 2, as XLNet's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>"]
    vocabulary = [(piece, 0.0) for piece in special] + [("▁" + word, -2.0) for word in WORDS]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="$A:0 <sep>:0 <cls>:2", special_tokens=[("<sep>", 4), ("<cls>", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>", unk_token="<unk>", cls_token="<cls>", sep_token="<sep>",
        mask_token="<mask>", padding_side="left", pad_token_type_id=3,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def save_backbone(kind: str, folder: Path, seed: int = 0) -> Path:
    """A random model of width 16 and its tokenizer, saved as on the hub: bert (with a pooler),
    distilbert (without), xlnet (left padding, segments, relative positions)."""
    import torch
    from transformers import (
        BertConfig,
        BertModel,
        DistilBertConfig,
        DistilBertModel,
        XLNetConfig,
        XLNetModel,
    )  # fmt: skip

    size = _xlnet_tokenizer(folder) if kind == "xlnet" else wordpiece(folder)
    torch.manual_seed(seed)
    if kind == "bert":
        model = BertModel(BertConfig(
            vocab_size=size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=24, max_position_embeddings=512,
        ))  # fmt: skip
    elif kind == "distilbert":
        model = DistilBertModel(DistilBertConfig(
            vocab_size=size, dim=16, n_layers=2, n_heads=2, hidden_dim=24,
            max_position_embeddings=512,
        ))  # fmt: skip
    else:
        model = XLNetModel(XLNetConfig(
            vocab_size=size, d_model=16, n_layer=2, n_head=2, d_inner=24,
        ))  # fmt: skip
    # Random weights of the usual 0.02 would make every text look the same.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 if parameter.dim() == 1 else 8)
    model.save_pretrained(folder, safe_serialization=True)
    assert sum(p.numel() for p in model.parameters()) < 30_000, "fixtures stay tiny"
    return folder


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    return save_backbone("bert", tmp_path_factory.mktemp("backbones") / "tiny-bert")


@pytest.fixture(scope="session")
def distilbert(tmp_path_factory) -> Path:
    return save_backbone("distilbert", tmp_path_factory.mktemp("backbones") / "tiny-distilbert")


@pytest.fixture(scope="session")
def xlnet(tmp_path_factory) -> Path:
    return save_backbone("xlnet", tmp_path_factory.mktemp("backbones") / "tiny-xlnet")


def write_dataset(folder: Path, sizes: dict[str, int], classes: int = 2, longest: int = 30) -> Path:
    """A folder of json-lines splits of random texts; labels follow the word `good`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (split, size) in enumerate(sizes.items()):
        rows = [
            {"text": text, "label": (text.count("good") + i) % classes}
            for i, text in enumerate(texts(size, seed=number, longest=longest))
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory) -> Path:
    """60 + 20 + 20 short texts of two classes."""
    sizes = {"train": 60, "validation": 20, "test": 20}
    return write_dataset(tmp_path_factory.mktemp("data") / "reviews", sizes)


def embed(
    *, backbone, cache_dir, layer=-1, on_progress=None, layers=None, reuse=True, shard_size=None,
    shard=None, **settings,
):  # fmt: skip
    """Embed as `spacelite.embed` does, with the cache's own function."""
    from dataclasses import fields

    from spacelite.cache import embedding
    from spacelite.cache.spec import Encoding
    from spacelite.data import loading

    names = {field.name for field in fields(Encoding)} & settings.keys()
    first, *further = embedding.read_layers(layer)
    encoding = Encoding(
        backbone=backbone, layer=first, **{name: settings.pop(name) for name in names}
    )
    check = settings.pop("check", lambda data: None)

    def read():
        data = loading.read(settings.pop("dataset", None), **settings)
        check(data)
        return data

    extra = {} if on_progress is None else {"on_progress": on_progress}
    return embedding.embed(
        encoding, read, cache_dir=cache_dir, further_layers=further, layers=layers, reuse=reuse,
        shard_size=shard_size, shard=shard, **extra,
    )  # fmt: skip


@pytest.fixture(scope="session")
def cache_path(tmp_path_factory, bert, reviews) -> Path:
    """A finished cache of the tiny BERT, not to be written to."""
    return embed(
        backbone=str(bert), dataset=str(reviews), cache_dir=tmp_path_factory.mktemp("cache"),
        dtype="float32", device="cpu",
    ).path  # fmt: skip


@pytest.fixture(scope="session")
def run(tmp_path_factory, bert, reviews):
    """A run of a logistic regression on the means of the tiny BERT's tokens."""
    import spacelite

    cache = spacelite.embed(
        reviews, backbone=bert, cache_dir=tmp_path_factory.mktemp("run"), device="cpu",
        progress=False,
    )  # fmt: skip
    return spacelite.train(cache, head="logreg", pooling="mean", progress=False)[0]


def in_memory(split, rows=None):
    """Some examples of a cached split as arrays."""
    from spacelite.cache.split import TokenRows

    rows = np.arange(len(split)) if rows is None else rows
    low, high = split.offsets[:-1], split.offsets[1:]
    stored, ids = split.read_tokens(0, split.tokens), split.read_token_ids()
    return TokenRows(
        rows=np.concatenate([stored[low[row] : high[row]] for row in rows]),
        offsets=np.concatenate([[0], np.cumsum(split.lengths[rows])]),
        labels=split.labels[rows],
        stored=split.stored,
        token_ids=np.concatenate([ids[low[row] : high[row]] for row in rows]),
    )


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, or a skip that says how to give one."""
    folder = Path(os.environ.get("SPACELITE_DATA", "../shared/data"))
    if not (folder / "hatexplain" / "train.parquet").is_file():
        pytest.skip(f"no real data in {folder}: set SPACELITE_DATA to a folder with hatexplain/")
    return folder


@pytest.fixture(scope="session", autouse=True)
def no_baselines():
    """`train` fits the heads that a test names, and no baselines beside them; those that are about
    baselines ask for `with_baselines`."""
    from spacelite.training import plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "BASELINES", ())
        yield


@pytest.fixture(scope="session", autouse=True)
def one_command_line():
    """The commands and their options are read from the functions once for the same kinds of heads,
    and not for each call."""
    import typer.testing

    from spacelite import heads

    made = typer.testing._get_command
    of_kinds = cache(lambda app, kinds: made(app))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            typer.testing, "_get_command", lambda app: of_kinds(app, tuple(heads.KINDS.values()))
        )
        yield


@pytest.fixture
def with_baselines(monkeypatch):
    """`train` as it is."""
    from spacelite import heads
    from spacelite.training import plan

    usual = (heads.config("tfidf"), heads.config("logreg", pooling="mean", C="auto"))
    monkeypatch.setattr(plan, "BASELINES", usual)


@pytest.fixture(autouse=True)
def fresh_console():
    """Rich keeps the width of the terminal that a console was made for: no test inherits one."""
    from spacelite_cli import console

    console._console.cache_clear()
    # Nor the handler that a command puts there in the same process.
    logger = logging.getLogger("spacelite")
    logger.handlers, logger.propagate = [], True


NASTY_LABELS = ["<script>window.owned=1</script>", "a|b & _c_ $x^2$ \\%", "naïve 中文"]


def as_before_checksums(folder):
    """Make a run one of a version that kept a checksum of the head alone."""
    content = json.loads((folder / "run.json").read_text())
    del content["checksum"], content["checksums"]["history.json"]
    content["checksums"].pop("predictions.npz")
    (folder / "run.json").write_text(json.dumps(content))


def train_and_save(cache_dir: Path, cache, configs, training, **options) -> list:
    """Train heads and save each of them: the runs."""
    from spacelite.runs import store as runs
    from spacelite.training import loop

    saved = []
    loop.train(
        cache,
        configs,
        training,
        cache_dir=cache_dir,
        save=lambda head: saved.append(runs.save(cache_dir, cache, head, training)),
        **options,
    )
    return saved


@pytest.fixture(scope="session")
def report_dir(tmp_path_factory, bert) -> Path:
    """A cache folder with runs of two data sets: `imdb` (the published protocol, five epochs, two
    seeds, also evaluated on another set) and `labels`, whose label names are hostile."""
    from spacelite import heads
    from spacelite.cache.store import Cache
    from spacelite.inference import transfer
    from spacelite.training.config import TrainingConfig

    data = tmp_path_factory.mktemp("report-data")
    cache_dir = tmp_path_factory.mktemp("report")
    sizes = {"train": 60, "test": 50}
    imdb = write_dataset(data / "imdb", sizes)
    other = write_dataset(data / "other", {**sizes, "validation": 10})
    labels = write_dataset(data / "labels", {"train": 60, "validation": 20, "test": 40}, classes=3)
    for path in labels.iterdir():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        named = [{**row, "label": NASTY_LABELS[row["label"]]} for row in rows]
        path.write_text("\n".join(map(json.dumps, named)) + "\n")
    paths = {
        folder.name: embed(
            backbone=str(bert), dataset=str(folder), cache_dir=cache_dir, device="cpu"
        ).path
        for folder in (imdb, labels, other)
    }  # fmt: skip
    configs = [
        *(heads.config("space", latent=3, inter=inter, intra=0.001, seed=seed)
          for inter in (0.0, 0.2) for seed in (0, 1)),
        heads.config("linear", pooling="first"),
        heads.config("logreg", pooling="mean"),
    ]  # fmt: skip
    with Cache(paths["imdb"]) as cache, Cache(paths["other"]) as elsewhere:
        for run in train_and_save(cache_dir, cache, configs, TrainingConfig(epochs=5)):
            run.save_transfer(*transfer.evaluate(run, elsewhere))
    configs = [
        heads.config("space", latent=5, learning_rate=0.05, inter=0.0, intra=0.0),
        heads.config("linear", pooling="mean", learning_rate=0.05),
    ]
    with Cache(paths["labels"]) as cache:
        train_and_save(cache_dir, cache, configs, TrainingConfig(epochs=3, batch_size=16))
    return cache_dir


@pytest.fixture(scope="session")
def findings(report_dir, bert):
    """Everything that a report of `report_dir` says."""
    from spacelite.reports.analysis import content
    from spacelite.runs import store as runs

    found = runs.load_all(report_dir)
    return content.build(report_dir, found, with_examples=True, backbone=str(bert))


@pytest.fixture
def calls(monkeypatch):
    """Counts the examples that each forward pass computes."""
    from spacelite.backbones.model import Backbone

    counted = []
    real = Backbone.hidden_states

    def counting(self, ids, type_ids, mask):
        counted.append(len(ids))
        return real(self, ids, type_ids, mask)

    monkeypatch.setattr(Backbone, "hidden_states", counting)
    return counted
