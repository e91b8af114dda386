"""Scaled dot-product attention near a point: a linear map by each operand, and how far the Jacobian may be from it.

Operands of a head are matrices known within balls; see dot_product_bounds.py for the Jacobians, which are products of them. Along
a way from the point, on which rows of V and K move by at most d_v and d_k and a query's scores by amounts that differ by at most
w from key to key, the covariance V^T M K moves by no more than w r_v r_k + d_v r_k + r_v d_k, with r the radii of balls that hold
all rows: ||E[(v - y)(k - m)^T t]|| <= w sqrt(||Cov(v, v)|| ||Cov(k, k)||) where |t| <= w. The least of both is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vgcompile.interval import EPSILON, WHOLE, Interval, down, point, up
from vgcompile.norms import spectral_norm
from vgcompile.ops.maps import one_sample
from vgcompile.ops.matrix_ball import MatrixBall
from vgcompile.ops.op import Array, Case, LinearMap, Tangent

LARGEST = 2**21  # numbers of all queries' matrices
FAR = 0.5  # by which weights move: then diag(p) - p p^T, whose norm is 1/2 at most, moves by as much as it is
ROOM = 1.0 + 1e-12  # for the rounding of a few operations on numbers that all have one sign


@dataclass(frozen=True)
class Part:
    """The Jacobian by one operand: its greatest norm and, near a point, a map and the distance from it."""

    norm: float
    tangent: Tangent


@dataclass(frozen=True)
class Nearby:
    """Operands as matrices [heads, positions, size] within balls, the weights ``p`` [heads, queries, keys] at their centres, and
    how far a row of weights may be from them: ``moved`` in the l2 norm, ``apart`` of its greatest entry, ``most`` its ends.

    ``spreads`` [2, heads]: radii of balls that hold all rows of a head's K and of its V; ``steps`` [2, heads]: how far a row of
    these moves; ``differing`` [heads, queries]: by how much more one score moves than another.
    """

    q: MatrixBall
    k: MatrixBall
    v: MatrixBall
    lengths: Array  # of queries, [heads, queries]
    moves: Array  # of queries, in the l2 norm
    scale: float
    p: Array
    moved: Array
    apart: Array
    most: Array
    spreads: Array
    steps: Array
    differing: Array

    def covariance(self) -> MatrixBall:
        """M of each query, [heads, queries, keys, keys]: it moves by diag(d) - d p^T - p0 d^T where p does by d."""
        middle = np.eye(self.p.shape[-1]) * self.p[..., None] - self.p[..., :, None] * self.p[..., None, :]
        long = np.sqrt(np.minimum((self.most**2).sum(-1), 1.0)) + np.sqrt((self.p**2).sum(-1))
        return MatrixBall(middle, (self.apart + self.moved * long) * ROOM + 1e-14, _norm_of_softmax(self.most))

    def centred(self, x: MatrixBall) -> MatrixBall:
        """Rows of a head less their mean at the centre."""
        middle = x.middle - x.middle.mean(-2, keepdims=True)
        size = np.sqrt((middle**2).sum(axis=(-2, -1)))
        return MatrixBall(middle, x.radius, (np.minimum(size, spectral_norm(middle)) + x.radius) * ROOM)

    def seen(self) -> MatrixBall:
        """V^T M of each query, [heads, queries, size, keys]."""
        found = _turned(_each(self.centred(self.v))) @ self.covariance()
        (_, r_v), (_, d_v) = self.spreads[..., None], self.steps[..., None]
        moved = (d_v + self.differing * r_v) * math.sqrt(0.5) * ROOM
        return _least(found, moved, np.broadcast_to(r_v * math.sqrt(0.5) * ROOM, moved.shape))

    def by_queries(self) -> Part:
        (r_k, r_v), (d_k, d_v) = self.spreads[..., None], self.steps[..., None]
        moved = (self.differing * r_v * r_k + d_v * r_k + r_v * d_k) * ROOM
        found = _least(self.seen() @ _each(self.centred(self.k)), moved, np.broadcast_to(r_v * r_k * ROOM, moved.shape))
        c = self.scale * found.middle

        def push(t: Array) -> Array:
            return np.asarray(np.einsum("hivd,shid->shiv", c, t.reshape(len(t), *self.q.middle.shape)).reshape(len(t), -1))

        def pull(g: Array) -> Array:
            return np.asarray(np.einsum("hivd,shiv->shid", c, g.reshape(len(g), *c.shape[:3])).reshape(len(g), -1))

        norm = float(np.sqrt((c**2).sum(axis=(-2, -1))).max(initial=0.0))
        return self._part(
            push, pull, norm, abs(self.scale) * float(found.radius.max()), abs(self.scale) * float(found.norm.max())
        )

    def by_keys(self) -> Part:
        found = self.seen()
        a = self.scale * found.middle

        def push(t: Array) -> Array:
            turned = np.einsum("hid,shjd->shij", self.q.middle, t.reshape(len(t), *self.k.middle.shape))
            return np.asarray(np.einsum("hivj,shij->shiv", a, turned).reshape(len(t), -1))

        def pull(g: Array) -> Array:
            turned = np.einsum("hivj,shiv->shij", a, g.reshape(len(g), *a.shape[:3]))
            return np.asarray(np.einsum("hid,shij->shjd", self.q.middle, turned).reshape(len(g), -1))

        size = np.minimum(found.norm, np.sqrt((found.middle**2).sum(axis=(-2, -1))))
        length = np.sqrt((self.q.middle**2).sum(-1))
        off = found.radius * self.lengths + size * self.moves
        frobenius = np.sqrt((found.middle**2).sum(axis=(-2, -1)))
        whole, norm, ball = (_over_queries(self.scale * x) for x in (found.norm * self.lengths, frobenius * length, off))
        return self._part(push, pull, norm, ball, whole)

    def by_values(self) -> Part:
        def push(t: Array) -> Array:
            return np.asarray((self.p @ t.reshape(len(t), *self.v.middle.shape)).reshape(len(t), -1))

        def pull(g: Array) -> Array:
            shape = (*self.p.shape[:2], self.v.middle.shape[-1])
            return np.asarray((np.swapaxes(self.p, -1, -2) @ g.reshape(len(g), *shape)).reshape(len(g), -1))

        norm = math.sqrt(float(self.p.sum(-2).max(initial=0.0)))
        columns = math.sqrt(float(np.minimum(self.most.sum(-2), self.p.shape[-2]).max(initial=0.0)))
        return self._part(push, pull, norm, _over_queries(self.moved), columns)

    def _part(
        self, push: Callable[[Array], Array], pull: Callable[[Array], Array], norm: float, ball: float, most: float
    ) -> Part:
        error = 8.0 * (self.p.shape[-1] + self.q.middle.shape[-1] + self.v.middle.shape[-1] + 8) * EPSILON
        norm = norm * ROOM * (1.0 + 1e-12)
        size = norm * math.sqrt(self.p.shape[0] * self.p.shape[1] * self.v.middle.shape[-1])
        most, ball = most * ROOM, ball * ROOM + 1e-14 * norm
        if ball > most:  # of no more use than the norm
            nothing = LinearMap(lambda t: 0.0 * push(t), lambda g: 0.0 * pull(g), 0.0)
            return Part(most, Tangent(nothing, None, most))
        return Part(most, Tangent(LinearMap(push, pull, norm, error * size), None, ball))


def _over_queries(x: Array) -> float:
    """Of blocks below each other, the greatest head."""
    return float(np.sqrt((x**2).sum(-1)).max(initial=0.0))


def _least(x: MatrixBall, radius: Array, norm: Array) -> MatrixBall:
    """Met with what else is known of distance and norm."""
    return MatrixBall(x.middle, np.minimum(x.radius, radius + 1e-14 * norm), np.minimum(x.norm, norm))


def _each(x: MatrixBall) -> MatrixBall:
    """The same for every query of a head."""
    return MatrixBall(x.middle[:, None], x.radius[:, None], x.norm[:, None])


def _turned(x: MatrixBall) -> MatrixBall:
    return MatrixBall(np.swapaxes(x.middle, -1, -2), x.radius, x.norm)


def _norm_of_softmax(most: Array) -> Array:
    """||M|| <= p1 (1 - p1 + p2) <= 1/2, from the greatest that each weight may be; see softmax.py."""
    p = np.maximum(most.max(-1), 0.0)
    return np.asarray(np.minimum(0.5, np.where(p < 0.5, 2.0 * p * (1.0 - p), 0.5)) * ROOM)


def nearby(case: Case) -> Nearby | None:
    """None where an extent or a range is not known, scores are bent, what is hidden is not known or hides all keys of a query,
    where the point says nothing of the weights elsewhere, or where it would be too much."""
    ends = [whole(case, position) for position in range(3)]
    scores = _fixed(case)
    if any(end is None for end in ends) or scores is None or case.attributes.get("softcap") or filled(case):
        return None
    q, k, v = (end for end in ends if end is not None)
    lead = np.broadcast_shapes(*(end.lo.shape[:-2] for end in (q, k, v)))
    queries, keys = q.lo.shape[-2], k.lo.shape[-2]
    if math.prod(lead) * queries * keys * max(keys, q.lo.shape[-1], v.lo.shape[-1]) > LARGEST:
        return None
    parts = [_operand(case, position, end, lead) for position, end in enumerate((q, k, v))]
    (mq, rows_q, aq), (mk, rows_k, ak), (mv, rows_v, av) = parts
    signed = float(case.attributes.get("scale", 1.0))
    scale = abs(signed)
    hidden, bias = (np.broadcast_to(x, (*lead, queries, keys)).reshape(-1, queries, keys) for x in scores)
    centre = np.where(hidden, bias, signed * (mq.middle @ np.swapaxes(mk.middle, -1, -2)) + bias)
    if np.isneginf(centre.max(-1)).any():
        return None
    # Of a score: |s - s0| = scale |q . k - q0 . k0| <= scale (|dq| |k| + |q0| |dk|), and in the l2 norm over keys with ||K||.
    length_q, length_k = (np.sqrt((x.middle**2).sum(-1)) for x in (mq, mk))
    entries = aq @ np.swapaxes(np.abs(mk.middle) + ak, -1, -2) + np.abs(mq.middle) @ np.swapaxes(ak, -1, -2)
    rounding = 8.0 * (mq.middle.shape[-1] + 8) * EPSILON * (length_q + rows_q)[..., None] * (length_k + rows_k)[..., None, :]
    rounding = scale * rounding + 8.0 * EPSILON * np.abs(np.where(np.isfinite(bias), bias, 0.0))
    entries = np.where(hidden, 0.0, (scale * entries + rounding) * ROOM)
    along = (scale * (rows_q * mk.norm[:, None] + length_q * mk.radius[:, None]) + np.sqrt((rounding**2).sum(-1))) * ROOM
    p, ends_of_p = softmax_of(point(centre)), softmax_of(Interval(centre - entries, centre + entries))
    apart = np.maximum(ends_of_p.hi - p.lo, p.hi - ends_of_p.lo)
    # A softmax moves by M ds: by half of ds (arXiv 2510.23012), and by sqrt(||M|| Var_p(ds)), where Var <= differing^2 / 4.
    spreads = np.stack([_radius(x.middle, rows, away) for x, rows, away in ((mk, rows_k, ak), (mv, rows_v, av))])
    steps = np.stack([rows.max(-1) for rows in (rows_k, rows_v)])
    differing = 2.0 * scale * (rows_q * spreads[0][:, None] + (length_q + rows_q) * steps[0][:, None]) * ROOM
    slopes = scale * (aq @ np.swapaxes(np.abs(mk.middle) + ak, -1, -2) + (np.abs(mq.middle) + aq) @ np.swapaxes(ak, -1, -2))
    differing = np.minimum(differing, 2.0 * slopes.max(-1) * ROOM) + rounding.max(-1)
    shift = np.min([along, np.sqrt((entries**2).sum(-1)), differing * math.sqrt(0.5)], axis=0)
    moved = np.minimum(np.sqrt((apart**2).sum(-1)), 0.5 * shift + 1e-13) * ROOM
    if moved.max(initial=0.0) >= FAR:
        return None
    middle = 0.5 * (p.lo + p.hi)
    apart = np.minimum(apart.max(-1), moved)
    return Nearby(mq, mk, mv, length_q + rows_q, rows_q, signed, middle, moved, apart, ends_of_p.hi, spreads, steps, differing)


def filled(case: Case) -> bool:
    """Whether hidden scores are replaced by a finite number, so that hidden keys keep weights."""
    return len(case.shapes) > 4 and case.shapes[4] is not None and case.attributes.get("fill", -math.inf) != -math.inf


def _radius(centre: Array, rows: Array, away: Array) -> Array:
    """Of a ball that holds all rows [heads, rows, size] of a head: half the diagonal of their box, or around their mean."""
    box = np.sqrt((((centre + away).max(-2) - (centre - away).min(-2)) ** 2).sum(-1)) / 2.0
    from_mean = np.sqrt(((centre - centre.mean(-2, keepdims=True)) ** 2).sum(-1)) + rows
    return np.asarray(np.minimum(box, from_mean.max(-1)) * ROOM + 1e-300)


def _fixed(case: Case) -> tuple[Array, Array] | None:
    """Which scores are filled, and what is added to each or, where it is filled, stands there; None where a run decides."""
    bias, hidden = np.zeros(()), np.zeros((), bool)
    for position in (3, 4):
        if position < len(case.shapes) and case.shapes[position] is not None:
            value = case.values[position]
            if value is None:
                return None
            if position == 3:
                bias = np.asarray(value, np.float64)
            else:
                hidden = np.asarray(value, bool)
    fill = float(case.attributes.get("fill", -math.inf))
    bias = np.where(hidden, bias + fill, bias)
    return hidden | np.isneginf(bias), bias


def _operand(case: Case, position: int, bound: Interval, lead: tuple[int, ...]) -> tuple[MatrixBall, Array, Array]:
    """An operand around the centre of its ball or box, [heads, rows, size]: as matrices, how far each row is from there, and
    each entry."""
    ball = case.balls[position] if position < len(case.balls) else None
    centre = 0.5 * (bound.lo + bound.hi) if ball is None else np.clip(ball[0].reshape(bound.lo.shape), bound.lo, bound.hi)
    away = np.maximum(bound.hi - centre, centre - bound.lo) * ROOM
    centre, away = (np.broadcast_to(x, (*lead, *x.shape[-2:])).reshape(-1, *x.shape[-2:]) for x in (centre, away))
    rows, whole = np.sqrt((away**2).sum(-1)) * ROOM, spectral_norm(away)
    if ball is not None:
        rows, whole = np.minimum(rows, ball[1] * ROOM), np.minimum(whole, ball[1] * ROOM)
    norm = (np.minimum(spectral_norm(centre), np.sqrt((centre**2).sum(axis=(-2, -1)))) + whole) * ROOM
    return MatrixBall(centre, whole, norm), rows, away


def whole(case: Case, position: int) -> Interval | None:
    """The range of one sample's operand with all its extents; None where one is not known."""
    dims, bound = one_sample(case.shapes[position]), lifted(case, position)
    return bound.map(lambda x: np.broadcast_to(x, dims)) if dims is not None and bound.bounded else None


def softmax_of(scores: Interval) -> Interval:
    """Each weight is least where its own score is and all others are greatest, and the reverse."""
    top = scores.hi.max(-1, keepdims=True)
    low, high = np.exp(scores.lo - top), np.exp(scores.hi - top)
    room = 1e-13 * high.sum(-1, keepdims=True)
    most_others = high.sum(-1, keepdims=True) - high + room
    least_others = np.maximum(low.sum(-1, keepdims=True) - low - room, 0.0)
    with np.errstate(invalid="ignore"):
        lo, hi = low / (low + most_others), high / np.maximum(high + least_others, high)
    return Interval(np.maximum(down(lo, 1.0), 0.0), np.minimum(up(np.nan_to_num(hi, nan=1.0), 1.0), 1.0))


def lifted(case: Case, position: int) -> Interval:
    """What is known of an operand, as one number or with all its axes."""
    value, rank = case.values[position], len(case.shapes[position] or ())
    bound = case.ranges[position] or (WHOLE if value is None else point(value))
    return bound.map(lambda x: x.reshape((1,) * (rank - x.ndim) + x.shape) if x.ndim else x)
