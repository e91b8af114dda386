"""Products of matrices, with what is fused to them, and distances."""

from __future__ import annotations

from typing import Any

from vgcompile.graph.contrib.forms import activated, covered, plus
from vgcompile.ops.op import Rule


def _matrix_product(
    op: Any, a: Any, b: Any, *, alpha: float = 1.0, transA: int = 0, transB: int = 0, transBatchA: int = 0, transBatchB: int = 0
) -> Any:
    product = op.MatMul(_turned(op, a, transA, transBatchA), _turned(op, b, transB, transBatchB))
    return product if alpha == 1.0 else product * alpha


def _turned(op: Any, x: Any, matrix: int, batch: int) -> Any:
    """Batch: the first axis stands behind the other batch axes. Matrix: the last two are exchanged."""
    order = list(range(len(x.shape)))
    if batch:
        order = [*order[1:-1], order[0], order[-1]]
    if matrix:
        order[-2:] = reversed(order[-2:])
    return x if order == sorted(order) else op.Transpose(x, perm=order)


def _activated_product(
    op: Any,
    a: Any,
    b: Any,
    *,
    activation: str,
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    activation_axis: int | None = None,
    **attributes: Any,
) -> Any:
    given = [p for p in (activation_alpha, activation_beta, activation_gamma) if p is not None]
    return activated(op, _matrix_product(op, a, b, **attributes), activation, given)


def _gemm(
    op: Any,
    a: Any,
    b: Any,
    c: Any = None,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    **attributes: Any,
) -> Any:
    given = [p for p in (activation_alpha, activation_beta, activation_gamma) if p is not None]
    return activated(op, op.Gemm(a, b, c, **attributes), activation, given)


def _distances(op: Any, a: Any, b: Any, *, metric: str = "sqeuclidean") -> Any:
    """Of each row of a from each row of b."""
    covered(metric in ("euclidean", "sqeuclidean"), f"its metric {metric} is not known; export it unfused")
    between = op.Sub(op.Unsqueeze(a, [1]), op.Unsqueeze(b, [0]))
    return op.emit("ReduceL2" if metric == "euclidean" else "ReduceSumSquare", between, [2], keepdims=0)


FORMULAS: dict[str, Rule] = {
    "FusedMatMul": _matrix_product,
    "TransposeMatMul": _matrix_product,
    "FusedMatMulActivation": _activated_product,
    "FusedGemm": _gemm,
    "GemmFastGelu": lambda op, x, w, bias=None: op.Gelu(plus(op.MatMul(x, w), bias), approximate="tanh"),
    "CDist": _distances,
}
