"""Losses as formulas: an output and a target of suitable shapes to one number, for a YAML loss and for one attached to a file.

Each takes ``(op, x, target, reduction)``; ``reduction`` is ``mean`` or ``sum`` over all that is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from vgcompile.graph.emit import Emitter

Criterion = Callable[["Emitter", "ir.Value", "ir.Value", str], "ir.Value"]


def _reduced(op: Emitter, x: Any, reduction: str) -> Any:
    return op.ReduceMean(x, keepdims=0) if reduction == "mean" else op.ReduceSum(x, keepdims=0)


def cross_entropy(op: Emitter, logits: Any, labels: Any, reduction: str) -> Any:
    """-log softmax(x)[target] over axis 1: logits [N, C, ...], class numbers [N, ...]."""
    return op.SoftmaxCrossEntropyLoss(logits, labels, reduction=reduction)


def mse(op: Emitter, x: Any, target: Any, reduction: str) -> Any:
    """(x - target)^2."""
    error = op.Sub(x, target)
    return _reduced(op, op.Mul(error, error), reduction)


def mae(op: Emitter, x: Any, target: Any, reduction: str) -> Any:
    """|x - target|."""
    return _reduced(op, op.Abs(op.Sub(x, target)), reduction)


def huber(op: Emitter, x: Any, target: Any, reduction: str) -> Any:
    """e^2 / 2 for |e| <= 1, else |e| - 1/2, with e = x - target: c (|e| - c / 2) with c = min(|e|, 1)."""
    error = op.Abs(op.Sub(x, target))
    near = op.Min(error, 1.0)
    return _reduced(op, op.Mul(near, op.Sub(error, op.Mul(near, 0.5))), reduction)


def binary_cross_entropy(op: Emitter, logits: Any, target: Any, reduction: str) -> Any:
    """log(1 + exp(x)) - x target, for logits x and targets in [0, 1]: -log sigmoid(x) for target 1."""
    return _reduced(op, op.Sub(op.Softplus(logits), op.Mul(logits, target)), reduction)


CRITERIA: Mapping[str, Criterion] = {
    "cross_entropy": cross_entropy,
    "mse": mse,
    "mae": mae,
    "huber": huber,
    "binary_cross_entropy": binary_cross_entropy,
}
