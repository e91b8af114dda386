"""One step of RNN, GRU and LSTM over ranges: what its gates and states lie in, and where its Jacobians do.

A Jacobian of one step is a sum of terms diag(d) M: d follows from gates and slopes, of which intervals are known, and M holds
rows of the weights. :meth:`Cell.into` takes any M that leads to the gates' pre-activations: W for what comes in, ones for the
pre-activations themselves, R for the state before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from vgcompile.interval import Array, Interval, corners
from vgcompile.ops.matrix_ball import MatrixBall, identity, scaled_rows
from vgcompile.ops.recurrent_weights import Blocks, Weights, minus, one_minus, plus, times

Inside = Mapping[str, Interval]  # what is known within a step, or within many, by name: [..., H]
States = tuple[Interval, ...]  # h, and c of an LSTM: [..., H]
ALL = slice(None)


class Cell(ABC):
    """A kind of recurrence with its weights."""

    states: int = 1

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    @abstractmethod
    def step(self, driven: Interval, states: States) -> tuple[dict[str, Interval], States]:
        """Pre-activations and gates of a step from these states, where W x + b is ``driven``, and the states after it."""

    @abstractmethod
    def slopes(self, found: Inside) -> dict[str, Interval]:
        """What scales the derivatives of a step, of its gates."""

    @abstractmethod
    def into(self, inside: Inside, m: Blocks) -> list[MatrixBall]:
        """The derivatives of the states after a step by u, where M u is added to the pre-activations."""

    @abstractmethod
    def across(self, inside: Inside) -> list[list[MatrixBall]]:
        """Those of the states after a step by those before it."""

    @property
    def ones(self) -> Interval:
        return identity(self.weights.hidden)

    @property
    def returning(self) -> Blocks:
        return self.weights.blocks(self.weights.r)


class Rnn(Cell):
    """h' = f(a)."""

    def step(self, driven: Interval, states: States) -> tuple[dict[str, Interval], States]:
        a = plus(driven, self.weights.fed(states[0], ALL))
        return {"a": a}, (self.weights.value(0, a),)

    def slopes(self, found: Inside) -> dict[str, Interval]:
        return {"to_h": self.weights.slope(0, found["a"])}

    def into(self, inside: Inside, m: Blocks) -> list[MatrixBall]:
        return [scaled_rows([(inside["to_h"], m[0])])]

    def across(self, inside: Inside) -> list[list[MatrixBall]]:
        return [self.into(inside, self.returning)]


class Gru(Cell):
    """h' = (1 - z) n + z h, n = g(W x + b + R q), with q = r h of the derivative diag(r) + diag(h f') R_r."""

    def step(self, driven: Interval, states: States) -> tuple[dict[str, Interval], States]:
        w, (h,) = self.weights, states
        a = plus(driven.map(lambda end: end[..., : 2 * w.hidden]), w.fed(h, slice(0, 2)))
        gates = w.value(0, a)
        z, r = w.gate(gates, 0), w.gate(gates, 1)
        reset = self._reset(h)
        a_n = self._new(w.gate(driven, 2), times(r, reset))
        n = w.value(1, a_n)
        after = corners(lambda z, n, h: (1.0 - z) * n + z * h, [z, n, h])
        return {"h": h, "z": z, "r": r, "n": n, "reset": reset, "a": a, "a_n": a_n}, (after,)

    def _reset(self, h: Interval) -> Interval:
        """What the reset gate scales."""
        return h

    def _new(self, driven: Interval, q: Interval) -> Interval:
        return plus(driven, self.weights.fed(q, slice(2, 3)))

    def slopes(self, found: Inside) -> dict[str, Interval]:
        w, slope = self.weights, self.weights.slope(0, found["a"])
        return {
            "to_z": times(plus(found["h"], minus(found["n"])), w.gate(slope, 0)),
            "to_n": times(one_minus(found["z"]), w.slope(1, found["a_n"])),
            "to_q": times(found["reset"], w.gate(slope, 1)),
        }

    def into(self, inside: Inside, m: Blocks) -> list[MatrixBall]:
        own = scaled_rows([(inside["to_z"], m[0]), (inside["to_n"], m[2])])
        return [own + self._returned(inside) @ scaled_rows([(inside["to_q"], m[1])])]

    def across(self, inside: Inside) -> list[list[MatrixBall]]:
        r = self.returning
        own = scaled_rows([(inside["z"], self.ones), (inside["to_z"], r[0])])
        return [[own + self._returned(inside) @ scaled_rows([(inside["r"], self.ones), (inside["to_q"], r[1])])]]

    def _returned(self, inside: Inside) -> MatrixBall:
        return scaled_rows([(inside["to_n"], self.returning[2])])


class LinearGru(Gru):
    """The reset gate scales q = R h + b instead."""

    def _reset(self, h: Interval) -> Interval:
        return self.weights.fed(h, slice(2, 3))

    def _new(self, driven: Interval, q: Interval) -> Interval:
        return plus(driven, q)

    def into(self, inside: Inside, m: Blocks) -> list[MatrixBall]:
        n = inside["to_n"]
        return [scaled_rows([(inside["to_z"], m[0]), (times(n, inside["to_q"]), m[1]), (n, m[2])])]

    def across(self, inside: Inside) -> list[list[MatrixBall]]:
        r, n = self.returning, inside["to_n"]
        terms = [
            (inside["z"], self.ones),
            (inside["to_z"], r[0]),
            (times(n, inside["to_q"]), r[1]),
            (times(n, inside["r"]), r[2]),
        ]
        return [[scaled_rows(terms)]]


class Lstm(Cell):
    """c' = f c + i n, h' = o last(c'); with u = dh' / dc' all that reaches c' reaches h' scaled by u."""

    states = 2
    coupled = False

    def step(self, driven: Interval, states: States) -> tuple[dict[str, Interval], States]:
        w, (h, c) = self.weights, states
        a_i, a_o, a_f, a_n = (w.gate(a, k) for a in (plus(driven, w.fed(h, ALL)),) for k in range(4))
        if w.p is not None:
            a_i, a_f = plus(a_i, times(w.p[0], c)), plus(a_f, times(w.p[2], c))
        i, n = w.value(0, a_i), w.value(1, a_n)
        f = one_minus(i) if self.coupled else w.value(0, a_f)
        cell = corners(_averaged, [i, n, c]) if self.coupled else plus(times(f, c), times(i, n))
        a_o = a_o if w.p is None else plus(a_o, times(w.p[1], cell))
        o, last = w.value(0, a_o), w.value(2, cell, clipped=False)
        found = {
            "a_i": a_i,
            "a_o": a_o,
            "a_f": a_f,
            "a_n": a_n,
            "i": i,
            "o": o,
            "f": f,
            "n": n,
            "c": c,
            "cell": cell,
            "last": last,
        }
        return found, (times(o, last), cell)

    def slopes(self, found: Inside) -> dict[str, Interval]:
        w, c, n = self.weights, found["c"], found["n"]
        d_i, d_o, d_n = w.slope(0, found["a_i"]), w.slope(0, found["a_o"]), w.slope(1, found["a_n"])
        made = {"to_n": times(found["i"], d_n), "to_o": times(found["last"], d_o), "to_i": times(n, d_i)}
        if self.coupled:
            made["to_i"] = times(plus(n, minus(c)), d_i)
        else:
            made["to_f"] = times(c, w.slope(0, found["a_f"]))
        shown, keep = times(found["o"], w.slope(2, found["cell"], clipped=False)), found["f"]
        if w.p is not None:
            shown = plus(shown, times(made["to_o"], w.p[1]))
            keep = plus(keep, times(made["to_i"], w.p[0]), *([] if self.coupled else [times(made["to_f"], w.p[2])]))
        return {**made, "shown": shown, "keep": keep}

    def into(self, inside: Inside, m: Blocks) -> list[MatrixBall]:
        to_cell = [(inside["to_i"], m[0]), (inside["to_n"], m[3])]
        if not self.coupled:
            to_cell.append((inside["to_f"], m[2]))
        to_state = [(inside["to_o"], m[1]), *((times(inside["shown"], d), block) for d, block in to_cell)]
        return [scaled_rows(to_state), scaled_rows(to_cell)]

    def across(self, inside: Inside) -> list[list[MatrixBall]]:
        of_h = self.into(inside, self.returning)
        of_c = [scaled_rows([(d, self.ones)]) for d in (times(inside["shown"], inside["keep"]), inside["keep"])]
        return [[a, b] for a, b in zip(of_h, of_c, strict=True)]


def _averaged(i: Array, n: Array, c: Array) -> Array:
    return np.asarray((1.0 - i) * c + i * n)


class CoupledLstm(Lstm):
    """f = 1 - i."""

    coupled = True
