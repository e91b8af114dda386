"""Values of a model file replaced from outside: by a variant of its own, or by ``--set`` on the command line.

depth                 the parameter `depth`, where there is one
init.weight.gain      down through mappings; a kind that is written alone becomes a mapping
layers.stem.units     a layer by its name, or by its number from 0
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from vgcompile.errors import Complain, Complaint, Mark, SpecError, nearest
from vgcompile.rules.writing import BAD_OVERRIDE
from vgcompile.spec.parameters import retyped
from vgcompile.spec.reading import Node, describe, list_of, mapping_of, read


@dataclass(frozen=True)
class Override:
    """``value`` for what ``path`` leads to; ``mark`` is where that was asked for."""

    path: tuple[str, ...]
    value: Node
    mark: Mark


class _NoSuchPlace(Exception):
    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = message, hint


def setting(text: str) -> Override:
    """``depth=50`` of ``--set``. Raises SpecError where it is none."""
    mark = Mark(f"--set {text}", 0)
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise SpecError([Complaint(mark, "this sets nothing", "write --set NAME=VALUE, such as --set depth=50", BAD_OVERRIDE)])
    try:
        given = read(value, mark.file) if value.strip() else Node(None, mark)
    except SpecError as error:
        raise SpecError(replace(complaint, mark=mark) for complaint in error.complaints) from None
    return Override(tuple(name.strip().split(".")), _marked(given, mark), mark)


def overridden(root: Node, variant: str | None, settings: Sequence[str], fields: Collection[str], complain: Complain) -> Node:
    """The tree with a variant's values, then those that are set one by one; ``fields`` are those that a model may have. Of the
    variants that are not asked for, the places are looked up.

    Raises SpecError for a setting that is none.
    """
    stated = root.get("variants")
    others = [name for name in (stated.keys if stated is not None else ()) if name != variant]
    for other in others:
        _applied(root, list(_of_variant(root, other, complain)), fields, complain)
    return _applied(root, [*_of_variant(root, variant, complain), *map(setting, settings)], fields, complain)


def _applied(root: Node, overrides: Sequence[Override], fields: Collection[str], complain: Complain) -> Node:
    for override in overrides:
        try:
            path = _path(root, override, fields)
            params = root.get("params") if path[:1] == ("params",) and len(path) == 2 else None
            if params is not None and (old := params.get(path[1])) is not None:
                override = replace(override, value=retyped(old, override.value))
            root = _replaced(root, path, override)
        except _NoSuchPlace as error:
            complain(override.mark, error.message, error.hint, BAD_OVERRIDE)
    return root


def _of_variant(root: Node, variant: str | None, complain: Complain) -> Iterator[Override]:
    if variant is None:
        return
    stated = root.get("variants")
    names = list(stated.keys) if stated is not None else []
    found = stated.get(variant) if stated is not None else None
    if found is None:
        hint = nearest(variant, names) or (f"there are {', '.join(names)}" if names else "the model has no variants:")
        complain(Mark(f"--variant {variant}", 0), f"unknown variant {variant!r}", hint, BAD_OVERRIDE)
    elif not isinstance(found.value, dict):
        complain(found.mark, f"a variant maps names to values, found {describe(found.value)}", "such as {depth: 3}", BAD_OVERRIDE)
    else:
        for path, value in found.children.items():
            yield Override(tuple(str(path).split(".")), value, found.keys[str(path)])


def _path(root: Node, override: Override, fields: Collection[str]) -> tuple[str, ...]:
    """A first name that is a parameter's means that one. Raises _NoSuchPlace for one that is nothing."""
    params = root.get("params")
    first, *rest = override.path
    if params is not None and first in params.keys:
        return ("params", first, *rest)
    if first not in fields:
        layers = root.get("layers")
        if any(
            child.get("name") and child.children["name"].value == first for child in (layers.children if layers else {}).values()
        ):
            raise _NoSuchPlace(f"{first!r} is neither a field nor a parameter", f"a layer's is layers.{'.'.join(override.path)}")
        known = [*fields, *(params.keys if params is not None else ())]
        raise _NoSuchPlace(
            f"{first!r} is neither a field nor a parameter", nearest(first, known) or f"there are {', '.join(known)}"
        )
    return override.path


def _replaced(node: Node, path: Sequence[str], override: Override) -> Node:
    if not path:
        return override.value
    step, *rest = path
    if isinstance(node.value, tuple):
        place = _item(node, step)
        items = [_replaced(child, rest, override) if i == place else child for i, child in node.children.items()]
        return list_of(items, node.mark)
    if isinstance(node.value, str) and node.value:  # a kind that is written alone
        node = mapping_of({"kind": Node(node.value, node.mark)}, node.mark)
    if node.value is not None and not isinstance(node.value, dict):
        raise _NoSuchPlace(f"{'.'.join(override.path)}: {describe(node.value)} has no field {step!r}")
    children = {str(name): child for name, child in node.children.items()}
    children[step] = _replaced(children.get(step) or Node(None, override.mark), rest, override)
    return mapping_of(children, node.mark, {**node.keys, **({} if step in node.keys else {step: override.mark})})


def _item(node: Node, step: str) -> int:
    stated = [(child.get("name"), i) for i, child in node.children.items() if isinstance(i, int)]
    names = {name.value: i for name, i in stated if name is not None and isinstance(name.value, str)}
    if step in names:
        return names[step]
    if step.isdigit() and int(step) < len(node.value):
        return int(step)
    hint = nearest(step, names) or f"they are numbered 0 to {len(node.value) - 1}"
    raise _NoSuchPlace(f"no item {step!r} in a list of {len(node.value)}", hint)


def _marked(node: Node, mark: Mark) -> Node:
    """Every value of it at one place."""
    if isinstance(node.value, tuple):
        return list_of([_marked(child, mark) for child in node.children.values()], mark)
    if isinstance(node.value, dict):
        return mapping_of({str(name): _marked(child, mark) for name, child in node.children.items()}, mark)
    return Node(node.value, mark)
