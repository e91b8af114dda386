"""One direction of a recurrent operator, read backward in time: what the gradients of RNN, GRU and LSTM share.

The step from state h' back to the state before it is linear in the adjoints, and its factors (slopes and gates of all steps) are
known beforehand: from the operator's output Y, every gate of every step is had again by one matrix product over time and batch.
A Scan against the operator's direction then carries the adjoint of the state alone and gives out that of the gates'
pre-activations, and the weights' gradients are one matrix product each behind it.

A sample that is shorter than the sequence keeps its state beyond its end: there its factors are 0, and what would be its gate
adjoints is 0, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import TensorProto

from vgcompile.ops.op import Attributes, Dim
from vgcompile.ops.recurrent_activation import Activation
from vgcompile.ops.shape import extents, shaped

END = np.iinfo(np.int64).max

Step = Callable[..., tuple[Sequence[Any], Sequence[Any]]]  # (op, *states, *slices) -> states, what is kept of each step


@dataclass(frozen=True)
class Run:
    """One direction: T steps, B samples, I inputs, H hidden units, G gates. ``gy``, ``gh``, ``gc``: adjoints of y and of the last
    states. ``valid`` says which steps are within a sample's sequence (None: all); x and the adjoints are 0 where it does not
    hold."""

    op: Any
    hidden: int
    reverse: bool
    activations: tuple[Activation, ...]
    x: Any  # [T, B, I]
    w: Any  # [G H, I]
    r: Any  # [G H, H]
    b: Any  # [2 G H]: of the inputs, of the states; or None
    valid: Any  # [T, B, 1] or None
    h: Any  # [1, B, H] or None, the initial state
    c: Any  # [B, H] or None, the initial cell
    p: Any  # [3 H] or None
    y: Any  # [T, B, H]
    gy: Any
    gh: Any
    gc: Any

    @property
    def bias(self) -> Any:
        """[G H], or None."""
        if self.b is None:
            return None
        of_inputs, of_states = self.op.Split(self.b, axis=0, num_outputs=2, outputs=2)
        return of_inputs + of_states

    def or_zeros(self, state: Any) -> Any:
        """A state [B, H], zeros where it is not given."""
        if state is not None:
            return state
        dims = extents(self.y)[1:]
        static = all(isinstance(dim, int) for dim in dims)
        return typed(self.op.Expand(0.0, list(dims) if static else self.op.Shape(self.y, start=1)), dims)

    def blocks(self, x: Any, *counts: int) -> tuple[Any, ...]:
        """``x`` cut along its last axis into this many gates each."""
        sizes = [count * self.hidden for count in counts]
        return tuple(self.op.Split(x, sizes, axis=-1, outputs=len(counts)))

    def weighted(self, *terms: tuple[Any, Any], bias: Any = None) -> Any:
        """The sum of x w^T over the terms (x [T, B, n], w [m, n]), plus the bias: [T, B, m], one product over all steps."""
        total = bias
        for x, w in terms:
            total = self.op.Gemm(rows(self.op, x), w, total, transB=1)
        dims: tuple[Dim, ...] = (*extents(self.x)[:2], extents(total)[1])
        if all(isinstance(dim, str) for dim in dims[:2]):
            shape = self.op.Concat(self.op.Shape(self.x, end=2), [-1], axis=0)
        else:
            shape = [-1 if isinstance(dim, str) else dim for dim in dims]
        return typed(self.op.Reshape(total, shape), dims)

    def before(self, states: Any) -> Any:
        """The state that each step starts from: ``states`` [T, B, H] moved on by one step, the initial h in front."""
        op = self.op
        if self.h is None:
            return shaped(op.Pad(states, [-1, 0, 0, 1, 0, 0] if self.reverse else [1, 0, 0, -1, 0, 0]), states)
        if not self.reverse:
            return shaped(op.Concat(self.h, op.Slice(states, [0], [-1], [0]), axis=0), states)
        if self.valid is not None:  # a sample starts at its own end
            states = shaped(op.Where(self.valid, states, self.h), states)
        return shaped(op.Concat(op.Slice(states, [1], [END], [0]), self.h, axis=0), states)

    def after(self, states: Any, end: Any) -> Any:
        """The state that each step ends with, given those that it starts from and the last one."""
        op, last = self.op, self.op.Unsqueeze(end, [0])
        if self.reverse:
            return shaped(op.Concat(last, op.Slice(states, [0], [-1], [0]), axis=0), states)
        return shaped(op.Concat(op.Slice(states, [1], [END], [0]), last, axis=0), states)

    def within(self, factor: Any, beyond: float = 0.0) -> Any:
        """A factor of each step, ``beyond`` where a sample has ended."""
        return factor if self.valid is None else self.op.Where(self.valid, factor, beyond)

    def scan(self, step: Step, states: Sequence[Any], slices: Sequence[Any], *, kept: int, back: bool) -> tuple[Any, ...]:
        """Run ``step`` along this direction or ``back`` along it: the last states, and ``kept`` values of every step.

        What is no tensor among ``slices`` (None, a plain number) is handed to each step as it is.
        """
        sequences = [value for value in slices if isinstance(value, ir.Value)]
        kinds = [(v.dtype, extents(v)) for v in states] + [(v.dtype, extents(v)[1:]) for v in sequences]
        with self.op.body(*kinds, name="step") as (inner, values):
            given = iter(values[len(states) :])
            handed = [next(given) if isinstance(value, ir.Value) else value for value in slices]
            after, out = step(inner, *values[: len(states)], *handed)
            # What a body hands through gets a node of its own.
            inner.graph.outputs.extend(inner.Identity(v) if v in values else v for v in (*after, *out))
        against = int(self.reverse != back)
        return tuple(
            self.op.Scan(
                *states,
                *sequences,
                body=inner.graph,
                num_scan_inputs=len(sequences),
                scan_input_directions=[against] * len(sequences),
                scan_output_directions=[against] * kept,
                outputs=len(states) + kept,
            )
        )


def runs(
    op: Any, given: Sequence[Any], found: Sequence[Any], functions: Sequence[tuple[Activation, ...]], attributes: Attributes
) -> list[Run]:
    """The directions of a node, of its inputs and of Y and the adjoints of Y, Y_h and Y_c, all with time first."""
    x, w, r, b, lengths, h, c, p = given
    y, gy, gh, gc = found
    valid = None
    if lengths is not None:
        valid = _valid(op, x, lengths)
        x = shaped(op.Where(valid, x, 0.0), x)
        some = op.Unsqueeze(op.Greater(lengths, np.zeros((), np.int32)), [1])
        gh, gc = (None if v is None else shaped(op.Where(some, v, 0.0), v) for v in (gh, gc))
    directions, count = [], len(functions)
    for d in range(count):

        def of(value: Any, axis: int = 0, d: int = d) -> Any:
            if value is None:
                return None
            return op.Squeeze(value, [axis]) if count == 1 else op.Gather(value, d, axis=axis)

        adjoint = of(gy, 1)
        directions.append(
            Run(
                op,
                hidden=int(extents(r)[2]),
                reverse=attributes["direction"] == "reverse" or d == 1,
                activations=functions[d],
                x=x,
                w=of(w),
                r=of(r),
                b=of(b),
                p=of(p),
                h=h if h is None or count == 1 else op.Gather(h, [d], axis=0),
                c=of(c),
                valid=valid,
                y=of(y, 1),
                gy=adjoint if valid is None or gy is None else op.Where(valid, adjoint, 0.0),
                gh=of(gh),
                gc=of(gc),
            )
        )
    return directions


def _valid(op: Any, x: Any, lengths: Any) -> Any:
    """[T, B, 1]: whether a step is within its sample's sequence."""
    times, batch = extents(x)[:2]
    if isinstance(times, int):
        steps: Any = np.arange(times, dtype=np.int32).reshape(times, 1, 1)
    else:
        steps = op.Range(0, op.Squeeze(op.Shape(x, end=1)), 1)
        steps = op.Cast(op.Unsqueeze(steps, [1, 2]), to=TensorProto.INT32)
    return typed(op.Less(steps, op.Unsqueeze(lengths, [1])), (times, batch, 1))


def held(op: Any, valid: Any, value: Any, otherwise: Any) -> Any:
    """What a step makes of a state or of its adjoint: ``otherwise``, as it came, beyond a sample's end."""
    return value if valid is None else op.Where(valid, value, otherwise)


def rows(op: Any, x: Any) -> Any:
    """[T, B, n] as the matrix [T B, n]."""
    return op.Flatten(x, axis=2)


def weight_gradient(op: Any, d: Any, x: Any) -> Any:
    """Over all steps, d^T x: the gradient of w, [m, n], given the adjoint of x w^T."""
    return op.Gemm(rows(op, d), rows(op, x), transA=1)


def over_steps(op: Any, d: Any) -> Any:
    """[T, B, n] summed over all steps of all samples: the gradient of what each of them adds."""
    return op.ReduceSum(d, [0, 1], keepdims=0)


def typed(value: Any, dims: Sequence[Dim]) -> Any:
    value.shape = ir.Shape(dims)
    return value
