"""Known linear maps of one sample's elements, flattened: what a row's ``tangent`` is made of.

A map is there only where each sample's output follows from that sample alone, at extents that are known; else it is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vgcompile.interval import EPSILON, Interval
from vgcompile.ops.op import Array, Case, Dim, LinearMap, Tangent
from vgcompile.ops.shape import is_sample_axis

EXACT = 1e-13  # slopes that differ by no more, one part of themselves, are one slope and its rounding
WITNESSES = 3  # samples that a rearrangement is tried on: it must treat them alike, and each by itself


def one_sample(dims: Sequence[Dim] | None, batch: int = 1) -> tuple[int, ...] | None:
    """The extents of a single sample, its own axis included as 1; None where a symbol hides one."""
    if dims is None:
        return None
    known = [1 if isinstance(dim, str) and is_sample_axis(dims, axis, batch) else dim for axis, dim in enumerate(dims)]
    return None if any(isinstance(dim, str) for dim in known) else tuple(int(dim) for dim in known)


def counts_samples(dims: Sequence[Dim] | None) -> bool:
    """Whether the first axis is a symbol that counts samples."""
    return dims is not None and len(dims) > 0 and isinstance(dims[0], str) and is_sample_axis(dims, 0, 1)


IDENTITY = LinearMap(lambda t: t, lambda g: g)


def gathered(index: Array, size: int) -> LinearMap:
    """Output j is input ``index[j]``, or 0 where that is -1; the adjoint of an element is the sum over its copies."""
    index = np.asarray(index).ravel()
    if len(index) == size and (index == np.arange(size)).all():
        return IDENTITY
    there = np.flatnonzero(index >= 0)
    sources = index[there]
    copies = int(np.bincount(sources, minlength=1).max(initial=0))

    def push(t: Array) -> Array:
        moved = np.zeros((len(t), len(index)))
        moved[:, there] = t[:, sources]
        return moved

    def pull(g: Array) -> Array:
        back = np.zeros((len(g), size))
        if copies <= 1:
            back[:, sources] = g[:, there]
        else:
            np.add.at(back.T, sources, g.T[there])
        return back

    norm = math.sqrt(copies) * (1.0 + EPSILON)
    return LinearMap(push, pull, norm, copies * norm * EPSILON if copies > 1 else 0.0)


def rearranged(case: Case, position: int, f: Callable[[Array], Any]) -> Tangent | None:
    """The map of an operator that moves, drops or repeats elements, read off what ``f`` does to their numbers.

    ``f`` gives out one array or several; a number below 0 stands for an element that comes from nowhere, a zero.
    """
    dims = case.shapes[position]
    single = one_sample(dims)
    if single is None:
        return None
    size = math.prod(single)
    witnesses = WITNESSES if counts_samples(dims) else 1
    extents = (witnesses, *single[1:]) if witnesses > 1 else single
    numbers = np.arange(witnesses * size).reshape(extents)
    try:
        made = f(numbers)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError):
        return None
    parts = []
    for part in made if isinstance(made, (tuple, list)) else (made,):
        own = _of_one_sample(np.asarray(part), witnesses, size)
        if own is None:
            return None
        parts.append(own)
    return Tangent(gathered(np.concatenate(parts), size))


def _of_one_sample(made: Array, witnesses: int, size: int) -> Array | None:
    """The numbers that the first sample's outputs hold, where every sample keeps to itself and does as the first."""
    if made.size % witnesses or (witnesses > 1 and made.shape[:1] != (witnesses,)):
        return None
    rows = made.reshape(witnesses, -1)
    first = np.where(rows[0] < 0, -1, rows[0])
    for sample, row in enumerate(rows):
        if not np.array_equal(np.where(row < 0, -1, row), np.where(first < 0, -1, first + sample * size)):
            return None
    return first if (first < size).all() else None


def broadcast(case: Case, position: int) -> LinearMap | None:
    """The map of one operand to the extents of an elementwise output."""
    out = one_sample(case.outputs[0])
    dims = case.shapes[position]
    if out is None or one_sample(dims) is None or counts_samples(dims) != counts_samples(case.outputs[0]):
        return None
    if counts_samples(dims) and len(dims or ()) != len(out):
        return None
    single = one_sample(dims) or ()
    size = math.prod(single)
    return gathered(np.broadcast_to(np.arange(size).reshape(single), out), size)


def matrix(columns: Array, scale: float = 1.0) -> LinearMap:
    """Rows of a sample times a known matrix [k, m]: [S, r k] to [S, r m]."""
    b = np.asarray(columns, np.float64)
    b = b if scale == 1.0 else b * scale  # large ones are not copied
    k, m = b.shape
    size = float(np.linalg.norm(b)) * (1.0 + k * m * EPSILON)

    def push(t: Array) -> Array:
        return np.asarray((t.reshape(-1, k) @ b).reshape(len(t), -1))

    def pull(g: Array) -> Array:
        return np.asarray((g.reshape(-1, m) @ b.T).reshape(len(g), -1))

    return LinearMap(push, pull, size, 2.0 * (max(k, m) + 4) * EPSILON * size)


def summed_over(dims: Sequence[int], axes: Sequence[int], weight: float) -> LinearMap:
    """The sum over axes of one sample [1, ...], times ``weight``."""
    dims, axes = tuple(dims), tuple(axes)
    count = math.prod(dims[axis] for axis in axes)
    kept = [1 if axis in axes else dim for axis, dim in enumerate(dims)]

    def push(t: Array) -> Array:
        return np.asarray(weight * t.reshape(len(t), *dims).sum(axis=tuple(axis + 1 for axis in axes)).reshape(len(t), -1))

    def pull(g: Array) -> Array:
        return weight * np.broadcast_to(g.reshape(len(g), *kept), (len(g), *dims)).reshape(len(g), -1)

    norm = abs(weight) * math.sqrt(count) * (1.0 + 4.0 * EPSILON)
    return LinearMap(push, pull, norm, (count + 2) * EPSILON * norm)


def after(first: LinearMap, factor: Array, unit: float = EPSILON) -> LinearMap:
    """``first``, each output then times a factor that is known within ``unit`` of itself."""
    most = float(np.abs(factor).max(initial=0.0))
    return LinearMap(
        lambda t: first.push(t) * factor,
        lambda g: first.pull(g * factor),
        first.norm * most * (1.0 + EPSILON),
        (first.error * (1.0 + unit) + 2.0 * unit * first.norm) * most,
    )


def scaled(case: Case, position: int, factor: Interval) -> Tangent | None:
    """An elementwise operator: one slope for each element of the output, within ``factor``."""
    spread, out = broadcast(case, position), one_sample(case.outputs[0])
    if spread is None or out is None:
        return None
    try:
        lo, hi = (np.broadcast_to(end, out).ravel() for end in (factor.lo, factor.hi))
    except ValueError:
        return None
    if not (np.isfinite(lo).all() and np.isfinite(hi).all()):
        return Tangent(spread, Interval(lo, hi))
    middle, width = 0.5 * (lo + hi), hi - lo
    if (width <= EXACT * np.abs(middle)).all():
        return Tangent(spread if (middle == 1.0).all() else after(spread, middle, EXACT))
    return Tangent(spread, Interval(lo, hi))
