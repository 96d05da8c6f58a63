"""What Python users call. In: data and settings. Out: objects that print and show themselves."""

from typing import TYPE_CHECKING

from spacelite.lazy import exports

if TYPE_CHECKING:
    from spacelite.api.functions import embed, find_cache, train
    from spacelite.api.results import (
        EmbeddedDataset,
        Evaluation,
        TextExplanation,
        TextPredictions,
    )
    from spacelite.api.runs import Runs, TrainedRun
    from spacelite.api.saved import load_run, load_runs, report

__all__ = [
    "EmbeddedDataset",
    "Evaluation",
    "Runs",
    "TextExplanation",
    "TextPredictions",
    "TrainedRun",
    "embed",
    "find_cache",
    "load_run",
    "load_runs",
    "report",
    "train",
]

__getattr__ = exports(
    __name__,
    {
        **dict.fromkeys(("embed", "find_cache", "train"), "functions"),
        **dict.fromkeys(("load_run", "load_runs", "report"), "saved"),
        **dict.fromkeys(("Runs", "TrainedRun"), "runs"),
        **dict.fromkeys(
            ("EmbeddedDataset", "Evaluation", "TextExplanation", "TextPredictions"), "results"
        ),
    },
)
