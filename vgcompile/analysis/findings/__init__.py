"""Findings: what is wrong with a network's gradients, each by a rule (vgcompile/rules/gradients.py), graded, with its evidence.

    find(subject) -> findings, by code and then from the input to the loss

A room looks for one kind; it reads what the tiers found and runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vgcompile.analysis.findings import attention, blocked, flow, merges, precision, units
from vgcompile.analysis.findings.subject import Subject
from vgcompile.analysis.result import Finding
from vgcompile.spec.ignoring import ignored, text_of

__all__ = ["Subject", "find"]

_ROOMS = (flow, units, blocked, attention, merges, precision)


def find(subject: Subject) -> list[Finding]:
    """Everything that is wrong and that no comment takes back, once a rule and layer: of several the one of greatest ratio."""
    kept: dict[str, Finding] = {}
    for finding in (finding for room in _ROOMS for finding in room.findings(subject)):
        known = kept.setdefault(finding.id, finding)
        if abs(finding.ratio or 0.0) > abs(known.ratio or 0.0):
            kept[finding.id] = finding
    order = {name: place for place, name in enumerate(subject.marks)}
    return sorted(_not_ignored(subject, kept.values()), key=lambda finding: (finding.rule.code, order.get(finding.layer, -1)))


def _not_ignored(subject: Subject, findings: Iterable[Finding]) -> Iterator[Finding]:
    network = subject.network
    ignores: dict[str, set[tuple[int, str]]] = {}
    for finding in findings:
        file = finding.mark.file
        if finding.mark.line and file not in ignores:
            ignores[file] = ignored(network.text if file == network.source else text_of(file), file)
        if (finding.mark.line, finding.rule.code) not in ignores.get(file, ()):
            yield finding
