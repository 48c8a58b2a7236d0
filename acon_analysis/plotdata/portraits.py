"""Channels of any network up close: their functions, the slopes that data reach, their states."""

from typing import Any

import numpy as np
import pandas as pd

from acon_analysis import family
from acon_analysis.columns import FACT_COLUMNS, names
from acon_analysis.errors import AconError, UsageError
from acon_analysis.moments.state import FloatArray
from acon_analysis.selection import require_columns
from acon_analysis.statistics.causes import LINEAR
from acon_analysis.statistics.formulas import SATURATED, formula_of, slopes_between

#: What a channel does, from the most linear on.
STATES = ("dead", "saturated", "one side", "linear", "bends")

_POINTS = 241


def channel_portraits(facts: pd.DataFrame, count: int = 6) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Choose channels from the most linear to the most nonlinear, and evaluate their functions.

    ``facts`` comes from `acon_analysis.plotdata.channels.channel_facts`; of several networks the
    first counts, and the channels lie at equally spaced ranks of L. Returns the channels, greatest
    L first, and their curves: ``number`` (row of the first), ``x`` (from the smallest to the
    greatest input), ``y`` (the function, of ACON at its median β) and ``line`` (the best line).
    """
    if count < 1:
        raise UsageError(f"count must be at least 1; got {count}")
    own = _first_network(facts)
    own = own[(own["std_y"] > 0) & own["L"].notna() & (own["max_x"] > own["min_x"])]
    own = own[_known(own)].sort_values("L", ascending=False, kind="stable")
    if own.empty:
        raise AconError("no channel whose output varies has an activation whose formula is known")
    ranks = np.linspace(0, len(own) - 1, min(count, len(own))).round().astype(int)
    chosen = own.iloc[ranks].reset_index(drop=True)
    parts = []
    for number, row in enumerate(chosen.to_dict("records")):
        x = np.linspace(row["min_x"], row["max_x"], _POINTS)
        line = row["slope"] * x + row["intercept"]
        columns = {"number": number, "x": x, "y": _evaluate(row, x), "line": line}
        parts.append(pd.DataFrame(columns))
    return chosen, pd.concat(parts, ignore_index=True)


def reached_slopes(facts: pd.DataFrame) -> pd.DataFrame:
    """Return the facts of the first network's channels with the derivatives that their data reach.

    ``slope_low`` and ``slope_high`` are the least and greatest derivative between the smallest and
    the greatest input, ``slope_min`` and ``slope_max`` those over all real inputs; NaN where the
    formula is not known, or its slope does not fit the layer's.
    """
    own = _first_network(facts).copy()
    for keys, part in own.groupby(["activation", "parameters"], sort=False):
        one = formula_of(*map(str, keys))
        if one is None or not part["slope_low"].isna().all():
            continue
        low, high = one.derivative_bounds(**one.parameters)
        least, most = (part[end].to_numpy(dtype=np.float64) for end in ("min_x", "max_x"))
        reached = slopes_between(one, least, most)
        found: dict[str, Any] = {"slope_min": float(low), "slope_max": float(high)}
        found |= {"slope_low": reached[0], "slope_high": reached[1]}
        fits = _known(part).to_numpy()
        for column, values in found.items():
            own.loc[part.index, column] = np.where(fits, values, np.nan)
    return own


def channel_states(facts: pd.DataFrame) -> "pd.Series[str]":
    """Return the state of every channel of `reached_slopes`, one of `STATES`; missing without L.

    "dead": its output does not vary; "saturated": no derivative that its data reach is `SATURATED`
    of the steepest that its function has; "one side": linear because 95 % or more of its inputs lie
    on one side of 0; "linear": L of at least 0.99 for another reason; "bends": the others.
    """
    steepest = facts[["slope_min", "slope_max"]].abs().max(axis=1)
    reached = facts[["slope_low", "slope_high"]].abs().max(axis=1)
    one_side = facts["cause"].isin(["positive", "negative"])
    # Of a leaky ReLU the flatter side is a line that passes its inputs on.
    line = one_side & np.isclose(facts["slope_low"], facts["slope_high"], rtol=1e-6, atol=0.0)
    tests = [
        facts["L"].isna(),
        facts["dead"].astype(bool),
        (reached < SATURATED * steepest) & ~line,
        one_side,
        facts["L"] >= LINEAR,
    ]
    found = np.select([test.to_numpy() for test in tests], ["", *STATES[:-1]], STATES[-1])
    return pd.Series(found, index=facts.index, dtype="str").replace("", np.nan)


def _first_network(facts: pd.DataFrame) -> pd.DataFrame:
    """Return the facts of one network in order of execution."""
    require_columns(facts, names(FACT_COLUMNS), "the table of channels")
    if facts.empty:
        raise AconError("the table holds no channel")
    own: pd.DataFrame = facts[facts["network"] == facts["network"].iloc[0]]
    own = own.assign(
        parameters=own["parameters"].astype(object).fillna("")
    )  # as tables in text files lose it
    return own.reset_index(drop=True)


def _known(facts: pd.DataFrame) -> "pd.Series[bool]":
    """Say of which channels the formula is known and fits their line: its slope is one of f'."""
    keys = list(zip(facts["activation"], facts["parameters"], strict=True))
    bounds = {}
    for key in set(keys):
        one = formula_of(*map(str, key))
        bounds[key] = one.derivative_bounds(**one.parameters) if one else (np.nan, np.nan)
    ends = np.array([bounds[key] for key in keys], dtype=np.float64).reshape(-1, 2).T
    slack = 1e-3 * (ends[1] - ends[0])
    inside = (facts["slope"] >= ends[0] - slack) & (facts["slope"] <= ends[1] + slack)
    known: pd.Series[bool] = inside | facts[["p1", "p2", "beta_middle"]].notna().all(axis=1)
    return known


def _evaluate(row: Any, x: FloatArray) -> FloatArray:
    """Evaluate a channel's function."""
    one = formula_of(str(row["activation"]), str(row["parameters"]))
    if pd.notna(row["p1"]) or one is None:
        return np.asarray(family.acon_c(x, row["p1"], row["p2"], row["beta_middle"]))
    return np.asarray(one.function(x, **one.parameters))
