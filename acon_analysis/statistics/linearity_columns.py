"""The columns of the tables of linearity, computed from channel sums."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.family import derivative_bounds, derivative_range
from acon_analysis.moments.gram import EPS32, ROUNDINGS
from acon_analysis.moments.state import FloatArray
from acon_analysis.statistics.causes import (
    GATE_CONSTANT,
    LINEAR,
    causes,
    equal_slopes,
    sentence,
    straight_sides,
)
from acon_analysis.statistics.channel_sums import (
    ChannelSums,
    ResidualSums,
    constant_input,
    gate_sums,
    largest_rounding,
    ratio,
)
from acon_analysis.statistics.formulas import formula_of, saturated, slopes_between
from acon_analysis.statistics.gaussian import gaussian_fit
from acon_analysis.statistics.jackknife import jackknife_error, share_interval

_Columns = dict[str, FloatArray]


def index_columns(
    whole: ResidualSums, without: ResidualSums, size: FloatArray, confidence: float
) -> dict[str, FloatArray]:
    """Compute L with its uncertainty, and the columns that it is compared with, up to G.

    ``whole`` is of all data (R,), ``without`` with one block left out and ``size`` the blocks'
    sizes (B, R). Differences of two fits are NaN where the output is dead.
    """
    bend, bends = ratio(whole.sse, whole.cyy), ratio(without.sse, without.cyy)
    error, _ = jackknife_error(bend, bends, size)
    low, high = share_interval(bend, bends, size, confidence)
    gate_error, _ = jackknife_error(whole.gate, without.gate, size)
    gain, gains = beta_gain(whole), beta_gain(without)
    gain_error, _ = jackknife_error(gain, gains, size)
    own = ratio(whole.own, whole.cyy)
    reference = ratio(whole.sse_reference, whole.cyy_reference)
    own_reference = ratio(whole.own_reference, whole.cyy_reference)
    alive = np.where(whole.cyy > 0, 1.0, np.nan)
    return {
        "L": 1 - bend,
        "L_error": error,
        "L_low": 1 - high,
        "L_high": 1 - low,
        "nonlinearity": bend,
        "sse": whole.sse,
        "cyy": whole.cyy,
        "L_own": 1 - own,
        "gap": (bend - own) * alive,
        "L_reference": 1 - reference,
        "L_own_reference": 1 - own_reference,
        "gap_reference": (reference - own_reference) * alive,
        "beta_gain": gain * alive,
        "beta_gain_error": gain_error * alive,
        "G": whole.gate,
        "G_error": gate_error,
    }


def beta_gain(whole: ResidualSums) -> FloatArray:
    """Return (L_own - L) less the same at the constant reference β."""
    gap = ratio(whole.sse, whole.cyy) - ratio(whole.own, whole.cyy)
    reference = ratio(whole.sse_reference, whole.cyy_reference) - ratio(
        whole.own_reference, whole.cyy_reference
    )
    return gap - reference


def channel_values(sums: ChannelSums, confidence: float) -> pd.DataFrame:
    """Compute every column of `columns.LINEARITY_CHANNEL_COLUMNS`, one row a channel."""
    values = index_columns(sums.whole, sums.without, sums.size, confidence)
    values |= _input_columns(sums) | _share_columns(sums)
    values |= _fit_columns(sums) | _beta_columns(sums)
    values["L_gate"] = gate_linearity(*gate_sums(sums))
    values |= _gain_columns(sums, values["std_x"], values["beta_mean"])
    values |= _slope_columns(sums, values["beta_mean"])
    frame = sums.keys[["layer", "call", "channel"]].assign(**values)
    frame["n"] = sums.total["n"].astype(np.int64)
    frame["n_samples"] = np.nan_to_num(sums.field("n_samples")).astype(np.int64)
    frame["left_out"] = np.nan_to_num(sums.field("n_left_out")).astype(np.int64)
    frame["roundings"] = _roundings(sums)
    return _with_causes(frame, sums)


def _roundings(sums: ChannelSums) -> FloatArray:
    """Return the standard deviation of outputs in roundings of float32; NaN where dead."""
    p1, p2 = sums.parameter("p1"), sums.parameter("p2")
    one = largest_rounding(sums.total, p1, p2, EPS32 / ROUNDINGS)
    cyy = np.where(sums.whole.cyy > 0, sums.whole.cyy, np.nan)
    with np.errstate(divide="ignore"):
        return np.asarray(np.sqrt(cyy / one))


def gate_linearity(sse: FloatArray, chh: FloatArray) -> FloatArray:
    """Return L of gates on their own, NaN where there is none that varies."""
    return 1 - ratio(sse, np.where(chh > 0, chh, np.nan))


def _input_columns(sums: ChannelSums) -> _Columns:
    """Mean, spread, extremes and positive share of x."""
    total = sums.total
    seen = total["n"] > 0
    count = np.where(seen, total["n"], np.nan)
    return {
        "mean_x": np.where(seen, total["mean_x"], np.nan),
        "std_x": np.sqrt(total["cxx"] / count),
        "min_x": np.where(seen, total["min_x"], np.nan),
        "max_x": np.where(seen, total["max_x"], np.nan),
        "positive": total["n_positive"] / count,
    }


def _share_columns(sums: ChannelSums) -> _Columns:
    """s_c: a channel's residual over the sum of squares of its layer."""
    starts = sums.layer_starts
    lengths = np.diff([*starts, len(sums.keys)])
    whole = np.repeat(sums.whole.summed(starts).cyy, lengths)
    wholes = np.repeat(sums.without.summed(starts).cyy, lengths, axis=-1)
    share, shares = ratio(sums.whole.sse, whole), ratio(sums.without.sse, wholes)
    error, _ = jackknife_error(share, shares, sums.size)
    return {"s_c": share, "s_c_error": error}


def _fit_columns(sums: ChannelSums) -> _Columns:
    """Return slope (0 where x is constant) and intercept of the affine fit; NaN for products."""
    total = sums.total
    moving = ~constant_input(sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(moving, total["cxy"] / total["cxx"], 0.0)
    slope = np.where((total["n"] > 0) & ~sums.product, slope, np.nan)
    return {"slope": slope, "intercept": total["mean_y"] - slope * total["mean_x"]}


def _beta_columns(sums: ChannelSums) -> _Columns:
    """Mean and spread of β over the samples; static β has spread 0."""
    static = sums.parameter("beta")
    mean = sums.field("mean_beta")
    samples = sums.field("n_samples")
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(sums.field("cbb") / samples)
    per_sample = ~np.isnan(mean)
    return {
        "beta_mean": np.where(per_sample, mean, static),
        "beta_std": np.where(per_sample, spread, static * 0),
        "beta_reference": sums.parameter("beta_reference"),
    }


def _gain_columns(sums: ChannelSums, std: FloatArray, beta: FloatArray) -> _Columns:
    """κ, ρ, ν and what they predict; ρ is ±inf where p1 = -p2, NaN where both are 0."""
    p1, p2 = sums.parameter("p1"), sums.parameter("p2")
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = (p1 - p2) / (p1 + p2)
        nu = np.where(std > 0, sums.total["mean_x"] / std, np.nan)
        kappa = np.abs(beta * (p1 - p2)) * std
        swapped = np.where(beta * (p1 - p2) < 0, -rho, rho)
    predicted = gaussian_fit(kappa, swapped, nu).L
    return {"kappa": kappa, "rho": rho, "nu": nu, "L_gauss": predicted}


def _slope_columns(sums: ChannelSums, beta: FloatArray) -> _Columns:
    """Bounds of the derivative over all x, and its range over the data seen."""
    p1, p2 = sums.parameter("p1"), sums.parameter("p2")
    least, greatest = derivative_bounds(p1, p2, beta)
    seen = sums.total["n"] > 0
    ends = {"low": sums.total["min_x"], "high": sums.total["max_x"]}
    steepness = beta
    if "min_u" in sums.total:
        # With β per sample the gate's argument u = β·d·x carries it: u/d is x at β = 1.
        d = p1 - p2
        stored = ~np.isnan(sums.total["min_u"])
        with np.errstate(divide="ignore", invalid="ignore"):
            pair = [np.where(d != 0, sums.total[k] / d, 0.0) for k in ("min_u", "max_u")]
        ends["low"] = np.where(stored, np.minimum(*pair), ends["low"])
        ends["high"] = np.where(stored, np.maximum(*pair), ends["high"])
        steepness = np.where(stored, 1.0, beta)
    known = seen & ~np.isnan(ends["low"])
    low, high = derivative_range(
        p1, p2, steepness, np.where(known, ends["low"], 0.0), np.where(known, ends["high"], 0.0)
    )
    return {
        "slope_min": np.asarray(least),
        "slope_max": np.asarray(greatest),
        "slope_low": np.where(known, low, np.nan),
        "slope_high": np.where(known, high, np.nan),
    }


def _flat(sums: ChannelSums, columns: _Columns) -> npt.NDArray[np.bool_]:
    """Return which bent channels are saturated: all of their inputs on one side, far out."""
    flat = np.zeros(len(sums.keys), dtype=bool)
    aside = (columns["L"] < LINEAR) & ((columns["min_x"] > 0) | (columns["max_x"] < 0))
    activations = list(sums.activations)
    for own in {activations[row] for row in np.flatnonzero(aside)}:
        if one := formula_of(*own):
            rows = np.flatnonzero(aside & [other == own for other in activations])
            reached = slopes_between(one, columns["min_x"][rows], columns["max_x"][rows])
            flat[rows] = saturated(one, *reached)
    return flat


#: Columns that a channel's cause is put into words with.
_SAID = ["G", "kappa", "positive", "min_x", "max_x", "L_gate", "roundings"]


def _with_causes(frame: pd.DataFrame, sums: ChannelSums) -> pd.DataFrame:
    """Add flags and causes."""
    dead, constant = sums.dead, constant_input(sums)
    sides = np.array([straight_sides(*one) for one in sums.activations], dtype=bool)
    columns = {name: frame[name].to_numpy(dtype=np.float64) for name in frame.columns[3:]}
    found = causes(
        columns, dead=dead, constant=constant, product=sums.product,
        straight=sides.reshape(-1, 2), flat=_flat(sums, columns),
    )  # fmt: skip
    rows = frame[_SAID].to_dict("records")
    words = [sentence(cause, row) for cause, row in zip(found, rows, strict=True)]
    return frame.assign(
        dead=dead,
        constant_input=constant,
        one_signed=(columns["min_x"] >= 0) | (columns["max_x"] <= 0),
        equal_slopes=equal_slopes(columns["rho"]),
        gate_constant=columns["G"] < GATE_CONSTANT,
        cause=found,
        why=words,
    )
