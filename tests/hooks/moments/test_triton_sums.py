"""The Triton kernel: on a device if there is one, and by Triton's interpreter on the CPU."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import forks
from acon_analysis.errors import StoreError, UsageError
from acon_hooks.moments.native import sums as native_module
from acon_hooks.moments.native.build import NativeError
from acon_hooks.moments.native.sums import NativeSums
from acon_hooks.moments.options import MomentOptions, settle
from acon_hooks.moments.triton_sums import TritonSums, triton_sums
from triton_oracle import captured, differences, interpreted, require_small

CPU = torch.device("cpu")


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_by_the_interpreter(tmp_path: Path) -> None:
    done = forks.run(interpreted, tmp_path, env={**os.environ, "TRITON_INTERPRET": "1"})
    assert done.returncode == 0, done.stderr
    require_small(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device(tmp_path: Path) -> None:
    device = torch.device("cuda")
    require_small(differences(device) | captured(tmp_path, device))
    assert settle(MomentOptions(), device)[0].kernel == "triton"


def test_sums_that_are_no_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*given: Any) -> Tensor:
        _, x, _, _, _, constants = given
        return torch.full((constants.rows, *x.shape[:2]), torch.nan, dtype=torch.float64)

    for kind in (TritonSums, NativeSums):
        monkeypatch.setattr(kind, "sums", nothing)
    monkeypatch.setattr(native_module, "_kept", {})
    with pytest.raises(NativeError, match="kernel sums otherwise than torch does on cpu"):
        triton_sums(CPU)
    assert settle(MomentOptions(), CPU)[1] in (
        "the compiled kernel sums otherwise than torch does",
        "there is no C++ compiler (CXX, c++, g++ or clang++)",
    )


def test_where_it_does_not_run_torch_sums() -> None:
    """On the CPU without the interpreter, and on devices that are not there."""
    lost = torch.device("cuda:99")
    options, reason = settle(MomentOptions(), lost)
    assert options.kernel == "eager"
    assert reason.startswith("Triton's kernel does not run on cuda:99: ")
    with pytest.raises(UsageError, match="the triton kernel of moments cannot be had: Triton's"):
        settle(MomentOptions(kernel="triton"), CPU)
    with pytest.raises(StoreError, match="begun with the triton kernel of moments, which cannot"):
        settle(MomentOptions(), CPU, {"kernel": "triton"})
    with pytest.raises(UsageError, match="compiled kernel of moments cannot be had: the network"):
        settle(MomentOptions(kernel="compiled"), lost)
    masked, reason = settle(MomentOptions(), lost, masked=True)
    assert masked.kernel == "eager"
    assert "padded positions" in reason
