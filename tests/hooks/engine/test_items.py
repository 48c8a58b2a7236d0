"""What an item or a batch holds: one input, labels, and nothing that would be left out unsaid."""

import os
import warnings
from collections import UserDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from acon_analysis.errors import UsageError
from acon_hooks.captures.capturing import capture
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.feeding import open_feed
from acon_hooks.engine.inputs import InputOptions
from acon_hooks.engine.items import Signature, plain_label, split_item
from acon_hooks.engine.trees import copied, leaves
from acon_hooks.errors import TargetWarning, UnusedDataWarning

IDS = torch.arange(24).reshape(4, 6)
MASK = torch.ones(4, 6, dtype=torch.long)
MASK[:, 4:] = 0
IMAGES = torch.zeros(4, 3, 2, 2)
ONE = Signature.of(nn.ReLU())  # takes one argument


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([3, 1, 2, 0]),
        torch.tensor([[3], [1], [2], [0]]),
        torch.tensor([3.0, 1.0, 2.0, 0.0]),
        torch.eye(4)[[3, 1, 2, 0]],
        torch.eye(4, dtype=torch.bool)[[3, 1, 2, 0]],
        np.array([3, 1, 2, 0]),
        np.eye(4)[[3, 1, 2, 0]],
        [3, 1, 2, 0],
        list(torch.tensor([3, 1, 2, 0])),
        (np.int64(3), np.int64(1), np.int64(2), np.int64(0)),
    ],
)
def test_labels_are_one_number_a_sample_or_one_hot(labels: Any) -> None:
    """As a batch, and sample by sample."""
    inputs, found = split_item((IMAGES, labels), "batch 0", ONE, batch=True)
    assert inputs is IMAGES
    assert [plain_label(label) for label in found] == [3, 1, 2, 0]
    for image, label, expected in zip(IMAGES, labels, [3, 1, 2, 0], strict=True):
        _, own = split_item({"pixel_values": image, "labels": label}, "item 0", ONE)
        assert plain_label(own) == expected


def test_names_are_labels() -> None:
    for labels in (["a", "b", "c", "d"], ("a", "b", "c", "d"), np.array(list("abcd"))):
        assert list(split_item((IMAGES, labels), "batch 0", ONE, batch=True)[1]) == list("abcd")
    assert split_item((IMAGES[0], None), "item 0", ONE)[1] is None


NO_LABELS = [
    MASK,
    MASK.bool(),
    MASK.float().numpy(),
    torch.zeros(4, 1, 6, 6),
    torch.zeros(4, 3),  # no class at all
    torch.tensor([[1, 1, 0]] * 4),  # two classes
    torch.tensor([[0.2, 0.8]] * 4),
    [{"boxes": torch.zeros(2, 4)}] * 4,
    {"a": torch.zeros(4)},
    [[1, 2]] * 4,
]


@pytest.mark.parametrize("second", NO_LABELS)
def test_what_is_no_label_is_refused_by_a_network_of_one_argument(second: Any) -> None:
    ways = (
        r"forward takes \(input\); for arguments give forward=.*batch\), for an input and a label"
    )
    with pytest.raises(UsageError, match=f"^data: batch 2 .*no label .*{ways}") as error:
        split_item((IDS, second), "batch 2", ONE, batch=True)
    assert os.linesep not in str(error.value)
    with pytest.raises(UsageError, match=r"at 2, which is no label .* at 1, which looks like one"):
        split_item((IDS, torch.zeros(4), second), "batch 2", ONE, batch=True)
    with pytest.raises(UsageError, match=r"'image', 'extra'; .* at 'extra', which is no .*\(input"):
        split_item({"image": IDS, "extra": second}, "batch 2", ONE, batch=True)
    own = second["a"] if isinstance(second, dict) else second[0]
    if not isinstance(own, Tensor) or own.numel() > 1:
        with pytest.raises(UsageError, match=r"^data: item 0 .*no label"):
            split_item((IDS[0], own), "item 0", ONE)


def test_a_mask_of_a_data_set_or_loader_is_refused(tmp_path: Path) -> None:
    pairs, options = TensorDataset(IDS, MASK), InputOptions(ONE)
    with pytest.raises(
        UsageError, match=r"item 0 .* input of shape \(6,\) .*Tensor of shape \(6,\)"
    ):
        open_feed(pairs, options=options)
    with pytest.raises(UsageError, match=r"batch 0 .* of shape \(4, 6\) .* of shape \(4, 6\)"):
        list(open_feed(DataLoader(pairs, batch_size=4), options=options).batches())


def test_keys_that_are_no_arguments() -> None:
    both = {"input_ids": IDS, "attention_mask": MASK}
    for batch in (both, {"ids": IDS, "mask": MASK}, {"ids": IDS}):
        keys = ", ".join(map(repr, batch))
        taken = rf"keys {keys}; .*labels under one of 'label'.* takes \(input\), and {keys} is none"
        with pytest.raises(UsageError, match=taken):
            split_item(batch, "batch 0", ONE, batch=True)


class _Decoder(nn.Module):
    """Returns logits, and a loss where it is given targets."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.act = nn.Embedding(9, 9), nn.GELU()

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Tensor:
        logits: Tensor = self.act(self.embed(idx))
        return logits if targets is None else nn.functional.cross_entropy(logits.mT, targets)


def test_labels_that_are_given_to_the_network_are_named(tmp_path: Path) -> None:
    tokens = torch.arange(24).reshape(4, 6) % 9
    loader = DataLoader(TensorDataset(tokens, tokens.flip(1)), batch_size=2)
    with pytest.warns(TargetWarning) as caught:
        run = capture(_Decoder().eval(), loader, tmp_path / "a", progress=False)
    assert {str(one.message) for one in caught} == {
        "data: a Tensor of shape (2, 6) at 1 is given to 'targets' of the network's forward, and "
        "is no label (one number or string a sample, or one-hot); if a loss is not to be measured, "
        "give data without it, or forward=lambda model, batch: model(batch[0])"
    }
    assert run.nonlinearities["operator"].str.contains("nll_loss").any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split_item((tokens, tokens), "batch 0", Signature(("x", "y"), 2), batch=True)
        split_item((tokens, tokens), "batch 0", Signature(("x", "mask"), 1), batch=True)


def test_other_optional_arguments_are_announced(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.GELU()

        def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
            out: Tensor = self.act(x if scale is None else x * scale)
            return out

    said: list[str] = []
    batch = (torch.randn(4, 6), torch.rand(4, 6))
    capture(Masked().eval(), [batch], tmp_path / "a", progress=False, announce=said.append)
    named = "data: part 1 of each batch, (4, 6), is given to 'scale' of the network's forward"
    assert said[0] == named
    said.clear()
    capture(Masked().eval(), [batch[0]], tmp_path / "b", progress=False, announce=said.append)
    assert named not in said


def test_numbers_that_are_not_used_are_named() -> None:
    numbers = torch.arange(4)
    with pytest.warns(UnusedDataWarning, match="'length' of the samples is not used: the network"):
        split_item({"image": IDS, "label": numbers, "length": numbers}, "batch 0", ONE, batch=True)
    with pytest.warns(UnusedDataWarning, match="data: 2 of the samples is not used"):
        split_item((IDS[0], 7, 3), "item 0", ONE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split_item(
            {"image": IDS, "label": numbers, "file": list("abcd")}, "batch 0", ONE, batch=True
        )
        split_item((IDS[0], 7, "a.png"), "item 0", ONE)


def test_special_tensors() -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2, 3), torch.zeros(4, 3)], layout=torch.jagged)
    with pytest.raises(UsageError, match="batch 1 is a nested tensor; give its samples as batches"):
        split_item(nested, "batch 1", ONE, batch=True)
    with pytest.raises(UsageError, match=r"item 0 is a sparse tensor; .* to_dense\(\)"):
        split_item((IMAGES[0, 0].to_sparse(), 1), "item 0", ONE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.complex64])
def test_samples_of_any_dtype_have_a_hash(dtype: torch.dtype) -> None:
    class Items(Dataset[Tensor]):
        """Two samples, one not as it lies in memory."""

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Tensor:
            return torch.ones(3, 2).to(dtype).T if index else torch.ones(2, 3).to(dtype)

    (batch,) = open_feed(Items()).batches()
    first, second = batch.sample_rows()
    assert first["sha256"] == second["sha256"]
    assert first["bytes"] == 6 * dtype.itemsize


class Two(nn.Module):
    """Takes a second argument if there is one."""

    def forward(self, ids: Tensor, lengths: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
        return ids


class Named(nn.Module):
    def forward(self, ids: Tensor, mask: Tensor, y: Tensor | None = None, **more: Any) -> Tensor:
        return ids


TWO, NAMED = Signature.of(Two()), Signature.of(Named())
NUMBERS = torch.arange(4)


def test_signatures() -> None:
    assert (TWO.names, TWO.required, TWO.most) == (("ids", "lengths"), 1, 2)
    assert TWO.keywords == {"ids", "lengths", "scale"}
    assert TWO.words() == "the network's forward takes (ids, lengths, scale)"
    assert (NAMED.required, NAMED.any_name, NAMED.any_number) == (2, True, False)
    assert Signature().any_name  # of what says nothing of its arguments


@pytest.mark.parametrize(
    ("item", "signature", "arguments", "label"),
    [
        ((IDS, MASK), TWO, (IDS, MASK), None),
        ([IDS, MASK], TWO, (IDS, MASK), None),
        ((IDS, MASK, NUMBERS), NAMED, (IDS, MASK), NUMBERS),
        ((IDS, MASK, MASK), NAMED, (IDS, MASK, MASK), None),
        ({"ids": IDS, "mask": MASK}, NAMED, {"ids": IDS, "mask": MASK}, None),
        ({"ids": IDS, "mask": MASK, "y": NUMBERS}, NAMED, None, NUMBERS),  # an argument, and labels
        ({"ids": IDS, "labels": NUMBERS}, TWO, {"ids": IDS}, NUMBERS),
        ({"ids": IDS, "scale": 2.0, "target": NUMBERS}, TWO, {"ids": IDS, "scale": 2.0}, NUMBERS),
        (({"ids": IDS, "mask": MASK}, NUMBERS), NAMED, {"ids": IDS, "mask": MASK}, NUMBERS),
        (UserDict(ids=IDS, mask=MASK), NAMED, {"ids": IDS, "mask": MASK}, None),
        ([IDS[:2], IDS[:3]], ONE, [IDS[:2], IDS[:3]], None),  # no number of samples in common
        (([IMAGES[0], IMAGES[1]], [{"boxes": MASK}] * 2), TWO, None, None),
    ],
)
def test_arguments_and_labels(item: Any, signature: Signature, arguments: Any, label: Any) -> None:
    found, given = split_item(item, "batch 0", signature, batch=True)
    assert given is label
    if arguments is None:
        return
    assert type(found) is type(arguments)
    assert [path for path, _ in leaves(found)] == [path for path, _ in leaves(arguments)]
    for (_, one), (_, two) in zip(leaves(found), leaves(arguments), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("item", "signature", "words"),
    [
        ((IDS, NUMBERS), NAMED, r"\(4,\) at 1 looks like labels .* takes \(ids, mask, y, \*\*kw"),
        ((IDS, NUMBERS), TWO, r"looks like labels .*, but the network's forward takes \(ids, len"),
        (
            (IDS[:, :3], torch.eye(4, 3)[[0, 1, 2, 0]]),
            TWO,
            "looks like labels",
        ),  # or one token each
        ((IDS, MASK, MASK), TWO, r"no label .*, and the network's forward takes \(ids, lengths"),
        ({"ids": IDS, "mask": MASK}, TWO, r"takes \(ids, lengths, scale\), and 'mask' is none"),
    ],
)
def test_doubts_show_both_ways(item: Any, signature: Signature, words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        split_item(item, "batch 0", signature, batch=True)
    assert "forward=lambda model, batch: model(" in str(error.value)
    assert os.linesep not in str(error.value)


def test_a_batch_of_any_tree_is_put_in_order_cut_moved_and_hashed() -> None:
    """A list holds one part a sample; what has no sample axis stays whole."""
    tree: dict[str, Any] = {
        "time": torch.arange(24.0).reshape(3, 4, 2),
        "one": NUMBERS,
        "states": (torch.zeros(2, 4), torch.arange(6)),
        "images": [torch.full((1, n + 1), n) for n in range(4)],
        "flag": True,
    }
    valid = {"": torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0]]).bool()}
    options = InputOptions(forward=lambda model, batch: model(batch), sample_axis=1)
    batch = Batch(0, [5, 6, 7, 8], tree, list("abcd"), options=options, valid=valid, rows=None)
    order = [2, 0, 3, 1]
    first, second = batch.permuted(order).parts([1, 3])
    assert (first.ids, second.labels) == ([7], ["a", "d", "b"])
    assert torch.equal(second.inputs["time"], tree["time"][:, [0, 3, 1]])
    assert second.inputs["one"].tolist() == [0, 3, 1]
    assert second.inputs["states"][0].shape == (2, 3)
    assert second.inputs["states"][1].tolist() == list(range(6))
    assert [image.shape[1] for image in second.inputs["images"]] == [1, 4, 2]
    assert second.inputs["flag"] is True
    assert second.valid[""].tolist() == [[True, True], [False, False], [True, False]]
    meta = batch.to(torch.device("meta"))
    assert {value.device.type for _, value in leaves(meta.inputs)} == {"meta"}
    hashes = [row["sha256"] for row in batch.sample_rows()]
    moved = batch.permuted(order)
    moved.rows = None
    assert [row["sha256"] for row in moved.sample_rows()] == [hashes[at] for at in order]
    for key in ("time", "one", "states", "images"):
        other = copied(tree)
        next(v for _, v in leaves(other[key])).view(-1)[-1] += 1
        changed = Batch(0, [5, 6, 7, 8], other, options=options, rows=None)
        assert hashes != [row["sha256"] for row in changed.sample_rows()]
    assert batch.run(lambda given: given["one"].sum().item()) == 6  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"forward": "model"}, "forward must be a callable"),
        ({"sample_axis": -1}, "sample_axis must be 0 or more; got -1"),
        ({"mask": "src_key_padding_mask"}, r"lambda batch: ~batch\['src_key_padding_mask'\]"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        InputOptions(**options)
