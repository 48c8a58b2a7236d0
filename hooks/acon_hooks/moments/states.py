"""Mergeable float64 states on the device: all channels of all layers of one family at once.

A family holds layers whose sums have the same rows (see `kernels`), their channels side by
side, so that a batch costs the same few small kernels however many layers there are. Means and
moments of x and w merge by Chan's formula over blocks of samples; the host turns them into those
of y and of the even part, which is exact algebra (`Family.moments`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from acon_analysis.moments.fields import BLOCKS
from acon_analysis.moments.state import Moments
from acon_hooks.moments.constants import Constants
from acon_hooks.moments.kernels import GATED, PLAIN, REFERRED
from acon_hooks.readings.batch import Key, to_host

FloatArray = npt.NDArray[np.float64]

#: Columns of the totals of one sample over the channels of a layer.
TOTALS = ("cyy", "sse", "cgg", "gain", "cyy_reference", "sse_reference")

_MEANS = {PLAIN: ("x", "w"), GATED: ("x", "w", "t"), REFERRED: ("x", "w", "t", "r", "beta")}
_MOMENTS = {
    PLAIN: ("xx", "xw", "ww"),
    GATED: ("xx", "xw", "ww", "tt"),
    REFERRED: ("xx", "xw", "ww", "tt", "xr", "rr", "bb"),
}
_WITHIN = {
    PLAIN: ("xx", "xw", "ww", "sse", "positive"),
    GATED: ("xx", "xw", "ww", "sse", "positive"),
    REFERRED: ("xx", "xw", "ww", "sse", "positive", "sse_reference"),
}
_LETTER = {"x": "x", "w": "w", "t": "t", "r": "r", "b": "beta"}


@dataclass(frozen=True)
class Call:
    """One call of a layer within a family.

    Parameters
    ----------
    key : (str, int)
        Layer and call.
    channels, pixels : int
        C, and values that a sample has in each channel.
    constants : Constants
        Of its channels.
    """

    key: Key
    channels: int
    pixels: int
    constants: Constants


@dataclass
class Rows:
    """States of single samples: (field, N, columns), float64."""

    means: Tensor
    moments: Tensor
    within: Tensor
    low: Tensor
    high: Tensor
    totals: Tensor


class Merged(NamedTuple):
    """What a family tells of single samples while a batch is merged; on the host.

    Parameters
    ----------
    totals : ndarray
        By layer: (total, N, layers), float64.
    inputs : ndarray or None
        Means of x over the pixels, (N, columns), float32; None where nobody wants them.
    """

    totals: FloatArray
    inputs: npt.NDArray[np.float32] | None


@dataclass
class Store:
    """States of blocks: (field, blocks, columns), float64; neutral at first."""

    means: Tensor
    moments: Tensor
    within: Tensor
    low: Tensor
    high: Tensor
    samples: Tensor = field(repr=False)


class Family:
    """Layers with the same rows of sums, merged together.

    Parameters
    ----------
    rows : tuple of str
        `PLAIN`, `GATED` or `REFERRED`.
    calls : sequence of Call
        In the order of their columns.
    device : torch.device
        Where the states live.
    blocks : int
        Blocks of samples that are kept apart.
    align : int
        Columns of every call begin at a multiple of it; those in between hold nothing.

    Attributes
    ----------
    first : list of int
        First column of each call, and the number of all columns.
    """

    def __init__(
        self,
        rows: tuple[str, ...],
        calls: Sequence[Call],
        device: torch.device,
        blocks: int = BLOCKS,
        align: int = 1,
    ) -> None:
        self.rows, self.calls, self.device, self.blocks = rows, list(calls), device, blocks
        sizes = [-(-call.channels // align) * align for call in calls]
        self.first = [0, *accumulate(sizes)]
        self.columns = self.first[-1]
        spans = zip(self.first[:-1], calls, strict=True)
        self._own = np.concatenate([np.arange(at, at + call.channels) for at, call in spans])
        widths = torch.tensor(sizes, device=device)
        self.pixels = self._repeat([float(call.pixels) for call in calls], widths)
        self.layer = torch.arange(len(calls), device=device).repeat_interleave(widths)
        guards = [call.constants.guards for call in calls]
        self.slope = self.side_by_side([g.slope.double() for g in guards])
        self.offsets = self.side_by_side([g.offsets.double() for g in guards])
        gates = [call.constants.gate for call in calls]
        self.half = self.middle = None
        if rows != PLAIN:
            self.half = self.side_by_side([g.half for g in gates if g is not None])
            self.middle = self.side_by_side([g.middle for g in gates if g is not None])
        letters = [(name[0], name[1]) for name in _MOMENTS[rows]]
        means = list(_MEANS[rows])
        self._first = [means.index(_LETTER[a]) for a, _ in letters]
        self._second = [means.index(_LETTER[b]) for _, b in letters]
        self.store = self._neutral()

    def _repeat(self, values: Sequence[float], widths: Tensor) -> Tensor:
        flat = torch.tensor(values, dtype=torch.float64, device=self.device)
        return flat.repeat_interleave(widths)

    def side_by_side(self, values: Sequence[Tensor]) -> Tensor:
        """Lay tensors (..., C) of all calls out as one (..., columns), 0 in between.

        Parameters
        ----------
        values : sequence of Tensor
            One a call.
        """
        if sum(value.shape[-1] for value in values) == self.columns:
            return torch.cat(list(values), -1)
        whole = values[0].new_zeros((*values[0].shape[:-1], self.columns))
        for at, value in zip(self.first, values, strict=False):
            whole[..., at : at + value.shape[-1]] = value
        return whole

    def _neutral(self) -> Store:
        def zeros(count: int) -> Tensor:
            shape = (count, self.blocks, self.columns)
            return torch.zeros(shape, dtype=torch.float64, device=self.device)

        ends = 1 if self.rows == PLAIN else 2
        return Store(
            zeros(len(_MEANS[self.rows])),
            zeros(len(_MOMENTS[self.rows])),
            zeros(len(_WITHIN[self.rows])),
            zeros(ends) + torch.inf,
            zeros(ends) - torch.inf,
            torch.zeros(self.blocks, dtype=torch.float64, device=self.device),
        )

    def states(self, raw: Tensor, beta: Tensor | None) -> Rows:
        """Turn sums over pixels into states of single samples.

        Parameters
        ----------
        raw : Tensor
            (rows, N, columns).
        beta : Tensor or None
            (N, columns): β of each sample, or the static one; None outside the ACON family.
        """
        raw = raw.double()
        at = {name: raw[index] for index, name in enumerate(self.rows)}
        count = self.pixels
        several = (count > 1).double()  # the moments of one value are 0, not its rounding

        def centred(square: Tensor, first: Tensor, second: Tensor) -> Tensor:
            return (square - first * second / count) * several

        xx = centred(at["qx"], at["sx"], at["sx"]).clamp_min(0)
        ww = centred(at["qw"], at["sw"], at["sw"]).clamp_min(0)
        xw = centred(at["sxw"], at["sx"], at["sw"])
        sse = _residual(xx, xw, ww)
        means = [at["sx"] / count + self.offsets[0], at["sw"] / count + self.offsets[1]]
        moments, within = [xx, xw, ww], [xx, xw, ww, sse, at["positive"]]
        totals = [self._variance(xx, xw, ww), sse]
        low, high = [at["low_x"]], [at["high_x"]]
        if self.rows != PLAIN and self.half is not None and beta is not None:
            tt = centred(at["qt"], at["st"], at["st"]).clamp_min(0)
            means.append(at["st"] / count + self.offsets[3])
            moments.append(tt)
            low.append(at["low_z"])
            high.append(at["high_z"])
            totals += [tt / 4, (2 * beta * self.half).abs() * (xx / count).sqrt()]
        if self.rows == REFERRED and beta is not None:
            rr = centred(at["qr"], at["sr"], at["sr"]).clamp_min(0)
            xr = centred(at["sxr"], at["sx"], at["sr"])
            sse_reference = _residual(xx, xr, rr)
            means += [at["sr"] / count + self.offsets[2], beta]
            moments += [xr, rr, torch.zeros_like(rr)]
            within.append(sse_reference)
            totals += [self._variance(xx, xr, rr), sse_reference]
        per_layer = torch.full(
            (len(TOTALS), raw.shape[1], len(self.calls)),
            torch.nan,
            dtype=torch.float64,
            device=self.device,
        )
        for index, values in enumerate(totals):
            per_layer[index] = 0
            per_layer[index].index_add_(1, self.layer, values)
        return Rows(
            torch.stack(means),
            torch.stack(moments),
            torch.stack(within),
            torch.stack(low),
            torch.stack(high),
            per_layer,
        )

    def _variance(self, xx: Tensor, xw: Tensor, ww: Tensor) -> Tensor:
        """Cyy of y = k·x + w."""
        return (self.slope * (self.slope * xx + 2 * xw) + ww).clamp_min(0)

    def merge(self, rows: Rows, samples: Tensor) -> None:
        """Merge states of single samples into their blocks.

        Parameters
        ----------
        rows : Rows
            From `states`.
        samples : Tensor
            sample_ids on the host, ascending.
        """
        # Consecutive ids, the usual case, are slices of the blocks: nothing is copied.
        ends = (torch.diff(samples // self.blocks) != 0) | (torch.diff(samples) != 1)
        start = 0
        for end in [*(torch.nonzero(ends).flatten() + 1).tolist(), len(samples)]:
            first = int(samples[start]) % self.blocks
            self._merge_run(rows, slice(start, end), slice(first, first + end - start))
            start = end

    def _merge_run(self, rows: Rows, span: slice, blocks: slice) -> None:
        """Merge samples that fall into neighbouring blocks, by Chan's formula."""
        store = self.store
        before = store.samples[blocks].unsqueeze(1)
        share = 1 / (before + 1)
        means = store.means[:, blocks]
        step = rows.means[:, span] - means
        weight = before * share * self.pixels
        for index, (first, second) in enumerate(zip(self._first, self._second, strict=True)):
            moment = store.moments[index, blocks]
            moment += rows.moments[index, span]
            moment += (step[first] * step[second]).mul_(weight)
        means += step.mul_(share)
        store.within[:, blocks] += rows.within[:, span]
        low, high = store.low[:, blocks], store.high[:, blocks]
        torch.minimum(low, rows.low[:, span], out=low)
        torch.maximum(high, rows.high[:, span], out=high)
        store.samples[blocks] += 1

    def take(self) -> tuple[Moments, FloatArray]:
        """Return the states of the blocks and forget them.

        Returns
        -------
        moments : Moments
            Shape (blocks, C of all calls).
        samples : ndarray
            Samples in each block, (blocks,).
        """
        store, self.store = self.store, self._neutral()
        samples = store.samples.cpu().numpy()
        parts = self._to_host(store)
        return self.moments(parts, samples[:, None]), samples

    def take_rows(self, rows: Rows) -> Moments:
        """Return states of single samples on the host, shape (N, C of all calls), without β."""
        parts = self._to_host(rows)
        return self.moments(parts, np.ones((rows.means.shape[1], 1)))

    def _to_host(self, store: Rows | Store) -> dict[str, FloatArray]:
        """Copy everything in one transfer; name the fields."""
        tensors = (store.means, store.moments, store.within, store.low, store.high)
        arrays = host_pieces(tensors)
        names = (
            [f"mean_{name}" for name in _MEANS[self.rows]],
            [f"c{name}" for name in _MOMENTS[self.rows]],
            [f"within_{name}" for name in _WITHIN[self.rows]],
            ["low_x", "low_z"],
            ["high_x", "high_z"],
        )
        return {
            name: array
            for group, stack in zip(names, arrays, strict=True)
            for name, array in zip(group, stack, strict=False)
        }

    def own(self, values: FloatArray) -> FloatArray:
        """Return the columns that belong to calls, (..., C of all calls) of (..., columns)."""
        return values if self._own.size == self.columns else values[..., self._own]

    def moments(self, at: dict[str, FloatArray], samples: FloatArray) -> Moments:
        """Turn means and moments of x, w, t, r into those of x, y, the gate and the even part.

        y = k·x + w; the even part is e = y - m·x = w + (k - m)·x, at the reference β likewise;
        the gate is (1 + t)/2, its argument 2·z.

        Parameters
        ----------
        at : dict
            Fields by name, (B, columns) each.
        samples : ndarray
            Samples behind each row, (B, 1).
        """
        slope = self.slope.cpu().numpy()
        count = samples * self.pixels.cpu().numpy()
        seen = np.broadcast_to(samples, count.shape)
        fields: dict[str, FloatArray] = {
            "n": count,
            "mean_x": at["mean_x"],
            "cxx": at["cxx"],
            "min_x": at["low_x"],
            "max_x": at["high_x"],
            "n_positive": at["within_positive"],
            "n_samples": seen,
            "cxx_within": at["within_xx"],
            "sse_within": at["within_sse"],
        }
        with np.errstate(invalid="ignore", over="ignore"):
            fields |= _tilted(at, slope, "w", "y")
            fields["cxy_within"], fields["cyy_within"] = _tilt(
                at["within_xx"], at["within_xw"], at["within_ww"], slope
            )
            if self.middle is not None:
                rest = slope - self.middle.cpu().numpy()
                fields |= _tilted(at, rest, "w", "e")
                gate = np.where(count > 0, (1 + at["mean_t"]) / 2, 0.0)
                fields |= {"mean_g": gate, "cgg": at["ctt"] / 4}
                fields |= {"min_u": 2 * at["low_z"], "max_u": 2 * at["high_z"]}
            if self.middle is not None and self.rows == REFERRED:
                fields |= _tilted(at, rest, "r", "r")
                fields["sse_within_reference"] = at["within_sse_reference"]
                fields["mean_beta"] = at["mean_beta"]
                fields["cbb"] = at["cbb"] / self.pixels.cpu().numpy()
        return Moments({name: self.own(values) for name, values in fields.items()})


def tell(rows: Sequence[Rows], pools: Sequence[bool]) -> list[Merged]:
    """Copy what is kept of single samples to the host: one transfer of totals, one of means.

    Parameters
    ----------
    rows : sequence of Rows
        One a family.
    pools : sequence of bool
        Whether the means of a family's inputs are wanted.
    """
    totals = host_pieces([part.totals for part in rows])
    wanted = [part.means[0].float() for part, wants in zip(rows, pools, strict=True) if wants]
    means = iter(host_pieces(wanted))
    return [
        Merged(total, next(means) if wants else None)
        for total, wants in zip(totals, pools, strict=True)
    ]


def host_pieces(tensors: Sequence[Tensor]) -> list[npt.NDArray[Any]]:
    """Copy tensors of one dtype to the host in one transfer."""
    return list(to_host({("", index): t for index, t in enumerate(tensors)}).values())


def _tilted(
    at: dict[str, FloatArray], slope: FloatArray, old: str, new: str
) -> dict[str, FloatArray]:
    """Means and moments of new = old + slope·x."""
    cross, own = _tilt(at["cxx"], at[f"cx{old}"], at[f"c{old}{old}"], slope)
    mean = at[f"mean_{old}"] + slope * at["mean_x"]
    return {f"mean_{new}": mean, f"cx{new}": cross, f"c{new}{new}": own}


def _tilt(
    xx: FloatArray, xw: FloatArray, ww: FloatArray, slope: FloatArray
) -> tuple[FloatArray, FloatArray]:
    return xw + slope * xx, np.maximum(ww + slope * (2 * xw + slope * xx), 0.0)


def _residual(xx: Tensor, xw: Tensor, ww: Tensor) -> Tensor:
    """Residual of the affine fit of w on x, within [0, Cww]; Cww where x is constant."""
    explained = torch.where(xx > 0, xw * (xw / torch.where(xx > 0, xx, 1.0)), xx * 0)
    return torch.minimum((ww - explained).clamp_min(0), ww)
