"""In: runs. Out: what they show (analysis), as blocks (document), in every form (render)."""

from spacelite.reports.report import Report, build

__all__ = ["Report", "build"]
