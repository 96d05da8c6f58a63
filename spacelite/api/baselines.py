"""The baselines that `train` keeps beside every head: fitted once for a cache, from it alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spacelite import heads, runs
from spacelite.cache.spec import CacheSpec
from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.heads.logistic import AUTO
from spacelite.runs import Run
from spacelite.training import TrainingConfig

# A head that is no better than these is not worth its training.
BASELINES: tuple[HeadConfig, ...] = (
    heads.config("tfidf", C=AUTO),
    heads.config("logreg", pooling="mean", C=AUTO),
)


def beside(
    configs: Sequence[HeadConfig], folder: Path, spec: CacheSpec, training: TrainingConfig
) -> dict[HeadConfig, Run | None]:
    """The baselines that are not among the heads to train, with the run of each; None for one that
    is not fitted yet.

    Args:
        configs: The heads to train.
        folder: Folder of caches and runs.
        spec: Spec of the cache.
        training: Training settings.
    """
    return {
        config: _saved(config, folder, spec, training)
        for config in BASELINES
        if config not in configs
    }


def _saved(
    config: HeadConfig, folder: Path, spec: CacheSpec, training: TrainingConfig
) -> Run | None:
    """The run of a baseline; None if there is none, or if it is damaged."""
    name = runs.run_id(spec, config, training.for_fitting())
    try:
        run = runs.load(runs.runs_folder(folder) / name)
        return run if run.parameters and run.predictions() is not None else None
    except SpaceliteError:
        return None
