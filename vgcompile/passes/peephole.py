"""Identities between operators.

Pieces laid side by side: what reads a tensor in parts (queries, keys and values; the halves that a rotation turns) sends back
each part's adjoint between zeros, and their sum is the parts joined.

    Add(Pad(a, after 2), Pad(b, before 2))  ->  Concat(a, b)

Only where the parts are known to fill the axis, each element once: nothing is rounded otherwise than before.

A matrix turned twice: what a forward turns, its gradient turns back.

    Transpose(Transpose(a))  ->  a
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import onnx_ir as ir

from vgcompile.graph.emit import Emitter, constant_of, dims
from vgcompile.graph.provenance import PREFIX, fact, origin


@dataclass(frozen=True)
class _Parts:
    """A sum of tensors that lie between zeros, by the place where each begins along an axis."""

    axis: int
    at: Mapping[int, ir.Value]

    def with_others(self, others: _Parts) -> _Parts | None:
        """The sum with other ones, or None where they overlap or lie along another axis."""
        spans = sorted((start, start + _extent(value, self.axis)) for start, value in (*self.at.items(), *others.at.items()))
        apart = all(end <= start for (_, end), (start, _) in pairwise(spans))
        return _Parts(self.axis, {**self.at, **others.at}) if others.axis == self.axis and apart else None

    def filling(self, extent: int) -> list[ir.Value] | None:
        """The parts in order, where they fill the axis."""
        return [self.at[start] for start in sorted(self.at)] if sum(map(self._size, self.at)) == extent else None

    def _size(self, start: int) -> int:
        return _extent(self.at[start], self.axis)


def cancel(graph: ir.Graph) -> None:
    """Let what reads a transpose of a transpose read what they were taken of, where one undoes the other. What it leaves unread
    stays."""
    for node in graph:
        if node.op_type != "Transpose" or node.domain or node.outputs[0].is_graph_output():
            continue
        first = node.inputs[0].producer() if node.inputs[0] is not None else None
        if first is None or first.op_type != "Transpose" or first.domain or first.inputs[0] is None:
            continue
        order, back = _order(first), _order(node)
        if order is not None and back is not None and [order[axis] for axis in back] == sorted(order):
            node.outputs[0].replace_all_uses_with(first.inputs[0])


def _order(node: ir.Node) -> list[int] | None:
    """Which axis of its operand each axis of a transpose is; None where nobody knows how many there are."""
    stated, y = node.attributes.get("perm"), node.outputs[0]
    if stated is not None:
        return list(stated.value)
    return None if y.shape is None else list(range(len(y.shape)))[::-1]


def join(model: ir.Model) -> None:
    """Replace, in the main graph, each sum of parts that fill an axis by their concatenation. What it leaves unread stays."""
    graph = model.graph
    emitter: Emitter | None = None
    known: dict[ir.Value, _Parts] = {}
    for node in list(graph):
        parts = _parts(node, known)
        if parts is None:
            continue
        out = node.outputs[0]
        known[out] = parts
        extent = dims(out)[parts.axis]
        pieces = parts.filling(extent) if isinstance(extent, int) and len(parts.at) > 1 else None
        if pieces is not None:
            emitter = emitter or Emitter(graph, model.opset_imports[""])
            _stand_in(emitter, node, pieces, parts.axis)


def _parts(node: ir.Node, known: Mapping[ir.Value, _Parts]) -> _Parts | None:
    if node.domain or not node.outputs or node.outputs[0].shape is None:
        return None
    if node.op_type == "Pad":
        return _padded(node)
    if node.op_type == "Add":
        a, b = (known.get(value) if value is not None else None for value in node.inputs)
        same = (
            a is not None and b is not None and len({tuple(dims(v)) for v in (*node.inputs, *node.outputs) if v is not None}) == 1
        )
        return a.with_others(b) if same and a is not None and b is not None else None
    return None


def _padded(node: ir.Node) -> _Parts | None:
    """A pad with zeros along one axis, by known sizes, of a tensor whose extent there is known."""
    x, pads = node.inputs[0], constant_of(node.inputs[1]) if node.inputs[1] is not None else None
    mode = node.attributes.get("mode")
    if x is None or x.shape is None or pads is None or len(node.inputs) > 2 or (mode is not None and mode.value != "constant"):
        return None
    rank = len(x.shape)
    axes = [axis for axis in range(rank) if len(pads) == 2 * rank and (pads[axis] or pads[rank + axis])]
    if len(axes) != 1 or (pads < 0).any() or not isinstance(dims(x)[axes[0]], int):
        return None
    return _Parts(axes[0], {int(pads[axes[0]]): x})


def _extent(value: ir.Value, axis: int) -> int:
    extent = dims(value)[axis]
    assert isinstance(extent, int)
    return extent


def _stand_in(emitter: Emitter, node: ir.Node, pieces: list[ir.Value], axis: int) -> None:
    """Let the pieces, joined, stand for the node's output under its name."""
    old = node.outputs[0]
    kept = {key: node.metadata_props[PREFIX + key] for key in ("role", "forward") if fact(node, key)}
    with emitter.scope((node.name or node.op_type).lstrip("/"), before=node, dtype=old.dtype, **kept, **origin(node)):
        new = emitter.Concat(*pieces, axis=axis)
    new.shape = old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    emitter.graph.remove(node, safe=True)
    new.name = old.name
