"""What a report says of a group, against the runs' files and computations of its own."""

import dataclasses
import json
import shutil
import statistics
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import embed, invoke, refusal, train_and_save
from scipy import stats
from sklearn import metrics as sk
from test_significance import crossed

from spacelite import files, heads
from spacelite.backbones.tokenizer import Words
from spacelite.cache.store import Cache
from spacelite.cache.writing import Writer
from spacelite.document import Plot, Table
from spacelite.inference.explanation import cached_example, explain_example
from spacelite.metrics.significance import Difference
from spacelite.reports.analysis import comparisons, content, examples, groups
from spacelite.reports.analysis.comparisons import Comparison, EpochCurve
from spacelite.reports.analysis.groups import MeanStd
from spacelite.reports.document import wording
from spacelite.reports.document.sections import report_blocks
from spacelite.reports.render import plots
from spacelite.reports.report import Report
from spacelite.runs import store as runs
from spacelite.tasks import MULTI_LABEL
from spacelite.training.config import TrainingConfig


@pytest.fixture(scope="module")
def imdb(findings):
    return next(part for part in findings.parts if part.section.title.startswith("imdb, "))


@pytest.fixture(scope="module")
def own(report_dir):
    """The runs on imdb by system and seed: records, histories, test predictions."""
    found = {}
    for folder in (report_dir / "runs").iterdir():
        if not (folder / "run.json").is_file():
            continue
        record = json.loads((folder / "run.json").read_text())
        if record["spec"]["dataset"] == "imdb":
            name, inter = record["system"], record["settings"]["inter"]
            if record["head"] == "space":
                weights = f"inter {inter:g} + intra 0.001" if inter else "intra 0.001"
                assert name == f"space + {weights}"
            with np.load(folder / "predictions.npz") as arrays:
                given = arrays["test/label"], arrays["test/logits"]
            history = json.loads((folder / "history.json").read_text())
            found[name, record["settings"]["seed"]] = (record, history, *given)
    return found


def test_all_systems_are_there(imdb, own):
    names = {row.system for row in imdb.section.rows}
    assert names == {name for name, _ in own} and len(names) == 4
    assert {one.name for one in imdb.analysis.systems} == names
    assert imdb.analysis.incomplete == [] and len(imdb.analysis.pairs) == 6


def test_the_best_system_is_compared_with_every_other(imdb, own):
    best = max(imdb.section.rows, key=lambda row: row.figures["accuracy"].mean).system
    made = imdb.analysis.comparisons
    assert {one.second for one in made} == {name for name, _ in own} - {best}
    seeds = {name: sorted(seed for other, seed in own if other == name) for name, _ in own}
    right, scores, bases = {}, {}, {}
    for name, numbers in seeds.items():
        right[name] = np.array([own[name, k][3].argmax(1) == own[name, k][2] for k in numbers])
        scores[name] = [
            sk.f1_score(own[name, k][2], own[name, k][3].argmax(1), average="macro")
            for k in numbers
        ]
    p_values = {}
    for pair in imdb.analysis.pairs:
        first, second = right[pair.first] * 1.0, right[pair.second] * 1.0
        names = frozenset((pair.first, pair.second))
        fixed = [name.startswith("logreg") for name in (pair.first, pair.second)]
        several = all(len(seeds[n]) > 1 or n.startswith("logreg") for n in names)
        bases[names] = "systems" if several and not all(fixed) else "heads"
        if bases[names] == "systems":
            value = first.mean() - second.mean()
            paired = seeds[pair.first] == seeds[pair.second]
            tables = [first - second] if paired or any(fixed) else [first, second]
            count = min(len(seeds[n]) for n in names if not n.startswith("logreg"))
            p_values[names], _ = crossed(tables, value, count, first.shape[1])
        else:
            counts = [int((a > b).sum()) for a, b in ((first[0], second[0]), (second[0], first[0]))]
            total = sum(counts)
            p_values[names] = stats.binomtest(counts[0], total).pvalue if total else 1.0
    assert "systems" in bases.values() and imdb.analysis.tests == len(p_values) == 6
    ordered = sorted(p_values, key=p_values.get)
    running, corrected = 0.0, {}
    for rank, names in enumerate(ordered):
        running = max(running, min(1.0, (len(ordered) - rank) * p_values[names]))
        corrected[names] = running
    for one in made:
        names = frozenset((best, one.second))
        assert one.first == best and one.basis == bases[names]
        lowest = tuple(
            None if n.startswith("logreg") else min(seeds[n]) for n in (best, one.second)
        )
        assert one.heads == (lowest if one.basis == "heads" else (None, None))
        over = slice(None) if one.basis == "systems" else slice(0, 1)
        assert one.headline.value == pytest.approx(
            right[best][over].mean() - right[one.second][over].mean()
        )
        f1 = [statistics.mean(scores[name][over]) for name in (best, one.second)]
        assert one.other.value == pytest.approx(f1[0] - f1[1])
        (same,) = [p for p in imdb.analysis.pairs if {p.first, p.second} == names]
        assert same.p == pytest.approx(p_values[names], rel=1e-6)
        assert one.headline in (same.headline, same.headline.reversed())
        assert one.corrected == pytest.approx(corrected[names], rel=1e-6)


def test_all_pairs_say_of_which_seeds_single_heads_are(findings, imdb):
    tables = [block for block in report_blocks(findings)
              if isinstance(block, Table) and block.kind == "pairs"]  # fmt: skip
    rows = [[cell.text for cell in line.cells[:2]] for line in tables[0].lines]
    assert "heads" in {pair.basis for pair in imdb.analysis.pairs}
    for row, pair in zip(rows, imdb.analysis.pairs, strict=True):
        of_seed = [name if name.startswith("logreg") else f"{name} (seed 0)"
                   for name in (pair.first, pair.second)]  # fmt: skip
        assert row == (of_seed if pair.basis == "heads" else [pair.first, pair.second])


def test_a_head_without_a_seed_has_none_in_tables_and_figures(findings, imdb):
    tables = [block for block in report_blocks(findings)
              if isinstance(block, Table) and block.caption == imdb.section.title]  # fmt: skip
    shown = {line.cells[0].text: line.cells[-1].text for line in tables[0].lines}
    assert shown["logreg (mean)"] == "–" and {*shown.values()} == {"–", "1", "2"}
    plot = next(block for block in report_blocks(findings)
                if isinstance(block, Plot) and block.kind == "reliability")  # fmt: skip
    for panel in plots.panels(plot)[1]:
        assert ("(seed 0)" in panel.title) != panel.title.startswith("logreg"), panel.title


def test_confusion_and_figures_of_each_class(imdb, own):
    for one in imdb.analysis.systems:
        assert one.run.startswith("tiny-bert--imdb--") and one.run in {
            record["id"] for (name, seed), (record, *_) in own.items()
            if (name, seed) == (one.name, one.seed or 0)
        }  # fmt: skip
        assert (one.seed is None) == one.name.startswith("logreg")
        seeds = sorted(seed for name, seed in own if name == one.name)
        labels, logits = own[one.name, seeds[0]][2:]
        assert one.confusion == sk.confusion_matrix(labels, logits.argmax(1)).tolist()
        every = [
            sk.precision_recall_fscore_support(
                own[one.name, seed][2], own[one.name, seed][3].argmax(1), zero_division=0
            )
            for seed in seeds
        ]
        for c, of_class in enumerate(one.classes):
            assert of_class.support == every[0][3][c]
            for which, figure in enumerate((of_class.precision, of_class.recall, of_class.f1)):
                values = [figures[which][c] for figures in every]
                assert figure.mean == pytest.approx(statistics.mean(values))
                if len(values) > 1:
                    assert figure.std == pytest.approx(statistics.stdev(values))


def test_calibration_is_counted_bin_by_bin(imdb, own):
    for one in imdb.analysis.systems:
        errors = []
        for seed in sorted(seed for name, seed in own if name == one.name):
            labels, logits = own[one.name, seed][2:]
            powers = np.exp(logits.astype(np.float64))
            chances = (powers / powers.sum(1, keepdims=True)).max(1)
            right = logits.argmax(1) == labels
            bins = defaultdict(list)
            for chance, hit in zip(chances, right, strict=True):
                bins[int(np.ceil(chance * 15))].append((chance, hit))
            rows = [(*np.mean(bins[b], axis=0), len(bins[b])) for b in sorted(bins)]
            errors.append(sum(abs(acc - conf) * n for conf, acc, n in rows) / len(labels))
            if len(errors) == 1:  # the diagram is of the lowest seed
                of = one.calibration
                found = list(zip(of.confidence, of.accuracy, of.count, strict=True))
                assert np.array(found) == pytest.approx(np.array(rows))
        assert one.calibration.error.mean == pytest.approx(statistics.mean(errors))


def test_curves_are_means_and_deviations_of_the_histories(imdb, own):
    assert [curve.name for curve in imdb.analysis.curves] == [
        row.system for row in imdb.section.rows if not row.system.startswith("logreg")
    ]
    for curve in imdb.analysis.curves:
        histories = [history for (name, _), (_, history, *_) in own.items() if name == curve.name]
        assert curve.epochs == [1, 2, 3, 4, 5]
        for split in ("train", "validation"):
            for metric in ("loss", "accuracy", "f1_macro", "recall", "precision"):
                means, stds = curve.splits[split][metric]
                for e in range(5):
                    values = [history[e][split][metric] for history in histories]
                    assert means[e] == pytest.approx(statistics.mean(values))
                    if len(values) > 1:
                        assert stds[e] == pytest.approx(statistics.stdev(values))
                    else:
                        assert stds is None


def test_the_last_epoch_stands_in_a_table_too(findings, own):
    table = next(block for block in report_blocks(findings)
                 if isinstance(block, Table) and block.kind == "curves")  # fmt: skip
    rows = {line.cells[0].text: line.cells[1:] for line in table.lines}
    assert table.columns == ["System", "Loss", "Accuracy", "Macro F1", "Precision", "Recall"]
    keys = ("loss", "accuracy", "f1_macro", "precision", "recall")
    for (name, _), (record, _, *_) in own.items():
        if record["head"] == "logreg":
            continue
        every = [history[-1] for (other, _), (_, history, *_) in own.items() if other == name]
        for split in ("train", "validation"):
            for cell, key in zip(rows[f"{name}, {split}"], keys, strict=True):
                values = [one[split][key] for one in every]
                assert cell.text == f"{statistics.mean(values):.4f}"
                std = f"± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
                assert cell.std == std


def test_a_head_that_ended_early_has_no_say_in_later_epochs(report_dir):
    (group,) = [g for g in groups.grouped(runs.load_all(report_dir))
                if g.section.title.startswith("imdb, ")]  # fmt: skip
    system = next(one for _, one in group.named if len(one.runs) == 2)

    class Shorter(runs.Run):
        def history(self):
            return super().history()[:2]

    first, second = system.runs
    cut = groups.SeedRuns([first, Shorter(second.folder, second.record)], None)
    (curve,) = comparisons.epoch_curves({"x": cut})
    means, stds = curve.splits["train"]["loss"]
    assert means[4] == first.history()[4]["train"]["loss"] and stds[4] == 0 != stds[1]


def test_cost_is_that_of_the_cache_and_of_the_passes(imdb, report_dir, own):
    (path,) = (report_dir / "embeddings").glob("*--imdb--*.h5")
    cost = imdb.analysis.cost
    beside = path.parent.glob(f"{path.stem}.*")  # the cache, and the files beside it
    assert cost.cache_bytes == sum(of.stat().st_size for of in beside if of.suffix != ".lock")
    seconds = json.loads(path.with_suffix(".seconds.json").read_text())["seconds"]
    assert cost.embedding_seconds == seconds > 0
    for one in cost.training:
        records = [record for (name, _), (record, *_) in own.items() if name == one.name]
        assert one.seconds.mean == pytest.approx(statistics.mean(r["seconds"] for r in records))
        assert one.heads_in_pass == ((1, 1) if one.name.startswith("logreg") else (5, 5))


def test_a_transfer_has_its_own_comparisons_but_no_curves(findings):
    part = next(part for part in findings.parts if "→" in part.section.title)
    assert len(part.analysis.systems) == 4 and part.analysis.comparisons
    assert part.analysis.curves == [] and part.analysis.cost is None
    assert part.examples is not None and part.examples.words


def test_words_are_of_the_best_space_head(imdb, own):
    means = defaultdict(list)
    for (name, _), (record, *_) in own.items():
        if record["head"] == "space":
            means[name].append(record["metrics"]["test"]["accuracy"])
    best = max(statistics.mean(values) for values in means.values())
    assert statistics.mean(means[imdb.examples.name]) == best
    assert imdb.examples.run == own[imdb.examples.name, 0][0]["id"]


def test_a_better_system_whose_words_are_not_shown_is_named(imdb, report_dir, monkeypatch):
    every = groups.grouped(runs.load_all(report_dir))
    group = next(group for group in every if group.section.title == imdb.section.title)

    def better(name):
        rows = [
            dataclasses.replace(
                row, figures={row.headline: MeanStd(float(row.system.startswith(name)))}
            )
            for row in group.section.rows
        ]
        section = dataclasses.replace(group.section, rows=rows)
        return examples._chosen(dataclasses.replace(group, section=section))[-1]

    assert better("space") == ""
    assert better("linear").endswith("is not shown: what it predicts is not a sum over words.")
    assert better("logreg").startswith("The best system, logreg")
    assert better("logreg").endswith("is not shown: space heads come first.")
    monkeypatch.setattr(type(heads.config("logreg")), "reads_layers", True)
    assert "the cache has only the means of the layers that it reads" in better("logreg")


def test_words_are_the_sums_of_every_texts_explanation(imdb, report_dir, bert):
    """Text by text, in float64, against the sums over the whole split."""
    run = runs.find(report_dir, imdb.examples.run)
    total, count = defaultdict(lambda: np.zeros(2)), defaultdict(int)
    (path,) = (report_dir / "embeddings").glob("*--imdb--*.h5")
    with Cache(path) as cache:
        for number in range(len(cache.splits["test"])):
            explained = explain_example(run, cache, f"test:{number}", backbone=str(bert))
            for word in explained.words:
                if not word.special:
                    shares = np.array(word.contributions)
                    total[word.text] += shares - shares.mean()
                    count[word.text] += 1
    examples = len(np.load(run.folder / "predictions.npz")["test/label"])
    for c, (label, listed) in enumerate(imdb.examples.words.items()):
        assert label == ("negative", "positive")[c]
        best = sorted(total, key=lambda word: -total[word][c])
        best = [word for word in best if total[word][c] > 0][:12]
        assert [one.word for one in listed] == best
        for one in listed:
            assert one.count == count[one.word]
            assert one.mean == pytest.approx(total[one.word][c] / examples, rel=1e-3, abs=1e-7)
            assert one.each == pytest.approx(total[one.word][c] / one.count, rel=1e-3, abs=1e-7)


def test_mistakes_are_the_most_confident_wrong_examples(imdb, own, report_dir, bert):
    (path,) = (report_dir / "embeddings").glob("*--imdb--*.h5")
    labels, logits = own[imdb.examples.name, 0][2:]
    powers = np.exp(logits.astype(np.float64))
    chances = (powers / powers.sum(1, keepdims=True)).max(1)
    wrong = np.flatnonzero(logits.argmax(1) != labels)
    expected = wrong[np.argsort(-chances[wrong], kind="stable")][:10]
    made = imdb.examples.mistakes
    assert [one.example for one in made] == [f"test:{number}" for number in expected]
    for one, number in zip(made, expected, strict=True):
        names = ("negative", "positive")
        assert one.label == names[labels[number]]
        assert one.predicted == names[logits[number].argmax()]
        assert one.confidence == pytest.approx(chances[number])
        run = runs.find(report_dir, imdb.examples.run)
        with Cache(path) as cache:
            found = cached_example(cache, one.example).rows
        spaces, weight = (
            run.parameters[name].astype(np.float64)
            for name in ("concept_spaces", "classifier.weight")
        )
        coordinates = np.tanh(found.rows.astype(np.float64) @ spaces.reshape(-1, 16).T)
        shares = coordinates @ weight.T / len(coordinates)
        of_words = Words(bert).of(found.token_ids.tolist())
        guess = logits[number].argmax()
        assert one.words == [text for text, _, _ in of_words]
        assert one.shares == pytest.approx([
            (shares[tokens, guess] - shares[tokens].mean(axis=1)).sum()
            for _, _, tokens in of_words
        ])  # fmt: skip


def test_identical_systems_are_never_called_different(report_dir):
    (group,) = [g for g in groups.grouped(runs.load_all(report_dir))
                if g.section.title.startswith("imdb, ")]  # fmt: skip
    one = group.section.rows[0]
    twin = dataclasses.replace(one, system="twin")
    section = dataclasses.replace(group.section, rows=[one, twin])
    both = groups.Group(section, [group.systems[0], group.systems[0]])
    (made,) = comparisons.analyse(report_dir, both).comparisons
    assert made.identical and made.corrected == 1
    assert made.differences == dict.fromkeys(("accuracy", "f1_macro"), Difference(0, (0, 0)))
    assert wording.verdict([made], 1).endswith("predict the same for every example.")


def comparison(**changes):
    differences = {
        "accuracy": changes.pop("accuracy", Difference(0.013, (0.004, 0.022))),
        "f1_macro": changes.pop("f1_macro", Difference(0.02, (-0.01, 0.05))),
    }
    made = Comparison(
        first="space", second="linear", differences=differences, identical=False, p=0.004,
        corrected=0.004, basis="systems", seeds=3,
    )  # fmt: skip
    if "corrected" in changes:
        changes = {"p": changes["corrected"], **changes}
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "space beats linear by 1.3 points of accuracy (95% interval 0.4 to 2.2; p = 0.004), "
             "2.0 points of macro F1 (95% interval −1.0 to 5.0)."),
        ({"basis": "fits", "seeds": 1}, "space beats linear by 1.3 points of accuracy"),
        ({"corrected": 0.0001}, "p < 0.001"),
        ({"corrected": 0.0497}, "space beats linear by 1.3 points of accuracy (95% interval 0.4 to "
                                "2.2; p = 0.0497)"),
        ({"corrected": 0.05000012},
         "space is ahead of linear by 1.3 points of accuracy (95% interval 0.4 to 2.2; p = "
         "0.0500001), 2.0 points of macro F1 (95% interval −1.0 to 5.0), not significant with 3 "
         "seeds."),
        ({"corrected": 0.0503, "basis": "fits", "seeds": 1}, "p = 0.0503), "),
        ({"corrected": 1.0}, "; p = 1)"),
        ({"corrected": 1.0, "accuracy": Difference(0.0, (-0.01, 0.01))},
         "space and linear have the same accuracy; space is ahead by 2.0 points of macro F1"),
        ({"corrected": 1.0, "accuracy": Difference(0.0, (-0.01, 0.01)),
          "f1_macro": Difference(-0.02, (-0.05, 0.01))},
         "; linear is ahead by 2.0 points of macro F1 (95% interval −1.0 to 5.0)."),
        ({"accuracy": Difference(-0.013, (-0.022, -0.004))},
         "linear beats space by 1.3 points of accuracy (95% interval 0.4 to 2.2; p = 0.004), but "
         "is behind by 2.0 points of macro F1 (95% interval −1.0 to 5.0)."),
        ({"f1_macro": Difference(-0.0004, (-0.01, 0.01))}, "), 0.0 points of macro F1 (95%"),
        ({"basis": "heads", "seeds": 1},
         "On these examples the head of space is better than the head of linear by 1.3 points"),
        ({"basis": "heads", "seeds": 1, "heads": (0, 7)},
         "On these examples the head of space (seed 0) is better than the head of linear (seed 7)"),
        ({"basis": "heads", "seeds": 1, "heads": (0, None), "accuracy": Difference(-0.01, (-1, 0))},
         "On these examples the head of linear is better than the head of space (seed 0) by 1.0"),
        ({"basis": "heads", "seeds": 1, "corrected": 0.2},
         "On these examples the head of space is ahead of the head of linear by 1.3 points"),
        ({"basis": "heads", "identical": True}, "The heads of space and linear predict the same"),
        ({"identical": True}, "space and linear predict the same for every example."),
    ],
)  # fmt: skip
def test_findings_are_said_in_words(changes, said):
    assert said in wording.verdict([comparison(**changes)], 1)


def test_what_only_the_correction_makes_insignificant_says_so():
    one = comparison(p=0.008, corrected=0.081, accuracy=Difference(0.187, (0.109, 0.268)))
    assert wording.verdict([one], 21) == (
        "space is ahead of linear by 18.7 points of accuracy (95% interval 10.9 to 26.8; p = "
        "0.008, corrected p = 0.081), 2.0 points of macro F1 (95% interval −1.0 to 5.0), not "
        "significant after correction for 21 pairs with 3 seeds."
    )
    said = wording.baseline_verdict(one, 21)
    assert said.endswith(", not significant after correction for 21 pairs with 3 seeds.")


def test_many_alike_systems_are_one_sentence():
    def analysis(*compared):
        return SimpleNamespace(against_baseline=None, tests=21, comparisons=compared)

    def behind(name, points, corrected, **changes):
        accuracy = Difference(points / 100, (0, 1))
        return comparison(second=name, accuracy=accuracy, p=0.2 * (corrected > 0.05),
                          corrected=corrected, **changes)  # fmt: skip

    alike = [behind("a", 1.2, 0.31), behind("b", 0.1, 1.0), behind("c", 0.7, 0.9)]
    beaten = [behind("d", 9, 0.0004), behind("e", 12, 0.0101), behind("f", 8, 0.001)]
    assert wording.verdicts(analysis(*beaten, *alike)) == [
        "space is ahead of 3 systems by 0.1 to 1.2 points of accuracy (corrected p at least "
        "0.310), 2.0 points of macro F1, not significant with 3 seeds: b; c; a.",
        "space beats 3 systems by 8.0 to 12.0 points of accuracy (corrected p at most 0.010), 2.0 "
        "points of macro F1: f; d; e.",
    ]
    assert len(wording.verdicts(analysis(*alike[:2], *beaten[:2]))) == 4
    same = [behind(name, 0, 1.0, identical=True) for name in "abc"]
    assert wording.verdicts(analysis(*same)) == [
        "space and 3 systems predict the same for every example: a; b; c."
    ]
    equal = [behind(name, 0.1, 1.0, f1_macro=Difference(-0.02, (-1, 1))) for name in "abc"]
    assert wording.verdicts(analysis(*equal)) == [
        "space is ahead of 3 systems by 0.1 points of accuracy (corrected p = 1), but is behind by "
        "2.0 points of macro F1, not significant with 3 seeds: a; b; c."
    ]
    of_heads = [behind(name, 3, 0.01, basis="heads", heads=(1, 0)) for name in "abc"]
    assert wording.verdicts(analysis(*of_heads)) == [
        "On these examples the head of space (seed 1) is better than those of 3 systems (seed 0) "
        "by 3.0 points of accuracy (corrected p at most 0.010), 2.0 points of macro F1: a; b; c.",
        "Where a system has a single seed, one head of each is compared, not the means of the "
        "table: other seeds may turn out differently; train more of them to compare the systems.",
    ]


def test_of_a_single_seed_each_nothing_is_said_to_beat():
    for corrected in (0.0001, 0.04, 0.5, 1.0):
        one = comparison(basis="heads", seeds=1, corrected=corrected)
        assert "beats" not in wording.verdict([one], 1)
        said = wording.baseline_verdict(one, 1).removeprefix("No head beats the best baseline")
        assert "beats" not in said


BEHIND = Difference(-0.013, (-0.022, -0.004))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "space beats the best baseline, linear, by 1.3 points of accuracy (95% interval 0.4 "
             "to 2.2; p = 0.004), 2.0 points of macro F1 (95% interval −1.0 to 5.0)."),
        ({"corrected": 0.06},
         "No head beats the best baseline, linear: the best of them, space, is ahead by 1.3 points "
         "of accuracy (95% interval 0.4 to 2.2; p = 0.060), 2.0 points of macro F1 (95% interval "
         "−1.0 to 5.0), not significant with 3 seeds."),
        ({"accuracy": BEHIND},
         "No head beats the best baseline, linear: it is significantly better than the best of "
         "them, space, by 1.3 points of accuracy (95% interval 0.4 to 2.2; p = 0.004), but is "
         "behind by 2.0 points of macro F1 (95% interval −1.0 to 5.0)."),
        ({"accuracy": BEHIND, "corrected": 0.3},
         "No head beats the best baseline, linear: it is ahead of the best of them, space, by 1.3"),
        ({"accuracy": Difference(0.0, (-0.01, 0.01)), "corrected": 1.0},
         "No head beats the best baseline, linear: the best of them, space, has the same accuracy "
         "and is ahead by 2.0 points of macro F1 (95% interval −1.0 to 5.0)."),
        ({"accuracy": Difference(0.0, (-0.01, 0.01)), "corrected": 1.0,
          "f1_macro": Difference(-0.02, (-0.05, 0.01))},
         "No head beats the best baseline, linear: the best of them, space, has the same accuracy "
         "and is behind by 2.0 points of macro F1 (95% interval −1.0 to 5.0)."),
        ({"identical": True},
         "No head beats the best baseline, linear: the best of them, space, predicts the same as "
         "linear for every example."),
        ({"basis": "heads", "seeds": 1},
         "On these examples the head of space is better than the best baseline, linear, by 1.3"),
    ],
)  # fmt: skip
def test_whether_a_head_beats_the_baselines_is_said_in_words(changes, said):
    assert wording.baseline_verdict(comparison(**changes), 1).startswith(said)


def test_the_first_sentence_is_about_the_best_baseline(findings):
    """The best head that is trained against the best that is fitted directly, here logreg; what is
    said of the two is not said again."""
    analysis = findings.parts[0].analysis
    accuracy = {row.system: row.figures["accuracy"].mean for row in findings.parts[0].section.rows}
    against = analysis.against_baseline
    assert against.second == "logreg (mean)"
    assert accuracy[against.first] == max(
        value for name, value in accuracy.items() if name != "logreg (mean)"
    )
    difference = accuracy[against.first] - accuracy["logreg (mean)"]
    assert against.headline.value == pytest.approx(difference, abs=1e-9) or against.seeds == 1
    assert against.reversed().reversed() == against
    assert {against.first, against.second} in [
        {one.first, one.second} for one in analysis.comparisons
    ]
    said = wording.verdicts(analysis)
    assert said[0] == wording.baseline_verdict(against, analysis.tests)
    assert said[-1] == wording.SEEDS and len(said) == len(analysis.comparisons) + 1
    # Without a baseline there is no such sentence.
    other = findings.parts[-1].analysis
    assert other.against_baseline is None
    (one,) = other.comparisons
    assert wording.verdicts(other) == [wording.verdict([one], other.tests), wording.SEEDS]


def test_runs_without_predictions_are_named_and_the_rest_is_told(report_dir, tmp_path):
    shutil.copytree(report_dir, tmp_path / "copy")
    found = runs.load_all(tmp_path / "copy")
    gone = next(run for run in found if run.head.kind == "linear")
    (gone.folder / "predictions.npz").unlink()
    made = content.build(tmp_path / "copy", runs.load_all(tmp_path / "copy"), with_examples=True)
    part = next(p for p in made.parts if gone.id in {i for r in p.section.rows for i in r.runs})
    assert part.analysis.incomplete == [gone.record.system]
    assert gone.record.system not in {one.name for one in part.analysis.systems}
    assert len(part.section.rows) == len(part.analysis.systems) + 1
    shown = " ".join(invoke("report", "--cache-dir", tmp_path / "copy").stdout.split())
    assert (
        f"{gone.record.system}: the predictions for single examples were not saved or are damaged, "
        "so comparisons and diagrams leave them out (train again)."
    ) in shown


def test_words_of_a_cache_that_is_not_whole_are_not_told(report_dir, tmp_path, bert, caplog):
    shutil.copytree(report_dir, tmp_path / "copy")
    (path,) = (tmp_path / "copy" / "embeddings").glob("*--labels--*.h5")
    with files.lock(path), Writer(path) as writer:
        writer.unmark("test", 3)
    found = runs.load_all(tmp_path / "copy")
    made = content.build(tmp_path / "copy", found, with_examples=True, backbone=str(bert))
    told = {part.section.data: part.examples is not None for part in made.parts}
    assert told == {"imdb": True, "other": True, "labels": False}
    assert "is unfinished" in caplog.text
    with Cache(path) as cache:
        assert "test:3 is not embedded" in refusal(cached_example, cache, "test:3")
        cached_example(cache, "test:4")


def test_without_the_cache_there_are_no_words_but_all_else(report_dir, tmp_path, caplog):
    shutil.copytree(report_dir / "runs", tmp_path / "runs")
    made = content.build(tmp_path, runs.load_all(tmp_path), with_examples=True)
    for part in made.parts:
        assert part.examples is None and part.analysis.systems
        assert part.analysis.cost is None or part.analysis.cost.cache_bytes is None
    assert "no words for imdb" in caplog.text


def test_several_labels_a_text(bert, tmp_path):
    data = tmp_path / "several"
    data.mkdir()
    random = np.random.RandomState(0)
    for split, size in (("train", 60), ("validation", 20), ("test", 20)):
        rows = []
        for _ in range(size):
            chosen = random.randint(0, 2, 2)
            words = [["bad", "good"][chosen[0]], ["film", "plot"][chosen[1]]]
            noisy = np.where(random.uniform(size=2) < 0.3, 1 - chosen, chosen)
            labels = [name for name, there in zip(("praise", "plot"), noisy, strict=True) if there]
            rows.append({"text": " ".join(words), "labels": labels})
        (data / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = embed(backbone=str(bert), dataset=str(data), cache_dir=tmp_path, device="cpu").path
    configs = [heads.config("space", learning_rate=0.05, seed=seed) for seed in (0, 1)]
    with Cache(path) as cache:
        train_and_save(tmp_path, cache, configs, TrainingConfig(epochs=3, batch_size=16))
    found = runs.load_all(tmp_path)
    made = content.build(tmp_path, found, with_examples=True, backbone=str(bert))
    (part,) = made.parts
    (system,) = part.analysis.systems
    first = min(found, key=lambda run: run.head.seed)
    given, given_names = first.predictions(), first.record.label_names
    expected = sk.multilabel_confusion_matrix(given.labels, given.predicted)
    assert system.confusion == expected.tolist()
    assert part.examples.task == MULTI_LABEL.name
    assert tuple(part.examples.words) == given_names
    run = runs.find(tmp_path, part.examples.run)
    total, count = defaultdict(lambda: np.zeros(2)), defaultdict(int)
    with Cache(path) as cache:
        for number in range(20):
            explained = explain_example(run, cache, f"test:{number}", backbone=str(bert))
            for word in explained.words:
                if not word.special:  # not beyond any mean
                    total[word.text] += word.contributions
                    count[word.text] += 1
    for c, listed in enumerate(part.examples.words.values()):
        best = [word for word in sorted(total, key=lambda w: -total[w][c]) if total[word][c] > 0]
        assert [one.word for one in listed] == best
        for one in listed:
            assert one.mean == pytest.approx(total[one.word][c] / 20, rel=1e-3, abs=1e-7)
    assert any(part.examples.words.values()) and part.examples.mistakes
    for one in part.examples.mistakes:
        number = int(one.example.partition(":")[2])
        assert not given.correct[number] and one.confidence == given.confidence[number]
        with Cache(path) as cache:
            explained = explain_example(run, cache, one.example, backbone=str(bert))
        assert one.shares == [word.contributions[explained.predicted] for word in explained.words]
    for form in ("markdown", "latex", "json"):
        assert "praise" in Report(made).text(form)
    shown = Report(made).save(tmp_path / "page", "html").read_text()
    assert "True negative" in shown and "relative to their mean" not in shown


def test_of_many_systems_the_best_are_told_of_and_p_is_corrected_for_all(report_dir):
    (group,) = [g for g in groups.grouped(runs.load_all(report_dir))
                if g.section.title.startswith("imdb, ")]  # fmt: skip
    accuracies = np.random.RandomState(0).permutation(30) / 100
    rows = [
        dataclasses.replace(
            group.section.rows[0], system=f"system {i}",
            figures={**group.section.rows[0].figures, "accuracy": MeanStd(float(accuracy))},
        )
        for i, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    systems = [group.systems[i % len(group.systems)] for i in range(30)]
    section = dataclasses.replace(group.section, rows=rows)
    made = comparisons.analyse(report_dir, groups.Group(section, systems))
    best = {row.system for row in rows if row.figures["accuracy"].mean >= 0.06}
    assert {one.name for one in made.systems} == best and len(best) == 24
    assert made.left_out == 6 and made.tests == 30 * 29 // 2
    assert len(made.pairs) == 24 * 23 // 2 and len(made.comparisons) == 23
    assert {one.name for one in made.cost.training} == best
    assert {one.name for one in made.curves} <= best
    told = wording.method(section, made)
    assert "for all 435 pairs" in told and "6 more" in wording.missing(made)[-1]


def test_bands_stay_within_what_a_metric_can_be():
    values = {name: ([0.9, 0.05], [0.3, 0.2]) for name in ("accuracy", "loss")}
    curve = EpochCurve("x", [1, 2], {"train": values})
    for name, top in (("accuracy", 1.0), ("loss", 1.2)):
        low, high = curve.band("train", name)
        assert low == pytest.approx([0.6, 0]) and high == pytest.approx([top, 0.25])


def test_a_system_without_seeds_is_said_to_have_none(imdb):
    told = wording.method(imdb.section, imdb.analysis)
    assert "a system without a seed adds no variance of seeds" in told
    assert "precision and recall of positive" in imdb.section.subtitle
