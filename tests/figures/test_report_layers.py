"""Runs of very many layers: a page and figures show some, evenly by depth, and say so."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import acon_figures
from acon_analysis.layers import MetaAconC
from acon_analysis.plotdata import drawn
from acon_analysis.plotdata.depth import linearity_by_depth
from acon_analysis.runs.run import Run
from acon_figures.registry import FIGURES
from acon_figures.report import rendering
from acon_hooks.captures.capturing import capture
from networks import Network
from reportpages import Parsed, rows_of, table_of

pytestmark = pytest.mark.filterwarnings("ignore:.*untrained.*")


def eight(folder: Path) -> Run:
    """Capture eight layers, every other a Meta-ACON, on some images."""

    def forward(n: Any, x: Tensor) -> Tensor:
        for conv, act in zip(n.convs, n.acts, strict=True):
            x = act(conv(x))
        return x.mean((2, 3))

    kinds = [nn.ReLU() if number % 2 else MetaAconC(3 + number) for number in range(8)]
    sizes = [3, *(3 + number - number % 2 for number in range(8))]
    convs = map(partial(nn.Conv2d, kernel_size=1), sizes, sizes[1:])
    model = Network(forward, convs=nn.ModuleList(convs), acts=nn.ModuleList(kinds)).eval()
    data = TensorDataset(torch.rand(12, 3, 4, 4))
    return capture(model, data, folder, kinds=("meta_acon", "activation"), progress=False)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take eight layers for very many, and draw no figure."""
    monkeypatch.setattr(drawn, "WHOLE", 7)
    monkeypatch.setattr(drawn, "SPREAD", 3)
    monkeypatch.setattr(rendering, "reported", list)


@pytest.mark.usefixtures("few")
def test_of_very_many_layers_a_spread_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("linearity_by_depth", "channel_states", "slopes", "beta_against_null")
    monkeypatch.setattr(rendering, "reported", lambda: [FIGURES[name] for name in names])
    run = eight(tmp_path / "run")
    text = rendering.render(run)
    kept = drawn.drawn_layers(run)
    assert {0, 7} < set(kept.index) < set(range(8))
    said = f"{len(kept)} of 8 layers are "
    assert text.count(f"{said}drawn, evenly by depth") == 1 + len(names)  # L by depth, and figures
    assert text.count(f"{said}listed, evenly by depth") == 2
    assert [int(cells[0]) for cells in rows_of(text)] == kept.index.to_list()
    assert len(table_of(text, "layers")) == 8
    assert text.count("layers.csv has all of them") == 1
    assert "<b>8</b> <span>layers</span>" in text
    for name in ("depth", "every_channel"):
        assert set(table_of(text, name)["layer"]) == set(kept["layer"])
    every = run.linearity(by="channel", columns="all")
    data = json.loads(Parsed(text).inside["script"][0])
    places = [
        (fields["data-layer"], fields["data-name"])
        for element, fields in Parsed(text).elements
        if element == "details"
    ]
    shown = [run.layer_names[layer, 0] for layer in kept["layer"]]
    assert places == [(str(place), known) for place, known in enumerate(shown)]
    for layer, own in zip(kept["layer"], data, strict=True):
        known = every.loc[every["layer"] == layer, "L"].to_list()
        assert own["columns"]["L"] == pytest.approx(known, rel=1e-5)


@pytest.mark.usefixtures("few")
def test_figures_say_of_which_layers_their_numbers_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn, "SPREAD", 2)
    runs = [eight(tmp_path / name) for name in "ab"]
    kept = [drawn.drawn_layers(run)["layer"].to_list() for run in runs]
    states = acon_figures.channel_states(runs[0])
    assert f"{len(kept[0])} of 8 layers are drawn" in states.caption
    assert "all counts and ranks are of these" in states.caption
    # Of several runs what is drawn of any is drawn of all, and counted so.
    depth = acon_figures.linearity_by_depth(*runs)
    both = len({*kept[0], *kept[1]})
    for name in "ab":
        said = f"{runs[0].network} ({name}): {both} of 8 layers are drawn"
        assert both == 8 or said in depth.caption
    # Figures of one layer show any that is asked for, and say nothing of others.
    other = next(name for name in ("acts.2", "acts.4") if name not in kept[0])
    for name in ("channel_portrait", "measures_disagree"):
        caption = getattr(acon_figures, name)(runs[0], layer=other).caption
        assert f"layer {other} " in caption
        assert "are drawn, evenly" not in caption


def test_two_runs_of_one_network_are_two_in_every_figure(tmp_path: Path) -> None:
    runs = [eight(tmp_path / name) for name in "ab"]
    depth, name = linearity_by_depth(runs), runs[0].network
    assert depth["network"].unique().tolist() == [f"{name} (a)", f"{name} (b)"]
    for run, (_, own) in zip(runs, depth.groupby("network"), strict=True):
        expected = run.linearity()["L"]
        np.testing.assert_allclose(own.loc[own["measure"] == "L", "value"], expected)
    figure = acon_figures.linearity_by_depth(*runs)
    assert all(len(axes.containers) == 2 for axes in figure.axes)
    for one in ("slopes", "channel_portrait"):
        alone, both = (getattr(acon_figures, one)(*own).caption for own in (runs[:1], runs))
        assert both.replace(f"{name} (a)", name) == alone


@pytest.mark.usefixtures("few")
def test_two_runs_of_very_many_layers_share_what_they_list(tmp_path: Path) -> None:
    runs = [eight(tmp_path / name) for name in "ab"]
    text = rendering.render(*runs)
    compared = re.search(r'<table id="differences".*?</table>', text, re.DOTALL)
    assert compared is not None
    links = re.findall(r'<a href="#(layer-\d+)">', compared.group())
    assert links == [f"layer-{place}" for place in drawn.drawn_layers(runs[0]).index]
    assert all(f'id="{link}"' in text for link in links)
    assert text.count("differences.csv has all of them") == 1
    assert table_of(text, "differences")["layer"].nunique() == 8
    data_of = [fields["data-layer"] for name, fields in Parsed(text).elements if name == "details"]
    assert data_of == [str(place) for place in range(len(data_of))]


def test_no_line_goes_through_layers_of_pooled_values(tmp_path: Path) -> None:
    def forward(n: Any, x: Tensor) -> Tensor:
        x = n.act(n.conv(x))
        pooled = n.inner(n.squeeze(x.mean((2, 3), keepdim=True)))
        x = n.last(x * n.gate(n.excite(pooled)))
        return n.head(x.mean((2, 3)))  # type: ignore[no-any-return]

    model = Network(
        forward, conv=nn.Conv2d(3, 8, 1), act=nn.ReLU(), squeeze=nn.Conv2d(8, 4, 1),
        inner=nn.ReLU(), excite=nn.Conv2d(4, 8, 1), gate=nn.Sigmoid(), last=nn.ReLU(),
        head=nn.Sequential(nn.Linear(8, 5), nn.ReLU()),
    ).eval()  # fmt: skip
    run = capture(model, TensorDataset(torch.randn(12, 3, 4, 4)), tmp_path / "run", progress=False)
    text = rendering.render(run)
    chart = text[text.index("depth-wide-title") : text.index("depth-narrow-title")]
    hollow = re.findall(r'<a class="off" href="#layer-\d+" aria-label="(\w+)', chart)
    assert hollow == ["inner", "gate"]
    joined = [len(points.split()) for points in re.findall(r'points="([^"]*)"', chart)]
    assert joined == [3, 0, 1]  # activations, gates, products
    assert "Hollow, off the line" in text
    figure = acon_figures.linearity_by_depth(run)
    places = [bars.lines[0].get_xdata().tolist() for bars in figure.axes[0].containers]
    assert places == [[0, 4, 5], [1, 2], [3]]  # the line, off it, products
    assert "Open points off the line" in figure.caption
