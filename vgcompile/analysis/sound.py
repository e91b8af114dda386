"""The sound tier: for every edge an interval that contains its gain, for every input of a stated set and these weights.

Forward, an enclosure of every value (interval arithmetic, rounded outward). From it, for every operator, the extremes of
||J^T g|| / ||g|| over the set: true slope extrema for elementwise operators, certified norms for linear ones. Backward, the
product of these along the graph, in log10, so that 1e-40 survives; where a value has several uses, the triangle inequality both
ways.

The ratio over a batch is an average of per-sample ratios, so the bound for one sample holds for every batch. What all samples
share, a parameter, collects a part from each of N samples: its bounds are against sqrt(N) ||dL/dy||. What depends on data and is
still used by several samples, the mean of a batch, has no bound for every N, and gets none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from vgcompile.analysis.edges import beyond_outputs, made
from vgcompile.analysis.uses import learned
from vgcompile.graph.case import case_of
from vgcompile.graph.emit import constant_of, is_real
from vgcompile.graph.network import Network
from vgcompile.graph.view import leading_to
from vgcompile.interval import WHOLE, Array, Interval, interval, point
from vgcompile.ops import NUMPY, lookup
from vgcompile.ops.op import Case, Dim, Op
from vgcompile.ops.reading import slope_range
from vgcompile.ops.shape import repeats

SAMPLES, UNKNOWN = "N", "?"  # symbols, as rows read them
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


def sound(network: Network, region: str, unit: float = 0.0) -> SoundTier:
    """Bound every edge on the stated set: ``everywhere``, or ``range`` (each input within its declared range).

    With a ``unit``, bound what a run may show that reads every operand with this relative error, and computes functions of one
    number and all slopes with an error of so much of their largest term.
    """
    cases, ranges = _enclose(network, region, unit)
    locals_ = _locals(network, cases, unit)
    seeds = _seeds(network)
    gain, total = _backward(network, locals_, seeds)

    def relative_to(reference: ir.Value) -> Mapping[ir.Value, Bounds]:
        """Bounds of ||adjoint of v|| / ||adjoint of reference||: the product between the two where every way from v to y passes
        through the reference, and the quotient of the two bounds elsewhere."""
        _, between = _backward(network, locals_, {reference: (0.0, 0.0)}, _Sweep(gain, total, seeds))
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


def _seeds(network: Network) -> dict[ir.Value, Bounds]:
    """dL/dy for the outputs, of several each a part; nothing is known of what the loss reads beside them."""
    beyond, wanted = beyond_outputs(network), set(network.outputs)
    graph = network.model.graph
    inside = [value for node in graph if node not in beyond for value in node.outputs]
    seeds = {value: (0.0 if len(wanted) == 1 else -math.inf, 0.0) for value in inside if value.name in wanted}
    into_loss = beyond & leading_to(graph, made(graph, {network.loss})) if network.loss else set()
    beside = [value for value in inside if value not in seeds and not into_loss.isdisjoint(value.consumers())]
    return seeds | dict.fromkeys(beside, (-math.inf, math.inf))


def _enclose(network: Network, region: str, unit: float) -> tuple[dict[ir.Node, Case], dict[ir.Value, Interval]]:
    """What is known of each node on the stated set, and the range of each value."""
    graph, shared = network.model.graph, learned(network)
    cases: dict[ir.Node, Case] = {}
    ranges: dict[ir.Value, Interval] = {}
    inputs = stated_set(network, region)
    for value in graph.inputs:
        ranges[value] = inputs.get(value.name or "", WHOLE)
    for value in graph.initializers.values():
        array = _known(value)
        if array is not None and array.dtype.kind == "f":
            ranges[value] = point(array)
    for node in graph:
        case = _case(network, node, ranges, shared)
        cases[node] = replace(case, ranges=tuple(bound and _blurred(bound, bound.magnitude, unit) for bound in case.ranges))
        for output, exact in zip(node.outputs, _node_range(node, cases[node]), strict=False):
            enclosure = _evaluated(node, cases[node], exact, unit)
            ranges[output] = enclosure if output.dtype is None or output.dtype.is_floating_point() else _discrete(output.dtype)
    return cases, ranges


def _blurred(x: Interval, scale: Array, unit: float) -> Interval:
    return Interval(x.lo - unit * scale, x.hi + unit * scale) if unit else x


def _evaluated(node: ir.Node, case: Case, exact: Interval, unit: float) -> Interval:
    """What a run may show of the value of a function of one number, whose terms may cancel."""
    row = lookup(node.op_type, node.domain)
    is_function = row is not None and len(row.derivatives) == 1 and not row.linear
    return _blurred(exact, _terms(case.ranges[0] or WHOLE, exact), unit) if unit and is_function else exact


def _terms(x: Interval, found: Interval) -> Array:
    """The size of the largest term that a value or slope at ``x`` is computed from: 1, x, or what comes out.

    Rounding of floats is relative to terms, not to their sum: (1 + erf) / 2, and the rational approximation 1/2 + r(x) by which
    runtimes evaluate a sigmoid, are off by a unit of 1 however small they are, and the x sigmoid(x) of them by one of x (Higham
    2002, section 3.1: |error| <= n u sum |terms|).
    """
    known = np.where(np.isfinite(x.magnitude), x.magnitude, 0.0)
    return np.maximum(np.maximum(found.magnitude, 1.0), known)


def _discrete(dtype: ir.DataType) -> Interval:
    """A truth value is 0 or 1; arithmetic of whole numbers cuts off and wraps around, which no row's range knows."""
    return interval(0.0, 1.0) if dtype == ir.DataType.BOOL else WHOLE


def _samples(network: Network) -> str | None:
    """The symbol that counts samples, as the batch's size is taken: the first one of the first input."""
    first = next(iter(network.inputs.values()), None)
    return first.shape[0] if first is not None and first.shape and isinstance(first.shape[0], str) else None


def _known(value: ir.Value) -> np.ndarray | None:
    """The array of an initializer, a parameter's as it stands: the bound is for these weights."""
    return value.const_value.numpy() if value.const_value is not None else constant_of(value)


def _node_range(node: ir.Node, case: Case) -> Iterable[Interval]:
    row = lookup(node.op_type, node.domain)
    if row is None or row.range is None:
        return [WHOLE] * len(node.outputs)
    try:
        found = row.range(case)
    except (NotImplementedError, ValueError):
        return [WHOLE] * len(node.outputs)
    return found if isinstance(found, tuple) else (found,)


def _case(network: Network, node: ir.Node, ranges: Mapping[ir.Value, Interval], shared: Set[ir.Value]) -> Case:
    """A symbol that does not count samples may stand for anything, as its name then tells; an unread output is left out."""

    def anonymous(dims: tuple[Dim, ...] | None) -> tuple[Dim, ...] | None:
        return dims and tuple((SAMPLES if dim == samples else UNKNOWN + dim) if isinstance(dim, str) else dim for dim in dims)

    case, samples = case_of(node), _samples(network)
    read = [True, *(bool(value.uses()) or value.name in network.outputs for value in node.outputs[1:])]
    return replace(
        case,
        shapes=tuple(map(anonymous, case.shapes)),
        outputs=tuple(anonymous(dims) if used else None for dims, used in zip(case.outputs, read, strict=True)),
        ranges=tuple(None if v is None else ranges.get(v, WHOLE) for v in node.inputs),
        values=tuple(None if v is None else _known(v) for v in node.inputs),
        data=frozenset(i for i, v in enumerate(node.inputs) if v not in shared),
    )


def _locals(network: Network, cases: Mapping[ir.Node, Case], unit: float) -> dict[Use, Bounds]:
    """log10 of the extremes of ||J^T g|| / ||g|| for each use that a gradient can pass, parameters included.

    Of what samples share there is no least gain: their parts may cancel.
    """
    found: dict[Use, Bounds] = {}
    shared = learned(network)
    for node, case in cases.items():
        row = lookup(node.op_type, node.domain)
        if row is None or row.blocked:
            continue
        for position, value in enumerate(node.inputs):
            if value is None or not is_real(value) or constant_of(value) is not None:
                continue
            lo, hi = _extremes(row, case, position, unit)
            gathers = value in shared and node.outputs[0] not in shared
            found[node, position] = _log(0.0 if gathers else lo, hi)
    return found


def _log(lo: float, hi: float) -> Bounds:
    return (math.log10(lo) - ROUNDING if lo > 0 else -math.inf, math.log10(hi) + ROUNDING if hi > 0 else -math.inf)


def _extremes(row: Op, case: Case, position: int, unit: float) -> tuple[float, float]:
    """Extremes of the factor of one use; (0, inf) where the row states nothing."""
    try:
        if row.norms is not None:
            return row.norms(case, position)
        if row.derivatives:
            return _slopes(row, case, position, unit)
    except (NotImplementedError, ValueError):
        pass
    return (0.0, math.inf)


def _slopes(row: Op, case: Case, position: int, unit: float) -> tuple[float, float]:
    """An elementwise Jacobian is diagonal: its extremes are those of |slope|.

    An operand that was broadcast k times collects k adjoints.
    """
    if row.derivatives[min(position, len(row.derivatives) - 1)] is None:
        return (0.0, 0.0)
    slopes = slope_range(NUMPY, row, position, case)
    if unit and not row.linear:
        slopes = _blurred(slopes, _terms(case.ranges[position] or WHOLE, slopes), unit)
    lo, hi = float(slopes.mignitude.min()), float(slopes.magnitude.max())
    copies = repeats(case, position)
    return (lo, hi) if copies == 1 or hi == 0.0 else (0.0, hi * math.sqrt(copies) * (1.0 + 1e-15))


@dataclass(frozen=True)
class _Sweep:
    """What a sweep from y found, and its seeds."""

    gain: Mapping[Use, Bounds]
    total: Mapping[ir.Value, Bounds]
    seeds: Mapping[ir.Value, Bounds]


def _backward(
    network: Network,
    locals_: Mapping[Use, Bounds],
    seeds: Mapping[ir.Value, Bounds],
    complete: _Sweep | None = None,
) -> tuple[dict[Use, Bounds], dict[ir.Value, Bounds]]:
    """Multiply the local factors from the seeds down.

    With ``complete``, the sweep from y, a value gets a total only where all that leads from it to y leads there through a seed.
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
            (lo, hi), dead = locals_[node, position], -math.inf in (out[1], locals_[node, position][1])
            gain[node, position] = part = (out[0] + lo, -math.inf if dead else out[1] + hi)
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
    complete: _Sweep | None,
) -> Bounds | None:
    """Bounds of the adjoint of everything the node gives out: of one output, or of all of them side by side."""
    known = []
    for output in node.outputs:
        if output in parts and _all_there(output, parts, complete):
            total[output] = combine([*parts[output], *([seeds[output]] if output in seeds else [])])
        if output in total:
            known.append(total[output])
        elif complete is not None and output in complete.total:
            return None
    return beside(known) if known else None


def _all_there(value: ir.Value, parts: Mapping[ir.Value, list[Bounds]], complete: _Sweep | None) -> bool:
    if complete is None:
        return True
    leading = sum((use.node, use.idx) in complete.gain for use in value.uses())
    return value not in complete.seeds and len(parts[value]) == leading


def beside(parts: Sequence[Bounds]) -> Bounds:
    """Bounds of the norm of several adjoints side by side: the root of the sum of their squares."""
    if len(parts) == 1:
        return parts[0]
    least, most = (_root_of_squares([part[end] for part in parts]) for end in (0, 1))
    return (least - ROUNDING, most + ROUNDING)


def _root_of_squares(logs: Sequence[float]) -> float:
    top = max(logs)
    return top if math.isinf(top) else top + 0.5 * math.log10(sum(100.0 ** (log - top) for log in logs))


def combine(parts: Iterable[Bounds]) -> Bounds:
    """Bounds of the norm of a sum, from bounds of its terms: the triangle inequality, both ways."""
    (lo, top), *others = sorted(parts, key=lambda part: part[1], reverse=True)
    if not others:
        return (lo, top)
    if math.isinf(top):
        return (-math.inf, top)
    rest = sum(
        10.0 ** (hi - top) for _, hi in others
    )  # summed without the largest, of which it may be less than one part in 1e16
    least = 10.0 ** (lo - top) - rest * (1.0 + 1e-12)
    return (top + math.log10(least) - ROUNDING if least > 0 else -math.inf, top + math.log10(1.0 + rest) + ROUNDING)
