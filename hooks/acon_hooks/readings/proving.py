"""The layers of a network as a table, each reading proved on some images."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import nn

from acon_analysis.errors import UsageError
from acon_hooks.engine.feed import Batch, example_batch
from acon_hooks.engine.feeding import named_data, open_feed, own_preprocess
from acon_hooks.engine.inputs import input_options
from acon_hooks.engine.plans import fitted
from acon_hooks.guards import refuse_other_images
from acon_hooks.layers.scan import DEFAULT_KINDS, KINDS, Layer
from acon_hooks.readings.layer_tables import layer_table
from acon_hooks.readings.tap import Tap

#: What is listed unless asked otherwise; "acon_plain_gate" only on request.
LISTED_KINDS = tuple(kind for kind in KINDS if kind != "acon_plain_gate")

#: Images the proof is made on: more than one, for it to have power.
PROOF_IMAGES = 8


def prove(
    model: nn.Module,
    images: Any,
    layers: Sequence[Layer | str] | None = None,
    kinds: Iterable[str] = DEFAULT_KINDS,
) -> pd.DataFrame:
    """Prove the reading of every layer on one batch, without stopping at a failure.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode.
    images : Tensor, tuple or mapping
        A batch; a tuple is handed over as the model's arguments, a mapping by their names. At
        least two samples give the proof its power.
    layers : sequence of Layer or str, optional
        Which layers; by default all of the given kinds.
    kinds : iterable of str
        Keys of `acon_hooks.KINDS`.

    Returns
    -------
    DataFrame
        One row for each use of a layer, in the order of execution: layer, call, kind, channels,
        granularity, reader, class_name, proof_error, proof_power, tolerance, dtype, silent,
        status, reason; see `ProofReport`.
    """
    with Tap(model, layers, kinds=kinds, report_failures=True) as tap, torch.no_grad():
        example_batch(model, images).run(model)
        return pd.DataFrame(_rows(tap))


def _rows(tap: Tap) -> list[dict[str, Any]]:
    """Return a row for every proof of the first batch."""
    known = {layer.name: layer for layer in tap.settled()}
    return [
        {
            "layer": report.layer,
            "call": report.call,
            "kind": known[report.layer].kind,
            "channels": report.channels,
            "granularity": known[report.layer].granularity,
            "reader": report.reader,
            "class_name": known[report.layer].class_name,
            "proof_error": report.error,
            "proof_power": report.power,
            "tolerance": report.tolerance,
            "dtype": report.dtype,
            "silent": report.silent,
            "status": report.status,
            "reason": report.reason,
        }
        for report in tap.reports
    ]


def proved_layers(
    model: nn.Module,
    *,
    data: Any = None,
    input_shape: Sequence[int] | None = None,
    kinds: Sequence[str] = LISTED_KINDS,
) -> pd.DataFrame:
    """List a network's activation layers, how β is read from each, and the error of the proof.

    The proof is made on the first eight samples of `data`, or else on random normal images of
    `input_shape` (C, H, W), by default the model's own ``input_shape``; a UsageError if that is not
    known.

    Returns a row a layer and call in order of execution: ``layer, call, kind, channels,
    granularity, reader, class_name, proof_error, proof_power, status, reason``; a reading that
    failed its proof has the status ``"failed"`` and the reason, a layer without β an empty status.
    Activations called as functions are layers too, such as ``layer1.0:relu#1``.
    """
    example = example_samples(model, data, input_shape)
    if isinstance(example.inputs, torch.Tensor):
        refuse_other_images(model, example.inputs)
    with Tap(model, kinds=kinds, report_failures=True) as tap, torch.no_grad():
        tap.run(example.copy())
        table = layer_table(tap.calls, tap.reports, tap.shapes).drop(columns="column")
        proofs = pd.DataFrame(_rows(tap), columns=[*table.columns, "status", "reason"])
    keys = ["layer", "call"]
    table = table.merge(proofs[[*keys, "status", "reason"]], on=keys, how="left")
    lost = proofs[proofs["status"] == "failed"]
    table = pd.concat([table, lost], ignore_index=True) if len(lost) else table
    return table.fillna({"status": "", "reason": ""})


def example_samples(
    model: nn.Module, data: Any = None, input_shape: Sequence[int] | None = None
) -> Batch:
    """Return the samples that `proved_layers` makes its proofs on."""
    if data is not None:
        source, options = named_data(data, own_preprocess(model)), input_options(model)
        feed = open_feed(source, limit=PROOF_IMAGES, batch_size=PROOF_IMAGES, options=options)
        return next(batch for batch in feed.batches() if batch.ids)
    shape = input_shape or getattr(model, "input_shape", None)
    if shape is None:
        raise UsageError(
            "the network does not say what it takes: give --data, or --input-shape C,H,W for "
            "random images"
        )
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(PROOF_IMAGES, *shape, generator=generator)
    return fitted(model, Batch(0, list(range(PROOF_IMAGES)), images))
