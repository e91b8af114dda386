"""Matrix products: linear in each operand, so each adjoint is a product with the other operand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vgcompile import interval
from vgcompile.interval import EPSILON, WHOLE, Interval, corners, point
from vgcompile.norms import singular_extremes
from vgcompile.ops import flops
from vgcompile.ops.linear_moments import Product
from vgcompile.ops.maps import matrix, one_sample
from vgcompile.ops.op import Array, Case, Dim, Op, Tangent, sample
from vgcompile.ops.shape import is_sample_axis, is_shared_axis, repeats, shaped


def swapped(op: Any, x: Any) -> Any:
    """The transpose of the last two axes."""
    rank = len(x.shape)
    return op.Transpose(x, perm=[*range(rank - 2), rank - 1, rank - 2])


def _matmul_vjp(op: Any, g: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """A vector is a matrix of one row (left) or one column (right); leading axes against a matrix are more rows of it."""
    if len(b.shape) == 1:
        da, db = _matmul_vjp(op, op.Unsqueeze(g, [-1]), y, a, op.Unsqueeze(b, [1]))
        return da, op.Squeeze(db, [-1])
    if len(a.shape) == 1:
        da, db = _matmul_vjp(op, op.Unsqueeze(g, [-2]), y, op.Unsqueeze(a, [0]), b)
        return op.Squeeze(da, [-2]), db
    if len(a.shape) == 2 == len(b.shape):
        return shaped(op.Gemm(g, b, transB=1), a), shaped(op.Gemm(a, g, transA=1), b)
    if len(b.shape) == 2:
        db = op.Gemm(op.Flatten(a, axis=-1), op.Flatten(g, axis=-1), transA=1)
        return shaped(op.MatMul(g, swapped(op, b)), a), shaped(db, b)
    return op.MatMul(g, swapped(op, b)), op.MatMul(swapped(op, a), g)


def _gemm_vjp(
    op: Any, g: Any, y: Any, a: Any, b: Any, c: Any = None, *, alpha: float, beta: float, transA: int, transB: int
) -> tuple[Any, ...]:
    """Y = alpha A' B' + beta C; each adjoint is again one Gemm, transposed operands and all."""
    da = op.Gemm(b, g, transA=transB, transB=1, alpha=alpha) if transA else op.Gemm(g, b, transB=1 - transB, alpha=alpha)
    db = op.Gemm(g, a, transA=1, transB=transA, alpha=alpha) if transB else op.Gemm(a, g, transA=1 - transA, alpha=alpha)
    dc = None if c is None else g if beta == 1.0 else g * float(beta)
    return (shaped(da, a), shaped(db, b), dc)


@dataclass(frozen=True)
class _Operand:
    """One factor of the product as a stack of matrices, transposed as the product uses it."""

    dims: tuple[Dim, ...]
    matrix: Array | None
    given: Interval
    arranged: Callable[[Array], Array]

    @cached_property
    def bound(self) -> Interval:
        return self.given.map(self.arranged)


def _operands(case: Case) -> tuple[_Operand, _Operand]:
    flags = (case.attributes.get("transA", 0), case.attributes.get("transB", 0))
    return _operand(case, 0, bool(flags[0])), _operand(case, 1, bool(flags[1]))


def _operand(case: Case, position: int, transposed: bool) -> _Operand:
    dims, value = case.shapes[position] or (), case.values[position]

    def arranged(x: Array) -> Array:
        x = x.reshape((1,) * (len(dims) - x.ndim) + x.shape)
        if len(dims) == 1:  # a row on the left, a column on the right
            return np.expand_dims(x, position)
        return x.T if transposed else x

    vector = (1, *dims) if position == 0 else (*dims, 1)
    lifted = vector if len(dims) == 1 else dims[::-1] if transposed else dims
    matrix = None if value is None else arranged(np.asarray(value, np.float64))
    return _Operand(lifted, matrix, case.ranges[position] or (WHOLE if value is None else point(value)), arranged)


def _product_range(case: Case) -> Interval:
    """Interval dot products along the contracted axis; the axes that vectors were lifted by are dropped again."""
    a, b = _operands(case)
    inner = a.dims[-1] if isinstance(a.dims[-1], int) else b.dims[-2]
    if not isinstance(inner, int):
        return WHOLE

    def left() -> Interval:
        return a.bound if a.bound.lo.shape[-1] == inner else a.bound.map(lambda x: np.broadcast_to(x, (*x.shape[:-1], inner)))

    def right() -> Interval:
        return b.bound.map(lambda x: np.broadcast_to(x, (*x.shape[:-2], inner, x.shape[-1])))

    if b.matrix is not None and b.matrix.ndim == 2:
        product = interval.matmul(left(), b.matrix)
    elif a.matrix is not None and a.matrix.ndim == 2:
        product = interval.matmul(right().map(_turned), a.matrix.T).map(_turned)
    else:
        product = interval_product(left(), right(), inner)
    gone = tuple(axis for axis, position in ((-2, 0), (-1, 1)) if len(case.shapes[position] or ()) == 1)
    return product.map(lambda x: np.squeeze(x, gone)) if gone and product.lo.ndim else product


def _turned(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def interval_product(a: Interval, b: Interval, inner: int) -> Interval:
    """Midpoints and radii (Rump 1999): |A||R_B| + R_A (|B| + R_B) around the product of the midpoints, and its rounding."""
    if not (a.bounded and b.bounded):
        return WHOLE
    (am, ar), (bm, br) = ((0.5 * (x.lo + x.hi), 0.5 * (x.hi - x.lo)) for x in (a, b))
    middle = am @ bm
    radius = np.abs(am) @ br + ar @ (np.abs(bm) + br)
    slack = 8.0 * (inner + 4) * EPSILON * (a.magnitude @ b.magnitude) + interval.TINY
    return Interval(middle - radius - slack, middle + radius + slack)


def _gemm_range(case: Case) -> Interval:
    product = _product_range(case)
    alpha, beta = float(case.attributes.get("alpha", 1.0)), float(case.attributes.get("beta", 1.0))
    if len(case.shapes) < 3 or case.shapes[2] is None:
        return corners(lambda p: alpha * p, [product])
    value = case.values[2]
    bias = case.ranges[2] or (WHOLE if value is None else point(value))
    if alpha == beta == 1.0:
        return interval.total(product, bias)
    return corners(lambda p, c: alpha * p + beta * c, [product, bias])


def _norms(case: Case, position: int) -> tuple[float, float]:
    """The gradient map of a factor multiplies by the other one; that of the bias by beta."""
    if position == 2:
        copies, beta = repeats(case, 2), abs(float(case.attributes["beta"]))
        return (beta if copies == 1 else 0.0, beta * math.sqrt(copies) if beta else 0.0)
    operands = _operands(case)
    scale = abs(float(case.attributes.get("alpha", 1.0)))
    if scale == 0.0:
        return (0.0, 0.0)
    other = operands[1 - position].matrix
    if other is None:
        lo, hi = _drawn_factor(case, operands, position)
    else:
        lo, hi = _known_factor(case, operands, position, other)
    return (scale * lo, scale * hi)


def _drawn_factor(case: Case, operands: tuple[_Operand, _Operand], position: int) -> tuple[float, float]:
    """Of a factor that is not known: by its range or, of a matrix that all samples share, by its singular values."""
    other, box = operands[1 - position], _largest_slice(case, operands, position)
    singular = case.singular[1 - position] if case.singular else None
    if singular is None or len(other.dims) != 2 or _broadcast_copies(case, position, operands) != 1:
        return (0.0, box)
    rows, columns = (case.count([dim]) for dim in other.dims)
    injective = rows >= columns if position == 0 else columns >= rows
    return (singular[0] if injective else 0.0, min(box, singular[1]))


def _known_factor(case: Case, operands: tuple[_Operand, _Operand], position: int, other: Array) -> tuple[float, float]:
    """Extreme gains of g -> g B^T (or A^T g). It has a smallest one above 0 only where no direction of g is lost: in >= out."""
    stack = other.reshape(-1, *other.shape[-2:])
    extremes = [singular_extremes(matrix) for matrix in stack]
    hi = max((most for _, most in extremes), default=0.0)
    copies = _broadcast_copies(case, position, operands)
    if copies != 1:
        return (0.0, math.sqrt(copies) * hi)
    rows, columns = stack.shape[-2:]
    injective = rows >= columns if position == 0 else columns >= rows
    return (min((least for least, _ in extremes), default=0.0) if injective else 0.0, hi)


def _broadcast_copies(case: Case, position: int, operands: tuple[_Operand, _Operand]) -> float:
    """How many matrices of one sample's stack share this operand."""
    dims, other = operands[position].dims, operands[1 - position].dims
    lead, own = other[:-2], dims[:-2]
    padded = (1,) * (len(lead) - len(own)) + tuple(own)
    count = 1.0
    for axis, (mine, yours) in enumerate(zip(padded[len(padded) - len(lead) :], lead, strict=True)):
        if mine == 1 and yours != 1 and not is_shared_axis(case, position, other, axis):
            count *= yours if isinstance(yours, int) else math.inf
    return count


def _largest_slice(case: Case, operands: tuple[_Operand, _Operand], position: int) -> float:
    """A bound of the other operand's norm over its range: the Frobenius norm of each sample's slice, the largest one.

    Rows that are samples are alternatives, not a sum: what each sample sends is bounded by its own row, to an operand that all
    share or to its own matrix of a stack.
    """
    mine, other = operands[position], operands[1 - position]
    contracted, rows = (len(other.dims) - 1, len(other.dims) - 2)[:: 1 if position == 1 else -1]
    order = other.dims if rows < contracted or len(other.dims) > 2 else other.dims[::-1]  # a batch in columns, A' x^T
    shape = list(other.dims)
    stacked = len(mine.dims) == len(other.dims) > 2 and is_sample_axis(mine.dims, 0, case.batch)
    if is_shared_axis(case, position, order, 0) or (stacked and is_sample_axis(order, 0, case.batch)):
        shape[0 if order is other.dims else rows] = 1
    if any(isinstance(dim, str) for dim in shape) or not other.bound.bounded:
        return math.inf
    squares = other.bound.magnitude**2
    alone = [axis for axis, dim in enumerate(shape) if dim == 1 and squares.shape[axis] != 1]
    squares = squares.max(axis=tuple(alone), keepdims=True) if alone else squares
    squares = np.broadcast_to(squares, [int(dim) for dim in shape])
    own = (1,) * (len(shape) - len(mine.dims)) + tuple(mine.dims)
    shared = [axis for axis in range(len(shape) - 2) if own[axis - len(shape)] == 1]
    total = squares.sum(axis=(*shared, -2, -1))
    return float(np.sqrt(total.max(initial=0.0)) * (1.0 + squares.size * EPSILON))


def _tangent(case: Case, position: int) -> Tangent | None:
    """Rows of the left operand against a known matrix."""
    known, dims = case.values[1], case.shapes[0]
    if position or known is None or np.ndim(known) > 2 or case.attributes.get("transA") or one_sample(dims) is None:
        return None
    columns = known.T if case.attributes.get("transB") else known.reshape(known.shape[0], -1)
    return Tangent(matrix(columns, float(case.attributes.get("alpha", 1.0))))


MatMul = Op(
    "MatMul",
    "The matrix product a @ b, leading axes broadcast.",
    flops=flops.product,
    vjp=_matmul_vjp,
    numpy=np.matmul,
    range=_product_range,
    norms=_norms,
    tangent=_tangent,
    moments=Product(),
    samples=(
        sample(("N", 4), (4, 3)),
        sample((5, "N", 4), (4, 3)),
        sample(("N", "T", 4), (4, 3)),
        sample(("N", 2, 3, 4), ("N", 2, 4, 5)),
        sample((2, 1, 3, 4), ("N", 4, 2)),
        sample((3, 4), ("N", 4, 2)),
        sample((4,), (4, 3)),
        sample(("N", 3, 4), (4,)),
        sample((4,), (4,)),
    ),
)


def _gemm_numpy(
    a: Array, b: Array, c: Any = 0.0, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0
) -> Array:
    return np.asarray(alpha * (a.T if transA else a) @ (b.T if transB else b) + beta * np.asarray(0.0 if c is None else c))


Gemm = Op(
    "Gemm",
    "alpha * A' @ B' + beta * C for matrices, A' and B' transposed on demand.",
    flops=flops.product,
    vjp=_gemm_vjp,
    numpy=_gemm_numpy,
    range=_gemm_range,
    norms=_norms,
    tangent=_tangent,
    moments=Product(),
    samples=(
        sample(("N", 4), (4, 3), (3,)),
        sample(("N", 3), (3, 4)),
        sample((4, "N"), (3, 4), (1, 3), transA=1, transB=1, alpha=0.5, beta=2.0),
        sample(("N", 3), (5, 3), ("N", 1), transB=1, alpha=-1.5),
        sample((4, "N"), (4, 3), (), transA=1, beta=0.5),
    ),
)

ROWS = (MatMul, Gemm)
