"""Channels of a network as lines or other forms: in itself, or in a copy that can be saved.

``plan_edits(model, plan)`` edits a model while it is visited; ``linearize(model, plan)`` is a copy
of it in which the plan's channels are lines, or what else the plan says.
"""

import copy
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from acon_analysis.errors import UsageError, closest
from acon_analysis.files import atomic_write, temporary_folder
from acon_analysis.models.registry import build_model, registry
from acon_analysis.screen import counted
from acon_hooks.captures.fusing import exchange
from acon_hooks.captures.identity import state_sha256
from acon_hooks.engine.edits import Form, Line, Mixed
from acon_hooks.engine.sites import Site, split_name
from acon_hooks.errors import HookError
from acon_hooks.guards import unwrap
from acon_hooks.replacement.forms import edit_of
from acon_hooks.replacement.linear_functions import CHILD, LinearizedFunctions, forward_with_lines
from acon_hooks.replacement.plan import Plan, PlanError, load_plan

PLAN_FILE = "plan.json"
WEIGHTS_FILE = "model.safetensors"


class ReplacedChannels(nn.Module):
    """The lines, or other forms, of one use of an activation; its tensors are buffers.

    They are named as the form's parameters, in the dtype and on the device of `like`. ``chosen``,
    (C,), is False where the activation itself is used. ``affine``: these are lines. ``in_place``:
    the result also takes the place of this use's input. ``passes``: this use returns its input,
    because its lines were folded into neighbours. ``parts``: of different forms on different
    channels one module each.
    """

    slope: Tensor
    intercept: Tensor
    chosen: Tensor

    def __init__(self, form: Form, like: Tensor, *, in_place: bool = False) -> None:
        super().__init__()
        self.axis, self.in_place = form.axis, in_place
        self.passes = False
        self.kind: type[Form] = type(form)
        self.fixed: dict[str, Any] = {}  # what is no tensor
        self.affine = type(form) is Line
        parts = form.parts if isinstance(form, Mixed) else ()
        self.parts = nn.ModuleList(ReplacedChannels(part, like) for part in parts)
        for name, value in vars(form).items():
            if isinstance(value, Tensor):
                dtype = value.dtype if name == "chosen" else like.dtype
                self.register_buffer(name, value.to(like.device, dtype, copy=True))
            elif name not in ("chosen", "parts"):
                self.fixed[name] = value
        self.settle()

    def settle(self) -> None:
        """Note whether all channels are chosen; after every change of the buffers."""
        self.whole = bool(self.chosen.all())

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return y with the forms of x on the chosen channels; y may be anything if all are."""
        return self.form().apply(x, y)

    def form(self) -> Form:
        """Return the functions that the buffers describe."""
        values: dict[str, Any] = {**dict(self.named_buffers(recurse=False)), **self.fixed}
        if self.whole:
            values["chosen"] = None
        parts = tuple(part.form() for part in self.parts if isinstance(part, ReplacedChannels))
        if parts:
            values["parts"] = parts
        return self.kind(**values)

    def extra_repr(self) -> str:
        """Return the arguments for `print(layer)`."""
        channels = counted(self.chosen.numel(), "channel")
        return f"{int(self.chosen.sum())} of {channels}, axis={self.axis}"


class LinearizedActivation(nn.Module):
    """An activation of which some channels are straight lines or other forms, use by use.

    The activation runs only where a channel of the use still needs it; ``inner`` is an identity
    where none does. Where it overwrites its input, so do the lines. They stay what they are in
    training; the rest of the network may be trained further. `calls` is how often it is used within
    one forward pass, `lines` has those of the uses that have any.
    """

    def __init__(self, inner: nn.Module, calls: int, lines: Mapping[int, ReplacedChannels]) -> None:
        super().__init__()
        self.inner = inner
        self.calls = calls
        self.position = 0
        self.lines = nn.ModuleDict({str(call): line for call, line in sorted(lines.items())})
        self.train(inner.training)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the activation of its first tensor, the chosen channels replaced."""
        line = self.line(self._turn())
        if line is None:
            result: Tensor = self.inner(*args, **kwargs)
            return result
        x: Tensor = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
        if line.passes:
            return x
        y = x
        if not line.whole:
            own = x.clone() if line.in_place else x
            named = {name: own if value is x else value for name, value in kwargs.items()}
            y = self.inner(*(own if value is x else value for value in args), **named)
        new: Tensor = line(x, y)
        return x.copy_(new) if line.in_place else new

    def line(self, call: int) -> ReplacedChannels | None:
        """Return the lines of a use."""
        found = dict(self.lines.items()).get(str(call))
        return found if isinstance(found, ReplacedChannels) else None

    def _turn(self) -> int:
        """Return which use of this forward pass it is; the model's own hook starts the count."""
        if self.calls == 1:
            return 0
        turn = self.position
        if turn >= self.calls:
            raise HookError(
                f"a linearised activation ran {counted(turn + 1, 'time')} in one forward pass, but "
                f"{counted(self.calls, 'time')} when the plan was made: call the whole model, not "
                "a part of it"
            )
        self.position = turn + 1
        return turn

    def extra_repr(self) -> str:
        """Return the arguments for `print(layer)`."""
        return f"calls={self.calls}"


def restart_turns(model: nn.Module, _args: Any = None) -> None:
    """Start the count of uses anew; a pre-hook of the linearised model, which is the user's own."""
    for layer in linearized_layers(model).values():
        layer.position = 0


def plan_edits(model: nn.Module, plan: Plan, *, any_weights: bool = False) -> dict[Site, Form]:
    """Return a plan as edits of a model, one a use of a layer, in float64 on the model's device.

    A PlanError if the plan does not fit the model; `any_weights` accepts other weights than those
    that the lines were fitted on.
    """
    network = unwrap(model)
    if not any_weights:
        _check_weights(network, plan)
    modules = dict(network.named_modules(remove_duplicate=False))
    device = next((value.device for value in network.parameters()), torch.device("cpu"))
    rows = dict(iter(plan.table.groupby(["layer", "call"], sort=False)))
    edits = {}
    for use in plan.layers:
        owner, function = split_name(use.layer)
        if owner not in modules:
            raise PlanError(
                f"plan: the model has no layer {use.layer!r}; {closest(use.layer, modules)}"
            )
        site = Site(use.layer, modules[owner], use.call, use.axis, function=function)
        edits[site] = edit_of(rows[use.layer, use.call], use.channels, use.axis, device)
    return edits


def linearize(model: nn.Module, plan: Plan, *, any_weights: bool = False) -> nn.Module:
    """Return a copy of a model in which a plan's channels are lines, or what else it says.

    Parameters
    ----------
    model : Module
        The network that the plan was made for; it stays as it is.
    plan : Plan
        Channels and lines.
    any_weights : bool
        True accepts a model whose weights are not those that the lines were fitted on.

    Returns
    -------
    Module
        The copy: each layer with replaced channels is a `LinearizedActivation`, whose ``inner`` is
        the activation, if any channel still needs it: parameters that nothing uses are left out.
        Lines of functions are in a module `LinearizedFunctions`, and the forward of
        the copy puts them in the place of what the functions return. Of the same class otherwise,
        so hooks and captures work on it.

    Raises
    ------
    PlanError
        If the plan does not fit the model; the message names what differs.
    """
    changed = copy.deepcopy(unwrap(model))
    calls = {layer.layer: layer.calls for layer in plan.layers}
    overwrites = {(layer.layer, layer.call): layer.in_place for layer in plan.layers}
    uses: dict[tuple[str, nn.Module], dict[int, Form]] = defaultdict(dict)
    functions: dict[tuple[str, int], ReplacedChannels] = {}
    for site, line in plan_edits(changed, plan, any_weights=any_weights).items():
        if site.function is not None:
            like = next((t for t in changed.parameters()), torch.empty(0))
            use = site.name, site.call or 0
            functions[use] = ReplacedChannels(line, like, in_place=overwrites[use])
            continue
        uses[site.name, site.module][site.call or 0] = line
    if functions:  # first: the modules that call them have their names of the plan still
        named = {name: calls[name] for name, _ in functions}
        changed.add_module(CHILD, LinearizedFunctions(functions, named))
        changed.forward = partial(forward_with_lines, changed)
    for (name, inner), lines in uses.items():
        like = next((t for t in [*inner.parameters(), *changed.parameters()]), torch.empty(0))
        says_so = getattr(inner, "inplace", False) is True
        affine = {
            call: ReplacedChannels(line, like, in_place=says_so or overwrites[name, call])
            for call, line in lines.items()
        }
        gone = len(affine) == calls[name] and all(own.whole for own in affine.values())
        kept = nn.Identity() if gone else inner
        changed = put_module(changed, inner, LinearizedActivation(kept, calls[name], affine))
    if any(count > 1 for count in calls.values()):
        changed.register_forward_pre_hook(restart_turns)
    return changed


def linearized_layers(model: nn.Module) -> dict[str, LinearizedActivation]:
    """Return the layers that `linearize` has changed, by their names."""
    return {n: m for n, m in model.named_modules() if isinstance(m, LinearizedActivation)}


def save_linearized(model: nn.Module, plan: Plan, folder: str | Path) -> Path:
    """Write a linearised model so that `load_linearized` can rebuild it.

    Parameters
    ----------
    model : Module
        From `linearize`, trained further or not, but not folded.
    plan : Plan
        What it was made with.
    folder : str or Path
        Gets ``plan.json`` and ``model.safetensors``.

    Returns
    -------
    Path
        The folder.
    """
    if plan.units and not any(isinstance(m, ReplacedChannels) for m in model.modules()):
        raise UsageError(
            f"{type(model).__name__} has no linearised layer: save what linearize() returned"
        )
    folder = Path(folder)
    plan.save(folder / PLAN_FILE)
    facts = {"model": plan.model, "weights_sha256": plan.weights_sha256}
    with temporary_folder() as scratch:
        made = scratch / WEIGHTS_FILE
        safetensors.torch.save_model(model, str(made), metadata=facts)
        atomic_write(folder / WEIGHTS_FILE, made.read_bytes())
    return folder


def load_linearized(folder: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Rebuild a linearised model from its folder.

    Parameters
    ----------
    folder : str or Path
        As `save_linearized` wrote it.
    model : Module, optional
        A network of the same architecture, of any weights; by default the plan's, if it is one
        of the registry.

    Returns
    -------
    Module
        In eval mode.
    """
    folder = Path(folder)
    plan = load_plan(folder / PLAN_FILE)
    if model is None and plan.model not in registry():  # file.py:callable would run code
        raise PlanError(
            f"plan: {plan.model!r} is no network of the registry, and a file may not name another: "
            "give the network, load_linearized(folder, model)"
        )
    network = build_model(plan.model, weights=None) if model is None else model
    changed = linearize(network, plan, any_weights=True)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise UsageError(f"linearize: there is no file {str(path)!r}")
    try:
        safetensors.torch.load_model(changed, path, strict=True)
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise PlanError(f"plan: {str(path)!r} does not fit the model: {error}") from error
    for line in changed.modules():
        if isinstance(line, ReplacedChannels):
            line.settle()
    return changed.eval()


def _check_weights(model: nn.Module, plan: Plan) -> None:
    """Raise if a model's weights are not those that a plan's lines were fitted on."""
    given = state_sha256(model)
    if given != plan.weights_sha256:
        raise PlanError(
            f"plan: its lines were fitted on {plan.model} with weights "
            f"{plan.weights_sha256[:12]}..., the given model has {given[:12]}...; make a new "
            f"plan, or pass any_weights=True"
        )


def put_module(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put a module wherever another is used; the model itself may be that one."""
    if model is old:
        return new
    exchange(model, {old: new})
    return model
