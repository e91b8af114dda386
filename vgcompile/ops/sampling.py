"""Sampling at places that a grid names, and the grids of affine maps.

A place u along an axis has taps floor(u) + offset, with weights that are polynomials of t = u - floor(u). For an image
[N, C, H, W] and a grid [N, out..., 2] of coordinates (x, y):

    y = sum_taps w_x w_y image[tap]
    image'[tap] += w_x w_y y'        x' = sum_taps (dw_x / du) w_y <image[tap], y'> * (du / dx)

All coordinates are handled together, on an axis of their own; they come in the opposite order of the image's axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from vgcompile.interval import Interval, interval
from vgcompile.ops.cutting import hull_of
from vgcompile.ops.op import Case, Op, sample
from vgcompile.ops.shape import added_up, constant, extents, reshaped, shaped, zeros_like

# For each mode the offsets of its taps, and their weights: columns are taps, rows are powers of t, the highest first.
_TAPS: dict[str, tuple[list[int], list[list[float]]]] = {
    "nearest": ([0], [[1.0]]),
    "linear": ([0, 1], [[-1.0, 1.0], [1.0, 0.0]]),
    "cubic": (  # Keys (1981), a = -0.75
        [-1, 0, 1, 2],
        [[-0.75, 1.25, -1.25, 0.75], [1.5, -2.25, 1.5, -0.75], [-0.75, 0.0, 0.75, 0.0], [0.0, 1.0, 0.0, 0.0]],
    ),
}
_EARLIER = {"bilinear": "linear", "bicubic": "cubic"}  # names up to opset 19


@dataclass(frozen=True)
class _Axes:
    """Of the image's axes, in the grid's order: how grid coordinates become places, the last place, and the pitch of rows.

    Arrays where the extents are known, else values.
    """

    scale: Any
    last: Any
    span: Any  # from one mirror to the other
    period: Any  # of the reflection, not 0
    first: float  # the lower mirror
    pitches: Any


def _axes(op: Any, x: Any, align: int) -> _Axes:
    dims = extents(x)[:1:-1]
    first = 0.0 if align else -0.5
    if all(isinstance(dim, int) for dim in dims):
        sizes = np.array(dims, float)
        span = sizes - align
        found = [0.5 * span, sizes - 1.0, span, np.maximum(2.0 * span, 1.0)]
        pitches: Any = np.cumprod([1, *(int(dim) for dim in dims[:-1])])
        scale, last, span, period = (np.asarray(array, op.dtype.numpy()) for array in found)
        return _Axes(scale, last, span, period, first, pitches)
    counts = op.Gather(op.Shape(x, start=2), list(reversed(range(len(dims)))), axis=0)
    sizes = op.Cast(counts, to=int(op.dtype))
    last = sizes - 1.0
    span = last if align else sizes
    ones = [op.Slice(counts, [0], [1])]
    for i in range(1, len(dims) - 1):
        ones.append(ones[-1] * op.Slice(counts, [i], [i + 1]))
    return _Axes(span * 0.5, last, span, op.Max(span * 2.0, 1.0), first, op.Concat([1], *ones, axis=0))


def _reflected(op: Any, u: Any, at: _Axes, behind: Any = None) -> tuple[Any, Any]:
    """Mirrored at both ends until it lies between them, and the sign that its slope takes."""
    span, period = (_column(op, part) for part in (at.span, at.period)) if behind else (at.span, at.period)
    off = u - at.first
    far = op.Abs(off)
    turned = op.Sub(span, far - op.Floor(far / period) * period)
    mirrored = op.Sub(_plus(op, span, at.first), op.Abs(turned))
    return mirrored, op.Sign(off) * op.Sign(turned)


def _plus(op: Any, span: Any, first: float) -> Any:
    return span if not first else span + np.asarray(first, span.dtype) if isinstance(span, np.ndarray) else span + first


def _column(op: Any, part: Any) -> Any:
    return part[:, None] if isinstance(part, np.ndarray) else op.Unsqueeze(part, [1])


def _places(op: Any, grid: Any, at: _Axes, mode: str, padding: str) -> tuple[Any, Any]:
    """Places among the pixels, and their slopes by the grid's coordinates; at and beyond a border the slope is 0.

    Computed as runtimes do it, so that both round to the same pixel. Between two pixels the place is padded, for other modes each
    of its taps.
    """
    u = ((grid + 1.0) * at.span - 1.0) * 0.5 if at.first else (grid + 1.0) * 0.5 * at.span
    slope = at.scale
    if mode != "linear" or padding == "zeros":
        return u, slope
    if padding == "reflection":
        u, sign = _reflected(op, u, at)
        slope = sign * at.scale
    inside = op.And(op.Greater(u, 0.0), op.Less(u, at.last))
    return op.Min(op.Max(u, 0.0), at.last), op.Where(inside, slope, 0.0)


def _polynomial(t: Any, rows: Sequence[Sequence[float]], op: Any) -> Any:
    coefficients = [np.asarray(row, op.dtype.numpy()) for row in rows]
    value: Any = coefficients[0]
    for row in coefficients[1:]:
        value = t * value + row
    return value


def _derived(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    degree = len(rows) - 1
    return [[(degree - i) * c for c in row] for i, row in enumerate(rows[:-1])]


def _grid_sample_vjp(
    op: Any, g: Any, y: Any, x: Any, grid: Any, *, align_corners: int, mode: str, padding_mode: str
) -> tuple[Any, Any]:
    mode = _EARLIER.get(mode, mode)
    offsets, rows = _TAPS[mode]
    rank = len(x.shape) - 2
    at = _axes(op, x, align_corners)
    place, slope = _places(op, grid, at, mode, padding_mode)
    base = op.Round(place) if mode == "nearest" else op.Floor(place)
    t, taps = (op.Unsqueeze(part, [rank + 2]) for part in (place - base, base))
    if len(offsets) > 1:
        taps = taps + np.asarray(offsets, op.dtype.numpy())
    weights: Any = _polynomial(t, rows, op)
    slopes: Any = _polynomial(t, _derived(rows), op) if mode != "nearest" else None
    last = _column(op, at.last)
    if padding_mode == "zeros":
        inside = op.And(op.GreaterOrEqual(taps, 0.0), op.LessOrEqual(taps, last))
        weights, slopes = op.Where(inside, weights, 0.0), None if slopes is None else op.Where(inside, slopes, 0.0)
    elif padding_mode == "reflection" and mode != "linear":
        taps = _reflected(op, taps, at, behind=True)[0]
    index = op.Cast(op.Min(op.Max(taps, 0.0), last), to=TensorProto.INT64) * _column(op, at.pitches)

    places = [_apart(op, index, d, rank) for d in range(rank)]
    parts = [_apart(op, weights, d, rank) for d in range(rank)]
    row = _sum([*places, *_first_rows(op, x, rank)])
    channels_last = op.Transpose(x, perm=[0, *range(2, 2 + rank), 1])
    pixels = op.Flatten(channels_last, axis=-1)
    behind = [*range(1 + rank, 1 + 2 * rank)]  # the axes of taps, one for each axis of the image
    seeds = op.Unsqueeze(op.Transpose(g, perm=[0, *range(2, 2 + rank), 1]), behind)

    weight = _product(parts)
    updates = seeds if isinstance(weight, np.ndarray) else seeds * op.Unsqueeze(weight, [1 + 2 * rank])  # nearest: it is 1
    places = op.Unsqueeze(row, [1 + 2 * rank])
    added = added_up(op, updates, lambda updates: op.ScatterND(zeros_like(op, pixels), places, updates, reduction="add"))
    dx = op.Transpose(reshaped(op, added, channels_last), perm=[0, 1 + rank, *range(1, 1 + rank)])
    if slopes is None:
        return shaped(dx, x), None
    met = op.ReduceSum(op.Gather(pixels, row, axis=0) * seeds, [-1], keepdims=0)
    turns = [_apart(op, slopes, d, rank) for d in range(rank)]
    sums = [op.ReduceSum(met * _product([*parts[:d], turns[d], *parts[d + 1 :]]), behind, keepdims=0) for d in range(rank)]
    dplace = op.Concat(*(op.Unsqueeze(part, [1 + rank]) for part in sums), axis=1 + rank)
    return shaped(dx, x), shaped(dplace * slope, grid)


def _apart(op: Any, tensor: Any, coordinate: int, rank: int) -> Any:
    """What belongs to one coordinate, its taps on their own axis: [N, out..., taps of the last coordinate, ..., of the first]."""
    own = 1 + rank + (rank - 1 - coordinate)
    if isinstance(tensor, np.ndarray):  # the same everywhere
        return tensor.reshape([-1] + [1] * coordinate)
    one = op.Gather(tensor, np.array(coordinate), axis=1 + rank)
    return op.Unsqueeze(one, [axis for axis in range(1 + rank, 1 + 2 * rank) if axis != own]) if rank > 1 else one


def _first_rows(op: Any, x: Any, rank: int) -> list[Any]:
    """The row at which each sample begins."""
    batch, *dims = (dim for axis, dim in enumerate(extents(x)) if axis != 1)
    if batch == 1:
        return []
    behind = [1] * (2 * rank)
    if all(isinstance(dim, int) for dim in (batch, *dims)):
        assert isinstance(batch, int)
        return [(np.arange(batch) * math.prod(int(dim) for dim in dims)).reshape([-1, *behind])]
    many = op.Squeeze(op.Shape(x, start=0, end=1), [0]) if isinstance(batch, str) else batch
    pixels = (
        math.prod(int(dim) for dim in dims)
        if all(isinstance(dim, int) for dim in dims)
        else op.ReduceProd(op.Shape(x, start=2), keepdims=0)
    )
    return [op.Reshape(op.Range(0, many, 1) * pixels, [-1, *behind])]


def _sum(parts: Sequence[Any]) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _product(parts: Sequence[Any]) -> Any:
    """Values first: an array takes its type from the value that it meets."""
    ordered = sorted(parts, key=lambda part: isinstance(part, np.ndarray))
    total = ordered[0]
    for part in ordered[1:]:
        total = total * part
    return total


def _grid_sample_range(case: Case) -> Interval:
    """An average, and zeros beyond the border; a cubic has negative weights, which sum to at most 1.6 in size on each axis."""
    hull = hull_of(case).hull(interval(0.0, 0.0))
    if _EARLIER.get(case.attributes["mode"], case.attributes["mode"]) != "cubic":
        return hull
    rank = len(case.shapes[0] or ()) - 2
    most = float(hull.magnitude) * 1.6**rank
    return interval(-most, most)


_IMAGE = ("N", 2, 3, 4)
_GRID = ("N", 2, 3, 2)

GridSample = Op(
    "GridSample",
    "Samples of an image at the places of a grid; a coordinate at or beyond the border that stops it gets no gradient.",
    unpredicted="it samples where the data say",
    vjp=_grid_sample_vjp,
    range=_grid_sample_range,
    samples=(
        sample(_IMAGE, _GRID),
        sample(("N", 2, "H", "W"), ("N", "P", "Q", 2), align_corners=1),
        sample((1, 2, 3, 4), (1, 2, 3, 2), padding_mode="border", align_corners=1),
        sample(_IMAGE, _GRID, padding_mode="reflection"),
        sample((2, 1, 3, 1), (2, 2, 2, 2), padding_mode="reflection", align_corners=1),
        sample(_IMAGE, _GRID, mode="nearest"),
        sample(("N", 2, "H", 3), _GRID, mode="nearest", padding_mode="reflection"),
        sample(_IMAGE, _GRID, mode="cubic"),
        sample(_IMAGE, _GRID, mode="cubic", padding_mode="border"),
        sample(("N", 1, "H", "W"), _GRID, mode="cubic", padding_mode="reflection", align_corners=1),
        sample(("N", 2, 2, 3, 2), ("N", 1, 2, 2, 3)),
        sample(("N", 1, "D", "H", 2), ("N", 1, 2, 2, 3), padding_mode="reflection"),
    ),
)

# -------------------------------------------------------------------------------------------------------------- AffineGrid


def _affine_grid_vjp(op: Any, g: Any, y: Any, theta: Any, size: Any, *, align_corners: int) -> tuple[Any, Any]:
    """Linear: theta' = y'^T [p, 1] summed over the base points p of the grid, which the identity map gives out."""
    rank = len(y.shape) - 2
    identity = np.eye(rank, rank + 1, dtype=op.dtype.numpy())[None]
    known = constant(size)
    one = np.array([1, *known[1:]]) if known is not None else op.Concat([1], op.Slice(size, [1], [rank + 2]), axis=0)
    base = op.Flatten(op.AffineGrid(identity, one, align_corners=align_corners), axis=-1)
    points = op.Pad(base, [0, 0, 0, 1], 1.0)
    flat = op.Reshape(g, [0, -1, rank])
    return shaped(op.MatMul(op.Transpose(flat, perm=[0, 2, 1]), points), theta), None


AffineGrid = Op(
    "AffineGrid",
    "The places that affine maps send the points of a regular grid to.",
    unpredicted="it makes positions, and positions are taken to be alike",
    vjp=_affine_grid_vjp,
    samples=(
        sample((2, 2, 3), np.array([2, 3, 4, 5])),
        sample((2, 2, 3), np.array([2, 1, 3, 2]), align_corners=1),
        sample((2, 3, 4), np.array([2, 1, 2, 3, 2])),
    ),
)

ROWS = (GridSample, AffineGrid)
