"""One row of the operator table on one of its samples: a model of one node, its gradient, and their run in float64."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import defs

from tests.reference import evaluator, in_float64
from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.case import case_of
from vgcompile.graph.emit import OPSET, Emitter, dims
from vgcompile.interval import Interval, point
from vgcompile.ops import INTERNAL, OPS
from vgcompile.ops.op import Case, Op, Sample, at
from vgcompile.passes.differentiate import differentiate
from vgcompile.passes.lower import Profile, lower

Array = np.ndarray[Any, Any]
EXTENTS = (1, 2, 5)
ROWS = sorted(OPS.values(), key=lambda row: row.name)
DOUBLE, FLOAT = ir.DataType.DOUBLE, ir.DataType.FLOAT


@dataclass(frozen=True)
class OneNode:
    """``drawn`` are the inputs that the sample gives a shape of; the others are literals. The gradient model has the forward
    model's inputs and ``seeds``, the adjoints of its floating-point outputs by number; it gives out ``adjoints`` of drawn
    inputs by position, where there are any. ``emitted`` are the operators of its nodes, before and after composites are
    opened."""

    row: Op
    sample: Sample
    node: ir.Node
    forward: onnx.ModelProto
    gradient: onnx.ModelProto
    drawn: tuple[int, ...]
    seeds: Mapping[int, str]
    adjoints: Mapping[int, str]
    emitted: frozenset[tuple[str, str]]
    typed: onnx.ModelProto  # the gradient model in the types that it was built in

    @property
    def attributes(self) -> dict[str, Any]:
        """As a file gives them back: numbers are float32."""
        found = attributes_of(self.node)
        return {key: float(np.float32(value)) if isinstance(value, float) else value for key, value in found.items()}

    @property
    def extents(self) -> tuple[int, ...]:
        symbolic = any(isinstance(dim, str) for position in self.drawn for dim in self.sample.shapes[position])
        return EXTENTS if symbolic else (1,)

    def shape(self, position: int, n: int) -> tuple[int, ...]:
        return tuple(n if isinstance(dim, str) else dim for dim in self.sample.shapes[position])

    def draw(self, rng: np.random.Generator, n: int) -> dict[int, Array]:
        """Inputs from the sample's domain, every symbol bound to ``n``, none within 0.01 of a kink."""
        drawn = {}
        for position in self.drawn:
            x = rng.uniform(*self.sample.domain, self.shape(position, n))
            for kink in at(self.row.kinks, self.attributes):
                x = np.where(np.abs(x - kink) < 0.01, kink + 0.02, x)
            drawn[position] = x
        return drawn

    def operands(self, drawn: Mapping[int, Array]) -> list[Any]:
        """All inputs, literals included; None for an absent one."""
        return [drawn.get(i, given) if i in self.drawn else given for i, given in enumerate(self.sample.shapes)]

    def feeds(
        self, drawn: Mapping[int, Array], g: Mapping[int, Array] | None = None, dtype: type = np.float64
    ) -> dict[str, Array]:
        feeds = {f"x{position}": x for position, x in drawn.items()} | {
            self.seeds[k]: adjoint for k, adjoint in (g or {}).items()
        }
        return {name: np.asarray(array, dtype) for name, array in feeds.items()}

    def run_forward(self, drawn: Mapping[int, Array]) -> list[Array]:
        with np.errstate(all="ignore"):  # what nobody reads may be NaN: the exponent's adjoint at a negative base
            return evaluator(self.forward.SerializeToString()).run(None, self.feeds(drawn))  # type: ignore[return-value]

    def run_gradient(self, drawn: Mapping[int, Array], g: Mapping[int, Array]) -> dict[int, Array]:
        with np.errstate(all="ignore"):
            results = evaluator(self.gradient.SerializeToString()).run(list(self.adjoints.values()), self.feeds(drawn, g))
        return dict(zip(self.adjoints, results, strict=True))


@lru_cache(maxsize=2048)
def one_node(name: str, index: int, dtype: ir.DataType = DOUBLE) -> OneNode:
    """The row's sample of that index."""
    return build(OPS[name], OPS[name].samples[index], dtype)


def build(row: Op, sample: Sample, dtype: ir.DataType = DOUBLE, profile: Profile = "fast") -> OneNode:
    """Every floating-point type of the sample is read as ``dtype``. A row without a vjp is differentiated through its body."""
    built = dtype if allows(row, dtype) else FLOAT
    forward = lower(_forward(row, sample, built)[0])
    node = _forward(row, sample, built)[1]
    model = _forward(row, sample, built)[0]
    if row.vjp is None and not row.blocked:
        lower(model)
    graph, emitter = model.graph, Emitter(model.graph, model.opset_imports[""])
    drawn = tuple(position for position, given in enumerate(sample.shapes) if isinstance(given, tuple))
    seeds = {k: _seed(y, k) for k, y in enumerate(graph.outputs) if y.dtype is not None and y.dtype.is_floating_point()}
    of_outputs = {graph.outputs[k]: g for k, g in seeds.items()}
    wanted = dict(zip(drawn, graph.inputs, strict=True))
    graph.inputs.extend(seeds.values())
    totals = differentiate(model, of_outputs, wanted.values(), emitter).totals
    adjoints = {position: f"d{position}" for position, x in wanted.items() if x in totals}
    for position, adjoint in adjoints.items():
        value = emitter.Identity(totals[wanted[position]])
        value.name, value.shape = adjoint, wanted[position].shape
        graph.outputs.append(value)
    emitted = {(n.domain, n.op_type) for n in graph}
    lower(model, profile)
    emitted |= {(n.domain, n.op_type) for n in graph}
    protos = [ir.to_proto(m) if built == dtype else in_float64(ir.to_proto(m)) for m in (forward, model)]
    names = {k: str(g.name) for k, g in seeds.items()}
    return OneNode(row, sample, node, *protos, drawn, names, adjoints, frozenset(emitted), ir.to_proto(model))


@dataclass(frozen=True)
class Twice:
    """The gradient of a gradient: of <h, adjoints> by the inputs and the adjoints that the gradient model reads, by name."""

    one: OneNode
    model: onnx.ModelProto
    adjoints: Mapping[str, str]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        with np.errstate(all="ignore"):
            found = evaluator(self.model.SerializeToString()).run(list(self.adjoints.values()), dict(feeds))
        return dict(zip(self.adjoints, found, strict=True))


def twice(name: str, index: int) -> Twice:
    """Differentiate the gradient model of a row's sample again; the adjoint of the input ``x0``'s adjoint comes in as ``h0``."""
    one = one_node(name, index)
    model = ir.from_proto(one.typed)
    graph, emitter = model.graph, Emitter(model.graph, model.opset_imports[""])
    made = {value.name: value for value in graph.outputs}
    wanted = {str(value.name): value for value in graph.inputs}
    seeds = {}
    for position, adjoint in one.adjoints.items():
        y = made[adjoint]
        seeds[y] = ir.Value(name=f"h{position}", shape=ir.Shape(dims(y)), type=ir.TensorType(y.dtype))
    graph.inputs.extend(seeds.values())
    totals = differentiate(model, seeds, wanted.values(), emitter).totals
    graph.outputs.clear()
    adjoints = {name: f"second.{name}" for name, value in wanted.items() if value in totals}
    for name, adjoint in adjoints.items():
        value = emitter.Identity(totals[wanted[name]])
        value.name, value.shape = adjoint, wanted[name].shape
        graph.outputs.append(value)
    lower(model)
    return Twice(one, in_float64(ir.to_proto(model)), adjoints)


def opset_of(row: Op) -> int:
    """The oldest that our files have; for an operator that it lacks, the one of the operator's newest version."""
    if row.domain or defs.has(row.name, max_inclusive_version=OPSET):
        return OPSET
    return int(defs.get_schema(row.name, defs.onnx_opset_version(), "").since_version)


def allows(row: Op, dtype: ir.DataType) -> bool:
    if row.domain:
        return True
    types = {t for i in defs.get_schema(row.name, opset_of(row), "").inputs for t in i.types}
    return f"tensor({dtype.name.lower()})" in types


def _seed(y: ir.Value, k: int) -> ir.Value:
    return ir.Value(name=f"g{k}", shape=ir.Shape(dims(y)), type=ir.TensorType(y.dtype))


def _forward(row: Op, sample: Sample, dtype: ir.DataType) -> tuple[ir.Model, ir.Node]:
    model, (node,) = alike(row, sample, dtype, 1)
    return model, node


def alike(row: Op, sample: Sample, dtype: ir.DataType, count: int) -> tuple[ir.Model, list[ir.Node]]:
    """A model of ``count`` nodes of one kind, each with inputs and outputs of its own."""
    opset = opset_of(row)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset, INTERNAL: 1}, name=row.name)
    emitter = Emitter(graph, opset)
    emitter.dtype = dtype
    nodes = []
    for copy in range(count):
        operands: list[Any] = []
        for position, given in enumerate(sample.shapes):
            if isinstance(given, tuple):
                name = f"x{position}.{copy}" if copy else f"x{position}"
                given = ir.Value(name=name, shape=ir.Shape(given), type=ir.TensorType(dtype))
                graph.inputs.append(given)
            elif (
                given is not None and given.dtype == np.float64
            ):  # a float32 literal is one that the standard has in float32 only
                given = given.astype(dtype.numpy())
            operands.append(given)
        attributes = {
            key: int(dtype) if key in ("to", "dtype") and value == FLOAT else value for key, value in sample.attributes.items()
        }
        attributes = {key: value(emitter, dtype) if callable(value) else value for key, value in attributes.items()}
        made = emitter.emit(row.name, *operands, outputs=sample.outputs, **attributes)
        outputs = made if isinstance(made, tuple) else (made,)
        graph.outputs.extend(outputs)
        node = outputs[0].producer()
        assert node is not None
        nodes.append(node)
    return ir.Model(graph, ir_version=10), nodes


def case_in(one: OneNode, ranges: Mapping[int, Interval], values: Mapping[int, Array] | None = None) -> Case:
    """What a bound sees of the node: ranges of the drawn inputs, values of the literals and of ``values``."""
    known = [one.sample.shapes[i] if i not in one.drawn else (values or {}).get(i) for i in range(len(one.sample.shapes))]
    bounds = [
        ranges[i] if i in ranges else point(known[i]) if known[i] is not None and np.asarray(known[i]).dtype.kind == "f" else None
        for i in range(len(known))
    ]
    case = case_of(one.node)
    alone = (*case.outputs[:1], *(None for _ in case.outputs[1:]))  # bounds speak of the first output, the others unread
    return replace(case, attributes=one.attributes, outputs=alone, ranges=tuple(bounds), values=tuple(known), batch=1)


def over(chosen: list[Op]) -> Any:
    return pytest.mark.parametrize("row", chosen, ids=lambda row: row.name)


def samples(row: Op, dtype: Any = DOUBLE) -> Iterator[OneNode]:
    return (one_node(row.name, index, dtype) for index in range(len(row.samples)))


def stream(row: Op) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(row.name.encode()))
