"""One row of the operator table on one of its samples: a model of one node, its gradient, and their run in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from scipy import special

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import OPSET, Emitter, dims
from vgcompile.ops import INTERNAL, OPS
from vgcompile.ops.op import Op, Sample, at
from vgcompile.passes.differentiate import differentiate
from vgcompile.passes.lower import lower

Array = np.ndarray[Any, Any]
EXTENTS = (1, 2, 5)
DOUBLE, FLOAT = ir.DataType.DOUBLE, ir.DataType.FLOAT


class Erf(OpRun):
    """The reference evaluator's own is good to float32 only."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.asarray(special.erf(x), x.dtype),)


class Gelu(OpRun):
    op_domain = ""

    def _run(self, x: Array, approximate: str | None = None) -> tuple[Array]:
        row = OPS["Gelu"]
        assert row.numpy is not None
        return (np.asarray(row.numpy(x, approximate=approximate or "none"), x.dtype),)


@dataclass(frozen=True)
class OneNode:
    """``drawn`` are the inputs that the sample gives a shape of; the others are literals. ``gradient`` has the node's outputs, then the adjoints
    of the drawn inputs that have one (``adjoints``, by position); its further inputs are the adjoints of the floating-point outputs."""

    row: Op
    sample: Sample
    node: ir.Node
    forward: onnx.ModelProto
    gradient: onnx.ModelProto
    drawn: tuple[int, ...]
    seeds: Mapping[int, str]
    adjoints: Mapping[int, ir.Value]
    emitted: frozenset[tuple[str, str]]

    @property
    def attributes(self) -> dict[str, Any]:
        return attributes_of(self.node)

    @property
    def symbolic(self) -> bool:
        return any(isinstance(dim, str) for position in self.drawn for dim in self.sample.shapes[position])

    def extents(self) -> tuple[int, ...]:
        return EXTENTS if self.symbolic else (1,)

    def draw(self, rng: np.random.Generator, n: int) -> dict[int, Array]:
        """Inputs from the sample's domain, every symbol bound to ``n``, none within 0.01 of a kink."""
        kinks = at(self.row.kinks, self.attributes)
        drawn = {}
        for position in self.drawn:
            x = rng.uniform(*self.sample.domain, [n if isinstance(dim, str) else dim for dim in self.sample.shapes[position]])
            for kink in kinks:
                x = np.where(np.abs(x - kink) < 0.01, kink + 0.02, x)
            drawn[position] = x
        return drawn

    def operands(self, drawn: Mapping[int, Array]) -> list[Any]:
        """All inputs, literals included; None for an absent one."""
        given = self.sample.shapes
        return [drawn.get(i) if i in self.drawn else given[i] for i in range(len(given))]

    def feeds(self, drawn: Mapping[int, Array], dtype: type = np.float64) -> dict[str, Array]:
        return {f"x{position}": np.asarray(x, dtype) for position, x in drawn.items()}

    def run_forward(self, drawn: Mapping[int, Array]) -> list[Array]:
        return _evaluator(self.forward.SerializeToString()).run(None, self.feeds(drawn))  # type: ignore[return-value]

    def run_gradient(self, drawn: Mapping[int, Array], g: Mapping[int, Array]) -> dict[int, Array]:
        feeds = {**self.feeds(drawn), **{self.seeds[k]: g[k] for k in self.seeds}}
        results = _evaluator(self.gradient.SerializeToString()).run([v.name for v in self.adjoints.values()], feeds)
        return dict(zip(self.adjoints, results, strict=True))


@lru_cache(maxsize=512)
def _evaluator(model: bytes) -> ReferenceEvaluator:
    return ReferenceEvaluator(onnx.load_from_string(model), new_ops=[Erf, Gelu])


@lru_cache(maxsize=1024)
def one_node(name: str, index: int, dtype: ir.DataType = DOUBLE) -> OneNode:
    """The row's sample of that index, every floating-point type read as ``dtype``."""
    row = OPS[name]
    sample = row.samples[index]
    model, node, emitter, drawn = _forward(row, sample, dtype)
    forward = ir.to_proto(lower(_forward(row, sample, dtype)[0]))
    graph = model.graph
    seeds = {k: _seed(y, k) for k, y in enumerate(node.outputs) if y.dtype is not None and y.dtype.is_floating_point()}
    graph.inputs.extend(seeds.values())
    wanted = {position: node.inputs[position] for position in drawn}
    found = differentiate(model, {node.outputs[k]: g for k, g in seeds.items()}, wanted.values(), emitter)
    adjoints = {i: found.totals[x] for i, x in wanted.items() if x in found.totals}
    for position, adjoint in adjoints.items():
        graph.outputs.append(_named(emitter, adjoint, f"d{position}"))
    adjoints = dict(zip(adjoints, list(graph.outputs)[len(graph.outputs) - len(adjoints) :], strict=True))
    operators = {(n.domain, n.op_type) for n in graph}
    lower(model)
    operators |= {(n.domain, n.op_type) for n in graph}
    return OneNode(
        row,
        sample,
        node,
        forward,
        ir.to_proto(model),
        drawn,
        {k: str(g.name) for k, g in seeds.items()},
        {i: v for i, v in zip(adjoints, list(graph.outputs)[len(graph.outputs) - len(adjoints) :], strict=True)},
        frozenset(operators),
    )


def _named(emitter: Emitter, value: ir.Value, name: str) -> ir.Value:
    result: ir.Value = emitter.Identity(value)
    result.name, result.shape = name, value.shape
    return result


def _seed(y: ir.Value, k: int) -> ir.Value:
    return ir.Value(name=f"g{k}", shape=ir.Shape(dims(y)), type=ir.TensorType(y.dtype))


def _forward(row: Op, sample: Sample, dtype: ir.DataType) -> tuple[ir.Model, ir.Node, Emitter, tuple[int, ...]]:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET, INTERNAL: 1}, name=row.name)
    emitter = Emitter(graph)
    emitter.dtype = dtype
    operands: list[Any] = []
    drawn = []
    for position, given in enumerate(sample.shapes):
        if isinstance(given, tuple):
            value = ir.Value(name=f"x{position}", shape=ir.Shape(given), type=ir.TensorType(dtype))
            graph.inputs.append(value)
            operands.append(value)
            drawn.append(position)
        else:
            floating = given is not None and given.dtype.kind == "f"
            operands.append(given.astype(dtype.numpy()) if floating else given)
    attributes = {key: int(dtype) if key in ("to", "dtype") and value == FLOAT else value for key, value in sample.attributes.items()}
    made = emitter.emit(row.name, *operands, outputs=sample.outputs, **attributes)
    outputs = made if isinstance(made, tuple) else (made,)
    graph.outputs.extend(y for y in outputs if y.name)
    node = outputs[0].producer()
    assert node is not None
    return ir.Model(graph, ir_version=10), node, emitter, tuple(drawn)
