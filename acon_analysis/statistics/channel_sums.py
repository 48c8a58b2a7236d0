"""From moments to sums of channels: what every table of linearity divides."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.errors import AconError
from acon_analysis.moments import gram
from acon_analysis.moments.frames import CHANNEL_KEYS, channel_codes, from_frame, line_variance
from acon_analysis.moments.gram import EPS, EPS32, ROUNDINGS
from acon_analysis.moments.state import FloatArray, Moments, group, merge_all, residual
from acon_analysis.selection import require_columns
from acon_analysis.statistics.jackknife import leave_one_out

#: Channels that are merged at a time: 10 MB of 101 blocks.
_PIECE = 512

PARAMETERS = ("p1", "p2", "beta", "bn_weight", "bn_bias", "beta_reference")


@dataclass(frozen=True)
class ResidualSums:
    """Sums of channels, the last axis of every array; 0 for dead channels and NaN without data.

    ``sse`` is the residual of one affine fit over all data, ``cyy`` the output's sum of squares,
    ``own`` the residuals of one affine fit per sample (NaN where samples were not kept apart or
    have at most two values each, three of products), ``gate`` G = 4·Var(gate); ``..._reference``
    are the same at the constant reference β.
    """

    sse: FloatArray
    cyy: FloatArray
    own: FloatArray
    gate: FloatArray
    sse_reference: FloatArray
    cyy_reference: FloatArray
    own_reference: FloatArray

    @classmethod
    def joined(cls, parts: Sequence["ResidualSums"]) -> "ResidualSums":
        """Return the sums of several tables' channels, one after the other."""
        return cls(
            **{
                name: np.concatenate([getattr(part, name) for part in parts], axis=-1)
                for name in vars(parts[0])
            }
        )

    def summed(self, starts: npt.NDArray[np.int64]) -> "ResidualSums":
        """Add up consecutive channels, those that are NaN left out (the gate's G is averaged)."""
        known = np.isfinite(self.sse + self.cyy)
        count = np.add.reduceat(known.astype(np.float64), starts, axis=-1)
        count[count == 0] = np.nan
        sums = {
            name: np.add.reduceat(np.where(known, values, 0.0), starts, axis=-1) + 0 * count
            for name, values in vars(self).items()
        }
        sums["gate"] = sums["gate"] / count
        return ResidualSums(**sums)


@dataclass(frozen=True)
class ChannelSums:
    """All R channels of a table of moments in B blocks, layers in order of first appearance.

    ``keys`` are layer, call, channel, `PARAMETERS` and, where they are known, class_name and
    parameters, one row a channel; ``total`` the moments of
    all data (R,); ``size`` (B, R) the samples of each block (or values, where samples were not
    counted); ``whole`` the residual sums (R,) and ``without`` those with one block left out (B, R);
    ``layer_starts`` the first row of each layer and call.
    """

    keys: pd.DataFrame
    total: Moments
    blocks: npt.NDArray[np.int64]
    size: FloatArray
    whole: ResidualSums
    without: ResidualSums
    layer_starts: npt.NDArray[np.int64]

    @property
    def dead(self) -> npt.NDArray[np.bool_]:
        """Whether each channel's output varies by no more than rounding; shape (R,)."""
        return np.asarray(self.whole.cyy == 0)

    @property
    def product(self) -> npt.NDArray[np.bool_]:
        """Whether each channel is of a gated product; shape (R,)."""
        return ~np.isnan(self.field("caa"))

    @property
    def activations(self) -> Iterator[tuple[str, str]]:
        """The class or function of each channel's layer and its parameters, "" where unknown."""
        columns = ["class_name", "parameters"]
        table = self.keys.reindex(columns=columns).astype(object).fillna("").astype(str)
        return zip(table["class_name"], table["parameters"], strict=True)

    def of_classes(self, layers: pd.DataFrame) -> "ChannelSums":
        """Return these sums with class_name and parameters of their layers, from their table."""
        classes = layers.reindex(columns=["layer", "call", "class_name", "parameters"])
        keys = self.keys.merge(classes, on=["layer", "call"], how="left")
        return replace(self, keys=keys)

    def parameter(self, name: str) -> FloatArray:
        """Return a parameter of every channel, NaN where it has none; shape (R,)."""
        return self.keys[name].to_numpy(dtype=np.float64)

    def field(self, name: str) -> FloatArray:
        """Return a field of the merged moments, NaN where no layer has it; shape (R,)."""
        if name in self.total:
            return self.total[name]
        return np.full(len(self.keys), np.nan)


def channel_sums(
    moments: pd.DataFrame, channels: pd.DataFrame | None = None, *, eps: float = EPS32
) -> ChannelSums:
    """Merge a table of moments by channel and leave each block out once.

    ``moments`` holds layer, channel, optionally call and block (without it there is no
    uncertainty), and the fields of moments; ``channels`` `PARAMETERS`, as far as they exist, one
    row a layer and channel. ``eps``, the relative rounding of the network's arithmetic, decides
    what is dead.
    """
    if moments.empty:
        raise AconError("there are no moments: the table has no rows")
    frame = moments if "call" in moments.columns else moments.assign(call=0)
    codes, keys = channel_codes(frame)
    layer_codes, _ = channel_codes(keys, CHANNEL_KEYS[:2])
    order = np.lexsort((keys["channel"].to_numpy(), layer_codes))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    codes, keys = rank[codes], keys.iloc[order].reset_index(drop=True)
    layer_starts = np.flatnonzero(np.diff(layer_codes[order], prepend=-1))
    keys = _with_parameters(keys, channels)
    state = from_frame(frame)
    block = frame["block"].to_numpy() if "block" in frame.columns else np.zeros(len(frame), int)
    values, block_codes = np.unique(block, return_inverse=True)
    p1, p2 = (keys[name].to_numpy(dtype=np.float64) for name in ("p1", "p2"))
    pieces = [
        _sums_of_blocks(blocks, p1[own], p2[own], eps)
        for own, blocks in _pieces(state, codes, block_codes, (len(values), len(keys)))
    ]
    total, size, whole, without = zip(*pieces, strict=True)
    return ChannelSums(
        keys,
        Moments({name: np.concatenate([part[name] for part in total]) for name in state.arrays}),
        values.astype(np.int64),
        np.concatenate(size, axis=-1),
        ResidualSums.joined(whole),
        ResidualSums.joined(without),
        layer_starts,
    )


def _pieces(
    state: Moments,
    codes: npt.NDArray[np.int64],
    block_codes: npt.NDArray[np.intp],
    shape: tuple[int, int],
) -> Iterator[tuple[slice, Moments]]:
    """Yield `_PIECE` channels at a time, of all (B, R), and their states in blocks."""
    by_channel = np.argsort(codes, kind="stable")
    ordered = codes[by_channel]
    for start in range(0, shape[1], _PIECE):
        own = slice(start, min(start + _PIECE, shape[1]))
        first, last = np.searchsorted(ordered, (own.start, own.stop))
        rows, width = by_channel[first:last], own.stop - own.start
        index = block_codes[rows] * width + codes[rows] - start
        yield own, group(state.select(rows), index, shape[0] * width).reshape(shape[0], width)


def _sums_of_blocks(
    blocks: Moments, p1: FloatArray, p2: FloatArray, eps: float
) -> tuple[Moments, FloatArray, ResidualSums, ResidualSums]:
    """Return total, size, whole and without of `ChannelSums` of channels in blocks, (B, R)."""
    total, size = merge_all(blocks), blocks["n"]
    if "n_samples" in blocks:
        size = np.where(total["n_samples"] > 0, blocks["n_samples"], size)
    each = [vars(residual_sums(state, p1, p2, eps)) for state in leave_one_out(blocks)]
    without = ResidualSums(**{name: np.stack([part[name] for part in each]) for name in each[0]})
    return total, size, residual_sums(total, p1, p2, eps), without


def _with_parameters(keys: pd.DataFrame, channels: pd.DataFrame | None) -> pd.DataFrame:
    """Join the parameters of the channels; NaN where there are none."""
    if channels is not None and len(channels):
        on = ["layer", "channel", *(["call"] if "call" in channels.columns else [])]
        require_columns(channels, on, "the table of channels")
        if channels.duplicated(on).any():
            row = channels.loc[channels.duplicated(on), on].iloc[0]
            raise AconError(
                f"the table of channels has several rows for layer {row['layer']!r}, channel "
                f"{row['channel']}; expected one"
            )
        columns = [*on, *(name for name in PARAMETERS if name in channels.columns)]
        keys = keys.merge(channels[columns], on=on, how="left")
    absent = {name: np.nan for name in PARAMETERS if name not in keys.columns}
    return keys.assign(**absent)


def residual_sums(
    state: Moments, p1: FloatArray, p2: FloatArray, eps: float = EPS32
) -> ResidualSums:
    """Compute the residual sums of states (..., channels) with slopes p1 and p2 (NaN: none)."""
    blank = np.full(state.shape, np.nan)
    seen = np.where(state["n"] > 0, 1.0, np.nan)
    sse, cyy = residual(state), state["cyy"] * seen
    if "cee" in state:
        sse = np.where(np.isnan(state["cee"]), sse, residual(state, "even"))
    own, gate = blank, blank
    if "sse_within" in state:
        exact = 2 if "caa" not in state else np.where(np.isnan(state["caa"]), 2, 3)
        counted = state["n"] > exact * state["n_samples"]
        own = np.where(counted & (state["n_samples"] > 0), state["sse_within"], np.nan)
    if "cgg" in state:
        gate = 4 * state["cgg"] / np.where(state["n"] > 0, state["n"], np.nan)
    sse_reference, cyy_reference, own_reference = blank, blank, blank
    if "crr" in state:
        sse_reference = residual(state, "reference")
        cyy_reference = line_variance(state, (p1 + p2) / 2) * seen
    if "sse_within_reference" in state:
        own_reference = np.where(np.isnan(own), np.nan, state["sse_within_reference"])
    sums = ResidualSums(
        sse * seen, cyy, own, gate, sse_reference * seen, cyy_reference, own_reference
    )
    return mask_dead(sums, largest_rounding(state, p1, p2, eps))


def mask_dead(sums: ResidualSums, rounding: FloatArray) -> ResidualSums:
    """Set the sums of dead channels, whose cyy is at most `rounding`, to 0."""
    dead = {"": sums.cyy <= rounding, "_reference": sums.cyy_reference <= rounding}
    parts = {
        name + part: np.where(lost, 0 * getattr(sums, name + part), getattr(sums, name + part))
        for part, lost in dead.items()
        for name in ("sse", "cyy", "own")
    }
    return replace(sums, **parts)


def ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Return part/whole within [0, 1]; 0 where the whole is 0, NaN where either is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(whole > 0, part / whole, part * 0 + whole * 0)
    return np.clip(share, 0.0, 1.0)


def largest_rounding(state: Moments, p1: FloatArray, p2: FloatArray, eps: float) -> FloatArray:
    """Return the largest cyy of outputs that vary by rounding alone, of the state's shape.

    Where p1 and p2 are known the output is a sum of terms as large as max(|p1|, |p2|)·|x|: dead
    means std(y) <= 8·eps·max(|p1|, |p2|)·rms(x), with rms(x)² = mean² + std² (a mean of hundred
    standard deviations brings hundred times the rounding). Otherwise std(y) <= 8·eps·rms(y).
    """
    slope = np.fmax(np.abs(p1), np.abs(p2))
    x_square = state["cxx"] + state["n"] * state["mean_x"] ** 2
    y_square = state["cyy"] + state["n"] * state["mean_y"] ** 2
    scale = np.where(np.isnan(slope), y_square, slope**2 * x_square)
    return np.asarray((ROUNDINGS * eps) ** 2 * scale)


def constant_input(sums: ChannelSums) -> npt.NDArray[np.bool_]:
    """Return which inputs do not vary: min = max, or std(x) <= 8 roundings of float64 of rms(x)."""
    total = sums.total
    same = steady(total, "x", EPS) | (total["min_x"] == total["max_x"])
    if "caa" in total:
        same &= steady(total, "a", EPS) | ~sums.product
    return np.asarray((total["n"] > 0) & same)


def steady(state: Moments, name: str, eps: float) -> npt.NDArray[np.bool_]:
    """Say where a variable (x, a, h) varies by no more than 8 roundings of its own size."""
    own, mean = state[f"c{name}{name}"], state[f"mean_{name}"]
    with np.errstate(invalid="ignore"):
        return np.asarray(own <= (ROUNDINGS * eps) ** 2 * (own + state["n"] * mean**2))


def gate_sums(sums: ChannelSums) -> tuple[FloatArray, FloatArray]:
    """Return sse of the affine fit of each product's gate, and its chh; 0 if it is constant."""
    state = sums.total
    if "chh" not in state:
        return np.zeros(state.shape), np.zeros(state.shape)
    varies = sums.product & ~steady(state, "h", EPS32)
    sse = gram.residual(state["cxx"], state["cxh"], state["chh"])
    return np.where(varies, sse, 0.0), np.where(varies, state["chh"], 0.0)
