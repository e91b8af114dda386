"""Initial values as a model file states them: ``he_normal``, ``{kind: normal, sd: 0.01}``, ``{kind: orthogonal, gain: 1.4}``.

Variances of the scaled kinds (fan_in inputs and fan_out outputs of the weight that a unit sees):

    lecun     1 / fan_in                    LeCun et al. 1998: sigma_w = 1
    glorot    2 / (fan_in + fan_out)        Glorot and Bengio 2010, eq. 12
    he        2 / fan_in                    He et al. 2015, eq. 10
    pytorch_default    1 / (3 fan_in)       uniform on +-1/sqrt(fan_in), weights and biases alike: sigma_w^2 = 1/3
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from vgcompile.initial import Initial, Kind
from vgcompile.layers.part import Finite, Part, PositiveFloat, kind_alone

Fan = Literal["fan_in", "fan_out", "fan_avg"]

# kind -> (drawn as, scale, fan): variance = scale / fan
_SCALED: dict[str, tuple[Kind, float, Fan]] = {
    "lecun_normal": ("normal", 1.0, "fan_in"),
    "lecun_uniform": ("uniform", 1.0, "fan_in"),
    "glorot_normal": ("normal", 1.0, "fan_avg"),
    "glorot_uniform": ("uniform", 1.0, "fan_avg"),
    "he_normal": ("normal", 2.0, "fan_in"),
    "he_uniform": ("uniform", 2.0, "fan_in"),
    "pytorch_default": ("uniform", 1.0 / 3.0, "fan_in"),
}


class Distribution(Part):
    """What a parameter is drawn from, before its shape is known."""

    kind: str

    @abstractmethod
    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Initial:
        """The distribution of a parameter of this shape."""


class Scaled(Distribution):
    kind: Literal[
        "lecun_normal", "lecun_uniform", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "pytorch_default"
    ]
    gain: PositiveFloat = Field(default=1.0, description="multiplies the standard deviation")

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Initial:
        drawn, scale, fan = _SCALED[self.kind]
        return Initial(drawn, shape, sd=self.gain * math.sqrt(scale / _fan(fan, fan_in, fan_out)))


class VarianceScaling(Distribution):
    kind: Literal["variance_scaling"]
    scale: PositiveFloat = Field(default=1.0, description="the variance times the fan: sigma_w squared where the fan is fan_in")
    mode: Fan = "fan_in"
    distribution: Literal["normal", "uniform"] = "normal"

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Initial:
        return Initial(self.distribution, shape, sd=math.sqrt(self.scale / _fan(self.mode, fan_in, fan_out)))


class Orthogonal(Distribution):
    """Orthonormal rows or columns, whichever are fewer, times the gain (Saxe et al. 2013)."""

    kind: Literal["orthogonal"]
    gain: PositiveFloat = 1.0

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Initial:
        longer = max(shape[0], math.prod(shape[1:]))
        return Initial("orthogonal", shape, sd=self.gain / math.sqrt(longer))


class Normal(Distribution):
    kind: Literal["normal"]
    sd: PositiveFloat
    mean: Finite = 0.0

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Initial:
        return Initial("normal", shape, self.mean, self.sd)


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

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Initial:
        lo, hi = self.range or (-(self.half_width or 0.0), self.half_width or 0.0)
        return Initial("uniform", shape, (lo + hi) / 2.0, (hi - lo) / math.sqrt(12.0))


class Fixed(Distribution):
    kind: Literal["zeros", "ones"]

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Initial:
        return Initial("constant", shape, {"zeros": 0.0, "ones": 1.0}[self.kind])


class Constant(Distribution):
    kind: Literal["constant"]
    value: Finite

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Initial:
        return Initial("constant", shape, self.value)


def _fan(mode: Fan, fan_in: int, fan_out: int) -> float:
    return {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2.0}[mode]


_Stated = Annotated[
    Scaled | VarianceScaling | Orthogonal | Normal | Uniform | Fixed | Constant,
    Field(discriminator="kind"),
]
_Alone = Literal[
    "lecun_normal",
    "lecun_uniform",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "pytorch_default",
    "variance_scaling",
    "orthogonal",
    "zeros",
    "ones",
]
AnyDistribution = Annotated[_Stated, BeforeValidator(kind_alone, json_schema_input_type=_Alone | _Stated)]

PYTORCH_DEFAULT = Scaled(kind="pytorch_default")
ZEROS, ONES = Fixed(kind="zeros"), Fixed(kind="ones")


class Init(Part):
    """``init:`` of a layer with weights; what is absent follows the model's own ``init:``."""

    weight: AnyDistribution | None = None
    bias: AnyDistribution | None = None


class NormalizationInit(Part):
    """``init:`` of a normalization layer: ones and zeros, whatever the model's own ``init:`` says."""

    scale: AnyDistribution = ONES
    bias: AnyDistribution = ZEROS
