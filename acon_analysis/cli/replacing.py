"""Commands that change a network: replace activations, hold gates."""

from pathlib import Path
from typing import Annotated

import typer

from acon_analysis.cli import options
from acon_analysis.cli.application import app
from acon_analysis.cli.options import build, emit, on_screen, parse_layers, parse_mask, say
from acon_analysis.screen import sentence_text


@app.command()
def linearize(
    model: options.Model,
    run: Annotated[Path, typer.Option(help="captured run of this model: it gives the lines")],
    data: Annotated[
        str, typer.Option(help="other samples, to measure the damage on; also file.py:callable")
    ],
    out: Annotated[Path, typer.Option(help="folder for plan, model and tables")],
    weights: options.Weights = None,
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
    limit: options.Limit = None,
    batch_size: options.BatchSize = 64,
    output: Annotated[
        str | None,
        typer.Option(
            help="which tensor of the network's output is meant: an index, a key, an attribute or "
            "file.py:callable; by default the only one, or logits"
        ),
    ] = None,
    logits: options.Logits = None,
    mask: options.Mask = None,
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
        layers=parse_layers(layers),
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
    model: options.Model,
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
    weights: options.Weights = None,
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
    layers: options.Layers = None,
    fold: Annotated[
        bool, typer.Option(help="fold lines of whole layers into their neighbours")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(help="only the first N samples, to fit and to measure")
    ] = None,
    batch_size: options.BatchSize = 64,
    output: Annotated[
        str | None,
        typer.Option(help="which tensor of the output is meant; as for `acon linearize`"),
    ] = None,
    logits: options.Logits = None,
    mask: options.Mask = None,
) -> None:
    """Replace activations by cheaper functions, without training."""
    from acon_hooks.replacement.replace import replace_data, sentence
    from acon_hooks.replacement.replacing import parse_budget, parse_output

    done = replace_data(
        build(model, weights),
        data,
        options.parse_list(with_),
        fit,
        parse_layers(layers),
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
    emit(done.table.assign(form=done.table["form"].map(done.called)), columns=_REPLACED_SHOWN)
    say(sentence_text(f"{out}: {sentence(done)}"))


#: What `acon gates` shows on the screen; files have all columns.
_GATES_SHOWN = (
    "layer", "intervention", "recalibrated", "verdict", "loss_change", "low", "high", "p_holm",
    "accuracy_change", "agreement",
)  # fmt: skip


@app.command()
def gates(
    model: options.Model,
    data: options.Samples,
    weights: options.Weights = None,
    intervention: Annotated[
        list[str] | None,
        typer.Option(
            help="mean, resample, constant, resample-within-class, level (constant against mean), "
            "repeatable; by default the first three"
        ),
    ] = None,
    recalibrate: Annotated[
        str | None, typer.Option(help="training data: also with BatchNorms estimated on them again")
    ] = None,
    layers: options.Layers = None,
    limit: options.Limit = None,
    batch_size: options.BatchSize = 64,
    margin: Annotated[
        float, typer.Option(help="changes of the loss within this do not matter, in nats")
    ] = 0.01,
    seed: Annotated[int, typer.Option(help="of the drawing of donors")] = 0,
    format: options.Format = None,
    out: options.Out = None,
) -> None:
    """Measure whether a network uses β and its gates."""
    from acon_analysis.statistics.sentences import named
    from acon_hooks.replacement.gate_changes import DEFAULT, gate_use, sentences

    table = gate_use(
        build(model, weights),
        data,
        intervention or DEFAULT,
        layers=parse_layers(layers),
        recalibrate=recalibrate,
        seed=seed,
        margin=margin,
        limit=limit,
        batch_size=batch_size,
    )
    shown = named(table) if on_screen(format, out) else table
    if recalibrate is None and on_screen(format, out):
        shown = shown.drop(columns="recalibrated")
    emit(shown, format, out, columns=_GATES_SHOWN)
    for line in sentences(table, margin=margin):
        say(sentence_text(line), err=True)
