"""What a layer is: the fields that a person writes, and a few lines that emit ONNX operators.

    class Flatten(Layer):
        kind: Literal["flatten"]

        def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
            return site.op.Flatten(inputs[0], axis=1)

A layer knows no names, no wires and no lines of text: spec/ places it, build.py hands it a site to build on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BeforeValidator, Field

from vgcompile.layers.part import NotEmpty, Part
from vgcompile.rules.rule import Rule
from vgcompile.rules.shapes import UNFIT

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from vgcompile.graph.emit import Emitter
    from vgcompile.layers.distribution import Distribution

    Make = Callable[[tuple[int, ...]], np.ndarray[Any, Any]]

Shape = tuple[int | str, ...]
Reads = Literal["real numbers", "class numbers", "either"]  # what the inputs of a layer hold; with either, it sees to it itself
Name = Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_.-]*|[0-9]+)$")]
NAME_OR_PATH = r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$"
Reference = Annotated[str, Field(pattern=NAME_OR_PATH)]


def _several(given: object) -> object:
    return (given,) if isinstance(given, str) else given


References = Annotated[
    tuple[Reference, ...], NotEmpty, BeforeValidator(_several, json_schema_input_type=Reference | tuple[Reference, ...])
]


class Unfit(Exception):
    """The inputs of a layer do not suit it: what was found, and what would do. ``build`` turns it into a complaint."""

    def __init__(self, message: str, hint: str = "", rule: Rule = UNFIT) -> None:
        self.message, self.hint, self.rule = message, hint, rule
        super().__init__(message)


class Site(Protocol):
    """Where a layer is built: the emitter, already in the layer's scope, and the store of its parameters."""

    op: Emitter
    training: bool

    def shape(self, value: ir.Value) -> Shape: ...

    def classes(self, value: ir.Value) -> int | None:
        """How many class numbers an integer input may hold; None of another value."""
        ...

    def parameter(
        self,
        name: str,
        shape: Sequence[int],
        distribution: Distribution | None,
        *,
        fan_in: int = 1,
        fan_out: int = 1,
        parts: int = 1,
    ) -> ir.Value:
        """A trainable parameter ``<layer>/<name>``, that of another layer where ``share:`` names one.

        ``distribution`` is that of the layer's ``init`` or, where this does not state one, what it is drawn from as a rule; None
        stands for the model's default. ``parts`` counts the matrices that stand one behind another along the first axis: gates,
        the groups of a convolution. Raises Unfit where the other layer has it in another shape.
        """
        ...

    def shared(self, name: str) -> Shape | None:
        """The shape of that parameter, where the layer that ``share:`` names has made it already."""
        ...

    def mean_square(self, parameter: ir.Value) -> float:
        """E[w^2] of what a trainable parameter is drawn from."""
        ...

    def state(self, name: str, shape: tuple[int, ...], make: Make) -> ir.Value:
        """A float32 initializer ``<layer>/<name>`` that no gradient reaches; ``make(shape)`` is asked for it when it is read."""
        ...

    def stream(self, name: str) -> int:
        """A 31-bit seed of this layer's own for an operator that draws at run time."""
        ...


class Layer(Part):
    """The fields that every layer has. ``takes`` is the least and greatest number of inputs (None: any number), ``reads`` what
    they hold."""

    takes: ClassVar[tuple[int, int | None]] = (1, 1)
    reads: ClassVar[Reads] = "real numbers"

    kind: str
    name: Name | None = Field(default=None, description="the layer's name; its kind, numbered, where absent")
    sources: References | None = Field(
        default=None, alias="from", description="the layers or inputs it reads; the previous layer where absent"
    )
    when: bool = Field(default=True, description="false leaves the layer out: an expression of parameters, as a rule")
    share: Reference | None = Field(default=None, description="a layer whose parameters it uses, in place of its own")

    @abstractmethod
    def emit(self, site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        """Append the layer's operators; returns its output. Raises Unfit or ModelError where the inputs do not suit."""


def extent(shape: Shape, axis: int) -> int:
    """A dimension that sizes a parameter. Raises Unfit where it is symbolic."""
    size = shape[axis]
    if isinstance(size, int):
        return size
    raise Unfit(
        f"axis {axis} of its input must be a known number, not {size!r}", "give the network's inputs fixed sizes beyond the batch"
    )


def behind_batch(axis: int, shape: Shape, hint: str = "use -1 for the last axis") -> int:
    """``axis`` counted from the front. Raises Unfit where ``shape`` has no such axis, or it is the batch."""
    if not -len(shape) < axis < len(shape) or axis == 0:
        raise Unfit(f"axis {axis} is not an axis of {show(shape)} behind the batch", hint)
    return axis % len(shape)


def show(shape: Shape) -> str:
    """``[batch, 64]``"""
    return f"[{', '.join(map(str, shape))}]"
