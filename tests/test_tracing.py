"""Examples traced to their source: file and row, from the data set to the cache and its run."""

import csv
import errno
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import embed, invoke, train_and_save

from spacelite import heads
from spacelite.cache import texts
from spacelite.cache.store import Cache, side_file
from spacelite.data import loading
from spacelite.data.splits import Source
from spacelite.inference import transfer
from spacelite.reports.analysis import content
from spacelite.reports.report import Report
from spacelite.training.config import TrainingConfig

SIZES = {"train": 60, "validation": 20, "test": 20}


def text(number: int) -> str:
    return f"the Café number {number}"


def write_csv(path, count, first=0):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        # Every third text has two lines: rows are not lines.
        writer.writerows(
            [text(first + i) + ("\nand more" if i % 3 == 0 else ""), i % 2] for i in range(count)
        )


def rows_of(path) -> list[str]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [row["text"] for row in csv.DictReader(file)]
    if path.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in path.read_text().splitlines()]
    return pq.read_table(path).column("text").to_pylist()


def check(dataset, folder):
    """Every text is in the row of the file that its source names."""
    files = {}
    for split in dataset.splits.values():
        assert len(split.sources) == len(split)
        for number, own in enumerate(split.texts):
            source = split.sources[number]
            rows = files.setdefault(source.file, None) or rows_of(folder / source.file)
            files[source.file] = rows
            assert rows[source.row - 1] == own
    return set(files)


@pytest.mark.parametrize("limit", [None, 7])
def test_a_single_file_before_and_after_it_is_split_and_sampled(tmp_path, limit):
    write_csv(tmp_path / "mine.csv", 50)
    dataset = loading.read(str(tmp_path / "mine.csv"), limit=limit)
    assert list(dataset.splits) == ["train", "validation"]
    assert check(dataset, tmp_path) == {"mine.csv"}
    together = [source for split in dataset.splits.values() for source in split.sources.row]
    assert len(set(together)) == len(together) == (50 if limit is None else 12)


@pytest.mark.parametrize("limit", [None, 7])
def test_a_folder_of_files_one_of_them_in_parts(tmp_path, limit):
    (tmp_path / "data").mkdir()
    for part in range(2):
        rows = {"text": [text(100 * part + i) for i in range(20)], "label": [0, 1] * 10}
        pq.write_table(pa.table(rows), tmp_path / "data" / f"train-{part:05}-of-00002.parquet")
    write_csv(tmp_path / "data" / "test.csv", 20)
    dataset = loading.read(str(tmp_path), limit=limit)
    parts = {f"data/train-{part:05}-of-00002.parquet" for part in range(2)}
    assert check(dataset, tmp_path) == {*parts, "data/test.csv"}


def test_a_split_of_imdb_is_traced_to_its_file(tmp_path):
    folder = tmp_path / "imdb"
    folder.mkdir()
    for split in ("train", "test"):
        write_csv(folder / f"{split}.csv", 40)
    dataset = loading.read(str(folder))
    assert check(dataset, folder) == {"train.csv", "test.csv"}
    assert {dataset.splits["validation"].sources[i].file for i in range(8)} == {"test.csv"}


def test_posts_that_are_left_out_do_not_shift_the_rows(tmp_path):
    folder = tmp_path / "hatexplain"
    folder.mkdir()
    votes = [[0, 0, 1], [0, 1, 2], [1, 1, 1], [2, 2, 0]]  # the second has no majority
    for split in SIZES:
        rows = [
            {"post_tokens": ["post", str(i)], "annotators": {"label": votes[i % 4]}}
            for i in range(12)
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
    for name in ("hatexplain", "hatexplain:2"):
        train = loading.read(name, data_dir=tmp_path).splits["train"]
        assert len(train) == 9
        for number, own in enumerate(train.texts):
            assert train.sources[number] == Source("train.parquet", int(own.split()[1]) + 1)


def test_data_sets_that_are_no_files_name_their_split(tmp_path):
    import datasets

    lines, labels = [text(i) for i in range(30)], [0, 1] * 15
    frame = pd.DataFrame({"text": lines, "label": labels, "split": ["train", "test", "dev"] * 10})
    found = loading.read(frame)
    for split in found.splits.values():
        for number, own in enumerate(split.texts):
            assert split.sources[number] == Source("texts", lines.index(own) + 1)
    hub = datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": lines, "label": labels}))
    for given, file in ((hub, "texts (train)"), ({"train": (lines, labels)}, "texts (train)")):
        found = loading.read(given)
        for split in found.splits.values():
            for number, own in enumerate(split.texts):
                assert split.sources[number] == Source(file, lines.index(own) + 1)
    demo = loading.read("demo", limit=5).splits["test"]
    whole = loading.read("demo").splits["test"]
    for number, own in enumerate(demo.texts):
        source = demo.sources[number]
        assert source.file == "demo (test)" and whole.texts[source.row - 1] == own
    assert str(Source("demo (test)", 1234)) == "demo (test), row 1,234"


def test_sources_are_no_part_of_the_fingerprint(tmp_path):
    write_csv(tmp_path / "one.csv", 50)
    (tmp_path / "two.csv").write_bytes((tmp_path / "one.csv").read_bytes())
    one, two = (loading.read(str(tmp_path / f"{name}.csv")) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    assert one.splits["train"].sources[0] != two.splits["train"].sources[0]
    assert np.array_equal(one.splits["train"].sources.row, two.splits["train"].sources.row)


# The file beside the cache


def embed_csv(folder, bert, count=50, name="mine.csv", **options):
    path = folder / name
    if not path.exists():
        write_csv(path, count)
    return embed(backbone=str(bert), dataset=str(path), cache_dir=folder, device="cpu", **options)


def test_the_texts_of_a_cache_are_those_that_the_user_wrote(tmp_path, bert):
    done = embed_csv(tmp_path, bert, limit=15)
    dataset = loading.read(str(tmp_path / "mine.csv"), limit=15)
    with Cache(done.path) as cache:
        for name, split in dataset.splits.items():
            own = texts.read(cache, name)
            assert [own.text(i) for i in range(len(split))] == split.texts
            assert [own.source(i) for i in range(len(split))] == [
                split.sources[i] for i in range(len(split))
            ]


def test_the_file_beside_changes_neither_the_cache_nor_its_name(tmp_path, bert, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = embed_csv(tmp_path / "one", bert).path
    monkeypatch.setattr(texts, "keep", lambda *given: None)
    two = embed_csv(tmp_path / "two", bert).path
    assert side_file(one, "texts").exists() and not side_file(two, "texts").exists()
    assert one.name == two.name and one.read_bytes() == two.read_bytes()


def test_a_cache_of_an_older_version_gets_its_texts_when_it_is_embedded_again(tmp_path, bert):
    path = embed_csv(tmp_path, bert).path
    own = side_file(path, "texts")
    content = own.read_bytes()
    own.unlink()
    with Cache(path) as cache:
        assert texts.read(cache, "train") is None
    before = path.read_bytes()
    assert embed_csv(tmp_path, bert).hit
    assert own.read_bytes() == content and path.read_bytes() == before
    modified = own.stat().st_mtime_ns
    assert embed_csv(tmp_path, bert).hit and own.stat().st_mtime_ns == modified


def test_the_source_is_that_of_the_last_embed(tmp_path, bert):
    lines, labels = [text(i) for i in range(30)], [0, 1] * 15
    frame = pd.DataFrame({"text": lines, "label": labels, "split": "train"})
    there = {"backbone": str(bert), "cache_dir": tmp_path, "device": "cpu", "name": "mine"}
    path = embed(dataset=frame, **there).path
    assert embed(dataset={"train": (lines, labels)}, **there).hit
    with Cache(path) as cache:
        own = texts.read(cache, "train")
        assert own.source(0) == Source("mine (train)", lines.index(own.text(0)) + 1)


def test_a_killed_embed_leaves_no_half_of_the_file(tmp_path, bert, monkeypatch):
    def killed(file, **arrays):
        file.write(b"half of a file")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(texts.np, "savez", killed)
        with pytest.raises(KeyboardInterrupt):
            embed_csv(tmp_path, bert)
    (path,) = (tmp_path / "embeddings").glob("*.h5")
    assert not [file for file in path.parent.iterdir() if "texts.npz" in file.name]
    embed_csv(tmp_path, bert)
    with Cache(path) as cache:
        assert texts.read(cache, "train").text(0).startswith("the Café")


def test_a_full_disk_is_named_and_costs_only_the_texts(tmp_path, bert, monkeypatch, caplog):
    def full(file, **arrays):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(texts.np, "savez", full)
    path = embed_csv(tmp_path, bert).path
    assert "texts.npz cannot be written (No space left on device): the cache works" in caplog.text
    with Cache(path) as cache:
        assert cache.complete and texts.read(cache, "train") is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "no archive"])
def test_a_damaged_file_is_named_once_and_not_used(damage, tmp_path, bert, caplog):
    path = embed_csv(tmp_path, bert).path
    own = side_file(path, "texts")
    content = bytearray(own.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[content.index("Café".encode()) + 3] ^= 1
    elif damage == "foreign":
        other = embed_csv(tmp_path, bert, 30, "other.csv").path
        content = side_file(other, "texts").read_bytes()
    else:
        content = b"not an archive at all"
    own.write_bytes(content)
    with Cache(path) as cache:
        for _ in range(3):
            assert texts.read(cache, "train") is None
    assert caplog.text.count("is damaged") == 1 and len(caplog.messages[-1].splitlines()) == 1
    assert f"{own} is damaged" in caplog.text
    assert "the embed command of the cache rewrites it" in caplog.text
    assert embed_csv(tmp_path, bert).hit  # writes it anew
    with Cache(path) as cache:
        assert texts.read(cache, "train").text(0).startswith("the Café")


def test_list_counts_the_file_and_remove_deletes_it(tmp_path, bert):
    path = embed_csv(tmp_path, bert).path
    beside = [one for one in path.parent.iterdir() if not one.name.startswith(".")]
    assert side_file(path, "texts") in beside
    command = ["cache", "list", "--cache-dir", str(tmp_path), "--json"]
    (listed,) = json.loads(invoke(*command).stdout)
    assert listed["bytes"] == sum(one.stat().st_size for one in beside)
    command = ["cache", "remove", path.stem, "--yes", "--cache-dir", str(tmp_path), "--json"]
    (removed,) = json.loads(invoke(*command).stdout)
    assert removed["bytes"] == listed["bytes"]
    assert not [one for one in path.parent.iterdir() if not one.name.startswith(".")]


# Predictions


@pytest.fixture(scope="module")
def traced(tmp_path_factory, bert):
    """A cache of a csv file, sampled and split, and a run trained on it."""
    folder = tmp_path_factory.mktemp("traced")
    path = embed_csv(folder, bert, limit=25).path
    config = heads.config("space", latent=3, inter=0.2, intra=0.001, learning_rate=0.05)
    with Cache(path) as cache:
        (run,) = train_and_save(folder, cache, [config], TrainingConfig(epochs=2, batch_size=8))
    return folder, path, run


def test_predictions_say_where_each_example_comes_from(traced):
    folder, path, run = traced
    rows = rows_of(folder / "mine.csv")
    with np.load(run.folder / "predictions.npz", allow_pickle=False) as arrays, Cache(path) as c:
        own = texts.read(c, "validation")
        assert (arrays["validation/file"] == "mine.csv").all()
        assert len(arrays["validation/row"]) == len(arrays["validation/index"])
        for number, row in enumerate(arrays["validation/row"]):
            assert rows[row - 1] == own.text(number)
    given = run.predictions()
    assert given.files[0] == "mine.csv" and rows[given.rows[0] - 1] == own.text(0)


def test_predictions_on_other_data_say_it_too(traced, bert):
    folder, _, run = traced
    other = embed_csv(folder, bert, 30, "other.csv").path
    with Cache(other) as cache:
        run.save_transfer(*transfer.evaluate(run, cache))
        expected = texts.read(cache, "validation").sources
    (record,) = run.transfers()
    given = run.predictions(record)
    assert given.rows.tolist() == expected.row.tolist() and set(given.files) == {"other.csv"}


def test_predictions_of_caches_without_sources_stay_as_they_were(traced, tmp_path, bert):
    run = traced[2]
    path = embed_csv(tmp_path, bert, limit=25).path
    side_file(path, "texts").unlink()
    with Cache(path) as cache:
        (own,) = train_and_save(tmp_path, cache, [run.head], TrainingConfig(epochs=2, batch_size=8))
    assert own.id == run.id
    with np.load(own.folder / "predictions.npz") as arrays:
        assert {name.split("/")[1] for name in arrays} == {"index", "label", "logits"}
    given = own.predictions()
    assert given.files is None and given.rows is None
    assert np.array_equal(given.logits, run.predictions().logits)


def test_mistakes_in_the_report_name_file_and_row(traced, bert, tmp_path):
    folder, path, run = traced
    rows = rows_of(folder / "mine.csv")
    found = content.build(folder, [run], with_examples=True, backbone=str(bert))
    # The run may have been evaluated on other data too.
    (examples,) = (part.examples for part in found.parts if part.section.cache == path.stem)
    assert examples.mistakes
    with Cache(path) as cache:
        own = texts.read(cache, "validation")
    page = Report(found).save(tmp_path / "page", "html").read_text()
    for one in examples.mistakes:
        number = int(one.example.partition(":")[2])
        assert one.source == own.source(number)
        assert rows[one.source.row - 1] == own.text(number)
        place = f"{one.example} (mine.csv, row {one.source.row})"
        assert place in page and "Café" in one.words
        for form in ("markdown", "latex"):
            assert f"mine.csv, row {one.source.row}" in Report(found).text(form)
    listed = json.loads(Report(found).text("json"))
    assert f'"row": {one.source.row}' in json.dumps(listed)
