"""A search in one training, against separate trainings that are ranked by hand."""

import hashlib
import json
import logging
import math
from dataclasses import replace

import pytest
import torch
from conftest import embed, invoke, refusal, write_dataset
from test_report import run_with, sections_of
from test_training import Interrupted, interrupt_after

import spacelite
from spacelite import files, heads
from spacelite.api.results import EmbeddedDataset
from spacelite.api.training import _chosen
from spacelite.cache.store import Cache
from spacelite.metrics.scores import METRICS
from spacelite.runs import store as runs
from spacelite.runs.record import RunRecord
from spacelite.tasks import SINGLE_LABEL
from spacelite.training import checkpoints, engine, loop, plan
from spacelite.training.config import TrainingConfig
from spacelite.training.loop import TrainedHead
from spacelite.training.plan import grid
from spacelite.training.search import Search, rungs

GRID = grid(
    ["space", "linear"],
    {"latent": [3, 5], "pooling": ["mean"], "learning_rate": [0.001, 0.01, 0.05], "seed": [0]},
)
SEEDS = grid(["space"], {"latent": [3], "learning_rate": [0.003, 0.01, 0.03], "seed": [0, 1]})
WILD = heads.config("linear", pooling="mean", learning_rate=1e38)
FITTED = [heads.config("logreg", pooling="mean", C=C) for C in (1e-6, 1.0)]
TRAINING = TrainingConfig(epochs=8, batch_size=16, monitor="ce")
QUIET = {"progress": False, "device": "cpu", "epochs": 4, "batch_size": 16}


@pytest.fixture(scope="module")
def cache(cache_path):
    with Cache(cache_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def alone(cache):
    """Trains heads one by one, each of them once per setting of the training."""
    known = {}

    def train(configs, training):
        for config in configs:
            if (config, training) not in known:
                (known[config, training],) = loop.train(cache, [config], training)
        return [known[config, training] for config in configs]

    return train


def searched(cache, configs, training=TRAINING, among=None, **options):
    return loop.train(cache, configs, training, search=Search.of(among or configs), **options)


def by_hand(trained, epochs, monitor, candidates, *, best_so_far=False):
    """Successive halving from whole histories: {candidate: the epoch after which it was dropped},
    and the winner; the rungs are written out in the test that calls this."""
    sign = 1 if METRICS[monitor].higher_is_better else -1

    def figure(candidate, epoch):
        """The figure, and what breaks ties: minus the cross-entropy."""
        values = []
        for config in candidate:
            history = [entry["validation"] for entry in trained[config].history[:epoch]]
            own = max(history, key=lambda at: sign * at[monitor]) if best_so_far else history[-1]
            values.append((sign * own[monitor], -own["ce"]))
        return tuple(round(sum(column) / len(values), 9) for column in zip(*values, strict=True))

    left, dropped = list(candidates), {}
    for epoch in epochs[:-1]:
        ranked = sorted(left, key=lambda each: figure(each, epoch), reverse=True)
        keep = ranked[: math.ceil(len(left) / 2)]
        dropped |= {each: epoch for each in left if each not in keep}
        left = [each for each in left if each in keep]
    winner = max(left, key=lambda each: figure(each, epochs[-1]))
    return {**dropped, **{each: epochs[-1] for each in left if each != winner}}, winner


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, []), (2, [1]), (3, [1, 2]), (4, [1, 2]), (8, [1, 2, 4]), (15, [2, 4, 8]),
     (300, [38, 75, 150])],
)  # fmt: skip
def test_candidates_are_compared_after_an_eighth_a_quarter_and_a_half(epochs, expected):
    assert rungs(epochs) == expected


@pytest.mark.parametrize("monitor", ["ce", "loss", "accuracy", "f1_macro"])
def test_the_worse_half_is_dropped_at_every_rung(cache, alone, monitor):
    training = replace(TRAINING, monitor=monitor)
    single = dict(zip(GRID, alone(GRID, training), strict=True))
    dropped, (winner,) = by_hand(single, [1, 2, 4, 8], monitor, [(each,) for each in GRID])
    results = searched(cache, GRID, training)
    assert {result.config: result.dropped for result in results} == {
        winner: None, **{config: epoch for (config,), epoch in dropped.items()},
    }  # fmt: skip
    assert sorted(dropped.values()) == [1, 1, 1, 1, 2, 2, 4, 8]  # of 9: 5, 3, 2, 1
    for result in results:
        # What is dropped is trained no further, and is the same until then.
        assert len(result.history) == (result.dropped or 8)
        for entry, own in zip(result.history, single[result.config].history, strict=False):
            assert entry["validation"]["ce"] == pytest.approx(own["validation"]["ce"], rel=1e-4)
        assert bool(result.parameters) == (result.config == winner) == result.kept
    (best,) = [result for result in results if result.kept]
    for name, value in single[winner].parameters.items():
        torch.testing.assert_close(best.parameters[name], value, rtol=1e-4, atol=1e-6)
    assert best.metrics["test"] == pytest.approx(single[winner].metrics["test"], rel=1e-4)


def test_the_seeds_of_a_candidate_are_compared_by_their_mean_and_stay_together(cache, alone):
    single = dict(zip(SEEDS, alone(SEEDS, TRAINING), strict=True))
    pairs = [SEEDS[at : at + 2] for at in (0, 2, 4)]
    candidates = [tuple(pair) for pair in pairs]
    dropped, winner = by_hand(single, [1, 2, 4, 8], "ce", candidates)
    results = {result.config: result for result in searched(cache, SEEDS)}
    for candidate in candidates:
        for config in candidate:
            assert results[config].dropped == dropped.get(candidate)
    assert [config for config in SEEDS if results[config].kept] == list(winner)


def test_neither_the_best_nor_the_worst_seed_decides():
    four = grid(["space"], {"learning_rate": [0.1, 0.2, 0.3, 0.4], "seed": [0, 1]})
    search, results = Search.of(four), {config: TrainedHead(config) for config in four}
    figures = [0.1, 0.9, 0.42, 0.42, 0.0, 0.6, 0.45, 0.45]  # means 0.5, 0.42, 0.3, 0.45
    for result, figure in zip(results.values(), figures, strict=True):
        result.history.append({"epoch": 1, "validation": {"ce": figure}})
        result.metrics["validation"] = {"ce": figure}
    search.after_epoch(1, results, TRAINING)
    assert [results[config].dropped for config in four] == [1, 1, *[None] * 4, 1, 1]
    search.choose(results, TRAINING)
    assert search.chosen(results) == (four[4], four[5])


def test_with_patience_the_best_epoch_counts(cache, alone):
    """A head that patience stopped before a rung is compared there by its best epoch."""
    training = replace(TRAINING, epochs=16, patience=2)
    among = [*GRID[:6], heads.config("space", latent=3, learning_rate=0.3)]
    single = dict(zip(among, alone(among, training), strict=True))
    dropped, (winner,) = by_hand(
        single, [2, 4, 8, 16], "ce", [(each,) for each in among], best_so_far=True
    )
    results = {result.config: result for result in searched(cache, among, training)}
    assert [config for config in among if results[config].kept] == [winner]
    # A rung is passed over when patience has stopped all that are left: the end decides then.
    early = {config: epoch for (config,), epoch in dropped.items() if epoch < 8}
    assert early == {config: results[config].dropped for config in early}
    assert all(results[config].dropped in (8, 16) for config in {*among} - {*early, winner})
    stopped = [each for each in among if len(single[each].history) < (early.get(each) or 16)]
    assert any(len(results[each].history) == len(single[each].history) for each in stopped)
    assert results[winner].best_epoch == single[winner].best_epoch
    for name, value in single[winner].parameters.items():
        torch.testing.assert_close(results[winner].parameters[name], value, rtol=1e-4, atol=1e-6)


def test_heads_that_are_fitted_at_once_compete_at_the_end(cache, alone):
    among = [*GRID[:3], *FITTED]
    single = dict(zip(among, alone(among, TRAINING), strict=True))
    final = {config: single[config].metrics["validation"]["ce"] for config in among}
    dropped, (left,) = by_hand(single, [1, 2, 4, 8], "ce", [(each,) for each in GRID[:3]])
    winner = min([left, *FITTED], key=lambda config: final[config])
    results = {result.config: result for result in searched(cache, among)}
    assert [config for config in among if results[config].kept] == [winner]
    assert {results[config].dropped for config in FITTED if config != winner} == {8}
    assert {config: results[config].dropped for (config,) in dropped} == {
        config: epoch for (config,), epoch in dropped.items()
    }
    only = {result.config: result for result in searched(cache, FITTED)}
    better = min(FITTED, key=lambda config: final[config])
    assert [config for config in FITTED if only[config].kept] == [better]


def test_the_test_split_is_evaluated_for_what_is_kept_alone(cache, monkeypatch):
    evaluated, real = {}, engine.evaluate

    def counting(split, stacks, *rest):
        evaluated.setdefault(id(split), []).extend(
            config for stack in stacks for config in stack.configs
        )
        return real(split, stacks, *rest)

    monkeypatch.setattr(engine, "evaluate", counting)
    outside = heads.config("logreg", pooling="mean", C=0.1)  # as a baseline beside
    among, saved = [*GRID[:4], *FITTED], []
    configs = [*among, outside]
    splits = {}
    real_open = loop.open_splits
    monkeypatch.setattr(
        loop, "open_splits", lambda *given: splits.update(real_open(*given)) or splits
    )
    results = searched(cache, configs, among=among)
    kept = [result.config for result in results if result.kept]
    assert len(kept) == 2 and kept[1] == outside
    assert sorted(evaluated[id(splits["test"])], key=configs.index) == kept
    assert sorted(evaluated[id(splits["train"])], key=configs.index) == kept
    for result in results:
        assert ("test" in result.metrics) == ("test" in result.logits) == result.kept
    assert saved == []


def test_only_what_is_kept_is_saved(cache, tmp_path):
    saved = []
    results = searched(cache, GRID, cache_dir=tmp_path, save=saved.append)
    assert saved == [result for result in results if result.kept] and len(saved) == 1
    assert not list((tmp_path / checkpoints.FOLDER).glob("*.safetensors"))


def test_of_equal_candidates_the_first_in_the_grid_wins(cache):
    same = grid(["linear"], {"learning_rate": [1e-12, 2e-12, 3e-12, 4e-12], "seed": [0]})
    results = searched(cache, same, replace(TRAINING, monitor="accuracy"))
    assert [result.dropped for result in results] == [None, 2, 1, 1]


def test_of_equal_figures_the_lowest_cross_entropy_wins():
    search, results = Search.of(GRID[:4]), {config: TrainedHead(config) for config in GRID[:4]}
    training = replace(TRAINING, monitor="accuracy")
    accuracies, entropies = (0.3 + 0.6, 0.9, 0.9, 0.8), (0.5, 0.4, 0.3, 0.2)
    for result, accuracy, ce in zip(results.values(), accuracies, entropies, strict=True):
        result.metrics["validation"] = {"accuracy": accuracy, "ce": ce}
        result.history.append({"epoch": 1, "validation": result.metrics["validation"]})
    search.after_epoch(1, results, training)
    assert [result.dropped for result in results.values()] == [1, None, None, 1]
    for result in results.values():
        result.dropped = None
    search.choose(results, training)
    assert search.chosen(results) == (GRID[2],) and search.ties(results, training) == 2
    said = _chosen(search, list(results.values()), training)
    assert "; it ties with 2 others, of which none has a lower cross-entropy" in said


def test_of_a_head_that_is_fitted_directly_no_setting_of_epochs_is_said(caplog):
    configs = [*GRID[:2], heads.config("additive", blocks="mean"), FITTED[0]]
    search, results = Search.of(configs), {config: TrainedHead(config) for config in configs}
    for number, result in enumerate(results.values()):
        result.metrics["validation"] = {"f1_macro": 0.1 * (number % 3), "ce": 0.1}
        result.history.append({"epoch": 1, "validation": result.metrics["validation"]})
    training = replace(TRAINING, monitor="f1_macro")
    with caplog.at_level(logging.INFO):
        search.after_epoch(1, results, training)
    assert "1 of 2 combinations go on after epoch 1 of 8, beside 2 that are fitted directly; " in (
        caplog.text
    )
    search.choose(results, training)
    assert _chosen(search, list(results.values()), training).startswith("additive (mean): chosen")


def test_candidates_that_diverge_are_out_with_all_their_seeds(cache):
    wild = [replace(WILD, seed=seed) for seed in (0, 1)]
    results = searched(cache, [*wild, *SEEDS])
    assert all(result.stopped and result.dropped for result in results[:2])
    assert sum(result.kept for result in results) == 2
    everything = searched(cache, [WILD, replace(WILD, weight_decay=0.0)])
    assert all(result.stopped and result.dropped is None for result in everything)


def test_a_seed_goes_when_another_of_its_candidate_diverges(cache):
    search = Search.of(SEEDS[:4])
    results = {config: TrainedHead(config) for config in SEEDS[:4]}
    for config, result in results.items():
        result.metrics["validation"] = {"ce": 0.1 * (1 + config.seed)}
        result.history.append({"epoch": 1, "validation": result.metrics["validation"]})
    results[SEEDS[0]].stopped = "its loss is inf"
    search.after_epoch(1, results, TRAINING)
    assert [results[config].dropped for config in SEEDS[:4]] == [None, 1, None, None]
    search.choose(results, TRAINING)
    assert [results[config].dropped for config in SEEDS[:4]] == [8, 1, None, None]


@pytest.mark.parametrize("epochs_done", [0.5, 1.5, 2.5, 5.5])
def test_a_search_that_was_interrupted_goes_on(cache, tmp_path, epochs_done):
    configs = [*GRID, FITTED[0]]
    per_epoch = cache.splits["train"].tokens + cache.splits["validation"].tokens
    with pytest.raises(Interrupted):
        searched(cache, configs, cache_dir=tmp_path,
                 on_progress=interrupt_after(epochs_done * per_epoch))  # fmt: skip
    done = []
    resumed = searched(cache, configs, cache_dir=tmp_path, resume=True,
                       on_progress=lambda tokens, total: done.append(tokens))  # fmt: skip
    assert done[1] == int(epochs_done) * per_epoch
    whole = searched(cache, configs)
    for one, other in zip(resumed, whole, strict=True):
        assert (one.dropped, one.history, one.metrics) == (
            other.dropped, other.history, other.metrics,
        )  # fmt: skip
        assert one.parameters.keys() == other.parameters.keys()
        for name, value in one.parameters.items():
            assert torch.equal(value, other.parameters[name])


def test_a_search_belongs_to_the_identity_of_a_training_and_none_changes_nothing(cache):
    before = {
        "format": 1,
        "cache": cache.spec.cache_key(),
        "heads": [{"kind": config.kind, **config.hashed()} for config in GRID],
        "shared": {**TRAINING.hashed(), "monitor": TRAINING.monitor},
    }
    plain = checkpoints.identity(cache, GRID, TRAINING)
    assert plain == hashlib.sha256(files.canonical(before).encode()).hexdigest()
    among = [checkpoints.identity(cache, GRID, TRAINING, GRID[:count]) for count in (9, 8)]
    assert len({plain, *among}) == 3


def test_a_checkpoint_without_the_field_goes_on(cache, tmp_path, monkeypatch):
    per_epoch = cache.splits["train"].tokens + cache.splits["validation"].tokens
    real = checkpoints.save

    def older(path, checkpoint):
        for record in checkpoint.record["heads"]:
            del record["dropped"]
        real(path, checkpoint)

    monkeypatch.setattr(checkpoints, "save", older)
    with pytest.raises(Interrupted):
        loop.train(cache, GRID[:2], TRAINING, cache_dir=tmp_path,
                   on_progress=interrupt_after(2.5 * per_epoch))  # fmt: skip
    results = loop.train(cache, GRID[:2], TRAINING, cache_dir=tmp_path, resume=True)
    assert all(result.kept and len(result.history) == 8 for result in results)


def test_a_metric_without_a_value_is_refused_after_the_first_epoch(cache, monkeypatch):
    monkeypatch.setitem(METRICS, "auroc", replace(METRICS["auroc"], compute=lambda outcome: None))
    training = replace(TRAINING, epochs=80, monitor="auroc")
    done = []
    said = refusal(
        searched, cache, GRID, training, on_progress=lambda tokens, total: done.append(tokens)
    )
    assert said == ("monitor=auroc: it has no value on the validation split: choose another metric")
    assert done[-1] == cache.splits["train"].tokens + cache.splits["validation"].tokens
    assert refusal(searched, cache, FITTED, training) == said


# train(search=True)


@pytest.fixture
def there(cache_path, tmp_path):
    return EmbeddedDataset(cache_path, tmp_path)


def test_the_winner_is_a_run_like_any_other_that_says_so(there, tmp_path, with_baselines):
    options = {**QUIET, "head": "space", "inter": 0.2, "seeds": 2}
    tried = {"latent": [3, 5], "learning_rate": [0.001, 0.02], "weight_decay": 0}
    found = spacelite.train(there, search=True, name="best", **tried, **options)
    assert [run.record.head.kind for run in found] == ["space", "space", "tfidf", "logreg"]
    assert [run.name for run in found] == ["best-1", "best-2", None, None]
    assert len(list((tmp_path / "runs").glob("[!.]*"))) == 4 and found.stopped == []
    record = found[0].record
    assert record.search == runs.SearchRecord(
        tried=4, monitor="f1_macro",
        settings={"learning_rate": [0.001, 0.02], "latent": [3, 5]},
    )  # fmt: skip
    content = json.loads((found[0].run.folder / "run.json").read_text())
    assert content["search"] == {
        "tried": 4, "monitor": "f1_macro",
        "settings": {"learning_rate": [0.001, 0.02], "latent": [3, 5]},
    }  # fmt: skip
    assert content["settings"]["monitor"] is None  # without patience it is no setting of the run
    assert runs.load(found[0].run.folder).record.search == record.search
    assert [run.record.search for run in found[2:]] == [None, None]
    mean = sum(run.metrics["validation"]["f1_macro"] for run in found[:2]) / 2
    assert (
        f": chosen on validation (macro F1 {mean:.4f}) from 4 combinations of learning rate "
        in (found.search)
    )
    assert "learning rate and L, a mean over 2 seeds; " in found.search
    # 8 heads after one epoch, 4 after two, and 2 to the end of four: 8 + 4 + 2 * 2 of 32.
    assert found.search.endswith("; this took 50% of the epochs of all")
    again = spacelite.train(
        there, latent=record.head.latent, learning_rate=record.head.learning_rate,
        weight_decay=0, **options,
    )  # fmt: skip
    assert [run.id for run in again] == [run.id for run in found]
    assert again.search == "" and again[0].record.search is None
    # The same search may be made again under the same name; the losers do not stand in its way.
    once_more = spacelite.train(there, search=True, name="best", **tried, **options)
    assert [run.name for run in once_more[:2]] == ["best-1", "best-2"]


def test_a_name_that_another_run_has_is_refused_before_the_search(there):
    spacelite.train(there, head="linear", pooling="last", name="mine", **QUIET)
    said = refusal(spacelite.train, there, head="space", search=True, name="mine", **QUIET)
    assert "is named mine already: choose another name, or give replace=True" in said


def test_what_is_not_given_gets_a_list_and_what_is_given_stays(there):
    found = spacelite.train(there, head="space", latent=3, search=True, **QUIET)
    record = found[0].record.search
    assert record.tried == 6 and record.settings == {
        "learning_rate": [5e-4, 2e-3, 5e-3], "weight_decay": [0.0, 0.01],
    }  # fmt: skip
    found = spacelite.train(
        there, search=True, learning_rate=2e-4, weight_decay=0.01, monitor="ce", **QUIET
    )
    assert found[0].record.search.settings == {"head": ["space", "linear"], "latent": [3, 16, 32]}
    assert found[0].record.search.tried == 4 and found[0].record.search.monitor == "ce"
    assert "from 4 combinations of kind of head and L" in found.search


def test_blocks_of_additive_heads_are_searched(there, cache, without_layers, caplog):
    blocks = ["mean", "layers", "ngrams", "mean+ngrams", "layers+ngrams"]
    lists = plan.search_lists(["additive"], {}, cache)
    assert lists["blocks"] == (*blocks, "layers+ngrams+space", "layers+ngrams+attention")
    with Cache(without_layers) as other, caplog.at_level(logging.WARNING, "spacelite"):
        lists = plan.search_lists(["additive"], {}, other)
        assert lists["blocks"] == ["mean", "ngrams", "mean+ngrams"]
        left_out = "layers, layers+ngrams, layers+ngrams+space, layers+ngrams+attention"
        assert f"the search leaves out {left_out}: the cache has no" in caplog.text
        assert "blocks" not in plan.search_lists(["additive"], {"blocks": "layers"}, other)
    assert "blocks" not in plan.search_lists(["space"], {}, cache)
    (run,) = spacelite.train(there, head="additive", blocks=blocks, search=True, progress=False)
    figures = {}
    for name in blocks:
        (alone,) = spacelite.train(there, head="additive", blocks=name, progress=False)
        figures[name] = alone.metrics["validation"]["f1_macro"]
    assert run.record.head.blocks == max(blocks, key=lambda name: figures[name])
    assert run.record.search.settings == {"blocks": blocks}


def test_blocks_on_top_of_others_and_ensembles_are_searched(cache):
    """The start is epoch 0 and a candidate too; an ensemble is compared by its members' mean at a
    rung, and by its own figure at the end."""
    settings = {"blocks": "mean+space", "learning_rate": 0.05, "latent": 2}
    among = [
        heads.config("additive", blocks="mean"),
        heads.config("additive", **settings),
        heads.config("additive", **{**settings, "learning_rate": 1e-4}),
        heads.config("additive", **settings, ensemble=3),
        heads.config("space", latent=2, learning_rate=0.01, ensemble=2),
    ]
    results = {result.config: result for result in searched(cache, among, TRAINING)}
    alone = dict(zip(among, loop.train(cache, among, TRAINING), strict=True))
    (winner,) = [config for config in among if results[config].kept]
    for config in among:
        own = results[config]
        assert own.kept == (config == winner) == ("test" in own.metrics)
        assert own.history == alone[config].history[: len(own.history)]
    standing = [config for config in among if results[config].dropped in (None, 8)]
    best = min(standing, key=lambda config: alone[config].metrics["validation"]["ce"])
    assert winner == best and among[0] in standing
    assert results[winner].metrics == alone[winner].metrics
    assert Search.of(among).settings() == {
        "head": ["additive", "space"], "blocks": ["mean", "mean+space"],
        "learning_rate": [0.05, 1e-4, 0.01], "ensemble": [1, 3, 2],
    }  # fmt: skip


@pytest.fixture
def without_layers(bert, reviews, tmp_path):
    return embed(
        backbone=str(bert), dataset=str(reviews), cache_dir=tmp_path / "other", layers=False,
        device="cpu",
    ).path  # fmt: skip


def test_candidates_that_diverged_are_no_failure_unless_all_did(there):
    rates = {"head": "linear", "search": True}
    found = spacelite.train(there, learning_rate=[1e38, 0.01], weight_decay=0, **rates, **QUIET)
    assert [run.record.head.learning_rate for run in found] == [0.01] and found.stopped == []
    nothing = spacelite.train(there, learning_rate=1e38, **rates, **QUIET)
    assert not nothing and len(nothing.stopped) == 2 and nothing.search == ""


@pytest.mark.parametrize(
    "options",
    [
        {"head": "additive", "blocks": "ngrams"},
        {"head": "logreg"},
        {"head": "linear", "learning_rate": 0.01, "weight_decay": 0, "seeds": 3},
    ],
    ids=str,
)
def test_a_single_candidate_is_refused(there, options):
    assert refusal(spacelite.train, there, search=True, **options, progress=False) == (
        "search=True: these settings make a single combination, and a search chooses among "
        "several: give several values of a setting, or several kinds of heads"
    )


def test_search_is_a_flag(there):
    said = refusal(spacelite.train, there, search="f1_macro", **QUIET)
    assert said == "search='f1_macro': give True or False"


# Records and reports


def record_with(search):
    run = run_with(settings={"latent": 16})
    content = json.loads(json.dumps(run.record.as_json()))
    return {**content, "id": run.record.identity, "search": search}


GOOD = {
    "tried": 18, "monitor": "f1_macro",
    "settings": {"learning_rate": [5e-4, 2e-3], "latent": [3, 16], "weight_decay": [0.0, 0.01]},
}  # fmt: skip


def test_records_without_a_search_read_as_before():
    for content in (
        record_with(None),
        {k: v for k, v in record_with(None).items() if k != "search"},
    ):
        record = RunRecord.from_json(content, content["id"])
        assert record.search is None and record.as_json()["search"] is None
    record = RunRecord.from_json(record_with(GOOD), record_with(GOOD)["id"])
    assert record.as_json()["search"] == GOOD
    assert record.identity == RunRecord.from_json(record_with(None), record.id).identity


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("yes", 'search is "yes", not an object'),
        ({}, "search.tried is missing"),
        (GOOD | {"tried": "18"}, 'search.tried is "18", not a whole number'),
        (GOOD | {"tried": 1}, "search.tried is too small"),
        (GOOD | {"monitor": 3}, "search.monitor is 3, not text"),
        (GOOD | {"settings": []}, "search.settings is [], not an object"),
        (GOOD | {"settings": {"latent": 3}}, "search.settings.latent is 3, not a list"),
        (GOOD | {"settings": {"latent": [[3]]}}, "search.settings.latent holds neither numbers"),
    ],
    ids=str,
)
def test_a_damaged_search_is_refused(change, said):
    content = record_with(change)
    with pytest.raises(ValueError) as caught:
        RunRecord.from_json(content, content["id"])
    assert str(caught.value).startswith(said)


def searched_run(**changes):
    run = run_with(**changes)
    record = replace(run.record, search=runs.SearchRecord(**GOOD))
    return replace(run, record=record)


def test_the_report_says_what_was_searched():
    words = (
        "space L=16: chosen on validation (macro F1) from 18 combinations of learning rate, L and "
        "weight decay."
    )
    own = [searched_run(settings={"latent": 16, "seed": seed}) for seed in (0, 1)]
    (section,) = sections_of([*own, run_with(head="logreg", settings={"pooling": "mean"})])
    assert section.notes.count(words) == 1
    assert not any("too optimistic" in note for note in section.notes)
    # A metric or a setting that an extension brought is named as it is.
    other = runs.SearchRecord(tried=2000, monitor="mcc", settings={"head": [], "width": [1, 2]})
    assert other.words() == (
        "chosen on validation (mcc) from 2,000 combinations of kind of head and width"
    )


def test_the_report_says_where_a_search_chose_on_the_figures_that_it_shows(bert, tmp_path):
    data = write_dataset(tmp_path / "data", {"train": 40, "validation": 20})
    embedded = spacelite.embed(str(data), backbone=str(bert), cache_dir=tmp_path, progress=False)
    found = spacelite.train(
        embedded, head="linear", search=True, learning_rate=[0.01, 0.02], weight_decay=0, **QUIET
    )
    report = spacelite.report(found, examples=False, progress=False)
    for form in ("text", "markdown", "latex", "json"):
        said = " ".join(report.text(form).split())
        assert "chosen on validation (macro F1) from 2 combinations of learning rate" in said, form
        assert "These choices were made on the examples that the table shows" in said


# The command


def test_the_command_prints_the_winner(cache_path, tmp_path):
    options = ["--cache", cache_path, "--cache-dir", tmp_path, "--head", "space", "--lr",
               "1e-3,1e-2", "--weight-decay", 0, "--epochs", 4, "--search"]  # fmt: skip
    done = invoke("train", *options, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    (run,) = runs.load_all(tmp_path)
    figure = run.record.metrics["validation"]["f1_macro"]
    words = (
        f"chosen on validation (macro F1 {figure:.4f}) from 6 combinations of learning rate and L;"
    )
    (line,) = [line for line in done.stdout.splitlines() if "chosen on" in line]
    assert words in line and line.startswith(run.head.name)
    assert f"learning rate {run.head.learning_rate:g}" in line
    assert "1 head trained in" in done.stdout
    assert "search: 3 of 6 combinations go on after epoch 1 of 4; their macro F1 on" in done.stderr
    printed = json.loads(invoke("train", *options, "--json").stdout)
    assert [each["id"] for each in printed] == [run.id] and printed[0]["search"]["tried"] == 6
    assert invoke("report", "--cache-dir", tmp_path).exit_code == 0


def test_the_command_tells_a_default_from_what_is_given(cache_path, tmp_path):
    there = ["--cache", cache_path, "--cache-dir", tmp_path, "--epochs", 1, "--head", "linear"]
    refused = invoke("train", *there, "--lr", "2e-4", "--weight-decay", "0.01", "--search")
    assert refused.exit_code == 1 and "error: --search: these settings make a single" in (
        refused.stderr
    )
    assert not (tmp_path / "runs").exists()
    printed = json.loads(invoke("train", *there, "--lr", "2e-4", "--search", "--json").stdout)
    assert printed[0]["search"]["settings"] == {"weight_decay": [0.0, 0.01]}
    plain = json.loads(invoke("train", *there, "--json").stdout)
    assert plain[0]["search"] is None
    assert (plain[0]["settings"]["learning_rate"], plain[0]["settings"]["weight_decay"]) == (
        2e-4, 0.01,
    )  # fmt: skip


def test_every_list_is_of_values_that_a_head_takes():
    lists = {
        name: field.metadata["search"]
        for name, field in plan.declared().items()
        if field.metadata["search"]
    }
    assert lists.keys() == {"latent", "learning_rate", "weight_decay", "blocks"}
    for name, values in lists.items():
        kind = "additive" if name == "blocks" else "space"
        for value in values:
            loop.check([heads.config(kind, **{name: value})], TRAINING, SINGLE_LABEL)
