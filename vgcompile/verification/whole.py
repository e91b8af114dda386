"""The whole gradient: against differences of the loss in float64, and the float32 file against the float64 one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto

from vgcompile.derivatives import Question
from vgcompile.errors import VgcompileError
from vgcompile.graph.case import draws
from vgcompile.graph.view import bodies
from vgcompile.ops import lookup
from vgcompile.passes.gradient import ADJOINT, GRADIENT, joint
from vgcompile.passes.lower import lower
from vgcompile.reference import in_float64
from vgcompile.runtime.session import Session
from vgcompile.verification.nodes import JUMP, UNSETTLED, double, evaluated, seeded
from vgcompile.verification.result import Check
from vgcompile.verification.slopes import DOUBLE, Array, settled, size_of

BLIND = "not verifiable end to end: the loss moves by less than 1e-9 of itself"
SEEN = 1e-9  # of the loss: a smaller move is rounding
FLOOR = 1e-4  # of the largest gradient: below it, float32 leaves nothing to compare
ROUNDING = {TensorProto.BFLOAT16: 2.0**-9, TensorProto.FLOAT16: 2.0**-12, TensorProto.FLOAT: 2.0**-24}
SPREAD = 3.0  # the run's own spread, of two samples, that its error may be
AMPLIFIED = 16.0  # roundings of data and parameters that a run in the file's own precision may be off by


@dataclass(frozen=True)
class Whole:
    """The model and its joint graph in float64, on given data; ``adjoints`` are those of the roots, where they come from outside.

    Raises Unevaluated where the reference evaluator does not run them.
    """

    question: Question
    feeds: Mapping[str, Array]
    adjoints: Mapping[str, Array]

    @cached_property
    def point(self) -> dict[str, Array]:
        """Data, and the values of every parameter and asked value that is no data."""
        held = self.question.subject.model.graph.initializers
        names = {*self.question.subject.parameters, *(name for name in self.question.wanted if name in held)}
        values = {name: held[name].const_value for name in names}
        numbers = {name: value.numpy() for name, value in values.items() if value is not None}
        return {name: double(array) for name, array in {**numbers, **self.feeds}.items()}

    def loss(self, point: Mapping[str, Array]) -> float:
        results = evaluated(self._forward, {**point, **self._still})
        if not self.question.outside:
            return float(np.asarray(results[self.question.roots[0]]).sum())
        return float(sum((np.asarray(results[name]) * g).sum() for name, g in self.adjoints.items()))

    @cached_property
    def here(self) -> float:
        return self.loss(self.point)

    def gradient(self, point: Mapping[str, Array]) -> dict[str, Array]:
        seeds = {f"{ADJOINT}{name}": g for name, g in self.adjoints.items()}
        results = evaluated(self._joint, {**point, **seeds})
        return {name: np.asarray(results[f"{GRADIENT}{name}"], np.float64) for name in self.question.wanted}

    @cached_property
    def _forward(self) -> bytes:
        model = self.question.subject.model.clone()
        for node in _stops(model):
            still = ir.Value(name=node.outputs[0].name, shape=node.outputs[0].shape, type=node.outputs[0].type)
            node.outputs[0].replace_all_uses_with(still)
            model.graph.remove(node, safe=True)
            model.graph.inputs.append(still)
        values = {value.name: value for node in model.graph for value in node.outputs}
        model.graph.outputs[:] = [values[name] for name in self.question.roots]
        return _prepared(lower(model))

    @cached_property
    def _still(self) -> dict[str, Array]:
        """Values behind which no gradient flows, as they are at the point: the loss is moved with them held still."""
        model = self.question.subject.model.clone()
        model.graph.outputs[:] = [node.outputs[0] for node in _stops(model)]
        return evaluated(_prepared(lower(model)), self.point) if model.graph.outputs else {}

    @cached_property
    def _joint(self) -> bytes:
        model = self.question.subject.model.clone()
        return _prepared(joint(model, self.question.roots, self.question.wanted, [], outside=self.question.outside))


def _stops(model: ir.Model) -> list[ir.Node]:
    rows = ((node, lookup(node.op_type, node.domain)) for node in model.graph)
    return [node for node, row in rows if row is not None and row.stops]


def _prepared(model: ir.Model) -> bytes:
    proto = in_float64(ir.to_proto(model))
    for node in proto.graph.node:
        seeded(node)
    serialized: bytes = proto.SerializeToString()
    return serialized


def check_end_to_end(whole: Whole, name: str, gradient: Array, rng: np.random.Generator, tolerance: float) -> Check:
    """The loss along a direction of one value, random and uphill in equal parts: what is uphill moves it most."""
    blank = partial(Check, "end to end", name)
    if name not in whole.point:
        return blank("not verified", reason="a value inside the model is not moved by itself; its nodes are verified")
    x = whole.point[name]
    v: Array = np.asarray(rng.standard_normal(x.shape))
    v = v / (np.linalg.norm(v) or 1.0) + gradient / (np.linalg.norm(gradient) or 1.0)
    v = v * np.sqrt(x.size)
    h = DOUBLE.step * size_of(x)
    base = whole.here
    if not np.isfinite(base):
        return blank("not verified", reason="the loss is not finite")

    @cache
    def along(t: float) -> Array:
        return np.asarray([whole.loss({**whole.point, name: x + t * v}) if t else base])

    terms = gradient * v
    moved = float(abs(along(h) - along(-h))[0])
    if not moved > SEEN * abs(base):
        share = moved / (abs(base) or 1.0)
        return blank("not verified", reason=BLIND, moved=share)
    there = settled(along, h, DOUBLE)
    if there is None or not there.finite:
        return blank("not verified", reason=JUMP if there is not None else UNSETTLED)
    low, high = there.along(np.ones(1))
    predicted = float(terms.sum())
    size = max(abs(low), abs(high), abs(predicted))
    error = max(low - predicted, predicted - high, 0.0) / size
    allowed = tolerance + float(there.noise[0]) / size
    if not error <= allowed:
        stated = f"{low:.6g}" if low == high else f"between {low:.6g} and {high:.6g}"
        return blank("wrong", error=error, allowed=allowed, reason=f"the gradient gives {predicted:.6g}, differences {stated}")
    return blank("verified" if there.smooth else "at a kink", error=error, allowed=allowed)


def check_float32(
    whole: Whole, file: onnx.ModelProto, exact: Mapping[str, Array], rng: np.random.Generator, tolerance: float
) -> list[Check]:
    """The file as it is written, in ONNX Runtime, against the float64 gradient.

    Its allowance is the tolerance, or 16 roundings of its narrowest type, or what so many of data and parameters make of the
    float64 gradient, with a floor of 1e-4 of the largest gradient: float32 has limits that no compiler beats. Where that is not
    enough it is what so many of them make of the run itself (Vignes 1993): the gradient of an attention's key bias is a sum of
    terms that cancel to 0 whatever the data are, and in float32 the rounding of those terms.
    """
    question, blank = whole.question, partial(Check, "float32")
    drawn = _drawn(question.subject.model.graph)
    if drawn:
        reason = f"{drawn} draws anew in ONNX Runtime"
        return [blank(name, "not verified", reason=reason) for name in question.wanted]
    kinds = {value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type) for value in file.graph.input}
    given = {**whole.feeds, **{f"{ADJOINT}{name}": g for name, g in whole.adjoints.items()}}
    try:
        session = Session(file, provider="cpu")
        feeds = {name: given[name].astype(kinds[name]) for name in session.required}
        found = session.run([f"{GRADIENT}{name}" for name in question.wanted], feeds)
    except VgcompileError as failure:
        return [blank(name, "wrong", reason=str(failure)) for name in question.wanted]
    unit = max(
        (ROUNDING.get(value.type.tensor_type.elem_type, 0.0) for value in (*file.graph.input, *file.graph.output)), default=0.0
    )

    @cache
    def runs() -> list[dict[str, Array]]:
        """The file's own gradients where data and parameters are off by a few roundings."""
        names = [name for name in (*session.required, *session.overridable) if name in whole.point]
        moved = [_shaken({name: whole.point[name] for name in names}, AMPLIFIED * unit, rng) for _ in range(2)]
        nearby = [{**feeds, **{name: array.astype(kinds[name]) for name, array in one.items()}} for one in moved]
        return [session.run([f"{GRADIENT}{name}" for name in question.wanted], one) for one in nearby]

    shaken = [whole.gradient(_shaken(whole.point, unit, rng)) for _ in range(2)]
    largest = max((float(np.linalg.norm(g)) for g in exact.values()), default=0.0)
    checks = []
    for name in question.wanted:
        truth, got = exact[name], np.asarray(found[f"{GRADIENT}{name}"], np.float64)
        size = max(float(np.linalg.norm(truth)), FLOOR * largest) or 1.0
        error = float(np.linalg.norm(got - truth)) / size
        sway = max(float(np.linalg.norm(other[name] - truth)) for other in shaken) / size
        allowed = max(tolerance, AMPLIFIED * sway, AMPLIFIED * unit)
        if error > allowed:
            spread = max(float(np.linalg.norm(run[f"{GRADIENT}{name}"].astype(np.float64) - got)) for run in runs())
            allowed = max(allowed, SPREAD * spread / size)
        good = error <= allowed
        reason = (
            ""
            if good
            else f"ONNX Runtime gives a gradient of norm {np.linalg.norm(got):.6g}, float64 {np.linalg.norm(truth):.6g}"
        )
        checks.append(blank(name, "verified" if good else "wrong", error=error, allowed=allowed, reason=reason))
    return checks


def _drawn(graph: ir.Graph) -> str:
    """The first operator that draws when the model runs, or nothing."""
    nodes: list[ir.Node] = list(graph)
    while nodes:
        node = nodes.pop(0)
        if draws(node):
            return node.op_type
        nodes.extend(inner for body in bodies(node) for inner in body)
    return ""


def _shaken(point: Mapping[str, Array], unit: float, rng: np.random.Generator) -> dict[str, Array]:
    return {
        name: array * (1.0 + unit * rng.standard_normal(array.shape)) if array.dtype.kind == "f" else array
        for name, array in point.items()
    }
