"""Third-party Meta-ACON layers, written without looking at the readers.

`Case.beta` says every formula once more, apart from the layer's forward.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from networks import Network

C = 6
IMAGE, GRID, TOKENS, VECTOR = (C, 5, 4), (5, 4, C), (7, C), (C,)
NO_READING = "no reading of β explains the output"

Run = Callable[[Any, Tensor], Tensor]


def layer(run: Run, *shape: int, **parts: nn.Module | tuple[int, ...]) -> Network:
    """Return a layer with p1 and p2 of a shape, and modules, or weights of the shapes given."""
    made = Network(run)
    made.p1, made.p2 = (nn.Parameter(torch.randn(shape)) for _ in range(2))
    for name, part in parts.items():
        own = part if isinstance(part, nn.Module) else nn.Parameter(torch.randn(part))
        setattr(made, name, own)
        if isinstance(own, nn.Conv2d | nn.Linear):
            nn.init.normal_(own.weight)
    return made


def image(run: Run, **parts: Callable[[], nn.Module]) -> Callable[[], Network]:
    """Make a layer with two 1x1 convolutions, as most have, and other parts."""
    return lambda: layer(
        run, 1, C, 1, 1, squeeze=nn.Conv2d(C, 4, 1), excite=nn.Conv2d(4, C, 1),
        **{name: part() for name, part in parts.items()},
    )  # fmt: skip


def logits(m: Any, x: Tensor) -> Tensor:
    out: Tensor = m.excite(m.squeeze(x.mean((2, 3), keepdim=True)))
    return out


def sigmoid(m: Any, x: Tensor) -> Tensor:
    return torch.sigmoid(logits(m, x))


def lines(m: Any, x: Tensor) -> Tensor:
    d: Tensor = (m.p1 - m.p2) * x
    return d


def mix(m: Any, x: Tensor, beta: Tensor) -> Tensor:
    out: Tensor = lines(m, x) * torch.sigmoid(beta * lines(m, x)) + m.p2 * x
    return out


def functional_tokens(m: Any, x: Tensor) -> Tensor:
    hidden = F.relu(F.linear(x.mean(1), m.w1, m.b1))
    beta = torch.sigmoid(F.linear(hidden, m.w2, m.b2)).unsqueeze(1)
    d = (m.p1 - m.p2) * x
    out: Tensor = torch.sigmoid(beta * d) * d + x * m.p2
    return out


def einsum_grid(m: Any, x: Tensor) -> Tensor:
    """Channels last, (N, H, W, C), heads with einsum."""
    heads = x.reshape(*x.shape[:-1], 2, 3).mean((1, 2))
    beta = torch.einsum("nhc,hcgd->ngd", heads, m.mixing).flatten(1).sigmoid()
    d = torch.einsum("nhwc,c->nhwc", x, m.p1 - m.p2)
    out: Tensor = d * torch.einsum("nc,nhwc->nhwc", beta, d).sigmoid() + x * m.p2
    return out


def two_sigmoids(m: Any, x: Tensor) -> Tensor:
    """The mean of two sigmoids: neither of them is β."""
    top = torch.sigmoid(m.excite(m.squeeze(x.amax((2, 3), keepdim=True))))
    return mix(m, x, 0.5 * (top + sigmoid(m, x)))


def chunked_channels(m: Any, x: Tensor) -> Tensor:
    """The activation in two halves of the channels."""
    d, beta = lines(m, x), sigmoid(m, x)
    halves = zip(d.chunk(2, 1), beta.chunk(2, 1), strict=True)
    out: Tensor = torch.cat([h * torch.sigmoid(b * h) for h, b in halves], 1) + m.p2 * x
    return out


def tanh_gate(m: Any, x: Tensor) -> Tensor:
    """No sigmoid: the gate by tanh."""
    beta, d = 0.5 + 0.5 * torch.tanh(0.5 * logits(m, x)), lines(m, x)
    out: Tensor = d * (0.5 + 0.5 * torch.tanh(0.5 * beta * d)) + m.p2 * x
    return out


def softmax_gate(m: Any, x: Tensor) -> Tensor:
    """The smooth maximum of two lines, as in the definition."""
    both = torch.stack([m.p1 * x, m.p2 * x])
    return (both * torch.softmax(sigmoid(m, x) * both, 0)).sum(0)


def positive_slopes(m: Any, x: Tensor) -> Tensor:
    """Another function of p1 and p2: softplus keeps both slopes positive."""
    p1, p2 = F.softplus(m.p1), F.softplus(m.p2)
    d = (p1 - p2) * x
    return d * torch.sigmoid(sigmoid(m, x) * d) + p2 * x


def log_sum_exp(m: Any, x: Tensor) -> Tensor:
    """Another smooth maximum, which is no ACON."""
    beta = sigmoid(m, x)
    return torch.logaddexp(beta * m.p1 * x, beta * m.p2 * x) / beta


def looped(m: Any, x: Tensor) -> Tensor:
    """A loop over the samples: no tensor inside holds β of all of them."""
    return torch.cat([mix(m, row, sigmoid(m, row)) for row in torch.split(x, 1)])


def mapped(m: Any, x: Tensor) -> Tensor:
    out: Tensor = torch.func.vmap(lambda row: mix(m, row[None], sigmoid(m, row[None]))[0])(x)
    return out


def overwritten(m: Any, x: Tensor) -> Tensor:
    """In place throughout, and the memory of β is used again."""
    beta, d = logits(m, x).sigmoid_(), lines(m, x)
    out = (beta * d).sigmoid_().mul_(d).add_(m.p2 * x)
    beta.zero_()
    return out


def rows(m: Any, x: Tensor) -> Tensor:
    """One β for each row of the picture: no granularity that there is a word for."""
    return mix(m, x, torch.sigmoid(m.excite(m.squeeze(x.mean(3, keepdim=True)))))


def tokens() -> Network:
    return layer(functional_tokens, C, w1=(4, C), b1=(4,), w2=(C, 4), b2=(C,))


def vectors() -> Network:
    return layer(
        lambda m, x: mix(m, x, torch.sigmoid(F.linear(F.linear(x, m.w1), m.w2))),
        1, C, w1=(4, C), w2=(C, 4),
    )  # fmt: skip


def time_first() -> Network:
    made = tokens()
    made.run = lambda m, x: functional_tokens(m, x.transpose(0, 1)).transpose(0, 1)
    return made


def groups() -> Network:
    """One β for every three channels."""

    def run(m: Any, x: Tensor) -> Tensor:
        beta = torch.sigmoid(m.fc(x.mean((2, 3)))).repeat_interleave(3, 1)
        return mix(m, x, beta[:, :, None, None])

    return layer(run, 1, C, 1, 1, fc=nn.Linear(C, C // 3))


def weight_normed() -> Network:
    made = image(lambda m, x: mix(m, x, logits(m, x).sigmoid()))()
    made.squeeze, made.excite = weight_norm(made.squeeze), weight_norm(made.excite)
    return made


def temperature() -> Network:
    """σ(t z) with one learned t for each channel."""
    made = image(lambda m, x: mix(m, x, torch.sigmoid(m.t * logits(m, x))))()
    made.t = nn.Parameter(torch.rand(1, C, 1, 1) + 0.5)
    return made


def expit(z: Tensor) -> Tensor:
    return 1 / (1 + (-z).exp())


def plain_logits(m: Any, x: Tensor) -> Tensor:
    """Logits of `image`, (N, C), by plain matrix products."""
    hidden = x.mean((2, 3)) @ m.squeeze.weight.flatten(1).T + m.squeeze.bias
    out: Tensor = hidden @ m.excite.weight.flatten(1).T + m.excite.bias
    return out


def plain(m: Any, x: Tensor) -> Tensor:
    return expit(plain_logits(m, x))


def of_maximum(m: Any, x: Tensor) -> Tensor:
    return plain_logits(m, x.amax((2, 3), keepdim=True))


def tokens_beta(m: Any, x: Tensor) -> Tensor:
    hidden = (x.mean(1) @ m.w1.T + m.b1).clamp(min=0)
    return expit(hidden @ m.w2.T + m.b2)


def rows_beta(m: Any, x: Tensor) -> Tensor:
    each = x.mean(3).transpose(1, 2)[..., None, None]
    return torch.stack([plain(m, row) for row in each.unbind(1)], 1).mean(1)


@dataclass(frozen=True)
class Case:
    """How a layer is made, β (N, C) of it, and the beginning of what is said if it is refused."""

    make: Callable[[], nn.Module]
    beta: Run = plain
    refused: str = ""
    shape: tuple[int, ...] = IMAGE


CASES = {
    "hard sigmoid": Case(
        image(lambda m, x: mix(m, x, F.hardsigmoid(logits(m, x)))),
        lambda m, x: ((plain_logits(m, x) + 3) / 6).clamp(0, 1),
    ),
    "hard sigmoid, a module": Case(
        image(lambda m, x: mix(m, x, m.act(logits(m, x))), act=nn.Hardsigmoid),
        lambda m, x: ((plain_logits(m, x) + 3) / 6).clamp(0, 1),
    ),
    "softplus": Case(
        image(lambda m, x: mix(m, x, F.softplus(logits(m, x)))),
        lambda m, x: plain_logits(m, x).exp().log1p(),
    ),
    "softplus, a module": Case(
        image(lambda m, x: mix(m, x, m.act(logits(m, x))), act=lambda: nn.Softplus(beta=2.0)),
        lambda m, x: torch.log1p((2 * plain_logits(m, x)).exp()) / 2,
    ),
    "tokens, functional": Case(tokens, tokens_beta, shape=TOKENS),
    "vectors, functional": Case(vectors, lambda m, x: expit(x @ (m.w2 @ m.w1).T), shape=VECTOR),
    "two pools": Case(  # max and mean, both through the shared network (as in CBAM)
        image(lambda m, x: mix(m, x, torch.sigmoid(
            m.excite(m.squeeze(F.adaptive_max_pool2d(x, 1))) + logits(m, x)
        ))),
        lambda m, x: expit(of_maximum(m, x) + plain_logits(m, x)),
    ),
    "two sigmoids": Case(
        image(two_sigmoids), lambda m, x: (expit(of_maximum(m, x)) + plain(m, x)) / 2
    ),
    "einsum": Case(
        lambda: layer(einsum_grid, C, mixing=(2, 3, 2, 3)),
        lambda m, x: expit(x.mean((1, 2)) @ m.mixing.reshape(C, C)),
        shape=GRID,
    ),
    "β in chunks": Case(
        image(lambda m, x: mix(m, x, torch.cat([sigmoid(m, part) for part in torch.split(x, 2)])))
    ),
    "everything in chunks": Case(
        image(lambda m, x: torch.cat([mix(m, p, sigmoid(m, p)) for p in torch.split(x, 2)])),
        refused=NO_READING,
    ),
    "channels in chunks": Case(image(chunked_channels)),
    "weight normalisation": Case(weight_normed),
    "temperature": Case(temperature, lambda m, x: expit(m.t.flatten() * plain_logits(m, x))),
    "temperature in the gate": Case(  # what the identity calls β is 3 σ(z)
        image(lambda m, x: lines(m, x) * torch.sigmoid(3.0 * sigmoid(m, x) * lines(m, x))
              + m.p2 * x),
        lambda m, x: 3 * plain(m, x),
    ),
    "clamped": Case(  # a floor and a ceiling that only some batches reach
        image(lambda m, x: mix(m, x, sigmoid(m, x).clamp(0.2, 0.8))),
        lambda m, x: plain(m, x).clamp(0.2, 0.8),
    ),
    "tanh": Case(image(tanh_gate)),
    "softmax": Case(image(softmax_gate)),
    "silu": Case(
        image(lambda m, x: F.silu(sigmoid(m, x) * lines(m, x)) / sigmoid(m, x) + m.p2 * x)
    ),
    "lerp": Case(
        image(lambda m, x: torch.lerp(
            m.p2 * x, m.p1 * x, torch.sigmoid(sigmoid(m, x) * (m.p1 - m.p2) * x)
        ))
    ),
    "groups": Case(
        groups,
        lambda m, x: expit(x.mean((2, 3)) @ m.fc.weight.T + m.fc.bias).repeat_interleave(3, 1),
    ),
    "mean of the batch": Case(  # a mistake seen often: the mean runs over the samples too
        image(lambda m, x: mix(m, x, sigmoid(m, x.mean(0, keepdim=True)))),
        refused="differs between",
    ),
    "signed": Case(
        image(lambda m, x: mix(m, x, torch.tanh(logits(m, x)))),
        lambda m, x: torch.tanh(plain_logits(m, x)),
    ),
    "residual": Case(image(lambda m, x: x + mix(m, x, sigmoid(m, x))), refused=NO_READING),
    "positive slopes": Case(image(positive_slopes), refused=NO_READING),
    "log sum exp": Case(image(log_sum_exp), refused=NO_READING),
    "loop": Case(image(looped), refused=NO_READING),
    "vmap": Case(image(mapped), refused=NO_READING),
    "overwritten": Case(image(overwritten)),
    "rows": Case(image(rows), rows_beta, NO_READING),
    "time first": Case(time_first, tokens_beta, NO_READING, TOKENS),
    "token gate": Case(  # one β for each token, (N, T, 1)
        lambda: layer(lambda m, x: mix(m, x, torch.sigmoid(m.fc(x))), C, fc=nn.Linear(C, 1)),
        lambda m, x: expit(x @ m.fc.weight.T + m.fc.bias).mean(1),
        shape=TOKENS,
    ),
}  # fmt: skip
