"""Test accuracies of networks that differ in the activation alone, with intervals over seeds."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from acon_analysis.errors import UsageError
from acon_analysis.studies.trial_tables import summarize_trials
from acon_figures.names import plain
from acon_figures.palette import activation_color
from acon_figures.style import COLORS, AconFigure, is_narrow, new_figure, theme

#: Accuracies further below the best than this are written, not drawn.
FAR = 0.25


def trial_accuracies(
    trials: Mapping[str, pd.DataFrame], *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw the test accuracy of each activation at its best learning rate, one panel a table.

    Parameters
    ----------
    trials : mapping of str to pandas.DataFrame
        Title to a table of `acon_analysis.studies.activation_trials.train_trials`.
    width : {"single", "double"} or float
        Panels side by side or one below the other.
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
    if not trials:
        raise UsageError("there is no table to draw")
    rows = max(table["activation"].nunique() for table in trials.values())
    with theme(context):
        narrow = is_narrow(width)
        shape = (len(trials), 1) if narrow else (1, len(trials))
        figure = new_figure(width, (0.19 * rows + 0.75) * shape[0], context)
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
    names = [str(name) for name in summary["activation"]]
    for index, (mean, low, high) in enumerate(summary[["mean", "low", "high"]].to_numpy()):
        if shown.iloc[index]:
            axes.errorbar(
                [mean], [index], xerr=[[mean - low], [high - mean]], marker="o",
                color=activation_color(names[index]), capsize=2.0, linestyle="none",
            )  # fmt: skip
    left, right = axes.get_xlim()
    for index, mean in enumerate(summary["mean"]):
        if not shown.iloc[index]:
            axes.text(left, index, f" ← {mean:.2f}", va="center", color=COLORS["red"])
    axes.set_yticks(range(len(summary)), [plain(name) for name in summary["activation"]])
    axes.set_ylim(len(summary) - 0.5, -0.5)
    axes.set_xlim(left, min(right, 1.0))
