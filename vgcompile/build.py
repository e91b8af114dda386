"""Spec -> Network: every layer emits its operators in a scope of its own name.

    hidden/3/dense  ->  /hidden/3/dense/Gemm, /hidden/3/dense/Sigmoid, reading hidden/3/dense/weight and hidden/3/dense/bias

What a layer emits it says itself (layers); here its operators get their names and metadata, its parameters their first values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from vgcompile.errors import Complaint, Mark, ModelError, Note, SpecError
from vgcompile.graph.emit import IR_VERSION, OPSET, Emitter, dims
from vgcompile.graph.network import DataFile, Drawn, Input, Network, Table
from vgcompile.graph.provenance import PREFIX
from vgcompile.initial import Initial, stream
from vgcompile.layers.initialization import Distribution
from vgcompile.layers.layer import Shape, Unfit, show
from vgcompile.layers.loss import AnyLoss
from vgcompile.rules import shapes as rules
from vgcompile.rules.rule import Rule
from vgcompile.spec import Spec, capped
from vgcompile.spec.data import OFFERED
from vgcompile.spec.distributions import BernoulliInput, ConstantInput, LinearInput, NormalInput
from vgcompile.spec.document import InputFields
from vgcompile.spec.lint import lint
from vgcompile.spec.origin import expansion
from vgcompile.spec.wiring import Placed

Mode = Literal["training", "inference"]
LARGEST = 2**31 - 1  # bytes of weights: those of one protobuf message
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
    loss = builder.loss(spec.document.loss) if spec.document.loss else None
    if builder.complaints:
        raise SpecError(capped(builder.complaints))
    outputs = builder.outputs(spec.outputs, loss)
    model = ir.Model(builder.graph, ir_version=IR_VERSION, producer_name="vgcompile")
    return Network(
        name=spec.name,
        source=spec.file,
        model=model,
        inputs={name: _input(spec, name, fields) for name, fields in spec.document.inputs.items()},
        outputs=outputs,
        loss=loss.name if loss else None,
        reduction=spec.document.loss.reduction if spec.document.loss else "mean",
        parameters=tuple(builder.parameters),
        data=_data(spec),
        text=spec.text,
        seed=builder.seed,
        warnings=tuple(lint(spec)),
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
        self.parameters: list[str] = []
        self._held: dict[str, ir.Value] = {}  # parameters and state, by full name
        self._layer = ""
        self._owner = ""  # the layer whose parameters are used, as a rule the one that is placed
        self._bytes = 0  # of parameters

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
            self._complain(placed, Unfit(message, _READING[layer.reads], rules.CLASS_NUMBERS))
            return
        with self._at(placed.name, layer.kind, placed.mark, placed.owner):
            try:
                self.values[placed.name] = layer.emit(self, present)
            except (Unfit, ModelError) as error:
                self._complain(placed, error)

    def loss(self, loss: AnyLoss) -> ir.Value | None:
        (source,) = self.spec.outputs
        x, target = self.values[source], self.values[loss.target]
        if x is None or target is None:
            return None
        mark = self.spec.mark("loss")
        with self._at("loss", loss.kind, mark, "loss"):
            try:
                value = loss.emit(self, x, target, self.spec.document.inputs[loss.target].classes)
            except (Unfit, ModelError) as error:
                self.complaints.append(self._complaint(mark, error, (source, loss.target), rules.UNFIT_LOSS))
                return None
        value.name = self.op.fresh_value_name("loss")
        return value

    def outputs(self, names: Sequence[str], loss: ir.Value | None) -> tuple[str, ...]:
        """Make graph outputs of the named layers, each under the layer's own name, and of the loss."""
        made = []
        for name in names:
            value = self.values[name]
            assert value is not None
            if value.producer() is not None:
                value.name = self.op.fresh_value_name(name)
            made.append(value)
        self.graph.outputs.extend([*made, *([loss] if loss is not None else [])])
        return tuple(str(value.name) for value in made)

    # The site of the layer that is being placed

    def shape(self, value: ir.Value) -> Shape:
        return dims(value)

    def classes(self, value: ir.Value) -> int | None:
        stated = self.spec.document.inputs.get(value.name or "")
        return stated.classes if stated is not None and value.is_graph_input() else None

    def parameter(
        self, name: str, shape: Sequence[int], distribution: Distribution | None, *, fan_in: int = 1, fan_out: int = 1
    ) -> ir.Value:
        if (shared := self._held.get(f"{self._owner}/{name}")) is not None:
            return self._fitting(shared, shape)
        defaults = self.spec.document.init
        distribution = distribution or (defaults.bias if name.endswith("bias") else defaults.weight)
        initial = distribution.initial(tuple(shape), fan_in, fan_out)
        value = self.state(name, self._drawn(name, initial))
        value.metadata_props[PREFIX + "initial"] = initial.to_json()
        self.graph.inputs.append(value)
        self.parameters.append(str(value.name))
        return value

    def mean_square(self, parameter: ir.Value) -> float:
        return Initial.from_json(parameter.metadata_props[PREFIX + "initial"]).square

    def shared(self, name: str) -> Shape | None:
        made = self._held.get(f"{self._owner}/{name}")
        return None if made is None else dims(made)

    def _fitting(self, shared: ir.Value, shape: Sequence[int]) -> ir.Value:
        """A parameter that another layer has made. Raises Unfit where it has another shape."""
        if dims(shared) != tuple(shape):
            raise Unfit(
                f"the shared {shared.name} is {show(dims(shared))}, this layer needs {show(tuple(shape))}",
                "share among layers of one size",
                rules.UNFIT_SHARE,
            )
        return shared

    def _drawn(self, name: str, initial: Initial) -> np.ndarray[Any, Any]:
        self._bytes += 4 * math.prod(initial.shape)
        if self._bytes > LARGEST:
            message = f"with {name} {show(initial.shape)} the weights pass 2 GB"
            raise Unfit(message, "make the layers narrower", rules.TOO_MANY_WEIGHTS)
        with np.errstate(over="ignore"):
            array = initial.draw(f"{self._owner}/{name}", self.seed)
        if not np.isfinite(array).all():
            message = f"initial values of {name} are beyond the largest float32"
            raise Unfit(message, "choose a smaller sd, gain or scale", rules.INFINITE_WEIGHTS)
        return array

    def state(self, name: str, array: np.ndarray[Any, Any]) -> ir.Value:
        full = f"{self._owner}/{name}"
        if full not in self._held:
            self._held[full] = self.op.constant(array, full)
        return self._held[full]

    def stream(self, name: str) -> int:
        return int(stream(self.seed, f"{self._layer}/{name}").integers(2**31))

    def _at(self, name: str, kind: str, mark: Mark, owner: str) -> AbstractContextManager[Emitter]:
        self._layer, self._owner = name, owner
        return self.op.scope(name, layer=name, kind=kind, source=str(mark))

    def _complain(self, placed: Placed, error: Unfit | ModelError) -> None:
        complaint = self._complaint(placed.mark, error, placed.sources, rules.UNFIT)
        self.complaints.append(replace(complaint, notes=(*complaint.notes, *expansion(self.spec.tree, placed))))

    def _complaint(self, mark: Mark, error: Unfit | ModelError, sources: Sequence[str], rule: Rule) -> Complaint:
        """At ``mark``, with the place and the shape of every input: what does not fit was made there.

        An error that states a rule of its own keeps it.
        """
        message, hint = (error.message, error.hint) if isinstance(error, Unfit) else (str(error), "")
        if isinstance(error, Unfit) and error.rule is not rules.UNFIT:
            rule = error.rule
        shapes = {name: show(dims(value)) for name in sources if (value := self.values[name]) is not None}
        made = [f"{name!r} (line {self.marks[name].line}) gives {shape}" for name, shape in shapes.items()]
        notes = tuple(Note(f"{name!r} is {shape}", self.marks[name]) for name, shape in shapes.items())
        return Complaint(mark, f"{message}: {', '.join(made)}", hint, rule, notes)


def _input(spec: Spec, name: str, fields: InputFields) -> Input:
    loss = spec.document.loss
    read = {source for layer in spec.layers for source in layer.sources}
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
        role="target" if loss and loss.target == name and name not in read else "input",
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
    target = spec.document.loss.target if spec.document.loss else None
    real = [name for name, fields in inputs.items() if fields.type == "float32" and name in arrays and name != target]
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
    )
