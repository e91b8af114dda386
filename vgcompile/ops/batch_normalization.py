"""Batch normalization: in training it couples the samples of a batch, at inference it is an affine map.

The training form is opened by ``lower``, and so is its gradient. Both bodies write the statistics the same way, so that
common-subexpression elimination leaves them once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.interval import WHOLE, Interval, corners, product
from vgcompile.ops import flops
from vgcompile.ops.maps import scaled
from vgcompile.ops.moments import signal_of
from vgcompile.ops.normalization import (
    ONE,
    added,
    adjoints_of,
    affine,
    but_channels,
    channel_shape,
    dims_of,
    known,
    largest_factor,
    parameter,
    per_channel,
    positions,
    scaled_and_shifted,
    standardized,
    statistics,
    three_terms,
    through_statistics,
)
from vgcompile.ops.op import INTERNAL, Body, Case, Inference, Op, Tangent, sample
from vgcompile.ops.shape import meeting, shaped, summed
from vgcompile.signal import Signal, independent_sum, replace


def _train(op: Any, x: Any, scale: Any, bias: Any, mean: Any, var: Any, *, epsilon: float, momentum: float, **_: Any) -> Any:
    rank = len(x.shape)
    batch_mean, batch_var, _inverse, z = statistics(op, x, but_channels(x), epsilon)
    y = z * per_channel(op, scale, rank) + per_channel(op, bias, rank)
    running = [old * momentum + op.Reshape(new, [-1]) * (1.0 - momentum) for old, new in ((mean, batch_mean), (var, batch_var))]
    return y, *running


def _train_gradient(op: Any, g: Any, x: Any, scale: Any, *, epsilon: float) -> Any:
    axes = but_channels(x)
    _mean, _variance, inverse, z = statistics(op, x, axes, epsilon)
    dx = three_terms(op, g, z, inverse, axes) * per_channel(op, scale, len(x.shape))
    return dx, op.ReduceSum(g * z, axes, keepdims=0), op.ReduceSum(g, axes, keepdims=0)


def _batch_vjp(op: Any, g: Any, y: Any, x: Any, scale: Any, bias: Any, mean: Any, var: Any, **attributes: Any) -> tuple[Any, ...]:
    given = adjoints_of(g, 3)
    if attributes["training_mode"]:
        return _train_vjp(op, given, x, scale, epsilon=attributes["epsilon"], momentum=attributes["momentum"])
    g, rank, axes = given[0], len(x.shape), but_channels(x)
    inverse = op.Reciprocal(op.Sqrt(var + attributes["epsilon"]))
    factor = scale * inverse
    dbias = op.ReduceSum(g, axes, keepdims=0)
    dscale = op.ReduceSum(g * (x - per_channel(op, mean, rank)), axes, keepdims=0) * inverse
    dx = shaped(g * per_channel(op, factor, rank), x)
    return dx, dscale, dbias, op.Neg(dbias * factor), dscale * factor * inverse * -0.5


def _train_vjp(op: Any, given: Sequence[Any], x: Any, scale: Any, *, epsilon: float, momentum: float) -> tuple[Any, ...]:
    """The running statistics are averages of the old ones (weight ``momentum``) and the batch's."""
    g, *running = given
    dx, dscale, dbias = op.BatchNormalizationGradient(g, x, scale, outputs=3, epsilon=epsilon) if g is not None else (None,) * 3
    fresh = [None if h is None else per_channel(op, h * (1.0 - momentum), len(x.shape)) for h in running]
    if any(h is not None for h in running):
        mean = op.ReduceMean(x, but_channels(x), keepdims=1)
        dx = added([dx, through_statistics(op, x, mean, *fresh)])
    return (dx, dscale, dbias, *(None if h is None else h * momentum for h in running))


def _batch_range(case: Case) -> tuple[Interval, ...]:
    dims = dims_of(case)
    rank = len(dims)
    scale, bias = (channel_shape(known(case, position), rank) for position in (1, 2))
    if case.attributes["training_mode"]:
        size = positions(dims) * (dims[0] if isinstance(dims[0], int) else case.batch if case.batch > 1 else math.inf)
        y = affine(standardized(size), scale, bias)
    else:
        mean, inverse = channel_shape(known(case, 3), rank), channel_shape(_inverse_deviation(case), rank)
        centred = corners(np.subtract, [case.ranges[0] or WHOLE, mean])
        y = affine(product(centred, inverse), scale, bias)
    return (y, WHOLE, WHOLE)[: len(case.outputs)]


def _inverse_deviation(case: Case) -> Interval:
    """1 / sqrt(var + epsilon) over the range of the running variance, which is not negative."""
    epsilon, var = float(case.attributes["epsilon"]), known(case, 4)
    positive = Interval(np.maximum(var.lo, 0.0), np.maximum(var.hi, 0.0))
    return corners(lambda v: 1.0 / np.sqrt(v + epsilon), [positive])


def _batch_norms(case: Case, position: int) -> tuple[float, float]:
    """In training a projection, times gamma / s; the sum of z^2 is at most the number of elements."""
    if any(case.outputs[1:]):
        return (0.0, math.inf)  # the running statistics are in use, too
    uses = meeting(case, position, dims_of(case)) / max(case.count(case.shapes[1]), 1)
    if position == 2:
        return (1.0 if uses == 1 else 0.0, math.sqrt(uses))
    if position > 2 and case.attributes["training_mode"]:
        return (0.0, 0.0)
    if case.attributes["training_mode"]:
        return (0.0, largest_factor(case) if position == 0 else math.sqrt(uses))
    return _inference_norms(case, position, known(case, 1), uses)


def _inference_norms(case: Case, position: int, scale: Interval, uses: float) -> tuple[float, float]:
    """The affine map (x - mean) gamma / s + beta, channel by channel."""
    inverse = _inverse_deviation(case)
    factor = corners(np.multiply, [scale, inverse])
    if position == 0:
        return (float(factor.mignitude.min()), float(factor.magnitude.max()))
    if position == 3:
        return (0.0, math.sqrt(uses) * float(factor.magnitude.max()))
    rank = len(dims_of(case))
    centred = corners(np.subtract, [case.ranges[0] or WHOLE, channel_shape(known(case, 3), rank)])
    slope = inverse if position == 1 else corners(lambda f, i: 0.5 * f * i * i, [factor, inverse])
    with np.errstate(invalid="ignore"):
        most = np.nan_to_num(centred.magnitude * channel_shape(slope, rank).magnitude, nan=np.inf).max()
    return (0.0, math.sqrt(uses) * float(most) * (1.0 + 1e-12))


def _batch_tangent(case: Case, position: int) -> Tangent | None:
    """At inference one factor for each channel."""
    if position or case.attributes["training_mode"]:
        return None
    factor = corners(np.multiply, [known(case, 1), _inverse_deviation(case)])
    return scaled(case, 0, channel_shape(factor, len(dims_of(case))))


ALIGNED = 0.5  # of the modes' own 1/nu: above it the samples' alignment decides how a channel's variance fluctuates


@dataclass(frozen=True)
class BatchMoments:
    """Batch normalization in training, over M = N P elements a channel (Yang et al. 2019, with the finite batch kept).

    Removing the batch mean removes the mean over all M^2 pairs, A. The variance is a sum of squares over N - 1 modes between
    samples and N (P - 1) within them, close to a chi-square of nu degrees, so that E[1/s^2] = nu / (nu - 2) / E[s^2]; one layer
    of a linear net then has the squared rate (N - 2) / (N - 3). Samples whose centred vectors are aligned leave fewer degrees:
    1/nu grows by E[cos^2]. Dividing each channel by its own deviation evens the directions out: E[x x^T / |x|^2] has the
    deviations of x's covariance times nu / (nu + 2). Where alignment, not the size of the batch, decides nu, that is no longer
    accurate, and the prediction says so.
    """

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal | tuple[Signal, ...]:
        x = signal_of(signals, 0)
        if not case.attributes["training_mode"]:
            return self._inference(case, signals, x)
        return scaled_and_shifted(case, signals, self._normalized(case, x))

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        x = signal_of(signals, 0)
        n, p = self._sizes(case)
        if position == 2:
            return summed(adjoint, ONE, n, p)
        if not case.attributes["training_mode"]:
            if position != 0:
                raise NotImplementedError("only the input's adjoint is predicted at inference")
            return adjoint.scaled(parameter(case, signals, 1, 1.0).square * self._running(case))
        if position == 1:
            return summed(adjoint, self._normalized(case, x), n, p)
        gain = parameter(case, signals, 1, 1.0).square * self._inverse_variance(case, x)
        common, lost = _pair_mean(adjoint, n, p), adjoint.square / (n * p)  # the mean's direction, and z's
        shared = lost / max(n * p - 1, 1) - common  # the sum over the batch stays 0
        centred = replace(
            adjoint,
            square=max(adjoint.square - lost - common, 0.0),
            within=adjoint.within + shared,
            across=adjoint.across + shared,
        )
        modes = self._modes(case, x)
        aligned = "" if x.alignment < ALIGNED * modes else "the samples of the batch point few ways, and decide 1/s^2"
        return replace(centred.scaled(gain), doubt=adjoint.doubt or aligned)

    def _normalized(self, case: Case, x: Signal) -> Signal:
        n, p = self._sizes(case)
        common = _pair_mean(x, n, p)
        variance = x.square - common
        if variance <= 1e-12 * x.square:
            raise NotImplementedError("the batch does not vary")
        total = variance + float(case.attributes["epsilon"])
        nu = self._degrees(case, x)
        return replace(
            x,
            mean=0.0,
            square=variance / total,
            within=(x.within - common) / total,
            across=(x.across - common) / total,
            alignment=x.alignment * (nu / (nu + 2.0)) ** 2,
        )

    def _inverse_variance(self, case: Case, x: Signal) -> float:
        n, p = self._sizes(case)
        mean, epsilon = x.square - _pair_mean(x, n, p), float(case.attributes["epsilon"])
        nu = self._degrees(case, x)
        if nu <= 2.0:
            raise NotImplementedError(f"E[1/s^2] is infinite with {nu:.1f} degrees of freedom; use a larger batch")
        share = mean / (mean + epsilon)
        return (1.0 + 2.0 / (nu - 2.0) * share**2) / (mean + epsilon)

    def _degrees(self, case: Case, x: Signal) -> float:
        """Degrees of freedom of a channel's variance over the batch."""
        return 1.0 / (self._modes(case, x) + x.alignment)

    def _modes(self, case: Case, x: Signal) -> float:
        """Sum of the squares of the batch's modes over the square of their sum: 1/nu for samples that point every way."""
        n, p = self._sizes(case)
        between, inside = x.square + (p - 1) * x.within - p * x.across, x.square - x.within
        modes = ((n - 1, max(between, 0.0)), (n * (p - 1), max(inside, 0.0)))
        total = sum(count * size for count, size in modes)
        if total <= 0:
            raise NotImplementedError("the batch does not vary")
        return sum(count * size**2 for count, size in modes) / total**2

    def _inference(self, case: Case, signals: Sequence[Signal | None], x: Signal) -> Signal:
        mean = parameter(case, signals, 3, 0.0)
        centred = independent_sum(x, replace(mean, mean=-mean.mean))
        running = self._running(case)
        return scaled_and_shifted(case, signals, replace(centred.scaled(running), mean=centred.mean * running**0.5))

    @staticmethod
    def _running(case: Case) -> float:
        """E[1/(var + epsilon)] of the running variance."""
        var = case.values[4]
        if var is None:
            raise NotImplementedError("the running variance is not known")
        return float(np.mean(1.0 / (np.asarray(var, np.float64) + float(case.attributes["epsilon"]))))

    @staticmethod
    def _sizes(case: Case) -> tuple[int, int]:
        dims = dims_of(case)
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
    normalizes=True,
    flops=flops.made(2.0),
    vjp=_batch_vjp,
    range=_batch_range,
    norms=_batch_norms,
    tangent=_batch_tangent,
    moments=BatchMoments(),
    bodies=(Body("statistics", _train),),
    opens=lambda attributes: bool(attributes["training_mode"]),
    inference=Inference({"training_mode": 0}),
    untrained=(3, 4),
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
    unpredicted="it stands in gradients alone, which are predicted from the forward operators",
    domain=INTERNAL,
    bodies=(Body("three terms", _train_gradient),),
    infer=lambda g, x, scale, **_: (x, scale, scale),
    samples=(sample(("N", 3, 2), ("N", 3, 2), (3,), outputs=3, epsilon=0.1),),
)

ROWS = (BatchNormalization, BatchNormalizationGradient)
