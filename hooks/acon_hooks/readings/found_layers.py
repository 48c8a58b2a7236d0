"""`find_layers`: the layers of a model."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from acon_hooks.engine.feed import example_batch
from acon_hooks.engine.inputs import Forward
from acon_hooks.errors import NoLayerWarning
from acon_hooks.guards import unwrap
from acon_hooks.layers.choosing import NoLayerError
from acon_hooks.layers.scan import PLAIN_KINDS, Layer, check_kinds, default_kinds, scan_layers
from acon_hooks.readings.tap import Tap


def find_layers(
    model: nn.Module,
    kinds: Iterable[str] | None = None,
    example: Any = None,
    forward: Forward | None = None,
) -> list[Layer]:
    """Find the layers of some kinds.

    Layers that own p1 and p2 of equal shape are ACON layers, whoever wrote them. What only a
    forward pass can show (how β is read, whether it depends on the sample, where the channels
    are) is a guess until a batch has been seen; give `example` to have it settled and proved.
    Activations that are called as functions (``F.relu(x)``, ``x.sigmoid_()``) are found with an
    `example` only: layers of kind "activation" such as ``layer1.0:relu#1``, call 1 of relu within
    one call of the module ``layer1.0``; likewise products, kind "product": ``mlp:mul#0``.

    Parameters
    ----------
    model : Module
        The network. DistributedDataParallel, DataParallel and torch.compile wrappers are looked
        through: names are those of the module inside.
    kinds : iterable of str, optional
        Keys of `KINDS`; by default those of the ACON family, in a network without any the
        activations and gated products.
    example : Tensor, tuple, list, mapping, Dataset or DataLoader, optional
        A batch, handed to the model in one forward pass (a tuple as its arguments, a mapping by
        their names, a list ``[x, labels]`` as a capture takes it); of a data set or a loader the
        first batch, without its labels.
    forward : callable, optional
        Calls the model on the example: (model, example) -> output.

    Returns
    -------
    list of Layer
        Modules in the order of `named_modules()`, a layer that is used several times once; then
        functions in the order of execution.

    Raises
    ------
    UsageError
        If a kind is unknown.
    ProofError
        If `example` is given and β of a layer cannot be read.
    """
    asked = default_kinds(model) if kinds is None else check_kinds(kinds)
    found = scan_layers(model, asked)
    if example is None and kinds is None and not found:
        text = (
            f"{type(unwrap(model)).__name__} has no module that is an activation; those that are "
            "called as functions, F.relu(x), are found with a batch: find_layers(model, example=x)"
        )
        warnings.warn(text, NoLayerWarning, stacklevel=2)
    if example is None or not (found or set(PLAIN_KINDS) & set(asked)):
        return found
    with Tap(model, kinds=asked) as tap, torch.no_grad():
        try:
            example_batch(model, example, forward).run(unwrap(model))
        except NoLayerError:
            return []
        return tap.layers
