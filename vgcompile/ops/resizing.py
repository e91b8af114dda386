"""Resizing: linear and separable, so that the adjoint is a product with a transposed interpolation matrix for each resized axis.

    y = M_h x M_w^T        x' = M_h^T y' M_w

A row of a matrix holds the weights of one output position. Where extents, scale and region are known it is a constant; where
they are not, or where runtimes read the standard differently (a scale that leaves a fraction, a position that rounding decides),
the node itself says what it does: resizing the identity along an axis gives the matrix. Nearest neighbours at a whole scale are
repetitions, and their adjoint is a sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.interval import Interval, interval, point, product
from vgcompile.ops.cutting import constant, hull_of
from vgcompile.ops.op import Array, Attributes, Case, Dim, Op, sample
from vgcompile.ops.shape import extents, shaped

FREE = ("half_pixel", "asymmetric")  # where a position depends on the scale alone and not on an extent


@dataclass(frozen=True)
class Along:
    """One resized axis: its entry in the operands, its extents, its scale, and its part of the region; None where unknown."""

    axis: int
    entry: int
    into: Dim
    out: Dim
    scale: float | None
    region: tuple[float, float] | None


def resized(
    x: Sequence[Dim], y: Sequence[Dim], operands: Sequence[Array | None], scaled: bool, attributes: Attributes
) -> list[Along]:
    """The axes that a node resizes; ``operands`` are region, scales and sizes where they are known, ``scaled`` says that there
    are scales. An axis of scale 1 stays as it is, except that a region may move along it."""
    region, scales, sizes = operands
    axes = [axis % len(x) for axis in attributes["axes"] or range(len(x))]
    crops = attributes["coordinate_transformation_mode"] == "tf_crop_and_resize"
    keeps_ratio = not scaled and attributes["keep_aspect_ratio_policy"] != "stretch"
    found = []
    for entry, axis in enumerate(axes):
        into, out = x[axis], y[axis]
        if scales is not None:
            scale: float | None = float(scales[entry])
        elif scaled:
            scale = None
        elif keeps_ratio:
            scale = _common_scale([x[axis] for axis in axes], sizes, attributes["keep_aspect_ratio_policy"])
        elif isinstance(into, int) and isinstance(out, int):
            scale = out / max(into, 1)
        else:
            scale = 1.0 if into == out else None
        part = None if region is None else (float(region[entry]), float(region[entry + len(axes)]))
        if scale != 1.0 or crops:
            found.append(Along(axis, entry, into, out, scale, part if crops else (0.0, 1.0)))
    return found


def _common_scale(into: Sequence[Dim], sizes: Array | None, policy: str) -> float | None:
    if sizes is None or any(isinstance(dim, str) for dim in into):
        return None
    ratios = [float(size) / int(dim) for size, dim in zip(sizes, into, strict=True)]
    return min(ratios) if policy == "not_larger" else max(ratios)


# ------------------------------------------------------------------------------------------------ the interpolation matrix


def interpolation(at: Along, attributes: Attributes) -> Array | None:
    """The matrix [out, into] of one axis, None where it is not known or not the same in every runtime."""
    if not isinstance(at.into, int) or not isinstance(at.out, int) or at.scale is None or at.region is None:
        return None
    fraction = at.scale * at.into != at.out
    single = attributes["coordinate_transformation_mode"] == "pytorch_half_pixel" and at.out == 1
    outside = attributes["exclude_outside"] and attributes["mode"] != "cubic"
    unsettled = fraction and attributes["coordinate_transformation_mode"] not in FREE
    if attributes["antialias"] or single or outside or unsettled or 0 in (at.into, at.out):
        return None
    exact, rounded = (_weights(_positions(at, attributes, real), at.into, attributes) for real in (np.float64, np.float32))
    return exact if np.abs(exact - rounded).max() < 1e-2 else None


def _positions(at: Along, attributes: Attributes, real: Any) -> Array:
    """Where in the input each output position lies, computed in the given precision; NaN where a region leaves the input."""
    assert isinstance(at.into, int) and isinstance(at.out, int) and at.scale is not None and at.region is not None
    mode, o, scale = attributes["coordinate_transformation_mode"], np.arange(at.out, dtype=real), real(at.scale)
    if mode == "asymmetric":
        return np.asarray(o / scale)
    if mode == "align_corners":
        return np.asarray(o * real(at.into - 1) / real(max(at.out - 1, 1)))
    if mode == "tf_crop_and_resize":
        start, end = (real(part) * real(at.into - 1) for part in at.region)
        x = start + o * (end - start) / real(at.out - 1) if at.out > 1 else real(0.5) * (start + end) + o
        return np.where((x < 0) | (x > at.into - 1), np.nan, x)
    return np.asarray((o + real(0.5)) / scale - real(0.5))


def _weights(x: Array, into: int, attributes: Attributes) -> Array:
    """Taps of each position with their weights; beyond the ends the last element counts, or (exclude_outside) nothing does."""
    outside, x = np.isnan(x), np.nan_to_num(x).astype(np.float64)
    if attributes["mode"] == "nearest":
        pick = {"floor": np.floor(x), "ceil": np.ceil(x), "round_prefer_ceil": np.floor(x + 0.5)}
        taps, weights = pick.get(attributes["nearest_mode"], np.ceil(x - 0.5))[:, None], np.ones((len(x), 1))
    else:
        first = np.floor(x)
        offsets = np.arange(-1, 3) if attributes["mode"] == "cubic" else np.arange(2)
        taps = first[:, None] + offsets
        distance = np.abs(x[:, None] - taps)
        weights = _keys(distance, attributes["cubic_coeff_a"]) if attributes["mode"] == "cubic" else 1.0 - distance
    if attributes["exclude_outside"]:
        weights = np.where((taps >= 0) & (taps < into), weights, 0.0)
        weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((len(x), into))
    rows = np.broadcast_to(np.arange(len(x))[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, into - 1).astype(int)), np.where(outside[:, None], 0.0, weights))
    return matrix


def _keys(distance: Array, a: float) -> Array:
    """The cubic convolution kernel (Keys 1981)."""
    near = ((a + 2.0) * distance - (a + 3.0)) * distance**2 + 1.0
    far = ((a * distance - 5.0 * a) * distance + 8.0 * a) * distance - 4.0 * a
    return np.where(distance <= 1.0, near, far)


def _repetition(at: Along, attributes: Attributes) -> int:
    """How often each element is repeated in a row, where that is all that happens; else 0."""
    mode, k = attributes["coordinate_transformation_mode"], at.scale
    if k is None or k < 2.0 or k != int(k) or attributes["mode"] != "nearest" or mode == "tf_crop_and_resize":
        return 0
    if mode == "align_corners" and not isinstance(at.into, int):
        return 0
    few = at.into if mode == "align_corners" and isinstance(at.into, int) else 4
    matrix = interpolation(Along(at.axis, at.entry, few, few * int(k), k, at.region), attributes)
    return int(k) if matrix is not None and np.array_equal(matrix, np.repeat(np.eye(few), int(k), axis=0)) else 0


# ------------------------------------------------------------------------------------------------------------ the gradient


def _resize_vjp(
    op: Any, g: Any, y: Any, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None, **attributes: Any
) -> tuple[Any, ...]:
    roi, scales, sizes = (None if value is None or extents(value) == (0,) else value for value in (roi, scales, sizes))
    known = [constant(value) for value in (roi, scales, sizes)]
    axes = resized(extents(x), extents(y), known, scales is not None, attributes)
    folds = {at.axis: k for at in axes if (k := _repetition(at, attributes))}
    dx = _folded(op, g, x, y, folds) if folds else g
    for at in reversed(axes):
        if at.axis not in folds:
            dx = _contracted(op, dx, at, x, (roi, scales, sizes), attributes)
    return (shaped(dx, x) if dx is not g else dx,)


def _folded(op: Any, g: Any, x: Any, y: Any, folds: dict[int, int]) -> Any:
    """Sum over repeated elements: the axes in ``folds`` become pairs (extent, times)."""
    source, target = extents(x), extents(y)
    shape: list[Any] = []
    for axis, dim in enumerate(target):
        if axis in folds:
            shape += [source[axis] if isinstance(source[axis], int) else op.Shape(x, start=axis, end=axis + 1), folds[axis]]
        elif isinstance(dim, int) or len(shape) == axis:
            shape.append(dim if isinstance(dim, int) else 0)  # 0 keeps an extent in its place
        else:
            shape.append(op.Shape(g, start=axis, end=axis + 1))
    symbols = [i for i, dim in enumerate(shape) if not isinstance(dim, int)]
    if len(symbols) <= 1:
        operand: Any = [dim if isinstance(dim, int) else -1 for dim in shape]
    else:
        operand = op.Concat(*([dim] if isinstance(dim, int) else dim for dim in shape), axis=0)
    places = [axis + 1 + sum(other < axis for other in folds) for axis in sorted(folds)]
    return op.ReduceSum(op.Reshape(g, operand), places, keepdims=0)


def _contracted(op: Any, g: Any, at: Along, x: Any, operands: Sequence[Any], attributes: Attributes) -> Any:
    """The product of g with the transposed matrix along one axis."""
    rank = len(extents(x))
    inner = at.axis == rank - 2
    known = interpolation(at, attributes)
    if known is None:
        matrix = _resized_identity(op, at, x, operands, attributes, transposed=inner)
    else:
        matrix = np.asarray(known.T if inner else known, op.dtype.numpy())
    if at.axis == rank - 1:
        return op.MatMul(g, matrix)
    if inner:
        return op.MatMul(matrix, g)
    out = [*(axis for axis in range(rank) if axis != at.axis), at.axis]
    return op.Transpose(op.MatMul(op.Transpose(g, perm=out), matrix), perm=np.argsort(out).tolist())


def _resized_identity(op: Any, at: Along, x: Any, operands: Sequence[Any], attributes: Attributes, transposed: bool) -> Any:
    """The matrix [out, into], or its transpose, by the node itself."""
    roi, scales, sizes = operands
    if isinstance(at.into, int):
        identity: Any = np.eye(at.into, dtype=op.dtype.numpy())
    else:
        index = op.Range(0, op.Squeeze(op.Shape(x, start=at.axis, end=at.axis + 1), [0]), 1)
        identity = op.Cast(op.Equal(index, op.Unsqueeze(index, [1])), to=int(op.dtype))
    crops = attributes["coordinate_transformation_mode"] == "tf_crop_and_resize"
    count = len(attributes["axes"] or extents(x))
    region = _entries(op, roi, [at.entry, at.entry + count]) if crops else None
    one = [_entries(op, operand, [at.entry]) for operand in (scales, sizes)]
    kept = {key: value for key, value in attributes.items() if key not in ("axes", "extrapolation_value")}
    return op.Resize(identity, region, *one, axes=[int(transposed)], **kept)


def _entries(op: Any, operand: Any, places: list[int]) -> Any:
    known = constant(operand)
    return None if operand is None else known[places] if known is not None else op.Gather(operand, places, axis=0)


def _refuses(case: Case) -> str:
    if case.attributes["keep_aspect_ratio_policy"] == "stretch" or _present(case, 2):
        return ""
    if all(interpolation(at, case.attributes) is not None for at in _axes_of(case)):
        return ""
    return "it keeps an aspect ratio that is not known when compiling; give static extents, or scales instead of sizes"


def _present(case: Case, position: int) -> bool:
    return len(case.shapes) > position and case.shapes[position] not in (None, (0,))


def _known(case: Case) -> list[Array | None]:
    return [case.values[position] if _present(case, position) else None for position in (1, 2, 3)]


def _axes_of(case: Case) -> list[Along]:
    x, y = case.shapes[0], case.outputs[0]
    assert x is not None and y is not None
    return resized(x, y, _known(case), _present(case, 2), case.attributes)


def _range(case: Case) -> Interval:
    """An average, except that a cubic kernel has negative weights."""
    beyond = case.attributes["coordinate_transformation_mode"] == "tf_crop_and_resize"
    hull = hull_of(case, *([point(case.attributes["extrapolation_value"])] if beyond else []))
    if case.attributes["mode"] != "cubic":
        return hull
    matrices = [interpolation(at, case.attributes) for at in _axes_of(case)]
    most = math.prod(math.inf if m is None else float(np.abs(m).sum(axis=1).max()) * (1.0 + 1e-9) for m in matrices)
    return product(hull, interval(-most, most))


def _norms(case: Case, position: int) -> tuple[float, float]:
    """The singular values of a separable map are the products of those of its factors."""
    if position:
        raise NotImplementedError("the operands of a resize are not learned")
    lo, hi = 1.0, 1.0
    for at in _axes_of(case):
        matrix = interpolation(at, case.attributes)
        if matrix is None:
            return (0.0, math.inf)
        values = np.linalg.svd(matrix, compute_uv=False)
        lo *= float(values.min()) * (1.0 - 1e-9) if matrix.shape[0] <= matrix.shape[1] else 0.0
        hi *= float(values.max()) * (1.0 + 1e-9)
    return (lo, hi)


_TWICE = np.array([1.0, 1.0, 2.0, 2.0], np.float32)

Resize = Op(
    "Resize",
    "Resampled along axes, by nearest neighbours, lines or cubics; the gradient flows to the values, not to scales and region.",
    vjp=_resize_vjp,
    range=_range,
    norms=_norms,
    untrained=(1, 2),
    refuses=_refuses,
    samples=(
        sample(("N", 2, 3, 2), None, _TWICE, coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        sample(("N", 2, "H", "W"), None, _TWICE, coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        sample(("N", "C", "H", 3), None, np.array([1, 1, 2, 0.7], np.float32)),
        sample(("N", 2, 3, 5), None, np.array([1.0, 1.0, 2.0, 0.6], np.float32), mode="linear"),
        sample((1, 2, "H", "W"), None, None, np.array([5, 3]), mode="linear", axes=[2, 3]),
        sample(
            ("N", 2, 4, 3),
            None,
            None,
            np.array([3, 5]),
            mode="linear",
            axes=[3, 2],
            coordinate_transformation_mode="align_corners",
        ),
        sample(("N", 2, 3, 2, 3), None, None, np.array([5, 4, 2]), mode="linear", axes=[2, 3, 4]),
        sample((1, 1, 4, 4), None, np.array([1.0, 1.0, 2.0, 0.8], np.float32), mode="cubic", exclude_outside=1),
        sample(
            (4, 4), None, np.array([2.0, 1.3], np.float32), mode="cubic", coordinate_transformation_mode="half_pixel_symmetric"
        ),
        sample((4, 5), None, np.array([0.6, 0.5], np.float32), mode="linear", antialias=1),
        sample(
            (3, 4),
            np.array([0.4, -0.2, 0.6, 1.3]),
            None,
            np.array([4, 3]),
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=10.0,
        ),
        sample(("N", 3, 4), None, None, np.array([5, 8]), mode="nearest", axes=[1, 2], keep_aspect_ratio_policy="not_larger"),
    ),
)

ROWS = (Resize,)
