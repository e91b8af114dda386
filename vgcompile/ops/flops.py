"""Floating-point operations of one forward node: what a row's ``flops`` is made of.

A multiplication, an addition, a comparison and a function of one number count as one each, so that a multiply-add is two; papers
that count multiply-adds state half of it. Padding counts as if it were data. A symbolic extent counts as the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from vgcompile.ops.op import Case

Flops = Callable[[Case], float]


def none(case: Case) -> float:
    """Elements are moved or made, not computed with."""
    return 0.0


def read(times: float = 1.0) -> Flops:
    """So many for each element of the first input: a fold."""
    return lambda case: times * case.count(case.shapes[0])


def made(times: float = 1.0) -> Flops:
    """So many for each element of the output."""
    return lambda case: times * case.count(case.outputs[0])


SOFTMAX = 5.0  # greatest element, difference, exponential, sum, quotient
NORMALIZATION = 7.0  # mean, difference, square, its mean, quotient, scale, bias


def _bias(case: Case, position: int) -> float:
    given = len(case.shapes) > position and case.shapes[position] is not None
    return float(case.count(case.outputs[0])) if given else 0.0


def product(case: Case) -> float:
    """A multiply-add for each output and term of its sum (MatMul, Gemm), and the bias."""
    rows = case.shapes[0] or ()
    terms = rows[-2] if case.attributes.get("transA", 0) else rows[-1]
    return 2.0 * case.count(case.outputs[0]) * case.count((terms,)) + _bias(case, 2)


def convolution(case: Case) -> float:
    """A multiply-add for each output and each entry of the kernel [filters, channels / groups, *taps] that makes it."""
    kernel = case.shapes[1] or ()
    return 2.0 * case.count(case.outputs[0]) * case.count(kernel[1:]) + _bias(case, 2)


def transposed_convolution(case: Case) -> float:
    """A multiply-add for each input and each entry of the kernel [channels, filters / groups, *taps] that spreads it."""
    kernel = case.shapes[1] or ()
    return 2.0 * case.count(case.shapes[0]) * case.count(kernel[1:]) + _bias(case, 2)


def pool(case: Case) -> float:
    """Every tap of every window."""
    return float(case.count(case.outputs[0])) * math.prod(case.attributes["kernel_shape"])


def attention(case: Case) -> float:
    """Scores, their softmax and the mean of the values, over all keys: what a causal mask hides is counted too."""
    query, key, value = (case.shapes[i] or () for i in range(3))
    heads = query[1] if len(query) == 4 else case.attributes["q_num_heads"]
    key_heads = key[1] if len(key) == 4 else case.attributes["kv_num_heads"]
    width, depth = (x[-1] if len(x) == 4 else case.count(x[-1:]) // case.count((key_heads,)) for x in (key, value))
    past = case.shapes[4] if len(case.shapes) > 4 else None
    keys = case.count(key[-2:-1]) + (0 if past is None else case.count(past[-2:-1]))
    scores = case.count((query[0], heads, query[-2])) * keys
    return scores * (2.0 * case.count((width, depth)[:1]) + 2.0 * case.count((depth,)) + SOFTMAX)


def recurrent(gates: int, pointwise: int) -> Flops:
    """Of each gate both products and the sums with its bias, and what is computed with each element of the state behind them."""

    def flops(case: Case) -> float:
        steps = case.count((case.shapes[0] or ())[:2])  # times samples
        directions, rows, width = (case.count((dim,)) for dim in case.shapes[1] or ())
        hidden = rows // gates
        return float(steps * directions * hidden * (gates * (2 * (width + hidden) + 2) + pointwise))

    return flops
