"""Ranges and certified norms of RNN, GRU and LSTM over time, for given ranges of inputs, states and weights.

Forward, each step's gates and states are enclosed from those of the step before; where the number of steps is not known, in a
box that a step leads back into. Backward, the states s and what u enters at each step obey ds_t = A_t ds_(t-1) + B_t du_t, so
that the whole Jacobian is C (I - A)^(-1) B with A below the diagonal. Its norm is the least of

    product   the spectral norm of the matrix of block norms, which powers of ||A_t|| fill (the norm of a block matrix is at most
              that of its blocks' norms; of c and h apart, so that no unit of one is weighed against a unit of the other)
    centre    with G at the middle of all A_t and F = I - (I - A) G: (I - A)^(-1) = G + (I - A)^(-1) F

and, for any number of steps, the sum of the geometric series (I - N)^(-1) b of the norms, if there is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vgcompile.interval import EPSILON, Array, Interval, point
from vgcompile.ops.matrix_ball import MatrixBall, identity
from vgcompile.ops.normalization import known
from vgcompile.ops.op import Case, Dim
from vgcompile.ops.recurrent_activation import activations, unsuited
from vgcompile.ops.recurrent_jacobian import Outputs, Recurrence, norm_over_steps
from vgcompile.ops.recurrent_steps import Cell, CoupledLstm, Gru, Inside, LinearGru, Lstm, Rnn, States
from vgcompile.ops.recurrent_weights import Blocks, Weights
from vgcompile.ops.shape import is_sample_axis

X, W, R, B, LENGTHS, H, C, P = range(8)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
MOST_STEPS = 512  # beyond them, and where steps and units make too much work, one box holds all steps
MOST_WORK = 5e7  # multiply-adds of one product for each step
SEARCHED = 24  # steps in search of a box that a step leads back into
REFINED = 6  # steps from no box at all, where there is none
WIDER = (1e-3, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)  # by so much of itself such a box is tried


@dataclass(frozen=True)
class Forward:
    """``inside`` [steps, H] by name, and the states before and after each step [steps, H]; where the number of steps is not
    known, one row for all of them."""

    inside: Inside
    before: States
    after: States


@dataclass(frozen=True)
class Direction:
    """One direction: ``x`` [steps, I], a single row for all steps where their number is not known or samples end at different
    steps, in the order in which they are read; ``start`` the initial states [H]."""

    cell: Cell
    x: Interval
    start: States
    steps: int | None
    backwards: bool

    def forward(self) -> Forward:
        driven = self.cell.weights.driven(self.x)
        if self.steps is None:
            before = tuple(_row_of(box) for box in self._settled(_row(driven, 0)))
        else:
            made = [self.start]
            for t in range(self.steps - 1):
                made.append(self.cell.step(_row(driven, t), made[-1])[1])
            before = tuple(stacked(boxes) for boxes in zip(*made, strict=True))
        gates, after = self.cell.step(driven, before)
        return Forward({**gates, **self.cell.slopes(gates)}, before, after)

    def _settled(self, driven: Interval) -> States:
        """A box that holds the states before every step: the initial ones, and what a step makes of the box."""
        states = self.start
        for _ in range(SEARCHED):
            after = self.cell.step(driven, states)[1]
            if _inside(after, states):
                return states
            states = _hulls(states, after)
        for share in WIDER:
            wide = tuple(_widened(box, share) for box in states)
            if _inside(self.cell.step(driven, wide)[1], wide):
                states = wide
                break
        else:
            anything = np.full(self.cell.weights.hidden, np.inf)
            states = (Interval(-anything, anything),) * self.cell.states
        for _ in range(REFINED):  # a step from a box that holds all states, and the initial ones, are such a box again
            states = _hulls(self.start, self.cell.step(driven, states)[1])
        return states


def _row(x: Interval, t: int) -> Interval:
    return x.map(lambda end: end[t if len(end) > 1 else 0])


def _row_of(x: Interval) -> Interval:
    return x.map(lambda end: end[None])


def _inside(a: States, b: States) -> bool:
    return all((y.lo <= x.lo).all() and (x.hi <= y.hi).all() for x, y in zip(a, b, strict=True))


def _hulls(a: States, b: States) -> States:
    return tuple(x.hull(y) for x, y in zip(a, b, strict=True))


def _widened(x: Interval, share: float) -> Interval:
    room = share * np.maximum(x.hi - x.lo, x.magnitude)
    return Interval(x.lo - room, x.hi + room)


# ---- reading a case


def directions(name: str, default: Sequence[str], case: Case) -> list[Direction]:
    """Raises NotImplementedError where an extent or a function is not known."""
    attributes = case.attributes
    count = 2 if attributes["direction"] == "bidirectional" else 1
    reason = unsuited(attributes, default, count)
    w, r = case.shapes[W], case.shapes[R]
    if reason or w is None or r is None or any(isinstance(dim, str) for dim in (*w, *r)):
        raise NotImplementedError(reason or "the extents of its weights are not known")
    x, steps = _inputs(case, int(w[2]))
    hidden, found = int(r[2]), []
    for d, functions in enumerate(activations(attributes, default, count)):
        backwards = attributes["direction"] == "reverse" or d == 1
        cell = _cell(name, attributes.get("linear_before_reset", 0), attributes.get("input_forget", 0))(
            Weights(
                _of_direction(case, W, d, w),
                _of_direction(case, R, d, r),
                *_biases(case, d, count, GATES[name] * hidden),
                p=_peepholes(_of_direction(case, P, d, (count, 3 * hidden))) if _given(case, P) else None,
                functions=functions,
                unit=case.unit,
            )
        )
        start = tuple(_state(case, position, d, hidden) for position in (H, C)[: cell.states])
        ordered = x.map(lambda end: end[::-1]) if backwards else x
        found.append(Direction(cell, ordered, start, steps, backwards))
    return found


def _cell(name: str, linear: int, coupled: int) -> type[Cell]:
    if name == "RNN":
        return Rnn
    if name == "GRU":
        return LinearGru if linear else Gru
    return CoupledLstm if coupled else Lstm


def _given(case: Case, position: int) -> bool:
    return position < len(case.shapes) and case.shapes[position] is not None


def _inputs(case: Case, size: int) -> tuple[Interval, int | None]:
    """[steps, I], of all samples together. Samples of different lengths that are read backward begin anywhere."""
    dims = case.shapes[X]
    if dims is None:
        raise NotImplementedError("the shape of its input is not known")
    batch, time = (0, 1) if case.attributes["layout"] else (1, 0)
    length = dims[time]
    steps = length if isinstance(length, int) else None
    bound = _full(known(case, X), 3)
    bound = Interval(bound.lo.min(batch), bound.hi.max(batch))
    if steps is None or _given(case, LENGTHS):
        bound = Interval(bound.lo.min(0, keepdims=True), bound.hi.max(0, keepdims=True))
    return bound.map(lambda end: np.broadcast_to(end, (end.shape[0], size))), steps


def _full(bound: Interval, rank: int) -> Interval:
    return bound.map(lambda end: end.reshape((1,) * (rank - end.ndim) + end.shape))


def _of_direction(case: Case, position: int, d: int, dims: Sequence[Dim]) -> Interval:
    """The slice of a weight that has directions first; the array itself where it is known."""
    value = case.values[position]
    bound = point(value) if value is not None else known(case, position)
    return _full(bound, len(dims)).map(lambda end: np.broadcast_to(end, tuple(int(n) for n in dims))[d])


def _peepholes(x: Interval) -> Blocks:
    ends = zip(np.split(x.lo, 3), np.split(x.hi, 3), strict=True)
    return tuple(Interval(lo, hi) for lo, hi in ends)


def _biases(case: Case, d: int, directions: int, rows: int) -> tuple[Interval, Interval]:
    """That of the inputs and that of the states."""
    zeros = point(np.zeros(2 * rows))
    whole = _of_direction(case, B, d, (directions, 2 * rows)) if _given(case, B) else zeros
    return whole.map(lambda end: end[:rows]), whole.map(lambda end: end[rows:])


def _state(case: Case, position: int, d: int, hidden: int) -> Interval:
    """An initial state [H], of all samples together."""
    if not _given(case, position):
        return point(np.zeros(hidden))
    bound = _full(known(case, position), 3)
    if case.attributes["layout"]:
        bound = bound.map(lambda end: np.swapaxes(end, 0, 1))
    own = bound.map(lambda end: end[min(d, len(end) - 1)])
    return Interval(own.lo.min(0), own.hi.max(0)).map(lambda end: np.broadcast_to(end, (hidden,)))


# ---- facts of the rows


def ranges(name: str, default: Sequence[str], case: Case) -> tuple[Interval, ...]:
    """Of Y [steps, directions, batch, H] and of the last states [directions, batch, H]; zeros where a sample has ended."""
    sequences, lasts = [], []
    for each in directions(name, default, case):
        after = each.forward().after
        if _given(case, LENGTHS):
            after = tuple(_over_steps(box).hull(point(0.0)) for box in after)
        elif each.steps is None:  # it may be none
            after = tuple(box.hull(start) for box, start in zip(after, each.start, strict=True))
        sequences.append(after[0].map(lambda end: end[::-1]) if each.backwards else after[0])
        lasts.append([_row(box, -1) for box in after])
    y = stacked(sequences).map(lambda end: np.swapaxes(end, 0, 1)[:, :, None])
    ends = [stacked(boxes).map(lambda end: end[:, None]) for boxes in zip(*lasts, strict=True)]
    if case.attributes["layout"]:
        y = y.map(lambda end: np.moveaxis(end, 2, 0))
        ends = [box.map(lambda end: np.swapaxes(end, 0, 1)) for box in ends]
    return (y, *ends)


def _over_steps(x: Interval) -> Interval:
    return Interval(x.lo.min(0, keepdims=True), x.hi.max(0, keepdims=True))


def stacked(boxes: Sequence[Interval]) -> Interval:
    return Interval(np.stack([box.lo for box in boxes]), np.stack([box.hi for box in boxes]))


def norms(name: str, default: Sequence[str], case: Case, position: int) -> tuple[float, float]:
    """Of the Jacobian of all outputs that are read, together."""
    if position == LENGTHS:
        raise NotImplementedError("lengths have no slope")
    found = [_norm(each, case, position) for each in directions(name, default, case)]
    whole = math.hypot(*found) if position == X else max(found)
    return (0.0, whole * _copies(case, position) * (1.0 + 8.0 * EPSILON))


def _copies(case: Case, position: int) -> float:
    """sqrt of how many samples send to the same weight, those left out that the bound is measured against."""
    if position in (X, H, C):
        return 1.0
    batch = (case.shapes[X] or ())[0 if case.attributes["layout"] else 1]
    if position not in case.data and is_sample_axis((batch,), 0, case.batch):
        return 1.0
    return math.sqrt(batch) if isinstance(batch, int) else math.inf


def _norm(way: Direction, case: Case, position: int) -> float:
    if way.steps == 0:
        return 0.0
    run, cell = way.forward(), way.cell
    size = cell.weights.hidden * cell.states
    merged = way.steps is None or way.steps > MOST_STEPS or way.steps * size**3 > MOST_WORK
    inside = {name: _over_steps(box) for name, box in run.inside.items()} if merged else run.inside
    sequence, state, memory = (k < len(case.outputs) and case.outputs[k] is not None and k not in case.unread for k in range(3))
    outputs = Outputs(sequence, state, memory, _given(case, LENGTHS))
    recurrence = Recurrence(cell.across(inside), way.steps)
    if position in (H, C):
        first = [row[position - H] for row in recurrence.across]
        return norm_over_steps(recurrence, [_first(ball) for ball in first], outputs, every=False)
    if position == X:
        return norm_over_steps(recurrence, cell.into(inside, cell.weights.blocks(cell.weights.w)), outputs)
    if way.steps is None:
        return math.inf  # of all steps a share
    entering = cell.into(inside, cell.weights.blocks(identity(len(cell.weights.r.lo))))
    return norm_over_steps(recurrence, entering, outputs, weights=_entering(way, run, position))


def _first(ball: MatrixBall) -> MatrixBall:
    return MatrixBall(ball.middle[:1], ball.radius[:1], ball.norm[:1])


def _entering(way: Direction, run: Forward, position: int) -> Array:
    """How a weight reaches the pre-activations of a step: dW x, dR h, db, dp c. Of each step a bound of the norm, [steps].

    A reset gate scales R h, before or after.
    """
    steps = way.steps or 0
    reset = max(1.0, float(run.inside["r"].magnitude.max())) if isinstance(way.cell, Gru) else 1.0
    if position == B:
        return np.full(steps, math.sqrt(2.0) * reset)
    if position == P:
        cells = np.maximum(run.before[1].magnitude, run.after[1].magnitude)
        return np.asarray(cells.max(axis=1))
    vectors = way.x.magnitude if position == W else run.before[0].magnitude * reset
    lengths = np.sqrt((vectors**2).sum(axis=1)) * (1.0 + (vectors.shape[1] + 8) * EPSILON)
    return np.broadcast_to(lengths, (steps,))
