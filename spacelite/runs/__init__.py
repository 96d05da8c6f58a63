"""A trained head on disk. In: a trained head. Out: a run that can be loaded, found and compared."""

from spacelite.runs.caches import find_cache
from spacelite.runs.listing import differing, rows
from spacelite.runs.names import find, folder_of, names_for, remove, rename
from spacelite.runs.record import (
    RunRecord,
    SearchRecord,
    TransferRecord,
    figure,
    run_id,
    shown_split,
)
from spacelite.runs.store import (
    Run,
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
    "SearchRecord",
    "TransferRecord",
    "differing",
    "figure",
    "find",
    "find_cache",
    "folder_of",
    "load",
    "load_all",
    "names_for",
    "predictions_of",
    "prepare",
    "remove",
    "rename",
    "rows",
    "run_id",
    "runs_folder",
    "save",
    "shown_split",
]
