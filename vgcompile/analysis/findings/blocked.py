"""Parameters that no gradient reaches."""

from __future__ import annotations

from collections.abc import Iterator

from vgcompile.analysis.findings.subject import Subject
from vgcompile.analysis.result import Finding
from vgcompile.rules.gradients import BLOCKED


def findings(subject: Subject) -> Iterator[Finding]:
    for layer, (names, reason) in subject.cut.items():
        message = f"{', '.join(names)} {'get' if len(names) > 1 else 'gets'} no gradient: {reason}"
        hint = "take it out of the parameters, or lead it to the loss by another way"
        yield Finding(BLOCKED, layer, subject.mark(layer), "certified", "error", message, hint=hint)
