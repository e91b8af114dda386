"""A node as a row's facts see it."""

from __future__ import annotations

import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import constant_of, dims
from vgcompile.ops.op import Case


def case_of(node: ir.Node) -> Case:
    """What the graph alone knows of a node: attributes with their defaults, shapes, constants."""
    return Case(
        attributes_of(node),
        tuple(None if v is None or v.shape is None else dims(v) for v in node.inputs),
        tuple(None if v.shape is None else dims(v) for v in node.outputs),
        (None,) * len(node.inputs),
        tuple(None if v is None else constant_of(v) for v in node.inputs),
    )
