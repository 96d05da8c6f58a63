"""Training: the command of the command line, with the same options."""

from __future__ import annotations

import inspect
import itertools
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacelite import ranks
from spacelite.api.arguments import checked
from spacelite.api.embedding import dataset_of, embed
from spacelite.api.results import CACHE, EmbeddedDataset, Runs
from spacelite.api.runs import TrainedRun
from spacelite.cache.spec import CacheSpec
from spacelite.cache.store import side_files
from spacelite.data.splits import lacking
from spacelite.errors import SpaceliteError
from spacelite.heads.config import LOSS_WEIGHTS, HeadConfig, TrainedHeadConfig
from spacelite.heads.pooling import POOLINGS
from spacelite.lazy import np
from spacelite.metrics.scores import METRICS
from spacelite.metrics.thresholds import OPTIMISTIC
from spacelite.progress import Progress, reporting
from spacelite.reports.analysis.content import majority_note, start_note
from spacelite.runs import store
from spacelite.runs.record import SearchRecord, run_id
from spacelite.runs.store import Run
from spacelite.settings import OTHER_NAMES, details, effective, shown, symbols
from spacelite.tasks import plain_loss
from spacelite.training import loss_terms, plan
from spacelite.training.config import TrainingConfig
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.cache.store import Cache
    from spacelite.training.loop import TrainedHead
    from spacelite.training.search import Search

log = logging.getLogger(__name__)

# A token that varies less than this share of all tokens' standard deviation hardly tells texts
# apart; over how many examples, of how many tokens in all at most, that is measured.
FLAT, MOST_COMPARED, TOKENS_COMPARED = 0.01, 256, 50_000

HEADS = ("space", "linear")


@checked(cache=CACHE)
def train(
    cache: EmbeddedDataset | str | Path | None = None,
    *,
    layer: int | None = None,
    name: str | None = None,
    replace: bool = False,
    head: str | Sequence[str] = HEADS,
    inter: float | Sequence[float] = 0.0,
    intra: float | Sequence[float] = 0.0,
    scaling: str | Sequence[str] = "none",
    latent: int | Sequence[int] | None = None,
    learning_rate: float | str | Sequence[float | str] | None = None,
    weight_decay: float | Sequence[float] | None = None,
    pooling: str | Sequence[str] | None = None,
    C: float | str | Sequence[float | str] = "auto",  # noqa: N803 - as in scikit-learn
    blocks: str | Sequence[str] | None = None,
    max_ngram: int | Sequence[int] | None = None,
    ensemble: int | Sequence[int] = 1,
    preset: str | None = None,
    search: bool = False,
    seeds: int | Sequence[int] = 1,
    epochs: int | str = 15,
    batch_size: int | str = 256,
    data_seed: int = 0,
    schedule: str = "constant",
    clip_norm: float | None = None,
    loss: str | None = None,
    class_weights: str = "none",
    sample_weight: Sequence[float] | str | None = None,
    patience: int | None = None,
    monitor: str | None = None,
    threshold: str | None = None,
    baselines: bool = True,
    device: str = "auto",
    resume: bool = False,
    fresh: bool = False,
    cache_dir: str | Path | None = None,
    progress: Progress = True,
    **settings: Any,
) -> Runs:
    """Train heads on a cache, all in one pass over the tokens per epoch, and save each as a run.

    If several values are given, a head is trained for every combination.

    Args:
        cache: What `embed` returned, or a cache's name or path. Default: the one embedded last.
        layer: Layer of the hidden states, for data that were embedded with several: the cache that
            differs from `cache` in its layer alone is trained on. Default: `cache` itself.
        name: A name for the run, to use in place of its id. Several runs are named `name-1`,
            `name-2`, ... in the order in which they are returned.
        replace: Whether the name is taken from the run that has it, which stays under its id.
            Otherwise a name that another run has is refused.
        head: Kind(s) of heads: `space`, `linear`, `mlp`, `logreg`, `tfidf`, `additive`.
        inter: Weight(s) of the inter-space loss.
        intra: Weight(s) of the intra-space loss.
        scaling: Scaling(s) of the hidden states that space heads read: `none`, as published, or
            `standard`, to mean 0 and variance 1 over train's tokens.
        latent: Number(s) of dimensions of a concept space, or of units of the block `attention`.
            Default: 3.
        learning_rate: Learning rate(s) of Adam; "auto" means 0.001. Default: 2e-4.
        weight_decay: Weight decay(s), Adam's L2 penalty. Default: 0.01.
        pooling: Pooling(s) of the baselines: `first`, `last`, `mean`, `max`, `pooler`,
            `layers`. Default: the classification token.
        C: Strength(s) of the L2 penalty of logreg and tfidf, as in scikit-learn: the smaller, the
            stronger. "auto" chooses it by cross-validation on train.
        blocks: What additive heads add up, joined by +: `layers`, `mean`, `ngrams`, and `space` or
            `attention`; one combination or several. Default: `layers+ngrams`.
        max_ngram: Tokens of the longest n-grams of the block `ngrams`, 2 or 3. Default: 2.
        ensemble: Number(s) of members of a head that reads every token: heads with different seeds
            whose logits are averaged, which is one head with more dimensions.
        preset: Settings that are recommended together: `best` is an additive head on
            `layers+ngrams+attention`.
        search: Whether to keep only the best combination of settings by `monitor` on validation.
            After an eighth, a quarter and a half of the epochs, the worse half is dropped; the rest
            is neither evaluated on test nor saved. `latent`, `learning_rate`, `weight_decay` and
            (for additive heads) `blocks` are lists then, where they are not given.
        seeds: Number K of seeds, which are 0 to K-1; or the seeds themselves, as a list.
        epochs: Number of passes over the training split; "auto" for as many as 600 updates take,
            15 to 300.
        batch_size: Examples per update; "auto" for a twentieth of the training examples, 16 to 256.
        data_seed: Seed of the order of the examples.
        schedule: Schedule of the learning rate: `constant` or `cosine`.
        clip_norm: Maximum norm of a head's gradient; None for no clipping.
        loss: Loss of labels that are numbers: `squared` (default) or `huber`, which counts errors
            beyond a standard deviation of the training labels linearly.
        class_weights: Weights of the classes in the loss: `none` or `balanced`.
        sample_weight: The weight of each training example in the losses, at least 0: a list with
            one for each row of the data that were embedded, or for each training example, (N,); or
            the name of a column of the data, which are read again. An example of weight 0 is left
            out. Metrics count each example once.
        patience: Stop a head after this many epochs without a better `monitor`; None to train all
            epochs.
        monitor: Validation metric that `patience` watches and `search` compares. Default:
            `f1_macro`; of numbers, `rmse`.
        threshold: Metric for which each head's decision threshold is chosen on validation: `f1`
            (macro F1) or `accuracy`. It is used wherever the run decides, and in its metrics on
            every split; those on validation are optimistic then. Data with one of two labels per
            text have one threshold, of class 1; multi-label data have one of each label. None: the
            most probable label, or those with a probability above one half.
        baselines: Whether the runs include the baselines that show what a head is worth: `tfidf`
            and `logreg` on the mean. They are fitted once for each cache and loaded from then on.
        device: `auto`, `cpu`, `cuda`, ...
        resume: An interrupted training with the same settings is continued in any case; True to
            fail if that is impossible, rather than to train from the start.
        fresh: Whether to train from the start even so, and delete what was interrupted.
        cache_dir: Folder of caches and runs. Default: that of the cache.
        progress: True for bars, False for none, or a function called with (phase, done, total).
        settings: Settings of other kinds of heads, by name.

    Returns:
        The runs, baselines last; `stopped` lists the heads that diverged, and `search` says what a
        search chose.

    Raises:
        SpaceliteError: The cache or the settings cannot be used, or the runs cannot be saved; the
            message says what to do.
    """
    arguments = dict(locals())
    from spacelite.api import columns  # it imports torch, and so does the loop
    from spacelite.backbones.model import resolve_device
    from spacelite.training import engine, loop
    from spacelite.training.search import Search

    if resume and fresh:
        raise SpaceliteError(
            "resume=True and fresh=True contradict each other: give one of them",
            ["resume", "fresh"],
        )
    if replace and name is None:
        raise SpaceliteError(
            "replace=True gives a run the name of an earlier one: give name too, or leave it out",
            ["replace", "name"],
        )
    asked = plan.requested(train, arguments)
    cache = dataset_of(cache, cache_dir, layer)
    folder = Path(cache_dir or cache.cache_dir)
    known = inspect.signature(train).parameters
    if "seed" in settings:
        raise SpaceliteError("seed: use seeds, a number of them or a list", ["seeds"])
    for setting in settings:
        of_embed = OTHER_NAMES.get(setting, setting)
        if of_embed in inspect.signature(embed).parameters.keys() - known.keys():
            raise SpaceliteError(f"{setting}: give {of_embed} to embed; train has no such argument")
    saved: dict[HeadConfig, Run] = {}
    with cache.open() as opened:
        opened.require_training()
        opened.require_complete()
        examples, task = len(opened.splits["train"]), opened.task
        weights = columns.weights(opened, sample_weight)
        asked["sample_weight"] = weights.name
        planned = plan.plan(asked, opened, search=search, arguments=known)
        configs, training = planned.configs, planned.training
        loop.check(configs, training, opened.task)
        engine.check_threshold(opened, training)
        if training.threshold is not None:
            log.info(
                "decision thresholds are chosen on validation for %s: %s",
                METRICS[training.threshold].in_words, OPTIMISTIC,
            )  # fmt: skip
        for warning in _flat_poolings(opened, configs):
            log.warning("%s", warning)
        searched = Search.of(configs) if search else None
        candidates = [configs] if searched is None else searched.candidates
        names = _names(folder, opened.spec, candidates, training, name, replace=replace)
        wanted = plan.baselines(opened) if baselines else []
        wanted = [config for config in wanted if config not in configs]
        chosen_device = ranks.device_of(resolve_device(device))
        earlier: dict[HeadConfig, Run | None] = {}
        if ranks.rank() == 0:
            earlier = {
                config: _saved_baseline(config, folder, opened.spec, training) for config in wanted
            }
            store.prepare(folder)
        missing, _ = ranks.broadcast([earlier.get(config) is None for config in wanted])
        configs += itertools.compress(wanted, missing)
        if planned.chosen:
            log.info("auto, for %s training examples: %s", f"{examples:,}", planned.sentence)
        of_search = (
            {} if searched is None else dict.fromkeys(searched.heads, _record(searched, training))
        )

        beside = [file for file in (opened.path, *side_files(opened.path)) if file.exists()]

        def record(head: HeadConfig) -> Path:
            shared = training if head.is_iterative else training.for_fitting()
            return store.runs_folder(folder) / run_id(opened.spec, head, shared) / store.RECORD

        def save(done: TrainedHead) -> None:
            head = done.config
            if not saved and (gone := [file.name for file in beside if not file.exists()]):
                log.warning(
                    "removed since the training began: %s; the runs lack what only these tell, "
                    "such as the row of each example in the data",
                    ", ".join(gone),
                )
            saved[head] = store.save(
                folder, opened, done, training, names.get(head), planned.chosen,
                of_search.get(head),
            )  # fmt: skip

        with reporting(progress if ranks.rank() == 0 else False) as on_progress:
            results = loop.train(
                opened,
                configs,
                training,
                device=chosen_device,
                weights=weights.values,
                search=searched,
                cache_dir=folder,
                resume=resume,
                fresh=fresh,
                save=save,
                record=record,
                on_progress=lambda done, total: on_progress("train", done, total),
            )
        baseline = majority_note(opened, "test" if "test" in opened.splits else "validation")
        of_splits = {split: part.labels for split, part in opened.splits.items()}
        if unseen := lacking(of_splits, opened.task, opened.label_names):
            log.warning("%s", unseen)
    improving = plan.after_training(
        examples,
        training,
        [
            (
                result.config.learning_rate,
                [plain_loss(entry["validation"]) for entry in result.history],
            )
            for result in results
            if isinstance(result.config, TrainedHeadConfig)
            and result.history
            and result.kept
            and result.config.start is None  # on top of others, few updates are enough
        ],
        task.loss_in_words,
    )
    if improving is not None:
        log.warning("%s", improving)
    large = [
        (result.config.system, excess)
        for result in results
        if result.kept
        and (excess := loss_terms.excess(
            result.config, training, [(result.history, result.best_epoch)]
        ))
    ]  # fmt: skip
    if large:
        said = loss_terms.sentence(large, "heads", "=", task.loss_in_words)
        log.warning(SpaceliteError(said, LOSS_WEIGHTS))
    trained = [run.record for run in saved.values()]
    for name in dict.fromkeys(record.system for record in trained):
        for note in start_note(name, [record for record in trained if record.system == name]):
            log.info("%s", note)
    # A candidate of a search that diverged is only one that was not chosen.
    stopped = [
        result.config.description
        for result in results
        if result.stopped is not None and result.dropped is None
    ]
    before = [run for run in earlier.values() if run is not None]
    return Runs(
        [TrainedRun(run, folder, cache.backbone) for run in (*saved.values(), *before)],
        stopped,
        baseline,
        len(before),
        "" if searched is None else _chosen(searched, results, training),
    )


def _flat_poolings(cache: Cache, configs: Sequence[HeadConfig]) -> list[SpaceliteError]:
    """Warnings of poolings that read a single token which is nearly the same for all texts, as
    [CLS] is in early layers; errors, which can name options, but are not raised."""
    pools = dict.fromkeys(name for config in configs for name in config.poolings)
    split, warnings = cache.splits["train"], []
    examples = max(int((split.offsets[: MOST_COMPARED + 1] <= TOKENS_COMPARED).sum()) - 1, 1)
    hidden: Array | None = None
    for name in pools:
        position = POOLINGS[name].position
        if position is None or examples < 2:
            continue
        if hidden is None:
            hidden = split.read_hidden(0, examples).astype(np.float64)
        bounds = split.offsets[: examples + 1]
        tokens = hidden[bounds[:-1] if position == 0 else bounds[1:] - 1]
        of_tokens, of_all = (float(np.sqrt(of.var(axis=0).mean())) for of in (tokens, hidden))
        if of_tokens < FLAT * of_all:
            warnings.append(
                SpaceliteError(
                    f"pooling={name} reads a token that is nearly the same for all texts at layer "
                    f"{cache.spec.layer}: its standard deviation over {examples} training examples "
                    f"is {of_tokens:.2g}, that of all tokens {of_all:.2g}. Train with "
                    "pooling=mean, or on a later layer",
                    ["pooling"],
                )
            )
    return warnings


def _saved_baseline(
    config: HeadConfig, folder: Path, spec: CacheSpec, training: TrainingConfig
) -> Run | None:
    """The run of a baseline that an earlier training has fitted; None if there is none, or if it is
    damaged."""
    name = run_id(spec, config, training.for_fitting())
    try:
        run = store.load(store.runs_folder(folder) / name)
        return run if run.parameters and run.predictions() is not None else None
    except SpaceliteError:
        return None


def _names(
    folder: Path,
    spec: CacheSpec,
    candidates: Iterable[Sequence[HeadConfig]],
    training: TrainingConfig,
    name: str | None,
    *,
    replace: bool,
) -> dict[HeadConfig, str | None]:
    """The name of each head if its candidate is chosen: `name`, or one for each seed, as in
    `store.names_for`. A candidate has none if a run of another one has its name, since the same
    search may be made again. Raises SpaceliteError if no candidate can have such a name."""
    names: dict[HeadConfig, str | None] = {}
    refused: SpaceliteError | None = None
    for candidate in candidates:
        try:
            names |= store.names_for(folder, spec, candidate, training, name, replace=replace)
        except SpaceliteError as error:
            refused = error
    if refused is not None and not names:
        raise refused
    return names


def _record(search: Search, training: TrainingConfig) -> SearchRecord:
    """A search as `run.json` records it."""
    return SearchRecord(
        tried=len(search.candidates), monitor=training.monitor, settings=search.settings()
    )


def _chosen(search: Search, results: Sequence[TrainedHead], training: TrainingConfig) -> str:
    """What a search chose from what, and how much of the training that took; "" if all heads
    diverged."""
    by_head = {result.config: result for result in results}
    chosen = search.chosen(by_head)
    if any(by_head[head].stopped is not None for head in chosen):
        return ""
    first, record = chosen[0], _record(search, training)
    settings, names = effective(first), symbols(first)
    unsaid = [
        name
        for name in record.settings
        if name in settings and not _in_name(first, names[name], settings[name])
    ]
    figure = search.figure(chosen, by_head, training)
    seeds = f", a mean over {len(chosen)} seeds" if len(chosen) > 1 else ""
    share = search.trained_share(by_head, training)
    spared = "" if share is None else f"; this took {share:.0%} of the epochs of all"
    values = ", ".join(details(names, settings, unsaid))
    name = first.system + (f" ({values})" if values else "")
    ties = search.ties(by_head, training)
    others = "another, whose cross-entropy is not lower"
    if ties > 1:
        others = f"{ties} others, of which none has a lower cross-entropy"
    tied = f"; it ties with {others}" if ties else ""
    return f"{name}: {record.words(figure)}{seeds}{tied}{spared}"


def _in_name(head: HeadConfig, symbol: str, value: Any) -> bool:
    """Whether a head's name says a setting: `space L=16`, `linear (mean)`."""
    return (value if isinstance(value, str) else f"{symbol}={shown(value)}") in head.name
