"""Types and shapes inside branches and loops, which ONNX's inference leaves open: it does not know whether a loop keeps the
shape of a state.

What a body reads has the type of the node's operand. A state is taken to keep its shape, the body is inferred, and where a step
hands on another extent the axis becomes a symbol; so on, until a step hands on what it was given: a proof by induction.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vgcompile.graph.emit import Emitter, dims
from vgcompile.graph.view import bodies
from vgcompile.ops import lookup
from vgcompile.ops.op import Dim

Dims = tuple[Dim, ...] | None


def infer_bodies(model: ir.Model) -> None:
    """Give every value inside the bodies of a model a type and, where it can be had, a shape; and what follows from them."""
    if any(bodies(node) for node in model.graph):
        _infer_graph(Emitter(model.graph, model.opset_imports[""]), model.graph)


def _infer_graph(emitter: Emitter, graph: ir.Graph) -> None:
    for node in graph:
        if bodies(node):
            _infer_bodies(emitter, node)
        elif all(value is None or value.shape is not None for value in node.inputs):
            for value, (dtype, shape) in zip(node.outputs, emitter.types_of(node), strict=True):
                _settle(value, dtype, shape)


def _infer_bodies(emitter: Emitter, node: ir.Node) -> None:
    row = lookup(node.op_type, node.domain)
    if row is None or row.infer is None:
        return
    for body in bodies(node):
        entering = row.enters(node) if row.enters is not None else []
        for value, (dtype, shape, _) in zip(body.inputs, entering, strict=True):
            value.type = ir.TensorType(dtype)
            value.shape = None if shape is None else ir.Shape(shape)
        states = [
            (value, body.outputs[handed])
            for value, (_, _, handed) in zip(body.inputs, entering, strict=True)
            if handed is not None
        ]
        _infer_graph(emitter, body)
        while _widened(states):
            _infer_graph(emitter, body)
    if all(value.shape is not None for body in bodies(node) for value in body.outputs):
        for value, (dtype, shape) in zip(node.outputs, emitter.types_of(node), strict=False):
            _settle(value, dtype, shape)


def _widened(states: Sequence[tuple[ir.Value, ir.Value]]) -> bool:
    """Whether a state had to be given symbols, or lost its rank, because a step hands it on in another shape."""
    changed = False
    for given, handed in states:
        before, common = _shape(given), _common(given, _shape(given), _shape(handed))
        if common != before:
            given.shape = None if common is None else ir.Shape(common)
            changed = True
    return changed


def _shape(value: ir.Value) -> Dims:
    return None if value.shape is None else dims(value)


def _common(value: ir.Value, a: Dims, b: Dims) -> Dims:
    if a is None or b is None or len(a) != len(b):
        return None
    return tuple(x if x == y else f"{value.name}.{axis}" for axis, (x, y) in enumerate(zip(a, b, strict=True)))


def _settle(value: ir.Value, dtype: ir.DataType, shape: Sequence[Dim | None] | None) -> None:
    """Note what was inferred; an extent that is known already, as a number, stays."""
    value.type = ir.TensorType(dtype)
    if shape is None:
        return
    have: Sequence[Dim] = dims(value) if value.shape is not None and len(value.shape) == len(shape) else ()
    found = [f"{value.name}.{axis}" if dim is None else dim for axis, dim in enumerate(shape)]
    value.shape = ir.Shape([old if isinstance(old, int) else new for old, new in zip(have or found, found, strict=True)])
