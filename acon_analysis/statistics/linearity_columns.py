"""The columns of the tables of linearity, computed from merged units."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.family import derivative_bounds, derivative_range
from acon_analysis.moments.state import FloatArray
from acon_analysis.statistics.causes import GATE_CONSTANT, causes, equal_slopes, sentence
from acon_analysis.statistics.channel_sums import Parts, Units, constant_input, dead_output, ratio
from acon_analysis.statistics.gaussian import gaussian_fit
from acon_analysis.statistics.jackknife import jackknife_error, share_interval

BoolArray = npt.NDArray[np.bool_]
_Columns = dict[str, FloatArray]


def index_columns(
    parts: Parts, without: Parts, size: FloatArray, confidence: float
) -> dict[str, FloatArray]:
    """Compute L with its uncertainty, and what is compared with it.

    Parameters
    ----------
    parts : Parts
        Of all data, arrays (R,).
    without, size : Parts, ndarray
        With one block left out, and the blocks' sizes, arrays (B, R).
    confidence : float
        Of the interval.

    Returns
    -------
    dict of str to ndarray
        The columns from L to beta_gain_error, and G with its error.
    """
    bend, bends = ratio(parts.sse, parts.cyy), ratio(without.sse, without.cyy)
    error, _ = jackknife_error(bend, bends, size)
    low, high = share_interval(bend, bends, size, confidence)
    gate_error, _ = jackknife_error(parts.gate, without.gate, size)
    gain, gains = beta_gain(parts), beta_gain(without)
    gain_error, _ = jackknife_error(gain, gains, size)
    own = ratio(parts.own, parts.cyy)
    reference = ratio(parts.sse_reference, parts.cyy_reference)
    own_reference = ratio(parts.own_reference, parts.cyy_reference)
    return {
        "L": 1 - bend,
        "L_error": error,
        "L_low": 1 - high,
        "L_high": 1 - low,
        "nonlinearity": bend,
        "sse": parts.sse,
        "cyy": parts.cyy,
        "L_own": 1 - own,
        "gap": bend - own,
        "L_reference": 1 - reference,
        "L_own_reference": 1 - own_reference,
        "gap_reference": reference - own_reference,
        "beta_gain": gain,
        "beta_gain_error": gain_error,
        "G": parts.gate,
        "G_error": gate_error,
    }


def beta_gain(parts: Parts) -> FloatArray:
    """Return (L_own - L) less the same at the constant reference β."""
    gap = ratio(parts.sse, parts.cyy) - ratio(parts.own, parts.cyy)
    reference = ratio(parts.sse_reference, parts.cyy_reference) - ratio(
        parts.own_reference, parts.cyy_reference
    )
    return gap - reference


def channel_values(units: Units, confidence: float, eps: float) -> pd.DataFrame:
    """Compute every column of `columns.LINEARITY_CHANNEL_COLUMNS`.

    Parameters
    ----------
    units : Units
        Merged units.
    confidence, eps : float
        As for `linearity.channel_table`.

    Returns
    -------
    DataFrame
        One row a unit.
    """
    seen = units.total["n"] > 0
    dead = dead_output(units, eps)
    values = index_columns(units.parts, units.without, units.size, confidence)
    for name in ("L", "L_low", "L_high", "L_own", "L_reference", "L_own_reference"):
        values[name] = np.where(dead & ~np.isnan(values[name]), 1.0, values[name])
        values[name] = np.where(seen, values[name], np.nan)
    for name in ("nonlinearity", "L_error"):
        values[name] = np.where(dead & ~np.isnan(values[name]), 0.0, values[name])
        values[name] = np.where(seen, values[name], np.nan)
    for name in ("gap", "gap_reference", "beta_gain", "beta_gain_error"):
        values[name] = np.where(seen & ~dead, values[name], np.nan)
    values |= _input_columns(units) | _share_columns(units)
    values |= _fit_columns(units) | _beta_columns(units)
    values |= _gain_columns(units, values["std_x"], values["beta_mean"])
    values |= _slope_columns(units, values["beta_mean"])
    frame = units.keys[["layer", "call", "channel"]].assign(**values)
    frame["n"] = units.total["n"].astype(np.int64)
    frame["n_samples"] = np.nan_to_num(units.field("n_samples")).astype(np.int64)
    return _with_causes(frame, dead, constant_input(units))


def _input_columns(units: Units) -> _Columns:
    total = units.total
    seen = total["n"] > 0
    count = np.where(seen, total["n"], np.nan)
    return {
        "mean_x": np.where(seen, total["mean_x"], np.nan),
        "std_x": np.sqrt(total["cxx"] / count),
        "min_x": np.where(seen, total["min_x"], np.nan),
        "max_x": np.where(seen, total["max_x"], np.nan),
        "positive": total["n_positive"] / count,
    }


def _share_columns(units: Units) -> _Columns:
    """s_c: a channel's residual over the sum of squares of its layer."""
    starts = units.layer_starts
    lengths = np.diff([*starts, len(units.keys)])
    whole = np.repeat(units.parts.summed(starts).cyy, lengths)
    wholes = np.repeat(units.without.summed(starts).cyy, lengths, axis=-1)
    share, shares = ratio(units.parts.sse, whole), ratio(units.without.sse, wholes)
    error, _ = jackknife_error(share, shares, units.size)
    return {"s_c": share, "s_c_error": error}


def _fit_columns(units: Units) -> _Columns:
    """Slope and intercept of the one affine fit; slope 0 where x is constant."""
    total = units.total
    moving = ~constant_input(units)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(moving, total["cxy"] / total["cxx"], 0.0)
    slope = np.where(total["n"] > 0, slope, np.nan)
    return {"slope": slope, "intercept": total["mean_y"] - slope * total["mean_x"]}


def _beta_columns(units: Units) -> _Columns:
    static = units.parameter("beta")
    mean = units.field("mean_beta")
    samples = units.field("n_samples")
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(units.field("cbb") / samples)
    per_sample = ~np.isnan(mean)
    return {
        "beta_mean": np.where(per_sample, mean, static),
        "beta_std": np.where(per_sample, spread, static * 0),
        "beta_reference": units.parameter("beta_reference"),
    }


def _gain_columns(units: Units, std: FloatArray, beta: FloatArray) -> _Columns:
    """κ, ρ, ν and what they predict; ρ is ±inf where p1 = -p2, NaN where both are 0."""
    p1, p2 = units.parameter("p1"), units.parameter("p2")
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = (p1 - p2) / (p1 + p2)
        nu = np.where(std > 0, units.total["mean_x"] / std, np.nan)
        kappa = np.abs(beta * (p1 - p2)) * std
        swapped = np.where(beta * (p1 - p2) < 0, -rho, rho)
    predicted = gaussian_fit(kappa, swapped, nu).L
    return {"kappa": kappa, "rho": rho, "nu": nu, "L_gauss": predicted}


def _slope_columns(units: Units, beta: FloatArray) -> _Columns:
    """Bounds of the derivative over all x, and its range over the data seen."""
    p1, p2 = units.parameter("p1"), units.parameter("p2")
    least, greatest = derivative_bounds(p1, p2, beta)
    seen = units.total["n"] > 0
    ends = {"low": units.total["min_x"], "high": units.total["max_x"]}
    steepness = beta
    if "min_u" in units.total:
        # With β per sample the gate's argument u = β·d·x carries it: u/d is x at β = 1.
        d = p1 - p2
        stored = ~np.isnan(units.total["min_u"])
        with np.errstate(divide="ignore", invalid="ignore"):
            pair = [np.where(d != 0, units.total[k] / d, 0.0) for k in ("min_u", "max_u")]
        ends["low"] = np.where(stored, np.minimum(*pair), ends["low"])
        ends["high"] = np.where(stored, np.maximum(*pair), ends["high"])
        steepness = np.where(stored, 1.0, beta)
    known = seen & ~np.isnan(ends["low"])
    low, high = derivative_range(
        p1,
        p2,
        steepness,
        np.where(known, ends["low"], 0.0),
        np.where(known, ends["high"], 0.0),
    )
    return {
        "slope_min": np.asarray(least),
        "slope_max": np.asarray(greatest),
        "slope_low": np.where(known, low, np.nan),
        "slope_high": np.where(known, high, np.nan),
    }


def _with_causes(frame: pd.DataFrame, dead: BoolArray, constant: BoolArray) -> pd.DataFrame:
    """Add flags and causes."""
    columns = {name: frame[name].to_numpy(dtype=np.float64) for name in frame.columns[3:]}
    found = causes(
        L=columns["L"],
        L_reference=columns["L_reference"],
        n=columns["n"],
        dead=dead,
        constant=constant,
        positive=columns["positive"],
        kappa=columns["kappa"],
        rho=columns["rho"],
    )
    words = [
        sentence(cause, L=index, G=gate, kappa=gain, positive=positive, low=low, high=high)
        for cause, index, gate, gain, positive, low, high in zip(
            found,
            *(columns[k] for k in ("L", "G", "kappa", "positive", "min_x", "max_x")),
            strict=True,
        )
    ]
    return frame.assign(
        dead=dead,
        constant_input=constant,
        one_signed=(columns["min_x"] >= 0) | (columns["max_x"] <= 0),
        equal_slopes=equal_slopes(columns["rho"]),
        gate_constant=columns["G"] < GATE_CONSTANT,
        cause=found,
        why=words,
    )
