"""Gated networks of other libraries: their products against programs that know the architecture."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.statistics.linearity import channel_table
from gathering import gather
from product_oracle import linearity

PLAIN = ("activation", "product")
Parts = tuple[Tensor, Tensor, Tensor]


def outputs(model: nn.Module, given: Tensor, names: list[str]) -> dict[str, Tensor]:
    """What modules return in one forward pass."""
    seen: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _m, _a, y, name=name: seen.__setitem__(name, y.double())
        )
        for name in names
    ]
    with torch.no_grad():
        model(given)
    for handle in handles:
        handle.remove()
    return seen


def require(model: nn.Module, given: Tensor, layer: str, parts: Parts, axis: int) -> None:
    """L of every channel of a layer, from b, a and z."""
    _, made = gather(model, given, cuts=(3,), kinds=PLAIN)
    own: Any = channel_table(made["moments"]).set_index("layer").loc[layer]
    b, a, z = (t.broadcast_to(parts[2].shape).movedim(axis, 1).flatten(2).numpy() for t in parts)
    np.testing.assert_allclose(own["L"], linearity(z, b, a)[0], atol=2e-6)


@pytest.mark.parametrize("name", ["LlamaModel", "Qwen3Model"])
def test_transformers_measure_the_product_and_no_norm(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, name.replace("Model", "Config"))(
        vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    model = getattr(transformers, name)(config).eval()
    tokens = torch.randint(0, 60, (7, 9))
    found = {layer.name: layer.kind for layer in acon.find_layers(model, PLAIN, tokens)}
    mlps = [f"layers.{i}.mlp" for i in (0, 1)]
    expected = {f"{mlp}.act_fn": "activation" for mlp in mlps}
    assert found == expected | {f"{mlp}:mul#0": "product" for mlp in mlps}
    for mlp in mlps:
        made = outputs(model, tokens, [f"{mlp}.gate_proj", f"{mlp}.up_proj"])
        b, a = made.values()
        require(model, tokens, f"{mlp}:mul#0", (b, a, a * F.silu(b)), axis=2)


GATES: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "efficientnet_b0": ("features.2.0.block", torch.sigmoid),
    "mobilenet_v3_small": ("features.4.block", F.hardsigmoid),
}


@pytest.mark.parametrize("name", GATES)
def test_squeeze_excitation_of_torchvision(name: str) -> None:
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    model = getattr(models, name)(weights=None).eval()
    block, gate = GATES[name]
    images = 3 * torch.randn(5, 3, 64, 64)
    made = outputs(model, images, [f"{block}.1", f"{block}.2.fc2"])
    a, b = made.values()
    require(model, images, f"{block}.2:mul#0", (b, a, a * gate(b)), axis=1)
    squeezes = sum(type(m).__name__ == "SqueezeExcitation" for m in model.modules())
    kinds = [layer.kind for layer in acon.find_layers(model, PLAIN, images)]
    assert kinds.count("product") == squeezes


def test_gated_mlp_of_timm() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("eva02_tiny_patch14_224", pretrained=False, depth=2).eval()
    images = torch.randn(3, 3, 224, 224)
    (both,) = outputs(model, images, ["blocks.1.mlp.fc1"]).values()
    b, a = both.chunk(2, -1)
    require(model, images, "blocks.1.mlp:mul#0", (b, a, a * F.silu(b)), axis=2)
