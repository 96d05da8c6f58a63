"""Frozen transformers: a name -> files -> token ids -> hidden states, and back to words."""
