"""A disk that fails at any moment of a capture: one sentence, and the same call makes it whole."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import acon_analysis as acon
from acon_analysis.errors import AconError, StoreError
from acon_analysis.runs.run import Run
from acon_analysis.runs.verify import verify_run
from acon_analysis.store.folder import RunFolder
from captures import Tiny, contents, images, tiny
from disk_faults import CODES, Disk, failing

#: Places that the suite tries; the marker ``long`` tries all of them.
SAMPLED = 16


def capture(out: Path, model: Tiny | None = None) -> Run:
    return acon.capture(
        model or tiny(), images(12), out, unit_size=4, batch_size=4, threads=1, progress=False
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], list[str]]:
    """What an undisturbed capture writes, and what it asks of the disk."""
    folder = tmp_path_factory.mktemp("whole")
    with failing(Disk(None)) as disk:
        run = capture(folder / "r")
    return contents(run.path), disk.asked


def check(out: Path, disk: Disk, expected: dict[str, str]) -> bool:
    """Capture with a disk that fails, then with a sound one; return whether it failed."""
    failed = True
    with failing(disk):
        try:
            capture(out)
            failed = False
        except AconError as error:
            text = str(error)
            assert "\n" not in text
            assert "what is finished stays" in text or "the same command" in text
    folder = RunFolder(out)
    done = folder.done_units()
    assert folder.sound_units(done) == set(done)
    assert contents(capture(out).path) == expected
    assert verify_run(out).sound
    assert not (out / "tmp").exists()
    shutil.rmtree(out)
    return failed


def test_there_are_at_least_200_places(whole: tuple[dict[str, str], list[str]]) -> None:
    counts = Counter(whole[1])
    assert len(whole[1]) > 200
    assert set(counts) == {"open", "write", "fsync", "rename", "mkdir"}


@pytest.mark.slow
def test_a_failure_at_some_places(tmp_path: Path, whole: tuple[dict[str, str], list[str]]) -> None:
    expected, asked = whole
    places = [len(asked) * number // SAMPLED for number in range(SAMPLED)]
    failed = [
        check(tmp_path / "r", Disk(at, CODES[at % len(CODES)], forever=number % 2 == 1), expected)
        for number, at in enumerate(places)
    ]
    assert sum(failed) > SAMPLED // 2


@pytest.mark.long
@pytest.mark.parametrize("forever", [False, True])
def test_a_failure_at_every_place(
    forever: bool, tmp_path: Path, whole: tuple[dict[str, str], list[str]]
) -> None:
    expected, asked = whole
    failed = [
        check(tmp_path / "r", Disk(at, CODES[at % len(CODES)], forever=forever), expected)
        for at in range(len(asked))
    ]
    assert sum(failed) > 0.9 * len(asked)


def at_pass(number: int, event: Callable[[], object]) -> Tiny:
    """Return a network during whose so-many-th pass something happens."""
    model, seen = tiny(), [0]

    def hook(*_: object) -> None:
        seen[0] += 1
        if seen[0] == number:
            event()

    model.conv.register_forward_pre_hook(hook)
    return model


def passes() -> int:
    """Return how often the network runs in a capture."""
    model, seen = tiny(), [0]
    model.conv.register_forward_pre_hook(lambda *_: seen.__setitem__(0, seen[0] + 1))
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        capture(Path(folder) / "r", model)
    return seen[0]


def test_a_folder_that_is_removed_meanwhile(
    tmp_path: Path, whole: tuple[dict[str, str], list[str]]
) -> None:
    out = tmp_path / "r"
    model = at_pass(passes() - 1, lambda: out.rename(tmp_path / "away"))
    # The second where it goes while a file of it is being written.
    said = "was removed while it was captured; the same command|No such file or directory"
    with pytest.raises(StoreError, match=said):
        capture(out, model)
    assert contents(capture(out).path) == whole[0]


def test_a_part_that_is_replaced_meanwhile(
    tmp_path: Path, whole: tuple[dict[str, str], list[str]]
) -> None:
    out = tmp_path / "r"
    part = RunFolder(out).part("betas", 0)

    def replace() -> None:
        for _ in range(1000):
            if RunFolder(out).done_path(0).exists():
                break
            torch.rand(1000, 1000).sum()
        part.write_bytes(b"something else")

    with pytest.raises(StoreError, match=r"parts of 1 unit .* were changed since they were"):
        capture(out, at_pass(passes(), replace))
    assert not Run(out).complete
    assert contents(capture(out).path) == whole[0]
