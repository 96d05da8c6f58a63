"""Examples traced to their source: file and row, from the data set to the cache and its run."""

import csv
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spacelite.data import inputs, loading
from spacelite.data.splits import Source

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
    """Every text stands in the row of the file that its source names."""
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
    dataset = loading.load(str(tmp_path / "mine.csv"), limit=limit)
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
    dataset = loading.load(str(tmp_path), limit=limit)
    parts = {f"data/train-{part:05}-of-00002.parquet" for part in range(2)}
    assert check(dataset, tmp_path) == {*parts, "data/test.csv"}


def test_a_split_of_imdb_is_traced_to_its_file(tmp_path):
    folder = tmp_path / "imdb"
    folder.mkdir()
    for split in ("train", "test"):
        write_csv(folder / f"{split}.csv", 40)
    dataset = loading.load(str(folder))
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
        train = loading.load(name, data_dir=tmp_path).splits["train"]
        assert len(train) == 9
        for number, own in enumerate(train.texts):
            assert train.sources[number] == Source("train.parquet", int(own.split()[1]) + 1)


def test_data_sets_that_are_no_files_name_their_split(tmp_path):
    import datasets

    texts, labels = [text(i) for i in range(30)], [0, 1] * 15
    frame = pd.DataFrame({"text": texts, "label": labels, "split": ["train", "test", "dev"] * 10})
    found = inputs.read(frame)
    for split in found.splits.values():
        for number, own in enumerate(split.texts):
            assert split.sources[number] == Source("texts", texts.index(own) + 1)
    hub = datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": texts, "label": labels}))
    for given, file in ((hub, "texts (train)"), ({"train": (texts, labels)}, "texts (train)")):
        found = inputs.read(given)
        for split in found.splits.values():
            for number, own in enumerate(split.texts):
                assert split.sources[number] == Source(file, texts.index(own) + 1)
    demo = loading.load("demo", limit=5).splits["test"]
    whole = loading.load("demo").splits["test"]
    for number, own in enumerate(demo.texts):
        source = demo.sources[number]
        assert source.file == "demo (test)" and whole.texts[source.row - 1] == own
    assert str(Source("demo (test)", 1234)) == "demo (test), row 1,234"


def test_sources_are_no_part_of_the_fingerprint(tmp_path):
    write_csv(tmp_path / "one.csv", 50)
    (tmp_path / "two.csv").write_bytes((tmp_path / "one.csv").read_bytes())
    one, two = (loading.load(str(tmp_path / f"{name}.csv")) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    assert one.splits["train"].sources[0] != two.splits["train"].sources[0]
    assert np.array_equal(one.splits["train"].sources.row, two.splits["train"].sources.row)
