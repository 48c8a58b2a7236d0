"""`nonlinearities`: what a network computes in one forward pass, operator by operator."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from torch import nn

from acon_analysis.statistics.census import census_table
from acon_hooks.census.census import Census
from acon_hooks.engine.sites import Args, Kwargs
from acon_hooks.engine.visiting import visiting
from acon_hooks.errors import HookError
from acon_hooks.guards import unwrap
from acon_hooks.layers.choosing import NoLayerError
from acon_hooks.layers.scan import PLAIN_KINDS, Layer, check_kinds
from acon_hooks.readings.second_look import CHANGED, copied
from acon_hooks.readings.tap import Tap

#: The kinds of layers whose linearity can be measured.
MEASURED_KINDS = ("meta_acon", "acon", "acon_frelu", *PLAIN_KINDS)


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
    census = Census(_measured(model, args, kwargs, kinds))
    inner = unwrap(model)
    with visiting(model, census.sites(inner), census), torch.no_grad():
        census.of(inner, copied(args), copied(kwargs))
    return census.frame()


def census_in(tap: Tap, *args: Any) -> pd.DataFrame:
    """Count the operators of a network whose first batch a tap has just read.

    The network runs once more, unless the first forward pass has changed it.

    Parameters
    ----------
    tap : Tap
        After its first batch; its layers are those that are measured.
    args
        The arguments of another forward pass, which may overwrite them.
    """
    census = Census(tap.calls.values())
    if tap.changes:
        census.incomplete = f"{CHANGED} {tap.changes}, so it was not run again"
        return census.frame()
    try:
        devices = {p.device for p in tap.model.parameters() if p.device.type == "cuda"}
        only = tap.only(census, census.sites(tap.model))
        with torch.random.fork_rng(devices), only, torch.no_grad():
            census.of(tap.model, args, {})
    except Exception as error:  # whatever a network that ran once raises
        census.incomplete = f"a further forward pass has failed ({type(error).__name__}: {error})"
    return census.frame()


def _arguments(example: Any) -> tuple[Args, Kwargs]:
    """Return an example as positional and keyword arguments."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (example if isinstance(example, tuple) else (example,)), {}


def _measured(model: nn.Module, args: Args, kwargs: Kwargs, kinds: Iterable[str]) -> list[Layer]:
    """Return the layers of some kinds that run and can be read."""
    kinds = check_kinds(kinds)
    try:
        tap = Tap(model, kinds=kinds, report_failures=True, allow_autocast=True)
        with tap, torch.no_grad():
            tap.model(*copied(args), **copied(kwargs))
            return tap.layers
    except (HookError, NoLayerError):  # what keeps the model from being watched is raised again
        return []


@contextmanager
def naming_calls(model: nn.Module, example: Callable[[], Any]) -> Iterator[None]:
    """Add to the error that a model has no layer of some kinds what it calls instead."""
    try:
        yield
    except NoLayerError as error:
        table = census_table(nonlinearities(model, example()))
        calls = table.groupby("operator", sort=False)["calls"].sum()
        found = ", ".join(f"{name} {count} times" for name, count in calls.items())
        text = f"{error}; in one forward pass it calls {found or 'nothing that is nonlinear'}"
        raise NoLayerError(text) from None
