"""The published tables from data to figures, on tiny data sets of the published names."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import invoke, refusal, save_backbone, write_dataset

from spacelite import paper
from spacelite.cache import embedding
from spacelite.cache.store import Cache
from spacelite.inference import transfer
from spacelite.paper.reproduction import ReproduceOptions, reproduce
from spacelite.reports.analysis import groups, published
from spacelite.runs import store as runs
from spacelite.training import loop


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder / "imdb", {"train": 40, "test": 30})
    write_dataset(folder / "hatexplain", {"train": 40, "validation": 12, "test": 18}, classes=3)
    return folder


@pytest.fixture(scope="module")
def options(data_dir, bert, tmp_path_factory):
    cache_dir = tmp_path_factory.mktemp("reproduce")
    return ReproduceOptions(cache_dir=cache_dir, backbone=str(bert), seeds=2, data_dir=data_dir)


@pytest.fixture(scope="module")
def outcomes(options):
    return reproduce(None, options)


def test_every_row_is_filled_with_runs_of_its_own_setting(outcomes):
    assert [outcome.row for outcome in outcomes] == list(paper.published())
    for outcome in outcomes:
        row = outcome.row
        assert len(outcome.runs) == len(outcome.scores) == 2 and outcome.note is None
        for seed, run in enumerate(outcome.runs):
            settings = run.record.as_json()["settings"]
            assert run.record.spec.dataset == row.train_on
            assert run.head.kind == row.head
            for name in ("epochs", "latent", "inter", "intra", "pooling"):
                assert settings[name] == getattr(row, name), name
            assert settings["seed"] == seed and settings["batch_size"] == 256
            assert settings["learning_rate"] == 2e-4 and settings["weight_decay"] == 0.01


def test_zero_shot_rows_have_the_figures_of_the_other_data_set(outcomes, options):
    (path,) = (options.cache_dir / "embeddings").glob("*hatexplain-2*.h5")
    zero_shot = [o for o in outcomes if o.row.test_on != o.row.train_on]
    assert len(zero_shot) == 8
    with Cache(path) as cache:
        for outcome in zero_shot:
            for run, scores in zip(outcome.runs, outcome.scores, strict=True):
                by_number = dict(zip(cache.label_names, run.record.label_names, strict=True))
                assert scores == transfer.evaluate(run, cache, by_number)[0].metrics["test"]
                assert scores != run.record.metrics["test"]
    for outcome in outcomes:
        if outcome not in zero_shot:
            assert outcome.scores == [run.record.metrics["test"] for run in outcome.runs]


def test_what_is_done_is_not_done_again(outcomes, options, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("done again")

    for module, name in (
        (loop, "train"), (transfer, "evaluate"), (embedding, "tokenize"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, never)
    again = reproduce(None, options)
    assert [o.scores for o in again] == [o.scores for o in outcomes]


def test_only_what_is_missing_is_trained(outcomes, options, monkeypatch):
    import shutil

    gone = outcomes[1].runs[0]
    shutil.rmtree(gone.folder)
    trained = []
    real = loop.train
    monkeypatch.setattr(
        loop,
        "train",
        lambda cache, heads, *a, **k: trained.append(heads) or real(cache, heads, *a, **k),
    )
    again = reproduce(None, options)
    assert [[head.seed for head in heads] for heads in trained] == [[0]]
    assert again[1].runs[0].id == gone.id
    assert again[1].scores == outcomes[1].scores


def test_an_evaluation_without_predictions_is_made_again(outcomes, options):
    outcome = next(one for one in outcomes if one.row.test_on != one.row.train_on)
    (lost,) = (outcome.runs[0].folder / "transfer").glob("*.npz")
    lost.unlink()
    again = reproduce(outcome.row.table, options)
    assert lost.exists() and [one.scores for one in again] == [
        one.scores for one in outcomes if one.row.table == outcome.row.table
    ]


def test_the_table_stands_beside_the_published_one(outcomes):
    sections = published.sections(outcomes)
    assert len(sections) == 8
    rows = [row for section in sections for row in section.rows]
    assert [row.kind for row in rows] == ["measured", "published", "difference"] * 26
    for number, outcome in enumerate(outcomes):
        measured, there, difference = rows[3 * number : 3 * number + 3]
        assert measured.seeds == 2 and len(measured.runs) == 2
        accuracies = [scores["accuracy"] for scores in outcome.scores]
        assert measured.figures["accuracy"].mean == pytest.approx(sum(accuracies) / 2)
        assert there.figures["accuracy"].mean == outcome.row.figures["accuracy"]
        assert difference.figures["accuracy"].mean == pytest.approx(
            measured.figures["accuracy"].mean - there.figures["accuracy"].mean
        )
    assert "* Published with another backbone than tiny-bert." in sections[0].notes
    # The published protocol computes in float32.
    assert not any("backbone in" in section.subtitle for section in sections)
    first = outcomes[0].runs[0]
    spec = replace(first.record.spec, precision="bfloat16")
    in_half = replace(first, record=replace(first.record, spec=spec))
    (section,) = published.sections([replace(outcomes[0], runs=[in_half])])
    assert "training examples; backbone in bfloat16; " in section.subtitle


def test_a_report_finds_the_same_figures_among_the_runs(outcomes, options):
    found = published.published_sections(groups.grouped(runs.load_all(options.cache_dir)))
    expected = published.sections(outcomes)
    assert [section.title for section in found] == [section.title for section in expected]
    for one, other in zip(found, expected, strict=True):
        for here, there in zip(one.rows, other.rows, strict=True):
            if here.kind == "measured" and not here.runs:
                # The pooler that a row asks for: this backbone's first token stood in.
                assert there.runs and "pooler" in " ".join(other.notes)
                continue
            assert (here.kind, here.figures) == (there.kind, there.figures)


def test_the_command_prints_all_rows(options):
    there = ["--backbone", options.backbone, "--seeds", 2, "--data-dir", options.data_dir,
             "--cache-dir", options.cache_dir]  # fmt: skip
    result = invoke("reproduce", *there)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("published,") == 26
    one = json.loads(invoke("reproduce", "--table", "imdb-xlnet-5", "--json", *there).stdout)
    assert len(one) == 1 and len(one[0]["rows"]) == 6
    assert "choose one of bert-base, imdb-distilbert-5" in refusal(reproduce, "none", options)


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"data_dir": Path("/nowhere")}, {"precision": "int8"}], ids=str
)
def test_options_that_cannot_be_are_refused_at_once(wrong, options):
    ((name, value),) = wrong.items()
    message = refusal(reproduce, None, replace(options, **wrong))
    assert message.startswith(f"{name}={value}: ")
    option = "--" + name.replace("_", "-")
    result = invoke("reproduce", option, value, "--cache-dir", options.cache_dir)
    assert result.exit_code == 1 and result.stderr.startswith(f"error: {option} {value}: ")
    assert result.stderr.count("\n") == 1


def test_a_transfer_under_another_map_is_not_taken_for_the_protocols(outcomes, options):
    zero_shot = next(o for o in outcomes if o.row.test_on != o.row.train_on)
    run, (path,) = zero_shot.runs[0], (options.cache_dir / "embeddings").glob("*hatexplain-2*.h5")
    turned = {"hateful or offensive": "1", "normal": "0"}
    turned = {name: run.record.label_names[int(to)] for name, to in turned.items()}
    with Cache(path) as cache:
        record, predictions = transfer.evaluate(run, cache, turned)
    run.save_transfer(record, predictions)
    again = reproduce(zero_shot.row.table, options)
    assert [outcome.scores for outcome in again] == [
        o.scores for o in outcomes if o.row.table == zero_shot.row.table
    ]
    assert record.metrics["test"]["accuracy"] != zero_shot.scores[0]["accuracy"]


def test_data_that_cannot_be_had_costs_the_rows_that_need_it_and_no_others(
    data_dir, bert, tmp_path
):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "imdb").symlink_to(data_dir / "imdb")
    options = ReproduceOptions(
        cache_dir=tmp_path, backbone=str(bert), seeds=1, data_dir=tmp_path / "data"
    )
    for outcome in reproduce(None, options):
        on_imdb = {outcome.row.train_on, outcome.row.test_on} == {"imdb"}
        assert bool(outcome.runs) == bool(outcome.scores) == on_imdb
        assert on_imdb or "hatexplain" in outcome.note


def test_the_published_backbone_is_no_other_one(outcomes):
    for outcome in outcomes:
        record = outcome.runs[0].record
        spec = replace(record.spec, backbone=paper.hub_name(outcome.row.backbone))
        record = replace(record, spec=spec, examples={"train": outcome.row.train_examples})
        assert paper.differences(outcome.row, record) == {}


def test_without_a_pooler_the_first_token_stands_in_and_is_said(data_dir, tmp_path, distilbert):
    options = ReproduceOptions(
        cache_dir=tmp_path, backbone=str(distilbert), seeds=1, data_dir=data_dir
    )
    outcomes = reproduce("bert-base", options)
    assert outcomes[0].runs[0].head.pooling == "first"
    assert "tiny-distilbert has no pooler" in outcomes[0].note
    (section,) = published.sections(outcomes)
    assert outcomes[0].note in section.notes


def test_backbones_that_cannot_be_had_leave_their_rows_empty_and_say_why(
    data_dir, tmp_path, monkeypatch
):
    there = ["--cache-dir", tmp_path, "--data-dir", data_dir, "--seeds", 1]
    folder = save_backbone("distilbert", tmp_path / "distilbert-base-cased")
    monkeypatch.chdir(folder.parent)  # the only published backbone that lies here
    result = invoke("reproduce", *there)
    assert result.exit_code == 1
    measured = [outcome for outcome in paper.published() if "distilbert" in outcome.backbone]
    assert result.stderr.splitlines()[-1].startswith(
        f"error: {26 - len(measured)} of 26 rows could not be measured"
    )
    assert result.stderr.count("xlnet-base-cased on imdb: ") == 1
    assert "backbone=" not in result.output  # that is the argument's name in Python
    assert len(runs.load_all(tmp_path)) == 6 + 3  # heads of five epochs, of fifteen
