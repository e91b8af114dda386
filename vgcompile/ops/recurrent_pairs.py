"""Two steps of a recurrence: what they have in common, forward and backward, because they share their weights.

Forward, R h_(t-1) and R h_(u-1) correlate as the states do. Backward, R^T d_t and R^T d_u correlate as the adjoints do; those of
a gated cell do, for a memory hands its adjoint on. What R returns to the memory then adds up with what is still there, and the
cell forgets more slowly than its gates alone would say. With h what a cell shows, s its memory, d the adjoints that reach R:

    E[h_t h_u] = seeds + n E[r^2] E[d_(t+1) d_(u+1)]
    s_t = kept s_(t+1) + into h_t, so E[s_u h_t] and E[s_t s_u] follow from it step by step
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vgcompile.ops.op import Array
from vgcompile.ops.recurrent_activation import Activation
from vgcompile.ops.recurrent_cells import Factor, Gate, Step, growth
from vgcompile.signal import Signal

FRACTION = 5.0  # of the width: more steps than that meet the same R too often


@dataclass(frozen=True)
class Problem:
    """A node as its moments need it: sizes, statistics of its operands, the functions of one direction."""

    gates: int
    steps: int
    units: int
    features: int
    samples: int
    directions: int
    functions: tuple[Activation, ...]
    x: Signal
    w: Signal
    r: Signal
    b: Signal
    h: Signal
    c: Signal
    reset_after: bool

    def of_inputs(self, x: float) -> float:
        """E[(W x)(W x')] from E[x x']."""
        return self.features * self.w.square * x + self.features * (self.features - 1) * self.w.mean**2 * self.x.mean**2

    def of_states(self, h: float) -> float:
        return self.units * self.r.square * h

    @property
    def bias(self) -> float:
        """E[(b + c)^2], of inputs and of states."""
        return 2.0 * self.b.square + 2.0 * self.b.mean**2

    @property
    def mean(self) -> float:
        return 2.0 * self.b.mean + self.features * self.w.mean * self.x.mean

    @property
    def doubt(self) -> str:
        if self.steps * FRACTION <= self.units:
            return ""
        return f"{self.steps} steps of {self.units} units: beyond a fifth of the width the same weights are met too often"


@dataclass(frozen=True)
class Trace:
    """The steps of one direction in its own order, what two samples' pre-activations correlate by in each and, of each pair of
    steps [steps, steps], what their pre-activations correlate by, E[s s'] of their memories before, and E of the product of
    what the output reads of them; ``within`` is E[h h'] averaged over pairs."""

    steps: tuple[Step, ...]
    correlations: tuple[float, ...]
    rho: Array
    memory: Array
    read: Array
    within: float


class Pairs:
    """The forward half, row by row."""

    def __init__(self, p: Problem) -> None:
        self.p, shape = p, (p.steps, p.steps)
        self.rows: list[tuple[Step, float]] = []
        self.rho, self.s, self.read, self.h = (np.zeros(shape) for _ in range(4))

    def add(self, step: Step, square: float) -> None:
        """``square``: E[z^2] of the step's pre-activations."""
        p, t, free = self.p, len(self.rows), self.p.mean**2
        past, squares = [row for row, _ in self.rows], np.array([q for _, q in self.rows])
        self.rows.append((step, square))
        if not t:
            return
        earlier = np.concatenate([[0.0], self.h[t - 1, : t - 1]])  # of the states before: those of the initial one are not known
        shared = p.of_inputs(p.x.within) + p.of_states(1.0) * earlier + p.bias - free
        scale = np.sqrt(np.maximum((squares - free) * (square - free), 0.0))
        rho = np.clip(shared / np.maximum(scale, 1e-300), -1.0, 1.0)
        memory = added = _product([row.added for row in past], step.added, rho)
        if step.kept:
            last = np.append(self.s[t - 1, : t - 1], past[-1].s.square)
            memory = step.kept * last + _carried([row.kept for row in past], added)
        h, read = memory, np.zeros(t)
        if step.shown:
            sizes = np.sqrt(np.array([row.s.square for row in past]) * step.s.square)
            read = _product([row.shown[1:] for row in past], step.shown[1:], memory / np.maximum(sizes, 1e-300))
            h = read * _product([row.shown[:1] for row in past], step.shown[:1], rho)
        for found, kept in ((self.rho, rho), (self.s, memory), (self.read, read), (self.h, h)):
            found[t, :t] = found[:t, t] = kept

    def trace(self, correlations: Sequence[float]) -> Trace:
        steps = tuple(step for step, _ in self.rows)
        n = len(steps)
        within = float(self.h.sum() / (n * (n - 1))) if n > 1 else steps[0].h.square
        before = np.zeros_like(self.s)
        before[1:, 1:] = self.s[:-1, :-1]
        return Trace(steps, tuple(correlations), self.rho, before, self.read, within)


def _product(past: Sequence[tuple[Gate, ...]], now: tuple[Gate, ...], rho: Array) -> Array:
    """E of a product of functions at two steps whose pre-activations correlate by ``rho``, for each earlier step."""
    return _expected([tuple((g, "y") for g in row) for row in past], tuple((g, "y") for g in now), rho)


def _expected(past: Sequence[tuple[Factor, ...]], now: tuple[Factor, ...], rho: Array) -> Array:
    found = np.ones(len(past))
    for index, factor in enumerate(now):
        coefficients = np.stack([_coefficients(row[index]) for row in past]) * _coefficients(factor)
        found = found * (coefficients * np.clip(rho, -1.0, 1.0)[:, None] ** np.arange(coefficients.shape[1])).sum(-1)
    return found


def _coefficients(factor: Factor) -> Array:
    gate, kind = factor
    return gate.coefficients if kind == "y" else gate.slope_coefficients


def _carried(kept: Sequence[float], added: Array) -> Array:
    """E[b_t s_u]: what is added now against the memories before, which keep what was added to them."""
    found, last = np.zeros(len(added)), 0.0
    for u, (share, term) in enumerate(zip(kept, added.tolist(), strict=True)):
        found[u] = last = share * last + term
    return found


@dataclass(frozen=True)
class Back:
    """Squared adjoints: ``gates`` [steps] of all pre-activations together, ``h`` and ``s`` of the initial states; ``spread`` of
    ln ||.||^2 at each step."""

    gates: Array
    h: Array
    s: Array
    spread: Array


def back(p: Problem, run: Trace, seeds: Array, within: Array, memory_seed: float, spread: float, alignment: float) -> Back:
    """``seeds`` [steps] arrive at h and share ``within`` [steps, steps] between two of them, ``memory_seed`` at the last s."""
    n, gain = p.steps, p.units * p.r.square
    h, s, passed = (
        np.zeros((n + 1, n + 1)) for _ in range(3)
    )  # ``passed``: of s, what no R has returned; state 0 is the initial one, step t leads from t - 1 to t
    kept = np.array([*(step.kept for step in run.steps), 0.0])  # kept[j]: of the memory j by the step after it
    into = np.array([float(p.gates == 3), *(step.into for step in run.steps)])
    gates, spreads, log = np.zeros(n), np.zeros(n), spread
    for j in range(n, -1, -1):
        step = run.steps[j - 1] if j else None
        h[j, j:] = within[j - 1, j - 1 :] if j else 0.0
        h[j, j] = seeds[j - 1] if j else 0.0
        if j < n:
            h[j, j:n] += gain * _fed(run, j, *(each[j + 1, j + 1 :] for each in (h, s, passed)))
        across = _met(h[j], into, kept, j)
        if j < n:
            passed[j, j + 1 :] = kept[j] * passed[j + 1, j + 1 :]
            s[j, j + 1 :] = kept[j] * s[j + 1, j + 1 :] + into[j] * across[j + 1 :]
        before = run.steps[j].same.kept * s[j + 1, j + 1] if j < n else memory_seed
        squared = step.same.into if step else into[0]
        s[j, j] = before + squared * h[j, j] + (2.0 * kept[j] * into[j] * across[j + 1] if j < n else 0.0)
        passed[j, j] = s[j, j]
        if step:
            gates[j - 1] = step.same.gates * h[j, j] + step.same.memory_gates * s[j, j]
            spreads[j - 1] = log
            arrived = s[j, j] if step.same.memory_fed else h[j, j]
            returned = h[j, j] - seeds[j - 1] if not step.same.memory_fed else squared * (h[j, j] - seeds[j - 1])
            share = min(max(returned / arrived, 0.0), 1.0) if arrived > 0 else 0.0
            log += share * growth(step, run.correlations[j - 1], p.samples, p.units, alignment)
    initial = s[0, 0] if p.gates == 3 else h[0, 0]
    return Back(gates, np.array(initial), np.array(s[0, 0]), spreads)


def _fed(run: Trace, j: int, h: Array, s: Array, passed: Array) -> Array:
    """E[d_(j+1) d_u] of all gates for u from j + 1 on, from the adjoints of the states there.

    Where one gate decides both what of s is kept and what of it reaches R, what was passed on without a detour knows of it."""
    t, step, later = j, run.steps[j], run.steps[j + 1 :]
    found = np.zeros(len(h))
    found[0] = step.same.fed * h[0] + step.same.memory_fed * s[0]
    for index, way in enumerate(step.ways if later else ()):
        factor = _expected([row.ways[index].factors for row in later], way.factors, run.rho[t, t + 1 :])
        if way.times:
            factor = factor * (run.memory if way.times == "memory" else run.read)[t, t + 1 :]
        bound = np.array([row.ways[index].bound - 1.0 for row in later])
        found[1:] += factor * (h[1:] if way.of == "h" else s[1:] + bound * passed[1:])
    return found


def _met(h: Array, into: Array, kept: Array, j: int) -> Array:
    """E[s_v h_j] for v from the last state down to j."""
    found, last = np.zeros(len(h)), 0.0
    for v in range(len(h) - 1, j - 1, -1):
        found[v] = last = float(kept[v]) * last + float(into[v] * h[v])
    return found
