"""How a softmax of random scores spreads its weight, and what of an adjoint it lets through.

Scores that differ by independent N(0, t^2) along the axis (a part that they share changes nothing) have the weights
p_j = e^(t z_j) / S. Powers of 1/S are integrals, 1/S^n = int u^(n-1) e^(-u S) du / (n-1)!, so that every moment is exact for
independent scores: with A_m(u) = E[e^(m t z) exp(-u e^(t z))],

    E sum p^2 = k int u A_2 A_0^(k-1) du,    and so on for the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from vgcompile.quadrature import gaussian

Array = np.ndarray[Any, Any]
POINTS = 500
MANY = 128  # numbers of keys
WIDEST = 400.0  # variance of scores: exp(4 * 8 sd) is a double up to 480


@dataclass(frozen=True)
class Concentration:
    """Of k weights, each an array over the k that were asked for: ``focus`` E sum p^2, from 1/k (uniform) to 1 (one key takes
    all); ``passed`` E sum_j ds_j^2 for an adjoint of the weights with independent entries of variance 1, where
    ds_j = p_j (g_j - sum p g)."""

    keys: Array
    focus: Array
    passed: Array

    def overlap(self, correlation: float) -> Array:
        """E sum_j p_j p'_j of two softmaxes whose scores correlate.

        Exact for 0 (1/k) and 1 (the focus), and for many keys, where it is e^(rho t^2) / k; the exponents between are linear.
        """
        rho = min(max(correlation, 0.0), 1.0)
        return np.asarray((self.keys * self.focus) ** rho / self.keys)


def concentration(variance: float, keys: Array) -> Concentration:
    """Moments for scores of this variance along the axis, for each number of keys (1 and more).

    Raises NotImplementedError for scores so far apart that their exponentials leave the doubles.
    """
    if variance > WIDEST:
        raise NotImplementedError("scores so far apart that one key takes all of the weight")
    wanted = np.maximum(np.asarray(keys, np.float64).reshape(-1), 1.0)
    told = _told(np.unique(wanted))
    moments = _moments(float(f"{max(variance, 0.0):.9g}"), tuple(told.tolist()))
    focus, passed = (np.exp(np.interp(np.log(wanted), np.log(told), np.log(np.maximum(x, 1e-300)))) for x in moments)
    return Concentration(wanted, focus, passed)


def _told(keys: Array) -> Array:
    """The numbers of keys that moments are worked out for: of very many, as a causal mask has, some at equal ratios, between
    which they are smooth (to 1e-4)."""
    if len(keys) <= MANY:
        return keys
    return np.unique(np.concatenate([keys[: MANY // 3], np.geomspace(keys[MANY // 3], keys[-1], MANY - MANY // 3)]))


@lru_cache(maxsize=256)
def _moments(variance: float, keys: tuple[float, ...]) -> tuple[Array, Array]:
    k = np.asarray(keys)[:, None]
    normal = gaussian(0.0, variance)
    reach = 7.0 * np.sqrt(variance)
    logs = np.linspace(-np.log(k.max()) - reach - variance / 2.0 - 16.0, reach + 5.0, POINTS)
    step, u = logs[1] - logs[0], np.exp(logs)
    decay = np.exp(-np.outer(u, np.exp(normal.x)))  # [points, nodes]
    a0, a2, a3, a4 = (decay @ (normal.weights * np.exp(m * normal.x)) for m in (0, 2, 3, 4))
    others = np.exp((k - 1.0) * np.log(np.maximum(a0, 1e-300)))
    rest = np.where(k > 1.0, np.exp((k - 2.0) * np.log(np.maximum(a0, 1e-300))), 0.0)

    def integral(power: int, factor: float, f: Array) -> Array:
        return np.asarray((u**power / factor * f).sum(-1) * step)

    focus = k[:, 0] * integral(2, 1.0, a2 * others)
    cubes = k[:, 0] * integral(3, 2.0, a3 * others)
    fourth = k[:, 0] * integral(4, 6.0, a4 * others) + k[:, 0] * (k[:, 0] - 1.0) * integral(4, 6.0, a2 * a2 * rest)
    return focus, np.maximum(focus - 2.0 * cubes + fourth, 0.0)
