"""Pictures for the pages of measures and of the guide, drawn from code at build time."""

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from acon_docs.pages import Folder

BLUE, ORANGE, GREEN, GREY = "#0173b2", "#de8f05", "#029e73", "#767676"
_STYLE: Any = {
    "figure.dpi": 110,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
#: Name of the file -> width and height in inches, columns of axes, and what draws on them.
PICTURES: dict[str, tuple[float, float, int, Callable[..., None]]] = {}


def picture(
    width: float = 7.0, height: float = 2.6, axes: int = 1
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function that draws on a figure's axes, under its name."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        PICTURES[function.__name__] = (width, height, axes, function)
        return function

    return add


def _draw(name: str) -> bytes:
    """Return a picture as PNG; equal code gives equal bytes."""
    width, height, count, function = PICTURES[name]
    with plt.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        axes = figure.subplots(1, count, squeeze=False)[0]
        function(*axes)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def write(folder: "Folder") -> None:
    """Write every picture into the folder ``pictures`` of the documentation."""
    from acon_docs import (  # noqa: F401 - they register
        guide_pictures,
        measure_pictures,
        ranking_pictures,
    )

    for name in PICTURES:
        folder.file(f"pictures/{name}.png", _draw(name))
