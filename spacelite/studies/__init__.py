"""Studies with many heads of one pass, each trained on its own examples: cross-validation, learning
curve, audit of labels. In: a cache and configs of heads. Out: figures with their spread, as tables,
sentences and the part of a report."""
