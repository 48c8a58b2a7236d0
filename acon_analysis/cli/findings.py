"""Commands about what was found: blocks, explanations, the report."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from acon_analysis.cli import options
from acon_analysis.cli.application import app
from acon_analysis.cli.options import build, emit, note, on_screen, parse_layers, parse_mask, say
from acon_analysis.errors import UsageError
from acon_analysis.screen import counted, sentence_text

#: Channels that `acon explain --conductance` prints.
MOST_CHANNELS = 20


#: What `acon explain` shows on the screen; explanation.csv has all columns.
_EXPLAINED_SHOWN = (
    "sample", "channel", "beta", "beta_baseline", "baseline", "delta", "steps", "converged",
)  # fmt: skip
#: What `acon blocks` shows on the screen.
_OF_BLOCKS = (
    "block", "nlc", "nlc_error", "r2", "elementwise_L", "nlc_change", "nlc_change_error",
    "vectors", "r2_without_residual", "activation", "why",
)  # fmt: skip


@app.command()
def blocks(
    model: options.Model,
    data: options.Samples,
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    blocks: Annotated[
        list[str] | None,
        typer.Option(
            help="module paths, 'whole network' among them; by default the repeated blocks and the "
            "whole network"
        ),
    ] = None,
    weights: options.Weights = None,
    preprocess: options.Preprocess = None,
    mask: options.Mask = None,
    limit: options.Limit = None,
    seed: Annotated[int, typer.Option(help="of the folds of R² and of the order")] = 0,
    format: options.Format = None,
    out: options.Out = None,
) -> None:
    """Measure how linear blocks and the whole network are."""
    from acon_analysis.statistics.sentences import block_names
    from acon_hooks.blocks.measuring import block_linearity
    from acon_hooks.engine.feeding import named_data

    named = [*(blocks or []), *(more or [])]
    table = block_linearity(
        build(model, weights),
        named_data(data, preprocess),
        named or None,
        seed=seed,
        mask=parse_mask(mask),
        limit=limit,
        announce=note,
        progress=sys.stderr.isatty(),
    )
    shown = table.assign(block=block_names(table)) if on_screen(format, out) else table
    emit(shown, format, out, columns=_OF_BLOCKS)
    if on_screen(format, out):
        say()
        say(
            sentence_text(
                "nlc is 1 for affine maps; the further it is from 1, above or below, the more a "
                "block bends. r2: of the best affine map on other samples; a lower bound where a "
                "block mixes positions. elementwise_L: mean L of all activations inside, gates "
                "too, gated products not. nlc_change: by how much nlc changes when these "
                "activations are replaced by straight lines."
            )
        )


@app.command()
def explain(
    model: options.Model,
    data: Annotated[str, typer.Option(help="digits, digits:train, cifar10, or a folder")],
    out: Annotated[Path, typer.Option(help="folder for the figure and the tables")],
    layer: Annotated[
        str | None,
        typer.Option(
            help="whose β; `acon layers` lists them (with --conductance: several, by comma)"
        ),
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option(help="a number, or mean (of all); by default the one whose β varies most"),
    ] = None,
    sample: Annotated[
        list[int] | None,
        typer.Option(help="sample id, repeatable; by default those of lowest to highest β"),
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
    conductance: Annotated[
        bool,
        typer.Option(
            "--conductance",
            help="instead: how much of the class score flows through each channel, next to its L",
        ),
    ] = False,
    limit: Annotated[int, typer.Option(help="images for --conductance, evenly spread", min=1)] = 64,
    weights: options.Weights = None,
    preprocess: options.Preprocess = None,
    device: options.Device = "auto",
    format: options.PictureFormats = None,
) -> None:
    """Show which pixels of an image decide β of a layer, or which channels the answer."""
    if conductance:
        if channel is not None or sample or check:
            raise UsageError(
                "--conductance is of all channels and many images: leave out --channel, --sample "
                "and --check (--limit says how many images)"
            )
        _conductance(build(model, weights), data, out, layer, limit, preprocess, device, baseline)
        return
    if layer is None:
        raise UsageError("whose β? Give --layer (`acon layers` lists them), or --conductance")
    from acon_figures.plots.explanation import MOST_ROWS, explanation
    from acon_figures.saving import save
    from acon_hooks.explainers.data import check_data, explain_data, write_tables

    if sample is not None and len(sample) > MOST_ROWS:
        raise UsageError(f"at most {MOST_ROWS} samples fit a figure; got {len(sample)}")
    network = build(model, weights)
    found, labels = explain_data(
        network, data, layer, _channel(channel), sample, baseline=baseline,
        preprocess=preprocess, device=device, method=method, tolerance=tolerance,
        most_varied=channel is None, announce=note,
    )  # fmt: skip
    frame = found.to_frame()
    figure = explanation(*found.pictures, found.maps, frame, labels=labels)
    tables = write_tables(found, out)
    drawn = list(save(figure, out, "explanation", format or ["png", "pdf", "svg"]))
    emit(frame, columns=_EXPLAINED_SHOWN)
    say(f"{out}: " + ", ".join(path.name for path in [*drawn, *tables]))
    if check:
        table = check_data(network, found, out, device=device)
        say(
            f"the layer's weights shuffled {counted(table['draw'].nunique(), 'time')}: rank "
            f"correlation of the maps before and after {table['correlation'].mean():.2f}, of their "
            f"sizes {table['correlation_absolute'].mean():.2f}"
        )


def _channel(text: str | None) -> int | None:
    """Return the number of a channel; None for the mean of all, or where none is given."""
    if text is None or text == "mean":
        return None
    if not text.isdigit():
        raise UsageError(f"channel: give a number, or mean; got {text!r}")
    return int(text)


def _conductance(
    network: Any,
    data: str,
    out: Path,
    layer: str | None,
    limit: int,
    preprocess: str | None,
    device: str,
    baseline: str,
) -> None:
    """Print the channels that most of the class scores flows through, and the layers."""
    from acon_hooks.explainers.data import conductance_data

    table, ranks = conductance_data(
        network, data, out, parse_layers(layer), limit=limit,
        preprocess=preprocess, device=device, baseline=baseline,
    )  # fmt: skip
    shown = table.sort_values("importance", ascending=False).head(MOST_CHANNELS)
    hidden = [name for name in ("dead", "constant_input") if not shown[name].any()]
    emit(shown.drop(columns=["nonlinearity", *hidden]))
    say(f"({len(shown)} of {counted(len(table), 'channel')}; all: {out / 'conductance.csv'})\n")
    emit(ranks)
    say("spearman: rank correlation of 1 - L with the importance, 95 % from low to high")


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="folder of a captured run, or of two to compare", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="the page; one of this name is replaced")] = Path(
        "report.html"
    ),
    title: Annotated[
        str | None, typer.Option(help="of the page; by default the model and the data")
    ] = None,
    blocks: Annotated[
        Path | None,
        typer.Option(help="a table of `acon blocks --out FILE` (csv, json, parquet) to draw too"),
    ] = None,
) -> None:
    """Put a run, or two compared, into one HTML page that can be mailed."""
    from acon_figures.report import write_report

    if len(runs) > 2:
        raise UsageError(f"a report is of one run or of two; got {len(runs)}")
    table = None if blocks is None else options.read_table(blocks)
    path = write_report(
        runs[0], out, second=runs[1] if len(runs) > 1 else None, title=title, blocks=table,
        progress=sys.stderr.isatty(),
    )  # fmt: skip
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser")
