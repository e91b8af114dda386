"""What a rule of recognition finds, and what it may ask of the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from vgcompile.importing.trial import Array, Region

Fields = Mapping[str, Any]


class Unlike(Exception):
    """No layer is like this node, and why."""


@dataclass(frozen=True)
class Found:
    """A layer: what it reads and gives are values of the graph; ``function`` says that it may stand in ``activation:``."""

    kind: str
    sources: Sequence[ir.Value]
    output: ir.Value
    fields: Fields = field(default_factory=dict)
    weights: Mapping[str, Array] = field(default_factory=dict)
    function: bool = False
    copies: bool = False  # the output is the source itself, and no layer
    share: ir.Value | None = None  # the table of the embedding whose parameters it has


@dataclass(frozen=True)
class Composite:
    """Layers that ``nodes`` around the ``core`` make, in order."""

    core: ir.Node
    found: Sequence[Found]
    nodes: frozenset[ir.Node]


class Reading(Protocol):
    """What rules may ask of the graph."""

    @property
    def opset(self) -> int: ...

    @property
    def region(self) -> Region: ...

    @property
    def needed(self) -> Sequence[ir.Node]:
        """The nodes that data go through on their way to the outputs, in order."""
        ...

    @property
    def inputs(self) -> Sequence[ir.Value]:
        """What is fed, and no parameter."""
        ...

    @property
    def outputs(self) -> Sequence[str]: ...

    def users(self, value: ir.Value) -> Sequence[ir.Node]:
        """The needed nodes that read a value."""
        ...

    def rate(self, node: ir.Node) -> float:
        """That of a dropout, or of the one on an attention's weights."""
        ...

    def learned(self, value: ir.Value) -> bool:
        """Whether a value is a parameter, or is made of some."""
        ...

    def parameters_above(self, value: ir.Value, base: ir.Value) -> Sequence[ir.Value]:
        """The parameters that a value is made of, but for those of ``base``."""
        ...

    def array(self, value: ir.Value | None) -> Array | None:
        """What a value holds, where data have no part in it."""
        ...

    def only_user(self, value: ir.Value) -> ir.Node | None:
        """The one node that reads a value which nobody else sees."""
        ...

    def take(self, node: ir.Node) -> None:
        """Say that a further node is a part of this layer."""
        ...


Rule = Callable[[ir.Node, Reading], Found | Sequence[Found]]


def operand(node: ir.Node, position: int) -> ir.Value:
    value = node.inputs[position] if position < len(node.inputs) else None
    if value is None:
        raise Unlike(f"its input {position} is missing")
    return value


def held(node: ir.Node, position: int, reading: Reading, what: str) -> Array:
    array = reading.array(operand(node, position))
    if array is None:
        raise Unlike(f"its {what} depends on data")
    return array


def short(number: float) -> float:
    """The shortest number that is the same float32."""
    return float(str(np.float32(number)))
