"""Warnings that the text takes back: ``# vgcompile: ignore VG501, VG504`` on the line they are about; a reason may follow.

Whether a finding of an analysis (VG8) is there to be ignored, reading the text does not tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from vgcompile.errors import Complaint, Mark, nearest
from vgcompile.rules import CATALOGUE
from vgcompile.rules.traps import UNUSED_IGNORE

_IGNORE = re.compile(r"#\s*vgcompile:\s*(?P<word>ignore)\b:?\s*(?P<codes>([A-Za-z]+[0-9]+\b[\s,]*)*)")
_CODE = re.compile(r"\w+")
LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # YAML 1.1's, which both of PyYAML's scanners count


def without_ignored(warnings: Iterable[Complaint], text: str, file: str) -> Iterator[Complaint]:
    """The warnings that no comment ignores, and one for each code of a comment that ignores nothing."""
    ignored = {(mark.line, code): mark for code, mark in _ignores(text, file)}
    used = set()
    for warning in warnings:
        place = (warning.mark.line, warning.rule.code)
        if place in ignored:
            used.add(place)
        else:
            yield warning
    for place, mark in ignored.items():
        if place not in used and not _is_of_analysis(place[1]):
            yield Complaint(mark, *_idle(place[1]), UNUSED_IGNORE)


def ignored(text: str, file: str) -> set[tuple[int, str]]:
    """Lines and codes that are ignored there."""
    return {(mark.line, code) for code, mark in _ignores(text, file)}


def text_of(file: str) -> str:
    """The text of a file that another one includes; "" of what is none, such as an option."""
    try:
        return Path(file).read_bytes().decode("utf-8-sig")
    except (OSError, ValueError):
        return ""


def _ignores(text: str, file: str) -> Iterator[tuple[str, Mark]]:
    if "vgcompile:" not in text:
        return
    for number, line in enumerate(LINE_BREAK.split(text), 1):
        comment = _IGNORE.search(line)
        if comment is None:
            continue
        if not comment["codes"]:
            yield "", Mark(file, number, comment.start("word") + 1, comment.end("word") + 1)
        for code in _CODE.finditer(comment["codes"]):
            begin = comment.start("codes") + 1
            yield code[0], Mark(file, number, begin + code.start(), begin + code.end())


def _is_of_analysis(code: str) -> bool:
    rule = CATALOGUE.get(code)
    return rule is not None and bool(rule.analysed)


def _idle(code: str) -> tuple[str, str]:
    if not code:
        return "this says not what it ignores", "write # vgcompile: ignore CODE, with a warning's code"
    rule = CATALOGUE.get(code)
    if rule is None:
        return f"there is no rule {code}", nearest(code, CATALOGUE) or "`vgcompile explain` lists them"
    if rule.severity == "error":
        return f"{code} is an error, which cannot be ignored", "mend it, and remove the comment"
    return f"no {code} on this line to ignore", "remove the comment"
