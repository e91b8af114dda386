"""Mean-field moments of RNN, GRU and LSTM through time: a length map over the steps forward, chi of each step backward.

R is the same in each step, and is taken as drawn anew: with n units that is accurate up to some n/5 steps. Steps share their
weights, so that a weight's gradient is the sum over steps; what two different steps' adjoints have in common is left out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vgcompile.ops.moments import Unknown
from vgcompile.ops.op import Array, Case, Stepwise
from vgcompile.ops.reading import NumpyReading
from vgcompile.ops.recurrent_activation import activations, unsuited
from vgcompile.ops.recurrent_cells import Moment, Step, gate, gru_step, lstm_step, rnn_step
from vgcompile.ops.recurrent_pairs import Back, Pairs, Problem, Trace, back
from vgcompile.signal import Profile, Signal, constant, replace

ZERO = constant(0.0, 0.0)


def trace(op: NumpyReading, p: Problem) -> Trace:
    """Run the length map over the steps."""
    h = Moment(p.h.mean, p.h.square, p.h.across)
    s = Moment(p.c.mean, p.c.square, p.c.across) if p.gates == 4 else h
    correlations, pairs = [], Pairs(p)
    for _ in range(p.steps):
        square, across = (p.of_inputs(x) + p.of_states(y) + p.bias for x, y in ((p.x.square, h.square), (p.x.across, h.across)))
        step, rho = _step(op, p, square, across, h, s)
        pairs.add(step, square)
        h, s = step.h, step.s
        correlations.append(rho)
    return pairs.trace(correlations)


def _step(op: NumpyReading, p: Problem, square: float, across: float, h: Moment, s: Moment) -> tuple[Step, float]:
    free = p.mean**2
    variance = max(square - free, 0.0)
    rho = min(max((across - free) / variance, -1.0), 1.0) if variance > 0 else 1.0
    f, *rest = p.functions
    if p.gates == 1:
        return rnn_step([gate(op, f, p.mean, variance)], rho), rho
    inner = gate(op, f, p.mean, variance)
    if p.gates == 4:
        candidate = gate(op, rest[0], p.mean, variance)
        return lstm_step(op, (inner, inner, inner, candidate), rest[1], rho, s), rho
    reset = Moment(0.0, p.of_states(h.square), p.of_states(h.across))
    new = p.of_inputs(p.x.square) + p.bias - free + inner.square * reset.square
    candidate = gate(op, rest[0], p.mean, max(new, 0.0))
    return gru_step((inner, inner, candidate), reset, rho, s), rho


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
        b = self._back(case, p, run, adjoint)
        doubt, d = adjoint.doubt or p.doubt, b.gates
        if position in (0, 5, 6):
            rows = {0: d * p.units * p.w.square * p.directions, 5: b.h[None], 6: b.s[None]}[position]
            square = float(rows.mean())
            across = square * _shared(run, adjoint)
            weights = d if position == 0 else np.ones(1)
            total = float(weights.sum())
            spread = float(weights @ (b.spread if position == 0 else b.spread[:1])) / total if total > 0 else 0.0
            along = _along(case, position, d)
            return replace(adjoint, mean=0.0, square=square, within=0.0, across=across, spread=spread, along=along, doubt=doubt)
        square = max(self._parameter(p, run, position, d, _shared(run, adjoint)), 0.0)
        return replace(adjoint, mean=0.0, square=square, within=square, across=square, doubt=doubt)

    def steps(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Array:
        """Of the inputs alone, as the operator goes: a weight's steps are summed before anybody sees them."""
        if position:
            return np.zeros(0)
        p, run = self._run(case, signals)
        profile = self._back(case, p, run, adjoint).gates * p.units * p.w.square * p.features * p.samples
        return np.asarray(profile + profile[::-1] if p.directions == 2 else profile)

    @staticmethod
    def _back(case: Case, p: Problem, run: Trace, adjoint: Signal) -> Back:
        """From an adjoint of all states, whose profile over the steps is kept but for both ways at once, or of the last ones."""
        seeds, memory, within = np.zeros(p.steps), 0.0, np.zeros((p.steps, p.steps))
        if case.output == 2:
            memory = adjoint.square
        elif case.output == 1:
            seeds[-1] = adjoint.square
        else:
            shares = adjoint.places(p.steps) if p.directions == 1 else np.ones(p.steps)
            shares = _in_order(case, shares)
            seeds[:], within = adjoint.square * shares, adjoint.within * _pairs(shares)
        return back(p, run, seeds, within, memory, adjoint.spread, adjoint.alignment)

    def _parameter(self, p: Problem, run: Trace, position: int, d: Array, shared: float) -> float:
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
        same, across = (d[:, None] / p.gates * met * np.array([1.0, shared])).sum(axis=0).tolist()
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
        unknown = next((i for i in (0, 1, 2, 3, 5, 6) if there[i] and given[i] is None), None)
        if unknown is not None:
            raise Unknown(unknown)
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
            activations(attributes, self.default, directions)[0],
            replace(x_signal, spread=0.0), w_signal, r_signal, given[3] or ZERO, given[5] or ZERO, given[6] or ZERO,
            bool(attributes.get("linear_before_reset", 0)),
        )  # fmt: skip


def _in_order(case: Case, profile: Array) -> Array:
    """Of a sequence that is read from its end: steps as the operator goes, from steps as they stand, or back."""
    return profile[::-1] if case.attributes["direction"] == "reverse" else profile


def _pairs(shares: Array) -> Array:
    """How what two steps share is spread over the pairs: as their lengths are, with 1 for the mean pair."""
    lengths = np.sqrt(np.outer(shares, shares))
    total = lengths.sum() - np.trace(lengths)
    return lengths * (len(shares) * (len(shares) - 1) / total) if total > 0 else np.zeros_like(lengths)


def _along(case: Case, position: int, gates: Array) -> Profile:
    """How the adjoint of the inputs differs from step to step."""
    both = case.attributes["direction"] == "bidirectional"
    profile = _in_order(case, gates + gates[::-1] if both else gates)
    mean = float(profile.mean())
    return (tuple((profile / mean).tolist()),) if position == 0 and mean > 0 else ()


def _shared(run: Trace, adjoint: Signal) -> float:
    """What two samples' adjoints have in common, a step behind the seeds, against one sample's square."""
    last = run.steps[-1]
    one, two = (p.gates + p.into * p.memory_gates for p in (last.same, last.across))
    return max(adjoint.across / adjoint.square, 0.0) * two / one if one > 0 and adjoint.square > 0 else 0.0


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
