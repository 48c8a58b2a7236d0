"""β of every sample and channel of one layer, ordered by clustering, with classes."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from acon_analysis.statistics.beta_clusters import OrderedBetas, label_purity, ordered_betas
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_figures.names import entry
from acon_figures.spec import figure
from acon_figures.style import COLORS, AconFigure, is_narrow, new_figure, theme

CLASS_COLORS = tuple(COLORS.values())
"""One a class; with more classes the strip is left out."""

CAPTION = (
    "β of layer {layer}: {samples} samples (rows) by {channels} channels (columns), both ordered "
    "by clustering (Ward, Euclidean distances of β), so that what is alike lies side by side."
)


@figure(
    kind="measured",
    heading="β of every sample and channel",
    needs=("frame",),
    options=("labels",),
    order=190,
)
def beta_heatmap(
    frame: BetaMatrix | pd.DataFrame,
    layer: str | None = None,
    samples: int = 1000,
    seed: int | np.random.Generator = 0,
    *,
    labels: "pd.Series[Any] | None" = None,
    call: int | None = None,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw β as a map of samples and channels in the order of a clustering.

    The reading: rows of one colour across are samples with a level of their own; blocks are
    groups of samples that switch groups of channels; a strip sorted by class says that classes do.

    Parameters
    ----------
    frame : BetaMatrix or pandas.DataFrame
        β of one layer, from `Run.beta`; or a frame with the columns ``sample``, ``layer``,
        ``channel``, ``beta`` (and ``call``).
    layer : str, optional
        By default the last layer in the frame's order.
    samples : int
        At most so many, drawn by `seed`.
    seed : int or numpy.random.Generator
        Chooses the samples.
    labels : pandas.Series, optional
        Class of each sample, by sample; with at most ten classes drawn as a strip.
    call : int, optional
        Which use of the layer, by default the last.
    width : {"single", "double"} or float
        3.25, 6.75 or any number of inches.
    context : {"paper", "talk"}

    Returns
    -------
    AconFigure
        The map is the image of ``axes[0]``; the strip, where there are labels, that of
        ``axes[1]``; last the colour bar.

    Raises
    ------
    UsageError, AconError
        As `acon_analysis.statistics.beta_clusters.ordered_betas`.
    """
    ordered = ordered_betas(frame, layer, samples, seed, call)
    names = None if labels is None else _names(ordered, labels)
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 4.0 if narrow else 3.6, context)
        if names is None:
            axes = figure.add_subplot()
        else:
            axes, strip = figure.subplots(1, 2, sharey=True, width_ratios=[24, 1])
            classes = sorted(set(names))
            _draw_strip(strip, names, classes)
            handles = [
                Patch(facecolor=color, label=entry(text))
                for text, color in zip(classes, CLASS_COLORS, strict=False)
            ]
            place: Any = "outside lower center" if narrow else "outside right upper"
            figure.legend(
                handles=handles, loc=place, ncols=_columns(classes) if narrow else 1, title="class"
            )
        image = axes.imshow(
            ordered.values, cmap="cividis", vmin=0.0, vmax=max(1.0, float(ordered.values.max())),
            aspect="auto", interpolation="nearest",
        )  # fmt: skip
        axes.grid(visible=False)
        axes.set_xlabel("channel, ordered")
        axes.set_ylabel("sample, ordered")
        bar = figure.colorbar(
            image, ax=axes, location="top" if narrow else "left", label="β", fraction=0.05, pad=0.02
        )
        bar.ax.grid(visible=False)
    figure.caption = _caption(ordered, names)
    return figure


def _columns(classes: list[str]) -> int:
    """Return how many columns of a legend fit below a narrow figure."""
    longest = max(len(name) for name in classes)
    return 5 if longest <= 3 else 4 if longest <= 5 else 3 if longest <= 10 else 2


def _names(ordered: OrderedBetas, labels: "pd.Series[Any]") -> list[str] | None:
    found = labels.reindex(ordered.samples)
    if found.isna().any() or found.nunique() > len(CLASS_COLORS):
        return None
    return [str(name) for name in found]


def _draw_strip(axes: Axes, names: list[str], classes: list[str]) -> None:
    codes = np.array([[classes.index(name)] for name in names])
    axes.imshow(
        codes, cmap=ListedColormap(CLASS_COLORS[: len(classes)]), vmin=-0.5,
        vmax=len(classes) - 0.5, aspect="auto", interpolation="nearest",
    )  # fmt: skip
    axes.set_xticks([])
    axes.tick_params(axis="y", left=False, labelleft=False)
    axes.grid(visible=False)


def _caption(ordered: OrderedBetas, names: list[str] | None) -> str:
    rows, columns = ordered.values.shape
    text = CAPTION.format(layer=ordered.layer, samples=rows, channels=columns)
    if names is None or rows < 2:
        return text
    observed, chance = label_purity(np.array(names, dtype=object))
    return (
        f"{text} Strip: classes. Neighbouring samples have the same class in {observed:.0%} of "
        f"cases; of all pairs, {chance:.0%} have."
    )
