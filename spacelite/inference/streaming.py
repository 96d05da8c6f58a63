"""A stream of texts -> probabilities, batch by batch: memory holds one batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from spacelite.errors import SpaceliteError
from spacelite.inference.prediction import OnProgress, Predicted, Predictor, warn_of_truncated

# The first batch is small, so that the first results come soon.
FIRST_TEXTS, TEXTS = 100, 1000
CHARACTERS = 4_000_000  # with which a batch is full, too


class PredictedBatch(NamedTuple):
    """Some texts of a stream, in its order, and their predictions."""

    texts: list[str]
    predicted: Predicted


def predict_batches(
    predictor: Predictor,
    texts: Iterable[str],
    *,
    total: int | None = None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Iterator[PredictedBatch]:
    """Classify a stream of texts, which is read only as far as results are asked for.

    Args:
        predictor: The run with its backbone.
        texts: The texts.
        total: Their number, if it is known, for the progress.
        on_progress: Called with the phase `predict`, the texts done and the total (0: unknown).

    Yields:
        Batches of texts with their predictions.

    Raises:
        SpaceliteError: A text is empty, or there is no text.
    """
    done = truncated = 0
    for batch in _batches(texts):

        def advance(
            phase: str, part: int, whole: int, before: int = done, size: int = len(batch)
        ) -> None:
            if phase == "embed":
                on_progress("predict", before + size * part // max(1, whole), total or 0)

        predicted = predictor.predict(batch, advance, before=done)
        done, truncated = done + len(batch), truncated + predicted.truncated
        on_progress("predict", done, total or 0)
        yield PredictedBatch(batch, predicted)
    if not done:
        raise SpaceliteError("there is no text: give at least a word")
    warn_of_truncated(predictor.run, truncated, done)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters, most = 0, FIRST_TEXTS
    for text in texts:
        batch.append(text)
        characters += len(text) if isinstance(text, str) else 0
        if len(batch) >= most or characters >= CHARACTERS:
            yield batch
            batch, characters, most = [], 0, TEXTS
    if batch:
        yield batch
