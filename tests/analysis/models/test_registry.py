"""MODEL strings: what they build, and what a wrong one says."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import acon_analysis as acon
from acon_analysis.errors import UsageError
from acon_analysis.models.listing import model_table
from acon_analysis.models.registry import Origin, registry


def origin_of(model: torch.nn.Module) -> Origin:
    origin = model.acon_origin
    assert isinstance(origin, Origin)
    return origin


def test_every_network_of_the_registry_is_listed() -> None:
    table = model_table().set_index("name")
    assert list(table.index) == list(registry())
    for spec in registry().values():
        row = table.loc[spec.name]
        with torch.device("meta"):
            parameters = sum(one.numel() for one in spec.build().parameters())
        assert row["parameters"] == parameters, spec.name
        assert row["source"] == spec.source
        assert row["input_shape"] == ",".join(map(str, spec.input_shape))
    assert {"digits_metaacon", "resnet50_metaacon", "tfnet_x0_5"} <= set(table.index)
    assert table.loc["digits_relu", "weights"] == "shipped"
    assert table.loc["resnet50_metaacon", "parameters"] == 25_773_368
    assert table.loc["resnet50_metaacon", "weights"] == "random"


def test_the_list_needs_no_torch() -> None:
    code = (
        "import sys; from acon_analysis.models.listing import model_table;"
        "model_table(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_built_network_is_ready() -> None:
    model = acon.build_model("digits_metaacon")
    assert not model.training
    assert model.input_shape == (1, 8, 8)
    assert origin_of(model).weights == "shipped"
    assert len(origin_of(model).weights_sha256 or "") == 64


_PRINT = (
    "import acon_analysis as a, torch; m = a.build_model('digits_acon', weights=None, seed={seed});"
    "print(float(sum(p.double().abs().sum() for p in m.parameters()).detach()).hex())"
)


def test_random_weights_are_the_same_in_every_process() -> None:
    model = acon.build_model("digits_acon", weights=None, seed=4)
    own = float(
        sum((p.double().abs().sum() for p in model.parameters()), torch.zeros(())).detach()
    ).hex()
    done = subprocess.run(
        [sys.executable, "-c", _PRINT.format(seed=4)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == own
    assert origin_of(acon.build_model("digits_acon", weights=None, seed=5)).seed == 5


def test_building_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    acon.build_model("digits_acon", weights=None)
    assert torch.equal(torch.rand(1), expected)


def test_other_libraries() -> None:
    model = acon.build_model("torchvision:resnet18")
    assert model.input_shape == (3, 224, 224)
    assert origin_of(model).weights == "random"
    model = acon.build_model("timm:resnet10t")
    assert model.input_shape == (3, 176, 176)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_net.py"
    path.write_text(
        "import torch\n"
        "def make():\n    return torch.nn.Linear(3, 2)\n"
        "def wrong():\n    return 3\n"
        "value = 3\n"
    )
    return path


def test_a_file_of_ones_own(file: Path) -> None:
    model = acon.build_model(f"{file}:make", seed=1)
    assert isinstance(model, torch.nn.Linear)
    again = acon.build_model(f"{file}:make", seed=1)
    assert torch.equal(model.weight, again.weight)  # type: ignore[arg-type]


def test_a_module_of_ones_own() -> None:
    model = acon.build_model("torch.nn:Identity")
    assert isinstance(model, torch.nn.Identity)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50_metacon", "did you mean 'resnet50_metaacon'"),
        ("torchvision:resnet81", "torchvision has no 'resnet81'; did you mean 'resnet"),
        ("timm:resnet10tt", "timm has no 'resnet10tt'; did you mean 'resnet10t'"),
        ("no_such_module:make", "'no_such_module' cannot be imported"),
        ("/no/such/file.py:make", "there is no file '/no/such/file.py'"),
        ("math:pi", "math:pi is not callable but a 'float'"),
        ("math:sinn", "has no 'sinn'; did you mean 'sin"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        acon.build_model(name)


def test_a_file_that_does_not_deliver(file: Path) -> None:
    with pytest.raises(UsageError, match=r"must return a torch\.nn\.Module; it returned 'int'"):
        acon.build_model(f"{file}:wrong")
    with pytest.raises(UsageError, match="did you mean 'make'"):
        acon.build_model(f"{file}:mak")
    broken = file.with_name("broken.py")
    broken.write_text("1 / 0\n")
    with pytest.raises(UsageError, match="failed with ZeroDivisionError"):
        acon.build_model(f"{broken}:make")
