"""Connectionist temporal classification (Graves et al. 2006): the loss of a label sequence whose places in time are not known.

    l1 l2        extended:  -  l1  -  l2  -          a path stays, goes on by one, or leaves out a blank between different labels
    alpha_t(s) = log p_t(s) + log(exp alpha_{t-1}(s) + exp alpha_{t-1}(s-1) [+ exp alpha_{t-1}(s-2)])            equation 6
    loss = -log(exp alpha_T(2l) + exp alpha_T(2l - 1))                                                           equation 8

The recursion is one Scan over time, in logarithms; its gradient is that of any Scan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vgcompile.layers.criterion import reduced

if TYPE_CHECKING:
    from vgcompile.graph.emit import Emitter

NEVER = -1e30  # the logarithm of a probability of 0, with which differences stay numbers


def ctc(op: Emitter, x: Any, labels: Any, reduction: str, *, blank: int = 0, logits: bool = True) -> Any:
    """The loss of logits (or logarithms of probabilities) [N, T, C] and labels [N, L], filled up with ``blank`` at the end.

    The mean divides by each sample's number of labels first. Labels that no path of T steps spells cost infinity.
    """
    steps, length = int(x.shape[1]), int(labels.shape[1])
    states = 2 * length + 1
    logs = op.LogSoftmax(x, axis=2) if logits else x
    extended = _extended(op, labels, blank, length)
    spread = op.Expand(op.Unsqueeze(extended, [1]), [1, steps, 1])
    last = _recursion(op, op.GatherElements(logs, spread, axis=2), extended, blank, states)
    present = op.Cast(op.Not(op.Equal(labels, np.asarray(blank, np.int64))), to=int(labels.dtype))
    count = op.ReduceSum(present, [1], keepdims=1)
    behind = op.Sub(op.Mul(count, np.asarray(2, np.int64)), np.arange(states, dtype=np.int64))  # 2l - s: 0 and 1 at the ends
    ends = op.And(op.GreaterOrEqual(behind, np.asarray(0, np.int64)), op.LessOrEqual(behind, np.asarray(1, np.int64)))
    total = op.ReduceLogSumExp(op.Where(ends, last, NEVER), [1], keepdims=0)
    loss = op.Where(op.Less(total, NEVER / 2), np.asarray(np.inf, op.dtype.numpy()), op.Neg(total))
    if reduction == "mean":
        shared = op.Cast(op.Max(op.Squeeze(count, [1]), np.asarray(1, np.int64)), to=int(op.dtype))
        loss = op.Div(loss, shared)
    return reduced(op, loss, reduction)


def _extended(op: Emitter, labels: Any, blank: int, length: int) -> Any:
    """[N, 2L + 1]: a blank before each label, and one behind them all."""
    one = op.Unsqueeze(labels, [2])
    blanks = op.Add(op.Sub(one, one), np.asarray(blank, np.int64))
    pairs = op.Reshape(op.Concat(blanks, one, axis=2), [0, 2 * length])
    first = op.Slice(op.Squeeze(blanks, [2]), [0], [1], [1])
    return op.Concat(pairs, first, axis=1)


def _recursion(op: Emitter, emitted: Any, extended: Any, blank: int, states: int) -> Any:
    """alpha of the last step, from the labels' log-probabilities [N, T, S]."""
    nothing = op.Cast(op.Sub(extended, extended), to=int(op.dtype))  # [N, S]
    start = op.Add(nothing, np.where(np.arange(states) == 0, 0.0, NEVER).astype(op.dtype.numpy()))  # before the first step
    missing = op.Add(op.Slice(nothing, [0], [2], [1]), NEVER)  # what would come from before the first state
    label = op.Not(op.Equal(extended, np.asarray(blank, np.int64)))
    earlier = op.Slice(op.Concat(op.Slice(extended, [0], [2], [1]), extended, axis=1), [0], [states], [1])
    leaps = op.And(label, op.Not(op.Equal(extended, earlier)))
    dims = [dim if isinstance(dim, int) else str(dim.value) for dim in extended.shape]
    with op.body((op.dtype, dims), (op.dtype, dims), name="step") as (inner, (alpha, logs)):
        padded = inner.Concat(missing, alpha, axis=1)
        by_one = inner.Slice(padded, [1], [states + 1], [1])
        by_two = inner.Where(leaps, inner.Slice(padded, [0], [states], [1]), NEVER)
        ways = inner.Concat(*(inner.Unsqueeze(way, [2]) for way in (alpha, by_one, by_two)), axis=2)
        inner.graph.outputs.append(inner.Add(inner.ReduceLogSumExp(ways, [2], keepdims=0), logs))
    return op.Scan(start, emitted, body=inner.graph, num_scan_inputs=1, scan_input_axes=[1])
