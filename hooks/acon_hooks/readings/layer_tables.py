"""Layers as frames: what was found, how it is read, which slopes were learned; β networks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from acon_analysis.columns import CHANNEL_COLUMNS, LAYER_COLUMNS, dtypes, names
from acon_analysis.store.folder import column_name
from acon_hooks.layers.elementwise import is_activation
from acon_hooks.layers.scan import Layer, slopes
from acon_hooks.readings.proof import ProofReport


def layer_table(
    layers: Mapping[tuple[str, int], Layer],
    reports: Iterable[ProofReport],
    shapes: Mapping[tuple[str, int], Sequence[int]],
) -> pd.DataFrame:
    """Return a row a layer and call, in order of execution, columns `columns.LAYER_COLUMNS`."""
    proofs = {(report.layer, report.call): report for report in reports}
    gates = {layer.gate: name for (name, _), layer in layers.items() if layer.gate is not None}
    taken: set[str] = set()
    rows = []
    for (name, call), layer in layers.items():
        proof = proofs.get((name, call))
        per_sample = layer.granularity in ("channel", "layer", "pixel")
        rows.append(
            {
                "layer": name,
                "call": call,
                "kind": layer.kind,
                "channels": _width(layer, shapes[name, call]),
                "granularity": layer.granularity,
                "reader": layer.reader,
                "class_name": layer.class_name,
                "column": column_name(name, call, taken) if per_sample else "",
                "proof_error": np.nan if proof is None else proof.error,
                "proof_power": np.nan if proof is None else proof.power,
                "gate_of": gates.get((name, call), ""),
                "parameters": layer.parameters,
            }
        )
    frame = pd.DataFrame(rows, columns=names(LAYER_COLUMNS))
    return frame.astype(dtypes(LAYER_COLUMNS))


def channel_table(layers: Sequence[Layer]) -> pd.DataFrame:
    """Return a row a settled layer and channel with its constants: `columns.CHANNEL_COLUMNS`."""
    frames = []
    for layer in layers:
        count = layer.channels or 0
        scale, shift = last_norm(layer)
        frames.append(
            pd.DataFrame(
                {
                    "layer": layer.name,
                    "channel": np.arange(count, dtype=np.int64),
                    "p1": _numbers(layer.p1, count),
                    "p2": _numbers(layer.p2, count),
                    "beta": _numbers(layer.beta, count),
                    "bn_weight": _numbers(scale, count),
                    "bn_bias": _numbers(shift, count),
                }
            )
        )
    frame = (
        pd.concat(frames, ignore_index=True)
        if frames
        else pd.DataFrame(columns=names(CHANNEL_COLUMNS))
    )
    return frame.astype(dtypes(CHANNEL_COLUMNS))


def last_norm(layer: Layer) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return scale and shift of the BatchNorm whose output's sigmoid is β, if that is so."""
    reading = layer.reading
    if reading is None or reading.transform != "sigmoid":
        return None, None
    module = reading.source.inner(layer.module)
    if not isinstance(module, _BatchNorm) or not module.affine:
        return None, None
    return module.weight.detach(), module.bias.detach()


def beta_networks(layers: Iterable[Layer]) -> dict[str, dict[str, Any]]:
    """Describe the β networks of layers by name, as JSON; others are left out."""
    found = {layer.name: _beta_network(layer) for layer in layers}
    return {name: facts for name, facts in found.items() if facts is not None}


def _beta_network(layer: Layer) -> dict[str, Any] | None:
    """Return arguments of `statistics.redrawn_null.BetaNetwork`, ``norm`` for its γ and b.

    None unless β is one number a channel, made of the pooled input by two linear maps.
    """
    if layer.granularity != "channel" or slopes(layer.module) is None:
        return None
    parts = [module for module in layer.module.modules() if module is not layer.module]
    linear = [module for module in parts if isinstance(module, nn.Linear | _ConvNd)]
    if len(linear) != 2 or _outputs(linear[1]) != layer.channels:
        return None
    hidden = _outputs(linear[0])
    norms = [module for module in parts if isinstance(module, _BatchNorm)]
    scale, _ = last_norm(layer)
    inner = norms[:-1] if scale is not None else norms
    return {
        "hidden": hidden,
        "norm": scale is not None,
        "inner_norm": any(norm.num_features == hidden for norm in inner),
        "relu": any(isinstance(m, nn.ReLU) for m in parts if is_activation(m)),
        "eps": float(norms[-1].eps) if norms else 1e-5,
    }


def _outputs(module: nn.Module) -> int:
    return int(getattr(module, "out_features", 0) or getattr(module, "out_channels", 0))


def _width(layer: Layer, shape: Sequence[int]) -> int:
    """Return the channels of one call: an activation without parameters may have other ones."""
    axis = layer.axis - 1
    if layer.plain and 0 <= axis < len(shape):
        return int(shape[axis])
    return layer.channels or 0


def _numbers(values: Any, count: int) -> npt.NDArray[np.float64]:
    if values is None or values.numel() != count:
        return np.full(count, np.nan)
    array: npt.NDArray[np.float64] = values.detach().double().cpu().numpy().reshape(-1)
    return array
