"""The memory of one pass over the tokens, and what is said where it is not enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from spacelite.errors import SpaceliteError, is_out_of_memory


@contextmanager
def shortage_explained(heads: int) -> Iterator[None]:
    """Raise SpaceliteError in place of an exception that means that memory ran out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise SpaceliteError(
            f"not enough memory for {heads} heads at once: train fewer at a time, with a "
            "smaller batch_size, or with fewer latent dimensions",
            ["batch_size"],
        ) from error
