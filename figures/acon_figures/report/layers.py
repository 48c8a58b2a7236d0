"""What a page says of each layer: rows of tables turned into texts and numbers, none computed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from acon_analysis.plotdata.depth import off_line
from acon_analysis.statistics.causes import CAUSES
from acon_analysis.statistics.sentences import layer_names
from acon_analysis.statistics.yardsticks import own_yardsticks
from acon_figures.names import visible
from acon_figures.report.numbers import count, exact, number, share
from acon_figures.report.units import unit_data, unit_entry

Page = dict[str, Any]

#: Bars of a layer's histogram, of the 256 that are counted.
BARS = 64

#: Channels that a layer's view names at either end.
ENDS = 5

#: Columns of the channels of a layer in the page.
CHANNEL_FIELDS = ("channel", "L", "s_c", "G", "kappa", "beta_mean", "beta_std")

_FLAG_WORDS = {
    "dead": "dead", "constant_input": "with an input that does not vary",
    "one_signed": "whose inputs all have one sign", "equal_slopes": "with p1≈p2",
    "gate_constant": "with a constant gate",
}  # fmt: skip

#: Columns by which a browser sorts the layers.
_SORTED = (
    "channels", "L", "s_c_max", "L_gate", "G", "kappa", "beta_mean", "beta_std", "ratio", "linear",
)  # fmt: skip


def layer_entries(
    layers: pd.DataFrame,
    channels: pd.DataFrame,
    histograms: pd.DataFrame,
    units: pd.DataFrame,
    prefix: str = "",
) -> tuple[list[Page], list[Page]]:
    """Return what a page shows of every layer, and the numbers of its channels for the script.

    Tables are those of `plotdata.overview`, `Run.histograms` and `unit_facts`; ids get the prefix.
    """
    names = layer_names(layers)
    layers = layers.join(own_yardsticks(layers).rename(columns={"name": "yardstick_of"}))
    entries, data = [], []
    off = off_line(layers["values"], layers["dead"] == layers["channels"])
    for index, row, apart in zip(layers.index, layers.to_dict("records"), off, strict=True):
        own, counted, curves = (
            table[(table["layer"] == row["layer"]) & (table["call"] == row["call"])]
            for table in (channels, histograms, units)
        )
        entries.append({
            "place": index, "id": f"{prefix}layer-{index}", "key": (row["layer"], int(row["call"])),
            "name": visible(names[row["layer"], int(row["call"])]), "off": bool(apart),
            **_columns(row),
            "histogram": _histogram(counted), "profile": _profile(own), "ends": _ends(own),
            "listed": len(own), "unit": unit_entry(curves),
        })  # fmt: skip
        data.append(_channel_data(own) | {"units": unit_data(curves)})
    return entries, data


def _columns(row: Mapping[Any, Any]) -> Page:
    """Return the cells of a layer in the table of layers."""
    measured, tested = not np.isnan(row["L"]), not np.isnan(row["null_p05"])
    texts = ("kind", "learned", "why")
    brief, causes = _brief(visible(row["why"]))
    return {
        **{text: visible(row[text]) for text in texts},
        "type": visible(_type(row)),
        "role": "gate" if row["gate_of"] else visible(row["kind"]),
        "brief": brief,
        "more_causes": causes,
        "channels": count(row["channels"]),
        "L": share(row["L"]),
        "L_interval": ""
        if np.isnan(row["L_low"])
        else f"{share(row['L_low'])} to {share(row['L_high'])}",
        "index": [row[name] for name in ("L", "L_low", "L_high")] if measured else None,
        "yardstick": row["yardstick"],
        "dead": bool(measured and row["dead"] == row["channels"]),
        "bar": [_percent(row[name]) for name in ("L", "L_low", "L_high")] if measured else None,
        "s_c": number(row["s_c_max"], 4),
        "s_c_channel": count(row["s_c_channel"]),
        "L_gate": share(row["L_gate"]),
        "G": number(row["G"]),
        "kappa": number(row["kappa"]),
        "beta": number(row["beta_mean"]),
        "beta_std": number(row["beta_std"]),
        "ratio": number(row["ratio"], 2),
        "null": f"{number(row['null_p05'], 2)} to {number(row['null_p95'], 2)}" if tested else "",
        "p_value": number(row["p_value"], 2),
        "answer": row["answer"],
        "linear": count(row["linear"]),
        "dead_channels": count(row["dead"]) if row["dead"] > 0 else "",
        "numbers": {name: exact(row[name]) for name in _SORTED},
        "more": _more(row),
    }


def _type(row: Mapping[Any, Any]) -> str:
    """Return the kind of a layer and its class, which a product written out lacks."""
    known = row["class_name"] not in ("", "mul", "div")
    return f"{row['kind']}, {row['class_name']}" if known else str(row["kind"])


def _brief(why: str) -> tuple[str, int]:
    """Return the first three causes of a layer's sentence, and how many its own view adds."""
    parts = why.split(", ")
    more = len(parts) - 3
    if more < 2:  # one cause takes no more room than the words for it
        return why, 0
    return ", ".join(parts[:3]), more


def _percent(value: float) -> float:
    return round(100 * min(max(float(np.nan_to_num(value)), 0.0), 1.0), 2)


def _more(row: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """Return the facts of a layer that the table has no column for."""
    given = f" ({visible(row['parameters'])})" if row["parameters"] else ""
    found = [("Module", f"{visible(row['class_name'])}{given}, {visible(row['granularity'])}")]
    if not np.isnan(row["yardstick"]):
        found.append(("L on Gaussian inputs", f"{share(row['yardstick'])}, {row['yardstick_of']}"))
    if row["reader"]:
        error = row["proof_error"]
        proof = "" if np.isnan(error) else f"; largest error of the proof {number(error, 1)}"
        found.append(("β read from", f"{visible(row['reader'])}{proof}"))
    if not np.isnan(row["beta_q05"]):
        found.append(("β, middle 90 %", f"{number(row['beta_q05'])} to {number(row['beta_q95'])}"))
    if not np.isnan(row["L_own"]):
        found.append(("L_own", f"{share(row['L_own'])}, with lines of its own for every sample"))
    if not np.isnan(row["beta_gain"]):
        found.append(("What β per sample adds to L_own", number(row["beta_gain"])))
    if not np.isnan(row["slope_low"]):
        reached = f"{number(row['slope_low'], 2)} to {number(row['slope_high'], 2)}"
        bounds = f"{number(row['slope_min'], 2)} to {number(row['slope_max'], 2)}"
        found.append(("Derivative over the data", f"{reached}; bounds {bounds}"))
    if not np.isnan(row["positive"]):
        which = "Inputs of the gate > 0" if row["kind"] == "product" else "Inputs > 0"
        found.append((which, f"{100 * row['positive']:.1f} %"))
    known = [f"{count(row[name])} {words}" for name, words in _FLAG_WORDS.items() if row[name] > 0]
    if known:
        found.append(("Channels", ", ".join(known)))
    return found


def _histogram(counted: pd.DataFrame) -> Page | None:
    """Return a layer's β in `BARS` bars: heights of 0 to 1, and what lies outside 0 to 1."""
    if counted.empty:
        return None
    row = counted.iloc[0]
    bars = np.asarray(row["count"], dtype=np.int64).reshape(BARS, -1).sum(axis=1)
    total = int(bars.sum() + row["below"] + row["above"] + row["invalid"])
    if not bars.sum():
        return None
    return {
        "heights": [round(float(value), 4) for value in bars / bars.max()],
        "total": total,
        "outside": int(row["below"] + row["above"]),
        "invalid": int(row["invalid"]),
    }


def _profile(channels: pd.DataFrame) -> list[tuple[float, float]] | None:
    """Return L of a layer's channels in rising order: at most 200 points, each from 0 to 1."""
    values = np.sort(channels["L"].dropna().to_numpy(dtype=np.float64))
    if len(values) < 2:
        return None
    ranks = np.unique(np.linspace(0, len(values) - 1, min(len(values), 200)).round().astype(int))
    return [
        (round(float(rank) / (len(values) - 1), 4), round(float(np.clip(values[rank], 0, 1)), 4))
        for rank in ranks
    ]


def _ends(channels: pd.DataFrame) -> dict[str, list[Page]]:
    """Return a layer's most linear channels and those with most nonlinearity, none dead."""
    known = channels[channels["L"].notna() & ~channels["cause"].isin(["dead", "constant_input"])]
    most = known.sort_values(["L", "channel"], ascending=[False, True]).head(ENDS)
    least = known.sort_values(["s_c", "channel"], ascending=[False, True]).head(ENDS)
    return {"linear": _short(most), "nonlinear": _short(least)}


def _short(channels: pd.DataFrame) -> list[Page]:
    return [
        {
            "channel": int(row["channel"]),
            "L": share(row["L"]),
            "s_c": number(row["s_c"], 4),
            "why": visible(row["why"]),
        }
        for row in channels.to_dict("records")
    ]


def _channel_data(channels: pd.DataFrame) -> Page:
    """Return a layer's channels for the script: lists of numbers, None where there is none."""
    lists = {}
    for name in CHANNEL_FIELDS:
        values = channels[name].to_numpy(dtype=np.float64)
        if not np.isnan(values).all():
            lists[name] = [None if np.isnan(value) else float(f"{value:.6g}") for value in values]
    causes = [str(cause) for cause in channels["cause"]]
    names = sorted(set(causes) - {""})
    if names:
        lists["cause"] = [names.index(cause) if cause else None for cause in causes]
    return {"columns": lists, "causes": [CAUSES.get(name, name) for name in names]}
