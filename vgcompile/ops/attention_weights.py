"""The weights that a softmax makes of scores, row by row and for pairs of rows.

With queries given, the scores of a row are Gaussian over the keys; what all keys share changes no weight. How concentrated the
weights are is in ``concentration.py``; at small scores they are uniform over the keys that a query sees, as at the start of a
transformer (Noci et al. 2022). A mask is counted query by query.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vgcompile.ops.concentration import Concentration, concentration
from vgcompile.ops.op import Array

ROWS_COMPARED = 256  # queries whose pairs are looked at: more are a sample of them, evenly spread


@dataclass(frozen=True, eq=False)
class Weights:
    """Softmaxes along the rows of ``queries`` by ``keys`` scores: ``variance`` over the keys of a row, ``correlation`` of the
    scores of two rows; ``visible`` [queries, keys] or None for all."""

    queries: int
    keys: int
    variance: float
    correlation: float
    visible: Array | None = None

    @cached_property
    def counts(self) -> Array:
        """Keys that each query sees."""
        return np.full(1, float(self.keys)) if self.visible is None else self.visible.sum(-1).astype(np.float64)

    @cached_property
    def seeing(self) -> Array:
        return (self.counts > 0).astype(np.float64)

    @property
    def alive(self) -> float:
        """The share of queries that see a key."""
        return float(self.seeing.mean())

    @cached_property
    def each(self) -> Concentration:
        return concentration(self.variance, self.counts)

    @cached_property
    def focus(self) -> float:
        """E sum_j p_ij^2."""
        return float((self.each.focus * self.seeing).mean())

    @cached_property
    def passed(self) -> float:
        """What an independent adjoint of the weights lets through, E sum_j ds_ij^2."""
        return float((self.each.passed * self.seeing).mean())

    @property
    def others(self) -> float:
        """E sum of p_ij p_ij' over pairs of keys, against the focus: the keys beside each one, weighed as a query weighs them."""
        return (self.alive - self.focus) / self.focus if self.focus > 0 else 0.0

    @cached_property
    def _pairs(self) -> tuple[float, float]:
        sharpened, through = self.each.overlap(self.correlation) * self.each.keys, self.each.passed / self.each.focus
        if self.visible is None:
            one = float(sharpened[0] / self.keys)
            return one, one * float(through[0])
        rows = np.unique(np.linspace(0, self.queries - 1, min(self.queries, ROWS_COMPARED)).astype(int))
        seen, counts, n = self.visible[rows].astype(np.float64), np.maximum(self.counts[rows], 1.0), max(len(rows), 2)
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


def seen_by(queries: int, keys: int, hidden: Array | None) -> Array | None:
    """[queries, keys], of a mask. Raises NotImplementedError for one that differs from sample to sample, or from head to head."""
    if hidden is None:
        return None
    shown = np.broadcast_to(~hidden.astype(bool), np.broadcast_shapes(hidden.shape, (queries, keys))).reshape(-1, queries, keys)
    if not (shown == shown[:1]).all():
        raise NotImplementedError("what a mask hides differs from sample to sample, or from head to head")
    return np.asarray(shown[0])
