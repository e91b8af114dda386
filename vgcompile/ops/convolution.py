"""Convolutions: linear in input and kernel, so that each gradient is again a convolution (convolution_gradient.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.ops import flops
from vgcompile.ops.convolution_facts import Windows, norms, tangent, value_range
from vgcompile.ops.convolution_gradient import taps_of, window_of
from vgcompile.ops.op import Attributes, Case, Dim, Op, sample
from vgcompile.ops.shape import extents, shaped
from vgcompile.ops.window import Window, disputed, placed, same_extents, window, with_spatial

LAST = np.iinfo(np.int64).max


def _conv_vjp(op: Any, g: Any, y: Any, x: Any, w: Any, b: Any = None, *, group: int = 1, **attributes: Any) -> tuple[Any, ...]:
    kernel = taps_of(extents(w), attributes)
    if not kernel:
        return _unknown_taps_vjp(op, g, x, w, b, group, attributes)
    ready = placed(op, x, kernel, attributes)
    shape = {"group": group, "kernel_shape": kernel, **ready.at.attributes}
    dx, dw = op.ConvInputGradient(g, w, ready.x, **shape), op.ConvWeightGradient(g, ready.x, w, **shape)
    return ready.cut(dx), dw, _bias_vjp(op, g, b)


def _unknown_taps_vjp(op: Any, g: Any, x: Any, w: Any, b: Any, group: int, attributes: Attributes) -> tuple[Any, ...]:
    """A kernel whose extents are symbols: the gradient of a gradient has such, where images are of any size."""
    rank = len(extents(w)) - 2
    shape = {
        key: attributes.get(key) or [least] * rank * n
        for key, least, n in (("strides", 1, 1), ("dilations", 1, 1), ("pads", 0, 2))
    }
    dx, dw = op.ConvInputGradient(g, w, x, group=group, **shape), op.ConvWeightGradient(g, x, w, group=group, **shape)
    return dx, dw, _bias_vjp(op, g, b)


def _bias_vjp(op: Any, g: Any, b: Any) -> Any:
    """One bias a channel, for every position of every sample."""
    return None if b is None else shaped(op.ReduceSum(g, [0, *range(2, len(g.shape))], keepdims=0), b)


def _unknown_kernel(case: Case) -> str:
    """The padding that ``auto_pad`` asks for is built from the kernel's extents."""
    if not _taps(case) and (case.attributes.get("auto_pad") or "NOTSET").startswith("SAME"):
        return "auto_pad SAME needs to know the kernel's extents when compiling; give explicit pads"
    return ""


def _taps(case: Case) -> list[int]:
    return taps_of(case.shapes[1], case.attributes)


Conv = Op(
    "Conv",
    "Convolution of x [N, C, ...] with kernels w [M, C / group, ...], plus a bias for each of the M channels.",
    flops=flops.convolution,
    vjp=_conv_vjp,
    range=lambda case: value_range(case, any(window_of(case, 1, 0).pads), transposed=False),
    norms=lambda case, position: norms(case, position, window_of(case, 1, 0)),
    tangent=lambda case, position: tangent(case, position, window_of(case, 1, 0)),
    moments=Windows(lambda case: window_of(case, 1, 0)),
    refuses=lambda case: (
        _unknown_kernel(case) or (disputed((case.shapes[0] or ())[2:], _taps(case), case.attributes) if _taps(case) else "")
    ),
    infer=lambda x, w, b=None, **attributes: same_extents(x, taps_of(extents(w), attributes) or ("",), attributes),
    samples=(
        sample(("N", 3, 4, 5), (4, 3, 3, 3), (4,), pads=[1, 1, 1, 1]),
        sample(("N", 3, "H", "W"), (2, 3, 3, 3), pads=[1, 1, 1, 1]),
        sample(("N", 4, "H", "W"), (4, 2, 3, 2), (4,), group=2, strides=[2, 3], dilations=[1, 2], pads=[2, 1, 1, 2]),
        sample(("N", 3, 6, 5), (2, 3, 1, 1)),
        sample(("N", 2, 7, 6), (3, 2, 3, 2), strides=[2, 3], dilations=[2, 1], pads=[0, 1, 2, 0]),
        sample(("N", 4, 5, 5), (4, 1, 3, 3), (4,), group=4, auto_pad="SAME_UPPER"),
        sample(("N", 2, 6), (3, 2, 4), auto_pad="SAME_LOWER", strides=[3]),
        sample(("N", 2, "H", "W"), (3, 2, 3, 2), (3,), auto_pad="SAME_UPPER", strides=[2, 3]),
        sample(("N", 2, "T"), (2, 1, 4), group=2, auto_pad="SAME_LOWER", strides=[2]),
        sample(("N", 2, 3, 4, 3), (2, 2, 2, 2, 2), pads=[1, 0, 0, 0, 1, 1]),
        sample(("N", 2, "D", 4, "W"), (2, 1, 2, 3, 2), group=2, strides=[2, 1, 2], pads=[1, 1, 0, 0, 1, 1]),
    ),
)


# ---- the transposed convolution: x [N, C, in...], w [C, M / group, kernel...]; its window visits the output


@dataclass(frozen=True)
class _Reach:
    """Where the output lies in what the kernels reach, (in - 1) * stride + span + 1 elements an axis.

    ``before`` of them are cut off at the beginning and ``after`` at the end; less than 0: the output goes beyond, by zeros.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def pads(self) -> list[int]:
        return [*self.before, *(max(a, 0) for a in self.after)]


def _reach(into: Sequence[Dim], at: Window, attributes: Attributes) -> _Reach | None:
    """``auto_pad`` asks for in * stride elements, ``output_shape`` names their number; None where a run tells the rest."""
    rank, mode, named = len(at.kernel), attributes.get("auto_pad") or "NOTSET", attributes.get("output_shape")
    extra = attributes.get("output_padding") or [0] * rank
    if named is None and mode in ("NOTSET", "VALID"):
        return _Reach(at.before, tuple(a - e for a, e in zip(at.after, extra, strict=True)))
    before, after = [], []
    for axis, (extent, stride, span) in enumerate(zip(into, at.strides, at.span, strict=True)):
        wanted = stride  # beyond the reach of the elements before the last one
        if named is not None:
            if isinstance(extent, str):
                return None
            wanted = named[-rank:][axis] - (extent - 1) * stride
        total = max(span + 1 + extra[axis] - wanted, 0)
        before.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
        after.append(span + 1 - wanted - before[axis])
    return _Reach(tuple(before), tuple(after))


def _bare(into: Sequence[Dim], dims: Sequence[Dim] | None, attributes: Attributes) -> Window:
    """The window with the pads that are stated; ``auto_pad`` means something else here."""
    given = {**attributes, "auto_pad": "NOTSET"}
    if attributes.get("output_shape") is not None or (attributes.get("auto_pad") or "NOTSET") != "NOTSET":
        given["pads"] = None
    return window(into, taps_of(dims, attributes), given)


def _transposed_window(case: Case) -> Window:
    """Pads that are known at run time only are left out: the analyses count padding on axes of known extent alone."""
    into = (case.shapes[0] or ())[2:]
    bare = _bare(into, case.shapes[1], case.attributes)
    reach = _reach(into, bare, case.attributes)
    return window(into, bare.kernel, {**bare.attributes, "pads": reach.pads}) if reach is not None else bare


def _conv_transpose_vjp(
    op: Any, g: Any, y: Any, x: Any, w: Any, b: Any = None, *, group: int = 1, **attributes: Any
) -> tuple[Any, ...]:
    """Its adjoint is the convolution, and the kernel's gradient the convolution's with x and g exchanged."""
    at = _bare(extents(x)[2:], extents(w), attributes)
    reach = _reach(extents(x)[2:], at, attributes)
    inner, pads = _within_reach(op, g, x, at, reach, attributes)
    shape = {"group": group, "kernel_shape": list(at.kernel), **at.attributes, "pads": pads}
    return shaped(op.Conv(inner, w, **shape), x), op.ConvWeightGradient(x, inner, w, **shape), _bias_vjp(op, g, b)


def _within_reach(op: Any, g: Any, x: Any, at: Window, reach: _Reach | None, attributes: Attributes) -> tuple[Any, list[int]]:
    """g without what lies beyond the kernels' reach, and the pads that make up for what was cut off.

    A convolution's stride drops a rest at the end that is smaller than it; only a larger one is cut here.
    """
    rank = len(at.kernel)
    axes = list(range(2, 2 + rank))
    if reach is not None:
        if all(-a < s for a, s in zip(reach.after, at.strides, strict=True)):
            return g, reach.pads
        ends = [a if a < 0 else LAST for a in reach.after]
        return op.Slice(g, [0] * rank, ends, axes), reach.pads
    extra = np.asarray(attributes.get("output_padding") or [0] * rank)
    inside = (op.Shape(x, start=2) - 1) * np.asarray(at.strides) + np.asarray(at.span) + 1
    beyond = inside - op.Shape(g, start=2)
    total = op.Max(beyond + extra, 0)
    small = op.Div(total, 2)
    before = small if attributes.get("auto_pad") == "SAME_UPPER" else total - small
    made = op.Pad(g, op.Concat(before, beyond - before, axis=0), None, axes)
    return with_spatial(made, g, made), [0] * (2 * rank)


ConvTranspose = Op(
    "ConvTranspose",
    "The adjoint of a convolution, as a layer: each element of x [N, C, ...] spreads w [C, M / group, ...] over the output.",
    flops=flops.transposed_convolution,
    vjp=_conv_transpose_vjp,
    range=lambda case: value_range(case, padded=True, transposed=True),
    norms=lambda case, position: norms(case, position, _transposed_window(case)),
    tangent=lambda case, position: tangent(case, position, _transposed_window(case), transposed=True),
    moments=Windows(_transposed_window, transposed=True),
    refuses=lambda case: "" if _taps(case) else "the kernel's extents are not known when compiling",
    samples=(
        sample(("N", 3, 3, 4), (3, 2, 3, 3), (2,), pads=[1, 1, 1, 1]),
        sample(("N", 2, "H", "W"), (2, 3, 2, 3), strides=[2, 3]),
        sample(("N", 4, 3, 2), (4, 1, 3, 2), (2,), group=2, strides=[2, 2], output_padding=[1, 0], pads=[1, 0, 0, 1]),
        sample(("N", 2, 4), (2, 3, 4), strides=[2], auto_pad="SAME_UPPER"),
        sample(("N", 2, 3, 3), (2, 1, 3, 3), strides=[2, 2], output_shape=[6, 7], output_padding=[0, 0]),
        sample(("N", 2, "H", "W"), (2, 1, 3, 4), (1,), strides=[2, 3], output_shape=[3, 3]),
        sample(("N", 4, "T"), (4, 1, 3), group=2, strides=[3], output_shape=[2], auto_pad="SAME_UPPER"),
        sample(("N", 2, "T"), (2, 1, 3), strides=[2], auto_pad="SAME_LOWER", output_padding=[1]),
        sample(("N", 2, 2, 3, 2), (2, 1, 2, 1, 2), strides=[1, 2, 1]),
    ),
)

ROWS = (Conv, ConvTranspose)
