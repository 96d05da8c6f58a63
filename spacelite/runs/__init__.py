"""A trained head on disk. In: a trained head. Out: a run that can be loaded, found and compared."""

from spacelite.runs.record import RunRecord, TransferRecord, figure, run_id, shown_split
from spacelite.runs.store import (
    Run,
    find,
    load,
    load_all,
    predictions_of,
    prepare,
    runs_folder,
    save,
)

__all__ = [
    "Run",
    "RunRecord",
    "TransferRecord",
    "figure",
    "find",
    "load",
    "load_all",
    "predictions_of",
    "prepare",
    "run_id",
    "runs_folder",
    "save",
    "shown_split",
]
