"""What parameters cost by their size, added to the losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from vgcompile.layers.part import NotEmpty, Part, PositiveFloat
from vgcompile.layers.pattern import Pattern

if TYPE_CHECKING:
    import onnx_ir as ir

    from vgcompile.graph.emit import Emitter


class Penalty(Part):
    """l1 sum |w| + l2 sum w^2 over every parameter that ``on`` names: a gradient of l1 sign(w) + 2 l2 w, so that ``l2: 5e-5`` is
    what optimizers call a weight decay of 1e-4."""

    l1: PositiveFloat | None = None
    l2: PositiveFloat | None = None
    on: Annotated[tuple[Pattern, ...], NotEmpty, BeforeValidator(lambda x: (x,) if isinstance(x, str) else x)] = Field(
        default=("*.weight",), description="patterns over the parameters' full names"
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.l1 is None and self.l2 is None:
            raise ValueError("a penalty states l1:, l2: or both")
        return self

    def emit(self, op: Emitter, parameters: Sequence[ir.Value]) -> ir.Value:
        """The penalty of these parameters, of shape []."""
        terms = [
            op.Mul(reduced(parameter, keepdims=0), factor)
            for factor, reduced in ((self.l1, op.ReduceL1), (self.l2, op.ReduceSumSquare))
            if factor is not None
            for parameter in parameters
        ]
        return terms[0] if len(terms) == 1 else op.Sum(*terms)  # type: ignore[no-any-return]


Penalties = Annotated[
    tuple[Penalty, ...],
    NotEmpty,
    BeforeValidator(
        lambda given: (given,) if isinstance(given, dict) else given, json_schema_input_type=Penalty | tuple[Penalty, ...]
    ),
]
