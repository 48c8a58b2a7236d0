"""Edits of single channels: exact values by hand, also where a layer overwrites its input."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from acon_hooks.engine.edits import Edit, Editing, Hold, Line
from acon_hooks.engine.sites import Site
from acon_hooks.engine.visiting import visiting
from acon_hooks.errors import HookError
from networks import Network

X = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]], dtype=torch.float64)
SECOND = torch.tensor([False, True, False])


def line(chosen: Tensor | None = SECOND, axis: int = 1) -> Line:
    slope, intercept = torch.tensor([7.0, 0.5, 7.0]), torch.tensor([7.0, 0.25, 7.0])
    return Line(slope.double(), intercept.double(), chosen=chosen, axis=axis)


class Shortcut(nn.Module):
    """h, a copy of the input, and its activation; the sum of the activation and h leaves."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        h = x.clone()
        out: Tensor = 10 * self.relu(h) + h
        return out


def edited(model: nn.Module, edits: dict[str, Edit], x: Tensor = X, **call: Any) -> Tensor:
    model.eval()
    sites = {Site(name, model.get_submodule(name), **call): edit for name, edit in edits.items()}
    with torch.no_grad(), visiting(model, sites, Editing(sites)):
        out: Tensor = model(x)
    return out


def test_a_line_takes_the_place_of_one_channel() -> None:
    # relu(x), its second channel 0.5·x + 0.25, times 10, plus x.
    expected = [[11.0, -7.5 - 2, 33.0], [-4.0, 27.5 + 5, -6.0]]
    assert edited(Shortcut(inplace=False), {"relu": line()}).tolist() == expected


def test_a_shortcut_that_carries_what_an_activation_overwrote() -> None:
    # The ReLU writes into h: both terms are the edited output.
    expected = [[11.0, 11 * -0.75, 33.0], [0.0, 11 * 2.75, 0.0]]
    assert edited(Shortcut(inplace=True), {"relu": line()}).tolist() == expected
    hold = Hold(torch.tensor([9.0, -1.0, 9.0]), SECOND)
    expected = [[11.0, -11.0, 33.0], [0.0, -11.0, 0.0]]
    assert edited(Shortcut(inplace=True), {"relu": hold}).tolist() == expected
    assert torch.equal(Shortcut(inplace=True)(X), 11 * X.relu())  # nothing is left behind


@pytest.mark.parametrize("inplace", [False, True])
def test_all_channels(inplace: bool) -> None:
    out = edited(nn.Sequential(nn.Identity(), nn.ReLU(inplace)), {"1": line(None)}, X.clone())
    assert out.tolist() == [[14.0, -0.75, 28.0], [-21.0, 2.75, -35.0]]


def test_channels_on_another_axis_and_in_another_dtype() -> None:
    x = X.T.float()
    out = edited(nn.Sequential(nn.ReLU()), {"0": line(axis=0)}, x)
    assert out.dtype == torch.float32
    assert out.tolist() == [[1.0, 0.0], [-0.75, 2.75], [3.0, 0.0]]
    hold = Hold(torch.tensor([9.0, -1.0, 9.0]).double(), SECOND, 0)
    assert edited(nn.Sequential(nn.ReLU()), {"0": hold}, x)[1].tolist() == [-1.0, -1.0]
    assert hold.apply(x, x).dtype == torch.float32


def test_an_input_given_by_its_name() -> None:
    named = Network(lambda n, x: n.relu(input=x.clone()), relu=nn.ReLU(inplace=True))
    assert edited(named, {"relu": line()})[:, 1].tolist() == [-0.75, 2.75]


def twice() -> Network:
    return Network(lambda n, x: n.relu(n.relu(x) - 4), relu=nn.ReLU())


def test_one_call_of_several_and_a_call_that_does_not_happen() -> None:
    hold = Hold(torch.full((3,), 6.0), SECOND)
    assert edited(twice(), {"relu": hold}, call=0).tolist() == [[0, 2, 0], [0, 2, 0]]
    assert edited(twice(), {"relu": hold}, call=1).tolist() == [[0, 6, 0], [0, 6, 0]]
    with pytest.raises(HookError, match="layer 'relu' has no call 2, or did not run"):
        edited(twice(), {"relu": hold}, call=2)


def test_an_edit_lasts_as_long_as_it_is_set() -> None:
    model = Shortcut(inplace=True).eval()
    site = Site("relu", model.relu)
    editing = Editing({site: line()})
    with torch.no_grad(), visiting(model, [site], editing):
        first = model(X)
        editing.edits = {}
        assert torch.equal(model(X), 11 * X.relu())
        editing.edits = {site: line()}
        assert torch.equal(model(X), first)


class Constant(nn.Module):
    def forward(self, shape: tuple[int, int]) -> Tensor:
        return torch.ones(shape)


def test_a_line_needs_an_input() -> None:
    model = Constant().eval()
    sites = {Site("", model): line()}
    with (
        visiting(model, sites, Editing(sites)),
        pytest.raises(HookError, match="Line needs its input"),
    ):
        model((2, 3))
