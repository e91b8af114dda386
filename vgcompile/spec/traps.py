"""Text that is read otherwise than it looks: words and numbers that mean something else in YAML 1.1, keys without a value.

The values alone do not tell: the text is looked through a second time, for what stands there without quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from vgcompile.errors import Complaint, Mark
from vgcompile.rules import traps as rules
from vgcompile.spec.reading import LOADER

_TRUTH = re.compile(r"yes|no|on|off", re.IGNORECASE)
_OCTAL = re.compile(r"[-+]?0[0-9]+")


def traps(text: str, file: str) -> Iterator[Complaint]:
    """The warnings about a text that has been read without complaints."""
    anchors: dict[str, Mark] = {}
    aliased: set[str] = set()
    parents: list[list[Any]] = []  # of each open collection whether it is a mapping, how many nodes it holds, its latest key
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            parents.pop()
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        is_value = bool(parents) and parents[-1][0] and parents[-1][1] % 2 == 1
        if parents:
            parents[-1][1] += 1
        start: Any = event.start_mark
        end: Any = event.end_mark
        mark = Mark(file, start.line + 1, start.column + 1, end.column + 1 if end.line == start.line else 0)
        if isinstance(event, yaml.AliasEvent):
            aliased.add(str(event.anchor))
            continue
        if event.anchor:
            anchors[event.anchor] = Mark(file, mark.line, mark.column, mark.column + len(event.anchor) + 1)
        if isinstance(event, yaml.CollectionStartEvent):
            parents.append([isinstance(event, yaml.MappingStartEvent), 0, None])
            continue
        assert isinstance(event, yaml.ScalarEvent)
        if parents and not is_value:
            parents[-1][2] = event.value
        own = len(parents) > 1 and not is_value and (parents[0][2], event.value) == ("penalty", "on")  # a field of the language
        if event.implicit[0] and not own:
            yield from _scalar(event.value, mark, is_value)
    for anchor, mark in anchors.items():
        if anchor not in aliased:
            yield Complaint(mark, f"no alias uses the anchor &{anchor}", f"write *{anchor}, or remove it", rules.UNUSED_ANCHOR)


def _scalar(value: str, mark: Mark, is_value: bool) -> Iterator[Complaint]:
    if _TRUTH.fullmatch(value):
        yield Complaint(mark, f"{value} is a string here, and a truth value in YAML 1.1", f'write "{value}"', rules.TRUTH_WORD)
    elif _OCTAL.fullmatch(value):
        octal = re.fullmatch(r"[-+]?0([0-7]+)", value)
        hint = f"write {int(value)}" + (f", or 0o{octal[1].lstrip('0') or '0'} for {int(octal[1], 8)}" if octal else "")
        yield Complaint(mark, f"{value} is {int(value)} here, and octal in YAML 1.1", hint, rules.OCTAL)
    elif value == "" and is_value:
        yield Complaint(mark, "nothing stands behind this key", "give it a value, or remove it", rules.EMPTY_VALUE)
