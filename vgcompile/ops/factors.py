"""For each element the product of the others that it is multiplied with, zeros among them: the slope of a product."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vgcompile.ops.axes import Over
from vgcompile.ops.shape import extents, reshaped

NARROW = 64  # factors whose places a constant holds


def others(op: Any, y: Any, x: Any, over: Over) -> Any:
    """Of each element of ``x``, whose product over the axes is ``y``."""
    if not isinstance(over.axes, tuple):
        return _by_division(op, y, x, over)
    if not over.axes or 0 in extents(x):
        return 1.0
    kept = [axis for axis in range(len(extents(x))) if axis not in over.axes]
    order = [*kept, *over.axes]
    still = order == sorted(order)
    moved = x if still else op.Transpose(x, perm=order)
    rows = moved if len(over.axes) == 1 else op.Reshape(moved, _rows_shape(op, moved, len(kept)))
    found = _by_rows(op, rows)
    found = found if rows is moved else reshaped(op, found, moved)
    return found if still else op.Transpose(found, perm=np.argsort(order).tolist())


def _rows_shape(op: Any, moved: Any, kept: int) -> Any:
    """The axes behind the first ``kept`` ones joined, at extents of 0 as well."""
    joined = [dim for dim in extents(moved)[kept:] if isinstance(dim, int)]
    if len(joined) == len(extents(moved)) - kept:
        return [0] * kept + [math.prod(joined)]
    size = op.ReduceProd(op.Shape(moved, start=kept), keepdims=1)
    return op.Concat(op.Shape(moved, end=kept), size, axis=0) if kept else size


def _by_rows(op: Any, rows: Any) -> Any:
    """k^2 factors for each k elements, but no division, so that zeros are safe and the gradient of the gradient is right at them,
    too."""
    length = extents(rows)[-1]
    if isinstance(length, int) and length <= NARROW:
        itself: Any = np.eye(length, dtype=np.bool_)
    else:
        index = op.Range(0, length if isinstance(length, int) else op.Squeeze(op.Shape(rows, start=-1), [0]), 1)
        itself = op.Equal(index, op.Unsqueeze(index, [1]))
    return op.ReduceProd(op.Where(itself, 1.0, op.Unsqueeze(rows, [-2])), [-1], keepdims=0)


def _by_division(op: Any, y: Any, x: Any, over: Over) -> Any:
    """Axes that only a run knows cannot be moved together: the product is divided by the element, and where that is 0 and the
    only zero, what is not 0 is multiplied. The gradient of the gradient misses pairs of zeros."""
    zero = op.Equal(x, 0.0)
    filled = op.Where(zero, 1.0, x)
    rest = op.ReduceProd(filled, over.axes, keepdims=1, noop_with_empty_axes=over.noop)
    alone = op.Equal(over.total(op, op.Where(zero, 1.0, 0.0)), 1.0)
    return op.Where(zero, op.Where(alone, rest, 0.0), y / filled)
