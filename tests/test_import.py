"""Hidden states that another program computed, in every layout: plain transformers here."""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import processes
import pyarrow as pa
import pytest
import torch
from conftest import invoke, refusal, texts
from pyarrow import parquet
from safetensors.torch import save_file

import spacelite
from spacelite.cache.store import Cache

SIZES = {"train": 60, "validation": 20, "test": 20}
OTHER_SIZES = {"train": 20, "validation": 10, "test": 20}
QUIET = {"progress": False}


class Made(NamedTuple):
    """What another program has computed, and the table of its texts."""

    table: Path
    hidden: list[np.ndarray]  # (n, d) float32 each
    ids: list[np.ndarray]  # (n,) each
    layers: list[np.ndarray]  # (n, 3, d)
    embedded: spacelite.EmbeddedDataset  # the same by `embed`


def computed(folder: Path, name: str, seed: int, sizes: dict[str, int], bert: Path) -> Made:
    """Random texts and what plain transformers computes of each of them alone."""
    from transformers import AutoModel, AutoTokenizer

    splits = [split for split, size in sizes.items() for _ in range(size)]
    written = texts(len(splits), seed=seed, longest=12)
    rows = [
        {"text": text, "label": ["bad", "good"][text.count("good") % 2], "split": split}
        for text, split in zip(written, splits, strict=True)
    ]
    table = folder / f"{name}.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)) + "\n")
    tokenizer, model = AutoTokenizer.from_pretrained(bert), AutoModel.from_pretrained(bert).eval()
    hidden, ids, layers = [], [], []
    with torch.no_grad():
        for text in written:
            encoded = tokenizer(text, return_tensors="pt")
            output = model(**encoded, output_hidden_states=True)
            hidden.append(output.last_hidden_state[0].numpy())
            layers.append(torch.stack(output.hidden_states)[:, 0].transpose(0, 1).numpy())
            ids.append(encoded["input_ids"][0].numpy())
    embedded = spacelite.embed(
        table, backbone=bert, cache_dir=folder / "embedded", dtype="float32", device="cpu",
        reuse=False, **QUIET,
    )  # fmt: skip
    return Made(table, hidden, ids, layers, embedded)


@pytest.fixture(scope="module")
def made(tmp_path_factory, bert) -> Made:
    return computed(tmp_path_factory.mktemp("import"), "reviews", 5, SIZES, bert)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, bert) -> Made:
    """Other texts, which runs are evaluated on."""
    return computed(tmp_path_factory.mktemp("elsewhere"), "posts", 6, OTHER_SIZES, bert)


def padded(arrays: list[np.ndarray]) -> np.ndarray:
    longest = max(map(len, arrays))
    return np.stack([np.pad(a, [(0, longest - len(a)), *[(0, 0)] * (a.ndim - 1)]) for a in arrays])


def offsets(arrays: list[np.ndarray]) -> np.ndarray:
    return np.cumsum([0, *map(len, arrays)])


def bits(array: np.ndarray) -> np.ndarray:
    """The bits of bfloat16."""
    return torch.from_numpy(array).to(torch.bfloat16).view(torch.uint16).numpy()


def npz_padded(folder, made):
    mask = padded([np.ones(len(ids), int) for ids in made.ids])
    path = folder / "states.npz"
    np.savez(
        path, hidden_states=padded(made.hidden), attention_mask=mask, input_ids=padded(made.ids)
    )
    return path


def npz_flat(folder, made):
    path = folder / "states.npz"
    np.savez(
        path, hidden_states=np.concatenate(made.hidden), offsets=offsets(made.hidden),
        token_ids=np.concatenate(made.ids),
    )  # fmt: skip
    return path


def npz_lengths(folder, made):
    path = folder / "states.npz"
    np.savez(
        path, X=np.concatenate(made.hidden), lengths=[*map(len, made.ids)],
        token_ids=np.concatenate(made.ids),
    )  # fmt: skip
    return path


def npz_padded_lengths(folder, made):
    path = folder / "states.npz"
    lengths = [float(len(ids)) for ids in made.ids]
    np.savez(path, X=padded(made.hidden), lengths=lengths, token_ids=padded(made.ids))
    return path


def columns_of_lists(folder, made):
    path = folder / "states.parquet"
    columns = {"vectors": [a.tolist() for a in made.hidden], "token_ids": [*map(list, made.ids)]}
    kind = pa.list_(pa.list_(pa.float32()))
    schema = pa.schema({"vectors": kind, "token_ids": pa.list_(pa.int32())})
    parquet.write_table(pa.table(columns, schema=schema), path)
    return path


def hdf5_examples(folder, made):
    path = folder / "states.h5"
    with h5py.File(path, "w") as file:
        for number, (hidden, ids) in enumerate(zip(made.hidden, made.ids, strict=True)):
            file[f"text{number}"] = hidden
            file[f"token_ids/text{number}"] = ids
    return path


def hdf5_groups(folder, made):
    path = folder / "states.hdf5"
    with h5py.File(path, "w") as file:
        for number, (hidden, ids) in enumerate(zip(made.hidden, made.ids, strict=True)):
            file[f"{number}/hidden_states"] = hidden
            file[f"{number}/token_ids"] = ids
    return path


def hdf5_flat(folder, made):
    path = folder / "states.h5"
    with h5py.File(path, "w") as file:
        file["hidden_states"] = np.concatenate(made.hidden)
        file["token_ids"], file["offsets"] = np.concatenate(made.ids), offsets(made.ids)
    return path


def hdf5_padded(folder, made):
    path = folder / "states.h5"
    with h5py.File(path, "w") as file:
        file["hidden_states"], file["input_ids"] = padded(made.hidden), padded(made.ids)
        file["mask"] = padded([np.ones(len(ids), bool) for ids in made.ids])
    return path


def requests(folder, made, layers=None, kind=torch.float32):
    """A file a request, as vLLM's ExampleHiddenStatesConnector writes them."""
    path = folder / "requests"
    path.mkdir()
    states = [hidden[:, None] for hidden in made.hidden] if layers is None else layers
    for number, (hidden, ids) in enumerate(zip(states, made.ids, strict=True)):
        tensors = {
            "hidden_states": torch.from_numpy(hidden).to(kind).contiguous(),
            "token_ids": torch.from_numpy(ids),
        }
        save_file(tensors, path / f"req-{number}.safetensors")
    return path


LAYOUTS = {
    layout.__name__: layout
    for layout in (
        npz_padded, npz_flat, npz_lengths, npz_padded_lengths, columns_of_lists, hdf5_examples,
        hdf5_groups, hdf5_flat, hdf5_padded, requests,
    )
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cache_holds_what_the_source_does(layout, made, tmp_path):
    source = LAYOUTS[layout](tmp_path, made)
    options = {"causal": False} if layout == "requests" else {}
    cache = spacelite.import_cache(
        source, made.table, dtype="float32", cache_dir=tmp_path, **options, **QUIET
    )
    assert not cache.hit and not cache.others and cache.layer == -1
    with cache.open() as opened, made.embedded.open() as expected:
        assert opened.spec.backbone == source.stem and opened.spec.precision == "float32"
        assert opened.spec.backbone_version.startswith("imported:") and opened.complete
        for name, split in expected.splits.items():
            own = opened.splits[name]
            assert np.array_equal(own.read_token_ids(), split.read_token_ids())
            assert np.array_equal(own.offsets, split.offsets)
            assert np.array_equal(own.labels, split.labels)
            hidden = own.read_hidden(0, len(own))
            assert np.abs(hidden - split.read_hidden(0, len(split))).max() < 1e-5
            first = [*SIZES].index(name) * 60 - (name == "test") * 40  # 60, 20 and 20 texts
            assert np.array_equal(hidden, np.concatenate(made.hidden[first : first + len(own)]))
    if layout == "requests":
        run = spacelite.train(cache, head="logreg", pooling="mean", **QUIET)[0]
        shown = run.explain(example="test:1", device="cpu").explanation.words
        assert [word.text for word in shown] == [f"token {token}" for token in made.ids[81]]
    again = spacelite.import_cache(
        source, made.table, dtype="float32", cache_dir=tmp_path, **options, **QUIET
    )
    assert again.hit and again.path == cache.path


def means(folder, made):
    """A vector a text, by the mean pooling of sentence-transformers: over a padded batch."""
    mask = padded([np.ones(len(ids), np.float32) for ids in made.ids])[:, :, None]
    sums = (padded(made.hidden) * mask).sum(axis=1)
    path = folder / "means.npy"
    np.save(path, sums / np.maximum(mask.sum(axis=1), 1e-9))
    return path


def of_layers(folder, made):
    return requests(folder, made, made.layers)


# What another engine writes, heads on it, and the same heads on the cache that `embed` makes.
FEW = {"epochs": 2, "batch_size": 16}
TOKENS = {"head": ["space", "linear", "logreg", "tfidf"], **FEW}
VECTORS_OF_TEXTS = {"head": ["logreg", "linear", "mlp"], **FEW}
LAYERS = {"head": ["logreg", "linear"], "pooling": "layers", **FEW}
ENGINES = {
    "transformers": (columns_of_lists, TOKENS, TOKENS),
    "sentence-transformers": (
        means, {**VECTORS_OF_TEXTS, "pooling": "first"}, {**VECTORS_OF_TEXTS, "pooling": "mean"}
    ),
    "vllm": (of_layers, LAYERS, LAYERS),
    "vllm, best": (of_layers, {"preset": "best"}, {"preset": "best"}),
}  # fmt: skip


def figures(cache, other, settings):
    """The runs, their predictions, and all figures of training, report, cross-validation and
    evaluation on another cache, by where they stand."""
    training = {"device": "cpu", **settings, **QUIET}
    runs = spacelite.train(cache, **training)
    predictions = [run.run.predictions() for run in runs]
    found = {
        "train": [run.metrics for run in runs],
        "report": spacelite.report(runs, **QUIET).as_json()["parts"][0]["section"]["rows"],
        "cv": spacelite.cross_validate(cache, folds=2, **training).as_json()["systems"],
        "evaluate": [run.evaluate(cache=other, **QUIET).metrics for run in runs],
    }
    return runs, predictions, dict(numbers(found))


def numbers(value, place=""):
    """The numbers in a JSON value, with their places."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in pairs:
            yield from numbers(part, f"{place}/{key}")
    elif isinstance(value, float):
        yield place, value


@pytest.mark.parametrize("engine", ENGINES)
def test_figures_are_those_of_the_texts_embedded_here(engine, made, elsewhere, tmp_path):
    write, there, here = ENGINES[engine]
    caches = []
    for name, of in (("a", made), ("b", elsewhere)):
        folder = tmp_path / name
        folder.mkdir()
        caches.append(
            spacelite.import_cache(
                write(folder, of), of.table, backbone="tiny", causal=False, dtype="float32",
                cache_dir=tmp_path, **QUIET,
            )
        )  # fmt: skip
    runs, predictions, found = figures(*caches, there)
    _, wanted, expected = figures(made.embedded, elsewhere.embedded, here)
    assert len(found) > 50 * len(runs)
    assert found == pytest.approx(expected, abs=1e-4)
    for own, other in zip(predictions, wanted, strict=True):
        assert np.abs(own.probabilities - other.probabilities).max() < 1e-4
        assert np.array_equal(own.logits.argmax(axis=1), other.logits.argmax(axis=1))
    for run in runs:  # the model is not here
        assert UNKNOWN in refusal(run.predict, "a film", **QUIET)
        assert UNKNOWN in refusal(run.evaluate, elsewhere.table, **QUIET)


VECTORS = {
    "npy": lambda path, vectors: np.save(path, vectors),
    "npz": lambda path, vectors: np.savez(path, embeddings=vectors),
    "parquet": lambda path, vectors: parquet.write_table(
        pa.table({"id": pa.array(range(len(vectors))), "embedding": [*vectors]}), path
    ),
    "h5": lambda path, vectors: h5py.File(path, "w").create_dataset("embeddings", data=vectors),
    "safetensors": lambda path, vectors: save_file({"v": torch.from_numpy(vectors)}, path),
}


@pytest.mark.parametrize("kind", VECTORS)
def test_one_vector_a_text(kind, made, tmp_path, caplog, with_baselines):
    vectors = np.stack([hidden.mean(axis=0) for hidden in made.hidden]).astype(np.float64)
    source = tmp_path / f"means.{kind}"
    VECTORS[kind](source, vectors)
    cache = spacelite.import_cache(source, made.table, dtype="float32", cache_dir=tmp_path, **QUIET)
    with cache.open() as opened:
        split = opened.splits["train"]
        assert opened.spec.precision == "float64" and not split.has_token_ids
        assert (split.read_token_ids() == -1).all() and (split.lengths == 1).all()
        assert np.array_equal(split.read_hidden(0, 60), vectors[:60].astype(np.float32))
    assert cache.duplicates.shared == made.embedded.duplicates.shared
    if kind != "npz":
        return
    runs = spacelite.train(cache, head=["logreg", "space"], pooling="first", epochs=2, **QUIET)
    assert "the baseline tfidf is left out" in caplog.text
    expected = spacelite.train(made.embedded, head="logreg", pooling="mean", **QUIET)
    ours, theirs = runs[0].run.predictions().logits, expected[0].run.predictions().logits
    assert np.abs(ours - theirs).max() < 1e-4
    report = json.dumps(spacelite.report(runs, progress=False).as_json())
    assert "no words for" not in caplog.text
    rows = [json.loads(line) for line in made.table.read_text().splitlines()]
    assert "Which words matter" not in report and "explain" not in report
    assert any(row["text"] in report for row in rows if row["split"] == "test")
    cross = spacelite.cross_validate(cache, head="logreg", folds=2, **QUIET)
    assert "tfidf" not in str(cross) and "logreg" in str(cross)
    caplog.set_level("INFO")
    audit = spacelite.audit(cache, folds=2, **QUIET)
    assert "additive reads mean: the cache was imported without token ids" in caplog.text
    assert audit.result.head.name == "additive (mean)" and audit.result.examples == 60
    curve = spacelite.learning_curve(cache, sizes=[16], baselines=False, **QUIET)
    assert "additive (mean)" in str(curve)
    spacelite.train(cache, head="additive", blocks="mean+space", epochs=1, **QUIET)


REFUSED = "was imported without token ids"
UNKNOWN = "the model that computed them is not known here"


def test_what_needs_the_text_or_the_model_says_so_in_one_line(made, tmp_path):
    source = tmp_path / "means.npy"
    np.save(source, np.stack([hidden[0] for hidden in made.hidden]))
    cache = spacelite.import_cache(source, made.table, cache_dir=tmp_path, **QUIET)
    for settings in (
        {"head": "tfidf"}, {"preset": "best"}, {"head": "additive", "blocks": "mean+ngrams"}
    ):  # fmt: skip
        assert REFUSED in refusal(spacelite.train, cache, **settings, **QUIET)
    assert REFUSED in refusal(spacelite.audit, cache, head="tfidf", folds=2, **QUIET)
    assert REFUSED in refusal(spacelite.learning_curve, cache, head="tfidf", **QUIET)
    message = refusal(spacelite.train, cache, head="logreg", pooling="layers", **QUIET)
    assert "was imported, without the means of all layers" in message
    run = spacelite.train(cache, head="space", epochs=1, **QUIET)[0]
    assert UNKNOWN in refusal(run.predict, "a film", **QUIET)
    assert UNKNOWN in refusal(run.explain, "a film", device="cpu")
    message = refusal(run.explain, example="test:1", device="cpu")
    assert message.endswith("an example has no words to explain it by")
    assert UNKNOWN in refusal(run.evaluate, made.table, **QUIET)


def test_a_run_is_evaluated_on_another_import_of_the_same_model(made, tmp_path, caplog):
    vectors, source = np.stack([hidden[0] for hidden in made.hidden]), tmp_path / "means.npy"
    caches = []
    for name, states in (("model", vectors), ("model", vectors + 1e-6), ("other", -vectors)):
        np.save(source, states)
        caches.append(
            spacelite.import_cache(
                source, made.table, backbone=name, dtype="float32", cache_dir=tmp_path, **QUIET
            )
        )
    run = spacelite.train(caches[0], head="logreg", **QUIET)[0]
    metrics = run.evaluate(cache=caches[1], **QUIET).metrics
    assert "only their name says that one model, model, has computed them" in caplog.text
    assert metrics["test"]["ce"] == pytest.approx(run.metrics["test"]["ce"], abs=1e-4)
    message = refusal(run.evaluate, cache=caches[2], **QUIET)
    assert message.endswith("import it with the backbone=NAME of the run's cache")


def test_a_disk_that_is_too_small_is_one_line(made, tmp_path, monkeypatch):
    source = npz_flat(tmp_path, made)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = refusal(spacelite.import_cache, source, made.table, cache_dir=tmp_path, **QUIET)
    assert message.endswith("free some space, choose another cache_dir, or import less")
    assert not [*tmp_path.rglob("embeddings/*.h5")]


def test_layers_have_a_cache_each(made, tmp_path, caplog):
    caplog.set_level("INFO")
    source = requests(tmp_path, made, made.layers)
    cache = spacelite.import_cache(source, made.table, dtype="float32", cache_dir=tmp_path, **QUIET)
    assert "a text's last token sums it up" in caplog.text
    assert [cache.layer, *(other.layer for other in cache.others)] == [2, 1, 0]
    for number in range(3):
        with cache.at_layer(number).open() as opened:
            assert opened.pooling == "last"
            expected = np.concatenate([layers[:, number] for layers in made.layers[:60]])
            assert np.array_equal(opened.splits["train"].read_hidden(0, 60), expected)
    one = spacelite.import_cache(
        source, made.table, layer=-2, dtype="float32", cache_dir=tmp_path, **QUIET
    )
    assert one.hit and one.path == cache.at_layer(1).path
    message = refusal(spacelite.import_cache, source, made.table, layer=3, cache_dir=tmp_path)
    assert message == "layer=3: the hidden states are of 3 layers: give 0 to 2"


@pytest.mark.parametrize("way", ["attribute", "option", "safetensors"])
def test_bfloat16(way, made, tmp_path):
    if way == "safetensors":
        source = requests(tmp_path, made, kind=torch.bfloat16)
    else:
        source = hdf5_flat(tmp_path, made)
        with h5py.File(source, "r+") as file:
            del file["hidden_states"]
            file["hidden_states"] = bits(np.concatenate(made.hidden))
            if way == "attribute":
                file["hidden_states"].attrs["dtype"] = "bfloat16"
    cache = spacelite.import_cache(
        source, made.table, bfloat16=way == "option", dtype="bfloat16", cache_dir=tmp_path, **QUIET
    )
    with cache.open() as opened:
        stored = opened.splits["train"].read_tokens(0, 10)
        assert np.array_equal(stored, bits(np.concatenate(made.hidden)[:10]))
        assert opened.spec.precision == "bfloat16"


def test_files_are_named_by_a_column_or_in_natural_order(made, tmp_path):
    source = requests(tmp_path, made)
    rows = [json.loads(line) for line in made.table.read_text().splitlines()]
    order = np.random.RandomState(0).permutation(len(rows))
    lines = [json.dumps({**rows[i], "file": f"req-{i}"}) for i in order]
    table = tmp_path / "shuffled.jsonl"
    table.write_text("\n".join(lines))
    cache = spacelite.import_cache(source, table, dtype="float32", cache_dir=tmp_path, **QUIET)
    train = [i for i in order if rows[i]["split"] == "train"]
    with cache.open() as opened:
        states = opened.splits["train"].read_hidden(0, 60)
    assert np.array_equal(states, np.concatenate([made.hidden[i] for i in train]))
    table.write_text("\n".join([*lines[:-1], lines[-1].replace("req-", "other-")]))
    message = refusal(spacelite.import_cache, source, table, cache_dir=tmp_path)
    assert "row 100 names the file 'other-" in message


@pytest.mark.parametrize("kept", ["text", "ids", "vectors"])
def test_splits_are_drawn_by_what_is_known(kept, made, tmp_path, bert):
    rows = [json.loads(line) for line in made.table.read_text().splitlines()]
    columns = ("text", "label") if kept == "text" else ("label",)
    table = tmp_path / "rows.jsonl"
    table.write_text("\n".join(json.dumps({name: row[name] for name in columns}) for row in rows))
    source = npz_flat(tmp_path, made)
    if kept == "vectors":
        source = tmp_path / "vectors.npy"
        np.save(source, np.stack([hidden[0] for hidden in made.hidden]))
    options = {"test_fraction": 0.2, "cache_dir": tmp_path, **QUIET}
    cache = spacelite.import_cache(source, table, **options)
    splits = dict(cache.state.splits)
    assert splits["train"] + splits["validation"] + splits["test"] == 100
    if kept == "text":
        same = spacelite.embed(table, backbone=bert, device="cpu", **options)
        assert splits == dict(same.state.splits)
        assert cache["test"].texts == same["test"].texts
    # Other rows move none.
    more = tmp_path / "more.jsonl"
    more.write_text("\n".join(table.read_text().splitlines()[50:]))
    part = tmp_path / "part.npz"
    half = range(50, 100)
    if kept == "vectors":
        np.savez(part, v=np.stack([made.hidden[i][0] for i in half]))
    else:
        arrays = [[of[i] for i in half] for of in (made.hidden, made.ids)]
        np.savez(
            part, hidden_states=np.concatenate(arrays[0]), offsets=offsets(arrays[0]),
            token_ids=np.concatenate(arrays[1]),
        )  # fmt: skip
    fewer = dict(spacelite.import_cache(part, more, **options).state.splits)
    assert fewer["test"] < splits["test"] and fewer["train"] < splits["train"]


def changed(made, **arrays):
    return {
        "hidden_states": np.concatenate(made.hidden), "offsets": offsets(made.hidden),
        "token_ids": np.concatenate(made.ids), **arrays,
    }  # fmt: skip


def of_mask(made, change):
    """Padded hidden states with a changed mask."""
    mask = padded([np.ones(len(ids), bool) for ids in made.ids])
    return {"hidden_states": padded(made.hidden), "mask": change(mask)}


REFUSALS = {
    "rows": (
        lambda made: {"hidden_states": np.ones((99, 4))}, {},
        r"states.npz holds 99 examples and .*reviews.jsonl 100 rows: give a row for each example",
    ),
    "token ids": (
        lambda made: changed(made, token_ids=np.concatenate(made.ids)[:-1]), {},
        r"example 100 has hidden states of length (\d+) and token ids of (?!\1\b)\d+$",
    ),
    "large ids": (
        lambda made: changed(made, token_ids=np.concatenate(made.ids) + 2**32), {},
        "token ids that are no whole numbers from 0 to 2,147,483,647",
    ),
    "no mask": (
        lambda made: {"hidden_states": padded(made.hidden)}, {},
        r"of the shape \(100, 14, 16\): give \(N, d\); \(N, n, d\), with a mask",
    ),
    "no dimension": (
        lambda made: {"hidden_states": np.float32(1)}, {"array": "hidden_states"},
        r"of the shape \(\): give",
    ),
    "additive mask": (
        lambda made: of_mask(made, lambda mask: np.where(mask, 0, -1e9)), {},
        r"the mask of example 1 holds -1000000000.0: give 1 for tokens and 0 for padding",
    ),
    "half a mask": (
        lambda made: of_mask(made, lambda mask: mask * 0.5), {}, "the mask of example 1 holds 0.5"
    ),
    "no token": (
        lambda made: of_mask(made, lambda mask: mask * 0), {}, "example 1 holds 0 alone"
    ),
    "mask and lengths": (
        lambda made: {**of_mask(made, np.asarray), "lengths": np.full(100, 15)}, {},
        "mask and lengths contradict each other",
    ),
    "ids beside a mask": (
        lambda made: {**of_mask(made, np.asarray), "token_ids": np.ones((100, 2), int)}, {},
        r"the array of token ids has the shape \(100, 2\)",
    ),
    "lengths and offsets": (
        lambda made: changed(made, lengths=[*map(len, made.ids)][::-1]), {},
        "lengths and offsets contradict each other: leave one out",
    ),
    "fractions": (
        lambda made: changed(made, offsets=offsets(made.hidden) + 0.3), {},
        "offsets have to be whole numbers",
    ),
    "tiny": (
        lambda made: {"hidden_states": np.full((100, 4), 1e-30)}, {},
        "that float16 rounds to 0: use dtype=bfloat16 or float32",
    ),
    "huge": (
        lambda made: {"hidden_states": np.full((100, 4), 1e300)}, {},
        "that float16 cannot hold: scale all hidden states first",
    ),
    "no bits": (
        lambda made: changed(made), {"bfloat16": True}, "float32 and not uint16: leave bfloat16 out"
    ),
    "void": (
        lambda made: {"hidden_states": bits(np.ones((100, 4))).view("V2")}, {},
        r'write array.view\("uint16"\) and give bfloat16=True',
    ),
    "strings": (
        lambda made: {"hidden_states": np.full((100, 4), "a")}, {}, "that are text, or Python obj"
    ),
    "an array a text": (
        lambda made: {f"text{i}": hidden for i, hidden in enumerate(made.hidden)}, {},
        "'text0', 'text1', 'text2' and 97 more: .* a file for each text, or HDF5$",
    ),
    "mask": (
        lambda made: {"hidden_states": padded(made.hidden), "mask": np.ones((100, 1))}, {},
        r"the mask has the shape \(100, 1\)",
    ),
    "offsets": (
        lambda made: changed(made, offsets=offsets(made.hidden)[::-1]), {}, "do not fit"
    ),
    "empty": (
        lambda made: {"hidden_states": np.ones((100, 0))}, {}, "example 1 has hidden states of the"
    ),
    "none": (lambda made: {"hidden_states": np.ones((0, 4))}, {}, "holds no examples"),
    "large": (
        lambda made: {"hidden_states": np.full((100, 4), 1e5)}, {},
        "hidden states that float16 cannot hold: use dtype=bfloat16 or float32",
    ),
    "nan": (
        lambda made: {"hidden_states": np.full((100, 4), np.nan)}, {},
        "example 1 has hidden states that are not finite",
    ),
    "whole numbers": (
        lambda made: {"hidden_states": np.ones((100, 4), int)}, {}, "that are int64: give"
    ),
    "bits": (
        lambda made: {"hidden_states": np.ones((100, 4), np.uint16)}, {},
        "or uint16 with bfloat16=True",
    ),
    "objects": (
        lambda made: {"hidden_states": np.array([{}] * 100)}, {}, "it holds Python objects"
    ),
    "name": (
        lambda made: {"a": np.ones((100, 4)), "b": np.ones((100, 4))}, {},
        "holds 'a', 'b': name the hidden states with array=NAME",
    ),
    "other name": (
        lambda made: changed(made), {"array": "hidden_state"}, "did you mean 'hidden_states'"
    ),
    "file column": (lambda made: changed(made), {"file_column": "f"}, "is a single file"),
    "layer": (lambda made: changed(made), {"layer": 1}, "are of a single layer"),
    "label column": (
        lambda made: changed(made), {"label_column": "x"}, "has no column 'x'"
    ),
    "dtype": (lambda made: changed(made), {"dtype": "float8"}, "dtype=float8"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, made, tmp_path):
    arrays, options, message = REFUSALS[case]
    source = tmp_path / "states.npz"
    np.savez(source, **arrays(made))
    said = refusal(
        spacelite.import_cache, source, made.table, cache_dir=tmp_path, **options, **QUIET
    )

    assert re.search(message, said), said
    assert not [*tmp_path.rglob("embeddings/*.h5")]


@pytest.mark.parametrize("name", [".", "missing.csv"])
def test_labels_are_in_a_single_file(name, made, tmp_path):
    source = npz_flat(tmp_path, made)
    message = refusal(spacelite.import_cache, source, tmp_path / name, cache_dir=tmp_path, **QUIET)
    assert message.endswith("the labels are read from a single file")


def test_files_that_no_row_names_are_left_out(made, tmp_path, caplog):
    source, table = requests(tmp_path, made), tmp_path / "some.csv"
    lines = [f"req-{number}.safetensors,{'ab'[number % 2]}" for number in range(40)]
    table.write_text("\n".join(["file,label", *lines]))
    cache = spacelite.import_cache(source, table, cache_dir=tmp_path, **QUIET)
    assert cache.state.examples == 40 and "no row names req-40.safetensors" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *(
            (f"a.{kind}", content, f"a.{kind} cannot be imported: {problem}: write it again")
            for kind in ("npz", "npy", "h5", "safetensors", "parquet")
            for content, problem in (
                (b"no", f"it is cut short, or no {kind} file"),
                (b"", "it is empty"),
            )
        ),
        ("a.pt", b"no", "are imported from .npz, .npy"),
        ("a.npz", None, "there is no file or folder"),
    ],
)
def test_damaged_files_and_others(name, content, message, made, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    said = refusal(spacelite.import_cache, tmp_path / name, made.table, cache_dir=tmp_path, **QUIET)
    assert message in said


def write_splits(path, made):
    with h5py.File(path, "w") as file:
        file["train/hidden_states"], file["test/hidden_states"] = made.hidden[:2]


def write_group_of_ids(path, made):
    with h5py.File(path, "w") as file:
        file["hidden_states"], file["mask"] = padded(made.hidden), np.ones((100, 14))
        file["token_ids/0"] = made.ids[0]


def write_strings(path, made):
    parquet.write_table(pa.table({"x": ["a"] * 100}), path)


def write_nothing(path, made):
    save_file({}, path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.h5", write_splits, r"its groups are splits \(test, train\)"),
        ("a.h5", write_group_of_ids, r"array of token ids has the shape \(\) and the hidden"),
        (
            "a.parquet",
            write_strings,
            "give a column of lists of numbers: column 'x' holds strings$",
        ),
        ("a.safetensors", write_nothing, "a.safetensors cannot be imported: it is empty"),
    ],
)
def test_files_of_something_else(name, write, message, made, tmp_path):
    write(tmp_path / name, made)
    said = refusal(spacelite.import_cache, tmp_path / name, made.table, cache_dir=tmp_path, **QUIET)
    assert re.search(message, said), said


def test_a_vector_among_tokens_is_refused(made, tmp_path):
    source = tmp_path / "states"
    source.mkdir()
    for number, hidden in enumerate(made.hidden):
        np.save(source / f"{number}.npy", hidden[0] if number == 5 else hidden)
    said = refusal(spacelite.import_cache, source, made.table, cache_dir=tmp_path, **QUIET)
    assert "5.npy is of another form than those before it (dimensions 1 and not 2)" in said


def test_examples_of_another_form_are_named(made, tmp_path):
    source = requests(tmp_path, made)
    save_file(
        {"hidden_states": torch.ones(4, 1, 3), "token_ids": torch.ones(4, dtype=torch.int64)},
        source / "req-7.safetensors",
    )
    said = refusal(spacelite.import_cache, source, made.table, cache_dir=tmp_path, **QUIET)
    assert "req-7.safetensors is of another form than those before it (width 3 and not 16)" in said


def test_an_interrupted_import_is_continued(made, tmp_path):
    source = npz_flat(tmp_path, made)
    options = {"dtype": "float32", "cache_dir": tmp_path / "a", **QUIET}

    def stop(phase, done, total):
        if phase == "import" and done == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spacelite.import_cache(source, made.table, **{**options, "progress": stop})
    (path,) = (tmp_path / "a" / "embeddings").glob("*.h5")
    with Cache(path) as cache:
        assert not cache.complete
    message = refusal(spacelite.train, path, head="logreg", cache_dir=tmp_path / "a")
    assert re.search(r"is unfinished \(\d+ of \d+ tokens\): run its import command again$", message)
    cache = spacelite.import_cache(source, made.table, **options)
    whole = spacelite.import_cache(source, made.table, **{**options, "cache_dir": tmp_path / "b"})
    assert cache.path.read_bytes() == whole.path.read_bytes()


IMPORT = """
import sys
import spacelite
import spacelite.cache.writing
spacelite.cache.writing.COMMIT_SECONDS = 0.0
spacelite.import_cache(sys.argv[1], sys.argv[2], cache_dir=sys.argv[3], progress=False)
"""


def test_killed_at_any_step_the_finished_file_is_the_same(made, tmp_path):
    source = npz_flat(tmp_path, made)
    options = {"table": made.table, **QUIET}
    whole = spacelite.import_cache(source, cache_dir=tmp_path / "whole", **options)
    for step in (3, 150):
        folder = tmp_path / f"killed{step}"
        assert processes.killed_at(step, IMPORT, source, made.table, folder)
        again = spacelite.import_cache(source, cache_dir=folder, **options)
        assert again.path.read_bytes() == whole.path.read_bytes()


def test_what_changes_while_it_is_read_is_refused(made, tmp_path):
    source = tmp_path / "vectors.npz"
    vectors = np.stack([hidden[0] for hidden in made.hidden])
    np.savez(source, v=vectors)

    def change(phase, done, total):
        if phase == "identify" and done == total:
            np.savez(source, v=vectors + 1)

    message = refusal(
        spacelite.import_cache, source, made.table, cache_dir=tmp_path, progress=change
    )
    assert message.endswith("vectors.npz changed while it was read: import it again")


def test_what_is_damaged_is_imported_again(made, tmp_path):
    from spacelite.cache import folder

    source, options = npz_flat(tmp_path, made), {"cache_dir": tmp_path, **QUIET}
    path = spacelite.import_cache(source, made.table, **options).path
    whole = path.read_bytes()
    with Cache(path) as cache:
        _, start, _ = cache.splits["train"].datasets["tokens"].place(7)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"damaged!")
    assert folder.verify(path) == [("train", 7)]
    again = spacelite.import_cache(source, made.table, **options)
    assert not again.hit and path.read_bytes() == whole


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_what_is_rounded_coarsely_is_measured(dtype, made, tmp_path):
    source = npz_flat(tmp_path, made)
    cache = spacelite.import_cache(source, made.table, dtype=dtype, cache_dir=tmp_path, **QUIET)
    assert cache.rounded.tokens == sum(map(len, made.ids))


def test_an_odd_width_has_no_int4(made, tmp_path):
    source = tmp_path / "odd.npy"
    np.save(source, np.zeros((len(made.ids), 7), np.float32))
    given = {"dtype": "int4", "cache_dir": tmp_path, **QUIET}
    said = refusal(spacelite.import_cache, source, made.table, **given)
    assert said.startswith("dtype=int4: two dimensions share a byte, and hidden states have 7: ")


def test_the_command_prints_what_it_has_imported(made, tmp_path):

    source = npz_flat(tmp_path, made)
    arguments = ["cache", "import", str(source), str(made.table), "--cache-dir", str(tmp_path)]
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert "100 examples (60 train, 20 validation, 20 test)" in result.stdout
    result = invoke(*arguments, "--json")
    assert json.loads(result.stdout)["hit"] is True
