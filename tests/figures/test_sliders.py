"""Sliders of one unit: what moves is drawn anew, of the run's own numbers, and errors are clear."""

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

import acon_analysis as acon
import acon_figures
from acon_analysis.errors import AconError, UsageError
from acon_analysis.family import acon_c
from acon_analysis.layers import AconC
from acon_analysis.runs.run import Run
from figurechecks import problems

pytest.importorskip("ipywidgets")


@pytest.fixture(scope="module")
def meta() -> Run:
    return acon.example_run("cifar10_metaacon")


def points(figure: Any) -> Any:
    """Return the points of the drawn function."""
    return figure.axes[0].lines[0].get_xydata().T


def test_every_slider_moves_the_curve() -> None:
    explorer = acon_figures.explore_unit()
    at = {name: slider.value for name, slider in explorer.sliders.items()}
    assert at == {"p1": 1.2, "p2": -0.8, "beta": 1.0, "mean": 0.0, "std": 1.0}
    for name, value in {"p1": 1.6, "p2": 0.4, "beta": -2.0, "mean": 2.0, "std": 3.0}.items():
        explorer.sliders[name].value = at[name] = value
        x, y = points(explorer.figure)
        assert y == pytest.approx(acon_c(x, at["p1"], at["p2"], at["beta"]))
    assert (x[0], x[-1]) == pytest.approx((-10.0, 14.0))  # mean ± 4 std


@pytest.mark.parametrize(("layer", "channel"), [("layer2.0.acon", 7), (None, None)])
def test_a_channel_of_a_run(meta: Run, layer: str | None, channel: int | None) -> None:
    explorer = acon_figures.explore_unit(meta, layer, channel)
    table = meta.linearity(by="channel", columns="all")
    own = table[table["layer"] == (layer or meta.layers["layer"].iloc[-1])].set_index("channel")
    number = int(own["s_c"].to_numpy().argmax()) if channel is None else channel
    row = own.loc[number]
    betas = meta.beta_matrix(str(row["layer"]))[:, number].astype(np.float64)
    slider = explorer.sliders["beta"]
    assert list(explorer.sliders) == ["beta"]
    assert slider.value == pytest.approx(np.median(betas))
    assert (slider.min, slider.max) == pytest.approx((0.0, 2 * betas.max()))
    slider.value = float(np.quantile(betas, 0.9))
    figure: Any = explorer.figure
    slopes = meta.channels.set_index(["layer", "channel"]).loc[(row["layer"], number)]
    x, y = points(figure)
    assert y == pytest.approx(acon_c(x, slopes["p1"], slopes["p2"], slider.value))
    assert x.mean() == pytest.approx(row["mean_x"])
    counts = [patch.get_height() for patch in figure.axes[2].patches]
    assert counts == list(np.histogram(betas, 40)[0])
    assert figure.axes[2].lines[0].get_xdata()[0] == slider.value
    assert "90 % of them below" in figure.axes[2].get_title(loc="left")
    title = figure.get_suptitle()
    assert f"{row['layer']}, channel {number}" in title
    assert f"measured L = {row['L']:.3f}" in title
    assert problems(figure) == []


def test_static_and_negative_beta(tmp_path: Path) -> None:
    layer = AconC(3)
    with torch.no_grad():
        layer.beta.fill_(-0.5)
    run = acon.capture(
        nn.Sequential(layer).eval(), [torch.randn(20, 3, 4, 4)], tmp_path / "run", progress=False
    )
    slider = acon_figures.explore_unit(run, channel=1).sliders["beta"]
    assert (slider.min, slider.value, slider.max) == (-1.0, -0.5, 1.0)


def test_the_picture_is_an_output_of_its_own_that_follows_the_sliders() -> None:
    functions = pytest.importorskip("IPython.core.display_functions")
    publish, shell = mock.Mock(), mock.Mock()
    formatter = shell.instance.return_value.display_formatter
    formatter.format = lambda one, **_: (one._repr_mimebundle_(), {})
    with (
        mock.patch.object(functions, "publish_display_data", publish),
        mock.patch("IPython.core.interactiveshell.InteractiveShell", shell),
    ):
        explorer = acon_figures.explore_unit()
        explorer._ipython_display_()
        explorer.sliders["beta"].value = 3.0
    sliders, begun, later = (call.kwargs for call in publish.call_args_list)
    first, moved = begun["data"], later["data"]
    assert "application/vnd.jupyter.widget-view+json" in sliders["data"]
    assert list(first) == list(moved) == ["image/png"]  # a page without a kernel shows it
    assert first["image/png"][:4] == moved["image/png"][:4] == b"\x89PNG"
    assert first != moved
    assert begun["transient"] == later["transient"]  # the id of the output
    assert ("update" in begun, later["update"]) == (False, True)


@pytest.mark.parametrize("width", ["double", "single"])
def test_counts_of_beta_fit_below(width: str) -> None:
    subject = "a_network_of_a_long_name on 1,000 samples: encoder.layer.11.mlp.act, channel 3071"
    figure = acon_figures.acon_unit(1, 0.2, 2, betas=[0.1, 0.4], subject=subject, width=width)
    assert problems(figure) == []


def test_the_axes_stand_still_while_beta_moves() -> None:
    seen = [acon_figures.acon_unit(1.2, -0.8, beta).axes for beta in (0.0, 0.3, 5.0)]
    for panel in (0, 1):
        limits = np.array([axes[panel].get_ylim() for axes in seen])
        assert limits == pytest.approx(np.broadcast_to(limits[0], limits.shape), rel=0.05)


def test_what_cannot_be_shown_is_said(
    meta: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"no layer 'layer9'; .*layer"):
        acon_figures.explore_unit(meta, "layer9")
    with pytest.raises(UsageError, match="no channel 64; it has 0 to 63"):
        acon_figures.explore_unit(meta, channel=64)
    with pytest.raises(UsageError, match=r"of a run: explore_unit\(run, layer, channel\)"):
        acon_figures.explore_unit(channel=3)
    x = [torch.randn(20, 3)]
    relu = acon.capture(nn.Sequential(nn.ReLU()).eval(), x, tmp_path / "relu", progress=False)
    with pytest.raises(AconError, match="its layers are not ACON"):
        acon_figures.explore_unit(relu)
    own = nn.Sequential(AconC(3)).eval()
    bare = acon.capture(own, x, tmp_path / "bare", moments=False, progress=False)
    with pytest.raises(AconError, match="holds no moments; capture it again"):
        acon_figures.explore_unit(bare)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(AconError, match=r"pip install ipywidgets; without it, .*acon_unit"):
        acon_figures.explore_unit()
