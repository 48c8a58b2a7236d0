"""The number of jackknife blocks belongs to a run: it is kept, read back and made to fit."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import acon_analysis as acon
from acon_analysis.cli import app
from acon_analysis.errors import AconError, StoreError, UsageError
from acon_analysis.moments.fields import FIELDS
from acon_analysis.moments.frames import merge_rows
from acon_analysis.runs.compare import compare_runs, shared_blocks, unlike
from acon_analysis.runs.run import Run
from acon_hooks.captures import plan
from acon_hooks.moments.options import MomentOptions, recorded_options
from captures import Tiny, images

KEYS = ("layer", "call", "channel", "block")


def capture(folder: Path, blocks: int | None = None, *, seed: int = 0, count: int = 130) -> Run:
    return acon.capture(
        Tiny(seed), images(count), folder, batch_size=50, threads=1, progress=False,
        moments=MomentOptions(kernel="eager", blocks=blocks),
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Run]:
    """Runs of the same images by number of blocks."""
    folder = tmp_path_factory.mktemp("blocks")
    found = {blocks: capture(folder / str(blocks), blocks) for blocks in (20, 30, 7)}
    return found | {100: capture(folder / "100", 100)}


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(list(KEYS), ignore_index=True)


def test_fewer_blocks_are_the_others_merged(runs: dict[int, Run]) -> None:
    assert runs[20].moment_blocks == 20
    own = in_order(runs[20].moments)
    assert sorted(own["block"].unique()) == list(range(20))
    finer = runs[100].moments
    merged = in_order(merge_rows(finer.assign(block=finer["block"] % 20), KEYS))
    pd.testing.assert_frame_equal(own[list(KEYS)], merged[list(KEYS)])
    for field in (f for f in FIELDS if f.group != "product"):
        size = np.abs(merged[field.name]).mean()
        np.testing.assert_allclose(
            own[field.name], merged[field.name], rtol=1e-12, atol=1e-12 * size, err_msg=field.name
        )
    one, two = (runs[key].path / "moments" / "unit-0000000.parquet" for key in (20, 100))
    assert one.stat().st_size < two.stat().st_size / 2


def test_the_same_linearity_with_other_intervals(runs: dict[int, Run]) -> None:
    few, many = (runs[key].linearity(columns="all") for key in (20, 100))
    np.testing.assert_allclose(few["L"], many["L"], rtol=1e-11)
    assert (few["L_error"] / many["L_error"]).between(0.3, 3).all()
    assert not np.allclose(few["L_error"], many["L_error"], rtol=1e-3)


def test_runs_of_other_blocks_are_compared_over_those_they_share(
    runs: dict[int, Run], tmp_path: Path
) -> None:
    other = capture(tmp_path / "other", 20, seed=1)
    expected = compare_runs(runs[20], other)
    found = compare_runs(runs[100], other)
    assert found["paired"].all()
    numbers = found.select_dtypes("number").columns
    np.testing.assert_allclose(found[numbers], expected[numbers], rtol=1e-8, atol=1e-12)
    turned = compare_runs(other, runs[100])
    np.testing.assert_allclose(turned["difference"], -found["difference"])
    np.testing.assert_allclose(turned["error"], found["error"])
    assert shared_blocks(runs[20], runs[30]) == (10, 10)
    same = compare_runs(runs[20], runs[30])
    np.testing.assert_allclose(same["error"], 0, atol=1e-11)
    assert unlike(runs[20], runs[30]) == [
        "the runs' moments are of 20 and 30 blocks of images: the intervals are those of 10 blocks"
    ]
    said = CliRunner().invoke(app, ["compare", str(runs[100].path), str(other.path)])
    assert said.exit_code == 0
    assert "100 and 20 blocks of images" in said.output


def test_blocks_without_a_common_divisor(runs: dict[int, Run], tmp_path: Path) -> None:
    with pytest.raises(AconError, match=r"in 7 and 100 blocks.*--moment-blocks 7 or 100"):
        compare_runs(runs[7], runs[100])
    assert math.gcd(7, 100) == 1
    fewer = capture(tmp_path / "fewer", count=60)
    table = compare_runs(runs[7], fewer)  # other images: each with its own blocks
    assert not table["paired"].any()
    assert table["error"].iloc[0] > 0


def test_a_run_keeps_its_blocks(runs: dict[int, Run]) -> None:
    assert runs[20].manifest["identity"]["moments"]["blocks"] == 20
    assert runs[100].manifest["identity"]["moments"]["blocks"] == 100
    again = capture(runs[20].path)
    assert again.moment_blocks == 20
    with pytest.raises(StoreError, match=r"moments\.blocks was 20, is 50"):
        capture(runs[20].path, 50)


def test_runs_that_do_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of versions that knew 100 blocks only are read, and go on."""

    def without(options: MomentOptions, _: object) -> dict[str, object]:
        found = recorded_options(options, None)
        del found["blocks"]
        return found

    with monkeypatch.context() as patch:
        patch.setattr(plan, "recorded_options", without)
        old = capture(tmp_path / "old", count=20)
    assert "blocks" not in old.manifest["identity"]["moments"]
    assert old.moment_blocks == 100
    again = capture(tmp_path / "old", count=20)
    assert again.manifest["run_id"] == old.manifest["run_id"]
    with pytest.raises(StoreError, match=r"moments\.blocks was None, is 20"):
        capture(tmp_path / "old", 20, count=20)


def test_wrong_numbers(tmp_path: Path, runs: dict[int, Run]) -> None:
    for blocks in (1, 0, 1001):
        with pytest.raises(UsageError, match=f"2 to 1000 blocks of samples, given {blocks}"):
            MomentOptions(blocks=blocks)
    arguments = ["capture", "digits_relu", "--data", "digits", "--out", str(tmp_path / "r")]
    said = CliRunner().invoke(app, [*arguments, "--no-moments", "--moment-blocks", "20"])
    assert isinstance(said.exception, UsageError)
    assert "--moment-blocks go with --moments" in str(said.exception)
    said = CliRunner().invoke(app, [*arguments, "--moment-blocks", "1"])
    assert "given 1" in str(said.exception)
    manifest = json.loads((runs[30].path / "manifest.json").read_text())
    manifest["identity"]["moments"]["blocks"] = "many"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(AconError, match=r"gives 'many' as the number of blocks.*2 to 1000"):
        _ = Run(tmp_path).moment_blocks


def test_runs_begun_when_pixels_could_be_left_out_go_on() -> None:
    begun = {"full": False, "stride": 1, "kernel": "eager", "blocks": 101}
    assert recorded_options(MomentOptions(kernel="eager", blocks=101), begun) == begun
