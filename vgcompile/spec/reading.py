"""YAML text -> a tree of plain values that knows where each of them stands.

The text is read as YAML 1.2 core: ``no`` and ``on`` are strings, ``1e-3`` is a number, ``010`` is ten, ``1_000`` is a string.
Refused, with its place: a key written twice, a key that is no string, an explicit tag, a merge key, a second document. An alias
shares its anchor's tree, so that text which expands a billionfold costs nothing before it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NoReturn

import yaml

from vgcompile.errors import Complaint, Mark, Note, SpecError
from vgcompile.rules import text as rules
from vgcompile.rules.rule import Rule

MOST_VALUES = 200_000
DEEPEST = 64

LOADER = getattr(yaml, "CLoader", yaml.Loader)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# YAML 1.2.2, section 10.3.2: the core schema's tag resolution.
_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(?:inf|Inf|INF)")
_NAN = re.compile(r"\.(?:nan|NaN|NAN)")
_LONGEST_INT = 4000  # digits; Python refuses a little more than this

Path = tuple[str | int, ...]


_NONE: dict[Any, Any] = {}


@dataclass(frozen=True, slots=True)
class Node:
    """A value (str, int, float, bool, None, tuple or dict), its mark, and the nodes inside it."""

    value: Any
    mark: Mark
    children: Mapping[str | int, Node] = field(default_factory=lambda: _NONE)
    keys: Mapping[str, Mark] = field(default_factory=lambda: _NONE)
    count: int = 1  # of values, aliases expanded
    depth: int = 1

    def get(self, key: str | int) -> Node | None:
        return self.children.get(key)

    def at(self, path: Path) -> Node:
        """The node that a path of keys and indices leads to."""
        return reduce(lambda node, step: node.children[step], path, self)


def read(text: str, file: str) -> Node:
    """The one document of a YAML text. Raises SpecError with everything that is wrong with it as YAML."""
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        place = _mark_at(text, unprintable.start(), file)
        raise SpecError(
            [
                Complaint(
                    place,
                    f"this is not YAML text: character U+{ord(unprintable[0]):04X}",
                    "give a .yaml or an .onnx file",
                    rules.NOT_TEXT,
                )
            ]
        )
    reader = _Reader(file)
    try:
        root = reader.document(yaml.parse(text, Loader=LOADER))
    except yaml.MarkedYAMLError as error:
        raise SpecError([*reader.complaints, _syntax(error, text, file)]) from None
    except yaml.YAMLError as error:
        raise SpecError([*reader.complaints, Complaint(Mark(file, 1), f"this is not YAML: {error}", rule=rules.SYNTAX)]) from None
    if reader.complaints:
        raise SpecError(reader.complaints)
    if root is None or root.value is None:
        raise SpecError(
            [Complaint(Mark(file, 1), "the file is empty", "a model has inputs:, layers: and a loss:", rules.NO_MODEL)]
        )
    return root


class _Reader:
    """Builds the tree from YAML's events, and collects complaints as it goes."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.complaints: list[Complaint] = []
        self.anchors: dict[str, Node | None] = {}  # None: the anchor is still being read
        self.count = 0

    def document(self, events: Iterator[Any]) -> Node | None:
        root = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self.complain(event, "a second document begins here", "one file holds one model", rules.SECOND_DOCUMENT)
                    break
                root = self.node(next(events), events, 1)
        return root

    def node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        if depth > DEEPEST:
            self.stop(event, f"values are nested more than {DEEPEST} deep", rule=rules.TOO_LARGE)
        if isinstance(event, yaml.AliasEvent):
            node = self.alias(event, depth)
            self.counted(event, node.count)
            return node
        self.counted(event, 1)
        if event.anchor:
            self.anchors[event.anchor] = None
        if event.tag is not None:
            self.complain(
                event,
                f"the tag {event.tag.replace('tag:yaml.org,2002:', '!!')} has no meaning here",
                "write the value without it",
                rules.TAG,
            )
        if isinstance(event, yaml.ScalarEvent):
            node = Node(self.scalar(event), self.mark(event))
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self.sequence(event, events, depth)
        else:
            node = self.mapping(event, events, depth)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def alias(self, event: Any, depth: int) -> Node:
        if event.anchor not in self.anchors:
            self.stop(event, f"no anchor &{event.anchor} stands before this", rule=rules.UNKNOWN_ANCHOR)
        node = self.anchors[event.anchor]
        if node is None:
            self.stop(event, f"the value of &{event.anchor} contains itself", rule=rules.RECURSION)
        if depth + node.depth - 1 > DEEPEST:
            self.stop(event, f"values are nested more than {DEEPEST} deep", rule=rules.TOO_LARGE)
        return node

    def sequence(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        items = []
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            items.append(self.node(item, events, depth + 1))
        return list_of(items, self.mark(event, item))

    def mapping(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        children: dict[str, Node] = {}
        keys: dict[str, Mark] = {}
        while not isinstance(item := next(events), yaml.MappingEndEvent):
            key = self.node(item, events, depth + 1)
            value = self.node(next(events), events, depth + 1)
            if not isinstance(key.value, str):
                self.complain(item, f"a key must be a string, found {describe(key.value)}", "put it in quotes", rules.KEY_TYPE)
            elif key.value == "<<":
                self.complain(
                    item, "merge keys are not YAML 1.2", "write the fields out, or alias a whole value", rules.MERGE_KEY
                )
            elif key.value in keys:
                self.complain(
                    item,
                    f"key {key.value!r} is written twice",
                    f"first at line {keys[key.value].line}, column {keys[key.value].column}",
                    rules.DUPLICATE_KEY,
                    (Note("first written here", keys[key.value]),),
                )
            else:
                keys[key.value], children[key.value] = self.mark(item), value
        return mapping_of(children, self.mark(event, item), keys)

    def scalar(self, event: Any) -> Any:
        if not event.implicit[0]:  # in quotes, or a block of text
            return event.value
        if _INT.fullmatch(event.value) and len(event.value) > _LONGEST_INT:
            self.complain(event, f"a number of {len(event.value)} digits is too long", rule=rules.TOO_LARGE)
            return 0
        return plain(event.value)

    def counted(self, event: Any, values: int) -> None:
        self.count += values
        if self.count > MOST_VALUES:
            self.stop(
                event,
                f"the text holds more than {MOST_VALUES:,} values, its aliases expanded",
                "use repeat: for copies of layers",
                rules.TOO_LARGE,
            )

    def mark(self, event: Any, last: Any = None) -> Mark:
        """Where an event begins and, on the same line, where it or the ``last`` one of its value ends."""
        start, end = event.start_mark, (last or event).end_mark
        one_line = end.line == start.line and end.column > start.column
        return Mark(self.file, start.line + 1, start.column + 1, end.column + 1 if one_line else 0)

    def complain(
        self, event: Any, message: str, hint: str = "", rule: Rule = rules.UNCLASSIFIED, notes: tuple[Note, ...] = ()
    ) -> None:
        self.complaints.append(Complaint(self.mark(event), message, hint, rule, notes))

    def stop(self, event: Any, message: str, hint: str = "", rule: Rule = rules.UNCLASSIFIED) -> NoReturn:
        self.complain(event, message, hint, rule)
        raise SpecError(self.complaints)


def plain(text: str) -> Any:
    """The value of an unquoted scalar by YAML 1.2's core schema."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if infinite := _INFINITE.fullmatch(text):
        return float(f"{infinite[1]}inf")
    return float("nan") if _NAN.fullmatch(text) else text


def describe(value: Any) -> str:
    """``the string 'no'``, ``3``, ``a mapping``: a value as a complaint names it."""
    if isinstance(value, str):
        return f"the string {value if len(value) <= 40 else value[:37] + '...'!r}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    return "nothing" if value is None else str(value)


def mapping_of(children: Mapping[str, Node], mark: Mark, keys: Mapping[str, Mark] | None = None) -> Node:
    """A mapping of these nodes; a key without a mark of its own has its value's."""
    below: dict[str | int, Node] = dict(children.items())
    marks = {name: (keys or {}).get(name, child.mark) for name, child in children.items()}
    return _branch({name: child.value for name, child in children.items()}, mark, below, marks)


def list_of(items: Sequence[Node], mark: Mark) -> Node:
    return _branch(tuple(item.value for item in items), mark, dict(enumerate(items)), {})


def _branch(value: Any, mark: Mark, children: dict[str | int, Node], keys: dict[str, Mark]) -> Node:
    below = children.values()
    return Node(value, mark, children, keys, 1 + sum(n.count for n in below), 1 + max((n.depth for n in below), default=0))


def _mark_at(text: str, position: int, file: str) -> Mark:
    before = text[:position]
    column = position - (before.rfind("\n") + 1) + 1
    return Mark(file, before.count("\n") + 1, column, column + 1)


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> Complaint:
    mark = error.problem_mark or error.context_mark
    assert mark is not None, "libyaml and PyYAML both mark every error of theirs"
    place = _point(mark, file)
    context = f" {error.context}" if error.context else ""
    lines = text.splitlines()
    tab = mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t"
    hint = "it is a tab: indent with spaces" if tab else ""
    begun = error.context_mark
    notes = () if begun is None or begun.line == mark.line else (Note("it begins here", _point(begun, file)),)
    return Complaint(place, f"this is not YAML: {error.problem}{context}", hint, rules.SYNTAX, notes)


def _point(mark: Any, file: str) -> Mark:
    return Mark(file, mark.line + 1, mark.column + 1, mark.column + 2)
