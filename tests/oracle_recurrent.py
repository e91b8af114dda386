"""RNN, GRU and LSTM as the standard defines them, for the reference evaluator.

onnx's own (1.23.2) know neither sequence_lens, activations, clip nor input_forget. What stands here is written from the
operators' equations, one sample and one step at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]

ACTIVATIONS: dict[str, Callable[[Array, float, float], Array]] = {
    "Relu": lambda x, a, b: np.maximum(x, 0.0),
    "Tanh": lambda x, a, b: np.tanh(x),
    "Sigmoid": lambda x, a, b: 1.0 / (1.0 + np.exp(-x)),
    "Affine": lambda x, a, b: a * x + b,
    "LeakyRelu": lambda x, a, b: np.where(x >= 0.0, x, a * x),
    "ThresholdedRelu": lambda x, a, b: np.where(x >= a, x, 0.0),
    "ScaledTanh": lambda x, a, b: a * np.tanh(b * x),
    "HardSigmoid": lambda x, a, b: np.minimum(np.maximum(a * x + b, 0.0), 1.0),
    "Elu": lambda x, a, b: np.where(x >= 0.0, x, a * (np.exp(np.minimum(x, 0.0)) - 1.0)),
    "Softsign": lambda x, a, b: x / (1.0 + np.abs(x)),
    "Softplus": lambda x, a, b: np.logaddexp(x, 0.0),
}
ALPHA = {"Affine": 1.0, "LeakyRelu": 0.01, "ThresholdedRelu": 1.0, "ScaledTanh": 1.0, "HardSigmoid": 0.2, "Elu": 1.0}
BETA = {"Affine": 0.0, "ScaledTanh": 1.0, "HardSigmoid": 0.5}

Step = Callable[[Array, Array, Array], tuple[Array, Array]]  # (x, h, c) -> (h, c)


class Recurrent(OpRun):
    """A recurrent operator; ``default`` are its activations, ``step`` makes one direction's step."""

    op_domain = ""
    default: tuple[str, ...]

    def cut(self, x: Array) -> Array:
        """ONNX Runtime clips what goes into the gates' activations, not the cell that goes into the LSTM's last one."""
        return x if self.clip is None else np.clip(x, -self.clip, self.clip)

    def step(self, functions: list[Callable[[Array], Array]], w: Array, r: Array, b: Array, p: Array) -> Step:
        raise NotImplementedError

    def _run(
        self,
        x: Array,
        w: Array,
        r: Array,
        b: Array | None = None,
        sequence_lens: Array | None = None,
        initial_h: Array | None = None,
        initial_c: Array | None = None,
        p: Array | None = None,
        **_: Any,
    ) -> tuple[Array, ...]:
        directions, hidden = r.shape[0], r.shape[2]
        if self.layout:
            x = x.swapaxes(0, 1)
            initial_h, initial_c = (None if v is None else v.swapaxes(0, 1) for v in (initial_h, initial_c))
        steps, batch = x.shape[:2]
        b = np.zeros((directions, 2 * w.shape[1]), x.dtype) if b is None else b
        p = np.zeros((directions, 3 * hidden), x.dtype) if p is None else p
        lens = np.full(batch, steps) if sequence_lens is None else sequence_lens
        y = np.zeros((steps, directions, batch, hidden), x.dtype)
        h = np.zeros((directions, batch, hidden), x.dtype) if initial_h is None else initial_h.copy()
        c = np.zeros((directions, batch, hidden), x.dtype) if initial_c is None else initial_c.copy()
        functions = self._functions(directions)
        for d in range(directions):
            step = self.step(functions[d], w[d], r[d], b[d], p[d])
            for n in range(batch):
                times = (
                    range(lens[n])
                    if self.direction in (None, "forward") or (self.direction == "bidirectional" and d == 0)
                    else reversed(range(lens[n]))
                )
                if not lens[n]:
                    h[d, n] = c[d, n] = 0.0
                for t in times:
                    h[d, n], c[d, n] = step(x[t, n], h[d, n], c[d, n])
                    y[t, d, n] = h[d, n]
        if self.layout:
            y, h, c = y.transpose(2, 0, 1, 3), h.swapaxes(0, 1), c.swapaxes(0, 1)
        return (y, h, c)[: len(self.output)]

    def _functions(self, directions: int) -> list[list[Callable[[Array], Array]]]:
        """Alphas and betas are used up by the functions that have them, in order."""
        count = len(self.default)
        names = list(self.activations or self.default * directions)[: count * directions]
        alphas, betas = iter(self.activation_alpha or ()), iter(self.activation_beta or ())
        bound: list[Callable[[Array], Array]] = []
        for name in names:
            alpha = next(alphas, ALPHA[name]) if name in ALPHA else 0.0
            beta = next(betas, BETA[name]) if name in BETA else 0.0
            bound.append(partial(ACTIVATIONS[name], a=alpha, b=beta))
        return [bound[d * count : (d + 1) * count] for d in range(directions)]


class RNN(Recurrent):
    default = ("Tanh",)

    def step(self, functions: list[Callable[[Array], Array]], w: Array, r: Array, b: Array, p: Array) -> Step:
        (f,), (wb, rb) = functions, np.split(b, 2)
        return lambda x, h, c: (f(self.cut(w @ x + r @ h + wb + rb)), c)


class GRU(Recurrent):
    default = ("Sigmoid", "Tanh")

    def step(self, functions: list[Callable[[Array], Array]], w: Array, r: Array, b: Array, p: Array) -> Step:
        f, g = functions
        (wz, wr, wh), (rz, rr, rh) = np.split(w, 3), np.split(r, 3)
        wbz, wbr, wbh, rbz, rbr, rbh = np.split(b, 6)

        def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
            z, reset = f(self.cut(wz @ x + rz @ h + wbz + rbz)), f(self.cut(wr @ x + rr @ h + wbr + rbr))
            past = reset * (rh @ h + rbh) if self.linear_before_reset else rh @ (reset * h) + rbh
            return (1.0 - z) * g(self.cut(wh @ x + past + wbh)) + z * h, c

        return step


class LSTM(Recurrent):
    default = ("Sigmoid", "Tanh", "Tanh")

    def step(self, functions: list[Callable[[Array], Array]], w: Array, r: Array, b: Array, p: Array) -> Step:
        f, g, final = functions
        (wb, rb), (pi, po, pf) = np.split(b, 2), np.split(p, 3)

        def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
            i, o, forget, cell = np.split(w @ x + r @ h + wb + rb, 4)
            i = f(self.cut(i + pi * c))
            forget = 1.0 - i if self.input_forget else f(self.cut(forget + pf * c))
            c = forget * c + i * g(self.cut(cell))
            return f(self.cut(o + po * c)) * final(c), c

        return step


OPERATORS = [RNN, GRU, LSTM]
