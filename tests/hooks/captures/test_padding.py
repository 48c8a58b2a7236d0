"""Padded tokens: only what the mask keeps is measured, whatever form the batches have."""

# mypy: disable-error-code="no-any-return"

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import acon_analysis as acon
from acon_analysis.errors import AconError, StoreError, UsageError
from acon_analysis.usercode import load_callable
from acon_hooks.engine.inputs import InputOptions
from acon_hooks.errors import PaddingWarning
from acon_hooks.moments.accumulating import UnmeasuredLayerWarning
from acon_hooks.moments.options import MomentOptions
from captures import assert_same_linearity
from network_oracle import assert_measured, captured, settled
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


def test_padded_sentences_measure_as_sentences_alone(tmp_path: Path) -> None:
    """And as an own program does that leaves the padding out."""
    model, batches = encoder(), [padded(batch) for batch in sentences()]
    run = captured(model, batches, tmp_path / "padded", mask="attention_mask")
    alone = [padded([tokens]) for batch in sentences() for tokens in batch]
    assert_same_linearity(run, captured(model, alone, tmp_path / "alone", mask="attention_mask"))
    assert_same_linearity(run, captured(model, alone, tmp_path / "unmasked"))

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
        assert_same_linearity(runs["stream"], run)
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
    with pytest.raises(StoreError, match=r"mask was None, is 'test_padding.all_of \(code "):
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
    assert_same_linearity(run, captured(model, alone, tmp_path / "alone"))

    def parts(number: int, value: Tensor) -> list[Tensor]:
        return [v[m.bool()][None] for v, m in zip(value, data[number][1], strict=True)]

    assert_measured(
        run, model, data, {"1": 2}, parts=parts, forward=lambda model, batch: model(batch[0])
    )
    if layer is PositionAcon:
        with torch.no_grad():
            acon_layer: Any = model[1]
            beta = torch.cat([acon_layer.fc(model[0](x)).sigmoid().mean(1) for x in alone])
        np.testing.assert_allclose(run.beta_matrix("1"), beta, atol=1e-6)
