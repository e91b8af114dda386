"""Mean-field moments of RNN, GRU and LSTM through time: a length map over the steps forward, chi of each step backward.

R is the same in each step, and is taken as drawn anew: with n units that is accurate up to some n/5 steps. Steps share their
weights, so that a weight's gradient is the sum over steps; what two different steps' adjoints have in common is left out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vgcompile.ops.op import Array, Case, Stepwise
from vgcompile.ops.reading import NumpyReading
from vgcompile.ops.recurrent_activation import Activation, activations, unsuited
from vgcompile.ops.recurrent_cells import Gate, Moment, Passing, Step, gate, growth, gru_step, lstm_step, rnn_step
from vgcompile.signal import Signal, constant, replace

FRACTION = 5.0  # of the width: more steps than that meet the same R too often
ZERO = constant(0.0, 0.0)


@dataclass(frozen=True)
class Problem:
    """A node as its moments need it: sizes, statistics of its operands, the functions of one direction."""

    gates: int
    steps: int
    units: int
    features: int
    samples: int
    directions: int
    reverse: bool
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
    """The steps of one direction in its own order; ``within`` is E[h h'] averaged over pairs of different steps."""

    steps: tuple[Step, ...]
    correlations: tuple[float, ...]
    within: float


@dataclass(frozen=True)
class Back:
    """Squared adjoints step by step, of one sample [steps, 2] and [..., 0] for it, [..., 1] for two samples: of all gates'
    pre-activations together, and what arrives at the initial states; ``spread`` of ln ||.||^2 at each step."""

    gates: Array
    h: Array
    s: Array
    spread: Array


def trace(op: NumpyReading, p: Problem) -> Trace:
    """Run the length map over the steps."""
    h = Moment(p.h.mean, p.h.square, p.h.across)
    s = Moment(p.c.mean, p.c.square, p.c.across) if p.gates == 4 else h
    steps, correlations, pairs = [], [], _Pairs(p)
    for _ in range(p.steps):
        square, across = (p.of_inputs(x) + p.of_states(y) + p.bias for x, y in ((p.x.square, h.square), (p.x.across, h.across)))
        step, rho = _step(op, p, square, across, h, s)
        pairs.add(step, square)
        h, s = step.h, step.s
        steps.append(step)
        correlations.append(rho)
    return Trace(tuple(steps), tuple(correlations), pairs.mean)


def _step(op: NumpyReading, p: Problem, square: float, across: float, h: Moment, s: Moment) -> tuple[Step, float]:
    free = p.mean**2
    variance = max(square - free, 0.0)
    rho = min(max((across - free) / variance, -1.0), 1.0) if variance > 0 else 1.0
    f, *rest = p.functions
    if p.gates == 1:
        return rnn_step([gate(op, f, p.mean, variance)], rho, h), rho
    inner = gate(op, f, p.mean, variance)
    if p.gates == 4:
        candidate = gate(op, rest[0], p.mean, variance)
        return lstm_step(op, (inner, inner, inner, candidate), rest[1], rho, s), rho
    reset = Moment(0.0, p.of_states(h.square), p.of_states(h.across))
    new = p.of_inputs(p.x.square) + p.bias - free + inner.square * reset.square
    candidate = gate(op, rest[0], p.mean, max(new, 0.0))
    return gru_step((inner, inner, candidate), reset, rho, s), rho


class _Pairs:
    """E[h_t h_u] of different steps, row by row: what is added at two steps correlates as their pre-activations do, and what is
    kept of a memory carries on. ``mean`` is the average over the pairs."""

    def __init__(self, p: Problem) -> None:
        self.p = p
        self.rows: list[tuple[Step, float]] = []
        self.before = np.zeros(0)  # E[h_(t-1) h_u] for u < t - 1
        self.memory = np.zeros(0)
        self.total, self.count = 0.0, 0

    def add(self, step: Step, square: float) -> None:
        t = len(self.rows)
        self.rows.append((step, square))
        if not t:
            return
        p, free = self.p, self.p.mean**2
        earlier = np.concatenate([[p.h.square * 0.0], self.before])[:t]  # E[h_(t-1) h_(u-1)], u = 0 from the initial state
        squares = np.array([q for _, q in self.rows[:t]])
        shared = p.of_inputs(p.x.within) + p.of_states(1.0) * earlier + p.bias - free
        rho = np.clip(shared / np.maximum(np.sqrt((squares - free) * max(square - free, 0.0)), 1e-300), -1.0, 1.0)
        past = [row for row, _ in self.rows[:t]]
        added = _product([row.added for row in past], step.added, rho)
        memory = added
        if step.kept:
            carried = _carried([row.kept for row in past], added)
            last = np.append(self.memory, past[-1].s.square)
            memory = step.kept * last + carried
        h = memory
        if step.shown:
            out, read = [row.shown[0] for row in past], [row.shown[1] for row in past]
            inner = memory / np.maximum(np.sqrt(np.array([row.s.square for row in past]) * step.s.square), 1e-300)
            h = _product([(g,) for g in out], step.shown[:1], rho) * _product([(g,) for g in read], step.shown[1:], inner)
        self.before, self.memory = np.append(h[: t - 1], h[t - 1]), memory
        self.total, self.count = self.total + float(h.sum()), self.count + t

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else self.rows[0][0].h.square


def _product(past: Sequence[tuple[Gate, ...]], now: tuple[Gate, ...], rho: Array) -> Array:
    """E of a product of functions at two steps whose pre-activations correlate by ``rho``, for each earlier step."""
    found = np.ones(len(past))
    for index, last in enumerate(now):
        coefficients = np.stack([row[index].coefficients for row in past]) * last.coefficients
        found = found * (coefficients * np.clip(rho, -1.0, 1.0)[:, None] ** np.arange(coefficients.shape[1])).sum(-1)
    return found


def _carried(kept: Sequence[float], added: Array) -> Array:
    """E[b_t s_u]: what is added now against the memories before, which keep what was added to them."""
    found, last = np.zeros(len(added)), 0.0
    for u, (share, term) in enumerate(zip(kept, added.tolist(), strict=True)):
        found[u] = last = share * last + term
    return found


def back(p: Problem, run: Trace, seeds: Array, memory_seed: Array, spread: float, alignment: float) -> Back:
    """Adjoints in one sweep; ``seeds`` [steps, 2] arrive at h, ``memory_seed`` [2] at the last s."""
    gain, h, s, log = p.units * p.r.square, np.zeros(2), np.array(memory_seed, np.float64), spread
    gates, spreads = np.zeros((p.steps, 2)), np.zeros(p.steps)
    for t in range(p.steps - 1, -1, -1):
        step = run.steps[t]
        arrived = h + seeds[t]
        log = (h[0] * log + seeds[t, 0] * spread) / arrived[0] if arrived[0] > 0 else log
        h, s, gates[t] = _passed((step.same, step.across), arrived, s, gain)
        spreads[t] = log
        through = 1.0 - step.same.direct * arrived[0] / h[0] if h[0] > 0 else 0.0
        log += through * growth(step, run.correlations[t], p.samples, p.units, alignment)
    return Back(gates, h, s, spreads)


def _passed(each: tuple[Passing, Passing], h: Array, s: Array, gain: float) -> tuple[Array, Array, Array]:
    def of(name: str) -> Array:
        return np.array([getattr(passing, name) for passing in each])

    s = s + of("into") * h
    gates = of("gates") * h + of("memory_gates") * s
    before = gain * (of("fed") * h + of("memory_fed") * s) + of("direct") * h
    return before, of("kept") * s, gates


@dataclass(frozen=True)
class ThroughTime(Stepwise):
    """Moments of a recurrent node of this many gates, whose activations default to ``default``."""

    gates: int
    default: tuple[str, ...]

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> tuple[Signal, ...]:
        p, run = self._run(case, signals)
        last, lengths = run.steps[-1], np.array([[s.h.mean, s.h.square, s.h.across] for s in run.steps])
        mean, square, across = lengths.mean(axis=0).tolist()
        doubt = p.x.doubt
        y = Signal(mean, square, run.within, across, p.x.alignment, doubt=doubt)
        ends = Signal(last.h.mean, last.h.square, last.h.square, last.h.across, p.x.alignment, doubt=doubt)
        cell = Signal(last.s.mean, last.s.square, last.s.square, last.s.across, p.x.alignment, doubt=doubt)
        return (y, ends, cell)[: len(case.outputs)]

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        p, run = self._run(case, signals)
        b = self._back(p, run, case.output, adjoint)
        doubt, d = adjoint.doubt or p.doubt, b.gates
        if position in (0, 5, 6):
            gain = p.units * p.w.square * p.directions
            rows = {0: d * gain, 5: b.h[None], 6: b.s[None]}[position]
            square, across = rows.mean(axis=0).tolist()
            weights = d[:, 0] if position == 0 else np.ones(1)
            total = float(weights.sum())
            spread = float(weights @ (b.spread if position == 0 else b.spread[:1])) / total if total > 0 else 0.0
            return replace(adjoint, mean=0.0, square=square, within=0.0, across=across, spread=spread, doubt=doubt)
        square = max(self._parameter(p, run, position, d), 0.0)
        return replace(adjoint, mean=0.0, square=square, within=square, across=square, doubt=doubt)

    def steps(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Array:
        """Of the inputs alone: a weight's steps are summed before anybody sees them."""
        if position:
            return np.zeros(0)
        p, run = self._run(case, signals)
        profile = self._back(p, run, case.output, adjoint).gates[:, 0] * p.units * p.w.square * p.features * p.samples
        if p.directions == 2:
            return np.asarray(profile + profile[::-1])
        return np.asarray(profile[::-1] if p.reverse else profile)

    @staticmethod
    def _back(p: Problem, run: Trace, output: int, adjoint: Signal) -> Back:
        seeds, memory, arriving = np.zeros((p.steps, 2)), np.zeros(2), [adjoint.square, adjoint.across]
        if output == 2:
            memory[:] = arriving
        else:
            seeds[-1 if output else slice(None)] = arriving
        return back(p, run, seeds, memory, adjoint.spread, adjoint.alignment)

    def _parameter(self, p: Problem, run: Trace, position: int, d: Array) -> float:
        """Per element: what each step's adjoint, a gate's share of it, meets there, summed over steps and samples."""
        if position == 1:
            met = np.tile([p.x.square, p.x.across], (p.steps, 1))
        elif position == 2:
            states = [(p.h.square, p.h.across), *((step.h.square, step.h.across) for step in run.steps[:-1])]
            met = np.array(states)
        elif position == 3:
            met = np.ones((p.steps, 2))
        else:
            raise NotImplementedError("only inputs, weights, biases and initial states have a predicted gradient")
        same, across = (d / p.gates * met).sum(axis=0).tolist()
        return float(p.samples * same + p.samples * (p.samples - 1) * across)

    def _run(self, case: Case, signals: Sequence[Signal | None]) -> tuple[Problem, Trace]:
        p = self._problem(case, signals)
        return p, _traced(_reading(), p)

    def _problem(self, case: Case, signals: Sequence[Signal | None]) -> Problem:
        given = [*signals, *(None,) * (8 - len(signals))]
        there = [i < len(case.shapes) and case.shapes[i] is not None for i in range(8)]
        attributes = case.attributes
        if there[4] or there[7] or attributes.get("input_forget"):
            raise NotImplementedError("sequences of different lengths, peepholes and coupled gates are not predicted")
        if any(there[i] and given[i] is None for i in (0, 1, 2, 3, 5, 6)):
            raise NotImplementedError("the statistics of an operand are not known")
        directions = 2 if attributes["direction"] == "bidirectional" else 1
        if why := unsuited(attributes, self.default, directions):
            raise NotImplementedError(why)
        x, w = case.shapes[0] or (), case.shapes[1] or ()
        steps = x[1 if attributes["layout"] else 0]
        if isinstance(steps, str) or steps < 1:
            raise NotImplementedError("a recurrence is predicted for a known number of steps")
        x_signal, w_signal, r_signal = (signal if signal is not None else ZERO for signal in given[:3])
        return Problem(
            self.gates, steps, case.count(w[1:2]) // self.gates, case.count(w[2:3]), case.batch, directions,
            attributes["direction"] == "reverse", activations(attributes, self.default, directions)[0],
            replace(x_signal, spread=0.0), w_signal, r_signal, given[3] or ZERO, given[5] or ZERO, given[6] or ZERO,
            bool(attributes.get("linear_before_reset", 0)),
        )  # fmt: skip


_Traced = Callable[[NumpyReading, Problem], Trace]


def _reading() -> NumpyReading:
    from vgcompile.ops import NUMPY  # the table, of which this is a part

    return NUMPY


def _key(p: Problem) -> tuple[object, ...]:
    functions = tuple((f.row.name, tuple(sorted(f.attributes.items())), f.clip) for f in p.functions)
    return (*(getattr(p, name) for name in p.__dataclass_fields__ if name != "functions"), functions)


class _Remembered:
    """The last traces: a node asks for its own once for each of its inputs."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], Trace] = {}

    def __call__(self, op: NumpyReading, p: Problem) -> Trace:
        key = _key(p)
        if key not in self._found:
            if len(self._found) >= 16:
                self._found.pop(next(iter(self._found)))
            self._found[key] = trace(op, p)
        return self._found[key]


_traced: _Traced = _Remembered()
