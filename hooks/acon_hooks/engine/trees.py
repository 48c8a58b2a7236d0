"""What a network is given, as a tree of tensors, cut and put in order along the samples.

In such a tree a list holds one part a sample (images of different sizes, say); a tuple or a dict
holds the arguments of the network, or parts of one argument.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

#: Which samples: a slice, or their positions in a new order.
Index = slice | list[int]


def mapped(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Return a tree with every tensor changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: mapped(change, part) for key, part in tree.items()}
    if isinstance(tree, tuple | list):
        return like(tree, [mapped(change, part) for part in tree])
    return tree


def copied(tree: Any) -> Any:
    """Return a tree whose tensors a network can overwrite without harm to the originals."""
    return mapped(lambda value: value.detach().clone(), tree)


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a tree with their paths, in order."""
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, Mapping | tuple | list):
        parts = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
        for key, part in parts:
            yield from leaves(part, f"{path}/{key}")


def like(given: tuple[Any, ...] | list[Any], parts: Sequence[Any]) -> Any:
    """Return parts as a tuple or list of the type of another one."""
    kind: Any = type(given)
    return kind(*parts) if hasattr(given, "_fields") else kind(parts)


def count_samples(tree: Any, axis: int = 0) -> int:
    """Return how many samples a tree's first tensor or list with any has, on `axis`, or 0."""
    found = list(_holders(tree))
    if not found or (isinstance(found[0], Tensor) and found[0].is_nested):
        return 0
    if isinstance(found[0], list | PackedSequence):
        return len(found[0]) if isinstance(found[0], list) else int(found[0].batch_sizes[0])
    shapes = [value.shape for value in found if isinstance(value, Tensor) and not value.is_nested]
    return next((shape[axis] for shape in shapes if len(shape) > axis), shapes[0][0])


def _holders(tree: Any) -> Iterator[Tensor | list[Any] | PackedSequence]:
    """Yield the tensors with axes and the lists of samples in a tree."""
    if isinstance(tree, list | PackedSequence) or (isinstance(tree, Tensor) and tree.ndim):
        yield tree
    elif isinstance(tree, Mapping | tuple):
        for part in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _holders(part)


def sample_axis(value: Tensor, count: int, axis: int = 0) -> int | None:
    """Return the axis of a tensor's samples: `axis`, or else the first; None where it has none."""
    for along in (axis, 0):
        if value.ndim > along and value.shape[along] == count:
            return along
    return None


def take(tree: Any, index: Index, count: int, axis: int = 0) -> Any:
    """Return some of `count` samples of a tree; what belongs to no sample stays whole."""
    if isinstance(tree, Tensor):
        along = None if tree.is_nested else sample_axis(tree, count, axis)
        return tree if along is None else tree[(slice(None),) * along + (index,)]
    if isinstance(tree, Mapping):
        return {key: take(part, index, count, axis) for key, part in tree.items()}
    if isinstance(tree, list) and len(tree) == count:
        return tree[index] if isinstance(index, slice) else [tree[at] for at in index]
    if isinstance(tree, tuple | list) and not isinstance(tree, PackedSequence):
        return like(tree, [take(part, index, count, axis) for part in tree])
    return tree


def stacked(items: Sequence[Any], axis: int = 0) -> Any:
    """Return the trees of single samples as that of a batch; a ValueError names what differs."""
    first = items[0]
    if isinstance(first, Tensor):
        for item in items[1:]:
            if not isinstance(item, Tensor) or item.shape != first.shape:
                shape = tuple(item.shape) if isinstance(item, Tensor) else type(item).__name__
                raise ValueError(f"{tuple(first.shape)} and {shape}")
        return torch.stack(list(items), axis if first.ndim >= axis else 0)
    if isinstance(first, Mapping):
        for item in items[1:]:
            if not isinstance(item, Mapping) or set(item) != set(first):
                raise ValueError(f"{_kind(first)} and {_kind(item)}")
        return {key: stacked([item[key] for item in items], axis) for key in first}
    if isinstance(first, tuple | list):
        for item in items[1:]:
            if not isinstance(item, tuple | list) or len(item) != len(first):
                raise ValueError(f"{_kind(first)} and {_kind(item)}")
        return tuple(stacked(parts, axis) for parts in zip(*items, strict=True))
    return first if all(item == first for item in items) else list(items)


def _kind(value: Any) -> str:
    """Describe a part of a tree for an error."""
    if isinstance(value, Mapping):
        return f"a dict with the keys {', '.join(map(repr, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def described(tree: Any) -> str:
    """Describe a tree for an error: shapes, and the keys or positions that they lie under."""
    if isinstance(tree, Tensor):
        return str(tuple(tree.shape))
    if isinstance(tree, Mapping):
        return f"{{{', '.join(f'{key!r}: {described(part)}' for key, part in tree.items())}}}"
    if isinstance(tree, tuple | list) and len(tree) <= 8:
        return f"a {type(tree).__name__} of {', '.join(map(described, tree))}"
    return f"a {type(tree).__name__}"
