"""Layers that were read -> the text of a model, names given, in canonical layout."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, dropwhile, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.errors import ModelError
from vgcompile.graph.network import Input, Network
from vgcompile.importing.folding import Run, repeats, runs
from vgcompile.importing.layers import Read, Stack
from vgcompile.importing.losses import Stated
from vgcompile.importing.trial import Array
from vgcompile.spec.document import Document
from vgcompile.spec.layout import formatted

TARGET = "target"  # what the input of a loss that is added is called
_RESERVED = {"input", "loss"}
_RESERVED_INSIDE = {"input", "shortcut", "sum"}
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Written:
    name: str
    text: str
    weights: Mapping[str, Array]
    notes: tuple[str, ...]


def written(network: Network, stack: Stack, name: str, weights_file: str | None, loss: Stated) -> Written:
    """``loss`` is that of the file, or the one that is added to it."""
    writer = _Writer(network, stack)
    layers = writer.layers()
    notes = [*loss.notes, *_freed(network)]
    if list(stack.outputs) != sorted(stack.outputs):
        names = ", ".join(writer.visible[place] for place in sorted(stack.outputs))
        notes.append(f"the outputs come in the order of their layers: {names}")
    inputs = {writer.inputs[key]: fields for key, fields in _inputs(network, bool(loss.fields))}
    added = {_unique(TARGET, {*inputs, *writer.visible.values()}): loss.target} if loss.target else {}
    weights = {"weights": {"file": weights_file}} if weights_file and "weights" in Document.model_fields else {}
    title = _nameable(name)
    document = {
        "name": title,
        "inputs": {**inputs, **added},
        **weights,
        "layers": layers,
        **(_judged(loss, writer, *added) if loss.fields else {}),
    }
    weighed = f", its weights in {weights_file}" if weights_file else ""
    head = [f"# Imported from {Path(network.source).name}{weighed}."]
    if not loss.fields:
        head.append("# It states no loss: add one under loss:, or import it with --loss cross_entropy, mse, ...")
    text = "\n".join(head) + "\n" + formatted(json.dumps(document))
    return Written(title, text, writer.weights, tuple(notes))


class _Writer:
    """Gives names as it goes: a layer's own where the file has one, else its kind's."""

    def __init__(self, network: Network, stack: Stack) -> None:
        self.network, self.stack, self.runs = network, stack, runs(stack)
        self.inputs: dict[str, str] = {}
        for key in network.inputs:
            self.inputs[key] = _unique(_nameable(key), set(self.inputs.values()) | {"loss"})
        self.weights: dict[str, Array] = {}
        self.visible: dict[int, str] = {}  # by place: what a layer is called at the top, or its block
        self.full: dict[int, str] = {}
        self._taken = {*self.inputs.values(), *_RESERVED}

    def layers(self) -> list[dict[str, Any]]:
        made = []
        for run in self.runs:
            names = self.names(run)
            made.append(self.block(run, names) if run.copies > 1 else self.layer(run.start, names[0], run.start - 1))
        return _without_usual_names(made, {*self.inputs.values(), *_RESERVED})

    def names(self, run: Run) -> list[str]:
        """Of the layers of a unit; of one that does not repeat, of the layer."""
        paths = [self.stack.layers[run.start + place].path for place in range(run.size)]
        if run.copies == 1:
            name = _unique(_nameable(".".join(_spoken(paths[0])) or self.stack.layers[run.start].kind), self._taken)
            self._taken.add(name)
            return [name]
        common = len(_common([path for path in paths if path]))
        taken, names = set(_RESERVED_INSIDE), []
        for path, layer in zip(paths, self.stack.layers[run.start : run.start + run.size], strict=True):
            own = _spoken(path[common:] or path[-1:])
            names.append(_unique(_nameable(".".join(own) or layer.kind), taken))
            taken.add(names[-1])
        return names

    def layer(self, place: int, name: str, before: int) -> dict[str, Any]:
        """A layer that does not repeat; ``before`` is the place of the one above it."""
        layer = self.stack.layers[place]
        self.visible[place] = self.full[place] = name
        self.hold(name, layer)
        shared = {"share": self.full[layer.share]} if layer.share is not None else {}
        plain = self._follows(layer.sources, before)
        sources = {} if plain else {"from": _listed([self._called(source) for source in layer.sources])}
        return {"kind": layer.kind, "name": name, **sources, **self._fields(layer), **shared}

    def _fields(self, layer: Read) -> Mapping[str, Any]:
        """Without the size of a table that is its input's number of classes."""
        usual = [self.stack.classes(source) for source in layer.sources if isinstance(source, str)]
        drop = layer.kind == "embedding" and layer.fields.get("size") in usual
        return {key: value for key, value in layer.fields.items() if key != "size"} if drop else layer.fields

    def hold(self, name: str, layer: Read) -> None:
        """Row by row: safetensors writes memory as it lies, a transposed view's too."""
        self.weights |= {f"{name}/{key}": np.asarray(array, np.float32, order="C") for key, array in layer.weights.items()}

    def block(self, run: Run, names: Sequence[str]) -> dict[str, Any]:
        firsts = [self.stack.layers[place].path for place in range(run.start, run.end, run.size)]
        stem = [part for part in _common(firsts) if not part.isdigit()]
        name = _unique(_nameable(".".join(stem[-1:]) or "block"), self._taken)
        self._taken.add(name)
        inner, alone = [], run.size == 1 and repeats(self.stack.layers[run.start])
        for place in range(run.start, run.end):
            copy, within = divmod(place - run.start, run.size)
            layer = self.stack.layers[place]
            inside = f"/{names[within]}" if not alone else ""
            self.full[place] = f"{name}/{copy + 1}{inside}"
            self.visible[place] = name
            self.hold(self.full[place], layer)
            if copy == 0:
                inner.append(self._within(layer, run.start, within, names))
        entry = next(
            source
            for place in range(run.start, run.start + run.size)
            for source in self.stack.layers[place].sources
            if isinstance(source, str) or source < run.start
        )
        sources = {} if self._follows([entry], run.start - 1) else {"from": self._called(entry)}
        if alone:
            return {**inner[0], "name": name, **sources, "repeat": run.copies}
        return _composite({"name": name, **sources, "repeat": run.copies}, inner)

    def _within(self, layer: Read, start: int, within: int, names: Sequence[str]) -> dict[str, Any]:
        called = [names[source - start] if isinstance(source, int) and source >= start else "input" for source in layer.sources]
        before = names[within - 1] if within else "input"
        sources = {} if called == [before] else {"from": _listed(called)}
        return {"kind": layer.kind, "name": names[within], **sources, **self._fields(layer)}

    def _follows(self, sources: Sequence[str | int], before: int) -> bool:
        """Whether a layer reads what it would read without a word."""
        first = next(iter(self.network.inputs))
        return len(sources) == 1 and (sources[0] == before if before >= 0 else sources[0] == first)

    def _called(self, source: str | int) -> str:
        return self.inputs[source] if isinstance(source, str) else self.visible[source]

    def targets(self) -> list[str]:
        return [key for key, declared in self.network.inputs.items() if declared.role == "target"]


def _composite(head: Mapping[str, Any], layers: list[dict[str, Any]]) -> dict[str, Any]:
    """A block; where it ends in the sum of what its layers make and of what enters it, a residual."""
    *body, last = layers
    if last["kind"] == "add" and body and sorted(last["from"]) == sorted(["input", body[-1]["name"]]):
        activation = {"activation": last["activation"]} if "activation" in last else {}
        return {"kind": "residual", **head, **activation, "layers": _without_usual_names(body, _RESERVED_INSIDE)}
    return {"kind": "block", **head, "layers": _without_usual_names(layers, {"input"})}


def _without_usual_names(layers: Sequence[dict[str, Any]], reserved: set[str]) -> list[dict[str, Any]]:
    """Without each name that its layer would have anyway: its kind, numbered from the second nameless one."""
    usual = {layer["name"] for layer in layers if re.fullmatch(rf"{layer['kind']}(_\d+)?", layer["name"])}
    while True:
        taken = {*reserved, *(layer["name"] for layer in layers if layer["name"] not in usual)}
        given: dict[str, str] = {}
        for layer in layers:
            if layer["name"] in usual:
                given[layer["name"]] = _unique(layer["kind"], taken)
                taken.add(given[layer["name"]])
        wrong = {name for name, other in given.items() if name != other}
        if not wrong:
            return [{key: value for key, value in layer.items() if key != "name" or value not in usual} for layer in layers]
        usual -= wrong


def _judged(loss: Stated, writer: _Writer, *added: str) -> dict[str, Any]:
    (output,) = writer.stack.outputs
    target = added[0] if added else writer.inputs[next(iter(writer.targets()))]
    kind, *rest = loss.fields.items()
    return {"loss": dict([kind, ("input", writer.visible[output]), ("target", target), *rest])}


def _inputs(network: Network, loss: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, declared in network.inputs.items():
        if declared.role == "target" and not loss:
            continue
        yield key, _input(network, declared)


def _input(network: Network, declared: Input) -> dict[str, Any]:
    if not declared.shape:
        raise ModelError(f"{network.source}: the input {declared.name!r} has no axes; the first one should be the batch")
    batch = next((str(other.shape[0]) for other in network.inputs.values() if other.shape), "batch")
    shape = [
        "batch" if batch.isdigit() else _nameable(batch),
        *(dim if isinstance(dim, int) else _nameable(dim) for dim in declared.shape[1:]),
    ]
    if declared.dtype is ir.DataType.FLOAT:
        return {"shape": shape}
    if declared.dtype.is_integer() and declared.classes:
        return {"shape": shape, "type": "int64", "classes": declared.classes}
    raise ModelError(
        f"{network.source}: the input {declared.name!r} is {declared.dtype.name.lower()}; an input holds float32 "
        "numbers, or class numbers whose count the file tells"
    )


def _freed(network: Network) -> list[str]:
    fixed = {declared.shape[0] for declared in network.inputs.values() if declared.shape and isinstance(declared.shape[0], int)}
    return [f"the batch, {size} in the file, may have any size" for size in sorted(fixed)]


def _nameable(text: str) -> str:
    name = _UNNAMEABLE.sub("_", text).strip(".-") or "layer"
    return name if re.match(r"[A-Za-z_]", name) else f"_{name}"


def _unique(name: str, taken: set[str]) -> str:
    return next(new for new in chain([name], (f"{name}_{number}" for number in count(2))) if new not in taken)


def _spoken(path: tuple[str, ...]) -> tuple[str, ...]:
    """Without what says nothing: numbers in front, and what stands there twice (layer1/layer1.0/conv1)."""
    path = tuple(dropwhile(str.isdigit, path))
    return tuple(part for place, part in enumerate(path) if part not in path[:place] or part.isdigit())


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The parts that all paths begin with, the last part of none."""
    if not paths:
        return ()
    columns = zip(*(path[:-1] for path in paths), strict=False)
    return tuple(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, columns))


def _listed(names: Sequence[str]) -> Any:
    return names[0] if len(names) == 1 else list(names)
