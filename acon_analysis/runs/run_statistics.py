"""How linear a captured run's layers are, and how much of its β was learned: frames from a run.

What `Run.linearity`, `Run.null_model` and `Run.variance_split` call; the mathematics is in
`acon_analysis.statistics.linearity` and `acon_analysis.statistics.redrawn_null`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from acon_analysis.columns import SPLIT_COLUMNS, dtypes, names
from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.statistics.linearity import channel_table, layer_table, sample_table
from acon_analysis.moments.fields import FEWEST_BLOCKS, MOST_BLOCKS, UNRECORDED_BLOCKS
from acon_analysis.moments.frames import merge_rows
from acon_analysis.statistics.redrawn_null import BetaNetwork, EmpiricalNull, empirical_null
from acon_analysis.statistics.verdicts import Verdict, overall, verdict
from acon_analysis.statistics.beta_variance import label_effect, variance_split
from acon_analysis.statistics.batchnorm_null import null_table

if TYPE_CHECKING:
    from acon_analysis.runs.run import Run

#: What a table of linearity can be by.
BY = ("layer", "channel", "sample")

#: Networks redrawn for the empirical null, and samples that they see: p >= 1/(draws + 1).
DRAWS, MAX_SAMPLES = 99, 1024

_OF_SPLIT = names(SPLIT_COLUMNS)[2:12]


def linearity_table(run: "Run", by: str = "layer", *, confidence: float = 0.95) -> pd.DataFrame:
    """Tabulate how linear a run's activation layers are.

    Parameters
    ----------
    run : Run
        Captured with moments.
    by : {"layer", "channel", "sample"}
        What a row is.
    confidence : float
        Of the intervals; jackknife over blocks of samples.

    Returns
    -------
    DataFrame
        Columns `columns.LINEARITY_LAYER_COLUMNS`, `columns.LINEARITY_CHANNEL_COLUMNS` or
        `columns.LINEARITY_SAMPLE_COLUMNS`; layers in
        the order of execution.
    """
    if by not in BY:
        raise UsageError(f"linearity by {by!r}: {closest(by, BY)}")
    if by == "sample":
        table = sample_table(_required(run, run.part_frame("totals")))
        return _in_order(run, table, ["sample"])
    tabulate = layer_table if by == "layer" else channel_table
    table = tabulate(moments_of(run), parameters_of(run), confidence=confidence)
    return _in_order(run, table, [] if by == "layer" else ["channel"])


#: Columns of linearity that a summary adds to those of β.
_SUMMARY = {
    "layer": ("layer", "call", "L", "L_low", "L_high", "G"),
    "channel": ("layer", "call", "channel", "L", "s_c", "G", "why"),
    "sample": ("layer", "call", "sample", "L", "G"),
}


def summary_table(run: "Run", by: str = "layer") -> pd.DataFrame:
    """Summarise β, and where the run holds moments the linearity of its layers.

    Parameters
    ----------
    run : Run
        A captured run with a layer that has β, or with moments.
    by : {"layer", "channel", "sample"}
        What a row is.

    Returns
    -------
    DataFrame
        The columns of `beta_summary.summarize`, where there is any β, then L (with its interval by
        layer), G and, by channel, s_c and why; NaN where a layer lacks something.
    """
    from acon_analysis.statistics.beta_summary import summarize

    if not has_moments(run):
        return summarize(run, by)
    keys = ["layer", "call", *([] if by == "layer" else [by])]
    found = linearity_table(run, by)[list(_SUMMARY.get(by, keys))]
    if not _with_beta(run):
        return found
    kinds = run.layers[["layer", "call", "kind"]]
    table = summarize(run, by).merge(found, on=keys, how="outer")
    if by == "layer":
        table = table.drop(columns="kind").merge(kinds, on=["layer", "call"], how="left")
        table.insert(2, "kind", table.pop("kind"))
    return _in_order(run, table, keys[2:])


def _with_beta(run: "Run") -> bool:
    table = run.layers
    return bool(((table["column"] != "") | (table["granularity"] == "static")).any())


def _in_order(run: "Run", table: pd.DataFrame, further: list[str]) -> pd.DataFrame:
    """Sort by execution, then by the further columns."""
    order = run.layers[["layer", "call"]].assign(_place=np.arange(len(run.layers)))
    placed = table.merge(order, on=["layer", "call"], how="left")
    placed = placed.sort_values(["_place", *further], kind="stable", ignore_index=True)
    return placed.drop(columns="_place")


def moments_of(run: "Run") -> pd.DataFrame:
    """Return a run's moments, its units merged.

    Parameters
    ----------
    run : Run
        Captured with moments.

    Returns
    -------
    DataFrame
        Columns `fields.MOMENT_COLUMNS`; one row a layer, call, channel and block.
    """
    merged: pd.DataFrame | None = None
    for frame in run.part_frames("moments"):
        if merged is None:
            merged = frame
        else:
            both = pd.concat([merged, frame], ignore_index=True)
            merged = merge_rows(both, ("layer", "call", "channel", "block"))
    return _required(run, merged)


def _required(run: "Run", frame: pd.DataFrame | None) -> pd.DataFrame:
    if frame is None or frame.empty:
        raise AconError(
            f"the run {str(run.path)!r} holds no moments; capture it again with --moments "
            "(moments=True) into another folder"
        )
    return frame


def has_moments(run: "Run") -> bool:
    """Say whether a run was captured with moments, and has any."""
    return next(iter(run.files("moments")), None) is not None


def blocks_of(run: "Run") -> int:
    """Return the number of blocks of samples that a run's moments are kept in.

    Parameters
    ----------
    run : Run
        A captured run; 100 where it does not say, as earlier versions did not.
    """
    options = run.manifest["identity"].get("moments")
    found = (options if isinstance(options, dict) else {}).get("blocks", UNRECORDED_BLOCKS)
    if not isinstance(found, int) or not FEWEST_BLOCKS <= found <= MOST_BLOCKS:
        raise AconError(
            f"the manifest of the run {str(run.path)!r} gives {found!r} as the number of blocks of "
            f"its moments; expected {FEWEST_BLOCKS} to {MOST_BLOCKS}"
        )
    return found


def parameters_of(run: "Run") -> pd.DataFrame:
    """Return p1, p2, static β, γ, b and the reference β of every layer, call and channel.

    Parameters
    ----------
    run : Run
        Captured with moments.
    """
    references = run.references[["layer", "call", "channel", "beta_reference"]]
    return references.merge(run.channels, on=["layer", "channel"], how="left")


def null_frame(run: "Run", layer: str, call: int = 0) -> pd.DataFrame:
    """Set the β of a layer's channels against what BatchNorm alone makes of them.

    Parameters
    ----------
    run : Run
        A captured run.
    layer, call : str, int
        A layer with β per sample, and which of its uses.

    Returns
    -------
    DataFrame
        Columns layer, call, then `columns.NULL_COLUMNS`; one row a channel. NaN where β is not
        the sigmoid of a BatchNorm's output.
    """
    row = run.layer_row(layer, call)
    if not row.column:
        raise UsageError(
            f"layer {layer!r} (kind {row.kind!r}) has no β that depends on the sample: the null "
            f"model is about the others: {', '.join(_per_sample(run)['layer'].unique()) or 'none'}"
        )
    beta = run.beta_matrix(layer, call)
    own = run.channels[run.channels["layer"] == layer]
    if len(own) == beta.shape[1]:
        bias, weight = own["bn_bias"].to_numpy(), own["bn_weight"].to_numpy()
    else:  # one β for the whole layer
        bias = weight = np.full(beta.shape[1], np.nan)
    table = null_table(beta, bias, weight)
    table.insert(0, "layer", pd.Series([layer] * len(table), dtype="str"))
    table.insert(1, "call", call)
    return table


def split_table(
    run: "Run", *, draws: int = DRAWS, max_samples: int = MAX_SAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Split the variance of β over samples and channels, against the empirical null.

    Parameters
    ----------
    run : Run
        A captured run; without pooled inputs the columns of the null are NaN.
    draws, max_samples, seed : int
        Of the empirical null (0 draws: none) and of the permutation test of the labels.

    Returns
    -------
    DataFrame
        Columns `columns.SPLIT_COLUMNS`, one row a layer and call with β per sample.
    """
    rows = list(_splits(run, draws, max_samples, seed))
    return pd.DataFrame(rows, columns=names(SPLIT_COLUMNS)).astype(dtypes(SPLIT_COLUMNS))


def verdict_text(splits: pd.DataFrame) -> str:
    """Say in one sentence whether β varies between samples more than without learning.

    Parameters
    ----------
    splits : DataFrame
        From `split_table`.

    Returns
    -------
    str
        Empty for a network without β per sample.
    """
    found = {
        row["layer"] + (f" (call {row['call']})" if row["call"] else ""): Verdict(
            row["answer"], row["p_value"], row["text"]
        )
        for row in splits.to_dict("records")
    }
    return overall(found) if found else ""


def _splits(run: "Run", draws: int, max_samples: int, seed: int) -> Iterator[dict[str, Any]]:
    labels = _labels(run)
    for number, row in enumerate(_per_sample(run).to_dict("records")):
        layer, call = str(row["layer"]), int(row["call"])
        beta = run.beta_matrix(layer, call)
        if not beta.size:
            continue
        split = variance_split(beta)
        network, pooled = _network(run, layer), run.pooled_matrix(layer, call)
        null: EmpiricalNull | None = None
        if draws and network is not None and pooled is not None and split.samples > 1:
            null = empirical_null(
                pooled, beta, network, seed=seed + number, draws=draws, max_samples=max_samples
            )
        effect = label_effect(beta.mean(1, dtype=np.float64), labels, seed=seed + number)
        said = verdict(split, null)
        values: dict[str, Any] = {"layer": layer, "call": call, "answer": said.answer}
        for name in _OF_SPLIT:
            values[name] = getattr(split, name)
        values |= {"eta2": effect.eta2, "eta2_expected": effect.expected, "eta2_p": effect.p_value}
        yield values | _null_columns(null) | {"text": said.text}


def _null_columns(null: EmpiricalNull | None) -> dict[str, Any]:
    if null is None:
        empty = ("null_p05", "null_median", "null_p95", "p_value", "ks", "ks_null")
        return dict.fromkeys(empty, np.nan) | {"null": ""}
    low, middle, high = null.draws["ratio"].quantile([0.05, 0.5, 0.95])
    return {
        "null_p05": low,
        "null_median": middle,
        "null_p95": high,
        "p_value": null.p_value("ratio"),
        "ks": null.observed["ks"],
        "ks_null": null.draws["ks"].median(),
        "null": null.kind,
    }


def _per_sample(run: "Run") -> pd.DataFrame:
    """Rows of the layer table whose β depends on the sample."""
    table = run.layers
    return table[(table["column"] != "") & (table["kind"] != "gate")]


def _labels(run: "Run") -> "pd.Series[Any]":
    return run.samples.set_index("sample_id")["label"].reindex(run.sample_ids)


def _network(run: "Run", layer: str) -> BetaNetwork | None:
    """Return what the run knows of the β network of a layer; None if it is of another build."""
    facts = run.manifest.get("beta_networks", {}).get(layer)
    if facts is None:
        return None
    own = run.channels[run.channels["layer"] == layer]
    scale, shift = (own[name].to_numpy(dtype=np.float64) for name in ("bn_weight", "bn_bias"))
    return BetaNetwork(
        hidden=int(facts["hidden"]),
        bn_weight=scale if facts["norm"] else None,
        bn_bias=shift if facts["norm"] else None,
        inner_norm=bool(facts["inner_norm"]),
        relu=bool(facts["relu"]),
        eps=float(facts["eps"]),
    )
