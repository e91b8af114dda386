"""Why a layer gets the gradient that it gets: its worst path, taken apart by cause and by edge.

Logs add, so that the parts of either account add up to the whole exactly: crossing an edge is put down to what the operator is
(a fact of its row), the joins of an edge with the value's other consumers to the fan-out.
"""

from __future__ import annotations

from collections.abc import Set
from itertools import accumulate

import onnx_ir as ir

from vgcompile.analysis.activations import bends
from vgcompile.analysis.findings.subject import Subject
from vgcompile.analysis.result import Blame, Cause, Evidence, Layer, Path, Step
from vgcompile.analysis.verdicts import last_hidden
from vgcompile.graph.emit import constant_of, dims
from vgcompile.ops import lookup

CAUSES: tuple[Cause, ...] = ("weights", "slopes", "scales", "normalization", "fan-out", "other")
NAMED = 5  # edges that are named at most,
MOST = 0.5  # fewer where these are to blame for half of the log


def evidence(subject: Subject, layer: Layer) -> Evidence | None:
    """A layer's evidence; None where its path is not spelled out."""
    path = layer.verdict.worst_path
    if path is None or not path.steps:
        return None
    edges = subject.edges_by_id
    steps, since_hidden = _since_last_hidden(subject, path)
    if not steps:
        return None
    causes = dict.fromkeys(CAUSES, 0.0)
    for step in steps:
        causes[cause(subject.nodes[edges[step.edge].target], edges[step.edge].value, subject.learned)] += step.factor
        causes["fan-out"] += step.merge
    log = sum(step.factor + step.merge for step in steps)
    blamed = _blamed([Blame(step.edge, step.layer, step.line, step.factor + step.merge) for step in steps], log)
    rest = log - sum(blame.log for blame in blamed)
    return Evidence(path.tier, "last hidden layer" if since_hidden else "dL/dy", log, causes, blamed, rest)


def _since_last_hidden(subject: Subject, path: Path) -> tuple[list[Step], bool]:
    """The steps behind the last hidden layer's pre-activation, or all where the path does not lead through it."""
    reference = last_hidden(subject.network, subject.held)
    for place, step in enumerate(path.steps):
        if reference is not None and subject.edges_by_id[step.edge].value == reference.name:
            return list(path.steps[place + 1 :]), True
    return list(path.steps), False


def cause(node: ir.Node, value: str, shared: Set[ir.Value]) -> Cause:
    """What a factor is put down to, of the edge on which a node reads a value."""
    row = lookup(node.op_type, node.domain)
    if row is not None and row.normalizes:
        return "normalization"
    if bends(node):
        return "slopes"
    others = [other for other in node.inputs if other is not None and other.name != value]
    fixed = all(other in shared or constant_of(other) is not None for other in others)
    if row is not None and row.elementwise and not row.linear and others and fixed:
        return "scales"
    return "weights" if any(other in shared and len(dims(other)) >= 2 for other in others) else "other"


def _blamed(steps: list[Blame], log: float) -> tuple[Blame, ...]:
    """The few edges that move the log most in its own direction, until they make up most of it."""
    sign = 1.0 if log >= 0 else -1.0
    worst = sorted((step for step in steps if sign * step.log > 0), key=lambda step: -sign * step.log)[:NAMED]
    reached = list(accumulate(sign * step.log for step in worst))
    enough = next((place + 1 for place, so_far in enumerate(reached) if so_far >= MOST * sign * log), len(worst))
    return tuple(worst[:enough])
