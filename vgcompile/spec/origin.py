"""Where a layer comes from: which copy it is of the repeats around it, for one place in the text has many layers."""

from __future__ import annotations

from vgcompile.errors import Note
from vgcompile.spec.reading import Node
from vgcompile.spec.wiring import Placed


def expansion(root: Node, placed: Placed) -> tuple[Note, ...]:
    """One note for each repeat around a layer, the innermost first: ``copy 3 of block 'hidden' at line 12``."""
    names = iter(placed.name.split("/"))
    node, notes = root, []
    for step in placed.path:
        if step not in node.children:  # a layer that its kind opens into has no text of its own
            break
        node = node.children[step]
        if not isinstance(node.value, dict):
            continue
        name, repeat = next(names), node.get("repeat")
        if repeat is not None:
            notes.append(Note(f"copy {next(names)} of {node.value['kind']} {name!r} at line {node.mark.line}"))
    return tuple(reversed(notes))
