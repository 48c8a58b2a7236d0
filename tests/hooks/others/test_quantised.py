"""Quantised networks, half precision, double precision, devices without numbers, lazy modules."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.errors import AconError
from acon_analysis.layers import MetaAconC
from model_facts import unchanged, warned
from network_oracle import assert_measured, captured, every_function, measured, settled

KINDS = ("meta_acon", "activation")
QUANTISED = ["ignore:.*torch.ao.quantization is deprecated", "ignore:.*quant.*:UserWarning",
             "ignore:.*TypedStorage", "ignore:.*quant.*:DeprecationWarning"]  # fmt: skip
pytestmark = [pytest.mark.filterwarnings(text) for text in QUANTISED]


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 8, 8) * torch.rand(count, 1, 1, 1).mul(2).add(0.3)


class Plain(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 3), act
        self.fc, self.last = nn.Linear(4, 5), nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.conv(x))
        out: Tensor = self.last(self.fc(h.mean((2, 3))))
        return out


def dynamic() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(settled(Plain(nn.ELU())), {nn.Linear}).eval()


class Stubbed(nn.Module):
    """A network between the stubs that eager static quantisation asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = torch.ao.quantization.QuantStub()
        self.conv, self.act, self.pool = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.dequant, self.fc = torch.ao.quantization.DeQuantStub(), nn.Linear(4, 3)
        self.last = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.pool(self.act(self.conv(self.quant(x))))
        out: Tensor = self.last(self.fc(self.dequant(h).flatten(1)))
        return out


def static() -> nn.Module:
    model = Stubbed().eval()
    model.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    model.fc.qconfig = None  # type: ignore[assignment]
    prepared = torch.ao.quantization.prepare(model)
    prepared(images(32))
    made: nn.Module = torch.ao.quantization.convert(prepared)
    return made.eval()


def test_dynamic_quantisation_leaves_float_activations(tmp_path: Path) -> None:
    model, x = dynamic(), [images(), images(3)]
    # The scale of quantisation is that of a batch: rows depend on the others.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = captured(model, x, tmp_path / "run")
    assert_measured(run, model, x, {"act": 1, "last": 1})
    every_function(model, x[0])


def test_quantised_activations_are_named_and_the_others_measured(tmp_path: Path) -> None:
    model, x = static(), [images(), images(3)]
    with warned(r"left out, and in no result: 'act' \(its input is torch\.quint8"):
        run = captured(model, x, tmp_path / "run")
    assert_measured(run, model, x, {"last": 1})
    every_function(model, x[0])


def prepared_for_training() -> nn.Module:
    """Fake quantisation of weights and outputs, observers off."""
    model = Stubbed().train()
    model.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
    torch.ao.quantization.prepare_qat(model, inplace=True)
    model(images(32))
    return model.eval().apply(torch.ao.quantization.disable_observer)


def test_fake_quantisation_is_float(tmp_path: Path) -> None:
    model, x = prepared_for_training(), [images(), images(3)]
    measured(model, x, tmp_path, {"act": 1, "last": 1})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_activations_of_other_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    model = settled(Plain(nn.SiLU())).to(dtype)
    x = [images().to(dtype), images(3).to(dtype)]
    measured(model, x, tmp_path, {"act": 1, "last": 1})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_beta_of_half_precision_is_as_right_as_its_rounding(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model = settled(Plain(MetaAconC(4))).to(dtype)
    x = [images().to(dtype), images(3).to(dtype)]
    measured(model, x, tmp_path, {"act": 1}, tolerance=8 * torch.finfo(dtype).eps)


class Autocast(nn.Module):
    """Autocast inside the network's own forward."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.inner = Plain(act)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out: Tensor = self.inner(x)
        return out.float()


def test_autocast_inside_the_network(tmp_path: Path) -> None:
    model, x = settled(Autocast(nn.SiLU())), [images(), images(3)]
    with pytest.raises(AconError, match=r"runs under autocast \(torch.bfloat16\)"):
        captured(model, x, tmp_path / "run")
    every_function(model, x[0])


def test_a_model_without_numbers_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = Plain(MetaAconC(4)).eval()
    assert [layer.name for layer in acon.find_layers(model, KINDS)] == ["act", "last"]
    with pytest.raises(AconError, match="meta"):
        captured(model, [images()], tmp_path / "run")
    every_function(model, images().to("meta"))


def test_a_lazy_module_that_has_not_run_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).eval()
    with unchanged(model):
        assert [layer.name for layer in acon.find_layers(model, KINDS)] == ["1"]
    with pytest.raises(AconError, match="lazy"):
        captured(model, [images()], tmp_path / "run")
    every_function(model, images())
    model(images())
    run = captured(model, [images()], tmp_path / "after")
    assert run.linearity()["layer"].tolist() == ["1"]


def test_one_sample_and_one_value(tmp_path: Path) -> None:
    model = settled(Plain(nn.SiLU()))
    x = [images(1)]
    run = captured(model, x, tmp_path / "one")
    assert run.manifest["rows"]["status"] == "not proved"
    assert_measured(run, model, x, {"act": 1, "last": 1})
    every_function(model, x[0])
    curve, flat = nn.Sequential(nn.Tanh()).eval(), [torch.randn(7), torch.randn(4)]
    axes = "its input has 1 axis; samples and channels are needed"
    with warned(f"'0', call 0: {axes}"), pytest.raises(AconError, match=f"'0': {axes}"):
        captured(curve, flat, tmp_path / "flat")
    assert axes in every_function(curve, flat[0])["replacement"]


def test_a_single_number_is_no_batch(tmp_path: Path) -> None:
    curve = nn.Sequential(nn.Tanh()).eval()
    with pytest.raises(AconError, match="single number"):
        captured(curve, [torch.tensor(2.0)], tmp_path / "run")
    every_function(curve, torch.tensor(2.0))


def test_channels_last_models_and_images(tmp_path: Path) -> None:
    model = settled(Plain(MetaAconC(4))).to(memory_format=torch.channels_last)
    x = [images().contiguous(memory_format=torch.channels_last), images(3)]
    measured(model, x, tmp_path, {"act": 1, "last": 1}, kinds=KINDS)
