"""The norm of a linear recurrence over time whose matrices are known within balls.

With s_t = A_t s_(t-1) + B_t u_t, s_0 = 0, the map from all u to the outputs is C (I - A)^(-1) B, A below the block diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vgcompile.interval import EPSILON, TINY, Array
from vgcompile.norms import UNIT, singular_extremes, spectral_norm
from vgcompile.ops.matrix_ball import MatrixBall, beside

LARGEST = 1024  # rows of the whole map's centre
DECOMPOSED = 256  # the shorter side of a matrix whose eigenvalues are taken
LARGEST_TABLE = 1024  # steps of a table of block norms whose spectral norm is taken


@dataclass(frozen=True)
class Outputs:
    """Which outputs are read: the states of all steps, the last h, the last c; last may be ``anywhere``, where lengths differ."""

    sequence: bool
    state: bool
    memory: bool
    anywhere: bool = False


@dataclass(frozen=True)
class Recurrence:
    """``across`` [states][states]: balls of A_t, [steps] of each or a single one for all; ``steps`` None where it may be any
    number."""

    across: Sequence[Sequence[MatrixBall]]
    steps: int | None

    @property
    def norms(self) -> Array:
        """[steps or 1, states, states]."""
        return np.stack([np.stack([ball.norm for ball in row], axis=-1) for row in self.across], axis=-2)


def norm_over_steps(
    recurrence: Recurrence,
    entering: Sequence[MatrixBall],
    outputs: Outputs,
    *,
    every: bool = True,
    weights: Array | None = None,
) -> float:
    """The norm of the map from u to the outputs, ``entering`` B_t by states.

    u is one vector for ``every`` step or, where it is not, enters at the first step alone. With ``weights`` [steps], one u
    reaches step t through a map of this norm.
    """
    if not (outputs.sequence or outputs.state or outputs.memory):
        return 0.0
    b = np.stack([ball.norm for ball in entering], axis=-1)
    if not (np.isfinite(recurrence.norms).all() and np.isfinite(b).all()) or (
        weights is not None and not np.isfinite(weights).all()
    ):
        return math.inf
    if recurrence.steps is None:
        return _of_any_length(recurrence.norms.max(0), b.max(0), outputs)
    with np.errstate(over="ignore", invalid="ignore"):
        table = _table(recurrence, b, outputs, every)
    found = _of_table(table, weights)
    centred = _of_centre(recurrence, entering, outputs, every)
    if weights is not None:
        centred *= float(np.linalg.norm(weights)) * (1.0 + (len(weights) + 8) * EPSILON)
    return min(found, centred)


def _of_any_length(n: Array, b: Array, outputs: Outputs) -> float:
    """v >= N v + b bounds the sum of the series N^k b, with which a Toeplitz matrix of such blocks is bounded (Young)."""
    if np.abs(np.linalg.eigvals(n)).max() >= 1.0:
        return math.inf
    v = np.linalg.solve(np.eye(len(n)) - n, b) * (1.0 + 1e-9) + TINY
    if not (v >= (n @ v + b) * (1.0 + 8.0 * EPSILON)).all():
        return math.inf
    parts = [v[0]] * (outputs.sequence + outputs.state) + [v[-1]] * outputs.memory
    return float(np.linalg.norm(parts)) * (1.0 + 8.0 * EPSILON)


def _table(recurrence: Recurrence, b: Array, outputs: Outputs, every: bool) -> Array:
    """Bounds of the blocks' norms: a row for each output vector, a column for each step that something enters at."""
    steps = recurrence.steps or 0
    n, room = recurrence.norms, 1.0 + 8.0 * EPSILON
    reach = np.zeros((steps if every else 1, b.shape[1]))
    sequence, memory = [], []
    for t in range(steps):
        reach = (reach @ n[min(t, len(n) - 1)].T) * room
        if every or t == 0:
            reach[t] = b[min(t, len(b) - 1)]
        sequence.append(reach[:, 0])
        memory.append(reach[:, -1])
    rows = sequence if outputs.sequence else []
    for wanted, found in ((outputs.state, sequence), (outputs.memory, memory)):
        if wanted:
            rows = [*rows, np.max(found, axis=0) if outputs.anywhere else found[-1]]
    return np.stack(rows)


def _of_table(table: Array, weights: Array | None) -> float:
    """With weights, of one u that reaches every step; else the spectral norm, or the root of largest row and column sum."""
    if not np.isfinite(table).all():
        return math.inf
    if weights is not None:
        return float(np.linalg.norm(table @ weights)) * (1.0 + 4.0 * (sum(table.shape) + 8) * EPSILON)
    if max(table.shape) <= LARGEST_TABLE:
        return _norm(table)
    return math.sqrt(float(table.sum(0).max()) * float(table.sum(1).max())) * (1.0 + 4.0 * (sum(table.shape) + 8) * EPSILON)


def _of_centre(recurrence: Recurrence, entering: Sequence[MatrixBall], outputs: Outputs, every: bool) -> float:
    """At the middle of all A_t: with F = I - (I - A) G one has (I - A)^(-1) = G + (I - A)^(-1) F, and

    C (I - A)^(-1) B = C G B_c + C G (B - B_c) + C (I - A)^(-1) F B
    """
    a, steps = beside(recurrence.across), recurrence.steps or 0
    size = a.shape[-1]
    whole = size * steps
    if whole > LARGEST or (outputs.anywhere and (outputs.state or outputs.memory)):
        return math.inf
    b = beside([[ball] for ball in entering])
    g, columns = np.zeros((whole, whole)), b.shape[-1]
    lower, source = np.zeros((whole, whole)), np.zeros((whole, columns * (steps if every else 1)))
    for t in range(steps):
        rows = slice(t * size, (t + 1) * size)
        g[rows, rows] = np.eye(size)
        if t:
            lower[rows, (t - 1) * size : t * size] = a[min(t, len(a) - 1)]
            g[rows, : t * size] = a[min(t, len(a) - 1)] @ g[(t - 1) * size : t * size, : t * size]
        if every or t == 0:
            source[rows, t * columns : (t + 1) * columns] = b[min(t, len(b) - 1)]
    if not np.isfinite(g).all():
        return math.inf
    off_a, off_b = (_greatest_radius(grid) for grid in (recurrence.across, [[ball] for ball in entering]))
    residual = np.linalg.norm(np.eye(whole) - (g - lower @ g))
    g_size, b_size = float(np.linalg.norm(g)), float(np.linalg.norm(source))
    unit = 4.0 * (whole + 8) * UNIT
    off = float(residual) + unit * (1.0 + float(np.linalg.norm(lower))) * g_size + off_a * (norm_g := float(spectral_norm(g)))
    if off >= 1.0 or not math.isfinite(off_b):
        return math.inf
    shown = _selected(outputs, size, len(entering), steps)
    made = g[shown] @ source
    doubled = math.sqrt(2.0) if outputs.sequence and outputs.state else 1.0
    bound_b = float(np.max(spectral_norm(b))) + off_b
    inverse = doubled * norm_g / (1.0 - off) * (1.0 + 16.0 * EPSILON)
    through = float(residual) + unit * (1.0 + float(np.linalg.norm(lower))) * g_size
    moved = off_a * (float(spectral_norm(g @ source)) + unit * g_size * b_size + norm_g * off_b)
    found = _norm(made) + unit * g_size * b_size + doubled * norm_g * off_b + inverse * (through * bound_b + moved)
    return float(found * (1.0 + 32.0 * EPSILON))


def _norm(matrix: Array) -> float:
    """By eigenvalues where they cost little: without the slack that a few Gram steps leave."""
    return singular_extremes(matrix)[1] if min(matrix.shape) <= DECOMPOSED else float(spectral_norm(matrix))


def _selected(outputs: Outputs, size: int, states: int, steps: int) -> list[int]:
    """The rows of all states that the outputs hold, some of them twice."""
    hidden, last = size // states, (steps - 1) * size
    rows = [t * size + k for t in range(steps) for k in range(hidden)] if outputs.sequence else []
    rows += [last + k for k in range(hidden)] if outputs.state else []
    return rows + ([last + size - hidden + k for k in range(hidden)] if outputs.memory else [])


def _greatest_radius(grid: Sequence[Sequence[MatrixBall]]) -> float:
    radii = np.stack([np.stack([ball.radius for ball in row], axis=-1) for row in grid], axis=-2)
    return float(np.max(spectral_norm(radii))) if np.isfinite(radii).all() else math.inf
