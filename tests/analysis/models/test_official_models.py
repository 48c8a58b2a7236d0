"""The official networks: keys, sizes, costs, and the numbers of the reference."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from acon_analysis import paper
from acon_analysis.layers import AconC, AconFReLU, MetaAconC, ShapeError
from acon_analysis.models.official import INPUT_SHAPE, OFFICIAL
from network_cost import count_macs, count_parameters
from official_weights import fill, known_images

DATA = Path(__file__).parents[2] / "data"
ARCHITECTURES: dict[str, dict[str, Any]] = json.loads(
    (DATA / "official_architectures.json").read_text(encoding="utf-8")
)
REFERENCE: dict[str, dict[str, Any]] = json.loads(
    (DATA / "official_reference.json").read_text(encoding="utf-8")
)

# Multiply-adds of one 224x224 image: convolutions and matrix products, the β networks included.
MACS = {
    "resnet50_acon": 3_857_973_248, "resnet50_metaacon": 3_858_143_232,
    "resnet101_acon": 7_570_194_432, "resnet101_metaacon": 7_570_503_680,
    "resnet152_acon": 11_282_415_616, "resnet152_metaacon": 11_282_847_744,
    "shufflenet_v2_x0_5_acon": 40_476_448, "shufflenet_v2_x0_5_metaacon": 40_776_224,
    "shufflenet_v2_x1_0_acon": 145_814_296, "shufflenet_v2_x1_0_metaacon": 146_092_760,
    "shufflenet_v2_x1_5_acon": 298_970_656, "shufflenet_v2_x1_5_metaacon": 299_362_976,
    "shufflenet_v2_x2_0_acon": 590_783_000, "shufflenet_v2_x2_0_metaacon": 591_739_448,
    "tfnet_x0_5": 42_450_560, "tfnet_x1_0": 134_805_760, "tfnet_x1_5": 278_541_184,
    "tfnet_x2_0": 473_656_832,
}  # fmt: skip


PRINTED: Any = paper.printed("counts").set_index("Network")


@cache
def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return OFFICIAL[name]()


def printed(value: float, like: str) -> str:
    """Write a count as the paper's column does, e.g. 3.9G or 41M or 1.4M."""
    unit = like[-1]
    digits = len(like.rstrip("GM").partition(".")[2])
    return f"{value / {'G': 1e9, 'M': 1e6}[unit]:.{digits}f}{unit}"


def test_all_eighteen_are_there() -> None:
    assert set(OFFICIAL) == set(ARCHITECTURES) == set(MACS)
    assert len(OFFICIAL) == 18


@pytest.mark.parametrize("name", OFFICIAL)
def test_keys_and_parameters(name: str) -> None:
    model, known = on_meta(name), ARCHITECTURES[name]
    state = model.state_dict()
    text = "\n".join(f"{key} {tuple(tensor.shape)}" for key, tensor in sorted(state.items()))
    assert len(state) == known["keys"]
    assert hashlib.sha256(text.encode()).hexdigest() == known["keys_sha256"]
    assert count_parameters(model) == known["params"]
    metas = sum(isinstance(module, MetaAconC) for module in model.modules())
    assert metas == known.get("meta_acon_layers", 0)
    assert tuple(model.input_shape) == INPUT_SHAPE  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OFFICIAL)
def test_multiply_adds_beside_the_paper(name: str) -> None:
    macs, column = count_macs(on_meta(name), INPUT_SHAPE), PRINTED.loc[name, "FLOPs, printed"]
    assert macs == MACS[name]
    if column == paper.tables.MISSING:
        return
    # The two smallest are printed one million above what their 40.48 and 42.45 round to.
    rounded = {"shufflenet_v2_x0_5_acon": "40M", "tfnet_x0_5": "42M"}.get(name, column)
    assert printed(macs, column) == rounded


@pytest.mark.parametrize(
    "name", PRINTED.index[PRINTED["Params, printed"] != paper.tables.MISSING].tolist()
)
def test_parameters_beside_the_paper(name: str) -> None:
    column = PRINTED.loc[name, "Params, printed"]
    # The column is cut, not rounded, and up to 0.3 million below the code for the large ResNets.
    difference = ARCHITECTURES[name]["params"] / 1e6 - float(column.rstrip("M"))
    assert -0.05 < difference < 0.31


@pytest.mark.parametrize("name", REFERENCE)
def test_outputs_of_the_reference(name: str) -> None:
    with torch.device("meta"):
        model = OFFICIAL[name]()
    model, known = fill(model), REFERENCE[name]
    betas: dict[str, Tensor] = {}

    def keep(layer: str) -> Any:
        return lambda _m, _i, out: betas.__setitem__(layer, torch.sigmoid(out).flatten(1))

    for layer, module in model.named_modules():
        if isinstance(module, MetaAconC):
            module.bn2.register_forward_hook(keep(layer))
    with torch.inference_mode():
        logits = model(known_images())
    shown = torch.cat((logits[0, :6], logits[1, -3:]))
    assert shown.tolist() == pytest.approx(known["logits"], rel=1e-9)
    assert logits.norm().item() == pytest.approx(known["logit_norm"], rel=1e-9)
    assert set(betas) == set(known.get("beta", {}))
    for layer, beta in betas.items():
        numbers = known["beta"][layer]
        assert list(beta.shape) == numbers["shape"]
        read = [beta.mean().item(), beta[0, 0].item(), beta[1, -1].item()]
        expected = [numbers["mean"], numbers["first"], numbers["last"]]
        assert read == pytest.approx(expected, rel=1e-9, abs=0), layer


@pytest.mark.parametrize(
    ("name", "kind", "channels"),
    [
        ("resnet50_acon", AconC, [64] * 3 + [128] * 4 + [256] * 6 + [512] * 3),
        ("resnet101_metaacon", MetaAconC, [64] * 3 + [128] * 4 + [256] * 23 + [512] * 3),
        ("resnet152_acon", AconC, [64] * 3 + [128] * 8 + [256] * 36 + [512] * 3),
    ],
)
def test_where_acon_stands_in_the_resnets(
    name: str, kind: type[AconC | MetaAconC], channels: list[int]
) -> None:
    layers = {n: m for n, m in on_meta(name).named_modules() if isinstance(m, kind)}
    assert [layer.channels for layer in layers.values()] == channels
    assert all(layer.endswith(".acon") for layer in layers)


def test_every_activation_of_shufflenet_and_tfnet_is_acon() -> None:
    for name, kind, count in (
        ("shufflenet_v2_x2_0_acon", AconC, 37),
        ("shufflenet_v2_x0_5_metaacon", MetaAconC, 37),
        ("tfnet_x1_5", AconFReLU, 33),
    ):
        modules = list(on_meta(name).modules())
        assert sum(isinstance(module, kind) for module in modules) == count
        relus = sum(isinstance(module, nn.ReLU) for module in modules)
        assert relus == (1 if name.startswith("tfnet") else 0)


@pytest.mark.parametrize("name", OFFICIAL)
def test_dropout_stands_where_the_code_has_it(name: str) -> None:
    rates = [module.p for module in on_meta(name).modules() if isinstance(module, nn.Dropout)]
    has = name.startswith(("shufflenet_v2_x2_0", "tfnet_x1", "tfnet_x2"))
    assert rates == ([0.2] if has else [])


@pytest.mark.parametrize(
    "name", ["shufflenet_v2_x0_5_metaacon", "resnet50_acon", "tfnet_x1_0", "resnet152_metaacon"]
)
def test_random_weights_follow_the_seed_and_neither_vanish_nor_explode(name: str) -> None:
    def logits(seed: int) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = OFFICIAL[name](num_classes=7).eval()
        with torch.inference_mode():
            out: Tensor = model(torch.linspace(0, 255, 3 * 64 * 64).reshape(1, 3, 64, 64))
        return out

    first = logits(0)
    assert first.shape == (1, 7)
    assert 0.1 < first.abs().max() < 10_000
    if name.startswith("shufflenet"):
        assert torch.equal(first, logits(0))
        assert not torch.equal(first, logits(1))


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5_metaacon", "tfnet_x0_5", "resnet50_acon"])
def test_torch_fx_traces_the_networks(name: str) -> None:
    with torch.device("meta"):
        model = OFFICIAL[name](num_classes=5).eval()
    traced = torch.fx.symbolic_trace(model)
    assert traced(torch.empty(2, 3, 96, 96, device="meta")).shape == (2, 5)


@pytest.mark.parametrize("shape", [(3, 224, 224), (2, 1, 224, 224), (2, 224, 224, 3)])
@pytest.mark.parametrize("name", ["resnet50_acon", "tfnet_x0_5", "shufflenet_v2_x1_0_acon"])
def test_other_input_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        on_meta(name)(torch.empty(shape, device="meta"))
    assert str(shape) in str(caught.value)
    assert "(N, 3, 224, 224)" in str(caught.value)


def test_the_table_of_counts_agrees_with_the_other_printed_tables() -> None:
    titles = {"resnet": "ResNet ", "shufflenet_v2_x": "ShuffleNetV2 ", "tfnet_x": "TFNet "}
    rows = 0
    for name in OFFICIAL:
        start = next(start for start in titles if name.startswith(start))
        size, _, kind = name.removeprefix(start).replace("_", ".", start != "resnet").partition("_")
        title = titles[start] + size + "x" * (start == "shufflenet_v2_x")
        table = {"acon": "table3", "metaacon": "meta_acon", "": "tfnet"}[kind]
        frame: Any = paper.printed(table).set_index("Model")
        own = PRINTED.loc[name, ["FLOPs, printed", "Params, printed"]].tolist()
        if title in frame.index:
            assert frame.loc[title, ["FLOPs", "Params"]].tolist() == own
            rows += 1
        else:
            assert own == [paper.tables.MISSING] * 2
    assert rows == 14
    counted = paper.table("counts").set_index("network")["macs_counted_m"]
    assert counted.to_dict() == {
        name: pytest.approx(macs / 1e6, abs=0.06) for name, macs in MACS.items()
    }


def test_counting_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten())
    model.append(nn.Linear(4 * 4, 2))
    model[1].eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assert count_macs(model, (3, 4, 4)) == 3 * 9 * 4 * 4 + 16 * 2
    assert count_parameters(model) == 3 * 9 * 4 + 8 + 16 * 2 + 2
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    tied = nn.ModuleList([model, model])
    assert count_parameters(tied) == count_parameters(model)
