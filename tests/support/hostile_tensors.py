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
    saved,
    state,
    storage,
    tensor,
    text,
    torch_zip,
    zipped,
)


def _tensor_file(path: Path, made: bytes, data: bytes = bytes(4)) -> None:
    path.write_bytes(torch_zip(dictionary((text("w"), made)), {"0": data}))


@hostile("declares 1,000,000,000,000 elements, but its storage has 1 ")
def stride_zero(path: Path, canary: Path) -> None:
    _tensor_file(path, tensor(storage(), (10**6, 10**6), (0, 0)))


@hostile("repeat or leave out elements")
def small_stride_zero(path: Path, canary: Path) -> None:
    path.write_bytes(saved(state(**{"3.bias": torch.arange(5.0).as_strided((5,), (0,))})))


@hostile("repeat or leave out elements")
def every_second(path: Path, canary: Path) -> None:
    path.write_bytes(saved(state(**{"3.bias": torch.arange(10.0)[::2]})))


@hostile("not made of sizes")
def negative_stride(path: Path, canary: Path) -> None:
    _tensor_file(path, tensor(storage(), (1,), (-1,)))


@hostile("its storage has 0 for it")
def offset_beyond(path: Path, canary: Path) -> None:
    _tensor_file(path, tensor(storage(), (1,), (1,), offset=5))


@hostile("have 4 bytes, declared are 1,000,000,000,000 elements")
def storage_beyond(path: Path, canary: Path) -> None:
    _tensor_file(path, tensor(storage(count=10**12), (1,), (1,)))


@hostile("ends before its tensor data do")
def storage_beyond_legacy(path: Path, canary: Path) -> None:
    made = tensor(storage(count=10**9, tail=b"N"), (1,), (1,))
    data = (10**9).to_bytes(8, "little")
    path.write_bytes(legacy(dictionary((text("w"), made)), ["0"], data))


@hostile("not in the archive")
def storage_named_as_a_path(path: Path, canary: Path) -> None:
    _tensor_file(path, tensor(storage("../../etc/passwd"), (1,), (1,)))


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


@hostile("is not the list of those it uses")
def data_never_filled(path: Path, canary: Path) -> None:
    made = tensor(storage(tail=b"N"), (1,), (1,))
    path.write_bytes(legacy(dictionary((text("w"), made)), []))


@hostile("meta tensor")
def meta(path: Path, canary: Path) -> None:
    path.write_bytes(saved(state(**{"3.bias": torch.empty(10**12, device="meta")})))


@hostile("sparse tensor")
def sparse(path: Path, canary: Path) -> None:
    path.write_bytes(saved(state(**{"3.bias": torch.ones(5).to_sparse()})))


@hostile("quantised tensor")
def quantised(path: Path, canary: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = torch.quantize_per_tensor(torch.ones(5), 0.1, 0, torch.qint8)
        path.write_bytes(saved(state(**{"3.bias": weights})))


@hostile("element type that no model here has")
def unusual_type(path: Path, canary: Path) -> None:
    path.write_bytes(saved(state(**{"3.bias": torch.ones(5, dtype=torch.uint16)})))


@hostile("ComplexFloatStorage")
def complex_numbers(path: Path, canary: Path) -> None:
    path.write_bytes(saved(state(**{"3.bias": torch.ones(5, dtype=torch.complex64)})))


@hostile("metadata")
def conjugated(path: Path, canary: Path) -> None:
    made = tensor(storage(), (1,), (1,))[:-2] + b"}" + text("neg") + b"\x88stR"
    _tensor_file(path, made)


@hostile("backward hooks")
def hooks(path: Path, canary: Path) -> None:
    made = tensor(storage(), (1,), (1,)).removesuffix(b")RtR")
    pairs = b"](](" + text("hook") + integer(1) + b"ee\x85R"
    _tensor_file(path, made + pairs + b"tR")


@hostile("parameter with extra attributes")
def attributes(path: Path, canary: Path) -> None:
    weight: Any = nn.Parameter(torch.ones(5))
    weight.grad_fn_of_mine = "x"
    path.write_bytes(saved(state(**{"3.bias": weight})))


@hostile("occurs twice")
def key_twice(path: Path, canary: Path) -> None:
    item = (text("w"), tensor(storage(), (1,), (1,)))
    path.write_bytes(torch_zip(dictionary(item, item), {"0": bytes(4)}))


@hostile("big-endian")
def big_endian(path: Path, canary: Path) -> None:
    path.write_bytes(zipped({"data.pkl": b"\x80\x02}.", "byteorder": b"big"}))


@hostile("neither a float nor an integer")
def numpy_objects(path: Path, canary: Path) -> None:
    call = b"cnumpy\ndtype\n" + text("O") + b"\x89\x88\x87R"
    path.write_bytes(torch_zip(b"\x80\x02" + call + b"."))


@hostile("not the bytes of its type")
def numpy_number_too_short(path: Path, canary: Path) -> None:
    kind = b"cnumpy\ndtype\n" + text("f8") + b"\x89\x88\x87R"
    raw = b"c_codecs\nencode\n" + text("x") + text("latin1") + b"\x86R"
    path.write_bytes(
        torch_zip(b"\x80\x02cnumpy.core.multiarray\nscalar\n" + kind + raw + b"\x86R.")
    )


@hostile("numpy._core.multiarray._reconstruct")
def numpy_array(path: Path, canary: Path) -> None:
    path.write_bytes(saved({"state_dict": state(), "mean": torch.ones(2).numpy()}))
