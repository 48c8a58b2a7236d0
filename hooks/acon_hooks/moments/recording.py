"""`record`: β of every forward pass, and how linear the layers are, as DataFrames without files."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acon_analysis.errors import UsageError, closest
from acon_analysis.moments.frames import MergedRows
from acon_analysis.moments.gram import rounding
from acon_analysis.screen import counted
from acon_analysis.selection import layer_path
from acon_analysis.statistics.beta_matrix import long_frame
from acon_analysis.statistics.channel_sums import channel_sums
from acon_analysis.statistics.linearity import linearity_table, totals_by_sample
from acon_hooks.errors import HookError
from acon_hooks.layers.reading import Factors
from acon_hooks.layers.scan import Layer, default_kinds
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.moments.constants import reference_table
from acon_hooks.moments.options import MomentOptions, settle
from acon_hooks.readings.batch import Key, to_host
from acon_hooks.readings.layer_tables import channel_table, layer_table
from acon_hooks.readings.proof import ProofReport
from acon_hooks.readings.second_look import with_rowless
from acon_hooks.readings.tap import Tap

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

    _tap: Tap  # which reports to this recording

    def __init__(self, moments: Accumulator | None, *, full: bool) -> None:
        self._moments = moments
        self._merged = MergedRows()  # moments so far
        self._totals: pd.DataFrame | None = None
        self._lost: HookError | None = None  # why there are no moments
        self._full = full
        self._parts: dict[Key, list[NDArray[Any]]] = {}
        self._spreads: dict[Key, list[NDArray[Any]]] = {}
        self._maps: dict[Key, list[NDArray[Any]]] = {}
        self.samples = 0

    def __repr__(self) -> str:
        counts = f"{counted(len(self.layers), 'layer')}, {counted(self.samples, 'sample')}"
        network = type(self._tap.model).__name__
        return f"Recording of {network}: {counts}; see linearity(), betas(), layers"

    @property
    def layers(self) -> list[Layer]:
        """The layers, settled after the first forward pass."""
        return self._tap.layers

    @property
    def reports(self) -> list[ProofReport]:
        """Proofs of the first forward pass."""
        return list(self._tap.reports)

    def betas(self) -> pd.DataFrame:
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

    def spreads(self) -> pd.DataFrame:
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
        if self._moments is not None and self._lost is None and batch.samples:
            rows = self._tap.rows
            mixed = rows.layers if rows is not None and rows.status == "mixed" else ()
            ids = list(range(self.samples, self.samples + batch.samples))
            try:
                self._moments.batch(ids, mixed)
            except HookError as error:
                self._lost = error
        elif not batch.samples:
            self._forget()
        self.samples += batch.samples

    def _forget(self) -> None:
        """Forget what was summed of a forward pass that has failed or had no samples."""
        if self._moments is not None:
            self._moments.forget()

    def observe(
        self, layer: Layer, call: int, x: Tensor, y: Tensor, beta: Tensor | Factors | None
    ) -> None:
        """Sum a call; what cannot be summed is an error of `linearity`, not of the forward pass."""
        if self._moments is not None and self._lost is None:
            try:
                self._moments.observe(layer, call, x, y, beta)
            except HookError as error:
                self._lost = error

    def observe_input(self, layer: Layer, call: int, x: Tensor) -> bool:
        """Sum a call before it runs, as `observe` sums others; return whether it was."""
        if self._moments is None or self._lost is not None:
            return False
        try:
            return self._moments.observe_input(layer, call, x)
        except HookError as error:
            self._lost = error
            return False

    def linearity(
        self, by: str = "layer", *, confidence: float = 0.95, columns: str = "short"
    ) -> pd.DataFrame:
        """Tabulate how linear the layers were over all forward passes.

        Parameters
        ----------
        by : {"layer", "channel", "sample"}
            What a row is.
        confidence : float
            Of the intervals; jackknife over blocks of samples.
        columns : {"short", "all"}
            ``"short"``: those to look at first, `columns.SHORT_LINEARITY`.

        Returns
        -------
        DataFrame
            The columns and values of `Run.linearity` of a capture of the same batches; samples are
            counted over all forward passes.

        Raises
        ------
        HookError
            If no forward pass was recorded, or its layers cannot be measured.
        UsageError
            For an unknown `by`, or if ``moments=False`` left the sums out.
        """
        if self._moments is None:
            raise UsageError("linearity needs record(..., moments=True), the default")
        if self._lost is not None:
            raise self._lost
        if not self._tap.shapes:
            raise HookError(_NOTHING)
        if not self.samples:
            raise HookError("there were no samples: no argument of the model is a tensor of some")
        self._moments.require_some()
        self._moments.warn()
        self._take_sums(self._moments)
        tap = self._tap
        found = with_rowless(tap.rows, [name for name, _ in self._moments.rowless])
        rows = None if found is None else asdict(found)
        parameters = reference_table(self._moments.constants).merge(
            channel_table(tap.layers), on=["layer", "channel"], how="left"
        )
        eps = rounding(str(value.dtype) for value in tap.model.parameters())
        return linearity_table(
            by,
            layer_table(tap.calls, tap.reports, tap.shapes),
            lambda: channel_sums(self._merged.frame(), parameters, eps=eps),
            lambda: totals_by_sample(self._totals, rows),
            confidence=confidence,
            columns=columns,
        )

    def _take_sums(self, moments: Accumulator) -> None:
        """Add what was summed since the last time."""
        parts = {name: table.to_pandas() for name, table in moments.unit({}).items()}
        if "moments" in parts:
            new = parts["moments"]
            self._merged.add(new, [{str(name): new[name] for name in new}])
        if "totals" in parts:
            self._totals = pd.concat([self._totals, parts["totals"]], ignore_index=True)

    def _join(self, parts: dict[Key, list[NDArray[Any]]], layer: str, call: int) -> NDArray[Any]:
        if not self._parts:
            raise HookError(self._empty())
        known = [name for name, _ in self._parts]
        layer = layer_path(layer, known)
        if (layer, call) not in self._parts:
            calls = sorted(c for name, c in self._parts if name == layer)
            hint = f"its calls are {calls}" if calls else closest(layer, known)
            raise UsageError(f"no β of layer {layer!r}, call {call}: {hint}")
        if (layer, call) not in parts:
            raise UsageError(f"β of layer {layer!r} is the same at all pixels: see beta_matrix()")
        return np.concatenate(parts[layer, call])

    def _empty(self) -> str:
        if self._tap.shapes and all(layer.plain for layer in self.layers):
            return "activations and products have no β: see linearity()"
        return _NOTHING

    def _frame(self, parts: dict[Key, list[NDArray[Any]]], column: str) -> pd.DataFrame:
        if not self._parts:
            raise HookError(self._empty())
        pieces = []
        for (name, call), arrays in parts.items():
            values = np.concatenate(arrays)
            samples: Any = range(len(values)) if values.ndim == 2 else [-1]
            values = np.atleast_2d(values)
            pieces.append(long_frame(name, call, samples, values, column))
        if not pieces:
            return pd.DataFrame({n: [] for n in ("sample", "layer", "call", "channel", column)})
        return pd.concat(pieces, ignore_index=True).astype({"layer": "str"})


@contextmanager
def record(
    model: nn.Module,
    layers: Sequence[Layer | str] | None = None,
    kinds: Iterable[str] | None = None,
    prove: bool = True,
    *,
    full: bool = False,
    allow_autocast: bool = False,
    moments: bool = True,
) -> Iterator[Recording]:
    """Record β of every forward pass inside the context, and how linear the layers are.

    Hooks are gone when the context ends, however it ends. Each forward pass's β is copied to the
    host when that pass ends.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode.
    layers : sequence of Layer or str, optional
        Which layers; by default all of the given kinds.
    kinds : iterable of str, optional
        Keys of `acon_hooks.KINDS`; by default those of the ACON family, in a network without any
        the activations and gated products.
    prove : bool
        False trusts the readings that the given `layers` have from an earlier forward pass.
    full : bool
        Also keep β of every pixel, for `Recording.maps`.
    allow_autocast : bool
        True accepts autocast, with β rounded to its dtype.
    moments : bool
        Whether to sum what `Recording.linearity` needs, in memory: as a capture does, by a C++
        kernel that is compiled once on a machine, or by torch.

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
    sums = None
    if moments:
        device = next((value.device for value in model.parameters()), torch.device("cpu"))
        sums = Accumulator(settle(MomentOptions(), device)[0], quiet=True)
    recording = Recording(sums, full=full)
    recording._tap = tap = Tap(
        model,
        layers,
        kinds=default_kinds(model, moments=moments) if kinds is None else kinds,
        observe=recording.observe if moments else None,
        observe_input=recording.observe_input if sums is not None and sums.compiled else None,
        prove=prove,
        full=full,
        allow_autocast=allow_autocast,
        check_rows=prove,
    )
    with tap:
        tap.on_batch(recording._collect, recording._forget)
        yield recording
