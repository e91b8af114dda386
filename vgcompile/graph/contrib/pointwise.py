"""Activations, biases, gates."""

from __future__ import annotations

from typing import Any

from vgcompile.graph.contrib.forms import covered, plus
from vgcompile.ops.op import Rule


def _bias_softmax(op: Any, x: Any, bias: Any, *, axis: int = 1, is_inner_broadcast: int = 0) -> Any:
    """The softmax is over all axes from ``axis`` on; the bias misses axes before it, or (inner) repeats along some."""
    rank = len(x.shape)
    missing = rank - len(bias.shape)
    if missing and not is_inner_broadcast:
        bias = op.Unsqueeze(bias, list(range(1, 1 + missing)))
    total = x + bias
    if axis % rank == rank - 1:
        return op.Softmax(total, axis=-1)
    return op.Reshape(op.Softmax(op.Flatten(total, axis=axis % rank), axis=-1), op.Shape(total))


def _bias_split_gelu(op: Any, x: Any, bias: Any) -> Any:
    """The left half times the GELU of the right one."""
    left, right = op.Split(x + bias, num_outputs=2, axis=-1, outputs=2)
    return left * op.Gelu(right, approximate="none")


def _scaled_silu(op: Any, x: Any, scale: Any = None, *, alpha: float = 1.0) -> Any:
    return op.Swish(x * (alpha if scale is None else op.CastLike(scale, x)))


def _gated_sum(op: Any, x: Any, y: Any, gate: Any, weight: Any = None) -> Any:
    covered(weight is None, "it projects its gate inside, rounded to 16 bits four times; export it unfused")
    return x + y * gate


FORMULAS: dict[str, Rule] = {
    "Gelu": lambda op, x: op.Gelu(x, approximate="none"),
    "FastGelu": lambda op, x, bias=None: op.Gelu(plus(x, bias), approximate="tanh"),
    "BiasGelu": lambda op, x, bias: op.Gelu(x + bias, approximate="none"),
    "QuickGelu": lambda op, x, *, alpha=1.702: op.Swish(x, alpha=alpha),
    "ScaledSiLU": _scaled_silu,
    "BiasAdd": lambda op, x, bias, skip: plus(x, bias, skip),
    "BiasSplitGelu": _bias_split_gelu,
    "BiasSoftmax": _bias_softmax,
    "GatedAdd": _gated_sum,
}
