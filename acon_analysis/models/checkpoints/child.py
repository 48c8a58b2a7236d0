"""The reading process: loads one file with torch's restricted reader, writes plain tensors.

Run as a script by `reader_process`, never imported: it gets a request (JSON) on its standard
input and answers ``{"error": null}`` or ``{"error": "why"}``. It knows no format but torch's; the
head of its output is part of the request.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


class Inert:
    """Replaces NumPy numbers and saved options; keeps nothing, does nothing."""

    def __new__(cls, *_: object) -> "Inert":
        """Ignore the arguments."""
        return object.__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


#: Harmless globals of training checkpoints that torch's reader does not know by itself.
STAND_INS = (
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "argparse.Namespace",
)


def limit(limits: dict[str, int]) -> None:
    """Bound what this process may use beyond what importing torch took, where systems can."""
    try:
        import resource
    except ImportError:
        return
    bounds = {
        "RLIMIT_CPU": limits["seconds"],
        "RLIMIT_FSIZE": limits["written"],
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 64,
    }
    try:
        statm = Path("/proc/self/statm").read_text(encoding="ascii")
        used = int(statm.split()[0]) * os.sysconf("SC_PAGE_SIZE")
        bounds["RLIMIT_AS"] = used + limits["address_space"]
    except OSError:
        pass
    for name, bound in bounds.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound, bound))


def convert(request: dict[str, Any]) -> None:
    """Load the file and write the tensors asked for, each checked once more."""
    import torch

    torch.set_num_threads(1)
    limit(request["limits"])
    stand_ins = [(Inert, name) for name in STAND_INS]
    with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
        state = torch.load(
            request["file"], map_location="cpu", weights_only=True, mmap=request["mmap"]
        )
    for name in request["entry"]:
        state = state[name]
    with Path(request["output"]).open("xb") as file:
        file.write(request["header"].encode("latin-1"))
        for wanted in request["tensors"]:
            if wanted["saved"] is None:
                file.write(bytes(wanted["size"]))
                continue
            tensor = state[wanted["key"]]
            if type(tensor) is torch.nn.Parameter:
                tensor = tensor.data
            require_plain(tensor, wanted)
            plain = tensor.to(getattr(torch, wanted["dtype"])).contiguous()
            raw = plain.reshape(-1).view(torch.uint8).numpy()
            if raw.nbytes != wanted["size"]:
                raise ValueError(f"{raw.nbytes} bytes where {wanted['size']} were expected")
            file.write(raw.data)
        file.flush()
        os.fsync(file.fileno())


def require_plain(tensor: Any, wanted: dict[str, Any]) -> None:
    """Raise unless torch read what the gate had seen: a plain CPU tensor of that shape and type."""
    import torch

    if type(tensor) is not torch.Tensor:
        raise TypeError(f"a {type(tensor).__name__} where a tensor was expected")
    found = (tensor.layout, tensor.device.type, str(tensor.dtype), list(tensor.shape))
    expected = (torch.strided, "cpu", f"torch.{wanted['saved']}", list(wanted["shape"]))
    if found != expected or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
        raise ValueError(f"{found} where {expected} was expected")


def reason(problem: Exception) -> str:
    """Return what torch found, without its advice how to load the file all the same."""
    text = str(problem).partition("\n\nCheck the documentation")[0]
    text = text.rpartition("\n\n")[2].rpartition("WeightsUnpickler error:")[2]
    return text.partition(" Please use")[0]


def main() -> None:
    """Answer the one request."""
    error = None
    try:
        request = json.load(sys.stdin)
        sys.path.extend(entry for entry in request["sys_path"] if entry not in sys.path)
        convert(request)
    except Exception as problem:
        error = f"{type(problem).__name__}: {reason(problem)}"[:2000]
    sys.stdout.write(json.dumps({"error": error}))


if __name__ == "__main__":
    main()
