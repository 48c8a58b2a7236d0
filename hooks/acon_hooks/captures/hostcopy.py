"""β from the device to the host while the device goes on with the next batch."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from acon_hooks.readings.batch import Key, to_host

_cuda: Any = torch.cuda

Arrays = dict[Key, npt.NDArray[Any]]


class HostCopy:
    """Copies each batch's β to the host in one transfer.

    On CUDA devices the transfer runs on a stream of its own into page-locked memory, so that the
    result of one batch can be fetched while the next one is computed; elsewhere it is done at
    once.

    Parameters
    ----------
    device : torch.device
        Where β comes from.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream: Any = _cuda.Stream(device) if device.type == "cuda" else None

    @property
    def depth(self) -> int:
        """Batches that may be under way before the oldest one is fetched."""
        return 0 if self._stream is None else 1

    def start(self, values: Mapping[Key, Tensor]) -> Callable[[], Arrays]:
        """Begin to copy; what is returned waits for the end and returns the arrays, float32."""
        if self._stream is None or not values:
            arrays = to_host(values)
            return lambda: arrays
        return self._start(values, self._stream)

    @staticmethod
    def _start(values: Mapping[Key, Tensor], stream: Any) -> Callable[[], Arrays]:
        shapes = {key: tuple(value.shape) for key, value in values.items()}
        flat = torch.cat([value.detach().reshape(-1).float() for value in values.values()])
        host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
        stream.wait_stream(_cuda.current_stream(flat.device))
        with _cuda.stream(stream):
            host.copy_(flat, non_blocking=True)
            flat.record_stream(stream)  # its memory must not be reused before the copy is done
            copied = _cuda.Event()
            copied.record(stream)

        def fetch() -> Arrays:
            copied.synchronize()
            sizes = [int(np.prod(shape)) for shape in shapes.values()]
            pieces = np.split(host.numpy(), np.cumsum(sizes)[:-1])
            return {
                key: piece.reshape(shape)
                for (key, shape), piece in zip(shapes.items(), pieces, strict=True)
            }

        return fetch
