"""Statistics of every value before the first step, in graph order: the length map, generalized from chains of layers to a graph.

    base      a value that is taken to be Gaussian: what a linear map, a sum or a normalization gives out
    reading   a value as a function of its base, kept as its values at the base's quadrature nodes: what elementwise operators
              make of a base is evaluated jointly, so that Mul(x, Sigmoid(x)) has SiLU's moments

How each operator moves statistics stands in its row. What is added here is what one needs a whole graph for: which values share a
base, and how a random matrix of finite width turns a batch's vectors toward or away from each other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.analysis.known import alike, extent, named, value_of
from vgcompile.analysis.readings import Base, Reading, alignment_after, correlations, kinks_of_consumers
from vgcompile.graph.case import case_of
from vgcompile.graph.emit import Emitter, constant_of, dims, is_real
from vgcompile.graph.inference import freeze
from vgcompile.graph.network import Network
from vgcompile.graph.provenance import fact
from vgcompile.initial import Initial
from vgcompile.ops import lookup
from vgcompile.ops.families import Carried
from vgcompile.ops.moments import Unknown, role
from vgcompile.ops.op import Case, Dim, Moments, Op, Tabular
from vgcompile.quadrature import gaussian
from vgcompile.signal import Signal, bent, constant, replace

Array = np.ndarray[Any, Any]
UNSTABLE = 3.0  # a length map that amplifies a fluctuation of q by more than this makes the prediction unreliable
LONGER = 1.01  # what a square is multiplied by, to see what becomes of it
TOO_LARGE = "its moments are beyond what a double holds"
CANCELLED = "its moments are of terms that cancel"
APART = "its operands depend on different random values, of which it takes a product or a function"


class Forward:
    """Statistics of every value, in graph order; ``unknown`` says why a value has none, where it is asked for."""

    def __init__(
        self,
        network: Network,
        batch: int,
        extents: Mapping[str, int] | None = None,
        numbers: Mapping[str, Array] | None = None,
    ) -> None:
        self.network, self.batch = network, batch
        self.samples = _samples(network)
        self.extents: dict[str, Dim] = {dim: extent for dim, extent in (extents or {}).items() if dim != self.samples}
        self._emitter = Emitter(network.model.graph, network.model.opset_imports[""])
        self.signals: dict[ir.Value, Signal] = {}
        self.readings: dict[ir.Value, Reading] = {}
        self.sensitivity: dict[ir.Value, float] = {}
        self.unknown: dict[ir.Value, str] = {}
        self.random: set[ir.Value] = set()  # parameters that are drawn anew with each initialization
        fed = {value: (numbers or {}).get(value.name or "") for value in network.model.graph.inputs}
        self.constants = {value: array for value, array in fed.items() if array is not None}  # what is known before a run
        self._told = set(self.constants)  # of these, what follows from the data
        self._cases: dict[ir.Node, Case] = {}
        self._settled: set[tuple[Dim, ...]] = set()  # shapes without symbols but that of the samples
        self._nodes = cache(gaussian)
        self._seen: dict[Hashable, Seen] = {}  # a deep net comes to a fixed point: layer after layer reads the same
        self._kinks = kinks_of_consumers(network.model.graph)

    def run(self, inputs: Mapping[str, Signal]) -> None:
        graph = self.network.model.graph
        for value in graph.inputs:
            if (signal := inputs.get(value.name or "")) is not None:
                self._found(value, signal)
                self.sensitivity[value] = float(is_real(value))
        for value in graph.initializers.values():
            self._parameter(value)
        for node in graph:
            self._node(node)

    def _parameter(self, value: ir.Value) -> None:
        assert value.const_value is not None
        self._learn(dict(zip(dims(value), value.const_value.shape.numpy(), strict=True)))
        initial = fact(value, "initial")
        array = constant_of(value)
        if array is not None and (array.dtype.kind not in "f" or array.size == 1):
            self.readings[value] = Reading(None, array.astype(np.float64) if array.size == 1 else array)
            return
        if initial is not None:
            drawn = Initial.from_json(initial)
            mean, square = drawn.mean, drawn.square
        else:
            weights = value.const_value.numpy().astype(np.float64)
            if not np.isfinite(weights).all():
                return  # a mask: rows read it as it is
            mean, square = float(weights.mean()), float((weights * weights).mean())
        if square <= mean * mean:
            self.readings[value] = Reading(None, np.asarray(mean))
        else:
            self.random.add(value)
        self.signals[value] = constant(mean, square)
        if value in self.random:
            self._found(value, self.signals[value])

    def unstable(self, value: ir.Value) -> str:
        """Why the length map up to a value does not settle the fluctuations of a finite width; empty where it does."""
        grown = self.sensitivity.get(value, 0.0)
        if grown <= UNSTABLE:
            return ""
        return f"the length map is unstable: a fluctuation of the input's length has grown {grown:.2g} times up to here"

    def _node(self, node: ir.Node) -> None:
        row = lookup(node.op_type, node.domain)
        if row is not None and self._is_constant(node, row):
            return
        self._learn_extents(node)
        base = self.common_base(node)
        if row is None or (row.moments is None and (row.blocked or not row.elementwise or base is None)):
            self._lose(node, self.unpredicted(node, row))
        elif row.elementwise and base is not None:
            self._read_jointly(node, row, base)
        elif row.moments is not None:
            self._put_through(node, row.moments)

    def _lose(self, node: ir.Node, why: str) -> None:
        self.unknown.update({value: why for value in node.outputs if value not in self.signals})

    def unpredicted(self, node: ir.Node, row: Op | None) -> str:
        """Why a node without moments is not predicted: in its row's words, or by those of whatever lost an operand."""
        if row is None or row.blocked:
            return f"the values of {node.op_type} have no predicted statistics"
        lost = (self.unknown[value] for value in node.inputs if value is not None and value in self.unknown)
        return row.unpredicted or next(lost, APART)

    def reason(self, node: ir.Node, error: NotImplementedError) -> str:
        """Why a row has no formula for a node, in its own words or in those of whatever lost its operand."""
        value = node.inputs[error.position] if isinstance(error, Unknown) else None
        return self.unknown.get(value, str(error)) if value is not None else str(error)

    def _is_constant(self, node: ir.Node, row: Op) -> bool:
        """Whether a node follows from what is known before a run, as a mask from positions does; then it is worked out. Real
        numbers that follow from the data do where all samples have the same, for no statistics tell samples apart."""
        operands = zip(node.inputs, self.case(node).values, strict=True)
        if not row.by_shape and any(v is not None and v not in self._told and known is None for v, known in operands):
            return False
        if self.random.intersection(node.inputs) and not row.by_shape:
            return False
        told = any(value in self._told for value in node.inputs) and not row.by_shape
        found = value_of(node, row, self._whole_case(node), self.network.model.opset_imports[""])
        output = node.outputs[0]
        if found is None or (told and found.dtype.kind == "f" and not alike(found, self.batch)):
            return False
        self.constants[output] = found
        if told:
            self._told.add(output)
        if output.shape is not None and len(output.shape) == found.ndim:
            self._learn(dict(zip(dims(output), found.shape, strict=True)))
        if found.dtype.kind == "f" and np.isfinite(found).all():
            self.readings[output] = Reading(None, found)
            wide = found.astype(np.float64)
            self.signals[output] = constant(float(wide.mean()), float((wide * wide).mean()))
        return True

    def _learn_extents(self, node: ir.Node) -> None:
        """What symbols of a node's outputs stand for that nobody has named."""
        known = [dim for v in node.outputs if v.shape is not None for dim in self.dims(v)]
        if any(isinstance(dim, str) and dim != self.samples for dim in known):
            self._learn(named(node, self._whole_case(node), self._emitter))
            self._cases.pop(node, None)  # its own outputs are better known now

    def _learn(self, found: Mapping[Dim, Dim]) -> None:
        new = {dim: known for dim, known in found.items() if isinstance(dim, str) and dim not in (self.samples, known)}
        self.extents = {**new, **self.extents}

    def _whole_case(self, node: ir.Node) -> Case:
        """With whole numbers of the data, and all extents: the number of samples, too."""
        case, whole = self.case(node), self._told.intersection(node.inputs)
        shapes = tuple(dims and tuple(self.batch if dim == self.samples else dim for dim in dims) for dims in case.shapes)
        values = tuple(self.constants[v] if v in whole else known for v, known in zip(node.inputs, case.values, strict=True))
        return dataclasses.replace(case, shapes=shapes, values=values)

    def _put_through(self, node: ir.Node, moments: Moments) -> None:
        """What the operator's row makes of its inputs' statistics; a case that the row has no formula for stays
        unknown, and so does one whose moments no double holds."""
        try:
            found = moments.forward(self.case(node), self.signals_of(node))
        except NotImplementedError as error:
            self._lose(node, self.reason(node, error))
            return
        except OverflowError:
            self._lose(node, TOO_LARGE)
            return
        if isinstance(moments, Carried) and node.inputs[0] in self.readings:
            self.signals[node.outputs[0]] = found if isinstance(found, Signal) else found[0]
            self.readings[node.outputs[0]] = self.readings[node.inputs[0]]
            self.sensitivity[node.outputs[0]] = self.sensitivity.get(node.inputs[0], 0.0)
            if node.inputs[0] in self.random:
                self.random.add(node.outputs[0])
            return
        self._grow(node, moments, found if isinstance(found, Signal) else found[0])
        alignment = self._alignment(node)
        for value, signal in zip(node.outputs, found if isinstance(found, tuple) else (found,), strict=False):
            self._found(value, signal if alignment is None else replace(signal, alignment=alignment))

    def _grow(self, node: ir.Node, moments: Moments, found: Signal) -> None:
        """How a small fluctuation of the input's length arrives here: through every operand, d ln E[y^2] / d ln E[x^2]."""
        signals, case, grown = self.signals_of(node), self.case(node), 0.0
        for position, value in enumerate(node.inputs):
            before = self.sensitivity.get(value, 0.0) if value is not None else 0.0
            given = signals[position]
            if before == 0.0 or given is None or found.square <= 0.0:
                continue
            longer = moments.forward(case, [*signals[:position], given.scaled(LONGER), *signals[position + 1 :]])
            square = (longer if isinstance(longer, Signal) else longer[0]).square
            grown += before * math.log(square / found.square) / math.log(LONGER) if square > 0.0 else 0.0
        for output in node.outputs:
            self.sensitivity[output] = abs(grown)

    def _alignment(self, node: ir.Node) -> float | None:
        """What a random matrix leaves of its operand's alignment, given the operand; None where the node is no random matrix.

        The operand's own features are a sample of size n of what they could have been, unless they are data. A convolution
        compares patches: the mean of as many cosines as it has taps.
        """
        matrices = [v for v in node.inputs if v in self.random and len(dims(v)) >= 2]
        operand = next((v for v in node.inputs if v is not None and v not in self.random and v in self.signals), None)
        if not matrices or operand is None:
            return None
        alignment, reading = self.signals[operand].alignment, self.readings.get(operand)
        if reading is not None and reading.base is not None and reading.base.value.producer() is not None:
            alignment = mixed(alignment, self.features(operand, matrices[0]))
        return alignment / math.prod(dim for dim in self.dims(matrices[0])[2:] if isinstance(dim, int))

    def signals_of(self, node: ir.Node) -> list[Signal | None]:
        """Statistics of a node's inputs, as far as its row can tell; None for one that is absent or of which nothing is known."""
        row = lookup(node.op_type, node.domain)
        found = [None if value is None else self.signals.get(value) for value in node.inputs]
        tabular = row is not None and isinstance(row.moments, Tabular)
        return found if tabular else [None if signal is None else signal.plain for signal in found]

    def case(self, node: ir.Node) -> Case:
        known = self._cases.get(node)
        if known is None:
            given = case_of(node)
            shapes, outputs = (tuple([dims and self._known(dims) for dims in each]) for each in (given.shapes, given.outputs))
            values = tuple([self._value(v, value) for v, value in zip(node.inputs, given.values, strict=True)])
            known = self._cases[node] = Case(given.attributes, shapes, outputs, given.ranges, values, self.batch, self.samples)
        return known

    def _value(self, value: ir.Value | None, given: Array | None) -> Array | None:
        """What a row is told of a value: no class numbers of the data, of which it has the statistics."""
        known = self.constants.get(value, given) if value is not None else None
        return None if value in self._told and known is not None and known.dtype.kind in "iu" else known

    def features(self, value: ir.Value, matrix: ir.Value) -> int | None:
        """The extent of a value's feature axis, where it is known: the second one, where the ``matrix`` that it meets is of its
        own rank, a kernel."""
        shape = self.dims(value)
        kernel = len(dims(matrix)) == len(shape) > 2 and shape[1] != self.samples
        if kernel:
            return shape[1] if isinstance(shape[1], int) else None
        extents = [dim for axis, dim in enumerate(shape) if role(shape, axis, self.samples) == "features"]
        return extents[0] if extents and isinstance(extents[0], int) else None

    def dims(self, value: ir.Value) -> tuple[Dim, ...]:
        """The extents of a value, what a symbol stands for in the data in its place."""
        return self._known(dims(value))

    def _known(self, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
        if shape in self._settled:
            return shape
        if all(isinstance(dim, int) or dim == self.samples for dim in shape):
            self._settled.add(shape)  # a deep net repeats its shapes
            return shape
        known: Mapping[str, Dim] = {**self.extents, str(self.samples): self.batch}
        return tuple(dim if dim == self.samples else extent(dim, known) for dim in shape)

    def common_base(self, node: ir.Node) -> Base | None:
        """The one base that all inputs of a node are functions of, or None."""
        bases = []
        for value in node.inputs:
            reading = self.readings.get(value) if value is not None else None
            if value is None:
                continue
            if reading is None or (reading.base is None and reading.at_nodes.size > 1):
                return None
            if reading.base is not None:
                bases.append(reading.base)
        return bases[0] if bases and all(base is bases[0] for base in bases) else None

    def operands(self, node: ir.Node) -> tuple[Any, ...]:
        given = (None if v is None else self.readings[v] for v in node.inputs)
        return tuple(x and (x.at_nodes.reshape(()) if x.base is None and x.at_nodes.size == 1 else x.at_nodes) for x in given)

    def _read_jointly(self, node: ir.Node, row: Op, base: Base) -> None:
        question = base.signal, self.reads(node)
        seen = self._seen.get(question)
        if seen is None:
            seen = self._seen[question] = self._seen_anew(node, row, base)
        output = node.outputs[0]
        if seen.signal is None:
            self._lose(node, "it takes values that are not finite where its operand may be")
            return
        self.readings[output], self.signals[output] = Reading(base, seen.f), seen.signal
        self.sensitivity[output] = self.sensitivity.get(base.value, 0.0) * max(seen.elasticity, 0.0)

    def reads(self, node: ir.Node) -> Hashable:
        """What an elementwise node computes its values, and its slopes, from: operator, attributes, and the very arrays."""
        attributes = tuple([(name, freeze(value)) for name, value in self.case(node).attributes.items()])
        arrays = [None if v is None else self.readings[v].at_nodes for v in node.inputs]
        return node.op_identifier(), attributes, *[array if array is None else id(array) for array in arrays]

    def _seen_anew(self, node: ir.Node, row: Op, base: Base) -> Seen:
        assert row.numpy is not None
        operands = self.operands(node)
        with np.errstate(all="ignore"):
            f = np.broadcast_to(row.numpy(*operands, **self.case(node).attributes), base.nodes.x.shape)
        if not np.isfinite(f).all():
            return Seen(f, None, 0.0, operands)
        pairs = base.nodes.pairs(f)
        across = pairs.at(base.across)
        alignment = alignment_after(base, pairs, across)
        along, table = bent(base.signal.along, pairs.sensitivity), base.read(f)
        mean, within = base.nodes.mean(f), pairs.at(base.within)
        signal = Signal(mean, pairs.square, within, across, alignment, along=along, table=table)
        return Seen(f, signal, pairs.sensitivity, operands)

    def _found(self, value: ir.Value, signal: Signal) -> None:
        if not 0.0 <= signal.square < math.inf:
            self.unknown[value] = TOO_LARGE if signal.square > 0.0 else CANCELLED
            return
        self.signals[value] = signal
        if not is_real(value) or signal.plain is None:
            return  # of class numbers it says how often two are the same; no function of them is Gaussian
        nodes = self._nodes(signal.mean, signal.variance, self._kinks.get(value, ()))
        self.readings[value] = Reading(Base(value, signal, nodes, *correlations(signal)), nodes.x)


@dataclass(frozen=True)
class Seen:
    """What an elementwise function makes of operands: its values at the nodes, their statistics unless some are not finite, and
    the elasticity of the square. The operands are kept, for it is known by them."""

    f: Array
    signal: Signal | None
    elasticity: float
    operands: tuple[Any, ...]


def _samples(network: Network) -> Dim | None:
    """The extent that counts samples: a symbol; a number only where it is not the first, which it would be taken for anyway."""
    first = next(iter(network.inputs.values()), None)
    told_apart = first is not None and (isinstance(first.samples, str) or first.batch_axis > 0)
    return first.samples if first is not None and told_apart else None


def mixed(alignment: float, units: int | None) -> float:
    """E[cos^2] of two adjoints after a random matrix onto n units: a sampled correlation of expectation cos (Fisher 1915)."""
    return alignment if units is None else min(alignment + (1.0 - alignment) * (1.0 - 2.0 * alignment) / units, 1.0)
