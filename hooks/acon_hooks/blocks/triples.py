"""The nonlinearity coefficient of a block, from triples of the samples that were kept of it."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from acon_analysis.moments.state import FloatArray
from acon_analysis.statistics.affine_blocks import coefficient_change, nonlinearity_coefficient
from acon_hooks.blocks.calls import BlockCall
from acon_hooks.engine.derivatives import Function, contradiction, directional, moved_off_kinks
from acon_hooks.engine.edits import Edits
from acon_hooks.errors import HookError

#: The standard error at which no more derivatives are taken, relative to the coefficient.
ERROR = 0.005

#: Derivatives of one batch at most, each in another direction.
MOST_ROUNDS = 8

#: By how much a block that is run by itself may differ from what it was in the network, relative
#: to the size of its output: attention is computed by other operators.
_SAME = 1e-3

#: Which batches have x, x' and x''.
Triple = tuple[int, int, int]


#: Triples of batches that are looked at in any case.
FEWEST = 5


class Triples:
    """Triples x, x', x'' of samples of different batches, and what a block makes of them.

    Row k of a triple is sample k of each of its three batches. Rows never mix, so that those of
    independent samples are independent.
    """

    def __init__(self, calls: Sequence[BlockCall], edits: Edits | None = None) -> None:
        self.calls, self.edits = calls, edits
        self._outputs: dict[int, Tensor] = {}

    def rounds(self) -> Iterator[list[Triple]]:
        """Yield triples, round after round: of every batch, each round in other directions."""
        count = len(self.calls)
        for steps in list(combinations(range(1, count), 2))[:MOST_ROUNDS]:
            order = range(2, count + 2)  # outputs of batches before are known already
            yield [(at % count, (at - steps[0]) % count, (at - steps[1]) % count) for at in order]

    def sums(self, triple: Triple) -> tuple[FloatArray, FloatArray]:
        """Return ‖J(x)·(x' - x'')‖² and ‖f(x') - f(x'')‖² of every row, (N,), in float64."""
        x, (first, second), same = self.calls[triple[0]].x, *self._ends(triple)
        y, slope = directional(self._function(triple[0]), x, first - second)
        if same:
            self._outputs[triple[0]] = y
            ends = [self.output(batch) for batch in triple[1:]]
        else:
            ends = [self._run(self._function(triple[0]), one) for one in (first, second)]
        return _squares(slope), _squares(ends[0] - ends[1])

    def _ends(self, triple: Triple) -> tuple[list[Tensor], bool]:
        """Return x' and x'', and whether they are as they were."""
        # Where samples are padded, they differ at positions only where all three hold data.
        # Elsewhere they are x, so that one function, that of x's length, is applied to all.
        x, *ends = (self.calls[batch].x for batch in triple)
        masks = [one for batch in triple if (one := self.calls[batch].valid[0]) is not None]
        if not masks:
            return ends, True
        shared = torch.stack(masks).all(0)
        return [torch.where(shared, one, x) for one in ends], False

    def output(self, batch: int) -> Tensor:
        """Return the output of the block on a batch, run by itself."""
        if batch not in self._outputs:
            self._outputs[batch] = self._run(self._function(batch), self.calls[batch].x)
        return self._outputs[batch]

    @staticmethod
    def _run(function: Function, x: Tensor) -> Tensor:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # as where derivatives are taken
            return function(x.clone())

    def check(self) -> None:
        """Raise a HookError if the block by itself does not repeat, or has no derivative."""
        at, call = next(item for item in enumerate(self.calls) if item[1].y.numel())
        y = _kept(call.y, call)
        missed = float((self.output(at) - y).norm()) / max(float(y.norm()), 1e-300)
        if missed > _SAME:
            raise HookError(
                f"run by itself it returns other values than in the network (by {missed:.0%}): it "
                "keeps something from call to call, or depends on more than its arguments"
            )
        count, function = len(self.calls), self._function(at)
        (first, second), _ = self._ends((at, (at - 1) % count, (at - 2) % count))
        x = moved_off_kinks(call.x, direction := first - second)
        _, slope = directional(function, x, direction)
        reason = contradiction(function, x, direction, slope)
        if reason:
            raise HookError(reason)

    def _function(self, batch: int) -> Function:
        """Return what the block makes of x, its other arguments being those of a batch."""
        call = self.calls[batch]
        return lambda x: _kept(call.run(x, self.edits), call)


def _kept(y: Tensor, call: BlockCall) -> Tensor:
    """Return an output that is 0 at positions without data."""
    return y if call.valid[1] is None else torch.where(call.valid[1], y, 0)


def _squares(values: Tensor) -> FloatArray:
    """Return the sum of squares of every sample, (N,), in float64."""
    rows = values.detach().reshape(len(values), -1).double()
    return np.asarray(rows.square().sum(1).cpu().numpy())


def coefficient(
    calls: Sequence[BlockCall], most: int
) -> tuple[float, float, dict[Triple, FloatArray]]:
    """Return the nonlinearity coefficient, its error, and the sums of every triple, (2, N)."""
    # Triples are added until the error is at most `ERROR` of the coefficient, there are `most`, or
    # a round of them has lessened it by less than a twentieth: that needs more samples then, not
    # more directions.
    triples, found = Triples(calls), {}
    value = error = before = np.inf
    look = FEWEST
    try:
        triples.check()
        for triple in chain.from_iterable(triples.rounds()):
            found[triple] = np.stack(triples.sums(triple))
            full, ends = len(found) >= max(most, FEWEST), len(found) % len(calls) == 0
            # Looked at ever more rarely: after every triple it would stop at errors that are
            # small by chance.
            if not (full or ends or len(found) == look):
                continue
            look = 2 * look if len(found) == look else look
            value, error = nonlinearity_coefficient(*_stacked(found.values()))
            if full or error <= ERROR * value or (ends and not error < 0.95 * before):
                break
            before = error if ends else before
    except (RuntimeError, TypeError, ValueError, AttributeError) as failure:
        text = str(failure).strip().splitlines()[:1] or [type(failure).__name__]
        raise HookError(f"it cannot be differentiated by itself: {text[0]}") from failure
    if np.isnan(value):
        raise HookError("its output does not vary, or is not finite")
    return value, error, found


def change(
    calls: Sequence[BlockCall], edits: Edits, known: dict[Triple, FloatArray], most: int
) -> tuple[float, float]:
    """Return how much edits change the coefficient, and the error, of `most` triples at most."""
    triples, chosen = Triples(calls, edits), list(known)[:most]
    after: list[FloatArray] = []
    value = error = np.nan
    look = FEWEST
    for triple in chosen:
        after.append(np.stack(triples.sums(triple)))
        if len(after) not in (look, len(chosen)):
            continue
        look *= 2
        before = [known[one] for one in chosen[: len(after)]]
        value, error = coefficient_change(_stacked(before), _stacked(after))
        if error <= ERROR:
            break
    return value, error


def _stacked(sums: Iterable[FloatArray]) -> FloatArray:
    """Return the terms of triples, (2, batches, N)."""
    return np.stack(list(sums), axis=1)
