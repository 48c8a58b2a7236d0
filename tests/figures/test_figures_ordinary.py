"""Figures of any network: what is drawn is what an independent program finds in its channels."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from torch import nn

import acon_analysis as acon
import acon_figures
import figureframes
from acon_analysis.errors import AconError, UsageError
from acon_analysis.plotdata.channels import channel_facts, shape_words
from acon_analysis.plotdata.portraits import channel_portraits, channel_states, reached_slopes
from acon_analysis.plotdata.sample_spread import sample_spread
from acon_analysis.runs.run import Run
from acon_figures.drawing import draw
from acon_figures.inputs import Inputs
from acon_figures.palette import activation_color, activation_looks
from figurechecks import problems

OF_ANY = (
    "linearity_by_depth", "channel_spread", "channel_portraits", "channel_states", "reached_slopes",
    "sample_spread",
)  # fmt: skip


class Block(nn.Module):
    """A block whose activation has a long path, as in libraries of language models."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_output_dense_projection = nn.Linear(width, width)
        self.intermediate = nn.ModuleDict({"intermediate_act_fn_of_the_block": nn.GELU()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        act = self.intermediate["intermediate_act_fn_of_the_block"]
        return x + act(self.attention_output_dense_projection(x))  # type: ignore[no-any-return]


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(12) for _ in range(5)), nn.Linear(12, 12), nn.ReLU())
    with torch.no_grad():
        last = model.get_submodule("5")
        last.get_parameter("weight")[0] = 0.0
        last.get_parameter("bias")[:2] = torch.tensor([-1.0, 9.0])  # a dead and an open channel
    return nn.Sequential(nn.ModuleDict({"encoder": model})["encoder"]).eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    x = torch.randn(96, 6, 12, generator=torch.Generator().manual_seed(1))
    folder = tmp_path_factory.mktemp("ordinary") / "run"
    return acon.capture(network(), list(torch.split(x, 32)), folder, sample_axis=0, progress=False)


def seen() -> dict[str, np.ndarray]:
    """Inputs of every activation, float64 (values, channels), by a hook of this test's own."""
    found: dict[str, np.ndarray] = {}
    model = network()

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, given: tuple[torch.Tensor, ...], _output: object) -> None:
            found[name] = given[0].detach().double().numpy().reshape(-1, given[0].shape[-1])

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.GELU | nn.ReLU):
            module.register_forward_hook(keep(name))
    x = torch.randn(96, 6, 12, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        model(x)
    return found


def test_a_run_without_beta_has_five_figures_of_its_own(
    run: Run, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    for context in ("paper", "talk"):
        folder = tmp_path / context
        files = list(draw(None, [run], folder, formats=["svg"], context=context, shipped=False))
        assert {path.stem for path in files} == set(OF_ANY)
    assert not [str(one.message) for one in recwarn if "layout" in str(one.message)]


@pytest.mark.parametrize("name", OF_ANY)
@pytest.mark.parametrize(("width", "context"), [("double", "talk"), ("single", "paper")])
def test_long_module_names_fit_and_the_network_is_named(
    run: Run, name: str, width: str, context: str
) -> None:
    figure = run.plot(name, width=width, context=context)
    assert problems(figure) == []
    assert figure.subject == "Sequential on 96 samples"


def test_slopes_reached_are_those_of_torchs_autograd(run: Run) -> None:
    table = channel_facts([run])
    facts = reached_slopes(table)
    again = reached_slopes(pd.read_csv(StringIO(table.to_csv(index=False))))  # has no empty text
    assert list(again["slope_low"].notna()) == list(facts["slope_low"].notna())
    functions: dict[str, Callable[..., torch.Tensor]]
    functions = {"GELU": nn.functional.gelu, "ReLU": nn.functional.relu}
    for layer, x in seen().items():
        own = facts[facts["layer"] == layer]
        for row in own.to_dict("records"):
            at = torch.linspace(x[:, row["channel"]].min(), x[:, row["channel"]].max(), 4001)
            at = at.double().requires_grad_()
            (grad,) = torch.autograd.grad(functions[row["activation"]](at).sum(), at)
            assert row["slope_low"] == pytest.approx(float(grad.min()), abs=2e-4)
            assert row["slope_high"] == pytest.approx(float(grad.max()), abs=2e-4)


def test_a_line_on_one_side_is_not_saturated(run: Run) -> None:
    facts = reached_slopes(channel_facts([run])).iloc[:2]
    slopes = {"slope_min": 0.01, "slope_max": 1.0, "slope_low": 0.01, "slope_high": 0.01}
    facts = facts.assign(**slopes, L=[1.0, 0.9], dead=False, cause=["negative", ""])
    assert list(channel_states(facts)) == ["one side", "saturated"]


def test_dots_are_slopes_of_best_lines_and_rings_reach_little_of_the_derivative(run: Run) -> None:
    figure = run.plot("reached_slopes")
    axes = figure.axes[0]
    collections = [one for one in axes.collections if isinstance(one, PathCollection)]
    rings = 0
    for dots, circles, layer in zip(
        collections[::2], collections[1::2], run.layers["layer"], strict=True
    ):
        x = seen()[layer]
        kind = run.layer_row(layer).class_name
        y = getattr(torch.nn, kind)()(torch.from_numpy(x)).numpy()
        x = x - x.mean(axis=0)
        slopes = (x * y).sum(axis=0) / np.maximum((x * x).sum(axis=0), 1e-30)
        apart = [np.asarray(one.get_offsets())[:, 1] for one in (dots, circles)]
        np.testing.assert_allclose(np.sort(np.concatenate(apart)), np.sort(slopes), atol=1e-4)
        rings += len(apart[1])
        if kind == "ReLU":  # off or on for all of the data
            assert sorted(apart[1].round(6)) == [0.0, 1.0]
    assert f"Rings: {rings} channels whose data" in figure.caption
    (bars,) = [one for one in axes.collections if isinstance(one, LineCollection)]
    facts = channel_facts([run])
    medians = facts.groupby("layer", sort=False)["slope"].median()
    np.testing.assert_allclose([one[0, 1] for one in bars.get_segments()], medians)


def test_gated_products_have_no_column_of_derivatives() -> None:
    facts = figureframes.every_channel()
    gone = facts["layer"] == facts["layer"].iloc[0]
    products = facts.assign(slope=facts["slope"].where(~gone), slope_low=np.nan)
    figure = acon_figures.reached_slopes(products)
    assert len(figure.axes[0].get_xticklabels()) == facts["layer"].nunique() - 1
    assert f"Left out: {gone.sum()} channels without one line" in figure.caption
    with pytest.raises(AconError, match="gated products have two"):
        acon_figures.reached_slopes(products[gone])


def test_states_are_those_of_the_networks_own_inputs(run: Run) -> None:
    facts = reached_slopes(channel_facts([run]))
    states = channel_states(facts)
    last = facts["activation"] == "ReLU"
    x = seen()[str(facts.loc[last, "layer"].iloc[0])]
    expected = ["dead" if (c <= 0).all() else "one side" if (c > 0).all() else "bends" for c in x.T]
    assert states[last].tolist() == expected
    assert expected[:2] == ["dead", "one side"]
    shares = acon_figures.channel_states(channel_facts([run])).axes[0].containers
    bars = [container[-1].get_width() for container in shares]
    assert bars[0] == pytest.approx(expected.count("dead") / 12)
    assert sum(bars) == pytest.approx(1.0)


def test_a_saturated_channel_is_one_whose_inputs_lie_where_tanh_is_flat() -> None:
    facts = figureframes.every_channel().assign(activation="Tanh", dead=False, slope=0.001)
    facts["min_x"], facts["max_x"] = 3.0, 9.0  # 1 - tanh(3)² = 0.00987
    assert set(channel_states(reached_slopes(facts))) == {"saturated"}
    assert "saturated" not in set(channel_states(reached_slopes(facts.assign(min_x=1.0))))


def test_portraits_go_from_linear_to_nonlinear_and_are_the_activation(run: Run) -> None:
    facts = channel_facts([run])
    chosen, curves = channel_portraits(facts)
    assert chosen["L"].is_monotonic_decreasing
    alive = facts[facts["std_y"] > 0]
    assert (chosen["L"].iloc[0], chosen["L"].iloc[-1]) == (alive["L"].max(), alive["L"].min())
    for (number, row), axes in zip(
        chosen.iterrows(), acon_figures.channel_portraits(facts).axes, strict=False
    ):
        curve, line = axes.lines
        x = torch.from_numpy(np.asarray(curve.get_xdata(), dtype=np.float64))
        function = nn.functional.gelu if row["activation"] == "GELU" else torch.relu
        np.testing.assert_allclose(curve.get_ydata(), function(x), atol=1e-12)
        own = seen()[row["layer"]][:, row["channel"]]
        y = function(torch.from_numpy(own)).numpy()
        slope, intercept = np.polyfit(own, y, 1)
        np.testing.assert_allclose(line.get_ydata(), slope * x + intercept, rtol=1e-3, atol=1e-4)
        assert len(curves[curves["number"] == number]) == len(x)
    assert len(channel_portraits(facts, 500)[0]) == len(alive)
    with pytest.raises(UsageError, match="count must be at least 1; got 0"):
        channel_portraits(facts, 0)


def test_an_unknown_activation_has_no_slopes_and_no_portrait() -> None:
    facts = figureframes.every_channel()
    for name in ("LeakyReLU", "Swish", "Mine"):  # parameters of their own, or not known
        own = facts.assign(activation=name)
        assert reached_slopes(own)[["slope_low", "slope_high"]].isna().all().all()
        with pytest.raises(AconError, match="whose formula is known"):
            channel_portraits(own)
    # A class called ReLU whose best line is steeper than ReLU ever is, is not ReLU.
    lying = facts.assign(slope=1.5)
    assert reached_slopes(lying)["slope_low"].isna().all()
    assert "80 channels that range is unknown" in acon_figures.reached_slopes(lying).caption


def test_the_dots_are_the_channels_and_the_dead_are_crossed_out() -> None:
    facts = figureframes.every_channel()
    axes = acon_figures.channel_spread(facts).axes[0]
    *points, diamonds = [c for c in axes.collections if isinstance(c, PathCollection)]
    parts = facts.groupby("layer", sort=False)["s_c"].sum()
    np.testing.assert_allclose(np.asarray(diamonds.get_offsets())[:, 1], 1 - parts)
    dots, crosses = points[::2], points[1::2]
    for (_, own), drawn, cross in zip(
        facts.groupby("layer", sort=False), dots, crosses, strict=True
    ):
        alive = own[~own["dead"]]
        np.testing.assert_array_equal(np.asarray(drawn.get_offsets())[:, 1], alive["L"])
        assert len(np.asarray(cross.get_offsets())) == 1
        assert to_hex(np.asarray(drawn.get_facecolor())[0]) == activation_color("ReLU")
    assert "2 dead channels" in acon_figures.channel_spread(facts).caption


def test_the_diamonds_are_the_layers_own_index(run: Run) -> None:
    axes = run.plot("channel_spread").axes[0]
    diamonds = [c for c in axes.collections if isinstance(c, PathCollection)][-1]
    found = np.asarray(diamonds.get_offsets())[:, 1]
    np.testing.assert_allclose(found, run.linearity()["L"], atol=1e-9)


def test_the_run_without_beta_is_preferred(digits_run: Run, run: Run) -> None:
    facts = Inputs([digits_run, run]).get("every_channel")
    assert set(facts["network"]) == {run.network}
    assert len(Inputs([digits_run]).get("every_channel")) == len(channel_facts([digits_run]))


def test_one_activation_has_one_colour_under_all_its_names() -> None:
    for names in (("SiLU", "Swish / SiLU (β = 1)", "ACON-A (Swish)", "Swish, β = 5", "AconA"),
                  ("MetaAconC", "Meta-ACON", "meta_acon"), ("AconC", "ACON-C", "acon"),
                  ("LeakyReLU", "Leaky ReLU (0.1)", "Leaky ReLU, a = 0.1"),
                  ("GELU", "NewGELUActivation", "gelu")):  # fmt: skip
        assert len({activation_color(name) for name in names}) == 1
    looks = activation_looks(["ReLU", "ReLU", "Mine", "MetaAconC"])
    assert len({look["color"] for look in looks}) == 4
    assert looks[3]["color"] == activation_color("Meta-ACON")
    shown = ["LeakyReLU", "relu", "SiLU", "GELU", "sigmoid", "mul", "Mine"]  # products are "mul"
    assert len({activation_color(name) for name in shown}) == len(shown) - 1
    assert activation_color("mul") == activation_color("GLU") != activation_color("Mine")


def test_tables_that_are_empty_are_explained() -> None:
    with pytest.raises(AconError, match="holds no channel"):
        acon_figures.channel_states(figureframes.every_channel().iloc[:0])
    with pytest.raises(AconError, match="lacks the column"):
        acon_figures.channel_spread(pd.DataFrame({"L": [0.5]}))


def test_a_figure_names_the_run_that_it_was_drawn_from(digits_run: Run, tmp_path: Path) -> None:
    """Where the sources have nothing of the first run, the next one is drawn, and named."""
    first = acon.example_run("cifar10_metaacon")
    sources = {
        "explained": lambda run: figureframes.explained() if run.path != first.path else None
    }
    files = draw(["explanation"], [first, digits_run], tmp_path, formats=["svg"], sources=sources)
    text = next(files).read_text(encoding="utf-8")
    assert f"{digits_run.model} on {digits_run.data_words}" in text
    assert first.model not in text
    heat = digits_run.plot("beta_heatmap")
    assert heat.subject.startswith(f"{digits_run.model} on {digits_run.data_words}: layer ")
    assert "images of digits" in digits_run.data_words


def test_shapes_are_said_in_words() -> None:
    facts = figureframes.channels().iloc[0].copy()
    facts["beta_middle"] = 0.5
    for p1, p2, kappa, L, words in (
        (1.0, -1.0, 5.0, 0.1, "nearly |x|"), (1.0, -0.9, 1.0, 0.1, "a rounded |x|"),
        (1.0, 0.05, 9.0, 0.7, "like ReLU"), (-1.0, 0.0, 1.0, 0.8, "like -Swish"),
        (1.0, 0.4, 9.0, 0.9, "two lines"), (1.0, 0.9, 1.0, 0.999, "a straight line"),
    ):  # fmt: skip
        facts["p1"], facts["p2"], facts["kappa"], facts["L"] = p1, p2, kappa, L
        assert shape_words(facts) == words
    # |x| or -|x|: by the sign of the function itself, with p1 and p2 in either order.
    for p1, p2 in ((1.0, -1.0), (-1.0, 1.0)):
        for beta in (-2.0, 2.0):
            facts["p1"], facts["p2"], facts["kappa"], facts["L"] = p1, p2, 5.0, 0.1
            facts["beta_middle"] = beta
            up = float(acon.family.acon_c(np.array(3.0), p1, p2, beta)) > 0
            assert shape_words(facts) == ("nearly |x|" if up else "nearly -|x|")


def test_a_later_call_may_have_more_channels(tmp_path: Path) -> None:
    """One ReLU after 2 and after 8 channels: figures show all 10."""
    act = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 2), act, nn.Linear(2, 8), act).eval()
    run = acon.capture(model, [torch.randn(64, 4)], tmp_path / "run", progress=False)
    keys = ["layer", "call", "channel"]
    facts = channel_facts([run]).set_index(keys)
    want = run.linearity(by="channel").set_index(keys)
    assert len(want) == 10
    assert facts["L"].equals(want["L"].astype(facts["L"].dtype))


def test_the_spread_of_the_samples_is_that_of_lines_of_their_own(run: Run) -> None:
    table = sample_spread(run)
    assert table["layer"].tolist() == run.layers["layer"].tolist()
    assert table["values"].tolist() == [6.0] * len(table)
    for row in table.to_dict("records"):
        x = seen()[row["layer"]].reshape(96, 6, 12)
        module = nn.GELU() if row["class_name"] == "GELU" else nn.ReLU()
        y = module(torch.from_numpy(x)).numpy()
        x, y = (one - one.mean(axis=1, keepdims=True) for one in (x, y))
        slope = (x * y).sum(1) / np.maximum((x * x).sum(1), 1e-30)
        rest = ((y - slope[:, None] * x) ** 2).sum((1, 2)) / (y * y).sum((1, 2))
        expected = np.quantile(1 - rest, [0.05, 0.25, 0.5, 0.75, 0.95])
        found = [row[name] for name in ("low", "lower", "median", "upper", "high")]
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert (row["least_sample"], row["most_sample"]) == (rest.argmax(), rest.argmin())
    figure = run.plot("sample_spread")
    (boxes,) = figure.axes[0].containers
    assert [box.get_facecolor() for box in boxes] == [(1.0, 1.0, 1.0, 1.0)] * len(table)  # hollow
    np.testing.assert_allclose([box.get_y() for box in boxes], table["lower"])
    assert "hollow: fewer than 50 values" in figure.caption
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named[:-3] == list(dict.fromkeys(table["class_name"]))
    dotted = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)][-1]
    draws = np.random.default_rng(1).standard_normal((20_000, 6, 12))
    bends = np.maximum(draws, 0.0)
    draws, bends = (one - one.mean(axis=1, keepdims=True) for one in (draws, bends))
    slope = (draws * bends).sum(1) / (draws * draws).sum(1)
    rest = ((bends - slope[:, None] * draws) ** 2).sum((1, 2)) / (bends * bends).sum((1, 2))
    heights = [segment[0, 1] for segment in dotted.get_segments()]
    assert heights == pytest.approx([1 - rest.mean()] * len(table), abs=0.01)


def test_of_very_many_samples_every_nth_is_drawn(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acon_analysis.plotdata.sample_spread.MOST_ROWS", 32 * len(run.layers))
    table = sample_spread(run)
    assert (set(table["every"]), set(table["samples"])) == ({3}, {32})
    own = run.linearity(by="sample", columns="all").query("sample % 3 == 0")
    medians = own.groupby("layer", sort=False)["L"].median()
    np.testing.assert_allclose(table["median"], medians.loc[table["layer"]])
    assert "L of 32 samples, one in 3, of" in run.plot("sample_spread").caption


def test_one_value_a_sample_has_no_spread(tmp_path: Path) -> None:
    flat = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    flat_run = acon.capture(flat, [torch.randn(20, 4)], tmp_path / "run", progress=False)
    assert sample_spread(flat_run).empty
    with pytest.raises(AconError, match="at least 3 values a sample"):
        flat_run.plot("sample_spread")
