"""A mapping of a model file, and what all of them have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LARGEST_FLOAT = 3.4028234e38  # of float32, a little less
LARGEST_INT = 2**31 - 1  # no extent of an array that fits into memory is larger

Positive = Annotated[int, Field(gt=0, le=LARGEST_INT)]
Natural = Annotated[int, Field(ge=0, le=LARGEST_INT)]
Seed = Annotated[int, Field(ge=0)]
Index = Annotated[int, Field(ge=-LARGEST_INT, le=LARGEST_INT)]


def _single(given: float) -> float:
    if abs(given) > LARGEST_FLOAT:
        raise ValueError("the numbers of a network are float32: at most 3.4e38")
    return given


Finite = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_single)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(_single)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_single)]


def _not_empty(given: Any) -> Any:
    if not given:
        raise ValueError("at least one is needed here")
    return given


NotEmpty = AfterValidator(_not_empty)  # pydantic's own min_length also complains where every item is wrong


class Part(BaseModel):
    """Frozen, its fields read strictly (no ``"20"`` for 20), unknown ones refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def kind_alone(given: object) -> object:
    """A kind that needs no further field may be written alone: ``relu`` for ``{kind: relu}``."""
    return {"kind": given} if isinstance(given, str) else given
