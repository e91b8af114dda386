"""The gradients of a convolution: operators of the internal domain, bilinear like the convolution itself, opened by ``lower``.

    ConvInputGradient(g, w, x) -> dx       "flipped" (stride 1), "transposed", "transposed and cut" (any kernel)
    ConvWeightGradient(g, x, w) -> dw      "pointwise" (1x1), "rows" (stride 1), "columns" (static), "swapped",
                                           "swapped and cut" (any kernel)

Costs are in multiply-adds times what one of them was measured to cost in that form, relative to the forward convolution's
(stock ONNX Runtime on a CPU).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vgcompile.ops.op import INTERNAL, Attributes, Body, Case, Dim, Op, sample
from vgcompile.ops.shape import extents, reshaped, shaped, sized
from vgcompile.ops.window import Window, cropped, ends, window, with_spatial

END = np.iinfo(np.int64)


def taps_of(dims: Sequence[Dim] | None, attributes: Attributes) -> list[int]:
    """The kernel's extents: as the node states them, else of a kernel with these ``dims``; empty where they are not known."""
    given = attributes.get("kernel_shape") or (dims or ())[2:]
    return [] if any(isinstance(k, str) for k in given) else [int(k) for k in given]


def _window_over(x: Any, w: Any, attributes: Attributes) -> Window:
    return window(extents(x)[2:], taps_of(extents(w), attributes), attributes)


def window_of(case: Case, kernel: int, into: int) -> Window:
    """The window of a node, given the positions of its kernel and of the tensor that the window visits."""
    dims = case.shapes[into]
    assert dims is not None
    return window(dims[2:], taps_of(case.shapes[kernel], case.attributes), case.attributes)


# ---- bodies of the input gradient: inputs g [N, M, out...], w [M, C / group, kernel...], x [N, C, in...]


def _flipped(op: Any, g: Any, w: Any, x: Any, *, group: int, **attributes: Any) -> Any:
    """Stride 1: a plain convolution with the kernel turned around and its channel axes exchanged."""
    at = _window_over(x, w, attributes)
    rank = len(at.kernel)
    if at.taps > 1:
        w = op.Slice(w, [-1] * rank, [END.min] * rank, list(range(2, 2 + rank)), [-1] * rank)
    m, c = extents(w)[:2]
    if group == 1:
        w = op.Transpose(w, perm=[1, 0, *range(2, 2 + rank)])
    elif (m, c) != (group, 1):
        m, c = int(m), int(c)
        split = op.Reshape(w, [group, m // group, c, *at.kernel])
        w = op.Reshape(op.Transpose(split, perm=[0, 2, 1, *range(3, 3 + rank)]), [group * c, m // group, *at.kernel])
    pads = [s - p for s, p in zip((*at.span, *at.span), at.pads, strict=True)]
    return op.Conv(g, w, group=group, dilations=list(at.dilations), pads=pads, strides=[1] * rank)


def _flips(case: Case) -> bool:
    if not _knows_taps(case, 1):
        return False
    at = window_of(case, 1, 2)
    narrow = all(p <= s for p, s in zip(at.pads, (*at.span, *at.span), strict=True))
    return set(at.strides) == {1} and narrow and (case.attributes["group"] == 1 or _static(case.shapes[1]))


def _transposed(op: Any, g: Any, w: Any, x: Any, *, group: int, **attributes: Any) -> Any:
    """A transposed convolution, padded at its end by what the stride left over.

    Where that is not known, it is padded by the most that can be left over, and cut to size at run time.
    """
    at = _window_over(x, w, attributes)
    cut, rest, beyond = ends(at, extents(x)[2:])
    shape = {**at.attributes, "pads": [*at.before, *cut], "output_padding": rest if any(rest) else None}
    dx = op.ConvTranspose(g, w, group=group, **shape)
    return cropped(op, dx, x) if beyond else shaped(dx, x)


def _transposed_and_cut(op: Any, g: Any, w: Any, x: Any, *, group: int, **attributes: Any) -> Any:
    """Whatever the kernel's extents: padded at its end by the most that the stride can leave over, and cut to size."""
    rest = [stride - 1 for stride in attributes["strides"]]
    dx = op.ConvTranspose(g, w, group=group, output_padding=rest if any(rest) else None, **attributes)
    return cropped(op, dx, x) if any(rest) else shaped(dx, x)


def _knows_taps(case: Case, kernel: int) -> bool:
    return bool(taps_of(case.shapes[kernel], case.attributes))


def _static(dims: Sequence[Dim] | None) -> bool:
    return all(isinstance(dim, int) for dim in dims or ("",))


def _macs(case: Case, factor: float) -> float:
    """Multiply-adds of the convolution, for one sample: output elements times the kernel of each."""
    weight = case.shapes[1] if case.outputs[0] == case.shapes[2] else case.shapes[2]
    assert weight is not None
    return factor * case.count(case.shapes[0]) * case.count(weight[1:])


# ---- bodies of the weight gradient: inputs g [N, M, out...], x [N, C, in...], w [M, C / group, kernel...]


def _channels_first(op: Any, x: Any) -> Any:
    """[N, C, ...] as the matrix [C, N * ...]."""
    return op.Flatten(op.Transpose(x, perm=[1, 0, *range(2, len(x.shape))]), axis=1)


def _pointwise(op: Any, g: Any, x: Any, w: Any, **_: Any) -> Any:
    return reshaped(op, op.Gemm(_channels_first(op, g), _channels_first(op, x), transB=1), w)


def _is_pointwise(case: Case) -> bool:
    if not _knows_taps(case, 2):
        return False
    at = window_of(case, 2, 1)
    return at.taps == 1 and set(at.strides) == {1} and not any(at.pads) and case.attributes["group"] == 1


def _rows(op: Any, g: Any, x: Any, w: Any, *, group: int, **attributes: Any) -> Any:
    """Stride 1: pixels as the rows of a matrix, g padded to the row pitch of the padded x.

    Then the pixels under one tap are a contiguous run of rows, and each tap costs one slice and one product.
    """
    dims = extents(x)[2:]
    at = _window_over(x, w, attributes)
    rank = len(at.kernel)
    last = [0, *range(2, 2 + rank), 1]
    pixels = op.Flatten(op.Transpose(_padded(op, x, at.before, at.after), perm=last), axis=-1)
    seeds = op.Flatten(op.Transpose(_padded(op, g, (0,) * rank, at.span), perm=last), axis=-1)
    extent = [at.padded(int(dim), axis) if axis else 0 for axis, dim in enumerate(dims)]
    pitch = [at.dilations[axis] * math.prod(extent[axis + 1 :]) for axis in range(rank)]
    offsets = [sum(i * p for i, p in zip(tap, pitch, strict=True)) for tap in np.ndindex(*at.kernel)]
    reach = offsets[-1]
    seeds = op.Slice(seeds, [0], [-reach if reach else END.max], [0])
    runs = [op.Slice(pixels, [o], [o - reach if o < reach else END.max], [0]) for o in offsets]
    taps = [op.Gemm(seeds, run, transA=1) for run in runs]
    return _taps_last(op, op.Concat(*taps, axis=1), w)


def _taps_last(op: Any, product: Any, w: Any) -> Any:
    """[M, taps * C] in the shape of w [M, C, kernel...]."""
    m, c, *kernel = (int(dim) for dim in extents(w))
    if math.prod(kernel) == 1:
        return op.Reshape(product, [m, c, *kernel])
    return op.Reshape(op.Transpose(op.Reshape(product, [m, -1, c]), perm=[0, 2, 1]), [m, c, *kernel])


def _padded(op: Any, x: Any, before: Sequence[int], after: Sequence[int]) -> Any:
    return op.Pad(x, [0, 0, *before, 0, 0, *after]) if any((*before, *after)) else x


def _has_rows(case: Case) -> bool:
    if not _knows_taps(case, 2):
        return False
    at, dims = window_of(case, 2, 1), case.shapes[1] or ()
    return _static((*dims[3:], *(case.shapes[2] or ("",)))) and set(at.strides) == {1} and case.attributes["group"] == 1


def _columns(op: Any, g: Any, x: Any, w: Any, *, group: int, **attributes: Any) -> Any:
    """Any stride: the pixels under each tap side by side (im2col), and one product."""
    at = _window_over(x, w, attributes)
    out = [int(dim) for dim in extents(g)[2:]]
    x = _padded(op, x, at.before, at.after)
    axes, strides = list(range(2, 2 + len(out))), list(at.strides)
    visits = []
    for tap in np.ndindex(*at.kernel):
        start = [i * d for i, d in zip(tap, at.dilations, strict=True)]
        end = [i + (n - 1) * s + 1 for i, n, s in zip(start, out, strides, strict=True)]
        visits.append(op.Slice(x, start, end, axes, strides))
    columns = _channels_first(op, op.Concat(*visits, axis=1))
    return _taps_last(op, op.Gemm(_channels_first(op, g), columns, transB=1), w)


def _has_columns(case: Case) -> bool:
    g, x, w = (dims or ("",) for dims in case.shapes)
    return _static((*g[2:], *x[2:], *w)) and case.attributes["group"] == 1


def _swapped(op: Any, g: Any, x: Any, w: Any, *, group: int, **attributes: Any) -> Any:
    """Batch and channel axes exchanged, strides and dilations too: g is the kernel that visits x.

    A remainder that no window reached is not padded either; where that leaves more than the kernel's taps, they are cut to size.
    """
    at, spatial = _window_over(x, w, attributes), extents(x)[2:]
    after, rest, _ = ends(at, spatial)
    whole = all(r < d for r, d in zip(rest, at.dilations, strict=True))
    shape = {"strides": list(at.dilations), "dilations": list(at.strides), "pads": [*at.before, *after]}
    return _visited(op, g, x, w, group, shape, whole)


def _swapped_and_cut(op: Any, g: Any, x: Any, w: Any, *, group: int, **attributes: Any) -> Any:
    """The same whatever the kernel's extents: cut to size wherever the stride may leave a remainder."""
    shape = {"strides": attributes["dilations"], "dilations": attributes["strides"], "pads": attributes["pads"]}
    return _visited(op, g, x, w, group, shape, whole=set(attributes["strides"]) == {1})


def _visited(op: Any, g: Any, x: Any, w: Any, group: int, shape: Attributes, whole: bool) -> Any:
    """A group's channels stay together: x goes in as [C / group, group * N, ...]. If ``whole``, only taps come out."""
    rank = len(extents(x)) - 2
    back = [1, 0, *range(2, 2 + rank)]
    if group == 1:
        x = op.Transpose(x, perm=back)
    elif extents(w)[1] == 1:
        x = op.Reshape(op.Transpose(x, perm=back), _with_spatial(op, [1, -1], x))
    else:
        split = op.Reshape(x, _with_spatial(op, [0, group, -1], x))
        x = op.Reshape(op.Transpose(split, perm=[2, 1, 0, *range(3, 3 + rank)]), _with_spatial(op, [0, -1], x))
    dw = op.Conv(x, op.Transpose(g, perm=back), group=group, **shape)
    if dw.shape is None:  # ONNX infers nothing where the kernel's extents, here g's, are symbols
        m, c, *kernel = extents(w)
        sized(dw, [c, m, *(kernel if whole else (f"{dw.name}.{axis}" for axis in range(2, 2 + rank)))])
    return shaped(op.Transpose(dw if whole else _cut(op, dw, w), perm=back), w)


def _cut(op: Any, dw: Any, w: Any) -> Any:
    """The first taps along each spatial axis, as many as the kernel has."""
    kernel = extents(w)[2:]
    ends = list(kernel) if _static(kernel) else op.Shape(w, start=2)
    return with_spatial(op.Slice(dw, [0] * len(kernel), ends, list(range(2, 2 + len(kernel)))), dw, w)


def _with_spatial(op: Any, front: list[int], x: Any) -> Any:
    """A shape that ends in the spatial extents of ``x``."""
    spatial = extents(x)[2:]
    if _static(spatial):
        return [*front, *spatial]
    return op.Concat(np.asarray(front, np.int64), op.Shape(x, start=2), axis=0)


def _input_gradient_vjp(op: Any, h: Any, y: Any, g: Any, w: Any, x: Any, **shape: Any) -> tuple[Any, ...]:
    """Bilinear in g and w: <h, dx(g, w)> = <Conv(h, w), g>."""
    return shaped(op.Conv(h, w, **shape), g), op.ConvWeightGradient(g, h, w, **shape), None


def _weight_gradient_vjp(op: Any, h: Any, y: Any, g: Any, x: Any, w: Any, **shape: Any) -> tuple[Any, ...]:
    """Bilinear in g and x: <h, dw(g, x)> = <Conv(x, h), g>."""
    return shaped(op.Conv(x, h, **shape), g), op.ConvInputGradient(g, h, x, **shape), None


_ONE: dict[str, Any] = {"group": 1, "strides": [1, 1], "dilations": [1, 1], "pads": [1, 1, 1, 1]}
_TWO: dict[str, Any] = {"group": 2, "strides": [2, 1], "dilations": [1, 2], "pads": [0, 2, 1, 1]}

ConvInputGradient = Op(
    "ConvInputGradient",
    "The adjoint of a convolution's input: g [N, M, out...], w [M, C / group, kernel...], x only for its shape.",
    unpredicted="it stands in gradients alone, which are predicted from the forward operators",
    domain=INTERNAL,
    vjp=_input_gradient_vjp,
    bodies=(
        Body("flipped", _flipped, _flips, lambda case: _macs(case, 1.0)),
        Body("transposed", _transposed, lambda case: _knows_taps(case, 1), lambda case: _macs(case, 2.0)),
        Body("transposed and cut", _transposed_and_cut, lambda case: not _knows_taps(case, 1)),
    ),
    infer=lambda g, w, x, **_: x,
    samples=(
        sample(("N", 4, 4, 5), (4, 3, 3, 3), ("N", 3, 4, 5), **_ONE),
        sample(("N", 4, 2, 3), (4, 2, 3, 2), ("N", 4, 4, 2), **_TWO),
    ),
)

ConvWeightGradient = Op(
    "ConvWeightGradient",
    "The adjoint of a convolution's kernel: g [N, M, out...], x [N, C, in...], w only for its shape.",
    unpredicted="it stands in gradients alone, which are predicted from the forward operators",
    domain=INTERNAL,
    vjp=_weight_gradient_vjp,
    bodies=(
        Body("pointwise", _pointwise, _is_pointwise, lambda case: _macs(case, 1.0)),
        Body("rows", _rows, _has_rows, lambda case: _macs(case, 1.9)),
        Body("columns", _columns, _has_columns, lambda case: _macs(case, 2.6)),
        Body("swapped", _swapped, lambda case: _knows_taps(case, 2), lambda case: _macs(case, 10.0)),
        Body("swapped and cut", _swapped_and_cut, lambda case: not _knows_taps(case, 2)),
    ),
    infer=lambda g, x, w, **_: w,
    samples=(
        sample(("N", 4, 4, 5), ("N", 3, 4, 5), (4, 3, 3, 3), **_ONE),
        sample(("N", 4, 2, 3), ("N", 4, 4, 2), (4, 2, 3, 2), **_TWO),
    ),
)


ROWS = (ConvInputGradient, ConvWeightGradient)
