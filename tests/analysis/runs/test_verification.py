"""Damage that a copy, a disk or a person does to a finished run, and what `verify_run` says."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.utils.data import TensorDataset

import acon_analysis as acon
from acon_analysis.store.folder import file_sha256
from acon_analysis.runs.verify import verify_run
from captures import Tiny


class TestVerify:
    """Damage that a copy, a disk or a person does to a finished run."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        images = torch.randn(12, 3, 6, 5, generator=torch.Generator().manual_seed(1))
        run = acon.capture(
            Tiny(), TensorDataset(images), tmp_path / "r", unit_size=4, progress=False
        )
        return run.path

    def problems(self, folder: Path) -> str:
        return "; ".join(verify_run(folder).problems)

    def test_sound(self, folder: Path) -> None:
        assert verify_run(folder).sound

    def test_truncated(self, folder: Path) -> None:
        part = folder / "betas" / "unit-0000001.parquet"
        part.write_bytes(part.read_bytes()[:-9])
        assert "betas/unit-0000001.parquet is not what was written" in self.problems(folder)

    def test_altered_but_readable(self, folder: Path) -> None:
        first, second = (folder / "betas" / f"unit-000000{n}.parquet" for n in (0, 1))
        second.write_bytes(first.read_bytes())
        problems = self.problems(folder)
        assert "unit-0000001.parquet is not what was written" in problems
        assert "4 samples are there more than once" in problems
        assert "4 samples are missing, the first is 4" in problems

    def test_missing(self, folder: Path) -> None:
        (folder / "betas" / "unit-0000002.parquet").unlink()
        assert "betas/unit-0000002.parquet is missing" in self.problems(folder)

    def test_foreign(self, folder: Path) -> None:
        (folder / "betas" / "notes.txt").write_text("hello")
        assert "betas/notes.txt belongs to no finished unit" in self.problems(folder)

    def test_not_done(self, folder: Path) -> None:
        (folder / "done" / "unit-0000000.json").unlink()
        problems = self.problems(folder)
        assert "1 of 3 units are not done (0)" in problems
        assert "run the same capture command again" in problems

    def test_whole_unit_exchanged_with_its_mark(self, folder: Path) -> None:
        part = folder / "betas" / "unit-0000000.parquet"
        frame = pd.read_parquet(part)
        frame.to_parquet(part)
        mark = folder / "done" / "unit-0000000.json"
        content = json.loads(mark.read_text())
        content["parts"]["betas/unit-0000000.parquet"] = file_sha256(part)
        mark.write_text(json.dumps(content))
        assert "is not the part that the manifest records" in self.problems(folder)

    def test_samples_altered(self, folder: Path) -> None:
        (folder / "samples.parquet").write_bytes(b"")
        assert "samples.parquet is not what was written" in self.problems(folder)

    def test_repaired_by_the_same_command(self, folder: Path) -> None:
        (folder / "betas" / "unit-0000002.parquet").unlink()
        images = torch.randn(12, 3, 6, 5, generator=torch.Generator().manual_seed(1))
        acon.capture(Tiny(), TensorDataset(images), folder, progress=False)
        assert verify_run(folder).sound
