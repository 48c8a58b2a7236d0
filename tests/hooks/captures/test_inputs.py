"""Several inputs, samples on another axis, lists of samples, and what a network refuses."""

# mypy: disable-error-code="no-any-return"

import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import acon_analysis as acon
from acon_analysis.errors import StoreError, UsageError
from acon_hooks.errors import ProofError
from captures import Items, assert_same_linearity
from network_oracle import assert_measured, captured, settled

C = 6


class TimeFirst(nn.Module):
    """A recurrent network on sequences (T, N, 3), with activations before, between and after."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.rnn = nn.Tanh(), nn.GRU(3, C)
        self.act, self.last, self.head = nn.SiLU(), nn.GELU(), nn.Linear(C, 3)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        steps, _ = self.rnn(self.before(x))
        return self.head(self.last(self.act(steps)[-1]))


def turned(_number: int, value: Tensor) -> list[Tensor]:
    """Cut (T, N, C) or (N, C) into samples."""
    return [one[None] for one in (value if value.ndim == 2 else value.movedim(1, 0))]


@pytest.mark.parametrize("steps", [5, 4])
def test_time_first_sequences(steps: int, tmp_path: Path) -> None:
    """As many steps as samples, too; and the last batch has fewer samples."""
    torch.manual_seed(2)
    model = settled(TimeFirst())
    x = [torch.randn(steps, n, 3) * torch.rand(n, 1).add(0.3) for n in (4, 4, 2)]
    run = captured(model, x, tmp_path / "run", sample_axis=1, unit_size=3)
    assert run.manifest["rows"]["status"] == "proved"
    assert len(run.samples) == 10
    axes = {"before": 2, "act": 2, "last": 1}
    assert_measured(run, model, x, axes, tolerance=1e-6, parts=turned)
    assert run.manifest["identity"]["sample_axis"] == 1
    whole = captured(model, x, tmp_path / "whole", sample_axis=1)
    hashes = [run.samples.sort_values("sample_id")["sha256"].tolist() for run in (run, whole)]
    assert hashes[0] == hashes[1]
    np.testing.assert_allclose(run.linearity()["L"], whole.linearity()["L"], atol=1e-9)
    with pytest.raises(StoreError, match="sample_axis was 1, is None"):
        captured(model, x, tmp_path / "whole")


def test_time_first_with_a_mask_and_as_a_data_set(tmp_path: Path) -> None:
    """A data set's items are (T, 3); they are stacked along the axis of the samples."""
    torch.manual_seed(2)
    model, x = settled(TimeFirst()), torch.randn(5, 6, 3)
    mask = torch.arange(5) < torch.tensor([5, 3, 1, 4, 2, 5])[:, None]
    named = [{"x": x, "m": mask.T}]
    run = captured(model, named, tmp_path / "run", sample_axis=1, mask="m")

    def parts(_number: int, value: Tensor) -> list[Tensor]:
        whole = turned(0, value)
        return whole if value.ndim == 2 else [v[:, m] for v, m in zip(whole, mask, strict=True)]

    axes = {"before": 2, "act": 2, "last": 1}
    assert_measured(run, model, [x], axes, tolerance=1e-6, parts=parts)
    items = [{"x": x[:, n], "m": mask[n]} for n in range(6)]
    items_run = acon.capture(
        model, Items(items), tmp_path / "items", sample_axis=1, mask="m", progress=False
    )
    assert_same_linearity(run, items_run)


def test_beta_of_time_first_layers_is_refused(tmp_path: Path) -> None:
    class Gated(nn.Module):
        """β of a step, not of a sample."""

        def __init__(self) -> None:
            super().__init__()
            self.p1, self.p2 = nn.Parameter(torch.randn(C)), nn.Parameter(torch.randn(C))
            self.fc = nn.Linear(C, C)

        def forward(self, x: Tensor) -> Tensor:
            d = self.p1 - self.p2
            beta = torch.sigmoid(self.fc(x.mean(1, keepdim=True)))
            return d * x * torch.sigmoid(beta * d * x) + self.p2 * x

    with pytest.raises(ProofError, match="β cannot be assigned to samples"):
        captured(Gated().eval(), [torch.randn(5, 4, C)], tmp_path / "r", sample_axis=1)


class Detector(nn.Module):
    """Takes images of different sizes, as a list, and returns what it finds in each."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.conv = nn.Hardswish(), nn.Conv2d(3, C, 3, padding=1)

    def forward(self, images: list[Tensor], targets: Any = None) -> list[dict[str, Tensor]]:
        x = torch.zeros(len(images), 3, 8, 10)
        for own, image in zip(x, images, strict=True):
            own[:, : image.shape[1], : image.shape[2]] = image
        return [{"scores": y.mean((1, 2))} for y in self.act(self.conv(x))]


def test_lists_of_images_of_different_sizes(tmp_path: Path) -> None:
    torch.manual_seed(4)
    images = [torch.randn(3, size, size + 2) for size in (5, 7, 4, 6, 5)]
    targets = [{"boxes": torch.rand(n, 4), "labels": torch.arange(n)} for n in (1, 3, 2, 0, 1)]
    model = settled(Detector())
    given = [(images[:3], targets[:3]), (tuple(images[3:]), tuple(targets[3:]))]
    run = captured(model, given, tmp_path / "run", unit_size=2)
    assert_measured(run, model, [images[:3], images[3:]], {"act": 1}, tolerance=1e-6)
    assert len(run.samples) == 5
    assert run.manifest["rows"]["status"] == "proved"
    lists = [(images[:3],), {"images": images[3:]}]
    found = captured(model, lists, tmp_path / "lists", unit_size=2)
    np.testing.assert_array_equal(run.linearity()["L"], found.linearity()["L"])
    with pytest.raises(UsageError, match=r"3\), which may be 2 arguments or 2 samples; for .*\(im"):
        captured(model, [[torch.randn(3, 4, 3), torch.randn(3, 4, 3)]], tmp_path / "doubt")


class TwoInputs(nn.Module):
    """Takes an image and a table of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, C, 1), nn.Linear(4, C)
        self.act, self.head = nn.SiLU(), nn.Linear(C, 3)

    def forward(self, image: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        x = self.act(self.conv(image).mean((2, 3)) + self.linear(table))
        return self.head(x), x


def test_several_inputs(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model, images, tables = settled(TwoInputs()), torch.randn(7, 3, 4, 4), torch.randn(7, 4)
    labels = [n % 3 for n in range(7)]
    pairs = list(zip(images, tables, strict=True))
    given: dict[str, Any] = {
        "loader": DataLoader(Items(pairs), batch_size=3),
        "items": Items(pairs),
        "tuples": [(images[:4], tables[:4]), (images[4:], tables[4:])],
        "labels": [(images, tables, torch.tensor(labels))],
        "names": [{"table": tables, "image": images, "label": labels}],
        "named items": Items([{"table": t, "image": i, "target": 1} for i, t in pairs]),
    }
    runs = {
        name: acon.capture(model, data, tmp_path / name, progress=False)
        for name, data in given.items()
    }
    for run in runs.values():
        assert_measured(
            run, model, [(images, tables)], {"act": 1}, tolerance=1e-6,
            forward=lambda model, batch: model(*batch),
        )  # fmt: skip
        assert run.samples["sha256"].nunique() == 7
    assert [int(label) for label in runs["labels"].samples["label"]] == labels
    assert [int(label) for label in runs["names"].samples["label"]] == labels
    assert list(runs["tuples"].samples["sha256"]) == list(runs["items"].samples["sha256"])
    changed = [(images, tables.clone())]
    changed[0][1][6, 3] += 1  # all tensors of a sample are known
    with pytest.raises(StoreError, match="sample 6 of the stream is not the one"):
        captured(model, changed, tmp_path / "tuples")
    with pytest.raises(UsageError, match=r"takes \(image, table\) and may need it; for arguments"):
        captured(model, [(images, torch.tensor(labels))], tmp_path / "doubt")


def test_fuse_needs_one_tensor(tmp_path: Path) -> None:
    model: Any = acon.build_model("digits_metaacon")
    with pytest.raises(UsageError, match="fuse is for networks that are given one"):
        captured(
            model, [torch.randn(2, *model.input_shape)], tmp_path / "r", fuse=True,
            forward=lambda model, batch: model(batch),
        )  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1])
def test_gated_products_without_padding(axis: int, tmp_path: Path) -> None:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(C, 2 * C), nn.GLU(-1)).eval()
    x, mask = torch.randn(4, 7, C), torch.arange(7) < torch.tensor([7, 2, 5, 4])[:, None]
    kept = [one[m][None] for one, m in zip(x, mask, strict=True)]
    given = [x.movedim(0, axis)]
    options: dict[str, Any] = {"mask": lambda batch: mask, "sample_axis": axis}
    run = captured(model, given, tmp_path / "run", kinds=("product",), **options)
    want = captured(model, kept, tmp_path / "want", kinds=("product",))
    for by in ("layer", "channel"):
        one, two = run.linearity(by=by)["L"], want.linearity(by=by)["L"]
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(run.totals["n"], want.totals["n"])


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(2, 5), r"\(2, 5\); .* \(input\)"),
        (TwoInputs(), (torch.zeros(2, 3, 4, 4), torch.zeros(2, 5)),
         r"\(2, 5\); .*\(image, table\)"),
        (TwoInputs(), {"image": torch.zeros(2, 3, 4, 4), "table": torch.zeros(2, 5)},
         r"\{'image': \(2, 3, 4, 4\), 'table': \(2, 5\)\}; .*\(image, table\)"),
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()), torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
         r"torch.uint8, its weights are torch.float32: convert the data, x.to\(torch.float32\), "
         "for pixels from 0 to 255 divided by 255"),
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(2, 4, dtype=torch.float64),
         r"of torch.float64, its weights are torch.float32: .*x.to\(torch.float32\);"),
    ],
)  # fmt: skip
def test_an_error_of_the_network_notes_what_was_given_and_taken(
    model: nn.Module, given: Any, words: str, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError) as error:
        captured(model.eval(), [given], tmp_path / "r", kinds=("activation",))
    (note,) = error.value.__notes__
    assert re.search(f"the network was given .*{words}", note)


class Positions(nn.Module):
    """Tokens and their positions, each with an embedding of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.tok, self.pos, self.act = nn.Embedding(9, 3), nn.Embedding(4, 3), nn.ReLU()

    def forward(self, idx: Tensor) -> Tensor:
        """Return (N, T, 3) of tokens (N, T)."""
        return cast(Tensor, self.act(self.tok(idx) + self.pos(torch.arange(idx.shape[1]))))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            torch.full((2, 6), 8),
            r"'pos', Embedding\(4, 3\), was given \(6,\) of torch.int64, values 0 to 5; the "
            r"network was given \(2, 6\); .*\(idx\)",
        ),
        (torch.full((2, 4), 9), r"'tok', Embedding\(9, 3\), was given .* values 9 to 9;"),
        (torch.zeros(2, 4), r"'tok', Embedding\(9, 3\), was given \(2, 4\) of torch.float32;"),
    ],
)
def test_an_error_of_the_network_names_the_module_that_failed(
    given: Tensor, words: str, tmp_path: Path
) -> None:
    with pytest.raises((IndexError, RuntimeError)) as error:
        captured(Positions().eval(), [given], tmp_path / "r", kinds=("activation",))
    (note,) = error.value.__notes__
    assert re.match(words, note)
