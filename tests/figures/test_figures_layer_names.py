"""Figures of networks whose module paths end in numbers say what their layers are."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from torch import nn

import acon_analysis as acon
import acon_figures
from acon_analysis.layers import MetaAconC
from acon_analysis.runs.run import Run
from acon_analysis.statistics.gaussian import RELU_L
from acon_figures.inputs import Inputs
from acon_figures.labels import apart, equals, name_layers, yardstick_handles
from acon_figures.names import layer_labels, layers_word
from acon_figures.registry import FIGURES
from acon_figures.style import AconFigure, new_figure, theme

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


def test_layers_have_short_names_that_differ() -> None:
    long = [f"bert.encoder.layer.{i}.intermediate.intermediate_act_fn" for i in range(12)]
    assert layer_labels(long) == [str(i) for i in range(12)]
    mixed = layer_labels([*long, "pooler"])
    assert len(set(mixed)) == 13
    assert max(map(len, mixed)) <= 18
    assert mixed[3].startswith("…")
    assert mixed[3].endswith("layer.3")
    assert layer_labels(["relu"]) == ["relu"]
    assert layer_labels(["a.b", "a.b"]) == ["a.b", "a.b"]
    calls = [f"layer{n}.0.activation (call {k})" for n in (1, 2) for k in (0, 1)]
    assert len(set(layer_labels([*calls, "relu"]))) == 5
    assert layers_word(["enc.0.act", "enc.1.act"]) == "layer (enc.*.act)"
    numbered = [f"features.{i} (ReLU)" for i in range(3)]
    assert layer_labels(numbered) == ["0", "1", "2"]
    assert layers_word(numbered) == "layer (features.*, ReLU)"
    assert layers_word(["1 (ReLU)", "3 (ReLU)"]) == "layer (ReLU)"
    assert layer_labels(["1 (ReLU)", "3 (Tanh)"]) == ["1 (ReLU)", "3 (Tanh)"]
    assert layers_word(["1 (ReLU)", "3 (Tanh)"]) == layers_word(["1 (ReLU)"]) == "layer"
    assert layers_word(calls) == layers_word(["relu"]) == "layer"


def test_a_figure_grows_until_its_upright_labels_fit() -> None:
    for label, letters in (("layer (transformer.h.*.mlp.act)", 10), ("L of a channel", 24)):
        with theme():
            figure = new_figure("single", 0.9)
            axes = figure.add_subplot(ylabel=label, ylim=(-0.02, 1.03))
            axes.set_xticks([0.0], ["x" * letters], rotation=90.0)
        figure.savefig(io.BytesIO(), format="svg")
        panel = axes.get_window_extent().height
        upright = [axes.yaxis.label, *axes.get_xticklabels()]
        assert all(one.get_window_extent().height <= panel + 1 for one in upright)
        # The panel is higher than at first and has more ticks, of more digits.
        assert axes.yaxis.label.get_window_extent().x0 > -1


def test_names_are_moved_apart_in_their_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        wanted = rng.uniform(0, 1, 9).round(1)
        found = np.array(apart(wanted, 0.08))
        order = np.argsort(wanted, kind="stable")
        assert (np.diff(found[order]) >= 0.08 - 1e-12).all()
    assert apart([0.2, 0.9], 0.1) == [0.2, 0.9]
    assert apart([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert (equals("L", 0.99999), equals("L", 0.5)) == ("L > 0.999", "L = 0.500")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a" * 90 + end for end in "bc"], ["…" + "a" * 16 + end for end in "bc"]),
        ([start + "a" * 90 for start in "bc"], [f"{start}{'a' * 8}…{'a' * 8}" for start in "bc"]),
        ([f"{'a' * 90}{n}{'a' * 90}" for n in "bc"], [f"{n}: …{'a' * 17}" for n in "12"]),
    ],
)
def test_labels_of_long_names_are_short_and_different(
    names: list[str], expected: list[str]
) -> None:
    assert layer_labels([*names, names[0]]) == [*expected, expected[0]]


@pytest.mark.parametrize(
    ("values", "first", "label"),
    [
        ([RELU_L, np.nan], False, "a ReLU of Gaussian inputs: 0.733"),
        ([RELU_L, 0.9], False, "each layer's function of Gaussian inputs"),
        ([np.nan], True, "b: a ReLU of Gaussian inputs"),
        ([np.nan], False, None),
    ],
)
def test_a_legend_names_only_dotted_lines_that_are_drawn(
    values: list[float], first: bool, label: str | None
) -> None:
    labels = [one.get_label() for one in yardstick_handles(pd.Series(values), first)]
    assert labels == ([label] if label else [])
