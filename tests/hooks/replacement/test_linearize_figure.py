"""The figure of predicted and measured damage: its points are the table."""

import numpy as np
import pandas as pd
import pytest

from acon_analysis.errors import AconError, UsageError
from acon_figures.plots.replacement_damage import MEASURES, replacement_damage
from figurechecks import problems


def damage(count: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = []
    for network in ("digits_metaacon", "digits_relu"):
        for seed in (1, 2):
            true = 10 ** rng.uniform(-6, -1, count)
            parts.append(pd.DataFrame({"network": network, "seed": seed, "layer": "a", "call": 0,
                "first_order": true, "s_c": true**2, "nonlinearity": rng.random(count),
                "abs_beta": np.nan if network == "digits_relu" else rng.random(count),
                "damage": true}))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(("width", "context"), [
    ("double", "paper"), ("single", "paper"), ("double", "talk"), ("single", "talk"),
])  # fmt: skip
@pytest.mark.parametrize("network", ["digits_metaacon", "digits_relu"])
def test_nothing_is_cut_off_and_no_texts_overlap(width: str, context: str, network: str) -> None:
    figure = replacement_damage(damage(), network, width=width, context=context)
    assert problems(figure) == []


def test_the_points_are_the_table() -> None:
    frame = damage()
    figure = replacement_damage(frame)
    own = frame[frame["network"] == "digits_metaacon"]
    for axes, name in zip(figure.axes, MEASURES, strict=True):
        np.testing.assert_array_equal(
            np.asarray(axes.collections[0].get_offsets()), own[[name, "damage"]]
        )
    assert [axes.get_title() for axes in figure.axes[:2]] == ["ρ = 1.00", "ρ = 1.00"]
    assert "digits_metaacon; 80 channels, 2 seeds" in figure.caption


def test_an_absent_measure_and_mistakes_are_told() -> None:
    assert replacement_damage(damage(), "digits_relu").axes[3].get_title() == "ρ: none"
    with pytest.raises(UsageError, match="no network 'digits_rely'; did you mean 'digits_relu'"):
        replacement_damage(damage(), "digits_rely")
    with pytest.raises(AconError, match="lacks the column s_c"):
        replacement_damage(damage().drop(columns="s_c"))
    with pytest.raises(AconError, match="no replaced channel"):
        replacement_damage(damage().iloc[:0])
