"""Attacks: search a region for an input and an adjoint whose gain is outside of its bounds.

For half the squared norm of J(x)^T g the derivative by g is J J^T g, a step of the power method, and the derivative by x is what
gradient ascent needs; both come from differentiating the gradient graph again. Every hidden value that depends on data is
compared with its bounds on every step, sample by sample. What float32 shows outside of them is worked out again in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from vgcompile import spec
from vgcompile.analysis.bounds.domains import DOMAINS, Domain
from vgcompile.analysis.bounds.region import Region, region
from vgcompile.analysis.sound import sound
from vgcompile.analysis.uses import learned
from vgcompile.build import build
from vgcompile.errors import GradientRefused
from vgcompile.graph.emit import dims
from vgcompile.graph.network import Network
from vgcompile.passes.gradient import ADJOINT, GRADIENT, joint
from vgcompile.reference import evaluator, in_float64
from vgcompile.runtime.session import Session

Array = np.ndarray[Any, Any]
ROOM = 1e-3  # of a gain in float32, before it is worked out in float64
EXACT = 1e-9  # of a gain in float64
SECOND = "second."


@dataclass(frozen=True)
class Attacked:
    """``samples`` were compared; ``violations`` names values with gain and bound; ``looseness`` is hi over the greatest gain that
    was found at the input."""

    family: str
    samples: int
    violations: tuple[str, ...]
    looseness: float


@dataclass(frozen=True)
class Target:
    """A network's gradient graph, and the graph of its second derivatives."""

    network: Network
    values: tuple[str, ...]  # the input first
    first: onnx.ModelProto
    second: onnx.ModelProto | None
    coupled: bool  # samples of a batch depend on each other


def target(text: str) -> Target:
    """Compile what an attack runs."""
    network = build(spec.loads(text))
    hidden = _hidden(network)
    (x,) = [name for name, declared in network.inputs.items() if declared.role == "input"]
    wanted = (x, *hidden)
    first = joint(network.model.clone(), network.outputs, wanted, [], outside=True)
    second = None
    try:
        bare = joint(network.model.clone(), network.outputs, [x], [], outside=True, profile=None)
        adjoints = [f"{ADJOINT}{name}" for name in network.outputs]
        second = ir.to_proto(joint(bare, [f"{GRADIENT}{x}"], [x, *adjoints], [], outside=True, prefix=SECOND))
    except GradientRefused:  # no second derivatives: the attack draws at random
        second = None
    return Target(network, wanted, ir.to_proto(first), second, "batch_norm" in text)


def _hidden(network: Network) -> tuple[str, ...]:
    shared, tier = learned(network), sound(network, "range")
    nodes = [value for node in network.model.graph for value in node.outputs]
    (samples,) = {declared.shape[0] for declared in network.inputs.values()}
    return tuple(
        str(v.name)
        for v in nodes
        if v in tier.total
        and v not in shared
        and v.shape is not None
        and dims(v)[:1] == (samples,)
        and v.name not in network.outputs
    )


def attack(
    family: str, text: str, form: str, count: int, seed: int, steps: int = 8, domains: Sequence[Domain] = DOMAINS
) -> Attacked:
    """Attack a model's bounds on a region with ``count`` samples: random ones, then ascent."""
    aim = target(text)
    rng = np.random.default_rng(seed)
    network = aim.network
    centre = _drawn(network, rng, 1)
    where = region(network, form, centre)
    bounds = {str(value.name): ends for value, ends in sound(network, where, domains=domains).total.items()}
    batch = -(-count // steps)
    found: list[str] = []
    best, session = 0.0, Session(aim.first, "cpu", 1)
    second = None if aim.second is None else Session(aim.second, "cpu", 1)
    x, g = _inside(network, where, rng, batch), _adjoints(network, rng, batch)
    for step in range(steps):
        feeds = {**x, **g}
        gains = _gains(aim, session.run(None, feeds), g)
        found += _violations(aim, feeds, gains, bounds)
        best = max(best, float(np.nanmax(gains[aim.values[0]])))
        if second is None:
            x, g = _inside(network, where, rng, batch), _adjoints(network, rng, batch)
            continue
        x, g = _ascended(aim.values[0], session, second, feeds, where, rng, sign=1.0 if step % 8 < 6 else -1.0)
    hi = bounds[aim.values[0]][1]
    loose = _number(hi) / best if best > 0.0 else math.inf
    return Attacked(family, batch * steps, tuple(found), loose)


def _drawn(network: Network, rng: np.random.Generator, count: int) -> dict[str, Array]:
    return {
        name: rng.uniform(-1.0, 1.0, [count if isinstance(d, str) else d for d in declared.shape]).astype(np.float32)
        for name, declared in network.inputs.items()
    }


def _inside(network: Network, where: Region, rng: np.random.Generator, count: int) -> dict[str, Array]:
    """Points of the region, half of them on its rim, some next to its centre, and some that vary little along an axis: there
    deviations are least, by which normalizations divide."""
    made = {name: 2.0 * x for name, x in _spread(network, where, rng, count).items()}
    for name, x in made.items():
        ball, few = where.pieces[0][name].ball, max(count // 8, 1)
        centre = 0.0 if ball is None else ball.centre
        share = 10.0 ** rng.uniform(-6.0, 0.0, (few, *(1,) * (x.ndim - 1)))
        x[:few] = centre + share * (x[:few] - centre)
        x[few : 2 * few] = x[few : 2 * few].mean(axis=-1, keepdims=True) + share * x[few : 2 * few]
    return _projected(where, made)


def _spread(network: Network, where: Region, rng: np.random.Generator, count: int) -> dict[str, Array]:
    made = {}
    for name, known in where.pieces[0].items():
        shape = [count if isinstance(d, str) else d for d in network.inputs[name].shape]
        step = rng.normal(size=shape) if rng.integers(2) else rng.choice([-1.0, 1.0], size=shape)
        if known.ball is not None:
            made[name] = 0.5 * (known.ball.centre + known.ball.radius * step)
        else:
            made[name] = step * (1.0 if known.box.bounded else 3.0)
    return made


def _projected(where: Region, x: Mapping[str, Array]) -> dict[str, Array]:
    """The nearest points of the region, in float32 and not outside of it."""
    made = {}
    for name, known in where.pieces[0].items():
        inside = np.clip(x[name], known.box.lo, known.box.hi)
        if known.ball is not None and known.ball.norm == "l2":
            away = x[name] - known.ball.centre
            length = np.sqrt((away**2).sum(axis=tuple(range(1, away.ndim)), keepdims=True))
            inside = known.ball.centre + away * np.minimum(1.0, known.ball.radius * (1.0 - 1e-6) / np.maximum(length, 1e-30))
        made[name] = np.asarray(inside, np.float32)
        if known.box.bounded:
            made[name] = np.clip(made[name], _up32(known.box.lo), _down32(known.box.hi))
    return made


def _up32(x: Array) -> Array:
    y = x.astype(np.float32)
    return np.where(y < x, np.nextafter(y, np.float32(np.inf)), y)


def _down32(x: Array) -> Array:
    y = x.astype(np.float32)
    return np.where(y > x, np.nextafter(y, np.float32(-np.inf)), y)


def _adjoints(network: Network, rng: np.random.Generator, count: int) -> dict[str, Array]:
    named = {str(v.name): v for node in network.model.graph for v in node.outputs}
    return {
        f"{ADJOINT}{name}": rng.normal(size=[count if isinstance(d, str) else d for d in dims(named[name])]).astype(np.float32)
        for name in network.outputs
    }


def _squares(x: Array, coupled: bool) -> Array:
    x = x.astype(np.float64)
    return np.asarray((x**2).sum()).reshape(1) if coupled else (x**2).reshape(len(x), -1).sum(axis=1)


def _gains(aim: Target, results: Mapping[str, Array], g: Mapping[str, Array]) -> dict[str, Array]:
    """||adjoint|| / ||g|| of each value, sample by sample."""
    whole = np.sqrt(sum(_squares(array, aim.coupled) for array in g.values()))
    with np.errstate(all="ignore"):
        return {name: np.sqrt(_squares(results[f"{GRADIENT}{name}"], aim.coupled)) / whole for name in aim.values}


def _violations(
    aim: Target, feeds: Mapping[str, Array], gains: Mapping[str, Array], bounds: Mapping[str, tuple[float, float]]
) -> list[str]:
    """What lies outside in float32, and still does in float64."""
    found: list[str] = []
    suspects = set()
    for name, gain in gains.items():
        lo, hi = bounds.get(name, (-math.inf, math.inf))
        outside = (gain > _number(hi) * (1.0 + ROOM)) | (gain < _number(lo) * (1.0 - ROOM))
        suspects.update(np.flatnonzero(outside).tolist())
    for index in sorted(suspects)[:8]:
        one = {name: (x if aim.coupled else x[index : index + 1]).astype(np.float64) for name, x in feeds.items()}
        names = [f"{GRADIENT}{name}" for name in aim.values]
        exact = dict(zip(names, evaluator(in_float64(aim.first).SerializeToString()).run(names, one), strict=True))
        for name, gain in _gains(aim, exact, {k: v for k, v in one.items() if k.startswith(ADJOINT)}).items():
            lo, hi = bounds.get(name, (-math.inf, math.inf))
            value = float(gain[0])
            if value > _number(hi) * (1.0 + EXACT) or value < _number(lo) * (1.0 - EXACT):
                found.append(f"{name}: {value:.12g} outside [{_number(lo):.12g}, {_number(hi):.12g}]")
    return found


def _ascended(
    x: str,
    first: Session,
    second: Session,
    feeds: Mapping[str, Array],
    where: Region,
    rng: np.random.Generator,
    sign: float,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """A step of the power method in g, and one of normalized gradient ascent (or descent) in x, back into the region."""
    adjoint = first.run([f"{GRADIENT}{x}"], feeds)[f"{GRADIENT}{x}"]
    slopes = second.run(None, {**feeds, f"{ADJOINT}{GRADIENT}{x}": adjoint})
    g = {name: _unit(slopes.get(f"{SECOND}{name}", array), array) for name, array in feeds.items() if name.startswith(ADJOINT)}
    made = {}
    for name, known in where.pieces[0].items():
        slope = slopes.get(f"{SECOND}{name}")
        step = np.zeros_like(feeds[name]) if slope is None else _unit(slope, np.zeros_like(slope))
        if known.ball is not None and known.ball.norm == "l2":
            reach = known.ball.radius
        else:
            step, reach = np.sign(step), float(np.max(known.box.hi - known.box.lo)) / 2.0 if known.box.bounded else 1.0
        made[name] = feeds[name] + sign * reach * rng.choice([0.25, 1.0]) * step
    return _projected(where, made), g


def _number(log: float) -> float:
    """Ten to this; 0 and infinity where a double does not hold it."""
    return 0.0 if log < -300.0 else math.inf if log > 300.0 else 10.0**log


def _unit(direction: Array, otherwise: Array) -> Array:
    length = np.sqrt((direction.astype(np.float64) ** 2).reshape(len(direction), -1).sum(axis=1))
    length = length.reshape(-1, *(1,) * (direction.ndim - 1))
    with np.errstate(all="ignore"):
        unit = direction / length
    return np.where(np.isfinite(unit) & (length > 0.0), unit, otherwise).astype(np.float32)
