"""The analysis as data: one JSON object with ``"schema": 1``.

docs/analysis-json.md describes it, analysis.schema.json checks it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from importlib import resources
from typing import Any

from vgcompile.analysis.checkpoints import Checkpoints
from vgcompile.analysis.result import (
    Activation,
    Analysis,
    Budget,
    Edge,
    Elements,
    Evidence,
    Finding,
    Layer,
    Mismatch,
    Operator,
    Path,
    Tiers,
    Verdict,
)

SCHEMA = 1


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of :func:`to_json`'s result."""
    return json.loads(resources.files("vgcompile.analysis").joinpath("analysis.schema.json").read_text())  # type: ignore[no-any-return]


def to_json(analysis: Analysis) -> dict[str, Any]:
    """An analysis as plain JSON values, every number a log10 rounded to 9 decimals, every null with its reason."""
    return {
        "schema": SCHEMA,
        "model": analysis.model,
        "source": analysis.source,
        "region": analysis.region,
        "verdict": _verdict(analysis.verdict),
        "worst_layer": analysis.worst,
        "operators": [_operator(operator) for operator in analysis.operators],
        "edges": [_edge(edge) for edge in analysis.edges],
        "layers": [_layer(layer) for layer in analysis.layers],
        "findings": [_finding(finding) for finding in analysis.findings],
        "budgets": [_budget(budget) for budget in analysis.budgets],
        "activations": [_activation(activation) for activation in analysis.activations],
        "self_check": {
            "violations": [_mismatch(mismatch) for mismatch in analysis.self_check.violations],
            "deviations": [_mismatch(mismatch) for mismatch in analysis.self_check.deviations],
        },
        "provenance": dict(analysis.provenance),
    }


def dumps(analysis: Analysis) -> str:
    """The document as text: the same analysis, the same bytes."""
    return json.dumps(to_json(analysis), indent=1, allow_nan=False) + "\n"


def dumps_checkpoints(found: Checkpoints) -> str:
    """Several analyses of one model, each with the file of its weights."""
    pairs = zip(found.files, found.analyses, strict=True)
    whole = {"schema": SCHEMA, "checkpoints": [{"weights": file, "analysis": to_json(analysis)} for file, analysis in pairs]}
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def _number(x: float | None) -> float | None:
    return None if x is None or not math.isfinite(x) else round(x, 9) + 0.0


def _tiers(tiers: Tiers) -> dict[str, Any]:
    return {
        "sound": {
            "lo": _number(tiers.sound.lo),
            "hi": _number(tiers.sound.hi),
            "vacuous": tiers.sound.vacuous,
            **({"by": list(tiers.sound.by)} if any(tiers.sound.by) else {}),
        },
        "expected": {
            "mean": _number(tiers.expected.mean),
            "sd": _number(tiers.expected.sd),
            "confidence": tiers.expected.confidence,
            "reason": tiers.expected.reason,
        },
        "measured": _number(tiers.measured),
        "why": dict(tiers.why),
    }


def _operator(operator: Operator) -> dict[str, Any]:
    return {
        "name": operator.name,
        "type": operator.type,
        "layer": operator.layer,
        "line": operator.line,
        "output": operator.output,
        "total": _tiers(operator.total),
    }


def _edge(edge: Edge) -> dict[str, Any]:
    return {
        "id": edge.id,
        "source": edge.source,
        "target": edge.target,
        "value": edge.value,
        "layer": edge.layer,
        "line": edge.line,
        "role": edge.role,
        "shape": list(edge.shape),
        "local": _tiers(edge.local),
        "gain": _tiers(edge.gain),
        "elements": _elements(edge.elements),
        "steps": [_tiers(step) for step in edge.steps],
    }


def _elements(elements: Elements | None) -> dict[str, Any] | None:
    if elements is None:
        return None
    return {"peak": _number(elements.peak), "zeros": _number(elements.zeros), "undefined": _number(elements.undefined)}


def _layer(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "line": layer.line,
        "value": layer.value,
        "gain": _tiers(layer.gain),
        "relative": _tiers(layer.relative),
        "update": _tiers(layer.update),
        "underflow": {kind: {tier: _number(share) for tier, share in shares.items()} for kind, shares in layer.underflow.items()},
        "verdict": _verdict(layer.verdict),
        "elements": _elements(layer.elements),
        "through_time": None if layer.through_time is None else _tiers(layer.through_time),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "kind": verdict.kind,
        "grade": verdict.grade,
        "log": _number(verdict.log),
        "over": verdict.over,
        "worst_path": _path(verdict.worst_path),
        "why": verdict.why,
    }


def _path(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    steps = [
        {"edge": s.edge, "layer": s.layer, "line": s.line, "factor": _number(s.factor), "merge": _number(s.merge)}
        for s in path.steps
    ]
    return {"tier": path.tier, "gain": _number(path.gain), "steps": steps}


def _finding(finding: Finding) -> dict[str, Any]:
    mark = finding.mark
    return {
        "id": finding.id,
        "code": finding.rule.code,
        "name": finding.rule.name,
        "layer": finding.layer,
        "file": mark.file,
        "line": mark.line or None,
        "column": mark.column if mark.line else None,
        "grade": finding.grade,
        "severity": finding.severity,
        "ratio": _number(finding.ratio),
        "message": finding.message,
        "hint": finding.hint or None,
        "known": finding.known,
        "evidence": _evidence(finding.evidence),
    }


def _evidence(evidence: Evidence | None) -> dict[str, Any] | None:
    if evidence is None:
        return None
    return {
        "tier": evidence.tier,
        "since": evidence.since,
        "log": _number(evidence.log),
        "causes": {cause: _number(log) for cause, log in evidence.causes.items()},
        "edges": [{"edge": b.edge, "layer": b.layer, "line": b.line, "log": _number(b.log)} for b in evidence.edges],
        "rest": _number(evidence.rest),
    }


def _budget(budget: Budget) -> dict[str, Any]:
    return {
        "segment": budget.segment,
        "layers": budget.layers,
        "tier": budget.tier,
        "rate": _number(budget.rate),
        "threshold": _number(budget.threshold),
        "underflow": {kind: _number(layers) for kind, layers in budget.underflow.items()},
    }


def _activation(activation: Activation) -> dict[str, Any]:
    histogram = activation.histogram
    return {
        "node": activation.node,
        "layer": activation.layer,
        "operator": activation.operator,
        "attributes": dict(asdict(activation)["attributes"]),
        "histogram": None if histogram is None else {"edges": [_number(x) for x in histogram[0]], "counts": list(histogram[1])},
        "mean": _number(activation.mean),
        "sd": _number(activation.sd),
    }


def _mismatch(mismatch: Mismatch) -> dict[str, str]:
    return {"edge": mismatch.edge, "message": mismatch.message}
