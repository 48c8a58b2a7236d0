"""What a process has to do is decided before anything is captured."""

from pathlib import Path
from typing import Any

import pytest

import acon_analysis as acon
from acon_analysis.errors import UsageError
from acon_analysis.store.folder import UNIT_SIZE
from acon_hooks.captures.plan import BATCH_SIZE, CapturePlan, Settings, plan_capture
from acon_hooks.captures.session import Session
from captures import contents, images, tiny


def plan(out: Path, data: Any, units: frozenset[int] | None = None, **options: Any) -> CapturePlan:
    return plan_capture(tiny(), data, Settings(out, progress=False, **options), units)


def to_do(found: CapturePlan, count: int) -> list[int]:
    return [unit for unit in range(count) if found.wanted(unit)]


def test_ranks_share_the_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        found = plan(tmp_path / "r", images(22), unit_size=4)  # units of 4, the last one of 2
        shares.append((to_do(found, 6), found.left()))
    assert shares == [([0, 3], 8), ([1, 4], 8), ([2, 5], 6)]
    assert not (tmp_path / "r").exists()


def test_units_that_are_done_are_left_out(tmp_path: Path) -> None:
    data = images(22)
    whole = contents(acon.capture(tiny(), data, tmp_path / "w", unit_size=4, progress=False).path)
    run = Session(plan(tmp_path / "r", data, frozenset([0, 2, 5]), unit_size=4)).run()
    assert not run.complete
    run.folder.part("betas", 2).write_bytes(b"damaged")
    found = plan(tmp_path / "r", data)
    assert (to_do(found, 6), found.left()) == ([1, 2, 3, 4], 16)
    again = plan(tmp_path / "r", data, frozenset([0, 2]))
    assert (to_do(again, 6), again.left()) == ([2], 4)
    assert contents(Session(found).run().path) == whole


def test_what_is_not_given_is_taken_from_the_run(tmp_path: Path) -> None:
    data = images(9)
    fresh = plan(tmp_path / "r", data)
    assert (fresh.manifest, fresh.unit_size, fresh.batch_size) == (None, UNIT_SIZE, BATCH_SIZE)
    run = acon.capture(tiny(), data, tmp_path / "r", unit_size=4, batch_size=3, progress=False)
    found = plan(tmp_path / "r", data)
    assert (found.unit_size, found.batch_size, found.left()) == (4, 3, 0)
    assert found.threads == run.manifest["compute"]["threads"]
    assert found.identity == run.identity
    assert found.folder.run_id == run.manifest["run_id"]


def test_the_number_of_a_streams_samples_is_not_known(tmp_path: Path) -> None:
    found = plan(tmp_path / "r", [images(4)[:4]], unit_size=4)
    assert found.left() is None
    with pytest.raises(UsageError, match="there is no unit -1"):
        plan(tmp_path / "r", [images(4)[:4]], frozenset([-1]))
    with pytest.raises(UsageError, match="no unit 3; 9 images in units of 4 are units 0 to 2"):
        plan(tmp_path / "r", images(9), frozenset([3, 2]), unit_size=4)
