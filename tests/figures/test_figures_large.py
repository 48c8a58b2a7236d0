"""Runs of many samples: what is drawn of one never passes through a long frame of β."""

import re
import weakref
from pathlib import Path
from typing import Any

import pytest

import figureframes
from acon_analysis.moments.frames import MergedRows
from acon_analysis.runs import run as runs
from acon_analysis.runs.run import Run
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_analysis.store import parquet
from acon_figures import FIGURES, find
from acon_figures.inputs import SHIPPED, Inputs
from commands import status


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a long frame of one layer be too long, and fail if one is asked for at all."""

    def betas(self: Run, *args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"a long frame of {self!r} with {args}, {kwargs}")

    monkeypatch.setattr(runs, "MAX_ROWS", 10)
    monkeypatch.setattr(Run, "betas", betas)


@pytest.mark.usefixtures("refusing")
def test_every_figure_of_a_run_is_drawn(digits_run: Run, tmp_path: Path) -> None:
    given = ("--run", digits_run.path, "--out", tmp_path, "--format", "svg")
    assert status("figures", *given) == 0
    names = {
        f"{spec.name}_{suffix}" if suffix else spec.name
        for spec in FIGURES.values()
        if spec.kind == "measured" and set(spec.frames) - (SHIPPED - {"blocks"})
        for suffix in ("", *spec.variants)
    }
    assert {path.stem for path in tmp_path.glob("*.svg")} == names


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the parts that are read from the disk: moments, and each column of β."""
    names: list[str] = []
    own, matrices = MergedRows.add, parquet._matrices

    def add(merged: MergedRows, keys: Any, parts: Any) -> None:
        names.append("moments")
        own(merged, keys, parts)

    def columns(path: Path, wanted: list[str]) -> Any:
        names.extend(wanted if path.parent.name == "betas" else [])
        return matrices(path, wanted)

    monkeypatch.setattr(MergedRows, "add", add)
    monkeypatch.setattr(parquet, "_matrices", columns)
    return names


@pytest.mark.usefixtures("refusing")
def test_the_report_of_a_run_is_written(digits_run: Run, tmp_path: Path, read: list[str]) -> None:
    page = tmp_path / "page.html"
    assert status("report", digits_run.path, "--out", page) == 0
    columns = digits_run.layers["column"].tolist()
    assert read.count("moments") == len(digits_run.units)
    assert [read.count(column) for column in columns] == [len(digits_run.units)] * len(columns)
    text = page.read_text("utf-8")
    drawn = {spec.name for spec in FIGURES.values() if spec.heading and "blocks" not in spec.needs}
    assert set(re.findall(r'<figure id="figure-(\w+)">', text)) == drawn | {"depth"}
    assert "Not drawn" not in text
    assert "How much of the network&#39;s nonlinearity is measured?" in text


def test_inputs_are_made_when_a_figure_asks(
    digits_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    beta = Run.beta

    def noting(self: Run, layer: str, call: int = 0) -> BetaMatrix:
        asked.append((layer, call))
        return beta(self, layer, call)

    monkeypatch.setattr(Run, "beta", noting)
    inputs = Inputs([digits_run], {"images": lambda _run: pytest.fail("no figure asked")})
    assert asked == []
    assert set(inputs.of(find("linearity_by_depth"))) == {"depth"}
    assert asked == []
    frames = inputs.of(find("beta_heatmap"))
    assert asked == [("layer3.0.acon", 0)]
    released = weakref.ref(frames["frame"])
    assert released() is not None
    del frames
    assert released() is None


@pytest.mark.parametrize("name", ["beta_distributions", "beta_heatmap", "sample_extremes"])
def test_a_matrix_and_a_users_long_frame_draw_the_same(name: str) -> None:
    spec = find(name)
    frames = figureframes.frames(spec)
    matrix = frames | {"frame": BetaMatrix.from_frame(frames["frame"])}
    one, other = (spec.draw(given) for given in (frames, matrix))
    assert one.caption == other.caption
    assert one._repr_png_() == other._repr_png_()
