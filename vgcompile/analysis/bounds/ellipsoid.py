"""Adjoints followed through the graph as exact products of known maps, with what is uncertain in an ellipsoid beside them.

From the seeds down, one :class:`Adjoint` for each value: a sum where a value has several uses, so that a residual block is
bounded as I + J jointly. Where all that is left passes through one value, what lies behind it is forgotten: a chain costs the
same for each layer. A value of too many elements, of unknown extent, or behind an unbounded factor is left out, and with it
all that is computed from it: nothing is stated there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from vgcompile.analysis.bounds.domains import CENTRE, DOMAINS, ELLIPSOID, Domain
from vgcompile.analysis.bounds.enclosure import Enclosure
from vgcompile.analysis.bounds.factors import Use
from vgcompile.analysis.bounds.latents import Adjoint, Latents
from vgcompile.analysis.bounds.logs import ROUNDING, Bounds, log_of
from vgcompile.analysis.bounds.zonotope import middle_and_radius
from vgcompile.interval import EPSILON, Array
from vgcompile.ops.op import Tangent

LARGEST = 1024  # elements of a value
MOST_NUMBERS = 2048  # uncertain numbers at once
MOST_WORK = 7e9  # multiply-adds of one sweep

Found = Mapping[str, Bounds]


@dataclass(frozen=True)
class Followed:
    """Bounds of each use and of each value, by two names: ``ellipsoid`` from above, ``centre`` from both sides."""

    gain: Mapping[Use, Found]
    total: Mapping[ir.Value, Found]


@dataclass
class _State:
    latents: Latents
    adjoints: dict[ir.Value, Adjoint] = field(default_factory=dict)
    lost: set[ir.Value] = field(default_factory=set)
    left: Counter[ir.Value] = field(default_factory=Counter)  # uses that a part is still to come from


def follow(
    known: Enclosure,
    factors: Mapping[Use, Bounds],
    seeds: Mapping[ir.Value, Bounds],
    tangent: Callable[[Use], Tangent | None],
    shared: set[ir.Value],
    domains: Sequence[Domain] = DOMAINS,
) -> Followed:
    """Sweep from the seeds, each a part of one unit vector; a seed of which nothing is known is left out."""
    nodes = list(known.cases)
    certain = [value for value, bounds in seeds.items() if bounds[1] == 0.0]
    sizes = [_size(known, value) for value in certain]
    gain: dict[Use, Found] = {}
    total: dict[ir.Value, Found] = {}
    unfollowed = {ELLIPSOID, CENTRE}.isdisjoint(domains)
    if unfollowed or not certain or any(size is None or size > LARGEST for size in sizes):
        return Followed(gain, total)
    state = _begin(certain, [size or 0 for size in sizes], domains)
    state.lost.update(value for value in seeds if value not in certain)
    state.left.update(v for node, i in factors for v in node.inputs[i : i + 1] if v is not None and v not in shared)
    for node in reversed(nodes):
        _through(node, state, known, factors, tangent, shared, gain, total)
    return Followed(gain, total)


def _begin(certain: list[ir.Value], sizes: list[int], domains: Sequence[Domain]) -> _State:
    whole = sum(sizes)
    centre = np.eye(whole) if CENTRE in domains else None
    state = _State(Latents(np.eye(whole), centre, np.zeros((whole, 0)), round=ELLIPSOID not in domains))
    start = 0
    for value, size in zip(certain, sizes, strict=True):
        state.adjoints[value] = Adjoint(np.eye(whole)[start : start + size])
        start += size
    return state


def _size(known: Enclosure, value: ir.Value) -> int | None:
    """Elements of one sample; None where it is not known, or where no sample axis leads what depends on samples."""
    return known.sizes.get(value)


def _lose(state: _State, values: Iterable[ir.Value]) -> None:
    for value in values:
        state.lost.add(value)
        state.adjoints.pop(value, None)


def _through(
    node: ir.Node,
    state: _State,
    known: Enclosure,
    factors: Mapping[Use, Bounds],
    tangent: Callable[[Use], Tangent | None],
    shared: set[ir.Value],
    gain: dict[Use, Found],
    total: dict[ir.Value, Found],
) -> None:
    """Hand the adjoint of a node's outputs on to its inputs."""
    outputs = [value for value, read in zip(node.outputs, known.cases[node].outputs, strict=True) if read is not None]
    out = _of_outputs(outputs, state, known, gain, total)
    for output in node.outputs:
        state.adjoints.pop(output, None)
    for position, value in enumerate(node.inputs):
        use = (node, position)
        if value is None or use not in factors or value in shared:
            continue
        state.left[value] -= 1
        if out is None:
            if not state.lost.isdisjoint(node.outputs):
                _lose(state, [value])
            continue
        part = _part(state, known, use, value, out, factors, tangent)
        if part is None or not state.latents.holds(part) or state.latents.work > MOST_WORK:
            _lose(state, [value])
            continue
        gain[use] = _bounds(state.latents, part)
        if value in state.lost:
            continue
        before = state.adjoints.get(value)
        state.adjoints[value] = part if before is None else state.latents.sum(before, part)
        if not state.left[value]:
            _complete(value, state, gain[use] if before is None else None, total)


def _complete(value: ir.Value, state: _State, known: Found | None, total: dict[ir.Value, Found]) -> None:
    """All parts of a value are there; what nothing is computed from need not be kept."""
    total[value] = known or _bounds(state.latents, state.adjoints[value])
    if value.producer() is None:
        del state.adjoints[value]


def _of_outputs(
    outputs: list[ir.Value], state: _State, known: Enclosure, gain: dict[Use, Found], total: dict[ir.Value, Found]
) -> Adjoint | None:
    """The adjoint of all that a node gives out, one output after the other; None where there is none or it is not known."""
    if not any(value in state.adjoints for value in outputs):
        return None
    if any(value in state.lost for value in outputs):
        _lose(state, outputs)
        return None
    for value in outputs:
        if value in state.adjoints and value not in total:
            total[value] = _bounds(state.latents, state.adjoints[value])
    if len(outputs) == 1:
        _rebase(outputs[0], state)
        return state.adjoints.get(outputs[0])
    sizes = [_size(known, value) for value in outputs]
    if any(size is None for size in sizes):
        _lose(state, outputs)
        return None
    parts = [state.adjoints.get(value, Adjoint(np.zeros((size or 0, 0)))) for value, size in zip(outputs, sizes, strict=True)]
    columns = max(part.map.shape[1] for part in parts)
    wide = [np.pad(part.map, ((0, 0), (0, columns - part.map.shape[1]))) for part in parts]
    return Adjoint(np.concatenate(wide), math.sqrt(sum(part.slack**2 for part in parts)) * (1.0 + 4.0 * EPSILON))


def _rebase(value: ir.Value, state: _State) -> None:
    """Forget what lies behind a value that all else is computed from."""
    adjoint = state.adjoints[value]
    if len(state.adjoints) > 1 or len(adjoint.map) >= state.latents.size:
        return
    state.latents, state.adjoints[value] = state.latents.rebased(adjoint)
    if state.latents.round and state.latents.centre is None:
        _lose(state, [value])


def _part(
    state: _State,
    known: Enclosure,
    use: Use,
    value: ir.Value,
    out: Adjoint,
    factors: Mapping[Use, Bounds],
    tangent: Callable[[Use], Tangent | None],
) -> Adjoint | None:
    """J^T times the adjoint of the output; None where it is not known, or too large."""
    size, most = _size(known, value), factors[use][1]
    if size is None or size > LARGEST or most > 100.0:
        return None
    norm, latents = 10.0**most, state.latents
    near = tangent(use)
    if near is None or (near.slopes is not None and not near.slopes.bounded):
        return None if latents.size + size > MOST_NUMBERS else latents.bounded(out, size, norm)
    through = out
    if near.slopes is not None:
        centre, radius = middle_and_radius(near.slopes)
        if latents.size + np.count_nonzero(radius) > MOST_NUMBERS:
            return None
        through = latents.uncertain(out, centre, radius)
    pulled = _pulled(near, through.map)
    latents.work += pulled.size * through.map.shape[0]
    part = latents.mapped(through, pulled, near.map.error, _norm_of_map(near, norm))
    if near.ball:
        part = latents.sum(part, latents.bounded(out, size, near.ball))
    return part


def _norm_of_map(near: Tangent, norm: float) -> float:
    """||L||: the operator's own norm where it is nothing but L."""
    return near.map.norm if near.slopes is not None or near.ball else min(norm, near.map.norm)


def _pulled(near: Tangent, columns: Array) -> Array:
    return np.ascontiguousarray(near.map.pull(np.ascontiguousarray(columns.T)).T)


def _bounds(latents: Latents, v: Adjoint) -> Found:
    units = latents.exponent * math.log10(2.0)
    found: dict[str, Bounds] = {} if latents.round else {ELLIPSOID: _scaled(log_of(0.0, latents.norm(v)), units)}
    near = latents.near(v)
    return found if near is None else {**found, CENTRE: _scaled(log_of(*near), units)}


def _scaled(bounds: Bounds, units: float) -> Bounds:
    """Bounds of a number that was counted in other units."""
    room = ROUNDING * (1.0 + abs(units))
    return (bounds[0] + units - room, bounds[1] + units + room)
