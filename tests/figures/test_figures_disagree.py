"""Measures that contradict one another, β over epochs, and the tables of the package."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from scipy.stats import spearmanr

import figureframes
from acon_analysis.errors import AconError, UsageError
from acon_analysis.plotdata.measure_ranks import AGAINST, measure_ranks
from acon_analysis.studies import results
from acon_figures import beta_over_epochs, measures_disagree

FACTS, MEASURES = figureframes.channels(), figureframes.measures()
LAST = figureframes.LAYERS[-1]


def test_ranks_and_correlations_are_scipys() -> None:
    found = measure_ranks(FACTS, MEASURES)
    own = FACTS[FACTS["layer"] == LAST].reset_index(drop=True)
    expected = spearmanr(1 - own["L"], own["s_c"]).statistic
    assert found.correlations.loc["nonlinearity", "s_c"] == pytest.approx(expected)
    other = spearmanr(own["L"], MEASURES["affinity"]).statistic
    assert found.correlations.loc["nonlinearity", "affinity"] == pytest.approx(other)
    ranks = found.ranks["rank_nonlinearity"]
    assert int(ranks.argmin()) == int(own["L"].argmax())
    assert (ranks.min(), ranks.max()) == (0.0, 1.0)
    assert "affinity" not in measure_ranks(FACTS).measures
    assert "G" in measure_ranks(FACTS).measures
    assert "G" not in measure_ranks(FACTS.assign(G=np.nan)).measures


def _unit(**changes: Any) -> pd.DataFrame:
    """Twelve channels of which only the last contradicts a measure."""
    rank = np.arange(12) / 11
    values: dict[str, Any] = {
        "L": 1 - 0.5 * rank, "s_c": 0.01 * rank, "beta_mean": 0.2 + 0.5 * rank, "kappa": rank,
        "positive": 0.1 + 0.4 * rank, "p1": 1.0, "p2": 0.2, "std_y": 1.0, "G": rank,
    }  # fmt: skip
    own = FACTS[FACTS["layer"] == LAST].reset_index(drop=True).assign(**values)
    for name, value in changes.items():
        own.loc[11, name] = value
    return own


@pytest.mark.parametrize(
    ("changes", "against", "headline", "reason"),
    [
        ({"beta_mean": 0.01}, "abs_beta", "small β, yet it bends", "0.01, but the gain"),
        ({"beta_mean": 0.01, "p2": -1.0}, "abs_beta", "small β", "p1 is nearly -p2"),
        ({"L": 1.0, "s_c": 0.0, "positive": 0.1, "p2": 0.99}, "abs_beta", "large β, yet straight",
         "p1 is nearly p2, a line for any β"),
        ({"positive": 0.01}, "gate_entropy", "gate switches less", "1 % of its inputs are"),
        ({"L": 1.0, "beta_mean": 0.1, "s_c": 0.0}, "gate_entropy", "gate switches, yet straight",
         "a line explains 100.0 % of its output"),
        ({"s_c": 0.0}, "s_c", "bends, but hardly acts", "so little that its bend is 0 %"),
        ({"L": 0.999, "beta_mean": 0.21, "positive": 0.11}, "s_c", "straight, but acts strongly",
         "its bend is 1 %"),
    ],
)  # fmt: skip
def test_the_channel_that_contradicts_is_named_with_the_reason(
    changes: dict[str, float], against: str, headline: str, reason: str
) -> None:
    examples = measure_ranks(_unit(**changes)).examples.set_index("against")
    one = examples.loc[against]
    assert one["channel"] == 11
    assert headline in one["headline"]
    assert reason in one["reason"]


def test_measures_that_agree_give_no_example_and_few_channels_no_ranks() -> None:
    assert measure_ranks(_unit()).examples.empty
    figure = measures_disagree(_unit())
    assert len(figure.axes) == 1
    with pytest.raises(AconError, match="has 3 channels whose output varies"):
        measure_ranks(_unit().iloc[:3])
    with pytest.raises(AconError, match="other measures lacks the column affinity"):
        measure_ranks(FACTS, MEASURES.drop(columns="affinity"))
    with pytest.raises(UsageError, match="no layer 'x'"):
        measures_disagree(FACTS, "x")


def test_the_figure_shows_the_correlations_and_the_ranks() -> None:
    found = measure_ranks(FACTS, MEASURES)
    figure = measures_disagree(FACTS, measures=MEASURES)
    matrix, *cells = figure.axes
    np.testing.assert_array_equal(np.asarray(matrix.images[0].get_array()), found.correlations)
    assert len(cells) == 2 * len(AGAINST)
    for place, example in enumerate(found.examples.to_dict("records")):
        curve, below = cells[2 * place : 2 * place + 2]
        assert len(curve.lines) == 2
        title = curve.get_title().replace("\n", " ")
        assert title == f"({'bcd'[place]}) {example['headline']}"
        (points,) = [c for c in below.collections if isinstance(c, PathCollection)]
        row = found.ranks.set_index("channel").loc[example["channel"]]
        expected = [row[f"rank_{name}"] for name in found.measures]
        np.testing.assert_allclose(np.asarray(points.get_offsets())[:, 0], expected)
        assert example["reason"] in figure.caption


def test_beta_over_epochs_draws_means_over_seeds_beside_the_null() -> None:
    frame = figureframes.epochs()
    figure = beta_over_epochs(frame)
    own = frame[frame["layer"] == LAST]
    for place, variant in enumerate(["official recipe", "no decay"]):
        left, right = figure.axes[place], figure.axes[place + 2]
        assert left.get_title() == variant
        columns = ["beta_sd", "null_sd", "effect_ratio"]
        mean = own[own["variant"] == variant].groupby("epoch")[columns].mean()
        drawn = (*left.lines[:2], right.lines[0])
        for line, column in zip(drawn, columns, strict=True):
            np.testing.assert_allclose(np.asarray(line.get_ydata(), float), mean[column])
        band = np.asarray(right.collections[0].get_paths()[0].vertices)
        assert (band[:, 1].min(), band[:, 1].max()) == (0.6, 2.1)
    assert right.get_yscale() == "log"
    assert "means of up to 2 seeds" in figure.caption
    assert "one seed" in beta_over_epochs(figureframes.epochs(1)).caption
    assert LAST in figure.caption
    assert figureframes.LAYERS[0] in beta_over_epochs(frame, figureframes.LAYERS[0]).caption
    single = beta_over_epochs(frame, variants=["no decay"])
    assert "official" not in single.caption


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "layer9"}, "no layer 'layer9'"),
        ({"variants": ["decay"]}, "no variant 'decay'; did you mean 'no decay'"),
        ({"variants": []}, "variants is empty"),
        ({"epochs": figureframes.epochs().drop(columns="null_sd")}, "lacks the column null_sd"),
        ({"epochs": figureframes.epochs().iloc[:0]}, "holds no rows"),
    ],
)
def test_a_wrong_frame_of_epochs_is_explained(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(AconError, match=message):
        beta_over_epochs(**{"epochs": figureframes.epochs(), **arguments})
    many = pd.concat([figureframes.epochs(1).assign(variant=f"v{n}") for n in range(13)])
    with pytest.raises(AconError, match="13 variants are too many"):
        beta_over_epochs(many)


def test_shipped_tables_are_read_by_name_and_say_where_they_are_from() -> None:
    assert "replacement_damage" in results.available()
    for name in results.available():
        assert len(results.table(name))
        assert "python benchmarks/" in results.provenance(name)
    with pytest.raises(UsageError, match="no table of results 'replacement'; did you mean"):
        results.table("replacement")
    with pytest.raises(UsageError, match="no table of results 'x'"):
        results.provenance("x")


def test_the_shipped_damage_is_the_benchmarks() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "RESULTS_replacement_units.csv"
    table = results.table("replacement_damage")
    whole = pd.read_csv(path).query("network == 'digits_metaacon'").reset_index(drop=True)
    pd.testing.assert_frame_equal(table, whole[list(table.columns)])
