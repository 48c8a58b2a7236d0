"""Linearity of a recording, without files: the numbers of a capture of the same batches."""

# mypy: disable-error-code="no-any-return"

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.data.sources import digits
from acon_analysis.errors import UsageError
from acon_hooks.errors import HookError, RowWarning
from acon_hooks.moments.accumulating import UnmeasuredLayerWarning

ALL = ("acon", "meta_acon", "activation", "product")


class Words(nn.Module):
    """Functions, a gated product, an activation of rows that are no samples, one in place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.up, self.gate, self.down = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4)
        self.act, self.rows, self.last = nn.SiLU(), nn.GELU(), nn.ReLU(inplace=True)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        h = self.down(self.up(x) * self.act(self.gate(x)))
        h = self.rows(h.flatten(0, 1)).view_as(h)
        return self.last(torch.tanh(h) + x)


def digit_batches(count: int = 90) -> list[Tensor]:
    test = digits("test")
    whole = torch.stack([test[index] for index in range(count)])
    return [whole[start : start + 32] for start in range(0, count, 32)]


def word_batches() -> list[Tensor]:
    return [torch.randn(n, 5, 4, generator=torch.Generator().manual_seed(n)) for n in (9, 9, 4)]


def recorded(model: nn.Module, batches: list[Tensor], **options: Any) -> Any:
    with torch.no_grad(), acon.record(model, **options) as recording:
        for batch in batches:
            model(batch)
    return recording


def same(found: pd.DataFrame, expected: pd.DataFrame, rtol: float = 1e-9) -> None:
    """Compare all columns, but the words, where values are rounded otherwise."""
    words = [] if rtol < 1e-6 else ["why"]
    pd.testing.assert_frame_equal(
        found.drop(columns=words, errors="ignore"), expected.drop(columns=words, errors="ignore"),
        rtol=rtol, atol=1e-3 * rtol,
    )  # fmt: skip


@pytest.mark.parametrize("kinds", [("acon", "meta_acon"), ALL])
def test_the_digits_as_captured(kinds: tuple[str, ...], tmp_path: Path) -> None:
    model, batches = acon.build_model("digits_metaacon"), digit_batches()
    run = acon.capture(model, batches, tmp_path / "run", kinds=kinds, progress=False)
    recording = recorded(model, batches, kinds=kinds)
    for by in ("layer", "channel", "sample"):  # a capture convolves channels last
        same(
            recording.linearity(by=by, columns="all"),
            run.linearity(by=by, columns="all"),
            rtol=1e-4,
        )
        found, expected = (each.linearity(by=by)["L"] for each in (recording, run))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert recording.samples == 90
    assert len(recording.betas()) == len(run.betas())


@pytest.mark.filterwarnings("ignore::acon_hooks.errors.RowWarning")
@pytest.mark.filterwarnings(
    "ignore::acon_hooks.moments.accumulating.UnmeasuredLayerWarning",
    "ignore:left out. rows of layer:UserWarning",
)
def test_functions_products_and_rows_as_captured(tmp_path: Path) -> None:
    model, batches = Words(), word_batches()
    batches[0][2, 1, 1] = torch.nan
    run = acon.capture(model, batches, tmp_path / "run", kinds=ALL, progress=False)
    recording = recorded(model, batches, kinds=ALL)
    for by in ("layer", "channel", "sample"):
        same(recording.linearity(by=by, columns="all"), run.linearity(by=by, columns="all"))
    assert set(recording.linearity(by="sample")["layer"]) < set(recording.linearity()["layer"])


def test_what_has_no_rows_of_samples_is_named_when_it_is_asked_for() -> None:
    with pytest.warns(RowWarning, match="'rows' belong to other samples"):
        recording = recorded(Words(), word_batches(), kinds=["activation"])
    with pytest.warns(UnmeasuredLayerWarning, match="no values by sample of layer 'rows'"):
        recording.linearity()


def test_it_may_be_asked_in_between_and_goes_on() -> None:
    model, batches = nn.Sequential(nn.Linear(4, 3), nn.GELU()).eval(), word_batches()
    with torch.no_grad(), acon.record(model, kinds=["activation"]) as recording:
        for number, batch in enumerate(batches):
            model(batch)
            own = model[0](torch.cat(batches[: number + 1])).double().reshape(-1, 3).numpy()
            y = torch.nn.functional.gelu(torch.tensor(own)).numpy()
            want = [np.corrcoef(own[:, c], y[:, c])[0, 1] ** 2 for c in range(3)]
            np.testing.assert_allclose(recording.linearity(by="channel")["L"], want, atol=1e-6)
            np.testing.assert_allclose(recording.linearity(by="channel")["L"], want, atol=1e-6)
    assert recording.linearity(by="sample")["sample"].tolist() == list(range(22))


class Failing(nn.Module):
    """β of Meta-ACON, an activation and one in place; fails between them where it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.meta = nn.Conv2d(3, 16, 3), acon.layers.MetaAconC(16)
        self.second, self.relu = nn.Conv2d(16, 8, 3), nn.ReLU(inplace=True)
        self.third, self.silu = nn.Conv2d(8, 8, 1), nn.SiLU()
        self.fails = ""
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        parts = (self.first, self.meta, self.second, self.relu, self.third, self.silu)
        for part in parts:
            x = part(x)
            if part is getattr(self, self.fails, None):
                raise ValueError(self.fails)
        return x


@pytest.mark.parametrize("fails", ["meta", "relu", "silu"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_forward_passes_that_failed_do_not_count(fails: str, at: int) -> None:
    batches = [torch.randn(4, 3, 9, 8, generator=torch.Generator().manual_seed(n)) for n in (1, 2)]
    model = Failing()
    expected = recorded(model, batches, kinds=ALL)
    with torch.no_grad(), acon.record(model, kinds=ALL) as recording:
        for index in range(3):
            if index == at:
                model.fails = fails
                with pytest.raises(ValueError, match=fails):
                    model(torch.full((4, 3, 9, 8), 7.0))
                model.fails = ""
            if index < 2:
                model(batches[index])
    for by in ("layer", "channel", "sample"):
        own, other = (r.linearity(by, columns="all") for r in (recording, expected))
        pd.testing.assert_frame_equal(own, other, rtol=0, atol=0)
    pd.testing.assert_frame_equal(recording.betas(), expected.betas(), rtol=0, atol=0)


def test_a_batch_without_samples_adds_nothing() -> None:
    batches = [torch.randn(4, 3, 9, 8, generator=torch.Generator().manual_seed(n)) for n in (1, 2)]
    model = Failing()
    found = recorded(model, [batches[0], batches[0][:0], batches[1]], kinds=ALL)
    expected = recorded(model, batches, kinds=ALL).linearity("channel", columns="all")
    assert found.samples == 8
    pd.testing.assert_frame_equal(
        found.linearity("channel", columns="all"), expected, rtol=0, atol=0
    )


def test_refusals() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.GELU()).eval()
    with acon.record(model, kinds=["activation"]) as recording:
        pass
    with pytest.raises(HookError, match="nothing was recorded"):
        recording.linearity()
    recording = recorded(model, word_batches(), kinds=["activation"], moments=False)
    with pytest.raises(UsageError, match=r"needs record.*moments=True"):
        recording.linearity()
    with pytest.raises(UsageError, match=r"linearity by 'chanel'.*channel"):
        recorded(model, word_batches(), kinds=["activation"]).linearity(by="chanel")


def test_rows_that_change_break_linearity_and_not_the_forward_pass() -> None:
    class Exits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.GELU(), nn.GELU()
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x)[x[:, 0] > 0])

    whole = torch.rand(4, 3) + 0.1
    some = whole * torch.tensor([1.0, -1.0, 1.0, 1.0])[:, None]
    recording = recorded(Exits(), [whole, some], kinds=["activation"])
    with pytest.raises(HookError, match="'two' saw 3 rows for a batch of 4"):
        recording.linearity()


def test_a_recording_prints_what_it_holds() -> None:
    recording = recorded(acon.build_model("digits_metaacon"), digit_batches())
    assert repr(recording).startswith("Recording of BottleneckResNet: 6 layers, 90 samples; see ")
