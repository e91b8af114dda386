"""Ranges of all values on one piece of the region: interval arithmetic in graph order, rounded outward."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import onnx_ir as ir

from vgcompile.analysis.activations import bends
from vgcompile.analysis.bounds.domains import DOMAINS, ELLIPSOID, ZONOTOPE, Domain
from vgcompile.analysis.bounds.points import Points
from vgcompile.analysis.bounds.reach import Reach
from vgcompile.analysis.bounds.region import Piece
from vgcompile.analysis.bounds.slopes import blurred, bounds_differences, extremes, slopes_anywhere, tangent, terms
from vgcompile.analysis.bounds.support import Support
from vgcompile.analysis.bounds.zonotope import Step, Zonotopes
from vgcompile.analysis.uses import learned
from vgcompile.graph.case import case_of
from vgcompile.graph.emit import constant_of, dims
from vgcompile.graph.network import Network
from vgcompile.interval import WHOLE, Interval, interval, point
from vgcompile.ops import lookup
from vgcompile.ops.op import Case, Dim, Tangent

Drawn = Mapping[ir.Value, Support]
SAMPLES, UNKNOWN_SYMBOL = "N", "?"  # symbols, as rows read them
MOST_UNTOLD = 16  # activations, from which on ranges are worth no more than interval arithmetic
NARROWER = 0.01  # of all slopes: what a range leaves out of them at least, to have said something


@dataclass(frozen=True)
class Enclosure:
    """What is known of each node on one piece, and the range of each value."""

    cases: Mapping[ir.Node, Case]
    ranges: Mapping[ir.Value, Interval]
    sizes: Mapping[ir.Value, int]  # elements of one sample, where a sample axis leads and all extents are known


def enclose(
    network: Network,
    piece: Piece,
    unit: float,
    parameters: Mapping[str, Support] | None = None,
    domains: Sequence[Domain] = DOMAINS,
) -> Enclosure:
    """``parameters`` are those that may lie anywhere in their support; others are as they stand.

    With a ``unit``, what a run may show that reads every operand with this relative error, and computes functions of one number
    with an error of so much of their largest term.
    """
    graph, shared = network.model.graph, learned(network)
    cases: dict[ir.Node, Case] = {}
    ranges: dict[ir.Value, Interval] = {}
    sizes = {value: size for value in graph.inputs if (size := _size(network, value)) is not None}
    for value in graph.inputs:
        ranges[value] = piece[value.name or ""].box if value.name in piece else WHOLE
    drawn = {value: (parameters or {})[str(value.name)] for value in graph.inputs if value.name in (parameters or {})}
    ranges.update({value: support.box for value, support in drawn.items()})
    for value in graph.initializers.values():
        array = known_array(value) if value not in drawn else None
        if array is not None and array.dtype.kind == "f":
            ranges[value] = point(array)
    zonotopes, points = Zonotopes(), Points()
    reach = Reach(Counter(v for node in graph for v in node.inputs if v is not None), zonotopes)
    given = {v: (piece[str(v.name)], sizes[v]) for v in graph.inputs if v.name in piece and v in sizes}
    if not unit and not {ZONOTOPE, ELLIPSOID}.isdisjoint(domains):
        zonotopes.enter(given)
    if not unit and ELLIPSOID in domains:
        reach.enter(given)
    untold = 0  # activations one after the other of which the ranges said nothing
    for node in graph:
        case = _case(network, node, ranges, shared, drawn)
        if unit:
            ranges_of_run = tuple(bound and blurred(bound, bound.magnitude, unit) for bound in case.ranges)
            case = replace(case, ranges=ranges_of_run, unit=unit)
        cases[node] = case
        row = lookup(node.op_type, node.domain)
        if row is not None and row.round:
            balls = (None if v is None else points.ball(v, ranges.get(v, WHOLE)) or reach.ball(v) for v in node.inputs)
            cases[node] = replace(cases[node], balls=tuple(balls))
        sizes.update((output, size) for output in node.outputs if (size := _size(network, output)) is not None)
        own = cache(partial(_node_range, node, cases[node]))
        followed = bool(zonotopes.inputs) and untold < MOST_UNTOLD
        if followed and (step := _step(node, cases[node], shared, sizes)) is not None:
            narrow = points.step(step, partial(_first, own), partial(_norm, node, cases[node]))
            if narrow is None:
                for value in points.known.keys() & set(step.operands.values()):
                    zonotopes.begin(value, ranges[value], sizes[value])
                    reach.begin(value, ranges[value], sizes[value])
                narrow = reach.step(step, zonotopes.step(step, _first(own)) if ZONOTOPE in domains else _first(own))
                zonotopes.settle(step.value, narrow)
                points.enter(step.value, narrow, step.size)
            else:
                reach.passed(step)
            found, untold = [narrow], _untold(node, step, untold)
        else:
            found = [*own()]
        for output, exact in zip(node.outputs, found, strict=False):
            bound = _evaluated(node, cases[node], exact, unit)
            ranges[output] = bound if output.dtype is None or output.dtype.is_floating_point() else _discrete(output.dtype)
    return Enclosure(cases, ranges, sizes)


def _norm(node: ir.Node, case: Case, position: int) -> float:
    """Of the Jacobian by one input, from above."""
    row = lookup(node.op_type, node.domain)
    return math.inf if row is None else extremes(row, case, position, 0.0)[1]


def _evaluated(node: ir.Node, case: Case, exact: Interval, unit: float) -> Interval:
    """What a run may show of the value of a function of one number, whose terms may cancel."""
    row = lookup(node.op_type, node.domain)
    is_function = row is not None and len(row.derivatives) == 1 and not row.linear
    return blurred(exact, terms(case.ranges[0] or WHOLE, exact), unit) if unit and is_function else exact


def _discrete(dtype: ir.DataType) -> Interval:
    """A truth value is 0 or 1; arithmetic of whole numbers cuts off and wraps around, which no row's range knows."""
    return interval(0.0, 1.0) if dtype == ir.DataType.BOOL else WHOLE


def _samples(network: Network) -> str | None:
    """The symbol that counts samples, as the batch's size is taken: that of the first input."""
    first = next(iter(network.inputs.values()), None)
    return first.samples if first is not None and isinstance(first.samples, str) else None


def _size(network: Network, value: ir.Value) -> int | None:
    if value.shape is None:
        return None
    extents, samples = dims(value), _samples(network)
    if samples is not None and extents[:1] != (samples,):
        return None
    known = extents if samples is None else extents[1:]
    return None if any(isinstance(dim, str) for dim in known) else math.prod(int(dim) for dim in known)


def known_array(value: ir.Value) -> np.ndarray | None:
    """The array of an initializer, a parameter's as it stands: the bound is for these weights."""
    return value.const_value.numpy() if value.const_value is not None else constant_of(value)


def _value(value: ir.Value, ranges: Mapping[ir.Value, Interval], shared: Set[ir.Value], drawn: Drawn) -> np.ndarray | None:
    """Its array where that is known, in float64 where its range is: of what is computed from parameters, where nothing was
    rounded."""
    if value in drawn:
        return None
    bound = ranges.get(value)
    if value.const_value is not None and bound is not None:
        return bound.lo
    if value in shared and bound is not None and value.shape is not None:
        exact = bound.lo.shape == tuple(dims(value)) and np.array_equal(bound.lo, bound.hi)
        return bound.lo if exact else None
    return known_array(value)


def _first(ranges: Callable[[], Sequence[Interval]]) -> Interval:
    return ranges()[0]


def _node_range(node: ir.Node, case: Case) -> Sequence[Interval]:
    row = lookup(node.op_type, node.domain)
    if row is None or row.range is None:
        return [WHOLE] * len(node.outputs)
    try:
        found = row.range(case)
    except (NotImplementedError, ValueError):
        return [WHOLE] * len(node.outputs)
    return found if isinstance(found, tuple) else (found,)


def _step(node: ir.Node, case: Case, shared: Set[ir.Value], sizes: Mapping[ir.Value, int]) -> Step | None:
    """What the zonotopes see of a node; None of one that is no function to one real tensor."""
    row, value = lookup(node.op_type, node.domain), node.outputs[0]
    if row is None or value not in sizes or any(case.outputs[1:]) or value.dtype is None or not value.dtype.is_floating_point():
        return None
    operands = {i: v for i, v in enumerate(node.inputs) if v is not None and v not in shared and known_array(v) is None}
    bounding = all(bounds_differences(row, position) for position in operands)

    @cache
    def near(position: int) -> Tangent | None:
        return tangent(row, case, position) if bounding else None

    def first(at: Case) -> Interval:
        return _node_range(node, at)[0]

    return Step(value, sizes[value], operands, case, first, near)


def _untold(node: ir.Node, step: Step, before: int) -> int:
    """How many activations up to here took every slope that they have on the whole line."""
    near = step.tangent(0) if bends(node) else None
    if near is None:
        return before
    if near.slopes is None:
        return 0
    least, greatest = slopes_anywhere(node.op_type, node.domain, step.case.attributes)
    room = NARROWER * (greatest - least)
    told = (near.slopes.lo > least + room).any() or (near.slopes.hi < greatest - room).any()
    return 0 if told else before + 1


def _case(network: Network, node: ir.Node, ranges: Mapping[ir.Value, Interval], shared: Set[ir.Value], drawn: Drawn) -> Case:
    """A symbol that does not count samples may stand for anything, as its name then tells; an unread output is left out."""

    def anonymous(dims: tuple[Dim, ...] | None) -> tuple[Dim, ...] | None:
        return dims and tuple(
            (SAMPLES if dim == samples else UNKNOWN_SYMBOL + dim) if isinstance(dim, str) else dim for dim in dims
        )

    case, samples = case_of(node), _samples(network)
    uses = [bool(value.uses()) or value.name in network.outputs for value in node.outputs]
    return replace(
        case,
        shapes=tuple(map(anonymous, case.shapes)),
        outputs=tuple(anonymous(dims) if used else None for dims, used in zip(case.outputs, [True, *uses[1:]], strict=True)),
        ranges=tuple(None if v is None else ranges.get(v, WHOLE) for v in node.inputs),
        values=tuple(None if v is None else _value(v, ranges, shared, drawn) for v in node.inputs),
        singular=tuple(drawn[v].singular if v is not None and v in drawn else None for v in node.inputs) if drawn else (),
        data=frozenset(i for i, v in enumerate(node.inputs) if v not in shared),
        unread=frozenset(i for i, used in enumerate(uses) if not used),
    )
