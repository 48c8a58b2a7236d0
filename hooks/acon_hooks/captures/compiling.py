"""A compiled forward pass that hands out β together with the output.

Hooks put on a model after torch.compile never fire, and hooks that do much work break the graph.
Here small hooks are put on before, are traced with the model, and β leaves the graph as one more
output; the caller compares it with a proved reading of the same batch.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from acon_analysis.errors import UsageError
from acon_hooks.errors import HookError
from acon_hooks.layers.reading import TRANSFORMS
from acon_hooks.layers.scan import Layer
from acon_hooks.readings.batch import Key
from acon_hooks.readings.sources import InnerModule


class CompiledReader:
    """Context manager: images in, β of every layer out, through torch.compile.

    Parameters
    ----------
    model : Module
        In evaluation mode.
    layers : mapping
        (layer name, call) -> settled layer, those with a β per sample.
    widths : mapping
        (layer name, call) -> channels of β.
    batch_size : int
        Images that every forward pass gets: a shorter batch is filled up with copies of its last
        image, so that nothing is compiled twice.

    Raises
    ------
    UsageError
        If β of a layer is not read from an inner module, which is all that can be compiled.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[Key, Layer],
        widths: Mapping[Key, int],
        batch_size: int,
    ) -> None:
        self.model, self.layers, self.widths = model, layers, widths
        self.batch_size = batch_size
        self.output: Any = None
        self._caught: list[Tensor] = []
        self._handles: list[RemovableHandle] = []
        self._compiled: Callable[[Tensor], tuple[Any, Tensor]] | None = None
        for (name, call), layer in layers.items():
            source = None if layer.reading is None else layer.reading.source
            simple = isinstance(source, InnerModule) and not source.ordinal
            if not simple or call or layer.granularity == "pixel":
                raise UsageError(
                    f"compile: β of layer {name!r} is read from {layer.reader}, which a compiled "
                    "network does not show; capture without --compile"
                )

    def __enter__(self) -> "CompiledReader":
        for layer in self.layers.values():
            if layer.reading is None:
                continue
            reading = layer.reading
            inner = reading.source.inner(self.model.get_submodule(layer.name))
            if inner is not None:
                hook = _catcher(self._caught, TRANSFORMS[reading.transform])
                self._handles.append(inner.register_forward_hook(hook))
        torch._dynamo.reset()
        self._compiled = torch.compile(self._forward, dynamic=False)
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._compiled = self.output = None
        torch._dynamo.reset()

    def _forward(self, images: Tensor) -> tuple[Any, Tensor]:
        self._caught.clear()
        output = self.model(images)
        beta = torch.cat([value.reshape(images.shape[0], -1) for value in self._caught], 1)
        self._caught.clear()
        return output, beta

    def __call__(self, images: Tensor) -> dict[Key, Tensor]:
        """Run a batch; return β, (N, channels), by layer and call.

        Raises
        ------
        HookError
            If the compiled network yielded fewer or more values than the layers have.
        """
        if self._compiled is None:
            raise HookError("the compiled reader is not active")
        count = len(images)
        if count < self.batch_size:
            filling = images[-1:].expand(self.batch_size - count, *images.shape[1:])
            images = torch.cat([images, filling])
        self.output, beta = self._compiled(images)
        expected = sum(self.widths[key] for key in self.layers)
        if beta.shape != (len(images), expected):
            raise HookError(
                f"the compiled network yielded β of shape {tuple(beta.shape)}; its layers have "
                f"({len(images)}, {expected}): hooks did not all fire"
            )
        pieces = torch.split(beta[:count], [self.widths[key] for key in self.layers], 1)
        return dict(zip(self.layers, pieces, strict=True))


def _catcher(caught: list[Tensor], transform: Callable[[Tensor], Tensor]) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
        caught.append(transform(output))

    return hook
