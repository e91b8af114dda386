"""YAML text -> a tree that keeps what a reader of values drops: comments, blank lines, anchors and how a scalar was quoted.

    # of the net                      above, of the entry `layers`
    layers:  # all of them            beside, of the entry `layers`
      - {kind: dense}                 an entry of its own, without a key
      # - {kind: dropout}             tail, of the list

A comment line belongs to the entry below it, or, where none follows, to the list or mapping that it is indented with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import yaml

BLANK = ""  # among comments: an empty line

_LOADER = getattr(yaml, "CLoader", yaml.Loader)
_COMMENT = re.compile(r"#.*")  # outside of scalars nothing else has the sign


@dataclass(eq=False)
class Scalar:
    value: str
    plain: bool
    anchor: str = ""


@dataclass(eq=False)
class Alias:
    name: str


@dataclass(eq=False)
class Entry:
    """``key: value`` of a mapping, or an item of a list, and the comments around it."""

    key: Scalar | Alias | None = None
    value: Value = field(default_factory=lambda: Scalar("", True))
    above: list[str] = field(default_factory=list)
    beside: str = ""


@dataclass(eq=False)
class Collection:
    entries: list[Entry]
    mapping: bool
    anchor: str = ""
    tail: list[str] = field(default_factory=list)

    def get(self, key: str) -> Entry | None:
        return next((entry for entry in self.entries if isinstance(entry.key, Scalar) and entry.key.value == key), None)


Value = Scalar | Alias | Collection


def annotated(text: str) -> Entry:
    """The document of a text that reading.read takes, as an entry without a key."""
    return _Annotator(text).document()


@dataclass(frozen=True)
class _Comment:
    start: int
    column: int
    lines: list[str]  # the comment, behind a blank line where there is one in the text
    alone: bool  # on its line


class _Annotator:
    """Walks the events; a comment is given away as soon as it is known what stands around it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self.comments = self._comments()
        self.latest = Entry()  # that a comment at the end of a line is about

    def document(self) -> Entry:
        root = self.latest
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._value(root, next(self.events))
        if isinstance(root.value, Collection):
            root.value.tail += [line for comment in self.comments for line in comment.lines]
        return root

    def _comments(self) -> list[_Comment]:
        tokens: Iterator[Any] = yaml.scan(self.text, Loader=_LOADER)
        scalars: Iterator[Any] = (token for token in tokens if isinstance(token, yaml.ScalarToken))
        spans = [(token.start_mark.index, token.end_mark.index) for token in scalars]
        found, position = [], 0
        for start, end in [*spans, (len(self.text), len(self.text))]:
            for match in _COMMENT.finditer(self.text, position, start):
                line = self.text.rfind("\n", 0, match.start()) + 1
                alone = not self.text[line : match.start()].strip()
                blank = [BLANK] if alone and self._follows_blank(match.start()) else []
                found.append(_Comment(match.start(), match.start() - line, [*blank, match[0].rstrip()], alone))
            position = end
        return found

    def _follows_blank(self, position: int) -> bool:
        """Whether the line above that of ``position`` is empty."""
        end = self.text.rfind("\n", 0, position)
        start = self.text.rfind("\n", 0, max(end, 0)) + 1
        return end > 0 and not self.text[start:end].strip()

    def _value(self, entry: Entry, event: Any) -> None:
        self._trailing(event.start_mark.index)
        if isinstance(event, yaml.AliasEvent):
            entry.value = Alias(event.anchor or "")
        elif isinstance(event, yaml.ScalarEvent):
            entry.value = _scalar(event)
        else:
            entry.value = self._collection(entry, event)

    def _collection(self, owner: Entry, event: Any) -> Collection:
        mapping = isinstance(event, yaml.MappingStartEvent)
        made = Collection([], mapping, event.anchor or "")
        column = event.start_mark.column
        end = yaml.MappingEndEvent if mapping else yaml.SequenceEndEvent
        while not isinstance(item := next(self.events), end):
            entry = self._entry(item.start_mark.index)
            made.entries.append(entry)
            if mapping:
                entry.key = Alias(item.anchor or "") if isinstance(item, yaml.AliasEvent) else _scalar(item)
                item = next(self.events)
            self._value(entry, item)
        over: Any = item
        self._trailing(over.start_mark.index)
        while self.comments and self.comments[0].start < over.start_mark.index:
            if not event.flow_style and self.comments[0].column < column:
                break
            made.tail += self.comments.pop(0).lines
        if not made.entries:
            owner.above, made.tail = [*owner.above, *made.tail], []
        if event.flow_style:
            self.latest = owner
        return made

    def _entry(self, start: int) -> Entry:
        """An entry that begins here; the comment lines before it are its own."""
        self._trailing(start)
        above = []
        while self.comments and self.comments[0].start < start:
            above += self.comments.pop(0).lines
        line = self.text.rfind("\n", 0, start) + 1
        if not self.text[line:start].strip(" -") and self._follows_blank(start):
            above.append(BLANK)
        self.latest = Entry(above=above)
        return self.latest

    def _trailing(self, start: int) -> None:
        """Comments at the end of a line before ``start`` go to the latest entry."""
        while self.comments and self.comments[0].start < start and not self.comments[0].alone:
            self.latest.beside = " ".join(filter(None, (self.latest.beside, *self.comments.pop(0).lines)))


def _scalar(event: Any) -> Scalar:
    return Scalar(event.value, bool(event.implicit[0]), event.anchor or "")


def tidied(lines: list[str]) -> list[str]:
    """Of several blank lines one."""
    return [line for text, run in groupby(lines) for line in ([BLANK] if text == BLANK else run)]
