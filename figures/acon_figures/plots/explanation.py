"""Which pixels decide β of the last layer: image, baseline, attribution, both β."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from acon_analysis.errors import AconError, UsageError
from acon_analysis.screen import counted
from acon_analysis.statistics.sentences import row_names
from acon_figures.names import folded, plain, sample_name
from acon_figures.spec import figure
from acon_figures.style import COLORS, INK, RULE, AconFigure, inches, is_narrow, new_figure, theme

#: Blue to red over white, which colour-blind readers distinguish (ColorBrewer).
COLORMAP = "RdBu_r"
MOST_ROWS = 12
METHOD_NAMES = {
    "integrated_gradients": "integrated gradients",
    "saliency": "gradient",
    "occlusion": "occlusion",
    "grad_cam": "Grad-CAM, signed",
}

Array = npt.NDArray[Any]


@figure(
    kind="measured",
    needs=("images", "baselines", "maps", "frame"),
    options=("labels",),
    bundle="explained",
    order=240,
)
def explanation(
    images: npt.ArrayLike,
    baselines: npt.ArrayLike,
    maps: npt.ArrayLike,
    frame: pd.DataFrame,
    *,
    labels: Mapping[int, object] | None = None,
    channel_order: str = "rgb",
    width: str | float = "double",
    context: str = "paper",
) -> AconFigure:
    """Draw what decides β of a layer's channel, image by image.

    Red pixels raise β above its value at the baseline (the unit bends more), blue ones lower it.
    All maps share one colour scale, symmetric about 0.

    Parameters
    ----------
    images, baselines : array_like
        (N, C, H, W): grey for C = 1, colour for C = 3, otherwise the mean over the channels.
    maps : array_like
        (N, H, W): attributions summed over the image's channels.
    frame : pandas.DataFrame
        A row an image: ``sample, layer, channel, method, baseline, beta, beta_baseline, delta``;
        the channel is missing for the mean over a layer.
    labels : mapping of int to object, optional
        A name for a sample, such as its class.
    channel_order : {"rgb", "bgr"}
        How colour images are stored.

    Returns
    -------
    AconFigure
        Axes a row: image, baseline (left out where all baselines are one plain colour), map, β; the
        colour bar is last.

    Raises
    ------
    UsageError
        If shapes disagree, columns lack, values are not finite, or there are no or more than 12
        images.
    """
    pictures, blanks, heat = _checked(images, baselines, maps, frame)
    if channel_order not in ("rgb", "bgr"):
        raise UsageError(f"channel_order must be 'rgb' or 'bgr'; not {channel_order!r}")
    count = len(frame)
    limit = float(np.abs(heat).max()) or 1.0
    narrow = is_narrow(width)
    with theme(context):
        same = bool((blanks == blanks[0]).all() and np.ptp(blanks[0]) == 0)
        column = inches(width) / (3.6 if same else 4.6)
        column *= 0.8 if same else 1.0
        tall = column * max(0.5, heat.shape[1] / heat.shape[2])
        figure = new_figure(width, tall * count + 0.75, context)
        ratios = (1, 1, 1.35) if same else (1, 1, 1, 1.35)
        grid = figure.subplots(count, len(ratios), squeeze=False, width_ratios=ratios)
        betas = frame[["beta", "beta_baseline"]].to_numpy(dtype=np.float64)
        span = _beta_limits(betas)
        shown = []
        for row, axes in enumerate(grid):
            facts = frame.iloc[row]
            _picture(axes[0], pictures[row], pictures[row], channel_order)
            if not same:
                _picture(axes[1], blanks[row], pictures[row], channel_order)
            shown.append(
                axes[-2].imshow(
                    heat[row], cmap=COLORMAP, vmin=-limit, vmax=limit, interpolation="nearest"
                )
            )
            _frame(axes[-2])
            _beta(axes[-1], betas[row], span, last=row == count - 1)
            axes[0].set_ylabel(sample_name(int(facts["sample"]), labels, "\n" if narrow else " "))
        first = frame.iloc[0]
        method = str(first["method"])
        gap = "\n" if narrow else " "
        blank = f"baseline:{gap}{plain(first['baseline'])}"
        titles = (
            "image",
            *(() if same else (blank,)),
            METHOD_NAMES.get(method, plain(method)).replace(" ", "\n" if narrow else " "),
            "β" if narrow else f"β, from {plain(first['baseline'])} to image",
        )
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title)
        figure.colorbar(
            shown[0], ax=list(grid[:, :-1].flat), location="bottom", shrink=0.8, aspect=50,
            label=folded(f"attribution to β of {_target(first)}", 26 if narrow else 60),
            ticks=MaxNLocator(2 if narrow else 5, symmetric=True),
        )  # fmt: skip
    figure.caption = _caption(frame, limit)
    return figure


def _checked(
    images: npt.ArrayLike, baselines: npt.ArrayLike, maps: npt.ArrayLike, frame: pd.DataFrame
) -> tuple[Array, Array, Array]:
    needed = ("sample", "layer", "channel", "method", "baseline", "beta", "beta_baseline", "delta")
    lacking = [name for name in needed if name not in frame]
    if lacking:
        raise UsageError(f"the frame of an explanation lacks {', '.join(lacking)}")
    pictures, blanks, heat = np.asarray(images), np.asarray(baselines), np.asarray(maps)
    if pictures.ndim != 4 or blanks.shape != pictures.shape:
        raise UsageError(
            f"images and baselines must be (N, C, H, W) both; got {pictures.shape} and "
            f"{blanks.shape}"
        )
    expected = (len(pictures), *pictures.shape[2:])
    if heat.shape != expected or len(frame) != len(pictures):
        raise UsageError(
            f"images of shape {pictures.shape} need maps {expected} and "
            f"{counted(len(pictures), 'row')}; got "
            f"{heat.shape} and {counted(len(frame), 'row')}"
        )
    if not 1 <= len(frame) <= MOST_ROWS:
        raise UsageError(f"a figure shows 1 to {MOST_ROWS} images; got {len(frame)}")
    if not np.isfinite(heat).all():
        raise AconError("the attributions hold NaN or infinite values")
    return pictures, blanks, heat


def _picture(axes: Axes, image: Array, like: Array, order: str) -> None:
    """Show an image: values in 0 to 1 as they are, others by the range of their image."""
    low, high = float(like.min()), float(like.max())
    if low >= -1e-6 and high <= 1 + 1e-6:
        low, high = 0.0, 1.0
    scaled = np.clip((image.astype(np.float64) - low) / ((high - low) or 1.0), 0.0, 1.0)
    if len(scaled) == 3:
        scaled = scaled[::-1] if order == "bgr" else scaled
        axes.imshow(scaled.transpose(1, 2, 0), interpolation="nearest")
    else:
        axes.imshow(scaled.mean(0), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    _frame(axes)


def _frame(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)


def _beta(axes: Axes, pair: Array, span: tuple[float, float], *, last: bool) -> None:
    """Draw β of the baseline (ring) and of the image (dot) on one line."""
    beta, start = float(pair[0]), float(pair[1])
    axes.set_xlim(*span)
    axes.set_ylim(-1.0, 1.0)
    axes.set_yticks([])
    axes.axhline(0.0, color=RULE, linewidth=0.7, zorder=1.5)
    color = COLORS["red"] if beta > start else COLORS["blue"]
    if abs(beta - start) > 0.08 * (span[1] - span[0]):  # shorter ones would hide in the dots
        axes.annotate(
            "", (beta, 0.0), (start, 0.0), zorder=2.5,
            arrowprops={"arrowstyle": "-|>", "color": color, "shrinkA": 2.5, "shrinkB": 2.5},
        )  # fmt: skip
    axes.plot([start], [0.0], marker="o", color=INK, markerfacecolor="white", linestyle="none")
    axes.plot([beta], [0.0], marker="o", color=color, linestyle="none")
    axes.text(0.5, 0.68, f"{start:.3f} → {beta:.3f}", transform=axes.transAxes, ha="center")
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelbottom=last)


def _beta_limits(betas: Array) -> tuple[float, float]:
    """Return 0 to 1, or further where β goes further, with a margin."""
    low, high = min(0.0, float(betas.min())), max(1.0, float(betas.max()))
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _target(facts: "pd.Series[Any]") -> str:
    channel = facts["channel"]
    part = "mean of the channels" if pd.isna(channel) else f"channel {int(channel)}"
    return f"{row_names(facts.to_frame().T)[0]}, {part}"


def _caption(frame: pd.DataFrame, limit: float) -> str:
    first = frame.iloc[0]
    method = METHOD_NAMES.get(str(first["method"]), str(first["method"]))
    text = (
        f"What decides β of {_target(first)}: {method}, compared with the baseline "
        f"{first['baseline']}. Red pixels raise β, blue pixels lower it, on one scale of "
        f"±{limit:.3g} for all images; right: β at the baseline (ring) and at the image (dot)."
    )
    delta = frame["delta"].abs()
    if delta.notna().any():
        text += (
            f" Each map sums to the difference of the two but for at most {float(delta.max()):.1g}."
        )
    return text
