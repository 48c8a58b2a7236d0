"""The null model of β: how much of its spread over samples was learned.

Three questions, from weak to strong; the parts live in modules of their own:

- How far is a channel's β from the logit-normal that bn2's weight and bias impose
  (`logitnormal.null_table`)?
- How much of the variance of β belongs to whole samples (`variance.variance_split`), and how much
  of that does the label explain (`variance.label_effect`)?
- Is that more than the same layer shows on the same inputs with redrawn weights
  (`redraw.empirical_null`), in words (`verdicts.verdict`, `verdicts.overall`)?
"""

from acon_analysis.gaussian import logit_normal_moments
from acon_analysis.logitnormal import (
    NULL_COLUMNS,
    expected_distance,
    ks_distance,
    logit_normal_cdf,
    logit_normal_pdf,
    null_table,
)
from acon_analysis.redraw import BetaNetwork, EmpiricalNull, empirical_null, redraw_beta
from acon_analysis.variance import LabelEffect, VarianceSplit, label_effect, variance_split
from acon_analysis.verdicts import Verdict, overall, verdict

__all__ = [
    "NULL_COLUMNS",
    "BetaNetwork",
    "EmpiricalNull",
    "LabelEffect",
    "VarianceSplit",
    "Verdict",
    "empirical_null",
    "expected_distance",
    "ks_distance",
    "label_effect",
    "logit_normal_cdf",
    "logit_normal_moments",
    "logit_normal_pdf",
    "null_table",
    "overall",
    "redraw_beta",
    "variance_split",
    "verdict",
]
