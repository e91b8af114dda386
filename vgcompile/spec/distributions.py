"""What an input is drawn from where no data are given for it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from vgcompile.layers.layer import Name
from vgcompile.layers.part import Finite, Part, PositiveFloat, kind_alone


class UniformInput(Part):
    """Uniform over the input's range."""

    kind: Literal["uniform"]


class NormalInput(Part):
    kind: Literal["normal"]
    mean: Finite = 0.0
    sd: PositiveFloat = 1.0


class BernoulliInput(Part):
    """1 with probability p, else 0."""

    kind: Literal["bernoulli"]
    p: Annotated[float, Field(ge=0, le=1)] = 0.5


class ConstantInput(Part):
    kind: Literal["constant"]
    value: Finite


class ClassesInput(Part):
    """Class numbers, each as likely as another."""

    kind: Literal["classes"]


class LinearInput(Part):
    """What a linear teacher makes of another input: x W, plus normal noise. W is drawn once, of variance 1 / size of x; an input
    of class numbers gets the teacher's largest output."""

    kind: Literal["linear"]
    of: Name = Field(description="the input that the teacher reads")
    noise: Annotated[Finite, Field(ge=0)] = 0.0


_Stated = Annotated[
    UniformInput | NormalInput | BernoulliInput | ConstantInput | ClassesInput | LinearInput, Field(discriminator="kind")
]
_Alone = Literal["uniform", "normal", "bernoulli", "classes"]
InputDistribution = Annotated[_Stated, BeforeValidator(kind_alone, json_schema_input_type=_Alone | _Stated)]


def conflict(drawn: InputDistribution | None, classes: int | None, span: tuple[float, float] | None) -> str | None:
    """Why a distribution does not go with the input's classes and range; None where it does."""
    if classes is not None and span is not None:
        return "an input of class numbers takes no range:"
    if classes is not None:
        fits = drawn is None or isinstance(drawn, ClassesInput | LinearInput)
        return None if fits else "an input of class numbers is drawn from classes, or linear of another input"
    match drawn:
        case ClassesInput():
            return "distribution: classes is for inputs of type: int64 with classes:"
        case NormalInput() | LinearInput() if span is not None:
            return f"a {drawn.kind} distribution leaves every range: keep one of distribution: and range:"
        case UniformInput() if span is None:
            return "a uniform distribution needs range: [lo, hi]"
        case BernoulliInput() if span is not None and not (span[0] <= 0 and span[1] >= 1):
            return "a bernoulli distribution gives 0 and 1, which range: does not hold"
        case ConstantInput() if span is not None and not span[0] <= drawn.value <= span[1]:
            return f"the constant {drawn.value:g} lies outside range:"
    return None
