"""Pools over regions of interest: R boxes of the images that they name, each cut into bins; no gradient flows to the boxes.

RoiAlign averages samples between elements, so that bins are linear in x along each axis: y = rows . x . columns. The largest
element, or weighted corner, is looked for among all that a bin may hold, and gets the adjoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from vgcompile.ops.op import Op, sample
from vgcompile.ops.shape import added_up, extents, reshaped


def _column(op: Any, rois: Any, index: int, rank: int) -> Any:
    """One number of each box, [R, 1, ...]."""
    return op.Reshape(op.Gather(rois, index, axis=1), [-1, *(1 for _ in range(rank - 1))])


def _size(op: Any, x: Any, axis: int) -> Any:
    """The extent of an axis, as a number of x's type."""
    extent = extents(x)[axis]
    if isinstance(extent, int):
        return float(extent)
    return op.Cast(op.Squeeze(op.Shape(x, start=axis, end=axis + 1), [0]), to=int(x.dtype))


def _most(op: Any, counts: Any) -> Any:
    """The greatest of some counts and 1, as an integer: how many places a loop over all boxes needs."""
    flat = op.Concat(op.Reshape(counts, [-1]), op.Reshape(1.0, [1]), axis=0)
    return op.Cast(op.ReduceMax(flat, keepdims=0), to=TensorProto.INT64)


def _counting(op: Any, count: Any, like: Any) -> Any:
    return op.Cast(op.Range(0, count, 1), to=int(like.dtype))


# Inside, reaching out, and outside of an image of 6 x 7 elements; for MaxRoiPool with the number of the image.
BOXES = np.array([[0.3, 0.9, 4.2, 4.6], [1.0, 1.5, 8.2, 9.1], [-3.0, 2.0, 1.5, 2.2]])
NUMBERED = np.concatenate([np.zeros((3, 1)), BOXES], axis=1)


# ---- RoiAlign


@dataclass(frozen=True)
class _Samples:
    """Along one axis: where the samples of each bin lie, [R, bins, S]; which count; by how many to divide, [R, 1, 1]."""

    place: Any
    inside: Any  # samples far out of the image are 0
    real: Any  # None: all S of them
    count: Any


def _samples(
    op: Any, x: Any, rois: Any, axis: int, bins: int, sampling_ratio: int, spatial_scale: float, half_pixel: bool
) -> _Samples:
    first, last = (_column(op, rois, index, 3) * spatial_scale for index in (3 - axis, 5 - axis))
    length = last - first
    if half_pixel:
        first = first - 0.5
    else:
        length = op.Max(length, 1.0)  # a malformed box is taken as 1 wide
    each = length / float(bins) if bins > 1 else length
    begin = np.arange(bins)[:, None]
    real, count = None, float(sampling_ratio)
    if sampling_ratio > 0:
        inner: Any = (begin + (np.arange(sampling_ratio) + 0.5) / sampling_ratio).astype(x.dtype.numpy())
    else:
        grid = op.Ceil(each)
        number = _counting(op, _most(op, grid), x)
        real, count = op.Less(number, grid), op.Max(grid, 1.0)
        inner = op.Add(begin.astype(x.dtype.numpy()), (number + 0.5) / count)
    place, size = first + each * inner, _size(op, x, axis)
    inside = op.And(op.GreaterOrEqual(place, -1.0), op.LessOrEqual(place, size))
    return _Samples(op.Min(op.Max(place, 0.0), size - 1.0), inside, real, count)


def _means(op: Any, x: Any, axis: int, at: _Samples) -> Any:
    """[R, bins, extent]: the weight of each element in each bin."""
    extent = extents(x)[axis]
    places = np.arange(extent, dtype=x.dtype.numpy()) if isinstance(extent, int) else _counting(op, _extent(op, x, axis), x)
    tent = op.Relu(1.0 - op.Abs(op.Sub(op.Unsqueeze(at.place, [3]), places)))
    counts = at.inside if at.real is None else op.And(at.inside, at.real)
    return op.ReduceSum(op.Where(op.Unsqueeze(counts, [3]), tent, 0.0), [2], keepdims=0) / at.count


def _extent(op: Any, x: Any, axis: int) -> Any:
    return op.Squeeze(op.Shape(x, start=axis, end=axis + 1), [0])


def _mean_vjp(op: Any, g: Any, x: Any, batch: Any, rows: _Samples, columns: _Samples) -> Any:
    """dx[n] = sum over the boxes r of image n of rows[r]^T g[r] columns[r]: boxes and bins of a row are one summed axis."""
    down = op.Unsqueeze(op.Transpose(_means(op, x, 2, rows), perm=[0, 2, 1]), [1])  # [R, 1, H, bins]
    left = op.Reshape(op.Transpose(op.MatMul(down, g), perm=[1, 2, 0, 3]), [0, 0, -1])  # [C, H, R * bins]
    images = op.Range(0, _extent(op, x, 0), 1)
    mine = op.Equal(op.Unsqueeze(images, [1]), batch)  # [N, R]
    across = op.Where(op.Unsqueeze(mine, [2, 3]), _means(op, x, 3, columns), 0.0)  # [N, R, bins, W]
    return reshaped(op, op.MatMul(left, op.Reshape(across, [0, 1, -1, 0])), x)


def _corners(op: Any, at: _Samples, x: Any, axis: int) -> tuple[Any, Any]:
    """The two elements that each sample lies between and their weights, [R, bins, S, 2]."""
    low = op.Unsqueeze(op.Floor(at.place), [3])
    both = op.Min(op.Add(low, np.array([0, 1], x.dtype.numpy())), _size(op, x, axis) - 1.0)
    part = op.Unsqueeze(at.place, [3]) - low
    weights = op.Concat(1.0 - part, part, axis=3)
    return both, op.Where(op.Unsqueeze(at.inside, [3]), weights, 0.0)


def _align_vjp(
    op: Any,
    g: Any,
    y: Any,
    x: Any,
    rois: Any,
    batch: Any,
    *,
    coordinate_transformation_mode: str,
    mode: str,
    output_height: int,
    output_width: int,
    sampling_ratio: int,
    spatial_scale: float,
) -> tuple[Any, ...]:
    """``max`` compares the weighted corners of all samples, as the standard's implementations do: the winner gets its weight."""
    half = coordinate_transformation_mode == "half_pixel"
    rows, columns = (
        _samples(op, x, rois, axis, bins, sampling_ratio, spatial_scale, half)
        for axis, bins in ((2, output_height), (3, output_width))
    )
    if mode == "avg":
        return _mean_vjp(op, g, x, batch, rows, columns), None, None
    (row, down), (column, across) = _corners(op, rows, x, 2), _corners(op, columns, x, 3)
    row, down = (op.Unsqueeze(part, [2, 4, 6]) for part in (row, down))  # [R, bins, 1, S, 1, 2, 1]
    column, across = (op.Unsqueeze(part, [1, 3, 5]) for part in (column, across))  # [R, 1, bins, 1, S, 1, 2]
    real = None
    if rows.real is not None:
        real = op.And(op.Unsqueeze(rows.real, [2, 4, 5, 6]), op.Unsqueeze(columns.real, [1, 3, 5, 6]))
    place = _place(op, x, row, column)
    return _winners_vjp(op, g, x, batch, place, down * across, real, output_height * output_width), None, None


def _place(op: Any, x: Any, row: Any, column: Any) -> Any:
    """In the flattened image; counted in integers, for half precision ends at 2048."""
    row, column = (op.Cast(part, to=TensorProto.INT64) for part in (row, column))
    width = extents(x)[3]
    return row * (width if isinstance(width, int) else op.Shape(x, start=3)) + column


def _winners_vjp(op: Any, g: Any, x: Any, batch: Any, place: Any, weight: Any, real: Any, bins: int) -> Any:
    """Each adjoint, times the weight of its winner, at the winner's place: of x[place] * weight, where ``real``, the greatest.

    ``place``, ``weight`` (None: 1) and ``real`` (None: all) are [R, rows, columns, candidates...] and broadcast.
    """
    full = op.Shape(place)
    pixels = op.Reshape(x, [0, 0, -1])  # [N, C, H * W]
    own = op.Gather(pixels, batch, axis=0)  # [R, C, H * W]
    lead = op.Concat(op.Shape(own, start=0, end=2), [-1], axis=0)

    def flat(part: Any) -> Any:
        """[R, 1, bins, candidates]."""
        return op.Reshape(op.Expand(part, full), [0, 1, bins, -1])

    at = flat(place)
    spread = op.Expand(op.Reshape(at, [0, 1, -1]), op.Concat([1], op.Shape(own, start=1, end=2), [1], axis=0))
    value = op.Reshape(op.GatherElements(own, spread, axis=2), [0, 0, bins, -1])  # [R, C, bins, candidates]
    share = None if weight is None else flat(weight)
    value = value if share is None else value * share
    if real is not None:
        held = flat(real)
        value = op.Where(held, value, -math.inf)
        share = op.Where(held, 1.0 if share is None else share, 0.0)
    winner = op.ArgMax(value, axis=3, keepdims=1)  # [R, C, bins, 1]

    def chosen(part: Any) -> Any:
        wide = op.Expand(part, op.Shape(value))
        return op.Reshape(op.GatherElements(wide, winner, axis=3), lead)  # [R, C, bins]

    adjoint = op.Reshape(g, lead)
    if share is not None:
        adjoint = adjoint * chosen(share)
    channels, size = op.Shape(pixels, start=1, end=2), op.Shape(pixels, start=2)
    rows = op.Unsqueeze(batch, [1]) * channels + op.Range(0, op.Squeeze(channels, [0]), 1)  # [R, C]: which row of [N * C, H * W]
    target = op.Unsqueeze(rows, [2]) * size + chosen(at)
    size, places = op.Reshape(op.Size(x), [1]), op.Reshape(target, [-1])
    dx = added_up(
        op, op.Reshape(adjoint, [-1]), lambda g: op.ScatterElements(op.Expand(0.0, size), places, g, axis=0, reduction="add")
    )
    return reshaped(op, dx, x)


RoiAlign = Op(
    "RoiAlign",
    "Bins of each box, of samples between elements, averaged or the greatest weighted corner; the boxes have gradient 0.",
    unpredicted="its regions lie where the data put them",
    vjp=_align_vjp,
    untrained=(1,),
    samples=tuple(
        sample(shape, BOXES, np.array([0, 0, 0]), output_height=2, output_width=3, **given)
        for shape, given in (
            ((1, 2, 6, 7), {}),
            (("N", 2, "H", "W"), {"sampling_ratio": 2, "spatial_scale": 0.5}),
            (("N", "C", 6, 7), {"coordinate_transformation_mode": "output_half_pixel"}),
            ((1, 2, 6, 7), {"mode": "max"}),
            (("N", 2, "H", "W"), {"mode": "max", "sampling_ratio": 2, "coordinate_transformation_mode": "output_half_pixel"}),
        )
    ),
)


# ---- MaxRoiPool


def _rounded(op: Any, x: Any) -> Any:
    """To the nearest whole number, halves away from 0."""
    return op.Sign(x) * op.Floor(op.Abs(x) + 0.5)


def _bins(op: Any, x: Any, rois: Any, axis: int, bins: int, spatial_scale: float) -> tuple[Any, Any]:
    """The places of each bin along an axis, [R, bins, most], and which of them it holds."""
    first, last = (_rounded(op, _column(op, rois, index, 2) * spatial_scale) for index in (4 - axis, 6 - axis))
    each = op.Max(last - first + 1.0, 1.0) / float(bins)
    number, size = np.arange(bins + 1, dtype=x.dtype.numpy()), _size(op, x, axis)
    ends = [op.Floor(op.Mul(number[:-1], each)) + first, op.Ceil(op.Mul(number[1:], each)) + first]
    low, high = (op.Min(op.Max(end, 0.0), size) for end in ends)  # [R, bins]
    place = op.Unsqueeze(low, [2]) + _counting(op, _most(op, high - low), x)
    return op.Min(place, size - 1.0), op.Less(place, op.Unsqueeze(high, [2]))


def _max_vjp(op: Any, g: Any, y: Any, x: Any, rois: Any, *, pooled_shape: Sequence[int], spatial_scale: float) -> tuple[Any, ...]:
    (row, in_row), (column, in_column) = (
        _bins(op, x, rois, axis, bins, spatial_scale) for axis, bins in zip((2, 3), pooled_shape, strict=True)
    )
    row, in_row = (op.Unsqueeze(part, [2, 4]) for part in (row, in_row))  # [R, bins, 1, most, 1]
    column, in_column = (op.Unsqueeze(part, [1, 3]) for part in (column, in_column))
    place = _place(op, x, row, column)
    batch = op.Cast(op.Gather(rois, 0, axis=1), to=TensorProto.INT64)
    held = op.And(in_row, in_column)
    return _winners_vjp(op, g, x, batch, place, None, held, math.prod(pooled_shape)), None


MaxRoiPool = Op(
    "MaxRoiPool",
    "The largest element of each bin of each box, among equals the first, and 0 of an empty one; the boxes have gradient 0.",
    unpredicted="its regions lie where the data put them",
    vjp=_max_vjp,
    untrained=(1,),
    samples=(
        sample((1, 2, 6, 7), NUMBERED, pooled_shape=[2, 3]),
        sample(("N", 2, "H", "W"), NUMBERED, pooled_shape=[3, 2], spatial_scale=0.5),
    ),
)

ROWS = (RoiAlign, MaxRoiPool)
