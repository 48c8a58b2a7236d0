"""Preprocessing against OpenCV and torchvision, and callables of the user."""

import hashlib
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from acon_analysis.data.preprocess import BadImageError, Preprocess, get_preprocess
from acon_analysis.errors import AconError, UsageError
from pictures import Pixels, picture, png_claiming, save

# Width and height: odd, smaller than the crop, exact, one pixel wide, elongated.
SIZES = [
    (500, 375), (375, 500), (299, 200), (301, 257), (256, 256), (257, 256), (225, 224), (31, 17),
    (1, 1), (1, 90), (120, 1), (2, 513), (1023, 1021),
]  # fmt: skip


def official_by_hand(rgb: Pixels) -> npt.NDArray[np.float32]:
    """Spell the official evaluation out once more."""
    height, width = rgb.shape[:2]
    if height < width:
        size = (int(256 / height * width + 0.5), 256)
    else:
        size = (256, int(256 / width * height + 0.5))
    bgr = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), size, interpolation=cv2.INTER_LINEAR)
    top, left = round((bgr.shape[0] - 224) / 2), round((bgr.shape[1] - 224) / 2)
    crop = bgr[top : top + 224, left : left + 224]
    return np.stack([crop[:, :, channel] for channel in range(3)]).astype(np.float32)


def check_array(out: npt.NDArray[np.float32], shape: tuple[int, ...]) -> None:
    assert out.shape == shape
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert out.flags.writeable


@pytest.mark.parametrize("size", SIZES)
def test_official_is_opencv_to_the_last_bit(size: tuple[int, int], tmp_path: Path) -> None:
    pixels = picture(*size)
    out = get_preprocess("official")(save(tmp_path / "a.png", pixels))
    check_array(out, (3, 224, 224))
    np.testing.assert_array_equal(out, official_by_hand(pixels))


def test_official_on_a_photograph_like_jpeg(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", picture(500, 333), quality=80)
    with Image.open(path) as image:
        truth = official_by_hand(np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(get_preprocess("official")(path), truth)


def test_official_channels_and_range() -> None:
    red = Image.new("RGB", (300, 300), (200, 10, 0))
    out = get_preprocess("official")(red)
    assert [out[channel].min() for channel in range(3)] == [0, 10, 200]  # B, G, R, not scaled


@pytest.mark.parametrize("size", SIZES)
def test_imagenet_is_torchvision(size: tuple[int, int], tmp_path: Path) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    theirs = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    pixels = picture(*size)
    out = get_preprocess("imagenet")(save(tmp_path / "a.png", pixels))
    check_array(out, (3, 224, 224))
    np.testing.assert_array_equal(out, theirs(Image.fromarray(pixels)).numpy())


@pytest.mark.parametrize("size", [(31, 17), (1, 5), (300, 200)])
def test_none_only_decodes(size: tuple[int, int], tmp_path: Path) -> None:
    pixels = picture(*size)
    out = get_preprocess("none")(save(tmp_path / "a.png", pixels))
    check_array(out, (3, size[1], size[0]))
    np.testing.assert_array_equal(out, pixels.transpose(2, 0, 1).astype(np.float32) / 255)


@pytest.mark.parametrize("name", ["official", "imagenet", "none"])
def test_grey_pictures_have_three_equal_channels(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture(260, 300)[:, :, 0])
    out = get_preprocess(name)(path)
    assert len(out) == 3
    if name != "imagenet":
        assert np.array_equal(out[0], out[1])
        assert np.array_equal(out[0], out[2])


@pytest.mark.parametrize("name", ["official", "imagenet"])
def test_a_line_of_pixels_too_long_to_resize_is_refused(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / "line.png", np.zeros((1, 900, 3), np.uint8))
    with pytest.raises(BadImageError, match=r"line\.png: .*900 x 1 is too elongated"):
        get_preprocess(name)(path)
    assert get_preprocess("none")(path).shape == (3, 1, 900)


@pytest.mark.parametrize("name", ["official", "imagenet", "none"])
def test_bad_files_name_the_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_claiming(60_000, 60_000))
    with pytest.raises(BadImageError, match=r"^bomb\.png: "):
        get_preprocess(name)(path)


def test_specs_are_json_and_differ() -> None:
    specs = [get_preprocess(name).spec for name in ("official", "imagenet", "none")]
    texts = {json.dumps(spec, sort_keys=True) for spec in specs}
    assert len(texts) == 3
    assert [spec["name"] for spec in specs] == ["official", "imagenet", "none"]
    assert all(json.loads(json.dumps(spec)) == spec for spec in specs)


MINE = """
import numpy as np

def halves(image):
    assert image.mode == "RGB"
    return np.asarray(image).transpose(2, 0, 1) / 510

def tensor(image):
    import torch
    return torch.ones(3, image.height, image.width, requires_grad=True, dtype=torch.float64)

def grey(image):
    return np.asarray(image.convert("L"))

def picky(image):
    from acon_analysis.data.preprocess import BadImageError
    raise BadImageError("too dark")

def broken(image):
    return 1 / 0

number = 7
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def test_a_callable_of_a_file(mine: Path, tmp_path: Path) -> None:
    pixels = picture(9, 6)
    path = save(tmp_path / "a.png", pixels)
    preprocess = get_preprocess(f"{mine}:halves")
    out = preprocess(path)
    check_array(out, (3, 6, 9))
    np.testing.assert_allclose(out, pixels.transpose(2, 0, 1) / 510, rtol=1e-6)
    check_array(get_preprocess(f"{mine}:tensor")(path), (3, 6, 9))
    assert preprocess.spec == {
        "name": "mine.py:halves",
        "decode": "PIL RGB",
        "sha256": hashlib.sha256(MINE.encode()).hexdigest(),
    }


def test_a_callable_of_a_module() -> None:
    preprocess = get_preprocess("PIL.ImageOps:invert")
    assert preprocess.spec["name"] == "PIL.ImageOps:invert"
    assert len(preprocess.spec["sha256"]) == 64
    with pytest.raises(AconError, match=r"must return one image of shape \(C, H, W\)|failed"):
        get_preprocess("PIL.ImageOps:grayscale")(Image.fromarray(picture(9, 6)))


def test_the_users_code_may_refuse_an_image(mine: Path, tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match=r"^a\.png: too dark$"):
        get_preprocess(f"{mine}:picky")(save(tmp_path / "a.png", picture(3, 3)))


def test_failures_of_the_users_code_are_not_bad_images(mine: Path) -> None:
    image = Image.fromarray(picture(9, 6))
    with pytest.raises(AconError, match=r"mine\.py:broken failed on an RGB image of 9 x 6") as one:
        get_preprocess(f"{mine}:broken")(image)
    assert "ZeroDivisionError: division by zero" in str(one.value)
    with pytest.raises(AconError, match=r"\(C, H, W\), not an array of shape \(6, 9\)") as two:
        get_preprocess(f"{mine}:grey")(image)
    assert not isinstance(one.value, BadImageError)
    assert not isinstance(two.value, BadImageError)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("offical", "there is no 'offical'; did you mean 'official'"),
        ("imagnet", "did you mean 'imagenet'"),
        ("mine.py", "Write 'mine.py:callable'"),
        ("nowhere.py:f", "there is no file 'nowhere.py'"),
        ("no_such_module_at_all:f", "cannot be imported"),
        (":f", "not of the form"),
        ("PIL.ImageOps:invrt", "has no 'invrt'; did you mean 'invert'"),
    ],
)
def test_wrong_names(name: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        get_preprocess(name)
    assert text in str(caught.value)


def test_wrong_files(mine: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no 'halfs'; did you mean 'halves'"):
        get_preprocess(f"{mine}:halfs")
    with pytest.raises(UsageError, match="is not callable but a 'int'"):
        get_preprocess(f"{mine}:number")
    (tmp_path / "bad.py").write_text("raise RuntimeError('no')")
    with pytest.raises(UsageError, match=r"failed with RuntimeError: no"):
        get_preprocess(f"{tmp_path / 'bad.py'}:f")


def test_pickling(mine: Path) -> None:
    image = Image.fromarray(picture(300, 260))
    for name in ("official", "imagenet", "none", f"{mine}:halves"):
        before = get_preprocess(name)
        after = pickle.loads(pickle.dumps(before))
        assert (after.name, after.spec) == (before.name, before.spec)
        np.testing.assert_array_equal(after(image), before(image))


def test_a_changed_file_is_noticed_in_the_worker(mine: Path) -> None:
    dumped = pickle.dumps(get_preprocess(f"{mine}:halves"))
    mine.write_text(MINE.replace("510", "512"))
    with pytest.raises(AconError, match="has changed since it was first loaded"):
        pickle.loads(dumped)
    image = Image.fromarray(picture(3, 3))
    changed = get_preprocess(f"{mine}:halves")  # and the new content is what runs from now on
    np.testing.assert_allclose(changed(image)[0, 0, 0], picture(3, 3)[0, 0, 0] / 512)


def _worker(preprocess: Preprocess, path: Path) -> tuple[float, int]:
    return float(preprocess(path).astype(np.float64).sum()), cv2.getNumThreads()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_agree_and_use_one_thread(method: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture(640, 480))
    preprocess = get_preprocess("official")
    here, _ = _worker(preprocess, path)
    code = (
        "import multiprocessing, pathlib, sys\n"
        "from test_preprocess import _worker\n"
        "from acon_analysis.data.preprocess import get_preprocess\n"
        "if __name__ == '__main__':\n"
        "    preprocess, path = get_preprocess('official'), pathlib.Path(sys.argv[2])\n"
        "    _worker(preprocess, path)\n"
        "    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:\n"
        "        print(*pool.apply(_worker, (preprocess, path)))\n"
    )
    folders = Path(__file__).parent, Path(__file__).parents[2] / "support"
    script = tmp_path / "main.py"
    script.write_text(code)
    assert method in multiprocessing.get_all_start_methods()
    done = subprocess.run(
        [sys.executable, str(script), method, str(path)],
        env={"PYTHONPATH": os.pathsep.join(map(str, folders)), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    total, threads = done.stdout.split()
    assert float(total) == here
    assert int(threads) == 1


def test_importing_it_loads_no_torch() -> None:
    code = (
        "import sys, acon_analysis.data.preprocess; "
        "print(sorted({'torch', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_cifar10_preprocess_is_what_the_data_set_gives() -> None:
    """An image of 32x32 goes through exactly as CIFAR-10's own images do."""
    from acon_analysis.data.cifar import _Normalised

    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    ours = get_preprocess("cifar10")(Image.fromarray(pixels[0]))
    np.testing.assert_allclose(ours, _Normalised(pixels)(0).numpy(), atol=2e-6)


def test_own_networks_preprocesses_take_the_central_square() -> None:
    wide = np.zeros((40, 100, 3), dtype=np.uint8)
    wide[:, 30:70] = 255
    grey = get_preprocess("digits")(Image.fromarray(wide))
    assert grey.shape == (1, 8, 8)
    assert grey.dtype == np.float32
    np.testing.assert_array_equal(grey, 1)
    assert get_preprocess("cifar10")(Image.fromarray(wide)).shape == (3, 32, 32)
