"""The networks of the sweep: names by family, random weights, inputs as small as they allow."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: Makes an input of so many samples from a seed.
Maker = Callable[[int, int], Tensor]

#: Parts of names of small variants, the most wanted first.
_SMALL = ("test_", "atto", "pico", "femto", "nano", "_s0", "xx", "tiny", "_b0", "_t0", "small",
          "mini", "_t", "18", "_s", "26", "050", "_0", "b16", "s32", "base", "50")  # fmt: skip
#: Of torchvision, one network a family; what takes lists or pairs of images is left out.
_TORCHVISION = (
    "alexnet", "convnext_tiny", "deeplabv3_mobilenet_v3_large", "densenet121", "efficientnet_b0",
    "efficientnet_v2_s", "fcn_resnet50", "googlenet", "inception_v3", "lraspp_mobilenet_v3_large",
    "maxvit_t", "mc3_18", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "mvit_v2_s",
    "r2plus1d_18", "r3d_18", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnext50_32x4d",
    "s3d", "shufflenet_v2_x0_5", "squeezenet1_1", "swin3d_t", "swin_t", "swin_v2_t", "vgg11_bn",
    "vit_b_32", "wide_resnet50_2",
)  # fmt: skip
#: Configurations of transformers: class, and the settings that make it tiny.
_WIDTH = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
          "num_hidden_layers": 2, "vocab_size": 99}  # fmt: skip
_TRANSFORMERS: dict[str, dict[str, Any]] = {
    "GPT2Model": {"n_embd": 32, "n_head": 4, "n_layer": 2, "vocab_size": 99},
    "BertModel": _WIDTH,
    "RobertaModel": _WIDTH,
    "DistilBertModel": {"dim": 32, "n_heads": 4, "n_layers": 2, "hidden_dim": 64, "vocab_size": 99},
    "LlamaModel": {**_WIDTH, "num_key_value_heads": 2},
    "Qwen2Model": {**_WIDTH, "num_key_value_heads": 2},
    "MistralModel": {**_WIDTH, "num_key_value_heads": 2, "head_dim": 8},
    "GPTNeoXModel": _WIDTH,
    "T5EncoderModel": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
                       "vocab_size": 99},
    "ViTModel": {**_WIDTH, "image_size": 32, "patch_size": 8},
}  # fmt: skip


class FromTensor(nn.Module):
    """A network that is given one tensor, and returns one."""

    def __init__(self, inner: nn.Module, name: str) -> None:
        super().__init__()
        self.inner, self.name = inner, name

    def forward(self, x: Tensor) -> Any:
        """Run the network."""
        return self.inner(**{self.name: x}).last_hidden_state


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode, and what makes its inputs."""

    model: nn.Module
    make: Maker


def one_of_every_family() -> Iterator[str]:
    """Yield a network of every family, small ones where their names say so."""
    import timm

    yield from (f"transformers:{name}" for name in _TRANSFORMERS)
    yield from (f"torchvision:{name}" for name in _TORCHVISION)
    for family in timm.list_modules():
        names = timm.list_models(module=family)
        yield f"timm:{min(names, key=_size)}"


def every_network() -> Iterator[str]:
    """Yield every network of torchvision that classifies images, and of timm, small ones first."""
    import timm
    import torchvision

    for name in torchvision.models.list_models(module=torchvision.models):
        yield f"torchvision:{name}"
    for name in sorted(timm.list_models(), key=_size):
        yield f"timm:{name}"


def _size(name: str) -> tuple[int, int, str]:
    """Rank names by the size that they promise."""
    large = any(part in name for part in ("large", "huge", "giant", "xl", "so400m", "gigantic"))
    found = next((i for i, part in enumerate(_SMALL) if part in name), len(_SMALL))
    return int(large), found, name


def build(name: str) -> Network:
    """Build a network with random weights, the same in every process."""
    torch.manual_seed(0)
    library, _, own = name.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}[library](
            own
        )


def _torchvision(name: str) -> Network:
    import torchvision

    build_it = torchvision.models.get_model_builder(name)
    takes = inspect.signature(build_it).parameters
    settings = {"weights_backbone": None} if "weights_backbone" in takes else {}
    model = torchvision.models.get_model(name, weights=None, **settings).eval()
    fixed = ("vit_", "maxvit")
    size = 224 if name.startswith(fixed) else 96 if name == "inception_v3" else 64
    shape: tuple[int, ...] = (3, size, size)
    if name in ("mc3_18", "r2plus1d_18", "r3d_18") or "swin3d" in name:
        shape = (3, 8, 64, 64)
    elif name == "s3d" or name.startswith("mvit"):
        shape = (3, 16, 224, 224)
    return Network(model, _images(shape))


def _timm(name: str) -> Network:
    import timm

    model = timm.create_model(name).eval()
    settings: Any = model.pretrained_cfg
    shape = settings["input_size"]
    if not settings.get("fixed_input_size"):
        least = settings.get("min_input_size") or (3, 64, 64)
        shape = (shape[0], *(max(side, 64) for side in least[1:]))
    try:
        with torch.no_grad():
            model(torch.zeros(1, *shape))
    except Exception:  # it needs its own size after all
        shape = settings["input_size"]
    return Network(model, _images(shape))


def _transformers(name: str) -> Network:
    import transformers

    kind: Any = getattr(transformers, name)
    settings = kind.config_class(**_TRANSFORMERS[name], use_cache=False)
    settings._attn_implementation = "sdpa"
    model = kind(settings).eval()
    if name == "ViTModel":
        return Network(FromTensor(model, "pixel_values").eval(), _images((3, 32, 32)))
    return Network(FromTensor(model, "input_ids").eval(), _tokens)


def _images(shape: tuple[int, ...]) -> Maker:
    def make(seed: int, samples: int) -> Tensor:
        return torch.randn(samples, *shape, generator=torch.Generator().manual_seed(seed))

    return make


def _tokens(seed: int, samples: int) -> Tensor:
    return torch.randint(1, 99, (samples, 12), generator=torch.Generator().manual_seed(seed))
