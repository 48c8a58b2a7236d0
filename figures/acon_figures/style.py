"""One look for all figures, scoped: the user's own matplotlib settings stay as they are."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from acon_analysis.errors import UsageError, closest
from acon_figures.names import folded
from acon_figures.palette import COLORS as COLORS
from acon_figures.palette import DASHES as DASHES
from acon_figures.palette import FAINT as FAINT
from acon_figures.palette import INK as INK
from acon_figures.palette import MUTED as MUTED
from acon_figures.palette import PUBLISHED_COLORS as PUBLISHED_COLORS
from acon_figures.palette import RULE as RULE

WIDTHS = {"single": 3.25, "double": 6.75}
"""Widths in inch of one and of two columns of a paper."""

CONTEXTS = ("paper", "talk")

TALK_SIZE = 1.35
TALK_HEIGHT = 1.6
TALK_TEXT = 1.75
"""How much wider and higher a figure is for a talk, and how much larger its text: on a slide of one
width the text is 1.3 times as large as on paper."""


class _Growing(ConstrainedLayoutEngine):
    """Constrained layout; a figure grows where long names leave its panels no room."""

    def execute(self, fig: Figure) -> None:
        """Lay a figure out."""
        grown = False
        for _ in range(12):
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("error", "constrained_layout not applied")
                    super().execute(fig)
            except UserWarning:
                fig.set_size_inches(1.15 * fig.get_figwidth(), 1.15 * fig.get_figheight())
                continue
            lack = sum(map(_lacking_height, fig.axes))
            if not lack and not grown:
                return
            grown = lack > 0  # then once more, with the ticks that there is room for
            fig.set_figheight(fig.get_figheight() + lack)
        super().execute(fig)


def _lacking_height(axes: Axes) -> float:
    """Return the inches that panels lack to be as high as their upright labels."""
    labels = [label for label in axes.get_xticklabels() if label.get_rotation() == 90]
    labels += [axes.yaxis.label] if axes.yaxis.label.get_text() else []
    tall = max((label.get_window_extent().height for label in labels), default=0.0)
    lack: float = (tall - axes.get_window_extent().height) / axes.figure.dpi
    return max(lack, 0.0)


class AconFigure(Figure):
    """A matplotlib Figure outside pyplot that notebooks display, with a caption.

    Attributes
    ----------
    heading : str
        What the report calls the figure; empty for one of a frame of the user's own.
    caption : str
        What the figure shows, as text for the paper; `save` writes it next to the picture, and
        notebooks show it below.
    subject : str
        The networks and the data that it is of, as `name` wrote them above the panels.
    """

    heading: str = ""
    caption: str = ""
    subject: str = ""
    _scale: float = 1.0

    def name(self, subject: str) -> None:
        """Write above the panels which networks and data the figure is of; a line is added."""
        if not subject:
            return
        size = 7.0 * self._scale
        words = folded(subject, int(self.get_figwidth() * 72.0 / (0.58 * size)))
        if not self.subject:
            lines = words.count("\n") + 1
            self.set_figheight(self.get_figheight() + lines * 0.17 * self._scale)
        self.subject = subject
        self.suptitle(words, x=0.01, ha="left", fontsize=size, family="DejaVu Sans", color=MUTED)

    def draw(self, renderer: Any) -> None:
        """Draw; of the blind drawing that matplotlib begins a file with, only the layout."""
        engine = self.get_layout_engine()
        if self.canvas.is_saving() and isinstance(engine, _Growing):  # else laid out already
            engine.execute(self)
        else:
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        from io import BytesIO

        buffer = BytesIO()
        with theme():
            self.savefig(buffer, format="png", dpi=144)
        return buffer.getvalue()

    def _ipython_display_(self) -> None:
        """Show the picture, and below it heading and caption as the report does."""
        from IPython.display import display

        display({"image/png": self._repr_png_()}, raw=True)  # type: ignore[no-untyped-call]
        words = [self.heading and f"<b>{escape(self.heading)}.</b>", escape(self.caption)]
        text = {
            "text/html": f'<p style="max-width: 60em; opacity: 0.8">{" ".join(words).strip()}</p>',
            "text/plain": " ".join(filter(None, [self.heading, self.caption])),
        }
        if self.caption:
            display(text, raw=True)  # type: ignore[no-untyped-call]


def settings(context: str = "paper") -> dict[str, Any]:
    """Return what differs from matplotlib's own settings in a context, "paper" or "talk"."""
    if context not in CONTEXTS:
        raise UsageError(f"there is no context {context!r}; {closest(context, CONTEXTS)}")
    text = 1.0 if context == "paper" else TALK_TEXT
    return {
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 8.0 * text,
        "axes.titlesize": 8.0 * text,
        "axes.labelsize": 8.0 * text,
        "xtick.labelsize": 7.0 * text,
        "ytick.labelsize": 7.0 * text,
        "legend.fontsize": 7.0 * text,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
        **dict.fromkeys(("xtick.color", "ytick.color"), INK),
        "axes.linewidth": 0.7 * text,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.5 * text,
        "lines.linewidth": 1.2 * text,
        "lines.markersize": 3.5 * text,
        "patch.linewidth": 0.7 * text,
        "xtick.major.width": 0.7 * text,
        "ytick.major.width": 0.7 * text,
        "xtick.major.size": 2.5 * text,
        "ytick.major.size": 2.5 * text,
        "legend.framealpha": 0.85,
        "legend.edgecolor": "none",
        "legend.borderpad": 0.3,
        "legend.labelspacing": 0.3,
        "legend.handlelength": 2.2,
        "savefig.facecolor": "white",
        "svg.fonttype": "none",
        "svg.hashsalt": "acon-analysis",
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
    }


@contextmanager
def theme(context: str = "paper") -> Iterator[None]:
    """Draw in the project's look; afterwards all settings are what they were.

    Parameters
    ----------
    context : {"paper", "talk"}
        Text of 8 points for print, or of 14 points on a figure a third larger for slides.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        parameters: Any = mpl.rcParams
        parameters.update(settings(context))
        yield


def inches(width: str | float) -> float:
    """Return a width in inch: "single" (3.25), "double" (6.75) or the given number."""
    if isinstance(width, str):
        if width not in WIDTHS:
            raise UsageError(f"there is no width {width!r}; {closest(width, WIDTHS)}, or inches")
        return WIDTHS[width]
    if not 1.0 <= width <= 40.0:
        raise UsageError(f"a width of {width} inch is not between 1 and 40")
    return float(width)


def new_figure(width: str | float, height: float, context: str = "paper") -> AconFigure:
    """Return an empty figure of a width and height in inch on paper; call it inside `theme`."""
    wide, high, text = (1.0, 1.0, 1.0)
    if context == "talk":
        wide, high, text = TALK_SIZE, TALK_HEIGHT, TALK_TEXT
    made = AconFigure(figsize=(inches(width) * wide, height * high), layout=_Growing())
    made._scale = text
    return made


def is_narrow(width: str | float) -> bool:
    """Say whether a figure has one column's width, so that its panels go below one another."""
    return inches(width) < 5.0


def thin(share: float = 0.5) -> float:
    """Return a share of the theme's line width; call it inside `theme`."""
    return share * float(mpl.rcParams["lines.linewidth"])


def cross(axes: Axes) -> None:
    """Draw thin lines through the origin (as artists other than the curves)."""
    low, high = axes.get_xlim()
    bottom, top = axes.get_ylim()
    axes.hlines(0.0, low, high, color=INK, linewidth=thin(), zorder=1.5)
    axes.vlines(0.0, bottom, top, color=INK, linewidth=thin(), zorder=1.5)
    axes.set_xlim(low, high)
    axes.set_ylim(bottom, top)
