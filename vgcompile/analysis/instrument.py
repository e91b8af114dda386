"""The graph that measures: the joint graph with every use's adjoint kept apart, and a few numbers reduced from each.

A reduction gives one number for each adjoint; all of them leave the graph as one vector. What merely rearranges an adjoint has
the same numbers, and is not read again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import Emitter, dims, is_real
from vgcompile.graph.network import Network
from vgcompile.ops import lookup
from vgcompile.ops.op import Through
from vgcompile.passes.differentiate import differentiate
from vgcompile.passes.gradient import ADJOINT, named_values, seed_of
from vgcompile.passes.lower import lower
from vgcompile.passes.optimize import optimize

Statistics = Literal["squares", "all"]
Reading = Literal["squares", "high", "low", "nonzero", "elements", "undefined"]
FEW = 2**14  # elements whose squares, summed in float32 one after the other, are off by 1e-6 at most
ROW = 2**9  # elements of a row, at least, where the shape has as many


@dataclass(frozen=True)
class Reduction:
    """How one number is reduced from an adjoint: ``emit(op, adjoint, few)`` makes a vector of one element, ``few`` saying that
    the adjoint is known to be small."""

    reading: Reading
    emit: Callable[[Emitter, ir.Value, bool], ir.Value]

    @property
    def output(self) -> str:
        return f"vgcompile.{self.reading}"


@dataclass(frozen=True)
class Instrumented:
    """The instrumented model, and where the numbers of each adjoint stand in the vectors that it gives out."""

    model: ir.Model
    reductions: tuple[Reduction, ...]
    slots: Mapping[str, int]  # value name of an adjoint -> slot
    parts: Mapping[str, str]  # edge id -> value name of its adjoint
    totals: Mapping[str, str]  # value name -> value name of its total adjoint
    steps: Mapping[str, str]  # edge id -> output with the sum of squares at each step, as a recurrence goes
    norm: tuple[str, ...]  # adjoints of the outputs, of those that have one: a loss may read of an output its shape alone


def _squares(op: Emitter, adjoint: ir.Value, few: bool) -> ir.Value:
    """In float32, by rows: a sum of a million squares, one after the other, has lost four digits. ONNX Runtime sums rows at the
    speed of memory, but not their squares."""
    if adjoint.dtype == ir.DataType.DOUBLE:
        return _exact_squares(op, adjoint, few)
    single = _cast(op, adjoint, ir.DataType.FLOAT)
    if few:
        return op.ReduceSumSquare(op.Reshape(single, [-1]), [0], keepdims=1)  # type: ignore[no-any-return]
    rows = op.Reshape(single, [-1, row_of(adjoint)])
    return _total(op, op.ReduceSum(op.Mul(rows, rows), [1], keepdims=0))


def _exact_squares(op: Emitter, adjoint: ir.Value, few: bool) -> ir.Value:
    """In double: squares in float32 die near |g| = 1e-22, the gradient itself only at 1e-45."""
    exact = _cast(op, adjoint, ir.DataType.DOUBLE)
    return op.ReduceSumSquare(op.Reshape(exact, [-1]), [0], keepdims=1)  # type: ignore[no-any-return]


def _high(op: Emitter, adjoint: ir.Value, few: bool) -> ir.Value:
    return op.ReduceMax(op.Reshape(adjoint, [-1]), [0], keepdims=1)  # type: ignore[no-any-return]


def _low(op: Emitter, adjoint: ir.Value, few: bool) -> ir.Value:
    return op.ReduceMin(op.Reshape(adjoint, [-1]), [0], keepdims=1)  # type: ignore[no-any-return]


def _nonzero(op: Emitter, adjoint: ir.Value, few: bool) -> ir.Value:
    return _count(op, _cast(op, adjoint, ir.DataType.BOOL), row_of(adjoint), few)


def _elements(op: Emitter, adjoint: ir.Value, few: bool) -> ir.Value:
    return op.Reshape(op.Size(adjoint), [1])  # type: ignore[no-any-return]


def _undefined(op: Emitter, adjoint: ir.Value, few: bool) -> ir.Value:
    """What is not finite: g - g is NaN there, and 0 elsewhere."""
    return _count(op, op.IsNaN(op.Sub(adjoint, adjoint)), row_of(adjoint), few)


def _count(op: Emitter, truths: ir.Value, row: int, few: bool) -> ir.Value:
    """How many are true. ONNX sums no bytes, but multiplies matrices of them, which reads a quarter of what floats take; CUDA's
    kernel wants them signed."""
    if few:
        return op.ReduceSum(op.Reshape(_cast(op, truths, ir.DataType.FLOAT), [-1]), [0], keepdims=1)  # type: ignore[no-any-return]
    bytes_ = _cast(op, op.Reshape(truths, [-1, row]), ir.DataType.INT8)
    return _total(op, op.Reshape(op.MatMulInteger(bytes_, np.ones((row, 1), np.int8)), [-1]))


def _total(op: Emitter, rows: ir.Value) -> ir.Value:
    """The sum of what rows have summed up to."""
    total = op.ReduceSum(_cast(op, rows, ir.DataType.DOUBLE), [0], keepdims=1)
    return _cast(op, total, ir.DataType.FLOAT)


def _cast(op: Emitter, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    return value if value.dtype == dtype else op.Cast(value, to=int(dtype))


def row_of(value: ir.Value) -> int:
    """As many of the last axes as make a row, together, of fixed length."""
    row = 1
    for extent in reversed(dims(value)):
        if not isinstance(extent, int) or row >= ROW:
            break
        row *= extent
    return row


QUICK: Mapping[Statistics, tuple[Reduction, ...]] = {
    "squares": (Reduction("squares", _squares),),
    "all": (
        Reduction("squares", _squares),
        Reduction("high", _high),
        Reduction("low", _low),
        Reduction("nonzero", _nonzero),
        Reduction("elements", _elements),
    ),
}
EXACT: Mapping[Statistics, tuple[Reduction, ...]] = {
    "squares": (Reduction("squares", _exact_squares),),
    "all": (Reduction("squares", _exact_squares), *QUICK["all"][1:], Reduction("undefined", _undefined)),
}


def instrument(
    network: Network,
    watched: Sequence[str] = (),
    reductions: Sequence[Reduction] = EXACT["squares"],
    extents: Mapping[str, int] | None = None,
) -> Instrumented:
    """Compile the graph that measures every edge and gives out the ``watched`` values.

    Without a loss the adjoints of the outputs are inputs ``adj.<output>``. ``extents`` are the symbols that are known.
    Raises GradientRefused where an operator has no gradient rule for its case.
    """
    model = network.model.clone()
    values = named_values(model)
    emitter = Emitter(model.graph, model.opset_imports[""])
    outputs = [values[name] for name in network.outputs]
    wanted = [v for v in model.graph.inputs if is_real(v)]
    with emitter.scope(role="backward"):
        seeds = _seeds(emitter, model, values, network, outputs)
        adjoints = differentiate(model, seeds, wanted, emitter)
    every = dict.fromkeys((*adjoints.parts.values(), *adjoints.totals.values()))
    alike = {value: _rearranged(value) for value in every}
    read = dict.fromkeys(alike.values())
    with emitter.scope("measure"):
        vectors = [_vector(emitter, reduction, list(read), extents or {}) for reduction in reductions]
        steps = {
            f"{node.name}#{position}": _by_step(emitter, part, through)
            for (node, position), part in adjoints.parts.items()
            if (through := _through(node, position)) is not None
        }
    given_out = (*((network.loss,) if network.loss else ()), *watched)
    model.graph.outputs[:] = [*vectors, *steps.values(), *(values[name] for name in given_out)]
    lower(model)
    optimize(model)
    slots = {value: slot for slot, value in enumerate(read)}
    return Instrumented(
        model,
        tuple(reductions),
        {_name(value): slots[source] for value, source in alike.items()},
        {f"{node.name}#{position}": _name(part) for (node, position), part in adjoints.parts.items()},
        {_name(value): _name(total) for value, total in adjoints.totals.items()},
        {edge: _name(squares) for edge, squares in steps.items()},
        tuple(_name(adjoints.totals[y]) for y in outputs if y in adjoints.totals),
    )


def _vector(emitter: Emitter, reduction: Reduction, adjoints: Sequence[ir.Value], extents: Mapping[str, int]) -> ir.Value:
    numbers = [reduction.emit(emitter, adjoint, _few(adjoint, extents)) for adjoint in adjoints]
    if len({number.dtype for number in numbers}) > 1:  # a network that calculates in two precisions
        numbers = [_cast(emitter, number, ir.DataType.DOUBLE) for number in numbers]
    vector = emitter.Concat(*numbers, axis=0) if len(numbers) > 1 else emitter.Identity(numbers[0])
    vector.name = reduction.output
    return vector  # type: ignore[no-any-return]


def _through(node: ir.Node, position: int) -> Through | None:
    """How an operator goes through this operand, if it does so step by step."""
    row = lookup(node.op_type, node.domain)
    return row.through(attributes_of(node)) if position == 0 and row is not None and row.through is not None else None


def _by_step(emitter: Emitter, adjoint: ir.Value, through: Through) -> ir.Value:
    """The sum of squares at each step, in double: far from the loss they are tiny."""
    exact = _cast(emitter, adjoint, ir.DataType.DOUBLE)
    others = [axis for axis in range(len(dims(adjoint))) if axis != through.axis]
    squares = emitter.ReduceSumSquare(exact, others, keepdims=0)
    if through.backwards:
        squares = emitter.Slice(squares, [-1], [np.iinfo(np.int64).min], [0], [-1])
    return squares  # type: ignore[no-any-return]


def _few(adjoint: ir.Value, extents: Mapping[str, int]) -> bool:
    known = [extents.get(extent, FEW) if isinstance(extent, str) else extent for extent in dims(adjoint)]
    return math.prod(known) <= FEW


def _rearranged(value: ir.Value) -> ir.Value:
    """What an adjoint holds the elements of, each once, in another order or shape."""
    while (node := value.producer()) is not None and node.inputs and node.inputs[0] is not None:
        row = lookup(node.op_type, node.domain)
        if row is None or not row.rearranges:
            break
        value = node.inputs[0]
    return value


def _name(value: ir.Value) -> str:
    assert value.name
    return value.name


def _seeds(
    emitter: Emitter, model: ir.Model, values: Mapping[str, ir.Value], network: Network, outputs: Sequence[ir.Value]
) -> dict[ir.Value, ir.Value]:
    if network.loss is not None:
        loss = values[network.loss]
        return {loss: seed_of(emitter, loss)}
    seeds = {}
    for output in outputs:
        seed = ir.Value(name=f"{ADJOINT}{output.name}", shape=output.shape, type=output.type)
        model.graph.inputs.append(seed)
        seeds[output] = seed
    return seeds
