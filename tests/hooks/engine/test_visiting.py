"""The engine: what visitors see and change, what later passes may not do, no trace left."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from acon_hooks.engine.functions import Listener, function_name
from acon_hooks.engine.sites import Site, SiteCall, Visitor
from acon_hooks.engine.visiting import Visit, visiting
from acon_hooks.errors import HookError
from model_facts import traces
from networks import Network


class Seeing(Visitor):
    """Writes down what happens, and returns what `change` makes of each output."""

    def __init__(self, change: Callable[[Tensor], Any] = lambda _: None) -> None:
        self.seen: list[str] = []
        self.change = change

    def replaces(self, site: Site) -> bool:
        return True

    def begin(self) -> None:
        self.seen.append("begin")

    def before(self, call: SiteCall) -> None:
        self.seen.append(f"before {call.site.name} {call.number}")

    def after(self, call: SiteCall, output: Any) -> Any:
        self.seen.append(f"after {call.site.name} {call.number}")
        return self.change(output)

    def raised(self, site: Site) -> None:
        self.seen.append(f"raised {site.name}")

    def end(self) -> None:
        self.seen.append("end")

    def abort(self) -> None:
        self.seen.append("abort")


class Twice(nn.Module):
    """Runs one activation twice, and fails on request."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.Tanh()
        self.last = nn.Linear(3, 3)
        self.error: BaseException | None = None
        self.times = 2

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.act(x)
        if self.error is not None:
            raise self.error
        y: Tensor = self.last(x)
        return y


@pytest.fixture
def twice() -> Twice:
    return Twice().eval()


def site(model: nn.Module, name: str, **options: Any) -> Site:
    return Site(name, model.get_submodule(name), **options)


def test_visitors_see_every_call_in_order_and_change_nothing(twice: Twice) -> None:
    x, seeing = torch.randn(4, 3), Seeing()
    expected = twice(x)
    with visiting(twice, [site(twice, "act"), site(twice, "last")], seeing) as visit:
        assert torch.equal(twice(x), expected)
        assert visit.passes == 1
    calls = ["before act 0", "after act 0", "before act 1", "after act 1"]
    calls += ["before last 0", "after last 0"]
    assert seeing.seen == ["begin", *calls, "end", "abort"]
    assert traces(twice) == []


def test_one_call_can_be_meant(twice: Twice) -> None:
    x, seeing = torch.randn(4, 3), Seeing(torch.zeros_like)
    with visiting(twice, [site(twice, "act", call=0)], seeing):
        found = twice(x)
    torch.testing.assert_close(found, twice.last.bias.expand(4, 3))
    with visiting(twice, [site(twice, "act", call=1)], Seeing(lambda y: 2 * y)):
        found = twice(x)
    torch.testing.assert_close(found, twice.last(2 * torch.tanh(torch.tanh(x))))


class Shortcut(nn.Module):
    """relu(x) + x, where an in-place activation has overwritten x."""

    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0
        y: Tensor = self.act(x) + x
        return y


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize(("inplace", "expected"), [(True, 2.0 * 7), (False, 7.0 + -1)])
def test_a_replacement_reaches_every_reader_of_the_output(
    inplace: bool, expected: float, mode: Any
) -> None:
    model = Shortcut(inplace=inplace).eval()
    with mode(), visiting(model, [site(model, "act")], Seeing(lambda y: torch.full_like(y, 7))):
        assert model(torch.full((2, 3), -1.0)).tolist() == [[expected] * 3] * 2


def test_gradients_flow_through_a_replacement(twice: Twice) -> None:
    x = torch.randn(4, 3, requires_grad=True)
    with visiting(twice, [site(twice, "act", call=1)], Seeing(lambda y: 3 * y)):
        twice(x).sum().backward()
    other = x.detach().clone().requires_grad_()
    twice.last(3 * torch.tanh(torch.tanh(other))).sum().backward()
    assert x.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(x.grad, other.grad)


def test_a_failed_forward_pass_leaves_nothing_and_the_next_one_is_the_first(twice: Twice) -> None:
    seeing = Seeing()
    with visiting(twice, [site(twice, "act")], seeing) as visit:
        twice.error = RuntimeError("of the model")
        with pytest.raises(RuntimeError, match="of the model"):
            twice(torch.randn(4, 3))
        assert seeing.seen[-1] == "abort"
        assert (visit.passes, visit.running) == (0, False)
        twice.error = None
        twice(torch.randn(4, 3))
        assert visit.passes == 1
    assert traces(twice) == []


def test_an_interrupted_forward_pass_is_aborted_when_the_next_begins(twice: Twice) -> None:
    seeing = Seeing()
    with visiting(twice, [site(twice, "last")], seeing) as visit:
        twice.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            twice(torch.randn(4, 3))
        twice.error = None
        twice(torch.randn(4, 3))
        assert seeing.seen == ["begin", "abort", "begin", "before last 0", "after last 0", "end"]
        assert visit.passes == 1


def test_a_visitor_learns_of_an_exception_inside_a_site() -> None:
    model = nn.Sequential(nn.Linear(3, 3)).eval()
    seeing = Seeing()
    with visiting(model, [site(model, "0")], seeing), pytest.raises(RuntimeError, match="shapes"):
        model(torch.randn(4, 5))
    assert seeing.seen[:4] == ["begin", "before 0 0", "raised 0", "abort"]
    assert traces(model) == []


def test_an_exception_of_a_visitor_ends_the_forward_pass(twice: Twice) -> None:
    def fail(_: Tensor) -> None:
        raise ValueError("of the visitor")

    with (
        visiting(twice, [site(twice, "act")], Seeing(fail)) as visit,
        pytest.raises(ValueError, match="of the visitor"),
    ):
        twice(torch.randn(4, 3))
    assert not visit.running
    assert traces(twice) == []


def test_every_forward_pass_is_compared_with_the_first(twice: Twice) -> None:
    with visiting(twice, [site(twice, "act")], Seeing()) as visit:
        twice(torch.randn(4, 3))
        twice(torch.randn(9, 3))  # the number of samples may differ
        twice.times = 3
        with pytest.raises(HookError, match=r"'act', call 2, batch 2: it ran more often"):
            twice(torch.randn(4, 3))
        twice.times = 1
        with pytest.raises(HookError, match="'act' ran 1 time in batch 2, but 2 times"):
            twice(torch.randn(4, 3))
        twice.times = 2
        with pytest.raises(HookError, match=r"its input is \(4, 5, 3\) .*it was \(N, 3\)"):
            twice(torch.randn(4, 5, 3))
        twice(torch.randn(4, 3))
        assert visit.passes == 3


def test_a_site_outside_of_a_forward_pass_is_refused_a_part_of_one_is_not(twice: Twice) -> None:
    seeing = Seeing()
    sites = [site(twice, "act"), site(twice, "last", inner=True)]
    with visiting(twice, sites, seeing):
        twice.last(torch.randn(4, 3))
        with pytest.raises(HookError, match="outside a forward pass"):
            twice.act(torch.randn(4, 3))
    assert seeing.seen == ["abort"]


def test_another_thread_and_a_backward_pass_are_not_seen() -> None:
    checkpointed = Network(lambda n, x: checkpoint(n.act, x, use_reentrant=False), act=nn.Tanh())
    model, seeing = checkpointed.eval(), Seeing()
    with visiting(model, [site(model, "act")], seeing):
        other = threading.Thread(target=model, args=(torch.randn(2, 3),))
        other.start()
        other.join()
        assert seeing.seen == []
        model(torch.randn(2, 3, requires_grad=True)).sum().backward()
    assert seeing.seen == ["begin", "before act 0", "after act 0", "end", "abort"]


def test_sites_come_and_go_during_a_visit(twice: Twice) -> None:
    seeing = Seeing()
    with Visit(twice, seeing, [(site(twice, "act"), seeing)]) as visit:
        inner = visit.add(site(twice, "last", inner=True), seeing)
        twice(torch.randn(4, 3))
        assert "after last 0" in seeing.seen
        inner.remove()
        seeing.seen.clear()
        twice(torch.randn(4, 3))
        assert "after last 0" not in seeing.seen
        (act,) = visit.sites
        act.skip_before()
        seeing.seen.clear()
        twice(torch.randn(4, 3))
        assert seeing.seen == ["begin", "after act 0", "after act 1", "end"]


def test_a_listener_runs_every_function_once_and_stops_whatever_lies_above_it() -> None:
    names: list[str] = []

    def handler(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        names.append(function_name(func))
        with torch._C.DisableTorchFunction():
            torch.relu(torch.zeros(1))  # what a handler computes is not handed to it
        return func(*args, **kwargs)

    first, second = Listener(handler), Listener(lambda func, args, kwargs: func(*args, **kwargs))
    first.on()
    second.on()
    assert torch.special.expit(torch.zeros(2)).tolist() == [0.5, 0.5]
    torch.zeros(2).sigmoid_()
    first.off()
    torch.tanh(torch.zeros(2))
    assert len(_get_current_function_mode_stack()) == 1  # type: ignore[no-untyped-call]
    second.off()
    assert [name for name in names if name in ("expit", "sigmoid", "tanh")] == ["expit", "sigmoid"]
    assert _get_current_function_mode_stack() == []  # type: ignore[no-untyped-call]
