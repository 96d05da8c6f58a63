"""Embed a data set once with a frozen transformer; train small heads on the cached hidden states.

The pipeline, one module a step, each importing only from those before it:
data -> backbone -> store -> embedding -> batches -> heads -> training -> runs -> report
"""

__version__ = "0.1.0"
