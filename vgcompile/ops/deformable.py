"""The deformable convolution: each tap of the kernel reads x between its elements, at a place that is moved by an offset.

    place = out * stride - pad + tap * dilation + offset            [N, G, K, r, L]
    col   = mask * sum over the 2^r corners of (product over axes of 1 - |place - corner|) * x[corner]
    y     = w . col + bias                                          x is 0 outside

G offset groups of the C channels, K taps, r axes, L = product of the output's extents, Q = 2^r corners.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from onnx import TensorProto

from vgcompile.ops import flops
from vgcompile.ops.convolution_gradient import taps_of
from vgcompile.ops.op import Case, Dim, Op, sample
from vgcompile.ops.shape import added_up, extents, reshaped, shaped
from vgcompile.ops.window import Window, window


@dataclass(frozen=True)
class _Corners:
    """The elements that a tap reads between: [N, G, Q, K, L] each, the last two joined in ``place``, [N, G, C / G, Q * K * L]."""

    place: Any  # in the flattened image
    weights: Sequence[Any]  # along each axis, 0 outside of the image
    slopes: Sequence[Any]  # their derivatives by the place


def _corners(op: Any, x: Any, offset: Any, places: Any, groups: int, taps: int) -> _Corners:
    rank, channels = len(x.shape) - 2, int(extents(x)[1])
    corners = np.array(list(itertools.product((0, 1), repeat=rank))).reshape(-1, 1, rank, 1)
    where = op.Unsqueeze(op.Reshape(offset, [0, groups, taps, rank, -1]) + places, [2])
    corner = op.Floor(where) + corners.astype(x.dtype.numpy())
    size = _column(op, x)
    inside_at = op.Max(op.Min(corner, op.Cast(size - 1, to=int(x.dtype))), 0.0)
    inside = op.Equal(inside_at, corner)
    weights = op.Where(inside, 1.0 - op.Abs(where - corner), 0.0)
    slopes = op.Where(inside, (2 * corners - 1).astype(x.dtype.numpy()), 0.0)
    flat = op.ReduceSum(op.Cast(inside_at, to=TensorProto.INT64) * _pitches(op, x), [4], keepdims=0)
    place = op.Expand(op.Reshape(flat, [0, 0, 1, -1]), [1, 1, channels // groups, 1])
    return _Corners(place, _along(op, weights, rank), _along(op, slopes, rank))


def _along(op: Any, values: Any, rank: int) -> list[Any]:
    """[N, G, Q, K, r, L] axis by axis."""
    return [op.Gather(values, axis, axis=4) for axis in range(rank)]


def _column(op: Any, x: Any) -> Any:
    """The extents of x as [r, 1]."""
    return op.Unsqueeze(op.Shape(x, start=2), [1])


def _pitches(op: Any, x: Any) -> Any:
    """How far apart neighbours along each axis lie in the flattened image, [r, 1]."""
    sizes = extents(x)[2:]
    if all(isinstance(dim, int) for dim in sizes):
        return np.array([[math.prod(int(dim) for dim in sizes[axis + 1 :])] for axis in range(len(sizes))])
    steps: list[Any] = [np.ones(1, np.int64)]
    for axis in range(len(sizes) - 1, 0, -1):
        extent = op.Shape(x, start=2 + axis, end=3 + axis)
        steps.insert(0, extent if len(steps) == 1 else op.Mul(extent, steps[0]))
    return op.Unsqueeze(op.Concat(*steps, axis=0), [1])


def _places(op: Any, g: Any, at: Window, dtype: Any) -> Any:
    """Where each tap of each window reads without an offset, [K, r, L]."""
    taps = np.array(list(np.ndindex(*at.kernel))) * at.dilations - np.array(at.before)  # [K, r]
    sizes, rank = extents(g)[2:], len(at.kernel)
    if all(isinstance(dim, int) for dim in sizes):
        windows = np.array(list(np.ndindex(*(int(dim) for dim in sizes)))) * at.strides  # [L, r]
        return (taps[:, :, None] + windows.T).astype(dtype.numpy())
    full, rows = op.Shape(g, start=2), []
    for axis in range(rank):
        count = op.Squeeze(op.Shape(g, start=2 + axis, end=3 + axis), [0])
        along = op.Reshape(op.Range(0, count, 1) * at.strides[axis], [-1, *(1 for _ in range(axis + 1, rank))])
        rows.append(op.Reshape(op.Expand(along, full), [1, -1]))
    return op.Cast(op.Concat(*rows, axis=0) + taps[:, :, None], to=int(dtype))


def _product(factors: Sequence[Any]) -> Any:
    return reduce(lambda a, b: a * b, factors)


def _vjp(
    op: Any,
    g: Any,
    y: Any,
    x: Any,
    w: Any,
    offset: Any,
    b: Any = None,
    mask: Any = None,
    *,
    group: int,
    offset_group: int,
    **attributes: Any,
) -> tuple[Any, ...]:
    at = window(extents(x)[2:], taps_of(extents(w), attributes), attributes)
    rank, taps, corners = len(at.kernel), at.taps, 2 ** len(at.kernel)
    m, c = int(extents(w)[0]), int(extents(x)[1])
    read = _corners(op, x, offset, _places(op, g, at, x.dtype), offset_group, taps)
    image = op.Reshape(x, [0, offset_group, c // offset_group, -1])
    found = op.Reshape(op.GatherElements(image, read.place, axis=3), [0, 0, 0, corners, taps, -1])
    weight = op.Unsqueeze(_product(read.weights), [2])  # [N, G, 1, Q, K, L]
    between = op.ReduceSum(found * weight, [3], keepdims=0)  # [N, G, C / G, K, L]
    share = None if mask is None else op.Reshape(mask, [0, offset_group, 1, taps, -1])

    # y = w . col, group by group
    col = op.Reshape(between if share is None else between * share, [0, group, c // group * taps, -1])
    seeds = op.Reshape(g, [0, group, m // group, -1])
    dw = op.ReduceSum(op.MatMul(seeds, op.Transpose(col, perm=[0, 1, 3, 2])), [0], keepdims=0)
    kernel = op.Transpose(op.Reshape(w, [group, m // group, c // group * taps]), perm=[0, 2, 1])
    dcol = op.Reshape(op.MatMul(kernel, seeds), [0, offset_group, c // offset_group, taps, -1])

    dmask = None if mask is None else reshaped(op, op.ReduceSum(dcol * between, [2], keepdims=0), mask)
    dbetween = op.Unsqueeze(dcol if share is None else dcol * share, [3])
    spread = op.Reshape(dbetween * weight, [0, 0, 0, -1])
    size = op.Shape(image)
    added = added_up(
        op, spread, lambda spread: op.ScatterElements(op.Expand(0.0, size), read.place, spread, axis=3, reduction="add")
    )
    dx = reshaped(op, added, x)
    met = op.ReduceSum(dbetween * found, [2], keepdims=0)  # [N, G, Q, K, L]
    moved = []
    for axis in range(rank):
        slope = _product([*read.weights[:axis], read.slopes[axis], *read.weights[axis + 1 :]])
        moved.append(op.ReduceSum(met * slope, [2], keepdims=0))
    doffset = reshaped(op, op.Concat(*(op.Unsqueeze(part, [3]) for part in moved), axis=3), offset)
    db = None if b is None else shaped(op.ReduceSum(g, [0, *range(2, 2 + rank)], keepdims=0), b)
    return dx, reshaped(op, dw, w), doffset, db, dmask


def _unknown(case: Case) -> str:
    dims: tuple[Dim, ...] = (*(case.shapes[0] or ("",) * 2)[1:2], *(case.shapes[1] or ("",))[:2])
    if any(isinstance(dim, str) for dim in dims) or not taps_of(case.shapes[1], case.attributes):
        return "the channels and the kernel's extents must be known when compiling"
    return ""


DeformConv = Op(
    "DeformConv",
    "A convolution whose taps read between elements, at offsets; where one reads at an element, the slope is that beyond it.",
    unpredicted="its windows lie where the data put them",
    flops=flops.convolution,
    vjp=_vjp,
    refuses=_unknown,
    samples=(
        sample((1, 2, 4, 4), (3, 2, 2, 2), (1, 8, 3, 3)),
        sample(("N", 2, 4, 3), (2, 1, 2, 2), ("N", 16, 3, 2), (2,), ("N", 8, 3, 2), group=2, offset_group=2, domain=(-0.9, 0.9)),
        sample((1, 4, 5, 5), (2, 4, 2, 2), (1, 16, 3, 3), offset_group=2, strides=[2, 2], pads=[1, 0, 0, 1]),
        sample((2, 1, 4, 4), (1, 1, 2, 2), (2, 8, 2, 2), (1,), dilations=[2, 2]),
    ),
)

ROWS = (DeformConv,)
