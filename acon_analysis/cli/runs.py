"""Commands about runs: capture, verify, summarise, compare, draw."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from acon_analysis.cli import options
from acon_analysis.cli.application import app
from acon_analysis.cli.options import build, emit, note, on_screen, parse_layers, parse_mask, say
from acon_analysis.errors import UsageError
from acon_analysis.screen import UNLIMITED, WIDE, counted, sentence_text, terminal_width


@app.command()
def capture(
    model: options.Model,
    data: Annotated[
        str,
        typer.Option(
            help="digits, digits:train, cifar10, a folder, or file.py:callable that returns a "
            "Dataset or batches of any inputs: tensors, (input, label), dicts of arguments"
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder of the run; an unfinished one is continued")],
    weights: options.Weights = None,
    preprocess: options.Preprocess = None,
    device: options.Device = "auto",
    batch_size: Annotated[
        int | None, typer.Option(help="samples per forward pass; by default 64, or as begun")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="processes that decode images; by default chosen from the first batches"),
    ] = None,
    limit: options.Limit = None,
    unit: Annotated[int | None, typer.Option(help="samples per unit of work")] = None,
    kinds: Annotated[
        str | None,
        typer.Option(
            help="kinds of layers, by comma; by default meta_acon,acon, and of networks without "
            "these activation,product"
        ),
    ] = None,
    moments: Annotated[
        bool | None,
        typer.Option(
            "--moments/--no-moments",
            help="gather what linearity and the null model need [default: moments]",
        ),
    ] = None,
    full_moments: Annotated[
        bool, typer.Option(help="also the states of every sample and channel (large)")
    ] = False,
    moment_kernel: Annotated[
        str,
        typer.Option(help="auto, compiled (C++), triton (accelerators) or eager (torch, slower)"),
    ] = "auto",
    moment_blocks: Annotated[
        int | None,
        typer.Option(
            help="blocks of samples behind the intervals, 2 to 1000; fewer make smaller files and "
            "wider intervals; by default 101, or as begun"
        ),
    ] = None,
    mask: options.Mask = None,
    strict: Annotated[bool, typer.Option(help="stop at the first unreadable sample")] = False,
    fuse: Annotated[
        bool, typer.Option(help="fold BatchNorm and Meta-ACON, compared first")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; a run keeps those it began with")
    ] = None,
) -> None:
    """Run over data, write what the layers do."""
    from acon_analysis.statistics.census import census_text
    from acon_hooks.captures.capturing import capture as run_capture

    run = run_capture(
        build(model, weights),
        data,
        out,
        preprocess=preprocess,
        device=device,
        batch_size=batch_size,
        workers=workers,
        limit=limit,
        unit_size=unit,
        kinds=parse_layers(kinds),
        moments=options.parse_moments(moments, full_moments, moment_kernel, moment_blocks),
        announce=note,
        strict=strict,
        fuse=fuse,
        threads=threads,
        mask=parse_mask(mask),
        progress=sys.stderr.isatty(),
    )
    for path, reason in list(zip(run.errors["path"], run.errors["reason"], strict=True))[:3]:
        note(f"could not read {path!r}: {reason}")
    if len(run.errors) > 3:
        note(f"{len(run.errors) - 3} more in {str(out / 'errors')!r}")
    _warn_of_left_out(run)
    state = "complete" if run.complete else "not complete yet"
    say(
        f"{out}: {counted(len(run.sample_ids), run.sample_word)} captured, {len(run.errors)} "
        f"could not be read, {counted(len(run.layers), 'layer')}, "
        f"{counted(len(run.units), 'unit')} of work; {state}"
    )
    if run.has_census:
        say(sentence_text(census_text(run.nonlinearities, run.kinds)))


def _warn_of_left_out(run: Any) -> None:
    """Print which samples are left out of which layers, and whether there are none at all."""
    from acon_analysis.statistics.sentences import left_out_text

    none = "" if len(run.sample_ids) else "the run holds no captured sample"
    text = none or left_out_text(run.left_out, len(run.sample_ids), run.layer_names)
    if text:
        note(f"warning: {run.path}: {text}")


@app.command()
def verify(run: options.RunPath) -> None:
    """Check a run: complete, unique, unaltered."""
    from acon_analysis.runs.verify import verify_run

    found = verify_run(run)
    for problem in found.problems:
        say(problem, err=True)
    say(
        f"{run}: {found.captured} of {counted(found.samples, 'sample')} captured, {found.bad} "
        f"could not be read, {found.units_done} of {counted(found.units, 'unit')} of work done; "
        + ("sound" if found.sound else counted(len(found.problems), "problem"))
    )
    if not found.sound:
        raise typer.Exit(1)


#: Rows of a summary by channel or sample that the screen shows.
_MOST_ROWS = 20

#: What a summary shows on the screen, what matters most first: a narrow one shows fewer.
_SHOWN = {
    options.By.channel: ("layer", "channel", "L", "s_c", "G", "mean", "why"),
    options.By.sample: ("layer", "sample", "L", "G", "mean", "std", "min", "max"),
}  # fmt: skip
#: What a narrow screen shows instead of a column whose text would be wrapped.
_SHORT = {"why": "cause"}
#: What L is in a table by sample.
_OF_A_SAMPLE = (
    "L of a sample: the share of the variance of its own outputs that straight lines of its own "
    "explain, one a channel; neither L of the layer (one line for all samples) nor its L_own. It "
    "needs at least 3 values a channel in a sample."
)


@app.command()
def summary(
    run: options.RunPath,
    by: Annotated[options.By, typer.Option(help="what each row is")] = options.By.layer,
    layer: Annotated[
        str | None, typer.Option(help="only this layer, with --by channel or sample")
    ] = None,
    format: options.Format = None,
    out: options.Out = None,
    all: Annotated[
        bool, typer.Option("--all", help="all columns and rows on the screen, as in files")
    ] = False,
    draws: Annotated[
        int, typer.Option(help="β networks redrawn for the verdict; 0 for no verdict", min=0)
    ] = 99,
) -> None:
    """Show linearity and β as a table, and the findings."""
    from acon_analysis.runs.run import open_run
    from acon_analysis.runs.summary import LABELS
    from acon_analysis.statistics.sentences import named

    opened, plain = open_run(run), on_screen(format, out)
    if layer is not None and by is options.By.layer:
        raise UsageError("--layer chooses rows of --by channel or --by sample")
    if by is options.By.layer and plain and not all and len(opened.sample_ids):
        say(str(opened.summary(draws=draws)))
        return
    _warn_of_left_out(opened)
    # Before the table: β is read once for both.
    found = opened.findings(draws=draws) if by is options.By.layer else []
    table = opened.summary_table(by.value)
    if layer is not None:
        row = opened.layer_row(layer)  # a module path stands for all of its calls
        kept = (table["call"] == row.call) | (layer == row.layer)
        table = table[(table["layer"] == row.layer) & kept]
    if all or not plain or by is options.By.layer:
        emit(table, format, out, width=UNLIMITED)
    else:
        few, left_out = _extremes(table)
        shown = [_SHORT.get(name, name) for name in _SHOWN[by]]
        columns = _SHOWN[by] if terminal_width() >= WIDE else shown
        emit(named(few, opened.layer_names), columns=columns, labels=LABELS)
        if left_out:
            say(sentence_text(left_out))
    if by is not options.By.layer:
        indices = table["L"].notna().any() if "L" in table else False
        if by is options.By.sample and plain and indices:
            say(sentence_text(_OF_A_SAMPLE))
        return
    say(err=not plain)
    for finding in found:
        say(sentence_text(str(finding)), err=not plain)


def _extremes(table: Any) -> tuple[Any, str]:
    """Return the rows of least and of greatest L (or β), in its order, and what is left out."""
    import pandas as pd

    from acon_analysis.runs.summary import LABELS

    key = next((name for name in ("L", "mean") if name in table and table[name].notna().any()), "")
    if not key:
        return table.iloc[:0], "L of a sample needs several positions a sample; here is none"
    if len(table) <= _MOST_ROWS:
        return table, ""
    order, half = table.dropna(subset=[key]).sort_values(key, kind="stable"), _MOST_ROWS // 2
    none = len(table) - len(order)
    without = f", {none:,} of which have no {LABELS.get(key, key)}" if none else ""
    return pd.concat([order.head(half), order.tail(half)]), (
        f"({half} rows of least and {half} of greatest {LABELS.get(key, key)}, of {len(table):,}"
        f"{without}: all with --all, or --out FILE.csv)"
    )


@app.command()
def compare(
    first: options.RunPath,
    second: options.RunPath,
    confidence: Annotated[float, typer.Option(help="of the intervals")] = 0.95,
    format: options.Format = None,
    out: options.Out = None,
) -> None:
    """Compare two runs layer by layer."""
    from acon_analysis.runs.compare import compare_runs, comparison_text, side_by_side, unlike
    from acon_analysis.runs.run import open_run
    from acon_analysis.statistics.sentences import named, sentence

    runs = open_run(first), open_run(second)
    found = compare_runs(*runs, confidence=confidence)
    for text in unlike(*runs):
        note(f"warning: {text}")
    for one in runs:
        _warn_of_left_out(one)
    names = runs[1].layer_names | runs[0].layer_names
    shown = named(side_by_side(found), names) if on_screen(format, out) else found
    if on_screen(format, out):
        say(f"first: {first}; second: {second}")
    emit(shown, format, out)
    text = sentence(comparison_text(found, confidence, names))
    say(sentence_text(text), err=not on_screen(format, out))


@app.command()
def figures(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="figures; by default all, with --run those of it", show_default=False),
    ] = None,
    run: Annotated[
        list[Path] | None, typer.Option(help="captured runs; by default the shipped networks")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder to draw into")] = Path("figures/out"),
    format: options.PictureFormats = None,
    context: Annotated[str, typer.Option(help="paper or talk")] = "paper",
    dpi: Annotated[int, typer.Option(help="points per inch of png", min=30, max=1200)] = 300,
    list_: Annotated[bool, typer.Option("--list", help="list the figures and stop")] = False,
) -> None:
    """Draw figures: the paper's, and those it lacks."""
    from acon_figures.registry import figure_table, find

    if list_:
        emit(figure_table(), columns=("name", "kind", "description"))
        return

    def announce(line: str) -> None:
        say(line, err=True)

    for name in names or []:
        find(name)
    if run:
        from acon_analysis.runs.run import open_run

        runs = [open_run(path) for path in run]
    else:
        from acon_hooks.captures.capturing import default_runs

        runs = default_runs(out / "runs", progress=sys.stderr.isatty(), announce=announce)
    from acon_figures.drawing import draw

    formats = format or ["png", "pdf", "svg"]
    drawn = draw(
        names or None, runs, out, formats=formats, context=context, dpi=dpi,
        shipped=not run, sources=_sources(), announce=announce,
    )  # fmt: skip
    files = list(drawn)
    say(f"{counted(len(files), 'file')} in {out}: " + ", ".join(sorted({f.stem for f in files})))


def _sources() -> dict[str, Callable[[Any], Any]]:
    """Return what figures show of a run that it does not store; torch is loaded to run networks."""
    from acon_analysis.runs.images import images_of

    def measured_again(name: str) -> Callable[[Any], Any]:
        def found(run: Any) -> Any:
            if (run.manifest.get("origin") or {}).get("weights") != "shipped":
                return None
            from acon_hooks.figure_inputs import figure_sources

            return figure_sources()[name](run)

        return found

    again = ("inputs", "measures", "explained", "blocks")
    return {"images": images_of, **{name: measured_again(name) for name in again}}
