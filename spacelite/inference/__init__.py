"""A run on new input. In: a run and texts, or other data. Out: probabilities, words, metrics."""

from spacelite.inference.explanation import (
    Explanation,
    Word,
    explain,
    explain_example,
    explain_text,
)
from spacelite.inference.marks import Marked, marked
from spacelite.inference.prediction import (
    Predicted,
    Predictor,
    backbone_files,
    check_minimum,
    predict,
    refuse_path,
)
from spacelite.inference.shares import Shares, has_shares, require_shares
from spacelite.inference.streaming import predict_batches
from spacelite.lazy import exports

__all__ = [
    "Explanation",
    "Marked",
    "Predicted",
    "Predictor",
    "Shares",
    "Word",
    "backbone_files",
    "check_minimum",
    "evaluate",
    "explain",
    "explain_example",
    "explain_text",
    "has_shares",
    "label_numbers",
    "marked",
    "parse_mapping",
    "predict",
    "predict_batches",
    "refuse_path",
    "require_shares",
]

__getattr__ = exports(
    __name__,
    dict.fromkeys(("evaluate", "label_numbers", "parse_mapping"), "transfer"),
)
