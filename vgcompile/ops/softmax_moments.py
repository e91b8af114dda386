"""Moments of softmaxes and of what picks one of many, for entries taken as Gaussian and independent but for a part they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vgcompile.ops.attention_weights import Weights
from vgcompile.ops.concentration import Concentration, concentration
from vgcompile.ops.linear_moments import MIXED
from vgcompile.ops.moments import role, signal_of
from vgcompile.ops.op import Case, Tabular
from vgcompile.signal import Signal, Table, replace


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
class Shares(Tabular):
    """p = softmax(x): positive, and 1 in all. Backward, p_j (g_j - sum p g) of an adjoint less what its entries share."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x = signal_of(signals, 0)
        weights = _of_rows(case, x)
        if weights is not None:
            return _attention(weights, x)
        at = along(case, x)
        focus, k = float(at.weights.focus[0]), at.size
        rho = [(pair - at.common) / at.variance if at.variance > 0 else 0.0 for pair in (x.within, x.across)]
        apart = (1.0 - focus) / (k * (k - 1)) if k > 1 else 1.0
        within, across = (float(at.weights.overlap(r)[0]) / k for r in rho)
        return replace(x, mean=1.0 / k, square=focus / k, within=apart if at.positions else within, across=across, table=None)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        if position:
            raise NotImplementedError("a condition has no gradient")
        x = signal_of(signals, 0)
        weights = _of_rows(case, x)
        if weights is not None and adjoint.table is not None:
            return _of_attention(weights, adjoint, adjoint.table)
        at = along(case, replace(x, table=None))
        shared = adjoint.within if at.positions else adjoint.mean**2
        passed = float(at.weights.passed[0]) / at.size
        square = max(adjoint.square - shared, 0.0) * passed
        within = -square / max(at.size - 1, 1) if at.positions else adjoint.within * passed
        return replace(adjoint, mean=0.0, square=square, within=within, across=adjoint.across * passed, table=None)


def _of_rows(case: Case, x: Signal) -> Weights | None:
    """The softmaxes along the rows of a table; None of what is no table, or where the axis is another one."""
    dims, table = case.shapes[0] or (), x.table
    last = int(case.attributes["axis"]) % max(len(dims), 1) == len(dims) - 1
    if table is None or not last or any(isinstance(dim, str) for dim in dims[-2:]):
        if table is not None and table.open is not None:
            raise NotImplementedError("a softmax is predicted along rows of a known number of entries")
        return None
    variance = max(x.square - table.row, 0.0)
    correlation = (table.column - x.within) / variance if variance > 0 else 0.0
    return Weights(int(dims[-2]), int(dims[-1]), variance, correlation, table.open)


def _attention(weights: Weights, x: Signal) -> Signal:
    """Rows of what a query sees: hidden places hold 0. That queries and keys depend on the same data leaves the weights as they
    are, for matrices of their own have turned both."""
    k, alive = weights.keys, weights.alive
    pairs = max(k * (k - 1), 1)
    return replace(
        x,
        mean=alive / k,
        square=weights.focus / k,
        within=(alive - weights.pairs) / pairs,
        across=(alive / k) ** 2,
        table=Table((alive - weights.focus) / pairs, weights.pairs / k),
        doubt="" if x.doubt == MIXED else x.doubt,
    )


def _of_attention(weights: Weights, g: Signal, table: Table) -> Signal:
    """ds = p (g - sum p g), whose rows sum to 0."""
    k = weights.keys
    square = max(g.square - table.row, 0.0) * weights.passed / k
    column = (table.column - g.within) * weights.passed_pairs / k
    others = table.others * weights.others / max(k - 1, 1)
    return replace(
        g,
        mean=0.0,
        square=square,
        within=-column / max(k - 1, 1),
        across=0.0,
        table=Table(-square / max(k - 1, 1), column, None, table.aligned, others),
    )


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
