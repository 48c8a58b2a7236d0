"""Image files, possibly damaged or hostile, to RGB pictures in memory."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from acon_analysis.errors import AconError
from acon_analysis.files import open_regular

#: Formats that are decoded.
FORMATS = ("JPEG", "PNG", "WEBP")

#: Most pixels that an image may have; checked before anything is decoded.
MAX_PIXELS = 50_000_000

#: Most bytes that a file may have; an uncompressed picture of `MAX_PIXELS` has fewer.
MAX_BYTES = 500_000_000

_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"RIFF": "WebP"}


class BadImageError(AconError):
    """One image cannot be used: not an image, damaged, too large, of another format."""


def decode(path: str | os.PathLike[str]) -> Image.Image:
    """Read a JPEG, PNG or WebP file as an RGB picture, fully loaded.

    Decoded by PIL, which does not apply a rotation that EXIF asks for. Of an animation, the first
    picture; transparency is dropped; 16-bit greys keep their upper 8 bits. A missing, forbidden,
    damaged or too large file is a `BadImageError`; a failing disk, which says nothing of the
    image, an AconError.
    """
    file = Path(path)
    try:
        if not file.is_file():
            raise BadImageError("there is no such file")
        return decode_bytes(read_image(file))
    except (BadImageError, PermissionError) as error:
        reason = error if isinstance(error, BadImageError) else error.strerror or error
        raise BadImageError(f"{file.name}: {reason}") from error
    except OSError as error:
        raise AconError(f"{str(file)!r} cannot be read: {error.strerror or error}") from error


def read_image(path: Path) -> bytes:
    """Return the bytes of a file; `BadImageError`, without its name, for more than `MAX_BYTES`."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > MAX_BYTES else file.read(MAX_BYTES + 1)
    if max(size, len(content)) > MAX_BYTES:
        raise BadImageError(f"the file's {size:,} bytes are more than {MAX_BYTES:,}")
    return content


def decode_bytes(content: bytes) -> Image.Image:
    """Decode the content of an image file as `decode` does; errors come without a name."""
    file = io.BytesIO(content)
    try:
        with Image.open(file, formats=FORMATS) as image:
            require_size(image.size)
            with _no_guessing():
                image.load()
            return to_rgb(image)
    except (BadImageError, UserWarning):  # whether a warning is an error says nothing of the image
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(f"more than {MAX_PIXELS:,} pixels ({error})") from error
    except UnidentifiedImageError as error:
        raise BadImageError(_not_an_image(file)) from error
    except Exception as error:  # PIL raises nearly everything on damaged files
        raise BadImageError(f"damaged or truncated ({error})") from error


def require_size(size: tuple[int, int], what: str = "") -> None:
    """Raise a `BadImageError` that ends with `what` for a picture of more than `MAX_PIXELS`."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise BadImageError(f"{width} x {height} pixels are more than {MAX_PIXELS:,}{what}")


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image in mode RGB: transparency dropped, 16-bit greys cut to the upper 8 bits."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, PIL warns
    # A copy where nothing is to be converted: the caller's image, or its file, may be closed.
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


@contextmanager
def _no_guessing() -> Iterator[None]:
    """Let truncated files fail although some other library has asked PIL to fill them up."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _not_an_image(file: IO[bytes]) -> str:
    """Say what is wrong with a file that PIL does not recognise."""
    file.seek(0)
    head = file.read(12)
    if not head:
        return "the file is empty"
    for magic, name in _MAGIC.items():
        if head.startswith(magic) and (name != "WebP" or head[8:] == b"WEBP"):
            return f"a damaged or truncated {name} file"
    return f"not a JPEG, PNG or WebP file (it starts with {head[:8]!r})"
