"""The one door to the graph: an operator is a method call, and each node is inferred strictly as it is made.

    op = Emitter(graph)
    with op.scope("hidden/1"):
        y = op.Sigmoid(op.Gemm(x, w, b))          # node /hidden/1/Gemm, value hidden/1/Gemm

Between tensors Python's arithmetic works (``1.0 - y * y``). A Python float among the operands becomes a scalar of the working
type ``op.dtype``, an int a scalar int64, a list of ints an int64 vector. ONNX's own inference gives every output its type and
shape; a dimension that it cannot name gets a fresh symbol, so that no dimension is ever nameless.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.graph.inference import IR_VERSION as IR_VERSION
from vgcompile.graph.inference import TypeAndDims, freeze, infer_node, signature
from vgcompile.graph.inference import dims as dims
from vgcompile.graph.provenance import PREFIX
from vgcompile.graph.view import graphs_of
from vgcompile.ops import INTERNAL, lookup
from vgcompile.ops.op import Dim
from vgcompile.ops.shape import constant
from vgcompile.ops.shape import is_real as is_real

OPSET = 21

Operand = ir.Value | float | int | bool | Sequence[int] | np.ndarray[Any, Any] | None
_HELD = "vgcompile.constant"  # of a small constant that an emitter made: its key; a file's own may be learned, and are not shared
constant_of = constant  # of a value that is there


@contextmanager
def arithmetic(op: Emitter) -> Iterator[Emitter]:
    """Within it, ``a * b`` between values emits nodes through ``op``."""
    previous = ir.set_value_magic_handler(op)
    try:
        yield op
    finally:
        ir.set_value_magic_handler(previous)


@dataclass(frozen=True, slots=True)
class Step:
    """A node that was emitted, less what it read: ``name`` is behind the prefix, ``outputs`` are the types and shapes of what it
    made."""

    domain: str
    operator: str
    attributes: tuple[ir.Attr, ...]
    name: str
    outputs: tuple[tuple[ir.TypeProtocol | None, ir.Shape | None], ...]


class Emitter:
    """Appends nodes to a graph, or puts them before a given node of it."""

    def __init__(self, graph: ir.Graph, opset: int = OPSET, before: ir.Node | None = None) -> None:
        self.graph, self.opset = graph, opset
        self.dtype = ir.DataType.FLOAT
        self._before = before
        self._prefix = ""
        self._metadata: dict[str, str] = {}
        self._main = graph  # where constants stand: subgraphs read them from around
        self._record: list[tuple[ir.Node, str]] | None = None
        self._taken: dict[str, int] = {}
        self._values: set[str | None] = set()
        for scope in graphs_of(graph):
            self._taken.update((node.name, 1) for node in scope if node.name)
            self._values.update(v.name for node in scope for v in node.outputs)
            self._values.update(v.name for v in scope.inputs)
            self._values.update(scope.initializers)
        held = (value for value in graph.initializers.values() if _HELD in value.meta and not value.is_graph_input())
        self._constants = {value.meta[_HELD]: value for value in held}  # one that may be overridden is constant no more

    def inside(self, graph: ir.Graph, before: ir.Node | None = None) -> Emitter:
        """An emitter for a subgraph of this one's: names are unique among all of them, constants stand in the main graph."""
        inner = copy(self)
        inner.graph, inner._before, inner._record = graph, before, None
        return inner

    @contextmanager
    def body(self, *inputs: tuple[ir.DataType, Sequence[Dim]], name: str = "body") -> Iterator[tuple[Emitter, list[ir.Value]]]:
        """A subgraph in the making, for an attribute of Scan, Loop or If, and its inputs, of these types and dimensions.

            with op.body((x.dtype, [2, 3])) as (inner, (row,)):      # arithmetic within is the body's
                inner.graph.outputs.append(row * 2.0)
            op.Scan(x, body=inner.graph, num_scan_inputs=1)

        Values of the graphs around it are read as they are.
        """
        values = []
        for dtype, extents in inputs:
            label = self.fresh_value_name(f"{self._prefix}{name}/input")
            values.append(ir.Value(name=label, shape=ir.Shape(extents), type=ir.TensorType(dtype)))
        inner = self.inside(ir.Graph(values, [], nodes=[], name=self._unique(f"{self._prefix}{name}")))
        with arithmetic(inner), inner.scope(name):
            yield inner, values

    def scope(
        self, name: str = "", *, before: ir.Node | None = None, dtype: ir.DataType | None = None, **metadata: str
    ) -> AbstractContextManager[Emitter]:
        """Prefix the names of the nodes made within, put them before a node, and stamp their metadata."""
        return _Scope(self, name, before, dtype, metadata)

    def __getattr__(self, operator: str) -> Any:
        if not operator[:1].isupper():
            raise AttributeError(operator)
        return partial(self.emit, operator)

    def emit(self, operator: str, *operands: Operand, outputs: int = 1, name: str = "", **attributes: Any) -> Any:
        """Add one node; returns its output, or a tuple of them where ``outputs`` > 1.

        Raises ModelError with ONNX's own words where types or shapes do not fit.
        """
        row = lookup(operator)
        domain = "" if row is None or 0 < row.since <= self.opset else row.domain
        inputs = [self._operand(operand) for operand in operands]
        while inputs and inputs[-1] is None:
            inputs.pop()
        given = {key: value for key, value in attributes.items() if value is not None}
        types = self._infer(operator, domain, inputs, given, outputs)
        node = self._made(domain, operator, inputs, [_attribute(key, value) for key, value in given.items()], outputs, name)
        for value, (dtype, shape) in zip(node.outputs, types, strict=True):
            _settle(value, dtype, shape)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def _made(
        self,
        domain: str,
        operator: str,
        inputs: Sequence[ir.Value | None],
        attributes: Sequence[ir.Attr],
        outputs: int,
        name: str,
    ) -> ir.Node:
        """A new node in its place, its outputs named."""
        label = f"{self._prefix}{name or operator}"
        node_name = self._unique("/" + label)
        node = ir.Node(
            domain, operator, inputs, attributes, num_outputs=outputs, name=node_name, metadata_props=dict(self._metadata)
        )
        base = node_name.lstrip("/")
        for index, value in enumerate(node.outputs):
            value.name = self.fresh_value_name(f"{base}.{index}" if index else base)
        if self._before is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(self._before, node)
        if self._record is not None:
            self._record.append((node, label))
        return node

    @contextmanager
    def recorded(self) -> Iterator[list[tuple[ir.Node, str]]]:
        """The nodes that are emitted within it, each with its name behind the prefix of now."""
        assert self._record is None, "a record within a record would end it"
        made: list[tuple[ir.Node, str]] = []
        depth = len(self._prefix)
        self._record = made
        try:
            yield made
        finally:
            self._record = None
            made[:] = [(node, label[depth:]) for node, label in made]

    def repeat(self, step: Step, inputs: Sequence[ir.Value | None]) -> Sequence[ir.Value]:
        """Emit a step that was recorded, on other operands of the same types and shapes; returns its outputs."""
        node = self._made(step.domain, step.operator, inputs, step.attributes, len(step.outputs), step.name)
        for value, (kind, shape) in zip(node.outputs, step.outputs, strict=True):
            value.type, value.shape = kind, shape
        return node.outputs

    def holds(self, value: ir.Value) -> bool:
        """Whether a value is a constant that whoever asks for its bytes gets."""
        return _HELD in value.meta

    def constant(self, array: Any, name: str = "") -> ir.Value:
        """An initializer that holds ``array``; equal small constants are one value."""
        data = np.asarray(array)
        key = (data.dtype, data.shape, data.tobytes()) if not name and data.size <= 64 else None
        if key is not None and key in self._constants:
            return self._constants[key]
        tensor = ir.Tensor(data, name=self.fresh_value_name(name or _constant_name(data)))
        value = ir.Value(name=tensor.name, shape=ir.Shape(data.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._main.register_initializer(value)
        if key is not None:
            self._constants[key] = value
            value.meta[_HELD] = key  # one pass after another finds it
        return value

    def complete(self, node: ir.Node, outputs: int) -> None:
        """Give a node its first ``outputs`` outputs, where it lacks them or leaves them nameless, typed and named."""
        outputs = max(outputs, len(node.outputs))
        given = {name: attribute.value for name, attribute in node.attributes.items()}
        types = self._infer(node.op_type, node.domain, node.inputs, given, outputs)
        node.resize_outputs(outputs)
        for index, (value, (dtype, shape)) in enumerate(zip(node.outputs, types, strict=True)):
            if value.name:
                continue
            value.name = self.fresh_value_name(f"{(node.name or node.op_type).lstrip('/')}.{index}")
            _settle(value, dtype, shape)

    def types_of(self, node: ir.Node) -> Sequence[TypeAndDims]:
        """Type and shape of each output of a node as it stands; None for an extent that nothing tells."""
        given = {name: attribute.value for name, attribute in node.attributes.items()}
        return self._infer(node.op_type, node.domain, node.inputs, given, len(node.outputs))

    def fresh_value_name(self, name: str) -> str:
        """``name``, or ``name`` with the first free number behind it; taken from now on."""
        unique, n = name, 1
        while unique in self._values:
            n += 1
            unique = f"{name}_{n}"
        self._values.add(unique)
        return unique

    def fresh_node_name(self, name: str) -> str:
        """``name``, or ``name`` with a number behind it; taken from now on."""
        return self._unique(name)

    def _operand(self, operand: Operand) -> ir.Value | None:
        if operand is None or isinstance(operand, ir.Value):
            return operand
        if isinstance(operand, bool | np.bool_):
            return self.constant(np.asarray(operand, np.bool_))
        if isinstance(operand, float | np.floating):
            return self.constant(np.asarray(operand, self.dtype.numpy()))
        if isinstance(operand, np.ndarray):
            return self.constant(operand)
        return self.constant(np.asarray(operand, np.int64))

    def _unique(self, name: str) -> str:
        count = self._taken.get(name, 0)
        self._taken[name] = count + 1
        return self._unique(f"{name}_{count + 1}") if count else name

    def _infer(
        self, operator: str, domain: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any], outputs: int
    ) -> Sequence[TypeAndDims]:
        if domain == INTERNAL:
            return self._declared(operator, inputs, attributes)
        if ir.Graph in map(type, attributes.values()):  # what its bodies give out, its row says
            return self._declared(operator, inputs, attributes)
        types = tuple([None if value is None else signature(value) for value in inputs])
        frozen = tuple(sorted([(key, freeze(value)) for key, value in attributes.items()]))
        found = infer_node(operator, self.opset, types, frozen, outputs)
        if all(shape is not None and None not in shape for _, shape in found):
            return found
        row = lookup(operator)
        like = row.infer(*inputs, **attributes) if row is not None and row.infer is not None else None
        declared = like if isinstance(like, tuple) else (like,)  # of the first outputs
        return [*(_completed(a, value) for a, value in zip(found, declared, strict=False)), *found[len(declared) :]]

    @staticmethod
    def _declared(operator: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> Sequence[TypeAndDims]:
        row = lookup(operator)
        assert row is not None and row.infer is not None, f"{operator}: its row states its output types"
        like = row.infer(*inputs, **attributes)
        values = like if isinstance(like, tuple) else (like,)
        return [(value.dtype, dims(value)) for value in values]

    # Python's arithmetic on values comes in here (onnx_ir's handler protocol): a number takes the other operand's type.
    def Add(self, a: Operand, b: Operand) -> Any:
        return self._binary("Add", a, b)

    def Sub(self, a: Operand, b: Operand) -> Any:
        return self._binary("Sub", a, b)

    def Mul(self, a: Operand, b: Operand) -> Any:
        return self._binary("Mul", a, b)

    def Div(self, a: Operand, b: Operand) -> Any:
        return self._binary("Div", a, b)

    def _binary(self, operator: str, a: Operand, b: Operand) -> Any:
        dtype = next((v.dtype for v in (a, b) if isinstance(v, ir.Value)), None) or self.dtype
        a, b = (np.asarray(v, dtype.numpy()) if isinstance(v, int | float) else v for v in (a, b))
        return self.emit(operator, a, b)


def _settle(value: ir.Value, dtype: ir.DataType, shape: tuple[Dim | None, ...] | None) -> None:
    """Give a value its type and shape; an axis that nobody names gets a symbol of its own."""
    value.type = _type(dtype)
    if shape is not None and None in shape:
        value.shape = ir.Shape([f"{value.name}.{axis}" if dim is None else dim for axis, dim in enumerate(shape)])
    elif shape is not None:
        value.shape = _shape(shape)


@lru_cache
def _type(dtype: ir.DataType) -> ir.TensorType:
    """Values of one type share it: what a large graph costs is mostly memory."""
    return ir.TensorType(dtype)


@lru_cache(maxsize=4096)
def _shape(dims: tuple[Dim, ...]) -> ir.Shape:
    return ir.Shape(dims, frozen=True)


def _attribute(name: str, value: Any) -> ir.Attr:
    """Numbers and lists of whole ones are most of what is emitted; the stock conversion looks through protocols before it sees
    them."""
    if isinstance(value, int):
        return ir.AttrInt64(name, value)
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    if isinstance(value, list | tuple) and all(isinstance(x, int) for x in value):
        return ir.AttrInt64s(name, value)
    return ir.convenience.convert_attribute(name, value)


class _Scope(AbstractContextManager[Emitter]):
    """What an emitter puts on the nodes made within. A class, for every node of a gradient is made within two of them."""

    def __init__(
        self, emitter: Emitter, name: str, before: ir.Node | None, dtype: ir.DataType | None, metadata: Mapping[str, str]
    ) -> None:
        self._emitter, self._given = emitter, (name, before, dtype, metadata)

    def __enter__(self) -> Emitter:
        op, (name, before, dtype, metadata) = self._emitter, self._given
        self._outer = op._prefix, op._metadata, op._before, op.dtype
        if name:
            op._prefix = f"{op._prefix}{name}/"
        if metadata:
            op._metadata = {**op._metadata, **{PREFIX + key: value for key, value in metadata.items()}}
        op._before, op.dtype = before or op._before, dtype or op.dtype
        return op

    def __exit__(self, *_: object) -> None:
        op = self._emitter
        op._prefix, op._metadata, op._before, op.dtype = self._outer


def _completed(found: TypeAndDims, like: ir.Value | None) -> TypeAndDims:
    """A type with the dimensions that ONNX's inference left open taken from a shape that the operator's row declares, which may
    leave some of them open as well."""
    dtype, shape = found
    if like is None or like.shape is None:
        return found
    known = tuple(dim if isinstance(dim, int) else dim.value for dim in like.shape)
    return dtype, known if shape is None else tuple(dim if have is None else have for have, dim in zip(shape, known, strict=True))


def _constant_name(data: np.ndarray[Any, Any]) -> str:
    kind = "f" if data.dtype.kind == "f" else data.dtype.kind
    if data.size <= 4:
        text = "x".join(str(x) for x in data.ravel().tolist())
        return f"const.{kind}{'v' if data.ndim else ''}.{text}"
    return f"const.{kind}.{'x'.join(map(str, data.shape))}"
