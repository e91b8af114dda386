"""What of a graph is known before a run: what follows from constants, from shapes, and from whole numbers in the data.

Exporters compute masks, positions and shapes with dozens of operators; where extents are known, all of them are.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.errors import ModelError
from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import Emitter, dims
from vgcompile.graph.folding import worked_out
from vgcompile.ops.op import Case, Dim, Op

Array = np.ndarray[Any, Any]
LARGEST = 1 << 22


def value_of(node: ir.Node, row: Op, case: Case, opset: int) -> Array | None:
    """What a node gives out, where its operands or, for an operator of shapes alone, their extents are known; else None."""
    if row.random or len(node.outputs) > 1:
        return None
    values = (_of_shape(case), *case.values[1:]) if row.by_shape else case.values
    given = [(v, value) for v, value in zip(node.inputs, values, strict=True) if v is not None]
    if any(value is None or (value.size > LARGEST and not row.by_shape) for _, value in given):
        return None
    if row.numpy is not None and len(given) == len(node.inputs):
        try:
            return np.asarray(row.numpy(*values, **attributes_of(node)))
        except (ValueError, TypeError, IndexError):
            pass
    known = {v: value for v, value in given if value is not None}
    found = worked_out([node], node.outputs[0], known, opset) if known and not node.domain else None
    return found if found is not None and found.size <= LARGEST else None


def named(node: ir.Node, case: Case, emitter: Emitter) -> dict[Dim, Dim]:
    """What the symbols of a node's outputs stand for, as inference tells from what is known of its operands."""
    operands = [
        v and ir.Value(name=v.name, type=v.type, shape=None if dims is None else ir.Shape(dims), const_value=_tensor(value))
        for v, dims, value in zip(node.inputs, case.shapes, case.values, strict=True)
    ]
    twin = ir.Node(node.domain, node.op_type, operands, node.attributes.values(), num_outputs=len(node.outputs))
    try:
        types = emitter.types_of(twin)
    except ModelError:
        return {}
    found = [
        (dims(v), shape) for v, (_, shape) in zip(node.outputs, types, strict=True) if v.shape is not None and shape is not None
    ]
    return {old: new for each in found if len(each[0]) == len(each[1]) for old, new in zip(*each, strict=True) if new is not None}


def _tensor(value: Array | None) -> ir.TensorProtocol | None:
    """Of what inference may read: axes, extents, scales."""
    return None if value is None or value.ndim > 1 or value.dtype.kind not in "iuf" else ir.Tensor(np.asarray(value))


def _of_shape(case: Case) -> Array | None:
    """Something of the first operand's shape, where that is known."""
    known = [dim for dim in case.shapes[0] or () if isinstance(dim, int)]
    return np.broadcast_to(np.zeros((), np.int8), known) if len(known) == len(case.shapes[0] or "?") else None


def alike(value: Array, batch: int) -> bool:
    """Whether all samples have the same, as far as there are any."""
    return value.ndim == 0 or value.shape[0] == 1 or (value.shape[0] == batch and bool((value == value[:1]).all()))


def extent(dim: Dim, known: Mapping[str, Dim]) -> Dim:
    """What a symbol, or an expression of several, comes to; itself where that is not known."""
    if not isinstance(dim, str) or dim in known:
        return known.get(str(dim), dim)
    return _evaluated(dim, tuple((symbol, n) for symbol, n in known.items() if isinstance(n, int)))


@lru_cache(maxsize=1024)
def _evaluated(dim: str, known: tuple[tuple[str, int], ...]) -> Dim:
    if dim.isidentifier():
        return dim
    found = ir.SymbolicDim(dim).evaluate(dict(known))
    return found if isinstance(found, int) else dim
