"""Several processes, or tasks, on one run: who waits, who is refused, what counts as done."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import acon_analysis as acon
from acon_analysis.data.preprocess import BadImageError
from acon_analysis.errors import AconError, StoreError
from acon_analysis.layers import MetaAconC
from acon_analysis.runs.run import Run
from acon_analysis.runs.verify import verify_run
from acon_analysis.store.folder import RunFolder
from acon_hooks import run_units
from acon_hooks.captures import session as session_module
from acon_hooks.captures.manifest import ManifestWriter
from acon_hooks.captures.plan import OtherBatchSizeWarning, Settings, plan_capture
from acon_hooks.captures.session import Session
from captures import Tiny, contents, images, tiny
from support_variants import shaken


def session(out: Path, data: Any, rank: int = 0, world: int = 1) -> Session:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", str(rank))
        patch.setenv("WORLD_SIZE", str(world))
        return Session(plan_capture(tiny(), data, Settings(out, unit_size=4, progress=False)))


class SomeBad(Dataset[Tensor]):
    """Images of which the last ones cannot be decoded."""

    def __init__(self, count: int, bad: int) -> None:
        self.data, self.bad = images(count), bad

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        if index >= self.bad:
            raise BadImageError("no image")
        image: Tensor = self.data[index][0]
        return image


def test_a_process_without_work_waits_until_another_has_begun(tmp_path: Path) -> None:
    data = images(8)
    idle = session(tmp_path / "r", data, 2, 3)
    found: list[Run] = []
    thread = threading.Thread(target=lambda: found.append(idle.run()), daemon=True)
    thread.start()
    assert thread.is_alive()
    for rank in (0, 1):
        session(tmp_path / "r", data, rank, 3).run()
    thread.join(30)
    assert found[0].path == tmp_path / "r"
    assert acon.open_run(tmp_path / "r").complete


def test_a_process_alone_without_work_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "PATIENCE", 0.0)
    idle = session(tmp_path / "r", images(8), 2, 3)
    with pytest.raises(
        AconError, match="rank 2 of 3 has no unit of work, and no other process has begun the run"
    ):
        idle.run()


def test_a_unit_of_bad_images_only_is_recorded_by_the_process_that_began_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "PATIENCE", 0.0)
    data = SomeBad(9, 8)  # the third unit holds the one that is bad
    bad = session(tmp_path / "r", data, 2, 3)
    other = session(tmp_path / "r", data, 2, 3)
    with pytest.raises(AconError, match="none of the samples could be read, and no other process"):
        bad.run()
    for rank in (0, 1):
        session(tmp_path / "r", data, rank, 3).run()
    assert other.manifest is None  # made before the run began, as processes that start together
    run = other.run()
    assert run.complete
    assert list(run.errors["sample_id"]) == [8]
    assert verify_run(run.path).sound


def test_a_finished_unit_of_another_network_does_not_count(tmp_path: Path) -> None:
    data = images(12)
    settings: dict[str, Any] = {"unit_size": 4, "progress": False}
    strange = acon.capture(Tiny(seed=1), data, tmp_path / "other", **settings).path
    expected = contents(acon.capture(tiny(), data, tmp_path / "whole", **settings).path)
    out = tmp_path / "r"
    run_units(tiny(), data, [0], Settings(out, **settings))
    for file in strange.glob("*/unit-0000002.*"):
        (out / file.parent.name).mkdir(exist_ok=True)
        shutil.copy(file, out / file.parent.name / file.name)
    problems = verify_run(out).problems
    assert any("unit-0000002.json is no mark of a unit of this run" in text for text in problems)
    assert contents(acon.capture(tiny(), data, out, **settings).path) == expected


def test_marks_that_name_no_run_count(tmp_path: Path) -> None:
    run = acon.capture(tiny(), images(4), tmp_path / "r", unit_size=4, progress=False)
    mark = run.folder.done_path(0)
    content = json.loads(mark.read_text())
    assert content.pop("run_id") == run.manifest["run_id"]
    mark.write_text(json.dumps(content))
    assert verify_run(run.path).sound


def test_a_capture_that_is_refused_leaves_the_constants_of_the_other_alone(tmp_path: Path) -> None:
    data, out = images(8), tmp_path / "r"
    settings = Settings(out, unit_size=4, progress=False)
    second = Session(plan_capture(Tiny(seed=1), data, settings))  # begins while the folder is empty
    first = run_units(tiny(), data, [0], settings)
    before = (out / "references.parquet").read_bytes()
    with pytest.raises(StoreError, match=r"another capture has begun in .* meanwhile"):
        second.run()
    assert (out / "references.parquet").read_bytes() == before
    assert not first.complete


def test_a_capture_whose_constants_were_replaced_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = images(8), tmp_path / "r"
    other = acon.capture(Tiny(seed=1), data, tmp_path / "other", unit_size=4, progress=False)
    run = session(out, data)
    begin = ManifestWriter.begin

    def late(self: ManifestWriter, *args: Any, **more: Any) -> dict[str, Any]:
        shutil.copy(other.path / "references.parquet", out)
        return begin(self, *args, **more)

    monkeypatch.setattr(ManifestWriter, "begin", late)
    with pytest.raises(StoreError, match=r"another capture has begun .* at the same moment"):
        run.run()
    assert not (out / "manifest.json").exists()


def test_tables_are_protected_before_the_end_and_repaired_after_it(tmp_path: Path) -> None:
    data, out = images(8), tmp_path / "r"
    settings = Settings(out, unit_size=4, progress=False)
    run_units(tiny(), data, [0], settings)
    channels = (out / "channels.parquet").read_bytes()
    (out / "channels.parquet").unlink()
    assert "channels.parquet is missing" in verify_run(out).problems
    with pytest.raises(StoreError, match=r"channels.parquet is missing, and cannot be made again"):
        run_units(tiny(), data, [1], settings)
    (out / "channels.parquet").write_bytes(channels)
    whole = contents(run_units(tiny(), data, [1], settings).path)
    for name in ("histograms", "samples"):
        (out / f"{name}.parquet").write_bytes(b"")
    assert len(verify_run(out).problems) == 2
    assert contents(run_units(tiny(), data, None, settings).path) == whole
    assert verify_run(out).sound


def test_damaged_constants_are_named(tmp_path: Path) -> None:
    data, out = images(8), tmp_path / "r"
    run_units(tiny(), data, [0], Settings(out, unit_size=4, progress=False))
    (out / "references.parquet").write_bytes(b"nonsense")
    with pytest.raises(StoreError, match=r"references.parquet' cannot be read"):
        acon.capture(tiny(), data, out, progress=False)


def test_processes_that_begin_together_must_have_as_many_threads(tmp_path: Path) -> None:
    data, out = images(8), tmp_path / "r"
    settings = Settings(out, unit_size=4, progress=False)
    late = Session(plan_capture(tiny(), data, settings, frozenset([1])))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        run_units(tiny(), data, [0], settings)
    finally:
        torch.set_num_threads(threads)
    with pytest.raises(StoreError, match=f"with {threads + 1} threads, this one has {threads}"):
        late.run()


def test_other_batches_are_announced(tmp_path: Path) -> None:
    data, out = images(8), tmp_path / "r"
    run_units(tiny(), data, [0], Settings(out, unit_size=4, progress=False, batch_size=2))
    with pytest.warns(OtherBatchSizeWarning, match="batches of 2 images and goes on with 4"):
        run = acon.capture(tiny(), data, out, batch_size=4, progress=False)
    assert run.complete


def test_only_the_units_that_are_wanted_are_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = images(16), Settings(tmp_path / "r", unit_size=4, progress=False)
    run_units(tiny(), data, [0, 1, 2], settings)
    hashed: list[int] = []
    check = RunFolder.unit_is_done

    def counted(self: RunFolder, unit: int) -> bool:
        hashed.append(unit)
        return check(self, unit)

    monkeypatch.setattr(RunFolder, "unit_is_done", counted)
    plan = plan_capture(tiny(), data, settings, frozenset([2, 3]))
    assert sorted(plan.done) == [2]
    assert plan.left() == 4
    assert hashed == [2]
    assert Session(plan).run().complete
    assert set(hashed) == {0, 1, 2, 3}  # whoever completes a run has looked at all of it


class Gaps(nn.Module):
    """Layers wide enough for every way to sum; the second one sees memory with gaps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.acon, self.some = nn.Conv2d(3, 20, 3), MetaAconC(20), MetaAconC(17)

    def forward(self, x: Tensor) -> Tensor:
        y = self.acon(self.conv(x))
        out: Tensor = self.some(y[:, :17])
        return out


def test_the_first_batch_of_a_process_is_summed_as_all_others(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Gaps()
    for layer in (model.acon, model.some):
        nn.init.normal_(layer.get_parameter("bn2.weight"))
    data = TensorDataset(torch.randn(24, 3, 19, 21))
    settings: dict[str, Any] = {"unit_size": 8, "batch_size": 4, "moments": True}
    settings["progress"] = False
    whole = acon.capture(model.eval(), data, tmp_path / "whole", **settings)
    out = tmp_path / "r"
    for unit in range(3):  # each the first batch of a task
        run_units(model, data, [unit], Settings(out, **settings))
    assert contents(out) == contents(whole.path)
    pooled = pd.read_parquet(whole.folder.part("pooled", 0))
    assert list(pooled) == ["sample_id", "acon", "some"]


class PlainGate(MetaAconC):
    """A gate of β·x, without p1 - p2 inside: no moments are taken of those."""

    def forward(self, x: Tensor) -> Tensor:
        beta = torch.sigmoid(self.bn2(self.fc2(self.bn1(self.fc1(x.mean((2, 3), keepdim=True))))))
        out: Tensor = (self.p1 - self.p2) * x * torch.sigmoid(beta * x) + self.p2 * x
        return out


def test_pooled_inputs_of_layers_without_moments_are_kept(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), PlainGate(6), MetaAconC(6))
    data = images(8)
    kinds = ("meta_acon", "acon_plain_gate")
    run = acon.capture(shaken(model), data, tmp_path / "r", kinds=kinds, progress=False)
    x = model[0](data.tensors[0]).detach()
    means = run.pooled_matrix("1")
    assert means is not None
    np.testing.assert_allclose(means, x.mean((2, 3)), rtol=1e-5, atol=1e-6)
    assert run.pooled_matrix("2") is not None
    assert set(run.linearity()["layer"]) == {"2"}
