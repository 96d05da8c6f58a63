"""A learning curve as it is drawn, whatever draws it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Series:
    """The curve of a system.

    Attributes:
        name: Its name.
        sizes: Numbers of training examples.
        means: The metric at each, a mean over seeds; NaN where there is none.
        deviations: Its standard deviation over seeds; NaN where there is none.
        line: The fitted power law as points (size, metric), up to twice the largest size; empty if
            there is none.
        ahead: What is extrapolated: the size, the metric there, and its 95% interval, from NaN to
            NaN if that is not known; None if nothing is.
    """

    name: str
    sizes: list[int]
    means: list[float]
    deviations: list[float]
    line: list[tuple[float, float]] = field(default_factory=list)
    ahead: tuple[int, float, float, float] | None = None

    @property
    def band(self) -> tuple[list[int], list[float], list[float]] | None:
        """The sizes with a standard deviation, and the mean less and plus one; None if there are
        none."""
        known = [
            (size, mean - own, mean + own)
            for size, mean, own in zip(self.sizes, self.means, self.deviations, strict=True)
            if not math.isnan(mean - own)
        ]
        if not known:
            return None
        sizes, low, high = zip(*known, strict=True)
        return list(sizes), list(low), list(high)


@dataclass(frozen=True)
class Chart:
    """A learning curve as it is drawn.

    Attributes:
        name: Name of its files, without suffix.
        heading: What is drawn.
        text: The same, for those who cannot see it.
        series: The systems, best first.
    """

    name: str
    heading: str
    text: str
    series: list[Series]

    @property
    def sizes(self) -> list[int]:
        """All numbers of examples that are drawn, what is extrapolated last."""
        ahead = [one.ahead[0] for one in self.series if one.ahead is not None]
        return list(dict.fromkeys([*self.series[0].sizes, *ahead]))

    @property
    def ticks(self) -> list[str]:
        """What stands at each of the sizes: twice the largest one is too close to it for its
        number."""
        measured = self.series[0].sizes
        return [f"{size:,}" if size in measured else "×2" for size in self.sizes]
