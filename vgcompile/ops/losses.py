"""Losses over classes. Their gradients are written from the logarithm of the probabilities, which the forward node saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from vgcompile import special
from vgcompile.ops import flops
from vgcompile.ops.op import Case, Op, sample
from vgcompile.ops.shape import extents, shaped
from vgcompile.signal import Signal


@dataclass(frozen=True)
class _Target:
    """What the labels say, against [N, C, ...]: the class of each position as a mask, whether it is ignored, and its weight.

    ``None``: nothing is ignored; every weight is 1.
    """

    hot: Any
    ignored: Any
    weight: Any

    def counted(self, op: Any, x: Any) -> Any:
        """``x``, and 0 where the label is ignored: not a product, for 0 * inf is no number."""
        return x if self.ignored is None else op.Where(self.ignored, 0.0, x)


def _target(op: Any, x: Any, labels: Any, weights: Any, ignore_index: int | None) -> _Target:
    """A label that is ignored need not name a class, and is not looked up."""
    kind = labels.dtype.numpy()
    spread = op.Unsqueeze(labels, [1])
    hot = op.Equal(spread, _names(op, x, labels))
    ignored = None if ignore_index is None else op.Equal(spread, np.asarray(ignore_index, kind))
    if weights is None:
        return _Target(hot, ignored, None)
    safe = spread if ignored is None else op.Where(ignored, np.zeros((), kind), spread)
    return _Target(hot, ignored, op.Gather(weights, safe, axis=0))


def _names(op: Any, x: Any, labels: Any) -> Any:
    """The numbers of the classes, along axis 1 of [N, C, ...]."""
    classes, along = extents(x)[1], [-1, *(1,) * (len(extents(x)) - 2)]
    if isinstance(classes, int):
        return np.arange(classes, dtype=labels.dtype.numpy()).reshape(along)
    count = op.Squeeze(op.Shape(x, start=1, end=2), [0])
    return op.CastLike(op.Reshape(op.Range(0, count, 1), along), labels)


def _coefficient(op: Any, g: Any, labels: Any, target: _Target, reduction: str) -> Any:
    """The adjoint of each position's loss, broadcasting against [N, C, ...]."""
    share = _share(op, g, labels, target, reduction)
    return target.counted(op, share if target.weight is None else share * target.weight)


def _share(op: Any, g: Any, labels: Any, target: _Target, reduction: str) -> Any:
    """The adjoint of a position of weight 1."""
    if reduction == "none":
        return op.Unsqueeze(g, [1])
    return g / _total_weight(op, labels, target, g) if reduction == "mean" else g


def _total_weight(op: Any, labels: Any, target: _Target, g: Any) -> Any:
    if target.weight is not None or target.ignored is not None:
        return op.ReduceSum(target.counted(op, 1.0 if target.weight is None else target.weight), keepdims=0)
    dims = extents(labels)
    if all(isinstance(dim, int) for dim in dims):
        return float(np.prod([int(dim) for dim in dims]))
    return op.Cast(op.Size(labels), to=int(g.dtype))


def _weights_vjp(op: Any, g: Any, log_prob: Any, labels: Any, target: _Target, reduction: str) -> Any:
    """Linear in the classes' weights but for the mean's divisor: dL/dw_c = sum (-log p_c - L) / W over its positions."""
    loss = op.Neg(log_prob)
    if reduction == "mean":
        weighted = target.counted(op, op.Where(target.hot, loss * target.weight, 0.0))
        loss = loss - op.ReduceSum(weighted, keepdims=0) / _total_weight(op, labels, target, g)
    part = op.Where(target.hot, loss * _share(op, g, labels, target, reduction), 0.0)
    return op.ReduceSum(target.counted(op, part), [0, *range(2, len(extents(log_prob)))], keepdims=0)


def _cross_entropy_vjp(
    op: Any, g: Any, y: Any, x: Any, labels: Any, weights: Any = None, *, reduction: str, ignore_index: int | None = None
) -> tuple[Any, ...]:
    """(p - onehot) times each position's adjoint; an adjoint h of log p itself adds h - p sum(h)."""
    log_prob, (loss, direct) = y[1], g if isinstance(g, tuple) else (g, None)
    p, terms, dweights = op.Exp(log_prob), [], None
    if loss is not None:
        target = _target(op, x, labels, weights, ignore_index)
        terms.append((p - op.Cast(target.hot, to=int(x.dtype))) * _coefficient(op, loss, labels, target, reduction))
        if weights is not None:
            dweights = _weights_vjp(op, loss, log_prob, labels, target, reduction)
    if direct is not None:
        terms.append(direct - p * op.ReduceSum(direct, [1], keepdims=1))
    return shaped(terms[0] if len(terms) == 1 else op.Add(*terms), x), None, dweights


def _likelihood_vjp(
    op: Any, g: Any, y: Any, x: Any, labels: Any, weights: Any = None, *, reduction: str, ignore_index: int | None = None
) -> tuple[Any, ...]:
    """x holds log p already: minus each position's adjoint, at its class."""
    target = _target(op, x, labels, weights, ignore_index)
    dx = op.Where(target.hot, op.Neg(_coefficient(op, g, labels, target, reduction)), 0.0)
    return shaped(dx, x), None, None if weights is None else _weights_vjp(op, g, x, labels, target, reduction)


def _classes(case: Case) -> dict[int, int]:
    """The labels name the scores' axis 1."""
    dims = case.shapes[0]
    return {1: dims[1]} if dims is not None and isinstance(dims[1], int) else {}


LARGEST_DRAW = 1 << 20


@lru_cache(maxsize=256)
def _two_samples(classes: int, variance: float, correlation: float, same: float) -> tuple[float, float]:
    """E[g g'] / E[g^2] and E[(g g')^2] / E[g^2]^2 of the adjoints of two samples, of the same class with probability ``same``.

    Their scores are Gaussian and correlate; a mean over a fixed set of draws, each with every pair of labels, is nothing random.
    """
    draws = max(min(512, LARGEST_DRAW // classes), 16)
    z = np.random.default_rng(0).standard_normal((3, draws, classes))
    shared, apart = math.sqrt(correlation * variance), math.sqrt((1.0 - correlation) * variance)
    p, q = (special.softmax(shared * z[0] + apart * own, axis=-1) for own in z[1:])
    # g g' = p q - p_b - q_a + [a = b] for the labels a and b
    both, squares = (p * q).sum(-1), ((p * p).sum(-1) + (q * q).sum(-1)) / 2.0
    every = classes**2 * ((both - 2.0 / classes) ** 2 + 2.0 * squares / classes - 2.0 / classes**2)
    sums = 2.0 * (squares + both)  # of (p_a + q_a)^2 over the classes
    alike = classes * both**2 - 4.0 * both + sums
    equal = (alike + 2.0 * (classes * both - 2.0) + classes) / classes
    different = (every - alike) / (classes * (classes - 1))
    mean = float((both - 2.0 / classes).mean()) + same
    length = float((squares - 2.0 / classes + 1.0).mean())
    square = float((same * equal + (1.0 - same) * different).mean())
    return mean / length, min(square / length**2, 1.0)


@dataclass(frozen=True)
class ClassLoss:
    """The adjoint of the scores, p - onehot, up to its length; labels are uniform over C classes, and two are
    the same as often as in the data, or independently.

    For small scores of C classes two samples of different classes have cosine -1/(C - 1), of the same class 1, so that E[cos^2]
    is 1/(C - 1). Larger ones that samples share make all of them guess the same class: their adjoints have that one in common.
    """

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        raise NotImplementedError("the loss itself is not predicted, only its gradient")

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        z = signals[0]
        if position != 0 or z is None:
            raise NotImplementedError("only the adjoint of the scores is predicted")
        classes = case.count((case.shapes[0] or ())[1:2])
        if classes < 2:
            raise NotImplementedError("a single class has no gradient")
        labels, found = signals[1], []
        for name in ("within", "across"):
            rho = (getattr(z, name) - z.mean**2) / z.variance if z.variance > 0 else 1.0
            same = getattr(labels, name) if labels is not None else 1.0 / classes
            found.append(_two_samples(classes, *(float(f"{max(x, 0.0):.6g}") for x in (z.variance, min(rho, 1.0), same))))
        within, across = found
        least = -1.0 / max(case.batch - 1, 1)  # no sum over the batch has a negative square
        return Signal(0.0, 1.0, within[0], max(across[0], least), alignment=across[1])


@dataclass(frozen=True)
class LabelLoss:
    """The adjoint of given log probabilities, minus a onehot, up to its length: of two samples the same entry with probability
    1/C, or none."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        raise NotImplementedError("the loss itself is not predicted, only its gradient")

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        if position != 0:
            raise NotImplementedError("only the adjoint of the log probabilities is predicted")
        same = 1.0 / max(case.count((case.shapes[0] or ())[1:2]), 1)
        return Signal(0.0, 1.0, same, same, alignment=same)


_LABELS = np.array([[0, 2], [1, 1], [3, 0]])
_SCORES = (
    sample((5, 4), np.array([0, 2, 1, 3, 3])),
    sample((3, 4), np.array([0, 3, 1]), reduction="sum", ignore_index=3),
    sample((3, 4, 2), _LABELS, np.array([0.5, 1.0, 2.0, 1.5]), reduction="none"),
    sample((3, 4, 2), _LABELS, (4,), domain=(0.5, 2.0), ignore_index=1),
    sample((5, "C"), np.array([0, 0, -2, 0, 0], np.int32), ignore_index=-2),
)

SoftmaxCrossEntropyLoss = Op(
    "SoftmaxCrossEntropyLoss",
    "Minus the logarithm of the softmax probability of the labelled class, weighted by class and averaged, summed or left alone.",
    flops=flops.read(flops.SOFTMAX),
    vjp=_cross_entropy_vjp,
    saved=(1,),
    moments=ClassLoss(),
    untrained=(2,),
    classes=_classes,
    samples=_SCORES,
)

NegativeLogLikelihoodLoss = Op(
    "NegativeLogLikelihoodLoss",
    "Minus the given logarithm of the probability of the labelled class, weighted by class and averaged, summed or left alone.",
    flops=flops.read(),
    vjp=_likelihood_vjp,
    moments=LabelLoss(),
    untrained=(2,),
    classes=_classes,
    samples=_SCORES,
)

ROWS = (SoftmaxCrossEntropyLoss, NegativeLogLikelihoodLoss)
