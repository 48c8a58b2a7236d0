"""float32 is computed as float32, and torch's precision is put back when the last user is done."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
import acon_hooks
from acon_hooks.replacement.damage import first_order_damage


def settings() -> list[str]:
    backends: Any = torch.backends
    owners = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul, backends.mkldnn.matmul)
    return [owner.fp32_precision for owner in owners]


def test_two_captures_that_overlap_leave_the_settings_as_they_were(tmp_path: Path) -> None:
    before, inside = settings(), list[list[str]]()
    entered, other, done = threading.Event(), threading.Event(), threading.Event()

    def first() -> Iterator[Tensor]:
        yield torch.randn(4, 3, 8, 8)
        entered.set()
        other.wait(20)
        yield torch.randn(4, 3, 8, 8)

    def second() -> Iterator[Tensor]:
        yield torch.randn(4, 3, 8, 8)
        other.set()
        done.wait(20)
        inside.append(settings())
        yield torch.randn(4, 3, 8, 8)

    def capture(data: Iterator[Tensor], name: str) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
        acon.capture(model, data, tmp_path / name, progress=False, kinds=("activation",))

    def one() -> None:
        capture(first(), "one")
        done.set()

    def two() -> None:
        entered.wait(20)
        capture(second(), "two")

    threads = [threading.Thread(target=target) for target in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == [["ieee"] * 4]
    assert settings() == before


class Noting(nn.Conv2d):
    """Notes the precision that convolutions of float32 are computed with."""

    seen: list[str]

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(torch.backends.cudnn.conv.fp32_precision)  # type: ignore[attr-defined]
        return super().forward(x)


def plan_of(model: nn.Module, data: list[Tensor]) -> Any:
    return acon_hooks.fit_units(model, data, limit=16).plan(budget=2)


#: What compares outputs with each other: TF32 has rounding errors as large as what is measured.
USES: dict[str, Callable[[nn.Module, list[Tensor]], Any]] = {
    "fit": plan_of,
    "verify": lambda m, x: acon_hooks.verify_plan(m, plan_of(m, x), x),
    "first order": lambda m, x: first_order_damage(m, acon_hooks.fit_units(m, x), x[0]),
    "replace": lambda m, x: acon_hooks.replace(m, x, "relu", budget=2),
    "gates": lambda m, x: acon_hooks.gate_use(m, x, recalibrate=x),
    "blocks": lambda m, x: acon_hooks.block_linearity(m, x),
    "explain": lambda m, x: acon_hooks.explain(m, x[0], "2.acon", 0, method="occlusion"),
    "conductance": lambda m, x: acon_hooks.conductance(m, x[0], layers=["2.acon"], steps=2),
}


@pytest.mark.parametrize("use", USES)
def test_what_compares_outputs_computes_without_tf32(use: str) -> None:
    torch.manual_seed(0)
    conv = Noting(1, 4, 3)
    conv.seen = []
    block = nn.Sequential()
    block.add_module("acon", acon.layers.MetaAconC(4))
    model = nn.Sequential(
        conv, nn.BatchNorm2d(4), block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    before = settings()
    USES[use](model, [torch.randn(8, 1, 8, 8) for _ in range(4)])
    assert settings() == before
    assert conv.seen[-1] == "ieee"
