"""Caches of several files: how they are divided, that every process writes the same bytes, and
that all that reads a cache finds in them what it finds in a single file."""

import dataclasses
import hashlib
import itertools
import json
import random
import shutil
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import processes
import pytest
from conftest import embed, refusal, texts
from test_ranks import job

import spacelite
from spacelite.cache import folder
from spacelite.cache.shards import MANIFEST, PLAN, Manifest, divide
from spacelite.cache.store import Cache, side_file
from spacelite.files import bytes_of, human_bytes
from spacelite.npz import opened

SIZE = 15_000  # bytes, of which the reviews need seven times as many


def sharded(cache_dir, bert, reviews, **settings):
    """Embed the reviews into several files."""
    settings = {"device": "cpu", "dtype": "float32", "reuse": False, "shard_size": SIZE, **settings}
    settings.pop("shard_size") if "shard" in settings else None
    return embed(backbone=str(bert), dataset=str(reviews), cache_dir=cache_dir, **settings)


def digests(path):
    """SHA-256 of each file of a cache, but those that hold times, and locks."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.iterdir())
        if not file.name.endswith((".seconds.json", ".lock"))
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory, bert, reviews):
    """A finished cache of several files, not to be written to."""
    return sharded(tmp_path_factory.mktemp("shards"), bert, reviews).path


@pytest.fixture
def path(whole, tmp_path):
    """A copy of it."""
    shutil.copytree(whole.parent, tmp_path / "embeddings")
    return tmp_path / "embeddings" / whole.name


# How a cache is divided.


@pytest.mark.parametrize("seed", range(20))
def test_a_division_has_every_example_once_and_parts_of_about_one_size(cache_path, seed):
    random = np.random.RandomState(seed)
    splits = {"train": random.randint(1, 90), "validation": random.randint(1, 9), "test": 3}
    lengths = random.randint(1, 50, sum(splits.values()))
    example_bytes = lengths * 20 + 25
    size = int(example_bytes.max()) + random.randint(0, 3000)
    count = random.randint(1, len(lengths) + 1)
    with Cache(cache_path) as cache:
        spec = cache.spec
    for given in ({"size": size}, {"count": count}):
        manifest = divide(spec, splits, lengths, example_bytes, **given)
        ends, start = dict.fromkeys(splits, 0), 0
        for number, shard in enumerate(manifest.shards, 1):
            assert (shard.number, shard.count) == (number, len(manifest.shards))
            for name, (first, last) in shard.examples.items():
                assert first == ends[name] < last
                ends[name] = last
            stop = start + sum(shard.sizes.values())
            assert shard.tokens == lengths[start:stop].sum()
            held = example_bytes[start:stop].sum()
            assert held <= given.get("size", example_bytes.sum() / count + example_bytes.max())
            start = stop
        assert ends == splits == manifest.splits
    assert len(manifest.shards) == count
    manifest = divide(spec, splits, lengths, example_bytes, size=int(example_bytes.sum()))
    assert len(manifest.shards) == 1


def test_a_cache_up_to_the_size_of_a_shard_is_a_single_file(tmp_path, bert, reviews, caplog):
    first = sharded(tmp_path, bert, reviews, shard_size=None)
    assert first.path.is_file()
    again = sharded(tmp_path, bert, reviews, shard_size=first.path.stat().st_size)
    assert again.hit and "no effect" not in caplog.text
    assert sharded(tmp_path, bert, reviews, shard_size=10).hit
    assert "no effect" not in caplog.text, "its metadata alone are larger"


def test_a_division_that_cannot_be_is_refused(tmp_path, whole, bert, reviews, cache_path):
    message = refusal(sharded, tmp_path, bert, reviews, shard_size=300)
    assert message.startswith("shard_size=300 bytes: the longest text needs")
    message = refusal(sharded, tmp_path, bert, reviews, shard=(3, 101))
    assert message == "shard: 101 shards for 100 texts: give at most as many"
    assert not list(tmp_path.rglob("*.h5"))
    cache_dir, count = whole.parent.parent, len(Manifest.read(whole).shards)
    for other in ({"shard": (1, count + 1)}, {"shard_size": SIZE + 1}):
        message = refusal(sharded, cache_dir, bert, reviews, **other)
        assert f"is divided into {count} shards of at most {human_bytes(SIZE)}: ask for" in message
    single = refusal(sharded, cache_path.parent.parent, bert, reviews, shard=(1, 2))
    assert "shard=1/2: cache" in single and "is there as a single file" in single


@pytest.mark.parametrize("given", ["0/3", "4/3", "3", "a/b", "1/0", 3, "-1/2"])
def test_a_shard_is_a_number_and_their_count(given, tmp_path, bert, reviews):
    message = refusal(
        spacelite.embed, str(reviews), backbone=str(bert), cache_dir=tmp_path, shard=given
    )
    assert message.endswith("give the number of a shard and of all of them, such as 3/8")


def test_sizes_are_read_as_they_are_written():
    assert [bytes_of(text) for text in ("500MB", "1.5 GB", "4096", "2g", "7 bytes", "1kb")] == [
        500_000_000, 1_500_000_000, 4096, 2_000_000_000, 7, 1000,
    ]  # fmt: skip
    assert [bytes_of(text) for text in ("", "MB", "-1GB", "huge", "1 PB", "1e9")] == [0] * 6


# What is read from it.


@pytest.mark.parametrize("settings", [{}, {"dtype": "int8"}, {"reduce": 6}, {"windows": True,
                                      "max_length": 8}, {"skip_first": True}])  # fmt: skip
def test_it_holds_what_a_single_file_does(settings, tmp_path, bert, reviews):
    single = sharded(tmp_path / "single", bert, reviews, shard_size=None, **settings).path
    parts = sharded(tmp_path / "parts", bert, reviews, shard_size=9000, **settings).path
    assert single.is_file() and parts.is_dir() and single.name == parts.name
    with Cache(single) as one, Cache(parts) as many:
        assert one.key == many.key and one.spec == many.spec and [*one.splits] == [*many.splits]
        assert len(many.file.parts) > 3
        for name, expected in one.splits.items():
            split = many.splits[name]
            np.testing.assert_array_equal(split.offsets, expected.offsets)
            np.testing.assert_array_equal(split.labels, expected.labels)
            np.testing.assert_array_equal(split.read_token_ids(), expected.read_token_ids())
            np.testing.assert_array_equal(split.digests(), expected.digests())
            ours, theirs = (of.read_hidden(0, len(of)) for of in (split, expected))
            # In other batches, the last bits differ; and the axes of a reduction are fitted on it.
            assert np.abs(ours - theirs).max() < (0.15 if "dtype" in settings else 1e-4)
            for first, last in ((0, 1), (3, 17), (len(split) - 1, len(split))):
                np.testing.assert_array_equal(
                    split.read_hidden(first, last), ours[split.offsets[first] : split.offsets[last]]
                )
            np.testing.assert_allclose(split.layer_means, expected.layer_means, atol=2e-3)
            if "reduce" not in settings:
                np.testing.assert_allclose(split.pooled, expected.pooled, atol=1e-5)


def test_each_file_is_one_that_any_hdf5_tool_opens(whole):
    rows = {"train": [], "validation": [], "test": []}
    for shard in Manifest.read(whole).shards:
        with h5py.File(whole / shard.name) as file:
            assert file.attrs["shard"] == shard.label
            assert {name: len(file[name]["labels"]) for name in file} == shard.sizes
            for name in file:
                rows[name].append(file[name]["tokens"][:])
    with Cache(whole) as cache:
        for name, split in cache.splits.items():
            np.testing.assert_array_equal(
                split.read_hidden(0, len(split)), np.concatenate(rows[name])
            )


def test_texts_sources_and_counts_are_those_of_a_single_file(whole, cache_path):
    one = spacelite.find_cache(str(cache_path))
    many = spacelite.find_cache(str(whole))
    assert many.duplicates == one.duplicates and many.unknown == one.unknown
    assert many.labels == one.labels and repr(many) == repr(one)
    for name in ("train", "validation", "test"):
        ours, theirs = many[name], one[name]
        assert ours.texts == theirs.texts
        for example in (0, 7, len(ours) - 1):
            np.testing.assert_allclose(ours[example][0], theirs[example][0], atol=1e-5)
            assert ours[example][1] == theirs[example][1]


@pytest.fixture(scope="module")
def copied(tmp_path_factory, bert, reviews):
    """The same cache as a single file, and as several with the same hidden states, which were
    copied from another data set of these texts."""
    one, many = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("many")
    sharded(one, bert, reviews, shard_size=None)
    twin = tmp_path_factory.mktemp("data") / "twin"
    shutil.copytree(reviews, twin)
    sharded(many, bert, twin, shard_size=None)
    done = sharded(many, bert, reviews, reuse=True)
    assert done.path.is_dir() and done.copied == 100
    return one, many


def test_trained_on_both_everything_is_the_same(copied, reviews):
    """`train`, `report`, `predict`, `explain`, `cv` and estimators."""
    found, probabilities = [], []
    new = texts(12, seed=9)
    for cache_dir in copied:
        cache = spacelite.find_cache("reviews", cache_dir=cache_dir)
        runs = spacelite.train(
            cache,
            head=["space", "logreg"],
            epochs=3,
            seeds=[1],
            cache_dir=cache_dir,
            progress=False,
        )
        runs += spacelite.train(
            cache, head="linear", pooling="layers", epochs=2, cache_dir=cache_dir, progress=False
        )
        of_runs = {}
        for run in runs:
            with opened(run.run.folder / "predictions.npz", r"[\w/]+") as arrays:
                members = {
                    name: arrays.read(name, "iufU", *(None,) * arrays._array(info).ndim).tobytes()
                    for name, info in arrays._members.items()
                }
            prediction = run.predict(new, progress=False)
            of_runs[run.id] = members, prediction.probabilities.tobytes(), run.record.metrics
        explanation = runs[0].explain(new[0], progress=False)
        report = spacelite.report(cache_dir=cache_dir, progress=False).text("markdown")
        cv = spacelite.cross_validate(
            cache, head="space", epochs=2, folds=3, cache_dir=cache_dir, progress=False
        )
        cv_bytes = {name: of.tobytes() for name, of in cv.probabilities().items()}
        estimator = spacelite.LogregClassifier().fit(*cache_arrays(cache))
        probabilities.append(estimator.predict_proba(cache_arrays(cache)[0]).tobytes())
        found.append((of_runs, str(explanation), figures(report), cv_bytes))
    assert found[0] == found[1]
    assert probabilities[0] == probabilities[1]


def figures(report):
    """A report without what takes time or says where it is."""
    return [line for line in report.splitlines() if not any(c in line for c in (" s", "/"))]


def cache_arrays(cache):
    hidden, offsets, labels = cache["train"].to_numpy()
    rows = [hidden[low:high] for low, high in itertools.pairwise(offsets)]
    return rows, labels


def test_texts_of_it_are_copied_into_other_caches(copied, bert, reviews, tmp_path):
    _, many = copied
    other = tmp_path / "fewer"
    other.mkdir()
    for name in ("train", "validation", "test"):
        lines = (reviews / f"{name}.jsonl").read_text().splitlines()
        (other / f"{name}.jsonl").write_text("\n".join(lines[: len(lines) // 2]))
    cache_dir = tmp_path / "cache"
    shutil.copytree(many, cache_dir)
    (single,) = [path for path in folder.cache_files(cache_dir) if path.is_file()]
    folder.remove(single)
    done = sharded(cache_dir, bert, other, shard_size=None, reuse=True)
    assert done.copied == 50
    with Cache(done.path) as new, Cache(folder.find(cache_dir, "reviews")) as source:
        for name, split in new.splits.items():
            np.testing.assert_array_equal(
                split.read_hidden(0, len(split)), source.splits[name].read_hidden(0, len(split))
            )


# Who writes it.


def test_one_after_another_in_any_order_the_bytes_are_the_same(whole, tmp_path, bert, reviews):
    count = len(Manifest.read(whole).shards)
    order = [*range(1, count + 1)]
    random.Random(3).shuffle(order)
    # The number of shards in place of their size: another plan, the same division.
    by_count = sharded(tmp_path / "all", bert, reviews, shard=(1, count)).path
    reference = sharded(tmp_path / "all", bert, reviews, shard_size=None).path
    assert by_count == reference
    for number in order:
        done = sharded(tmp_path / "each", bert, reviews, shard=(number, count))
        assert done.shard == (number, count) and not done.hit
        path = done.path
        assert not (path / MANIFEST).exists()
    assert sharded(tmp_path / "each", bert, reviews, shard=(order[0], count)).hit
    state = folder.state(path)
    assert not state.complete and state.shards.complete == count and state.tokens_done
    before = {file: file.stat().st_mtime_ns for file in path.glob("shard-*")}
    assert sharded(tmp_path / "each", bert, reviews, shard_size=None).path == path
    assert {file: file.stat().st_mtime_ns for file in path.glob("shard-*")} == before
    assert folder.state(path).complete and not (path / PLAN).exists()
    assert digests(path) == digests(reference)


def test_only_the_shard_that_is_asked_for_is_written(tmp_path, bert, reviews):
    path = sharded(tmp_path, bert, reviews, shard=(2, 5)).path
    assert {file.name for file in path.glob("*.h5")} == {"shard-00002.h5"}
    unfinished = refusal(Cache, path)
    assert "is unfinished: run its embed command again, without shard" in unfinished
    assert "is unfinished" in refusal(spacelite.train, cache_dir=tmp_path, progress=False)
    state = folder.state(path)
    assert state.shards.missing == 4 and state.problem is None
    assert (state.examples, dict(state.splits)["train"]) == (100, 60)
    assert folder.verify(path) == []


EMBED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[5])
from spacelite import ranks
with ranks.joined():
    import spacelite
    spacelite.embed(
        sys.argv[2], backbone=sys.argv[1], cache_dir=Path(sys.argv[3]), device="cpu",
        dtype="float32", reuse=False, progress=False, **eval(sys.argv[4]),
    )
"""


def arguments(bert, reviews, cache_dir, **options):
    return bert, reviews, cache_dir, options, Path(__file__).parent


def test_two_processes_may_write_the_same_shard(whole, tmp_path, bert, reviews):
    count = len(Manifest.read(whole).shards)
    started = [
        processes.start(EMBED, *arguments(bert, reviews, tmp_path, shard=f"3/{count}"))
        for _ in range(2)
    ]
    assert [process.wait().returncode for process in started] == [0, 0]
    (path,) = folder.cache_files(tmp_path)
    ours, theirs = digests(path), digests(whole)
    assert ours.pop(PLAN)
    assert ours == {name: theirs[name] for name in ours} and "shard-00003.h5" in ours


@pytest.mark.parametrize("size", [2, 3])
def test_processes_of_a_job_write_the_same_bytes(size, whole, tmp_path, bert, reviews):
    with job(size) as environments:
        started = [
            processes.start(
                EMBED, *arguments(bert, reviews, tmp_path, shard_size=SIZE), env=environment
            )
            for environment in environments
        ]
        done = [process.wait() for process in started]
    assert [process.returncode for process in done] == [0] * size, done
    (path,) = folder.cache_files(tmp_path)
    assert digests(path) == digests(whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_job_whose_process_was_killed_is_continued_by_another_number(
    seed, whole, tmp_path, bert, reviews
):
    choice = random.Random(seed)
    given = arguments(bert, reviews, tmp_path, shard_size=SIZE)
    for _ in range(3):
        size = choice.choice([1, 2, 3])
        with job(size) as environments:
            started = [processes.start(EMBED, *given, env=of) for of in environments]
            time.sleep(choice.uniform(0.2, 3))
            started[choice.randrange(size)].send_signal(signal.SIGKILL)
            time.sleep(0.2)
            # As torchrun does once one has ended.
            for process in started:
                process.send_signal(signal.SIGKILL)
            for process in started:
                process.wait()
    with job(2) as environments:
        started = [processes.start(EMBED, *given, env=of) for of in environments]
        assert [process.wait().returncode for process in started] == [0, 0]
    (path,) = folder.cache_files(tmp_path)
    assert digests(path) == digests(whole)


@pytest.mark.slow
def test_killed_at_any_step_the_bytes_are_the_same(whole, tmp_path, bert, reviews):
    step, expected = 1, digests(whole)
    given = arguments(bert, reviews, tmp_path, shard_size=SIZE)
    while processes.killed_at(step, EMBED, *given):
        for path in folder.cache_files(tmp_path):
            assert not folder.state(path).complete
        step += random.Random(step).randint(5, 40)
        if step % 3 == 0:
            shutil.rmtree(tmp_path)
    (path,) = folder.cache_files(tmp_path)
    assert digests(path) == expected and step > 100


def test_processes_that_see_other_files_are_refused(tmp_path, bert, reviews):
    other = tmp_path / "other"
    shutil.copytree(reviews, other / reviews.name)
    (other / reviews.name / "test.jsonl").write_text('{"text": "a good film", "label": 1}\n')
    for data, places, expected in (
        ((reviews, other / reviews.name), ("a", "a"), "process 1, on "),
        ((reviews, reviews), ("a", "b"), "does not see the files of process 0"),
    ):
        with job(2) as environments:
            started = [
                processes.start(
                    EMBED, *arguments(bert, of, tmp_path / place, shard_size=SIZE), env=environment
                )
                for of, place, environment in zip(data, places, environments, strict=True)
            ]
            failed = started[1].wait()
            started[0].kill()
        assert failed.returncode == 1 and expected in failed.stderr, failed.stderr
        assert not list(tmp_path.rglob("shard-*"))


# What is damaged.


def test_missing_and_damaged_shards_alone_are_computed_again(path, whole, bert, reviews, caplog):
    shards = sorted(path.glob("shard-*.h5"))
    gone, cut, noise = shards[0], shards[2], shards[4]
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-100])
    noise.write_bytes(b"x" * 999)
    others = [shard for shard in shards if shard not in (gone, cut, noise)]
    before = {file: file.stat().st_mtime_ns for file in others}
    assert f"{gone} is missing: run the cache's embed command again" in refusal(Cache, path)
    state = folder.state(path)
    assert not state.complete and state.shards.missing == 1
    assert {*state.shards.problems} == {cut.name, noise.name}
    message = refusal(folder.verify, path)
    assert f"{gone.name}, {cut.name}, {noise.name} cannot be read: run its embed" in message
    done = sharded(path.parent.parent, bert, reviews, shard_size=None)
    assert not done.hit and f"{cut} is damaged" in caplog.text
    assert {file: file.stat().st_mtime_ns for file in others} == before
    assert digests(path) == digests(whole)


def test_damaged_hidden_states_are_found_and_computed_again(path, whole, bert, reviews):
    manifest = Manifest.read(path)
    shard = manifest.shards[3]
    with Cache(path / shard.name) as cache:
        (name,) = [*cache.splits][:1]
        _, offset, _ = cache.splits[name].datasets["tokens"].place(2)
    with (path / shard.name).open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    example = shard.examples[name][0] + 2
    message = refusal(spacelite.train, str(path), epochs=1, progress=False)
    assert f"{name} example {example} of cache {path.stem} is damaged" in message
    assert folder.verify(path) == [(name, example)]
    assert not folder.state(path).complete
    assert "is unfinished" in refusal(spacelite.train, str(path), epochs=1, progress=False)
    assert not sharded(path.parent.parent, bert, reviews, shard_size=None).hit
    assert digests(path) == digests(whole)


@pytest.mark.parametrize("finished", [True, False])
def test_swapped_and_foreign_shards_are_refused_and_replaced(
    finished, path, whole, tmp_path, bert, reviews, caplog
):
    if not finished:
        manifest = Manifest.read(path)
        begun = [dataclasses.replace(of, bytes=None, crc32=None) for of in manifest.shards]
        dataclasses.replace(manifest, shards=tuple(begun)).write(path)
        (path / MANIFEST).unlink()
    first, second = path / "shard-00001.h5", path / "shard-00002.h5"
    for suffix in (".h5", ".seal.json"):
        files = first.with_suffix(suffix), second.with_suffix(suffix)
        contents = [file.read_bytes() for file in files]
        for file, content in zip(files, reversed(contents), strict=True):
            file.write_bytes(content)
    other = sharded(tmp_path / "other", bert, reviews, dtype="float16").path
    foreign = path / "shard-00003.h5"
    shutil.copy(other / foreign.name, foreign)
    shutil.copy(side_file(other / foreign.name, "seal"), side_file(foreign, "seal"))
    if finished:
        assert f"{first} is not the shard 1/" in refusal(Cache, path)
        assert "is not the shard" in folder.state(path).problem
    sharded(path.parent.parent, bert, reviews, shard_size=None)
    for file in (first, second, foreign):
        assert f"{file} is not shard" in caplog.text
    assert digests(path) == digests(whole)


@pytest.mark.parametrize("change", ["cut", "checksum", "tiles", "spec", "later", "none"])
def test_a_manifest_that_is_none_is_refused(change, path):
    file = path / MANIFEST
    content = json.loads(file.read_text())
    if change == "cut":
        file.write_text(file.read_text()[:100])
    elif change == "none":
        file.unlink()
    else:
        if change == "tiles":
            content["shards"][1]["examples"]["train"][0] += 1
        elif change == "spec":
            content["spec"]["backbone"] = "another"
        elif change == "later":
            content["format"] = 2
        else:
            content["shard_size"] += 1
        if change != "checksum":
            from spacelite.files import write_json

            write_json(file, content)
        else:
            file.write_text(json.dumps(content))
    message = refusal(Cache, path)
    expected = {"later": "upgrade spacelite", "spec": "is not", "none": "not a regular file"}.get(
        change, "missing or damaged"
    )
    assert expected in message
    assert folder.states(path.parent.parent) == [] or folder.state(path).problem


def test_it_is_removed_with_all_that_belongs_to_it(path):
    cache_dir = path.parent.parent
    with processes.start(HOLD, path / "shard-00002.h5") as holder:
        assert holder.line() == "locked"
        assert "another spacelite process is writing shard-00002.h5" in refusal(folder.remove, path)
        assert len(list(path.glob("shard-*.h5"))) > 5
        holder.kill()
    folder.remove(path)
    assert list((cache_dir / "embeddings").iterdir()) == []


HOLD = """
import sys, time
from pathlib import Path
from spacelite import files
with files.lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_what_is_being_written_is_said(tmp_path, bert, reviews):
    path = sharded(tmp_path, bert, reviews, shard=(2, 5)).path
    with processes.start(HOLD, path / "shard-00003.h5") as holder:
        assert holder.line() == "locked"
        shards = folder.state(path).shards
        assert (shards.complete, shards.writing, shards.missing) == (1, 1, 4)
        assert shards.tokens_per_second > 0 and shards.seconds_left(100) > 0
        holder.kill()
    assert folder.state(path).shards.writing == 0


# Layers and axes.


def test_layer_means_can_be_left_out_and_added(tmp_path, bert, reviews):
    path = sharded(tmp_path, bert, reviews, layers=False).path
    with Cache(path) as cache:
        assert cache.layers is None
    (path / "shard-00002.h5").unlink()
    assert not sharded(tmp_path, bert, reviews).hit
    with Cache(path) as cache:
        assert cache.layers is None, "the shard that was computed again has none either"
    before = digests(path)
    assert not sharded(tmp_path, bert, reviews, layers=True).hit
    whole = sharded(tmp_path / "whole", bert, reviews).path
    assert digests(path) == digests(whole)
    assert {name: before[name] for name in before if name.endswith(".h5")}.items() <= digests(
        path
    ).items()


def test_a_lost_file_of_layer_means_is_written_again(path, whole, bert, reviews):
    side_file(path / "shard-00004.h5", "layers").unlink()
    with Cache(path) as cache:
        assert "shard-00004.layers.hdf5 is missing" in refusal(lambda: cache.layers)
    assert not sharded(path.parent.parent, bert, reviews, shard_size=None).hit
    assert digests(path) == digests(whole)


def test_several_layers_are_divided_alike(tmp_path, bert, reviews):
    done = sharded(tmp_path / "two", bert, reviews, layer=[-1, 1])
    (other,) = done.others
    assert Manifest.read(done.path).splits == Manifest.read(other.path).splits
    for layer, path in ((-1, done.path), (1, other.path)):
        alone = sharded(tmp_path / str(layer), bert, reviews, layer=layer).path
        assert digests(path) == digests(alone)


def test_axes_are_fitted_once_for_all_shards(tmp_path, bert, reviews):
    first = sharded(tmp_path, bert, reviews, reduce=5, shard=(4, 6)).path
    with Cache(first / "shard-00004.h5") as cache:
        axes = cache.reduction.axes
    path = sharded(tmp_path, bert, reviews, reduce=5, shard_size=None).path
    with Cache(path) as cache:
        np.testing.assert_array_equal(cache.reduction.axes, axes)
        assert {len(part.places["reduction/mean"].shape) for part in cache.file.parts} == {1}
    single = sharded(tmp_path / "single", bert, reviews, reduce=5, shard_size=None).path
    with Cache(single) as cache:
        np.testing.assert_allclose(np.abs(cache.reduction.axes), np.abs(axes), atol=1e-4)


def test_too_small_a_disk_is_said_for_all_and_for_each(tmp_path, bert, reviews, monkeypatch):
    sharded(tmp_path, bert, reviews, shard=(1, 4))
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = refusal(sharded, tmp_path, bert, reviews, shard=(2, 4))
    assert "the cache needs" in message and "has 1.0 kB free" in message
    (path,) = folder.cache_files(tmp_path)
    assert not (path / "shard-00002.h5").exists() and (path / "shard-00001.h5").exists()
    message = refusal(sharded, tmp_path / "all", bert, reviews)
    assert "the cache needs" in message and "has 1.0 kB free" in message
    assert not list((tmp_path / "all" / "embeddings").iterdir())
