"""Losses as formulas: an output and a target of suitable shapes to one number, for a YAML loss and for one attached to a file.

Each takes ``(op, x, target, reduction)`` and options of its own; ``reduction`` is ``mean`` or ``sum`` over all that is compared:
elements, or the positions that have a class or a distribution. Scalars and weights are of the emitter's working type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from vgcompile.graph.emit import Emitter

Criterion = Callable[["Emitter", "ir.Value", "ir.Value", str], "ir.Value"]
SMALLEST_SQUARE = 1e-12  # PyTorch's, in cosine_embedding_loss: what keeps the cosine of a vector of zeros a number


def reduced(op: Emitter, x: Any, reduction: str) -> Any:
    return op.ReduceMean(x, keepdims=0) if reduction == "mean" else op.ReduceSum(x, keepdims=0)


def classes_second(op: Emitter, x: Any, axis: int) -> Any:
    """``x`` with its axis of classes second, where ONNX's losses read it; the others keep their order."""
    rank = len(x.shape)
    axis %= rank
    if axis == 1:
        return x
    order = [0, axis, *(i for i in range(1, rank) if i != axis)] if axis else [1, 0, *range(2, rank)]
    return op.Transpose(x, perm=order)


def cross_entropy(
    op: Emitter,
    logits: Any,
    labels: Any,
    reduction: str,
    *,
    class_axis: int = 1,
    class_weights: Sequence[float] | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Any:
    """-w_t log softmax(x)_t for logits [N, C, ...] and class numbers t [N, ...]; the mean is over the sum of the weights w_t.

    Smoothed by e (Szegedy et al. 2016, section 7) the target is (1 - e) onehot(t) + e / C, each class counting with its own
    weight and the mean dividing as before, as in PyTorch. Labels ``ignore_index`` count nowhere.
    """
    logits, weights = classes_second(op, logits, class_axis), _vector(op, class_weights)
    given = {"reduction": reduction, "ignore_index": ignore_index}
    if not label_smoothing:
        return op.SoftmaxCrossEntropyLoss(logits, labels, weights, **given)
    sharp, logs = op.SoftmaxCrossEntropyLoss(logits, labels, weights, outputs=2, **given)
    spread = logs if weights is None else op.Mul(logs, _along(op, weights, len(logits.shape)))
    even = op.Neg(op.ReduceMean(spread, [1], keepdims=0))
    ignored = None if ignore_index is None else op.Equal(labels, np.asarray(ignore_index, labels.dtype.numpy()))
    smooth = _over_labels(op, even, labels, weights, ignored, reduction)
    return op.Add(op.Mul(sharp, 1.0 - label_smoothing), op.Mul(smooth, label_smoothing))


def _over_labels(op: Emitter, x: Any, labels: Any, weights: Any, ignored: Any, reduction: str) -> Any:
    """What each position adds, summed, or over the sum of the labels' weights; without the positions that are ignored."""
    if ignored is None and weights is None:
        return reduced(op, x, reduction)
    total = op.ReduceSum(x if ignored is None else op.Where(ignored, 0.0, x), keepdims=0)
    if reduction == "sum":
        return total
    known = labels if ignored is None else op.Where(ignored, np.zeros((), labels.dtype.numpy()), labels)
    counts: Any = 1.0 if weights is None else op.Gather(weights, known, axis=0)
    return op.Div(total, op.ReduceSum(counts if ignored is None else op.Where(ignored, 0.0, counts), keepdims=0))


def soft_cross_entropy(
    op: Emitter,
    logits: Any,
    target: Any,
    reduction: str,
    *,
    class_axis: int = 1,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> Any:
    """-sum_c w_c t_c log softmax(x)_c for targets t of the logits' shape, probabilities along the class axis."""
    logs, weights = op.LogSoftmax(logits, axis=class_axis), _vector(op, class_weights)
    if label_smoothing:
        target = op.Add(op.Mul(target, 1.0 - label_smoothing), label_smoothing / int(logits.shape[class_axis]))
    if weights is not None:
        target = op.Mul(target, _along(op, weights, len(logits.shape), class_axis))
    return reduced(op, op.Neg(op.ReduceSum(op.Mul(target, logs), [class_axis], keepdims=0)), reduction)


def nll(
    op: Emitter,
    x: Any,
    labels: Any,
    reduction: str,
    *,
    class_axis: int = 1,
    class_weights: Sequence[float] | None = None,
    ignore_index: int | None = None,
) -> Any:
    """-w_t x_t, for x that holds logarithms of probabilities already; reduced as ``cross_entropy`` is."""
    x = classes_second(op, x, class_axis)
    return op.NegativeLogLikelihoodLoss(x, labels, _vector(op, class_weights), reduction=reduction, ignore_index=ignore_index)


def kl(op: Emitter, x: Any, target: Any, reduction: str, *, class_axis: int = -1, logits: bool = True) -> Any:
    """sum_c t_c (log t_c - log p_c), with 0 log 0 = 0; p = softmax(x), or exp(x) without ``logits``.

    The mean is over distributions, PyTorch's ``batchmean`` for [N, C].
    """
    logs = op.LogSoftmax(x, axis=class_axis) if logits else x
    present = op.Where(op.Greater(target, 0.0), target, 1.0)
    parts = op.Mul(target, op.Sub(op.Log(present), logs))
    return reduced(op, op.ReduceSum(parts, [class_axis], keepdims=0), reduction)


def mse(op: Emitter, x: Any, target: Any, reduction: str) -> Any:
    """(x - target)^2."""
    error = op.Sub(x, target)
    return reduced(op, op.Mul(error, error), reduction)


def mae(op: Emitter, x: Any, target: Any, reduction: str) -> Any:
    """|x - target|."""
    return reduced(op, op.Abs(op.Sub(x, target)), reduction)


def huber(op: Emitter, x: Any, target: Any, reduction: str, *, delta: float = 1.0) -> Any:
    """e^2 / 2 for |e| <= d, else d (|e| - d / 2), with e = x - target (Huber 1964): c (|e| - c / 2) with c = min(|e|, d)."""
    error = op.Abs(op.Sub(x, target))
    near = op.Min(error, delta)
    return reduced(op, op.Mul(near, op.Sub(error, op.Mul(near, 0.5))), reduction)


def binary_cross_entropy(
    op: Emitter, logits: Any, target: Any, reduction: str, *, pos_weight: float | Sequence[float] | None = None
) -> Any:
    """-p t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)), for logits x and targets t in [0, 1].

    That is log(1 + exp(x)) - x t or, with ``pos_weight`` p, one number or one for each entry of the last axis,
    (1 - t) x + (1 + (p - 1) t) log(1 + exp(-x)).
    """
    if pos_weight is None:
        return reduced(op, op.Sub(op.Softplus(logits), op.Mul(logits, target)), reduction)
    more = np.asarray(pos_weight, op.dtype.numpy()) - np.asarray(1.0, op.dtype.numpy())
    positive = op.Add(op.Mul(target, more), 1.0)
    parts = op.Add(op.Mul(op.Sub(1.0, target), logits), op.Mul(positive, op.Softplus(op.Neg(logits))))
    return reduced(op, parts, reduction)


def hinge(op: Emitter, x: Any, target: Any, reduction: str, *, margin: float = 1.0, power: int = 1) -> Any:
    """max(0, margin - t x)^power, for targets t of -1 and 1."""
    return reduced(op, _power(op, op.Relu(op.Sub(margin, op.Mul(target, x))), power), reduction)


def class_hinge(
    op: Emitter,
    x: Any,
    labels: Any,
    reduction: str,
    *,
    class_axis: int = 1,
    class_weights: Sequence[float] | None = None,
    margin: float = 1.0,
    power: int = 1,
) -> Any:
    """w_t sum_{c != t} max(0, margin - x_t + x_c)^power / C: PyTorch's MultiMarginLoss (Weston and Watkins 1999)."""
    x, rank, kind = classes_second(op, x, class_axis), len(x.shape), labels.dtype.numpy()
    count = int(x.shape[1])
    numbers = np.arange(count, dtype=kind).reshape(-1, *(1,) * (rank - 2))
    mine = op.Equal(op.Unsqueeze(labels, [1]), numbers)
    score = op.ReduceSum(op.Where(mine, x, 0.0), [1], keepdims=1)
    beyond = _power(op, op.Relu(op.Add(op.Sub(x, score), margin)), power)
    parts = op.ReduceMean(op.Where(mine, 0.0, beyond), [1], keepdims=0)
    if class_weights is not None:
        parts = op.Mul(parts, op.Gather(_vector(op, class_weights), labels, axis=0))
    return reduced(op, parts, reduction)


def cosine(op: Emitter, x: Any, target: Any, reduction: str, *, axis: int = -1) -> Any:
    """1 - cos(x, target), of vectors along ``axis``."""
    return reduced(op, op.Sub(1.0, _cosine(op, x, target, axis)), reduction)


def cosine_of_pairs(op: Emitter, pair: Sequence[Any], alike: Any, reduction: str, *, axis: int = -1, margin: float = 0.0) -> Any:
    """1 - cos(a, b) where ``alike`` is 1, max(0, cos(a, b) - margin) where it is 0: PyTorch's CosineEmbeddingLoss, its -1 a 0."""
    a, b = pair
    near = _cosine(op, a, b, axis)
    apart = op.Relu(op.Sub(near, margin))
    return reduced(op, op.Where(op.Equal(alike, np.ones((), alike.dtype.numpy())), op.Sub(1.0, near), apart), reduction)


def _cosine(op: Emitter, a: Any, b: Any, axis: int) -> Any:
    product, *squares = (op.ReduceSum(op.Mul(u, v), [axis], keepdims=0) for u, v in ((a, b), (a, a), (b, b)))
    lengths = op.Mul(*(op.Add(square, SMALLEST_SQUARE) for square in squares))
    return op.Div(product, op.Sqrt(lengths))


def _power(op: Emitter, x: Any, power: int) -> Any:
    return x if power == 1 else op.Mul(x, x)


def _vector(op: Emitter, weights: Sequence[float] | None) -> Any:
    return None if weights is None else op.constant(np.asarray(weights, op.dtype.numpy()))


def _along(op: Emitter, weights: Any, rank: int, axis: int = 1) -> Any:
    """The classes' weights, broadcasting along the class axis of [..., C, ...]."""
    after = rank - 1 - axis % rank
    return op.Reshape(weights, [-1, *(1,) * after]) if after else weights


CRITERIA: Mapping[str, Criterion] = {
    "cross_entropy": cross_entropy,
    "mse": mse,
    "mae": mae,
    "huber": huber,
    "binary_cross_entropy": binary_cross_entropy,
}
