"""Adjoints as linear maps of uncertain vectors that lie together in one ellipsoid.

For a seed g with ||g|| <= 1 the adjoint of a value v is J_v^T g = T_v xi + delta, with a known matrix T_v, a vector of what is
uncertain, xi = (w, z_1, z_2, ...), xi^T Sigma^-1 xi <= 1, and a remainder ||delta|| <= slack that holds the rounding. Hence
||J_v^T|| <= ||T_v Sigma T_v^T||^(1/2) + slack.

Where slopes d = c + r s, |s_i| <= 1, multiply u = T xi, the product is c u + z with |z_i| <= r_i |u_i|. With any weights
n_i > 0, sum n_i (z_i / r_i)^2 <= sum n_i u_i^2, so that, added to the ellipsoid's own inequality (the S-procedure),

    xi^T (Sigma^-1 - T^T N T) xi + sum (n_i / r_i^2) z_i^2 <= 1

wherever the first matrix is positive: again an ellipsoid, z beside xi. Here n_i = nu r_i, with the nu of each group of z that
would bound the norm of the adjoint in question best if everything were alike; each adjoint has weights of its own. For a chain
with slopes in [0, b] this is the closed form of ECLipsE-Fast (Xu and Sivaranjani, NeurIPS 2024); as r shrinks it is exact. The
same holds for an operator of which a norm alone is known, r being that norm and s any contraction.

All of it is float64. What is computed of a positive matrix is inflated by more than its rounding: a product of inner dimension k
errs by k u ||A||_F ||B||_F (Higham 2002, eq. 3.13), the inverse of I - E by that over (1 - ||E||)^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from vgcompile.analysis.bounds.positive import estimate, padded, placed, root_of
from vgcompile.interval import EPSILON, Array
from vgcompile.norms import largest_eigenvalue, singular_extremes

T = TypeVar("T")
LEAST, MOST = 1e-9, 0.98  # of the ellipsoid that one group may take up; at 1 it degenerates
LITTLE = 0.1  # of a centre: a distance from it that need not be known any better
TINIEST = 1e-70  # in units of the base: below it, and above its inverse, squares are no longer safe


@dataclass(frozen=True)
class Adjoint:
    """T [n, K] over the first K uncertain numbers, and what it leaves out."""

    map: Array
    slack: float = 0.0


@dataclass(frozen=True)
class Group:
    """Uncertain numbers ``start`` to ``stop`` that one operator brought: ||z / root|| <= ||reach xi|| <= ``most``. ``shape`` is
    reach Sigma reach^T where no group came before."""

    start: int
    stop: int
    reach: Array
    root: Array
    most: float
    shape: Array | None


@dataclass
class Latents:
    """The ellipsoid of the base, [k, k], and the groups that came after it.

    ``centre`` [k, m] is the base as a map of the seed, or None where that is not followed; the base is in the ellipsoid
    ``error`` ``error``^T [k, *] around it. All adjoints, slacks and norms are in units of 2^``exponent``, so that squares of what
    has vanished stay within a double. ``work`` counts multiply-adds.

    A ``round`` ellipsoid is a ball around 0, as large as centre and distance say: nothing is computed but these two. Where the
    centre is no longer followed it holds nothing more.
    """

    base: Array
    centre: Array | None
    error: Array
    round: bool = False
    groups: list[Group] = field(default_factory=list)
    work: float = 0.0
    exponent: int = 0
    _kept: dict[tuple[str, float], Any] = field(default_factory=dict)  # by what it is and the adjoint's slack
    _kept_of: Array | None = None
    _reached: tuple[int, float] = (-1, 0.0)  # the greatest ||xi||, with so many groups

    def holds(self, v: Adjoint) -> bool:
        """Whether squares of an adjoint stay within a double."""
        size = self._size(v.map) + v.slack
        return bool(size == 0.0 or TINIEST < size < 1.0 / TINIEST)

    def relative(self, length: float) -> float:
        """A length in the units of the adjoints, rounded up."""
        return float(np.ldexp(length, -self.exponent)) * (1.0 + EPSILON) + TINIEST**2 if length else 0.0

    @property
    def size(self) -> int:
        return self.groups[-1].stop if self.groups else len(self.base)

    def norm(self, v: Adjoint) -> float:
        """An upper bound of the adjoint's norm."""
        if self.round:
            return self._by_centre(v)
        n, k = v.map.shape
        sigma = self._sigma(v)
        if n <= k:
            square = largest_eigenvalue(self._own_shape(v))
        else:
            gram = padded(v.map.T @ v.map, (n + 4) * EPSILON * float(np.linalg.norm(v.map)) ** 2)
            root = root_of(sigma)
            square = largest_eigenvalue(self._shape(root.T, gram))
        self.work += 4.0 * min(n, k) ** 3
        return (math.sqrt(square) + v.slack) * (1.0 + 1e-14)

    def near(self, v: Adjoint) -> tuple[float, float] | None:
        """Bounds of ||adjoint|| / ||seed||, from below and from above, by the centre and the distance from it; None where that is
        not followed, or more than the centre itself."""
        return self._once(v, "near", lambda: self._near(v))

    def _near(self, v: Adjoint) -> tuple[float, float] | None:
        centre = self.middle(v)
        if centre is None:
            return None
        away, (n, m) = self.deviation(v), centre.shape
        if away > float(np.linalg.norm(centre)):
            return None
        self.work += 20.0 * n * m * min(n, m)
        least, most = singular_extremes(centre, away if n >= m else math.inf)
        return (max(least - away, 0.0) if n >= m else 0.0, most + away)

    def _by_centre(self, v: Adjoint) -> float:
        if (near := self.near(v)) is not None:
            return near[1] * (1.0 + EPSILON)
        centre = self.middle(v)
        return math.inf if centre is None else float(np.linalg.norm(centre)) * (1.0 + 1e-12) + self.deviation(v)

    def sum(self, a: Adjoint, b: Adjoint) -> Adjoint:
        """Two adjoints of one value together."""
        wide, narrow = (a, b) if a.map.shape[1] >= b.map.shape[1] else (b, a)
        total = wide.map.copy()
        total[:, : narrow.map.shape[1]] += narrow.map
        return Adjoint(total, (a.slack + b.slack) * (1.0 + EPSILON) + EPSILON * self._size(total))

    def uncertain(self, u: Adjoint, centre: Array, radius: Array) -> Adjoint:
        """diag(d) u for slopes d within ``radius`` of ``centre``: new numbers for each that is uncertain."""
        rows, most = np.flatnonzero(radius > 0.0), float(np.abs(centre).max(initial=0.0))
        slack = float((np.abs(centre) + radius).max(initial=0.0)) * u.slack * (1.0 + 2.0 * EPSILON)
        known = Adjoint(centre[:, None] * u.map, slack + EPSILON * most * self._size(u.map))
        if not len(rows):
            return known
        root = np.sqrt(radius[rows]) * (1.0 + 2.0 * EPSILON)
        start = self._add(u.map[rows] * root[:, None], root, self._by_distance(u, rows, root) if self.round else math.inf)
        return self.sum(known, Adjoint(placed(len(u.map), rows, start)))

    def bounded(self, u: Adjoint, n: int, radius: float) -> Adjoint:
        """E u for a map E to n numbers with ||E|| <= ``radius``, of which nothing else is known."""
        if radius == 0.0:
            return Adjoint(np.zeros((n, u.map.shape[1])))
        root = math.sqrt(radius) * (1.0 + 2.0 * EPSILON)
        start = self._add(u.map * root, np.full(n, root))
        return Adjoint(placed(n, np.arange(n), start), radius * u.slack * (1.0 + 2.0 * EPSILON))

    def mapped(self, u: Adjoint, pulled: Array, error: float, norm: float) -> Adjoint:
        """L u, computed as ``pulled`` with a relative ``error``, for a map of this ``norm``."""
        return Adjoint(pulled, norm * u.slack * (1.0 + 2.0 * EPSILON) + error * self._size(u.map))

    def deviation(self, v: Adjoint) -> float:
        """How far the adjoint may be from its centre, in norm."""
        if not self.error.size and not self._groups(v):
            return v.slack + self.rounding(v)
        return self._once(v, "deviation", lambda: math.sqrt(largest_eigenvalue(self._deviating(v))) * (1.0 + 1e-12))

    def extent(self, v: Adjoint) -> Array:
        """An upper bound of each element of an adjoint: how far the ellipsoid goes along its axis."""
        sigma = self._sigma(v)
        k = v.map.shape[1]
        self.work += float(v.map.size) * k
        squares = ((v.map @ sigma) * v.map).sum(axis=1)
        squares += 4.0 * (k + 4) * EPSILON * float(np.linalg.norm(sigma)) * (v.map * v.map).sum(axis=1)
        return np.asarray((np.sqrt(np.maximum(squares, 0.0)) + v.slack) * (1.0 + 1e-14))

    def deviations(self, v: Adjoint) -> Array:
        """:meth:`deviation`, of each element alone."""
        found = v.slack + np.linalg.norm(v.map[:, : len(self.base)] @ self.error, axis=1)
        for group in self._groups(v):
            found = found + np.linalg.norm(v.map[:, group.start : group.stop] * group.root, axis=1) * group.most
        return np.asarray(found * (1.0 + 1e-12) + self.rounding(v))

    def _deviating(self, v: Adjoint) -> Array:
        return self._once(v, "deviating", lambda: self._distances(v))

    def _distances(self, v: Adjoint) -> Array:
        """An ellipsoid for the adjoint less its centre: B error, M root z' for each group, the remainder, and their sum.

        A sum of vectors in ellipsoids S_i lies in that of sum S_i / p_i, for all shares p_i > 0 of sum 1; these make its trace
        the least.
        """
        parts = [v.map[:, : len(self.base)] @ self.error] if self.error.size else []
        for group in self._groups(v):
            parts.append(v.map[:, group.start : group.stop] * (group.root * group.most))
            self.work += float(parts[-1].size) * len(v.map)
        rest, side = v.slack + self.rounding(v), math.sqrt(len(v.map))
        sizes = [float(np.linalg.norm(part)) for part in parts]
        whole = sum(sizes) + rest * side
        total = np.zeros((len(v.map), len(v.map)))
        for part, size in zip(parts, sizes, strict=True):
            if size > 0.0:
                total += (part @ part.T) * (whole / size)
        rounding = 8.0 * (max(v.map.shape) + 8) * EPSILON * (float(np.linalg.norm(total)) + whole * rest)
        return padded(total, whole * rest / max(side, 1.0) + rounding)

    def _groups(self, v: Adjoint) -> list[Group]:
        return [group for group in self.groups if group.start < v.map.shape[1]]

    def middle(self, v: Adjoint) -> Array | None:
        """The centre of an adjoint as a map of the seed, [n, m]."""
        centre = self.centre
        return None if centre is None else self._once(v, "middle", lambda: v.map[:, : len(self.base)] @ centre)

    def rounding(self, v: Adjoint) -> float:
        """Of :meth:`middle`."""
        return (
            0.0
            if self.centre is None
            else ((len(self.base) + 4) * EPSILON * float(np.linalg.norm(v.map) * np.linalg.norm(self.centre)))
        )

    def rebased(self, v: Adjoint) -> tuple[Latents, Adjoint]:
        """The one adjoint that all others will be computed from as a base of its own: what it came from is forgotten.

        Its remainder goes into the ellipsoid: |a + d|^2 <= (1 + t) |a|^2 + (1 + 1/t) |d|^2 along any axis.
        """
        centre, error = self.middle(v), None
        if centre is not None:
            away = self._deviating(v)
            error = root_of(away) if float(np.trace(away)) < float(np.linalg.norm(centre)) ** 2 * len(away) else None
        if error is None:
            centre, error = None, np.zeros((len(v.map), 0))
        shape = self._own_shape(v)
        if v.slack and not self.round:
            share = v.slack / math.sqrt(float(np.trace(shape)) / len(shape) + v.slack**2)
            shape = padded(shape * (1.0 + share), v.slack**2 * (1.0 + 1.0 / share) * (1.0 + 8.0 * EPSILON))
        size = math.sqrt(float(np.trace(shape)) / max(len(shape), 1))
        power = math.frexp(size)[1] if size > 0.0 else 0
        unit = 2.0**-power
        kept = None if centre is None else centre * unit
        made = Latents(shape * unit**2, kept, error * unit, self.round, work=self.work, exponent=self.exponent + power)
        return made, Adjoint(np.eye(len(v.map)))

    def _by_distance(self, u: Adjoint, rows: Array, root: Array) -> float:
        """||root u|| by the distance of all of u from its centre, where that is little beside the centre; else infinite."""
        centre = self.middle(u)
        if centre is None or not math.isfinite(away := float(root.max()) * self.deviation(u)):
            return math.inf
        _, known = singular_extremes(centre[rows] * root[:, None], math.inf)
        return (known + away) * (1.0 + 8.0 * EPSILON) if away <= LITTLE * known else math.inf

    def _add(self, reach: Array, root: Array, known: float = math.inf) -> int:
        start, adjoint = self.size, Adjoint(reach)
        most = known if known < math.inf else self.norm(adjoint)
        shape = None if self.groups or self.round else self._own_shape(adjoint)
        self.groups.append(Group(start, start + len(root), reach, root, most, shape))
        return start

    def _size(self, a: Array) -> float:
        """An upper bound of ||a xi||: ||a||_F times the greatest ||xi||, by the largest groups and the base."""
        if self._reached[0] != len(self.groups):
            most = (float(group.root.max(initial=0.0)) * group.most for group in self.groups)
            self._reached = len(self.groups), math.sqrt(float(np.trace(self.base)) + sum(each**2 for each in most))
        return float(np.linalg.norm(a)) * self._reached[1] * (1.0 + 1e-12)

    def _shape(self, a: Array, sigma: Array) -> Array:
        """a Sigma a^T for a [n, K], no less than it truly is."""
        k = a.shape[1]
        self.work += a.size * (k + len(a))
        found = a @ sigma @ a.T
        return padded(found, 4.0 * (k + 4) * EPSILON * float(np.linalg.norm(sigma)) * float(np.linalg.norm(a)) ** 2)

    def _own_shape(self, v: Adjoint) -> Array:
        """T Sigma T^T, weighted for this adjoint."""
        if self.round:
            return np.eye(len(v.map)) * (self.norm(v) ** 2 * (1.0 + 4.0 * EPSILON))
        return self._once(v, "shape", lambda: self._shape(v.map, self._sigma(v)))

    def _sigma(self, v: Adjoint) -> Array:
        """The ellipsoid of the first K uncertain numbers, [K, K], weighted for this adjoint."""
        return self._once(v, "sigma", lambda: self._weighted(v))

    def _once(self, v: Adjoint, name: str, made: Callable[[], T]) -> T:
        """What is computed of an adjoint, kept until another one is asked for: norm, extent and a new base all need it."""
        if self._kept_of is not v.map:
            self._kept, self._kept_of = {}, v.map
        if (name, v.slack) not in self._kept:
            self._kept[name, v.slack] = made()
        return self._kept[name, v.slack]  # type: ignore[no-any-return]

    def _weighted(self, v: Adjoint) -> Array:
        sigma = self.base
        groups = self._groups(v)
        if not groups:
            return sigma
        own = v.map[:, : len(self.base)]
        parts = [estimate(own, self.base), *(_contribution(v.map, group) for group in groups)]
        whole, taken = sum(parts), 0.0
        for group, part in zip(groups, parts[1:], strict=True):
            wanted = part / whole if whole > 0.0 else 0.5
            share = min(max(wanted / max(1.0 - taken, LEAST), LEAST), MOST)
            taken = min(taken + wanted, 1.0 - LEAST)
            sigma = self._grown(sigma, group, share)
        return sigma

    def _grown(self, sigma: Array, group: Group, share: float) -> Array:
        k = group.reach.shape[1]
        shape = self._shape(group.reach, sigma[:k, :k]) if group.shape is None else group.shape
        rho = largest_eigenvalue(shape) if group.shape is None else group.most**2 * (1.0 + EPSILON)
        nu = share / max(rho, 1e-290)
        ahead = sigma[:, :k] @ group.reach.T
        inner = np.linalg.inv(np.eye(len(shape)) - nu * shape)
        grown = sigma + nu * (ahead @ inner @ ahead.T)
        self.work += ahead.size * (k + len(sigma) + len(shape)) + 5.0 * len(shape) ** 3
        rounding = 64.0 * (len(sigma) + len(shape)) * EPSILON * float(np.linalg.norm(grown)) / (1.0 - share) ** 2
        found = np.zeros((group.stop, group.stop))
        found[: group.start, : group.start] = padded(grown, rounding)
        fresh = np.arange(group.start, group.stop)
        found[fresh, fresh] = group.root**2 / nu * (1.0 + 1e-12)
        return found


def _contribution(v: Array, group: Group) -> float:
    """About what a group brings to the norm of an adjoint."""
    part = v[:, group.start : group.stop]
    return estimate(part, np.diag(group.root**2)) * group.most
