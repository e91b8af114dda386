"""What layers with a weight and a bias share, and the two ways to hold a weight's length in check.

Both are operators of the graph, so that the gradient goes through them:

    weight_norm      w = g v / ||v||, one g for each output unit           Salimans and Kingma 2016, eq. 2
    spectral_norm    w = v / sigma, sigma = a^T V b the largest singular value, by power iteration: b = V^T a, a = V b, each over
                     its length; what the iteration finds is a constant    Miyato et al. 2018, algorithm 1
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from vgcompile.layers.activation import Activated
from vgcompile.layers.distribution import Constant
from vgcompile.layers.initialization import Init
from vgcompile.layers.layer import Site, Unfit
from vgcompile.layers.part import Part

if TYPE_CHECKING:
    import onnx_ir as ir


class SpectralNorm(Part):
    """The direction that the iteration starts from is a state of the layer, and no run of a graph changes it: it takes more steps
    than the one of a trainer that keeps its direction from step to step."""

    iterations: Annotated[int, Field(gt=0, le=100)] = Field(default=10, description="of the power method, in every run")


class Weighted(Activated):
    bias: bool = True
    weight_norm: bool = Field(default=False, description="learn direction and length of each unit's weights apart")
    spectral_norm: SpectralNorm | None = Field(default=None, description="divide the weight by its largest singular value")
    init: Init = Init()

    @model_validator(mode="after")
    def _one_norm(self) -> Self:
        if self.weight_norm and self.spectral_norm:
            raise ValueError("weight_norm and spectral_norm both set the weight's length: keep one of them")
        return self

    def weight(
        self, site: Site, name: str, shape: Sequence[int], *, unit_axis: int, fan_in: int, fan_out: int, parts: int = 1
    ) -> ir.Value:
        """A weight [shape] whose output units lie along ``unit_axis``, as the layer uses it; of ``parts`` along axis 0."""
        learned = site.parameter(name, shape, self.init.weight, fan_in=fan_in, fan_out=fan_out, parts=parts)
        if self.weight_norm:
            return _of_learned_length(site, learned, name, unit_axis)
        if self.spectral_norm is not None:
            return _of_spectral_norm_1(site, learned, name, unit_axis, self.spectral_norm.iterations)
        return learned

    def offset(self, site: Site, units: int, *, fan_in: int, fan_out: int) -> ir.Value | None:
        """The bias [units], or None without one."""
        return site.parameter("bias", (units,), self.init.bias, fan_in=fan_in, fan_out=fan_out) if self.bias else None


def _of_learned_length(site: Site, v: ir.Value, name: str, unit_axis: int) -> ir.Value:
    """The lengths start where those of ``v`` are expected, so that w starts as v."""
    op, shape = site.op, _extents(site, v)
    others = [axis for axis in range(len(shape)) if axis != unit_axis]
    expected = math.sqrt(site.mean_square(v) * math.prod(shape[axis] for axis in others))
    if not expected:
        raise Unfit("weight_norm needs weights that do not start at 0", "give them another init")
    lengths = [1 if axis in others else size for axis, size in enumerate(shape)]
    g = site.parameter(f"{name}_length", lengths, Constant(kind="constant", value=expected))
    return op.Mul(v, op.Div(g, op.ReduceL2(v, others, keepdims=1)))  # type: ignore[no-any-return]


def _of_spectral_norm_1(site: Site, v: ir.Value, name: str, unit_axis: int, iterations: int) -> ir.Value:
    op, shape = site.op, _extents(site, v)
    units = shape[unit_axis]
    first = v
    if unit_axis:
        first = op.Transpose(v, perm=[unit_axis, *(axis for axis in range(len(shape)) if axis != unit_axis)])
    matrix = op.Reshape(first, [units, -1]) if len(shape) > 2 else first
    seed = site.stream("direction")
    a: Any = site.state(f"{name}_direction", (1, units), lambda shape: _direction(shape, seed))
    fixed = op.StopGradient(matrix)
    turned = op.Transpose(fixed, perm=[1, 0])
    for _ in range(iterations):
        b = op.LpNormalization(op.MatMul(a, fixed), axis=-1, p=2)
        a = op.LpNormalization(op.MatMul(b, turned), axis=-1, p=2)
    sigma = op.MatMul(op.MatMul(a, matrix), op.Transpose(b, perm=[1, 0]))
    return op.Div(v, op.Reshape(sigma, np.zeros(0, np.int64)))  # type: ignore[no-any-return]


def _extents(site: Site, weight: ir.Value) -> tuple[int, ...]:
    return tuple(int(size) for size in site.shape(weight))


def _direction(shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    drawn = np.random.default_rng(seed).normal(size=shape)
    return drawn / np.linalg.norm(drawn)
