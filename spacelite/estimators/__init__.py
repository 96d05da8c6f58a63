"""scikit-learn estimators on texts. In: X and y. Out: predictions; nothing is saved but the hidden
states of texts, so that none is embedded twice."""

from typing import TYPE_CHECKING

from spacelite.lazy import exports

if TYPE_CHECKING:
    from spacelite.estimators.additive import AdditiveClassifier
    from spacelite.estimators.baselines import LogregClassifier, TfidfClassifier
    from spacelite.estimators.encoder import FrozenEncoder
    from spacelite.estimators.search import SpaceSearchCV
    from spacelite.estimators.trained import LinearClassifier, MLPClassifier, SpaceClassifier

__all__ = [
    "AdditiveClassifier",
    "FrozenEncoder",
    "LinearClassifier",
    "LogregClassifier",
    "MLPClassifier",
    "SpaceClassifier",
    "SpaceSearchCV",
    "TfidfClassifier",
]

__getattr__ = exports(
    __name__,
    {
        "AdditiveClassifier": "additive",
        **dict.fromkeys(("LogregClassifier", "TfidfClassifier"), "baselines"),
        "FrozenEncoder": "encoder",
        "SpaceSearchCV": "search",
        **dict.fromkeys(("LinearClassifier", "MLPClassifier", "SpaceClassifier"), "trained"),
    },
)
