"""The parts of an attention: heads apart, scores, what is hidden, softmax, values, heads together.

Y = softmax(scale Q K^T + bias) V
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.graph.contrib.forms import covered, plus
from vgcompile.ops.shape import extents

FILTER = -10000.0  # what ONNX Runtime adds to a score that a mask hides
NO_CACHE = "it carries a cache of past keys; export the model without it (use_cache=False)"


def apart(op: Any, x: Any, heads: int) -> Any:
    """[batch, length, heads * size] as [batch, heads, length, size]."""
    if len(x.shape) == 4:
        return x
    return op.Transpose(op.Reshape(x, [0, 0, heads, width_of(x) // heads]), perm=[0, 2, 1, 3])


def width_of(x: Any) -> int:
    """The last extent of [batch, length, heads * size]."""
    width = extents(x)[2]
    covered(isinstance(width, int), "the width of its heads is a symbol; export it with a fixed width")
    return int(width)


def attend(
    op: Any,
    q: Any,
    k: Any,
    v: Any,
    biases: Sequence[Any],
    scale: float | None,
    softcap: float = 0.0,
    sink: Any = None,
) -> Any:
    """On heads that stand apart; the result has them together. Biases that are None are none; ``sink`` is the score of a key
    without a value, one for each head."""
    scores = op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])) * float(scale or int(extents(q)[3]) ** -0.5)
    if softcap:
        scores = op.Tanh(scores * (1.0 / softcap)) * softcap
    scores = plus(scores, *biases)
    weights = op.Softmax(scores, axis=-1)
    if sink is not None:  # sum / (sum + exp(sink)), with the sum of the exponentials
        total = op.ReduceLogSumExp(scores, [-1], keepdims=1)
        weights = weights * op.Sigmoid(total - op.Reshape(sink, [1, -1, 1, 1]))
    y = op.MatMul(weights, v)
    return op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, int(extents(v)[1]) * int(extents(v)[3])])


def causal(op: Any, q: Any, k: Any, window: int = 0) -> Any:
    """A bias of [queries, keys] that hides later keys, and those that lie ``window`` and more places back if there is one."""
    shape = op.Concat(op.Shape(q, start=2, end=3), op.Shape(k, start=2, end=3), axis=0)
    ones = op.Expand(np.ones((1, 1), np.int32), shape)
    hidden = op.Trilu(ones, np.array(1), upper=1)
    if window > 0:
        hidden = op.Add(hidden, op.Trilu(ones, np.array(-window), upper=0))
    return op.Cast(hidden, to=int(q.dtype)) * lowest(q)


def lowest(x: Any) -> float:
    """The least number of a value's type."""
    return float(ir.DataType(x.dtype).min)


def masked(op: Any, mask: Any, q: Any, k: Any, filtered: float) -> Any:
    """A mask as a bias: [batch, keys] or [batch, queries, keys], 1 where a key counts; or [batch], how many count."""
    if mask is None:
        return None
    rank = len(mask.shape)
    covered(rank in (1, 2, 3), "its mask has more than three axes; export it with a mask of [batch, length]")
    if rank == 1:
        batch = extents(mask)[0]
        covered(batch == extents(q)[0], "its mask tells where rows begin and end; export it with a mask of [batch, length]")
        length = op.Squeeze(op.Shape(k, start=2, end=3), [0])
        mask = op.Less(op.Range(np.array(0), length, np.array(1)), op.Unsqueeze(op.Cast(mask, to=7), [1]))
    shown = op.Cast(mask, to=int(q.dtype))
    return (1.0 - op.Unsqueeze(shown, [1] if rank == 3 else [1, 2])) * filtered
