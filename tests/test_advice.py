"""What is said where heads were not trained long enough."""

import dataclasses
import logging
import shutil

import numpy as np
import pytest
from conftest import in_memory, invoke
from spacelite_cli.options import option

import spacelite
from spacelite import heads
from spacelite.cache.store import Cache
from spacelite.inference.explanation import concept_points
from spacelite.reports.analysis.comparisons import EpochCurve
from spacelite.reports.analysis.content import start_note, training_notes
from spacelite.reports.analysis.groups import grouped
from spacelite.runs import store
from spacelite.training import loss_terms, plan
from spacelite.training.config import TrainingConfig

PAPER = TrainingConfig()


def falling(first, share, epochs=15):
    """A cross-entropy that falls by a share of itself over the last fifth of the epochs."""
    values = np.full(epochs, float(first))
    values[-plan.last_epochs(epochs) :] = first * (1 - share)
    return values.tolist()


def said(examples, training, *heads):
    found = plan.after_training(examples, training, heads)
    return None if found is None else str(found)


def test_few_updates():
    level = (2e-4, falling(1, 0))
    assert said(100, PAPER, level) == (
        "the heads had only 15 updates (15 epochs of 1 batch), too few for most data: train with "
        "epochs='auto', batch_size='auto' and learning_rate='auto', which choose by the number of "
        "training examples"
    )
    assert "180 updates (15 epochs of 12 batches)" in said(3000, PAPER, level)
    assert said(20 * 256 - 1, PAPER, level) is None  # 300 updates
    assert said(100, PAPER) is None  # logreg alone


@pytest.mark.parametrize("examples", [1, 16, 17, 60, 100, 1000, 10**5])
def test_what_auto_chooses_is_never_too_few(examples):
    size = plan.good_batch_size(examples)
    training = TrainingConfig(epochs=plan.good_epochs(examples, size), batch_size=size)
    assert plan.few_updates(examples, training) is None


def test_the_best_head_still_improves():
    good, better = (2e-4, falling(0.9, 0.005)), (2e-4, falling(0.8, 0.02))
    assert said(10**4, PAPER, good) is None
    assert said(10**4, PAPER, good, better) == (
        "the best head still improves: over the last 3 of 15 epochs, its cross-entropy on "
        "validation fell by 2.0%. Train with epochs='auto', batch_size='auto' and "
        "learning_rate='auto', or for more epochs, such as epochs=30"
    )
    worse = (2e-4, falling(1, 0.02))
    assert said(10**4, PAPER, good, worse) is None, "what counts is the best head"
    rising = (2e-4, falling(0.7, -0.2))
    assert said(10**4, PAPER, rising) is None
    # Where auto would change nothing, it is not advised.
    assert said(10**4, PAPER, (1e-3, better[1])).endswith("2.0%. Train for more epochs, such as "
                                                          "epochs=30")  # fmt: skip
    stopped = (2e-4, better[1][3:])
    assert said(10**4, PAPER, stopped) is None, "early stopping has ended it"
    assert said(10**6, TrainingConfig(epochs=1), (2e-4, [0.5])) is None
    assert said(10**4, PAPER, (2e-4, [None] * 15)) is None


def test_the_commands_name_options():
    found = plan.after_training(10**4, PAPER, [(2e-4, falling(0.8, 0.02))])
    words = found.for_options(option)
    assert words.endswith(
        "Train with --epochs auto, --batch-size auto and --lr auto, or for more epochs, such as "
        "--epochs 30"
    )


def test_train_and_report_say_it(cache_path, tmp_path):
    there = ["--cache-dir", str(tmp_path)]
    train = ["train", "--cache", str(cache_path), *there]
    heads = [*train, "--head", "linear,logreg"]
    done = invoke(*heads)
    assert done.exit_code == 0 and "had only 15 updates (15 epochs of 1 batch)" in done.stderr
    assert "train with --epochs auto, --batch-size auto and --lr auto" in done.stderr
    report = ["report", "--no-examples", "--format", "text", *there]
    shown = " ".join(invoke(*report).stdout.split())
    assert (
        "The heads had only 15 updates in training, too few for most data: train again with "
        "epochs, batch size and learning rate set to auto." in shown
    ), shown
    enough = ["--epochs", "auto", "--batch-size", "auto", "--lr", "auto", "--pooling", "mean"]
    done = invoke(*heads, *enough)
    assert done.exit_code == 0 and "updates" not in done.stderr, done.stderr
    shown = " ".join(invoke(*report).stdout.split())
    assert "1 of the 4 systems had only 15 updates in training" in shown, shown
    # A head on top of others starts at their optimum: it needs few.
    on_top = ["--head", "additive", "--blocks", "ngrams+space", "--epochs", "2"]
    done = invoke(*train, *on_top)
    assert done.exit_code == 0 and "updates" not in done.stderr, done.stderr
    shown = " ".join(invoke(*report).stdout.split())
    assert "1 of the 5 systems had only 15 updates in training" in shown, shown


@pytest.fixture(scope="module")
def long_trained(cache_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    return spacelite.train(
        spacelite.find_cache(cache_path, folder), head="linear", epochs=150, batch_size=16,
        cache_dir=folder, progress=False,
    )  # fmt: skip


def test_the_report_says_that_the_best_system_still_improves(long_trained):
    (group,) = grouped([run.run for run in long_trained])
    (row,) = group.section.rows

    def notes(fall):
        splits = {"validation": {"ce": (falling(0.8, fall, 150), None)}}
        return training_notes(group, [EpochCurve(row.system, list(range(1, 151)), splits)])

    assert notes(0.005) == []
    (note,) = notes(0.05)
    assert note.startswith(f"{row.system} still improves: over the last 30 of 150 epochs, its ")
    assert "fell by 5.0%" in note and "--" not in note
    assert "learning rate set to auto, or for more epochs, such as 300." in note
    # Where auto would change nothing, it is not advised.
    (system,) = group.systems
    record = dataclasses.replace(
        system.record, head=dataclasses.replace(system.record.head, learning_rate=1e-3)
    )
    run = dataclasses.replace(system.runs[0], record=record)
    group = dataclasses.replace(group, systems=[dataclasses.replace(system, runs=[run])])
    (note,) = notes(0.05)
    assert note.endswith("More epochs may give better figures: train again for more epochs, such "
                         "as 300.")  # fmt: skip
    assert training_notes(group, []) == []


def test_python_logs_it_and_only_then(cache_path, tmp_path, caplog):
    cache = spacelite.find_cache(cache_path, tmp_path)
    with caplog.at_level(logging.WARNING):
        spacelite.train(cache, head="linear", epochs=2, cache_dir=tmp_path, progress=False)
        assert "train with epochs='auto', batch_size='auto'" in caplog.text
        caplog.clear()
        spacelite.train(cache, head="logreg", cache_dir=tmp_path, progress=False)
        assert not caplog.records


def test_the_table_of_a_training_shows_ce_beside_loss_within_80_columns(cache_path, tmp_path):
    there = ["--cache", str(cache_path), "--cache-dir", str(tmp_path), "--epochs", "1"]
    heads = ["--head", "space,linear", "--inter", "0.2", "--intra", "0.001"]
    options = {"env": {"COLUMNS": "80"}}
    shown = invoke("train", *there, *heads, **options).stdout
    (head,) = [line for line in shown.splitlines() if line.startswith(" System")]
    assert head.split() == ["System", "Run", "Loss", "CE", "Acc.", "F1"]
    table = shown[: shown.index("Always predicting")].splitlines()
    assert max(map(len, table)) <= 80
    assert any(line.startswith(" linear (first) ") for line in table), "the name is on one line"


def test_cross_validation_and_learning_curves_say_it(cache_path, tmp_path):
    there = ["--cache", str(cache_path), "--cache-dir", str(tmp_path), "--head", "linear"]
    folds = [*there, "--epochs", "3", "--folds", "3", "--no-baselines"]
    done = invoke("cv", *folds)
    assert done.exit_code == 0 and (
        "with 40 training examples, the heads had only 3 updates (3 epochs of 1 batch), too few "
        "for most data: train with --epochs auto, --batch-size auto and --lr auto" in done.stderr
    ), done.stderr
    sizes = [*there, "--sizes", "20,40", "--seeds", "1", "--no-baselines"]
    done = invoke("curve", *sizes, "--epochs", "3")
    assert done.exit_code == 0 and done.stderr.count(" updates ") == 1
    assert "with 40 training examples, the heads had only " in done.stderr
    done = invoke("curve", *sizes)  # epochs, batch size and rate are auto
    assert done.exit_code == 0 and "updates" not in done.stderr
    on_top = ["--head", "additive", "--blocks", "ngrams+space", "--epochs", "2", "--folds", "3"]
    done = invoke("cv", *there[:4], *on_top, "--no-baselines")
    assert done.exit_code == 0 and "updates" not in done.stderr


def test_a_token_that_hardly_varies_is_named(bert, reviews, tmp_path, caplog):
    """In the embedding layer the first token is always [CLS]."""
    caplog.set_level(logging.WARNING, "spacelite")

    def warned(layer, pooling):
        caplog.clear()
        cache = spacelite.embed(
            backbone=str(bert), dataset=str(reviews), layer=layer, cache_dir=tmp_path, device="cpu",
            dtype="float32", progress=False,
        )  # fmt: skip
        spacelite.train(cache, head="linear", pooling=pooling, epochs=1, baselines=False,
                        cache_dir=tmp_path, progress=False)  # fmt: skip
        return [line for line in caplog.messages if "nearly the same" in line]

    (said,) = warned(0, ["first", "mean", "last"])
    assert said.startswith(
        "pooling=first reads a token that is nearly the same for all texts at layer 0: its "
        "standard deviation over 60 training examples is "
    )
    assert said.endswith("Train with pooling=mean, or on a later layer")
    assert warned(-1, "first") == []


def test_epochs_that_did_not_help_are_said_once_and_their_spaces_not_drawn(
    cache_path, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "spacelite")
    shutil.copytree(cache_path.parent, tmp_path / "embeddings")  # that one is not written to
    (run,) = spacelite.train(
        cache_path.stem, cache_dir=tmp_path, head="additive", blocks="ngrams+space",
        learning_rate=50, batch_size=16, epochs=4, patience=2, monitor="ce", baselines=False,
        progress=False,
    )  # fmt: skip
    said = [line for line in caplog.messages if "did not help" in line]
    assert run.record.best_epoch == 0 and said == [
        "additive (ngrams+space): training in epochs did not help: on validation no epoch was "
        "better than additive (ngrams) alone, which was kept."
    ]
    (part,) = spacelite.report(cache_dir=tmp_path, examples=False, progress=False).findings.parts
    assert said[0] in part.section.notes
    trained = dataclasses.replace(run.record, best_epoch=2)
    hidden = np.ones((5, 16))
    assert concept_points(run.run, hidden) == []
    assert len(concept_points(dataclasses.replace(run.run, record=trained), hidden)) == 2
    assert start_note("a", [trained]) == []
    assert start_note("a", [run.record, trained, trained]) == [
        said[0].replace("additive (ngrams+space)", "a").replace("help", "help in 1 of 3 runs")
    ]


def terms_of(run, path):
    """CE, L_inter and L_intra of a space head on validation, as they are written down, in float64
    numpy."""
    with Cache(path) as cache:
        data = in_memory(cache.splits["validation"])
    hidden = data.rows.astype(np.float64)
    of = {name: np.asarray(value, np.float64) for name, value in run.run.parameters.items()}
    ce, matching, mismatching, inverses = [], [], [], []
    for first, last, label in zip(data.offsets, data.offsets[1:], data.labels, strict=False):
        s = np.tanh(np.einsum("td,cld->tcl", hidden[first:last], of["concept_spaces"]))
        logits = of["classifier.weight"] @ s.mean(axis=0).ravel() + of["classifier.bias"]
        ce.append(np.log(np.exp(logits).sum()) - logits[label])
        for c in range(len(logits)):
            (matching if c == label else mismatching).extend(s[:, c].ravel())
        inverses.append((1 / (s.var(axis=0, ddof=1) + 1e-9)).sum())
    inter = np.mean(1 - np.array(matching)) / 2 + np.mean(1 + np.array(mismatching)) / 2
    return np.mean(ce), inter, np.mean(inverses)


def weighted_lines(caplog, cache, **settings):
    """The runs of a training, and its lines on weighted terms."""
    caplog.clear()
    done = spacelite.train(cache, head="space", progress=False, epochs=3, **settings)
    return done, [line for line in caplog.messages if "weighted" in line]


SAID = (
    "the weighted {} of {} times {} cross-entropy on validation at the end of training{}: train "
    "with {}, with which {} would be about a tenth of CE"
)


def one_digit(value):
    return f"{float(f'{value:.1g}'):g}"


def times_of(value):
    return f"{value:.3g}" if value < 10 else f"{value:,.0f}"


def test_weighted_terms_above_the_cross_entropy_are_said(cache_path, tmp_path, caplog):
    caplog.set_level(logging.INFO, "spacelite")
    cache = spacelite.find_cache(cache_path, tmp_path)

    def trained(**settings):
        (run,), lines = weighted_lines(caplog, cache, cache_dir=tmp_path, **settings)
        return *terms_of(run, cache_path), lines

    ce, _, l_intra, lines = trained(intra=0.5)
    who = f"space + intra 0.5 is {times_of(0.5 * l_intra / ce)}"
    weight = f"intra={one_digit(0.1 * ce / l_intra)}"
    assert lines == [SAID.format("L_intra", who, "its", "", weight, "it")]

    ce, l_inter, _, lines = trained(inter=8)
    who = f"space + inter 8 is {times_of(8 * l_inter / ce)}"
    weight = f"inter={one_digit(0.1 * ce / l_inter)}"
    assert lines == [SAID.format("L_inter", who, "its", "", weight, "it")]

    # With both, the sum of the terms is known, and that L_inter is at most 2.
    ce, l_inter, l_intra, lines = trained(inter=0.2, intra=0.5)
    both = 0.2 * l_inter + 0.5 * l_intra
    who = f"space + inter 0.2 + intra 0.5 is at least {times_of((both - 0.4) / ce)}"
    weight = f"intra={one_digit(0.5 * 0.1 * ce / both)}"
    assert lines == [SAID.format("L_intra", who, "its", "", weight, "it")]
    assert both - 0.4 < 0.5 * l_intra
    ce, l_inter, l_intra, lines = trained(inter=8, intra=1e-4)
    both = 8 * l_inter + 1e-4 * l_intra
    who = f"space + inter 8 + intra 0.0001 are together {times_of(both / ce)}"
    small = 0.1 * ce / both
    weights = f"inter={one_digit(8 * small)} and intra={one_digit(1e-4 * small)}"
    note = " (only their sum is recorded)"
    assert lines == [SAID.format("L_inter and L_intra", who, "its", note, weights, "both together")]


def test_weighted_terms_below_the_cross_entropy_are_not(cache_path, tmp_path, caplog):
    caplog.set_level(logging.INFO, "spacelite")
    cache = spacelite.find_cache(cache_path, tmp_path)
    settings = {"inter": [0, 0.2], "intra": 1e-7}
    done, lines = weighted_lines(caplog, cache, cache_dir=tmp_path, **settings)
    assert len(done) == 2 and lines == []
    for run in done:
        ce, l_inter, l_intra = terms_of(run, cache_path)
        assert run.settings["inter"] * l_inter + 1e-7 * l_intra < ce
    # With class weights, the loss and CE also differ in these.
    settings = {"intra": 0.5, "class_weights": "balanced"}
    assert weighted_lines(caplog, cache, cache_dir=tmp_path, **settings)[1] == []


def test_one_line_for_many_heads_and_one_in_the_report(cache_path, tmp_path):
    train = ["train", "--cache", str(cache_path), "--cache-dir", str(tmp_path), "--epochs", "3"]
    done = invoke(*train, "--head", "space,linear", "--intra", "0,0.5,2", "--seeds", "2")
    assert done.exit_code == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "weighted" in line]
    assert line.startswith("the weighted L_intra of 4 heads is ") and " to " in line
    assert "times their cross-entropy on validation at the end of training: train with " in line
    weight = line.partition("--intra ")[2].partition(",")[0]
    assert line.endswith(f"--intra {weight}, with which it would be about a tenth of CE")
    assert 0 < float(weight) < 0.5
    report = spacelite.report(cache_dir=tmp_path, examples=False, progress=False)
    (part,) = report.findings.parts
    (note,) = [note for note in part.section.notes if "weighted" in note]
    assert note.startswith("The weighted L_intra of 2 systems is ")
    assert f"train with intra {weight}, with which it would be about a tenth of CE." in note
    # A damaged history is said once, although curves and notes read it.
    run = next(run for run in store.load_all(tmp_path) if run.record.settings.get("intra") == 2)
    (run.folder / "history.json").write_text("[")
    done = invoke("report", "--no-examples", *train[3:5], "--format", "text")
    assert done.exit_code == 0 and done.stderr.count("history.json") == 1, done.stderr


def test_of_a_history_the_kept_epoch_counts():
    config = heads.config("space", intra=0.01)

    def history(*losses):
        return [
            {"epoch": epoch, "validation": {"loss": loss, "ce": 0.5}}
            for epoch, loss in enumerate(losses, 1)
        ]

    def times(*seeds):
        found = loss_terms.excess(config, PAPER, seeds)
        return None if found is None else (found.times, found.is_least, found.weights)

    assert times((history(9, 1.5, 0.9), None)) is None
    assert times((history(9, 1.5, 0.9), 2)) == (2, False, {"intra": pytest.approx(0.0005)})
    assert times((history(9, 1.5), None), (history(9, 2.5), None))[0] == 3  # a mean over seeds
    assert times(([], None)) is None
    older = [{"epoch": 1, "train": {"loss": 9.0}, "validation": {"loss": 9.0, "ce": None}}]
    assert times((older, None)) is None and times(([{"epoch": 1, "train": {}}], None)) is None
