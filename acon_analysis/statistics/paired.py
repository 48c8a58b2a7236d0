"""What edits of a network do to its loss: paired comparisons with the unchanged network.

The same samples pass through every plan, so the change of the loss is taken sample by sample and
its mean is tested as in Student's paired t test (Student 1908, Biometrika 6(1), 1-25,
doi:10.1093/biomet/6.1.1). Several plans are several tests: their p values are adjusted by Holm's
step-down procedure (Holm 1979, Scandinavian Journal of Statistics 6(2), 65-70,
https://www.jstor.org/stable/4615733). That a change is not significant does not show that there is
none: it takes an interval within a margin of equivalence (Schuirmann 1987, Journal of
Pharmacokinetics and Biopharmaceutics 15, 657-680, doi:10.1007/BF01068419).
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtr, stdtrit

from acon_analysis.errors import UsageError
from acon_analysis.selection import require_columns

#: Name of the plan that edits nothing.
UNCHANGED = "unchanged"


def paired(
    frame: pd.DataFrame, *, confidence: float = 0.95, more_than: float | None = None
) -> pd.DataFrame:
    """Compare the loss under each plan with that of the unchanged network, sample by sample.

    ``frame`` has one row a plan and sample: plan, sample, loss; the plan "unchanged" among them.
    ``more_than`` tests whether the mean change is greater than this, one-sided, and not whether
    there is one: for a loss that cannot fall, such as a divergence from the unchanged network.

    Returns one row a plan, in order of appearance: plan; n, the samples with a finite loss under
    both; change, the mean of loss - unchanged loss; low and high, its interval by Student's t with
    n - 1 degrees of freedom; p, two-sided, of no mean change; p_holm, adjusted over the plans that
    have a p. n = 0 gives NaN, n = 1 a change without interval and p. Equal changes of all samples
    have an interval of width 0 and p = 0, or 1 where they are all 0.
    """
    require_columns(frame, ["plan", "sample", "loss"], "the frame of plans")
    if not 0 < confidence < 1:
        raise UsageError(f"the confidence lies between 0 and 1; got {confidence}")
    if frame.duplicated(["plan", "sample"]).any():
        raise UsageError("each plan must have each sample once; some are there twice")
    wide = frame.pivot(index="sample", columns="plan", values="loss")
    if UNCHANGED not in wide:
        known = ", ".join(map(str, wide.columns)) or "nothing"
        raise UsageError(f"no plan {UNCHANGED!r} to compare with; the frame has {known}")
    plans = frame.loc[frame["plan"] != UNCHANGED, "plan"].drop_duplicates()
    changes = (wide[name] - wide[UNCHANGED] for name in plans)
    rows = [_compared(own.to_numpy(np.float64), confidence, more_than) for own in changes]
    table = pd.DataFrame(rows, columns=["n", "change", "low", "high", "p"])
    table.insert(0, "plan", plans.to_numpy())
    return table.astype({"plan": "str"}).assign(p_holm=holm(table["p"].to_numpy(np.float64)))


def _compared(
    change: npt.NDArray[np.float64], confidence: float, more_than: float | None
) -> tuple[int, float, float, float, float]:
    """Return n, mean, its interval and p of the changes of one plan, (N,)."""
    change = change[np.isfinite(change)]
    n = len(change)
    mean = float(change.mean()) if n else np.nan
    if n < 2:
        return n, mean, np.nan, np.nan, np.nan
    error = float(change.std(ddof=1)) / np.sqrt(n)
    over = abs(mean) if more_than is None else mean - more_than
    sides = 2 if more_than is None else 1
    if error == 0:
        return n, mean, mean, mean, float(over <= 0)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * error
    p = sides * float(stdtr(n - 1, -over / error))
    return n, mean, mean - half, mean + half, p


Verdict = Literal["used", "not used", "undecided"]


def verdict(low: float, high: float, p: float, *, margin: float, level: float) -> Verdict:
    """Return whether what a plan removes was used, by the interval of the change of the loss.

    "not used" where the interval lies within ±margin (the change is equivalent to none), otherwise
    "used" where p, adjusted where there are several plans, is at most the level.
    """
    if -margin < low and high < margin:
        return "not used"
    return "used" if p <= level else "undecided"


def holm(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Adjust p values (M,) for their number by Holm's procedure; NaN is no test and stays NaN.

    The i-th smallest of m is multiplied by m - i + 1; an adjusted value is never below that of a
    smaller p, nor above 1.
    """
    found = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    steps = p[order] * np.arange(len(order), 0, -1)
    found[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return found
