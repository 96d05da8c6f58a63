"""What Python users call. In: data and settings. Out: objects that print and show themselves."""

from spacelite.lazy import exports

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
        **dict.fromkeys(
            ("embed", "find_cache", "load_run", "load_runs", "report", "train"), "functions"
        ),
        **dict.fromkeys(("Runs", "TrainedRun"), "runs"),
        **dict.fromkeys(
            ("EmbeddedDataset", "Evaluation", "TextExplanation", "TextPredictions"), "results"
        ),
    },
)
