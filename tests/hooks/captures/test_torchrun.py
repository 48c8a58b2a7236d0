"""Many processes on one run, with and without torchrun."""

import os
import threading
from pathlib import Path

import pytest
from torch.distributed.run import main as torchrun

import acon_analysis as acon
import forks
from acon_analysis.errors import StoreError
from acon_analysis.runs.verify import verify_run
from acon_analysis.store.folder import RunFolder
from acon_hooks.captures.capturing import Settings, run_units
from captures import Tiny, contents, images, tiny


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    acon.capture(tiny(), images(45), out, unit_size=8, batch_size=4, threads=1, progress=False)
    return out


@pytest.mark.slow
def test_torchrun_with_one_process_killed_gives_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    child = Path(__file__).parents[2] / "support" / "torchrun_child.py"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    options = ["--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    done = forks.run(torchrun, [*options, str(child), str(tmp_path / "r")], env=environment)
    assert done.returncode == 0, done.stderr
    assert "exitcode: -9" in done.stderr, "nothing was killed"
    assert verify_run(tmp_path / "r").sound
    assert contents(tmp_path / "r") == contents(whole)


def test_two_at_once_do_no_harm(whole: Path, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def capture(model: Tiny) -> None:
        try:
            settings = Settings(
                tmp_path / "r", unit_size=8, batch_size=4, threads=1, progress=False
            )
            run_units(model, images(45), None, settings)
        except BaseException as error:
            failures.append(error)

    both = [threading.Thread(target=capture, args=[tiny()]) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert not failures
    assert verify_run(tmp_path / "r").sound
    assert contents(tmp_path / "r") == contents(whole)


def test_any_world_size_continues(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank, world in ((1, 3), (0, 2), (1, 2)):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world))
        run = acon.capture(
            tiny(), images(45), tmp_path / "r", unit_size=8, batch_size=4, progress=False
        )
    assert run.complete
    assert contents(run.path) == contents(whole)


def test_a_rank_without_work(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "63")
    monkeypatch.setenv("SLURM_NTASKS", "64")
    run = acon.capture(tiny(), images(45), whole, progress=False)
    assert run.complete


def test_what_another_process_has_finished_stays(tmp_path: Path, whole: Path) -> None:
    folder = RunFolder(tmp_path)
    table = acon.open_run(whole)
    import pyarrow.parquet as pq

    first = pq.read_table(table.folder.part("betas", 0))
    folder.write_unit(0, {"betas": first})
    folder.write_unit(0, {"betas": first.slice(1)})
    assert pq.read_table(folder.part("betas", 0)).num_rows == first.num_rows


def test_threads_are_the_runs_own(whole: Path) -> None:
    assert acon.open_run(whole).manifest["compute"]["threads"] == 1
    with pytest.raises(StoreError, match="begun with 1 thread, asked for are 2"):
        acon.capture(tiny(), images(45), whole, threads=2, progress=False)
