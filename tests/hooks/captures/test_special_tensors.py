"""Tensors that are not the usual ones: measured rightly, or refused in one sentence."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.errors import AconError, UsageError
from acon_analysis.layers import AconC, MetaAconC
from acon_hooks import Tap, record
from acon_hooks.captures.devices import channels_last
from acon_hooks.errors import HookError, UnusedLayerWarning
from acon_hooks.moments.options import MomentOptions
from model_facts import facts_of, unchanged
from network_oracle import assert_measured
from networks import Network


def captured(model: nn.Module, data: Any, folder: Path, **options: Any) -> Any:
    return acon.capture(model.eval(), data, folder / "r", progress=False, **options)


@pytest.mark.parametrize("kernel", ["eager", "auto"])
def test_convolutions_of_two_and_three_axes(kernel: str, tmp_path: Path) -> None:
    model = Network(
        lambda n, x: n.act(n.c3(n.c2(x).unsqueeze(1))), c2=nn.Conv2d(3, 8, 3),
        twin=nn.Conv2d(3, 8, 3), c3=nn.Conv3d(1, 4, 3), act=nn.GELU(),
    ).eval()  # fmt: skip
    model.twin.weight = model.c2.weight  # two names for one weight
    images = torch.randn(4, 3, 8, 8)
    with unchanged(model):
        run = captured(model, [images], tmp_path, moments=MomentOptions(kernel=kernel))
    assert_measured(run, model, [images], {"act": 1})


def test_weights_stay_where_they_are() -> None:
    """One flat buffer behind all of them, and a failure in between."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 2, 2), nn.Linear(2, 2))
    sizes = [p.numel() for p in model.parameters()]
    flat = torch.arange(float(sum(sizes)))
    pieces: Any = torch.split(flat, sizes)
    for p, part in zip(model.parameters(), pieces, strict=True):
        p.data = part.view_as(p)
    before, values = facts_of(model), flat.clone()
    with pytest.raises(KeyError), channels_last(model, wanted=True):  # noqa: PT012
        conv: Any = model[0]
        assert conv.weight.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(conv.weight.flatten(), values[: sizes[0]])
        raise KeyError
    assert facts_of(model) == before
    flat += 1
    assert torch.equal(torch.cat([p.detach().flatten() for p in model.parameters()]), values + 1)


def mapped(also: nn.Module) -> Network:
    """A part of the network runs inside vmap."""
    inside = nn.Sequential(nn.Linear(4, 6), nn.GELU())
    return Network(lambda n, x: n.also(torch.vmap(n.inside)(x)), inside=inside, also=also)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap(tmp_path: Path) -> None:
    x = torch.randn(8, 5, 4)
    vmap = r"'inside.1' \(it runs inside torch.func \(vmap, grad\), where samples cannot be seen\)"
    with pytest.raises(
        HookError, match=f"what looked like layers of these kinds cannot be read: {vmap}$"
    ):
        captured(mapped(nn.Identity()), [x], tmp_path)
    with pytest.warns(UnusedLayerWarning, match=f"left out, and in no result: {vmap}$"):
        run = captured(mapped(nn.ReLU()), [x, x[:3]], tmp_path / "s")
    assert run.layers["layer"].tolist() == ["also"]


def integers() -> Network:
    """An activation of integers, and one of floating-point numbers."""
    return Network(
        lambda n, x: n.real(n.whole((x * 10).int()).float()), whole=nn.ReLU(), real=nn.GELU()
    )


def test_integers_are_left_out_by_name(tmp_path: Path) -> None:
    reason = r"'whole' \(its input is torch.int32, and only floating-point numbers are measured\)"
    with pytest.warns(UnusedLayerWarning, match=f"left out, and in no result: {reason}$"):
        run = captured(integers(), [torch.randn(8, 3, 8, 8)], tmp_path)
    assert run.layers["layer"].tolist() == ["real"]
    with (
        torch.no_grad(),
        Tap(integers().eval(), ["whole", "real"], kinds=("activation",)) as tap,
        pytest.raises(HookError, match=reason),
    ):
        tap.model(torch.randn(2, 3))


def test_what_looked_like_layers_says_why(tmp_path: Path) -> None:
    # Activations of integers only.
    acts = nn.Sequential(*(nn.ReLU() for _ in range(7)))
    whole = Network(lambda n, x: n.acts(x.long()), acts=acts)
    expected = r"'acts.0' \(its input is torch.int64.*'acts.4' \(.*; 2 more$"
    with pytest.raises(
        HookError, match=f"what looked like layers of these kinds cannot be read: {expected}"
    ):
        captured(whole, [torch.randn(4, 3)], tmp_path)


@pytest.mark.parametrize("kernel", ["eager", "auto"])
def test_an_early_exit(kernel: str, tmp_path: Path) -> None:
    """Only some samples of the second batch reach the second activation."""

    def exits() -> Network:
        """Goes on with the samples that begin with a positive number."""
        return Network(lambda n, x: n.two(n.one(x)[x[:, 0] > 0]), one=nn.GELU(), two=nn.GELU())

    whole = torch.rand(4, 3) + 0.1
    some = whole * torch.tensor([1.0, -1.0, 1.0, 1.0])[:, None]
    with pytest.raises(AconError, match="'two' saw 3 rows for a batch of 4") as error:
        captured(exits(), [whole, some], tmp_path, moments=MomentOptions(kernel=kernel))
    assert "\n" not in str(error.value)


def nested(count: int) -> Tensor:
    parts = [torch.randn(size + 1, 3) for size in range(count)]
    return torch.nested.nested_tensor(parts, layout=torch.jagged)


def test_nested_tensors_inside_the_network(tmp_path: Path) -> None:
    def packs(always: bool) -> Network:
        """Packs its samples."""
        return Network(
            lambda n, x: (n.act(nested(len(x)) if always or len(x) == 3 else x), n.also(x))[1],
            act=nn.ReLU(),
            also=nn.Tanh(),
        )

    reason = "it is given nested tensors, whose samples have no common shape"
    x = torch.randn(4, 5)
    with pytest.warns(UnusedLayerWarning, match=rf"'act' \({reason}\)"):
        run = captured(packs(always=True), [x, x], tmp_path)
    assert run.layers["layer"].tolist() == ["also"]
    with torch.no_grad(), Tap(packs(always=False).eval(), kinds=("activation",)) as tap:
        tap.model(x)
        tap.take()
        with pytest.raises(HookError, match=rf"'act', call 0, batch 1: {reason}, which was not so"):
            tap.model(x[:3])


@pytest.mark.parametrize("act", [nn.ReLU(), AconC(4), MetaAconC(4), nn.BatchNorm2d(4)])
def test_an_image_without_a_batch_axis(act: nn.Module, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), act, nn.ReLU())
    text = r"^data: the batch axis is missing: .* \(3, 8, 8\), which layer '0' \(Conv2d\) takes"
    with pytest.raises(UsageError, match=text) as error:
        captured(model, [torch.randn(3, 8, 8)], tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "r" / "manifest.json").exists()


def test_other_samples_without_a_batch_axis(tmp_path: Path) -> None:
    vector = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
    with pytest.raises(UsageError, match=r"missing: a batch has the shape \(5,\), .*'0' \(Linear"):
        captured(vector, [torch.randn(5)], tmp_path)
    line = nn.Sequential(nn.Conv1d(3, 3, 3), nn.ReLU())  # as many rows as there seem to be samples
    with pytest.raises(
        UsageError, match=r"missing: a batch has the shape \(3, 9\), .*'0' \(Conv1d"
    ):
        captured(line, [torch.randn(3, 9)], tmp_path)
    known = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())
    known.input_shape = (3, 8, 8)  # type: ignore[assignment]
    with pytest.raises(UsageError, match=r"batches of images of shape \(3, 8, 8\).*is missing"):
        captured(known, [torch.randn(3, 8, 8)], tmp_path)
    with (
        torch.no_grad(),
        record(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), kinds=("activation",)) as _,
        pytest.raises(HookError, match=r"'1': its input of shape \(4, 6, 6\).*axis is missing"),
    ):
        _._tap.model(torch.randn(3, 8, 8))


def test_networks_that_make_the_missing_axis_themselves(tmp_path: Path) -> None:
    # Takes (N, H, W).
    grey = Network(
        lambda n, x: n.act(n.conv(x.unsqueeze(1))), conv=nn.Conv2d(1, 4, 3), act=nn.ReLU()
    )
    for number, count in enumerate((1, 3)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run = captured(grey, [torch.randn(count, 8, 8)], tmp_path / str(number))
        assert len(run.sample_ids) == count


def test_single_samples_in_a_loop(tmp_path: Path) -> None:
    text = r"'one' \(its input of shape \(4, 6, 6\) has its .*, and no axis of samples\)$"
    # Takes its samples one by one, and goes on with all of them.
    loop = Network(
        lambda n, x: n.all(torch.stack([n.one(n.conv(image)) for image in x])),
        conv=nn.Conv2d(3, 4, 3),
        one=nn.ReLU(),
        all=nn.GELU(),
    )
    with pytest.warns(UnusedLayerWarning, match=text):
        run = captured(loop, [torch.randn(5, 3, 8, 8)], tmp_path)
    assert run.layers["layer"].tolist() == ["all"]


def test_nothing_that_can_be_measured(tmp_path: Path) -> None:
    with (
        pytest.warns(UserWarning, match="no moments of layer '0'"),
        pytest.raises(HookError, match="none of the layers found can be measured: layer '0': its "),
    ):
        captured(nn.Sequential(nn.ReLU()), [torch.randn(5)], tmp_path)
    assert not (tmp_path / "r" / "manifest.json").exists()
