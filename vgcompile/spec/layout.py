"""The canonical layout of a model file: ``formatted(text)`` is the one way to write the values and comments of a text.

    keys        a file's in the order of its fields (document.py); kind, name, from first in a layer, and its layers last
    flow style  whatever holds no comment, is no list of mappings, and fits into a line
    quotes      where a reader of YAML 1.2 or 1.1 would take the bare word for something else

Layout alone: comments, anchors and the values themselves are kept, and the result is its own layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import dropwhile
from typing import Any

import yaml

from vgcompile.errors import Complaint, SelfCheckError, SpecError
from vgcompile.spec.annotated import BLANK, Alias, Collection, Entry, Scalar, Value, annotated, tidied
from vgcompile.spec.document import Document
from vgcompile.spec.reading import describe, plain, read

WIDTH = 120
INDENT = "  "

_FILE = tuple(field.alias or name for name, field in Document.model_fields.items())
_FIRST, _LAST = ("kind", "name", "from"), ("layers", "shortcut")
_LOADER = getattr(yaml, "CLoader", yaml.Loader)


def formatted(text: str, file: str = "<text>") -> str:
    """``text`` in canonical layout. Raises SpecError where it is not YAML, of the kind that models are written in."""
    tree = read(text, file)
    if not isinstance(tree.value, dict):
        raise SpecError([Complaint(tree.mark, f"a model is a mapping with inputs: and layers:, found {describe(tree.value)}")])
    for order in (True, False):  # an alias must not come to stand before its anchor
        made = laid_out(annotated(text), order)
        try:
            if _content(read(made, file).value) == _content(tree.value):
                return made
        except SpecError:
            continue
    raise SelfCheckError(f"{file}: a new layout would change what it says; it stays as it is")


def laid_out(root: Entry, order: bool = True) -> str:
    """The text of an annotated tree; with ``order`` its keys in that of their fields. The tree must not be used afterwards."""
    return "\n".join(_document(root, order)) + "\n"


def _content(value: Any) -> str:
    """What a file says, whatever the order of its keys, but for that of the inputs: the first one feeds the first layer."""
    inputs = value.get("inputs") if isinstance(value, dict) else None
    return json.dumps([value, list(inputs) if isinstance(inputs, dict) else None], sort_keys=True)


def _document(root: Entry, order: bool) -> list[str]:
    assert isinstance(root.value, Collection)
    return tidied([*dropwhile(_is_blank, [*root.above, *_block(root.value, 0, order, _FILE)])])


def _block(value: Collection, depth: int, order: bool, keys: Sequence[str] = ()) -> Iterator[str]:
    """The lines of a collection, an entry a line or more; ``keys`` is the order of a file's own."""
    indent = INDENT * depth
    for number, entry in enumerate(_in_order(value, keys) if order and value.mapping else value.entries):
        above = [*(dropwhile(_is_blank, entry.above) if number == 0 else entry.above)]
        lines = _pair(entry, depth, order, bool(keys)) if entry.key is not None else _item(entry, depth, order)
        yield from (line and indent + line for line in above)
        yield from lines
    yield from (line and indent + line for line in value.tail)


def _pair(entry: Entry, depth: int, order: bool, top: bool) -> Iterator[str]:
    assert entry.key is not None
    head = INDENT * depth + _head(entry.key)
    line = head + _flow(entry.value, within=False, order=order)
    if not isinstance(entry.value, Collection) or not _is_open(entry.value, line, top):
        yield line + _aside(entry)
        return
    yield (head + _anchor(entry.value)).rstrip() + _aside(entry)
    yield from _block(entry.value, depth + 1, order)


def _item(entry: Entry, depth: int, order: bool) -> Iterator[str]:
    """An item of a list; of one over several lines the first stands behind the dash, and its comments above it."""
    indent, value = INDENT * depth, entry.value
    hoisted = _hoisted(value, order) if isinstance(value, Collection) and not value.anchor else []
    line = f"{indent}- {_flow(value, within=False, order=order)}"
    if not isinstance(value, Collection) or not _is_open(value, line, False):
        yield from (indent + comment for comment in hoisted)
        yield line + _aside(entry)
        return
    lines = _block(value, depth + 1, order)
    if value.anchor:
        yield f"{indent}- &{value.anchor}" + _aside(entry)
    else:
        yield from (indent + comment for comment in ([entry.beside] if entry.beside else []) + hoisted)
        yield f"{indent}- {next(lines).lstrip()}"
    yield from lines


def _hoisted(value: Collection, order: bool) -> list[str]:
    """Takes the comments above the first line of a list's item: they are to stand above the item."""
    if not value.entries:
        return []
    first = (_in_order(value, ()) if order and value.mapping else value.entries)[0]
    comments, first.above = [line for line in first.above if not _is_blank(line)], []
    if first.key is None and isinstance(first.value, Collection) and not first.value.anchor:
        comments += _hoisted(first.value, order)
    return comments


def _is_blank(line: str) -> bool:
    return line == BLANK


def _aside(entry: Entry) -> str:
    return f"  {entry.beside}" if entry.beside else ""


def _anchor(value: Scalar | Collection) -> str:
    return f"&{value.anchor} " if value.anchor else ""


def _head(key: Scalar | Alias) -> str:
    return f"{_flow(key)} : " if isinstance(key, Alias) else f"{_flow(key)}: "


def _is_open(value: Collection, line: str, top: bool) -> bool:
    """Whether a collection is written over several lines, given its line in flow style."""
    return bool(value.entries) and (len(line) > WIDTH or _holds_lines(value, top))


def _holds_lines(value: Collection, top: bool) -> bool:
    """Whether a collection holds comments or a list of mappings, or is a table of a file's own, such as its inputs."""
    inner = [entry.value for entry in value.entries]
    mappings = [isinstance(item, Collection) and item.mapping for item in inner]
    if _commented(value) or (any(mappings) and not value.mapping) or (all(mappings) and value.mapping and top):
        return True
    return any(isinstance(item, Collection) and item.entries and _holds_lines(item, False) for item in inner)


def _commented(value: Collection) -> bool:
    return bool(value.tail) or any(entry.beside or any(entry.above) for entry in value.entries)


def _in_order(value: Collection, keys: Sequence[str]) -> list[Entry]:
    """Entries sorted as their kind of mapping is, others as they were written."""
    if not keys and value.get("kind") is None:
        return value.entries

    def rank(entry: Entry) -> int:
        name = entry.key.value if isinstance(entry.key, Scalar) else ""
        if keys:
            return keys.index(name) if name in keys else len(keys)
        last = _LAST.index(name) + 1 if name in _LAST and isinstance(entry.value, Collection) else 0  # a gru has `layers: 2`
        return _FIRST.index(name) if name in _FIRST else len(_FIRST) + last

    return sorted(value.entries, key=rank)


def _flow(value: Value, *, within: bool = True, order: bool = True) -> str:
    """In one line; ``within`` another value in flow style, where more characters mean something."""
    if isinstance(value, Alias):
        return f"*{value.name}"
    anchor = _anchor(value)
    if isinstance(value, Scalar):
        return anchor + _word(value, within)
    if not value.mapping:
        return f"{anchor}[{', '.join(_flow(entry.value, order=order) for entry in value.entries)}]"
    entries = _in_order(value, ()) if order else value.entries
    pairs = (_head(entry.key) + _flow(entry.value, order=order) for entry in entries if entry.key is not None)
    return f"{anchor}{{{', '.join(pairs)}}}"


def _word(scalar: Scalar, within: bool) -> str:
    """A scalar: a number as it was written, a string in quotes where it needs them."""
    if scalar.plain and not isinstance(plain(scalar.value), str):
        return scalar.value or "null"
    return scalar.value if _bare(scalar.value, within) else quoted(scalar.value)


@lru_cache(maxsize=4096)
def _bare(text: str, within: bool) -> bool:
    """Whether a string is read as itself without quotes, by readers of YAML 1.1 as well, to which ``no`` is false."""
    if not text or not isinstance(plain(text), str) or "\n" in text:
        return False
    old = yaml.SafeLoader.yaml_implicit_resolvers
    if any(pattern.match(text) for _, pattern in (*old.get(text[0], ()), *old.get(None, ()))):
        return False
    try:
        events = list(yaml.parse(f"{{{text}: [{text}]}}" if within else f"{text}: {text}", Loader=_LOADER))
    except yaml.YAMLError:
        return False
    words = [event.value for event in events if isinstance(event, yaml.ScalarEvent) and event.implicit[0]]
    return words == [text, text] and len(events) == (10 if within else 8)


def quoted(text: str) -> str:
    """In quotes: double ones, or single ones around what double ones would have to escape."""
    if text.isprintable() and ('"' in text or "\\" in text):
        return "'" + text.replace("'", "''") + "'"
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(c, c if c.isprintable() else _escape(c)) for c in text) + '"'


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
