"""Digits, folders of images, and what a wrong name says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from acon_analysis.columns import SAMPLE_COLUMNS, names
from acon_analysis.data.image_source import ImageSource
from acon_analysis.data.preprocess import BadImageError
from acon_analysis.data.sources import digits, open_data
from acon_analysis.errors import UsageError


def test_digits_are_scikit_learns_images() -> None:
    source = digits("test")
    assert len(source) == 500
    assert list(source.samples.columns) == names(SAMPLE_COLUMNS)
    index = int(source.samples["path"].iloc[7].split("/")[1])
    expected = load_digits().images[index] / 16
    image = source[7]
    assert image.shape == (1, 8, 8)
    assert image.dtype == torch.float32
    np.testing.assert_allclose(image[0].numpy(), expected)
    assert source.samples["label"].iloc[7] == str(load_digits().target[index])


def test_digits_split_is_stratified_and_disjoint() -> None:
    train, test = digits("train"), digits("test")
    assert len(train) + len(test) == 1797
    assert not set(train.samples["path"]) & set(test.samples["path"])
    assert (test.samples["label"].value_counts() == 50).all()


def test_identity_depends_on_every_column() -> None:
    source = digits("test")
    other = ImageSource("x", source.samples.copy(), source._load, preprocess={})
    assert other.identity() == source.identity()
    for column, value in (("path", "y"), ("label", "y"), ("bytes", 1), ("sha256", "y")):
        changed = source.samples.copy()
        changed.loc[3, column] = value
        frame = ImageSource("x", changed, source._load, preprocess={})
        assert frame.identity() != source.identity(), column


def test_head() -> None:
    assert len(digits("test").head(10)) == 10
    assert len(digits("test").head(10_000)) == 500
    with pytest.raises(UsageError, match="at least 1 image; got 0"):
        digits("test").head(0)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for label, colour in (("cat", 10), ("dog", 200)):
        (tmp_path / label).mkdir()
        for number in range(2):
            pixels = np.full((6, 5, 3), colour + number, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "0.png").write_bytes(b"")
    return tmp_path


def test_class_folders(photographs: Path) -> None:
    source = open_data(photographs)
    assert list(source.samples["path"]) == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert list(source.samples["label"]) == ["cat", "cat", "dog", "dog"]
    assert source.targets is not None
    assert list(source.targets) == [0, 0, 1, 1]
    assert source[3].shape == (3, 6, 5)
    torch.testing.assert_close(source[3], torch.full((3, 6, 5), 201 / 255))


def test_flat_folder_has_no_labels(photographs: Path) -> None:
    source = open_data(photographs / "cat")
    assert source.samples["label"].isna().all()
    assert source.targets is None


def test_a_bad_image_raises_when_it_is_asked_for(photographs: Path) -> None:
    (photographs / "cat" / "1.png").write_bytes(b"\x89PNG nothing")
    source = open_data(photographs)
    assert source[0].shape == (3, 6, 5)
    with pytest.raises(BadImageError):
        source[1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "neither a data set"),
        ("digits:tset", "did you mean 'test'"),
        ("/does/not/exist", "nor an existing folder"),
        (__file__, "is a file; give the folder"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_data(name)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no images"):
        open_data(tmp_path)


@pytest.mark.parametrize("name", ["", " "])
def test_no_name_is_not_the_current_folder(name: str) -> None:
    with pytest.raises(UsageError, match="data is empty"):
        open_data(name)
