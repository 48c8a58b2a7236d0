"""Rank correlations of measures with the damage of replaced channels."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from acon_analysis.studies.replacement_ranks import rank_correlations


def units() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = []
    for seed in range(3):
        for layer in ("a", "b"):
            damage = rng.random(20)
            parts.append(pd.DataFrame({"network": "net", "seed": seed, "layer": layer, "call": 0,
                "good": damage**3, "bad": -damage, "noisy": damage + rng.normal(0, 0.3, 20),
                "constant": 1.0, "absent": np.nan, "damage": damage}))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_rank_correlations_are_spearmans() -> None:
    names = ["good", "bad", "noisy", "constant", "absent"]
    frame = rank_correlations(units(), names)
    by = frame.groupby("measure")["spearman"]
    np.testing.assert_allclose(by.get_group("good"), 1)
    np.testing.assert_allclose(by.get_group("bad"), -1)
    assert by.get_group("constant").isna().all()
    assert by.get_group("absent").isna().all()
    for key, part in units().round(1).groupby(["seed", "layer"]):  # rounded: with ties
        expected = spearmanr(part["noisy"], part["damage"]).statistic
        found = rank_correlations(part, ["noisy"])["spearman"].item()
        assert found == pytest.approx(expected, abs=1e-12), key
    few = units().groupby(["seed", "layer"]).head(3)
    assert rank_correlations(few, ["good"])["spearman"].isna().all()
