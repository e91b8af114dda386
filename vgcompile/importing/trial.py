"""What a part of a graph does is known by a run of it on chosen numbers: layouts, masks, positions and linear maps, whatever
their spelling.

    x [2, 3, 8] -> Transpose, MatMul, Add, Reshape, Transpose -> q [2, 4, 3, 2]     is     8 features -> 4 heads of 2
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.graph.emit import dims
from vgcompile.graph.folding import worked_out
from vgcompile.graph.view import bodies
from vgcompile.ops import lookup

Array = np.ndarray[Any, Any]
_STEPS = 256  # nodes of a part


@dataclass(frozen=True)
class Trial:
    """Runs parts of a graph in float64; ``extents`` stand for symbols."""

    opset: int
    extents: Mapping[str, int]

    def shape(self, value: ir.Value) -> tuple[int, ...] | None:
        """The extents of a value in this run; None where one of them is not known."""
        if value.shape is None:
            return None
        sizes = [dim if isinstance(dim, int) else self.extents.get(dim) for dim in dims(value)]
        return None if None in sizes else tuple(size for size in sizes if size is not None)

    def run(self, target: ir.Value, given: Mapping[ir.Value, Array]) -> Array | None:
        """What ``target`` holds where other values hold what is ``given``; None where it reads more than is known."""
        known: dict[ir.Value, Array] = {value: _wide(array) for value, array in given.items()}
        nodes: list[ir.Node] = []
        seen: set[ir.Node] = set()
        open_ends: list[tuple[ir.Value, bool]] = [(target, False)]
        while open_ends:
            value, read = open_ends.pop()
            node = value.producer()
            if read:
                assert node is not None
                nodes.append(node)
            elif value in known or node in seen:
                continue
            elif value.const_value is not None:
                known[value] = _wide(np.asarray(value.const_value.numpy()))
            elif node is None or bodies(node) or len(seen) == _STEPS:
                return None
            elif (counted := self._counted(node)) is not None:
                known[value] = counted
            else:
                seen.add(node)
                open_ends.append((value, True))
                open_ends += [(operand, False) for operand in node.inputs if operand is not None]
        return known[target] if target in known else worked_out(nodes, target, known, self.opset, wide=True)

    def _counted(self, node: ir.Node) -> Array | None:
        """What a node counts of a shape that is known without a run."""
        row, x = lookup(node.op_type, node.domain), node.inputs[0] if node.inputs else None
        shape = self.shape(x) if row is not None and row.by_shape and x is not None else None
        if x is None or shape is None:
            return None
        return worked_out([node], node.outputs[0], {x: np.broadcast_to(np.zeros((), np.int8), shape)}, self.opset)


def _wide(given: Array) -> Array:
    array = np.asarray(given)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


class Region:
    """Which values data have a part in, beyond their shape, and through which ones they come."""

    def __init__(self, graph: ir.Graph) -> None:
        self.order = {node: place for place, node in enumerate(graph)}
        self._fed: dict[ir.Value, bool] = {}
        for node in graph:
            row = lookup(node.op_type, node.domain)
            counts = row is not None and row.by_shape
            random = row is not None and row.random and not node.inputs
            fed = not counts and (random or bool(bodies(node)) or any(self.fed(value) for value in node.inputs))
            self._fed.update(dict.fromkeys(node.outputs, fed))

    def fed(self, value: ir.Value | None) -> bool:
        """Whether an element of it depends on data."""
        if value is None:
            return False
        return self._fed.get(value, value.producer() is None and value.const_value is None)

    def operands(self, node: ir.Node) -> list[ir.Value]:
        return [value for value in dict.fromkeys(node.inputs) if value is not None and self.fed(value)]

    def passed(self, values: Sequence[ir.Value]) -> Iterator[tuple[ir.Value, tuple[ir.Node, ...]]]:
        """The values through which all data reach these, the nearest first, each with the nodes on the way, in order."""
        frontier = set(values)
        inside: list[ir.Node] = []
        while len(inside) < _STEPS:
            if len(frontier) == 1:
                yield next(iter(frontier)), tuple(reversed(inside))
            made = [(self.order[node], node) for value in frontier if (node := value.producer()) in self.order and node]
            if not made or len({value for value in frontier if value.producer() is None}) > 1:
                return
            node = max(made, key=lambda entry: entry[0])[1]
            inside.append(node)
            frontier = (frontier - set(node.outputs)) | set(self.operands(node))
