"""Moments are right to 1e-6 at every offset, scale, size and layout, after any first batch."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.errors import StoreError
from acon_analysis.layers import MetaAconC
from acon_analysis.statistics.linearity import channel_table, layer_table, sample_table
from acon_analysis.store.folder import file_sha256
from acon_hooks.captures.capturing import run_units
from acon_hooks.captures.plan import Settings
from acon_hooks.moments.kernels import Gate, Sums, sums
from acon_hooks.moments.native.sums import NativeSums, Prepared
from captures import Tiny, images
from gathering import BOTH, accumulator, acon_c, channels_last, gather

Array = npt.NDArray[np.float64]
FLOAT32, FLOAT64 = np.finfo(np.float32).eps, np.finfo(np.float64).eps
RELU = np.pi / (2 * (np.pi - 1))  # of centred Gaussian inputs


def deviations(values: Array) -> Array:
    """About the mean over the last axis, in two passes."""
    values = values - values.mean(-1, keepdims=True)
    return np.asarray(values - values.mean(-1, keepdims=True))


def linearity(x: Array, y: Array) -> Array:
    """L of each sample over its channels, one line a channel: (N, C, P) gives (N,)."""
    a, b = deviations(x), deviations(y)
    xx, xy, yy = (a * a).sum(-1), (a * b).sum(-1), (b * b).sum(-1)
    explained = np.divide(xy * xy, xx, out=np.zeros_like(xx), where=xx > 0)
    return np.asarray(explained.sum(1) / yy.sum(1))


def silu(x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-x)))


class Case(NamedTuple):
    """One call of a layer, and how it is to be summed."""

    x: Tensor
    gate: Gate | None
    beta: Tensor

    def output(self) -> Tensor:
        return torch.nn.functional.silu(self.x)


CASES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["plain", "gated", "referred"]),
        "layout": st.sampled_from(["contiguous", "channels last", "transposed"]),
        "dtype": st.sampled_from([torch.float32, torch.float64]),
        "channels": st.integers(1, 40),
        "pixels": st.integers(1, 3000),
        "offset": st.sampled_from([0.0, 0.5, -3.0, 30.0, -1e3, 1e4]),
        "exponent": st.integers(-30, 30),
        "flat": st.sampled_from(["no", "constant", "nearly", "outlier"]),
        "seed": st.integers(0, 10**6),
    }
)
Drawn = dict[str, object]


def case(
    *, kind: str, layout: str, dtype: torch.dtype, channels: int, pixels: int, offset: float,
    exponent: int, flat: str, seed: int,
) -> Case:  # fmt: skip
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, channels, pixels)) + offset
    if flat == "constant":
        x[:, 0] = 0.3
    if flat == "nearly":
        x[:, 0] = 0.3
        x[:, 0, -1] += 1e-4
    if flat == "outlier":
        x[:, 0, 0] += 1e3
    data = torch.tensor(x * 10.0**exponent, dtype=dtype)
    if layout == "channels last":
        data = channels_last(data)
    if layout == "transposed":
        data = data.transpose(0, 2).contiguous().transpose(0, 2)
    p1, p2, reference = torch.tensor(rng.standard_normal((3, channels))).float().double()
    gate = None
    if kind != "plain":
        gate = Gate((p1 - p2) / 2, (p1 + p2) / 2, reference if kind == "referred" else None)
    return Case(data, gate, torch.tensor(rng.uniform(0, 2, (2, channels, 1))).float())


def require_right(found: Sums, at: Case) -> None:
    """Compare with two passes of numpy in float64."""
    x = at.x.double().numpy()
    size = np.sqrt((x * x).mean(-1))
    a = deviations(x)
    xx = (a * a).sum(-1)
    # Data in float64 have no digits left of a spread that is nearly their own rounding.
    rest = x.shape[2] * (FLOAT64 * size) ** 2
    np.testing.assert_allclose(found.x, x.mean(-1), rtol=1e-12, atol=1e-12 * size.max())
    assert (np.abs(found.xx.numpy() - xx) <= 1e-9 * xx + rest).all()
    assert not found.xx[(x == x[:, :, :1]).all(-1)].any()
    if at.gate is None:
        b = at.output().double().numpy()
        check(x, b, found.ww.numpy(), found.xw.numpy(), found.xx.numpy(), np.abs(b).max(-1))
        return
    half, middle = at.gate.half.numpy()[:, None], at.gate.middle.numpy()[:, None]
    gates = [(at.beta.double().numpy(), found.ww, found.xw)]
    if at.gate.reference is not None and found.rr is not None and found.xr is not None:
        gates.append((at.gate.reference.numpy()[:, None], found.rr, found.xr))
    for beta, ww, xw in gates:
        even = half * x * np.tanh(beta * half * x)
        line = middle[:, 0]
        yy = ww.numpy() + line * (2 * xw.numpy() + line * found.xx.numpy())
        xy = xw.numpy() + line * found.xx.numpy()
        check(
            x,
            middle * x + even,
            yy,
            xy,
            found.xx.numpy(),
            ((abs(half) + abs(middle)) * abs(x)).max(-1),
        )


def check(x: Array, y: Array, yy: Array, xy: Array, xx: Array, size: Array) -> None:
    """Every channel's L, unless its output varies by less than 100 roundings of float32."""
    b = deviations(y)
    lively = ((b * b).mean(-1) > (100 * FLOAT32 * size) ** 2) & (xx > 0)
    for sample, channel in np.argwhere(lively):
        own = slice(channel, channel + 1)
        right = linearity(x[sample, None, own], y[sample, None, own])[0]
        one = (sample, channel)
        assert xy[one] * (xy[one] / xx[one]) / yy[one] == pytest.approx(right, abs=1e-6)


EXAMPLES: list[Drawn] = [
    {"kind": kind, "layout": "contiguous", "dtype": torch.float32, "channels": 3, "pixels": 900,
     "offset": offset, "exponent": exponent, "flat": "no", "seed": 0}
    for kind in ("plain", "gated", "referred")
    for offset, exponent in ((0.0, -30), (0.0, 30), (1e4, 0), (-1e4, 3))
]  # fmt: skip


def with_examples(test: Callable[[Drawn], None]) -> Callable[[Drawn], None]:
    for drawn in EXAMPLES:
        test = example(drawn)(test)
    return test


@settings(max_examples=150, deadline=None)
@given(CASES)
@with_examples
def test_torch_against_numpy(drawn: Drawn) -> None:
    at = case(**drawn)  # type: ignore[arg-type]
    before = at.x.clone()
    require_right(Sums(*sums(at.x, at.output(), at.beta, 1, at.gate)), at)
    assert torch.equal(at.x, before)


def test_the_compiled_kernel_against_numpy(kernel: NativeSums) -> None:
    @settings(max_examples=300, deadline=None)
    @given(CASES)
    @with_examples
    def run(drawn: Drawn) -> None:
        at = case(**drawn)  # type: ignore[arg-type]
        found = kernel.sums(at.x, at.output(), at.beta, 1, Prepared(at.gate))
        single = at.x.shape[2] == 1 and at.gate is not None
        assert (found is None) == (at.x.dtype == torch.float64 or single)
        if found is not None:
            require_right(Sums(*found), at)

    run()


@BOTH
@pytest.mark.parametrize("first", [1e3, -1e6, 1e-12, 0.0])
def test_the_first_batch_may_be_unlike_the_rest(first: float, kernel: str) -> None:
    generator = torch.Generator().manual_seed(0)
    usual = torch.randn(30, 2, 16, 16, generator=generator)
    odd = torch.full((6, 2, 16, 16), first) + usual[:6] * abs(first) * 1e-4
    model = nn.Sequential(nn.Identity(), nn.SiLU()).eval()
    _, parts = gather(model, torch.cat([odd, usual]), (6,), accumulator(kernel))
    x = usual.flatten(2).double().numpy()
    own = sample_table(parts["totals"]).set_index("sample")["L"].loc[6:]
    np.testing.assert_allclose(own, linearity(x, silu(x)), rtol=0, atol=1e-7)
    # The blocks of later samples hold nothing of the first batch: here each holds one sample.
    table = parts["moments"].query("block >= 6").sort_values(["block", "channel"])
    cyy = (deviations(silu(x)) ** 2).sum(-1)
    np.testing.assert_allclose(table["cyy"].to_numpy().reshape(30, 2), cyy, rtol=1e-6)


@BOTH
def test_l_own_and_the_gap_of_a_first_batch_unlike_the_rest(kernel: str) -> None:
    generator = torch.Generator().manual_seed(1)
    usual = torch.randn(40, 3, 12, 12, generator=generator)
    data = torch.cat([usual[:8] + 1e3, usual])
    model = nn.Sequential(nn.Identity(), nn.SiLU()).eval()
    _, parts = gather(model, data, (8,), accumulator(kernel))
    x = data.flatten(2).double().numpy().swapaxes(0, 1)  # (C, N, P)
    y = silu(x)
    a, b = deviations(x), deviations(y)
    sse = (b * b).sum(-1) - (a * b).sum(-1) ** 2 / (a * a).sum(-1)
    cyy = (deviations(y.reshape(3, -1)) ** 2).sum(-1)
    table = channel_table(parts["moments"])
    np.testing.assert_allclose(table["L_own"], 1 - sse.sum(-1) / cyy, rtol=0, atol=1e-9)
    whole = [linearity(x[c].reshape(1, 1, -1), y[c].reshape(1, 1, -1))[0] for c in range(3)]
    np.testing.assert_allclose(table["L"], whole, rtol=0, atol=1e-9)


@BOTH
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e19, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_relu_of_a_gaussian_is_the_same_at_every_scale(
    scale: float, dtype: torch.dtype, kernel: str
) -> None:
    generator = torch.Generator().manual_seed(2)
    x = (torch.randn(64, 2, 32, 32, generator=generator).double() * scale).to(dtype)
    model = nn.Sequential(nn.Identity(), nn.ReLU()).eval()
    _, parts = gather(model, x, accumulator=accumulator(kernel))
    table = channel_table(parts["moments"])
    assert table["L"].to_numpy() == pytest.approx(RELU, abs=5e-3)
    flat = x.double().numpy().swapaxes(0, 1).reshape(1, 2, -1)
    for channel, own in enumerate(table["L"]):
        one = flat[:, channel : channel + 1]
        assert own == pytest.approx(linearity(one, np.maximum(one, 0))[0], abs=1e-9)
    samples = sample_table(parts["totals"])
    pixels = x.flatten(2).double().numpy()
    np.testing.assert_allclose(samples["L"], linearity(pixels, np.maximum(pixels, 0)), atol=1e-9)
    assert not table["dead"].any()


@BOTH
def test_a_large_map(kernel: str) -> None:
    x = torch.randn(1, 1, 2048, 2048, generator=torch.Generator().manual_seed(3))
    model = nn.Sequential(nn.Identity(), nn.SiLU()).eval()
    _, parts = gather(model, x, accumulator=accumulator(kernel))
    flat = x.double().numpy().reshape(1, 1, -1)
    right = linearity(flat, silu(flat))[0]
    assert channel_table(parts["moments"])["L"][0] == pytest.approx(right, abs=1e-8)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float64(dtype: torch.dtype, kernel: str) -> None:
    """Tens of thousands of values, of which float16 could count no more than 2048."""
    x = (torch.randn(2, 3, 200, 200, generator=torch.Generator().manual_seed(4)) + 5).to(dtype)
    model = nn.Sequential(nn.Identity(), nn.ReLU()).eval()
    _, parts = gather(model, x, accumulator=accumulator(kernel))
    pixels = x.double().flatten(2).numpy()
    table = parts["moments"].sort_values(["block", "channel"])
    np.testing.assert_allclose(table["mean_x"], pixels.mean(-1).ravel(), rtol=1e-12)
    np.testing.assert_allclose(table["cxx"], (deviations(pixels) ** 2).sum(-1).ravel(), rtol=1e-12)


@BOTH
@pytest.mark.parametrize("offset", [-8.0, -10.0, -12.0, 8.0])
def test_the_far_end_of_a_gate(offset: float, kernel: str) -> None:
    """Swish where it nearly vanishes: 1 - |tanh| has digits that float32 has not."""
    layer = acon_c(2, p1=1.0, p2=0.0, beta=1.0)
    x = torch.randn(8, 2, 10, 10, generator=torch.Generator().manual_seed(5)) + offset
    _, parts = gather(nn.Sequential(nn.Identity(), layer).eval(), x, (3,), accumulator(kernel))
    pixels = x.flatten(2).double().numpy()
    own = sample_table(parts["totals"])["L"]
    np.testing.assert_allclose(own, linearity(pixels, silu(pixels)), rtol=0, atol=1e-7)


@BOTH
def test_acon_a_thousand_deviations_off(kernel: str) -> None:
    torch.manual_seed(0)
    layer = MetaAconC(4).eval()
    x = torch.randn(6, 4, 9, 9, generator=torch.Generator().manual_seed(6)) * 1e-3 + 10
    found, parts = gather(nn.Sequential(nn.Identity(), layer).eval(), x, (2,), accumulator(kernel))
    gate = next(iter(found.constants.values())).gate
    assert gate is not None
    with torch.no_grad():
        pooled = x.mean((2, 3), keepdim=True)
        beta = torch.sigmoid(layer.bn2(layer.fc2(layer.bn1(layer.fc1(pooled)))))
    pixels = x.flatten(2).double().numpy()
    half, middle = gate.half.numpy()[:, None], gate.middle.numpy()[:, None]
    bend = half * pixels * np.tanh(beta.flatten(2).double().numpy() * half * pixels)
    right = 1 - linearity(pixels, middle * pixels + bend)
    own = sample_table(parts["totals"])["nonlinearity"]
    np.testing.assert_allclose(own, right, rtol=1e-2, atol=1e-12)


SATURATED = st.fixed_dictionaries(
    {
        "slope": st.floats(-7, -3),  # decades: of the side that the inputs are on
        "beta": st.floats(0.2, 3),
        "depth": st.floats(12, 80),  # how far into that side, in units of 1/β
        "spread": st.floats(0.02, 0.3),  # of the inputs, relative to their mean
        "pixels": st.integers(3, 200),
        "seed": st.integers(0, 10**6),
    }
)


@BOTH
def test_an_acon_that_hardly_varies_is_right_or_says_so(kernel: str) -> None:
    """Where p1·x is left alone, p1 next to 0, sums of the even part leave fewer digits of y."""
    seen = {"said": 0, "not": 0}

    @settings(max_examples=25, deadline=None)
    @given(SATURATED)
    @example({"slope": -5.7, "beta": 1.0, "depth": 50.0, "spread": 0.3, "pixels": 190, "seed": 1})
    @example({"slope": -3.0, "beta": 0.875, "depth": 12.0, "spread": 0.023, "pixels": 3, "seed": 0})
    @example({"slope": -3.0, "beta": 1.0, "depth": 50.0, "spread": 0.3, "pixels": 190, "seed": 1})
    def run(drawn: dict[str, float]) -> None:
        rng = np.random.default_rng(int(drawn["seed"]))
        mean = -drawn["depth"] / drawn["beta"]
        x = mean * (1 + drawn["spread"] * rng.standard_normal((5, 2, 1, int(drawn["pixels"]))))
        data = torch.tensor(np.minimum(x, mean / 10)).float()
        layer = acon_c(2, p1=10 ** drawn["slope"], p2=1.0, beta=drawn["beta"])
        model = nn.Sequential(nn.Identity(), layer).eval()
        _, parts = gather(model, data, (3,), accumulator(kernel))
        p1, p2, beta = (float(v.detach().flatten()[0]) for v in (layer.p1, layer.p2, layer.beta))
        own = pd.DataFrame({"layer": "1", "channel": [0, 1], "p1": p1, "p2": p2, "beta": beta})
        pixels = data.double().numpy().swapaxes(0, 1).reshape(2, -1)
        y = pixels * ((p1 + p2) / 2 + (p1 - p2) / 2 * np.tanh(beta * (p1 - p2) / 2 * pixels))
        size = max(abs(p1), abs(p2)) * np.sqrt((pixels**2).mean(-1)) * FLOAT32
        roundings = y.std(-1) / size
        right = [linearity(pixels[c, None, None], y[c, None, None])[0] for c in (0, 1)]
        table = channel_table(parts["moments"], own).sort_values("channel")
        whole = layer_table(parts["moments"], own).iloc[0]
        for c, row in enumerate(table.to_dict("records")):
            assert row["dead"] == (roundings[c] <= 8)
            said = "; nearly dead: L is blurred, the output varies by " in row["why"]
            assert said == (8 < roundings[c] < 100)
            if not row["dead"]:
                assert row["L"] == pytest.approx(right[c], abs=1e-6 if roundings[c] > 100 else 1e-3)
                seen["said" if said else "not"] += 1
        assert ("nearly dead" in whole["why"]) == (8 < max(roundings) < 100)

    run()
    assert min(seen.values()) > 0


def as_in_float32(run: acon.Run) -> None:
    """Give a run the constants of versions that summed in float32."""
    path = run.path / "references.parquet"
    table = pq.read_table(path)
    for name in ("slope", "offset_x", "offset_w", "offset_r", "offset_t"):
        table = table.append_column(name, pa.array(np.zeros(len(table))))
    pq.write_table(table, path)
    manifest = run.manifest
    manifest["tables"]["references.parquet"] = file_sha256(path)
    run.folder.write_manifest(manifest)


def test_runs_that_were_summed_in_float32(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "part", unit_size=4, progress=False)
    part = run_units(Tiny(), images(8), [0], settings)
    as_in_float32(part)
    with pytest.raises(StoreError, match="rounded to float32: go on with that version, or capture"):
        run_units(Tiny(), images(8), None, settings)
    whole = acon.capture(Tiny(), images(8), tmp_path / "whole", unit_size=4, progress=False)
    as_in_float32(whole)
    again = acon.capture(Tiny(), images(8), tmp_path / "whole", unit_size=4, progress=False)
    assert again.linearity()["L"].between(0, 1).all()
