"""Wires drawn between the opened layers: which reads which.

    image -> hidden/1/dense -> hidden/2/dense -> logits -> loss

Wiring is a matter of names alone. It is read off the text's tree, leniently, so that a wrong wire is found beside a wrong field.

A name is looked up among the layers beside it, then outward block by block, then among the inputs. ``hidden/2/dense`` goes down,
``hidden`` is what leaves the block, and ``input``, within a block, is what enters it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from vgcompile.errors import Complaint, Findings, Mark, nearest
from vgcompile.layers import LAYERS
from vgcompile.layers.loss import LOSSES
from vgcompile.rules import wires as rules
from vgcompile.spec.feeding import feeding, unknown_input
from vgcompile.spec.opening import Place, given, open_layers, text, written_out
from vgcompile.spec.reading import Node, Path

MOST_COMPARED = {kind: loss.most for loss in LOSSES for kind in get_args(loss.model_fields["kind"].annotation)}


@dataclass(frozen=True)
class Placed:
    """A layer that emits operators: its full name, where its fields stand in the document, the names that it reads, and the
    layer whose parameters it uses, itself as a rule."""

    name: str
    path: Path
    sources: tuple[str, ...]
    mark: Mark
    owner: str


@dataclass(frozen=True)
class PlacedLoss:
    """A loss: its name, and the full names of the layers and of the target that it compares."""

    name: str
    sources: tuple[str, ...]
    target: str
    mark: Mark


@dataclass(frozen=True)
class Wiring:
    """``layers`` come each behind what they read; ``outputs`` enter a loss or, without one, are read by nobody."""

    layers: tuple[Placed, ...] = ()
    losses: tuple[PlacedLoss, ...] = ()
    outputs: tuple[str, ...] = ()
    complaints: tuple[Complaint, ...] = ()


def wire(root: Node) -> Wiring:
    return _Wirer(written_out(root)).wiring()


class _Wirer:
    def __init__(self, root: Node) -> None:
        self.root = root
        self.complain = Findings()
        self.misread = False  # a name is none, which is told elsewhere
        inputs = root.get("inputs")
        self.inputs: dict[str, Mark] = dict(inputs.keys) if inputs is not None else {}

    def wiring(self) -> Wiring:
        top, leaves = open_layers(self.root, self.inputs, self.complain)
        if not leaves or not self.inputs:
            return Wiring(complaints=self.complain.complaints)
        owners = {leaf.name: self.owner(leaf) for leaf in leaves}
        placed = {
            leaf.name: Placed(leaf.name, leaf.path, self.sources(leaf), leaf.node.mark, self.last_owner(leaf, owners))
            for leaf in leaves
        }
        losses = self.losses(top)
        for complaint in feeding(self.root):
            self.complain.add(complaint)
        ordered = _ordered(placed)
        if ordered is None:
            self.refuse_cycles(placed)
        if ordered is None or self.complain:
            return Wiring(complaints=self.complain.complaints)
        compared = dict.fromkeys(name for loss in losses for name in (*loss.sources, loss.target))
        outputs = tuple(name for name in compared if name in placed)
        if not losses:
            read = {source for layer in placed.values() for source in layer.sources}
            outputs = tuple(name for name in placed if name not in read)
        if not self.misread:
            self.refuse_unused(ordered, outputs, compared)
        return Wiring(ordered, losses, outputs, self.complain.complaints)

    def sources(self, place: Place) -> tuple[str, ...]:
        """The full names that a place reads; empty where one of them is unknown."""
        parent = place.parent
        assert parent is not None
        if place.role == "sum":
            *_, body = (child for child in parent.children.values() if child.role == "stated")
            around = parent.children.get("shortcut")
            return (body.output.name, *((around.output.name,) if around else self.sources(parent)))
        stated = given(place.node, "from") if place.role == "stated" else None
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

    def owner(self, place: Place) -> str:
        """The full name of the layer that ``share:`` names; the layer's own without one, or where it is unknown."""
        stated = given(place.node, "share") if place.role == "stated" else None
        if stated is None or place.parent is None:
            return place.name
        found = self.resolve(stated, place.parent)
        if found and found[0] in self.inputs:
            self.complain(
                stated.mark,
                f"{stated.value!r} has no parameters to share",
                "name a layer of the same kind",
                rules.NOTHING_TO_SHARE,
            )
        return found[0] if found else place.name

    def last_owner(self, place: Place, owners: Mapping[str, str]) -> str:
        """The one whose own the parameters are, where the named one shares in its turn."""
        name, passed = place.name, {place.name}
        while (owner := owners.get(name, name)) != name:
            if owner in passed:
                self.complain(
                    place.node.children["share"].mark,
                    "layers share each other's parameters in a circle",
                    "let one keep its own",
                    rules.CIRCLE,
                )
                return place.name
            passed.add(owner)
            name = owner
        return name

    def check_number(self, place: Place, sources: Sequence[object], stated: Node | None) -> None:
        kind = text(place.node, "kind") or ""
        if place.role != "stated" or kind not in LAYERS:
            return
        least, most = LAYERS[kind].takes
        mark = place.node.mark if stated is None else stated.mark
        number = len(sources)
        if number < least:
            hint = "name them: from: [a, b]"
            self.complain(mark, f"{kind} takes {least} or more inputs, found {number}", hint, rules.NUMBER_OF_INPUTS)
        elif most is not None and number > most:
            taken = "one input" if most == 1 else f"at most {most} inputs"
            crossing = "memory" in LAYERS[kind].model_fields
            hint = "name what it attends to: memory: NAME" if crossing else "join them with an add or concat layer first"
            self.complain(mark, f"{kind} takes {taken}, found {number}", hint, rules.NUMBER_OF_INPUTS)

    def resolve(self, reference: Node, scope: Place) -> tuple[str, ...]:
        if not isinstance(reference.value, str):
            self.misread = True
            return ()
        first, *rest = reference.value.split("/")
        known: list[str] = []
        place: Place | None = scope
        while place is not None:
            if first == "input" and not rest and place.parent is not None:
                return self.sources(place)
            if (
                first == "memory"
                and not rest
                and (memory := given(place.node, "memory")) is not None
                and place.parent is not None
            ):
                return self.resolve(memory, place.parent)
            if first in place.children:
                return self.descend(reference, place.children[first], rest)
            known += place.children
            place = place.parent
        if first in self.inputs and not rest:
            return (first,)
        self.unknown(reference, [*known, *self.inputs])
        return ()

    def descend(self, reference: Node, place: Place, rest: Sequence[str]) -> tuple[str, ...]:
        for name in rest:
            if name not in place.children:
                self.unknown(reference, [f"{place.name}/{child}" for child in place.children])
                return ()
            place = place.children[name]
        return (place.output.name,)

    def unknown(self, reference: Node, known: Sequence[str]) -> None:
        if reference.mark in self.complain:
            return  # by another copy: a nearest name takes its time
        name = reference.value
        listed = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        self.complain(
            reference.mark,
            f"unknown layer {name!r}",
            nearest(name, known) or (f"known here: {listed}" if known else "it holds no layers"),
            rules.UNKNOWN_LAYER,
        )

    def losses(self, top: Place) -> tuple[PlacedLoss, ...]:
        stated = self.root.get("loss")
        several = [] if stated is None else [stated] if stated.keys else [node for node in stated.children.values() if node.keys]
        names: dict[str, int] = {}
        return tuple(self.loss(node, top, names) for node in several)

    def loss(self, node: Node, top: Place, names: dict[str, int]) -> PlacedLoss:
        """One loss; ``names`` counts those that are taken. Without a name it has its kind, numbered from the second of it."""
        base = text(node, "name") or text(node, "kind") or "loss"
        names[base] = count = names.get(base, 0) + 1
        if count > 1 and text(node, "name"):
            self.complain(
                node.children["name"].mark, f"the name {base!r} is taken", "each loss has a name of its own", rules.TAKEN_NAME
            )
        stated = given(node, "input")
        sources: tuple[str, ...] = (top.output.name,)
        if stated is not None:
            references = list(stated.children.values()) or [stated]
            sources = tuple(name for reference in references for name in self.resolve(reference, top))
            self.check_compared(node, stated, len(references))
        return PlacedLoss(base if count == 1 else f"{base}_{count}", sources, self.target(node.get("target"), top), node.mark)

    def check_compared(self, node: Node, stated: Node, count: int) -> None:
        kind = text(node, "kind") or ""
        most = MOST_COMPARED.get(kind, count)
        if count > most:
            self.complain(
                stated.mark,
                f"{kind} takes one input, found {count}",
                "state a list of losses, one for each",
                rules.NUMBER_OF_INPUTS,
            )

    def target(self, stated: Node | None, top: Place) -> str:
        """An input or, where none is called so, a layer."""
        if stated is None or not isinstance(stated.value, str):
            return ""
        if stated.value in self.inputs:
            return stated.value
        if stated.value.split("/")[0] in top.children:
            return "".join(self.resolve(stated, top))
        self.complain.add(unknown_input(stated.value, stated.mark, self.inputs))
        return ""

    # What the wires must not do

    def refuse_cycles(self, placed: Mapping[str, Placed]) -> None:
        import networkx as nx  # slow to import, and few models are wrong in this way

        graph = nx.DiGraph((source, layer.name) for layer in placed.values() for source in layer.sources)
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
                rules.CIRCLE,
            )

    def refuse_unused(self, ordered: Sequence[Placed], outputs: Sequence[str], compared: Collection[str]) -> None:
        used = set(outputs)
        for layer in reversed(ordered):
            if layer.name in used:
                used.update(layer.sources)
        for layer in ordered:
            if layer.name not in used:
                hint = "remove it, or let another layer read it"
                self.complain(layer.mark, f"layer {layer.name!r} never reaches the loss", hint, rules.DEAD_LAYER)
        if "" in compared:
            return  # a target is told elsewhere to be missing or unknown, and any input may be meant
        for name, mark in self.inputs.items():
            if name not in used and name not in compared:
                self.complain(mark, f"input {name!r} is not used", "remove it, or let a layer read it", rules.UNUSED_INPUT)


def _ordered(placed: Mapping[str, Placed]) -> tuple[Placed, ...] | None:
    """The text's order, changed only where a layer reads one that stands further down; None where layers read in a circle."""
    position = {name: index for index, name in enumerate(placed)}
    wires = [(source, layer.name) for layer in placed.values() for source in layer.sources if source in position]
    if all(position[source] < position[name] for source, name in wires):
        return tuple(placed.values())
    import networkx as nx  # slow to import, and most models are written in order

    graph = nx.DiGraph(wires)
    graph.add_nodes_from(placed)
    if not nx.is_directed_acyclic_graph(graph):
        return None
    return tuple(placed[name] for name in nx.lexicographical_topological_sort(graph, key=position.__getitem__))
