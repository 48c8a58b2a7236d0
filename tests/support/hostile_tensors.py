"""Hostile checkpoints whose tensors are more, or less, than the file has, or no plain tensors."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from checkpoint_files import (
    dictionary,
    hostile,
    integer,
    legacy,
    of_bytes,
    saved,
    state,
    storage,
    tensor,
    text,
    torch_zip,
    zipped,
)


def _tensor_file(made: bytes) -> bytes:
    return torch_zip(dictionary((text("w"), made)), {"0": bytes(4)})


@hostile("ends before its tensor data do")
def storage_beyond_legacy(path: Path, canary: Path) -> None:
    made = tensor(storage(count=10**9, tail=b"N"), (1,), (1,))
    data = (10**9).to_bytes(8, "little")
    path.write_bytes(legacy(dictionary((text("w"), made)), ["0"], data))


@hostile("declared in two ways")
def storage_of_two_types(path: Path, canary: Path) -> None:
    int_, float_ = storage(kind="IntStorage"), storage()
    items = [(text("a"), tensor(int_, (1,), (1,))), (text("b"), tensor(float_, (1,), (1,)))]
    path.write_bytes(torch_zip(dictionary(*items), {"0": bytes(4)}))


@hostile("part of its tensor data lies outside")
def view_beyond(path: Path, canary: Path) -> None:
    view = b"(" + text("v") + integer(0) + integer(10**9) + b"t"
    made = tensor(storage(tail=view), (1,), (1,))
    path.write_bytes(legacy(dictionary((text("w"), made)), ["0"], bytes(12)))


@hostile("quantised tensor")
def quantised(path: Path, canary: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = torch.quantize_per_tensor(torch.ones(5), 0.1, 0, torch.qint8)
        path.write_bytes(saved(state(**{"3.bias": weights})))


@hostile("backward hooks")
def hooks(path: Path, canary: Path) -> None:
    made = tensor(storage(), (1,), (1,)).removesuffix(b")RtR")
    pairs = b"](](" + text("hook") + integer(1) + b"ee\x85R"
    path.write_bytes(_tensor_file(made + pairs + b"tR"))


@hostile("parameter with extra attributes")
def attributes(path: Path, canary: Path) -> None:
    weight: Any = nn.Parameter(torch.ones(5))
    weight.grad_fn_of_mine = "x"
    path.write_bytes(saved(state(**{"3.bias": weight})))


@hostile("occurs twice")
def key_twice(path: Path, canary: Path) -> None:
    item = (text("w"), tensor(storage(), (1,), (1,)))
    path.write_bytes(torch_zip(dictionary(item, item), {"0": bytes(4)}))


@hostile("not the bytes of its type")
def numpy_number_too_short(path: Path, canary: Path) -> None:
    kind = b"cnumpy\ndtype\n" + text("f8") + b"\x89\x88\x87R"
    raw = b"c_codecs\nencode\n" + text("x") + text("latin1") + b"\x86R"
    path.write_bytes(
        torch_zip(b"\x80\x02cnumpy.core.multiarray\nscalar\n" + kind + raw + b"\x86R.")
    )


of_bytes({
    "stride_zero": ("declares 1,000,000,000,000 elements, but its storage has 1 ",
        lambda _: _tensor_file(tensor(storage(), (10**6, 10**6), (0, 0)))),
    "small_stride_zero": ("repeat or leave out elements",
        lambda _: saved(state(**{"3.bias": torch.arange(5.0).as_strided((5,), (0,))}))),
    "every_second": ("repeat or leave out elements",
        lambda _: saved(state(**{"3.bias": torch.arange(10.0)[::2]}))),
    "negative_stride": ("not made of sizes",
        lambda _: _tensor_file(tensor(storage(), (1,), (-1,)))),
    "offset_beyond": ("its storage has 0 for it",
        lambda _: _tensor_file(tensor(storage(), (1,), (1,), offset=5))),
    "storage_beyond": ("have 4 bytes, declared are 1,000,000,000,000 elements",
        lambda _: _tensor_file(tensor(storage(count=10**12), (1,), (1,)))),
    "storage_named_as_a_path": ("not in the archive",
        lambda _: _tensor_file(tensor(storage("../../etc/passwd"), (1,), (1,)))),
    "data_never_filled": ("is not the list of those it uses",
        lambda _: legacy(dictionary((text("w"), tensor(storage(tail=b"N"), (1,), (1,)))), [])),
    "meta": ("meta tensor",
        lambda _: saved(state(**{"3.bias": torch.empty(10**12, device="meta")}))),
    "sparse": ("sparse tensor", lambda _: saved(state(**{"3.bias": torch.ones(5).to_sparse()}))),
    "unusual_type": ("element type that no model here has",
        lambda _: saved(state(**{"3.bias": torch.ones(5, dtype=torch.uint16)}))),
    "complex_numbers": ("ComplexFloatStorage",
        lambda _: saved(state(**{"3.bias": torch.ones(5, dtype=torch.complex64)}))),
    "conjugated": ("metadata",
        lambda _: _tensor_file(
            tensor(storage(), (1,), (1,))[:-2] + b"}" + text("neg") + b"\x88stR")),
    "big_endian": ("big-endian",
        lambda _: zipped({"data.pkl": b"\x80\x02}.", "byteorder": b"big"})),
    "numpy_objects": ("neither a float nor an integer",
        lambda _: torch_zip(b"\x80\x02cnumpy\ndtype\n" + text("O") + b"\x89\x88\x87R.")),
    "numpy_array": ("numpy._core.multiarray._reconstruct",
        lambda _: saved({"state_dict": state(), "mean": torch.ones(2).numpy()})),
})  # fmt: skip
