"""A run in forms that other programs load: each is compared with `predict` before it is there."""
