"""What a page says about a run: frames turned into texts, numbers and rows, nothing computed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from acon_analysis.columns import (
    LINEARITY_CHANNEL_COLUMNS,
    LINEARITY_LAYER_COLUMNS,
    SPLIT_COLUMNS,
)
from acon_analysis.plotdata.overview import FLAGS, headline_frame, linearity_text
from acon_analysis.runs.run import Run
from acon_analysis.statistics.causes import CAUSES
from acon_analysis.statistics.verdicts import verdict_text
from acon_figures.names import visible
from acon_figures.report.numbers import count, exact, number, share

Page = dict[str, Any]

#: Unreadable images that a page lists.
MOST_ERRORS = 200

#: Bars of a layer's histogram, of the 256 that are counted.
BARS = 64

#: Channels that a layer's view names at either end.
ENDS = 5

_FLAG_WORDS = {
    "dead": "dead", "constant_input": "constant input", "one_signed": "one-signed",
    "equal_slopes": "p1≈p2", "gate_constant": "constant gate",
}  # fmt: skip

#: Columns of the channels' table in the page: name, heading, decimals (None: an index).
CHANNEL_FIELDS = ("channel", "L", "s_c", "G", "kappa", "beta_mean", "beta_std")


def notices(run: Run) -> list[tuple[str, str]]:
    """Return what a reader must know first: (kind, sentence), kind "warning" or "note"."""
    found = []
    if not run.complete:
        total = run.manifest["units"]
        units = f"{len(run.units)} of {total} units" if total else f"{len(run.units)} units so far"
        found.append(
            ("warning", f"This run is not complete: {units} are done; all numbers are of those.")
        )
    if len(run.errors):
        found.append(("warning", f"{len(run.errors):,} images could not be read; see the end."))
    if run.manifest.get("origin", {}).get("weights") == "random":
        found.append(("warning", "The weights are random: this network was never trained."))
    if not run.has_moments:
        found.append(
            (
                "note",
                "The run was captured without moments, so there is no linearity in this report "
                "(acon capture --moments).",
            )
        )
    return found


def facts(run: Run) -> list[tuple[str, str]]:
    """Return how the run was captured, as terms and values."""
    manifest = run.manifest
    identity, origin = manifest["identity"], manifest.get("origin", {})
    listed = manifest["samples"]
    weights = origin.get("weights")
    found: list[tuple[str, Any]] = [
        ("Model", identity["model"]),
        ("Weights", f"{weights} (seed {origin['seed']})" if weights == "random" else weights),
        ("SHA-256 of the weights file", origin.get("weights_sha256")),
        ("SHA-256 of the weights in use", identity.get("weights_sha256")),
        ("Data", identity.get("data")),
        ("Images", f"{len(run.sample_ids):,}" + (f" of {listed:,}" if listed else "")),
        ("Images that could not be read", f"{len(run.errors):,}"),
        ("Preprocessing", _listed(identity.get("preprocess"))),
        ("Kinds of layers", ", ".join(identity.get("kinds") or ())),
        ("Moments", _listed(identity.get("moments")) if run.has_moments else "none"),
        ("Computed with", _listed(manifest.get("compute"))),
        ("Numbers", identity.get("dtype")),
        ("Versions", _listed(manifest.get("versions"))),
        ("Run", f"{run.path.absolute().name}, id {manifest.get('run_id', '')}"),
    ]
    return [(term, visible(value)) for term, value in found if value not in (None, "")]


def _listed(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "" if value is None else str(value)
    return ", ".join(f"{key} {_listed(part)}" for key, part in value.items())


def verdicts(layers: pd.DataFrame, splits: pd.DataFrame | None) -> list[str]:
    """Return what the run says, in sentences."""
    said = [verdict_text(splits)] if splits is not None else []
    said.append(linearity_text(layers))
    return [sentence(visible(text)) for text in said if text]


def sentence(text: str) -> str:
    """Return words as a sentence; "β" stays small, a large one would be read as B."""
    first = text[:1].upper() if text[:1].isascii() else text[:1]
    return f"{first}{text[1:]}."


def tiles(layers: pd.DataFrame, run: Run) -> list[dict[str, str]]:
    """Return the headline numbers: value, label, note."""
    known = {str(row["quantity"]): row for row in headline_frame(layers).to_dict("records")}
    found = [
        {"value": f"{len(run.sample_ids):,}", "label": "images", "note": _unreadable(run)},
        {
            "value": count(known["layers"]["value"]),
            "label": "layers",
            "note": f"{count(known['channels']['value'])} channels",
        },
    ]
    for end, word in (("least", "least linear layer"), ("greatest", "most linear layer")):
        row = known.get(f"L_{end}")
        if row is not None:
            found.append(
                {"value": f"L {share(row['value'])}", "label": word, "note": visible(row["layer"])}
            )
    if "linear" in known:
        row, dead = known["linear"], known["dead"]
        found.append(
            {
                "value": count(row["value"]),
                "label": f"of {count(row['total'])} channels linear",
                "note": f"L ≥ 0.99; {count(dead['value'])} dead",
            }
        )
    if "beta_least" in known:
        low, high = known["beta_least"]["value"], known["beta_greatest"]["value"]
        found.append(
            {
                "value": f"{number(low, 2)} to {number(high, 2)}",
                "label": "mean β of the layers",
                "note": "",
            }
        )
    if "more" in known:
        row = known["more"]
        found.append(
            {
                "value": f"{count(row['value'])} of {count(row['total'])}",
                "label": "layers whose β varies more than unlearned",
                "note": "at the 5 % level each",
            }
        )
    return found


def _unreadable(run: Run) -> str:
    return f"{len(run.errors):,} could not be read" if len(run.errors) else "all could be read"


def layer_label(row: Mapping[str, Any]) -> str:
    """Return a layer's name, with the call where it is not the first."""
    call = f" (call {int(row['call']) + 1})" if row["call"] else ""
    return visible(row["layer"]) + call


def layer_rows(layers: pd.DataFrame) -> list[Page]:
    """Return the rows of the table of layers."""
    return [_layer_row(place, row) for place, row in enumerate(layers.to_dict("records"))]


def _layer_row(place: int, row: Mapping[Any, Any]) -> Page:
    flags = [
        f"{count(row[name])} {_FLAG_WORDS[name]}" for name in FLAGS if not np.isnan(row[name])
        and row[name] > 0
    ]  # fmt: skip
    measured = not np.isnan(row["L"])
    return {
        "place": place,
        "name": layer_label(row),
        "kind": visible(row["kind"]),
        "class_name": visible(row["class_name"]),
        "reader": visible(row["reader"]),
        "granularity": visible(row["granularity"]),
        "channels": count(row["channels"]),
        "L": share(row["L"]),
        "L_interval": f"{share(row['L_low'])} to {share(row['L_high'])}" if measured else "",
        "bar": [_percent(row[name]) for name in ("L", "L_low", "L_high")] if measured else None,
        "s_c": number(row["s_c_max"]),
        "s_c_channel": count(row["s_c_channel"]),
        "G": number(row["G"]),
        "kappa": number(row["kappa"]),
        "beta": number(row["beta_mean"]),
        "beta_std": number(row["beta_std"]),
        "ratio": number(row["ratio"], 2),
        "null": f"{number(row['null_p05'], 2)} to {number(row['null_p95'], 2)}"
        if not np.isnan(row["null_p05"])
        else "",
        "p_value": number(row["p_value"], 2),
        "answer": row["answer"],
        "learned": visible(row["learned"]),
        "flags": flags,
        "flagged": sum(row[name] for name in FLAGS if not np.isnan(row[name])),
        "why": visible(row["why"]),
        "brief": _brief(visible(row["why"])),
        "numbers": {
            name: exact(row[name])
            for name in (
                "channels", "L", "s_c_max", "G", "kappa", "beta_mean", "beta_std", "ratio",
            )
        },
        "more": _more(row),
    }  # fmt: skip


def _brief(why: str) -> str:
    """Return the first three causes of a layer's sentence; a layer's own view has them all."""
    parts = why.split(", ")
    more = len(parts) - 3
    if more < 2:  # one cause takes no more room than the words for it
        return why
    return ", ".join([*parts[:3], f"{more} more causes"])


def _percent(value: float) -> float:
    return round(100 * min(max(float(np.nan_to_num(value)), 0.0), 1.0), 2)


def _more(row: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """Return the facts of a layer that the table has no column for."""
    found = [("Module", f"{visible(row['class_name'])}, {visible(row['granularity'])}")]
    if row["reader"]:
        error = row["proof_error"]
        proof = "" if np.isnan(error) else f"; largest error of the proof {number(error, 1)}"
        found.append(("β read from", f"{visible(row['reader'])}{proof}"))
    if not np.isnan(row["beta_q05"]):
        found.append(("β, middle 90 %", f"{number(row['beta_q05'])} to {number(row['beta_q95'])}"))
    if not np.isnan(row["L_own"]):
        found.append(("L within a sample", share(row["L_own"])))
    if not np.isnan(row["beta_gain"]):
        found.append(("what β per sample adds to it", number(row["beta_gain"])))
    if not np.isnan(row["slope_low"]):
        reached = f"{number(row['slope_low'], 2)} to {number(row['slope_high'], 2)}"
        bounds = f"{number(row['slope_min'], 2)} to {number(row['slope_max'], 2)}"
        found.append(("Derivative over the data", f"{reached}; bounds {bounds}"))
    if not np.isnan(row["positive"]):
        found.append(("Inputs > 0", f"{100 * row['positive']:.1f} %"))
    return found


def histogram(counts: pd.DataFrame, layer: str, call: int) -> Page | None:
    """Return a layer's β in `BARS` bars: heights of 0 to 1, and what lies outside 0 to 1."""
    own = counts[(counts["layer"] == layer) & (counts["call"] == call)]
    if own.empty:
        return None
    row = own.iloc[0]
    bars = np.asarray(row["count"], dtype=np.int64).reshape(BARS, -1).sum(axis=1)
    total = int(bars.sum() + row["below"] + row["above"] + row["invalid"])
    if not bars.sum():
        return None
    return {
        "heights": [round(float(value), 4) for value in bars / bars.max()],
        "counts": [int(value) for value in bars],
        "total": total,
        "outside": int(row["below"] + row["above"]),
        "invalid": int(row["invalid"]),
    }


def profile(channels: pd.DataFrame) -> list[tuple[float, float]] | None:
    """Return L of a layer's channels in rising order: at most 200 points, each from 0 to 1."""
    values = np.sort(channels["L"].dropna().to_numpy(dtype=np.float64))
    if len(values) < 2:
        return None
    places = np.unique(np.linspace(0, len(values) - 1, min(len(values), 200)).round().astype(int))
    return [
        (round(float(place) / (len(values) - 1), 4), round(float(np.clip(values[place], 0, 1)), 4))
        for place in places
    ]


def ends(channels: pd.DataFrame) -> dict[str, list[Page]]:
    """Return a layer's most linear channels and those with most of its nonlinearity."""
    known = channels.dropna(subset=["L"])
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


def channel_data(channels: pd.DataFrame) -> Page:
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


def errors(run: Run) -> Page:
    """Return the images that could not be read."""
    shown = run.errors.head(MOST_ERRORS)
    pairs = zip(shown["path"], shown["reason"], strict=True)
    return {
        "rows": [(visible(path), visible(reason)) for path, reason in pairs],
        "total": len(run.errors),
    }


_GLOSSARY = ("L", "s_c", "G", "kappa", "rho", "L_own", "beta_gain", "ratio", "p_value", "dead",
             "one_signed", "equal_slopes", "gate_constant")  # fmt: skip
_SIGNS = {"kappa": "κ", "rho": "ρ", "L_own": "L within a sample", "beta_gain": "gain of β",
          "ratio": "samples’ effect", "p_value": "p", "one_signed": "one-signed",
          "equal_slopes": "p1≈p2", "gate_constant": "constant gate"}  # fmt: skip


def glossary(layers: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the meaning of what the page shows, from the tables' own definitions."""
    every = (*SPLIT_COLUMNS, *LINEARITY_LAYER_COLUMNS, *LINEARITY_CHANNEL_COLUMNS)
    meanings = {column.name: column.meaning for column in every}
    shown = {"s_c": "s_c_max"}
    return [
        (_SIGNS.get(name, name), meanings[name])
        for name in _GLOSSARY
        if bool(layers[shown.get(name, name)].notna().any())
    ]
