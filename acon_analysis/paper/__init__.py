"""The numbers that the ACON paper and its official repository print, as frames and as text."""

from acon_analysis.paper.numbers import PaperTable
from acon_analysis.paper.tables import (
    TABLES,
    best_mask,
    contradictions,
    describe,
    overview,
    printed,
    table,
)

__all__ = [
    "TABLES", "PaperTable", "best_mask", "contradictions", "describe", "overview", "printed",
    "table",
]  # fmt: skip
