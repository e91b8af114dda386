"""Where a node comes from: facts that ride in ``metadata_props`` into the files, under keys ``vgcompile.<fact>``.

    layer     the YAML layer's full name, or a foreign file's node group
    kind      the layer's kind
    source    file:line:column of the YAML layer
    role      forward (the default), backward, update
    forward   of a backward node: the name of its forward node
    body      of a node that `lower` wrote: the body that it chose
    initial   of a parameter: the distribution it was drawn from, as JSON (vgcompile/initial.py)

What a pass derives from a node inherits the first three.
"""

from __future__ import annotations

import onnx_ir as ir

PREFIX = "vgcompile."
INHERITED = ("layer", "kind", "source")


def fact(item: ir.Node | ir.Value, key: str) -> str | None:
    return item.metadata_props.get(PREFIX + key)


def origin(node: ir.Node) -> dict[str, str]:
    """The facts that whatever is derived from a node has in common with it."""
    return {key: node.metadata_props[PREFIX + key] for key in INHERITED if PREFIX + key in node.metadata_props}


def line_of(node: ir.Node) -> int | None:
    """The YAML line of the node's layer, counted from 1."""
    source = fact(node, "source")
    return int(source.rsplit(":", 2)[1]) if source else None
