"""``include:``: what several model files share, in a file of its own.

    include: blocks.yaml               or a list; a file's path starts from the folder of the file that names it

An included file adds its inputs, params, variants, blocks and init, entry by entry, and any other field that is absent; what the
including file says itself goes first. Its values keep their place in their own text.
"""

from __future__ import annotations

from pathlib import Path

from vgcompile.errors import Complain
from vgcompile.rules.writing import BAD_INCLUDE
from vgcompile.spec.reading import Node, describe, mapping_of, read

FIELD = "include"
JOINED = ("inputs", "params", "variants", "blocks", "init")
DEEPEST = 16


def included(root: Node, file: str, complain: Complain) -> tuple[Node, dict[str, str]]:
    """The tree with what it includes, and the texts of those files by their names. Raises SpecError for an included file that is
    no YAML."""
    texts: dict[str, str] = {}
    return _joined(root, (Path(file).resolve(),), texts, complain), texts


def _joined(root: Node, above: tuple[Path, ...], texts: dict[str, str], complain: Complain) -> Node:
    stated = root.get(FIELD)
    if stated is None:
        return root
    children = {name: child for name, child in root.children.items() if name != FIELD}
    keys = dict(root.keys)
    for entry in stated.children.values() or [stated]:
        other = _opened(entry, above, texts, complain)
        for name, child in (other.children if other is not None else {}).items():
            assert other is not None and isinstance(name, str)
            keys.setdefault(name, other.keys[name])
            own = children.get(name)
            children[name] = child if own is None else _united(own, child) if name in JOINED else own
    return mapping_of({str(name): child for name, child in children.items()}, root.mark, keys)


def _united(own: Node, other: Node) -> Node:
    if not isinstance(own.value, dict) or not isinstance(other.value, dict):
        return own
    children = {str(name): child for name, child in (other.children | own.children).items()}  # type: ignore[operator]
    return mapping_of(children, own.mark, {**other.keys, **own.keys})


def _opened(entry: Node, above: tuple[Path, ...], texts: dict[str, str], complain: Complain) -> Node | None:
    name = entry.value
    if not isinstance(name, str) or not name:
        complain(entry.mark, f"include names files, found {describe(name)}", "write include: blocks.yaml", BAD_INCLUDE)
        return None
    if "://" in name or Path(name).is_absolute():
        complain(entry.mark, f"{name!r} is not a relative path", "include files beside the model", BAD_INCLUDE)
        return None
    path = above[-1].parent / name
    if path.resolve() in above:
        circle = " -> ".join([*(p.name for p in above[above.index(path.resolve()) :]), path.name])
        complain(entry.mark, f"files include each other in a circle: {circle}", "take one of them out", BAD_INCLUDE)
        return None
    if len(above) > DEEPEST:
        complain(
            entry.mark, f"files include each other more than {DEEPEST} deep", "put what they share into one file", BAD_INCLUDE
        )
        return None
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        hint = f"its path starts from {above[-1].parent.name or '.'}/"
        complain(entry.mark, f"{name!r} cannot be included: {reason}", hint, BAD_INCLUDE)
        return None
    shown = str(Path(entry.mark.file).parent / name)
    tree, texts[shown] = read(text, shown), text
    if not isinstance(tree.value, dict):
        complain(
            entry.mark,
            f"{name!r} holds {describe(tree.value)}, not a mapping",
            "an included file has blocks:, params: and the like",
            BAD_INCLUDE,
        )
        return None
    return _joined(tree, (*above, path.resolve()), texts, complain)
