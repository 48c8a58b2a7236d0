"""Commands about networks: list, inspect, train, import."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acon_analysis.cli import options
from acon_analysis.cli.application import app
from acon_analysis.cli.options import build, emit, note, on_screen, say
from acon_analysis.errors import UsageError
from acon_analysis.screen import WIDE, counted, sentence_text, terminal_width

if TYPE_CHECKING:
    import pandas as pd

#: What the screen shows first, of networks and of layers; files have all columns.
_MODELS_SHOWN = ("name", "weights", "test_accuracy", "parameters", "input_shape", "source")
_LAYERS_SHOWN = (
    "layer", "call", "kind", "channels", "reader", "proof_error", "status", "reason", "class_name",
    "parameters", "granularity",
)  # fmt: skip
_CENSUS_SHOWN = ("operator", "measured", "calls", "share", "reason", "modules")

_PARTLY_PROVED = (
    "partly proved: β gives the layer's output, but in some channels a somewhat different β would, "
    "too (p1 close to p2, or small inputs)"
)


@app.command()
def models(format: options.Format = None, out: options.Out = None) -> None:
    """List the networks that can be named."""
    from acon_analysis.models.listing import model_table

    emit(model_table(), format, out, columns=_MODELS_SHOWN, labels={"test_accuracy": "accuracy"})


@app.command()
def layers(
    model: options.Model,
    weights: options.Weights = None,
    data: Annotated[str | None, typer.Option(help="for the proof; also file.py:callable")] = None,
    input_shape: Annotated[str | None, typer.Option(help="C,H,W of random images")] = None,
    kinds: Annotated[str | None, typer.Option(help="kinds, by comma; by default all")] = None,
    format: options.Format = None,
    out: options.Out = None,
) -> None:
    """List activation layers, the proof, and the census."""
    from acon_analysis.statistics.census import census_table, census_text
    from acon_hooks.census.counting import naming_calls, nonlinearities
    from acon_hooks.layers.scan import default_kinds
    from acon_hooks.readings.proving import LISTED_KINDS, example_samples, proved_layers

    shape = None if input_shape is None else options.parse_shape(input_shape)
    chosen = LISTED_KINDS if kinds is None else options.parse_list(kinds)
    network = build(model, weights)
    samples = example_samples(network, data, shape)
    with naming_calls(network, lambda: samples):
        frame = proved_layers(network, data=data, input_shape=shape, kinds=chosen)
    emit(frame, format, out, columns=_LAYERS_SHOWN)
    measured = default_kinds(network) if kinds is None else chosen  # as a capture has them
    census = nonlinearities(network, samples, kinds=measured)
    plain = on_screen(format, out)
    if (frame["status"] == "partly proved").any():
        say(sentence_text(_PARTLY_PROVED), err=not plain)
    say(sentence_text(census_text(census, measured)), err=not plain)
    if kinds is None and (text := _left_out_text(frame["kind"], measured)):
        say(sentence_text(text), err=not plain)
    if plain and len(table := census_table(census, 3 if terminal_width() >= WIDE else 1)):
        say()
        emit(table, columns=_CENSUS_SHOWN)


def _left_out_text(found: "pd.Series[str]", captured: Sequence[str]) -> str:
    """Say which of the kinds found `acon capture` leaves out by default; empty for none."""
    others = found[~found.isin(captured)]
    if others.empty:
        return ""
    counts = ", ".join(f"{count} of kind {kind}" for kind, count in others.value_counts().items())
    return (
        f"acon capture leaves out {counts}, unless asked for with "
        f"--kinds {','.join(dict.fromkeys(found))}"
    )


@app.command()
def train(
    network: Annotated[str, typer.Argument(help="a network with a recipe", show_default=False)],
    out: Annotated[Path, typer.Option(help="weights file; curves and card are written next to it")],
    data: Annotated[str | None, typer.Option(help="by default the network's own")] = None,
    epochs: Annotated[int | None, typer.Option(help="by default the recipe's")] = None,
    seed: Annotated[int, typer.Option(help="of weights, order and augmentation")] = 0,
    snapshots: Annotated[
        str | None, typer.Option(help="epochs whose weights are kept, by comma; 0: untrained")
    ] = None,
) -> None:
    """Train a small network, or go on with it."""
    from acon_analysis.training.release import train_network, weights_path

    kept = () if snapshots is None else _epochs(snapshots)

    out = weights_path(out)
    curves = train_network(
        network,
        out,
        data=data,
        epochs=epochs,
        seed=seed,
        snapshots=kept,
        progress=sys.stderr.isatty(),
    )
    error = float(curves["test_error"].iloc[-1])
    say(
        f"{out}: {counted(len(curves), 'epoch')}, test accuracy {1 - error:.4f}; curves and card "
        "next to it (.csv, .md)"
    )


def _epochs(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in options.parse_list(text))
    except ValueError as error:
        raise UsageError(f"snapshots must be epochs like 0,1,3,10; got {text!r}") from error


@app.command("import-checkpoint")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help=".pth, .pt, .tar or .safetensors")],
    model: Annotated[str, typer.Option(help="the network it belongs to")],
    out: Annotated[Path, typer.Option(help="safetensors file to write")],
    drop: Annotated[
        list[str] | None,
        typer.Option(
            help="a key, or a pattern of keys, that the network does without; repeatable",
            metavar="NAME",
        ),
    ] = None,
) -> None:
    """Turn a checkpoint into safetensors."""
    from acon_analysis.models.checkpoints import import_checkpoint as convert
    from acon_analysis.models.registry import build_model

    network = build_model(model, weights=None)
    result = convert(file, network, out, model_name=model, drop=drop or ())
    for text in result.notes:
        note(f"note: {text}")
    say(
        f"{result.path}: {counted(result.tensors, 'tensor')}, {counted(result.values, 'value')} "
        f"from a {result.format} file with SHA-256 {result.source_sha256}"
    )
