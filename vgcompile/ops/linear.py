"""Matrix products: linear in each operand, so each adjoint is a product with the other operand."""

from __future__ import annotations

from vgcompile.ops.op import Op, sample

MatMul = Op(
    "MatMul",
    "The matrix product a @ b, leading axes broadcast.",
    vjp=lambda op, g, y, a, b: (op.MatMul(g, swapped(op, b)), op.MatMul(swapped(op, a), g)),
    samples=(sample(("N", 4), (4, 3)), sample((5, "N", 4), (4, 3))),
)


def swapped(op, x):
    """The transpose of the last two axes."""
    rank = len(x.shape)
    return op.Transpose(x, perm=[*range(rank - 2), rank - 1, rank - 2])


def _gemm_vjp(op, g, y, a, b, c=None, *, alpha, beta, transA, transB):
    """Y = alpha A' B' + beta C; each adjoint is again one Gemm, transposed operands and all."""
    da = op.Gemm(b, g, transA=transB, transB=1, alpha=alpha) if transA else op.Gemm(g, b, transB=1 - transB, alpha=alpha)
    db = op.Gemm(g, a, transA=1, transB=transA, alpha=alpha) if transB else op.Gemm(a, g, transA=1 - transA, alpha=alpha)
    dc = None if c is None else g if beta == 1.0 else g * float(beta)
    return (da, db, dc)


Gemm = Op(
    "Gemm",
    "alpha * A' @ B' + beta * C for matrices, A' and B' transposed on demand.",
    vjp=_gemm_vjp,
    samples=(sample(("N", 4), (4, 3), (3,)), sample((4, "N"), (3, 4), (1, 3), transA=1, transB=1, alpha=0.5, beta=2.0)),
)

ROWS = (MatMul, Gemm)
