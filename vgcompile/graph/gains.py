"""What an activation does to the scale of what it is given: E[f(z)^2] and E[f'(z)^2] over z from N(0, 1), by quadrature.

The activation is emitted into a graph of its own, which is then read with NumPy at the nodes, values and slopes side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import Emitter, arithmetic, dims
from vgcompile.layers.initialization import Gain
from vgcompile.layers.layer import Shape
from vgcompile.ops import NUMPY, lookup
from vgcompile.ops.op import at
from vgcompile.ops.reading import slope
from vgcompile.quadrature import gaussian

if TYPE_CHECKING:
    from vgcompile.layers.layer import Site

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Alone:
    """The site of an activation that stands in no layer: it has no parameters."""

    op: Emitter

    def shape(self, value: ir.Value) -> Shape:
        return dims(value)

    def parameter(self, *_: Any, **__: Any) -> Any:
        raise ValueError("the activation learns, and has no gain of its own; state a number")


@lru_cache(maxsize=256)
def gain_of(gain: float | Gain) -> float:
    """The number that a gain stands for. Raises ValueError where an activation is 0 everywhere, or none of one number alone."""
    if not isinstance(gain, Gain):
        return gain
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="gain")
    z = ir.Value(name="z", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(z)
    with arithmetic(Emitter(graph)) as op:
        y = gain.activation.apply(cast("Site", _Alone(op)), z)
    nodes = gaussian(0.0, 1.0, _kinks(graph, z))
    value, derivative = _read(graph, z, nodes.x)[y]
    square = nodes.mean((value if gain.keep == "values" else derivative) ** 2)
    if not 0.0 < square < math.inf:
        raise ValueError(f"the {gain.keep} of {gain.activation.kind} have the mean square {square:g}, which no gain makes 1")
    return 1.0 / math.sqrt(square)


def _kinks(graph: ir.Graph, z: ir.Value) -> tuple[float, ...]:
    """Where the operators that read z itself have a corner."""
    rows = [(lookup(node.op_type, node.domain), node) for node in graph if z in node.inputs]
    return tuple(kink for row, node in rows if row is not None for kink in at(row.kinks, attributes_of(node)))


def _read(graph: ir.Graph, z: ir.Value, at_nodes: Array) -> dict[ir.Value, tuple[Array, Array]]:
    """Each value of the graph at the nodes, and its derivative by z."""
    found: dict[ir.Value, tuple[Array, Array]] = {z: (at_nodes, np.ones_like(at_nodes))}
    for constant in graph.initializers.values():
        assert constant.const_value is not None
        found[constant] = (constant.const_value.numpy().astype(np.float64), np.zeros(()))
    for node in graph:
        row, attributes = lookup(node.op_type, node.domain), attributes_of(node)
        operands = [found[value] for value in node.inputs if value is not None]
        if row is None or row.numpy is None or not row.elementwise:
            raise ValueError(f"{node.op_type} is no function of one number, and has no gain; state a number")
        values = tuple(value for value, _ in operands)
        with np.errstate(all="ignore"):
            change = sum(
                slope(NUMPY, row, position, values, **attributes) * by_z
                for position, (_, by_z) in enumerate(operands)
                if np.any(by_z)
            )
            found[node.outputs[0]] = (row.numpy(*values, **attributes), np.asarray(change))
    return found
