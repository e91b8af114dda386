"""A function that a person writes: of one input, as a layer or in ``activation:``, or of several.

{kind: expression, formula: "x * tanh(softplus(x))"}
{kind: expression, formula: "x * sigmoid(beta * x)", parameters: {beta: {learned: 1.0}}}
{kind: expression, from: [value, gate], formula: "value * sigmoid(gate)"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from vgcompile.layers.factor import Factor, factor
from vgcompile.layers.formula import CONSTANTS, FUNCTIONS, FormulaError, emit, parse, variables
from vgcompile.layers.function import Activation
from vgcompile.layers.layer import Layer, Site, Unfit
from vgcompile.layers.part import Part

if TYPE_CHECKING:
    import onnx_ir as ir

_Symbol = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class _Formula(Part):
    parameters: dict[_Symbol, Factor] = Field(default={}, description="named numbers, fixed or {learned: ...}")
    formula: str = Field(description="of x and the parameters, or of the inputs by the names that `from` gives them")

    @field_validator("parameters")
    @classmethod
    def _own_names(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for name in given:
            if name in CONSTANTS or name in FUNCTIONS or name in _read(info.data.get("sources")):
                raise ValueError(f"the name {name!r} of a parameter is taken: choose another")
        return given

    @field_validator("formula")
    @classmethod
    def _readable(cls, formula: str, info: ValidationInfo) -> str:
        if "parameters" not in info.data:
            return formula
        sources = _read(info.data.get("sources"))
        names = (*sources, *info.data["parameters"])
        used = set(variables(parse(formula, names)))
        for name in names:
            if name not in used:
                raise ValueError(f"the formula never reads {name!r}; let it, or leave {name} out")
        return formula

    def _value(self, site: Site, inputs: Mapping[str, ir.Value]) -> ir.Value:
        x = next(iter(inputs.values()))
        named = {name: factor(site, x, given, name) for name, given in self.parameters.items()}
        return emit(site.op, parse(self.formula, (*inputs, *named)), {**inputs, **named})  # type: ignore[no-any-return]


def _read(sources: Sequence[str] | None) -> tuple[str, ...]:
    """What the inputs are called in a formula: ``x``, or of several each by the last part of its name. Raises FormulaError where
    two would be called alike, or one cannot be written in a formula."""
    if sources is None or len(sources) == 1:
        return ("x",)
    names = tuple(source.rpartition("/")[2] for source in sources)
    for name in names:
        if not name.isidentifier() or names.count(name) > 1 or name in CONSTANTS or name in FUNCTIONS:
            raise FormulaError(1, f"no formula can name the input {name!r}", "give the layer that it comes from another name")
    return names


class Expression(Activation, _Formula):
    """A formula as an activation."""

    kind: Literal["expression"]

    def apply(self, site: Site, x: ir.Value) -> ir.Value:
        return self._value(site, {"x": x})


class ExpressionLayer(_Formula, Layer):
    """A formula as a layer, of inputs of one shape."""

    takes: ClassVar[tuple[int, int | None]] = (1, None)
    kind: Literal["expression"]

    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        if len({site.shape(x) for x in inputs}) > 1:
            raise Unfit(
                "an expression needs inputs of one shape", "bring them to one shape first, or use multiply with broadcast"
            )
        return self._value(site, dict(zip(_read(self.sources), inputs, strict=True)))
