"""Tables of trained trials: the best learning rate of each activation, means, paired differences.

Intervals are Student's t over seeds (weights and order of the images); the test images are the same
for all, so the intervals do not cover other images.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

from acon_analysis.errors import UsageError
from acon_analysis.selection import require_columns


def best_rates(trials: pd.DataFrame) -> pd.DataFrame:
    """Keep, of each activation, the trials at the learning rate with the best mean validation.

    ``trials`` are those of `activation_trials.train_trials`. Of two equally good rates the smaller
    one is kept.
    """
    require_columns(trials, ["activation", "rate", "seed", "validation"], "the table of trials")
    means = trials.pivot_table(index="rate", columns="activation", values="validation")
    best = means.idxmax().to_dict()
    wanted = trials["activation"].map(best)
    return trials[trials["rate"] == wanted].reset_index(drop=True)


def mean_interval(values: npt.ArrayLike) -> tuple[float, float, float]:
    """Return mean and ends of Student's 95 % interval; NaN ends for fewer than two values."""
    own = np.asarray(values, dtype=np.float64)
    mean = float(own.mean())
    if len(own) < 2:
        return mean, float("nan"), float("nan")
    half = float(stdtrit(len(own) - 1, 0.975) * own.std(ddof=1) / len(own) ** 0.5)
    return mean, mean - half, mean + half


def summarize_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Tabulate each activation at its best learning rate, in the order of the trials.

    Columns ``activation``, ``rate``, ``seeds``, ``mean``, ``low``, ``high`` (test accuracy, 95 %),
    ``dead`` (mean share of dead units), ``diverged`` (how many networks).
    """
    chosen = best_rates(trials)
    rows = []
    for name, own in chosen.groupby("activation", sort=False):
        mean, low, high = mean_interval(own["test"])
        rows.append(
            {
                "activation": name,
                "rate": own["rate"].iloc[0],
                "seeds": own["seed"].nunique(),
                "mean": mean,
                "low": low,
                "high": high,
                "dead": own["dead"].mean(),
                "diverged": int(own["diverged"].sum()),
            }
        )
    return pd.DataFrame(rows)


def compare_order(trials: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """Ask of a claimed order, best first, whether each activation beats the next one.

    Each activation counts at its best learning rate. A row a neighbouring pair: ``first``,
    ``second``, ``difference`` (of test accuracies, first - second, mean over seeds), ``low``,
    ``high`` (95 %, paired by seed), ``verdict`` ("holds" where the interval is above 0, "reversed"
    below, otherwise "undecided"). An activation that was not tried, or other seeds of the two,
    raise `UsageError`.
    """
    chosen = best_rates(trials).set_index(["activation", "seed"])["test"]
    known = set(chosen.index.get_level_values(0))
    lacking = [name for name in order if name not in known]
    if lacking or len(order) < 2:
        raise UsageError(
            f"an order of at least two tried activations is needed; not tried: {lacking}"
        )
    rows = []
    for first, second in pairwise(order):
        one, two = chosen.loc[first], chosen.loc[second]
        if set(one.index) != set(two.index):
            raise UsageError(f"{first} and {second} were tried with different seeds")
        mean, low, high = mean_interval((one - two).to_numpy())
        verdict = "holds" if low > 0 else "reversed" if high < 0 else "undecided"
        rows.append((first, second, mean, low, high, verdict))
    columns = ["first", "second", "difference", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)
