"""Attribution of β to pixels: exact on networks whose answer is known, clean afterwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.errors import AconError, UsageError
from acon_analysis.layers import MetaAconC
from acon_hooks.errors import HookError
from acon_hooks.explainers.baselines import make_baseline
from acon_hooks.explainers.explaining import ConvergenceWarning, explain
from acon_hooks.explainers.explanations import Explanation
from acon_hooks.explainers.probing import BetaProbe
from acon_hooks.readings.found_layers import find_layers
from networks import Network
from support_variants import VARIANTS, Variant, shaken

METHODS = ("integrated_gradients", "saliency", "occlusion", "grad_cam")


class Corner(nn.Module):
    """β of channel 0 depends on the upper left quarter alone, of channel 1 on the lower right."""

    def __init__(self) -> None:
        super().__init__()
        self.p1 = nn.Parameter(torch.tensor([1.5, 0.7]).view(1, 2, 1, 1))
        self.p2 = nn.Parameter(torch.tensor([0.2, -0.4]).view(1, 2, 1, 1))
        self.gate = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        first = x[:, 0, :4, :4].mean((1, 2)).tanh()
        second = x[:, 1, 4:, 4:].mean((1, 2)) ** 2
        beta = torch.sigmoid(self.gate(torch.stack([first, second], 1)))[:, :, None, None]
        d = (self.p1 - self.p2) * x
        return d * torch.sigmoid(beta * d) + self.p2 * x


def make_net(act: nn.Module) -> Network:
    return Network(lambda n, x: n.inplace(n.act(x)), act=act, inplace=nn.ReLU(inplace=True))


@pytest.fixture
def smooth() -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = shaken(
        Network(
            lambda n, x: n.last(n.conv2(n.act(n.soft(n.conv1(x))))),
            conv1=nn.Conv2d(3, 8, 3, padding=1),
            soft=nn.SiLU(),
            act=MetaAconC(8),
            conv2=nn.Conv2d(8, 8, 3, stride=2),
            last=MetaAconC(8),
        )
    )
    return net.double()


def hooks_of(model: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        for module in model.modules()
    )


@contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """Fail if hooks, gradients, flags or weights differ afterwards."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    try:
        yield
    finally:
        assert hooks_of(model) == 0
        assert all(p.grad is None for p in model.parameters())
        assert [p.requires_grad for p in model.parameters()] == flags
        assert not model.training
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("channel", [2, None])
@pytest.mark.parametrize("layer", ["act", "last"])
def test_integrated_gradients_are_complete(
    smooth: nn.Module, layer: str, channel: int | None
) -> None:
    images = torch.randn(3, 3, 9, 9)
    with left_alone(smooth):
        found = explain(smooth, images, layer, channel, tolerance=1e-10)
    with acon.record(smooth) as recording:
        smooth(images.double())
        smooth(torch.zeros(3, 3, 9, 9).double())
    betas = recording.beta_matrix(layer)
    betas = betas.mean(1) if channel is None else betas[:, channel]
    np.testing.assert_allclose(found.beta, betas[:3], rtol=1e-15)
    np.testing.assert_allclose(found.beta_baseline, betas[3:], rtol=1e-15)
    total = found.attributions.sum((1, 2, 3))
    np.testing.assert_allclose(total, found.beta - found.beta_baseline, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.delta, total - found.beta + found.beta_baseline, atol=1e-15)
    assert found.converged.all()
    assert found.attributions.shape == images.shape


def test_switch_from_one_sample_to_another(smooth: nn.Module) -> None:
    images = torch.randn(2, 3, 9, 9)
    there = explain(smooth, images[:1], "act", 1, baseline=images[1], tolerance=1e-10)
    back = explain(smooth, images[1:], "act", 1, baseline=images[:1], tolerance=1e-10)
    assert there.baseline == "given image"
    assert there.beta == back.beta_baseline
    np.testing.assert_allclose(there.attributions, -back.attributions, atol=1e-9)


@pytest.mark.parametrize("method", METHODS[:3])
@pytest.mark.parametrize(("channel", "quarter"), [(0, slice(0, 4)), (1, slice(4, 8))])
def test_attribution_lands_where_beta_comes_from(method: str, channel: int, quarter: slice) -> None:
    net = make_net(Corner()).double().eval()
    images = torch.randn(2, 2, 8, 8).double()
    window = {"window": 1} if method == "occlusion" else {}
    with left_alone(net):
        found = explain(net, images, "act", channel, method, **window)  # type: ignore[arg-type]
    inside = np.zeros((2, 8, 8), dtype=bool)
    inside[channel, quarter, quarter] = True
    if method == "occlusion":  # a window spans all image channels
        inside[:] = inside.any(0)
    assert (found.attributions[:, ~inside] == 0).all()
    assert (np.abs(found.attributions[:, inside]) > 0).all()


def test_saliency_is_the_gradient(smooth: nn.Module) -> None:
    images = torch.randn(3, 3, 9, 9).double()
    found = explain(smooth, images, "last", 4, "saliency")
    x = images.clone().requires_grad_()
    inner = smooth.conv2(smooth.act(smooth.soft(smooth.conv1(x))))  # type: ignore[operator]
    last = smooth.last
    logit = last.bn2(last.fc2(last.bn1(last.fc1(inner.mean((2, 3), keepdim=True)))))  # type: ignore[operator,union-attr]
    (gradient,) = torch.autograd.grad(torch.sigmoid(logit)[:, 4].sum(), x)
    np.testing.assert_allclose(found.attributions, gradient.numpy(), rtol=1e-12)


def test_occlusion_is_the_fall_of_beta(smooth: nn.Module) -> None:
    images = torch.randn(1, 3, 9, 9).double()
    found = explain(smooth, images, "act", 0, "occlusion", window=1, batch_size=16)
    dark = images.clone()
    dark[:, :, 2, 5] = 0
    alone = explain(smooth, dark, "act", 0, "saliency")
    for value in found.attributions[0, :, 2, 5]:
        assert value == pytest.approx(
            (found.beta - alone.beta).item(), abs=1e-7
        )  # Captum adds up in float32


def test_grad_cam_weighs_the_channels_of_the_input(smooth: nn.Module) -> None:
    images = torch.randn(2, 3, 9, 9).double()
    found = explain(smooth, images, "act", 3, "grad_cam")
    inner = smooth.soft(smooth.conv1(images)).detach().requires_grad_()  # type: ignore[operator]
    act = smooth.act
    logit = act.bn2(act.fc2(act.bn1(act.fc1(inner.mean((2, 3), keepdim=True)))))  # type: ignore[operator,union-attr]
    (gradient,) = torch.autograd.grad(torch.sigmoid(logit)[:, 3].sum(), inner)
    expected = (gradient.mean((2, 3), keepdim=True) * inner).sum(1, keepdim=True)
    np.testing.assert_allclose(found.attributions, expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    earlier = explain(smooth, images, "last", 3, "grad_cam", at="conv1")
    assert earlier.maps.shape == (2, 9, 9)


class Feed(nn.Module):
    """Makes of one image all the inputs of a variant, smoothly."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.kinds = variant.inputs
        self.act = variant.make(8)

    def forward(self, x: Tensor) -> Tensor:
        args = []
        for index, kind in enumerate(self.kinds):
            image = x * (1 + index)
            args.append(
                {"map": image, "signal": image.flatten(2), "tokens": image.flatten(2).mT}[kind]
            )
        out: Tensor = self.act(*args)
        return out


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_foreign_layers(variant: Variant) -> None:
    torch.manual_seed(1)
    net = shaken(Feed(variant)).double()
    images = torch.randn(3, 8, 4, 3).double()
    if variant.granularity == "static":
        with left_alone(net), pytest.raises(UsageError, match="is a parameter of the network"):
            explain(net, images, "act")
        return
    channel = 5
    baseline: Tensor | str = "zero"
    if variant.name == "hidden":  # β is fitted to z = β·d, and d is 0 at the baseline zero
        with left_alone(net), pytest.raises(HookError, match=r"not defined for the baseline .zero"):
            explain(net, images, "act", channel)
        baseline = images.flip(0) + 1
    with left_alone(net):
        found = explain(net, images, "act", channel, baseline=baseline, steps=64, tolerance=0.02)
    assert found.kind == variant.kind
    assert found.granularity == variant.granularity
    net(images)
    truth = net.act.truth.numpy()
    tokens = variant.inputs[0] == "tokens" and truth.ndim == 3 and truth.shape[-1] == 8
    truth = np.moveaxis(truth, -1, 1) if tokens else truth
    truth = truth.reshape(3, truth.shape[1] if truth.ndim > 1 else 1, -1).mean(2)
    expected = truth[:, channel if truth.shape[1] > 1 else 0]
    np.testing.assert_allclose(found.beta, expected, rtol=1e-9)
    assert np.abs(found.attributions).max() > 0
    assert found.converged.all()


def squeeze(c: int) -> Network:
    return Network(
        lambda n, x: x * n.gate(n.fc2(n.relu(n.fc1(x.mean((2, 3), keepdim=True))))),
        fc1=nn.Conv2d(c, 4, 1),
        relu=nn.ReLU(),
        fc2=nn.Conv2d(4, c, 1),
        gate=nn.Sigmoid(),
    )


def test_gates() -> None:
    torch.manual_seed(2)
    net = make_net(squeeze(6)).double().eval()
    images = torch.randn(4, 6, 5, 5).double()
    with left_alone(net):
        found = explain(net, images, "act", 3, tolerance=1e-3)
    gate = net.act.gate(net.act.fc2(net.act.fc1(images.mean((2, 3), keepdim=True)).relu()))
    assert found.kind == "gate"
    np.testing.assert_allclose(found.beta, gate[:, 3, 0, 0].detach().numpy())
    assert found.converged.all()


def test_second_use_of_a_layer() -> None:
    torch.manual_seed(3)
    twice = Network(lambda n, x: n.act(3 * n.act(x)), act=MetaAconC(4))
    net: nn.Module = shaken(twice).double()
    images = torch.randn(2, 4, 3, 3).double()
    with acon.record(net) as recording:
        net(images)
    frame = recording.betas()
    for call in (0, 1):
        found = explain(net, images, "act", 2, "saliency", call=call)
        seen = frame[(frame["call"] == call) & (frame["channel"] == 2)]["beta"]
        np.testing.assert_array_equal(found.beta, seen)
    with left_alone(net), pytest.raises(HookError, match=r"ran 2 times .* no call 2"):
        explain(net, images, "act", 2, call=2)


def test_detached_beta_is_refused_with_a_way_out() -> None:
    detached = Network(lambda n, x: n.act(x.detach()), act=MetaAconC(4))
    net: nn.Module = shaken(detached)
    images = torch.randn(2, 4, 6, 6)
    with left_alone(net), pytest.raises(HookError, match=r"no gradient .* method='occlusion'"):
        explain(net, images, "act", 0)
    assert explain(net, images, "act", 0, "occlusion").attributions.any()


def test_callers_modes_do_not_matter(smooth: nn.Module) -> None:
    images = torch.randn(1, 3, 9, 9)
    usual = explain(smooth, images, "act", 0, "saliency")
    with torch.no_grad():
        quiet = explain(smooth, images, "act", 0, "saliency")
    with torch.inference_mode():
        strict = explain(smooth, images * 1, "act", 0, "saliency")
    np.testing.assert_array_equal(usual.attributions, quiet.attributions)
    np.testing.assert_array_equal(usual.attributions, strict.attributions)
    assert images.requires_grad is False


def test_missed_sum_is_said(digits_metaacon: nn.Module) -> None:
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.warns(ConvergenceWarning, match="miss the change of β by more than 1e-09"):
        found = explain(
            digits_metaacon, images, "layer2.0.acon", 0, tolerance=1e-9, steps=4, max_steps=8
        )
    assert not found.converged.all()
    assert set(found.steps) <= {4, 8}


def test_digits_within_the_tolerance(digits_metaacon: nn.Module) -> None:
    from acon_analysis.data.sources import digits

    source = digits("test")
    images = torch.stack([source[index] for index in (0, 103)])
    with left_alone(digits_metaacon):
        found = acon.explain(
            digits_metaacon, images, "layer3.0.acon", 5, samples=(0, 103), tolerance=5e-3
        )
    assert found.converged.all()
    frame = found.to_frame()
    assert list(frame["sample"]) == [0, 103]
    np.testing.assert_allclose(frame["attribution_sum"], found.maps.sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(
        frame["attribution_sum"], frame["beta"] - frame["beta_baseline"], atol=5e-3
    )
    pixels = found.pixels()
    assert len(pixels) == 2 * 64
    one = pixels[(pixels["sample"] == 103) & (pixels["row"] == 5) & (pixels["column"] == 5)]
    assert one["attribution"].item() == found.maps[1, 5, 5]


def test_baselines() -> None:
    images = torch.rand(3, 1, 8, 8).double()
    zero, name = make_baseline(images, "zero")
    assert (name, zero.abs().sum().item()) == ("zero", 0.0)
    mean, name = make_baseline(images, "mean")
    assert name == "mean of 3 images"
    np.testing.assert_allclose(mean[1], images.mean(0))
    blur, name = make_baseline(images, "blur")
    assert name == "blur (σ = 2 px)"
    from scipy.ndimage import gaussian_filter

    for image, smooth_image in zip(images[:, 0].numpy(), blur[:, 0].numpy(), strict=True):
        expected = gaussian_filter(image, 2.0, mode="nearest", truncate=4.0)
        np.testing.assert_allclose(smooth_image, expected, rtol=1e-12)
    with pytest.raises(UsageError, match="the mean of one image is that image"):
        make_baseline(images[:1], "mean")
    with pytest.raises(UsageError, match="no baseline 'zeros': did you mean 'zero'"):
        make_baseline(images, "zeros")
    with pytest.raises(UsageError, match=r"shape \(2, 1, 8, 8\); images of shape \(3, 1, 8, 8\)"):
        make_baseline(images, images[:2])


Bad = Callable[[nn.Module], Explanation]
IMAGES = torch.zeros(2, 3, 9, 9)
WRONG: list[tuple[str, Bad]] = [
    ("'lasst' does not exist: did you mean 'last'", lambda m: explain(m, IMAGES, "lasst")),
    ("'conv1' is no activation layer", lambda m: explain(m, IMAGES, "conv1")),
    ("'soft' .SiLU. is of kind 'activation'", lambda m: explain(m, IMAGES, "soft")),
    ("no channel 8: it has 8, numbered from 0 to 7", lambda m: explain(m, IMAGES, "act", 8)),
    ("no channel -1", lambda m: explain(m, IMAGES, "act", -1)),
    ("no method 'salience': .*'saliency'", lambda m: explain(m, IMAGES, "act", 0, "salience")),
    ("a window of 10 pixels", lambda m: explain(m, IMAGES, "act", 0, "occlusion", window=10)),
    ("no module 'conv3'", lambda m: explain(m, IMAGES, "act", 0, "grad_cam", at="conv3")),
    ("no images", lambda m: explain(m, IMAGES[:0], "act")),
    ("must be floating-point", lambda m: explain(m, IMAGES.long(), "act")),
    ("got list", lambda m: explain(m, [1.0], "act")),  # type: ignore[arg-type]
    ("got 1 name for 2", lambda m: explain(m, IMAGES, "act", samples=[3])),
    ("1 <= steps <= max_steps", lambda m: explain(m, IMAGES, "act", steps=9, max_steps=8)),
]


@pytest.mark.parametrize(("words", "call"), WRONG, ids=[words for words, _ in WRONG])
def test_mistakes_are_named(smooth: nn.Module, words: str, call: Bad) -> None:
    with left_alone(smooth), pytest.raises(UsageError, match=words):
        call(smooth)


def test_failures_leave_nothing_behind(smooth: nn.Module) -> None:
    layer = find_layers(smooth, example=torch.randn(2, 3, 9, 9).double())[0]

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    with left_alone(smooth):
        handle = smooth.conv2.register_forward_hook(broken)  # type: ignore[union-attr]
        images = torch.randn(1, 3, 9, 9).double()
        with BetaProbe(smooth, layer) as probe, pytest.raises(RuntimeError, match="broken"):
            probe(images)
        handle.remove()
        with pytest.raises(HookError, match="Grad-CAM finds no gradient"):
            explain(smooth, IMAGES, "act", 0, "grad_cam", at="conv2")
    smooth.train()
    with pytest.raises(AconError, match="evaluation mode"):
        explain(smooth, IMAGES, "act")
    assert hooks_of(smooth) == 0
