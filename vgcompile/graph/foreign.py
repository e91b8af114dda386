"""Operators outside the ONNX standard, opened into standard ones by the formula of their row.

    a -- com.microsoft::FastGelu --> y       before
    a -- Gelu<approximate=tanh> --> y        after

Rows stand in contrib/ (ONNX Runtime's) and adapters.py (old standard operators whose meaning has changed since).
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import defs

from vgcompile.errors import ModelError
from vgcompile.graph import adapters, contrib
from vgcompile.graph.attributes import given_attributes
from vgcompile.graph.emit import Emitter, arithmetic
from vgcompile.graph.shapes import retype
from vgcompile.graph.skeleton import nodes_of
from vgcompile.graph.view import graphs_of
from vgcompile.ops.op import INTERNAL, Rule

_FORMULAS: dict[tuple[str, str], Rule] = {
    **{(contrib.DOMAIN, name): rule for name, rule in contrib.FORMULAS.items()},
    **{(adapters.DOMAIN, name): rule for name, rule in adapters.FORMULAS.items()},
}
_DOMAINS = ("", "ai.onnx", INTERNAL)


def known(name: str) -> bool:
    """Whether an operator, as ``operators`` names it, can be opened."""
    domain, _, operator = name.partition("::")
    return (domain, operator) in _FORMULAS


def operators(proto: onnx.ModelProto) -> set[str]:
    """The operators of a model, and of its subgraphs, that are outside the standard: ``domain::Operator``."""
    return {f"{node.domain}::{node.op_type}" for node in nodes_of(proto.graph) if node.domain not in _DOMAINS}


def tell_apart(proto: onnx.ModelProto) -> None:
    """Give the operators that ONNX Runtime adds to the standard domain its own one."""
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    added, moved = contrib.FORMULAS.keys() - contrib.HOMONYMS, False
    for node in nodes_of(proto.graph):
        if node.domain in ("", "ai.onnx") and node.op_type in added and not _standard(node.op_type, opset):
            node.domain, moved = contrib.DOMAIN, True
    if moved and all(entry.domain != contrib.DOMAIN for entry in proto.opset_import):
        proto.opset_import.add(domain=contrib.DOMAIN, version=1)


def _standard(operator: str, opset: int) -> bool:
    try:
        return bool(defs.get_schema(operator, opset, ""))
    except defs.SchemaError:
        return False


def open_all(model: ir.Model, path: str) -> set[str]:
    """Open every foreign operator the shapes of whose inputs are known; returns their names. Changes ``model``.

    Raises ModelError, with the node's name, for a form of an operator that its formula does not cover.
    """
    opened: set[str] = set()
    outermost = Emitter(model.graph, model.opset_imports[""])
    for graph in graphs_of(model.graph):
        emitter = outermost.inside(graph)
        with arithmetic(emitter):
            for node in list(graph):
                if node.domain in _DOMAINS:
                    retype(node, emitter)
                elif all(value is None or (value.shape is not None and value.dtype is not None) for value in node.inputs):
                    try:
                        _open(emitter, node)
                    except (ModelError, TypeError, ValueError, LookupError) as error:  # operands that are missing, or too many
                        where = f"{node.op_type} (node {node.name or '?'})"
                        raise ModelError(f"{path}: {where} is not covered: {str(error).splitlines()[0]}") from None
                    opened.add(f"{node.domain}::{node.op_type}")
    if any(node.domain == INTERNAL for graph in graphs_of(model.graph) for node in graph):
        model.opset_imports[INTERNAL] = 1
    return opened


def _open(emitter: Emitter, node: ir.Node) -> None:
    """Write a node in standard operators, under the names of its outputs, and take it out."""
    formula = _FORMULAS[node.domain, node.op_type]
    reals = (v.dtype for v in node.inputs if v is not None and v.dtype is not None and v.dtype.is_floating_point())
    name = (node.name or node.op_type).lstrip("/")
    with emitter.scope(name, before=node, dtype=next(reals, ir.DataType.FLOAT)):
        made = formula(emitter, *node.inputs, **given_attributes(node))
        made = made if isinstance(made, tuple) else (made,)
        for old, new in zip(node.outputs, (*made, *(None,) * len(node.outputs)), strict=False):
            if not old.name or (not old.uses() and not old.is_graph_output()):
                continue
            if new is None:
                raise ModelError(f"its output {old.name!r} is not written; export to standard operators, unfused")
            if new.producer() is None or new in node.inputs:
                new = emitter.Identity(new)
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            taken, old.name = old.name, None
            new.name = taken
    emitter.graph.remove(node, safe=True)
