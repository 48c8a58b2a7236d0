"""The proof of a reading: the layer's own output is rebuilt from its own input and the β read.

=============== ===================================================================
identity        output
=============== ===================================================================
``acon``        d·S(β·d) + p2·x with d = (p1 - p2)·x
``plain_gate``  (p1 - p2)·x·S(β·x) + p2·x, the variant without p1 - p2 inside the gate
``scale``       x·β, for gates
=============== ===================================================================

S is the sigmoid. For ACON-FReLU the two lines are maps: p1·x is x1, p2·x is x2, and β is 1.
Samples with NaN or infinity in the layer's input or output prove nothing and are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from acon_hooks.layers.scan import Layer

#: Largest accepted error by the coarsest dtype involved. Right readings of the known variants
#: reach 3e-6 in float32; a wrong one misses by more than 0.01 wherever the proof has power.
TOLERANCES = {torch.float64: 1e-11, torch.float32: 5e-6, torch.float16: 1e-2, torch.bfloat16: 6e-2}
#: A change of every β that a proof has to notice to claim power, unless rounding is coarser than
#: `FINE`. Outputs are monotone in β, so that greater changes are noticed, too.
RESOLUTION, FINE = 0.1, 1e-4
#: Elements handled at a time, so that a proof in float64 needs little memory.
_CHUNK = 1 << 21


@dataclass(frozen=True)
class ProofReport:
    """What the proof of one layer found on the first batch.

    Parameters
    ----------
    layer : str
        Name in `named_modules()`.
    call : int
        Which use of the layer within one forward pass.
    reader : str
        The reading in words.
    identity : str
        The formula that was checked; see the module's table.
    error : float
        Largest |output - formula| over all elements, relative to the scale of its channel: the
        largest |d·S(β·d)| + |p2·x| there.
    tolerance : float
        What was accepted.
    dtype : str
        The coarsest dtype of input, output and β.
    channels : int
        C.
    power : float
        Share of the channels for which exchanging the samples' β (for a static β the channels',
        or a change by a tenth where all agree to 1e-5) would have broken the tolerance, and in
        float32 and float64 adding 0.1 to every β, too.
    silent : int
        Channels where d is 0 everywhere: β cannot be identified from the output.
    status : str
        "proved" (every channel), "partly proved", "unproved" (no channel) or "failed".
    reason : str
        Why it failed; empty otherwise.
    """

    layer: str
    call: int
    reader: str
    identity: str
    error: float
    tolerance: float
    dtype: str
    channels: int
    power: float
    silent: int
    status: str
    reason: str = ""


@dataclass(frozen=True)
class Case:
    """Input and output of a layer, folded to (N, C, P), with its two lines."""

    x: Tensor
    y: Tensor
    # Slopes, (1, C, 1) or (1, 1, 1).
    p1: Tensor
    p2: Tensor
    # For ACON-FReLU the map x2, (N, C, P), instead of p2·x.
    second: Tensor | None = None

    @cached_property
    def finite(self) -> Tensor:
        """Which samples hold no NaN and no infinity, (N,)."""
        parts = [self.x, self.y] if self.second is None else [self.x, self.y, self.second]
        return torch.stack([part.isfinite().all(2).all(1) for part in parts]).all(0)

    def part(self, samples: slice | Tensor, pixels: slice) -> "Case":
        """Return the same case on some of its samples and pixels."""
        second = None if self.second is None else self.second[samples, :, pixels]
        return replace(
            self, x=self.x[samples, :, pixels], y=self.y[samples, :, pixels], second=second
        )

    def small(self) -> tuple["Case", Callable[[Tensor], Tensor]]:
        """Return a sample of the case for quick rejections, and how to cut a β alike."""
        samples, pixels = (
            self.finite.nonzero()[:8, 0],
            slice(None, None, self.x.shape[2] // 64 or 1),
        )
        return self.part(samples, pixels), lambda beta: cut(beta, samples, pixels)


def cut(beta: Tensor, samples: slice | Tensor, pixels: slice) -> Tensor:
    """Cut a folded β, (N or 1, C or 1, P or 1), to the same samples and pixels as its case."""
    beta = beta[samples] if beta.shape[0] > 1 else beta
    return beta[:, :, pixels] if beta.shape[2] > 1 else beta


@dataclass(frozen=True)
class Check:
    """Error of one formula on one case: overall, and what an exchanged β would give."""

    # Largest relative one; infinite where β is not finite, and without any finite sample.
    error: float
    # Share of channels that wrong β would have pushed over the tolerance: see `ProofReport`.
    power: float
    # Channels without any signal.
    silent: int

    @property
    def status(self) -> str:
        """The word for a proof that has passed."""
        if self.power == 0:
            return "unproved"
        return "proved" if self.power == 1 else "partly proved"

    def report(
        self,
        layer: Layer,
        call: int,
        reader: str,
        identity: str,
        accepted: tuple[float, torch.dtype],
        channels: int,
    ) -> ProofReport:
        """Return the report of a passed proof; `accepted` is what `tolerance` returns."""
        return ProofReport(
            layer=layer.name,
            call=call,
            reader=reader,
            identity=identity,
            error=self.error,
            tolerance=accepted[0],
            dtype=str(accepted[1]).removeprefix("torch."),
            channels=channels,
            power=self.power,
            silent=self.silent,
            status=self.status,
        )


def terms(identity: str, case: Case, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gated part and the line, (N, C, P), of a formula of the table or of `NEAR`."""
    x = case.x
    if identity == "scale":
        return x * beta, torch.zeros_like(x)
    line = case.p2 * x if case.second is None else case.second
    d = (case.p1 - case.p2) * x if case.second is None else x - case.second
    match identity:
        case "acon":
            return d * torch.sigmoid(beta * d), line
        case "plain_gate":
            return d * torch.sigmoid(beta * x), line
        case "hard_gate":
            return d * torch.nn.functional.hardsigmoid(beta * d), line
        case "no_line":
            return d * torch.sigmoid(beta * d), torch.zeros_like(x)
        case _:  # gated_p1
            return case.p1 * x * torch.sigmoid(beta * d), line


#: Formulas that are not ACON but come close, for the error message.
NEAR = {
    "plain_gate": "the gate S(β·x), without p1 - p2 inside",
    "hard_gate": "a hard-sigmoid gate",
    "no_line": "the second line p2·x missing",
    "gated_p1": "p1·x·S(β·d) + p2·x, without p1 - p2 in front",
}


def tolerance(*tensors: Tensor) -> tuple[float, torch.dtype]:
    """Return the accepted error and the coarsest dtype among some tensors."""
    kinds = {t.dtype for t in tensors if t.is_floating_point()}
    if any(t.device.type == "mps" for t in tensors):  # has no float64: the proof is float32's
        kinds.add(torch.float32)
    coarsest = max(kinds, key=lambda dtype: TOLERANCES.get(dtype, 0.0))
    return TOLERANCES.get(coarsest, TOLERANCES[torch.float32]), coarsest


def exchanged(beta: Tensor) -> Tensor:
    """Return another β of the same kind, for the power of a proof."""
    # Every sample takes the value of the sample that differs most from it. A channel in which all
    # samples agree takes its neighbour's value, and where that is the same too, its own changed by
    # a tenth.
    low, high = beta.amin(0, keepdim=True), beta.amax(0, keepdim=True)
    other = torch.where(beta - low > high - beta, low, high)
    for step in (beta.roll(1, 1), torch.where(beta == 0, 0.1, 1.1 * beta)):
        near = (other - beta).abs() <= 1e-5 * beta.abs()
        same = near.all(0, keepdim=True).all(2, keepdim=True)
        other = torch.where(same, step, other)
    return other


def check(identity: str, case: Case, beta: Tensor, limit: float, *, power: bool = True) -> Check:
    """Measure how well a formula with folded β rebuilds a layer's output.

    In float64 where the device has it, and in pieces. `power`: find out which channels would have
    betrayed a wrong β by more than `limit`.
    """
    if not bool(case.finite.all()):
        if not bool(case.finite.any()):
            return Check(torch.inf, 0.0, 0)
        case, beta = case.part(case.finite, slice(None)), cut(beta, case.finite, slice(None))
    real = torch.float32 if case.x.device.type == "mps" else torch.float64
    p1, p2 = case.p1.to(real), case.p2.to(real)
    n, c, p = case.x.shape
    read = beta.to(real)
    betas = [read]
    if power:
        betas.append(exchanged(read))
    if power and limit < FINE:
        betas.append(read + RESOLUTION)
    worst = torch.zeros(len(betas), c, dtype=real, device=case.x.device)
    scale = worst[0].clone()
    step = max(1, _CHUNK // max(1, c * p))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        piece = case.part(rows, slice(None))
        second = None if piece.second is None else piece.second.to(real)
        piece = Case(piece.x.to(real), piece.y.to(real), p1, p2, second)
        for row, values in enumerate(betas):
            gated, line = terms(identity, piece, cut(values, rows, slice(None)))
            gap = (gated + line - piece.y).abs().amax((0, 2))
            worst[row] = torch.maximum(worst[row], gap.nan_to_num(torch.inf, torch.inf))
            if row == 0:
                scale = torch.maximum(scale, (gated.abs() + line.abs()).amax((0, 2)))
    relative = torch.where(worst == 0, 0.0, worst / scale).cpu()
    felt = (relative[1:] > limit).all(0) if power else torch.zeros(c)
    silent = _silent(identity, case)
    error = float(relative[0].nan_to_num(torch.inf).max())
    return Check(error, float(felt.double().mean()), int(silent.sum()))


def _silent(identity: str, case: Case) -> Tensor:
    """Return, per channel, whether β has no influence at all: d is 0 everywhere."""
    if case.second is not None:
        return (case.x == case.second).all(2).all(0)
    dead = (case.x == 0).all(2).all(0)
    return dead if identity == "scale" else dead | (case.p1 == case.p2)[0, :, 0]


def failed_report(layer: Layer, call: int, reason: str) -> ProofReport:
    """Return the report of a proof that failed, with the reason in words."""
    nan = float("nan")
    return ProofReport(
        layer.name, call, "", "", nan, nan, "", layer.channels or 0, 0.0, 0, "failed", reason
    )
