"""The tiers against each other.

A measured number outside its certified bound is a bug of ours; one far from the prediction is a remark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vgcompile.analysis.measured import Measured
from vgcompile.analysis.result import Edge, Finding, SelfCheck, Tiers

FLOAT32 = 2.0**-24
DEVIATIONS = 3.0
TINY_FLOAT32 = 2.0**-126


@dataclass(frozen=True)
class Checked:
    """One number with a name, as the self-check sees it."""

    name: str
    tiers: Tiers
    norm: float  # the least measured norm over the runs, to know whether it is still a normal float32


def self_check(edges: Sequence[Edge], runs: Sequence[Measured], inside: bool) -> SelfCheck:
    """Violations and deviations.

    Violations: a single run's gain outside [lo, hi], past the run's own rounding; judged only where the data lie in the stated
    set. Deviations: |M - E| beyond 3 standard deviations of the mean over the runs.
    """
    checked = [Checked(edge.id, edge.gain, _least(edge, runs)) for edge in edges]
    allowance = rounding_allowance(len({edge.target for edge in edges}))
    violations = _collect(checked, lambda item: _violation(item, allowance)) if inside and len(runs) == 1 else ()
    return SelfCheck(tuple(violations), tuple(_collect(checked, lambda item: _deviation(item, len(runs)))))


def rounding_allowance(depth: int) -> float:
    """log10 by which a float32 run may be off.

    A dot product of length k errs by k units in the last place at most, and in practice by sqrt(k); one factor of
    (1 + 2^-24 * 64) for each node that an adjoint passes is outside of both for the lengths that occur.
    """
    return depth * 64 * FLOAT32 / math.log(10.0) + 1e-6


def _least(edge: Edge, runs: Sequence[Measured]) -> float:
    return min((run.parts.get(edge.id, 0.0) for run in runs), default=0.0)


def _collect(items: Iterable[Checked], judge: Callable[[Checked], str]) -> list[Finding]:
    return [Finding(item.name, message) for item in items if (message := judge(item))]


def _violation(item: Checked, allowance: float) -> str:
    measured, bounds = item.tiers.measured, item.tiers.sound
    if measured is None or item.norm < TINY_FLOAT32:
        return ""
    if bounds.hi is not None and measured > bounds.hi + allowance:
        return f"measured 10^{measured:.6f} is above its certified bound 10^{bounds.hi:.6f}"
    if bounds.lo is not None and measured < bounds.lo - allowance:
        return f"measured 10^{measured:.6f} is below its certified bound 10^{bounds.lo:.6f}"
    if bounds.hi is None and item.tiers.why.get("sound.hi") == "zero":
        return f"measured 10^{measured:.6f} where no gradient can flow"
    return ""


def _deviation(item: Checked, runs: int) -> str:
    measured, prediction = item.tiers.measured, item.tiers.expected
    if measured is None or prediction.mean is None or prediction.sd is None or prediction.confidence == "low":
        return ""
    # A prediction is good to about 1 % of the norm (its own approximation) beside its spread over initializations.
    spread = math.hypot(prediction.sd / math.sqrt(runs), 0.005)
    if abs(measured - prediction.mean) <= DEVIATIONS * spread:
        return ""
    return f"measured 10^{measured:.3f}, predicted 10^{prediction.mean:.3f} +- {prediction.sd:.3f} (sd)"
