"""Fourier transforms: linear, each the adjoint of the other up to a factor, and the windows and filter banks around them.

A complex number is a last axis of two, its real and its imaginary part; a real one a last axis of one. With F the transform of
length n, without a factor, and F^H its adjoint,

    forward      y = F x              x' = F^H y' = n * inverse(y')
    inverse      y = F^H x / n        x' = F y' / n

of which a real input takes the real part. A transform pads its signal with zeros to n, or cuts it, and so does its adjoint.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from vgcompile.ops.families import blocked
from vgcompile.ops.op import Case, Op, sample
from vgcompile.ops.shape import added_up, constant, extents, shaped, sized, zeros_like

Length = int | Any  # a number where it is known, else a scalar value


def _extent_along(op: Any, x: Any, axis: Any) -> Length:
    if isinstance(axis, int):
        extent = extents(x)[axis]
        return extent if isinstance(extent, int) else op.Squeeze(op.Shape(x, start=axis, end=axis + 1), [0])
    return op.Gather(op.Shape(x), axis, axis=0)


def _real(op: Any, length: Length) -> Any:
    return float(length) if isinstance(length, int) else op.Cast(length, to=int(op.dtype))


def _dft_vjp(
    op: Any, g: Any, y: Any, x: Any, length: Any = None, axis: Any = None, *, inverse: int, onesided: int
) -> tuple[Any, ...]:
    rank = len(x.shape)
    known = np.array(-2) if axis is None else constant(axis)
    along = axis if known is None else int(known) % rank
    n = _points(op, x, y, length, along, to_real=bool(inverse and onesided))
    if not inverse:  # a one-sided adjoint is padded with zeros to all n frequencies
        dx, held = _inverse(op, g, n, along) * _real(op, n), n
    elif not onesided:
        dx, held = op.Div(op.DFT(g, None, along), _real(op, n)), n
    else:
        dx, held = op.DFT(g, None, along, onesided=1) * _doubled(op, n, along, rank), None
    return (shaped(_cut(op, dx, x, along, held, fits=length is None), x),)


def _inverse(op: Any, g: Any, n: Length, along: Any) -> Any:
    """The inverse transform to n points. Where a run tells n ONNX's inference keeps the extent of g: here it is a symbol."""
    made = op.DFT(g, n, along, inverse=1)
    if isinstance(n, int) and isinstance(along, int):
        return made
    dims = extents(g)
    moved = range(len(dims) - 1) if not isinstance(along, int) else [along % len(dims)]
    return sized(made, [f"{made.name}.{axis}" if axis in moved else dim for axis, dim in enumerate((*dims[:-1], 2))])


def _points(op: Any, x: Any, y: Any, length: Any, along: Any, to_real: bool) -> Length:
    """The length of the transform."""
    if to_real:
        return _extent_along(op, y, along)
    if length is None:
        return _extent_along(op, x, along)
    known = constant(length)
    return op.Reshape(length, np.zeros(0, np.int64)) if known is None else int(known)


def _doubled(op: Any, n: Length, along: Any, rank: int) -> Any:
    """To a real output each frequency counts twice over n, for its mirror image, but for 0 and the one in the middle."""
    if isinstance(n, int):
        k = np.arange(n // 2 + 1)
        weights: Any = np.asarray(np.where((k == 0) | (2 * k == n), 1.0, 2.0) / n, op.dtype.numpy())
        if isinstance(along, int):
            return weights.reshape([-1] + [1] * (rank - 1 - along))
    else:
        k = op.Range(0, n / 2 + 1, 1)
        single = op.Or(op.Equal(k, 0), op.Equal(k * 2, n))
        weights = op.Div(op.Where(single, 1.0, 2.0), _real(op, n))
        if isinstance(along, int):
            return op.Reshape(weights, [-1] + [1] * (rank - 1 - along))
    others = op.Where(op.Equal(np.arange(rank), op.Where(op.Less(along, 0), along + rank, along)), -1, 1)
    return op.Reshape(weights, others)


def _cut(op: Any, dx: Any, x: Any, along: Any, held: Length, fits: bool) -> Any:
    """The adjoint of padding or cutting the signal, and of taking a real number for a complex one, in one Pad."""
    real = extents(x)[-1] == 1
    missing: Any = 0
    if not fits:
        have = _extent_along(op, dx, along) if held is None else held
        want = _extent_along(op, x, along)
        missing = want - have if isinstance(want, int) and isinstance(have, int) else op.Sub(want, have)
    if isinstance(missing, int) and isinstance(along, int):
        pads = [(along, missing)] * (missing != 0) + [(len(x.shape) - 1, -1)] * real
        return op.Pad(dx, [0] * len(pads) + [pad for _, pad in pads], None, [axis for axis, _ in pads]) if pads else dx
    if isinstance(missing, int) and not missing:
        return op.Pad(dx, [0, -1], None, [-1]) if real else dx
    after, axes = ([missing, -1], [along, -1]) if real else ([missing], [along])
    vectors = [[one if isinstance(one, int) else op.Reshape(one, [1]) for one in items] for items in (after, axes)]
    pads, places = (op.Concat(*([v] if isinstance(v, int) else v for v in items), axis=0) for items in vectors)
    return op.Pad(dx, op.Concat([0] * len(after), pads, axis=0), None, places)


def _unclear(case: Case) -> str:
    dims = case.shapes[0] or ("",)
    return (
        "whether its input is real or complex is not known; give the last axis a fixed extent, 1 or 2"
        if isinstance(dims[-1], str) and len(dims) != 2
        else ""
    )


DFT = Op(
    "DFT",
    "The discrete Fourier transform along an axis, or its inverse.",
    unpredicted="frequencies are no longer alike: a constant part lies in one of them",
    vjp=_dft_vjp,
    refuses=_unclear,
    samples=(
        sample(("N", 5, 1)),
        sample(("N", 4, 2)),
        sample(("N", "T", 1), onesided=1),
        sample((2, 5, 1), np.array(8), onesided=1),
        sample(("N", "T", 2), np.array(3)),
        sample((2, 5, 2), np.array(3), inverse=1),
        sample(("N", 4, 3, 1), None, np.array(1), inverse=1),
        sample(("N", 3, 2), onesided=1, inverse=1),
        sample((2, 4, 2), np.array(7), onesided=1, inverse=1),
        sample((2, 4, 2), np.array(4), np.array(-2), onesided=1, inverse=1),
    ),
)


# --------------------------------------------------------------------------------------------------------------------- STFT


def _stft_vjp(
    op: Any, g: Any, y: Any, x: Any, step: Any, window: Any = None, length: Any = None, *, onesided: int
) -> tuple[Any, ...]:
    """Frame f is the window times the signal from f * step on; what frames share adds up. A real one may lack its last axis."""
    if len(x.shape) == 2:
        dx, *others = _stft_vjp(op, g, y, op.Unsqueeze(x, [2]), step, window, length, onesided=onesided)
        return shaped(op.Squeeze(dx, [2]), x), *others
    n = _frame_length(op, x, window, length)
    spectrum = _inverse(op, g, n, 2) * _real(op, n)
    if extents(x)[-1] == 1:
        spectrum = op.Slice(spectrum, [0], [1], [3])  # [batch, frames, n, 1]
    places = _places(op, y, step, n)
    turned = op.Transpose(x, perm=[1, 0, 2])
    framed = spectrum if window is None else spectrum * op.Unsqueeze(window, [1])
    rows = op.Transpose(framed, perm=[1, 2, 0, 3])
    where = op.Unsqueeze(places, [2])
    added = added_up(op, rows, lambda rows: op.ScatterND(zeros_like(op, turned), where, rows, reduction="add"))
    dx = shaped(op.Transpose(added, perm=[1, 0, 2]), x)
    if window is None:
        return (dx,)
    dwindow = op.ReduceSum(spectrum * op.Gather(x, places, axis=1), [0, 1, 3], keepdims=0)
    return dx, None, shaped(dwindow, window)


def _frame_length(op: Any, x: Any, window: Any, length: Any) -> Length:
    if length is None:
        return _extent_along(op, x if window is None else window, 1 if window is None else 0)
    known = constant(length)
    return op.Cast(op.Reshape(length, np.zeros(0, np.int64)), to=TensorProto.INT64) if known is None else int(known)


def _places(op: Any, y: Any, step: Any, n: Length) -> Any:
    """Where in the signal each element of each frame lies, [frames, n]."""
    frames, known = _extent_along(op, y, 1), constant(step)
    if isinstance(frames, int) and isinstance(n, int) and known is not None:
        return np.add.outer(int(known) * np.arange(frames), np.arange(n))
    hop = op.Cast(op.Reshape(step, np.zeros(0, np.int64)), to=TensorProto.INT64) if known is None else int(known)
    begins = op.Range(0, frames, 1) * hop
    return op.Unsqueeze(begins, [1]) + op.Range(0, n, 1)


def _stft_shape(x: Any, step: Any, window: Any = None, length: Any = None, *, onesided: int = 1) -> Any:
    """What ONNX's inference leaves open: the rank is always 4. A symbol says what an extent was computed from."""
    (batch, signal), hop = extents(x)[:2], constant(step)
    n = None if length is None else constant(length)
    frame = int(n) if n is not None else None if length is not None else signal if window is None else extents(window)[0]
    source = "/".join(str(value.name) for value in (x, step, window, length) if value is not None)
    known = isinstance(frame, int) and isinstance(signal, int) and hop is not None
    frames = (signal - frame) // int(hop) + 1 if known else f"{source}.frames"  # type: ignore[operator, arg-type]
    bins = (frame // 2 + 1 if onesided else frame) if isinstance(frame, int) else f"{source}.bins"
    return type(x)(name="", shape=type(x.shape)([batch, frames, bins, 2]))


STFT = Op(
    "STFT",
    "The Fourier transforms of overlapping frames of a signal, each times a window; the gradient flows to signal and window.",
    unpredicted="frequencies are no longer alike: a constant part lies in one of them",
    vjp=_stft_vjp,
    infer=_stft_shape,
    refuses=_unclear,
    samples=(
        sample(("N", 9, 1), np.array(2), (4,), np.array(4), onesided=1),
        sample((2, 8, 1), np.array(3), None, np.array(5), onesided=1),
        sample(("N", 7, 2), np.array(2), (3,), onesided=0),
        sample((2, 8, 1), np.array(3), ("N",), onesided=1),
        sample((2, "T", 1), np.array(1), (1,), np.array(1), onesided=1),
        sample(("N", 9), np.array(2), (4,), np.array(4), onesided=1),
        sample((2, 8), np.array(3), None, np.array(5), onesided=0),
    ),
)

_STEP = "its entries depend on their numbers in whole bins: the slope is 0 wherever there is one"
_COUNTED = "it is made from a number of elements and does not depend on any real value"

MelWeightMatrix = blocked(
    "MelWeightMatrix",
    "The matrix that sums the bins of a spectrum into mel bands.",
    _STEP,
    samples=(sample(np.array(4), np.array(8), np.array(8000), np.array(0.0), np.array(4000.0)),),
)


def _window(name: str, doc: str) -> Op:
    return blocked(name, doc, _COUNTED, samples=(sample(np.array(5)), sample(np.array(4), periodic=0)))


HannWindow = _window("HannWindow", "The raised cosine window of a length.")
HammingWindow = _window("HammingWindow", "The raised cosine window on a pedestal, of a length.")
BlackmanWindow = _window("BlackmanWindow", "The window of two cosines, of a length.")

ROWS = (DFT, STFT, MelWeightMatrix, HannWindow, HammingWindow, BlackmanWindow)
