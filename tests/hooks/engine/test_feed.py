"""What a batch hands to a model: its arguments, and ids and labels that move with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from acon_analysis.data.preprocess import BadImageError
from acon_analysis.data.sources import open_data
from acon_analysis.errors import UsageError
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.feeding import open_feed

INPUTS = torch.arange(12.0).reshape(6, 2)


def batch(labels: list[Any] | None = None) -> Batch:
    return Batch(3, [10, 11, 12, 13, 14, 15], INPUTS, labels, errors=[(16, "bad")], last=True)


def test_a_batch_in_another_order() -> None:
    order = [4, 0, 5, 1, 3, 2]
    found = batch(list("abcdef")).permuted(order)
    assert found.ids == [14, 10, 15, 11, 13, 12]
    assert found.labels == ["e", "a", "f", "b", "d", "c"]
    np.testing.assert_array_equal(found.inputs, [[8, 9], [0, 1], [10, 11], [2, 3], [6, 7],
                                                         [4, 5]])  # fmt: skip
    assert (found.unit, found.errors, found.last) == (3, [(16, "bad")], True)
    back = found.permuted([order.index(sample) for sample in range(6)])
    assert back.ids == batch().ids
    assert torch.equal(back.inputs, INPUTS)
    assert batch().permuted(order).labels is None


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6]])
def test_an_order_that_is_no_permutation(order: list[int]) -> None:
    with pytest.raises(ValueError, match=r"order must be a permutation of 0 to 5; got \["):
        batch().permuted(order)


def test_a_batch_cut_into_parts() -> None:
    one, two, three = batch(list("abcdef")).parts([1, 3, 2])
    assert (one.ids, two.ids, three.ids) == ([10], [11, 12, 13], [14, 15])
    assert (one.labels, two.labels, three.labels) == (["a"], ["b", "c", "d"], ["e", "f"])
    np.testing.assert_array_equal(two.inputs, [[2, 3], [4, 5], [6, 7]])
    assert [(part.unit, part.errors, part.last) for part in (one, two, three)] == [
        (3, [], False)
    ] * 3
    assert [part.labels for part in batch().parts([3, 3])] == [None, None]


@pytest.mark.parametrize("sizes", [[], [6, 1], [5], [6, 0], [7, -1]])
def test_sizes_that_do_not_add_up(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"positive and add up to 6 samples; got \["):
        batch().parts(sizes)


def test_a_batch_on_another_device() -> None:
    moved = batch(list("abcdef")).to(torch.device("meta"))
    assert moved.inputs.device.type == "meta"
    assert (moved.ids, moved.labels) == (batch().ids, list("abcdef"))
    bad = Batch(0, [], None, errors=[(0, "bad")])
    assert bad.to(torch.device("meta")).inputs is None
    assert bad.permuted([]).ids == []


def labels_of(data: Any, **options: Any) -> list[Any]:
    return [batch.labels for batch in open_feed(data, **options).batches()]


def test_labels_of_data_sets_loaders_and_streams() -> None:
    images = torch.zeros(5, 3, 2, 2)
    numbers = torch.tensor([3, 1, 4, 1, 5])
    pairs = TensorDataset(images, numbers)
    expected = [[3, 1, 4], [1, 5]]
    assert labels_of(pairs, batch_size=3) == expected
    assert labels_of(DataLoader(pairs, batch_size=3)) == expected
    assert labels_of([(images[:3], list("abc")), (images[3:], ("d", "e"))]) == [
        ["a", "b", "c"], ["d", "e"]
    ]  # fmt: skip
    dicts = [{"image": images[:3], "label": numbers[:3]}, {"x": images[3:], "y": numbers[3:]}]
    assert labels_of(dicts) == expected
    assert labels_of(dicts, unit_size=2) == [[3, 1], [4], [1], [5]]
    assert labels_of(TensorDataset(images), batch_size=3) == [None, None]
    assert labels_of([images[:3], images[3:]]) == [None, None]


class OneBad(Dataset[Any]):
    """Samples with text labels, of which the second cannot be read."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        if index == 1:
            raise BadImageError("no image")
        return torch.zeros(2), "abc"[index]


def test_a_bad_sample_has_no_label() -> None:
    (found,) = open_feed(OneBad()).batches()
    assert (found.ids, found.labels, found.errors) == ([0, 2], ["a", "c"], [(1, "no image")])


def test_labels_of_an_image_source_are_class_indices(tmp_path: Path) -> None:
    source = open_data("digits")
    assert source.targets is not None
    found = [label for labels in labels_of(source, limit=100) for label in labels]
    assert found == list(source.targets[:100])
    for name, count in (("cat", 1), ("dog", 2)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (4, 4)).save(tmp_path / "images" / name / f"{number}.png")
    (tmp_path / "images" / "dog" / "0.png").write_bytes(b"no image")
    (found_,) = open_feed(tmp_path / "images").batches()
    assert (found_.ids, found_.labels) == ([0, 2], [0, 1])
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "flat" / "0.png")
    assert labels_of(tmp_path / "flat") == [None]


def test_only_wanted_units_and_the_first_batch() -> None:
    data = TensorDataset(INPUTS)
    feed = open_feed(data, batch_size=2, unit_size=3)
    assert [b.ids for b in feed.batches(lambda unit: unit == 1)] == [[3, 4], [5]]
    first = feed.first()
    assert first is not None
    assert (first.unit, first.ids, first.last) == (0, [0, 1], False)
    assert open_feed([INPUTS]).first() is None


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("own", [False, True])
def test_reading_data_draws_no_random_numbers(workers: int, own: bool) -> None:
    """A loader draws the seed of its workers when it begins."""
    generator = torch.Generator() if own else None
    data = TensorDataset(INPUTS)
    loader = DataLoader(data, 2, num_workers=workers, generator=generator)
    streams = [torch.default_generator, *([generator] if generator else [])]
    before = [stream.get_state() for stream in streams]
    for given in (loader, data):
        found = torch.cat([b.inputs for b in open_feed(given, batch_size=2).batches()])
        assert torch.equal(found, INPUTS)
    after = [stream.get_state() for stream in streams]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("one", [torch.zeros(8, 3), np.zeros((8, 3))])
def test_one_array_is_no_list_of_batches(one: Any) -> None:
    with pytest.raises(UsageError, match=r"got a \w+ of shape \(8, 3\): give \[.*\] or .*split"):
        open_feed(one)


@pytest.mark.parametrize(
    "images", [torch.zeros(8, 3), torch.zeros(8, 3, dtype=torch.int64), np.zeros((8, 3))]
)
def test_one_batch_is_no_list_of_batches(images: Any) -> None:
    """Images and labels in a list are one batch, as a loader yields it, and no two batches."""
    labels = torch.zeros(8, dtype=torch.int64)
    with pytest.raises(
        UsageError, match=r"got a list of 2 tensors of \(8, 3\) .*: give \[\(images"
    ):
        open_feed([images, labels])
    assert len(list(open_feed([INPUTS[:4], INPUTS[4:5]], unit_size=8).batches())) == 2


def test_a_function_is_to_be_called() -> None:
    with pytest.raises(UsageError, match=r"got 'function': give what it returns, by calling it"):
        open_feed(lambda: [INPUTS])
