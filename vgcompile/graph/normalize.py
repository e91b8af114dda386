"""A foreign ONNX file, normalized: one opset, standard operators whole, every value with its shape, every node with a name.

    file -> skeleton -> functions inlined -> opset 21 or newer -> every value a shape, foreign operators opened
         -> weights back -> constants lifted -> decomposed composites raised -> nodes named

The order matters: conversion drops metadata and inlining drops names inside bodies, so both come before anything is stamped;
what ONNX's tools read is the skeleton, a model without its weights.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import defs, inliner, version_converter
from onnx_ir.passes import common

from vgcompile.errors import ModelError
from vgcompile.graph import adapters, foreign, raising
from vgcompile.graph.emit import IR_VERSION, OPSET, dims, is_real
from vgcompile.graph.folding import fold_whole_numbers
from vgcompile.graph.pause import uncollected
from vgcompile.graph.protos import model_of, proto_of
from vgcompile.graph.shapes import complete, disbelieve, infer_shapes, name_batches
from vgcompile.graph.skeleton import IN_MEMORY, Held, nodes_of, reattached, stripped
from vgcompile.graph.view import graphs_of
from vgcompile.ops.op import INTERNAL

STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Normalized:
    """``model`` in an opset that the rules hold for; ``initializers`` are the file's own, without the constants of its nodes;
    ``notes`` say what was done."""

    model: ir.Model
    source: str
    initializers: frozenset[str]
    notes: tuple[str, ...]


def normalized(
    source: str | Path | onnx.ModelProto,
    *,
    kept: Set[str] = frozenset(),
    one_batch: bool = False,
    in_memory: int = IN_MEMORY,
) -> Normalized:
    """Read and normalize an ONNX file of any opset (external data lie beside it), or a model in memory.

    Values called ``kept`` are not lost in an operator that is recognized around them. With ``one_batch`` the first axes of inputs
    that the file leaves nameless are taken to be equal: to count the samples of one batch. More external data than ``in_memory``
    bytes stay in their files, and are read when somebody looks at them.

    Raises ModelError for what is not ONNX, is incomplete, or holds operators or values that are not supported.
    """
    path = Path("model.onnx") if isinstance(source, onnx.ModelProto) else Path(source)
    with uncollected():
        proto = source if isinstance(source, onnx.ModelProto) else _read(path)
        skeleton, held = _stripped(proto, path, in_memory)
        if one_batch:
            name_batches(skeleton.graph)
        opset = _opset(skeleton)
        adapters.set_aside(skeleton, opset)
        skeleton, inlined = _checked(skeleton, path)
        skeleton, converted = _converted(skeleton, opset, path)
        notes = [*inlined, *converted]
        model, own = _typed(skeleton, held, path, notes)
        model.ir_version = max(IR_VERSION, model.ir_version or IR_VERSION)
        reattached(model, held)
        learned = {name for name in own if is_real(value := model.graph.initializers[name]) and dims(value)}
        notes += [f"{path}: {note}" for note in raising.raised(model, learned | kept)]
        _drop_idle_constants(model, own)
        _name_nodes(model)
    return Normalized(model, str(path), own, tuple(notes))


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError):
        raise ModelError(f"{path}: not an ONNX file, or cut off; export it anew, or give a YAML model a .yaml name") from None


def _stripped(proto: onnx.ModelProto, path: Path, in_memory: int) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """Raises ModelError for a model that holds nothing, or whose weights are not there."""
    if not proto.graph.node and not proto.graph.output:
        raise ModelError(f"{path}: an ONNX file holds a graph with nodes, this one holds none; export it anew")
    try:
        return stripped(proto, path.parent, in_memory)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: its external data cannot be read ({error}); put the data file beside the model") from None
    except (onnx.checker.ValidationError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise ModelError(f"{path}: not valid ONNX: {_line(error)}; export it anew") from None


def _checked(proto: onnx.ModelProto, path: Path) -> tuple[onnx.ModelProto, list[str]]:
    """The model, valid and without functions of its own, and what was done. Operators that ONNX Runtime adds to the standard
    domain are told apart from it, and outputs need not state a shape."""
    notes = []
    foreign.tell_apart(proto)
    opsets = {entry.version for holder in (proto, *proto.functions) for entry in holder.opset_import if entry.domain in STANDARD}
    try:
        if len(opsets) == 1:  # the checker refuses functions of another opset, inlining brings them to the model's
            _check(proto)
        if proto.functions:
            notes.append(f"{path}: inlined {len(proto.functions)} model-local functions")
            proto = inliner.inline_local_functions(proto, convert_version=True)
        if len(opsets) > 1:
            _check(proto)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:  # ValueError: text that is not UTF-8
        raise ModelError(f"{path}: not valid ONNX: {_line(error)}; export it anew") from None
    return proto, notes


def _check(proto: onnx.ModelProto) -> None:
    """ONNX's checker. Outputs need not state their types and shapes, which are inferred; it wants them stated."""
    graph = proto.graph
    untyped = [value for value in graph.output if value.type.WhichOneof("value") is None]
    for value in untyped:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    kinds = [value.type.tensor_type for value in graph.output if value.type.HasField("tensor_type")]
    shapeless = [kind for kind in kinds if not kind.HasField("shape")]
    for kind in shapeless:
        kind.shape.SetInParent()
    try:
        onnx.checker.check_model(proto)
    finally:
        for kind in shapeless:
            kind.ClearField("shape")
        for value in untyped:
            value.ClearField("type")


def _converted(proto: onnx.ModelProto, opset: int, path: Path) -> tuple[onnx.ModelProto, list[str]]:
    """The model in an opset that the rules hold for, and what was done."""
    newest = defs.onnx_opset_version()
    if opset > newest:
        raise ModelError(
            f"{path}: opset {opset} is newer than the installed onnx knows ({newest}); update onnx, or export to {OPSET}"
        )
    if opset >= OPSET:
        return proto, []
    before = _signature(proto.graph)
    try:
        made = adapters.converted(proto)
    except (version_converter.ConvertError, RuntimeError) as error:
        raise ModelError(
            f"{path}: cannot be converted from opset {opset} to {OPSET}: {_line(error)}; export it to opset {OPSET}"
        ) from None
    if _signature(made.graph) != before:
        raise ModelError(
            f"{path}: converting it from opset {opset} to {OPSET} would change its inputs or outputs; export it to opset {OPSET}"
        )
    return made, [f"{path}: converted from opset {opset} to {OPSET}"]


def _signature(graph: onnx.GraphProto) -> tuple[Sequence[tuple[str, bytes]], Sequence[str]]:
    """What goes in, with types and shapes, and what comes out, of which the converter may add them."""
    held = {tensor.name for tensor in graph.initializer}  # old files list initializers among the inputs
    given = [(value.name, value.type.SerializeToString(deterministic=True)) for value in graph.input if value.name not in held]
    return given, [value.name for value in graph.output]


def _opset(proto: onnx.ModelProto) -> int:
    """The opset of the standard operators, whose domain has its short name from now on."""
    opset = max((entry.version for entry in proto.opset_import if entry.domain in STANDARD), default=OPSET)
    for node in nodes_of(proto.graph):
        if node.domain in STANDARD:
            node.domain = ""
    others = [(entry.domain, entry.version) for entry in proto.opset_import if entry.domain not in STANDARD]
    del proto.opset_import[:]
    for domain, version in (("", opset), *others):
        proto.opset_import.add(domain=domain, version=version)
    return opset


def _typed(proto: onnx.ModelProto, held: Held, path: Path, notes: list[str]) -> tuple[ir.Model, frozenset[str]]:
    """The model with a type and a shape on every value, its foreign operators opened, its constants lifted to the main graph; and
    the names of the file's own initializers. What was done is added to ``notes``.

    A foreign operator is opened where the shapes of its inputs are known; those behind it are known after the next inference.
    """
    found = foreign.operators(proto)
    _refuse_unknown(found, path)
    disbelieve(proto.graph)
    read = _deserialized(infer_shapes(proto, str(path), strict=not found), path)
    own = _lifted(read) | frozenset(held)
    model = _folded(read, path, strict=not found)
    opened: set[str] = set()
    while found:
        now = foreign.open_all(complete(model), str(path))
        if not now:
            raise ModelError(f"{path}: the shapes that {', '.join(sorted(found))} reads cannot be inferred; export fixed shapes")
        opened |= now
        proto = proto_of(model)
        found = foreign.operators(proto)
        model = _inferred_anew(proto, path, strict=not found)
    if shown := sorted(name for name in opened if not name.startswith(adapters.DOMAIN)):
        notes.append(f"{path}: written in standard operators: {', '.join(shown)}")
    for domain in list(model.opset_imports):
        if domain not in ("", INTERNAL):
            del model.opset_imports[domain]
    if model is not read:  # what was folded or opened may tell more
        model = _folded(model, path)
    return complete(model, str(path)), own


def _folded(model: ir.Model, path: Path, *, strict: bool = True) -> ir.Model:
    """With the shapes that whole numbers which are worked out tell, a Reshape's for one."""
    return _inferred_anew(proto_of(model), path, strict=strict) if fold_whole_numbers(model) else model


def _inferred_anew(proto: onnx.ModelProto, path: Path, *, strict: bool) -> ir.Model:
    """Inference finds what it can anew: only what a composite gives out is unknown to it."""
    made = {name for node in proto.graph.node if node.domain == INTERNAL for name in node.output}
    kept = [info for info in proto.graph.value_info if info.name in made]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    return _deserialized(infer_shapes(proto, str(path), strict=strict), path)


def _lifted(model: ir.Model) -> frozenset[str]:
    """Lift the initializers of subgraphs and every constant to the main graph; returns the names of the initializers."""
    graphs = graphs_of(model.graph)
    lift = common.LiftSubgraphInitializersToMainGraphPass()
    if len(graphs) > 1:
        _name_apart(graphs)
        lift(model)
    own = frozenset(model.graph.initializers)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if len(graphs) > 1:
        lift(model)
    return own


def _refuse_unknown(found: set[str], path: Path) -> None:
    if unknown := sorted(name for name in found if not foreign.known(name)):
        raise ModelError(
            f"{path}: operators outside the ONNX standard: {', '.join(unknown)}; export to standard operators, unfused"
        )


def _deserialized(proto: onnx.ModelProto, path: Path) -> ir.Model:
    try:
        model = model_of(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: not valid ONNX: {_line(error)}; export it anew") from None
    if any(isinstance(node.name, bytes) for graph in graphs_of(model.graph) for node in graph):
        raise ModelError(f"{path}: not valid ONNX: a node's name is not UTF-8 text; export it anew")
    return model


def _drop_idle_constants(model: ir.Model, own: frozenset[str]) -> None:
    for name, value in list(model.graph.initializers.items()):
        if name not in own and not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]


def _name_apart(graphs: Sequence[ir.Graph]) -> None:
    """Values of different graphs get different names: what is lifted must not stand in the shadow of another."""
    taken: set[str] = set()
    for graph in graphs:
        values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
        for value in dict.fromkeys(values):
            if not value.name:
                continue
            if value.name in taken:
                value.name = next(n for i in range(2, len(taken) + 3) if (n := f"{value.name}_{i}") not in taken)
            taken.add(value.name)


def _name_nodes(model: ir.Model) -> None:
    """Every node a name of its own, that no input or initializer has either: the view knows both by name."""
    taken = {value.name for value in (*model.graph.inputs, *model.graph.initializers.values())}
    counts: dict[str, int] = {}
    for index, node in enumerate(node for graph in graphs_of(model.graph) for node in graph):
        name = base = node.name or f"/{node.op_type}/{index}"
        count = counts.get(base, 1)
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        counts[base] = count
        node.name = name
        taken.add(name)


def _line(error: Exception) -> str:
    """ONNX's own words, of which one sentence may take several lines."""
    sentence = (str(error).strip() or type(error).__name__).split("\n\n")[0].split("==>")[0]
    return " ".join(sentence.split()).rstrip(".")
