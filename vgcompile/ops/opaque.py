"""Operators through which nothing flows: shapes, counts, indices, tests and random draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from vgcompile.interval import interval
from vgcompile.ops.families import blocked
from vgcompile.ops.op import Op, sample

NUMBER = "its output is a number of elements and does not change with their values"
INDEX = "its output is an index: a step, whose slope is 0 wherever it has one"
TEST = "its output is a truth value"
SHAPE_ONLY = "it reads only the shape of its input"
NO_INPUT = "its output does not depend on any value"
DRAW = "its output is drawn at random"

MATRIX = (sample(("N", 3)),)

Constant = blocked("Constant", "A value that stands in the node itself.", NO_INPUT, samples=(sample(value_float=1.0),))
Shape = blocked("Shape", "The extents of x.", NUMBER, samples=(*MATRIX, sample((2, 3), start=1)))
Size = blocked("Size", "The number of elements of x.", NUMBER, samples=MATRIX)
Range = blocked(
    "Range", "start, start + delta, and so on, below limit.", INDEX, samples=(sample(np.array(0), np.array(4), np.array(1)),)
)
ConstantOfShape = blocked("ConstantOfShape", "One value, repeated to a shape.", NO_INPUT, samples=(sample(np.array([2, 3])),))
EyeLike = blocked(
    "EyeLike", "Ones on a diagonal, in the shape of x.", SHAPE_ONLY, range=lambda case: interval(0.0, 1.0), samples=MATRIX
)

ArgMax = blocked("ArgMax", "The index of the greatest element along an axis.", INDEX, samples=MATRIX)
ArgMin = blocked("ArgMin", "The index of the least element along an axis.", INDEX, samples=MATRIX)
NonZero = blocked("NonZero", "The indices of the elements that are not 0.", INDEX, samples=(sample((2, 3)),))
Hardmax = blocked(
    "Hardmax",
    "1 at the first greatest element along an axis, 0 elsewhere.",
    INDEX,
    range=lambda case: interval(0.0, 1.0),
    samples=MATRIX,
)

IsNaN = blocked(
    "IsNaN", "Whether x is not a number.", TEST, numpy=np.isnan, range=lambda case: interval(0.0, 1.0), samples=MATRIX
)
IsInf = blocked("IsInf", "Whether x is infinite.", TEST, range=lambda case: interval(0.0, 1.0), samples=MATRIX)

RandomNormalLike = blocked("RandomNormalLike", "Normal draws in the shape of x.", DRAW, random=True, samples=MATRIX)
RandomUniformLike = blocked(
    "RandomUniformLike",
    "Uniform draws in the shape of x.",
    DRAW,
    random=True,
    range=lambda case: interval(case.attributes["low"], case.attributes["high"]),
    samples=MATRIX,
)
Bernoulli = blocked(
    "Bernoulli",
    "1 with probability x, else 0.",
    DRAW,
    random=True,
    range=lambda case: interval(0.0, 1.0),
    samples=(sample(("N", 3), domain=(0.0, 1.0)),),
)


def _one_hot_vjp(op: Any, g: Any, y: Any, indices: Any, depth: Any, values: Any, *, axis: int) -> tuple[Any, ...]:
    """``values`` holds what stands at a cold and at a hot place: each gets the sum of the adjoints there."""
    hot = op.Cast(op.OneHot(indices, depth, [0, 1], axis=axis), to=TensorProto.BOOL)
    sums = [op.ReduceSum(part, keepdims=0) for part in (op.Where(hot, 0.0, g), op.Where(hot, g, 0.0))]
    return (None, None, op.Concat(*(op.Unsqueeze(part, [0]) for part in sums), axis=0))


OneHot = Op(
    "OneHot",
    "One of two values: the second at the index along a new axis, the first elsewhere; the gradient flows to the two values.",
    vjp=_one_hot_vjp,
    samples=(sample(np.array([0, 2, 1]), np.array(3), (2,)), sample(np.array([[1], [0]]), np.array(2), (2,), axis=0)),
)

ROWS = (
    *(Constant, Shape, Size, Range, ConstantOfShape, EyeLike),
    *(ArgMax, ArgMin, NonZero, Hardmax, IsNaN, IsInf, RandomNormalLike, RandomUniformLike, Bernoulli, OneHot),
)
