"""Tensor algebra beyond the matrix product: sums over index letters, determinants, running products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_letters
from typing import Any

import numpy as np

from vgcompile.ops.op import Array, Op, sample
from vgcompile.ops.shape import constant, extents, full_shape, shaped

# ------------------------------------------------------------------------------------------------------------------ Einsum


@dataclass(frozen=True)
class Letters:
    """An equation with a letter for every axis of every operand: an ellipsis spelled out, an implicit output stated."""

    operands: tuple[str, ...]
    output: str


def letters(equation: str, ranks: Sequence[int]) -> Letters:
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:  # every letter that stands once, in alphabetical order, behind the ellipsis
        named = left.replace("...", "").replace(",", "")
        output = ("..." if "..." in left else "") + "".join(sorted(c for c in named if named.count(c) == 1))
    widths = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    spare = "".join(c for c in ascii_letters if c not in equation)[: max(widths)]
    spelled = [term.replace("...", spare[len(spare) - width :]) for term, width in zip(terms, widths, strict=True)]
    return Letters(tuple(spelled), output.replace("...", spare))


def _einsum_vjp(op: Any, g: Any, y: Any, *x: Any, equation: str) -> tuple[Any, ...]:
    spelled = letters(equation, [len(value.shape) for value in x])
    return tuple(_operand_adjoint(op, g, x, spelled, position) for position in range(len(x)))


def _operand_adjoint(op: Any, g: Any, x: Sequence[Any], spelled: Letters, position: int) -> Any:
    """The adjoint times the other operands, summed to the operand's letters.

    A letter that only it has was summed away, and stays narrow here; along one of extent 1 it was broadcast; one that it repeats
    takes a diagonal, and the adjoint lies on it.
    """
    mine, dims = spelled.operands[position], extents(x[position])
    others = [(value, term) for i, (value, term) in enumerate(zip(x, spelled.operands, strict=True)) if i != position]
    met = set(spelled.output).union(*(term for _, term in others))
    alone = [i for i, letter in enumerate(mine) if letter not in met or letter in mine[:i] or dims[i] == 1]
    kept = "".join(letter for i, letter in enumerate(mine) if i not in alone)
    if others or kept != spelled.output:
        left = ",".join([spelled.output, *(term for _, term in others)])
        g = op.Einsum(g, *(value for value, _ in others), equation=f"{left}->{kept}")
        there = [_extent(x, spelled, letter, dims[mine.index(letter)], position) for letter in kept]
        g.shape = type(x[0].shape)([f"{g.name}.{i}" if dim is None else dim for i, dim in enumerate(there)])
    if alone:
        g = op.Unsqueeze(g, alone)
    for i, letter in enumerate(mine):
        if letter in mine[:i]:
            held = [dims[axis] if term == letter else dim for axis, (term, dim) in enumerate(zip(mine, extents(g), strict=True))]
            g = op.Where(_diagonal(op, x[position], mine.index(letter), i), g, 0.0)
            g.shape = type(x[position].shape)(held)
    return g


def _extent(x: Sequence[Any], spelled: Letters, letter: str, mine: Any, position: int) -> Any:
    """The extent that an adjoint has along a letter before it is fitted to its operand; None where only a run can tell.

    Inference does not see that an extent of 1 meets a larger one.
    """
    terms = [(value, term) for i, (value, term) in enumerate(zip(x, spelled.operands, strict=True)) if i != position]
    met = {dim for value, term in terms for held, dim in zip(term, extents(value), strict=True) if held == letter}
    if letter in spelled.output or mine in met:
        return mine if met <= {1, mine} else None
    return 1 if met == {1} else None


def _diagonal(op: Any, x: Any, first: int, second: int) -> Any:
    """Where two axes of x have the same index, in a shape that broadcasts over the others."""
    rank, extent = len(x.shape), extents(x)[first]
    if isinstance(extent, int):
        ones = [extent if axis in (first, second) else 1 for axis in range(rank)]
        return np.eye(extent, dtype=bool).reshape(ones)
    index = op.Range(0, op.Squeeze(op.Shape(x, start=first, end=first + 1), [0]), 1)
    behind = [op.Reshape(index, [-1] + [1] * (rank - 1 - axis)) for axis in (first, second)]
    return op.Equal(*behind)


Einsum = Op(
    "Einsum",
    "Products of operands summed over index letters, as an equation says.",
    unpredicted="its letters are not read as features, samples or positions",
    vjp=_einsum_vjp,
    numpy=lambda *x, equation: np.einsum(equation, *x),
    samples=(
        sample(("N", 2, 3), ("N", 3, 4), equation="bij, bjk -> bik"),
        sample(("N", 3), ("N", 3), equation="...i,...i"),
        sample((2, "N", 3), (3, 4), equation="...ij,jk->...ik"),
        sample(("N", 1, 2), (4, 2), equation="a...c,...c->...a"),
        sample(("N", "N"), equation="ii->i"),
        sample((3, 3), (3,), equation="ii,j->"),
        sample((3, 2, 3), (3,), equation="iji,i->j"),
        sample(("N", 3), equation="ij->i"),
        sample(("N", 3), equation="ji"),
        sample(("N", 2), (2, 3), ("N", 3), equation="ni,ij,nj->n"),
        sample((), (2, "N"), equation=",ij->ji"),
        sample((1, 3), ("N", 3), equation="ij,ij->j"),
    ),
)

# --------------------------------------------------------------------------------------------------------------------- Det


def _det_vjp(op: Any, g: Any, y: Any, x: Any) -> tuple[Any, ...]:
    """The cofactors: for each element the determinant of the matrix without its row and column, with a sign."""
    rank = len(x.shape)
    g = op.Unsqueeze(g, [-2, -1])
    if extents(x)[-1] == 1:
        return (shaped(g, x),)
    others, signs = _others(op, x)
    without_rows = op.Gather(x, others, axis=rank - 2)  # [..., n, n - 1, n]
    without = op.Gather(without_rows, others, axis=rank)  # [..., n, n - 1, n, n - 1]
    minors = op.Det(op.Transpose(without, perm=[*range(rank - 1), rank, rank - 1, rank + 1]))
    return (shaped(g * (minors * signs), x),)


def _others(op: Any, x: Any) -> tuple[Any, Any]:
    """For each index the n - 1 others, and the signs of a chessboard."""
    n = extents(x)[-1]
    if isinstance(n, int):
        table = np.array([[k for k in range(n) if k != i] for i in range(n)])
        return table, np.asarray((-1.0) ** np.add.outer(np.arange(n), np.arange(n)), op.dtype.numpy())
    count = op.Squeeze(op.Shape(x, start=-1), [0])
    index = op.Range(0, count, 1)
    fewer = op.Range(0, count - 1, 1)
    column = op.Unsqueeze(index, [1])
    table = fewer + op.Cast(op.GreaterOrEqual(fewer, column), to=7)
    odd = index - index / 2 * 2
    return table, op.Where(op.Equal(odd, op.Unsqueeze(odd, [1])), 1.0, -1.0)


Det = Op(
    "Det",
    "The determinant of each n x n matrix; the gradient is exact for singular ones too, and takes n^2 determinants of n - 1.",
    unpredicted="a determinant of random matrices is log-normal: second moments do not describe it",
    vjp=_det_vjp,
    numpy=np.linalg.det,
    samples=(sample((2, 2)), sample(("N", 3, 3)), sample((1, 1)), sample((2, "N", 4, 4)), sample((2, "N", "N"))),
)

# ----------------------------------------------------------------------------------------------------------------- CumProd


def _cum_prod_vjp(op: Any, g: Any, y: Any, x: Any, axis: Any, *, exclusive: int, reverse: int) -> tuple[Any, ...]:
    """x'_k = prod_(j < k) x_j * sum_(i >= k) g_i prod_(k < j <= i) x_j: no division, so that zeros are safe.

    With i on the axis and k on one behind it; an exclusive product leaves x_i out, and i begins behind k.
    """
    along, behind, i, k = _pairs(op, x, axis)
    beyond = op.Less(i, k) if reverse else op.Greater(i, k)
    reached = beyond if exclusive else op.LessOrEqual(i, k) if reverse else op.GreaterOrEqual(i, k)
    factors = op.Where(beyond, op.Unsqueeze(x, behind), 1.0)
    between = op.CumProd(factors, along, exclusive=exclusive, reverse=reverse)
    terms = op.Where(reached, op.Unsqueeze(g, behind) * between, 0.0)
    before = op.CumProd(x, along, exclusive=1, reverse=reverse)
    total = op.ReduceSum(terms, [along] if isinstance(along, int) else op.Reshape(along, [1]), keepdims=0)
    return (shaped(before * total, x), None)


def _pairs(op: Any, x: Any, axis: Any) -> tuple[Any, Any, Any, Any]:
    """The axis counted from the front, the one behind it, and a place along each of the two; numbers where they are known."""
    known, rank = constant(axis), len(x.shape)
    if known is None:
        wide = op.Cast(axis, to=7)
        along = op.Where(op.Less(wide, 0), wide + rank, wide)
        behind = op.Reshape(along, [1]) + 1
        place = op.CumSum(op.Expand(1, full_shape(op, x)), axis, exclusive=1)
        return along, behind, op.Unsqueeze(place, behind), op.Unsqueeze(place, op.Reshape(along, [1]))
    at = int(known) % rank
    extent, rest = extents(x)[at], [1] * (rank - 1 - at)
    if isinstance(extent, int):
        return at, [at + 1], np.arange(extent).reshape([extent, 1, *rest]), np.arange(extent).reshape([extent, *rest])
    index = op.Range(0, op.Squeeze(op.Shape(x, start=at, end=at + 1), [0]), 1)
    return at, [at + 1], op.Reshape(index, [-1, 1, *rest]), op.Reshape(index, [-1, *rest])


def _running_product(x: Array, axis: Array, *, exclusive: int, reverse: int) -> Array:
    ahead = np.flip(x, int(axis)) if reverse else x
    if exclusive:
        ahead = np.moveaxis(ahead, int(axis), 0)
        ahead = np.moveaxis(np.concatenate([np.ones_like(ahead[:1]), ahead[:-1]]), 0, int(axis))
    products = np.cumprod(ahead, axis=int(axis))
    return np.flip(products, int(axis)) if reverse else products


CumProd = Op(
    "CumProd",
    "The running product along an axis; the gradient is exact at zeros too.",
    unpredicted="a product of many random numbers is log-normal: second moments do not describe it",
    vjp=_cum_prod_vjp,
    numpy=_running_product,
    samples=(
        sample(("N", 4), np.array(1)),
        sample((3, "N", 2), np.array(-2), exclusive=1),
        sample((4, 2), np.array(0), reverse=1),
        sample((2, 3), np.array(1), reverse=1, exclusive=1),
    ),
)

ROWS = (Einsum, Det, CumProd)
