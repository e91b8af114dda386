"""Convolutions: linear in input and kernel, so that each gradient is again a convolution (convolution_gradient.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile import interval
from vgcompile.interval import EPSILON, WHOLE, Interval, corners, point
from vgcompile.norms import convolution_norm
from vgcompile.ops.convolution_gradient import taps_of, window_of
from vgcompile.ops.op import Attributes, Case, Dim, Op, sample
from vgcompile.ops.shape import extents, meeting, shaped, summed
from vgcompile.ops.window import Window, same_extents, unresolved, window
from vgcompile.signal import Signal, independent_sum, replace


def _conv_vjp(op: Any, g: Any, y: Any, x: Any, w: Any, b: Any = None, *, group: int = 1, **attributes: Any) -> tuple[Any, ...]:
    shape = {"group": group, **window(extents(x)[2:], taps_of(w), attributes).attributes}
    return op.ConvInputGradient(g, w, x, **shape), op.ConvWeightGradient(g, x, w, **shape), _bias_vjp(op, g, b)


def _bias_vjp(op: Any, g: Any, b: Any) -> Any:
    """One bias a channel, for every position of every sample."""
    return None if b is None else shaped(op.ReduceSum(g, [0, *range(2, len(g.shape))], keepdims=0), b)


# ---- what the analyses read of both convolutions


def _channel_hulls(case: Case, padded: bool) -> Interval:
    """The range of each channel of the input, [C]; zeros belong to it where the tensor is padded."""
    dims = case.shapes[0]
    assert dims is not None and isinstance(dims[1], int)
    given = case.ranges[0] or WHOLE
    least = (1, dims[1], *(1,) * (len(dims) - 2))
    full = given.map(lambda x: np.broadcast_to(x, np.broadcast_shapes(x.shape, least)))
    axes = (0, *range(2, len(dims)))
    hull = Interval(full.lo.min(axis=axes), full.hi.max(axis=axes))
    return hull.hull(point(0.0)) if padded else hull


def _range(case: Case, padded: bool, transposed: bool) -> Interval:
    """Each output channel is an interval dot product of its kernel with the hulls of its input channels; [1, M, 1...]."""
    dims, weight = case.shapes[0], case.values[1]
    if dims is None or isinstance(dims[1], str) or weight is None:
        return WHOLE
    group = case.attributes["group"]
    hull = _channel_hulls(case, padded)
    w = np.asarray(weight, np.float64).reshape(weight.shape[0], weight.shape[1], -1)
    parts = []
    for index in range(group):
        c, m = int(dims[1]) // group, w.shape[0] // group
        mine = w[index * m : (index + 1) * m]
        matrix = mine.transpose(0, 2, 1).reshape(-1, w.shape[1]) if transposed else mine.transpose(1, 2, 0).reshape(-1, m)
        lo, hi = (np.repeat(end[index * c : (index + 1) * c], w.shape[2]) for end in (hull.lo, hull.hi))
        parts.append(interval.matmul(Interval(lo, hi), matrix))
    lead = (1, -1, *(1,) * (len(dims) - 2))
    y = Interval(np.concatenate([p.lo for p in parts]).reshape(lead), np.concatenate([p.hi for p in parts]).reshape(lead))
    if len(case.shapes) < 3 or case.shapes[2] is None:
        return y
    bias = case.ranges[2] or (WHOLE if case.values[2] is None else point(case.values[2]))
    return corners(np.add, [y, bias.map(lambda b: b.reshape(lead) if b.ndim else b)])


def _input_norm(case: Case) -> float:
    """A bound of the Euclidean norm of the input, from its range: of one sample of it, where the kernel is shared by all."""
    dims, bound = case.shapes[0], case.ranges[0]
    if dims is None or bound is None or not bound.bounded or math.isinf(meeting(case, 1, dims)):
        return math.inf
    extents = [1 if isinstance(dim, str) else dim for dim in dims]
    squares = np.broadcast_to(bound.magnitude, extents) ** 2
    return float(np.sqrt(squares.sum()) * (1.0 + squares.size * EPSILON))


def _norms(case: Case, position: int, at: Window) -> tuple[float, float]:
    """The map of the input is a convolution; the kernel sees an element of x once for each tap over it; a bias, all positions."""
    if position == 0:
        weight = case.values[1]
        return (
            (0.0, math.inf)
            if weight is None
            else (0.0, convolution_norm(weight, at.strides, at.dilations, case.attributes["group"]))
        )
    if position == 1:
        return (0.0, math.sqrt(at.overlap) * _input_norm(case))
    positions = meeting(case, 2, case.outputs[0] or ("",)) / case.count(case.shapes[2])
    return (1.0 if positions == 1 else 0.0, math.sqrt(positions))


@dataclass(frozen=True)
class Windows:
    """Mean-field moments of a convolution, zero padding counted exactly.

    Of the taps of a window ``seen`` fall inside the tensor on average, and ``over`` windows lie over an element; each window
    element meets every channel of its group, with independent weights.
    """

    transposed: bool = False

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        x, w = signals[0], signals[1]
        assert x is not None and w is not None
        seen, over = self._pairs(case)
        terms = self._channels(case, 0) / case.attributes["group"] * (over if self.transposed else seen)
        cross = terms * max(terms - 1.0, 0.0) * (w.mean * x.mean) ** 2
        y = Signal(
            mean=terms * w.mean * x.mean,
            square=terms * w.square * x.square + cross,
            within=terms * w.square * x.within + cross,
            across=terms * w.square * x.across + cross,
            alignment=x.alignment,
            reliable=x.reliable,
        )
        bias = signals[2] if len(signals) > 2 else None
        return y if bias is None else independent_sum(y, bias)

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        seen, over = self._pairs(case)
        if position == 0:
            w = signals[1]
            assert w is not None
            terms = self._channels(case, None) / case.attributes["group"] * (seen if self.transposed else over)
            return replace(adjoint.scaled(terms * w.square), mean=0.0)
        x = signals[0] if position == 1 else Signal(1.0, 1.0, 1.0, 1.0)
        assert x is not None
        out = case.count((case.outputs[0] or ())[2:])
        visits = case.count((case.shapes[0] or ())[2:]) if self.transposed else out
        weight = case.shapes[1] or ()
        met = visits * seen / case.count(weight[2:]) if position == 1 else float(out)
        return summed(adjoint, x, case.batch, met)

    @staticmethod
    def _channels(case: Case, position: int | None) -> int:
        dims = case.outputs[0] if position is None else case.shapes[position]
        assert dims is not None
        return case.count(dims[1:2])

    def _pairs(self, case: Case) -> tuple[float, float]:
        at = window_of(case, 1, 0) if not self.transposed else _transposed_window(case)
        into, out = (case.shapes[0] or ())[2:], (case.outputs[0] or ())[2:]
        into, out = (out, into) if self.transposed else (into, out)
        pairs = [at.pairs(i, o, axis) for axis, (i, o) in enumerate(zip(into, out, strict=True))]
        return math.prod(seen for seen, _ in pairs), math.prod(over for _, over in pairs)


Conv = Op(
    "Conv",
    "Convolution of x [N, C, ...] with kernels w [M, C / group, ...], plus a bias for each of the M channels.",
    vjp=_conv_vjp,
    range=lambda case: _range(case, any(window_of(case, 1, 0).pads), transposed=False),
    norms=lambda case, position: _norms(case, position, window_of(case, 1, 0)),
    moments=Windows(),
    refuses=lambda case: unresolved(case, (case.shapes[1] or ("",))[2:]),
    infer=lambda x, w, b=None, **attributes: same_extents(x, extents(w)[2:], attributes),
    samples=(
        sample(("N", 3, 4, 5), (4, 3, 3, 3), (4,), pads=[1, 1, 1, 1]),
        sample(("N", 3, "H", "W"), (2, 3, 3, 3), pads=[1, 1, 1, 1]),
        sample(("N", 4, "H", "W"), (4, 2, 3, 2), (4,), group=2, strides=[2, 3], dilations=[1, 2], pads=[2, 1, 1, 2]),
        sample(("N", 3, 6, 5), (2, 3, 1, 1)),
        sample(("N", 2, 7, 6), (3, 2, 3, 2), strides=[2, 3], dilations=[2, 1], pads=[0, 1, 2, 0]),
        sample(("N", 4, 5, 5), (4, 1, 3, 3), (4,), group=4, auto_pad="SAME_UPPER"),
        sample(("N", 2, 6), (3, 2, 4), auto_pad="SAME_LOWER", strides=[3]),
        sample(("N", 2, 3, 4, 3), (2, 2, 2, 2, 2), pads=[1, 0, 0, 0, 1, 1]),
    ),
)


# ---- the transposed convolution: x [N, C, in...], w [C, M / group, kernel...]; its window visits the output


def _transposed_attributes(into: Sequence[Dim], kernel: Sequence[int], attributes: Attributes) -> Attributes:
    """Explicit pads. ``auto_pad`` asks for in * stride, ``output_shape`` names the result; the rest goes to both ends."""
    rank, mode, named = len(kernel), attributes.get("auto_pad") or "NOTSET", attributes.get("output_shape")
    if mode == "VALID" or (mode == "NOTSET" and named is None):
        return {**attributes, "pads": attributes.get("pads") if mode == "NOTSET" else None, "auto_pad": "NOTSET"}
    strides, dilations = (attributes.get(key) or [1] * rank for key in ("strides", "dilations"))
    extra = attributes.get("output_padding") or [0] * rank
    total = []
    for axis in range(rank):
        beyond = strides[axis]  # the target extent less (in - 1) * stride
        if named is not None:
            extent = into[axis]
            if isinstance(extent, str):
                raise ValueError(f"output_shape needs to know the extent {extent!r}; give explicit pads, or a static shape")
            beyond = named[-rank:][axis] - (extent - 1) * strides[axis]
        total.append(dilations[axis] * (kernel[axis] - 1) + 1 + extra[axis] - beyond)
    if min(total) < 0:
        raise ValueError("the requested output is larger than the transposed convolution reaches; use output_padding")
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return {**attributes, "pads": [*small, *large] if mode == "SAME_UPPER" else [*large, *small], "auto_pad": "NOTSET"}


def _transposed_window(case: Case) -> Window:
    dims, weight = case.shapes[0], case.shapes[1]
    assert dims is not None and weight is not None
    kernel = [int(k) for k in weight[2:]]
    return window(dims[2:], kernel, _transposed_attributes(dims[2:], kernel, case.attributes))


def _conv_transpose_vjp(
    op: Any, g: Any, y: Any, x: Any, w: Any, b: Any = None, *, group: int = 1, **attributes: Any
) -> tuple[Any, ...]:
    """Its adjoint is the convolution, and the kernel's gradient the convolution's with x and g exchanged."""
    given = _transposed_attributes(extents(x)[2:], taps_of(w), attributes)
    shape = {"group": group, **window(extents(x)[2:], taps_of(w), given).attributes}
    return shaped(op.Conv(g, w, **shape), x), op.ConvWeightGradient(x, g, w, **shape), _bias_vjp(op, g, b)


def _uncovered(case: Case) -> str:
    if any(isinstance(k, str) for k in (case.shapes[1] or ("",))[2:]):
        return "the kernel's extents are not known when compiling"
    try:
        at = _transposed_window(case)
    except ValueError as error:
        return str(error)
    extra = case.attributes.get("output_padding") or [0] * len(at.strides)
    if any(e >= s for e, s in zip(extra, at.strides, strict=True)):
        return "output_padding is not smaller than the stride"
    return ""


ConvTranspose = Op(
    "ConvTranspose",
    "The adjoint of a convolution, as a layer: each element of x [N, C, ...] spreads w [C, M / group, ...] over the output.",
    vjp=_conv_transpose_vjp,
    range=lambda case: _range(case, padded=True, transposed=True),
    norms=lambda case, position: _norms(case, position, _transposed_window(case)),
    moments=Windows(transposed=True),
    refuses=_uncovered,
    samples=(
        sample(("N", 3, 3, 4), (3, 2, 3, 3), (2,), pads=[1, 1, 1, 1]),
        sample(("N", 2, "H", "W"), (2, 3, 2, 3), strides=[2, 3]),
        sample(("N", 4, 3, 2), (4, 1, 3, 2), (2,), group=2, strides=[2, 2], output_padding=[1, 0], pads=[1, 0, 0, 1]),
        sample(("N", 2, 4), (2, 3, 4), strides=[2], auto_pad="SAME_UPPER"),
        sample(("N", 2, 3, 3), (2, 1, 3, 3), strides=[2, 2], output_shape=[6, 7], output_padding=[0, 0]),
    ),
)

ROWS = (Conv, ConvTranspose)
