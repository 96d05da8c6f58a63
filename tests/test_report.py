"""The published figures, means over seeds, and the tables."""

import json
import shutil
import statistics
from pathlib import Path

import pytest

from spacelite import files, paper
from spacelite.paper import FIGURES
from spacelite.reports.analysis import groups, published
from spacelite.reports.document.sections import section_blocks
from spacelite.reports.render import markup
from spacelite.runs import store as saved_runs
from spacelite.runs.record import RunRecord
from spacelite.runs.store import Run

SPEC = {
    "format": 1, "dataset": "imdb", "dataset_hash": "0", "label_names": ["negative", "positive"],
    "backbone": "minilm", "backbone_version": "0", "tokenizer_hash": "0", "max_length": 256,
    "layer": -1, "padding": "none", "dtype": "float16", "precision": "float32",
}  # fmt: skip


def run_with(test=None, **changes):
    """A run as a former version saved it, without the settings that it did not know, but for
    changes of its record; `test`: of its test metrics, False for a data set without that split."""
    scores = {"loss": 0.5, "ce": 0.4, "accuracy": 0.8, "f1_macro": 0.79, "precision": 0.78,
              "recall": 0.81}  # fmt: skip
    content = {
        "format": 1, "head": "space", "cache": "minilm--imdb--0", "cache_key": "k",
        "average": "binary", "label_names": ["negative", "positive"],
        "examples": {"train": 25000, "validation": 5000, "test": 20000}, "train_params": 2318,
        "seconds": 1.0, "created": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    settings = {
        "seed": 0, "latent": 3, "inter": 0.0, "intra": 0.0, "pooling": None, "epochs": 5,
        "batch_size": 256, "learning_rate": 2e-4, "weight_decay": 0.01, "data_seed": 0,
    }  # fmt: skip
    content["settings"] = settings | changes.pop("settings", {})
    content["spec"] = SPEC | changes.pop("spec", {})
    content["metrics"] = {"validation": scores}
    if test is not False:
        content["metrics"]["test"] = scores | (test or {})
    return Run(Path("run"), RunRecord.from_json(content | changes, "run"))


BOLD = "Bold: the best of the published rows."
KINDS = ("measured", "published", "difference")


def sections_of(runs):
    return [group.section for group in groups.grouped(runs)]


def published_tables(runs):
    return published.published_sections(groups.grouped(runs))


def test_published_rows_are_the_eight_tables():
    rows = paper.published()
    assert len(rows) == 26 and len({row.table for row in rows}) == 8
    best = next(row for row in rows if row.latent == 128)
    assert best.figures["accuracy"] == 0.8322 and best.figures["train_params"] == 197122


def test_published_figures_are_those_of_the_source(real_data):
    source = real_data.parent / "published_results.json"
    if not source.is_file():
        pytest.skip(f"the source of the published figures is not beside {real_data}")
    tables = json.loads(source.read_text())["tables"]
    theirs = [(t["id"], *(row[n] for n in FIGURES)) for t in tables for row in t["rows"]]
    assert [(r.table, *(r.figures[n] for n in FIGURES)) for r in paper.published()] == theirs


def test_seeds_become_mean_and_standard_deviation():
    values = [0.80, 0.82, 0.87]
    runs = [run_with(settings={"seed": i}, test={"accuracy": v}) for i, v in enumerate(values)]
    (section,) = sections_of(runs)
    row = section.rows[0]
    assert row.seeds == 3
    assert row.figures["accuracy"].mean == pytest.approx(statistics.mean(values))
    assert row.figures["accuracy"].std == pytest.approx(statistics.stdev(values))
    assert row.figures["loss"].std == 0


def test_other_settings_are_other_rows_and_other_caches_other_sections():
    runs = [run_with(), run_with(settings={"inter": 0.2}), run_with(settings={"epochs": 7}),
            run_with(cache_key="other", spec={"dataset_hash": "other"})]  # fmt: skip
    sections = sections_of(runs)
    assert [len(s.rows) for s in sections] == [3, 1]


def test_rows_stand_in_the_order_of_their_settings():
    linear = {"latent": None, "inter": None, "intra": None, "pooling": "mean"}
    runs = [run_with(head="linear", settings={**linear, "epochs": 7})]
    for inter, intra in ((0.2, 0.001), (0.1, 0), (0.2, 0), (0, 0.001)):
        runs.append(run_with(settings={"inter": inter, "intra": intra, "epochs": 7}))
    (section,) = sections_of(runs)
    assert [(row.inter, row.intra) for row in section.rows] == [
        (0, 0.001), (0.1, 0), (0.2, 0), (0.2, 0.001), (None, None),
    ]  # fmt: skip


def test_published_rows_stand_under_the_measured_ones_and_are_marked():
    tables = published_tables([run_with()])
    assert [table.title.rpartition(" ")[2] for table in tables] == [
        "[bert-base]", "[imdb-distilbert-5]", "[imdb-xlnet-5]", "[imdb-bert-5]",
    ]  # fmt: skip
    for table in tables:
        (number,) = [i for i, row in enumerate(table.rows) if row.runs]
        measured, there, difference = table.rows[number : number + 3]
        assert (measured.kind, there.kind, difference.kind) == KINDS
        assert (there.inter, there.intra, there.epochs) == (0, 0, 5)
        assert table.notes == ["* Published with another backbone than minilm.", BOLD]
        assert there.system.endswith(" *") and there.figures["ce"] is None
        assert difference.figures["ce"] is None
        assert difference.figures["accuracy"].mean == pytest.approx(
            0.8 - there.figures["accuracy"].mean
        )
    xlnet = next(row for row in tables[2].rows if row.kind == "published")
    assert xlnet.figures["accuracy"].mean == 0.8798


def test_the_same_backbone_stands_alone_and_needs_no_mark():
    run = run_with(spec={"backbone": "distilbert/distilbert-base-cased"})
    (table,) = published_tables([run])
    assert "distilbert" in table.title and table.notes == [BOLD]
    assert not any("*" in row.system for row in table.rows)


def test_fewer_examples_are_said():
    tables = published_tables(
        [run_with(examples={"train": 10000, "validation": 10, "test": 10000})]
    )
    for table in tables:
        assert "† Published with 25,000 training examples, here 10,000." in table.notes
        assert sum(row.system.endswith("* †") for row in table.rows) == 1


def test_of_several_caches_the_one_nearest_to_a_table_is_held_against_it():
    small = {"train": 100, "validation": 10, "test": 100}
    few = run_with(examples=small, cache_key="few", cache="few", test={"accuracy": 0.1})
    whole = run_with(test={"accuracy": 0.7})
    own = run_with(
        examples=small, cache_key="own", cache="own", test={"accuracy": 0.6},
        spec={"backbone": "xlnet-base-cased"},
    )  # fmt: skip
    for order in ([few, whole, own], [own, whole, few]):
        tables = published_tables(order)
        found = {table.title: row.figures["accuracy"].mean for table in tables
                 for row in table.rows if row.runs}  # fmt: skip
        assert {name: value for name, value in found.items() if "xlnet" in name} == {
            "IMDB, XLNet (no fine-tuning) [imdb-xlnet-5]": 0.6
        }
        assert {value for name, value in found.items() if "xlnet" not in name} == {0.7}
        for table in tables:
            said = [note for note in table.notes if "other caches fit this table too" in note]
            assert len(said) == 1 and ("(few" in said[0] or ", few" in said[0])
            assert "own" not in said[0]  # it has the backbone of another table


def test_the_best_of_each_column_are_marked_among_their_like():
    runs = [
        run_with(test={"accuracy": 0.9, "f1_macro": 0.7}),
        run_with(settings={"inter": 0.2}, test={"accuracy": 0.8, "f1_macro": 0.75}),
        run_with(settings={"intra": 0.001}, test={"accuracy": 0.90001, "f1_macro": 0.6}),
    ]
    (section,) = sections_of(runs)
    best = {(row.inter, row.intra): set(row.best) & {"accuracy", "f1_macro"}
            for row in section.rows}  # fmt: skip
    # 0.9 and 0.90001 are printed alike.
    assert best == {(0, 0): {"accuracy"}, (0.2, 0): {"f1_macro"}, (0, 0.001): {"accuracy"}}
    assert not any("loss" in row.best or "ce" in row.best for row in section.rows)
    (alone,) = sections_of(runs[:1])
    assert alone.rows[0].best == []
    table = next(t for t in published_tables(runs) if "[imdb-distilbert-5]" in t.title)
    original = {row.figures["accuracy"].mean: row.best for row in table.rows
                if row.kind == "published"}  # fmt: skip
    assert original[max(original)] and "accuracy" in original[max(original)]


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"epochs": 6}}, {"settings": {"latent": 4}}, {"settings": {"inter": 0.1}},
        {"settings": {"learning_rate": 1e-3}}, {"settings": {"batch_size": 32}},
        {"head": "linear", "settings": {"latent": None, "inter": None, "intra": None,
                                        "pooling": "mean"}},
        {"spec": {"dataset": "hatexplain:2"}},
    ],
)  # fmt: skip
def test_another_setting_has_no_published_row(changes):
    assert published_tables([run_with(**changes)]) == []


def test_validation_figures_are_never_held_against_published_ones():
    run = run_with(test=False, examples={"train": 25000, "validation": 5000})
    assert published_tables([run]) == []


def test_runs_of_former_versions_are_pooled_with_new_ones():
    old, new = run_with(), run_with(settings={
        "seed": 1, "schedule": "constant", "clip_norm": None, "class_weights": "none",
        "patience": None, "monitor": None,
    })  # fmt: skip
    (section,) = sections_of([old, new])
    assert [row.seeds for row in section.rows] == [2]


def test_other_layers_and_lengths_are_said_and_marked():
    run = run_with(spec={"layer": 2, "max_length": 64})
    (section,) = sections_of([run])
    assert section.title == "imdb, minilm, layer 2, at most 64 tokens, 5 epochs"
    for table in published_tables([run]):
        assert any(note.startswith("‡ ") and "64 tokens" in note for note in table.notes)
        assert sum(row.system.endswith("* ‡") for row in table.rows) == 1


def test_logregs_evaluations_elsewhere_are_told_once(tmp_path):
    (tmp_path / "run" / "transfer").mkdir(parents=True)
    transfer = {
        "cache": "other", "cache_key": "other", "dataset": "other", "examples": {"test": 5},
        "labels": {"0": "0"}, "metrics": {"test": run_with().record.metrics["test"]},
    }  # fmt: skip
    (tmp_path / "run" / "transfer" / "other.json").write_text(json.dumps(transfer))
    linear = {"latent": None, "inter": None, "intra": None, "pooling": "mean"}
    fitted = run_with(head="logreg", settings={
        **linear, "learning_rate": None, "weight_decay": None, "epochs": None, "batch_size": None,
        "data_seed": None,
    })  # fmt: skip
    fitted = Run(tmp_path / "run", fitted.record)
    sections = sections_of([run_with(), run_with(settings={"learning_rate": 1e-3}), fitted])
    assert [len(section.rows) for section in sections] == [3, 1]
    assert [section.data for section in sections] == ["imdb", "other"]


def test_without_a_test_split_validation_is_shown():
    run = run_with(test=False, examples={"train": 9, "validation": 1})
    (section,) = sections_of([run])
    assert section.split == "validation" and section.subtitle.startswith("validation figures")


def test_markdown_is_a_table_with_every_column():
    runs = [run_with(settings={"seed": i}, test={"accuracy": 0.8 + i / 100}) for i in range(2)]
    (section,) = sections_of(runs)
    lines = markup.markdown(section_blocks(section, 1)).splitlines()
    table = [line for line in lines if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0] == ["System", "Parameters", "Loss", "CE", "Accuracy", "Macro F1", "Precision",
                        "Recall", "AUROC", "Seeds"]  # fmt: skip
    assert len({len(row) for row in cells}) == 1
    assert cells[2] == ["space", "2,318", "0.5000 ± 0.0000", "0.4000 ± 0.0000", "0.8050 ± 0.0071",
                        "0.7900 ± 0.0000", "0.7800 ± 0.0000", "0.8100 ± 0.0000", "–",
                        "2"]  # fmt: skip


def test_names_from_data_cannot_break_the_markdown():
    run = run_with(spec={"dataset": "a|b <script> $x$", "backbone": "*x*"})
    (section,) = sections_of([run])
    text = markup.markdown(section_blocks(section, 1))
    assert "a\\|b \\<script\\> \\$x\\$" in text and "\\*x\\*" in text


def test_auroc_of_older_runs_is_computed_from_their_predictions(report_dir, tmp_path):
    """Runs that were saved before the metric existed; without predictions, a dash stays."""
    shutil.copytree(report_dir / "runs", tmp_path / "runs")
    expected, lost = {}, None
    for path in sorted((tmp_path / "runs").glob("*/run.json")):
        content = json.loads(path.read_text())
        of_test = {split: scores.pop("auroc") for split, scores in content["metrics"].items()}
        expected[path.parent.name] = of_test["test"]
        files.write_json(path, content)
        lost = path.parent.name
    (tmp_path / "runs" / lost / "predictions.npz").unlink()
    found = {}
    for group in groups.grouped(saved_runs.load_all(tmp_path)):
        for row, system in group.named:
            if system.transfers is None and len(row.runs) == 1:
                found[row.runs[0]] = row.figures["auroc"]
    assert len(found) > 2 and found.pop(lost) is None
    for run, figure in found.items():
        assert figure.mean == pytest.approx(expected[run], abs=1e-6)
