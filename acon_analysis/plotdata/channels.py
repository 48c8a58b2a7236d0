"""Single channels up close: what their function is, and where their inputs lie."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from acon_analysis import family
from acon_analysis.columns import FACT_COLUMNS, names
from acon_analysis.errors import AconError, UsageError
from acon_analysis.plotdata.networks import network_names
from acon_analysis.runs.run import Run
from acon_analysis.screen import counted
from acon_analysis.selection import choose_layer, require_columns
from acon_analysis.statistics.beta_summary import quantiles
from acon_analysis.statistics.causes import LINEAR
from acon_analysis.statistics.sentences import row_names
from acon_analysis.statistics.yardsticks import own_yardsticks

#: Quantiles of β over the samples in `channel_facts`.
QUANTILES = (0.05, 0.5, 0.95)

_POINTS = 241


def channel_facts(runs: Sequence[Run], layers: pd.DataFrame | None = None) -> pd.DataFrame:
    """Put together what is known of every channel of some runs' activation layers.

    Runs without moments are left out; ``layers``, with columns layer and call, says what to keep.
    Returns `columns.FACT_COLUMNS`, one row a layer, call and channel in order of execution:
    ``beta_low``, ``beta_middle``, ``beta_high`` are `QUANTILES` of β over the samples (equal where
    β is static, NaN without β), ``std_y`` is the output's standard deviation, the rest as in
    `columns.LINEARITY_CHANNEL_COLUMNS`.
    """
    runs = [run for run in runs if run.has_moments]
    tables = [
        _facts(run, run.layers if layers is None else layers).assign(network=name)
        for run, name in zip(runs, network_names(runs), strict=True)
    ]
    if not tables:
        return pd.DataFrame(columns=names(FACT_COLUMNS))
    return pd.concat(tables, ignore_index=True)


def _facts(run: Run, layers: pd.DataFrame) -> pd.DataFrame:
    """Return the facts of the channels of some of a run's layers."""
    table = run.linearity(by="channel", columns="all").merge(layers[["layer", "call"]])
    # Outside the ACON family a later call may have more channels than `run.channels` lists.
    slopes = run.channels[["layer", "channel", "p1", "p2"]]
    table = table.merge(slopes, on=["layer", "channel"], how="left")
    table = table.merge(_quantiles(run, layers), on=["layer", "call", "channel"], how="left")
    table["std_y"] = np.sqrt(table["cyy"] / table["n"])
    classes = run.layers[["layer", "call", "class_name", "parameters"]]
    classes = classes.assign(yardstick=own_yardsticks(run.layers)["yardstick"])
    table = table.merge(classes.rename(columns={"class_name": "activation"}), on=["layer", "call"])
    return table.assign(network=run.network, data=run.data_words)[names(FACT_COLUMNS)]


def _quantiles(run: Run, layers: pd.DataFrame) -> pd.DataFrame:
    """Return `QUANTILES` of β of every channel of some of a run's layers, gates left out."""
    columns = ["beta_low", "beta_middle", "beta_high"]
    frames = []
    own = run.beta_layers.merge(layers[["layer", "call"]])
    own = own[own["kind"] != "gate"]
    for layer, call in zip(own["layer"], own["call"], strict=True):
        beta = run.beta(str(layer), int(call))
        if not beta.values.size:
            continue
        found = np.stack(quantiles(beta.values, QUANTILES, 0, np.float64))
        if found.shape[1] == 1:  # one β for all channels
            found = np.repeat(found, len(run.channels_of(beta.layer)), axis=1)
        head = {"layer": beta.layer, "call": beta.call, "channel": range(found.shape[1])}
        frames.append(pd.DataFrame(head | dict(zip(columns, found, strict=True))))
    if not frames:
        return pd.DataFrame(columns=["layer", "call", "channel", *columns])
    return pd.concat(frames, ignore_index=True)


def choose_channel(
    facts: pd.DataFrame, layer: str | None = None, channel: int | None = None
) -> "pd.Series[Any]":
    """Return the row of one channel of `channel_facts`, and ``name``, what figures call its layer.

    Of several networks the first with p1 and p2 counts. By default the layer is its last one with
    p1 and p2, the channel that with the greatest share of the layer's nonlinearity, s_c.

    Raises
    ------
    UsageError
        For an unknown layer or channel.
    AconError
        If a column is missing, if no channel has p1, p2 and β, or if none is named and the output
        of none varies.
    """
    require_columns(facts, names(FACT_COLUMNS), "the table of channels")
    known = facts.dropna(subset=["p1", "p2", "beta_middle"])
    if known.empty:
        raise AconError("no channel of the table has p1, p2 and β: its layers are not ACON")
    known = known[known["network"] == known["network"].iloc[0]]
    known = known.assign(name=row_names(known))
    own = known[known["layer"] == choose_layer(known, layer)]
    own = own[own["call"] == own["call"].iloc[-1]].set_index("channel", drop=False)
    if channel is None:
        varying = own[own["std_y"] > 0]
        if varying.empty:
            raise AconError(f"the output of no channel of layer {own['layer'].iloc[0]!r} varies")
        channel = int(varying["s_c"].fillna(-1.0).idxmax())
    if channel not in own.index:
        raise UsageError(
            f"the layer has no channel {channel}; it has {own.index[0]} to {own.index[-1]}"
        )
    chosen: pd.Series[Any] = own.loc[channel]
    return chosen


def shape_words(facts: "pd.Series[Any]") -> str:
    """Return in a few words what an ACON channel's function looks like over its inputs.

    Such as ``"nearly |x|"``: by L, by the slopes p1 and p2 and by the gain κ, which says how sharp
    the bend is (from 3 on the two lines are reached within one standard deviation). ``facts`` comes
    from `choose_channel`.
    """
    p1, p2 = sorted((float(facts["p1"]), float(facts["p2"])), key=abs, reverse=True)
    sharp, sign = float(facts["kappa"]) >= 3.0, "-" if p1 < 0 else ""
    if facts["L"] >= LINEAR:
        return "a straight line"
    if abs(p1 + p2) < 0.25 * abs(p1):
        up = p1 * np.sign(float(facts["beta_middle"])) * np.sign(p1 - p2) > 0
        return ("nearly " if sharp else "a rounded ") + ("|x|" if up else "-|x|")
    if abs(p2) < 0.15 * abs(p1):
        return f"like {sign}ReLU" if sharp else f"like {sign}Swish"
    return "two lines" if sharp else "a smooth bend"


def channel_curves(facts: "pd.Series[Any]") -> pd.DataFrame:
    """Evaluate one channel's function over its inputs at quantiles of β, and its affine fit.

    ``facts`` comes from `choose_channel`. Columns ``curve`` ("beta_low", "beta_middle",
    "beta_high", "fit"), ``x`` (from the smallest to the greatest input), ``y``.
    """
    x = np.linspace(float(facts["min_x"]), float(facts["max_x"]), _POINTS)
    curves = {
        name: family.acon_c(x, float(facts["p1"]), float(facts["p2"]), float(facts[name]))
        for name in ("beta_low", "beta_middle", "beta_high")
    }
    curves["fit"] = float(facts["slope"]) * x + float(facts["intercept"])
    parts = [pd.DataFrame({"curve": name, "x": x, "y": y}) for name, y in curves.items()]
    return pd.concat(parts, ignore_index=True)


def spread_channels(facts: pd.DataFrame, layer: str | None = None, count: int = 6) -> pd.DataFrame:
    """Choose channels of one layer that span it from the most linear to the most nonlinear.

    They lie at `count` equally spaced ranks of L, of the channels whose output varies, and come in
    the order of the channels. ``facts`` comes from `channel_facts`; the layer is by default the
    last with p1 and p2. Columns `columns.FACT_COLUMNS`, ``name`` as in `choose_channel`, and
    ``strength``, √(1 - L): the share of the output's standard deviation that no straight line
    explains.
    """
    first = choose_channel(facts, layer)
    of = facts["network"] == first["network"]
    of &= (facts["layer"] == first["layer"]) & (facts["call"] == first["call"])
    own = facts[of & (facts["std_y"] > 0)].sort_values("L", kind="stable")
    if count < 1 or len(own) < count:
        raise AconError(
            f"layer {first['layer']!r} has {counted(len(own), 'channel')} whose output varies, "
            f"not {count}"
        )
    ranks = np.linspace(0, len(own) - 1, count).round().astype(int)
    chosen = own.iloc[ranks].sort_values("channel")
    strength = np.sqrt((1 - chosen["L"]).clip(0.0, 1.0))
    table: pd.DataFrame = chosen.assign(strength=strength, name=first["name"])
    return table.reset_index(drop=True)


def reached_share(facts: pd.DataFrame) -> "pd.Series[float]":
    """Return how much of the range of each channel's derivative its data reach, 0 to 1.

    (slope_high - slope_low) / (slope_max - slope_min) of `channel_facts`; NaN for a constant one.
    """
    width = facts["slope_max"] - facts["slope_min"]
    share: pd.Series[float] = (facts["slope_high"] - facts["slope_low"]) / width.where(width > 0)
    return share


def sketch_curves(channels: pd.DataFrame) -> pd.DataFrame:
    """Evaluate functions of `spread_channels` at their mean β: ``channel``, ``x``, ``y``.

    Inputs lie within two standard deviations of their mean.
    """
    parts = []
    for row in channels.to_dict("records"):
        low, high = (row["mean_x"] + end * row["std_x"] for end in (-2, 2))
        x = np.linspace(low, high, 81)
        y = family.acon_c(x, row["p1"], row["p2"], row["beta_mean"])
        parts.append(pd.DataFrame({"channel": row["channel"], "x": x, "y": y}))
    return pd.concat(parts, ignore_index=True)
