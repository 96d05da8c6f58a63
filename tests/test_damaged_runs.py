"""A damaged or foreign run is named and left out, whatever is wrong with it."""

import copy
import errno
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
from conftest import as_before_checksums, invoke, refusal, train_and_save

from spacelite import files, heads
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.inference import transfer
from spacelite.runs import store as runs
from spacelite.training.config import TrainingConfig

DELETED = object()
# JSON as it stands in the file; what Python reads as a number is not always one.
WRONG = {
    "a word": '"x"', "no text": '""', "a path": '"../../x"', "half a character": '"\\ud800"',
    "-1": "-1", "0": "0", "1": "1", "half": "0.5", "infinite": "1e999", "NaN": "NaN",
    "Infinity": "-Infinity", "huge": "1" + "0" * 400, "beyond Python": "1" + "0" * 5000,
    "list": "[]", "list in list": "[[1]]", "object": "{}", "object in object": '{"a": {"b": 1}}',
    "null": "null", "true": "true", "deleted": DELETED,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(cache_path, tmp_path_factory):
    """Runs of three kinds of heads, one evaluated on another cache (here its own)."""
    folder = tmp_path_factory.mktemp("runs")
    configs = [
        heads.config("space", inter=0.2),
        heads.config("linear", pooling="mean"),
        heads.config("logreg", pooling="mean"),
    ]
    with Cache(cache_path) as cache:
        saved = train_and_save(folder, cache, configs, TrainingConfig(epochs=2, batch_size=32))
        saved[0].save_transfer(*transfer.evaluate(saved[0], cache))
    return saved


def paths(content, here=()):
    """Every path in a JSON value, the whole first."""
    yield here
    inner = content.items() if isinstance(content, dict) else ()
    inner = enumerate(content) if isinstance(content, list) else inner
    for key, value in inner:
        yield from paths(value, (*here, key))


def replaced(content, path, text):
    """The JSON text of `content` with the value at `path` replaced by `text`, or deleted."""
    if not path:
        return "" if text is DELETED else text
    changed = copy.deepcopy(content)
    place = changed
    for key in path[:-1]:
        place = place[key]
    if text is DELETED:
        del place[path[-1]]
        return json.dumps(changed)
    place[path[-1]] = "@here@"
    return json.dumps(changed).replace('"@here@"', text)


def damaged(content, wrong):
    """The JSON text of every version of a value that is wrong in this way."""
    return [replaced(content, path, WRONG[wrong]) for path in paths(content)]


def left_out(cache_dir, caplog):
    """The runs that load, and the names of those that are left out with one warning each."""
    caplog.clear()
    found = runs.load_all(cache_dir)
    names = [str(record.args[0]) for record in caplog.records]
    folder = runs.runs_folder(cache_dir)
    out = {path.name for path in folder.iterdir()} - {run.id for run in found}
    assert len(names) == len(out)
    for name in out:
        path = str(folder / name)
        assert sum(path in line for line in names) == 1, name
    return found, out


QUICK = {"a word", "-1", "list in list", "null", "deleted"}


@pytest.mark.parametrize(
    "wrong",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in WRONG],
)
def test_whatever_is_wrong_with_a_record_the_run_works_or_is_left_out(
    wrong, trained, tmp_path, caplog
):
    for run in trained:
        content = json.loads((run.folder / "run.json").read_text())
        del content["checksum"]  # as an older version wrote it
        for number, text in enumerate(damaged(content, wrong)):
            folder = tmp_path / "runs" / f"{run.record.head.kind}-{number:03}"
            folder.mkdir(parents=True)
            (folder / "run.json").write_text(text)
    found, out = left_out(tmp_path, caplog)
    assert out  # the whole replaced by anything is no record
    for run in found:
        assert run.predictions() is None and run.transfers() == []
    for command in (["report"], ["runs", "list"], ["runs", "list", "--json"]):
        result = invoke(*command, "--cache-dir", tmp_path)
        lines = result.stderr.splitlines()
        assert result.exit_code == (0 if found or command[0] == "runs" else 1), lines[-1]
        for name in out:
            said = [line for line in lines if f"{name} " in line or f"{name}:" in line]
            assert len(said) == 1, said
        assert "Traceback" not in result.stderr and "this is a bug" not in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is damaged"),
        (b"\xff\xfe{\x00}\x00", "its text is not UTF-8"),
        (b"[" * 100_000, "is damaged (it is nested too deeply"),
        (b'{"format": 1}', "is damaged (head is missing)"),
        (b'{"format": 1, "head": "tree"}', "its head is of a kind that this spacelite does not"),
        (b'{"format": 2}', "it has format 2, this spacelite reads 1: upgrade spacelite"),
        (None, "has no run.json: it is not a run, or only part of one"),
    ],
)
def test_the_folder_of_a_damaged_run_is_named(content, words, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    if content is not None:
        (folder / "run.json").write_bytes(content)
    message = refusal(runs.load, folder)
    assert f"run {folder}" in message and words in message


@pytest.mark.parametrize("name", ["[", '{"name":'])
def test_a_record_that_is_nested_deeply_has_no_name(name, trained, tmp_path):
    for run, folder in zip(trained, ("one", "two"), strict=False):
        shutil.copytree(run.folder, tmp_path / "runs" / folder)
    (tmp_path / "runs" / "two" / "run.json").write_text('{"name":' + name * 100_000)
    assert runs.find(tmp_path, "one").id == "one"
    assert "is nested too deeply" in refusal(runs.find, tmp_path, "two")


def test_times_of_several_forms_are_compared(trained, tmp_path):
    for number, created in enumerate(("20260101T000000Z", "2026-01-01T00:00:00Z", "2026-01-01")):
        folder = shutil.copytree(trained[number].folder, tmp_path / "runs" / str(number))
        content = json.loads((folder / "run.json").read_text())
        files.write_json(folder / "run.json", {**content, "created": created})
    found = runs.newest_first(runs.load_all(tmp_path))
    assert sorted(run.id for run in found) == ["0", "1", "2"]


@pytest.mark.parametrize("state", ["partial", "former", "removed"])
def test_a_pipe_in_the_place_of_a_hidden_folder_is_not_waited_for(state, trained, tmp_path):
    folder = shutil.copytree(trained[0].folder, tmp_path / "runs" / "one")
    left = folder.with_name(f".one.{state}")
    os.mkfifo(left)
    if state == "removed":
        runs.remove(folder)
        assert not folder.exists()
    else:
        runs._tidy(folder, *(folder.with_name(f".one.{name}") for name in ("partial", "former")))
        assert runs.load(folder).problems() == []
    assert not left.exists()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["metrics"], {}, "metrics.validation.accuracy is missing"),
        (["metrics", "test", "accuracy"], "good", 'metrics.test.accuracy is "good", not a number'),
        (["metrics", "test", "accuracy"], None, "metrics.test.accuracy is null"),
        (["metrics", "validation"], {"f1_macro": 0.5}, "metrics.validation.accuracy is missing"),
        (["examples", "train"], True, "examples.train is true, not a whole number"),
        (["label_names"], "ab", 'label_names is "ab", not a list'),
        (["cache"], "/etc/passwd", "cache is no name"),
        (["backbone_folder"], "a\0b", "a path holds a null character"),
        (["spec", "max_length"], "256", 'spec.max_length is "256", not a whole number'),
        (["settings", "latent"], -3, "settings.latent is -3: give a whole number"),
        (["settings", "schedule"], [], "settings.schedule is neither a number nor text"),
    ],
)
def test_the_message_says_which_value_is_wrong(path, value, words, trained, tmp_path):
    folder = shutil.copytree(trained[0].folder, tmp_path / "copy")
    content = json.loads((folder / "run.json").read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    files.write_json(folder / "run.json", content)
    assert words in refusal(runs.load, folder)


def test_a_setting_of_an_extension_that_is_not_imported_is_read(trained, tmp_path):
    """Its figures are right; only its head cannot be used here."""
    folder = shutil.copytree(trained[1].folder, tmp_path / "copy")
    content = json.loads((folder / "run.json").read_text())
    content["settings"]["pooling"] = "max"
    del content["id"]  # as if it had been saved with this pooling
    files.write_json(folder / "run.json", content)
    assert runs.load(folder).record.head.pooling == "max"


def test_a_spec_of_a_later_version_names_the_run(trained, tmp_path):
    folder = shutil.copytree(trained[0].folder, tmp_path / "copy")
    content = json.loads((folder / "run.json").read_text())
    content["spec"]["later"] = True
    files.write_json(folder / "run.json", content)
    message = refusal(runs.load, folder)
    assert f"run {folder}: " in message and "(later): upgrade spacelite" in message


@pytest.mark.parametrize("wrong", WRONG)
def test_whatever_is_wrong_with_a_history_it_is_read_or_left_out(wrong, trained, tmp_path, caplog):
    folder = shutil.copytree(trained[0].folder, tmp_path / "copy")
    as_before_checksums(folder)
    run, content = runs.load(folder), trained[0].history()
    for text in damaged(content, wrong):
        caplog.clear()
        (folder / "history.json").write_text(text)
        history = run.history()
        for entry in history:
            for split in ("train", "validation"):
                assert all(v is None or v + 0.0 == v for v in entry[split].values())
        assert len(caplog.records) == (0 if history or text == "[]" else 1)


@pytest.mark.parametrize("wrong", WRONG)
def test_whatever_is_wrong_with_a_transfer_it_is_read_or_left_out(wrong, trained, tmp_path, caplog):
    folder = shutil.copytree(trained[0].folder, tmp_path / "copy")
    (path,) = (folder / "transfer").glob("*.json")
    run, content = runs.load(folder), json.loads(path.read_text())
    with caplog.at_level(logging.WARNING):
        for text in damaged(content, wrong):
            caplog.clear()
            path.write_text(text)
            found = run.transfers()
            assert len(caplog.records) == 1 - len(found)
            for record in found:
                assert record.examples[record.split] > 0
                run.predictions(record)


def test_a_folder_that_may_not_be_searched_is_said(trained, tmp_path, monkeypatch):
    shutil.copytree(trained[0].folder, tmp_path / "runs" / "one")

    def denied(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    run = runs.find(tmp_path, "one")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", denied)
        message = refusal(runs.find_cache, run, tmp_path)
        assert "cannot be read: Permission denied" in message
        result = invoke("runs", "list", "--cache-dir", tmp_path)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "cannot be used (Permission denied): check this path" in line


def test_missing_files_are_not_called_damaged(trained, tmp_path, caplog):
    run = runs.load(shutil.copytree(trained[0].folder, tmp_path / "copy"))
    (run.folder / "head.safetensors").unlink()
    (run.folder / "history.json").unlink()
    with pytest.raises(SpaceliteError, match=r"head.safetensors is missing: train the head again"):
        _ = run.parameters
    assert run.history() == [] and "history.json is missing" in caplog.text


def test_settings_that_do_not_fit_the_id_are_damage(trained, tmp_path):
    """A flipped bit in the name of a setting would read as its default."""
    folder = shutil.copytree(trained[0].folder, tmp_path / "copy")
    text = (folder / "run.json").read_text().replace('"epochs"', '"epocHs"')
    files.write_json(folder / "run.json", json.loads(text))  # older runs have no checksum
    assert "its settings are not those of the id" in refusal(runs.load, folder)


def test_a_copied_folder_is_no_further_seed(trained, tmp_path, caplog):
    for run in trained:
        shutil.copytree(run.folder, tmp_path / "runs" / run.id)
    before = {run.id for run in runs.load_all(tmp_path)}
    shutil.copytree(trained[0].folder, tmp_path / "runs" / f"{trained[0].id}-copy")
    shutil.copytree(trained[1].folder, tmp_path / "runs" / "a-copy")
    (tmp_path / "runs" / "z-link").symlink_to(trained[1].folder)
    caplog.clear()
    assert {run.id for run in runs.load_all(tmp_path)} == before
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3 and all("is a copy of" in line for line in said)
    assert runs.find(tmp_path, "a-copy").record.head == trained[1].record.head  # still usable


@pytest.mark.parametrize("what", ["byte", "not a number", "older"])
def test_changed_parameters_are_noticed(trained, tmp_path, what):
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(trained[0].folder, tmp_path / "copy")
    file, record = folder / "head.safetensors", folder / "run.json"
    content = json.loads(record.read_text())
    assert content["checksums"].keys() == {"head.safetensors", "history.json", "predictions.npz"}
    if what == "byte":
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(data)
    else:  # older runs have no checksums
        del content["checksums"]
        files.write_json(record, content)
    if what == "not a number":
        tensors = load_file(file)
        next(iter(tensors.values())).reshape(-1)[0] = float("nan")
        save_file(tensors, file)
    run = runs.load(folder)
    if what == "older":
        assert run.parameters.keys() == trained[0].parameters.keys()
        return
    with pytest.raises(
        SpaceliteError, match=r"head\.safetensors is damaged .*train the head again"
    ):
        _ = run.parameters


def flips(path):
    """Change one bit of every byte at both ends of a file, where its structure is, and of every
    fifth between them, one after another."""
    good = path.read_bytes()
    for at, byte in enumerate(good):
        if min(at, len(good) - 1 - at) >= 200 and at % 5:
            continue
        path.write_bytes(good[:at] + bytes([byte ^ 1 << at % 8]) + good[at + 1 :])
        yield at
    path.write_bytes(good)


@pytest.mark.parametrize(
    "name", ["run.json", "history.json", "head.safetensors", "predictions.npz"]
)
def test_no_changed_byte_of_a_run_changes_what_is_read(name, trained, tmp_path, caplog):
    folder = shutil.copytree(trained[0].folder, tmp_path / trained[0].id)
    good = runs.load(folder)
    parameters, history, logits = good.parameters, good.history(), good.predictions().logits
    assert good.problems() == [] and good.sealed
    unnoticed = 0
    for _ in flips(folder / name):
        caplog.clear()
        try:
            run = good if name in ("history.json", "predictions.npz") else runs.load(folder)
        except SpaceliteError as error:
            assert str(folder) in str(error) and name == "run.json"
            continue
        assert run.record == good.record
        if name == "run.json":
            unnoticed += 1
        elif name == "head.safetensors":
            with pytest.raises(SpaceliteError, match="train the head again"):
                _ = run.parameters
        elif name == "history.json":
            assert run.history() == [] and "train again" in caplog.messages[-1]
        else:
            assert run.predictions() is None and "train again" in caplog.messages[-1]
    # White space, and the name of the checksum of a run whose files have none.
    assert unnoticed <= (folder / name).read_text().count("\n") if name == "run.json" else True
    assert runs.load(folder).parameters.keys() == parameters.keys()
    assert runs.load(folder).history() == history
    assert (runs.load(folder).predictions().logits == logits).all()


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_no_changed_byte_of_an_evaluation_changes_what_is_read(suffix, trained, tmp_path, caplog):
    folder = shutil.copytree(trained[0].folder, tmp_path / trained[0].id)
    (file,) = (folder / "transfer").glob(f"*.{suffix}")
    run = runs.load(folder)
    (good,) = run.transfers()
    for _ in flips(file):
        caplog.clear()
        if suffix == "npz":
            assert run.predictions(good) is None
        elif run.transfers() == [good]:
            continue
        assert "run its eval again" in caplog.messages[-1]
    assert run.problems() == []


def test_verify_finds_what_is_damaged(trained, tmp_path):
    for run in trained:
        shutil.copytree(run.folder, tmp_path / "runs" / run.id)
    first, second, third = (tmp_path / "runs" / run.id for run in trained)
    as_before_checksums(third)

    def verify(*names):
        return invoke("runs", "verify", *names, "--cache-dir", tmp_path)

    done = verify()
    assert done.exit_code == 0 and done.stdout.count("is intact") == 3
    assert f"{third.name} is intact as far as can be told: an older version" in done.stdout
    (first / "predictions.npz").unlink()
    (first / "history.json").write_text("[]")
    # Of a run without checksums, figures are compared with the predictions.
    record = json.loads((third / "run.json").read_text())
    record["metrics"]["test"]["f1_macro"] += 0.001
    (third / "run.json").write_text(json.dumps(record))
    done = verify()
    lines = "".join(done.stdout.split())  # a narrow terminal breaks them

    def said(text):
        return text.replace(" ", "") in lines

    assert done.exit_code == 1 and "2 of 3 runs damaged" in done.stderr
    assert said(f"damaged: {first}/predictions.npz is missing: train again")
    assert said(f"{first}/history.json is damaged (it does not match its checksum): train")
    assert said(f"{third}/run.json is damaged (its f1_macro on test is")
    assert verify(second.name).exit_code == 0
    (row,) = json.loads(invoke("runs", "verify", second.name, "--json",
                                    "--cache-dir", tmp_path).stdout)  # fmt: skip
    assert row == {"id": second.name, "checksums": True, "problems": []}


def test_a_new_name_seals_no_damage(trained, tmp_path):
    for run in trained[:2]:
        shutil.copytree(run.folder, tmp_path / "runs" / run.id)
    first, older = (tmp_path / "runs" / run.id for run in trained[:2])
    as_before_checksums(older)
    renamed = runs.rename(runs.load(older), "old")
    assert not renamed.sealed and "checksum" not in json.loads((older / "run.json").read_text())
    assert runs.rename(runs.load(first), "new").problems() == []
    assert runs.load(first).name == "new" and runs.load(first).sealed
    text = (first / "run.json").read_text()
    (first / "run.json").write_text(text.replace('"new"', '"now"'))
    assert "does not match its checksum" in refusal(runs.load, first)
    assert "does not match its checksum" in refusal(runs._write_name, first, "other")


def test_a_new_run_says_that_its_name_is_that_of_a_damaged_one(
    cache_path, trained, tmp_path, caplog
):
    head = [heads.config("linear", pooling="mean")]
    with Cache(cache_path) as cache:
        (run,) = train_and_save(tmp_path, cache, head, TrainingConfig(epochs=1))
        runs.rename(run, "best")
        train_and_save(tmp_path, cache, head, TrainingConfig(epochs=1))
        assert "was damaged" not in caplog.text
        text = (run.folder / "run.json").read_text()
        (run.folder / "run.json").write_text(text.replace('"best"', '"bent"'))
        (again,) = train_and_save(tmp_path, cache, head, TrainingConfig(epochs=1))
    assert again.name == "bent" and "was damaged; the new one keeps its name, bent" in caplog.text
