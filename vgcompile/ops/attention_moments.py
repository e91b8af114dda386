"""Mean-field moments of attention Y = softmax(scale Q K^T + bias) V, positions alike and heads independent.

The scores of a row have the variance t^2 = scale^2 d E[q^2] (E[k^2] - E[k k']) over the keys; what weights they make is in
``attention_weights.py``. With F the focus sum p^2, and the adjoint g of Y independent of V (d_v entries a head):

    E[y^2]      = F E[v^2] + (1 - F) E[v v']
    sum_j ds^2  = scale^2 ... with dp of variance D = d_v E[g^2] (E[v^2] - E[v v']) among keys: D * passed
    E[dq^2]     = scale^2 (E[k^2] - E[k k']) D passed,    E[dk^2] = scale^2 T/S (E[q^2] D passed + ...)
    E[dv^2]     = T/S (F E[g^2] + (T - 1) overlap E[g g'])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vgcompile.ops.attention_weights import Weights
from vgcompile.ops.moments import gathered, signal_of
from vgcompile.ops.op import Array, Case, Dim, Tabular
from vgcompile.ops.tables import low_places, shown
from vgcompile.quadrature import gaussian
from vgcompile.signal import Signal, replace


@dataclass(frozen=True)
class Layout:
    """``queries`` and ``keys`` positions, ``size`` entries of a head in queries and keys and ``value_size`` in values, ``groups``
    heads of queries to one of keys; ``lead`` the axes of the scores before those two; ``visible`` [queries, keys] or None for
    all; ``bias`` what is added to the scores."""

    queries: int
    keys: int
    size: int
    value_size: int
    groups: float
    lead: tuple[Dim, ...]
    scale: float
    softcap: float = 0.0
    visible: Array | None = None
    bias: Signal | None = None


@dataclass(frozen=True)
class Attending:
    """A node's softmax, and the slope of the cap before it: what its scores say of the weights."""

    at: Layout
    q: Signal
    k: Signal

    @cached_property
    def _scores(self) -> tuple[float, float]:
        """Variance over the keys and mean square slope, behind the cap and with the bias."""
        variance = self.at.scale**2 * self.at.size * self.q.square * max(self.k.square - self.k.within, 0.0)
        slope = 1.0
        if self.at.softcap:
            s = gaussian(0.0, variance)
            bend = np.tanh(s.x / self.at.softcap)
            variance, slope = s.mean((self.at.softcap * bend) ** 2), s.mean((1.0 - bend * bend) ** 2)
        return variance + (self.at.bias.variance if self.at.bias is not None else 0.0), slope

    @property
    def slope(self) -> float:
        return self._scores[1]

    @cached_property
    def weights(self) -> Weights:
        rho = self.q.within / self.q.square if self.q.square > 0 else 0.0
        return Weights(self.at.queries, self.at.keys, self._scores[0], rho, self.at.visible)


@dataclass(frozen=True)
class Attended(Tabular):
    """Moments of a node whose inputs 0 to 2 are queries, keys and values, and 3 a bias; ``layout`` reads the rest of it. Raises
    NotImplementedError where the number of positions is not known."""

    layout: Callable[[Case, Sequence[Signal | None]], Layout]

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        node, v = self._attending(case, signals), signal_of(signals, 2)
        weights, alive = node.weights, node.weights.alive
        return replace(
            v,
            mean=v.mean * alive,
            square=weights.focus * v.square + (alive - weights.focus) * v.within,
            within=weights.pairs * v.square + max(alive - weights.pairs, 0.0) * v.within,
            across=v.across * alive**2,
            table=None,
            doubt=v.doubt or node.q.doubt or node.k.doubt,
        )

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        if case.output:
            raise NotImplementedError("only the adjoint of the attended values is predicted")
        adjoint = replace(adjoint, table=None)
        node, v = self._attending(case, signals), signal_of(signals, 2)
        at, weights = node.at, node.weights
        if position == 2:
            return _by_values(at, weights, adjoint)
        if position > 3:
            raise NotImplementedError("no gradient is predicted for what an attention caches")
        spread = max(v.square - v.within, 0.0) * node.slope
        row = at.value_size * adjoint.square * spread * weights.passed  # E sum_j ds_j^2 of one query
        two = at.value_size * adjoint.within * spread * weights.passed_pairs  # E sum_j ds_j ds'_j of two queries
        if position == 3:
            return _by_bias(case, at, adjoint, row, two)
        if position == 0:
            # Keys and values are read from the same positions: where those point the same ways, sum_j (g v_j) k_j adds up.
            met = 1.0 + weights.others * min(node.k.alignment, v.alignment)
            apart = met * at.scale**2 * max(node.k.square - node.k.within, 0.0)
            return replace(adjoint, mean=0.0, square=row * apart, within=two * apart, across=0.0)
        per_key = at.scale**2 * at.groups * at.queries / at.keys
        square = per_key * (row * node.q.square + (at.queries - 1) * two * node.q.within)
        return replace(adjoint, mean=0.0, square=max(square, 0.0), within=-square / max(at.keys - 1, 1), across=0.0, along=())

    def _attending(self, case: Case, signals: Sequence[Signal | None]) -> Attending:
        return Attending(self.layout(case, signals), signal_of(signals, 0), signal_of(signals, 1))


def _by_values(at: Layout, weights: Weights, g: Signal) -> Signal:
    """dV = P^T dY; rows of P sum to 1, so that the sum over all keys is the sum over all queries."""
    square = at.groups * at.queries / at.keys * (weights.focus * g.square + (at.queries - 1) * weights.pairs * g.within)
    total = at.groups * at.queries * (g.square + (at.queries - 1) * g.within) * weights.alive
    within = (total - at.keys * square) / (at.keys * (at.keys - 1)) if at.keys > 1 else square
    across = at.groups * at.queries / at.keys**2 * g.across * (1.0 + (at.queries - 1) * g.coherence)
    return replace(g, square=square, within=within, across=across, along=())


def _by_bias(case: Case, at: Layout, g: Signal, row: float, two: float) -> Signal:
    scores = (*at.lead, at.queries, at.keys)
    ds = replace(g, mean=0.0, square=row / at.keys, within=two / at.keys / max(at.queries, 1), across=0.0)
    return gathered(dataclasses.replace(case, outputs=(scores,)), 3, ds)


def bias_read(case: Case, signals: Sequence[Signal | None], position: int) -> tuple[Array | None, Signal | None]:
    """What is added to the scores: where it hides keys, and what its numbers are elsewhere. Raises NotImplementedError where only
    a run tells."""
    value, signal = case.values[position], signals[position]
    low = low_places(value)
    if value is not None and low is not None:
        return low, shown(value, low)
    if signal is None:
        raise NotImplementedError("what is added to the scores is known at run time only")
    return (None if signal.table is None or signal.table.open is None else ~signal.table.open), signal


def number(dim: Dim) -> int:
    """An extent of positions or features; raises NotImplementedError where a symbol hides it."""
    if isinstance(dim, str):
        raise NotImplementedError("attention is predicted for a known number of positions")
    return dim
