"""Captures in several threads put torch's precision back when the last of them is done."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import acon_analysis as acon


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
