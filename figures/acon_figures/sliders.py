"""One ACON-C unit under sliders, for notebooks."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from acon_analysis.errors import AconError, UsageError
from acon_analysis.plotdata.channels import channel_facts, choose_channel
from acon_analysis.runs.run import Run
from acon_figures.plots.acon_unit import acon_unit
from acon_figures.style import AconFigure


class UnitExplorer:
    """Sliders and the picture that follows them; where no kernel runs, the picture as it is.

    ``sliders`` are by the names of the arguments of `acon_figures.acon_unit`; ``figure`` is the
    picture at their values.
    """

    figure: AconFigure
    _shown: Any = None

    def __init__(
        self, draw: Callable[..., AconFigure], ranges: Mapping[str, tuple[float, float, float]]
    ) -> None:
        try:
            import ipywidgets
        except ImportError:
            raise AconError(
                "sliders need ipywidgets, which is not installed: pip install ipywidgets; without "
                "it, acon_figures.acon_unit(p1, p2, beta) draws one unit"
            ) from None
        self._draw = draw
        self.sliders = {
            name: ipywidgets.FloatSlider(
                value, min=low, max=high, step=(high - low) / 200, readout_format=".3g",
                description="β" if name == "beta" else name, layout={"width": "500px"},
            )
            for name, (value, low, high) in ranges.items()
        }  # fmt: skip
        self._box = ipywidgets.VBox(list(self.sliders.values()))
        for slider in self.sliders.values():
            slider.observe(self._redraw, names="value")
        self._redraw()

    def _redraw(self, _change: Any = None) -> None:
        """Draw the unit at the sliders' values."""
        self.figure = self._draw(**{name: one.value for name, one in self.sliders.items()})
        if self._shown is not None:
            self._shown.update({"image/png": self.figure._repr_png_()}, raw=True)

    def _ipython_display_(self) -> None:
        """Show the sliders, and the picture as an output of its own that needs no kernel."""
        from IPython.display import DisplayHandle, display

        display(self._box)  # type: ignore[no-untyped-call]
        self._shown = self._shown or DisplayHandle()  # type: ignore[no-untyped-call]
        self._shown.display({"image/png": self.figure._repr_png_()}, raw=True)


def explore_unit(
    run: Run | None = None, layer: str | None = None, channel: int | None = None
) -> UnitExplorer:
    """Show one ACON-C unit under sliders, in a notebook.

    Parameters
    ----------
    run : Run, optional
        A captured run with moments: one slider for β of one of its channels, over Gaussian inputs
        of the channel's mean and standard deviation, with β of every sample counted below. By
        default p1, p2, β and the mean and standard deviation of the inputs each have a slider.
    layer : str, optional
        An ACON or Meta-ACON layer of the run, by default the last.
    channel : int, optional
        By default the one with the greatest s_c.

    Returns
    -------
    UnitExplorer
        A notebook shows the sliders; GitHub and other pages without a kernel show the picture at
        the values that the sliders had last, at first the median of β over the samples.

    Raises
    ------
    AconError
        Without ipywidgets; for a run without moments or without ACON layers.
    UsageError
        For a layer or channel that the run does not hold, a channel whose inputs do not vary, or a
        layer or channel without a run.
    """
    if run is None:
        if layer is not None or channel is not None:
            raise UsageError(
                "a layer or channel is one of a run: explore_unit(run, layer, channel)"
            )
        ranges = {"p1": (1.2, -2.0, 2.0), "p2": (-0.8, -2.0, 2.0), "beta": (1.0, -5.0, 10.0)}
        inputs = {"mean": (0.0, -4.0, 4.0), "std": (1.0, 0.1, 4.0)}
        return UnitExplorer(acon_unit, ranges | inputs)
    run.linearity(by="channel")  # it says what to do for a run without moments
    facts = choose_channel(channel_facts([run]), layer, channel)
    values = run.beta(str(facts["layer"]), int(facts["call"])).values
    betas = values[:, int(facts["channel"]) if values.shape[1] > 1 else 0]
    draw = partial(
        acon_unit, p1=facts["p1"], p2=facts["p2"], mean=facts["mean_x"], std=facts["std_x"],
        betas=betas, subject=f"{run.model} on {run.data_words}: {facts['layer']}, channel "
        f"{facts['channel']}, measured L = {facts['L']:.3f}",
    )  # fmt: skip
    # From a straight line to twice the samples' β, whatever their sign.
    low, high = min(0.0, 2.0 * float(betas.min())), max(0.0, 2.0 * float(betas.max()))
    return UnitExplorer(draw, {"beta": (float(facts["beta_middle"]), low, high or 1.0)})
