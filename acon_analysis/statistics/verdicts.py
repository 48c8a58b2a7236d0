"""Whether β varies between samples more than without learning: a layer's split, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import betainc

from acon_analysis.columns import SPLIT_COLUMNS, names
from acon_analysis.screen import counted, listed
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_analysis.statistics.beta_variance import (
    LabelEffect,
    VarianceSplit,
    label_effect,
    variance_split,
)
from acon_analysis.statistics.redrawn_null import EmpiricalNull
from acon_analysis.statistics.sentences import MOST_NAMED, Names, row_names

Answer = Literal["more", "no more", "less", "constant", "unknown"]

#: Below this standard deviation β counts as constant over the samples.
STEADY = 0.005

_OF_SPLIT = names(SPLIT_COLUMNS)[2:12]


@dataclass(frozen=True)
class Verdict:
    """Whether β varies between samples more than its network would make it without learning.

    Attributes
    ----------
    answer : {"more", "no more", "less", "constant", "unknown"}
        ``"constant"`` where β hardly varies over samples, ``"unknown"`` where it cannot be decided.
    p_value : float
        Of the samples' effect, upper tail; NaN where there is no test.
    text : str
        One sentence.
    """

    answer: Answer
    p_value: float
    text: str


def verdict(
    split: VarianceSplit, null: EmpiricalNull | None = None, *, level: float = 0.05
) -> Verdict:
    """Return whether β varies between samples more than BatchNorm alone would make it, in words.

    The test is on the samples' effect: the variance of the samples' means of β over that of
    independent channels. The spread of single channels proves nothing, for BatchNorm sets it.
    Without a null the answer is "unknown". ``level`` is the chance of a false "more" for a network
    that learned nothing, in a one-sided test.
    """
    spread = split.within_std
    if split.samples < 2 or split.channels < 2:
        few = "one sample" if split.samples < 2 else "one channel"
        return Verdict("unknown", np.nan, f"cannot be decided from {few}")
    if spread < STEADY or np.isnan(split.ratio):
        return Verdict(
            "constant",
            np.nan,
            f"β hardly varies between samples (standard deviation {spread:.2g} per channel)",
        )
    if null is None:
        return Verdict(
            "unknown",
            np.nan,
            f"β varies between samples (standard deviation {spread:.2g} per channel); whether more "
            "than BatchNorm alone would make it is unknown without the pooled inputs",
        )
    p_value = null.p_value("ratio")
    below = float((null.draws["ratio"] <= null.observed["ratio"]).mean())
    answer: Answer = "more" if p_value <= level else "no more"
    if below * len(null.draws) + 1 <= level * (len(null.draws) + 1):
        answer = "less"
    what = "BatchNorm alone" if null.kind == "batchnorm" else "an untrained β network"
    low, high = null.draws["ratio"].quantile([0.05, 0.95])
    text = (
        f"the samples' means of β vary {answer} than {what} would make them: "
        f"{null.observed['ratio']:.3g} times as much as those of independent channels; "
        f"{low:.3g} to {high:.3g} times in {counted(len(null.draws), 'network')} with redrawn β "
        f"weights (p = {p_value:.2g})"
    )
    return Verdict(answer, p_value, text)


class Overall(NamedTuple):
    """What the verdicts of all layers come to.

    Attributes
    ----------
    answer : {"Yes", "No", "No sign of it", "Not clearly", "Unknown"}
        Whether the network learned to set β by sample: "No" only where β is constant. The samples'
        means of β are tested, not patterns that leave them as they are.
    text : str
        Why, in one sentence.
    """

    answer: Literal["Yes", "No", "No sign of it", "Not clearly", "Unknown"]
    text: str


def overall(verdicts: Mapping[str, Verdict], *, level: float = 0.05) -> Overall:
    """Sum up the verdicts of a network's layers, by name, in one sentence.

    ``level`` is that of the verdicts, the share of layers that are "more" by chance: the answer is
    "Yes" only if a binomial count of that size has a chance of at most the level (as if layers were
    independent).
    """
    tested = {name: v for name, v in verdicts.items() if v.answer in {"more", "no more", "less"}}
    constant = [name for name, v in verdicts.items() if v.answer == "constant"]
    if not tested:
        if constant and len(constant) == len(verdicts):
            where = f"any of {len(constant)} layers" if len(constant) > 1 else "its one layer"
            return Overall("No", f"β hardly varies between samples in {where}")
        text = "β cannot be compared with random weights: too few samples, or no pooled inputs"
        return Overall("Unknown", text)
    found = [name for name, v in tested.items() if v.answer == "more"]
    total = counted(len(tested), "layer")
    still = f"; in {len(constant)} more it hardly varies" if constant else ""
    if not found:
        where = f"in each of {total}" if len(tested) > 1 else "in the one layer tested"
        text = f"the samples' means of β vary no more than with random weights {where}{still}"
        return Overall("No sign of it", text)
    which = f"{len(found)} of {total} ({listed(found, MOST_NAMED)})"
    text = f"the samples' means of β vary more than with random weights in {which}"
    # P(X >= k) for X binomial, n and level
    if betainc(len(found), len(tested) - len(found) + 1, level) > level:
        return Overall("Not clearly", f"{text}, but chance alone brings as many{still}")
    return Overall("Yes", text + still)


def overall_of(splits: pd.DataFrame, names: Names | None = None) -> Overall | None:
    """Sum up `Run.variance_split`; None for a network without β per sample."""
    found = {
        name: Verdict(row["answer"], row["p_value"], row["text"])
        for name, row in zip(row_names(splits, names), splits.to_dict("records"), strict=True)
    }
    return overall(found) if found else None


def verdict_text(splits: pd.DataFrame) -> str:
    """Return the sentence of `overall_of`; empty for a network without β per sample."""
    found = overall_of(splits)
    return found.text if found else ""


@dataclass(frozen=True)
class LayerSplit:
    """How β of one layer varies.

    Attributes
    ----------
    layer, call : str, int
        The layer.
    split : VarianceSplit
        Into samples, channels and the rest.
    effect : LabelEffect
        Of the classes on the samples' means.
    """

    layer: str
    call: int
    split: VarianceSplit
    effect: LabelEffect

    @classmethod
    def of(cls, beta: BetaMatrix, labels: npt.ArrayLike, seed: int) -> "LayerSplit":
        """Split β of a layer, (N, C), finite and not empty.

        ``labels`` (N,) are classes of the samples; None, NaN and empty strings are left out. The
        seed is that of their permutation test.
        """
        effect = label_effect(beta.sample_means, labels, seed=seed)
        return cls(beta.layer, beta.call, variance_split(beta.values), effect)

    def row(self, null: EmpiricalNull | None) -> dict[str, Any]:
        """Return `columns.SPLIT_COLUMNS`, compared with a null where there is one."""
        said = verdict(self.split, null)
        return {
            "layer": self.layer,
            "call": self.call,
            **{name: getattr(self.split, name) for name in _OF_SPLIT},
            **_null_columns(null),
            "eta2": self.effect.eta2,
            "eta2_expected": self.effect.expected,
            "eta2_p": self.effect.p_value,
            "answer": said.answer,
            "text": said.text,
        }


def _null_columns(null: EmpiricalNull | None) -> dict[str, Any]:
    """Return what a split says of its null; NaN and an empty text without one."""
    if null is None:
        empty = ("null_p05", "null_median", "null_p95", "p_value", "ks", "ks_null")
        return dict.fromkeys(empty, np.nan) | {"null": ""}
    low, middle, high = null.draws["ratio"].quantile([0.05, 0.5, 0.95])
    return {
        "null_p05": low,
        "null_median": middle,
        "null_p95": high,
        "p_value": null.p_value("ratio"),
        "ks": null.observed["ks"],
        "ks_null": null.draws["ks"].median(),
        "null": null.kind,
    }
