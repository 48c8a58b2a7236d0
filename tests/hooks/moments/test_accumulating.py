"""Moments gathered in hooks, against a float64 two-pass oracle on the same inputs and outputs."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import acon_analysis as acon
from acon_analysis.data.sources import digits
from acon_analysis.errors import UsageError
from acon_analysis.layers import MetaAconC
from acon_analysis.moments.fields import BLOCKS, MOMENT_COLUMNS
from acon_analysis.moments.frames import disk_space, from_frame, to_frame
from acon_analysis.moments.state import Moments, Part, merge_all, residual
from acon_analysis.statistics.linearity import channel_table, layer_table, sample_table
from acon_hooks.layers.scan import PLAIN_KINDS, Layer, default_kinds
from acon_hooks.moments.accumulating import Accumulator, UnmeasuredLayerWarning
from acon_hooks.moments.options import MomentOptions, options_of
from acon_hooks.readings.batch import Key
from acon_hooks.readings.tap import Tap
from gathering import BOTH, KINDS, Parts, accumulator, acon_c, gather
from moment_oracle import acon_parts, as_samples, by_block, from_samples, sample_totals


def oracle(model: nn.Module, images: Tensor, kinds: Sequence[str] = KINDS) -> dict[Key, Moments]:
    """States of single samples (N, C) in float64 from the layers' own inputs and outputs."""
    seen: dict[Key, list[tuple[Layer, Tensor, Tensor, Tensor | None]]] = {}

    def observe(layer: Layer, call: int, x: Tensor, y: Tensor, beta: Tensor | None) -> None:
        kept = None if beta is None else beta.double().expand(len(x), -1, -1).clone()
        row = (layer, x.double().clone(), y.double().clone(), kept)
        seen.setdefault((layer.name, call), []).append(row)

    with Tap(model, kinds=kinds, observe=observe) as tap, torch.inference_mode():
        for start in range(0, len(images), 50):
            batch = images[start : start + 50]
            model(batch)
            tap.take()
    return {key: _state(rows) for key, rows in seen.items()}


def _state(rows: list[tuple[Layer, Tensor, Tensor, Tensor | None]]) -> Moments:
    layer = rows[0][0]

    def flat(values: list[Tensor]) -> np.ndarray:
        whole = torch.cat(values)
        folded = whole.movedim(layer.axis, 1).flatten(2) if whole.ndim > 2 else whole.unsqueeze(2)
        return np.asarray(folded)

    x, y = flat([row[1] for row in rows]), flat([row[2] for row in rows])
    if rows[0][3] is None or layer.p1 is None or layer.p2 is None:
        return as_samples(from_samples(x, y, axis=2))
    beta = torch.cat([row[3] for row in rows if row[3] is not None]).numpy()
    p1, p2 = (p.double().reshape(-1, 1).numpy() for p in (layer.p1, layer.p2))
    static = layer.granularity == "static"
    reference = None if static else _reference(layer)
    parts = acon_parts(x, p1, p2, beta, reference)
    return as_samples(from_samples(x, y, axis=2, parts=parts), None if static else beta.mean(2))


def _reference(layer: Layer) -> np.ndarray:
    from acon_analysis.statistics.gaussian import logit_normal_moments

    norm = layer.module.get_submodule("bn2")
    assert isinstance(norm, nn.BatchNorm2d)
    mean, _ = logit_normal_moments(
        norm.bias.detach().double().numpy(), norm.weight.detach().double().numpy()
    )
    return mean.astype(np.float32).astype(np.float64)[:, None]


def require_equal(parts: Parts, states: dict[Key, Moments], tolerance: float = 3e-6) -> None:
    """Every stored number of every layer, relative to the column's mean size."""
    table = parts["moments"]
    stored = table[["layer", "call"]].drop_duplicates()
    assert set(zip(stored["layer"], stored["call"], strict=True)) == set(states)
    for (layer, call), state in states.items():
        count, width = state.shape
        expected = to_frame(
            by_block(state, np.arange(count)),
            channel=np.arange(width), block=np.arange(BLOCKS)[:, None],
        )  # fmt: skip
        own = table[(table["layer"] == layer) & (table["call"] == call)]
        own = own.sort_values(["block", "channel"])
        for name in expected.columns:
            a, b = expected[name].to_numpy(float), own[name].to_numpy(float)
            if np.isnan(a).all():
                assert np.isnan(b).all(), (layer, name)
                continue
            scale = "cyy" if name.startswith("sse") else name
            size = np.abs(expected[scale]).mean() + 1e-300
            worst = np.abs(a - b).max() / size
            # Residuals of single samples with few pixels are differences of nearly equal numbers.
            assert worst < tolerance * (20 if "within" in name else 1) * 20, (layer, name, worst)
        part: Part = "even" if "cee" in state else "y"
        whole, mine = merge_all(state), merge_all(from_frame(own).reshape(-1, width))
        for s in (whole, mine):
            assert (s["n"] > 0).all()
        bend, found = (residual(s, part) / np.maximum(s["cyy"], 1e-300) for s in (whole, mine))
        assert np.abs(bend - found).max() < tolerance / 3, (layer, np.abs(bend - found).max())


@pytest.fixture(scope="module")
def images() -> Tensor:
    test = digits("test")
    return torch.stack([test[index] for index in range(110)])


@BOTH
@pytest.mark.parametrize("network", ["digits_metaacon", "digits_acon", "digits_relu"])
def test_trained_networks_against_the_oracle(network: str, images: Tensor, kernel: str) -> None:
    model = acon.build_model(network)
    _, parts = gather(model, images, accumulator=accumulator(kernel))
    require_equal(parts, oracle(model, images))


class Pile(nn.Module):
    """Layers of many shapes: maps, sequences, vectors, channels last, in place, used twice."""

    input_shape = (3, 9, 7)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 6, 3)
        self.relu = nn.ReLU(inplace=True)
        self.wide = nn.Conv2d(6, 8, 1)
        self.swish = nn.Hardswish()
        self.line = nn.Conv1d(8, 5, 1)
        self.prelu = nn.PReLU(5)
        self.last = nn.Linear(5, 4)
        self.gelu = nn.GELU()
        self.vector = nn.Linear(4, 7)
        self.silu = nn.SiLU()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.wide(self.relu(self.conv(x))))
        x = self.swish(x - 0.3).flatten(2)
        x = self.prelu(self.line(x)).transpose(1, 2)
        x = self.gelu(self.last(x)).mean(1)
        out: Tensor = self.silu(self.vector(x))
        return out


@BOTH
@pytest.mark.parametrize("layout", ["plain", "channels last", "double"])
def test_every_shape_of_input(layout: str, kernel: str) -> None:
    model, x = Pile(), torch.randn(33, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    if layout == "channels last":
        model, x = (
            model.to(memory_format=torch.channels_last),
            x.to(memory_format=torch.channels_last),
        )
    if layout == "double":
        model, x = model.double(), x.double()
    _, parts = gather(model, x, (7, 20), accumulator(kernel))
    states = oracle(model, x)
    assert ("relu", 1) in states
    require_equal(parts, states, 1e-12 if layout == "double" else 3e-6)


class Shifted(nn.Module):
    """An activation whose inputs have a mean of a hundred standard deviations."""

    def __init__(self, layer: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.layer, self.scale = layer, scale
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(self.scale * x + 100)
        return out


@BOTH
@pytest.mark.parametrize(
    ("layer", "scale"),
    [
        (nn.Sequential(nn.SiLU()), 1.0),
        (acon_c(3, p1=1.0, p2=0.25, beta=0.01), 1.0),
        (acon_c(3, p1=1.0, p2=-0.5, beta=0.02), 0.5),
    ],
)
def test_means_of_a_hundred_deviations(layer: nn.Module, scale: float, kernel: str) -> None:
    model = Shifted(layer, scale)
    x = torch.randn(40, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    _, parts = gather(model, x, accumulator=accumulator(kernel))
    states = oracle(model, x)
    require_equal(parts, states, 1e-5)
    (state,) = states.values()
    whole = merge_all(state)
    bend = residual(whole, "even" if "cee" in whole else "y") / whole["cyy"]
    table = channel_table(parts["moments"])
    np.testing.assert_allclose(table["nonlinearity"], bend, rtol=1e-4, atol=1e-9)


def test_totals_of_samples(images: Tensor) -> None:
    model = acon.build_model("digits_metaacon")
    found, parts = gather(model, images, kinds=("meta_acon",))
    states = oracle(model, images, ("meta_acon",))
    for (layer, call), state in states.items():
        gate = found.constants[layer, call].gate
        assert gate is not None
        expected = sample_totals(
            state, np.arange(len(images)), layer=layer,
            p1=(gate.middle + gate.half).numpy(), p2=(gate.middle - gate.half).numpy(),
            beta=state["mean_beta"],
        )  # fmt: skip
        own = parts["totals"].query("layer == @layer").reset_index(drop=True)
        assert list(own.columns) == list(expected.columns)
        for name in ("sample", "channels", "n"):
            np.testing.assert_array_equal(own[name], expected[name])
        for name in ("cyy", "sse", "cgg", "gain", "cyy_reference", "sse_reference"):
            size = expected[name].mean()
            np.testing.assert_allclose(own[name], expected[name], rtol=2e-5, atol=2e-5 * size)
    assert sample_table(parts["totals"])["L"].between(0, 1).all()


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kernel", ["auto", "eager"])
def test_full_states(images: Tensor, kernel: str, last: bool) -> None:
    model = acon.build_model("digits_metaacon")
    if last:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    layer = "layer2.1.acon"
    full = Accumulator(MomentOptions(full=True, kernel=kernel))
    _, parts = gather(model, images[:20], accumulator=full, kinds=("meta_acon",))
    own = parts["states"].query("layer == @layer")
    assert len(own) == 20 * 32
    caught: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, a: caught.append(a[0]))
    with torch.inference_mode():
        model(images[:20])
    handle.remove()
    x = caught[0].flatten(2).double()
    table = own.pivot(index="sample", columns="channel")
    assert (own["n"] == x.shape[2]).all()
    np.testing.assert_allclose(table["mean_x"], x.mean(2), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        table["cxx"], ((x - x.mean(2, keepdim=True)) ** 2).sum(2), rtol=1e-4, atol=1e-6
    )
    assert own["beta"].between(0, 1).all()


class Constant(nn.Module):
    """Inputs that do not vary, outputs that do not vary, and ordinary ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = acon_c(3, p1=1.0, p2=0.0, beta=10.0)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        a = x[:, :1]
        out: Tensor = self.layer(torch.cat([a * 0 + 0.3, -a.abs() - 2, a], 1))
        return out


def test_constant_inputs_and_dead_outputs() -> None:
    x = torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    _, parts = gather(Constant(), x)
    model = Constant()
    p1, p2, beta = (t.detach().double().flatten().numpy() for t in
                    (model.layer.p1, model.layer.p2, model.layer.beta))  # fmt: skip
    channels = pd.DataFrame({"layer": "layer", "channel": range(3), "p1": p1, "p2": p2})
    table = channel_table(parts["moments"], channels.assign(beta=beta))
    table = table[table["layer"] == "layer"].reset_index(drop=True)
    assert table["constant_input"].tolist() == [True, False, False]
    assert table["dead"].tolist() == [True, True, False]
    assert table["L"].tolist()[:2] == [1.0, 1.0]
    assert table["std_x"][0] == 0
    assert table["L"][2] == pytest.approx(np.pi / (2 * (np.pi - 1)), abs=0.02)


def test_nearly_linear_layers_keep_their_digits() -> None:
    """1 - L of 1e-15 and below, from the even part."""
    layer = acon_c(2, p1=1.0, p2=0.2, beta=1e-7)
    model = nn.Sequential(nn.Identity(), layer).eval()
    x = torch.randn(40, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    _, parts = gather(model, x)
    channels = pd.DataFrame({"layer": "1", "channel": range(2), "p1": 1.0, "p2": 0.2})
    table = channel_table(parts["moments"], channels.assign(beta=1e-7))
    kappa, rho = 1e-7 * 0.8, 0.8 / 1.2
    np.testing.assert_allclose(table["nonlinearity"], rho**2 * kappa**2 / 2, rtol=0.1)


@BOTH
def test_rows_that_are_no_samples_have_values_by_layer_and_channel(kernel: str) -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.act = nn.Linear(4, 4), nn.GELU()
            self.other = nn.SiLU()
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.act(self.linear(x.reshape(-1, 4))).reshape(x.shape)
            last: Tensor = self.other(out)
            return last

    model, x = Windows(), torch.randn(12, 4, 4)
    x[1, 2, 3], x[9] = torch.inf, torch.nan
    words = r"no values by sample of layer 'act'.*24 rows for a batch of 6 samples"
    with pytest.warns(UnmeasuredLayerWarning, match=words):
        _, parts = gather(model, x, (6,), accumulator(kernel))
    assert set(parts["totals"]["layer"]) == {"other"}
    of_act = parts["moments"].query("layer == 'act'")
    assert set(of_act["block"]) == {0, 6}  # a block a batch: its rows belong together
    assert (of_act.groupby("channel")[["n", "n_samples", "n_left_out"]].sum() == [43, 0, 5]).all(
        axis=None
    )
    z = model.linear(x).detach().double().reshape(-1, 4)
    z = z[z.isfinite().all(1)]
    y = F.gelu(z)
    corr = torch.stack([torch.corrcoef(torch.stack([z[:, c], y[:, c]]))[0, 1] for c in range(4)])
    table = channel_table(parts["moments"].query("layer == 'act'"))
    np.testing.assert_allclose(table["L"], corr**2, atol=1e-6)
    assert table["L_own"].isna().all()
    whole = layer_table(parts["moments"]).set_index("layer").loc["act"]
    rest = (1 - corr**2) * y.var(0)
    assert whole["why"].endswith(
        "5 rows left out (NaN or infinity); its rows are no samples: no values by sample"
    )
    np.testing.assert_allclose(whole["L"], 1 - rest.sum() / y.var(0).sum(), atol=1e-6)


def test_options() -> None:
    assert options_of(False) is None
    assert options_of(None) == options_of(True) == MomentOptions()
    assert options_of("full") == MomentOptions(full=True)
    wrong: list[Callable[[], object]] = [
        lambda: options_of("all"),  # type: ignore[arg-type]
        lambda: MomentOptions(blocks=0),
    ]
    for call in wrong:
        with pytest.raises(UsageError):
            call()


def test_kinds_without_acon() -> None:
    assert default_kinds(acon.build_model("digits_relu"), moments=True) == PLAIN_KINDS
    assert default_kinds(acon.build_model("digits_relu"), moments=False) == ("meta_acon", "acon")
    assert default_kinds(nn.Sequential(MetaAconC(4)), moments=True) == ("meta_acon", "acon")


def test_space_is_known(images: Tensor) -> None:
    model = acon.build_model("digits_metaacon")
    found, _ = gather(model, images, kinds=("meta_acon",))
    space = disk_space(
        channels=256, layers=6, samples=1000, units=2, full=False, blocks=101, products=False
    )
    assert found.space(1000, 500) >= space
    assert found.space_text(1000, 500) == ""


@BOTH
def test_in_memory_as_replacement_needs_it(images: Tensor, kernel: str) -> None:
    """Without a folder, sample ids or a second look at the first batch; float64 where asked for."""
    model = acon.build_model("digits_metaacon")
    found = accumulator(kernel)

    def observe(layer: Layer, call: int, x: Tensor, y: Tensor, beta: Tensor | None) -> None:
        found.observe(layer, call, x.double(), y.double(), beta)

    with Tap(model, kinds=KINDS, observe=observe) as tap, torch.inference_mode():
        for start in range(0, len(images), 50):
            model(images[start : start + 50])
            tap.take()
            found.batch()
    frame = found.frame()
    assert not len(found.frame())
    # The network's own y is float32; that of the ACON family is summed from x and β.
    require_equal({"moments": frame}, oracle(model, images), 3e-6)
    plain = {key: state for key, state in oracle(model, images).items() if "cee" not in state}
    layers = {name for name, _ in plain}
    require_equal({"moments": frame[frame["layer"].isin(layers)]}, plain, 1e-12)


def test_rows_that_are_not_samples_and_other_kinds_in_memory() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.other = nn.GELU(), nn.SiLU()
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.other(self.act(x.reshape(-1, 4)).reshape(x.shape))
            return out

    found, x = Accumulator(), torch.randn(6, 4, 4)
    with Tap(Two(), kinds=KINDS, observe=found.observe) as tap, torch.inference_mode():
        for batch in (x[:4], x[4:]):
            tap.model(batch)
            tap.take()
            found.batch()
    table = found.frame().groupby(["layer", "channel"])[["n", "n_samples"]].sum()
    assert table.loc["act"].to_numpy().tolist() == [[24, 24]] * 4
    assert table.loc["other"].to_numpy().tolist() == [[24, 6]] * 4
    none = Accumulator(kinds=("meta_acon",))
    with Tap(Two(), kinds=KINDS, observe=none.observe) as tap, torch.inference_mode():
        tap.model(x)
        tap.take()
        none.batch()
    assert list(none.frame().columns) == [column.name for column in MOMENT_COLUMNS]
    assert not len(none.frame())
