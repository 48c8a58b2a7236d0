"""Which layers of a model can be read, found by structure and never by class name."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from acon_analysis.errors import UsageError, closest
from acon_hooks.engine.parameters import module_parameters
from acon_hooks.engine.sites import Site
from acon_hooks.guards import unwrap
from acon_hooks.layers.elementwise import is_activation
from acon_hooks.layers.gates import looks_like_gate
from acon_hooks.layers.reading import TRANSFORMS, Granularity, Reading

#: Every kind of layer, with what it is.
KINDS = {
    "meta_acon": "ACON whose β depends on the sample",
    "acon": "ACON with a static β",
    "acon_plain_gate": "its variant (p1 - p2)·x·S(β·x) + p2·x, read only if asked for",
    "acon_frelu": "ACON-FReLU; its β is 1",
    "activation": "any other elementwise activation",
    "product": "a gated product a·g(b), read on both of its factors",
    "gate": "a squeeze-and-excitation gate, read as the factor of each sample and channel",
}
DEFAULT_KINDS = ("meta_acon", "acon")
#: Kinds whose layers have no β: the nonlinearities of networks without ACON layers.
PLAIN_KINDS = ("activation", "product")
#: Kinds whose layers own p1 and p2.
ACON_KINDS = ("meta_acon", "acon", "acon_plain_gate")


@dataclass(frozen=True)
class Layer:
    """A layer that can be watched.

    Parameters
    ----------
    name : str
        Its exact name in the model's `named_modules()` (the first one, if it has several); of a
        function ``MODULE:FUNCTION#NUMBER``, such as ``layer1.0:relu#1``, ``:relu#0`` at the root.
    kind : str
        Key of `KINDS`. Before the first batch "meta_acon" and "acon" are distinguished by whether
        the layer owns a parameter called beta; the first batch decides.
    channels : int or None
        C; None where only a forward pass shows it.
    granularity : str
        What one β belongs to: "channel", "layer", "pixel", "static"; "elementwise" for
        activations and products; "unknown" before the first batch.
    reader : str
        How β is read, or where the first batch will look first; empty for activations and products.
    class_name : str
        Class of the module, or the name of the function.
    module : Module
        The layer itself, or the module that calls the function.
    axis : int
        Channel axis of the activated input.
    reading : Reading or None
        The proved reading; None before the first batch and for activations.
    asked : tuple of str
        The kinds that were asked for.
    in_place : bool
        Whether the layer overwrites its input (known after the first batch).
    known : str
        Where the layer overwrites its input: the name of the function of ``torch.nn.functional``
        whose output its own is, bit for bit; empty if there is none, or before the first batch.
    function : tuple of (str, int) or None
        Of an activation or product that is called as a function: its name, and which call of it
        within one call of `module`, the innermost module that was running.
    gate : tuple of (str, int) or None
        Of a product, the layer that makes its gate, and which of its calls.
    parameters : str
        Of one of PyTorch's activations that has some, such as ``"negative_slope=0.1"``; of a
        function known after the first batch.
    """

    name: str
    kind: str
    channels: int | None
    granularity: Granularity
    reader: str
    class_name: str
    module: nn.Module = field(repr=False, compare=False)
    axis: int = field(default=1, repr=False)
    reading: Reading | None = field(default=None, repr=False, compare=False)
    asked: tuple[str, ...] = field(default=DEFAULT_KINDS, repr=False, compare=False)
    in_place: bool = field(default=False, repr=False)
    known: str = field(default="", repr=False, compare=False)
    function: tuple[str, int] | None = field(default=None, repr=False)
    pieces: tuple[Site, ...] = field(default=(), repr=False, compare=False)
    gate: tuple[str, int] | None = field(default=None, repr=False)
    parameters: str = field(default="", repr=False)

    def site(self, call: int | None = None) -> Site:
        """Return the layer, or one use of it, as a site."""
        product = self.kind == "product"
        return Site(
            self.name, self.module, call, self.axis, function=self.function, product=product
        )

    @property
    def p1(self) -> Tensor | None:
        """Slope of the first line, (C,) on the layer's device; None where the layer has none."""
        return self._slope(0)

    @property
    def p2(self) -> Tensor | None:
        """Slope of the second line, (C,) on the layer's device; None where the layer has none."""
        return self._slope(1)

    @property
    def beta(self) -> Tensor | None:
        """Static β, (C,); None where β depends on the sample or is not known yet."""
        if self.kind == "acon_frelu" and self.channels is not None:
            return torch.ones(self.channels)
        raw = None if self.reading is None else self.reading.source.own_tensor(self.module)
        if raw is not None and self.reading is not None:
            return self._spread(TRANSFORMS[self.reading.transform](raw.detach()))
        if self.reading is None and self.kind == "acon" and "beta" in own_tensors(self.module):
            return self._spread(own_tensors(self.module)["beta"].detach())
        return None

    @property
    def halved(self) -> bool:
        """Whether the layer is a GLU: the two halves of its input are the factors."""
        called = None if self.function is None else self.function[0]
        return called == "glu" if called else isinstance(self.module, nn.GLU)

    @property
    def plain(self) -> bool:
        """Whether the layer is of a kind without β."""
        return self.kind in PLAIN_KINDS

    def _slope(self, which: int) -> Tensor | None:
        pair = slopes(self.module) if self.kind in ACON_KINDS else None
        return None if pair is None else self._spread(pair[which].detach())

    def _spread(self, values: Tensor) -> Tensor:
        flat = whole(values).reshape(-1)
        return flat.expand(self.channels) if flat.numel() == 1 and self.channels else flat


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that is sharded over devices (DTensor) in one piece, others as they are."""
    full = getattr(tensor, "full_tensor", None)
    return full() if callable(full) else tensor


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's own parameters and buffers by name, without its children's."""
    own = dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)])
    computed = set(getattr(module, "parametrizations", {}))
    computed |= {name.removesuffix("_orig").removesuffix("_g") for name in own} - set(own)
    # Parametrised, pruned or normalised by torch.nn.utils: it has the value that it is used with;
    # what that is computed from is left out.
    for name in computed:
        value = getattr(module, name, None)
        if isinstance(value, Tensor):
            for ending in ("orig", "mask", "g", "v"):
                own.pop(f"{name}_{ending}", None)
            own[name] = value
    return own


def slopes(module: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Return the slopes of the two lines, of equal shape, with one axis for the channels.

    They are p1 and p2 where the module owns both; 1 and p, or 1 and 0, where it owns nothing but
    beta and p (ACON-B), or beta alone (ACON-A, the learnable Swish).
    """
    own = own_tensors(module)
    p1, p2 = own.get("p1"), own.get("p2")
    if p1 is None and p2 is None and "beta" in own and not _parts(module):
        rest = [tensor for name, tensor in own.items() if name != "beta"]
        if set(own) <= {"beta", "p"}:
            p2 = rest[0] if rest else torch.zeros_like(own["beta"])
            p1 = torch.ones_like(p2)
    if p1 is None or p2 is None or p1.shape != p2.shape:
        return None
    if not p1.is_floating_point() or sum(size != 1 for size in p1.shape) > 1:
        return None
    return p1, p2


def _parts(module: nn.Module) -> list[nn.Module]:
    """Return the children of a module that are no parametrisations."""
    return [child for name, child in module.named_children() if name != "parametrizations"]


def owns_slopes(module: nn.Module) -> bool:
    """Return whether a module owns p1 and p2, so that it cannot be but an ACON layer."""
    return {"p1", "p2"} <= set(own_tensors(module))


#: What may stand next to the parts of an ACON-FReLU.
_PASSIVE = nn.MaxPool2d | nn.Identity | nn.Dropout | nn.Sigmoid | nn.SiLU


def is_acon_frelu(module: nn.Module) -> bool:
    """Return whether the module consists of a depthwise convolution and two normalisations."""
    if slopes(module) is not None:
        return False
    parts = [child for child in module.children() if not isinstance(child, _PASSIVE)]
    convs = [child for child in parts if isinstance(child, nn.Conv2d)]
    norms = [child for child in parts if isinstance(child, nn.BatchNorm2d | nn.SyncBatchNorm)]
    if len(parts) != 3 or len(convs) != 1 or len(norms) != 2:
        return False
    conv, channels = convs[0], convs[0].out_channels
    depthwise = conv.groups == conv.in_channels == channels
    return depthwise and all(norm.num_features == channels for norm in norms)


def check_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds as a tuple; a UsageError names what is close to an unknown one."""
    given: tuple[Any, ...] = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if other := next((type(kind) for kind in given if not isinstance(kind, str)), None):
        what = f"a kind of layer is a name such as 'activation', not a {other.__name__}"
        raise UsageError(f"{what}; a batch is given as example=")
    for kind in given:
        if kind not in KINDS:
            raise UsageError(f"unknown kind of layer {kind!r}: {closest(kind, KINDS)}")
    if not given:
        raise UsageError(f"no kind of layer given: choose among {', '.join(KINDS)}")
    return given


def scan_layers(model: nn.Module, kinds: Iterable[str] = DEFAULT_KINDS) -> list[Layer]:
    """Find the layers of some kinds without a forward pass; see `find_layers`."""
    asked = check_kinds(kinds)
    return list(_walk(unwrap(model), asked))


def default_kinds(model: nn.Module, *, moments: bool = True) -> tuple[str, ...]:
    """Return the kinds that are meant where none are given: ACON's, or else the plain ones."""
    if moments and not scan_layers(model, DEFAULT_KINDS):
        return PLAIN_KINDS
    return DEFAULT_KINDS


def _walk(model: nn.Module, asked: tuple[str, ...]) -> Iterator[Layer]:
    inside: set[nn.Module] = set()  # the parts of a layer are no layers of their own
    for name, module in model.named_modules():
        if slopes(module) is not None:
            inside.update(m for m in module.modules() if m is not module and slopes(m) is None)
        layer = None if module in inside else _match(name, module, asked)
        if layer is not None:
            yield layer
            if layer.plain:
                inside.update(module.modules())


def _match(name: str, module: nn.Module, asked: tuple[str, ...]) -> Layer | None:
    class_name = type(module).__name__
    pair = slopes(module)
    if pair is not None:
        if not set(asked) & set(ACON_KINDS):
            return None
        return _acon(name, module, pair[0].numel(), asked)
    if "acon_frelu" in asked and is_acon_frelu(module):
        channels = next(m.out_channels for m in module.children() if isinstance(m, nn.Conv2d))
        return Layer(
            name, "acon_frelu", channels, "static", "constant 1", class_name, module, asked=asked
        )
    if "gate" in asked and looks_like_gate(module):
        return Layer(
            name, "gate", None, "unknown", "on the first batch", class_name, module, asked=asked
        )
    plain = "product" if isinstance(module, nn.GLU) else "activation"
    if plain in asked and (plain == "product" or is_activation(module)):
        own = module_parameters(module)
        return Layer(
            name, plain, None, "elementwise", "", class_name, module, asked=asked, parameters=own
        )
    return None


def _acon(name: str, module: nn.Module, size: int, asked: tuple[str, ...]) -> Layer | None:
    """Guess what kind of ACON layer this is; None if that kind was not asked for."""
    static = "beta" in own_tensors(module)
    kind = "acon" if static else "meta_acon"
    if kind not in asked:
        if "acon_plain_gate" not in asked:
            return None
        kind = "acon_plain_gate"
    inner = [path for path, _ in module.named_modules() if path.split(".")[-1] in ("bn2", "fc2")]
    if static:
        reader = "parameter beta"
    else:
        reader = f"module {inner[-1]}, sigmoid" if inner else "on the first batch"
    channels = size if size > 1 else None
    granularity: Granularity = "static" if static else ("channel" if inner else "unknown")
    return Layer(
        name, kind, channels, granularity, reader, type(module).__name__, module, asked=asked
    )
