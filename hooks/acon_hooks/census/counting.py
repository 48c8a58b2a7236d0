"""`nonlinearities`: what a network computes in one forward pass, operator by operator."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from torch import nn

from acon_analysis.screen import counted
from acon_analysis.statistics.census import census_table
from acon_hooks.census.census import Census
from acon_hooks.engine.feed import Batch, example_batch
from acon_hooks.engine.inputs import Forward
from acon_hooks.engine.trees import leaves
from acon_hooks.engine.visiting import visiting
from acon_hooks.errors import HookError
from acon_hooks.guards import unwrap
from acon_hooks.layers.choosing import NoLayerError
from acon_hooks.layers.scan import PLAIN_KINDS, Layer, check_kinds
from acon_hooks.readings.second_look import CHANGED
from acon_hooks.readings.tap import Tap

#: The kinds of layers whose linearity can be measured.
MEASURED_KINDS = ("meta_acon", "acon", "acon_frelu", *PLAIN_KINDS)


def nonlinearities(
    model: nn.Module,
    example: Any,
    kinds: Iterable[str] = MEASURED_KINDS,
    forward: Forward | None = None,
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
    example : Tensor, tuple, mapping or Batch
        A batch; a tuple is handed over as the model's arguments, a mapping by their names.
    kinds : iterable of str
        Kinds of layers, keys of `acon_hooks.KINDS`, that count as measured.
    forward : callable, optional
        Calls the model on the example: (model, example) -> output. What it computes before and
        after is counted, too, with the name "".

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
    batch = example if isinstance(example, Batch) else example_batch(model, example, forward)
    return _counted(model, batch, kinds)


def _counted(model: nn.Module, batch: Batch, kinds: Iterable[str]) -> pd.DataFrame:
    """Count the operators of one forward pass on a batch."""
    census = Census(_measured(model, batch, kinds))
    inner = unwrap(model)
    with visiting(model, census.sites(inner), census), torch.no_grad():
        _count(census, inner, batch.copy())
    return census.frame()


def _count(census: Census, model: nn.Module, batch: Batch) -> None:
    """Count the operators between the tensors of a batch and the output."""
    census.of(lambda *_: batch.run(model), tuple(value for _, value in leaves(batch.inputs)), {})


def census_in(tap: Tap, batch: Batch) -> pd.DataFrame:
    """Count the operators of a network whose first batch a tap has just read."""
    census = Census(tap.calls.values())
    if tap.changes:
        census.incomplete = f"{CHANGED} {tap.changes}, so it was not run again"
        return census.frame()
    try:
        devices = {p.device for p in tap.model.parameters() if p.device.type == "cuda"}
        only = tap.only(census, census.sites(tap.model))
        with torch.random.fork_rng(devices), only, torch.no_grad():
            _count(census, tap.model, batch)
    except Exception as error:  # whatever a network that ran once raises
        census.incomplete = f"a further forward pass has failed ({type(error).__name__}: {error})"
    return census.frame()


def _measured(model: nn.Module, batch: Batch, kinds: Iterable[str]) -> list[Layer]:
    """Return the layers of some kinds that run and can be read."""
    kinds = check_kinds(kinds)
    try:
        tap = Tap(model, kinds=kinds, report_failures=True, allow_autocast=True)
        with tap, torch.no_grad():
            tap.run(batch.copy())
            return tap.layers
    except (HookError, NoLayerError):  # what keeps the model from being watched is raised again
        return []


@contextmanager
def naming_calls(model: nn.Module, example: Callable[[], Batch]) -> Iterator[None]:
    """Add to the error that a model has no layer of some kinds what it calls instead."""
    try:
        yield
    except NoLayerError as error:
        table = census_table(_counted(model, example(), MEASURED_KINDS))
        calls = table.groupby("operator", sort=False)["calls"].sum()
        found = ", ".join(f"{name} {counted(count, 'time')}" for name, count in calls.items())
        text = f"{error}; in one forward pass it calls {found or 'nothing that is nonlinear'}"
        raise NoLayerError(text) from None
