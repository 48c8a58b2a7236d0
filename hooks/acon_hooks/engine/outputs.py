"""Which tensor of a network's output is meant: logits, or whatever else is compared."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from acon_analysis.errors import UsageError
from acon_analysis.screen import counted

#: What picks a tensor out of an output: an index, a key or the name of an attribute, a callable
#: that is given the output, or None for the only tensor or the logits.
Output = int | str | Callable[[Any], Any] | None

#: The key or attribute that is taken unless something else is asked for.
LOGITS = "logits"

_HOW = (
    "say which one with output= (--output): an index, a key or the name of an attribute, or a "
    "callable that is given the output"
)


def pick_output(
    output: Any, wanted: Output = None, *, samples: int | None = None, sample_axis: int = 0
) -> Tensor:
    """Return the tensor of a network's output that is meant, floating-point, (samples, ...).

    `wanted` is an index, a key, the name of an attribute, or a callable that is given the output;
    None takes what is called logits, or the only tensor, numbers such as a loss and tensors of
    integers left aside where there are several. In an output with more axes than the input
    the samples are looked for on `sample_axis` first.
    """
    found = _chosen(output, wanted)
    if not isinstance(found, Tensor) or not found.is_floating_point():
        name = "" if wanted is None else f" output={wanted!r} is {_described(found)},"
        what = f"the output is {_described(output)};{name} not a tensor of real numbers"
        raise UsageError(f"{what}; {_HOW}")
    if found.ndim > sample_axis + 1 and found.shape[sample_axis] == samples:
        found = found.movedim(sample_axis, 0)
    if samples is not None and (found.ndim == 0 or len(found) != samples):
        raise UsageError(
            f"the output that is compared has the shape {tuple(found.shape)}, but the first axis "
            f"must be that of the {counted(samples, 'sample')}; the output is "
            f"{_described(output)}; {_HOW}"
        )
    return found


def _chosen(output: Any, wanted: Output) -> Any:
    """Return the part of an output that is meant."""
    if callable(wanted):
        return wanted(output)
    if isinstance(wanted, int) and isinstance(output, Tensor):
        raise UsageError(f"the output is {_described(output)}, so output={wanted} means nothing")
    if wanted is not None:
        try:
            if isinstance(wanted, int) or (isinstance(output, Mapping) and wanted in output):
                return output[wanted]
            return getattr(output, wanted)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            text = f"there is no output={wanted!r} in the output, which is {_described(output)}"
            raise UsageError(f"{text}; {_HOW}") from error
    if isinstance(output, Tensor):
        return output
    logits = output.get(LOGITS) if isinstance(output, Mapping) else getattr(output, LOGITS, None)
    if isinstance(logits, Tensor):
        return logits
    tensors = list(tensors_in(output))
    if len(tensors) > 1:
        tensors = [one for one in tensors if one.ndim and one.is_floating_point()]
    if len(tensors) != 1:
        raise UsageError(f"the output is {_described(output)}, without one called logits; {_HOW}")
    return tensors[0]


def _parts(value: Any) -> dict[str, Any]:
    """Return the named parts of a tuple, dict or object."""
    if isinstance(value, Mapping):
        return {repr(key): part for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        names = getattr(value, "_fields", range(len(value)))
        return {str(name): part for name, part in zip(names, value, strict=False)}
    return {f".{name}": part for name, part in getattr(value, "__dict__", {}).items()}


def tensors_in(value: Any, depth: int = 3) -> Iterator[Tensor]:
    """Yield the tensors in an output."""
    if isinstance(value, Tensor):
        yield value
    elif depth:
        for part in _parts(value).values():
            yield from tensors_in(part, depth - 1)


def _described(value: Any, depth: int = 2) -> str:
    """Describe an output: what it is, and the shapes of the tensors in it."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    parts = _parts(value) if depth else {}
    if not parts:
        return f"{type(value).__name__}" if not isinstance(value, int | float) else repr(value)
    shown = [f"{name}: {_described(part, depth - 1)}" for name, part in list(parts.items())[:12]]
    more = ", ..." if len(parts) > 12 else ""
    return f"{type(value).__name__} of {', '.join(shown)}{more}"
