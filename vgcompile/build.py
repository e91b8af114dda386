"""Spec -> Network: every layer emits its operators in a scope of its own name.

    hidden/3/dense  ->  /hidden/3/dense/Gemm, /hidden/3/dense/Sigmoid, reading hidden/3/dense/weight and hidden/3/dense/bias

What a layer emits it says itself (layers); here its operators get their names and metadata. Its parameters are parameters.py's,
the loss is objective.py's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from vgcompile.errors import Complaint, Mark, ModelError, Note, SpecError
from vgcompile.graph.emit import IR_VERSION, OPSET, Emitter, dims
from vgcompile.graph.network import DataFile, Drawn, Input, Network, Table
from vgcompile.graph.provenance import PREFIX
from vgcompile.initial import Initial, stream
from vgcompile.layers.distribution import Distribution
from vgcompile.layers.layer import Layer, Shape, Unfit, show
from vgcompile.objective import TOTAL, Objective, objective
from vgcompile.parameters import Fans, Parameters
from vgcompile.rules import shapes as rules
from vgcompile.rules.wires import NOTHING_TO_SHARE
from vgcompile.spec import Spec, capped
from vgcompile.spec.data import OFFERED
from vgcompile.spec.distributions import BernoulliInput, ConstantInput, LinearInput, NormalInput
from vgcompile.spec.document import InputFields
from vgcompile.spec.lint import lint
from vgcompile.spec.origin import expansion
from vgcompile.spec.reading import Node
from vgcompile.spec.wiring import Placed

if TYPE_CHECKING:
    from vgcompile.layers.layer import Make

Mode = Literal["training", "inference"]
_READING = {
    "real numbers": "put an embedding before it, or use them as the target of cross_entropy",
    "class numbers": "let it read an input of type: int64 with its number of classes",
}
_DTYPES = {"float32": ir.DataType.FLOAT, "int64": ir.DataType.INT64}


def build(spec: Spec, *, mode: Mode = "training", seed: int | None = None) -> Network:
    """THE graph of a model: forward and loss. ``seed`` overrides the model's own for the initial values.

    Graph inputs are the data inputs, then each trainable parameter with its initial value as its default. Raises SpecError where
    layers do not fit each other, with all complaints at once.
    """
    builder = _Builder(spec, mode == "training", spec.document.seed if seed is None else seed)
    for placed in spec.layers:
        builder.place(placed)
    store = builder.store
    found = objective(builder, spec, {name: store.held[name] for name in store.trainable})
    if not builder.complaints:
        builder.complaints += [*builder.idle_shares(), *store.complaints()]
    if builder.complaints:
        raise SpecError(capped(builder.complaints))
    outputs = builder.outputs(spec.outputs, found)
    model = ir.Model(builder.graph, ir_version=IR_VERSION, producer_name="vgcompile")
    return Network(
        name=spec.name,
        source=spec.file,
        model=model,
        inputs={name: _input(spec, name, fields) for name, fields in spec.document.inputs.items()},
        outputs=outputs,
        loss=found.total.name if found.total is not None else None,
        parts=found.parts,
        reduction=" and ".join(dict.fromkeys(loss.reduction for loss in spec.document.loss)) or "mean",
        parameters=tuple(store.trainable),
        data=_data(spec),
        text=spec.text,
        seed=builder.seed,
        warnings=tuple(lint(spec, {name: dims(value) for name, value in builder.values.items() if value is not None})),
    )


class _Builder:
    """The graph under construction; to the layer that is being placed, its site (layers/layer.py)."""

    def __init__(self, spec: Spec, training: bool, seed: int) -> None:
        self.spec, self.training, self.seed = spec, training, seed
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=spec.name)
        self.values: dict[str, ir.Value | None] = {}  # by layer; None where its place was complained about
        for name, fields in spec.document.inputs.items():
            value = ir.Value(name=name, shape=ir.Shape(fields.shape), type=ir.TensorType(_DTYPES[fields.type]))
            self.graph.inputs.append(value)
            self.values[name] = value
        self.op = Emitter(self.graph)
        self.marks = spec.marks
        self.complaints: list[Complaint] = []
        self.store = Parameters(self.op, spec, seed)
        self._placed: Layer | None = None
        self._layer = ""
        self.asked: dict[str, set[str]] = {}  # by layer, the names of the parameters that it uses
        self._owner = ""  # the layer whose parameters are used, as a rule the one that is placed

    def place(self, placed: Placed) -> None:
        inputs = [self.values[name] for name in placed.sources]
        self.values[placed.name] = None
        present = [value for value in inputs if value is not None]
        if len(present) < len(inputs):
            return
        layer = self.spec.layer(placed)
        found = {"class numbers" if value.dtype is _DTYPES["int64"] else "real numbers" for value in present}
        if layer.reads != "either" and found - {layer.reads}:
            message = f"{layer.kind} takes {layer.reads}, found {' and '.join(sorted(found - {layer.reads}))}"
            self.complain(placed.mark, Unfit(message, _READING[layer.reads], rules.CLASS_NUMBERS), placed.sources, placed)
            return
        self._placed = layer
        with self.at(placed.name, layer.kind, placed.mark, placed.owner):
            try:
                self.values[placed.name] = layer.emit(self, present)
            except (Unfit, ModelError) as error:
                self.complain(placed.mark, error, placed.sources, placed)

    def idle_shares(self) -> Iterator[Complaint]:
        """Where ``share:`` names a layer that has no such parameters, or stands in one that uses none."""
        for placed in self.spec.layers:
            own, named = self.asked.get(placed.name, set()), self.asked.get(placed.owner, set())
            missing = own - named - {"bias"}  # what a tied layer may have of its own
            if placed.owner == placed.name or (own and not missing):
                continue
            stated = self.spec.tree.at((*placed.path, "share"))
            lacking = f"{stated.value!r} has no {' and '.join(sorted(missing)) if named else 'parameters'} to share"
            message = lacking if own else f"{placed.name!r} has no parameters of its own"
            hint = "name a layer of the same kind" if own else "leave share: out"
            yield Complaint(stated.mark, message, hint, NOTHING_TO_SHARE, (Note(f"{placed.owner!r}", self.marks[placed.owner]),))

    def outputs(self, names: Sequence[str], found: Objective) -> tuple[str, ...]:
        """Make graph outputs of the named layers, each under the layer's own name, of the loss and of its parts."""
        made = []
        for name in names:
            value = self.values[name]
            assert value is not None
            if value.producer() is not None:
                value.name = self.op.fresh_value_name(name)
            made.append(value)
        parts = {value.name: value for node in self.graph for value in node.outputs if value.name in found.parts}
        self.graph.outputs.extend([*made, *([found.total] if found.total is not None else []), *(parts[n] for n in found.parts)])
        return tuple(str(value.name) for value in made)

    # The site of the layer that is being placed

    def shape(self, value: ir.Value) -> Shape:
        return dims(value)

    def classes(self, value: ir.Value) -> int | None:
        stated = self.spec.document.inputs.get(value.name or "")
        return stated.classes if stated is not None and value.is_graph_input() else None

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
        assert self._placed is not None
        self.asked.setdefault(self._layer, set()).add(name)
        return self.store.parameter(self._placed, self._owner, name, tuple(shape), distribution, Fans(fan_in, fan_out, parts))

    def mean_square(self, parameter: ir.Value) -> float:
        return Initial.from_json(parameter.metadata_props[PREFIX + "initial"]).square

    def shared(self, name: str) -> Shape | None:
        made = self.store.held.get(f"{self._owner}/{name}")
        return None if made is None else dims(made)

    def state(self, name: str, shape: tuple[int, ...], make: Make) -> ir.Value:
        return self.store.state(self._owner, name, shape, make)

    def stream(self, name: str) -> int:
        return int(stream(self.seed, f"{self._layer}/{name}").integers(2**31))

    def at(self, name: str, kind: str, mark: Mark, owner: str) -> AbstractContextManager[Emitter]:
        self._layer, self._owner = name, owner
        return self.op.scope(name, layer=name, kind=kind, source=str(mark))

    def complain(self, mark: Mark, error: Unfit | ModelError, sources: Sequence[str] = (), placed: Placed | None = None) -> None:
        """At ``mark``, with the place and the shape of every input: what does not fit was made there.

        An error that states a rule of its own keeps it.
        """
        message, hint = (error.message, error.hint) if isinstance(error, Unfit) else (str(error), "")
        rule = rules.UNFIT_LOSS if self._layer == TOTAL else rules.UNFIT
        if isinstance(error, Unfit) and error.rule is not rules.UNFIT:
            rule = error.rule
        shapes = {name: show(dims(value)) for name in sources if (value := self.values[name]) is not None}
        made = [f"{name!r} (line {self.marks[name].line}) gives {shape}" for name, shape in shapes.items()]
        notes = [Note(f"{name!r} is {shape}", self.marks[name]) for name, shape in shapes.items()]
        if placed is not None:
            notes += expansion(self.spec.tree, placed)
        self.complaints.append(Complaint(mark, f"{message}: {', '.join(made)}" if made else message, hint, rule, tuple(notes)))


def _input(spec: Spec, name: str, fields: InputFields) -> Input:
    losses = list(zip(spec.losses, spec.document.loss, strict=True))
    read = {name for layer in spec.layers for name in layer.sources} | {name for loss in spec.losses for name in loss.sources}
    distribution, mean, sd, of = _drawn_from(fields)
    return Input(
        name=name,
        shape=fields.shape,
        dtype=_DTYPES[fields.type],
        range=fields.range,
        distribution=distribution,
        mean=mean,
        sd=sd,
        of=of,
        classes=fields.classes,
        ignored=next((loss.ignored for placed, loss in losses if placed.target == name and loss.ignored is not None), None),
        role="target" if name not in read and any(placed.target == name for placed in spec.losses) else "input",
        mark=spec.tree.children["inputs"].keys[name],
    )


def _drawn_from(fields: InputFields) -> tuple[Drawn, float, float, str]:
    """Distribution, mean, standard deviation, and the input that a teacher reads."""
    match fields.distribution:
        case BernoulliInput(p=p):
            return "bernoulli", p, math.sqrt(p * (1.0 - p)), ""
        case ConstantInput(value=value):
            return "constant", value, 0.0, ""
        case LinearInput(of=of, noise=noise):
            return "linear", 0.0, noise, of
        case NormalInput(mean=mean, sd=sd):
            return "normal", mean, sd, ""
    return ("classes" if fields.classes else "uniform" if fields.range else "normal"), 0.0, 1.0, ""


def _data(spec: Spec) -> DataFile | None:
    data = spec.document.data
    if data is None:
        return None
    inputs = spec.document.inputs
    images = data.images
    same = {name: name for name in inputs if images is None or name in OFFERED}
    read = data.file is not None or images is not None
    if data.tabular:
        arrays = {name: name for name in data.columns or same}
    else:
        arrays = data.files or data.arrays or (same if read else {})
    targets = {placed.target for placed in spec.losses}
    real = [name for name, fields in inputs.items() if fields.type == "float32" and name in arrays and name not in targets]
    return DataFile(
        path=data.file or (images.folder if images else "." if data.files else ""),
        arrays=arrays,
        drawn=[name for name in inputs if name not in arrays],
        batch=data.batch,
        scale=data.scale,
        table=Table(data.columns or {}, data.categories, data.header, data.delimiter),
        images=images,
        apart=data.files is not None,
        normalize=dict.fromkeys(real, data.normalize) if isinstance(data.normalize, str) else data.normalize,
        shuffle=data.shuffle,
        split=data.split,
        places=_places(spec.tree.children["data"]),
    )


def _places(data: Node) -> dict[tuple[str, ...], Mark]:
    """Where the fields of ``data:`` stand, and the entries of each, by their path."""
    places: dict[tuple[str, ...], Mark] = {(): data.mark}
    for name, part in data.children.items():
        places[str(name),] = part.mark
        places |= {(str(name), str(key)): entry.mark for key, entry in part.children.items()}
    return places
