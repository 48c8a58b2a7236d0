"""The command ``acon``: parse, call, print. Everything heavy is imported inside the commands."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acon_analysis.errors import AconError, UsageError

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    help=__doc__ and "See how linear or nonlinear a trained network is.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_state = {"debug": False}

Model = Annotated[
    str,
    typer.Argument(
        help="a name of `acon models`, torchvision:NAME, timm:NAME, module:callable or "
        "file.py:callable (the last two run that code)",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None, typer.Option(help="checkpoint file; without it the shipped or random weights")
]
RunPath = Annotated[Path, typer.Argument(help="folder of a captured run", show_default=False)]


class By(StrEnum):
    """What a summary is by."""

    layer = "layer"
    channel = "channel"
    sample = "sample"


class TableFormat(StrEnum):
    """How a table is written."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(help="show the traceback of an error")] = False,
) -> None:
    _state["debug"] = debug


@app.command()
def models(
    format: Annotated[TableFormat, typer.Option(help="how to print")] = TableFormat.table,
) -> None:
    """List the networks that can be named."""
    from acon_analysis.models.listing import model_table

    _emit(model_table(), format, None)


@app.command()
def layers(
    model: Model,
    weights: Weights = None,
    data: Annotated[str | None, typer.Option(help="images for the proof")] = None,
    input_shape: Annotated[str | None, typer.Option(help="C,H,W of random images")] = None,
    kinds: Annotated[str | None, typer.Option(help="kinds, by comma; by default all")] = None,
    format: Annotated[TableFormat, typer.Option(help="how to print")] = TableFormat.table,
) -> None:
    """List the activation layers, how β is read from each, and the error of the proof."""
    from acon_hooks.proving import LISTED_KINDS, proved_layers

    shape = None if input_shape is None else _shape(input_shape)
    chosen = LISTED_KINDS if kinds is None else _kinds(kinds)
    frame = proved_layers(_build(model, weights), data=data, input_shape=shape, kinds=chosen)
    _emit(frame, format, None)


@app.command()
def capture(
    model: Model,
    data: Annotated[str, typer.Option(help="digits, digits:train, cifar10, or a folder")],
    out: Annotated[Path, typer.Option(help="folder of the run; an unfinished one is continued")],
    weights: Weights = None,
    preprocess: Annotated[
        str | None, typer.Option(help="official, imagenet, none or file.py:callable")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(help="images a forward pass; by default 64, or as begun")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="processes that decode images; by default a few for folders")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="only the first so many images")] = None,
    unit: Annotated[int | None, typer.Option(help="images a unit of work")] = None,
    kinds: Annotated[
        str | None,
        typer.Option(help="kinds of layers, by comma; by default ACON, else all activations"),
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
    moment_stride: Annotated[
        int, typer.Option(help="moments of every so many-th pixel only (cheaper, inexact)", min=1)
    ] = 1,
    strict: Annotated[bool, typer.Option(help="stop at the first bad image")] = False,
    compile: Annotated[bool, typer.Option(help="run through torch.compile, proved")] = False,
    fuse: Annotated[bool, typer.Option(help="fold BatchNorm and Meta-ACON, proved")] = False,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; a run keeps those it began with")
    ] = None,
) -> None:
    """Run a network over images and write what its activation layers decide."""
    from acon_hooks.capturing import capture as run_capture

    run = run_capture(
        _build(model, weights),
        data,
        out,
        preprocess=preprocess,
        device=device,
        batch_size=batch_size,
        workers=workers,
        limit=limit,
        unit_size=unit,
        kinds=None if kinds is None else _kinds(kinds),
        moments=_moments(moments, full_moments, moment_stride),
        announce=lambda text: typer.echo(f"acon: {text}", err=True),
        strict=strict,
        compile=compile,
        fuse=fuse,
        threads=threads,
        progress=sys.stderr.isatty(),
    )
    state = "complete" if run.complete else "not complete yet"
    typer.echo(
        f"{out}: {len(run.sample_ids)} images captured, {len(run.errors)} could not be read, "
        f"{len(run.layers)} layers, {len(run.units)} units; {state}"
    )


@app.command()
def verify(run: RunPath) -> None:
    """Check a run: complete, unique, unaltered."""
    from acon_analysis.verification import verify_run

    found = verify_run(run)
    for problem in found.problems:
        typer.echo(problem, err=True)
    typer.echo(
        f"{run}: {found.captured} of {found.samples} images captured, {found.bad} could not be "
        f"read, {found.units_done} of {found.units} units done; "
        + ("sound" if found.sound else f"{len(found.problems)} problems")
    )
    if not found.sound:
        raise typer.Exit(1)


@app.command()
def summary(
    run: RunPath,
    by: Annotated[By, typer.Option(help="what each row is")] = By.layer,
    format: Annotated[TableFormat, typer.Option(help="how to write")] = TableFormat.table,
    out: Annotated[Path | None, typer.Option(help="file; by default the screen")] = None,
    draws: Annotated[
        int, typer.Option(help="β networks redrawn for the verdict; 0 for no verdict", min=0)
    ] = 99,
) -> None:
    """Summarise β and linearity of a run by layer, channel or sample; say what was learned."""
    from acon_analysis.run import open_run
    from acon_analysis.run_statistics import split_table, summary_table, verdict_text

    opened = open_run(run)
    _emit(summary_table(opened, by.value), format, out)
    if by is By.layer and next(iter(opened.files("pooled")), None) is not None:
        text = verdict_text(split_table(opened, draws=draws)) if draws else ""
        plain = format is TableFormat.table and out is None
        if text:
            typer.echo(text, err=not plain)


@app.command()
def compare(
    first: RunPath,
    second: RunPath,
    confidence: Annotated[float, typer.Option(help="of the intervals")] = 0.95,
    format: Annotated[TableFormat, typer.Option(help="how to write")] = TableFormat.table,
    out: Annotated[Path | None, typer.Option(help="file; by default the screen")] = None,
) -> None:
    """Compare two runs layer by layer: β, L and G, with intervals of the differences."""
    from acon_analysis.comparing import compare_runs
    from acon_analysis.run import open_run

    _emit(compare_runs(open_run(first), open_run(second), confidence=confidence), format, out)


@app.command()
def figures(
    names: Annotated[
        list[str] | None, typer.Argument(help="figures; by default all", show_default=False)
    ] = None,
    run: Annotated[
        list[Path] | None, typer.Option(help="captured runs; by default the shipped networks")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder to draw into")] = Path("figures/out"),
    format: Annotated[list[str] | None, typer.Option(help="png, pdf, svg")] = None,
    context: Annotated[str, typer.Option(help="paper or talk")] = "paper",
    list_: Annotated[bool, typer.Option("--list", help="list the figures and stop")] = False,
) -> None:
    """Draw figures: the paper's, and those it lacks."""
    from acon_figures.drawing import draw, figure_table
    from acon_figures.registry import find

    if list_:
        _emit(figure_table(), TableFormat.table, None)
        return
    for name in names or []:
        find(name)
    if run:
        from acon_analysis.run import open_run

        runs = [open_run(path) for path in run]
    else:
        from acon_hooks.defaults import default_runs

        runs = default_runs(out / "runs", progress=sys.stderr.isatty())
    formats = format or ["png", "pdf", "svg"]
    files = list(draw(names or None, runs, out, formats=formats, context=context))
    typer.echo(f"{len(files)} files in {out}: " + ", ".join(sorted({f.stem for f in files})))


@app.command()
def train(
    network: Annotated[str, typer.Argument(help="a network with a recipe", show_default=False)],
    out: Annotated[Path, typer.Option(help="weights file; curves and card come beside it")],
    data: Annotated[str | None, typer.Option(help="by default the network's own")] = None,
    epochs: Annotated[int | None, typer.Option(help="by default the recipe's")] = None,
    seed: Annotated[int, typer.Option(help="of weights, order and augmentation")] = 0,
) -> None:
    """Train a network by the official recipe's rules; continues where it was stopped."""
    from acon_analysis.models.release import train_network

    curves = train_network(
        network, out, data=data, epochs=epochs, seed=seed, progress=sys.stderr.isatty()
    )
    error = float(curves["test_error"].iloc[-1])
    typer.echo(f"{out}: {len(curves)} epochs, test accuracy {1 - error:.4f}")


@app.command()
def linearize(
    model: Model,
    run: Annotated[Path, typer.Option(help="captured run of this model: it gives the lines")],
    data: Annotated[str, typer.Option(help="other images, to measure the damage on")],
    out: Annotated[Path, typer.Option(help="folder for plan, model and tables")],
    weights: Weights = None,
    budget: Annotated[
        str | None, typer.Option(help="channels (200) or a share (0.25, 25%) to make affine")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="only these layers, by comma; whole without --budget")
    ] = None,
    by: Annotated[str, typer.Option(help="column to rank by, least first")] = "s_c",
    within: Annotated[bool, typer.Option(help="the share of each layer, not of all")] = False,
    fold: Annotated[bool, typer.Option(help="fold whole layers into their neighbours")] = False,
    limit: Annotated[int | None, typer.Option(help="only the first so many images")] = None,
    batch_size: Annotated[int, typer.Option(help="images a forward pass")] = 64,
) -> None:
    """Replace the least nonlinear channels by straight lines and measure what that does."""
    from acon_hooks.replacing import parse_budget, replace_from_run, sentence

    done = replace_from_run(
        _build(model, weights),
        run,
        data,
        out,
        budget=None if budget is None else parse_budget(budget),
        by=by,
        within=within,
        layers=None if layers is None else _kinds(layers),
        limit=limit,
        batch_size=batch_size,
        fold=fold,
    )
    typer.echo(f"{out}: {sentence(done)}")


@app.command()
def explain(
    model: Model,
    data: Annotated[str, typer.Option(help="digits, digits:train, cifar10, or a folder")],
    layer: Annotated[str, typer.Option(help="whose β; `acon layers` lists them")],
    out: Annotated[Path, typer.Option(help="folder for the figure and the tables")],
    channel: Annotated[
        int | None, typer.Option(help="which channel; by default the mean of all")
    ] = None,
    sample: Annotated[
        list[int] | None, typer.Option(help="sample id, repeatable; by default three")
    ] = None,
    method: Annotated[
        str, typer.Option(help="integrated_gradients, saliency, occlusion or grad_cam")
    ] = "integrated_gradients",
    baseline: Annotated[
        str, typer.Option(help="zero, mean, blur, or sample:ID for another image")
    ] = "zero",
    tolerance: Annotated[
        float, typer.Option(help="by how much the attributions may miss the change of β")
    ] = 1e-3,
    check: Annotated[
        bool, typer.Option("--check", help="also compare with maps of the randomised layer")
    ] = False,
    weights: Weights = None,
    preprocess: Annotated[
        str | None, typer.Option(help="official, imagenet, none or file.py:callable")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    format: Annotated[list[str] | None, typer.Option(help="png, pdf, svg")] = None,
) -> None:
    """Show which pixels of an image decide β of a layer."""
    from acon_figures.plots.explanation import MOST_ROWS, explanation
    from acon_figures.saving import save
    from acon_hooks.explaining_data import check_data, explain_data, write_tables

    if sample is not None and len(sample) > MOST_ROWS:
        raise UsageError(f"at most {MOST_ROWS} samples fit a figure; got {len(sample)}")
    network = _build(model, weights)
    found, labels = explain_data(
        network, data, layer, channel, sample, baseline=baseline, preprocess=preprocess,
        device=device, method=method, tolerance=tolerance,
    )  # fmt: skip
    frame = found.to_frame()
    figure = explanation(found.images, found.baselines, found.maps, frame, labels=labels)
    write_tables(found, out)
    save(figure, out, "explanation", format or ["png", "pdf", "svg"])
    _emit(frame, TableFormat.table, None)
    if check:
        table = check_data(network, found, out)
        typer.echo(
            f"the layer's weights shuffled {table['draw'].nunique()} times: rank correlation of "
            f"the maps before and after {table['correlation'].mean():.2f}, of their sizes "
            f"{table['correlation_absolute'].mean():.2f}"
        )


@app.command("import-checkpoint")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help=".pth, .pt, .tar or .safetensors")],
    model: Annotated[str, typer.Option(help="the network it belongs to")],
    out: Annotated[Path, typer.Option(help="safetensors file to write")],
) -> None:
    """Turn a checkpoint into safetensors, safely and strictly."""
    from acon_analysis.models.checkpoints import import_checkpoint as convert
    from acon_analysis.models.registry import build_model

    result = convert(file, build_model(model, weights=None), out, model_name=model)
    for note in result.notes:
        typer.echo(f"acon: note: {note}", err=True)
    typer.echo(
        f"{result.path}: {result.tensors} tensors, {result.values:,} values from a {result.format} "
        f"file with SHA-256 {result.source_sha256}"
    )


def _build(model: str, weights: Path | None) -> Any:
    from acon_analysis.models.registry import build_model

    return build_model(model, weights="shipped" if weights is None else weights)


def _moments(wanted: bool | None, full: bool, stride: int) -> Any:
    """Return the moments to gather; None for what suits the other options."""
    from acon_hooks.accumulating import MomentOptions

    special = full or stride > 1
    if special and wanted is False:
        raise UsageError("--full-moments and --moment-stride go with --moments")
    return MomentOptions(full, stride) if special else wanted


def _kinds(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"input shape must be like 3,224,224; got {text!r}") from error
    if not shape or min(shape) < 1:
        raise UsageError(f"input shape must be of positive numbers; got {text!r}")
    return shape


def _emit(frame: "pd.DataFrame", format: TableFormat, out: Path | None) -> None:
    """Print a frame, or write it to a file."""
    if format is TableFormat.parquet:
        if out is None:
            raise UsageError("--format parquet needs --out FILE")
        out.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(out, index=False)
        return
    text = {
        TableFormat.table: lambda: frame.to_string(
            index=False, float_format=lambda value: f"{value:.4g}", na_rep="-"
        ),
        TableFormat.csv: lambda: frame.to_csv(index=False, lineterminator="\n").rstrip("\n"),
        TableFormat.json: lambda: frame.to_json(orient="records", indent=1),
    }[format]()
    if out is None:
        typer.echo(text)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", "utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Run the command; errors are one line, the exit status is 0, 1 (failed) or 2 (wrong usage)."""
    import warnings

    warnings.showwarning = _show_warning
    try:
        app(args=arguments, standalone_mode=True)
    except AconError as error:
        _fail(error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        _fail(error, "interrupted; what is finished stays", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(error, f"{place}{error.strerror or error}", 1)
    except Exception as error:
        _fail(error, f"{type(error).__name__}: {error} (an error of acon itself; see --debug)", 1)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    typer.echo(f"acon: warning: {message}", err=True)


def _fail(error: BaseException, text: str, code: int) -> None:
    if _state["debug"]:
        raise error
    typer.echo(f"acon: {' '.join(text.split())}", err=True)
    raise SystemExit(code) from None
