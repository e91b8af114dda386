"""Vanishing, exploding and dead layers: the verdicts, with their evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vgcompile.analysis.findings.attribution import evidence
from vgcompile.analysis.findings.subject import Subject
from vgcompile.analysis.presets import Preset
from vgcompile.analysis.result import Cause, Evidence, Finding, Grade, Kind, Layer
from vgcompile.rules import gradients as rules
from vgcompile.rules.rule import Rule, Severity

_RULES: Mapping[tuple[Kind, Grade], Rule] = {
    ("vanishing", "certified"): rules.CERTIFIED_VANISHING,
    ("vanishing", "predicted"): rules.PREDICTED_VANISHING,
    ("vanishing", "observed"): rules.OBSERVED_VANISHING,
    ("exploding", "certified"): rules.CERTIFIED_EXPLODING,
    ("exploding", "predicted"): rules.PREDICTED_EXPLODING,
    ("exploding", "observed"): rules.OBSERVED_EXPLODING,
}
_HINTS: Mapping[tuple[Kind, Cause | None], str] = {
    ("vanishing", "slopes"): "an activation with a slope near 1, as relu or gelu, or a residual connection around each layer",
    ("vanishing", "weights"): "initial weights with a larger gain, orthogonal ones, or a residual connection around each layer",
    (
        "vanishing",
        "scales",
    ): "a branch scale that begins larger, or an optimizer that divides gradients by their size, as Adam",
    ("vanishing", "normalization"): "smaller values in front of the normalization, or a residual connection around it",
    ("vanishing", None): "a residual connection around each layer",
    ("exploding", "weights"): "initial weights with a smaller gain, or a branch that starts at 0 beside a skip",
    ("exploding", "normalization"): "skips around the normalized layers: normalization alone explodes (Yang et al. 2019)",
    ("exploding", "fan-out"): "residual branches scaled by 1/sqrt(depth)",
    ("exploding", None): "smaller initial weights, or residual branches that are scaled down",
}
_OVER_STEPS: Mapping[Kind, tuple[Rule, str]] = {
    "vanishing": (
        rules.VANISHING_OVER_TIME,
        "a gated cell whose gate begins open, orthogonal recurrent weights, shorter sequences, or attention over the steps",
    ),
    "exploding": (rules.EXPLODING_OVER_TIME, "orthogonal recurrent weights, and gradients that are clipped"),
}
GRAVE = 3.0  # decades beyond the threshold from which a finding is an error


def findings(subject: Subject) -> Iterator[Finding]:
    for layer in subject.layers:
        kind, grade = layer.verdict.kind, layer.verdict.grade
        if kind == "dead" and layer.name not in subject.cut:
            yield Finding(rules.DEAD, layer.name, subject.mark(layer.name), grade, "error", layer.verdict.why)
        elif layer.verdict.over == "steps":
            yield _over_steps(subject, layer)
        elif (rule := _RULES.get((kind, grade))) is not None:
            yield _off_scale(subject, layer, rule)


def _over_steps(subject: Subject, layer: Layer) -> Finding:
    verdict = layer.verdict
    rule, hint = _OVER_STEPS[verdict.kind]
    graded = severity(subject.preset, layer)
    return Finding(rule, layer.name, subject.mark(layer.name), verdict.grade, graded, verdict.why, verdict.log, hint)


def _off_scale(subject: Subject, layer: Layer, rule: Rule) -> Finding:
    verdict, found = layer.verdict, evidence(subject, layer)
    return Finding(
        rule,
        layer.name,
        subject.mark(layer.name),
        verdict.grade,
        "warning" if verdict.kind == "vanishing" and _worst(verdict.kind, found) == "scales" else severity(subject.preset, layer),
        verdict.why,
        verdict.log,
        _hint(verdict.kind, found),
        found,
    )


def severity(preset: Preset, layer: Layer) -> Severity:
    """An error where the ratio is a thousand times beyond the threshold; a prediction in doubt never is one."""
    verdict = layer.verdict
    if verdict.grade == "predicted" and layer.relative.expected.confidence == "low":
        return "warning"
    if verdict.log is None:
        return "error"
    beyond = preset.vanishing - verdict.log if verdict.kind == "vanishing" else verdict.log - preset.exploding
    return "error" if beyond >= GRAVE else "warning"


def _hint(kind: Kind, found: Evidence | None) -> str:
    """What would do, by the cause that moves the gradient most in that direction."""
    return _HINTS.get((kind, _worst(kind, found)), _HINTS[kind, None])


def _worst(kind: Kind, found: Evidence | None) -> Cause | None:
    if found is None:
        return None
    return (min if kind == "vanishing" else max)(found.causes, key=lambda cause: found.causes[cause])
