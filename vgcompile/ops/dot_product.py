"""Scaled dot-product attention as models spell it out: P = softmax(cap(scale Q K^T) + bias), Y = P V (Vaswani et al. 2017).

    dV = P^T dY      dS = P * (dY V^T - rowsum(dY * Y))      dQ = scale dS K      dK = scale dS^T Q

The standard's Attention (attention.py) divides heads, builds masks and takes caches; this is what is left of it in a file that
holds it operator by operator, with the file's own layout of heads: leading axes broadcast as those of a product do. It is opened
again when the graph is written, in the very operators that the vjp starts from, so that the weights are computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.ops.attention_moments import Attended, Layout, bias_read, number
from vgcompile.ops.attention_weights import seen_by
from vgcompile.ops.dot_product_bounds import norms, tangent, value_range
from vgcompile.ops.linear import swapped
from vgcompile.ops.op import INTERNAL, Body, Case, Op, sample
from vgcompile.ops.shape import extents
from vgcompile.ops.tables import LOW
from vgcompile.signal import Signal


@dataclass(frozen=True)
class _Attending:
    """One node in the writing: what its forward body and its vjp both emit."""

    op: Any
    q: Any
    k: Any
    bias: Any = None
    hidden: Any = None
    scale: float = 1.0
    softcap: float = 0.0
    fill: float = -math.inf
    zero_rows: int = 0
    softmax_precision: int | None = None

    @cached_property
    def queries(self) -> Any:
        return self.scaled(self.q)

    def scaled(self, x: Any) -> Any:
        return x if self.scale == 1.0 else x * self.scale

    @cached_property
    def bend(self) -> Any:
        """tanh(s / cap), whose derivative is 1 - bend^2; None without a cap."""
        return self.op.Tanh(self._product * (1.0 / self.softcap)) if self.softcap else None

    @cached_property
    def weights(self) -> Any:
        op, scores = self.op, self._product if self.bend is None else self.bend * self.softcap
        if self.hidden is not None:
            scores = op.Where(self.hidden, self.fill, scores)
        if self.bias is not None:
            scores = scores + self.bias
        if self.softmax_precision is None:
            return self._softmax(scores)
        return op.Cast(self._softmax(op.Cast(scores, to=self.softmax_precision)), to=int(self.q.dtype))

    def adjoint_of_scores(self, dbiased: Any) -> Any:
        """From that of the scores with their bias. Behind a fill of -inf the weights are 0, and nothing is left to hide."""
        if self.hidden is not None and self.fill != -math.inf:
            dbiased = self.op.Where(self.hidden, 0.0, dbiased)
        return dbiased if self.bend is None else dbiased * (1.0 - self.bend * self.bend)

    @cached_property
    def _product(self) -> Any:
        return self.op.MatMul(self.queries, swapped(self.op, self.k))

    def _softmax(self, scores: Any) -> Any:
        return (self.op.MaskedSoftmax if self.zero_rows else self.op.Softmax)(scores, axis=-1)


def _attention(op: Any, q: Any, k: Any, v: Any, bias: Any = None, hidden: Any = None, **attributes: Any) -> Any:
    return op.MatMul(_Attending(op, q, k, bias, hidden, **attributes).weights, v)


def _attention_vjp(
    op: Any, g: Any, y: Any, q: Any, k: Any, v: Any, bias: Any = None, hidden: Any = None, **attributes: Any
) -> tuple[Any, ...]:
    """rowsum(dP * P) is rowsum(dY * Y), which is shorter (Dao 2022, FlashAttention)."""
    node = _Attending(op, q, k, bias, hidden, **attributes)
    along = op.ReduceSum(g * y, [-1], keepdims=1)
    dbiased = node.weights * (op.MatMul(g, swapped(op, v)) - along)
    dscores = node.adjoint_of_scores(dbiased)
    dq, dk = node.scaled(op.MatMul(dscores, k)), op.MatMul(swapped(op, dscores), node.queries)
    return dq, dk, op.MatMul(swapped(op, node.weights), g), None if bias is None else dbiased, None


def _like(q: Any, v: Any) -> Any:
    """A value in the shape of the output, whose leading axes are those of a product."""
    own, other = extents(q), extents(v)
    lead = [theirs if mine == 1 else mine for mine, theirs in zip(own[:-2], other[:-2], strict=True)]
    return ir.Value(shape=ir.Shape([*lead, own[-2], other[-1]]), type=q.type)


def _layout(case: Case, signals: Sequence[Signal | None]) -> Layout:
    """Where a condition hides keys, its value must be known; one that a run computes hides an unknown number of them."""
    q, k, v = (case.shapes[i] or () for i in range(3))
    queries, keys = number(q[-2]), number(k[-2])
    given = [i < len(case.shapes) and case.shapes[i] is not None for i in (3, 4)]
    hidden, fill = case.values[4] if given[1] else None, float(case.attributes.get("fill", -math.inf))
    if given[1] and (hidden is None or fill > LOW or (np.isfinite(fill) and hidden.all(-1).any())):
        raise NotImplementedError("which keys are hidden is known at run time only")
    low, bias = bias_read(case, signals, 3) if given[0] else (None, None)
    if low is not None:
        hidden = low if hidden is None else hidden | low
    lead = (case.outputs[0] or ())[:-2]
    groups = case.count(lead) / max(case.count(k[:-2]), 1)
    scale, cap = float(case.attributes.get("scale", 1.0)), float(case.attributes.get("softcap", 0.0))
    return Layout(queries, keys, number(q[-1]), number(v[-1]), groups, lead, scale, cap, seen_by(queries, keys, hidden), bias)


_HIDDEN = np.array([[False, True, True], [False, False, True]])
_HALF = ("N", 2, 2, 3)

# Raised from what a file spells out (graph/raising_attention.py); the file's own function, rows without a visible key included.
ScaledDotProductAttention = Op(
    "ScaledDotProductAttention",
    "softmax(cap(scale Q K^T) + bias) V on the last two axes, hidden scores filled before the bias.",
    averages=2,
    domain=INTERNAL,
    vjp=_attention_vjp,
    range=value_range,
    norms=norms,
    tangent=tangent,
    round=True,
    moments=Attended(_layout),
    bodies=(Body("written out", _attention),),
    infer=lambda q, k, v, *_, **__: _like(q, v),
    samples=(
        sample(_HALF, ("N", 2, 3, 3), ("N", 2, 3, 2), scale=0.6),
        sample(("N", "T", 3), ("N", "S", 3), ("N", "S", 2), ("T", "S")),
        sample(_HALF, ("N", 1, 3, 3), ("N", 1, 3, 2), (2, 1, 3), scale=0.5, softcap=1.5),
        sample(_HALF, ("N", 2, 3, 3), ("N", 2, 3, 2), None, _HIDDEN, scale=0.5),
        sample(_HALF, ("N", 2, 3, 3), ("N", 2, 3, 2), ("N", 1, 1, 3), _HIDDEN, fill=-3.0, softmax_precision=11),
        sample((2, 2, 3), (2, 3, 3), (2, 3, 2), None, np.array([[True] * 3, [False, True, False]]), zero_rows=1),
    ),
)  # fmt: skip

ROWS = (ScaledDotProductAttention,)
