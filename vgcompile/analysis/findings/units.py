"""Units that pass nothing on: saturated ones, and such as are dead for every input of the stated set."""

from __future__ import annotations

from collections.abc import Iterator

from vgcompile.analysis.findings.subject import Subject
from vgcompile.analysis.result import Finding
from vgcompile.analysis.saturation import dead_units, saturated
from vgcompile.analysis.uses import layer_of
from vgcompile.rules.gradients import DEAD, SATURATED

DEAD_SHARE = 0.5  # of a layer's units, from which it is said


def findings(subject: Subject) -> Iterator[Finding]:
    yield from _saturated(subject)
    yield from _dead(subject)


def _saturated(subject: Subject) -> Iterator[Finding]:
    for layer in subject.held:
        if saturated(layer.value, subject.tiers):
            yield Finding(
                SATURATED,
                layer.name,
                subject.mark(layer.name),
                "predicted",
                "warning",
                "more than half of the units are expected where the slope is below a tenth of its greatest",
                hint="smaller initial weights, or a normalization in front of the activation",
            )


def _dead(subject: Subject) -> Iterator[Finding]:
    for node in subject.network.model.graph:
        share = dead_units(node, subject.tiers)
        if share < DEAD_SHARE:
            continue
        name = layer_of(node) or node.name or ""
        message = f"{100 * share:.0f} % of the units of {node.op_type} have the slope 0 on the whole stated set"
        hint = "biases nearer to 0, or an activation with a slope on both sides, as leaky_relu"
        yield Finding(DEAD, name, subject.mark(name), "certified", "error" if share == 1.0 else "warning", message, hint=hint)
