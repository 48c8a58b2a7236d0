"""How many processes decode: decided by what decoding and computing take, and of no influence."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

import acon_analysis as acon
from acon_analysis.errors import AconError
from acon_hooks.captures.devices import MOST_WORKERS, default_workers
from acon_hooks.engine import feeding
from acon_hooks.engine.feeding import open_feed
from captures import Tiny, contents

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 12)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return 12


@pytest.mark.parametrize(
    ("decoding", "computing", "workers"),
    [
        (1.0, 1 / 12, 6),  # as much work each: half of the cores
        (1.0, 1 / 4, 3),
        (1.0, 100.0, 1),
        (1.0, 0.0, 12),
        (0.0, 0.0, 1),
    ],
)
def test_on_the_cpu_cores_are_shared_by_work(
    cores: int, decoding: float, computing: float, workers: int
) -> None:
    assert default_workers(CPU)(decoding, computing) == workers


@pytest.mark.parametrize(
    ("decoding", "computing", "workers"), [(1.0, 0.3, 4), (0.1, 1.0, 1), (1.0, 0.0, 11)]
)
def test_beside_an_accelerator_decoding_keeps_up(
    cores: int, decoding: float, computing: float, workers: int
) -> None:
    assert default_workers(GPU)(decoding, computing) == workers


def test_cores_are_shared_by_the_processes_of_torchrun(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_workers(CPU)(1.0, 0.0) == 3
    assert default_workers(GPU)(1.0, 0.0) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "12")
    assert default_workers(CPU)(1.0, 0.0) == 0
    assert default_workers(GPU)(1.0, 0.0) == 1


def test_many_cores_are_not_all_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)), raising=False)
    assert default_workers(CPU)(1.0, 0.0) == default_workers(GPU)(1.0, 0.0) == MOST_WORKERS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "images"
    made.mkdir()
    generator = np.random.default_rng(0)
    for number in range(9):
        pixels = generator.integers(0, 255, (6, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(made / f"{number}.png")
    (made / "4.png").write_bytes(b"no image")
    return made


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_the_same_whatever_is_chosen(
    folder: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "MANY", 9)
    asked: list[tuple[float, float]] = []

    def choose(decoding: float, computing: float) -> int:
        asked.append((decoding, computing))
        return workers

    feed = open_feed(folder, batch_size=2, unit_size=4, default_workers=lambda: choose)
    plain = open_feed(folder, batch_size=2, unit_size=4, workers=0)
    pairs = list(zip(feed.batches(lambda _: True), plain.batches(lambda _: True), strict=True))
    assert len(pairs) == 5
    for ours, theirs in pairs:
        assert (ours.ids, ours.errors, ours.last) == (theirs.ids, theirs.errors, theirs.last)
        assert ours.inputs is not None
        assert theirs.inputs is not None
        assert torch.equal(ours.inputs, theirs.inputs)
    ((decoding, computing),) = asked
    assert decoding > 0
    assert computing > 0


def test_few_images_ask_nobody(folder: Path) -> None:
    feed = open_feed(folder, unit_size=4, default_workers=lambda: pytest.fail("asked"))
    assert sum(len(batch.ids) for batch in feed.batches(lambda _: True)) == 8


def test_a_run_is_the_same_with_any_number_of_workers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "MANY", 9)
    runs = [
        acon.capture(Tiny(), folder, tmp_path / str(workers), batch_size=2, unit_size=4,
                     workers=workers, progress=False)
        for workers in (None, 0, 2)
    ]  # fmt: skip
    assert contents(runs[0].path) == contents(runs[1].path) == contents(runs[2].path)


class Deadly(Dataset[torch.Tensor]):
    """Images, one of which ends the process that reads it, or fails, while a file says so."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __len__(self) -> int:
        return 96

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 50 and self.mark.exists():
            if self.mark.read_text() == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError(self.mark.read_text())
        return torch.full((3, 6, 5), float(index)).sin()


@pytest.mark.parametrize("how", ["reader", "network", "failure"])
def test_a_worker_that_dies_is_one_sentence_and_the_same_call_continues(
    how: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"unit_size": 4, "batch_size": 4, "workers": 2, "progress": False}
    mark = tmp_path / "mark"
    if how != "network":
        mark.write_text("die" if how == "reader" else "a failure of the user's own")

    model = Tiny()
    seen, others = 0, multiprocessing.active_children()

    def kill(*given: object) -> None:
        """Kill a worker while the network runs: torch then raises in whatever runs."""
        nonlocal seen
        seen += 1
        if how == "network" and seen == 12:
            own = [child for child in multiprocessing.active_children() if child not in others]
            os.kill(own[0].pid or 1, signal.SIGKILL)
            for _ in range(500):
                time.sleep(0.01)

    model.conv.register_forward_pre_hook(kill)
    expected = "in a worker process: RuntimeError: a failure" if how == "failure" else "has died"
    with pytest.raises(AconError, match=expected) as caught:
        acon.capture(model, Deadly(mark), tmp_path / "r", **options)
    assert "\n" not in str(caught.value)
    mark.unlink(missing_ok=True)
    acon.capture(Tiny(), Deadly(mark), tmp_path / "r", **options)
    acon.capture(Tiny(), Deadly(mark), tmp_path / "whole", **options)
    assert contents(tmp_path / "r") == contents(tmp_path / "whole")
