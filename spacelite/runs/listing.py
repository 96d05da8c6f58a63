"""Runs -> what a list of runs shows: how each was trained, how good it is, its size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spacelite import heads, settings
from spacelite.runs.record import RunRecord
from spacelite.runs.store import Run

# Settings that the name of a head holds, or that have an entry of their own.
ELSEWHERE = ("seed", "epochs", "pooling", "latent", "blocks", "monitor")


def differing(records: Sequence[RunRecord]) -> list[str]:
    """Names of the settings in which runs differ, other than seed and epochs, and those that the
    names of heads hold."""
    names = settings.varying([record.settings for record in records])
    return [name for name in names if name not in ELSEWHERE]


def newest_first(runs: Sequence[Run]) -> list[Run]:
    """Runs, newest first; those of the same second by kind of head, settings and seed."""

    def order(run: Run) -> tuple[Any, ...]:
        own = run.record.settings
        values = [own.get(name) or 0 for name in ("latent", "inter", "intra", "seed")]
        return (list(heads.KINDS).index(run.head.kind), run.record.system, *values, run.id)

    return sorted(sorted(runs, key=order), key=lambda run: run.record.created, reverse=True)


def rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What a list shows of each run, newest run first, as JSON objects."""
    return [
        {
            "id": run.id,
            "name": run.name,
            "path": str(run.folder),
            "cache": run.record.cache,
            "dataset": run.record.spec.dataset,
            "backbone": run.record.spec.backbone,
            "head": run.head.kind,
            "system": run.record.system,
            "settings": run.record.settings,
            "seed": getattr(run.head, "seed", None),
            "epochs": run.record.epochs,
            "metrics": run.record.metrics,
            "created": run.record.created,
            "bytes": run.bytes,
        }
        for run in newest_first(runs)
    ]
