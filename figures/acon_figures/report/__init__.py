"""A run as one page that can be mailed: no network, no framework, one file."""

from acon_figures.report.rendering import write_report

__all__ = ["write_report"]
