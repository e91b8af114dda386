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
from functools import reduce

import numpy as np

from vgcompile.interval import EPSILON, WHOLE, Array, Interval, point
from vgcompile.ops.matrix_ball import MatrixBall, identity
from vgcompile.ops.normalization import known
from vgcompile.ops.op import Case, Dim
from vgcompile.ops.recurrent_activation import activations, unsuited
from vgcompile.ops.recurrent_jacobian import Outputs, Recurrence, norm_over_steps
from vgcompile.ops.recurrent_steps import (
    Blocks,
    Cell,
    CoupledLstm,
    Gru,
    Inside,
    LinearGru,
    Lstm,
    Rnn,
    States,
    Weights,
    over_steps,
)
from vgcompile.ops.shape import is_sample_axis

X, W, R, B, LENGTHS, H, C, P = range(8)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
MOST_STEPS = 512  # beyond them, and where steps and units make too much work, one box holds all steps
MOST_WORK = 2e10
SEARCHED = 100  # steps in search of a box that a step leads back into
WIDER = (1e-3, 0.1, 1.0, 10.0)  # by so much of itself such a box is tried


@dataclass(frozen=True)
class Direction:
    """One direction: ``x`` [steps, I], a single row for all steps where their number is not known, in the order in which they
    are read; ``start`` the initial states [H]."""

    cell: Cell
    x: Interval
    start: States
    steps: int | None
    backwards: bool

    def forward(self) -> tuple[list[dict[str, Interval]], list[States]]:
        """What is inside of each step, and the states after it; one of each for all steps where their number is not known."""
        if self.steps is None:
            x, states = _row(self.x, 0), self._settled()
            inside, after = self.cell.step(x, states)
            return [inside], [after]
        found, made, states = [], [], self.start
        for t in range(self.steps):
            inside, states = self.cell.step(_row(self.x, t), states)
            found.append(inside)
            made.append(states)
        return found, made

    def _settled(self) -> States:
        """A box that holds the states before every step: the initial ones, and what a step makes of the box."""
        x, states = _row(self.x, 0), self.start
        for _ in range(SEARCHED):
            after = self.cell.step(x, states)[1]
            if _inside(after, states):
                return states
            states = _hulls(states, after)
        for share in WIDER:
            wide = tuple(_widened(box, share) for box in states)
            if _inside(self.cell.step(x, wide)[1], wide):
                return wide
        states = tuple(WHOLE.map(lambda end, box=box: np.broadcast_to(end, box.lo.shape)) for box in states)  # type: ignore[misc]
        for _ in range(SEARCHED):  # every box on this way holds all states
            states = _hulls(self.start, self.cell.step(x, states)[1])
        return states


def _row(x: Interval, t: int) -> Interval:
    return x.map(lambda end: end[min(t, len(end) - 1)])


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
    gates, hidden, found = GATES[name], int(r[2]), []
    for d, functions in enumerate(activations(attributes, default, count)):
        backwards = attributes["direction"] == "reverse" or d == 1
        cell = _cell(name, attributes.get("linear_before_reset", 0), attributes.get("input_forget", 0))(
            Weights(
                _blocks(_of_direction(case, W, d, w), gates),
                _blocks(_of_direction(case, R, d, r), gates),
                *_biases(case, d, count, gates * hidden, gates),
                p=_blocks(_of_direction(case, P, d, (count, 3 * hidden)), 3) if _given(case, P) else None,
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


def _blocks(x: Interval, gates: int) -> Blocks:
    ends = zip(np.split(x.lo, gates), np.split(x.hi, gates), strict=True)
    return tuple(Interval(lo, hi) for lo, hi in ends)


def _biases(case: Case, d: int, directions: int, rows: int, gates: int) -> tuple[Blocks, Blocks]:
    """That of the inputs and that of the states."""
    if not _given(case, B):
        zero = _blocks(point(np.zeros(rows)), gates)
        return zero, zero
    whole = _of_direction(case, B, d, (directions, 2 * rows))
    return _blocks(whole.map(lambda end: end[:rows]), gates), _blocks(whole.map(lambda end: end[rows:]), gates)


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
    ended = _given(case, LENGTHS)
    for each in directions(name, default, case):
        made = each.forward()[1]
        whole = [reduce(Interval.hull, boxes) for boxes in zip(*made, strict=True)]
        last = [box.hull(point(0.0)) for box in whole] if ended else [*made[-1]]
        states = [step[0] for step in made]
        if ended:
            states = [last[0]] * len(states)
        sequences.append(_stacked(states[::-1] if each.backwards else states))
        lasts.append(last)
    y = _stacked(sequences).map(lambda end: np.swapaxes(end, 0, 1)[:, :, None])
    ends = [_stacked(boxes).map(lambda end: end[:, None]) for boxes in zip(*lasts, strict=True)]
    if case.attributes["layout"]:
        y = y.map(lambda end: np.moveaxis(end, 2, 0))
        ends = [box.map(lambda end: np.swapaxes(end, 0, 1)) for box in ends]
    return (y, *ends)


def _stacked(boxes: Sequence[Interval]) -> Interval:
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
    found, made = way.forward()
    hidden = way.cell.weights.hidden
    merged = way.steps is None or way.steps > MOST_STEPS or way.steps * (way.cell.states * hidden) ** 3 > MOST_WORK
    inside = over_steps(found, merged)
    sequence, state, memory = (k < len(case.outputs) and case.outputs[k] is not None and k not in case.unread for k in range(3))
    outputs = Outputs(sequence, state, memory, _given(case, LENGTHS))
    recurrence = Recurrence(way.cell.across(inside), way.steps)
    if position in (H, C):
        first = [row[position - H] for row in recurrence.across]
        return norm_over_steps(recurrence, [_step(ball, 0) for ball in first], outputs, every=False)
    if position == X:
        return norm_over_steps(recurrence, way.cell.into(inside, way.cell.weights.w), outputs)
    if way.steps is None:
        return math.inf  # of all steps a share
    entering = way.cell.into(inside, _blocks(identity(len(way.cell.weights.r) * hidden), len(way.cell.weights.r)))
    return norm_over_steps(recurrence, entering, outputs, weights=_entering(way, inside, made, position))


def _step(ball: MatrixBall, t: int) -> MatrixBall:
    return MatrixBall(*(end[t : t + 1] for end in (ball.middle, ball.radius, ball.norm)))


def _entering(way: Direction, inside: Inside, made: Sequence[States], position: int) -> Array:
    """How a weight reaches the pre-activations of a step: dW x, dR h, db, dp c. Of each step a bound of the norm, [steps]."""
    before = [way.start, *made[:-1]]
    if position == W:
        vectors = np.stack([_row(way.x, t).magnitude for t in range(way.steps or 0)])
    elif position == R:
        vectors = _read_states(way.cell, inside, before)
    elif position == B:
        return np.full(way.steps or 0, math.sqrt(2.0) * _scale_of_biases(way.cell, inside))
    else:
        cells = [np.maximum(b[1].magnitude, a[1].magnitude) for b, a in zip(before, made, strict=True)]
        return np.asarray(np.stack(cells).max(axis=1))
    return np.asarray(np.sqrt((vectors**2).sum(axis=1)) * (1.0 + (vectors.shape[1] + 8) * EPSILON))


def _read_states(cell: Cell, inside: Inside, before: Sequence[States]) -> Array:
    """What R multiplies, or more: a reset gate scales it, before or after."""
    h = np.stack([states[0].magnitude for states in before])
    return np.asarray(h * _scale_of_biases(cell, inside)) if isinstance(cell, Gru) else h


def _scale_of_biases(cell: Cell, inside: Inside) -> float:
    """The greatest factor on the way of R h + b to a pre-activation: 1, or a reset gate that may exceed it."""
    return max(1.0, float(inside["r"].magnitude.max())) if isinstance(cell, Gru) else 1.0
