"""Does a measure show which channel can be replaced? Rank correlations with the damage.

The damage of a channel is the change of the logits when it alone is replaced by its line. Within
each layer the channels are ranked by a measure and by their damage; Spearman's correlation of the
two ranks (Spearman 1904, The American Journal of Psychology 15(1), doi:10.2307/1412159) is
averaged over the layers of a network, then over networks trained from different seeds.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from acon_analysis.selection import require_columns

#: What identifies a layer's use in a trained network.
LAYER_KEYS = ["network", "seed", "layer", "call"]

#: Units that a layer must have for a rank correlation to be formed.
LEAST_UNITS = 4


def rank_correlations(units: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Correlate measures with the damage, within each layer.

    ``units`` has one row a unit: network, seed, layer, call, the measures (larger: more nonlinear)
    and the damage. Returns network, seed, layer, call, measure, units and spearman, one row a
    layer's use and measure; NaN where a measure does not exist for the layer or is constant, or
    where fewer than `LEAST_UNITS` units have both. Ties take their mean rank.
    """
    require_columns(units, [*LAYER_KEYS, *measures, "damage"], "the table of units")
    rows = []
    for (network, seed, layer, call), part in units.groupby(LAYER_KEYS, sort=False):
        for measure in measures:
            pair = part[[measure, "damage"]].dropna()
            value = np.nan
            if len(pair) >= LEAST_UNITS and bool((pair.nunique() > 1).all()):
                value = float(spearmanr(pair[measure], pair["damage"]).statistic)
            rows.append((network, seed, layer, call, measure, len(pair), value))
    return pd.DataFrame(rows, columns=[*LAYER_KEYS, "measure", "units", "spearman"])
