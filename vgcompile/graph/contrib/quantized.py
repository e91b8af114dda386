"""Numbers that are kept in few bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from vgcompile.graph.contrib.forms import covered, plus
from vgcompile.ops.op import Rule


def _quantized_product(
    op: Any, x: Any, packed: Any, scales: Any, zeros: Any = None, order: Any = None, bias: Any = None, **attributes: Any
) -> Any:
    """x times the transpose of W [N, K], whose entries stand in blocks of a row with one scale each: (q - zero) scale."""
    rows, inner, bits, block = (int(attributes[name]) for name in ("N", "K", "bits", "block_size"))
    covered(bits in (4, 8), f"its weights of {bits} bits are not read; quantize to 4 or 8 bits")
    covered(order is None, "its weights are in an order of their own (g_idx); quantize without reordering")
    blocks = -(-inner // block)

    def spread(values: Any, columns: int) -> Any:
        """[N, blocks, columns] numbers from their bytes."""
        if bits == 8:
            return op.Reshape(values, [rows, blocks, columns])
        pair = [op.BitwiseAnd(values, np.array([15], np.uint8)), op.BitShift(values, np.array([4], np.uint8), direction="RIGHT")]
        return op.Concat(*(op.Unsqueeze(part, [-1]) for part in pair), axis=-1)

    kind = int(x.dtype)
    numbers = op.Cast(op.Reshape(spread(packed, block), [rows, blocks, block]), to=kind)
    if zeros is None:
        centred = numbers - float(2 ** (bits - 1))
    elif zeros.dtype.is_floating_point():
        centred = numbers - op.Reshape(zeros, [rows, blocks, 1])
    else:
        wide = op.Reshape(spread(zeros if bits == 8 else op.Reshape(zeros, [rows, -1]), 1), [rows, -1])
        centred = numbers - op.Cast(op.Unsqueeze(op.Slice(wide, [0], [blocks], [1]), [2]), to=kind)
    weights = op.Reshape(centred * op.Reshape(scales, [rows, blocks, 1]), [rows, blocks * block])
    if blocks * block != inner:
        weights = op.Slice(weights, [0], [inner], [1])
    return plus(op.MatMul(x, op.Transpose(weights, perm=[1, 0])), bias)


def _quantized(op: Any, x: Any, scale: Any, zero: Any = None, *, axis: int = 1, **_: Any) -> Any:
    return op.QuantizeLinear(x, scale, op.Cast(0.0, to=TensorProto.UINT8) if zero is None else zero, axis=axis)


FORMULAS: dict[str, Rule] = {
    "MatMulNBits": _quantized_product,
    "QuantizeLinear": _quantized,
    "DequantizeLinear": lambda op, x, scale, zero=None, *, axis=1, **_: op.DequantizeLinear(x, scale, zero, axis=axis),
}
