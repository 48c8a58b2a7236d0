"""β of every sample and channel of one layer, ordered by clustering, with classes."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from acon_analysis.screen import counted
from acon_analysis.statistics.beta_clusters import label_purity, ordered_betas
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_figures.names import shortened
from acon_figures.spec import figure
from acon_figures.style import FAINT, INK, AconFigure, is_narrow, new_figure, theme, thin

MOST_CLASSES = 20
"""With more classes their columns are left out."""

CAPTION = (
    "β of layer {layer}: {samples} (rows) by {channels} (columns), both ordered "
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
    groups of samples that switch groups of channels. Classes in blocks prove no learning: β
    networks with random weights sort classes, too.

    Parameters
    ----------
    frame : BetaMatrix or pandas.DataFrame
        β of one layer, from `Run.beta`; or a frame with the columns ``sample``, ``layer``,
        ``channel``, ``beta`` (and ``call``).
    layer : str, optional
        By default the last layer in the frame's order.
    samples : int
        At most N, drawn by `seed`.
    seed : int or numpy.random.Generator
        Chooses the samples.
    labels : pandas.Series, optional
        Class of each sample, by sample; at most 20 classes are drawn, a column each.
    call : int, optional
        Which use of the layer, by default the last.

    Returns
    -------
    AconFigure
        The map is the image of ``axes[0]``; where there are labels, that of ``axes[1]`` has a
        column a class, 1 where a sample is of it; last the colour bar.

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
            axes, strip = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
            _draw_classes(strip, names, letters=10 if narrow else 14)
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
    figure.name(f"layer {ordered.name}")
    figure.caption = _caption(ordered, names)
    return figure


def _names(ordered: BetaMatrix, labels: "pd.Series[Any]") -> list[str] | None:
    found = labels.reindex(ordered.sample_ids)
    if found.isna().any() or found.nunique() > MOST_CLASSES:
        return None
    return [str(name) for name in found]


def _draw_classes(axes: Axes, names: list[str], letters: int) -> None:
    """Draw a column a class, dark where a sample is of it."""
    classes = sorted(set(names))
    of = np.array([[name == one for one in classes] for name in names], dtype=np.float64)
    shades = ListedColormap([FAINT, INK])
    axes.imshow(of, cmap=shades, vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
    words = [shortened(name, letters) for name in classes]
    turned = max(map(len, words)) > 1
    axes.set_xticks(range(len(classes)), words, size="small", rotation=90.0 if turned else 0.0)
    axes.tick_params(axis="y", left=False, labelleft=False)
    for index in range(1, len(classes)):
        axes.axvline(index - 0.5, color="white", linewidth=thin(0.8))
    axes.grid(visible=False)
    axes.set_title("class")


def _caption(ordered: BetaMatrix, names: list[str] | None) -> str:
    rows, columns = ordered.values.shape
    text = CAPTION.format(
        layer=ordered.name, samples=counted(rows, "sample"), channels=counted(columns, "channel")
    )
    if names is None or rows < 2:
        return text
    observed = label_purity(names)
    return (
        f"{text} Next to it a column a class, dark where a sample is of it. Neighbouring samples "
        f"have the same class in {100 * observed:.0f} % of cases, which proves no learning: β "
        "networks with random weights sort classes, too."
    )
