"""Figures of activation functions and of what trained networks decide: frames in, Figures out.

Nothing here loads torch, touches the user's matplotlib settings or writes to disk, but `save`
and `write_report`. Each file of `acon_figures.plots` holds one function that draws, which is a name
of this package, too: ``acon_figures.slopes``. It is imported when it is first used. A figure of
`FIGURES` also takes captured runs in place of frames: ``acon_figures.linearity_by_depth(run)``.
"""

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any

from acon_analysis.errors import closest
from acon_figures.registry import FIGURES, PLOTS, find
from acon_figures.spec import FigureSpec

if TYPE_CHECKING:
    from acon_figures.report.rendering import write_report
    from acon_figures.saving import save
    from acon_figures.sliders import explore_unit
    from acon_figures.style import AconFigure, theme

#: Public name -> the module that holds it.
_LAZY = {name: f"acon_figures.plots.{name}" for name in PLOTS} | {
    "AconFigure": "acon_figures.style",
    "explore_unit": "acon_figures.sliders",
    "save": "acon_figures.saving",
    "theme": "acon_figures.style",
    "write_report": "acon_figures.report.rendering",
}

__all__ = [
    "FIGURES", "AconFigure", "FigureSpec", "explore_unit", "find", "save", "theme", "write_report",
    *PLOTS,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _LAZY:
        raise AttributeError(
            f"module 'acon_figures' has no attribute {name!r}; {closest(name, __all__)}"
        )
    value = getattr(import_module(_LAZY[name]), name)
    if name in FIGURES:
        value = _taking_runs(value, FIGURES[name])
    globals()[name] = value
    return value


def _taking_runs(function: Callable[..., Any], spec: FigureSpec) -> Callable[..., Any]:
    """Return a figure's function that takes captured runs, too."""

    @wraps(function)
    def draw(*args: Any, **options: Any) -> Any:
        from acon_analysis.runs.run import Run
        from acon_figures.drawing import draw_runs

        if args and all(isinstance(one, Run) for one in args):
            return draw_runs(spec, args, **options)
        return function(*args, **options)

    return draw


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
