"""Families of operators: what the members of one share is said here, once, by composition.

    elementwise      one input, a derivative, monotone pieces
    piecewise        elementwise, with a slope that jumps at a condition: the adjoint goes through Where, for 0 * inf is NaN
    broadcasting     several inputs, elementwise, monotone in each input taken alone
    layout           moves elements, changes none: singular values 1, statistics kept
    blocked          nothing flows
    uncovered        a gradient would flow, and there is no rule for it

A row states its own facts and the family derives the others from them; what a row says itself goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgcompile.interval import WHOLE, Interval, corners, image
from vgcompile.ops import flops
from vgcompile.ops.maps import rearranged
from vgcompile.ops.moments import Weighted, signal_of
from vgcompile.ops.op import Array, Case, Op, Rule, Sample, Tabular, Tangent, Variadic, at, sample
from vgcompile.signal import Signal, Table, replace

Positions = Callable[..., Sequence[float]] | Sequence[float]

UNARY = (sample(("N", 5)), sample((2, 3, 4), domain=(-6.0, 6.0)), sample(()))


def elementwise(
    name: str,
    doc: str,
    *,
    numpy: Rule,
    derivative: Rule,
    kinks: Positions = (),
    turns: Positions = (),
    extrema: Positions = (),
    defined: tuple[float, float] = (-np.inf, np.inf),
    samples: tuple[Sample, ...] = UNARY,
    vjp: Rule | None = None,
    **facts: Any,
) -> Op:
    """A function of one number. ``derivative(op, x, y, **attributes)`` is its slope; between neighbouring ``kinks`` and
    ``turns`` the slope is monotone, between neighbouring ``kinks`` and ``extrema`` the value is, on the interval where it is
    ``defined``."""

    def multiply(op: Any, g: Any, y: Any, x: Any, **attributes: Any) -> tuple[Any, ...]:
        return (_times(op, g, derivative(op, x, y, **attributes)),)

    def value_range(case: Case) -> Interval:
        where = at(kinks, case.attributes) + at(extrema, case.attributes)
        return image(lambda x: numpy(x, **case.attributes), case.ranges[0] or WHOLE, where, defined)

    return Op(
        name,
        doc,
        vjp=vjp or multiply,
        derivatives=(derivative,),
        numpy=numpy,
        kinks=kinks,
        turns=turns,
        extrema=extrema,
        defined=defined,
        samples=samples,
        **{"range": value_range, **facts},
    )


def piecewise(
    name: str,
    doc: str,
    *,
    numpy: Rule,
    condition: Rule,
    then: Rule,
    otherwise: Rule,
    kinks: Positions,
    turns: Positions = (),
    extrema: Positions = (),
    jumps: bool = False,
    samples: tuple[Sample, ...] = UNARY,
    **facts: Any,
) -> Op:
    """An elementwise operator whose slope is ``then`` where ``condition`` holds and ``otherwise`` elsewhere; each is a rule
    ``(op, x, y, **attributes)``, and a plain 0.0 or 1.0 costs no node."""

    def derivative(op: Any, x: Any, y: Any, **attributes: Any) -> Any:
        return op.Where(condition(op, x, y, **attributes), then(op, x, y, **attributes), otherwise(op, x, y, **attributes))

    def vjp(op: Any, g: Any, y: Any, x: Any, **attributes: Any) -> tuple[Any, ...]:
        through = [_times(op, g, slope(op, x, y, **attributes)) for slope in (then, otherwise)]
        return (op.Where(condition(op, x, y, **attributes), *through),)

    return elementwise(
        name,
        doc,
        numpy=numpy,
        derivative=derivative,
        kinks=kinks,
        turns=turns,
        extrema=extrema,
        samples=samples,
        vjp=vjp,
        jumps=jumps,
        **facts,
    )


def _times(op: Any, g: Any, slope: Any) -> Any:
    """``g * slope``, without a product where the slope is the number 0, 1 or -1."""
    if not isinstance(slope, float) or slope not in (0.0, 1.0, -1.0):
        return g * slope
    return g if slope == 1.0 else op.Neg(g) if slope == -1.0 else 0.0


def broadcasting(
    name: str,
    doc: str,
    *,
    numpy: Rule,
    derivatives: tuple[Rule | None, ...] | Variadic,
    samples: tuple[Sample, ...],
    linear: bool = False,
    vjp: Rule | None = None,
    **facts: Any,
) -> Op:
    """A function of several numbers, each with its partial derivative ``(op, *x, y, **attributes)`` (``None``: nothing flows).

    Value and derivatives are monotone in each operand taken alone, unless ``range`` and ``slope`` say better. ``linear``: a
    sum of its operands with fixed weights, its constant derivatives.
    """

    def multiply(op: Any, g: Any, y: Any, *x: Any, **attributes: Any) -> tuple[Any, ...]:
        rules = (derivatives[i] for i in range(len(x)))
        return tuple(None if rule is None else _times(op, g, rule(op, *x, y, **attributes)) for rule in rules)

    def value_range(case: Case) -> Interval:
        return corners(lambda *x: numpy(*x, **case.attributes), [r or WHOLE for r in case.ranges])

    return Op(
        name,
        doc,
        vjp=vjp or multiply,
        derivatives=derivatives,
        numpy=numpy,
        linear=linear,
        samples=samples,
        **{"range": value_range, "moments": Weighted(derivatives) if linear else None, **facts},
    )


@dataclass(frozen=True)
class Carried(Tabular):
    """Moments of an operator that only moves elements: what it moves keeps its statistics. Rows and columns are still told apart
    where the last two axes stay."""

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        return self._moved(case, signal_of(signals, 0))

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        return self._moved(case, adjoint)

    def _moved(self, case: Case, x: Signal) -> Signal:
        if x.table is None:
            return x
        table = self.table(case, x.table)
        if table is None and x.table.open is not None:
            raise NotImplementedError("where minus infinity has been moved to")
        return replace(x, table=table)

    def table(self, case: Case, table: Table) -> Table | None:
        """What becomes of rows and columns."""
        before, after = case.shapes[0] or (), case.outputs[0] or ()
        return table if before[-2:] == after[-2:] else None


def isometry(case: Case, position: int) -> tuple[float, float]:
    """Each adjoint element arrives exactly once, beside zeros at most: ||J^T g|| = ||g||."""
    return (1.0, 1.0)


def layout(name: str, doc: str, *, vjp: Rule, samples: tuple[Sample, ...], numpy: Rule | None = None, **facts: Any) -> Op:
    """An operator that rearranges its first input. Its range follows ``numpy`` where the arrangement is known, else the hull."""

    def value_range(case: Case) -> Interval:
        given = case.ranges[0] or WHOLE
        if numpy is None or given.lo.ndim == 0:
            return given.scalar()
        try:
            return given.map(lambda x: numpy(spread(x, case.shapes[0]), *case.values[1:], **case.attributes))
        except (ValueError, TypeError, IndexError):
            return given.scalar()

    def tangent(case: Case, position: int) -> Tangent | None:
        if numpy is None or position:
            return None
        return rearranged(case, 0, lambda x: numpy(x, *case.values[1:], **case.attributes))

    return Op(
        name,
        doc,
        vjp=vjp,
        numpy=numpy,
        samples=samples,
        **{"range": value_range, "tangent": tangent, "norms": isometry, "moments": Carried(), "flops": flops.none, **facts},
    )


def spread(x: Array, shape: tuple[int | str, ...] | None) -> Array:
    """Broadcast a bound to its value's shape, a symbolic extent read as 1: the bound holds for each sample alike."""
    assert shape is not None
    return np.broadcast_to(x, [1 if isinstance(dim, str) else dim for dim in shape])


def blocked(name: str, doc: str, why: str, *, samples: tuple[Sample, ...] = (), numpy: Rule | None = None, **facts: Any) -> Op:
    """An operator through which nothing flows: a count, a comparison, an index, a step."""
    return Op(name, doc, blocked=why, numpy=numpy, samples=samples, **{"flops": flops.none, **facts})


def uncovered(name: str, doc: str, why: str, **facts: Any) -> Op:
    """An operator through which a gradient would flow, refused by name: a model may hold it where no gradient is asked for."""
    return Op(name, doc, uncovered=why, **facts)
