"""`find_layers` and `record`: the layers of a model, and β of every forward pass as a DataFrame."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from acon_analysis.errors import UsageError, closest
from acon_hooks.engine.feed import example_batch
from acon_hooks.engine.inputs import Forward
from acon_hooks.errors import HookError
from acon_hooks.guards import unwrap
from acon_hooks.layers.choosing import NoLayerError
from acon_hooks.layers.scan import DEFAULT_KINDS, PLAIN_KINDS, Layer, check_kinds, scan_layers
from acon_hooks.readings.batch import Key, to_host
from acon_hooks.readings.proof import ProofReport
from acon_hooks.readings.tap import Tap

if TYPE_CHECKING:
    import pandas as pd

_NOTHING = (
    "nothing was recorded: run the model inside the context, "
    "`with record(model) as recording: model(images)`, in the same thread and on the very model"
)


class Recording:
    """What was read between entering and leaving `record`.

    Attributes
    ----------
    layers : list of Layer
        The layers, settled after the first forward pass.
    reports : list of ProofReport
        One for each use of a layer in the first forward pass, or in the first that proves it.
    samples : int
        How many samples all forward passes had together.
    """

    def __init__(self, tap: Tap, *, full: bool) -> None:
        self._tap = tap
        self._full = full
        self._parts: dict[Key, list[NDArray[Any]]] = {}
        self._spreads: dict[Key, list[NDArray[Any]]] = {}
        self._maps: dict[Key, list[NDArray[Any]]] = {}
        self.samples = 0

    @property
    def layers(self) -> list[Layer]:
        """The layers, settled after the first forward pass."""
        return self._tap.layers

    @property
    def reports(self) -> list[ProofReport]:
        """Proofs of the first forward pass."""
        return list(self._tap.reports)

    def betas(self) -> "pd.DataFrame":
        """Return all β in long form.

        Returns
        -------
        DataFrame
            ``sample`` int64 (counted over all forward passes; -1 for a static β, which all
            samples share), ``layer`` str, ``call`` int64, ``channel`` int64 (0 alone where a
            sample has one β for the whole layer) and ``beta`` in the layers' own dtype
            (bfloat16, which numpy lacks, as float32). Where β differs between pixels, it is the
            mean over the pixels; see `spreads` and `maps`.

        Raises
        ------
        HookError
            If no forward pass was recorded.
        """
        return self._frame(self._parts, "beta")

    def spreads(self) -> "pd.DataFrame":
        """Return standard deviations of β over the pixels, in the columns of `betas`.

        Only layers whose β differs between pixels have rows.

        Raises
        ------
        HookError
            If no forward pass was recorded.
        """
        return self._frame(self._spreads, "spread")

    def beta_matrix(self, layer: str, call: int = 0) -> NDArray[Any]:
        """Return β of one layer: (samples, C), (samples, 1) for one β a sample, (C,) if static.

        Raises
        ------
        HookError
            If no forward pass was recorded.
        UsageError
            If the layer or the call is unknown.
        """
        return self._join(self._parts, layer, call)

    def maps(self, layer: str, call: int = 0) -> NDArray[Any]:
        """Return β of every pixel, (samples, C, H, W), recorded with ``full=True``.

        Raises
        ------
        HookError
            If no forward pass was recorded.
        UsageError
            If ``full`` was not asked for, or β of the layer does not differ between pixels.
        """
        if not self._full:
            raise UsageError("maps need record(..., full=True)")
        return self._join(self._maps, layer, call)

    def _collect(self) -> None:
        batch = self._tap.take()
        for values, kept in (
            (batch, self._parts),
            (batch.spread, self._spreads),
            (batch.maps, self._maps),
        ):
            for key, array in to_host(values).items():
                if array.ndim == 1 and values is batch:
                    kept[key] = [array]  # static: the same in every batch
                else:
                    kept.setdefault(key, []).append(array)
        self.samples += batch.samples

    def _join(self, parts: dict[Key, list[NDArray[Any]]], layer: str, call: int) -> NDArray[Any]:
        if not self._parts:
            raise HookError(self._empty())
        if (layer, call) not in parts:
            calls = sorted(c for name, c in parts if name == layer)
            hint = f"its calls are {calls}" if calls else closest(layer, [n for n, _ in parts])
            raise UsageError(f"no β of layer {layer!r}, call {call}: {hint}")
        return np.concatenate(parts[layer, call])

    def _empty(self) -> str:
        if self._tap.shapes and all(layer.plain for layer in self.layers):
            return "activations and products have no β: capture them with moments instead"
        return _NOTHING

    def _frame(self, parts: dict[Key, list[NDArray[Any]]], column: str) -> "pd.DataFrame":
        import pandas as pd  # slow to load

        if not self._parts:
            raise HookError(self._empty())
        pieces = []
        for (name, call), arrays in parts.items():
            values = np.concatenate(arrays)
            static = values.ndim == 1
            rows, width = (1, len(values)) if static else values.shape
            sample = np.full(width, -1) if static else np.repeat(np.arange(rows), width)
            pieces.append(
                pd.DataFrame(
                    {
                        "sample": sample.astype(np.int64),
                        "layer": pd.Series([name], dtype="str").repeat(rows * width).to_numpy(),
                        "call": np.int64(call),
                        "channel": np.tile(np.arange(width, dtype=np.int64), rows),
                        column: values.reshape(-1),
                    }
                )
            )
        if not pieces:
            return pd.DataFrame({n: [] for n in ("sample", "layer", "call", "channel", column)})
        return pd.concat(pieces, ignore_index=True).astype({"layer": "str"})


@contextmanager
def record(
    model: nn.Module,
    layers: Sequence[Layer | str] | None = None,
    kinds: Iterable[str] = DEFAULT_KINDS,
    prove: bool = True,
    *,
    full: bool = False,
    allow_autocast: bool = False,
) -> Iterator[Recording]:
    """Record β of every forward pass inside the context.

    Hooks are gone when the context ends, however it ends. Each forward pass's β is copied to the
    host when that pass ends.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode.
    layers : sequence of Layer or str, optional
        Which layers; by default all of the given kinds.
    kinds : iterable of str
        Keys of `acon_hooks.KINDS`.
    prove : bool
        False trusts the readings that the given `layers` have from an earlier forward pass.
    full : bool
        Also keep β of every pixel, for `Recording.maps`.
    allow_autocast : bool
        True accepts autocast, with β rounded to its dtype.

    Yields
    ------
    Recording
        Usable inside and after the context.

    Raises
    ------
    HookError
        If the model cannot be watched, or a forward pass was read incompletely.
    ProofError
        If β of a layer cannot be read.
    UsageError
        If a layer or kind is unknown.

    Notes
    -----
    A deep copy of the model made inside the context carries dead copies of the hooks.
    """
    tap = Tap(
        model,
        layers,
        kinds=kinds,
        prove=prove,
        full=full,
        allow_autocast=allow_autocast,
        check_rows=prove,
    )
    recording = Recording(tap, full=full)
    with tap:
        tap.on_batch(recording._collect)
        yield recording


def find_layers(
    model: nn.Module,
    kinds: Iterable[str] = DEFAULT_KINDS,
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
    kinds : iterable of str
        Keys of `KINDS`.
    example : Tensor, tuple or mapping, optional
        A batch, handed to the model in one forward pass (a tuple as its arguments, a mapping by
        their names).
    forward : callable, optional
        Calls the model on the example: (model, example) -> output.

    Returns
    -------
    list of Layer
        Modules in the order of `named_modules()`, a layer that is used in several places once; then
        functions in the order of execution.

    Raises
    ------
    UsageError
        If a kind is unknown.
    ProofError
        If `example` is given and β of a layer cannot be read.
    """
    found = scan_layers(model, kinds)
    if example is None or not (found or set(PLAIN_KINDS) & set(check_kinds(kinds))):
        return found
    with Tap(model, kinds=kinds) as tap, torch.no_grad():
        try:
            example_batch(model, example, forward).run(unwrap(model))
        except NoLayerError:
            return []
        return tap.layers
