"""Moments of softmaxes and of what picks one of many, for entries taken as Gaussian and independent but for a part they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vgcompile.ops.concentration import Concentration, concentration
from vgcompile.ops.moments import role, signal_of
from vgcompile.ops.op import Case
from vgcompile.signal import Signal, replace


@dataclass(frozen=True)
class Along:
    """An axis of ``size`` entries: their common part, and how much each one varies beside it."""

    size: int
    common: float
    variance: float
    positions: bool

    @property
    def weights(self) -> Concentration:
        return concentration(self.variance, np.array([float(self.size)]))


def along(case: Case, x: Signal) -> Along:
    """The axis of a node; raises NotImplementedError where its extent is a symbol."""
    dims = case.shapes[0]
    assert dims is not None
    axis = int(case.attributes["axis"]) % len(dims)
    extent = dims[axis]
    if isinstance(extent, str):
        raise NotImplementedError("a softmax is predicted for a known number of entries")
    positions = role(dims, axis, case.samples) == "position"
    common = x.within if positions else x.mean**2
    return Along(extent, common, max(x.square - common, 0.0), positions)


@dataclass(frozen=True)
class Shares:
    """p = softmax(x): positive, and 1 in all. Backward, p_j (g_j - sum p g) of an adjoint less what its entries share."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x = signal_of(signals, 0)
        at = along(case, x)
        focus, k = float(at.weights.focus[0]), at.size
        rho = [(pair - at.common) / at.variance if at.variance > 0 else 0.0 for pair in (x.within, x.across)]
        apart = (1.0 - focus) / (k * (k - 1)) if k > 1 else 1.0
        within, across = (float(at.weights.overlap(r)[0]) / k for r in rho)
        return replace(x, mean=1.0 / k, square=focus / k, within=apart if at.positions else within, across=across)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        if position:
            raise NotImplementedError("a condition has no gradient")
        at = along(case, signal_of(signals, 0))
        shared = adjoint.within if at.positions else adjoint.mean**2
        passed = float(at.weights.passed[0]) / at.size
        square = max(adjoint.square - shared, 0.0) * passed
        within = -square / max(at.size - 1, 1) if at.positions else adjoint.within * passed
        return replace(adjoint, mean=0.0, square=square, within=within, across=adjoint.across * passed)


@dataclass(frozen=True)
class LogShares:
    """x - log sum exp(x). Backward g_j - p_j sum g: 1 - 2/k + focus of independent adjoints."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x = signal_of(signals, 0)
        at = along(case, x)
        total = math.log(at.size) + at.variance / 2.0 - math.expm1(min(at.variance, 30.0)) / (2.0 * at.size)
        mean = -max(total, 0.0)
        free = mean**2
        pairs = (free + pair - at.common for pair in (x.square, x.within, x.across))
        square, within, across = pairs
        return replace(x, mean=mean, square=square, within=within, across=max(across, free))

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        at = along(case, signal_of(signals, 0))
        focus, k = float(at.weights.focus[0]), at.size
        gain, of_shared = 1.0 - 2.0 / k + focus, max(k * focus - 1.0, 0.0)
        shared = adjoint.within if at.positions else adjoint.mean**2
        square = max(adjoint.square - shared, 0.0) * gain + shared * of_shared
        ratio = square / adjoint.square if adjoint.square > 0 else 0.0
        return replace(adjoint, mean=0.0, square=square, within=adjoint.within * ratio, across=adjoint.across * ratio)
