"""Dropout and its relatives: noise in training, nothing at inference."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from vgcompile.layers.layer import Layer, Site, Unfit
from vgcompile.layers.part import PositiveFloat

if TYPE_CHECKING:
    import onnx_ir as ir

Rate = Annotated[float, Field(ge=0, lt=1)]

SELU_LIMIT = -1.0507009873554805 * 1.6732632423543772  # -lambda alpha of Klambauer et al. 2017, what SELU tends to below

SMALLEST_SD = 1e-30  # far below what float32 tells from a mean of 1


class _Noise(Layer):
    """What training alone does."""

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        (x,) = inputs
        return site.op.InTraining(self._noisy(site, x), x) if site.training else x

    @abstractmethod
    def _noisy(self, site: Site, x: ir.Value) -> Any:
        """``x`` as training sees it."""


class Dropout(_Noise):
    """Zeroes with probability ``rate`` and divides the rest by 1 - rate (Srivastava et al. 2014): each element by itself, a
    channel at all positions (Tompson et al. 2015), or a sample as a whole (stochastic depth, Huang et al. 2016)."""

    kind: Literal["dropout"]
    rate: Rate
    drops: Literal["elements", "channels", "samples"] = "elements"

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        if self.drops == "elements":
            return site.op.Dropout(inputs[0], float(self.rate), site.training, seed=site.stream("mask"))  # type: ignore[no-any-return]
        if self.drops == "channels" and len(site.shape(inputs[0])) < 3:
            raise Unfit("dropout of channels needs an input [batch, channels, positions, ...]", "drop elements")
        return super().emit(site, inputs)

    def _noisy(self, site: Site, x: ir.Value) -> Any:
        kept = _kept(site, x, 2 if self.drops == "channels" else 1, self.rate)
        return site.op.Where(kept, site.op.Mul(x, 1.0 / (1.0 - self.rate)), 0.0)


class AlphaDropout(_Noise):
    """Elements set to SELU's limit with probability ``rate``, then an affine map that gives mean 0 and variance 1 back to what
    had them (Klambauer et al. 2017, section 3)."""

    kind: Literal["alpha_dropout"]
    rate: Rate

    def _noisy(self, site: Site, x: ir.Value) -> Any:
        """a (x or the limit) - a limit rate, whose mean and variance are 0 and 1 where those of x are."""
        op = site.op
        a = 1.0 / math.sqrt((1.0 - self.rate) * (1.0 + self.rate * SELU_LIMIT**2))
        moved = op.Where(_kept(site, x, len(site.shape(x)), self.rate), x, SELU_LIMIT)
        return op.Sub(op.Mul(moved, a), a * SELU_LIMIT * self.rate)


class GaussianDropout(_Noise):
    """x times numbers of mean 1 and variance rate / (1 - rate), those of dropout (Srivastava et al. 2014, section 10)."""

    kind: Literal["gaussian_dropout"]
    rate: Rate

    def _noisy(self, site: Site, x: ir.Value) -> Any:
        return site.op.Mul(x, _normal(site, x, 1.0, math.sqrt(self.rate / (1.0 - self.rate))))


class GaussianNoise(_Noise):
    """x plus normal numbers of standard deviation ``sd``."""

    kind: Literal["gaussian_noise"]
    sd: PositiveFloat

    def _noisy(self, site: Site, x: ir.Value) -> Any:
        return site.op.Add(x, _normal(site, x, 0.0, self.sd))


def _normal(site: Site, x: ir.Value, mean: float, sd: float) -> Any:
    spread = max(sd, SMALLEST_SD)  # ONNX Runtime aborts at a deviation of 0
    return site.op.RandomNormalLike(x, mean=mean, scale=spread, seed=float(site.stream("noise")))


def _kept(site: Site, x: ir.Value, axes: int, rate: float) -> Any:
    """Whether to keep what each entry of the first ``axes`` axes of ``x`` holds; the other axes have extent 1.

    A Dropout of ones would do, but ONNX Runtime takes out one whose mask nobody reads, in training as well; and a Bernoulli,
    which it has as ONNX's own function, draws 1 where it should draw 0.
    """
    op, rank = site.op, len(site.shape(x))
    extents = op.Shape(x, end=axes)
    if axes < rank:
        extents = op.Concat(extents, [1] * (rank - axes), axis=0)
    return op.Less(op.RandomUniformLike(op.Expand(1.0, extents), seed=float(site.stream("mask"))), 1.0 - rate)
