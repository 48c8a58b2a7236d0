"""Which measure predicts the damage of replacing a channel by a straight line."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.errors import AconError
from acon_analysis.screen import counted
from acon_analysis.selection import choose_network, require_columns
from acon_analysis.studies.replacement_ranks import rank_correlations
from acon_figures.spec import figure
from acon_figures.style import COLORS, AconFigure, is_narrow, new_figure, theme, thin

#: Measures drawn by default, and what their axes say.
MEASURES = {
    "first_order": "first-order",
    "s_c": "share $s_c$",
    "nonlinearity": "$1 - L$",
    "abs_beta": "mean $|β|$",
}

CAPTION = (
    "Each point is a channel of an activation layer, replaced alone by its least squares line. "
    "Measures come from the training split, the change of the logits (norm of the difference over "
    "the norm, mean over images) from the test split. ρ: Spearman's correlation within layers, "
    "mean over layers and seeds. Network: {network}; {units}, {seeds}."
)


@figure(kind="measured", needs=("damage",), order=260)
def replacement_damage(
    damage: pd.DataFrame,
    network: str | None = None,
    measures: Mapping[str, str] | None = None,
    *,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw measures of nonlinearity against the measured damage, one panel a measure.

    The reading: where the points climb along a line, the measure says which channel can be
    replaced; a cloud says nothing.

    Parameters
    ----------
    damage : pandas.DataFrame
        Columns ``network``, ``seed``, ``layer``, ``call``, ``damage`` and the measures; one row
        a replaced channel, as ``benchmarks/replacement.py`` writes it.
    network : str, optional
        By default the first in the frame.
    measures : mapping of str to str, optional
        Columns to draw, and what their axes say; by default `MEASURES`.

    Returns
    -------
    AconFigure
        One axes a measure, with one collection of points.

    Raises
    ------
    UsageError
        For an unknown network.
    AconError
        If a column is missing, or no channel was replaced.
    """
    labels = dict(MEASURES if measures is None else measures)
    require_columns(damage, ["network", "seed", "layer", "call", "damage", *labels], "the damage")
    if damage.empty:
        raise AconError("the frame holds no replaced channel")
    own = choose_network(damage, network)
    ranks = rank_correlations(own, list(labels))
    means = ranks.groupby(["measure", "seed"])["spearman"].mean().groupby("measure").mean()
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 3.6 if narrow else 2.0, context)
        columns = min(2 if narrow else 4, len(labels))
        rows = -(-len(labels) // columns)
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, (name, label) in zip(panels.ravel(), labels.items(), strict=False):
            _draw(axes, own, name)
            axes.set_xlabel(label)
            axes.set_title(f"ρ = {means[name]:.2f}" if np.isfinite(means[name]) else "ρ: none")
        for axes in panels.ravel()[len(labels) :]:
            axes.set_axis_off()
        for axes in panels[:, 0]:
            axes.set_ylabel("change of the logits")
    count = own["seed"].nunique()
    figure.name(
        f"{own['network'].iloc[0]}: {counted(len(own), 'channel')}, {counted(count, 'seed')}"
    )
    figure.caption = CAPTION.format(
        network=own["network"].iloc[0],
        units=counted(len(own), "channel"),
        seeds=counted(count, "seed"),
    )
    return figure


def _draw(axes: Axes, own: pd.DataFrame, name: str) -> None:
    """Scatter one measure on logarithmic axes; what is not positive is left out."""
    shown = own[(own[name] > 0) & (own["damage"] > 0)]
    axes.scatter(
        shown[name], shown["damage"], s=thin(1.5) ** 2, color=COLORS["blue"], alpha=0.35,
        linewidths=0, rasterized=True,
    )  # fmt: skip
    if len(shown):
        axes.set_xscale("log")
        axes.set_yscale("log")
        _decades(axes, shown[name])
    else:
        axes.set_xticks([])


def _decades(axes: Axes, values: "pd.Series[float]") -> None:
    """Put ticks at whole decades, so few that their labels do not touch."""
    low = int(np.floor(np.log10(float(values.min()))))
    high = int(np.ceil(np.log10(float(values.max()))))
    axes.set_xlim(10.0**low, 10.0**high)
    step = max(1, -(-(high - low) // 3))
    axes.set_xticks([10.0**power for power in range(low, high + 1, step)])
    axes.minorticks_off()
