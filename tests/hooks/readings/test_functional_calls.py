"""Functions that are called from batch to batch: compared, named, and nothing left behind."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

import copy
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack

import acon_analysis as acon
from acon_analysis.errors import UsageError
from acon_hooks import HookError, Tap
from acon_hooks.errors import NoLayerWarning
from model_facts import traces
from network_oracle import settled
from networks import Network

KINDS = ("activation",)


class Block(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.mix, self.function = nn.Linear(4, 4), function

    def forward(self, x: Tensor) -> Tensor:
        first = self.function(self.mix(x))
        return self.function(self.mix(first)) + 0.1 * first


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.block, self.more = nn.Linear(3, 4), Block(torch.relu), 0

    def forward(self, x: Tensor) -> Tensor:
        h = self.block(self.fc(x))
        for _ in range(self.more):
            h = torch.tanh(h)
        if self.more < 0:
            raise KeyboardInterrupt if self.more == -1 else ValueError("of the network")
        return self.block(h) if self.more == 3 else h


def test_later_batches_are_compared_with_the_first() -> None:
    model, x = Branching().eval(), torch.randn(5, 3)
    with torch.no_grad(), acon.record(model, kinds=KINDS):
        model(x)
        model(x[:2])
        model.more = 1
        with pytest.raises(HookError, match=r"':tanh#0', batch 2: it did not run in the first"):
            model(x)
        model.more = 3
        with pytest.raises(HookError, match=r"':tanh#0', batch 2"):
            model(x)
        model.more, model.block.function = 0, torch.tanh
        with pytest.raises(HookError, match=r"'block:tanh#0', batch 2"):
            model(x)
        model.block.function = lambda h: h
        with pytest.raises(HookError, match=r"'block:relu#0' ran 0 times in batch 2, but 1 time"):
            model(x)
    assert traces(model) == []


def test_a_block_that_runs_once_more_is_refused() -> None:
    model, x = Branching().eval(), torch.randn(5, 4)
    model.fc = nn.Identity()  # type: ignore[assignment]
    layers = ["block:relu#0", "block:relu#1"]
    with torch.no_grad(), acon.record(model, layers, kinds=KINDS):
        model(x)
        model.more = 3
        with pytest.raises(HookError, match=r"'block:relu#0', call 1, batch 1: it ran more often"):
            model(x)


@pytest.mark.parametrize(("more", "error"), [(-1, KeyboardInterrupt), (-2, ValueError)])
def test_nothing_is_left_behind(more: int, error: type[BaseException]) -> None:
    model, x = Branching().eval(), torch.randn(5, 3)
    with torch.no_grad(), acon.record(model, kinds=KINDS) as recording:
        model.more = more
        with pytest.raises(error):
            model(x)
        model.more = 0
        model(x)
        assert [layer.name for layer in recording.layers] == ["block:relu#0", "block:relu#1"]
        model.more = more
        with pytest.raises(error):
            model(x)
    assert traces(model) == []


def test_other_threads_and_copies_are_not_seen() -> None:
    model, x = Branching().eval(), torch.randn(5, 3)
    with torch.no_grad(), Tap(model, kinds=KINDS) as tap:
        model(x)
        tap.take()
        other = copy.deepcopy(model)
        thread = threading.Thread(target=other, args=(x,))
        thread.start()
        thread.join()
        other(x)
        F.relu(x)  # outside of the model
        model(x)
        assert tap.take() == {}
        assert tap.batches == 2


def test_a_network_without_functions_is_not_listened_to_after_the_first_batch() -> None:
    modes = []

    class Looks(nn.Identity):
        def forward(self, x: Tensor) -> Tensor:
            modes.append(len(_get_current_function_mode_stack()))
            return x

    model = settled(nn.Sequential(nn.Linear(3, 4), Looks(), nn.ReLU()))
    with torch.no_grad(), Tap(model, kinds=KINDS) as tap:
        for _ in range(3):
            model(torch.randn(6, 3))
            tap.take()
    assert modes[0] > 0
    assert modes[1:] == [0, 0]


def test_names_are_checked() -> None:
    model, x = Branching().eval(), torch.randn(5, 3)
    with pytest.raises(UsageError, match=r"no module 'blok'.*did you mean 'block'"):
        Tap(model, ["blok:relu#0"], kinds=KINDS)
    with pytest.raises(UsageError, match="no elementwise function"):
        Tap(model, ["block:conv2d#0"], kinds=KINDS)
    with (
        torch.no_grad(),
        acon.record(model, ["block:relu#7"], kinds=KINDS),
        pytest.raises(HookError, match="block:relu#7"),
    ):
        model(x)
    with pytest.raises(UsageError, match="called as a function, which has no β"):
        acon.explain(model, torch.randn(2, 1, 3), "block:relu#0")


def test_a_call_that_has_ended_keeps_no_tensors() -> None:
    class Apart(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(x.mean(1, keepdim=True)) * x

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.fc = Apart(), Apart(), nn.Linear(4, 4)
            self.alive: list[bool] = []

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.fc(x)
            given = weakref.ref(hidden)
            hidden = self.fc(self.first(hidden))
            self.alive.append(given() is not None)
            return self.second(hidden)

    model = Watching().eval()
    with torch.no_grad(), Tap(model, kinds=["activation", "product"]) as tap:
        for _ in range(3):
            model(torch.randn(5, 4))
            tap.take()
    assert not model.alive[-1]


def test_find_layers_names_the_way_to_functions_and_takes_a_batch_with_labels() -> None:
    model = Network(lambda n, x: F.silu(n.wide(x)), wide=nn.Linear(3, 4)).eval()
    x = torch.randn(6, 3)
    with pytest.warns(NoLayerWarning, match=r"Network has no module .*find_layers\(model, ex"):
        assert acon.find_layers(model) == []
    for example in (x, [x, torch.arange(6)], (x,)):
        assert [one.name for one in acon.find_layers(model, example=example)] == [":silu#0"]
