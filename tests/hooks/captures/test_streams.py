"""Images without names: streams that end elsewhere, change or shuffle, and what is no image."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import acon_analysis as acon
from acon_analysis.errors import AconError, StoreError, UsageError
from acon_analysis.runs.run import Run
from acon_analysis.runs.verify import verify_run
from acon_hooks.captures.capturing import Settings, run_units
from acon_hooks.engine.feeding import open_feed
from acon_hooks.engine.streams import StreamFeed
from captures import contents, images, tiny

Stream = list[Any]


def stream(count: int = 20, batch: int = 5) -> Stream:
    """Return batches of images, and a label each."""
    drawn = torch.split(images(20).tensors[0][:count], batch)
    return [(part, [f"{number}" for number in range(len(part))]) for part in drawn]


def captured(data: Any, out: Path, **options: Any) -> Run:
    return acon.capture(tiny(), data, out, unit_size=8, progress=False, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run of the whole stream holds."""
    return contents(captured(stream(), tmp_path_factory.mktemp("whole") / "r").path)


def test_a_unit_beyond_the_end_of_a_stream_is_named(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "r", unit_size=8, progress=False)
    with pytest.raises(UsageError, match="no unit 99; 20 images in units of 8 are units 0 to 2"):
        run_units(tiny(), stream(), [99], settings)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("loader", [False, True])
def test_ranks_share_a_stream(
    order: tuple[int, int], loader: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataLoader(images(20), batch_size=5) if loader else stream()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in order:
        monkeypatch.setenv("RANK", str(rank))
        run = captured(data, tmp_path / "r")
        assert run.complete == (rank == order[1])
    assert verify_run(run.path).sound
    assert list(run.sample_ids) == list(range(20))


def test_one_unit_of_a_stream(tmp_path: Path, whole: dict[str, str]) -> None:
    settings = Settings(tmp_path / "r", unit_size=8, progress=False)
    for unit in (0, 2, 1):  # the first one measures what the others are compared with
        run = run_units(tiny(), stream(), [unit], settings)
        assert unit in run.units
    assert contents(run.path) == whole
    run = run_units(tiny(), stream(), [1], Settings(tmp_path / "s", unit_size=8, progress=False))
    assert list(run.sample_ids) == list(range(8, 16))


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        (10, 20, "it is complete with 10 images, and now there are more"),
        (8, 20, "it is complete with 8 images, and now there are more"),
        (20, 10, "it is complete with 20 images, now there are 10"),
        (20, 16, "it is complete with 20 images, now there are 16"),
    ],
)
def test_a_complete_run_is_of_so_many_images(
    before: int, now: int, message: str, tmp_path: Path
) -> None:
    run = captured(stream(before), tmp_path / "r")
    expected, manifest = contents(run.path), run.folder.read_manifest()
    assert manifest["samples"] == before
    with pytest.raises(StoreError, match=message):
        captured(stream(now), run.path)
    assert contents(run.path) == expected
    assert run.folder.read_manifest() == manifest
    assert verify_run(run.path).sound


def test_a_damaged_unit_is_not_done_again_from_a_shorter_stream(tmp_path: Path) -> None:
    run = captured(stream(), tmp_path / "r")
    for kind in ("samples", "betas"):
        run.folder.part(kind, 1).write_bytes(b"damaged")
    with pytest.raises(StoreError, match="complete with 20 images, now there are 10"):
        captured(stream(10), run.path)
    assert run.folder.part("betas", 1).read_bytes() == b"damaged"
    assert verify_run(captured(stream(), run.path).path).sound


def test_units_of_others_that_a_stream_does_not_reach(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "r", unit_size=8, progress=False)
    run_units(tiny(), stream(), [2], settings)
    with pytest.raises(StoreError, match="unit 2 begins with sample 16, now there are 15 images"):
        captured(stream(15), tmp_path / "r")


def test_units_of_others_that_end_elsewhere(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "r", unit_size=8, progress=False)
    run_units(tiny(), stream(10), [1], settings)
    with pytest.raises(StoreError, match="last images are up to sample 9, and now there are more"):
        captured(stream(20), tmp_path / "r")
    run_units(tiny(), stream(20), [1], Settings(tmp_path / "s", unit_size=8, progress=False))
    with pytest.raises(StoreError, match=r"unit 1 ends with sample 15, .* end with sample 9"):
        captured(stream(10), tmp_path / "s")


@pytest.mark.parametrize("sample", [1, 15])
def test_any_other_image_of_a_stream_is_refused(sample: int, tmp_path: Path) -> None:
    pixels = images(20).tensors[0]
    run = captured(list(torch.split(pixels, 5)), tmp_path / "r")
    altered = pixels.clone()
    altered[sample] += 1
    with pytest.raises(StoreError, match=f"sample {sample} of the stream is not the one"):
        captured(list(torch.split(altered, 7)), run.path)
    assert captured(list(torch.split(pixels, 7)), run.path).complete


def test_another_label_is_refused(tmp_path: Path) -> None:
    run = captured(stream(), tmp_path / "r")
    other = stream()
    other[1][1][2] = "ship"
    with pytest.raises(StoreError, match="the label of sample 7 was '2', is 'ship'"):
        captured(other, run.path)


def test_images_drawn_again_of_a_data_set_are_compared(tmp_path: Path) -> None:
    """A damaged unit is done again; its own table of samples is sound."""
    data = images(45)
    run = captured(data, tmp_path / "r")
    run.folder.part("betas", 1).write_bytes(b"damaged")
    altered = data.tensors[0].clone()
    altered[9] += 1  # none of the probed ones
    with pytest.raises(StoreError, match="sample 9 of the data set is not the one"):
        captured(TensorDataset(altered), run.path)
    assert captured(data, run.path).complete
    assert verify_run(run.path).sound


def test_the_limit_ends_a_stream(tmp_path: Path) -> None:
    drawn: list[int] = []

    def endless() -> Any:
        while True:
            drawn.append(len(drawn))
            yield torch.zeros(5, 3, 6, 5) + len(drawn)

    run = captured(endless(), tmp_path / "r", limit=18)
    assert (run.manifest["samples"], drawn) == (18, [0, 1, 2, 3])
    batches = [(b.ids, b.last) for b in open_feed(endless(), unit_size=8, limit=18).batches(bool)]
    assert [last for _, last in batches] == [False, True, False, False, True, True]
    assert [sample for ids, _ in batches for sample in ids] == list(range(18))


@pytest.mark.parametrize("limit", [0, -5])
@pytest.mark.parametrize("data", [images(20), stream(), "digits"], ids=["set", "stream", "name"])
def test_a_limit_below_one(data: Any, limit: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"limit must be at least 1 image; got {limit}"):
        captured(data, tmp_path / "r", limit=limit)


class Mine(Sampler[int]):
    """A sampler of the user's own that says of itself that it shuffles."""

    def __init__(self, shuffle: bool) -> None:
        self.shuffle = shuffle


DATA = images(20)


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": True},
        {"sampler": SubsetRandomSampler(range(20))},
        {"sampler": WeightedRandomSampler([1.0] * 20, 20)},
        {"sampler": DistributedSampler(DATA, 2, 0)},
        {"sampler": Mine(True)},
        {"batch_sampler": BatchSampler(RandomSampler(DATA), 5, False)},
    ],
    ids=["shuffle", "subset", "weighted", "distributed", "own", "batches"],
)
def test_loaders_that_shuffle(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"shuffles \(\w+\), so a sample's number would mean"):
        captured(DataLoader(DATA, **options), tmp_path / "r")


def test_loaders_that_do_not_shuffle() -> None:
    ordered: list[dict[str, Any]] = [
        {"sampler": Mine(False)},
        {"batch_sampler": BatchSampler(SequentialSampler(DATA), 5, False)},
        {"sampler": DistributedSampler(DATA, 1, 0, shuffle=False)},
        {"batch_size": None},
    ]
    for options in ordered:
        open_feed(DataLoader(DATA, **options), unit_size=8)
    shared: Sampler[int] = DistributedSampler(DATA, 2, 0, shuffle=False)
    loader = DataLoader(DATA, sampler=shared)
    with pytest.raises(UsageError, match="DistributedSampler gives every process other images"):
        open_feed(loader, unit_size=8)


class Given(Dataset[Any]):
    """A data set whose items are what a function returns."""

    def __init__(self, item: Callable[[int], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


PIXELS: Tensor = torch.zeros(3, 6, 5)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"img": PIXELS, "y": 1},
            r"is a dict with the keys 'img', 'y'; its images are expected under one of 'image'",
        ),
        ({}, "is a dict with the keys none"),
        ((Image.new("RGB", (5, 6)), 0), r"'PIL.Image.Image' where a tensor .*ToTensor\(\)"),
        ("a.png", "'str' where a tensor .*; turn text into numbers"),
        (None, "'NoneType' where a tensor"),
        ((), "an empty tuple"),
        (3, "a single number where an image"),
    ],
    ids=["keys", "empty dict", "PIL", "text", "nothing", "empty", "number"],
)
def test_items_that_hold_no_image(item: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"data: item 0 .*{message}"):
        captured(Given(lambda _: item), tmp_path / "r")
    with pytest.raises(UsageError, match=f"data: batch 0 .*{message}"):
        captured([item], tmp_path / "r")

    def later(index: int) -> Any:
        return item if index == 1 else (PIXELS, 1)

    with pytest.raises(AconError, match=f"data: item 1 .*{message}") as caught:
        captured(Given(later), tmp_path / "r")  # none of the probed ones
    assert os.linesep not in str(caught.value)


def test_labels_are_one_an_image(tmp_path: Path) -> None:
    with pytest.raises(AconError, match="batch 1 of the stream has 5 images and 3 labels"):
        captured([(PIXELS.expand(5, 3, 6, 5), torch.zeros(n)) for n in (5, 3)], tmp_path / "r")
    with pytest.raises(AconError, match="has 5 images and one label"):
        captured([(PIXELS.expand(5, 3, 6, 5), 7)], tmp_path / "s")


@pytest.mark.parametrize(
    ("drop", "limit", "expected"), [(False, None, 10), (True, None, 8), (False, 7, 7)]
)
def test_the_bar_knows_how_many_samples_a_loader_has(
    drop: bool, limit: int | None, expected: int
) -> None:
    data = TensorDataset(torch.randn(10, 3))
    feed = open_feed(DataLoader(data, batch_size=4, drop_last=drop), limit=limit)
    assert isinstance(feed, StreamFeed)
    assert feed.expected == expected == sum(len(batch.ids) for batch in feed.batches())
    assert StreamFeed(iter([]), unit_size=4, limit=None, options=feed.options).expected is None
