"""Image files of every mode, damaged ones, hostile ones."""

import errno
import io
import os
import resource
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from acon_analysis.data.decoding import (
    MAX_BYTES,
    MAX_PIXELS,
    BadImageError,
    decode,
    decode_bytes,
    to_rgb,
)
from acon_analysis.data.hashes import hash_files
from acon_analysis.errors import AconError
from pictures import picture, png_claiming, save


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "JPEG"])
def test_the_three_formats(ending: str, tmp_path: Path) -> None:
    path = save(tmp_path / f"a.{ending}", picture(40, 30), format=None)
    image = decode(path)
    assert (image.mode, image.size) == ("RGB", (40, 30))
    with Image.open(path) as direct:
        assert np.array_equal(np.asarray(image), np.asarray(direct.convert("RGB")))


def test_the_content_counts_and_not_the_ending(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture(8, 8))
    assert decode(path.rename(tmp_path / "a.jpg")).size == (8, 8)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK", "I;16", "YCbCr"])
def test_modes_become_rgb(mode: str, tmp_path: Path) -> None:
    rgb = Image.fromarray(picture(20, 12))
    if mode == "I;16":
        grey = np.asarray(rgb.convert("L")).astype(np.uint16) * 256 + 77
        path, truth = tmp_path / "a.png", Image.fromarray((grey >> 8).astype(np.uint8))
        Image.fromarray(grey).save(path)
    else:
        jpeg = mode in ("CMYK", "YCbCr")
        path, truth = tmp_path / ("a.jpg" if jpeg else "a.png"), rgb.convert(mode)
        truth.save(path)
        if jpeg:
            with Image.open(path) as file:
                truth = file.convert("RGB")
    decoded = decode(path)
    assert decoded.mode == "RGB"
    assert np.array_equal(np.asarray(decoded), np.asarray(truth.convert("RGB")))


def test_transparency_is_dropped(tmp_path: Path) -> None:
    colours = np.concatenate([picture(9, 7), np.zeros((7, 9, 1), np.uint8)], 2)
    assert np.array_equal(np.asarray(decode(save(tmp_path / "a.png", colours))), colours[:, :, :3])
    palette = Image.fromarray(picture(9, 7)).convert("P")
    palette.save(tmp_path / "p.png", transparency=bytes(range(200)))
    with Image.open(tmp_path / "p.png") as image:
        assert isinstance(image.info["transparency"], bytes)
    shown = np.asarray(decode(tmp_path / "p.png"))
    assert np.array_equal(shown, np.asarray(palette.convert("RGB")))


def test_an_image_is_none_the_worse_where_warnings_are_errors() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 3)).save(stream, "PNG")
    chunk = b"acTL" + bytes(8)  # an animation without pictures
    odd = stream.getvalue()
    odd = odd[:33] + b"\0\0\0\x08" + chunk + zlib.crc32(chunk).to_bytes(4, "big") + odd[33:]
    with pytest.raises(UserWarning, match="Invalid APNG"):
        decode_bytes(odd)
    with pytest.warns(UserWarning, match="Invalid APNG"):
        assert decode_bytes(odd).size == (4, 3)


def test_the_rotation_of_exif_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    plain = save(tmp_path / "a.jpg", picture(30, 20))
    turned = save(tmp_path / "b.jpg", picture(30, 20), exif=exif)
    assert decode(turned).size == (30, 20)
    assert np.array_equal(np.asarray(decode(plain)), np.asarray(decode(turned)))


def test_animations_give_their_first_picture(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(8, 8, seed)) for seed in range(3)]
    for ending in ("png", "webp"):
        path = tmp_path / f"a.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
        assert np.array_equal(np.asarray(decode(path)), np.asarray(frames[0]))


def reason(path: Path) -> str:
    with pytest.raises(BadImageError) as caught:
        decode(path)
    text = str(caught.value)
    assert text.startswith(f"{path.name}: ")
    assert "\n" not in text
    assert str(path.parent) not in text  # the same words on every machine
    return text.removeprefix(f"{path.name}: ")


def test_what_is_no_image_says_why(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.jpg") == "there is no such file"
    assert reason(tmp_path) == "there is no such file"
    empty, text = tmp_path / "empty.jpg", tmp_path / "text.jpg"
    empty.write_bytes(b"")
    text.write_text("not an image")
    assert reason(empty) == "the file is empty"
    assert reason(text) == "not a JPEG, PNG or WebP file (it starts with b'not an i')"
    gif = save(tmp_path / "a.gif", picture(4, 4))
    assert reason(gif).startswith("not a JPEG, PNG or WebP file (it starts with b'GIF8")
    bmp = save(tmp_path / "a.bmp", picture(4, 4)).rename(tmp_path / "b.png")
    assert reason(bmp).startswith("not a JPEG, PNG or WebP file (it starts with b'BM")


@pytest.mark.parametrize("guess", [False, True])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_truncated_files_fail_even_if_pil_was_told_to_guess(
    ending: str, guess: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", guess)
    whole = save(tmp_path / f"a.{ending}", picture(120, 90)).read_bytes()
    for keep in (0.05, 0.5, 0.9):
        path = tmp_path / f"cut.{ending}"
        path.write_bytes(whole[: int(len(whole) * keep)])
        assert "truncated" in reason(path)
    assert guess == ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    "size", [(7072, 7071), (10_000, 9000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)]
)
def test_huge_claims_are_refused_before_decoding(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_claiming(*size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert f"{MAX_PIXELS:,}" in reason(path)
    if sys.platform == "linux":  # kilobytes there
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_huge_jpeg_and_webp_are_refused(tmp_path: Path) -> None:
    jpeg = bytearray(save(tmp_path / "a.jpg", picture(16, 16)).read_bytes())
    at = jpeg.index(b"\xff\xc0") + 5  # height and width follow the frame's length and precision
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "b.jpg").write_bytes(jpeg)
    assert f"{MAX_PIXELS:,}" in reason(tmp_path / "b.jpg")
    wide = Image.new("RGB", (12_000, 4200))
    wide.save(tmp_path / "a.webp", quality=1, method=0)
    assert reason(tmp_path / "a.webp") == f"12000 x 4200 pixels are more than {MAX_PIXELS:,}"


def test_unreadable_files_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", picture(4, 4))

    def refuse(*_: object, **__: object) -> io.BytesIO:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("acon_analysis.data.decoding.open_regular", refuse)
    assert reason(path) == "Permission denied"


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_failing_disk_says_nothing_of_the_image(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", picture(4, 4))

    def fail(*_: object, **__: object) -> io.BytesIO:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("acon_analysis.data.decoding.open_regular", fail)
    with pytest.raises(AconError, match=f"a.png' cannot be read: {os.strerror(code)}") as caught:
        decode(path)
    assert not isinstance(caught.value, BadImageError)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture(4, 4))
    os.truncate(path, MAX_BYTES + 1)  # takes no room
    assert reason(path) == f"the file's {MAX_BYTES + 1:,} bytes are more than {MAX_BYTES:,}"


def test_the_error_survives_worker_processes() -> None:
    error = BadImageError("a.jpg: the file is empty")
    assert isinstance(error, AconError)
    assert str(type(error)(str(error))) == str(error)  # how torch's DataLoader raises it again


def test_to_rgb_never_hands_out_the_same_picture() -> None:
    image = Image.fromarray(picture(4, 4))
    assert to_rgb(image) is not image


@pytest.fixture(scope="module")
def wholes() -> dict[str, bytes]:
    out = {}
    for form in ("JPEG", "PNG", "WEBP"):
        buffer = io.BytesIO()
        Image.fromarray(picture(24, 18)).save(buffer, form)
        out[form] = buffer.getvalue()
    return out


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    form=st.sampled_from(["JPEG", "PNG", "WEBP"]),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
    keep=st.floats(0, 1),
)
def test_damaged_files_decode_or_raise_one_error(
    form: str, flips: list[tuple[int, int]], keep: float, wholes: dict[str, bytes], tmp_path: Path
) -> None:
    content = bytearray(wholes[form])
    for place, value in flips:
        content[place % len(content)] = value
    path = tmp_path / "damaged"
    path.write_bytes(content[: round(keep * len(content)) or 1] if keep < 0.5 else content)
    try:
        outcome = decode(path).mode
    except BadImageError as error:
        outcome = str(error)
    assert outcome == "RGB" or outcome.startswith("damaged: ")


def test_a_huge_file_is_not_hashed(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(4, 4))
    os.truncate(tmp_path / "a.png", 2**42)  # hours of reading
    assert hash_files(tmp_path, ["a.png"]) == [(2**42, "")]
