"""An ACON layer's output and its sums by one kernel: both as they are apart."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_hooks.captures import plan
from acon_hooks.captures.capturing import Settings, run_units
from acon_hooks.captures.forward_pass import ForwardPass
from acon_hooks.captures.fusing import FusedMetaAconC
from acon_hooks.engine.feed import Batch
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.moments.kernels import Gate
from acon_hooks.moments.native.sums import NativeSums, Prepared, native
from acon_hooks.moments.options import MomentOptions
from captures import contents, images, tiny
from gathering import TEAMS, buffer, four_threads

pytestmark = pytest.mark.usefixtures("kernel")

Array = npt.NDArray[np.float64]

#: p1, p2, β and the mean of x, at their extremes.
CONSTANTS = {
    "usual": (1.3, -0.4, 0.7, 0.5), "linear": (0.8, 0.8, 1.0, 0.0), "swish": (1.0, 0.0, 1.0, 0.0),
    "odd": (1.0, -1.0, 1e-6, 0.0), "steep": (40.0, -3.0, 1.0, 0.0), "shut": (1.0, 0.25, 30.0, 0.0),
    "far": (1.0, 0.25, 1.0, 1e4), "huge": (1e15, 1e12, 1e-9, 1e3),
    "tiny": (1e-20, -1e-22, 1.0, 0.0), "no β": (1.2, 0.3, 0.0, 0.0),
}  # fmt: skip


def made(shape: tuple[int, ...], axis: int, name: str) -> tuple[Tensor, Tensor, Gate, Array]:
    """Return x, β, the constants and the output by numpy's float64."""
    p1, p2, beta, mean = CONSTANTS[name]
    generator = torch.Generator().manual_seed(len(name) + shape[axis])
    x = torch.randn(shape, generator=generator) + mean
    channels = shape[axis]
    spread = 1 + 0.1 * torch.rand(3, channels, generator=generator).double()
    first, second, reference = p1 * spread[0], p2 * spread[1], spread[2]
    betas = beta * (0.5 + torch.rand(shape[0], channels, 1, generator=generator))
    values = np.moveaxis(x.double().numpy(), axis, -1)
    d, slope = (first - second).numpy(), second.numpy()
    gate = d * betas.double().numpy().reshape(shape[0], *[1] * (len(shape) - 2), channels) * values
    with np.errstate(over="ignore"):
        y = np.moveaxis(values * (d / (1 + np.exp(-gate)) + slope), -1, axis)
    return x, betas, Gate((first - second) / 2, (first + second) / 2, reference), y


def require_output(found: Tensor, expected: Array, x: Tensor, gate: Gate, axis: int) -> None:
    """Compare an output with float64's, to some roundings of the larger of p1·x and p2·x."""
    size = (gate.half.abs() + gate.middle.abs()).numpy()
    scale = np.abs(np.moveaxis(x.double().numpy(), axis, -1)) * size
    gap = np.abs(np.moveaxis(found.double().numpy() - expected, axis, -1))
    assert np.all(gap <= 4e-7 * scale + 1e-37)


@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize(
    ("shape", "axis", "last"),
    [
        ((2, 3, 1, 2), 1, False), ((2, 5, 7, 7), 1, False), ((1, 33, 9, 8), 1, False),
        ((2, 20, 5, 13), 1, True), ((2, 40, 6, 6), 1, True), ((3, 5, 11, 3), 1, True),
        ((2, 50, 24), 2, False), ((2, 7, 17), 2, False), ((3, 6, 130), 1, False),
    ],
)  # fmt: skip
def test_the_output_is_that_of_float64_and_the_sums_stay(
    kernel: NativeSums, shape: tuple[int, ...], axis: int, last: bool, name: str
) -> None:
    x, beta, gate, expected = made(shape, axis, name)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    constants = Prepared(gate)
    samples, channels = shape[0], shape[axis]
    taken, target = buffer(constants, samples, channels)
    before = x.clone()
    y = kernel.activated_into(x, beta, axis, constants, target)
    assert y is not None
    assert y.stride() == x.stride()
    require_output(y, expected, x, gate, axis)
    alone = kernel.sums(x, x, beta, axis, constants)
    assert alone is not None
    assert torch.equal(taken[: constants.rows], alone)
    assert torch.equal(x, before)
    both = kernel.activated(x, beta, axis, constants)
    assert both is not None
    assert torch.equal(both[0], y)
    assert torch.equal(both[1], alone)


@TEAMS
@pytest.mark.parametrize("last", [False, True])
def test_samples_and_threads_do_not_matter(kernel: NativeSums, last: bool, team: str) -> None:
    x, beta, gate, _ = made((3, 84, 15, 30), 1, "usual")
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    constants = Prepared(gate)
    all_of_it = kernel.activated(x, beta, 1, constants)
    assert all_of_it is not None
    y, taken = all_of_it
    one = kernel.activated(x[1:2], beta[1:2], 1, constants)
    assert one is not None
    assert torch.equal(one[0], y[1:2])
    assert torch.equal(one[1], taken[:, 1:2])
    with four_threads(team):
        four = kernel.activated(x, beta, 1, constants)
    assert four is not None
    assert torch.equal(four[0], y)
    assert torch.equal(four[1], taken)


def fused(channels: int) -> tuple[FusedMetaAconC, FusedMetaAconC]:
    """Return a layer twice: by torch's operators, and by the kernel."""
    torch.manual_seed(channels)
    p1, p2 = torch.randn(2, 1, channels, 1, 1)
    inner = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)
    both = tuple(FusedMetaAconC(p1, p2, *inner).eval() for _ in range(2))
    kernel = native()

    def activate(gate: Gate, x: Tensor, beta: Tensor) -> Tensor | None:
        found = kernel.activated(x, beta, 1, Prepared(gate))
        return None if found is None else found[0]

    both[1].activate = activate
    return both[0], both[1]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_where_torch_has_it(value: float) -> None:
    plain, quick = fused(6)
    x = torch.randn(3, 6, 5, 5)
    x[1, 2, 3, 4] = value
    with torch.no_grad():
        expected, found = plain(x), quick(x)
    assert not expected[1].isfinite().all()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_what_the_kernel_is_not_made_for_is_left_to_torch() -> None:
    plain, quick = fused(6)
    cases = (
        torch.randn(2, 6, 1, 1),
        torch.randn(2, 6, 4, 4)[:, :, ::2],
        torch.randn(2, 8, 4, 4)[:, :6],
    )
    with torch.no_grad():
        for x in cases:
            assert torch.equal(quick(x), plain(x))
    x = torch.randn(2, 6, 4, 4, requires_grad=True)
    assert torch.autograd.gradcheck(quick.double(), (x.double(),))


def capture(out: Path, units: list[int] | None = None, **more: Any) -> acon.Run:
    settings: dict[str, Any] = {"unit_size": 8, "batch_size": 4, "threads": 1, "progress": False}
    return run_units(tiny(), images(24), units, Settings(out, fuse=True, **settings, **more))


def test_beta_is_read_from_the_module() -> None:
    """Nothing that the kernel's caller does to β is taken for its source, which would cost time."""
    batch = Batch(0, list(range(4)), images(4).tensors[0])
    with ForwardPass(tiny(), ("meta_acon",), fused=True, moments=Accumulator()) as forward:
        forward.start(batch, lambda: None)
        forward(batch)
        assert forward._tap is not None
        readings = [layer.reading for layer in forward._tap.layers]
    assert [r.describe() for r in readings if r is not None] == ["module fc2, sigmoid"] * 2


def test_a_fused_capture_that_is_resumed_has_the_same_bytes(tmp_path: Path) -> None:
    whole = capture(tmp_path / "a")
    assert whole.manifest["identity"]["fuse"] == "one pass"
    for unit in (0, 2, 1):
        capture(tmp_path / "b", [unit])
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


def test_a_run_goes_on_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of versions whose layers were fused by torch's operators keep them."""
    with monkeypatch.context() as older:
        older.setattr(plan, "_fusing", lambda *_: True)
        whole = capture(tmp_path / "a")
        capture(tmp_path / "b", [0])
    run = capture(tmp_path / "b", [1, 2])
    assert run.manifest["identity"]["fuse"] is True
    assert contents(tmp_path / "b") == contents(whole.path)
    eager = capture(tmp_path / "c", moments=MomentOptions(kernel="eager"))
    assert eager.manifest["identity"]["fuse"] is True
    assert capture(tmp_path / "d", moments=False).manifest["identity"]["fuse"] is True


def test_the_sums_are_those_of_the_output_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L of every channel from the outputs that the next layer is given, by numpy's float64."""
    seen: dict[int, list[tuple[Tensor, Tensor]]] = {}
    forward = FusedMetaAconC.forward

    def watched(self: FusedMetaAconC, x: Tensor) -> Tensor:
        y = forward(self, x)
        seen.setdefault(x.shape[1], []).append((x.clone(), y.clone()))
        return y

    monkeypatch.setattr(FusedMetaAconC, "forward", watched)
    run = capture(tmp_path / "r")
    found = run.linearity(by="channel", columns="all")
    for layer, channels in (("acon", 4), ("acon2", 6)):
        calls = seen[channels][-6:]  # the last pass over 24 images
        x, y = (
            torch.cat(part).double().movedim(1, 0).flatten(1).numpy()
            for part in zip(*calls, strict=True)
        )
        own = found[found["layer"] == layer]["L"].to_numpy()
        for channel in range(channels):
            r = np.corrcoef(x[channel], y[channel])[0, 1]
            assert own[channel] == pytest.approx(r**2, abs=2e-6)
