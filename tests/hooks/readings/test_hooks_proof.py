"""The proof accepts right readings in every dtype, refuses wrong ones, and knows its own power."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from acon_analysis.layers.acon import AconC
from acon_hooks import ProofError, find_layers, prove, record
from acon_hooks.readings.proof import RESOLUTION, Case, check, exchanged, tolerance
from support_variants import Detector, Functional, Official, Outer, Slopes, Static, shaken, tensor

C = 8


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


@pytest.mark.parametrize(
    ("dtype", "allowed"),
    [
        (torch.float64, 1e-11),
        (torch.float32, 5e-6),
        (torch.float16, 1e-2),
        (torch.bfloat16, 6e-2),
    ],
)
@pytest.mark.parametrize("make", [Official, Static, Functional])
def test_right_readings_stay_well_below_the_tolerance_in_every_dtype(
    dtype: torch.dtype, allowed: float, make: type[nn.Module]
) -> None:
    model = shaken(Outer(make(32))).to(dtype)
    (row,) = prove(model, tensor("map", 8, 32).to(dtype)).to_dict("records")
    assert row["status"] in ("proved", "partly proved")
    assert row["dtype"] == str(dtype).removeprefix("torch.")
    assert row["tolerance"] == allowed
    assert row["proof_error"] < allowed / 1.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_recorded_beta_keeps_the_dtype_that_numpy_has(dtype: torch.dtype) -> None:
    model = shaken(Outer(Official(C))).to(dtype)
    with torch.no_grad(), record(model) as recording:
        model(tensor("map", 4, C).to(dtype))
    found = recording.betas()["beta"].dtype
    assert found == {torch.bfloat16: "float32"}.get(dtype, str(dtype).removeprefix("torch."))


def test_channels_without_influence_are_counted_and_unproved() -> None:
    model = shaken(Outer(Detector(C)))
    with torch.no_grad():
        model.act.p2[:, :3] = model.act.p1[:, :3]  # d = 0: the identity holds for any β
        model.act.p1[:, 3] = model.act.p2[:, 3] + 1e-6
    (row,) = prove(model, tensor("map", 4, C)).to_dict("records")
    assert row["silent"] == 3
    assert row["proof_power"] == 4 / 8
    assert row["status"] == "partly proved"
    with torch.no_grad():
        model.act.p2.copy_(model.act.p1)
    (row,) = prove(model, tensor("map", 4, C)).to_dict("records")
    assert (row["status"], row["silent"], row["proof_power"]) == ("unproved", C, 0.0)
    assert row["reader"] == "module fc2, sigmoid"


def test_dead_input_is_silent() -> None:
    model = shaken(Outer(Detector(C)))
    (row,) = prove(model, torch.zeros(4, C, 5, 5)).to_dict("records")
    assert (row["status"], row["silent"], row["proof_error"]) == ("unproved", C, 0.0)


def test_one_sample_is_enough() -> None:
    model = shaken(Outer(Official(C)))
    (row,) = prove(model, tensor("map", 1, C)).to_dict("records")
    assert row["status"] == "proved"
    assert row["granularity"] == "channel"


def test_as_many_samples_as_channels_are_not_confused() -> None:
    for make, granularity in ((Official, "channel"), (Static, "static"), (Functional, "channel")):
        model = shaken(Outer(make(C)))
        (layer,) = find_layers(model, example=tensor("map", C, C, size=C + 1))
        assert layer.granularity == granularity


def test_saturated_beta_is_proved_against_a_changed_one() -> None:
    model = shaken(Outer(Functional(C, lambda z: torch.sigmoid(z * 0 + 40))))
    (row,) = prove(model, tensor("map", 4, C)).to_dict("records")
    assert row["status"] == "proved"


def test_overflow_in_half_precision_is_readable() -> None:
    model = shaken(Outer(Detector(C))).half()
    with torch.no_grad():
        model.act.p1.fill_(500)
    with pytest.raises(ProofError, match=r"infinite or NaN in torch.float16.*65504.*bfloat16"):
        find_layers(model, example=255 * torch.rand(2, C, 4, 4).half())


class Wrong(Slopes):
    """Formulas that are near ACON."""

    def __init__(self, c: int, formula: str) -> None:
        super().__init__(1, c, 1, 1)
        self.formula = formula
        self.fc1, self.fc2 = nn.Conv2d(c, 4, 1), nn.Conv2d(4, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        beta = torch.sigmoid(self.fc2(self.fc1(x.mean((2, 3), keepdim=True))))
        d = (self.p1 - self.p2) * x
        match self.formula:
            case "plain":
                return d * torch.sigmoid(beta * x) + self.p2 * x
            case "hard":
                return d * nn.functional.hardsigmoid(beta * d) + self.p2 * x
            case "line":
                return d * torch.sigmoid(beta * d)
            case "p1":
                return self.p1 * x * torch.sigmoid(beta * d) + self.p2 * x
            case "tanh":
                return d * (1 + torch.tanh(beta * d)) / 2 + self.p2 * x
            case _:
                return torch.nn.functional.elu(d) * beta.exp() + x


@pytest.mark.parametrize(
    ("formula", "hint"),
    [
        ("plain", r"the gate S\(β·x\), without p1 - p2 inside.*kinds=\('acon_plain_gate',\)"),
        ("hard", "a hard-sigmoid gate"),
        ("line", "the second line p2·x missing"),
        ("p1", r"p1·x·S\(β·d\) \+ p2·x"),
        ("other", "no known variant comes close either"),
    ],
)
def test_near_variants_are_refused_with_the_right_hint(formula: str, hint: str) -> None:
    model, x = shaken(Outer(Wrong(C, formula))), tensor("map", 4, C)
    with pytest.raises(ProofError, match=rf"fc2, sigmoid misses by .*{hint}") as caught:
        find_layers(model, example=x)
    assert "layers=[...]" in str(caught.value)
    table = prove(model, x)
    assert table["status"].tolist() == ["failed"]
    assert table["reason"].tolist() == [str(caught.value)]


def test_a_gate_that_no_beta_of_a_channel_explains_is_refused() -> None:
    class Shifted(Slopes):
        """The gate is σ(β·d + 1): a β for each pixel would fit, and mean nothing."""

        def forward(self, x: Tensor) -> Tensor:
            d = (self.p1 - self.p2) * x
            return d * torch.sigmoid(x.mean((2, 3), keepdim=True) * d + 1) + self.p2 * x

    class Flat(nn.Module):
        """β is hidden, and every β has one element of the output only."""

        def __init__(self) -> None:
            super().__init__()
            self.p1, self.p2 = nn.Parameter(torch.randn(1, C)), nn.Parameter(torch.randn(1, C))
            self.w = nn.Parameter(torch.randn(C, C))

        def forward(self, x: Tensor) -> Tensor:
            d = (self.p1 - self.p2) * x
            gate = torch.sigmoid(torch.einsum("nk,kc,nc->nc", x, self.w, d))
            return d * gate + self.p2 * x

    for act, kind in ((Shifted(1, C, 1, 1), "map"), (Flat(), "flat")):
        with pytest.raises(ProofError, match="no reading of β explains"):
            find_layers(shaken(Outer(act)), example=tensor(kind, 5, C))


def test_tanh_gate_is_acon_with_twice_the_slope() -> None:
    model = shaken(Outer(Wrong(C, "tanh")))
    (layer,) = find_layers(model, example=tensor("map", 4, C))
    assert layer.reader == "module fc2, 2 sigmoid"


def test_failed_layer_leaves_the_others_alone() -> None:
    model = shaken(nn.Sequential(Detector(C), Wrong(C, "line"), Detector(C)))
    table = prove(model, tensor("map", 4, C))
    assert table["status"].tolist() == ["proved", "failed", "proved"]
    assert table["layer"].tolist() == ["0", "1", "2"]
    assert math.isnan(table["proof_error"][1])


def test_layer_that_overwrites_its_input_is_proved_on_the_original() -> None:
    class Overwriting(Detector):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            x.copy_(out)
            return x

    class Pixels(Slopes):
        def forward(self, x: Tensor) -> Tensor:
            out = self.use(x, torch.sigmoid(x))
            return x.copy_(out)

    model = shaken(nn.Sequential(nn.Conv2d(C, C, 1), Overwriting(C), Pixels(1, C, 1, 1)))
    with torch.no_grad(), record(model, full=True) as recording:
        for n in (4, 2):
            model(tensor("map", n, C))
            assert torch.equal(
                torch.from_numpy(recording.beta_matrix("1"))[-n:], model[1].truth.flatten(1)
            )
            assert torch.equal(torch.from_numpy(recording.maps("2"))[-n:], model[2].truth)
    assert [layer.in_place for layer in recording.layers] == [True, True]


def test_beta_overwritten_after_it_was_used_is_read_as_used() -> None:
    class Reusing(Detector):
        def forward(self, x: Tensor) -> Tensor:
            logit = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)))
            beta = torch.sigmoid(logit)
            out = self.use(x, beta)
            beta.zero_()
            logit.zero_()
            return out

    model = shaken(Outer(Reusing(C)))
    with torch.no_grad(), record(model) as recording:
        for n in (4, 2):
            model(tensor("map", n, C))
            found = torch.from_numpy(recording.beta_matrix("act"))[-n:]
            assert torch.equal(found, model.act.truth.flatten(1))


def case(n: int, c: int, p: int) -> tuple[Case, Tensor]:
    x, beta = torch.randn(n, c, p), torch.rand(n, c, 1)
    p1, p2 = torch.randn(1, c, 1), torch.randn(1, c, 1)
    d = (p1 - p2) * x
    return Case(x, d * torch.sigmoid(beta * d) + p2 * x, p1, p2), beta


@settings(max_examples=40, deadline=None)
@example(n=3, c=1, p=3, seed=3, shift=0.125)  # p1 - p2 is 0.009
@given(
    n=st.integers(1, 5),
    c=st.integers(1, 5),
    p=st.integers(1, 9),
    shift=st.floats(0.01, 2),
    seed=st.integers(0, 2**31),
)
def test_a_wrong_beta_fails_wherever_the_proof_claims_power(
    n: int, c: int, p: int, shift: float, seed: int
) -> None:
    torch.manual_seed(seed)
    given_case, beta = case(n, c, p)
    limit, _ = tolerance(given_case.x)
    right = check("acon", given_case, beta, limit)
    assert right.error < limit
    wrong = check("acon", given_case, exchanged(beta), limit)
    assert wrong.error > limit or right.power == 0
    moved = check("acon", given_case, beta + shift, limit)
    assert moved.error > limit or right.power < 1 or shift < RESOLUTION


def test_pieces_of_a_large_case_agree_with_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    given_case, beta = case(7, 3, 11)
    whole = check("acon", given_case, beta + 0.1, 5e-6)
    monkeypatch.setattr("acon_hooks.readings.proof._CHUNK", 40)
    assert check("acon", given_case, beta + 0.1, 5e-6) == whole


def test_shared_layer_is_proved_at_every_call() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = Wrong(C, "line")
            with torch.no_grad():
                self.act.p2[:, :4] = 0

        def forward(self, x: Tensor) -> Tensor:
            half = torch.cat([x[:, :4], torch.zeros_like(x[:, 4:])], 1)
            out: Tensor = self.act(half) + self.act(x)
            return out

    with pytest.raises(ProofError, match=r"was proved on call 0 .* misses by .* on call 1"):
        find_layers(shaken(Two()), example=tensor("map", 4, C))


def test_lines_that_are_nearly_one_have_no_power() -> None:
    """What β does to the output lies below the tolerance: β could be wrong by 0.1 unnoticed."""
    torch.manual_seed(3)
    given_case, beta = case(3, 1, 3)
    assert 0 < (given_case.p1 - given_case.p2).abs().item() < 0.01
    found = check("acon", given_case, beta, 5e-6)
    assert (found.power, found.silent, found.status) == (0.0, 0, "unproved")
    finer = 1e-6  # a tolerance that the same change does break
    assert check("acon", given_case, beta, finer).power == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_a_gate_near_one_does_not_pass_for_beta(seed: int) -> None:
    """At the far end of a gate its own value, 0.99999, explains the output to 4e-6 as β = 1."""
    model, rng = nn.Sequential(AconC(2)).eval(), torch.Generator().manual_seed(seed)
    for name, value in (("p1", 1e-3), ("p2", 1.0), ("beta", 0.875)):
        nn.init.constant_(model[0].get_parameter(name), value)
    with torch.no_grad(), record(model) as recording:
        model(-13.7 * (1 + 0.023 * torch.randn(5, 2, 1, 3, generator=rng)))
    assert set(recording.betas()["beta"]) == {0.875}
