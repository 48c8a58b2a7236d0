"""Damage that a copy, a disk or a person does to a finished run, and what `verify_run` says."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch.utils.data import TensorDataset

import acon_analysis as acon
from acon_analysis.errors import StoreError
from acon_analysis.runs.verify import verify_run
from acon_analysis.store.folder import RunFolder, file_sha256
from captures import Tiny
from commands import status


def data() -> TensorDataset:
    return TensorDataset(torch.randn(12, 3, 6, 5, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "r"
    return acon.capture(Tiny(), data(), folder, unit_size=4, progress=False).path


@pytest.fixture
def copied(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "r")


PARTS = [f"betas/unit-000000{unit}.parquet" for unit in range(3)]


def exchange_a_unit_and_its_mark(folder: Path) -> None:
    pd.read_parquet(folder / PARTS[0]).to_parquet(folder / PARTS[0])
    mark = folder / "done" / "unit-0000000.json"
    content = json.loads(mark.read_text())
    content["parts"][PARTS[0]] = file_sha256(folder / PARTS[0])
    mark.write_text(json.dumps(content))


DAMAGE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "cut off": (
        lambda run: (run / PARTS[1]).write_bytes((run / PARTS[1]).read_bytes()[:-9]),
        [f"{PARTS[1]} is not what was written"],
    ),
    "altered but readable": (
        lambda run: (run / PARTS[1]).write_bytes((run / PARTS[0]).read_bytes()),
        [f"{PARTS[1]} is not what was written", "there more than once: 4 samples",
         "missing: 4 samples, the first is 4"],
    ),
    "missing": (lambda run: (run / PARTS[2]).unlink(), [f"{PARTS[2]} is missing"]),
    "foreign": (
        lambda run: (run / "betas" / "notes.txt").write_text("hello"),
        ["betas/notes.txt belongs to no finished unit"],
    ),
    "not done": (
        lambda run: (run / "done" / "unit-0000000.json").unlink(),
        ["1 of 3 units not done (0)", "run the same capture command again"],
    ),
    "exchanged with its mark": (
        exchange_a_unit_and_its_mark, ["is not the part that the manifest records"],
    ),
    "samples": (
        lambda run: (run / "samples.parquet").write_bytes(b""),
        ["samples.parquet is not what was written"],
    ),
}  # fmt: skip


def test_a_finished_run_is_sound(sound: Path) -> None:
    assert verify_run(sound).sound


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(name: str, copied: Path) -> None:
    damage, expected = DAMAGE[name]
    damage(copied)
    problems = "; ".join(verify_run(copied).problems)
    assert all(problem in problems for problem in expected), problems


def test_damage_is_repaired_by_the_same_command(copied: Path) -> None:
    (copied / PARTS[2]).unlink()
    acon.capture(Tiny(), data(), copied, progress=False)
    assert verify_run(copied).sound


Change = Callable[[dict[str, Any]], object]


def exchange_columns(m: dict[str, Any]) -> None:
    one, two = m["layers"][:2]
    one["column"], two["column"] = two["column"], one["column"]


CHANGES: dict[str, Change] = {
    "columns of two layers": exchange_columns,
    "another model": lambda m: m["identity"].update(model="other"),
    "other weights": lambda m: m["identity"].update(weights_sha256="0" * 64),
    "proof errors": lambda m: m["layers"][0].update(proof_error=0.0),
    "threads": lambda m: m["compute"].update(threads=64),
    "rows": lambda m: m["rows"].update(status="mixed"),
    "an origin": lambda m: m.update(origin={"weights": "shipped"}),
    "a table": lambda m: m["tables"].pop("channels.parquet"),
    "samples": lambda m: m.update(samples=8, units=2),
}


@pytest.mark.parametrize("name", sorted(set(CHANGES) - {"a table", "samples"}))
def test_an_altered_manifest_is_not_sound(name: str, copied: Path) -> None:
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text())
    CHANGES[name](manifest)
    path.write_text(json.dumps(manifest))
    found = verify_run(copied)
    assert any("manifest.json is not what was written" in text for text in found.problems)
    with pytest.raises(StoreError, match=r"not what was written .*bring it back"):
        acon.open_run(copied)
    with pytest.raises(StoreError, match="not what was written"):
        acon.capture(Tiny(), TensorDataset(torch.zeros(12, 3, 6, 5)), copied, progress=False)


@pytest.mark.parametrize("name", ["a table", "samples"])
def test_what_a_manifest_leaves_out(name: str, copied: Path) -> None:
    folder = RunFolder(copied)
    manifest = folder.read_manifest()
    CHANGES[name](manifest)
    folder.write_manifest(manifest)
    assert not verify_run(copied).sound


def test_another_identity_without_a_hash_of_the_manifest(copied: Path) -> None:
    """Manifests of earlier versions have none."""
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["begun_sha256"]
    path.write_text(json.dumps(manifest))
    assert verify_run(copied).sound
    manifest["identity"]["model"] = "other"
    path.write_text(json.dumps(manifest))
    assert not verify_run(copied).sound


def test_units_beyond_counting(copied: Path) -> None:
    folder = RunFolder(copied)
    folder.write_manifest({**folder.read_manifest(), "units": 10**12, "samples": 10**15})
    began = time.perf_counter()
    text = "; ".join(verify_run(copied).problems)
    assert time.perf_counter() - began < 10
    assert "999999999997 of 1,000,000,000,000 units not done (3, 4, 5, 6, 7 ...)" in text
    assert "missing: 999,999,999,999,988 samples, the first is 12" in text


def test_many_units_take_time_in_proportion(tmp_path: Path, sound: Path) -> None:
    folder = RunFolder(shutil.copytree(sound, tmp_path / "r"))
    manifest = folder.read_manifest()
    seconds = []
    for units in (1000, 4000):
        for unit in range(3, units):
            folder.done_path(unit).write_text("{}")
        folder.write_manifest({**manifest, "units": units})
        began = time.process_time()
        verify_run(folder.path)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 9 * seconds[0] + 1  # quadratic: 16 times


@pytest.mark.parametrize("kind", ["betas", "moments", "done", "channels", "samples"])
def test_a_pipe_in_place_of_a_file_is_no_wait(kind: str, copied: Path) -> None:
    found = {
        "done": copied / "done" / "unit-0000001.json",
        "channels": copied / "channels.parquet",
        "samples": copied / "samples.parquet",
    }
    path = found.get(kind, copied / kind / "unit-0000001.parquet")
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert not verify_run(copied).sound


EDITS: dict[str, Any] = {
    "layers": [{}, [], [1], [{}], [{"layer": 1}], None, "x"],
    "identity": [None, [], "x", {}],
    "samples": [-1, "x", 1.5, True, {}],
    "units": [-1, "x", 1.5, [], 10**12],
    "complete": [None, "yes", 0],
    "parts": [[], {"../../etc/passwd": "x"}, {"betas/unit-0000000.parquet": 1}, "x"],
    "tables": [[], {"/etc/passwd": "x"}, {"samples.parquet": None}, None],
    "compute": [None, [], 1],
    "rows": [1, "x"],
    "run_id": [1, None, "x"],
    "origin": [1, "x", []],
    "beta_networks": [[], {"acon": 1}, "x"],
    "versions": [[], None, "x"],
    "format": [None, 1, "acon-run/99", {}],
}


@pytest.mark.parametrize("name", EDITS)
def test_edited_manifests_are_one_sentence(
    name: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a manifest has no hash of its own, as those of earlier versions."""
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["begun_sha256"]
    for value in EDITS[name]:
        for command in ("verify", "summary"):
            path.write_text(json.dumps(manifest | {name: value}))
            code = status(command, copied)
            said = capsys.readouterr().err
            assert "error of acon itself" not in said, (value, said)
            # A number of units is what `verify` is for.
            assert code == 1 or (command, name) == ("summary", "units"), (value, said)


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe", b"[" * 100_000, b"{}", b"null", b'{"a": ' * 50_000]
)
def test_a_manifest_that_is_none(
    text: bytes, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "manifest.json").write_bytes(text)
    assert status("verify", copied) == 1
    assert "is not a run's manifest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        *((kind, "summary") for kind in ("betas", "moments", "totals", "histograms", "channels")),
        *((kind, "figures") for kind in ("betas", "samples")),
        *((kind, "report") for kind in ("betas", "totals", "channels")),
    ],
)
def test_cut_parts_are_one_sentence(
    kind: str, command: str, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = copied / f"{kind}.parquet"
    path = whole if whole.is_file() else copied / kind / "unit-0000001.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    options = {
        "summary": [str(copied)],
        "figures": ["beta_distributions", "--run", str(copied), "--out", str(tmp_path / "f")],
        "report": [str(copied), "--out", str(tmp_path / "r.html")],
    }[command]
    code = status(command, *options)
    said = capsys.readouterr().err
    assert "error of acon itself" not in said
    assert "Traceback" not in said
    assert code == 0 or "cannot be read" in said
