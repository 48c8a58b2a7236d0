"""Third-party Meta-ACON layers, written without looking at the readers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

C = 6


def slopes(*shape: int) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.randn(shape)), nn.Parameter(torch.randn(shape))


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


class Images(nn.Module):
    """p1, p2 and two 1x1 convolutions on the mean: what most of the layers below start from."""

    def __init__(self) -> None:
        super().__init__()
        self.p1, self.p2 = slopes(1, C, 1, 1)
        self.squeeze = nn.Conv2d(C, 4, 1)
        self.excite = nn.Conv2d(4, C, 1)
        nn.init.normal_(self.squeeze.weight)
        nn.init.normal_(self.excite.weight)

    def logits(self, x: Tensor) -> Tensor:
        out: Tensor = self.excite(self.squeeze(x.mean((2, 3), keepdim=True)))
        return out

    def mix(self, x: Tensor, beta: Tensor) -> Tensor:
        d = (self.p1 - self.p2) * x
        return d * torch.sigmoid(beta * d) + self.p2 * x


class HardSigmoid(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, F.hardsigmoid(self.logits(x)))


class HardSigmoidModule(Images):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, self.act(self.logits(x)))


class Softplus(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, F.softplus(self.logits(x)))


class SoftplusModule(Images):
    def __init__(self) -> None:
        super().__init__()
        self.positive = nn.Softplus(beta=2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, self.positive(self.logits(x)))


class FunctionalTokens(nn.Module):
    """No submodule at all; (N, T, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.p1, self.p2 = slopes(C)
        self.w1, self.b1 = weight(4, C), weight(4)
        self.w2, self.b2 = weight(C, 4), weight(C)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(F.linear(x.mean(1), self.w1, self.b1))
        beta = torch.sigmoid(F.linear(hidden, self.w2, self.b2)).unsqueeze(1)
        d = (self.p1 - self.p2) * x
        return torch.sigmoid(beta * d) * d + x * self.p2


class FunctionalVectors(nn.Module):
    """A functional layer of a multilayer perceptron, (N, C): β depends on the vector itself."""

    def __init__(self) -> None:
        super().__init__()
        self.p1, self.p2 = slopes(1, C)
        self.w1, self.w2 = weight(4, C), weight(C, 4)

    def forward(self, x: Tensor) -> Tensor:
        beta = torch.sigmoid(F.linear(F.linear(x, self.w1), self.w2))
        d = (self.p1 - self.p2) * x
        return d * torch.sigmoid(beta * d) + self.p2 * x


class TwoPools(Images):
    """Max and mean, both through the shared network (as in CBAM)."""

    def forward(self, x: Tensor) -> Tensor:
        top = self.excite(self.squeeze(F.adaptive_max_pool2d(x, 1)))
        mean = self.excite(self.squeeze(F.adaptive_avg_pool2d(x, 1)))
        return self.mix(x, torch.sigmoid(top + mean))


class TwoSigmoids(Images):
    """The mean of two sigmoids: neither of them is β."""

    def forward(self, x: Tensor) -> Tensor:
        top = torch.sigmoid(self.excite(self.squeeze(x.amax((2, 3), keepdim=True))))
        mean = torch.sigmoid(self.logits(x))
        return self.mix(x, 0.5 * (top + mean))


class EinsumGrid(nn.Module):
    """Channels last, (N, H, W, C), heads with einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.p1, self.p2 = slopes(C)
        self.mixing = weight(2, 3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        heads = x.reshape(*x.shape[:-1], 2, 3).mean((1, 2))
        beta = torch.einsum("nhc,hcgd->ngd", heads, self.mixing).flatten(1).sigmoid()
        d = torch.einsum("nhwc,c->nhwc", x, self.p1 - self.p2)
        gate = torch.einsum("nc,nhwc->nhwc", beta, d).sigmoid()
        return d * gate + x * self.p2


class ChunkedBeta(Images):
    """β in chunks of the batch, the activation at once."""

    def forward(self, x: Tensor) -> Tensor:
        parts = [torch.sigmoid(self.logits(part)) for part in torch.split(x, 2)]
        return self.mix(x, torch.cat(parts))


class ChunkedLayer(Images):
    """Everything in chunks of the batch, to save memory."""

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.mix(part, torch.sigmoid(self.logits(part))) for part in torch.split(x, 2)]
        return torch.cat(parts)


class ChunkedChannels(Images):
    """The activation in two halves of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        beta = torch.sigmoid(self.logits(x))
        d = (self.p1 - self.p2) * x
        halves = zip(d.chunk(2, 1), beta.chunk(2, 1), strict=True)
        gated = [half * torch.sigmoid(b * half) for half, b in halves]
        return torch.cat(gated, 1) + self.p2 * x


class WeightNorm(Images):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze = weight_norm(self.squeeze)
        self.excite = weight_norm(self.excite)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, self.logits(x).sigmoid())


class Temperature(Images):
    """σ(t z) with one learned t for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.rand(1, C, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, torch.sigmoid(self.t * self.logits(x)))


class SharpGate(Images):
    """The temperature stands in the gate: what the identity calls β is 3 σ(z)."""

    def forward(self, x: Tensor) -> Tensor:
        d = (self.p1 - self.p2) * x
        beta = torch.sigmoid(self.logits(x))
        return d * torch.sigmoid(3.0 * beta * d) + self.p2 * x


class Clamped(Images):
    """A floor and a ceiling that only some batches reach."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, torch.sigmoid(self.logits(x)).clamp(0.2, 0.8))


class TanhGate(Images):
    """No sigmoid: the gate by tanh."""

    def forward(self, x: Tensor) -> Tensor:
        beta = 0.5 + 0.5 * torch.tanh(0.5 * self.logits(x))
        d = (self.p1 - self.p2) * x
        return d * (0.5 + 0.5 * torch.tanh(0.5 * beta * d)) + self.p2 * x


class SoftmaxGate(Images):
    """The smooth maximum of two lines, as in the definition."""

    def forward(self, x: Tensor) -> Tensor:
        lines = torch.stack([self.p1 * x, self.p2 * x])
        beta = torch.sigmoid(self.logits(x))
        return (lines * torch.softmax(beta * lines, 0)).sum(0)


class SiluGate(Images):
    def forward(self, x: Tensor) -> Tensor:
        beta = torch.sigmoid(self.logits(x))
        d = (self.p1 - self.p2) * x
        return F.silu(beta * d) / beta + self.p2 * x


class Lerp(Images):
    def forward(self, x: Tensor) -> Tensor:
        beta = torch.sigmoid(self.logits(x))
        gate = torch.sigmoid(beta * (self.p1 - self.p2) * x)
        return torch.lerp(self.p2 * x, self.p1 * x, gate)


class Groups(nn.Module):
    """One β for every three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.p1, self.p2 = slopes(1, C, 1, 1)
        self.fc = nn.Linear(C, C // 3)
        nn.init.normal_(self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        beta = torch.sigmoid(self.fc(x.mean((2, 3)))).repeat_interleave(3, 1)[:, :, None, None]
        d = (self.p1 - self.p2) * x
        return d * torch.sigmoid(beta * d) + self.p2 * x


class BatchMean(Images):
    """A mistake seen often: the mean runs over the samples too."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, torch.sigmoid(self.logits(x.mean(0, keepdim=True))))


class SignedBeta(Images):
    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, torch.tanh(self.logits(x)))


class Residual(Images):
    """Another function: a skip connection inside the layer."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x, torch.sigmoid(self.logits(x)))


class PositiveSlopes(Images):
    """Another function of p1 and p2: softplus keeps both slopes positive."""

    def forward(self, x: Tensor) -> Tensor:
        p1, p2 = F.softplus(self.p1), F.softplus(self.p2)
        d = (p1 - p2) * x
        return d * torch.sigmoid(torch.sigmoid(self.logits(x)) * d) + p2 * x


class LogSumExp(Images):
    """Another smooth maximum, which is no ACON."""

    def forward(self, x: Tensor) -> Tensor:
        beta = torch.sigmoid(self.logits(x))
        return torch.logaddexp(beta * self.p1 * x, beta * self.p2 * x) / beta


class Loop(Images):
    """A loop over the samples: no tensor inside holds β of all of them."""

    def forward(self, x: Tensor) -> Tensor:
        rows = [self.mix(row, torch.sigmoid(self.logits(row))) for row in torch.split(x, 1)]
        return torch.cat(rows)


class Mapped(Images):
    """The same with vmap."""

    def one(self, row: Tensor) -> Tensor:
        return self.mix(row[None], torch.sigmoid(self.logits(row[None])))[0]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.func.vmap(self.one)(x)
        return out


class Overwritten(Images):
    """In place throughout, and the memory of β is used again."""

    def forward(self, x: Tensor) -> Tensor:
        beta = self.logits(x).sigmoid_()
        d = (self.p1 - self.p2) * x
        out = (beta * d).sigmoid_().mul_(d).add_(self.p2 * x)
        beta.zero_()
        return out


class Rows(Images):
    """One β for each row of the picture: no granularity that there is a word for."""

    def forward(self, x: Tensor) -> Tensor:
        rows = self.excite(self.squeeze(x.mean(3, keepdim=True)))
        return self.mix(x, torch.sigmoid(rows))


class TimeFirst(FunctionalTokens):
    """(T, N, C): the samples are not on the first axis."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(0, 1)).transpose(0, 1)


class TokenGate(nn.Module):
    """One β for each token, (N, T, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.p1, self.p2 = slopes(C)
        self.fc = nn.Linear(C, 1)
        nn.init.normal_(self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        d = (self.p1 - self.p2) * x
        return d * torch.sigmoid(torch.sigmoid(self.fc(x)) * d) + self.p2 * x
