"""Shapes for every value of a foreign model, of its subgraphs too, no dimension nameless.

    infer_shapes    ONNX's own inference, which also follows shapes that are computed (Shape, Gather, Concat, Reshape)
    complete        a walk over the nodes: a symbol that ONNX made up gives way to one that an operator's row proves

ONNX gives a padded convolution of [N, 3, H, W] two fresh unknowns, its row knows that they are H and W. Where a symbol is still
of nobody's making (Reshape to [-1, 64]), ONNX Runtime's symbolic tool may prove one; what nobody can name gets a symbol of its
own.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping

import onnx
import onnx_ir as ir
from onnx import shape_inference

from vgcompile.errors import ModelError
from vgcompile.graph.bodies import infer_bodies
from vgcompile.graph.emit import Emitter, dims
from vgcompile.graph.view import bodies, graphs_of
from vgcompile.ops.op import INTERNAL, Dim

Dims = tuple[Dim, ...]

# Attributes that ONNX's inference (1.23.2) takes for another number than their default where a node does not state them.
_MISREAD = {"STFT": ("onesided", 1)}
_MADE_UP, _OURS = re.compile(r"^unk(__\d+)$"), re.compile(r"^open(__\d+)$")
_SAME = re.compile(r"^floor\(1\.0\*(\w+)\)$")

# Operators for whose outputs it writes an extent 0 where it does not know one.
_ZERO_IF_UNKNOWN = frozenset({"Attention"})
LARGEST = 2000  # nodes: ONNX Runtime's tool walks a graph in Python, with a computer algebra system


def infer_shapes(proto: onnx.ModelProto, path: str, *, strict: bool = True) -> onnx.ModelProto:
    """The model with what ONNX's inference finds. A symbol that the file states inside itself is not believed over its inputs'.

    Raises ModelError where operators do not fit each other.
    """
    _name_input_dims(proto.graph)
    _state_defaults(proto.graph)
    try:
        return _forget_zeros(_inferred(proto, strict))
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        if not proto.graph.value_info:
            raise ModelError(f"{path}: its shapes do not fit: {_line(error)}; export it anew") from None
    del proto.graph.value_info[:]  # what an exporter noted may be stale
    return infer_shapes(proto, path, strict=strict)


def _inferred(proto: onnx.ModelProto, strict: bool) -> onnx.ModelProto:
    return shape_inference.infer_shapes(proto, check_type=strict, strict_mode=strict, data_prop=True)


def _state_defaults(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        name, default = _MISREAD.get(node.op_type, ("", 0))
        if name and all(attribute.name != name for attribute in node.attribute):
            node.attribute.append(onnx.helper.make_attribute(name, default))


def _forget_zeros(proto: onnx.ModelProto) -> onnx.ModelProto:
    typed = {info.name: info for info in (*proto.graph.value_info, *proto.graph.output)}
    for node in proto.graph.node:
        for name in node.output if node.op_type in _ZERO_IF_UNKNOWN else ():
            for dim in typed[name].type.tensor_type.shape.dim if name in typed else ():
                if dim.HasField("dim_value") and dim.dim_value == 0:
                    dim.Clear()
    return proto


def misread(nodes: Iterable[ir.Node]) -> bool:
    """Whether ONNX's inference would put 0 for an extent of these nodes' outputs that only a run tells."""
    held = (node for node in nodes if node.op_type in _ZERO_IF_UNKNOWN)
    return any(value.shape is None or not value.shape.is_static() for node in held for value in node.outputs)


def disbelieve(graph: onnx.GraphProto) -> None:
    """Forget the numbers that a file states for extents inside itself, which are those of the example that an exporter ran, and
    all that it states of its outputs, whose symbols a user has named. Inference finds the true ones.

    Symbols inside are an exporter's own findings, some of which (Range of a computed extent) inference would not make."""
    for kept, infos in ((True, graph.value_info), (False, graph.output)):
        for dim in (dim for info in infos for dim in info.type.tensor_type.shape.dim):
            if not (kept and dim.dim_param):
                dim.Clear()


def name_batches(graph: onnx.GraphProto) -> None:
    """Take the nameless first axes of all inputs for one and the same batch."""
    for _value, axis, dim in _nameless(graph):
        if axis == 0:
            dim.dim_param = "batch"


def _name_input_dims(graph: onnx.GraphProto) -> None:
    """A nameless axis of an input gets a symbol of its own: two of them need not be equal."""
    for value, axis, dim in _nameless(graph):
        dim.dim_param = f"{value.name}.{axis}"


def _nameless(graph: onnx.GraphProto) -> Iterator[tuple[onnx.ValueInfoProto, int, onnx.TensorShapeProto.Dimension]]:
    held = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim if value.name not in held else ()):
            if dim.dim_value <= 0 and not dim.dim_param:
                yield value, axis, dim


def complete(model: ir.Model, path: str | None = None) -> ir.Model:
    """Replace symbols of nobody's making by what can be proved of them. Changes ``model`` and returns it.

    With ``path``, of the file that a message names, every tensor has a type and a shape afterwards; raises ModelError where one
    has no rank. Without it, foreign operators still hide some.
    """
    stated = {dim for value in model.graph.inputs if value.shape is not None for dim in dims(value) if isinstance(dim, str)}
    known = _Symbols(stated)
    emitter = Emitter(ir.Graph([], [], nodes=[], opset_imports=model.opset_imports), model.opset_imports.get("", 21))
    wanting = list(_walk(model.graph, emitter, known))
    nested = len(graphs_of(model.graph)) > 1
    if path is not None:
        if not nested:
            _refuse_unranked(wanting, path)
        if any(known.is_open(dim) for value in wanting for dim in known.of(value) or ()) and len(model.graph) <= LARGEST:
            for name, found in _proved(model).items():
                known.learn(name, found)
    known.settle()
    if path is not None and nested:
        infer_bodies(model)  # by induction; what has no rank even so, nobody may need
    return model


class _Symbols:
    """What each symbol stands for. A symbol is open unless an input states it: ONNX, or an exporter, made it up."""

    def __init__(self, stated: set[str]) -> None:
        self._stated = stated
        self._means: dict[str, Dim] = {}
        self._values: dict[str, ir.Value] = {}

    def is_open(self, dim: Dim | None) -> bool:
        return dim is None or (isinstance(dim, str) and dim not in self._stated)

    def meaning(self, dim: Dim | None) -> Dim | None:
        while isinstance(dim, str) and dim in self._means:
            dim = self._means[dim]
        return dim

    def of(self, value: ir.Value) -> tuple[Dim | None, ...] | None:
        """A value's dimensions, as far as they are known by now."""
        self._values[value.name or ""] = value
        if value.shape is None:
            return None
        return tuple(self.meaning(dim if isinstance(dim, int) else dim.value) for dim in value.shape)

    def equate(self, value: ir.Value, found: tuple[Dim | None, ...]) -> None:
        """``value`` has these dimensions: each of its symbols that is open gives way to a better one."""
        have = self.of(value)
        if have is None:
            value.shape = ir.Shape(found)
        elif len(have) == len(found):
            better = [self._better(a, b) for a, b in zip(have, found, strict=True)]
            if tuple(better) != have:
                value.shape = ir.Shape(better)

    def _better(self, have: Dim | None, found: Dim | None) -> Dim | None:
        found = self.meaning(found)
        if have == found or found is None or not self.is_open(have):
            return have
        if isinstance(have, str):
            self._means[have] = found
        return found

    def learn(self, name: str, found: tuple[Dim | None, ...]) -> None:
        value = self._values.get(name)
        if value is not None:
            self.equate(value, found)

    def settle(self) -> None:
        """Write down what is known of every value by now; a nameless axis gets a symbol of its own."""
        for value in self._values.values():
            found = self.of(value)
            if found is not None and found != dims(value):
                value.shape = ir.Shape([f"{value.name}.{axis}" if dim is None else dim for axis, dim in enumerate(found)])


def _walk(graph: ir.Graph, emitter: Emitter, known: _Symbols) -> Iterator[ir.Value]:
    """Infer the nodes of a graph, and of the graphs inside it, where something is open; gives the values that were."""
    for node in graph:
        for inner in bodies(node) if node.attributes else ():
            yield from (value for value in inner.inputs if _wants(value, known))
            yield from _walk(inner, emitter, known)
        wanting = [value for value in node.outputs if value.name and _wants(value, known)]
        if not wanting:
            continue
        for value in node.inputs:
            if value is not None and value.shape is not None:
                found = known.of(value)
                if found is not None and any(a != b for a, b in zip(found, value.shape, strict=True)):
                    value.shape = ir.Shape(found)
        for value, (dtype, found) in zip(node.outputs, _types(node, emitter), strict=False):
            if value.type is None and dtype is not None:
                value.type = ir.TensorType(dtype)
            if found is not None:
                known.equate(value, found)
            _name_axes(value)
        yield from wanting


def _name_axes(value: ir.Value) -> None:
    """A nameless axis gets a symbol of its own, which may yet be found to be another: no inference reads shapes without."""
    if value.shape is not None and any(not isinstance(dim, int) and dim.value is None for dim in value.shape):
        named = (dim if isinstance(dim, int) else dim.value or f"{value.name}.{axis}" for axis, dim in enumerate(value.shape))
        value.shape = ir.Shape(list(named))


def retype(node: ir.Node, emitter: Emitter) -> None:
    """Give a node's outputs the types and shapes that they lack, where those of its inputs tell them."""
    lacking = [value for value in node.outputs if value.name and (value.type is None or value.shape is None)]
    for value, (dtype, found) in zip(node.outputs, _types(node, emitter) if lacking else (), strict=False):
        value.type = value.type or (ir.TensorType(dtype) if dtype is not None else None)
        if found is not None and value.shape is None:
            value.shape = ir.Shape([f"{value.name}.{axis}" if dim is None else dim for axis, dim in enumerate(found)])


def _wants(value: ir.Value, known: _Symbols) -> bool:
    if value.type is None:
        return True
    if not isinstance(value.type, ir.TensorType):
        return False
    found = known.of(value)
    return found is None or any(not isinstance(dim, int) and known.is_open(dim) for dim in found)


def _types(node: ir.Node, emitter: Emitter) -> Iterable[tuple[ir.DataType | None, tuple[Dim | None, ...] | None]]:
    """What the node's row and ONNX's inference of this node alone say; nothing where they cannot tell."""
    inputs = [value for value in node.inputs if value is not None]
    if any(value.shape is None or value.dtype is None for value in inputs):
        return ()
    if node.domain not in ("", INTERNAL):
        return ()
    if any(dim.value is None for value in inputs for dim in value.shape or () if not isinstance(dim, int)):
        return ()
    try:
        return emitter.types_of(node)
    except (ModelError, NotImplementedError, AssertionError):
        return ()


def _refuse_unranked(values: Iterable[ir.Value], path: str) -> None:
    for value in values:
        node = value.producer()
        ranked = value.shape is not None or not isinstance(value.type, ir.TensorType | None)
        if node is not None and not ranked:
            fix = "export the model with fixed shapes"
            raise ModelError(f"{path}: the shape of {value.name!r} (operator {node.op_type}) cannot be inferred; {fix}")


def _proved(model: ir.Model) -> Mapping[str, tuple[Dim | None, ...]]:
    """What ONNX Runtime's symbolic tool finds, nothing where it fails: it does not know every operator.

    It takes the pieces of a tensor to be equal where their sizes are computed, so that nothing is believed of such a model. Its
    public function leaves a file in the working directory when it gives up, so its steps are called one by one.
    """
    splits = (node for node in model.graph if node.op_type == "Split")
    if any(size is not None and size.const_value is None for node in splits for size in node.inputs[1:]):
        return {}
    from onnxruntime.tools import symbolic_shape_infer  # slow to import, and few models need it

    logging.getLogger(symbolic_shape_infer.__name__).setLevel(logging.CRITICAL)
    tool = symbolic_shape_infer.SymbolicShapeInference(int_max=2**31 - 1, auto_merge=False, guess_output_rank=False, verbose=0)
    proto = ir.to_proto(model)
    for info in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = _MADE_UP.sub(r"open\1", dim.dim_param)
    with contextlib.suppress(Exception):
        tool._preprocess(proto)
        while tool.run_:
            tool._infer_impl()
        return {info.name: _dims(info) for info in tool.out_mp_.graph.value_info}
    return {}


def _dims(info: onnx.ValueInfoProto) -> tuple[Dim | None, ...]:
    """The tool writes an extent that a resize leaves alone as floor(1.0*N). The symbols that it makes up itself say nothing."""
    found: list[Dim | None] = []
    for dim in info.type.tensor_type.shape.dim:
        symbol = _SAME.sub(r"\1", dim.dim_param)
        known = _OURS.sub(r"unk\1", symbol) if symbol and not _MADE_UP.match(symbol) else None
        found.append(dim.dim_value if dim.HasField("dim_value") else known)
    return tuple(found)


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
