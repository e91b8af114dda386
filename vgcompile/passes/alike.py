"""A rule is asked once for all nodes that it cannot tell from each other.

    Gemm(x1, w1), y1'  ->  x1' = Gemm(y1', w1),  w1' = Gemm(x1, y1')      the rule is asked, and what it emits is recorded
    Gemm(x2, w2), y2'  ->  x2' = Gemm(y2', w2),  w2' = Gemm(x2, y2')      the record is emitted again for other operands

A rule knows a node's operator and attributes, and of the values that the node reads and makes, and of adjoints, types and
dimensions; of a constant, the constant. It has no other eyes (tests/test_alike.py), so that nodes of which all of this is equal
get the same steps. So do the bodies of composites. A deep net repeats its layers: most of a sweep is then a few records.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from vgcompile.graph.attributes import frozen
from vgcompile.graph.emit import Emitter, Step, constant_of, dims
from vgcompile.graph.view import bodies
from vgcompile.ops.op import Dim

Place = int | ir.Value | None  # in the list of what is known by then; or a constant that all share
Parts = Sequence[tuple[int, ir.Value]]  # by position of the node's operand, or output


@dataclass(frozen=True)
class Own:
    """An extent that only a run tells: its symbol is the name of the value at ``place``, and which of its axes it is."""

    place: int
    axis: int


@dataclass(frozen=True)
class Emitted:
    """A step of a recipe, the places of its operands, and the shapes of outputs that hold symbols of the recipe's own."""

    step: Step
    operands: tuple[Place, ...]
    shapes: tuple[tuple[int, tuple[Dim | Own, ...]], ...]


@dataclass(frozen=True)
class Recipe:
    """What was emitted for a node, and which of all that is known then goes to which operand of the node."""

    steps: tuple[Emitted, ...]
    parts: tuple[tuple[int, Place], ...]

    def repeated(self, emitter: Emitter, known: Iterable[ir.Value | None]) -> list[tuple[int, ir.Value]]:
        """Emit the steps for another node, of which ``known`` are the operands, the outputs and their adjoints."""
        values = list(known)
        for emitted in self.steps:
            made = emitter.repeat(emitted.step, [_at(values, place) for place in emitted.operands])
            values.extend(made)
            for index, shape in emitted.shapes:
                made[index].shape = ir.Shape([_symbol(values, dim) if isinstance(dim, Own) else dim for dim in shape])
        return [(position, value) for position, place in self.parts if (value := _at(values, place)) is not None]


def _at(values: Sequence[ir.Value | None], place: Place) -> ir.Value | None:
    return values[place] if isinstance(place, int) else place


def _symbol(values: Sequence[ir.Value | None], own: Own) -> str:
    value = values[own.place]
    assert value is not None
    return f"{value.name}.{own.axis}"


SMALL = 64  # elements of a constant that is compared


class Recipes:
    """The recipes of one sweep, by what nodes have in common; None where the rule has to be asked each time."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Recipe | None] = {}
        self._numbers: dict[Hashable, int] = {}  # of a type with dimensions: numbers are compared faster
        self._constants: dict[ir.Value, Hashable] = {}
        self._kinds: dict[tuple[int, int], tuple[int, object]] = {}  # by type and shape, kept with them: a rule may restate one

    def knows(self, question: Hashable) -> bool:
        return self._known.get(question) is not None

    def answered(
        self, emitter: Emitter, question: Hashable, known: Sequence[ir.Value | None], asked: Callable[[], Parts]
    ) -> Parts:
        """What a node of this likeness gets: by the record of another one, or else by asking. ``known`` are its operands, its
        outputs and their adjoints."""
        found = self._known.get(question)
        if found is not None:
            return found.repeated(emitter, known)
        with emitter.recorded() as made:
            parts = asked()
        if question is not None:
            self._known.setdefault(question, recipe(emitter, known, made, parts))
        return parts

    def likeness(self, node: ir.Node, adjoints: Sequence[ir.Value | None], active: Sequence[bool]) -> Hashable:
        """What nodes of one recipe have in common; None for a node that is like no other: it holds graphs or large tensors, or
        reads a value twice. ``active`` says of each operand whether it wants an adjoint."""
        known = (*node.inputs, *node.outputs, *adjoints)
        facts = tuple([None if value is None else self._facts(value) for value in known])
        present = [value for value in known if value is not None]
        attributes = frozen(node)
        if len(set(present)) < len(present) or attributes is None:
            return None
        return node.op_identifier(), node.version, attributes, len(node.inputs), len(node.outputs), facts, tuple(active)

    def _facts(self, value: ir.Value) -> Hashable:
        """All that a rule may know of a value."""
        if not value.name:  # an output that the node does not give
            return ()
        if value.const_value is not None and not value.is_graph_input():
            return self._constant(value)
        kind, shape = value.type, value.shape
        same = id(kind), id(shape)
        if same not in self._kinds:
            facts = kind, None if shape is None else dims(value)
            self._kinds[same] = self._numbers.setdefault(facts, len(self._numbers)), (kind, shape)
        return self._kinds[same][0]

    def _constant(self, value: ir.Value) -> Hashable:
        """The bytes of a constant; of a large one, which one it is."""
        if value not in self._constants:
            assert value.const_value is not None
            small = constant_of(value) if value.const_value.size <= SMALL else None
            self._constants[value] = value if small is None else (small.dtype, small.shape, small.tobytes())
        return self._constants[value]


def recipe(
    emitter: Emitter,
    known: Sequence[ir.Value | None],
    made: Sequence[tuple[ir.Node, str]],
    parts: Parts,
) -> Recipe | None:
    """The recipe of what was emitted; None where it would not hold for another node: it reads a value that is neither known nor
    made by it nor a shared constant, holds graphs, or has an extent whose symbol is nobody's."""
    places: dict[ir.Value, int] = {value: place for place, value in enumerate(known) if value is not None}
    meaning: dict[str, Dim | Own] = {dim: dim for value in places for dim in _symbols(value)}
    count = len(known)
    steps = []
    for node, name in made:
        operands = tuple([None if value is None else places.get(value, value) for value in node.inputs])
        places.update(zip(node.outputs, range(count, count + len(node.outputs)), strict=True))
        count += len(node.outputs)
        for value in node.outputs:
            for axis in range(len(value.shape or ())):
                meaning.setdefault(f"{value.name}.{axis}", Own(places[value], axis))
        other = node.metadata_props != made[0][0].metadata_props
        unknown = any(symbol not in meaning for value in node.outputs for symbol in _symbols(value))
        if other or unknown or bodies(node) or not all(_shared(emitter, place) for place in operands):
            return None
        steps.append(_emitted(node, name, operands, meaning))
    given = tuple((position, places.get(value, value)) for position, value in parts)
    return Recipe(tuple(steps), given) if all(_shared(emitter, place) for _, place in given) else None


def _emitted(node: ir.Node, name: str, operands: tuple[Place, ...], meaning: Mapping[str, Dim | Own]) -> Emitted:
    shapes = {}
    for index, value in enumerate(node.outputs):
        if any(isinstance(meaning[symbol], Own) for symbol in _symbols(value)):
            shapes[index] = tuple([meaning[dim] if isinstance(dim, str) else dim for dim in dims(value)])
    outputs = tuple((value.type, None if index in shapes else value.shape) for index, value in enumerate(node.outputs))
    step = Step(node.domain, node.op_type, tuple(node.attributes.values()), name, outputs)
    return Emitted(step, operands, tuple(shapes.items()))


def _shared(emitter: Emitter, place: Place) -> bool:
    return not isinstance(place, ir.Value) or emitter.holds(place)


def _symbols(value: ir.Value) -> list[str]:
    """The symbols in a value's shape; one that is in no shape where that is unknown."""
    return [""] if value.shape is None else [dim for dim in dims(value) if isinstance(dim, str)]
