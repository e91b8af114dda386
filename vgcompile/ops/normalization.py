"""Normalizations: subtract a mean, divide by a standard deviation, scale and shift.

All have one derivative, over the elements that are normalized together (z the normalized value, s the standard deviation):

    dx = (g' - mean(g') - z mean(g' z)) / s,    g' = gamma g

It and the other words that they share stand first; then the normalizations inside one sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.interval import WHOLE, Interval, corners, interval, point, product
from vgcompile.ops import flops
from vgcompile.ops.moments import Unknown, signal_of
from vgcompile.ops.op import Case, Dim, Op, Tangent, sample
from vgcompile.ops.shape import meeting, reshaped, shaped, summed
from vgcompile.ops.standardizing import least_square, meeting_ranges, near, value_range
from vgcompile.signal import Signal, bent, constant, independent_sum, replace

ONE = constant(1.0, 1.0)


def adjoints_of(g: Any, outputs: int) -> tuple[Any, ...]:
    """One adjoint, or None, for each output that the operator may have."""
    given = g if isinstance(g, tuple) else (g,)
    return (*given, *(None,) * (outputs - len(given)))


def added(terms: Sequence[Any]) -> Any:
    """The sum of the terms that there are; None where there is none."""
    there = [term for term in terms if term is not None]
    result = there[0] if there else None
    for term in there[1:]:
        result = result + term
    return result


def through_statistics(op: Any, x: Any, mean: Any, dmean: Any, dvariance: Any) -> Any:
    """What reaches x through its mean and its variance: (dmean + 2 (x - mean) dvariance) / n, n elements to each."""
    if dmean is None and dvariance is None:
        return None
    spread = None if dvariance is None else (x - mean) * (dvariance * 2.0)
    return added([dmean, spread]) / op.Cast(op.Div(op.Size(x), op.Size(mean)), to=int(x.dtype))


def three_terms(op: Any, g: Any, z: Any, inverse: Any, axes: list[int]) -> Any:
    """(g - mean(g) - z mean(g z)) / s, means over ``axes``."""
    return (g - op.ReduceMean(g, axes, keepdims=1) - z * op.ReduceMean(g * z, axes, keepdims=1)) * inverse


def statistics(op: Any, x: Any, axes: list[int], epsilon: float) -> tuple[Any, Any, Any, Any]:
    """Mean, variance (of the population), 1 / s and the normalized value."""
    mean = op.ReduceMean(x, axes, keepdims=1)
    centred = x - mean
    variance = op.ReduceMean(centred * centred, axes, keepdims=1)
    inverse = op.Reciprocal(op.Sqrt(variance + epsilon))
    return mean, variance, inverse, centred * inverse


def per_channel(op: Any, values: Any, rank: int) -> Any:
    """[C] against [N, C, ...]."""
    return op.Unsqueeze(values, list(range(1, rank - 1))) if rank > 2 else values


def but_channels(x: Any) -> list[int]:
    return [0, *range(2, len(x.shape))]


def known(case: Case, position: int) -> Interval:
    if position >= len(case.shapes) or case.shapes[position] is None:
        return point(0.0)
    value = case.values[position]
    return case.ranges[position] or (WHOLE if value is None else point(value))


def channel_shape(x: Interval, rank: int) -> Interval:
    return x.map(lambda v: v.reshape(1, -1, *(1,) * (rank - 2)) if v.ndim else v)


def positions(dims: Sequence[Dim]) -> float:
    return math.inf if any(isinstance(dim, str) for dim in dims[2:]) else math.prod(int(dim) for dim in dims[2:])


def dims_of(case: Case, position: int = 0) -> tuple[Dim, ...]:
    dims = case.shapes[position]
    assert dims is not None
    return dims


def affine(z: Interval, scale: Interval, bias: Interval) -> Interval:
    return corners(np.add, [product(z, scale), bias])


def standardized(size: float) -> Interval:
    """Of n numbers with mean 0 and mean square 1 at most, none is larger than sqrt(n - 1)."""
    most = math.sqrt(max(size - 1.0, 0.0)) * (1.0 + 1e-12)
    return interval(-most, most)


def largest_factor(case: Case, least: float = 0.0) -> float:
    """The greatest |gamma| / s, with s^2 >= epsilon + ``least``."""
    gamma, epsilon = float(known(case, 1).magnitude.max()), float(case.attributes["epsilon"]) + least
    if epsilon == 0.0:
        return math.inf if gamma else 0.0
    return gamma / math.sqrt(epsilon) * (1.0 + 1e-12)


def parameter(case: Case, signals: Sequence[Signal | None], position: int, default: float) -> Signal:
    """Statistics of scale or bias: as analysed, or of the known array."""
    if position >= len(signals) or case.shapes[position] is None:
        return constant(default, default**2)
    signal, value = signals[position], case.values[position]
    if signal is not None:
        return signal
    if value is None:
        raise Unknown(position)
    return constant(float(np.mean(value)), float(np.mean(np.square(value, dtype=np.float64))))


def scaled_and_shifted(case: Case, signals: Sequence[Signal | None], z: Signal) -> Signal:
    scale, bias = parameter(case, signals, 1, 1.0), parameter(case, signals, 2, 0.0)
    return independent_sum(replace(z.scaled(scale.square), mean=z.mean * scale.mean), bias)


def normalized_axes(x: Any, axis: int) -> list[int]:
    rank = len(x.shape)
    return list(range(axis % rank, rank))


def stage_type(x: Any, stash_type: int) -> Any:
    """The type that statistics are computed in: float32 for 16-bit numbers, where the node says so; else the data's own."""
    return ir.DataType.FLOAT if x.dtype.itemsize == 2 and stash_type == ir.DataType.FLOAT else x.dtype


def in_type(op: Any, value: Any, dtype: Any) -> Any:
    return value if value.dtype == dtype else op.Cast(value, to=int(dtype))


def summed_to(op: Any, adjoint: Any, parameter: Any) -> Any:
    """An adjoint in the parameter's type; one that was computed wider is summed over the leading axes before it is narrowed."""
    if adjoint.dtype == parameter.dtype:
        return adjoint
    leading = list(range(len(adjoint.shape) - len(parameter.shape)))
    total = op.ReduceSum(adjoint, leading, keepdims=0) if leading else adjoint
    return op.Cast(total, to=int(parameter.dtype))


def _layer_vjp(
    op: Any, g: Any, y: Any, x: Any, scale: Any, bias: Any = None, *, axis: int, epsilon: float, stash_type: int
) -> tuple[Any, ...]:
    """The node's own Mean and InvStdDev are taken where they are as exact as the data; d(1/s) = -1/2 (1/s)^3 d(variance)."""
    g, dmean, dinverse = adjoints_of(g, 3)
    axes, stage = normalized_axes(x, axis), stage_type(x, stash_type)
    wide = in_type(op, x, stage)
    if y[1].dtype.itemsize >= stage.itemsize:
        mean, inverse = (in_type(op, statistic, stage) for statistic in y[1:3])
        z = (wide - mean) * inverse
    else:
        mean, _variance, inverse, z = statistics(op, wide, axes, epsilon)
    terms, dscale, dbias = [], None, None
    if g is not None:
        wide_g = in_type(op, g, stage)
        terms = [three_terms(op, wide_g * in_type(op, scale, stage), z, inverse, axes)]
        dscale, dbias = summed_to(op, wide_g * z, scale), None if bias is None else summed_to(op, wide_g, bias)
    dvariance = None if dinverse is None else in_type(op, dinverse, stage) * inverse * inverse * inverse * -0.5
    terms.append(through_statistics(op, wide, mean, None if dmean is None else in_type(op, dmean, stage), dvariance))
    dx = added(terms)
    return None if dx is None else shaped(in_type(op, dx, x.dtype), x), dscale, dbias


def _instance_vjp(op: Any, g: Any, y: Any, x: Any, scale: Any, bias: Any, *, epsilon: float) -> tuple[Any, ...]:
    axes, rest = list(range(2, len(x.shape))), but_channels(x)
    _mean, _variance, inverse, z = statistics(op, x, axes, epsilon)
    dx = three_terms(op, g, z, inverse * per_channel(op, scale, len(x.shape)), axes)
    return shaped(dx, x), op.ReduceSum(g * z, rest, keepdims=0), op.ReduceSum(g, rest, keepdims=0)


def _group_vjp(
    op: Any, g: Any, y: Any, x: Any, scale: Any, bias: Any, *, epsilon: float, num_groups: int, stash_type: int
) -> tuple[Any, ...]:
    """Groups of channels in one row each."""
    rows, stage, rest = [0, num_groups, -1], stage_type(x, stash_type), but_channels(x)
    _mean, _variance, inverse, z = statistics(op, op.Reshape(in_type(op, x, stage), rows), [2], epsilon)
    wide_g, factor = in_type(op, g, stage), per_channel(op, in_type(op, scale, stage), len(x.shape))
    dx = reshaped(op, three_terms(op, op.Reshape(wide_g * factor, rows), z, inverse, [2]), x)
    dscale, dbias = op.ReduceSum(wide_g * reshaped(op, z, x), rest, keepdims=0), op.ReduceSum(wide_g, rest, keepdims=0)
    return shaped(in_type(op, dx, x.dtype), x), in_type(op, dscale, scale.dtype), in_type(op, dbias, bias.dtype)


def members(case: Case) -> float:
    """How many elements are normalized together."""
    dims, given = dims_of(case), case.attributes
    if "num_groups" in given:
        together: Sequence[Dim] = dims[1:]
    else:
        together = dims[int(given["axis"]) % len(dims) :] if "axis" in given else dims[2:]
    if any(isinstance(dim, str) for dim in together):
        return math.inf
    return math.prod(int(dim) for dim in together) / int(given.get("num_groups", 1))


def _inner_range(case: Case) -> tuple[Interval, ...]:
    rank = len(dims_of(case))
    scale, bias = (known(case, position) for position in (1, 2))
    if "axis" not in case.attributes:
        scale, bias = channel_shape(scale, rank), channel_shape(bias, rank)
    z = meeting_ranges(standardized(members(case)), value_range(case, members(case), centred=True))
    return (affine(z, scale, bias), WHOLE, WHOLE)[: len(case.outputs)]


def _inner_norms(case: Case, position: int) -> tuple[float, float]:
    """A projection, times gamma / s; no normalized element exceeds sqrt(n - 1)."""
    if any(case.outputs[1:]):
        return (0.0, math.inf)  # mean and deviation are in use, too
    if position == 0:
        return (0.0, largest_factor(case, least_square(case, members(case), centred=True)))
    uses = meeting(case, position, dims_of(case)) / max(case.count(case.shapes[position]), 1)
    most = 1.0 if position == 2 else float(standardized(members(case)).hi)
    return (1.0 if uses == 1 and position == 2 else 0.0, math.sqrt(uses) * most)


def _inner_tangent(case: Case, position: int) -> Tangent | None:
    scale = case.values[1]
    if position or scale is None or any(case.outputs[1:]):
        return None
    if "axis" not in case.attributes:
        scale = np.reshape(scale, (1, -1, *(1,) * (len(dims_of(case)) - 2)))
    return near(case, members(case), scale, centred=True)


@dataclass(frozen=True)
class InnerMoments:
    """Normalization over n elements of one sample, of which two directions are lost: the mean and z.

    s^2 is 1/n times a chi-square variable of n - 1 degrees, so that E[1/s^2] = (n - 1) / (n - 3) / E[s^2] for Gaussian elements.
    Positions that are told apart have an s each: afterwards they are alike, and the small ones get most of the gradient.
    """

    over_positions: bool = False  # the elements are positions of one feature, which correlate by `within`

    centred: bool = True  # else a division by the root mean square alone, which loses one direction

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x = signal_of(signals, 0)
        return scaled_and_shifted(case, signals, self._normalized(case, x))

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        x = signal_of(signals, 0)
        if case.output:
            raise NotImplementedError("only the adjoint of the normalized values is predicted")
        if position:
            rows = case.count(dims_of(case)) // max(case.count(case.shapes[position]), 1)
            return summed(adjoint, ONE if position == 2 else self._normalized(case, x), case.batch, max(rows // case.batch, 1))
        n, epsilon = members(case), float(case.attributes["epsilon"])
        if not 3 < n < math.inf:
            raise NotImplementedError("a normalization's gain needs the number of elements that it takes together, more than 3")
        lost = 1.0 if self.centred else 0.0
        apart = not self.over_positions and len(x.along) == 1
        variance = (x.square - self._common(x)) * (n - lost) / n * (np.array(x.along[0]) if apart else np.ones(1))
        share = variance / (variance + epsilon)
        inverse = (1.0 + 2.0 / (n - lost - 2.0) * share**2) / (variance + epsilon)
        if apart:
            inverse = inverse * adjoint.places(len(inverse))
            adjoint = replace(adjoint, along=bent((tuple(inverse.tolist()),), 1.0))
        return adjoint.scaled((n - 1.0 - lost) / n * float(inverse.mean()) * parameter(case, signals, 1, 1.0).square)

    def _common(self, x: Signal) -> float:
        if not self.centred:
            return 0.0
        return x.within if self.over_positions else x.mean**2

    def _normalized(self, case: Case, x: Signal) -> Signal:
        common = self._common(x)
        variance = x.square - common
        if variance <= 1e-12 * x.square:
            raise NotImplementedError("the normalized elements do not vary")
        total = variance + float(case.attributes["epsilon"])
        across = 0.0 if self.over_positions else (x.across - common) / total
        mean = 0.0 if self.centred else x.mean / math.sqrt(total)
        along = x.along if self.over_positions else ()
        return replace(x, mean=mean, square=variance / total, within=(x.within - common) / total, across=across, along=along)


LayerNormalization = Op(
    "LayerNormalization",
    "Each row of the axes from `axis` on normalized by itself.",
    normalizes=True,
    flops=flops.made(flops.NORMALIZATION),
    vjp=_layer_vjp,
    saved=(1, 2),
    range=_inner_range,
    norms=_inner_norms,
    tangent=_inner_tangent,
    round=True,
    moments=InnerMoments(over_positions=False),
    samples=(
        sample(("N", 5), (5,), (5,), epsilon=0.1),
        sample(("N", "T", 4), (4,), epsilon=0.1),
        sample(("N", 2, 3), (2, 3), (2, 3), axis=1, epsilon=0.1),
        sample(("N", "T", 3), (1, 3), axis=-2, epsilon=0.1),
        sample(("N", 4), (4,), (4,), epsilon=0.1, outputs=3),
    ),
)

InstanceNormalization = Op(
    "InstanceNormalization",
    "Each channel of each sample normalized over its positions.",
    normalizes=True,
    flops=flops.made(flops.NORMALIZATION),
    vjp=_instance_vjp,
    range=_inner_range,
    norms=_inner_norms,
    tangent=_inner_tangent,
    round=True,
    moments=InnerMoments(over_positions=True),
    samples=(sample(("N", 3, 4), (3,), (3,), epsilon=0.1), sample(("N", 2, 3, 2), (2,), (2,), epsilon=0.1)),
)

GroupNormalization = Op(
    "GroupNormalization",
    "Each group of channels of each sample normalized over its channels and positions.",
    normalizes=True,
    flops=flops.made(flops.NORMALIZATION),
    vjp=_group_vjp,
    range=_inner_range,
    norms=_inner_norms,
    tangent=_inner_tangent,
    round=True,
    moments=InnerMoments(over_positions=False),
    infer=lambda x, *_, **__: x,
    samples=(
        sample(("N", 4, 3), (4,), (4,), num_groups=2, epsilon=0.1, stash_type=11),
        sample(("N", 4, 2, "W"), (4,), (4,), num_groups=1, epsilon=0.1, stash_type=11),
    ),
)

ROWS = (LayerNormalization, InstanceNormalization, GroupNormalization)
