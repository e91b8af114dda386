"""Putting windows together again: elements to the places that indices name, columns to the pixels that they were taken from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from vgcompile.ops import flops
from vgcompile.ops.op import Case, Op, sample
from vgcompile.ops.shape import constant, extents, reshaped, shaped


def _unpool_vjp(
    op: Any,
    g: Any,
    y: Any,
    x: Any,
    indices: Any,
    output_shape: Any = None,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
) -> tuple[Any, ...]:
    """Indices count through the whole output: each element gets the adjoint of its place.

    With an ``output_shape`` the standard counts through the output that the window implies, ONNX Runtime through the one that is
    stated. So the operator itself says where its elements go: run on their numbers, counted from 1, it leaves the number of its
    source at each place. Numbers go in as two digits, which float32 holds exactly up to 2^24 each.
    """
    if output_shape is None:
        return shaped(op.Gather(op.Reshape(g, [-1]), indices, axis=0), x), None, None
    count = op.Size(x)
    number = op.Reshape(op.Range(1, count + 1, 1), op.Shape(x))
    high = op.Div(number, DIGIT)
    window = {"kernel_shape": kernel_shape, "strides": strides, "pads": pads}
    digits = [
        op.Cast(op.MaxUnpool(op.Cast(digit, to=TensorProto.FLOAT), indices, output_shape, **window), to=TensorProto.INT64)
        for digit in (high, number - high * DIGIT)
    ]
    source = op.Reshape(digits[0] * DIGIT + digits[1], [-1])
    slots = op.Expand(0.0, op.Reshape(count + 1, [1]))  # the first is for places without a source
    placed = op.ScatterElements(slots, source, op.Reshape(g, [-1]), axis=0)
    return reshaped(op, op.Slice(placed, [1], [LAST], [0]), x), None, None


DIGIT = 2**20
LAST = np.iinfo(np.int64).max

MaxUnpool = Op(
    "MaxUnpool",
    "Each element at the place that its index names, zeros elsewhere; of several at one place the last.",
    unpredicted="where its elements go, only a run tells",
    flops=flops.none,
    vjp=_unpool_vjp,
    samples=(
        sample((1, 1, 2, 2), np.array([[[[0, 3], [9, 15]]]]), kernel_shape=[2, 2], strides=[2, 2]),
        sample((1, 2, 2), np.array([[[1, 2], [4, 7]]]), kernel_shape=[2], strides=[2]),
    ),
)


# ---- Col2Im: x [N, C * taps, windows] -> the image [N, C, ...], each pixel the sum over its copies


def _attributes(rank: int, strides: Any, dilations: Any, pads: Any) -> tuple[list[int], list[int], list[int]]:
    return strides or [1] * rank, dilations or [1] * rank, pads or [0] * (2 * rank)


def _col2im_vjp(
    op: Any, g: Any, y: Any, x: Any, image: Any, block: Any, *, strides: Any = None, dilations: Any = None, pads: Any = None
) -> tuple[Any, ...]:
    """The windows of g, side by side: with a known block a convolution whose kernels each pick one tap, else one lookup."""
    strides, dilations, pads = _attributes(len(g.shape) - 2, strides, dilations, pads)
    known, channels = constant(block), extents(g)[1]
    if known is None:
        return _looked_up(op, g, x, block, strides, dilations, pads), None, None
    picks = np.eye(math.prod(known), dtype=x.dtype.numpy()).reshape(-1, 1, *known)
    if isinstance(channels, int):
        picks = np.tile(picks, (channels, *(1 for _ in known), 1))
    else:
        g = op.Reshape(g, op.Concat(np.array([-1, 1]), op.Shape(g, start=2), axis=0))
    group = channels if isinstance(channels, int) else 1
    return reshaped(op, op.Conv(g, picks, group=group, strides=strides, dilations=dilations, pads=pads), x), None, None


def _looked_up(op: Any, g: Any, x: Any, block: Any, strides: list[int], dilations: list[int], pads: list[int]) -> Any:
    """The place of tap k of window o along an axis is o * stride + k * dilation; flat, places of all axes are added up."""
    rank = len(strides)
    axes = list(range(2, 2 + rank))
    wide = op.Pad(g, pads, None, axes) if any(pads) else g
    size = op.Shape(wide, start=2)
    visits = op.Div(size - (block - 1) * np.asarray(dilations) - 1, np.asarray(strides)) + 1
    flat: Any = None
    for axis in range(rank):
        taps, windows = (op.Range(0, _scalar(op, count, axis), 1) for count in (block, visits))
        place = op.Unsqueeze(taps * dilations[axis], [1]) + windows * strides[axis]
        place = op.Unsqueeze(place, [i for i in range(2 * rank) if i % rank != axis])
        flat = place if flat is None else flat * _scalar(op, size, axis) + place
    pixels = op.Reshape(wide, [0, 0, -1])
    return reshaped(op, op.Gather(pixels, op.Reshape(flat, [-1]), axis=2), x)


def _scalar(op: Any, vector: Any, index: int) -> Any:
    return op.Gather(vector, index, axis=0)


def _unranked(case: Case) -> str:
    return "" if case.outputs[0] is not None else "the image's number of axes is not known when compiling"


Col2Im = Op(
    "Col2Im",
    "Columns put back to where they were taken from an image, and added up.",
    unpredicted="its columns are windows in one axis, which has no role of its own",
    flops=flops.read(),
    vjp=_col2im_vjp,
    refuses=_unranked,
    samples=(
        sample(("N", 8, 6), np.array([3, 4]), np.array([2, 2])),
        sample(("N", 6, 4), np.array([5, 5]), np.array([2, 3]), strides=[2, 2], pads=[0, 0, 1, 1], dilations=[2, 1]),
        sample(("N", 3, 5), np.array([5]), np.array([3]), pads=[1, 1]),
        sample((1, 8, 2), np.array([2, 3, 2]), np.array([2, 2, 2])),
    ),
)

ROWS = (MaxUnpool, Col2Im)
