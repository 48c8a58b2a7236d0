"""Plans: which units are chosen, what a file holds, what the tables of damage say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from acon_analysis.errors import UsageError
from acon_analysis.studies.replacement_ranks import (
    compare_replacements,
    rank_correlations,
    summarize_correlations,
)
from acon_hooks.replacement.plan import (
    Plan,
    PlanError,
    PlannedLayer,
    PlannedUnit,
    choose_units,
    load_plan,
    make_plan,
)

FACTS = (PlannedLayer("a", 0, 1, 4, 1, "activation"), PlannedLayer("b.act", 0, 2, 2, 1, "acon"),
         PlannedLayer("b.act", 1, 2, 2, 1, "acon"))  # fmt: skip


def table() -> pd.DataFrame:
    keys = [("a", 0, c) for c in range(4)] + [("b.act", call, c) for call in (0, 1) for c in (0, 1)]
    frame = pd.DataFrame(keys, columns=["layer", "call", "channel"])
    return frame.assign(slope=0.1 * np.arange(8) + 1 / 3, intercept=-0.5, L=0.75,
                        s_c=[0.4, 0.1, 0.3, np.nan, 0.05, 0.2, 0.02, 0.2])  # fmt: skip


def keys(frame: pd.DataFrame) -> list[tuple[str, int, int]]:
    return list(frame[["layer", "call", "channel"]].itertuples(index=False, name=None))


def plan(frame: pd.DataFrame | None = None) -> Plan:
    chosen = choose_units(table(), layers=["b.act"]) if frame is None else frame
    return make_plan(chosen, FACTS, model="net", weights_sha256="ab" * 32, data="digits:train")


def test_a_budget_buys_the_least_nonlinear_units_over_all_layers() -> None:
    assert keys(choose_units(table(), budget=3)) == [("a", 0, 1), ("b.act", 0, 0), ("b.act", 1, 0)]
    assert keys(choose_units(table(), budget=0.25)) == [("b.act", 0, 0), ("b.act", 1, 0)]
    assert keys(choose_units(table(), budget=2, by="slope")) == [("a", 0, 0), ("a", 0, 1)]


def test_equal_values_are_taken_in_the_order_of_the_table() -> None:
    frame = table().assign(s_c=1.0)
    assert keys(choose_units(frame, budget=2)) == [("a", 0, 0), ("a", 0, 1)]


def test_within_layers_each_gives_its_share() -> None:
    chosen = choose_units(table(), budget=0.5, within=True)
    assert keys(chosen) == [("a", 0, 1), ("a", 0, 2), ("b.act", 0, 0), ("b.act", 1, 0)]


def test_a_unit_without_a_measure_is_not_chosen_by_rank_but_with_its_layer() -> None:
    assert ("a", 0, 3) not in keys(choose_units(table(), budget=8))
    assert ("a", 0, 3) in keys(choose_units(table(), layers=["a"]))


def test_given_units_and_whole_layers() -> None:
    assert keys(choose_units(table(), units=[("b.act", 1), ("a", 0, 2)])) == [
        ("a", 0, 2), ("b.act", 0, 1), ("b.act", 1, 1),
    ]  # fmt: skip
    assert plan().whole == (("b.act", 0), ("b.act", 1))
    assert plan().lost == pytest.approx({("b.act", 0): 0.25, ("b.act", 1): 0.22})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "say what to replace"),
        ({"budget": 9}, "1 to 8 channels; got 9"),
        ({"budget": 1.5}, "between 0 and 1; got 1.5"),
        ({"budget": 2, "within": True}, "budget is a share"),
        ({"budget": 2, "by": "s_d"}, "cannot rank by 's_d'; did you mean 's_c'"),
        ({"layers": ["b.akt"]}, "no layer 'b.akt' in the fit; did you mean 'b.act'"),
        ({"units": [("a", 7)]}, "its channels are 0 to 3"),
        ({"units": [("aa", 0)]}, "did you mean 'a'"),
        ({"units": []}, "is empty"),
        ({"units": [("a",)]}, r"a unit is \(layer, channel\)"),
        ({"units": [("a", 0)], "budget": 3}, "not both"),
    ],
)
def test_mistakes_are_explained(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        choose_units(table(), **arguments)


def test_a_plan_survives_its_file_to_the_last_bit(tmp_path: Path) -> None:
    path = plan().save(tmp_path / "deep" / "plan.json")
    assert load_plan(path) == plan()
    assert list(plan().table.columns) == [
        "layer", "call", "channel", "slope", "intercept", "L", "s_c", "form", "coefficients",
    ]  # fmt: skip


def spoil(change: dict[str, Any] | str, tmp_path: Path) -> Path:
    path = plan().save(tmp_path / "plan.json")
    content = json.loads(path.read_text())
    if isinstance(change, str):
        path.write_text(change)
    else:
        path.write_text(json.dumps(content | change))
    return path


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("{", "is not JSON"),
        ("[]", "has the format None"),
        ({"format": "acon-plan/9"}, "has the format 'acon-plan/9', this version reads"),
        ({"units": 3}, "no list 'units'"),
        ({"model": None}, "no text 'model'"),
        ({"units": [{"layer": "a"}]}, "'call' of a PlannedUnit must be int; it is None"),
        ({"layers": []}, "no facts of layer 'b.act', call 0"),
    ],
)
def test_a_damaged_file_is_refused(change: dict[str, Any] | str, text: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=text):
        load_plan(spoil(change, tmp_path))


def test_a_missing_file_and_impossible_units_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        load_plan(tmp_path / "none.json")
    good = PlannedUnit("a", 0, 0, 1.0, 0.0, 1.0, 0.0)
    for units, text in (
        ((good, good), "stands twice"),
        (
            (PlannedUnit("a", 0, 4, 1.0, 0.0, 1.0, 0.0),),
            "channels 0 to 3, the plan names channel 4",
        ),
        ((PlannedUnit("a", 0, 0, np.nan, 0.0, 1.0, 0.0),), "must be finite"),
    ):
        with pytest.raises(PlanError, match=text):
            Plan(units, FACTS, "net", "")


def units(seeds: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = []
    for seed in range(seeds):
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


def test_the_summary_is_over_layers_then_seeds() -> None:
    correlations = rank_correlations(units(), ["good", "noisy", "constant"])
    summary = summarize_correlations(correlations, seed=1, draws=200)
    assert list(summary["measure"]) == ["good", "noisy"]  # best first, none without a value
    row = summary.set_index("measure").loc["noisy"]
    own = correlations[correlations["measure"] == "noisy"]
    assert row["spearman"] == pytest.approx(own.groupby("seed")["spearman"].mean().mean())
    assert row["low"] <= row["spearman"] <= row["high"]
    assert (row["seeds"], row["layers"], row["units"]) == (3, 6, 120)
    pd.testing.assert_frame_equal(summary, summarize_correlations(correlations, seed=1, draws=200))
    one = summarize_correlations(rank_correlations(units(1), ["noisy"]), seed=1, draws=50)
    assert np.isnan(one["seed_std"].item())


def test_replacements_are_compared_by_their_median() -> None:
    rows = [("net", 0, "a", 0, channel, kind, value)
            for channel in range(3)
            for kind, value in (("affine", 0.1 * (channel + 1)), ("zero", 0.5))]  # fmt: skip
    names = ["network", "seed", "layer", "call", "channel", "replacement", "median"]
    frame = pd.DataFrame(rows, columns=names)
    found = compare_replacements(frame).set_index("replacement")
    assert found.loc["affine", "median"] == pytest.approx(0.2)
    assert found.loc["zero", "times_affine"] == pytest.approx(2.5)
    assert found.loc["zero", "affine_better"] == 1
    with pytest.raises(UsageError, match="no unit was replaced by its line"):
        compare_replacements(frame[frame["replacement"] == "zero"])
