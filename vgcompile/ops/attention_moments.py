"""Mean-field moments of attention Y = softmax(scale Q K^T + bias) V, positions alike and heads independent.

With queries given, the scores of a row are Gaussian over the keys; what all keys share changes no weight, and what is left has
the variance t^2 = scale^2 d E[q^2] (E[k^2] - E[k k']). How concentrated the weights then are is in ``concentration.py``; at small
t they are uniform over the keys that a query sees, as at the start of a transformer (Noci et al. 2022). With F the focus sum p^2,
and the adjoint g of Y independent of V (d_v entries a head):

    E[y^2]      = F E[v^2] + (1 - F) E[v v']
    sum_j ds^2  = scale^2 ... with dp of variance D = d_v E[g^2] (E[v^2] - E[v v']) among keys: D * passed
    E[dq^2]     = scale^2 (E[k^2] - E[k k']) D passed,    E[dk^2] = scale^2 T/S (E[q^2] D passed + ...)
    E[dv^2]     = T/S (F E[g^2] + (T - 1) overlap E[g g'])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vgcompile.ops.concentration import Concentration, concentration
from vgcompile.ops.moments import gathered, signal_of
from vgcompile.ops.op import Array, Case, Dim
from vgcompile.quadrature import gaussian
from vgcompile.signal import Signal, replace

ROWS_COMPARED = 256  # queries whose pairs are looked at: more are a sample of them, evenly spread


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
class Weights:
    """The softmax of a node: what its scores say of the weights, row by row and for pairs of rows."""

    at: Layout
    q: Signal
    k: Signal

    @cached_property
    def counts(self) -> Array:
        """Keys that each query sees."""
        return np.full(1, float(self.at.keys)) if self.at.visible is None else self.at.visible.sum(-1).astype(np.float64)

    @cached_property
    def alive(self) -> Array:
        return (self.counts > 0).astype(np.float64)

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
    def each(self) -> Concentration:
        return concentration(self._scores[0], self.counts)

    @cached_property
    def focus(self) -> float:
        return float((self.each.focus * self.alive).mean())

    @cached_property
    def passed(self) -> float:
        return float((self.each.passed * self.alive).mean())

    @cached_property
    def _pairs(self) -> tuple[float, float]:
        rho = self.q.within / self.q.square if self.q.square > 0 else 0.0
        sharpened, through = self.each.overlap(rho) * self.each.keys, self.each.passed / self.each.focus
        if self.at.visible is None:
            one = float(sharpened[0] / self.at.keys)
            return one, one * float(through[0])
        rows = np.unique(np.linspace(0, self.at.queries - 1, min(self.at.queries, ROWS_COMPARED)).astype(int))
        seen, counts, n = self.at.visible[rows].astype(np.float64), np.maximum(self.counts[rows], 1.0), max(len(rows), 2)
        both = seen @ seen.T / np.outer(counts, counts) * np.sqrt(np.outer(sharpened[rows], sharpened[rows]))
        np.fill_diagonal(both, 0.0)
        least = np.minimum.outer(through[rows], through[rows])  # of the query that sees fewer keys
        return float(both.sum() / (n * (n - 1))), float((both * least).sum() / (n * (n - 1)))

    @property
    def pairs(self) -> float:
        """E sum_j p_ij p_i'j over pairs of different queries."""
        return self._pairs[0]

    @property
    def passed_pairs(self) -> float:
        """What an adjoint of the weights that two queries share lets both through, E sum_j ds_ij ds_i'j."""
        return self._pairs[1]


@dataclass(frozen=True)
class Attended:
    """Moments of a node whose inputs 0 to 2 are queries, keys and values, and 3 a bias; ``layout`` reads the rest of it. Raises
    NotImplementedError where the number of positions is not known."""

    layout: Callable[[Case, Sequence[Signal | None]], Layout]

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        weights, v = self._weights(case, signals), signal_of(signals, 2)
        alive = float(weights.alive.mean())
        return replace(
            v,
            mean=v.mean * alive,
            square=weights.focus * v.square + (alive - weights.focus) * v.within,
            within=weights.pairs * v.square + max(alive - weights.pairs, 0.0) * v.within,
            across=v.across * alive**2,
            doubt=v.doubt or weights.q.doubt or weights.k.doubt,
        )

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        if case.output:
            raise NotImplementedError("only the adjoint of the attended values is predicted")
        weights, v = self._weights(case, signals), signal_of(signals, 2)
        if position == 2:
            return _by_values(weights, adjoint)
        if position > 3:
            raise NotImplementedError("no gradient is predicted for what an attention caches")
        at, spread = weights.at, max(v.square - v.within, 0.0)
        row = at.value_size * adjoint.square * spread * weights.slope * weights.passed  # E sum_j ds_j^2 of one query
        two = at.value_size * adjoint.within * spread * weights.slope * weights.passed_pairs  # E sum_j ds_j ds'_j of two queries
        if position == 3:
            return _by_bias(case, weights, adjoint, row, two)
        if position == 0:
            # Keys and values are read from the same positions: where those point the same ways, sum_j (g v_j) k_j adds up.
            met = 1.0 + (at.keys - 1) * min(weights.k.alignment, v.alignment)
            apart = met * at.scale**2 * max(weights.k.square - weights.k.within, 0.0)
            return replace(adjoint, mean=0.0, square=row * apart, within=two * apart, across=0.0)
        per_key = at.scale**2 * at.groups * at.queries / at.keys
        square = per_key * (row * weights.q.square + (at.queries - 1) * two * weights.q.within)
        return replace(adjoint, mean=0.0, square=max(square, 0.0), within=-square / max(at.keys - 1, 1), across=0.0, along=())

    def _weights(self, case: Case, signals: Sequence[Signal | None]) -> Weights:
        return Weights(self.layout(case, signals), signal_of(signals, 0), signal_of(signals, 1))


def _by_values(weights: Weights, g: Signal) -> Signal:
    """dV = P^T dY; rows of P sum to 1, so that the sum over all keys is the sum over all queries."""
    at = weights.at
    square = at.groups * at.queries / at.keys * (weights.focus * g.square + (at.queries - 1) * weights.pairs * g.within)
    total = at.groups * at.queries * (g.square + (at.queries - 1) * g.within) * float(weights.alive.mean())
    within = (total - at.keys * square) / (at.keys * (at.keys - 1)) if at.keys > 1 else square
    across = at.groups * at.queries / at.keys**2 * g.across * (1.0 + (at.queries - 1) * g.coherence)
    return replace(g, square=square, within=within, across=across, along=())


def _by_bias(case: Case, weights: Weights, g: Signal, row: float, two: float) -> Signal:
    at = weights.at
    scores = (*at.lead, at.queries, at.keys)
    ds = replace(g, mean=0.0, square=row / at.keys, within=two / at.keys / max(at.queries, 1), across=0.0)
    return gathered(replace(case, outputs=(scores,)), 3, ds)


def number(dim: Dim) -> int:
    """An extent of positions or features; raises NotImplementedError where a symbol hides it."""
    if isinstance(dim, str):
        raise NotImplementedError("attention is predicted for a known number of positions")
    return dim


def seen_by(queries: int, keys: int, hidden: Array | None) -> Array | None:
    """[queries, keys], of a mask that is the same for all samples and heads, or averaged over them."""
    if hidden is None:
        return None
    shown = np.broadcast_to(~hidden.astype(bool), np.broadcast_shapes(hidden.shape, (queries, keys)))
    return shown.reshape(-1, queries, keys)[0] if shown.ndim > 2 else shown
