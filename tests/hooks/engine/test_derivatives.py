"""Directional derivatives, forward or twice backward, against dense Jacobians in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acon_hooks.engine.derivatives import contradiction, directional, moved_off_kinks


def batch_normed(**options: bool) -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(2, **options).double().train()
    with torch.no_grad():
        norm(3 * torch.randn(5, 2, 3, 3, dtype=torch.float64) + 1)
        for value in norm.parameters():
            value.uniform_(0.5, 2)
    return norm.eval()


def attention(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x * x)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "in place": lambda x: x.relu_() + 1,
    "convolution": nn.Conv2d(2, 3, 3, padding=1).double(),
    "no bias": nn.Conv2d(2, 3, 3, bias=False).double(),
    "linear of itself": lambda x: F.linear(x, x[0, 0]),
    "batch normalisation": batch_normed(),
    "without weights": batch_normed(affine=False),
    "of the batch": batch_normed(track_running_stats=False),
    "attention": attention,
    "constant": lambda x: torch.ones_like(x),
    "detached": lambda x: x.detach() * 2,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_those_of_the_jacobian(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x, v = torch.randn(2, 4, 2, 3, 3, dtype=torch.float64, generator=generator)
    f = FUNCTIONS[name]
    y, slope = directional(f, x, v)
    given = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(y, f(given.clone()))
    jacobian = torch.autograd.functional.jacobian(lambda x: f(x.clone()), given)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(slope, torch.tensordot(jacobian, v, 4))
    assert not slope.requires_grad
    assert (contradiction(f, x, v, slope) == "") == (name != "detached")


def test_x_stays_as_it_is() -> None:
    x = torch.randn(3, 4)
    before = x.clone()
    directional(lambda x: x.relu_(), x, torch.ones(3, 4))
    assert torch.equal(x, before)


def test_kinks_of_flat_pictures_contradict_no_derivative_away_from_them() -> None:
    flat = torch.zeros(4, 1, 12, 12)
    flat[:, :, :6] = 1
    v = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    for f, known in ((lambda x: F.max_pool2d(x, 3), ""), (lambda x: x.detach() * 2, "autograd")):
        x = moved_off_kinks(flat, v)
        assert contradiction(f, flat, v, directional(f, flat, v)[1])
        found = contradiction(f, x, v, directional(f, x, v)[1])
        assert known in found
        assert bool(found) == bool(known)
    assert float((x - flat).abs().max()) < 0.3


def test_a_step_that_crosses_many_bends_is_made_smaller() -> None:
    generator = torch.Generator().manual_seed(1)
    x, v = torch.randn(2, 16, 200, generator=generator)
    v[:, 0] = 1e3  # a value far from the others

    def f(x: Tensor) -> Tensor:
        return torch.sin(2 * x)

    _, slope = directional(f, x, v)
    assert not contradiction(f, x, v, slope)
    assert "autograd" in contradiction(f, x, v, -slope)
    assert "autograd" in contradiction(torch.round, x, v / 1e3, v / 1e3)
