"""The functions that can replace an activation, and their fit on every channel.

=========== ============================================= =====================================
form        function                                      coefficients of a planned unit
=========== ============================================= =====================================
line        slope·x + intercept
relu        relu(x)
two-piece   slope·x + intercept + bend·relu(x - hinge)    bend, hinge
hardswish   x·relu6(x + 3)/6
poly:K      Σ_k c_k·z^k, z = (x - center)/scale           center, scale, c_0, ..., c_K
=========== ============================================= =====================================

Lines, two-piece lines and polynomials are least squares fits. The hinge is the best of a fixed
grid: 0, and `HINGES` multiples of the standard deviation around the mean of the first batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from acon_analysis.errors import UsageError, closest
from acon_analysis.moments.gram import Gram
from acon_analysis.moments.state import FloatArray
from acon_hooks.engine.edits import FUNCTIONS, Form, Function, Line, Mixed, Polynomial, TwoPiece

FORMS = ("line", "relu", "two-piece", "hardswish", "poly:K")

#: Standardised inputs at which a two-piece line may bend, besides 0 itself.
HINGES = np.linspace(-3, 3, 25)

#: Largest degree of a polynomial.
MOST = 4

#: Values that are brought to float64 at once, times their variables.
_VALUES = 2**23


def degree_of(form: str) -> int:
    """Return the degree of a polynomial, 0 of any other form that there is."""
    name, _, text = form.partition(":")
    if name == "poly" and text.isdecimal() and 1 <= int(text) <= MOST:
        return int(text)
    if name == "poly":
        raise UsageError(f"a polynomial is poly:K with a degree K of 1 to {MOST}; got {form!r}")
    if form not in FORMS:
        raise UsageError(f"there is no form {form!r} to replace with: {closest(form, FORMS)}")
    return 0


def coefficients_of(form: str) -> int:
    """Return how many coefficients a planned unit of a form has besides its line."""
    degree = degree_of(form)
    return 3 + degree if degree else 2 * (form == "two-piece")


def edit_of(units: pd.DataFrame, channels: int, axis: int, device: torch.device) -> Form:
    """Return the edit of some channels of a use of a layer, float64."""
    parts = [
        _edit_of(str(form), own, channels, axis, device)
        for form, own in units.groupby("form", sort=False)
    ]
    if len(parts) == 1:
        return parts[0]
    chosen = torch.stack([part.chosen for part in parts if part.chosen is not None]).any(0)
    return Mixed(tuple(parts), chosen=chosen, axis=axis)


def _edit_of(
    form: str, units: pd.DataFrame, channels: int, axis: int, device: torch.device
) -> Form:
    """Return the edit of channels of one form."""
    index = torch.tensor(units["channel"].to_numpy())
    further = np.array(units["coefficients"].tolist(), np.float64).reshape(len(units), -1)
    numbers = np.column_stack([units[["slope", "intercept"]].to_numpy(), further])
    whole = torch.ones(channels, numbers.shape[1], dtype=torch.float64)
    whole[index] = torch.from_numpy(numbers)
    chosen = torch.zeros(channels, dtype=torch.bool)
    chosen[index] = True
    whole = whole.to(device)
    common: dict[str, Any] = {"chosen": chosen.to(device), "axis": axis}
    slope, intercept, *rest = whole.unbind(1)
    if form in FUNCTIONS:
        return Function(form, **common)
    if form == "two-piece":
        return TwoPiece(slope, intercept, *rest, **common)
    if form == "line":
        return Line(slope, intercept, **common)
    return Polynomial(whole[:, 4:].contiguous(), *rest[:2], **common)


@dataclass
class FormSums:
    """Sums of one use of a layer, of which a form is fitted on every channel."""

    form: str
    # center, scale: mean and standard deviation of the first inputs, (C,); 0 and 1 without any.
    center: Tensor
    scale: Tensor
    # Of the features of x and of y, one entry a channel, (C,).
    sums: Gram | None = None

    @classmethod
    def of(cls, form: str, x: Tensor) -> "FormSums":
        """Begin with the first inputs, (values, C)."""
        if not len(x):
            return cls(form, x.new_zeros(x.shape[1]), x.new_ones(x.shape[1]))
        scale = x.std(0, correction=0)
        return cls(form, x.mean(0), torch.where(scale > 0, scale, 1.0))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Sum the values of a batch, (values, C) float64, those with NaN or infinity left out."""
        size = max(1, _VALUES // (x.shape[1] * len(self._features(x[:0]))))
        for part, target in zip(torch.split(x, size), torch.split(y, size), strict=True):
            values = torch.stack([*self._features(part), target], dim=-1)
            own = Gram.of(values, axis=0)
            self.sums = own if self.sums is None else self.sums + own

    def table(self) -> pd.DataFrame:
        """Return one row a channel: slope, intercept, coefficients, L, s_c."""
        assert self.sums is not None
        sums = Gram(*(np.asarray(value.cpu()) for value in vars(self.sums).values()))
        line, further, error = self._fitted(sums)
        total = sums.C[:, -1, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            quality = np.where(total > 0, 1 - error / total, np.where(error > 0, 0.0, 1.0))
            share = error / np.nansum(total) if np.nansum(total) > 0 else 0 * error
        return pd.DataFrame(
            {
                "slope": line[:, 0],
                "intercept": line[:, 1],
                "L": quality,
                "s_c": share,
                "coefficients": [tuple(row) for row in further.tolist()],
            }
        )

    def _features(self, x: Tensor) -> Sequence[Tensor]:
        """Return what y is fitted on, (values, C) each."""
        if self.form in FUNCTIONS:
            return [FUNCTIONS[self.form](x)]
        z = (x - self.center) / self.scale
        if self.form == "two-piece":
            return [z, *(torch.relu(z - hinge) for hinge in self._hinges())]
        return [z**power for power in range(1, degree_of(self.form) + 1)]

    def _hinges(self) -> Tensor:
        """Return the standardised hinges of the grid, (H, C), first that of x = 0."""
        grid = torch.from_numpy(HINGES).to(self.center).unsqueeze(1).expand(-1, len(self.center))
        return torch.cat([(-self.center / self.scale).unsqueeze(0), grid])

    def _fitted(self, sums: Gram) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return slope and intercept (C, 2), the coefficients (C, ...), and squared errors (C,)."""
        target = sums.C.shape[-1] - 1
        none = np.zeros((len(sums.n), 0))
        if self.form in FUNCTIONS:
            return np.zeros((len(none), 2)), none, sums.sse(1.0, 0.0, 0, 1)
        center, scale = (np.asarray(v.cpu()) for v in (self.center, self.scale))
        if self.form == "two-piece":
            return self._two_piece(sums, center, scale)
        given = range(target)
        found, intercept = sums.fit(target, given)
        error = sums.residual(target, given)
        numbers = np.column_stack([center, scale, intercept, found])
        return np.zeros((len(none), 2)), numbers, error

    def _two_piece(
        self, sums: Gram, center: FloatArray, scale: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Fit each channel with the hinge that leaves the least squared error."""
        target, hinges = sums.C.shape[-1] - 1, self._hinges().cpu().numpy()
        errors = np.stack([sums.residual(target, (0, 1 + j)) for j in range(len(hinges))])
        best = np.argmin(np.where(np.isnan(errors), np.inf, errors), axis=0)
        rows = np.arange(len(best))
        index = np.column_stack([0 * best, 1 + best, 0 * best + target])
        own = Gram(
            sums.n,
            sums.mean[rows[:, None], index],
            sums.C[rows[:, None, None], index[:, :, None], index[:, None, :]],
        )
        found, intercept = own.fit(2, (0, 1))
        at = np.where(best == 0, 0.0, center + scale * hinges[best, rows])
        bend = np.column_stack([found[:, 1] / scale, at])
        return _line(found, intercept, center, scale), bend, errors[best, rows]


def _line(
    found: FloatArray, intercept: FloatArray, center: FloatArray, scale: FloatArray
) -> FloatArray:
    """Return slope and intercept in x of a fit on the standardised x first, (C, 2)."""
    slope = found[:, 0] / scale
    return np.column_stack([slope, intercept - slope * center])
