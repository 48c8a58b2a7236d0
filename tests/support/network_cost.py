"""What a network costs: parameters and multiply-adds."""

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, a shared one counted once; buffers are none."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Return the multiply-adds of one sample, the "FLOPs" column of the literature.

    Counted by torch for convolutions and matrix products, half of its floating point operations;
    elementwise work, normalisation and pooling count nothing, as in the papers. The forward pass
    runs in eval mode on tensors without data, so that it takes neither time nor memory; hooks on
    the model fire and see such tensors.
    """
    tensors = {
        name: tensor.to("meta")
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    first = next((t for t in tensors.values() if t.is_floating_point()), None)
    sample = torch.empty(
        1, *input_shape, device="meta", dtype=first.dtype if first is not None else None
    )
    training = [module for module in model.modules() if module.training]
    counter = FlopCounterMode(display=False)
    try:
        model.eval()
        with torch.no_grad(), counter:
            functional_call(model, tensors, (sample,))
    finally:
        for module in training:
            module.training = True
    return int(counter.get_total_flops()) // 2
