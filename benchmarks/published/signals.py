"""A Meta-ACON network as others write it, for signals: convolutions, Meta-ACON and a GRU.

Written from the description of public networks that recognise bearing faults: β is the mean over
time, two 1x1 convolutions with a BatchNorm after each, and a sigmoid. The signals are made here:
machines that turn, with a fault that strikes a resonance at a rate of its own, in noise.
"""

from pathlib import Path

import numpy as np
import torch
from published.case import parts
from torch import Tensor, nn

RATE, LENGTH = 4_000, 1_024

#: Strikes per turn of the shaft, and by how much the rate slips; None for a healthy machine.
CLASSES: dict[str, tuple[float, float] | None] = {
    "healthy": None,
    "outer ring": (3.58, 0.01),
    "inner ring": (5.42, 0.01),
    "ball": (4.71, 0.03),
    "cage": (0.40, 0.01),
    "two faults": (3.58, 0.01),
}
TRAINING, TESTING = 2_400, 1_200


def signals(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return signals (count, 1, LENGTH) of unit deviation, and their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(CLASSES), size=count)
    made = np.stack([_signal(list(CLASSES)[label], rng) for label in labels])
    made /= made.std(1, keepdims=True)
    return torch.from_numpy(made[:, None]).float(), torch.from_numpy(labels)


def _signal(kind: str, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(LENGTH) / RATE
    turns = rng.uniform(20, 40)
    wave = rng.standard_normal(LENGTH)
    for k in (1, 2, 3):
        wave += rng.uniform(0.1, 0.6) * np.sin(2 * np.pi * k * turns * time + rng.uniform(0, 6.3))
    faults = [CLASSES[kind]] + ([CLASSES["inner ring"]] if kind == "two faults" else [])
    for fault in faults:
        if fault is not None:
            wave += _strikes(turns * fault[0], fault[1], time, rng)
    return wave


def _strikes(rate: float, slip: float, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a resonance that is struck at a rate."""
    gaps = (1 + slip * rng.standard_normal(200)) / rate
    at = np.cumsum(gaps) - rng.uniform(0, 1 / rate)
    since = time[:, None] - at[at < time[-1]]
    resonance = rng.uniform(900, 1_500)
    rings = np.where(
        since > 0, np.exp(-250 * since.clip(0)) * np.sin(2 * np.pi * resonance * since), 0
    )
    made: np.ndarray = rng.uniform(3.0, 6.0) * rings.sum(1)
    return made


class MetaAcon1d(nn.Module):
    """ACON-C whose β a small network computes from the mean over time."""

    def __init__(self, width: int, r: int = 8) -> None:
        super().__init__()
        inner = max(r, width // r)
        self.fc1, self.bn1 = nn.Conv1d(width, inner, 1), nn.BatchNorm1d(inner)
        self.fc2, self.bn2 = nn.Conv1d(inner, width, 1), nn.BatchNorm1d(width)
        self.p1 = nn.Parameter(torch.randn(1, width, 1))
        self.p2 = nn.Parameter(torch.randn(1, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x (N, C, T)."""
        beta = torch.sigmoid(self.bn2(self.fc2(self.bn1(self.fc1(x.mean(2, keepdim=True))))))
        difference = (self.p1 - self.p2) * x
        made: Tensor = difference * torch.sigmoid(beta * difference) + self.p2 * x
        return made


class HeldAcon1d(nn.Module):
    """The same with a β of each channel: a parameter, or 0.5 for good."""

    def __init__(self, meta: MetaAcon1d, learned: bool) -> None:
        super().__init__()
        self.p1, self.p2 = meta.p1, meta.p2
        self.beta = nn.Parameter(torch.full_like(meta.p1, 0.5), requires_grad=learned)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x (N, C, T)."""
        difference = (self.p1 - self.p2) * x
        made: Tensor = difference * torch.sigmoid(self.beta * difference) + self.p2 * x
        return made


class Bearing(nn.Module):
    """Seven convolutions with Meta-ACON, a GRU over time and a classifier."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        width = 1
        for wider, kernel, stride in (
            (16, 32, 4),
            (16, 5, 2),
            (24, 5, 2),
            (24, 3, 1),
            (32, 3, 2),
            (32, 3, 1),
            (48, 3, 2),
        ):
            layers += [
                nn.Conv1d(width, wider, kernel, stride, kernel // 2),
                nn.BatchNorm1d(wider),
                MetaAcon1d(wider),
            ]
            width = wider
        self.features = nn.Sequential(*layers)
        self.gru = nn.GRU(width, 32, batch_first=True)
        self.head = nn.Linear(32, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes) of signals (N, 1, T)."""
        _, last = self.gru(self.features(x).transpose(1, 2))
        made: Tensor = self.head(last[-1])
        return made


#: β of the trained variants, in words.
VARIANTS = {
    "meta": "computed from the signal",
    "parameter": "a parameter of each channel",
    "frozen": "0.5 for good",
}


def build(variant: str, seed: int) -> Bearing:
    """Return an untrained network; all but β begins alike for a seed."""
    network = Bearing(seed)
    if variant != "meta":
        for place, layer in enumerate(network.features):
            if isinstance(layer, MetaAcon1d):
                network.features[place] = HeldAcon1d(layer, variant == "parameter")
    return network


def trained(
    variant: str, seed: int, folder: Path, epochs: int = 12
) -> tuple[Bearing, float, float]:
    """Return a trained network in evaluation mode, its accuracy and its loss on test signals."""
    path = folder / f"bearing-{variant}-{seed}.pt"
    network = build(variant, seed)
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
    else:
        _train(network, seed, epochs)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path)
    x, y = signals(TESTING, 1)
    with torch.no_grad():
        logits = torch.cat([network.eval()(part) for part in parts(x, 200)])
    loss = float(nn.functional.cross_entropy(logits, y))
    return network.eval(), float((logits.argmax(1) == y).double().mean()), loss


def _train(network: Bearing, seed: int, epochs: int, size: int = 48) -> None:
    x, y = signals(TRAINING, 0)
    steps = epochs * (len(x) // size)
    optimiser = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad], 3e-3, weight_decay=1e-3
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)[: len(x) // size * size]
        for batch in parts(order, size):
            loss = nn.functional.cross_entropy(network(x[batch]), y[batch])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
