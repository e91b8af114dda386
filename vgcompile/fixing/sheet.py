"""A model's text as a tree to be edited: its layers wherever they are stated, and the edits that remedies are made of.

Comments stay with the entries that they are about (spec/annotated.py), and the result is in canonical layout (spec/layout.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vgcompile.spec.annotated import Collection, Entry, Scalar, Value, annotated
from vgcompile.spec.layout import laid_out
from vgcompile.spec.reading import plain

_LISTS = ("layers", "shortcut")
_PRODUCTS, _SHARES = ("multiply", "expression"), {"sigmoid", "hard_sigmoid", "softmax"}
_LONE = re.compile(r"\$\{\s*(\w+)\s*\}")


@dataclass(eq=False)
class Stated:
    """A layer as the text states it: an entry of a list. It may open into many."""

    entry: Entry
    among: Collection
    around: Stated | None = None

    @property
    def fields(self) -> Collection:
        assert isinstance(self.entry.value, Collection)
        return self.entry.value

    @property
    def kind(self) -> str:
        return text_of(self.fields, "kind") or ""

    @property
    def name(self) -> str | None:
        return text_of(self.fields, "name")

    @property
    def repeat(self) -> str | None:
        """As the text has it: a number, or an expression."""
        return text_of(self.fields, "repeat")

    def replace(self, *layers: Mapping[str, Any] | Collection) -> None:
        """Put these in its place; what was said above it stands above the first."""
        place = self.among.entries.index(self.entry)
        made = [Entry(value=tree(layer)) for layer in layers]
        made[0].above, made[0].beside = self.entry.above, self.entry.beside
        self.among.entries[place : place + 1] = made


class Sheet:
    """The text of a model file, to be edited in place."""

    def __init__(self, text: str) -> None:
        self._root = annotated(text)
        assert isinstance(self._root.value, Collection)
        self.document = self._root.value

    @property
    def text(self) -> str:
        return laid_out(self._root)

    @cached_property
    def layers(self) -> Sequence[Stated]:
        """Every layer that the text states, the outer ones first: those of the net, and those of its blocks."""
        found = list(_stated(self.document, None))
        blocks = self.document.get("blocks")
        for block in blocks.value.entries if blocks is not None and isinstance(blocks.value, Collection) else ():
            if isinstance(block.value, Collection):
                found.extend(_stated(block.value, None))
        return found

    @cached_property
    def read_by_name(self) -> frozenset[str]:
        """Names that a ``from`` or a loss reads: such a layer must go on giving out what it does."""
        return self.read_by_a_loss.union(*(_names(layer.fields, "from") for layer in self.layers))

    @cached_property
    def read_by_a_loss(self) -> frozenset[str]:
        stated = self.document.get("loss")
        if stated is None or not isinstance(stated.value, Collection):
            return frozenset()
        losses = [stated.value] if stated.value.mapping else [entry.value for entry in stated.value.entries]
        return frozenset().union(*(_names(loss, "input") for loss in losses))

    @cached_property
    def gates(self) -> frozenset[int]:
        """Layers, by the identity of their fields, that give out shares of 1 which multiply another layer's output."""
        read = {name for layer in self.layers if layer.kind in _PRODUCTS for name in _names(layer.fields, "from")}
        shares = [layer for layer in self.layers if {layer.kind, text_of(layer.fields, "activation")} & _SHARES]
        return frozenset(id(layer.fields) for layer in shares if layer.name in read)

    @property
    def last(self) -> Stated | None:
        """The layer that leaves the net."""
        top = self.document.get("layers")
        return next((layer for layer in reversed(self.layers) if top is not None and layer.among is top.value), None)


def _stated(holder: Collection, around: Stated | None) -> Iterator[Stated]:
    for key in _LISTS:
        entry = holder.get(key)
        if entry is None or not isinstance(entry.value, Collection) or entry.value.mapping:
            continue
        for item in entry.value.entries:
            if isinstance(item.value, Collection) and item.value.mapping:
                layer = Stated(item, entry.value, around)
                yield layer
                yield from _stated(item.value, layer)


def _entries(value: Value | None) -> list[Entry]:
    return value.entries if isinstance(value, Collection) else []


def _names(value: Value | None, key: str) -> Iterator[str]:
    entry = value.get(key) if isinstance(value, Collection) and value.mapping else None
    if entry is None:
        return
    if isinstance(entry.value, Scalar):
        yield entry.value.value
    for item in _entries(entry.value):
        if isinstance(item.value, Scalar):
            yield item.value.value


def text_of(fields: Value, key: str) -> str | None:
    """The scalar of a field, as the text has it; None where it is absent, or a mapping or a list."""
    entry = fields.get(key) if isinstance(fields, Collection) and fields.mapping else None
    return entry.value.value if entry is not None and isinstance(entry.value, Scalar) else None


def put(fields: Collection, key: str, value: Any) -> None:
    """State a field anew, or for the first time; what is said beside it stays."""
    entry = fields.get(key)
    if entry is None:
        fields.entries.append(Entry(Scalar(key, True), tree(value)))
    else:
        entry.value = tree(value)


def drop(fields: Collection, key: str) -> Entry | None:
    """Take a field out; returns it."""
    entry = fields.get(key)
    if entry is not None:
        fields.entries.remove(entry)
    return entry


def tree(value: Any) -> Value:
    """A plain value, or a tree, as a tree. Text that holds an expression is quoted where it has to be."""
    if isinstance(value, Scalar | Collection):
        return value
    if isinstance(value, Mapping):
        return Collection([Entry(Scalar(str(key), True), tree(item)) for key, item in value.items()], True)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return Collection([Entry(value=tree(item)) for item in value], False)
    if isinstance(value, bool):
        return Scalar("true" if value else "false", True)
    return Scalar(value if isinstance(value, str) else format(value, ".6g"), True)


def less_one(repeat: str) -> str | int | None:
    """One copy less than a ``repeat`` says; None where that leaves none, or nobody can tell."""
    number = plain(repeat)
    if isinstance(number, int):
        return number - 1 if number > 1 else None
    lone = _LONE.fullmatch(repeat.strip())
    return f"${{{lone[1]} - 1}}" if lone else None
