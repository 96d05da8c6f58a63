"""The published figures, the pooling of seeds, and the tables."""

import copy
import json
import statistics
from pathlib import Path

import pytest

from spacelite import paper
from spacelite.report import markdown, summary
from spacelite.runs import Run


def record(**changes):
    scores = {"loss": 0.5, "ce": 0.4, "accuracy": 0.8, "f1_macro": 0.79, "precision": 0.78,
              "recall": 0.81}  # fmt: skip
    made = {
        "head": "space", "system": "space", "cache": "minilm--imdb--0", "cache_key": "k",
        "spec": {"dataset": "imdb", "backbone": "minilm"}, "average": "binary",
        "settings": {
            "seed": 0, "latent": 3, "inter": 0.0, "intra": 0.0, "pooling": None, "epochs": 5,
            "batch_size": 256, "learning_rate": 2e-4, "weight_decay": 0.01, "data_seed": 0,
        },
        "examples": {"train": 25000, "validation": 5000, "test": 20000}, "train_params": 2318,
        "metrics": {"validation": scores, "test": dict(scores)},
    }  # fmt: skip
    made = copy.deepcopy(made)
    made["settings"].update(changes.pop("settings", {}))
    made["spec"].update(changes.pop("spec", {}))
    made["metrics"]["test"].update(changes.pop("test", {}))
    made.update(changes)
    return Run(Path("run"), made)


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
    theirs = [(t["id"], *(row[n] for n in paper.FIGURES)) for t in tables for row in t["rows"]]
    assert [(r.table, *(r.figures[n] for n in paper.FIGURES)) for r in paper.published()] == theirs


def test_seeds_become_mean_and_spread():
    values = [0.80, 0.82, 0.87]
    runs = [record(settings={"seed": i}, test={"accuracy": v}) for i, v in enumerate(values)]
    (section,) = summary.summarize(runs)
    row = section.rows[0]
    assert row.seeds == 3
    assert row.figures["accuracy"].mean == pytest.approx(statistics.mean(values))
    assert row.figures["accuracy"].spread == pytest.approx(statistics.stdev(values))
    assert row.figures["loss"].spread == 0


def test_other_losses_are_other_rows_and_other_settings_other_sections():
    runs = [record(), record(settings={"inter": 0.2}), record(settings={"epochs": 7}),
            record(cache_key="other")]  # fmt: skip
    sections = summary.summarize(runs)
    assert [sum(not row.published for row in s.rows) for s in sections] == [2, 1, 1]


def test_rows_stand_in_the_order_of_their_settings():
    linear = {"latent": None, "inter": None, "intra": None, "pooling": "mean"}
    runs = [record(head="linear", system="linear (mean)", settings={**linear, "epochs": 7})]
    for inter, intra in ((0.2, 0.001), (0.1, 0), (0.2, 0), (0, 0.001)):
        runs.append(record(settings={"inter": inter, "intra": intra, "epochs": 7}))
    (section,) = summary.summarize(runs)
    assert [(row.inter, row.intra) for row in section.rows] == [
        (0, 0.001), (0.1, 0), (0.2, 0), (0.2, 0.001), (None, None),
    ]  # fmt: skip


def test_published_rows_of_the_same_setting_stand_under_the_measured_one_and_are_marked():
    (section,) = summary.summarize([record()])
    published = [row for row in section.rows if row.published]
    assert {row.backbone for row in published} == {
        "bert-base", "distilbert-base-cased", "xlnet-base-cased", "bert-base-cased",
    }  # fmt: skip
    assert all((row.inter, row.intra, row.epochs) == (0, 0, 5) for row in published)
    assert section.notes == ["Published rows are of another backbone than minilm."]
    xlnet = next(row for row in published if row.backbone == "xlnet-base-cased")
    assert xlnet.figures["accuracy"].mean == 0.8798 and xlnet.figures["ce"] is None


def test_the_same_backbone_stands_alone_and_needs_no_mark():
    run = record(spec={"backbone": "distilbert/distilbert-base-cased"})
    (section,) = summary.summarize([run])
    assert [row.backbone for row in section.rows if row.published] == ["distilbert-base-cased"]
    assert section.notes == []


def test_fewer_examples_are_said():
    (section,) = summary.summarize([record(examples={"train": 10000, "test": 10000})])
    assert "trained on 25,000 examples, these on 10,000" in " ".join(section.notes)


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
    (section,) = summary.summarize([record(**changes)])
    assert [row for row in section.rows if row.published] == []


def test_without_a_test_split_validation_is_shown():
    run = record(examples={"train": 9, "validation": 1})
    del run.record["metrics"]["test"]
    (section,) = summary.summarize([run])
    assert section.split == "validation" and section.subtitle.startswith("validation figures")


def test_markdown_is_a_table_with_every_column():
    runs = [record(settings={"seed": i}, test={"accuracy": 0.8 + i / 100}) for i in range(2)]
    lines = markdown.render(summary.summarize(runs)).splitlines()
    table = [line for line in lines if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0] == ["System", "Parameters", "Loss", "CE", "Accuracy", "Macro F1", "Precision",
                        "Recall", "Inter", "Intra", "Epochs", "Backbone", "Data",
                        "Seeds"]  # fmt: skip
    assert len({len(row) for row in cells}) == 1
    assert cells[2] == ["space", "2,318", "0.5000 ± 0.0000", "0.4000 ± 0.0000", "0.8050 ± 0.0071",
                        "0.7900 ± 0.0000", "0.7800 ± 0.0000", "0.8100 ± 0.0000", "0", "0", "5",
                        "minilm", "imdb", "2"]  # fmt: skip
    assert cells[3][0].startswith("published, ") and cells[3][3] == "–"


def test_names_from_data_cannot_break_the_markdown():
    run = record(spec={"dataset": "a|b <script>", "backbone": "*x*"})
    text = markdown.render(summary.summarize([run]))
    assert "a\\|b \\<script\\>" in text and "\\*x\\*" in text
