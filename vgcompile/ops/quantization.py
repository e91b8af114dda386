"""Numbers as small integers and back. What rounds is a step, and has no gradient (to let it pass as if it did not round is
another function's); what scales back has one by its scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vgcompile.ops.families import blocked
from vgcompile.ops.op import Dim, Op, sample
from vgcompile.ops.shape import extents, shaped

ROUNDED = "it rounds to whole numbers: a step, whose slope is 0 wherever it has one"
INTEGER = "its output is whole numbers"

_BYTES = np.array([[3, 250, 7], [0, 128, 9]], np.uint8)


def _dequantize_vjp(
    op: Any, g: Any, y: Any, x: Any, scale: Any, zero: Any = None, *, axis: int, block_size: int = 0, **_: Any
) -> tuple[Any, ...]:
    """To the scale: the sum of g (x - zero) over what it scales. The same operator at scale 1 says x - zero."""
    blocks = block_size or 0
    unit = op.DequantizeLinear(x, op.Expand(1.0, op.Shape(scale)) if extents(scale) else 1.0, zero, axis=axis, block_size=blocks)
    part = g * (unit if unit.dtype == g.dtype else op.Cast(unit, to=int(g.dtype)))
    rank, dims = len(extents(x)), extents(scale)
    axis %= max(rank, 1)
    if blocks:
        part = _summed_blocks(op, part, scale, axis, blocks)
    elif len(dims) == 1 and dims != (1,):
        part = shaped(op.ReduceSum(part, [i for i in range(rank) if i != axis], keepdims=0), scale)
    return (None, part if g.dtype == scale.dtype else op.Cast(part, to=int(scale.dtype)), None)


def _summed_blocks(op: Any, x: Any, scale: Any, axis: int, size: int) -> Any:
    """The sums of the blocks along an axis, of which the last may be shorter, in the shape of ``scale``."""
    dims, extent, count = extents(scale), extents(x)[axis], extents(scale)[axis]
    missing = _missing(op, x, scale, axis, size)
    if missing != 0:
        zeros = np.zeros(2 * len(dims), np.int64)
        before, after = zeros[: len(dims) + axis], zeros[len(dims) + axis + 1 :]
        pads = [*before, missing, *after] if isinstance(missing, int) else op.Concat(before, missing, after, axis=0)
        x = op.Pad(x, pads)
    known = isinstance(extent, int) and isinstance(count, int)
    blocks = op.Reshape(x, _split_shape(op, scale, axis, size, known))
    return shaped(op.ReduceSum(blocks, [axis + 1], keepdims=0), scale)


def _missing(op: Any, x: Any, scale: Any, axis: int, size: int) -> Any:
    """How much the last block lacks: a number, or a vector of one."""
    extent, count = extents(x)[axis], extents(scale)[axis]
    if isinstance(extent, int) and isinstance(count, int):
        return count * size - extent
    return op.Shape(scale, start=axis, end=axis + 1) * size - op.Shape(x, start=axis, end=axis + 1)


def _split_shape(op: Any, scale: Any, axis: int, size: int, known: bool) -> Any:
    dims: Sequence[Dim] = extents(scale)
    split = [*dims[: axis + 1], size, *dims[axis + 1 :]]
    if sum(isinstance(dim, str) for dim in split) <= 1 and known:
        return [-1 if isinstance(dim, str) else dim for dim in split]
    return op.Concat(op.Shape(scale, end=axis + 1), [size], op.Shape(scale, start=axis + 1), axis=0)


DequantizeLinear = Op(
    "DequantizeLinear",
    "scale (x - zero point), for all elements, along an axis or in blocks of it; the gradient flows to the scale.",
    unpredicted="its integers' statistics are not known",
    vjp=_dequantize_vjp,
    samples=(
        sample(_BYTES, (), np.array(128, np.uint8), domain=(0.01, 0.1)),
        sample(_BYTES, (3,), np.array([1, 2, 3], np.uint8), domain=(0.01, 0.1)),
        sample(_BYTES, (2,), axis=0, domain=(0.01, 0.1)),
        sample(_BYTES, (2, 2), np.array([[1, 2], [3, 4]], np.uint8), axis=1, block_size=2, domain=(0.01, 0.1)),
    ),
)

QuantizeLinear = blocked(
    "QuantizeLinear",
    "x / scale + zero point, rounded and cut off to a type of few bits.",
    ROUNDED,
    untrained=(1,),
    samples=(sample((2, 3), np.array(0.5), np.array(3, np.uint8)),),
)


def _dynamic_vjp(op: Any, g: Any, y: Any, x: Any) -> tuple[Any, ...]:
    """The scale is (max(x, 0) - min(x, 0)) / 255 over all elements; those that tie share its adjoint equally."""
    part = g[1] * (1.0 / 255.0)
    sides = (
        (op.ReduceMax(x, keepdims=0), op.Greater(x, 0.0), part),
        (op.ReduceMin(x, keepdims=0), op.Less(x, 0.0), op.Neg(part)),
    )
    terms = []
    for extreme, outside, adjoint in sides:
        hit = op.And(op.Equal(x, extreme), outside)
        count = op.ReduceSum(op.Where(hit, 1.0, 0.0), keepdims=0)
        terms.append(op.Where(hit, adjoint / op.Max(count, 1.0), 0.0))
    return (op.Add(*terms),)


DynamicQuantizeLinear = Op(
    "DynamicQuantizeLinear",
    "x as bytes, with a scale and a zero point that fit its range; the gradient flows through the scale, the bytes are a step.",
    unpredicted="its steps follow from the extremes of the data",
    vjp=_dynamic_vjp,
    samples=(sample((3, "T"), outputs=3), sample((4,), outputs=3, domain=(0.5, 2.0))),
)

_ONE = np.array(1.0)
_ZERO = np.array(0, np.uint8)

QLinearMatMul = blocked(
    "QLinearMatMul",
    "The product of two quantized matrices, quantized again.",
    ROUNDED,
    untrained=(1, 4, 6),
    samples=(sample(_BYTES, _ONE, _ZERO, _BYTES.T, _ONE, _ZERO, _ONE, _ZERO),),
)
QLinearConv = blocked(
    "QLinearConv",
    "The convolution of quantized numbers, quantized again.",
    ROUNDED,
    untrained=(1, 4, 6),
    samples=(sample(_BYTES[None, None], _ONE, _ZERO, _BYTES[None, None, :1, :2], _ONE, _ZERO, _ONE, _ZERO),),
)
MatMulInteger = blocked("MatMulInteger", "The product of two matrices of bytes.", INTEGER, samples=(sample(_BYTES, _BYTES.T),))
ConvInteger = blocked(
    "ConvInteger", "The convolution of bytes.", INTEGER, samples=(sample(_BYTES[None, None], _BYTES[None, None, :1, :2]),)
)

ROWS = (DequantizeLinear, QuantizeLinear, DynamicQuantizeLinear, QLinearMatMul, QLinearConv, MatMulInteger, ConvInteger)
