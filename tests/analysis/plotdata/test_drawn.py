"""Which layers of a large network are drawn."""

from itertools import pairwise

import pytest

from acon_analysis.plotdata import drawn
from acon_analysis.runs.run import Run


def test_a_network_of_ordinary_size_is_drawn_whole(digits_run: Run) -> None:
    assert drawn.drawn_layers(digits_run).equals(digits_run.layers)
    assert drawn.drawn_text(digits_run) == ""


def test_a_spread_is_even_and_holds_the_ends(
    digits_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn, "WHOLE", 2)
    monkeypatch.setattr(drawn, "SPREAD", 3)
    run = Run(digits_run.path)
    found = drawn.drawn_layers(run)
    every = run.layers["layer"].to_list()
    assert 3 <= len(found) < len(every)
    measured = run.linearity().set_index("layer")["L"]
    ends = {every[0], every[-1], every[(len(every) - 1) // 2], measured.idxmax(), measured.idxmin()}
    assert set(found["layer"]) == ends
    assert [a < b for a, b in pairwise(found.index)] == [True] * (len(found) - 1)
    assert drawn.drawn_text(run).startswith(f"{len(found)} of {len(every)} layers are drawn, ")
