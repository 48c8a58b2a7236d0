"""From an image file to a network's input, as numpy arrays: official, imagenet, none, or yours."""

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from acon_analysis.data.decoding import BadImageError, decode, require_size, to_rgb
from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.usercode import load_callable

__all__ = ["PREPROCESSES", "BadImageError", "Preprocess", "get_preprocess"]

Array = npt.NDArray[np.float32]

#: Short side after resizing and side of the centre crop, in pixels.
RESIZE, CROP = 256, 224

#: ImageNet's mean and standard deviation of R, G, B in 0..1, as torchvision's weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

#: Mean and standard deviation of CIFAR-10's training pixels, 0 to 1, per channel (R, G, B): the
#: values in general use, rounded to four digits.
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)


class Preprocess(ABC):
    """What is done to an image before the network; can be pickled for worker processes.

    Attributes
    ----------
    name : str
        What the user wrote.
    spec : dict
        JSON-able identity: equal specs give equal arrays from equal files.
    """

    name: str
    spec: dict[str, Any]

    def __call__(self, source: str | os.PathLike[str] | Image.Image) -> Array:
        """Return the network's input, float32, (C, H, W), contiguous and owned by the caller.

        The source is a JPEG, PNG or WebP file, or a picture in memory. A file that cannot be
        decoded, or is too large or too elongated, is a `BadImageError`; a callable of the user that
        fails or returns something else than an image an `AconError`.
        """
        if isinstance(source, Image.Image):
            return self.apply(to_rgb(source))
        image = decode(source)
        try:
            return self.apply(image)
        except BadImageError as error:
            raise BadImageError(f"{Path(source).name}: {error}") from error

    @abstractmethod
    def apply(self, image: Image.Image) -> Array:
        """Turn one RGB picture into a float32 array (C, H, W)."""


class NamedPreprocess(Preprocess):
    """One of `PREPROCESSES`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._function, spec = PREPROCESSES[name]
        self.spec = {"name": name, **spec}

    def apply(self, image: Image.Image) -> Array:
        """Return what the function of that name makes of the picture."""
        return self._function(image)


class UserPreprocess(Preprocess):
    """A callable of the user: an RGB PIL image in, a tensor or array (C, H, W) out.

    It may raise `BadImageError` to leave an image out; any other exception is a failure.
    """

    def __init__(self, address: str) -> None:
        self.name = address
        self._function, digest = load_callable("preprocess", address, ["image"])
        # Without the folder: the same file gives the same identity on every machine.
        self.spec = {"name": Path(address).name, "decode": "PIL RGB", "sha256": digest}

    def apply(self, image: Image.Image) -> Array:
        """Return what the callable made of the picture, as float32."""
        try:
            result = self._function(image)
            if hasattr(result, "detach"):  # a tensor, without importing torch
                result = result.detach().cpu().numpy()
            array = np.array(result, dtype=np.float32, order="C")
        except BadImageError:
            raise
        except Exception as error:
            raise AconError(
                f"preprocess {self.name} failed on an RGB image of {image.width} x {image.height} "
                f"pixels: {type(error).__name__}: {error}"
            ) from error
        if array.ndim != 3:
            raise AconError(
                f"preprocess {self.name} must return one image of shape (C, H, W), "
                f"not an array of shape {array.shape}"
            )
        return array

    def __getstate__(self) -> dict[str, Any]:
        """Leave the function out: worker processes load it again by its name."""
        return {"name": self.name, "spec": self.spec}

    def __setstate__(self, state: dict[str, Any]) -> None:
        function, digest = load_callable("preprocess", state["name"], ["image"])
        if digest != state["spec"]["sha256"]:
            raise AconError(f"preprocess {state['name']} has changed since it was first loaded")
        self.__dict__.update(state, _function=function)


def _official(image: Image.Image) -> Array:
    """Return (3, 224, 224), B, G, R, 0 to 255, as the official ACON evaluation has it."""
    resized = _opencv_resize(np.asarray(image), _official_size(image.size))
    return np.ascontiguousarray(_centre(resized)[:, :, ::-1].transpose(2, 0, 1), np.float32)


def _imagenet(image: Image.Image) -> Array:
    """Return (3, 224, 224), R, G, B, normalised: the usual evaluation of torchvision."""
    size = _torchvision_size(image.size)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return _normalised(_centre(np.asarray(image)), MEAN, STD)


def _cifar(image: Image.Image) -> Array:
    """Return (3, 32, 32), R, G, B, normalised: what the CIFAR-10 networks were trained on."""
    return _normalised(np.asarray(_small_square(image, 32)), CIFAR_MEAN, CIFAR_STD)


def _digits(image: Image.Image) -> Array:
    """Return (1, 8, 8), 0 to 1: bright strokes on black, as the digits networks were trained on."""
    grey = np.asarray(_small_square(image, 8).convert("L"), np.float32)
    scaled: Array = (grey / np.float32(255))[None]
    return scaled


def _plain(image: Image.Image) -> Array:
    """Return (3, H, W), R, G, B, 0 to 1, at the size that the image has."""
    return _unit_range(np.asarray(image))


_RGB = {"decode": "PIL RGB", "channels": "RGB", "range": "0..1"}
#: Name -> what is done, and how it is written down: equal words give equal arrays.
PREPROCESSES: dict[str, tuple[Callable[[Image.Image], Array], dict[str, Any]]] = {
    "official": (_official, {
        "decode": "PIL RGB", "resize": "OpenCV INTER_LINEAR, short side 256, uint8",
        "crop": "centre 224", "channels": "BGR", "range": "0..255",
    }),
    "imagenet": (_imagenet, {
        **_RGB, "resize": "PIL bilinear with antialiasing, short side 256", "crop": "centre 224",
        "mean": list(MEAN), "std": list(STD),
    }),
    "cifar10": (_cifar, {
        **_RGB, "resize": "PIL bilinear with antialiasing, 32", "crop": "central square",
        "mean": list(CIFAR_MEAN), "std": list(CIFAR_STD),
    }),
    "digits": (_digits, {
        "decode": "PIL grey", "resize": "PIL bilinear with antialiasing, 8",
        "crop": "central square", "range": "0..1",
    }),
    "none": (_plain, _RGB),
}  # fmt: skip


def get_preprocess(name: str) -> Preprocess:
    """Return a preprocessing by name; `UsageError` if there is none.

    ``"official"``, ``"imagenet"``, ``"cifar10"``, ``"digits"``, ``"none"``, ``"file.py:callable"``
    or ``"package.module:callable"``; the last two run the code they name.
    """
    if name in PREPROCESSES:
        return NamedPreprocess(name)
    if ":" in name:
        return UserPreprocess(name)
    if name.endswith(".py"):
        raise UsageError(f"preprocess: which callable of {name!r}? Write '{name}:callable'")
    raise UsageError(
        f"preprocess: there is no {name!r}; {closest(name, PREPROCESSES)} "
        "('file.py:callable' works too)"
    )


def _small_square(image: Image.Image, side: int) -> Image.Image:
    """Return the central square of an image, resized."""
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    square = image.crop((left, top, left + short, top + short))
    return square.resize((side, side), Image.Resampling.BILINEAR)


def _official_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height after the official resize, rounded as its code does."""
    width, height = size
    if height < width:
        target = (int(RESIZE / height * width + 0.5), RESIZE)
    else:
        target = (RESIZE, int(RESIZE / width * height + 0.5))
    require_size(target, _elongated(size))
    return target


def _torchvision_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height after torchvision's Resize(256)."""
    width, height = size
    short, long = min(size), max(size)
    other = int(RESIZE * long / short)
    target = (RESIZE, other) if width <= height else (other, RESIZE)
    require_size(target, _elongated(size))
    return target


def _elongated(size: tuple[int, int]) -> str:
    return f": {size[0]} x {size[1]} is too elongated to resize its short side to {RESIZE}"


def _opencv_resize(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    import cv2

    # In a worker process OpenCV's own threads only get in the way; after a fork they no longer run.
    if multiprocessing.parent_process() is not None and cv2.getNumThreads() > 1:
        cv2.setNumThreads(0)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _centre(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Cut the centre from (H, W, 3), halves rounded to even as torchvision does."""
    height, width = pixels.shape[:2]
    top, left = round((height - CROP) / 2), round((width - CROP) / 2)
    return pixels[top : top + CROP, left : left + CROP]


def _normalised(pixels: npt.NDArray[np.uint8], *scale: tuple[float, float, float]) -> Array:
    """(H, W, 3) in 0..255 to (3, H, W), minus the mean and over the standard deviation."""
    mean, std = (np.array(channels, np.float32)[:, None, None] for channels in scale)
    normalised: Array = (_unit_range(pixels) - mean) / std
    return normalised


def _unit_range(pixels: npt.NDArray[np.uint8]) -> Array:
    """(H, W, 3) in 0..255 to (3, H, W) in 0..1."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
