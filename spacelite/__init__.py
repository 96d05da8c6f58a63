"""Embed a data set once with a frozen transformer; train small heads on the cached hidden states.

```python
import spacelite

cache = spacelite.embed(dataset="demo", backbone="minilm")
runs = spacelite.train(cache, inter=[0, 0.2], seeds=3)
print(runs)
```
"""

import importlib
from typing import TYPE_CHECKING, Any

from spacelite import memory as _memory
from spacelite.errors import SpaceliteError

if TYPE_CHECKING:  # for editors and type checkers; at run time, imported when first used
    from spacelite.api.embedding import embed, find_cache, import_cache
    from spacelite.api.examples import Examples
    from spacelite.api.results import (
        EmbeddedDataset,
        Evaluation,
        Runs,
        TextExplanation,
        TextPredictions,
    )
    from spacelite.api.runs import TrainedRun, load_run, load_runs, pull, report
    from spacelite.api.studies import (
        CrossValidated,
        LabelAudit,
        LayerSweep,
        LearningCurve,
        audit,
        cross_validate,
        learning_curve,
        sweep,
    )
    from spacelite.api.training import train
    from spacelite.estimators.classifiers import (
        AdditiveClassifier,
        AdditiveRegressor,
        FrozenEncoder,
        LinearClassifier,
        LinearRegressor,
        LogregClassifier,
        MLPClassifier,
        RidgeRegressor,
        SpaceClassifier,
        SpaceRegressor,
        TfidfClassifier,
        TfidfRegressor,
    )
    from spacelite.estimators.search import SpaceSearchCV
    from spacelite.export.export import Exported
    from spacelite.reports.report import Report

__version__ = "0.1.0"

__all__ = [
    "AdditiveClassifier",
    "AdditiveRegressor",
    "CrossValidated",
    "EmbeddedDataset",
    "Evaluation",
    "Examples",
    "Exported",
    "FrozenEncoder",
    "LabelAudit",
    "LayerSweep",
    "LearningCurve",
    "LinearClassifier",
    "LinearRegressor",
    "LogregClassifier",
    "MLPClassifier",
    "Report",
    "RidgeRegressor",
    "Runs",
    "SpaceClassifier",
    "SpaceRegressor",
    "SpaceSearchCV",
    "SpaceliteError",
    "TextExplanation",
    "TextPredictions",
    "TfidfClassifier",
    "TfidfRegressor",
    "TrainedRun",
    "__version__",
    "audit",
    "cross_validate",
    "embed",
    "find_cache",
    "import_cache",
    "learning_curve",
    "load_run",
    "load_runs",
    "pull",
    "report",
    "sweep",
    "train",
]

_MODULES = {
    "api.embedding": ("embed", "find_cache", "import_cache"),
    "api.examples": ("Examples",),
    "api.results": ("EmbeddedDataset", "Evaluation", "Runs", "TextExplanation", "TextPredictions"),
    "api.runs": ("TrainedRun", "load_run", "load_runs", "pull", "report"),
    "api.studies": (
        "CrossValidated", "LabelAudit", "LayerSweep", "LearningCurve", "audit", "cross_validate",
        "learning_curve", "sweep",
    ),
    "api.training": ("train",),
    "estimators.classifiers": (
        "AdditiveClassifier", "AdditiveRegressor", "FrozenEncoder", "LinearClassifier",
        "LinearRegressor", "LogregClassifier", "MLPClassifier", "RidgeRegressor",
        "SpaceClassifier", "SpaceRegressor", "TfidfClassifier", "TfidfRegressor",
    ),
    "estimators.search": ("SpaceSearchCV",),
    "export.export": ("Exported",),
    "reports.report": ("Report",),
}  # fmt: skip


_memory.watch_imports()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
