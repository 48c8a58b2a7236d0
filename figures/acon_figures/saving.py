"""Write a figure to disk: the same figure gives the same bytes, whenever and wherever."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.files import atomic_write, spelled
from acon_figures.style import theme

FORMATS = ("png", "pdf", "svg")

# Dates and version numbers would change the bytes; None leaves an entry out.
METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": "acon-analysis"},
    "pdf": {"Creator": "acon-analysis", "Producer": "matplotlib", "CreationDate": None},
    "svg": {"Creator": "acon-analysis", "Date": None},
}


def save(
    figure: Figure,
    folder: str | Path,
    name: str,
    formats: Sequence[str] = FORMATS,
    *,
    caption: str | None = None,
    dpi: int = 300,
) -> list[Path]:
    """Save a figure in several formats, with its caption as a text file.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What to save.
    folder : str or Path
        Made if it is missing.
    name : str
        File name without its ending.
    formats : sequence of str
        Any of "png", "pdf", "svg". PDF and SVG keep text as text.
    caption : str, optional
        By default the figure's own `caption`; nothing is written where both are empty.
    dpi : int
        Points per inch of the PNG.

    Returns
    -------
    list of Path
        The files written, pictures first, in the order of `formats`; an existing file is
        replaced in one step.

    Raises
    ------
    UsageError
        For an unknown format, or a name that is not a plain file name.
    AconError
        If the folder cannot be made or written.
    """
    if isinstance(formats, str):
        formats = (formats,)
    for one in formats:
        if one not in METADATA:
            raise UsageError(f"there is no format {one!r}; {closest(one, FORMATS)}")
    if not name or Path(name).name != name:
        raise UsageError(f"{name!r} is not a plain file name")
    target = Path(folder)
    text = caption if caption is not None else str(getattr(figure, "caption", ""))
    written: list[Path] = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        for one in formats:
            path = target / f"{name}.{one}"
            with theme():
                atomic_write(
                    path, partial(figure.savefig, format=one, dpi=dpi, metadata=METADATA[one])
                )
            written.append(path)
        if text:
            path = target / f"{name}.txt"
            atomic_write(path, f"{spelled(text.strip())}\n".encode())
            written.append(path)
    except OSError as error:
        raise AconError(f"cannot write the figure {name!r} to {target}: {error}") from error
    return written
