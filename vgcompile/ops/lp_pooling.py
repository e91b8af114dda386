"""Pools of the p-norm: y = (sum |x|^p)^(1/p), with dy/dx = sign(x) (|x| / y)^(p - 1); where y is 0, so is the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vgcompile.ops import flops
from vgcompile.ops.op import Case, Op, sample
from vgcompile.ops.pooling import infer, refuses
from vgcompile.ops.shape import shaped
from vgcompile.ops.window import placed
from vgcompile.ops.window_spread import hangs, spread


def _power(op: Any, x: Any, n: int) -> Any:
    """sign(x) |x|^n."""
    if n == 0:
        return op.Sign(x)
    if n == 1:
        return x
    return op.Pow(x, float(n)) if n % 2 else op.Sign(x) * op.Pow(x, float(n))


def _norm_or_one(op: Any, y: Any) -> Any:
    """The norm of a window, 1 where it is 0: all of its elements are 0 then, and so is what is divided by it."""
    return op.Where(op.Equal(y, 0.0), 1.0, y)


def _lp_vjp(
    op: Any, g: Any, y: Any, x: Any, *, p: int, kernel_shape: Sequence[int], ceil_mode: int, **rest: Any
) -> tuple[Any, ...]:
    """Each element gets sign(x) |x|^(p - 1) times the sum of g / y^(p - 1) over the windows that hold it."""
    share = g
    if p > 1:
        norm = _norm_or_one(op, y)
        share = g / (norm if p == 2 else op.Pow(norm, float(p - 1)))
    ready = placed(op, x, kernel_shape, rest)
    return (spread(op, share, ready, 1, hangs(rest, ceil_mode)) * _power(op, x, p - 1),)


def _global_vjp(op: Any, g: Any, y: Any, x: Any, *, p: int) -> tuple[Any, ...]:
    slope = op.Sign(x) if p == 1 else _power(op, x / _norm_or_one(op, y), p - 1)
    return (shaped(g * slope, x),)


def _no_norm(case: Case) -> str:
    return "p below 1 makes no norm" if case.attributes["p"] < 1 else ""


LpPool = Op(
    "LpPool",
    "The p-norm of each window, padded with zeros; a window of zeros has gradient 0.",
    unpredicted="a root of sums of powers is no function of second moments",
    flops=lambda case: 2.0 * flops.pool(case),
    vjp=_lp_vjp,
    infer=lambda x, p=2, **attributes: infer(x, **attributes),
    refuses=lambda case: _no_norm(case) or refuses(case),
    samples=(
        sample(("N", 2, 4, 6), kernel_shape=[2, 3], strides=[2, 3]),
        sample(("N", 2, 5, 5), kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], p=3, domain=(0.1, 2.0)),
        sample(("N", "C", "H", "W"), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], p=4),
        sample(("N", 2, "T"), kernel_shape=[3], strides=[2], auto_pad="SAME_LOWER"),
        sample(("N", 2, 7), kernel_shape=[3], strides=[3], pads=[1, 1], p=1, ceil_mode=1, domain=(0.1, 2.0)),
        sample(("N", 1, "T"), kernel_shape=[2], strides=[3], ceil_mode=1),
        sample(("N", 1, 5, 6), kernel_shape=[2, 2], dilations=[2, 1]),
    ),
)

GlobalLpPool = Op(
    "GlobalLpPool",
    "The p-norm over all positions; where it is 0, so is the gradient.",
    unpredicted="a root of sums of powers is no function of second moments",
    flops=flops.read(2.0),
    vjp=_global_vjp,
    refuses=_no_norm,
    samples=(
        sample(("N", 2, 3, 4)),
        sample(("N", "C", "H", "W"), p=3),
        sample(("N", 2, "T"), p=1, domain=(0.1, 2.0)),
        sample((2, 1, 2, 2, 2), p=4),
    ),
)

ROWS = (LpPool, GlobalLpPool)
