"""One step of RNN, GRU and LSTM over ranges: what its gates and states lie in, and where its Jacobians do.

A Jacobian of one step is a sum of terms diag(d) M: d follows from gates and slopes, of which intervals are known, and M holds
rows of the weights. :meth:`Cell.into` takes any M that leads to the gates' pre-activations: W for what comes in, ones for the
pre-activations themselves, R for the state before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vgcompile.interval import WHOLE, Array, Interval, corners, matmul, product
from vgcompile.ops.linear import interval_product
from vgcompile.ops.matrix_ball import MatrixBall, identity, scaled_rows
from vgcompile.ops.op import Case
from vgcompile.ops.reading import slope_range
from vgcompile.ops.recurrent_activation import Activation

Inside = Mapping[str, Interval]  # what is known within a step, by name: [H], or [steps, H] of many
States = tuple[Interval, ...]  # h, and c of an LSTM
Blocks = tuple[Interval, ...]  # one for each gate


@dataclass(frozen=True)
class Weights:
    """Of one direction, a block for each gate: ``w`` [H, I], ``r`` [H, H], biases [H]; ``p`` [H] for the gates i, o and f.

    A run may compute gates and slopes with an error of ``unit`` times their largest term.
    """

    w: Blocks
    r: Blocks
    of_inputs: Blocks
    of_states: Blocks
    p: Blocks | None
    functions: tuple[Activation, ...]
    unit: float = 0.0

    @property
    def hidden(self) -> int:
        return int(self.r[0].lo.shape[0])

    def driven(self, gate: int, x: Interval) -> Interval:
        """W x + b of the inputs."""
        return plus(times_matrix(x, self.w[gate]), self.of_inputs[gate])

    def fed(self, gate: int, h: Interval) -> Interval:
        """R h + b of the states."""
        return plus(times_matrix(h, self.r[gate]), self.of_states[gate])

    def before(self, gate: int, x: Interval, h: Interval) -> Interval:
        """A pre-activation."""
        return plus(self.driven(gate, x), self.fed(gate, h))

    def value(self, function: int, a: Interval, clipped: bool = True) -> Interval:
        f = self.functions[function]
        assert f.row.range is not None
        found = f.row.range(Case(f.attributes, ranges=(_cut(f, a) if clipped else a,)))
        assert isinstance(found, Interval)
        return self._blurred(found)

    def slope(self, function: int, a: Interval, clipped: bool = True) -> Interval:
        """0 where something was cut off."""
        from vgcompile.ops import NUMPY  # the table, of which this is a part

        f = self.functions[function]
        found = slope_range(NUMPY, f.row, 0, Case(f.attributes, ranges=(_cut(f, a) if clipped else a,)))
        if clipped and f.clip is not None:
            cut = a.magnitude > f.clip
            found = Interval(
                np.where(cut, np.minimum(found.lo, 0.0), found.lo), np.where(cut, np.maximum(found.hi, 0.0), found.hi)
            )
        return self._blurred(found)

    def _blurred(self, x: Interval) -> Interval:
        room = self.unit * np.maximum(np.where(np.isfinite(x.magnitude), x.magnitude, 0.0), 1.0)
        return Interval(x.lo - room, x.hi + room)


def _cut(f: Activation, a: Interval) -> Interval:
    return a if f.clip is None else a.map(lambda end: np.clip(end, -float(f.clip or 0.0), float(f.clip or 0.0)))


def plus(*terms: Interval) -> Interval:
    return corners(lambda *x: sum(x[1:], x[0]), terms)


def times(*factors: Interval) -> Interval:
    found = factors[0]
    for factor in factors[1:]:
        found = product(found, factor)
    return found


def minus(x: Interval) -> Interval:
    return Interval(-x.hi, -x.lo)


def one_minus(x: Interval) -> Interval:
    return corners(lambda a: 1.0 - a, [x])


def times_matrix(x: Interval, m: Interval) -> Interval:
    """M x."""
    if np.array_equal(m.lo, m.hi):
        return matmul(x, m.lo.T)
    found = interval_product(x, m.map(np.transpose), x.lo.shape[-1])
    return found if found is not WHOLE else Interval(*(np.full(m.lo.shape[0], end) for end in (-np.inf, np.inf)))


class Cell(ABC):
    """A kind of recurrence with its weights."""

    states: int = 1

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    @abstractmethod
    def step(self, x: Interval, states: States) -> tuple[dict[str, Interval], States]:
        """What is inside a step from these states, and the states after it."""

    @abstractmethod
    def into(self, inside: Inside, m: Blocks) -> list[MatrixBall]:
        """The derivatives of the states after a step by u, where M u is added to the pre-activations."""

    @abstractmethod
    def across(self, inside: Inside) -> list[list[MatrixBall]]:
        """Those of the states after a step by those before it."""

    @property
    def ones(self) -> Interval:
        return identity(self.weights.hidden)


class Rnn(Cell):
    """h' = f(a)."""

    def step(self, x: Interval, states: States) -> tuple[dict[str, Interval], States]:
        w, (h,) = self.weights, states
        a = w.before(0, x, h)
        return {"h": h, "df": w.slope(0, a)}, (w.value(0, a),)

    def into(self, inside: Inside, m: Blocks) -> list[MatrixBall]:
        return [scaled_rows([(inside["df"], m[0])])]

    def across(self, inside: Inside) -> list[list[MatrixBall]]:
        return [self.into(inside, self.weights.r)]


class Gru(Cell):
    """h' = (1 - z) n + z h, n = g(W x + b + R (r h)): q = r h has the derivative diag(r) + diag(h f') R_r."""

    def step(self, x: Interval, states: States) -> tuple[dict[str, Interval], States]:
        w, (h,) = self.weights, states
        a_z, a_r = w.before(0, x, h), w.before(1, x, h)
        z, r = w.value(0, a_z), w.value(0, a_r)
        inside = {"h": h, "z": z, "r": r}
        a_n, inside["dq"] = self._new(x, h, r, w.slope(0, a_r))
        n = w.value(1, a_n)
        inside["to_z"] = times(plus(h, minus(n)), w.slope(0, a_z))
        inside["to_n"] = times(one_minus(z), w.slope(1, a_n))
        return inside, (corners(lambda z, n, h: (1.0 - z) * n + z * h, [z, n, h]),)

    def _new(self, x: Interval, h: Interval, r: Interval, slope: Interval) -> tuple[Interval, Interval]:
        """The pre-activation of n, and the derivative of what the reset gate scales by the gate's pre-activation."""
        return self.weights.before(2, x, times(r, h)), times(h, slope)

    def into(self, inside: Inside, m: Blocks) -> list[MatrixBall]:
        own = scaled_rows([(inside["to_z"], m[0]), (inside["to_n"], m[2])])
        return [own + self._returned(inside) @ scaled_rows([(inside["dq"], m[1])])]

    def across(self, inside: Inside) -> list[list[MatrixBall]]:
        r = self.weights.r
        own = scaled_rows([(inside["z"], self.ones), (inside["to_z"], r[0])])
        return [[own + self._returned(inside) @ scaled_rows([(inside["r"], self.ones), (inside["dq"], r[1])])]]

    def _returned(self, inside: Inside) -> MatrixBall:
        return scaled_rows([(inside["to_n"], self.weights.r[2])])


class LinearGru(Gru):
    """The reset gate scales q = R h + b instead."""

    def _new(self, x: Interval, h: Interval, r: Interval, slope: Interval) -> tuple[Interval, Interval]:
        q = self.weights.fed(2, h)
        return plus(self.weights.driven(2, x), times(r, q)), times(q, slope)

    def into(self, inside: Inside, m: Blocks) -> list[MatrixBall]:
        n = inside["to_n"]
        return [scaled_rows([(inside["to_z"], m[0]), (times(n, inside["dq"]), m[1]), (n, m[2])])]

    def across(self, inside: Inside) -> list[list[MatrixBall]]:
        r, n = self.weights.r, inside["to_n"]
        terms = [(inside["z"], self.ones), (inside["to_z"], r[0]), (times(n, inside["dq"]), r[1]), (times(n, inside["r"]), r[2])]
        return [[scaled_rows(terms)]]


class Lstm(Cell):
    """c' = f c + i n, h' = o last(c'); with u = dh' / dc' all that reaches c' reaches h' scaled by u."""

    states = 2
    coupled = False

    def step(self, x: Interval, states: States) -> tuple[dict[str, Interval], States]:
        w, (h, c) = self.weights, states
        p = w.p or (Interval(np.zeros(w.hidden), np.zeros(w.hidden)),) * 3
        a_i, a_n = plus(w.before(0, x, h), times(p[0], c)), w.before(3, x, h)
        i, n = w.value(0, a_i), w.value(1, a_n)
        to_i, to_n = w.slope(0, a_i), times(i, w.slope(1, a_n))
        if self.coupled:
            kept, to_f = one_minus(i), Interval(np.zeros(w.hidden), np.zeros(w.hidden))
            to_i = times(plus(n, minus(c)), to_i)
            after = corners(lambda i, n, c: (1.0 - i) * c + i * n, [i, n, c])
        else:
            a_f = plus(w.before(2, x, h), times(p[2], c))
            kept, to_f, to_i = w.value(0, a_f), times(c, w.slope(0, a_f)), times(n, to_i)
            after = plus(times(kept, c), times(i, n))
        a_o = plus(w.before(1, x, h), times(p[1], after))
        o, last = w.value(0, a_o), w.value(2, after, clipped=False)
        to_o = times(last, w.slope(0, a_o))
        shown = plus(times(o, w.slope(2, after, clipped=False)), times(to_o, p[1]))
        keep = plus(kept, times(to_i, p[0]), times(to_f, p[2]))
        inside = {"h": h, "c": c, "after": after, "i": to_i, "f": to_f, "n": to_n, "o": to_o, "shown": shown, "keep": keep}
        return inside, (times(o, last), after)

    def into(self, inside: Inside, m: Blocks) -> list[MatrixBall]:
        to_cell = [(inside["i"], m[0]), (inside["f"], m[2]), (inside["n"], m[3])]
        to_cell = to_cell[:1] + to_cell[2:] if self.coupled else to_cell
        to_state = [(inside["o"], m[1]), *((times(inside["shown"], d), block) for d, block in to_cell)]
        return [scaled_rows(to_state), scaled_rows(to_cell)]

    def across(self, inside: Inside) -> list[list[MatrixBall]]:
        of_h = self.into(inside, self.weights.r)
        of_c = [scaled_rows([(d, self.ones)]) for d in (times(inside["shown"], inside["keep"]), inside["keep"])]
        return [[a, b] for a, b in zip(of_h, of_c, strict=True)]


class CoupledLstm(Lstm):
    """f = 1 - i."""

    coupled = True


def over_steps(found: Sequence[Mapping[str, Interval]], merged: bool) -> Inside:
    """What is inside of each step, [steps, H] by name; of all of them together, [1, H], where ``merged``."""
    made = {}
    for name in found[0]:
        lo, hi = (np.stack([np.atleast_1d(end) for end in ends]) for ends in zip(*map(_ends(name), found), strict=True))
        made[name] = Interval(lo.min(0, keepdims=True), hi.max(0, keepdims=True)) if merged else Interval(lo, hi)
    return made


def _ends(name: str) -> Callable[[Mapping[str, Interval]], tuple[Array, Array]]:
    return lambda inside: (inside[name].lo, inside[name].hi)
