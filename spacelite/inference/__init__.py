"""A run on new input. In: a run and texts, or other data. Out: probabilities, words, metrics."""
