"""The sound tier: for every edge an interval that contains its gain, for every input of a stated set and these weights.

Forward, an enclosure of every value (interval arithmetic, rounded outward). From it, for every operator, the extremes of
||J^T g|| / ||g|| over the set: true slope extrema for elementwise operators, certified norms for linear ones. Backward, the
product of these along the graph, in log10, so that 1e-40 survives; where a value has several uses, the triangle inequality both
ways.

The ratio over a batch is an average of per-sample ratios, so the bound for one sample holds for every batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from vgcompile.graph.emit import constant_of
from vgcompile.graph.network import Network
from vgcompile.interval import WHOLE, Interval, interval, point
from vgcompile.ops import NUMPY, lookup
from vgcompile.ops.op import Case, Op
from vgcompile.ops.reading import slope_range
from vgcompile.passes.differentiate import case_of

ROUNDING = 1e-12  # outward widening of each log10, far above the error of log10 and of one addition

Bounds = tuple[float, float]  # lo and hi of a log10; lo may be -inf (nothing from below), hi may be inf
Use = tuple[ir.Node, int]


@dataclass(frozen=True)
class SoundTier:
    """``gain`` and ``total`` are against ||dL/dy||; ``local`` is the operator's own factor.

    Values that reach y by no differentiable way are absent.
    """

    gain: Mapping[Use, Bounds]
    total: Mapping[ir.Value, Bounds]
    local: Mapping[Use, Bounds]
    ranges: Mapping[ir.Value, Interval]
    relative_to: Callable[[ir.Value], Mapping[ir.Value, Bounds]]


def sound(network: Network, region: str) -> SoundTier:
    """Bound every edge on the stated set: ``everywhere``, or ``range`` (each input within its declared range)."""
    ranges = _ranges(network, region)
    locals_ = _locals(network, ranges)
    outputs = _outputs(network)
    gain, total = _backward(network, locals_, dict.fromkeys(outputs, (0.0, 0.0)))

    def relative_to(reference: ir.Value) -> Mapping[ir.Value, Bounds]:
        """Bounds of ||adjoint of v|| / ||adjoint of reference||: the product between the two where every way from v to y passes
        through the reference, and the quotient of the two bounds elsewhere."""
        _, between = _backward(network, locals_, {reference: (0.0, 0.0)}, complete=gain)
        lo, hi = total.get(reference, (-math.inf, math.inf))
        return {value: between.get(value, (_minus(a, hi), -_minus(lo, b))) for value, (a, b) in total.items()}

    return SoundTier(gain, total, locals_, ranges, relative_to)


def _minus(a: float, b: float) -> float:
    """A lower bound of a - b; -inf where an end is infinite."""
    return a - b - ROUNDING if math.isfinite(a) and math.isfinite(b) else -math.inf


def stated_set(network: Network, region: str) -> dict[str, Interval]:
    """The set that the inputs lie in, by input name."""
    return {
        name: interval(*declared.range) if region == "range" and declared.range is not None else WHOLE
        for name, declared in network.inputs.items()
        if declared.dtype.is_floating_point()
    }


def _outputs(network: Network) -> list[ir.Value]:
    wanted = set(network.outputs)
    return [value for node in network.model.graph for value in node.outputs if value.name in wanted]


def _ranges(network: Network, region: str) -> dict[ir.Value, Interval]:
    graph = network.model.graph
    ranges: dict[ir.Value, Interval] = {}
    inputs = stated_set(network, region)
    for value in graph.inputs:
        ranges[value] = inputs.get(value.name or "", WHOLE)
    for value in graph.initializers.values():
        array = _known(value)
        if array is not None and array.dtype.kind == "f":
            ranges[value] = point(array)
    for node in graph:
        found = _node_range(node, ranges)
        for output, enclosure in zip(node.outputs, found, strict=False):
            ranges[output] = enclosure
    return ranges


def _known(value: ir.Value) -> np.ndarray | None:
    """The array of an initializer, a parameter's as it stands: the bound is for these weights."""
    return value.const_value.numpy() if value.const_value is not None else constant_of(value)


def _node_range(node: ir.Node, ranges: Mapping[ir.Value, Interval]) -> Iterable[Interval]:
    row = lookup(node.op_type, node.domain)
    if row is None or row.range is None:
        return [WHOLE] * len(node.outputs)
    try:
        found = row.range(_case(node, ranges))
    except (NotImplementedError, ValueError):
        return [WHOLE] * len(node.outputs)
    return found if isinstance(found, tuple) else (found,)


def _case(node: ir.Node, ranges: Mapping[ir.Value, Interval]) -> Case:
    return replace(
        case_of(node),
        ranges=tuple(None if v is None else ranges.get(v, WHOLE) for v in node.inputs),
        values=tuple(None if v is None else _known(v) for v in node.inputs),
    )


def _locals(network: Network, ranges: Mapping[ir.Value, Interval]) -> dict[Use, Bounds]:
    """log10 of the extremes of ||J^T g|| / ||g|| for each use that a gradient can pass, parameters included."""
    found: dict[Use, Bounds] = {}
    parameters = set(network.parameters)
    for node in network.model.graph:
        row = lookup(node.op_type, node.domain)
        if row is None or row.blocked:
            continue
        case = _case(node, ranges)
        for position, value in enumerate(node.inputs):
            if value is None or value.dtype is None or not value.dtype.is_floating_point():
                continue
            if value.const_value is not None and value.name not in parameters:
                continue
            lo, hi = _extremes(row, case, position)
            found[node, position] = _log(lo, hi)
    return found


def _log(lo: float, hi: float) -> Bounds:
    return (math.log10(lo) - ROUNDING if lo > 0 else -math.inf, math.log10(hi) + ROUNDING if hi > 0 else -math.inf)


def _extremes(row: Op, case: Case, position: int) -> tuple[float, float]:
    """Extremes of the factor of one use; (0, inf) where the row states nothing."""
    try:
        if row.norms is not None:
            return row.norms(case, position)
        if row.derivatives:
            return _slopes(row, case, position)
    except NotImplementedError:
        pass
    return (0.0, math.inf)


def _slopes(row: Op, case: Case, position: int) -> tuple[float, float]:
    """An elementwise Jacobian is diagonal: its extremes are those of |slope|.

    An operand that was broadcast k times collects k adjoints.
    """
    if row.derivatives[min(position, len(row.derivatives) - 1)] is None:
        return (0.0, 0.0)
    slopes = slope_range(NUMPY, row, position, case)
    lo, hi = float(slopes.mignitude.min()), float(slopes.magnitude.max())
    copies = case.count(case.outputs[0]) // max(case.count(case.shapes[position]), 1)
    return (lo, hi) if copies <= 1 else (0.0, hi * math.sqrt(copies) * (1.0 + 1e-15))


def _backward(
    network: Network,
    locals_: Mapping[Use, Bounds],
    seeds: Mapping[ir.Value, Bounds],
    complete: Mapping[Use, Bounds] | None = None,
) -> tuple[dict[Use, Bounds], dict[ir.Value, Bounds]]:
    """Multiply the local factors from the seeds down.

    With ``complete``, the gains of a sweep from y, a value gets a total only where all of its uses that lead to y lead there
    through a seed.
    """
    gain: dict[Use, Bounds] = {}
    parts: dict[ir.Value, list[Bounds]] = {}
    total: dict[ir.Value, Bounds] = dict(seeds)
    for node in reversed(list(network.model.graph)):
        out = _output_total(node, seeds, parts, total, complete)
        if out is None:
            continue
        for position, value in enumerate(node.inputs):
            if (node, position) not in locals_ or value is None:
                continue
            lo, hi = locals_[node, position]
            gain[node, position] = part = (out[0] + lo, out[1] + hi if hi > -math.inf else -math.inf)
            parts.setdefault(value, []).append(part)
    for value in network.model.graph.inputs:
        if value in parts and _all_there(value, parts, complete):
            total[value] = combine(parts[value])
    return gain, total


def _output_total(
    node: ir.Node,
    seeds: Mapping[ir.Value, Bounds],
    parts: Mapping[ir.Value, list[Bounds]],
    total: dict[ir.Value, Bounds],
    complete: Mapping[Use, Bounds] | None,
) -> Bounds | None:
    """Bounds of the adjoint of everything the node gives out: of one output, or of all of them together."""
    known = []
    for output in node.outputs:
        if output in seeds and output not in parts:
            known.append(seeds[output])
        elif output in parts and _all_there(output, parts, complete):
            total[output] = combine([*parts[output], *([seeds[output]] if output in seeds else [])])
            known.append(total[output])
    return combine(known) if known else None


def _all_there(value: ir.Value, parts: Mapping[ir.Value, list[Bounds]], complete: Mapping[Use, Bounds] | None) -> bool:
    return complete is None or len(parts[value]) == sum((use.node, use.idx) in complete for use in value.uses())


def combine(parts: Iterable[Bounds]) -> Bounds:
    """Bounds of the norm of a sum, from bounds of its terms: the triangle inequality, both ways."""
    terms = list(parts)
    if len(terms) == 1:
        return terms[0]
    top = max(hi for _, hi in terms)
    if top == -math.inf or top == math.inf:
        return (-math.inf, top)
    sizes = [10.0 ** (hi - top) for _, hi in terms]
    total = sum(sizes)
    least = max(10.0 ** (lo - top) - (total - size) * (1.0 + 1e-12) for (lo, _), size in zip(terms, sizes, strict=True))
    return (top + math.log10(least) - ROUNDING if least > 0 else -math.inf, top + math.log10(total) + ROUNDING)
