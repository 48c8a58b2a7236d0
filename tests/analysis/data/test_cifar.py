"""CIFAR-10 from files made here: both sources, the splits, the cache, and what is refused."""

import io
import pickle
import shutil
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def named(name: str) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def pickled_array(code: str, shape: tuple[int, ...], raw: bytes) -> bytes:
    """A dictionary with an array in `data`, as NumPy pickles it."""
    sizes = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in shape) + b"t"
    dtype = named("numpy dtype") + b"(" + text(code) + b"\x89\x88tR(K\x03" + text("|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = named("numpy._core.multiarray _reconstruct") + b"(" + named("numpy ndarray")
    array += b"(K\x00tC\x01btR(K\x01" + sizes + dtype + b"\x89"
    array += b"B" + struct.pack("<I", len(raw)) + raw + b"tb"
    return b"\x80\x03}(C\x04data" + array + b"C\x06labels](K\x00eu."


def test_a_pickled_array_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickled_array("u1", (1, 3072), bytes(range(256)) * 12))
    pixels, labels = cifar._read_batch(tmp_path / "x")
    assert pixels.reshape(-1).tolist() == list(range(256)) * 12
    assert labels.tolist() == [0]


def test_names_as_python_2_pickled_them(tmp_path: Path) -> None:
    whole = pickled_array("u1", (1, 3072), bytes(3072))
    for name in (b"data", b"labels", b"b"):
        short = bytes([len(name)]) + name
        whole = whole.replace(b"C" + short, b"U" + short)
    whole = whole.replace(text("u1"), b"U\x02u1").replace(text("|"), b"U\x01|")
    (tmp_path / "x").write_bytes(whole.replace(b"B\0\x0c\0\0", b"T\0\x0c\0\0"))
    assert cifar._read_batch(tmp_path / "x")[0].shape == (1, 3, 32, 32)


DEEP = b"N" + b"\x85" * 1_000_000
HOSTILE = {
    "pointers": pickled_array("O8", (3072,), b"A" * 8 * 3072),
    "another type": pickled_array("f4", (1, 3072), bytes(3072)),
    "too few bytes": pickled_array("u1", (2, 3072), bytes(3072)),
    "a negative size": pickled_array("u1", (-1, 3072), bytes(3072)),
    "a deep key": b"\x80\x02}" + DEEP + b"Ns.",
    "a deep member of a set": b"\x80\x04\x8f(" + DEEP + b"\x90.",
    "a far memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a codec": b"\x80\x02" + named("_codecs encode") + text("x") + text("rot13") + b"\x86R.",
    "a changed name": b"\x80\x02" + named("numpy dtype") + b"N}" + text("x") + b"Ns\x86b.",
    "text again and again": b"\x80\x02" + named("_codecs encode") + text("x" * 2**20)
    + text("latin1") + b"\x86q\x010(" + (named("_codecs encode") + b"h\x01R") * 100 + b"t.",
    "no dictionary": b"\x80\x02N.",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_sentence(name: str, original: Path) -> None:
    (original / "test_batch").write_bytes(HOSTILE[name])
    with pytest.raises(AconError, match=r"test_batch' is damaged, or no file of CIFAR-10 \(") as e:
        cifar10("test")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("labels", [[0] * 199, [10] * 200, [[0]] * 200, [True] * 200, None])
def test_labels_that_are_none(labels: object, original: Path) -> None:
    content = {b"data": np.zeros((200, 3072), np.uint8), b"labels": labels}
    (original / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(AconError, match="is damaged, or no file of CIFAR-10"):
        cifar10("test")


MEMBERS: list[dict[str, Any]] = [
    {"size": 2**28},
    {"size": 2**28, "type": tarfile.GNUTYPE_LONGNAME},
    {"type": tarfile.GNUTYPE_SPARSE},
    {"pax_headers": {"GNU.sparse.map": "0,0", "GNU.sparse.size": "4000000000"}},
    {"pax_headers": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}},
    {"pax_headers": {"size": str(2**40)}},
]


@pytest.mark.parametrize("facts", MEMBERS)
def test_an_archive_that_is_no_images(facts: dict[str, Any], tmp_path: Path) -> None:
    member = tarfile.TarInfo("test/cat/0000.jpg")
    for name, value in facts.items():
        setattr(member, name, value)
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz") as tar:
        tar.addfile(member)
    with pytest.raises(AconError, match=r"archive of CIFAR-10 .*; refused"):
        cifar._read_archive(tmp_path / "a.tar.xz", "test")


def test_an_archive_is_not_unpacked_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path, {f"train/{number}": b"" for number in range(20)})
    for name, value in (("_ARCHIVE_BYTES", 4096), ("_MEMBERS", 5)):
        with monkeypatch.context() as patch:
            patch.setattr(cifar, name, value)
            with pytest.raises(AconError, match="more than images"):
                cifar._read_archive(path, "test")
    path.write_bytes(b"x" * 100)
    with pytest.raises(AconError, match="is damaged"):
        cifar._read_archive(path, "test")


def archive(folder: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(folder / "a.tar.xz", "w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return folder / "a.tar.xz"


def jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)
    return stream.getvalue()


def test_pictures_that_are_too_large_or_bombs_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cifar.IMAGES, "test", 1)
    bomb = bytearray(jpeg(Image.new("RGB", (32, 32))))
    start = bomb.index(b"\xff\xc0") + 5  # height and width in the header
    bomb[start : start + 4] = b"\xff\xff\xff\xff"
    for content, words in (
        (jpeg(Image.new("RGB", (33, 32))), "is no image of 32x32 pixels"),
        (bytes(bomb), r"'test/cat/0000.jpg' is no JPEG .*bomb"),
    ):
        with pytest.raises(AconError, match=words):
            cifar._read_archive(archive(tmp_path, {"test/cat/0000.jpg": content}), "test")


def test_an_archive_of_jpegs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path, {
        f"test/{name}/0000.jpg": jpeg(Image.fromarray(colours(label, 0)))
        for label, name in enumerate(CLASSES)
    })  # fmt: skip
    monkeypatch.setitem(cifar.IMAGES, "test", 10)
    pixels, labels = cifar._read_archive(path, "test")
    order = np.argsort(labels)
    assert labels[order].tolist() == list(range(10))
    for label in range(10):
        assert np.abs(pixels[order][label].astype(int) - colours(label, 0)).max() <= 2
    monkeypatch.setitem(cifar.IMAGES, "test", 11)
    with pytest.raises(AconError, match="holds 10 test images; expected 11"):
        cifar._read_archive(path, "test")


def test_no_images_and_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("ACON_DATA", str(tmp_path))
    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", refuse)
    cifar._decoded.cache_clear()
    with pytest.raises(AconError, match=r"could not be downloaded .*no network.*ACON_DATA"):
        cifar10()


def test_what_is_downloaded_is_checked_where_nobody_can_exchange_it(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And never unpickled by torchvision, which trusts what lies in the folder."""
    folder = tmp_path / "shared"

    def download(url: str, root: str, *, filename: str, md5: str) -> None:
        assert (len(md5), url.rpartition("/")[2]) == (32, filename)
        assert not Path(root).is_relative_to(folder)
        assert Path(root).stat().st_mode & 0o077 == 0
        shutil.copytree(original, Path(root) / cifar._ORIGINAL)

    monkeypatch.setenv("ACON_DATA", str(folder))
    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", download)
    monkeypatch.setattr("torchvision.datasets.CIFAR10.__init__", None)
    cifar._decoded.cache_clear()
    assert len(cifar10()) > 0
    found = {path.name for path in (folder / cifar._ORIGINAL).iterdir()}
    assert found == {path.name for path in original.iterdir()}


def test_no_such_split() -> None:
    with pytest.raises(UsageError, match="did you mean 'val'"):
        cifar10("vla")


def test_nothing_is_downloaded_where_that_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACON_DATA", str(tmp_path))
    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", None)
    with pytest.raises(AconError, match=r"CIFAR-10 is not in .* \(neither cifar-10-batches-py/"):
        open_data("cifar10", download=False)
