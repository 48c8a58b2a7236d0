"""safetensors hold no code: they are read directly, without a process of their own."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from acon_analysis.errors import UsageError
from acon_analysis.models.checkpoints import (
    CheckpointError,
    import_checkpoint,
    load_state_dict,
    load_weights,
    loading,
)
from checkpoint_files import assert_same, net, state


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "convert", lambda *_: pytest.fail("a reading process was started"))


def kept(folder: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    path = folder / "weights.safetensors"
    safetensors.torch.save_file(dict(tensors), path)
    return path


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"  # the content decides, not the ending
    safetensors.torch.save_file(state(), path, metadata={"a": "b"})
    result = load_state_dict(path, net())
    assert_same(result.state, state())
    assert (result.format, result.notes) == ("safetensors", ())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float16])
def test_safetensors_into_another_type(dtype: torch.dtype, tmp_path: Path) -> None:
    path = kept(tmp_path, state())
    model = net().to(dtype)
    result = load_state_dict(path, model)
    assert_same(result.state, net().to(dtype).state_dict())
    assert f"from float32 to {str(dtype)[6:]}" in result.notes[0]


def test_values_that_do_not_fit_the_type(tmp_path: Path) -> None:
    path = kept(tmp_path, state(**{"3.bias": torch.full((5,), 70000.0)}))
    with pytest.raises(CheckpointError, match=r"beyond the range of float16.*'3.bias'"):
        load_state_dict(path, net().half())


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "_orig_mod.", "module._orig_mod.", "model.module.", "module.model."],
)
def test_prefixes(prefix: str, tmp_path: Path) -> None:
    path = kept(tmp_path, {prefix + k: t for k, t in state().items()})
    result = load_state_dict(path, net())
    assert_same(result.state, state())
    assert result.notes == (f"prefix {prefix!r} removed",)


def test_prefix_of_the_model_itself_stays(tmp_path: Path) -> None:
    wrapped = nn.ModuleDict({"model": net()})
    path = kept(tmp_path, wrapped.state_dict())
    assert load_state_dict(path, wrapped).notes == ()
    safetensors.torch.save_file(state(), path)
    result = load_state_dict(path, wrapped)
    assert_same(result.state, wrapped.state_dict())
    assert result.notes == ("prefix 'model.' added",)


def test_compiled_part(tmp_path: Path) -> None:
    names = {f"module.{k.replace('.', '._orig_mod.')}": t for k, t in state().items()}
    path = kept(tmp_path, names)
    assert_same(load_state_dict(path, net()).state, state())


def test_averaged_model(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(net())
    path = kept(tmp_path, averaged.state_dict())
    result = load_state_dict(path, net())
    assert_same(result.state, state())
    assert "'n_averaged'" in result.notes[1]


def test_counters_that_old_files_lack(tmp_path: Path) -> None:
    path = kept(tmp_path, state(**{"1.num_batches_tracked": None}))
    result = load_state_dict(path, net())
    assert_same(result.state, state(**{"1.num_batches_tracked": torch.tensor(0)}))
    assert "num_batches_tracked" in result.notes[0]
    assert "0 in 1 layer" in result.notes[0]


def test_any_other_missing_key_is_an_error(tmp_path: Path) -> None:
    path = kept(tmp_path, state(**{"1.running_var": None}))
    model = net()
    with pytest.raises(CheckpointError, match=r"1 key of the model missing: '1.running_var'"):
        load_weights(model, path)
    assert_same(model.state_dict(), state())


def test_a_mapping_in_place_of_a_model(tmp_path: Path) -> None:
    tensors = {"mask": torch.tensor([True, False]), "none": torch.ones(0, 3)}
    path = kept(tmp_path, tensors)
    meta = {name: tensor.to("meta") for name, tensor in tensors.items()}
    assert_same(load_state_dict(path, meta).state, tensors)


def test_bytes_that_are_no_bool(tmp_path: Path) -> None:
    path = kept(tmp_path, {"mask": torch.tensor([1, 7], dtype=torch.uint8)})
    path.write_bytes(path.read_bytes().replace(b'"U8"', b'"BOOL"').replace(b"} ", b"}", 1))
    raw = path.read_bytes()
    length = raw.index(b"}}") + 2 - 8
    path.write_bytes(length.to_bytes(8, "little") + raw[8 : 8 + length] + raw[-2:])
    with pytest.raises(CheckpointError, match="neither true nor false in 1 tensor: 'mask'"):
        load_state_dict(path, {"mask": torch.ones(2, dtype=torch.bool)})


def test_model_that_cannot_be_loaded_into(tmp_path: Path) -> None:
    path = kept(tmp_path, state())
    with pytest.raises(CheckpointError, match="no plain tensor under 'weight'"):
        load_state_dict(path, nn.LazyLinear(3))
    with pytest.raises(CheckpointError, match="'w' has the type complex64, which is not read"):
        load_state_dict(path, {"w": torch.ones(1, dtype=torch.complex64)})


def test_import_makes_the_folder(tmp_path: Path) -> None:
    path = kept(tmp_path, state())
    assert import_checkpoint(path, net(), tmp_path / "new" / "x.safetensors").path.is_file()


def test_import_into_nowhere(tmp_path: Path) -> None:
    path = kept(tmp_path, state())
    with pytest.raises(UsageError, match=r"named 'x.pth', expected a name in .safetensors"):
        import_checkpoint(path, net(), tmp_path / "x.pth")
    with pytest.raises(UsageError, match="is the checkpoint itself"):
        import_checkpoint(path, net(), path)
    with pytest.raises(CheckpointError, match=r"cannot write .*(exists|Not a directory)"):
        import_checkpoint(path, net(), path / "x.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot write .*directory"):
        import_checkpoint(path, net(), tmp_path / "folder.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "folder.safetensors",
        "weights.safetensors",
    ]
