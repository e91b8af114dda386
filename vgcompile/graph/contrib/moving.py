"""Elements that are taken, moved, repeated or counted."""

from __future__ import annotations

from typing import Any

import numpy as np

from vgcompile.errors import ModelError
from vgcompile.graph.contrib.forms import covered
from vgcompile.graph.emit import constant_of
from vgcompile.ops.op import Rule
from vgcompile.ops.shape import extents


def _expanded(op: Any, x: Any, axis: Any) -> Any:
    where = constant_of(axis)
    if where is None:
        raise ModelError("its axis is not a constant; export it as Unsqueeze")
    return op.Unsqueeze(x, [int(np.ravel(where)[0])])


def _padded(op: Any, x: Any, pads: Any, value: Any = None, *, mode: str = "constant") -> Any:
    """The pads may be one row of a matrix, the value a vector of one."""
    return op.Pad(x, op.Reshape(pads, [-1]), None if value is None else op.Reshape(value, []), mode=mode)


def _unfolded(op: Any, x: Any, *, size: int, dim: int = -1, step: int = 1) -> Any:
    """Every window along an axis; its elements stand along a new last one."""
    rank = len(x.shape)
    axis = dim % rank
    length = extents(x)[axis]
    covered(isinstance(length, int), "the length of its axis is a symbol; export it with a fixed length")
    windows = np.arange(0, int(length) - size + 1, step)[:, None] + np.arange(size)
    taken = op.Gather(x, windows, axis=axis)
    order = [*range(axis + 1), *range(axis + 2, rank + 1), axis + 1]
    return taken if axis == rank - 1 else op.Transpose(taken, perm=order)


FORMULAS: dict[str, Rule] = {
    "Trilu": lambda op, x, k=None, *, upper=1: op.Trilu(x, k, upper=upper),
    "ExpandDims": _expanded,
    "Range": lambda op, start, limit, delta=None: op.Range(start, limit, op.CastLike(1.0, start) if delta is None else delta),
    "GatherND": lambda op, x, indices: op.GatherND(x, indices),
    "Pad": _padded,
    "UnfoldTensor": _unfolded,
}
