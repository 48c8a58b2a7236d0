"""The curve of one ACON unit of a layer, and the numbers with which a page redraws it."""

from typing import Any

import numpy as np
import pandas as pd

from acon_analysis import family
from acon_analysis.plotdata.unit_curves import unit_facts as gaussian_unit
from acon_analysis.runs.run import Run
from acon_figures.report.numbers import number, share

#: What the script needs of each channel.
UNIT_FIELDS = (
    "p1", "p2", "beta_mean", "slope", "intercept", "mean_x", "std_x", "min_x", "max_x", "L"
)  # fmt: skip

#: Size of the drawing, and points of its curve.
WIDTH, HEIGHT, POINTS = 330, 180, 81

_KEYS = ["layer", "call", "channel"]


def unit_facts(run: Run) -> pd.DataFrame:
    """Return `UNIT_FIELDS` of every channel with p1, p2, β and inputs that vary, and its s_c."""
    if not run.has_moments or not run.has_beta:
        return pd.DataFrame(columns=[*_KEYS, "s_c", *UNIT_FIELDS])
    table = run.linearity(by="channel", columns="all")
    slopes = run.channels[["layer", "channel", "p1", "p2"]]
    table = table.merge(slopes, on=["layer", "channel"], how="left")
    kinds = run.layers[["layer", "call", "kind"]]
    table = table.merge(kinds[kinds["kind"].isin(["acon", "meta_acon"])], on=["layer", "call"])
    found = table.dropna(subset=list(UNIT_FIELDS))
    return found.loc[found["std_x"] > 0, [*_KEYS, "s_c", *UNIT_FIELDS]]


def unit_entry(own: pd.DataFrame) -> dict[str, Any] | None:
    """Return what a page shows of a layer's most nonlinear unit of `unit_facts`, with its curve."""
    if own.empty:
        return None
    row = own.sort_values(["s_c", "channel"], ascending=[False, True]).iloc[0].to_dict()
    x = np.linspace(row["min_x"], row["max_x"], POINTS)
    low, high = (end([row["p1"] * x, row["p2"] * x]) for end in (np.min, np.max))
    low, high = min(0.0, low), max(0.0, high)
    span = high - low if high > low else 1.0

    def path(y: Any) -> str:
        """Return points of the drawing as its `d`; what leaves the drawing is clipped."""
        across = WIDTH * (x - x[0]) / (x[-1] - x[0])
        down = HEIGHT * (1 - (np.clip(y, low - span, high + span) - low) / span)
        return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(across, down, strict=True))

    gaussian = gaussian_unit(row["p1"], row["p2"], row["beta_mean"], row["mean_x"], row["std_x"])
    return {
        "channel": int(row["channel"]), "beta": number(row["beta_mean"], 2), "L": share(row["L"]),
        "gauss": share(gaussian["L"]),
        "curve": path(family.acon_c(x, row["p1"], row["p2"], row["beta_mean"])),
        "line": path(row["slope"] * x + row["intercept"]),
        "least": round(min(0.0, 2 * float(own["beta_mean"].min())), 2),
        "most": round(max(2.0, 2 * float(own["beta_mean"].max())), 2),
        "value": round(float(row["beta_mean"]), 2),
        "x": (number(row["min_x"], 2), number(row["max_x"], 2)),
        "y": (number(low, 2), number(high, 2)),
    }  # fmt: skip


def unit_data(own: pd.DataFrame) -> dict[str, list[float]] | None:
    """Return the numbers of a layer's units for the script: lists of six digits."""
    if own.empty:
        return None
    lists = {name: [float(f"{value:.6g}") for value in own[name]] for name in UNIT_FIELDS}
    return {"channel": [int(channel) for channel in own["channel"]], **lists}
