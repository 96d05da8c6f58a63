"""Cross-validation: the command of the command line, with the same options."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from spacelite import files
from spacelite.api.arguments import FILE, GROUPS, NAME, NAMES, WEIGHTS, checked
from spacelite.api.embedding import CACHE_DIR, find_cache
from spacelite.api.results import CACHE, EmbeddedDataset
from spacelite.data.writers import csv_lines
from spacelite.document import Bullets
from spacelite.errors import SpaceliteError
from spacelite.metrics.scores import METRICS
from spacelite.progress import Progress, reporting
from spacelite.reports.render import fragment, plain
from spacelite.training import plan

if TYPE_CHECKING:
    from spacelite.document import Table
    from spacelite.studies.cross_validation import CrossValidation

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class CrossValidated:
    """What a cross-validation found.

    Attributes:
        result: The folds, and each head's logits and figures on the examples that it did not see.
        cache: The cache.
    """

    result: CrossValidation
    cache: EmbeddedDataset

    def figures(self, metric: str = "accuracy") -> dict[str, Array]:
        """A metric of each head on each held-out fold, (repeats, folds), best head first."""
        if metric not in METRICS:
            raise SpaceliteError(f"metric={metric}: choose from {', '.join(METRICS)}", ["metric"])
        return {name: own.figures[metric] for name, own in self.result.named.items()}

    def probabilities(self) -> dict[str, Array]:
        """Each head's probabilities for the training examples, by the heads that did not see them,
        (repeats, N, C)."""
        with self.cache.open() as cache:
            task = cache.task
        return {name: task.probabilities(own.logits) for name, own in self.result.named.items()}

    def table(self) -> Table:
        """The table as it is printed."""
        return self.result.table()

    @checked(path=FILE)
    def save(self, path: str | Path) -> None:
        """Write the predictions for the training examples, by the heads that did not see them, to a
        csv file: a row per example with `index`, `file`, `row` and its `label` (`labels` with
        semicolons between them in multi-label data). For each repeat there follow the example's
        `fold` and, of each head, `<head> predicted` and `<head> probability_<label>` of every
        label; with several repeats, `(repeat 2)` follows `fold` and the head's name.

        Raises:
            SpaceliteError: The file cannot be written, or the cache is gone.
        """
        with self.cache.open() as cache:
            rows = self.result.csv_rows(cache)
        try:
            files.write_bytes(Path(path), csv_lines(rows).encode())
        except OSError as error:
            raise SpaceliteError(f"{path} cannot be written: {error.strerror}") from error

    def as_json(self) -> dict[str, Any]:
        """The figures as `cv --json` prints them."""
        return {"cache": self.cache.name, **self.result.as_json()}

    def __str__(self) -> str:
        return "\n".join([plain.table(self.table()), *self.result.sentences])

    def __repr__(self) -> str:
        found = self.result
        times = "" if found.repeats == 1 else f", {found.repeats} times"
        return f"<cross-validation of {len(found.systems)} systems on {found.folds} folds{times}>"

    def _repr_html_(self) -> str:
        return fragment.render([self.table(), Bullets(self.result.sentences)])


@checked(cache=CACHE, preset=NAME, head=NAMES, groups=GROUPS, sample_weight=WEIGHTS)
def cross_validate(
    cache: EmbeddedDataset | str | Path | None = None,
    *,
    folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    groups: Sequence[Any] | str | None = None,
    sample_weight: Sequence[float] | str | None = None,
    preset: str | None = None,
    head: str | Sequence[str] = ("space", "linear"),
    inter: float | Sequence[float] = 0.0,
    intra: float | Sequence[float] = 0.0,
    latent: int | Sequence[int] | None = None,
    learning_rate: float | str | Sequence[float | str] | None = None,
    weight_decay: float | Sequence[float] | None = None,
    pooling: str | Sequence[str] | None = None,
    C: float | str | Sequence[float | str] = "auto",  # noqa: N803 - as in scikit-learn
    blocks: str | Sequence[str] | None = None,
    max_ngram: int | Sequence[int] | None = None,
    ensemble: int | Sequence[int] = 1,
    seeds: int | Sequence[int] = 1,
    epochs: int | str = 15,
    batch_size: int | str = 256,
    data_seed: int = 0,
    schedule: str = "constant",
    clip_norm: float | None = None,
    class_weights: str = "none",
    baselines: bool = True,
    device: str = "auto",
    cache_dir: str | Path | None = None,
    progress: Progress = True,
    **settings: Any,
) -> CrossValidated:
    """Cross-validate heads on the train split of a cache: each is trained on all folds but one and
    evaluated on that one, all heads of all folds in one pass over the tokens per epoch.

    No run is saved; validation and test are not read. Reports of the cache show the last result.

    Args:
        cache: What `embed` returned, or a cache's name or path. Default: the newest complete cache.
        folds: Number of folds, stratified by label.
        repeats: How often the examples are divided anew.
        seed: Seed of the divisions.
        groups: The group of each training example, (N,): those of a group are in one fold; or the
            name of a column of the data that the cache was embedded from, which are read again.
        sample_weight: The weight of each training example in the losses, (N,), or the name of a
            column, as in `train`. Figures on held-out folds count each example once.
        preset: Settings that are recommended together, as in `train`, but for early stopping.
        head: Kind(s) of heads, as in `train`.
        inter: Weight(s) of the inter-space loss.
        intra: Weight(s) of the intra-space loss.
        latent: Number(s) of dimensions of a concept space. Default: 3.
        learning_rate: Learning rate(s) of Adam; "auto" means 0.001. Default: 2e-4.
        weight_decay: Weight decay(s), Adam's L2 penalty. Default: 0.01.
        pooling: Pooling(s) of the baselines. Default: the classification token.
        C: Strength(s) of the L2 penalty of logreg and tfidf; "auto" chooses it by cross-validation
            on the examples that a head sees.
        blocks: What additive heads add up, joined by +. Default: `layers+ngrams`.
        max_ngram: Tokens of the longest n-grams of the block `ngrams`, 2 or 3. Default: 2.
        ensemble: Member(s) of a head with concept spaces, as in `train`.
        seeds: Number K of seeds of the heads, which are 0 to K-1; or the seeds themselves.
        epochs: Number of passes over the training split, or "auto", as in `train`.
        batch_size: Examples per update, or "auto", as in `train`.
        data_seed: Seed of the order of the examples.
        schedule: Schedule of the learning rate: `constant` or `cosine`.
        clip_norm: Maximum norm of a head's gradient; None for no clipping.
        class_weights: `none`, or `balanced`: every class has the same total weight in the loss, by
            the examples that a head sees.
        baselines: Whether `tfidf` and `logreg` on the mean are fitted on the same folds.
        device: `auto`, `cpu`, `cuda`, ...
        cache_dir: Folder of caches and runs. Default: that of the cache.
        progress: True for bars, False for none, or a function called with (phase, done, total).
        settings: Settings of other kinds of heads, by name.

    Returns:
        The figures, which print themselves as a table.

    Raises:
        SpaceliteError: The cache or the settings cannot be used, or there are too few examples of a
            label, or groups, for so many folds.
    """
    arguments = dict(locals())
    from spacelite.api import columns
    from spacelite.backbones.model import resolve_device
    from spacelite.studies import answers
    from spacelite.studies.cross_validation import cross_validate as cross_validated

    asked = plan.requested(cross_validate, arguments)
    for name in ("patience", "monitor"):  # there is no validation split to stop early by
        asked.pop(name, None)
    if not isinstance(cache, EmbeddedDataset):
        cache = find_cache(cache, cache_dir or CACHE_DIR)
    with cache.open() as opened, reporting(progress) as on_progress:
        opened.require_training()
        weights = columns.weights(opened, sample_weight)
        asked["sample_weight"] = None if weights is None else weights.name
        planned = plan.plan(asked, opened, arguments=arguments)
        if planned.chosen:
            log.info("auto: %s", planned.sentence)
        configs = planned.configs
        if baselines:
            configs += [config for config in plan.BASELINES if config not in configs]
        result = cross_validated(
            opened,
            configs,
            planned.training,
            folds=folds,
            repeats=repeats,
            seed=seed,
            groups=columns.groups(opened, groups),
            weights=None if weights is None else weights.values,
            device=resolve_device(device),
            on_progress=on_progress,
        )
        answers.keep(cache.cache_dir, opened, "cv", result.as_json())
    return CrossValidated(result, cache)
