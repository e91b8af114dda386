"""A node as a row's facts see it."""

from __future__ import annotations

import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import constant_of, dims
from vgcompile.ops import lookup
from vgcompile.ops.op import Case, Dim


def case_of(node: ir.Node) -> Case:
    """What the graph alone knows of a node: attributes with their defaults, shapes, constants."""
    return Case(
        attributes_of(node),
        tuple(None if v is None else _shape(v) for v in node.inputs),
        tuple(_shape(v) for v in node.outputs),
        (None,) * len(node.inputs),
        tuple(None if v is None else constant_of(v) for v in node.inputs),
    )


def _shape(value: ir.Value) -> tuple[Dim, ...] | None:
    """None where it is unknown, and for a value that is no tensor: a sequence, an optional value."""
    tensor = value.type is None or isinstance(value.type, ir.TensorType)
    return dims(value) if tensor and value.shape is not None else None


def draws(node: ir.Node) -> bool:
    """Whether a node gives out random numbers: dropout does so in training only."""
    row = lookup(node.op_type, node.domain)
    return row is not None and row.random and not row.idle(case_of(node))
