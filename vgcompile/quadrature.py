"""Expectations under a Gaussian: nodes, weights, and the correlation that a function leaves of a correlation it is given.

Composite Gauss-Legendre on [-9, 9] standard deviations with panel borders at every kink, so that a ReLU's moments come out to
machine precision where Gauss-Hermite converges like 1/n.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

REACH = 9.0  # the mass outside is 2e-19
PANELS = 48
POINTS = 8  # Gauss-Legendre points a panel
HERMITE_TERMS = 40
_POWERS = np.arange(HERMITE_TERMS + 1)


@dataclass(frozen=True)
class Gaussian:
    """N(mean, variance), as nodes ``x`` with ``weights`` that sum to 1. Functions are given by their values at the nodes, a
    constant one by a single number.

    ``hermite`` [terms, nodes] maps a function's values at the nodes to its coefficients in normalized Hermite polynomials.
    """

    x: Array
    z: Array
    weights: Array
    hermite: Array

    def mean(self, f: Array) -> float:
        """E[f]."""
        return float(self.weights @ f) if np.ndim(f) else float(f)

    def pair(self, f: Array, correlation: float) -> float:
        """E[f(u) f(v)] for u, v with this marginal and the given correlation, by Mehler's formula: sum of a_k^2 rho^k.

        The coefficients beyond the last one kept, E[f^2] - sum a_k^2 in all, count with the next power.
        """
        if not np.ndim(f):
            return float(f) ** 2
        if correlation >= 1.0:
            return self.mean(f * f)
        rho = max(correlation, -1.0)
        squares = (self.hermite @ f) ** 2
        rest = max(self.mean(f * f) - float(squares.sum()), 0.0)
        powers = rho**_POWERS
        return float(squares @ powers[:-1]) + rest * float(powers[-1])

    def sensitivity(self, f: Array) -> float:
        """d ln E[f^2] / d ln variance, the slope of the length map: above 1, small fluctuations of a finite width grow."""
        square = self.mean(f * f)
        return 0.5 * self.mean(f * f * (self.z * self.z - 1.0)) / square if square > 0 else 0.0


def gaussian(mean: float, variance: float, kinks: tuple[float, ...] = ()) -> Gaussian:
    """Nodes for N(mean, variance), panel borders at ``kinks``. A variance of 0 is a point mass at every node."""
    sd = variance**0.5
    borders = tuple(sorted((kink - mean) / sd for kink in kinks if sd > 0 and abs(kink - mean) < REACH * sd))
    z, weights, hermite = _standard(borders)
    return Gaussian(mean + sd * z, z, weights, hermite)


@lru_cache(maxsize=1024)
def _standard(borders: tuple[float, ...]) -> tuple[Array, Array, Array]:
    edges = np.array(sorted({*np.linspace(-REACH, REACH, PANELS + 1).tolist(), *borders}))
    points, parts = np.polynomial.legendre.leggauss(POINTS)
    half = np.diff(edges)[:, None] / 2.0
    z = ((edges[:-1] + edges[1:])[:, None] / 2.0 + half * points).ravel()
    weights = (half * parts).ravel() * np.exp(-z * z / 2.0) / np.sqrt(2.0 * np.pi)
    weights = weights / weights.sum()
    polynomials = [np.ones_like(z), z]
    for k in range(1, HERMITE_TERMS - 1):  # normalized: h_{k+1} = (z h_k - sqrt(k) h_{k-1}) / sqrt(k + 1)
        polynomials.append((z * polynomials[k] - np.sqrt(k) * polynomials[k - 1]) / np.sqrt(k + 1.0))
    return z, weights, np.stack(polynomials) * weights
