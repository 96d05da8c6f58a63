"""Embed a data set once with a frozen transformer; train small heads on the cached hidden states.

```python
import spacelite

cache = spacelite.embed(dataset="demo", backbone="minilm")
runs = spacelite.train(cache, inter=[0, 0.2], seeds=3)
print(runs)
```
"""

from typing import TYPE_CHECKING

from spacelite.errors import SpaceliteError
from spacelite.lazy import exports

if TYPE_CHECKING:  # for editors and type checkers; at run time, imported when first used
    from spacelite.api import (
        CrossValidated,
        EmbeddedDataset,
        Evaluation,
        LabelAudit,
        LearningCurve,
        Runs,
        TextExplanation,
        TextPredictions,
        TrainedRun,
        audit,
        cross_validate,
        embed,
        find_cache,
        learning_curve,
        load_run,
        load_runs,
        report,
        train,
    )
    from spacelite.estimators import (
        AdditiveClassifier,
        FrozenEncoder,
        LinearClassifier,
        LogregClassifier,
        MLPClassifier,
        SpaceClassifier,
        SpaceSearchCV,
        TfidfClassifier,
    )
    from spacelite.reports.report import Report

__version__ = "0.1.0"

__all__ = [
    "AdditiveClassifier",
    "CrossValidated",
    "EmbeddedDataset",
    "Evaluation",
    "FrozenEncoder",
    "LabelAudit",
    "LearningCurve",
    "LinearClassifier",
    "LogregClassifier",
    "MLPClassifier",
    "Report",
    "Runs",
    "SpaceClassifier",
    "SpaceSearchCV",
    "SpaceliteError",
    "TextExplanation",
    "TextPredictions",
    "TfidfClassifier",
    "TrainedRun",
    "__version__",
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
        **dict.fromkeys(
            (
                "CrossValidated", "EmbeddedDataset", "Evaluation", "LabelAudit", "LearningCurve",
                "Runs", "TextExplanation", "TextPredictions", "TrainedRun", "audit",
                "cross_validate", "embed", "find_cache", "learning_curve", "load_run", "load_runs",
                "report", "train",
            ),
            "api",
        ),
        **dict.fromkeys(
            (
                "AdditiveClassifier", "FrozenEncoder", "LinearClassifier", "LogregClassifier",
                "MLPClassifier", "SpaceClassifier", "SpaceSearchCV", "TfidfClassifier",
            ),
            "estimators",
        ),
        "Report": "reports.report",
    },
)  # fmt: skip
