"""How findings are said.

Layers that are written at one place, the copies of a block, are said together: the worst of them, and the names of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from vgcompile.analysis.result import Budget, Finding

NAMED = 5  # layers that are named one by one
_SINCE = {"last hidden layer": "the last hidden layer", "dL/dy": "dL/dy"}


def together(findings: Iterable[Finding]) -> Iterator[list[Finding]]:
    """Findings of one rule at one place, in the order in which they are given."""
    ordered = sorted(findings, key=lambda finding: (finding.rule.code, finding.mark, finding.known))
    for _, group in groupby(ordered, key=lambda finding: (finding.rule.code, finding.mark, finding.known)):
        yield list(group)


def worst(group: Sequence[Finding]) -> Finding:
    return max(group, key=lambda finding: (finding.severity == "error", abs(finding.ratio or 0.0)))


def listed(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def reasons(finding: Finding) -> Iterator[str]:
    """The evidence in words: a line for the causes, one for the edges."""
    evidence = finding.evidence
    if evidence is None:
        return
    causes = ", ".join(f"{cause} {log:+.2f}" for cause, log in evidence.causes.items() if abs(log) >= 0.005)
    yield f"10^{evidence.log:.2f} since {_SINCE[evidence.since]} ({evidence.tier}): {causes}"
    if evidence.edges:
        edges = ", ".join(f"{blame.edge} {blame.log:+.2f}" for blame in evidence.edges)
        yield f"most at {edges}, all others {evidence.rest:+.2f}"


def budgets(found: Sequence[Budget]) -> list[str]:
    """One line a segment, in the first tier that knows its rate."""
    return [budget_text(next(budgets)) for _, budgets in groupby(found, key=lambda budget: budget.segment)]


def budget_text(budget: Budget) -> str:
    """``hidden (measured): 3.5 layers to 1e-3, 4.2 to float16 underflow, at 0.141 a layer``."""
    start = f"{budget.segment} ({budget.tier}): "
    if budget.threshold is None:
        return start + "its size is kept"
    end, word = (-3, "underflow") if budget.rate < 0 else (3, "overflow")
    limits = [f"{budget.threshold:.1f} layers to 1e{end}"]
    limits += [f"{layers:.1f} to {kind} {word}" for kind, layers in budget.underflow.items() if kind != "bfloat16"]
    return start + ", ".join(limits) + f", at {10**budget.rate:.3g} a layer"
