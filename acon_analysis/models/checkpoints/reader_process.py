"""Runs torch.load in a process of its own that has little to take and nothing to give away."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from acon_analysis.models.checkpoints.dtypes import name_of
from acon_analysis.models.checkpoints.errors import Refusal
from acon_analysis.models.checkpoints.limits import Limits
from acon_analysis.models.checkpoints.matching import Plan
from acon_analysis.models.checkpoints.records import Contents
from acon_analysis.models.checkpoints.source import Source
from acon_analysis.models.checkpoints.tensorfile import Declared, in_file_order, make_header

_CHILD = Path(__file__).with_name("child.py")
_REPLY_BYTES = 64 * 2**10
#: What of the environment is passed on: where programs and libraries are, no more.
_PASSED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL")


def convert(source: Source, contents: Contents, plan: Plan, folder: Path, limits: Limits) -> Path:
    """Let a child process write the planned tensors as safetensors; return the file."""
    tensors = in_file_order([Declared(item.name, item.dtype, item.shape) for item in plan.taken])
    by_name = {item.name: item for item in plan.taken}
    header = make_header(tensors, {})
    written = len(header) + sum(tensor.size for tensor in tensors)
    mapped = contents.format == "torch zip"
    # Converting and straightening a tensor takes a copy each.
    copies = 2 * max((tensor.size for tensor in tensors), default=0)
    output = folder / "weights.safetensors"
    request = {
        "sys_path": [entry for entry in sys.path if entry and Path(entry).is_absolute()],
        "file": str(source.path.absolute()),
        "mmap": mapped,
        "entry": plan.entry,
        "output": str(output),
        "header": header.decode("latin-1"),
        "tensors": [
            {
                "key": by_name[tensor.name].key,
                "saved": name_of(record.storage.dtype) if record else None,
                "shape": tensor.shape,
                "dtype": name_of(tensor.dtype),
                "size": tensor.size,
            }
            for tensor in tensors
            for record in (by_name[tensor.name].record,)
        ],
        "limits": {
            "address_space": source.size + copies + limits.slack_bytes,
            "seconds": limits.seconds,
            "written": written + 2**20,
        },
    }
    _run(request, folder, limits)
    return output


def _run(request: dict[str, object], folder: Path, limits: Limits) -> None:
    if not sys.executable:
        raise Refusal("Python does not know its own program, so no reading process can be started")
    environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
    # One thread and one heap: each more of them reserves address space.
    environment |= {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "CUDA_VISIBLE_DEVICES": ""}
    reply = folder / "reply.json"
    with reply.open("wb") as stdout:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env=environment,
                close_fds=True,
                start_new_session=True,
            )
        except OSError as error:
            raise Refusal(f"no reading process can be started ({error})") from None
        with process:
            try:
                process.communicate(json.dumps(request).encode(), timeout=limits.seconds)
            except subprocess.TimeoutExpired:
                raise Refusal(f"reading it took more than {limits.seconds} s") from None
            finally:
                _end(process)
    with reply.open("rb") as file:
        _require_done(file.read(_REPLY_BYTES), process.returncode)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever it may have started; it leads a session of its own."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)


def _require_done(reply: bytes, code: int) -> None:
    try:
        answer = json.loads(reply)
        error = answer["error"] if isinstance(answer, dict) else "no answer"
    except (ValueError, KeyError, RecursionError):
        error = f"the reading process ended with {_ending(code)}"
    if error is not None or code != 0:
        raise Refusal(f"torch cannot read it ({_one_line(str(error))})")


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())[:300]
    return line if line.isprintable() else ascii(line)[1:-1]
