"""One channel at the samples where its β makes it most linear, and most nonlinear."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from acon_analysis import family
from acon_analysis.columns import EXTREME_SAMPLE_COLUMNS, FACT_COLUMNS, names
from acon_analysis.errors import AconError, UsageError
from acon_analysis.plotdata.channels import choose_channel
from acon_analysis.selection import require_columns
from acon_analysis.statistics.beta_matrix import BetaMatrix, as_matrix

_POINTS = 161


@dataclass(frozen=True)
class Extremes:
    """A channel, the samples at both ends of its β, and its function at each.

    Attributes
    ----------
    facts : pandas.Series
        The channel's row of `channels.channel_facts`.
    samples : pandas.DataFrame
        Columns `columns.EXTREME_SAMPLE_COLUMNS`: ``side`` is "straight" (least abs(β)
        first) or "bent" (greatest first).
    curves : pandas.DataFrame
        Columns `columns.EXTREME_CURVE_COLUMNS`: the function at the sample's β, within three
        standard deviations of the mean of the channel's inputs and within their range.
    """

    facts: "pd.Series[Any]"
    samples: pd.DataFrame
    curves: pd.DataFrame


def sample_extremes(
    facts: pd.DataFrame,
    frame: BetaMatrix | pd.DataFrame,
    layer: str | None = None,
    channel: int | None = None,
    count: int = 4,
) -> Extremes:
    """Choose the samples where one channel is straightest and where it bends most.

    p1 and p2 are the same for every sample, so over the same inputs the channel bends the more the
    greater abs(β) is; 0 makes it a straight line. ``facts`` comes from `channels.channel_facts`, of
    one network; ``frame`` is β of every sample, from `Run.beta` or with columns ``sample``,
    ``layer``, ``channel``, ``beta`` (and ``call``). The layer is by default the frame's last, the
    channel `switching_channel`; ``count`` samples a side are fewer where there are not twice as
    many.

    Raises
    ------
    UsageError
        For an unknown layer or channel, or a count below 1.
    AconError
        If a column is missing, a β is not finite, there are fewer than two samples, or the
        layer has no p1 and p2.
    """
    require_columns(facts, names(FACT_COLUMNS), "the table of channels")
    if count < 1:
        raise UsageError(f"count must be at least 1; it is {count}")
    own = as_matrix(frame, layer)
    name = own.layer
    if channel is None:
        channel = switching_channel(facts[facts["layer"] == name])
    row = choose_channel(facts, name, channel)
    values = own.values[:, own.channels == channel].astype(np.float64)
    betas = pd.Series(values.reshape(-1), index=own.sample_ids)
    if len(betas) < 2:
        raise AconError(f"two samples at least are to be compared; layer {name!r} has {len(betas)}")
    order = betas.abs().sort_values(kind="stable").index
    count = min(count, len(order) // 2)
    chosen = [("straight", sample) for sample in order[:count]]
    chosen += [("bent", sample) for sample in order[::-1][:count]]
    samples = pd.DataFrame(
        [(side, int(sample), float(betas.loc[sample])) for side, sample in chosen],
        columns=names(EXTREME_SAMPLE_COLUMNS),
    )
    return Extremes(row, samples, _curves(row, samples))


def switching_channel(facts: pd.DataFrame) -> int:
    """Return the channel, of one layer of `channels.channel_facts`, whose function β changes most.

    That of the greatest root mean square distance between its functions at the 5 % and the 95 %
    quantile of β, over two standard deviations either side of the mean input, as a share of the
    output's standard deviation.
    """
    known = facts.dropna(subset=["p1", "p2", "beta_low", "beta_high"])
    if known.empty:
        raise AconError("no channel of the layer has p1, p2 and β of samples")
    known = known[(known["std_y"] > 0) & (known["std_x"] > 0)]
    if known.empty:
        raise AconError("the output of no channel of the layer varies")
    steps = np.linspace(-2.0, 2.0, 41)
    distances = []
    for row in known.to_dict("records"):
        x = row["mean_x"] + steps * row["std_x"]
        low, high = (
            family.acon_c(x, row["p1"], row["p2"], row[name]) for name in ("beta_low", "beta_high")
        )
        distances.append(float(np.sqrt(np.mean((high - low) ** 2))) / row["std_y"])
    return int(known["channel"].iloc[int(np.argmax(distances))])


def _curves(row: "pd.Series[Any]", samples: pd.DataFrame) -> pd.DataFrame:
    """Evaluate the channel's function at the β of every sample."""
    low = max(float(row["min_x"]), float(row["mean_x"] - 3 * row["std_x"]))
    high = min(float(row["max_x"]), float(row["mean_x"] + 3 * row["std_x"]))
    x = np.linspace(low, high, _POINTS)
    parts = [
        pd.DataFrame({
            "sample": one["sample"], "x": x,
            "y": family.acon_c(x, float(row["p1"]), float(row["p2"]), one["beta"]),
        })
        for one in samples.to_dict("records")
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)
