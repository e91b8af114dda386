"""Matrices that are known within a distance: balls of the spectral norm, one for each matrix of a stack.

A product of two balls holds the products of their matrices, rounding included (Higham 2002, eq. 3.13). Beside its centre and
radius a ball carries a bound of the norm that may be less than what the two give: factors of which only the size is known
multiply without a centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vgcompile.interval import EPSILON, Array, Interval
from vgcompile.norms import spectral_norm


@dataclass(frozen=True)
class MatrixBall:
    """``middle`` [steps, m, n]; ``radius`` and ``norm`` [steps]: ||A - middle|| <= radius and ||A|| <= norm."""

    middle: Array
    radius: Array
    norm: Array

    @cached_property
    def size(self) -> Array:
        """The Frobenius norm of the middle."""
        return np.asarray(np.sqrt((self.middle**2).sum(axis=(-2, -1))) * (1.0 + 8.0 * EPSILON))

    def __add__(self, other: MatrixBall) -> MatrixBall:
        middle = self.middle + other.middle
        rounding = 2.0 * EPSILON * (self.size + other.size)
        return met(middle, self.radius + other.radius + rounding, (self.norm + other.norm) * (1.0 + EPSILON))

    def __matmul__(self, other: MatrixBall) -> MatrixBall:
        inner = self.middle.shape[-1]
        rounding = 2.0 * (inner + 4) * EPSILON * self.size * other.size
        radius = self.norm * other.radius + self.radius * other.size + rounding
        return met(self.middle @ other.middle, radius, self.norm * other.norm * (1.0 + EPSILON))


def met(middle: Array, radius: Array, norm: Array) -> MatrixBall:
    """A ball, its norm no larger than what its centre and radius give."""
    radius = np.where(np.isnan(radius), np.inf, radius) * (1.0 + 4.0 * EPSILON)
    norm = np.where(np.isnan(norm), np.inf, norm)
    return MatrixBall(middle, radius, np.minimum(norm, (spectral_norm(middle) + radius) * (1.0 + EPSILON)))


def scaled_rows(terms: Sequence[tuple[Interval, Interval]]) -> MatrixBall:
    """The sum of diag(d) M over ``terms``, with d in an interval [steps, m] and M in an interval matrix [m, n].

    Its distance from the middle is that of sum diag(e) M + diag(d) E, each of which :func:`_norm_of_rows` bounds.
    """
    scales = [_centred(d) for d, _ in terms]
    matrices = [_centred(m) for _, m in terms]
    middle = sum(c[..., None] * m for (c, _), (m, _) in zip(scales, matrices, strict=True))
    entries = sum(np.abs(c)[..., None] * np.abs(m) for (c, _), (m, _) in zip(scales, matrices, strict=True))
    rounding = (len(terms) + 4) * EPSILON * np.sqrt((np.asarray(entries) ** 2).sum(axis=(-2, -1)))
    most = [d.magnitude for d, _ in terms]
    loose = _norm_of_rows([(d, e) for d, (_, e) in zip(most, matrices, strict=True) if e.any()])
    radius = _norm_of_rows([(r, m) for (_, r), (m, _) in zip(scales, matrices, strict=True)]) + loose + rounding
    return met(np.asarray(middle), radius, _norm_of_rows([(d, m) for d, (m, _) in zip(most, matrices, strict=True)]) + loose)


def _centred(x: Interval) -> tuple[Array, Array]:
    """The middle, and how far the ends are from it; of an unbounded interval 0 and infinity."""
    known = np.isfinite(x.lo) & np.isfinite(x.hi)
    lo, hi = np.where(known, x.lo, 0.0), np.where(known, x.hi, 0.0)
    middle = np.where(lo == hi, lo, 0.5 * (lo + hi))
    away = np.maximum(hi - middle, middle - lo) * (1.0 + 2.0 * EPSILON)
    return middle, np.where(known, away, np.inf)


def _norm_of_rows(terms: Sequence[tuple[Array, Array]]) -> Array:
    """The greatest norm of sum diag(d_k) M_k for |d_k| <= ``scale`` [steps, m].

    Either the sum of the norms of diag(scale_k) M_k or, with s_k = sqrt(scale_k sum_l scale_l), the norm of all diag(s_k) M_k
    above each other: the row [d_1 / s_1, d_2 / s_2 ...] of each output has a length of 1 at most.
    """
    if not terms:
        return np.zeros(())
    scaled = [_scaled(d, m) for d, m in terms]
    apart = np.asarray(sum(spectral_norm(each) for each in scaled)) * (1.0 + 8.0 * EPSILON)
    if len(terms) == 1:
        return apart
    total = sum(d for d, _ in terms)
    stacked = [_scaled(np.sqrt(d * total) * (1.0 + 4.0 * EPSILON), m) for d, m in terms]
    together = spectral_norm(np.concatenate(np.broadcast_arrays(*stacked), axis=-2))
    return np.asarray(np.minimum(apart, together) * (1.0 + 8.0 * EPSILON))


def _scaled(d: Array, m: Array) -> Array:
    """diag(d) M, no entry rounded toward 0; an infinite scale of a row of zeros is none."""
    with np.errstate(invalid="ignore", over="ignore"):
        made = np.where(m == 0.0, 0.0, d[..., None] * m)
    return np.asarray(made * (1.0 + (m.shape[-1] + 4) * EPSILON))


def identity(n: int) -> Interval:
    eye = np.eye(n)
    return Interval(eye, eye)


def beside(grid: Sequence[Sequence[MatrixBall]]) -> Array:
    """The middles of a grid of balls as one matrix [steps, rows, columns]."""
    return np.concatenate([np.concatenate([ball.middle for ball in row], axis=-1) for row in grid], axis=-2)
