"""A model that is moved for a capture gets its own memory back.

Moving is simulated: the model's `to` gives every tensor new memory, as another device does.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

import acon_analysis as acon
from acon_analysis.layers import MetaAconC
from acon_hooks.captures.devices import on_device
from acon_hooks.explainers.data import check_data, conductance_data, explain_data
from model_facts import facts_of
from network_oracle import settled


class Moved(nn.Module):
    """Has a flat buffer behind two of its weights, a tied weight, a gradient, shared memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.norm = nn.Conv2d(1, 4, 3), MetaAconC(4), nn.BatchNorm2d(4)
        self.one, self.two, self.rnn = nn.Linear(4, 4), nn.Linear(4, 4), nn.LSTM(4, 3)
        self.two.bias = self.one.bias
        self.flat = torch.randn(32)
        self.one.weight.data = self.flat[:16].view(4, 4)
        self.two.weight.data = self.flat[16:].view(4, 4)
        self.conv.weight.grad = torch.ones_like(self.conv.weight)
        self.norm.share_memory()
        self.register_buffer("seen", torch.zeros(()))
        self.moves = 0
        self.last = nn.GELU()

    def to(self, *args: Any, **kwargs: Any) -> "Moved":
        object.__setattr__(self, "moves", self.moves + 1)
        return self._apply(lambda t: t.clone())

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.act(self.conv(x))).mean((2, 3))
        h = self.two(self.one(h))
        return self.last(self.rnn(h[None])[0][0]) + self.seen


def facts(model: nn.Module) -> dict[str, Any]:
    return {k: v for k, v in facts_of(model).items() if k != " attribute moves"}


def grads(model: nn.Module) -> list[tuple[int, int]]:
    return [(id(p.grad), p.grad.data_ptr()) for p in model.parameters() if p.grad is not None]


def images() -> Tensor:
    return torch.randn(6, 1, 8, 8)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_capture_puts_the_models_memory_back(layout: Any, tmp_path: Path) -> None:
    model, x = settled(Moved()), images()
    for name in ("conv", "act"):
        nn.Module.to(model.get_submodule(name), memory_format=layout)
    before, gradients = facts(model), grads(model)
    acon.capture(model, [x], tmp_path / "run", progress=False)
    assert model.moves == 2
    assert facts(model) == before
    assert grads(model) == gradients
    model.flat.fill_(2)  # the weights are still views of it
    assert bool((model.two.weight == 2).all())
    assert model.norm.weight.is_shared()
    model.moves = 0
    with pytest.raises(RuntimeError, match="channels"):
        acon.capture(model, [x.expand(6, 2, 8, 8)], tmp_path / "no", progress=False)
    assert model.moves == 2
    after = facts(model)
    memory = [name for name in before if "memory" in name]
    assert [after[name] for name in memory] == [before[name] for name in memory]


def test_what_the_network_changes_stays_changed_in_the_same_memory() -> None:
    model: Any = settled(Moved())
    memory, table = model.seen.data_ptr(), model.seen
    grown = model.norm.running_mean
    with on_device(model, torch.device("cpu")):
        assert model.seen.data_ptr() != memory
        model.seen += 3
        with torch.no_grad():
            model.one.weight[0, 0] = 7
        model.norm.running_mean = torch.full((9,), 5.0)
    assert model.seen is table
    assert (model.seen.data_ptr(), float(model.seen)) == (memory, 3.0)
    assert float(model.flat[0]) == 7
    assert model.norm.running_mean is not grown
    assert model.norm.running_mean.tolist() == [5.0] * 9


def test_tensors_of_other_kinds() -> None:
    class Others(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = nn.Parameter(TwoTensor(torch.ones(2), torch.ones(2)))
            self.register_buffer("sparse", torch.eye(2).to_sparse())
            self.register_buffer("nan", torch.tensor([torch.nan]))
            self.register_buffer("none", None)
            self.register_buffer("wide", torch.ones(1).expand(5))
            self.lazy = nn.LazyLinear(2)

    model: Any = Others()
    kept = dict(model.state_dict(keep_vars=True))
    wide = model.wide.data_ptr()
    with on_device(model, torch.device("cpu")):
        pass
    now = model.state_dict(keep_vars=True)
    assert all(now[name] is value for name, value in kept.items())
    assert model.wide.data_ptr() == wide


def test_explanations_leave_a_model_where_it_was(tmp_path: Path) -> None:
    model = acon.build_model("digits_metaacon")
    moves = []

    class Here(type(model)):  # type: ignore[misc]
        def to(self, *args: Any, **kwargs: Any) -> Any:
            moves.append(args)
            return self._apply(lambda t: t.clone())

    model.__class__ = Here
    before, name = facts_of(model), acon.find_layers(model)[-1].name
    found, _ = explain_data(model, "digits", name, 0, device="cpu", max_steps=32, tolerance=9.0)
    conductance_data(model, "digits", tmp_path, [name], limit=4, device="cpu")
    check_data(model, found, tmp_path, device="cpu", steps=2)
    assert len(moves) == 6
    assert facts_of(model) == before
    assert np.isfinite(found.attributions).all()
