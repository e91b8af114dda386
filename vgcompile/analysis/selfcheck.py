"""The tiers against each other.

A measured number outside its certified bound is a bug of ours; one far from the prediction is a remark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vgcompile.analysis.bounds.domains import DOMAINS, Domain
from vgcompile.analysis.bounds.region import Region
from vgcompile.analysis.result import Edge, Mismatch, SelfCheck, Tiers
from vgcompile.analysis.sound import sound
from vgcompile.graph.network import Network

if TYPE_CHECKING:
    from vgcompile.analysis.measured import Measured

FLOAT32 = 2.0**-24
DEVIATIONS = 3.0
TINY_FLOAT32 = 2.0**-126
FLUSHED = -30.0  # log10 of a norm whose elements may all be below the normal numbers of float32

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Checked:
    """One number with a name, as the self-check sees it."""

    name: str
    tiers: Tiers
    norm: float  # the least measured norm over the runs, to know whether it is still a normal float32
    seed: float  # log10 of the least ||dL/dy||


def self_check(
    edges: Sequence[Edge], runs: Sequence[Measured], inside: bool, blurred: Callable[[], Mapping[str, Bounds]]
) -> SelfCheck:
    """Violations and deviations.

    Violations: a single run's gain outside [lo, hi], past the run's own rounding; judged only where the data lie in the stated
    set. What seems to be one is looked at again with ``blurred``, the bounds of every edge for operands and slopes that are off
    by a float32's rounding: in a saturated activation 1 - y^2 may have no correct digit. Deviations: |M - E| beyond 3 standard
    deviations of the mean over the runs.
    """
    seed = math.log10(least) if (least := min(run.norm for run in runs)) > 0 else -math.inf
    checked = [Checked(edge.id, edge.gain, _least(edge, runs), seed) for edge in edges]
    allowance = rounding_allowance(len({edge.target for edge in edges}))
    deviations = tuple(_collect(checked, lambda item: _deviation(item, len(runs))))
    if not inside or len(runs) != 1:
        return SelfCheck((), deviations)
    suspects = [item for item in checked if _violation(item, _stated(item), allowance)]
    wider = blurred() if suspects else {}
    violations = _collect(suspects, lambda item: _violation(item, wider.get(item.name, _stated(item)), allowance))
    return SelfCheck(tuple(violations), deviations)


def float32_bounds(network: Network, region: str | Region, domains: Sequence[Domain] = DOMAINS) -> dict[str, Bounds]:
    """Bounds of every edge, by its id, for a run whose operands are off by sixteen roundings to float32, and whose functions and
    slopes by as many of the largest term that they are computed from."""
    bounds = sound(network, region, 16 * FLOAT32, domains).gain
    return {f"{node.name}#{position}": ends for (node, position), ends in bounds.items()}


def rounding_allowance(depth: int) -> float:
    """log10 by which the linear algebra of a float32 run may be off.

    A dot product of length k errs by k units in the last place at most, in practice by less than sqrt(k), and the norm of many
    of them by far less than each; (1 + 2^-24 * 16) for each node that an adjoint passes is outside of what is seen by orders.
    """
    return depth * 16 * FLOAT32 / math.log(10.0) + 1e-6


def _stated(item: Checked) -> Bounds:
    """The certified bound of an edge, infinite where there is none."""
    bounds = item.tiers.sound
    zero = item.tiers.why.get("sound.hi") == "zero"
    return (
        bounds.lo if bounds.lo is not None else -math.inf,
        bounds.hi if bounds.hi is not None else -math.inf if zero else math.inf,
    )


def _least(edge: Edge, runs: Sequence[Measured]) -> float:
    return min((run.parts.get(edge.id, 0.0) for run in runs), default=0.0)


def _collect(items: Iterable[Checked], judge: Callable[[Checked], str]) -> list[Mismatch]:
    return [Mismatch(item.name, message) for item in items if (message := judge(item))]


def _violation(item: Checked, bounds: Bounds, allowance: float) -> str:
    measured, (lo, hi) = item.tiers.measured, bounds
    if measured is None:
        dead = item.tiers.why.get("measured") in ("zero", "underflow") and lo + item.seed > FLUSHED
        return f"measured nothing where at least 10^{lo:.6f} is certified" if dead else ""
    if item.norm < TINY_FLOAT32:
        return ""
    if hi == -math.inf:
        return f"measured 10^{measured:.6f} where no gradient can flow"
    if measured > hi + allowance:
        return f"measured 10^{measured:.6f} is above its certified bound 10^{hi:.6f}"
    if measured < lo - allowance:
        return f"measured 10^{measured:.6f} is below its certified bound 10^{lo:.6f}"
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
