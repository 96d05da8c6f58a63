"""What Python users call. In: data and settings. Out: objects that print and show themselves."""

from typing import TYPE_CHECKING

from spacelite.lazy import exports

if TYPE_CHECKING:
    from spacelite.api.auditing import LabelAudit, audit
    from spacelite.api.cross_validation import CrossValidated, cross_validate
    from spacelite.api.embedding import embed, find_cache
    from spacelite.api.learning_curves import LearningCurve, learning_curve
    from spacelite.api.lists import Runs
    from spacelite.api.results import (
        EmbeddedDataset,
        Evaluation,
        TextExplanation,
        TextPredictions,
    )
    from spacelite.api.runs import TrainedRun
    from spacelite.api.saved import load_run, load_runs, report
    from spacelite.api.streams import FilePredictions
    from spacelite.api.training import train

__all__ = [
    "CrossValidated",
    "EmbeddedDataset",
    "Evaluation",
    "FilePredictions",
    "LabelAudit",
    "LearningCurve",
    "Runs",
    "TextExplanation",
    "TextPredictions",
    "TrainedRun",
    "audit",
    "cross_validate",
    "embed",
    "find_cache",
    "learning_curve",
    "load_run",
    "load_runs",
    "report",
    "train",
]

__getattr__ = exports(
    __name__,
    {
        **dict.fromkeys(("LabelAudit", "audit"), "auditing"),
        **dict.fromkeys(("CrossValidated", "cross_validate"), "cross_validation"),
        **dict.fromkeys(("embed", "find_cache"), "embedding"),
        **dict.fromkeys(("LearningCurve", "learning_curve"), "learning_curves"),
        "train": "training",
        **dict.fromkeys(("load_run", "load_runs", "report"), "saved"),
        "FilePredictions": "streams",
        "Runs": "lists",
        "TrainedRun": "runs",
        **dict.fromkeys(
            ("EmbeddedDataset", "Evaluation", "TextExplanation", "TextPredictions"), "results"
        ),
    },
)
