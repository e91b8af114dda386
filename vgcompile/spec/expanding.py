"""Blocks, parameters and repeats written out: the tree of a model file as if its author had written every layer.

    params: {width: 16}
    blocks:
      res: {params: {filters: int}, layers: [...]}
    layers:
      - {kind: res, repeat: 3, filters: "${width * 2 ** i}"}
    becomes
      - {kind: block, of: res, layers: [{kind: block, name: 1, layers: [...]}, ...]}

A repeat whose copies are alike stays one layer with its number. Whatever a block's text is copied for stands in its marks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vgcompile.errors import Complain, Mark, Note, nearest
from vgcompile.layers import LAYERS
from vgcompile.rules import writing as rules
from vgcompile.rules.wires import TOO_MANY_LAYERS
from vgcompile.spec.expressions import UNKNOWN, ExpressionError, filled, has_expression, names_in
from vgcompile.spec.opening import MOST_LAYERS
from vgcompile.spec.parameters import Parameter, declared
from vgcompile.spec.reading import Node, list_of, mapping_of

INDEX = "i"
MOST_VALUES = 50_000  # written and read within two seconds
DEEPEST = 32  # blocks in blocks
_DECLARATIONS = ("params", "variants", "blocks")
_LISTS = ("layers", "shortcut")  # fields of a layer that hold layers
_CALL = ("kind", "name", "from", "repeat", "index", "when")  # fields of a call that are no parameters

Names = Mapping[str, Any]
Origin = tuple[str, ...]


@dataclass(frozen=True)
class Expanded:
    """``unused`` are the blocks and parameters that nothing uses, each with its mark and what it is; ``unknown`` the places of
    values whose expression, or what it reads, was complained about."""

    tree: Node
    unused: tuple[tuple[Mark, str], ...] = ()
    unknown: frozenset[Mark] = frozenset()


def expanded(root: Node, complain: Complain) -> Expanded:
    """The tree without expressions, calls of blocks, and repeats whose copies differ. Complains at their places."""
    return _Expander(root, complain).expanded()


@dataclass(frozen=True)
class _Block:
    mark: Mark
    parameters: Mapping[str, Parameter]
    layers: Node | None


@dataclass(frozen=True)
class _Scope:
    """Where a part of the text is written out: what its names mean, what it is a copy for, how deep in blocks."""

    names: Names
    origin: Origin = ()
    calls: tuple[str, ...] = field(default=())


class _TooMany(Exception):
    """The text would be written out into more of these than a model may hold."""


class _Expander:
    def __init__(self, root: Node, complain: Complain) -> None:
        self.root, self.complain = root, complain
        self.used: set[str] = set()  # blocks, and parameters of the model
        self.unknown: set[Mark] = set()
        self.count = {"layers": 0, "values": 0}
        self.plain: dict[int, bool] = {}  # by node's identity: nothing in there is an expression
        self.globals: Names = {}  # the model's parameters
        self.blocks = self.declared_blocks()

    def expanded(self) -> Expanded:
        params = declared(self.root.get("params"), self.complain)
        self.globals = self.parameters(params)
        scope = _Scope(self.globals)
        children = {}
        try:
            for name, child in self.root.children.items():
                assert isinstance(name, str)
                if name == "layers":
                    children[name] = self.layers(child, scope)
                else:
                    children[name] = child if name in _DECLARATIONS else self.value(child, scope)
        except _TooMany as limit:
            mark = self.root.children["layers"].mark if "layers" in self.root.children else self.root.mark
            self.complain(mark, f"blocks and repeats open into more than {limit}", "repeat less", TOO_MANY_LAYERS)
            return Expanded(self.root)
        unused = [(block.mark, f"block {name!r} is never used") for name, block in self.blocks.items() if name not in self.used]
        unused += [(p.mark, f"parameter {name!r} is never read") for name, p in params.items() if name not in self.used]
        return Expanded(mapping_of(children, self.root.mark, self.root.keys), tuple(unused), frozenset(self.unknown))

    # Declarations

    def declared_blocks(self) -> dict[str, _Block]:
        stated = self.root.get("blocks")
        if stated is None or not isinstance(stated.value, dict):
            return {}
        blocks = {}
        for kind, node in stated.children.items():
            mark = stated.keys[str(kind)]
            if kind in LAYERS:
                hint = "give the block another name"
                self.complain(mark, f"{kind!r} is a kind of layer already", hint, rules.BAD_DECLARATION)
                continue
            params = declared(node.get("params"), self.complain)
            for taken in (params[name] for name in _CALL if name in params):
                hint = "give the parameter another name"
                self.complain(taken.mark, f"{taken.name!r} is a field of every layer", hint, rules.BAD_DECLARATION)
            blocks[str(kind)] = _Block(mark, params, node.get("layers"))
        return blocks

    def parameters(self, params: Mapping[str, Parameter]) -> dict[str, Any]:
        """The model's own. One may be computed from those before it."""
        names: dict[str, Any] = {}
        for name, parameter in params.items():
            if parameter.default is None:
                hint = f"give it a default, or --set {name}=..."
                self.complain(parameter.mark, f"the parameter {name!r} has no value", hint, rules.MISSING_PARAMETER)
                names[name] = UNKNOWN
                continue
            names[name] = self.checked(parameter, parameter.default, _Scope(names))
        return names

    def checked(self, parameter: Parameter, node: Node, scope: _Scope) -> Any:
        given = self.value(node, scope)
        if given.mark in self.unknown:
            return UNKNOWN
        if (fault := parameter.fault(given.value)) is not None:
            self.complain(given.mark, *fault, rules.PARAMETER_VALUE, (Note("declared here", parameter.mark),))
            return UNKNOWN
        return given.value

    # Layers

    def layers(self, stated: Node, scope: _Scope) -> Node:
        """A list of layers, those left out that are not wanted."""
        if not isinstance(stated.value, tuple):
            return self.value(stated, scope)
        items = [self.layer(child, scope) for child in stated.children.values()]
        return list_of([item for item in items if item is not None], self.marked(stated.mark, scope))

    def layer(self, stated: Node, scope: _Scope) -> Node | None:
        if not isinstance(stated.value, dict):
            return self.value(stated, scope)
        self.counted("layers", MOST_LAYERS)
        when = self.field(stated, "when", scope)
        if when is not None and when.value is False:
            self.mention(stated)
            return None
        repeat, index = self.field(stated, "repeat", scope), self.field(stated, "index", scope)
        name = index.value if index is not None and isinstance(index.value, str) else INDEX
        if repeat is not None and type(repeat.value) is int and repeat.value > 0 and self.reads(stated, name):
            return self.unrolled(stated, repeat.value, name, scope)
        return self.written(stated, scope)

    def mention(self, stated: Node) -> None:
        """What a layer that is left out here reads is not unused: with another value it stays."""
        for text in _texts(stated):
            self.used.update(names_in(text))
            if text in self.blocks and text not in self.used:
                self.used.add(text)
                if (layers := self.blocks[text].layers) is not None:
                    self.mention(layers)

    def unrolled(self, stated: Node, repeat: int, index: str, scope: _Scope) -> Node:
        """A repeat whose copies differ by their number: a block of that many."""
        copies = []
        for number in range(repeat):
            self.counted("layers", MOST_LAYERS)
            origin = (*scope.origin, f"copy {number + 1}, {index}={number}")
            inner = replace(scope, names={**scope.names, index: number}, origin=origin)
            copy = self.written(stated, inner, leave=("name", "from", "repeat", "index", "when"))
            copies.append(self.named(copy, str(number + 1)))
        outer = {name: self.value(child, scope) for name in ("name", "from") if (child := stated.get(name)) is not None}
        mark = self.marked(stated.mark, scope)
        kind = self.field(stated, "kind", scope)
        children = {"kind": Node("block", mark), "of": kind or Node("block", mark), **outer, "layers": list_of(copies, mark)}
        return mapping_of(children, mark, stated.keys)

    def named(self, node: Node, name: str) -> Node:
        children = {str(key): child for key, child in node.children.items()}
        return mapping_of({**children, "name": Node(name, node.mark)}, node.mark, node.keys)

    def written(self, stated: Node, scope: _Scope, leave: tuple[str, ...] = ()) -> Node:
        """One layer with its expressions filled in, or the layers of the block that it calls; without some of its fields."""
        kind = self.field(stated, "kind", scope)
        if kind is not None and isinstance(kind.value, str) and kind.value in self.blocks:
            return self.called(stated, kind.value, scope, leave)
        children = {}
        for name, child in stated.children.items():
            assert isinstance(name, str)
            if name in leave:
                continue
            children[name] = self.layers(child, scope) if name in _LISTS else self.value(child, scope)
            if name == "shortcut" and child.value and not children[name].value:  # each layer of it was left out
                del children[name]
        same = len(children) == len(stated.children) and all(new is stated.children[name] for name, new in children.items())
        if same and not scope.origin:
            return stated
        return mapping_of(children, self.marked(stated.mark, scope), self.marks(stated, scope))

    def called(self, stated: Node, kind: str, scope: _Scope, leave: tuple[str, ...]) -> Node:
        block = self.blocks[kind]
        self.used.add(kind)
        mark = self.marked(stated.mark, scope)
        children = {"kind": Node("block", mark), "of": Node(kind, mark)}
        for name in _CALL[1:]:
            if (child := stated.get(name)) is not None and name not in leave:
                children[name] = self.value(child, scope)
        if kind in scope.calls or len(scope.calls) == DEEPEST:
            circle = " -> ".join([*scope.calls[scope.calls.index(kind) if kind in scope.calls else 0 :], kind])
            self.complain(mark, f"blocks hold each other in a circle: {circle}", "take one of the calls out", rules.BLOCK_CIRCLE)
            return mapping_of(children, mark, stated.keys)
        names = self.arguments(stated, kind, block, scope)
        origin = (*scope.origin, f"expanded from block {kind!r} at line {block.mark.line}, for line {stated.mark.line}")
        if block.layers is not None:
            children["layers"] = self.layers(block.layers, _Scope(names, origin, (*scope.calls, kind)))
        return mapping_of(children, mark, stated.keys)

    def arguments(self, stated: Node, kind: str, block: _Block, scope: _Scope) -> dict[str, Any]:
        """What the names in a block mean: its own parameters and, around them, the model's."""
        names = dict(self.globals)
        for name, mark in stated.keys.items():
            if name not in _CALL and name not in block.parameters:
                known = [*block.parameters, *_CALL]
                hint = nearest(name, known) or f"it has {', '.join(known)}"
                self.complain(mark, f"block {kind!r} has no parameter {name!r}", hint, rules.UNKNOWN_PARAMETER)
        for name, parameter in block.parameters.items():
            given = stated.get(name)
            if given is not None:
                names[name] = self.checked(parameter, given, scope)
            elif parameter.default is not None:
                names[name] = self.checked(parameter, parameter.default, _Scope(names, scope.origin))
            else:
                self.complain(
                    self.marked(stated.mark, scope),
                    f"block {kind!r} needs the parameter {name!r}",
                    f"write {name}: ...",
                    rules.MISSING_PARAMETER,
                    (Note("declared here", parameter.mark),),
                )
                names[name] = UNKNOWN
        return names

    # Values

    def field(self, stated: Node, name: str, scope: _Scope) -> Node | None:
        child = stated.get(name)
        return None if child is None else self.value(child, scope)

    def value(self, node: Node, scope: _Scope) -> Node:
        """A value with its expressions filled in; the node itself where nothing changes."""
        if not scope.origin and self.is_plain(node):
            return node
        self.counted("values", MOST_VALUES)
        mark = self.marked(node.mark, scope)
        if isinstance(node.value, tuple):
            return list_of([self.value(child, scope) for child in node.children.values()], mark)
        if isinstance(node.value, dict):
            children = {str(name): self.value(child, scope) for name, child in node.children.items()}
            return mapping_of(children, mark, self.marks(node, scope))
        if not isinstance(node.value, str) or not has_expression(node.value):
            return Node(node.value, mark)
        return self.of_expression(node.value, mark, scope)

    def of_expression(self, text: str, mark: Mark, scope: _Scope) -> Node:
        self.used.update(names_in(text))
        try:
            found = filled(text, scope.names)
        except ExpressionError as error:
            if error.message:
                self.complain(mark, error.message, error.hint, rules.BAD_EXPRESSION)
            self.unknown.add(mark)
            found = None
        if isinstance(found, tuple):
            return list_of([Node(item, mark) for item in found], mark)
        return Node(found, mark)

    def reads(self, stated: Node, name: str) -> bool:
        """Whether an expression of a layer reads this name."""
        return any(name in names_in(text) for text in _texts(stated))

    def is_plain(self, node: Node) -> bool:
        known = self.plain.get(id(node))
        if known is None:
            known = self.plain[id(node)] = not any(map(has_expression, _texts(node)))
        return known

    def marked(self, mark: Mark, scope: _Scope) -> Mark:
        return Mark(mark.file, mark.line, mark.column, mark.end, scope.origin) if scope.origin else mark

    def marks(self, node: Node, scope: _Scope) -> dict[str, Mark]:
        return {name: self.marked(mark, scope) for name, mark in node.keys.items()}

    def counted(self, what: str, most: int) -> None:
        self.count[what] += 1
        if self.count[what] > most:
            raise _TooMany(f"{most:,} {what}")


def _texts(node: Node) -> Iterator[str]:
    if isinstance(node.value, str):
        yield node.value
    for child in node.children.values():
        yield from _texts(child)
