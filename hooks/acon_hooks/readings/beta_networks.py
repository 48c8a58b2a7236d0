"""What a channel-wise β network is made of, as far as its null model needs to know."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from acon_hooks.layers.elementwise import is_activation
from acon_hooks.layers.scan import Layer, slopes
from acon_hooks.readings.layer_tables import last_norm


def run_facts(layers: Iterable[Layer]) -> dict[str, dict[str, Any]]:
    """Describe the β networks of layers by name; those that are none of these are left out."""
    found = {layer.name: beta_network(layer) for layer in layers}
    return {name: facts for name, facts in found.items() if facts is not None}


def beta_network(layer: Layer) -> dict[str, Any] | None:
    """Describe the network that makes β of one layer from its pooled input, to be stored as JSON.

    ``hidden`` (outputs of the first linear map), ``norm`` (whether β is the sigmoid of a
    BatchNorm's output), ``inner_norm``, ``relu``, ``eps`` (of the last BatchNorm): the arguments of
    `statistics.redrawn_null.BetaNetwork` but for γ and b, which are in ``channels.parquet``. None
    unless β is one number a channel made by two linear maps.
    """
    if layer.granularity != "channel" or slopes(layer.module) is None:
        return None
    parts = [module for module in layer.module.modules() if module is not layer.module]
    linear = [module for module in parts if isinstance(module, nn.Linear | _ConvNd)]
    if len(linear) != 2 or _width(linear[1]) != layer.channels:
        return None
    hidden = _width(linear[0])
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


def _width(module: nn.Module) -> int:
    return int(getattr(module, "out_features", 0) or getattr(module, "out_channels", 0))
