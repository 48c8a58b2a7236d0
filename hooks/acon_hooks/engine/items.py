"""What an item or a batch of data holds: the arguments of a network, and labels.

The signature of the network's forward decides what is an argument. Whatever is left over and is no
label is refused, so that no mask and no second input is left out without a word.
"""

import inspect
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acon_analysis.errors import UsageError
from acon_hooks.engine.trees import like
from acon_hooks.errors import TargetWarning, UnusedDataWarning

#: Keys under which an item or batch that is a dict may hold its images, and its labels.
IMAGE_KEYS = ("image", "images", "pixel_values", "x")
LABEL_KEYS = ("label", "labels", "target", "y")

#: Names of arguments, without a plural s, that may be labels; ``y`` may as well be an input.
_TARGETS = ("label", "target")

_AS_LABEL = "forward=lambda model, batch: model(batch[0])"
_AS_ARGUMENTS = "forward=lambda model, batch: model(*batch)"
_BOTH = f"for arguments give {_AS_ARGUMENTS}, for an input and a label {_AS_LABEL}"


@dataclass(frozen=True)
class Signature:
    """The arguments that a network's forward takes."""

    # Of those that can be given by position, in order, and how many must be given.
    names: tuple[str, ...] = ()
    required: int = 0
    # Of those that can be given by name.
    keywords: frozenset[str] = frozenset()
    # Whether it takes ``*args`` and ``**kwargs``.
    any_number: bool = True
    any_name: bool = True

    @classmethod
    def of(cls, model: nn.Module) -> "Signature":
        """Return the signature of a model's forward; that of anything where it has none."""
        try:
            parameters = list(inspect.signature(model.forward).parameters.values())
        except (TypeError, ValueError):
            return cls()
        kinds = inspect.Parameter
        by_position = (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
        by_name = (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
        positional = [one for one in parameters if one.kind in by_position]
        return cls(
            tuple(one.name for one in positional),
            sum(one.default is kinds.empty for one in positional),
            frozenset(one.name for one in parameters if one.kind in by_name),
            any(one.kind is kinds.VAR_POSITIONAL for one in parameters),
            any(one.kind is kinds.VAR_KEYWORD for one in parameters),
        )

    @property
    def most(self) -> float:
        """How many arguments can be given by position."""
        return float("inf") if self.any_number else len(self.names)

    def optional(self, count: int, *, targets: bool) -> list[tuple[int, str]]:
        """Return index and name of the optional of N arguments: labels (`targets`) or others."""
        named = list(enumerate(self.names[:count]))[max(1, self.required) :]
        return [one for one in named if (one[1].removesuffix("s") in _TARGETS) is targets]

    def words(self) -> str:
        """Describe the arguments for an error."""
        named = [*self.names, *sorted(self.keywords - set(self.names))]
        more = [*["*args"] * self.any_number, *["**kwargs"] * self.any_name]
        return f"the network's forward takes ({', '.join([*named, *more])})"


def split_item(
    item: Any,
    what: str,
    signature: Signature,
    *,
    batch: bool = False,
    besides: Collection[Any] = (),
) -> tuple[Any, Any]:
    """Return the arguments of a network and the label(s), or None, in an item or batch.

    Arguments are a tensor, a tuple by position or a dict by name; a list is one argument that holds
    one part a sample. `what` names the item in errors; `batch`: it holds several samples, so
    several labels; `besides`: keys of a mapping that hold masks, and need not be arguments. A
    UsageError refuses what is neither argument nor label, or could be both.
    """
    given = f"data: {what}"
    if isinstance(item, Mapping):
        return _of_mapping(dict(item), given, signature, batch, besides)
    if not isinstance(item, tuple | list):
        return _input(item, given), None
    if not item:
        raise UsageError(f"{given} is an empty {type(item).__name__}; expected are images")
    parts = list(item)
    several = _is_samples(item, batch)
    shown = f"{given} is a {type(item).__name__} of {len(parts)}"
    count = _arguments_of_sequence(parts, shown, signature, batch, several=several)
    if count == 0:  # one part a sample
        return [_tree(part, given, batch) for part in parts], None
    labels = parts[count:]
    if unused := [str(index) for index, one in enumerate(parts) if index > count and _number(one)]:
        _warn_unused(unused)
    label = labels[0] if labels else None
    if count > 1:
        _warn_of_targets(parts[:count], signature)
        first = _input(parts[0], given, batch=batch)
        return (first, *(_argument(part, given, batch) for part in parts[1:count])), label
    if isinstance(parts[0], Mapping):
        arguments, own = _of_mapping(dict(parts[0]), given, signature, batch, besides)
        return arguments, own if label is None else label
    return _input(parts[0], given, batch=batch), label


def whole_item(item: Any, what: str, *, batch: bool = False) -> tuple[Any, Any]:
    """Return all of an item or batch, for a ``forward`` of the user's own, and label(s) in it."""
    tree = _tree(item, f"data: {what}", batch)
    label = None
    if isinstance(item, Mapping):
        label = next((item[key] for key in LABEL_KEYS if key in item), None)
    elif isinstance(item, tuple | list) and not _is_samples(item, batch):
        tree = tree if isinstance(item, tuple) else tuple(tree)
        label = item[1] if len(item) > 1 else None
    return tree, label if _is_label(label, batch) else None


def _is_samples(item: Any, batch: bool) -> bool:
    """Whether a list holds one tensor a sample: without a number of samples in common."""
    if not batch or not isinstance(item, list) or not all(isinstance(x, Tensor) for x in item):
        return False
    return {x.ndim for x in item} in ({2}, {3}, {4}) and len({len(x) for x in item}) > 1


def _arguments_of_sequence(
    parts: list[Any], given: str, signature: Signature, batch: bool, *, several: bool
) -> int:
    """Return how many parts are arguments; 0 if the parts are samples of one argument."""
    labels = [index for index, one in enumerate(parts) if index and _is_label(one, batch)]
    count = labels[0] if labels else len(parts)
    if several and not labels:
        return 0
    others = [index for index in range(count, len(parts)) if index not in labels]
    if others:
        raise UsageError(
            f"{given}; besides an input of shape {_shape(parts[0])} it has "
            f"{_described(parts[others[0]])} at {others[0]}, which is no label (one number or "
            f"string a sample, or one-hot), after {_described(parts[count])} at {count}, which "
            f"looks like one; {_BOTH}"
        )
    if count > signature.most:
        raise UsageError(
            f"{given}; besides an input of shape {_shape(parts[0])} it has {_described(parts[1])} "
            f"at 1, which is no label (one number or string a sample, or one-hot), and "
            f"{signature.words()}; {_BOTH}"
        )
    if labels and _doubtful(parts, count, signature, batch):
        raise UsageError(
            f"{given}; {_described(parts[count])} at {count} looks like labels (one number or "
            f"string a sample, or one-hot), but {signature.words()} and may need it; {_BOTH}"
        )
    if not labels and count > 1 and batch and signature.required <= 1 and _like_images(parts):
        raise UsageError(
            f"{given} tensors of shape {', '.join(map(_shape, parts))}, which may be {len(parts)} "
            f"arguments or {len(parts)} samples; for arguments give {_AS_ARGUMENTS}, for samples "
            "of one argument a tuple that holds the list, (images,)"
        )
    return count


def _doubtful(parts: list[Any], count: int, signature: Signature, batch: bool) -> bool:
    """Whether the first label may be an argument: the network needs one more, or could use it."""
    if isinstance(parts[0], Mapping):  # arguments by name
        return False
    if signature.required > count:
        return True
    if signature.most <= count:
        return False
    name = signature.names[count] if count < len(signature.names) else ""
    shape, first = (tuple(getattr(parts[at], "shape", ())) for at in (count, 0))
    one_hot = len(shape) == 1 + batch and shape[-1] > 1  # or a mask that leaves one position
    return "len" in name or (one_hot and shape == first[: len(shape)])


def _like_images(parts: list[Any]) -> bool:
    """Whether tensors may be images without an axis of samples, (C, H, W) with C of 1 or 3."""
    return all(isinstance(one, Tensor) and one.ndim == 3 and len(one) in (1, 3) for one in parts)


def _of_mapping(
    named: dict[Any, Any], given: str, signature: Signature, batch: bool, besides: Collection[Any]
) -> tuple[Any, Any]:
    """Return arguments and label(s) of a mapping."""
    shown = f"{given} is a dict with the keys {', '.join(map(repr, named)) or 'none'}"
    taken = [key for key in named if key in signature.keywords]
    label = next((key for key in LABEL_KEYS if key in named and key not in taken), None)
    labels = None if label is None else named[label]
    if label is None:
        both = (key for key in taken if key in LABEL_KEYS and _is_label(named[key], batch))
        labels = next((named[key] for key in both), None)
    rest = {key: named[key] for key in named if key not in (*taken, label, *besides)}
    image = next((key for key in IMAGE_KEYS if key in named), None)
    first = signature.names[0] if signature.names else image
    if image is not None and (taken == [image] == [first] or not taken):
        _refuse_left_over({**rest, image: None}, shown, signature, batch)
        return _input(named[image], given, batch=batch), labels
    if signature.any_name:
        taken, rest = [*taken, *rest], {}
    if rest or not taken:
        raise UsageError(
            f"{shown}; its images are expected under one of {_quoted(IMAGE_KEYS)}, labels under "
            f"one of {_quoted(LABEL_KEYS)}, other inputs under the names of the arguments: "
            f"{signature.words()}, and {_quoted(rest)} is none of them (a mask lies under the key "
            "that mask= names); or say how the network is called: "
            "forward=lambda model, batch: model(batch[...])"
        )
    return {str(key): _argument(named[key], f"{given} at {key!r}", batch) for key in taken}, labels


def _refuse_left_over(named: dict[Any, Any], given: str, signature: Signature, batch: bool) -> None:
    """Raise for a mapping that holds more than an image and what is like a label."""
    for key, value in named.items():
        if not _is_label(value, batch):
            raise UsageError(
                f"{given}; it has {_described(value)} at {key!r}, which is no label (one number "
                f"or string a sample, or one-hot), and {signature.words()}"
            )
    if unused := [repr(key) for key, value in named.items() if _number(value)]:
        _warn_unused(unused)


def _warn_unused(names: list[str]) -> None:
    """Warn of numbers that are no label and no argument."""
    text = f"data: {', '.join(names)} of the samples is not used: the network does not take it"
    warnings.warn(text, UnusedDataWarning, stacklevel=5)


def _warn_of_targets(parts: list[Any], signature: Signature) -> None:
    """Warn where what looks like labels is an argument: the network may compute its loss."""
    for index, name in signature.optional(len(parts), targets=True):
        if not isinstance(parts[index], Tensor | np.ndarray):  # what a detector takes
            continue
        text = (
            f"data: {_described(parts[index])} at {index} is given to {name!r} of the network's "
            "forward, and is no label (one number or string a sample, or one-hot); if a loss is "
            f"not to be measured, give data without it, or {_AS_LABEL}"
        )
        warnings.warn(text, TargetWarning, stacklevel=2)


def plain_label(label: Any) -> Any:
    """Return a label as it is, the number in a tensor of one element, or the class of a one-hot."""
    if not isinstance(label, Tensor | np.ndarray):
        return label
    flat = torch.as_tensor(label).reshape(-1)
    return flat[0].item() if len(flat) == 1 else int((flat == 1).int().argmax())


def _is_label(value: Any, batch: bool) -> bool:
    """Whether a value is one number or string a sample, or one-hot, for however many samples."""
    if value is None or isinstance(value, str | bytes | Number | np.bool_):
        return True
    if isinstance(value, tuple | list):
        return batch and all(_is_label(one, False) for one in value)
    if not isinstance(value, Tensor | np.ndarray) or (batch and value.ndim == 0):
        return False
    shape = value.shape[1:] if batch else value.shape
    if all(size == 1 for size in shape):
        return True
    ones, zeros = (value == 1).sum(-1), (value == 0).sum(-1)
    return len(shape) == 1 and bool(((ones == 1) & (zeros == shape[0] - 1)).all())


def _number(value: Any) -> bool:
    """Whether a label is a number, which a network could need, and no name."""
    first = value[0] if isinstance(value, tuple | list) and value else value
    return isinstance(first, Number | np.bool_ | np.ndarray | Tensor)


def _quoted(names: Iterable[Any]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _shape(value: Any) -> str:
    return str(tuple(getattr(value, "shape", ())))


def _described(value: Any) -> str:
    """Describe a value for an error."""
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return f"a {kind}" if shape is None else f"a {kind} of shape {tuple(shape)}"


def _input(value: Any, given: str, *, batch: bool = False) -> Any:
    """Return the first argument of a network: a tensor with axes, or a list of samples' parts."""
    if isinstance(value, tuple | list) and any(isinstance(x, Tensor) and x.ndim for x in value):
        return [_tree(part, given, batch) for part in value]
    found = _as_tensor(value, given)
    if found.ndim == 0:
        raise UsageError(f"{given} holds a single number where an image is expected")
    return found


def _argument(value: Any, given: str, batch: bool) -> Any:
    """Return another argument: a list of samples' parts where it is a sequence of mappings."""
    found = _tree(value, given, batch)
    maps = isinstance(found, tuple) and any(isinstance(part, dict) for part in found)
    return list(found) if maps else found


def _tree(value: Any, given: str, batch: bool) -> Any:
    """Return a part of an item or batch as a tree; settings and names of a batch stay."""
    if isinstance(value, Mapping):
        return {key: _tree(part, given, batch) for key, part in value.items()}
    inner = (Tensor, np.ndarray, Mapping, tuple, list, str)
    if isinstance(value, tuple | list) and any(isinstance(part, inner) for part in value):
        return like(value, [_tree(part, given, batch) for part in value])
    if value is None or isinstance(value, str | bytes) or (batch and isinstance(value, Number)):
        return value
    return _as_tensor(value, given)


def _as_tensor(image: Any, given: str) -> Tensor:
    """Return numbers as a dense tensor."""
    try:
        found = torch.as_tensor(image)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = f"{type(image).__module__}.{type(image).__qualname__}".removeprefix("builtins.")
        advice = "a transform of the data set, such as torchvision.transforms.ToTensor(), makes one"
        if isinstance(image, str | bytes):
            advice = "turn text into numbers of tokens in the data set or its collate_fn"
        raise UsageError(
            f"{given} holds {kind!r} where a tensor or an array of numbers is expected; {advice}"
        ) from error
    if found.is_nested:
        raise UsageError(f"{given} is a nested tensor; give its samples as batches of one")
    if found.layout is not torch.strided:
        raise UsageError(f"{given} is a sparse tensor; give it as a dense one, to_dense()")
    return found
