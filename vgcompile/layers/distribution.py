"""Distributions that are stated outright, whatever a parameter's fans: ``{kind: normal, sd: 0.01}``, ``zeros``."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vgcompile.initial import CUT, Initial, left_by_cut
from vgcompile.layers.part import Finite, Part, PositiveFloat


class Distribution(Part):
    """What a parameter is drawn from, before its shape is known."""

    kind: str

    @abstractmethod
    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int, gain: float = 1.0, parts: int = 1) -> Initial:
        """The distribution of a parameter of this shape; ``gain`` is the number that its own ``gain``, if it has one, stands for,
        ``parts`` counts the matrices that stand one behind another along the first axis. Raises ValueError for a shape that it
        has no meaning for."""


class Normal(Distribution):
    kind: Literal["normal"]
    sd: PositiveFloat
    mean: Finite = 0.0

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int, gain: float = 1.0, parts: int = 1) -> Initial:
        return Initial("normal", shape, self.mean, self.sd)


class TruncatedNormal(Distribution):
    """A normal distribution of standard deviation ``sd``, drawn anew beyond ``cut`` of them: what is left has less, at a cut
    of 2 the share 0.8796."""

    kind: Literal["truncated_normal"]
    sd: PositiveFloat
    mean: Finite = 0.0
    cut: Annotated[float, Field(ge=0.1, le=30)] = CUT

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int, gain: float = 1.0, parts: int = 1) -> Initial:
        return Initial("truncated_normal", shape, self.mean, self.sd * left_by_cut(self.cut), cut=self.cut)


class Uniform(Distribution):
    kind: Literal["uniform"]
    range: tuple[Finite, Finite] | None = None
    half_width: PositiveFloat | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.range is None) == (self.half_width is None):
            raise ValueError("uniform needs either range: [lo, hi] or half_width")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError("range is [lo, hi] with lo below hi")
        return self

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int, gain: float = 1.0, parts: int = 1) -> Initial:
        lo, hi = self.range or (-(self.half_width or 0.0), self.half_width or 0.0)
        return Initial("uniform", shape, (lo + hi) / 2.0, (hi - lo) / math.sqrt(12.0))


class Fixed(Distribution):
    kind: Literal["zeros", "ones"]

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int, gain: float = 1.0, parts: int = 1) -> Initial:
        return Initial("constant", shape, {"zeros": 0.0, "ones": 1.0}[self.kind])


class Constant(Distribution):
    kind: Literal["constant"]
    value: Finite

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int, gain: float = 1.0, parts: int = 1) -> Initial:
        return Initial("constant", shape, self.value)
