"""Normalizations by a length: the root mean square of a row, its p-norm, its deviation, the squares of neighbouring channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vgcompile.interval import Interval, interval
from vgcompile.ops import flops
from vgcompile.ops.normalization import (
    InnerMoments,
    affine,
    in_type,
    known,
    largest_factor,
    members,
    normalized_axes,
    stage_type,
    summed_to,
)
from vgcompile.ops.op import INTERNAL, Array, Body, Case, Op, Tangent, sample
from vgcompile.ops.shape import shaped
from vgcompile.ops.standardizing import least_square, meeting_ranges, near, value_range


def _unit(op: Any, x: Any, *, axis: int, epsilon: float, stash_type: int) -> tuple[Any, Any]:
    """z = x / r and 1 / r, r = sqrt(mean(x^2) + epsilon), in the type that they are computed in."""
    wide = in_type(op, x, stage_type(x, stash_type))
    inverse = op.Reciprocal(op.Sqrt(op.ReduceMean(wide * wide, normalized_axes(x, axis), keepdims=1) + epsilon))
    return wide * inverse, inverse


def _rms(op: Any, x: Any, scale: Any, **attributes: Any) -> Any:
    z, _inverse = _unit(op, x, **attributes)
    return in_type(op, z, scale.dtype) * scale


def _rms_vjp(op: Any, g: Any, y: Any, x: Any, scale: Any, *, axis: int, **attributes: Any) -> tuple[Any, ...]:
    """dx = (g' - z mean(g' z)) / r with g' = g scale."""
    z, inverse = _unit(op, x, axis=axis, **attributes)
    wide_g = in_type(op, g, z.dtype)
    scaled = wide_g * in_type(op, scale, z.dtype)
    dx = (scaled - z * op.ReduceMean(scaled * z, normalized_axes(x, axis), keepdims=1)) * inverse
    return shaped(in_type(op, dx, x.dtype), x), summed_to(op, wide_g * z, scale)


def _root_size(size: float) -> Interval:
    """Of n numbers with mean square 1 at most, none is larger than sqrt(n)."""
    most = math.sqrt(size) * (1.0 + 1e-12)
    return interval(-most, most)


def _rms_norms(case: Case, position: int) -> tuple[float, float]:
    """A contraction, times the scale over r."""
    if position:
        raise NotImplementedError("the gain to the scale of a root mean square is not bounded")
    return (0.0, largest_factor(case, least_square(case, members(case), centred=False)))


def _rms_range(case: Case) -> Interval:
    z = meeting_ranges(_root_size(members(case)), value_range(case, members(case), centred=False))
    return affine(z, known(case, 1), interval(0.0, 0.0))


def _rms_tangent(case: Case, position: int) -> Tangent | None:
    scale = case.values[1]
    return None if position or scale is None else near(case, members(case), scale, centred=False)


RMSNormalization = Op(
    "RMSNormalization",
    "Each row of the axes from `axis` on divided by its root mean square, and scaled.",
    normalizes=True,
    flops=flops.made(4.0),
    domain=INTERNAL,
    since=23,
    vjp=_rms_vjp,
    range=_rms_range,
    norms=_rms_norms,
    tangent=_rms_tangent,
    round=True,
    moments=InnerMoments(over_positions=False, centred=False),
    bodies=(Body("written out", _rms),),
    infer=lambda x, *_, **__: x,
    samples=(
        sample(("N", 5), (5,), epsilon=0.1),
        sample(("N", "T", 4), (4,)),
        sample(("N", 2, 3), (1, 3), axis=1, epsilon=0.1),
        sample((2, 3), (), axis=0),
    ),
)


def _lp_vjp(op: Any, g: Any, y: Any, x: Any, *, axis: int, p: int) -> tuple[Any, ...]:
    """(g - d sum(g y)) / ||x||, where d is the derivative of the norm: sign(x), or y."""
    norm = (op.ReduceL1 if p == 1 else op.ReduceL2)(x, [axis], keepdims=1)
    zero = op.Equal(norm, 0.0)
    along = op.ReduceSum(g * y, [axis], keepdims=1)
    rest = g - (op.Sign(x) if p == 1 else y) * along
    return (op.Where(zero, 0.0, rest / op.Where(zero, 1.0, norm)),)


def _lp(x: Array, *, axis: int, p: int) -> Array:
    norm = np.linalg.norm(x, ord=p, axis=axis, keepdims=True)
    y: Array = np.divide(x, norm, out=np.zeros_like(x, np.float64), where=norm != 0.0)
    return y


LpNormalization = Op(
    "LpNormalization",
    "x over its p-norm along an axis; a zero vector stays 0, and nothing flows through it.",
    normalizes=True,
    unpredicted="a length of other powers than 2 is no function of second moments",
    flops=flops.made(3.0),
    vjp=_lp_vjp,
    numpy=_lp,
    range=lambda case: interval(-1.0, 1.0),
    samples=(
        sample(("N", 4)),
        sample(("N", 3, "T"), axis=1),
        sample(("N", 4), p=1),
        sample((2, 3, 4), axis=0, p=1),
    ),
)

EPSILON = 1e-9  # in the standard's definition, beside the deviation and not under its root


def _mean_variance_vjp(op: Any, g: Any, y: Any, x: Any, *, axes: Sequence[int]) -> tuple[Any, ...]:
    """y = c / (s + e), c = x - mean(x), s^2 = mean(c^2): dx = (g - mean(g) - (c / s) mean(g y)) / (s + e).

    Where s = 0 so is c, and c / s is taken as 0.
    """
    over = [int(axis) for axis in axes]
    centred = x - op.ReduceMean(x, over, keepdims=1)
    deviation = op.Sqrt(op.ReduceMean(centred * centred, over, keepdims=1))
    unit = centred / op.Where(op.Equal(deviation, 0.0), 1.0, deviation)
    rest = g - op.ReduceMean(g, over, keepdims=1) - unit * op.ReduceMean(g * y, over, keepdims=1)
    return (shaped(rest / (deviation + EPSILON), x),)


MeanVarianceNormalization = Op(
    "MeanVarianceNormalization",
    "x minus its mean over axes, over its deviation; where x does not vary, what flows is the centred adjoint over 1e-9.",
    normalizes=True,
    unpredicted="its axes may mix samples, positions and features in any way",
    flops=flops.made(5.0),
    vjp=_mean_variance_vjp,
    infer=lambda x, **_: x,
    samples=(sample(("N", 2, 3, 2)), sample(("N", 4), axes=[1]), sample(("N", 3, "T"), axes=[-1, -2])),
)


def _near_channels(op: Any, x: Any, before: int, after: int) -> Any:
    """The mean over so many channels before and after each, its own with them; zeros stand beyond the ends."""
    flat = op.Reshape(x, [0, 0, -1]) if len(x.shape) > 4 else x
    rest = len(flat.shape) - 2
    pads = [before, *[0] * rest, after, *[0] * rest]
    alone = op.Unsqueeze(flat, [1])
    pooled = op.AveragePool(
        alone, kernel_shape=[before + 1 + after, *[1] * rest], pads=pads, strides=[1] * (rest + 1), count_include_pad=1
    )
    near = op.Squeeze(pooled, [1])
    return shaped(op.Reshape(near, op.Shape(x)) if flat is not x else near, x)


def _response_vjp(op: Any, g: Any, y: Any, x: Any, *, alpha: float, beta: float, bias: float, size: int) -> tuple[Any, ...]:
    """y = x / d^beta, d = bias + alpha mean(x^2): dx = g / d^beta - 2 alpha beta x mean'(g x / d^(beta + 1)).

    mean' looks the other way."""
    before, after = (size - 1) // 2, size // 2
    d = _near_channels(op, x * x, before, after) * alpha + bias
    direct = g * op.Pow(d, -beta)
    return (direct - x * _near_channels(op, direct * x / d, after, before) * (2.0 * alpha * beta),)


LRN = Op(
    "LRN",
    "x over a power of the squares in `size` neighbouring channels, that many in all: local response normalization.",
    unpredicted="powers of sums of squares need more than second moments",
    flops=lambda case: (case.attributes["size"] + 5.0) * case.count(case.outputs[0]),
    vjp=_response_vjp,
    samples=(
        sample(("N", 5, 2, 2), size=3, alpha=0.5, bias=1.5),
        sample(("N", "C", "H", "W"), size=5, alpha=2.0, beta=0.5),
    ),
)

ROWS = (RMSNormalization, LpNormalization, MeanVarianceNormalization, LRN)
