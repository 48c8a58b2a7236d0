"""The Triton kernel against numpy's float64, on a device or by Triton's interpreter."""

import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import acon_analysis as acon
from acon_hooks.moments.kernels import Gate, rows_of
from acon_hooks.moments.native.sums import Prepared
from acon_hooks.moments.options import MomentOptions
from acon_hooks.moments.triton_sums import triton_sums
from captures import images, tiny

Array = npt.NDArray[np.float64]

#: Shape, channel axis, whether channels lie side by side, dtype, and the mean of x.
CASES = {
    "as given": ((2, 5, 7, 7), 1, False, torch.float32, 0.5),
    "channels last": ((2, 37, 3, 5), 1, True, torch.float32, 0.5),
    "tokens": ((2, 7, 6), 2, True, torch.float32, 0.5),
    "many pixels": ((1, 2, 1100), 1, False, torch.float32, 0.5),
    "one pixel": ((2, 3, 1), 1, False, torch.float32, 0.5),
    "gaps": ((2, 4, 6, 5), 1, False, torch.float32, 0.5),
    "far": ((1, 3, 40), 1, False, torch.float32, 1e4),
    "next to nothing": ((1, 3, 40), 1, False, torch.float64, 0.0),
    "bfloat16": ((1, 3, 40), 1, False, torch.bfloat16, 0.5),
    "float64": ((1, 3, 40), 1, False, torch.float64, 0.5),
}


def made(name: str, device: torch.device) -> tuple[Tensor, Tensor, Gate]:
    """Return x, β and constants of a case."""
    shape, axis, side, dtype, mean = CASES[name]
    generator = torch.Generator().manual_seed(len(name))
    wide = (*shape[:-1], 2 * shape[-1]) if name == "gaps" else shape
    x = torch.randn(wide, generator=generator, dtype=torch.float64) + mean
    x = (x * 1e-7 if name == "next to nothing" else x).to(dtype)
    x = x[..., ::2] if name == "gaps" else x
    if side:
        x = x.movedim(axis, -1).contiguous().movedim(-1, axis)
    half, middle, reference = torch.randn(3, shape[axis], generator=generator).double()
    beta = torch.rand(shape[0], shape[axis], 1, generator=generator).to(dtype)
    x, beta, half, middle, reference = (t.to(device) for t in (x, beta, half, middle, reference))
    return x, beta, Gate(half, middle, reference)


def expected(x: Tensor, beta: Tensor, gate: Gate, axis: int) -> tuple[dict[str, Array], Array]:
    """Return the sums of `kernels.Sums` by name, and the output (N, C, P)."""
    channels = x.shape[axis]
    a: Array = x.double().movedim(axis, 1).flatten(2).cpu().numpy()
    half, middle = (t.cpu().numpy()[:, None] for t in (gate.half, gate.middle))
    assert gate.reference is not None
    z = beta.double().cpu().numpy() * half * a
    t = np.tanh(z)
    w = half * a * t
    r = half * a * np.tanh(gate.reference.cpu().numpy()[:, None] * half * a)
    about = {name: values - values.mean(2, keepdims=True) for name, values in
             {"x": a, "w": w, "t": t, "r": r}.items()}  # fmt: skip
    found = {name: values.mean(2) for name, values in {"x": a, "w": w, "t": t, "r": r}.items()}
    for name in ("xx", "ww", "xw", "tt", "rr", "xr"):
        found[name] = (about[name[0]] * about[name[1]]).sum(2)
    found |= {"low_x": a.min(2), "high_x": a.max(2), "positive": (a > 0).sum(2)}
    found |= {"low_z": z.min(2), "high_z": z.max(2)}
    assert found["x"].shape == (len(x), channels)
    return found, middle * a + w


def gap(found: Tensor, wanted: Array) -> float:
    """Return the largest difference, relative to the largest value."""
    values = found.double().cpu().numpy()
    return float(np.abs(values - wanted).max() / max(np.abs(wanted).max(), 1e-300))


def differences(device: torch.device) -> dict[str, float]:
    """Return the largest differences: of sums, and of outputs in roundings of their dtype."""
    kernel = triton_sums(device)
    worst = {}
    for name, (_, axis, *_) in CASES.items():
        x, beta, gate = made(name, device)
        wanted, output = expected(x, beta, gate, axis)
        both = kernel.activated(x, beta, axis, Prepared(gate))
        assert both is not None
        y, taken = both
        assert y.dtype == x.dtype
        eps = torch.finfo(x.dtype).eps
        worst[f"{name}: output"] = gap(y.movedim(axis, 1).flatten(2), output) / eps
        worst[f"{name}: sums"] = max(
            gap(taken[i], wanted[row]) for i, row in enumerate(rows_of(gate))
        )
        alone = kernel.sums(x, x, beta, axis, Prepared(gate))
        assert alone is not None
        worst[f"{name}: apart"] = float(not torch.equal(alone, taken))
    x, beta, gate = made("as given", device)
    x[1, 2, 3, 4] = torch.nan
    both = kernel.activated(x, beta, 1, Prepared(gate))
    assert both is not None
    lost = ~both[1].isfinite().all(0)
    worst["not finite"] = float(lost.nonzero().tolist() != [[1, 2]] or both[0].isnan().sum() != 1)
    return worst


def captured(folder: Path, device: torch.device) -> dict[str, float]:
    """Capture with Triton's kernel, fused; compare with torch's operators, as given."""
    found = {}
    for kernel, fuse in (("triton", True), ("eager", False)):
        options = MomentOptions(kernel=kernel)
        found[kernel] = acon.capture(
            tiny(), images(8), folder / kernel, moments=options, fuse=fuse, device=device,
            batch_size=4, unit_size=4, progress=False,
        )  # fmt: skip
    ours, theirs = (run.linearity(by="channel")["L"].to_numpy() for run in found.values())
    betas = [run.beta_matrix("acon2") for run in found.values()]
    identity = found["triton"].manifest["identity"]
    return {
        "L": float(np.abs(ours - theirs).max()),
        "β": float(np.abs(betas[0] - betas[1]).max()),
        "identity": float(
            identity["fuse"] != "one pass" or identity["moments"]["kernel"] != "triton"
        ),
    }


def require_small(worst: dict[str, float]) -> None:
    """Compare the differences with what is allowed."""
    assert len(worst) == 3 * len(CASES) + 1 + 3
    for name, value in worst.items():
        bound = 1e-11 if name.endswith("sums") else 4 if name.endswith("output") else 0
        assert value <= {"L": 1e-5, "β": 1e-5}.get(name, bound), (name, value)


def interpreted(folder: Path) -> None:
    """Print the largest differences as JSON; in a process where TRITON_INTERPRET is 1."""
    cpu = torch.device("cpu")
    sys.stdout.write(json.dumps(differences(cpu) | captured(folder, cpu)))
