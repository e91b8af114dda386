"""Complaints for a person: the source line, a caret range under it, and what is to be known beside.

    model.yaml:11:5: error[VG302]: a sum needs equal shapes: ...
       9 |   - {kind: dense, name: wide, units: 64}
         |     ------------------------------------ 'wide' is [batch, 64]
      11 |   - {kind: add, name: both, from: [wide, narrow]}
         |     ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
       = note: copy 3 of block 'hidden' at line 5
       = help: ...

Plain text, or the same in colours on a terminal that has them.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import accumulate, takewhile
from pathlib import Path
from typing import TextIO

from vgcompile.errors import Complaint, Mark
from vgcompile.rules.text import UNCLASSIFIED

WIDEST = 120  # cells of a source line that are shown, about the place that is meant
_BEFORE = 40  # of them, those before the place
_TAB = "    "
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_TRAILING = re.compile(r"(?<!\s)\s+(#.*)?$")  # from where blanks begin: else a run of them is tried at each
_STYLES = {"error": "bold red", "warning": "bold yellow", "other": "bold blue", "margin": "blue", "": ""}

Line = list[tuple[str, str]]  # pieces of text, each with the name of its style


def show(complaints: Iterable[Complaint], stream: TextIO | None = None, texts: Mapping[str, str] | None = None) -> None:
    """Print complaints in full. ``texts`` holds sources by file name; others are read from their files."""
    stream = stream or sys.stderr
    sources = _Sources(texts or {})
    lines = [line for complaint in complaints for line in _block(complaint, sources)]
    if not stream.isatty():
        stream.writelines("".join(text for text, _ in line) + "\n" for line in lines)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False)  # Rich itself leaves colours out where NO_COLOR is set
    for line in lines:
        console.print(Text.assemble(*((text, _STYLES[style]) for text, style in line)), soft_wrap=True)


class _Sources:
    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts
        self.lines = cache(self._lines)

    def _lines(self, file: str) -> list[str]:
        text = self.texts.get(file)
        try:
            text = Path(file).read_bytes().decode("utf-8-sig") if text is None else text
        except (OSError, ValueError):
            return []
        return _LINE_BREAK.split(text)

    def line(self, mark: Mark) -> str | None:
        lines = self.lines(mark.file)
        return lines[mark.line - 1] if 0 < mark.line <= len(lines) else None


def _block(complaint: Complaint, sources: _Sources) -> Iterator[Line]:
    severity = complaint.severity
    code = "" if complaint.rule is UNCLASSIFIED else f"[{complaint.rule.code}]"
    yield [(f"{complaint.mark}: ", "margin"), (f"{severity}{code}", severity), (f": {complaint.message}", "")]
    places: list[tuple[Mark, str]] = [(note.mark, note.message) for note in complaint.notes if note.mark is not None]
    places.sort(key=lambda place: (place[0].file != complaint.mark.file, place[0]))
    before = [place for place in places if place[0] < complaint.mark and place[0].file == complaint.mark.file]
    after = [place for place in places if place not in before]
    width = max([len(str(mark.line)) for mark, _ in places] + [len(str(complaint.mark.line)), 3])
    file = complaint.mark.file
    for mark, label, style in (
        *((mark, label, "other") for mark, label in before),
        (complaint.mark, "", severity),
        *((mark, label, "other") for mark, label in after),
    ):
        yield from _excerpt(mark, label, style, file, width, sources)
        file = mark.file
    for message in (*complaint.mark.origin, *(note.message for note in complaint.notes if note.mark is None)):
        yield [(f"{' ' * width} = ", "margin"), ("note: ", "other"), (message, "")]
    if complaint.hint:
        yield [(f"{' ' * width} = ", "margin"), ("help: ", "other"), (complaint.hint, "")]


def _excerpt(mark: Mark, label: str, style: str, file: str, width: int, sources: _Sources) -> Iterator[Line]:
    """A source line and the range under it; of another file than the complaint's, with that file's name."""
    line = sources.line(mark)
    if line is None:
        if label:
            yield [(f"{' ' * width} = ", "margin"), ("note: ", "other"), (f"{mark}: {label}", "")]
        return
    if mark.file != file:
        yield [(f"{' ' * width}--> {mark.file}", "margin")]
    shown, indent, length = _window(line, mark)
    yield [(f"{mark.line:{width}} | ", "margin"), (shown, "")]
    carets = "-" * length if style == "other" else "^" + "~" * (length - 1)
    yield [(f"{' ' * width} | {' ' * indent}", "margin"), (f"{carets} {label}".rstrip(), style)]


def _window(line: str, mark: Mark) -> tuple[str, int, int]:
    """What is shown of a line, the cells before the place in it, and the cells of the place."""
    first = min(mark.column - 1, len(line))
    last = max(first, mark.end - 1 if mark.end else len(_TRAILING.sub("", line)))
    begin = max(0, first - _BEFORE) if len(line) > WIDEST or _cells(line) > WIDEST else 0
    before = ("..." if begin else "") + _plain(line[begin:first])
    end = first + WIDEST + 1  # a longer rest is cut in any case, and may be a megabyte
    place, behind = _plain(line[first : min(last, end)]), _plain(line[last : max(last, end)])
    indent, whole = _cells(before), before + place + behind
    shown = _beginning(whole, WIDEST)
    return shown + ("..." if shown != whole else ""), indent, max(1, min(_cells(place), WIDEST - indent))


def _beginning(text: str, cells: int) -> str:
    """As much of a text as these cells hold."""
    if text.isascii():
        return text[:cells]
    ends = accumulate(map(_width, text))
    return text[: sum(1 for _ in takewhile(lambda end: end <= cells, ends))]


def _plain(text: str) -> str:
    """Tabs as blanks; what would steer a terminal as a box."""
    return "".join(_TAB if c == "\t" else c if unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _cells(text: str) -> int:
    """Columns of a terminal."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(character: str) -> int:
    """Two columns of a wide character, none of a combining one."""
    return 2 if unicodedata.east_asian_width(character) in "WF" else 0 if unicodedata.combining(character) else 1
