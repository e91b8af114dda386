"""Which keys a query of an attention sees, and what is added to its scores for that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from vgcompile.ops.op import Attributes
from vgcompile.ops.shape import extents, sized


def _counted(op: Any, x: Any, axis: int) -> Any:
    """0, 1, 2 ... along an axis."""
    extent = extents(x)[axis]
    if isinstance(extent, int):
        return np.arange(extent)
    return sized(op.Range(0, op.Squeeze(op.Shape(x, start=axis, end=axis + 1), [0]), 1), [extent])


def _offset(op: Any, q: Any, past: Any, valid: Any) -> Any:
    """How many keys precede the queries: an int, or a tensor that broadcasts against [batch, 1, queries, keys]."""
    if valid is not None:
        length = extents(q)[-2]
        queries = np.array([length]) if isinstance(length, int) else op.Shape(q, start=-2, end=-1)
        return op.Unsqueeze(op.Sub(valid, queries), [1, 2, 3])
    if past is None:
        return 0
    length = extents(past)[2]
    return length if isinstance(length, int) else op.Shape(past, start=2, end=3)


def visible(op: Any, q: Any, keys: Any, past: Any, valid: Any, attributes: Attributes) -> list[Any]:
    """Conditions that a key must meet: causality, the window, and what is no padding."""
    causal, left, right = (attributes.get(name, -1) for name in ("is_causal", "left_window_size", "right_window_size"))
    right = 0 if causal == 1 else right
    key = _counted(op, keys, 2)
    conditions = []
    if left >= 0 or right >= 0:
        offset, query = _offset(op, q, past, valid), _counted(op, q, len(q.shape) - 2)
        column = query[:, None] if isinstance(query, np.ndarray) else op.Unsqueeze(query, [1])

        def limit(by: int) -> Any:
            """The position of each query, moved by so many keys."""
            if isinstance(offset, int):
                return _plus(op, column, offset + by)
            return _plus(op, op.Add(column, offset), by)

        if right >= 0:
            conditions.append(op.LessOrEqual(key, limit(right)))
        if left >= 0:
            conditions.append(op.GreaterOrEqual(key, limit(-left)))
    if valid is not None:
        conditions.append(op.Less(key, op.Unsqueeze(valid, [1, 2, 3])))
    return conditions


def _plus(op: Any, x: Any, number: int) -> Any:
    """Folded where x is known."""
    return x + number if isinstance(x, np.ndarray) or not number else op.Add(x, number)


def full_mask(op: Any, mask: Any, keys: Any) -> Any:
    """A mask that covers the first keys alone hides the others."""
    have, want = extents(mask)[-1], extents(keys)[2]
    if have == want:
        return mask
    if isinstance(have, int) and isinstance(want, int):
        pads: Any = [0, want - have]
    else:
        missing = op.Sub(op.Shape(keys, start=2, end=3), op.Shape(mask, start=-1))
        pads = op.Concat([0], missing, axis=0)
    hidden = np.bool_(False) if mask.dtype.name == "BOOL" else -math.inf
    return sized(op.Pad(mask, pads, hidden, [-1]), (*extents(mask)[:-1], want))


def bias_of(op: Any, mask: Any, conditions: Sequence[Any]) -> Any:
    """What is added to the scores: the mask's numbers, minus infinity where a key is hidden; None where none is."""
    number: Any = 0.0
    if mask is not None and mask.dtype.name == "BOOL":
        conditions = [*conditions, mask]
    elif mask is not None:
        number = mask if mask.dtype == op.dtype else op.Cast(mask, to=int(op.dtype))
    if not conditions:
        return None if mask is None else number
    return op.Where(reduce(op.And, conditions), number, -math.inf)


def sees_a_key(q: Any, k: Any, past: Any, mask: Any, valid: Any, attributes: Attributes) -> bool:
    """Whether it is plain that each query sees a key: the first one or, in a window, its own."""
    if mask is not None or valid is not None:
        return False
    queries, keys = extents(q)[-2], extents(k)[-2]
    if attributes.get("left_window_size", -1) < 0 or queries == keys:
        return True
    return isinstance(queries, int) and isinstance(keys, int) and queries < keys
