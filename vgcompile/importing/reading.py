"""What rules ask of a graph: what values hold, who reads them, where data come through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vgcompile.graph import raising
from vgcompile.graph.network import Network
from vgcompile.importing.trial import Array, Region, Trial
from vgcompile.ops import lookup


class Facts:
    """A Reading (finding.py) of one network. ``rates`` are those of dropouts that stood on an attention's weights."""

    def __init__(self, network: Network, rates: dict[str, float]) -> None:
        self.network, self.graph = network, network.model.graph
        self.opset = network.model.opset_imports[""]
        self.region = Region(self.graph)
        self.inputs = [value for value in self.graph.inputs if value.name in network.inputs]
        self.outputs: Sequence[str] = network.outputs
        self.needed: Sequence[ir.Node] = self.leading_to([value for value in self._values() if value.name in network.outputs], {})
        self.taken: set[ir.Node] = set()
        self._rates = rates
        self._arrays: dict[ir.Value, Array | None] = {}

    def _values(self) -> list[ir.Value]:
        return [*self.graph.inputs, *(value for node in self.graph for value in node.outputs)]

    def leading_to(self, values: Sequence[ir.Value], ends: dict[ir.Value, Sequence[ir.Value]]) -> list[ir.Node]:
        """The nodes that data go through on their way to values, in order; ``ends`` are what composites make of others."""
        found: set[ir.Node] = set()
        seen: set[ir.Value] = set()
        open_ends = list(values)
        while open_ends:
            value = open_ends.pop()
            node = value.producer()
            if value in seen or not self.region.fed(value):
                continue
            seen.add(value)
            if value in ends:
                open_ends += ends[value]
            elif node is not None:
                found.add(node)
                open_ends += self.region.operands(node)
        return sorted(found, key=self.region.order.__getitem__)

    def array(self, value: ir.Value | None) -> Array | None:
        if value is None:
            return None
        if value not in self._arrays:
            self._arrays[value] = self._computed(value)
        return self._arrays[value]

    def _computed(self, value: ir.Value) -> Array | None:
        if value.const_value is not None:
            return np.asarray(value.const_value.numpy())
        made = None if self.region.fed(value) else Trial(self.opset, {}).run(value, {})
        return made if made is None or value.dtype is None else made.astype(value.dtype.numpy())

    def only_user(self, value: ir.Value) -> ir.Node | None:
        users = self.users(value)
        alone = len(users) == 1 and list(users[0].inputs).count(value) == 1 and value.name not in self.network.outputs
        return users[0] if alone else None

    def take(self, node: ir.Node) -> None:
        self.taken.add(node)

    def users(self, value: ir.Value) -> Sequence[ir.Node]:
        readers = set(value.consumers())
        return [node for node in self.needed if node in readers]

    def readers(self, name: str) -> int:
        """How many nodes read an initializer."""
        return len(list(self.graph.initializers[name].uses())) if name in self.graph.initializers else 0

    def telling(self, name: str) -> bool:
        """Whether an initializer holds more than one number over and over."""
        value = self.graph.initializers.get(name)
        array = self.array(value) if value is not None else None
        return array is not None and bool(np.any(array != array.reshape(-1)[:1]))

    def rate(self, node: ir.Node) -> float:
        if node.op_type != "Dropout":
            return self._rates.get(str(node.outputs[0].name), 0.0)
        ratio = self.array(node.inputs[1]) if len(node.inputs) > 1 else None
        return 0.5 if ratio is None else float(str(np.float32(ratio)))

    def learned(self, value: ir.Value) -> bool:
        return bool(self._parameters(value, None))

    def parameters_above(self, value: ir.Value, base: ir.Value) -> Sequence[ir.Value]:
        return self._parameters(value, base)

    def _parameters(self, value: ir.Value, base: ir.Value | None) -> list[ir.Value]:
        return [held for held in self.prepared(value, base) if held.name in self.network.parameters]

    def prepared(self, value: ir.Value, base: ir.Value | None = None) -> list[ir.Value]:
        """The initializers that a value is made of, but for those of ``base``."""
        found: dict[ir.Value, None] = {}
        seen: set[ir.Value] = set()
        open_ends = [value]
        while open_ends:
            at = open_ends.pop()
            if at in seen or at is base:
                continue
            seen.add(at)
            if at.const_value is not None:
                found[at] = None
            elif (node := at.producer()) is not None and not _counts(node):
                open_ends += [operand for operand in node.inputs if operand is not None]
        return list(found)


def _counts(node: ir.Node) -> bool:
    """Whether a node reads the shape of its operand alone."""
    row = lookup(node.op_type, node.domain)
    return row is not None and row.by_shape


def without_dropout(network: Network) -> dict[str, float]:
    """Take dropouts on the weights of an attention out of a network, which they keep from being one node; returns the rates, by
    the name of what the attention gives. Changes the network's model."""
    graph, rates = network.model.graph, {}
    for node in list(graph):
        x, y = (node.inputs[0], node.outputs[0]) if node.op_type == "Dropout" else (None, None)
        before, behind = (x.producer(), list(y.consumers())) if x is not None and y is not None else (None, [])
        if x is None or y is None or before is None or "Softmax" not in before.op_type:
            continue
        if [user.op_type for user in behind] == ["MatMul"] and y.name not in network.outputs:
            ratio = node.inputs[1].const_value if len(node.inputs) > 1 and node.inputs[1] is not None else None
            rates[str(behind[0].outputs[0].name)] = 0.5 if ratio is None else float(str(np.float32(ratio.numpy())))
            y.replace_all_uses_with(x)
            graph.remove(node, safe=True)
    if rates:
        raising.raised(network.model, frozenset(network.parameters))
    return rates
