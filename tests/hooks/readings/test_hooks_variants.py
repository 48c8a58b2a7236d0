"""Every known variant of Meta-ACON is found, read and proved, or refused, as it should be."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from acon_analysis.layers import AconA, AconB
from acon_hooks import ProofError, Tap, find_layers, prove, record
from networks import Network
from support_variants import (
    VARIANTS,
    Detector,
    Functional,
    FunnelAcon,
    Official,
    Outer,
    PlainGate,
    StaticFlat,
    Variant,
    combine,
    hooks_left,
    network,
    shaken,
    tensor,
)

C = 8


def inputs(variant: Variant, n: int) -> tuple[Tensor, ...]:
    return tuple(tensor(kind, n, C) for kind in variant.inputs)


def truth(model: nn.Module, granularity: str) -> Tensor:
    act = model.get_submodule("act")
    beta = act.truth
    assert isinstance(beta, Tensor)
    if granularity == "pixel":
        return beta.flatten(2).mean(2)
    if granularity == "static":
        return beta.reshape(-1).expand(C)
    return beta.reshape(len(beta), -1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(7)


#: The reader of variants, one of each way to read β.
READERS = {
    "1 official": "module bn2, sigmoid", "2 one sigmoid twice": "module bn2, sigmoid",
    "3 detector": "module fc2, sigmoid", "7 one sequential": "module fcn",
    "10 dead norm": "module fc2, sigmoid", "12 extra head": "module fc3",
    "14 layer-wise, mean": "function sigmoid", "14 pixel-wise": "argument 0, sigmoid",
    "15 static": "parameter beta", "hard-sigmoid β": "module bn2, hardsigmoid",
    "softplus β": "module fc2, softplus", "functional": "function sigmoid",
    "functional softplus": "function softplus",
    "hidden": "least squares on the argument of sigmoid",
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_variant_is_read_and_proved_on_the_first_and_later_batches(variant: Variant) -> None:
    """And its outputs stay as they are, bit for bit."""
    model = network(variant)
    batches = [inputs(variant, n) for n in (5, 3)]
    with torch.no_grad():
        bare = [model(*x) for x in batches]
    with torch.no_grad(), record(model) as recording:
        for x, output in zip(batches, bare, strict=True):
            assert torch.equal(model(*x), output)
            expected = truth(model, variant.granularity)
            matrix = torch.from_numpy(recording.beta_matrix("act"))
            if variant.granularity != "static":
                matrix = matrix[-len(output) :]
            torch.testing.assert_close(matrix, expected, rtol=1e-5, atol=2e-6)
    (layer,) = recording.layers
    (report,) = recording.reports
    assert (layer.kind, layer.granularity, layer.channels) == (variant.kind, variant.granularity, C)
    assert report.status == "proved"
    assert report.error < 3e-6
    assert layer.reader == report.reader == READERS.get(variant.name, report.reader)
    assert hooks_left(model) == 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_a_sample_that_is_not_finite_changes_no_reading(variant: Variant, value: float) -> None:
    """The reading is that of the finite samples, whose β are what they are alone."""
    model = network(variant)
    whole = inputs(variant, 6)
    rest = tuple(x[1:] for x in whole)
    with torch.no_grad(), record(model) as alone:
        model(*rest)
    with torch.no_grad(), record(model) as recording:
        whole[0][0].view(-1)[3] = value
        model(*whole)
    assert recording.layers[0].reader == alone.layers[0].reader
    assert recording.reports[0].status == "proved"
    expected, found = alone.beta_matrix("act"), recording.beta_matrix("act")
    found = found[1:] if variant.granularity != "static" else found
    torch.testing.assert_close(
        torch.from_numpy(found), torch.from_numpy(expected), rtol=1e-5, atol=2e-6
    )


def test_without_any_finite_sample_nothing_is_proved() -> None:
    model = shaken(nn.Sequential(Official(C)))
    x = torch.full((3, C, 4, 4), torch.nan)
    words = "each of the 3 samples of the first batch has NaN"
    with Tap(model), torch.no_grad(), pytest.raises(ProofError, match=words):
        model(x)


def test_structure_alone_finds_the_layer_and_guesses_the_reader() -> None:
    (official,) = find_layers(network(VARIANTS[0]))
    assert official.name == "act"
    assert (official.kind, official.channels, official.granularity) == ("meta_acon", C, "channel")
    assert official.reader == "module bn2, sigmoid"
    assert official.reading is None
    assert official.beta is None
    assert official.p1 is not None
    assert official.p1.shape == (C,)


def test_static_beta_is_known_before_and_after_the_first_batch() -> None:
    model = network(next(v for v in VARIANTS if v.name == "15 static (1, 1)"))
    for (layer,) in (find_layers(model), find_layers(model, example=tensor("map", 2, C))):
        assert layer.beta is not None
        assert layer.beta.shape == (C,)
        assert layer.kind == "acon"


def test_a_single_image_first_does_not_make_a_parameter_per_sample() -> None:
    model = network(next(v for v in VARIANTS if v.name == "15 static (1, 1)"))
    with torch.no_grad(), record(model) as recording:
        model(tensor("map", 1, C))
        model(tensor("map", 5, C))
    assert [layer.granularity for layer in recording.layers] == ["static"]
    with torch.no_grad(), record(model) as other:
        model(tensor("map", C, C))  # as many images as channels
        model(tensor("map", 1, C))
    assert [layer.granularity for layer in other.layers] == ["static"]


def test_static_parameters_against_flat_input() -> None:
    good = shaken(Outer(StaticFlat(C)))
    assert prove(good, tensor("flat", 5, C))["status"].tolist() == ["proved"]
    bad = shaken(Outer(StaticFlat(C, 1, C, 1, 1)))  # broadcasts to (1, C, N, C)
    with pytest.raises(ProofError, match=r"p1 of shape \(1, 8, 1, 1\).*broadcast over the wrong"):
        find_layers(bad, example=tensor("flat", 5, C))


def test_plain_gate_is_read_as_its_own_kind() -> None:
    model = shaken(Outer(PlainGate(C)))
    with torch.no_grad(), record(model, kinds=("acon_plain_gate",)) as recording:
        model(tensor("map", 4, C))
    assert recording.layers[0].kind == "acon_plain_gate"
    expected = model.act.truth.flatten()
    torch.testing.assert_close(torch.from_numpy(recording.beta_matrix("act")), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_acon_frelu_is_proved_with_beta_one(stride: int) -> None:
    model = shaken(Outer(FunnelAcon(C, stride)))
    assert find_layers(model, ("meta_acon", "acon")) == []
    with torch.no_grad(), record(model, kinds=("acon_frelu",)) as recording:
        model(tensor("map", 4, C))
        model(tensor("map", 3, C))
    assert recording.reports[0].status == "proved"
    assert (recording.beta_matrix("act") == 1).all()
    assert recording.layers[0].beta is not None


def test_module_with_the_parts_of_acon_frelu_and_another_formula_is_refused() -> None:
    class Other(FunnelAcon):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn2(torch.maximum(x, self.bn1(self.conv_frelu(x))))
            return out

    model = shaken(Outer(Other(C)))
    with pytest.raises(ProofError, match="parts of ACON-FReLU, but misses its formula by"):
        find_layers(model, ("acon_frelu",), tensor("map", 4, C))


def test_input_given_by_keyword_or_as_second_argument() -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p1 = nn.Parameter(torch.randn(1, C, 1, 1))
            self.p2 = nn.Parameter(torch.randn(1, C, 1, 1))
            self.fc1, self.truth = nn.Conv2d(C, C, 1), torch.empty(0)

        def forward(self, other: Tensor, x: Tensor) -> Tensor:
            self.truth = torch.sigmoid(self.fc1(other.mean((2, 3), keepdim=True)))
            return combine(x, self.p1, self.p2, self.truth)

    caller = Network(
        lambda n, x: n.second(x=n.first(2 * x, x=x)), first=Swapped(), second=Detector(C)
    )
    model = shaken(caller)
    with torch.no_grad(), record(model) as recording:
        for n in (4, 2):
            model(tensor("map", n, C))
            for name in ("first", "second"):
                found = torch.from_numpy(recording.beta_matrix(name))[-n:]
                expected = model.get_submodule(name).truth
                assert torch.equal(found, expected.flatten(1))


def test_one_inner_module_shared_by_two_layers() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Detector(C), Detector(C)
            self.b.fc1, self.b.fc2 = self.a.fc1, self.a.fc2

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            self.a.fc2(torch.zeros(len(x), 4, 1, 1))  # a call that belongs to no layer
            out: Tensor = self.b(x)
            return out

    model = shaken(Shared())
    with torch.no_grad(), record(model) as recording:
        for n in (4, 2):
            model(tensor("map", n, C))
            for name in ("a", "b"):
                found = torch.from_numpy(recording.beta_matrix(name))[-n:]
                assert torch.equal(found, model.get_submodule(name).truth.flatten(1))


def test_layer_used_twice_has_two_calls() -> None:
    twice = Network(
        lambda n, x: n.act(torch.nn.functional.avg_pool2d(n.act(x), 2)), act=Official(C)
    )
    model = shaken(twice)
    with torch.no_grad(), Tap(model) as tap:
        for n in (4, 2):
            model(tensor("map", n, C))
            batch = tap.take()
            assert list(batch) == [("act", 0), ("act", 1)]
            assert torch.equal(batch["act", 1], model.act.truth.flatten(1))
            assert not torch.equal(batch["act", 0], batch["act", 1])
    assert [report.call for report in tap.reports] == [0, 1]
    assert tap.shapes["act", 1] == (C, 3, 2)


def test_fused_norm_is_still_readable() -> None:
    model = network(VARIANTS[0])
    model.act.bn2 = nn.Identity()
    (layer,) = find_layers(model, example=tensor("map", 4, C))
    assert layer.reader == "module bn2, sigmoid"


def test_whole_model_may_be_one_layer() -> None:
    model = shaken(Official(C))
    with torch.no_grad(), record(model) as recording:
        for n in (4, 2):
            model(tensor("map", n, C))
    assert recording.betas()["layer"].unique().tolist() == [""]
    assert recording.beta_matrix("").shape == (6, C)


def test_acon_a_and_b_have_lines_of_their_own() -> None:
    model = shaken(nn.Sequential(AconA(C), AconB(C)))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x = tensor("map", 4, C)
    a, b = find_layers(model, example=x)
    assert (a.kind, b.kind) == ("acon", "acon")
    lines: list[Any] = [a.p1, a.p2, b.p1, b.p2]
    assert torch.equal(lines[3], model[1].p.flatten())
    assert [float(p.mean()) for p in lines[:3]] == [1, 0, 1]
    with torch.no_grad(), record(model) as recording:
        model(x)
        model(x)
    assert (recording.beta_matrix("0") == model[0].beta.detach().flatten().numpy()).all()


def test_a_module_that_merely_owns_a_beta_is_left_out() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.beta = nn.Parameter(torch.randn(1, C, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.beta

    model = shaken(nn.Sequential(Shift(), Official(C)))
    assert [layer.name for layer in find_layers(model, example=tensor("map", 4, C))] == ["1"]


def test_a_layer_inside_a_layer_that_is_listened_to() -> None:
    class Nested(Functional):
        def __init__(self, c: int) -> None:
            super().__init__(c)
            self.inner = Official(c)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.inner(x)) * 0 + super().forward(x)

    model = shaken(Outer(Nested(C)))
    with torch.no_grad(), record(model) as recording:
        for n in (4, 2):
            model(tensor("map", n, C))
            for name, act in (("act", model.act), ("act.inner", model.act.inner)):
                found = torch.from_numpy(recording.beta_matrix(name))[-n:]
                assert torch.equal(found, act.truth.flatten(1))
    readers = {layer.name: layer.reader for layer in recording.layers}
    assert readers == {"act": "function sigmoid (call 4)", "act.inner": "module bn2, sigmoid"}
