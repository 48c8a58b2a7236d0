"""Affine layers folded into their neighbours: equal outputs, and what cannot be folded and why."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from acon_analysis.layers import AconC
from acon_hooks.replacement.fitting import fit_units
from acon_hooks.replacement.folding import Folded, FoldError, fold_lines
from acon_hooks.replacement.linearizing import linearize, linearized_layers
from networks import Network


def calling(module: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = module(x)
    return out


class Flat(nn.Module):
    """Channels' means, so that any map becomes logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)


def added(channels: int, behind: nn.Module) -> Network:
    """An addition before the activation: nothing there can take a line."""
    return Network(
        lambda n, x: calling(n.behind, n.act(x + 0.3)), act=AconC(channels), behind=behind
    )


def conv_images(channels: int = 4) -> Tensor:
    return torch.randn(6, channels, 7, 6, generator=torch.Generator().manual_seed(0))


def shaken(model: nn.Module) -> nn.Module:
    """Give every normalisation statistics and parameters that are not the initial ones."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model.eval()


def folded(model: nn.Module, x: Tensor) -> tuple[nn.Module, Folded]:
    fit = fit_units(model, [x])
    lined = linearize(model, fit.plan(budget=1.0))
    return lined, fold_lines(lined, x)


BEFORE = {
    "conv": nn.Conv2d(4, 6, 3, 2, 1),
    "conv_without_bias": nn.Conv2d(4, 6, 3, padding=1, bias=False),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "transposed": nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2),
    "norm": nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6)),
    "plain_norm": nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, affine=False)),
    "dropout": nn.Sequential(nn.Conv2d(4, 6, 1), nn.Dropout(), nn.Identity()),
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_line_goes_into_what_stands_before(name: str) -> None:
    model = shaken(nn.Sequential(BEFORE[name], AconC(6), nn.Conv2d(6, 3, 3, padding=1), Flat()))
    lined, done = folded(model, conv_images())
    assert done.table["where"].tolist() == ["before"]
    assert done.table["reason"].tolist() == [""]
    assert done.error < 1e-6
    assert not linearized_layers(done.model)
    assert isinstance(done.model[1], nn.Identity)  # type: ignore[index]
    x = conv_images()
    torch.testing.assert_close(done.model(x), lined(x), rtol=1e-4, atol=1e-5)


BEHIND = {
    "pointwise": (nn.Conv2d(4, 6, 1, 2), True),
    "unpadded": (nn.Conv2d(4, 6, 3, 2, groups=2, bias=False), True),
    "valid": (nn.Conv2d(4, 6, 3, padding="valid"), True),
    "replicated": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"), True),
    "norm": (nn.BatchNorm2d(4), True),
    "plain_norm": (nn.BatchNorm2d(4, affine=False), True),
    "padded": (nn.Conv2d(4, 6, 3, 2, padding=1), False),
    "padded_pointwise": (nn.Conv2d(4, 6, 1, padding=1), False),
    "same": (nn.Conv2d(4, 6, 3, padding="same", groups=4 // 2), False),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, groups=2), False),
}


@pytest.mark.parametrize("name", BEHIND)
def test_a_line_goes_into_what_stands_behind_where_borders_allow(name: str) -> None:
    module, exact = BEHIND[name]
    model = shaken(nn.Sequential(added(4, module), Flat()))
    lined, done = folded(model, conv_images())
    row = done.table.iloc[0]
    assert (row["where"], row["into"]) == (("behind", "0.behind") if exact else ("", ""))
    assert ("border outputs of 0.behind see only part" in row["reason"]) == (not exact)
    assert done.error < 1e-6
    assert len(linearized_layers(done.model)) == (0 if exact else 1)
    x = conv_images()
    torch.testing.assert_close(done.model(x), lined(x), rtol=1e-4, atol=1e-5)


def test_an_intercept_behind_zero_padding_would_have_been_wrong() -> None:
    """The check can fail: the rule that is broken here is the one the borders need."""
    from acon_hooks.replacement.folding import exact_intercept, fold_after

    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    x = torch.zeros(1, 1, 4, 4)
    expected = conv(x + 1)
    assert not exact_intercept(conv)
    fold_after(conv, torch.ones(1), torch.ones(1))
    wrong = (conv(x) - expected)[0, 0].abs()
    assert float(wrong.detach()[1:-1, 1:-1].max()) < 1e-6
    assert float(wrong.detach()[0].max()) > 1e-3


@pytest.mark.parametrize("before", [True, False])
def test_linear_layers_of_two_and_three_axes(before: bool) -> None:
    x = torch.randn(8, 5, 4, generator=torch.Generator().manual_seed(0))
    for images in (x, x[:, 0]):
        first: nn.Module = nn.Linear(4, 4)
        model = (
            nn.Sequential(first, nn.GELU(), nn.Linear(4, 3))
            if before
            else Network(
                lambda n, x: calling(n.fc, n.act(n.lift(x) + 0.3)),
                lift=nn.Linear(4, 4),
                act=nn.GELU(),
                fc=nn.Linear(4, 3),
            )
        )
        _, done = folded(model.eval(), images)
        assert done.table["where"].tolist() == ["before" if before else "behind"]
        assert done.error < 1e-6


class Used(nn.Module):
    """Neighbours that others use as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.twice = nn.Conv2d(4, 4, 1), nn.SiLU(), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        out = self.twice(self.act(out)) + out
        return calling(self.twice, out).mean((2, 3))


def test_a_line_without_intercept_goes_behind_zero_padding_too() -> None:
    model = nn.Sequential(added(4, nn.Conv2d(4, 6, 3, 2, padding=1)), Flat()).eval()
    units = fit_units(model, [conv_images()])
    lined = linearize(model, replace(units, table=units.table.assign(intercept=0.0)).plan(budget=4))
    done = fold_lines(lined, conv_images())
    assert done.table["where"].tolist() == ["behind"]
    assert done.error < 1e-6


def test_what_is_used_elsewhere_is_left_alone() -> None:
    _, done = folded(Used().eval(), conv_images())
    row = done.table.iloc[0]
    assert (row["where"], row["into"]) == ("", "")
    assert row["reason"] == "before: conv is used 2 times; behind: twice is used 2 times"
    assert done.error == 0


class Carried(nn.Module):
    """A shortcut around an activation that overwrites what the shortcut carries."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(4, 4, 1), nn.ReLU(inplace)
        self.behind, self.flat = nn.Conv2d(4, 4, 1), Flat()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        return calling(self.flat, self.behind(self.relu(h)) + h)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_line_that_a_shortcut_carries_does_not_go_behind(inplace: bool) -> None:
    lined, done = folded(Carried(inplace).eval(), conv_images())
    row = done.table.iloc[0]
    assert row["where"] == ("" if inplace else "behind")
    assert ("overwrites an input that others use" in row["reason"]) == inplace
    assert done.error < 1e-6
    torch.testing.assert_close(done.model(conv_images()), lined(conv_images()))


def twice() -> Network:
    """One activation used twice, of which only one use can be folded."""
    return Network(
        lambda n, x: calling(n.fc, n.act(n.act(n.conv(x)) - 0.2)),
        conv=nn.Conv2d(4, 5, 3, 2, 1),
        act=nn.ReLU(inplace=True),
        fc=Flat(),
    )


def test_each_use_of_a_shared_activation_is_folded_by_itself() -> None:
    lined, done = folded(twice().eval(), conv_images())
    assert done.table["where"].tolist() == ["before", ""]
    assert list(linearized_layers(done.model)) == ["act"]
    x = conv_images()
    for _ in range(2):
        torch.testing.assert_close(done.model(x), lined(x), rtol=1e-4, atol=1e-5)


def test_partly_linear_layers_stay() -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 1), AconC(6), Flat()).eval()
    lined = linearize(model, fit_units(model, [conv_images()]).plan(budget=5))
    assert fold_lines(lined, conv_images()).table.empty


def test_models_that_cannot_be_traced_say_so() -> None:
    model = nn.Sequential(
        Network(
            lambda n, x: calling(n.act, x) if float(x.sum()) > -1000000000.0 else x, act=nn.SiLU()
        ),
        Flat(),
    ).eval()
    lined = linearize(model, fit_units(model, [conv_images()]).plan(budget=1.0))
    with pytest.raises(FoldError, match=r"Sequential cannot be traced by torch\.fx"):
        fold_lines(lined, conv_images())


def test_a_change_of_the_output_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 1), AconC(6), Flat()).eval()
    lined = linearize(model, fit_units(model, [conv_images()]).plan(budget=1.0))
    with pytest.raises(FoldError, match=r"folding has changed the output by .* at most 0 is"):
        fold_lines(lined, conv_images(), tolerance=0)
