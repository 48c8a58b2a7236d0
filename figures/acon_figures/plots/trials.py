"""Trials of activations: gradients through untrained networks, accuracies of trained ones."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.errors import UsageError
from acon_analysis.trial_tables import summarize_trials
from acon_figures.names import entry, plain
from acon_figures.style import COLORS, DASHES, AconFigure, is_narrow, new_figure, theme

#: Accuracies further below the best than this are written, not drawn.
FAR = 0.25

_ORDER = ("blue", "orange", "green", "red", "purple", "brown", "grey", "sky")


def gradients_by_layer(
    tables: Mapping[str, pd.DataFrame], *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw how large the gradient is at each layer of untrained networks, one panel a table.

    Parameters
    ----------
    tables : mapping of str to pandas.DataFrame
        Title to a table of `acon_analysis.activation_trials.start_signals`.
    width : {"single", "double"} or float
        Panels beside or below one another.
    context : {"paper", "talk"}

    Returns
    -------
    AconFigure
        One axes a table, one line an activation: the geometric mean over seeds.

    Raises
    ------
    UsageError
        Without a table, or with more than eight activations.
    """
    names = _names(tables)
    with theme(context):
        narrow = is_narrow(width)
        shape = (len(tables), 1) if narrow else (1, len(tables))
        figure = new_figure(width, 2.3 * shape[0] + 0.5, context)
        grid = figure.subplots(*shape, squeeze=False, sharey=True)
        for axes, (title, table) in zip(grid.flat, tables.items(), strict=True):
            for place, name in enumerate(names):
                own = table[table["activation"] == name]
                logs = own.assign(log=np.log(own["gradient"].clip(lower=1e-300)))
                curve = np.exp(logs.groupby("layer")["log"].mean())
                axes.plot(
                    curve.index, curve, marker="o", color=COLORS[_ORDER[place]],
                    linestyle=DASHES[place % len(DASHES)], label=entry(name),
                )  # fmt: skip
            axes.set_yscale("log")
            axes.set_title(plain(title))
            axes.set_xlabel("hidden layer")
        grid[0, 0].set_ylabel("size of the gradient")
        figure.legend(
            *grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names)
        )
    figure.caption = (
        "Root mean square of the derivative of the loss by what each hidden layer's activation "
        "receives, in untrained networks; geometric mean over seeds, logarithmic scale."
    )
    return figure


def trial_accuracies(
    trials: Mapping[str, pd.DataFrame], *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw the test accuracy of each activation at its best learning rate, one panel a table.

    Parameters
    ----------
    trials : mapping of str to pandas.DataFrame
        Title to a table of `acon_analysis.activation_trials.train_trials`.
    width : {"single", "double"} or float
        Panels beside or below one another.
    context : {"paper", "talk"}

    Returns
    -------
    AconFigure
        One axes a table; one container of an error bar an activation, in the order of the table
        from above, its 95 % interval over seeds.

    Raises
    ------
    UsageError
        Without a table.
    """
    names = _names(trials, most=99)
    with theme(context):
        narrow = is_narrow(width)
        shape = (len(trials), 1) if narrow else (1, len(trials))
        figure = new_figure(width, (0.19 * len(names) + 0.75) * shape[0], context)
        grid = figure.subplots(*shape, squeeze=False, sharey=not narrow)
        for axes, (title, table) in zip(grid.flat, trials.items(), strict=True):
            _accuracies(axes, summarize_trials(table))
            axes.set_title(plain(title))
            axes.set_xlabel("test accuracy")
        seeds = [table["seed"].nunique() for table in trials.values()]
    figure.caption = (
        "Test accuracy of networks that differ in the activation alone, each at the learning rate "
        f"with the best validation accuracy; mean and 95 % interval over seeds ({min(seeds)} to "
        f"{max(seeds)}). Red: accuracies too far below the best to be drawn."
    )
    return figure


def _accuracies(axes: Axes, summary: pd.DataFrame) -> None:
    """Draw means and intervals; a mean far below the best is written at the left edge."""
    shown = summary["mean"] >= summary["mean"].max() - FAR
    for place, (mean, low, high) in enumerate(summary[["mean", "low", "high"]].to_numpy()):
        if shown.iloc[place]:
            axes.errorbar(
                [mean], [place], xerr=[[mean - low], [high - mean]], marker="o",
                color=COLORS["blue"], capsize=2.0, linestyle="none",
            )  # fmt: skip
    left, right = axes.get_xlim()
    for place, mean in enumerate(summary["mean"]):
        if not shown.iloc[place]:
            axes.text(left, place, f" ← {mean:.2f}", va="center", color=COLORS["red"])
    axes.set_yticks(range(len(summary)), [plain(name) for name in summary["activation"]])
    axes.set_ylim(len(summary) - 0.5, -0.5)
    axes.set_xlim(left, min(right, 1.0))


def _names(tables: Mapping[str, pd.DataFrame], most: int = len(_ORDER)) -> list[str]:
    if not tables:
        raise UsageError("there is no table to draw")
    names = list(dict.fromkeys(name for table in tables.values() for name in table["activation"]))
    if len(names) > most:
        raise UsageError(f"at most {most} activations can be told apart; got {len(names)}")
    return names
