"""Embed a data set once with a frozen transformer; train small heads on the cached hidden states.

import spacelite

cache = spacelite.embed(dataset="demo", backbone="minilm")
runs = spacelite.train(cache, inter=[0, 0.2], seeds=3)
print(runs)
"""

from spacelite.errors import SpaceliteError
from spacelite.lazy import exports

__version__ = "0.1.0"

__all__ = [
    "EmbeddedDataset",
    "Evaluation",
    "Report",
    "Runs",
    "SpaceliteError",
    "TextExplanation",
    "TextPredictions",
    "TrainedRun",
    "__version__",
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
            (
                "EmbeddedDataset", "Evaluation", "Runs", "TextExplanation", "TextPredictions",
                "TrainedRun", "embed", "find_cache", "load_run", "load_runs", "report", "train",
            ),
            "api",
        ),
        "Report": "reports",
    },
)  # fmt: skip
