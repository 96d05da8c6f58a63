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
    backbone_files,
    check_minimum,
    lines,
    predict,
    read_texts,
    refuse_path,
)
from spacelite.inference.shares import Shares, has_shares, require_shares
from spacelite.lazy import exports

__all__ = [
    "Explanation",
    "Marked",
    "Predicted",
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
    "lines",
    "marked",
    "parse_mapping",
    "predict",
    "read_texts",
    "refuse_path",
    "require_shares",
]

__getattr__ = exports(
    __name__,
    dict.fromkeys(("evaluate", "label_numbers", "parse_mapping"), "transfer"),
)
