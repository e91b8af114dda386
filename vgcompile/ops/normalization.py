"""Normalizations: subtract a mean, divide by a standard deviation, scale and shift.

All have one derivative, over the elements that are normalized together (z the normalized value, s the standard deviation):

    dx = (g' - mean(g') - z mean(g' z)) / s,    g' = gamma g

Batch normalization in training couples the samples of a batch. It is opened by ``lower``, and so is its gradient; both bodies write
the statistics the same way, so that common-subexpression elimination leaves them once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.interval import WHOLE, Interval, corners, interval, point
from vgcompile.ops.layout import extents, is_sample_axis, reshaped, shaped, summed
from vgcompile.ops.op import INTERNAL, Array, Body, Case, Dim, Inference, Op, sample
from vgcompile.signal import Signal, constant, independent_sum, replace

ONE = constant(1.0, 1.0)


def _adjoints(g: Any, outputs: int) -> tuple[Any, ...]:
    """One adjoint, or None, for each output that the operator may have."""
    given = g if isinstance(g, tuple) else (g,)
    return (*given, *(None,) * (outputs - len(given)))


def _sum(terms: Sequence[Any]) -> Any:
    """The sum of the terms that there are; None where there is none."""
    there = [term for term in terms if term is not None]
    total = there[0] if there else None
    for term in there[1:]:
        total = total + term
    return total


def _through_statistics(op: Any, x: Any, mean: Any, dmean: Any, dvariance: Any) -> Any:
    """What reaches x through its mean and its variance: (dmean + 2 (x - mean) dvariance) / n, n elements to each."""
    if dmean is None and dvariance is None:
        return None
    spread = None if dvariance is None else (x - mean) * (dvariance * 2.0)
    return _sum([dmean, spread]) / op.Cast(op.Div(op.Size(x), op.Size(mean)), to=int(x.dtype))


def _three_terms(op: Any, g: Any, z: Any, inverse: Any, axes: list[int]) -> Any:
    """(g - mean(g) - z mean(g z)) / s, means over ``axes``."""
    return (g - op.ReduceMean(g, axes, keepdims=1) - z * op.ReduceMean(g * z, axes, keepdims=1)) * inverse


def _statistics(op: Any, x: Any, axes: list[int], epsilon: float) -> tuple[Any, Any, Any, Any]:
    """Mean, variance (of the population), 1 / s and the normalized value."""
    mean = op.ReduceMean(x, axes, keepdims=1)
    centred = x - mean
    variance = op.ReduceMean(centred * centred, axes, keepdims=1)
    inverse = op.Reciprocal(op.Sqrt(variance + epsilon))
    return mean, variance, inverse, centred * inverse


def _per_channel(op: Any, parameter: Any, rank: int) -> Any:
    """[C] against [N, C, ...]."""
    return op.Unsqueeze(parameter, list(range(1, rank - 1))) if rank > 2 else parameter


def _but_channels(x: Any) -> list[int]:
    return [0, *range(2, len(x.shape))]


# ---- batch normalization


def _train(op: Any, x: Any, scale: Any, bias: Any, mean: Any, var: Any, *, epsilon: float, momentum: float, **_: Any) -> Any:
    rank = len(x.shape)
    batch_mean, batch_var, _inverse, z = _statistics(op, x, _but_channels(x), epsilon)
    y = z * _per_channel(op, scale, rank) + _per_channel(op, bias, rank)
    running = [old * momentum + op.Reshape(new, [-1]) * (1.0 - momentum) for old, new in ((mean, batch_mean), (var, batch_var))]
    return y, *running


def _train_gradient(op: Any, g: Any, x: Any, scale: Any, *, epsilon: float) -> Any:
    axes = _but_channels(x)
    _mean, _variance, inverse, z = _statistics(op, x, axes, epsilon)
    dx = _three_terms(op, g, z, inverse, axes) * _per_channel(op, scale, len(x.shape))
    return dx, op.ReduceSum(g * z, axes, keepdims=0), op.ReduceSum(g, axes, keepdims=0)


def _batch_vjp(op: Any, g: Any, y: Any, x: Any, scale: Any, bias: Any, mean: Any, var: Any, **attributes: Any) -> tuple[Any, ...]:
    given = _adjoints(g, 3)
    if attributes["training_mode"]:
        return _train_vjp(op, given, x, scale, epsilon=attributes["epsilon"], momentum=attributes["momentum"])
    g, rank, axes = given[0], len(x.shape), _but_channels(x)
    inverse = op.Reciprocal(op.Sqrt(var + attributes["epsilon"]))
    factor = scale * inverse
    dbias = op.ReduceSum(g, axes, keepdims=0)
    dscale = op.ReduceSum(g * (x - _per_channel(op, mean, rank)), axes, keepdims=0) * inverse
    dx = shaped(g * _per_channel(op, factor, rank), x)
    return dx, dscale, dbias, op.Neg(dbias * factor), dscale * factor * inverse * -0.5


def _train_vjp(op: Any, given: Sequence[Any], x: Any, scale: Any, *, epsilon: float, momentum: float) -> tuple[Any, ...]:
    """The running statistics are averages of the old ones (weight ``momentum``) and the batch's."""
    g, *running = given
    dx, dscale, dbias = op.BatchNormalizationGradient(g, x, scale, outputs=3, epsilon=epsilon) if g is not None else (None,) * 3
    fresh = [None if h is None else _per_channel(op, h * (1.0 - momentum), len(x.shape)) for h in running]
    if fresh != [None, None]:
        mean = op.ReduceMean(x, _but_channels(x), keepdims=1)
        dx = _sum([dx, _through_statistics(op, x, mean, *fresh)])
    return (dx, dscale, dbias, *(None if h is None else h * momentum for h in running))


def _known(case: Case, position: int) -> Interval:
    if position >= len(case.shapes) or case.shapes[position] is None:
        return point(0.0)
    value = case.values[position]
    return case.ranges[position] or (WHOLE if value is None else point(value))


def _channel_shape(x: Interval, rank: int) -> Interval:
    return x.map(lambda v: v.reshape(1, -1, *(1,) * (rank - 2)) if v.ndim else v)


def _positions(dims: Sequence[Dim]) -> float:
    return math.inf if any(isinstance(dim, str) for dim in dims[2:]) else math.prod(int(dim) for dim in dims[2:])


def _dims(case: Case, position: int = 0) -> tuple[Dim, ...]:
    dims = case.shapes[position]
    assert dims is not None
    return dims


def _affine(z: Interval, scale: Interval, bias: Interval) -> Interval:
    return corners(lambda a, b, c: a * b + c, [z, scale, bias])


def _batch_range(case: Case) -> tuple[Interval, ...]:
    dims = _dims(case)
    rank = len(dims)
    scale, bias = (_channel_shape(_known(case, position), rank) for position in (1, 2))
    if case.attributes["training_mode"]:
        size = _positions(dims) * (dims[0] if isinstance(dims[0], int) else case.batch if case.batch > 1 else math.inf)
        y = _affine(_normalized(size), scale, bias)
    else:
        mean, inverse = _channel_shape(_known(case, 3), rank), _channel_shape(_inverse_deviation(case), rank)
        y = corners(lambda x, m, i, a, b: (x - m) * i * a + b, [case.ranges[0] or WHOLE, mean, inverse, scale, bias])
    return (y, WHOLE, WHOLE)[: len(case.outputs)]


def _normalized(size: float) -> Interval:
    """Of n numbers with mean 0 and mean square 1 at most, none is larger than sqrt(n - 1)."""
    most = math.sqrt(max(size - 1.0, 0.0)) * (1.0 + 1e-12)
    return interval(-most, most)


def _inverse_deviation(case: Case) -> Interval:
    """1 / sqrt(var + epsilon) over the range of the running variance, which is not negative."""
    epsilon, var = float(case.attributes["epsilon"]), _known(case, 4)
    positive = Interval(np.maximum(var.lo, 0.0), np.maximum(var.hi, 0.0))
    return corners(lambda v: 1.0 / np.sqrt(v + epsilon), [positive])


def _batch_norms(case: Case, position: int) -> tuple[float, float]:
    """In training: a projection, times gamma / s with s >= sqrt(epsilon); sum of z^2 over a batch is at most its number of elements."""
    positions = _positions(_dims(case))
    if position == 2:
        return (1.0 if positions == 1 else 0.0, math.sqrt(positions))
    if position > 2 and case.attributes["training_mode"]:
        return (0.0, 0.0)
    scale = _known(case, 1)
    if case.attributes["training_mode"]:
        hi = (
            float(scale.magnitude.max()) / math.sqrt(float(case.attributes["epsilon"])) if position == 0 else math.sqrt(positions)
        )
        return (0.0, hi * (1.0 + 1e-12))
    return _inference_norms(case, position, scale, positions)


def _inference_norms(case: Case, position: int, scale: Interval, positions: float) -> tuple[float, float]:
    """The affine map (x - mean) gamma / s + beta, channel by channel."""
    inverse = _inverse_deviation(case)
    factor = corners(np.multiply, [scale, inverse])
    if position == 0:
        return (float(factor.mignitude.min()), float(factor.magnitude.max()))
    if position == 3:
        return (0.0, math.sqrt(positions) * float(factor.magnitude.max()))
    rank = len(_dims(case))
    centred = corners(np.subtract, [case.ranges[0] or WHOLE, _channel_shape(_known(case, 3), rank)])
    slope = inverse if position == 1 else corners(lambda f, i: 0.5 * f * i * i, [factor, inverse])
    with np.errstate(invalid="ignore"):
        most = np.nan_to_num(centred.magnitude * _channel_shape(slope, rank).magnitude, nan=np.inf).max()
    return (0.0, math.sqrt(positions) * float(most) * (1.0 + 1e-12))


def _parameter(case: Case, signals: Sequence[Signal | None], position: int, default: float) -> Signal:
    """Statistics of scale or bias: as analysed, or of the known array."""
    if position >= len(signals) or case.shapes[position] is None:
        return constant(default, default**2)
    signal, value = signals[position], case.values[position]
    if signal is not None:
        return signal
    if value is None:
        raise NotImplementedError("the statistics of scale or bias are not known")
    return constant(float(np.mean(value)), float(np.mean(np.square(value, dtype=np.float64))))


def _scaled_and_shifted(case: Case, signals: Sequence[Signal | None], z: Signal) -> Signal:
    scale, bias = _parameter(case, signals, 1, 1.0), _parameter(case, signals, 2, 0.0)
    return independent_sum(replace(z.scaled(scale.square), mean=z.mean * scale.mean), bias)


@dataclass(frozen=True)
class BatchMoments:
    """Batch normalization in training, over M = N P elements a channel (Yang et al. 2019, with the finite batch kept).

    Removing the batch mean removes the mean over all M^2 pairs, A. The variance is a sum of squares over N - 1 modes between samples and N (P - 1)
    within them, close to a chi-square of nu degrees, so that E[1/s^2] = nu / (nu - 2) / E[s^2]; one layer of a linear
    net then has the squared rate (N - 2) / (N - 3).
    """

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal | tuple[Signal, ...]:
        x = signals[0]
        assert x is not None
        if not case.attributes["training_mode"]:
            return self._inference(case, signals, x)
        y = _scaled_and_shifted(case, signals, self._normalized(case, x))
        return y

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        x = signals[0]
        assert x is not None
        n, p = self._sizes(case)
        if position == 2:
            return summed(adjoint, ONE, n, p)
        if not case.attributes["training_mode"]:
            if position != 0:
                raise NotImplementedError("only the input's adjoint is predicted at inference")
            return adjoint.scaled(_parameter(case, signals, 1, 1.0).square * self._running(case))
        if position == 1:
            return summed(adjoint, self._normalized(case, x), n, p)
        gain = _parameter(case, signals, 1, 1.0).square * self._inverse_variance(case, x)
        common = _pair_mean(adjoint, n, p)
        centred = replace(
            adjoint,
            square=max(adjoint.square * (1.0 - 1.0 / (n * p)) - common, 0.0),
            within=adjoint.within - common,
            across=adjoint.across - common,
        )
        return centred.scaled(gain)

    def _normalized(self, case: Case, x: Signal) -> Signal:
        n, p = self._sizes(case)
        common = _pair_mean(x, n, p)
        variance = x.square - common
        if variance <= 1e-12 * x.square:
            raise NotImplementedError("the batch does not vary")
        total = variance + float(case.attributes["epsilon"])
        return replace(
            x, mean=0.0, square=variance / total, within=(x.within - common) / total, across=(x.across - common) / total
        )

    def _inverse_variance(self, case: Case, x: Signal) -> float:
        n, p = self._sizes(case)
        between, inside = x.square + (p - 1) * x.within - p * x.across, x.square - x.within
        modes = ((n - 1, max(between, 0.0)), (n * (p - 1), max(inside, 0.0)))
        total = sum(count * size for count, size in modes)
        if total <= 0:
            raise NotImplementedError("the batch does not vary")
        nu = total**2 / sum(count * size**2 for count, size in modes)
        if nu <= 2.0:
            raise NotImplementedError(f"E[1/s^2] is infinite with {nu:.1f} degrees of freedom; use a larger batch")
        mean, epsilon = total / (n * p), float(case.attributes["epsilon"])
        share = mean / (mean + epsilon)
        return (1.0 + 2.0 / (nu - 2.0) * share**2) / (mean + epsilon)

    def _inference(self, case: Case, signals: Sequence[Signal | None], x: Signal) -> Signal:
        mean = _parameter(case, signals, 3, 0.0)
        centred = independent_sum(x, replace(mean, mean=-mean.mean))
        running = self._running(case)
        return _scaled_and_shifted(case, signals, replace(centred.scaled(running), mean=centred.mean * running**0.5))

    @staticmethod
    def _running(case: Case) -> float:
        """E[1/(var + epsilon)] of the running variance."""
        var = case.values[4]
        if var is None:
            raise NotImplementedError("the running variance is not known")
        return float(np.mean(1.0 / (np.asarray(var, np.float64) + float(case.attributes["epsilon"]))))

    @staticmethod
    def _sizes(case: Case) -> tuple[int, int]:
        dims = _dims(case)
        if any(isinstance(dim, str) for dim in dims[2:]):
            raise NotImplementedError("the statistics of batch normalization need the spatial extents")
        return case.count(dims[:1]), math.prod(int(dim) for dim in dims[2:])


def _pair_mean(x: Signal, n: int, p: int) -> float:
    """E of the squared mean over a batch: the average over all pairs of its n p elements."""
    return (x.square + (p - 1) * x.within + (n - 1) * p * x.across) / (n * p)


_CHANNELS = ((3,), (3,), (3,), np.array([0.5, 1.0, 2.0]))

BatchNormalization = Op(
    "BatchNormalization",
    "Each channel normalized over the batch and all positions or, at inference, with the running mean and variance.",
    vjp=_batch_vjp,
    range=_batch_range,
    norms=_batch_norms,
    moments=BatchMoments(),
    bodies=(Body("statistics", _train),),
    opens=lambda attributes: bool(attributes["training_mode"]),
    inference=Inference({"training_mode": 0}),
    samples=(
        sample(("N", 3), *_CHANNELS),
        sample(("N", 3, 2, 2), *_CHANNELS, epsilon=0.1),
        sample((4, 3), (3,), (3,), (3,), (3,), outputs=3, training_mode=1, epsilon=0.1),
        sample(("N", 3, 2, "W"), (3,), (3,), np.zeros(3), np.ones(3), outputs=3, training_mode=1, epsilon=0.5),
    ),
)

BatchNormalizationGradient = Op(
    "BatchNormalizationGradient",
    "The adjoints of input, scale and bias of a batch normalization in training; g and x [N, C, ...], scale [C].",
    domain=INTERNAL,
    bodies=(Body("three terms", _train_gradient),),
    infer=lambda g, x, scale, **_: (x, scale, scale),
    samples=(sample(("N", 3, 2), ("N", 3, 2), (3,), outputs=3, epsilon=0.1),),
)


# ---- normalizations inside one sample


def _layer_axis(x: Any, axis: int) -> list[int]:
    rank = len(x.shape)
    return list(range(axis % rank, rank))


def _layer_vjp(op: Any, g: Any, y: Any, x: Any, scale: Any, bias: Any = None, *, axis: int, **_: Any) -> tuple[Any, ...]:
    """The node's own Mean and InvStdDev are taken; d(1/s) = -1/2 (1/s)^3 d(variance)."""
    g, dmean, dinverse = _adjoints(g, 3)
    mean, inverse = (_as(op, statistic, x) for statistic in y[1:3])
    z = (x - mean) * inverse
    terms = [] if g is None else [_three_terms(op, g * scale, z, inverse, _layer_axis(x, axis))]
    dvariance = None if dinverse is None else _as(op, dinverse, x) * inverse * inverse * inverse * -0.5
    terms.append(_through_statistics(op, x, mean, None if dmean is None else _as(op, dmean, x), dvariance))
    return shaped(_sum(terms), x), None if g is None else shaped(g * z, x), None if bias is None else g


def _as(op: Any, statistic: Any, x: Any) -> Any:
    """Statistics may be stored in another type than the data."""
    return statistic if statistic.dtype == x.dtype else op.Cast(statistic, to=int(x.dtype))


def _instance_vjp(op: Any, g: Any, y: Any, x: Any, scale: Any, bias: Any, *, epsilon: float) -> tuple[Any, ...]:
    axes = list(range(2, len(x.shape)))
    _mean, _variance, inverse, z = _statistics(op, x, axes, epsilon)
    dx = _three_terms(op, g, z, inverse, axes) * _per_channel(op, scale, len(x.shape))
    rest = _but_channels(x)
    return shaped(dx, x), op.ReduceSum(g * z, rest, keepdims=0), op.ReduceSum(g, rest, keepdims=0)


def _group_vjp(
    op: Any, g: Any, y: Any, x: Any, scale: Any, bias: Any, *, epsilon: float, num_groups: int, **_: Any
) -> tuple[Any, ...]:
    """Groups of channels in one row each."""
    rows = [0, num_groups, -1]
    _mean, _variance, inverse, z = _statistics(op, op.Reshape(x, rows), [2], epsilon)
    scaled = op.Reshape(g * _per_channel(op, scale, len(x.shape)), rows)
    dx, rest = reshaped(op, _three_terms(op, scaled, z, inverse, [2]), x), _but_channels(x)
    return dx, op.ReduceSum(g * reshaped(op, z, x), rest, keepdims=0), op.ReduceSum(g, rest, keepdims=0)


def _members(case: Case) -> float:
    """How many elements are normalized together."""
    dims, given = _dims(case), case.attributes
    if "num_groups" in given:
        together: Sequence[Dim] = dims[1:]
    else:
        together = dims[int(given["axis"]) % len(dims) :] if "axis" in given else dims[2:]
    if any(isinstance(dim, str) for dim in together):
        return math.inf
    return math.prod(int(dim) for dim in together) / int(given.get("num_groups", 1))


def _inner_range(case: Case) -> tuple[Interval, ...]:
    rank = len(_dims(case))
    scale, bias = (_known(case, position) for position in (1, 2))
    if "axis" not in case.attributes:
        scale, bias = _channel_shape(scale, rank), _channel_shape(bias, rank)
    return (_affine(_normalized(_members(case)), scale, bias), WHOLE, WHOLE)[: len(case.outputs)]


def _inner_norms(case: Case, position: int) -> tuple[float, float]:
    """A projection, times gamma / s with s >= sqrt(epsilon); no normalized element exceeds sqrt(n - 1)."""
    if position == 0:
        hi = float(_known(case, 1).magnitude.max()) / math.sqrt(float(case.attributes["epsilon"]))
        return (0.0, hi * (1.0 + 1e-12))
    dims = _dims(case)
    own = case.count(case.shapes[position])
    sizes = [1 if is_sample_axis(dims, axis, case.batch) else dim for axis, dim in enumerate(dims)]
    uses = math.inf if any(isinstance(dim, str) for dim in sizes) else math.prod(int(dim) for dim in sizes) / max(own, 1)
    most = 1.0 if position == 2 else float(_normalized(_members(case)).hi)
    return (1.0 if uses == 1 and position == 2 else 0.0, math.sqrt(uses) * most)


@dataclass(frozen=True)
class InnerMoments:
    """Normalization over n elements of one sample: their variance replaces the scale; two of n directions are lost, the mean and z."""

    over_positions: bool  # the elements are positions of one feature, which correlate by `within`

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x = signals[0]
        assert x is not None
        return _scaled_and_shifted(case, signals, self._normalized(case, x))

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        x = signals[0]
        assert x is not None
        if position:
            rows = case.count(_dims(case)) // max(case.count(case.shapes[position]), 1)
            return summed(adjoint, ONE if position == 2 else self._normalized(case, x), case.batch, max(rows // case.batch, 1))
        n = _members(case)
        if not math.isfinite(n) or n <= 2:
            raise NotImplementedError("a normalization's gain needs the number of elements that it takes together, more than 2")
        variance = x.square - self._common(x) + float(case.attributes["epsilon"])
        return adjoint.scaled((n - 2.0) / n / variance * _parameter(case, signals, 1, 1.0).square)

    def _common(self, x: Signal) -> float:
        return x.within if self.over_positions else x.mean**2

    def _normalized(self, case: Case, x: Signal) -> Signal:
        common = self._common(x)
        variance = x.square - common
        if variance <= 1e-12 * x.square:
            raise NotImplementedError("the normalized elements do not vary")
        total = variance + float(case.attributes["epsilon"])
        across = 0.0 if self.over_positions else (x.across - common) / total
        return replace(x, mean=0.0, square=variance / total, within=(x.within - common) / total, across=across)


LayerNormalization = Op(
    "LayerNormalization",
    "Each row of the axes from `axis` on normalized by itself.",
    vjp=_layer_vjp,
    saved=(1, 2),
    range=_inner_range,
    norms=_inner_norms,
    moments=InnerMoments(over_positions=False),
    samples=(
        sample(("N", 5), (5,), (5,), epsilon=0.1),
        sample(("N", "T", 4), (4,), epsilon=0.1),
        sample(("N", 2, 3), (2, 3), (2, 3), axis=1, epsilon=0.1),
    ),
)

InstanceNormalization = Op(
    "InstanceNormalization",
    "Each channel of each sample normalized over its positions.",
    vjp=_instance_vjp,
    range=_inner_range,
    norms=_inner_norms,
    moments=InnerMoments(over_positions=True),
    samples=(sample(("N", 3, 4), (3,), (3,), epsilon=0.1), sample(("N", 2, 3, 2), (2,), (2,), epsilon=0.1)),
)

GroupNormalization = Op(
    "GroupNormalization",
    "Each group of channels of each sample normalized over its channels and positions.",
    vjp=_group_vjp,
    range=_inner_range,
    norms=_inner_norms,
    moments=InnerMoments(over_positions=False),
    infer=lambda x, *_, **__: x,
    samples=(
        sample(("N", 4, 3), (4,), (4,), num_groups=2, epsilon=0.1),
        sample(("N", 4, 2, "W"), (4,), (4,), num_groups=1, epsilon=0.1),
    ),
)

ROWS = (BatchNormalization, BatchNormalizationGradient, LayerNormalization, InstanceNormalization, GroupNormalization)
