"""Networks of other inputs, outputs and dtypes under plans, by hand-written forward passes."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from acon_analysis.errors import UsageError
from acon_hooks.replacement.damage import channel_damage, first_order_damage
from acon_hooks.replacement.fitting import fit_units
from acon_hooks.replacement.folding import fold_lines
from acon_hooks.replacement.linearizing import linearize
from acon_hooks.replacement.plan import Plan
from acon_hooks.replacement.replace import replace_data
from acon_hooks.replacement.verifying import verify_plan

Form = Callable[[Tensor, Tensor], Any]


class Pair(NamedTuple):
    hidden: Tensor
    scores: Tensor


@dataclass
class Result:
    """As libraries of language models have it."""

    logits: Tensor
    hidden: tuple[Tensor, ...]


class Mapped(OrderedDict[str, Any]):
    """A dict whose entries are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


class Tokens(nn.Module):
    """Embedding, linear layer, GELU, head; (N, T) ids to logits (N, T, K) or their mean (N, K)."""

    def __init__(self, form: Form, pooled: bool = True) -> None:
        super().__init__()
        self.form, self.pooled = form, pooled
        self.embed, self.fc, self.act = nn.Embedding(11, 6), nn.Linear(6, 8), nn.GELU()
        self.head = nn.Linear(8, 5)

    def forward(self, ids: Tensor) -> Any:
        hidden = self.act(self.fc(self.embed(ids)))
        if self.pooled:
            hidden = hidden.mean(1)
        return self.form(hidden, self.head(hidden))


def ids(count: int = 20) -> Tensor:
    return torch.randint(11, (count, 7), generator=torch.Generator().manual_seed(1))


def tokens(
    form: Form = lambda _, z: z, pooled: bool = True, dtype: torch.dtype = torch.float64
) -> Tokens:
    torch.manual_seed(0)
    model = Tokens(form, pooled).to(dtype).eval()
    with torch.no_grad():
        model.embed.weight.mul_(2)
    return model


def by_hand(model: Tokens, plan: Plan, x: Tensor) -> tuple[Tensor, ...]:
    """Return logits before and after, and hidden values after."""
    with torch.no_grad():
        before = model.fc(model.embed(x))
        y = nn.functional.gelu(before)
        plain = model.head(y.mean(1) if model.pooled else y)
        for unit in plan.units:
            y[..., unit.channel] = unit.slope * before[..., unit.channel] + unit.intercept
        hidden = y.mean(1) if model.pooled else y
        return plain, model.head(hidden), hidden


def change(before: Tensor, after: Tensor) -> Any:
    first, second = (v.detach().double().flatten(1).numpy() for v in (before, after))
    return np.linalg.norm(second - first, axis=1) / np.linalg.norm(first, axis=1)


FORMS: list[tuple[Form, Any]] = [
    (lambda _, z: z, None),
    (lambda _, z: (z,), None),
    (lambda h, z: (h, z), 1),
    (lambda h, z: [h, z], -1),
    (lambda h, z: {"hidden": h, "logits": z}, None),
    (lambda h, z: {"hidden": h, "scores": z}, "scores"),
    (lambda h, z: Pair(h, z), "scores"),
    (lambda h, z: Pair(h, z), 1),
    (lambda h, z: Result(z, (h, h)), None),
    (lambda h, z: Mapped(hidden=h, logits=z), None),
    (lambda h, z: Result(h, (h, z)), lambda found: found.hidden[1]),
]


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize(("form", "wanted"), FORMS)
def test_outputs_of_every_form(form: Form, wanted: Any, pooled: bool) -> None:
    model, x = tokens(form, pooled), ids()
    fit = fit_units(model, [x])
    plan = fit.plan(budget=5)
    before, after, _ = by_hand(model, plan, x)
    report = verify_plan(model, plan, torch.split(x, 8), output=wanted)
    expected = change(before, after)
    np.testing.assert_allclose(report.samples["change"], expected, rtol=1e-9)
    # All that follows is linear: the first order is the whole change.
    np.testing.assert_allclose(report.samples["predicted"], expected, rtol=1e-9)
    agrees = (before.argmax(-1) == after.argmax(-1)).double().reshape(20, -1).mean(1)
    np.testing.assert_allclose(report.samples["agrees"].astype(float), agrees)
    old, new = (log_softmax(z.numpy(), axis=-1) for z in (before, after))
    loss = (np.exp(old) * (old - new)).sum(-1).reshape(20, -1).mean(1)
    assert report.summary["loss_change"] == pytest.approx(loss.mean(), rel=1e-9)
    mean = "" if pooled else ", a mean over positions"
    assert f"taken for logits; loss: Kullback-Leibler divergence from before{mean};" in report.used
    damage = channel_damage(model, fit, x, output=wanted)
    first = first_order_damage(model, fit, x, output=wanted)
    single = fit.plan(units=[("act", 0, 3)])
    mean_change = change(*by_hand(model, single, x)[:2]).mean()
    assert damage.loc[3, "mean"] == pytest.approx(mean_change, rel=1e-9)
    assert first.loc[3, "first_order"] == pytest.approx(mean_change, rel=1e-9)


def test_logits_of_classes_with_labels() -> None:
    model, x = tokens(), ids()
    labels = torch.arange(20) % 5
    plan = fit_units(model, [x]).plan(budget=5)
    before, after, _ = by_hand(model, plan, x)
    report = verify_plan(model, plan, [(x, labels)])
    accuracy = [(z.argmax(1) == labels).double().mean() for z in (before, after)]
    found = [report.summary[f"accuracy_{when}"] for when in ("before", "after")]
    assert found == pytest.approx([float(value) for value in accuracy])
    losses = [-log_softmax(z.numpy(), axis=1)[np.arange(20), labels] for z in (before, after)]
    assert report.summary["loss_change"] == pytest.approx((losses[1] - losses[0]).mean())
    assert report.used.startswith("output (N, 5) taken for logits; loss: cross-entropy;")


REGRESSIONS: list[tuple[Form, dict[str, Any], Any]] = [
    (lambda _, z: z[:, 0], {}, None),
    (lambda _, z: z[:, :1], {}, None),
    (lambda _, z: z, {"logits": False}, None),
    (lambda _, z: z, {}, torch.linspace(0, 1, 20)),
    (lambda _, z: z[:, :, None, None] * torch.ones(2, 3), {}, None),
]


@pytest.mark.parametrize(("form", "options", "labels"), REGRESSIONS)
def test_outputs_that_are_no_logits(form: Form, options: dict[str, Any], labels: Any) -> None:
    model, x = tokens(form), ids()
    plan = fit_units(model, [x]).plan(budget=5)
    before, after, _ = by_hand(model, plan, x)
    data = x if labels is None else (x, labels)
    report = verify_plan(model, plan, [data], **options)
    expected = change(form(before, before)[:, None], form(before, after)[:, None])
    np.testing.assert_allclose(report.samples["change"], expected, rtol=1e-9)
    assert report.samples["agrees"].isna().all()
    nothing = ["agreement", "loss_change", "loss_low", "loss_high", "loss_p"]
    assert all(np.isnan(report.summary[name]) for name in nothing)
    assert "not taken for logits: no loss, no agreement" in report.used
    assert "accuracy_after" not in report.summary


AMBIGUOUS: list[tuple[Form, Any, str]] = [
    (lambda h, z: (h, z), None, r"tuple of 0: \(20, 8\) float64, 1: \(20, 5\) float64, without"),
    (lambda h, z: {"a": h, "b": [z]}, None, r"dict of 'a': .*, 'b': list of 0: \(20, 5\) float64"),
    (lambda h, z: (h, z), 2, r"no output=2 in the output, which is tuple of 0: "),
    (lambda h, z: {"a": h, "b": z}, "logits", r"no output='logits' in the output, which is dict"),
    (lambda h, z: Pair(h, z), None, r"Pair of hidden: \(20, 8\) float64, scores: \(20, 5\)"),
    (lambda _, z: z.argmax(1), None, r"the output is \(20,\) int64; not a tensor of real numbers"),
    (lambda h, z: (h, 3), 1, r"output=1 is 3, not a tensor of real numbers; say which one"),
    (lambda _, z: z.T, None, r"has the shape \(5, 20\), but the first axis must be .* 20 samples"),
    (lambda _, z: z, 0, r"the output is \(20, 5\) float64, so output=0 means nothing"),
    (lambda _, z: z.sum(), None, r"has the shape \(\), but the first axis"),
    (lambda h, z: None, None, r"the output is NoneType, without one called logits"),
]


@pytest.mark.parametrize(("form", "wanted", "text"), AMBIGUOUS)
def test_an_unclear_output_is_shown_with_how_to_pick(form: Form, wanted: Any, text: str) -> None:
    model, x = tokens(form), ids()
    plan = fit_units(model, [x]).plan(budget=5)
    with pytest.raises(UsageError, match=text):
        verify_plan(model, plan, [x], output=wanted)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    "form",
    [lambda _, z: (z, z.mean()), lambda _, z: {"loss": z.mean(), "scores": z, "ids": z.argmax(1)}],
)
def test_a_loss_and_integers_next_to_one_tensor_are_left_aside(form: Form) -> None:
    model, x = tokens(form), ids()
    plan = fit_units(model, [x]).plan(budget=5)
    found = verify_plan(model, plan, [x])
    expected = verify_plan(tokens(), plan, [x], any_weights=True)
    np.testing.assert_array_equal(found.samples["change"], expected.samples["change"])
    assert found.used == expected.used


def test_an_unclear_output_is_found_before_the_long_work() -> None:
    model, x = tokens(lambda h, z: (h, z)), ids()
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    with pytest.raises(UsageError, match="without one called logits"):
        replace_data(model, [x], "line", [x + 0] * 9)
    assert len(runs) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_network_keeps_its_dtype(dtype: torch.dtype) -> None:
    model, x = tokens(dtype=dtype), ids()
    seen = set()
    handle = model.head.register_forward_hook(lambda _m, args, out: seen.add(out.dtype))
    plan = fit_units(model, [x]).plan(budget=5)
    report = verify_plan(model, plan, torch.split(x, 8))
    handle.remove()
    assert seen == {dtype}
    after = linearize(model, plan)(x)  # in the network's dtype as well
    np.testing.assert_allclose(report.samples["change"], change(model(x), after), rtol=1e-3)
    wide = verify_plan(copy.deepcopy(model).double(), plan, [x], any_weights=True)
    close = 8 * torch.finfo(dtype).eps
    for name in ("change", "predicted"):
        np.testing.assert_allclose(report.samples[name], wide.samples[name], rtol=0.3, atol=close)
    assert model.head.weight.dtype == dtype


def test_images_get_the_dtype_of_the_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.SiLU(), nn.Linear(6, 3)).bfloat16().eval()
    x = torch.randn(12, 4)
    plan = fit_units(model, [x]).plan(budget=3)
    report = verify_plan(model, plan, [x])
    after = linearize(model, plan)(x.bfloat16())
    np.testing.assert_allclose(report.samples["change"], change(model(x.bfloat16()), after))
    assert x.dtype == torch.float32


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts matrix products and convolutions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.count += name in ("convolution", "mm", "addmm")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("custom", [False, True])
def test_three_forward_passes(custom: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
            self.act, self.second, self.fc = nn.SiLU(), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.second(self.act(self.norm(self.conv(x))))
            logits: Tensor = self.fc(Halved.apply(h.mean((2, 3))) if custom else h.mean((2, 3)))
            return logits

    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(64, 3, 10, 10)
    plan = fit_units(model, [x]).plan(budget=3)
    with Products() as once, torch.no_grad():
        model(x)
    with Products() as products:
        report = verify_plan(model, plan, torch.split(x, 4))
    batches, passes = 16, products.count / once.count
    assert ("forward-mode" in report.used) != custom
    # What lies before the first line has no derivative; the first batch runs once more.
    assert passes <= 3 * batches + 1
    assert passes > 2 * batches


class Halved(torch.autograd.Function):
    """Has no derivative in forward mode."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x / 2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        return slopes[0] / 2


def test_folding_a_network_of_tokens() -> None:
    model, x = tokens(lambda h, z: (h, z)), ids()
    plan = fit_units(model, [x]).plan(budget=1.0)
    changed = linearize(model, plan)
    done = fold_lines(changed, x, output=1)
    assert done.error < 1e-12
    assert done.table["into"].tolist() == ["fc"]
    after = by_hand(model, plan, x)[1]
    torch.testing.assert_close(done.model(x)[1], after, rtol=1e-9, atol=1e-12)
