"""Recurrent layers: RNN, GRU and LSTM, differentiated through time by a Scan.

The operator itself stays as it is in the forward pass; its gradient is that of `recurrent_gradient.py` in each direction. ONNX
Runtime decides what the standard leaves open: clip cuts the gates' pre-activations (not the cell that an LSTM's last activation
reads), and a sample of length 0 has last states of 0, whatever its initial ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np

from vgcompile.interval import WHOLE, Interval, point, product
from vgcompile.ops import flops, recurrent_bounds
from vgcompile.ops.normalization import added, adjoints_of, known
from vgcompile.ops.op import Attributes, Body, Case, Op, Sample, Through, sample
from vgcompile.ops.recurrence import runs
from vgcompile.ops.recurrent_activation import Activation, activations, unsuited
from vgcompile.ops.recurrent_gradient import Parts, gru, lstm, rnn
from vgcompile.ops.recurrent_moments import ThroughTime
from vgcompile.ops.shape import shaped
from vgcompile.ops.standardizing import meeting_ranges

_BATCHED = (0, 5, 6)  # inputs with an axis of samples: X, initial_h, initial_c


def _directions(attributes: Attributes) -> int:
    return 2 if attributes["direction"] == "bidirectional" else 1


def _vjp(
    gradient: Callable[..., Parts], default: Sequence[str], op: Any, g: Any, y: Any, *inputs: Any, **attributes: Any
) -> tuple[Any, ...]:
    given = [*inputs, *(None,) * (8 - len(inputs))]
    found = [y[0] if isinstance(y, tuple) else y, *adjoints_of(g, 3)]
    if attributes["layout"]:  # the batch comes first
        given = [_moved(op, value) if position in _BATCHED else value for position, value in enumerate(given)]
        found = [*(_moved(op, value, (1, 2, 0, 3)) for value in found[:2]), *(_moved(op, value) for value in found[2:])]
    functions = activations(attributes, default, _directions(attributes))
    parts = [gradient(run, **attributes) for run in runs(op, given, found, functions, attributes)]
    dx, *states = added([part.x for part in parts]), *(_joined(op, [getattr(part, s) for part in parts]) for s in ("h", "c"))
    if attributes["layout"]:
        dx, *states = (_moved(op, value) for value in (dx, *states))
    dw, dr, db, dp = (_joined(op, [getattr(part, name) for part in parts]) for name in ("w", "r", "b", "p"))
    return (shaped(dx, inputs[0]), dw, dr, db, None, *states, dp)[: len(inputs)]


def _moved(op: Any, x: Any, perm: Sequence[int] = (1, 0, 2)) -> Any:
    return None if x is None else op.Transpose(x, perm=list(perm))


def _joined(op: Any, parts: Sequence[Any]) -> Any:
    """The directions' parts, along a new first axis."""
    if parts[0] is None:
        return None
    single = [op.Unsqueeze(part, [0]) for part in parts]
    return op.Concat(*single, axis=0) if single[1:] else single[0]


def _refuses(default: Sequence[str], case: Case) -> str:
    _, w, r = case.shapes[:3]
    if w is None or r is None or any(isinstance(dim, str) for dim in (w[1], *r[1:])):
        return "the extents of its weights are not known"
    return unsuited(case.attributes, default, _directions(case.attributes))


def _time_first(name: str, op: Any, *inputs: Any, **attributes: Any) -> tuple[Any, ...]:
    """Layout 1 by the operator in layout 0, which is all that ONNX Runtime has."""
    given = [_moved(op, value) if position in _BATCHED else value for position, value in enumerate(inputs)]
    y, *states = getattr(op, name)(*given, outputs=3 if name == "LSTM" else 2, **{**attributes, "layout": 0})
    return (_moved(op, y, (2, 0, 1, 3)), *(_moved(op, state) for state in states))


# ---- the rows

_RNN, _GRU, _LSTM = ("Tanh",), ("Sigmoid", "Tanh"), ("Sigmoid", "Tanh", "Tanh")
_AVERAGING = ("Sigmoid", "HardSigmoid")  # values in [0, 1]

Bound = Callable[..., Interval]  # (case, *activations of a direction) -> what the states of that direction lie in


def _range(name: str, default: Sequence[str], bound: Bound, case: Case) -> tuple[Interval, ...]:
    """Step by step, as far as the functions' own ranges do not say more."""
    whole = _range_of_functions(default, bound, case)
    try:
        found = recurrent_bounds.ranges(name, default, case)
    except NotImplementedError:
        return whole
    return tuple(meeting_ranges(a, b) for a, b in zip(found, whole, strict=False))


def _range_of_functions(default: Sequence[str], bound: Bound, case: Case) -> tuple[Interval, ...]:
    """Y and Y_h hold states, and zeros where a sample has ended; the cell has no bound."""
    states = WHOLE
    if not unsuited(case.attributes, default, _directions(case.attributes)):
        found = activations(case.attributes, default, _directions(case.attributes))
        ended = len(case.shapes) > 4 and case.shapes[4] is not None
        states = reduce(Interval.hull, [*(bound(case, *functions) for functions in found), *[point(0.0)] * ended])
    return (states, states, WHOLE)[: len(case.outputs)]


def _average(case: Case, f: Activation, g: Activation) -> Interval:
    """Old and new states are averaged where the gate lies in [0, 1]."""
    return g.range.hull(known(case, 5).scalar()) if f.row.name in _AVERAGING else WHOLE


def _through(attributes: Attributes) -> Through:
    """Time, then samples, or the other way round; the initial states have directions in the place of time."""
    time = 1 if attributes["layout"] else 0
    return Through(time, attributes["direction"] == "reverse", dict.fromkeys((0, 5, 6), 1 - time) | {4: 0})


def _lengths(case: Case) -> dict[int, int]:
    """A sequence has 0 to T steps."""
    x = case.shapes[0]
    steps = x[1 if case.attributes["layout"] else 0] if x else None
    return {4: steps + 1} if isinstance(steps, int) else {}


def _row(
    name: str,
    doc: str,
    gradient: Callable[..., Parts],
    default: Sequence[str],
    bound: Bound,
    *,
    gates: int,
    work: flops.Flops,
    samples: tuple[Sample, ...],
) -> Op:
    return Op(
        name,
        doc,
        vjp=partial(_vjp, gradient, default),
        range=partial(_range, name, default, bound),
        norms=partial(recurrent_bounds.norms, name, default),
        refuses=partial(_refuses, default),
        moments=ThroughTime(gates, tuple(default)),
        saved=(0,),
        bodies=(Body("time first", partial(_time_first, name)),),
        opens=lambda attributes: bool(attributes["layout"]),
        through=_through,
        classes=_lengths,
        flops=work,
        samples=samples,
    )


_LENGTHS = np.array([3, 1, 0], np.int32)


RNN = _row(
    "RNN",
    "h = f(W x + R h + b), step by step.",
    rnn,
    _RNN,
    lambda case, f: f.range,
    gates=1,
    work=flops.recurrent(gates=1, pointwise=1),
    samples=(
        sample(("T", "N", 2), (1, 3, 2), (1, 3, 3), (1, 6), hidden_size=3),
        sample(
            ("T", 2, 2),
            (2, 3, 2),
            (2, 3, 3),
            None,
            None,
            (2, 2, 3),
            hidden_size=3,
            direction="bidirectional",
            outputs=2,
            activations=["Softsign", "Affine"],
            activation_alpha=[0.5],
            activation_beta=[0.25],
        ),
        sample(
            (3, 3, 2), (1, 2, 2), (1, 2, 2), (1, 4), _LENGTHS, (1, 3, 2), hidden_size=2, direction="reverse", outputs=2, clip=0.8
        ),
        sample(
            ("N", 3, 2),
            (1, 2, 2),
            (1, 2, 2),
            hidden_size=2,
            layout=1,
            outputs=2,
            activations=["ScaledTanh"],
            activation_alpha=[1.5],
            activation_beta=[0.5],
        ),
    ),
)

GRU = _row(
    "GRU",
    "An update gate averages the old state and a new one, of which a reset gate decides how much it reads of the old.",
    gru,
    _GRU,
    _average,
    gates=3,
    work=flops.recurrent(gates=3, pointwise=8),
    samples=(
        sample(("T", "N", 2), (1, 9, 2), (1, 9, 3), (1, 18), hidden_size=3),
        sample(("T", "N", 2), (1, 9, 2), (1, 9, 3), (1, 18), None, (1, "N", 3), hidden_size=3, linear_before_reset=1, outputs=2),
        sample((2, 2, 2), (2, 6, 2), (2, 6, 2), hidden_size=2, direction="bidirectional", linear_before_reset=1),
        sample(
            (3, 3, 2),
            (2, 6, 2),
            (2, 6, 2),
            (2, 12),
            _LENGTHS,
            (2, 3, 2),
            hidden_size=2,
            direction="bidirectional",
            outputs=2,
            clip=0.8,
            activations=["HardSigmoid", "Elu", "Sigmoid", "LeakyRelu"],
            activation_alpha=[0.3, 0.7, 0.1],
            activation_beta=[0.4],
        ),
        sample((3, 3, 2), (1, 6, 2), (1, 6, 2), (1, 12), _LENGTHS, hidden_size=2, linear_before_reset=1, outputs=2),
        sample((2, 1, 2), (1, 6, 2), (1, 6, 2), hidden_size=2),
    ),
)

LSTM = _row(
    "LSTM",
    "Gates decide what a cell forgets, takes in and gives out.",
    lstm,
    _LSTM,
    lambda case, f, g, last: product(f.range, last.range),
    gates=4,
    work=flops.recurrent(gates=4, pointwise=9),
    samples=(
        sample(("T", "N", 2), (1, 12, 2), (1, 12, 3), (1, 24), hidden_size=3),
        sample(
            ("T", 2, 2),
            (1, 8, 2),
            (1, 8, 2),
            None,
            None,
            (1, 2, 2),
            (1, 2, 2),
            (1, 6),
            hidden_size=2,
            direction="reverse",
            outputs=3,
        ),
        sample(
            (3, 3, 2),
            (2, 8, 2),
            (2, 8, 2),
            (2, 16),
            _LENGTHS,
            (2, 3, 2),
            (2, 3, 2),
            (2, 6),
            hidden_size=2,
            direction="bidirectional",
            outputs=3,
        ),
        sample((3, 3, 2), (1, 8, 2), (1, 8, 2), (1, 16), _LENGTHS, hidden_size=2, input_forget=1, clip=0.8, outputs=3),
        sample(
            ("N", 2, 2),
            (1, 8, 2),
            (1, 8, 2),
            None,
            None,
            ("N", 1, 2),
            ("N", 1, 2),
            (1, 6),
            hidden_size=2,
            layout=1,
            input_forget=1,
            outputs=3,
        ),
    ),
)

ROWS = (RNN, GRU, LSTM)
