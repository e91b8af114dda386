"""Blocks and repeats opened, names given: the tree of a model's layers.

    {kind: block, name: hidden, repeat: 2, layers: [{kind: dense, ...}]}
    {kind: dense, name: logits, ...}

is opened into ``hidden/1/dense``, ``hidden/2/dense`` and ``logits``. The text's tree is read leniently: what a field should have
been is said elsewhere (complaints.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

from pydantic import ValidationError

from vgcompile.errors import Complain, Mark, Note
from vgcompile.layers import LAYERS
from vgcompile.layers.composite import Composite, WrittenOut
from vgcompile.rules import wires as rules
from vgcompile.spec.reading import Node, Path, list_of, mapping_of

MOST_LAYERS = 20_000  # read within a second
COMPOSITES = frozenset(kind for kind, cls in LAYERS.items() if issubclass(cls, Composite))


@dataclass(eq=False)
class Place:
    """A node of the opened tree: a layer, or a group of them (a block, a copy of it, a residual, its shortcut)."""

    name: str
    node: Node
    path: Path
    parent: Place | None = None
    previous: Place | None = None
    children: dict[str, Place] = field(default_factory=dict)  # the last one is what leaves the group
    role: Literal["stated", "copy", "shortcut", "sum"] = "stated"  # the `from` in the text is a stated place's

    @property
    def output(self) -> Place:
        place = self
        while place.children:
            place = next(reversed(place.children.values()))
        return place


def open_layers(root: Node, inputs: Mapping[str, Mark], complain: Complain) -> tuple[Place, list[Place]]:
    """The root of the opened tree, and its leaves in the text's order; no leaves where there would be too many."""
    opening = _Opening(inputs, complain)
    top = Place("", root, ())
    layers = root.get("layers")
    if _count(layers) > MOST_LAYERS:
        complain(
            root.children["layers"].mark,
            f"blocks and repeats open into more than {MOST_LAYERS:,} layers",
            "repeat less",
            rules.TOO_MANY_LAYERS,
        )
    elif layers is not None:
        opening.grow(top, layers, ("layers",))
    return top, opening.leaves


class _Opening:
    def __init__(self, inputs: Mapping[str, Mark], complain: Complain) -> None:
        self.inputs, self.complain = inputs, complain
        self.leaves: list[Place] = []
        self.names: dict[Path, list[str]] = {}  # by list: the copies of a block share theirs

    def grow(self, parent: Place, layers: Node, path: Path) -> None:
        """Give ``parent`` a child for each layer of a list, and open those that are made of layers."""
        previous: Place | None = None
        for (index, node), name in zip(_mappings(layers), self.named(parent, layers, path), strict=True):
            place = Place(_join(parent.name, name), node, (*path, index), parent, previous)
            parent.children[name] = previous = place
            self.open(place)

    def open(self, place: Place) -> None:
        if text(place.node, "kind") not in COMPOSITES or not _mappings(place.node.get("layers")):
            self.leaves.append(place)
            return
        if "share" in place.node.children:
            self.complain(
                place.node.keys["share"],
                f"a {text(place.node, 'kind')} has no parameters of its own",
                "share those of its layers",
                rules.NOTHING_TO_SHARE,
            )
        repeat = _repeat(place.node)
        if repeat is None:
            self.fill(place)
            return
        previous: Place | None = None
        for number in range(1, repeat + 1):
            copy = Place(f"{place.name}/{number}", place.node, place.path, place, previous, role="copy")
            place.children[str(number)] = previous = copy
            self.fill(copy)

    def fill(self, place: Place) -> None:
        layers = place.node.get("layers")
        assert layers is not None
        self.grow(place, layers, (*place.path, "layers"))
        if text(place.node, "kind") != "residual":
            return
        around = place.node.get("shortcut")
        if around is not None and _mappings(around):
            shortcut = Place(f"{place.name}/shortcut", place.node, place.path, place, role="shortcut")
            self.grow(shortcut, around, (*place.path, "shortcut"))
            place.children["shortcut"] = shortcut
        place.children["sum"] = Place(f"{place.name}/sum", place.node, place.path, place, role="sum")
        self.leaves.append(place.children["sum"])

    def named(self, parent: Place, layers: Node, path: Path) -> list[str]:
        """The names of a list's layers: as given or, where absent, the kind, numbered from the second of it."""
        if path in self.names:
            return self.names[path]
        taken = self.reserved(parent)
        places = dict(self.inputs) if parent.parent is None else {}
        given: list[str | None] = []
        for _, node in _mappings(layers):
            name = text(node, "name")
            if name in taken:
                notes = (Note("first written here", places[name]),) if name in places else ()
                self.complain(node.children["name"].mark, f"the name {name!r} is taken", taken[name], rules.TAKEN_NAME, notes)
                name = None
            elif name is not None:
                mark = places[name] = node.children["name"].mark
                taken[name] = f"first at line {mark.line}, column {mark.column}"
            given.append(name)
        free: dict[str, Iterator[str]] = {}
        names = []
        for (_, node), name in zip(_mappings(layers), given, strict=True):
            kind = text(node, "of") or text(node, "kind") or "layer"
            numbered = free.setdefault(kind, _numbered(kind))
            names.append(name or next(new for new in numbered if new not in taken))
        self.names[path] = names
        return names

    def reserved(self, parent: Place) -> dict[str, str]:
        """Names that a list's layers cannot have, each with its reason."""
        if parent.parent is None:
            inputs = {name: f"an input has it, at line {mark.line}, column {mark.column}" for name, mark in self.inputs.items()}
            return {**inputs, "loss": "it is the loss's own"}
        names = {"input": "within a block it means what enters the block"}
        if text(parent.node, "kind") == "residual":
            names |= {"shortcut": "it is the residual's own", "sum": "it is the residual's own"}
        return names


def written_out(node: Node) -> Node:
    """A mapping with ``layers:`` in every composite below that states them by its other fields (layers/transformer.py), each of
    them at the composite's own place. One whose fields are wrong is left as it is."""
    lists: dict[str | int, Node] = {key: _each(node.children[key]) for key in ("layers", "shortcut") if _mappings(node.get(key))}
    kind = LAYERS.get(text(node, "kind") or "")
    if kind is not None and issubclass(kind, WrittenOut) and "layers" not in node.children:
        try:
            layers = kind.model_validate(node.value).layers
        except ValidationError:
            return node
        lists["layers"] = _node(tuple(layer.model_dump(by_alias=True, exclude_unset=True) for layer in layers), node.mark)
    return _with(node, lists) if lists else node


def _each(layers: Node) -> Node:
    written: dict[str | int, Node] = {index: written_out(node) for index, node in _mappings(layers)}
    return _with(layers, written)


def _with(node: Node, children: Mapping[str | int, Node]) -> Node:
    return Node(node.value, node.mark, {**node.children, **children}, node.keys, node.count, node.depth)


def _node(value: Any, mark: Mark) -> Node:
    """A plain value as a tree, all of it at one place."""
    if isinstance(value, dict):
        return mapping_of({key: _node(item, mark) for key, item in value.items()}, mark)
    return list_of([_node(item, mark) for item in value], mark) if isinstance(value, tuple) else Node(value, mark)


def _count(layers: Node | None) -> int:
    """Layers that a list opens into."""
    total = 0
    for _, node in _mappings(layers):
        inner = _count(node.get("layers")) + _count(node.get("shortcut"))
        total += (_repeat(node) or 1) * (inner + 1)
    return total


def _mappings(layers: Node | None) -> list[tuple[int, Node]]:
    if layers is None or not isinstance(layers.value, tuple):
        return []
    return [(int(index), node) for index, node in layers.children.items() if isinstance(node.value, dict)]


def _repeat(node: Node) -> int | None:
    stated = node.get("repeat")
    return stated.value if stated is not None and type(stated.value) is int and stated.value > 0 else None


def given(node: Node, key: str) -> Node | None:
    """A field that is there; null is as good as absent."""
    child = node.get(key)
    return child if child is not None and child.value is not None else None


def text(node: Node, key: str) -> str | None:
    """A field that is a string, or None."""
    child = node.get(key)
    return child.value if child is not None and isinstance(child.value, str) else None


def _numbered(kind: str) -> Iterator[str]:
    yield kind
    yield from (f"{kind}_{number}" for number in count(2))


def _join(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name
