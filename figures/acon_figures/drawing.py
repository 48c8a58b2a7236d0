"""Draw registered figures from runs into a folder: what ``acon figures`` does."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from acon_analysis.errors import AconError
from acon_analysis.runs.run import Run
from acon_figures.inputs import Frames, Sources, frames_of, main_layer
from acon_figures.registry import FIGURES, find
from acon_figures.saving import FORMATS, save
from acon_figures.spec import FigureSpec


def draw(
    names: Sequence[str] | None,
    runs: Sequence[Run],
    folder: Path,
    *,
    formats: Sequence[str] = FORMATS,
    context: str = "paper",
    dpi: int = 300,
    sources: Sources | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Path]:
    """Draw figures and their variants; yield every file as it is written.

    Parameters
    ----------
    names : sequence of str or None
        Figures of the registry; None for all that these runs have the data for.
    runs : sequence of Run
        Where measured figures take their frames from.
    folder : Path
        Where the files go.
    formats : sequence of str
        Any of "png", "pdf", "svg".
    context : str
        "paper" or "talk".
    dpi : int
        Points per inch of PNG files.
    sources : mapping of str to callable, optional
        What runs do not hold themselves, such as images; see `inputs.frames_of`.
    tell : callable, optional
        Gets one line for each figure, before it is drawn, and for each that is left out.

    Raises
    ------
    UsageError
        For an unknown name.
    AconError
        If a figure asked for by name needs what no run has.
    """
    specs = [find(name) for name in names] if names is not None else list(FIGURES.values())
    wanted = {name for spec in specs for name in spec.frames}
    frames = frames_of(runs, wanted, sources)
    given = ", ".join(str(run.path) for run in runs) or "none"
    for place, spec in enumerate(specs, 1):
        own = _best(spec, frames, runs, sources)
        lacking = [need for need in spec.required if need not in own]
        if lacking and names is not None:
            raise AconError(
                f"figure {spec.name!r} needs {_in_words(lacking)}, which no run has (runs: {given})"
            )
        if tell is not None:
            without = f": left out, no run has {_in_words(lacking)}" if lacking else ""
            tell(f"{place} of {len(specs)}: {spec.name}{without}")
        if not lacking:
            yield from _draw_one(spec, own, folder, formats, context, dpi)


def _best(spec: FigureSpec, frames: Frames, runs: Sequence[Run], sources: Sources | None) -> Frames:
    """Return the frames of the first run for which the sources have what the figure can show."""
    asked = {name for name in spec.frames if name in (sources or {})}
    if asked <= frames.keys():
        return frames
    for number in range(1, len(runs)):
        if main_layer(runs[number]) is not None:
            found = frames_of(runs[number:], spec.frames, sources)
            if asked <= found.keys():
                return found
    return frames


#: What the frames are, for people.
_WORDS = {
    "frame": "β per sample (a Meta-ACON layer)",
    "training": "training curves",
    "depth": "moments of activation layers (acon capture --moments)",
    "null_table": "a Meta-ACON layer with BatchNorm",
    "sample_means": "β per sample (a Meta-ACON layer)",
    "splits": "pooled inputs of a β network (acon capture --moments)",
    "channels": "moments of ACON layers (acon capture --moments)",
    "own_channels": "moments of a Meta-ACON layer (acon capture --moments)",
    "explained": "a Meta-ACON layer and shipped weights (others: acon explain)",
    "damage": "the table of replaced channels",
    "epochs": "the table of β over epochs",
}


def _in_words(needs: Sequence[str]) -> str:
    return "; ".join(_WORDS.get(need, need) for need in needs)


def _draw_one(
    spec: FigureSpec,
    frames: Frames,
    folder: Path,
    formats: Sequence[str],
    context: str,
    dpi: int,
) -> Iterator[Path]:
    for suffix, arguments in {"": {}, **spec.variants}.items():
        figure = spec.draw(frames, context=context, **arguments)
        name = f"{spec.name}_{suffix}" if suffix else spec.name
        yield from save(figure, folder, name, formats, dpi=dpi)
