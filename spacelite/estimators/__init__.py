"""scikit-learn estimators on texts. In: X and y. Out: predictions; nothing is saved but the hidden
states of texts, so that none is embedded twice."""
