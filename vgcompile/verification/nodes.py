"""Each node's gradient where the model uses it: a model of that node alone, on the values that the model has there.

    <g, J v> by differences of the node, in float64      <v, J^T g> by its compiled gradient

Through a whole deep net differences are blind to small gradients; node by node they are not.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, defs, helper

from vgcompile.errors import VgcompileError
from vgcompile.graph.emit import constant_of, is_real
from vgcompile.graph.objective import downstream
from vgcompile.graph.view import dependencies, operands
from vgcompile.ops import lookup
from vgcompile.passes.gradient import ADJOINT, GRADIENT, joint, named_values
from vgcompile.passes.lower import lower
from vgcompile.reference import evaluator, in_float64
from vgcompile.runtime.session import Session
from vgcompile.verification.result import Check
from vgcompile.verification.slopes import DOUBLE, SINGLE, Array, Precision, Slopes, settled, size_of

FAITHFUL = 1e-3  # how far the evaluator may be from what ONNX Runtime made of the same operands, relatively
JUMP = "it sits on a jump, or at the edge of where it is defined"
UNSETTLED = "differences do not settle as their step shrinks"
Run = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class Alone:
    """One node as a model: its operands are inputs of the same names, but for constants. ``wanted`` are the operands that it is
    differentiated by, ``given`` the outputs that an adjoint comes from."""

    node: ir.Node
    forward: onnx.ModelProto
    wanted: tuple[str, ...]
    given: tuple[str, ...]


def on_the_way(model: ir.Model, roots: Sequence[str], wanted: Sequence[str]) -> Iterator[Alone]:
    """Every node between a wanted value and a root."""
    values, reach = named_values(model), dependencies(model.graph)
    between = downstream(reach, [values[name] for name in wanted]) & downstream(
        reach.reverse(copy=False), [values[name] for name in roots]
    )
    for node in model.graph:
        if node not in between:
            continue
        row = lookup(node.op_type, node.domain)
        settings = {node.inputs[place] for place in (row.untrained if row is not None else ()) if place < len(node.inputs)}
        real = [value for value in dict.fromkeys(operands(node)) if value in between and value is not None and is_real(value)]
        yield Alone(
            node,
            _model(model, node),
            tuple(str(value.name) for value in real if value not in settings),
            tuple(str(value.name) for value in node.outputs if value in between and is_real(value)),
        )


def _model(model: ir.Model, node: ir.Node) -> onnx.ModelProto:
    read = [value for value in dict.fromkeys(operands(node)) if value is not None]
    fixed = [value for value in read if constant_of(value) is not None]
    graph = helper.make_graph(
        [seeded(ir.to_proto(node))],
        node.op_type,
        [ir.to_proto(value) for value in read if value not in fixed],
        [ir.to_proto(value) for value in node.outputs if value.name],
        [_tensor(value) for value in fixed],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=model.ir_version)


def _tensor(value: ir.Value) -> TensorProto:
    array = constant_of(value)
    assert array is not None and value.dtype is not None
    return onnx.numpy_helper.from_array(array, str(value.name))


def seeded(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node that draws draws the same in every run of the evaluator."""
    row = lookup(node.op_type, node.domain)
    if row is not None and row.random and not any(attribute.name == "seed" for attribute in node.attribute):
        seed = zlib.crc32(node.name.encode()) % 2**16
        named = defs.get_schema(node.op_type, node.domain).attributes["seed"].type
        node.attribute.append(helper.make_attribute("seed", float(seed) if named == defs.OpSchema.AttrType.FLOAT else seed))
    return node


def check_node(alone: Alone, values: Mapping[str, Array], rng: np.random.Generator, tolerance: float) -> list[Check]:
    """One check for each operand that the node is differentiated by."""
    blank = partial(Check, "node", str(alone.node.name), operator=alone.node.op_type)
    row = lookup(alone.node.op_type, alone.node.domain)
    if not alone.wanted or not alone.given or (row is not None and row.stops):
        return []
    feeds = {value.name: values[value.name] for value in alone.forward.graph.input}
    reasons = []
    for ways, precision in ((_evaluated, DOUBLE), (_executed, SINGLE)):
        try:
            forward, gradient = ways(alone)
            found = forward(feeds)
            _require_faithful(alone, found, values)
            if precision is SINGLE:
                blank = partial(blank, reason="in float32")
            return _compared(alone, feeds, found, forward, gradient, precision, rng, blank, max(tolerance, precision.tolerance))
        except (VgcompileError, Unevaluated, _Unfit) as error:
            reasons.append(f"{precision.name}: {error}")
    return [blank("not verified", by=name, reason="; ".join(reasons)) for name in alone.wanted]


class _Unfit(Exception):
    """A way to evaluate a node is not faithful to what ONNX Runtime makes of it."""


def _compared(
    alone: Alone,
    feeds: Mapping[str, Array],
    found: Mapping[str, Array],
    forward: Run,
    gradient: Run,
    precision: Precision,
    rng: np.random.Generator,
    blank: Callable[..., Check],
    tolerance: float,
) -> list[Check]:
    if not all(np.isfinite(found[name]).all() for name in alone.given):
        return [blank("not verified", by=name, reason="its value is not finite") for name in alone.wanted]
    g: dict[str, Array] = {name: np.asarray(rng.standard_normal(found[name].shape)) for name in alone.given}
    adjoints = gradient({**feeds, **{f"{ADJOINT}{name}": array for name, array in g.items()}})
    flat = np.concatenate([g[name].ravel() for name in alone.given])
    checks = []
    for name in alone.wanted:
        x = np.asarray(feeds[name], np.float64)
        v = rng.standard_normal(x.shape)

        def along(t: float, name: str = name, x: Array = x, v: Array = v) -> Array:
            moved = forward({**feeds, name: x + t * v})
            return np.concatenate([np.asarray(moved[y], np.float64).ravel() for y in alone.given])

        judged = judge(settled(along, precision.step * size_of(x), precision), flat, adjoints[name] * v, tolerance)
        reason = "; ".join(filter(None, (judged.reason, blank("verified").reason)))
        checks.append(replace(blank(judged.verdict, by=name), error=judged.error, allowed=judged.allowed, reason=reason))
    return checks


def judge(there: Slopes | None, g: Array, terms: Array, tolerance: float) -> Check:
    """<v, J^T g>, the sum of ``terms``, against <g, J v>; the names in the check are for the caller to fill in."""
    blank = partial(Check, "node", "")
    predicted = float(terms.sum())
    if there is None or not there.finite:
        return blank("not verified", reason=JUMP if there is not None else UNSETTLED)
    if not np.isfinite(predicted):
        return blank("wrong", reason="the gradient is not finite, the slopes are")
    low, high = there.along(g)
    size = float(np.abs(g * there.right).sum() + np.abs(terms).sum()) or 1.0
    noise = float((np.abs(g) * there.noise).sum()) / size
    error = max(low - predicted, predicted - high, 0.0) / size
    allowed = tolerance + noise
    if error > allowed:
        stated = f"{low:.6g}" if low == high else f"between {low:.6g} and {high:.6g}"
        return blank("wrong", error=error, allowed=allowed, reason=f"the gradient gives {predicted:.6g}, differences {stated}")
    return blank("verified" if there.smooth else "at a kink", error=error, allowed=allowed)


def _require_faithful(alone: Alone, found: Mapping[str, Array], values: Mapping[str, Array]) -> None:
    row = lookup(alone.node.op_type, alone.node.domain)
    if row is not None and row.random:
        return
    for name in alone.given:
        mine, theirs = np.asarray(found[name], np.float64), np.asarray(values[name], np.float64)
        if mine.shape != theirs.shape or not np.allclose(mine, theirs, FAITHFUL, FAITHFUL * size_of(theirs), equal_nan=True):
            raise _Unfit(f"it disagrees with the model's own run about {name!r}")


def _evaluated(alone: Alone) -> tuple[Run, Run]:
    """Forward and gradient in the reference evaluator, in float64."""
    exact = in_float64(alone.forward)
    compiled = _compiled((exact if _takes_float64(exact) else alone.forward).SerializeToString(), alone.wanted, alone.given)
    runs = [partial(evaluated, in_float64(onnx.load_from_string(model)).SerializeToString()) for model in compiled]
    return runs[0], lambda feeds: _named(runs[1](feeds))


class Unevaluated(Exception):
    """The reference evaluator does not take a model, or fails while it runs."""


def evaluated(model: bytes, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """A model's outputs in float64. Raises Unevaluated; the evaluator itself has no family of errors."""
    try:
        session = evaluator(model)
        given = {name: double(feeds[name]) for name in session.input_names}
        with np.errstate(all="ignore"):
            results: Any = session.run(None, given)
    except Exception as error:
        raise Unevaluated(
            f"the reference evaluator fails: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
        ) from None
    return {name: np.asarray(result) for name, result in zip(session.output_names, results, strict=True)}


def _executed(alone: Alone) -> tuple[Run, Run]:
    """Forward and gradient in ONNX Runtime, in the node's own types."""
    forward, gradient = _compiled(alone.forward.SerializeToString(), alone.wanted, alone.given)
    sessions = [Session(onnx.load_from_string(model), provider="cpu") for model in (forward, gradient)]
    kinds = {value.name: helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type) for value in alone.forward.graph.input}
    kinds |= {
        f"{ADJOINT}{value.name}": helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        for value in alone.forward.graph.output
    }

    def run(index: int, feeds: Mapping[str, Array]) -> dict[str, Array]:
        known = {*sessions[index].required, *sessions[index].overridable}
        given = {name: np.asarray(array).astype(kinds[name]) for name, array in feeds.items() if name in known}
        return sessions[index].run(None, given)

    return partial(run, 0), lambda feeds: _named(run(1, feeds))


def _named(results: Mapping[str, Array]) -> dict[str, Array]:
    """Gradients by the names of their operands."""
    return {name.removeprefix(GRADIENT): array for name, array in results.items()}


@lru_cache(maxsize=256)
def _compiled(model: bytes, wanted: tuple[str, ...], given: tuple[str, ...]) -> tuple[bytes, bytes]:
    """The forward in standard operators, and the joint graph by ``wanted`` with adjoints of ``given``."""
    forward = lower(ir.from_proto(onnx.load_from_string(model)))
    gradient = joint(ir.from_proto(onnx.load_from_string(model)), given, wanted, [], outside=True)
    return ir.to_proto(forward).SerializeToString(), ir.to_proto(gradient).SerializeToString()


def _takes_float64(model: onnx.ModelProto) -> bool:
    """Whether ONNX lets the node compute in float64; what it does not is compiled in float32 and evaluated in float64."""
    (node,) = model.graph.node
    if lookup(node.op_type, node.domain) is None or node.domain:
        return True
    version = next(entry.version for entry in model.opset_import if entry.domain == "")
    schema = defs.get_schema(node.op_type, version, "")
    real = {value.name for value in model.graph.input if value.type.tensor_type.elem_type == TensorProto.DOUBLE}
    formals = list(schema.inputs)  # the last one may take any number of operands
    taken = [formals[min(place, len(formals) - 1)] for place, name in enumerate(node.input) if name in real]
    return all("tensor(double)" in formal.types for formal in taken)


def double(array: Any) -> Array:
    """Real numbers in float64, others as they are."""
    given: Array = np.asarray(array)
    return given.astype(np.float64) if given.dtype.kind == "f" or given.dtype.name == "bfloat16" else given
