"""One channel at the images where it is straightest and where it bends most."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.gridspec import SubplotSpec

from acon_analysis.errors import AconError
from acon_analysis.plotdata.sample_extremes import Extremes
from acon_analysis.plotdata.sample_extremes import sample_extremes as find_extremes
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_figures.names import plain
from acon_figures.spec import figure
from acon_figures.style import COLORS, AconFigure, is_narrow, new_figure, theme, thin

Array = npt.NDArray[Any]

SIDES = {"straight": ("straightest", "blue"), "bent": ("most bent", "red")}
"""What the sides are called, and their colour."""

LONGEST = 11
"""Letters of a name above a picture."""

CAPTION = (
    "Channel {channel} of layer {layer} of {network}: the same channel, p1 = {p1:.2f} and "
    "p2 = {p2:.2f}, as it is for the samples with the least |β| (blue, dashed: samples {straight}) "
    "and for those with the greatest (red: samples {bent}). Drawn within three standard deviations "
    "(grey: one) of its mean input over all samples. p1 and p2 being the same, the channel bends "
    "the more the greater |β| is. Over all samples, the middle 90 % of β lie between {low:.2f} and "
    "{high:.2f}.{pictures}"
)

PICTURES = (
    " Each picture over its own range. If one side's are of one class, that proves no learning: "
    "untrained β networks sort classes, too."
)


@figure(
    kind="measured",
    heading="One channel where it is straightest, and where it bends most",
    needs=("own_channels", "frame"),
    options=("images", "labels"),
    order=230,
)
def sample_extremes(
    own_channels: pd.DataFrame,
    frame: BetaMatrix | pd.DataFrame,
    layer: str | None = None,
    channel: int | None = None,
    count: int = 4,
    *,
    images: Mapping[int, npt.ArrayLike] | None = None,
    labels: Mapping[int, object] | None = None,
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw one channel's function at the samples of least and greatest β, with their images.

    The reading: whether the same channel is a straight line for some images and a bent one for
    others, and which images these are.

    Parameters
    ----------
    own_channels : pandas.DataFrame
        From `acon_analysis.plotdata.channels.channel_facts`, of the network of `frame`.
    frame : BetaMatrix or pandas.DataFrame
        β of one layer, from `Run.beta`; or a frame with the columns ``sample``, ``layer``,
        ``channel``, ``beta`` (and ``call``).
    layer : str, optional
        By default the last layer in the frame's order.
    channel : int, optional
        By default the one whose function β changes most.
    count : int
        Samples a side.
    images : mapping of int to array_like, optional
        Picture of a sample: (H, W) or (1, H, W), grey; (H, W, 3) or (3, H, W), red first. Each is
        shown over its own range. A sample without one is drawn without.
    labels : mapping of int to object, optional
        A name for a sample, such as its class; also a pandas Series.

    Returns
    -------
    AconFigure
        ``axes[0].lines``: the function at each sample, straightest first, then most bent first;
        then one axes a sample, in that order, where there are images.

    Raises
    ------
    UsageError, AconError
        As `plotdata.sample_extremes.sample_extremes`; an AconError for an array that is no picture.
    """
    found = find_extremes(own_channels, frame, layer, channel, count)
    pictures = _pictures(found, images)
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 4.6 if narrow and pictures else 2.7, context)
        if pictures:
            if narrow:
                grid = figure.add_gridspec(2, 1, height_ratios=[1.25, 1.0])
            else:
                grid = figure.add_gridspec(1, 2, width_ratios=[1.0, 1.6])
            main = figure.add_subplot(grid[0])
            _draw_pictures(figure, grid[1], found, pictures, labels)
        else:
            main = figure.add_subplot()
        _draw_curves(main, found)
    figure.name(f"{found.facts['name']}, channel {found.facts['channel']}")
    figure.caption = _caption(found, bool(pictures))
    return figure


def _pictures(found: Extremes, images: Mapping[int, npt.ArrayLike] | None) -> dict[int, Array]:
    """Return the pictures that there are, by the sample's index, as (H, W) or (H, W, 3)."""
    if images is None:
        return {}
    pictures = {}
    for index, sample in enumerate(found.samples["sample"]):
        if sample in images:
            try:
                image = np.asarray(images[sample], dtype=np.float64)
            except KeyError:  # listed, but gone
                continue
            pictures[index] = _checked(image, sample)
    return pictures


def _checked(image: Array, sample: int) -> Array:
    if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] != 3:
        image = image.transpose(1, 2, 0)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or not image.size:
        raise AconError(f"the image of sample {sample} has the shape {image.shape}")
    low, high = float(image.min()), float(image.max())
    return np.asarray((image - low) / ((high - low) or 1.0))


def _draw_curves(axes: Axes, found: Extremes) -> None:
    facts = found.facts
    named: set[str] = set()
    for one in found.samples.to_dict("records"):
        own = found.curves[found.curves["sample"] == one["sample"]]
        words, color = SIDES[one["side"]]
        axes.plot(
            own["x"], own["y"], color=COLORS[color],
            linestyle=(0, (5, 1.5)) if one["side"] == "straight" else "solid",
            label=f"_{one['sample']}" if words in named else words,
        )  # fmt: skip
        named.add(words)
    mean, std = float(facts["mean_x"]), float(facts["std_x"])
    axes.axvspan(mean - std, mean + std, color=COLORS["grey"], alpha=0.15, linewidth=0.0)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.22 * (high - low))
    axes.legend(loc="upper center", ncols=2, columnspacing=1.2)
    axes.set_xlabel("input")
    axes.set_ylabel("output")


def _draw_pictures(
    figure: AconFigure,
    cell: SubplotSpec,
    found: Extremes,
    pictures: Mapping[int, Array],
    labels: Mapping[int, object] | None,
) -> None:
    """Draw the pictures of each side in a row, framed in the side's colour."""
    counts = found.samples["side"].value_counts()
    grid = cell.subgridspec(2, int(counts.max()))
    for position, one in enumerate(found.samples.to_dict("records")):
        row, column = divmod(position, int(counts.max()))
        axes = figure.add_subplot(grid[row, column])
        _draw_picture(axes, pictures.get(position))
        words, color = SIDES[one["side"]]
        for spine in axes.spines.values():
            spine.set(color=COLORS[color], linewidth=thin(1.3))
        name = f"sample {one['sample']}"
        if labels is not None and one["sample"] in labels:
            name = str(labels[one["sample"]])
        name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        axes.set_title(f"{plain(name)}\nβ = {one['beta']:.2f}", size="small")
        if column == 0:
            axes.set_ylabel(words, color=COLORS[color])


def _draw_picture(axes: Axes, image: Array | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    if image is None:
        axes.set_box_aspect(1.0)
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center")
        return
    look: dict[str, Any] = {"cmap": "gray", "vmin": 0.0, "vmax": 1.0} if image.ndim == 2 else {}
    axes.imshow(image, interpolation="nearest", **look)


def _caption(found: Extremes, pictures: bool) -> str:
    facts = found.facts
    listed = {
        side: ", ".join(str(sample) for sample in own["sample"])
        for side, own in found.samples.groupby("side")
    }
    return CAPTION.format(
        channel=facts["channel"], layer=facts["name"], network=facts["network"], p1=facts["p1"],
        p2=facts["p2"], low=facts["beta_low"], high=facts["beta_high"],
        straight=listed["straight"], bent=listed["bent"],
        pictures=PICTURES if pictures else "",
    )  # fmt: skip
