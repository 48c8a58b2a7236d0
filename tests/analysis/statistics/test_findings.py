"""What a run says in words: each case of the answers, from planted tables."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from acon_analysis.statistics.findings import Finding, findings, learned_beta, straight_channels
from acon_analysis.statistics.gaussian import RELU_L, gaussian_fit
from acon_analysis.statistics.yardsticks import gated_index, gaussian_index


def layers(*values: float, **columns: Any) -> pd.DataFrame:
    """Return a table of layers a, b, ... with these L, each of 10 channels."""
    count = len(values)
    table = pd.DataFrame({
        "layer": list("abcdefgh"[:count]), "call": 0, "L": values, "L_gate": float("nan"),
        "channels": 10, "linear": 0, "dead": 0, "why": "",
    })  # fmt: skip
    ends = {"L_low": table["L"] - 0.02, "L_high": table["L"] + 0.02}
    return table.assign(**(ends | columns))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.6, 0.8, 0.9), "2 of 3 layers are straighter."),
        ((0.8, 0.9), "both layers are straighter."),
        ((0.6, 0.7), "no layer is clearly straighter."),
        ((0.74, 0.9), "1 of 2 layers is straighter."),
        ((0.8,), "this layer is straighter."),
    ],
)
def test_relu_is_the_yardstick(values: tuple[float, ...], text: str) -> None:
    assert pytest.approx(float(gaussian_fit(float("inf"), 1).L), abs=1e-12) == RELU_L
    found = findings(layers(*values))[0]
    assert found.answer.endswith(f"A ReLU on Gaussian inputs is at 73 %: {text}")
    assert "0.733 a ReLU" in found.numbers
    assert f"L = {min(values):.3f}" in found.numbers


@pytest.mark.parametrize(
    ("name", "module", "std"),
    [
        ("GELU", torch.nn.GELU(), 1.0),
        ("GELU", torch.nn.GELU(), 0.5),
        ("SiLU", torch.nn.SiLU(), 2.0),
        ("ReLU6", torch.nn.ReLU6(), 3.0),
        ("Tanh", torch.nn.Tanh(), 1.0),
        ("ReLU", torch.nn.ReLU(), 1.0),
    ],
)
def test_the_networks_own_activation_is_a_yardstick_too(
    name: str, module: torch.nn.Module, std: float
) -> None:
    x = std * np.random.default_rng(0).standard_normal(1_000_000)
    y = module(torch.from_numpy(x)).numpy()
    assert gaussian_index(name, std) == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, abs=2e-3)
    found = findings(layers(0.728, 0.9, L_low=[0.726, 0.88], class_name=[name, name]))[0].answer
    share = f"{100 * gaussian_index(name):.0f} %"
    assert f"A {name} on Gaussian inputs is at {share}" in found
    if name == "GELU":  # both are beyond 0.723; a ReLU's 0.733 would say that one is not
        assert found.endswith("both layers are straighter.")


@pytest.mark.parametrize("silu", ["silu", "SiLU"])
def test_each_kind_of_layer_has_its_own_yardstick(silu: str) -> None:
    table = layers(
        0.85, 0.23, 0.78, 0.1, kind=["activation", "product"] * 2, class_name=[silu, "mul"] * 2,
        gate_of=["b", "", "d", ""], L_gate=[float("nan"), 0.85, float("nan"), 0.78],
    )  # fmt: skip
    a, b = np.random.default_rng(0).standard_normal((2, 400_000))
    product = a * b / (1 + np.exp(-b))
    fit = np.linalg.lstsq(np.stack([a, b, np.ones(len(a))], 1), product, rcond=None)
    share = 1 - float(fit[1][0]) / float(((product - product.mean()) ** 2).sum())
    assert gated_index(silu) == pytest.approx(share, abs=5e-3)
    said = findings(table)[0]
    assert said.answer.endswith(
        "A SiLU on Gaussian inputs is at 80 %: 1 of 2 such layers is straighter."
    )
    other = f"a product with a SiLU gate is at {100 * share:.0f} % (1 of 2 layers is straighter)."
    assert f"On Gaussian inputs {other}" in said.numbers
    assert str(findings(table.iloc[::-1])[0]).count("1 of 2 ") == 2
    unknown = str(findings(table.assign(gate_of=""))[0])
    assert "product with" not in unknown
    assert "A SiLU on Gaussian inputs is at 80 %" in unknown
    only = findings(table[table["kind"] == "product"].assign(gate_of=""))[0]
    assert only.answer.endswith("which bends least.")


def test_an_activation_of_no_known_formula_is_compared_with_relu() -> None:
    assert np.isnan(gaussian_index("Mystery"))
    found = findings(layers(0.8, 0.9, class_name=["Mystery", "Mystery"]))[0].answer
    assert "A ReLU on Gaussian inputs is at 73 %: both" in found
    three = findings(layers(0.8, 0.9, 0.9, class_name=["Mystery", "Mystery", "GELU"]))[0]
    assert "A ReLU on Gaussian inputs is at 73 %: both layers are straighter." in three.answer
    assert "Compared with a ReLU for lack of a value of their own: Mystery." in three.numbers
    mixed = findings(layers(0.8, 0.7, class_name=["Mystery", "ReLU"]))[0].answer
    assert mixed.endswith("A ReLU on Gaussian inputs is at 73 %: 1 of 2 layers is straighter.")


def test_an_activation_whose_value_depends_on_parameters_is_not_compared() -> None:
    leaky = {"kind": "activation", "class_name": ["LeakyReLU", "SiLU"]}
    found = findings(layers(0.8, 0.9, **leaky))[0]
    assert found.answer.endswith(
        "No value of Gaussian inputs to compare with: Leaky ReLU (the run does not hold its "
        "parameters)."
    )
    assert "On Gaussian inputs a SiLU is at 80 % (this layer is straighter)." in found.numbers
    alone = findings(layers(0.8, kind="activation", class_name="LeakyReLU"))[0].answer
    assert "73 %" not in alone


def test_layers_whose_intervals_overlap_are_not_ranked() -> None:
    found = findings(layers(0.78, 0.79, L_low=[0.56, 0.75], L_high=[0.91, 0.82]))[0]
    assert "bends most," not in found.answer
    assert "Their intervals overlap: these data do not show which layer bends most." in found.answer
    assert found.answer.endswith("1 of 2 layers is straighter.")


def test_what_is_not_one_does_not_look_like_it() -> None:
    found = findings(layers(0.5, 0.99996))[0]
    said = "50 % of the output's variance in a, which bends most, and 99.9 % in b, which"
    assert said in found.answer
    assert "> 0.999 in b." in found.numbers


def test_straight_channels_are_counted() -> None:
    def said(**columns: Any) -> str:
        found = straight_channels(layers(0.8, 0.9, **columns))
        assert found is not None
        return found.answer

    assert said() == "No, each of the 20 channels bends."
    assert said(linear=[4, 0]) == "Yes, 4 of 20 channels."
    assert said(linear=[10, 10]) == "Yes, all 20 channels."
    assert said(linear=[4, 3], dead=[0, 3]) == (
        "Yes, 7 of 20 channels, 3 of them only because their output does not vary."
    )


def test_straight_channels_of_gates_and_products_are_counted_apart() -> None:
    table = layers(
        0.8, 0.99, 0.95, linear=[1, 6, 5], kind=["activation", "activation", "product"],
        gate_of=["", "c", ""], class_name=["SiLU", "Sigmoid", "mul"],
    )  # fmt: skip
    found = straight_channels(table)
    assert found is not None
    assert found.answer == (
        "Yes, 1 of 10 channels of activations, 6 of 10 channels of gates, 5 of 10 channels of "
        "products."
    )
    other = straight_channels(table.assign(linear=[0, 6, 5]))
    assert other is not None
    assert other.answer.endswith(
        "5 of 10 channels of products, none of 10 channels of activations."
    )
    assert "the variance of the output of a (SiLU)" in str(findings(table)[0])


def test_gates_and_products_stand_apart() -> None:
    table = layers(
        0.8, 0.6, 0.99, 0.9, kind=["activation", "activation", "activation", "product"],
        gate_of=["", "d", "d", ""], class_name=["SiLU", "Sigmoid", "Sigmoid", "mul"],
        n=1000, cyy=[1000.0, 0.9, 10.0, 1000.0],
    )  # fmt: skip
    found = findings(table)[0]
    assert "explains 80 % of the variance of the output of a (SiLU)." in found.answer
    assert "Gates: L = 0.600 to 0.990. Products: L = 0.900." in found.numbers
    assert (
        "A gate of low L may do little: the outputs of b (L = 0.600) lie between 0 and 1, with a "
        "standard deviation of 0.03."
    ) in found.numbers
    straight = table.assign(L=[0.8, 0.99, 0.99, 0.9], L_high=[0.82, 1.0, 1.0, 0.92])
    assert "A gate of low L" not in findings(straight)[0].numbers


def test_products_are_named_and_linearity_comes_first() -> None:
    splits = pd.DataFrame({
        "layer": ["a", "b"], "call": 0, "answer": ["more", "more"], "p_value": 0.01, "text": "",
        "ratio": 3.0, "null_p05": 0.5, "null_p95": 1.5,
    })  # fmt: skip
    found = findings(layers(0.2, 0.8, L_gate=[0.9, float("nan")]), splits)
    assert [one.question[:3] for one in found] == ["How", "Are", "Are", "Did"]
    assert "a plane over a and the gate's input b" in found[0].numbers
    assert found[2].answer == "No: a (L of the product 0.200, of its gate 0.900)."
    assert found[3].answer.startswith("Yes: the samples' means of β vary more than with random")
    assert "a: 3 times, redrawn 0.5 to 1.5 (p = 0.01)." in found[3].numbers


def test_nothing_is_said_of_what_is_not_there() -> None:
    assert findings(None) == []
    assert findings(layers(float("nan"))) == []
    assert learned_beta(pd.DataFrame(columns=["layer", "call", "answer"])) is None
    lost = findings(layers(float("nan"), why=["not measurable: 10 channels"]))
    assert [one.answer for one in lost] == [
        "No layer is measurable: no sample has finite values in it."
    ]
    assert str(Finding("a?", "b.")) == "a? b."
