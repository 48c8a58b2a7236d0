"""Mean and variance through 50 layers with SELU, ELU and ReLU."""

from functools import cache

import numpy as np
import pandas as pd

from acon_analysis.studies.experiments import signal_bands, signal_through_layers
from acon_figures.labels import letters
from acon_figures.palette import activation_looks
from acon_figures.spec import figure
from acon_figures.style import AconFigure, is_narrow, new_figure, theme

CAPTION = (
    "Mean and variance of the activations through {layers} dense layers of 128 units with LeCun's "
    "initialisation, input N(0, 1), 128 samples; median and range of {seeds} seeds. SELU keeps "
    "both near 0 and 1; with ELU the signal fades, with ReLU its variance halves in every layer."
)


@cache
def _measured() -> pd.DataFrame:
    return signal_through_layers()


@figure(kind="measured", order=150)
def selu_self_normalisation(
    signals: pd.DataFrame | None = None, *, width: str | float = "double", context: str = "paper"
) -> AconFigure:
    """Draw mean and variance of the activations of SELU, ELU and ReLU networks over depth.

    Parameters
    ----------
    signals : pandas.DataFrame, optional
        What `studies.experiments.signal_through_layers` returns; by default measured anew
        (50 layers, three seeds).

    Returns
    -------
    AconFigure
        Axes of the mean and of the variance (logarithmic); one line an activation, its band a
        collection.

    References
    ----------
    Klambauer, Unterthiner, Mayr and Hochreiter, Self-Normalizing Neural Networks, NIPS 2017,
    arXiv:1706.02515.
    """
    measured = _measured() if signals is None else signals
    bands = signal_bands(measured)
    names = [str(name) for name in bands["activation"].unique()]
    styles = dict(zip(names, activation_looks(names), strict=True))
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 4.4 if narrow else 2.4, context)
        panels = figure.subplots(*((2, 1) if narrow else (1, 2)))
        for axes, quantity in zip(panels, ("mean", "variance"), strict=True):
            for name, look in styles.items():
                color, style = look["color"], look["linestyle"]
                rows = bands[(bands["quantity"] == quantity) & (bands["activation"] == name)]
                axes.fill_between(
                    rows["layer"], rows["low"], rows["high"], color=color, alpha=0.25, linewidth=0.0
                )
                axes.plot(rows["layer"], rows["middle"], color=color, linestyle=style, label=name)
            axes.set_xlabel("layer")
            axes.set_ylabel(quantity)
            axes.set_xlim(0.0, float(bands["layer"].max()))
        panels[1].set_yscale("log")
        panels[1].set_yticks(10.0 ** np.arange(-15, 4, 3))
        panels[1].minorticks_off()
        letters(panels, ("mean of the activations", "their variance"))
        panels[0].legend(loc="upper right")
    seeds = measured["seed"].nunique()
    figure.caption = CAPTION.format(layers=int(bands["layer"].max()), seeds=seeds)
    return figure
