"""The analysis as data: one JSON object with ``"schema": 1``.

docs/analysis-json.md describes it, analysis.schema.json checks it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from importlib import resources
from typing import Any

from vgcompile.analysis.result import Activation, Analysis, Edge, Finding, Layer, Path, Tiers, Verdict

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
        "edges": [_edge(edge) for edge in analysis.edges],
        "layers": [_layer(layer) for layer in analysis.layers],
        "activations": [_activation(activation) for activation in analysis.activations],
        "self_check": {
            "violations": [_finding(finding) for finding in analysis.self_check.violations],
            "deviations": [_finding(finding) for finding in analysis.self_check.deviations],
        },
        "provenance": dict(analysis.provenance),
    }


def dumps(analysis: Analysis) -> str:
    """The document as text: the same analysis, the same bytes."""
    return json.dumps(to_json(analysis), indent=1, allow_nan=False) + "\n"


def _number(x: float | None) -> float | None:
    return None if x is None or not math.isfinite(x) else round(x, 9) + 0.0


def _tiers(tiers: Tiers) -> dict[str, Any]:
    return {
        "sound": {"lo": _number(tiers.sound.lo), "hi": _number(tiers.sound.hi), "vacuous": tiers.sound.vacuous},
        "expected": {
            "mean": _number(tiers.expected.mean),
            "sd": _number(tiers.expected.sd),
            "confidence": tiers.expected.confidence,
        },
        "measured": _number(tiers.measured),
        "why": dict(tiers.why),
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
    }


def _layer(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "line": layer.line,
        "value": layer.value,
        "gain": _tiers(layer.gain),
        "relative": _tiers(layer.relative),
        "update": _tiers(layer.update),
        "verdict": _verdict(layer.verdict),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {"kind": verdict.kind, "grade": verdict.grade, "worst_path": _path(verdict.worst_path), "why": verdict.why}


def _path(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    steps = [
        {"edge": s.edge, "layer": s.layer, "line": s.line, "factor": _number(s.factor), "merge": _number(s.merge)}
        for s in path.steps
    ]
    return {"tier": path.tier, "gain": _number(path.gain), "steps": steps}


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


def _finding(finding: Finding) -> dict[str, str]:
    return {"edge": finding.edge, "message": finding.message}
