"""push and pull, against a local fake of the hub's HTTP interface."""

import io
import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import embed, invoke, refusal, texts
from fake_hub import TOKEN, FakeHub
from safetensors.numpy import load, save

import spacelite
from spacelite import files
from spacelite.runs import store

SECRET = "somebodys-own-folder"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The fake hub, which its client asks, with a token and an empty cache."""
    fake = FakeHub()
    with fake.serving() as address:
        for name, value in {
            "ENDPOINT": address, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
        }.items():  # fmt: skip
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield fake
    assert fake.unknown == [], "the fake does not know all that the client asks"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, bert, reviews):
    """Runs of a data set in a folder of its own: tfidf, space (named), linear with a threshold."""
    folder = tmp_path_factory.mktemp(SECRET)
    data = shutil.copytree(reviews, folder / "reviews")
    backbone = shutil.copytree(bert, folder / "tiny-bert")
    embed(
        backbone=str(backbone), dataset=str(data), cache_dir=folder / "cache", device="cpu",
        dtype="float32",
    )  # fmt: skip
    common = {"cache_dir": folder / "cache", "progress": False, "baselines": False}
    named = spacelite.train(head="space", epochs=2, name="best", **common)
    others = spacelite.train(head=["linear", "tfidf"], epochs=2, threshold="f1", **common)
    return [*named, *others]


def pushed(run, hub, name="owner/name", **options):
    """Push a run; the files of its repository."""
    run.push(name, progress=False, **options)
    return hub.repositories[name]["files"]


def test_a_run_comes_back_as_it_was(runs, hub, tmp_path, bert):
    sample = texts(20)
    for number, run in enumerate(runs):
        pushed(run, hub, f"owner/run-{number}")
        back = spacelite.pull(f"owner/run-{number}", cache_dir=tmp_path / "here")
        assert (back.id, back.name, back.labels) == (run.id, run.name, run.labels)
        assert back.record.thresholds == run.record.thresholds
        assert back.metrics == run.metrics
        assert back.history == run.history
        ours, theirs = (
            of.predict(sample, backbone=bert, device="cpu", progress=False).probabilities
            for of in (run, back)
        )
        assert np.array_equal(ours, theirs)
        assert back.threshold(accuracy=0.5).record is not None  # from the predictions
    assert len(spacelite.load_runs(tmp_path / "here")) == len(runs)
    assert spacelite.load_run("best", tmp_path / "here").id == runs[0].id


def test_what_is_pushed_says_nothing_of_this_machine(runs, hub):
    for number, run in enumerate(runs):
        contents = pushed(run, hub, f"owner/run-{number}")
        assert set(contents) == {
            "run.json", "head.safetensors", "history.json", "predictions.npz", "README.md",
            "verified.json",
        }  # fmt: skip
        with zipfile.ZipFile(io.BytesIO(contents["predictions.npz"])) as archive:
            names = archive.namelist()
            whole = b"".join(archive.read(name) for name in names)
        assert not [name for name in names if name.endswith(("file.npy", "row.npy"))]
        for content in (*contents.values(), whole):
            assert SECRET.encode() not in content
            assert SECRET.encode("utf-32-le") not in content
            assert b"/tmp" not in content


def test_a_dry_run_shows_files_and_asks_nobody(runs, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    shown = runs[0].push("owner/name", dry_run=True, progress=False)
    assert shown.address is None
    assert (
        shown.files["head.safetensors"] == (runs[0].run.folder / "head.safetensors").stat().st_size
    )
    assert f"would be pushed to owner/name: {len(shown.files)} files" in str(shown)
    assert hub.asked == []


def test_a_new_repository_is_private_if_that_is_wanted(runs, hub):
    runs[0].push("owner/secret", private=True, progress=False)
    assert hub.repositories["owner/secret"]["private"]
    runs[0].push("owner/open", progress=False)
    assert not hub.repositories["owner/open"]["private"]
    before = hub.repositories["owner/open"]
    message = refusal(runs[1].push, "owner/open", private=True, progress=False)
    assert "is there already, and public" in message
    assert hub.repositories["owner/open"] == before


def test_pushing_again_replaces_files_and_names_others(runs, hub):
    hub.add("owner/name", {"notes.txt": b"mine", "run.json": b"old"})
    done = runs[0].push("owner/name", progress=False)
    assert "notes.txt" in done.notes[-1]
    held = hub.repositories["owner/name"]["files"]
    assert held["notes.txt"] == b"mine" and held["run.json"] != b"old"


def test_errors_of_pushing_say_what_to_do(runs, hub, monkeypatch):
    run = runs[0]
    assert "OWNER/NAME" in refusal(run.push, "name", progress=False)
    assert "OWNER/NAME" in refusal(run.push, "a/b/c", progress=False)
    assert "OWNER/NAME" in refusal(run.push, "owner/na me", progress=False)
    assert "form=nothing" in refusal(run.push, "owner/name", form="nothing", progress=False)
    hub.read_only = True
    assert "does not let you write to owner/name" in refusal(run.push, "owner/name", progress=False)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "hf auth login" in refusal(run.push, "owner/name", progress=False)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    assert "hf auth login" in refusal(run.push, "owner/name", progress=False)
    assert "owner/name" not in hub.repositories


def test_errors_of_the_connection_say_what_to_do(runs, hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal(spacelite.pull, "owner/name", cache_dir=tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in refusal(spacelite.pull, "owner/name", cache_dir=tmp_path)
    assert "cannot be reached" in refusal(runs[0].push, "owner/name", progress=False)


def test_errors_of_pulling_say_what_to_do(runs, hub, tmp_path):
    def pull(**options):
        return refusal(spacelite.pull, "owner/name", cache_dir=tmp_path, **options)

    assert "there is no model 'owner/name'" in pull()
    hub.add("owner/name", {"README.md": b"# Something else"})
    assert "owner/name holds no run of spacelite: it lacks run.json" in pull()
    hub.add("owner/name", {"model.onnx": b"", "verified.json": b"{}"})
    assert "in a form for other programs" in pull()
    pushed(runs[0], hub)
    assert "no revision 'v9'" in pull(revision="v9")
    assert "cannot be named" in pull(name="../up")
    assert not [path for path in (tmp_path / "runs").glob("*") if path.name[0] != "."]


def test_a_run_that_is_here_is_neither_doubled_nor_replaced(runs, hub, tmp_path):
    run = runs[0]
    pushed(run, hub)
    first = spacelite.pull("owner/name", cache_dir=tmp_path)
    again = spacelite.pull("owner/name", cache_dir=tmp_path)
    assert again == first and len(spacelite.load_runs(tmp_path)) == 1
    # One of the same settings, but with other weights.
    folder = first.run.folder
    weights = load((folder / "head.safetensors").read_bytes())
    changed = files.write_bytes(
        folder / "head.safetensors", save({name: value + 1 for name, value in weights.items()})
    )
    record = files.read_json(folder / "run.json")
    record["checksums"]["head.safetensors"] = changed
    files.write_json(folder / "run.json", record)
    before = (folder / "head.safetensors").read_bytes()
    assert "with another head" in refusal(spacelite.pull, "owner/name", cache_dir=tmp_path)
    assert (folder / "head.safetensors").read_bytes() == before


def test_a_name_that_another_run_has_stays_with_it(runs, hub, tmp_path):
    space, linear = runs[0], runs[1]
    pushed(linear, hub, "owner/linear")
    pushed(space, hub, "owner/space")
    mine = spacelite.pull("owner/linear", cache_dir=tmp_path, name="best")
    assert mine.name == "best"
    assert "is named best already" in refusal(
        spacelite.pull, "owner/space", cache_dir=tmp_path, name="best"
    )
    assert spacelite.pull("owner/space", cache_dir=tmp_path).name is None
    assert spacelite.load_run("best", tmp_path) == mine


def test_where_the_backbone_is_missing_the_remedy_is_named(runs, hub, tmp_path, caplog, bert):
    caplog.set_level("INFO")
    pushed(runs[0], hub)
    run = spacelite.pull("owner/name", cache_dir=tmp_path)
    assert "--backbone FOLDER" in caplog.text
    assert "name it with backbone=FOLDER" in refusal(run.predict, ["good"], progress=False)
    run.predict(["good"], backbone=bert, device="cpu", progress=False)


def test_the_command_that_fetches_a_backbone_of_the_hub_is_named(runs, hub, tmp_path, caplog):
    from dataclasses import replace

    from spacelite.export.hub import missing_backbone
    from spacelite.runs.store import Run

    record = runs[0].record
    spec = replace(record.spec, backbone="org/model", backbone_version=f"revision:{'a' * 40}")
    run = Run(runs[0].run.folder, replace(record, spec=spec))
    assert f"hf download org/model --revision {'a' * 40}" in (missing_backbone(run) or "")
    assert hub.asked == []


# What comes from the hub may be made to do harm.


def changed_record(contents, **items):
    """The files with other items in run.json, sealed again."""
    record = {**json.loads(contents["run.json"]), **items}
    record.pop("checksum")
    record["checksum"] = files.checksum(files.canonical(record).encode())
    return {**contents, "run.json": json.dumps(record).encode()}


def resealed(contents, name, content):
    """The files with another content of one, whose checksum is that of the new one."""
    checksums = json.loads(contents["run.json"])["checksums"]
    sums = {**checksums, name: files.checksum(content)}
    return changed_record({**contents, name: content}, checksums=sums)


def hostile(contents):
    """Kinds of repositories that are no run, or not the one that was pushed."""
    head = load(contents["head.safetensors"])
    pickled = io.BytesIO()
    np.savez(pickled, **{"test/logits": np.array([{"a": 1}], dtype=object)})
    return {
        "a byte of the head": {
            **contents, "head.safetensors": contents["head.safetensors"][:-1] + b"\0"
        },
        "a byte of the record": {
            **contents, "run.json": contents["run.json"].replace(b'"space"', b'"spaces"', 1)
        },
        "predictions of another": {**contents, "predictions.npz": b"PK\3\4 nothing"},
        "pickled arrays": resealed(contents, "predictions.npz", pickled.getvalue()),
        "a pickled head": resealed(contents, "head.safetensors", b"\x80\x04\x95"),
        "no weights of its": resealed(contents, "head.safetensors", save({"other": np.zeros(3)})),
        "not a number": resealed(
            contents, "head.safetensors", save({n: v * np.nan for n, v in head.items()})
        ),
        "no checksums": changed_record(contents, checksums={}),
        "another id": changed_record(contents, id="../../escape"),
        "a cache above": changed_record(contents, cache="../../up"),
        "an unknown head": changed_record(contents, head="made-up"),
        "a later format": changed_record(contents, format=99),
        "no history": {k: v for k, v in contents.items() if k != "history.json"},
        "no JSON": {**contents, "run.json": b"<html>"},
        "deep JSON": {**contents, "history.json": b"[" * 100_000},
        "empty": dict.fromkeys(contents, b""),
    }  # fmt: skip


def test_hostile_repositories_leave_nothing_behind(runs, hub, tmp_path):
    contents = dict(pushed(runs[0], hub))
    before = sorted(Path(tempfile.gettempdir()).glob("spacelite-pull-*"))
    for kind, files_ in hostile(contents).items():
        hub.add("owner/bad", files_)
        message = refusal(spacelite.pull, "owner/bad", cache_dir=tmp_path / "cache")
        assert "owner/bad" in message, kind
        assert str(tmp_path) not in message, kind
        assert "train" not in message, kind
        left = [path.name for path in (tmp_path / "cache" / "runs").iterdir()]
        assert left == [], kind
    assert sorted(Path(tempfile.gettempdir()).glob("spacelite-pull-*")) == before
    assert not list(tmp_path.rglob("escape*"))


def test_only_files_of_a_run_are_fetched(runs, hub, tmp_path):
    contents = pushed(runs[0], hub)
    more = {"../evil.py": b"", "modeling.py": b"", "head.pkl": b"", "transfer/x.json": b"{}"}
    hub.add("owner/more", {**contents, **more})
    hub.asked.clear()
    run = spacelite.pull("owner/more", cache_dir=tmp_path)
    asked = {path.partition("/resolve/")[2].partition("/")[2] for path in hub.asked} - {""}
    assert asked == {"run.json", "history.json", "head.safetensors", "predictions.npz"}
    assert {path.name for path in run.run.folder.iterdir()} == asked


def test_files_that_are_too_large_are_not_fetched(runs, hub, tmp_path):
    pushed(runs[0], hub)
    hub.declared = {"head.safetensors": 10**13}
    hub.asked.clear()
    message = refusal(spacelite.pull, "owner/name", cache_dir=tmp_path)
    assert "head.safetensors has 10.0 TB" in message
    assert not [path for path in hub.asked if "resolve" in path]


def test_names_from_elsewhere_do_no_harm(runs, hub, tmp_path, capsys):
    from spacelite.runs.record import RunRecord

    contents = pushed(runs[0], hub)
    hub.add("owner/bad", changed_record(contents, name="../up\x1b[31m"))
    run = spacelite.pull("owner/bad", cache_dir=tmp_path)
    assert run.name is None
    assert isinstance(run.record, RunRecord)
    hub.add("owner/bad\x1b[31m", {})
    assert "\x1b" not in refusal(spacelite.pull, "owner/bad\x1b[31m", cache_dir=tmp_path)


def test_a_backbone_that_was_a_local_folder_is_said_to_be_needed(runs, hub):
    run = runs[0]
    version = run.record.spec.backbone_version
    assert version.startswith("sha256:")
    shown = run.push("owner/name", dry_run=True, progress=False)
    needed = f"needs the files of that folder ({version})"
    assert "the backbone tiny-bert was a local folder" in str(shown) and needed in str(shown)
    card = pushed(run, hub)["README.md"].decode()
    assert needed in card and f"spacelite predict {run.id} --backbone FOLDER 'a text'" in card


def test_a_backbone_that_is_not_read_is_refused(runs, hub, bert, tmp_path):
    message = refusal(
        runs[0].export, "safetensors", tmp_path / "out", backbone=bert, progress=False
    )
    assert f"backbone={bert} has no effect on to=safetensors" in message
    message = refusal(runs[0].push, "owner/name", backbone=bert, progress=False)
    assert f"backbone={bert} has no effect on form=safetensors" in message
    assert not (tmp_path / "out").exists() and hub.repositories == {}


def test_folders_of_exports_are_not_taken_for_names_of_runs(runs, tmp_path, bert, monkeypatch):

    monkeypatch.chdir(tmp_path)
    cache_dir = str(runs[0].cache_dir)
    runs[2].export("onnx", "small", backbone=bert, progress=False)
    runs[0].export("transformers", "model", backbone=bert, progress=False)
    for name in ("small", str(tmp_path / "small")):
        message = refusal(spacelite.load_run, name, cache_dir)
        assert f"{name} is an export of the form onnx, and no run" in message
        assert f"python {name}/classify.py" in message and f"({runs[2].id})" in message
    for command in (["predict", "model", "a"], ["serve", "model"], ["explain", "model", "a"]):
        done = invoke(*command, "--cache-dir", cache_dir)
        assert done.exit_code == 1
        assert "model is an export of the form transformers, and no run: load it" in done.stderr
    Path("small/verified.json").unlink()
    assert "form onnx, and no run" in refusal(spacelite.load_run, "small", cache_dir)


def test_a_terminated_export_leaves_nothing_behind(runs, tmp_path, monkeypatch):
    import os
    import signal

    from spacelite.export.export import FORMS

    before = signal.getsignal(signal.SIGTERM)

    def write(self, source, folder):
        assert signal.getsignal(signal.SIGTERM) != before  # else the tests would end here
        (folder / "part").touch()
        os.kill(os.getpid(), signal.SIGTERM)
        return []

    monkeypatch.setattr(type(FORMS["safetensors"]), "write", write)
    given = ["best", "--to", "safetensors", "--cache-dir", str(runs[0].cache_dir)]
    done = invoke("export", *given, "--out", tmp_path / "out")
    assert done.exit_code == 143
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_commands_push_and_pull(runs, hub, tmp_path, capsys):

    folder = str(runs[0].cache_dir)
    done = invoke("push", "best", "owner/name", "--cache-dir", folder, "--dry-run", "--json")
    assert json.loads(done.stdout)["files"]["README.md"] > 0
    assert json.loads(done.stdout)["address"] is None
    done = invoke("push", "best", "owner/name", "--cache-dir", folder)
    assert "pushed to http://127.0.0.1" in done.stdout.replace("\n", " ")
    done = invoke("pull", "owner/name", "--cache-dir", tmp_path, "--name", "theirs")
    assert f"run {runs[0].id}, named theirs" in done.stdout.replace("\n", " ")
    done = invoke("pull", "owner/name", "--cache-dir", tmp_path, "--json")
    assert json.loads(done.stdout)["name"] == "theirs"


def test_a_run_by_the_folder_of_its_export_predicts(runs, tmp_path, bert):
    """What `safetensors` writes is a run's folder, which commands take as it is."""
    exported = runs[0].export("safetensors", tmp_path / "shared", progress=False)
    run = spacelite.load_run(exported.path)
    sample = texts(5)
    ours, theirs = (
        of.predict(sample, backbone=bert, device="cpu", progress=False).probabilities
        for of in (runs[0], run)
    )
    assert np.array_equal(ours, theirs)
    assert store.load(exported.path).problems() == []


def test_other_forms_are_pushed_and_not_pulled(runs, hub, tmp_path):
    contents = pushed(runs[0], hub, form="transformers")
    assert {"model.safetensors", "modeling_spacelite.py", "README.md"} <= contents.keys()
    assert b'pipeline("text-classification", "owner/name"' in contents["README.md"]
    message = refusal(spacelite.pull, "owner/name", cache_dir=tmp_path)
    assert "in a form for other programs" in message and "hf download owner/name" in message
    message = refusal(runs[2].push, "owner/other", form="transformers", progress=False)
    assert "form=transformers" in message and "owner/other" not in hub.repositories
