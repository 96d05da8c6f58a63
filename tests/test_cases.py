"""Small files as people have them, which lie beside the real data: what `embed` makes of each, and
that `predict` reads it alike."""

import os
from collections import Counter
from pathlib import Path

import pytest
from conftest import invoke, refusal

import spacelite
from spacelite.errors import SpaceliteError

CASES = Path(os.environ.get("SPACELITE_DATA", "../shared/data")).absolute().parent / "cases"
TAGS = {"text_column": "Title", "label_column": "Tags"}
HASHES = ("9223372036854775900", "9223372036854775901", "9223372036854779996")
SEVERAL = ("css", "docker", "git", "python", "sql", "testing")

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is missing")


@pytest.mark.parametrize(
    ("name", "options", "rows", "labels"),
    [
        ("unmatched.tsv", {"quoting": "none"}, 40, ("0", "1")),
        ("unmatched.csv", {"quoting": "none"}, 40, ("0", "1")),
        ("apos.tsv", {"quoting": "none"}, 60, ("neg", "pos")),
        ("hash.jsonl", {}, 40, HASHES),
        ("sent3.csv", {}, 40, ("-1", "0", "1")),
        ("pm1.csv", {}, 60, ("-1", "1")),
        ("tags.csv", {**TAGS, "label_separator": ";"}, 600, SEVERAL),
        ("indent.jsonl", {}, 60, ("neg", "pos")),
        ("extra.jsonl", {}, 60, ("neg", "pos")),
        ("classnames.csv", {}, 60, ("a/b=c", "new\nline", "üñî 😀")),
        ("base.csv", {}, 200, ("neg", "pos")),
        ("small.csv", {}, 40, ("neg", "pos")),
    ],
)
def test_files_are_read_as_they_are(name, options, rows, labels, bert, tmp_path):
    cache = spacelite.embed(
        CASES / name, backbone=bert, cache_dir=tmp_path, progress=False, **options
    )
    with cache.open() as opened:
        assert tuple(opened.label_names) == labels
        assert sum(map(len, opened.splits.values())) == rows


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("unmatched.tsv", {}, "row 11 cannot be read: the quote of '\"Unmatched"),
        ("unmatched.csv", {}, "row 11 cannot be read: the quote of '\"Unmatched"),
        ("apos.tsv", {}, "row 1 cannot be read: the quote of"),
        ("tags.csv", TAGS, "are several labels in one string: give label_separator"),
        ("late.jsonl", {}, "column 'label' needs values of one type, and row 51 has a string"),
        ("surrogate.jsonl", {}, "row 1 has a 'text' that is not valid Unicode"),
        ("fake.csv", {}, "is gzip-compressed: unpack it"),
    ],
)
def test_what_cannot_be_read_is_one_line(name, options, said, bert, tmp_path):
    assert said in refusal(
        spacelite.embed, CASES / name, backbone=bert, cache_dir=tmp_path, progress=False, **options
    )


@pytest.fixture(scope="module")
def run(bert, tmp_path_factory):
    cache = spacelite.embed(
        CASES / "small.csv", backbone=bert, cache_dir=tmp_path_factory.mktemp("small"),
        progress=False,
    )  # fmt: skip
    (trained,) = spacelite.train(cache, head="tfidf", name="small", progress=False)
    return trained


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.glob("*.*sv*")))
def test_predict_reads_a_file_as_embed_does(name, run, bert, tmp_path):
    options = TAGS if name == "tags.csv" else {}
    refused = Counter()
    for what, call in (
        ("embed", lambda: spacelite.embed(CASES / name, backbone=bert, cache_dir=tmp_path,
                                          progress=False, labels_as="text", **options)),
        ("predict", lambda: run.predict_file(CASES / name, out=tmp_path / "out.jsonl",
                                             text_column=options.get("text_column"),
                                             progress=False)),
    ):  # fmt: skip
        try:
            call()
        except SpaceliteError as error:
            refused[what] = str(error)
    assert refused["embed"] == refused["predict"]


def test_backbones_are_right_or_one_line(bert, tmp_path):
    """Those whose hidden states have values are held against plain transformers elsewhere."""
    for name, data, options, said in (
        ("opt-proj", "base.csv", {"layer": [-1, 1], "dtype": "float32"}, None),
        ("bigbird", "small.csv", {"max_length": 96}, None),
        ("t5enc", "small.csv", {"max_length": 32}, None),
        ("funnel", "small.csv", {"max_length": 32}, None),
        ("gpt2-tuple", "small.csv", {"max_length": 32}, None),
        ("clip", "small.csv", {"max_length": 32}, "clip gives no hidden states of texts"),
        ("longformer", "verylong.csv", {"max_length": 258}, "longformer takes 3 to 256 tokens"),
    ):
        arguments = {
            "backbone": CASES / "backbones" / name, "cache_dir": tmp_path / name, "progress": False,
            **options,
        }  # fmt: skip
        if said is None:
            cache = spacelite.embed(CASES / data, **arguments)
            done = invoke("cache", "verify", cache.name, "--cache-dir", tmp_path / name)
            assert done.exit_code == 0 and "intact" in done.output, done.output
        else:
            assert said in refusal(spacelite.embed, CASES / data, **arguments)
