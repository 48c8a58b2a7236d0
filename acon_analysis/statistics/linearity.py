"""The index of linearity as tables: by channel, by layer, by sample, and between two runs.

Definitions, for inputs x and outputs y of one channel (over samples and positions), with
C the sums of squared deviations:

- L = Cxy²/(Cxx·Cyy), the share of the output's variance that the best affine fit explains;
  sse = Cyy - Cxy²/Cxx; a layer's L = 1 - Σ_c sse_c / Σ_c Cyy_c.
- s_c = sse_c / Σ_c Cyy_c, a channel's share of its layer's nonlinearity: rank channels by it.
- L_own = 1 - Σ_s sse_s / Cyy >= L, one affine fit per sample against the same total; only L can
  be had by one fixed affine map. The gap exists at constant β too, so what an input-dependent β
  adds (``beta_gain``) is the gap less that of the same inputs at a constant reference β.
- G = 4·Var(σ(β·d·x)), d = p1 - p2: activate or not; κ = |β·d|·std(x), ρ = (p1 - p2)/(p1 + p2),
  ν = mean(x)/std(x).

A gated product y = a·g(x) is fitted on both factors at once: L is R² of y on (1, a, x), and
``L_gate`` that of g(x) on x alone.

No data (n = 0): NaN, cause "empty". One value: the output cannot vary, "dead". A sample with NaN or
infinity in x or y is left out of all channels of its layer, and counted (``left_out``); if that is
every sample: NaN, cause "not_finite". Constant input: L = 1 if the output is constant too,
otherwise 0. Dead output: L = 1 by convention, and flagged; dead channels add nothing to a layer or
sample, and one that has no others is dead. Standard errors and intervals come from a jackknife
over blocks of samples (`jackknife`); with fewer than two blocks they are NaN.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.columns import (
    LINEARITY_CHANNEL_COLUMNS,
    LINEARITY_LAYER_COLUMNS,
    LINEARITY_SAMPLE_COLUMNS,
    SHORT_LINEARITY,
    Column,
    dtypes,
    names,
)
from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.moments.gram import EPS32
from acon_analysis.screen import three_digits
from acon_analysis.selection import require_columns
from acon_analysis.statistics.affine_fit import Linearity, linearity
from acon_analysis.statistics.causes import LINEAR, layer_sentence
from acon_analysis.statistics.channel_sums import ChannelSums, channel_sums, gate_sums, ratio
from acon_analysis.statistics.linearity_columns import channel_values, gate_linearity, index_columns

__all__ = ["Linearity", "channel_table", "layer_table", "linearity", "sample_table"]

#: What a table of linearity can be by.
BY = ("layer", "channel", "sample")

_COUNTS = ("dead", "constant_input", "one_signed", "equal_slopes", "gate_constant")


class ShortTable(pd.DataFrame):
    """A frame of a few columns, all of which are printed, numbers with three digits."""

    @property
    def _constructor(self) -> "type[ShortTable]":
        return ShortTable

    def __repr__(self) -> str:
        text = self.to_string(max_rows=40, max_colwidth=40, float_format=three_digits, na_rep="")
        hidden = f"\n[{len(self)} rows]" if len(self) > 40 else ""
        return text + hidden


def linearity_table(
    by: str,
    layers: pd.DataFrame,
    sums: Callable[[], ChannelSums],
    totals: Callable[[], pd.DataFrame],
    *,
    confidence: float = 0.95,
    columns: str = "short",
) -> pd.DataFrame:
    """Tabulate how linear layers, channels or samples are, layers in order of execution.

    ``layers`` holds ``layer``, ``call`` and ``class_name`` in that order; ``sums`` and ``totals``
    return the sums of the channels, and `columns.TOTAL_COLUMNS` of every sample and layer.
    """
    if by not in BY:
        raise UsageError(f"linearity by {by!r}: {closest(by, BY)}")
    if columns not in ("short", "all"):
        raise UsageError(f"columns: {closest(columns, ('short', 'all'))} (given: {columns!r})")
    if by == "sample":
        table = in_order(sample_table(totals()), layers, by)
    elif by == "channel":
        table = in_order(
            channel_table(sums().of_classes(layers), confidence=confidence), layers, by
        )
    else:
        table = in_order(layer_table(sums().of_classes(layers), confidence=confidence), layers)
    return table if columns == "all" else ShortTable(table[list(SHORT_LINEARITY[by])])


def in_order(table: pd.DataFrame, layers: pd.DataFrame, *further: str) -> pd.DataFrame:
    """Sort a table as `layers`, the order of execution, then by further columns."""
    order = layers[["layer", "call"]].assign(_order=np.arange(len(layers)))
    placed = table.merge(order, on=["layer", "call"], how="left")
    placed = placed.sort_values(["_order", *further], kind="stable", ignore_index=True)
    return placed.drop(columns="_order")


def totals_by_sample(totals: pd.DataFrame | None, rows: Mapping[str, Any] | None) -> pd.DataFrame:
    """Return `columns.TOTAL_COLUMNS` of layers whose rows are samples; raise if none is left."""
    found = totals if totals is not None else pd.DataFrame()
    if not rows or rows["status"] != "mixed":
        return found
    kept = found if found.empty else found[~found["layer"].isin(rows["layers"])]
    if kept.empty:
        raise AconError(f"linearity by sample: {rows['text']}; ask by layer or by channel")
    warnings.warn(f"left out: {rows['text']}", stacklevel=4)
    return kept


def channel_table(
    moments: pd.DataFrame | ChannelSums,
    channels: pd.DataFrame | None = None,
    *,
    confidence: float = 0.95,
    eps: float = EPS32,
) -> pd.DataFrame:
    """Tabulate how linear every channel is, and why.

    Parameters
    ----------
    moments : DataFrame or ChannelSums
        Rows of moments: layer, channel, optionally call and block, and the fields of
        `acon_analysis.moments.fields`; or what `channel_sums` has made of them.
    channels : DataFrame, optional
        One row per layer and channel with p1, p2, beta, beta_reference, as far as they exist.
    confidence : float
        Of the intervals.
    eps : float
        Relative rounding of the network's arithmetic; decides which outputs are dead (in sums of
        channels that is decided).

    Returns
    -------
    DataFrame
        Columns `columns.LINEARITY_CHANNEL_COLUMNS`; layers in order of appearance. What does not
        exist for a layer (κ, ρ, G and so on outside the ACON family) is NaN.
    """
    table = channel_values(_sums(moments, channels, eps), confidence)
    return _ordered(table, LINEARITY_CHANNEL_COLUMNS)


def layer_table(
    moments: pd.DataFrame | ChannelSums,
    channels: pd.DataFrame | None = None,
    *,
    confidence: float = 0.95,
    eps: float = EPS32,
) -> pd.DataFrame:
    """Tabulate how linear every layer is.

    Parameters
    ----------
    moments, channels, confidence, eps
        As for `channel_table`.

    Returns
    -------
    DataFrame
        Columns `columns.LINEARITY_LAYER_COLUMNS`; sums over channels for L, the mean over
        channels for G and β, medians for κ and the sizes of ρ and ν, extremes for derivatives,
        counts for flags.
    """
    sums = _sums(moments, channels, eps)
    table = channel_values(sums, confidence)
    starts = sums.layer_starts
    frame = table.loc[starts, ["layer", "call", "n_samples", "left_out"]].reset_index(drop=True)
    whole, without = sums.whole.summed(starts), sums.without.summed(starts)
    frame = frame.assign(**index_columns(whole, without, sums.size[:, starts], confidence))
    frame = frame.assign(**_layer_columns(sums, table))
    frame["L_gate"] = gate_linearity(*(np.add.reduceat(s, starts) for s in gate_sums(sums)))
    ends = [*starts[1:], len(table)]
    counted = np.where(sums.total["n"] > 0, sums.field("n_samples"), np.nan)[starts]
    frame["why"] = [
        layer_sentence(
            table["cause"].iloc[a:b].tolist(),
            row["L"],
            dead=row["cyy"] == 0,
            left_out=row["left_out"],
            samples=row["n_samples"],
            L_gate=row["L_gate"],
            rowless=rowless,
            roundings=table["roundings"].iloc[a:b].max(),
        )
        for a, b, row, rowless in zip(
            starts, ends, frame.to_dict("records"), counted == 0, strict=True
        )
    ]
    return _ordered(frame, LINEARITY_LAYER_COLUMNS)


def _sums(
    moments: pd.DataFrame | ChannelSums, channels: pd.DataFrame | None, eps: float
) -> ChannelSums:
    """Return the sums of channels, computed where they are not given."""
    return moments if isinstance(moments, ChannelSums) else channel_sums(moments, channels, eps=eps)


def _layer_columns(sums: ChannelSums, table: pd.DataFrame) -> dict[str, npt.NDArray[np.generic]]:
    """Reduce the channels' columns to their layers."""
    starts = sums.layer_starts
    groups = np.repeat(np.arange(len(starts)), np.diff([*starts, len(table)]))
    columns: dict[str, npt.NDArray[np.generic]] = {}
    rules = {
        "mean": ("beta_mean",),
        "min": ("slope_min", "slope_low"),
        "max": ("slope_max", "slope_high", "s_c"),
        "median": ("kappa", "rho", "nu"),
        "sum": ("n", *_COUNTS),
    }
    absolute = table.assign(rho=table["rho"].abs(), nu=table["nu"].abs())
    for rule, of in rules.items():
        for name in of:
            columns[name] = absolute[name].groupby(groups).agg(rule).to_numpy()
    columns["s_max"] = columns.pop("s_c")
    columns["channels"] = np.bincount(groups)
    columns["linear"] = np.bincount(groups, weights=table["L"] >= LINEAR).astype(np.int64)
    values = np.add.reduceat(sums.total["n"], starts)
    positives = np.add.reduceat(sums.total["n_positive"], starts)
    columns["positive"] = positives / np.where(values > 0, values, np.nan)
    cyy = np.nan_to_num(sums.whole.cyy)
    bend = (1 - table["L_gauss"].to_numpy(dtype=np.float64)) * cyy
    bend = np.where((cyy == 0) | table["constant_input"], 0.0, bend)
    columns["L_gauss"] = 1 - ratio(np.add.reduceat(bend, starts), np.add.reduceat(cyy, starts))
    return columns


def sample_table(totals: pd.DataFrame) -> pd.DataFrame:
    """Tabulate how linear each layer is for each sample.

    Parameters
    ----------
    totals : DataFrame
        Columns `columns.TOTAL_COLUMNS`; one row per sample, layer and call.

    Returns
    -------
    DataFrame
        Columns `columns.LINEARITY_SAMPLE_COLUMNS`. L is that of the sample's own fits (L_own's, per
        sample); NaN where a sample has at most two values a channel (three of products), for the
        fit is exact there, and for samples that are left out.
    """
    frame = totals if "call" in totals.columns else totals.assign(call=0)
    needed = ("sample", "layer", "channels", "n", "cyy", "sse")
    require_columns(frame, needed, "the table of sample totals")
    number = {
        name: frame[name].to_numpy(dtype=np.float64)
        if name in frame.columns
        else np.full(len(frame), np.nan)
        for name in ("channels", "n", "cyy", "sse", "cgg", "gain", "cyy_reference", "sse_reference")
    }
    enough = number["n"] > 2 * number["channels"]
    bend = np.where(enough, ratio(number["sse"], number["cyy"]), np.nan)
    reference = np.where(enough, ratio(number["sse_reference"], number["cyy_reference"]), np.nan)
    result = frame.assign(
        L=1 - bend,
        nonlinearity=bend,
        G=4 * number["cgg"] / np.where(number["n"] > 0, number["n"], np.nan),
        kappa=number["gain"] / np.where(number["channels"] > 0, number["channels"], np.nan),
        L_reference=1 - reference,
        dead=~np.isnan(bend) & (number["cyy"] <= 0),
        left_out=np.isnan(number["cyy"]),
    )
    return _ordered(result, LINEARITY_SAMPLE_COLUMNS)


def _ordered(frame: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Return the columns of a table in order, with their dtypes."""
    return frame[names(columns)].astype(dtypes(columns)).reset_index(drop=True)
