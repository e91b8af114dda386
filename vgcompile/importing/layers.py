"""A graph -> the layers that it consists of, in order, or every node that is like no layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import numpy as np
import onnx_ir as ir
from pydantic import ValidationError

from vgcompile.errors import ModelError
from vgcompile.graph.emit import is_real
from vgcompile.graph.network import Network
from vgcompile.importing.finding import Composite, Found, Unlike
from vgcompile.importing.reading import Facts, without_dropout
from vgcompile.importing.recognition import COMPOSITES, LAYOUTS, recognized
from vgcompile.importing.trial import Array
from vgcompile.layers import LAYERS

SHOWN = 20  # nodes that are like no layer; the others are counted
_COPIES = ("Identity", "Cast", "CastLike")
_OWN = re.compile(r"(.+)[./][^./]+$")  # encoder.fc1.weight: the module's name, then the parameter's


@dataclass(frozen=True)
class Read:
    """A layer of the file. ``sources`` are inputs, by name, or earlier layers, by place; ``path`` is what the file calls it, and
    ``fields`` hold what is not the default."""

    kind: str
    fields: Mapping[str, Any]
    sources: tuple[str | int, ...]
    weights: Mapping[str, Array] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    share: int | None = None


@dataclass(frozen=True)
class Stack:
    """All layers, and which of them the outputs are."""

    layers: tuple[Read, ...]
    outputs: tuple[int, ...]

    def classes(self, name: str) -> int | None:
        """How many class numbers an input holds by what reads it: rows of a table, or what a mask hides and does not."""
        rows = [layer.fields.get("size") for layer in self.layers if layer.kind == "embedding" and layer.sources == (name,)]
        masks = [2 for layer in self.layers if layer.kind == "attention" and layer.sources[2:] == (name,)]
        return min([*(size for size in rows if size), *masks], default=None)

    def names(self, network: Network) -> list[str]:
        """The file's outputs in the order of their layers, which is that of the model's."""
        return [name for _, name in sorted(zip(self.outputs, network.outputs, strict=True))]


def read_layers(network: Network) -> Stack:
    """The layers between a network's inputs and its outputs; attention with a dropout behind its weights is raised on the way.
    Raises ModelError that names every node like no layer."""
    return _Reader(network, without_dropout(network)).stack()


class _Reader:
    def __init__(self, network: Network, rates: dict[str, float]) -> None:
        self.network = network
        self.facts = Facts(network, rates)
        self.places: dict[ir.Value, str | int] = {value: str(value.name) for value in self.facts.inputs}
        self.layers: list[Read] = []
        self.owners: dict[tuple[str, ...], int] = {}  # by kind and the parameters' names
        self.unlike: dict[ir.Node, str] = {}

    def stack(self) -> Stack:
        facts, source = self.facts, self.network.source
        values = {value.name: value for node in facts.graph for value in node.outputs} | {v.name: v for v in facts.inputs}
        outputs = [values[name] for name in self.network.outputs]
        composites = self.composites()
        ends = {found.output: found.sources for composite in composites.values() for found in composite.found}
        inside = {node for composite in composites.values() for node in composite.nodes}
        order = {*facts.leading_to(outputs, ends), *composites}
        for node in facts.needed:
            if node in composites:
                self.put(composites[node].found, node, inside=composites[node].nodes)
            elif node in order and node not in facts.taken and node not in inside and node not in self.unlike:
                try:
                    self.place(node)
                except Unlike as reason:
                    self.unlike[node] = str(reason)
                    self.places.update(dict.fromkeys(node.outputs, -1))
        if self.unlike:
            self._leave_layouts_out()
            listed = [f"{node.op_type} (node {node.name!r}): {reason}" for node, reason in self.unlike.items()]
            listed = listed if len(listed) <= SHOWN else [*listed[: SHOWN - 1], f"and {len(listed) - SHOWN + 1} more"]
            raise ModelError(f"{source}: what has no layer cannot be imported:\n  " + "\n  ".join(listed))
        return Stack(tuple(self.layers), tuple(self._output(value) for value in outputs))

    def _leave_layouts_out(self) -> None:
        """Nodes that only lay out what a composite that was found to be none reads or gives have nothing to be complained of."""
        open_ends = [node for node in self.unlike if node.op_type in COMPOSITES]
        while open_ends:
            node = open_ends.pop()
            beside = [value.producer() for value in node.inputs if value is not None]
            beside += [user for value in node.outputs for user in value.consumers()]
            for other in beside:
                if other in self.unlike and other.op_type in LAYOUTS:
                    del self.unlike[other]
                    open_ends.append(other)

    def composites(self) -> dict[ir.Node, Composite]:
        """Layers of many nodes, by the one around which they were found."""
        made: dict[ir.Node, Composite] = {}
        inside: set[ir.Node] = set()
        for operator, rule in COMPOSITES.items():
            for node in [node for node in self.facts.needed if node.op_type == operator and node not in inside]:
                try:
                    found = rule(node, self.facts)
                    if found is not None:
                        self._require_closed(found)
                        *before, last = map(checked, found.found)
                        made[node] = replace(found, found=[*before, self.activated(last)])
                        inside |= found.nodes
                except Unlike as reason:
                    self.unlike[node] = str(reason)
        return made

    def _require_closed(self, composite: Composite) -> None:
        """Raises Unlike where somebody else reads a value between the nodes of a layer."""
        given = {found.output for found in composite.found}
        for node in composite.nodes:
            for value in node.outputs:
                outside = [user for user in self.facts.users(value) if user not in composite.nodes]
                read = outside[0].name if outside else "the file's output" if value.name in self.network.outputs else None
                if value not in given and read is not None:
                    raise Unlike(f"a value within it, {value.name!r}, is read elsewhere ({read})")

    def _output(self, value: ir.Value) -> int:
        place = self.places[value]
        if isinstance(place, str):
            raise ModelError(f"{self.network.source}: the output {value.name!r} is the input {place!r} itself, and no layer's")
        if any(place in layer.sources for layer in self.layers):
            raise ModelError(f"{self.network.source}: the output {value.name!r} is read by other layers; make it no output")
        return place

    def place(self, node: ir.Node) -> None:
        (first, *_), (output, *_) = node.inputs, node.outputs
        known = None if first is None else self.places.get(first)
        if first is not None and known is not None and node.op_type in _COPIES and (known == -1 or _copies(first, output)):
            self.places[output] = known
            return
        *before, last = recognized(node, self.facts)
        if last.copies:
            if last.sources[0] in self.places:
                self.places[last.output] = self.places[last.sources[0]]
            return
        self.put([*map(checked, before), self.activated(checked(last))], node)

    def put(self, layers: Sequence[Found], node: ir.Node, inside: Iterable[ir.Node] = ()) -> None:
        """Layers that a node stands for, which are in the graph what is ``inside``."""
        for found in layers:
            sources = tuple(self.places[value] for value in found.sources if value in self.places)
            if len(sources) < len(found.sources) or -1 in sources:
                self.places[found.output] = -1  # behind a node that is like no layer, and is complained about
                continue
            names = self.names([node, *inside]) if found.weights else []
            owner = self._owner(found, names)
            shared = owner is not None
            read = Read(
                found.kind,
                found.fields,
                sources,
                {} if shared else found.weights,
                self.path(node, names),
                owner,
            )
            self.places[found.output] = len(self.layers)
            self.layers.append(read)

    def _owner(self, found: Found, names: Sequence[str]) -> int | None:
        """The layer whose parameters it has."""
        if found.share is not None:
            return self.owners.get(("embedding", str(found.share.name)))
        told = [name for name in names if self.facts.telling(name)]  # exporters merge tensors of one value, such as ones
        owner = self.owners.setdefault((found.kind, *names), len(self.layers)) if told else len(self.layers)
        return owner if owner < len(self.layers) else None

    def names(self, nodes: Sequence[ir.Node]) -> list[str]:
        """The initializers that nodes read, also behind others that only prepare them."""
        values = [value for node in nodes for value in node.inputs if value is not None and not self.facts.region.fed(value)]
        named = dict.fromkeys(str(v.name) for value in values for v in self.facts.prepared(value))
        return sorted(named) if len(nodes) > 1 else list(named)

    def activated(self, found: Found) -> Found:
        """With the function behind it, where that may stand in ``activation:``."""
        behind = self.facts.only_user(found.output) if found.output.name is not None else None
        if behind is None or "activation" not in LAYERS[found.kind].model_fields:
            return found
        try:
            *_, function = map(checked, recognized(behind, self.facts))
            if not function.function:
                return found
            stated = {"kind": function.kind, **function.fields} if function.fields else function.kind
            joined = checked(replace(found, fields={**found.fields, "activation": stated}, output=function.output))
        except Unlike:
            return found
        self.facts.take(behind)
        return joined

    def path(self, node: ir.Node, names: Sequence[str]) -> tuple[str, ...]:
        """What the file calls a layer: by its parameters or, where it has none, by its node."""
        own_names = [name for name in names if name in self.network.parameters and self.facts.readers(name) == 1]
        heads = [match[1] for name in own_names if (match := _OWN.match(name))]
        own = (node.name or "").lstrip("/")
        if not heads and not own.startswith(("node_", node.op_type)) and (match := _OWN.match(own)):
            heads = [match[1]]
        parts = [tuple(part for part in re.split(r"[/.]", head) if part) for head in heads]
        return tuple(column[0] for column in takewhile(lambda column: len(set(column)) == 1, zip(*parts, strict=False)))


def _copies(x: ir.Value, y: ir.Value) -> bool:
    """Whether a cast changes no number that a model's input may hold."""
    return x.dtype == y.dtype or not (is_real(x) or is_real(y))


def checked(found: Found) -> Found:
    """With the fields that are not the default. Raises Unlike where the language has no such kind or field."""
    layer = LAYERS.get(found.kind)
    if layer is None:
        raise Unlike(f"it would be {found.kind}, which is no layer")
    try:
        stated = layer.model_validate({"kind": found.kind, **found.fields})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Unlike(f"it would be {found.kind} with {where}: {first['input']!r}, which that does not take") from None
    kept = {
        name: value for name, value in found.fields.items() if not _alike(getattr(stated, name), layer.model_fields[name].default)
    }
    return replace(found, fields=kept)


def _alike(value: Any, default: Any) -> bool:
    """Equal as float32, in which networks compute."""
    if isinstance(value, float) and isinstance(default, float):
        return bool(np.float32(value) == np.float32(default))
    return type(value) is type(default) and bool(value == default)
