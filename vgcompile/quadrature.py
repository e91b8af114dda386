"""Expectations under a Gaussian: nodes, weights, and the correlation that a function leaves of a correlation it is given.

Composite Gauss-Legendre on [-9, 9] standard deviations with panel borders at every kink, so that a ReLU's moments come out to
machine precision where Gauss-Hermite converges like 1/n.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

REACH = 9.0  # the mass outside is 2e-19
PANELS = 48
POINTS = 8  # Gauss-Legendre points a panel
HERMITE_TERMS = 40
_NOTHING = np.zeros(0)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, variance), as nodes ``x`` with ``weights`` that sum to 1. Functions are given by their values at the nodes, a
    constant one by a single number.

    ``curved`` are the weights times z^2 - 1; ``hermite`` [terms, nodes] maps a function's values at the nodes to its coefficients
    in normalized Hermite polynomials.
    """

    x: Array
    z: Array
    weights: Array
    curved: Array
    hermite: Array
    _known: dict[int, tuple[Array, Pairs]] = field(default_factory=dict, init=False, repr=False)

    def mean(self, f: Array) -> float:
        """E[f]."""
        return float(self.weights @ f) if np.ndim(f) else float(f)

    def pairs(self, f: Array) -> Pairs:
        """E[f(u) f(v)] for u, v with this marginal, by their correlation; of an array that is given again, as it was."""
        if not np.ndim(f):
            return Pairs(float(f) ** 2, np.asarray(f * f), _NOTHING, float(f) ** 2, 0.0)
        if id(f) not in self._known:
            self._known[id(f)] = f, self._expanded(f)
        return self._known[id(f)][1]

    def _expanded(self, f: Array) -> Pairs:
        f2 = f * f
        square, squares = float(self.weights @ f2), (self.hermite @ f) ** 2
        bend = 0.5 * float(self.curved @ f2) / square if square > 0 else 0.0
        return Pairs(square, f2, squares, max(square - float(squares.sum()), 0.0), bend)

    def pair(self, f: Array, correlation: float) -> float:
        """E[f(u) f(v)] for u, v with this marginal and the given correlation."""
        return self.pairs(f).at(correlation)


@dataclass(frozen=True)
class Pairs:
    """E[f(u) f(v)] by Mehler's formula: the sum of a_k^2 rho^k.

    ``square`` is E[f^2], ``f2`` f^2 at the nodes, ``squares`` [terms] the a_k^2, and ``rest`` what E[f^2] has beyond the last one
    kept, which counts with the next power. ``sensitivity``, the slope of the length map, is d ln E[f^2] / d ln variance =
    E[f^2 (z^2 - 1)] / 2 E[f^2]: above 1, small fluctuations of a finite width grow.
    """

    square: float
    f2: Array
    squares: Array
    rest: float
    sensitivity: float

    def at(self, correlation: float) -> float:
        if correlation >= 1.0 or not len(self.squares):
            return self.square
        powers = _powers(max(correlation, -1.0))
        return float(self.squares @ powers[:-1]) + self.rest * float(powers[-1])


@lru_cache(maxsize=64)
def _powers(correlation: float) -> Array:
    return np.asarray(correlation ** np.arange(HERMITE_TERMS + 1))


def gaussian(mean: float, variance: float, kinks: tuple[float, ...] = ()) -> Gaussian:
    """Nodes for N(mean, variance), panel borders at ``kinks``. A variance of 0 is a point mass at every node."""
    sd = variance**0.5
    borders = tuple(sorted((kink - mean) / sd for kink in kinks if sd > 0 and abs(kink - mean) < REACH * sd))
    z, *others = _standard(borders)
    return Gaussian(mean + sd * z, z, *others)


@lru_cache(maxsize=1024)
def _standard(borders: tuple[float, ...]) -> tuple[Array, Array, Array, Array]:
    edges = np.array(sorted({*np.linspace(-REACH, REACH, PANELS + 1).tolist(), *borders}))
    points, parts = np.polynomial.legendre.leggauss(POINTS)
    half = np.diff(edges)[:, None] / 2.0
    z = ((edges[:-1] + edges[1:])[:, None] / 2.0 + half * points).ravel()
    weights = (half * parts).ravel() * np.exp(-z * z / 2.0) / np.sqrt(2.0 * np.pi)
    weights = weights / weights.sum()
    polynomials = [np.ones_like(z), z]
    for k in range(1, HERMITE_TERMS - 1):  # normalized: h_{k+1} = (z h_k - sqrt(k) h_{k-1}) / sqrt(k + 1)
        polynomials.append((z * polynomials[k] - np.sqrt(k) * polynomials[k - 1]) / np.sqrt(k + 1.0))
    return z, weights, weights * (z * z - 1.0), np.stack(polynomials) * weights
