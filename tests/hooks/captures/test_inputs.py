"""Inputs that people have: dicts, several inputs, padded tokens, lists, time-first sequences."""

# mypy: disable-error-code="no-any-return"

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import acon_analysis as acon
from acon_analysis.errors import AconError, StoreError, UsageError
from acon_analysis.runs.run import Run
from acon_analysis.usercode import load_callable
from acon_hooks.engine.inputs import InputOptions
from acon_hooks.errors import PaddingWarning, ProofError
from acon_hooks.moments.accumulating import UnmeasuredLayerWarning
from acon_hooks.moments.options import MomentOptions
from network_oracle import assert_measured, captured, linearity, seen, settled
from networks import Network

C = 6


class Encoder(nn.Module):
    """An embedding, attention that ignores padding, an MLP, a head on the mean of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend = nn.Embedding(20, C), nn.MultiheadAttention(C, 2, batch_first=True)
        self.wide, self.act, self.narrow = nn.Linear(C, 9), nn.GELU(), nn.Linear(9, C)
        self.norm, self.last, self.head = nn.LayerNorm(C), nn.Tanh(), nn.Linear(C, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        valid = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        x = self.embed(input_ids)
        x = x + self.attend(x, x, x, key_padding_mask=valid == 0, need_weights=False)[0]
        x = self.norm(x + self.narrow(self.act(self.wide(x))))
        weight = valid.unsqueeze(2).to(x)
        logits = self.head(self.last((x * weight).sum(1) / weight.sum(1)))
        return {"logits": logits, "tokens": x}


def encoder() -> Encoder:
    torch.manual_seed(3)
    return settled(Encoder())


LENGTHS = [[7, 3, 5, 4], [9, 9, 2], [6, 4, 8, 3, 5]]
SENTENCES = [n for own in LENGTHS for n in own]


def sentences() -> list[list[Tensor]]:
    """Tokens of sentences of different lengths, batch by batch."""
    generator = torch.Generator().manual_seed(1)
    return [[torch.randint(1, 20, (n,), generator=generator) for n in own] for own in LENGTHS]


def padded(batch: Sequence[Tensor], width: int | None = None) -> dict[str, Tensor]:
    """Pad sentences with token 0; on the left in every other sentence."""
    width = max(map(len, batch)) if width is None else width
    ids, mask = torch.zeros(2, len(batch), width, dtype=torch.long)
    for row, tokens in enumerate(batch):
        start = width - len(tokens) if row % 2 else 0
        ids[row, start : start + len(tokens)] = tokens
        mask[row, start : start + len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def by_name(model: nn.Module, batch: dict[str, Tensor]) -> Any:
    return model(**batch)


def equal(first: Run, second: Run, tolerance: float = 1e-6) -> None:
    """Compare L by layer, channel and sample, the number of values, and their extremes."""
    for by in ("layer", "channel", "sample"):
        one, two = first.linearity(by=by, columns="all"), second.linearity(by=by, columns="all")
        np.testing.assert_allclose(one["L"], two["L"], rtol=0, atol=tolerance)
    one, two = (run.totals.sort_values(["layer", "sample"]) for run in (first, second))
    np.testing.assert_array_equal(one["n"], two["n"])
    groups = [run.moments.groupby(["layer", "channel"]) for run in (first, second)]
    for name, value in (("min_x", "min"), ("max_x", "max"), ("n", "sum"), ("n_positive", "sum")):
        ends = [group[name].agg(value) for group in groups]
        np.testing.assert_allclose(ends[0], ends[1], atol=tolerance)


def test_padded_sentences_measure_as_sentences_alone(tmp_path: Path) -> None:
    """And as an own program does that leaves the padding out."""
    model, batches = encoder(), [padded(batch) for batch in sentences()]
    run = captured(model, batches, tmp_path / "padded", mask="attention_mask")
    alone = [padded([tokens]) for batch in sentences() for tokens in batch]
    equal(run, captured(model, alone, tmp_path / "alone", mask="attention_mask"))
    equal(run, captured(model, alone, tmp_path / "unmasked"))

    def parts(number: int, value: Tensor) -> list[Tensor]:
        valid = batches[number]["attention_mask"].bool()
        whole = value.ndim == 2
        return [v[None] if whole else v[m][None] for v, m in zip(value, valid, strict=True)]

    assert run.totals.query("layer == 'act'")["n"].tolist() == [9 * n for n in SENTENCES]
    assert_measured(
        run, model, batches, {"act": 2, "last": 1}, forward=by_name, tolerance=1e-6, parts=parts
    )
    assert run.manifest["identity"]["mask"] == "attention_mask"
    nine_of_28 = "32 % of the positions of the first batch are padded, and count like the others"
    with pytest.warns(PaddingWarning, match=nine_of_28):
        without = captured(model, batches, tmp_path / "without")
    assert abs(without.linearity()["L"][0] - run.linearity()["L"][0]) > 1e-3


def test_padding_that_only_attention_knows_is_named(tmp_path: Path) -> None:
    class Tokens(Encoder):
        def forward(self, input_ids: Tensor, _: Any = None) -> Any:
            return super().forward(input_ids, (input_ids != 0).long())

    ids = [padded(batch)["input_ids"] for batch in sentences()]
    with pytest.warns(PaddingWarning, match="32 % of the positions"):
        captured(settled(Tokens()), ids, tmp_path / "run")
    captured(settled(Tokens()), [ids[0][:1]], tmp_path / "whole")
    captured(settled(Tokens()), ids, tmp_path / "masked", mask=lambda ids: ids != 0)


def lengths_of(batch: dict[str, Tensor]) -> Tensor:
    return batch["attention_mask"].bool()


def all_of(batch: Tensor) -> Tensor:
    return torch.ones_like(batch)


class Sentences(Dataset[dict[str, Any]]):
    """Padded to one length each, with labels and the mask under a key that no network takes."""

    def __init__(self, key: str = "attention_mask") -> None:
        self.key = key
        self.own = [tokens for batch in sentences() for tokens in batch]

    def __len__(self) -> int:
        return len(self.own)

    def __getitem__(self, index: int) -> dict[str, Any]:
        found = padded([self.own[index]], 9)
        ids, mask = found["input_ids"][0], found["attention_mask"][0]
        return {"input_ids": ids.tolist(), self.key: mask.numpy(), "label": index % 3}


@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_ways_to_give_sentences_are_equal(batch_size: int, tmp_path: Path) -> None:
    """A stream, a data set, a loader that pads by itself; a key, a callable."""
    model, batches = encoder(), [padded(batch) for batch in sentences()]
    given: dict[str, dict[str, Any]] = {
        "stream": {"data": batches, "mask": "attention_mask", "unit_size": 5},
        "callable": {"data": batches, "mask": lengths_of},
        "dataset": {"data": Sentences(), "mask": "attention_mask", "batch_size": batch_size},
        "loader": {
            "data": DataLoader(
                [tokens for batch in sentences() for tokens in batch],  # type: ignore[arg-type]
                batch_size=batch_size,
                collate_fn=padded,
            ),
            "mask": "attention_mask",
        },
        "forward": {
            "data": [(batch, [0] * len(batch["input_ids"])) for batch in batches],
            "forward": lambda model, batch: model(**batch[0]),
            "mask": lambda batch: batch[0]["attention_mask"],
        },
        "tuple": {"data": [tuple(batch.values()) for batch in batches], "mask": 1},
    }
    runs = {
        name: acon.capture(model, out=tmp_path / name, progress=False, **options)
        for name, options in given.items()
    }
    for run in runs.values():
        equal(runs["stream"], run)
    assert [str(label) for label in runs["dataset"].samples["label"]] == list("012012012012")
    assert len(runs["stream"].folder.done_units()) == 3
    hashes = {name: list(run.samples["sha256"]) for name, run in runs.items()}
    assert hashes["callable"] == hashes["stream"] != hashes["dataset"]


def test_a_mask_that_is_no_argument(tmp_path: Path) -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.act = nn.Embedding(20, C), nn.SiLU()

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.act(self.embed(input_ids)).mean(1)

    model = settled(Bag())
    run = acon.capture(
        model, Sentences("valid"), tmp_path / "run", mask="valid", batch_size=4, progress=False
    )
    assert run.totals["n"].tolist() == [C * n for n in SENTENCES]
    with pytest.raises(UsageError, match=r"takes \(input_ids\), and 'valid' is none of them"):
        acon.capture(model, Sentences("valid"), tmp_path / "no", progress=False)
    tokens = [padded(batch)["input_ids"] for batch in sentences()]
    captured(model, tokens, tmp_path / "stream")
    with pytest.raises(StoreError, match=r"mask was None, is 'test_inputs.all_of \(code "):
        captured(model, tokens, tmp_path / "stream", mask=all_of)


def wrong(batch: dict[str, Tensor]) -> Tensor:
    return batch["attention_mask"].sum(1)


def at_least(length: int) -> Any:
    return lambda batch: torch.arange(batch["input_ids"].shape[1]) >= length


MASK_FILE = """
def mask(batch):
    return batch["attention_mask"] {sign} 0

def words(batch):
    return mask(batch)
"""


def test_a_run_is_not_continued_with_another_mask(tmp_path: Path) -> None:
    """Of the same file, or of the same name; a file that was only moved goes on."""

    def of_file(name: str, sign: str = ">", folder: str = ".") -> Any:
        path = tmp_path / folder / "masks.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(MASK_FILE.format(sign=sign))
        return load_callable("mask", f"{path}:{name}", ["batch"])[0]

    batches = [padded(batch) for batch in sentences()]
    model = encoder()
    run = captured(model, batches, tmp_path / "run", mask=of_file("mask"))
    assert run.manifest["identity"]["mask"].startswith("masks.py.mask (code ")
    captured(model, batches, tmp_path / "run", mask=of_file("mask", folder="moved"))
    for other in (of_file("words"), of_file("mask", "==")):
        with pytest.raises(StoreError, match=r"mask was 'masks.py.mask \(code .*', is 'masks.py"):
            captured(model, batches, tmp_path / "run", mask=other)


def test_functions_that_keep_other_values_are_others() -> None:
    def named(mask: Any) -> Any:
        return InputOptions(mask=mask).identity["mask"]

    assert named(at_least(0)) == named(at_least(0))
    assert named(at_least(0)) != named(at_least(1))
    assert named(lambda batch: batch["a"]) != named(lambda batch: batch["b"])
    assert named(partial(max, 1)) != named(partial(max, 2))


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ("mask", r"mask: batch 0 has no key 'mask'; choose one of 'input_ids', 'attention_mask'"),
        ("key_padding_mask", r"True where a position is padded; .*lambda batch: ~batch\['key_pad"),
        ("input_ids", r"holds other numbers than 0 \(padded\) and 1 \(data\), such as "),
        (wrong, r"wrong' has the shape \(4,\); expected is \(N, T\) for N = 4 samples"),
        (0.5, "must be a key of the batch or a callable; got 0.5"),
    ],
)
def test_masks_that_are_none(mask: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words) as error:
        captured(encoder(), [padded(batch) for batch in sentences()], tmp_path / "r", mask=mask)
    assert "\n" not in str(error.value)


def test_the_compiled_kernel_is_refused_with_a_mask(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"compiled kernel .* cannot leave out padded positions"):
        captured(
            encoder(), [padded(sentences()[0])], tmp_path / "r",
            mask="attention_mask", moments=MomentOptions(kernel="compiled"),
        )  # fmt: skip


def test_a_layer_without_the_positions_of_the_mask_is_left_out(tmp_path: Path) -> None:
    x, mask = torch.randn(4, C, 8), torch.ones(4, 8)
    mask[1:, 5:] = 0
    # Halves the sequence, as speech networks do.
    strided = Network(
        lambda n, x: n.second(n.conv(n.first(x))),
        first=nn.ReLU(),
        second=nn.ReLU(),
        conv=nn.Conv1d(C, C, 2, stride=2),
    )
    with pytest.warns(
        UnmeasuredLayerWarning, match=r"'second'.*\(4, 6, 4\), in which the mask's 4"
    ):
        run = captured(
            settled(strided), [x], tmp_path / "r", kinds=("activation",), mask=lambda batch: mask
        )
    assert run.linearity()["layer"].tolist() == ["first"]


def test_a_sample_of_padding_alone_is_left_out_and_named(tmp_path: Path) -> None:
    batch = padded(sentences()[0])
    model, mask = nn.Sequential(nn.Linear(C, C), nn.ReLU()).eval(), batch["attention_mask"].bool()
    mask[2] = False
    x = torch.randn(*mask.shape, C)
    run = captured(model, [x], tmp_path / "r", mask=lambda batch: mask)
    assert run.linearity(columns="all")[["n_samples", "left_out"]].values.tolist() == [[3, 0]]
    assert "1 of 4 samples left out of layer 1 (ReLU): nothing but padding in sample 2." in (
        " ".join(str(run.summary()).split())
    )
    kept = [x[i, mask[i]][None] for i in (0, 1, 3)]
    want = captured(model, kept, tmp_path / "kept")
    np.testing.assert_allclose(run.linearity()["L"], want.linearity()["L"], atol=1e-9)
    mask[:] = False
    with pytest.raises(AconError, match=r"the mask of the run '.*none' leaves no position"):
        captured(model, [x], tmp_path / "none", mask=lambda batch: mask).linearity()


class PositionAcon(nn.Module):
    """Meta-ACON for tokens with a β of every position and channel."""

    def __init__(self) -> None:
        super().__init__()
        self.p1, self.p2 = nn.Parameter(torch.randn(C)), nn.Parameter(torch.randn(C))
        self.fc = nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        d = self.p1 - self.p2
        return d * x * torch.sigmoid(torch.sigmoid(self.fc(x)) * d * x) + self.p2 * x


@pytest.mark.parametrize("layer", [PositionAcon, nn.GELU])
def test_beta_of_every_position(layer: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, C), layer()).eval()
    batches = [padded(batch) for batch in sentences()]
    data = [(batch["input_ids"], batch["attention_mask"]) for batch in batches]
    run = captured(
        model, data, tmp_path / "r", mask=1, forward=lambda model, batch: model(batch[0])
    )
    alone = [tokens[None] for batch in sentences() for tokens in batch]
    equal(run, captured(model, alone, tmp_path / "alone"))

    def parts(number: int, value: Tensor) -> list[Tensor]:
        return [v[m.bool()][None] for v, m in zip(value, data[number][1], strict=True)]

    found = seen(model, data, ["1"], lambda model, batch: model(batch[0]))["1", 0]
    pairs = [
        pair
        for number, (x, y) in enumerate(found)
        for pair in zip(parts(number, x), parts(number, y), strict=True)
    ]
    want = linearity(pairs, 2)
    np.testing.assert_allclose(run.linearity("channel")["L"], want.channel, atol=1e-6)
    np.testing.assert_allclose(run.linearity("sample")["L"], want.sample, atol=1e-6)
    if layer is PositionAcon:
        with torch.no_grad():
            acon_layer: Any = model[1]
            beta = torch.stack([acon_layer.fc(x).sigmoid().mean(1)[0] for x, _ in pairs])
        np.testing.assert_allclose(run.beta_matrix("1"), beta, atol=1e-6)


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
    equal(run, items_run)


class Items(Dataset[Any]):
    """A list as a data set."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


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
        (
            TwoInputs(),
            (torch.zeros(2, 3, 4, 4), torch.zeros(2, 5)),
            r"\(2, 5\); .*\(image, table\)",
        ),
        (
            encoder(),
            {"input_ids": torch.ones(2, 3)},
            r"\{'input_ids': \(2, 3\)\}; .*attention_mask",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()),
            torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
            r"torch.uint8, its weights are torch.float32: convert the data, x.to\(torch.float32\), "
            "for pixels from 0 to 255 divided by 255",
        ),
        (
            nn.Sequential(nn.Linear(4, 3), nn.ReLU()),
            torch.zeros(2, 4, dtype=torch.float64),
            r"of torch.float64, its weights are torch.float32: .*x.to\(torch.float32\);",
        ),
    ],
)
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
