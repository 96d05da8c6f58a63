"""Hidden states in fewer dimensions: their first principal axes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from spacelite.cache.dtypes import varies
from spacelite.errors import SpaceliteError
from spacelite.lazy import torch
from spacelite.types import Array

AUTO = "auto"  # in place of K: as many axes as keep KEPT of the variance
KEPT = 0.99
SAMPLED = 64  # tokens for each dimension of hidden states that axes are fitted on
SEED = 0  # of the order of texts in which they are taken


@dataclass(frozen=True, eq=False)
class Reduction:
    """Hidden states projected on K principal axes: of hidden states h (n, d), (h - mean) @ axes.T.

    The axes are those of standardised dimensions (of the correlation matrix: Jolliffe 2002,
    Principal Component Analysis, section 2.3), with the standardisation in them, so that a
    dimension counts however large its numbers are; one that does not vary is left out.
    """

    mean: Array  # (d,) float32
    axes: Array  # (K, d) float32
    shares: Array  # of the variance of the standardised dimensions, (K,) float64, in falling order

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Reduction:
        """From its arrays by name. Raises KeyError or ValueError if they are not there, or do not
        fit together."""
        reduction = cls(arrays["mean"], arrays["axes"], arrays["shares"])
        count, width = reduction.axes.shape
        if reduction.mean.shape != (width,) or reduction.shares.shape != (count,):
            raise ValueError("the mean, axes and shares of its reduction do not fit together")
        if not all(np.isfinite(values).all() for values in reduction.arrays.values()):
            raise ValueError("a number of its reduction is not finite")
        return reduction

    @property
    def arrays(self) -> dict[str, Array]:
        """Its arrays by name, as files hold them."""
        return {"mean": self.mean, "axes": self.axes, "shares": self.shares}

    @property
    def dimensions(self) -> int:
        """K, of what hidden states become."""
        return len(self.axes)

    @property
    def width(self) -> int:
        """d, of hidden states."""
        return len(self.mean)

    @property
    def kept(self) -> float:
        """The share of the variance of the standardised dimensions that the axes keep."""
        return float(self.shares.sum())

    def __str__(self) -> str:
        """What identifies it in the spec of a cache with the same: a hash of mean and axes."""
        content = b"".join(values.astype("<f4").tobytes() for values in (self.mean, self.axes))
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def as_json(self) -> dict[str, float | int]:
        """What `cache info --json` prints."""
        return {"dimensions": self.dimensions, "of": self.width, "kept": self.kept}

    def on(self, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
        """What hidden states (..., d) float32 on a device become there, (..., K) float32."""
        # Sums in float32 depend on how many texts a processor multiplies at once, and a run that is
        # continued would write other bytes.
        exact = torch.float64 if torch.device(device).type == "cpu" else torch.float32
        arrays = (self.mean, self.axes)
        mean, axes = (torch.from_numpy(array).to(device, exact) for array in arrays)
        return lambda hidden: ((hidden.to(exact) - mean) @ axes.T).to(hidden.dtype)

    @property
    def words(self) -> str:
        """What it does, in words."""
        return (
            f"{self.dimensions} of {self.width} dimensions, which keep {100 * self.kept:.1f}% of "
            "the variance"
        )


class Moments:
    """The mean and covariance of tokens, in float64."""

    def __init__(self, width: int) -> None:
        self.tokens = 0
        self._mean, self._apart = np.zeros(width), np.zeros((width, width))

    def add(self, hidden: Array) -> None:
        """Add tokens (n, d), as Chan, Golub & LeVeque (1983) join groups."""
        rows = hidden.astype(np.float64)
        mean, before = rows.mean(axis=0), self.tokens
        self.tokens += len(rows)
        rows -= mean
        step = mean - self._mean
        self._apart += rows.T @ rows + np.outer(step, step) * (before * len(rows) / self.tokens)
        self._mean += step * (len(rows) / self.tokens)

    def reduction(self, wanted: str) -> Reduction:
        """The first principal axes (Pearson 1901, Hotelling 1933) of the standardised tokens: as
        many as `wanted`, or, if that is AUTO, as keep KEPT of the variance. Raises SpaceliteError
        if there are too few tokens, or too few dimensions that vary."""
        width = len(self._mean)
        if self.tokens <= width:
            raise SpaceliteError(
                f"reduce={wanted}: {self.tokens:,} train tokens are too few for the axes of "
                f"{width:,} dimensions: leave it out",
                ["reduce"],
            )
        deviation = np.sqrt(np.diag(self._apart) / self.tokens)
        known = varies(torch.from_numpy(self._mean), torch.from_numpy(deviation)).numpy()
        count = int(known.sum())
        if count < (1 if wanted == AUTO else int(wanted)):
            remedy = f"give at most {count:,}" if count else "leave it out"
            raise SpaceliteError(
                f"reduce={wanted}: {count:,} of the {width:,} dimensions of the hidden states "
                f"differ from token to token: {remedy}",
                ["reduce"],
            )
        scale = np.divide(1, deviation, out=np.zeros(width), where=known)
        variances, vectors = np.linalg.eigh(self._apart / self.tokens * np.outer(scale, scale))
        shares, vectors = (variances / count)[::-1], vectors[:, ::-1].T
        kept = int(np.searchsorted(np.cumsum(shares), KEPT)) + 1 if wanted == AUTO else int(wanted)
        axes = vectors[:kept]
        # The sign of an axis is arbitrary: make its largest component positive.
        axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
        return Reduction(
            self._mean.astype(np.float32), (axes * scale).astype(np.float32), shares[:kept].copy()
        )
