"""ONNX Runtime's own operators (domain ``com.microsoft``) that its optimizer and its tools write into files: one formula each.

    (op, *inputs, **attributes) -> the outputs, None for one that is not written

`op` is the graph builder; equality with ONNX Runtime's kernels is tested row by row. Those of attention stand in
contrib_attention.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from vgcompile.errors import ModelError
from vgcompile.graph.emit import constant_of
from vgcompile.ops.op import Rule
from vgcompile.ops.shape import extents

DOMAIN = "com.microsoft"


def covered(condition: bool, otherwise: str) -> None:
    """Raises ModelError, with what would do, unless ``condition`` holds."""
    if not condition:
        raise ModelError(otherwise)


def plus(*terms: Any) -> Any:
    """The sum of the operands that there are."""
    first, *rest = [term for term in terms if term is not None]
    for term in rest:
        first = first + term
    return first


def _bias_softmax(op: Any, x: Any, bias: Any, *, axis: int = 1, is_inner_broadcast: int = 0) -> Any:
    """The softmax is over all axes from ``axis`` on; the bias misses axes before it, or (inner) repeats along some."""
    rank = len(x.shape)
    missing = rank - len(bias.shape)
    if missing and not is_inner_broadcast:
        bias = op.Unsqueeze(bias, list(range(1, 1 + missing)))
    total = x + bias
    if axis % rank == rank - 1:
        return op.Softmax(total, axis=-1)
    return op.Reshape(op.Softmax(op.Flatten(total, axis=axis % rank), axis=-1), op.Shape(total))


def _matrix_product(
    op: Any, a: Any, b: Any, *, alpha: float = 1.0, transA: int = 0, transB: int = 0, transBatchA: int = 0, transBatchB: int = 0
) -> Any:
    product = op.MatMul(_turned(op, a, transA, transBatchA), _turned(op, b, transB, transBatchB))
    return product if alpha == 1.0 else product * alpha


def _turned(op: Any, x: Any, matrix: int, batch: int) -> Any:
    """Batch: the first axis stands behind the other batch axes. Matrix: the last two are exchanged."""
    order = list(range(len(x.shape)))
    if batch:
        order = [*order[1:-1], order[0], order[-1]]
    if matrix:
        order[-2:] = reversed(order[-2:])
    return x if order == sorted(order) else op.Transpose(x, perm=order)


def activated(op: Any, x: Any, activation: str, parameters: Sequence[float] = ()) -> Any:
    """The activation that is fused behind a product, with its parameters in the order of their names."""
    if not activation:
        return x
    names = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Elu": ("alpha",), "ThresholdedRelu": ("alpha",)}
    if activation == "Clip":
        return op.Clip(x, *(float(limit) for limit in parameters))
    known = activation in {"Relu", "Tanh", "Sigmoid", "HardSwish", "Softplus", "Softsign", *names}
    covered(known, f"its activation {activation} is not known; export it unfused")
    return op.emit(activation, x, **dict(zip(names.get(activation, ()), map(float, parameters), strict=False)))


def _gemm(
    op: Any,
    a: Any,
    b: Any,
    c: Any = None,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    **attributes: Any,
) -> Any:
    given = [p for p in (activation_alpha, activation_beta, activation_gamma) if p is not None]
    return activated(op, op.Gemm(a, b, c, **attributes), activation, given)


def _convolution(
    op: Any, x: Any, w: Any, b: Any = None, z: Any = None, *, activation: str = "", activation_params: Any = (), **attributes: Any
) -> Any:
    """z is added before the activation."""
    return activated(op, plus(op.Conv(x, w, b, **attributes), z), activation, list(activation_params))


def _layer_normalization(
    op: Any, x: Any, scale: Any, bias: Any = None, *, axis: int = -1, epsilon: float = 1e-5, **_: Any
) -> Any:
    return op.LayerNormalization(x, scale, bias, axis=axis, epsilon=epsilon, outputs=3)


def root_mean_square(op: Any, x: Any, scale: Any, *, axis: int = -1, epsilon: float = 1e-5, **_: Any) -> tuple[Any, ...]:
    """x over its root mean square, scaled; the second output is missing, the third is the factor."""
    axes = list(range(axis % len(x.shape), len(x.shape)))
    factor = op.Reciprocal(op.Sqrt(op.ReduceMean(x * x, axes, keepdims=1) + epsilon))
    return x * factor * scale, factor


def _skip_layer_normalization(
    op: Any, x: Any, skip: Any, gamma: Any, beta: Any = None, bias: Any = None, *, epsilon: float = 1e-12
) -> tuple[Any, ...]:
    total = plus(x, skip, bias)
    return (*op.LayerNormalization(total, gamma, beta, axis=-1, epsilon=epsilon, outputs=3), total)


def _skip_simplified(op: Any, x: Any, skip: Any, gamma: Any, bias: Any = None, *, epsilon: float = 1e-12) -> tuple[Any, ...]:
    total = plus(x, skip, bias)
    y, factor = root_mean_square(op, total, gamma, epsilon=epsilon)
    return y, None, factor, total


def _embedding(
    op: Any,
    ids: Any,
    segments: Any,
    words: Any,
    places: Any,
    kinds: Any,
    gamma: Any,
    beta: Any,
    mask: Any = None,
    position_ids: Any = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int = 0,
) -> tuple[Any, ...]:
    """Words, their places and kinds, added and normalized; how many words of each row count, 0 without a mask."""
    if position_ids is None:
        length = extents(ids)[1]
        end = [length] if isinstance(length, int) else op.Shape(ids, start=1, end=2)
        at = op.Slice(places, [0], end, [0])
    else:
        at = op.Gather(places, position_ids)
    total = plus(op.Gather(words, ids), at, None if segments is None else op.Gather(kinds, segments))
    y = op.LayerNormalization(total, gamma, beta, axis=-1, epsilon=epsilon)
    counts = op.Expand(np.zeros(1, np.int32), op.Shape(ids, end=1)) if mask is None else op.ReduceSum(mask, [1], keepdims=0)
    return y, counts, total


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


def _expanded(op: Any, x: Any, axis: Any) -> Any:
    where = constant_of(axis)
    if where is None:
        raise ModelError("its axis is not a constant; export it as Unsqueeze")
    return op.Unsqueeze(x, [int(np.ravel(where)[0])])


FORMULAS: dict[str, Rule] = {
    "Gelu": lambda op, x: op.Gelu(x, approximate="none"),
    "FastGelu": lambda op, x, bias=None: op.Gelu(plus(x, bias), approximate="tanh"),
    "BiasGelu": lambda op, x, bias: op.Gelu(x + bias, approximate="none"),
    "QuickGelu": lambda op, x, *, alpha=1.702: op.Swish(x, alpha=alpha),
    "BiasSoftmax": _bias_softmax,
    "FusedMatMul": _matrix_product,
    "TransposeMatMul": _matrix_product,
    "FusedGemm": _gemm,
    "FusedConv": _convolution,
    "LayerNormalization": _layer_normalization,
    "SimplifiedLayerNormalization": root_mean_square,
    "SkipLayerNormalization": _skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": _skip_simplified,
    "EmbedLayerNormalization": _embedding,
    "MatMulNBits": _quantized_product,
    "QuantizeLinear": _quantized,
    "DequantizeLinear": lambda op, x, scale, zero=None, *, axis=1, **_: op.DequantizeLinear(x, scale, zero, axis=axis),
    "Trilu": lambda op, x, k=None, *, upper=1: op.Trilu(x, k, upper=upper),
    "ExpandDims": _expanded,
    "Range": lambda op, start, limit, delta=None: op.Range(start, limit, op.CastLike(1.0, start) if delta is None else delta),
    "GatherND": lambda op, x, indices: op.GatherND(x, indices),
}
