"""Float64 states on the device: all channels of all layers of one group at once.

A group holds layers with the same sums (see `kernels.Sums`), their channels concatenated, so that a
batch costs the same few small kernels however many layers there are. Means and centred sums of
products of x, w, t, r and β merge into blocks of samples as every `Gram` does; the host turns them
into those of y, the gate and the even part, which is exact algebra (`LayerGroup.moments`).

A sample with NaN or infinity in any channel of a layer is left out of that layer's blocks and
counted; its totals are NaN, as are those of a sample without values (all padding), which counts
nowhere. Channels that are constant within a sample add nothing to its totals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from acon_analysis.moments.gram import EPS32, ROUNDINGS, merge_into, residual, shares
from acon_analysis.moments.state import Moments
from acon_analysis.screen import counted
from acon_hooks.errors import HookError
from acon_hooks.moments.kernels import GATED, PLAIN, PRODUCT, REFERRED, Gate, ProductSums, Sums
from acon_hooks.readings.batch import Key, to_host

FloatArray = npt.NDArray[np.float64]

#: Columns of the totals of one sample over the channels of a layer.
TOTALS = ("cyy", "sse", "cgg", "gain", "cyy_reference", "sse_reference")

#: Of each kind of sums: the variables, and the pairs whose products are kept.
_VARIABLES = {
    PLAIN: ("x", "w"),
    GATED: ("x", "w", "t"),
    REFERRED: ("x", "w", "t", "r", "beta"),
    PRODUCT: ("x", "w", "a", "h"),
}
_OF_ALL = (("x", "x"), ("x", "w"), ("w", "w"))
_PAIRS = {
    PLAIN: _OF_ALL,
    GATED: (*_OF_ALL, ("t", "t")),
    REFERRED: (*_OF_ALL, ("t", "t"), ("x", "r"), ("r", "r"), ("beta", "beta")),
    PRODUCT: (*_OF_ALL, ("a", "a"), ("x", "a"), ("a", "w"), ("h", "h"), ("x", "h")),
}
#: Sums within samples, the last one of `REFERRED` alone.
_WITHIN = ("sse", "positive", "sse_reference")
#: Kinds of sums outside the ACON family: w is the output y.
_OUTSIDE = (PLAIN, PRODUCT)


@dataclass(frozen=True)
class Call:
    """One call of a layer within a group."""

    key: Key
    channels: int
    # Constants of its channels; None outside the ACON family.
    gate: Gate | None
    # Relative rounding of its outputs.
    eps: float = EPS32


class States(NamedTuple):
    """States of single samples, or of blocks of them: (field, N or blocks, columns), float64.

    ``counts`` are of samples, of samples left out, and of values in each channel, for samples need
    not be of one size: (3, N or blocks, layers).
    """

    means: Tensor
    moments: Tensor
    within: Tensor
    low: Tensor
    high: Tensor
    counts: Tensor


class PerSample(NamedTuple):
    """What is kept of the single samples of a batch; on the host."""

    # By layer: (total, N, layers), float64; NaN for samples that are left out.
    totals: FloatArray
    # Means of x over the pixels, (N, columns), float32; None where they are not needed.
    inputs: npt.NDArray[np.float32] | None
    # Values that each sample has in each channel, by layer: (layers,) or (N, layers), float64.
    pixels: FloatArray


class _OnHost(NamedTuple):
    """`States` on the host, (N or blocks, columns) each: by variable, pair or sum."""

    mean: dict[str, FloatArray]
    c: dict[str, FloatArray]
    within: dict[str, FloatArray]
    low: dict[str, FloatArray]
    high: dict[str, FloatArray]
    counts: dict[str, FloatArray]


class LayerGroup:
    """Layers with the same sums, merged together.

    `rows` is `PLAIN`, `GATED`, `REFERRED` or `PRODUCT`. Columns of every call begin at a multiple
    of `align`; those in between hold nothing. `pools`: the means of the inputs are kept of every
    sample.
    """

    def __init__(
        self,
        rows: tuple[str, ...],
        calls: Sequence[Call],
        device: torch.device,
        blocks: int,
        align: int = 1,
        *,
        pools: bool = False,
    ) -> None:
        self.rows, self.calls, self.device, self.blocks = rows, list(calls), device, blocks
        self.pools = pools
        sizes = [-(-call.channels // align) * align for call in calls]
        # First column of each call, and the number of all columns.
        self.first = [0, *accumulate(sizes)]
        self.columns = self.first[-1]
        spans = zip(self.first[:-1], calls, strict=True)
        self._own = np.concatenate([np.arange(at, at + call.channels) for at, call in spans])
        widths = torch.tensor(sizes, device=device)
        self.layer = torch.arange(len(calls), device=device).repeat_interleave(widths)
        gates = [call.gate for call in calls if call.gate is not None]
        self.slope = torch.zeros(self.columns, dtype=torch.float64, device=device)
        self.half = None
        if rows not in _OUTSIDE:
            self.half = self._concatenated([gate.half for gate in gates])
            self.slope = self._concatenated([gate.middle for gate in gates])
        eps = torch.tensor([call.eps for call in calls], dtype=torch.float64, device=device)
        # Largest cyy of a constant output, relative to n·mean(y²), or for the ACON family, whose
        # output is a sum of p1·x and p2·x, to n·mean(x²); (columns,).
        self.rounding = (ROUNDINGS * eps.repeat_interleave(widths)) ** 2
        if self.half is not None:
            self.rounding *= (self.half.abs() + self.slope.abs()) ** 2
        index = {name: i for i, name in enumerate(_VARIABLES[rows])}
        self._pairs = [(k, index[a], index[b]) for k, (a, b) in enumerate(_PAIRS[rows])]
        self.pixels = np.zeros(0)
        self.blocks_held = self._neutral()

    def measure(self, pixels: npt.ArrayLike) -> None:
        """Learn how many values samples have in each channel: (layers,), or (N, layers)."""
        if not np.array_equal(self.pixels, pixels):
            self.pixels = np.array(pixels, dtype=np.float64)
            self._pixels = torch.from_numpy(self.pixels).to(self.device)[..., self.layer]

    def _concatenated(self, values: Sequence[Tensor]) -> Tensor:
        """Lay tensors (..., C) of all calls out as one (..., columns), 0 in between."""
        if sum(value.shape[-1] for value in values) == self.columns:
            return torch.cat(list(values), -1)
        whole = values[0].new_zeros((*values[0].shape[:-1], self.columns))
        for at, value in zip(self.first, values, strict=False):
            whole[..., at : at + value.shape[-1]] = value
        return whole

    def _neutral(self) -> States:
        """Return states of blocks without samples."""

        def filled(count: int, value: float, columns: int = self.columns) -> Tensor:
            shape = (count, self.blocks, columns)
            return torch.full(shape, value, dtype=torch.float64, device=self.device)

        ends = 1 if self.rows in _OUTSIDE else 2
        counts = len(_VARIABLES[self.rows]), len(_PAIRS[self.rows]), 2 + (self.rows == REFERRED)
        sums = [filled(count, 0.0) for count in counts]
        low, high = filled(ends, torch.inf), filled(ends, -torch.inf)
        return States(*[*sums, low, high, filled(3, 0.0, len(self.calls))])

    def states(self, raw: Tensor, beta: Tensor | None) -> tuple[States, Tensor]:
        """Turn moments over pixels into states of single samples, and `TOTALS` by layer.

        `raw` is (rows, N, columns), float64, see `Sums`; `beta` (N, columns), of each sample, or
        the static one. Totals are (total, N, layers); NaN where there are none, and of samples that
        are left out.
        """
        product = ProductSums(*raw) if self.rows == PRODUCT else None
        at = Sums(*raw) if product is None else Sums(*product[: len(PLAIN)])
        sse = residual(at.xx, at.xw, at.ww) if product is None else product.residual(self._pixels)
        means, moments = [at.x, at.w], [at.xx, at.xw, at.ww]
        within = [sse, at.positive]
        totals = self._varying(at, at.w, self._variance(at.xx, at.xw, at.ww), sse)
        low, high = [at.low_x], [at.high_x]
        if product is not None:
            totals[1] = torch.where(self._pixels > 3, totals[1], torch.nan)  # else the fit is exact
            means += [product.a, product.h]
            moments += [product.aa, product.xa, product.aw, product.hh, product.xh]
        if at.t is not None and at.tt is not None and self.half is not None and beta is not None:
            assert at.low_z is not None
            assert at.high_z is not None
            means.append(at.t)
            moments.append(at.tt)
            low.append(at.low_z)
            high.append(at.high_z)
            deviation = (at.xx / self._pixels).sqrt()
            totals += [at.tt / 4, (2 * beta * self.half).abs() * deviation]
        if at.r is not None and at.rr is not None and at.xr is not None and beta is not None:
            sse_reference = residual(at.xx, at.xr, at.rr)
            means += [at.r, beta]
            moments += [at.xr, at.rr, torch.zeros_like(at.rr)]
            within.append(sse_reference)
            variance = self._variance(at.xx, at.xr, at.rr)
            totals += self._varying(at, at.r, variance, sse_reference)
        stacks = [torch.stack(values) for values in (means, moments, within, low, high)]
        finite = torch.stack([part.sum(0) for part in stacks[:3]]).sum(0).isfinite()
        layers = torch.zeros((len(at.x), len(self.calls)), dtype=torch.float64, device=self.device)
        counts = (layers.index_add(1, self.layer, (~finite).double()) == 0).double()
        total = torch.where(counts > 0, self._per_layer(totals), torch.nan)
        pixels = torch.from_numpy(self.pixels).to(self.device)
        lost = (1 - counts) * (pixels > 0)
        return States(*[*stacks, torch.stack([counts, lost, counts * pixels])]), total

    def _variance(self, xx: Tensor, xw: Tensor, ww: Tensor) -> Tensor:
        """Cyy of y = k·x + w."""
        return (self.slope * (self.slope * xx + 2 * xw) + ww).clamp_min(0)

    def _varying(self, at: Sums, w: Tensor, yy: Tensor, sse: Tensor) -> list[Tensor]:
        """Return cyy and sse of each sample, 0 where its outputs vary by no more than rounding."""
        if self.half is None:
            square = yy + self._pixels * (w + self.slope * at.x) ** 2
        else:
            square = at.xx + self._pixels * at.x**2
        constant = yy <= self.rounding * square
        return [torch.where(constant, 0.0, values) for values in (yy, sse)]

    def _per_layer(self, totals: Sequence[Tensor]) -> Tensor:
        """Sum (N, columns) over the columns of each layer: (total, N, layers)."""
        shape = (len(TOTALS), len(totals[0]), len(self.calls))
        found = torch.full(shape, torch.nan, dtype=torch.float64, device=self.device)
        for index, values in enumerate(totals):
            found[index] = 0
            found[index].index_add_(1, self.layer, values)
        return found

    def merge(self, states: States, samples: Tensor) -> None:
        """Merge `states` of samples, of ascending sample_ids on the host, into their blocks."""
        states = self._without_left_out(states)
        # Consecutive ids, the usual case, are slices of the blocks: nothing is copied.
        ends = (torch.diff(samples // self.blocks) != 0) | (torch.diff(samples) != 1)
        start = 0
        for end in [*(torch.nonzero(ends).flatten() + 1).tolist(), len(samples)]:
            first = int(samples[start]) % self.blocks
            self._merge_run(states, slice(start, end), slice(first, first + end - start))
            start = end

    def _without_left_out(self, states: States) -> States:
        """Make the states of samples that are left out neutral."""
        if bool(states.counts[0].all()):
            return states
        out = states.counts[0][:, self.layer] == 0
        neutral = (0.0, 0.0, 0.0, torch.inf, -torch.inf)
        parts = zip(neutral, states, strict=False)
        return States(*[*(torch.where(out, none, part) for none, part in parts), states.counts])

    def merge_whole(self, states: States, sample: int) -> None:
        """Merge the states of rows that are no samples into the block of one sample."""
        states = self._without_left_out(states)
        while (rows := states.counts.shape[1]) > 1:
            half = rows // 2
            held = States(*(values[:, :half].clone() for values in states))
            self._merge_states(held, States(*(values[:, half : 2 * half] for values in states)))
            odd = (values[:, 2 * half :] for values in states)
            states = States(*(torch.cat(pair, 1) for pair in zip(held, odd, strict=True)))
        states.counts[0] = 0
        self._merge_run(states, slice(0, 1), slice(sample % self.blocks, sample % self.blocks + 1))

    def _merge_run(self, states: States, span: slice, blocks: slice) -> None:
        """Merge samples that fall into neighbouring blocks."""
        held = States(*(values[:, blocks] for values in self.blocks_held))
        self._merge_states(held, States(*(values[:, span] for values in states)))

    def _merge_states(self, held: States, new: States) -> None:
        """Merge states into others of the same shape, in place."""
        share, weight = (s[:, self.layer] for s in shares(held.counts[2], new.counts[2]))
        several = slice(-1) if self.rows == REFERRED else slice(None)  # all but β
        merge_into(
            held.means[several], held.moments[several], new.means[several], new.moments[several],
            share=share, weight=weight, pairs=self._pairs[several],
        )  # fmt: skip
        if self.rows == REFERRED:
            share, weight = (s[:, self.layer] for s in shares(held.counts[0], new.counts[0]))
            merge_into(
                held.means[-1:], held.moments[-1:], new.means[-1:], new.moments[-1:],
                share=share, weight=weight, pairs=[(0, 0, 0)],
            )  # fmt: skip
        held.within.add_(new.within)
        torch.minimum(held.low, new.low, out=held.low)
        torch.maximum(held.high, new.high, out=held.high)
        held.counts.add_(new.counts)

    def take(self) -> tuple[npt.NDArray[np.int64], Moments]:
        """Return the blocks with data, and their states (blocks, C of all calls); forget all."""
        some = (self.blocks_held.counts > 0).any(2).any(0).nonzero().flatten()
        held = self._to_host(States(*(values[:, some] for values in self.blocks_held)))
        with torch.inference_mode():  # in which they may have been made
            for values in self.blocks_held:
                values[:, some] = 0
            self.blocks_held.low[:, some] = torch.inf
            self.blocks_held.high[:, some] = -torch.inf
        return some.cpu().numpy(), self.moments(held)

    def take_states(self, states: States) -> Moments:
        """Return states of samples, (N, C of all calls), on the host, without β; or empty."""
        found = self._to_host(self._without_left_out(states))
        found.counts["left_out"] = np.zeros_like(found.counts["left_out"])
        return self.moments(found)

    def _to_host(self, states: States) -> _OnHost:
        """Copy everything in one transfer; name the fields."""
        pairs = ["".join(pair) for pair in _PAIRS[self.rows]]
        names = (
            *(_VARIABLES[self.rows], pairs, _WITHIN, ("x", "z"), ("x", "z")),
            ("samples", "left_out", "values"),
        )
        arrays = arrays_on_host(states._replace(counts=states.counts[..., self.layer]))
        return _OnHost(*(dict(zip(n, a, strict=False)) for n, a in zip(names, arrays, strict=True)))

    def own(self, values: FloatArray) -> FloatArray:
        """Return the columns that belong to calls, (..., C of all calls) of (..., columns)."""
        return values if self._own.size == self.columns else values[..., self._own]

    def moments(self, at: _OnHost) -> Moments:
        """Turn means and moments of x, w, t, r into those of x, y, the gate and the even part.

        y = k·x + w, where k is 0 outside the ACON family; in it k is m and w the even part, at the
        reference β likewise; the gate is (1 + t)/2, its argument 2·z.
        """
        slope, samples, count = self.slope.cpu().numpy(), at.counts["samples"], at.counts["values"]
        fields: dict[str, FloatArray] = {
            "n": count,
            "mean_x": at.mean["x"],
            "cxx": at.c["xx"],
            "min_x": at.low["x"],
            "max_x": at.high["x"],
            "n_positive": at.within["positive"],
            "n_samples": samples,
            "n_left_out": at.counts["left_out"],
            "sse_within": at.within["sse"],
        }
        with np.errstate(invalid="ignore", over="ignore"):
            mean, cross, own = _own(at, "w", "y").values()
            if self.rows == PRODUCT:
                fields |= {"mean_a": at.mean["a"], "mean_h": at.mean["h"]}
                fields |= {"caa": at.c["aa"], "cxa": at.c["xa"], "cay": at.c["aw"]}
                fields |= {"cxh": at.c["xh"], "chh": at.c["hh"]}
            fields["mean_y"] = mean + slope * at.mean["x"]
            xx = at.c["xx"]
            fields["cxy"] = cross + slope * xx
            fields["cyy"] = np.maximum(own + slope * (2 * cross + slope * xx), 0.0)
            if self.half is not None:
                fields |= _own(at, "w", "e")
                gate = np.where(count > 0, (1 + at.mean["t"]) / 2, 0.0)
                fields |= {"mean_g": gate, "cgg": at.c["tt"] / 4}
                fields |= {"min_u": 2 * at.low["z"], "max_u": 2 * at.high["z"]}
            if self.rows == REFERRED:
                fields |= _own(at, "r", "r")
                fields["sse_within_reference"] = at.within["sse_reference"]
                fields["mean_beta"] = at.mean["beta"]
                fields["cbb"] = at.c["betabeta"]
        return Moments({name: self.own(values) for name, values in fields.items()})


def per_sample(
    groups: Sequence[LayerGroup], states: Sequence[States], totals: Sequence[Tensor]
) -> list[PerSample]:
    """Copy what is kept of single samples to the host: one transfer of totals, one of means."""
    both = zip(groups, states, strict=True)
    means = iter(arrays_on_host([s.means[0].float() for group, s in both if group.pools]))
    return [
        PerSample(total, next(means) if group.pools else None, group.pixels)
        for group, total in zip(groups, arrays_on_host(totals), strict=True)
    ]


def other_rows(layer: str, rows: int, samples: int) -> HookError:
    """Return the error for a layer that had a row for every sample on the first batch only."""
    return HookError(
        f"layer {layer!r} saw {counted(rows, 'row')} for a batch of {counted(samples, 'sample')}, "
        "on the first batch one "
        "for each sample: do some samples leave the network early? If its rows are no samples, "
        "capture with another batch_size: the first batch must show it"
    )


def arrays_on_host(tensors: Sequence[Tensor]) -> list[npt.NDArray[Any]]:
    """Copy tensors of one dtype to the host in one transfer."""
    return list(to_host({("", index): t for index, t in enumerate(tensors)}).values())


def _own(at: _OnHost, old: str, new: str) -> dict[str, FloatArray]:
    """Mean and moments of a variable by the names of the fields."""
    return {f"mean_{new}": at.mean[old], f"cx{new}": at.c[f"x{old}"], f"c{new}{new}": at.c[old * 2]}
