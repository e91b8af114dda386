"""A tool's gradient of a case against the truth: right, refused or wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator

from benchmarks.conformance.cases import Case
from benchmarks.conformance.running import CannotRun, Runner
from benchmarks.conformance.tools import TOOLS, Compiled, Refused
from benchmarks.conformance.truth import INDEPENDENT, MASKED, Direction, NoTruth, Point, Truth, case_tolerance, flat

Array = np.ndarray[Any, Any]
RIGHT, REFUSED, WRONG, UNJUDGED = "right", "refused", "WRONG", "not judged"
OUTPUT = "output:"


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
        for place in known.points:
            check(case, known, place, gradients(case, compiled, place))
    except NoTruth as reason:
        return verdict(UNJUDGED, reason=str(reason), nodes=nodes)
    except Wrong as wrong:
        return verdict(WRONG, wrong.kind, wrong.reason, nodes)
    return verdict(RIGHT, nodes=nodes)


def gradients(case: Case, compiled: Compiled, place: Point) -> dict[str, Array]:
    """The gradient of each real input by its name, and the outputs of the same run under ``OUTPUT`` and theirs."""
    seeds = {
        compiled.seeds[name]: g[..., None] if compiled.axis else g for name, g in place.adjoints.items() if name in compiled.seeds
    }
    feeds = {**place.feeds, **seeds}
    try:
        results = Runner(compiled.model, feeds)(feeds)
    except CannotRun as error:
        also = "" if _runs_by_reference(compiled, feeds) else ", nor does the reference evaluator"
        raise Wrong("does not run", f"ONNX Runtime does not run it{also}: {error}") from None
    found = {}
    for name in case.real_inputs:
        array = results[compiled.gradients[name]]
        found[name] = array[..., 0] if compiled.axis else array
    return {**{OUTPUT + name: results[name] for name in case.expected if name in results}, **found}


def _runs_by_reference(compiled: Compiled, feeds: Mapping[str, Array]) -> bool:
    try:
        ReferenceEvaluator(compiled.model).run(None, dict(feeds))
    except Exception:
        return False
    return True


def check(case: Case, known: Truth, place: Point, found: Mapping[str, Array]) -> None:
    """Raises Wrong where a gradient is not finite, of another shape, or not what the slopes say."""
    for name in case.real_inputs:
        if found[name].shape != place.feeds[name].shape:
            raise Wrong(
                "disagrees", f"the gradient of {name} has the shape {found[name].shape}, {name} {place.feeds[name].shape}"
            )
        if place.finite and not np.isfinite(found[name].astype(np.float64)).all():
            raise Wrong("not finite", f"the gradient of {name} is not finite ({place.where} data)")
    if not place.finite:
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
    for direction in place.directions:
        terms = found[direction.name].astype(np.float64).ravel() * direction.v.ravel()
        predicted = float(terms.sum())
        low, high = direction.slopes.along(g)
        if not direction.slopes.finite:
            continue  # a jump, or the edge of where the function is defined: finite is all that can be asked
        room = tolerance * (np.abs(terms).sum() + abs(low) + abs(high))
        floor = 1e-2 * tolerance * float(np.linalg.norm(g) * np.linalg.norm(direction.v)) * max(steepest, 1e-3)
        if not low - room - floor <= predicted <= high + room + floor:
            stated = f"{low:.6g}" if low == high else f"between {low:.6g} and {high:.6g}"
            raise Wrong(
                "disagrees",
                f"along a direction of {direction.name} it gives {predicted:.6g}, the truth is {stated} ({place.where} data)",
            )


def _steepness(direction: Direction) -> float:
    return float(np.linalg.norm(direction.slopes.right) / np.linalg.norm(direction.v))
