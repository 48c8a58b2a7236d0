"""Figures of activation functions and of what trained networks decide: frames in, Figures out.

Nothing here loads torch, touches the user's matplotlib settings or writes to disk, but `save`.
"""

from acon_figures.plots.beta_distributions import beta_distributions
from acon_figures.plots.function_and_derivatives import function_and_derivatives
from acon_figures.registry import FIGURES, FigureSpec, find
from acon_figures.saving import save
from acon_figures.style import AconFigure, theme

__all__ = [
    "FIGURES",
    "AconFigure",
    "FigureSpec",
    "beta_distributions",
    "find",
    "function_and_derivatives",
    "save",
    "theme",
]
