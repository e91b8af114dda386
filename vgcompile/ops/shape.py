"""Words about shapes that every room of the table uses: in rules, on values; in the facts that analyses read, on a case."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.errors import ModelError
from vgcompile.ops.op import Array, Case, Dim
from vgcompile.signal import Signal, replace


def extents(x: Any) -> tuple[Dim, ...]:
    """A value's shape as ints and symbols. Raises ModelError where it is unknown."""
    if x.shape is None:
        raise ModelError(f"the shape of {x.name!r} is unknown")
    return tuple(dim if isinstance(dim, int) else str(dim.value) for dim in x.shape)


_REAL = frozenset(dtype for dtype in ir.DataType if dtype.is_floating_point() and dtype.bitwidth >= 16)


def is_real(value: Any) -> bool:
    """Whether a value is a tensor of numbers that ONNX computes with, of 16 bits and more: what a gradient can flow to."""
    return isinstance(value.type, ir.TensorType) and value.type.dtype in _REAL


def constant(x: Any) -> Array | None:
    """The array that an operand is known to hold, or None where it is absent or only a run tells: of an input with a default,
    too."""
    return None if x is None or x.const_value is None or x.is_graph_input() else np.asarray(x.const_value.numpy())


def shaped(adjoint: Any, x: Any) -> Any:
    """Say that an adjoint has its value's shape, where inference cannot see it."""
    adjoint.shape = x.shape
    return adjoint


def sized(adjoint: Any, dims: Sequence[Dim]) -> Any:
    """Say which extents an adjoint has, where inference cannot see it and no value has them."""
    adjoint.shape = ir.Shape(dims)
    return adjoint


def shape_operand(op: Any, x: Any, given: Any) -> Any:
    """The shape of ``x`` for a Reshape of ``given``: a constant where all symbols of ``x`` but one stand where ``given`` has them
    for 0 takes an extent over; else taken at run time."""
    dims, have = extents(x), extents(given)
    taken = [0 if isinstance(dim, str) and dim == old else dim for dim, old in zip(dims, have, strict=False)]
    taken += dims[len(taken) :]
    if 0 in dims or sum(isinstance(dim, str) for dim in taken) > 1:
        return op.Shape(x)
    return [-1 if isinstance(dim, str) else dim for dim in taken]


def full_shape(op: Any, x: Any) -> Any:
    """The shape of ``x`` for an Expand: a constant where it is known."""
    dims = extents(x)
    return op.Shape(x) if any(isinstance(dim, str) for dim in dims) else list(dims)


def reshaped(op: Any, adjoint: Any, x: Any) -> Any:
    """``adjoint`` in the shape of ``x``."""
    shape = shape_operand(op, x, adjoint)
    return shaped(op.Reshape(adjoint, shape, allowzero=None if isinstance(shape, list) else 1), x)


def zeros_like(op: Any, x: Any, dtype: Any = None) -> Any:
    """Zeros in the shape of ``x``, of ``dtype`` or of the working type."""
    zero = 0.0 if dtype is None else np.zeros((), dtype.numpy())
    return shaped(op.Expand(zero, full_shape(op, x)), x)


def added_up(op: Any, g: Any, scatter: Callable[[Any], Any]) -> Any:
    """``scatter(g)``, adjoints added up at places that several may share. Those of 16 bits are added up in float32: many of them
    would lose their digits, and ONNX Runtime's CPU adds up no 16-bit numbers."""
    if g.dtype.bitwidth > 16:
        return scatter(g)
    with op.scope(dtype=ir.DataType.FLOAT):
        wide = scatter(op.Cast(g, to=int(ir.DataType.FLOAT)))
    return op.Cast(wide, to=int(g.dtype))


def is_sample_axis(dims: Sequence[Dim], axis: int, batch: int) -> bool:
    """Whether an axis counts the samples of a batch: the first one, of the batch's extent or of a symbol that was given a name.

    A symbol that inference made up may stand for samples times positions.
    """
    if axis != 0 or not dims:
        return False
    first = dims[0]
    return first.isidentifier() and not first.startswith("unk") if isinstance(first, str) else batch > 1 and first == batch


def is_shared_axis(case: Case, position: int, dims: Sequence[Dim], axis: int) -> bool:
    """Whether an axis counts samples that all use one and the same operand: of its gradient, which is measured against sqrt(N),
    each of N samples has a share of its own. What depends on data is no such operand."""
    return position not in case.data and is_sample_axis(dims, axis, case.batch)


def repeats(case: Case, position: int) -> float:
    """How often, in one sample, broadcasting or tiling to the output uses each element of an input; inf where a symbol hides
    it."""
    out, dims = case.outputs[0], case.shapes[position]
    if out is None or dims is None:
        return math.inf
    count = 1.0
    padded = (1,) * (len(out) - len(dims)) + tuple(dims)
    for axis, (have, want) in enumerate(zip(padded, out, strict=True)):
        if have != want and not is_shared_axis(case, position, out, axis):
            count *= want / have if isinstance(want, int) and isinstance(have, int) else math.inf
    return count


def meeting(case: Case, position: int, dims: Sequence[Dim]) -> float:
    """Number of elements, of a tensor with these extents, that may all meet in one element of an operand: those of one sample
    where the operand is shared; inf where a symbol hides it."""
    known = [1 if is_shared_axis(case, position, dims, axis) else dim for axis, dim in enumerate(dims)]
    return math.prod(math.inf if isinstance(dim, str) else dim for dim in known)


def per_sample(dims: Sequence[Dim], batch: int = 1) -> float:
    """Number of elements of one sample; inf where a symbol hides it."""
    known = [1 if is_sample_axis(dims, axis, batch) else dim for axis, dim in enumerate(dims)]
    return math.prod(math.inf if isinstance(dim, str) else dim for dim in known)


def summed(adjoint: Signal, factor: Signal, batch: int, positions: float) -> Signal:
    """The sum of ``adjoint * factor`` over every position of every sample: what arrives at an operand that all of them share.

    sum_n sum_p g f has the square N P E[g^2 f^2] + N P (P - 1) within + N (N - 1) P (across + (P - 1) apart), adjoint and factor
    independent. Two samples at different positions: the adjoint has what its positions have in common, the factor no more than
    one sample has.
    """
    square = batch * positions * adjoint.square * factor.square
    square += batch * positions * (positions - 1) * adjoint.within * factor.within
    apart = adjoint.coherence * min(factor.across, factor.within)
    square += batch * (batch - 1) * positions * adjoint.across * (factor.across + (positions - 1) * apart)
    square = max(square, 0.0)
    return replace(adjoint, mean=0.0, square=square, within=square, across=square)
