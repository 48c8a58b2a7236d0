"""How L of single samples spreads, layer by layer."""

import numpy as np
import pandas as pd

from acon_analysis.columns import SAMPLE_SPREAD_COLUMNS, names
from acon_analysis.runs.run import Run
from acon_analysis.statistics.linearity import sample_table, totals_by_sample

#: Rows, samples times layers; of a larger run every n-th sample is tabulated.
MOST_ROWS = 5_000_000

_QUANTILES = {"low": 0.05, "lower": 0.25, "median": 0.5, "upper": 0.75, "high": 0.95}
_KEYS = ["layer", "call"]


def sample_spread(run: Run) -> pd.DataFrame:
    """Tabulate quantiles of L of a sample, each with lines and a variance of its own.

    Returns `columns.SAMPLE_SPREAD_COLUMNS`, one row a layer and call in order of execution that has
    L of any sample whose output varies; empty without moments and without such layers. Of more than
    `MOST_ROWS` samples times layers every n-th sample is taken.
    """
    columns = names(SAMPLE_SPREAD_COLUMNS)
    if not run.has_moments:
        return pd.DataFrame(columns=columns)
    every = max(1, -(-len(run.sample_ids) * len(run.layers) // MOST_ROWS))
    taken = np.sort(run.sample_ids)[::every]
    parts = [part[part["sample"].isin(taken)] for part in run.part_frames("totals")]
    totals = pd.concat(parts, ignore_index=True) if parts else None
    table = sample_table(totals_by_sample(totals, run.manifest.get("rows")))
    known = table[table["L"].notna() & ~table["dead"]]
    rows = []
    for (layer, call), own in known.groupby(_KEYS, sort=False):
        order = own.sort_values("L", kind="stable")
        index, samples = order["L"].to_numpy(), order["sample"].to_numpy()
        rows.append(
            {"layer": layer, "call": call, "samples": len(own), "every": every}
            | {"values": float((own["n"] / own["channels"]).mean())}
            | dict(zip(_QUANTILES, np.quantile(index, list(_QUANTILES.values())), strict=True))
            | {"least_sample": samples[0], "least_L": index[0]}
            | {"most_sample": samples[-1], "most_L": index[-1]}
        )
    if not rows:
        return pd.DataFrame(columns=columns)
    layers = run.layers[[*_KEYS, "class_name"]].assign(place=np.arange(len(run.layers)))
    layers = layers.merge(run.linearity()[[*_KEYS, "L"]], on=_KEYS)
    found = layers.merge(pd.DataFrame(rows), on=_KEYS)  # in order of execution
    return found.assign(network=run.network, data=run.data_words)[columns]
