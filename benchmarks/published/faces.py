"""MTCNN of facenet-pytorch: three networks that find faces (PReLU)."""

from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from published.case import Case
from published.inputs import face_crops, photographs
from published.packages import importable
from torch import Tensor, nn

PACKAGE = "facenet-pytorch"


def case(number: int) -> Case:
    """Return P-Net, R-Net or O-Net on crops with and without a face."""
    importable(PACKAGE)
    from facenet_pytorch import ONet, PNet, RNet

    network, side = ((PNet, 12), (RNet, 24), (ONet, 48))[number]
    crops, labels = face_crops()
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = _scaled(crops, side)[order], torch.from_numpy(labels[order])
    return Case(
        f"MTCNN {network.__name__[0]}-Net",
        PACKAGE,
        network().eval(),
        [(x[i : i + 25], y[i : i + 25]) for i in range(0, 100, 25)],
        [(x[i : i + 25], y[i : i + 25]) for i in range(100, 200, 25)],
        partial(_right, x[:100], y[:100]),
        f"separates crops with a face from crops without; 100 crops of LFW at {side} pixels",
        {"forward": lambda model, batch: _probabilities(model, batch[0])},
    )


def in_photographs() -> str:
    """Return what the three networks together find in whole photographs, in a sentence."""
    importable(PACKAGE)
    from facenet_pytorch import MTCNN

    whole, found = MTCNN(keep_all=True), {}
    for name, picture in photographs().items():
        boxes, sure = whole.detect(picture)
        found[name] = [] if boxes is None else [float(p) for p in sure]
    said = ", ".join(f"{n} ({', '.join(f'{p:.3f}' for p in ps)})" for n, ps in found.items() if ps)
    none = [name for name, sure in found.items() if not sure]
    return (
        f"MTCNN as a whole finds faces in {said or 'no photograph'} (probabilities), and none in "
        f"{len(none)} of {len(found)} photographs: {', '.join(none)}."
    )


def _scaled(crops: Any, side: int) -> Tensor:
    """Return crops (N, 3, side, side) as the networks take them."""
    images = [Image.fromarray((255 * crop).astype(np.uint8)) for crop in crops]
    pixels = np.stack(
        [np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)) for image in images]
    )
    return torch.from_numpy((pixels[:, None].repeat(3, 1) - 127.5) / 128).float()


def _probabilities(model: nn.Module, x: Tensor) -> Tensor:
    """Return the probabilities of no face and of a face (N, 2)."""
    out: Tensor = model(x)[-1].flatten(1)
    return out


def _right(x: Tensor, y: Tensor, model: nn.Module) -> dict[str, float]:
    with torch.no_grad():
        answers = _probabilities(model, x).argmax(1)
    return {"accuracy": float((answers == y).double().mean())}
