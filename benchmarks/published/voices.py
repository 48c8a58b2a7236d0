"""Networks that listen to voices: Resemblyzer's speaker encoder, and Silero's detector."""

import warnings
from typing import Any

import numpy as np
import torch
from published.case import Case, parts
from published.inputs import RATE, VOICES, described_twice, spoken
from published.packages import fetch, importable
from torch import nn

import acon_analysis as acon
from acon_hooks.errors import HookError

#: Sentences that each voice speaks.
SENTENCES = 16


def speaker() -> Case:
    """Return the speaker encoder on 1.6 s of sentences spoken by twelve voices."""
    importable("resemblyzer", "librosa", "webrtcvad", "scipy.ndimage.morphology:binary_dilation")
    from resemblyzer.voice_encoder import VoiceEncoder

    model = VoiceEncoder("cpu", verbose=False).eval()
    sentences = described_twice()[0][:SENTENCES]
    said = [[_mel(wave) for wave in spoken(sentences, voice)] for voice in VOICES]
    x = torch.from_numpy(np.stack([mel for mels in said for mel in mels])).float()
    who = torch.arange(len(VOICES)).repeat_interleave(SENTENCES)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
    half = len(x) // 2
    first, second = x[order[:half]], x[order[half:]]

    def quality(network: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            embedded = network(first)
        alike = embedded @ embedded.T
        alike.fill_diagonal_(-1)
        own = who[order[:half]]
        return {"nearest is the same voice": float((own[alike.argmax(1)] == own).double().mean())}

    return Case(
        "Resemblyzer",
        "resemblyzer",
        model,
        parts(first, 32),
        parts(second, 32),
        quality,
        f"knows a voice again; {half} sentences, each by one of {len(VOICES)} synthesised voices",
    )


def _mel(wave: np.ndarray) -> np.ndarray:
    """Return 160 frames of 40 mel bands (160, 40) of power, as the encoder takes them."""
    wave = np.resize(wave * 10 ** (-30 / 20) / np.sqrt(np.mean(wave**2)), int(1.6 * RATE) + 400)
    windows = np.lib.stride_tricks.sliding_window_view(wave, 400)[::160][:160]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(windows * hann)) ** 2
    made: np.ndarray = power @ mel_filters(40, 400).T
    return made


def mel_filters(bands: int, length: int) -> np.ndarray:
    """Return Slaney's triangular filters (bands, length // 2 + 1), each of area 1."""

    def hertz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, 200 / 3 * mel, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))

    top = 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    edges = hertz(np.linspace(0, top, bands + 2))
    at = np.fft.rfftfreq(length, 1 / RATE)
    rising = (at - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - at) / np.diff(edges)[1:, None]
    height = 2 / (edges[2:] - edges[:-2])
    made: np.ndarray = np.maximum(0, np.minimum(rising, falling)) * height[:, None]
    return made


def refused() -> str:
    """Return what is said of Silero's voice detector, which comes as TorchScript."""
    path = fetch("silero-vad") / "silero_vad" / "data" / "silero_vad.jit"
    load: Any = torch.jit.load
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        network = load(str(path), map_location="cpu").eval()
    try:
        acon.find_layers(network, ("activation",))
    except HookError as error:
        return f"Silero VAD is refused: {error}."
    return "Silero VAD is not refused."
