"""Mean-field moments of matrix products: with a parameter, and of two values that both depend on the data.

Two products of data make attention, one whose entries are of two positions (a table, vgcompile/signal.py) and one whose left
factor is such a table:

    s_ij = sum_f q_if k_jf      E[s s'] = K E[q q'] E[k k'], one factor each for whether i = i' and whether j = j'
    y_if = sum_j p_ij v_jf      E[y y'] = K E[p p'] E[v^2] + K (K - 1) E[p p''] E[v v'], p' of the same column and p'' of another
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vgcompile.ops.moments import multiple, signal_of
from vgcompile.ops.op import Case, Tabular
from vgcompile.ops.shape import summed
from vgcompile.signal import Signal, Table, independent_sum, replace

MIXED = "two factors that both depend on the data are taken to be independent"


def drawn_once(signal: Signal) -> bool:
    """A parameter: the same in each sample and at each position."""
    return signal.across >= signal.square * (1.0 - 1e-12) and signal.within >= signal.square * (1.0 - 1e-12)


@dataclass(frozen=True)
class Product(Tabular):
    """Mean-field moments of y = A B with K terms a sum (Poole et al. 2016; Schoenholz et al. 2017).

    E[y y'] = K E[a a'] E[b b'] + K (K - 1) m, m the mean of a product of different terms: E[a]^2 E[b]^2, except that an
    activation on the right contracts its positions (attention's probabilities times values), whose correlation is `within`.
    """

    def forward(self, case: Case, signals: Sequence[Signal | None]) -> Signal:
        product = self._product(case, signal_of(signals, 0), signal_of(signals, 1))
        product = multiple(float(case.attributes.get("alpha", 1.0)), product)
        if len(case.shapes) < 3 or case.shapes[2] is None:
            return product
        return independent_sum(product, multiple(float(case.attributes["beta"]), signal_of(signals, 2)))

    def _product(self, case: Case, a: Signal, b: Signal) -> Signal:
        k, mixed = _terms(case), not (drawn_once(a) or drawn_once(b))
        if a.table is not None and mixed and b.table is None:
            return _weighed(k, a, a.table, b)
        if any(signal.table is not None and signal.table.open is not None for signal in (a, b)):
            raise NotImplementedError("a product with minus infinity")
        cross = k * (k - 1) * a.mean**2 * (b.within if mixed else b.mean**2)
        square, row, column, neither = (
            k * x * y + cross for x, y in ((a.square, b.square), (a.square, b.within), (a.within, b.square), (a.within, b.within))
        )
        tokens = mixed and min(len(dims or ()) for dims in case.shapes[:2]) > 2
        return Signal(
            mean=k * a.mean * b.mean,
            square=square,
            within=neither,
            across=k * a.across * b.across + cross,
            alignment=max(a.alignment, b.alignment),
            table=Table(row, column) if tokens else None,
            doubt=a.doubt or b.doubt or (MIXED if mixed else ""),
        )

    def backward(self, case: Case, position: int, adjoint: Signal, signals: Sequence[Signal | None]) -> Signal:
        if position == 2:
            beta = float(case.attributes["beta"])
            bias = case.shapes[2] or ()
            if len(bias) == 2 and bias[0] != 1:  # one for each row: at most summed over features, which are independent
                return adjoint.scaled(beta**2 * case.count(case.outputs[0]) / max(case.count(bias), 1))
            return _shared(case, 2, adjoint, Signal(1.0, 1.0, 1.0, 1.0)).scaled(beta**2)
        mine, other = signals[position], signal_of(signals, 1 - position)
        scale = float(case.attributes.get("alpha", 1.0)) ** 2
        if mine is not None and drawn_once(mine) and not drawn_once(other):
            return _shared(case, position, adjoint, other).scaled(scale)
        terms = max(case.count(case.outputs[0]) * _terms(case) // max(case.count(case.shapes[position]), 1), 1)
        if drawn_once(other):
            return replace(
                adjoint,
                mean=0.0,
                square=scale * terms * adjoint.square * other.square,
                within=scale * terms * adjoint.within * other.within,
                across=scale * terms * adjoint.across * other.across,
                table=None,
            )
        a, b = signals[0], signals[1]
        if a is not None and b is not None and a.table is not None and b.table is None:
            return _of_weights(case, position, adjoint, a, b, terms).scaled(scale)
        if adjoint.table is not None:
            return _of_scores(case, position, adjoint, adjoint.table, other, terms).scaled(scale)
        return _unshared(adjoint, other, terms, position).scaled(scale)


def _terms(case: Case) -> int:
    dims = case.shapes[0]
    assert dims
    return case.count(dims[-2:-1] if case.attributes.get("transA", 0) else dims[-1:])


def _shared(case: Case, position: int, adjoint: Signal, other: Signal) -> Signal:
    """Each element of a parameter serves every row of the batch, or, for a bias, every element it is broadcast to."""
    out, own = case.count(case.outputs[0]), max(case.count(case.shapes[position]), 1)
    rows = max((out if position == 2 else out * _terms(case)) // own, 1)
    return (
        summed(adjoint, other, case.batch, max(rows // case.batch, 1)) if rows >= case.batch else summed(adjoint, other, 1, rows)
    )


def _unshared(adjoint: Signal, other: Signal, terms: int, position: int) -> Signal:
    """Both factors are activations: the right one's adjoint sums over the positions of the left one."""
    cross = terms * (terms - 1) * adjoint.within * other.within if position == 1 else 0.0
    return replace(
        adjoint,
        mean=0.0,
        square=terms * adjoint.square * other.square + cross,
        within=terms * adjoint.within * other.within + cross,
        across=terms * adjoint.across * other.across + (terms * (terms - 1) * adjoint.across * other.across if cross else 0.0),
        doubt=adjoint.doubt or MIXED,
    )


def _weighed(k: int, p: Signal, table: Table, v: Signal) -> Signal:
    """A table times values: of each row a sum over its columns, whose values share ``within``."""
    if table.open is not None:
        raise NotImplementedError("a product with minus infinity")
    pairs = k * (k - 1)
    return replace(
        v,
        mean=k * p.mean * v.mean,
        square=k * p.square * v.square + pairs * table.row * v.within,
        within=k * table.column * v.square + pairs * p.within * v.within,
        across=(k * p.mean) ** 2 * v.across,
        doubt=p.doubt or v.doubt,
    )


def _of_weights(case: Case, position: int, g: Signal, p: Signal, v: Signal, terms: int) -> Signal:
    """dP = g V^T, a table again, or dV = P^T g."""
    assert p.table is not None
    g = replace(g, mean=0.0, along=(), table=None, doubt=g.doubt or p.doubt)
    if position == 0:
        table = Table(terms * g.square * v.within, terms * g.within * v.square, None, v.alignment, _terms(case) - 1.0)
        square, within, across = terms * g.square * v.square, terms * g.within * v.within, terms * g.across * v.across
        return replace(g, square=square, within=within, across=across, table=table)
    rows = _rows(case)
    pairs, copies = rows * (rows - 1), terms / rows
    return replace(
        g,
        square=copies * (rows * p.square * g.square + pairs * p.table.column * g.within),
        within=copies * (rows * p.table.row * g.square + pairs * p.within * g.within),
        across=copies * rows * p.mean**2 * g.across * (1.0 + (rows - 1) * g.coherence),
    )


def _of_scores(case: Case, position: int, g: Signal, table: Table, other: Signal, terms: int) -> Signal:
    """dQ = dS K or dK = dS^T Q, where rows of dS may sum to 0.

    What made the columns (values) may be read from the same positions as keys are: where both point the same ways, the sum over
    columns adds up.
    """
    if position == 0:
        met = table.others * min(table.aligned, other.alignment) * max(other.square - other.within, 0.0)
        pairs = terms * (terms - 1) * other.within
        square, within = (
            terms * x * (other.square + met) + pairs * y for x, y in ((g.square, table.row), (table.column, g.within))
        )
    else:
        rows = _rows(case)
        copies, pairs = terms / rows, rows * (rows - 1) * other.within
        square, within = (
            copies * (rows * x * other.square + pairs * y) for x, y in ((g.square, table.column), (table.row, g.within))
        )
    return replace(g, mean=0.0, square=max(square, 0.0), within=within, across=0.0, along=(), table=None)


def _rows(case: Case) -> int:
    """Of the left factor."""
    return case.count((case.shapes[0] or ())[-2:-1])
