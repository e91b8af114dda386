"""A tool's gradient of a case against the truth: right, refused or wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.conformance.cases import Case
from benchmarks.conformance.running import CannotRun, Runner
from benchmarks.conformance.tools import TOOLS, Compiled, Refused
from benchmarks.conformance.truth import INDEPENDENT, MASKED, Direction, NoTruth, Point, Truth, case_tolerance, flat
from vgcompile.reference import evaluator
from vgcompile.verification.slopes import Slopes, size_of

Array = np.ndarray[Any, Any]
RIGHT, REFUSED, WRONG, UNJUDGED = "right", "refused", "WRONG", "not judged"
UNRUN = "no kernel"  # bfloat16, for which ONNX Runtime's CPU has few kernels: judged in the reference evaluator
OUTPUT = "output:"
ELEMENTS = 600  # of an input that sits on several kinks at once, judged one by one


@dataclass(frozen=True)
class Verdict:
    case: str
    operator: str
    form: str
    tool: str
    verdict: str
    kind: str = ""  # of a wrong one: disagrees, not finite, crashes, does not run
    reason: str = ""
    nodes: int = 0

    def document(self) -> dict[str, Any]:
        return asdict(self)


class Wrong(Exception):
    def __init__(self, kind: str, reason: str) -> None:
        self.kind, self.reason = kind, reason
        super().__init__(f"{kind}: {reason}")


def judge(case: Case, form: str, tool: str, truth: Callable[[], Truth]) -> Verdict:
    """What a tool makes of a case in the form that is judged; ``truth`` is asked for only where there is a gradient."""

    def verdict(kind: str, what: str = "", reason: str = "", nodes: int = 0) -> Verdict:
        return Verdict(case.name, case.operator, form, tool, kind, what, reason, nodes)

    try:
        compiled = TOOLS[tool](case)
    except Refused as refused:
        return verdict(REFUSED, reason=str(refused))
    except Exception as error:  # a tool that crashes is judged for it
        return verdict(WRONG, "crashes", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    nodes = len(compiled.model.graph.node)
    try:
        known = truth()
        lacking = ""
        for place in known.points:
            found, lacking = gradients(case, compiled, place)
            check(case, known, place, found)
    except NoTruth as reason:
        return verdict(UNJUDGED, reason=str(reason), nodes=nodes)
    except Wrong as wrong:
        return verdict(WRONG, wrong.kind, wrong.reason, nodes)
    return verdict(UNRUN if lacking else RIGHT, reason=lacking, nodes=nodes)


def gradients(case: Case, compiled: Compiled, place: Point) -> tuple[dict[str, Array], str]:
    """The gradient of each real input by its name, and the outputs of the same run under ``OUTPUT`` and theirs; and why ONNX
    Runtime did not run it, where it lacks a kernel and the reference evaluator stood in."""
    seeds = {
        compiled.seeds[name]: g[..., None] if compiled.axis else g for name, g in place.adjoints.items() if name in compiled.seeds
    }
    feeds = {**place.feeds, **seeds}
    masked, lacking = case.operator == MASKED, ""
    try:
        results = Runner(compiled.model, feeds)(feeds, [*compiled.gradients.values(), *(case.real_outputs if masked else ())])
    except CannotRun as error:
        stand_in = _by_reference(compiled, feeds)
        if stand_in is None or not (_bfloat16(case) and "NOT_IMPLEMENTED" in str(error)):
            also = "" if stand_in is not None else ", nor does the reference evaluator"
            raise Wrong("does not run", f"ONNX Runtime does not run it{also}: {error}") from None
        results, lacking = stand_in, str(error)
    found = {name: results[compiled.gradients[name]] for name in case.real_inputs}
    if compiled.axis:
        found = {name: array[..., 0] for name, array in found.items()}
    return {**{OUTPUT + name: results[name] for name in case.expected if name in results}, **found}, lacking


def _by_reference(compiled: Compiled, feeds: Mapping[str, Array]) -> dict[str, Array] | None:
    try:
        session = evaluator(compiled.model.SerializeToString())
        return dict(zip(session.output_names, session.run(None, {n: feeds[n] for n in session.input_names}), strict=True))
    except Exception:  # the evaluator has no family of errors
        return None


def _bfloat16(case: Case) -> bool:
    return any(array.dtype.name == "bfloat16" for array in (*case.feeds.values(), *case.expected.values()))


def check(case: Case, known: Truth, place: Point, found: Mapping[str, Array]) -> None:
    """Raises Wrong where a gradient is not finite, of another shape, or not what the slopes say."""
    strict = place.whole or place is known.points[-1]  # published data may overflow; the last place is where it is judged
    for name in case.real_inputs:
        if found[name].shape != place.feeds[name].shape:
            raise Wrong(
                "disagrees", f"the gradient of {name} has the shape {found[name].shape}, {name} {place.feeds[name].shape}"
            )
        defined = all(d.slopes.finite for d in place.directions if d.name == name)
        if strict and defined and not np.isfinite(found[name].astype(np.float64)).all():
            raise Wrong("not finite", f"the gradient of {name} is not finite ({place.where} data)")
    if not strict:
        return
    if case.operator in INDEPENDENT:
        for name in case.real_inputs:
            if found[name].astype(np.float64).any():
                raise Wrong("disagrees", f"the gradient of {name} is not zero")
        return
    if case.operator == MASKED:
        x, y = case.real_inputs[0], case.real_outputs[0]
        moved = place.feeds[x] != 0  # a zero does not tell whether it was dropped
        factor = found[OUTPUT + y][moved].astype(np.float64) / place.feeds[x][moved].astype(np.float64)
        if not np.allclose(found[x][moved].astype(np.float64), place.adjoints[y][moved] * factor, 1e-3, 1e-5):
            raise Wrong("disagrees", f"the gradient of {x} is not the adjoint times the mask that the same run drew")
        return
    g = flat(place.adjoints, case.real_outputs)
    tolerance = max(case_tolerance(case), known.precision.tolerance)
    steepest = max((_steepness(d) for d in place.directions if d.slopes.smooth), default=0.0)
    steepest = max(steepest, 0.1 * _least_steepness(case, place))
    for direction in place.directions:
        if not direction.slopes.finite:
            continue  # a jump, or the edge of where the function is defined: nothing can be asked
        gradient = found[direction.name].astype(np.float64).ravel()
        reach = float(np.linalg.norm(g)) * steepest
        problem = _disagreement(
            g, direction.slopes, gradient * direction.v.ravel(), tolerance, reach * float(np.linalg.norm(direction.v))
        )
        if problem and not direction.slopes.smooth:  # several kinks at once: each element of the input by itself
            problem = _by_element(g, place, direction.name, gradient, tolerance, reach)
        if problem:
            raise Wrong("disagrees", f"along a direction of {direction.name} {problem} ({place.where} data)")


def _disagreement(g: Array, slopes: Slopes, terms: Array, tolerance: float, reach: float) -> str:
    """In which words the sum of ``terms`` is not what the slopes say, or nothing."""
    predicted = float(terms.sum())
    low, high = slopes.along(g)
    room = tolerance * (float(np.abs(terms).sum()) + abs(low) + abs(high) + 1e-2 * reach)
    if low - room <= predicted <= high + room:
        return ""
    stated = f"{low:.6g}" if low == high else f"between {low:.6g} and {high:.6g}"
    return f"it gives {predicted:.6g}, the truth is {stated}"


def _by_element(g: Array, place: Point, name: str, gradient: Array, tolerance: float, reach: float) -> str:
    """The first element of a gradient that does not lie between the slopes of its two sides."""
    assert place.along is not None
    if gradient.size > ELEMENTS:
        return ""
    for index in range(gradient.size):
        v = np.zeros(place.feeds[name].shape)
        v.flat[index] = 1.0
        slopes = place.along(name, v)
        if slopes.finite and (problem := _disagreement(g, slopes, gradient[index : index + 1], tolerance, reach)):
            return f"({index} of its elements) {problem}"
    return ""


def _steepness(direction: Direction) -> float:
    return float(np.linalg.norm(direction.slopes.right) / np.linalg.norm(direction.v))


def _least_steepness(case: Case, place: Point) -> float:
    """A slope of rounding: outputs of the published size over inputs of this size, at most 1; saturation hides what is below."""
    x = max((size_of(place.feeds[name].astype(np.float64)) for name in case.real_inputs), default=1.0)
    return min(1.0, max((size_of(case.expected[name].astype(np.float64)) for name in case.real_outputs), default=1.0) / x)
