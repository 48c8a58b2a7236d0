"""One call of an operator, looked up in the table: linear in the data, nonlinear, or unknown."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from torch import Tensor

from acon_hooks.census.marks import Marks
from acon_hooks.census.table import EVERY, OPERATORS, Rule

Class = Literal["linear", "nonlinear", "unknown"]

#: Why a call is linear whose arguments do not depend on the input.
CONSTANT = "does not depend on the input"
PRODUCT = "product of two data tensors"


class Verdict(NamedTuple):
    """What a call of an operator is."""

    kind: Class
    # Empty where it is linear in what depends on the input.
    reason: str
    # Whether its result depends on the input.
    depends: bool


def operator_name(operator: Any) -> str:
    """Return an operator's name as in `torch.ops`: "relu_", or "torchvision.nms"."""
    packet = str(getattr(operator, "overloadpacket", operator)).removeprefix("aten.")
    return packet if "." in packet or hasattr(operator, "_schema") else f"higher_order.{packet}"


def named_arguments(operator: Any, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by the names in the operator's schema."""
    schema = getattr(operator, "_schema", None)
    names = [] if schema is None else [one.name for one in schema.arguments]
    names += [str(number) for number in range(len(names), len(args))]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def verdict(operator: Any, arguments: Mapping[str, Any], marks: Marks) -> Verdict:
    """Return what an operator is that is about to run on arguments of `named_arguments`."""
    name = operator_name(operator)
    rule = rule_of(name)
    data = {key for key, value in arguments.items() if marks.on(value)}
    if rule is not None:
        data = set() if rule.unread == EVERY else data - set(rule.unread)
    data -= _overwritten(operator)
    if not data:
        return Verdict("linear", CONSTANT, depends=False)
    if name == "_local_scalar_dense":
        return Verdict("unknown", "a number goes to Python, unseen from there on", depends=True)
    if rule is None:
        return Verdict("unknown", "not in the table of operators", depends=True)
    reason = _nonlinear(rule, data) or _special(name, arguments)
    return Verdict("nonlinear" if reason else "linear", reason, depends=True)


def rule_of(name: str) -> Rule | None:
    """Return the rule for an operator, its in-place form and its form for lists."""
    base = name.removeprefix("_foreach_")
    plain = base if base.startswith("__") else base.removesuffix("_")
    return OPERATORS.get(base) or OPERATORS.get(plain)


def _nonlinear(rule: Rule, data: set[str]) -> str:
    """Return why an operator is not linear in some of its arguments; empty if it is."""
    if rule.fixed == EVERY or data & set(rule.fixed):
        return rule.reason
    groups = sum(bool(data & set(group)) for group in rule.factors)
    return PRODUCT if groups > 1 else ""


def _special(name: str, arguments: Mapping[str, Any]) -> str:
    """Return what makes a call nonlinear that is linear with other arguments that are no data."""
    if arguments.get("training") is True and "batch_norm" in name:
        return "normalisation"
    if arguments.get("rounding_mode") is not None:
        return "rounding"
    return ""


def _overwritten(operator: Any) -> set[str]:
    """Return the arguments that an ``out=`` form only writes to."""
    schema = getattr(operator, "_schema", None)
    return {one.name for one in schema.arguments if one.is_out} if schema is not None else set()


def written(operator: Any, arguments: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the arguments that a call writes to."""
    schema = getattr(operator, "_schema", None)
    for one in [] if schema is None else schema.arguments:
        if one.is_write and one.name in arguments:
            yield arguments[one.name]


def loses_digits(arguments: Mapping[str, Any], output: Any) -> bool:
    """Return whether a linear operator has made whole numbers of floating-point ones."""
    given = [value for value in arguments.values() if isinstance(value, Tensor)]
    return (
        isinstance(output, Tensor)
        and not (output.is_floating_point() or output.is_complex())
        and any(value.is_floating_point() for value in given)
    )
