"""Texts and labels: a name, a path or Python objects -> checked, numbered splits."""
