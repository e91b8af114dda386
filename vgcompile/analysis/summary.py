"""What a network weighs, layer by layer: output shapes, parameters, operations and memory, read off the graph.

Of the forward pass as it predicts, for one sample: every symbolic extent counts as 1. FLOPs are those of the rows (ops/flops.py),
a multiply-add is two. Activations are the bytes of every value that the layer's operators make of data; a gradient keeps up to
all of them. The loss is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import onnx_ir as ir

from vgcompile.graph.case import case_of
from vgcompile.graph.emit import dims, is_real
from vgcompile.graph.network import Network
from vgcompile.graph.provenance import fact
from vgcompile.ops import lookup
from vgcompile.ops.op import Case
from vgcompile.passes.inference import as_inference
from vgcompile.passes.lower import lower

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class Weight:
    """``parameters`` are trained, ``state`` is not (running statistics); each number counts once, where it is first used.
    ``shared`` is what was counted before."""

    parameters: int = 0
    state: int = 0
    shared: int = 0
    flops: float = 0.0
    activations: int = 0

    def __add__(self, other: Weight) -> Weight:
        return Weight(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Summary:
    """A layer, or a group of layers by the name that they have in common, or the network. ``name`` is that within its group."""

    name: str
    kind: str = ""
    output: Shape | None = None
    weight: Weight = Weight()
    layers: tuple[Summary, ...] = ()

    def cut(self, depth: int) -> Summary:
        """Without what lies deeper than so many levels."""
        return replace(self, layers=tuple(layer.cut(depth - 1) for layer in self.layers) if depth else ())

    def document(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "output": None if self.output is None else list(self.output),
            "parameters": self.weight.parameters,
            "state": self.weight.state,
            "shared": self.weight.shared,
            "flops": int(self.weight.flops),
            "activation_bytes": self.weight.activations,
            "layers": [layer.document() for layer in self.layers],
        }


def summary(network: Network) -> Summary:
    """The network as a tree of its layers. No parameter's numbers are looked at."""
    model = network.model.clone()
    as_inference(model)
    lower(model)
    parameters, counted = set(network.parameters), set[ir.Value]()
    fed = {value for value in model.graph.inputs if value.name not in model.graph.initializers}
    layers: dict[str, Summary] = {}
    for node in model.graph:
        name = fact(node, "layer") or ""
        if any(value in fed for value in node.inputs):
            fed.update(node.outputs)
        if name == "loss":
            continue
        known = layers.get(name) or Summary(name, fact(node, "kind") or "")
        leaves = any(use.graph is not None and fact(use, "layer") != name for use in node.outputs[0].consumers())
        output = _shape(node.outputs[0]) if leaves or node.outputs[0].is_graph_output() or known.output is None else known.output
        layers[name] = replace(known, output=output, weight=known.weight + _weight(node, parameters, counted, fed))
    paths = [(tuple(name.split("/") if network.text else re.split("[./]", name)), layer) for name, layer in layers.items()]
    return replace(_tree(network.name, paths), kind="network")


def free_extents(network: Network) -> list[str]:
    """The symbols of the inputs, other than that of the batch, which count as 1 as well."""
    inputs = [declared for declared in network.inputs.values() if declared.role == "input"]
    batch = {declared.samples for declared in inputs}
    return list(dict.fromkeys(dim for each in inputs for dim in each.shape if isinstance(dim, str) and dim not in batch))


def _weight(node: ir.Node, parameters: set[str], counted: set[ir.Value], fed: set[ir.Value]) -> Weight:
    row, case = lookup(node.op_type, node.domain), case_of(node)
    made = [value for value in node.outputs if value in fed and is_real(value) and value.shape is not None]
    found = Weight(
        flops=row.flops(case) if row is not None and all(shape is not None for shape in case.outputs[:1]) else 0.0,
        activations=sum(Case().count(dims(value)) * value.dtype.bitwidth // 8 for value in made if value.dtype is not None),
    )
    for value in dict.fromkeys(node.inputs):
        if value is None or value.const_value is None or not is_real(value):
            continue
        size = Case().count(dims(value))
        if value in counted:
            found += Weight(shared=size if value.name in parameters else 0)
        else:
            found += Weight(parameters=size) if value.name in parameters else Weight(state=size if dims(value) else 0)
        counted.add(value)
    return found


def _shape(value: ir.Value) -> Shape | None:
    return dims(value) if isinstance(value.type, ir.TensorType) and value.shape is not None else None


def _tree(name: str, paths: Sequence[tuple[tuple[str, ...], Summary]]) -> Summary:
    """Layers under the names that they have in common, each where the first of its group stands."""
    groups: dict[str, list[tuple[tuple[str, ...], Summary]]] = {}
    for path, layer in paths:
        groups.setdefault(path[0], []).append((path[1:], layer))
    layers = tuple(_branch(head, members) for head, members in groups.items())
    total = reduce(Weight.__add__, (layer.weight for layer in layers), Weight())
    return Summary(name, output=layers[-1].output if layers else None, weight=total, layers=layers)


def _branch(name: str, members: Sequence[tuple[tuple[str, ...], Summary]]) -> Summary:
    (path, layer), *others = members
    if not path and not others:
        return replace(layer, name=name)
    deeper = [(path or (layer.kind,), layer) for path, layer in members]
    return _tree(name, deeper)
