"""How linear each layer is, in order of execution, of one network or of several."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.columns import DEPTH_COLUMNS, names
from acon_analysis.errors import AconError
from acon_analysis.plotdata.networks import network_names
from acon_analysis.runs.run import Run
from acon_analysis.selection import require_columns
from acon_analysis.statistics.channel_sums import ChannelSums
from acon_analysis.statistics.differences import estimates
from acon_analysis.statistics.jackknife import share_interval
from acon_analysis.statistics.yardsticks import own_yardsticks

#: Measures by depth: L over all samples, L of each sample on its own, and G = 4·Var(gate).
MEASURES = ("L", "L_own", "G")


def linearity_by_depth(runs: Sequence[Run]) -> pd.DataFrame:
    """Tabulate the measures of every layer of some runs, with jackknife intervals of 95 %.

    Runs without moments are left out. Columns `columns.DEPTH_COLUMNS`: ``network`` is what
    `network_names` calls it, ``place`` counts the layers in order of execution from 0,
    ``activation`` is the class that most of them have, ``measure`` is one of `MEASURES`; ``value``,
    ``low`` and ``high`` are float64 from 0 to 1, NaN where a layer has no gate or there are fewer
    than two blocks; ``dead`` says that the layer's outputs do not vary, which makes L 1 by
    convention.
    """
    runs = [run for run in runs if run.has_moments]
    called = network_names(runs, by_data=True)
    parts = [_of_run(run, name) for run, name in zip(runs, called, strict=True)]
    if not parts:
        return pd.DataFrame(columns=names(DEPTH_COLUMNS))
    return pd.concat(parts, ignore_index=True)


def _of_run(run: Run, network: str) -> pd.DataFrame:
    """Tabulate the measures of one run's layers."""
    order = run.layers[["layer", "call", "class_name", "kind"]]
    order = order.assign(
        place=np.arange(len(order)), yardstick=own_yardsticks(run.layers)["yardstick"]
    )
    table = _measured(run.channel_sums).merge(order, on=["layer", "call"])
    # The first of the most frequent ones; products have no activation of their own.
    counts = Counter(order.loc[order["kind"] != "product", "class_name"])
    common = next(iter(dict(counts.most_common(1))), "product")
    head = {"network": network, "data": run.data_words, "activation": common}
    table = table.assign(**head)
    table = table.sort_values("place", kind="stable")  # the measures stay in their order
    return table[names(DEPTH_COLUMNS)].reset_index(drop=True)


def _measured(sums: ChannelSums) -> pd.DataFrame:
    """Tabulate the measures of the layers of channel sums, with intervals."""
    keys = sums.keys.loc[sums.layer_starts, ["layer", "call"]].reset_index(drop=True)
    totals = sums.whole.summed(sums.layer_starts)
    values = sums.total["n"] / np.where(
        sums.field("n_samples") > 0, sums.field("n_samples"), np.nan
    )
    keys = keys.assign(dead=totals.cyy == 0, values=values[sums.layer_starts])
    whole = estimates(totals)
    without = estimates(sums.without.summed(sums.layer_starts))
    size = sums.size[:, sums.layer_starts]
    tables = []
    for name in MEASURES:
        low, high = share_interval(whole[name], without[name], size, 0.95)
        tables.append(keys.assign(measure=name, value=whole[name], low=low, high=high))
    return pd.concat(tables, ignore_index=True)


def off_line(values: npt.ArrayLike, dead: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Say which layers, in order of execution, no line by depth goes through.

    These are dead layers and those with one value of a channel in a sample, or fewer, before layers
    with more: they lie on a branch of pooled values, as squeeze-and-excitation has. ``values`` may
    be NaN, where it is unknown.
    """
    known = np.asarray(values, dtype=np.float64)
    later = np.maximum.accumulate(np.nan_to_num(known)[::-1])[::-1]
    return np.asarray(dead, dtype=bool) | ((known <= 1) & (later > 1))


def shared_layers(depth: pd.DataFrame) -> pd.DataFrame:
    """Keep the layers that every network of the table has, counted anew in the first's order.

    ``depth`` comes from `linearity_by_depth`, as do the columns of the result; an AconError if the
    networks share no layer.
    """
    require_columns(depth, ("network", "place"), "the table by depth")
    if depth.empty:
        raise AconError("the table by depth holds no layer")
    networks = depth["network"].nunique()
    present = depth.groupby(["layer", "call"])["network"].nunique()
    common = set(present.index[present == networks])
    first = depth[depth["network"] == depth["network"].iloc[0]].sort_values("place")
    each = dict.fromkeys(zip(first["layer"], first["call"], strict=True))
    order = [key for key in each if key in common]
    if not order:
        raise AconError(
            f"the networks {', '.join(depth['network'].unique())} share no layer; draw them apart"
        )
    keys = list(zip(depth["layer"], depth["call"], strict=True))
    kept = depth[[key in common for key in keys]].copy()
    kept["place"] = [order.index(key) for key in keys if key in common]
    return kept.reset_index(drop=True)


def nested_layers(depth: pd.DataFrame) -> bool:
    """Whether all networks have every layer of the one that has fewest, by name and call."""
    sets = [set(zip(own["layer"], own["call"], strict=True)) for _, own in depth.groupby("network")]
    return not sets or min(sets, key=len) <= set.intersection(*sets)


def relative_depth(depth: pd.DataFrame) -> pd.DataFrame:
    """Put the layers of every network between 0, its first, and 1, its last.

    ``depth`` comes from `linearity_by_depth` or `shared_layers`; its ``place`` becomes float64, 0
    for a network of one layer.
    """
    require_columns(depth, ("network", "place"), "the table by depth")
    if depth.empty:
        raise AconError("the table by depth holds no layer")
    last = depth.groupby("network")["place"].transform("max").clip(lower=1)
    return depth.assign(place=depth["place"] / last)
