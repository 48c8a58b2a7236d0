"""FReLU and ACON-FReLU as surfaces over pixel and funnel condition."""

from typing import Any

import numpy as np

from acon_analysis.plotdata import formula_curves as curves
from acon_figures.spec import figure
from acon_figures.style import AconFigure, is_narrow, new_figure, theme, thin

CAPTION = (
    "FReLU max(x, T(x)) and ACON-FReLU, its smooth maximum with β = 1, over the pixel x and the "
    "funnel condition T(x), a depthwise 3x3 convolution of its neighbourhood. The map: their "
    "difference, none on the fold x = T(x) and far from it, -0.278 where |x - T(x)| = 1.278."
)


@figure(kind="formula", order=130)
def frelu_surface(*, width: str | float = "double", context: str = "paper") -> AconFigure:
    """Draw FReLU and ACON-FReLU as surfaces over (x, T(x)), and their difference as a map.

    The reading: the hard fold along x = T(x) is rounded off.

    Returns
    -------
    AconFigure
        Axes: two surfaces, the map of ACON-FReLU minus FReLU, its colour bar.

    References
    ----------
    Ma, Zhang and Sun, Funnel Activation for Visual Recognition, ECCV 2020, arXiv:2007.11824.
    """
    table = curves.frelu_surfaces()
    side = int(np.sqrt(len(table)))
    x, t = (table[name].to_numpy().reshape(side, side) for name in ("x", "t"))
    with theme(context):
        narrow = is_narrow(width)
        figure = new_figure(width, 4.4 if narrow else 2.5, context)
        if narrow:
            grid = figure.add_gridspec(2, 2, height_ratios=(1.0, 1.3))
            cells = [grid[0, 0], grid[0, 1], grid[1, :]]
        else:
            grid = figure.add_gridspec(1, 3)
            cells = [grid[0, 0], grid[0, 1], grid[0, 2]]
        for index, (name, title) in enumerate((("frelu", "FReLU"), ("acon_frelu", "ACON-FReLU"))):
            axes: Any = figure.add_subplot(cells[index], projection="3d")
            height = table[name].to_numpy().reshape(side, side)
            mesh = {"rstride": 4, "cstride": 4, "linewidth": thin(0.4), "edgecolor": "#555555"}
            axes.plot_surface(x, t, height, cmap="cividis", **mesh)
            axes.view_init(elev=28.0, azim=-120.0)
            axes.set_box_aspect(None, zoom=0.92)
            axes.text2D(0.0, 0.86, "output", transform=axes.transAxes, size="small")
            axes.set_title(f"({'ab'[index]}) {title}", y=0.97)
            ticks = dict.fromkeys(("xticks", "yticks", "zticks"), (-2, 0, 2))
            axes.set(xlabel="x", ylabel="T(x)", **ticks)
            axes.tick_params(pad=-2.0)
            axes.xaxis.labelpad = axes.yaxis.labelpad = -4.0 if context == "paper" else 3.0
        gap = (table["acon_frelu"] - table["frelu"]).to_numpy().reshape(side, side)
        flat = figure.add_subplot(cells[2])
        filled = flat.contourf(x, t, gap, levels=np.linspace(-0.3, 0.0, 7), cmap="cividis")
        flat.set(xlabel="x", ylabel="T(x)", title="(c) difference, (b) less (a)", aspect="equal")
        flat.grid(visible=False)
        figure.colorbar(filled, ax=flat, shrink=0.8)
    figure.caption = CAPTION
    return figure
