"""Which tensor every result of elementwise functions was made of: activations in pieces.

x * sigmoid(x) and 0.5 * x * (1 + erf(x / sqrt(2))) are products of two results made of one tensor.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from acon_hooks.engine.functions import ELEMENTWISE
from acon_hooks.engine.sites import Site

_SUMS = frozenset({"add", "sub", "rsub", "neg"})
#: Functions in which the two branches of an activation in pieces meet.
JOINS = frozenset({"mul", "div"})
#: Functions whose result is made of one tensor, element by element.
FOLLOWED = ELEMENTWISE | JOINS | {"add", "sub", "rsub", "rdiv", "neg", "pow", "erf", "reciprocal"}
#: Of these the functions that make an activation of a product.
_BENT = ELEMENTWISE | {"erf"}


class Sources:
    """Remembers, of tensors that live, which tensor and function made them."""

    def __init__(self) -> None:
        self._made = WeakTensorKeyDictionary()

    def clear(self) -> None:
        """Forget all tensors."""
        self._made = WeakTensorKeyDictionary()

    def of(self, function: str, tensors: Sequence[Tensor]) -> Tensor | None:
        """Return the one tensor that the result of a function will be made of, if there is one."""
        if function not in FOLLOWED:
            return None
        data = [t for t in tensors if not isinstance(t, nn.Parameter) and t.numel() > 1]
        if not data or len(data) > 2 or not data[0].is_floating_point():
            return None
        return data[0] if len(data) == 1 else self.common(*data)

    def common(self, one: Tensor, other: Tensor) -> Tensor | None:
        """Return the nearest tensor that two tensors are made of, or are; None without one."""
        mine = {id(tensor) for tensor, _ in self.chain(one)}
        return next((tensor for tensor, _ in self.chain(other) if id(tensor) in mine), None)

    def chain(self, made: Tensor) -> Iterator[tuple[Tensor, str]]:
        """Yield a tensor, what it was made of, and so on; each with the function that made it."""
        while made in self._made:
            source, function, _ = self._made[made]
            yield made, function
            made = source
        yield made, ""

    def note(
        self,
        function: str,
        tensors: Sequence[Tensor],
        source: Tensor,
        made: object,
        site: Site | None = None,
    ) -> None:
        """Remember what a result was made of; forget what was made of an overwritten tensor."""
        if any(made is tensor for tensor in tensors):
            for key in list(self._made):
                if self._made[key][0] is made:
                    del self._made[key]
        if isinstance(made, Tensor) and made is not source and made.shape == source.shape:
            inner = [piece for tensor in tensors for piece in self.pieces(tensor, source)]
            own = [site] if site is not None and function not in _SUMS else []
            self._made[made] = source, function, inner + own

    def pieces(self, made: Tensor, source: Tensor) -> Iterator[Site]:
        """Yield the calls of functions, but for sums, that lead from a source to a tensor."""
        while made is not source and made in self._made:
            made, _, sites = self._made[made]
            yield from sites

    def formula(self, made: Tensor, source: Tensor) -> str:
        """Return the activations between a tensor and its source, as in tanh(softplus(x))."""
        names = []
        for tensor, function in self.chain(made):
            if tensor is source:
                break
            names += [function] if function in _BENT else []
        return "".join(f"{name}(" for name in names) + "x" + ")" * len(names)
