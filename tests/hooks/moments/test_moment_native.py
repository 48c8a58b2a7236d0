"""The compiled kernel of moments: the same sums as torch's operators, or a readable refusal."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import acon_analysis as acon
from acon_analysis.errors import StoreError, UsageError
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.moments.kernels import Gate, rows_of, sums
from acon_hooks.moments.native import build
from acon_hooks.moments.native import sums as native_module
from acon_hooks.moments.native.build import SOURCES, NativeError
from acon_hooks.moments.native.sums import NativeSums, Prepared, native
from acon_hooks.moments.options import MomentOptions, settle
from captures import Tiny, images
from gathering import SIZES, TEAMS, buffer, channels_last, four_threads

CPU = torch.device("cpu")


def data(samples: int, channels: int, pixels: int, kind: str) -> tuple[Tensor, Gate | None]:
    generator = torch.Generator().manual_seed(samples + channels + pixels)
    x = torch.randn(samples, channels, pixels, generator=generator) * 3 + 1
    half, middle, reference = torch.randn(3, channels, generator=generator).double()
    half[0] = 0
    if kind == "plain":
        return x, None
    return x, Gate(half, middle, reference if kind == "referred" else None)


@pytest.mark.parametrize("kind", ["plain", "gated", "referred"])
@pytest.mark.parametrize("last", [False, True])
@SIZES
def test_sums_equal_those_of_float64(
    kernel: NativeSums, kind: str, last: bool, samples: int, channels: int, pixels: int
) -> None:
    x, gate = data(samples, channels, pixels, kind)
    beta = torch.rand(samples, channels, 1) * 2
    y = torch.nn.functional.silu(x)
    expected = sums(x.double(), y.double(), beta.double(), 1, gate)
    if last:
        x, y = channels_last(x), channels_last(y)
    found = kernel.sums(x, y, beta, 1, Prepared(gate))
    assert found is not None
    for index, name in enumerate(rows_of(gate)):
        scale = expected[index].abs().mean() + 1e-30
        worst = float((found[index] - expected[index]).abs().max() / scale)
        exact = name in ("low_x", "high_x", "positive")
        # Without a gate, float64 throughout: only the order of the additions differs.
        bound = 0 if exact else 1e-12 if gate is None or name in ("x", "xx") else 1e-6
        assert worst <= bound, (name, worst)


@pytest.mark.parametrize("kind", ["plain", "gated", "referred"])
@pytest.mark.parametrize("channels", [5, 70])
def test_torch_sums_alike_in_both_layouts(kind: str, channels: int) -> None:
    x, gate = data(2, channels, 33, kind)
    beta = torch.rand(2, channels, 1)
    expected = sums(x.double(), x.double(), beta.double(), 1, gate)
    for values in (x, channels_last(x)):
        found = sums(values, values, beta, 1, gate)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 7, 1), (3, 1, 1), (3, 7, 1)])
def test_beta_that_samples_or_channels_share(
    kernel: NativeSums, shape: tuple[int, int, int]
) -> None:
    x, gate = data(3, 7, 50, "referred")
    beta = torch.rand(shape)
    found = kernel.sums(x, x, beta, 1, Prepared(gate))
    whole = kernel.sums(x, x, beta.expand(3, 7, 1).contiguous(), 1, Prepared(gate))
    assert found is not None
    assert whole is not None
    assert torch.equal(found, whole)


@TEAMS
def test_more_threads_give_the_same_bytes(kernel: NativeSums, team: str) -> None:
    x, gate = data(3, 84, 450, "gated")
    beta = torch.rand(3, 84, 1)
    both = (x, channels_last(x))
    given = beta, 1, Prepared(gate)
    one = [kernel.sums(turned, turned, *given) for turned in both]
    for turned, expected in zip(both, one, strict=True):
        with four_threads(team):
            four = kernel.sums(turned, turned, *given)
        assert four is not None
        assert expected is not None
        assert torch.equal(four, expected)
        torch.testing.assert_close(four, one[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels", [1, 7, 16, 17, 48, 100])
@pytest.mark.parametrize("samples", [1, 5])
def test_single_pixels_are_summed_exactly_without_a_gate(
    kernel: NativeSums, samples: int, channels: int
) -> None:
    generator = torch.Generator().manual_seed(channels)
    features = torch.randn(samples, channels, generator=generator)
    tokens = features.unsqueeze(1)
    for x, axis in ((features, 1), (features[:, :, None, None], 1), (tokens, 2)):
        found = kernel.sums(x, x.tanh(), None, axis, Prepared(None))
        assert found is not None
        assert torch.equal(found, sums(x, x.tanh(), None, axis, None))


def test_single_pixels_of_the_acon_family_are_left_to_torch(kernel: NativeSums) -> None:
    _, gate = data(2, 8, 1, "gated")
    x = torch.randn(2, 8)
    assert kernel.sums(x, x, torch.rand(2, 8, 1), 1, Prepared(gate)) is None


@TEAMS
def test_something_not_finite_is_seen_by_every_thread(kernel: NativeSums, team: str) -> None:
    x = torch.randn(2, 640, 30)
    constants = Prepared(None)
    _, target = buffer(constants, 2, 640)
    with four_threads(team):
        assert kernel.into(x, x, None, 1, constants, target)
        for channel in range(0, 640, 64):
            lost = x.clone()
            lost[1, channel, 7] = torch.nan
            assert kernel.into(lost, lost, None, 1, constants, target) is False


def test_threads_are_those_that_torch_uses() -> None:
    if sys.platform == "linux" and "OpenMP" in torch.__config__.show():
        assert native_module._TEAM


@pytest.mark.parametrize("last", [False, True])
def test_beta_is_passed_on_as_it_is_even_where_it_is_next_to_nothing(
    kernel: NativeSums, last: bool
) -> None:
    x, gate = data(2, 40, 9, "referred")
    if last:
        x = channels_last(x)
    beta = torch.rand(2, 40, 1)
    beta[0, 3], beta[1, 5] = 9.2e-39, 1.4e-45  # float32 below its smallest normal number
    constants = Prepared(gate)
    out, target = buffer(constants, 2, 40)
    assert kernel.into(x, x, beta, 1, constants, target)
    assert torch.equal(out[-1], beta[:, :, 0].double())
    assert 0 < float(out[-1].min()) < 2e-45


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_left_to_torch(kernel: NativeSums, value: float) -> None:
    x, gate = data(2, 4, 30, "plain")
    expected = kernel.sums(x, x, None, 1, Prepared(gate))
    x[1, 2, 29] = value
    found = kernel.sums(x, x, None, 1, Prepared(gate))
    assert found is not None
    assert expected is not None
    lost = ~found.isfinite()
    assert lost.any(0).nonzero().tolist() == [[1, 2]]
    assert lost[:5, 1, 2].all()
    others = torch.ones(2, 4, dtype=torch.bool)
    others[:, 2] = False
    assert torch.equal(found[:, others], expected[:, others])
    torch.testing.assert_close(found[:, 0, 2], expected[:, 0, 2], rtol=1e-12, atol=1e-12)


def test_what_it_is_not_made_for_is_left_to_torch(kernel: NativeSums) -> None:
    x, gate = data(2, 4, 30, "gated")
    constants = Prepared(gate)
    assert kernel.sums(x.double(), x, torch.rand(2, 4, 1), 1, constants) is None
    assert kernel.sums(x, x, torch.rand(2, 4, 30), 1, constants) is None
    assert kernel.sums(x[:, :, 0], x[:, :, 0], torch.rand(2, 4, 1), 1, constants) is None


def test_gates_that_are_shut_for_good_have_no_spread(kernel: NativeSums) -> None:
    """σ is exactly 1 there, and has no variance."""
    x = torch.linspace(50, 60, 100).expand(1, 2, 100).contiguous()
    gate = Gate(torch.ones(2).double(), torch.ones(2).double(), None)
    found = kernel.sums(x, x, torch.tensor([[[1.0], [-1.0]]]), 1, Prepared(gate))
    assert found is not None
    at = dict(zip(rows_of(gate), found, strict=True))
    assert at["t"].tolist() == [[1.0, -1.0]]
    assert at["tt"].tolist() == [[0.0, 0.0]]


def test_without_a_compiler_torch_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    options, reason = settle(MomentOptions(), CPU)
    assert options.kernel == "eager"
    assert "no C++ compiler" in reason
    assert Accumulator().options.kernel == "eager"
    with pytest.raises(UsageError, match="compiled kernel of moments cannot be had: there is no"):
        settle(MomentOptions(kernel="compiled"), CPU)
    with pytest.raises(StoreError, match=r"begun with the compiled kernel.*no C\+\+ compiler"):
        settle(MomentOptions(), CPU, {"kernel": "compiled"})


def test_a_compiler_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\n[ $1 = --version ] || { echo bad source >&2; exit 1; }\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("ACON_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    options, reason = settle(MomentOptions(), CPU, None, said.append)
    assert options.kernel == "eager"
    assert "failed: bad source" in reason
    assert said == ["compiling the kernel of moments, once on this machine (some seconds)"]


def test_it_is_compiled_once(
    kernel: NativeSums, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel is native()
    quick = tmp_path / "quick"
    quick.write_text(
        "#!/bin/sh\n[ $1 = --version ] && exit\nwhile [ $1 != -o ]; do shift; done\n"
        f'cp "{kernel.path}" "$2"\n'
    )
    quick.chmod(0o755)
    monkeypatch.setenv("CXX", str(quick))
    monkeypatch.setenv("ACON_CACHE", str(tmp_path))
    said: list[str] = []
    for _ in range(2):
        monkeypatch.setattr(native_module, "_kept", {})
        native(said.append)
    assert len(said) == len(list(tmp_path.glob("moments-*.so"))) == 1


@pytest.mark.usefixtures("kernel")
def test_source_of_another_version_is_not_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update while a process runs: old Python would call new functions, and crash."""
    monkeypatch.setenv("ACON_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "_SOURCE", b"int older;")
    with (
        pytest.raises(NativeError, match="changed while this process ran: start it again"),
        build.library(build.compiler_path(), None),
    ):
        pass


def test_the_wheel_holds_the_source() -> None:
    builders = pytest.importorskip("hatchling.builders.wheel")
    root = Path(__file__).parents[3]
    packed = {
        file.relative_path for file in builders.WheelBuilder(str(root)).recurse_included_files()
    }
    for path in SOURCES:
        assert path.is_file()
        assert str(path.relative_to(root)) in packed


@pytest.mark.usefixtures("kernel")
def test_a_library_that_sums_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_module, "_TOLERANCE", 1e-18)
    monkeypatch.setattr(native_module, "_kept", {})
    options, reason = settle(MomentOptions(), CPU)
    assert options.kernel == "eager"
    assert reason == "the compiled kernel sums otherwise than torch does"


@pytest.mark.usefixtures("kernel")
def test_a_run_goes_on_with_the_kernel_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Tiny()

    def capture(folder: str, moments: MomentOptions | None = None) -> acon.Run:
        path = tmp_path / folder
        return acon.capture(
            model, images(8), path, batch_size=4, unit_size=4, threads=1, progress=False,
            moments=moments,
        )  # fmt: skip

    both = {}
    for name in ("compiled", "eager"):
        run = capture(name, moments=MomentOptions(kernel=name))
        assert run.manifest["identity"]["moments"]["kernel"] == name
        capture(name)  # "auto" follows the run
        both[name] = run.linearity(by="layer", columns="all")
    np.testing.assert_allclose(both["compiled"]["L"], both["eager"]["L"], atol=1e-6)
    with pytest.raises(StoreError, match=r"moments\.kernel was 'eager', is 'compiled'"):
        capture("eager", moments=MomentOptions(kernel="compiled"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(StoreError, match="begun with the compiled kernel of moments"):
        capture("compiled")
    again = capture("third")
    assert "no C++ compiler" in again.manifest["compute"]["moments_eager_because"]


def test_only_known_kernels() -> None:
    with pytest.raises(UsageError, match="one of auto, compiled, triton, eager, given 'c'"):
        MomentOptions(kernel="c")
