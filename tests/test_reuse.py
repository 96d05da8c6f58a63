"""Texts are embedded once: copied bit for bit from caches that hold them, run once where they stand
more than once, and computed where neither can be trusted."""

import hashlib
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import processes
import pytest
from conftest import embed, invoke, texts, write_dataset
from test_embedding import digest, plain, run
from test_store import byte_offset, flip_byte

import spacelite
from spacelite.backbones.model import Backbone
from spacelite.cache import filling, reuse, store
from spacelite.cache.dtypes import DTYPES, stored_type
from spacelite.cache.folder import remove, verify
from spacelite.cache.store import side_file
from spacelite.data import loading as data

KINDS = ("bert", "distilbert", "xlnet")


@pytest.fixture
def ran(monkeypatch):
    """The token ids of each text that the backbone is run on."""
    found = []
    real = Backbone.hidden_states

    def noting(self, ids, type_ids, mask):
        found.extend(map(tuple, ids.tolist()))
        return real(self, ids, type_ids, mask)

    monkeypatch.setattr(Backbone, "hidden_states", noting)
    return found


def different(count, seed, start=0):
    """Texts that are all different, of 3 to 14 words."""
    made = dict.fromkeys(f"{text} film plot" for text in texts(4 * count, seed, longest=12))
    return list(made)[start : start + count]


def rows(own, labels=("bad", "good")):
    return [{"text": text, "label": labels[i % len(labels)]} for i, text in enumerate(own)]


def write(file, own):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in own))
    return file


def of_text(path, source):
    """Text -> its rows, the pooler's output and layer means, as bytes, of each of its examples."""
    found = {}
    dataset = data.read(str(source))
    with store.Cache(path) as cache:
        assert cache.complete and cache.layers.complete
        for name, split in dataset.splits.items():
            stored = cache.splits[name]
            means = stored.layer_means
            for i, text in enumerate(split.texts):
                hidden = stored.read_tokens(*stored.offsets[i : i + 2]).tobytes()
                pooled = stored.pooled[i].tobytes() if stored.has_pooler else b""
                found.setdefault(text, []).append((hidden, pooled, means[i].tobytes()))
    return found


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, "float16") for kind in KINDS), *(("bert", of) for of in ("float32", "int8", "int4"))],
)
def test_only_new_texts_are_run_and_the_others_are_the_same_bytes(
    kind, dtype, request, tmp_path, ran, caplog
):
    caplog.set_level("INFO")
    backbone, own, stored = request.getfixturevalue(kind), different(80, 1), stored_type(dtype)
    first = write(tmp_path / "first.jsonl", rows(own[:60]))
    before = of_text(run(tmp_path / "cache", backbone, first, dtype=dtype).path, first)
    ran.clear()
    order = random.Random(3).sample(own, 80)  # new ones among the others
    second = write(tmp_path / "second.jsonl", rows(order))
    done = run(tmp_path / "cache", backbone, second, dtype=dtype)
    assert not done.hit and done.copied == 60
    assert (done.rounded is not None) == stored.measured
    assert len(ran) == len(set(ran)) == 20
    assert "60 of 80 texts are there already: " in caplog.text
    after = of_text(done.path, second)
    assert all(after[text] == before[text] for text in own[:60])
    for text in (own[60], own[79]):
        _, output = plain(backbone, text)
        content = np.frombuffer(after[text][0][0], stored.numpy)
        found = stored.decode(content.reshape(-1, stored.row_values(16)))
        expected = output.last_hidden_state[0].numpy()
        limit = {"int8": 0.5 / 127 + 1e-4, "int4": 1 / 8 + 5e-3}.get(dtype, 1e-3)
        assert np.abs(found - expected).max() / np.abs(expected).max() < limit
    assert verify(done.path) == []
    ran.clear()
    assert run(tmp_path / "cache", backbone, second, dtype=dtype).hit and not ran


@pytest.mark.parametrize("change", ["labels", "order", "limit", "columns", "splits"])
def test_other_labels_orders_and_samples_run_nothing(change, bert, tmp_path, ran):
    own, cache = different(60, 2), tmp_path / "cache"
    first = write(tmp_path / "first.jsonl", rows(own))
    run(cache, bert, first)
    ran.clear()
    options = {}
    if change == "labels":
        first.write_text(first.read_text().replace('"good"', '"fine"', 5))
    elif change == "order":
        write(first, rows(own[::-1]))
    elif change == "limit":
        options = {"limit": 30}
    elif change == "columns":
        write(first, [{"review": row["text"], "label": row["label"]} for row in rows(own)])
    else:
        folder = tmp_path / "folder"
        for name, part in (("train", own[:40]), ("validation", own[40:50]), ("test", own[50:])):
            write(folder / f"{name}.jsonl", rows(part))
        first = folder
    done = run(cache, bert, first, **options)
    assert ran == [] and not (change != "columns" and done.hit)


def test_texts_that_stand_twice_are_run_once(bert, tmp_path, ran, caplog):
    caplog.set_level("INFO")
    own = different(30, 4)
    source = write(tmp_path / "twice.jsonl", rows([*own, *own[:10], own[0]]))
    done = run(tmp_path / "cache", bert, source)
    assert len(ran) == len(set(ran)) == 30
    assert "11 of 41 texts have the same tokens as another one and are not run again" in caplog.text
    found = of_text(done.path, source)
    assert len(found[own[0]]) == 3 and all(len(set(copies)) == 1 for copies in found.values())
    assert done.copied == 0


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 8},
        {"dtype": "float32"},
        {"dtype": "int8"},
        {"layer": 0},
        {"padding": "max_length"},
    ],
)
def test_nothing_is_copied_from_caches_of_other_settings(options, bert, tmp_path, ran):
    source = write(tmp_path / "data.jsonl", rows(different(30, 5)))
    run(tmp_path / "cache", bert, source)
    ran.clear()
    write(source, rows(different(30, 5)[::-1]))
    assert run(tmp_path / "cache", bert, source, **options).copied == 0
    assert len(ran) == len(set(ran)) > 0
    ran.clear()
    write(source, rows(different(30, 5)[::-1], ["a", "b"]))
    assert run(tmp_path / "cache", bert, source, **options).copied == 30 and not ran


def test_without_reuse_the_bytes_are_those_of_an_empty_folder(bert, tmp_path, ran):
    own = different(40, 6)
    source = write(tmp_path / "data.jsonl", rows([*own, own[3]]))
    alone = run(tmp_path / "alone", bert, source, reuse=False).path
    assert len(ran) == 41
    run(tmp_path / "cache", bert, write(tmp_path / "part.jsonl", rows(own[:20])))
    there = run(tmp_path / "cache", bert, source, reuse=False).path
    assert digest(there) == digest(alone)
    assert digest(side_file(there, "layers")) == digest(side_file(alone, "layers"))
    assert not side_file(there, "reuse").exists()


def flip(path, split, example, layers=False):
    """Damage one example's hidden states, or its layer means."""
    with store.Cache(path) as cache:
        own = cache.splits[split]
        if layers:
            path = cache.layers.file.path
            offset = byte_offset(path, split, "means")
            offset += example * 2 * cache.layers.layers * own.width
        else:
            offset = byte_offset(path, split, "tokens")
            offset += int(own.offsets[example]) * own.stored.row_bytes(own.width)
    flip_byte(path, offset)


@pytest.mark.parametrize("dtype", DTYPES)
def test_damaged_examples_are_computed_and_the_rest_is_copied(dtype, bert, tmp_path, ran, caplog):
    caplog.set_level("INFO")
    own = different(50, 7)
    first = write(tmp_path / "first.jsonl", rows(own))
    path = run(tmp_path / "cache", bert, first, dtype=dtype).path
    with store.Cache(path) as cache:
        hurt = {
            tuple(split.read_token_ids(*split.offsets[2:4]).tolist())
            for split in (cache.splits["train"], cache.splits["validation"])
        }
    flip(path, "train", 2)
    flip(path, "validation", 2, layers=True)
    ran.clear()
    second = write(tmp_path / "second.jsonl", rows(own[::-1]))
    done = run(tmp_path / "cache", bert, second, dtype=dtype)
    assert len(ran) == 2 and set(ran) == hurt and done.copied == 48
    assert "2 of the texts cannot be copied and are computed" in caplog.text
    assert verify(done.path) == []
    for text in (own[0], own[49]):
        assert len(of_text(done.path, second)[text]) == 1


def test_token_ids_that_are_damaged_are_not_believed(bert, tmp_path, ran):
    own = different(40, 8)
    path = run(tmp_path / "cache", bert, write(tmp_path / "first.jsonl", rows(own))).path
    with store.Cache(path) as cache:
        offset = byte_offset(path, "train", "token_ids") + 4
        kept = len(cache.splits["validation"])
    flip_byte(path, offset)
    ran.clear()
    second = write(tmp_path / "second.jsonl", rows(own[::-1]))
    assert run(tmp_path / "cache", bert, second).copied == kept
    assert len(ran) == 40 - kept


def test_a_cache_without_layer_means_serves_only_those_who_want_none(bert, tmp_path, ran):
    own = different(30, 9)
    run(tmp_path / "cache", bert, write(tmp_path / "first.jsonl", rows(own)), layers=False)
    ran.clear()
    second = write(tmp_path / "second.jsonl", rows(own[::-1]))
    assert run(tmp_path / "cache", bert, second, layers=False).copied == 30 and not ran
    third = write(tmp_path / "third.jsonl", rows(own, ["x", "y"]))
    done = run(tmp_path / "cache", bert, third)
    assert done.copied == 0 and len(ran) == 30
    # Once there is one with them, the first gets its own from it, and its tokens stay.
    before = digest(tmp_path / "cache" / "embeddings" / f"{done.path.name}")
    ran.clear()
    with_layers = run(tmp_path / "cache", bert, second, layers=True)
    assert len(ran) == 30, "its plan names a cache without layer means"
    assert verify(with_layers.path) == [] and digest(done.path) == before


EMBED = """
import sys
from pathlib import Path
from spacelite.cache import writing
from conftest import embed
writing.COMMIT_SECONDS = 0.0
embed(backbone=sys.argv[1], dataset=sys.argv[2], cache_dir=Path(sys.argv[3]), device="cpu",
      tokens_per_batch=60)
"""


def test_killed_at_any_step_the_finished_file_is_the_same(bert, tmp_path):
    own = different(60, 10)
    first = write(tmp_path / "first.jsonl", rows(own[:30]))
    second = write(tmp_path / "second.jsonl", rows([*own[::-1], *own[25:35]]))
    whole = tmp_path / "whole"
    run(whole, bert, first, tokens_per_batch=60)
    shutil.copytree(whole, tmp_path / "start")
    expected = run(whole, bert, second, tokens_per_batch=60)
    assert expected.copied == 35
    chance, died = random.Random(11), 0
    for attempt in range(5):
        folder = tmp_path / f"killed{attempt}"
        shutil.copytree(tmp_path / "start", folder)
        died += processes.killed_at(chance.randint(1, 240), EMBED, bert, second, folder)
        again = run(folder, bert, second, tokens_per_batch=60)
        assert digest(again.path) == digest(expected.path)
        assert digest(side_file(again.path, "layers")) == digest(side_file(expected.path, "layers"))
    assert died == 5


def interrupted(after, phase, *arguments, **options):
    """Stop an embed with Ctrl-C after this share of a phase."""

    def interrupt(at, done, total):
        if at == phase and done > after * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(*arguments, on_progress=interrupt, **options)


def test_a_source_that_is_gone_when_it_continues_is_no_loss(bert, tmp_path, ran):
    own = different(40, 12)
    first = write(tmp_path / "first.jsonl", rows(own[:30]))
    source = run(tmp_path / "cache", bert, first).path
    second = write(tmp_path / "second.jsonl", rows(own))
    interrupted(0.5, "copy", tmp_path / "cache", bert, second)
    remove(source)
    ran.clear()
    done = run(tmp_path / "cache", bert, second)
    assert done.copied == 0 and 10 < len(ran) < 40 and verify(done.path) == []
    plan = reuse.read(done.path, plan_key(done.path), 40)
    assert 0 < len(plan.copied) < 30 and len(plan.computed) == len(ran)


def test_killed_just_after_it_was_laid_out_it_keeps_its_plan(bert, tmp_path, monkeypatch, ran):
    own = different(40, 21)
    first = write(tmp_path / "first.jsonl", rows(own[:20]))
    second = write(tmp_path / "second.jsonl", rows([*own[::-1], *own[5:8]]))
    for folder in ("whole", "killed"):
        run(tmp_path / folder, bert, first, tokens_per_batch=60)
    whole = run(tmp_path / "whole", bert, second, tokens_per_batch=60)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(filling.cached_texts, "count_unknown", killed)
        run(tmp_path / "killed", bert, second, tokens_per_batch=60)
    assert store.made_by(tmp_path / "killed" / "embeddings" / whole.path.name) == "embed"
    ran.clear()
    again = run(tmp_path / "killed", bert, second, tokens_per_batch=60)
    assert again.copied == whole.copied == 23 and len(ran) == 20
    assert digest(again.path) == digest(whole.path)
    assert digest(side_file(again.path, "layers")) == digest(side_file(whole.path, "layers"))


def plan_key(path):
    with store.Cache(path) as cache:
        return cache.key


def test_what_a_former_version_left_half_written_is_finished_with_its_bytes(bert, tmp_path):
    own = different(40, 13)
    source = write(tmp_path / "data.jsonl", rows([*own, *own[:5]]))
    whole = run(tmp_path / "whole", bert, source, reuse=False, tokens_per_batch=60).path
    interrupted(0.4, "embed", tmp_path / "cache", bert, source, reuse=False, tokens_per_batch=60)
    run(tmp_path / "cache", bert, write(tmp_path / "other.jsonl", rows(own)), tokens_per_batch=60)
    assert digest(run(tmp_path / "cache", bert, source, tokens_per_batch=60).path) == digest(whole)


@pytest.mark.parametrize("damage", ["cut", "foreign", "wrong", "path"])
def test_a_damaged_plan_is_said_and_what_is_missing_is_computed(damage, bert, tmp_path, caplog):
    own = different(40, 14)
    run(tmp_path / "cache", bert, write(tmp_path / "first.jsonl", rows(own[:20])))
    second = write(tmp_path / "second.jsonl", rows(own))
    interrupted(0.5, "embed", tmp_path / "cache", bert, second, tokens_per_batch=20)
    (path,) = (tmp_path / "cache" / "embeddings").glob("*second*.reuse.npz")
    cache = path.with_name(path.name.replace(".reuse.npz", ".h5"))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:50])
    else:
        plan = reuse.read(cache, plan_key(cache), 40)
        plan.first[0] = 7 if damage == "wrong" else 0
        if damage == "path":
            plan = replace(plan, caches=("../../elsewhere",))
        reuse.write(cache, "other" if damage == "foreign" else plan_key(cache), plan)
    done = run(tmp_path / "cache", bert, second)
    assert "is damaged (" in caplog.text and "what is missing is computed" in caplog.text
    assert verify(done.path) == [] and of_text(done.path, second)


def test_damage_that_verify_finds_is_copied_again(bert, tmp_path, ran):
    own = different(40, 15)
    run(tmp_path / "cache", bert, write(tmp_path / "first.jsonl", rows(own)))
    second = write(tmp_path / "second.jsonl", rows([*own[::-1], own[1]]))
    path = run(tmp_path / "cache", bert, second).path
    before = digest(path)
    flip(path, "train", 4)
    assert verify(path) == [("train", 4)]
    ran.clear()
    again = run(tmp_path / "cache", bert, second)
    assert again.copied == 1 and not ran and digest(path) == before


def test_of_a_repeated_text_only_the_damaged_copy_is_written(bert, tmp_path, ran):
    own = different(40, 16)
    source = write(tmp_path / "data.jsonl", rows([*own, *own]))
    path = run(tmp_path / "cache", bert, source).path
    before = digest(path)
    flip(path, "train", 3)
    assert verify(path) == [("train", 3)]
    ran.clear()
    assert not run(tmp_path / "cache", bert, source).hit
    assert digest(path) == before and 0 < len(ran) < 40


def test_a_plan_is_the_same_as_a_plain_search(tmp_path):
    """Against loops over texts, for random texts in random caches."""
    chance = random.Random(17)
    for _ in range(200):
        count = chance.randint(1, 12)
        ids = [np.array(chance.choices(range(3), k=chance.randint(1, 3))) for _ in range(count)]
        plan = reuse.Plan.of_all(count)
        for example in range(count):
            plan.first[example] = next(
                other for other in range(count) if np.array_equal(ids[other], ids[example])
            )
        cache = np.array([chance.choice([-1, 0]) for _ in range(count)])[plan.first]
        plan = reuse.Plan(("a",), cache, cache, cache, plan.first)
        lost = [example for example in plan.copied.tolist() if chance.random() < 0.5]
        now = plan.without(lost)
        assert sorted([*now.computed, *now.copied, *now.repeated]) == list(range(count))
        assert set(now.copied.tolist()) == set(plan.copied.tolist()) - set(lost)
        written = [example for same in now.same().values() for example in same]
        assert sorted([*written, *now.copied]) == list(range(count))
        for one, same in now.same().items():
            assert same[0] == one == min(same)
            assert all(np.array_equal(ids[other], ids[one]) for other in same)
        reuse._check(now, count)


def test_a_text_is_the_hash_of_its_token_ids():
    ids = np.array([101, 7, 102], np.int32)
    assert reuse.digest(ids) == hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
    assert reuse.digest(ids.astype(np.int64)) == reuse.digest(ids)
    assert reuse.digest(np.array([101, 7])) != reuse.digest(np.array([101, 7, 102]))


def test_the_command_says_what_was_there_and_removes_it_all(bert, tmp_path):
    own = different(50, 18)
    first = write(tmp_path / "first.jsonl", rows(own[:40]))
    second = write(tmp_path / "second.jsonl", rows(own))
    there = ["--backbone", str(bert), "--device", "cpu", "--cache-dir", str(tmp_path / "cache")]
    for source in (first, second):
        done = invoke("embed", "--dataset", source, *there)
        assert done.exit_code == 0, done.output
    assert "40 of 50 texts are there already: " in done.stderr
    assert "copied from tiny-bert--first-" in done.stderr
    json_there = invoke("embed", "--dataset", second, *there, "--json")
    assert json.loads(json_there.stdout)["copied"] == 0  # a hit
    write(second, rows(own[::-1]))
    done = invoke("embed", "--dataset", second, *there, "--json")
    assert json.loads(done.stdout)["copied"] == 50
    shown = invoke("cache", "info", json.loads(done.stdout)["name"], *there[-2:])
    assert "copied" in shown.stdout and "50 texts" in shown.stdout
    for path in (tmp_path / "cache" / "embeddings").glob("*.h5"):
        remove(path)
    left = {each.suffix for each in Path(tmp_path / "cache" / "embeddings").iterdir()}
    assert left <= {".lock"}


def test_python_takes_the_same(bert, tmp_path):
    own = different(30, 19)
    options = {"backbone": bert, "device": "cpu", "cache_dir": tmp_path, "progress": False}
    labels = ["a", "b"] * 15
    spacelite.embed(texts=own, labels=labels, **options)
    again = spacelite.embed(texts=own[::-1], labels=labels, **options)
    assert again.copied == 30
    assert spacelite.embed(texts=own[::-1], labels=labels[::-1], reuse=False, **options).copied == 0


def test_two_commands_that_copy_from_each_other_both_finish(bert, tmp_path):
    own = different(60, 20)
    command = ["embed", "--backbone", bert, "--device", "cpu", "--cache-dir", tmp_path / "cache"]
    sources = [
        write(tmp_path / "one.jsonl", rows(own)), write(tmp_path / "two.jsonl", rows(own[::-1])),
    ]  # fmt: skip
    both = [processes.spacelite(*command, "--dataset", source) for source in sources]
    for process in both:
        done = process.wait()
        assert done.returncode == 0, done.stderr
    for source in sources:
        done = run(tmp_path / "cache", bert, source)
        assert done.hit and verify(done.path) == []


def test_a_plan_that_cannot_be_written_stops_with_one_line(bert, tmp_path, monkeypatch):
    own = different(30, 21)
    run(tmp_path / "cache", bert, write(tmp_path / "first.jsonl", rows(own)))
    second = write(tmp_path / "second.jsonl", rows(own[::-1]))
    real = np.savez_compressed

    def full(file, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(spacelite.SpaceliteError, match=r"reuse\.npz failed: No space left"):
        run(tmp_path / "cache", bert, second)
    monkeypatch.setattr(np, "savez_compressed", real)
    done = embed(
        backbone=str(bert), dataset=str(second), cache_dir=tmp_path / "cache", device="cpu"
    )
    assert verify(done.path) == [] and not done.hit


def test_layouts_of_evaluated_data_are_reused_too(bert, tmp_path, ran):
    """`eval` embeds as `embed` does."""
    folder = write_dataset(tmp_path / "reviews", {"train": 40, "validation": 10, "test": 10})
    there = {"cache_dir": tmp_path / "cache", "progress": False}
    cache = spacelite.embed(str(folder), backbone=bert, device="cpu", **there)
    runs = spacelite.train(cache, head="linear", epochs=1, baselines=False, **there)
    own = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    other = write(tmp_path / "again.jsonl", own[::-1])
    ran.clear()
    runs[0].evaluate(dataset=str(other), device="cpu", progress=False)
    assert ran == []


def test_another_division_into_splits_computes_nothing(bert, tmp_path, calls):
    """As where validation was drawn in another way before."""
    rows = {"text": texts(40, seed=5), "label": [0, 1] * 20}
    options = {"backbone": str(bert), "cache_dir": tmp_path, "device": "cpu"}
    first = embed(dataset=pd.DataFrame(rows | {"split": ["dev"] + ["train"] * 39}), **options)
    computed = len(calls)
    again = embed(dataset=pd.DataFrame(rows), **options)
    assert again.path != first.path and again.copied == 40
    assert computed > 0 and len(calls) == computed
