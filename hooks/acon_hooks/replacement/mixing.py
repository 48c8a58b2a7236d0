"""Several forms in one plan: on every channel the cheapest that changes the output little."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn
from tqdm.auto import tqdm

from acon_analysis.errors import UsageError
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.held import Held
from acon_hooks.engine.outputs import Output
from acon_hooks.engine.plans import run_plans
from acon_hooks.replacement.fitting import Fit
from acon_hooks.replacement.forms import degree_of
from acon_hooks.replacement.linearizing import plan_edits
from acon_hooks.replacement.plan import KEYS, Plan
from acon_hooks.replacement.replacing import FIRST_ORDER_IMAGES

#: Name of a plan of several forms.
MIXED = "mixed"


@dataclass(frozen=True)
class FewSamples:
    """`FIRST_ORDER_IMAGES` samples or a little more, from all over the data, held in memory."""

    kept: list[Batch]

    @classmethod
    def of(cls, held: Held) -> "FewSamples":
        """Take the same share of every batch."""
        total = sum(len(batch.ids) for batch in held.batches())
        kept = []
        for batch in held.batches():
            size = len(batch.ids)
            count = min(size, math.ceil(size * FIRST_ORDER_IMAGES / total))
            own = batch.parts([count, size - count])[0] if count < size else batch
            kept.append(own.map(Tensor.clone))  # a part would keep the whole batch
        return cls(kept)

    def batches(self) -> list[Batch]:
        """Return the samples."""
        return self.kept

    def change(self, network: nn.Module, plan: Plan, output: Output) -> float:
        """Return the mean relative change of the output under a plan; NaN if one is NaN."""
        plans = {MIXED: plan_edits(network, plan)}
        rows = run_plans(network, self, plans, output=output, logits=False)
        return float(rows.loc[rows["plan"] == MIXED, "output_change"].mean(skipna=False))


def checked_forms(with_: str | Sequence[str], whole: bool, max_change: float | None) -> list[str]:
    """Return the forms to replace with, or raise a UsageError; several need `max_change`."""
    forms = [with_] if isinstance(with_, str) else list(with_)
    if not forms:
        raise UsageError("there is no form to replace with: give one or several")
    for form in forms:
        degree_of(form)
    if len(forms) > 1 and max_change is None:
        raise UsageError(
            "several forms are mixed by how much they may change the output: give max_change "
            "(--max-change), a share of its norm such as 0.05"
        )
    if max_change is not None and not whole:
        raise UsageError("give either a budget of channels or max_change, not both")
    return forms


def mixed_plan(fits: Sequence[Fit], max_change: float, measure: Callable[[Plan], float]) -> Plan:
    """Choose a form for every channel, the cheapest within a tolerance, which is the same for all.

    `fits` are of the same channels, the cheapest form first, with the column ``first_order``. A
    channel gets the first form whose own predicted change of the output is within the tolerance; if
    none is, it keeps its activation. Bisection raises the tolerance as far as all together change
    the output, by `measure`, at most by the share `max_change` of its norm.
    """
    if not 0 < max_change < math.inf:
        raise UsageError(
            f"max_change is a positive share of the output's norm, such as 0.05; got {max_change}"
        )
    tables = [_with_form(fit.table) for fit in fits]
    table = pd.concat(tables, ignore_index=True)
    changes = np.unique(table["first_order"].dropna())
    names = ", ".join(str(own["form"].iloc[0]) for own in tables)
    words = f"max_change {max_change:g}, the first of {names} with a "

    def plan(tolerance: float) -> Plan:
        chosen = table[table["first_order"] <= tolerance].drop_duplicates(KEYS)
        return fits[0].plan_of(chosen, f"{words}predicted change of at most {tolerance:.3g}")

    def change(tolerance: float) -> float:
        bar.update()
        found = measure(plan(tolerance))
        return math.inf if math.isnan(found) else found  # of outputs that overflow

    with tqdm(total=len(changes).bit_length(), desc="mixing", unit="plan", disable=None) as bar:
        count = bisect_right(changes, max_change, key=change)
    if not count:
        least = f"; the least that is predicted of one is {changes[0]:.3g}" if len(changes) else ""
        raise UsageError(f"max_change {max_change:g} allows no channel to be replaced{least}")
    return plan(float(changes[count - 1]))


def _with_form(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a fit with its form and coefficients; a fit of lines has neither."""
    if "form" in table:
        return table
    none: list[Any] = [()] * len(table)
    return table.assign(form="line", coefficients=none)
