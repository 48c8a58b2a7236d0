"""`nonlinearities`: what a network computes in one forward pass, operator by operator."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import nn

from acon_hooks.census.census import Census
from acon_hooks.engine.sites import Args, Kwargs
from acon_hooks.engine.visiting import visiting
from acon_hooks.guards import unwrap
from acon_hooks.layers.scan import Layer, scan_layers
from acon_hooks.readings.second_look import copied
from acon_hooks.readings.tap import Tap

#: The kinds of layers whose linearity can be measured.
MEASURED_KINDS = ("meta_acon", "acon", "acon_frelu", "activation")


def nonlinearities(
    model: nn.Module, example: Any, kinds: Iterable[str] = MEASURED_KINDS
) -> pd.DataFrame:
    """Count the operators of one forward pass: linear, nonlinear or unknown, measured or not.

    Every operator that PyTorch dispatches under ``no_grad`` on the model's device is counted,
    whoever calls it: modules, functions, custom autograd functions, scripted functions. It is
    "linear" if it is linear or affine in those of its arguments that depend on the input, whatever
    else they hold: a convolution, a product with a constant, an evaluated batch normalisation, a
    mean, a lookup of embeddings. An operator without such arguments is linear, too.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode.
    example : Tensor, tuple or dict
        A batch; a tuple is handed over as the model's arguments, a dict as keyword arguments.
    kinds : iterable of str
        Kinds of layers, keys of `acon_hooks.KINDS`, that count as measured.

    Returns
    -------
    DataFrame
        A row a module and operator, in the order of execution: ``name`` (module path of the
        innermost module that was running), ``operator``, ``calls``, ``elements`` (of their
        outputs), ``class`` ("linear", "nonlinear", "unknown"), ``measured`` and ``layer`` (whether
        the calls are part of a layer that is measured, and which) and ``reason``. A last row
        without operator and calls says that the census is incomplete: an output of the network
        does not come from the input by operators that were seen.

    Raises
    ------
    HookError
        If the model cannot be watched.
    UsageError
        If a kind is unknown.
    """
    args, kwargs = _arguments(example)
    layers = _measured(model, args, kwargs, tuple(kinds))
    census = Census(layer.name for layer in layers)
    inner = unwrap(model)
    with visiting(model, census.sites(inner), census), torch.no_grad():
        census.of(inner, copied(args), copied(kwargs))
    return census.frame()


def _arguments(example: Any) -> tuple[Args, Kwargs]:
    """Return an example as positional and keyword arguments."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (example if isinstance(example, tuple) else (example,)), {}


def _measured(model: nn.Module, args: Args, kwargs: Kwargs, kinds: tuple[str, ...]) -> list[Layer]:
    """Return the layers of some kinds that run and can be read."""
    if not scan_layers(model, kinds):
        return []
    with Tap(model, kinds=kinds, report_failures=True) as tap, torch.no_grad():
        tap.model(*copied(args), **copied(kwargs))
        return tap.layers
