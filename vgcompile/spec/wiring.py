"""Blocks and repeats opened, names given, wires drawn: which layer reads which.

    {kind: block, name: hidden, repeat: 2, layers: [{kind: dense, ...}]}
    {kind: dense, name: logits, ...}

    image -> hidden/1/dense -> hidden/2/dense -> logits

Wiring is a matter of names alone. It is read off the text's tree, leniently, so that a wrong wire is found beside a wrong field.

A name is looked up among the layers beside it, then outward block by block, then among the inputs. ``hidden/2/dense`` goes down,
``hidden`` is what leaves the block, and ``input``, within a block, is what enters it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import networkx as nx

from vgcompile.errors import Complaint, Mark, nearest
from vgcompile.layers import LAYERS
from vgcompile.spec.reading import Node, Path

MOST_LAYERS = 100_000
COMPOSITES = ("block", "residual")


@dataclass(frozen=True)
class Placed:
    """A layer that emits operators: its full name, where its fields stand in the document, and the names that it reads."""

    name: str
    path: Path
    sources: tuple[str, ...]
    mark: Mark


@dataclass(frozen=True)
class Wiring:
    """``layers`` come each behind what they read; ``outputs`` enter the loss or, without one, are read by nobody."""

    layers: tuple[Placed, ...] = ()
    outputs: tuple[str, ...] = ()
    complaints: tuple[Complaint, ...] = ()


def wire(root: Node) -> Wiring:
    return _Wirer(root).wiring()


@dataclass(eq=False)
class _Place:
    """A node of the opened tree: a layer, or a group of them (a block, a copy of it, a residual, its shortcut)."""

    name: str
    node: Node
    path: Path
    parent: _Place | None = None
    previous: _Place | None = None
    children: dict[str, _Place] = field(default_factory=dict)  # the last one is what leaves the group
    made: bool = False  # a copy, a shortcut or a sum: its `from` is not in the text

    @property
    def output(self) -> _Place:
        place = self
        while place.children:
            place = next(reversed(place.children.values()))
        return place


class _Wirer:
    def __init__(self, root: Node) -> None:
        self.root = root
        self.found: dict[Mark, Complaint] = {}  # one a place: the copies of a block repeat its faults
        self.leaves: list[_Place] = []
        self.names: dict[Path, list[str]] = {}
        inputs = root.get("inputs")
        self.inputs: dict[str, Mark] = dict(inputs.keys) if inputs is not None else {}

    def complain(self, mark: Mark, message: str, hint: str = "") -> None:
        self.found.setdefault(mark, Complaint(mark, message, hint))

    def wiring(self) -> Wiring:
        layers = self.root.get("layers")
        if layers is None or not self.inputs or not self.fits(layers):
            return Wiring(complaints=tuple(self.found.values()))
        top = _Place("", self.root, ())
        self.grow(top, layers, ("layers",))
        placed = {leaf.name: Placed(leaf.name, leaf.path, self.sources(leaf), leaf.node.mark) for leaf in self.leaves}
        loss = self.loss(top)
        self.check_arrays()
        graph = nx.DiGraph()
        graph.add_nodes_from([*self.inputs, *placed])
        graph.add_edges_from((source, layer.name) for layer in placed.values() for source in layer.sources)
        self.refuse_cycles(graph, placed)
        if self.found:
            return Wiring(complaints=tuple(self.found.values()))
        outputs = (loss,) if loss else tuple(name for name in placed if not graph.out_degree(name))
        self.refuse_unused(graph, placed, outputs)
        return Wiring(_ordered(graph, placed), outputs, tuple(self.found.values()))

    # Opening blocks and repeats

    def fits(self, layers: Node) -> bool:
        if _count(layers) <= MOST_LAYERS:
            return True
        self.complain(layers.mark, f"blocks and repeats open into more than {MOST_LAYERS:,} layers", "repeat less")
        return False

    def grow(self, parent: _Place, layers: Node, path: Path) -> None:
        """Give ``parent`` a child for each layer of a list, and open those that are made of layers."""
        previous: _Place | None = None
        for (index, node), name in zip(_mappings(layers), self.named(parent, layers, path), strict=True):
            place = _Place(_join(parent.name, name), node, (*path, index), parent, previous)
            parent.children[name] = previous = place
            self.open(place)

    def open(self, place: _Place) -> None:
        if _text(place.node, "kind") not in COMPOSITES or not _mappings(place.node.get("layers")):
            self.leaves.append(place)
            return
        repeat = _repeat(place.node)
        if repeat is None:
            self.fill(place)
            return
        previous: _Place | None = None
        for number in range(1, repeat + 1):
            copy = _Place(f"{place.name}/{number}", place.node, place.path, place, previous, made=True)
            place.children[str(number)] = previous = copy
            self.fill(copy)

    def fill(self, place: _Place) -> None:
        layers = place.node.get("layers")
        assert layers is not None
        self.grow(place, layers, (*place.path, "layers"))
        if _text(place.node, "kind") != "residual":
            return
        around = place.node.get("shortcut")
        if around is not None and _mappings(around):
            shortcut = _Place(f"{place.name}/shortcut", place.node, place.path, place, made=True)
            self.grow(shortcut, around, (*place.path, "shortcut"))
            place.children["shortcut"] = shortcut
        place.children["sum"] = _Place(f"{place.name}/sum", place.node, place.path, place, made=True)
        self.leaves.append(place.children["sum"])

    def named(self, parent: _Place, layers: Node, path: Path) -> list[str]:
        """The names of a list's layers: as given or, where absent, the kind, numbered from the second of it."""
        if path in self.names:
            return self.names[path]
        taken = self.reserved(parent)
        given: list[str | None] = []
        for _, node in _mappings(layers):
            name = _text(node, "name")
            if name in taken:
                self.complain(node.children["name"].mark, f"the name {name!r} is taken", taken[name])
                name = None
            elif name is not None:
                mark = node.children["name"].mark
                taken[name] = f"first at line {mark.line}, column {mark.column}"
            given.append(name)
        free: dict[str, Iterator[str]] = {}
        names = []
        for (_, node), name in zip(_mappings(layers), given, strict=True):
            kind = _text(node, "kind") or "layer"
            numbered = free.setdefault(kind, _numbered(kind))
            names.append(name or next(new for new in numbered if new not in taken))
        self.names[path] = names
        return names

    def reserved(self, parent: _Place) -> dict[str, str]:
        """Names that a list's layers cannot have, each with its reason."""
        if parent.parent is None:
            inputs = {name: f"an input has it, at line {mark.line}, column {mark.column}" for name, mark in self.inputs.items()}
            return {**inputs, "loss": "it is the loss's own"}
        names = {"input": "within a block it means what enters the block"}
        if _text(parent.node, "kind") == "residual":
            names |= {"shortcut": "it is the residual's own", "sum": "it is the residual's own"}
        return names

    # Drawing wires

    def sources(self, place: _Place) -> tuple[str, ...]:
        """The full names that a place reads; empty where one of them is unknown."""
        parent = place.parent
        assert parent is not None
        if place.made and place.name.endswith("/sum") and place is parent.output:
            body = [child for name, child in parent.children.items() if name not in ("shortcut", "sum")]
            around = parent.children.get("shortcut")
            return (body[-1].output.name, *((around.output.name,) if around else self.sources(parent)))
        stated = None if place.made else place.node.get("from")
        if stated is not None:
            names = [self.resolve(node, parent) for node in (stated.children.values() or [stated])]
            sources = tuple(name for found in names for name in found)
        elif place.previous is not None:
            sources = (place.previous.output.name,)
        elif parent.parent is not None:
            return self.sources(parent)
        else:
            sources = (next(iter(self.inputs)),)
        self.check_number(place, sources if stated is None else names, stated)
        return sources

    def check_number(self, place: _Place, sources: Sequence[object], stated: Node | None) -> None:
        kind = _text(place.node, "kind") or ""
        if place.made or kind not in LAYERS:
            return
        least, most = LAYERS[kind].takes
        mark = place.node.mark if stated is None else stated.mark
        if len(sources) < least:
            self.complain(mark, f"{kind} takes {least} or more inputs, found {len(sources)}", "name them: from: [a, b]")
        elif most is not None and len(sources) > most:
            self.complain(mark, f"{kind} takes one input, found {len(sources)}", "join them with an add or concat layer first")

    def resolve(self, reference: Node, scope: _Place) -> tuple[str, ...]:
        if not isinstance(reference.value, str):
            return ()
        first, *rest = reference.value.split("/")
        known: list[str] = []
        place: _Place | None = scope
        while place is not None:
            if first == "input" and not rest and place.parent is not None:
                return self.sources(place)
            if first in place.children:
                return self.descend(reference, place.children[first], rest)
            known += place.children
            place = place.parent
        if first in self.inputs and not rest:
            return (first,)
        self.unknown(reference, [*known, *self.inputs])
        return ()

    def descend(self, reference: Node, place: _Place, rest: Sequence[str]) -> tuple[str, ...]:
        for name in rest:
            if name not in place.children:
                self.unknown(reference, [f"{place.name}/{child}" for child in place.children])
                return ()
            place = place.children[name]
        return (place.output.name,)

    def unknown(self, reference: Node, known: Sequence[str]) -> None:
        name = reference.value
        listed = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        self.complain(
            reference.mark,
            f"unknown layer {name!r}",
            nearest(name, known) or (f"known here: {listed}" if known else "it holds no layers"),
        )

    def loss(self, top: _Place) -> str | None:
        """The full name of what enters the loss, or None without a loss."""
        loss = self.root.get("loss")
        if loss is None or not loss.keys:
            return None
        target = loss.get("target")
        if target is not None and isinstance(target.value, str) and target.value not in self.inputs:
            self.complain(target.mark, *self.unknown_input(target.value))
        stated = loss.get("input")
        if stated is None:
            return top.output.name
        found = self.resolve(stated, top)
        return found[0] if found else None

    def check_arrays(self) -> None:
        """``data: arrays:`` names each input once, and nothing else."""
        data = self.root.get("data")
        arrays = data.get("arrays") if data is not None else None
        if arrays is None or not isinstance(arrays.value, dict):
            return
        for name, mark in arrays.keys.items():
            if name not in self.inputs:
                self.complain(mark, *self.unknown_input(name))
        missing = [name for name in self.inputs if name not in arrays.keys]
        if missing:
            self.complain(arrays.mark, f"no array for the input {missing[0]!r}")

    def unknown_input(self, name: str) -> tuple[str, str]:
        return f"unknown input {name!r}", nearest(name, self.inputs) or f"inputs: {', '.join(self.inputs)}"

    # What the wires must not do

    def refuse_cycles(self, graph: nx.DiGraph, placed: dict[str, Placed]) -> None:
        if nx.is_directed_acyclic_graph(graph):
            return
        for members in nx.strongly_connected_components(graph):
            part = graph.subgraph(members)
            if not part.number_of_edges():
                continue
            first = min(members, key=lambda name: placed[name].mark)
            cycle = [source for source, _ in nx.find_cycle(part, first)]
            start = cycle.index(min(cycle, key=lambda name: placed[name].mark))
            cycle = [*cycle[start:], *cycle[:start]]
            stated = self.root.at(placed[cycle[0]].path).get("from")
            mark = placed[cycle[0]].mark if stated is None else stated.mark
            self.complain(
                mark,
                f"layers read each other in a circle: {' -> '.join([*cycle, cycle[0]])}",
                "let one of them read something else",
            )

    def refuse_unused(self, graph: nx.DiGraph, placed: dict[str, Placed], outputs: Sequence[str]) -> None:
        used = set(outputs).union(*(nx.ancestors(graph, output) for output in outputs))
        for name, layer in placed.items():
            if name not in used:
                self.complain(layer.mark, f"layer {name!r} never reaches the loss", "remove it, or let another layer read it")
        loss = self.root.get("loss")
        target = loss.get("target") if loss is not None else None
        for name, mark in self.inputs.items():
            if name not in used and (target is None or target.value != name):
                self.complain(mark, f"input {name!r} is not used", "remove it, or let a layer read it")


def _ordered(graph: nx.DiGraph, placed: dict[str, Placed]) -> tuple[Placed, ...]:
    """The text's order, changed only where a layer reads one that stands further down."""
    position = {name: index for index, name in enumerate(graph)}
    if all(position[source] < position[name] for source, name in graph.edges):
        return tuple(placed.values())
    order = nx.lexicographical_topological_sort(graph, key=position.__getitem__)
    return tuple(placed[name] for name in order if name in placed)


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


def _text(node: Node, key: str) -> str | None:
    child = node.get(key)
    return child.value if child is not None and isinstance(child.value, str) else None


def _numbered(kind: str) -> Iterator[str]:
    yield kind
    yield from (f"{kind}_{number}" for number in count(2))


def _join(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name
