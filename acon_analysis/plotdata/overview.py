"""A captured run at a glance: a table of its layers, of its channels, and what stands out."""

import numpy as np
import pandas as pd

from acon_analysis.columns import HEADLINE_COLUMNS, names
from acon_analysis.runs.run import Run
from acon_analysis.statistics.sentences import alive, layer_names, main_layers

#: Columns of `layer_overview` but layer and call: where they come from, and their names here.
_OF_LAYERS = (
    "kind", "class_name", "parameters", "gate_of", "granularity", "channels", "reader",
    "proof_error",
)  # fmt: skip
_OF_LINEARITY = (
    "n", "cyy", "L", "L_low", "L_high", "L_gate", "G", "kappa", "rho", "nu", "L_own", "beta_gain",
    "slope_min", "slope_max", "slope_low", "slope_high", "positive", "linear", "dead",
    "constant_input", "one_signed", "equal_slopes", "gate_constant", "why", "values",
)  # fmt: skip
_OF_BETA = {"mean": "beta_mean", "std": "beta_std", "q05": "beta_q05", "q95": "beta_q95"}
_OF_SPLITS = {
    "ratio": "ratio", "null_p05": "null_p05", "null_p95": "null_p95", "p_value": "p_value",
    "answer": "answer", "text": "learned",
}  # fmt: skip
_TOP = ("s_c_max", "s_c_channel")

OVERVIEW_COLUMNS = (
    "layer", "call", *_OF_LAYERS, *_OF_LINEARITY, *_TOP, *_OF_BETA.values(), *_OF_SPLITS.values(),
)  # fmt: skip
_TEXTS = (
    "layer", "kind", "class_name", "parameters", "gate_of", "granularity", "reader", "why",
    "answer", "learned",
)  # fmt: skip

#: Columns of `channel_overview`.
OVERVIEW_CHANNEL_COLUMNS = (
    "layer", "call", "channel", "L", "s_c", "G", "kappa", "beta_mean", "beta_std", "cause", "why",
)  # fmt: skip

_KEYS = ["layer", "call"]


def layer_overview(
    run: Run, *, channels: pd.DataFrame | None = None, splits: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Put together what is known of every layer of a run, with or without moments and β.

    ``channels`` is `channel_overview`, where it is there already; without ``splits``, from
    `Run.variance_split`, the columns of the samples' effect are empty. Returns `OVERVIEW_COLUMNS`,
    one row a layer and call in order of execution: the layer, its linearity
    (`columns.LINEARITY_LAYER_COLUMNS`), ``values``, how many a channel has in a sample on average,
    ``s_c_max`` and ``s_c_channel``, the largest s_c of one channel and that channel, β over all
    samples and channels (`Run.beta_summary`), and the samples' effect (`columns.SPLIT_COLUMNS`;
    ``learned`` is its text). Numbers are float64, NaN where a layer lacks them; texts are empty
    then.
    """
    table = run.layers[[*_KEYS, *_OF_LAYERS]]
    if run.has_moments:
        linearity = run.linearity(columns="all")
        per_sample = linearity["n"] / (linearity["channels"] * linearity["n_samples"])
        linearity = linearity.assign(values=per_sample)[[*_KEYS, *_OF_LINEARITY]]
        own = channel_overview(run) if channels is None else channels
        table = table.merge(linearity, on=_KEYS, how="left")
        table = table.merge(_top(own), on=_KEYS, how="left")
    if run.has_beta:
        betas = run.beta_summary()[[*_KEYS, *_OF_BETA]].rename(columns=_OF_BETA)
        table = table.merge(betas, on=_KEYS, how="left")
    if splits is not None and len(splits):
        found = splits[[*_KEYS, *_OF_SPLITS]].rename(columns=_OF_SPLITS)
        table = table.merge(found, on=_KEYS, how="left")
    table = table.reindex(columns=list(OVERVIEW_COLUMNS))
    for name in table.columns:
        if name in _TEXTS:
            table[name] = table[name].astype(object).fillna("").astype("str")
        elif name != "call":
            table[name] = table[name].astype(np.float64)
    return table


def channel_overview(run: Run) -> pd.DataFrame:
    """Put together what is known of every channel of a run, as `OVERVIEW_CHANNEL_COLUMNS`.

    Layers are in order of execution. Without moments there are mean and standard deviation of β
    alone, NaN and empty texts elsewhere.
    """
    if run.has_moments:
        return run.linearity(by="channel", columns="all")[list(OVERVIEW_CHANNEL_COLUMNS)]
    if not run.has_beta:
        return pd.DataFrame(columns=list(OVERVIEW_CHANNEL_COLUMNS))
    betas = run.beta_summary("channel").rename(columns={"mean": "beta_mean", "std": "beta_std"})
    table = betas.reindex(columns=list(OVERVIEW_CHANNEL_COLUMNS))
    return table.assign(cause="", why="")


def _top(channels: pd.DataFrame) -> pd.DataFrame:
    """Return each layer's channel with the largest share of its nonlinearity, if it has any."""
    known = channels[channels["s_c"] > 0]
    best = known.loc[known.groupby(_KEYS, sort=False)["s_c"].idxmax()]
    best = best.rename(columns={"s_c": "s_c_max", "channel": "s_c_channel"})
    return best[[*_KEYS, *_TOP]]


def headline_frame(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the few numbers of `layer_overview` to look at first, as `columns.HEADLINE_COLUMNS`.

    ``quantity`` is one of ``layers``, ``channels``, ``L_least``, ``L_greatest`` (with their layer;
    no dead one), ``linear`` and ``dead`` (channels, of ``total``), ``beta_least`` and
    ``beta_greatest`` (mean β of a layer), ``more`` (layers whose β varies between samples more than
    without learning, of those tested); what a run lacks is left out.
    """
    rows: list[tuple[str, float, float, str]] = [
        ("layers", len(layers), np.nan, ""),
        ("channels", layers["channels"].sum(), np.nan, ""),
    ]
    called = layer_names(layers)
    for quantity, column in (("L", "L"), ("beta", "beta_mean")):
        known = main_layers(alive(layers)) if column == "L" else layers.dropna(subset=[column])
        if len(known):
            ends = (("least", known[column].argmin()), ("greatest", known[column].argmax()))
            for end, index in ends:
                row = known.iloc[int(index)]
                name = called[row["layer"], row["call"]]
                rows.append((f"{quantity}_{end}", row[column], np.nan, name))
    measured = layers.dropna(subset=["linear"])
    if len(measured):
        total = measured["channels"].sum()
        rows += [(name, measured[name].sum(), total, "") for name in ("linear", "dead")]
    tested = layers[layers["answer"].isin(["more", "no more", "less"])]
    if len(tested):
        rows.append(("more", (tested["answer"] == "more").sum(), len(tested), ""))
    return pd.DataFrame(rows, columns=names(HEADLINE_COLUMNS)).astype(
        {"value": "float64", "total": "float64"}
    )
