"""Which of a file's tensors are the model's: the state dict, its prefixes, names and shapes."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import NamedTuple

import torch

from acon_analysis.models.checkpoints.dtypes import BY_NAME, name_of
from acon_analysis.models.checkpoints.errors import Refusal, listing, nearest, show
from acon_analysis.models.checkpoints.limits import Limits
from acon_analysis.models.checkpoints.records import Contents, TensorRecord
from acon_analysis.screen import counted

#: Where a state dict stands in a training checkpoint; the first that is there is taken.
ENTRIES = (
    "state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema", "ema_state_dict",
    "ema",
)  # fmt: skip
#: What wrappers put before the names: DataParallel, torch.compile, and trainers.
PREFIXES = ("module.", "_orig_mod.", "model.")
#: What torch.nn.utils.parametrizations.weight_norm calls a weight's norm and direction.
_NORMALISED = re.compile(r"\bparametrizations\.(\w+)\.original([01])$")
_COUNTER = "num_batches_tracked"
_MAX_CHAIN = 4
_SHOWN = 5


class Wanted(NamedTuple):
    """What a model expects under a name: shape and torch's name of the element type."""

    shape: tuple[int, ...]
    dtype: str


#: Names and shapes -> the new names of those that the model's own hooks rename when it loads them.
Converter = Callable[[Mapping[str, tuple[int, ...]]], Mapping[str, str]]


def no_conversion(_: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Rename nothing."""
    return {}


class Taken(NamedTuple):
    """A tensor to be read and what it becomes; without `record` a counter that becomes 0."""

    name: str
    key: str
    record: TensorRecord | None
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Plan:
    """What to read from a file: the path to its state dict, the tensors, remarks."""

    entry: tuple[str, ...]
    taken: tuple[Taken, ...]
    notes: tuple[str, ...]


def make_plan(
    contents: Contents,
    wanted: Mapping[str, Wanted],
    entry: str | None,
    limits: Limits,
    *,
    drop: Sequence[str] = (),
    convert: Converter = no_conversion,
) -> Plan:
    """Decide which tensors of a file are read for a model; a Refusal says why they do not fit.

    `drop` are patterns (`fnmatch`) of keys that the model does not have, `convert` returns the
    names that the model's own hooks make of others.
    """
    path, found, notes = _select(contents.root, entry)
    state = _readable(found, limits, drop)
    names, remarks = _rename(state, wanted, convert)
    keys = {name: key for key, name in names.items()}
    missing = [name for name in wanted if name not in keys]
    unexpected, dropped = _left_out(
        [name for name in keys if name not in wanted], keys, found, drop
    )
    if dropped:
        remarks.append(f"{counted(len(dropped), 'key')} left out as asked: {listing(dropped)}")
    if unexpected == ["n_averaged"] and remarks:
        # torch.optim.swa_utils.AveragedModel counts its updates next to the wrapped module.
        unexpected = []
        remarks.append("'n_averaged', the counter of an averaged model, left out")
    counters = [name for name in wanted if name.rpartition(".")[2] == _COUNTER]
    if not set(counters) <= set(missing):
        counters = []
    missing = [name for name in missing if name not in set(counters)]
    _require_names(missing, unexpected, wanted, state, done=notes + remarks)
    if counters:
        remarks.append(
            f"{_COUNTER} (used in training only; torch before 0.4.1 did not save it) set to 0 in "
            f"{counted(len(counters), 'layer')}"
        )
    taken = [
        _take(name, key, state[key], wanted[name]) for name, key in keys.items() if name in wanted
    ]
    _require_shapes(taken)
    taken += [Taken(n, "", None, wanted[n].shape, BY_NAME[wanted[n].dtype]) for n in counters]
    return Plan(path, tuple(sorted(taken)), (*notes, *remarks, *_conversions(taken)))


def _is_state(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(tensor, TensorRecord) for tensor in value.values())
    )


def _select(
    root: object, entry: str | None
) -> tuple[tuple[str, ...], dict[object, object], list[str]]:
    """Return where the state dict stands, the state dict, and what to say about it."""
    path: list[str] = []
    here, others = root, list[str]()
    if entry is not None:
        if not isinstance(root, dict) or not isinstance(root.get(entry), dict):
            raise Refusal(f"it has no entry {show(entry)} that could be a state dict{_held(root)}")
        path, here = [entry], root[entry]
    while isinstance(here, dict) and not _is_state(here) and len(path) < 3:
        names = [name for name in ENTRIES if isinstance(here.get(name), dict)]
        # Under another name a state dict is taken if it is the only one.
        states = [key for key, value in here.items() if isinstance(key, str) and _is_state(value)]
        names = names or (states if len(states) == 1 else [])
        if not names:
            break
        if not path:
            others = names[1:]
        path.append(names[0])
        here = here[names[0]]
    if not isinstance(here, dict) or not any(isinstance(v, TensorRecord) for v in here.values()):
        raise Refusal(
            f"it holds no state dict{_held(root)}; expected one by itself or under "
            f"{', '.join(map(repr, ENTRIES))}"
        )
    notes = [f"taken from {'.'.join(path)!r}"] if path else []
    if others:
        notes[0] += f" (the file also has {listing(others)})"
    return tuple(path), here, notes


def _held(root: object) -> str:
    if isinstance(root, TensorRecord):
        return f" but one tensor of shape {root.shape}"
    if not isinstance(root, dict):
        return f" but {show(root)}"
    return f"; it has {listing([key for key in root if isinstance(key, str)])}" if root else ""


def _dropped(key: str, drop: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in drop)


def _left_out(
    unexpected: list[str],
    keys: Mapping[str, str],
    found: Mapping[object, object],
    drop: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Divide extra names into those that stay extra and those that a pattern leaves out."""
    others = [key for key, value in found.items() if not isinstance(value, TensorRecord)]
    extra = [*((keys[name], name) for name in unexpected), *((str(key),) * 2 for key in others)]
    for pattern in drop:
        if not any(fnmatchcase(name, pattern) for pair in extra for name in pair):
            held = (
                f"; extra are {listing([key for key, _ in extra])}" if extra else "; none is extra"
            )
            raise Refusal(f"no extra key is named {show(pattern)}, which was to be dropped{held}")
    gone = {key: None for key, name in extra if _dropped(key, drop) or _dropped(name, drop)}
    return [name for name in unexpected if keys[name] not in gone], list(gone)


def _readable(
    state: dict[object, object], limits: Limits, drop: Sequence[str]
) -> dict[str, TensorRecord]:
    result: dict[str, TensorRecord] = {}
    for key, value in state.items():
        if not isinstance(value, TensorRecord) and isinstance(key, str) and _dropped(key, drop):
            continue
        if not isinstance(key, str) or len(key) > limits.name_length:
            raise Refusal(f"its state dict has a key that no parameter has: {show(key)}")
        if not isinstance(value, TensorRecord):
            raise Refusal(f"its state dict has {show(value)} under {show(key)}, expected a tensor")
        result[key] = value
    return result


def _chains(keys: list[str]) -> list[str]:
    """Return the chains of prefixes with which at least half of the keys begin, shortest first."""
    chains = [""]
    for chain in chains:
        for prefix in PREFIXES:
            longer = chain + prefix
            share = sum(key.startswith(longer) for key in keys)
            if 2 * share >= max(len(keys), 1) and longer.count(".") <= _MAX_CHAIN:
                chains.append(longer)
    return chains


def _rename(
    state: Mapping[str, TensorRecord], wanted: Mapping[str, Wanted], convert: Converter
) -> tuple[dict[str, str], list[str]]:
    """Map the file's keys to the model's names by the least stripping that makes most keys fit."""

    def converted(names: dict[str, str]) -> dict[str, str]:
        new = convert({name: state[key].shape for key, name in names.items()})
        made = {key: new.get(name, name) for key, name in names.items()}
        return {
            key: older if name not in wanted and (older := _older(name)) in wanted else name
            for key, name in made.items()
        }

    keys = list(state)
    plain = {key: key for key in keys}
    best, note = converted(plain), ""
    score, stripped = sum(name in wanted for name in best.values()), plain
    own = [""] + [c for c in _chains(list(wanted)) if all(name.startswith(c) for name in wanted)]
    # torch.compile on a part of a model puts its mark in the middle of names: tried last.
    for inner, add, chain in product((False, True), dict.fromkeys(own), _chains(keys)):
        bare = {key: _stripped(key, chain, add, inner) for key in keys}
        names = converted(bare)
        fits = sum(name in wanted for name in names.values())
        if fits > score:
            removed = [f"prefix {chain!r} removed"] if chain else []
            removed += ["'_orig_mod.' removed inside of names"] if inner else []
            removed += [f"prefix {add!r} added"] if add else []
            best, score, stripped, note = names, fits, bare, ", ".join(removed)
    changed = [key for key in keys if best[key] != stripped[key]]
    older = sum(best[key] == _older(stripped[key]) for key in changed)
    if len(set(best.values())) != len(best):
        raise Refusal("two of its keys become one without their prefix; save them apart")
    said = [note] if note else []
    if len(changed) > older:
        count = counted(len(changed) - older, "name")
        said.append(f"{count} converted as the network does when it loads them")
    if older:
        said.append(f"{counted(older, 'name')} converted to those of torch.nn.utils.weight_norm")
    return best, said


def _older(name: str) -> str:
    """Return the name that the older weight normalisation gives to a part of a weight."""
    return _NORMALISED.sub(lambda found: f"{found[1]}_{'gv'[int(found[2])]}", name)


def _stripped(key: str, chain: str, add: str, inner: bool) -> str:
    if not key.startswith(chain):
        return key
    name = key[len(chain) :]
    if inner:
        name = name.replace("._orig_mod.", ".").removeprefix("_orig_mod.")
    return add + name


def _require_names(
    missing: list[str],
    unexpected: list[str],
    wanted: Mapping[str, Wanted],
    state: dict[str, TensorRecord],
    *,
    done: list[str],
) -> None:
    """Raise a Refusal that lists missing and unexpected keys with what comes close."""
    if not missing and not unexpected:
        return
    parts = []
    if missing:
        parts.append(
            f"{counted(len(missing), 'key')} of the model missing: {_near(missing, unexpected)}"
        )
    if unexpected:
        parts.append(f"{counted(len(unexpected), 'key')} unexpected: {_near(unexpected, missing)}")
    text = (
        "; ".join(parts)
        + f" (the file has {counted(len(state), 'tensor')}, the model {len(wanted)}"
    )
    text += "".join(f"; {note}" for note in done) + ")"
    if unexpected:
        text += (
            "; keys that the network does without can be left out by name: `acon import-checkpoint "
            "--drop NAME`, or drop=[...]"
        )
    raise Refusal(text)


def _near(names: list[str], pool: list[str]) -> str:
    def described(name: str) -> str:
        other = nearest(name, pool)
        return show(name) + (f" (near {show(other)})" if other else "")

    return listing(names, _SHOWN, described)


def _take(name: str, key: str, value: TensorRecord, expected: Wanted) -> Taken:
    source, target = value.storage.dtype, BY_NAME[expected.dtype]
    if source != target and not (source.is_floating_point and target.is_floating_point):
        raise Refusal(
            f"its tensor {show(key)} is of type {name_of(source)}, the model's of "
            f"{name_of(target)}; only floating types are converted into each other"
        )
    if not value.dense:
        raise Refusal(
            f"its tensor {show(key)} of shape {value.shape} has strides {value.strides}, which "
            "repeat or leave out elements; save `tensor.clone()`"
        )
    return Taken(name, key, value, expected.shape, target)


def _require_shapes(taken: list[Taken]) -> None:
    def described(item: Taken) -> str:
        return f"{show(item.key)} {item.record.shape if item.record else ()} for {item.shape}"

    wrong = sorted(item for item in taken if item.record and item.record.shape != item.shape)
    if wrong:
        raise Refusal(
            f"{counted(len(wrong), 'tensor')} of another shape than the model's: "
            f"{listing(wrong, _SHOWN, described)}"
        )


def _conversions(taken: list[Taken]) -> list[str]:
    counts = Counter(
        (name_of(item.record.storage.dtype), name_of(item.dtype))
        for item in taken
        if item.record and item.record.storage.dtype != item.dtype
    )
    return [
        f"{counted(count, 'tensor')} converted from {source} to {target}"
        for (source, target), count in sorted(counts.items())
    ]
