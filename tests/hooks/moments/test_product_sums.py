"""Gated products z = a·g(b): L on both factors, from closed forms and from numpy's lstsq."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import acon_analysis as acon
from acon_analysis.errors import UsageError
from acon_analysis.statistics.linearity import channel_table, layer_table, sample_table
from acon_hooks import fit_units, run_units
from acon_hooks.captures.capturing import Settings
from acon_hooks.layers.scan import scan_layers
from captures import contents
from gathering import BOTH, accumulator, gather
from product_oracle import linearity

#: Network of one GLU on images, vectors or sequences.
Make = Callable[[], nn.Module]


class Gated(nn.Module):
    """GLUs on maps, sequences and vectors, between layers that have their own activation."""

    input_shape = (3, 6, 5)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.first = nn.Conv2d(3, 8, 1), nn.GLU(dim=1)
        self.relu = nn.ReLU()
        self.line, self.second = nn.Linear(4, 10), nn.GLU()
        self.head, self.third = nn.Linear(5, 6), nn.GLU()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(self.conv(x)) - 0.1)
        x = self.second(self.line(x.flatten(2).transpose(1, 2)))
        out: Tensor = self.third(self.head(x.mean(1)))
        return out


def halves_of(model: nn.Module, images: Tensor) -> dict[str, tuple[np.ndarray, ...]]:
    """z, b and a of every GLU, (N, C, P) float64, by hooks of this test's own."""
    seen: dict[str, tuple[np.ndarray, ...]] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.GLU):

            def hook(m: Any, args: tuple[Tensor], y: Tensor, name: str = name) -> None:
                parts = [*args[0].chunk(2, m.dim), y]
                a, b, z = (p.double().movedim(m.dim, 1) for p in parts)
                seen[name] = tuple(t.reshape(*t.shape[:2], -1).numpy() for t in (z, b, a))

            handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return seen


def test_glu_is_found_as_a_product_and_only_if_asked() -> None:
    model = Gated()
    found = [(layer.name, layer.kind) for layer in scan_layers(model, ("activation", "product"))]
    assert found == [(n, "product") for n in ("first",)] + [("relu", "activation")] + [
        (n, "product") for n in ("second", "third")
    ]
    assert [layer.name for layer in scan_layers(model, ("activation",))] == ["relu"]
    example = torch.randn(4, 3, 6, 5)
    settled = {layer.name: layer for layer in acon.find_layers(model, ("product",), example)}
    assert [(layer.axis, layer.channels) for layer in settled.values()] == [(1, 4), (2, 5), (1, 3)]


@BOTH
def test_layer_channel_and_sample_against_least_squares(kernel: str) -> None:
    model, images = Gated(), torch.randn(40, 3, 6, 5)
    made = accumulator(kernel)
    _, parts = gather(
        model, images, cuts=(7, 16), accumulator=made, kinds=("activation", "product")
    )
    channels: Any = channel_table(parts["moments"]).set_index("layer")
    layers: Any = layer_table(parts["moments"]).set_index("layer")
    samples: Any = sample_table(parts["totals"]).set_index("layer")
    for name, (z, b, a) in halves_of(model, images).items():
        by_channel, whole, by_sample = linearity(z, b, a)
        np.testing.assert_allclose(channels.loc[name, "L"], by_channel, atol=1e-6)
        assert layers.loc[name, "L"] == pytest.approx(whole, abs=1e-6)
        if z.shape[2] > 3:
            np.testing.assert_allclose(samples.loc[name, "L"], by_sample, atol=1e-6)
        else:
            assert samples.loc[name, "L"].isna().all()
        gate = 1 / (1 + np.exp(-b))
        alone = linearity(gate, b)
        np.testing.assert_allclose(channels.loc[name, "L_gate"], alone[0], atol=1e-6)
        assert layers.loc[name, "L_gate"] == pytest.approx(alone[1], abs=1e-6)
    assert np.isnan(layers.loc["relu", "L_gate"])
    assert 0 < layers.loc["relu", "L"] < 1


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_channels_on_any_axis(axis: int) -> None:
    model = nn.Sequential(nn.Identity(), nn.GLU(dim=axis)).eval()
    shape = [30, 4, 4, 4]
    shape[axis] = 6
    images = torch.randn(shape)
    _, parts = gather(model, images, kinds=("product",))
    ((z, b, a),) = halves_of(model, images).values()
    expected = linearity(z, b, a)
    table = channel_table(parts["moments"])
    np.testing.assert_allclose(table["L"], expected[0], atol=1e-6)
    np.testing.assert_allclose(sample_table(parts["totals"])["L"], expected[2], atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from([1e-3, 1.0, 1e3]),
    st.floats(-30, 30),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_offsets_scales_and_any_cut_into_batches(
    seed: int, scale: float, offset: float, cuts: list[int]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(24, 6, 5, generator=generator, dtype=torch.float64)
    x[:, :3] = scale * (x[:, :3] + offset)
    x[:, 3:] += offset / 10
    model = nn.GLU(dim=1).eval()
    _, parts = gather(model, x, cuts=cuts, kinds=("product",))
    ((z, b, a),) = halves_of(model, x).values()
    expected = linearity(z, b, a)
    np.testing.assert_allclose(channel_table(parts["moments"])["L"], expected[0], atol=1e-6)
    np.testing.assert_allclose(sample_table(parts["totals"])["L"], expected[2], atol=1e-6)


def test_dead_constant_and_not_finite() -> None:
    x = torch.randn(20, 8, 6)
    x[:, 0] = 0  # a is 0: the output is dead
    x[:, 1], x[:, 5] = 3.0, 1.0  # both factors are constant
    x[:, 6] = 0.5  # b is constant: z is linear in a
    model = nn.GLU(dim=1).eval()
    _, parts = gather(model, x, kinds=("product",))
    table = channel_table(parts["moments"])
    assert list(table["cause"]) == ["dead", "constant_input", "linear_product", "product"]
    assert list(table["dead"]) == [True, True, False, False]
    np.testing.assert_allclose(table["L"][:3], 1.0, atol=1e-12)
    assert table["L_gate"].isna().tolist() == [False, True, True, False]
    x[3, 2, 1] = torch.nan
    _, parts = gather(model, x, kinds=("product",))
    assert (channel_table(parts["moments"])["left_out"] == 1).all()
    assert sample_table(parts["totals"])["left_out"].sum() == 1


def test_capture_stores_products_and_the_run_reads_them(tmp_path: Path) -> None:
    model, images = Gated(), torch.randn(50, 3, 6, 5)
    run = acon.capture(model, TensorDataset(images), tmp_path / "run", unit_size=16, batch_size=8)
    assert run.manifest["format"] == "acon-run/2"
    kinds = dict(zip(run.layers["layer"], run.layers["kind"], strict=True))
    assert kinds == {
        "first": "product",
        "relu": "activation",
        "second": "product",
        "third": "product",
    }
    table: Any = run.linearity(columns="all").set_index("layer")
    channels: Any = run.linearity("channel", columns="all").set_index("layer")
    for name, (z, b, a) in halves_of(model, images).items():
        by_channel, whole, _ = linearity(z, b, a)
        assert table.loc[name, "L"] == pytest.approx(whole, abs=1e-6)
        np.testing.assert_allclose(channels.loc[name, "L"], by_channel, atol=1e-6)
        assert table.loc[name, "L_low"] < whole < table.loc[name, "L_high"]
    assert run.moments["caa"].notna().equals(run.moments["layer"].isin(halves_of(model, images)))
    samples: Any = run.linearity("sample", columns="all").set_index("layer")
    np.testing.assert_allclose(
        samples.loc["first", "L"], linearity(*halves_of(model, images)["first"])[2], atol=1e-6
    )


def test_an_interrupted_capture_ends_with_the_same_bytes(tmp_path: Path) -> None:
    data = TensorDataset(torch.randn(50, 3, 6, 5))
    run_units(Gated(), data, [1, 3], Settings(tmp_path / "a", unit_size=16, batch_size=8))
    acon.capture(Gated(), data, tmp_path / "a", batch_size=8)
    acon.capture(Gated(), data, tmp_path / "b", unit_size=16, batch_size=8)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_run_of_format_1_opens_and_goes_on_without_products(tmp_path: Path) -> None:
    data, path = TensorDataset(torch.randn(50, 3, 6, 5)), tmp_path / "run"
    settings = Settings(path, unit_size=16, batch_size=8, kinds=("activation",))
    run_units(Gated(), data, [0], settings)
    manifest = json.loads((path / "manifest.json").read_text())
    for row in manifest["layers"]:
        del row["gate_of"]
    del manifest["begun_sha256"]
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": "acon-run/1"}))
    run = acon.capture(Gated(), data, path, batch_size=8)
    assert run.complete
    assert run.manifest["format"] == "acon-run/1"
    assert run.layers[["layer", "gate_of"]].to_numpy().tolist() == [["relu", ""]]
    assert run.linearity(columns="all")["L_gate"].isna().all()
    assert "caa" not in run.moments


def test_no_line_replaces_a_product() -> None:
    model, images = Gated(), torch.randn(20, 3, 6, 5)
    assert set(fit_units(model, [images]).table["layer"]) == {"relu"}
    with pytest.raises(UsageError, match="layer 'first' is of kind 'product', not 'meta_acon' or"):
        fit_units(model, [images], layers=["first"])
