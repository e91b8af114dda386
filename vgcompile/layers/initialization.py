"""Initial values as a model file states them: ``he_normal``, ``{kind: normal, sd: 0.01}``, ``{kind: orthogonal, gain: 1.4}``.

Variances of the scaled kinds (fan_in inputs and fan_out outputs of the weight that a unit sees):

    lecun     1 / fan_in                    LeCun et al. 1998: sigma_w = 1
    glorot    2 / (fan_in + fan_out)        Glorot and Bengio 2010, eq. 12
    he        2 / fan_in                    He et al. 2015, eq. 10
    pytorch_default    1 / (3 fan_in)       uniform on +-1/sqrt(fan_in), weights and biases alike: sigma_w^2 = 1/3

A gain multiplies the standard deviation: a number, or an activation's own (``Gain``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, WrapValidator, model_validator

from vgcompile.initial import Initial, Kind
from vgcompile.layers.activation import AnyActivation
from vgcompile.layers.distribution import Constant, Distribution, Fixed, Normal, TruncatedNormal, Uniform
from vgcompile.layers.part import Part, PositiveFloat, kind_alone
from vgcompile.layers.pattern import matches

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


class Gain(Part):
    """The gain g that a function f needs for its layer to keep a scale, over z from N(0, 1).

    ``values``: g^2 E[f(z)^2] = 1, so that pre-activations keep their mean square from layer to layer (He et al. 2015; for relu
    sqrt 2). ``slopes``: g^2 E[f'(z)^2] = 1, so that gradients keep theirs.
    """

    activation: AnyActivation
    keep: Literal["values", "slopes"] = "values"


_NUMBER: TypeAdapter[float] = TypeAdapter(PositiveFloat)


def _gain(given: Any, handler: Any) -> float | Gain:
    if isinstance(given, Gain):
        return given
    if isinstance(given, str) or (isinstance(given, dict) and "kind" in given):
        given = {"activation": given}
    return Gain.model_validate(given) if isinstance(given, dict) else _NUMBER.validate_python(given, strict=True)


AnyGain = Annotated[PositiveFloat | Gain, WrapValidator(_gain, json_schema_input_type=PositiveFloat | AnyActivation | Gain)]


class Gained(Distribution):
    """A distribution with a gain."""

    gain: AnyGain = Field(default=1.0, description="multiplies the standard deviation: a number, or an activation's own gain")


class Scaled(Gained):
    kind: Literal[
        "lecun_normal", "lecun_uniform", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "pytorch_default"
    ]

    @model_validator(mode="after")
    def _gain_once(self) -> Self:
        if self.kind.startswith("he_") and isinstance(self.gain, Gain):
            plain = self.kind.replace("he_", "lecun_")
            raise ValueError(f"{self.kind} holds the gain of relu already: write {{kind: {plain}, gain: ...}}")
        return self

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int, gain: float = 1.0, parts: int = 1) -> Initial:
        drawn, scale, fan = _SCALED[self.kind]
        return Initial(drawn, shape, sd=gain * math.sqrt(scale / _fan(fan, fan_in, fan_out)))


class VarianceScaling(Gained):
    """The variance scale / fan; of a truncated normal, too, whose parent is wider by as much as the cut takes (JAX, Keras)."""

    kind: Literal["variance_scaling"]
    scale: PositiveFloat = Field(default=1.0, description="the variance times the fan: sigma_w squared where the fan is fan_in")
    mode: Fan = "fan_in"
    distribution: Literal["normal", "uniform", "truncated_normal"] = "normal"

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int, gain: float = 1.0, parts: int = 1) -> Initial:
        return Initial(self.distribution, shape, sd=gain * math.sqrt(self.scale / _fan(self.mode, fan_in, fan_out)))


class Orthogonal(Gained):
    """Orthonormal rows or columns, whichever are fewer, times the gain (Saxe et al. 2013); a kernel is the matrix of its first
    axis and all others, a vector one of length ``gain``."""

    kind: Literal["orthogonal"]

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int, gain: float = 1.0, parts: int = 1) -> Initial:
        if not shape:
            raise ValueError("orthogonal needs a vector or a matrix, not a single number")
        longer = max(shape[0] // parts, math.prod(shape[1:]))
        return Initial("orthogonal", shape, sd=gain / math.sqrt(longer), parts=parts)


class Identity(Gained):
    """``gain`` on the diagonal, 0 elsewhere: a matrix that hands on what enters, as far as the narrower side goes; of a kernel
    (``dirac``) the diagonal of filters and channels at the middle tap."""

    kind: Literal["identity", "dirac"]

    def initial(self, shape: tuple[int, ...], fan_in: int, fan_out: int, gain: float = 1.0, parts: int = 1) -> Initial:
        if len(shape) < 2:
            raise ValueError(f"{self.kind} needs a matrix or a kernel")
        share = parts * min(shape[0] // parts, shape[1]) / math.prod(shape)
        return Initial("identity", shape, gain * share, gain * math.sqrt(share * (1.0 - share)), parts=parts)


def _fan(mode: Fan, fan_in: int, fan_out: int) -> float:
    return {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2.0}[mode]


_Stated = Annotated[
    Scaled | VarianceScaling | Orthogonal | Identity | Normal | TruncatedNormal | Uniform | Fixed | Constant,
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
    "identity",
    "dirac",
    "zeros",
    "ones",
]
AnyDistribution = Annotated[_Stated, BeforeValidator(kind_alone, json_schema_input_type=_Alone | _Stated)]

PYTORCH_DEFAULT = Scaled(kind="pytorch_default")
ZEROS, ONES = Fixed(kind="zeros"), Fixed(kind="ones")


class Rule(NamedTuple):
    """What parameters are drawn from whose full name, or whose layer's, ``pattern`` takes; ``name`` is their own, None: any.
    ``written`` is how the text has it."""

    written: str
    pattern: str
    name: str | None
    distribution: Distribution

    def applies(self, layer: str, name: str) -> bool:
        full = f"{layer}/{name}"
        if self.name is None:
            return matches(self.pattern, full)
        return full.endswith(f"/{self.name}") and (matches(self.pattern, full) or matches(self.pattern, layer))


_DRAWN: TypeAdapter[Any] = TypeAdapter(AnyDistribution)
_BY_NAME: TypeAdapter[Any] = TypeAdapter(dict[str, AnyDistribution])


def _drawn_or_by_name(given: Any, handler: Any) -> Any:
    by_name = isinstance(given, dict) and "kind" not in given
    return (_BY_NAME if by_name else _DRAWN).validate_python(given, strict=True)


AnyRule = Annotated[Any, WrapValidator(_drawn_or_by_name, json_schema_input_type=AnyDistribution | dict[str, AnyDistribution])]


class InitDefaults(Part):
    """What weights and biases are drawn from where a layer does not say and, by pattern over the full names of parameters or
    by their own names, what others are; of several patterns the last one counts."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, AnyRule]

    weight: AnyDistribution = PYTORCH_DEFAULT
    bias: AnyDistribution = PYTORCH_DEFAULT

    def default(self, name: str) -> Distribution:
        """That of a parameter that no pattern names: the biases', whose names end so, or the weights'."""
        return self.bias if name.endswith("bias") else self.weight

    def rules(self) -> Iterator[Rule]:
        """In the text's order."""
        for pattern, given in (self.__pydantic_extra__ or {}).items():
            if isinstance(given, dict):
                yield from (Rule(pattern, pattern, name, distribution) for name, distribution in given.items())
            else:
                whole = any(mark in pattern for mark in "/.*?[")
                yield Rule(pattern, pattern if whole else "*", None if whole else pattern, given)


class Init(Part):
    """``init:`` of a layer with weights; what is absent follows the model's own ``init:``."""

    weight: AnyDistribution | None = None
    bias: AnyDistribution | None = None


class NormalizationInit(Part):
    """``init:`` of a normalization layer: ones and zeros, whatever the model's own ``init:`` says."""

    scale: AnyDistribution = ONES
    bias: AnyDistribution = ZEROS
