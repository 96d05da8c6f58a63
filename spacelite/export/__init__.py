"""A run in forms that other programs load, each compared with `predict`; and as a service."""
