"""The census: every operator counted, and judged right by value."""

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import acon_analysis as acon
from acon_analysis.columns import NONLINEARITY_COLUMNS, dtypes
from acon_analysis.statistics.census import census_table, census_text
from acon_hooks.census.classify import operator_name
from acon_hooks.census.table import EVERY, OPERATORS, Rule
from acon_hooks.errors import HookError
from census_judge import judge
from operator_oracle import operations


class Net(nn.Module):
    """A function of its input and of a constant weight, as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))
        self.eval()

    def forward(self, x: Any) -> Any:
        return self.function(x, self.weight)


class Doubled(torch.autograd.Function):
    """A custom autograd function with an activation inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.tanh(x) * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0]


def scripted(x: Tensor, w: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        made = torch.jit.CompilationUnit("def f(x):\n    return torch.sigmoid(x) + 1\n")
    return made.f(x)  # type: ignore[no-any-return]


def written_slices(x: Tensor, w: Tensor) -> Tensor:
    made = torch.zeros(3, 8)
    made[:, 2:6] = x
    made[torch.tensor([0]), 0] = 5.0
    return made.index_put((torch.tensor([1]),), x.new_ones(8))


def out_form(x: Tensor, w: Tensor) -> Tensor:
    made = torch.empty(3, 4)
    torch.mm(x, w, out=made)
    torch.exp(w, out=torch.empty(4, 4))
    return made


def replaced(x: Tensor, w: Tensor) -> Tensor:
    held = torch.zeros(3, 4)
    held.data = x * 2
    other = torch.zeros(12)
    other.set_(held.detach().untyped_storage())
    return other.view(3, 4)


def foreach(x: Tensor, w: Tensor) -> Tensor:
    first, second = torch._foreach_mul([x, w], [w[:3], w])
    torch._foreach_add_([first, second], [x, w])
    return first.relu_() + torch._foreach_exp([w])[0][:3]


def lists(x: Tensor, w: Tensor) -> Tensor:
    left, right = torch.cat([x, w[:3]], 1).chunk(2, 1)
    return torch.where(w[:3] > 0, left, right).masked_fill(w[:3] < -1, 7.0) / w[:3]


def ragged(x: Tensor, w: Tensor) -> Tensor:
    made = torch.nested.nested_tensor([w[:2], w[:3]], layout=torch.jagged)
    return torch.nested.as_nested_tensor([x[:1], x[1:]], layout=torch.jagged).values() + made.sum()


#: Networks on (3, 4): the function, and how many of its operators are nonlinear in the data.
NETWORKS: dict[str, tuple[Callable[..., Any], int]] = {
    "product with a constant": (lambda x, w: x @ w + w.exp()[:3], 0),
    "product of two data tensors": (lambda x, w: (x @ w) * x, 1),
    "square": (lambda x, w: x * x, 1),
    "division by data": (lambda x, w: w[:3] / (x.abs() + 1), 2),
    "in place": (lambda x, w: (x + 1).relu_().mul_(2).add_(w[:3]), 1),
    "out": (out_form, 0),
    "views": (lambda x, w: x.t()[1:].reshape(-1).view(3, 3).unsqueeze(0).expand(2, 3, 3), 0),
    "data and set_": (replaced, 0),
    "slices that are written": (written_slices, 0),
    "lists of tensors": (lists, 0),
    "foreach": (foreach, 1),
    "softmax of a constant": (lambda x, w: x @ w.softmax(-1), 0),
    "softmax": (lambda x, w: (x @ w).softmax(-1) @ w, 1),
    "custom autograd": (lambda x, w: Doubled.apply(x), 1),
    "scripted": (scripted, 1),
    "checkpoint": (lambda x, w: checkpoint(torch.tanh, x, use_reentrant=False), 1),
    "choice by data": (lambda x, w: torch.where(x > 0, x, w[:3]), 2),
    "index by data": (lambda x, w: w[x.argmax(1)], 2),
    "whole numbers": (lambda x, w: x.long().float(), 1),
    "normalised by the batch": (lambda x, w: F.batch_norm(x, None, None, training=True), 1),
    "sorted": (lambda x, w: x.sort(1).values, 1),
    "spectrum": (lambda x, w: torch.fft.irfft(torch.fft.rfft(x), 4), 0),
    "power": (lambda x, w: x**2 + 2**x, 2),
    "layer norm": (lambda x, w: F.layer_norm(x, [4]), 1),
    "interpolated": (lambda x, w: F.interpolate(x[None], scale_factor=2.0, mode="linear"), 0),
    "attention": (lambda x, w: F.scaled_dot_product_attention(x[None], x[None], x[None]), 1),
    "jagged": (ragged, 0),
}


def rows(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    return frame[frame["class"] == kind]


@pytest.mark.parametrize("name", NETWORKS)
def test_what_depends_on_the_input_and_how_is_right_by_value(name: str) -> None:
    function, nonlinear = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(3, 4, generator=generator) for _ in range(2))
    found = judge(Net(function), (first,), (second,))
    assert found["nonlinear"] == nonlinear
    assert found["unknown"] == 0
    assert found["changed"] > 0
    frame = acon.nonlinearities(Net(function), first)
    assert rows(frame, "nonlinear")["calls"].sum() == nonlinear
    assert not frame["reason"].str.contains("incomplete").any()


def test_the_frame_has_the_columns_promised_and_counts_every_call() -> None:
    model = acon.build_model("digits_metaacon")
    images = torch.rand(2, *model.input_shape)  # type: ignore[misc]
    frame = acon.nonlinearities(model, images)
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == dtypes(NONLINEARITY_COLUMNS)
    listed = Counter(operator_name(o.operator) for o in operations(model, (images,), values=False))
    assert frame.groupby("operator")["calls"].sum().to_dict() == listed
    modules = dict(model.named_modules())
    assert set(frame["name"]) <= set(modules)
    # A Meta-ACON layer is measured as a whole, with all that runs inside it.
    layers = {layer.name for layer in acon.find_layers(model, ["meta_acon", "activation"])}
    inside = frame["name"].map(lambda name: any(f"{name}.".startswith(f"{n}.") for n in layers))
    assert (frame["measured"] == inside).all()
    assert set(frame.loc[frame["measured"], "layer"]) == layers
    assert rows(frame, "nonlinear")["measured"].all()
    assert {"mul_", "convolution"} <= set(frame.loc[frame["measured"], "operator"])


def test_modules_are_measured_if_their_kind_is_asked_for() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Softmax(-1), nn.GELU()).eval()
    frame = acon.nonlinearities(model, torch.randn(2, 4))
    found = rows(frame, "nonlinear")[["name", "operator", "measured", "layer", "elements"]]
    assert found.to_numpy().tolist() == [
        ["1", "relu", True, "1", 8],
        ["2", "_softmax", False, "", 8],
        ["3", "gelu", True, "3", 8],
    ]
    frame = acon.nonlinearities(model, torch.randn(2, 4), kinds=["meta_acon"])
    assert not frame["measured"].any()


def test_what_is_not_seen_is_named() -> None:
    through = Net(lambda x, w: torch.from_numpy(np.tanh(x.numpy())) @ w)
    last = acon.nonlinearities(through, torch.randn(3, 4)).iloc[-1]
    assert last["reason"].startswith("census incomplete")
    assert (last["operator"], last["calls"], last["elements"]) == ("", 0, 12)
    assert last["class"] == "unknown"
    number = acon.nonlinearities(Net(lambda x, w: w * x.sum().item()), torch.randn(3, 4))
    assert "_local_scalar_dense" in set(rows(number, "unknown")["operator"])
    assert number.iloc[-1]["reason"].startswith("census incomplete")


def test_an_operator_that_is_not_in_the_table_is_unknown() -> None:
    with torch.library._scoped_library("census_test", "DEF") as library:
        library.define("bend(Tensor x) -> Tensor")
        library.impl("bend", lambda x: x.cos(), "CompositeExplicitAutograd")
        model = Net(lambda x, w: torch.ops.census_test.bend(x) + torch.ops.census_test.bend(w)[:3])
        frame = acon.nonlinearities(model, torch.randn(3, 4))
    found = frame[frame["operator"] == "census_test.bend"]
    assert found[["class", "calls"]].to_numpy().tolist() == [["unknown", 1], ["linear", 1]]


def test_every_use_of_a_module_counts_where_it_runs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()
            self.fails = Fails()

        def forward(self, x: Tensor) -> Tensor:
            try:
                self.fails(x)
            except ValueError:
                x = x + 1
            made: Tensor = self.act(self.act(x) - 1).exp()
            return made

    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x.sin()
            raise ValueError

    frame = acon.nonlinearities(Twice().eval(), torch.randn(2, 4))
    names = dict(
        zip(frame["operator"], zip(frame["name"], frame["calls"], strict=True), strict=True)
    )
    assert names == {"sin": ("fails", 1), "add": ("", 1), "relu": ("act", 2), "sub": ("", 1),
                     "exp": ("", 1)}  # fmt: skip


@pytest.mark.parametrize("form", [tuple, dict])
def test_examples_are_arguments_by_position_or_by_name(form: type) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return x * scale

    given = {"x": torch.randn(2, 3), "scale": torch.randn(2, 3)}
    before = {key: value.clone() for key, value in given.items()}
    frame = acon.nonlinearities(Two().eval(), given if form is dict else tuple(given.values()))
    assert frame["reason"].tolist() == ["product of two data tensors"]
    assert all(torch.equal(value, before[key]) for key, value in given.items())


def test_what_forward_computes_around_the_network_is_counted() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    frame = acon.nonlinearities(
        model.eval(), torch.randn(2, 4), forward=lambda model, x: model((x / 2).exp()).log()
    )
    bent = frame[frame["class"] == "nonlinear"]
    assert bent[["name", "operator"]].to_numpy().tolist() == [
        ["", "exp"],
        ["1", "relu"],
        ["", "log"],
    ]
    assert not frame["reason"].str.contains("incomplete").any()


def test_what_the_network_is_given_depends_on_the_input_however_it_was_made() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
    frame = acon.nonlinearities(
        model, torch.randn(2, 4), forward=lambda model, x: model(torch.tensor(x.tolist()))
    )
    own = frame[frame["name"] == "1"]
    assert own[["class", "measured"]].to_numpy().tolist() == [["nonlinear", True]]


def test_the_model_is_left_as_it_was_when_its_forward_fails() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with pytest.raises(RuntimeError):
        acon.nonlinearities(model, torch.randn(2, 3))
    assert not any(module._forward_hooks for module in model.modules())
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    with pytest.raises(HookError, match="evaluation mode, but 1 module is in training mode"):
        acon.nonlinearities(nn.BatchNorm1d(4).train(), torch.randn(2, 4))


def test_the_table_names_operators_and_arguments_that_exist() -> None:
    known: dict[str, set[str]] = {}
    for full in torch._C._dispatch_get_all_op_names():
        library, _, rest = full.partition("::")
        name, _, overload = rest.partition(".")
        names = {a.name for a in torch._C._get_schema(f"{library}::{name}", overload).arguments}
        key = (name if library == "aten" else f"{library}.{name}").replace("_foreach_", "")
        for spelling in (key, key.removesuffix("_")):
            known[spelling] = known.get(spelling, set()) | names
    libraries = ("torchvision.", "higher_order.", "prim.")
    for name, rule in OPERATORS.items():
        if name.startswith(libraries):
            continue
        assert name in known, name
        groups = [set(group) & known[name] for group in rule.factors]
        assert all(groups), (name, rule)
        for some in (rule.fixed, rule.unread):
            assert not some or some == EVERY or set(some) & known[name], (name, rule)
    assert OPERATORS["relu"] == Rule(fixed=EVERY, reason="activation")


def test_an_activation_in_pieces_counts_once() -> None:
    def forward(x: Tensor, w: Tensor) -> Tensor:
        x = 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.0447 * torch.pow(x, 3))))
        return torch.softmax(x @ w, -1)

    frame = acon.nonlinearities(Net(forward), torch.randn(8, 4))
    assert frame.loc[frame["measured"], "operator"].nunique() > 1
    assert census_text(frame) == (
        "measured 1 of 2 nonlinear calls (50 % of their elements); not measured: 1 softmax"
    )
    table = census_table(frame).set_index("measured")
    assert table["share"].tolist() == [0.5, 0.5]
    assert table.loc[True, "operator"] == "pow + tanh + mul"
    assert table.loc[True, "calls"] == 1
