"""Words that people marked in the texts of a data set, and how a run's explanations do against
them. Shapes: N examples of a split."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spacelite.api.arguments import is_list, unusable
from spacelite.api.columns import column_values
from spacelite.cache import texts as cached_texts
from spacelite.cache.store import Cache
from spacelite.data.loading import column_of_object, column_of_rows
from spacelite.data.splits import TextDataset, joined
from spacelite.errors import SpaceliteError
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.rationales import FORMS, Rationales
from spacelite.runs import store
from spacelite.runs.record import shown_split
from spacelite.runs.store import Run
from spacelite.settings import non_negative, one_of, optional, require, whole_number
from spacelite.studies import rationales as study
from spacelite.types import Array

AS_LIST = "give a file, a DataFrame, or the marks as a list in Python, one for each text"


@dataclass(frozen=True)
class Wish:
    """What `evaluate` is asked about marked words."""

    given: Sequence[Any] | str  # the name of a column, or N marks
    form: str = "auto"
    against: int | None = None  # number of a label
    top: int | None = None  # words; None: as many as are marked on average
    spread: float = 0.0

    @classmethod
    def read(
        cls,
        run: Run,
        rationales: Sequence[Any] | str | None,
        rationales_as: str,
        against: str | None,
        rationales_top: int | None,
        rationales_spread: float,
    ) -> Wish | None:
        """The wish, if there is one. Raises SpaceliteError where it cannot be fulfilled."""
        require("rationales_as", rationales_as, one_of("auto", *FORMS))
        require("rationales_top", rationales_top, optional(whole_number(1)))
        require("rationales_spread", rationales_spread, _below_one)
        if rationales is None:
            for name, value, usual in (
                ("rationales_as", rationales_as, "auto"),
                ("against", against, None),
                ("rationales_top", rationales_top, None),
                ("rationales_spread", rationales_spread, 0.0),
            ):
                if value != usual:
                    raise SpaceliteError(
                        f"{name}={value} has no effect without rationales=...",
                        [name, "rationales"],
                    )
            return None
        if not (isinstance(rationales, str) or is_list(rationales)):
            raise unusable("rationales", rationales, "give a column's name, or marks of each text")
        given = rationales if isinstance(rationales, str) else list(rationales)
        label = study.require(run, against)
        return cls(given, rationales_as, label, rationales_top, rationales_spread)

    @property
    def about(self) -> str:
        """The marks in messages."""
        return f"rationales={self.given}" if isinstance(self.given, str) else "rationales"


def _below_one(value: Any) -> str | None:
    return non_negative(value) or ("give a number below 1" if value >= 1 else None)


class Marked(NamedTuple):
    """The texts of the validation and test splits, and which of their words are marked."""

    texts: dict[str, Sequence[str]]  # by split
    marks: dict[str, list[Array]]  # (W,) bool each
    form: str


def read_data(wish: Wish, dataset: Any, data: TextDataset) -> Marked:
    """The marks in a data set, which was read from `dataset`."""

    def values(split: str) -> tuple[list[Any], Sequence[object]]:
        part, given = data.splits[split], wish.given
        if not isinstance(given, str):
            return _of_list(given, {name: len(of) for name, of in data.splits.items()})
        every = [*part.texts]
        if part.sources is None or (data.path is None and isinstance(dataset, str | Path)):
            raise SpaceliteError(
                f"{wish.about}: {data.name} was not read from a file: {AS_LIST}", ["rationales"]
            )
        if data.path is None:
            found = column_of_object(dataset, data.name, given, part.sources, every, "rationales")
        else:
            found = column_of_rows(
                Path(data.path), data.name, given, part.sources, every, "rationales",
                quoting=data.quoting,
            )  # fmt: skip
        return found, [part.sources[number] for number in range(len(every))]

    return _read(
        wish, {name: [*map(joined, part.texts)] for name, part in data.splits.items()}, values
    )


def read_cache(wish: Wish, cache: Cache) -> Marked:
    """The marks in the data that a cache was embedded from."""

    def values(split: str) -> tuple[list[Any], Sequence[object]]:
        if isinstance(wish.given, str):
            return column_values(cache, wish.given, "rationales", split, AS_LIST)
        return _of_list(wish.given, {name: len(of) for name, of in cache.splits.items()})

    every = {}
    for name, split in cache.splits.items():
        written = cached_texts.read(cache, name)
        if written is None:
            raise SpaceliteError(
                f"{wish.about}: cache {cache.name} does not hold its texts: run its embed command "
                "again, which writes them",
                ["rationales"],
            )
        every[name] = [joined(written.text(row)) for row in range(len(split))]
    return _read(wish, every, values)


def _of_list(given: Sequence[Any], counts: Mapping[str, int]) -> tuple[list[Any], list[str]]:
    """Marks that were given as a list, for the texts of a single split."""
    if [*counts.values()] != [len(given)]:
        of_splits = ", ".join(f"{count:,} texts of {name}" for name, count in counts.items())
        raise SpaceliteError(
            f"rationales: {len(given):,} marks for {of_splits}: give one for each text of a single "
            "split, or the name of a column",
            ["rationales"],
        )
    return list(given), [f"text {number:,}" for number in range(1, len(given) + 1)]


def _read(
    wish: Wish,
    every: Mapping[str, Sequence[str]],
    values: Callable[[str], tuple[list[Any], Sequence[object]]],
) -> Marked:
    """The marks of the validation and test splits; `values` gives what is written of a split, and
    where each text is."""
    of_splits = {name: of for name, of in every.items() if name != "train"}
    if not of_splits:
        raise SpaceliteError(
            f"{wish.about}: the data have neither a test nor a validation split: name one so",
            ["rationales"],
        )
    given, wheres = zip(*map(values, of_splits), strict=True)
    values_of, texts_of, wheres_of = (
        [*itertools.chain.from_iterable(of)] for of in (given, of_splits.values(), wheres)
    )
    marks, form = study.read_marks(values_of, texts_of, wheres_of, wish.about, wish.form)
    rest = iter(marks)
    of_split = {name: [*itertools.islice(rest, len(of))] for name, of in of_splits.items()}
    if not any(of_text.any() for of_text in of_split[shown_split(of_split)]):
        raise SpaceliteError(
            f"{wish.about}: no text of {shown_split(of_split)} has a marked word: name another "
            "column, or another data set",
            ["rationales"],
        )
    return Marked(of_splits, of_split, form)


def measure(
    wish: Wish,
    run: Run,
    marked: Marked,
    predictions: Mapping[str, Predictions],
    **how: Any,
) -> Rationales:
    """Compare a run's explanations with the marks of the split that reports show. `predictions` are
    those of an evaluation on these data; `how` are arguments of `study.compare`."""
    split = shown_split(predictions)
    texts, marks, about = _kept(wish, marked, split, predictions[split])
    if not texts:
        raise SpaceliteError(
            f"{wish.about}: no text of {split} with a marked word is left to be explained: map its "
            "labels to others, or leave out against=...",
            ["rationales", "labels", "against"],
        )
    top, top_of = wish.top, None
    if top is None:
        of_top, top_of = marks, f"these texts of {split}"
        if split == "test" and "validation" in predictions:
            _, on_validation, _ = _kept(wish, marked, "validation", predictions["validation"])
            if on_validation:
                of_top, top_of = on_validation, "validation"
        top = max(1, round(float(np.mean([of_text.sum() for of_text in of_top]))))
    about |= {"split": split, "form": marked.form, "top_of": top_of}
    return study.compare(
        run, texts, marks, about, against=wish.against, top=top, spread=wish.spread,
        ngrams=_ngrams(run), **how,
    )  # fmt: skip


def _kept(
    wish: Wish, marked: Marked, split: str, predictions: Predictions
) -> tuple[list[str], list[Array], dict[str, Any]]:
    """The texts of a split that have marks and another label than that which marked words speak
    against, their marks, and how many have not."""
    every = predictions.index.tolist()
    has = [number for number, row in enumerate(every) if marked.marks[split][row].any()]
    kept = [every[number] for number in has if predictions.labels[number] != wish.against]
    left_out = {"unmarked": len(every) - len(has), "of_against": len(has) - len(kept)}
    texts = [marked.texts[split][row] for row in kept]
    return texts, [marked.marks[split][row] for row in kept], left_out


def _ngrams(run: Run) -> Run | None:
    """The newest tfidf run of the same cache; None beside a run that is one."""
    if run.head.kind == "tfidf":
        return None
    alike = [
        other
        for other in store.load_all(run.folder.parent.parent)
        if other.head.kind == "tfidf" and other.record.cache_key == run.record.cache_key
    ]
    return alike[-1] if alike else None
