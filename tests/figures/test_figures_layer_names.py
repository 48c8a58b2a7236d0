"""Figures of networks whose module paths end in numbers say what their layers are."""

import re
from pathlib import Path

import pytest
import torch
from matplotlib.text import Text
from torch import nn

import acon_analysis as acon
import acon_figures
from acon_analysis.layers import MetaAconC
from acon_analysis.runs.run import Run
from acon_figures.inputs import Inputs
from acon_figures.labels import name_layers
from acon_figures.registry import FIGURES
from acon_figures.style import AconFigure, new_figure

pytestmark = pytest.mark.filterwarnings("ignore:.*untrained.*")


class Numbered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3), MetaAconC(16), nn.Conv2d(16, 16, 3), MetaAconC(16)
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("numbered") / "run"
    return acon.capture(Numbered().eval(), "digits", folder, limit=40, progress=False)


def words(figure: AconFigure) -> str:
    drawn = [text.get_text() for text in figure.findobj(Text)]
    return "\n".join([figure.caption, figure.subject, *drawn])


def test_every_figure_names_the_class_with_a_path_that_ends_in_a_number(run: Run) -> None:
    inputs, named = Inputs([run]), []
    for spec in FIGURES.values():
        given = inputs.of(spec)
        if spec.needs and not set(spec.needs) - set(given) and "training" not in given:
            text = words(spec.function(**given))
            assert not re.search(r"(features\.|^)[13](?! \(MetaAconC)\b(?= *$|\)|,)", text), (
                spec.name
            )
            named += [spec.name] if "features.3 (MetaAconC)" in text else []
    assert set(named) >= {
        "beta_distributions", "beta_against_null", "beta_heatmap", "sample_extremes",
        "channel_portrait", "measures_disagree", "network_sketch", "linearity_by_depth",
        "channel_spread", "channel_portraits",
    }  # fmt: skip


def test_an_axis_with_room_for_some_layers_names_those_that_are_called_first() -> None:
    axes = new_figure("single", 2.0, "paper").add_subplot()
    layers = [f"layer{i}.relu (call {call})" for i in range(9) for call in (0, 1)]
    name_layers(axes, layers, narrow=True)
    assert axes.get_xticks().tolist() == list(range(0, 18, 2))
    assert axes.get_xticklabels()[1].get_text() == "layer1"
    name_layers(axes, layers, narrow=False)
    assert axes.get_xticklabels()[1].get_text().endswith("(call 1)")


def test_gates_and_explanations_name_it_too() -> None:
    model = Numbered().eval()
    table = acon.gate_use(model, "digits", ["mean"], limit=20)
    assert table["class_name"].tolist() == ["MetaAconC", "MetaAconC", ""]
    assert "features.3 (MetaAconC)" in words(acon_figures.gate_changes(table))
    images = torch.rand(2, 1, 8, 8)
    found = acon.explain(model, images, layer="features.3", channel=0)
    figure = acon_figures.explanation(*found.pictures, found.maps, found.to_frame())
    assert "features.3 (MetaAconC), channel 0" in words(figure)


def test_blocks_of_a_script_are_of_its_run_and_a_list_has_no_name(tmp_path: Path) -> None:
    own = type("Own", (nn.Sequential,), {"__module__": "__main__"})
    model = own(nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.ReLU())).eval()
    data = [torch.randn(60, 6)]
    run = acon.capture(model, data, tmp_path, progress=False)
    table = acon.block_linearity(model, data, ["1", "whole network"])
    assert table[["class_name", "data"]].to_numpy().tolist() == [["Sequential", ""], ["Own", ""]]
    assert table["network"].tolist() == [run.model] * 2 == ["Own"] * 2
    figure = acon_figures.network_strip(table)
    assert figure.get_suptitle() == "Own, 60 samples"
    assert "1 (Sequential)" in words(figure)
