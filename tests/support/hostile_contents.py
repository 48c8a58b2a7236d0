"""Files whose names or values do not fit the model, and hostile safetensors."""

from pathlib import Path
from typing import Any

import torch

from checkpoint_files import (
    dictionary,
    hostile,
    integer,
    of_bytes,
    one,
    safetensors,
    saved,
    state,
    text,
    torch_zip,
)


@hostile("NaN in 1 tensor: '3.bias'")
def not_a_number_legacy(path: Path, canary: Path) -> None:
    weights = torch.tensor([1, 2, 3, 4, torch.nan], dtype=torch.bfloat16)
    path.write_bytes(saved(state(**{"3.bias": weights}), legacy=True))


@hostile("a key that no parameter has: 3")
def number_as_key(path: Path, canary: Path) -> None:
    weights: dict[Any, Any] = dict(state())
    weights[3] = torch.ones(1)
    path.write_bytes(saved(weights))


@hostile("missing.*unexpected.*taken from 'state_dict'.*the file also has 'ema'")
def other_model(path: Path, canary: Path) -> None:
    weights = {f"block.{i}.w": torch.ones(2) for i in range(20)}
    path.write_bytes(saved({"ema": state(), "state_dict": weights}))


@hostile("one without their prefix")
def prefix_collision(path: Path, canary: Path) -> None:
    weights = {f"module.{key}": tensor for key, tensor in state().items()}
    path.write_bytes(saved({**weights, "3.bias": torch.ones(5)}))


@hostile("no state dict")
def dictionary_in_itself(path: Path, canary: Path) -> None:
    again = text("state_dict") + b"h\x00s"
    path.write_bytes(torch_zip(b"\x80\x02}q\x00" + again + text("n") + integer(1) + b"s."))


# safetensors.


@hostile("more than it can have")
def safetensors_huge_header(path: Path, canary: Path) -> None:
    with path.open("wb") as file:
        file.write(safetensors(one(), length=2**30))
        file.truncate(2**31)


@hostile("a name twice")
def safetensors_duplicate(path: Path, canary: Path) -> None:
    entry = b'"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    path.write_bytes(safetensors(b"{" + entry + b"," + entry + b"}", bytes(4)))


@hostile("describe the tensor 'w' properly")
def safetensors_extra_field(path: Path, canary: Path) -> None:
    header = one()
    assert isinstance(header["w"], dict)
    path.write_bytes(safetensors({"w": {**header["w"], "file": "/etc/passwd"}}, bytes(4)))


of_bytes({
    "not_a_number": ("NaN in 1 tensor: '3.bias'",
        lambda _: saved(state(**{"3.bias": torch.tensor([1, 2, 3, 4, torch.nan])}))),
    "infinite": ("infinity in 1 tensor: '3.bias'",
        lambda _: saved(state(**{"3.bias": torch.full((5,), -torch.inf, dtype=torch.float16)}))),
    "beyond_the_range": ("values beyond the range of float32 in 1 tensor: '3.bias'",
        lambda _: saved(state(**{"3.bias": torch.full((5,), 1e300, dtype=torch.float64)}))),
    "wrong_type": ("of type int64, the model's of float32; only floating types are converted",
        lambda _: saved(state(**{"3.bias": torch.arange(5)}))),
    "wrong_shape": (r"of another shape than the model's: '3.weight' \(7, 4\) for \(5, 4\)",
        lambda _: saved(state(**{"3.weight": torch.ones(7, 4)}))),
    "wrong_key": ("missing: '3.weight' .near '3.wieght'.; 1 key unexpected: '3.wieght'",
        lambda _: saved(state(**{"3.weight": None, "3.wieght": torch.ones(5, 4)}))),
    "path_as_key": ("1 key unexpected: '../../../etc/x'",
        lambda _: saved(state(**{"../../../etc/x": torch.ones(1)}))),
    "terminal_codes_as_key": (r"1 key unexpected: '\\x1b\[31m",
        lambda _: saved(state(**{"\x1b[31m" + "a" * 500: torch.ones(1)}))),
    "endless_key": ("a key that no parameter has",
        lambda _: saved(state(**{"a" * 10_000: torch.ones(1)}))),
    "number_as_tensor": ("has 3 under 'epoch', expected a tensor",
        lambda _: saved({**state(), "epoch": 3})),
    "only_a_tensor": ("no state dict but one tensor", lambda _: saved(torch.ones(3))),
    "only_a_list": ("no state dict but a list", lambda _: saved([torch.ones(3)])),
    "no_weights": (
        "no state dict; it has 'epoch', 'arch'; expected one by itself or under 'state_dict'",
        lambda _: saved({"epoch": 3, "arch": "resnet"})),
    "empty_dictionary": ("no state dict; expected", lambda _: torch_zip(dictionary())),
    "safetensors_deep": ("header is damaged", lambda _: safetensors(b'{"w":' + b"[" * 1_000_000)),
    "safetensors_length": ("neither a torch file nor safetensors",
        lambda _: safetensors(one(), bytes(4), length=2**62)),
    "safetensors_beyond": ("lies at 0 to 400, but the file has 4 bytes",
        lambda _: safetensors(one(shape=(100,), offsets=(0, 400)), bytes(4))),
    "safetensors_bomb": ("expected 400,000,000,000,000",
        lambda _: safetensors(one(shape=(10**7, 10**7)), bytes(4))),
    "safetensors_overlap": ("overlap or leave gaps",
        lambda _: safetensors(one() | {"v": one()["w"]}, bytes(4))),
    "safetensors_trailing": ("overlap or leave gaps", lambda _: safetensors(one(), bytes(400))),
    "safetensors_negative": ("describe the tensor 'w' properly",
        lambda _: safetensors(one(shape=(-1, -1)), bytes(4))),
    "safetensors_type": ("has the type 'F8_E4M3', not read",
        lambda _: safetensors(one("F8_E4M3", (4,)), bytes(4))),
    "safetensors_metadata": ("metadata are not texts",
        lambda _: safetensors({"__metadata__": {"a": [1]}} | one(), bytes(4))),
    "safetensors_of_another_model": ("8 keys of the model missing",
        lambda _: safetensors(one(), bytes(4))),
})  # fmt: skip
