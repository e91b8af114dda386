"""A graph -> the layers that it consists of, in order, or every node that is like no layer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from pydantic import ValidationError

from vgcompile.errors import ModelError
from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.network import Network
from vgcompile.importing.recognition import Array, Found, Unlike, recognized
from vgcompile.layers import LAYERS
from vgcompile.ops import lookup

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

    def names(self, network: Network) -> list[str]:
        """The file's outputs in the order of their layers, which is that of the model's."""
        return [name for _, name in sorted(zip(self.outputs, network.outputs, strict=True))]


def read_layers(network: Network) -> Stack:
    """The layers between a network's inputs and its outputs. Raises ModelError that names every node like no layer."""
    return _Reader(network).stack()


class _Reader:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.graph = network.model.graph
        self.places: dict[ir.Value, str | int] = {value: str(value.name) for value in self.graph.inputs}
        self.taken: set[ir.Node] = set()
        self.arrays: dict[ir.Value, Array | None] = {}
        self.layers: list[Read] = []
        self.owners: dict[tuple[str, ...], int] = {}  # by the parameters' names

    def stack(self) -> Stack:
        outputs = [value for value in _values(self.graph) if value.name in self.network.outputs]
        needed = _above(outputs)
        unlike = []
        for node in self.graph:
            if node in needed and node not in self.taken and any(self.array(value) is None for value in node.outputs):
                try:
                    self.place(node)
                except Unlike as reason:
                    unlike.append(f"{node.op_type} (node {node.name!r}): {reason}")
        if unlike:
            listed = unlike if len(unlike) <= SHOWN else [*unlike[: SHOWN - 1], f"and {len(unlike) - SHOWN + 1} more"]
            raise ModelError(f"{self.network.source}: what has no layer cannot be imported:\n  " + "\n  ".join(listed))
        ordered = sorted(outputs, key=lambda value: self.network.outputs.index(str(value.name)))
        return Stack(tuple(self.layers), tuple(self._output(value) for value in ordered))

    def _output(self, value: ir.Value) -> int:
        place = self.places[value]
        if isinstance(place, str):
            raise ModelError(f"{self.network.source}: the output {value.name!r} is the input {place!r} itself, and no layer's")
        if any(place in layer.sources for layer in self.layers):
            raise ModelError(f"{self.network.source}: the output {value.name!r} is read by other layers; make it no output")
        return place

    def place(self, node: ir.Node) -> None:
        (first, *_), (output, *_) = node.inputs, node.outputs
        if node.op_type in _COPIES and first in self.places and first.dtype == output.dtype:
            self.places[output] = self.places[first]
            return
        found = self.activated(_checked(recognized(node, self)))
        sources = tuple(self.places[value] for value in found.sources if value in self.places)
        if len(sources) < len(found.sources):
            self.places[found.output] = -1  # behind a node that is like no layer, and is complained about
            return
        names = tuple(str(value.name) for value in node.inputs if value is not None and self.array(value) is not None)
        owner = self.owners.setdefault((found.kind, *names), len(self.layers)) if found.weights else len(self.layers)
        shared = owner < len(self.layers)
        read = Read(
            found.kind,
            found.fields,
            sources,
            {} if shared else found.weights,
            self.path(node, names),
            owner if shared else None,
        )
        self.places[found.output] = len(self.layers)
        self.layers.append(read)

    def activated(self, found: Found) -> Found:
        """With the function behind it, where that may stand in ``activation:``."""
        behind = self.only_user(found.output)
        if behind is None or "activation" not in LAYERS[found.kind].model_fields:
            return found
        try:
            function = _checked(recognized(behind, self))
            if not function.function:
                return found
            stated = {"kind": function.kind, **function.fields} if function.fields else function.kind
            joined = _checked(replace(found, fields={**found.fields, "activation": stated}, output=function.output))
        except Unlike:
            return found
        self.taken.add(behind)
        return joined

    def path(self, node: ir.Node, names: Sequence[str]) -> tuple[str, ...]:
        """What the file calls a layer: by its parameters or, where it has none, by its node."""
        heads = [match[1] for name in names if (match := _OWN.match(name)) and name in self.network.parameters]
        own = (node.name or "").lstrip("/")
        if not heads and not own.startswith(("node_", node.op_type)) and (match := _OWN.match(own)):
            heads = [match[1]]
        return tuple(part for part in re.split(r"[/.]", heads[0]) if part) if heads else ()

    # What rules ask

    def array(self, value: ir.Value | None) -> Array | None:
        if value is None:
            return None
        if value not in self.arrays:
            self.arrays[value] = self._computed(value)
        return self.arrays[value]

    def _computed(self, value: ir.Value) -> Array | None:
        if value.const_value is not None:
            return np.asarray(value.const_value.numpy())
        node = value.producer()
        row = lookup(node.op_type, node.domain) if node is not None else None
        if node is None or row is None or row.numpy is None or len(node.outputs) != 1:
            return None
        operands = [self.array(operand) for operand in node.inputs]
        if any(held is None and given is not None for held, given in zip(operands, node.inputs, strict=True)):
            return None
        computed = np.asarray(row.numpy(*operands, **attributes_of(node)))
        return computed.astype(value.dtype.numpy()) if value.dtype is not None else computed

    def only_user(self, value: ir.Value) -> ir.Node | None:
        users = list(value.consumers())
        alone = len(users) == 1 and len(value.uses()) == 1 and value.name not in self.network.outputs
        return users[0] if alone and not value.is_graph_output() else None

    def take(self, node: ir.Node) -> None:
        self.taken.add(node)


def _checked(found: Found) -> Found:
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


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


def _above(outputs: Sequence[ir.Value]) -> set[ir.Node]:
    """The nodes that values are computed by."""
    found: set[ir.Node] = set()
    open_ = [value.producer() for value in outputs]
    while open_:
        node = open_.pop()
        if node is not None and node not in found:
            found.add(node)
            open_ += [value.producer() for value in node.inputs if value is not None]
    return found
