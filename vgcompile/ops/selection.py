"""Choosing and ordering elements by their values or by a condition: each adjoint goes back to the element that was chosen."""

from __future__ import annotations

from typing import Any

import numpy as np

from vgcompile.interval import WHOLE
from vgcompile.ops.cutting import hull_of
from vgcompile.ops.families import layout
from vgcompile.ops.indexing import rows_placed
from vgcompile.ops.layout import Moved, restriction
from vgcompile.ops.op import sample
from vgcompile.ops.shape import extents, reshaped, shaped, zeros_like


def _top_k_vjp(op: Any, g: Any, y: Any, x: Any, k: Any, *, axis: int, **_: Any) -> tuple[Any, ...]:
    """The indices that the node gives out are distinct."""
    return (shaped(op.ScatterElements(zeros_like(op, x), y[1], g, axis=axis), x), None)


TopK = layout(
    "TopK",
    "The k greatest or least elements along an axis, and their places; of elements that tie the first are taken.",
    unpredicted="the greatest k of many are no longer alike",
    vjp=_top_k_vjp,
    saved=(1,),
    range=lambda case: (hull_of(case), WHOLE)[: len(case.outputs)],
    moments=None,
    samples=(
        sample(("N", 5), np.array([2]), outputs=2),
        sample((4, "T"), np.array([3]), outputs=2, axis=0, largest=0),
        sample((2, 4, 3), np.array([1]), outputs=2, axis=-2, sorted=0),
    ),
)


def _compress_vjp(op: Any, g: Any, y: Any, x: Any, condition: Any, *, axis: int | None = None) -> tuple[Any, ...]:
    """Rows go back to where the condition, which may be shorter than the axis, holds; without an axis x is flattened."""
    places = op.Transpose(op.NonZero(condition), perm=[1, 0])
    if axis is not None:
        return (rows_placed(op, x, places, g, axis, "none"), None)
    zeros = op.Expand(0.0, op.Reshape(op.Size(x), [1]))
    return (reshaped(op, op.ScatterND(zeros, places, g), x), None)


Compress = layout(
    "Compress",
    "The slices along an axis, or of all elements those, at which a condition holds.",
    vjp=_compress_vjp,
    range=lambda case: hull_of(case),
    moments=Moved(),
    samples=(
        sample((3, "T"), np.array([False, True, True]), axis=0),
        sample(("N", 4, 2), np.array([True, False, True]), axis=1),
        sample(("N", 3), np.array([False, True])),
        sample((3, 2), np.array([False, False, False]), axis=0),
    ),
)


def _unique_vjp(op: Any, g: Any, y: Any, x: Any, *, axis: int | None = None, sorted: int = 1) -> tuple[Any, ...]:
    _, _, inverse, counts = y
    number = op.Cast(counts, to=int(g.dtype))
    if axis is None:
        return (reshaped(op, op.Gather(g / number, inverse), x),)
    rank = len(extents(x))
    along = op.Reshape(number, [-1 if i == axis % rank else 1 for i in range(rank)])
    return (shaped(op.Gather(g / along, inverse, axis=axis), x),)


Unique = layout(
    "Unique",
    "Each element, or each slice along an axis, once; those that are equal share the gradient equally.",
    unpredicted="how many elements are left, only a run tells",
    vjp=_unique_vjp,
    saved=(2, 3),
    range=lambda case: (hull_of(case), WHOLE, WHOLE, WHOLE)[: len(case.outputs)],
    norms=restriction,
    moments=None,
    samples=(sample(("N", 3)), sample((3, "T"), axis=0), sample((2, 4, 2), axis=-2, sorted=0)),
)

ReverseSequence = layout(
    "ReverseSequence",
    "The first elements along a time axis turned around, for each place along a batch axis another number of them.",
    vjp=lambda op, g, y, x, lengths, **axes: (shaped(op.ReverseSequence(g, lengths, **axes), x), None),
    samples=(
        sample((4, 3, "T"), np.array([1, 4, 2])),
        sample((3, 4), np.array([4, 1, 3]), batch_axis=0, time_axis=1),
    ),
    rearranges=True,
)

ROWS = (TopK, Compress, Unique, ReverseSequence)
