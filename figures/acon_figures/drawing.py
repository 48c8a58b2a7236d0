"""Draw registered figures from runs into a folder: what ``acon figures`` does."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.runs.run import Run
from acon_figures.gallery import title
from acon_figures.inputs import IN_WORDS, SHIPPED, Inputs, Sources
from acon_figures.registry import FIGURES, find
from acon_figures.saving import FORMATS, save
from acon_figures.spec import FigureSpec
from acon_figures.style import AconFigure


class _LackingError(AconError):
    """No run has what a figure needs."""


def draw(
    names: Sequence[str] | None,
    runs: Sequence[Run],
    folder: Path,
    *,
    formats: Sequence[str] = FORMATS,
    context: str = "paper",
    dpi: int = 300,
    shipped: bool = True,
    sources: Sources | None = None,
    announce: Callable[[str], None] | None = None,
) -> Iterator[Path]:
    """Draw figures and their variants from runs into a folder; yield every file as it is written.

    Without names all figures are drawn that there are the data for; where ``shipped``, those that
    show nothing of these runs, too: formulas, printed numbers and tables that come with the
    package. ``sources`` give what runs do not hold themselves, such as images; see `inputs.Inputs`.
    ``announce`` gets one line for each figure before it is drawn, for each that cannot be drawn,
    with the reason, and one that names those that need what no run has. `AconError` if a figure
    asked for by name needs what no run has, or cannot be drawn of what it has.
    """
    if names is not None:
        specs = [find(name) for name in names]
    else:
        others = set() if shipped else SHIPPED - (sources or {}).keys()
        specs = [spec for spec in FIGURES.values() if shipped or set(spec.frames) - others]
    inputs, say = Inputs(runs, sources), announce or (lambda _line: None)
    given = ", ".join(str(run.path) for run in runs) or "none"
    lacking: list[str] = []
    for number, spec in enumerate(specs, 1):
        for suffix, arguments in {"": {}, **spec.variants}.items():
            name = f"{spec.name}_{suffix}" if suffix else spec.name
            try:
                frames, used = _inputs_of(spec, inputs)
                say(f"{number} of {len(specs)}: {name}")
                figure = spec.draw(frames, context=context, **arguments)
            except AconError as error:
                if names is not None:
                    raise AconError(f"figure {name!r}: {error} (runs: {given})") from error
                if isinstance(error, _LackingError):
                    lacking.append(name)
                else:
                    say(f"{name}: left out, {error}")
                continue
            complete(figure, spec, used)
            yield from save(figure, folder, name, formats, dpi=dpi)
    if lacking:
        say(f"left out, as no run has what they need: {', '.join(lacking)}")


def draw_runs(spec: FigureSpec, runs: Sequence[Run], **options: Any) -> AconFigure:
    """Draw a figure of what captured runs hold; `AconError` if it needs what no run has.

    ``options`` are arguments of the figure's function, such as ``context``.
    """
    options = _named(spec, runs, options)
    inputs = Inputs(runs, layer=options.get("layer"), call=options.get("call"))
    try:
        frames, used = _inputs_of(spec, inputs)
        figure = spec.draw(frames, **options)
    except AconError as error:
        given = ", ".join(str(run.path) for run in runs)
        raise AconError(f"figure {spec.name!r}: {error} (runs: {given})") from error
    complete(figure, spec, used)
    return figure


def _named(spec: FigureSpec, runs: Sequence[Run], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a figure's options with path and call of a layer that has its name in figures."""
    layer, parameters = options.get("layer"), signature(spec.function).parameters
    for run in runs if layer else ():
        path, call = run.layer_key(str(layer))
        calls = run.layers.loc[run.layers["layer"] == path, "call"]
        if path != layer and "call" in parameters:
            return {**options, "layer": path, "call": call}
        if path != layer and call == calls.iloc[-1]:  # the one that other figures show
            return {**options, "layer": path}
    return dict(options)


def plot(run: Run, name: str | None, **options: Any) -> AconFigure:
    """Draw a figure of a run by its name; a UsageError lists those that there are of this run."""
    if name not in FIGURES:
        own = [spec.name for spec in FIGURES.values() if _possible(spec, run)]
        near = closest(str(name), own)
        what = "give the name of a figure" if name is None else f"there is no figure {name!r}"
        what += f"; {near} Of" if near.startswith("did you mean") else "; of"
        raise UsageError(f"{what} this run there are: {', '.join(own) or 'none'}")
    return draw_runs(FIGURES[name], [run], **options)


def _possible(spec: FigureSpec, run: Run) -> bool:
    """Return whether a run holds what a figure of it needs."""
    try:
        _inputs_of(spec, Inputs([run]))
    except AconError:
        return False
    return bool(set(spec.frames) - SHIPPED)


def complete(figure: AconFigure, spec: FigureSpec, inputs: Inputs) -> None:
    """Give a figure its heading, network and data, and say in its caption what it leaves out."""
    figure.heading = title(spec)
    figure.name(": ".join(filter(None, [inputs.subject(spec), figure.subject])))
    figure.caption = " ".join(filter(None, [figure.caption, inputs.left_out(spec)]))


def _inputs_of(spec: FigureSpec, inputs: Inputs) -> tuple[dict[str, Any], Inputs]:
    """Return a figure's frames, of the first run for which the sources have what it needs."""
    first, used = inputs.of(spec), inputs
    asked = set(spec.frames) & set(inputs.sources)
    if not asked <= first.keys():
        others = ((later.of(spec), later) for later in inputs.later())
        found = next(((own, later) for own, later in others if asked <= own.keys()), None)
        first, used = found or (first, used)
    lacking = "; ".join(IN_WORDS.get(need, need) for need in spec.required if need not in first)
    if lacking:
        raise _LackingError(f"it needs {lacking}, which no run has")
    # `used`: the inputs of that run and of those after it, which made the frames.
    return first, used
