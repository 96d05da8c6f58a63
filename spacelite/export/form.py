"""What a form of export is: one class, in a file of its own."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spacelite.backbones.tokenizer import held_tokenizer
from spacelite.errors import SpaceliteError
from spacelite.inference.prediction import Predictor
from spacelite.progress import OnProgress
from spacelite.runs.store import Run
from spacelite.types import Array

TOLERANCE = 1e-4  # of a probability


@dataclass(frozen=True)
class Source:
    """What a form is made of: a run, and its backbone on the CPU in float32."""

    run: Run
    backbone: str | None  # its folder, if it was a local one
    texts: Sequence[str] = ()  # of its own data, with which a form is compared
    on_progress: OnProgress = lambda phase, done, total: None

    @cached_property
    def predictor(self) -> Predictor:
        """What the form reproduces. Raises SpaceliteError if the backbone is not the run's."""
        return Predictor(self.run, self.backbone, device="cpu", precision="float32")

    @cached_property
    def expected(self) -> Array:
        """What `predict` gives for the texts, (N, C)."""
        return self.predictor.predict(self.texts, self.on_progress).probabilities

    @property
    def tokenizer(self) -> Any:
        """The backbone's tokenizer."""
        return held_tokenizer(self.predictor.files)

    @property
    def has_backbone(self) -> bool:
        """Whether the head reads hidden states, and not token ids alone."""
        return not self.run.head.reads_only_ids


class Form(ABC):
    """A form in which a run is exported.

    Attributes:
        name: Its name in FORMS.
        extra: The extra of the package that it needs; None if it needs none.
        modules: The modules of that extra.
        quantizations: The number types that weights can be rounded to, which costs accuracy.
        library: The hub's name of the library that loads it.
        is_copy: Whether it holds the run's own head for `predict` itself: `write` checks that, and
            there is nothing to compare.
    """

    name: ClassVar[str]
    extra: ClassVar[str | None] = None
    modules: ClassVar[Sequence[str]] = ()
    quantizations: ClassVar[Sequence[str]] = ()
    library: ClassVar[str]
    is_copy: ClassVar[bool] = False

    def require(self, run: Run) -> None:
        """Raise SpaceliteError if a module that the form of a run needs is not installed."""
        missing = [name for name in self.modules if importlib.util.find_spec(name) is None]
        if missing:
            raise SpaceliteError(
                f"to={self.name} needs {', '.join(missing)}: pip install 'spacelite[{self.extra}]'",
                ["to"],
            )

    def refusal(self, run: Run) -> str | None:
        """Why a run cannot take this form, and what to do; None if it can. Loads no backbone."""
        return None

    @abstractmethod
    def write(self, source: Source, folder: Path) -> list[str]:
        """Write the files of the form into an empty folder; return what users should know of it,
        in sentences. Raises OSError, and SpaceliteError for what cannot be exported."""

    def inexact(self, run: Run) -> str | None:
        """Why probabilities may differ from those of `predict`, and what to do."""
        return None

    @abstractmethod
    def use(self, run: Run, name: str, folder: Path) -> str:
        """Code that shows how the form is used from `name`, a folder or a repository, in
        Markdown; `folder` has its files."""

    @abstractmethod
    def probabilities(self, source: Source, folder: Path, texts: Sequence[str]) -> Array:
        """The probabilities of N texts, (N, C), as the library that the form is for computes them
        from the files of the folder."""

    def quantize(self, folder: Path, to: str) -> None:
        """Round the weights in a folder to one of `quantizations`."""
        raise NotImplementedError


def largest(given: Array, expected: Array) -> float:
    """The largest difference of a probability; NaN if one is not a number."""
    return float(np.abs(np.asarray(given, np.float64) - expected).max())
