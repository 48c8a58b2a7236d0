"""Does a measure show which channel can be replaced? Rank correlations with the damage.

The damage of a channel is the change of the logits when it alone is replaced by its line. Within
each layer the channels are ranked by a measure and by their damage; Spearman's correlation of the
two ranks (Spearman 1904, The American Journal of Psychology 15(1), doi:10.2307/1412159) is averaged
over the layers of a network, then over networks trained from different seeds.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import spearmanr

from acon_analysis.errors import UsageError
from acon_analysis.selection import require_columns

#: What identifies a layer's use in a trained network.
LAYER_KEYS = ["network", "seed", "layer", "call"]

#: Units that a layer must have for a rank correlation to be formed.
LEAST_UNITS = 4


def rank_correlations(
    units: pd.DataFrame, measures: Sequence[str], damage: str = "damage"
) -> pd.DataFrame:
    """Correlate measures with the damage, within each layer.

    Parameters
    ----------
    units : DataFrame
        One row a unit: network, seed, layer, call, the measures (larger: more nonlinear) and the
        damage.
    measures : sequence of str
        Columns to correlate.
    damage : str
        Column of the measured damage.

    Returns
    -------
    DataFrame
        network, seed, layer, call, measure, units, spearman; one row a layer's use and measure.
        NaN where a measure does not exist for the layer or is constant, or where fewer than
        `LEAST_UNITS` units have both. Ties take their mean rank.
    """
    require_columns(units, [*LAYER_KEYS, *measures, damage], "the table of units")
    rows = []
    for key, part in units.groupby(LAYER_KEYS, sort=False):
        for measure in measures:
            pair = part[[measure, damage]].dropna()
            value = np.nan
            if len(pair) >= LEAST_UNITS and bool((pair.nunique() > 1).all()):
                value = float(spearmanr(pair[measure], pair[damage]).statistic)
            rows.append((*_tuple(key), measure, len(pair), value))
    return pd.DataFrame(rows, columns=[*LAYER_KEYS, "measure", "units", "spearman"])


def summarize_correlations(
    correlations: pd.DataFrame, *, seed: int, draws: int = 2000, confidence: float = 0.95
) -> pd.DataFrame:
    """Average rank correlations over layers and seeds, with intervals.

    The interval is a percentile bootstrap in two levels (Davison and Hinkley 1997, Bootstrap
    Methods and their Application, section 3.8): seeds are drawn with replacement, then layers
    within each drawn seed. With one seed it reflects the layers alone.

    Parameters
    ----------
    correlations : DataFrame
        From `rank_correlations`.
    seed : int
        Of the bootstrap.
    draws : int
        Bootstrap samples.
    confidence : float
        Of the interval.

    Returns
    -------
    DataFrame
        One row a network and measure: spearman (mean over seeds of the mean over layers), low,
        high, seed_std (standard deviation of the seeds' means; NaN for one seed), least (the
        lowest layer), seeds, layers, units. Measures without a value are left out.
    """
    require_columns(correlations, [*LAYER_KEYS, "measure", "units", "spearman"], "correlations")
    rng = np.random.default_rng(seed)
    rows = []
    known = correlations.dropna(subset=["spearman"])
    for (network, measure), part in known.groupby(["network", "measure"], sort=False):
        groups = [own["spearman"].to_numpy(np.float64) for _, own in part.groupby("seed")]
        means = np.array([own.mean() for own in groups])
        low, high = np.quantile(
            [_drawn(groups, rng) for _ in range(draws)],
            [(1 - confidence) / 2, (1 + confidence) / 2],
        )
        rows.append(
            {
                "network": network,
                "measure": measure,
                "spearman": means.mean(),
                "low": low,
                "high": high,
                "seed_std": means.std(ddof=1) if len(means) > 1 else np.nan,
                "least": part["spearman"].min(),
                "seeds": len(groups),
                "layers": len(part),
                "units": int(part["units"].sum()),
            }
        )
    names = ["network", "measure", "spearman", "low", "high", "seed_std", "least", "seeds"]
    frame = pd.DataFrame(rows, columns=[*names, "layers", "units"])
    return frame.sort_values(["network", "spearman"], ascending=[True, False], ignore_index=True)


def compare_replacements(damage: pd.DataFrame) -> pd.DataFrame:
    """Compare what replaces a channel: its line, its input, or nothing.

    Parameters
    ----------
    damage : DataFrame
        One row a unit and replacement: network, seed, layer, call, channel, replacement and
        ``median``, the median over images of the relative change of the logits.

    Returns
    -------
    DataFrame
        One row a network and replacement: median (over units of all seeds), times_affine (that
        median over the affine one's), affine_better (share of units where the line changes the
        logits less), seeds, units.

    Raises
    ------
    UsageError
        If the replacement "affine" is missing.
    """
    keys = [*LAYER_KEYS, "channel"]
    require_columns(damage, [*keys, "replacement", "median"], "the table of damage")
    rows = []
    for network, part in damage.groupby("network", sort=False):
        wide = part.pivot(index=keys, columns="replacement", values="median")
        if "affine" not in wide.columns:
            raise UsageError(f"network {network!r}: no unit was replaced by its line ('affine')")
        for name in part["replacement"].unique():
            pair = wide[["affine", name]] if name != "affine" else wide[["affine"]]
            pair = pair.dropna()
            own, line = pair[name].to_numpy(np.float64), pair["affine"].to_numpy(np.float64)
            rows.append(
                {
                    "network": network,
                    "replacement": name,
                    "median": float(np.median(own)),
                    "times_affine": float(np.median(own) / np.median(line)),
                    "affine_better": np.nan if name == "affine" else float((line < own).mean()),
                    "seeds": part["seed"].nunique(),
                    "units": len(pair),
                }
            )
    return pd.DataFrame(rows)


def _drawn(groups: list[npt.NDArray[np.float64]], rng: np.random.Generator) -> float:
    """Return the mean of the means of layers drawn within drawn seeds."""
    chosen = rng.integers(len(groups), size=len(groups))
    return float(np.mean([rng.choice(groups[i], len(groups[i])).mean() for i in chosen]))


def _tuple(key: object) -> tuple[object, ...]:
    """Return a key of a group as a tuple."""
    return key if isinstance(key, tuple) else (key,)
