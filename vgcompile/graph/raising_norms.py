"""Normalizations that a file holds decomposed become one operator each.

    ReduceMean, Sub, Pow, ReduceMean, Add, Sqrt, Div, Mul, Add  ->  LayerNormalization
    Pow, ReduceMean, Add, Sqrt, Div, Mul                        ->  RMSNormalization
    Reshape, InstanceNormalization, Reshape, Mul, Add           ->  GroupNormalization
    Softmax, Log                                                ->  LogSoftmax

All but the third are known by their values (cones.py): where the variance is added up, and whether by a square, a product or a
power, does not matter. Scale and shift that follow go in with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.graph.cones import Cone, Field, stand_in
from vgcompile.graph.emit import Emitter, constant_of, dims, is_real
from vgcompile.ops.op import Array

TOLERANCE = 1e-6
_STEPS = 6
_EXTENTS = (6, 5)  # of an axis whose extent is a symbol, or large; two, for a sum over six elements is no mean


MEANS = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceSumSquare", "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Reciprocal", "Neg", "Identity"}
    | {"Cast"}
)
LOGARITHMS = frozenset({"Softmax", "Log", "Identity", "Cast"})


def raised(emitter: Emitter, kept: Set[str]) -> Iterator[str]:
    """Raise the normalizations of one graph; gives their names."""
    yield from _by_values(emitter, MEANS, "ReduceMean", kept)
    yield from _by_values(emitter, LOGARITHMS, "Log", kept)
    for node in list(emitter.graph):
        if node.op_type == "InstanceNormalization" and node.graph is emitter.graph and _group_normalization(emitter, node, kept):
            yield "GroupNormalization"


def _by_values(emitter: Emitter, of: Set[str], by: str, kept: Set[str]) -> Iterator[str]:
    anchors = [node for node in emitter.graph if node.op_type == by]
    if not anchors:
        return
    area = Field({node: index for index, node in enumerate(emitter.graph)}, of, kept)
    candidates = {root for node in anchors for root in area.roots(node, _STEPS)}
    for root in sorted(candidates, key=area.order.__getitem__, reverse=True):
        cones = list(area.cones(root)) if root.graph is emitter.graph and is_real(root.outputs[0]) else []
        for cone in reversed(cones):  # the large first: behind centring stands a root mean square
            if (name := _recognized(emitter, cone, kept)) is not None:
                yield name
                break


def _recognized(emitter: Emitter, cone: Cone, kept: Set[str]) -> str | None:
    base, value = cone.base, cone.root.outputs[0]
    kinds = {node.op_type for node in cone.nodes}
    wide = base.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    if len(cone.nodes) < 2 or base.dtype != value.dtype or base.shape is None or dims(base) != dims(value):
        return None
    samples = [_points(dims(base), extent) for extent in _EXTENTS]
    rank = len(dims(base))
    if "ReduceMean" in kinds and wide:
        for axis in reversed(range(rank)):
            if (epsilon := _fit_all(cone, samples, axis, centred=True)) is not None:
                return _layer_normalization(emitter, cone, axis, epsilon, kept)
            if (epsilon := _fit_all(cone, samples, axis, centred=False)) is not None:
                return _root_mean_square(emitter, cone, axis, epsilon, kept)
    if "Softmax" in kinds and cone.root.op_type == "Log":
        for axis in range(rank):
            if all(_is_log_softmax(cone, points, axis) for points in samples):
                stand_in(emitter, cone.nodes, "LogSoftmax", base, axis=axis)
                return "LogSoftmax"
    return None


def _is_log_softmax(cone: Cone, points: Array, axis: int) -> bool:
    y, shifted = cone.at(points), points - points.max(axis, keepdims=True)
    expected = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
    return y is not None and y.shape == points.shape and np.allclose(y, expected, rtol=1e-9, atol=1e-9)


def _fit_all(cone: Cone, samples: Sequence[Array], axis: int, *, centred: bool) -> float | None:
    """The epsilon of ``_fits``, where the cone normalizes samples of any extents."""
    found = [_fits(cone, points, axis, centred=centred) for points in samples]
    return None if None in found else found[0]


def _points(shape: Sequence[int | str], extent: int) -> Array:
    """Numbers of this shape, of known axes no longer than need be."""
    extents = [
        dim if isinstance(dim, int) and dim <= 4096 and axis == len(shape) - 1 else extent for axis, dim in enumerate(shape)
    ]
    return np.random.default_rng(7).standard_normal(extents) * 1.3 + 0.4


def _fits(cone: Cone, points: Array, axis: int, *, centred: bool) -> float | None:
    """The epsilon with which the cone normalizes over the axes from ``axis`` on, or None.

    y = c / sqrt(mean(c^2) + epsilon) where c is the centred value, or the value itself: small values show epsilon."""
    axes = tuple(range(axis, points.ndim))

    def parts(x: Array) -> tuple[Array, Array]:
        c = x - x.mean(axes, keepdims=True) if centred else x
        return c, (c * c).mean(axes, keepdims=True)

    small = points * 1e-4
    y = cone.at(small)
    if y is None or y.shape != points.shape or not np.isfinite(y).all():
        return None
    c, square = parts(small)
    with np.errstate(all="ignore"):
        epsilon = float(np.median((c / y) ** 2 - square))
    if not 0.0 <= epsilon < 0.1:
        return None
    for scale in (1.0, 1e-2, 30.0):
        found = cone.at(points * scale)
        c, square = parts(points * scale)
        with np.errstate(all="ignore"):
            off = np.inf if found is None else np.max(np.abs(found - c / np.sqrt(square + epsilon)))
        if not off <= TOLERANCE:  # nor is it where one of them is no number
            return None
    return float(np.float32(epsilon)) if epsilon > 1e-30 else 0.0


def _layer_normalization(emitter: Emitter, cone: Cone, axis: int, epsilon: float, kept: Set[str]) -> str | None:
    shape = dims(cone.base)[axis:]
    nodes, scale = _followed(cone.nodes, "Mul", shape, kept)
    shifted, bias = _followed(nodes, "Add", shape, kept) if scale is not None else (nodes, None)
    factor = _ones(cone.base, shape) if scale is None else scale
    if factor is None:
        return None
    stand_in(emitter, shifted, "LayerNormalization", cone.base, factor, bias, axis=axis, epsilon=_shown(epsilon))
    return "LayerNormalization"


def _root_mean_square(emitter: Emitter, cone: Cone, axis: int, epsilon: float, kept: Set[str]) -> str | None:
    shape = dims(cone.base)[axis:]
    nodes, scale = _followed(cone.nodes, "Mul", shape, kept)
    factor = _ones(cone.base, shape) if scale is None else scale
    if factor is None:
        return None
    stand_in(emitter, nodes, "RMSNormalization", cone.base, factor, axis=axis, epsilon=_shown(epsilon))
    return "RMSNormalization"


def _ones(x: ir.Value, shape: Sequence[int | str]) -> Array | None:
    """A scale that changes nothing, of extents that are known."""
    known = [dim for dim in shape if isinstance(dim, int)]
    return np.ones(known, _numpy_type(x)) if len(known) == len(shape) else None


def _numpy_type(value: ir.Value) -> np.dtype[Any]:
    assert value.dtype is not None
    return value.dtype.numpy()


def _shown(epsilon: float) -> float:
    """Without the digits that reading it off has added."""
    return float(f"{epsilon:.6g}")


def _followed(
    nodes: Sequence[ir.Node], operator: str, shape: Sequence[int | str], kept: Set[str]
) -> tuple[tuple[ir.Node, ...], ir.Value | None]:
    """The nodes and the one behind them, if it is this operator's, alone reads them, and has an operand of this shape."""
    value = nodes[-1].outputs[0]
    uses = list(value.uses())
    if (
        len(uses) != 1
        or value.is_graph_output()
        or value.name in kept
        or uses[0][0].op_type != operator
        or uses[0][0].graph is not nodes[-1].graph
    ):
        return tuple(nodes), None
    node, place = uses[0]
    other = node.inputs[1 - place]
    if other is None or other.shape is None or dims(other) != tuple(shape) or other.dtype != value.dtype:
        return tuple(nodes), None
    return (*nodes, node), other


def _group_normalization(emitter: Emitter, node: ir.Node, kept: Set[str]) -> bool:
    """Reshape to [N, groups, -1], normalized with scale 1 and shift 0, reshaped back; scale and shift of [C, 1, ...] behind."""
    if len(node.inputs) != 3 or any(value is None for value in node.inputs):
        return False
    flat, ones, zeros = node.inputs
    assert flat is not None and ones is not None and zeros is not None
    before, after = flat.producer(), _only_user(node)
    if before is None or after is None or before.op_type != "Reshape" or after.op_type != "Reshape":
        return False
    x, y = before.inputs[0], after.outputs[0]
    if kept & {flat.name, node.outputs[0].name} or flat.is_graph_output():
        return False
    one, zero = constant_of(ones), constant_of(zeros)
    if x is None or one is None or zero is None or not (one == 1.0).all() or not (zero == 0.0).all():
        return False
    if x.shape is None or y.shape is None or dims(x) != dims(y) or len(dims(x)) < 3 or len(flat.uses()) != 1:
        return False
    groups, channels = dims(flat)[1], dims(x)[1]
    same_batch = dims(flat)[0] == dims(x)[0]
    if not isinstance(groups, int) or not isinstance(channels, int) or not same_batch or len(dims(flat)) < 3 or channels % groups:
        return False
    column = (channels, *(1,) * (len(dims(x)) - 2))
    nodes, scale = _followed((before, node, after), "Mul", column, kept)
    shifted, bias = _followed(nodes, "Add", column, kept) if scale is not None else (nodes, None)
    if scale is None and (follows := _followed(nodes, "Add", column, kept))[1] is not None:
        shifted, bias = follows
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    kind = _numpy_type(x)
    with emitter.scope(before=shifted[-1]):
        each = [
            np.full(channels, neutral, kind) if value is None else emitter.Reshape(value, [channels])
            for value, neutral in ((scale, 1.0), (bias, 0.0))
        ]
    stand_in(emitter, shifted, "GroupNormalization", x, *each, num_groups=groups, epsilon=epsilon)
    return True


def _only_user(node: ir.Node) -> ir.Node | None:
    uses = list(node.outputs[0].uses())
    return uses[0][0] if len(uses) == 1 and not node.outputs[0].is_graph_output() and uses[0][0].graph is node.graph else None
