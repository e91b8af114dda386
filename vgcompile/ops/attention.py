"""Scaled dot product attention: P = softmax(scale Q K^T + bias), Y = P V.

    dV = P^T dY      dP = dY V^T      dS = P * (dP - rowsum(dY * Y))      dQ = scale dS K      dK = scale dS^T Q

rowsum(dP * P) is rowsum(dY * Y), which is shorter (Dao 2022, FlashAttention). P is computed again. Where queries share the heads
of keys, those that share one are rows of one matrix, so that the products sum over them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from vgcompile.interval import WHOLE, Interval, corners, interval, point
from vgcompile.ops import flops
from vgcompile.ops.attention_mask import bias_of, full_mask, sees_a_key, visible
from vgcompile.ops.attention_moments import Attended, Layout, bias_read, number
from vgcompile.ops.attention_weights import seen_by
from vgcompile.ops.cutting import bound_of
from vgcompile.ops.normalization import added, adjoints_of
from vgcompile.ops.op import Array, Attributes, Case, Dim, Op, sample
from vgcompile.ops.shape import extents, shaped, sized
from vgcompile.signal import Signal

SWAPPED = [0, 1, 3, 2]


@dataclass(frozen=True)
class Heads:
    """How queries and keys are divided into heads, and the two layouts of what belongs to queries.

    By head: [batch, q heads, queries, ...]. By key head: [batch, kv heads, queries of all heads that share one, ...].
    """

    op: Any
    q: Any
    k: Any
    queries: Dim
    keys: Dim

    @property
    def shared(self) -> bool:
        return self.queries != self.keys

    def split(self, x: Any, heads: Dim) -> Any:
        """[batch, length, heads * size] as [batch, heads, length, size]."""
        if len(x.shape) == 4:
            return x
        width = extents(x)[2]
        size = width // int(heads) if isinstance(width, int) else -1
        return self.op.Transpose(self.op.Reshape(x, [0, 0, heads, size]), perm=[0, 2, 1, 3])

    def joined(self, x: Any, like: Any) -> Any:
        """The reverse: in the shape of an input."""
        if len(like.shape) == 4:
            return shaped(x, like)
        width = extents(like)[2]
        rows = self.op.Transpose(x, perm=[0, 2, 1, 3])
        return shaped(self.op.Reshape(rows, [0, 0, width if isinstance(width, int) else -1]), like)

    def by_key_head(self, x: Any) -> Any:
        batch, length = extents(self.q)[0], extents(self.q)[-2]
        known = all(isinstance(n, int) for n in (length, self.queries, self.keys))
        rows = int(length) * int(self.queries) // int(self.keys) if known else f"{self.q.name}.rows" if self.shared else length
        return sized(self._regrouped(x, self.keys, self.k), (batch, self.keys, rows, extents(x)[-1]))

    def by_head(self, x: Any) -> Any:
        dims = extents(self.q)
        return sized(self._regrouped(x, self.queries, self.q), (dims[0], self.queries, dims[-2], extents(x)[-1]))

    def _regrouped(self, x: Any, heads: Dim, like: Any) -> Any:
        if not self.shared:
            return x
        if isinstance(heads, int):
            return self.op.Reshape(x, [0, heads, -1, 0])
        return self.op.Reshape(x, self.op.Concat([0], self.op.Shape(like, start=1, end=2), [-1, 0], axis=0))


def _heads(op: Any, q: Any, k: Any, attributes: Attributes) -> Heads:
    given = len(q.shape) == 3
    queries = attributes["q_num_heads"] if given else extents(q)[1]
    return Heads(op, q, k, queries, attributes["kv_num_heads"] if given else extents(k)[1])


class Scores:
    """Scores and weights of a node, computed again: queries, weights and their adjoints by key head, the bias by head."""

    def __init__(self, heads: Heads, keys: Any, bias: Any, safe: bool, attributes: Attributes) -> None:
        op = heads.op
        self.op, self.heads, self.bias = op, heads, bias
        self.mode, self.cap = int(attributes["qk_matmul_output_mode"]), float(attributes["softcap"])
        split = heads.split(heads.q, heads.queries)
        self.scale = _scale(op, split, attributes["scale"])
        self.queries = heads.by_key_head(split) * self.scale
        raw = op.MatMul(self.queries, op.Transpose(keys, perm=SWAPPED))
        self.bend = op.Tanh(raw * (1.0 / self.cap)) if self.cap else None
        scores = raw if self.bend is None else self.bend * self.cap
        self.weights = self._weights(scores, safe, attributes["softmax_precision"])

    def _weights(self, scores: Any, safe: bool, precision: int | None) -> Any:
        """A row in which every key is hidden has the weights 0: its softmax would be 0 / 0, and is that of the scores alone."""
        op, bias, dead = self.op, self.bias, None
        if bias is not None:
            if not safe:
                dead = op.Equal(op.ReduceMax(bias, [-1], keepdims=1), -math.inf)
                bias = op.Where(dead, 0.0, bias)
            scores = self.heads.by_head(scores) + bias
        if precision is not None and precision != int(scores.dtype):
            weights = op.Cast(op.Softmax(op.Cast(scores, to=precision), axis=-1), to=int(scores.dtype))
        else:
            weights = op.Softmax(scores, axis=-1)
        if dead is not None:
            weights = op.Where(dead, 0.0, weights)
        return weights if bias is None else self.heads.by_key_head(weights)

    def adjoint(self, dy: Any, y: Any, values: Any, shown: Any) -> tuple[Any, Any]:
        """Of the scores and of the bias, from the adjoints of Y and of the scores that the node shows, at the stage that it
        shows them; a hidden score is shown as minus infinity, and nothing flows through it."""
        op = self.op
        if shown is not None and self.mode == 2 and self.bias is not None:
            shown = op.Where(op.Equal(self.bias, -math.inf), 0.0, shown)
        shown = None if shown is None else self.heads.by_key_head(shown)
        at = [shown if self.mode == stage else None for stage in range(4)]
        dweights = None if dy is None else op.MatMul(dy, op.Transpose(values, perm=SWAPPED))
        through = self.weights * at[3] if at[3] is not None else None
        total = added(
            [
                None if dy is None else op.ReduceSum(dy * y, [-1], keepdims=1),
                None if through is None else op.ReduceSum(through, [-1], keepdims=1),
            ]
        )
        dweights = added([dweights, at[3]])
        dbias = added([None if dweights is None else self.weights * (dweights - total), at[2]])
        dscores = added([dbias, at[1]])
        if self.bend is not None and dscores is not None:
            dscores = dscores * (1.0 - self.bend * self.bend)
        return added([dscores, at[0]]), dbias


def _scale(op: Any, q: Any, scale: float | None) -> Any:
    size = extents(q)[3]
    if scale is not None:
        return float(scale)
    return size**-0.5 if isinstance(size, int) else op.Pow(op.Cast(op.Shape(q, start=3, end=4), to=int(q.dtype)), -0.5)


def _attention_vjp(
    op: Any,
    g: Any,
    y: Any,
    q: Any,
    k: Any,
    v: Any,
    mask: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    valid: Any = None,
    **attributes: Any,
) -> tuple[Any, ...]:
    g, dkeys, dvalues, dshown = adjoints_of(g, 4)
    outputs, heads = y if isinstance(y, tuple) else (y,), _heads(op, q, k, attributes)
    keys = _with_past(op, past_key, heads.split(k, heads.keys))
    dmask = dq = None
    if g is not None or dshown is not None:
        whole = None if mask is None else full_mask(op, mask, keys)
        bias = bias_of(op, whole, visible(op, q, keys, past_key, valid, attributes))
        scores = Scores(heads, keys, bias, sees_a_key(q, k, past_key, mask, valid, attributes), attributes)
        dy, by = (None if g is None else heads.by_key_head(heads.split(x, heads.queries)) for x in (g, outputs[0]))
        if dy is not None:
            dvalues = added([op.MatMul(op.Transpose(scores.weights, perm=SWAPPED), dy), dvalues])
        dscores, dbias = scores.adjoint(dy, by, _with_past(op, past_value, heads.split(v, heads.keys)), dshown)
        if mask is not None and mask.dtype.is_floating_point() and dbias is not None:
            dmask = _cut(op, heads.by_head(dbias), whole, mask)
        dq = heads.joined(heads.by_head(op.MatMul(dscores, keys) * scores.scale), q)
        dkeys = added([op.MatMul(op.Transpose(dscores, perm=SWAPPED), scores.queries), dkeys])
    dpast_key, dk = _parted(op, dkeys, past_key, k, heads)
    dpast_value, dv = _parted(op, dvalues, past_value, v, heads)
    return dq, dk, dv, dmask, dpast_key, dpast_value, None


def _with_past(op: Any, past: Any, new: Any) -> Any:
    return new if past is None else op.Concat(past, new, axis=2)


def _parted(op: Any, adjoint: Any, past: Any, new: Any, heads: Heads) -> tuple[Any, Any]:
    """The adjoints of the past and of the new keys, which lie behind it."""
    if adjoint is None:
        return None, None
    if past is None:
        return None, heads.joined(adjoint, new)
    lengths = [extents(past)[2], extents(new)[-2]]
    if any(isinstance(length, str) for length in lengths):
        lengths = op.Concat(op.Shape(past, start=2, end=3), op.Shape(new, start=-2, end=-1), axis=0)
    before, after = op.Split(adjoint, lengths, axis=2, outputs=2)
    return shaped(before, past), heads.joined(after, new)


def _cut(op: Any, adjoint: Any, whole: Any, mask: Any) -> Any:
    """What the mask itself holds of the whole mask's adjoint, in the mask's type."""
    if whole is not mask:
        length, dims = extents(mask)[-1], extents(adjoint)
        end = [length] if isinstance(length, int) else op.Shape(mask, start=-1)
        adjoint = sized(op.Slice(adjoint, [0], end, [-1]), (*dims[:-1], length))
    return adjoint if adjoint.dtype == mask.dtype else op.Cast(adjoint, to=int(mask.dtype))


def _range(case: Case) -> tuple[Interval, ...]:
    """Each output is an average of values, or 0."""
    keys, values = (_hull(case, new, past) for new, past in ((1, 4), (2, 5)))
    hull = values.hull(point(0.0))
    wide = corners(np.multiply, [hull, interval(1.0, 1.0 + 1e-12)])
    return (wide, keys, values, WHOLE)[: len(case.outputs)]


def _hull(case: Case, *positions: int) -> Interval:
    """Of what is known of inputs, those left out that are absent."""
    given = [bound_of(case, i).scalar() for i in positions if i < len(case.shapes) and case.shapes[i] is not None]
    return reduce(Interval.hull, given)


def _refuses(case: Case) -> str:
    mask, k, past = ((case.shapes[i] if i < len(case.shapes) else None) for i in (3, 1, 4))
    if mask is None or k is None or not mask or mask[-1] != 1:
        return ""
    return (
        "" if past is None and k[-2] == 1 else "a mask of extent 1 along the keys may be meant for all of them or for the first"
    )


def _layout(case: Case, signals: Sequence[Signal | None]) -> Layout:
    given = [i < len(case.shapes) and case.shapes[i] is not None for i in range(7)]
    if any(given[4:]) or max(int(case.attributes.get(f"{side}_window_size", -1)) for side in ("left", "right")) >= 0:
        raise NotImplementedError("caches and windows of keys are not predicted")
    q, k, v = (case.shapes[i] or () for i in range(3))
    heads = [int(case.attributes.get(f"{side}_num_heads") or 0) for side in ("q", "kv", "kv")]
    counts, sizes = zip(*(_divided(dims, n) for dims, n in zip((q, k, v), heads, strict=True)), strict=True)
    queries, keys = number(q[-2]), number(k[-2])
    hidden, bias = _mask(case, signals) if given[3] else (None, None)
    if case.attributes["is_causal"]:
        late = np.arange(keys)[None, :] > np.arange(queries)[:, None]
        hidden = late if hidden is None else hidden | late
    scale, cap = case.attributes["scale"] or 1.0 / math.sqrt(sizes[0]), float(case.attributes["softcap"])
    seen = seen_by(queries, keys, hidden)
    lead, groups = (q[0], counts[0]), counts[0] / max(counts[1], 1)
    return Layout(queries, keys, sizes[0], sizes[2], groups, lead, float(scale), cap, seen, bias)


def _divided(dims: Sequence[Dim], heads: int) -> tuple[int, int]:
    """Heads and entries of a head, of [batch, heads, length, size] or [batch, length, heads * size]."""
    if len(dims) == 4:
        return number(dims[1]), number(dims[3])
    return heads, number(dims[2]) // max(heads, 1)


def _mask(case: Case, signals: Sequence[Signal | None]) -> tuple[Array | None, Signal | None]:
    """What is hidden, and what is added: a mask of conditions, one with minus infinity in it, or numbers."""
    value = case.values[3]
    return (~value, None) if value is not None and value.dtype == bool else bias_read(case, signals, 3)


def _self(*dims: Dim) -> tuple[tuple[Dim, ...], ...]:
    return (dims,) * 3


_SEEN = np.array([[True, False, False], [False, False, False], [True, True, False], [False, True, True]])
_CACHED: Any = (("N", 4, "T", 4), ("N", 2, 3, 4), ("N", 2, 3, 5))
_PACKED: dict[str, Any] = {"q_num_heads": 4, "kv_num_heads": 2}

Attention = Op(
    "Attention",
    "softmax(scale Q K^T + bias) V; a query that sees no key gives 0, and nothing flows through it.",
    averages=2,
    flops=flops.attention,
    vjp=_attention_vjp,
    range=_range,
    moments=Attended(_layout),
    refuses=_refuses,
    samples=(
        sample(*_self(2, 2, 3, 4)),
        sample(*_self("N", 2, "T", 4), is_causal=1),
        sample(("N", 2, "T", 4), ("N", 2, "S", 4), ("N", 2, "S", 3), ("T", "S"), scale=0.3),
        sample(("N", 2, "T", "D"), ("N", 2, "S", "D"), ("N", 2, "S", 3), softcap=1.5),
        sample(("N", 4, 4, 3), ("N", 2, 3, 3), ("N", 2, 3, 5), _SEEN),
        sample(("N", 4, "T", 3), ("N", 1, "S", 3), ("N", 1, "S", 5), (4, 1, "S"), left_window_size=1, right_window_size=2),
        sample(("N", "T", 8), ("N", "S", 4), ("N", "S", 6), **_PACKED),
        sample((2, 3, 8), (2, 3, 4), (2, 3, 4), (2, 4, 3, 3), softcap=2.0, is_causal=1, softmax_precision=11, **_PACKED),
        sample(*_CACHED, ("T", 5), ("N", 2, 2, 4), ("N", 2, 2, 5), is_causal=1, outputs=3),
        sample(("N", 3, 8), ("N", 3, 4), ("N", 3, 4), None, ("N", 2, 2, 2), ("N", 2, 2, 2), outputs=4, **_PACKED),
        sample((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4), (3, 4), None, None, np.array([4, 2]), is_causal=1),
        sample((2, 2, "T", 4), (2, 2, "T", 4), (2, 2, "T", 4), None, None, None, np.array([1, 0]), left_window_size=2),
        *(sample(("N", 4, 2, 3), ("N", 2, 2, 3), ("N", 2, 2, 2), (2, 3), ("N", 2, 1, 3), ("N", 2, 1, 2), softcap=1.5, outputs=4,
                 qk_matmul_output_mode=mode)
          for mode in range(4)),
    ),
)  # fmt: skip

ROWS = (Attention,)
