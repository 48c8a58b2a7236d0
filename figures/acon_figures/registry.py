"""All figures by name, read from the files of `acon_figures.plots` without importing them."""

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from acon_analysis.errors import UsageError, closest
from acon_figures import plots
from acon_figures.spec import FigureSpec

if TYPE_CHECKING:
    import pandas as pd


def _plot_files() -> dict[str, Path]:
    """Return the files of all plots by name, registered or not."""
    files = (file for folder in plots.__path__ for file in Path(folder).glob("[!_]*.py"))
    return {file.stem: file for file in sorted(files)}


def _spec(name: str, file: Path) -> FigureSpec | None:
    """Read the arguments of ``@figure`` and the first line of a file; None without ``@figure``."""
    module = ast.parse(file.read_text(encoding="utf-8"), str(file))
    functions = (one for one in module.body if isinstance(one, ast.FunctionDef))
    decorators = (one for own in functions if own.name == name for one in own.decorator_list)
    calls = (one for one in decorators if isinstance(one, ast.Call))
    call = next((one for one in calls if ast.unparse(one.func) == "figure"), None)
    if call is None:
        return None
    try:
        arguments = {one.arg or "": ast.literal_eval(one.value) for one in call.keywords}
    except ValueError as error:
        raise ValueError(f"{file}: the arguments of @figure must be literals: {error}") from error
    description = (ast.get_docstring(module) or "").partition("\n")[0].removesuffix(".")
    return FigureSpec(**arguments, name=name, description=description)


def _specs() -> dict[str, FigureSpec]:
    found = (_spec(name, file) for name, file in _plot_files().items())
    specs = sorted((one for one in found if one), key=lambda spec: (spec.order, spec.name))
    return {spec.name: spec for spec in specs}


#: Names of all functions that draw, one a file; those with arguments of their own are not in
#: `FIGURES`.
PLOTS = tuple(_plot_files())

#: All figures by name, in the order of the gallery.
FIGURES: dict[str, FigureSpec] = _specs()


def find(name: str) -> FigureSpec:
    """Return a figure of the registry; an unknown name raises a UsageError with near names."""
    if name not in FIGURES:
        raise UsageError(f"there is no figure {name!r}; {closest(name, FIGURES)}")
    return FIGURES[name]


def figure_table() -> "pd.DataFrame":
    """Return a row a figure: ``name, kind, needs, description``."""
    import pandas as pd

    rows = [
        (spec.name, spec.kind, ", ".join(spec.required) or "-", spec.description)
        for spec in FIGURES.values()
    ]
    return pd.DataFrame(rows, columns=["name", "kind", "needs", "description"])
