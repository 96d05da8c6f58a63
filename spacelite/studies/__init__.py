"""Questions that many heads of one pass answer, each trained on its own examples. In: a cache and
configs of heads. Out: figures with their spread."""

from typing import TYPE_CHECKING

from spacelite.lazy import exports

if TYPE_CHECKING:
    from spacelite.studies.audit import Audit, audit_labels
    from spacelite.studies.cross_validation import CrossValidation, cross_validate
    from spacelite.studies.learning_curves import Curve, learning_curve

__all__ = [
    "Audit",
    "CrossValidation",
    "Curve",
    "audit_labels",
    "cross_validate",
    "learning_curve",
]

__getattr__ = exports(
    __name__,
    {
        **dict.fromkeys(("Audit", "audit_labels"), "audit"),
        **dict.fromkeys(("CrossValidation", "cross_validate"), "cross_validation"),
        **dict.fromkeys(("Curve", "learning_curve"), "learning_curves"),
    },
)
