"""Gradients that cancel where the consumers of a value hand theirs back."""

from __future__ import annotations

import math
from collections.abc import Iterator

from vgcompile.analysis.findings.subject import Subject
from vgcompile.analysis.result import Edge, Finding
from vgcompile.analysis.uses import layer_of
from vgcompile.rules.gradients import CANCELLING

CANCELLED = -1.0  # log10 of |sum| against the root of the sum of squares


def findings(subject: Subject) -> Iterator[Finding]:
    for edges in _merges(subject):
        left = _left(subject, edges)
        if left is None or left >= CANCELLED:
            continue
        layer = _producer(subject, edges[0])
        parts = ", ".join(edge.id for edge in edges[:3]) + (f" and {len(edges) - 3} more" if len(edges) > 3 else "")
        yield Finding(
            CANCELLING,
            layer,
            subject.mark(layer),
            "observed",
            "warning",
            f"of the gradients of {parts} 10^{left:.2f} is left when they are added",
            left,
            "one way less, or other factors on them",
        )


def _merges(subject: Subject) -> list[list[Edge]]:
    """The edges of each value that depends on data and has several consumers."""
    by_value: dict[str, list[Edge]] = {}
    for edge in subject.edges:
        if edge.role == "activation" and edge.gain.measured is not None:
            by_value.setdefault(edge.value, []).append(edge)
    return [edges for edges in by_value.values() if len(edges) > 1]


def _left(subject: Subject, edges: list[Edge]) -> float | None:
    """log10 of |sum| / root of the sum of squares, averaged over the runs; 0 for parts at right angles."""
    logs = []
    for run in subject.tiers.measured:
        whole = run.totals.get(edges[0].value, 0.0)
        parts = math.hypot(*(run.parts.get(edge.id, 0.0) for edge in edges))
        if not (0.0 < whole < math.inf and 0.0 < parts < math.inf):
            return None
        logs.append(math.log10(whole / parts))
    return sum(logs) / len(logs)


def _producer(subject: Subject, edge: Edge) -> str:
    """The layer that makes the value; of an input of the network, the one that reads it."""
    node = subject.nodes.get(edge.source)
    return edge.layer if node is None else layer_of(node) or edge.source
