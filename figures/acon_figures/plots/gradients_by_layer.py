"""How the gradient shrinks or grows through untrained networks, activation by activation."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from acon_analysis.errors import UsageError
from acon_figures.names import entry, plain
from acon_figures.palette import activation_looks
from acon_figures.style import AconFigure, is_narrow, new_figure, theme

_MOST = 8


def gradients_by_layer(
    tables: Mapping[str, pd.DataFrame], *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw how large the gradient is at each layer of untrained networks, one panel a table.

    Parameters
    ----------
    tables : mapping of str to pandas.DataFrame
        Title to a table of `acon_analysis.studies.activation_trials.start_signals`.
    width : {"single", "double"} or float
        Panels side by side or one below the other.
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
            for name, look in zip(names, activation_looks(names), strict=True):
                own = table[table["activation"] == name]
                logs = own.assign(log=np.log(own["gradient"].clip(lower=1e-300)))
                curve = np.exp(logs.groupby("layer")["log"].mean())
                axes.plot(curve.index, curve, **look | {"marker": "o", "label": entry(name)})
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


def _names(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    if not tables:
        raise UsageError("there is no table to draw")
    names = list(dict.fromkeys(name for table in tables.values() for name in table["activation"]))
    if len(names) > _MOST:
        raise UsageError(f"at most {_MOST} activations can be distinguished; got {len(names)}")
    return names
