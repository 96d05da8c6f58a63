"""The published tables. In: runs, or nothing yet. Out: the row that a run is compared with; every
row measured from scratch."""

from spacelite.lazy import exports
from spacelite.paper.tables import (
    PublishedRow,
    RowOutcome,
    average_of_table,
    differences,
    hub_name,
    matching,
    protocol,
    published,
    same_backbone,
)

__all__ = [
    "PublishedRow",
    "ReproduceOptions",
    "RowOutcome",
    "average_of_table",
    "differences",
    "hub_name",
    "matching",
    "protocol",
    "published",
    "reproduce",
    "same_backbone",
]

__getattr__ = exports(__name__, {"ReproduceOptions": "reproduction", "reproduce": "reproduction"})
