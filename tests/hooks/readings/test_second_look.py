"""Whether rows are samples: proved, not proved, skipped, refused, and the batch named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.errors import AconError
from acon_analysis.layers import MetaAconC
from acon_hooks import HookError, ProofError, Tap, record
from acon_hooks.errors import RowWarning
from acon_hooks.readings.second_look import RowCheck
from networks import Network

C = 4


def net(act: nn.Module, before: Callable[[Tensor], Tensor] = lambda x: x) -> Network:
    """A convolution and an activation, with something done to the samples before and after."""
    return Network(lambda n, x: n.act(n.conv(before(x))), conv=nn.Conv2d(3, C, 3), act=act)


def samples(count: int = 9) -> Tensor:
    """Images of different sizes of their values."""
    return torch.randn(count, 3, 8, 8) * torch.rand(count, 1, 1, 1).mul(3).add(0.2)


def by_mean(x: Tensor) -> Tensor:
    return x[x.mean((1, 2, 3)).argsort()]


def looked(model: nn.Module, *args: Any) -> RowCheck:
    kinds = ("meta_acon", "activation")
    with torch.no_grad(), Tap(model.eval(), kinds=kinds, check_rows=True) as tap:
        model(*args)
    assert tap.rows is not None
    return tap.rows


@pytest.mark.parametrize("act", [MetaAconC(C), nn.GELU(), nn.ReLU(inplace=True)])
@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_an_ordinary_network_is_proved_and_stays_as_it_is(act: nn.Module, count: int) -> None:
    model, x = net(act).eval(), samples(count)
    state, images = torch.get_rng_state(), x.clone()
    assert looked(model, x).status == "proved"
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, images)


def test_the_first_batch_costs_two_more_forward_passes_and_the_others_none() -> None:
    model, sizes = net(nn.GELU()).eval(), []
    model.conv.register_forward_hook(lambda _m, args, _out: sizes.append(len(args[0])))
    with torch.no_grad(), Tap(model, kinds=("activation",), check_rows=True) as tap:
        for _ in range(3):
            model(samples(9))
            tap.take()
        assert tap.batches == 3
    assert sizes == [9, 3, 6, 9, 9]


def test_what_is_read_is_that_of_the_first_pass_alone() -> None:
    model, x, seen = net(MetaAconC(C)).eval(), samples(), []

    def observe(_layer: Any, call: int, given: Tensor, _y: Tensor, _beta: Any) -> None:
        seen.append((call, len(given)))

    with torch.no_grad(), Tap(model, observe=observe, check_rows=True) as tap:
        model(x)
        beta = tap.take()["act", 0].clone()
    with torch.no_grad(), Tap(model) as tap:
        model(x)
        assert torch.equal(tap.take()["act", 0], beta)
    assert seen == [(0, 9)]


@pytest.mark.parametrize("before", [by_mean, lambda x: x.flip(0), lambda x: x.roll(1, 0)])
def test_beta_of_other_samples_is_refused(before: Callable[[Tensor], Tensor]) -> None:
    model = net(MetaAconC(C), before).eval()
    with (
        torch.no_grad(),
        pytest.raises(ProofError, match="'act' belong to other samples"),
        record(model),
    ):
        model(samples())


def test_time_first_tensors_are_no_rows_of_samples() -> None:
    time_first = Network(
        lambda n, x: n.act(n.fc(x.transpose(0, 1))), fc=nn.Linear(3, C), act=nn.GELU()
    )
    with pytest.warns(RowWarning, match="moves the axis of the samples"):
        found = looked(time_first, torch.randn(8, 8, 3) * torch.arange(1, 9).reshape(8, 1, 1))
    assert (found.status, found.layers) == ("mixed", ("act",))


def test_values_that_depend_on_the_batch_name_the_module() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, C, 3), nn.BatchNorm2d(C, track_running_stats=False), MetaAconC(C)
    )
    with pytest.warns(RowWarning, match=r"because '1' normalises by the batch"):
        assert looked(model, samples()).status == "batch"
    with pytest.warns(RowWarning, match="depend on the other samples"):
        assert looked(net(nn.GELU(), lambda x: x - x.mean(0)), samples()).status == "batch"


@pytest.mark.parametrize("repeat", [1, 2])
def test_values_that_depend_on_the_batch_are_named_next_to_rows_of_others(repeat: int) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixed, self.centred = nn.GELU(), nn.ELU()

        def forward(self, x: Tensor) -> Tensor:
            rows = self.mixed(by_mean(x).repeat(repeat, 1, 1, 1))  # no rows of samples where 2
            out: Tensor = self.centred(x - x.mean(0)) + rows[: len(x)]
            return out

    with pytest.warns(RowWarning, match=r"layer 'mixed' belong .*'centred' depend on the other"):
        assert looked(Both(), samples()).layers == ("mixed",)


@pytest.mark.parametrize("x", [samples(1), torch.zeros(5, 3, 8, 8)])
def test_one_sample_or_equal_samples_prove_nothing(x: Tensor) -> None:
    assert looked(net(nn.GELU()), x).status == "not proved"


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return torch.relu(x)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Memory(nn.Module):
    last: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.last.add_(1)
        return x


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Counting(), "attribute 'seen' of module '1'"),
        (Noisy(), "the random state"),
        (Memory(), "tensor 'last' of module '1'"),
    ],
)
def test_a_network_that_its_forward_pass_changes_is_not_run_again(
    part: nn.Module, words: str
) -> None:
    found = looked(nn.Sequential(nn.Conv2d(3, C, 3), part, nn.GELU()), samples())
    assert found.status == "skipped"
    assert words in found.text


def test_a_network_that_takes_no_part_of_its_batch_is_not_proved() -> None:
    model = net(nn.GELU(), lambda x: x + torch.ones(9, 1, 1, 1))
    found = looked(model, samples(9))
    assert found.status == "skipped"
    assert "does not take a part of its first batch (RuntimeError" in found.text


def test_a_second_argument_moves_with_the_samples() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(3, C), nn.GELU()

        def forward(self, x: Tensor, *, scale: dict[str, Tensor]) -> Tensor:
            out: Tensor = self.act(self.fc(x * scale["of"]))
            return out

    model = Scaled().eval()
    with torch.no_grad(), Tap(model, kinds=("activation",), check_rows=True) as tap:
        model(torch.randn(9, 3), scale={"of": torch.rand(9, 1)})
    assert tap.rows is not None
    assert tap.rows.status == "proved"


def test_a_failing_first_pass_is_looked_at_when_it_succeeds() -> None:
    model = net(nn.GELU()).eval()
    with torch.no_grad(), Tap(model, kinds=("activation",), check_rows=True) as tap:
        with pytest.raises(RuntimeError):
            model(torch.randn(9, 5, 8, 8))
        model(samples())
        assert tap.rows is not None
        assert tap.rows.status == "proved"
    assert not model.act._forward_hooks


def test_a_run_keeps_what_was_found_and_refuses_values_by_sample(tmp_path: Path) -> None:
    x = samples(12)
    model = net(nn.GELU()).eval()
    run = acon.capture(model, [x], tmp_path / "fine", progress=False, moments=True)
    assert run.manifest["rows"]["status"] == "proved"
    assert len(run.linearity(by="sample")) == 12
    mixed = net(nn.GELU(), by_mean).eval()
    mixed.conv.load_state_dict(model.conv.state_dict())
    with pytest.warns(RowWarning):
        other = acon.capture(mixed, [x], tmp_path / "mixed", progress=False, moments=True)
    with pytest.raises(AconError, match="by sample: rows of layer 'act' belong to other samples"):
        other.linearity(by="sample")
    first, second = (one.linearity(by="channel")["L"].to_numpy() for one in (run, other))
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_a_hook_error_in_the_first_pass_stays_an_error() -> None:
    model = net(nn.GELU()).eval()
    with (
        torch.no_grad(),
        Tap(model, kinds=("activation",), check_rows=True),
        pytest.raises(HookError, match="outside a forward pass"),
    ):
        model.act(samples())
