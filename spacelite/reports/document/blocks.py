"""The blocks of a report, under the name that sections from outside import them by."""

from spacelite.document import Block as Block
from spacelite.document import Bullets as Bullets
from spacelite.document import Cell as Cell
from spacelite.document import Heading as Heading
from spacelite.document import Line as Line
from spacelite.document import Mistakes as Mistakes
from spacelite.document import Paragraph as Paragraph
from spacelite.document import Plot as Plot
from spacelite.document import Table as Table
