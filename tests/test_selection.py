"""Sweeps, filters and named comparisons: what a report compares, and what it says was searched."""

import json
import shutil

import numpy as np
import pytest
from conftest import embed, invoke, refusal, write_dataset
from scipy import stats
from test_report import run_with, sections_of

import spacelite as library
from spacelite.reports.analysis import groups, published
from spacelite.reports.document.sections import section_blocks
from spacelite.reports.document.tables import runs_table, systems_table
from spacelite.reports.render import markup
from spacelite.runs.record import TransferRecord
from spacelite.runs.store import Run

FIGURES = {"loss": 0.5, "ce": 0.4, "f1_macro": 0.7, "precision": 0.7, "recall": 0.7}


def tried(rate, validation, test=0.8, seed=0, **settings):
    """A run with a learning rate, and its accuracies."""
    return run_with(
        settings={"learning_rate": rate, "seed": seed, **settings},
        metrics={
            "validation": FIGURES | {"accuracy": validation},
            "test": FIGURES | {"accuracy": test},
        },
    )


SWEEP = [tried(1e-4, 0.70, 0.9), tried(1e-3, 0.74, 0.71, 0), tried(1e-3, 0.78, 0.71, 1),
         tried(1e-2, 0.75, 0.95)]  # fmt: skip


def test_validation_chooses_among_the_settings_of_a_sweep():
    (section,) = sections_of(SWEEP)
    assert section.swept == {"learning_rate": "learning rate"}
    assert [(row.settings["learning_rate"], row.chosen, row.tried) for row in section.rows] == [
        (1e-4, False, 3), (1e-3, True, 3), (1e-2, False, 3),
    ]  # fmt: skip
    assert [row.system for row in section.rows] == [
        "space, learning rate 0.0001", "space, learning rate 0.001", "space, learning rate 0.01",
    ]  # fmt: skip
    assert section.notes[0] == (
        "space: 3 settings were tried (learning rate 0.0001 to 0.01). Validation accuracy chose "
        "space, learning rate 0.001."
    )
    # What was not chosen is not bold, however good its test figure.
    assert [row.best for row in section.rows] == [[], [], []]
    table = systems_table(section)
    assert table.columns[:3] == ["System", "Parameters", "Validation accuracy"]
    cells = [[cell.text for cell in line.cells[:3]] for line in table.lines]
    assert cells == [
        ["space, learning rate 0.0001", "2,318", "0.7000"],
        ["space, learning rate 0.001 (chosen)", "2,318", "0.7600"],
        ["space, learning rate 0.01", "2,318", "0.7500"],
    ]
    # `train` shows the same names.
    shown = [line.cells[0].text for line in runs_table(SWEEP).lines if not line.kind]
    assert list(dict.fromkeys(shown)) == [row.system for row in section.rows]
    assert "learning rate" not in section.subtitle and "batch 256" in section.subtitle
    assert "learning_rate" not in section.settings and section.settings["epochs"] == 5


def test_only_examples_that_chose_make_figures_too_optimistic(monkeypatch):
    def warned(runs):
        return [any("too optimistic" in note for note in s.notes) for s in sections_of(runs)]

    without_test = [run_with(settings={"learning_rate": rate}, test=False) for rate in (1e-4, 1e-3)]
    assert warned(SWEEP) == [False] and warned(without_test) == [True]
    other = TransferRecord(
        cache="minilm--posts--1", cache_key="o", dataset="posts", examples={"validation": 9},
        labels={"no": "negative", "yes": "positive"},
        metrics={"validation": FIGURES | {"accuracy": 0.7}},
    )  # fmt: skip
    monkeypatch.setattr(Run, "transfers", lambda run: [other])
    assert warned(SWEEP) == [False, False]


def test_names_say_latent_dimensions_and_loss_weights():
    runs = [run_with(settings={"latent": latent, "inter": inter})
            for latent in (3, 16) for inter in (0, 0.2)]  # fmt: skip
    (section,) = sections_of(runs)
    assert section.swept == {"latent": "L"}
    assert [(row.system, row.settings["latent"], row.tried) for row in section.rows] == [
        ("space", 3, 2), ("space L=16", 16, 2),
        ("space + inter 0.2", 3, 2), ("space L=16 + inter 0.2", 16, 2),
    ]  # fmt: skip
    assert section.notes[0].startswith("space: 2 settings were tried (L 3 to 16). Validation")
    alone = sections_of([run_with(settings={"latent": 16})])[0]
    assert alone.rows[0].system == "space L=16" and alone.swept == {}


def test_settings_that_differ_between_systems_are_a_sentence_and_no_columns():
    runs = [
        run_with(settings={"learning_rate": 1e-3}),
        run_with(settings={"inter": 0.2}),
        run_with(head="linear", settings={"latent": None, "pooling": "mean"}),
        run_with(settings={"intra": 0.1, "latent": 16, "epochs": 1, "batch_size": 32}),
    ]
    (section,) = sections_of(runs)
    assert section.swept == {} and [row.tried for row in section.rows] == [1] * 4
    assert section.notes == [
        "Trained with: space: 5 epochs, batch 256, learning rate 0.001; space + inter 0.2, linear "
        "(mean): 5 epochs, batch 256, learning rate 0.0002; space L=16 + intra 0.1: 1 epoch, "
        "batch 32, learning rate 0.0002."
    ]
    assert "batch" not in section.subtitle and "epoch" not in section.title
    assert "weight decay 0.01" in section.subtitle  # as all


def test_what_a_sweep_varies_is_said_of_systems_outside_it_too():
    alone = run_with(head="linear", settings={"pooling": "mean", "learning_rate": 5e-3})
    (section,) = sections_of([*SWEEP, alone])
    assert section.rows[-1].system == "linear (mean)" and section.rows[-1].tried == 1
    assert "Trained with: linear (mean): learning rate 0.005." in section.notes


def test_bold_rows_are_those_of_systems_outside_a_sweep_too():
    alone = run_with(head="linear", settings={"pooling": "mean"})
    (section,) = sections_of([*SWEEP, alone])
    assert any(row.best for row in section.rows if row.tried == 1)
    assert groups.bold_note(section.rows) == [
        "Bold: the best of a column without the settings that were not chosen."
    ]


def test_names_with_commas_are_listed_with_semicolons():
    decided = {"settings": {"threshold": "f1_macro"}, "thresholds": {"positive": 0.4}}
    runs = [run_with(**decided, spec={"layer": layer}, cache_key=f"{layer}", cache=f"cache-{layer}",
                     cross_validated={"C": 0.003})
            for layer in (3, 5)]  # fmt: skip
    notes = " ".join(sections_of(runs)[0].notes)
    assert "Decision thresholds of space, layer 3; space, layer 5 were chosen" in notes
    assert "chose C: 0.003 for space, layer 3; space, layer 5." in notes


def test_systems_of_several_caches_say_in_which_settings_they_differ():
    runs = [run_with(spec={"layer": layer}, cache_key=f"{layer}", cache=f"cache-{layer}",
                     settings={"learning_rate": rate})
            for layer, rate in ((3, 1e-3), (3, 1e-2), (5, 1e-2))]  # fmt: skip
    names = ["space, layer 3, learning rate 0.001", "space, layer 3, learning rate 0.01",
             "space, layer 5, learning rate 0.01"]  # fmt: skip
    assert [row.system for row in sections_of(runs)[0].rows] == names
    assert [row.system for row in sections_of(runs[::2])[0].rows] == names[::2]


def test_a_setting_without_effect_tells_nothing_apart():
    runs = [run_with(), run_with(settings={"patience": 3, "monitor": "f1_macro"})]
    (section,) = sections_of(runs)
    assert list(section.swept) == ["patience"]
    assert [row.system for row in section.rows] == ["space, patience none", "space, patience 3"]


def test_orders_of_the_examples_are_systems_of_their_own_but_one_published_row():
    runs = [run_with(settings={"data_seed": order, "seed": seed},
                     test={"accuracy": 0.6 + order / 10})
            for order in (0, 1) for seed in (0, 1)]  # fmt: skip
    (section,) = sections_of(runs)
    assert [row.system for row in section.rows] == ["space, data seed 0", "space, data seed 1"]
    assert [row.tried for row in section.rows] == [1, 1] and section.swept == {}
    for table in published.published_sections(groups.grouped(runs)):
        (row,) = [row for row in table.rows if row.runs]
        assert row.seeds == 4 and row.figures["accuracy"].mean == pytest.approx(0.65)
        assert any("all 4 runs" in note and "data seeds 0, 1" in note for note in table.notes)
    one = sections_of([run_with(settings={"data_seed": 7})])[0]
    assert "data seed 7" in one.subtitle


def test_headings_name_what_the_caches_differ_in():
    few = {"train": 100, "validation": 10, "test": 20000}
    sections = sections_of([
        run_with(), run_with(examples=few, cache_key="few", spec={"dataset_hash": "few"}),
        run_with(spec={"dataset": "other", "dataset_hash": "other"}, cache_key="other"),
    ])  # fmt: skip
    assert [section.title for section in sections] == [
        "imdb, minilm, 5 epochs, 25,000 train examples",
        "imdb, minilm, 5 epochs, 100 train examples",
        "other, minilm, 5 epochs",
    ]


def test_caches_of_the_same_data_are_one_table_with_names_that_tell_them_apart():
    specs = {
        "a": {"layer": 3}, "b": {"layer": 5}, "c": {"layer": 5, "dtype": "int8"},
        "d": {"layer": 5, "dtype": "int8", "backbone_version": "revision:2"},
    }  # fmt: skip
    runs = [run_with(spec=spec, cache_key=key, cache=f"cache-{key}") for key, spec in specs.items()]
    runs += [run_with(spec=specs[key], cache_key=key, cache=f"cache-{key}", head="tfidf",
                      settings={"seed": None}) for key in "ab"]  # fmt: skip
    (section,) = sections_of(runs)
    assert section.title == "imdb, minilm, 5 epochs"
    assert section.cache == "cache-a, cache-b, cache-c, cache-d"
    assert section.subtitle.endswith("caches cache-a, cache-b, cache-c, cache-d")
    # N-grams are the same in every layer; the last two differ only in the version of the backbone.
    assert [row.system for row in section.rows] == [
        "space, layer 3, dtype float16", "space, layer 5, dtype float16",
        "space, layer 5, dtype int8, cache cache-c", "space, layer 5, dtype int8, cache cache-d",
        "tfidf",
    ]  # fmt: skip
    assert [row.tried for row in section.rows] == [1] * 5  # layers are compared, not tuned
    (alone,) = sections_of([runs[0], run_with(spec={"layer": 3}, cache_key="a", cache="cache-a",
                                              settings={"inter": 0.2})])  # fmt: skip
    assert alone.title == "imdb, minilm, layer 3, 5 epochs"
    assert [row.system for row in alone.rows] == ["space", "space + inter 0.2"]


def shorter(folder, rows, reverse=False):
    """A data set with the same validation and test texts, and part of the training texts."""
    there = folder.with_name(f"{folder.name}-{rows}")
    shutil.copytree(folder, there)
    train, test = there / "train.jsonl", there / "test.jsonl"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:rows]))
    if reverse:
        test.write_text("".join(test.read_text().splitlines(keepends=True)[::-1]))
    return there


def test_systems_of_other_caches_are_compared_on_the_same_test_examples(bert, tmp_path):
    data = write_dataset(tmp_path / "posts", {"train": 60, "validation": 20, "test": 40})
    caches = [
        embed(backbone=str(bert), dataset=str(folder), cache_dir=tmp_path, layer=layer,
              dtype="float32", device="cpu").path.stem
        for folder, layer in ((data, -1), (data, 1), (shorter(data, 40), -1),
                              (shorter(data, 50, reverse=True), -1))
    ]  # fmt: skip
    for cache in caches:
        library.train(cache, cache_dir=tmp_path, head="linear", pooling="mean", epochs=3,
                      batch_size=16, baselines=False, progress=False)  # fmt: skip
    findings = library.report(cache_dir=tmp_path, examples=False, progress=False).findings
    together, other = findings.parts
    assert [row.system for row in together.section.rows] == [
        "linear (mean), data posts-40, train examples 40, layer -1",
        "linear (mean), data posts, train examples 60, layer -1",
        "linear (mean), data posts, train examples 60, layer 1",
    ]
    assert {*together.section.cache.split(", ")} == {*caches[:3]}
    assert other.section.cache == caches[3]
    # Against the files: the test texts are the same, so the predictions stand side by side.
    one, two = together.section.rows[1:]
    (pair,) = [pair for pair in together.analysis.pairs
               if (pair.first, pair.second) == (one.system, two.system)]  # fmt: skip
    right = []
    for row in (one, two):
        with np.load(tmp_path / "runs" / row.runs[0] / "predictions.npz") as arrays:
            right.append(arrays["test/logits"].argmax(axis=1) == arrays["test/label"])
    assert pair.headline.value == pytest.approx(right[0].mean() - right[1].mean())
    only = [int((a & ~b).sum()) for a, b in (right, right[::-1])]
    assert pair.p == pytest.approx(stats.binomtest(min(only), sum(only)).pvalue)
    assert together.analysis.cost.caches == 3

    named = {"cache_dir": tmp_path, "progress": False}
    chosen = library.report(compare=["layer 1", "train examples 40"], **named).findings
    assert len(chosen.parts[0].section.rows) == 2
    message = refusal(library.report, compare=["layer 1", other.section.rows[0].runs[0]], **named)
    assert "only systems that were tested on the same texts and labels, in the same" in message
    assert f"40 test examples of posts (cache {caches[1]})" in message and "there" not in message
    (tmp_path / "embeddings" / f"{caches[3]}.texts.npz").unlink()
    message = refusal(library.report, compare=["layer 1", other.section.rows[0].runs[0]], **named)
    assert message.endswith(f"the texts of {caches[3]} are not there to be compared")


def test_runs_are_selected_by_cache_data_head_and_settings():
    logreg = run_with(head="logreg", settings={"pooling": "mean", "seed": None}, cache="minilm--a")
    runs = [*SWEEP, logreg]
    chosen = groups.select(runs, where={"lr": ["0.001", 0.01]})
    assert chosen == [*SWEEP[1:], logreg]  # logreg has no learning rate
    assert groups.select(runs, head=["space"], where={"seed": 1}) == [SWEEP[2]]
    assert groups.select(runs, cache="minilm--a") == [logreg]
    assert groups.select(runs, dataset="imdb") == runs
    assert groups.select(runs, where={"schedule": "constant"}) == runs
    decided = run_with(settings={"threshold": "f1_macro"}, thresholds={"positive": 0.4})
    for alias in ("f1", "f1_macro"):
        assert groups.select([*runs, decided], where={"threshold": alias}) == [decided]


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (
            {"where": {"lr": 0.5}},
            "where=lr=0.5: no run has this setting; choose from 0.0001, 0.001, 0.01",
        ),
        ({"where": {"lr": "fast"}}, "where=lr=fast: no run has this setting"),
        ({"where": {"lrr": 1}}, "where=lrr: no run has this setting; choose from seed,"),
        ({"dataset": "sst2"}, "dataset=sst2: no run has this data set; choose from imdb"),
        ({"cache": "x"}, "cache=x: no run has this cache; choose from minilm--imdb--0"),
        ({"head": ["mlp"]}, "head=mlp: no run has this head; choose from space"),
    ],
)
def test_conditions_that_fit_nothing_say_what_there_is(conditions, said):
    assert said in refusal(groups.select, SWEEP, **conditions)


@pytest.fixture(scope="module")
def swept(report_dir, tmp_path_factory):
    """The runs of the report's fixture, and a sweep on the same cache."""
    folder = tmp_path_factory.mktemp("swept")
    shutil.copytree(report_dir, folder, dirs_exist_ok=True)
    cache = next(run.record.cache for run in library.load_runs(folder)
                 if run.record.spec.dataset == "imdb")  # fmt: skip
    library.train(cache, cache_dir=folder, head=["space", "linear"], seeds=3, epochs=5,
                  batch_size=16, learning_rate=[0.01, 0.02, 0.05], progress=False)  # fmt: skip
    return folder


def own_part(findings):
    return next(part for part in findings.parts if part.section.title.startswith("imdb, "))


def test_a_report_compares_only_what_validation_chose(swept):
    part = own_part(library.report(cache_dir=swept, examples=False, progress=False).findings)
    chosen = [row.system for row in part.section.rows if row.chosen]
    assert len(chosen) < len(part.section.rows) and any(row.tried >= 3 for row in part.section.rows)
    assert {one.name for one in part.analysis.systems} == set(chosen)
    assert part.analysis.tests == len(chosen) * (len(chosen) - 1) // 2
    for row in part.section.rows:  # against the files
        if row.tried > 1 and row.chosen:
            rivals = [other for other in part.section.rows if other.sweep == row.sweep]
            figures = {}
            for other in rivals:
                records = [json.loads((swept / "runs" / one / "run.json").read_text())
                           for one in other.runs]  # fmt: skip
                figures[other.system] = np.mean(
                    [record["metrics"]["validation"]["accuracy"] for record in records]
                )
            assert figures[row.system] == max(figures.values())


def test_named_systems_are_compared_with_each_other_alone(swept):
    whole = own_part(library.report(cache_dir=swept, examples=False, progress=False).findings)
    names = [row.system for row in whole.section.rows if row.tried > 1][:2]  # one sweep
    other = next(row for row in whole.section.rows if row.system.startswith("logreg"))
    report = library.report(
        compare=[*names, other.runs[0]], cache_dir=swept, examples=False, progress=False
    )
    assert report.findings.published == []
    (part,) = report.findings.parts
    assert len(part.section.rows) == 3 and all(row.chosen for row in part.section.rows)
    assert part.analysis.tests == 3 and len(part.analysis.pairs) == 3
    # What was searched stands under the table, whether or not validation chose it.
    searched = [note for note in part.section.notes if "settings" in note and "were tried" in note]
    assert len(searched) == 2
    two = library.report(compare=names, cache_dir=swept, examples=False, progress=False)
    (alone,) = two.findings.parts
    (before,) = [pair for pair in part.analysis.pairs if {pair.first, pair.second} == {
        row.system for row in alone.section.rows}]  # fmt: skip
    (pair,) = alone.analysis.pairs
    assert pair.corrected == pair.p and before.p == pytest.approx(pair.p)
    assert before.corrected >= pair.corrected


def test_what_any_table_shows_names_a_system(swept):
    whole = own_part(library.report(cache_dir=swept, examples=False, progress=False).findings)
    row = next(row for row in whole.section.rows if row.tried > 1 and row.chosen)
    rate = row.system.rpartition(" ")[2]
    # Of a sweep, of the table, and parts that no other name has.
    for name in (row.sweep.upper(), f"{row.system} (chosen)", f"space, learning rate {rate}"):
        findings = library.report(compare=[name, "logreg"], cache_dir=swept,
                                  examples=False, progress=False).findings  # fmt: skip
        rows = findings.parts[0].section.rows
        assert [each.system for each in rows] == [row.system, "logreg (mean)"]
        assert row.runs == rows[0].runs


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["spice", "logreg (mean)"], "compare=spice: no system has this name; did you mean: spac"),
        (["qqq", "logreg (mean)"], "no system has this name; give a system's name or a run's id"),
        (
            ["intra", "logreg (mean)"],
            "compare=intra: it is part of 2 systems' names; choose",
        ),
        (["logreg (mean)", "logreg (mean)"], "this is one system; name at least two"),
        (["imdb", "logreg (mean)"], "compare=imdb: fits"),
    ],
)
def test_comparisons_that_cannot_be_made_are_refused(swept, names, said):
    message = refusal(library.report, compare=names, cache_dir=swept, progress=False)
    assert said in message and "\n" not in message


def test_systems_of_different_data_cannot_be_compared(swept):
    runs = library.load_runs(swept)
    other = next(run for run in runs if run.record.spec.dataset != "imdb")
    own = next(run for run in runs if run.record.spec.dataset == "imdb")
    message = refusal(library.report, compare=[own.id, other.id], cache_dir=swept, progress=False)
    assert "tested on the same texts and labels" in message and own.record.cache in message


def test_figures_of_another_split_stand_below():
    section = sections_of([tried(1e-3, 0.74, 0.71, 0), tried(1e-3, 0.78, 0.71, 1)])[0]
    table = systems_table(section, "validation")
    assert [line.kind for line in table.lines] == ["measured", "split"]
    at = table.columns.index("Accuracy")
    cell = table.lines[1].cells[at]
    assert (table.lines[1].cells[0].text, cell.text, cell.std) == (
        "on validation", "0.7600", "± 0.0283",
    )  # fmt: skip
    assert table.lines[1].cells[table.columns.index("Seeds")].text == ""
    assert len({len(line.cells) for line in table.lines}) == 1
    assert len(systems_table(section, "train").lines) == 1  # these runs have no such figures
    assert "| on validation |" in markup.markdown(section_blocks(section, 1, "validation"))


def test_the_command_takes_names_one_after_another(swept):
    whole = invoke("report", "--cache-dir", swept, "--json", "--dataset", "imdb")
    names = [row["system"] for row in json.loads(whole.stdout)["parts"][0]["section"]["rows"]]
    assert "logreg (mean)" in names
    shown = invoke("report", "--cache-dir", swept, "--compare", "linear (first)",
                      "logreg (mean)", "--split", "validation")  # fmt: skip
    assert "on validation" in shown.stdout and "linear (first)" in shown.stdout
    assert "space" not in shown.stdout.split("spacelite report")[0].replace("spacelite", "")
    for wrong, said in (
        (["space"], "put --compare before the first"),
        (["--where", "lr"], "--where lr: give a setting and its value"),
        (["--where", "lr=7"], "--where lr=7: no run has this setting"),
        (["--split", "dev"], "--split dev: choose from train, validation"),
        (["--compare", "space", "nope"], "--compare nope: no system has this name"),
    ):
        failed = invoke("report", "--cache-dir", swept, *wrong)
        assert failed.exit_code == 1
        assert said in failed.stderr


@pytest.mark.parametrize("width", [80, 120])
def test_no_figure_is_cut_on_a_narrow_terminal(swept, width):
    shown = invoke("report", "--cache-dir", swept, "--dataset", "imdb", env={"COLUMNS": str(width)})
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= width and not any("…" in line for line in lines)
    assert any(line.split()[-1:] == ["Seeds"] for line in lines)
