"""Meta-ACON layers as they are found in public code, each written anew for these tests.

Numbers are those of the table of variants in the tests of reading. Every layer keeps the β it
used in `truth`, so that a reading can be compared with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def combine(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
    d = (p1 - p2) * x
    return d * torch.sigmoid(beta * d) + p2 * x


class Slopes(nn.Module):
    """Owns p1 and p2, and remembers the β that it used."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.p1 = nn.Parameter(torch.randn(shape))
        self.p2 = nn.Parameter(torch.randn(shape))
        self.truth = torch.empty(0)

    def use(self, x: Tensor, beta: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            with torch._C.DisableTorchFunction():  # no reader may find β here
                self.truth = beta.detach().clone()
        return combine(x, self.p1, self.p2, beta)


class Official(Slopes):  # 1
    def __init__(self, c: int, r: int = 4) -> None:
        super().__init__(1, c, 1, 1)
        hidden = max(r, c // r)
        self.fc1, self.bn1 = nn.Conv2d(c, hidden, 1), nn.BatchNorm2d(hidden)
        self.fc2, self.bn2 = nn.Conv2d(hidden, c, 1), nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=2, keepdim=True).mean(dim=3, keepdim=True)
        return self.use(x, torch.sigmoid(self.bn2(self.fc2(self.bn1(self.fc1(pooled))))))


class OneSigmoidTwice(Official):  # 2
    def __init__(self, c: int, norm: bool = True) -> None:
        super().__init__(c)
        if not norm:
            del self.bn1, self.bn2
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x.mean((2, 3), keepdim=True))
        normed = hasattr(self, "bn1")
        logit = self.bn2(self.fc2(self.bn1(hidden))) if normed else self.fc2(hidden)
        beta: Tensor = self.sigmoid(logit)
        self.truth = beta.detach()
        d = (self.p1 - self.p2) * x
        out: Tensor = d * self.sigmoid(beta * d) + self.p2 * x
        return out


class Detector(Slopes):  # 3
    def __init__(self, c: int) -> None:
        super().__init__(1, c, 1, 1)
        self.fc1, self.fc2 = nn.Conv2d(c, 4, 1), nn.Conv2d(4, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return self.use(x, torch.sigmoid(self.fc2(self.fc1(pooled))))


class Signal(Slopes):  # 4
    def __init__(self, c: int) -> None:
        super().__init__(1, c, 1)
        self.fc1, self.bn1 = nn.Conv1d(c, 4, 1), nn.BatchNorm1d(4)
        self.fc2, self.bn2 = nn.Conv1d(4, c, 1), nn.BatchNorm1d(c)

    def forward(self, x: Tensor) -> Tensor:
        logit = self.bn2(self.fc2(self.bn1(self.fc1(x.mean(2, keepdim=True)))))
        return self.use(x, logit.sigmoid())


class Speech(Signal):  # 5
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class TokenLinear(Slopes):  # 6
    def __init__(self, c: int) -> None:
        super().__init__(1, 1, c)
        self.fc1, self.fc2 = nn.Linear(c, 4), nn.Linear(4, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, torch.sigmoid(self.fc2(self.fc1(x.mean(1, keepdim=True)))))


class OneSequential(Slopes):  # 7
    def __init__(self, c: int) -> None:
        super().__init__(1, c, 1, 1)
        self.fcn = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, 4, 1), nn.ReLU(), nn.Conv2d(4, c, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, self.fcn(x))


class ReluBetween(Slopes):  # 8
    def __init__(self, c: int, functional: bool = False) -> None:
        super().__init__(1, c, 1, 1)
        nn.init.ones_(self.p1)
        nn.init.zeros_(self.p2)
        self.functional = functional
        if functional:
            self.fc1, self.fc2 = nn.Linear(c, 4), nn.Linear(4, c)
        else:
            self.fc = nn.Sequential(nn.Linear(c, 4), nn.ReLU(inplace=True), nn.Linear(4, c))

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        pooled = F.adaptive_avg_pool2d(x, 1).view(n, c)
        logit = self.fc2(F.relu(self.fc1(pooled))) if self.functional else self.fc(pooled)
        return self.use(x, logit.sigmoid().view(n, c, 1, 1))


class ACONC(Slopes):  # 9
    def __init__(self, c: int) -> None:
        super().__init__(1, c, 1, 1)
        self.conv1, self.conv2 = nn.Conv2d(c, 4, 1), nn.Conv2d(4, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, torch.sigmoid(self.conv2(self.conv1(x.mean((2, 3), keepdim=True)))))


class DeadNorm(Official):  # 10
    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, torch.sigmoid(self.fc2(self.fc1(x.mean((2, 3), keepdim=True)))))


class DeadSigmoid(Detector):  # 11
    def __init__(self, c: int) -> None:
        super().__init__(c)
        self.sigmoid = nn.Sigmoid()


class ExtraHead(Slopes):  # 12
    def __init__(self, c: int) -> None:
        super().__init__(1, c, 1, 1)
        self.fc1, self.bn1 = nn.Conv2d(c, 4, 1), nn.BatchNorm2d(4)
        self.fc2, self.bn2 = nn.Conv2d(4, c, 1), nn.BatchNorm2d(c)
        self.fc3 = nn.Conv2d(c, c, 1)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        pooled = other.mean((2, 3), keepdim=True)
        attention = torch.sigmoid(self.bn2(self.fc2(self.bn1(self.fc1(pooled)))))
        return self.use(x, self.fc3(attention))


class Condition(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = (nn.Conv2d(c, c, 1) for _ in range(3))

    def forward(self, condition: Tensor) -> Tensor:
        out: Tensor = self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(condition)))))
        return out


class SpatialParent(Slopes):  # 13
    def __init__(self, c: int) -> None:
        super().__init__(1, c, 1, 1)
        self.condition = Condition(c)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.use(x, torch.sigmoid(self.condition(condition)))


class LayerWise(Slopes):  # 14
    def __init__(self, c: int, how: str = "mean") -> None:
        super().__init__(1, c, 1, 1)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        total = x.mean((1, 2, 3)) if self.how == "mean" else x.sum((1, 2, 3)) / 16
        return self.use(x, torch.sigmoid(total).view(-1, 1, 1, 1))


class PixelWise(Slopes):  # 14
    def __init__(self, c: int) -> None:
        super().__init__(1, c, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, torch.sigmoid(x))


class Static(Slopes):  # 15
    def __init__(self, c: int, *beta: int) -> None:
        super().__init__(1, c, 1, 1)
        self.beta = nn.Parameter(torch.randn(beta or (1, c, 1, 1)) + 1)

    def forward(self, x: Tensor) -> Tensor:
        beta: Tensor = self.beta
        if beta.ndim < 4 and beta.numel() > 1:
            beta = beta.view(1, -1, 1, 1)
        return self.use(x, beta)


class StaticFlat(nn.Module):  # 15, for (N, C)
    def __init__(self, c: int, *shape: int) -> None:
        super().__init__()
        self.p1 = nn.Parameter(torch.randn(shape or (1, c)))
        self.p2 = nn.Parameter(torch.randn(shape or (1, c)))
        self.beta = nn.Parameter(torch.randn(shape or (1, c)))

    def forward(self, x: Tensor) -> Tensor:
        d = (self.p1 - self.p2) * x
        return d * torch.sigmoid(self.beta * d) + self.p2 * x


class PlainGate(Slopes):  # 16
    def __init__(self, c: int) -> None:
        super().__init__(1, c, 1, 1)
        self.beta = nn.Parameter(torch.randn(1, c, 1, 1) + 1)

    def forward(self, x: Tensor) -> Tensor:
        self.truth = self.beta.detach()
        return (self.p1 * x - self.p2 * x) * torch.sigmoid(self.beta * x) + self.p2 * x


class FunnelAcon(nn.Module):  # 17
    def __init__(self, c: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv_frelu = nn.Conv2d(c, c, 3, stride, 1, groups=c)
        self.bn1, self.bn2 = nn.BatchNorm2d(c), nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        x2 = self.bn1(self.conv_frelu(x))
        x1 = x if self.stride == 1 else F.max_pool2d(x, 3, 2, 1)
        out: Tensor = self.bn2((x1 - x2) * torch.sigmoid(x1 - x2) + x2)
        return out


class HardSigmoidBeta(Official):
    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return self.use(x, F.hardsigmoid(self.bn2(self.fc2(self.bn1(self.fc1(pooled))))))


class SoftplusBeta(Detector):
    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, F.softplus(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))))


class Functional(Slopes):
    """No inner module at all: weights are plain parameters."""

    def __init__(self, c: int, end: Callable[[Tensor], Tensor] = torch.sigmoid) -> None:
        super().__init__(1, c, 1, 1)
        self.w1 = nn.Parameter(torch.randn(4, c))
        self.w2 = nn.Parameter(torch.randn(c, 4))
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        logit = F.linear(F.linear(x.mean((2, 3)), self.w1), self.w2)
        return self.use(x, self.end(logit)[:, :, None, None])


class Hidden(Slopes):
    """β never exists as a tensor: only the gate's argument does."""

    def __init__(self, c: int) -> None:
        super().__init__(1, c, 1, 1)
        self.w = nn.Parameter(torch.randn(c, c))

    def forward(self, x: Tensor) -> Tensor:
        d = (self.p1 - self.p2) * x
        z = torch.einsum("nd,dc,nchw->nchw", x.mean((2, 3)), self.w, d)
        with torch._C.DisableTorchFunction():  # no reader may find β here
            self.truth = (x.mean((2, 3)) @ self.w).detach()[:, :, None, None]
        return d * torch.sigmoid(z) + self.p2 * x


@dataclass(frozen=True)
class Variant:
    """A variant with the input it takes and what should be read."""

    name: str
    make: Callable[[int], nn.Module]
    inputs: tuple[str, ...] = ("map",)
    granularity: str = "channel"
    kind: str = "meta_acon"


VARIANTS = [
    Variant("1 official", Official),
    Variant("2 one sigmoid twice", OneSigmoidTwice),
    Variant("2 one sigmoid twice, no norm", lambda c: OneSigmoidTwice(c, norm=False)),
    Variant("3 detector", Detector),
    Variant("4 signal", Signal, ("signal",)),
    Variant("5 speech", Speech, ("tokens",)),
    Variant("6 linear, channels last", TokenLinear, ("tokens",)),
    Variant("7 one sequential", OneSequential),
    Variant("8 ReLU between", ReluBetween),
    Variant("8 functional ReLU between", lambda c: ReluBetween(c, functional=True)),
    Variant("9 named ACONC", ACONC),
    Variant("10 dead norm", DeadNorm),
    Variant("11 dead sigmoid", DeadSigmoid),
    Variant("12 extra head", ExtraHead, ("map", "map")),
    Variant("13 spatial parent", SpatialParent, ("map", "map"), "pixel"),
    Variant("14 layer-wise, mean", LayerWise, granularity="layer"),
    Variant("14 layer-wise, sum", lambda c: LayerWise(c, "sum"), granularity="layer"),
    Variant("14 pixel-wise", PixelWise, granularity="pixel"),
    Variant("15 static", Static, granularity="static", kind="acon"),
    Variant("15 static (1, C)", lambda c: Static(c, 1, c), granularity="static", kind="acon"),
    Variant("15 static (C,)", lambda c: Static(c, c), granularity="static", kind="acon"),
    Variant("15 static (1, 1)", lambda c: Static(c, 1, 1), granularity="static", kind="acon"),
    Variant("hard-sigmoid β", HardSigmoidBeta),
    Variant("softplus β", SoftplusBeta),
    Variant("functional", Functional),
    Variant("functional softplus", lambda c: Functional(c, F.softplus)),
    Variant("functional, sigmoid by hand", lambda c: Functional(c, lambda z: 1 / (1 + (-z).exp()))),
    Variant("hidden", Hidden),
]


def tensor(kind: str, n: int, c: int, size: int = 6) -> Tensor:
    """Return an input: "map" (N, C, H, W), "signal" (N, C, L), "tokens" (N, T, C), "flat"."""
    shape = {
        "map": (n, c, size, size - 1),
        "signal": (n, c, 2 * size),
        "tokens": (n, size, c),
        "flat": (n, c),
    }[kind]
    return 2 * torch.randn(shape)


def shaken(module: nn.Module) -> Any:
    """Give every normalisation statistics and weights as after a training; evaluation mode."""
    for inner in module.modules():
        if isinstance(inner, nn.modules.batchnorm._BatchNorm):
            mean, var = inner.running_mean, inner.running_var
            assert mean is not None
            assert var is not None
            nn.init.normal_(mean)
            nn.init.uniform_(var, 0.5, 2)
            nn.init.normal_(inner.weight, 1, 0.3)
            nn.init.normal_(inner.bias, 0, 0.5)
    return module.eval()


def network(variant: Variant, c: int = 8) -> Any:
    """Return a variant inside a small model that hands all its inputs on."""
    return shaken(Outer(variant.make(c)))


class Outer(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        out: Tensor = self.act(1.5 * x, *others)
        return out


class Net(nn.Module):
    """A small network with two layers; it fails on demand."""

    def __init__(self, c: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, c, 3)
        self.acts = nn.ModuleList([Detector(c), Detector(c)])
        self.norm = nn.BatchNorm2d(c)

    def forward(self, x: Tensor, fail: BaseException | None = None) -> Tensor:
        x = self.acts[0](self.stem(x))
        if fail is not None:
            raise fail
        out: Tensor = self.acts[1](self.norm(x))
        return out


def hooks_left(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
