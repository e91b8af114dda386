"""Tensors made of a few numbers: each number gets the sum of the adjoints at the places that it made."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from vgcompile.ops import flops
from vgcompile.ops.op import Op, sample


def _one_hot_vjp(op: Any, g: Any, y: Any, indices: Any, depth: Any, values: Any, *, axis: int) -> tuple[Any, ...]:
    """``values`` holds what stands at a cold and at a hot place: each gets the sum of the adjoints there."""
    hot = op.Cast(op.OneHot(indices, depth, np.array([0, 1], g.dtype.numpy()), axis=axis), to=TensorProto.BOOL)
    sums = [op.ReduceSum(part, keepdims=0) for part in (op.Where(hot, 0.0, g), op.Where(hot, g, 0.0))]
    return (None, None, op.Concat(*(op.Unsqueeze(part, [0]) for part in sums), axis=0))


OneHot = Op(
    "OneHot",
    "One of two values: the second at the index along a new axis, the first elsewhere; the gradient flows to the two values.",
    unpredicted="its rows are constants of which the data choose",
    flops=flops.none,
    vjp=_one_hot_vjp,
    samples=(sample(np.array([0, 2, 1]), np.array(3), (2,)), sample(np.array([[1], [0]]), np.array(2), (2,), axis=0)),
)


def _range_vjp(op: Any, g: Any, y: Any, start: Any, limit: Any, delta: Any, **_: Any) -> tuple[Any, ...]:
    """y_i = start + i delta; the limit only says how many there are."""
    steps = op.Cast(op.Range(0, op.Size(g), 1), to=int(g.dtype))
    return (op.ReduceSum(g, keepdims=0), None, op.ReduceSum(g * steps, keepdims=0))


Range = Op(
    "Range",
    "start, start + delta, and so on, below limit; the gradient flows to start and delta, the limit is a step.",
    unpredicted="it counts between two numbers, and has no features",
    vjp=_range_vjp,
    samples=(
        sample(np.array(0), np.array(4), np.array(1)),
        sample((), np.array(9.0), (), domain=(0.5, 2.0)),
        sample(np.array(1.0), np.array(-3.0), (), domain=(-2.0, -0.5)),
    ),
)

ROWS = (OneHot, Range)
