"""What the results of studies have in common: how they are shown, in reports and elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from spacelite.document import Block, Bullets, Chart, Heading, Plot, Table


class Study(ABC):
    """The result of a study."""

    title: ClassVar[str]  # of its part of a report

    @abstractmethod
    def tables(self) -> list[Table]:
        """The figures."""

    def chart(self) -> Chart | None:
        """What is drawn, if anything."""
        return None

    @property
    @abstractmethod
    def sentences(self) -> list[str]:
        """What was found, and how."""

    def report_blocks(self, origin: str, number: str) -> list[Block]:
        """The part of a report; `origin` is a sentence that says where the figures come from,
        `number` that of the part, which is in the plot's name."""
        blocks: list[Block] = [Heading(2, self.title)]
        chart = self.chart()
        if chart is not None:
            blocks.append(Plot(chart.name, f"{chart.name}-{number}", chart.text, chart))
        return [*blocks, *self.tables(), Bullets([origin, *self.sentences])]
