"""From the seeds down: products of factors and sums of parts, met with what other domains say of each use and value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from vgcompile.analysis.bounds.domains import PRODUCT
from vgcompile.analysis.bounds.ellipsoid import Followed, Found
from vgcompile.analysis.bounds.factors import Use
from vgcompile.analysis.bounds.logs import Bounds, beside, combine, times
from vgcompile.graph.network import Network


@dataclass(frozen=True)
class Sweep:
    """What was found from these seeds; ``by`` names the domains of a use's two ends, lower and upper."""

    gain: Mapping[Use, Bounds]
    total: Mapping[ir.Value, Bounds]
    seeds: Mapping[ir.Value, Bounds]
    by: Mapping[Use, tuple[str, str]]


def backward(
    network: Network,
    factors: Mapping[Use, Bounds],
    seeds: Mapping[ir.Value, Bounds],
    followed: Followed,
    complete: Sweep | None = None,
) -> Sweep:
    """Multiply the factors from the seeds down; of several bounds of one number the intersection is kept.

    With ``complete``, the sweep from y, a value gets a total only where all that leads from it to y leads there through a seed.
    """
    gain: dict[Use, Bounds] = {}
    by: dict[Use, tuple[str, str]] = {}
    parts: dict[ir.Value, list[Bounds]] = {}
    total: dict[ir.Value, Bounds] = dict(seeds)
    for node in reversed(list(network.model.graph)):
        out = _output_total(node, seeds, parts, total, followed, complete)
        if out is None:
            continue
        for position, value in enumerate(node.inputs):
            use = (node, position)
            if use not in factors or value is None:
                continue
            gain[use], by[use] = tightest(times(out, factors[use]), followed.gain.get(use, {}))
            parts.setdefault(value, []).append(gain[use])
    for value in network.model.graph.inputs:
        if value in parts and _all_there(value, parts, complete):
            total[value], _ = tightest(combine(parts[value]), followed.total.get(value, {}))
    return Sweep(gain, total, seeds, by)


def tightest(product: Bounds, others: Found) -> tuple[Bounds, tuple[str, str]]:
    """The intersection of what domains say, and which of them gave its two ends."""
    named: Iterable[tuple[str, Bounds]] = [(PRODUCT, product), *others.items()]
    low, high = max(named, key=lambda pair: pair[1][0]), min(named, key=lambda pair: pair[1][1])
    if low[1][0] > high[1][1]:  # by rounding alone: both ends are true
        return (high[1][1], low[1][0]), (high[0], low[0])
    return (low[1][0], high[1][1]), (low[0], high[0])


def _output_total(
    node: ir.Node,
    seeds: Mapping[ir.Value, Bounds],
    parts: Mapping[ir.Value, list[Bounds]],
    total: dict[ir.Value, Bounds],
    followed: Followed,
    complete: Sweep | None,
) -> Bounds | None:
    """Bounds of the adjoint of everything the node gives out: of one output, or of all of them side by side."""
    known = []
    for output in node.outputs:
        if output in parts and _all_there(output, parts, complete):
            summed = combine([*parts[output], *([seeds[output]] if output in seeds else [])])
            total[output], _ = tightest(summed, followed.total.get(output, {}))
        if output in total:
            known.append(total[output])
        elif complete is not None and output in complete.total:
            return None
    return beside(known) if known else None


def _all_there(value: ir.Value, parts: Mapping[ir.Value, list[Bounds]], complete: Sweep | None) -> bool:
    if complete is None:
        return True
    leading = sum((use.node, use.idx) in complete.gain for use in value.uses())
    return value not in complete.seeds and len(parts[value]) == leading


def joined(sweeps: Iterable[Sweep]) -> Sweep:
    """What holds on every piece: of each number the least lower and the greatest upper end."""
    first, *others = sweeps
    if not others:
        return first
    gain, total, by = dict(first.gain), dict(first.total), dict(first.by)
    for sweep in others:
        for use, (lo, hi) in sweep.gain.items():
            before, names = gain[use], by[use]
            gain[use] = (min(before[0], lo), max(before[1], hi))
            by[use] = (sweep.by[use][0] if lo < before[0] else names[0], sweep.by[use][1] if hi > before[1] else names[1])
        for value, (lo, hi) in sweep.total.items():
            old = total.get(value, (math.inf, -math.inf))
            total[value] = (min(old[0], lo), max(old[1], hi))
    return Sweep(gain, total, first.seeds, by)
