"""What each way to read β costs: the same network, its layers written in three ways.

python benchmarks/strategies.py [--pairs 9] [--side 224] [--network NAME]
"""

import argparse
import copy
import warnings
from collections.abc import Callable
from contextlib import ExitStack

import torch
from common import ratios, table, write_section
from torch import Tensor, nn
from torch.nn import functional as F

import acon_analysis as acon
from acon_analysis.layers import MetaAconC
from acon_hooks import Tap, to_host


def _logits(layer: MetaAconC, x: Tensor) -> Tensor:
    """Return the β network's output computed by functions only: no module is called."""
    out = x.mean((2, 3), keepdim=True)
    for convolution, norm in ((layer.fc1, layer.bn1), (layer.fc2, layer.bn2)):
        out = F.conv2d(out, convolution.weight, convolution.bias)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        out = out * scale[:, None, None] + (norm.bias - norm.running_mean * scale)[:, None, None]
    return out


class Functional(MetaAconC):
    """The layer without inner modules to hook: β is the result of a function."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x, (N, C, H, W)."""
        d = (self.p1 - self.p2) * x
        beta = torch.sigmoid(_logits(self, x))
        return d * torch.sigmoid(beta * d) + self.p2 * x


class Hidden(MetaAconC):
    """The layer in which β is no tensor at all: only the gate's argument β·d is."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x, (N, C, H, W)."""
        d = (self.p1 - self.p2) * x
        return d * torch.sigmoid(d / (1 + torch.exp(-_logits(self, x)))) + self.p2 * x


def rewritten(model: nn.Module, kind: type[MetaAconC]) -> nn.Module:
    """Return a copy of the network whose Meta-ACON layers are of another class."""
    changed = copy.deepcopy(model)
    for module in changed.modules():
        if type(module) is MetaAconC:
            module.__class__ = kind
    return changed


def reading(model: nn.Module, x: Tensor, stack: ExitStack) -> tuple[Callable[[], object], str]:
    """Return a call that runs the network and brings β to the host, and how it is read."""
    watched = copy.deepcopy(model)
    tap = stack.enter_context(Tap(watched))

    def call() -> object:
        watched(x)
        return to_host(tap.take())

    call()
    readers = sorted({layer.reader for layer in tap.layers})
    return call, "; ".join(readers)


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--network", default="shufflenet_v2_x0_5_metaacon")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model = acon.build_model(options.network)
    rows = []
    for batch in (1, 16):
        x = torch.randn(batch, 3, options.side, options.side, generator=torch.manual_seed(0))
        for kind in (MetaAconC, Functional, Hidden):
            network = rewritten(model, kind)
            with ExitStack() as stack, torch.inference_mode():
                call, how = reading(network, x, stack)
                bare = _bare(network, x)
                ratio, more = ratios(bare, {"read": call}, options.pairs)["read"]
            rows.append((batch, kind.__name__, how, f"{ratio:.3f}", f"{more:+.2f}"))
    header = ("batch", "layer", "how β is read", "ratio to bare", "ms more")
    text = f"{options.network}, {options.side} px; each ratio to the same layers unread.\n\n"
    write_section("a. Cost of each way to read", text + table(header, rows))


def _bare(network: nn.Module, x: Tensor) -> Callable[[], object]:
    return lambda: network(x)


if __name__ == "__main__":
    main()
