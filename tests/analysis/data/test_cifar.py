"""CIFAR-10 from files made here: both sources, the splits, the cache, and what is refused."""

import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acon_analysis.data import cifar
from acon_analysis.data.cifar import CLASSES, cifar10
from acon_analysis.data.preprocess import CIFAR_MEAN, CIFAR_STD
from acon_analysis.data.sources import open_data
from acon_analysis.errors import AconError, UsageError

PER_CLASS = 20


def colours(label: int, number: int) -> np.ndarray:
    """One flat colour for every image, which JPEG keeps."""
    return np.full((32, 32, 3), 10 + 20 * label + number % 10, dtype=np.uint8)


@pytest.fixture
def original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The original layout: five training batches and a test batch, classes in blocks."""
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rows = [(label, number) for label in range(10) for number in range(PER_CLASS)]
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        data = np.stack([colours(*row).transpose(2, 0, 1).reshape(-1) for row in rows])
        content = {b"data": data, b"labels": [label for label, _ in rows]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    monkeypatch.setenv("ACON_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ACON_CACHE", str(tmp_path / "cache"))
    cifar._decoded.cache_clear()
    yield folder
    cifar._decoded.cache_clear()


def test_classes_take_turns_and_splits_are_disjoint(original: Path) -> None:
    train, val, test = (cifar10(split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (900, 100, 200)
    for source in (train, val, test):
        assert source.samples["label"].tolist()[:12] == [*CLASSES, *CLASSES[:2]]
        assert source.targets is not None
        assert source.targets[:3].tolist() == [0, 1, 2]
    assert not set(train.samples["path"]) & set(val.samples["path"])


def test_pixels_are_normalised(original: Path) -> None:
    image = open_data("cifar10")[11]
    expected = (colours(1, 1).transpose(2, 0, 1) / 255 - np.array(CIFAR_MEAN)[:, None, None]) / (
        np.array(CIFAR_STD)[:, None, None]
    )
    np.testing.assert_allclose(image.numpy(), expected, atol=1e-5)


def test_the_cache_is_read_instead(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cifar10("test")
    cifar._decoded.cache_clear()
    monkeypatch.setattr(cifar, "_read_original", None)
    assert cifar10("test").identity() == first.identity()


def test_files_that_hold_code_are_refused(original: Path) -> None:
    (original / "test_batch").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(AconError, match=r"hold os\.system, which is no image; refused"):
        cifar10("test")


def test_an_archive_of_jpegs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "cifar10-images.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        for label, name in enumerate(CLASSES):
            content = io.BytesIO()
            Image.fromarray(colours(label, 0)).save(content, "JPEG", quality=95)
            member = tarfile.TarInfo(f"test/{name}/0000.jpg")
            member.size = len(content.getvalue())
            tar.addfile(member, io.BytesIO(content.getvalue()))
    monkeypatch.setitem(cifar.IMAGES, "test", 10)
    pixels, labels = cifar._read_archive(archive, "test")
    order = np.argsort(labels)
    assert labels[order].tolist() == list(range(10))
    for label in range(10):
        assert np.abs(pixels[order][label].astype(int) - colours(label, 0)).max() <= 2
    monkeypatch.setitem(cifar.IMAGES, "test", 11)
    with pytest.raises(AconError, match="holds 10 test images; expected 11"):
        cifar._read_archive(archive, "test")


def test_no_images_and_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("ACON_DATA", str(tmp_path))
    monkeypatch.setattr("torchvision.datasets.CIFAR10", refuse)
    cifar._decoded.cache_clear()
    with pytest.raises(AconError, match=r"could not be downloaded .*no network.*ACON_DATA"):
        cifar10()


def test_no_such_split() -> None:
    with pytest.raises(UsageError, match="did you mean 'val'"):
        cifar10("vla")


def test_nothing_is_downloaded_where_that_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACON_DATA", str(tmp_path))
    monkeypatch.setattr("torchvision.datasets.CIFAR10", None)
    with pytest.raises(AconError, match=r"CIFAR-10 is not in .* \(neither cifar-10-batches-py/"):
        open_data("cifar10", download=False)
