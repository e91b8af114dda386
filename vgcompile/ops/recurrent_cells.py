"""What one step of a recurrent cell does to second moments, with its gates' pre-activations Gaussian (Chen, Pennington and
Schoenholz 2018; Gilboa et al. 2019).

The units of a layer are alike, and R, drawn once, turns a state into pre-activations that are independent of the state unit by
unit. A cell keeps a memory s beside what it gives out, h; of an RNN and a GRU they are one.

    rnn     h = phi(z)
    gru     s = z s + (1 - z) n,  h = s
    lstm    s = f s + i g,        h = o tanh(s)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from vgcompile.ops.op import Array, at
from vgcompile.ops.reading import NumpyReading
from vgcompile.ops.recurrent_activation import Activation
from vgcompile.quadrature import Gaussian, gaussian


@dataclass(frozen=True)
class Gate:
    """A function of a Gaussian pre-activation: its values and slopes at the quadrature's nodes."""

    nodes: Gaussian
    y: Array
    d: Array

    @property
    def mean(self) -> float:
        return self.nodes.mean(self.y)

    @property
    def square(self) -> float:
        return self.nodes.pairs(self.y).square

    @property
    def slope(self) -> float:
        return self.nodes.pairs(self.d).square

    @property
    def kurtosis(self) -> float:
        """kappa = E[D^4] / E[D^2]^2."""
        return self.nodes.mean(self.d**4) / self.slope**2 if self.slope > 0 else 1.0

    def pair(self, correlation: float) -> float:
        return self.nodes.pair(self.y, correlation)

    def slopes(self, correlation: float) -> float:
        return self.nodes.pair(self.d, correlation)

    def squared_slopes(self, correlation: float) -> float:
        """E[D^2 D'^2] / E[D^2]^2."""
        return self.nodes.pair(self.nodes.pairs(self.d).f2, correlation) / self.slope**2 if self.slope > 0 else 1.0

    @cached_property
    def coefficients(self) -> Array:
        """Of the values in normalized Hermite polynomials."""
        return np.asarray(self.nodes.hermite @ self.y)

    @cached_property
    def slope_coefficients(self) -> Array:
        return np.asarray(self.nodes.hermite @ self.d)


def gate(op: NumpyReading, activation: Activation, mean: float, variance: float) -> Gate:
    """``op`` reads rules with NumPy; variances that agree to nine digits share one gate, as a settled recurrence has them."""
    key = (activation.row.name, tuple(sorted(activation.attributes.items())), activation.clip)
    digits = float(f"{mean:.9g}"), float(f"{max(variance, 0.0):.9g}")
    return _gate(_Read(op, activation, key), *digits)


@dataclass(frozen=True, eq=False)
class _Read:
    """An activation as the key of a cache."""

    op: NumpyReading
    activation: Activation
    key: Any

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Read) and self.key == other.key


@lru_cache(maxsize=512)
def _gate(read: _Read, mean: float, variance: float) -> Gate:
    f = read.activation
    cut = () if f.clip is None else (-f.clip, f.clip)
    nodes = gaussian(mean, variance, (*at(f.row.kinks, f.attributes), *cut))
    y = np.broadcast_to(np.asarray(f.value(read.op, nodes.x), np.float64), nodes.x.shape)
    d = np.broadcast_to(np.asarray(f.slope(read.op, nodes.x, y), np.float64), nodes.x.shape)
    return Gate(nodes, y, d)


@dataclass(frozen=True)
class Moment:
    """Mean and mean square of a state, and E[x x'] of two samples."""

    mean: float = 0.0
    square: float = 0.0
    across: float = 0.0

    @property
    def correlation(self) -> float:
        """Of two samples."""
        variance = self.square - self.mean**2
        return min((self.across - self.mean**2) / variance, 1.0) if variance > 1e-300 else 1.0


@dataclass(frozen=True)
class Passing:
    """What squared adjoints of h and s become in one step back, one number for each.

    h here is what the cell shows, s its memory, whose adjoint is kept * s + into * h. ``gates`` and ``memory_gates``: of all
    pre-activations together, from h and from s. ``fed`` and ``memory_fed``: of what reaches R.
    """

    gates: float = 0.0
    fed: float = 0.0
    memory_gates: float = 0.0
    memory_fed: float = 0.0
    into: float = 0.0
    kept: float = 0.0


Factor = tuple[Gate, str]  # of two steps: E of the product of the values ("y") or of the slopes ("d")


@dataclass(frozen=True)
class Step:
    """One step: its states, means of what it keeps of the memory and of what h's adjoint gives to the memory's, and how squared
    adjoints pass, of one sample and between two.

    ``added`` and ``shown`` are what the states of two steps correlate by; ``ways`` are the gates that an adjoint reaches R by.
    The reset gate's own, which is small, is left out of them.
    """

    h: Moment
    s: Moment
    kept: float
    into: float
    added: tuple[Gate, ...]
    shown: tuple[Gate, ...]
    same: Passing
    across: Passing
    ways: tuple[Way, ...]
    slopes: Gate


@dataclass(frozen=True)
class Way:
    """One gate on an adjoint's way to R."""

    factors: tuple[Factor, ...]
    of: str = "s"
    times: str = ""  # "memory": the memory before the step; "read": the memory as the output reads it
    bound: float = 1.0  # E[kept A] / (E[kept] E[A]), A the gate's factor: one gate may decide both


def _bound(nodes: Gaussian, kept: Array, factor: Array) -> float:
    product = nodes.mean(kept) * nodes.mean(factor)
    return nodes.mean(kept * factor) / product if product > 0 else 1.0


def rnn_step(gates: Sequence[Gate], rho: float) -> Step:
    (f,) = gates
    h = Moment(f.mean, f.square, f.pair(rho))
    same, across = (Passing(gates=d, fed=d) for d in (f.slope, f.slopes(rho)))
    return Step(h, h, 0.0, 0.0, (f,), (), same, across, (Way(((f, "d"),), "h"),), f)


def lstm_step(op: NumpyReading, gates: Sequence[Gate], last: Activation, rho: float, s: Moment) -> Step:
    """Gates in the order i, o, f, g; the cell is taken as Gaussian where the last activation reads it."""
    i, o, f, g = gates
    cross = 2.0 * f.mean * i.mean * g.mean * s.mean
    cell = Moment(
        f.mean * s.mean + i.mean * g.mean,
        f.square * s.square + i.square * g.square + cross,
        f.pair(rho) * s.across + i.pair(rho) * g.pair(rho) + cross,
    )
    read = gate(op, last, cell.mean, max(cell.square - cell.mean**2, 0.0))
    r = cell.correlation
    h = Moment(o.mean * read.mean, o.square * read.square, o.pair(rho) * read.pair(r))
    cells = g.square * i.slope + i.square * g.slope + s.square * f.slope
    pairs = g.pair(rho) * i.slopes(rho) + i.pair(rho) * g.slopes(rho) + s.across * f.slopes(rho)
    out, out_pairs = read.square * o.slope, read.pair(r) * o.slopes(rho)
    same = Passing(out, out, cells, cells, o.square * read.slope, f.square)
    across = Passing(out_pairs, out_pairs, pairs, pairs, o.pair(rho) * read.slopes(r), f.pair(rho))
    ways = (
        Way(((g, "y"), (i, "d"))),
        Way(((i, "y"), (g, "d"))),
        Way(((f, "d"),), times="memory", bound=_bound(f.nodes, f.y, f.d)),
        Way(((o, "d"),), "h", "read"),
    )
    into = o.mean * read.nodes.mean(read.d)
    return Step(h, cell, f.mean, into, (i, g), (o, read), same, across, ways, g)


def gru_step(gates: Sequence[Gate], reset: Moment, rho: float, s: Moment) -> Step:
    """Gates in the order z, r, n; ``reset`` is what r is multiplied with: R h where it comes after the product, else h. What R
    gives to h is then given to s, which is the same."""
    z, r, n = gates
    rest = Gate(z.nodes, 1.0 - z.y, -z.d)
    cross = 2.0 * z.nodes.mean(z.y * rest.y) * n.mean * s.mean
    h = Moment(
        z.mean * s.mean + rest.mean * n.mean,
        z.square * s.square + rest.square * n.square + cross,
        z.pair(rho) * s.across + rest.pair(rho) * n.pair(rho) + 2.0 * (z.mean - z.pair(rho)) * n.mean * s.mean,
    )

    def passing(update: float, new: float, of_reset: float, gain: float, kept: float) -> Passing:
        """``update`` and ``new``: of the two pre-activations; what reaches r's is ``new`` times ``of_reset``, and R h or, where R
        reads r h, the h before gets ``gain`` of ``new``."""
        return Passing(0.0, 0.0, update + new * (1.0 + of_reset), update + new * (of_reset + gain), 1.0, kept)

    apart = s.square + n.square - 2.0 * s.mean * n.mean
    apart_pairs = s.across + n.pair(rho) - 2.0 * s.mean * n.mean
    same = passing(z.slope * apart, rest.square * n.slope, reset.square * r.slope, r.square, z.square)
    across = passing(
        z.slopes(rho) * apart_pairs, rest.pair(rho) * n.slopes(rho), reset.across * r.slopes(rho), r.pair(rho), z.pair(rho)
    )
    ways = (
        Way(((z, "d"),), times="memory", bound=_bound(z.nodes, z.y, z.d)),
        Way(((z, "d"), (n, "y")), bound=_bound(z.nodes, z.y, z.d)),
        Way(((rest, "y"), (n, "d"), (r, "y")), bound=_bound(z.nodes, z.y, rest.y)),
    )
    return Step(h, h, z.mean, 1.0, (rest, n), (), same, across, ways, n)


def growth(step: Step, rho: float, samples: int, units: int, alignment: float) -> float:
    """What one product with R and the slopes of a step add to the variance of ln ||adjoint||^2 (analysis/adjoints.py)."""
    m = 1.0 / max(samples, 1)
    own, pairs = 3.0 * step.slopes.kurtosis, step.slopes.squared_slopes(rho) * (1.0 + 2.0 * alignment)
    return max(m * own + (1.0 - m) * pairs - 1.0, 0.0) / units
