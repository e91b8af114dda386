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
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.interval import Interval, interval, point, product
from vgcompile.ops.cutting import hull_of
from vgcompile.ops.families import uncovered
from vgcompile.ops.interpolation import FREE, Along, interpolation, repetition, resized
from vgcompile.ops.moments import Separable
from vgcompile.ops.op import Array, Attributes, Case, Op, sample
from vgcompile.ops.shape import constant, extents, shaped

FLOAT, INT64 = 1, 7


def _resize_vjp(
    op: Any, g: Any, y: Any, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None, **attributes: Any
) -> tuple[Any, ...]:
    roi, scales, sizes = (None if value is None or extents(value) == (0,) else value for value in (roi, scales, sizes))
    known = [constant(value) for value in (roi, scales, sizes)]
    axes = resized(extents(x), extents(y), known, scales is not None, attributes)
    folds = {at.axis: k for at in axes if (k := repetition(at, attributes))}
    dx = _folded(op, g, x, y, folds) if folds else g
    for at in reversed(axes):
        if at.axis not in folds:
            dx = _contracted(op, dx, at, x, (roi, scales, sizes), attributes)
    return (shaped(dx, x) if dx is not g else dx,)


def _folded(op: Any, g: Any, x: Any, y: Any, folds: dict[int, int]) -> Any:
    """Sum over repeated elements: the axes in ``folds`` become pairs (extent, times)."""
    source, target = extents(x), extents(y)
    shape: list[Any] = []  # numbers, 0 for an extent that stays in its place, and (value, axis) for one that only a run tells
    for axis, dim in enumerate(target):
        if axis in folds:
            shape += [source[axis] if isinstance(source[axis], int) else (x, axis), folds[axis]]
        elif len(shape) == axis and isinstance(dim, str):
            shape.append(0)
        else:
            shape.append(dim if isinstance(dim, int) else (g, axis))
    if sum(isinstance(dim, tuple) for dim in shape) <= 1:
        operand: Any = [-1 if isinstance(dim, tuple) else dim for dim in shape]
    else:
        parts = [op.Shape(dim[0], start=dim[1], end=dim[1] + 1) if isinstance(dim, tuple) else [dim] for dim in shape]
        operand = op.Concat(*parts, axis=0)
    places = [axis + 1 + sum(other < axis for other in folds) for axis in sorted(folds)]
    return op.ReduceSum(op.Reshape(g, operand), places, keepdims=0)


def _contracted(op: Any, g: Any, at: Along, x: Any, operands: Sequence[Any], attributes: Attributes) -> Any:
    """The product of g with the transposed matrix along one axis."""
    rank = len(extents(x))
    inner = at.axis == rank - 2
    known = interpolation(at, attributes)
    if known is None:
        matrix = _resized_identity(op, g, at, x, operands, attributes, transposed=inner)
    else:
        matrix = np.asarray(known.T if inner else known, op.dtype.numpy())
    if at.axis == rank - 1:
        return op.MatMul(g, matrix)
    if inner:
        return op.MatMul(matrix, g)
    out = [*(axis for axis in range(rank) if axis != at.axis), at.axis]
    return op.Transpose(op.MatMul(op.Transpose(g, perm=out), matrix), perm=np.argsort(out).tolist())


def _resized_identity(
    op: Any, g: Any, at: Along, x: Any, operands: Sequence[Any], attributes: Attributes, transposed: bool
) -> Any:
    """The matrix [out, into], or its transpose, by the node itself."""
    roi, scales, sizes = operands
    axes = attributes["axes"] or list(range(len(x.shape)))
    if isinstance(at.into, int):
        identity: Any = np.eye(at.into, dtype=op.dtype.numpy())
    else:
        index = op.Range(0, op.Squeeze(op.Shape(x, start=at.axis, end=at.axis + 1), [0]), 1)
        identity = op.Cast(op.Equal(index, op.Unsqueeze(index, [1])), to=int(op.dtype))
    kept = {
        key: value for key, value in attributes.items() if key not in ("axes", "extrapolation_value", "keep_aspect_ratio_policy")
    }
    along = int(transposed)
    if scales is None and attributes["keep_aspect_ratio_policy"] != "stretch":
        # The scale is not that of the extents, which are rounded: resize by it a little more than there is, and cut.
        ratios = op.Cast(sizes, to=FLOAT) / op.Cast(op.Gather(op.Shape(x), axes, axis=0), to=FLOAT)
        scale = (op.ReduceMin if attributes["keep_aspect_ratio_policy"] == "not_larger" else op.ReduceMax)(ratios, keepdims=1)
        more = op.Cast(op.Ceil(op.Reciprocal(scale)), to=INT64)
        longer = op.Pad(identity, op.Concat([0, 0], *(([0], more) if transposed else (more, [0])), axis=0), mode="edge")
        return op.Slice(
            op.Resize(longer, None, scale, axes=[along], **kept), [0], op.Shape(g, start=at.axis, end=at.axis + 1), [along]
        )
    crops = attributes["coordinate_transformation_mode"] == "tf_crop_and_resize"
    region = _entries(op, roi, [at.entry, at.entry + len(axes)]) if crops else None
    one = [_entries(op, operand, [at.entry]) for operand in (scales, sizes)]
    return op.Resize(identity, region, *one, axes=[along], **kept)


def _entries(op: Any, operand: Any, places: list[int]) -> Any:
    known = constant(operand)
    return None if operand is None else known[places] if known is not None else op.Gather(operand, places, axis=0)


def _refuses(case: Case) -> str:
    """Beyond its end an axis goes on as its last element does, but not for these."""
    attributes = case.attributes
    if attributes["keep_aspect_ratio_policy"] == "stretch" or _present(case, 2):
        return ""
    local = (
        attributes["coordinate_transformation_mode"] in FREE and not attributes["antialias"] and not attributes["exclude_outside"]
    )
    if local or all(interpolation(at, attributes) is not None for at in _axes_of(case)):
        return ""
    return (
        "it keeps an aspect ratio that leaves a fraction of a pixel, or is not known when compiling; give scales instead of sizes"
    )


def _infer(x: Any, roi: Any = None, scales: Any = None, sizes: Any = None, **attributes: Any) -> Any:
    """Axes that are not resized keep their extents: ONNX's inference forgets those that are symbols."""
    dims, axes, factors = extents(x), attributes.get("axes"), constant(scales)
    along = range(len(dims)) if axes is None else [axis % len(dims) for axis in axes]
    kept = set(range(len(dims))) - set(along)
    if factors is not None and attributes.get("coordinate_transformation_mode") != "tf_crop_and_resize":
        kept |= {axis for axis, factor in zip(along, factors, strict=False) if factor == 1.0}
    return ir.Value(shape=ir.Shape([dim if axis in kept else None for axis, dim in enumerate(dims)]), type=x.type)


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
    moments=Separable(lambda case: [interpolation(at, case.attributes) for at in _axes_of(case)]),
    untrained=(1, 2),
    infer=_infer,
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
            np.array([0.4, -0.2, 0.6, 1.3], np.float32),
            None,
            np.array([4, 3]),
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=10.0,
        ),
        sample(("N", 3, 4), None, None, np.array([5, 8]), mode="nearest", axes=[1, 2], keep_aspect_ratio_policy="not_larger"),
    ),
)

Upsample = uncovered(
    "Upsample",
    "An image enlarged by whole or broken factors, by the nearest or by weighted elements.",
    "deprecated since opset 10, where Resize does the same; a file that is read is converted",
)

ROWS = (Resize, Upsample)
