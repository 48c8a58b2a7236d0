"""Make chosen units of a network affine, on a copy; write it down and rebuild it.

``linearize(model, plan)`` is a copy of the model with the plan's units made affine.
"""

import copy
from collections import defaultdict
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from acon_analysis.errors import UsageError, closest
from acon_analysis.models.registry import build_model
from acon_hooks.captures.identity import state_sha256
from acon_hooks.guards import unwrap
from acon_hooks.replacement.affine_layer import AffineChannels, LinearizedActivation, restart_turns
from acon_hooks.replacement.plan import Plan, PlanError, PlannedLayer, load_plan

PLAN_FILE = "plan.json"
WEIGHTS_FILE = "model.safetensors"


def linearize(model: nn.Module, plan: Plan, *, any_weights: bool = False) -> nn.Module:
    """Return a copy of a model in which a plan's units are affine.

    Parameters
    ----------
    model : Module
        The network that the plan was made for; it stays as it is.
    plan : Plan
        Units and lines.
    any_weights : bool
        True accepts a model whose weights are not those that the lines were fitted on.

    Returns
    -------
    Module
        The copy: each layer with replaced channels is a `LinearizedActivation`, whose ``inner`` is
        the activation. Of the same class otherwise, so hooks and captures work on it.

    Raises
    ------
    PlanError
        If the plan does not fit the model; the message names what differs.
    """
    source = unwrap(model)
    _check_weights(source, plan, any_weights)
    changed = copy.deepcopy(source)
    places: dict[str, list[PlannedLayer]] = defaultdict(list)
    for layer in plan.layers:
        places[layer.layer].append(layer)
    names = dict(changed.named_modules(remove_duplicate=False))
    rows = dict(iter(plan.table.groupby(["layer", "call"], sort=False)))
    for name, uses in places.items():
        if name not in names:
            raise PlanError(f"plan: the model has no layer {name!r}; {closest(name, names)}")
        inner = names[name]
        like = next((t for t in [*inner.parameters(), *changed.parameters()]), torch.empty(0))
        lines = {}
        for use in uses:
            line = AffineChannels(use.channels, use.axis, like)
            own = rows[(name, use.call)]
            index = torch.tensor(own["channel"].to_numpy(), device=like.device)
            for target, column in ((line.slope, "slope"), (line.intercept, "intercept")):
                values = torch.tensor(own[column].to_numpy())
                target[index] = values.to(target.device, target.dtype)
            line.chosen[index] = True
            line.settle()
            lines[use.call] = line
        changed = put_module(changed, inner, LinearizedActivation(inner, uses[0].calls, lines))
    if any(layer.calls > 1 for layer in plan.layers):
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
    if not linearized_layers(model) and plan.units:
        raise UsageError(
            f"{type(model).__name__} has no linearised layer: save what linearize() returned"
        )
    folder = Path(folder)
    plan.save(folder / PLAN_FILE)
    facts = {"model": plan.model, "weights_sha256": plan.weights_sha256}
    safetensors.torch.save_model(model, str(folder / WEIGHTS_FILE), metadata=facts)
    return folder


def load_linearized(folder: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Rebuild a linearised model from its folder.

    Parameters
    ----------
    folder : str or Path
        As `save_linearized` wrote it.
    model : Module, optional
        A network of the same architecture, of any weights; by default built by the plan's name.

    Returns
    -------
    Module
        In eval mode.
    """
    folder = Path(folder)
    plan = load_plan(folder / PLAN_FILE)
    network = build_model(plan.model, weights=None) if model is None else model
    changed = linearize(network, plan, any_weights=True)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise UsageError(f"linearize: there is no file {str(path)!r}")
    try:
        safetensors.torch.load_model(changed, path, strict=True)
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise PlanError(f"plan: {str(path)!r} does not fit the model: {error}") from error
    for layer in linearized_layers(changed).values():
        for line in layer.lines.values():
            if isinstance(line, AffineChannels):
                line.settle()
    return changed.eval()


def _check_weights(model: nn.Module, plan: Plan, any_weights: bool) -> None:
    if any_weights:
        return
    given = state_sha256(model)
    if given != plan.weights_sha256:
        raise PlanError(
            f"plan: its lines were fitted on {plan.model} with weights "
            f"{plan.weights_sha256[:12]}..., the given model has {given[:12]}...; make a new "
            f"plan, or pass any_weights=True"
        )


def put_module(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put a module in every place of another; the model itself may be that place."""
    if model is old:
        return new
    for parent in list(model.modules()):
        if parent is new:
            continue
        for name, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, name, new)
    return model
