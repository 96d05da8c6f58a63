"""A trained head on disk. In: a trained head. Out: a run that can be loaded, found and compared."""
