"""L by depth: which networks and layers are drawn, and the lines of ReLU."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection

import figureframes
from acon_analysis.errors import AconError, UsageError
from acon_analysis.plotdata.depth import linearity_by_depth as depth_of_runs
from acon_analysis.plotdata.depth import nested_layers, relative_depth, shared_layers
from acon_analysis.runs.run import Run
from acon_analysis.statistics.gaussian import relu_own
from acon_figures import linearity_by_depth
from acon_figures.palette import activation_color


def test_depth_of_a_run_agrees_with_its_table_by_layer(digits_run: Run) -> None:
    table = depth_of_runs([digits_run])
    by_layer = digits_run.linearity(by="layer", columns="all")
    wide = table.pivot(index="place", columns="measure", values="value")
    for name in ("L", "L_own", "G"):
        np.testing.assert_allclose(wide[name], by_layer[name], rtol=1e-12)
    ends = table[table["measure"] == "L"]
    np.testing.assert_allclose(ends["low"], by_layer["L_low"], rtol=1e-9)
    np.testing.assert_allclose(ends["high"], by_layer["L_high"], rtol=1e-9)
    assert list(ends["layer"]) == list(digits_run.layers["layer"])
    assert depth_of_runs([]).empty


def test_products_have_a_line_of_their_own_by_depth() -> None:
    depth = figureframes.depth()
    one = depth[depth["network"] == depth["network"].iloc[0]]
    kinds = one["place"].map(lambda place: "product" if place % 2 else "activation")
    figure = linearity_by_depth(one.assign(kind=kinds))
    lines = [box.lines[0] for box in figure.axes[0].containers]
    own = one[one["measure"] == "L"].sort_values("place")
    assert [list(line.get_xdata()) for line in lines] == [
        list(own["place"][own["place"] % 2 == odd]) for odd in (0, 1)
    ]
    assert lines[0].get_color() != lines[1].get_color()
    assert "Squares: products" in figure.caption
    assert "products" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_linearity_by_depth_draws_the_shared_layers() -> None:
    depth = figureframes.depth()
    table = shared_layers(depth)
    assert set(table["layer"]) == set(figureframes.LAYERS)
    figure = linearity_by_depth(depth, labels={"relu": "ReLU"})
    assert [len(axes.containers) for axes in figure.axes] == [2, 2, 1]
    for axes, measure in zip(figure.axes, ("L", "L_own", "G"), strict=True):
        for line, network in zip(axes.lines[::3], ("acon", "relu"), strict=False):
            own = table[(table["measure"] == measure) & (table["network"] == network)]
            np.testing.assert_array_equal(line.get_xdata(), own["place"])
            np.testing.assert_array_equal(line.get_ydata(), own["value"])
    without_gates = linearity_by_depth(depth[depth["network"] == "relu"])
    assert [len(axes.containers) for axes in without_gates.axes] == [1, 1]
    assert "L_own: every sample has lines of its own" in without_gates.caption
    assert "gate" not in without_gates.caption
    with pytest.raises(AconError, match="share no layer"):
        shared_layers(pd.concat([depth.query("network == 'acon'"), _renamed(depth)]))


def test_networks_of_other_layers_stand_from_first_to_last() -> None:
    depth = figureframes.depth()
    other = _renamed(depth).assign(network="digits_swish")
    table = pd.concat([depth.query("network == 'acon'"), other])
    assert nested_layers(depth)
    assert not nested_layers(table)
    figure = linearity_by_depth(table)
    acon, swish = figure.axes[0].lines[::3]
    np.testing.assert_array_equal(acon.get_xdata(), [0.0, 1.0])
    np.testing.assert_array_equal(swish.get_xdata(), [0.0, 0.5, 1.0])
    assert "each runs from its first to its last" in figure.caption
    with pytest.raises(AconError, match="share no layer"):
        linearity_by_depth(table, by="layer")
    with pytest.raises(UsageError, match="no axis by 'place'"):
        linearity_by_depth(table, by="place")
    assert relative_depth(depth.query("place == 0"))["place"].eq(0.0).all()


def test_networks_of_two_data_sets_stand_in_rows_and_keep_their_activations_colour() -> None:
    depth = figureframes.depth().query("network == 'acon'")
    kinds = {"relu": "ReLU", "acon": "AconC", "swish": "SiLU"}
    table = pd.concat(
        depth.assign(network=f"{data}_{short}", data=f"9 images of {data}", activation=name)
        for data in ("digits", "cifar10")
        for short, name in kinds.items()
    )
    figure = linearity_by_depth(table)
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["digits", "cifar10"]
    for axes in figure.axes:
        colors = [line.get_color() for line in axes.lines[::3]]
        assert colors == [activation_color(name) for name in kinds.values()]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    names = [text.get_text().strip() for text in figure.axes[0].texts]
    assert [name for name in names if name] == list(kinds)
    many = pd.concat([depth.assign(network=f"n{place}") for place in range(13)])
    with pytest.raises(AconError, match="13 networks are too many for one panel"):
        linearity_by_depth(many)


def test_the_line_of_relu_is_that_of_gaussian_inputs() -> None:
    x = np.random.default_rng(0).normal(size=400_000)
    y = np.maximum(x, 0.0)
    explained = np.corrcoef(x, y)[0, 1] ** 2
    figure = linearity_by_depth(figureframes.depth())
    for axes in figure.axes[:1]:
        (height,) = {
            line.get_segments()[0][0, 1]
            for line in axes.collections
            if isinstance(line, LineCollection) and len(line.get_segments()) == 1
        }
        assert height == pytest.approx(explained, abs=2e-3)
        assert axes.get_ylim()[0] < height < axes.get_ylim()[1]


def test_own_lines_are_compared_with_a_relu_of_as_many_values_a_sample() -> None:
    rng = np.random.default_rng(3)
    for count in (4, 9, 64, 400):
        x = rng.standard_normal((4000 if count < 100 else 400, count))
        own = sum(np.polyfit(one, np.maximum(one, 0.0), 1, full=True)[1][0] for one in x)
        variance = x.size * np.var(np.maximum(rng.standard_normal(10**6), 0.0))
        assert relu_own(count) == pytest.approx(1 - own / variance, abs=5e-3)
    assert np.isnan([relu_own(2), relu_own(float("nan"))]).all()
    table = figureframes.depth().query("network == 'relu'")
    last = (table["place"] == 2) & (table["measure"] == "L_own")
    table.loc[last, ["value", "low", "high", "values"]] = [np.nan, np.nan, np.nan, 1.0]
    figure = linearity_by_depth(table)
    own = figure.axes[1].collections
    lines = [c for c in own if isinstance(c, LineCollection)][-1]
    heights = [segment[0, 1] for segment in lines.get_segments()]
    assert heights == [relu_own(400), relu_own(30)]
    hollow = [c for c in own if isinstance(c, PathCollection) and c.get_zorder() == 3]
    assert [np.asarray(c.get_offsets())[:, 0].tolist() for c in hollow] == [[1.0]]
    assert "(hollow: fewer than 50 values). 1 layer has at most 1 value" in figure.caption


def _renamed(depth: pd.DataFrame) -> pd.DataFrame:
    own = depth[depth["network"] == "relu"]
    return own.assign(layer="other." + own["layer"])


def test_a_deep_network_names_its_first_and_last_layer_in_the_caption() -> None:
    names = [f"layer{number}.act" for number in range(49)]
    table = pd.DataFrame(
        [
            {"place": place, "layer": name, "measure": measure}
            for place, name in enumerate(names)
            for measure in ("L", "L_own", "G")
        ]
    ).assign(network="deep", data="9 samples", activation="ReLU", class_name="ReLU", call=0,
             value=0.5, low=0.4, high=0.6, dead=False)  # fmt: skip
    caption = linearity_by_depth(table).caption
    assert caption.endswith("49 layers, from layer0.act to layer48.act.")
    few = linearity_by_depth(table[table["place"] < 3]).caption
    assert few.endswith("Layers: layer0.act, layer1.act, layer2.act.")
