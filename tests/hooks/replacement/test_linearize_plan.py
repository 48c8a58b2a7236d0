"""Plans: which units are chosen, what a file holds, what the tables of damage say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from acon_analysis.errors import UsageError
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
