"""Cones: parts of a graph that compute one value from one other, and what they compute, as numbers.

    x -> Mul -> Erf -> Add -> Mul -> y        a cone from x to y, whatever the spelling: y = f(x)
    `----------------------------^

A cone holds no value that anybody else reads, so another node may stand in its place. Read with NumPy at chosen points it is
known by its values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import Emitter, constant_of, is_real
from vgcompile.graph.provenance import PREFIX
from vgcompile.ops import lookup
from vgcompile.ops.op import Array

LARGEST = 16  # nodes: the longest spelling of an operator that is looked for has 12


@dataclass(frozen=True)
class Cone:
    """The ``nodes``, in order, that compute ``root``'s output from ``base`` and from constants alone."""

    base: ir.Value
    nodes: tuple[ir.Node, ...]

    @property
    def root(self) -> ir.Node:
        return self.nodes[-1]

    def at(self, x: Array) -> Array | None:
        """The value at ``x``, in float64; None where an operator has no reading."""
        known: dict[ir.Value, Any] = {self.base: x}
        with np.errstate(all="ignore"):
            for node in self.nodes:
                row = lookup(node.op_type, node.domain)
                operands = [None if v is None else known[v] if v in known else constant_of(v) for v in node.inputs]
                try:
                    assert row is not None and row.numpy is not None
                    wide = [o.astype(np.float64) if o is not None and o.dtype.kind not in "iub" else o for o in operands]
                    known[node.outputs[0]] = np.asarray(row.numpy(*wide, **attributes_of(node)))
                except (TypeError, ValueError, LookupError, NotImplementedError, AttributeError):
                    return None
        return known[self.root.outputs[0]]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Field:
    """Where cones are looked for: the nodes of one graph, of operators that are ``allowed``; values called ``kept`` are nobody's
    inside, nor constants."""

    order: Mapping[ir.Node, int]
    allowed: Set[str]
    kept: Set[str]

    def cones(self, root: ir.Node) -> Iterator[Cone]:
        """The cones that end in a node, the small ones first."""
        inside: set[ir.Node] = set()
        frontier = set(root.outputs)
        while len(inside) < LARGEST:
            made = [(self.order.get(node, -1), value, node) for value in frontier if (node := value.producer()) is not None]
            if not made or len(frontier) - len(made) > 1:
                return
            _, value, node = max(made, key=lambda entry: entry[0])
            if not self._holds(node) or (inside and not self._hidden(value, inside)):
                return
            inside.add(node)
            frontier = (frontier - {value}) | {v for v in node.inputs if v is not None and not self._constant(v)}
            if len(frontier) == 1:
                yield Cone(next(iter(frontier)), tuple(sorted(inside, key=self.order.__getitem__)))

    def roots(self, anchor: ir.Node, steps: int) -> set[ir.Node]:
        """The nodes, the anchor among them, that a spelling with this operator in it may end in."""
        seen, edge = {anchor}, {anchor}
        for _ in range(steps):
            users = {user for node in edge for value in node.outputs for user, _ in value.uses()}
            edge = {user for user in users - seen if self._holds(user)}
            seen |= edge
        return seen

    def _holds(self, node: ir.Node) -> bool:
        return node in self.order and node.op_type in self.allowed and node.domain == "" and len(node.outputs) == 1

    def _hidden(self, value: ir.Value, inside: Set[ir.Node]) -> bool:
        """Whether nobody outside reads a value, which is no integer: a step would show at no point."""
        read = value.is_graph_output() or value.name in self.kept or not is_real(value)
        return not read and all(user in inside for user, _ in value.uses())

    def _constant(self, value: ir.Value) -> bool:
        """A number, or axes; whatever may be learned is none."""
        if value.const_value is None or value.is_graph_input() or value.name in self.kept:
            return False
        return value.const_value.size == 1 if is_real(value) else value.const_value.size <= LARGEST


def only_read_by(value: ir.Value, readers: Set[ir.Node], kept: Set[str]) -> bool:
    """Whether nobody but these nodes reads a value, nor asks for it."""
    return not value.is_graph_output() and value.name not in kept and all(user in readers for user, _ in value.uses())


def stand_in(emitter: Emitter, nodes: Sequence[ir.Node], operator: str, *operands: Any, **attributes: Any) -> ir.Value:
    """Put one node in the place of several, under the last one's name and facts, and the name of what it gives out."""
    root = nodes[-1]
    facts = {key.removeprefix(PREFIX): value for key, value in root.metadata_props.items() if key.startswith(PREFIX)}
    with emitter.scope(before=root, dtype=root.outputs[0].dtype, **facts):
        made: ir.Value = emitter.emit(operator, *operands, **attributes)
    old = root.outputs[0]
    made.shape, name = old.shape, old.name
    made.metadata_props.update(old.metadata_props)
    old.replace_all_uses_with(made, replace_graph_outputs=True)
    old.name = None
    made.name = name
    producer = made.producer()
    assert producer is not None
    producer.name = root.name or producer.name
    read = [value for node in nodes for value in node.inputs]
    for node in reversed(nodes):
        emitter.graph.remove(node, safe=True)
    for value in read:
        _drop_idle(emitter.graph, value)
    return made


def _drop_idle(graph: ir.Graph, value: ir.Value | None) -> None:
    """Take out what computed a value that nobody reads any more, a shape as a rule."""
    node = value.producer() if value is not None else None
    if node is None or node.graph is not graph or any(v.uses() or v.is_graph_output() for v in node.outputs):
        return
    operands = list(node.inputs)
    graph.remove(node, safe=True)
    for operand in operands:
        _drop_idle(graph, operand)
