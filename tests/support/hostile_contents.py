"""Files whose names or values do not fit the model, and hostile safetensors."""

from pathlib import Path
from typing import Any

import torch

from checkpoint_files import (
    dictionary,
    hostile,
    integer,
    one,
    safetensors,
    saved,
    state,
    text,
    torch_zip,
)


@hostile("NaN in 1 tensor: '3.bias'")
def not_a_number(path: Path, canary: Path) -> None:
    path.write_bytes(saved(state(**{"3.bias": torch.tensor([1, 2, 3, 4, torch.nan])})))


@hostile("NaN in 1 tensor: '3.bias'")
def not_a_number_legacy(path: Path, canary: Path) -> None:
    weights = torch.tensor([1, 2, 3, 4, torch.nan], dtype=torch.bfloat16)
    path.write_bytes(saved(state(**{"3.bias": weights}), legacy=True))


@hostile("infinity in 1 tensor: '3.bias'")
def infinite(path: Path, canary: Path) -> None:
    weights = torch.full((5,), -torch.inf, dtype=torch.float16)
    path.write_bytes(saved(state(**{"3.bias": weights})))


@hostile("values beyond the range of float32 in 1 tensor: '3.bias'")
def beyond_the_range(path: Path, canary: Path) -> None:
    weights = torch.full((5,), 1e300, dtype=torch.float64)
    path.write_bytes(saved(state(**{"3.bias": weights})))


@hostile("of type int64, the model's of float32; only floating types are converted")
def wrong_type(path: Path, canary: Path) -> None:
    path.write_bytes(saved(state(**{"3.bias": torch.arange(5)})))


@hostile(r"of another shape than the model's: '3.weight' \(7, 4\) for \(5, 4\)")
def wrong_shape(path: Path, canary: Path) -> None:
    path.write_bytes(saved(state(**{"3.weight": torch.ones(7, 4)})))


@hostile("missing: '3.weight' .near '3.wieght'.; 1 key unexpected: '3.wieght'")
def wrong_key(path: Path, canary: Path) -> None:
    changes = {"3.weight": None, "3.wieght": torch.ones(5, 4)}
    path.write_bytes(saved(state(**changes)))


@hostile("1 key unexpected: '../../../etc/x'")
def path_as_key(path: Path, canary: Path) -> None:
    path.write_bytes(saved(state(**{"../../../etc/x": torch.ones(1)})))


@hostile(r"1 key unexpected: '\\x1b\[31m")
def terminal_codes_as_key(path: Path, canary: Path) -> None:
    path.write_bytes(saved(state(**{"\x1b[31m" + "a" * 500: torch.ones(1)})))


@hostile("a key that no parameter has")
def endless_key(path: Path, canary: Path) -> None:
    path.write_bytes(saved(state(**{"a" * 10_000: torch.ones(1)})))


@hostile("a key that no parameter has: 3")
def number_as_key(path: Path, canary: Path) -> None:
    weights: dict[Any, Any] = dict(state())
    weights[3] = torch.ones(1)
    path.write_bytes(saved(weights))


@hostile("has 3 under 'epoch', expected a tensor")
def number_as_tensor(path: Path, canary: Path) -> None:
    path.write_bytes(saved({**state(), "epoch": 3}))


@hostile("no state dict but one tensor")
def only_a_tensor(path: Path, canary: Path) -> None:
    path.write_bytes(saved(torch.ones(3)))


@hostile("no state dict but a list")
def only_a_list(path: Path, canary: Path) -> None:
    path.write_bytes(saved([torch.ones(3)]))


@hostile("no state dict; it has 'epoch', 'arch'; expected one by itself or under 'state_dict'")
def no_weights(path: Path, canary: Path) -> None:
    path.write_bytes(saved({"epoch": 3, "arch": "resnet"}))


@hostile("no state dict; expected")
def empty_dictionary(path: Path, canary: Path) -> None:
    path.write_bytes(torch_zip(dictionary()))


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


@hostile("header is damaged")
def safetensors_deep(path: Path, canary: Path) -> None:
    path.write_bytes(safetensors(b'{"w":' + b"[" * 1_000_000))


@hostile("neither a torch file nor safetensors")
def safetensors_length(path: Path, canary: Path) -> None:
    path.write_bytes(safetensors(one(), bytes(4), length=2**62))


@hostile("more than it can have")
def safetensors_huge_header(path: Path, canary: Path) -> None:
    with path.open("wb") as file:
        file.write(safetensors(one(), length=2**30))
        file.truncate(2**31)


@hostile("a name twice")
def safetensors_duplicate(path: Path, canary: Path) -> None:
    entry = b'"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    path.write_bytes(safetensors(b"{" + entry + b"," + entry + b"}", bytes(4)))


@hostile("lies at 0 to 400, but the file has 4 bytes")
def safetensors_beyond(path: Path, canary: Path) -> None:
    path.write_bytes(safetensors(one(shape=(100,), offsets=(0, 400)), bytes(4)))


@hostile("expected 400,000,000,000,000")
def safetensors_bomb(path: Path, canary: Path) -> None:
    path.write_bytes(safetensors(one(shape=(10**7, 10**7)), bytes(4)))


@hostile("overlap or leave gaps")
def safetensors_overlap(path: Path, canary: Path) -> None:
    header = one() | {"v": one()["w"]}
    path.write_bytes(safetensors(header, bytes(4)))


@hostile("overlap or leave gaps")
def safetensors_trailing(path: Path, canary: Path) -> None:
    path.write_bytes(safetensors(one(), bytes(400)))


@hostile("describe the tensor 'w' properly")
def safetensors_negative(path: Path, canary: Path) -> None:
    path.write_bytes(safetensors(one(shape=(-1, -1)), bytes(4)))


@hostile("describe the tensor 'w' properly")
def safetensors_extra_field(path: Path, canary: Path) -> None:
    header = one()
    assert isinstance(header["w"], dict)
    path.write_bytes(safetensors({"w": {**header["w"], "file": "/etc/passwd"}}, bytes(4)))


@hostile("has the type 'F8_E4M3', not read")
def safetensors_type(path: Path, canary: Path) -> None:
    path.write_bytes(safetensors(one("F8_E4M3", (4,)), bytes(4)))


@hostile("metadata are not texts")
def safetensors_metadata(path: Path, canary: Path) -> None:
    path.write_bytes(safetensors({"__metadata__": {"a": [1]}} | one(), bytes(4)))


@hostile("8 keys of the model missing")
def safetensors_of_another_model(path: Path, canary: Path) -> None:
    path.write_bytes(safetensors(one(), bytes(4)))
