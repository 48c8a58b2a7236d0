"""The figures of trials of activations: what they draw, write instead, and refuse."""

import numpy as np
import pandas as pd
import pytest

import acon_figures
from acon_analysis.errors import UsageError
from figurechecks import problems

SHAPES = [("double", "paper"), ("single", "paper"), ("double", "talk")]


def signals() -> pd.DataFrame:
    rows = [
        (name, seed, layer, base ** (4 - layer) * (seed + 1))
        for name, base in (("sigmoid", 0.1), ("ReLU", 1.0))
        for seed in (0, 3)
        for layer in (1, 2, 3, 4)
    ]
    return pd.DataFrame(rows, columns=["activation", "seed", "layer", "gradient"])


def trials() -> pd.DataFrame:
    rows = [
        (name, 0.1, seed, mean + 0.01 * seed, mean + 0.01 * seed, False, 0.0)
        for name, mean in (("SELU", 0.95), ("sigmoid", 0.1))
        for seed in range(3)
    ]
    names = ["activation", "rate", "seed", "validation", "test", "diverged", "dead"]
    return pd.DataFrame(rows, columns=names)


@pytest.mark.parametrize(("width", "context"), SHAPES)
def test_nothing_is_cut_off(width: str, context: str) -> None:
    look = {"width": width, "context": context}
    tables = {"kept": signals(), "torch": signals()}
    assert problems(acon_figures.gradients_by_layer(tables, **look)) == []
    panels = {"two layers": trials(), "six layers": trials()}
    assert problems(acon_figures.trial_accuracies(panels, **look)) == []


def test_gradients_are_geometric_means() -> None:
    axes = acon_figures.gradients_by_layer({"one": signals()}).axes[0]
    drawn = np.asarray(axes.lines[0].get_ydata())
    assert drawn == pytest.approx([0.002, 0.02, 0.2, 2.0])  # sqrt(1·4) = 2
    assert axes.get_yscale() == "log"


def test_what_lies_far_below_is_written() -> None:
    axes = acon_figures.trial_accuracies({"one": trials()}).axes[0]
    assert len(axes.containers) == 1
    assert [text.get_text() for text in axes.texts] == [" ← 0.11"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["SELU", "sigmoid"]
    with pytest.raises(UsageError, match="no table to draw"):
        acon_figures.trial_accuracies({})
