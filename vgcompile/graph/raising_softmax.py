"""A softmax whose hidden rows a file sets to 0 becomes one operator.

    Softmax -> IsNaN -> Where(., 0, p)                 ->  MaskedSoftmax, rows without a number become 0
    Softmax -> Where(row, 0, p), row [..., queries, 1]  ->  MaskedSoftmax, rows of the condition become 0

The softmax of a row of nothing but -inf is 0 / 0. The value is mended behind it, its gradient would not be: what reads the
weights reads the 0 / 0. A Cast between the two goes behind both.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

import numpy as np
import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.cones import only_read_by, stand_in
from vgcompile.graph.emit import Emitter, constant_of, dims, is_real

_CARRIES = frozenset({"Cast", "CastLike", "Identity"})


def raised(emitter: Emitter, kept: Set[str]) -> Iterator[str]:
    """Raise the masked softmaxes of one graph; gives their names."""
    for node in list(emitter.graph):
        if node.op_type == "Where" and node.domain == "" and _masked(emitter, node, kept):
            yield "MaskedSoftmax"


def _masked(emitter: Emitter, where: ir.Node, kept: Set[str]) -> bool:
    condition, zero, weights = where.inputs
    if condition is None or zero is None or weights is None or not is_real(weights) or not _is_zero(zero):
        return False
    beside = [node for value in (condition, zero) if (node := value.producer()) is not None and weights in node.inputs]
    if any(node.graph is not emitter.graph or not only_read_by(node.outputs[0], {where}, kept) for node in beside):
        return False
    chain = _behind_softmax(weights, {where, *beside}, kept)
    x = chain[0].inputs[0] if chain is not None else None
    if chain is None or x is None or x.shape is None or any(node.graph is not emitter.graph for node in chain):
        return False
    asks, axis = condition.producer(), int(attributes_of(chain[0])["axis"])
    by_itself = asks in beside and asks is not None and asks.op_type == "IsNaN"
    if where.outputs[0].shape is None or dims(where.outputs[0]) != dims(x):
        return False
    if not by_itself and (asks in beside or not _of_rows(condition, axis % len(dims(x)) - len(dims(x)))):
        return False
    nodes, hidden = (*chain, *beside, where), None if by_itself else condition
    if weights.dtype == x.dtype:
        stand_in(emitter, nodes, "MaskedSoftmax", x, hidden, axis=axis)
        return True
    with emitter.scope(before=where, dtype=x.dtype):
        masked = emitter.MaskedSoftmax(x, hidden, axis=axis)
    stand_in(emitter, nodes, "Cast", masked, to=int(weights.dtype or ir.DataType.FLOAT))
    return True


def _behind_softmax(value: ir.Value, readers: Set[ir.Node], kept: Set[str]) -> tuple[ir.Node, ...] | None:
    """From a softmax to a value that only ``readers`` read, which it hands on as it is or in another type."""
    node = value.producer()
    if node is None or not only_read_by(value, readers, kept):
        return None
    if node.op_type == "Softmax" and node.domain == "":
        return (node,)
    source = node.inputs[0] if node.op_type in _CARRIES else None
    before = _behind_softmax(source, {node}, kept) if source is not None else None
    return None if before is None else (*before, node)


def _is_zero(value: ir.Value) -> bool:
    """A constant 0, also in the type of another value."""
    while (node := value.producer()) is not None and node.op_type in _CARRIES and node.inputs[0] is not None:
        value = node.inputs[0]
    known = constant_of(value)
    return known is not None and known.size == 1 and not np.any(known)


def _of_rows(condition: ir.Value, axis: int) -> bool:
    """Whether a condition is one for all elements along an axis, counted from the end."""
    if condition.shape is None:
        return False
    extents = dims(condition)
    return len(extents) < -axis or extents[axis] == 1
