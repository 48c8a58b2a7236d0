"""Where measures of nonlinearity contradict each other about the channels of one layer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from acon_analysis.columns import FACT_COLUMNS, RANK_EXAMPLE_COLUMNS, names
from acon_analysis.errors import AconError
from acon_analysis.plotdata.channels import choose_channel
from acon_analysis.screen import counted
from acon_analysis.selection import require_columns
from acon_analysis.statistics.other_measures import gate_entropy

#: Measures that are compared, all turned so that more means more nonlinear.
COMPARED = ("nonlinearity", "s_c", "G", "kappa", "affinity", "gradient_variance", "gate_entropy",
            "abs_beta")  # fmt: skip

#: Measures that each example sets against 1 - L.
AGAINST = ("abs_beta", "gate_entropy", "s_c")

#: p1 and p2 count as nearly equal (opposite) where their difference (sum) is a sixth of their sum
#: (difference) or less.
NEARLY = 6.0

#: Channels that are needed to rank them.
LEAST_CHANNELS = 4

_KEYS = ["network", "layer", "call", "channel"]


@dataclass(frozen=True)
class MeasureRanks:
    """How measures rank the channels of one layer.

    Attributes
    ----------
    ranks : pandas.DataFrame
        The columns of `channels.channel_facts` of the layer's channels, ``name``, and one column
        ``rank_MEASURE`` for each of `measures`: 0 for the most linear channel of the layer to 1
        for the most nonlinear one, ties at their mean.
    measures : tuple of str
        Those of `COMPARED` that the data give.
    correlations : pandas.DataFrame
        Spearman's correlation of each pair of measures over the channels.
    examples : pandas.DataFrame
        Columns `columns.RANK_EXAMPLE_COLUMNS`, one row a contradiction: the channel whose rank
        by the measure ``against`` differs most from that by 1 - L, and why in words.
    """

    ranks: pd.DataFrame
    measures: tuple[str, ...]
    correlations: pd.DataFrame
    examples: pd.DataFrame


def measure_ranks(
    facts: pd.DataFrame, measures: pd.DataFrame | None = None, layer: str | None = None
) -> MeasureRanks:
    """Rank the channels of a layer by every measure, and find which contradict 1 - L most.

    ``facts`` comes from `channels.channel_facts`. ``measures`` are those that a run does not hold:
    network, layer, call, channel, affinity, gradient_variance. The layer is by default the last
    ACON layer of the first network; `AconError` if it has too few channels to rank.
    """
    require_columns(facts, names(FACT_COLUMNS), "the table of channels")
    first = choose_channel(facts, layer)
    own = facts
    for name in ("network", "layer", "call"):
        own = own[own[name] == first[name]]
    own = _with_values(own[own["std_y"] > 0].assign(name=first["name"]), measures)
    if len(own) < LEAST_CHANNELS:
        raise AconError(
            f"layer {first['layer']!r} has {counted(len(own), 'channel')} whose output varies; to "
            f"rank channels takes {LEAST_CHANNELS}"
        )
    present = tuple(name for name in COMPARED if name in own and own[name].notna().all())
    ranks = own.assign(
        **{f"rank_{name}": (own[name].rank() - 1) / (len(own) - 1) for name in present}
    )
    correlations = own[list(present)].corr("spearman")
    return MeasureRanks(ranks, present, correlations, _examples(ranks, present))


def _with_values(own: pd.DataFrame, measures: pd.DataFrame | None) -> pd.DataFrame:
    """Add the measures under the names of `COMPARED`."""
    table = own.assign(
        nonlinearity=1 - own["L"],
        gate_entropy=gate_entropy(own["positive"].to_numpy()),
        abs_beta=own["beta_mean"].abs(),
    )
    if measures is not None:
        wanted = [*_KEYS, "affinity", "gradient_variance"]
        require_columns(measures, wanted, "the table of other measures")
        table = table.merge(measures[wanted], on=_KEYS, how="left")
        table["affinity"] = 1 - table["affinity"]
    return table.reset_index(drop=True)


def _examples(ranks: pd.DataFrame, present: tuple[str, ...]) -> pd.DataFrame:
    """Take, measure by measure, the channel whose rank differs most from that by 1 - L."""
    rows: list[dict[str, Any]] = []
    taken: set[int] = set()
    for name in AGAINST:
        if name not in present:
            continue
        left = ranks[~ranks["channel"].isin(taken)]
        gap = (left[f"rank_{name}"] - left["rank_nonlinearity"]).abs()
        if left.empty or float(gap.max()) == 0.0:
            continue
        row = left.iloc[int(gap.to_numpy().argmax())]
        taken.add(int(row["channel"]))
        headline, reason = _REASONS[name](row)
        rows.append(
            {
                "channel": int(row["channel"]),
                "against": name,
                "rank_nonlinearity": float(row["rank_nonlinearity"]),
                "rank_against": float(row[f"rank_{name}"]),
                "headline": headline,
                "reason": reason,
            }
        )
    return pd.DataFrame(rows, columns=names(RANK_EXAMPLE_COLUMNS))


def _why_beta(row: "pd.Series[Any]") -> tuple[str, str]:
    """Say why a channel's abs(β) and its nonlinearity disagree."""
    beta = f"mean |β| is {abs(row['beta_mean']):.2f}"
    near = abs(row["p1"] - row["p2"]) <= abs(row["p1"] + row["p2"]) / NEARLY
    opposite = abs(row["p1"] + row["p2"]) <= abs(row["p1"] - row["p2"]) / NEARLY
    gain = f"the gain |β (p1 - p2)|·std(x) is {row['kappa']:.2f}"
    if row["rank_abs_beta"] < row["rank_nonlinearity"]:
        cause = "p1 is nearly -p2, which leaves no straight part" if opposite else gain
        return "small β, yet it bends", f"{beta}, but {cause}"
    cause = "p1 is nearly p2, a line for any β" if near else gain
    return "large β, yet straight", f"{beta}, but {cause}"


def _why_entropy(row: "pd.Series[Any]") -> tuple[str, str]:
    """Say why a channel's gate entropy and its nonlinearity disagree."""
    share = f"{100 * row['positive']:.0f} % of its inputs are positive"
    explained = f"but a line explains {100 * row['L']:.1f} % of its output"
    if row["rank_gate_entropy"] < row["rank_nonlinearity"]:
        return "gate switches less, yet it bends", f"{share}, {explained}"
    return "gate switches, yet straight", f"{share}, {explained}"


def _why_share(row: "pd.Series[Any]") -> tuple[str, str]:
    """Say why a channel's s_c and its nonlinearity disagree."""
    share = f"{100 * row['s_c']:.2g} % of the variance of the layer's output"
    if row["rank_s_c"] < row["rank_nonlinearity"]:
        return "bends, but hardly acts", f"its output varies so little that its bend is {share}"
    return "straight, but acts strongly", f"its output varies so much that its bend is {share}"


_REASONS: dict[str, Callable[["pd.Series[Any]"], tuple[str, str]]] = {
    "abs_beta": _why_beta,
    "gate_entropy": _why_entropy,
    "s_c": _why_share,
}
