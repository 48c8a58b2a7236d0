"""Runs with a NaN sample, one sample, one channel, or dead layers: what can be drawn is drawn.

Values are compared with float64 sums of what the network's own layers saw and gave.
"""

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
import acon_figures
from acon_analysis.layers import AconC, MetaAconC
from acon_analysis.plotdata.depth import linearity_by_depth
from acon_analysis.plotdata.overview import headline_frame, layer_overview
from acon_analysis.runs.run import Run
from acon_analysis.statistics.findings import findings, straight_channels
from acon_analysis.statistics.sentences import left_out_text
from acon_figures.drawing import draw
from acon_figures.inputs import SHIPPED
from acon_figures.registry import FIGURES
from acon_figures.report import rendering

KINDS = ("meta_acon", "acon", "activation")
LAYERS = ("1", "3", "5")


def network(channels: int = 8) -> nn.Sequential:
    torch.manual_seed(3)
    first, second = nn.Conv2d(3, channels, 3), nn.Conv2d(channels, channels, 3)
    third = nn.Conv2d(channels, channels, 1)
    gated = MetaAconC(channels), AconC(channels)
    return nn.Sequential(first, gated[0], second, gated[1], third, nn.SiLU()).eval()


def dead_network() -> nn.Sequential:
    model = network()
    with torch.no_grad():
        for index in (0, 2, 4):
            model.get_submodule(str(index)).get_parameter("weight").normal_(0, 1e-10)
    return model


def images(count: int = 32) -> Tensor:
    return torch.randn(count, 3, 10, 10, generator=torch.Generator().manual_seed(4))


def parts(x: Tensor) -> list[Tensor]:
    return list(torch.split(x, 8))


def with_value(sample: int, value: float) -> Tensor:
    x = images()
    x[sample, 0, 3, 3] = value
    return x


CASES: dict[str, tuple[Callable[[], nn.Sequential], Tensor]] = {
    "NaN in the first batch": (network, with_value(1, torch.nan)),
    "NaN later": (network, with_value(20, torch.nan)),
    "infinity": (network, with_value(20, torch.inf)),
    "one sample": (network, images(1)),
    "one channel": (lambda: network(1), images()),
    "equal samples": (network, images(1).expand(12, 3, 10, 10)),
    "dead": (dead_network, images()),
    "black": (network, torch.zeros(12, 3, 10, 10)),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("odd")
    return {
        name: acon.capture(
            make(), parts(x), folder / name.replace(" ", "_"), kinds=KINDS, progress=False
        )
        for name, (make, x) in CASES.items()
    }


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def seen(case: str) -> dict[str, Any]:
    """Inputs and outputs of each layer, float64 (N, C, P), by hooks of this test's own."""
    make, x = CASES[case]
    model, found = make(), {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            pair = (given[0], output)
            found[name] = tuple(v.detach().double().flatten(2).numpy() for v in pair)

        return hook

    for name in LAYERS:
        model.get_submodule(name).register_forward_hook(keep(name))
    with torch.inference_mode():
        model(x)
    return found


def residual(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Sum of squared residuals of the line through x and y, and y's sum of squares."""
    x, y = x - x.mean(), y - y.mean()
    slope = (x @ y) / (x @ x) if x @ x > 0 else 0.0
    rest = y - slope * x
    return float(rest @ rest), float(y @ y)


def test_the_finite_samples_are_measured(runs: dict[str, Run], case: str) -> None:
    run = runs[case]
    table: Any = run.linearity(columns="all").set_index("layer")
    by_sample: Any = run.linearity(by="sample", columns="all").set_index(["layer", "sample"])
    for name, (x, y) in seen(case).items():
        finite = np.isfinite(x).all((1, 2)) & np.isfinite(y).all((1, 2))
        assert table.loc[name, "left_out"] == (~finite).sum()
        assert by_sample.loc[name]["left_out"].tolist() == (~finite).tolist()
        if case in ("dead", "black"):
            assert (table.loc[name, ["L", "sse", "cyy"]] == [1, 0, 0]).all()
            assert table.loc[name, "dead"] == table.loc[name, "channels"] == 8
            assert by_sample.loc[name, "dead"].all()
            assert (by_sample.loc[name, "L"] == 1).all()
            continue
        sums = [residual(x[finite, c].ravel(), y[finite, c].ravel()) for c in range(x.shape[1])]
        sse, cyy = np.sum(sums, axis=0)
        assert table.loc[name, "L"] == pytest.approx(1 - sse / cyy, abs=2e-5)
        for sample in np.flatnonzero(finite)[:3]:
            own = np.sum(
                [residual(*pair) for pair in zip(x[sample], y[sample], strict=True)], axis=0
            )
            assert by_sample.loc[(name, sample), "L"] == pytest.approx(
                1 - own[0] / own[1], abs=2e-5
            )


def test_every_figure_is_drawn_or_named_with_the_reason(
    runs: dict[str, Run], case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_runs = {
        name: spec
        for name, spec in FIGURES.items()
        if name == "smooth_maximum" or (spec.kind == "measured" and not set(spec.frames) <= SHIPPED)
    }
    monkeypatch.setattr("acon_figures.drawing.FIGURES", of_runs)
    said: list[str] = []
    files = list(draw(None, [runs[case]], tmp_path, formats=["svg"], announce=said.append))
    drawn = {file.stem for file in files if file.suffix == ".svg"}
    lost = {line.partition(":")[0] for line in said if ": left out, " in line}
    lacking = [line for line in said if line.startswith("left out, as no run has what they need: ")]
    assert len(lacking) == 1
    lost |= set(lacking[0].partition(": ")[2].split(", "))
    every = {
        f"{spec.name}_{suffix}" if suffix else spec.name
        for spec in of_runs.values()
        for suffix in ("", *spec.variants)
    }
    assert drawn | lost == every
    assert not drawn & lost
    dead = {
        "measures_disagree", "network_sketch", "sample_extremes", "channel_portrait",
        "channel_portraits", "sample_spread",
    }  # fmt: skip
    undrawable = {
        "one sample": {"sample_extremes"},
        "one channel": {"measures_disagree", "network_sketch"},
        "dead": dead,
        "black": dead,
    }
    assert lost == {"explanation"} | undrawable.get(case, set())
    captions = {file.stem: file.read_text() for file in tmp_path.glob("*.txt")}
    words = "left out of layers 1 (MetaAconC), 3 (AconC), 5 (SiLU): NaN or infinity in sample "
    if case.startswith("NaN") or case == "infinity":
        assert words in captions["linearity_by_depth"]
        assert "left out" not in captions["smooth_maximum"]
    else:
        assert not any("left out of layer" in text for text in captions.values())


def test_dead_layers_are_crossed_out_by_depth(runs: dict[str, Run], case: str) -> None:
    depth = linearity_by_depth([runs[case]])
    dead = depth.query("measure == 'L' and dead")["layer"].tolist()
    assert dead == runs[case].linearity().query("dead == channels")["layer"].tolist()
    assert set(dead) == (set(LAYERS) if case in ("dead", "black") else set())
    figure = acon_figures.linearity_by_depth(depth)
    crosses = [len(c.get_offsets()) for c in figure.axes[0].collections if c.get_zorder() == 4]
    assert crosses == [len(dead)]
    assert ("Crosses: layers whose outputs do not vary" in figure.caption) == bool(dead)


def test_a_report_says_what_is_left_out_and_names_no_dead_layer(
    runs: dict[str, Run], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case not in ("NaN later", "dead"):  # the others' figures are drawn above
        monkeypatch.setattr(rendering, "reported", list)
    run = runs[case]
    text = " ".join(unescape(re.sub("<[^>]+>", " ", rendering.render(run))).split())
    layers = layer_overview(run)
    headline = headline_frame(layers)["quantity"].tolist()
    if case in ("dead", "black"):
        assert "Every layer is dead: the output of no channel varies on these data." in text
        assert not {"L_least", "L_greatest"} & set(headline)
        assert "dead" in text
    else:
        assert {"L_least", "L_greatest"} <= set(headline)
    said = left_out_text(run.left_out, len(run.sample_ids), run.layer_names)
    assert (said in text) if said else ("left out of layer" not in text)


def test_a_dead_layer_among_others_is_no_candidate(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model.get_submodule("4").get_parameter("weight").normal_(0, 1e-10)
    run = acon.capture(model, parts(images()), tmp_path / "run", kinds=KINDS, progress=False)
    layers = layer_overview(run).set_index("layer", drop=False)
    assert (layers["dead"] == layers["channels"]).tolist() == [False, False, True]
    assert layers.loc["5", ["s_c_max", "s_c_channel"]].isna().all()
    rows = headline_frame(layers).set_index("quantity")
    assert {rows.loc[name, "layer"] for name in ("L_least", "L_greatest")} == {
        "1 (MetaAconC)",
        "3 (AconC)",
    }
    linear, channels = findings(layers)[0], straight_channels(layers)
    assert channels is not None
    assert " 5 (" not in str(linear)
    assert linear.answer.endswith("1 of 3 layers is dead.")
    assert channels.answer.endswith("8 of them only because their output does not vary.")
