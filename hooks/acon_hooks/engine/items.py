"""What an item or a batch of data holds: the input, and labels.

A network is given one input. Whatever else is no label is refused, so that no mask and no second
input is left out without a word.
"""

import warnings
from collections.abc import Mapping
from numbers import Number
from typing import Any

import numpy as np
import torch

from acon_analysis.errors import UsageError
from acon_hooks.errors import UnusedDataWarning

#: Keys under which an item or batch that is a dict may hold its images, and its labels.
IMAGE_KEYS = ("image", "images", "pixel_values", "x")
LABEL_KEYS = ("label", "labels", "target", "y")

_KNOWN = (
    f"its images are expected under one of {', '.join(map(repr, IMAGE_KEYS))}, labels under one of "
    f"{', '.join(map(repr, LABEL_KEYS))}"
)
_ONE_INPUT = (
    "a network is given one input so far: give the inputs alone or (input, label), and put what "
    "else it needs, such as a mask, into a module around it that makes it from the input"
)


def split_item(item: Any, what: str, *, batch: bool = False) -> tuple[torch.Tensor, Any]:
    """Return image(s) and label(s) of an item or batch; the label is None where there is none.

    Parameters
    ----------
    item : Any
        Images, (images, labels, ...), or a dict with one of the `IMAGE_KEYS`.
    what : str
        How an error calls it.
    batch : bool
        Whether it holds several samples, and so several labels.

    Raises
    ------
    UsageError
        If it holds no numbers to make a tensor of, or more than one input.
    """
    given = f"data: {what}"
    image: int | str | None
    label: int | str | None
    if isinstance(item, Mapping):
        given += f" is a dict with the keys {', '.join(map(repr, item)) or 'none'}; {_KNOWN}"
        image = next((key for key in IMAGE_KEYS if key in item), None)
        label = next((key for key in LABEL_KEYS if key in item), None)
        if image is None:
            raise UsageError(f"{given}; {_ONE_INPUT}")
        named = dict(item)
    elif isinstance(item, tuple | list):
        if not item:
            raise UsageError(f"{given} is an empty {type(item).__name__}; expected are images")
        given += f" is a {type(item).__name__} of {len(item)}"
        image, label, named = 0, 1, dict(enumerate(item))
    else:
        return _as_tensor(item, what), None
    inputs, labels = _as_tensor(named.pop(image), what), named.get(label)
    for key, value in named.items():
        if not _is_label(value, batch):
            raise UsageError(
                f"{given}; besides an input of shape {tuple(inputs.shape)} it has "
                f"{_described(value)} at {key!r}, which is no label (one number or string a "
                f"sample, or one-hot); {_ONE_INPUT}"
            )
    named.pop(label, None)
    if unused := [repr(key) for key, value in named.items() if _has_numbers(value)]:
        text = f"data: {', '.join(unused)} of the samples is not used; {_ONE_INPUT}"
        warnings.warn(text, UnusedDataWarning, stacklevel=2)
    return inputs, labels


def plain_label(label: Any) -> Any:
    """Return a label as it is, the number in a tensor of one element, or the class of a one-hot."""
    if not isinstance(label, torch.Tensor | np.ndarray):
        return label
    flat = torch.as_tensor(label).reshape(-1)
    return flat[0].item() if len(flat) == 1 else int((flat == 1).int().argmax())


def _is_label(value: Any, batch: bool) -> bool:
    """Whether a value is one number or string a sample, or one-hot, for however many samples."""
    if value is None or isinstance(value, str | bytes | Number | np.bool_):
        return True
    if isinstance(value, tuple | list):
        return batch and all(_is_label(one, False) for one in value)
    if not isinstance(value, torch.Tensor | np.ndarray):
        return False
    shape = value.shape[1:] if batch else value.shape
    if all(size == 1 for size in shape):
        return True
    ones, zeros = (value == 1).sum(-1), (value == 0).sum(-1)
    return len(shape) == 1 and bool(((ones == 1) & (zeros == shape[0] - 1)).all())


def _has_numbers(value: Any) -> bool:
    """Whether a label is a number, which a network could need, and no name."""
    first = value[0] if isinstance(value, tuple | list) and value else value
    return isinstance(first, Number | np.bool_ | np.ndarray | torch.Tensor)


def _described(value: Any) -> str:
    """Describe a value for an error."""
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return f"a {kind}" if shape is None else f"a {kind} of shape {tuple(shape)}"


def _as_tensor(image: Any, what: str) -> torch.Tensor:
    """Return numbers as a dense tensor with at least one axis."""
    try:
        found = torch.as_tensor(image)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = f"{type(image).__module__}.{type(image).__qualname__}".removeprefix("builtins.")
        raise UsageError(
            f"data: {what} holds {kind!r} where a tensor or an array of numbers is expected; "
            "a transform of the data set, such as torchvision.transforms.ToTensor(), makes one of "
            "a picture"
        ) from error
    if found.is_nested:
        raise UsageError(f"data: {what} is a nested tensor; give its samples as batches of one")
    if found.layout is not torch.strided:
        raise UsageError(f"data: {what} is a sparse tensor; give it as a dense one, to_dense()")
    if found.ndim == 0:
        raise UsageError(f"data: {what} holds a single number where an image is expected")
    return found
