"""scikit-learn estimators on texts. In: X and y. Out: predictions; nothing is saved but the hidden
states of texts, so that none is embedded twice."""

import sys

from spacelite.estimators import classifiers
from spacelite.heads import linear, ngrams

# Pickles name the modules of classes: those of earlier versions are still found.
sys.modules |= {
    "spacelite.estimators.additive": classifiers,
    "spacelite.estimators.baselines": classifiers,
    "spacelite.estimators.encoder": classifiers,
    "spacelite.estimators.trained": classifiers,
    "spacelite.heads.logreg": linear,
    "spacelite.heads.mlp": linear,
    "spacelite.heads.tfidf": ngrams,
}
