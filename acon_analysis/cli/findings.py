"""Commands about what was found: draw, replace, explain."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from acon_analysis.cli.application import app
from acon_analysis.cli.options import (
    Format,
    Mask,
    Model,
    Out,
    Weights,
    build,
    emit,
    on_screen,
    parse_list,
    parse_mask,
    say,
)
from acon_analysis.errors import UsageError
from acon_analysis.screen import sentence_text

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
def figures(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="figures; by default all, with --run those of it", show_default=False),
    ] = None,
    run: Annotated[
        list[Path] | None, typer.Option(help="captured runs; by default the shipped networks")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder to draw into")] = Path("figures/out"),
    format: Annotated[list[str] | None, typer.Option(help="png, pdf, svg")] = None,
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
    from acon_hooks.figure_inputs import figure_sources

    formats = format or ["png", "pdf", "svg"]
    drawn = draw(
        names or None, runs, out, formats=formats, context=context, dpi=dpi,
        shipped=not run, sources=figure_sources(), announce=announce,
    )  # fmt: skip
    files = list(drawn)
    say(f"{len(files)} files in {out}: " + ", ".join(sorted({f.stem for f in files})))


@app.command()
def linearize(
    model: Model,
    run: Annotated[Path, typer.Option(help="captured run of this model: it gives the lines")],
    data: Annotated[
        str, typer.Option(help="other samples, to measure the damage on; also file.py:callable")
    ],
    out: Annotated[Path, typer.Option(help="folder for plan, model and tables")],
    weights: Weights = None,
    budget: Annotated[
        str | None, typer.Option(help="channels (200) or a share (0.25, 25%) to make affine")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="only these layers, by comma; whole without --budget")
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="column to rank by, least first; first_order predicts the change of the logits "
            "(one backward pass per logit on 128 images of the run)"
        ),
    ] = "s_c",
    within: Annotated[bool, typer.Option(help="the share of each layer, not of all")] = False,
    fold: Annotated[bool, typer.Option(help="fold whole layers into their neighbours")] = False,
    limit: Annotated[int | None, typer.Option(help="only the first N samples")] = None,
    batch_size: Annotated[int, typer.Option(help="samples per forward pass")] = 64,
    output: Annotated[
        str | None,
        typer.Option(
            help="which tensor of the network's output is meant: an index, a key, an attribute or "
            "file.py:callable; by default the only one, or logits"
        ),
    ] = None,
    logits: Annotated[
        bool | None,
        typer.Option("--logits/--no-logits", help="whether it holds class logits; by its shape"),
    ] = None,
    mask: Mask = None,
) -> None:
    """Make channels straight lines, measure the damage."""
    from acon_hooks.replacement.replacing import (
        parse_budget,
        parse_output,
        replace_from_run,
        sentence,
    )

    done = replace_from_run(
        build(model, weights),
        run,
        data,
        out,
        budget=None if budget is None else parse_budget(budget),
        by=by,
        within=within,
        layers=None if layers is None else parse_list(layers),
        limit=limit,
        batch_size=batch_size,
        fold=fold,
        output=None if output is None else parse_output(output),
        logits=logits,
        mask=parse_mask(mask),
    )
    say(sentence_text(f"{out}: {sentence(done)}"))
    say(sentence_text(done.report.used), err=True)


#: What `acon replace` shows on the screen; damage.csv has all columns.
_REPLACED_SHOWN = (
    "form", "recalibrated", "channels", "accuracy", "accuracy_change", "output_change",
    "loss_change", "low", "high", "agreement", "accuracy_low", "accuracy_high",
)  # fmt: skip


@app.command()
def replace(
    model: Model,
    data: Annotated[
        str, typer.Option(help="held-out samples, to measure the damage on; also file.py:callable")
    ],
    out: Annotated[Path, typer.Option(help="folder for plan, model and tables")],
    with_: Annotated[
        str,
        typer.Option(
            "--with",
            help="line, relu, two-piece, hardswish or poly:K, K up to 4; several by comma, the "
            "cheapest first: each channel gets the first that --max-change allows",
        ),
    ] = "two-piece",
    fit: Annotated[
        str | None,
        typer.Option(help="samples to fit on; by default the training split of digits or cifar10"),
    ] = None,
    weights: Weights = None,
    budget: Annotated[
        str, typer.Option(help="channels (200) or a share (0.25, 25%); those of least damage first")
    ] = "100%",
    max_change: Annotated[
        float | None,
        typer.Option(
            help="instead of a budget: how much the output may change in all, a share of its norm "
            "(0.05), as measured on 128 samples of the fit"
        ),
    ] = None,
    layers: Annotated[str | None, typer.Option(help="only these layers, by comma")] = None,
    fold: Annotated[
        bool, typer.Option(help="fold lines of whole layers into their neighbours")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(help="only the first N samples, to fit and to measure")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="samples per forward pass")] = 64,
    output: Annotated[
        str | None,
        typer.Option(help="which tensor of the output is meant; as for `acon linearize`"),
    ] = None,
    logits: Annotated[
        bool | None,
        typer.Option("--logits/--no-logits", help="whether it holds class logits; by its shape"),
    ] = None,
    mask: Mask = None,
) -> None:
    """Replace activations by cheaper functions, without training."""
    from acon_hooks.replacement.replace import replace_data, sentence
    from acon_hooks.replacement.replacing import parse_budget, parse_output

    done = replace_data(
        build(model, weights),
        data,
        parse_list(with_),
        fit,
        None if layers is None else parse_list(layers),
        parse_budget(budget),
        max_change=max_change,
        out=out,
        fold=fold,
        limit=limit,
        batch_size=batch_size,
        output=None if output is None else parse_output(output),
        logits=logits,
        mask=parse_mask(mask),
    )
    emit(done.table, columns=_REPLACED_SHOWN)
    say(sentence_text(f"{out}: {sentence(done)}"))


#: What `acon gates` shows on the screen; files have all columns.
_GATES_SHOWN = (
    "layer", "intervention", "recalibrated", "verdict", "loss_change", "low", "high", "p_holm",
    "accuracy_change", "agreement",
)  # fmt: skip


@app.command()
def gates(
    model: Model,
    data: Annotated[
        str, typer.Option(help="digits, digits:train, cifar10, a folder or file.py:callable")
    ],
    weights: Weights = None,
    intervention: Annotated[
        list[str] | None,
        typer.Option(
            help="mean, resample, constant, resample-within-class, level (constant against mean), "
            "repeatable; by default the first three"
        ),
    ] = None,
    recalibrate: Annotated[
        str | None,
        typer.Option(help="training data: also with BatchNorms estimated on them again"),
    ] = None,
    layers: Annotated[str | None, typer.Option(help="only these layers, by comma")] = None,
    limit: Annotated[int | None, typer.Option(help="only the first N samples")] = None,
    batch_size: Annotated[int, typer.Option(help="samples per forward pass")] = 64,
    margin: Annotated[
        float, typer.Option(help="changes of the loss within this do not matter, in nats")
    ] = 0.01,
    seed: Annotated[int, typer.Option(help="of the drawing of donors")] = 0,
    format: Format = None,
    out: Out = None,
) -> None:
    """Measure whether a network uses β and its gates."""
    from acon_hooks.replacement.gate_changes import DEFAULT, gate_use, sentences

    table = gate_use(
        build(model, weights),
        data,
        intervention or DEFAULT,
        layers=None if layers is None else parse_list(layers),
        recalibrate=recalibrate,
        seed=seed,
        margin=margin,
        limit=limit,
        batch_size=batch_size,
    )
    emit(table, format, out, columns=_GATES_SHOWN)
    for line in sentences(table, margin=margin):
        say(sentence_text(line), err=True)


@app.command()
def blocks(
    model: Model,
    data: Annotated[
        str, typer.Option(help="digits, digits:train, cifar10, a folder or file.py:callable")
    ],
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    blocks: Annotated[
        list[str] | None,
        typer.Option(
            help="module paths, 'whole network' among them; by default the repeated blocks and the "
            "whole network"
        ),
    ] = None,
    weights: Weights = None,
    preprocess: Annotated[
        str | None, typer.Option(help="official, imagenet, none or file.py:callable")
    ] = None,
    mask: Mask = None,
    limit: Annotated[int | None, typer.Option(help="only the first N samples")] = None,
    seed: Annotated[int, typer.Option(help="of the folds of R² and of the order")] = 0,
    format: Format = None,
    out: Out = None,
) -> None:
    """Measure how linear blocks and the whole network are."""
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
        announce=lambda text: say(f"acon: {text}", err=True),
        progress=sys.stderr.isatty(),
    )
    emit(table, format, out, columns=_OF_BLOCKS)
    if on_screen(format, out):
        say()
        say(
            sentence_text(
                "nlc: 1 for affine maps, the number to go by. r2: of the best affine map on other "
                "samples; a lower bound where a block mixes positions. elementwise_L: mean L of "
                "the activations inside. nlc_change: when these are straight lines."
            )
        )


@app.command()
def explain(
    model: Model,
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
    weights: Weights = None,
    preprocess: Annotated[
        str | None, typer.Option(help="official, imagenet, none or file.py:callable")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    format: Annotated[list[str] | None, typer.Option(help="png, pdf, svg")] = None,
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
        network, data, layer, _channel(channel), sample, baseline=baseline, preprocess=preprocess,
        device=device, method=method, tolerance=tolerance, most_varied=channel is None,
        announce=lambda text: say(f"acon: {text}", err=True),
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
            f"the layer's weights shuffled {table['draw'].nunique()} times: rank correlation of "
            f"the maps before and after {table['correlation'].mean():.2f}, of their sizes "
            f"{table['correlation_absolute'].mean():.2f}"
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
        network, data, out, None if layer is None else parse_list(layer), limit=limit,
        preprocess=preprocess, device=device, baseline=baseline,
    )  # fmt: skip
    shown = table.sort_values("importance", ascending=False).head(MOST_CHANNELS)
    hidden = [name for name in ("dead", "constant_input") if not shown[name].any()]
    emit(shown.drop(columns=["nonlinearity", *hidden]))
    say(f"({len(shown)} of {len(table)} channels; all: {out / 'conductance.csv'})\n")
    emit(ranks)
    say("spearman: rank correlation of 1 - L with the importance, 95 % from low to high")
